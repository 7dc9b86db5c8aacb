"""The places where our trainers hang on TRL's: checked when a trainer is built, with a message that says what moved."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from operant.core.checks import OperantError

RL: Mapping[str, tuple[str, ...]] = {
    "_calculate_rewards": ("self", "inputs", "prompts", "completions", "completion_ids_list"),
    "_generate_and_score_completions": ("self", "inputs"),
    "_prepare_inputs": ("self", "generation_batch"),
}
RL_ATTRIBUTES = (
    "_metrics",
    "_logs",
    "reward_funcs",
    "reward_func_names",
    "reward_weights",
    "num_generations",
    "temperature",
)
OUTPUT = ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask", "advantages")


class SeamError(OperantError):
    """TRL changed where operant hangs on it."""


def check_methods(trainer: type, methods: Mapping[str, tuple[str, ...]] = RL) -> None:
    """Compare the signatures that we override with those of this TRL.

    Raises:
        SeamError: if one is missing or takes other arguments.
    """
    for name, expected in methods.items():
        method = getattr(trainer, name, None)
        found = None if method is None else tuple(inspect.signature(method).parameters)
        if found != expected:
            what = "is gone" if found is None else f"takes {found}"
            raise SeamError(f"expected {trainer.__name__}.{name}{expected}, but it {what}. {_versions()}")


def check_attributes(trainer: object) -> None:
    """Check what a built trainer must have.

    Raises:
        SeamError: naming what is missing.
    """
    missing = [name for name in RL_ATTRIBUTES if not hasattr(trainer, name)]
    if missing:
        raise SeamError(f"expected {type(trainer).__name__} to have {', '.join(missing)}. {_versions()}")


def check_output(out: Mapping[str, Any], rewards: int, processes: int) -> None:
    """Check what TRL returns from generation and scoring.

    Raises:
        SeamError: if a key is missing, or the rewards are not those of all ranks in whole groups.
    """
    missing = [name for name in OUTPUT if name not in out]
    if missing:
        raise SeamError(f"expected {', '.join(missing)} in what generation returns, found {sorted(out)}. {_versions()}")
    rows = len(out["advantages"])
    if rows * processes != rewards:
        raise SeamError(
            f"expected the rewards of all {processes} ranks, {rows * processes} of them, got {rewards}. {_versions()}"
        )


def _versions() -> str:
    from importlib.metadata import version

    return (
        f"This is trl {version('trl')} with transformers {version('transformers')}; operant was tested with "
        "trl 0.29 to 1.16. Install one of these, and report this message."
    )
