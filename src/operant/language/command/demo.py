"""``operant demo language``: combinations of spreadsheet steps that were never seen, predicted in four ways."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from operant.core.bootstrap import resampled_means
from operant.core.checks import ConfigError
from operant.core.record import append_record, claim_folder, extend_records, read_records
from operant.core.rng import numpy_generator
from operant.hf.config import DemoConfig
from operant.hf.rollouts.policy import EMBEDDED, Policy, byte_policy, load_policy
from operant.hf.train.checkpoints import newest, step_of
from operant.hf.train.finetune import finetune
from operant.language.bank import TextTask
from operant.language.command.reading import TextTarget
from operant.language.command.records import bank_record, target_record
from operant.language.command.spreadsheet import cells, spreadsheet_steps
from operant.language.command.watch import Watched, go_back, watch
from operant.language.execute import Execute
from operant.language.extrapolator import LanguageExtrapolator
from operant.language.problems import string_chains
from operant.language.relations import BankRun, Compose
from operant.language.score import encode_texts, generate
from operant.language.search import Posterior, vote
from operant.language.splits import TextSplit

HIDDEN, LAYERS, BATCH, RATE = 96, 3, 32, 3e-3
"""A Llama of 360,000 parameters. At width 64 and 400 steps the pair was found for 5 of 6 hand-made targets, and the
model executed it for 1; with these and 2,000 steps both were right for all 6, in three CPU minutes."""
SUPPORTS, QUERIES = 2, 4
STEPS = 1200
TRAINING_ONLY = ("seeds", "warm_steps", "jobs")
"""Settings that this demo does not have."""
SHARE = 0.5
"""Of the combinations that are held out, by behavior."""
NAMED = ("swap at comma", "title case")
SHOWN = 3
_PARTS = {"decomposition": "model", "flat": "flat"}
"""Label of a job -> its folder."""


@dataclass(frozen=True)
class DemoJob:
    """What the processes of the demo get.

    Args:
        folder: of the demo.
        steps: of both trainings.
        targets: held-out combinations that are tested; None for all.
    """

    folder: Path
    steps: int
    targets: int | None = None


def language_demo(config: DemoConfig, *, targets: int | None = None) -> Path:
    """Train a model on the relation and one on whole examples, and compare them on held-out combinations.

    Args:
        config: the settings.
        targets: combinations that are tested; None for all that are held out.
    """
    if given := [name for name in TRAINING_ONLY if getattr(config, name) != getattr(DemoConfig, name)]:
        raise ConfigError(f"--{given[0]} is for the demo of training, not for operant demo language.")
    folder = Path("runs/demo-language") if config.output_dir == DemoConfig.output_dir else config.output_dir
    job = DemoJob(folder, config.steps or STEPS, targets)
    record = job.folder / "record.jsonl"
    settings = json.loads(json.dumps(asdict(config) | {"steps": job.steps}, default=str))
    loose = ("resume", "open", "output_dir")
    with claim_folder(job.folder, "demo language", settings, resume=config.resume, loose=loose):
        if any(r["kind"] == "comparison" for r in read_records(record)):
            return job.folder
        jobs: list[Watched] = []
        runs: dict[str, Callable[[Any], None]] = {"decomposition": decompose, "flat": flat}
        for label, folder in _PARTS.items():
            go_back(_part(job, label), step_of(newest(job.folder / folder / "training")))
            jobs.append(Watched(label, runs[label], job, _part(job, label), job.steps, len(held_out(job))))
        watch(jobs, threads=1)
        extend_records(record, _results(job))
    return job.folder


def split() -> TextSplit:
    """Half of the combinations of two steps held out by behavior, "swap at comma > title case" among them."""
    bank = spreadsheet_steps()
    every = string_chains(bank, depth=2).targets
    drawn = numpy_generator(0, "demo").permutation(len(every))[: round(SHARE * len(every))].tolist()
    probe = "SMITH, john"
    named = next(i for i, t in enumerate(every) if t.parts == NAMED or t.output(probe) == "John Smith")
    return TextSplit(bank, tuple(every[i] for i in dict.fromkeys([named, *drawn])))


def held_out(job: DemoJob) -> list[TextTarget]:
    """Supports, queries and answers of the held-out combinations, on cells that no training has seen."""
    found: list[TextTarget] = []
    fresh = cells(40 * (SUPPORTS + QUERIES), seed=1)
    for number, task in enumerate(split().targets[: job.targets]):
        rng = numpy_generator(number, "demo target")
        drawn = [fresh[i] for i in rng.permutation(len(fresh))[: SUPPORTS + QUERIES].tolist()]
        pairs = [(x, str(task.output(x))) for x in drawn]
        truth = dict(pairs[SUPPORTS:])
        found.append(TextTarget(task.name, tuple(pairs[:SUPPORTS]), tuple(truth), truth))
    return found


def decompose(job: DemoJob) -> None:
    """Fit the relation; then predict every target by symbolic search, by running the steps, and by the model."""
    record, place = _part(job, "decomposition"), job.folder / _PARTS["decomposition"]
    known = split()
    functions = {t.name: t.run for t in known.bank if t.run is not None}
    if not (place / "bank.jsonl").is_file():
        model = LanguageExtrapolator(
            steps=job.steps, hidden=HIDDEN, layers=LAYERS, batch_size=BATCH, learning_rate=RATE, device="cpu"
        )
        model.fit(known.bank, held_out=known.targets, folder=place, progress=_progress(record))
    model = LanguageExtrapolator.load(place, functions=functions)
    for number, target in enumerate(_left(job, "decomposition")):
        task = model.adapt(target.supports, held_out=known.targets)
        scores = {"symbolic": _right(symbolic(model, target), target)}
        alone = target_record(model.adapt(target.supports, likelihood="model"), target, "run")
        scores["alone"] = _right([p["output"] for p in alone["predictions"]], target)
        executed: tuple[Execute, ...] = ("run", "model")
        for name in executed:
            found = target_record(task, target, name)
            scores[name] = _right([p["output"] for p in found["predictions"]], target)
            if name == "model" and number < SHOWN:
                append_record(record, "shown", found=found)
        append_record(record, "target", key=target.key, scores=scores)
    _sized(record, model)


def symbolic(model: LanguageExtrapolator, target: TextTarget) -> list[str]:
    """The vote of all combinations that give the supports' outputs exactly; "" if there is none."""
    run, candidates = BankRun(model.bank_), model.relation_.candidates(model.bank_)
    rows = [[model.relation_.value(c, x, run) for x in (*dict(target.supports), *target.queries)] for c in candidates]
    wanted = [y for _, y in target.supports]
    log_p = np.array([[0.0 if a == b else -np.inf for a, b in zip(r, wanted, strict=False)] for r in rows])
    weights = Posterior(tuple(candidates), log_p).weights([tuple(r) for r in rows])
    shares = vote(weights, [r[len(wanted) :] for r in rows])
    return [next(iter(s)) if weights.any() else "" for s in shares]


def flat(job: DemoJob) -> None:
    """Train the same model to continue examples of a task, without steps; then predict every target."""
    record, place = _part(job, "flat"), job.folder / _PARTS["flat"]
    if not (place / "model" / "config.json").is_file():
        known = split()
        tasks = [lesson.task for lesson in Compose().lessons(known.bank, known.targets)]
        policy = byte_policy(hidden=HIDDEN, layers=LAYERS)
        prompts = _flat_examples(tasks, known.bank.inputs, job.steps * BATCH)
        finetune(
            policy,
            encode_texts(policy, prompts, max_tokens=512),
            steps=job.steps,
            batch_size=BATCH,
            learning_rate=RATE,
            folder=place / "training",
            save_steps=200,
            progress=_progress(record),
        )
        policy.save(place / "model")
    policy = load_policy(str(place / "model"), device="cpu")
    for target in _left(job, "flat"):
        append_record(record, "target", key=target.key, scores={"flat": _right(_continued(policy, target), target)})


def _flat_examples(tasks: Sequence[TextTask], inputs: Sequence[str], count: int) -> list[tuple[str, str]]:
    """Two random inputs of a random task with their outputs, and a third as the query: (prompt, target)."""
    rng, found = numpy_generator(0, "flat"), list[tuple[str, str]]()
    for _ in range(count):
        task = tasks[int(rng.integers(len(tasks)))]
        drawn = [inputs[i] for i in map(int, rng.integers(len(inputs), size=SUPPORTS + 1))]
        pairs = [(x, str(task.output(x))) for x in drawn]
        found.append((_examples(pairs[:-1], pairs[-1][0]), pairs[-1][1]))
    return found


def _examples(shown: Sequence[tuple[str, str]], query: str) -> str:
    return "".join(f"{x}\n{y}\n" for x, y in shown) + f"{query}\n"


def _continued(policy: Policy, target: TextTarget) -> list[str]:
    return generate(policy, [_examples(target.supports, x) for x in target.queries], max_new_tokens=64)


def _results(job: DemoJob) -> list[dict[str, Any]]:
    """What the page shows: the model, the bank, some targets, and accuracies with intervals over targets."""
    first, second = (read_records(_part(job, label)) for label in _PARTS)
    scores = [{**a["scores"], **b["scores"]} for a, b in zip(_targets(first), _targets(second), strict=True)]
    rng = numpy_generator(0, "intervals")
    rows: list[dict[str, Any]] = []
    for name, (method, about) in METHODS.items():
        values = np.array([[s[name] for s in scores]])
        low, high = np.quantile(resampled_means(values, rng), [0.025, 0.975]).tolist()
        rows.append({"method": method, "value": float(values.mean()), "low": low, "high": high, "about": about})
    size = {"targets": len(scores), "supports": SUPPORTS, "queries": QUERIES}
    facts = [r for r in first if r["kind"] in ("model", "bank")]
    shown = [r["found"] for r in first if r["kind"] == "shown"]
    return [*facts, {"kind": "comparison", **size, "rows": rows}, *shown]


METHODS = {
    "symbolic": (
        "symbolic search",
        "every combination that gives the supports exactly votes. It needs functions for all steps, and it is the most "
        "that the supports tell.",
    ),
    "run": (
        "decomposition, steps run",
        "combinations that contradict a support when they are run are refuted; of the others the model's likelihood "
        "orders those that weigh the same, and their functions are run.",
    ),
    "model": ("decomposition, last step by the model", "the same, and the model writes the last step's output."),
    "alone": (
        "decomposition, the model's likelihood alone",
        "no combination is refuted: the model's likelihood of the supports finds it, and its functions are run. It is "
        "what steps that have no function get.",
    ),
    "flat": (
        "flat: examples continued",
        "the same model, trained for as many steps on the same tasks, but as two examples and a query.",
    ),
}
"""Key of a score -> the method's name and what it does."""


def _targets(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [r for r in records if r["kind"] == "target"]


def _part(job: DemoJob, label: str) -> Path:
    return job.folder / f"{label}.jsonl"


def _left(job: DemoJob, label: str) -> list[TextTarget]:
    """The targets that are not recorded yet."""
    done = {r["key"] for r in _targets(read_records(_part(job, label)))} if _part(job, label).is_file() else set[str]()
    return [t for t in held_out(job) if t.key not in done]


def _right(outputs: Sequence[str], target: TextTarget) -> float:
    return float(np.mean([y == target.truth[x] for x, y in zip(target.queries, outputs, strict=True)]))


def _progress(record: Path) -> Callable[[int, float], None]:
    return lambda step, loss: append_record(record, "step", step=step, loss=loss)


def _sized(record: Path, model: LanguageExtrapolator) -> None:
    about = {
        "name": EMBEDDED,
        "relation": model.relation_.asdict(),
        "parameters": sum(p.numel() for p in model.policy_.model.parameters()),
        "trained": True,
        "history": model.history_,
    }
    append_record(record, "model", **about)
    offered = len(model.relation_.candidates(model.bank_))
    bank = bank_record(model.bank_, len(model.bank_), offered)
    append_record(record, bank.pop("kind"), **bank)
