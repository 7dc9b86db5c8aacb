"""EM without labels: what it finds, that no label of a test task reaches it, and that a killed fit goes on."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch

from operant.core.checks import BudgetError, DataError
from operant.language import Candidate, LanguageExtrapolator, LeakError, TextBank, TextTask
from operant.language.em import Further, annealed, annealed_weights, em_round, m_examples
from operant.language.execute import Executor
from operant.language.relations import Compose
from operant.language.search import Posterior

WORDS = ["".join(w) for w in product("abcd", repeat=3)]
FIRST = {"up": str.upper, "roll": lambda x: x[1:] + x[:1]}
LAST = {"tail": lambda x: x + "d", "star": lambda x: "*" + x}
SMALL = {"hidden": 32, "layers": 1, "batch_size": 16, "device": "cpu", "learning_rate": 5e-3}
BANK = TextBank(
    (
        *TextBank.from_functions(FIRST, WORDS[:32]).tasks,
        *(TextTask(name, tuple((x, f(x)) for x in WORDS[:16])) for name, f in LAST.items()),
    )
)
"""The first steps can be run; the last ones are known by demonstrations, and the model has to learn them."""


def chain(first, last, words=WORDS[:32]):
    pairs = tuple((x, LAST[last](FIRST[first](x))) for x in words)
    return TextTask(f"{first} and {last}", pairs, None, (first, last))


UNLABELED = [chain("up", "tail"), chain("roll", "star")]
TARGET = chain("up", "star", WORDS[32:])


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def weights(model):
    return {name: p.detach().clone() for name, p in model.policy_.model.named_parameters()}


def same(a, b):
    first, second = weights(a), weights(b)
    return first.keys() == second.keys() and all(torch.equal(first[n], second[n]) for n in first)


@pytest.fixture(scope="module")
def fitted():
    return LanguageExtrapolator(steps=2, **SMALL).fit(BANK, unlabeled=UNLABELED, rounds=2, held_out=[TARGET])


def test_poisoned_test_labels_change_nothing(fitted):
    poisoned = replace(TARGET, demonstrations=tuple((x, "poison " + y[::-1]) for x, y in TARGET.demonstrations))
    again = LanguageExtrapolator(steps=2, **SMALL).fit(BANK, unlabeled=UNLABELED, rounds=2, held_out=[poisoned])
    assert same(fitted, again) and fitted.rounds_ == again.rounds_ and fitted.calibration_ == again.calibration_


def test_names_parts_and_functions_of_unlabeled_tasks_change_nothing(fitted):
    """What the tasks are made of is not read, even where it is there."""
    bare = [TextTask(str(i), t.demonstrations, lambda x: "never run") for i, t in enumerate(UNLABELED)]
    again = LanguageExtrapolator(steps=2, **SMALL).fit(BANK, unlabeled=bare, rounds=2)
    assert same(fitted, again)
    other = LanguageExtrapolator(steps=2, **SMALL).fit(BANK, unlabeled=UNLABELED[:1], rounds=2)
    assert not same(fitted, other)  # the tasks do matter


def test_a_fit_without_unlabeled_tasks_is_as_before():
    plain = LanguageExtrapolator(steps=3, **SMALL).fit(BANK)
    again = LanguageExtrapolator(steps=3, **SMALL).fit(BANK, unlabeled=[], rounds=7)
    assert same(plain, again) and plain.rounds_ == []


@pytest.mark.parametrize("stop", [pytest.param(1, marks=pytest.mark.slow), 5])  # in the warm-up; in the second round
def test_killed_and_resumed_equals_uninterrupted(fitted, tmp_path, stop):
    def kill(step, loss):
        if step > stop:
            raise KeyboardInterrupt

    def make():
        return LanguageExtrapolator(steps=2, save_steps=1, **SMALL)

    def fit(**more):
        return make().fit(BANK, unlabeled=UNLABELED, rounds=2, held_out=[TARGET], folder=tmp_path, **more)

    with pytest.raises(KeyboardInterrupt):
        fit(progress=kill)
    with pytest.raises(DataError, match=r"other settings \(data\)"):
        make().fit(BANK, unlabeled=UNLABELED[:1], rounds=2, folder=tmp_path)
    steps = []
    again = fit(progress=lambda step, loss: steps.append(step))
    assert stop <= min(steps) <= stop + 1 and max(steps) == 6
    assert same(fitted, again) and fitted.rounds_ == again.rounds_ and fitted.history_ == again.history_
    assert not (tmp_path / "training").exists()
    assert LanguageExtrapolator.load(tmp_path).rounds_ == fitted.rounds_


def test_a_test_task_among_the_unlabeled_is_refused():
    with pytest.raises(LeakError, match="behaves as 'up and tail'"):
        LanguageExtrapolator(steps=1, **SMALL).fit(BANK, unlabeled=UNLABELED, held_out=[chain("up", "tail")])


@pytest.mark.parametrize(
    ("tasks", "rounds", "error", "message"),
    [
        ([TextTask("u", (("a", "b"), ("a", "c")))], 1, DataError, "contradicts itself"),
        ([TextTask("u", ())], 1, DataError, "no demonstration"),
        ([UNLABELED[0], UNLABELED[0]], 1, DataError, "two tasks of the bank are called"),
        (UNLABELED, 0, BudgetError, "rounds must be an integer >= 1"),
    ],
)
def test_unlabeled_tasks_that_cannot_teach(tasks, rounds, error, message):
    with pytest.raises(error, match=message):
        LanguageExtrapolator(steps=1, **SMALL).fit(BANK, unlabeled=tasks, rounds=rounds)


def test_a_round_against_enumeration():
    candidates = (Candidate(("a",)), Candidate(("b",)), Candidate(("a", "b")))
    p = np.array([[0.5, 0.4], [0.1, 0.2], [0.0, 0.9]])
    with np.errstate(divide="ignore"):
        posterior = Posterior(candidates, np.log(p))
    nothing = Posterior(candidates, np.full((3, 2), -np.inf))
    tasks = [TextTask("t", (("x", "y"), ("z", "w"))), TextTask("u", (("x", "y"), ("z", "w")))]
    found = em_round(1, tasks, [posterior, nothing], 0.5)
    q = np.sqrt([0.2, 0.02])
    q = q / q.sum()  # the likelihood to the power 0.5
    assert found.assigned == 0.5 and found.best == {"t": ("a",)}
    assert found.entropy == pytest.approx(-(q * np.log(q)).sum())
    assert found.log_likelihood == pytest.approx(np.log(0.22 / 3) / 2)
    with pytest.raises(DataError, match="no candidate can be run on any unlabeled task"):
        em_round(1, tasks, [nothing, nothing], 1.0)


def test_examples_follow_the_posterior(fitted):
    """Shares of the candidates among 4,000 examples, within 4 standard errors; those that cannot run teach nothing."""
    candidates = tuple(Compose().candidates(BANK))
    p = np.zeros(len(candidates))
    a, b = candidates.index(Candidate(("up", "tail"))), candidates.index(Candidate(("roll", "tail")))
    p[a], p[b] = 0.75, 0.25
    with np.errstate(divide="ignore"):
        posteriors = [Posterior(candidates, np.repeat(np.log(p)[:, None], 4, 1))]
    run = Executor(BANK, Compose(), fitted.policy_, max_tokens=99, max_new_tokens=9)
    examples = m_examples(UNLABELED[:1], posteriors, 0.25, run, count=4000, seed=0)
    shares = np.mean([prompt[:3].isupper() for prompt, _ in examples])
    assert len(examples) == 4000 and abs(shares - 0.75) < 4 * np.sqrt(0.75 * 0.25 / 4000)
    assert all(y == prompt[:3].upper() + "d" or prompt[:3].islower() for prompt, y in examples)


class Exact:
    """Scores of a model that executes every step, and is right with probability 0.9."""

    def log_probs(self, candidates, pairs):
        def right(candidate, x, y):
            for name in candidate.steps:
                x = (FIRST | LAST)[name](x)
            return x == y

        return np.array([[np.log(0.9 if right(c, x, y) else 0.01) for x, y in pairs] for c in candidates])

    def given(self, candidates, pairs):
        """Nothing can be run without the model."""
        return np.full((len(candidates), len(pairs)), np.nan)


@pytest.mark.parametrize("limit", [1000, 1])  # all candidates; beam search
def test_the_e_step_of_an_exact_model_finds_every_chain(limit):
    candidates = Compose().candidates(BANK)
    further = Further.checked(UNLABELED, [TARGET], BANK, candidates, [])
    posteriors = further.posteriors(candidates, Exact(), limit=limit, seed=0)
    found = em_round(2, further.latent, posteriors[:2], 1.0)
    assert found.best == {t.name: t.parts for t in UNLABELED} and found.assigned == 1
    assert found.entropy < 1e-6 < em_round(1, further.latent, posteriors[:2], 1 / 16).entropy
    assert found.log_likelihood == pytest.approx(np.log(0.9) - np.log(len(posteriors[0].candidates)) / 8, abs=1e-6)
    assert posteriors[2].candidates == (Candidate(TARGET.parts),)  # a label is certain
    assert [len(t.demonstrations) for t in further.tasks] == [24, 24, 24]
    kept = {x.task.name: x for x in further.calibrating(found.best)}
    assert kept[TARGET.name].task.demonstrations == TARGET.demonstrations[24:] and len(kept) == 3


def test_functions_that_contradict_a_demonstration_teach_nothing(fitted):
    """However small the power of the likelihood: chains of "up" and "roll" can be run, and none is the task."""
    candidates = Compose().candidates(BANK)
    run = Executor(BANK, Compose(), fitted.policy_, max_tokens=99, max_new_tokens=9)
    further = Further.checked([UNLABELED[0], chain_of_functions()], [], BANK, candidates, [])
    first, second = (
        dict(zip(p.candidates, annealed_weights(p, 1 / 16), strict=True))
        for p in further.posteriors(candidates, run, limit=999, seed=0)
    )
    known = [c for c in candidates if set(c.steps) <= set(FIRST)]
    assert max(first[c] for c in known) < 1e-12 and sum(first.values()) == pytest.approx(1)
    right = Candidate(("up", "roll"))
    assert max(second, key=second.__getitem__) == right and max(second[c] for c in known if c != right) < 1e-12


def chain_of_functions():
    return TextTask("both", tuple((x, FIRST["roll"](x.upper())) for x in WORDS[:32]))


def test_labels_that_are_no_candidate():
    wrong = replace(TARGET, parts=("up", "elsewhere"))
    with pytest.raises(DataError, match="'up and star' has the parts .* which are no candidate"):
        LanguageExtrapolator(steps=1, **SMALL).fit(BANK, labeled=[wrong])


def test_the_likelihood_is_annealed():
    assert [annealed(number, 3) for number in (1, 2, 3)] == [1 / 16, 1 / 16, 1.0] and annealed(1, 1) == 1
