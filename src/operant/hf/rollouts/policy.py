"""A language model as a policy: load, encode, log-probability of an answer, sample."""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache, GenerationConfig
from transformers.utils import logging as transformers_logging

from operant.core.checks import DataError
from operant.core.rng import child_seed
from operant.hf.rollouts.chat import asked, end_of_turn, is_chat, prompt_tokens
from operant.hf.rollouts.embedded import embedded_model, embedded_tokenizer
from operant.hf.rollouts.prompts import EMBEDDED, DataConfig
from operant.strategies.sampler import Sampler
from operant.verify import Prompt

NEUTRAL: dict[str, Any] = {"top_k": 0, "num_beams": 1}
"""Defaults of transformers that would sample from another distribution than stated."""


@dataclass(frozen=True)
class Encoded:
    """A prompt as tokens, and its answer as tokens with the end-of-sequence token."""

    prompt: list[int]
    target: list[int]


@dataclass(frozen=True)
class Policy:
    """A causal language model (or its adapter) with its tokenizer; transformers' own types help little here.

    Args:
        model: the model.
        tokenizer: its tokenizer, with an end-of-sequence token.
        ends: tokens at which a completion ends. Default: the tokenizer's end-of-sequence token and all that the model's
            generation_config declares, as in TRL. Chat models declare several.
    """

    model: Any
    tokenizer: Any
    ends: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Read the end tokens."""
        if not self.ends:
            found = getattr(getattr(self.model, "generation_config", None), "eos_token_id", None)
            declared: list[Any] = found if isinstance(found, list) else [] if found is None else [found]
            if not all(type(token) is int for token in declared):
                raise DataError(
                    "eos_token_id of the model's generation_config must be a token id or a list of them, got "
                    f"{found!r}. Mend generation_config.json."
                )
            object.__setattr__(self, "ends", tuple(dict.fromkeys([int(self.tokenizer.eos_token_id), *declared])))

    @property
    def device(self) -> torch.device:
        """Where the model lies."""
        return next(self.model.parameters()).device

    @property
    def pad(self) -> int:
        """Token that fills rows up; masked everywhere."""
        pad = self.tokenizer.pad_token_id
        return int(self.tokenizer.eos_token_id if pad is None else pad)

    def text(self, tokens: Sequence[int]) -> str:
        """The text of a completion, as TRL decodes it: without special tokens, its end among them."""
        return self.tokenizer.decode(tokens, skip_special_tokens=True)

    def finished(self, tokens: Sequence[int]) -> bool:
        """Whether a completion ended by itself, and was not cut at its length."""
        return bool(tokens) and tokens[-1] in self.ends

    def save(self, path: Path) -> None:
        """Write weights (or the adapter) and tokenizer as a folder that :func:`load_policy` reads."""
        self.model.save_pretrained(path)
        self.tokenizer.save_pretrained(path)


def load_policy(
    name: str,
    *,
    seed: int = 0,
    device: str = "auto",
    dtype: torch.dtype | None = None,
    trainable: bool = False,
) -> Policy:
    """Load a model folder, an adapter folder, a Hub id, or the embedded transformer.

    Args:
        name: path, Hub id, or "embedded" (a 100k-parameter Llama with random weights, from ``seed``).
        seed: for the embedded model only.
        device: "auto" takes a GPU where there is one.
        dtype: of the weights. Default: bfloat16 on a GPU, float32 on the CPU.
        trainable: whether an adapter is to be trained further.

    Raises:
        DataError: if nothing is found there.
    """
    transformers_logging.disable_progress_bar()
    where = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    if name == EMBEDDED:
        model: Any = embedded_model(seed)
        return Policy(model.to(where), embedded_tokenizer())
    dtype = dtype or (torch.bfloat16 if where.startswith("cuda") else torch.float32)
    adapter = Path(name) / "adapter_config.json"
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(name)
        tokenizer("0")  # settings of another type are found only when it reads
        if adapter.is_file():
            base = str(LoraConfig.from_pretrained(name).base_model_name_or_path)
            model, info = _loaded(base, dtype)
            model = PeftModel.from_pretrained(model, name, is_trainable=trainable)
        else:
            model, info = _loaded(name, dtype)
    except Exception as error:  # a damaged folder raises nearly anything in there
        raise DataError(
            f"cannot load a causal language model from {name!r} ({type(error).__name__}: {error}). Expected a folder "
            "written by save_pretrained, a Hub id, or 'embedded'."
        ) from error
    if info["missing_keys"]:  # transformers would fill them with random numbers
        lacking = sorted(info["missing_keys"])
        raise DataError(
            f"{name!r} lacks {len(lacking)} of its weights, for example {lacking[0]}. Save or download the model again."
        )
    if tokenizer.eos_token_id is None:
        raise DataError(f"the tokenizer of {name!r} has no end-of-sequence token: set one and save it.")
    return Policy(model.to(where), tokenizer)


def _loaded(name: str, dtype: torch.dtype) -> tuple[Any, dict[str, Any]]:
    """The model, and what transformers says of its weights."""
    return AutoModelForCausalLM.from_pretrained(name, dtype=dtype, output_loading_info=True)  # pyright: ignore


def add_lora(policy: Policy, *, rank: int, alpha: int, seed: int) -> Policy:
    """LoRA on all linear layers, initialised from ``seed``."""
    torch.manual_seed(child_seed(seed, "lora"))
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules="all-linear", task_type="CAUSAL_LM")
    return Policy(get_peft_model(policy.model, config), policy.tokenizer)


def encode(policy: Policy, prompts: Sequence[Prompt], data: DataConfig, max_tokens: int) -> list[Encoded]:
    """Prompts and targets as tokens, tokenised apart: rollouts start from exactly these prompt tokens.

    A target ends with the token that the chat template puts after an answer (<|eot_id|>, <end_of_turn>, <|im_end|>) if
    generation ends there, else with the tokenizer's end-of-sequence token.

    Raises:
        DataError: if one is longer than ``max_tokens`` (the probability of a cut answer is another one), or a
            chat template is needed and there is none.
    """
    chat = is_chat(policy.tokenizer, data)
    end = end_of_turn(policy.tokenizer, policy.ends) if chat else int(policy.tokenizer.eos_token_id)
    encoded = []
    for prompt, text in zip(prompts, asked(prompts, chat=chat), strict=True):
        after = policy.tokenizer(prompt.target, add_special_tokens=False)["input_ids"]
        encoded.append(Encoded(prompt_tokens(policy.tokenizer, text), [*after, end]))
    longest = max(len(e.prompt) + len(e.target) for e in encoded)
    if longest > max_tokens:
        count = sum(len(e.prompt) + len(e.target) > max_tokens for e in encoded)
        raise DataError(
            f"{count} of {len(encoded)} examples are longer than max_tokens = {max_tokens} (longest {longest}). "
            "They are not cut: raise max_tokens, or remove them."
        )
    return encoded


def target_log_probs(
    model: torch.nn.Module,
    input_ids: Tensor,
    attention_mask: Tensor | None,
    labels: Tensor,
    sampler: Sampler = Sampler(),  # noqa: B008
    ends: Sequence[int] = (),
) -> Tensor:
    """Log-probability of each row's target under a sampler: the sum over tokens with a label, (B, T) -> (B,) float32.

    Only the positions that predict a target token anywhere in the batch go through the vocabulary layer. -inf where
    a token of the target lies outside the nucleus: this sampler never returns the target.

    Args:
        model: causal language model.
        input_ids: (B, T), right-padded.
        attention_mask: (B, T).
        labels: (B, T), -100 outside the target.
        sampler: temperature and nucleus.
        ends: tokens that end a completion all alike. A target whose last token is one of them gets the probability
            of its text: log sum_e p(a, e) over the ends e after the answer a.
    """
    keep = (labels[:, 1:] != -100).any(0).nonzero()[:, 0]  # (k,) positions before a target token
    logits = model(
        input_ids=input_ids, attention_mask=attention_mask, logits_to_keep=keep, use_cache=False
    ).logits  # (B, k, V)
    target, logits = labels[:, keep + 1], sampler.warp(logits.float())
    nll = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), target.flatten(), ignore_index=-100, reduction="none"
    ).view_as(target)  # (B, k)
    if len(ends) > 1:
        row = torch.arange(len(target), device=target.device)
        places = torch.arange(1, target.shape[1] + 1, device=target.device)
        last = ((target != -100) * places).argmax(-1)  # (B,)
        any_end = logits[row, last].log_softmax(-1)[:, list(ends)].logsumexp(-1)
        closed = torch.isin(target[row, last], target.new_tensor(ends))
        nll = nll.index_put((row, last), torch.where(closed, -any_end, nll[row, last]))
    return -nll.sum(-1)


@torch.no_grad()
def completion_log_probs(
    model: torch.nn.Module,
    prompt_ids: Tensor,
    prompt_mask: Tensor,
    completion_ids: Tensor,
    completion_mask: Tensor,
    *,
    sampler: Sampler,
    batch_size: int,
) -> Tensor:
    """(B, T) log-probability of every sampled token, 0 where masked; prompts (B, P) are left-padded."""
    ids, mask = torch.cat([prompt_ids, completion_ids], 1), torch.cat([prompt_mask, completion_mask], 1)
    width = completion_ids.shape[1]
    parts = []
    for rows in torch.arange(len(ids), device=ids.device).split(batch_size):
        out = model(input_ids=ids[rows], attention_mask=mask[rows], logits_to_keep=width + 1, use_cache=False)
        logits = sampler.warp(out.logits[:, :-1].float())
        nll = torch.nn.functional.cross_entropy(logits.flatten(0, 1), completion_ids[rows].flatten(), reduction="none")
        parts.append(torch.where(completion_mask[rows] > 0, -nll.view(-1, width), 0.0))
    return torch.cat(parts)


@torch.no_grad()
def answer_log_probs(
    policy: Policy,
    encoded: Sequence[Encoded],
    *,
    batch_size: int,
    sampler: Sampler = Sampler(),  # noqa: B008
) -> Tensor:
    """Exact log-probability that the sampler returns each target: (len(encoded),) float64, -inf where it cannot.

    The target may end with any of the policy's end tokens: a rollout that stops at another one has the same text.
    """
    was_training = policy.model.training
    policy.model.eval()
    order = sorted(range(len(encoded)), key=lambda i: len(encoded[i].prompt) + len(encoded[i].target))
    log_p = torch.empty(len(encoded), dtype=torch.float64)
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        batch = collate([encoded[i] for i in rows], policy.pad)
        batch = {name: value.to(policy.device) for name, value in batch.items()}
        log_p[rows] = target_log_probs(policy.model, **batch, sampler=sampler, ends=policy.ends).double().cpu()
    policy.model.train(was_training)
    return log_p


def collate(rows: Sequence[Encoded], pad: int) -> dict[str, Tensor]:
    """Right-padded input_ids, attention_mask and labels (-100 outside the target), each (B, T)."""
    width = max(len(r.prompt) + len(r.target) for r in rows)
    batch = {
        "input_ids": torch.full((len(rows), width), pad),
        "attention_mask": torch.zeros(len(rows), width, dtype=torch.long),
        "labels": torch.full((len(rows), width), -100),
    }
    for i, r in enumerate(rows):
        size = len(r.prompt) + len(r.target)
        batch["input_ids"][i, :size] = torch.tensor(r.prompt + r.target)
        batch["attention_mask"][i, :size] = 1
        batch["labels"][i, len(r.prompt) : size] = torch.tensor(r.target)
    return batch


@torch.no_grad()
def sample(
    policy: Policy,
    encoded: Sequence[Encoded],
    *,
    rollouts: int,
    sampler: Sampler,
    max_new_tokens: int,
    batch_size: int,
    seed: int,
    skip: int = 0,
) -> Iterator[list[list[int]]]:
    """Yield, chunk by chunk of prompts, ``rollouts`` completions for each prompt as token lists.

    They are i.i.d. from the sampler, whatever generation settings the model was saved with.
    Every chunk has its own seed, so a run that is continued after ``skip`` chunks samples what it would have
    sampled. A completion stops at any of the policy's ends, which is kept where the model produced it.
    """
    policy.model.eval()
    device = policy.device
    for chunk, first in list(enumerate(range(0, len(encoded), batch_size)))[skip:]:
        rows = encoded[first : first + batch_size]
        width = max(len(r.prompt) for r in rows)
        ids = torch.full((len(rows), width), policy.pad)
        mask = torch.zeros(len(rows), width, dtype=torch.long)
        for i, r in enumerate(rows):
            ids[i, width - len(r.prompt) :] = torch.tensor(r.prompt)
            mask[i, width - len(r.prompt) :] = 1
        ids, mask = ids.to(device), mask.to(device)
        cache = DynamicCache(config=policy.model.config)
        if width > 1:
            _prefill(policy, ids[:, :-1], mask[:, :-1], cache)
            cache.batch_repeat_interleave(rollouts)
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), _plain(policy.model):
            torch.manual_seed(child_seed(seed, "sample", chunk))
            out = policy.model.generate(
                input_ids=ids.repeat_interleave(rollouts, 0),
                attention_mask=mask.repeat_interleave(rollouts, 0),
                past_key_values=cache,
                do_sample=True,
                temperature=sampler.temperature,
                top_p=sampler.top_p,
                **NEUTRAL,
                max_new_tokens=max_new_tokens,
                pad_token_id=policy.pad,
                eos_token_id=list(policy.ends),
            )
        new = out[:, width:].tolist()
        yield [trim(tokens, policy.ends) for tokens in new]


@contextmanager
def _plain(model: Any) -> Generator[None]:
    """The model without the generation settings that it was saved with.

    generate takes from them what it is not told. Some would change the distribution (suppress_tokens, min_length,
    sequence_bias), some would stop it (cache_implementation, which gemma ships).
    """
    holders: list[Any] = [model, model.get_base_model()] if isinstance(model, PeftModel) else [model]
    kept = [holder.generation_config for holder in holders]
    try:
        for holder in holders:
            holder.generation_config = GenerationConfig()
        yield
    finally:
        for holder, config in zip(holders, kept, strict=True):
            holder.generation_config = config


def _prefill(policy: Policy, ids: Tensor, mask: Tensor, cache: DynamicCache) -> None:
    """Keys and values of the prompts, computed once and not once per rollout; (B, T) left-padded."""
    policy.model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=(mask.cumsum(-1) - 1).clamp(min=0),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )


def trim(tokens: list[int], ends: Collection[int]) -> list[int]:
    """Tokens up to and including the first end."""
    return tokens[: next((i + 1 for i, token in enumerate(tokens) if token in ends), None)]
