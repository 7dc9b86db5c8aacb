"""What is compared: the tasks, and the arms with the learning rates that each may choose from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from tasks import Task

SMALL = {"sign": "*", "digits": 3, "shift": 4, "hidden": 16, "warm_steps": 240}
QUOTIENTS = {"sign": "/", "digits": 3, "hidden": 8, "warm_steps": 240}

TASKS = {
    "SFT, few rows": Task("sft", sign="*", warm_steps=100, steps=300),
    "SFT, wrong labels": Task("sft", sign="*", warm_steps=100, wrong=0.3, steps=300),
    "SFT, small model": Task("sft", rows=60000, steps=300, **SMALL),
    "SFT, small model, quotients": Task("sft", rows=60000, steps=300, **QUOTIENTS),
    "RL, sums from 5 %": Task("rl", warm_steps=1000, start=0.05, steps=300),
    "RL, sums from 20 %": Task("rl", warm_steps=1000, start=0.2, steps=300),
    "RL, sums from 50 %": Task("rl", warm_steps=1000, start=0.5, steps=300),
    "RL, differences from 5 %": Task("rl", sign="-", warm_steps=1000, start=0.05, steps=300),
    "RL, differences from 20 %": Task("rl", sign="-", warm_steps=1000, start=0.2, steps=300),
    "RL, quotients from 5 %": Task("rl", sign="/", digits=3, rows=20000, warm_steps=1000, start=0.05, steps=300),
    "RL, quotients from 20 %": Task("rl", sign="/", digits=3, rows=20000, warm_steps=1000, start=0.2, steps=300),
    "RL, leading digits from 5 %": Task(
        "rl", sign="*", digits=3, shift=4, rows=20000, warm_steps=1000, start=0.05, steps=300
    ),
    "RL, products": Task("rl", sign="*", warm_steps=300, steps=300),
    "RL, wrong verdicts": Task("rl", warm_steps=1000, start=0.2, wrong=0.3, steps=300),
    "RL, small model, sums from 10 %": Task(
        "rl", digits=3, rows=20000, hidden=16, warm_steps=3000, start=0.1, steps=300
    ),
    "RL, small model": Task("rl", rows=20000, steps=300, **SMALL),
    "RL, sums after cross-entropy": Task("rl", warm_steps=400, steps=100),
    "RL, sums after SFT pass@16": Task("rl", warm_steps=400, warm="pass@16", steps=100),
}

# The second is the rate of screening. In RL, 1e-2 was the worst for GRPO and pass@16 (seed 0, from 5 %).
RL_RATES, SFT_RATES = (1e-3, 3e-3, 3e-4), (4e-3, 8e-3, 1.6e-2)


@dataclass(frozen=True)
class Arm:
    """A recipe.

    Args:
        method: "sft", "rl" (ours), or TRL's own trainer: "grpo", "dr_grpo", "rloo".
        strategy: what is trained for.
        settings: further fields of the trainer's configuration.
        prompts: a step of RL.
        rollouts: of each prompt.
        graded: whether the reward is graded.
    """

    method: Literal["sft", "rl", "grpo", "dr_grpo", "rloo"]
    strategy: str = "pass@1"
    settings: dict[str, Any] = field(default_factory=dict)
    prompts: int = 16
    rollouts: int = 32
    graded: bool = False

    @property
    def baseline(self) -> bool:
        """Whether it is a baseline: cross-entropy, or TRL's own."""
        plain = self.strategy == "pass@1" and not self.settings
        return self.method not in ("sft", "rl") or (self.method == "sft" and plain)

    @property
    def rates(self) -> tuple[float, ...]:
        """Learning rates to choose from."""
        return SFT_RATES if self.method == "sft" else RL_RATES


def log(eps: float) -> dict[str, Any]:
    """Settings of a transform: the logarithm of V + eps."""
    return {"transform": f"log:{eps}"}


ARCSIN, LOGIT, LINEAR = {"transform": "arcsin"}, {"transform": "logit:0.1"}, {"lr_scheduler_type": "linear"}

SFT = {
    "cross-entropy": Arm("sft"),
    "pass@4": Arm("sft", "pass@4"),
    "pass@16": Arm("sft", "pass@16"),
    "pass@64": Arm("sft", "pass@64"),
    "pass@256": Arm("sft", "pass@256"),
    "mix(pass@1:0.25, pass@64:0.75)": Arm("sft", "mix(pass@1:0.25, pass@64:0.75)"),
    "harmonic(pass@16)": Arm("sft", "harmonic(pass@16)"),
    "pass@16, log .1": Arm("sft", "pass@16", log(0.1)),
    "pass@64, log .1": Arm("sft", "pass@64", log(0.1)),
    "pass@1, log .1": Arm("sft", "pass@1", log(0.1)),
    "pass@1, log .02": Arm("sft", "pass@1", log(0.02)),
    "pass@1, log .3": Arm("sft", "pass@1", log(0.3)),
    "pass@1, arcsin": Arm("sft", "pass@1", ARCSIN),
    **{s: Arm("sft", s) for s in ("threshold@16:4", "threshold@64:16", "threshold@64:22", "threshold@64:26")},
    "margins": Arm("sft", settings={"margin": 0.5, "rivals": 4}),
}

RL = {
    "GRPO": Arm("grpo"),
    "Dr. GRPO": Arm("dr_grpo"),
    "RLOO": Arm("rloo"),
    "pass@16": Arm("rl", "pass@16"),
    "pass@16, M = 64": Arm("rl", "pass@16", prompts=8, rollouts=64),
    "pass@16, log .02": Arm("rl", "pass@16", log(0.02)),
    "pass@16, arcsin": Arm("rl", "pass@16", ARCSIN),
    "pass@1, log .02": Arm("rl", "pass@1", log(0.02)),
    "pass@1, log .1": Arm("rl", "pass@1", log(0.1)),
    "pass@1, log .3": Arm("rl", "pass@1", log(0.3)),
    "pass@1, arcsin": Arm("rl", "pass@1", ARCSIN),
    "pass@1, logit .1": Arm("rl", "pass@1", LOGIT),
    "pass@4, log .1": Arm("rl", "pass@4", log(0.1)),
    "mix(pass@1:0.5, pass@16:0.5)": Arm("rl", "mix(pass@1:0.5, pass@16:0.5)"),
    "harmonic(pass@16)": Arm("rl", "harmonic(pass@16)"),
    "maj@16": Arm("rl", "maj@16"),
    "maj@16, M = 64": Arm("rl", "maj@16", prompts=8, rollouts=64),
    "maj@16, log .02": Arm("rl", "maj@16", log(0.02)),
    "maj@16, log .1": Arm("rl", "maj@16", log(0.1)),
    "maj@16, arcsin": Arm("rl", "maj@16", ARCSIN),
    "maj@5, log .1": Arm("rl", "maj@5", log(0.1)),
    "mix(pass@1:0.5, maj@16:0.5)": Arm("rl", "mix(pass@1:0.5, maj@16:0.5)"),
    "pass@1, then maj@16": Arm("rl", "pass@1", {"strategy_schedule": {"plateau": "maj@16"}}),
    "pass@2, 4, 8, 16": Arm("rl", "pass@2", {"strategy_schedule": {"75": "pass@4", "150": "pass@8", "225": "pass@16"}}),
    "MaxRL": Arm("rl", "pass@1", {"form": "maxrl"}),
    "PKPO": Arm("rl", "pass@16", {"form": "pkpo"}),
    "paper, log pass@16": Arm("rl", "pass@16", {"form": "paper-log"}),
    "paper, raw pass@16": Arm("rl", "pass@16", {"form": "paper-raw"}),
    "paper, raw maj@16": Arm("rl", "maj@16", {"form": "paper-raw"}),
    "GRPO, pass@16 shaping": Arm("rl", "pass@16", {"form": "grpo-passk"}),
    "GRPO, beta .02": Arm("grpo", settings={"beta": 0.02}),
    "GRPO, linear": Arm("grpo", settings=LINEAR),
    "pass@1, log .02, linear": Arm("rl", "pass@1", log(0.02) | LINEAR),
    "pass@16, arcsin, linear": Arm("rl", "pass@16", ARCSIN | LINEAR),
    "GRPO, beta .1": Arm("grpo", settings={"beta": 0.1}),
    "pass@1, log .02, beta .02": Arm("rl", "pass@1", log(0.02) | {"beta": 0.02}),
    "pass@1, log .02, beta .1": Arm("rl", "pass@1", log(0.02) | {"beta": 0.1}),
    "pass@1, log .1, beta .02": Arm("rl", "pass@1", log(0.1) | {"beta": 0.02}),
    "maj@16, log .1, beta .02": Arm("rl", "maj@16", log(0.1) | {"beta": 0.02}),
    "pass@16, beta .02": Arm("rl", "pass@16", {"beta": 0.02}),
}

GRADED = {
    "GRPO, graded": Arm("grpo", graded=True),
    "Dr. GRPO, graded": Arm("dr_grpo", graded=True),
    "RLOO, graded": Arm("rloo", graded=True),
    "best@8": Arm("rl", "best@8", graded=True),
    "GRPO, graded, linear": Arm("grpo", settings=LINEAR, graded=True),
    "best@8, linear": Arm("rl", "best@8", LINEAR, graded=True),
    "best@8, M = 64": Arm("rl", "best@8", prompts=8, rollouts=64, graded=True),
    "best@4": Arm("rl", "best@4", graded=True),
    "best@8, log .1": Arm("rl", "best@8", log(0.1), graded=True),
    "best@8, arcsin": Arm("rl", "best@8", ARCSIN, graded=True),
    "best@8, logit .1": Arm("rl", "best@8", LOGIT, graded=True),
    "mix(best@1:0.5, best@8:0.5)": Arm("rl", "mix(best@1:0.5, best@8:0.5)", graded=True),
    "paper, raw best@8": Arm("rl", "best@8", {"form": "paper-raw"}, graded=True),
}

ARMS = {**{f"SFT {name}": arm for name, arm in SFT.items()}, **RL, **GRADED}
