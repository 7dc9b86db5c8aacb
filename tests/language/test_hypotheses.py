"""Hypotheses are the candidates that vote, merged by what they do: weights, outputs and supports given."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from operant.language import FewShotWarning, LanguageExtrapolator, TextBank, TextTask

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
