"""Which candidates explain the supports: exhaustive search, beam search, and the posterior that both return."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from operant.core.rng import numpy_generator
from operant.language.relations import Candidate

Floats = NDArray[np.float64]
ScoreSome = Callable[[Sequence[Candidate], Sequence[int]], Floats]
"""Candidates and numbers of supports to log p(y_i | candidate, x_i), (C, len); -inf where a candidate cannot run."""
EXHAUSTIVE = 20_000
"""Candidates up to which all are scored. Chains of three of 23 programs, 5,773 candidates, take 5 to 8 CPU seconds a
target, because the first support leaves few of them. Beam search scored as many there and took as long."""
NEGLIGIBLE = 30.0
"""Nats below a known candidate from which one is not scored further: its weight is less than e^-30 = 1e-13."""
LEADERS = 8
"""Candidates that are scored on all supports first, to have something to compare with."""


class Proposes(Protocol):
    """What draws candidates for a target: :class:`~operant.language.Proposer`, or the user's own."""

    def propose(self, supports: Sequence[tuple[str, str]]) -> Sequence[Candidate | None]:
        """Candidates that may explain the supports, one an attempt; None for an attempt without one."""
        ...


@dataclass(frozen=True)
class Posterior:
    """Candidates and how likely they make the supports.

    Args:
        candidates: the scored ones.
        log_p: (C, S) log p(y_i | candidate, x_i). NaN where it was not computed, because the supports before it leave
            the candidate a weight of less than 1e-13.
    """

    candidates: tuple[Candidate, ...]
    log_p: Floats

    @property
    def log_likelihood(self) -> Floats:
        """(C,) sum over the supports that were scored: an upper bound where some were not."""
        return np.nansum(self.log_p, axis=1)

    def weights(self, behaviors: Sequence[Hashable] | None = None) -> Floats:
        """(C,) posterior: uniform over behaviors, and over the candidates of one behavior; sums to 1.

        w_c proportional to exp(log_likelihood_c) / (number of candidates that behave as c does). All are 0 if no
        candidate can be run.

        Args:
            behaviors: what each candidate does, (C,): equal values are one hypothesis. None: all are different.
        """
        total = self.log_likelihood
        if not len(total) or total.max() == -np.inf:
            return np.zeros(len(total))
        w = np.exp(total - total.max())
        if behaviors is not None:
            count: dict[Hashable, int] = {}
            for b in behaviors:
                count[b] = count.get(b, 0) + 1
            w = w / np.array([count[b] for b in behaviors])
        return w / w.sum()

    def best(self, count: int, *, within: float) -> Posterior:
        """The ``count`` most likely candidates, none more than ``within`` nats below the best; most likely first."""
        total = self.log_likelihood
        order = np.argsort(-total, kind="stable")[:count]
        order = order[total[order] >= max(total.max(initial=-np.inf) - within, np.finfo(np.float64).min)]
        return Posterior(tuple(self.candidates[i] for i in order), self.log_p[order])


def effective_number(weights: Floats, behaviors: Sequence[Hashable]) -> float:
    """1 / sum_b w_b^2, the effective number of different hypotheses; 0 without any."""
    share: dict[Hashable, float] = {}
    for w, b in zip(weights.tolist(), behaviors, strict=True):
        share[b] = share.get(b, 0.0) + w
    total = sum(w * w for w in share.values())
    return 1 / total if total else 0.0


def vote(weights: Floats, outputs: Sequence[Sequence[str | None]]) -> list[dict[str, float]]:
    """For every query, each output's share of the posterior, largest first. (C,), (C, Q) -> Q dictionaries.

    A candidate that cannot be run on a query does not vote there.
    """
    found: list[dict[str, float]] = []
    for q in range(len(outputs[0]) if outputs else 0):
        share: dict[str, float] = {}
        for w, row in zip(weights.tolist(), outputs, strict=True):
            if (y := row[q]) is not None:
                share[y] = share.get(y, 0.0) + w
        total = sum(share.values()) or 1.0
        found.append({y: w / total for y, w in sorted(share.items(), key=lambda pair: -pair[1])})
    return found


def exhaustive(candidates: Sequence[Candidate], score: ScoreSome, supports: int) -> Posterior:
    """Every candidate, support after support, as long as it can still matter.

    log p is at most 0, so the sum over the first supports bounds the sum over all. A candidate whose bound lies 30 nats
    below the total of another one is not scored on the rest. The posterior is exact to 1e-13 a candidate.

    Args:
        candidates: all of them.
        score: log p of some supports under some candidates.
        supports: their number.
    """
    log_p = np.full((len(candidates), supports), np.nan)
    alive = np.arange(len(candidates))
    least = -np.inf
    for i in range(supports):
        fresh = alive[np.isnan(log_p[alive, i])]
        if len(fresh):
            log_p[fresh, i] = score([candidates[k] for k in fresh], [i])[:, 0]
        bound = np.nansum(log_p[alive], axis=1)
        if i == 0 and supports > 1 and candidates:
            leaders = alive[np.argsort(-bound, kind="stable")[:LEADERS]]
            log_p[leaders, 1:] = score([candidates[k] for k in leaders], range(1, supports))
            least = float(log_p[leaders].sum(1).max()) - NEGLIGIBLE
        alive = alive[(bound >= least) & (bound > -np.inf)]
    return Posterior(tuple(candidates), log_p)


def beam(
    candidates: Sequence[Candidate], score: ScoreSome, supports: int, *, width: int = 32, rounds: int = 6, seed: int = 0
) -> Posterior:
    """Search over slots: the best ``width`` candidates are varied in one step at a time, until none of them improves.

    It starts from every candidate of fewer steps than the longest, and ``width`` random ones of the longest. The
    posterior is over what was scored.

    Args:
        candidates: all of them; only those that the search reaches are scored.
        score: as for :func:`exhaustive`.
        supports: their number.
        width: candidates that are kept.
        rounds: at most.
        seed: of the random start.
    """
    longest = max(len(c.steps) for c in candidates)
    full = [c for c in candidates if len(c.steps) == longest]
    start = [c for c in candidates if len(c.steps) < longest]
    drawn = numpy_generator(seed, "beam").permutation(len(full))[:width]
    start += [full[i] for i in drawn]
    slots: dict[tuple[tuple[str, ...], int], list[Candidate]] = {}
    for c in candidates:
        for key in _slots(c):
            slots.setdefault(key, []).append(c)
    scored: dict[Candidate, Floats] = {}
    fresh = start
    for _ in range(rounds):
        scored |= dict(zip(fresh, score(fresh, range(supports)), strict=True))
        top = sorted(scored, key=lambda c: -float(scored[c].sum()))[:width]
        near = (c for t in top for key in [*_slots(t), *_longer(t, longest)] for c in slots.get(key, ()))
        fresh = [c for c in dict.fromkeys(near) if c not in scored]
        if not fresh:
            break
    return Posterior(tuple(scored), np.stack(list(scored.values())))


def search(
    candidates: Sequence[Candidate], score: ScoreSome, supports: int, *, limit: int = EXHAUSTIVE, seed: int = 0
) -> Posterior:
    """Exhaustive up to ``limit`` candidates, else beam search."""
    if len(candidates) <= limit:
        return exhaustive(candidates, score, supports)
    return beam(candidates, score, supports, seed=seed)


def _slots(c: Candidate) -> list[tuple[tuple[str, ...], int]]:
    """A candidate with one of its steps left out, and where: the key that its neighbors share."""
    return [((*c.steps[:i], *c.steps[i + 1 :]), i) for i in range(len(c.steps))]


def _longer(c: Candidate, longest: int) -> list[tuple[tuple[str, ...], int]]:
    """The keys of the candidates that have one step more."""
    return [(c.steps, i) for i in range(len(c.steps) + 1)] if len(c.steps) < longest else []
