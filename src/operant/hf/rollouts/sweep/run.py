"""``operant evaluate`` at one temperature, or at several: then each has a folder, and they are compared by prompt."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from rich.console import Console

from operant.core.checks import ConfigError, InputError
from operant.core.record import claim_folder
from operant.hf.config import EvaluateConfig, config_dict, current_names
from operant.hf.folder import write_job
from operant.hf.rollouts.evaluate import LOOSE, Models
from operant.hf.rollouts.evaluate import evaluate as evaluate_once
from operant.strategies import Sampler


def evaluate(config: EvaluateConfig) -> Path:
    """Evaluate at every temperature, and return the folder.

    Several temperatures have a folder each, ``temperature-T``, and the one nearest to 1 is what others are compared
    with. A sweep that was stopped continues with the temperature where it stopped.

    Raises:
        InputError: for no temperature, equal ones, or one that is not positive.
        ConfigError: for several temperatures of rollouts that are read from a file.
        DataError, BudgetError: as an evaluation at one temperature.
    """
    temperatures = config.temperature
    if not isinstance(temperatures, list):
        return evaluate_once(config)
    if not temperatures or len(set(temperatures)) < len(temperatures):
        raise InputError(f"expected temperatures that differ, got {temperatures}.")
    for t in temperatures:
        Sampler(t, config.top_p)  # refused before anything is sampled
    if config.rollouts_file is not None:
        raise ConfigError("rollouts of a file have the temperature that they were sampled at: leave temperature out.")
    models, base = Models(config, kept=True), min(temperatures, key=lambda t: abs(t - 1))
    with claim_folder(
        config.output_dir,
        "evaluate",
        config_dict(config),
        resume=config.resume,
        loose=LOOSE,
        current=lambda before: config_dict(EvaluateConfig()) | current_names(before),
    ):
        for t in temperatures:
            folder = config.output_dir / f"temperature-{t:g}"
            if (folder / "prompts.jsonl").is_file():
                continue
            Console().print(f"temperature {t:g}", highlight=False)
            # What a stopped sweep left of this temperature is continued.
            evaluate_once(replace(config, temperature=t, output_dir=folder, resume=config.resume), models)
            name, is_base = f"T = {t:g}", t == base
            write_job(folder, seed=config.seed, branch=name, role="evaluation", strategy=None, baseline=is_base)
    return config.output_dir
