"""The language model behind an extrapolator or a proposer: how it is made, how fast it learns, and its folder."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from operant.core.checks import ConfigError, DataError
from operant.core.record import lock_folder, read_records, write_records
from operant.hf.rollouts.policy import Policy, add_lora, byte_policy, load_policy

EMBEDDED = "embedded"
SETTINGS = "settings.jsonl"
BANK = "bank.jsonl"


def make_policy(
    model: str, words: Sequence[str], *, hidden: int, layers: int, lora_rank: int, seed: int, device: str
) -> Policy:
    """The embedded byte model with ``words`` as one token each, or a Hub id or folder, with LoRA if it has a rank.

    Raises:
        ConfigError: for LoRA on the embedded model.
        DataError: if nothing is found under the name.
    """
    if model == EMBEDDED:
        if lora_rank:
            raise ConfigError("the embedded model has random weights: LoRA has nothing to adapt. Set lora_rank=0.")
        policy = byte_policy(words, seed=seed, hidden=hidden, layers=layers)
        where = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        return Policy(policy.model.to(where), policy.tokenizer)
    dtype = None if lora_rank else torch.float32  # trained weights need float32 to take small steps
    policy = load_policy(model, device=device, dtype=dtype, trainable=True)
    return add_lora(policy, rank=lora_rank, alpha=2 * lora_rank, seed=seed) if lora_rank else policy


def rate_of(learning_rate: float | None, model: str, lora_rank: int) -> float:
    """The learning rate; where none is given, 3e-3 for the embedded model, 2e-4 with LoRA, else 2e-5."""
    if learning_rate is not None:
        return learning_rate
    return 3e-3 if model == EMBEDDED else 2e-4 if lora_rank else 2e-5


@contextmanager
def claim(folder: Path, settings: Mapping[str, Any], what: str) -> Generator[None]:
    """Lock a folder for one fit with these settings, and write them.

    Args:
        folder: of the run.
        settings: a record. A run that was killed there must have had the same.
        what: the class whose ``load`` reads the folder, for the errors.

    Raises:
        DataError: if the folder holds another run, or a fitted model.
    """
    with lock_folder(folder):
        if (folder / BANK).is_file():
            raise DataError(f"{folder} holds a fitted model: {what}.load reads it.")
        file, now = folder / SETTINGS, dict(settings)
        if file.is_file() and (before := read_records(file)[0]) != now:
            changed = [k for k in now if now[k] != before.get(k)]
            raise DataError(f"{folder} holds a run with other settings ({', '.join(changed)}). Take another folder.")
        write_records(file, [now])
        yield
