"""The sampler against sums over a small policy: probabilities, score in the temperature, dJ/d temperature."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from itertools import product

import pytest
import torch
from torch import Tensor

from operant import BestOf, Majority, Outcomes, PassAt, Sampler, credit, from_function
from operant.core.checks import InputError
from operant.strategies import Outcome, Strategy
from tests import slow

V, T = 3, 2
SEQUENCES = list(product(range(V), repeat=T))
OUTCOMES: list[slow.Rollout] = [(float(a == b), (a + b) % 3, float(b)) for a, b in SEQUENCES]
LOGITS = 1.3 * torch.randn(1 + V, V, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
"""Row 0 predicts the first token, row 1 + a the token after a."""
SAMPLERS = [Sampler(), Sampler(0.6), Sampler(1.7), Sampler(0.8, 0.9), Sampler(1.4, 0.7)]


def policy_logits() -> tuple[Tensor, Tensor]:
    """Logits (9, T, V) and tokens (9, T) of every sequence."""
    return torch.stack([LOGITS[[0, 1 + a]] for a, _ in SEQUENCES]), torch.tensor(SEQUENCES)


def slow_probability(sampler: Sampler, temperature: float) -> list[float]:
    """pi(y) of every sequence, token by token: tempered, cut to the nucleus *of the sampler*, renormalized."""

    def tokens(row: list[float]) -> list[float]:
        def tempered(tau: float) -> list[float]:
            weight = [math.exp(x / tau) for x in row]
            return [w / sum(weight) for w in weight]

        kept, mass = set[int](), 0.0
        p = tempered(sampler.temperature)
        for v in sorted(range(V), key=lambda v: -p[v]):
            if mass < sampler.top_p:
                kept.add(v)
            mass += p[v]
        q = [x if v in kept else 0.0 for v, x in enumerate(tempered(temperature))]
        return [x / sum(q) for x in q]

    first = tokens(LOGITS[0].tolist())
    return [first[a] * tokens(LOGITS[1 + a].tolist())[b] for a, b in SEQUENCES]


def slope(f: list[list[float]], h: float) -> list[float]:
    """Fourth-order difference of values at -2h, -h, h, 2h."""
    return [(a - 8 * b + 8 * c - d) / (12 * h) for a, b, c, d in zip(*f, strict=True)]


def around(sampler: Sampler, h: float = 1e-3) -> list[list[float]]:
    return [slow_probability(sampler, sampler.temperature + k * h) for k in (-2, -1, 1, 2)]


@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
def test_probabilities_of_whole_sequences(sampler: Sampler) -> None:
    logits, tokens = policy_logits()
    want = torch.tensor(slow_probability(sampler, sampler.temperature), dtype=torch.float64)
    inside = want > 0
    assert want.sum().item() == pytest.approx(1) and bool(inside.all()) == (sampler.top_p == 1)
    got = sampler.log_prob(logits[inside], tokens[inside]).exp()
    torch.testing.assert_close(got, want[inside], rtol=1e-13, atol=0)
    if sampler.top_p < 1:
        with pytest.raises(InputError, match="2 of 2 tokens lie outside|1 of 2 tokens lie outside"):
            sampler.log_prob(logits[~inside][0], tokens[~inside][0])
        with pytest.raises(InputError, match="outside the nucleus"):
            sampler.temperature_score(logits, tokens)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
def test_the_score_in_the_temperature(sampler: Sampler) -> None:
    logits, tokens = policy_logits()
    inside = torch.tensor(slow_probability(sampler, sampler.temperature)) > 0
    want = [[math.log(p) if p else 0.0 for p in row] for row in around(sampler)]
    got = sampler.temperature_score(logits[inside], tokens[inside])
    torch.testing.assert_close(got, torch.tensor(slope(want, 1e-3), dtype=torch.float64)[inside], rtol=1e-8, atol=1e-9)


def test_the_gradient_is_that_of_the_sampled_distribution() -> None:
    """Autograd against the closed form (onehot - p) / temperature on the nucleus; untempered scores differ."""
    logits, tokens = policy_logits()
    sampler = Sampler(0.6, 0.95)
    inside = torch.tensor(slow_probability(sampler, 0.6)) > 0
    logits, tokens = logits[inside].requires_grad_(), tokens[inside]
    (got,) = torch.autograd.grad(sampler.log_prob(logits, tokens).sum(), logits)
    p = sampler.log_probs(logits.detach()).exp()
    torch.testing.assert_close(got, (torch.nn.functional.one_hot(tokens, V) - p) / 0.6)
    (untempered,) = torch.autograd.grad(Sampler().log_prob(logits, tokens).sum(), logits)
    cosine = torch.nn.functional.cosine_similarity(got.flatten(), untempered.flatten(), dim=0)
    assert cosine < 0.99 and not torch.allclose(got.norm(), untempered.norm(), rtol=0.1)


def returned(draw: Sequence[Outcome]) -> float:
    """A user's rule: reward squared, less the product of the scores."""
    return sum(o.reward for o in draw) ** 2 - draw[0].score * draw[1].score


def returned_slow(draw: slow.Draw) -> Fraction:
    return Fraction(sum(reward for reward, _, _ in draw) ** 2 - draw[0][2] * draw[1][2])


RULES: list[tuple[Strategy, slow.Rule]] = [
    (PassAt(2), slow.any_success),
    (Majority(3), slow.vote),
    (BestOf(2), slow.best),
    (from_function(2, returned), returned_slow),
]


@pytest.mark.parametrize("sampler", [Sampler(0.6), Sampler(1.4, 0.7)], ids=str)
@pytest.mark.parametrize(("s", "rule"), RULES, ids=slow.label)
def test_the_temperature_gradient_is_unbiased(s: Strategy, rule: slow.Rule, sampler: Sampler) -> None:
    """Its expectation over every group of M = N + 1 rollouts is dJ/d temperature, J by enumeration."""
    drawn = [(d, float(rule([OUTCOMES[k] for k in d]))) for d in product(range(9), repeat=s.n)]
    values = [[sum(math.prod(pi[k] for k in d) * v for d, v in drawn)] for pi in around(sampler)]
    (want,) = slope(values, 1e-3)

    pi = slow_probability(sampler, sampler.temperature)
    groups = torch.tensor(list(product([k for k in range(9) if pi[k] > 0], repeat=s.n + 1)))  # (G, M)
    chance = torch.tensor(pi, dtype=torch.float64)[groups].prod(-1)
    reward, answer, score = (torch.tensor(x) for x in zip(*OUTCOMES, strict=True))
    outcomes = Outcomes(reward.double()[groups], answer[groups], score.double()[groups])
    weights = credit(s, outcomes)
    logits, tokens = policy_logits()
    got = sampler.temperature_gradient(chance[:, None] * weights, logits[groups], tokens[groups]) * len(groups)
    assert got.item() == pytest.approx(want, rel=1e-7, abs=1e-9) and abs(want) > 1e-3
    if sampler.top_p == 1:  # the score of the untempered policy is another number
        wrong = Sampler().temperature_gradient(chance[:, None] * weights, logits[groups], tokens[groups]) * len(groups)
        assert abs(wrong.item() - want) > 0.01 * abs(want)


def test_padding_does_not_count() -> None:
    logits, tokens = policy_logits()
    mask = torch.tensor([[True, False]] * 9)
    filled = tokens.masked_fill(~mask, -100)
    s = Sampler(0.8, 0.9)
    first = torch.tensor([True] * 9) & (s.log_probs(LOGITS[0])[tokens[:, 0]].isfinite())
    got = s.log_prob(logits[first], filled[first], mask[first])
    torch.testing.assert_close(got, s.log_probs(LOGITS[0])[tokens[first, 0]])
    assert s.temperature_score(logits[first], filled[first], mask[first]).shape == got.shape


def test_the_nucleus_is_the_least_set_that_holds_top_p() -> None:
    logits = torch.tensor([0.1, 0.5, 0.25, 0.15], dtype=torch.float64).log()
    for top_p, kept in (
        (1e-20, {1}),
        (1e-6, {1}),
        (0.5 - 1e-9, {1}),
        (0.6, {1, 2}),
        (0.76, {1, 2, 3}),
        (0.95, {0, 1, 2, 3}),
    ):
        found = Sampler(top_p=top_p).log_probs(logits)
        assert {i for i in range(4) if found[i] > -math.inf} == kept
        assert found.exp().sum().item() == pytest.approx(1)
    assert Sampler(top_p=0.5).log_probs(torch.zeros(2)).isneginf().sum() == 1  # half the mass is enough


def test_plain_sampling_leaves_the_logits_alone() -> None:
    logits = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    assert Sampler().warp(logits) is logits
    assert Sampler(0.5).log_probs(logits.bfloat16()).dtype == torch.float32
    assert Sampler(0.5) == Sampler(0.5, 1.0) and hash(Sampler(0.5)) == hash(Sampler(0.5))


@pytest.mark.parametrize(
    "settings", [(0.0,), (-1.0,), (math.inf,), (math.nan,), (1.0, 0.0), (1.0, 1.1), (1.0, math.nan)]
)
def test_settings_out_of_range_are_refused(settings: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match="temperature > 0 and 0 < top_p <= 1, got temperature"):
        Sampler(*settings)


def test_bad_tensors_are_refused() -> None:
    logits, tokens = policy_logits()
    with pytest.raises(InputError, match="logits must be finite"):
        Sampler().log_probs(torch.tensor([0.0, math.nan]))
    with pytest.raises(InputError, match=r"expected logits \(..., T, V\)"):
        Sampler().log_prob(logits, tokens[:, :1])
    with pytest.raises(InputError, match=r"tokens must lie in 0\.\.2"):
        Sampler().log_prob(logits, tokens + 1)
    with pytest.raises(InputError, match="one weight a rollout"):
        Sampler().temperature_gradient(torch.ones(3), logits, tokens)
