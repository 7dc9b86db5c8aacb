"""The page of an audit: every rule in one table, a figure for each family of rules, and dead groups."""

from __future__ import annotations

from operant.report.asked import counted
from operant.report.formats import percent, ratio
from operant.report.page import Page, aside, cell, figure_section, row, section, table
from operant.report.pages.audit.charts import alike, dead_figure, family_figures
from operant.report.pages.audit.load import NOISE_AT, SHOWN, SavedAudit, constant, finding
from operant.report.theme import Figure

FAMILIES = {
    "one-sample": "Rules for one sample: they target pass@1, or all budgets at once (maxrl).",
    "set-estimators": "Estimators of the reward of a set. If a trainer subtracts the group mean (centered), the budget "
    "of sloo-1 changes, and the scale of the others.",
    "set-advantages": "Advantages for pass@k. The group's own spread in the denominator changes the objective.",
    "plug-ins": "The slope N (1-p)^(N-1) at the group's own success rate, which is not the slope at the true one.",
}


def build(run: SavedAudit) -> Page:
    """The page of an audit."""
    families, dead = sorted(family_figures(run), key=_place), dead_figure(run)
    return Page(
        kind="audit",
        title=f"Which rule trains for {run.target['strategy']}?",
        origin=str(run.source.folder),
        asked=_asked(run),
        findings=[finding(run)],
        asides=[aside([f"Left out: {r['name']}: {r['reason']}" for r in run.left_out])],
        sections=[
            _overview(run),
            *(figure_section(f, FAMILIES.get(f.name, ""), _slope_table(run, f)) for f in families),
            _dead_section(run, dead),
        ],
        figures=[*families, dead],
        config=run.source.config,
        environment=run.source.environment,
        reading=_reading(run.target["m"]),
        made="Made by operant. Every number is exact for binary rewards; nothing was sampled.",
    )


def _asked(run: SavedAudit) -> str:
    """What was audited for what, in one sentence."""
    rules, m = counted(len(run.rules), "advantage rule"), run.target["m"]
    return (
        f"Audit of {rules} on groups of {m} rollouts, without a model or data: which of them optimize "
        f"{run.target['strategy']}?"
    )


def _place(figure: Figure) -> int:
    """Families in the order of their captions, those without one last."""
    return [*FAMILIES, figure.name].index(figure.name)


def _overview(run: SavedAudit) -> str:
    rows: list[str] = []
    for r in run.rules:
        scale = constant(r)
        told = "no" if scale is None else "yes" if scale == 1 else f"yes, × {ratio(scale)}"
        numbers = [run.at(r["ratio"], p) for p in SHOWN] + [run.at(r["noise"], p) for p in NOISE_AT[:2]]
        cells = [cell(told, kind="down" if scale is None else "up"), *(cell(ratio(x)) for x in numbers)]
        rows.append(row(r["name"], cells, small=r["source"]))
    lead = (
        f"Slope of the rule's objective over the slope of {run.target['strategy']}, at success rates p. If the number "
        "is the same at every p, the objectives are the same up to a learning rate. If it grows with p, the rule puts "
        "more weight on easy prompts than the strategy does. Noise is sd over slope, for scores of variance 1."
    )
    head = ["rule", "the target?", *(f"p = {p:g}" for p in SHOWN), *(f"noise {p:g}" for p in NOISE_AT[:2])]
    return section("At a glance", lead, table(head, rows))


def _slope_table(run: SavedAudit, figure: Figure) -> str:
    """The slopes of the figure's first panel; the ratios and the noise stand in the overview."""
    slopes = {run.target["strategy"]: run.target["slope"]} | {r["name"]: r["slope"] for r in run.rules}
    rows = [
        row(name, [cell(ratio(run.at(slopes[name], p))) for p in SHOWN], key=key) for name, key in figure.keys.items()
    ]
    return table(["slope dJ/dp", *(f"p = {p:g}" for p in SHOWN)], rows)


def _dead_section(run: SavedAudit, figure: Figure) -> str:
    rows = [
        row(
            ", ".join(r["name"] for r in members),
            [cell(percent(run.at(members[0]["dead"], p))) for p in SHOWN],
            key=figure.keys[name],
        )
        for name, members in alike(run).items()
    ]
    caption = (
        "Probability, in %, that all weights of a group are 0, so that its rollouts contribute no gradient. Rules that "
        "are dead on the same groups share a line."
    )
    return figure_section(figure, caption, table(["rules", *(f"p = {p:g}" for p in SHOWN)], rows))


def _reading(m: int) -> str:
    return (
        f"An advantage rule on {m} binary rewards is a table: for every number c of successes in the group, it gives "
        "the weight of a right and of a wrong rollout. This table determines the objective whose gradient the rule "
        f"estimates: the expected value of a count strategy of budget {m}, a polynomial of degree {m} in p. Its slope "
        "is compared with the slope of the deployed strategy. Advantages that a trainer averages over the group are "
        "divided by M, so that all rules are on one scale; a constant factor acts like a learning rate. Noise is the "
        "sd of the gradient estimate along a direction of the parameters that does not change p, over the slope along "
        "the direction that does, both for scores of variance 1. The charts are linear in the logit of p, "
        "log p/(1-p), which separates rare successes and rare failures. Charts cut ratios at 0.01 and 100, and leave "
        "them out where the slope of the target is too small for double precision. The audit does not cover rewards "
        "other than 0 and 1, clipping, or weights that depend on lengths or log-probabilities."
    )
