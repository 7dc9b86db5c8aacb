"""The token margin against loops over rivals: expectation, gradient, draws, and a gold token that is certain."""

import math

import pytest
import torch

from operant.core.checks import BudgetError, InputError
from operant.objectives import token_margin

Z = [[0.3, -1.2, 2.0, 0.7], [1.5, 1.5, -0.5, 0.0]]
GOLD = [2, 0]


def slow(z, gold):
    """Expectation over rivals and its gradient with the rivals' shares held fixed, by loops."""
    total = sum(math.exp(v) for i, v in enumerate(z) if i != gold)
    share = [0.0 if i == gold else math.exp(v) / total for i, v in enumerate(z)]
    value = sum(q * math.log1p(math.exp(v - z[gold])) for q, v in zip(share, z, strict=True))
    slope = [q / (1 + math.exp(z[gold] - v)) for q, v in zip(share, z, strict=True)]
    slope[gold] = -sum(slope)
    return value, slope


def test_the_expectation_and_its_gradient_are_those_of_loops():
    z = torch.tensor(Z, dtype=torch.float64, requires_grad=True)
    losses = token_margin(z, torch.tensor(GOLD), rivals=0)
    losses.sum().backward()
    for i, gold in enumerate(GOLD):
        value, slope = slow(Z[i], gold)
        assert losses[i].item() == pytest.approx(value, rel=1e-12)
        assert z.grad[i].tolist() == pytest.approx(slope, rel=1e-12)


def test_drawn_rivals_average_to_the_expectation():
    count = 20_000
    z = torch.tensor(Z, dtype=torch.float64).repeat_interleave(count, 0).view(2, count, 4)
    gold = torch.tensor(GOLD)[:, None].expand(2, count)
    losses = token_margin(z, gold, rivals=4, generator=torch.Generator().manual_seed(3))
    for i in range(2):
        error = losses[i].std() / math.sqrt(count)
        assert abs(losses[i].mean() - slow(Z[i], GOLD[i])[0]) < 4 * error


def test_the_draw_follows_the_generator_and_never_draws_gold():
    z, gold = torch.tensor(Z), torch.tensor(GOLD)
    draws = [token_margin(z, gold, generator=torch.Generator().manual_seed(s)) for s in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    certain = torch.tensor([[60.0, 0.0, -1.0]])
    pair = token_margin(certain, torch.tensor([0]), rivals=500, generator=torch.Generator().manual_seed(0))
    assert pair.item() < 1e-20  # drawing gold itself would give log 2


def test_a_certain_gold_token_leaves_its_rivals_their_shares():
    """Shares taken after a softmax with gold would be 0/0 in float32."""
    z = torch.tensor([[200.0, 1.0, 0.0]], requires_grad=True)
    loss = token_margin(z, torch.tensor([0]), rivals=0)
    loss.backward()
    assert torch.isfinite(loss).all() and torch.isfinite(z.grad).all()


def test_half_precision_is_promoted():
    loss = token_margin(torch.tensor(Z, dtype=torch.bfloat16), torch.tensor(GOLD), rivals=0)
    assert loss.dtype == torch.float32


@pytest.mark.parametrize(
    ("z", "gold", "match"),
    [
        ([[math.nan, 0.0]], [0], "logits must be finite"),
        ([[1.0]], [0], "V >= 2"),
        ([[1.0, 2.0]], [[0]], "V >= 2"),
        ([[1.0, 2.0]], [2], "gold must lie in 0..1"),
    ],
)
def test_what_cannot_work_is_refused(z, gold, match):
    with pytest.raises(InputError, match=match):
        token_margin(torch.tensor(z), torch.tensor(gold))
    with pytest.raises(BudgetError, match="rivals"):
        token_margin(torch.tensor(Z), torch.tensor(GOLD), rivals=-1)
