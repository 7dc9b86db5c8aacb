"""The command line: ``operant train | evaluate | plan | audit | extrapolate | report | demo``.

Each verb has one configuration class and one function.
"""

from __future__ import annotations

import os
import sys
import webbrowser
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from importlib.metadata import version
from pathlib import Path
from types import NoneType
from typing import Any, NoReturn, get_args, get_type_hints

import yaml

try:
    from jsonargparse import (
        ActionConfigFile,  # pyright: ignore[reportPrivateImportUsage]
        ArgumentParser,
        DefaultHelpFormatter,
    )
except ImportError as error:
    sys.exit(f"operant: the command line needs the extras: pip install 'operant[hf,report]' ({error})")

from operant.core.checks import DataError, ParseError
from operant.core.stop import Terminated, interrupt_of, terminable
from operant.core.trouble import told

LARGEST = 1_000_000
"""Bytes of the largest configuration that is read: a larger file is a data file that was passed by mistake."""
DEEPEST = 20
"""Deepest nesting of a configuration. PyYAML recurses, and deep nesting ends the process."""

TRAIN = """Train a language model for the strategy that it will be deployed with. A baseline is trained from the
same weights on the same prompts: cross-entropy for --method sft, TRL's own trainer for grpo and rloo.
The result is RUN/report/index.html.

  operant train --model MODEL_DIR --data.train train.jsonl --data.test test.jsonl --lora_rank 16
  operant train --strategies '[pass@16, pass@64]' --warm_steps 500 --steps 350 --learning_rate 4e-3 \\
      --per_device_train_batch_size 200 --output_dir runs/first     (the embedded model, two minutes)
  operant train --method grpo --output_dir runs/rl                (pass@16 by sampling, the embedded model)
  operant train --method grpo --model MODEL_DIR --data.train train.jsonl --strategies '[maj@8]' \\
      --num_generations 16 --verifier math --eval_rollouts 32 --lora_rank 16 --trainer '{loss_type: dapo}'
  accelerate launch -m operant.cli train --config run.yaml   (several GPUs; any configuration of accelerate)
  operant train --config run.yaml --learning_rate 2e-5       (flags override the file)
  operant train ... --print_config > run.yaml                (writes such a file)
"""
EVALUATE = """Sample a model M times per prompt, verify the answers, and print pass@k, maj@k and best@k with standard
errors. Or read rollouts from a file.

  operant evaluate --model RUN/seed0/pass@16/model --rollouts 64 --output_dir runs/eval
  operant evaluate --rollouts_file rollouts.jsonl --output_dir runs/eval2
"""
PLAN = """Recommend what to train for, from saved rollouts and without training: what each strategy and budget is
worth, which prompts carry the gradient, how many groups are dead, and a strategy with N, M and the reason.

  operant plan runs/eval/rollouts.jsonl --output_dir runs/plan
  operant plan rollouts.jsonl --strategies '[pass@16, maj@16, "mix(pass@1:0.25, pass@16:0.75)"]' --price 0.001
"""
AUDIT = """Compute what an advantage rule optimizes on groups of M binary rewards: the slope of its exact objective
and of the deployed strategy, dead groups and noise, for the published rules and for operant's credit.

  operant audit --n 4 --m 8
  operant audit --strategy 'mix(pass@1:0.25, pass@16:0.75)' --m 32 --rules '[grpo, maxrl, passk-training]'
"""
EXTRAPOLATE = """Predict an unseen task from a few of its points and a bank of known tasks. The result names the known
task and the transformation that explain it, an interval, and whether the method applies. Files are CSV with a row
per point; in the target's file an empty y asks for a prediction.

  operant extrapolate bank.csv --target target.csv --task T --x log_t --y log_E --params T
  operant extrapolate bank.csv --target target.csv --task cell --x '[cycle, load]' --y capacity --query query.csv
"""
REPORT = """Write one self-contained page, RUN/report/index.html, and its charts as PNG and SVG.

  operant report runs/first
"""
DEMO = """Train the embedded model, a transformer with 100k parameters, on two-digit multiplication: with cross-entropy,
for pass@16, for pass@64 and for a mixture, with three seeds. A few minutes on two cores.
"""


class _Formatter(DefaultHelpFormatter):
    """Keeps the line breaks of a description, so that its examples can be read and copied."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "".join(indent + line for line in text.splitlines(keepends=True))


@dataclass(frozen=True)
class ReportConfig:
    """The settings of the report.

    Args:
        run_dir: folder of a run of train, evaluate, plan, audit, extrapolate or demo.
        out_dir: folder of the page. Default: report/ inside run_dir.
        open: whether to open the page in a browser.
    """

    run_dir: Path
    out_dir: Path | None = None
    open: bool = False


def train(config: Any) -> None:
    """Train, then report."""
    from operant.hf.train.run import run_training
    from operant.hf.workers import is_main

    folder = run_training(config)
    if is_main():
        _report(folder, open_page=False)


def evaluate(config: Any) -> None:
    """Evaluate, then report."""
    from operant.hf.rollouts.evaluate import evaluate as run
    from operant.hf.workers import worker_pool

    with worker_pool(1) as pool:
        folder = pool.submit(run, config).result()
    _report(folder, open_page=False)


def plan(config: Any) -> None:
    """Plan, then show it."""
    from operant.hf.rollouts.plan import plan as run

    _report(run(config), open_page=config.open)


def audit(config: Any) -> None:
    """Audit, then show it."""
    from operant.core.record import claim_folder, write_records
    from operant.published import audit_records

    folder = config.output_dir
    records = audit_records(config.rules, strategy=config.strategy, transform=config.transform, n=config.n, m=config.m)
    with claim_folder(folder, "audit", asdict(config) | {"output_dir": str(folder)}):
        write_records(folder / "audit.jsonl", records)
    _report(folder, open_page=config.open)


def extrapolate(config: Any) -> None:
    """Explain and predict the targets, then show the page."""
    from rich.console import Console

    from operant.relational.run import extrapolate as run

    with Console(stderr=True).status("reading") as status:
        folder = run(config, status.update)
    _report(folder, open_page=config.open)


def report(config: ReportConfig) -> None:
    """Write the page."""
    _report(config.run_dir, open_page=config.open, out_dir=config.out_dir)


def demo(config: Any) -> None:
    """Train the embedded model four ways, and show the page."""
    from operant.hf.train.demo import demo_config
    from operant.hf.train.run import run_training

    _report(run_training(demo_config(config)), open_page=config.open)


def main(args: list[str] | None = None) -> int:
    """Run the command line. A fault that is no bug of operant is one line on stderr and exit code 2."""
    given = sys.argv[1:] if args is None else args
    parser, verbs = parser_of_verbs()
    verb, config_class = "", None
    try:
        check_arguments(given)
        chosen = parser.parse_args(given)
        verb = f" {chosen.verb}"
        config_class, function = verbs[chosen.verb]
        settings = settings_of(parser, chosen, config_class)
        with terminable():
            function(config_class(**settings))
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of the output, such as head, has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (Exception, KeyboardInterrupt) as error:
        stop = interrupt_of(error)
        if stop is None:
            text = told(error)
            if text is None:
                raise  # a bug of operant
            line = text if isinstance(error, ParseError) else " ".join(text.split())
            print(f"operant{verb}: {line}", file=sys.stderr)
            return 2
        again = " Continue with --resume true." if hasattr(config_class, "resume") else ""
        print(f"operant{verb}: stopped.{again}", file=sys.stderr)
        return 143 if isinstance(stop, Terminated) else 130
    return 0


class _Parser(ArgumentParser):
    """Prints an error as one line, without the usage text, which lists a hundred settings."""

    def parse_args(self, *args: Any, **options: Any) -> Any:
        """Parse; an integer that no float holds is an error of the settings."""
        try:
            return super().parse_args(*args, **options)
        except OverflowError as error:
            self.error(f"a number in the settings is too large ({error})")

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print the message and leave."""
        parser = getattr(ex, "subcommand_parser", None) or self
        name = parser.prog.replace(" [options]", "")
        line = " ".join(message.replace('Parser key "', '"').split()).rstrip(".")
        print(f"{name}: {line}. The settings: {name} --help", file=sys.stderr)
        self.exit(2)


def parser_of_verbs() -> tuple[ArgumentParser, dict[str, tuple[Any, Any]]]:
    """The parser, and verb -> (its config, its function)."""
    from operant.hf.config import DemoConfig, EvaluateConfig, PlanConfig, TrainConfig
    from operant.published.audit import AuditConfig
    from operant.relational.run import ExtrapolateConfig

    parser = _Parser(
        prog="operant",
        description="Train models for the way they will be used.",
        version=version("operant"),
        formatter_class=_Formatter,
    )
    verbs = parser.add_subcommands(required=True, dest="verb")
    actions: dict[str, tuple[Any, Any, str]] = {
        "train": (TrainConfig, train, TRAIN),
        "evaluate": (EvaluateConfig, evaluate, EVALUATE),
        "plan": (PlanConfig, plan, PLAN),
        "audit": (AuditConfig, audit, AUDIT),
        "extrapolate": (ExtrapolateConfig, extrapolate, EXTRAPOLATE),
        "report": (ReportConfig, report, REPORT),
        "demo": (DemoConfig, demo, DEMO),
    }
    positional = {
        "plan": ("rollouts", "JSON lines of rollouts, as operant evaluate writes them."),
        "extrapolate": ("bank", "CSV file of the known tasks, with a header and a row per point."),
        "report": ("run_dir", "folder of a run of train, evaluate, plan, audit, extrapolate or demo."),
    }
    for verb, (config, _, text) in actions.items():
        sub = _Parser(description=text, formatter_class=_Formatter)
        sub.add_argument("--config", action=ActionConfigFile, help="YAML file with any of the settings below.")
        if verb in positional:
            sub.add_argument(positional[verb][0], type=Path, help=positional[verb][1])
        sub.add_class_arguments(config, skip={positional[verb][0]} if verb in positional else set())
        verbs.add_subcommand(verb, sub, help=text.split(". ")[0].split(".\n")[0] + ".")
    return parser, {verb: (config, function) for verb, (config, function, _) in actions.items()}


def settings_of(parser: ArgumentParser, chosen: Any, config_class: Any) -> dict[str, Any]:
    """The settings of the chosen verb.

    Raises:
        DataError: for a group of settings that is a list or a value, and for null where a setting must have a value.
    """
    try:
        settings = parser.instantiate(chosen)[chosen.verb]
    except TypeError as error:
        raise DataError(
            f"a group of settings must be a mapping, such as data: {{train: a.jsonl}} ({error})."
        ) from error
    settings.pop("config", None)
    _check_nulls(config_class, vars(settings))
    return vars(settings)


def _check_nulls(config_class: Any, settings: Mapping[str, Any], group: str = "") -> None:
    """Refuse null where the setting has no such value: the parser lets it pass everywhere."""
    hints = get_type_hints(config_class)
    for name, value in settings.items():
        if is_dataclass(value):
            _check_nulls(type(value), vars(value), f"{name}.")
        elif value is None and NoneType not in get_args(hints[name]):
            raise DataError(f"{group}{name} cannot be null. Leave the setting out for its default.")


def check_arguments(args: Sequence[str]) -> None:
    """Reject YAML that would end the process or exhaust its memory: deep nesting, and aliases of aliases.

    Raises:
        DataError: for a configuration that is not UTF-8, too large, nested too deeply, or has aliases.
    """
    for before, arg in zip(("", *args), args, strict=False):
        name, _, value = arg.partition("=") if arg.startswith("--") else (before, "", arg)
        if name in ("--config", "--data") and os.path.isfile(value):
            if os.path.getsize(value) > LARGEST:
                raise DataError(f"{value}: expected a configuration of at most {LARGEST} bytes. Is it the right file?")
            try:
                _check_yaml(value, Path(value).read_text(encoding="utf-8-sig"))
            except UnicodeDecodeError as error:
                raise DataError(f"{value}: expected YAML in UTF-8 ({error}). Convert the file.") from error
        elif len(value) > DEEPEST:
            _check_yaml(name, value)


def _check_yaml(name: str, text: str) -> None:
    depth = 0
    try:
        for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST or isinstance(event, yaml.AliasEvent):
                what = "aliases" if depth <= DEEPEST else f"values nested deeper than {DEEPEST}"
                raise DataError(f"{name}: a configuration has no {what}. Write the settings out.")
    except yaml.YAMLError:
        return  # jsonargparse reports the position; other arguments need not be YAML


def _report(folder: Path, *, open_page: bool, out_dir: Path | None = None) -> None:
    from operant.report import summary_table, write_report

    print(summary_table(folder))
    page = write_report(folder, out_dir).resolve()
    print(f"page: {page}")
    if open_page and _has_browser():
        webbrowser.open(page.as_uri())


def _has_browser() -> bool:
    """Whether a page can be shown: on Linux without a display, Python would start a text browser in the terminal."""
    display = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    return sys.stdout.isatty() and (not sys.platform.startswith("linux") or bool(display))


if __name__ == "__main__":
    sys.exit(main())
