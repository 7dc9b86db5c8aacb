"""Each module imports on its own in a fresh process, and the front door is light."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import pytest

import operant
import operant.hf

SOURCE = Path(__file__).parents[1] / "src"
HEAVY = {
    "torch._dynamo",
    "transformers",
    "trl",
    "peft",
    "datasets",
    "accelerate",
    "math_verify",
    "altair",
    "vl_convert",
} | {*["pandas", "matplotlib", "IPython", "hypothesis", "pytest"]}


def python(code: str) -> str:
    """Standard output of a fresh interpreter that sees src/ and treats warnings as errors."""
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def modules(*folders: str) -> list[str]:
    found = []
    for path in sorted((SOURCE / "operant").rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        if parts[1:2] and (parts[1] in folders) or (not parts[1:2] and "" in folders):
            found.append(".".join(parts))
    return found


LIGHT = modules("", "core", "strategies", "estimators", "published", "objectives", "plugins", "relational")
OPTIONAL = modules("report", "verify", "hf", "language", "cli")
LIBRARIES = "import torch, scipy.special, scipy.interpolate, scipy.stats, sklearn.utils.validation"
STACK = "import altair, datasets, math_verify, peft; from trl import GRPOTrainer, RLOOTrainer, SFTTrainer"


def imports_alone(names: list[str], libraries: str, hidden: str = "") -> str:
    """Fork one child per module, with nothing of operant loaded but the packages that hold it, as Python loads them.

    The libraries are loaded once, in the first process, and each package once, in the process whose children import
    what is in it; a module that its package has imported is no other case than the package. ``hidden`` is made to look
    as if it were not installed: scikit-learn loads pandas wherever it finds it.
    """
    return f"""
import gc, os, sys
gc.disable()  # a collection would copy the memory that the children share
if {hidden!r}:
    sys.modules[{hidden!r}] = None
{libraries}
assert not any(m.split(".")[0] == "operant" for m in sys.modules)
names = {names!r}


def load(package):
    for name in [n for n in names if n.rpartition(".")[0] == package]:
        sys.stdout.flush()
        child = 0 if name in sys.modules else os.fork()
        if child:
            os.waitpid(child, 0)
            continue
        alone = name not in sys.modules
        try:
            __import__(name)
            heavy = sorted({HEAVY!r} & {{name for name, module in sys.modules.items() if module}})
            print(name, *heavy)
            load(name)
        except BaseException as error:
            print(name, "FAILED", type(error).__name__, error)
        if alone:
            sys.stdout.flush()
            os._exit(0)


if "operant" not in names:
    import operant
load("operant" if "operant" not in names else "")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks one process per module")
def test_each_light_module_imports_alone_and_stays_light() -> None:
    assert len(LIGHT) > 18
    lines = python(imports_alone(LIGHT, LIBRARIES, hidden="pandas")).splitlines()
    assert sorted(lines) == sorted(LIGHT), "a line with more than the name lists what else it loads, or its failure"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks one process per module")
def test_each_optional_module_imports_alone() -> None:
    """The extras are part of the development install: nothing is skipped."""
    lines = python(imports_alone(OPTIONAL, STACK)).splitlines()
    assert sorted(line.split()[0] for line in lines) == sorted(OPTIONAL)
    assert not [line for line in lines if "FAILED" in line]


@pytest.fixture(scope="module")
def front() -> list[list[str]]:
    """One fresh process: modules after ``import operant``, its names, modules after those, all after operant.hf's."""
    return [
        line.split()
        for line in python(
            "import sys, operant; print(*(m for m in sys.modules if m.split('.')[0] in ('operant', 'torch', 'numpy')));"
            "print(*operant.__all__); [getattr(operant, n) for n in operant.__all__];"
            "print(*(m for m in sys.modules if m.startswith('operant.')));"
            "import operant.hf; from operant.hf import TrainConfig, DataConfig, quiet, run_training;"
            "print(*sys.modules)"
        ).splitlines()
    ]


def test_the_front_door_loads_nothing_before_a_name_is_used(front: list[list[str]]) -> None:
    assert front[0] == ["operant"]


def test_the_front_door_loads_no_other_room(front: list[list[str]]) -> None:
    assert {name.split(".")[1] for name in front[2]} == {"core", "strategies", "estimators", "published", "objectives"}


def test_the_front_door_has_its_packages_and_no_other_name() -> None:
    assert operant.strategies.PassAt is operant.PassAt and {"parse", "strategies"} <= set(dir(operant))
    with pytest.raises(AttributeError, match="module 'operant' has no attribute 'nothing'"):
        _ = operant.nothing  # pyright: ignore


def test_the_front_door_offers_what_it_says(front: list[list[str]]) -> None:
    assert {"PassAt", "Majority", "BestOf", "Outcomes", "estimate", "credit", "sft_loss", "parse"} <= set(front[1])


def test_operant_hf_imports_its_names_when_they_are_used(front: list[list[str]]) -> None:
    assert "operant.hf.train.run" in front[3] and set(front[3]).isdisjoint(HEAVY)


def test_operant_hf_offers_what_it_says() -> None:
    assert set(operant.hf.__all__) == set(operant.hf._MODULE_OF) and not hasattr(operant.hf, "nothing")
    assert all(getattr(operant.hf, name) is not None for name in operant.hf.__all__)


def test_what_the_code_imports_is_installed_with_it() -> None:
    """Every library is a dependency, of an extra too, or one that a dependency always brings."""
    project = tomllib.loads((SOURCE.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [text for extra, texts in project["optional-dependencies"].items() if extra != "dev" for text in texts]
    named = {distribution(text) for text in (*project["dependencies"], *extras)}
    brought = {distribution(text) for name in named for text in requires(name) or [] if "extra ==" not in text}
    assert {"torch", "scikit-learn", "rich"} <= named and "sympy" in brought
    found, owners = dict[str, str](), packages_distributions()
    for path in (*SOURCE.rglob("*.py"), *(SOURCE.parent / "experiments").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module and not node.level else []
            found |= {name.partition(".")[0]: path.name for name in names}
    ours = {path.stem for path in (SOURCE.parent / "experiments").rglob("*.py")}
    # The hosts of the plug-ins are installed by those who have them.
    for name in found.keys() - ours - sys.stdlib_module_names - {"operant", "recipes", "verl", "skyrl"}:
        assert {distribution(owner) for owner in owners.get(name, [name])} & (named | brought), (name, found[name])


def distribution(text: str) -> str:
    """The normalized name at the start of a requirement."""
    found = re.match(r"[\w.-]+", text)
    assert found, text
    return found.group().lower().replace("_", "-")
