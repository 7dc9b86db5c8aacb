"""``operant reproduce``: run the claims as processes of their own, a few at a time; a finished one is not run again."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path
from threading import Event

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn

from operant.core.checks import ConfigError, DataError
from operant.core.progress import LoggedProgress
from operant.core.record import append_record, claim_folder, write_text
from operant.reproduce.claims import Claim, read_claims, verdict
from operant.reproduce.comparisons import read_comparisons
from operant.reproduce.config import ReproduceConfig
from operant.reproduce.table import markdown

LOG = "log.txt"


def reproduce(config: ReproduceConfig) -> Path | None:
    """Run the claims and record what each measured; None if only the table was written.

    Raises:
        ConfigError: for a claim that does not exist.
        DataError: if there are no claims here, or some of them failed; the others' figures are kept.
    """
    claims = chosen(read_claims(config.experiments or _of_clone()), config.claims)
    if config.write is not None:
        write_text(config.write, markdown([(claim, read_comparisons(claim.folder)) for claim in claims]))
        return None
    folder, settings = config.output_dir, {"quick": config.quick, "claims": [claim.name for claim in claims]}
    with claim_folder(folder, "reproduce", settings, resume=config.resume, loose=("claims",)) as records:
        done = {r["name"] for r in records if r.get("kind") == "claim"}
        _run_all([c for c in claims if not c.untestable and c.name not in done], folder, config)
        for claim in claims:
            if claim.untestable and claim.name not in done:
                _record(folder, claim, 0.0)
    return folder


def chosen(claims: Sequence[Claim], names: Sequence[str]) -> list[Claim]:
    """The claims of these names, in the papers' order; all for none."""
    known = [claim.name for claim in claims]
    if wrong := [name for name in names if name not in known]:
        raise ConfigError(f"expected names of claims, got {', '.join(wrong)}. There are: {', '.join(known)}.")
    return [claim for claim in claims if not names or claim.name in names]


def _of_clone() -> Path:
    """``experiments`` in the current folder, or beside the source of an editable installation."""
    here = Path("experiments")
    return here if here.is_dir() else Path(__file__).parents[3] / "experiments"


def _run_all(claims: Sequence[Claim], folder: Path, config: ReproduceConfig) -> None:
    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    failed, stop = list[str](), Event()
    bars = LoggedProgress(*(TextColumn(c) if isinstance(c, str) else c for c in columns), console=Console(stderr=True))
    with bars, ThreadPoolExecutor(config.jobs or os.cpu_count()) as pool:
        bar = bars.add_task("claims", total=len(claims))
        runs = {pool.submit(_run, claim, folder, config.quick, stop): claim for claim in claims}
        try:
            for run in as_completed(runs):
                claim, (code, seconds) = runs[run], run.result()
                if code == 0 and read_comparisons(folder / claim.name):
                    _record(folder, claim, seconds)
                else:
                    failed.append(f"{claim.name}: {_last_line(folder / claim.name / LOG)}")
                bars.update(bar, advance=1, description=f"claims (last: {claim.name}, {seconds:.0f} s)")
        except BaseException:
            stop.set()
            raise
    if failed:
        raise DataError(
            f"{len(failed)} of {len(claims)} claims failed. {'; '.join(failed)}. Their logs: {folder}/CLAIM/{LOG}. "
            "The others are kept: go on with --resume true."
        )


def _run(claim: Claim, folder: Path, quick: bool, stop: Event) -> tuple[int, float]:
    """Exit code and seconds of a claim's run; ended early if ``stop`` is set."""
    if stop.is_set():
        return 1, 0.0
    place, start = folder / claim.name, time.monotonic()
    place.mkdir(exist_ok=True)
    # Spinning threads slow small steps 4 to 20 times.
    environment = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", **os.environ}
    command = claim.command(place, quick=quick)
    with (place / LOG).open("a") as log, subprocess.Popen(command, stdout=log, stderr=log, env=environment) as process:
        while process.poll() is None:
            if stop.wait(0.2):
                process.terminate()
    return process.returncode, time.monotonic() - start


def _record(folder: Path, claim: Claim, seconds: float) -> None:
    found = read_comparisons(folder / claim.name)
    told = {name: getattr(claim, name) for name in ("name", "title", "paper", "place", "says", "here", "untestable")}
    rows = [asdict(comparison) | {"holds": comparison.holds} for comparison in found]
    append_record(
        folder / "record.jsonl", "claim", **told, seconds=seconds, verdict=verdict(claim, found), comparisons=rows
    )


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").split("\n") if log.is_file() else []
    return next((line.strip() for line in reversed(lines) if line.strip()), "no output")
