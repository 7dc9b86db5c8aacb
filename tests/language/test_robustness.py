"""What an attacker would give: odd texts and names, huge banks, broken weights, outputs without an end."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from operant.core.checks import DataError, InputError
from operant.hf.rollouts.policy import byte_policy
from operant.language import Compose, LanguageExtrapolator, TextBank, TextTask, Toggle
from operant.language.execute import Executor
from operant.language.relations import Candidate
from operant.language.score import encode_texts, log_probs

SMALL = {"hidden": 16, "layers": 1, "batch_size": 4, "steps": 1, "device": "cpu"}
NAMES = ["", "eos", "pad", "a b", "new\nline", "a > b", "<eos>", "é", "e\u0301", "\t", "'\"", "up"]
"""Empty, of special tokens, with spaces, newlines and separators, and twice the same letter in two ways."""
TEXTS = [
    "e\u0301",
    "é",
    "a\nb",
    "\r\n",
    "<up>",
    "<eos>",
    "a<eos>b",
    "<pad>",
    " <up> ",
    "\x00",
    "\u202e",
    "👩‍👩‍👧",
    "  two ",
    "n't .",
]
PAIR = {"u": str.upper, "r": lambda x: x[::-1]}


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def policy():
    return byte_policy(["<up>", "<eos>", "<a b>"], hidden=16, layers=1)


@pytest.fixture(scope="module")
def model():
    """A bank of tasks with odd names: task number k adds k."""
    functions = {name: lambda x, k=k: f"{x}{k}" for k, name in enumerate(NAMES)}
    return LanguageExtrapolator(**SMALL).fit(TextBank.from_functions(functions, ["ab", "c\nd", "<eos>"]))


@pytest.mark.parametrize("text", TEXTS)
def test_any_text_is_read_and_written_as_it_is(policy, text):
    """The name of a special token, in a user's text, is text."""
    (row,) = encode_texts(policy, [(text, text)], max_tokens=99)
    eos, pad = policy.tokenizer.eos_token_id, policy.pad
    assert policy.text(row.target[:-1]) == text and policy.text(row.prompt) == text
    assert row.target[-1] == eos and not {eos, pad} & {*row.target[:-1], *row.prompt}


def test_tasks_of_any_name(model, tmp_path):
    task = model.adapt([("ab", "ab34"), ("c\nd", "c\nd34")])
    assert {name for r in task.candidates_ for name in r.candidate.steps} == set(NAMES)
    voters = task.posterior.candidates
    at = voters.index(Candidate(("a b", "new\nline")))
    assert model.executor().outputs(voters[at : at + 1], ["<pad>"], execute="run") == [["<pad>34"]]
    assert "best: " in task.explain()
    model.save(tmp_path / "saved")
    assert [t.name for t in LanguageExtrapolator.load(tmp_path / "saved").bank_] == NAMES


def test_text_that_no_tokenizer_reads(model):
    with pytest.raises(DataError, match="the target: .* holds a lone surrogate, which UTF-8 lacks"):
        model.adapt([("\ud800", "x")])
    with pytest.raises(DataError, match="task 'a': .* lone surrogate"):
        TextBank((TextTask("a", (("b", "\udfff"),)),))
    with pytest.raises(DataError, match="the name of a task: .* lone surrogate"):
        TextBank((TextTask("\ud800", (("b", "c"),)),))
    task = model.adapt([("ab", "ab0")])
    with pytest.raises(DataError, match="an input: .* lone surrogate"):
        task.predict(["\ud800"])
    with pytest.raises(InputError, match="expected texts as inputs, got None"):
        task.predict(["ab", None])


def test_ten_thousand_characters_through_predict(model):
    task = model.adapt([("ab", "ab0")])
    with pytest.raises(DataError, match=r"a prompt of 10\d+ tokens exceeds max_tokens = 512"):
        task.predict(["x" * 10_000])
    voters = [Candidate(("", "eos"))]
    assert model.executor().outputs(voters, ["x" * 10_000], execute="run") == [["x" * 10_000 + "01"]]  # never cut


def test_five_thousand_tasks():
    bank = TextBank(tuple(TextTask(f"t{i}", ((f"x{i}", "y"),)) for i in range(5000)))
    with pytest.raises(DataError, match="5000 tasks make 25,005,000 chains of up to 2, more than 1,000,000"):
        LanguageExtrapolator(**SMALL).fit(bank)
    assert len(Compose(depth=1).candidates(bank)) == 5000


def test_weights_that_are_not_numbers(policy):
    rows = encode_texts(policy, [("a", "b")], max_tokens=9)
    broken = byte_policy(hidden=16, layers=1)
    with torch.no_grad():
        next(broken.model.parameters()).fill_(float("nan"))
    for share in (True, False):
        with pytest.raises(DataError, match="its weights are not numbers. Fit it again with a smaller"):
            log_probs(broken, rows, share=share)


def test_an_output_without_an_end_is_no_output():
    """A model that never ends: the last step gives nothing, and no later step reads what was cut."""
    bank = TextBank((TextTask("a", (("x", "y"),)), TextTask("b", (("x", "z"),))))
    endless = byte_policy(Compose().words(bank), hidden=16, layers=1)
    letter = endless.tokenizer("x")["input_ids"][0]

    def forward(input_ids, **inputs):
        found = type(endless.model).forward(endless.model, input_ids, **inputs)
        found.logits = torch.full_like(found.logits, -9.0)
        found.logits[..., letter] = 9.0
        return found

    endless.model.forward = forward
    run = Executor(bank, Compose(), endless, max_tokens=32, max_new_tokens=8)
    assert run.outputs([Candidate(("a",))], ["q"], execute="model") == [[None]]
    assert run.prompts([Candidate(("a", "b")), Candidate(("b",))], ["q"]) == [[None], ["q <b>\n"]]
    assert run.failures == {"a": "task 'a', run by the model, wrote no end on 'q'"}
    assert np.isneginf(run.log_probs([Candidate(("a", "b"))], [("q", "r")])).all()


def test_an_anchor_whose_outputs_are_not_all_known_teaches_what_is_known():
    """Toggle on a bank of demonstrations: the parent lacks an input of the child."""
    tasks = [
        TextTask("bit 0", (("00", "0"), ("10", "1")), None, ("bit 0",)),
        TextTask("bit 1", (("01", "1"), ("10", "0")), None, ("bit 1",)),
        TextTask("bit 2", (("10", "0"),), None, ("bit 2",)),
        TextTask("both", (("01", "1"), ("11", "0"), ("10", "1")), None, ("bit 0", "bit 1")),
    ]
    model = LanguageExtrapolator(relation=Toggle(), **SMALL).fit(TextBank(tuple(tasks)))
    with pytest.raises(DataError, match="has no function and no demonstration of '77', and Toggle cannot run"):
        model.adapt([("77", "1")])


def test_few_shot_outputs_keep_their_newlines(model):
    task = model.adapt([("a", "b\nc")])
    task._executor.write = lambda prompts: [" d\ne\n\nInput: more\nOutput: f"]
    assert task._few_shot(["q"]) == ["d\ne"]
    plain = model.adapt([("a", "b")])
    plain._executor.write = lambda prompts: [" d\ne"]
    assert plain._few_shot(["q"]) == ["d"]


def test_duplicate_demonstrations_and_texts_of_nothing():
    bank = TextBank(
        (
            TextTask(
                "a",
                (("", ""), ("", ""), ("b", "")),
            ),
        )
    )
    assert isinstance(LanguageExtrapolator(**SMALL).fit(bank).adapt([("", "")] * 3).predict([""])[0], str)
