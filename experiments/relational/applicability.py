"""Does the estimator know when it does not apply? Members of a family against aliens from the other families.

    python experiments/relational/applicability.py --output_dir runs/applicability --jobs 2

An alien is a target of another family at the same context points, moved and scaled to the mean and spread of a member's
context, so that level and size give nothing away. AUC: probability that an alien's score is above a member's.
"""

import json
import warnings
from pathlib import Path

import numpy as np
from jsonargparse import auto_cli
from sklearn.metrics import roc_auc_score

from operant.core.rng import numpy_generator
from operant.hf import worker_pool

FAMILIES = ("quadratic", "exp", "cubic", "tri_trend", "sin_trend", "frequency")
SETTINGS = {"8 clean": (8, 0.0), "4 noisy": (4, 0.05)}


def cell(path: Path, family: str, setting: str, seed: int, tasks: int) -> None:
    """Scores and p-values of ``tasks`` members and as many aliens."""
    from operant.relational import Extrapolator
    from operant.relational.bank.families import FAMILIES as KNOWN

    warnings.simplefilter("ignore")
    f, (points, noise) = KNOWN[family], SETTINGS[setting]
    rng = numpy_generator(seed, family, setting, "applicability")
    model = Extrapolator(random_state=seed).fit(f.bank(rng=rng))
    others = [n for n in FAMILIES if n != family]
    rows = []
    for i, params in enumerate(f.targets(tasks, rng)):
        x = f.points(points, rng)
        member = f.values(params, x)[0]
        other = KNOWN[others[i % len(others)]]
        alien = other.values(other.targets(1, rng), x)[0]
        alien = member.mean(0) + (alien - alien.mean(0)) * member.std(0) / alien.std(0)
        for label, y in ((0, member), (1, alien)):
            seen = y + noise * y.std(0) * rng.standard_normal(y.shape)
            found = model.adapt(x, seen).applicability()
            rows.append(
                {"alien": label, "score": found.score, "p_value": found.p_value, "flagged": not found.applicable}
            )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows), encoding="utf-8")


def main(output_dir: Path = Path("runs/applicability"), seeds: int = 2, tasks: int = 15, jobs: int = 2) -> None:
    """Run what is not done, and print the table."""
    cells = [
        (output_dir / f"{k}-{f}-{s}.json", f, k, s, tasks) for s in range(seeds) for f in FAMILIES for k in SETTINGS
    ]
    with worker_pool(max(jobs, 1), threads=1) as pool:
        for future in [pool.submit(cell, *c) for c in cells if jobs and not c[0].is_file()]:
            future.result()
    for setting in SETTINGS:
        print(f"{setting} context points")
        areas = []
        for family in FAMILIES:
            files = [c[0] for c in cells if c[1:3] == (family, setting) and c[0].is_file()]
            rows = [r for file in files for r in json.loads(file.read_text(encoding="utf-8"))]
            if not rows:
                continue
            areas.append(roc_auc_score([r["alien"] for r in rows], [r["score"] for r in rows]))
            flagged = [np.mean([r["flagged"] for r in rows if r["alien"] == a]) for a in (0, 1)]
            print(f"  {family:12} AUC {areas[-1]:.3f}; flagged: members {flagged[0]:.0%}, aliens {flagged[1]:.0%}")
        print(f"  {'mean':12} AUC {np.mean(areas):.3f}" if areas else "  nothing yet")


if __name__ == "__main__":
    auto_cli(main)
