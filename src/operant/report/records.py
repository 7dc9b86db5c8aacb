"""The one reader of folders: the records that a command wrote, by kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from operant.core.checks import DataError
from operant.core.record import read_records

Record = Mapping[str, Any]
RECORD = "record.jsonl"


@dataclass(frozen=True)
class FolderRecords:
    """The records of a folder, oldest first.

    Args:
        folder: where they lie.
        records: as they stand in the files.
    """

    folder: Path
    records: tuple[Record, ...]

    def every(self, kind: str) -> tuple[Record, ...]:
        """The records of a kind, without kind and time."""
        return tuple(_content(r) for r in self.records if r.get("kind") == kind)

    def last(self, kind: str) -> Record:
        """The last record of a kind, because a resumed run writes some again; empty if there is none."""
        return next((_content(r) for r in reversed(self.records) if r.get("kind") == kind), {})

    def since(self, kind: str) -> FolderRecords:
        """The records from the last one of a kind on; all of them if there is none."""
        places = [i for i, r in enumerate(self.records) if r.get("kind") == kind]
        return FolderRecords(self.folder, self.records[places[-1] :] if places else self.records)

    @property
    def name(self) -> str:
        """What the run is called; the name of the folder where the record does not say."""
        return str(self.last("run").get("name") or self.folder.resolve().name)

    @property
    def config(self) -> Record:
        """The settings of the run."""
        return self.last("run").get("config") or {}

    @property
    def environment(self) -> Record:
        """Versions and platform."""
        return self.last("environment")

    def texts(self, kind: str) -> list[str]:
        """The texts of notes or warnings."""
        return [r["text"] for r in self.every(kind)]


def read_folder(folder: Path, *names: str) -> FolderRecords:
    """Read these files of a folder, ``record.jsonl`` by default; a file that is missing has no records.

    Raises:
        DataError: for a line that is not a JSON object.
    """
    # The folder of a stand-alone evaluation may have no record, so a missing file is no error here.
    paths = [folder / name for name in names or (RECORD,)]
    return FolderRecords(folder, tuple(r for path in paths if path.is_file() for r in read_records(path)))


def read_finished(folder: Path, command: str, *kinds: str, names: tuple[str, ...] = (RECORD,)) -> FolderRecords:
    """Read the folder of a command that has ended: it holds at least one record of each of these kinds.

    Raises:
        DataError: if a kind is missing.
    """
    found = read_folder(folder, *names)
    missing = [kind for kind in kinds if not found.every(kind)]
    if missing:
        raise DataError(
            f"expected a folder that `operant {command}` wrote, found no record of kind {' or '.join(missing)} at "
            f"{folder}. Let the command finish, or run it again."
        )
    return found


def _content(record: Record) -> Record:
    return {k: v for k, v in record.items() if k not in ("kind", "time")}
