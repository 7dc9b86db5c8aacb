"""Read the folder of a run: its jobs, their final values per prompt, and what they logged.

A job is a folder with a ``job.json``: one branch (training objective) with one seed. Its ``prompts.jsonl`` holds the
final evaluation, its ``record.jsonl`` the steps. Arrays of one job have shape ``(P,)``, arrays of one branch
``(S, P)``: S seeds, P prompts, values as fractions (0.25 is 25 %).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from operant.core.checks import DataError
from operant.core.record import read_records
from operant.report.pages.train.metrics import Metric, aims, measured, required
from operant.report.records import FolderRecords, Record, read_folder

WARM = "warm start"
_REFERENCE, _RATE = "reference", "rate"
_DIVERGED = "diverged.json"
FIRST = "pass@N"
"""The family that pages and tables show first."""


@dataclass(frozen=True)
class BranchResult:
    """One branch with one seed that finished, so that it has a final value for every prompt."""

    path: Path
    seed: int
    branch: str
    baseline: bool
    role: str
    prompts: tuple[str, ...]
    values: Mapping[str, np.ndarray]  # name of a metric -> (P,)
    metrics: Mapping[str, Metric]  # the same names
    objective: Metric | None  # what the branch was trained for; None where the record does not say
    parts: tuple[Metric, ...]  # the parts of that mixture; the objective itself if it is none
    steps: tuple[Record, ...]
    evaluations: tuple[Record, ...]
    seconds: float | None
    examples: tuple[Record, ...] = ()  # held-out prompts with sampled answers
    rates: tuple[float, ...] = ()  # learning rates among which it was chosen, or the only one; empty in early folders
    chosen: Mapping[str, tuple[float, ...]] = field(default_factory=dict[str, tuple[float, ...]])  # rates of a metric
    kept: Record | None = None  # with --keep best: the step whose weights were kept, and the value that chose it

    @property
    def label(self) -> str:
        """The name of the branch on the page."""
        return WARM if self.role == "warm" else self.branch


@dataclass(frozen=True)
class SavedRun:
    """All that the page of a run needs.

    Args:
        source: the records of the run.
        jobs: the finished branches.
        unfinished: names of the job folders that were skipped.
        warnings: what was recorded.
        at_rates: the jobs of the branches with several learning rates, one for each.
        diverged: (branch, seed, rate) of those whose training diverged.
    """

    source: FolderRecords
    jobs: tuple[BranchResult, ...]
    unfinished: tuple[str, ...]
    warnings: tuple[str, ...]
    at_rates: tuple[BranchResult, ...] = ()
    diverged: tuple[tuple[str, int, float], ...] = ()

    @property
    def is_evaluation(self) -> bool:
        """Whether this is the folder of one `operant evaluate`."""
        return len(self.jobs) == 1 and self.jobs[0].role == "evaluation"

    @property
    def labels(self) -> tuple[str, ...]:
        """Branches in page order: warm start, baseline, plain strategies, then mixtures."""
        # What others are compared with comes first, then what is simple, then mixtures.
        places = {"warm": 0, _REFERENCE: 1}
        rank = {j.label: (places.get(j.role, 3 - j.baseline), len(j.parts) > 1, natural(j.label)) for j in self.jobs}
        return tuple(sorted(rank, key=lambda label: rank[label]))

    @property
    def baseline(self) -> str | None:
        """The label of the baseline branch; None if no baseline job is finished."""
        return next((j.label for j in self.jobs if j.baseline), None)

    @property
    def trained(self) -> tuple[str, ...]:
        """The branches that are neither the warm start nor the baseline, nor stand beside it."""
        others = {WARM, self.baseline, *self.references}
        return tuple(label for label in self.labels if label not in others)

    @property
    def references(self) -> tuple[str, ...]:
        """Rows beside the baseline: the same weights with other settings."""
        return tuple(dict.fromkeys(j.label for j in self.jobs if j.role == _REFERENCE))

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of all metrics: ``pass@N`` first, then the other families, each by budget."""
        about = self._about
        return tuple(sorted(about, key=lambda name: (about[name].family != FIRST, about[name], name)))

    @property
    def families(self) -> tuple[str, ...]:
        """The families of metrics, such as ``pass@N`` and ``threshold@N:2``."""
        return tuple(dict.fromkeys(self.metric(name).family for name in self.metrics))

    @property
    def _about(self) -> dict[str, Metric]:
        return {name: metric for j in self.jobs for name, metric in j.metrics.items()}

    def metric(self, name: str) -> Metric:
        """Family and budget of a metric."""
        return self._about[name]

    def in_family(self, family: str) -> list[str]:
        """The names of the metrics of one family, by budget."""
        return [name for name in self.metrics if self.metric(name).family == family]

    @property
    def seeds(self) -> tuple[int, ...]:
        """Every seed with a finished job."""
        return tuple(sorted({j.seed for j in self.jobs}))

    def of(self, label: str) -> tuple[BranchResult, ...]:
        """The finished jobs of one branch, by seed."""
        return tuple(sorted((j for j in self.jobs if j.label == label), key=lambda j: j.seed))

    def values(self, label: str, metric: str) -> dict[int, np.ndarray]:
        """Seed -> values of shape (P,); a seed that lacks the metric is absent."""
        return {j.seed: j.values[metric] for j in self.of(label) if metric in j.values}


def natural(text: str) -> tuple[tuple[bool, int, str], ...]:
    """A sort key under which ``pass@4`` stands before ``pass@16``."""
    parts = re.findall(r"[0-9]+|[^0-9]+", text)
    return tuple((p.isdecimal(), int(p) if p.isdecimal() else 0, p) for p in parts)


def load_run(run_dir: Path) -> SavedRun:
    """Read every job below ``run_dir``.

    Raises:
        DataError: if there is no finished job, if two jobs claim the same branch and seed or two branches
            the baseline, if prompts differ between jobs, or if a value is missing or not finite.
    """
    every = sorted(run_dir.rglob("job.json")) if run_dir.is_dir() else []
    lost = [p for p in every if (p.parent / _DIVERGED).is_file()]
    paths = [p for p in every if p not in lost]
    if not every:
        raise DataError(
            f"expected a run folder with at least one job.json in or below it, found none at {run_dir}. "
            "Pass the output folder of `operant train` or `operant evaluate`."
        )
    done = [p.parent for p in paths if _has_text(p.parent / "prompts.jsonl")]
    results = _aligned([_load_job(path) for path in done])
    jobs = [job for job in results if job.role != _RATE]
    if not jobs:
        raise DataError(
            f"expected a finished job (one with prompts.jsonl) below {run_dir}, found {len(paths)} "
            "unfinished. Let the run finish or resume it, then report again."
        )
    _check_unique(jobs)
    found = read_folder(run_dir)
    return SavedRun(
        source=found,
        jobs=tuple(jobs),
        unfinished=tuple(_shown(p.parent, run_dir) for p in paths if p.parent not in done),
        warnings=(*found.texts("warning"), *_job_warnings(jobs, run_dir)),
        at_rates=tuple(job for job in results if job.role == _RATE),
        diverged=tuple(_diverged(path) for path in lost),
    )


def _job_warnings(jobs: Sequence[BranchResult], run_dir: Path) -> list[str]:
    """The warnings of each job's last evaluation; equal ones of several seeds count once."""
    found: dict[str, None] = {}
    for job in jobs:
        if job.path != run_dir:  # a stand-alone evaluation is its own run
            said = read_folder(job.path).since("evaluation").texts("warning")
            found |= dict.fromkeys(f"{job.label}: {text}" for text in said)
    return list(found)


def _diverged(path: Path) -> tuple[str, int, float]:
    about = _read_object(path)
    (rate,) = required(about, "rates", path)
    return str(required(about, "branch", path)), required(about, "seed", path), rate


def _load_job(folder: Path) -> BranchResult:
    about = _read_object(folder / "job.json")
    records = read_folder(folder)
    prompts, values = _read_prompts(folder / "prompts.jsonl")
    evaluations = _by_step(records.every("evaluation"))
    objective, parts = aims(about, folder / "job.json")
    return BranchResult(
        path=folder,
        seed=required(about, "seed", folder / "job.json"),
        branch=str(required(about, "branch", folder / "job.json")),
        baseline=bool(about.get("baseline", False)),
        role=str(about.get("role", "branch")),
        prompts=prompts,
        values=values,
        metrics=measured(values, evaluations, folder / "prompts.jsonl"),
        objective=objective,
        parts=parts,
        steps=_by_step(records.every("step")),
        evaluations=evaluations,
        seconds=records.last("done").get("seconds"),
        # A resumed run may have written them twice.
        examples=tuple({str(e["prompt"]): e for e in records.every("example")}.values()),
        rates=tuple(about.get("rates", ())),
        chosen=_chosen(records),
        kept=records.last("kept_step") or None,
    )


def _chosen(records: FolderRecords) -> dict[str, tuple[float, ...]]:
    """Metric -> the learning rates that the halves of the prompts chose."""
    return {r["metric"]: tuple(s["rate"] for s in r["settings"] if "rate" in s) for r in records.every("chosen")}


def _read_prompts(path: Path) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
    """Prompt ids and metric -> values (P,), in the order of the file."""
    records = read_records(path)
    if not records:
        raise DataError(f"{path}: expected one prompt a line, found none. Evaluate this job again.")
    ids = [str(required(r, "prompt", path)) for r in records]
    if len(set(ids)) < len(ids):
        twice = next(i for i in ids if ids.count(i) > 1)
        raise DataError(f"{path}: expected every prompt once, got prompt {twice} more than once.")
    names = list(required(records[0], "values", path))
    columns: dict[str, list[float]] = {name: [] for name in names}
    for line, record in enumerate(records, start=1):
        values = required(record, "values", path)
        if set(values) != set(names):
            raise DataError(
                f"{path}, line {line}: expected the metrics {sorted(names)} as in line 1, got "
                f"{sorted(values)}. Evaluate this job again."
            )
        for name in names:
            columns[name].append(_finite(values[name], f"{path}, line {line}: {name}"))
    return tuple(ids), {name: np.array(column) for name, column in columns.items()}


def _aligned(jobs: list[BranchResult]) -> list[BranchResult]:
    """The jobs with their prompts in the order of the first one."""
    if not jobs:
        return []
    first = jobs[0]
    return [job if job.prompts == first.prompts else _reordered(job, first) for job in jobs]


def _reordered(job: BranchResult, first: BranchResult) -> BranchResult:
    ours, theirs = set(job.prompts), set(first.prompts)
    if ours != theirs:
        odd = sorted(ours ^ theirs, key=natural)
        raise DataError(
            f"expected the same prompts in every job, got {len(ours)} in {job.path} and {len(theirs)} in "
            f"{first.path}; not in both: {', '.join(odd[:5])}{' ...' if len(odd) > 5 else ''}. "
            "Evaluate both with the same prompt set: gains are paired by prompt."
        )
    # Gains are paired by prompt, so all jobs need one order.
    place = {prompt: i for i, prompt in enumerate(job.prompts)}
    order = [place[prompt] for prompt in first.prompts]
    values = {metric: column[order] for metric, column in job.values.items()}
    return replace(job, prompts=first.prompts, values=values)


def _check_unique(jobs: list[BranchResult]) -> None:
    seen: dict[tuple[str, int], Path] = {}
    for job in jobs:
        other = seen.setdefault((job.label, job.seed), job.path)
        if other is not job.path:
            raise DataError(
                f"expected one job per branch and seed, got two for {job.label!r}, seed {job.seed}: "
                f"{other} and {job.path}. Move one of them out of the run folder."
            )
    names = sorted({job.label for job in jobs if job.baseline})
    if len(names) > 1:
        raise DataError(
            f"expected at most one baseline branch, got {', '.join(names)}. "
            'Leave "baseline": true in the job.json of one of them.'
        )


def _by_step(records: Iterable[Record]) -> tuple[Record, ...]:
    """One record per step, in order. A resumed run logs some steps twice; the later record counts."""
    # A dict keeps the later of two records with one step.
    last = {r["step"]: r for r in records if isinstance(r.get("step"), int)}
    return tuple(last[step] for step in sorted(last))


def _has_text(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0


def _shown(folder: Path, run_dir: Path) -> str:
    relative = folder.relative_to(run_dir).as_posix()
    return folder.name if relative == "." else relative


def _read_object(path: Path) -> Record:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: expected one JSON object ({error}).") from error
    if not isinstance(value, dict):
        raise DataError(f"{path}: expected one JSON object, got {type(value).__name__}.")
    return value


def _finite(value: object, where: str) -> float:
    # In Python True is an int, but it is no measured value.
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise DataError(
            f"{where}: expected a finite number, got {value!r}. Evaluate this job again, or remove this "
            "metric from every line of the file."
        )
    return float(value)
