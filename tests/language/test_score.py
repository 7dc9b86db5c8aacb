"""Scores: the same with and without shared prefixes, for any batch size, on both sides of padding; and generation."""

from __future__ import annotations

from itertools import product

import pytest
import torch

from operant.core.checks import DataError
from operant.hf.rollouts.policy import Encoded, byte_policy
from operant.language import score
from operant.language.score import _groups, encode_texts, generate, log_probs

PAIRS = [
    ("hello <rev>\n", "olleh"),
    ("hello <up>\n", "HELLO"),
    ("hello <up>\n", "HELP"),
    ("hello <rev>\n", "olleh"),  # again
    ("hello", ""),  # a prefix of others, with an empty output
    ("he", "x"),
    ("world <up>\n", "WORLD"),
    ("a much longer text that shares nothing <rev>\n", "é"),
    ("x", "y"),
]


@pytest.fixture(scope="module")
def policy():
    """Weights that are far from uniform: a mistake in masks or positions changes the scores."""
    torch.set_num_threads(1)
    found = byte_policy(["<rev>", "<up>"], seed=1, hidden=32, layers=2)
    with torch.no_grad():
        for p in found.model.parameters():
            p.mul_(3.0)
    return found


@pytest.fixture(scope="module")
def rows(policy):
    return encode_texts(policy, PAIRS, max_tokens=100)


@pytest.fixture(scope="module")
def reference(policy, rows):
    """One row at a time, all logits, softmax in float64."""
    found = []
    for row in rows:
        ids = torch.tensor([row.prompt + row.target])
        with torch.no_grad():
            log_q = policy.model(input_ids=ids).logits[0].double().log_softmax(-1)
        places = range(len(row.prompt), ids.shape[1])
        found.append(sum(log_q[t - 1, ids[0, t]] for t in places))
    return torch.stack(found)


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("padding", ["left", "right"])
@pytest.mark.parametrize("batch_size", [1, 2, 3, 5, 100])
def test_scores_do_not_depend_on_how_they_are_computed(policy, rows, reference, share, padding, batch_size):
    found = log_probs(policy, rows, batch_size=batch_size, share=share, padding=padding)
    assert found.dtype == torch.float64 and (found - reference).abs().max() < 1e-4


def test_no_row_scores_nothing(policy):
    assert log_probs(policy, []).shape == (0,)


def test_equal_rows_and_shared_prefixes_are_computed_once(policy, rows, monkeypatch):
    seen = []
    forward = policy.model.forward

    def counted(**inputs):
        seen.append(int(inputs["input_ids"].numel()))
        return forward(**inputs)

    monkeypatch.setattr(policy.model, "forward", counted)
    some = [*rows[:4], *rows[:4]]
    log_probs(policy, some, share=False)
    alone = sum(seen)
    seen.clear()
    log_probs(policy, some)
    assert sum(seen) < alone < sum(len(r.prompt) + len(r.target) for r in some)


@pytest.mark.parametrize("largest", [2, 3, 100])
def test_groups_save_the_most_tokens(largest):
    """Against every way to cut the sorted rows into runs."""

    def saved(prompts):
        limit = min(map(len, prompts)) - 1
        depth = next((d for d in range(limit) if len({p[d] for p in prompts}) > 1), limit)
        return depth * (len(prompts) - 1)

    generator = torch.Generator().manual_seed(0)
    for _ in range(40):
        count = int(torch.randint(1, 8, (1,), generator=generator))
        sizes = torch.randint(1, 9, (count,), generator=generator).tolist()
        prompts = sorted({tuple(torch.randint(0, 2, (n,), generator=generator).tolist()) for n in sizes})
        groups = _groups([Encoded(list(p), [9]) for p in prompts], largest)
        assert sorted(i for g in groups for i in g.rows) == list(range(len(prompts)))
        assert all(len({prompts[i][: g.length] for i in g.rows}) == 1 and len(g.rows) <= largest for g in groups)
        best = 0
        for cuts in product([False, True], repeat=len(prompts) - 1):
            ends = [i + 1 for i, c in enumerate(cuts) if c] + [len(prompts)]
            runs = [prompts[a:b] for a, b in zip([0, *ends], ends, strict=False)]
            if max(map(len, runs)) <= largest:
                best = max(best, sum(map(saved, runs)))
        assert sum(g.length * (len(g.rows) - 1) for g in groups) == best


def test_special_tokens_are_those_of_training_and_an_empty_target_is_one_token(policy):
    (row,) = encode_texts(policy, [("a <up>\n", "")], max_tokens=10)
    assert row.target == [policy.tokenizer.eos_token_id] and len(row.prompt) == 4
    (row,) = encode_texts(policy, [("é", "ß")], max_tokens=10)
    assert (len(row.prompt), len(row.target)) == (2, 3) and policy.text(row.target) == "ß"


def test_long_texts_are_refused_and_not_cut(policy):
    with pytest.raises(DataError, match="a text of 10001 tokens exceeds max_tokens = 512: 'xxx"):
        encode_texts(policy, [("x" * 9_999, "y")], max_tokens=512)


def test_long_texts_are_scored_where_they_are_allowed(policy):
    found = encode_texts(policy, [("x" * 3000, "y"), ("x" * 3000, "z")], max_tokens=10_000)
    assert (log_probs(policy, found) - log_probs(policy, found, share=False)).abs().max() < 1e-4


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_generation_is_greedy_for_any_batch(policy, batch_size):
    prompts = [prompt for prompt, _ in PAIRS]
    expected = []
    for prompt in prompts:
        tokens = policy.tokenizer(prompt)["input_ids"]
        size = len(tokens)
        for _ in range(12):
            with torch.no_grad():
                tokens.append(int(policy.model(input_ids=torch.tensor([tokens])).logits[0, -1].argmax()))
            if tokens[-1] in policy.ends:
                break
        expected.append(policy.text(tokens[size:]))
    assert generate(policy, prompts, max_new_tokens=12, batch_size=batch_size) == expected


def test_memory_is_bounded_and_the_scores_are_the_same(policy, rows, reference, monkeypatch):
    """Rows and prefixes that do not fit are split: as few as one a pass."""
    sizes = []
    forward = policy.model.forward

    def counted(**inputs):
        sizes.append(tuple(inputs["attention_mask"].shape))
        return forward(**inputs)

    monkeypatch.setattr(policy.model, "forward", counted)
    monkeypatch.setattr(score, "POSITIONS", 30)
    assert (log_probs(policy, rows) - reference).abs().max() < 1e-4
    assert all(n == 1 or n * length <= 30 for n, length in sizes) and max(n for n, _ in sizes) > 1
    sizes.clear()
    monkeypatch.setattr(score, "POSITIONS", 10_000)
    monkeypatch.setattr(score, "LOGITS", 1)
    assert (log_probs(policy, rows, share=False) - reference).abs().max() < 1e-4
    assert all(n == 1 for n, _ in sizes)
