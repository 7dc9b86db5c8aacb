"""Steps of the RL trainers against the formulas by hand, and against TRL's own trainers where they must agree."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from trl import GRPOTrainer, RLOOTrainer

from operant import Outcomes, credit, estimate, parse
from operant.core.checks import ConfigError
from operant.hf.rollouts.policy import load_policy
from operant.hf.trainers.rl import AlignedGRPOTrainer, AlignedRLOOTrainer
from tests import slow
from tests.hf.trainers.rl_task import LENGTH, PROMPTS, build, parameters, trained

M = 8
RULES = {"pass@4": (slow.any_success, 4), "maj@3": (slow.vote, 3)}
BOTH = pytest.mark.parametrize("cls", [AlignedGRPOTrainer, AlignedRLOOTrainer], ids=["grpo", "rloo"])


def by_enumeration(strategy: str, completions: list[str]) -> Tensor:
    """M times the credit of every rollout, from the texts alone."""
    rule, n = RULES[strategy]
    digits = [int(c[0]) if c[:1].isdigit() else -1 for c in completions]
    rollouts = [(float(d >= 0 and d % 2 == 0), d, 0.0) for d in digits]
    groups = [rollouts[i : i + M] for i in range(0, len(rollouts), M)]
    return torch.tensor([float(M * w) for z in groups for w in slow.credit(rule, z, n)], dtype=torch.float64)


def log_p(model: torch.nn.Module, prompt: list[int], completion: list[int]) -> Tensor:
    """log pi(completion | prompt) of one row without any padding."""
    logits = model(torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1]
    return logits.log_softmax(-1)[range(len(completion)), completion].sum()


def gradient(out: dict[str, Tensor], advantage: Tensor, normalizer: float) -> dict[str, Tensor]:
    """Of sum_i -A_i log pi(y_i) / normalizer at the starting weights."""
    model = load_policy("embedded", seed=3, device="cpu").model
    loss = torch.zeros(())
    for i, a in enumerate(advantage.tolist()):
        prompt = out["prompt_ids"][i][out["prompt_mask"][i] == 1].tolist()
        completion = out["completion_ids"][i][out["completion_mask"][i] == 1].tolist()
        loss = loss - a * log_p(model, prompt, completion) / normalizer
    loss.backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def check_step(trainer, grad: dict[str, Tensor], step) -> None:
    """The trainer's weights are the starting weights plus ``step(gradient)``."""
    start = dict(load_policy("embedded", seed=3, device="cpu").model.named_parameters())
    moved = 0.0
    for name, p in trainer.accelerator.unwrap_model(trainer.model).named_parameters():
        want = start[name].detach() + step(grad[name])
        torch.testing.assert_close(p.detach(), want, rtol=0, atol=2e-7, msg=name)
        moved = max(moved, (want - start[name].detach()).abs().max().item())
    assert moved > 1e-4


@BOTH
@pytest.mark.parametrize("strategy", RULES)
def test_one_step_is_the_formula(tmp_path, cls, strategy: str) -> None:
    """One step of SGD with clipped gradients, from two micro-batches."""
    trainer = trained(
        cls,
        tmp_path,
        strategy=strategy,
        max_steps=1,
        per_device_train_batch_size=8,
        gradient_accumulation_steps=2,
        optim="sgd",
        learning_rate=0.05,
        max_grad_norm=0.3,
    )
    out, (_, completions) = trainer.rollouts[0], trainer.texts[0]
    want = by_enumeration(strategy, completions)
    torch.testing.assert_close(out["advantages"].double(), want, rtol=1e-6, atol=1e-7)
    assert out["completion_mask"].sum(1).unique().numel() > 1  # ragged completions
    assert sorted(torch.cat([m["advantages"] for m in trainer.micro]).tolist()) == sorted(out["advantages"].tolist())
    grad = gradient(out, want, 16 * LENGTH if cls is AlignedGRPOTrainer else 16)
    norm = torch.cat([g.flatten() for g in grad.values()]).norm()
    assert norm > 0.3
    check_step(trainer, grad, lambda g: -0.05 * g * 0.3 / (norm + 1e-6))
    assert trainer.state.log_history[0]["grad_norm"] == pytest.approx(norm.item(), rel=1e-4)


@BOTH
def test_one_step_of_adam_is_the_formula(tmp_path, cls) -> None:
    """AdamW's first step is -lr g / (|g| + eps); a large eps keeps rounding small."""
    trainer = trained(cls, tmp_path, strategy="pass@4", max_steps=1, adam_epsilon=1e-2, max_grad_norm=0)
    want = by_enumeration("pass@4", trainer.texts[0][1])
    grad = gradient(trainer.rollouts[0], want, 16 * LENGTH if cls is AlignedGRPOTrainer else 16)
    check_step(trainer, grad, lambda g: -1e-2 * g / (g.abs() + 1e-2))


@BOTH
@pytest.mark.parametrize(
    ("strategy", "center"),
    [("pass@4", "loo"), ("maj@3", "mean"), ("mix(pass@1:0.25, pass@4:0.75)", "mean"), ("race@3:2", "loo")],
)
def test_advantages_are_m_times_the_credit_bit_for_bit(tmp_path, cls, strategy: str, center: str) -> None:
    trainer = trained(cls, tmp_path, strategy=strategy, center=center, max_steps=2)
    assert len(trainer.rollouts) == 2
    for out, rewards, (_, completions) in zip(trainer.rollouts, trainer.rewards, trainer.texts, strict=True):
        digits = [int(c[0]) if c[:1].isdigit() else -1 for c in completions]
        o = Outcomes(rewards.double().view(-1, M), torch.tensor(digits).view(-1, M))
        want = (M if center == "loo" else M - 1) * credit(parse(strategy), o)
        assert torch.equal(out["advantages"], want.view(-1).float())
        assert out["advantages"].any()


def test_pass_at_1_with_the_mean_is_stock_grpo_bit_for_bit(tmp_path) -> None:
    """Binary rewards and a power of two as group size: both means are exact."""
    settings = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 2}
    stock = trained(GRPOTrainer, tmp_path, **settings)
    ours = trained(AlignedGRPOTrainer, tmp_path, strategy="pass@1", center="mean", **settings)
    assert torch.equal(parameters(ours), parameters(stock))
    assert ours.state.global_step == 3 and stock.rollouts[2]["advantages"].any()
    other = trained(AlignedGRPOTrainer, tmp_path, strategy="pass@4", center="mean", **settings)
    assert (parameters(other) - parameters(stock)).abs().max() > 1e-3


def test_pass_at_1_is_stock_rloo_bit_for_bit(tmp_path) -> None:
    """With five rollouts a group the mean of the others is exact."""
    settings = {"per_device_train_batch_size": 20, "num_generations": 5}
    stock = trained(RLOOTrainer, tmp_path, **settings)
    ours = trained(AlignedRLOOTrainer, tmp_path, strategy="pass@1", **settings)
    assert torch.equal(parameters(ours), parameters(stock))
    other = trained(AlignedRLOOTrainer, tmp_path, strategy="maj@4", **settings)
    assert (parameters(other) - parameters(stock)).abs().max() > 1e-3


def test_the_kl_penalty_of_rloo_stays(tmp_path) -> None:
    """TRL adds it to the advantage: from the second step on the policy is not the reference any more."""
    settings = {"adam_epsilon": 1e-3}
    stock = trained(RLOOTrainer, tmp_path, beta=0.5, **settings)
    ours = trained(AlignedRLOOTrainer, tmp_path, strategy="pass@1", beta=0.5, **settings)
    without = trained(AlignedRLOOTrainer, tmp_path, strategy="pass@1", **settings)
    torch.testing.assert_close(parameters(ours), parameters(stock), rtol=0, atol=1e-5)
    assert (parameters(without) - parameters(stock)).abs().max() > 1e-3
    for a, b in zip(ours.rollouts, stock.rollouts, strict=True):
        torch.testing.assert_close(a["advantages"], b["advantages"], rtol=0, atol=1e-5)
    aligned = trained(AlignedRLOOTrainer, tmp_path, strategy="pass@4", beta=0.5, max_steps=2)
    credit_only = by_enumeration("pass@4", aligned.texts[1][1])
    kl = aligned.rollouts[1]["advantages"].double() - credit_only
    assert kl.view(-1, M).sum(-1).tolist() == pytest.approx([0, 0], abs=1e-5)  # leave-one-out terms sum to 0
    assert kl.abs().max() > 1e-2


@pytest.mark.slow
def test_the_kl_penalty_of_grpo_stays(tmp_path) -> None:
    stock = trained(GRPOTrainer, tmp_path, beta=0.5)
    ours = trained(AlignedGRPOTrainer, tmp_path, strategy="pass@1", center="mean", beta=0.5)
    assert torch.equal(parameters(ours), parameters(stock))
    assert ours.state.log_history[-2]["kl"] > 0


@pytest.mark.slow
def test_the_form_grpo_is_stock_grpo(tmp_path) -> None:
    stock = trained(GRPOTrainer, tmp_path, scale_rewards="group", adam_epsilon=1e-3)
    ours = trained(AlignedGRPOTrainer, tmp_path, strategy="pass@1", form="grpo", adam_epsilon=1e-3)
    torch.testing.assert_close(parameters(ours), parameters(stock), rtol=0, atol=1e-6)
    for a, b in zip(ours.rollouts, stock.rollouts, strict=True):
        torch.testing.assert_close(a["advantages"], b["advantages"], rtol=1e-6, atol=1e-7)


@BOTH
def test_batch_and_accumulation_take_the_same_steps(tmp_path, cls) -> None:
    """TRL generates batch x accumulation rollouts in one call, so the layouts draw the same ones."""
    runs = [
        trained(
            cls,
            tmp_path,
            strategy="pass@4",
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=16 // batch,
            adam_epsilon=1e-3,
            max_steps=2,
        )
        for batch in (16, 8, 4)
    ]
    for run in runs[1:]:
        assert [t[1] for t in run.texts] == [t[1] for t in runs[0].texts]
        torch.testing.assert_close(parameters(run), parameters(runs[0]), rtol=0, atol=1e-6)
    assert [len(run.micro) for run in runs] == [2, 4, 8]


@BOTH
def test_resumed_equals_uninterrupted(tmp_path, cls) -> None:
    """Also over a change of the strategy, which is one of the step and not of the process."""
    settings = {"strategy": "pass@4", "strategy_schedule": {"3": "maj@4"}, "max_steps": 4}
    whole = trained(cls, tmp_path / "whole", **settings)
    trained(cls, tmp_path / "part", save_strategy="steps", save_steps=2, **settings)
    resumed = trained(cls, tmp_path / "again", resume=str(tmp_path / "part" / "checkpoint-2"), **settings)
    assert len(resumed.texts) == 2 and [t[1] for t in resumed.texts] == [t[1] for t in whole.texts[2:]]
    assert torch.equal(parameters(whole), parameters(resumed))
    constant = trained(cls, tmp_path / "constant", **settings | {"strategy_schedule": None})
    assert not torch.equal(parameters(whole), parameters(constant))


@pytest.mark.slow
def test_low_rank_adapters_train(tmp_path) -> None:
    policy = load_policy("embedded", seed=3, device="cpu")
    adapted = build(
        AlignedGRPOTrainer,
        tmp_path,
        strategy="pass@4",
        model=get_peft_model(policy.model, LoraConfig(target_modules="all-linear", task_type="CAUSAL_LM")),
    )
    before = parameters(adapted)
    adapted.train()
    changed = {n for n, p in adapted.model.named_parameters() if p.requires_grad}
    assert changed and all("lora" in n for n in changed) and not torch.equal(before, parameters(adapted))


def test_resumed_equals_uninterrupted_over_a_plateau(tmp_path) -> None:
    """The values before the checkpoint decide after it. The learning rate is so small that the reward stays flat."""
    settings = {"strategy": "pass@1", "strategy_schedule": {"plateau": "maj@4"}, "plateau_window": 3, "max_steps": 7}
    settings |= {"learning_rate": 1e-9}
    whole = trained(AlignedGRPOTrainer, tmp_path, save_strategy="steps", save_steps=3, **settings)
    logs = [log for log in whole.state.log_history if "loss" in log]
    assert [next(iter(log)) for log in logs] == ["pass@1"] * 6 + ["maj@4"]
    assert [log.get("plateau_step") for log in logs] == [None] * 6 + [6]
    values = [estimate(parse("pass@1"), Outcomes(r.view(-1, M))).value.mean().item() for r in whole.rewards[:6]]
    assert whole.schedule.state_dict() == {"window": 3, "switched": 6, "values": pytest.approx(values)}
    for start in (3, 6):
        checkpoint = tmp_path / f"checkpoint-{start}"
        resumed = trained(AlignedGRPOTrainer, tmp_path / f"again{start}", resume=str(checkpoint), **settings)
        assert resumed.schedule.state_dict() == whole.schedule.state_dict()
        assert torch.equal(parameters(whole), parameters(resumed)) and len(resumed.rollouts) == 7 - start
        assert torch.equal(resumed.rollouts[-1]["advantages"], whole.rollouts[-1]["advantages"])
    (checkpoint / "plateau.json").unlink()
    with pytest.raises(ConfigError, match=r"has no plateau.json: its run had no strategy_schedule with a plateau"):
        trained(AlignedGRPOTrainer, tmp_path / "none", resume=str(checkpoint), **settings)


def test_a_run_that_is_resumed_after_its_first_epoch_has_the_prompts_of_the_uninterrupted_one(tmp_path) -> None:
    """Two steps an epoch. A new sampler would begin with the order of the first epoch again."""
    settings = {"prompts": PROMPTS[:4], "max_steps": 4, "save_strategy": "steps", "save_steps": 1}
    whole = trained(AlignedGRPOTrainer, tmp_path / "whole", **settings)
    asked = [prompts for prompts, _ in whole.texts]
    assert asked[2:] != asked[:2], "the second epoch has another order"
    for at in (2, 3):  # between the epochs, and within the second
        resumed = trained(AlignedGRPOTrainer, tmp_path, resume=str(tmp_path / "whole" / f"checkpoint-{at}"), **settings)
        assert [prompts for prompts, _ in resumed.texts] == asked[at:]
        assert torch.equal(parameters(whole), parameters(resumed))
