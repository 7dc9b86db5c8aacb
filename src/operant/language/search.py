"""Which candidates explain the supports: exhaustive search, beam search, and the posterior that both return."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from operant.core.rng import numpy_generator
from operant.language.relations import Candidate

Floats = NDArray[np.float64]
Likelihood = Literal["exact", "model"]
ScoreSome = Callable[[Sequence[Candidate], Sequence[int]], Floats]
"""Candidates and numbers of supports to log p(y_i | candidate, x_i), (C, len); -inf where a candidate cannot run."""
EXHAUSTIVE = 20_000
"""Candidates up to which all are scored. Chains of three of 23 programs, 5,773 candidates, take 5 to 8 CPU seconds a
target, because the first support leaves few of them. Beam search scored as many there and took as long."""
NEGLIGIBLE = 30.0
"""Nats below a known candidate from which one is not scored further: its weight is less than e^-30 = 1e-13."""
LOG_WRONG = -NEGLIGIBLE
"""Log-probability that a support is wrong. A candidate that contradicts one, when it is run, has no weight beside a
candidate that gives all; without such a one, candidates that contradict fewer supports come first."""
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
        log_p: (C, S) log p(y_i | candidate, x_i) of the model. NaN where it was not computed: the other supports leave
            the candidate a weight of less than 1e-13.
        given: (C, S) whether the candidate, run, gives y_i: 1 or 0, NaN where it cannot be run. None: the likelihood
            is that of the model alone.
    """

    candidates: tuple[Candidate, ...]
    log_p: Floats
    given: Floats | None = None

    @property
    def log_likelihood(self) -> Floats:
        """(C,) see :func:`log_likelihood`: an upper bound where some supports were not scored."""
        return log_likelihood(self.log_p, self.given)

    @property
    def order(self) -> NDArray[np.intp]:
        """(C,) most likely first. Of candidates that give all supports, the one that the model finds likelier."""
        return np.lexsort((-np.nansum(self.log_p, axis=1), -self.log_likelihood))

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
        order = self.order[:count]
        order = order[total[order] >= max(total.max(initial=-np.inf) - within, np.finfo(np.float64).min)]
        return Posterior(tuple(self.candidates[i] for i in order), self.log_p[order], _rows(self.given, order))


def log_likelihood(log_p: Floats, given: Floats | None) -> Floats:
    """(C,) log-likelihood of candidates: exact where they can be run, the model's where they cannot.

    sum_i l_ci, with l_ci = 0 if c gives y_i when it is run, log e + log_p[c, i] if it gives another output, and
    log_p[c, i] if it cannot be run on x_i. e = 1e-13 is the probability that a support is wrong; what is wrong looks
    likely to the model. So a candidate that gives all supports weighs 1, one that contradicts a support nothing beside
    it, and one that cannot be run the probability that the model gives the supports under it.

    Args:
        log_p: (C, S) of the model; NaN is left out.
        given: (C, S) 1, 0, or NaN where it cannot be run. None: the model's alone.
    """
    if given is None:
        return np.nansum(log_p, axis=1)
    return np.nansum(np.where(given == 1, 0.0, log_p), axis=1) + LOG_WRONG * (given == 0).sum(1)


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
        # Rounded: equal hypotheses of 1 and of 3 candidates differ by 1e-16, and ties go to the likelier candidate.
        found.append({y: w / total for y, w in sorted(share.items(), key=lambda pair: -round(pair[1], 12))})
    return found


def exhaustive(
    candidates: Sequence[Candidate], score: ScoreSome, supports: int, given: Floats | None = None
) -> Posterior:
    """Every candidate, support after support, as long as it can still matter.

    log p is at most 0, so the sum over the first supports bounds the sum over all. A candidate whose bound lies 30 nats
    below the total of another one is not scored on the rest: beside a candidate that gives all supports, none that
    contradicts one is scored at all. The posterior is exact to 1e-13 a candidate.

    Args:
        candidates: all of them.
        score: log p of some supports under some candidates.
        supports: their number.
        given: (C, S) whether they give the supports when they are run, see :class:`Posterior`.
    """
    log_p = np.full((len(candidates), supports), np.nan)
    certain = _certain(given)
    least = LOG_WRONG if certain else -np.inf
    alive = np.flatnonzero(log_likelihood(log_p, given) > least)
    for i in range(supports):
        fresh = alive[np.isnan(log_p[alive, i])]
        if len(fresh):
            log_p[fresh, i] = score([candidates[k] for k in fresh], [i])[:, 0]
        bound = log_likelihood(log_p[alive], _rows(given, alive))
        if i == 0 and supports > 1 and candidates and not certain:
            leaders = alive[np.argsort(-bound, kind="stable")[:LEADERS]]
            log_p[leaders, 1:] = score([candidates[k] for k in leaders], range(1, supports))
            least = float(log_likelihood(log_p[leaders], _rows(given, leaders)).max()) - NEGLIGIBLE
        alive = alive[(bound >= least) & (bound > -np.inf)]
    return Posterior(tuple(candidates), log_p, given)


def beam(
    candidates: Sequence[Candidate],
    score: ScoreSome,
    supports: int,
    *,
    given: Floats | None = None,
    width: int = 32,
    rounds: int = 6,
    seed: int = 0,
) -> Posterior:
    """Search over slots: the best ``width`` candidates are varied in one step at a time, until none of them improves.

    It starts from every candidate of fewer steps than the longest, ``width`` random ones of the longest, and those that
    contradict the fewest supports when they are run: all that give every support, ``width`` at least. The posterior is
    over what was scored.

    Args:
        candidates: all of them; only those that the search reaches are scored.
        score: as for :func:`exhaustive`.
        supports: their number.
        given: (C, S) whether they give the supports when they are run, see :class:`Posterior`.
        width: candidates that are kept.
        rounds: at most.
        seed: of the random start.
    """
    longest = max(len(c.steps) for c in candidates)
    place = {c: i for i, c in enumerate(candidates)}
    slots: dict[tuple[tuple[str, ...], int], list[Candidate]] = {}
    for c in candidates:
        for key in _slots(c):
            slots.setdefault(key, []).append(c)
    scored: dict[Candidate, Floats] = {}
    found, fresh = Posterior((), np.empty((0, supports))), _start(candidates, given, width, seed)
    for _ in range(rounds):
        scored |= dict(zip(fresh, score(fresh, range(supports)), strict=True))
        rows = _rows(given, np.array([place[c] for c in scored]))
        found = Posterior(tuple(scored), np.stack(list(scored.values())), rows)
        top = [found.candidates[i] for i in found.order[:width]]
        near = (c for t in top for key in [*_slots(t), *_longer(t, longest)] for c in slots.get(key, ()))
        fresh = [c for c in dict.fromkeys(near) if c not in scored]
        if not fresh:
            break
    return found


def _start(candidates: Sequence[Candidate], given: Floats | None, width: int, seed: int) -> list[Candidate]:
    longest = max(len(c.steps) for c in candidates)
    full = [c for c in candidates if len(c.steps) == longest]
    start = [c for c in candidates if len(c.steps) < longest]
    start += [full[i] for i in numpy_generator(seed, "beam").permutation(len(full))[:width]]
    if given is None or np.isnan(given).all():
        return start
    wrong = np.where(np.isnan(given), 1, given == 0).sum(1)  # what cannot be run comes after what gives all
    most = max(width, int((wrong == 0).sum()))
    return list(dict.fromkeys([*start, *(candidates[i] for i in np.argsort(wrong, kind="stable")[:most])]))


def search(
    candidates: Sequence[Candidate],
    score: ScoreSome,
    supports: int,
    *,
    given: Floats | None = None,
    limit: int = EXHAUSTIVE,
    seed: int = 0,
) -> Posterior:
    """Exhaustive up to ``limit`` candidates, else beam search.

    Where a candidate gives all supports when it is run, those that contradict one are neither scored nor counted.
    """
    if len(candidates) <= limit:
        return exhaustive(candidates, score, supports, given)
    if given is not None and _certain(given):
        left = np.flatnonzero(~(given == 0).any(1))
        candidates, given = [candidates[i] for i in left.tolist()], given[left]
        if len(candidates) <= limit:
            return exhaustive(candidates, score, supports, given)
    return beam(candidates, score, supports, given=given, seed=seed)


def _certain(given: Floats | None) -> bool:
    """Whether a candidate gives every support when it is run."""
    return given is not None and bool((given == 1).all(1).any())


def _rows(given: Floats | None, which: NDArray[np.intp]) -> Floats | None:
    return None if given is None else given[which]


def _slots(c: Candidate) -> list[tuple[tuple[str, ...], int]]:
    """A candidate with one of its steps left out, and where: the key that its neighbors share."""
    return [((*c.steps[:i], *c.steps[i + 1 :]), i) for i in range(len(c.steps))]


def _longer(c: Candidate, longest: int) -> list[tuple[tuple[str, ...], int]]:
    """The keys of the candidates that have one step more."""
    return [(c.steps, i) for i in range(len(c.steps) + 1)] if len(c.steps) < longest else []
