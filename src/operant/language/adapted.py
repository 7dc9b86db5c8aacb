"""A target task that was adapted to: its candidates with their posterior, predictions, and whether to trust them."""

from __future__ import annotations

import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from operant.core.checks import InputError
from operant.language.bank import check_text
from operant.language.examples import TextApplicability
from operant.language.execute import Execute, Executor
from operant.language.relations import Candidate
from operant.language.search import Floats, Posterior, effective_number, vote

VOTERS = 64
"""Candidates that vote at most. Parity with 5 supports leaves about 11 of 168 pairs that explain all of them."""
WITHIN = 12.0
"""Nats below the best candidate from which a candidate does not vote: e^-12 of its weight."""


class FewShotWarning(UserWarning):
    """No candidate explains the supports: predictions come from plain few-shot prompting."""


@dataclass(frozen=True)
class RankedCandidate:
    """A candidate and what the supports say of it.

    Args:
        candidate: names of its steps.
        weight: its posterior probability.
        log_p: the model's log-probability of each support; NaN where the other supports have ruled the candidate out.
        given: whether it gives each support when it is run; None where it cannot be, and for the model's likelihood.
    """

    candidate: Candidate
    weight: float
    log_p: tuple[float, ...]
    given: tuple[bool | None, ...]

    @property
    def explains(self) -> tuple[bool, ...]:
        """Of each support, whether the candidate gives it; where it cannot be run, whether p > 1/2."""
        pairs = zip(self.given, self.log_p, strict=True)
        return tuple(bool(p > np.log(0.5)) if known is None else known for known, p in pairs)

    @property
    def explained(self) -> int:
        """Number of supports that it explains."""
        return sum(self.explains)

    @property
    def refuted(self) -> bool:
        """Whether it gives another output than a support's when it is run."""
        return False in self.given


@dataclass(frozen=True)
class Vote:
    """What the posterior says of one query.

    Args:
        output: the output with the largest share; ties go to the more likely candidate.
        confidence: its share.
        shares: of every output, largest first.
    """

    output: str
    confidence: float
    shares: dict[str, float]


@dataclass(frozen=True)
class Hypothesis:
    """Candidates that give the same outputs on supports and queries: what the posterior tells apart.

    Args:
        candidates: most likely first.
        weight: posterior probability of all of them together.
        given: supports whose output they give when they are executed.
        outputs: of each query; None where they cannot be run.
    """

    candidates: tuple[RankedCandidate, ...]
    weight: float
    given: int
    outputs: tuple[str | None, ...]


class AdaptedTextTask:
    """What :meth:`LanguageExtrapolator.adapt` returns.

    Args:
        posterior: the scored candidates.
        supports: the target's (input, output) pairs.
        executor: runs tasks and candidates.
        calibration: log-probabilities a token of known demonstrations under their true candidate, a list a lesson.
    """

    def __init__(
        self,
        posterior: Posterior,
        supports: Sequence[tuple[str, str]],
        executor: Executor,
        calibration: Sequence[Sequence[float]],
    ) -> None:
        self.posterior, self.supports = posterior, tuple(supports)
        self._executor, self._calibration = executor, calibration

    @cached_property
    def candidates_(self) -> list[RankedCandidate]:
        """Every searched candidate, most likely first, with its weight if all of them are different tasks."""
        return _ranked(self.posterior, self.posterior.weights())

    @property
    def failures(self) -> dict[str, str]:
        """Known tasks whose function failed, and how: candidates with them were left out where it did."""
        return dict(self._executor.failures)

    @cached_property
    def _voters(self) -> Posterior:
        return self.posterior.best(VOTERS, within=WITHIN)

    @cached_property
    def _writers(self) -> Sequence[Candidate]:
        """What the model writes for each voter: of candidates that are one task, the likeliest on the supports."""
        voters, run = self._voters.candidates, self._executor
        return (
            voters
            if self.posterior.given is None
            else run.likeliest(run.relation.alike(voters, run.bank), self.supports)
        )

    def applicability(self) -> TextApplicability:
        """Compare the likelihood of the supports with that of known demonstrations which were not trained on."""
        size = len(self.supports)
        best = self.candidates_[0] if self.candidates_ else None
        tokens = self._executor.tokens([y for _, y in self.supports])
        mean = -np.inf if best is None else float(np.mean(best.log_p / tokens))
        ran = best is not None and None not in best.given
        known = [float(np.mean(values[:size])) for values in self._calibration]
        below = sum(value <= mean for value in known)
        p_value = (1 + below) / (1 + len(known)) if known else None
        given = best.explained / size if best is not None and ran else None
        return TextApplicability(mean, p_value, len(known), min(known, default=-np.inf), given)

    @property
    def fallback_(self) -> str:
        """Why predictions come from few-shot prompting, or "" if they come from the candidates."""
        found = self.applicability()
        if found.applies:
            return ""
        if not self.candidates_:
            return "no candidate was proposed"
        if found.log_p == -np.inf:
            reasons = "; ".join(self._executor.failures.values())
            return f"no candidate can be run on the supports ({reasons})"
        if found.given is not None and found.given < 0.5:
            right, size = self.candidates_[0].explained, len(self.supports)
            return f"the best candidate gives {right} of {size} supports when it is run"
        return f"a token of the supports has probability {found.token}"

    def predict(self, inputs: Sequence[str], *, execute: Execute = "model") -> list[str]:
        """The output for each input: the vote of the posterior, or plain few-shot prompting where that is refused.

        Args:
            inputs: queries.
            execute: "model" runs anchors where they are callable and lets the model write the last step, of the chain
                that it finds likeliest among those that are the same task; "run" runs it, where it is callable.
        """
        return [v.output for v in self.vote(inputs, execute=execute)]

    def vote(self, inputs: Sequence[str], *, execute: Execute = "model") -> list[Vote]:
        """As :meth:`predict`, with each output's share of the posterior.

        Candidates with the same outputs on supports and queries are one hypothesis: a task that can be written in many
        ways counts once.
        """
        if isinstance(inputs, str):
            raise InputError(f"expected a list of inputs, got one text: write [{inputs[:40]!r}].")
        for x in inputs:
            if not isinstance(x, str):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise InputError(f"expected texts as inputs, got {x!r}.")
            check_text(x, "an input")
        if not inputs:
            return []
        if reason := self.fallback_:
            warnings.warn(f"few-shot prompting: {reason}.", FewShotWarning, stacklevel=2)
            return [Vote(y, float("nan"), {}) for y in self._few_shot(inputs)]
        weights, outputs = self._outputs(inputs, execute)
        shares = vote(weights, outputs)
        rest = iter(self._few_shot([x for x, s in zip(inputs, shares, strict=True) if not s]))
        return [
            Vote(*next(iter(s.items())), s) if s else Vote(next(rest), float("nan"), {})  # no voter runs on this input
            for s in shares
        ]

    def hypotheses(self, inputs: Sequence[str] = (), *, execute: Execute = "model") -> list[Hypothesis]:
        """What the candidates that vote say, the heaviest first; the weights sum to 1.

        Args:
            inputs: queries.
            execute: as for :meth:`predict`.
        """
        weights, outputs = self._outputs(inputs, execute)
        merged: dict[tuple[str | None, ...], list[int]] = {}
        for i, behavior in enumerate(self._behaviors(inputs, outputs, execute)):
            merged.setdefault(tuple(behavior), []).append(i)
        ranked = _ranked(self._voters, weights)
        wanted = [y for _, y in self.supports]
        found = [
            Hypothesis(
                tuple(ranked[i] for i in rows),
                float(weights[rows].sum()),
                sum(a == b for a, b in zip(behavior, wanted, strict=False)),
                tuple(outputs[rows[0]]),
            )
            for behavior, rows in merged.items()
        ]
        return sorted(found, key=lambda h: -round(h.weight, 12))  # as in vote: ties go to the likelier candidate

    def effective_number(self, inputs: Sequence[str] = (), *, execute: Execute = "model") -> float:
        """1 / sum of squared weights of the hypotheses that differ on supports and inputs; 1 if one is certain."""
        weights, outputs = self._outputs(inputs, execute)
        return effective_number(weights, [tuple(row) for row in self._behaviors(inputs, outputs, execute)])

    def explain(self, top: int = 3) -> str:
        """The best candidates, how many supports each explains, and how many hypotheses are left."""
        lines: list[str] = []
        if reason := self.fallback_:
            lines.append(f"No candidate is trusted: {reason}. Predictions come from few-shot prompting.")
        best = self.candidates_[0] if self.candidates_ else None
        if best is not None and best.refuted and not self.fallback_:
            lines.append(
                "No candidate gives every support when it is run. The supports are taken as noisy: the number that a "
                "candidate gives decides, then the model's likelihood of the others."
            )
        for place, found in enumerate(self.candidates_[:top]):
            if not found.refuted or (best is not None and best.refuted):
                lines.append(f"{'next' if place else 'best'}: {self._evidence(found)}")
        if refuted := sum(found.refuted for found in self.candidates_):
            lines.append(
                f"refuted: {refuted} of {len(self.candidates_)} candidates contradict a support when they are run"
            )
        if not self.fallback_:
            lines.append(f"effective number of hypotheses: {self.effective_number():.1f}")
        lines.append(f"probability of a token of the supports: {self.applicability().token}")
        lines += [f"left out: {text}" for text in self._executor.failures.values()]
        return "\n".join(lines)

    def _evidence(self, found: RankedCandidate) -> str:
        bound = "below " if np.isnan(found.log_p).any() else ""
        run = " when it is run" if None not in found.given else ""
        told = f"{'gives' if run else 'explains'} {found.explained} of {len(self.supports)} supports{run}"
        return f"{found.candidate}  weight {found.weight:.2f}, {told}, log p {bound}{np.nansum(found.log_p):.1f}"

    def _outputs(self, inputs: Sequence[str], execute: Execute) -> tuple[Floats, list[list[str | None]]]:
        """Weights of the voters, (C,), and their outputs on the inputs, (C, Q)."""
        outputs = self._executed(inputs, execute)
        behaviors = self._behaviors(inputs, outputs, execute)
        return self._voters.weights([tuple(row) for row in behaviors]), outputs

    def _behaviors(
        self, inputs: Sequence[str], outputs: Sequence[Sequence[str | None]], execute: Execute
    ) -> list[list[str | None]]:
        """Outputs of the voters on supports and inputs, (C, S + Q)."""
        supports = self._executed([x for x, _ in self.supports], execute)
        return [[*a, *b] for a, b in zip(supports, outputs, strict=True)]

    def _executed(self, inputs: Sequence[str], execute: Execute) -> list[list[str | None]]:
        who = self._writers if execute == "model" else self._voters.candidates
        return self._executor.outputs(who, inputs, execute=execute)

    def _few_shot(self, inputs: Sequence[str]) -> list[str]:
        """The supports and the query as a plain prompt, by the model without its adapter."""
        if not inputs:
            return []
        shown = "".join(f"Input: {x}\nOutput: {y}\n\n" for x, y in self.supports)
        with _without_adapter(self._executor.policy.model):
            written = self._executor.write([f"{shown}Input: {x}\nOutput:" for x in inputs])
        stop = "\n\nInput:" if any("\n" in y for _, y in self.supports) else "\n"
        return [text.strip().partition(stop)[0].rstrip() for text in written]


def _ranked(posterior: Posterior, weights: Floats) -> list[RankedCandidate]:
    """The candidates of a posterior, most likely first."""
    if posterior.given is None:
        given = [(None,) * posterior.log_p.shape[1]] * len(weights)
    else:
        given = [tuple(None if np.isnan(v) else bool(v) for v in row) for row in posterior.given.tolist()]
    rows = zip(posterior.candidates, weights.tolist(), posterior.log_p.tolist(), given, strict=True)
    found = [RankedCandidate(c, w, tuple(p), ran) for c, w, p, ran in rows]
    return [found[i] for i in posterior.order]


@contextmanager
def _without_adapter(model: object) -> Generator[None]:
    disable = getattr(model, "disable_adapter", None)
    if disable is None:
        yield
    else:
        with disable():
            yield
