"""Advantages of a batch: M times the credit, with unscorable rollouts left out of their group."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from torch import Tensor

from operant import Outcomes, PassAt, credit, parse
from operant.core.checks import BudgetError, InputError
from operant.estimators import Extrapolation, estimate_offpolicy
from operant.objectives.groups import WEIGHT_FORMS, advantage, check_group, least_group, substitute
from operant.published.rules import RULES
from operant.strategies import estimate
from tests import slow

NAN, INF = math.nan, math.inf
RULES_OF = {
    "pass@1": (slow.any_success, 1),
    "pass@3": (slow.any_success, 3),
    "maj@3": (slow.vote, 3),
    "best@3": (slow.best, 3),
    "mix(pass@1:0.25, pass@3:0.75)": (slow.mixture((0.25, 1, slow.any_success), (0.75, 3, slow.any_success)), 3),
}


def batch(m: int = 7, groups: int = 6, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    reward = (torch.rand(groups, m, generator=g) < torch.linspace(0.1, 0.9, groups)[:, None]).float()
    return reward, torch.randint(-1, 3, (groups, m), generator=g), torch.randint(0, 4, (groups, m), generator=g) / 4


def rows(reward: Tensor, answer: Tensor, score: Tensor) -> list[list[slow.Rollout]]:
    return [list(zip(*row, strict=True)) for row in zip(reward.tolist(), answer.tolist(), score.tolist(), strict=True)]


def without_rounding(w: Tensor) -> Tensor:
    """A group of weights that are all below 1e-14 is dead."""
    return torch.where(w.abs().amax(-1, keepdim=True) < 1e-14, 0.0, w)


def test_rounding_is_no_signal() -> None:
    """(r - mean) / M of seven equal rewards of 0.1 is 1e-18 and not 0; unequal rewards stay, however small."""
    tenth = torch.full((1, 7), 0.1, dtype=torch.float64)
    assert RULES["dr-grpo"].make(1)(tenth).any()
    got = advantage(parse("best@1"), tenth, instead=RULES["dr-grpo"])
    assert got.dead.all() and not got.advantage.any()
    small = torch.tensor([[0.0, 0.0, 1e-9]], dtype=torch.float64)
    assert not advantage(parse("best@2"), small).dead.any()


@pytest.mark.parametrize("name", RULES_OF)
def test_advantages_are_m_times_the_credit_bit_for_bit(name: str) -> None:
    reward, answer, score = batch()
    s = parse(name)
    o = Outcomes(reward.double(), answer, score.double())
    groups = advantage(s, reward, answer, score)
    want = without_rounding(credit(s, o))
    assert torch.equal(groups.advantage, 7 * want) and groups.advantage.dtype == torch.float64
    assert torch.equal(groups.value, estimate(s, o).value)
    assert torch.equal(advantage(s, reward, answer, score, center="mean").advantage, 6 * want)
    assert torch.equal(groups.dead, (want == 0).all(-1)) and not groups.unscored.any()


@pytest.mark.parametrize("name", RULES_OF)
def test_unscorable_rollouts_leave_the_credit_of_the_others(name: str) -> None:
    """By enumeration of what remains; a group with fewer than max(N, 2) scored rollouts has no advantage."""
    rule, n = RULES_OF[name]
    reward, answer, score = batch()
    holes = [(1, 0, NAN), (2, 6, INF), (2, 2, -INF), *[(3, i, NAN) for i in range(4)], *[(4, i, NAN) for i in range(5)]]
    holes += [(5, i, NAN) for i in range(7)]
    for row, i, what in holes:
        reward[row, i] = what
    groups = advantage(parse(name), reward, answer, score)
    for i, z in enumerate(rows(reward, answer, score)):
        kept = [j for j, rollout in enumerate(z) if math.isfinite(rollout[0])]
        assert groups.unscored[i].tolist() == [j not in kept for j in range(7)]
        want = [0.0] * 7
        if len(kept) >= max(n, 2):
            left = [z[j] for j in kept]
            slow_credit = slow.credit if len(kept) > n else resampled
            for j, w in zip(kept, slow_credit(rule, left, n), strict=True):
                want[j] = float(7 * w)
            assert groups.value[i].item() == pytest.approx(float(slow.u(rule, left, n)), abs=1e-12)
        else:
            assert groups.value[i].isnan() and groups.dead[i]
        assert groups.advantage[i].tolist() == pytest.approx(want, abs=1e-12)
    assert groups.advantage[1:4].abs().sum() > 0 and groups.dead[5]


def resampled(rule: slow.Rule, z: slow.Draw, n: int) -> list[Fraction]:
    """M = N: the credit with the resampled baseline, over every draw of N from the other M - 1."""
    whole = rule(z)
    out = []
    for i in range(len(z)):
        others = [*z[:i], *z[i + 1 :]]
        out.append(whole - slow.mean([rule([*others, extra]) for extra in others]))
    return out


def test_a_rollout_without_a_score_is_unscorable() -> None:
    reward, answer, score = batch()
    score[0, 3], score[1, 1], score[1, 2] = NAN, INF, NAN
    got = advantage(parse("best@2"), reward, answer, score)
    kept = [0, 1, 2, 4, 5, 6]
    o = Outcomes(reward[0, kept].double(), answer[0, kept], score[0, kept].double())
    assert torch.equal(got.advantage[0, kept], 7 * credit(parse("best@2"), o)) and got.advantage[0, 3] == 0
    assert got.unscored.sum() == 3
    assert not advantage(parse("best@2"), reward, answer).unscored.any()


def test_an_extrapolation_gives_the_credit_above_the_group_size() -> None:
    reward, *_ = batch()
    o = Outcomes(reward.double())
    got = advantage(PassAt(32), reward, instead=Extrapolation())
    assert torch.equal(got.advantage, 7 * Extrapolation().credit(PassAt(32), o))
    assert torch.equal(got.value, Extrapolation().estimate(PassAt(32), o))


@pytest.mark.parametrize("name", RULES)
def test_every_published_rule_is_a_form(name: str) -> None:
    reward, *_ = batch()
    got = advantage(PassAt(3), reward, instead=RULES[name])
    assert torch.equal(got.advantage, 7 * without_rounding(RULES[name].make(3)(reward.double())))
    assert torch.equal(got.value, estimate(PassAt(3), Outcomes(reward.double())).value)
    reward[0, :3] = NAN
    left = advantage(PassAt(3), reward, instead=RULES[name]).advantage[0]
    assert torch.equal(left[3:], 7 * RULES[name].make(3)(reward[0, 3:].double())) and not left[:3].any()
    reward[0, :6] = NAN
    reward[1, :4] = NAN  # three are left of three: too few for the rules that need N + 1
    assert not advantage(PassAt(3), reward, instead=RULES[name]).advantage[0].any()
    with pytest.raises(BudgetError, match="needs groups of at least"):
        check_group(PassAt(3), least_group(PassAt(3), RULES[name]) - 1, RULES[name])


def test_log_ratios_take_the_off_policy_weights() -> None:
    reward, answer, _ = batch()
    log_ratio = 0.3 * torch.randn(reward.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for name in ("pass@4", "maj@4"):  # M < 2N warns once, where the trainer is built, and not here
        got = advantage(parse(name), reward, answer, log_ratio=log_ratio)
        want = estimate_offpolicy(parse(name), Outcomes(reward.double(), answer), log_ratio).weights
        assert torch.equal(got.advantage, 7 * want)
    reward[0, :3] = NAN
    reward[1, :2] = NAN
    got = advantage(parse("pass@4"), reward, log_ratio=log_ratio)
    assert not got.advantage[0].any()  # 4 rollouts are left, and N + 1 are needed
    kept = Outcomes(reward[1, 2:].double())
    assert torch.equal(got.advantage[1, 2:], 7 * estimate_offpolicy(PassAt(4), kept, log_ratio[1, 2:]).weights)


def test_what_is_refused() -> None:
    reward, *_ = batch()
    with pytest.raises(InputError, match="form must be one of exact, extrapolated, paper-log, paper-raw, grpo"):
        substitute("exakt")
    assert {form: type(substitute(form)).__name__ for form in WEIGHT_FORMS[:5]} == {
        "exact": "NoneType",
        "extrapolated": "Extrapolation",
        "paper-log": "Recipe",
        "paper-raw": "Recipe",
        "grpo": "PublishedRule",
    }
    assert substitute("pkpo") is RULES["pkpo"] and least_group(PassAt(9), substitute("paper-log")) == 2
    with pytest.raises(InputError, match="center must be one of loo, mean"):
        advantage(PassAt(2), reward, center="median")  # pyright: ignore[reportArgumentType]
    with pytest.raises(BudgetError, match=r"pass@8 needs groups of at least 8 rollouts, better 16, got 7"):
        check_group(PassAt(8), 7)
    with pytest.raises(BudgetError, match="at least 8"):
        check_group(PassAt(7), 7, spare=True)
    with pytest.raises(BudgetError, match="at least 2"):
        check_group(PassAt(1), 1)
    for s in (parse("maj@9"), PassAt(4)):
        with pytest.raises(InputError, match="form='extrapolated' is for"):
            check_group(s, 7, Extrapolation())
    check_group(PassAt(32), 7, Extrapolation())
    with pytest.raises(InputError, match="answer"):
        advantage(parse("maj@3"), reward)
