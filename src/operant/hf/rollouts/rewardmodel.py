"""A reward model as a reward function: one number for each prompt with its completion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from operant.core.checks import DataError


class RewardModel:
    """The single output of a sequence-classification model, with the signature of TRL's reward functions.

    Args:
        name: folder or Hub id; a model with one label.
        device: where it computes.
        batch_size: texts per forward pass.

    Raises:
        DataError: if nothing is found there, or the model has more than one label.
    """

    def __init__(self, name: str, device: torch.device, *, batch_size: int = 32) -> None:
        self.__name__ = type(self).__name__
        self.batch_size = batch_size
        try:
            self.tokenizer: Any = AutoTokenizer.from_pretrained(name)
            model: Any = AutoModelForSequenceClassification.from_pretrained(name)
        except (OSError, ValueError) as error:
            raise DataError(f"cannot load a sequence-classification model from {name!r}: {error}") from error
        if model.config.num_labels != 1:
            raise DataError(f"a reward model has one label, the one in {name!r} has {model.config.num_labels}.")
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        # The model finds the last token of a row by it.
        model.config.pad_token_id = self.tokenizer.pad_token_id
        self.model = model.to(device).eval()

    @torch.no_grad()
    def __call__(self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float]:
        """Scores, in order; conversations go through the reward model's own chat template."""
        texts = [self._text(p, c) for p, c in zip(prompts, completions, strict=True)]
        scores: list[float] = []
        for start in range(0, len(texts), self.batch_size):
            batch = self.tokenizer(
                texts[start : start + self.batch_size],
                return_tensors="pt",
                padding=True,
                padding_side="right",
                # A chat template writes the special tokens itself.
                add_special_tokens=isinstance(prompts[0], str),
            ).to(self.model.device)
            scores += self.model(**batch).logits[:, 0].float().tolist()
        return scores

    def _text(self, prompt: Any, completion: Any) -> str:
        if isinstance(prompt, str):
            return prompt + completion
        return self.tokenizer.apply_chat_template([*prompt, *completion], tokenize=False)
