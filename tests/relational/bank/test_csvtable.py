"""CSV files as people have them: each is read as the plain one is, or refused with file, line and reason."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from operant.core.checks import DataError, InputError
from operant.core.record import read_records
from operant.relational.bank.csvtable import CSVTable, RelationalWarning, read_csv
from operant.relational.config import ExtrapolateConfig
from operant.relational.files import read_bank, read_targets
from operant.relational.run import extrapolate

X = np.linspace(0.0, 2.0, 9)
HEAD = ["probe", "t_s", "°C", "load"]
ROWS = [[f"p{i}", f"{x:.2f}", f"{i + x * x:.4f}", "7.5"] for i in range(4) for x in X]


def text(separator: str = ",", point: str = ".", *, units: bool = False, end: str = "\n") -> str:
    rows = [HEAD, *([["", "s", "degree", "N"]] if units else []), *ROWS]
    return end.join(separator.join(c.replace(".", point) for c in row) for row in rows) + end


def same(found: CSVTable) -> bool:
    """As the plain file gives it."""
    return (
        list(found) == HEAD
        and found["probe"].tolist() == [r[0] for r in ROWS]
        and all(np.array_equal(found[n], [float(r[i]) for r in ROWS]) for i, n in enumerate(HEAD) if i)
    )


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_plain_files_are_read_without_a_word(tmp_path: Path, encoding: str, end: str) -> None:
    path = tmp_path / "bank.csv"
    path.write_bytes((text(end=end) + end + ",,," + end).encode(encoding))
    found = read_csv(path)
    assert same(found) and found.lines[0] == 2 and found.place(3) == f"{path}, line 5"


@pytest.mark.parametrize(
    ("content", "notes"),
    [
        (text(";").encode(), ["cells are separated by ';'"]),
        (text("\t").encode(), ["cells are separated by '\\t'"]),
        (text(";", ",").encode(), ["separated by ';'", "decimal commas in t_s, °C, load were read as decimal points"]),
        (text("\t", ",").encode(), ["separated by '\\t'", "decimal commas"]),
        (text(units=True).encode(), ["line 2 holds units (-, s, degree, N), not a point"]),
        (text().encode("cp1252"), ["is not UTF-8 (line 1); it was read as Windows-1252"]),
        (text(";", ",", units=True).encode("utf-16"), ["separated by ';'", "line 2 holds units", "decimal commas"]),
    ],
)
def test_other_forms_are_read_and_it_is_said(tmp_path: Path, content: bytes, notes: list[str]) -> None:
    path = tmp_path / "bank.csv"
    path.write_bytes(content)
    with pytest.warns(RelationalWarning) as told:
        found = read_csv(path)
    assert same(found)
    said = [str(w.message) for w in told]
    assert len(said) == len(notes)
    assert all(str(path) in s and n in s for s, n in zip(said, notes, strict=True)), said
    assert found.lines[0] == (3 if "units" in "".join(said) else 2)


@pytest.mark.filterwarnings("ignore::operant.relational.RelationalWarning")
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a,x,y,x\n1,2,3,4\n", "line 1: the column 'x' comes twice"),
        (b"a,,y\n1,2,3\n", "line 1: expected a name for each column, got 'a, , y'"),
        (b"a,x\n1,2\n\n1\n", "line 4: expected 2 cells as in the header, got 1"),
        (b"a,x\n", "expected a header and at least one row"),
        (b"", "expected a header and at least one row"),
        (b"a,x\n1,2\n1,\x81\n", "line 3: byte 0x81 is neither UTF-8 nor Windows-1252"),
        (b"\xff\xfea\x00,\x00x\x00\n\x00\x00\xd8", "line 2: this is no utf-16 text"),
        (b"a,x\n1,2\n1,3\x00\n", "line 3: a NUL character"),
        (b'a,x\n1,"2\n' + b"9" * 140_000, "field larger than field limit .131072.. Is a quotation mark left open"),
        (b'a,x\nq,"1,234"\n', "line 2: '1,234' in column 'x' can be read in two ways"),
        (b"a;x\nq;3,5\nq;2.5\n", "line 2: '3,5' in column 'x' can be read in two ways"),
    ],
)
def test_the_rest_is_refused_with_line_and_reason(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "bank.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        read_csv(path)
    assert str(error.value).startswith(str(path))


def test_text_in_the_first_row_is_no_unit_where_numbers_stand_beside_it(tmp_path: Path) -> None:
    """A typing error is refused, not taken for units; a blank y asks for a prediction; text columns stay."""
    path = tmp_path / "bank.csv"
    path.write_text("task,x,y,site\na,0,high,north\na,1,2,south\n")
    assert read_csv(path)["y"].tolist() == ["high", "2"]
    path.write_text("task,x,y\na,0,\na,1,2\n")
    assert read_csv(path)["y"].tolist() == ["", "2"]
    path.write_text("site\nnorth\nsouth\n")
    assert read_csv(path)["site"].tolist() == ["north", "south"]


def config_of(folder: Path, bank: bytes, target: bytes, **change: object) -> ExtrapolateConfig:
    (folder / "bank.csv").write_bytes(bank)
    (folder / "target.csv").write_bytes(target)
    settings = {"task": "probe", "x": "t_s", "y": "°C", "params": "load", "operator": "shift * scale"}
    return ExtrapolateConfig(
        bank=folder / "bank.csv",
        target=folder / "target.csv",
        output_dir=folder / "out",
        **(settings | change),  # pyright: ignore[reportArgumentType]
    )


AT = "bank.csv, line 21, column 't_s': expected a number,"
TARGET = "probe;t_s;°C;load\nnew;0;5,1;9\nnew;0,5;5,4;9\nnew;1,0;6,1;9\nnew;2,0;;9\n"


def test_the_command_takes_such_files_and_its_page_says_so(tmp_path: Path) -> None:
    """Semicolons, decimal commas, units, UTF-16; a load that never varies: notes of the record and of the page."""
    from html import escape

    from operant.report.kinds import page_of

    config = config_of(tmp_path, text(";", ",", units=True).encode("utf-16"), TARGET.encode("cp1252"))
    extrapolate(config)
    notes = "".join(page_of(tmp_path / "out").asides)
    for note in (
        "load never varies in the bank (it is 7.5); it was not used",
        f"{config.bank}, line 2 holds units",
        f"{config.target}: decimal commas in t_s, °C were read as decimal points",
        f"{config.target} is not UTF-8",
    ):
        assert notes.count(escape(str(note))) == 1, notes
    (record,) = [r for r in read_records(tmp_path / "out" / "record.jsonl") if r["kind"] == "target"]
    assert record["y_names"] == ["°C"] and record["params"] == {"load": 9.0}
    (mean,), ((low,), (high,)) = record["prediction"]["mean"][0], (record["prediction"][k][0] for k in ("low", "high"))
    assert low <= mean <= high and mean == pytest.approx(5.1 + 4.0, abs=0.5)


@pytest.mark.filterwarnings("ignore::operant.relational.RelationalWarning")
@pytest.mark.parametrize(
    ("bank", "target", "error", "message"),
    [
        (
            lambda t: t.replace("p2,0.25", ",0.25"),
            None,
            DataError,
            "bank.csv, line 21, column 'probe'",
        ),
        (
            lambda t: t.replace("p2,0.25", "p2,NaN"),
            None,
            InputError,
            f"{AT} got nan",
        ),
        (
            lambda t: t.replace("p2,0.25", "p2,inf"),
            None,
            InputError,
            f"{AT} got inf",
        ),
        (
            lambda t: t.replace("p2,0.25", "p2,1e400"),
            None,
            InputError,
            f"{AT} got inf",
        ),
        (
            lambda t: t.replace("p2,0.25", "p2,soon"),
            None,
            InputError,
            f"{AT} got 'soon'",
        ),
        (lambda t: t.replace("2.0000,7.5", "2.0000,"), None, InputError, "column 'load': expected a number, got ''"),
        (lambda t: t.replace("2.0000,7.5", "2.0000,8"), None, DataError, "bank.csv: column 'load' must be constant"),
        (lambda t: t + "p9,0.0,1.0,7.5\n", None, DataError, "bank.csv: task 'p9' has 1 distinct point"),
        (lambda t: "\n".join(t.split("\n")[:9]), None, DataError, "bank.csv: A bank needs at least two tasks, got 1"),
        (lambda t: t.replace("°C", "K"), None, DataError, "bank.csv: no column '°C'; there are: probe, t_s, K, load"),
        (None, "probe,t_s,°C\nnew,0,1\n", DataError, "target.csv: no column 'load'; there are: probe, t_s, °C"),
        (
            None,
            "probe,t_s,°C,load\nnew,0,1,\n",
            InputError,
            "target.csv, line 2, column 'load': expected a",
        ),
        (
            None,
            "probe,t_s,°C,load\n,0,1,9\nnew,0,1,9\n",
            DataError,
            "target.csv, line 2, column 'probe'",
        ),
    ],
)
def test_what_a_file_lacks_is_said_with_its_place(
    tmp_path: Path, bank: Callable[[str], str] | None, target: str | None, error: type[Exception], message: str
) -> None:
    config = config_of(tmp_path, (bank or str)(text()).encode(), (target or TARGET).encode())
    with pytest.raises(error, match=message):
        read_targets(config, read_bank(config))
