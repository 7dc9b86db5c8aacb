"""Token margins: a pairwise loss of the gold token against rivals of the same model.

Source: Compute Aligned Training (arXiv 2604.24957), appendix A.7, where it is mixed with cross-entropy.
"""

from __future__ import annotations

import torch
from torch import Tensor

from operant.core.checks import InputError, check_finite, check_int, deferred


def token_margin(logits: Tensor, gold: Tensor, *, rivals: int = 4, generator: torch.Generator | None = None) -> Tensor:
    """Loss to minimize, one value a token: ``mean over rivals r of softplus(z_r - z_gold)``.

    Rivals are drawn with replacement from q = softmax(z without gold). The gold logit is taken out *before* the
    softmax, so that a gold token with p = 1 - 1e-9 leaves its rivals their shares. The draw is held fixed; the logits
    of the gold token and of its rivals both get gradient.

    Args:
        logits: (..., V) z, finite, V >= 2; half precision is promoted to float32.
        gold: (...) index of the supervised token.
        rivals: how many are drawn for every token. 0 takes the expectation over q in place of a draw: the same
            mean, no noise, and another (..., V) of memory.
        generator: for the draw, on the device of the logits.

    Returns:
        (...) losses >= 0.

    Raises:
        InputError: for NaN or infinite logits, fewer than two tokens, shapes that differ, or tokens outside 0..V-1.
        BudgetError: for a negative number of rivals.

    >>> token_margin(torch.tensor([[2.0, 1.0, 0.0]]), torch.tensor([0]), rivals=0)
    tensor([0.2631])
    """
    check_int("rivals", rivals, least=0)
    check_finite("logits", logits)
    if logits.ndim < 1 or logits.shape[-1] < 2 or gold.shape != logits.shape[:-1]:
        raise InputError(
            f"expected logits (..., V) with V >= 2 and gold (...), got {tuple(logits.shape)} and {tuple(gold.shape)}."
        )
    last = logits.shape[-1] - 1
    outside = (gold < 0) | (gold > last)
    if not deferred(outside, lambda _: f"gold must lie in 0..{last}.") and bool(outside.any()):
        raise InputError(f"gold must lie in 0..{last}, got {int(gold.min())}..{int(gold.max())}.")
    z = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
    gold = gold[..., None]
    own = z.gather(-1, gold)
    q = z.detach().scatter(-1, gold, -torch.inf).softmax(-1)
    if rivals == 0:
        return (q * torch.nn.functional.softplus(z - own)).sum(-1)
    # multinomial takes two dimensions, and looks at q on the host if it is to draw one token only.
    drawn = torch.multinomial(q.reshape(-1, q.shape[-1]), max(rivals, 2), replacement=True, generator=generator)
    drawn = drawn[:, :rivals].view(*gold.shape[:-1], rivals)
    return torch.nn.functional.softplus(z.gather(-1, drawn) - own).mean(-1)
