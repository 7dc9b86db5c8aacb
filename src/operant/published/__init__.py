"""Published advantage rules and weights, kept to compare with, and the audit of what a rule optimizes."""

from operant.published.audit import Audit, audit

__all__ = ["Audit", "audit"]
