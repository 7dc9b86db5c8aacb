"""Sphinx settings of the documentation: make docs.

The source folder is the repository, so that the links that work on GitHub are those of the site. The pages are plain
Markdown. Three things are added on the way in: the navigation, from the lists of ``docs/index.md``; below a page of
``NESTED``, the pages of its folder; and the entries of the reference, from the docstrings.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
import sys
from collections.abc import Collection
from itertools import takewhile
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from docutils import nodes
from sphinx.pycode import ModuleAnalyzer
from sphinx.util.logging import getLogger

import operant

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

logger = getLogger(__name__)
project = "operant"
version = release = operant.__version__
author = "the operant developers"
html_title = f"operant {version}"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "docs/index"
include_patterns = [
    "docs/**",
    "recipes/README.md",
    "experiments/*/README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LOG.md",
]
# Folders that would be searched for pages, one of them of 2 GB.
exclude_patterns = [".*", "benchmarks", "build", "dist", "examples", "runs", "site", "src", "tests", "torture"]

linkcheck_ignore = [r"http://localhost.*"]
linkcheck_timeout = 20

html_theme = "furo"
html_copy_source = False
html_show_sourcelink = False
html_show_copyright = False

myst_heading_anchors = 6  # every heading can be linked to, by GitHub's name for it
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
# What scikit-learn adds to its estimators, with docstrings that link into its own documentation.
autodoc_default_options = {"exclude-members": "set_fit_request, set_predict_request, set_score_request, metric"}
smartquotes = False  # they would change what one copies
python_use_unqualified_type_names = True

NESTED = {"docs/strategies": "strategies/*", "LOG": "experiments/*/README"}
"""The pages of a folder, shown below the page that introduces them."""
REFERENCE = "docs/reference/"
HIDDEN = "\N{RATIO}"
LINK = re.compile(r"^- \[([^\]]+)\]\(([^)#]+)\.md\)", re.MULTILINE)


def navigation(index: str) -> str:
    """The sections of ``docs/index.md`` as tables of contents: a list of links below each heading."""
    found: list[str] = []
    for section in index.split("\n## ")[1:]:
        caption = section.partition("\n")[0]
        entries = [f"{title} <{path}>" for title, path in LINK.findall(section)]
        found.append(contents(entries, caption=f":caption: {caption}\n") if entries else "")
    return "".join(found)


def contents(entries: list[str], caption: str = ":glob:\n") -> str:
    """A table of contents that only the navigation shows."""
    return "\n```{toctree}\n:hidden:\n" + caption + "\n" + "\n".join(entries) + "\n```\n"


def entry(module: ModuleType, name: str) -> str:
    """The directive that writes the entry of an exported name."""
    value = getattr(module, name)
    if inspect.isclass(value):
        kind = "exception" if issubclass(value, BaseException) else "class"
        return f".. auto{kind}:: {module.__name__}.{name}\n   :members:\n"
    if inspect.isroutine(value):
        return f".. autofunction:: {module.__name__}.{name}\n"
    text = "".join(f"   {line}\n" for line in words(module, name))
    return f".. py:data:: {name}\n   :module: {module.__name__}\n\n{text}"


def words(module: ModuleType, name: str) -> list[str]:
    """The lines of a docstring; that of a constant stands below it, in the module that defines it."""
    value = getattr(module, name)
    if inspect.isclass(value) or inspect.isroutine(value):
        return inspect.cleandoc(value.__doc__ or "").splitlines()
    inside = [m for m in sys.modules if m.startswith(f"{module.__name__}.") and vars(sys.modules[m]).get(name) is value]
    found = (ModuleAnalyzer.for_module(m).find_attr_docs().get(("", name)) for m in sorted(inside))
    text = next(filter(None, found), None)
    if text is None:
        raise ValueError(f"{module.__name__}.{name} has no docstring: write one below its definition.")
    return text


def home(module: ModuleType, name: str) -> str:
    """Full name under which an exported value has its entry: the front door's names have theirs where they are from."""
    value = getattr(module, name)
    other = importlib.import_module(".".join(value.__module__.split(".")[:2])) if module is operant else module
    return f"{(other if name in getattr(other, '__all__', ()) else module).__name__}.{name}"


def reference(package: str) -> str:
    """What a package is for, a table of its names, and an entry for each that has none elsewhere."""
    module = importlib.import_module(package)
    names = sorted(module.__all__, key=str.lower)
    homes = {name: home(module, name) for name in names}
    table = ".. list-table::\n   :widths: auto\n\n"
    for name in names:
        summary = " ".join(takewhile(str.strip, words(module, name)))
        table += f"   * - :py:obj:`~{homes[name]}`\n     - {summary}\n"
    entries = [entry(module, name) for name in names if homes[name] == f"{package}.{name}"]
    text = "\n".join([f".. automodule:: {package}\n   :no-members:\n", table, *entries])
    return f"\n```{{eval-rst}}\n{text}\n```\n"


def complete(app: Sphinx, page: str, source: list[str]) -> None:
    """Add what a page does not say itself."""
    if page == root_doc:
        source[0] += navigation(source[0])
    elif page in NESTED:
        source[0] += contents([NESTED[page]])
    elif page.startswith(REFERENCE):
        title = source[0].partition("\n")[0]  # the rest tells a reader of the file where its entries are
        source[0] = f"{title}\n{reference(page.removeprefix(REFERENCE))}"


def readable(
    app: Sphinx, what: str, name: str, value: object, options: object, signature: str | None, result: str | None
) -> tuple[str | None, str | None]:
    """A signature without ``<factory>``, which Sphinx takes for no Python."""
    return signature and signature.replace("<factory>", "..."), result


def packages() -> dict[str, list[str]]:
    """Every package that exports names, and the names."""
    found = ["operant", *(f"operant.{m.name}" for m in pkgutil.iter_modules(operant.__path__) if m.ispkg)]
    exported = {package: getattr(importlib.import_module(package), "__all__", []) for package in found}
    return {package: list(names) for package, names in exported.items() if names}


def lost(entries: Collection[str]) -> list[str]:
    """Exported names that have no entry."""
    homes = {package: importlib.import_module(package) for package in packages()}
    return [f"{p}.{name}" for p, names in packages().items() for name in names if home(homes[p], name) not in entries]


def exported(
    app: Sphinx, env: BuildEnvironment, node: nodes.Element, shown: nodes.TextElement
) -> nodes.reference | None:
    """Lead ``operant.credit``, or a name in the module that defines it, to the entry of what is exported."""
    parts = node.get("reftarget", "").split(".")
    if parts[0] != "operant" or len(parts) < 2:
        return None
    front = len(parts) == 2 and parts[1] in operant.__all__
    name = home(operant, parts[1]) if front else f"operant.{parts[1]}.{parts[-1]}"
    python = env.domains.python_domain
    if name not in python.objects:
        return None  # it is internal, and stays code
    return python.resolve_xref(env, node["refdoc"], app.builder, "obj", name, node, shown)


def covered(app: Sphinx, env: BuildEnvironment) -> None:
    """Warn of exported names that have no entry."""
    for name in lost(env.domains.python_domain.objects):
        logger.warning(f"{name} is exported and has no entry: write {REFERENCE}{name.rpartition('.')[0]}.md")


def whole(app: Sphinx, what: str, name: str, value: object, options: object, lines: list[str]) -> None:
    """Hide the colon of ``A / B: how good`` from napoleon, which would take A / B for a type; then show it again."""
    if what in ("attribute", "data", "property") and lines:
        hidden = HIDDEN in lines[0]
        lines[0] = lines[0].replace(HIDDEN, ":") if hidden else lines[0].replace(":", HIDDEN)


def dashes(app: Sphinx, tree: nodes.document) -> None:
    """The dash between an argument and what it is: "--", as the smart quotes that are off would have it."""
    for text in [t for t in tree.findall(nodes.Text) if t == " -- "]:
        text.parent.replace(text, nodes.Text(" \N{EN DASH} "))


def plain_stars(app: Sphinx, what: str, name: str, value: object, options: object, lines: list[str]) -> None:
    """``f(x, **info)`` in running text, as the help of the command line shows it, begins no bold text."""
    lines[:] = [line if "``" in line or ">>>" in line else line.replace(", **", r", \*\*") for line in lines]


def send_on(app: Sphinx, failure: Exception | None) -> None:
    """A page at the root that leads to the first page."""
    if failure is None and app.builder.name == "html":
        target = f"{root_doc}.html"
        page = f'<!doctype html><meta http-equiv="refresh" content="0; url={target}"><a href="{target}">operant</a>\n'
        Path(app.outdir, "index.html").write_text(page, encoding="utf-8")


def setup(app: Sphinx) -> None:
    """Sphinx calls this."""
    app.connect("source-read", complete)
    app.connect("autodoc-process-docstring", plain_stars)
    app.connect("autodoc-process-docstring", whole, priority=400)  # napoleon's is 500
    app.connect("autodoc-process-docstring", whole, priority=600)
    app.connect("autodoc-process-signature", readable)
    app.connect("doctree-read", dashes)
    app.connect("env-check-consistency", covered)
    app.connect("missing-reference", exported)
    app.connect("build-finished", send_on)
