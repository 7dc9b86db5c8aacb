"""Flags: lists without brackets, mistakes and what was meant, and how fast the command line answers."""

import contextlib
import io
import re
import subprocess
import sys

import pytest

from operant.cli import main
from operant.cli.arguments import with_lists, with_values
from operant.cli.front import VERBS, front
from operant.cli.mistakes import OTHERS
from operant.cli.parser import parser_of_verbs
from operant.hf.config import EvaluateConfig, TrainConfig


def told(*args):
    """What the command prints on stderr, and its exit code."""
    err, out = io.StringIO(), io.StringIO()
    with contextlib.redirect_stderr(err), contextlib.redirect_stdout(out):
        try:
            code = main(list(args))
        except SystemExit as stop:
            code = stop.code
    return err.getvalue(), code


@pytest.mark.parametrize(
    ("value", "listed"),
    [
        ("pass@16", '["pass@16"]'),
        ("pass@16,pass@64", '["pass@16", "pass@64"]'),
        ("pass@16, pass@64", '["pass@16", "pass@64"]'),
        ("mix(pass@1:0.25, pass@64:0.75)", '["mix(pass@1:0.25, pass@64:0.75)"]'),
        ("maj@8,mix(pass@1:0.25, pass@64:0.75)", '["maj@8", "mix(pass@1:0.25, pass@64:0.75)"]'),
        ("priced(mix(maj@1:0.5, maj@4:0.5), 0.01)", '["priced(mix(maj@1:0.5, maj@4:0.5), 0.01)"]'),
        ("[pass@16]", "[pass@16]"),
        ('["a, b", c]', '["a, b", c]'),
        ("null", "null"),
        ("", ""),
    ],
)
def test_a_list_of_strategies_needs_no_brackets(value, listed):
    assert with_lists(["train", "--strategies", value], TrainConfig) == ["train", "--strategies", listed]
    assert with_lists(["train", f"--strategies={value}"], TrainConfig) == ["train", f"--strategies={listed}"]


def test_numbers_have_no_quotes_and_what_is_no_list_stays():
    args = [
        "--budgets",
        "1,4",
        "--seeds=0",
        "--data.train",
        "a,b",
        "--report_to",
        "wandb,x",
        "--model",
        "m",
        "--steps=3",
    ]
    new = [
        "--budgets",
        "[1, 4]",
        "--seeds=[0]",
        "--data.train",
        "a,b",
        "--report_to",
        "wandb,x",
        "--model",
        "m",
        "--steps=3",
    ]
    assert with_lists(args, TrainConfig) == new
    assert with_lists(["--budgets", "1"], EvaluateConfig) == ["--budgets", "[1]"]


def test_lists_reach_the_settings():
    parser, _ = parser_of_verbs("train")
    args = ["train", "--strategies", "maj@8,mix(pass@1:0.25, pass@64:0.75)", "--budgets=1,8", "--seeds", "3"]
    chosen = parser.parse_args(with_lists(args, TrainConfig)).train
    assert chosen.strategies == ["maj@8", "mix(pass@1:0.25, pass@64:0.75)"]
    assert chosen.budgets == [1, 8] and chosen.seeds == [3]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("train --model_name_or_path m", "--model_name_or_path: here it is --model."),
        ("train --dataset_name=d", "--dataset_name: here it is --data.train."),
        ("train --num_epochs 3", "--num_epochs: here it is --num_train_epochs."),
        ("train --seed 1", "--seed: here it is --seeds."),
        ("train --bf16 true", "no such setting. A field of TRL's configuration is set by --trainer '{bf16: ...}'."),
        ("train --learning_rat 1", "--learning_rat: there is no such setting. Did you mean --learning_rate"),
        ("train --lora 8", "--lora: there is no such setting. Did you mean --lora_rank or --lora_alpha?"),
        ("train --strategies pass@1 pass@2", "unexpected 'pass@2'. A list is one argument: --budgets 1,4,16"),
        ("train --data d.jsonl", "A file of data is --data.train 'd.jsonl'."),
        ("evaluate --num_samples 8", "--num_samples: here it is --rollouts."),
        ("evaluate --strategies maj@8", "--strategies: here it is --families."),
        ("plan r.jsonl --rollouts_file r.jsonl", "--rollouts_file: here it is the file itself: operant plan"),
        ("plan", "operant plan: expected rollouts. The settings: operant plan --help"),
        ("evaluat --model m", "operant: expected one of train, evaluate, plan, audit, extrapolate, report, reproduce"),
        ("evaluat --model m", "Did you mean evaluate?"),
        ("", "got none. The verbs: operant --help"),
    ],
)
def test_a_mistake_is_one_line_that_says_what_was_meant(args, message):
    text, code = told(*args.split())
    assert code == 2 and message in text and text.count("\n") == 1 and text.startswith("operant")


@pytest.mark.parametrize(
    ("args", "message", "shown"),
    [
        ("train --learning_rate high", "--learning_rate: expected a number or null, got 'high'.", "peak learning rate"),
        ("train --steps 1.5", "--steps: expected an integer or null, got '1.5'.", "steps of each branch"),
        ("train --method ppo", "--method: expected one of sft, grpo, rloo, got 'ppo'.", "answers are given"),
        ("train --model", "--model: expected a value.", "--model MODEL"),
        ("train --config nowhere.yaml", "--config: File does not exist: ", "YAML file with any of the settings"),
        ("train --budgets [1", "--budgets: expected a list, got '[1'.", "budgets k at which the curves"),
        ("plan x --format csv", "--format: expected one of auto, operant, lm-eval, verl,", "who wrote the rollouts"),
    ],
)
def test_a_wrong_value_shows_the_help_of_its_flag_and_no_other(args, message, shown):
    text, code = told(*args.split())
    first, *rest = text.splitlines()
    assert code == 2 and message in first and first.endswith(f"The settings: operant {args.split()[0]} --help")
    assert shown in " ".join(" ".join(rest).split()) and len(rest) < 12
    assert sum(line.startswith("--") for line in rest) == 1


def test_flags_are_not_abbreviated():
    for verb, flag in {"train": "--num_gen", "evaluate": "--reward_mode", "plan": "--conf", "audit": "--strat"}.items():
        text, code = told(verb, *["x"] * (verb == "plan"), flag, "1")
        assert code == 2 and f"{flag}: there is no such setting. Did you mean {flag}" in text


@pytest.mark.parametrize("verb", OTHERS)
def test_what_is_meant_is_there_and_the_other_name_is_not(verb):
    parser, _ = parser_of_verbs(verb)
    sub = parser._subcommands_action.choices[verb]
    flags = {flag for action in sub._actions for flag in action.option_strings}
    for name, meant in OTHERS[verb].items():
        assert f"--{name}" not in flags, name
        assert not meant.startswith("--") or re.match(r"--[\w.]+", meant)[0] in flags, meant


def test_the_front_lists_every_verb_and_its_first_sentence():
    shown = front(["--help"])
    assert shown is not None and shown.code == 0
    assert [line.split()[0] for line in shown.text.splitlines() if re.match(r"  \w", line)] == list(VERBS)
    assert "Train a language model for the strategy that it will be deployed with." in " ".join(shown.text.split())
    assert set(parser_of_verbs()[1]) == set(VERBS) and all(front([verb]) is None for verb in VERBS)


@pytest.mark.parametrize("flag", ["--version", "--help"])
def test_the_front_answers_in_a_second_of_cpu_time_without_libraries(flag):
    """What counts is the time of the processor: the clock depends on what else the machine does."""
    code = (
        "import sys, time; from operant.cli import main; assert main([sys.argv[1]]) == 0; "
        "assert not {'torch', 'numpy', 'jsonargparse', 'yaml'} & set(sys.modules); assert time.process_time() < 1"
    )
    run = subprocess.run([sys.executable, "-c", code, flag], capture_output=True, text=True)
    assert run.returncode == 0 and run.stdout.startswith(("operant ", "usage: operant VERB")), run.stderr


@pytest.mark.parametrize(
    ("args", "new"),
    [
        (["train", "--resume"], ["train", "--resume", "true"]),
        (["train", "--resume", "--steps", "3"], ["train", "--resume", "true", "--steps", "3"]),
        (["train", "--data.chat", "--resume", "false"], ["train", "--data.chat", "true", "--resume", "false"]),
        (["train", "--resume=false", "--model"], ["train", "--resume=false", "--model"]),
    ],
)
def test_a_switch_may_stand_alone(args: list[str], new: list[str]) -> None:
    assert with_values(args, TrainConfig) == new


def test_the_help_of_every_verb_takes_less_than_a_second_of_cpu_time():
    """All verbs in one process: what the first has loaded is loaded for the others, and no library is among it."""
    code = (
        "import sys, time\nfrom operant.cli import main\n"
        "for verb in sys.argv[1:]:\n    try: main([verb, '--help'])\n"
        "    except SystemExit as stop: assert not stop.code\n"
        "heavy = {'torch', 'scipy', 'sklearn', 'transformers', 'rich', 'altair'} & set(sys.modules)\n"
        "assert not heavy and time.process_time() < 1, (heavy, time.process_time())"
    )
    run = subprocess.run([sys.executable, "-c", code, *VERBS], capture_output=True, text=True)
    assert run.returncode == 0 and run.stdout.count("usage: operant") == len(VERBS), run.stderr
