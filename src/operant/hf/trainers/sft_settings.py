"""The settings of the SFT trainer, and those that it refuses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from trl import SFTConfig  # pyright: ignore[reportPrivateImportUsage]

from operant.core.checks import ConfigError

Level = Literal["sequence", "answer", "token", "step"]


@dataclass
class AlignedSFTConfig(SFTConfig):
    """TRL's SFTConfig, and the strategy that the model will be deployed with.

    Args:
        strategy: a strategy string with an S(p), such as "pass@16" or "mix(pass@1:0.25, pass@64:0.75)".
        level: what p is the probability of. The loss of a sequence y with target tokens y_t is

            - "sequence": -log S(p), p = prod_t p_t, the whole target. For short answers. On a long solution p ~ e^-80
              and the loss is cross-entropy up to a factor.
            - "answer": f(p) (-log p(y)), f = p S'/S, p the measured success rate of the current model on the prompt,
              held fixed between measurements. For long solutions with an answer that can be verified. Solutions of
              the same ``prompt_index`` share the prompt's weight, so it counts once however many it has.
            - "step": sum over lines of -log S(p of the line); a line ends with the token that has the newline. For
              solutions that a search or a verifier goes through step by step.
            - "token": sum over tokens of -log S(p_t). For targets where any single token can be sampled again;
              elsewhere a heuristic that leaves out the tokens the model knows.
        refresh_steps: optimizer steps from one measurement of the success rates to the next; 0 = only at the start.
        margin: lambda in (1 - lambda) loss + lambda sum_t token_margin, in [0, 1]; 0.5 in the paper's appendix A.7.
        rivals: rivals a token for the margin; 0 = their expectation, the same without noise.
        max_length: with packing the size of a bin, which no row may exceed. Otherwise None: the probability of a
            cut answer is another probability.
    """

    strategy: str = field(default="pass@16", metadata={"help": "Strategy string, for example pass@16."})
    level: Level = field(default="sequence", metadata={"help": "What p is taken of."})
    refresh_steps: int = field(default=0, metadata={"help": "Steps between measurements; 0 = at the start only."})
    margin: float = field(default=0.0, metadata={"help": "Share of the token margin in the loss."})
    rivals: int = field(default=4, metadata={"help": "Rivals a token for the margin; 0 = their expectation."})
    max_length: int | None = field(default=None, metadata={"help": "Bin size of packing; otherwise None."})


def default_folder(model: Any, method: str) -> str:
    """Where TRL writes without settings."""
    name = model if isinstance(model, str) else str(getattr(model.config, "_name_or_path", ""))
    return f"{name.split('/')[-1]}-{method}"


def check_settings(args: AlignedSFTConfig, measure: object, kwargs: Mapping[str, Any]) -> None:
    """Refuse settings that would change the objective, or be passed over in silence."""
    if not isinstance(args, AlignedSFTConfig):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ConfigError(
            f"args must be an AlignedSFTConfig, which has the strategy, got {type(args).__name__}. It takes every "
            "field of TRL's SFTConfig: use AlignedSFTConfig(strategy=..., ...) instead."
        )
    packing = args.packing or bool(args.eval_packing)
    wrong = {
        f"the probability of a whole target needs one unbroken target: set max_length=None (got {args.max_length}), or "
        "packing=True with max_length as the size of a bin.": args.max_length is not None and not packing,
        "packing keeps every unbroken target in one bin: give the size of a bin as max_length.": packing
        and args.max_length is None,
        f"packing needs unbroken targets: packing_strategy must be 'bfd', got {args.packing_strategy!r}.": packing
        and args.packing_strategy != "bfd",
        "pad_to_multiple_of adds sequences of padding to padding-free batches: leave it out.": (
            (args.padding_free or packing) and args.pad_to_multiple_of is not None
        ),
        f"level must be one of {get_args(Level)}, got {args.level!r}.": args.level not in get_args(Level),
        f'level="answer" and measure belong together, got level {args.level!r} and measure {measure!r}.': (
            (args.level == "answer") != (measure is not None)
        ),
        f"refresh_steps must be >= 0, got {args.refresh_steps}.": args.refresh_steps < 0,
        f"margin must lie in [0, 1], got {args.margin}.": not 0 <= args.margin <= 1,
        "the loss is the strategy's: leave loss_type, label_smoothing_factor and compute_loss_func out.": (
            args.loss_type == "dft" or args.label_smoothing_factor > 0 or kwargs.get("compute_loss_func") is not None
        ),
        f"expected one process a GPU, got {args.n_gpu} GPUs in one: start with accelerate launch.": args.n_gpu > 1,
    }
    for message, found in wrong.items():
        if found:
            raise ConfigError(message)
