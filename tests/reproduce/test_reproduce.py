"""Claims in folders of their own: what is run, what is kept, and which verdict follows."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from operant.cli.texts import REPRODUCE
from operant.core.checks import ConfigError, DataError
from operant.core.record import read_records, write_records
from operant.reproduce.claims import NOT, PARTLY, REPRODUCED, UNTESTED, Claim, read_claims, verdict
from operant.reproduce.comparisons import Comparison, read_comparisons, write_comparisons
from operant.reproduce.config import ReproduceConfig
from operant.reproduce.run import reproduce
from operant.reproduce.table import markdown

ABOUT = {"title": "A title", "paper": "2604.24957", "place": "table 2", "says": "It gains 7 points.", "order": 1}
ABOUT |= {"scale": "a 7B model", "here": "a small one"}
RUN = """import sys
from pathlib import Path
from operant.reproduce import Comparison, write_comparisons
Path(sys.argv[1], "started").open("a").write("x")
low = 0.5 if "--quick" in sys.argv else 1.5
write_comparisons(Path(sys.argv[1]), [Comparison("pass@4", "ours", 9.0, "plain", 7.0, 2.0, low, 3.0, seeds=5)])
"""


def claim(experiments: Path, name: str, code: str = RUN, **about: object) -> Path:
    folder = experiments / name
    folder.mkdir(parents=True)
    (folder / "claim.yaml").write_text(yaml.safe_dump(ABOUT | about))
    (folder / "run.py").write_text(code)
    return folder


def gain(low: float, high: float, *, decides: bool = True, neutral: float = 0.0) -> Comparison:
    effect = (low + high) / 2
    return Comparison("v", "ours", 1.0, "plain", 0.0, effect, low, high, neutral=neutral, decides=decides)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([gain(1, 2), gain(0.1, 3)], REPRODUCED),
        ([gain(1, 2), gain(-0.1, 3)], PARTLY),
        ([gain(-1, 2), gain(-3, -1)], NOT),
        ([gain(-1, 2), gain(1, 2, decides=False)], NOT),
        ([gain(0.5, 0.9, neutral=1.0)], NOT),
        ([gain(1.1, 4, neutral=1.0)], REPRODUCED),
    ],
)
def test_the_verdict_follows_from_the_intervals_that_decide(found, expected):
    about = Claim(Path("experiments/x"), **ABOUT)
    assert verdict(about, found) == expected
    assert f"**{expected}**" in markdown([(about, found)])


def test_a_claim_without_a_deciding_comparison_has_no_verdict():
    with pytest.raises(DataError, match=r"x has no comparison that decides. .*: python x/run.py x"):
        verdict(Claim(Path("x"), **ABOUT), [gain(1, 2, decides=False)])
    assert verdict(Claim(Path("x"), **ABOUT, untestable="no such model"), []) == UNTESTED


def test_claims_run_once_and_what_failed_runs_again(tmp_path):
    experiments, out = tmp_path / "experiments", tmp_path / "out"
    claim(experiments, "good")
    bad = claim(experiments, "bad", "raise SystemExit('no data here')")
    claim(experiments, "closed", "raise SystemExit('never run')", untestable="it needs a 7B model")
    config = ReproduceConfig(output_dir=out, experiments=experiments, jobs=2)
    with pytest.raises(DataError, match=r"1 of 2 claims failed. bad: no data here. .*--resume true"):
        reproduce(config)
    (bad / "run.py").write_text(RUN)
    reproduce(ReproduceConfig(output_dir=out, experiments=experiments, resume=True))
    records = {r["name"]: r for r in read_records(out / "record.jsonl") if r["kind"] == "claim"}
    assert {name: r["verdict"] for name, r in records.items()} == {
        "good": REPRODUCED,
        "bad": REPRODUCED,
        "closed": UNTESTED,
    }
    assert (out / "good" / "started").read_text() == "x"
    assert records["good"]["comparisons"][0]["low"] == 1.5
    with pytest.raises(DataError, match="cannot be continued"):
        reproduce(ReproduceConfig(output_dir=out, experiments=experiments, resume=True, quick=True))


def test_a_quick_run_is_passed_on_and_names_choose(tmp_path):
    experiments = tmp_path / "experiments"
    for name in ("one", "two"):
        claim(experiments, name)
    config = {"output_dir": tmp_path / "out", "experiments": experiments}
    reproduce(ReproduceConfig(["two"], quick=True, **config))
    assert read_comparisons(tmp_path / "out" / "two")[0].low == 0.5
    assert not (tmp_path / "out" / "one").exists()
    with pytest.raises(ConfigError, match=r"got three. There are: one, two\."):
        reproduce(ReproduceConfig(["three"], **config))


def test_the_table_is_written_from_what_the_repository_holds(tmp_path):
    experiments, path = tmp_path / "experiments", tmp_path / "claims.md"
    write_comparisons(claim(experiments, "one", why="Because."), [gain(1, 2)])
    claim(experiments, "two", paper="2605.30132", untestable="It needs a cluster.")
    assert reproduce(ReproduceConfig(write=path, experiments=experiments)) is None
    text = path.read_text()
    assert "## Compute Aligned Training (arXiv 2604.24957)" in text and "+1.5 (+1 to +2)" in text
    assert (
        "- **A title.** The paper's scale: a 7B model. Because.\n" in text and "In all: 1 reproduced, 1 cannot" in text
    )
    assert f"**{UNTESTED}** | – |" in text


@pytest.mark.parametrize(
    ("about", "told"),
    [
        ({"plce": "x"}, "missing or unknown: plce"),
        ({"paper": 2604.24957}, "Quote it"),
    ],
)
def test_a_claim_file_with_a_mistake_is_named(tmp_path, about, told):
    claim(tmp_path, "one", **about)
    with pytest.raises(ConfigError, match=told):
        read_claims(tmp_path)


def test_a_folder_without_claims_says_where_they_are(tmp_path):
    with pytest.raises(DataError, match="run this in a clone, or give --experiments"):
        read_claims(tmp_path)


@pytest.mark.parametrize("change", [{"low": 5.0}, {"effect": None}, {"what": None, "seeds": "x", "value": "a"}])
def test_a_damaged_comparison_is_named(tmp_path, change):
    write_comparisons(tmp_path, [gain(1, 2)])
    (record,) = read_records(tmp_path / "comparisons.jsonl")
    write_records(tmp_path / "comparisons.jsonl", [record | change])
    with pytest.raises(DataError, match=r"comparisons.jsonl, line 1: expected"):
        read_comparisons(tmp_path)


def test_the_help_names_claims_that_exist():
    root = Path(__file__).parents[2]
    names = {claim.name for claim in read_claims(root / "experiments")}
    (line,) = [line for line in REPRODUCE.splitlines() if "--output_dir" in line]
    assert set(line.split("reproduce ")[1].split(" --")[0].split()) <= names
    assert all((root / "experiments" / name / "README.md").is_file() for name in names), "a claim has a README.md"


def test_the_page_of_the_documentation_is_what_the_repository_holds(tmp_path):
    root = Path(__file__).parents[2]
    reproduce(ReproduceConfig(write=tmp_path / "claims.md", experiments=root / "experiments"))
    assert (tmp_path / "claims.md").read_text() == (root / "docs" / "claims.md").read_text(), (
        "run: operant reproduce --write docs/claims.md"
    )
