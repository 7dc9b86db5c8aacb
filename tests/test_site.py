"""The site: every page has a place in its navigation, every exported name an entry in its reference."""

import importlib.util
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
pytest.importorskip("sphinx")


@pytest.fixture(scope="module")
def conf():
    spec = importlib.util.spec_from_file_location("conf", DOCS / "conf.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_page_has_a_place(conf):
    index = DOCS / "index.md"
    listed = {(DOCS / f"{path}.md").resolve() for _, path in conf.LINK.findall(index.read_text(encoding="utf-8"))}
    assert all(path.is_file() for path in listed)
    below = {path for folder in conf.NESTED.values() for path in DOCS.glob(f"{folder}.md")}
    lost = set(DOCS.rglob("*.md")) - listed - below - {index}
    assert not lost, f"give these pages a line in docs/index.md: {sorted(path.name for path in lost)}"


def test_the_navigation_is_that_of_the_first_page(conf):
    text = conf.navigation("# x\n\n- [no](heading.md)\n\n## Start\n\n- [A b](a/b.md): c\n- none\n\n## Empty\n\nwords\n")
    assert text.count("toctree") == 1 and ":caption: Start\n\nA b <a/b>\n" in text and "no" not in text.split()


def test_every_package_has_a_page_and_every_name_an_entry(conf):
    """The names themselves are looked up where the site is built: this imports no trainer."""
    pages = {path.stem for path in (DOCS / "reference").glob("*.md")}
    assert pages == conf.packages().keys()
    written = conf.reference("operant.objectives")
    entries = {f"operant.objectives.{name}" for name in conf.packages()["operant.objectives"]}
    assert all(f":: {entry}\n" in written for entry in entries)
    conf.packages = lambda: {"operant.objectives": ["credit", "advantage"], "operant": ["credit", "OperantError"]}
    assert conf.lost(entries) == ["operant.OperantError"]
    assert conf.lost(entries - {"operant.objectives.credit"})[0] == "operant.objectives.credit"


def test_a_constant_without_a_docstring_is_an_error(conf):
    import types

    bare = types.ModuleType("bare")
    bare.NUMBER = 3
    with pytest.raises(ValueError, match=r"bare.NUMBER has no docstring"):
        conf.words(bare, "NUMBER")
