"""operant: train models for the way they will be used.

A test-time strategy (pass@N, majority vote, best-of-N) is a value. From it follow an evaluation with error
bars, an SFT loss and RL weights that maximise what is deployed.
"""

from operant.core.checks import OperantError
from operant.estimators import expected_value
from operant.objectives.rl import rollout_weights
from operant.objectives.sft import answer_loss
from operant.objectives.sft import loss as sft_loss
from operant.published import audit
from operant.strategies import (
    AllOf,
    BestOf,
    Majority,
    Mixture,
    Outcomes,
    PassAt,
    Sampler,
    Threshold,
    check_strategy,
    credit,
    curve,
    estimate,
    from_function,
    parse,
)

__version__ = "0.1.0"

__all__ = [
    "AllOf",
    "BestOf",
    "Majority",
    "Mixture",
    "OperantError",
    "Outcomes",
    "PassAt",
    "Sampler",
    "Threshold",
    "answer_loss",
    "audit",
    "check_strategy",
    "credit",
    "curve",
    "estimate",
    "expected_value",
    "from_function",
    "parse",
    "rollout_weights",
    "sft_loss",
]
