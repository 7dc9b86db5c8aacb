"""Composition: a target f(g(x)), or deeper, of known functions, found from its context alone.

Every chain of library functions is scored on the context, the best are refined by continuous warps in each slot, and
what remains is a posterior over decompositions. Nothing is learned from pairs and no candidate is known beforehand: a
pair that the bank has never shown costs as much as any other.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from operant.relational.bank.curves import Array
from operant.relational.bank.tasks import TaskBank
from operant.relational.operators.base import (
    Adapted,
    CannotAdaptError,
    Context,
    Decomposition,
    Fitted,
    RelationalOperator,
    register,
)
from operant.relational.operators.chain import (
    ChainPrior,
    Chains,
    Index,
    Tables,
    diverse,
    forward,
    profile,
    refine,
    smallest,
)

CHUNK = 2_000_000
"""Table look-ups of one scoring step, which bounds memory."""


@register
@dataclass(frozen=True)
class Compose(RelationalOperator):
    r"""f(x) = s f_N(b_N ... f_1(b_1 x + c_1) ... + c_N) + t with f_1..f_N from the bank.

    Args:
        depth: N, 2 or more.
        library: functions of the bank that are tried in each slot, drawn at random, others in each round; None: 200 at
            depth 2, and beyond as many as give 216,000 chains (60 at depth 3).
        starts: chains that are refined; None: 256 at depth 2, 2,000 beyond.
        kept: decompositions in the posterior.
        rounds: times that other functions are tried, and the best chains varied, while none fits the context exactly.
        warp: prior standard deviation of each warp parameter, in scaled units.
        reach: callables are used on their domain widened by this factor.
        folds: parts in which the context is left out, where it is not explained exactly.
        floor: smallest standard deviation of the noise, in scaled units.
        random_state: seed of thinning and variation.
    """

    depth: int = 2
    library: int | None = None
    starts: int | None = None
    kept: int = 24
    rounds: int = 3
    warp: float = 1.0
    reach: float = 4.0
    folds: int = 4
    floor: float = 1e-6
    random_state: int = 0

    name = "compose"
    expresses = "chains of known functions, each with a warp of its input: s f(a g(b x + c) + d) + t, and deeper"

    def fit(self, bank: TaskBank) -> FittedCompose:
        """Tabulate the library.

        Raises:
            CannotAdaptError: if the bank has several inputs or outputs, or the depth is below 2.
        """
        if bank.d != 1 or bank.c != 1 or self.depth < 2:
            raise CannotAdaptError(
                f"compose: expected one input, one output and a depth of at least 2, got {bank.d}, {bank.c} and "
                f"{self.depth}."
            )
        rng = np.random.default_rng(self.random_state)
        size = self.library or min(200, round(216_000 ** (1 / self.depth)))
        order = rng.permutation(len(bank))
        count = min(self.rounds + 1, max(1, len(bank) // size))
        parts = [order[k * size : (k + 1) * size] for k in range(count)]
        chosen = np.unique(np.concatenate(parts))
        thinned = bank.select(chosen.tolist())
        tables = Tables.of(thinned, reach=self.reach, knots=4096)
        places = tuple(np.searchsorted(chosen, np.sort(part)) for part in parts)
        link, unit = (1.0, 0.0), bank.units
        if unit is not None:
            link = (float((unit.y_sd / unit.x_half)[0]), float(((unit.y_mean - unit.x_mid) / unit.x_half)[0]))
        return FittedCompose(self, thinned, tables, link, places)


@dataclass(frozen=True)
class FittedCompose(Fitted):
    """A library, tabulated.

    Args:
        settings: the operator.
        bank: the library.
        tables: its functions.
        link: (factor, offset) from a scaled output to a scaled input: what a plain composition does between two slots.
        parts: places in the library of the functions tried in each round.
    """

    settings: Compose
    bank: TaskBank
    tables: Tables
    link: tuple[float, float]
    parts: tuple[Index, ...]

    @cached_property
    def part_tables(self) -> tuple[Tables, ...]:
        """The tables of each part."""
        return tuple(self.tables.only(part) for part in self.parts)

    @property
    def starts(self) -> int:
        """Chains that are refined."""
        return self.settings.starts or (256 if self.settings.depth == 2 else 2000)

    @cached_property
    def prior(self) -> ChainPrior:
        """Of the warps, around the plain composition."""
        between = self.settings.depth - 1
        nominal = np.array([1.0, 0.0, *self.link * between, 1.0, 0.0])
        spread = self.settings.warp * np.array([1.0, 1.0, *(self.link[0], 1.0) * between, 1.0, 1.0])
        return ChainPrior(nominal, spread)

    def weigh(self, which: Index, theta: Array, x: Array, y: Array) -> Chains:
        """The posterior over refined chains."""
        low, high = self.bank.range
        grid = np.linspace(low[0], high[0], 50)
        return Chains.weigh(self.tables, self.prior, which, theta, x, y, floor=self.settings.floor, grid=grid)

    def adapt(self, context: Context) -> _AdaptedCompose:
        """Search, refine, weigh.

        Raises:
            CannotAdaptError: with fewer than four context points.
        """
        if len(context.x) < 4:
            raise CannotAdaptError(f"compose: expected at least 4 context points, got {len(context.x)}.")
        x, y = context.x[:, 0], context.y[:, 0]
        which, theta = self.search(x, y, self.settings.rounds)
        return _AdaptedCompose(self, x, y, self.weigh(which, theta, x, y))

    def plain(self, context: Context) -> _AdaptedCompose:
        """The library's best chain as it is, only its output fitted: what refinement is to be compared with."""
        x, y = context.x[:, 0], context.y[:, 0]
        which, theta = self.score(x, y, 1)
        none = np.zeros((1, theta.shape[1], theta.shape[1]))
        left = np.mean((y - forward(self.tables, which, theta, x)[0]) ** 2, keepdims=True)[0]
        return _AdaptedCompose(self, x, y, Chains(which, theta, none, left, np.ones(1), np.sqrt(left)))

    def search(self, x: Array, y: Array, rounds: int, starts: int | None = None) -> tuple[Index, Array]:
        """The best chains (M, N) and their parameters (M, 2 N + 2) for a context (P,), (P,).

        Args:
            x: (P,) points.
            y: (P,) values.
            rounds: of variation, at most.
            starts: chains that are refined, if not :attr:`starts`.
        """
        rng = np.random.default_rng(self.settings.random_state)
        # Refining every chain to convergence would cost 63 steps for each; most are hopeless after 8.
        which, theta, cost = self._halve(*self.score(x, y, starts or self.starts), x, y)
        for turn in range(1, rounds + 1):
            if cost[0] < self._exact(x):
                break
            part = turn % len(self.parts)
            begin = [self._vary(which, theta, x, y, rng, part)]
            if part:
                begin.append(self.score(x, y, starts or self.starts, part))
            more = self._halve(np.concatenate([b[0] for b in begin]), np.concatenate([b[1] for b in begin]), x, y)
            which, theta = np.concatenate([which, more[0]]), np.concatenate([theta, more[1]])
            cost = np.append(cost, more[2])
            order = np.argsort(cost)[: self.settings.kept]
            which, theta, cost = which[order], theta[order], cost[order]
        return which, theta

    def score(self, x: Array, y: Array, starts: int, part: int = 0) -> tuple[Index, Array]:
        """The chains (M, N) to start from: of all plain ones of a part, their output fitted, the best and diverse."""
        s, tables = self.settings, self.part_tables[part]
        size = len(self.parts[part])
        first = tables(np.arange(size), np.broadcast_to(x, (size, len(x))))[0]
        prefixes = np.arange(size)[:, None]
        z = self.link[0] * first + self.link[1]
        for _ in range(s.depth - 2):
            z = np.moveaxis(tables.rough(z), -1, 1).reshape(-1, len(x)) * self.link[0] + self.link[1]
            prefixes = np.column_stack([np.repeat(prefixes, size, 0), np.tile(np.arange(size), len(prefixes))])
        step, found = max(1, CHUNK // (size * len(x))), []
        for low in range(0, len(z), step):
            left, factor, offset = profile(tables, z[low : low + step], y)
            best = smallest(left.ravel(), 40 * starts)
            row, last = np.unravel_index(best, left.shape)
            chains = np.column_stack([prefixes[low + row], last])
            found.append((chains, np.column_stack([factor[row, last], offset[row, last]]), left[row, last]))
        chains, ends, left = (np.concatenate(part) for part in zip(*found, strict=True))
        order = np.argsort(left)
        cap = 8 if s.depth == 2 else max(8, starts // 8)
        keep = order[diverse(chains[order], starts, cap, size)]
        theta = np.tile(self.prior.nominal, (len(keep), 1))
        theta[:, -2:] = ends[keep]
        return self.parts[part][chains[keep]], theta

    def _halve(self, which: Index, theta: Array, x: Array, y: Array) -> tuple[Index, Array, Array]:
        """Refine all chains a little, the better ones more, the best to convergence."""
        s = self.settings
        precision = (s.floor / self.prior.spread) ** 2
        cost, exact = np.zeros(len(which)), self._exact(x)
        for steps, keep in ((8, max(s.kept, len(which) // 4)), (15, max(s.kept, len(which) // 10)), (40, s.kept)):
            theta, cost = refine(
                self.tables, which, theta, x, y, nominal=self.prior.nominal, precision=precision, steps=steps
            )
            order = np.argsort(cost)[:keep]
            if cost[order[0]] < exact:  # what fits a thousand times worse than the noise floor has no weight
                order = order[cost[order] < 1e4 * exact]
            which, theta, cost = which[order], theta[order], cost[order]
        return which, theta, cost

    def _exact(self, x: Array) -> float:
        """The sum of squares below which a fit counts as exact."""
        return len(x) * (10 * self.settings.floor) ** 2

    def _vary(
        self, which: Index, theta: Array, x: Array, y: Array, rng: np.random.Generator, part: int
    ) -> tuple[Index, Array]:
        """Chains beside the best ones: one slot with every other function, or the warps jittered."""
        members, depth = self.parts[part], which.shape[1]
        best, size = min(12, len(which)), len(members)
        chains, parameters = [], []
        for slot in range(depth):
            w, t = np.repeat(which[:best], size, 0), np.repeat(theta[:best], size, 0)
            w[:, slot] = np.tile(members, best)
            until = min(2 * slot + 4, 2 * depth)  # the input of the slot, and what its output is handed to
            t[:, 2 * slot : until] = self.prior.nominal[2 * slot : until]
            chains.append(w)
            parameters.append(t)
        jitter = np.repeat(theta[:best], 40, 0)
        size_of = 10 ** rng.uniform(-2, -0.3, (len(jitter), 1))
        chains.append(np.repeat(which[:best], 40, 0))
        parameters.append(jitter + size_of * self.prior.spread * rng.standard_normal(jitter.shape))
        w, t = np.concatenate(chains), np.concatenate(parameters)
        t[:, -2:] = (1.0, 0.0)
        h = forward(self.tables, w, t, x)[0]
        centered, middle = y - y.mean(), h.mean(1)
        square = np.maximum((h**2).sum(1) - len(x) * middle**2, 1e-12)
        t[:, -2] = (h @ centered) / square
        t[:, -1] = y.mean() - t[:, -2] * middle
        left = (centered**2).sum() - t[:, -2] ** 2 * square
        keep = smallest(left, max(self.starts // 3, 2 * self.settings.kept))
        return w[keep], t[keep]


@dataclass(frozen=True)
class _AdaptedCompose(Adapted):
    """A posterior over decompositions of one target.

    Args:
        fitted: the library.
        x: (P,) context points.
        y: (P,) values.
        chains: the decompositions.
    """

    fitted: FittedCompose
    x: Array
    y: Array
    chains: Chains
    decompositions: tuple[Decomposition, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "decompositions", self.chains.ranked(self.fitted.bank.keys))

    @property
    def exact(self) -> bool:
        """Whether a chain fits the context down to the floor with points to spare: no matter of chance."""
        return bool(
            self.chains.residual[0] < 10 * self.fitted.settings.floor and len(self.x) >= self.chains.theta.shape[1] + 2
        )

    @cached_property
    def _left_out(self) -> tuple[Array, Array]:
        return self._linear() if self.exact else self._searched()

    def _linear(self) -> tuple[Array, Array]:
        """Leave-one-out of the linearized fits: e_i / (1 - h_i), h the leverage."""
        c = self.chains
        value, jacobian = forward(self.fitted.tables, c.which, c.theta, self.x)
        spread = np.einsum("mpi,mij,mpj->mp", jacobian, c.covariance, jacobian, optimize=True)
        free = np.maximum(1 - spread / c.noise[:, None], 1e-3)
        mean, sd = c.mix(self.y - (self.y - value) / free, c.noise[:, None] / free)
        return mean[:, None], sd[:, None]

    def _searched(self) -> tuple[Array, Array]:
        """Whole searches without a fold each: a search that only fits what it has seen shows it here."""
        mean, sd = np.empty(len(self.x)), np.empty(len(self.x))
        folds = min(self.fitted.settings.folds, len(self.x))
        part = np.empty(len(self.x), dtype=int)
        part[np.argsort(self.x)] = np.arange(len(self.x)) % folds
        for k in range(folds):
            out = part == k
            x, y = self.x[~out], self.y[~out]
            if len(x) < 3:
                mean[out], sd[out] = np.nan, np.nan
                continue
            chains = self.fitted.weigh(*self.fitted.search(x, y, 0, self.fitted.starts // 4), x, y)
            mean[out], sd[out] = chains.predict(self.fitted.tables, self.x[out])
            sd[out] = np.hypot(sd[out], np.sqrt(chains.weights @ chains.noise))
        return mean[:, None], sd[:, None]

    def left_out(self) -> tuple[Array, Array]:
        """(P, 1) each context value from the others: linearized if the fit is exact, else by search without folds."""
        return self._left_out

    @cached_property
    def inflation(self) -> float:
        """By how much the folds' errors exceed their standard deviations; 1 for an exact fit or too few points."""
        if self.exact:
            return 1.0
        mean, sd = self._left_out
        ratio = ((self.y - mean[:, 0]) / sd[:, 0])[np.isfinite(mean[:, 0])]
        return float(max(1.0, np.sqrt(np.mean(ratio**2)))) if len(ratio) else 1.0

    def predict(self, x: Array) -> tuple[Array, Array]:
        """(Q, 1) mean and standard deviation of the mixture; the latter is widened by :attr:`inflation`."""
        mean, sd = self.chains.predict(self.fitted.tables, x[:, 0])
        return mean[:, None], sd[:, None] * self.inflation

    def covered(self, x: Array) -> NDArray[np.bool_]:
        """(Q,) where most of the posterior asks every function only where it is known."""
        if self.fitted.bank.callable:
            return np.ones(len(x), dtype=bool)
        low, high = (float(edge[0]) for edge in self.fitted.bank.range)
        c = self.chains
        z, inside = np.broadcast_to(x[:, 0], (len(c.which), len(x))), np.ones((len(c.which), len(x)), dtype=bool)
        for layer in range(c.which.shape[1]):
            u = c.theta[:, 2 * layer, None] * z + c.theta[:, 2 * layer + 1, None]
            inside &= (u >= low - 1e-9) & (u <= high + 1e-9)
            z = self.fitted.tables(c.which[:, layer], u)[0]
        return c.weights @ inside > 0.5
