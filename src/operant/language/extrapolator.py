"""Extrapolate a text task: fine-tune a language model on the relations inside a bank, then search for the target's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from shutil import rmtree
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from operant.core.checks import DataError, check_int
from operant.core.record import lock_folder, read_records, write_records
from operant.core.rng import child_seed
from operant.hf.rollouts.policy import Policy, load_policy
from operant.hf.train.finetune import finetune
from operant.language.adapted import AdaptedTextTask
from operant.language.backbone import EMBEDDED, claim, make_policy, rate_of
from operant.language.bank import TextBank, TextTask, check_function, digest
from operant.language.em import EMRound, Further, Stages, annealed, em_round, m_examples
from operant.language.examples import calibration_examples, draw_examples, split_lessons
from operant.language.execute import Executor
from operant.language.relations import Candidate, Compose, Lesson, Relation, check_candidates, relation_from
from operant.language.score import encode_texts, log_probs
from operant.language.search import EXHAUSTIVE, Likelihood, Proposes, search

FIELDS = [
    "model",
    "lora_rank",
    "steps",
    "batch_size",
    "learning_rate",
    "max_tokens",
    "search_limit",
    "hidden",
    "layers",
    "seed",
    "device",
    "save_steps",
]
"""The settings that a saved model has; the relation is written beside them."""
CALIBRATION = "calibration per token"


class LanguageExtrapolator:
    """Predicts a text task outside a bank as a known anchor and a known transformation.

    ``fit`` fine-tunes the model on the pairs that the bank teaches. ``adapt`` scores every candidate by the likelihood
    of the supports. The posterior over candidates then votes on each query.

    Args:
        model: "embedded" (a Llama of 830,000 parameters over bytes, which trains on a CPU), a Hub id or a folder.
        relation: what relates targets to the bank.
        lora_rank: 0 trains all weights.
        steps: optimizer steps.
        batch_size: examples a step.
        learning_rate: the largest; None is 3e-3 for the embedded model, 2e-4 with LoRA and 2e-5 for other models.
        max_tokens: of a prompt with its output. Longer texts are refused.
        search_limit: candidates up to which the search is exhaustive; beam search above.
        hidden: width of the embedded model.
        layers: of the embedded model.
        seed: of weights, examples and their order.
        device: "auto" takes a GPU where there is one.
        save_steps: steps between checkpoints in the folder that ``fit`` gets; 0 for none.

    >>> bank = TextBank.from_functions({"up": str.upper, "dup": lambda x: x + x}, ["ab", "cd", "ef"])
    >>> model = LanguageExtrapolator(steps=2, batch_size=4, hidden=16, layers=1).fit(bank)
    >>> task = model.adapt([("ab", "ABAB"), ("cd", "CDCD")])
    >>> len(task.candidates_)  # up, dup, up > dup, dup > dup
    4
    """

    def __init__(
        self,
        model: str = EMBEDDED,
        *,
        relation: Relation | None = None,
        lora_rank: int = 0,
        steps: int = 1200,
        batch_size: int = 64,
        learning_rate: float | None = None,
        max_tokens: int = 512,
        search_limit: int = EXHAUSTIVE,
        hidden: int = 128,
        layers: int = 4,
        seed: int = 0,
        device: str = "auto",
        save_steps: int = 200,
    ) -> None:
        self.model, self.relation, self.lora_rank = model, relation, lora_rank
        self.steps, self.batch_size, self.learning_rate = steps, batch_size, learning_rate
        self.max_tokens, self.search_limit = max_tokens, search_limit
        self.hidden, self.layers = hidden, layers
        self.seed, self.device, self.save_steps = seed, device, save_steps

    def fit(
        self,
        bank: TextBank,
        *,
        unlabeled: Iterable[TextTask] = (),
        labeled: Iterable[TextTask] = (),
        rounds: int = 4,
        held_out: Sequence[TextTask] = (),
        folder: Path | str | None = None,
        progress: Callable[[int, float], None] | None = None,
    ) -> LanguageExtrapolator:
        """Fine-tune the model on the pairs of tasks that the bank teaches.

        With further tasks, rounds of expectation-maximization follow: the model finds the candidates that explain each
        unlabeled one, then learns from these. ``rounds_`` records what was found.

        Args:
            bank: the known tasks. Of tasks that behave alike the first is kept.
            unlabeled: further known tasks, by demonstrations; what they are made of need not be known.
            labeled: further known tasks whose parts name the steps that they are made of.
            rounds: of expectation-maximization. Each trains ``steps`` steps more, half of them on the bank.
            held_out: test tasks: they are neither taught nor candidates.
            folder: where checkpoints lie, and the fitted model in the end. Started again there, a run that was killed
                goes on and ends as it would have.
            progress: called with step and loss.

        Raises:
            LeakError: if the bank, the further tasks or the candidates hold a held-out task.
            DataError: if the bank teaches nothing, a text is too long, or the folder holds another run.
        """
        self._check()
        relation = self.relation or Compose()
        bank = bank.distinct()
        candidates = relation.candidates(bank)
        check_candidates(candidates, bank, held_out)
        further = Further.checked(unlabeled, labeled, bank, candidates, held_out)
        rounds = check_int("rounds", rounds, least=1) if further else 0
        if folder is None:
            return self._fit(bank, relation, held_out, further, rounds, None, progress)
        data = digest([(t.name, t.demonstrations, t.parts) for t in (*bank, *further.latent, *further.labeled)])
        settings = self._settings(relation) | {"rounds": rounds, "data": data}
        with claim(Path(folder), settings, type(self).__name__):
            self._fit(bank, relation, held_out, further, rounds, Path(folder), progress)
            self._write(Path(folder))
        return self

    def _fit(
        self,
        bank: TextBank,
        relation: Relation,
        held_out: Sequence[TextTask],
        further: Further,
        rounds: int,
        folder: Path | None,
        progress: Callable[[int, float], None] | None,
    ) -> LanguageExtrapolator:
        self.bank_, self.relation_ = bank, relation
        self.policy_ = policy = self._policy(relation.words(bank))
        trained, calibrating = split_lessons(relation.lessons(bank, held_out), bank, seed=self.seed)
        stages = Stages(folder / "training" if folder is not None and rounds else None, policy)
        for number in range(len(stages.done), rounds + 1):
            self.longest_ = max((stage["longest"] for stage in stages.done), default=self.max_tokens)
            stages.finish(**self._stage(number, rounds, further, trained, folder, progress))
        self.longest_ = max(stage["longest"] for stage in stages.done)
        self.history_ = [(int(step), float(loss)) for stage in stages.done for step, loss in stage["history"]]
        self.rounds_ = [EMRound.from_fields(stage["round"]) for stage in stages.done if stage["round"]]
        calibrating += further.calibrating(self.rounds_[-1].best if self.rounds_ else {})
        groups = calibration_examples(bank, calibrating, self.executor(), seed=self.seed)
        coded = [encode_texts(policy, pairs, max_tokens=self.max_tokens) for pairs in groups]
        self.calibration_ = [
            (log_probs(policy, rows) / torch.tensor([len(row.target) for row in rows])).tolist() for rows in coded
        ]
        return self

    def _stage(
        self,
        number: int,
        rounds: int,
        further: Further,
        lessons: Sequence[Lesson],
        folder: Path | None,
        progress: Callable[[int, float], None] | None,
    ) -> dict[str, Any]:
        """The warm-up on the bank (0), or a round of EM: an E-step, then training on the bank and its candidates."""
        run, before = self.executor(), number * self.steps
        seed = child_seed(self.seed, "round", number) % 2**32 if number else self.seed  # a seed of NumPy's
        count, found, examples = self.steps * self.batch_size, None, list[tuple[str, str]]()
        if number:
            power, candidates = annealed(number, rounds), self.relation_.candidates(self.bank_)
            posteriors = further.posteriors(candidates, run, limit=self.search_limit, seed=seed)
            if further.latent:
                found = asdict(em_round(number, further.latent, posteriors[: len(further.latent)], power))
            examples = m_examples(further.tasks, posteriors, power, run, count=count // 2, seed=seed)
        examples += draw_examples(self.relation_, self.bank_, lessons, count=count - len(examples), seed=seed)
        rows = encode_texts(self.policy_, examples, max_tokens=self.max_tokens)
        history = finetune(
            self.policy_,
            rows,
            steps=self.steps,
            batch_size=self.batch_size,
            learning_rate=rate_of(self.learning_rate, self.model, self.lora_rank),
            muon=self.model == EMBEDDED,
            in_order=not number,  # the bank's examples are drawn at random, short ones first
            seed=seed,
            folder=None if folder is None else folder / "training" / (f"round-{number}" if number else ""),
            save_steps=0 if folder is None else self.save_steps,
            progress=None if progress is None else lambda step, loss: progress(before + step, loss),
        )
        return {
            "history": [(before + step, loss) for step, loss in history],
            "longest": max(len(r.target) for r in rows),
            "round": found,
        }

    def adapt(
        self,
        supports: Iterable[tuple[str, str]],
        *,
        held_out: Sequence[TextTask] = (),
        proposer: Proposes | None = None,
        likelihood: Likelihood = "exact",
    ) -> AdaptedTextTask:
        """Search for the candidates that explain the supports.

        A candidate that can be run has the likelihood 1 if it gives all supports, and 0 if it contradicts one. Any
        other has the likelihood of the model. If nothing that can be run gives all supports and nothing else is
        likely, the supports count as noisy: see :func:`operant.language.search.log_likelihood`.

        Args:
            supports: (input, output) pairs of the target.
            held_out: test tasks, for an evaluation: a candidate that is one of them is refused.
            proposer: draws the candidates that are scored. None: all of the relation's are searched.
            likelihood: "exact", or "model" for that of the model alone, also where candidates can be run.

        Raises:
            DataError: for no support, supports that contradict each other, or a text that is too long.
            LeakError: if the candidates touch the held-out tasks.
        """
        pairs = tuple(dict.fromkeys((x, y) for x, y in supports))
        if not pairs:
            raise DataError("expected at least one support, got none.")
        check_function(pairs, "the target")
        drawn = self.relation_.candidates(self.bank_) if proposer is None else proposer.propose(pairs)
        candidates = list(dict.fromkeys(c for c in drawn if c is not None))
        if candidates or proposer is None:
            check_candidates(candidates, self.bank_, held_out)
        executor = self.executor()
        given = executor.given(candidates, pairs) if likelihood == "exact" else None
        posterior = search(
            candidates,
            lambda some, which: self.score(some, [pairs[i] for i in which], executor),
            len(pairs),
            given=given,
            limit=self.search_limit if proposer is None else len(candidates),
            seed=self.seed,
        )
        return AdaptedTextTask(posterior, pairs, executor, self.calibration_)

    def score(
        self, candidates: Sequence[Candidate], supports: Sequence[tuple[str, str]], executor: Executor | None = None
    ) -> NDArray[np.float64]:
        """log p(y_i | candidate, x_i), (C, S); -inf where a step of the candidate cannot be run."""
        return (executor or self.executor()).log_probs(candidates, supports)

    def executor(self) -> Executor:
        """What runs the known tasks, by their functions or by the model."""
        return Executor(
            self.bank_,
            self.relation_,
            self.policy_,
            max_tokens=self.max_tokens,
            max_new_tokens=min(self.max_tokens // 2, 2 * self.longest_),
        )

    def save(self, folder: Path | str) -> None:
        """Write the fitted model as a folder of safetensors and JSON lines; functions of the bank are not written."""
        with lock_folder(Path(folder)):
            if (Path(folder) / "bank.jsonl").is_file():
                raise DataError(f"{folder} holds a fitted model already. Take another folder.")
            self._write(Path(folder))

    @classmethod
    def load(
        cls, folder: Path | str, *, functions: Mapping[str, Callable[[str], str]] | None = None
    ) -> LanguageExtrapolator:
        """Read what :meth:`save` wrote.

        Args:
            folder: the model's.
            functions: of tasks of the bank, by name. Tasks without one are run by the model.
        """
        folder = Path(folder)
        settings, fitted = read_records(folder / "settings.jsonl", torn=False)
        model = cls(
            **{name: settings[name] for name in FIELDS},
            relation=relation_from(settings["relation"]),
        )
        model.relation_ = relation_from(settings["relation"])
        model.bank_ = TextBank.load(folder / "bank.jsonl").with_functions(functions or {})
        dtype = (
            None if model.lora_rank else torch.float32
        )  # as it was trained; on a GPU, bfloat16 would change the scores
        model.policy_ = load_policy(str(folder / "model"), device=model.device, dtype=dtype)
        model.policy_.model.eval()
        if CALIBRATION not in fitted:
            raise DataError(f"{folder} was written by an older version, whose lessons are not comparable: fit again.")
        model.longest_, model.calibration_ = fitted["longest"], fitted[CALIBRATION]
        model.history_ = [(int(step), float(loss)) for step, loss in fitted["history"]]
        model.rounds_ = [EMRound.from_fields(found) for found in fitted["rounds"]]
        return model

    def _write(self, folder: Path) -> None:
        self.policy_.save(folder / "model")
        fitted = {
            "kind": "fitted",
            "longest": self.longest_,
            CALIBRATION: self.calibration_,
            "history": self.history_,
            "rounds": [asdict(found) for found in self.rounds_],
        }
        write_records(folder / "settings.jsonl", [self._settings(self.relation_), fitted])
        self.bank_.save(folder / "bank.jsonl")  # last: its presence says that the model is whole
        rmtree(folder / "training", ignore_errors=True)

    def _settings(self, relation: Relation) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in FIELDS}
        return {"kind": "settings", **own, "relation": relation.asdict()}

    def _policy(self, words: Sequence[str]) -> Policy:
        return make_policy(
            self.model,
            words,
            hidden=self.hidden,
            layers=self.layers,
            lora_rank=self.lora_rank,
            seed=self.seed,
            device=self.device,
        )

    def _check(self) -> None:
        for name, least in {"lora_rank": 0, "steps": 1, "batch_size": 1, "max_tokens": 2, "save_steps": 0}.items():
            check_int(name, getattr(self, name), least=least)
