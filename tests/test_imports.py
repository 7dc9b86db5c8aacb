"""Each module imports on its own in a fresh process, and the front door is light."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

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


def imports_alone(names: list[str], libraries: str, hidden: str = "") -> str:
    """Fork one child per module, with nothing of operant loaded; the libraries are loaded once, in the parent.

    ``hidden`` is made to look as if it were not installed: scikit-learn loads pandas wherever it finds it.
    """
    return f"""
import os, sys
if {hidden!r}:
    sys.modules[{hidden!r}] = None
{libraries}
for name in {names!r}:
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        try:
            assert not any(m.split(".")[0] == "operant" for m in sys.modules)
            __import__(name)
            heavy = sorted({HEAVY!r} & {{name for name, module in sys.modules.items() if module}})
            print(name, *heavy)
        except BaseException as error:
            print(name, "FAILED", type(error).__name__, error)
        sys.stdout.flush()
        os._exit(0)
    os.waitpid(child, 0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks one process per module")
def test_each_light_module_imports_alone_and_stays_light() -> None:
    assert len(LIGHT) > 18
    lines = python(imports_alone(LIGHT, LIBRARIES, hidden="pandas")).splitlines()
    assert lines == LIGHT, "a line with more than the module's name lists what it loads besides, or its failure"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks one process per module")
def test_each_optional_module_imports_alone() -> None:
    """The extras are part of the development install: nothing is skipped."""
    if OPTIONAL:
        lines = python(imports_alone(OPTIONAL, "import altair; from trl import SFTTrainer")).splitlines()
        assert [line.split()[0] for line in lines] == OPTIONAL
        assert not [line for line in lines if "FAILED" in line]


def test_the_front_door_offers_what_it_says() -> None:
    names = python("import operant; print(*operant.__all__); [getattr(operant, n) for n in operant.__all__]")
    assert {"PassAt", "Majority", "BestOf", "Outcomes", "estimate", "credit", "sft_loss", "parse"} <= set(names.split())


def test_the_front_door_loads_no_other_room() -> None:
    loaded = python("import sys, operant; print(*(m for m in sys.modules if m.startswith('operant.')))").split()
    assert {name.split(".")[1] for name in loaded} == {"core", "strategies", "estimators", "published", "objectives"}


def test_operant_hf_imports_its_names_when_they_are_used() -> None:
    code = "import sys, operant.hf; from operant.hf import TrainConfig, DataConfig, quiet, run_training; "
    assert set(python(f"{code}print(*sys.modules)").split()).isdisjoint(HEAVY)


def test_operant_hf_offers_what_it_says() -> None:
    code = "import operant.hf; [getattr(operant.hf, n) for n in operant.hf.__all__]; print(*operant.hf.__all__); "
    names = python(f"{code}print(*operant.hf._MODULE_OF)").splitlines()
    assert set(names[0].split()) == set(names[1].split()) and not hasattr(operant.hf, "nothing")
