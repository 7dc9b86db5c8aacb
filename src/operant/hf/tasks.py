"""Prompt sets: from JSON lines, from the Hub, or the embedded multiplication table."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from operant.core.checks import DataError
from operant.core.record import read_records
from operant.core.rng import child_seed

EMBEDDED = "embedded"


@dataclass(frozen=True)
class Prompt:
    """One prompt and the short answer that is correct for it."""

    id: int
    text: str
    target: str


@dataclass(frozen=True)
class DataConfig:
    """Where prompts and answers come from.

    Args:
        train: a JSON lines file, a Hub data set id, or "embedded" (two-digit multiplication).
        test: held-out prompts, likewise. Default: ``holdout`` prompts are set aside from ``train``.
        prompt: column that holds the prompt.
        target: column that holds the correct answer.
        target_pattern: regular expression with one group that finds the short answer in the target column, for
            example '#### (.+)' for GSM8K. Default: the whole column is the answer.
        template: how a prompt is put to the model; {prompt} is replaced.
        chat: whether to apply the tokenizer's chat template. Default: if it has one.
        subset: configuration of a Hub data set, for example main for openai/gsm8k.
        train_split: Hub split to train on.
        test_split: Hub split for ``test``.
        train_limit: use this many training prompts, drawn with the data seed.
        test_limit: use this many held-out prompts, drawn with the data seed.
        holdout: prompts set aside where there is no ``test``.
        seed: seed of these choices. The same for every training seed, so that runs are compared on the same
            prompts.
    """

    train: str = EMBEDDED
    test: str = ""
    prompt: str = "prompt"
    target: str = "target"
    target_pattern: str = ""
    template: str = "{prompt}"
    chat: bool | None = None
    subset: str = ""
    train_split: str = "train"
    test_split: str = "test"
    train_limit: int | None = None
    test_limit: int | None = None
    holdout: int = 200
    seed: int = 0


def load_prompts(config: DataConfig) -> tuple[list[Prompt], list[Prompt]]:
    """Training prompts and held-out prompts; no prompt text is in both.

    Raises:
        DataError: for a missing file or column, an empty answer, a pattern that does not match, or a prompt
            that stands in the training set and in the test set.
    """
    if "{prompt}" not in config.template:
        raise DataError(f"data.template must contain {{prompt}}, got {config.template!r}.")
    if config.train == EMBEDDED:
        train, test = multiplication(config.seed)
    else:
        train = _read(config.train, config.train_split, config)
        test = _read(config.test, config.test_split, config) if config.test else []
        if not test:
            random.Random(child_seed(config.seed, "holdout")).shuffle(train)
            if len(train) <= config.holdout:
                raise DataError(
                    f"{config.train} has {len(train)} prompts, and {config.holdout} are to be held out. Set "
                    "data.test, or lower data.holdout."
                )
            train, test = train[config.holdout :], train[: config.holdout]
    train = _limit(train, config.train_limit, config.seed, "train")
    test = _limit(test, config.test_limit, config.seed, "test")
    shared = {p.text for p in train} & {p.text for p in test}
    if shared:
        raise DataError(
            f"{len(shared)} prompts are both trained on and held out, for example {min(shared)!r}. Remove "
            "them from one of the two."
        )
    return train, test


def multiplication(seed: int) -> tuple[list[Prompt], list[Prompt]]:
    """The embedded prompt set: two-digit products, 3,000 to train on and 1,500 held out of 8,100."""
    pairs = [(a, b) for a in range(10, 100) for b in range(10, 100)]
    random.Random(child_seed(seed, "multiplication")).shuffle(pairs)
    prompts = [Prompt(i, f"{a}*{b}=", str(a * b)) for i, (a, b) in enumerate(pairs[:4500])]
    return prompts[:3000], prompts[3000:]


def _read(source: str, split: str, config: DataConfig) -> list[Prompt]:
    rows: Iterable[dict[str, Any]]
    if Path(source).is_file():
        rows = read_records(Path(source))
    elif source.endswith((".jsonl", ".json")):
        raise DataError(f"expected a JSON lines file at {source}, found none.")
    else:
        from datasets import load_dataset  # the Hub is reached only when it is asked for

        rows = load_dataset(source, config.subset or None, split=split)  # pyright: ignore[reportAssignmentType]
    prompts = [_prompt(i, row, source, config) for i, row in enumerate(rows)]
    if not prompts:
        raise DataError(f"{source} holds no prompts.")
    return prompts


def _prompt(i: int, row: dict[str, Any], source: str, config: DataConfig) -> Prompt:
    where = f"{source}, row {i + 1}"
    for column in (config.prompt, config.target):
        if row.get(column) is None:
            raise DataError(
                f"{where}: expected a column {column!r}, found {sorted(row)}. Set data.prompt and data.target."
            )
    text, target = str(row[config.prompt]), str(row[config.target])
    if config.target_pattern:
        match = re.search(config.target_pattern, target)
        if match is None or not match.groups():
            raise DataError(
                f"{where}: data.target_pattern {config.target_pattern!r} finds no group in {target[-80:]!r}."
            )
        target = match.group(1)
    target = target.strip()
    if not text.strip() or not target:
        raise DataError(f"{where}: expected a prompt and an answer, got {text[:40]!r} and {target[:40]!r}.")
    return Prompt(i, text, target)


def _limit(prompts: list[Prompt], limit: int | None, seed: int, name: str) -> list[Prompt]:
    if limit is None or limit >= len(prompts):
        return prompts
    return random.Random(child_seed(seed, "limit", name)).sample(prompts, limit)
