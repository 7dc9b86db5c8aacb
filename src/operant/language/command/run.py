"""``operant extrapolate`` for text tasks: fit the bank, explain and predict every target; records and predictions."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from rich.console import Console

from operant.core.checks import ConfigError, DataError, OperantError, check_int
from operant.core.record import append_record, claim_folder, extend_records, read_records, write_records
from operant.hf.rollouts.prompts import EMBEDDED
from operant.hf.text_config import TextConfig
from operant.hf.train.checkpoints import newest, step_of
from operant.language.bank import TextBank
from operant.language.command.reading import TextColumns, TextTarget, read_bank, read_targets
from operant.language.command.records import bank_record, target_record
from operant.language.command.usercode import functions_of, relation_of
from operant.language.command.watch import Watched, go_back, watch
from operant.language.extrapolator import LanguageExtrapolator
from operant.language.relations import Relation, Toggle, check_candidates, relation_from

PREDICTIONS = "predictions.jsonl"
RECORD = "record.jsonl"
MODEL = "model"
"""Folder of the fitted model in that of the run."""
_BANK = "bank.jsonl"
LOOSE = ("resume", "open", "threads", "output_dir")
"""Settings that may differ when a run is resumed, because they do not change its results."""
TRAINING = (
    *("relation", "depth", "shots", "lora_rank", "steps", "batch_size", "learning_rate", "max_tokens", "hidden"),
    *("layers", "save_steps"),
)
"""Settings that a fitted model has already."""


@dataclass(frozen=True)
class Prepared:
    """What a run needs before it trains: read and checked.

    Args:
        bank: the known tasks, each behavior once.
        given: their number in the file.
        relation: what relates targets to them.
        targets: in the order of their file.
        notes: what a reader of the results should know of the data.
    """

    bank: TextBank
    given: int
    relation: Relation
    targets: Sequence[TextTarget]
    notes: Sequence[str]


def extrapolate(config: TextConfig) -> Path:
    """Fit or load the model, explain and predict every target, write record.jsonl and predictions.jsonl.

    Returns:
        The folder of the run, with the fitted model in ``model``.

    Raises:
        ConfigError: for settings that cannot work.
        DataError: for a folder in use, a file or column that is missing, a target without supports or queries.
    """
    known = prepare(config)
    settings = json.loads(json.dumps(asdict(config), default=str))
    with claim_folder(
        config.output_dir, "extrapolate text", settings, resume=config.resume, loose=LOOSE, outputs=(PREDICTIONS,)
    ):
        if is_finished(config.output_dir, known.targets):
            Console().print(f"{config.output_dir} is finished: no target is left.", soft_wrap=True)
        else:
            with _undone(config.output_dir):
                _run(config, len(known.targets))
    return config.output_dir


def _run(config: TextConfig, targets: int) -> None:
    record, steps = config.output_dir / RECORD, 0 if is_fitted(config) else config.steps
    if steps:
        go_back(record, step_of(newest(config.output_dir / MODEL / "training")))
    threads = config.threads or (1 if _is_embedded(config.model) else None)
    watch([Watched(Path(config.model).name, work, config, record, steps, targets)], threads=threads)


def prepare(config: TextConfig) -> Prepared:
    """Read the files and check everything that can be checked before training.

    Raises:
        ConfigError, DataError: as :func:`extrapolate`.
    """
    for name, least in {"steps": 1, "batch_size": 1, "max_tokens": 2, "save_steps": 0, "lora_rank": 0}.items():
        check_int(name, getattr(config, name), least=least)
    columns = TextColumns(config.task, config.x, config.y)
    if len({*asdict(columns).values(), "confidence", "shares", "few_shot", "given", "supports"}) < 8:
        raise ConfigError(f"the columns must have three names other than those of the predictions, got {columns}.")
    saved = is_saved(config.model)
    relation = _saved_relation(config.model) if saved else relation_of(config)
    bank = read_bank(config.bank, columns, config.parts if isinstance(relation, Toggle) else "")
    targets = read_targets(config.target, columns, config.query)
    _check_lengths(config, targets)
    functions = functions_of(config.functions)
    bank, given = bank.with_functions(functions), len(bank)
    notes = _notes(bank, functions, targets)
    if saved:
        _check_saved(config, bank)
        bank = TextBank.load(Path(config.model) / _BANK).with_functions(functions)
    bank = bank.distinct()
    check_candidates(relation.candidates(bank), bank)
    return Prepared(bank, given, relation, targets, notes)


def work(config: TextConfig) -> None:
    """Fit, adapt and write, in the process that trains; what a run that was stopped has done is not done again."""
    known, record = prepare(config), config.output_dir / RECORD
    fit(config, known, lambda step, loss: append_record(record, "step", step=step, loss=loss))
    place = Path(config.model) if is_saved(config.model) else config.output_dir / MODEL
    model = LanguageExtrapolator.load(place, functions=functions_of(config.functions))
    before = read_records(record)
    if not any(r["kind"] == "bank" for r in before):
        size = sum(p.numel() for p in model.policy_.model.parameters())
        about = {
            "kind": "model",
            "name": config.model,
            "relation": model.relation_.asdict(),
            "parameters": size,
            "trained": not is_saved(config.model),
            "history": model.history_,
        }
        offered = len(model.relation_.candidates(model.bank_))
        notes = [{"kind": "note", "text": text} for text in known.notes]
        extend_records(record, [*notes, about, bank_record(model.bank_, known.given, offered)])
    done = {r["key"] for r in before if r["kind"] == "target"}
    for target in known.targets:
        if target.key not in done:
            try:
                found = target_record(model.adapt(target.supports), target, config.execute)
            except OperantError as error:
                raise type(error)(f"target {target.key!r}: {error}") from error
            append_record(record, found.pop("kind"), **found)
    targets = [r for r in read_records(record) if r["kind"] == "target"]
    write_records(config.output_dir / PREDICTIONS, predictions(targets, config))


def fit(config: TextConfig, known: Prepared, progress: Callable[[int, float], None]) -> None:
    """Train, unless there is a fitted model; checkpoints and the model lie in the folder ``model`` of the run."""
    if is_fitted(config):
        return
    model = LanguageExtrapolator(
        config.model,
        relation=known.relation,
        **{name: getattr(config, name) for name in (*TRAINING[3:], "seed")},
    )
    model.fit(known.bank, folder=config.output_dir / MODEL, progress=progress)


def predictions(targets: Sequence[Mapping[str, Any]], config: TextConfig) -> list[dict[str, Any]]:
    """A line a query: task, input, output, confidence, shares of all outputs, few-shot or not, and the supports given.

    A best candidate that gives fewer supports than there are is wrong, or was executed wrongly, however sure it is.
    """
    return [
        {
            config.task: t["key"],
            config.x: p["input"],
            config.y: p["output"],
            "confidence": p["confidence"],
            "shares": {s["output"]: s["share"] for s in p["shares"]},
            "few_shot": p["few_shot"],
            "given": t["hypotheses"][0]["given"] if t["hypotheses"] else 0,
            "supports": len(t["supports"]),
        }
        for t in targets
        for p in t["predictions"]
    ]


def is_saved(model: str) -> bool:
    """Whether a model is a folder that LanguageExtrapolator saved."""
    return (Path(model) / _BANK).is_file()


def is_fitted(config: TextConfig) -> bool:
    """Whether nothing is left to train."""
    return is_saved(config.model) or is_saved(str(config.output_dir / MODEL))


def is_finished(folder: Path, targets: Sequence[TextTarget]) -> bool:
    """Whether every target is recorded and the predictions are written."""
    done = {r["key"] for r in read_records(folder / RECORD) if r["kind"] == "target"}
    return {t.key for t in targets} <= done and (folder / PREDICTIONS).is_file()


def _check_lengths(config: TextConfig, targets: Sequence[TextTarget]) -> None:
    """Refuse texts that the embedded model, which reads bytes, cannot hold: it would notice after its training only."""
    if not _is_embedded(config.model):
        return
    most = int(_saved_settings(config.model)["max_tokens"]) if is_saved(config.model) else config.max_tokens
    for t in targets:
        for x, y in (*t.supports, *((x, "") for x in t.queries)):
            if (size := len(x.encode(errors="replace")) + len(y.encode(errors="replace"))) > most:
                raise DataError(
                    f"{config.target}: target {t.key!r} has a text of {size} bytes, the embedded model reads "
                    f"{most}: {x[:40]!r}. Raise --max_tokens, or shorten it."
                )


def _saved_relation(model: str) -> Relation:
    return relation_from(_saved_settings(model)["relation"])


def _saved_settings(model: str) -> dict[str, Any]:
    return read_records(Path(model) / "settings.jsonl", torn=False)[0]


def _is_embedded(model: str) -> bool:
    return model == EMBEDDED or (is_saved(model) and _saved_settings(model)["model"] == EMBEDDED)


def _check_saved(config: TextConfig, bank: TextBank) -> None:
    """Refuse training settings beside a fitted model, and another bank than its own."""
    given = [f.name for f in fields(config) if f.name in TRAINING and getattr(config, f.name) != f.default]
    if given:
        raise ConfigError(f"{config.model} is a fitted model: leave out {', '.join(f'--{name}' for name in given)}.")
    for task in TextBank.load(Path(config.model) / _BANK):
        if task.name not in bank or set(bank[task.name].demonstrations) != set(task.demonstrations):
            raise DataError(
                f"{config.model} was fitted on another bank than {config.bank}: task {task.name!r} differs. Give its "
                "bank, or train again."
            )


def _notes(bank: TextBank, functions: Mapping[str, Any], targets: Sequence[TextTarget]) -> list[str]:
    notes: list[str] = []
    if strange := [name for name in functions if name not in bank]:
        notes.append(f"Functions of no task of the bank were not used: {', '.join(strange)}.")
    first: dict[str, str] = {}
    for task in bank:
        other = first.setdefault(bank.behaviors[task.name], task.name)
        if other != task.name:
            notes.append(f"The task {task.name!r} behaves as {other!r} does and was left out.")
    if both := [t.key for t in targets if t.key in bank]:
        notes.append(f"The bank has tasks with the names of targets: {', '.join(both)}.")
    if any(y == "" for task in bank for _, y in task.demonstrations):
        return notes
    for t in targets:
        if empty := sum(y == "" for _, y in t.supports):
            notes.append(
                f"{empty} supports of {t.key!r} have an empty output, which no task of the bank gives. A query has no "
                "output, or null."
            )
    return notes


@contextmanager
def _undone(folder: Path) -> Generator[None]:
    """Remove the folder of a model that was not trained a step, so that a run that failed at its data starts over."""
    try:
        yield
    except BaseException:
        begun = newest(folder / MODEL / "training") or any(r["kind"] == "step" for r in read_records(folder / RECORD))
        if not begun and not is_saved(str(folder / MODEL)):
            shutil.rmtree(folder / MODEL, ignore_errors=True)
        raise
