"""The embedded model: a small transformer over digits, made on the spot, for demos and tests."""

from __future__ import annotations

from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from operant.core.rng import child_seed


def embedded_tokenizer() -> PreTrainedTokenizerFast:
    """One token a character: digits, '*', '='."""
    vocabulary = {c: i for i, c in enumerate(["<pad>", "<eos>", "<unk>", *"0123456789*="])}
    tokenizer: Any = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>")


def embedded_model(seed: int) -> LlamaForCausalLM:
    """A Llama of 100,096 parameters with random weights from ``seed``."""
    tokenizer: Any = embedded_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=172,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=32,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(child_seed(seed, "embedded model"))
        return LlamaForCausalLM(config)
