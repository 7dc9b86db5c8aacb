"""The claim of a run's folder: one writer at a time, and nothing that is there is written over."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from operant.core.checks import DataError
from operant.core.record import LOCK, append_record, claim_folder, extend_records, lock_folder, read_records
from operant.hf.config import current_names

HOLDER = """
import sys
from pathlib import Path
from operant.core.record import lock_folder
with lock_folder(Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""


@contextmanager
def held(folder: Path) -> Generator[subprocess.Popen[str]]:
    """The folder, locked by another process; killed in the end."""
    command = [sys.executable, "-c", HOLDER, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "locked\n"
        yield process
        process.kill()


def test_a_second_writer_is_refused_and_a_killed_one_is_not_waited_for(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "run"
    with held(folder) as process:
        with pytest.raises(DataError, match="run is in use: another process is writing there"), lock_folder(folder):
            pass
        with pytest.raises(DataError, match="is in use"), claim_folder(folder, "train", {}):
            pass
        assert os.listdir(folder) == [LOCK]
        process.kill()
        process.wait()
        with lock_folder(folder):
            pass
    with lock_folder(folder):
        pass


def test_within_one_process_too(tmp_path: Path) -> None:
    with lock_folder(tmp_path), pytest.raises(DataError, match="is in use"), lock_folder(tmp_path):
        pass
    with pytest.raises(RuntimeError), lock_folder(tmp_path):
        raise RuntimeError
    with lock_folder(tmp_path):
        pass


def test_a_run_is_begun_once_and_gone_on_with_on_demand(tmp_path: Path) -> None:
    folder, settings = tmp_path / "run", {"steps": 3, "jobs": 1}
    record = folder / "record.jsonl"
    for _ in range(2):  # the first one left nothing but its settings
        with claim_folder(folder, "train", settings, resume=False, outputs=["config.json"]) as before:
            assert before == []
            (folder / "config.json").touch()
        assert [r["kind"] for r in read_records(record)] == ["run", "environment"]
    append_record(record, "step", step=1)
    content = record.read_bytes()
    with pytest.raises(DataError, match="holds a run of operant train already.* or --resume true to continue"):
        claim_folder(folder, "train", settings, resume=False).__enter__()
    with pytest.raises(DataError, match=r"with other settings \(steps: 3 -> 4\); it cannot be continued"):
        claim_folder(folder, "train", {"steps": 4, "jobs": 1}, resume=True).__enter__()
    with pytest.raises(DataError, match="holds a run of operant train already. Give --output_dir another name.$"):
        claim_folder(folder, "plan", settings).__enter__()
    assert record.read_bytes() == content
    with claim_folder(folder, "train", {"steps": 3, "jobs": 2}, resume=True, loose=["jobs"]) as before:
        assert [r["kind"] for r in before] == ["run", "environment", "step"]
    assert [r["kind"] for r in read_records(record)] == ["run", "environment", "step", "run", "environment"]


def test_a_run_of_an_older_version_goes_on_under_new_names(tmp_path: Path) -> None:
    old = {"steps": 3, "centre": "mean", "form": "beyond"}
    with claim_folder(tmp_path / "run", "train", old, resume=False):
        append_record(tmp_path / "run" / "record.jsonl", "step", step=1)
    now = {"steps": 3, "center": "mean", "form": "extrapolated"}
    with claim_folder(tmp_path / "run", "train", now, resume=True, current=current_names) as before:
        assert before[-1]["step"] == 1
    with pytest.raises(DataError, match="center: 'mean' -> 'loo'"):
        claim_folder(tmp_path / "run", "train", now | {"center": "loo"}, resume=True, current=current_names).__enter__()


def test_a_verb_that_cannot_resume_begins_anew_until_it_has_results(tmp_path: Path) -> None:
    folder = tmp_path / "plan"
    for left in ("", "prompts.jsonl", "prompts.jsonl.partial", "record.jsonl.partial"):
        with claim_folder(folder, "plan", {}, outputs=["prompts.jsonl"]):
            (folder / left).touch()
    with claim_folder(folder, "plan", {}, outputs=["prompts.jsonl"]):
        extend_records(folder / "record.jsonl", [{"kind": "curve"}])
    with pytest.raises(DataError, match="holds a run of operant plan already. Give --output_dir another name.$"):
        claim_folder(folder, "plan", {}, outputs=["prompts.jsonl"]).__enter__()


@pytest.mark.parametrize("made", [False, True])
def test_what_fails_before_it_has_results_leaves_nothing(tmp_path: Path, made: bool) -> None:
    folder = tmp_path / "run"
    if made:
        folder.mkdir()
    with pytest.raises(ZeroDivisionError), claim_folder(folder, "train", {}, outputs=["config.json"]):
        (folder / "config.json").touch()
        (folder / "config.json.partial").touch()
        raise ZeroDivisionError
    assert (os.listdir(folder) == [LOCK]) if made else not folder.exists()
    with pytest.raises(ZeroDivisionError), claim_folder(folder, "train", {}, outputs=["config.json"]):
        (folder / "seed0").mkdir()
        raise ZeroDivisionError
    assert sorted(os.listdir(folder)) == [LOCK, "record.jsonl", "seed0"]


def test_what_is_no_run_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").touch()
    with pytest.raises(DataError, match="is not empty and holds no run. Choose another --output_dir"):
        claim_folder(tmp_path, "train", {}, resume=True).__enter__()
    assert os.listdir(tmp_path) == ["mine.txt"]
    with pytest.raises(DataError, match="expected a folder to write into at .*mine.txt, found a file"):
        claim_folder(tmp_path / "mine.txt", "train", {}).__enter__()
    (tmp_path / "record.jsonl").write_text('{"song": "one"}\n')
    with pytest.raises(DataError, match="is not empty and holds no run"):
        claim_folder(tmp_path, "train", {}, resume=True).__enter__()
    assert (tmp_path / "record.jsonl").read_text() == '{"song": "one"}\n'


def test_half_a_file_is_no_result(tmp_path: Path) -> None:
    """A verb that was killed while it wrote begins anew."""
    folder = tmp_path / "run"
    with claim_folder(folder, "audit", {}):
        (folder / "audit.jsonl.partial").write_text('{"ki')
    with claim_folder(folder, "audit", {}) as before:
        assert not before
    with pytest.raises(RuntimeError), claim_folder(folder, "audit", {}):
        (folder / "audit.jsonl.partial").write_text('{"ki')
        raise RuntimeError
    assert {p.name for p in folder.iterdir()} <= {LOCK}
