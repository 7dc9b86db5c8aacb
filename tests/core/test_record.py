"""A run as JSON lines: any text comes back, a crash costs one record, readers never see half a file."""

from __future__ import annotations

import json
import math
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from operant.core.checks import DataError
from operant.core.record import append_record, environment, read_records, write_records

ANY_CHARACTER = st.characters()  # with NUL, line separators and lone surrogates


def no_split_pair(text: str) -> bool:
    """JSON reads two escaped halves of a surrogate pair as the one character they are."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass") == text


TEXT = st.one_of(
    st.text(ANY_CHARACTER).filter(no_split_pair),
    st.text(st.sampled_from('\u2028\u2029\u0085\x00\x0b\x0c\x1c\r\n\t"\\\ufeff\U0001f916\ud83d{}[],: ')),
)
NUMBER = st.one_of(st.integers(-(2**70), 2**70), st.floats(allow_nan=False, allow_infinity=False))
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBER, TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXT, inner, max_size=4)),
    max_leaves=12,
)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(records=st.lists(st.dictionaries(TEXT, JSON, max_size=4), max_size=5))
@example(records=[{"completion": "a\u2028b\u2029c\u0085d\x00e\U0001f916\ud83d"}, {"": ""}, {}])
def test_whatever_is_json_comes_back(tmp_path_factory: pytest.TempPathFactory, records: list[dict[str, Any]]) -> None:
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    write_records(path, records)
    assert read_records(path) == records
    assert path.read_bytes().count(b"\n") == len(records)
    path.read_bytes().decode("utf-8")  # strictly


@settings(max_examples=60, deadline=None, derandomize=True)
@given(fields=st.dictionaries(st.sampled_from(["a", "b", "c"]), JSON))
def test_appended_records_come_back_in_order(tmp_path_factory: pytest.TempPathFactory, fields: dict[str, Any]) -> None:
    path = tmp_path_factory.getbasetemp() / "appended.jsonl"
    path.unlink(missing_ok=True)
    append_record(path, "first", **fields)
    append_record(path, "second", **fields)
    first, second = read_records(path)
    assert (first["kind"], second["kind"]) == ("first", "second") and first["time"] <= second["time"]
    assert {k: v for k, v in first.items() if k not in ("kind", "time")} == fields


def test_text_stays_readable_on_disk(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "run.jsonl"
    append_record(path, "step", note="Größe 東京 🤖")
    assert "Größe 東京 🤖" in path.read_text(encoding="utf-8")


def test_what_is_not_finite_becomes_null(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    append_record(path, "step", loss=math.nan, grad=[math.inf, {"x": -math.inf, 3: (1.5, math.nan)}])
    (record,) = read_records(path)
    assert record["loss"] is None and record["grad"] == [None, {"x": None, "3": [1.5, None]}]
    json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_a_torn_last_line_costs_one_record_wherever_it_was_torn(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    append_record(path, "step", number=1)
    append_record(path, "step", number=2, note="dernière ligne 🤖")
    whole = path.read_bytes()
    start = whole.index(b"\n") + 1
    for cut in range(start, len(whole) - 1):
        path.write_bytes(whole[:cut])
        assert [r["number"] for r in read_records(path)] == [1]
        append_record(path, "step", number=3)
        assert path.read_bytes().startswith(whole[:start] + b'{"kind": "step"'), "the torn line is gone"
        assert [r["number"] for r in read_records(path)] == [1, 3], f"torn after {whole[start:cut]!r}"
    path.write_bytes(whole[:-1])  # only the newline is missing: nothing is lost
    append_record(path, "step", number=3)
    assert [r["number"] for r in read_records(path)] == [1, 2, 3]


@pytest.mark.parametrize("before", [b"", b'{"number": 1}\n'])
def test_a_torn_line_longer_than_what_is_read_at_once_is_cut(tmp_path: Path, before: bytes) -> None:
    path = tmp_path / "run.jsonl"
    path.write_bytes(before + b'{"kind": "chunk", "rows": "' + b"x" * 200_000)
    append_record(path, "step", number=2)
    assert [r["number"] for r in read_records(path)] == [*([1] if before else []), 2]


def test_a_last_line_that_is_nested_too_deeply_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "record.jsonl"
    path.write_bytes(b"[" * 100_000)
    with pytest.raises(DataError, match="record.jsonl: the last line is nested too deeply"):
        append_record(path, "step")
    assert path.read_bytes() == b"[" * 100_000


def test_other_damage_is_an_error_that_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    for line, message in (
        (b"not json", "line 2: expected a JSON object .* Mend this line, or remove it"),
        (b'{"kind": "torn', "line 2: expected a JSON object"),
        (b"[1, 2]", "line 2: expected a JSON object, got list"),
        (b"\xff\xfe\xfa", "line 2: expected a JSON object"),
    ):
        path.write_bytes(b'{"kind": "a"}\n' + line + b'\n{"kind": "b"}\n')
        with pytest.raises(DataError, match=message):
            read_records(path)
        path.write_bytes(b'{"kind": "a"}\n' + line + b"\n")
        with pytest.raises(DataError, match=message):
            read_records(path)
    path.write_bytes(b'{"kind": "a"}\n{"kind": "b')
    assert read_records(path) == [{"kind": "a"}]
    with pytest.raises(DataError, match="line 2: expected a JSON object"):
        read_records(path, torn=False)
    with pytest.raises(DataError, match=r"expected a JSON lines file at .*nowhere\.jsonl, found none"):
        read_records(tmp_path / "nowhere.jsonl")


def test_an_empty_file_and_blank_lines_hold_no_records(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    write_records(path, [])
    assert read_records(path) == []
    path.write_bytes(b'\n{"a": 1}\r\n\n')
    assert read_records(path) == [{"a": 1}]


def test_concurrent_readers_see_a_whole_file(tmp_path: Path) -> None:
    path, done, seen = tmp_path / "scores.jsonl", threading.Event(), set()
    write_records(path, [{"version": 0}] * 50)

    def read() -> None:
        while not done.is_set():
            records = read_records(path)
            seen.add((len(records), len({r["version"] for r in records})))

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for version in range(1, 40):
        write_records(path, ({"version": version, "pad": "x" * 2000} for _ in range(50)))
    done.set()
    for reader in readers:
        reader.join()
    assert seen == {(50, 1)}
    assert [p.name for p in tmp_path.iterdir()] == ["scores.jsonl"]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "scores.jsonl"
    write_records(path, [{"old": True}])

    def broken():
        yield {"new": 1}
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError):
        write_records(path, broken())
    assert read_records(path) == [{"old": True}]


def test_the_environment_is_a_record(tmp_path: Path) -> None:
    facts = environment()
    write_records(tmp_path / "env.jsonl", [facts])
    assert read_records(tmp_path / "env.jsonl") == [facts]
    assert facts["torch"] and facts["numpy"] and facts["python"].startswith("3.")
