"""L1, room A: test-time strategies, their exact values, credits and success curves."""

from operant.strategies.base import (
    FunctionStrategy,
    Outcome,
    Outcomes,
    Strategy,
    Success,
    from_function,
)
from operant.strategies.check import check_strategy
from operant.strategies.counts import AllOf, CountStrategy, PassAt, Threshold
from operant.strategies.mixture import Mixture
from operant.strategies.parse import parse
from operant.strategies.ranking import BestOf
from operant.strategies.routes import Curve, Estimate, credit, curve, estimate, route_of
from operant.strategies.voting import Majority

__all__ = [
    "AllOf",
    "BestOf",
    "CountStrategy",
    "Curve",
    "Estimate",
    "FunctionStrategy",
    "Majority",
    "Mixture",
    "Outcome",
    "Outcomes",
    "PassAt",
    "Strategy",
    "Success",
    "Threshold",
    "check_strategy",
    "credit",
    "curve",
    "estimate",
    "from_function",
    "parse",
    "route_of",
]
