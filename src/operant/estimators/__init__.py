"""Estimates and weights off-policy, for a known distribution of answers, for budgets N > M, and as semivalues."""

from operant.estimators.extrapolated import Bias, Extrapolation
from operant.estimators.offpolicy import OffPolicy, estimate_offpolicy
from operant.estimators.population import expected_value, log_expected_value
from operant.estimators.semivalue import semivalue, shapley
from operant.estimators.transform import Transform

__all__ = [
    "Bias",
    "Extrapolation",
    "OffPolicy",
    "Transform",
    "estimate_offpolicy",
    "expected_value",
    "log_expected_value",
    "semivalue",
    "shapley",
]
