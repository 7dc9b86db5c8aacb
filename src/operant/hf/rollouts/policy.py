"""A language model as a policy: load it, and bring prompts into the form that it, or TRL, takes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel, get_peft_model
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

from operant.core.checks import DataError
from operant.core.rng import child_seed
from operant.hf.rollouts.chat import asked, end_of_turn, is_chat, prompt_tokens
from operant.hf.rollouts.prompts import EMBEDDED, DataConfig
from operant.verify import Prompt


@dataclass(frozen=True)
class Encoded:
    """A prompt as tokens, and its answer as tokens with the end-of-sequence token."""

    prompt: list[int]
    target: list[int]


@dataclass(frozen=True)
class Policy:
    """A causal language model, or its adapter, with its tokenizer.

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
        # As TRL reads them: evaluation and training must agree on where a completion ends.
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
        """Token that pads rows; it is masked everywhere."""
        pad = self.tokenizer.pad_token_id
        return int(self.tokenizer.eos_token_id if pad is None else pad)

    def text(self, tokens: Sequence[int]) -> str:
        """The text of a completion, as TRL decodes it: without special tokens, its end among them."""
        return self.tokenizer.decode(tokens, skip_special_tokens=True)

    def finished(self, tokens: Sequence[int]) -> bool:
        """Whether a completion ended by itself and was not cut at the length limit."""
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
    # Its bars would break those of operant.
    transformers_logging.disable_progress_bar()
    where = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    if name == EMBEDDED:
        model: Any = embedded_model(seed)
        return Policy(model.to(where), embedded_tokenizer())
    dtype = dtype or (torch.bfloat16 if where.startswith("cuda") else torch.float32)
    adapter = Path(name) / "adapter_config.json"
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(name)
        tokenizer("0")  # damaged settings raise only when a text is read
        if adapter.is_file():
            base = str(LoraConfig.from_pretrained(name).base_model_name_or_path)
            model, info = _loaded(base, dtype)
            model = PeftModel.from_pretrained(model, name, is_trainable=trainable)
        else:
            model, info = _loaded(name, dtype)
    except Exception as error:  # a damaged folder raises errors of many kinds
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
    """The model, and what transformers reports about loading its weights."""
    return AutoModelForCausalLM.from_pretrained(name, dtype=dtype, output_loading_info=True)  # pyright: ignore


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


def add_lora(policy: Policy, *, rank: int, alpha: int, seed: int) -> Policy:
    """LoRA on all linear layers, initialized from ``seed``."""
    # Branches of one seed start from the same adapter.
    torch.manual_seed(child_seed(seed, "lora"))
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules="all-linear", task_type="CAUSAL_LM")
    return Policy(get_peft_model(policy.model, config), policy.tokenizer)


def encode(policy: Policy, prompts: Sequence[Prompt], data: DataConfig, max_tokens: int) -> list[Encoded]:
    """Prompts and targets as tokens, tokenized separately: rollouts start from exactly these prompt tokens.

    A target ends with the token that the chat template puts after an answer (``<|eot_id|>``,
    ``<end_of_turn>``, ``<|im_end|>``) if generation ends there, else with the tokenizer's end-of-sequence token.

    Raises:
        DataError: if one is longer than ``max_tokens`` (a cut answer would have another probability), or a
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


def unread(policy: Policy, prompts: Sequence[Prompt], encoded: Sequence[Encoded]) -> str:
    """What the tokenizer cannot read, in words; "" if it reads everything. To the model all of it is one token."""
    unknown = policy.tokenizer.unk_token_id
    places = [i for i, e in enumerate(encoded) if unknown is not None and unknown in (*e.prompt, *e.target)]
    if not places:
        return ""
    text = "".join(prompts[i].text + prompts[i].target for i in places[:100])
    known = {c for c in set(text) if unknown not in policy.tokenizer(c, add_special_tokens=False)["input_ids"]}
    missing = " ".join(sorted(set(text) - known - {" "})[:12])
    return (
        f"{len(places)} of {len(encoded)} prompts have characters that the tokenizer does not know, such as {missing}. "
        "The model sees the same token in the place of each. Choose another model, unless this is what you want."
    )


def dataset(policy: Policy, prompts: Sequence[Prompt], data: DataConfig) -> Dataset:
    """Prompts as TRL takes them, such that it tokenizes them as :func:`encode` does.

    With a chat template the prompts are conversations. TRL applies the template itself, and a text that already has
    it would get a second beginning-of-sequence token.
    """
    said = asked(prompts, chat=is_chat(policy.tokenizer, data))
    return Dataset.from_list(
        [
            {"prompt": prompt, "id": p.id, "target": p.target, "info": json.dumps(dict(p.info))}
            for p, prompt in zip(prompts, said, strict=True)
        ]
    )


def byte_tokenizer(words: Sequence[str] = ()) -> PreTrainedTokenizerFast:
    """One token a UTF-8 byte, and one for each of ``words`` that is no special token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate(["<pad>", "<eos>", *alphabet])}
    tokenizer: Any = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens(
        [AddedToken(word, normalized=False) for word in dict.fromkeys(words) if word not in vocabulary]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", clean_up_tokenization_spaces=False
    )


def byte_policy(words: Sequence[str] = (), *, seed: int = 0, hidden: int = 128, layers: int = 4) -> Policy:
    """A Llama over bytes with random weights from ``seed``: 830,000 parameters with the defaults."""
    tokenizer: Any = byte_tokenizer(words)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=8 * hidden // 3,
        num_hidden_layers=layers,
        num_attention_heads=4,
        max_position_embeddings=4096,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        tie_word_embeddings=True,
        # 0.18 at width 32, 0.022 at width 128. On parity at width 32, exclusive or took 36 steps with 0.18, 68 with
        # 0.06 and more than 120 with transformers' 0.02. On the string programs at width 64, 300 steps gave 65 % of
        # the tokens with 0.02 and 46 % with 0.125.
        initializer_range=min(hidden**-0.5, 32 * hidden**-1.5),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(child_seed(seed, "byte model"))
        return Policy(LlamaForCausalLM(config), tokenizer)
