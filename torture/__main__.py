"""``make torture``: all classes of trouble, one table. ``TORTURE=short`` takes a share of each."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import warnings
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from rich.console import Console

# Imported once, here: every trial is a fork of this process.
import operant.hf.rollouts.collect
import operant.hf.train.rl_job
import operant.hf.train.sft_job
import operant.published.audit  # noqa: F401
import operant.relational.adapted  # noqa: F401
from torture import disk, fuzz, fuzz_folders, fuzz_strategies, fuzz_texts, kills, signals, soak  # noqa: F401
from torture.commands import warm
from torture.table import Table
from torture.work import Unit, run_units

KILLED = ("train sft", "train grpo", "evaluate", "demo", "plan", "audit", "extrapolate", "report")
CLASSES = ("kills", "fuzz", "disk", "signals", "programs", "soak")


def main() -> int:
    """Run the classes that are asked for; exit code 1 if a row of the table is open."""
    parser = argparse.ArgumentParser(prog="torture", description=__doc__)
    parser.add_argument("--short", action="store_true", default=os.environ.get("TORTURE") == "short")
    parser.add_argument("--only", nargs="+", choices=CLASSES, default=CLASSES)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--slots", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--write", type=Path, help="file that gets the table as Markdown")
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    root = Path(tempfile.mkdtemp(prefix="operant-torture-", dir=_roomy()))
    table = Table()
    try:
        units = _units(args, root)
        console = Console()
        with console.status("torture") as status:
            run_units(units, table, args.slots, _shower(console, status))
    except KeyboardInterrupt:
        print("stopped: the table has what was tried so far", file=sys.stderr)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    command = "TORTURE=short make torture" if args.short else "make torture"
    print(f"\n{table.markdown()}\n\n{table.facts(command)}")
    if args.write:
        args.write.parent.mkdir(parents=True, exist_ok=True)
        args.write.write_text(f"{table.markdown()}\n\n{table.facts(command)}\n", encoding="utf-8")
    if table.failed:
        print(f"\n{table.troubles()}", file=sys.stderr)
    return int(table.failed)


def _units(args: argparse.Namespace, root: Path) -> list[Unit]:
    short, found = args.short, list[Unit]()
    wanted = {}
    warm(root / "warm")
    if {"kills", "disk", "signals", "fuzz"} & set(args.only):
        for name in KILLED:
            print(f"uninterrupted: {name}", flush=True)
            wanted[name] = kills.reference(name, root)
    states = {name: state for name, (state, _) in wanted.items()}
    if "kills" in args.only:
        found += kills.units(wanted, root, stride=25 if short else 1, several=0.1, seed=args.seed)
    if "disk" in args.only:
        found += disk.units(root, states, each=2 if short else 12, seed=args.seed)
    if "signals" in args.only:
        found += signals.units(root, states, each=1 if short else 4, damaged=4 if short else 40, seed=args.seed)
    if "fuzz" in args.only:
        fuzz_folders.prepare(root)
        found += fuzz.units(0.03 if short else 1.0, root, args.seed)
    if "programs" in args.only:
        from torture import programs

        found += programs.units(root, share=0.2 if short else 1.0, seed=args.seed)
    if "soak" in args.only:
        found += soak.units(root, 45 if short else 600)
    return found


def _shower(console: Console, status: object):  # noqa: ANN202
    last = [""]

    def show(text: str) -> None:
        if console.is_terminal:
            status.update(text)  # pyright: ignore[reportAttributeAccessIssue]
        elif text.split(".")[0] != last[0]:  # a line a minute
            last[0] = text.split(".")[0]
            print(text, flush=True)

    return show


def _roomy() -> str | None:
    """Memory as a disk, where there is enough: what is killed here is killed, and no power fails."""
    shm = Path("/dev/shm")
    return str(shm) if shm.is_dir() and shutil.disk_usage(shm).free > 4 << 30 else None


if __name__ == "__main__":
    sys.exit(main())
