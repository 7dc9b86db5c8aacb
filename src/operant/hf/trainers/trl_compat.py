"""The private methods and attributes of TRL that the trainers here override or read.

A trainer compares them with the installed TRL when it is built, so that a release that moved one of them is an error
that names it, and never another objective.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from operant.core.checks import OperantError

RL_METHODS: Mapping[str, tuple[str, ...]] = {
    "_calculate_rewards": ("self", "inputs", "prompts", "completions", "completion_ids_list"),
    "_generate_and_score_completions": ("self", "inputs"),
    "_prepare_inputs": ("self", "generation_batch"),
}
SFT_METHODS: Mapping[str, tuple[str, ...]] = {
    "compute_loss": ("self", "model", "inputs", "return_outputs", "num_items_in_batch"),
    "get_batch_samples": ("self", "epoch_iterator", "num_batches", "device"),
    "_prepare_dataset": (
        "self",
        "dataset",
        "processing_class",
        "args",
        "packing",
        "formatting_func",
        "dataset_name",
    ),
    "_set_signature_columns_if_needed": ("self",),
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


class UnsupportedTRLError(OperantError):
    """The installed TRL lacks a method, an attribute or an output that the trainers here need."""


def check_methods(trainer: type, methods: Mapping[str, tuple[str, ...]] = RL_METHODS) -> None:
    """Compare the signatures of the overridden methods with those of the installed TRL.

    Raises:
        UnsupportedTRLError: if one is missing or takes other arguments.
    """
    for name, expected in methods.items():
        method = getattr(trainer, name, None)
        found = None if method is None else tuple(inspect.signature(method).parameters)
        if found != expected:
            what = "does not exist" if found is None else f"takes {found}"
            raise UnsupportedTRLError(f"expected {trainer.__name__}.{name}{expected}, but it {what}. {_advice()}")


def check_attributes(trainer: object) -> None:
    """Check that a built trainer has every attribute that is read here.

    Raises:
        UnsupportedTRLError: naming what is missing.
    """
    missing = [name for name in RL_ATTRIBUTES if not hasattr(trainer, name)]
    if missing:
        raise UnsupportedTRLError(f"expected {type(trainer).__name__} to have {', '.join(missing)}. {_advice()}")


def check_output(out: Mapping[str, Any], rewards: int, processes: int) -> None:
    """Check what TRL returns from generation and scoring.

    Raises:
        UnsupportedTRLError: if a key is missing, or the rewards are not those of all processes.
    """
    missing = [name for name in OUTPUT if name not in out]
    if missing:
        raise UnsupportedTRLError(
            f"expected {', '.join(missing)} in the output of generation, found {sorted(out)}. {_advice()}"
        )
    rows = len(out["advantages"])
    if rows * processes != rewards:
        raise UnsupportedTRLError(
            f"expected {rows * processes} rewards, those of all {processes} processes, got {rewards}. {_advice()}"
        )


def _advice() -> str:
    return (
        f"The installed trl {version('trl')} with transformers {version('transformers')} is not supported. operant was "
        "tested with trl 0.29 to 1.16: install one of these, and report this message."
    )
