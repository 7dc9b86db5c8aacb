"""The posterior against enumeration, votes, and beam search against exhaustive search."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest

from operant.language import Candidate, sparse_parity
from operant.language.search import (
    LOG_WRONG,
    Posterior,
    beam,
    effective_number,
    exhaustive,
    log_likelihood,
    search,
    vote,
)

CANDIDATES = tuple(Candidate((name,)) for name in "abcd")


def test_weights_against_enumeration():
    """Four candidates, two of which behave alike: Bayes' rule, behavior by behavior."""
    log_p = np.log([[0.9, 0.5], [0.2, 0.3], [0.6, 0.1], [0.5, 0.5]])
    behaviors = ["x", "y", "x", "z"]
    weights = Posterior(CANDIDATES, log_p).weights(behaviors)
    likelihood = np.exp(log_p).prod(1)
    joint = {}
    for b in dict.fromkeys(behaviors):  # p(b) = 1/3, p(candidate | b) uniform
        members = [k for k in range(4) if behaviors[k] == b]
        for k in members:
            joint[k] = 1 / 3 / len(members) * likelihood[k]
    expected = np.array([joint[k] for k in range(4)]) / sum(joint.values())
    assert weights == pytest.approx(expected, abs=1e-12) and weights.sum() == pytest.approx(1)
    assert Posterior(CANDIDATES, log_p).weights() == pytest.approx(likelihood / likelihood.sum())


def test_parity_votes_against_enumeration_of_the_masks():
    """Exact execution: the weights of the six (anchor, bit) pairs of a mask count the mask once."""
    split = sparse_parity(5, sizes=(1, 2, 3), target=4)
    pairs = [
        (a, b) for a in split.bank if a.order == 3 for b in split.bank if b.order == 1 and b.parts[0] not in a.parts
    ]
    target = split.targets[1]
    shown, query = ["1 0 0 1 0", "0 1 1 0 1", "1 1 1 1 1"], "1 0 1 0 0"
    value = lambda a, b, x: str(int(a.output(x)) ^ int(b.output(x)))  # noqa: E731
    log_p = np.array([[0.0 if value(a, b, x) == target.output(x) else -50.0 for x in shown] for a, b in pairs])
    outputs = [[value(a, b, query)] for a, b in pairs]
    behaviors = [tuple(value(a, b, x) for x in split.bank.inputs) for a, b in pairs]
    candidates = tuple(Candidate((a.name, b.name)) for a, b in pairs)
    weights = Posterior(candidates, log_p).weights(behaviors)
    masks = [t for t in split.targets if all(t.output(x) == target.output(x) for x in shown)]
    share = sum(t.output(query) == "1" for t in masks) / len(masks)
    (found,) = vote(weights, outputs)
    assert found.get("1", 0.0) == pytest.approx(share) and effective_number(weights, behaviors) == pytest.approx(
        len(masks)
    )


def test_a_candidate_that_cannot_run_has_no_weight():
    log_p = np.array([[-np.inf, -1.0], [-1.0, -1.0], [-2.0, -1.0], [-300.0, -1.0]])
    posterior = Posterior(CANDIDATES, log_p)
    assert posterior.weights()[0] == 0 and posterior.weights().sum() == pytest.approx(1)
    assert [str(c) for c in posterior.best(9, within=10.0).candidates] == ["b", "c"]
    assert [str(c) for c in posterior.best(1, within=10.0).candidates] == ["b"]
    nothing = Posterior(CANDIDATES, np.full((4, 2), -np.inf))
    assert nothing.weights().sum() == 0 and not nothing.best(9, within=10.0).candidates
    assert effective_number(nothing.weights(), "abcd") == 0


def test_votes_leave_out_what_cannot_be_run():
    weights = np.array([0.5, 0.3, 0.2])
    first, second = vote(weights, [["x", None], ["y", None], ["y", None]])
    assert first == pytest.approx({"x": 0.5, "y": 0.5}) and second == {}
    assert vote(weights, [["x"], [None], ["y"]]) == [pytest.approx({"x": 5 / 7, "y": 2 / 7})]


def test_beam_finds_what_exhaustive_search_finds():
    """Chains of three of 12 steps; a step that is right in its place makes the supports likelier."""
    names = [chr(97 + i) for i in range(12)]
    space = [Candidate(steps) for n in (1, 2, 3) for steps in product(names, repeat=n)]
    truth = ("c", "k", "e")
    seen = []

    def score(some, which):
        seen.extend(some)
        right = [sum(a == b for a, b in zip(c.steps[::-1], truth[::-1], strict=False)) for c in some]
        return np.array([[-3.0 + r for _ in which] for r in right])

    assert exhaustive(space, score, 2).best(1, within=1).candidates == (Candidate(truth),)
    seen.clear()
    found = beam(space, score, 2, width=8)
    assert found.best(1, within=1).candidates == (Candidate(truth),)
    assert len(seen) == len(set(seen)) == len(found.candidates) < len(space)
    sizes = [len(search(space, score, 2, limit=limit).candidates) for limit in (4000, 99)]
    assert sizes[0] == len(space) > sizes[1]


@pytest.mark.parametrize("spread", [1.0, 100.0])
def test_what_cannot_matter_is_not_scored_and_the_posterior_is_the_same(spread):
    """Log-likelihoods of many sizes, some candidates that cannot run, against all of them scored."""
    rng = np.random.default_rng(3)
    space = [Candidate((str(k),)) for k in range(200)]
    log_p = -spread * rng.exponential(size=(200, 5))
    log_p[:7, 2] = -np.inf
    calls = []

    def score(some, which):
        rows = [int(c.steps[0]) for c in some]
        calls.extend(product(rows, which))
        return log_p[rows][:, list(which)]

    found, full = exhaustive(space, score, 5), Posterior(tuple(space), log_p)
    assert len(calls) == len(set(calls)) and np.abs(found.weights() - full.weights()).max() < 200 * np.exp(-30)
    assert (len(calls) < 0.5 * log_p.size) == (spread > 1)
    known = ~np.isnan(found.log_p)
    assert (found.log_p[known] == log_p[known]).all()
    assert found.best(64, within=12.0).candidates == full.best(64, within=12.0).candidates
    nothing = exhaustive(space[:3], lambda some, which: np.full((len(some), len(which)), -np.inf), 2)
    assert nothing.weights().sum() == 0 and (nothing.log_likelihood == -np.inf).all()


def test_beam_on_one_candidate():
    posterior = beam([Candidate(("a",))], lambda some, _: np.full((len(some), 1), math.log(0.5)), 1)
    assert posterior.candidates == (Candidate(("a",)),)


NAN = float("nan")
GIVEN = np.array([[1, 1], [1, 1], [0, 1], [NAN, NAN], [1, NAN], [0, 0]])
"""Two candidates that give both supports, one that contradicts the first, one that cannot be run, one that runs on the
first input only, one that contradicts both."""
LOG_P = np.log([[1e-9, 1e-9], [0.1, 0.2], [0.9, 0.9], [0.5, 0.8], [0.3, 0.6], [0.2, 0.1]])


def by_enumeration(log_p, given):
    """p(supports | c) as a product over supports, one case after the other."""
    found = []
    for row, ran in zip(log_p.tolist(), given.tolist(), strict=True):
        p = 1.0
        for value, known in zip(row, ran, strict=True):
            if known == 1:
                continue
            p *= math.exp(value) * (math.exp(LOG_WRONG) if known == 0 else 1)
        found.append(p)
    return np.array(found)


def test_the_exact_likelihood_against_enumeration():
    p = by_enumeration(LOG_P, GIVEN)
    assert np.exp(log_likelihood(LOG_P, GIVEN)) == pytest.approx(p, rel=1e-9)
    weights = Posterior((*CANDIDATES, *CANDIDATES[:2]), LOG_P, GIVEN).weights()
    assert weights == pytest.approx(p / p.sum(), rel=1e-9)
    assert weights[0] == weights[1] == pytest.approx(1 / (1 + 1 + 0.4 + 0.6)) and weights[[2, 5]].max() < 1e-13
    behaviors = ["x", "x", "y", "z", "w", "v"]  # the two that give both supports are one task
    one = Posterior((*CANDIDATES, *CANDIDATES[:2]), LOG_P, GIVEN).weights(behaviors)
    assert one[:2].sum() == pytest.approx(1 / (1 + 0.4 + 0.6))
    assert log_likelihood(LOG_P, np.full((6, 2), NAN)) == pytest.approx(log_likelihood(LOG_P, None))


def test_the_model_orders_what_gives_every_support_and_breaks_ties():
    posterior = Posterior((*CANDIDATES, Candidate(("e",)), Candidate(("f",))), LOG_P, GIVEN)
    assert [str(c) for c in posterior.best(9, within=12.0).candidates] == ["b", "a", "e", "d"]
    outputs = [[y] for y in ("from a", "from b", "c", "from a", "from b", "f")]
    (share,) = vote(np.array([0.3, 0.2, 0.0, 0.1, 0.2, 0.0]), outputs)
    assert next(iter(share)) == "from a"  # .4 each, up to rounding: first come
    assert vote(np.array([1, 1 / 3, 1 / 3, 1 / 3 + 1e-16]), [["x"], ["y"], ["y"], ["y"]])[0].keys() == {"x", "y"}


def test_where_all_are_refuted_fewer_contradictions_come_first_then_the_model():
    given = np.array([[0, 0], [0, 1], [1, 0]])
    log_p = np.log([[0.9, 0.9], [0.1, 0.1], [0.2, 0.2]])
    posterior = Posterior(CANDIDATES[:3], log_p, given)
    weights = posterior.weights()
    assert [str(c) for c in posterior.best(3, within=99.0).candidates] == ["c", "b", "a"]
    assert weights == pytest.approx([0, 1 / 3, 2 / 3], abs=1e-9)


@pytest.mark.parametrize("limit", [9999, 150, 1])  # exhaustive; exhaustive among what is left; beam
def test_what_gives_every_support_is_found_however_unlikely_and_the_rest_is_not_scored(limit):
    """Chains of two of 20 steps; the model finds the right one and its equal the least likely of all."""
    names = [chr(97 + i) for i in range(20)]
    space = [Candidate(steps) for n in (1, 2) for steps in product(names, repeat=n)]
    right, calls = {space[77], space[333]}, []
    given = np.array([[float(c in right)] * 3 for c in space])
    given[100:200] = NAN

    def score(some, which):
        calls.extend(some)
        return np.array([[-60.0 if c in right else -1.0 - k % 7 for _ in which] for k, c in enumerate(some)])

    found = search(space, score, 3, given=given, limit=limit)
    assert set(found.best(64, within=12.0).candidates) >= right
    weight = dict(zip(found.candidates, found.weights(), strict=True))
    assert weight[space[77]] == weight[space[333]] and weight[space[77]] > max(
        w for c, w in weight.items() if c not in right
    )
    assert set(calls) <= right | set(space[100:200])
    scored = {c: row for c, row in zip(found.candidates, found.log_p, strict=True) if not np.isnan(row).all()}
    assert right <= set(scored)
