"""What a strategy asks of training: SFT losses from log-probabilities, RL weights from outcomes."""

from operant.objectives.groups import Advantages, advantage
from operant.objectives.margin import token_margin
from operant.objectives.rl import credit, dead_probability
from operant.objectives.sft import answer_loss, elasticity, elasticity_at, sft_loss

__all__ = [
    "Advantages",
    "advantage",
    "answer_loss",
    "credit",
    "dead_probability",
    "elasticity",
    "elasticity_at",
    "sft_loss",
    "token_margin",
]
