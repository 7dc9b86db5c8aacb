"""Strategies and operators of another package, found by its entry point."""

import importlib
import sys

import pytest

from operant.core.checks import InputError, ParseError
from operant.core.outside import load_outside
from operant.relational.operators import base, registry
from operant.strategies import forms, parse

STRATEGY = """
from dataclasses import dataclass
from typing import ClassVar
from operant.relational import RelationalOperator, register
from operant.strategies import Strategy

@dataclass(frozen=True)
class First(Strategy):
    form: ClassVar[str] = "firstof@{n}"
    n: int

    def value(self, draw):
        return draw.reward[..., 0]

@register
@dataclass(frozen=True)
class Mine(RelationalOperator):
    name: str = "mine"
    expresses: ClassVar[str] = "nothing"

    def fit(self, bank):
        raise NotImplementedError
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A function that installs a package with an entry point, whose module has a given text."""
    known, operators = dict(forms.registered()), dict(registry.kinds())

    def install(text):
        (tmp_path / "outside_mine.py").write_text(text)
        info = tmp_path / "mine-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text("[operant]\nanything = outside_mine\n")
        monkeypatch.syspath_prepend(str(tmp_path))
        importlib.invalidate_caches()
        load_outside.cache_clear()
        registry._import_all.cache_clear()

    yield install
    for form in set(forms.registered()) - set(known):
        del forms._CLASSES[form]
    for name in set(base.REGISTERED) - set(operators):
        del base.REGISTERED[name]
    sys.modules.pop("outside_mine", None)
    load_outside.cache_clear()
    registry._import_all.cache_clear()


def test_what_another_package_registers_is_known_by_name(package):
    with pytest.raises(ParseError, match="expected one of"):
        parse("firstof@4")
    package(STRATEGY)
    assert "outside_mine" not in sys.modules
    parse("pass@4")
    assert "outside_mine" not in sys.modules  # a known name needs nothing of others
    assert str(parse("mix(firstof@4:0.5, pass@4:0.5)")) == "mix(firstof@4:0.5, pass@4:0.5)"
    assert registry.parse_operator("mine").name == "mine"
    with pytest.raises(ParseError, match="firstof@N"):
        parse("nothing@4")


def test_a_package_that_does_not_load_is_named(package):
    package("import not_there\n")
    with pytest.raises(
        InputError, match=r"mine extends operant by outside_mine, .* No module named 'not_there'.*uninstall"
    ):
        parse("firstof@4")
