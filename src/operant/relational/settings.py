"""The settings of an estimator: checked, and as a JSON file beside its bank."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np

from operant.core.checks import DataError, InputError
from operant.relational.operators.base import RelationalOperator
from operant.relational.operators.registry import is_named

_FILE = "extrapolator.json"
_FORMAT = 2
_RENAMED = {"shell": "outer_share"}
"""Settings that format 1 calls otherwise."""
_VALID: dict[str, Callable[[Any], bool]] = {
    "operator": lambda v: isinstance(v, str) or (isinstance(v, list) and all(isinstance(o, str) for o in v)),
    "level": lambda v: isinstance(v, float),
    "on_inapplicable": lambda v: isinstance(v, str),
    "outer_share": lambda v: isinstance(v, float),
    "random_state": lambda v: v is None or (isinstance(v, int) and 0 <= v < 2**32),
}
"""Setting -> whether a value can be one."""


def check_settings(estimator: Any) -> None:
    """Raise for settings that are out of range; ``fit`` checks them, since scikit-learn's ``__init__`` must not.

    Args:
        estimator: with operator, level, on_inapplicable and outer_share.

    Raises:
        InputError: for the first setting that cannot be.
    """
    operator = estimator.operator
    listed: list[Any] = list(operator) if isinstance(operator, (list, tuple)) else [operator]
    if strange := [o for o in listed if not isinstance(o, (str, RelationalOperator))]:
        raise InputError(f"operator must be a name, a RelationalOperator or a list of these, got {strange[0]!r}.")
    if not listed:
        raise InputError("operator must name at least one, got an empty list.")
    for name in ("level", "outer_share"):
        if not isinstance(value := getattr(estimator, name), Real):
            raise InputError(f"{name} must be a number between 0 and 1, got {value!r}.")
        if not 0 < value < 1:  # pyright: ignore[reportOperatorIssue]
            raise InputError(f"{name} must lie between 0 and 1, got {value}.")
    if estimator.on_inapplicable not in ("warn", "raise", "baseline"):
        raise InputError(f"on_inapplicable must be warn, raise or baseline, got {estimator.on_inapplicable!r}.")


def draw_seed(random_state: int | np.random.RandomState | None) -> int:
    """The seed that a ``random_state`` stands for: itself, a draw of it, or a fresh one for None."""
    if isinstance(random_state, np.random.RandomState):
        return int(random_state.randint(2**31 - 1))
    if random_state is None:
        return int(np.random.default_rng().integers(2**31))
    return int(random_state)


def saved_names(operator: Any) -> list[str]:
    """The names of operators, since no code is saved.

    Raises:
        InputError: if an operator has settings that its name does not tell.
    """
    listed = [operator] if isinstance(operator, (str, RelationalOperator)) else list(operator)
    names = [o if isinstance(o, str) else o.name for o in listed]
    for o, name in zip(listed, names, strict=True):
        if isinstance(o, RelationalOperator) and not is_named(o):
            raise InputError(
                f"{o!r} has settings that its name {name!r} does not tell, and only names are saved. Save the bank and "
                "make the estimator again in code."
            )
    return names


def write_settings(folder: Path, settings: Mapping[str, Any]) -> Path:
    """Write the settings; return the folder."""
    text = json.dumps({"format": _FORMAT, **settings}, indent=1)
    (folder / _FILE).write_text(text, encoding="utf-8")
    return folder


def read_settings(folder: Path) -> dict[str, Any]:
    """Read what :func:`write_settings` wrote, in this format or the first.

    Raises:
        DataError: if the file is missing, damaged or of another format.
    """
    path = folder / _FILE
    if not path.is_file():
        raise DataError(f"expected {_FILE} in {folder}, as Extrapolator.save writes it.")
    try:
        found: Any = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: expected the settings of an estimator ({error}). Save it again.") from error
    settings: dict[str, Any] = found if isinstance(found, dict) else {}
    written = settings.pop("format", None)
    if written not in (1, _FORMAT):
        raise DataError(f"{path} is of another format than {_FORMAT}: save it again with this version.")
    if written == 1:
        settings = {_RENAMED.get(name, name): value for name, value in settings.items()}
    wrong = [name for name, fits in _VALID.items() if not fits(settings.get(name))]
    if wrong or settings.keys() != _VALID.keys():
        odd = sorted({*wrong, *(settings.keys() ^ _VALID.keys())})
        raise DataError(f"{path}: {', '.join(odd)} cannot be read. Save the estimator again.")
    return settings
