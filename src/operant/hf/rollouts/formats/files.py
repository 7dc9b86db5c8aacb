"""Tables in files: JSON lines, also compressed with gzip, and parquet."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import Any

from operant.core.checks import DataError
from operant.core.record import read_records, records_of


def read_table(path: Path) -> list[dict[str, Any]]:
    """The rows of a file.

    Raises:
        DataError: if it is missing, a folder, or damaged.
    """
    if path.is_dir():
        raise DataError(f"expected a file at {path}, found a folder. Name one of the files in it.")
    if path.suffix == ".gz":
        return gzipped(path)
    if path.suffix != ".parquet" or not path.is_file():
        return read_records(path, torn=False)
    import pyarrow.parquet as parquet  # pyright: ignore[reportMissingTypeStubs]  # datasets brings it

    try:
        return parquet.read_table(path).to_pylist()  # pyright: ignore
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: expected a parquet file ({error}).") from error


def gzipped(path: Path) -> list[dict[str, Any]]:
    """The rows of JSON lines that are compressed with gzip."""
    if not path.is_file():
        raise DataError(f"expected a JSON lines file at {path}, found none.")
    try:
        data = gzip.decompress(path.read_bytes())
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path}: expected JSON lines, compressed with gzip ({error}).") from error
    return records_of(data, path, torn=False)
