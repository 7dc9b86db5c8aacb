"""The page of a plan: the recommendation with its reasons, values, gains, signal by prompt, and dead groups."""

from __future__ import annotations

from html import escape
from pathlib import PurePath

from operant.report.asked import counted
from operant.report.formats import MISSING, percent, share
from operant.report.page import Page, aside, cell, examples_section, figure_section, plain_table, row, section, table
from operant.report.pages.plan.charts import dead_figure, gain_figure, signal_figure, value_figure
from operant.report.pages.plan.load import SavedPlan, at_budget, dead_rows, headline
from operant.report.records import Record


def build(plan: SavedPlan) -> Page:
    """The page of a plan."""
    value, gain, signal, dead = value_figure(plan), gain_figure(plan), signal_figure(plan), dead_figure(plan)
    drawn = [
        (value, _value_caption(plan), _points_table(plan, "points")),
        (gain, _gain_caption(plan), _points_table(plan, "gains")),
        (signal, _signal_caption(), _signal_table(plan)),
        (dead, _dead_caption(plan), plain_table(dead_rows(plan))),
    ]
    b, m = plan.rollouts["prompts"], plan.rollouts["rollouts"]
    return Page(
        kind="plan",
        title=plan.source.name,
        origin=f"{plan.source.folder} · {b} prompts, {m} rollouts each",
        asked=f"Plan from {_rollouts_of(plan)}: which strategy and budget are worth deploying, and which are worth "
        "training for?",
        findings=[headline(a) for a in plan.advice],
        asides=[aside(plan.notes)],
        sections=[
            *map(_advice_section, plan.advice),
            examples_section({"rollouts": plan.source.every("example")}, "The first prompts and their first rollouts."),
            *(figure_section(f, caption, after) for f, caption, after in drawn if f is not None),
        ],
        figures=[f for f, _, _ in drawn if f is not None],
        config=plan.source.config,
        environment=plan.source.environment,
        reading=_reading(plan),
        made=f"Made by operant from {b * m:,} rollouts, without training.",
    )


def _rollouts_of(plan: SavedPlan) -> str:
    """The file, and how many there are."""
    file = plan.source.config.get("rollouts")
    b, m = plan.rollouts["prompts"], plan.rollouts["rollouts"]
    where = f" in {PurePath(file).name}" if isinstance(file, str) else ""
    return f"{counted(m, 'rollout')} for each of {counted(b, 'prompt')}{where}"


def _advice_section(advice: Record) -> str:
    reasons = "".join(f"<li>{escape(r)}</li>" for r in advice["reasons"])
    fields = {"deploy": "deploy", "train for": "train", "transform": "transform", "N": "n", "M": "m"}
    known = {text: str(advice[key]) for text, key in fields.items() if advice.get(key) is not None}
    first, *rest = known.values() or [""]
    chosen = table([*known], [row(first, map(cell, rest))]) if known else ""
    title = f"Recommendation {advice['case']}".strip()
    return section(title, headline(advice), f"{chosen}<ul>{reasons}</ul>")


def _points_table(plan: SavedPlan, kind: str) -> str:
    """The points of the curves, or their gains: a row for each family, a column for each budget."""
    curves = [c for c in plan.curves if c[kind]]
    budgets = sorted({p["n"] for c in curves for p in c[kind]})
    rows = [
        row(c["strategy"], [_cell(plan, at_budget(c[kind], n), sign=kind == "gains") for n in budgets]) for c in curves
    ]
    return table(["strategy", *map(str, budgets)], rows)


def _cell(plan: SavedPlan, point: Record | None, *, sign: bool) -> str:
    if point is None:
        return cell(MISSING)
    return cell(plan.text(point["value"], sign=sign), small=plan.interval(point, sign=sign))


def _signal_table(plan: SavedPlan) -> str:
    head = ["credit of", "top tenth of prompts carries", "carry most (share, success rate)"]
    rows = [row(s["name"], [cell(share(s["top_tenth"])), cell(_top(s), kind="long")]) for s in plan.signals]
    return table(head, rows)


def _top(signal: Record) -> str:
    """The prompts that carry most; a long id is cut at 40 characters."""
    found = (f"{str(t['prompt'])[:40]} ({percent(t['share'])} %, {t['rate']:.2f})" for t in signal["top"])
    return ", ".join(found) or MISSING


def _value_caption(plan: SavedPlan) -> str:
    return (
        f"Exact mean over all draws of N of the rollouts, then over prompts, with {plan.level} bootstrap bands. Bands "
        "may overlap although a paired difference is clear. To deploy pass@N, or best@N by reward, you need a verifier "
        "that knows the right answer. pass^N is the share of prompts where all N samples are right."
    )


def _gain_caption(plan: SavedPlan) -> str:
    return (
        f"Gain over the next smaller budget, paired by prompt, with {plan.level} intervals. If an interval crosses "
        "zero, the gain is not measurable. maj@2 has exactly the value of maj@1, because two votes that differ tie."
    )


def _signal_caption() -> str:
    return (
        "Share of the sum of |w| over prompts, by the prompt's success rate among its rollouts; w are the exact RL "
        "weights of these rollouts. The first bar, all, shows the share of prompts with that rate. Rates and weights "
        "come from the same rollouts, so a prompt with rate 0 may be solvable."
    )


def _dead_caption(plan: SavedPlan) -> str:
    exact = sorted({s["strategy"] for s in plan.signals if s["exact"]})
    how = f"exact for {', '.join(exact)}; for others from random subsets" if exact else "from random subsets"
    return (
        "Share of groups of M rollouts whose weights are all 0, so that they contribute no gradient, by the budget N "
        f"of the objective. It is the expectation over draws of M of the saved rollouts, {how}. M larger than the "
        "number of saved rollouts is not shown. The dashed line is one half."
    )


def _reading(plan: SavedPlan) -> str:
    return (
        "Every number is computed from the saved rollouts; nothing was trained. Values and credits are unbiased for "
        "the model, the prompts and the sampling settings of these rollouts, not for other kinds of prompts. "
        f"Intervals are {plan.level} percentile intervals from bootstrap resamples of the prompts, the same for "
        "all strategies. Nothing is corrected for the number of comparisons. The signal is the sum of |w| of the RL "
        "weights: it shows which prompts carry weight, not how far a training step goes. Gains from more samples hold "
        "for this model; training changes them. The recommendation follows fixed rules; --price sets the cost of a "
        "sample."
    )
