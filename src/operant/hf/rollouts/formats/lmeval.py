"""``samples_TASK_DATE.jsonl`` of lm-evaluation-harness (``--log_samples``): a row a document and a filter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from operant.core.checks import DataError
from operant.hf.rollouts.formats.base import VERIFY, Format, Reading, numeric, picked, reward_of
from operant.hf.rollouts.formats.settings import ReadConfig
from operant.hf.rollouts.rows import Row

_NO_METRIC = (
    *("doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "filter", "metrics"),
    *("doc_hash", "prompt_hash", "target_hash"),
)
_NO_FILTER = "none"
"""How lm-eval names the filter of a task that has none."""
_NO_ANSWER = "[invalid]"
"""What its regex filters give where they find nothing."""
_SHARE = "pass@1"
"""The metric of code tasks: the share of the repeats that pass."""


def _read(rows: Sequence[Row], config: ReadConfig) -> Reading:
    filters = list(dict.fromkeys(str(row.get("filter", _NO_FILTER)) for row in rows))
    chosen, said_filter = picked("filter", config.filter, filters, filters[0])
    kept = [(i, row) for i, row in enumerate(rows, 1) if row.get("filter", _NO_FILTER) == chosen]
    first = kept[0][1]
    there = first.get("metrics") or [k for k, v in first.items() if k not in _NO_METRIC and numeric(v)]
    metric, said = picked("metric", config.metric, [*there, VERIFY], (there or [VERIFY])[0])
    _check_one_task(kept)
    read = [new for i, row in kept for new in _samples(row, f"row {i}", metric, chosen != _NO_FILTER)]
    parts = [said] if filters == [_NO_FILTER] else [said_filter, said]
    if metric != VERIFY and any("reward" not in row for row in read):
        parts.append(f"{metric} is one number a prompt, so the samples are verified")
    return Reading(read, tuple(parts))


def _check_one_task(kept: Sequence[tuple[int, Row]]) -> None:
    """Documents are numbered in each task: two tasks in one file would be mixed up."""
    known: dict[Any, Any] = {}
    for i, row in kept:
        if known.setdefault(row["doc_id"], row.get("doc_hash")) != row.get("doc_hash"):
            raise DataError(f"row {i}: doc_id {row['doc_id']} is another document than before. Give one task a file.")


def _samples(row: Row, where: str, metric: str, filtered: bool) -> list[Row]:
    """The rollouts of a document. lm-eval has ``repeats`` responses a request, and one metric for all of them."""
    texts = _responses(row, where)
    about = {"prompt": row["doc_id"], **_asked(row)}
    if isinstance(row.get("target"), (str, int, float)):
        about["target"] = row["target"]
    found = [{**about, "completion": text} for text in texts]
    answers = _answers(row, len(texts)) if filtered else None
    rewards = None if metric == VERIFY else _rewards(row.get(metric), len(texts), where, metric)
    if rewards is not None and metric == _SHARE and len(texts) > 1:
        # Which of them pass is not known, so no completion is given a reward that might be another one's.
        return [{**about, "reward": reward} for reward in rewards]
    if rewards is not None:
        found = [{**new, "reward": reward} for new, reward in zip(found, rewards, strict=True)]
    if answers is not None:
        name = "extracted" if rewards is None else "answer"
        found = [{**new, name: answer} for new, answer in zip(found, answers, strict=True)]
        found = [{**new, "answer": None} if new.get("answer") == _NO_ANSWER else new for new in found]
    return found


def _responses(row: Row, where: str) -> list[str]:
    requests = row["resps"]
    if isinstance(requests, list) and len(requests) == 1:
        texts: Any = requests[0]
        if isinstance(texts, list) and texts and all(isinstance(text, str) for text in texts):
            return texts
    raise DataError(
        f"{where}: expected resps [[text, text, ...]], the generated texts of one request, got {requests!r:.80}. Tasks "
        "of log-likelihoods (multiple_choice) sample nothing; take a task of output_type generate_until."
    )


def _answers(row: Row, m: int) -> list[str] | None:
    """What the filter extracted of each sample; None if it kept one of several, as take_first and majority_vote do."""
    kept = row["filtered_resps"]
    if isinstance(kept, list) and len(kept) == 1:
        texts: Any = kept[0] if isinstance(kept[0], list) else kept
        if len(texts) == m and all(isinstance(text, str) for text in texts):
            return texts
    return None


def _rewards(value: Any, m: int, where: str, metric: str) -> list[float] | None:
    """A reward for each of M samples; None where one number stands for all of them."""
    if isinstance(value, list) and len(value) == m:
        return [reward_of(v, where, metric) for v in value]
    one = reward_of(value, where, metric)
    if m == 1:
        return [one]
    passed = round(one * m)
    if metric == _SHARE and abs(one * m - passed) < 1e-6 * m and 0 <= passed <= m:
        return [1.0] * passed + [0.0] * (m - passed)
    return None


def _asked(row: Mapping[str, Any]) -> dict[str, Any]:
    """The text of the request, where it stands in its place."""
    request = (row.get("arguments") or {}).get("gen_args_0") if isinstance(row.get("arguments"), dict) else None
    text = request.get("arg_0") if isinstance(request, dict) else None
    return {"text": text} if isinstance(text, str) else {}


LM_EVAL = Format("lm-eval", "lm-evaluation-harness", ("doc_id", "resps", "filtered_resps"), _read)
