"""The evaluation of a training job on its held-out prompts: exact, or from sampled and verified rollouts.

Under a launcher every process evaluates an equal number of prompts, because a sharded model computes only when all
processes do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast_object_list, gather_object
from torch import Tensor

from operant.core.checks import ConfigError
from operant.core.record import read_records
from operant.core.rng import child_seed
from operant.hf.config import TrainConfig
from operant.hf.folder import Column, exact_columns
from operant.hf.rollouts.chat import is_chat
from operant.hf.rollouts.collect import Collector, sampled
from operant.hf.rollouts.families import families_of
from operant.hf.rollouts.logprobs import log_probs_under
from operant.hf.rollouts.policy import Encoded, Policy
from operant.hf.rollouts.rows import Row, examples, outcomes_of, warnings_of
from operant.hf.rollouts.sampling import RolloutSettings
from operant.hf.train.choice.tuned import exact_metrics
from operant.hf.workers import is_main, rank, world_size
from operant.strategies import AllOf, Outcomes, Sampler, parse
from operant.verify import Check, Prompt, make_verifier

_NEVER = -1e30
"""Log-probability of an answer that the nucleus leaves out: JSON has no infinity, and exp of it is 0."""


@dataclass(frozen=True)
class Result:
    """Metrics of every prompt, metric -> column (B,), further columns, warnings, and temperature -> log p (B,)."""

    columns: Mapping[str, Column]
    extra: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])
    warnings: Sequence[str] = ()
    by_temperature: Mapping[float, Tensor] = field(default_factory=dict[float, Tensor])


class Evaluator:
    """Evaluates the model of a job when it is called.

    Args:
        config: budgets, sampler, eval_rollouts, verifier.
        policy: the model.
        prompts: held-out prompts.
        rows: the same prompts as tokens.
        temperatures: at which an exact evaluation gives the log-probabilities as well.
    """

    def __init__(
        self,
        config: TrainConfig,
        policy: Policy,
        prompts: Sequence[Prompt],
        rows: Sequence[Encoded],
        temperatures: Sequence[float] = (),
    ) -> None:
        self.config, self.policy, self.prompts, self.rows = config, policy, prompts, rows
        self.temperatures = tuple(temperatures)
        self._model: Callable[[], Any] = lambda: policy.model
        self._check: Check | None = None
        self._scorer: Any = None
        self._sampled: list[Row] | None = None
        self._whole = True

    def follow(self, trainer: Any) -> None:
        """Evaluate the trainer's model from now on, which FSDP and DeepSpeed shard.

        Raises:
            ConfigError: if a sharded model would have to sample, or FSDP would save it in shards.
        """
        fsdp = getattr(trainer.accelerator.state, "fsdp_plugin", None)
        if fsdp is None and not trainer.is_deepspeed_enabled:
            return
        if self.config.eval_rollouts:
            raise ConfigError(
                "eval_rollouts needs a whole model, but FSDP or DeepSpeed shards it. Set eval_rollouts to 0, and run "
                "operant evaluate on the saved model."
            )
        if fsdp is not None and "FULL_STATE_DICT" not in str(fsdp.state_dict_type):
            raise ConfigError(
                f"FSDP would save this model in shards ({fsdp.state_dict_type}), and no branch can start from them. "
                "Set fsdp_state_dict_type: FULL_STATE_DICT in the configuration of accelerate."
            )
        self._model, self._whole = (lambda: trainer.model_wrapped), False

    def __call__(self) -> Result:
        """Every metric of every held-out prompt, the same on all processes."""
        policy = replace(self.policy, model=self._model())
        if not self.config.eval_rollouts:
            log_p, *others = self._exact(policy)
            columns = exact_columns(log_p, exact_metrics(self.config))
            return Result(columns, {"log_p": log_p}, by_temperature=dict(zip(self.temperatures, others, strict=True)))
        rows = self._sampled = self._collector()(policy, self.prompts, self.rows)
        warnings = warnings_of(rows, f"max_completion_length = {self.config.max_completion_length}")
        return Result(sampled_columns(self.config, outcomes_of(rows)[1]), warnings=warnings)

    def examples(self) -> list[Row]:
        """Two held-out prompts with answers: those of the last evaluation or, where it was exact, sampled now.

        A sharded model does not sample, so it has none.
        """
        if self._sampled is not None:
            return examples(self._sampled, self.prompts)
        few = self.rows[:2]
        if not self._whole or not few:
            return []
        # A model that does not end its answer is not followed far: the room is twice that of the right ones.
        room = 2 * max(len(r.target) for r in few) + 4
        settings = RolloutSettings(4, room, len(few), child_seed(self.config.data.seed, "examples", 0), self._sampler())
        (rows,) = sampled(self.policy, self.prompts[: len(few)], few, settings)
        right = [float(r["completion"].strip() == r["target"].strip()) for r in rows]
        return examples([r | {"reward": x} for r, x in zip(rows, right, strict=True)], self.prompts)

    def _shares(self) -> list[list[int]]:
        """Prompt indices of every process, equally many; the last ones repeat the first prompts."""
        count, ranks = len(self.rows), world_size()
        return [[i % count for i in range(r, r + -(-count // ranks) * ranks, ranks)] for r in range(ranks)]

    def _gathered(self, values: list[Any]) -> list[Any]:
        """One value a prompt, from those of this process's share."""
        order = [i for share in self._shares() for i in share]
        everywhere = gather_object(values) if world_size() > 1 else values
        found = dict(zip(order, everywhere, strict=True))
        return [found[i] for i in range(len(self.rows))]

    def _sampler(self) -> Sampler:
        return Sampler(self.config.temperature, self.config.top_p)

    def _exact(self, policy: Policy) -> Tensor:
        """(1 + temperatures, B) log-probabilities, under the deployed sampler first."""
        mine = [self.rows[i] for i in self._shares()[rank()]]
        samplers = [self._sampler(), *(Sampler(t, self.config.top_p) for t in self.temperatures)]
        log_p = log_probs_under(policy, mine, samplers, batch_size=self.config.eval_batch_size)
        return torch.tensor(self._gathered(log_p.T.tolist()), dtype=torch.float64).T.clamp(min=_NEVER)

    def _collector(self) -> Collector:
        """M rollouts of every prompt, verified and scored; workers and reward model live as long as this object."""
        config = self.config
        if config.verifier:
            self._check = self._check or make_verifier(config.verifier)
        if config.reward_model and self._scorer is None:
            from operant.hf.rollouts.rewardmodel import RewardModel

            self._scorer = RewardModel(config.reward_model, self.policy.device)
        settings = RolloutSettings(
            rollouts=config.eval_rollouts,
            max_new_tokens=config.max_completion_length or 1,
            batch_size=max(1, config.eval_batch_size // config.eval_rollouts),
            seed=child_seed(config.data.seed, "evaluation", 0),
            sampler=self._sampler(),
        )
        chat = is_chat(self.policy.tokenizer, config.data)
        return Collector(settings, self._check, self._scorer, chat)


def recorded(folder: Path) -> Result | None:
    """What the job in a folder measured last, the same on all processes; None if it is not done."""
    found: list[Any] = [None]
    if is_main() and (folder / "prompts.jsonl").is_file():
        rows = read_records(folder / "prompts.jsonl")
        curve = [r["curve"] for r in read_records(folder / "record.jsonl") if r["kind"] == "evaluation"][-1]
        values = {name: torch.tensor([r["values"][name] for r in rows], dtype=torch.float64) for name in curve}
        columns = {name: Column(point["family"], point["n"], values[name]) for name, point in curve.items()}
        extra = {"log_p": torch.tensor([r["log_p"] for r in rows], dtype=torch.float64)} if "log_p" in rows[0] else {}
        found = [Result(columns, extra)]
    if world_size() > 1:
        broadcast_object_list(found)
    return found[0]


def sampled_columns(config: TrainConfig, outcomes: Outcomes) -> dict[str, Column]:
    """Curves of pass, maj and best, as far as the rollouts allow, and of every strategy of the run with its own N."""
    m = outcomes.m
    budgets = [k for k in config.budgets if k <= m]
    columns: dict[str, Column] = {}
    for family in families_of(outcomes, None, budgets):
        if not isinstance(family.strategy, AllOf):
            columns |= family.columns(outcomes)
    for s in map(parse, config.strategies):
        (family,) = families_of(outcomes, [s], [*budgets, s.n] if s.n <= m else budgets)
        columns = {**family.columns(outcomes), **columns}
    return columns
