"""Mistakes in the flags, as one line: what is wrong, and which flag was meant."""

from __future__ import annotations

import difflib
import re
from typing import Any

# Names of TRL's scripts, of lm-evaluation-harness and of others -> our flag, by verb.
_TRAIN = {
    **dict.fromkeys(("model_name_or_path", "model_name", "model_id", "base_model"), "--model"),
    **dict.fromkeys(("dataset_name", "dataset", "dataset_path", "train_file"), "--data.train"),
    **dict.fromkeys(("dataset_config", "dataset_config_name", "dataset_subset"), "--data.subset"),
    "dataset_train_split": "--data.train_split",
    "dataset_test_split": "--data.test_split",
    "dataset_text_field": "--data.prompt",
    "max_steps": "--steps",
    **dict.fromkeys(("epochs", "num_epochs"), "--num_train_epochs"),
    "seed": "--seeds",
    "lr": "--learning_rate",
    "per_device_eval_batch_size": "--eval_batch_size",
    **dict.fromkeys(("max_length", "max_seq_length", "max_prompt_length"), "--max_tokens"),
    **dict.fromkeys(("max_new_tokens", "response_length"), "--max_completion_length"),
    **dict.fromkeys(("use_peft", "lora_r"), "--lora_rank"),
    **dict.fromkeys(("reward_funcs", "reward_function"), "--verifier"),
    "reward_model_name_or_path": "--reward_model",
    "resume_from_checkpoint": "--resume true",
    "eval_strategy": "--eval_steps",
    "save_strategy": "--save_steps",
    **dict.fromkeys(("n", "num_samples", "num_return_sequences"), "--num_generations"),
    "kl_coef": "--beta",
    "strategy": "--strategies",
    "num_processes": "--jobs (or accelerate launch)",
}
_SAMPLES = ("n", "num_samples", "num_return_sequences", "num_generations", "repeats", "samples")
_EVALUATE = {
    **{name: flag for name, flag in _TRAIN.items() if flag in ("--model", "--data.subset", "--data.test_split")},
    **dict.fromkeys(("dataset_name", "dataset", "dataset_path"), "--data.test (or --data.train)"),
    **dict.fromkeys(("max_completion_length", "response_length", "max_gen_toks"), "--max_new_tokens"),
    **dict.fromkeys(_SAMPLES, "--rollouts"),
    **dict.fromkeys(("samples_file", "input_file", "file"), "--rollouts_file"),
    "strategies": "--families",
    "seeds": "--seed",
    "base_url": "--endpoint",
}
_PLAN = {
    **dict.fromkeys(("rollouts_file", "rollouts", "file"), "the file itself: operant plan rollouts.jsonl"),
    "families": "--strategies",
}
OTHERS = {"train": _TRAIN, "evaluate": _EVALUATE, "plan": _PLAN}
"""Verb -> {the name that others have: what it is here}."""
_KINDS = {
    **{"int": "an integer", "float": "a number", "list": "a list", "bool": "true or false", "str": "a text"},
    **{"NoneType": "null", "dict": "a mapping"},
}


def mistake(message: str, parser: Any) -> str:
    """A message of jsonargparse as a sentence of ours."""
    message = " ".join(message.replace('Parser key "', '"').split())
    if found := re.match(r"(?i)unrecognized arguments: (.*)", message):
        return _unknown(found[1].split(), parser)
    if found := re.search(r"arguments are required: (.*)", message):
        return f"expected {', '.join(name.split('.')[-1] for name in found[1].split(', '))}."
    if found := re.match(r"argument (--[\w.]+): expected one argument", message):
        return f"{found[1]}: expected a value."
    if found := re.match(r'"(\w+)": Unable to load config (\S+)', message):
        return (
            f"--{found[1]}: expected a YAML file with these settings. A file of data is --{found[1]}.train {found[2]}."
        )
    if found := re.match(r'"([\w.]+)": (.*)', message):
        flag, rest = f"--{found[1]}", found[2]
        got = re.search(r"(?:Got value|Given value): (.*)$", rest)
        if got and (what := _expected(rest)):
            return f"{flag}: expected {what}, got {got[1].rstrip('.')[:80]!r}."
        return f"{flag}: {rest.rstrip('.')}."
    return message.rstrip(".") + "."


def help_of(message: str, parser: Any) -> str:
    """The help of the flag that a message is about; "" if there is none."""
    found = re.match(r'(?:Parser key "|argument (?:--)?)([\w.]+)', message)
    if "Unable to load config" in message:
        return ""
    action = _flags(parser).get(f"--{found[1]}") if found else None
    if action is None or not action.help:
        return ""
    formatter = parser._get_formatter()  # argparse has no public way to one argument's help
    formatter.add_argument(action)
    return formatter.format_help().rstrip()


def _flags(parser: Any) -> dict[str, Any]:
    return {name: action for action in parser._actions for name in action.option_strings}


def _unknown(words: list[str], parser: Any) -> str:
    """What was meant by the first argument that no flag takes."""
    word = words[0]
    if not word.startswith("-"):
        return f"unexpected {word!r}. A list is one argument: --budgets 1,4,16 --strategies pass@1,pass@16."
    name, verb, known = word.lstrip("-").partition("=")[0], parser.prog.split()[-1], _flags(parser)
    if meant := OTHERS.get(verb, {}).get(name):
        return f"--{name}: here it is {meant}."
    whole = [flag for flag in known if flag.startswith(word.partition("=")[0])]
    close = whole or difflib.get_close_matches(f"--{name}", known, 3)
    if close:
        return f"--{name}: there is no such setting. Did you mean {' or '.join(close[:3])}?"
    through = f" A field of TRL's configuration is set by --trainer '{{{name}: ...}}'." if verb == "train" else ""
    return f"--{name}: there is no such setting.{through}"


def _expected(text: str) -> str:
    """``Expected a <class 'int'>`` -> an integer; of a union, every kind."""
    choices = re.findall(r"typing\.Literal\[(.*?)\]", text)
    if choices:
        return f"one of {choices[0].replace(chr(39), '')}"
    kinds = dict.fromkeys(re.findall(r"<class '([\w.]+)'>", text.partition("Errors:")[0]))
    return " or ".join(_KINDS[kind] for kind in kinds) if kinds and all(kind in _KINDS for kind in kinds) else ""
