"""Two processes whose groups are split between them take the step of one; each scenario is one run of both."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from operant import Outcomes, credit, parse
from operant.estimators import estimate_offpolicy
from operant.hf.rollouts.policy import load_policy
from operant.hf.trainers.rl import AlignedGRPOTrainer, AlignedRLOOTrainer
from tests.hf.trainers.rl_task import PROMPTS, Even, parameters, trained
from tests.hf.trainers.test_resample import Alive, rows
from tests.hf.trainers.test_rl import watched
from tests.hf.trainers.test_rl_step import gradient

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[3]
SPLIT: dict[str, Any] = dict(num_generations=4, per_device_train_batch_size=2, max_completion_length=4)
"""Two rows a process: each group of four lies on both."""
SCENARIOS: dict[str, tuple[Any, dict[str, Any]]] = {
    "grpo": (AlignedGRPOTrainer, dict(strategy="pass@2", gradient_accumulation_steps=2, max_steps=1)),
    "rloo": (AlignedRLOOTrainer, dict(strategy="maj@3", gradient_accumulation_steps=2, max_steps=1)),
    "off": (
        AlignedGRPOTrainer,
        dict(strategy="pass@2", gradient_accumulation_steps=4, off_policy=True, num_iterations=2, max_steps=2)
        | {"learning_rate": 1e-3},
    ),
    "plateau": (
        AlignedGRPOTrainer,
        dict(strategy="pass@1", strategy_schedule={"plateau": "maj@3"}, plateau_window=3, gradient_accumulation_steps=2)
        | {"max_steps": 8, "learning_rate": 1e-9},
    ),
    "dead": (AlignedGRPOTrainer, dict(strategy="pass@2", gradient_accumulation_steps=4, resample_dead=12, max_steps=1)),
}


def run(name: str, folder: Path) -> dict[str, Any]:
    cls, settings = SCENARIOS[name]
    rewards = [Alive(set(PROMPTS[8:]))] if name == "dead" else [Even()]
    start = watched if name == "off" else trained
    trainer = start(cls, folder / name, rewards=rewards, optim="sgd", max_grad_norm=0, **(SPLIT | settings))
    return {
        "rollouts": trainer.rollouts,
        "rewards": trainer.rewards,
        "texts": trainer.texts,
        "micro": trainer.micro,
        "current": getattr(trainer, "current", None),
        "parameters": parameters(trainer),
        "log": trainer.state.log_history,
        "schedule": trainer.schedule.state_dict(),
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    target = Path(sys.argv[1])
    torch.save({name: run(name, target) for name in SCENARIOS}, target / f"{os.environ['RANK']}.pt")


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, dict[str, Any]]]:
    """What both processes saw, from one launch."""
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = os.environ | {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "WORLD_SIZE": "2",
        "ACCELERATE_USE_CPU": "true",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }
    command = [sys.executable, "-W", "ignore", "-m", "tests.hf.trainers.test_rl_distributed", str(folder)]
    files = [folder / f"{rank}.log" for rank in range(2)]
    processes = []
    for rank, file in enumerate(files):
        env = common | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        with file.open("w") as log:
            processes.append(subprocess.Popen(command, env=env, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT))
    try:
        codes = [process.wait(timeout=300) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert codes == [0, 0], "\n".join(file.read_text()[-4000:] for file in files)
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(2)]


def whole(ranks: list[Any], name: str, generation: int = 0) -> dict[str, torch.Tensor]:
    """The rollouts of both ranks, padded alike."""
    parts = [r[name]["rollouts"][generation] for r in ranks]
    out = {}
    for key in ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask", "advantages"):
        width = max(p[key].shape[-1] for p in parts)
        left = key.startswith("prompt")
        pad = [p[key] if p[key].ndim == 1 else _pad(p[key], width - p[key].shape[-1], left) for p in parts]
        out[key] = torch.cat(pad)
    return out


def _pad(x: torch.Tensor, size: int, left: bool) -> torch.Tensor:
    return torch.nn.functional.pad(x, (size, 0) if left else (0, size))


def outcomes(found: dict[str, Any], ranks: list[Any], name: str, generation: int = 0) -> Outcomes:
    reward = found["rewards"][generation].double().view(-1, 4)
    texts = [c for r in ranks for c in r[name]["texts"][generation][1]]
    answer = torch.tensor([int(c[0]) if c[:1].isdigit() else -1 for c in texts]).view(-1, 4)
    return Outcomes(reward, answer)


def same(advantages: torch.Tensor, want: torch.Tensor) -> None:
    """Equal to the float32 that is stored. A weight of 0 may be 4e-16: a vote's sums depend on the groups of a call."""
    torch.testing.assert_close(advantages, want.float(), rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("name", ["grpo", "rloo"])
def test_two_processes_take_the_step_of_the_formula(ranks, tmp_path, name: str) -> None:
    """Groups lie across both ranks; by hand from the rows of both, in one process."""
    a, b = (r[name] for r in ranks)
    assert torch.equal(a["parameters"], b["parameters"]) and torch.equal(a["rewards"][0], b["rewards"][0])
    assert a["texts"][0][1] != b["texts"][0][1]
    o = outcomes(a, ranks, name)
    want = (4 * credit(parse(SCENARIOS[name][1]["strategy"]), o)).view(-1)
    out = whole(ranks, name)
    same(out["advantages"], want)
    assert len(want) == 8 and want.any()
    grad = gradient(out, want, 8 * 4 if name == "grpo" else 8)
    start = load_policy("embedded", seed=3, device="cpu").model
    stepped = torch.cat([(p - 1e-2 * grad[n]).detach().flatten() for n, p in start.named_parameters()])
    torch.testing.assert_close(a["parameters"], stepped, rtol=0, atol=2e-7)
    before = torch.cat([p.detach().flatten() for p in start.parameters()])
    assert (stepped - before).abs().max() > 1e-4
    strategy = SCENARIOS[name][1]["strategy"]
    assert a["log"][0][strategy] == b["log"][0][strategy]


def test_a_later_step_on_two_processes_is_off_policy(ranks) -> None:
    """Ratios of both ranks together make the weights of a group."""
    a, b = (r["off"] for r in ranks)
    assert torch.equal(a["parameters"], b["parameters"]) and len(a["rollouts"]) == 1
    o = outcomes(a, ranks, "off")
    ratio = torch.cat([r["off"]["current"][4] - r["off"]["current"][0] for r in ranks]).view(-1, 4)
    assert 0 < ratio.abs().max() < 1
    want = (4 * estimate_offpolicy(parse("pass@2"), o, ratio).weights).view(2, -1)
    on_policy = (4 * credit(parse("pass@2"), o)).view(2, -1)
    for rank, found in enumerate((a, b)):
        for step, wanted in enumerate((on_policy, want)):
            for part in found["micro"][4 * step : 4 * step + 4]:
                torch.testing.assert_close(
                    part["advantages"].double(), wanted[rank][part["rollout"]], rtol=1e-5, atol=2e-5
                )
    assert (on_policy - want).abs().max() > 1e-4


def test_dead_groups_are_replaced_across_processes(ranks) -> None:
    """Both halves of every group have one prompt, and widths differ between ranks."""
    a, b = (r["dead"] for r in ranks)
    assert torch.equal(a["parameters"], b["parameters"]) and len(a["texts"]) > 1
    out = whole(ranks, "dead")
    pairs = rows(out)
    prompts = [[p for p, _ in pairs[i : i + 4]] for i in range(0, 16, 4)]
    assert all(len(set(p)) == 1 for p in prompts)
    total = torch.cat([r["dead"]["rollouts"][0]["completion_mask"].sum()[None] for r in ranks]).sum()
    assert all(r["dead"]["rollouts"][0]["num_items_in_batch"] == total for r in ranks)
    assert a["log"][0]["dead_groups_left"] == 0 < a["log"][0]["dead_groups"]
    policy = load_policy("embedded", seed=3, device="cpu")
    decode = policy.tokenizer.decode
    reward = Alive(set(PROMPTS[8:]))
    r = reward([decode(p) for p, _ in pairs], [decode(c, skip_special_tokens=True) for _, c in pairs])
    want = 4 * credit(parse("pass@2"), Outcomes(torch.tensor(r).double().view(-1, 4)))
    same(out["advantages"], want.view(-1))
    assert want.any(-1).all()


def test_both_processes_switch_at_the_same_plateau(ranks) -> None:
    a, b = (r["plateau"] for r in ranks)
    assert a["schedule"] == b["schedule"] and a["schedule"]["switched"] == 6
    assert torch.equal(a["parameters"], b["parameters"])
    for generation, name in ((5, "pass@1"), (6, "maj@3")):
        want = (4 * credit(parse(name), outcomes(a, ranks, "plateau", generation))).view(-1)
        same(whole(ranks, "plateau", generation)["advantages"], want)
