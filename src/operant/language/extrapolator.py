"""Extrapolate a text task: fine-tune a language model on the relations inside a bank, then search for the target's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from operant.core.checks import DataError, check_int
from operant.core.record import lock_folder, read_records, write_records
from operant.hf.rollouts.policy import Policy, load_policy
from operant.hf.train.finetune import finetune
from operant.language.adapted import AdaptedTextTask
from operant.language.backbone import EMBEDDED, claim, make_policy, rate_of
from operant.language.bank import TextBank, TextTask, check_function
from operant.language.examples import calibration_examples, draw_examples, split_lessons
from operant.language.execute import Executor
from operant.language.relations import Candidate, Compose, Relation, check_candidates, relation_from
from operant.language.score import encode_texts, log_probs
from operant.language.search import EXHAUSTIVE, Proposes, search

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
        held_out: Sequence[TextTask] = (),
        folder: Path | str | None = None,
        progress: Callable[[int, float], None] | None = None,
    ) -> LanguageExtrapolator:
        """Fine-tune the model on the pairs of tasks that the bank teaches.

        Args:
            bank: the known tasks. Of tasks that behave alike the first is kept.
            held_out: test tasks: they are neither taught nor candidates.
            folder: where checkpoints lie, and the fitted model in the end. Started again there, a run that was killed
                goes on and ends as it would have.
            progress: called with step and loss.

        Raises:
            LeakError: if the bank or the candidates hold a held-out task.
            DataError: if the bank teaches nothing, a text is too long, or the folder holds another run.
        """
        self._check()
        relation = self.relation or Compose()
        bank = bank.distinct()
        check_candidates(relation.candidates(bank), bank, held_out)
        if folder is None:
            return self._fit(bank, relation, held_out, None, progress)
        with claim(Path(folder), self._settings(relation), type(self).__name__):
            self._fit(bank, relation, held_out, Path(folder), progress)
            self._write(Path(folder))
        return self

    def _fit(
        self,
        bank: TextBank,
        relation: Relation,
        held_out: Sequence[TextTask],
        folder: Path | None,
        progress: Callable[[int, float], None] | None,
    ) -> LanguageExtrapolator:
        policy = self._policy(relation.words(bank))
        trained, calibrating = split_lessons(relation.lessons(bank, held_out), bank, seed=self.seed)
        run = Executor(bank, relation, policy, max_tokens=self.max_tokens, max_new_tokens=self.max_tokens)
        count = self.steps * self.batch_size
        examples = draw_examples(relation, bank, trained, run, count=count, seed=self.seed)
        rows = encode_texts(policy, examples, max_tokens=self.max_tokens)
        self.history_ = finetune(
            policy,
            rows,
            steps=self.steps,
            batch_size=self.batch_size,
            learning_rate=rate_of(self.learning_rate, self.model, self.lora_rank),
            muon=self.model == EMBEDDED,
            in_order=True,  # the examples are drawn at random, short ones first
            seed=self.seed,
            folder=None if folder is None else folder / "training",
            save_steps=0 if folder is None else self.save_steps,
            progress=progress,
        )
        self.bank_, self.relation_, self.policy_ = bank, relation, policy
        self.longest_ = max(len(r.target) for r in rows)
        groups = calibration_examples(relation, bank, calibrating, run, seed=self.seed)
        self.calibration_ = [
            log_probs(policy, encode_texts(policy, pairs, max_tokens=self.max_tokens)).tolist() for pairs in groups
        ]
        return self

    def adapt(
        self,
        supports: Iterable[tuple[str, str]],
        *,
        held_out: Sequence[TextTask] = (),
        proposer: Proposes | None = None,
    ) -> AdaptedTextTask:
        """Search for the candidates that explain the supports.

        Args:
            supports: (input, output) pairs of the target.
            held_out: test tasks, for an evaluation: a candidate that is one of them is refused.
            proposer: draws the candidates that are scored. None: all of the relation's are searched.

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
        posterior = search(
            candidates,
            lambda some, which: self.score(some, [pairs[i] for i in which], executor),
            len(pairs),
            limit=self.search_limit if proposer is None else len(candidates),
            seed=self.seed,
        )
        return AdaptedTextTask(posterior, pairs, executor, self.calibration_)

    def score(
        self, candidates: Sequence[Candidate], supports: Sequence[tuple[str, str]], executor: Executor | None = None
    ) -> NDArray[np.float64]:
        """log p(y_i | candidate, x_i), (C, S); -inf where a step of the candidate cannot be run."""
        executor = executor or self.executor()
        prompts = executor.prompts(candidates, [x for x, _ in supports])
        texts = [
            (k, i, (prompt, supports[i][1]))
            for k, row in enumerate(prompts)
            for i, prompt in enumerate(row)
            if prompt is not None
        ]
        places = {text: j for j, text in enumerate(dict.fromkeys(text for _, _, text in texts))}
        rows = encode_texts(self.policy_, list(places), max_tokens=self.max_tokens)
        values = log_probs(self.policy_, rows).numpy()
        found = np.full((len(candidates), len(supports)), -np.inf)
        for k, i, text in texts:
            found[k, i] = values[places[text]]
        return found

    def executor(self) -> Executor:
        """What runs the known tasks, by their functions or by the model."""
        return Executor(
            self.bank_,
            self.relation_,
            self.policy_,
            max_tokens=self.max_tokens,
            max_new_tokens=min(self.max_tokens, 2 * self.longest_),
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
        model.policy_ = load_policy(str(folder / "model"), device=model.device, dtype=None)
        model.policy_.model.eval()
        model.longest_, model.calibration_ = fitted["longest"], fitted["calibration"]
        model.history_ = [(int(step), float(loss)) for step, loss in fitted["history"]]
        return model

    def _write(self, folder: Path) -> None:
        self.policy_.save(folder / "model")
        fitted = {
            "kind": "fitted",
            "longest": self.longest_,
            "calibration": self.calibration_,
            "history": self.history_,
        }
        write_records(folder / "settings.jsonl", [self._settings(self.relation_), fitted])
        self.bank_.save(folder / "bank.jsonl")  # last: its presence says that the model is whole

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
