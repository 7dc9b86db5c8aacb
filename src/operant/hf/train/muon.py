"""Muon for the matrices of the layers and AdamW for the rest, as one optimizer that the Trainer can save and resume."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.optim import AdamW, Muon, Optimizer

MUON = 10.0
"""Learning rate of Muon over that of AdamW. An update of Muon has singular values near 1, so that 0.03 is usual."""
DECAY = 0.1
"""Weight decay of Muon. Without it the weights grow by a step each time: string programs had a loss of 5 after 1,000 of
10,000 steps and of 20 and 12 after 5,000 (two seeds). With 0.1 the loss was 0.5 after 6,000 steps."""


class MuonAdamW(Optimizer):
    """Two optimizers in one: Muon for matrices that are no embedding, AdamW for the other parameters.

    Embeddings and the output layer are left to AdamW, as Muon's authors do (https://kellerjordan.github.io/posts/muon).

    Args:
        model: its parameters that need a gradient.
        lr: of AdamW; Muon's is 10 times that.
    """

    def __init__(self, model: torch.nn.Module, *, lr: float) -> None:
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        tables = {id(m.weight) for m in model.modules() if isinstance(m, torch.nn.Embedding)}
        head: Any = getattr(model, "get_output_embeddings", lambda: None)()
        tables |= {id(head.weight)} if head is not None else set[int]()
        matrices = [p for _, p in named if p.ndim == 2 and id(p) not in tables]
        chosen = {id(p) for p in matrices}
        others = [p for _, p in named if id(p) not in chosen]
        self.parts: list[Optimizer] = []
        if matrices:
            self.parts.append(Muon(matrices, lr=MUON * lr, weight_decay=DECAY))
        if others:
            self.parts.append(AdamW(others, lr=lr, weight_decay=0.0))
        super().__init__([p for _, p in named], {})
        self._join()

    def _join(self) -> None:
        """A scheduler sets the learning rates of the parts."""
        self.param_groups = [group for part in self.parts for group in part.param_groups]

    def step(self, closure: Callable[[], float] | None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """A step of both."""
        for part in self.parts:
            part.step()

    def state_dict(self) -> dict[str, Any]:
        """The states of the parts."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Read what :meth:`state_dict` returned."""
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self._join()
