"""Problems with exact answers: sparse parity, string programs and chains of them, one reasoning-gym generator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations, groupby, product
from math import gcd

from operant.core.checks import DataError, InputError
from operant.core.rng import numpy_generator
from operant.language.bank import TextBank, TextTask, task_of
from operant.language.splits import TextSplit, hold_out_combinations, hold_out_order

VOWELS = "aeiou"
LENGTHS = (6, 14)
"""Letters of a random word, as in the published experiment."""


def sparse_parity(bits: int = 8, *, sizes: Sequence[int] = (1, 2, 3, 4, 5), target: int = 6) -> TextSplit:
    """Parities of subsets of the bits: the smaller subsets as the bank, those of ``target`` bits as targets.

    An input is "0 1 1 0 ...", an output "0" or "1". A task's parts are its bits. The single bits are the elements that
    :class:`~operant.language.relations.Toggle` adds.

    Args:
        bits: D; the demonstrations are all 2^D inputs.
        sizes: of the subsets in the bank; 1 must be among them.
        target: size of the targets' subsets.

    >>> split = sparse_parity(4, sizes=(1, 2), target=3)
    >>> len(split.bank), [t.name for t in split.targets][:2], split.targets[0].run("1 1 1 0")
    (10, ['parity 0 1 2', 'parity 0 1 3'], '1')
    """
    if not 2 <= bits <= 12 or 1 not in sizes or not max(sizes) < target <= bits:
        raise InputError(
            f"expected 2 to 12 bits, sizes with 1, and max(sizes) < target <= bits, got {bits}, {sizes}, {target}."
        )
    inputs = [" ".join(x) for x in product("01", repeat=bits)]
    tasks: list[TextTask] = []
    for size in sorted({*sizes, target}):
        for mask in combinations(range(bits), size):
            names = tuple(f"bit {i}" for i in mask)
            name = names[0] if size == 1 else "parity " + " ".join(map(str, mask))
            tasks.append(task_of(name, _parity(mask), inputs, names))
    return hold_out_order(tasks, order=target, probes=inputs)


def _parity(mask: Sequence[int]) -> Callable[[str], str]:
    return lambda x: str(sum(x.split()[i] == "1" for i in mask) % 2)


def random_words(count: int, *, seed: int, lengths: tuple[int, int] = LENGTHS) -> list[str]:
    """Distinct random words of lowercase letters."""
    rng, words = numpy_generator(seed, "words"), dict[str, None]()
    while len(words) < count:
        size = int(rng.integers(lengths[0], lengths[1] + 1))
        words["".join(chr(97 + i) for i in rng.integers(0, 26, size))] = None
    return list(words)


def string_programs(inputs: int = 256, *, seed: int = 0, shortest: int = LENGTHS[0]) -> TextBank:
    """The 23 string programs as a bank, with demonstrations on random words.

    Args:
        inputs: words of 6 to 14 letters.
        seed: of the words.
        shortest: letters. Below 6, a quarter as many words again are shorter: a model learns from them first.

    >>> bank = string_programs(100)
    >>> len(bank), len(bank.distinct()), bank["mirror"].run("paper")
    (23, 23, 'paperrepap')
    """
    parts = {name: (name,) for name in PROGRAMS}
    words = random_words(inputs, seed=seed)
    if shortest < LENGTHS[0]:
        words += random_words(inputs // 4, seed=seed, lengths=(shortest, LENGTHS[0] - 1))
    return TextBank.from_functions(PROGRAMS, words, parts=parts)


def string_chains(bank: TextBank, *, depth: int = 2, share: float = 1.0, seed: int = 0) -> TextSplit:
    """Chains of ``depth`` programs as targets, each behavior once; none behaves as a shorter chain does.

    Args:
        bank: tasks with functions, :func:`string_programs` for example.
        depth: steps; the first name of a target's parts is applied first.
        share: of the distinct chains that are targets. The rest may teach a relation.
        seed: of the draw.
    """
    if depth < 2:
        raise InputError(f"depth must be at least 2, got {depth}.")
    known = set(bank.behaviors.values())
    for shorter in range(2, depth):
        known |= {t.behavior(bank.probes) for t in _chains(bank, shorter)}
    longest = [t for t in _chains(bank, depth) if t.behavior(bank.probes) not in known]
    return hold_out_combinations(bank, longest, share=share, seed=seed)


def _chains(bank: TextBank, depth: int) -> list[TextTask]:
    runs = {task.name: task.run for task in bank}
    inputs, found = bank.inputs, list[TextTask]()
    for steps in product(runs, repeat=depth):
        functions = [run for name in steps if (run := runs[name]) is not None]
        if len(functions) == depth:
            f = _chained(functions)
            found.append(TextTask(" > ".join(steps), ((inputs[0], f(inputs[0])),), f, steps))
    return found


def _chained(functions: Sequence[Callable[[str], str]]) -> Callable[[str], str]:
    def run(x: str) -> str:
        for f in functions:
            x = f(x)
        return x

    return run


def _stride(x: str) -> str:
    """Every k-th letter, around and around; k is the smallest stride from 2 that is coprime to the length."""
    n = len(x)
    k = next((k for k in range(2, n) if gcd(k, n) == 1), 1)
    return "".join(x[i * k % n] for i in range(n))


def _caesar(by: int) -> Callable[[str], str]:
    def run(x: str) -> str:
        first = {True: 65, False: 97}
        return "".join(
            chr((ord(c) - first[c.isupper()] + by) % 26 + first[c.isupper()]) if c.isascii() and c.isalpha() else c
            for c in x
        )

    return run


def _rotate(by: int) -> Callable[[str], str]:
    return lambda x: x[by % len(x) :] + x[: by % len(x)] if x else x


def _compress(x: str) -> str:
    runs = ((c, len(list(same))) for c, same in groupby(x))
    return "".join(c if n == 1 else f"{c}{n}" for c, n in runs)


PROGRAMS: dict[str, Callable[[str], str]] = {
    "identity": lambda x: x,
    "stride": _stride,
    "sort": lambda x: "".join(sorted(x)),
    "reverse": lambda x: x[::-1],
    "mirror": lambda x: x + x[::-1],
    "no vowels": lambda x: "".join(c for c in x if c.lower() not in VOWELS),
    "upper": str.upper,
    "double": lambda x: "".join(c + c for c in x),
    "vowel digits": lambda x: "".join(str(VOWELS.index(c.lower()) + 1) if c.lower() in VOWELS else c for c in x),
    "compress": _compress,
    "make even": lambda x: x[:-1] if len(x) % 2 else x,
    "brackets": lambda x: f"[{x}]",
    "alternate": lambda x: "".join(c.lower() if i % 2 else c.upper() for i, c in enumerate(x)),
    "twice": lambda x: x + x,
    "prefix": lambda x: "x_" + x,
    "suffix": lambda x: x + "_y",
    "rotate 1": _rotate(1),
    "rotate 3": _rotate(3),
    "caesar 1": _caesar(1),
    "caesar 13": _caesar(13),
    "dashes": "-".join,
    "digit": lambda x: x if any(c.isdigit() for c in x) else x + "1",
    "interlace": lambda x: "".join(a + b for a, b in zip(x, x[::-1], strict=True)),
}
"""The published experiment's functions, one for each behavior on words of 6 to 14 lowercase letters."""


def gym_ciphers(
    known: Sequence[int] = range(1, 9), targets: Sequence[int] = range(9, 17), *, size: int = 40
) -> TextSplit:
    """reasoning-gym's ``caesar_cipher``: a task deciphers one rotation; a target's is the sum of two known ones.

    The generator writes the texts, and its verifier has checked the answers. The tasks have no function: a relation
    must run them by the model.

    Args:
        known: rotations of the bank.
        targets: rotations of the targets.
        size: demonstrations a task.

    Raises:
        DataError: without reasoning-gym.
    """
    from operant.hf.rollouts.prompts import gym_prompts  # the bank and the other problems need no transformers

    if set(known) & set(targets):
        raise DataError(f"rotations {sorted(set(known) & set(targets))} are known and targets.")
    tasks: dict[int, TextTask] = {}
    for k in (*known, *targets):
        source = f"gym:caesar_cipher?min_rotation={k}&max_rotation={k}&max_words=4"
        pairs: dict[str, str] = {}
        for prompt in gym_prompts(source, (k, size))[0]:
            cipher = prompt.text.partition(": ")[2].partition(". Provide")[0]
            pairs[cipher] = prompt.target
        tasks[k] = TextTask(f"rotation {k}", tuple(pairs.items()), None, (f"rotation {k}",))
    return TextSplit(TextBank(tuple(tasks[k] for k in known)), tuple(tasks[k] for k in targets))
