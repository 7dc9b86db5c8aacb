"""Documents, examples, recipes and experiments import only what the packages export."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = (
    *("", "estimators", "hf", "language", "objectives", "plugins", "published", "relational", "report", "reproduce"),
    *("strategies", "verify"),
    *("plugins.skyrl", "plugins.verl"),  # importing one of these registers the estimator
)
INTERNAL = {
    *("core.record.append_record", "core.record.environment", "core.record.read_records"),
    *("core.rng.child_seed", "core.rng.numpy_generator"),
    "relational.bank.families.FAMILIES",
    *(f"relational.bank.primitives.{name}" for name in ("KINDS", "composed", "primitive_params", "primitives")),
    *(f"relational.bank.primitives.{name}" for name in ("polynomial_params", "polynomial_values", "polynomials")),
    *(f"report.pages.train.load.{name}" for name in ("WARM", "SavedRun", "load_run")),
    *(f"report.pages.train.tables.{name}" for name in ("Interval", "curves", "intervals")),
}
"""What the experiments alone import, which are run from the repository: seeds, records, problems with known answers."""
BLOCK = re.compile(r"^```(?:py|python)\n(.*?)^```", re.M | re.S)
MAIN = ("", "strategies", "objectives", "verify", "hf", "relational")
MOST = 150
"""Names that the main packages may export together: what a newcomer can look through."""


def exported(package: str) -> set[str]:
    module = importlib.import_module(".".join(filter(None, ("operant", package))))
    return set(getattr(module, "__all__", ()))


def sources() -> Iterator[tuple[str, str]]:
    """Name and text of every piece of code that a user may read and copy."""
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted(ROOT.glob("*/**/README.md"))]:
        if ".venv" not in path.parts:
            name = str(path.relative_to(ROOT))
            yield from ((name, code) for code in BLOCK.findall(path.read_text(encoding="utf-8")))
    for folder in ("examples", "recipes", "experiments"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")


def hidden(code: str) -> list[str]:
    """Names that the code imports from operant, and that no package exports."""
    found: list[str] = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            modules = [alias.name.split(".") for alias in node.names]
            found += [".".join(m) for m in modules if m[0] == "operant" and ".".join(m[1:]) not in PACKAGES]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "operant":
            package = ".".join((node.module or "").split(".")[1:])
            known = exported(package) if package in PACKAGES else set[str]()
            below = {f"{package}.{alias.name}".strip(".") for alias in node.names} & set(PACKAGES)
            names = [alias.name for alias in node.names if f"{package}.{alias.name}".strip(".") not in below]
            found += [f"{node.module}.{name}" for name in names if name not in known]
    return found


def test_what_users_read_imports_exported_names_only() -> None:
    found = [(name, what) for name, code in sources() for what in hidden(code)]
    internal = {what for name, what in found if name.startswith("experiments")} & {f"operant.{x}" for x in INTERNAL}
    left = [f"{name}: {what}" for name, what in found if what not in internal or not name.startswith("experiments")]
    assert not left, "\n".join(left)
    assert internal == {f"operant.{x}" for x in INTERNAL}, "INTERNAL lists a name that no experiment imports"


@pytest.mark.parametrize(
    ("code", "what"),
    [
        ("from operant.hf.train.run import run_training", ["operant.hf.train.run.run_training"]),
        ("from operant import PassAt, PassSomething", ["operant.PassSomething"]),
        ("import operant.core.record", ["operant.core.record"]),
        ("import operant\nfrom operant import hf\nfrom operant.hf import TrainConfig", []),
    ],
)
def test_a_planted_import_is_found(code: str, what: list[str]) -> None:
    assert hidden(code) == what


def test_the_packages_export_few_names_and_each_has_a_docstring() -> None:
    names = {(package, name) for package in PACKAGES for name in exported(package)}
    values = {}
    for package, name in sorted(names):
        module = importlib.import_module(".".join(filter(None, ("operant", package))))
        values[package, name] = getattr(module, name)
    distinct = {id(value) for (package, _), value in values.items() if package in MAIN}
    assert len(distinct) <= MOST, f"{len(distinct)} names are exported, at most {MOST} should be"
    bare = [f"{p}.{n}" for (p, n), value in values.items() if callable(value) and not (value.__doc__ or "").strip()]
    assert not bare, f"no docstring: {', '.join(bare)}"
