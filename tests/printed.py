"""What a shell block prints beside what the page says: lines may be left out, and numbers may differ a little."""

from __future__ import annotations

import math
import re

NUMBER = re.compile(r"(?<![\w.])[-+]?\d+(?:,\d{3})*(?:\.(\d+))?(?:e([-+]\d+))?")


def same(out: str, said: str) -> bool:
    """Equal words, numbers within a tenth or two units of their last decimal; ``...`` stands for any lines."""
    lines = [line.rstrip() for line in out.splitlines()]
    parts = [part.strip("\n").splitlines() for part in re.split(r"^\.\.\.$", said, flags=re.MULTILINE)]
    at = 0
    for i, part in enumerate(parts):
        last = i == len(parts) - 1
        places = [len(lines) - len(part)] if last else [0] if i == 0 else range(at, len(lines) - len(part) + 1)
        if len(parts) == 1:
            places = [0] if len(lines) == len(part) else []
        found = next((p for p in places if p >= at and _alike(lines[p : p + len(part)], part)), None)
        if found is None:
            return False
        at = found + len(part)
    return True


def _alike(lines: list[str], part: list[str]) -> bool:
    return len(lines) == len(part) and all(map(_close, lines, part))


def _close(line: str, said: str) -> bool:
    if NUMBER.sub("#", line).split() != NUMBER.sub("#", said).split():
        return False
    for a, b in zip(NUMBER.finditer(line), NUMBER.finditer(said), strict=True):
        unit = 10.0 ** (int(b[2] or 0) - len(b[1])) if b[1] else 0.0
        x, y = (float(m[0].replace(",", "")) for m in (a, b))
        if not math.isclose(x, y, rel_tol=0.1, abs_tol=2 * unit * (1 + 1e-9)):
            return False
    return True
