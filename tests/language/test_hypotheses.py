"""Hypotheses are the candidates that vote, merged by what they do: weights, outputs and supports given."""

from __future__ import annotations

import pytest
import torch

from operant.language import LanguageExtrapolator, TextBank

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
