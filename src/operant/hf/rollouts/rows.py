"""Rollouts as rows of a file: checked, verified, and turned into outcomes. Imports no transformers.

A row is stored in rollouts.jsonl: prompt (its id), target, completion, tokens (how many) and finished; then reward,
answer and failure from the verifier, and score from a reward model. A file of a user needs fewer and may have others:
text (what was asked), log_p, and extracted, the part of the completion that is verified if something has found it.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from rich.console import Console

from operant.core.checks import DataError, InputError
from operant.strategies import Outcomes, equivalence_classes
from operant.verify import Prompt, Verdict, clean_target, make_verifier

Row = dict[str, Any]
VerifyBatch = Callable[[Sequence[Prompt], Sequence[str]], Sequence[Verdict]]
"""A verifier at work, such as ``make_verifier`` returns."""
# Characters of an example on a page: some lines of a table.
_SHOWN = 300
_TEXT_OR_NUMBER = (str, int, float)


def _check_rollouts(rows: Sequence[Mapping[str, Any]]) -> None:
    """Refuse rollouts that cannot be verified or counted: each needs a prompt, and a reward or completion and target.

    Raises:
        DataError: naming the first one, what was expected, what came, and what to do.
    """
    for i, row in enumerate(rows):
        where = f"rollout {i + 1}"
        missing = {"prompt"} - row.keys()
        missing |= set() if "reward" in row else {"completion", "target"} - row.keys()
        if missing:
            raise DataError(f"{where}: expected {sorted(missing)} (or a reward), found {sorted(row)}.")
        failed = row.get("failure") or ""
        _expect(where, row, "failure", isinstance(failed, str), "a text")
        if "reward" in row and not (failed and row["reward"] is None):
            _expect(where, row, "reward", _finite(row["reward"]), "a finite number", "leave it out to have it verified")
        else:
            for name in ("completion", "extracted"):
                _expect(where, row, name, isinstance(row.get(name, ""), str), "a text")
        _expect(where, row, "prompt", _names(row["prompt"]), "a text or a number that names the prompt")
        answer, score, info = row.get("answer"), row.get("score"), row.get("info") or {}
        _expect(where, row, "answer", answer is None or _names(answer), "a text or a number", "leave it out")
        _expect(where, row, "score", score is None or _finite(score), "a finite number", "leave it out of all rollouts")
        _expect(where, row, "info", isinstance(info, Mapping), "a mapping of what the verifier needs")


def verified(rows: Sequence[Row], prompts: Sequence[Prompt], grade: VerifyBatch) -> list[Row]:
    """Rows with reward, answer and failure.

    Args:
        rows: with a completion.
        prompts: the prompt of every row.
        grade: the verifier.

    Raises:
        InputError: for another number of verdicts than rows.
    """
    verdicts = grade(prompts, [row.get("extracted", row["completion"]) for row in rows]) if rows else []
    if len(verdicts) != len(rows):
        raise InputError(f"expected one verdict a completion, got {len(verdicts)} for {len(rows)} completions.")
    return [{**row, **asdict(verdict)} for row, verdict in zip(rows, verdicts, strict=True)]


def verify_rows(rows: Sequence[Row], verifier: str, prompts: Sequence[Prompt] = ()) -> list[Row]:
    """Rows with reward, answer and failure where there was no reward; rows that have one keep it.

    Args:
        rows: rollouts with a prompt (its id), completion and target; with info where the verifier needs it.
        verifier: see ``make_verifier``.
        prompts: the prompts themselves, where they are known.

    Raises:
        DataError: for rows that lack something, naming the first.
    """
    _check_rollouts(rows)
    known = {p.id: p for p in prompts}
    # Rows of a user's file may hold a reward; those are not verified again.
    todo = {i: known.get(row["prompt"]) or _prompt(i, row) for i, row in enumerate(rows) if "reward" not in row}
    if not todo:
        return list(rows)
    with Console().status(f"verifying {len(todo)} completions"), make_verifier(verifier) as check:
        fresh = dict(zip(todo, verified([rows[i] for i in todo], list(todo.values()), check), strict=True))
    return [fresh.get(i, row) for i, row in enumerate(rows)]


def outcomes_of(rows: Sequence[Mapping[str, Any]]) -> tuple[list[Any], Outcomes]:
    """Prompt ids and (B, M) outcomes from verified rows; the reward of one that could not be verified is 0.

    Raises:
        DataError: if prompts have unequal numbers of rollouts, or only some rows have a score.
    """
    groups: dict[Any, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[row["prompt"]].append(row)
    sizes = Counter(len(group) for group in groups.values())
    if len(sizes) != 1:
        raise DataError(
            f"expected as many rollouts for every prompt, got {dict(sizes)} (rollouts: prompts). --per_prompt M takes "
            "the first M of each, and leaves out prompts with fewer."
        )
    scores = [[row.get("score") for row in group] for group in groups.values()]
    has_score = [score is not None for line in scores for score in line]
    if any(has_score) and not all(has_score):
        raise DataError("some rollouts have a score and some have none; give one to all or to none.")
    return list(groups), Outcomes(
        torch.tensor([[float(row["reward"] or 0.0) for row in g] for g in groups.values()], dtype=torch.float64),
        equivalence_classes([[row.get("answer") for row in g] for g in groups.values()]),
        torch.tensor(scores, dtype=torch.float64) if all(has_score) else None,
    )


def failed(rows: Sequence[Mapping[str, Any]]) -> Counter[str]:
    """How many rows could not be verified, by kind of failure."""
    return Counter(row["failure"] for row in rows if row.get("failure"))


def warnings_of(rows: Sequence[Mapping[str, Any]], limit: str) -> list[str]:
    """Warnings for the reader: most completions were cut, or some could not be verified.

    Args:
        rows: verified rows.
        limit: what cuts a completion, for the text.
    """
    known = [bool(row["finished"]) for row in rows if row.get("finished") is not None]
    cut = known.count(False)
    texts: list[str] = []
    if 2 * cut > len(known):  # then the curves measure lengths more than answers
        texts.append(
            f"{cut} of {len(known)} completions ({100 * cut / len(known):.0f} %) were cut at {limit} before they "
            "ended. An answer that comes later is not seen: raise the limit, or ask for a shorter answer."
        )
    return texts + failure_warnings(rows)


def failure_warnings(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """One warning for every kind of failure."""
    return [
        f"{count} of {len(rows)} completions could not be verified ({kind}); they count as wrong."
        for kind, count in failed(rows).items()
    ]


def examples(rows: Sequence[Row], prompts: Sequence[Prompt] = (), *, count: int = 2, answers: int = 4) -> list[Row]:
    """What a page shows of rollouts: the first prompts with the first of their completions, long texts cut.

    Args:
        rows: rollouts; those without a completion are left out.
        prompts: the prompts, where they are known; otherwise a row may have the ``text`` that was asked.
        count: of prompts.
        answers: of each.
    """
    known, found = {p.id: p for p in prompts}, dict[Any, Row]()
    for row in rows:
        if not isinstance(row.get("completion"), str) or (len(found) == count and row["prompt"] not in found):
            continue
        prompt = known.get(row["prompt"])
        about = {"text": prompt.text, "target": prompt.target} if prompt else {"text": _asked(row.get("text"))}
        target = row.get("target")
        about = {"target": target if isinstance(target, str) else "", **about}
        entry = found.setdefault(row["prompt"], {"prompt": row["prompt"], **about, "answers": []})
        if len(entry["answers"]) < answers:
            entry["answers"].append({"text": _short(row["completion"]), "reward": row.get("reward")})
    return [{**entry, "text": _short(entry["text"]), "target": _short(entry["target"])} for entry in found.values()]


def _asked(text: Any) -> str:
    """A text, or the last message of a conversation."""
    if isinstance(text, list) and text and isinstance(text[-1], Mapping):
        text = text[-1].get("content")
    return text if isinstance(text, str) else ""


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"


def _prompt(i: int, row: Row) -> Prompt:
    """The prompt of a rollout that stands in a file; its target is cleaned as in a prompt set."""
    target = clean_target(row["target"], f"rollout {i + 1}, target")
    return Prompt(row["prompt"], "", target, row.get("info") or {})


def _expect(where: str, row: Mapping[str, Any], name: str, fits: bool, what: str, advice: str = "mend it") -> None:
    if not fits:
        raise DataError(f"{where}: {name} must be {what}, got {row.get(name)!r:.60}. Give one, or {advice}.")


def _names(value: Any) -> bool:
    """Whether a value can name something: a list cannot, and NaN is not equal to itself."""
    return isinstance(value, _TEXT_OR_NUMBER) and value == value


def _finite(value: Any) -> bool:
    try:
        return isinstance(value, (int, float)) and math.isfinite(value)
    except OverflowError:  # an integer beyond all floats
        return False
