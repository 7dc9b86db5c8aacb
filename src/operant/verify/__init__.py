"""Verifiers: whether the answer of a completion is right, and which answers are the same."""

from operant.verify.base import Prompt, Verdict, clean_target
from operant.verify.check import Check, failures, make_verifier, verify
from operant.verify.grader import Verifier
from operant.verify.registry import VERIFIERS

__all__ = ["VERIFIERS", "Check", "Prompt", "Verdict", "Verifier", "clean_target", "failures", "make_verifier", "verify"]
