import re
import textwrap
from pathlib import Path

import numpy as np
import pytest

from operant import parse
from operant.verify import registry

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def test_the_python_of_the_readme_runs_and_says_what_its_comments_say():
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names: dict = {}
    exec(code, names)
    weights = names["credit"](names["PassAt"](4), names["rollouts"])
    assert weights.sum(-1).abs().max() < 1e-6
    assert names["loss"].shape == (2,)
    curve = names["curve"](names["PassAt"](1), names["rollouts"], [1, 2, 4])
    assert curve.value.tolist() == pytest.approx([1 / 4, 7 / 15, 4 / 5], abs=1e-6)


@pytest.mark.slow
def test_the_curves_of_the_readme_are_extrapolated():
    (code,) = re.findall(r"```py\n(.*?)```", README, re.DOTALL)
    celsius, log_t = (grid.ravel() for grid in np.meshgrid(np.arange(0.0, 50.0, 10.0), np.linspace(0, 4, 9)))

    def modulus(temperature, x):
        return np.tanh(2 - x - temperature / 20)

    x = np.linspace(0, 4, 12)
    names = {
        "frame": {"T": celsius, "log_t": log_t, "log_E": modulus(celsius, log_t)},
        **{"x_context": x[:6], "y_context": modulus(-20.0, x[:6]), "x_query": x[6:]},
    }
    exec(code, names)
    assert names["target"].predict(x[6:]).shape == (6,)


def test_every_file_that_the_readme_names_exists():
    root = Path(__file__).parents[1]
    source = root / "src" / "operant"
    for path in re.findall(r"\]\((?!http|#)([^)]+)\)", README):
        assert (root / path).is_file(), path
    (tree,) = re.findall(r"```\nsrc/operant/\n(.*?)```", README, re.DOTALL)
    folders = {path.parent.name for path in source.rglob("*.py")} - {"operant"}
    missing = [name for name in sorted(folders) if not re.search(rf"\b{name}\b", tree)]
    assert not missing, f"README.md's tree of src/operant does not name {missing}"
    assert set(re.findall(r"── (\S+)/", tree)) <= folders


def test_the_verifier_of_contributing_grades():
    text = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    exec(textwrap.dedent(code), vars(registry) | {"re": re})
    grade = registry.VERIFIERS.pop("choice").make("", 1.0)
    assert grade("B", "A or B: B", {}) == (1.0, "B", None) and grade("A", "B", {})[0] == 0
    assert grade("B", "none", {}) == (0.0, None, None)


def test_every_file_that_contributing_names_exists():
    """A path, or in a walk the name of a file beside the one that was named before."""
    root = Path(__file__).parents[1]
    text = (root / "CONTRIBUTING.md").read_text(encoding="utf-8")
    known = [str(path.relative_to(root)) for path in root.rglob("*.py") if ".venv" not in path.parts]
    named = set(re.findall(r"`([\w/]+\.(?:py|md))`", text))
    assert len(named) > 40
    missing = [name for name in named if not (root / name).is_file() and not any(k.endswith("/" + name) for k in known)]
    assert not missing, f"CONTRIBUTING.md names {missing}, and there is no such file"


def test_every_strategy_of_the_readme_parses():
    (table,) = re.findall(r"\| deployed \|.*?\n\n", README, re.DOTALL)
    names = [name for name in re.findall(r"`([^`]+)`", table) if "@" in name or name.startswith(("table", "rank"))]
    assert len(names) > 15
    for name in names:
        assert parse(name).n >= 2, name
