"""The extras: each module belongs to one that pyproject.toml declares, and what lacks one names it."""

import re
import tomllib
from pathlib import Path

import pytest

from operant.core.extras import EXTRAS, require

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
MODULES = {"pyyaml": "yaml", "vl-convert-python": "vl_convert", "pillow": "PIL"}


@pytest.mark.parametrize("extra", EXTRAS)
def test_the_modules_of_an_extra_are_those_of_the_project(extra):
    names = [re.match(r"[\w-]+", text)[0] for text in PROJECT["optional-dependencies"][extra]]
    assert sorted(EXTRAS[extra]) == sorted(MODULES.get(name, name.replace("-", "_")) for name in names)


def test_what_is_there_is_not_asked_for(monkeypatch):
    monkeypatch.setitem(EXTRAS, "report", ("math",))
    require("it", "report")
    monkeypatch.setitem(EXTRAS, "report", ("math", "no_such_module", "nor_this"))
    with pytest.raises(ImportError, match=r"it needs no_such_module, .* pip install 'operant\[hf,report\]'$"):
        require("it", "hf", "report")


def test_a_blocked_module_is_not_there(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "altair", None)
    with pytest.raises(ImportError, match="it needs altair"):
        require("it", "report")
