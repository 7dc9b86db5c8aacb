"""The pages, a package each."""

from importlib import import_module
from pkgutil import iter_modules


def register_pages() -> None:
    """Import every page of this folder, so that each registers itself."""
    for module in iter_modules(__path__, f"{__name__}."):
        import_module(module.name)
