"""The same strategies off-policy, for a known distribution of answers, for budgets beyond M, and as semivalues."""

from operant.estimators.extrapolated import bias_beyond, credit_beyond, estimate_beyond
from operant.estimators.offpolicy import OffPolicy, estimate_offpolicy
from operant.estimators.population import expected_value, log_expected_value
from operant.estimators.semivalue import semivalue, shapley

__all__ = [
    "OffPolicy",
    "bias_beyond",
    "credit_beyond",
    "estimate_beyond",
    "estimate_offpolicy",
    "expected_value",
    "log_expected_value",
    "semivalue",
    "shapley",
]
