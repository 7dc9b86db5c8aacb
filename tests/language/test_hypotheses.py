"""Hypotheses are the candidates that vote, merged by what they do: weights, outputs and supports given."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from operant.core.checks import DataError
from operant.language import (
    Candidate,
    FewShotWarning,
    LanguageExtrapolator,
    TextApplicability,
    TextBank,
    TextTask,
)
from operant.language.examples import calibration_examples, split_lessons
from operant.language.execute import Executor
from operant.language.score import encode_texts, log_probs

WORDS = ["ab", "cde", "fa", "bcd", "eef", "dad", "cab", "fed"]
FUNCTIONS = {"up": str.upper, "hash": lambda x: x + "#"}


@pytest.fixture(scope="module")
def model():
    torch.set_num_threads(1)
    bank = TextBank.from_functions(FUNCTIONS, WORDS)
    return LanguageExtrapolator(steps=2, batch_size=4, hidden=16, layers=1, device="cpu").fit(bank)


def test_they_sum_to_one_and_agree_with_the_vote(model):
    task = model.adapt([("ab", "AB#"), ("fa", "FA#")])
    found = task.hypotheses(["be", "ace"], execute="run")
    assert sum(h.weight for h in found) == pytest.approx(1) and [h.weight for h in found] == sorted(
        (h.weight for h in found), reverse=True
    )
    share: dict = {}
    for h in found:
        share[h.outputs[0]] = share.get(h.outputs[0], 0.0) + h.weight
    vote = task.vote(["be", "ace"], execute="run")[0]
    assert vote.shares == pytest.approx(share)
    number = task.effective_number(["be", "ace"], execute="run")
    assert 1 / sum(h.weight**2 for h in found) == pytest.approx(number)


def test_given_counts_the_supports_that_an_executed_candidate_gives(model):
    task = model.adapt([("ab", "AB#"), ("fa", "no")])
    given = {str(c.candidate): h.given for h in task.hypotheses(execute="run") for c in h.candidates}
    assert set(given.values()) <= {0, 1}
    assert all(n == (name in ("up > hash", "hash > up")) for name, n in given.items())


def weights(task):
    return {str(r.candidate): r.weight for r in task.candidates_}


def test_what_contradicts_a_support_when_it_is_run_does_not_vote(model):
    """The model has learned nothing: only the functions say that it is up > hash (hash > up is the same task)."""
    task = model.adapt([("ab", "AB#"), ("fa", "FA#")])
    assert weights(task) == pytest.approx({name: float(name == "up > hash") for name in weights(task)}, abs=1e-9)
    assert task.predict(["be", "ace"], execute="run") == ["BE#", "ACE#"] and task.applicability().given == 1
    assert task.vote(["be"], execute="run")[0].confidence == pytest.approx(1)
    (only,) = task.hypotheses(["be"])  # whoever executes the last step, the pair is the one
    assert str(only.candidates[0].candidate) == "up > hash" and only.candidates[0].explains == (True, True)
    text = task.explain()
    assert "best: up > hash  weight 1.00, gives 2 of 2 supports when it is run, log p" in text and "next" not in text
    assert f"refuted: {len(task.candidates_) - 1} of {len(task.candidates_)} candidates contradict" in text


@pytest.mark.parametrize("likely", ["up > hash", "hash > up"])
def test_of_chains_that_are_one_task_the_likeliest_is_written(model, monkeypatch, likely):
    scored = Executor.log_probs

    def biased(run, candidates, supports):
        return scored(run, candidates, supports) - 100.0 * np.array([[str(c) != likely] for c in candidates])

    supports, queries = [("ab", "AB#"), ("fa", "FA#")], ["be", "ace", "dab"]
    alike = [Candidate(("up", "hash")), Candidate(("hash", "up"))]
    monkeypatch.setattr(Executor, "log_probs", biased)
    monkeypatch.setattr(Executor, "write", lambda run, prompts: list(prompts))  # what it writes tells the prompt
    first, second = model.executor().outputs(alike, queries, execute="model")
    task = model.adapt(supports)
    (only,) = task.hypotheses(queries)
    assert str(only.candidates[0].candidate) == "up > hash"  # the name of the task is the first, as before
    assert list(only.outputs) == task.predict(queries) == (first if likely == "up > hash" else second)
    assert task.predict(queries, execute="run") == ["BE#", "ACE#", "DAB#"]


def test_the_likelihood_of_the_model_alone_can_be_had(model):
    task = model.adapt([("ab", "AB#"), ("fa", "FA#")], likelihood="model")
    assert task.posterior.given is None and max(weights(task).values()) < 0.9 and len(task.hypotheses()) > 1
    assert task.applicability().given is None and "when it is run" not in task.explain()


def test_a_wrong_support_is_taken_as_noise_and_it_is_said(model):
    task = model.adapt([("ab", "AB#"), ("fa", "FA#"), ("be", "BD#")])
    assert str(task.candidates_[0].candidate) == "up > hash" and task.applicability().given == pytest.approx(2 / 3)
    assert task.applicability().applies and "The supports are taken as noisy" in task.explain()
    assert "gives 2 of 3 supports when it is run" in task.explain() and "next: " in task.explain()
    assert task.predict(["cab"], execute="run") == ["CAB#"]


def test_a_task_that_no_candidate_gives_is_of_another_kind(model):
    task = model.adapt([("ab", "7"), ("fa", "12")])
    assert not task.applicability().applies and task.applicability().likely and task.applicability().given == 0
    with pytest.warns(FewShotWarning, match="the best candidate gives 0 of 2 supports when it is run"):
        task.predict(["be"])
    assert model.adapt([("ab", "7"), ("fa", "12")], likelihood="model").applicability().applies


def test_functions_beside_a_step_that_is_known_by_demonstrations(model):
    """The likelihood of the model stands for the chains of "star"; a consistent function weighs 1 beside them."""
    star = TextTask("star", tuple((x, "*" + x) for x in WORDS))
    bank = TextBank((*TextBank.from_functions(FUNCTIONS, WORDS).tasks, star))
    mixed = LanguageExtrapolator(steps=2, batch_size=4, hidden=16, layers=1, device="cpu").fit(bank)
    task = mixed.adapt([("ba", "*BA"), ("fe", "*FE")])  # inputs that star does not show
    given = {str(r.candidate): r.given for r in task.candidates_}
    assert given["up"] == given["up > hash"] == (False, False) and given["up > star"] == (None, None)
    best = task.candidates_[0]
    assert "star" in best.candidate.steps and not best.refuted and task.applicability().given is None
    open_ = [r for r in task.candidates_ if None in r.given]
    total = np.array([np.nansum(r.log_p) for r in open_])
    assert [r.weight for r in open_] == pytest.approx(np.exp(total - np.logaddexp.reduce(total)), abs=1e-9)
    assert "explains" in task.explain() and "next: " in task.explain()
    sure = mixed.adapt([("ba", "BA#"), ("fe", "FE#")])
    assert str(sure.candidates_[0].candidate) == "up > hash" and sure.candidates_[0].weight > 0.99
    shown = mixed.adapt([("ab", "*ab"), ("fa", "*fa")])  # inputs that it shows: demonstrations are exact too
    assert str(shown.candidates_[0].candidate) == "star" and shown.candidates_[0].given == (True, True)


@pytest.mark.parametrize(
    ("p_token", "below", "lessons", "likely"),
    [
        (0.51, 0, 40, True),  # more than half a token: whatever the lessons
        (0.49, 3, 40, False),  # p-value 4 / 41, of 0.1 at most
        (0.49, 4, 40, True),  # 5 / 41
        (0.01, 20, 40, True),  # a model that executes half of its lessons as badly
        (0.29, 0, 3, False),  # less than nine lessons, the worst at 0.6: clearly below it
        (0.31, 0, 3, True),
        (0.0, 40, 40, False),
    ],
)
def test_what_is_likely(p_token, below, lessons, likely):
    with np.errstate(divide="ignore"):
        lowest = float(np.log(0.6 if not below else 1e-3))
        verdict = TextApplicability(float(np.log(p_token)), (1 + below) / (1 + lessons), lessons, lowest)
    assert verdict.likely is verdict.applies is likely
    assert verdict.token == f"{p_token:.2f}" + f"; {below} of {lessons} known lessons have less" * (p_token < 0.5)


def test_likelihoods_are_compared_token_by_token(model):
    """The byte model reads a letter as a token, and the end as one."""
    supports = [("ab", "AB#AB#AB"), ("fa", "")]
    found = model.adapt(supports, likelihood="model")
    best = found.candidates_[0]
    assert found.applicability().log_p == pytest.approx((best.log_p[0] / 9 + best.log_p[1] / 1) / 2)
    wanted = [np.mean(values[:2]) <= found.applicability().log_p for values in model.calibration_]
    assert found.applicability().p_value == (1 + sum(wanted)) / (1 + len(model.calibration_))
    _, kept = split_lessons(model.relation_.lessons(model.bank_), model.bank_, seed=model.seed)
    pairs = calibration_examples(model.bank_, kept, model.executor(), seed=model.seed)[0]
    total = log_probs(model.policy_, encode_texts(model.policy_, pairs, max_tokens=512)).tolist()
    assert model.calibration_[0] == pytest.approx([p / (len(y) + 1) for p, (_, y) in zip(total, pairs, strict=True)])


def test_a_model_of_an_older_version_is_refused(model, tmp_path):
    model.save(tmp_path / "old")
    settings = tmp_path / "old" / "settings.jsonl"
    settings.write_text(settings.read_text().replace('"calibration per token"', '"calibration"'))
    with pytest.raises(DataError, match="older version, whose lessons are not comparable: fit again"):
        LanguageExtrapolator.load(tmp_path / "old")
