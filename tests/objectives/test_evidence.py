"""The advice before a run: what warns, what does not, and what it says of a start that was not measured."""

from __future__ import annotations

import pytest

from operant.objectives.evidence import FINDINGS, advice
from operant.strategies import parse


def said(method: str, text: str, start: float | None = None) -> list[str]:
    return advice(method, [parse(text)], start)


@pytest.mark.parametrize("method", ["grpo", "rloo"])
@pytest.mark.parametrize("start", [0.05, 0.2, 0.6])
def test_a_vote_from_a_start_that_was_measured_is_warned_of(method: str, start: float) -> None:
    (text,) = said(method, "maj@16", start)
    assert text == (
        f"Training for maj@16 is known to lose from a start like this one ({100 * start:.1f} % right answers): its "
        "exact credit ended below GRPO at the vote itself. Train for pass@1 with the transform log:0.02, and deploy "
        "the vote."
    )


def test_a_start_that_is_unknown_or_was_not_measured_gets_the_range() -> None:
    (unknown,) = said("grpo", "maj@8")
    assert unknown.startswith("Training for maj@8 is known to lose from starts of 5 to 60 % right answers: its")
    (far,) = said("grpo", "maj@8", 0.9)
    assert "from starts of 5 to 60 % right answers (90.0 %, as here, was not measured): its" in far


def test_best_of_n_is_called_risky_and_a_vote_in_a_mixture_is_found() -> None:
    (best,) = said("grpo", "best@8", 0.3)
    assert best.startswith("Training for best@8 is risky from a start like this one (30.0 % right answers): on sums")
    (mixed,) = said("rloo", "mix(pass@1:0.5, maj@16:0.5)", 0.2)
    assert mixed.startswith("Training for maj@16, a part of mix(pass@1:0.5, maj@16:0.5), is known to lose")


@pytest.mark.parametrize(
    ("method", "text"),
    [("grpo", "pass@16"), ("grpo", "pass@1"), ("rloo", "maj@1"), ("grpo", "best@1"), ("sft", "pass@16")]
    + [("sft", "threshold@16:9"), ("grpo", "quorum@16:5:0.5")],
)
def test_nothing_is_said_where_nothing_is_known_against_it(method: str, text: str) -> None:
    for start in (None, 0.05, 0.5):
        assert said(method, text, start) == []


@pytest.mark.parametrize("method", ["sft", "grpo"])
def test_a_large_budget_names_the_hotter_sampler_first(method: str) -> None:
    assert said(method, "pass@64", 0.02)[0].startswith("pass@64: first try a hotter sampler. On products it gave")
    assert len(advice(method, [parse("pass@64"), parse("pass@64")])) == 1


def test_a_mixture_in_rl_names_the_transform_first() -> None:
    (told,) = said("grpo", "mix(pass@1:0.25, pass@16:0.75)", 0.05)
    assert told.startswith("mix(pass@1:0.25, pass@16:0.75): by RL, first try pass@1 with the transform log:0.02.")
    assert said("sft", "mix(pass@1:0.25, pass@16:0.75)", 0.05) == []


def test_every_finding_has_a_source_and_a_range() -> None:
    for f in FINDINGS:
        low, high = f.starts
        assert 0 <= low < high <= 1 and f.source and f.told
        assert f.instead or f.verdict in ("wins", "level"), "a warning says what to do instead"
