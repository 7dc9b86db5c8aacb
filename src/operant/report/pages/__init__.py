"""The pages, a package each; all of them are imported here, so that each registers itself."""

from importlib import import_module
from pkgutil import iter_modules

for _module in iter_modules(__path__, f"{__name__}."):
    import_module(_module.name)
