"""Relations without labels: expectation-maximization for known tasks of which nobody knows what they are made of.

A task u is known by demonstrations. Which candidate c it equals is latent. The E-step gives each candidate its
posterior, q_u(c) proportional to prod_i p(y_i | c, x_i): exact where c can be run, else that of the model. The M-step
fine-tunes on prompts of candidates that are drawn from q_u. Only demonstrations of these tasks are scored: no test
task, and no label of one, takes part.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from operant.core.checks import DataError
from operant.core.record import append_record, read_records
from operant.core.rng import numpy_generator
from operant.hf.rollouts.policy import Policy
from operant.language.bank import TextBank, TextTask
from operant.language.execute import Executor
from operant.language.relations import Candidate, Lesson
from operant.language.search import Floats, Posterior, ScoreSome, beam
from operant.language.splits import check_no_leak

SCORED = 16
"""Demonstrations of a task, a quarter of them at most, by which the E-step scores candidates. The M-step does not train
on them: a model that has learned a wrong candidate's outputs by heart would find them likely, and keep it."""


@dataclass(frozen=True)
class EMRound:
    """What one E-step found.

    Args:
        number: from 1.
        assigned: share of the unlabeled tasks that have a candidate which can be run: these teach.
        entropy: of the weights that the candidates get in the M-step, in nats; mean over assigned tasks.
        log_likelihood: of a demonstration, log (1 / C) sum_c prod_i p(y_i | c, x_i) / S; mean over assigned tasks.
        best: the steps of the most likely candidate, by task.
    """

    number: int
    assigned: float
    entropy: float
    log_likelihood: float
    best: dict[str, tuple[str, ...]]

    @classmethod
    def from_fields(cls, fields: dict[str, Any]) -> EMRound:
        """What ``asdict`` and JSON made of one."""
        best = {str(task): tuple(steps) for task, steps in fields["best"].items()}
        return cls(fields["number"], fields["assigned"], fields["entropy"], fields["log_likelihood"], best)


@dataclass(frozen=True)
class Further:
    """Known tasks besides the bank's: each is some candidate, labeled by its parts or latent.

    Args:
        latent: by demonstrations alone.
        labeled: their parts are the steps of their candidate.
        kept: the demonstrations that are not trained on, by task; they score candidates and calibrate likelihoods.
    """

    latent: tuple[TextTask, ...] = ()
    labeled: tuple[TextTask, ...] = ()
    kept: tuple[TextTask, ...] = ()  # in the order of ``tasks``

    def __bool__(self) -> bool:
        return bool(self.latent or self.labeled)

    @classmethod
    def checked(
        cls,
        unlabeled: Iterable[TextTask],
        labeled: Iterable[TextTask],
        bank: TextBank,
        candidates: Sequence[Candidate],
        held_out: Sequence[TextTask],
    ) -> Further:
        """The tasks without their functions, and the unlabeled ones without their parts.

        Raises:
            DataError: for two tasks of one name, a task without demonstrations or one that contradicts itself, and
                for parts that are no candidate.
            LeakError: if one of them behaves as a held-out task.
        """
        latent = tuple(TextTask(t.name, t.demonstrations) for t in unlabeled)
        known = tuple(TextTask(t.name, t.demonstrations, None, t.parts) for t in labeled)
        space = set(candidates)
        for task in known:
            if Candidate(task.parts) not in space:
                raise DataError(
                    f"the labeled task {task.name!r} has the parts {task.parts}, which are no candidate of this bank. "
                    "Expected the names of the candidate's steps, in order."
                )
        if latent or known:
            check_no_leak(TextBank((*latent, *known), bank.probes), held_out)
        halves = [_cut(task) for task in (*latent, *known)]
        first = tuple(task for task, _ in halves)
        return cls(first[: len(latent)], first[len(latent) :], tuple(task for _, task in halves))

    @property
    def tasks(self) -> tuple[TextTask, ...]:
        """The latent ones first."""
        return (*self.latent, *self.labeled)

    def calibrating(self, best: Mapping[str, tuple[str, ...]]) -> list[Lesson]:
        """The kept demonstrations, under the labels or the most likely candidates."""
        steps = {**best, **{task.name: task.parts for task in self.labeled}}
        return [Lesson(Candidate(steps[t.name]), t) for t in self.kept if t.name in steps and t.demonstrations]

    def posteriors(self, candidates: Sequence[Candidate], run: Executor, *, limit: int, seed: int) -> list[Posterior]:
        """The E-step: the posterior of each latent task from what is kept of it; labels are certain.

        A task of less than 4 demonstrations, of which none is kept, is scored on all.

        Args:
            candidates: all of them.
            run: scores them.
            limit: candidates up to which all are scored; beam search above.
            seed: of the beam search.
        """
        found: list[Posterior] = []
        for task, kept in zip(self.latent, self.kept, strict=False):
            pairs = kept.demonstrations or task.demonstrations
            given = run.given(candidates, pairs)
            if len(candidates) <= limit:  # all on all demonstrations: with a small power, unlikely ones have weight
                found.append(Posterior(tuple(candidates), run.log_probs(candidates, pairs), given))
            else:
                score: ScoreSome = lambda some, which, pairs=pairs: run.log_probs(some, [pairs[i] for i in which])  # noqa: E731
                found.append(beam(candidates, score, len(pairs), given=given, seed=seed))
        return found + [Posterior((Candidate(task.parts),), np.zeros((1, 1))) for task in self.labeled]


def annealed(number: int, rounds: int) -> float:
    """Power of the likelihood in a round, as in deterministic annealing: 1 / 16 up to the last round, 1 in that.

    One demonstration then decides as much as the mean of all. Without it, a model that has half learned the last steps
    is sure of wrong candidates, learns them, and stays with them.
    """
    return 1.0 if number == rounds else 1 / SCORED


def _cut(task: TextTask) -> tuple[TextTask, TextTask]:
    pairs = task.demonstrations
    size = len(pairs) - min(SCORED, len(pairs) // 4)
    return replace(task, demonstrations=pairs[:size]), replace(task, demonstrations=pairs[size:])


def annealed_weights(posterior: Posterior, power: float) -> Floats:
    """Weights of the candidates, (C,), by the model's likelihood to a power; the exact one counts in full."""
    return Posterior(posterior.candidates, posterior.log_p * power, posterior.given).weights()


def em_round(number: int, tasks: Sequence[TextTask], posteriors: Sequence[Posterior], power: float) -> EMRound:
    """Sum up an E-step.

    Raises:
        DataError: if no candidate can be run on any task.
    """
    entropies, likelihoods, best = list[float](), list[float](), dict[str, tuple[str, ...]]()
    for task, posterior in zip(tasks, posteriors, strict=True):
        weights, total = annealed_weights(posterior, power), posterior.log_likelihood
        if not weights.any():
            continue
        positive = weights[weights > 0]
        entropies.append(float(-(positive * np.log(positive)).sum()))
        likelihoods.append(float(np.logaddexp.reduce(total) - np.log(len(total))) / posterior.log_p.shape[1])
        best[task.name] = posterior.candidates[int(total.argmax())].steps
    if not best:
        raise DataError(
            "no candidate can be run on any unlabeled task: EM has nothing to learn from. Mend the bank's functions."
        )
    return EMRound(number, len(best) / len(tasks), float(np.mean(entropies)), float(np.mean(likelihoods)), best)


def m_examples(
    tasks: Sequence[TextTask], posteriors: Sequence[Posterior], power: float, run: Executor, *, count: int, seed: int
) -> list[tuple[str, str]]:
    """``count`` (prompt, target) pairs of random demonstrations, under candidates drawn from the posterior.

    A draw that cannot be run gives no pair.
    """
    rng = numpy_generator(seed, "unlabeled")
    weights = [annealed_weights(posterior, power) for posterior in posteriors]
    teach = [(t, p.candidates, w) for t, p, w in zip(tasks, posteriors, weights, strict=True) if w.any()]
    drawn = list[tuple[Candidate, str, str]]()
    for i in rng.integers(len(teach), size=count).tolist():
        task, candidates, shares = teach[i]
        x, y = task.demonstrations[int(rng.integers(len(task.demonstrations)))]
        drawn.append((candidates[int(rng.choice(len(candidates), p=shares))], x, y))
    prompts = run.prompts_of([(candidate, x) for candidate, x, _ in drawn])
    return [(prompt, y) for prompt, (_, _, y) in zip(prompts, drawn, strict=True) if prompt is not None]


class Stages:
    """Weights and records of the stages of a fit, the warm-up and the rounds: a fit that was killed goes on after them.

    Args:
        folder: where they lie; None keeps nothing.
        policy: what is trained.
    """

    def __init__(self, folder: Path | None, policy: Policy) -> None:
        self._folder, self._policy = folder, policy
        path = None if folder is None else folder / "stages.jsonl"
        self.done: list[dict[str, Any]] = read_records(path) if path is not None and path.is_file() else []
        if folder is not None and self.done:
            saved = load_file(self._weights(folder, len(self.done) - 1))
            with torch.no_grad():
                for name, p in self._trained().items():
                    p.copy_(saved[name])

    def finish(self, **fields: Any) -> None:
        """Keep the weights of a stage, then its record, and remove the weights of the stage before."""
        number = len(self.done)
        self.done.append(fields)
        if self._folder is None:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._weights(self._folder, number)
        partial = path.with_suffix(".partial")
        save_file({name: p.detach().contiguous() for name, p in self._trained().items()}, partial)
        partial.replace(path)
        append_record(self._folder / "stages.jsonl", "stage", **fields)
        self._weights(self._folder, number - 1).unlink(missing_ok=True)

    def _trained(self) -> dict[str, torch.nn.Parameter]:
        return {name: p for name, p in self._policy.model.named_parameters() if p.requires_grad}

    @staticmethod
    def _weights(folder: Path, number: int) -> Path:
        return folder / f"stage-{number}.safetensors"
