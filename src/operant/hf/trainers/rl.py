"""TRL's GRPO and RLOO trainers, with the exact credit of a test-time strategy as the advantage.

Generation, rewards, vLLM, the reference model, clipping and the loss are TRL's. The rewards of all processes, with the
answers and scores of the same rollouts, give the weights w of every group. Rollout i has the advantage M w_i, so that
the loss averages over rollouts and ascends the value V of the strategy:

    E (1/M) sum_i A_i grad log pi(y_i) = grad E V(N rollouts),        A_i = M w_i.

pass@1 is RLOO's r_i - mean of the others; with ``center="mean"`` it is Dr. GRPO's r_i - mean, bit for bit.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import trl
from accelerate.utils import gather_object
from packaging.version import Version
from torch import Tensor
from trl import GRPOTrainer, RLOOTrainer  # pyright: ignore[reportPrivateImportUsage]

from operant.core.checks import ConfigError
from operant.estimators.transform import Transform
from operant.hf.rollouts.logprobs import completion_log_probs
from operant.hf.trainers.off_policy import refresh
from operant.hf.trainers.order import PromptOrder
from operant.hf.trainers.resample import resample
from operant.hf.trainers.rewards import reporting, without_answers
from operant.hf.trainers.rl_batch import Batch, published_groups
from operant.hf.trainers.rl_settings import (
    AlignedGRPOConfig,
    AlignedRLOOConfig,
    check_settings,
    published_recipe,
    schedule_of,
)
from operant.hf.trainers.sft_settings import default_folder
from operant.hf.trainers.trl_compat import check_attributes, check_methods, check_output
from operant.objectives.groups import EXACT, Advantages, advantage, check_group, substitute
from operant.objectives.rl import warn_of_dead_groups
from operant.published.paper import Quantiles, Recipe
from operant.strategies import Outcomes, Sampler, Strategy, equivalence_classes, estimate

_LOGGER = logging.getLogger(__name__)
_Trainer: Any = object
"""The type checker's view of the mixin's base: every attribute of TRL's trainers."""


class AlignedMixin(_Trainer):
    """What both trainers override: the mixin keeps the gathered rewards and replaces the advantages."""

    _tag_names = ["operant", "compute-aligned-training"]
    _paper = {  # noqa: RUF012
        "title": "Compute Aligned Training: Optimizing for Test Time Inference",
        "id": "2604.24957",
    }

    def __init__(self, model: Any, reward_funcs: Any = None, args: Any = None, **kwargs: Any) -> None:
        is_rloo = isinstance(self, RLOOTrainer)  # pyright: ignore[reportUnnecessaryIsInstance]
        config = AlignedRLOOConfig if is_rloo else AlignedGRPOConfig
        if args is None:
            args = config(default_folder(model, "RLOO" if is_rloo else "GRPO"))
        if not isinstance(args, config):
            raise ConfigError(
                f"args must be an {config.__name__}, which has the strategy, got {type(args).__name__}. It takes every "
                f"field of TRL's class: use {config.__name__}(strategy=..., ...) instead."
            )
        mro = type(self).__mro__
        check_methods(mro[mro.index(AlignedMixin) + 1])
        check_settings(args)
        self.schedule = schedule_of(args)
        self._recipe = published_recipe(args, self.schedule.at(0))
        instead = substitute(args.form)
        self._instead = None if isinstance(instead, Recipe) else instead
        self._transform = Transform.parse(args.transform) if args.transform else None
        history = 0 if self._recipe is None else self._recipe.history
        self._quantiles = Quantiles(history) if history else None
        self._batch: Batch | None = None
        # TRL's _generate_and_score_completions returns neither the rewards nor what the reward functions return. They
        # pass through these two, and _scored, the only reader, takes them right after that call.
        self._rewards = torch.empty(0)
        self._answers: list[str | None] = []
        super().__init__(model=model, reward_funcs=reward_funcs, args=args, **kwargs)
        check_attributes(self)
        self.add_callback(PromptOrder())
        self._equivalent = self._collect_answers()
        self._score_column = None
        if args.score_func is not None:
            if args.score_func not in self.reward_func_names:
                names = ", ".join(self.reward_func_names)
                raise ConfigError(f"score_func must name a reward function, one of {names}; got {args.score_func!r}.")
            self._score_column = self.reward_func_names.index(args.score_func)
        self._check_strategies()

    @property
    def strategy(self) -> Strategy:
        """The strategy of the current step."""
        return self.schedule.at(self.state.global_step)

    def _collect_answers(self) -> Callable[[Any, Any], bool] | None:
        """Receive the answers of the first reward function that gives any, and return its equivalence (or None)."""

        def keep(rewards: list[Any]) -> None:
            self._answers = [getattr(reward, "answer", None) for reward in rewards]

        for i, function in enumerate(self.reward_funcs):
            if (equivalent := getattr(function, "equivalent", None)) is not None:  # the old list is the caller's
                self.reward_funcs = [*self.reward_funcs[:i], reporting(function, keep), *self.reward_funcs[i + 1 :]]
                return equivalent
        self.reward_funcs = without_answers(self.reward_funcs)
        return None

    def _check_strategies(self) -> None:
        """Compute every strategy's advantages once, of blank rollouts: what is missing is an error before training."""
        m = self.num_generations
        blank = torch.zeros(1, m, dtype=torch.float64)
        answer = None if self._equivalent is None else blank.long()
        score = None if self._score_column is None else blank
        for strategy in self.schedule.strategies:
            spare = self.args.off_policy or self._transform is not None
            check_group(strategy, m, substitute(self.args.form), spare=spare)
            if self._recipe is not None:
                scratch = None if self._quantiles is None else Quantiles(self._quantiles.length)
                self._recipe.weights(strategy, Outcomes(blank, answer, score), log_p=blank - 1, quantiles=scratch)
            else:
                self._advantage(strategy, blank, answer, score)
            if self.args.form == EXACT:
                warn_of_dead_groups(strategy, m)

    def _calculate_rewards(self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any) -> Tensor:
        """Keep the rewards of all processes."""
        rewards: Tensor = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)  # pyright: ignore
        rewards[rewards.isinf().any(1)] = torch.nan  # unscored for TRL too: inf - inf would reach its statistics
        self._rewards = rewards
        return rewards

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """TRL's rollouts with the advantages of the strategy."""
        out, batch = self._scored(inputs)
        if not self.model.training:
            return out
        self._report(batch, self._metrics["train"])
        for turn in range(self.args.resample_dead):
            if not bool(batch.groups.dead.any()):
                break
            batch = resample(self, out, batch, turn)
        if self.args.resample_dead:
            self._metrics["train"]["dead_groups_left"].append(batch.groups.dead.double().mean().item())
        if self.args.off_policy:
            out["rollout"] = torch.arange(len(out["advantages"]), device=out["advantages"].device)
            self._batch = batch
        return out

    def _scored(self, inputs: list[dict[str, Any]]) -> tuple[dict[str, Any], Batch]:
        """Generate and score once: this process's rows, and the rollouts of all processes."""
        self._rewards = torch.empty(0)
        out: dict[str, Any] = super()._generate_and_score_completions(inputs)  # pyright: ignore
        rewards = self._rewards
        check_output(out, len(rewards), self.accelerator.num_processes)
        train = self.model.training
        m = self.num_generations if train else getattr(self, "num_generations_eval", self.num_generations)
        total = (rewards * self.reward_weights.to(rewards)).nansum(1)
        total[rewards.isnan().all(1)] = torch.nan
        batch = Batch(
            self.strategy,
            self.state.global_step,
            total.view(-1, m),
            None if self._equivalent is None else self._classes(m).to(total.device),
            None if self._score_column is None else rewards[:, self._score_column].view(-1, m),
        )
        if train:
            if self._recipe is not None and self._recipe.probability == "sequence":
                batch.log_p = self._log_p(out)
            self._apply(out, batch, total)
        elif batch.reward.isfinite().all() and batch.strategy.n <= m:
            value = estimate(batch.strategy, batch.outcomes).value
            self._metrics["eval"][str(batch.strategy)].append(value.mean().item())
        return out, batch

    def _classes(self, m: int) -> Tensor:
        """(B, M) answer classes of all processes."""
        answers: list[str | None] = gather_object(self._answers)
        rows = [answers[i : i + m] for i in range(0, len(answers), m)]
        assert self._equivalent is not None
        return equivalence_classes(rows, self._equivalent)

    def _apply(self, out: dict[str, Any], batch: Batch, total: Tensor) -> None:
        """Replace this process's advantages, and those of the completions table."""
        batch.groups = self._groups(batch)
        advantage = batch.groups.advantage.reshape(-1).to(out["advantages"])
        out["advantages"] = advantage[self._mine(out)] + self._penalty(out["advantages"], total, out)
        table = self._logs["advantages"]
        for _ in range(min(len(table), advantage.numel())):
            table.pop()
        table.extend(advantage.tolist())

    def _groups(self, batch: Batch, log_ratio: Tensor | None = None) -> Advantages:
        """The advantages of a batch, in the form that the settings name."""
        if self._recipe is not None:
            return published_groups(self._recipe, self._quantiles, batch)
        return self._advantage(batch.strategy, batch.reward, batch.answer, batch.score, log_ratio=log_ratio)

    def _advantage(
        self, strategy: Strategy, reward: Tensor, *more: Tensor | None, log_ratio: Tensor | None = None
    ) -> Advantages:
        """:func:`~operant.objectives.advantage` with the settings; ``more`` are answer and score."""
        return advantage(
            strategy,
            reward,
            *more,
            instead=self._instead,
            transform=self._transform,
            center=self.args.center,
            log_ratio=log_ratio,
        )

    def _mine(self, out: dict[str, Any]) -> slice:
        """This process's rows among those of all processes."""
        rows, rank = len(out["advantages"]), self.accelerator.process_index
        return slice(rank * rows, (rank + 1) * rows)

    def _penalty(self, stock: Tensor, total: Tensor, out: dict[str, Any]) -> Tensor | float:
        """The part of TRL's advantage that does not come from the rewards."""
        return 0.0

    def _log_p(self, out: dict[str, Any]) -> Tensor:
        """(B, M) sequence log-probabilities of all processes."""
        local = self._token_log_probs(out).sum(-1)
        everywhere: Any = self.accelerator.gather(local)
        return everywhere.view(-1, self.num_generations).double()

    def _token_log_probs(self, out: Mapping[str, Any]) -> Tensor:
        names = ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask")
        log_p = completion_log_probs(
            self.model,
            *(out[name] for name in names),
            sampler=Sampler(self.temperature),
            batch_size=self.args.per_device_train_batch_size,
        )
        return log_p * out.get("tool_mask", 1)

    def _report(self, batch: Batch, metrics: Any) -> None:
        """Log the value of the strategy, the dead groups, the size of the weights, and the step of the switch."""
        groups = batch.groups
        value = groups.value[groups.value.isfinite()]
        size = groups.advantage.abs()
        if len(value):
            metrics[str(batch.strategy)].append(value.mean().item())
            self.schedule.observe(batch.step, value.mean().item())
        if (switched := self.schedule.switched) is not None and batch.step >= switched:
            metrics["plateau_step"].append(switched)
        metrics["dead_groups"].append(groups.dead.double().mean().item())
        metrics["weight_mean"].append(size.mean().item())
        metrics["weight_sd"].append(size.std(correction=0).item())
        share = groups.unscored.double().mean().item()
        metrics["unscored"].append(share)
        if share:
            _LOGGER.warning(
                "step %d: %.1f %% of the rollouts could not be scored; their weight is 0.", batch.step, 100 * share
            )

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        """Before a later optimizer step on the same rollouts: the off-policy credit of the current policy."""
        batch = self._batch
        every = self.args.steps_per_generation * self.num_iterations
        buffered: list[dict[str, Any]] = self._buffered_inputs or []
        reused = self.model.training and self._step % every and buffered
        if batch is not None and reused and self.state.global_step != batch.step:
            refresh(self, batch, buffered)
        return super()._prepare_inputs(generation_batch)  # pyright: ignore

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """The strategy's value first, then what says whether there is a signal."""
        train = self.model.training
        metrics = self._metrics["train" if train else "eval"]
        names = dict.fromkeys([*map(str, self.schedule.strategies), "reward", "dead_groups", "entropy", *metrics])
        known = {name: [x for x in metrics.get(name, ()) if not math.isnan(x)] for name in names}
        lead = {name if train else f"eval_{name}": sum(x) / len(x) for name, x in known.items() if x}
        rest = dict(logs)
        logs.clear()  # in place: evaluate() returns these
        logs.update(lead | rest)
        super().log(logs, start_time)  # pyright: ignore

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Write our states before TRL's files: the trainer's state, the last of them, completes a checkpoint."""
        if self.args.should_save:
            folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
            folder.mkdir(parents=True, exist_ok=True)
            for name, (kept, _) in self._states().items():
                (folder / name).write_text(json.dumps(kept.state_dict()), encoding="utf-8")
        super()._save_checkpoint(model, trial)  # pyright: ignore

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """A resumed run also gets back the quantiles of the paper's best-of-N, and the values before the plateau."""
        super()._load_optimizer_and_scheduler(checkpoint)  # pyright: ignore
        for name, (kept, setting) in self._states().items() if checkpoint is not None else ():
            file = Path(checkpoint or "") / name
            if not file.is_file():
                raise ConfigError(
                    f"{checkpoint} has no {name}: its run had no {setting}. Resume with the settings of that run."
                )
            kept.load_state_dict(json.loads(file.read_text(encoding="utf-8")))

    def _states(self) -> dict[str, tuple[Any, str]]:
        """File in a checkpoint -> what it keeps, and the setting that makes it."""
        found: dict[str, tuple[Any, str]] = {}
        if self._quantiles is not None:
            found["quantiles.json"] = self._quantiles, "recipe.history"
        if self.schedule.has_plateau:
            found["plateau.json"] = self.schedule, "strategy_schedule with a plateau"
        return found


class AlignedGRPOTrainer(AlignedMixin, GRPOTrainer):
    """TRL's GRPOTrainer with the credit of a test-time strategy.

    A strategy that votes needs answers. A reward function gives them if it returns
    :class:`~operant.hf.AnsweredReward` values and has an attribute ``equivalent``, which says whether two answers are
    the same: ``equivalent(a, b) -> bool``.

    Raises:
        ConfigError: for settings that would change the objective.
        BudgetError, InputError: if the strategy cannot be computed from groups of this size and these rewards.
        UnsupportedTRLError: if the installed TRL lacks a method or an attribute that the trainer needs.
    """

    _name = "Aligned GRPO"


class AlignedRLOOTrainer(AlignedMixin, RLOOTrainer):
    """TRL's RLOOTrainer with the credit of a test-time strategy; see :class:`AlignedGRPOTrainer`."""

    _name = "Aligned RLOO"

    def _penalty(self, stock: Tensor, total: Tensor, out: dict[str, Any]) -> Tensor | float:
        """The leave-one-out KL penalty: TRL's advantage is linear, LOO(r - beta KL) = LOO(r) + LOO(-beta KL)."""
        if self.beta == 0.0:
            return 0.0
        if Version(trl.__version__) < Version("1.6"):  # older TRL counts an unscored rollout as reward 0
            total = total.nan_to_num(0.0)
        groups = total.view(-1, self.num_generations)
        count = groups.isfinite().sum(-1, keepdim=True)
        others = (groups.nansum(-1, keepdim=True) - groups) / (count - 1)
        return stock - (groups - others).nan_to_num(0.0).view(-1)[self._mine(out)].to(stock)
