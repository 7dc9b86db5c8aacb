"""Published advantage rules and weights, kept to compare with, and the audit of what a rule optimizes."""

from operant.published.audit import Audit, audit, audit_records
from operant.published.paper import RECIPES, Quantiles, Recipe
from operant.published.rules import RULES, PublishedRule, credit_of

__all__ = [
    "Audit",
    "PublishedRule",
    "Quantiles",
    "RECIPES",
    "RULES",
    "Recipe",
    "audit",
    "audit_records",
    "credit_of",
]
