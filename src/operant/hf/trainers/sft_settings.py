"""The settings of the SFT trainer, and the values that it rejects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from trl import SFTConfig  # pyright: ignore[reportPrivateImportUsage]

from operant.core.checks import ConfigError

Level = Literal["sequence", "answer", "token", "step"]


@dataclass
class AlignedSFTConfig(SFTConfig):
    """TRL's SFTConfig with the strategy that the model will be deployed with.

    Args:
        strategy: a strategy string with an S(p), such as "pass@16" or "mix(pass@1:0.25, pass@64:0.75)".
        level: the event whose probability is p. The loss of a sequence y with target tokens y_t is

            - "sequence": -log S(p), p = prod_t p_t, the whole target. For short answers. On a long solution p ~ e^-80
              and the loss is cross-entropy up to a factor.
            - "answer": f(p) (-log p(y)), f = p S'/S. p is the measured success rate of the current model on the
              prompt and constant between measurements. For long solutions whose answer can be verified. Solutions
              with the same ``prompt_index`` share the weight of the prompt.
            - "step": sum over lines of -log S(p of the line); a line ends with the token that has the newline. For
              solutions that a search or a verifier checks line by line.
            - "token": sum over tokens of -log S(p_t). For targets whose tokens can be sampled again one by one;
              elsewhere a heuristic that gives little weight to tokens that the model knows.
        transform: g in g(1) - g(S), in the place of -log S: "log:0.02", "arcsin" or "logit:0.1" (see
            ``operant.estimators.Transform``). "" is -log S.
        refresh_steps: optimizer steps between measurements of the success rates; 0 = measure only at the start.
        margin: lambda in (1 - lambda) loss + lambda sum_t token_margin, in [0, 1]; 0.5 in the paper's appendix A.7.
        rivals: sampled rivals per token for the margin; 0 = their expectation, which has no sampling noise.
        max_length: with packing the size of a bin, which no row may exceed. Otherwise None, because the probability
            of a truncated answer is another probability.
        logging_nan_inf_filter: transformers' replacement of a NaN loss in the log, which waits for the GPU at every
            micro-batch. Off, because such a loss is an error here.
    """

    strategy: str = field(default="pass@16", metadata={"help": "Strategy string, for example pass@16."})
    level: Level = field(default="sequence", metadata={"help": "The event whose probability is p."})
    transform: str = field(default="", metadata={"help": "g in the place of the logarithm: log:0.02, arcsin."})
    refresh_steps: int = field(default=0, metadata={"help": "Steps between measurements; 0 = at the start only."})
    margin: float = field(default=0.0, metadata={"help": "Share of the token margin in the loss."})
    rivals: int = field(default=4, metadata={"help": "Rivals per token for the margin; 0 = their expectation."})
    max_length: int | None = field(default=None, metadata={"help": "Bin size of packing; otherwise None."})
    logging_nan_inf_filter: bool = field(default=False, metadata={"help": "Off: a NaN is an error here."})


def default_folder(model: Any, method: str) -> str:
    """The folder that TRL writes to by default."""
    name = model if isinstance(model, str) else str(getattr(model.config, "_name_or_path", ""))
    return f"{name.split('/')[-1]}-{method}"


def check_settings(args: AlignedSFTConfig, measure: object, kwargs: Mapping[str, Any]) -> None:
    """Reject settings that would change the objective, or that would be ignored silently.

    Raises:
        ConfigError: with the reason.
    """
    if not isinstance(args, AlignedSFTConfig):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ConfigError(
            f"args must be an AlignedSFTConfig, which has the strategy, got {type(args).__name__}. It takes every "
            "field of TRL's SFTConfig: use AlignedSFTConfig(strategy=..., ...) instead."
        )
    packing = args.packing or bool(args.eval_packing)
    wrong = {
        f"targets must not be truncated: set max_length=None (got {args.max_length}), or packing=True with max_length "
        "as the size of a bin.": args.max_length is not None and not packing,
        "packing keeps every target whole in one bin: set max_length to the size of a bin.": packing
        and args.max_length is None,
        f"packing must keep targets whole: packing_strategy must be 'bfd', got {args.packing_strategy!r}.": packing
        and args.packing_strategy != "bfd",
        "pad_to_multiple_of adds sequences of padding to padding-free batches: leave it unset.": (
            (args.padding_free or packing) and args.pad_to_multiple_of is not None
        ),
        f"level must be one of {get_args(Level)}, got {args.level!r}.": args.level not in get_args(Level),
        f'level="answer" needs measure, and only it takes one; got level {args.level!r}, measure {measure!r}.': (
            (args.level == "answer") != (measure is not None)
        ),
        f"refresh_steps must be >= 0, got {args.refresh_steps}.": args.refresh_steps < 0,
        f"margin must lie in [0, 1], got {args.margin}.": not 0 <= args.margin <= 1,
        "the strategy defines the loss: leave loss_type, label_smoothing_factor and compute_loss_func unset.": (
            args.loss_type == "dft" or args.label_smoothing_factor > 0 or kwargs.get("compute_loss_func") is not None
        ),
        f"expected one process per GPU, got {args.n_gpu} GPUs in one process: start with accelerate launch.": args.n_gpu
        > 1,
    }
    for message, found in wrong.items():
        if found:
            raise ConfigError(message)
