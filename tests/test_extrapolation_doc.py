"""docs/extrapolation.md: its code prints what it says, its commands are taken, its pictures show what it computes.

The data of its examples are no part of the project: they are looked for in the folder that OPERANT_DATA names, in data/
and in shared/data beside the checkout, and these tests are skipped where there are none.
"""

import contextlib
import importlib.util
import io
import math
import os
import re
import shlex
from pathlib import Path

import pytest

from operant import cli

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/extrapolation.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^(<!-- slow -->\n)?```python\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", re.DOTALL | re.MULTILINE)
EXAMPLES = PAGE.index("## Three worked examples")
NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.(\d+))?(?:e([-+]\d+))?")
FILES = ("relaxation/time_user_raw.csv", "tables/fatigue.csv", "tables/co2_uptake.csv")


def data():
    """The folder with the data, or None."""
    places = [Path(os.environ["OPERANT_DATA"])] if "OPERANT_DATA" in os.environ else []
    places += [ROOT / "data", ROOT.parent / "shared" / "data"]
    return next((p.resolve() for p in places if all((p / name).is_file() for name in FILES)), None)


needs_data = pytest.mark.skipif(data() is None, reason="no data: python examples/get_relational_data.py data")


def same(printed, said):
    """Equal words, and numbers within a tenth of their size or two units of their last digit."""
    if NUMBER.sub("#", printed).split() != NUMBER.sub("#", said).split():
        return False
    for a, b in zip(NUMBER.finditer(printed), NUMBER.finditer(said), strict=True):
        unit = 10.0 ** (int(b[2] or 0) - len(b[1] or ""))
        if not math.isclose(float(a[0]), float(b[0]), rel_tol=0.1, abs_tol=2 * unit * (1 + 1e-9)):
            return False
    return True


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Runs blocks of the page in one namespace and one folder: page(slow, examples)."""
    folder, names = tmp_path_factory.mktemp("page"), {}
    if data() is not None:
        (folder / "data").symlink_to(data())
    done = set()

    def run(slow, examples):
        for block in BLOCK.finditer(PAGE):
            if bool(block[1]) != slow or (block.start() > EXAMPLES) != examples or block.start() in done:
                continue
            done.add(block.start())
            with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()) as out:
                exec(block[2], names)
            assert same(out.getvalue(), block[3] or ""), f"{block[2]}\nprints\n{out.getvalue()}\nnot\n{block[3]}"
        return names

    return run


def test_the_guide_prints_what_it_says(page):
    assert {"model", "target", "named", "fifth", "chain"} <= set(page(slow=False, examples=False))


@needs_data
@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore::operant.relational.selection.applicability.NotApplicableWarning"
)  # till its test ends
def test_the_examples_print_what_they_say_and_are_drawn(page, tmp_path):
    page(slow=False, examples=False)
    assert {"cold", "uptake"} <= set(page(slow=False, examples=True))
    names = page(slow=True, examples=True)
    spec = importlib.util.spec_from_file_location("extrapolation_pictures", ROOT / "docs/extrapolation_pictures.py")
    pictures = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pictures)
    drawn = [pictures.write(f, tmp_path, tmp_path).name for f in pictures.figures(names)]
    assert set(drawn) == set(re.findall(r"images/(\S+\.png)", PAGE))


def test_a_page_that_lies_is_caught():
    assert same("auto 0.0060 dex, 100%", "auto 0.0061 dex, 100%")
    assert same("[-2.9 -8.1]", "[-2.8 -8.1]")
    assert not same("auto 0.0060 dex", "auto 0.0076 dex")
    assert not same("auto 0.0060 dex", "GP 0.0060 dex")
    assert not same("y(x) = 2 f(x + 0.5)", "y(x) = 2 f(x)")
    assert not same("", "auto 0.0060 dex")


def test_most_blocks_say_what_they_print():
    blocks = list(BLOCK.finditer(PAGE))
    assert len(blocks) == PAGE.count("```python") and sum(bool(b[3]) for b in blocks) >= 12
    assert sum(bool(b[1]) for b in blocks) == 2


def test_the_commands_are_taken(monkeypatch):
    seen = []
    monkeypatch.setitem(cli.FUNCTIONS, "extrapolate", seen.append)
    (block,) = re.findall(r"^```sh\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    (words,) = (shlex.split(line)[1:] for line in block.splitlines())
    assert cli.main(words) == 0
    options = re.findall(r"`(--[\w.]+ [^`]+)`", PAGE)
    for option in options:
        assert cli.main([*words, *shlex.split(option)]) == 0, option
    assert len(seen) == 1 + len(options) > 3


@pytest.mark.parametrize("name", sorted(set(re.findall(r"images/(\S+\.png)", PAGE))))
def test_pictures_are_there_and_small(name):
    path = ROOT / "docs/images" / name
    assert path.read_bytes().startswith(b"\x89PNG")
    assert path.stat().st_size < 150_000
