"""``operant evaluate``: sample rollouts (or read them), verify the answers, and print the curves with error bars."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from rich.console import Console
from rich.markup import escape
from torch import Tensor

from operant.core.checks import BudgetError, ConfigError, DataError, InputError, check_int
from operant.core.progress import track
from operant.core.record import append_record, claim_folder, extend_records, read_records, write_records
from operant.hf.config import EvaluateConfig, config_dict, current_names
from operant.hf.folder import Column, pass_at, quiet, summary, write_job, write_prompts
from operant.hf.rollouts.families import StrategyFamily, families_of
from operant.hf.rollouts.formats.read import answered, check_answered, read_rollouts, with_answers
from operant.hf.rollouts.prompts import EMBEDDED, DataConfig, load_prompts, read_prompts
from operant.hf.rollouts.rows import Row, examples, outcomes_of, verify_rows, warnings_of
from operant.strategies import (
    AllOf,
    BestOf,
    Majority,
    Outcomes,
    PassAt,
    Sampler,
    Strategy,
    parse,
)
from operant.verify import Prompt, make_verifier

if TYPE_CHECKING:  # reading a file of rollouts needs neither
    from operant.hf.rollouts.policy import Policy
    from operant.hf.rollouts.rewardmodel import RewardModel

LOOSE = ("resume", "endpoint", "concurrency", "timeout", "retries")
"""Settings that a resumed run may change: where the server is and how it is asked are not what is sampled."""
# Families that have a name of their own; others are named by a member.
_SHORT = {"pass": PassAt(1), "maj": Majority(1), "best": BestOf(1), "pass^": AllOf(1)}


class Models:
    """The model and the reward model of an evaluation, loaded when they are first used.

    Args:
        config: names them.
        kept: whether the model stays in memory once it is sampled. A sweep, which needs it again, loads it once.
    """

    def __init__(self, config: EvaluateConfig, *, kept: bool = False) -> None:
        self.config, self.kept = config, kept

    @cached_property
    def policy(self) -> Policy:
        """The model that is sampled."""
        from operant.hf.rollouts.policy import load_policy

        return load_policy(self.config.model, seed=self.config.seed)

    @cached_property
    def reward(self) -> RewardModel:
        """The model that scores."""
        from operant.hf.rollouts.rewardmodel import RewardModel

        return RewardModel(self.config.reward_model, torch.device("cuda" if torch.cuda.is_available() else "cpu"))


def evaluate(config: EvaluateConfig, models: Models | None = None) -> Path:
    """Evaluate, write rollouts.jsonl, prompts.jsonl and record.jsonl, and return the folder.

    Args:
        config: the settings.
        models: those of an evaluation of the same model. Default: they are loaded.

    Raises:
        DataError: for a folder in use, unreadable rollouts, or unequal numbers of rollouts.
        InputError, BudgetError: for settings that cannot work, before anything is sampled.
    """
    if isinstance(config.temperature, list):
        raise InputError("several temperatures are several evaluations: give one here.")
    sampler = Sampler(config.temperature, config.top_p)
    for name in ("rollouts", "max_new_tokens", "batch_size", "max_tokens", "concurrency"):
        check_int(name, getattr(config, name), least=1)
    strategies = [_SHORT.get(text) or parse(text) for text in config.families]
    if config.rollouts_file is None and max(config.budgets or [1]) > config.rollouts:
        raise BudgetError(
            f"budgets up to {max(config.budgets or [1])} need as many rollouts a prompt, got {config.rollouts}. Raise "
            "rollouts, or lower budgets."
        )
    if config.endpoint and config.rollouts_file is not None:
        raise ConfigError("rollouts are sampled from an endpoint or read from rollouts_file: leave one of them out.")
    if config.endpoint and config.model == EMBEDDED:
        raise ConfigError(f"set model to the name by which the server at {config.endpoint} knows its model.")
    quiet()
    prompts = [] if config.rollouts_file is not None else load_prompts(config.data)[1]
    if config.verifier != "exact" and prompts:
        make_verifier(config.verifier).close()  # one that does not load is refused before anything is sampled
    settings = config_dict(config)
    with claim_folder(
        config.output_dir,
        "evaluate",
        settings,
        resume=config.resume,
        loose=LOOSE,
        outputs=("job.json",),
        current=lambda before: config_dict(EvaluateConfig()) | current_names(before),
    ):
        if (config.output_dir / "prompts.jsonl").is_file():
            text = f"{config.output_dir} is finished: nothing is left to do. Another --output_dir evaluates anew."
            Console().print(text, soft_wrap=True)
        else:
            _evaluate(config, sampler, strategies, prompts, models or Models(config))
        # rollouts.jsonl holds the same rows, with their verdicts.
        (config.output_dir / "sampling.jsonl").unlink(missing_ok=True)
    return config.output_dir


def _evaluate(
    config: EvaluateConfig, sampler: Sampler, strategies: Sequence[Strategy], prompts: Sequence[Prompt], models: Models
) -> None:
    folder, exact, chat = config.output_dir, None, False
    record = folder / "record.jsonl"
    write_records(record, [r for r in read_records(record) if r["kind"] in ("run", "environment")])  # results anew
    name = config.model if config.rollouts_file is None else config.rollouts_file.name
    write_job(folder, seed=config.seed, branch=name, role="evaluation", strategy=None)
    if config.rollouts_file is not None:
        rows, prompts = _from_file(config, config.rollouts_file)
    elif config.endpoint:
        rows, warned, chat = _served(config, sampler, folder, prompts)
        _warn(record, warned)
    else:
        rows, exact, chat = _sample(config, models.policy, sampler, folder, prompts)
        if not models.kept:
            del models.policy  # the reward model may need its memory
    rows = verify_rows(rows, config.verifier, prompts)
    if config.reward_model:
        rows = _with_scores(rows, models.reward, _asked(rows, prompts, chat=chat))
    write_records(folder / "rollouts.jsonl", rows)
    cut_at = "their limit" if config.rollouts_file is not None else f"max_new_tokens = {config.max_new_tokens}"
    _warn(record, warnings_of(rows, cut_at))
    extend_records(record, [{"kind": "example", **entry} for entry in examples(rows, prompts)])
    ids, outcomes = outcomes_of(rows)
    _write_curves(folder, config, strategies, ids, outcomes, exact)


def _from_file(config: EvaluateConfig, path: Path) -> tuple[list[Row], list[Prompt]]:
    """The rollouts of a file, and the prompts that they answer if the file has neither rewards nor answers."""
    read = read_rollouts(path, config)
    Console().print(read.said, soft_wrap=True, markup=False, highlight=False)
    if config.data != DataConfig() and (config.reward_model or not answered(read.rows)):
        return with_answers(read.rows, path, read_prompts(config.data))
    check_answered(read.rows, path)
    return read.rows, []


def _warn(record: Path, texts: Sequence[str]) -> None:
    for text in texts:
        append_record(record, "warning", text=text)
        Console().print(f"[bold yellow]warning[/] {escape(text)}")


def _served(
    config: EvaluateConfig, sampler: Sampler, folder: Path, prompts: Sequence[Prompt]
) -> tuple[list[Row], list[str], bool]:
    """Sample from a server, answer by answer into sampling.jsonl; a conversation is asked unless data.chat is false."""
    from operant.hf.rollouts.endpoint.client import Server
    from operant.hf.rollouts.endpoint.collect import served
    from operant.hf.rollouts.sampling import RolloutSettings

    chat = config.data.chat is not False
    settings = RolloutSettings(config.rollouts, config.max_new_tokens, config.batch_size, config.seed, sampler)
    server = Server(config.endpoint, config.model, settings, chat, config.timeout, config.retries)
    rows, warned = served(server, prompts, folder / "sampling.jsonl", config.concurrency)
    return rows, warned, chat


def _sample(
    config: EvaluateConfig, policy: Policy, sampler: Sampler, folder: Path, prompts: Sequence[Prompt]
) -> tuple[list[Row], Tensor | None, bool]:
    """Sample, chunk by chunk into sampling.jsonl; a chunk that is there already is not sampled again."""
    from operant.hf.rollouts.chat import is_chat
    from operant.hf.rollouts.collect import sampled
    from operant.hf.rollouts.logprobs import answer_log_probs
    from operant.hf.rollouts.policy import encode
    from operant.hf.rollouts.sampling import RolloutSettings

    encoded = encode(policy, prompts, config.data, config.max_tokens)
    partial = folder / "sampling.jsonl"
    stored = [r for r in read_records(partial) if r["kind"] == "chunk"] if partial.is_file() else []
    rows = [row for chunk in stored for row in chunk["rows"]]
    settings = RolloutSettings(config.rollouts, config.max_new_tokens, config.batch_size, config.seed, sampler)
    chunks = sampled(policy, prompts, encoded, settings, start=len(stored))
    count = -(-len(encoded) // config.batch_size) - len(stored)
    for new in track(chunks, "sampling", total=count):
        append_record(partial, "chunk", rows=new)
        rows += new
    exact = None
    # Without an answer there is no string whose probability could be computed.
    if config.exact and all(p.target for p in prompts):
        exact = answer_log_probs(policy, encoded, batch_size=32, sampler=sampler)
    return rows, exact, is_chat(policy.tokenizer, config.data)


def _with_scores(rows: list[Row], model: RewardModel, questions: Sequence[Any]) -> list[Row]:
    """Add the reward model's score to every rollout, given the text or the conversation that it answers."""
    from operant.hf.rollouts.collect import scored

    return scored(rows, questions, model)


def _asked(rows: Sequence[Row], prompts: Sequence[Prompt], *, chat: bool) -> list[Any]:
    """What each rollout answers: its prompt, or the text or conversation that stands in a file of rollouts."""
    from operant.hf.rollouts.chat import asked

    known = dict(zip((p.id for p in prompts), asked(prompts, chat=chat), strict=True))
    found = [known.get(row["prompt"], row.get("text")) for row in rows]
    kinds = {type(text) for text in found}
    for i, (row, text) in enumerate(zip(rows, found, strict=True)):
        if not isinstance(text, (str, list)) or not isinstance(row.get("completion"), str) or len(kinds) > 1:
            raise DataError(
                f"rollout {i + 1}: reward_model scores a text (the prompt's) and a completion, found {sorted(row)}. "
                "Add them, the texts all as texts or all as conversations, or give each rollout a score and leave "
                "reward_model out."
            )
    return found


def _write_curves(
    folder: Path,
    config: EvaluateConfig,
    strategies: Sequence[Strategy],
    ids: list[Any],
    outcomes: Outcomes,
    exact: Tensor | None,
) -> None:
    """The curves of all families, per prompt and averaged."""
    m = outcomes.m
    budgets = config.budgets or [2**i for i in range(m.bit_length())]
    columns: dict[str, Column] = {}
    for family in _families(strategies, budgets, outcomes):
        columns |= family.columns(outcomes)
    if exact is not None:
        columns |= pass_at(exact, budgets, prefix="exact ")
    curves = summary(columns)
    append_record(folder / "record.jsonl", "evaluation", step=0, prompts=len(ids), rollouts=m, curve=curves)
    append_record(folder / "record.jsonl", "done", step=0)
    write_prompts(folder, ids, columns)


def _families(strategies: Sequence[Strategy], budgets: list[int], outcomes: Outcomes) -> list[StrategyFamily]:
    """The families that these rollouts allow; what is left out is said."""
    votes = outcomes.answer is not None and bool((outcomes.answer >= 0).any())
    kept: list[Strategy] = []
    for s in strategies:
        name = s.family
        if s.traits.binary and not outcomes.binary:
            Console().print(f"{name} is left out: it counts successes, and rewards are not 0 or 1.")
        elif s.traits.answers and not votes:
            Console().print(f"{name} is left out: no rollout has an answer to vote for.")
        else:
            kept.append(s)
    return families_of(outcomes, kept, budgets) if kept else []
