"""Folders whose records were damaged: an error that names the folder, for tables and pages of every verb."""

import pytest

from operant.core.checks import DataError
from operant.core.record import write_records
from operant.report import summary_table, write_report

RUN = [{"kind": "run", "name": "x", "config": {}}, {"kind": "environment"}]


@pytest.mark.parametrize(
    "command, records",
    [
        ("plan", [{"kind": "rollouts"}]),
        ("plan", [{"kind": "rollouts", "prompts": 4, "binary": True, "confidence": "high"}, {"kind": "curve"}]),
        ("extrapolate", [{"kind": "bank"}, {"kind": "target"}]),
        ("extrapolate", [{"kind": "bank", "notes": 3}, {"kind": "target", "key": []}]),
        ("audit", [{"kind": "target"}, {"kind": "rule"}]),
        ("audit", [{"kind": "target"}, {"kind": "rule", "name": ["target"]}]),
    ],
)
def test_records_that_lack_something_are_one_error(tmp_path, command, records):
    head = [{**RUN[0], "command": command}, RUN[1]]
    write_records(tmp_path / "record.jsonl", head if command == "audit" else [*head, *records])
    write_records(tmp_path / "audit.jsonl", records)
    for show in (summary_table, write_report):
        with pytest.raises(DataError, match="does not hold what operant writes there .* Make it again"):
            show(tmp_path)
    assert not (tmp_path / "report" / "index.html").exists()


@pytest.mark.parametrize("about", [{"seed": [1], "branch": "ce"}, {"seed": "x", "branch": []}])
def test_a_job_of_another_type_is_one_error(tmp_path, about):
    write_records(tmp_path / "job.json", [about])
    write_records(tmp_path / "prompts.jsonl", [{"prompt": 1, "values": {"pass@1": 0.5}}])
    write_records(tmp_path / "again" / "job.json", [{"seed": 0, "branch": "pass@4"}])
    write_records(tmp_path / "again" / "prompts.jsonl", [{"prompt": 1, "values": {"pass@1": 0.5}}])
    with pytest.raises(DataError):
        summary_table(tmp_path)
