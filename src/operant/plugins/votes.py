"""A verdict and an answer in one float32 reward, for frameworks that pass only rewards to an estimator."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from operant.core.checks import InputError

# Spacing of float32 between 1 and 2: every code is exact there, and so between 0 and 1.
_STEP = 2.0**-23
_CODES = 2**16


def encode_vote(correct: bool, answer: str | None) -> float:
    """correct + h 2^-23, where h < 2^16 is 0 without an answer and a hash of the answer otherwise.

    The answer moves the reward by less than 1/128. Two answers of a prompt share a code with probability 1.5e-5.

    >>> encode_vote(True, None), 1 < encode_vote(True, "42") < 1.01, encode_vote(False, "7") < 0.01
    (1.0, True, True)
    """
    if answer is None:
        return float(correct)
    # Not hash(): it differs between the processes of a run. Code 0 is kept for no answer.
    digest = hashlib.blake2b(answer.encode(), digest_size=8).digest()
    return float(correct) + _STEP * (1 + int.from_bytes(digest, "big") % (_CODES - 1))


def decode_votes(reward: Tensor) -> tuple[Tensor, Tensor]:
    """Rewards of :func:`encode_vote` -> 0 or 1 and the code of the answer, -1 without one; NaN stays NaN with -1.

    Args:
        reward: any shape, float32 or float64.

    Returns:
        verdicts in the dtype of ``reward`` and int64 answers, both in its shape.

    Raises:
        InputError: for a reward that is no such code, in half precision for example, or with a KL penalty in it.
    """
    correct = torch.where(reward.isfinite(), reward.floor(), 0)
    code = torch.where(reward.isfinite(), (reward - correct) / _STEP, 0)
    bad = (code != code.round()) | (code >= _CODES) | ((correct != 0) & (correct != 1))
    if bool(bad.any()) or reward.dtype not in (torch.float32, torch.float64):
        raise InputError(
            f"expected float32 rewards of encode_vote, got {reward[bad].tolist()[:3]} in {reward.dtype}. Return "
            "encode_vote(correct, answer) from the reward function and add nothing to it: no KL penalty, no bonus."
        )
    return torch.where(reward.isfinite(), correct, torch.nan), code.long() - 1
