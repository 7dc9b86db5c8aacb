"""-log J(q) from the probabilities of candidate answers: against loss(log p), multinomial sums and gradcheck."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from itertools import product

import pytest
import torch

from operant import (
    AllOf,
    BestOf,
    Majority,
    Mixture,
    Outcomes,
    PassAt,
    Threshold,
    answer_loss,
    expected_value,
    from_function,
    sft_loss,
)
from operant.core.checks import InputError
from operant.strategies import Outcome, Strategy

COUNTS: list[Strategy] = [
    PassAt(1),
    PassAt(16),
    AllOf(3),
    Threshold(8, 3),
    BestOf(6),
    Mixture({PassAt(1): 0.25, PassAt(64): 0.75}),
    Mixture({AllOf(3): 0.5, PassAt(8): 0.25, Threshold(8, 3): 0.25}),
]


def candidates(*reward: float) -> Outcomes:
    """Candidate answers, each a class of its own."""
    return Outcomes(torch.tensor(reward, dtype=torch.float64), torch.arange(len(reward)))


def gradient_of(loss: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return torch.autograd.grad(loss.sum(), x)[0]


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("s", COUNTS, ids=str)
def test_with_candidates_what_counts_is_the_mass_of_the_correct_ones(s: Strategy, power: float) -> None:
    """answer_loss = loss at p = q_0 + q_2, and so is its gradient in the logits."""
    logits = torch.randn(20, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    logits[0, [0, 2]] -= 200  # hardly ever
    logits = logits.requires_grad_()
    log_q = logits.log_softmax(-1)
    got = answer_loss(s, log_q, candidates(1, 0, 1, 0, 0), power=power)
    want = sft_loss(s, logits.log_softmax(-1)[:, [0, 2]].logsumexp(-1), power=power)
    torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(gradient_of(got, logits), gradient_of(want, logits), rtol=1e-9, atol=1e-12)


def test_a_vote_pushes_down_the_rival_that_wins_instead() -> None:
    """Against cross-entropy, which pushes every wrong answer in proportion to its own probability."""
    q = torch.tensor([0.3, 0.4, 0.15, 0.1, 0.05], dtype=torch.float64)
    log_q = q.log().requires_grad_()
    vote = gradient_of(answer_loss(Majority(16), log_q, candidates(1, 0, 0, 0, 0)), log_q)
    ce = gradient_of(answer_loss(PassAt(1), log_q, candidates(1, 0, 0, 0, 0)), log_q)
    assert vote[0] < 0 and ce[0] < 0
    push, share = vote[1:] / vote[1:].sum(), q[1:] / q[1:].sum()
    torch.testing.assert_close(ce[1:] / ce[1:].sum(), share)
    assert push[0] > 0.9 > 0.6 > share[0] and push[1:].abs().max() < 0.06

    def wins(extra: int) -> float:  # P(correct wins | one of 16 votes is `extra`), over counts of the other 15
        total = 0.0
        for c in product(range(16), repeat=4):
            if sum(c) <= 15:
                count = [*c, 15 - sum(c)]
                ways = math.factorial(15) / math.prod(math.factorial(x) for x in count)
                count[extra] += 1
                lead = max(count)
                mass = math.prod(
                    p ** (x - (k == extra)) for k, (p, x) in enumerate(zip(q.tolist(), count, strict=True))
                )
                total += ways * mass * (count[0] == lead) / count.count(lead)
        return total

    given = torch.tensor([wins(b) for b in range(5)], dtype=torch.float64)
    j = (q * given).sum()
    torch.testing.assert_close(vote, -16 * q * (given - j) / j, rtol=1e-9, atol=1e-12)


def test_steps_of_one_length_raise_the_vote_most_when_taken_on_the_vote() -> None:
    """Against cross-entropy, on one prompt with a dominant rival."""

    def after(loss_strategy: Strategy) -> float:
        logits = torch.tensor([0.0, 1.0, -1.0, -1.0, -1.0, -1.0], dtype=torch.float64).requires_grad_()
        for _ in range(5):
            g = gradient_of(answer_loss(loss_strategy, logits.log_softmax(-1), candidates(1, *[0] * 5)), logits)
            logits = (logits - 0.1 * g / g.norm()).detach().requires_grad_()
        return expected_value(Majority(15), logits.log_softmax(-1), candidates(1, *[0] * 5)).item()

    assert after(Majority(15)) > after(PassAt(1)) + 0.01 > 0.3


def test_the_remainder_is_one_more_kind_that_cannot_win() -> None:
    log_q = torch.tensor([[0.3, 0.4, 0.1], [0.01, 0.9, 0.05]], dtype=torch.float64).log().requires_grad_()
    kinds = candidates(1, 0, 0)
    got = answer_loss(Majority(7), log_q, kinds, remainder="unparsable")
    whole = torch.cat([log_q, (1 - log_q.exp().sum(-1, keepdim=True)).log()], -1)
    four = Outcomes(torch.tensor([1.0, 0.0, 0.0, 0.0]), torch.tensor([0, 1, 2, -1]))
    want = answer_loss(Majority(7), whole, four)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=0)
    torch.testing.assert_close(gradient_of(got, log_q), gradient_of(want, log_q), rtol=1e-10, atol=1e-12)
    one = log_q[:, :1]  # the target alone: the paper's pass@N
    alone = answer_loss(PassAt(16), one, Outcomes(torch.ones(1)), remainder="unparsable")
    torch.testing.assert_close(alone, sft_loss(PassAt(16), one[:, 0]), rtol=1e-10, atol=0)
    torch.testing.assert_close(gradient_of(alone, log_q), gradient_of(sft_loss(PassAt(16), one[:, 0]), log_q))


def test_candidates_that_leave_nothing_get_a_remainder_of_rounding() -> None:
    for shift in (0.0, 1e-7):
        log_q = (torch.tensor([0.25, 0.75], dtype=torch.float64).log() + shift).requires_grad_()
        loss = answer_loss(Majority(5), log_q, candidates(1, 0), remainder="unparsable")
        want = answer_loss(Majority(5), log_q.detach(), candidates(1, 0))
        torch.testing.assert_close(loss, want, rtol=1e-12, atol=0)
        assert bool(gradient_of(loss, log_q).isfinite().all())


def test_a_function_of_the_users_is_trainable() -> None:
    """Vote, abstain below three of five, and pay for a confident error: 1 - J by finite differences."""

    def careful(draw: Sequence[Outcome]) -> float:
        votes = Counter(o.answer for o in draw)
        answer, count = votes.most_common(1)[0]
        return 0.0 if count < 3 else next(o.reward for o in draw if o.answer == answer)

    logits = torch.tensor([0.2, 0.5, -0.3], dtype=torch.float64, requires_grad=True)
    kinds = Outcomes(torch.tensor([1.0, -0.5, -0.5]), torch.arange(3))
    s = from_function(5, careful)
    assert torch.autograd.gradcheck(lambda x: answer_loss(s, x.log_softmax(-1), kinds, power=1.0), logits)
    with pytest.raises(InputError, match="negative reward.*power=1"):
        answer_loss(s, logits.log_softmax(-1), kinds)


def test_long_solutions_as_candidates_keep_their_gradient() -> None:
    """Mass of e^-900 on the right answer, the rest unknown: -log J is finite and pulls with the votes it needs."""
    for dtype in (torch.float32, torch.float64):
        log_q = torch.tensor([[-900.0, -0.7, -2.0]], dtype=dtype, requires_grad=True)
        loss = answer_loss(Majority(5), log_q, candidates(1, 0, 0), remainder="unparsable")
        assert loss.dtype == dtype and loss.item() == pytest.approx(900, rel=0.02)
        assert gradient_of(loss, log_q)[0, 0].item() == pytest.approx(-1, rel=1e-5)


def test_half_precision_candidates_are_promoted() -> None:
    log_q = torch.tensor([-1.0, -2.0], dtype=torch.bfloat16, requires_grad=True)
    loss = answer_loss(Majority(3), log_q, candidates(1, 0), remainder="unparsable")
    assert loss.dtype == torch.float32
    assert torch.equal(
        loss.detach(), answer_loss(Majority(3), log_q.detach().float(), candidates(1, 0), remainder="unparsable")
    )
    assert bool(gradient_of(loss, log_q).isfinite().all())


def test_candidates_that_cannot_be_trained_on_are_refused() -> None:
    log_q = torch.tensor([0.3, 0.4]).log()
    with pytest.raises(InputError, match=r"sum to 1.*remainder='unparsable'"):
        answer_loss(Majority(3), log_q, candidates(1, 0))
    with pytest.raises(InputError, match="candidates hold 1.4 of the probability"):
        answer_loss(Majority(3), log_q + math.log(2), candidates(1, 0), remainder="unparsable")
    scored = Outcomes(torch.tensor([1.0, 0.0]), None, torch.tensor([0.2, 0.8]))
    with pytest.raises(InputError, match="score of the remainder is not known"):
        answer_loss(BestOf(3), log_q, scored, remainder="unparsable")
    with pytest.raises(InputError, match="earns nothing at 1 of 1"):
        answer_loss(Majority(3), log_q, candidates(0, 0), remainder="unparsable")
    hopeless = answer_loss(Majority(3), log_q, candidates(0, 0), remainder="unparsable", power=1.0)
    assert hopeless.item() == 1
    with pytest.raises(InputError, match="log_q must be finite"):
        answer_loss(Majority(3), torch.tensor([math.nan, -1.0]), candidates(1, 0), remainder="unparsable")
    for power in (-1.0, math.nan, math.inf):
        with pytest.raises(InputError, match="power must be a finite number >= 0"):
            answer_loss(Majority(3), log_q, candidates(1, 0), remainder="unparsable", power=power)
