"""Strategies inside RL frameworks that take an advantage estimator: verl and SkyRL.

``group`` is the estimator on plain tensors, ``votes`` encodes answers in its rewards. ``verl`` and ``skyrl`` register
it with the framework, which only they import.
"""

from operant.plugins.group import token_advantages
from operant.plugins.votes import encode_vote

__all__ = ["encode_vote", "token_advantages"]
