"""The extrapolator from fit to prediction, on problems that a tiny model learns in seconds; and its edges."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from operant.core.checks import BudgetError, ConfigError, DataError, InputError
from operant.language import (
    Compose,
    FewShotWarning,
    LanguageExtrapolator,
    LeakError,
    TextBank,
    TextTask,
    Toggle,
    sparse_parity,
)

WORDS = ["ab", "cde", "fa", "bcd", "eef", "dad", "cab", "fed", "be", "ace", "face", "deaf"]
FUNCTIONS = {"up": str.upper, "hash": lambda x: x + "#", "none": lambda x: ""}
SMALL = {"hidden": 32, "layers": 1, "batch_size": 16, "device": "cpu", "learning_rate": 5e-3}
PARITY = SMALL | {"layers": 2, "batch_size": 32, "learning_rate": 3e-3}


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def bank():
    return TextBank.from_functions(FUNCTIONS, WORDS)


@pytest.fixture(scope="module")
def model(bank):
    """Not trained to execute: the search and what is built on it hold for any weights."""
    return LanguageExtrapolator(steps=60, **SMALL).fit(bank)


@pytest.fixture(scope="module")
def parity():
    """Exclusive or of two outputs: four prompts, learned in seconds."""
    split = sparse_parity(5, sizes=(1, 2, 3), target=4)
    return split, LanguageExtrapolator(relation=Toggle(), steps=80, **PARITY).fit(split.bank, held_out=split.targets)


def test_parity_is_found_and_predicted(parity):
    split, model = parity
    target, inputs = split.targets[2], split.bank.inputs
    task = model.adapt([(x, target.run(x)) for x in inputs[:20]], held_out=split.targets)
    assert task.predict(inputs[20:]) == [target.run(x) for x in inputs[20:]]
    best = task.candidates_[0]
    assert best.explained == 20 and set(target.parts) == {
        *split.bank[best.candidate.steps[0]].parts,
        best.candidate.steps[1],
    }
    assert task.applicability().applies and not task.fallback_
    assert task.effective_number() == pytest.approx(1.0, abs=0.01)
    assert "explains 20 of 20 supports" in task.explain() and "effective number of hypotheses: 1.0" in task.explain()


def test_the_vote_is_the_posterior_over_masks(parity):
    """Three supports leave several masks: the shares are those of an exact count, a mask once."""
    split, model = parity
    target, inputs = split.targets[0], split.bank.inputs
    shown, queries = [inputs[i] for i in (3, 12, 22)], [inputs[i] for i in (5, 9, 17, 30)]
    task = model.adapt([(x, target.run(x)) for x in shown])
    masks = [t for t in split.targets if all(t.run(x) == target.run(x) for x in shown)]
    assert len(masks) > 1 or task.effective_number(queries) == pytest.approx(1.0, abs=0.05)
    different = {tuple(t.run(x) for x in queries) for t in masks}
    for place, found in enumerate(task.vote(queries)):
        share = np.mean([row[place] == found.output for row in different])
        assert found.confidence == pytest.approx(share, abs=0.05)


def test_another_kind_of_task_falls_back_and_says_so(parity):
    split, model = parity
    inputs = split.bank.inputs
    task = model.adapt([(x, "no parity at all") for x in inputs[:5]])
    assert not task.applicability().applies and task.applicability().p_value == 1 / (1 + task.applicability().lessons)
    with pytest.warns(FewShotWarning, match="few-shot prompting: a token of the supports has probability 0.00; 0 of"):
        found = task.vote(inputs[5:7])
    assert len(found) == 2 and all(isinstance(v.output, str) and np.isnan(v.confidence) for v in found)
    assert task.explain().startswith("No candidate is trusted")


def test_scores_are_those_of_single_rows(model, bank):
    candidates = Compose().candidates(bank)
    supports = [("ab", "AB#"), ("cde", "")]
    found = model.score(candidates, supports)
    for k, c in enumerate(candidates):
        for i, support in enumerate(supports):
            assert found[k, i] == pytest.approx(model.score([c], [support])[0, 0], abs=1e-4)


def test_steps_are_run_where_they_can_be(model):
    """With "run" a candidate's own output counts, whatever the model would write."""
    task = model.adapt([("ab", "AB#"), ("cde", "CDE#")])
    voters = task.posterior.best(99, within=np.inf).candidates
    row = {str(c): out for c, out in zip(voters, model.executor().outputs(voters, ["fa"], execute="run"), strict=True)}
    assert row["up > hash"] == ["FA#"] and row["none"] == [""] and row["hash > hash"] == ["fa##"]


def test_an_empty_output_is_an_output(model):
    task = model.adapt([("ab", ""), ("cde", ""), ("fa", "")])
    assert str(task.candidates_[0].candidate) == "none"
    assert len(task.predict(["be"], execute="run")) == 1


def test_supports_that_cannot_be_a_task(model):
    with pytest.raises(DataError, match="the target contradicts itself: 'ab' gives 'AB' and 'x'"):
        model.adapt([("ab", "AB"), ("ab", "x")])
    with pytest.raises(DataError, match="at least one support"):
        model.adapt([])
    with pytest.raises(DataError, match="expected pairs of texts"):
        model.adapt([("ab", None)])  # pyright: ignore
    assert len(model.adapt([("ab", "AB"), ("ab", "AB")]).supports) == 1


def test_texts_of_10000_characters_are_refused_with_their_size(model, bank):
    long = "x" * 10_000
    with pytest.raises(DataError, match=r"a text of \d+ tokens exceeds max_tokens = 512"):
        model.adapt([(long, "y")])
    task = model.adapt([("ab", "AB")])
    task.posterior.best(1, within=1.0)
    with pytest.raises(DataError, match=r"a prompt of \d+ tokens exceeds max_tokens = 512"):
        task._executor.write([long])
    with pytest.raises(DataError, match="exceeds max_tokens"):
        LanguageExtrapolator(steps=1, **SMALL).fit(TextBank((*bank.tasks, TextTask("long", ((long, "y"),)))))


def test_a_query_is_a_list_of_texts(model):
    task = model.adapt([("ab", "AB")])
    assert task.predict([]) == []
    with pytest.raises(InputError, match="expected a list of inputs"):
        task.predict("ab")


def test_a_bank_of_one_task():
    bank = TextBank.from_functions({"up": str.upper}, WORDS)
    model = LanguageExtrapolator(steps=2, **SMALL).fit(bank)
    assert [str(r.candidate) for r in model.adapt([("ab", "AB")]).candidates_] == ["up"]
    few = LanguageExtrapolator(steps=2, **SMALL).fit(TextBank((TextTask("one", (("a", "b"),)),)))
    task = few.adapt([("c", "d")])
    assert task.applicability().p_value is None and task.applicability().applies
    assert len(task.predict(["e"])) == 1  # the one task and its square, run by the model


def test_tasks_of_equal_behavior_are_one(bank):
    again = TextBank.from_functions(FUNCTIONS | {"again": str.upper}, WORDS)
    model = LanguageExtrapolator(steps=1, **SMALL).fit(again)
    assert [t.name for t in model.bank_] == [t.name for t in bank]


def test_an_anchor_that_raises_is_left_out():
    def picky(x):
        if x == "fa":
            raise RuntimeError("not this one")
        return x[::-1]

    bank = TextBank.from_functions({"up": str.upper, "picky": picky}, WORDS)
    model = LanguageExtrapolator(steps=2, **SMALL).fit(bank)
    task = model.adapt([("fa", "AF"), ("ab", "BA")])
    weights = {str(r.candidate): r.weight for r in task.candidates_}
    assert weights["picky > up"] == 0 and "left out: task 'picky' raised RuntimeError on 'fa'" in task.explain()
    only = LanguageExtrapolator(steps=2, relation=Compose(depth=2), **SMALL).fit(
        TextBank.from_functions({"picky": picky, "same": lambda x: picky(x) + "!"}, WORDS)
    )
    assert np.isfinite(only.adapt([("fa", "af")]).posterior.log_p).any()  # alone, the model runs it


def test_no_candidate_can_be_run():
    def broken(x):
        raise RuntimeError("broken")

    bank = TextBank.from_functions({"bit 0": lambda x: x[0], "two": lambda x: x[0]}, WORDS, parts={"bit 0": ["bit 0"]})
    with pytest.raises(DataError, match="teaches this relation nothing"):
        LanguageExtrapolator(relation=Toggle(), steps=1, **SMALL).fit(
            TextBank.from_functions({"a": lambda x: x[0], "b": lambda x: x[1]}, WORDS, parts={"a": "a", "b": "b"})
        )
    split = sparse_parity(3, sizes=(1, 2), target=3)
    tasks = [TextTask(t.name, t.demonstrations, broken if t.order == 2 else t.run, t.parts) for t in split.bank]
    model = LanguageExtrapolator(relation=Toggle(), steps=1, **SMALL).fit(split.bank)
    model.bank_ = TextBank(tuple(tasks), bank.probes)
    task = model.adapt([("0 1 1", "0")])
    assert "no candidate can be run on the supports (task 'parity 0 1' raised RuntimeError" in task.fallback_
    with pytest.warns(FewShotWarning):
        assert len(task.predict(["1 1 1"])) == 1


def test_a_test_task_is_never_known(bank):
    target = TextTask("target", (("ab", "AB"),), str.upper)
    with pytest.raises(LeakError, match="behaves as 'up'"):
        LanguageExtrapolator(steps=1, **SMALL).fit(bank, held_out=[target])
    model = LanguageExtrapolator(steps=1, **SMALL).fit(bank)
    with pytest.raises(LeakError, match="behaves as 'up'"):
        model.adapt([("ab", "AB")], held_out=[target])


def test_a_saved_model_answers_as_before(model, tmp_path):
    task = model.adapt([("ab", "AB#"), ("cde", "CDE#")])
    model.save(tmp_path / "saved")
    assert not list((tmp_path / "saved").rglob("*.pkl")) and not list((tmp_path / "saved").rglob("*.bin"))
    again = LanguageExtrapolator.load(tmp_path / "saved", functions=FUNCTIONS)
    found = again.adapt([("ab", "AB#"), ("cde", "CDE#")])
    assert [r.candidate for r in found.candidates_] == [r.candidate for r in task.candidates_]
    assert found.posterior.log_p == pytest.approx(task.posterior.log_p, abs=1e-4, nan_ok=True)
    assert found.applicability() == task.applicability() or found.applicability().log_p == pytest.approx(
        task.applicability().log_p, abs=1e-4
    )
    bare = LanguageExtrapolator.load(tmp_path / "saved")
    assert len(bare.adapt([("ab", "AB#")]).predict(["fa"])) == 1  # without functions the model runs every step
    with pytest.raises(DataError, match="holds a fitted model already"):
        model.save(tmp_path / "saved")


def test_killed_and_resumed_equals_uninterrupted(bank, tmp_path, monkeypatch):
    def make():
        return LanguageExtrapolator(steps=8, save_steps=4, **SMALL)

    def kill(step, loss):
        if step >= 6:
            raise KeyboardInterrupt

    whole = make().fit(bank, folder=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        make().fit(bank, folder=tmp_path / "killed", progress=kill)
    assert list((tmp_path / "killed" / "training").glob("checkpoint-*"))
    with pytest.raises(DataError, match=r"other settings \(steps\)"):
        LanguageExtrapolator(steps=9, save_steps=4, **SMALL).fit(bank, folder=tmp_path / "killed")
    steps = []
    again = make().fit(bank, folder=tmp_path / "killed", progress=lambda step, loss: steps.append(step))
    assert steps[0] == 5
    for a, b in zip(whole.policy_.model.parameters(), again.policy_.model.parameters(), strict=True):
        assert torch.equal(a, b)
    assert json.dumps(whole.calibration_) == json.dumps(again.calibration_)
    with pytest.raises(DataError, match="holds a fitted model: LanguageExtrapolator.load"):
        make().fit(bank, folder=tmp_path / "whole")


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"steps": 0}, BudgetError, "steps must be an integer >= 1"),
        ({"batch_size": 1.5}, BudgetError, "batch_size must be an integer"),
        ({"lora_rank": 4}, ConfigError, "the embedded model has random weights"),
        ({"model": "no/such/folder"}, DataError, "cannot load a causal language model"),
    ],
)
def test_settings_that_cannot_work(bank, settings, error, message):
    with pytest.raises(error, match=message):
        LanguageExtrapolator(**settings).fit(bank)


def test_a_local_model_with_lora(bank, tmp_path):
    from operant.hf.rollouts.policy import byte_policy

    byte_policy([], hidden=16, layers=1).save(tmp_path / "base")
    model = LanguageExtrapolator(str(tmp_path / "base"), lora_rank=2, steps=3, batch_size=4, device="cpu").fit(bank)
    task = model.adapt([("ab", "AB#")])
    model.save(tmp_path / "saved")
    assert (tmp_path / "saved" / "model" / "adapter_config.json").is_file()
    again = LanguageExtrapolator.load(tmp_path / "saved", functions=FUNCTIONS)
    assert again.adapt([("ab", "AB#")]).posterior.log_p == pytest.approx(task.posterior.log_p, abs=1e-4, nan_ok=True)
