"""docs/language.md: its code runs, its commands are taken; with the training that it names it prints what it says."""

import contextlib
import importlib.util
import io
import re
import shlex
from pathlib import Path

import pytest
import torch

from operant import cli
from operant.hf.text_config import TextConfig
from operant.language.command.spreadsheet import STEPS

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/language.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^(<!-- trained -->\n)?```python\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", re.DOTALL | re.MULTILINE)
LONG = ("steps=2000", '"steps": 300')
"""The settings of the trainings that take two and a half minutes and half a minute."""


def run(page, folder, *, trained):
    """The names that the blocks define; what they print is compared, after a training of 8 steps where it can be."""
    torch.set_num_threads(1)
    names = {"__name__": "page"}
    for block in BLOCK.finditer(page):
        with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()) as out:
            exec(block[2], names)
        if (trained or not block[1]) and "explain()" not in block[2]:  # its numbers depend on the machine
            assert out.getvalue() == (block[3] or ""), block[2]
    return names


def test_the_code_runs(tmp_path):
    assert [PAGE.count(text) for text in LONG] == [1, 1]
    page = PAGE.replace(LONG[0], "steps=8").replace(LONG[1], '"steps": 8')
    names = run(page, tmp_path, trained=False)
    assert (tmp_path / "steps" / "bank.jsonl").is_file() and (tmp_path / "target.jsonl").is_file()
    cells = names["cells"][:50]
    assert names["STEPS"].keys() == STEPS.keys()
    assert all(f(x) == STEPS[k](x) for k, f in names["STEPS"].items() for x in cells), "the demo has other steps"


@pytest.mark.slow
def test_the_page_prints_what_it_says_and_is_drawn(tmp_path):
    names = run(PAGE, tmp_path, trained=True)
    spec = importlib.util.spec_from_file_location("language_pictures", ROOT / "docs/language_pictures.py")
    pictures = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pictures)
    drawn = [pictures.write(f, tmp_path, tmp_path).name for f in pictures.figures(names)]
    assert set(drawn) == set(re.findall(r"images/(\S+\.png)", PAGE))


def test_every_block_is_read():
    assert len(list(BLOCK.finditer(PAGE))) == PAGE.count("```py")


def test_a_page_that_lies_is_caught(tmp_path):
    with pytest.raises(AssertionError, match="print"):
        run("```python\nprint(1)\n```\n\n```text\n2\n```\n", tmp_path, trained=False)
    run("<!-- trained -->\n```python\nprint(1)\n```\n\n```text\n2\n```\n", tmp_path, trained=False)


def test_the_commands_are_taken(monkeypatch, tmp_path):
    seen = []
    monkeypatch.setitem(cli.FUNCTIONS, "extrapolate", seen.append)
    monkeypatch.chdir(tmp_path)
    Path("bank.jsonl").write_text("{}\n")
    (block,) = re.findall(r"^```sh\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    lines = [shlex.split(line.removeprefix("PYTHONPATH=. "))[1:] for line in block.splitlines()]
    for words in lines:
        assert cli.main(words) == 0
    options = re.findall(r"`(--[\w.]+ [^`]+)`", PAGE)
    for option in options:
        assert cli.main([*lines[0], *shlex.split(option)]) == 0, option
    assert len(seen) == len(lines) + len(options) > 6
    from operant.cli.kinds import of_kind

    assert all(isinstance(of_kind(config), TextConfig) for config in seen)


@pytest.mark.parametrize("name", sorted(set(re.findall(r"images/(\S+\.png)", PAGE))))
def test_pictures_are_there_and_small(name):
    path = ROOT / "docs/images" / name
    assert path.read_bytes().startswith(b"\x89PNG")
    assert path.stat().st_size < 150_000
