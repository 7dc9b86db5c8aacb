"""The RL trainers: votes and scores, schedules, the log, what cannot be scored, off-policy steps, the paper's forms."""

from __future__ import annotations

import functools
import json
import logging
import math
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor
from trl import GRPOConfig

from operant import Outcomes, credit, estimate, parse
from operant.core.checks import BudgetError, ConfigError, FewRolloutsWarning, InputError
from operant.estimators import Transform, estimate_offpolicy
from operant.hf.trainers.rewards import AnsweredReward
from operant.hf.trainers.rl import AlignedGRPOTrainer, AlignedRLOOTrainer
from operant.published import RECIPES, Quantiles, Recipe
from tests.hf.trainers.rl_task import LENGTH, PROMPTS, Even, build, length, parameters, trained

M = 8
BOTH = pytest.mark.parametrize("cls", [AlignedGRPOTrainer, AlignedRLOOTrainer], ids=["grpo", "rloo"])


def groups(values: Any) -> Tensor:
    return torch.as_tensor(values).double().view(-1, M)


def digits(completions: list[str]) -> Tensor:
    return torch.tensor([int(c[0]) if c[:1].isdigit() else -1 for c in completions]).view(-1, M)


def logged(trainer: Any, name: str) -> list[Any]:
    return [log[name] for log in trainer.state.log_history if name in log]


# votes, scores, schedules, the log


def test_answers_are_grouped_by_the_reward_functions_own_equivalence(tmp_path) -> None:
    """Digits 0 to 4 are one answer, 5 to 9 another."""

    class Halves(Even):
        def equivalent(self, a: str, b: str) -> bool:
            return (int(a) > 4) == (int(b) > 4)

    own = trained(AlignedGRPOTrainer, tmp_path, strategy="maj@3", rewards=[Halves()], max_steps=1)
    d = digits(own.texts[0][1])
    halves = torch.where(d < 0, -1, (d > 4).long())
    reward = groups(own.rewards[0])
    want, by_string = (M * credit(parse("maj@3"), Outcomes(reward, a)) for a in (halves, d))
    assert torch.equal(own.rollouts[0]["advantages"], want.view(-1).float())
    assert not torch.equal(want, by_string)
    assert own.state.log_history[0]["maj@3"] == estimate(parse("maj@3"), Outcomes(reward, halves)).value.mean().item()


def test_scores_rank_the_rollouts_and_are_no_reward(tmp_path) -> None:
    trainer = trained(
        AlignedGRPOTrainer,
        tmp_path,
        strategy="best@3",
        rewards=[Even(), length],
        reward_weights=[1.0, 0.0],
        score_func="length",
        max_steps=1,
    )
    even, score = trainer.rewards[0].T
    want = M * credit(parse("best@3"), Outcomes(groups(even), None, groups(score)))
    alone = M * credit(parse("best@3"), Outcomes(groups(even)))
    assert torch.equal(trainer.rollouts[0]["advantages"], want.view(-1).float())
    assert not torch.equal(want, alone)


def test_rewards_are_the_weighted_sum(tmp_path) -> None:
    settings: dict[str, Any] = {"strategy": "best@3", "rewards": [Even(), length], "reward_weights": [1.0, 0.25]}
    trainer = trained(AlignedRLOOTrainer, tmp_path, max_steps=1, **settings)
    even, size = trainer.rewards[0].T
    want = M * credit(parse("best@3"), Outcomes(groups(even + 0.25 * size)))
    assert torch.equal(trainer.rollouts[0]["advantages"], want.view(-1).float())


def test_the_schedule_switches_the_strategy_and_its_metric(tmp_path) -> None:
    trainer = trained(
        AlignedGRPOTrainer,
        tmp_path,
        strategy="pass@1",
        strategy_schedule={"2": "mix(pass@1:0.25, pass@4:0.75)", "3": "maj@4"},
        max_steps=4,
    )
    names = ["pass@1", "pass@1", "mix(pass@1:0.25, pass@4:0.75)", "maj@4"]
    for out, rewards, (_, texts), name in zip(trainer.rollouts, trainer.rewards, trainer.texts, names, strict=True):
        o = Outcomes(groups(rewards), digits(texts))
        assert torch.equal(out["advantages"], (M * credit(parse(name), o)).view(-1).float())
    logs = [log for log in trainer.state.log_history if "loss" in log]
    assert [next(iter(log)) for log in logs] == names
    assert list(logs[0])[:4] == ["pass@1", "reward", "dead_groups", "entropy"]


def test_the_log_holds_the_value_of_the_strategy_and_the_weights(tmp_path) -> None:
    trainer = trained(AlignedRLOOTrainer, tmp_path, strategy="pass@4", max_steps=2)
    for log, out, rewards in zip(trainer.state.log_history, trainer.rollouts, trainer.rewards, strict=False):
        size = out["advantages"].double().abs()
        assert log["pass@4"] == pytest.approx(estimate(parse("pass@4"), Outcomes(groups(rewards))).value.mean().item())
        assert log["weight_mean"] == pytest.approx(size.mean().item())
        assert log["weight_sd"] == pytest.approx(size.std(correction=0).item())
        assert log["dead_groups"] == (size.view(-1, M) == 0).all(-1).double().mean().item()
        assert log["unscored"] == 0 and log["entropy"] > 0
    table = trainer._logs["advantages"]
    assert torch.equal(torch.tensor(list(table)).float(), trainer.rollouts[1]["advantages"])


def test_evaluation_reports_the_value_of_the_strategy(tmp_path) -> None:
    trainer = build(
        AlignedGRPOTrainer, tmp_path, strategy="pass@4", per_device_eval_batch_size=16, evaluation=PROMPTS[:4]
    )
    found = trainer.evaluate()
    want = [estimate(parse("pass@4"), Outcomes(groups(r))).value.mean() for r in trainer.rewards]
    assert len(want) == 2 and found["eval_pass@4"] == pytest.approx(torch.stack(want).mean().item())
    assert next(iter(trainer.state.log_history[0])) == "eval_pass@4"
    assert not any(name in trainer.state.log_history[0] for name in ("pass@4", "reward"))


# no signal, and what cannot be scored


class Fixed:
    """A reward of one's own for every completion of the batch."""

    def __init__(self, rewards: Any) -> None:
        self.__name__ = "fixed"
        self.rewards = rewards

    def __call__(self, prompts: list[str], completions: list[str], **_: Any) -> list[float | None]:
        return [self.rewards(i) for i in range(len(completions))]


@BOTH
@pytest.mark.parametrize("reward", [0.0, 1.0])
def test_groups_all_alike_leave_the_weights_as_they_are(tmp_path, cls, reward: float) -> None:
    before = parameters(build(cls, tmp_path, strategy="pass@4"))
    trainer = trained(cls, tmp_path, strategy="pass@4", rewards=[Fixed(lambda i: reward)], max_steps=2)
    assert torch.equal(parameters(trainer), before)
    assert logged(trainer, "pass@4") == [reward, reward] and logged(trainer, "dead_groups") == [1, 1]


@BOTH
def test_unscored_rollouts_are_left_out_counted_and_said(tmp_path, cls, caplog) -> None:
    """None, NaN and infinite in the first group; the second has too few left for pass@4."""
    odd = {0: None, 1: math.nan, 2: math.inf, 3: -math.inf} | {i: None for i in range(8, 13)}
    rewards = [Fixed(lambda i: odd.get(i, float(i % 3 == 0)))]
    with caplog.at_level(logging.WARNING, logger="operant.hf.trainers.rl"):
        trainer = trained(cls, tmp_path, strategy="pass@4", rewards=rewards, max_steps=1)
    got = trainer.rollouts[0]["advantages"].view(2, M)
    kept = torch.tensor([[float(i % 3 == 0) for i in range(4, 8)]]).double()
    assert torch.equal(got[0, 4:], (M * credit(parse("pass@4"), Outcomes(kept)))[0].float()) and got[0].any()
    assert not got[0, :4].any() and not got[1].any()
    log = trainer.state.log_history[0]
    assert log["unscored"] == 9 / 16 and log["dead_groups"] == 0.5
    assert log["pass@4"] == 1
    assert "step 0: 56.2 % of the rollouts could not be scored" in caplog.text
    assert parameters(trainer).isfinite().all()


@BOTH
def test_a_batch_without_any_reward_has_no_value_and_takes_no_step(tmp_path, cls) -> None:
    before = parameters(build(cls, tmp_path, strategy="pass@4"))
    trainer = trained(cls, tmp_path, strategy="pass@4", rewards=[Fixed(lambda i: None)], max_steps=1)
    assert torch.equal(parameters(trainer), before)
    assert not logged(trainer, "pass@4") and logged(trainer, "unscored") == [1]


def test_infinite_rewards_do_not_reach_the_kl_penalty(tmp_path) -> None:
    rewards = [Fixed(lambda i: math.inf if i == 3 else float(i % 2))]
    trainer = trained(AlignedRLOOTrainer, tmp_path, strategy="pass@1", rewards=rewards, beta=0.1, max_steps=2)
    first, second = (out["advantages"] for out in trainer.rollouts)
    kept = [0, 1, 2, 4, 5, 6, 7]
    want = M * credit(parse("pass@1"), Outcomes(torch.tensor([i % 2 for i in kept]).double()))
    torch.testing.assert_close(first[kept], want.float())  # the policy is the reference: no penalty yet
    assert second.abs().max() < 3 and parameters(trainer).isfinite().all()


def test_one_of_several_rewards_may_be_none(tmp_path) -> None:
    """TRL's rule: a function that returns None is left out of the sum."""
    rewards = [Even(), Fixed(lambda i: None if i < 4 else 0.5)]
    trainer = trained(AlignedGRPOTrainer, tmp_path, strategy="best@3", rewards=rewards, max_steps=1)
    even, extra = trainer.rewards[0].T
    total = even + extra.nan_to_num(0.0)
    want = M * credit(parse("best@3"), Outcomes(groups(total)))
    assert torch.equal(trainer.rollouts[0]["advantages"], want.view(-1).float())


@BOTH
def test_completions_that_end_at_once(tmp_path, cls) -> None:
    """The end of sequence as the only token: a rollout like any other."""
    rewards = [Fixed(lambda i: float(i % 5 == 0))]
    trainer = trained(cls, tmp_path, strategy="pass@4", rewards=rewards, max_steps=4)
    empty = [text == "" for _, texts in trainer.texts for text in texts]
    sizes = torch.cat([out["completion_mask"].sum(1) for out in trainer.rollouts])
    assert any(empty) and (sizes[torch.tensor(empty)] == 1).any() and parameters(trainer).isfinite().all()
    assert all(out["advantages"].any() for out in trainer.rollouts)


# off policy


def log_probs(model: torch.nn.Module, out: dict[str, Tensor]) -> Tensor:
    """Of whole completions, row by row and without padding."""
    found = []
    for i in range(len(out["completion_ids"])):
        prompt = out["prompt_ids"][i][out["prompt_mask"][i] == 1]
        completion = out["completion_ids"][i][out["completion_mask"][i] == 1]
        with torch.no_grad():
            logits = model(torch.cat([prompt, completion])[None]).logits[0, len(prompt) - 1 : -1]
        found.append(logits.log_softmax(-1)[range(len(completion)), completion].sum())
    return torch.stack(found).double()


def watched(cls: Any, folder: Any, **settings: Any) -> Any:
    """Trains; before every loss the current sequence log-probabilities of the last rollouts are noted."""
    trainer = build(cls, folder, **settings)
    trainer.current = []
    inner = trainer.compute_loss

    def compute_loss(model: Any, inputs: Any, **kwargs: Any) -> Any:
        trainer.current.append(log_probs(trainer.accelerator.unwrap_model(model), trainer.rollouts[-1]))
        return inner(model, inputs, **kwargs)

    trainer.compute_loss = compute_loss
    trainer.train()
    return trainer


LATER = {
    "two passes": {"num_iterations": 2, "gradient_accumulation_steps": 1, "per_device_train_batch_size": 16},
    "two windows": {"steps_per_generation": 4, "gradient_accumulation_steps": 2, "per_device_train_batch_size": 4},
}


@BOTH
@pytest.mark.parametrize("layout", LATER)
def test_a_later_step_takes_the_off_policy_weights(tmp_path, cls, layout: str) -> None:
    """M times estimate_offpolicy's weights at the ratios of that moment, in the place of a clipped token ratio."""
    trainer = watched(
        cls,
        tmp_path,
        strategy="maj@4",
        off_policy=True,
        log_ratio_clip=0.2,
        max_steps=4,
        learning_rate=1e-3,
        **LATER[layout],
    )
    assert len(trainer.rollouts) == 2
    every = len(trainer.micro) // 4
    for generation in range(2):
        out, reward = trainer.rollouts[generation], groups(trainer.rewards[generation])
        o = Outcomes(reward, digits(trainer.texts[generation][1]))
        first = 2 * every * generation
        ratio = groups(trainer.current[first + every] - trainer.current[first]).clamp(-0.2, 0.2)
        assert ratio.abs().max() == 0.2 and ratio.abs().min() < 0.2
        wants = [M * credit(parse("maj@4"), o), M * estimate_offpolicy(parse("maj@4"), o, ratio).weights]
        for step, want in enumerate(wants):
            for part in trainer.micro[first + step * every : first + (step + 1) * every]:
                torch.testing.assert_close(
                    part["advantages"].double(), want.view(-1)[part["rollout"]], rtol=1e-5, atol=2e-5
                )
        assert (wants[0] - wants[1]).abs().max() > 1e-3
        assert torch.equal(out["rollout"], torch.arange(16))
    assert logged(trainer, "clip_ratio/region_mean") == [0] * 4  # the ratio to the current policy is 1


def test_off_policy_steps_at_zero_learning_rate_are_on_policy(tmp_path) -> None:
    for cls in (AlignedGRPOTrainer, AlignedRLOOTrainer):
        trainer = trained(cls, tmp_path, strategy="pass@4", off_policy=True, num_iterations=2, learning_rate=0.0)
        first, second = trainer.micro[:2]
        order = [m["rollout"].argsort() for m in (first, second)]
        a, b = (m["advantages"][i] for m, i in zip((first, second), order, strict=True))
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
        assert a.any()


def test_an_evaluation_in_between_keeps_the_off_policy_credit(tmp_path) -> None:
    def run(**more: Any) -> Any:
        settings: dict[str, Any] = dict(strategy="pass@4", off_policy=True, num_iterations=2, max_steps=2)
        return trained(AlignedGRPOTrainer, tmp_path, evaluation=PROMPTS[:2], **settings, **more)

    plain, evaluated = run(), run(eval_strategy="steps", eval_steps=1)
    assert logged(evaluated, "eval_pass@4")
    later = [m["advantages"] for m in evaluated.micro if "rollout" in m][1]
    torch.testing.assert_close(later, plain.micro[1]["advantages"])
    assert not torch.equal(later, evaluated.micro[0]["advantages"])


def test_fewer_rollouts_than_twice_the_budget_warn_once(tmp_path) -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        trained(AlignedGRPOTrainer, tmp_path, strategy="pass@6", off_policy=True, num_iterations=2, max_steps=2)
    texts = [str(w.message) for w in seen if w.category is FewRolloutsWarning]
    assert len(texts) == 1 and "pass@6 from M = 8" in texts[0]


@pytest.mark.parametrize("strategy", ["pass@3", "maj@3"])
def test_a_transform_of_the_value(tmp_path, strategy: str) -> None:
    own = trained(AlignedGRPOTrainer, tmp_path, strategy=strategy, transform="log:0.1", max_steps=1)
    o = Outcomes(groups(own.rewards[0]), digits(own.texts[0][1]))
    want = M * credit(parse(strategy), o, transform=Transform("log", 0.1))
    assert torch.equal(own.rollouts[0]["advantages"], want.view(-1).float())
    assert not torch.allclose(want, M * credit(parse(strategy), o))
    with pytest.raises(BudgetError, match="groups of at least 9 rollouts"):
        build(AlignedGRPOTrainer, tmp_path, strategy="pass@8", transform="log:0.1")


# the paper's forms


@pytest.mark.parametrize(
    ("form", "strategy", "name", "recipe"),
    [
        ("paper-log", "pass@4", "math-pass", None),
        ("paper-raw", "maj@3", "math-majority", None),
        ("paper-raw", "maj@3", "math-majority", {"penalty": 0.0, "normalize": False}),
        ("paper-raw", "best@3", "protein-conditional", {"advantage_clip": 0.5}),
        ("paper-log", "threshold@4:2", "math-pass", {"probability": "empirical"}),
    ],
)
def test_paper_forms_are_the_recipe_on_the_batch(tmp_path, form, strategy, name, recipe) -> None:
    trainer = trained(AlignedGRPOTrainer, tmp_path, strategy=strategy, form=form, recipe=recipe, max_steps=1)
    out = trainer.rollouts[0]
    start = build(AlignedGRPOTrainer, tmp_path, strategy="pass@1").model
    values = {f: getattr(RECIPES[name], f) for f in ("probability", "clip", "normalize", "penalty", "advantage_clip")}
    settings = Recipe(**(values | (recipe or {}) | {"form": form.removeprefix("paper-")}))
    log_p = log_probs(start, out).view(-1, M)
    o = Outcomes(groups(trainer.rewards[0]), digits(trainer.texts[0][1]))
    want = settings.weights(parse(strategy), o, log_p=log_p)
    torch.testing.assert_close(out["advantages"].double().view(-1, M), want, rtol=1e-4, atol=1e-6)
    assert want.any()
    exact = estimate(parse(strategy), o).value.mean().item()
    assert trainer.state.log_history[0][strategy] == pytest.approx(exact)


def test_a_group_with_an_unscored_rollout_has_no_paper_weights(tmp_path) -> None:
    rewards = [Fixed(lambda i: None if i == 2 else float(i % 3 == 0))]
    trainer = trained(AlignedGRPOTrainer, tmp_path, strategy="pass@4", form="paper-raw", rewards=rewards, max_steps=1)
    got = trainer.rollouts[0]["advantages"].view(2, M)
    assert not got[0].any() and got[1].any()


def test_the_quantiles_of_best_of_n_survive_a_kill(tmp_path) -> None:
    settings: dict[str, Any] = dict(
        strategy="best@3", form="paper-raw", recipe={"history": 40}, rewards=[length], max_steps=4
    )
    whole = trained(AlignedGRPOTrainer, tmp_path / "whole", **settings)
    trained(AlignedGRPOTrainer, tmp_path / "part", save_strategy="steps", save_steps=2, **settings)
    checkpoint = tmp_path / "part" / "checkpoint-2"
    resumed = trained(AlignedGRPOTrainer, tmp_path / "again", resume=str(checkpoint), **settings)
    assert torch.equal(parameters(whole), parameters(resumed))
    seen = Quantiles(40)
    for rewards in whole.rewards:
        seen.push(rewards)
    assert resumed._quantiles.values == seen.values == whole._quantiles.values and len(seen.values) == 40
    saved = json.loads((checkpoint / "quantiles.json").read_text())
    assert saved["values"] == torch.cat(whole.rewards[:2]).flatten().tolist()
    (checkpoint / "quantiles.json").unlink()
    with pytest.raises(ConfigError, match=r"checkpoint-2 has no quantiles.json"):
        trained(AlignedGRPOTrainer, tmp_path / "again", resume=str(checkpoint), **settings)


# what is refused


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"scale_rewards": "group"}, "scale_rewards must be 'none'"),
        ({"multi_objective_aggregation": "normalize_then_sum"}, "multi_objective_aggregation must be"),
        ({"recipe": {"clip": 2.0}}, "recipe needs form='paper-log'"),
        ({"form": "paper-log", "recipe": {"clips": 2.0}}, "recipe takes form, probability, clip"),
        ({"form": "paper-log", "off_policy": True}, "off_policy=True needs form='exact'"),
        ({"transform": "log:0.1", "off_policy": True}, "set form='exact' and off_policy=False, got 'exact' and True"),
        ({"transform": "arcsin", "form": "grpo"}, "set form='exact' and off_policy=False, got 'grpo' and False"),
        ({"log_ratio_clip": 0.0}, "log_ratio_clip must be positive"),
        ({"resample_dead": -1}, "resample_dead at least 0"),
        ({"score_func": "size"}, "score_func must name a reward function, one of even; got 'size'"),
    ],
    ids=str,
)
def test_settings_that_change_the_objective_are_refused(tmp_path, settings, said) -> None:
    with pytest.raises(ConfigError, match=said):
        build(AlignedGRPOTrainer, tmp_path, **{"strategy": "pass@4"} | settings)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"normalize_advantages": True}, "normalize_advantages must be False"),
        ({"reward_clip_range": (0.0, 1.0)}, "reward_clip_range must be None"),
        ({"off_policy": True, "beta": 0.1}, "off_policy=True with RLOO needs beta=0, got 0.1"),
    ],
    ids=str,
)
def test_settings_of_rloo_that_change_the_objective_are_refused(tmp_path, settings, said) -> None:
    with pytest.raises(ConfigError, match=said):
        build(AlignedRLOOTrainer, tmp_path, **{"strategy": "pass@4"} | settings)


def test_what_cannot_be_computed_is_said_before_any_rollout(tmp_path) -> None:
    with pytest.raises(BudgetError, match=r"pass@9 needs groups of at least 9 rollouts, better 18, got 8"):
        build(AlignedGRPOTrainer, tmp_path, strategy="pass@9")
    with pytest.raises(BudgetError, match=r"maj@16 needs groups"):
        build(AlignedRLOOTrainer, tmp_path, strategy="maj@4", strategy_schedule={"100": "maj@16"})
    with pytest.raises(BudgetError, match="at least 9"):
        build(AlignedGRPOTrainer, tmp_path, strategy="pass@8", off_policy=True)
    with pytest.raises(InputError, match="answer"):
        build(AlignedGRPOTrainer, tmp_path, strategy="maj@4", rewards=[length])
    with pytest.raises(InputError, match="form must be one of"):
        build(AlignedGRPOTrainer, tmp_path, strategy="pass@4", form="exakt")
    with pytest.raises(InputError, match="center must be one of"):
        build(AlignedGRPOTrainer, tmp_path, strategy="pass@4", center="median")
    with pytest.raises(ConfigError, match=r"must be an AlignedGRPOConfig, which has the strategy, got GRPOConfig"):
        AlignedGRPOTrainer(model=None, reward_funcs=[length], args=GRPOConfig(str(tmp_path), use_cpu=True, bf16=False))


def test_answers_without_an_equivalence_are_no_silent_best_of_n(tmp_path) -> None:
    even = Even()

    def plain(*args: Any, **kwargs: Any) -> list[AnsweredReward | None]:
        return even(*args, **kwargs)

    with pytest.raises(ConfigError, match=r"has no attribute `equivalent`.*function.equivalent = operator.eq"):
        trained(AlignedGRPOTrainer, tmp_path, strategy="pass@3", rewards=[plain], max_steps=1)


def test_an_asynchronous_reward_function_gives_the_same_votes(tmp_path) -> None:
    even = Even()

    @functools.wraps(even)
    async def later(*args: Any, **kwargs: Any) -> list[AnsweredReward | None]:
        return even(*args, **kwargs)

    later.equivalent = even.equivalent  # pyright: ignore[reportFunctionMemberAccess]
    one, two = (
        trained(AlignedGRPOTrainer, tmp_path, strategy="maj@3", rewards=[f], max_steps=1) for f in (even, later)
    )
    assert torch.equal(one.rollouts[0]["advantages"], two.rollouts[0]["advantages"])
    assert one.reward_func_names == ["even"]


def test_a_loss_that_divides_by_lengths_is_pointed_out(tmp_path, caplog) -> None:
    build(AlignedGRPOTrainer, tmp_path, strategy="pass@4")
    assert not caplog.text
    build(AlignedGRPOTrainer, tmp_path, strategy="pass@4", loss_type="grpo")
    assert "loss_type='grpo' divides each rollout by its length" in caplog.text


def test_the_strategy_is_in_the_settings_that_are_saved(tmp_path) -> None:
    trainer = build(AlignedGRPOTrainer, tmp_path, strategy="pass@4", strategy_schedule={"2": "pass@2"})
    saved = trainer.args.to_dict()
    assert saved["strategy"] == "pass@4" and saved["strategy_schedule"] == {"2": "pass@2"}
    assert saved["scale_rewards"] == "none" and saved["max_completion_length"] == LENGTH
