"""The configurations of ``operant extrapolate`` for text tasks and of ``operant demo language``.

Importing them loads no heavy library.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from operant.hf.rollouts.prompts import EMBEDDED


@dataclass(frozen=True)
class TextConfig:
    """Settings for text tasks (JSON lines).

    Args:
        bank: JSON lines of the known tasks, a demonstration a line.
        target: JSON lines of the targets. Lines with an output are supports ("" is an empty output), lines without one
            or with null are queries.
        query: JSON lines of further inputs to predict: of each target, or of all of them if they lack the task. Outputs
            in it are compared with the predictions and never used.
        task: the column that tells the tasks apart.
        x: the column of the inputs.
        y: the column of the outputs.
        parts: the column with the elements that a task of the bank is built of, a list, for the relation toggle.
        model: folder or Hub id of a causal language model, "embedded" (830,000 parameters over bytes, CPU), or the
            folder of a fitted model (model/ of an earlier run), which is not trained again.
        functions: the dotted path of a mapping from names of bank tasks to functions, such as mine.FUNCTIONS. A task
            with a function is run, the others are written by the model.
        relation: compose (chains of known tasks), toggle (a known task and one more element), or the dotted path of a
            Relation of your own.
        depth: for compose, steps of a chain at most.
        shots: for compose, demonstrations of the last step in its prompt. 0: the model knows the tasks by name.
        execute: who gives the last step's output: the model, or its function where it has one (run).
        lora_rank: rank of a LoRA adapter on all linear layers; 0 trains all weights.
        steps: optimizer steps.
        batch_size: examples a step.
        learning_rate: peak learning rate. Default: 3e-3 for the embedded model, 2e-4 with LoRA, 2e-5 for other models.
        max_tokens: longest prompt with its output, in tokens; a longer one is an error.
        hidden: width of the embedded model.
        layers: number of layers of the embedded model.
        save_steps: steps between checkpoints. 0 saves none: a run that was killed then trains again.
        seed: seed of everything random.
        threads: CPU threads. Default: 1 for the embedded model, else the cores.
        output_dir: folder of the run. It must be new, unless --resume is set.
        resume: continue a run that was stopped.
        open: whether to open the page in a browser.
    """

    bank: Path
    target: Path
    query: Path | None = None
    task: str = "task"
    x: str = "input"
    y: str = "output"
    parts: str = "parts"
    model: str = EMBEDDED
    functions: str = ""
    relation: str = "compose"
    depth: int = 2
    shots: int = 0
    execute: Literal["model", "run"] = "model"
    lora_rank: int = 0
    steps: int = 1200
    batch_size: int = 64
    learning_rate: float | None = None
    max_tokens: int = 512
    hidden: int = 128
    layers: int = 4
    save_steps: int = 200
    seed: int = 0
    threads: int | None = None
    output_dir: Path = Path("runs/extrapolation")
    resume: bool = False
    open: bool = False
