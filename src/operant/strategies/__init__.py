"""Test-time strategies as values: their exact values, credits and success curves."""

from operant.strategies.base import FunctionStrategy, Strategy, Success, Traits, from_function
from operant.strategies.check import LawError, check_strategy
from operant.strategies.classes import equivalence_classes
from operant.strategies.counts import AllOf, CountStrategy, Graded, PassAt, Threshold
from operant.strategies.mixture import Harmonic, Mixture
from operant.strategies.outcomes import Outcome, Outcomes
from operant.strategies.parse import parse
from operant.strategies.ranking import BestOf, LStatistic, Median, RankStrategy, TopMean
from operant.strategies.routes import BudgetCurve, Estimate, curve, estimate, route_of
from operant.strategies.sampler import Sampler
from operant.strategies.sequential import FirstAccepted, Priced, expected_draws
from operant.strategies.verifier import NoisyPassAt, Verified
from operant.strategies.votes.lead import StopAtLead
from operant.strategies.votes.majority import Majority, Quorum
from operant.strategies.votes.race import RaceTo
from operant.strategies.votes.topvote import TopVote
from operant.strategies.votes.weighted import WeightedVote

__all__ = [
    "AllOf",
    "BestOf",
    "BudgetCurve",
    "CountStrategy",
    "Estimate",
    "FirstAccepted",
    "FunctionStrategy",
    "Graded",
    "Harmonic",
    "LStatistic",
    "LawError",
    "Majority",
    "Median",
    "Mixture",
    "NoisyPassAt",
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
    "TopVote",
    "Traits",
    "Verified",
    "WeightedVote",
    "check_strategy",
    "curve",
    "equivalence_classes",
    "estimate",
    "expected_draws",
    "from_function",
    "parse",
    "route_of",
]
