"""Text tasks outside the known ones: a target is a known anchor task plus a known transformation."""

from operant.language.adapted import (
    AdaptedTextTask,
    FewShotWarning,
    Hypothesis,
    RankedCandidate,
    Vote,
)
from operant.language.bank import CannotRunError, TextBank, TextTask
from operant.language.em import EMRound
from operant.language.examples import TextApplicability
from operant.language.extrapolator import LanguageExtrapolator
from operant.language.problems import gym_ciphers, random_words, sparse_parity, string_chains, string_programs
from operant.language.proposer import Proposer
from operant.language.relations import Candidate, Compose, Lesson, Relation, Toggle
from operant.language.splits import LeakError, TextSplit, hold_out_combinations, hold_out_order

__all__ = [
    "AdaptedTextTask",
    "Candidate",
    "CannotRunError",
    "Compose",
    "EMRound",
    "FewShotWarning",
    "Hypothesis",
    "LanguageExtrapolator",
    "LeakError",
    "Lesson",
    "Proposer",
    "RankedCandidate",
    "Relation",
    "TextApplicability",
    "TextBank",
    "TextSplit",
    "TextTask",
    "Toggle",
    "Vote",
    "gym_ciphers",
    "hold_out_combinations",
    "hold_out_order",
    "random_words",
    "sparse_parity",
    "string_chains",
    "string_programs",
]
