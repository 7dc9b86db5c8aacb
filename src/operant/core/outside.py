"""Packages of others that add strategies and operators: the entry points of the group ``operant``."""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points

from operant.core.checks import InputError

GROUP = "operant"


@cache
def load_outside() -> tuple[str, ...]:
    """Import every module that an installed package names, once a process, and return the names.

    A package names its module in ``pyproject.toml``, as ``mine = "my_package.module"`` in the table
    ``[project.entry-points.operant]``. Its import registers what it defines. Strategies are looked for there only if
    their string is not known otherwise.

    Raises:
        InputError: if one does not load.
    """
    names: list[str] = []
    for point in sorted(entry_points(group=GROUP)):
        try:
            point.load()
        except Exception as error:  # the module of another package may raise anything
            package = point.dist.name if point.dist is not None else "a package"
            raise InputError(
                f"{package} extends operant by {point.value}, which does not load: {type(error).__name__}: {error}. "
                f"Repair or uninstall {package}."
            ) from error
        names.append(point.name)
    return tuple(names)
