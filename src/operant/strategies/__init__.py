"""L1, room A: test-time strategies, their exact values, credits and success curves."""

from operant.strategies.audit import Audit, audit
from operant.strategies.base import (
    FunctionStrategy,
    Outcome,
    Outcomes,
    Strategy,
    Success,
    from_function,
)
from operant.strategies.beyond import bias_beyond, credit_beyond, estimate_beyond
from operant.strategies.check import check_strategy
from operant.strategies.classes import equivalence_classes
from operant.strategies.counts import AllOf, CountStrategy, Graded, PassAt, Threshold
from operant.strategies.lead import StopAtLead
from operant.strategies.mixture import Harmonic, Mixture
from operant.strategies.offpolicy import OffPolicy, estimate_offpolicy
from operant.strategies.parse import parse
from operant.strategies.population import expected_value, log_expected_value
from operant.strategies.ranking import BestOf, LStatistic, Median, RankStrategy, TopMean
from operant.strategies.routes import Curve, Estimate, credit, curve, estimate, route_of
from operant.strategies.sampler import Sampler
from operant.strategies.semivalue import semivalue, shapley
from operant.strategies.sequential import FirstAccepted, Priced, expected_draws
from operant.strategies.stopping import RaceTo
from operant.strategies.topvote import TopVote
from operant.strategies.verifier import NoisyPassAt, Verified
from operant.strategies.voting import Majority, Quorum
from operant.strategies.weighted import WeightedVote

__all__ = [
    "AllOf",
    "Audit",
    "BestOf",
    "CountStrategy",
    "Curve",
    "Estimate",
    "FirstAccepted",
    "FunctionStrategy",
    "Graded",
    "Harmonic",
    "LStatistic",
    "Majority",
    "Median",
    "Mixture",
    "NoisyPassAt",
    "OffPolicy",
    "Outcome",
    "Outcomes",
    "PassAt",
    "Priced",
    "Quorum",
    "RaceTo",
    "RankStrategy",
    "Sampler",
    "StopAtLead",
    "Strategy",
    "Success",
    "Threshold",
    "TopMean",
    "Verified",
    "audit",
    "bias_beyond",
    "TopVote",
    "WeightedVote",
    "check_strategy",
    "credit",
    "credit_beyond",
    "curve",
    "equivalence_classes",
    "estimate",
    "estimate_beyond",
    "estimate_offpolicy",
    "expected_draws",
    "expected_value",
    "from_function",
    "log_expected_value",
    "parse",
    "route_of",
    "semivalue",
    "shapley",
]
