"""A language model that writes candidates for a target from its supports: drawn k times and verified, it is pass@k."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import torch

from operant.core.checks import ConfigError, DataError, check_int
from operant.core.record import lock_folder, read_records, write_records
from operant.hf.rollouts.policy import Encoded, load_policy
from operant.hf.rollouts.sampling import RolloutSettings, sample
from operant.hf.train.finetune import finetune
from operant.hf.train.reinforce import reinforce
from operant.language.backbone import BANK, EMBEDDED, SETTINGS, claim, make_policy, rate_of
from operant.language.bank import TextBank, TextTask, check_function
from operant.language.extrapolator import LanguageExtrapolator
from operant.language.proposals import (
    Support,
    check_names,
    draw_proposals,
    explains,
    parse_candidate,
    proposer_lessons,
    render_candidate,
    render_supports,
)
from operant.language.relations import Candidate, Compose, Relation, check_candidates, relation_from
from operant.language.score import encode_texts
from operant.strategies import Sampler

FIELDS = (
    *("model", "lora_rank", "strategy", "transform", "shown", "steps", "batch_size", "learning_rate", "attempts"),
    *("temperature", "max_tokens", "hidden", "layers", "seed", "device", "save_steps"),
)
"""The settings that a saved proposer has; the relation is written beside them."""


class Proposer:
    """Writes candidates for a target, given its supports. ``LanguageExtrapolator.adapt`` searches among them.

    ``fit`` fine-tunes the model on lessons of the bank: a random support set as the prompt, the candidate that it shows
    as the target. The loss is -log S(p) of a strategy: pass@1 is cross-entropy, pass@k aims at one right candidate
    among k draws. ``reinforce`` goes on with draws of its own, rewarded if they explain the supports.

    Args:
        model: "embedded" (a small Llama over bytes), a Hub id or a folder.
        relation: what candidates are; chains of two tasks if None.
        strategy: that the fine-tuning aims at.
        transform: g in the place of the logarithm of -log S, such as "log:0.1", see ``operant.estimators.Transform``.
        shown: smallest and largest number of supports in an example.
        steps: optimizer steps of ``fit``.
        batch_size: examples a step.
        learning_rate: the largest; None is 3e-3 for the embedded model, 2e-4 with LoRA and 2e-5 for other models.
        attempts: candidates that ``propose`` draws, k.
        temperature: at which it draws.
        lora_rank: 0 trains all weights.
        max_tokens: of supports and candidate. Longer texts are refused.
        hidden: width of the embedded model.
        layers: of the embedded model.
        seed: of weights, examples and draws.
        device: "auto" takes a GPU where there is one.
        save_steps: steps between checkpoints in the folder that ``fit`` gets; 0 for none.

    >>> bank = TextBank.from_functions({"up": str.upper, "dup": lambda x: x + x}, ["ab", "cd", "ef"])
    >>> proposer = Proposer(steps=2, batch_size=4, hidden=16, layers=1, attempts=5).fit(bank)
    >>> len(proposer.propose([("ab", "ABAB"), ("cd", "CDCD")]))  # None where a text is no candidate
    5
    """

    def __init__(
        self,
        model: str = EMBEDDED,
        *,
        relation: Relation | None = None,
        strategy: str = "pass@16",
        transform: str = "",
        shown: tuple[int, int] = (2, 5),
        steps: int = 1200,
        batch_size: int = 64,
        learning_rate: float | None = None,
        attempts: int = 64,
        temperature: float = 1.0,
        lora_rank: int = 0,
        max_tokens: int = 512,
        hidden: int = 128,
        layers: int = 4,
        seed: int = 0,
        device: str = "auto",
        save_steps: int = 200,
    ) -> None:
        self.model, self.relation, self.strategy, self.shown = model, relation, strategy, shown
        self.transform = transform
        self.steps, self.batch_size, self.learning_rate = steps, batch_size, learning_rate
        self.attempts, self.temperature, self.lora_rank = attempts, temperature, lora_rank
        self.max_tokens, self.hidden, self.layers = max_tokens, hidden, layers
        self.seed, self.device, self.save_steps = seed, device, save_steps

    def fit(
        self,
        bank: TextBank,
        *,
        held_out: Sequence[TextTask] = (),
        folder: Path | str | None = None,
        progress: Callable[[int, float], None] | None = None,
    ) -> Proposer:
        """Fine-tune the model to write the candidate that a support set shows.

        Args:
            bank: the known tasks. Of tasks that behave alike the first is kept.
            held_out: test tasks. No candidate that behaves as one of them is taught.
            folder: where checkpoints lie, and the fitted proposer in the end. Started again there, a run that was
                killed goes on and ends as it would have.
            progress: called with step and loss.

        Raises:
            LeakError: if the bank holds a held-out task.
            DataError: if the bank teaches nothing, a text is too long, or the folder holds another run.
        """
        self._check()
        relation, bank = self.relation or Compose(), bank.distinct()
        candidates = relation.candidates(bank)
        check_candidates(candidates, bank, held_out)
        check_names(bank)
        self.bank_, self.relation_ = bank, relation
        self.lessons_ = proposer_lessons(relation, bank, candidates, held_out)
        if folder is None:
            return self._fit(None, progress)
        with claim(Path(folder), self._settings(relation), type(self).__name__):
            self._fit(Path(folder), progress)
            self._write(Path(folder))
        return self

    def _fit(self, folder: Path | None, progress: Callable[[int, float], None] | None) -> Proposer:
        self.policy_ = make_policy(
            self.model,
            [f"<{task.name}>" for task in self.bank_],
            hidden=self.hidden,
            layers=self.layers,
            lora_rank=self.lora_rank,
            seed=self.seed,
            device=self.device,
        )
        examples = draw_proposals(
            self.lessons_, self.bank_, count=self.steps * self.batch_size, shown=self.shown, seed=self.seed
        )
        texts = [(render_supports(shown), render_candidate(candidate)) for shown, candidate in examples]
        rows = encode_texts(self.policy_, texts, max_tokens=self.max_tokens)
        self.longest_ = max(len(row.target) for row in rows) - 1  # the end token is not a part of a candidate
        self.history_ = finetune(
            self.policy_,
            rows,
            steps=self.steps,
            batch_size=self.batch_size,
            learning_rate=rate_of(self.learning_rate, self.model, self.lora_rank),
            strategy=self.strategy,
            transform=self.transform,
            seed=self.seed,
            folder=None if folder is None else folder / "training",
            save_steps=0 if folder is None else self.save_steps,
            progress=progress,
        )
        return self

    def propose(
        self,
        supports: Sequence[Support],
        *,
        attempts: int | None = None,
        temperature: float | None = None,
        seed: int | None = None,
    ) -> list[Candidate | None]:
        """Draw candidates, i.i.d. at a temperature: one an attempt, None where the text is not a candidate.

        A text that cannot be parsed, a name that the bank lacks, and a chain that the relation does not admit count as
        attempts.

        Args:
            supports: (input, output) pairs of the target.
            attempts: draws, k; those of the constructor if None, as the other two.
            temperature: of the sampler.
            seed: of the draws.

        Raises:
            DataError: for no support, supports that contradict each other, or a text that is too long.
        """
        if not supports:
            raise DataError("expected at least one support, got none.")
        check_function(supports, "the target")
        (row,) = encode_texts(self.policy_, [(render_supports(supports), "")], max_tokens=self.max_tokens)
        settings = RolloutSettings(
            rollouts=self.attempts if attempts is None else attempts,
            max_new_tokens=self.longest_,
            batch_size=1,
            seed=self.seed if seed is None else seed,
            sampler=Sampler(self.temperature if temperature is None else temperature),
        )
        (drawn,) = sample(self.policy_, [Encoded(row.prompt, [])], settings)
        return [self._read(self.policy_.text(tokens)) for tokens in drawn]

    def verified(
        self,
        candidates: Sequence[Candidate | None],
        supports: Sequence[Support],
        *,
        extrapolator: LanguageExtrapolator | None = None,
    ) -> list[bool]:
        """Whether each candidate explains all supports; False for None.

        A candidate is run where the bank has functions for it. Else the extrapolator scores it: it explains a support
        whose output is more probable than all others together.

        Raises:
            ConfigError: if a candidate cannot be run and there is no extrapolator.
        """
        distinct = list(dict.fromkeys(c for c in candidates if c is not None))
        found = {c: explains(self.relation_, self.bank_, c, supports) for c in distinct}
        if open_ := [c for c in distinct if found[c] is None]:
            if extrapolator is None:
                raise ConfigError(
                    f"the candidate {open_[0]} cannot be run: a task of the bank has no function, or the relation has "
                    "no value. Give an extrapolator, which scores it."
                )
            scores = extrapolator.score(open_, supports)
            found |= dict(zip(open_, (scores > np.log(0.5)).all(1).tolist(), strict=True))
        return [c is not None and bool(found[c]) for c in candidates]

    def reinforce(
        self,
        *,
        strategy: str | None = None,
        form: str = "exact",
        transform: str = "",
        steps: int = 100,
        batch_size: int = 8,
        rollouts: int = 32,
        learning_rate: float = 3e-4,
        held_out: Sequence[TextTask] | None = None,
        extrapolator: LanguageExtrapolator | None = None,
        folder: Path | str | None = None,
        progress: Callable[[int, float], None] | None = None,
    ) -> Proposer:
        """Go on by RL on support sets of the lessons: a draw's reward is 1 if it explains the supports, else 0.

        Args:
            strategy: whose value is raised, the one of the constructor if None; its budget is less than ``rollouts``.
            form: "exact", or a published rule such as "grpo".
            transform: of a group's value, such as "log:0.02"; "" for none, whatever the constructor's.
            steps: optimizer steps.
            batch_size: support sets a step.
            rollouts: draws of each.
            learning_rate: after a warm-up over 5 % of the steps.
            held_out: test tasks; those of ``fit`` if None. A proposer that was loaded does not know them.
            extrapolator: verifies candidates that cannot be run.
            folder: where checkpoints lie while it trains.
            progress: called with step and mean reward.

        Raises:
            ConfigError: for a loaded proposer without ``held_out``, or candidates that cannot be verified.
        """
        if held_out is not None:
            candidates = self.relation_.candidates(self.bank_)
            self.lessons_ = proposer_lessons(self.relation_, self.bank_, candidates, held_out)
        elif not hasattr(self, "lessons_"):
            raise ConfigError("a loaded proposer does not know its test tasks: give held_out, [] if there are none.")
        examples = draw_proposals(
            self.lessons_, self.bank_, count=steps * batch_size, shown=self.shown, seed=self.seed + 1
        )
        shown = {render_supports(supports): supports for supports, _ in examples}

        def reward(prompts: Sequence[str], completions: Sequence[str]) -> list[float]:
            found: list[float] = []
            for prompt, drawn in groupby(zip(prompts, completions, strict=True), key=itemgetter(0)):
                candidates = [self._read(text) for _, text in drawn]
                found += map(float, self.verified(candidates, shown[prompt], extrapolator=extrapolator))
            return found

        self.rewards_ = reinforce(
            self.policy_,
            list(shown),
            reward,
            steps=steps,
            batch_size=batch_size,
            rollouts=rollouts,
            learning_rate=learning_rate,
            max_new_tokens=self.longest_,
            strategy=strategy or self.strategy,
            form=form,
            transform=transform,
            seed=self.seed,
            folder=None if folder is None else Path(folder),
            save_steps=0 if folder is None else self.save_steps,
            progress=progress,
        )
        return self

    def save(self, folder: Path | str) -> None:
        """Write the fitted proposer as a folder of safetensors and JSON lines, without the bank's functions."""
        with lock_folder(Path(folder)):
            if (Path(folder) / BANK).is_file():
                raise DataError(f"{folder} holds a fitted model already. Take another folder.")
            self._write(Path(folder))

    @classmethod
    def load(cls, folder: Path | str, *, functions: Mapping[str, Callable[[str], str]] | None = None) -> Proposer:
        """Read what :meth:`save` wrote.

        Args:
            folder: the proposer's.
            functions: of tasks of the bank, by name, for the verification.
        """
        folder = Path(folder)
        settings, fitted = read_records(folder / SETTINGS, torn=False)
        relation = relation_from(settings["relation"])
        proposer = cls(**{name: settings[name] for name in FIELDS}, relation=relation)
        proposer.shown = tuple(settings["shown"])
        proposer.relation_ = relation
        proposer.bank_ = TextBank.load(folder / BANK).with_functions(functions or {})
        dtype = None if proposer.lora_rank else torch.float32  # it may be trained further, see make_policy
        proposer.policy_ = load_policy(f"{folder}/model", device=proposer.device, dtype=dtype, trainable=True)
        proposer.policy_.model.eval()
        proposer.longest_ = fitted["longest"]
        proposer.history_ = [(int(step), float(loss)) for step, loss in fitted["history"]]
        return proposer

    def _write(self, folder: Path) -> None:
        self.policy_.save(folder / "model")
        fitted = {"kind": "fitted", "longest": self.longest_, "history": self.history_}
        write_records(folder / SETTINGS, [self._settings(self.relation_), fitted])
        self.bank_.save(folder / BANK)  # last: its presence says that the proposer is whole

    def _settings(self, relation: Relation) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in FIELDS} | {"shown": list(self.shown)}
        return {"kind": "settings", **own, "relation": relation.asdict()}

    def _read(self, text: str) -> Candidate | None:
        candidate = parse_candidate(text)
        return candidate if candidate is not None and self.relation_.admits(candidate, self.bank_) else None

    def _check(self) -> None:
        for name, least in {"lora_rank": 0, "steps": 1, "batch_size": 1, "attempts": 1, "save_steps": 0}.items():
            check_int(name, getattr(self, name), least=least)
        if not 1 <= self.shown[0] <= self.shown[1]:
            raise ConfigError(f"shown must be (smallest, largest) numbers of supports, 1 or more, got {self.shown}.")
        Sampler(self.temperature)  # refuses a temperature that is not positive
