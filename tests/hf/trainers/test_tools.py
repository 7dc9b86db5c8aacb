"""Tools and several turns: rollouts that call a tool, its answers masked, and the credit over whole conversations."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from torch import Tensor
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM
from trl import chat_template_utils

from operant.hf.rollouts.policy import byte_tokenizer
from operant.hf.trainers.rewards import answer_of
from operant.hf.trainers.rl import AlignedGRPOTrainer
from operant.hf.trainers.rl_settings import AlignedGRPOConfig
from tests import slow
from tests.hf.trainers.rl_task import COMMON, Recorded

M, N, LENGTH = 4, 2, 90
EXAMPLE = runpy.run_path(str(Path(__file__).parents[3] / "examples" / "calculator.py"))
MARKS = ("<|im_start|>", "<|im_end|>", "<tool_response>", "</tool_response>", "user", "assistant")


def call(a: int, b: int) -> str:
    said = json.dumps({"name": "multiply", "arguments": {"a": a, "b": b}})
    return f"<tool_call>\n{said}\n</tool_call>"


SAID = (call(3, 4), call(5, 5), "7", "12")
"""What the model says, each a token; it ends a turn at any time."""


def player() -> tuple[Any, Any]:
    """A random Llama of one layer that prefers a few tokens: two tool calls, two numbers and the end of a turn."""
    tokenizer = byte_tokenizer([*MARKS, *SAID])
    tokenizer.eos_token, tokenizer.chat_template = "<|im_end|>", chat_template_utils.qwen3_chat_template
    end = int(tokenizer.eos_token_id)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    tokens = {"vocab_size": len(tokenizer), "pad_token_id": 0, "bos_token_id": None, "eos_token_id": end}
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**sizes, **tokens, max_position_embeddings=2048))
    model.lm_head = torch.nn.Linear(16, len(tokenizer))
    with torch.no_grad():
        model.lm_head.weight.normal_(std=0.3)
        model.lm_head.bias.zero_()
        model.lm_head.bias[[*tokenizer.convert_tokens_to_ids(list(SAID)), end]] = 12.0
        model.lm_head.bias[end] += 1.0
    model.generation_config = GenerationConfig(eos_token_id=end, pad_token_id=0)
    return model, tokenizer


def seven(completions: list[Any], **_: Any) -> list[float]:
    """Whether the last word is 7."""
    said = [answer_of(c) for c in completions]
    return [float("7" in text) for text in said]


def trainer_of(folder: Path, **more: Any) -> Any:
    model, tokenizer = player()
    settings = COMMON | {"num_generations": M, "per_device_train_batch_size": 2 * M, "max_completion_length": LENGTH}
    return type("Tooled", (Recorded, AlignedGRPOTrainer), {})(
        model=model,
        args=AlignedGRPOConfig(str(folder), strategy=f"pass@{N}", max_tool_calling_iterations=2, **settings),
        train_dataset=Dataset.from_list([{"prompt": [{"role": "user", "content": f"{i}?"}]} for i in range(2)]),
        processing_class=tokenizer,
        **more,
    )


def by_enumeration(rewards: Tensor) -> Tensor:
    groups = [[(r, 0, 0.0) for r in group] for group in rewards.view(-1, M).tolist()]
    return torch.tensor([float(M * w) for z in groups for w in slow.credit(slow.any_success, z, N)])


def test_the_credit_goes_to_all_tokens_of_the_model_in_all_turns_and_to_none_of_the_tool(tmp_path) -> None:
    asked: list[tuple[int, int]] = []

    def multiply(a: int, b: int) -> int:
        """
        Multiply.

        Args:
            a: A factor.
            b: A factor.
        """
        asked.append((a, b))
        return a * b

    trainer = trainer_of(tmp_path, reward_funcs=[seven], tools=[multiply])
    trainer.model.train()
    batch = next(iter(trainer.get_train_dataloader()))
    trainer.current_gradient_accumulation_steps = 1
    inputs = trainer._prepare_inputs(batch)
    (out,), tokenizer = trainer.rollouts, trainer.processing_class
    assert set(asked) == {(3, 4), (5, 5)}, "the rollouts call the tool"
    mask, shown = out["completion_mask"].bool(), 0
    for row, said in enumerate(trainer.texts[0][1]):
        ids, own = out["completion_ids"][row][mask[row]], out["tool_mask"][row][mask[row]].bool()
        results = [m["content"] for m in said if m["role"] == "tool"]
        shown += len(results)
        theirs = tokenizer.decode(ids[~own])
        assert theirs.count("<tool_response>") == len(results) and all(f"\n{r}\n" in theirs for r in results)
        spoken = tokenizer.decode(ids[own])  # what the model said, in all its turns
        assert "tool_response" not in spoken and "<|im_start|>" not in spoken
        assert spoken.count("<tool_call>") == sum(len(m.get("tool_calls") or ()) for m in said)
    assert shown > 2 and any(len(said) > 2 for said in trainer.texts[0][1]), "a turn follows the answer of the tool"
    expected = by_enumeration(trainer.rewards[0].sum(1))
    assert expected.abs().max() > 0
    torch.testing.assert_close(out["advantages"], expected)

    loss = trainer.compute_loss(trainer.model, inputs)
    loss.backward()
    copy, _ = player()
    total = torch.zeros(())
    for i in range(len(expected)):
        prompt = out["prompt_ids"][i][out["prompt_mask"][i].bool()]
        ids, own = out["completion_ids"][i][mask[i]], out["tool_mask"][i][mask[i]]
        logits = copy(torch.cat([prompt, ids])[None]).logits[0, len(prompt) - 1 : -1]
        log_p = logits.log_softmax(-1)[range(len(ids)), ids]
        total = total - expected[i] * (log_p * own).sum() / (len(expected) * LENGTH)
    total.backward()
    for (name, ours), theirs in zip(trainer.model.named_parameters(), copy.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-6, msg=name)


class Room:
    """An environment with a state of its own, which it alone rewards."""

    def reset(self, **_: Any) -> str:
        self.best = 0
        return " Find 25."

    def multiply(self, a: int, b: int) -> str:
        """
        Multiply.

        Args:
            a: A factor.
            b: A factor.
        """
        self.best = max(self.best, a * b)
        return "yes" if self.best == 25 else "no"

    def get_reward(self) -> float:
        return float(self.best == 25)


def test_an_environment_rewards_the_conversation(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    trainer = trainer_of(tmp_path, environment_factory=Room)
    trainer.args.max_steps = 1
    trainer.train()
    rewards = trainer.rewards[0].sum(1)
    found = [any(m["role"] == "tool" and m["content"] == "yes" for m in said) for said in trainer.texts[0][1]]
    assert rewards.tolist() == [float(x) for x in found] and 0 < sum(found) < len(found)
    torch.testing.assert_close(trainer.rollouts[0]["advantages"], by_enumeration(rewards))


def test_the_example_runs_on_the_tiny_model(tmp_path) -> None:
    model, tokenizer = player()
    settings = COMMON | {"num_generations": M, "per_device_train_batch_size": M, "max_steps": 1}
    settings |= {"max_completion_length": LENGTH, "strategy": "maj@2", "processing_class": tokenizer}
    trainer = EXAMPLE["trainer_of"](model, str(tmp_path), count=4, verifier="exact", **settings)
    trainer.train()
    (log,) = [x for x in trainer.state.log_history if "maj@2" in x]
    assert log["tools/call_frequency"] > 0 and log["reward"] == 0


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        ("7", "7"),
        ([{"role": "assistant", "content": "7"}], "7"),
        ([{"role": "assistant", "content": "", "tool_calls": [{}]}, {"role": "tool", "content": "12"}], ""),
        ([{"role": "assistant", "content": None, "tool_calls": [{}]}], ""),
        ([{"role": "tool", "content": "12"}, {"role": "assistant", "content": "so 12"}], "so 12"),
    ],
)
def test_the_answer_of_a_tool_is_not_the_answer_of_the_model(completion: Any, answer: str) -> None:
    assert answer_of(completion) == answer
