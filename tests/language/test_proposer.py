"""The proposer: what it reads and writes, that every draw counts, that nothing held out is taught, and its training."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch

from operant.core.checks import ConfigError, DataError
from operant.hf.rollouts.policy import byte_policy
from operant.language import (
    Candidate,
    Compose,
    FewShotWarning,
    LanguageExtrapolator,
    LeakError,
    Proposer,
    TextBank,
    TextTask,
    Toggle,
    sparse_parity,
    string_chains,
    string_programs,
)
from operant.language.proposals import (
    check_names,
    draw_proposals,
    explains,
    parse_candidate,
    proposer_lessons,
    render_candidate,
)

WORDS = ["ab", "cde", "fa", "bcd", "eef", "dad", "cab", "fed", "be", "ace", "face", "deaf"]
FUNCTIONS = {"up": str.upper, "no hash": lambda x: x + "#", "twice": lambda x: x + x}
SMALL = {"hidden": 32, "layers": 1, "batch_size": 16, "device": "cpu", "learning_rate": 1e-2, "shown": (2, 2)}
SHOWN = [("ab", "AB#"), ("cde", "CDE#")]


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def bank():
    return TextBank.from_functions(FUNCTIONS, WORDS)


@pytest.fixture(scope="module")
def proposer(bank):
    """Trained enough to write chains of two, not enough to be sure of them."""
    return Proposer(steps=60, strategy="pass@1", **SMALL).fit(bank)


def test_what_is_rendered_is_parsed():
    """All chains of up to three names of up to two characters of "<", ">" and " ", but for those that are refused."""
    names = [n for size in (0, 1, 2) for n in map("".join, product("<> ", repeat=size)) if n != "><"]
    for steps in (s for depth in (1, 2, 3) for s in product(names, repeat=depth)):
        assert parse_candidate(render_candidate(Candidate(steps))) == Candidate(steps)


def test_the_byte_model_reads_a_name_as_one_token():
    tokenizer = byte_policy(["<no vowels>", "<up>"], hidden=16, layers=1).tokenizer
    tokens = tokenizer(render_candidate(Candidate(("no vowels", "up"))))["input_ids"]
    assert len(tokens) == 2 and tokenizer.decode(tokens, skip_special_tokens=True) == "<up><no vowels>"


@pytest.mark.parametrize("name", ["a><b", "a\nb"])
def test_names_that_cannot_be_told_apart_are_refused(name):
    with pytest.raises(DataError, match="must hold neither"):
        check_names(TextBank.from_functions({name: str.upper}, WORDS))


@pytest.mark.parametrize("text", ["", "up", "<", "<up", "up it", "<nothing>", "<up><twice><up>", "<up> <twice>"])
def test_a_text_that_is_no_candidate_is_an_attempt(proposer, text):
    """Chains are two steps at most here, and the bank has no "nothing" and no "up> <twice"."""
    assert proposer._read(text) is None and proposer.verified([None], SHOWN) == [False]


def test_every_draw_counts(proposer, monkeypatch):
    drawn = proposer.propose(SHOWN, attempts=40, temperature=30.0)
    assert len(drawn) == 40 and None in drawn  # hot enough to write bytes
    monkeypatch.setattr(proposer, "_read", lambda text: None)
    assert proposer.propose(SHOWN, attempts=3) == [None] * 3


def test_draws_follow_the_temperature(proposer):
    cold, hot = (len(set(proposer.propose(SHOWN, attempts=64, temperature=t))) for t in (0.05, 2.0))
    assert cold < hot and proposer.propose(SHOWN) == proposer.propose(SHOWN)
    assert proposer.propose(SHOWN, temperature=2.0) != proposer.propose(SHOWN, temperature=2.0, seed=1)


def test_verification_runs_the_candidate(proposer):
    right, wrong = Candidate(("up", "no hash")), Candidate(("no hash", "twice"))
    assert proposer.verified([right, wrong, None, right], SHOWN) == [True, False, False, True]


def test_a_candidate_that_cannot_be_run_is_scored(bank):
    def broken(x):
        raise RuntimeError("broken")

    tasks = (*bank.tasks, TextTask("by heart", (("zz", "x"),)), TextTask("broken", (("ab", "y"),), broken))
    mixed = TextBank(tasks, bank.probes)
    verdicts = [explains(Compose(), mixed, Candidate((name,)), SHOWN) for name in ("up", "by heart", "broken")]
    assert verdicts == [False, None, False]
    split = sparse_parity(3, sizes=(1, 2), target=3)
    parity = Proposer(relation=Toggle(), steps=1, **SMALL).fit(split.bank)
    candidate, shown = Candidate(("parity 0 1", "bit 2")), [("1 0 0", "1"), ("1 1 1", "1"), ("1 1 0", "0")]
    with pytest.raises(ConfigError, match="Give an extrapolator"):
        parity.verified([candidate], shown)
    for scores, verdict in (([[-0.1, -0.2]], True), ([[-0.1, -0.8]], False)):  # e^-.8 < 1/2
        assert parity.verified([candidate, None], shown, extrapolator=_Scores(scores)) == [verdict, False]


class _Scores:
    def __init__(self, scores):
        self.score = lambda candidates, supports: np.array(scores)


def test_held_out_behaviors_are_never_taught():
    """Chains of three: whatever a lesson is called, it behaves as no target does."""
    programs = {task.name: task.run for task in string_programs(40)}
    small = TextBank.from_functions({k: programs[k] for k in ("reverse", "upper", "twice", "brackets")}, WORDS)
    split, relation = string_chains(small, depth=3, share=0.5), Compose(depth=3)
    lessons = proposer_lessons(relation, small, relation.candidates(small), split.targets)
    forbidden = {target.behavior(small.probes) for target in split.targets}
    assert len(forbidden) > 5 and not forbidden & {x.task.behavior(small.probes) for x in lessons}
    everything = proposer_lessons(relation, small, relation.candidates(small))
    assert len(everything) == len(lessons) + len(forbidden)
    for shown, candidate in draw_proposals(lessons, small, count=50, shown=(1, 3), seed=0):
        assert 1 <= len(shown) <= 3 and explains(relation, small, candidate, shown)


def test_a_bank_that_holds_the_target_is_refused(bank):
    with pytest.raises(LeakError, match="behaves as 'up'"):
        Proposer(steps=1, **SMALL).fit(bank, held_out=[TextTask("target", (("ab", "AB"),), str.upper)])


def test_lessons_without_functions_are_the_relations_own():
    split = sparse_parity(4, sizes=(1, 2, 3), target=4)
    lessons = proposer_lessons(Toggle(), split.bank, Toggle().candidates(split.bank), split.targets)
    assert {x.candidate for x in lessons} == {x.candidate for x in Toggle().lessons(split.bank)}
    with pytest.raises(DataError, match="teaches a proposer nothing"):
        proposer_lessons(_Nothing(), split.bank, [])


class _Nothing(Toggle):
    def lessons(self, bank, held_out=()):
        return []


def test_training_for_pass_at_k_differs_from_cross_entropy(bank, proposer):
    """Same weights, rows and order; one step less of sharpening where p is far above 1/k."""
    spread = Proposer(steps=60, strategy="pass@64", **SMALL).fit(bank)
    draws = [[c for x, y in SHOWN for c in p.propose([(x, y)], attempts=64)] for p in (proposer, spread)]
    assert spread.history_[-1][1] < proposer.history_[-1][1]  # -log(1 - (1-p)^64) <= -log p
    assert len(set(draws[1])) > len(set(draws[0]))


def test_a_transform_of_the_value_reaches_the_loss(bank):
    """g(1) - g(S) is bounded where -log S is not: untrained, an example has S of about 1e-4."""
    plain, bounded = (Proposer(steps=1, strategy="pass@4", transform=g, **SMALL).fit(bank) for g in ("", "log:0.5"))
    assert plain.history_[0][1] > 2 and 0 < bounded.history_[0][1] <= np.log(3)


def test_the_extrapolator_searches_among_proposals(bank, proposer):
    model = LanguageExtrapolator(steps=20, hidden=32, layers=1, batch_size=16, device="cpu").fit(bank)
    task = model.adapt(SHOWN, proposer=proposer)
    drawn = {c for c in proposer.propose(SHOWN) if c is not None}
    assert set(task.posterior.candidates) == drawn and len(drawn) > 1
    everything = model.adapt(SHOWN)
    known = dict(zip(everything.posterior.candidates, everything.posterior.log_likelihood, strict=True))
    for candidate, value in zip(task.posterior.candidates, task.posterior.log_likelihood, strict=True):
        if candidate in known:  # the search keeps one of the candidates that behave alike
            assert value == pytest.approx(known[candidate], abs=1e-4)
    assert task.posterior.weights().sum() == pytest.approx(1)


class _Fixed:
    def __init__(self, *drawn):
        self.drawn = drawn

    def propose(self, supports):
        return self.drawn


def test_proposals_of_the_users_own(bank):
    model = LanguageExtrapolator(steps=2, hidden=16, layers=1, batch_size=4, device="cpu").fit(bank)
    up = Candidate(("up",))
    assert model.adapt(SHOWN, proposer=_Fixed(up, None, up)).posterior.candidates == (up,)
    with pytest.raises(LeakError, match="touches 'down', which is not a task of the bank"):
        model.adapt(SHOWN, proposer=_Fixed(Candidate(("down",))))
    nothing = model.adapt(SHOWN, proposer=_Fixed(None, None))
    assert nothing.candidates_ == [] and nothing.fallback_ == "no candidate was proposed"
    assert not nothing.applicability().applies and nothing.explain().startswith("No candidate is trusted")
    with pytest.warns(FewShotWarning, match="no candidate was proposed"):
        assert len(nothing.predict(["fa"])) == 1


def test_reinforcement_raises_the_share_of_verified_draws(bank):
    model = Proposer(steps=25, strategy="pass@1", **SMALL).fit(bank)
    shown = [supports for supports, _ in draw_proposals(model.lessons_, bank, count=24, shown=(2, 2), seed=9)]

    def share():
        return np.mean([model.verified(model.propose(some, attempts=32), some) for some in shown])

    before = share()
    model.reinforce(steps=20, batch_size=8, rollouts=16, learning_rate=5e-3)
    assert len(model.rewards_) == 20 and 0 < before < share() - 0.05  # .35 to .47


def test_reinforcement_with_a_transform_learns_something_else(proposer, tmp_path):
    proposer.save(tmp_path / "saved")
    weights = []
    for transform in ("", "", "log:0.02"):
        again = Proposer.load(tmp_path / "saved", functions=FUNCTIONS)
        again.reinforce(transform=transform, strategy="pass@1", steps=2, batch_size=4, rollouts=8, held_out=[])
        weights.append(torch.cat([p.detach().flatten() for p in again.policy_.model.parameters()]))
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_a_saved_proposer_draws_as_before(proposer, tmp_path):
    proposer.save(tmp_path / "saved")
    assert not [*(tmp_path / "saved").rglob("*.pkl"), *(tmp_path / "saved").rglob("*.bin")]
    again = Proposer.load(tmp_path / "saved", functions=FUNCTIONS)
    assert again.propose(SHOWN) == proposer.propose(SHOWN)
    assert again.verified([Candidate(("up", "no hash"))], SHOWN) == [True]
    with pytest.raises(DataError, match="holds a fitted model already"):
        proposer.save(tmp_path / "saved")
    with pytest.raises(ConfigError, match="does not know its test tasks"):
        again.reinforce(steps=1)


def test_an_adapter_is_loaded_such_that_it_can_go_on(bank, tmp_path):
    byte_policy([], hidden=16, layers=1).save(tmp_path / "base")
    small = SMALL | {"hidden": 16, "learning_rate": None}
    Proposer(str(tmp_path / "base"), lora_rank=2, steps=1, **small).fit(bank).save(tmp_path / "saved")
    again = Proposer.load(tmp_path / "saved", functions=FUNCTIONS)
    assert any(p.requires_grad for p in again.policy_.model.parameters())
    assert again.longest_ > 2 and len(again.propose(SHOWN, attempts=3)) == 3  # names are bytes here


def test_killed_and_resumed_equals_uninterrupted(bank, tmp_path):
    def make():
        return Proposer(steps=8, save_steps=4, **SMALL)

    def kill(step, loss):
        if step >= 6:
            raise KeyboardInterrupt

    whole = make().fit(bank)
    with pytest.raises(KeyboardInterrupt):
        make().fit(bank, folder=tmp_path, progress=kill)
    with pytest.raises(DataError, match=r"other settings \(steps\)"):
        Proposer(steps=9, save_steps=4, **SMALL).fit(bank, folder=tmp_path)
    steps = []
    again = make().fit(bank, folder=tmp_path, progress=lambda step, loss: steps.append(step))
    assert steps[0] == 5
    for a, b in zip(whole.policy_.model.parameters(), again.policy_.model.parameters(), strict=True):
        assert torch.equal(a, b)
    with pytest.raises(DataError, match=r"holds a fitted model: Proposer\.load"):
        make().fit(bank, folder=tmp_path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shown": (0, 2)}, "shown must be"),
        ({"shown": (3, 2)}, "shown must be"),
        ({"attempts": 0}, "attempts must be an integer >= 1"),
        ({"temperature": 0.0}, "temperature"),
        ({"lora_rank": 4}, "the embedded model has random weights"),
        ({"strategy": "maj@8"}, "maj"),
    ],
)
def test_settings_that_cannot_work(bank, settings, message):
    with pytest.raises(ValueError, match=message):
        Proposer(steps=1, **(SMALL | settings)).fit(bank)


def test_supports_that_cannot_be_a_task(proposer):
    with pytest.raises(DataError, match="at least one support"):
        proposer.propose([])
    with pytest.raises(DataError, match="contradicts itself"):
        proposer.propose([("ab", "AB"), ("ab", "x")])
    with pytest.raises(DataError, match="exceeds max_tokens = 512"):
        proposer.propose([("x" * 10_000, "y")])
