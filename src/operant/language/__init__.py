"""Text tasks outside the known ones: a target is a known anchor task plus a known transformation."""

from operant.language.bank import (
    CannotRunError,
    LeakError,
    TextBank,
    TextSplit,
    TextTask,
    hold_out_combinations,
    hold_out_order,
)
from operant.language.problems import gym_ciphers, random_words, sparse_parity, string_chains, string_programs
from operant.language.relations import Candidate, Compose, Relation, Toggle

__all__ = [
    "Candidate",
    "CannotRunError",
    "Compose",
    "LeakError",
    "Relation",
    "TextBank",
    "TextSplit",
    "TextTask",
    "Toggle",
    "gym_ciphers",
    "hold_out_combinations",
    "hold_out_order",
    "random_words",
    "sparse_parity",
    "string_chains",
    "string_programs",
]
