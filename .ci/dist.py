"""Build the sdist and the wheel into dist/, and try the wheel in an environment of its own: make dist.

A .pth file shows it the libraries of the environment that runs this script: nothing is downloaded. Its own packages
come first, so that what is imported as operant is the wheel.
"""

from __future__ import annotations

import email
import hashlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import venv
import zipfile
from pathlib import Path

from packaging.metadata import Metadata

ROOT = Path(__file__).parents[1]
DIST = ROOT / "dist"
ROLLOUTS = [
    {"prompt": f"{a}+1=", "completion": str(a + b), "reward": float(b == 1)} for a in range(4) for b in range(3)
]


def call(*words: str | Path, cwd: Path = ROOT) -> str:
    """What a command prints; it must succeed."""
    done = subprocess.run([*map(str, words)], cwd=cwd, env=environment(), capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, words))} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def environment() -> dict[str, str]:
    """Without the source tree."""
    return {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def built() -> tuple[Path, Path]:
    """The sdist and the wheel; the wheel made of the sdist is that of the tree, byte by byte."""
    shutil.rmtree(DIST, ignore_errors=True)
    call(sys.executable, "-m", "build", "--no-isolation", "--outdir", DIST)  # the sdist, and from it the wheel
    (sdist,), (wheel,) = DIST.glob("*.tar.gz"), DIST.glob("*.whl")
    with tempfile.TemporaryDirectory() as folder:
        call(sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", folder)
        digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in (wheel, Path(folder, wheel.name))]
    expect(digests[0] == digests[1], "the sdist and the tree make different wheels")
    return sdist, wheel


def check_contents(wheel: Path) -> None:
    """All of the package is in the wheel and nothing else; its metadata are valid."""
    source = {str(p.relative_to(ROOT / "src")) for p in (ROOT / "src/operant").rglob("*") if p.is_file()}
    source = {name for name in source if "__pycache__" not in name}
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (metadata,) = (archive.read(name) for name in names if name.endswith(".dist-info/METADATA"))
    held = {name for name in names if ".dist-info/" not in name}
    expect(held == source, f"the wheel and src/ differ: {sorted(held ^ source)}")
    read = Metadata.from_email(metadata, validate=True)
    expect(bool(read.summary and read.license_expression and read.provides_extra), "the metadata have gaps")
    expect("# operant" in str(email.message_from_bytes(metadata).get_payload()), "README.md is not in the metadata")


def installed(wheel: Path, folder: Path) -> Path:
    """The bin folder of a fresh environment with the wheel."""
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin/python"
    call(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel)
    place = Path(call(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    (place / "libraries.pth").write_text(f"{sysconfig.get_path('purelib')}\n", encoding="utf-8")
    return folder / "bin"


def try_out(bin_: Path, folder: Path) -> None:
    """The commands that need no model: what they print and write."""
    where = call(
        bin_ / "python", "-c", "import operant; print(operant.__file__, operant.__version__)", cwd=folder
    ).split()
    expect(Path(where[0]).is_relative_to(bin_.parent), f"operant is imported from {where[0]}")
    version = call(bin_ / "operant", "--version", cwd=folder).split()
    expect(version == ["operant", where[1]], f"operant --version prints {version}, operant.__version__ is {where[1]}")
    expect("evaluate" in call(bin_ / "operant", "--help", cwd=folder), "operant --help names no verb")
    (folder / "rollouts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROLLOUTS), encoding="utf-8")
    evaluate = ("evaluate", "--rollouts_file", "rollouts.jsonl", "--budgets", "[1, 2]", "--output_dir", "out")
    printed = call(bin_ / "operant", *evaluate, cwd=folder)
    expect("pass@" in printed and "33.3" in printed, f"operant evaluate printed\n{printed}")
    page = (folder / "out/report/index.html").read_text(encoding="utf-8")
    expect("<style>" in page and "<svg" in page, "the page has no style or no chart")


def expect(right: bool, what: str) -> None:
    """Stop with a message."""
    if not right:
        sys.exit(f"dist: {what}")


if __name__ == "__main__":
    sdist, wheel = built()
    check_contents(wheel)
    with tempfile.TemporaryDirectory() as folder:
        try_out(installed(wheel, Path(folder) / "env"), Path(folder))
    print(f"{sdist.name} and {wheel.name} in dist/: built, installed and tried")
