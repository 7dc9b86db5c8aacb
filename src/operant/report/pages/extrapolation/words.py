"""An extrapolation in words: the forecast of each target first, then what it rests on."""

from __future__ import annotations

from collections.abc import Mapping

from operant.report.formats import MISSING, brief, number, share
from operant.report.pages.extrapolation.load import (
    anchor_of,
    best,
    expected,
    is_plain,
    leading,
    mixed,
    mixture,
    name_of,
    of,
    parameters_text,
    ranked,
)
from operant.report.records import Record

# Below one half, most of the weight lies on other decompositions: one formula would mislead.
LIKELY = 0.5
"""Posterior weight from which one formula stands for a forecast."""


def with_unit(name: str, units: Mapping[str, str]) -> str:
    """``E (MPa)``; the name alone where no unit is known."""
    unit = units.get(name)
    return f"{name} ({unit})" if unit else name


def value(x: float | None, digits: int = 4) -> str:
    """A measured value with a few digits, without an exponent where a reader needs none.

    >>> value(10951.3), value(0.0004567891), value(1.5e7), value(None), value(-0.0)
    ('10950', '0.0004568', '1.5e+07', '–', '0')
    """
    if x is None:
        return MISSING
    rounded = float(f"{x:.{digits}g}")
    return f"{rounded:z.10g}" if rounded == 0 or 1e-4 <= abs(rounded) < 1e6 else f"{x:z.{digits}g}"


def ends(low: float | None, high: float | None, digits: int = 4) -> str:
    """``8112 to 9771``; empty where there is no interval."""
    return "" if low is None or high is None else f"{value(low, digits)} to {value(high, digits)}"


def furthest(target: Record) -> int:
    """The place of the query point that is furthest from the context, in the ranges of the inputs; the last of equals.

    A forecast is hardest there.
    """
    asked, known = target["prediction"]["x"], target["context"]["x"]
    points = [*asked, *known]
    sizes = [max(p[i] for p in points) - min(p[i] for p in points) or 1.0 for i in range(len(points[0]))]
    far = [min(sum(((a - b) / s) ** 2 for a, b, s in zip(x, k, sizes, strict=True)) for k in known) for x in asked]
    return max(range(len(far)), key=lambda i: (far[i], i))


def forecast(target: Record, units: Mapping[str, str]) -> str:
    """``E = 8649 MPa (90 % interval 5986 to 11310) at t = 10 s``, at the query point furthest from the context."""
    i, asked = furthest(target), target["prediction"]
    at = ", ".join(f"{n} = {_measured(v, n, units)}" for n, v in zip(target["x_names"], asked["x"][i], strict=True))
    told: list[str] = []
    for c, name in enumerate(target["y_names"]):
        between = ends(asked["low"][i][c], asked["high"][i][c])
        about = f" ({100 * target['level']:g} % interval {between})" if between else ""
        told.append(f"{name} = {_measured(asked['mean'][i][c], name, units)}{about}")
    return f"{', '.join(told)} at {at}"


def _measured(x: float | None, name: str, units: Mapping[str, str]) -> str:
    return f"{value(x)} {units[name]}" if units.get(name) else value(x)


def headline(target: Record, units: Mapping[str, str] | None = None) -> str:
    """The result for a target: its forecast, and in a second sentence what it rests on."""
    far = ", the query furthest from its context" if len(target["prediction"]["x"]) > 1 else ""
    return f"{name_of(target)}: {forecast(target, units or {})}{far}. {_source(target)}"


def _source(target: Record) -> str:
    found, verdict = best(target), target["applicability"]
    if not verdict["applicable"]:
        return f"The bank does not explain this target ({verdict['reason']})."
    if is_plain(target) or found is None:
        return f"By {mixture(target)}; no relational operator is expected to do better."
    if found["weight"] < LIKELY:
        what = (
            f"a mixture of {mixture(target)}" if len(mixed(target)) > 1 else f"{leading(target)} from several anchors"
        )
        return f"By {what}; its most probable formula holds {share(found['weight'])}."
    f = "" if found["anchor"] is None else f" with f = {anchor_of(found)}"
    return f"It is {found['transformation']}{f}; residual on the context {number(found['residual'], 2)}."


def caution(target: Record) -> str:
    """What to say beside a formula that holds little of the posterior; empty for one that holds half of it."""
    found = best(target)
    if found is None or found["weight"] >= LIKELY:
        return ""
    others = max(len(target["decompositions"]) - 1, 1)
    return (
        f"This formula holds only {share(found['weight'])} of the posterior, beside at least {others} other"
        f"{'' if others == 1 else 's'}. It is not the law of this curve: use the forecast, which mixes all of them."
    )


def explanation(target: Record) -> list[str]:
    """The reasons for a forecast, a sentence each: verdict, transformation, other anchors, coverage, choice."""
    verdict, found = target["applicability"], best(target)
    p = None if verdict["reason"] else verdict["p_value"]  # a reason already names its p-value
    evidence = "" if p is None else f" (p = {number(p, 2)} that a task of the bank has an error this large)"
    told = [f"{verdict['text'].rstrip('.')}{evidence}."]
    if found is not None:
        f = "" if found["anchor"] is None else f", f = {anchor_of(found)}"
        told.append(f"Most probable ({share(found['weight'])}): {found['transformation']}{f}.")
        told += [caution(target)] if caution(target) else []
        told += [f"Its parameters, with 90 % intervals: {parameters_text(found)}."] if found["parameters"] else []
        told += _other_anchors(target, found)
    covered = target["share_covered"]
    if covered is not None and covered < 1:
        told.append(f"Known tasks cover {share(covered)} of the query; beyond their range they were continued.")
    return [*told, *_why(target)]


def _other_anchors(target: Record, found: Record) -> list[str]:
    others: dict[str, float] = {}
    for d in target["decompositions"]:
        if d["anchor"] not in (None, found["anchor"]):
            others[anchor_of(d)] = others.get(anchor_of(d), 0.0) + d["weight"]
    heaviest = sorted(others.items(), key=lambda o: -o[1])[:4]
    return [f"Other anchors: {', '.join(f'{key} ({share(weight)})' for key, weight in heaviest)}."] if others else []


def _why(target: Record) -> list[str]:
    """The operators that are mixed, and the heaviest beside the best plain baseline."""
    told = [f"The prediction mixes {mixture(target, 4)}."] if len(mixed(target)) > 1 else []
    chosen = of(target, leading(target))
    others = [of(target, n) for n in ranked([target]) if n != leading(target)]
    plain = next((c for c in others if c["plain"] and expected(c) is not None), None)
    if expected(chosen) is None or plain is None:
        return told
    return [
        *told,
        f"Expected error, from the backtest and the context: {leading(target)} {brief(expected(chosen))}; "
        f"{plain['operator']}, the best {'other ' if chosen['plain'] else ''}plain baseline, {brief(expected(plain))}.",
    ]


def about_columns(bank: Record, units: Mapping[str, str]) -> str:
    """What is predicted of what, and what the operators saw in place of the columns."""
    y, x = (", ".join(with_unit(n, units) for n in bank[k]) for k in ("y_names", "x_names"))
    by = ", ".join(with_unit(n, units) for n in bank["param_names"])
    told = f"{y} of {x}{', by ' + by if by else ''}."
    logs = [f"log10 {n}" for n in bank.get("log_x") or ()]
    logs += [f"ln {n}" for n in bank["y_names"]] if bank.get("positive") else []
    if logs:
        told += f" The operators saw {', '.join(logs)}; residuals, errors and parameters are of these."
    if bank.get("positive"):
        told += (
            " A forecast is the exponential of that of the logarithm: a median. It and its interval stay above zero."
        )
    return told
