"""operant: train models for the way they will be used.

A test-time strategy (pass@N, majority vote, best-of-N) is a value. From it follow an evaluation with error
bars, an SFT loss and RL weights that maximize what is deployed.
"""

from operant.core.checks import OperantError
from operant.estimators import expected_value
from operant.objectives import advantage, answer_loss, credit, sft_loss
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
    "advantage",
    "answer_loss",
    "audit",
    "check_strategy",
    "credit",
    "curve",
    "estimate",
    "expected_value",
    "from_function",
    "parse",
    "sft_loss",
]
