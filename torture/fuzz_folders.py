"""Damaged folders: runs of every verb for their pages, saved banks and estimators, saved models."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st

from operant.hf.rollouts.policy import load_policy
from operant.relational import Extrapolator, TaskBank
from operant.report import summary_table
from operant.report.kinds import naming_damage, page_of
from operant.report.page import render
from operant.report.theme import vega_bundle
from torture.fuzz import kind
from torture.values import changed_bytes, changed_json, lines, paths

BASES: dict[str, dict[str, bytes]] = {}
"""Folder -> file -> bytes: filled by :func:`remember` before the forks."""
PARSED: dict[tuple[str, str], tuple[Any, list[Any]]] = {}
RUNS = ("train-sft", "train-grpo", "evaluate", "plan", "audit", "extrapolate")
READ = ("record.jsonl", "prompts.jsonl", "job.json", "audit.jsonl")


def remember(name: str, folder: Path, wanted: tuple[str, ...] = READ) -> None:
    """Keep the files of a sound folder, to damage copies of them."""
    files = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.name in wanted}
    BASES[name] = {at: p.read_bytes() for at, p in files.items()}
    for at, data in BASES[name].items():
        if at.endswith((".json", ".jsonl")):
            value = (
                [json.loads(line) for line in data.split(b"\n") if line.strip()]
                if at.endswith("l")
                else json.loads(data)
            )
            PARSED[name, at] = (value, paths(value))


@st.composite
def damaged(draw: st.DrawFn, names: tuple[str, ...]) -> tuple[str, str, bytes | None]:
    """A folder, one of its files, and what stands in it instead; None: it is gone."""
    name = draw(st.sampled_from(names))
    at = draw(st.sampled_from(sorted(BASES[name])))
    how = draw(st.integers(0, 20))
    if how == 0:
        return name, at, None
    if how < 7 or (name, at) not in PARSED:
        return name, at, draw(changed_bytes(BASES[name][at]))
    value = draw(changed_json(*PARSED[name, at]))
    return name, at, lines(value) if at.endswith("l") else json.dumps(value).encode()


def write(name: str, at: str, data: bytes | None) -> Path:
    """A copy of the folder with this one file changed; the others are written once."""
    folder = Path("folders") / name
    for other, sound in BASES[name].items():
        path = folder / other
        if other != at and not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(sound)
    path = folder / at
    path.parent.mkdir(parents=True, exist_ok=True)
    if data is None:
        path.unlink(missing_ok=True)
    else:
        path.write_bytes(data)
    return folder


def restore(name: str, at: str) -> None:
    """The changed file as it was."""
    (Path("folders") / name / at).write_bytes(BASES[name][at])


@kind("run folders: tables", st.deferred(lambda: damaged(RUNS)), count=15_000, each=0.006)
def run_tables(value: tuple[str, str, bytes | None]) -> None:
    """The table in the terminal."""
    folder = write(*value)
    try:
        assert summary_table(folder)
    finally:
        restore(*value[:2])


@kind("run folders: pages", st.deferred(lambda: damaged(RUNS)), count=1_500, each=0.1, warm=vega_bundle)
def run_pages(value: tuple[str, str, bytes | None]) -> None:
    """The page, without its pictures."""
    folder = write(*value)
    try:
        with naming_damage(folder):
            assert render(page_of(folder)).startswith("<!doctype html>")
    finally:
        restore(*value[:2])


@kind("saved banks", st.deferred(lambda: damaged(("bank",))), count=6_000, each=0.004)
def banks(value: tuple[str, str, bytes | None]) -> None:
    """A bank that loads is finite and can be evaluated."""
    folder = write(*value)
    try:
        bank = TaskBank.load(folder)
        assert np.isfinite(bank.values(bank.grid(5))).all()
    finally:
        restore(*value[:2])


@kind("saved estimators", st.deferred(lambda: damaged(("estimator",))), count=1_500, each=0.15)
def estimators(value: tuple[str, str, bytes | None]) -> None:
    """An estimator that loads predicts finite values."""
    folder = write(*value)
    try:
        model = Extrapolator.load(folder)
        target = model.adapt([[0.0]] * 2, [[0.1]] * 2)
        assert np.isfinite(target.predict([[0.5]])).all()
    finally:
        restore(*value[:2])


@kind("saved models", st.deferred(lambda: damaged(("model", "adapter"))), count=2_000, each=0.04)
def models(value: tuple[str, str, bytes | None]) -> None:
    """A model that loads reads text, and computes if its settings are as they were."""
    folder = write(*value)
    try:
        policy = load_policy(str(folder), device="cpu")
        ids = policy.tokenizer("12*34=", return_tensors="pt")["input_ids"]
        if value[1].endswith(".safetensors"):
            policy.model(input_ids=ids)
    finally:
        restore(*value[:2])


def prepare(root: Path) -> None:
    """Sound folders to damage: what the commands wrote, a bank, an estimator, a model and an adapter."""
    for name in RUNS:
        remember(name, root / name / "whole" / "run")
    x = np.linspace(0, 1, 8)
    bank = TaskBank.from_arrays({f"t{i}": (x, i + x**2) for i in range(4)}, params=[0.0, 1.0, 2.0, 3.0])
    remember("bank", bank.save(root / "saved" / "bank"), ("bank.json", "bank.npz"))
    model = Extrapolator(operator="shift").fit(bank)
    model.save(root / "saved" / "estimator")
    remember("estimator", root / "saved" / "estimator", tuple(os.listdir(root / "saved" / "estimator")))
    load_policy("embedded", device="cpu").save(root / "saved" / "model")
    remember("model", root / "saved" / "model", tuple(os.listdir(root / "saved" / "model")))
    adapter = root / "saved" / "adapter"
    _adapter(root / "saved" / "model", adapter)
    remember("adapter", adapter, tuple(os.listdir(adapter)))


def _adapter(base: Path, folder: Path) -> None:
    from operant.hf.rollouts.policy import add_lora

    torch.manual_seed(0)
    add_lora(load_policy(str(base), device="cpu"), rank=2, alpha=4, seed=0).save(folder)
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
