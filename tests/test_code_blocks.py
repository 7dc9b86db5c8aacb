"""Every block of code in the documentation runs, or says why not.

A Python block runs after those before it, in one namespace and one folder a page; it prints what the text block that
follows at once says. In a shell block, operant takes each of its commands, and what a command names is there. A comment
above a block changes this; it shows neither on GitHub nor on the site:

- ``<!-- run -->``: bash runs the shell block, in the folder of the page
- ``<!-- slow -->``: it runs in the slow tests, after all that comes before it. In its output, as in that of a shell
  block, a line ``...`` stands for any lines, and numbers may differ by a tenth: it is often the end of a training
- ``<!-- varies -->``: what it prints depends on the machine, and is not compared
- ``<!-- not run: why -->``: it needs a GPU, the network, another framework, or your own files

Several are separated by commas, as in ``<!-- run, slow -->``.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shlex
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import yaml

import operant.hf.train.run
import operant.hf.train.settings
from operant import cli
from operant.strategies import parse
from operant.verify import Prompt
from tests.printed import same

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", "CONTRIBUTING.md", "recipes/README.md"]
PAGES += sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md"))
PAGES += sorted(str(path.relative_to(ROOT)) for path in (ROOT / "experiments").glob("*/README.md"))
# Their tests know more: which numbers may differ, and which blocks a short training cannot reach.
OTHERS = {
    "README.md": "test_readme.py",
    "CONTRIBUTING.md": "test_readme.py",
    "docs/extrapolation.md": "test_extrapolation_doc.py",
    "docs/language.md": "test_language_doc.py",
}
FENCE = re.compile(r"^(?P<indent> *)```(?P<language>[\w-]*)\n(?P<code>.*?)^(?P=indent)```$", re.DOTALL | re.MULTILINE)
MARK = re.compile(r"^ *<!-- ([^>]+) -->\n+\Z", re.MULTILINE)
MARKS = {"run", "slow", "varies"}
WHOLE = ("README.md", "docs/training.md")
"""Pages whose running text has whole commands."""
SHELL = ("sh", "bash")
HERE = re.compile(r"^python - <<'END'\n.*?^END$", re.DOTALL | re.MULTILINE)
TARGETS = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]


@dataclass(frozen=True)
class Block:
    """A fenced block; ``printed`` is the text block that follows at once, ``why`` the reason not to run it."""

    line: int
    language: str
    code: str
    printed: str | None
    marks: frozenset[str]
    why: str


def blocks(text: str) -> list[Block]:
    found = list(FENCE.finditer(text))
    read: list[Block] = []
    for i, match in enumerate(found):
        after = found[i + 1] if i + 1 < len(found) else None
        printed = after is not None and after["language"] == "text" and not text[match.end() : after.start()].strip()
        mark = MARK.search(text, 0, match.start())
        said = mark[1] if mark and not text[mark.end() : match.start()].strip() else ""
        why = said.removeprefix("not run: ") if said.startswith("not run: ") else ""
        read.append(
            Block(
                text.count("\n", 0, match.start()) + 1,
                match["language"],
                textwrap.dedent(match["code"]),
                textwrap.dedent(after["code"]) if after is not None and printed else None,
                frozenset() if why else frozenset(filter(None, said.split(", "))),
                why,
            )
        )
    return read


BLOCKS = {page: blocks((ROOT / page).read_text(encoding="utf-8")) for page in PAGES}


def runs(block: Block) -> bool:
    return not block.why and (block.language == "python" or "run" in block.marks)


def unsigned_zeros(text: str) -> str:
    """-0.0 and +0.0 as 0.0: the sign of a zero is rounding."""
    return re.sub(r"[-+](?=0\.0+(?!\d))", "", text)


def shell(code: str, folder: Path) -> str:
    """What bash prints on standard output."""
    paths = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": f"{ROOT / 'src'}:."}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", code], cwd=folder, env=os.environ | paths, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def check(page: list[Block], folder: Path, *, slow: bool = False) -> None:
    """Run the blocks of a page, and compare what they print."""
    names: dict[str, object] = {"__name__": "page"}
    for block in page:
        if block.language == "yaml" and (name := re.match(r"# (\S+)\n", block.code)):
            (folder / name[1]).write_text(block.code, encoding="utf-8")
        if not runs(block) or ("slow" in block.marks and not slow):
            continue
        if block.language == "python":
            with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()) as out:
                exec(compile(block.code, f"line {block.line} of the page", "exec", dont_inherit=True), names)
            printed = out.getvalue()
        else:
            printed = shell(block.code, folder)
        loose = block.language in SHELL or "slow" in block.marks
        if loose and block.printed is not None and "varies" not in block.marks:
            assert same(printed, block.printed), f"line {block.line} prints\n{printed}"
        elif "varies" not in block.marks and block.language == "python":
            assert unsigned_zeros(printed) == unsigned_zeros(block.printed or ""), f"line {block.line}"


RUN = [page for page in PAGES if page not in OTHERS and any(map(runs, BLOCKS[page]))]


@pytest.mark.parametrize("page", [p for p in RUN if any(runs(b) and "slow" not in b.marks for b in BLOCKS[p])])
def test_the_code_of_a_page_prints_what_the_page_says(page: str, tmp_path: Path) -> None:
    check(BLOCKS[page], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("page", [p for p in RUN if any(runs(b) and "slow" in b.marks for b in BLOCKS[p])])
def test_the_slow_code_of_a_page_prints_what_the_page_says(page: str, tmp_path: Path) -> None:
    check(BLOCKS[page], tmp_path, slow=True)


@pytest.mark.parametrize(
    "page",
    [
        "```python\nprint(1 + 1)\n```\n\n```text\n3\n```\n",
        "```python\nprint(1)\n```\n\n```text\n1\n```\n\n```python\nprint(2)\n```\n\nwords\n\n```text\n2\n```\n",
        "1. In a list:\n\n   ```python\n   print(1)\n   ```\n\n   ```text\n   2\n   ```\n",
        "<!-- run -->\n```sh\necho 1\n```\n\n```text\n2\n```\n",
        "<!-- run -->\n```sh\nfalse\necho 1\n```\n",
    ],
    ids=["another number", "output elsewhere", "in a list", "shell", "a command fails"],
)
def test_a_page_that_lies_is_caught(page: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        check(blocks(page), tmp_path)


def test_marks_are_obeyed(tmp_path: Path) -> None:
    wrong = "```python\nprint(1)\n__import__('pathlib').Path('ran').touch()\n```\n\n```text\n2\n```\n"
    check(blocks(f"<!-- not run: needs a GPU -->\n{wrong}<!-- slow -->\n\n{wrong}"), tmp_path)
    assert not (tmp_path / "ran").exists()
    check(blocks(f"<!-- varies, slow -->\n{wrong}"), tmp_path, slow=True)
    assert (tmp_path / "ran").exists()


def test_every_strategy_has_an_example() -> None:
    pages = [page for page in PAGES if page.startswith("docs/strategies")]
    assert len(pages) >= 20
    assert not [page for page in pages if not any(runs(b) and b.printed for b in BLOCKS[page])]


@pytest.mark.parametrize("page", PAGES)
def test_every_block_is_run_or_says_why_not(page: str) -> None:
    for block in BLOCKS[page]:
        where = f"{page}, line {block.line}"
        assert block.language in ("", "text", "python", "yaml", "json", "toml", *SHELL) or page in OTHERS, where
        if page not in OTHERS:
            assert block.marks <= MARKS, f"{where}: expected marks of {MARKS} or 'not run: why', got {block.marks}"
        if block.language in SHELL and not runs(block) and not block.why:
            assert not (left := [line for line in foreign(block)]), f"{where}: mark it 'run' or 'not run: why': {left}"
        if block.language == "yaml":
            assert yaml.safe_load(block.code) is not None, where
        if block.language == "json":
            json.loads(block.code)
    python = sum(b.language.startswith("py") for b in BLOCKS[page])
    assert python == (ROOT / page).read_text(encoding="utf-8").count("```py"), "a Python block was not read"


def lines(block: Block) -> Iterator[list[str]]:
    """The words of each command, without settings of the environment; a program in a here-document is one line."""
    for line in HERE.sub("python -", block.code).replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        while words and re.fullmatch(r"\w+=.*", words[0]):
            words = words[1:]
        if words:
            yield words


def foreign(block: Block) -> Iterator[str]:
    """Commands that are not operant's, and not one of those whose parts are looked up."""
    for words in lines(block):
        match words:
            case ["operant", *_] | ["accelerate", "launch", *_] | ["cd", _]:
                pass
            case ["make", *rest]:
                yield from (word for word in rest if "=" not in word and word not in TARGETS)
            case ["pip", "install", *rest]:
                extras = {e for word in rest for part in re.findall(r"\[(.*?)\]", word) for e in part.split(",")}
                yield from sorted(extras - EXTRAS.keys())
            case ["python", path, *_] if (ROOT / path).is_file():
                pass
            case _:
                yield " ".join(words)


def commands(page: str) -> Iterator[list[str]]:
    """Arguments of every operant command in the shell blocks, and of those in running text that are whole."""
    for block in BLOCKS[page]:
        for words in lines(block) if block.language in SHELL else ():
            if words[0] == "operant":
                yield words[1:]
            elif words[:2] == ["accelerate", "launch"]:
                assert words[words.index("operant.cli") - 1] == "-m"
                yield words[words.index("operant.cli") + 1 :]
    text = FENCE.sub("", (ROOT / page).read_text(encoding="utf-8")) if page in WHOLE else ""
    for code in re.findall(r"`(operant (?:[a-z]+) [^`]+)`", text):
        if "..." not in code:
            yield shlex.split(code)[1:]


@pytest.fixture
def received(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The settings of every command; nothing runs, and train's settings are checked as they would be."""
    seen: list[object] = []
    prompts = [Prompt(0, "1*1=", "1"), Prompt(1, "1*2=", "2")]  # two: some settings choose on half of them
    monkeypatch.setattr(operant.hf.train.settings, "load_prompts", lambda _: (prompts, prompts))
    monkeypatch.setattr(operant.hf.train.settings, "_check_packages", lambda _: None)  # vLLM is not installed here
    monkeypatch.setattr(
        operant.hf.train.run, "run_training", lambda config: seen.append(operant.hf.train.settings.checked(config))
    )
    monkeypatch.setattr(cli, "_report", lambda *_, **__: None)
    for verb in ("evaluate", "plan", "audit", "extrapolate", "report", "demo"):
        monkeypatch.setitem(cli.FUNCTIONS, verb, seen.append)
    return seen


def taken(words: list[str]) -> bool:
    """Whether the command line takes a command; help, a version and printed settings end it early."""
    try:
        return cli.main([str(ROOT / word) if word.startswith("recipes/") else word for word in words]) == 0
    except SystemExit as end:
        return end.code == 0


@pytest.mark.parametrize("page", [page for page in PAGES if any(commands(page))])
def test_the_commands_of_a_page_are_taken(
    page: str, received: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for block in BLOCKS[page]:
        if block.language == "yaml" and (name := re.match(r"# (\S+)\n", block.code)):
            Path(name[1]).write_text(block.code, encoding="utf-8")
    for words in commands(page):
        assert taken(words), words
    for settings in received:
        for text in getattr(settings, "strategies", None) or []:
            assert parse(text)


@pytest.mark.parametrize(
    "line",
    ["operant train --stepz 3", "operant train --strategies '[pass@0]'", "operant train --strategies '[maj@4]'"],
)
def test_a_command_that_does_not_work_is_caught(line: str, received: list[object]) -> None:
    block = replace(BLOCKS["README.md"][0], code=line)
    assert not taken(next(lines(block))[1:])
    assert not received


def test_a_foreign_command_is_caught() -> None:
    block = replace(
        BLOCKS["README.md"][0], code="vllm serve M\nmake nothing\npip install 'operant[gpu]' # it\npython no.py\n"
    )
    assert list(foreign(block)) == ["vllm serve M", "nothing", "gpu", "python no.py"]
