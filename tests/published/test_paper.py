"""The published weights, against the numbers that its reference lists and against their definitions."""

from __future__ import annotations

import json
from dataclasses import replace
from math import comb, exp
from statistics import mean, stdev

import pytest
import torch

from operant import AllOf, BestOf, Majority, Mixture, Outcomes, PassAt, Threshold
from operant.core.checks import BudgetError, InputError, NotDefinedError
from operant.published import paper
from operant.published.paper import RECIPES, Quantiles, Recipe, WeightForm
from operant.strategies import Strategy

PASS_AT = [
    (4, 0.1, 0.8479209072, 2.916),
    (4, 0.5, 0.2666666667, 0.5),
    (16, 0.01, 0.9263987605, 13.76093367),
    (16, 0.1, 0.4043532929, 3.294258114),
    (16, 0.5, 2.441443503e-4, 4.8828125e-4),
    (64, 0.01, 0.7162247719, 33.97795475),
    (64, 1e-6, 0.9999685003, 63.99596812),
]
THRESHOLD = [
    (4, 2, 0.3, 1.519379845, 1.764),
    (8, 3, 0.3, 1.700850011, 2.5412184),
    (8, 3, 0.5, 0.7671232877, 1.3125),
    (8, 5, 0.5, 3.010752688, 2.1875),
    (16, 4, 0.1, 3.005703883, 2.056087026),
    (64, 16, 0.3, 1.463639553, 4.116548529),
    (64, 22, 0.3, 6.61198008, 5.768445585),
    (64, 26, 0.5, 0.8941086274, 1.695746861),
    (64, 26, 1e-6, 25.99996341, 1.563990985e-131),
]
GROUP = torch.tensor([[1.0, 0.0, 0.0, 0.0]], dtype=torch.float64)


FORMS: tuple[WeightForm, ...] = ("raw", "log")


def weights(s: Strategy, o: Outcomes, form: WeightForm, log_p: torch.Tensor | None = None) -> torch.Tensor:
    """As the paper prints them: p of the sequence, or the Laplace success rate without ``log_p``."""
    return Recipe(form, "empirical" if log_p is None else "sequence").weights(s, o, log_p=log_p)


def weight_at(s: Strategy, p: float, form: WeightForm) -> float:
    """The factor on the advantage of a rollout of probability p."""
    log_p = torch.full_like(GROUP, p).log()
    return (weights(s, Outcomes(GROUP), form, log_p) / paper.standardized(GROUP))[0, 0].item()


@pytest.mark.parametrize(("n", "p", "log", "raw"), PASS_AT)
def test_pass_at_n_against_the_golden_values(n: int, p: float, log: float, raw: float) -> None:
    for s in (PassAt(n), Threshold(n, 1)):
        assert weight_at(s, p, "log") == pytest.approx(log, rel=1e-9)
        assert weight_at(s, p, "raw") == pytest.approx(raw, rel=1e-9)


@pytest.mark.parametrize(("n", "k", "p", "log", "raw"), THRESHOLD)
def test_threshold_against_the_golden_values(n: int, k: int, p: float, log: float, raw: float) -> None:
    assert weight_at(Threshold(n, k), max(p, 1e-10), "log") == pytest.approx(log, rel=1e-9)
    assert weight_at(Threshold(n, k), p, "raw") == pytest.approx(raw, rel=1e-9)


@pytest.mark.parametrize(("n", "k", "peak"), [(8, 3, 2.549957926), (8, 5, 2.350041224), (64, 26, 6.547462525)])
def test_the_raw_weight_peaks_at_k_minus_1_over_n_minus_1(n: int, k: int, peak: float) -> None:
    at = (k - 1) / (n - 1)
    assert weight_at(Threshold(n, k), at, "raw") == pytest.approx(peak, rel=1e-9)
    assert all(weight_at(Threshold(n, k), at + d, "raw") < peak for d in (-0.01, 0.01))


def votes(wrong: int, right: int, invalid: int = 0) -> Outcomes:
    answer = torch.tensor([1] * wrong + [0] * right + [-1] * invalid)
    return Outcomes((answer == 0).float(), answer)


@pytest.mark.parametrize(
    ("n", "wrong", "right", "k"), [(8, 0, 8, 2), (8, 1, 7, 2), (8, 3, 5, 4), (8, 8, 0, 5), (4, 8, 0, 3)]
)
def test_dynamic_threshold(n: int, wrong: int, right: int, k: int) -> None:
    assert paper.vote_threshold(n, votes(wrong, right)).item() == k


def test_unparsable_answers_are_one_wrong_class() -> None:
    assert paper.vote_threshold(8, votes(0, 2, invalid=2)).item() == 5
    several = Outcomes(torch.tensor([1.0, 0, 0, 0, 0, 0, 0, 0]), torch.tensor([0, 1, 2, 2, 3, 3, 3, 4]))
    assert paper.vote_threshold(8, several).item() == 4  # the most frequent wrong answer, three votes
    with pytest.raises(InputError, match="give Outcomes"):
        paper.vote_threshold(8, Outcomes(torch.ones(4)))


def test_majority_uses_its_own_threshold_and_the_laplace_rate() -> None:
    o = Outcomes(
        torch.tensor([[1.0, 1, 0, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1, 1, 0]]),
        torch.tensor([[0, 0, 1, 1, 1, 2, -1, -1], [0, 0, 0, 0, 0, 0, 0, 5]]),
    )
    for row, (c, k) in enumerate([(2, 4), (7, 2)]):
        p, a = (c + 1) / 10, paper.standardized(o.reward.double())[row]
        slope = 8 * comb(7, k - 1) * p ** (k - 1) * (1 - p) ** (8 - k)
        s = sum(comb(8, j) * p**j * (1 - p) ** (8 - j) for j in range(k, 9))
        raw, log = (weights(Majority(8), o, form)[row] for form in FORMS)
        torch.testing.assert_close(raw, (slope * a).float())
        torch.testing.assert_close(log, (p * slope / s * a).float())


def test_sequence_probabilities_are_floored_at_1e_10() -> None:
    for form in ("log", "raw"):
        low = [weights(PassAt(4), Outcomes(GROUP), form, torch.full_like(GROUP, x)) for x in (-50, -9e3)]
        assert torch.equal(*low)
        high = weights(PassAt(4), Outcomes(GROUP), form, torch.zeros_like(GROUP))
        assert bool(high.isfinite().all())
    at_floor = weight_at(PassAt(4), 1e-10, "raw")
    assert weight_at(PassAt(4), 1e-15, "raw") == at_floor == pytest.approx(4 * (1 - 1e-10) ** 3, rel=1e-12)


def test_rank_weights_of_best_of_n() -> None:
    distinct = torch.arange(25.0, dtype=torch.float64)
    w = paper.rank_weight(8, distinct)
    assert w.max().item() == pytest.approx(6.08, abs=0.005) and w.mean().item() == pytest.approx(0.887, abs=5e-4)
    w = paper.rank_weight(4, distinct[:8])
    assert w.max().item() == pytest.approx(2.81, abs=0.005) and w.mean().item() == pytest.approx(0.889, abs=5e-4)
    tied = paper.rank_weight(3, torch.tensor([[0.0, 0.0, 2.0]], dtype=torch.float64))
    assert tied.tolist() == [pytest.approx([3 / 16, 3 / 16, 3 * (3 / 4) ** 2])]
    o = Outcomes(torch.tensor([[0.5, 0.1, 0.9]], dtype=torch.float64))
    want = paper.rank_weight(2, o.reward) * paper.standardized(o.reward)
    assert torch.equal(weights(BestOf(2), o, "log"), want)


def test_the_advantage_is_standardised_with_m_minus_1() -> None:
    sd = (3 / 16 * 4 / 3) ** 0.5
    want = [0.75 / (sd + 1e-4)] + [-0.25 / (sd + 1e-4)] * 3
    assert paper.standardized(GROUP)[0].tolist() == pytest.approx(want, rel=1e-14)
    assert paper.standardized(torch.ones(2, 4)).abs().max() == 0
    assert paper.laplace_rate(GROUP).tolist() == [[pytest.approx(2 / 6)]]


def test_pass_at_1_is_the_plain_advantage() -> None:
    o = Outcomes(GROUP.float())
    for form in FORMS:
        torch.testing.assert_close(weights(PassAt(1), o, form), paper.standardized(o.reward))


def test_what_the_paper_does_not_treat_is_refused() -> None:
    for s in (AllOf(2), Mixture({PassAt(2): 1.0})):
        with pytest.raises(NotDefinedError, match="use form='exact'"):
            weights(s, Outcomes(GROUP), "raw")


def slow_weights(
    r: Recipe,
    s: Strategy,
    rewards: list[list[float]],
    answers: list[list[int]],
    log_p: list[list[float]],
    history: list[float],
) -> list[list[float]]:
    """The published run by plain loops, from its description."""
    w: list[list[float]] = []
    for row, votes, logs in zip(rewards, answers, log_p, strict=True):
        m, n = len(row), s.n
        wrong = [a for a, x in zip(votes, row, strict=True) if x == 0]
        most = max((wrong.count(a) for a in wrong), default=0)
        k = max(2, min(n // 2 + 1, n * most // m + 1)) if isinstance(s, Majority) else getattr(s, "k", 1)
        w.append([])
        for x, ell in zip(row, logs, strict=True):
            if isinstance(s, BestOf):
                q = (sum(y < x for y in row) + 1) / (m + 1)
                if r.history:
                    q = min(max((sum(y < x for y in history) + 1) / (len(history) + 2), 0.001), 0.999)
                value = n * q ** (n - 1)
            else:
                p = (sum(row) + 1) / (m + 2) if r.probability == "empirical" else exp(min(max(ell, -50), 0))
                p = min(max(p, 1e-10), 1 - 1e-10)
                value = n * comb(n - 1, k - 1) * p ** (k - 1) * (1 - p) ** (n - k)
                if r.form == "log":
                    value *= p / sum(comb(n, j) * p**j * (1 - p) ** (n - j) for j in range(k, n + 1))
            w[-1].append(value if r.clip is None else min(value, r.clip))
    everyone = [value for row in w for value in row]
    one_weight = len(w) == 1 and r.probability == "empirical" and not isinstance(s, BestOf)
    if r.normalize and not one_weight and any(everyone):
        w = [[value / mean(everyone) for value in row] for row in w]
    for row, values in zip(rewards, w, strict=True):
        for i, x in enumerate(row):
            a = (x - mean(row)) / (stdev(row) + 1e-4) - (r.penalty if not any(row) else 0)
            if r.advantage_clip is not None:
                a = min(max(a, -r.advantage_clip), r.advantage_clip)
            values[i] *= a
    return w


def batch(prompts: int, m: int, *, binary: bool, seed: int) -> tuple[Outcomes, torch.Tensor]:
    """Random rollouts, the first prompt all wrong, and log-probabilities from certain to far below the floor."""
    g = torch.Generator().manual_seed(seed)
    p = torch.rand(prompts, 1, generator=g, dtype=torch.float64)
    reward = torch.randint(0, 4, (prompts, m), generator=g).double() / 2 - 0.5
    answer = torch.randint(-1, 3, (prompts, m), generator=g)
    if binary:
        reward = (torch.rand(prompts, m, generator=g, dtype=torch.float64) < p).double()
        reward[0] = 0
        answer = torch.where(reward > 0, 7, answer)
    return Outcomes(reward, answer), -120 * torch.rand(prompts, m, generator=g, dtype=torch.float64) ** 4


RUNS = [
    (name, s, r)
    for name, strategies in [
        ("math-pass", [PassAt(4), PassAt(16), PassAt(64), Threshold(8, 3)]),
        ("math-majority", [Majority(4), Majority(8), Majority(16)]),
        ("protein-conditional", [BestOf(2), BestOf(8)]),
        ("protein-unconditional", [BestOf(4)]),
    ]
    for s in strategies
    for r in (RECIPES[name], replace(RECIPES[name], form="log"), replace(RECIPES[name], form="raw"))
]


@pytest.mark.parametrize("prompts", [1, 5])
@pytest.mark.parametrize(("name", "s", "r"), RUNS)
def test_a_recipe_is_what_plain_loops_make_of_its_description(name: str, s: Strategy, r: Recipe, prompts: int) -> None:
    seen = Quantiles(r.history) if r.history else None
    for step in range(2):
        o, log_p = batch(prompts, 6, binary=name.startswith("math"), seed=step)
        history = list(seen.values) if seen else []
        lists = o.reward.tolist(), (o.answer if o.answer is not None else o.reward).tolist(), log_p.tolist()
        want = slow_weights(r, s, *lists, history)
        got = r.weights(s, o, log_p=log_p, quantiles=seen)
        torch.testing.assert_close(got, torch.tensor(want, dtype=torch.float64), rtol=1e-8, atol=1e-13)
        assert prompts == 1 or got.abs().max() > 0


def test_the_presets_are_those_of_the_papers_tables() -> None:
    assert RECIPES["math-pass"] == Recipe(form="log", probability="sequence", clip=50)
    assert RECIPES["math-majority"] == Recipe(form="raw", probability="empirical", clip=10, normalize=True, penalty=0.5)
    conditional = Recipe(form="raw", probability=None, normalize=True, advantage_clip=5)
    assert RECIPES["protein-conditional"] == conditional
    assert RECIPES["protein-unconditional"] == replace(conditional, history=4000)


def test_weights_are_clipped_before_they_are_normalized() -> None:
    o = Outcomes(torch.tensor([[1.0, 0, 0, 0], [1, 1, 0, 0]], dtype=torch.float64))
    log_p = torch.tensor([[0.001, 0.2, 0.2, 0.2], [0.9, 0.9, 0.9, 0.9]], dtype=torch.float64).log()
    r = Recipe("raw", "sequence", clip=2.0, normalize=True)
    raw = [min(64 * (1 - p) ** 63, 2.0) for p in log_p.exp().flatten().tolist()]
    want = torch.tensor([w / mean(raw) for w in raw], dtype=torch.float64).reshape(2, 4)
    torch.testing.assert_close(r.factor(PassAt(64), o, log_p=log_p), want)
    assert want.mean() == pytest.approx(1) and want.max() > 2


def test_the_mean_is_over_the_batch_and_never_within_one_prompt() -> None:
    o, _ = batch(5, 6, binary=True, seed=3)
    r = RECIPES["math-majority"]
    w = r.factor(Majority(8), o)
    assert w.mean().item() == pytest.approx(1)
    assert all(len(set(row)) == 1 for row in w.tolist()) and len({row[0] for row in w.tolist()}) > 2
    alone = o.map(lambda x: x[1:2])
    assert torch.equal(r.factor(Majority(8), alone), replace(r, normalize=False).factor(Majority(8), alone))
    sequence = replace(r, probability="sequence")
    log_p = torch.full((1, 6), -1.0)
    assert sequence.factor(Majority(8), alone, log_p=log_p).mean().item() == pytest.approx(1)


def test_normalization_neither_overflows_nor_divides_by_zero() -> None:
    huge = torch.tensor([[1e308, 1e308], [1e308, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(paper.normalized(huge), torch.tensor([[4 / 3, 4 / 3], [4 / 3, 0]], dtype=torch.float64))
    assert torch.equal(paper.normalized(torch.zeros(2, 3)), torch.zeros(2, 3))
    certain = torch.zeros(2, 4, dtype=torch.float64)
    o = Outcomes(GROUP.expand(2, 4))
    low = Recipe("raw", "sequence", normalize=True).weights(PassAt(1000), o, log_p=certain)
    assert bool((low == 0).all())  # 1000 (1e-10)^999 is 0 in double precision


def test_the_penalty_is_for_prompts_without_any_success_and_inside_the_clip() -> None:
    r = torch.tensor([[0.0, 0, 0], [1, 0, 0], [1, 1, 1]], dtype=torch.float64)
    got = paper.standardized(r, penalty=0.5)
    assert got[0].tolist() == [-0.5] * 3 and torch.equal(got[1:], paper.standardized(r)[1:])
    assert paper.standardized(r, penalty=0.5, clip=0.3)[0].tolist() == [-0.3] * 3
    spread = torch.tensor([[1.0] + [0.0] * 63], dtype=torch.float64)
    assert paper.standardized(spread).max() > 7 and paper.standardized(spread, clip=5.0).max() == 5
    w = replace(RECIPES["protein-conditional"], normalize=False).weights(BestOf(8), Outcomes(spread))
    assert w.max().item() == pytest.approx(5 * 8 * (64 / 65) ** 7)  # the clip is on the advantage, not on the product


def test_quantiles_look_before_they_append_and_forget_the_oldest() -> None:
    seen = Quantiles(5)
    assert seen.push(torch.tensor([[1.0, 2.0], [3.0, 3.0]])).tolist() == [[0.5, 0.5], [0.5, 0.5]]
    assert seen.push(torch.tensor([3.0, 9.0])).tolist() == [pytest.approx(3 / 6), pytest.approx(5 / 6)]
    assert seen.values == [2, 3, 3, 3, 9]
    long = Quantiles(4000)
    long.push(torch.arange(5000.0))
    assert long.values == list(range(1000, 5000))
    assert long.push(torch.tensor([-1.0, 9e9, 1001.0])).tolist() == [0.001, 0.999, 0.001]
    rank = sum(x < 3003 for x in [*range(1003, 5000), -1, 9e9, 1001])
    assert long.push(torch.tensor([3003.0])).tolist() == [pytest.approx((rank + 1) / 4002, rel=1e-12)]
    with pytest.raises(InputError, match="reward must be finite"):
        seen.push(torch.tensor([float("nan")]))


def test_quantiles_resume_where_they_stopped() -> None:
    one, two = Quantiles(7), Quantiles(7)
    steps = torch.randn(6, 2, 2, generator=torch.Generator().manual_seed(0))
    for r in steps[:3]:
        one.push(r)
    two.load_state_dict(json.loads(json.dumps(one.state_dict())))
    assert all(torch.equal(one.push(r), two.push(r)) for r in steps[3:])
    with pytest.raises(InputError, match="resume with the same length"):
        Quantiles(8).load_state_dict(one.state_dict())


def test_a_recipe_refuses_what_it_cannot_use() -> None:
    o = Outcomes(GROUP, torch.zeros(1, 4, dtype=torch.long))
    for bad in (
        {"form": "exact"},
        {"probability": "length"},
        {"clip": 0.0},
        {"advantage_clip": float("inf")},
        {"penalty": -0.5},
    ):
        with pytest.raises(InputError, match=f"{next(iter(bad))} must be"):
            Recipe(**bad)  # pyright: ignore[reportArgumentType]
    with pytest.raises(BudgetError, match="history must be"):
        Recipe(history=-1)
    with pytest.raises(InputError, match=r"give log_p= with probability='sequence'"):
        RECIPES["math-pass"].weights(PassAt(4), o)
    with pytest.raises(InputError, match="got probability=None"):
        RECIPES["protein-conditional"].weights(PassAt(4), o, log_p=GROUP - 1)
    for given in (None, Quantiles(10)):
        with pytest.raises(InputError, match=r"needs quantiles=Quantiles\(4000\)"):
            RECIPES["protein-unconditional"].weights(BestOf(4), o, quantiles=given)
    with pytest.raises(BudgetError, match="use pass@1"):
        RECIPES["math-majority"].weights(Majority(1), o)
    with pytest.raises(BudgetError, match="at least 2 rollouts"):
        Recipe().weights(PassAt(4), Outcomes(torch.ones(1, 1)))
    graded = Outcomes(torch.tensor([[0.5, 0.0]]))
    for r, s in ((Recipe(), PassAt(4)), (Recipe(penalty=0.5), BestOf(4))):
        with pytest.raises(InputError, match="rewards of 0 and 1 only"):
            r.weights(s, graded)
