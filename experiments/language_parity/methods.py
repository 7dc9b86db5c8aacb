"""The methods on one target: the extrapolator, its learned baselines, and a search that runs the functions."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from operant.language import Candidate, LanguageExtrapolator, Relation, TextBank, TextTask, Toggle

QUERIES = 10


def shown(pairs: Sequence[tuple[str, str]], x: str) -> str:
    """Demonstrations and a query, as the flat model reads them."""
    return "".join(f"{a} {b}\n" for a, b in pairs) + f"{x}\n"


@dataclass(frozen=True)
class Flat(Relation):
    """The baseline without decomposition: the prompt shows demonstrations of the task itself."""

    def candidates(self, bank: TextBank) -> list[Candidate]:
        """Known tasks; the target is none of them, it is shown."""
        return [Candidate((task.name,)) for task in bank]

    def prompt(self, candidate: Candidate, x: str, run: Any) -> str:
        """5, 8 or 10 random demonstrations, the same for the same query."""
        rng = np.random.default_rng(zlib.crc32(f"{candidate} {x}".encode()))
        drawn = [z for z in rng.choice(run.bank.inputs, 11, replace=False).tolist() if z != x]
        pairs = [(z, str(sum(int(run(name, z)) for name in candidate.steps) % 2)) for z in drawn]
        return shown(pairs[: rng.choice([5, 8, 10])], x)

    def lessons(self, bank: TextBank, held_out: Sequence[TextTask] = ()) -> list[Any]:
        """The tasks that the extrapolator learns from."""
        return Toggle().lessons(bank, held_out)


def evaluate(
    model: LanguageExtrapolator,
    flat: LanguageExtrapolator,
    target: TextTask,
    targets: Sequence[TextTask],
    n: int,
    sets: int,
) -> dict[str, float]:
    """Shares of right answers, means over support sets; the same sets for every training seed."""
    inputs, relation = list(model.bank_.inputs), Toggle()
    rng, truth = np.random.default_rng([n, *target.name.encode()]), np.array([target.run(x) for x in inputs])
    # Every parity of 6 bits can be written as one of 5 and a further bit: the targets are the search space's functions.
    space = [np.array([other.run(x) for x in inputs]) for other in targets]
    pairs = {
        tuple(sorted((*model.bank_[c.anchor[0]].parts, c.transformation))): c for c in relation.candidates(model.bank_)
    }
    true = pairs.pop(tuple(sorted(target.parts)))
    wrong, executor = list(pairs.values()), model.executor()
    found: Counter[str] = Counter()
    for _ in range(sets):
        order = rng.permutation(len(inputs))
        supports, queries = order[:n], order[n : n + QUERIES]
        known, asked = [(inputs[i], str(truth[i])) for i in supports], [inputs[i] for i in queries]
        few = "".join(f"Input: {x}\nOutput: {y}\n\n" for x, y in known)
        random = wrong[int(np.random.default_rng(order).integers(len(wrong)))]
        answers = {
            "extrapolator": model.adapt(known).predict(asked),
            "oracle pair": executor.outputs([true], asked, execute="model")[0],
            "random context": executor.outputs([random], asked, execute="model")[0],
            "flat fine-tuning": flat.executor().write([shown(known, x) for x in asked]),
            "few-shot": [y.strip() for y in executor.write([f"{few}Input: {x}\nOutput:" for x in asked])],
        }
        agree = [values for values in space if (values[supports] == truth[supports]).all()]
        votes = [Counter(values[i] for values in agree).most_common(1)[0][0] for i in queries]
        for name, values in (answers | {"symbolic vote": votes}).items():
            found[name] += np.mean(np.array(values) == truth[queries])
        found["symbolic pick"] += np.mean([np.mean(values[queries] == truth[queries]) for values in agree])
        found["consistent"] += len(agree)
    return {name: round(float(value / sets), 4) for name, value in found.items()}


def flat_alone(flat: LanguageExtrapolator, target: TextTask, n: int, sets: int) -> float:
    """The flat model's share of right answers on one target."""
    inputs, rng = list(flat.bank_.inputs), np.random.default_rng([n, *target.name.encode()])
    found: list[bool] = []
    for order in [rng.permutation(inputs).tolist() for _ in range(sets)]:
        known, asked = [(x, str(target.run(x))) for x in order[:n]], order[n : n + QUERIES]
        written = flat.executor().write([shown(known, x) for x in asked])
        found += [a == str(target.run(x)) for a, x in zip(written, asked, strict=True)]
    return float(np.mean(found))
