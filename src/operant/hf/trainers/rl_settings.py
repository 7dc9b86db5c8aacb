"""The settings of the GRPO and RLOO trainers: what both share, their two classes, and the values that are rejected."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, fields, replace
from typing import Any

from trl import GRPOConfig, RLOOConfig  # pyright: ignore[reportPrivateImportUsage]

from operant.core.checks import ConfigError
from operant.objectives.groups import EXACT, EXTRAPOLATED, RECIPE_FORMS, Center
from operant.objectives.schedule import PLATEAU, StrategySchedule, check_keys, window_of
from operant.published.paper import RECIPES, Recipe
from operant.strategies import BestOf, Majority, Strategy

_LOGGER = logging.getLogger(__name__)


@dataclass
class AlignedArguments:
    """The deployed strategy and how its credit is computed: the fields that both configurations share.

    Args:
        strategy: a strategy string, such as "pass@16", "maj@8", "best@4" or "mix(pass@1:0.25, pass@16:0.75)". Its
            budget N may be any number up to ``num_generations`` = M; with M >= 2 N fewer groups are dead. The default
            is pass@4, because TRL's M is 8.
        strategy_schedule: step -> strategy from that step on, {"0": "pass@1", "200": "pass@16"}; or {"plateau":
            "maj@16"}: from the plateau of the value of ``strategy`` on.
        plateau_window: steps, or a share of ``max_steps`` if below 1; None is 0.2. The plateau is reached when the mean
            value of a window exceeds that of the window before by one standard error of the difference at most.
        form: "exact"; "extrapolated" for N > M; "paper-log" or "paper-raw" (arXiv 2604.24957 as printed); or a
            published rule of ``operant.published.RULES``, such as "grpo", "pkpo" or "maxrl", to compare with.
        transform: g of the objective E g(V), such as "log:0.02", "arcsin" or "logit:0.1" (see
            ``operant.estimators.Transform``). Needs form="exact", M >= N + 1 and off_policy=False. "" is E V.
        center: "loo" takes M w_i, "mean" (M-1) w_i.
        score_func: name of the reward function whose values rank the rollouts (best@N, top4@N>maj, wmaj@N). Its entry
            in ``reward_weights`` should be 0, unless it is part of the reward.
        off_policy: whether later optimizer steps on the same rollouts use the off-policy credit of the current policy
            instead of a token-level ratio. Needs M >= N + 1, and one more forward pass per step.
        log_ratio_clip: bound on |log pi - log mu| of a sequence in the off-policy credit; a smaller bound has less
            variance and more bias.
        resample_dead: how many times groups without any signal are replaced by groups of other prompts.
        recipe: changes to the published settings of "paper-log" and "paper-raw", fields of
            ``operant.published.Recipe``: {"clip": 50.0}. The default is the paper's run with such a strategy.
    """

    strategy: str = field(default="pass@4", metadata={"help": "Strategy string, for example pass@4 or maj@8."})
    strategy_schedule: dict[str, str] | None = field(
        default=None, metadata={"help": "Step, or plateau -> strategy from there on."}
    )
    plateau_window: float | None = field(default=None, metadata={"help": "Steps, or a share of max_steps below 1."})
    form: str = field(
        default=EXACT, metadata={"help": "exact, extrapolated, paper-log, paper-raw, or a published rule."}
    )
    transform: str = field(default="", metadata={"help": "g of the objective E g(V): log:0.02, arcsin, logit:0.1."})
    center: Center = field(default="loo", metadata={"help": "loo: M w. mean: (M-1) w, for pass@1 r - mean."})
    score_func: str | None = field(default=None, metadata={"help": "Reward function whose values rank rollouts."})
    off_policy: bool = field(default=False, metadata={"help": "Off-policy credit for later steps on a batch."})
    log_ratio_clip: float = field(default=1.0, metadata={"help": "Bound on the log ratios of sequences."})
    resample_dead: int = field(default=0, metadata={"help": "Rounds in which dead groups are replaced."})
    recipe: dict[str, Any] | None = field(default=None, metadata={"help": "Fields of the paper's recipe to change."})


@dataclass
class AlignedGRPOConfig(AlignedArguments, GRPOConfig):
    """TRL's GRPOConfig and :class:`AlignedArguments`. Defaults that differ from TRL's keep the gradient unbiased.

    Args:
        scale_rewards: must stay "none": dividing by the group's standard deviation gives prompts other weights.
        loss_type: "dr_grpo" divides by a constant; "grpo" and others divide by lengths.
        beta: weight of the KL penalty, 0 by default.
    """

    scale_rewards: str = field(default="none", metadata={"help": "Must be none."})
    loss_type: str = field(default="dr_grpo", metadata={"help": "TRL's; dr_grpo divides by a constant."})
    beta: float = field(default=0.0, metadata={"help": "KL coefficient."})


@dataclass
class AlignedRLOOConfig(AlignedArguments, RLOOConfig):
    """TRL's RLOOConfig and :class:`AlignedArguments`. A KL penalty is added to the advantage, as in TRL.

    Args:
        num_generations: rollouts per prompt, M.
        beta: weight of the KL penalty, 0 by default.
    """

    # TRL's default of 2 leaves almost every group dead: pass@4, the default strategy, needs M >= 4.
    num_generations: int | None = field(default=8, metadata={"help": "Rollouts per prompt."})
    beta: float = field(default=0.0, metadata={"help": "KL coefficient."})


def schedule_of(args: Any) -> StrategySchedule:
    """The schedule of the settings.

    Raises:
        ConfigError: for a schedule or a window that cannot work.
    """
    later = args.strategy_schedule
    check_keys(later)
    if PLATEAU not in (later or {}):
        if args.plateau_window is not None:
            raise ConfigError(
                f"plateau_window={args.plateau_window} needs a plateau: set strategy_schedule to {{plateau: STRATEGY}}."
            )
        return StrategySchedule(args.strategy, later)
    every = args.num_iterations * args.steps_per_generation / args.gradient_accumulation_steps
    schedule = StrategySchedule(
        args.strategy, later, window=window_of(args.plateau_window, args.max_steps, every=every)
    )
    first = schedule.at(0)
    if first.n > args.num_generations and args.form not in (EXACT, EXTRAPOLATED):
        raise ConfigError(
            f"the plateau is one of the value of {first}, which {args.num_generations} rollouts cannot estimate. Set "
            f"num_generations to {first.n} or more, or give steps in strategy_schedule."
        )
    return schedule


def published_recipe(args: AlignedArguments, strategy: Strategy) -> Recipe | None:
    """The published settings for such a strategy with the user's changes; None for a form that has none.

    Raises:
        ConfigError: for a change to a field that does not exist.
    """
    if args.form not in RECIPE_FORMS:
        return None
    names: dict[type[Strategy], str] = {BestOf: "protein-conditional", Majority: "math-majority"}
    name = names.get(type(strategy), "math-pass")
    try:
        return replace(RECIPES[name], form=RECIPE_FORMS[args.form].form, **(args.recipe or {}))
    except TypeError as error:
        known = ", ".join(f.name for f in fields(Recipe))
        raise ConfigError(f"recipe takes {known}; got {args.recipe}.") from error


def check_settings(args: Any) -> None:
    """Reject settings that would silently change the objective.

    Raises:
        ConfigError: naming the setting, and why it changes the objective.
    """
    wrong = {
        "scale_rewards": ("none", "dividing by the standard deviation changes the objective"),
        "multi_objective_aggregation": ("sum_then_normalize", "normalizing each reward changes the objective"),
        "normalize_advantages": (False, "dividing by the standard deviation changes the objective"),
        "reward_clip_range": (None, "clip inside the reward function instead"),
    }
    for name, (wanted, why) in wrong.items():
        if getattr(args, name, wanted) != wanted:
            raise ConfigError(f"{name} must be {wanted!r} ({why}), got {getattr(args, name)!r}.")
    schedule_of(args)
    if args.recipe and not args.form.startswith("paper-"):
        raise ConfigError(f"recipe needs form='paper-log' or 'paper-raw', got form={args.form!r}.")
    if args.transform and (args.form != EXACT or args.off_policy):
        raise ConfigError(
            f"transform={args.transform!r} changes the exact on-policy credit: set form='exact' and off_policy=False, "
            f"got {args.form!r} and {args.off_policy}."
        )
    if args.off_policy and args.form != EXACT:
        raise ConfigError(f"off_policy=True needs form='exact', got {args.form!r}.")
    if args.off_policy and issubclass(type(args), RLOOConfig) and args.beta:
        raise ConfigError(
            f"off_policy=True with RLOO needs beta=0, got {args.beta}: RLOO adds its KL penalty to the on-policy "
            "advantage. GRPO has the penalty in its loss, and takes both."
        )
    if not args.log_ratio_clip > 0 or args.resample_dead < 0:
        raise ConfigError(
            f"log_ratio_clip must be positive and resample_dead at least 0, got {args.log_ratio_clip} and "
            f"{args.resample_dead}."
        )
    if getattr(args, "loss_type", "dr_grpo") in ("grpo", "sapo"):
        _LOGGER.warning(
            "loss_type=%r divides each rollout by its length: the weights are no longer those of %s. "
            "loss_type='dr_grpo' keeps them.",
            args.loss_type,
            args.strategy,
        )
