"""The folder boundary is the layer boundary: read from the syntax tree of every file."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "operant"
MAY_IMPORT = {
    "": {"core", "strategies", "estimators", "published", "objectives"},  # the front door, operant/__init__.py
    "core": set(),
    "strategies": {"core"},
    "estimators": {"strategies", "core"},
    "published": {"estimators", "strategies", "core"},
    "objectives": {"published", "estimators", "strategies", "core"},
    "relational": {"core"},
    "verify": {"core"},
    "hf": {"verify", "objectives", "published", "estimators", "strategies", "core"},
    "language": {"hf", "estimators", "objectives", "strategies", "core"},
    "plugins": {"objectives", "estimators", "strategies", "core"},
    "report": {"core"},
    "reproduce": {"core"},
    "cli": {"report", "reproduce", "hf", "relational", "language", "published", "strategies", "core"},
}
EXTRAS = {
    **dict.fromkeys(["transformers", "trl", "peft", "datasets", "accelerate"], "hf"),
    **dict.fromkeys(["math_verify", "reasoning_gym"], "verify"),
    **dict.fromkeys(["altair", "vl_convert"], "report"),
    **dict.fromkeys(["verl", "skyrl"], "plugins"),
}


def layer_of(parts: tuple[str, ...]) -> str:
    """("operant", "core", "rng") -> "core"; the front door is ""."""
    return parts[1] if len(parts) > 1 else ""


def imported(tree: ast.AST, module: tuple[str, ...], package: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Dotted paths of everything that a module imports, wherever it stands in the file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (tuple(alias.name.split(".")) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            base += tuple(node.module.split(".")) if node.module else ()
            yield from ((*base, alias.name) for alias in node.names)


def violations(path: Path, text: str) -> list[str]:
    """Imports of the file at ``path`` (relative to src/operant) that the table forbids."""
    module = ("operant", *path.with_suffix("").parts)
    package = module[:-1]
    module = package if path.name == "__init__.py" else module
    layer, found = layer_of(module), []
    for target in imported(ast.parse(text), module, package):
        name = ".".join(target)
        if target[0] == "operant":
            below = layer_of(target)
            is_layer = below in MAY_IMPORT and below
            if (is_layer and below not in MAY_IMPORT[layer] | {layer}) or (not is_layer and layer):
                found.append(f"{path}: {layer or 'the front door'} may not import {name}")
        elif target[0] in EXTRAS and layer != EXTRAS[target[0]]:
            found.append(f"{path}: only {EXTRAS[target[0]]} may import {name}")
    return found


def files() -> list[Path]:
    return sorted(path.relative_to(SOURCE) for path in SOURCE.rglob("*.py"))


def test_no_file_reaches_past_its_layer() -> None:
    assert len(files()) > 20
    found = [v for path in files() for v in violations(path, (SOURCE / path).read_text(encoding="utf-8"))]
    assert not found, "\n".join(found)


def test_every_folder_is_a_known_layer() -> None:
    assert {layer_of(("operant", *p.with_suffix("").parts)) for p in files() if p.name != "__init__.py"} <= set(
        MAY_IMPORT
    )
    assert {"core", "strategies", "objectives"} <= {p.parts[0] for p in files()}


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("core/rng.py", "from operant.strategies.outcomes import Outcomes"),
        ("core/rng.py", "import operant.report"),
        ("core/rng.py", "import operant"),
        ("strategies/base.py", "from operant.objectives.sft import sft_loss"),
        ("strategies/base.py", "from operant import objectives"),
        ("strategies/base.py", "from operant import PassAt"),
        ("strategies/base.py", "from ..objectives import rl"),
        ("strategies/base.py", "from .. import objectives"),
        ("strategies/__init__.py", "from ..hf import policy"),
        ("objectives/rl.py", "def f():\n    from operant.hf.rollouts.policy import load"),
        ("objectives/rl.py", "if True:\n    import transformers"),
        ("relational/bank/tasks.py", "from operant.strategies import PassAt"),
        ("relational/adapted.py", "from operant.report import target_chart"),
        ("report/page.py", "from operant.strategies import parse"),
        ("report/page.py", "from datasets import load_dataset"),
        ("hf/trainers/rl.py", "from operant.report import write_report"),
        ("hf/trainers/rl.py", "import altair as alt"),
        ("hf/trainers/rl.py", "import verl"),
        ("hf/trainers/rl.py", "from operant.language import Compose"),
        ("language/score.py", "import transformers"),
        ("language/bank.py", "from operant.relational import TaskBank"),
        ("plugins/verl.py", "from operant.hf.trainers.rl import AlignedMixin"),
        ("cli.py", "from operant.objectives import sft"),
        ("cli.py", "import trl.trainer"),
        ("__init__.py", "from operant.hf.trainers.sft import train"),
        ("__init__.py", "import vl_convert"),
    ],
)
def test_a_planted_violation_is_caught(path: str, line: str) -> None:
    assert len(violations(Path(path), line)) == 1


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("core/rng.py", "import torch, json\nfrom operant.core.checks import OperantError"),
        ("core/rng.py", "from .checks import OperantError\nfrom . import checks"),
        ("strategies/base.py", "from operant.core.checks import InputError\nfrom operant.strategies import routes"),
        ("strategies/__init__.py", "from .base import Strategy"),
        ("objectives/rl.py", "from ..strategies.base import Strategy"),
        ("hf/trainers/rl.py", "from trl import GRPOTrainer\nfrom operant.objectives.rl import credit"),
        ("plugins/verl.py", "import verl\nfrom operant.objectives.groups import advantage"),
        ("language/score.py", "from operant.hf.rollouts.policy import Policy"),
        ("report/page.py", "import altair\nfrom operant.core import record"),
        ("cli.py", "from operant.hf import sft\nfrom operant.report import write_report"),
        ("__init__.py", "from operant.core.checks import OperantError\nfrom operant.objectives import sft"),
    ],
)
def test_what_the_table_allows_passes(path: str, line: str) -> None:
    assert violations(Path(path), line) == []
