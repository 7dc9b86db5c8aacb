"""Dead groups are replaced by live groups of other prompts, in whole rows."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from operant import Outcomes, credit, parse
from operant.core.checks import OperantError
from operant.hf.trainers.resample import resample
from operant.hf.trainers.rl import AlignedGRPOTrainer, AlignedRLOOTrainer
from tests.hf.trainers.rl_task import PROMPTS, Even, build, parameters, tensors, trained
from tests.hf.trainers.test_rl import log_probs

M = 8
BOTH = pytest.mark.parametrize("cls", [AlignedGRPOTrainer, AlignedRLOOTrainer], ids=["grpo", "rloo"])


class Alive(Even):
    """Even digits, but only after some prompts: the other groups are dead."""

    def __init__(self, good: set[str]) -> None:
        super().__init__()
        self.good = good

    def __call__(self, prompts: list[str], completions: list[str], **columns: Any) -> list[float | None]:
        rewards = super().__call__(prompts, completions, **columns)
        return [r if p in self.good else 0.0 for p, r in zip(prompts, rewards, strict=True)]


def rows(out: dict[str, Tensor]) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Prompt and completion of every row, without padding."""
    return [
        tuple(tuple(out[f"{part}_ids"][i][out[f"{part}_mask"][i] == 1].tolist()) for part in ("prompt", "completion"))
        for i in range(len(out["prompt_ids"]))
    ]


def texts(trainer: Any, out: dict[str, Tensor]) -> list[tuple[str, str]]:
    decode = trainer.processing_class.decode
    return [(decode(p), decode(c, skip_special_tokens=True)) for p, c in rows(out)]


@BOTH
def test_dead_groups_are_replaced_by_whole_live_groups(tmp_path, cls) -> None:
    """Only the longer half of the prompts is alive, so widths differ. Everything is recomputed from the rows."""
    reward = Alive(set(PROMPTS[8:]))
    trainer = trained(
        cls,
        tmp_path,
        strategy="pass@4",
        rewards=[reward],
        resample_dead=12,
        max_steps=1,
        num_iterations=2,
        per_device_train_batch_size=32,
    )
    out, start = trainer.rollouts[0], build(cls, tmp_path, strategy="pass@1").model
    generated = [set(prompts) for prompts, _ in trainer.texts]
    assert len(generated) > 1 and generated[0] - reward.good
    pairs = texts(trainer, out)
    groups = [pairs[i : i + M] for i in range(0, 32, M)]
    assert all(len({p for p, _ in g}) == 1 for g in groups) and all(g[0][0] in reward.good for g in groups)
    r = torch.tensor([reward([p for p, _ in g], [c for _, c in g]) for g in groups]).double()
    want = M * credit(parse("pass@4"), Outcomes(r))
    assert torch.equal(out["advantages"], want.view(-1).float()) and want.any(-1).all()
    for prompt_mask, completion_mask in zip(out["prompt_mask"], out["completion_mask"], strict=True):
        assert prompt_mask.sort()[0].equal(prompt_mask)  # left-padded
        assert completion_mask.sort(descending=True)[0].equal(completion_mask)  # right-padded
    log_p = log_probs(start, out)
    if cls is AlignedGRPOTrainer:
        assert out["num_items_in_batch"] == out["completion_mask"].sum()
        theirs = (out["old_per_token_logps"] * out["completion_mask"]).sum(-1)
    else:
        theirs = out["old_logps"]
    torch.testing.assert_close(theirs.double(), log_p, rtol=1e-5, atol=1e-5)
    log = trainer.state.log_history[0]
    dead_at_first = (trainer.rewards[0].view(-1, M).sum(1) == 0).double().mean()
    assert log["dead_groups"] >= dead_at_first > 0 and log["dead_groups_left"] == 0
    assert log["pass@4"] < 1  # of the rollouts as they came, not of those that were picked


@BOTH
def test_nothing_changes_where_no_group_is_dead(tmp_path, cls) -> None:
    half = Alternate()
    plain = trained(cls, tmp_path, strategy="pass@4", rewards=[half])
    with_it = trained(cls, tmp_path, strategy="pass@4", rewards=[half], resample_dead=3)
    assert len(with_it.texts) == 3 and torch.equal(parameters(plain), parameters(with_it))
    assert [log["dead_groups_left"] for log in with_it.state.log_history[:3]] == [0, 0, 0]


class Alternate:
    """Every other rollout is right."""

    __name__ = "alternate"

    def __call__(self, prompts: list[str], completions: list[str], **_: Any) -> list[float]:
        return [float(i % 2) for i in range(len(completions))]


def test_it_stops_after_so_many_rounds(tmp_path) -> None:
    trainer = trained(
        AlignedGRPOTrainer, tmp_path, strategy="pass@4", rewards=[Alive(set())], resample_dead=3, max_steps=1
    )
    assert len(trainer.texts) == 4
    assert trainer.state.log_history[0]["dead_groups_left"] == 1
    assert torch.equal(parameters(trainer), parameters(build(AlignedGRPOTrainer, tmp_path, strategy="pass@1")))


def test_only_the_dead_are_drawn_anew_and_the_others_stay(tmp_path) -> None:
    """One round with one dead group: M new rollouts, and the other group is as it was."""
    trainer = build(AlignedGRPOTrainer, tmp_path, strategy="pass@4", rewards=[Alive(set(PROMPTS[8:]))])
    trainer.model.train()
    inputs = [{"prompt": p} for p in (PROMPTS[0], PROMPTS[9]) for _ in range(M)]
    out, batch = trainer._scored(inputs)
    before, old = copy.deepcopy(tensors(out)), copy.deepcopy(batch.groups)
    assert batch.groups.dead.tolist() == [True, False]
    turn = 0
    while batch.groups.dead.any():
        batch = resample(trainer, out, batch, turn)
        turn += 1
    assert all(len(prompts) == M for prompts, _ in trainer.texts[1:])
    assert rows(out)[M:] == rows(before)[M:] and rows(out)[:M] != rows(before)[:M]
    assert torch.equal(batch.groups.advantage[1], old.advantage[1])
    assert torch.equal(batch.reward[0].float(), trainer.rewards[-1].view(-1))


@pytest.mark.slow
def test_resumed_equals_uninterrupted(tmp_path) -> None:
    settings: dict[str, Any] = dict(strategy="pass@4", rewards=[Alive(set(PROMPTS[8:]))], resample_dead=2, max_steps=4)
    whole = trained(AlignedGRPOTrainer, tmp_path / "whole", **settings)
    trained(AlignedGRPOTrainer, tmp_path / "part", save_strategy="steps", save_steps=2, **settings)
    resumed = trained(
        AlignedGRPOTrainer, tmp_path / "again", resume=str(tmp_path / "part" / "checkpoint-2"), **settings
    )
    assert len(whole.texts) > 4 and torch.equal(parameters(whole), parameters(resumed))


def test_streams_and_foreign_rows_are_refused(tmp_path) -> None:
    trainer = build(AlignedGRPOTrainer, tmp_path, strategy="pass@4", rewards=[Alive(set())], resample_dead=1)
    trainer.model.train()
    out, batch = trainer._scored([{"prompt": PROMPTS[0]} for _ in range(M)])
    with pytest.raises(OperantError, match="text only, but these rows hold num_images"):
        resample(trainer, out | {"num_images": [1] * M}, batch, 0)
    trainer.train_dataset = iter(trainer.train_dataset)
    with pytest.raises(OperantError, match="a data set that can be indexed, got a stream"):
        resample(trainer, out, batch, 0)
