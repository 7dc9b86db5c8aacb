"""Which checkpoint a job goes on from, and what of its record belongs to it."""

import json
import shutil

import pytest
import torch
from safetensors.torch import save_file

from operant.core.record import append_record, read_records
from operant.hf.train.checkpoints import clear, damage, go_back, newest


def checkpoint(folder, step):
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    save_file({"weight": torch.randn(40, 40)}, path / "model.safetensors")
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin"):
        torch.save({"state": torch.randn(100)}, path / name)
    (path / "config.json").write_text("{}")
    (path / "trainer_state.json").write_text(json.dumps({"global_step": step, "log_history": [{"loss": 1.0}] * 20}))
    return path


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


DAMAGES = {
    "truncated weights": lambda p: cut(p / "model.safetensors"),
    "empty weights": lambda p: (p / "model.safetensors").write_bytes(b""),
    "no weights": lambda p: (p / "model.safetensors").unlink(),
    "no state": lambda p: (p / "trainer_state.json").unlink(),
    "cut state": lambda p: cut(p / "trainer_state.json"),
    "garbled state": lambda p: (p / "trainer_state.json").write_bytes(b"\xff\x00\xfe"),
    "state of another step": lambda p: (p / "trainer_state.json").write_text('{"global_step": 1}'),
    "state that is none": lambda p: (p / "trainer_state.json").write_text("[]"),
    "no optimizer": lambda p: (p / "optimizer.pt").unlink(),
    "cut optimizer": lambda p: cut(p / "optimizer.pt"),
    "garbled optimizer": lambda p: (p / "optimizer.pt").write_bytes(b"nothing"),
    "flipped bits": lambda p: flip(p / "optimizer.pt"),
    "no scheduler": lambda p: (p / "scheduler.pt").unlink(),
    "cut scheduler": lambda p: cut(p / "scheduler.pt"),
    "no random state": lambda p: (p / "rng_state.pth").unlink(),
    "cut random state": lambda p: cut(p / "rng_state.pth"),
    "empty folder": lambda p: (shutil.rmtree(p), p.mkdir()),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(tmp_path, caplog, kind):
    record = tmp_path / "record.jsonl"
    for step in (2, 10):
        append_record(record, "step", step=step)
        DAMAGES[kind](checkpoint(tmp_path, step)) if step == 10 else checkpoint(tmp_path, step)
    assert damage(tmp_path / "checkpoint-2") == ""
    go_back(tmp_path, record, last=20)
    assert newest(tmp_path) == tmp_path / "checkpoint-2" and not (tmp_path / "checkpoint-10").exists()
    step, warning = read_records(record)
    assert step["step"] == 2 and warning["kind"] == "warning"
    assert "checkpoint-10 is damaged" in warning["text"] and "resumes from checkpoint-2." in warning["text"]
    assert warning["text"] in caplog.text
    go_back(tmp_path, record, last=20)
    assert len(read_records(record)) == 2, "it is said once"


def test_without_a_whole_one_training_starts_again(tmp_path, caplog):
    record = tmp_path / "record.jsonl"
    append_record(record, "evaluation", step=0)
    append_record(record, "step", step=4)
    cut(checkpoint(tmp_path, 4) / "optimizer.pt")
    (tmp_path / "checkpoint-note").mkdir()
    go_back(tmp_path, record, last=20)
    assert newest(tmp_path) is None and "resumes from the start." in caplog.text
    assert [r["kind"] for r in read_records(record)] == ["warning"]


def test_records_that_will_be_written_again_are_dropped(tmp_path):
    record = tmp_path / "record.jsonl"
    kept = [("evaluation", 0), ("step", 2), ("evaluation", 2), ("evaluation", 4), ("warning", 4), ("step", 4)]
    for kind, step in [*kept, ("step", 5), ("evaluation", 6), ("warning", 6), ("done", 6)]:
        append_record(record, kind, step=step)
    checkpoint(tmp_path, 4)
    go_back(tmp_path, record, last=6)
    assert [(r["kind"], r["step"]) for r in read_records(record)] == kept
    go_back(tmp_path, record, last=4)  # the checkpoint is of the last step: the final evaluation comes again
    assert [(r["kind"], r["step"]) for r in read_records(record)] == [*kept[:3], ("step", 4)]


def test_sharded_checkpoints_keep_what_deepspeed_calls_as_it_likes(tmp_path):
    path = checkpoint(tmp_path, 4)
    (path / "global_step4").mkdir()
    for name in ("model.safetensors", "optimizer.pt", "scheduler.pt"):
        (path / name).unlink()
    torch.save({}, path / "global_step4" / "zero_pp_rank_0_mp_rank_00_optim_states.pt")
    assert damage(path) == ""
    cut(path / "global_step4" / "zero_pp_rank_0_mp_rank_00_optim_states.pt")
    assert "zero_pp_rank_0_mp_rank_00_optim_states.pt" in damage(path)


def test_a_finished_job_keeps_what_trackers_wrote(tmp_path):
    checkpoint(tmp_path, 4)
    for name in ("README.md", "tensorboard/events", "completions/1.parquet", "model/README.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    clear(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["completions", "model", "tensorboard"]
    assert (tmp_path / "model" / "README.md").exists()
