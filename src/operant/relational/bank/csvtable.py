"""CSV files as people have them: other separators, decimal commas, a row of units, other encodings; read, or refused.

What was done to a file beyond the plain form (UTF-8, commas, points) is told as a :class:`RelationalWarning`.
"""

from __future__ import annotations

import csv
import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from operant.core.checks import DataError

_SEPARATORS = (",", ";", "\t", "|")
_BOMS = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))

_Row = tuple[int, list[str]]
"""Number of a line in its file, and its cells."""


class RelationalWarning(UserWarning):
    """The data can be used, but something about them was changed or is doubtful."""


@dataclass(frozen=True, eq=False)
class CSVTable(Mapping[str, NDArray[Any]]):
    """Columns of a file: numbers where all cells are numbers, otherwise text.

    Args:
        path: of the file.
        columns: name -> cells.
        lines: (rows,) where each row stands in the file.
        units: name -> its unit, from a row of units below the header.
    """

    path: Path
    columns: dict[str, NDArray[Any]]
    lines: NDArray[np.intp]
    units: dict[str, str] = field(default_factory=dict[str, str])

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self.columns[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)

    def __len__(self) -> int:
        return len(self.columns)

    def place(self, row: int) -> str:
        """Where a row stands: file and line."""
        return f"{self.path}, line {self.lines[row]}"


def read_csv(path: Path | str) -> CSVTable:
    """Columns of a CSV file with a header, for :meth:`TaskBank.from_frame`.

    Cells are separated by commas, semicolons, tabs or bars. Where commas do not separate, they may be the decimal ones.
    A second line with text where numbers follow holds units, and is no row. UTF-8, UTF-16, else Windows-1252.

    Raises:
        DataError: with file and line, for a file that is no text, no header or row, a column without a name or with the
            name of another one, a row of another length, numbers with commas that can be read in two ways.
    """
    path = Path(path)
    separator, rows = _rows(path)
    if len(rows) < 2:
        raise DataError(f"{path}: expected a header and at least one row.")
    (number, header), body = rows[0], rows[1:]
    header = [name.strip() for name in header]
    for name in header:
        if not name:
            raise DataError(f"{path}, line {number}: expected a name for each column, got {', '.join(header)!r}.")
        if header.count(name) > 1:
            raise DataError(f"{path}, line {number}: the column {name!r} comes twice. Rename or remove one of them.")
    for line, cells in body:
        if len(cells) != len(header):
            raise DataError(f"{path}, line {line}: expected {len(header)} cells as in the header, got {len(cells)}.")
    units: dict[str, str] = {}
    if len(body) > 1 and _holds_units(body):
        line, cells = body.pop(0)
        _tell(f"{path}, line {line} holds units ({', '.join(u.strip() or '-' for u in cells)}), not a point")
        units = {name: u.strip() for name, u in zip(header, cells, strict=True) if u.strip() not in ("", "-", "1")}
    columns = {name: np.array([cells[i].strip() for _, cells in body]) for i, name in enumerate(header)}
    numbers = _numbers(path, columns, body, decimal=separator != ",")
    return CSVTable(path, numbers, np.array([line for line, _ in body]), units)


def _tell(text: str) -> None:
    warnings.warn(text, RelationalWarning, stacklevel=4)


def _text(path: Path) -> str:
    """The text of a file in the encoding that it has."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error
    encoding = next((name for bom, name in _BOMS if data.startswith(bom)), "")
    for zeros, name in ((data[1:200:2], "utf-16-le"), (data[:200:2], "utf-16-be")):
        if not encoding and 2 * zeros.count(0) > len(zeros):  # without a mark: every other byte of plain text is zero
            encoding = name
    try:
        return data.decode(encoding or "utf-8")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        if encoding:
            raise DataError(f"{path}, line {line}: this is no {encoding} text. Save it as UTF-8.") from error
        try:
            text = data.decode("cp1252")
        except UnicodeDecodeError:
            byte = data[error.start]
            raise DataError(
                f"{path}, line {line}: byte 0x{byte:02x} is neither UTF-8 nor Windows-1252. Save it as UTF-8."
            ) from error
    _tell(f"{path} is not UTF-8 (line {line}); it was read as Windows-1252")
    return text


def _rows(path: Path) -> tuple[str, list[_Row]]:
    """What separates the cells, and the rows with at least one cell that is not blank."""
    text = _text(path)
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise DataError(f"{path}, line {line}: a NUL character; this is no CSV file, or it is damaged.")
    separator = _separator(text)
    if separator != ",":
        _tell(f"{path}: cells are separated by {separator!r}")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    rows: list[_Row] = []
    try:
        for cells in reader:
            if any(c.strip() for c in cells):
                rows.append((reader.line_num, cells))
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: {error}. Is a quotation mark left open?") from error
    return separator, rows


def _separator(text: str) -> str:
    """The one that gives the first line the most cells; a comma where there is but one."""
    first = next((line for line in text.splitlines() if line.strip()), "")
    return max(_SEPARATORS, key=lambda s: len(next(csv.reader([first], delimiter=s))) if len(first) < 100_000 else 0)


def _is_number(cell: str) -> bool:
    try:
        float(cell.replace(",", "."))
    except ValueError:
        return False
    return True


def _holds_units(body: Sequence[_Row]) -> bool:
    """Whether the first row has no number in any column that has nothing but numbers below."""
    first, rest = body[0][1], [cells for _, cells in body[1:]]
    below = [[c for c in column if c.strip()] for column in zip(*rest, strict=True)]
    numeric = [i for i, cells in enumerate(below) if cells and all(map(_is_number, cells))]
    return any(first[i].strip() for i in numeric) and not any(_is_number(first[i]) for i in numeric)


def _numbers(
    path: Path, columns: dict[str, NDArray[Any]], body: Sequence[_Row], *, decimal: bool
) -> dict[str, NDArray[Any]]:
    """The columns, as numbers where all cells are; ``decimal``: whether commas may be decimal ones."""
    out: dict[str, NDArray[Any]] = {}
    read: list[str] = []
    for name, text in columns.items():
        cells = text.tolist()
        commas = [i for i, c in enumerate(cells) if "," in c]
        if commas and all(not c or _is_number(c) for c in cells):
            if not decimal or any("." in c for c in cells):
                raise DataError(
                    f"{path}, line {body[commas[0]][0]}: {cells[commas[0]]!r} in column {name!r} can be read in two "
                    "ways. Write numbers with a decimal point and without separators of thousands."
                )
            text = np.array([c.replace(",", ".") for c in cells])
            read.append(name)
        try:
            out[name] = text.astype(np.float64)
        except ValueError:
            out[name] = text
    if read:
        _tell(f"{path}: decimal commas in {', '.join(read)} were read as decimal points")
    return out
