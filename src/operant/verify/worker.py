"""The script of a worker process: one judge per verifier, plain values in, plain values out.

It imports nothing of operant, so that a worker starts without torch, and nothing of the caller's main module.
A judge maps (target, completion, info) to (reward, answer, key): the key stands for the answer in comparisons that its
text does not settle.
"""

from __future__ import annotations

import faulthandler
import functools
import importlib
import importlib.util
import inspect
import json
import math
import os
import re
import sys
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from types import ModuleType
from typing import Any

Judged = tuple[float | None, str | None, bytes | None]
Judge = Callable[[str, str, Mapping[str, Any]], Judged]
MATH_BYTES = 4 << 30
"""Address space of a worker for "math": SymPy may try to build 9^9^9^9."""


def load(judge: str) -> Judge:
    """The judge of a specification: "math", "gym", "regex:PATTERN", or a user's function by its dotted path."""
    if judge == "math":
        import resource

        judge_math = alone("answers").judge
        judge_math("1/x", r"\boxed{\frac{1}{x}}", {})  # SymPy and the grammar load now, not on the first task's time
        resource.setrlimit(resource.RLIMIT_AS, (MATH_BYTES, MATH_BYTES))
        return judge_math
    if judge == "gym":
        import reasoning_gym  # noqa: F401  # pyright: ignore[reportUnusedImport, reportMissingImports]

        return gym_judge
    if judge.startswith("regex:"):
        return functools.partial(regex_judge, re.compile(judge.removeprefix("regex:")))
    function = find(judge)
    parameters = inspect.signature(function).parameters.values()
    takes = None if any(p.kind is p.VAR_KEYWORD for p in parameters) else {p.name for p in parameters}
    return functools.partial(user_judge, function, takes)


def alone(name: str) -> ModuleType:
    """A package beside this file, without operant, whose import would load torch."""
    folder = Path(__file__).with_name(name)
    where = [str(folder)]
    spec = importlib.util.spec_from_file_location(name, folder / "__init__.py", submodule_search_locations=where)
    assert spec is not None and spec.loader is not None
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def find(path: str) -> Callable[..., Any]:
    """What a dotted path names: "package.module.function" or "package.module:function"."""
    module, _, name = path.rpartition(":" if ":" in path else ".")
    function = getattr(importlib.import_module(module), name)
    if not callable(function):
        raise TypeError(f"{path} is a {type(function).__name__}, not a function")
    return function


def regex_judge(pattern: re.Pattern[str], target: str, text: str, info: Mapping[str, Any]) -> Judged:
    """The last match's group, compared as text."""
    found = [match.group(1) for match in pattern.finditer(text)]
    if not found or found[-1] is None:
        return 0.0, None, None
    answer = found[-1].strip()
    return float(answer == target.strip()), answer or None, None


def gym_judge(target: str, text: str, info: Mapping[str, Any]) -> Judged:
    """Reasoning-gym's own score of the text in the last <answer> tag, or of the whole text: right is 1.0, no less."""
    tagged = re.findall(r"<answer>(.*?)</answer>", text, re.DOTALL)
    answer = (tagged[-1] if tagged else text).strip()
    if not answer:
        return 0.0, None, None
    entry = unpack(info["entry"])
    return float(_gym(json.dumps(info["gym"])).score_answer(answer, entry) == 1.0), answer, None


@functools.lru_cache(64)
def _gym(arguments: str) -> Any:
    """The generator, which scores by its own configuration."""
    import reasoning_gym  # pyright: ignore[reportMissingImports]

    settings: dict[str, Any] = json.loads(arguments)
    if "datasets" in settings:
        from reasoning_gym.composite import DatasetSpec  # pyright: ignore[reportMissingImports]

        settings["datasets"] = [DatasetSpec(**x) for x in settings["datasets"]]
    return reasoning_gym.create_dataset(**settings)


def draw(arguments: Mapping[str, Any]) -> list[dict[str, Any]] | str:
    """The entries of a generator, and how each one scores its own answer; text if there is no such generator."""
    try:
        source = _gym(json.dumps(arguments))
        rows: list[dict[str, Any]] = []
        for entry in source:
            packed = json.loads(json.dumps(pack(entry)))  # as it comes back to be scored
            answer = entry["answer"]
            own = None if answer is None else gym_judge("", answer, {"gym": arguments, "entry": packed})[0]
            row = {"question": entry["question"], "answer": answer, "entry": packed, "own": own}
            rows.append({**row, "junk": _junk(arguments, packed) if len(rows) < 20 else None})
    except Exception as error:  # wrong names and values of a configuration raise nearly anything there
        return f"{type(error).__name__}: {error}"
    return rows


def _junk(arguments: Mapping[str, Any], packed: Any) -> float | None:
    """The reward of an answer that is right nowhere; a few scorers raise on it."""
    try:
        return gym_judge("", "no answer at all", {"gym": arguments, "entry": packed})[0]
    except Exception:
        return None


def user_judge(
    function: Callable[..., Any], takes: set[str] | None, target: str, text: str, info: Mapping[str, Any]
) -> Judged:
    """What a user's function returns: a reward, or a reward and the answer. It gets the columns that it takes."""
    found = function(text, target, **{k: v for k, v in info.items() if takes is None or k in takes})
    reward, answer = found if isinstance(found, tuple) else (found, None)
    if reward is not None:
        reward = float(reward)
        if not math.isfinite(reward):
            raise ValueError("the reward is not finite")
    return reward, None if answer is None else str(answer), None


def pack(value: Any) -> Any:
    """Tuples as {"()": list}, for JSON: some generators score lists and tuples differently."""
    if isinstance(value, tuple):
        return {"()": [pack(x) for x in value]}
    if isinstance(value, list):
        return [pack(x) for x in value]
    return {k: pack(v) for k, v in value.items()} if isinstance(value, dict) else value


def unpack(value: Any) -> Any:
    """What :func:`pack` was given."""
    if isinstance(value, list):
        return [unpack(x) for x in value]
    if not isinstance(value, dict):
        return value
    return tuple(map(unpack, value["()"])) if value.keys() == {"()"} else {k: unpack(v) for k, v in value.items()}


def serve(pipe: Connection[Any, Any]) -> None:
    """Load the judge, then answer tasks until the other end of the pipe is gone."""
    judge_name, path, seconds = pipe.recv()
    sys.path[:] = path
    try:
        judge = load(judge_name)
    except BaseException as error:  # whatever a user's module raises is the parent's to report
        pipe.send(f"{type(error).__name__}: {error}")
        return
    pipe.send("")
    actions: dict[str, Callable[..., Any]] = {"judge": judge, "draw": draw}
    if judge_name == "math":
        actions["merge"] = sys.modules["answers"].merge
    while True:
        try:
            action, task = pipe.recv()
        except EOFError:
            return
        faulthandler.dump_traceback_later(2 * seconds + 5, exit=True)  # for a parent that is not there to kill
        try:
            reply = (actions[action](*task), "")
        except BaseException as error:  # math-verify's timeout and SystemExit are no Exceptions
            kind = type(error).__name__
            reply = (None, "timeout" if kind == "TimeoutException" else kind)
        faulthandler.cancel_dump_traceback_later()
        pipe.send(reply)


if __name__ == "__main__":
    os.set_inheritable(int(sys.argv[1]), False)
    with Connection(int(sys.argv[1])) as end:
        serve(end)
