"""Real curves outside the bank, and the paper's projectile: the automatic choice beside every operator.

    python examples/get_relational_data.py DATA
    python experiments/relational/real.py DATA

Root mean square error over all target points that are not context, in the data's units. The choice sees the context
only.
"""

import csv
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from jsonargparse import auto_cli

from operant.relational import Extrapolator, TaskBank, read_csv
from operant.relational.bank.families import FAMILIES

Case = tuple[TaskBank, dict[object, tuple]]
"""Bank, and key -> (context x, y, query x, y, parameters or None)."""


def relaxation(folder: Path, known: Callable[[float], bool]) -> Case:
    """log10 of the modulus over log10 of time at 21 temperatures; the three shortest times are given."""
    with (folder / "relaxation" / "time_user_raw.csv").open(encoding="utf-8-sig") as file:
        rows = np.array([[float(v) for v in r[:4]] for r in list(csv.reader(file))[2:] if r and r[0]])
    curves = {}
    for group in np.unique(rows[:, 3]):
        r = rows[rows[:, 3] == group]
        r = r[np.argsort(r[:, 0])]
        curves[round(float(r[:, 2].mean()), 1)] = np.log10(r[:, 0]), np.log10(r[:, 1])
    bank = {t: c for t, c in curves.items() if known(t)}
    targets = {t: (x[:3], y[:3], x[3:], y[3:], [t]) for t, (x, y) in curves.items() if not known(t)}
    return TaskBank.from_arrays(bank, params=list(bank), param_names=["T"]), targets


def fatigue(folder: Path) -> Case:
    """log crack length over cycles; the ten slowest paths are known, the first five inspections of the others."""
    c = read_csv(folder / "tables" / "fatigue.csv")
    paths = {p: (c["cycles"][c["Path"] == p], np.log(c["relLength"][c["Path"] == p])) for p in np.unique(c["Path"])}
    order = sorted(paths, key=lambda p: np.interp(0.04, *paths[p]))
    bank = TaskBank.from_arrays({p: paths[p] for p in order[:10]})
    return bank, {p: (x[:5], y[:5], x[5:], y[5:], None) for p, (x, y) in paths.items() if p in order[10:]}


def airfoil(folder: Path) -> Case:
    """Sound pressure over log10 frequency by angle, chord, speed; 71.3 m/s from 55.5 and less, three spread points."""
    a = np.loadtxt(folder / "airfoil" / "airfoil_self_noise.dat", skiprows=1)
    curves = {}
    for key in sorted({tuple(r) for r in a[:, 1:4]}):
        r = a[(a[:, 1:4] == key).all(1)]
        r = r[np.argsort(r[:, 0])]
        curves[key] = np.log10(r[:, 0]), r[:, 5]
    bank = {k: c for k, c in curves.items() if k[2] < 60}
    targets = {}
    for k, (x, y) in curves.items():
        if k[2] > 60:
            given = np.isin(np.arange(len(x)), [0, len(x) // 2, len(x) - 1])
            targets[k] = x[given], y[given], x[~given], y[~given], list(k)
    return TaskBank.from_arrays(bank, params=list(bank), param_names=["angle", "chord", "U"]), targets


def projectile(folder: Path) -> Case:
    """The paper's figure 1: v = 65, 45 degrees, from v in [30, 60]; 8 points up to x = 200, queries to 430."""
    rng = np.random.default_rng(0)
    params = np.column_stack([rng.uniform(30, 60, 200), rng.uniform(40, 50, 200)])
    f = FAMILIES["projectile"]
    bank = TaskBank.from_callables(f.function, np.linspace(0, 200, 64), params=params)
    x, q = rng.uniform(0, 200, (8, 1)), np.linspace(0, 430, 100)[:, None]
    y, truth = (f.values(np.array([65.0, 45.0]), p)[0] for p in (x, q))
    return bank, {"v = 65": (x, y, q, truth[:, 0], None)}


CASES: dict[str, Callable[[Path], Case]] = {
    "relaxation, hotter": lambda d: relaxation(d, lambda t: t <= 55),
    "relaxation, colder": lambda d: relaxation(d, lambda t: t >= 40),
    "fatigue, fast cracks": fatigue,
    "airfoil, 71.3 m/s": airfoil,
    "projectile, v = 65": projectile,
}


def main(data: Path, only: str = "") -> None:
    """Print a table a case."""
    warnings.simplefilter("ignore")
    for name, case in CASES.items():
        if only not in name:
            continue
        bank, targets = case(data)
        model = Extrapolator().fit(bank)
        square: dict[str, list[np.ndarray]] = {}
        holds, flagged = [], []
        for x, y, q, truth, params in targets.values():
            target = model.adapt(x, y, params=params, query=q)
            low, high = target.interval(q)
            holds.append((low <= truth) & (truth <= high))
            flagged.append(not target.applicable_)
            for operator, values in ({"auto": target.predict(q)} | target.each(q)).items():
                square.setdefault(operator, []).append((values - truth) ** 2)
        rmse = {n: float(np.sqrt(np.mean(np.concatenate(v)))) for n, v in square.items() if len(v) == len(targets)}
        hold = np.mean(np.concatenate(holds))
        print(f"\n{name}: {bank}; {len(targets)} targets, intervals hold {hold:.0%}, flagged {np.mean(flagged):.0%}")
        for operator, value in sorted(rmse.items(), key=lambda k: k[1]):
            print(f"  {value:10.4g}  {operator}")


if __name__ == "__main__":
    auto_cli(main)
