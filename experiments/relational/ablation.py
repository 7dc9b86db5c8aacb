"""Does the transformation matter, does the anchor? A learned operator without one or the other (appendices K.1 to K.3).

    python experiments/relational/ablation.py runs/ablations

operant's Psi is trained from scratch on pairs of known tasks: with phi, with phi = 0, and with random numbers of phi's
size. The one with phi then starts from the nearest, from random, or from far known tasks. A part is a setting and a
seed; finished parts are kept.
"""

import argparse
from collections.abc import Callable
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from plain import compared, finished, picture, plain, short, stacked, table
from settings import SETTINGS, drawn

from operant.core.rng import numpy_generator
from operant.relational import Context, Fitted, parse_operator
from operant.reproduce import write_comparisons

ARMS = ("psi", "psi, phi = 0", "psi, random phi")
ANCHORS = ("psi, random anchors", "psi, far anchors")


Psi: Any = type(parse_operator("psi"))


class RandomPhi(Psi):
    """Psi with random numbers of phi's size in the place of phi, in training and afterwards."""

    def call(self, net: torch.nn.Module) -> Callable[..., torch.Tensor]:
        """The network as a function of pairs whose phi says nothing."""
        whole, g = super().call(net), torch.Generator().manual_seed(self.seed)

        def blind(pairs: Any) -> torch.Tensor:
            pairs, phi = copy(pairs), pairs.phi()
            pairs.__dict__["phi"] = lambda: torch.randn(phi.shape, generator=g) * phi.square().mean(0).sqrt()
            return whole(pairs)

        return blind


def started(fitted: Any, anchors: str, rng: np.random.Generator) -> Fitted:
    """A trained operator that starts from random known tasks, or from those of the farther half on the context."""
    other = copy(fitted)

    def chosen(context: Context) -> tuple[np.ndarray, np.ndarray]:
        values = fitted.bank.values(context.x)
        order = np.argsort(((values - context.y) ** 2).mean((1, 2)))
        order = rng.permutation(order if anchors == ANCHORS[0] else order[len(order) // 2 :])[:3]
        return order, values[order]

    other.anchors = chosen
    return other


def run(setting: str, seed: int, tasks: int, steps: int) -> dict[str, Any]:
    """Method -> mean squared errors of the targets."""
    bank, target = drawn(setting, seed)
    s, scaled, rng = bank.scaling, bank.scaled(bank.scaling), numpy_generator(seed, "anchors")
    psi = replace(parse_operator("psi"), steps=steps, members=1, seed=seed)  # type: ignore[call-arg]
    operators = (psi, replace(psi, phi_gain=0.0), RandomPhi(**vars(psi)))
    fitted = {name: op.fit(scaled) for name, op in zip(ARMS, operators, strict=True)}
    fitted |= {name: started(fitted["psi"], name, rng) for name in ANCHORS}
    predict, mse = plain(scaled, own=False), dict[str, list[float]]()
    for _ in range(tasks):
        x, y = target()
        c, q = (Context(s.x_in(a), s.y_in(b)) for a, b in zip(np.split(x, 2), np.split(y, 2), strict=True))
        guesses = predict(c, q.x) | {name: f.adapt(c).predict(q.x)[0] for name, f in fitted.items()}
        for name, guess in guesses.items():
            mse.setdefault(name, []).append(np.mean((guess - q.y) ** 2) * s.y_sd[0] ** 2)
    return {"mse": {name: short(v) for name, v in mse.items()}}


def main() -> None:
    """Run the missing parts, print a table a setting, and write what the errors grow by."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--quick", action="store_true", help="two seeds, 100 steps and 20 targets")
    args = parser.parse_args()
    size = {"tasks": 20, "steps": 100} if args.quick else {"tasks": 40, "steps": 400}
    parts = [{"setting": n, "seed": seed, **size} for seed in range(2 if args.quick else 5) for n in SETTINGS]
    rows, comparisons = finished(args.folder, parts, run), []
    errors = {n: stacked([r for r in rows if r["part"]["setting"] == n]) for n in SETTINGS}
    for name, each in errors.items():
        table(each, name)
        comparisons += [compared(f"{name}: {arm[5:]}", "psi", [each], [arm]) for arm in (ARMS[1], ANCHORS[0])]
    write_comparisons(args.folder, comparisons)
    if not args.quick:
        picture(errors, args.folder / "errors.png")


if __name__ == "__main__":
    main()
