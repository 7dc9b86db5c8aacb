"""TRL's GRPO and RLOO trainers with the exact credit of a test-time strategy in the place of the advantage.

Generation, rewards, vLLM, the reference model, clipping and the loss are TRL's. From the gathered rewards (and the
answers and scores of the same rollouts) follow the weights w of every group; rollout i has the advantage M w_i, so that
the loss averages over rollouts and ascends the strategy's value:

    E (1/M) sum_i A_i grad log pi(y_i) = grad E V(N rollouts),        A_i = M w_i.

pass@1 is RLOO's r_i - mean of the others; with ``center="mean"`` it is Dr. GRPO's r_i - mean, bit for bit.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
import trl
from accelerate.utils import gather_object
from packaging.version import Version
from torch import Tensor
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer  # pyright: ignore[reportPrivateImportUsage]

from operant.core.checks import ConfigError, InputError
from operant.hf.rollouts.logprobs import completion_log_probs
from operant.hf.trainers.resample import resample
from operant.hf.trainers.sft_settings import default_folder
from operant.hf.trainers.trl_compat import check_attributes, check_methods, check_output
from operant.objectives.groups import EXACT, RECIPE_FORMS, Advantages, Center, advantage, check_group, substitute
from operant.objectives.rl import warn_of_dead_groups
from operant.published.paper import RECIPES, Quantiles, Recipe
from operant.strategies import BestOf, Majority, Outcomes, Sampler, Strategy, equivalence_classes, estimate, parse

LOGGER = logging.getLogger(__name__)
QUANTILES_FILE = "quantiles.json"


@dataclass
class AlignedArguments:
    """What is deployed, and how its credit is taken: the part that both configurations share.

    Args:
        strategy: a strategy string, such as "pass@16", "maj@8", "best@4" or "mix(pass@1:0.25, pass@16:0.75)". Its
            budget N is free of ``num_generations`` = M, as long as N <= M; M >= 2N leaves fewer groups dead. Default:
            pass@4, since TRL's M is 8.
        strategy_schedule: step -> strategy from that step on, {"0": "pass@1", "200": "pass@16"}.
        form: "exact"; "extrapolated" for N > M; "paper-log" or "paper-raw" (arXiv 2604.24957 as printed); or a
            published rule of ``operant.published.RULES``, such as "grpo", "pkpo" or "maxrl", to compare with.
        center: "loo" takes M w_i, "mean" (M-1) w_i.
        score_func: name of the reward function whose values rank the rollouts (best@N, top4@N>maj, wmaj@N); give it
            the weight 0 in ``reward_weights`` if it must not be part of the reward.
        off_policy: from the second optimizer step on the same rollouts, take the off-policy credit of the current
            policy in the place of a token-level ratio. Needs M >= N + 1; costs a forward pass a step.
        log_ratio_clip: bound on the sequences' |log pi - log mu| there; it trades bias for variance.
        resample_dead: how many times groups without any signal are replaced by groups of other prompts.
        recipe: changes to the published settings that belong to "paper-log" and "paper-raw", fields of
            ``operant.published.Recipe``: {"clip": 50.0}. Default: those of the paper's runs with such a strategy.
    """

    strategy: str = field(default="pass@4", metadata={"help": "Strategy string, for example pass@4 or maj@8."})
    strategy_schedule: dict[str, str] | None = field(
        default=None, metadata={"help": "Step -> strategy from that step on."}
    )
    form: str = field(
        default=EXACT, metadata={"help": "exact, extrapolated, paper-log, paper-raw or a published rule."}
    )
    center: Center = field(default="loo", metadata={"help": "loo: M w. mean: (M-1) w, for pass@1 r - mean."})
    score_func: str | None = field(default=None, metadata={"help": "Reward function whose values rank rollouts."})
    off_policy: bool = field(default=False, metadata={"help": "Off-policy credit for later steps on a batch."})
    log_ratio_clip: float = field(default=1.0, metadata={"help": "Bound on sequence log ratios there."})
    resample_dead: int = field(default=0, metadata={"help": "Rounds in which dead groups are replaced."})
    recipe: dict[str, Any] | None = field(default=None, metadata={"help": "Fields of the paper's recipe to change."})


@dataclass
class AlignedGRPOConfig(AlignedArguments, GRPOConfig):
    """TRL's GRPOConfig and :class:`AlignedArguments`; defaults that differ from TRL's keep the gradient unbiased.

    Args:
        scale_rewards: must stay "none": dividing by the group's sd weighs prompts anew.
        loss_type: "dr_grpo" divides by a constant; "grpo" and others divide by lengths.
        beta: no KL penalty by default.
    """

    scale_rewards: str = field(default="none", metadata={"help": "Must be none."})
    loss_type: str = field(default="dr_grpo", metadata={"help": "TRL's; dr_grpo divides by a constant."})
    beta: float = field(default=0.0, metadata={"help": "KL coefficient."})


@dataclass
class AlignedRLOOConfig(AlignedArguments, RLOOConfig):
    """TRL's RLOOConfig and :class:`AlignedArguments`. A KL penalty (beta) is added to the advantage as TRL does.

    Args:
        num_generations: rollouts per prompt, M.
        beta: no KL penalty by default.
    """

    num_generations: int | None = field(default=8, metadata={"help": "Rollouts per prompt."})
    beta: float = field(default=0.0, metadata={"help": "KL coefficient."})


_Trainer: Any = object
"""The trainer that the mixin stands before; its attributes are TRL's."""


class AlignedMixin(_Trainer):
    """Overrides of a TRL trainer of the GRPO kind: keeps the gathered rewards, and replaces the advantages."""

    _tag_names = ["operant", "compute-aligned-training"]
    _paper = {  # noqa: RUF012
        "title": "Compute Aligned Training: Optimizing for Test Time Inference",
        "id": "2604.24957",
    }

    def __init__(self, model: Any, reward_funcs: Any, args: Any = None, **kwargs: Any) -> None:
        is_rloo = isinstance(self, RLOOTrainer)  # pyright: ignore[reportUnnecessaryIsInstance]
        config = AlignedRLOOConfig if is_rloo else AlignedGRPOConfig
        if args is None:
            args = config(default_folder(model, "RLOO" if is_rloo else "GRPO"))
        if not isinstance(args, config):
            raise ConfigError(
                f"args must be an {config.__name__}, which says the strategy, got {type(args).__name__}. It takes "
                f"every field of TRL's: write {config.__name__}(strategy=..., ...) in its place."
            )
        mro = type(self).__mro__
        check_methods(mro[mro.index(AlignedMixin) + 1])
        check_settings(args)
        steps = {0: args.strategy} | {int(k): v for k, v in (args.strategy_schedule or {}).items()}
        self.strategies: dict[int, Strategy] = {step: parse(text) for step, text in sorted(steps.items())}
        self._recipe = _recipe(args, self.strategies[0])
        instead = substitute(args.form)
        self._instead = None if isinstance(instead, Recipe) else instead
        history = 0 if self._recipe is None else self._recipe.history
        self._quantiles = Quantiles(history) if history else None
        self._batch: _Batch | None = None
        self._gathered: tuple[Tensor, list[str | None] | None] | None = None
        super().__init__(model=model, reward_funcs=reward_funcs, args=args, **kwargs)
        check_attributes(self)
        self._voter = next((f for f in self.reward_funcs if hasattr(f, "answers")), None)
        self._score_column = None
        if args.score_func is not None:
            if args.score_func not in self.reward_func_names:
                names = ", ".join(self.reward_func_names)
                raise ConfigError(f"score_func must name a reward function, one of {names}; got {args.score_func!r}.")
            self._score_column = self.reward_func_names.index(args.score_func)
        self._rehearse()

    @property
    def strategy(self) -> Strategy:
        """The strategy of the current step."""
        return next(s for step, s in reversed(self.strategies.items()) if step <= self.state.global_step)

    def _rehearse(self) -> None:
        """Find out before training whether every strategy can be computed from what there is."""
        m = self.num_generations
        blank = torch.zeros(1, m, dtype=torch.float64)
        answer = None if self._voter is None else blank.long()
        score = None if self._score_column is None else blank
        for strategy in self.strategies.values():
            check_group(strategy, m, substitute(self.args.form), off_policy=self.args.off_policy)
            if self._recipe is not None:
                scratch = None if self._quantiles is None else Quantiles(self._quantiles.length)
                self._recipe.weights(strategy, Outcomes(blank, answer, score), log_p=blank - 1, quantiles=scratch)
            else:
                advantage(strategy, blank, answer, score, instead=self._instead, center=self.args.center)
            if self.args.form == EXACT:
                warn_of_dead_groups(strategy, m)

    def _calculate_rewards(self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any) -> Tensor:
        """Keep the rewards of all ranks, and the answers of the same rollouts."""
        rewards: Tensor = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)  # pyright: ignore
        rewards[rewards.isinf().any(1)] = torch.nan  # unscorable for TRL too: inf - inf would reach its statistics
        answers = None
        if self._voter is not None:
            answers = list(self._voter.answers)
            if len(answers) != len(prompts):
                raise InputError(
                    f"expected {len(prompts)} answers of the reward function's last call, one per completion, got "
                    f"{len(answers)}. Set `answers` anew in every call."
                )
            answers = gather_object(answers)
        self._gathered = rewards, answers
        return rewards

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """TRL's, and then our advantages."""
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

    def _scored(self, inputs: list[dict[str, Any]]) -> tuple[dict[str, Any], _Batch]:
        """Generate and score once; (B, M) of all ranks."""
        self._gathered = None
        out: dict[str, Any] = super()._generate_and_score_completions(inputs)  # pyright: ignore
        rewards, answers = self._gathered or (torch.empty(0), None)
        check_output(out, len(rewards), self.accelerator.num_processes)
        train = self.model.training
        m = self.num_generations if train else getattr(self, "num_generations_eval", self.num_generations)
        total = (rewards * self.reward_weights.to(rewards)).nansum(1)
        total[rewards.isnan().all(1)] = torch.nan
        batch = _Batch(
            self.strategy,
            self.state.global_step,
            total.view(-1, m),
            None if answers is None else _classes(self._voter, answers, m).to(total.device),
            None if self._score_column is None else rewards[:, self._score_column].view(-1, m),
        )
        if train:
            if self._recipe is not None and self._recipe.probability == "sequence":
                batch.log_p = self._log_p(out)
            self._apply(out, batch, total)
        elif batch.reward.isfinite().all() and batch.strategy.n <= m:
            value = estimate(batch.strategy, Outcomes(batch.reward, batch.answer, batch.score)).value
            self._metrics["eval"][str(batch.strategy)].append(value.mean().item())
        return out, batch

    def _apply(self, out: dict[str, Any], batch: _Batch, total: Tensor) -> None:
        """Replace this rank's advantages, and those of the completions table."""
        batch.groups = self._groups(batch)
        advantage = batch.groups.advantage.reshape(-1).to(out["advantages"])
        out["advantages"] = advantage[self._mine(out)] + self._penalty(out["advantages"], total, out)
        table = self._logs["advantages"]
        for _ in range(min(len(table), advantage.numel())):
            table.pop()
        table.extend(advantage.tolist())

    def _groups(self, batch: _Batch, log_ratio: Tensor | None = None) -> Advantages:
        if self._recipe is not None:
            return _paper_groups(self._recipe, self._quantiles, batch)
        return advantage(
            batch.strategy,
            batch.reward,
            batch.answer,
            batch.score,
            instead=self._instead,
            center=self.args.center,
            log_ratio=log_ratio,
        )

    def _mine(self, out: dict[str, Any]) -> slice:
        """This rank's rows among those of all ranks."""
        rows, rank = len(out["advantages"]), self.accelerator.process_index
        return slice(rank * rows, (rank + 1) * rows)

    def _penalty(self, stock: Tensor, total: Tensor, out: dict[str, Any]) -> Tensor | float:
        """What TRL put into the advantage beside the rewards."""
        return 0.0

    def _log_p(self, out: dict[str, Any]) -> Tensor:
        """(B, M) sequence log-probabilities of all ranks."""
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

    def _report(self, batch: _Batch, metrics: Any) -> None:
        groups = batch.groups
        value = groups.value[groups.value.isfinite()]
        size = groups.advantage.abs()
        if len(value):
            metrics[str(batch.strategy)].append(value.mean().item())
        metrics["dead_groups"].append(groups.dead.double().mean().item())
        metrics["weight_mean"].append(size.mean().item())
        metrics["weight_sd"].append(size.std(correction=0).item())
        share = groups.unscored.double().mean().item()
        metrics["unscored"].append(share)
        if share:
            LOGGER.warning(
                "step %d: %.1f %% of the rollouts could not be scored; their weight is 0.", batch.step, 100 * share
            )

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        """Before a later optimizer step on the same rollouts: the off-policy credit of the current policy."""
        batch = self._batch
        stale = batch is not None and self.model.training and self.state.global_step != batch.step
        every = self.args.steps_per_generation * self.num_iterations
        if stale and self._step % every and self._buffered_inputs is not None:
            self._refresh(batch, self._buffered_inputs)
        return super()._prepare_inputs(generation_batch)  # pyright: ignore

    def _refresh(self, batch: Any, parts: list[dict[str, Any]]) -> None:
        now = [self._token_log_probs(part) for part in parts]
        rows = torch.cat([part["rollout"] for part in parts])
        if batch.behaviour is None:
            old = [_behaviour(part) for part in parts]
            batch.behaviour = torch.empty(len(rows), device=rows.device).scatter(0, rows, torch.cat(old).float())
        current = torch.empty_like(batch.behaviour).scatter(0, rows, torch.cat([x.sum(-1) for x in now]).float())
        local = (current - batch.behaviour).clamp(-self.args.log_ratio_clip, self.args.log_ratio_clip)
        everywhere: Any = self.accelerator.gather(local)
        batch.groups = self._groups(batch, everywhere.view(-1, self.num_generations).double())
        batch.step = self.state.global_step
        first = self.accelerator.process_index * len(rows)
        advantage = batch.groups.advantage.reshape(-1)[first : first + len(rows)]
        for part, log_p in zip(parts, now, strict=True):
            part["advantages"] = advantage[part["rollout"]].to(part["advantages"])
            if "old_logps" in part:
                part["old_logps"] = log_p.sum(-1)
            else:
                part["old_per_token_logps"] = log_p

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """The strategy's value first, then what says whether there is a signal."""
        train = self.model.training
        metrics = self._metrics["train" if train else "eval"]
        names = dict.fromkeys([*map(str, self.strategies.values()), "reward", "dead_groups", "entropy", *metrics])
        known = {name: [x for x in metrics.get(name, ()) if not math.isnan(x)] for name in names}
        lead = {name if train else f"eval_{name}": sum(x) / len(x) for name, x in known.items() if x}
        rest = dict(logs)
        logs.clear()  # in place: evaluate() returns these
        logs.update(lead | rest)
        super().log(logs, start_time)  # pyright: ignore

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        if self._quantiles is not None and self.args.should_save:  # first: the trainer's state, its last file, ends it
            folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / QUANTILES_FILE).write_text(json.dumps(self._quantiles.state_dict()), encoding="utf-8")
        super()._save_checkpoint(model, trial)  # pyright: ignore

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """A resumed run also gets back the quantiles of the paper's best-of-N."""
        super()._load_optimizer_and_scheduler(checkpoint)  # pyright: ignore
        if self._quantiles is not None and checkpoint is not None:
            file = Path(checkpoint) / QUANTILES_FILE
            if not file.is_file():
                raise ConfigError(
                    f"{checkpoint} holds no {QUANTILES_FILE}: it is of a run without recipe.history. Resume with the "
                    "settings of that run."
                )
            self._quantiles.load_state_dict(json.loads(file.read_text(encoding="utf-8")))


class AlignedGRPOTrainer(AlignedMixin, GRPOTrainer):
    """TRL's GRPOTrainer with the credit of a test-time strategy.

    A reward function with an attribute ``answers`` (the answer of every completion of its last call, None without one)
    supplies the votes.

    Raises:
        ConfigError: for settings that would change the objective.
        BudgetError, InputError: if the strategy cannot be computed from groups of this size and these rewards.
        UnsupportedTRLError: if this TRL is not one that operant knows.
    """

    _name = "Aligned GRPO"


class AlignedRLOOTrainer(AlignedMixin, RLOOTrainer):
    """TRL's RLOOTrainer with the credit of a test-time strategy; see :class:`AlignedGRPOTrainer`."""

    _name = "Aligned RLOO"

    def _penalty(self, stock: Tensor, total: Tensor, out: dict[str, Any]) -> Tensor | float:
        """The leave-one-out KL penalty: TRL's advantage is linear, LOO(r - beta KL) = LOO(r) + LOO(-beta KL)."""
        if self.beta == 0.0:
            return 0.0
        if Version(trl.__version__) < Version("1.6"):  # counts what could not be scored as 0
            total = total.nan_to_num(0.0)
        groups = total.view(-1, self.num_generations)
        count = groups.isfinite().sum(-1, keepdim=True)
        others = (groups.nansum(-1, keepdim=True) - groups) / (count - 1)
        return stock - (groups - others).nan_to_num(0.0).view(-1)[self._mine(out)].to(stock)


@dataclass
class _Batch:
    """The rollouts of all ranks of one generation."""

    strategy: Strategy
    step: int
    reward: Tensor
    answer: Tensor | None
    score: Tensor | None
    log_p: Tensor | None = None
    behaviour: Tensor | None = None
    groups: Advantages = field(init=False)


def _behaviour(part: Mapping[str, Any]) -> Tensor:
    """(B,) sequence log-probabilities under the policy that sampled; RLOO keeps them whole, GRPO by token."""
    if "old_logps" in part:
        return part["old_logps"]
    return (part["old_per_token_logps"] * part["completion_mask"] * part.get("tool_mask", 1)).sum(-1)


def _classes(voter: Any, answers: list[str | None], m: int) -> Tensor:
    """(B, M) answer classes: by the reward function's own equivalence where it has one, else by string."""
    rows = [answers[i : i + m] for i in range(0, len(answers), m)]
    if hasattr(voter, "classes"):
        return torch.tensor([voter.classes(row) for row in rows])
    return equivalence_classes(rows)


def _recipe(args: AlignedArguments, strategy: Strategy) -> Recipe | None:
    """The published settings for such a strategy, with the changes that are asked for."""
    if args.form not in RECIPE_FORMS:
        return None
    names: dict[type[Strategy], str] = {BestOf: "protein-conditional", Majority: "math-majority"}
    name = names.get(type(strategy), "math-pass")
    try:
        return replace(RECIPES[name], form=RECIPE_FORMS[args.form].form, **(args.recipe or {}))
    except TypeError as error:
        known = ", ".join(f.name for f in fields(Recipe))
        raise ConfigError(f"recipe takes {known}; got {args.recipe}.") from error


def _paper_groups(recipe: Recipe, quantiles: Quantiles | None, batch: _Batch) -> Advantages:
    """The published weights, over the whole batch; a group with an unscorable rollout is left out."""
    unscored = ~batch.reward.isfinite() if batch.score is None else ~(batch.reward.isfinite() & batch.score.isfinite())
    whole = ~unscored.any(-1)
    advantage = torch.zeros_like(batch.reward, dtype=torch.float64)
    value = torch.full_like(advantage[:, 0], torch.nan)
    if bool(whole.any()):
        r, a, s, p = (None if x is None else x[whole] for x in (batch.reward, batch.answer, batch.score, batch.log_p))
        assert r is not None
        o = Outcomes(r.double(), a, None if s is None else s.double())
        advantage[whole] = recipe.weights(batch.strategy, o, log_p=p, quantiles=quantiles).double()
        if batch.strategy.n <= o.m:
            value[whole] = estimate(batch.strategy, o).value
    return Advantages(advantage, value, (advantage == 0).all(-1), unscored)


def check_settings(args: Any) -> None:
    """Refuse what would silently change the objective."""
    wrong = {
        "scale_rewards": ("none", "w / sd is another objective"),
        "multi_objective_aggregation": ("sum_then_normalize", "the other one normalises each reward"),
        "normalize_advantages": (False, "w / sd is another objective"),
        "reward_clip_range": (None, "clip inside the reward function"),
    }
    for name, (wanted, why) in wrong.items():
        if getattr(args, name, wanted) != wanted:
            raise ConfigError(f"{name} must be {wanted!r} ({why}), got {getattr(args, name)!r}.")
    if args.recipe and not args.form.startswith("paper-"):
        raise ConfigError(f"recipe belongs to form='paper-log' or 'paper-raw', got form={args.form!r}.")
    if args.off_policy and args.form != EXACT:
        raise ConfigError(f"off_policy=True needs form='exact', got {args.form!r}.")
    if args.off_policy and issubclass(type(args), RLOOConfig) and args.beta:
        raise ConfigError(
            f"RLOO's KL penalty is part of the on-policy advantage: with off_policy=True set beta=0, got {args.beta}; "
            "GRPO has its penalty in the loss."
        )
    if not args.log_ratio_clip > 0 or args.resample_dead < 0:
        raise ConfigError(
            f"log_ratio_clip must be positive and resample_dead at least 0, got {args.log_ratio_clip} and "
            f"{args.resample_dead}."
        )
    if getattr(args, "loss_type", "dr_grpo") in ("grpo", "sapo"):
        LOGGER.warning(
            "loss_type=%r divides each rollout by its length: the weights are no longer those of %s. "
            "loss_type='dr_grpo' keeps them.",
            args.loss_type,
            args.strategy,
        )
