"""The extrapolation's page and table: complete, self-contained, escaped, and honest about what is missing."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from operant.core.checks import DataError
from operant.core.record import read_records, write_records
from operant.report import summary_table, target_chart
from operant.report.formats import number
from operant.report.pages.extrapolation.axes import axes_of, windows
from operant.report.pages.extrapolation.charts import choice_figure, factor_figure, parameter_figure
from operant.report.pages.extrapolation.curves import DRAWN_POINTS, known_rows, ramp_of, target_figure
from operant.report.pages.extrapolation.load import best, load_extrapolation, parameters_of
from operant.report.pages.extrapolation.tables import choice_rows, prediction_rows
from operant.report.pages.extrapolation.words import caution, forecast, furthest, headline
from tests.report.reading import HOSTILE, Elements, charts, rendered, rows_of

GRID = [i / 4 for i in range(9)]  # 0 to 2, the anchor is known up to 1.5
OPERATORS = {"shift * xshift": 0.01, "affine": 0.04, HOSTILE: 0.3, "gp": 0.02, "interpolation": 0.5}


def bank(curves: int = 3, points: int = 5, outputs: int = 1) -> dict[str, Any]:
    rows = [
        {"key": str(k), "params": {"T": k}, "x": [[i / 4] for i in range(points)], "y": [[float(k)] * outputs] * points}
        for k in range(curves)
    ]
    names = {"x_names": ["log_t"], "y_names": ["E", "G"][:outputs], "param_names": ["T"]}
    size = {"tasks": curves, "points": curves * points}
    return {"kind": "bank", **size, **names, "curves": rows, "notes": [f"task {HOSTILE}: 2 repeated points"]}


def choice(chosen_error: float | None = None, mix: dict[str, float] | None = None) -> list[dict[str, Any]]:
    failed = {"operator": "psi", "plain": False, "weight": 0.0, "note": "needs 3 points"}
    failed |= dict.fromkeys(("backtest_error", "backtest_low", "backtest_high", "context_error"))
    weights = mix or {"shift * xshift": 0.75, "gp": 0.25}
    return [failed] + [
        {"operator": name, "plain": name in ("gp", "interpolation"), "backtest_error": error, "note": ""}
        | {"backtest_low": error / 2, "backtest_high": 2 * error, "weight": weights.get(name, 0.0)}
        | {"context_error": chosen_error if i == 0 else error / 10}
        for i, (name, error) in enumerate(OPERATORS.items())
    ]


def target(key: str = "62.5", t: float = 62.5, *, outputs: int = 1, inputs: int = 1, **more: Any) -> dict[str, Any]:
    x = [[g, *[0.0] * (inputs - 1)] for g in GRID]
    covered = [g <= 1.5 for g in GRID]
    mean = [[3 - g / 2] * outputs for g in GRID]
    found = [
        {"anchor": anchor, "transformation": f"y(x) = f(x + {shift}) - 0.1", "parameters": {"xshift": [shift]}}
        | {"intervals": {"xshift": [shift - 0.1, shift + 0.1]}, "residual": 0.003, "weight": weight}
        | {"operator": "shift * xshift"}
        for anchor, shift, weight in (("55", 0.5, 0.75), ("47.5", 1.25, 0.25))
    ]
    known = {"x": x[4:8:2], "y": [[2.5] * outputs, [2.25] * outputs]}
    return {
        "kind": "target",
        "key": key,
        "x_names": ["log_t", "b"][:inputs],
        "y_names": ["E", "G"][:outputs],
        "params": {"T": t},
        "operator": "shift * xshift + gp",
        "level": 0.9,
        "context": {"x": x[:2], "y": [[3.0] * outputs, [2.875] * outputs]},
        "prediction": {"x": x, "mean": mean, "covered": covered}
        | {"low": [[v[0] - 0.25] * outputs for v in mean], "high": [[v[0] + 0.25] * outputs for v in mean]},
        "truth": known,
        "anchor": {"key": "55", "x": x[:7], "y": [[3.2 - g / 2] * outputs for g in GRID[:7]]},
        "baseline": {"name": "gp", "mean": [[3 - g / 3] * outputs for g in GRID]},
        "decompositions": found,
        "choice": choice(0.001),
        "applicability": {"applicable": True, "score": 1.0, "p_value": 0.41, "reason": "", "text": "It is explained."},
        "share_covered": 7 / 9,
    } | more


ALIEN = {"applicable": False, "score": 9.0, "p_value": 0.004, "reason": "residual", "text": f"No <b>{HOSTILE}</b>."}


def make(folder: Path, targets: list[dict[str, Any]], known: dict[str, Any] | None = None) -> Path:
    """An extrapolation as ``operant extrapolate`` writes it."""
    config = {"bank": "bank.csv", "task": "T", "x": "log_t", "query": None}
    first = {"kind": "run", "command": "extrapolate", "name": f"an extrapolation {HOSTILE}", "config": config}
    write_records(folder / "record.jsonl", [first, {"kind": "environment", "python": "3"}, known or bank(), *targets])
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    alien = target(HOSTILE, 70.0, applicability=ALIEN, truth=None)
    return make(tmp_path_factory.mktemp("extrapolation"), [target(), alien])


@pytest.fixture(scope="module")
def page(folder: Path) -> str:
    return rendered(folder)


def test_sections_stand_in_order(page: str) -> None:
    assert [h for h in Elements(page).headings if "extrapolation" not in h and "alert" not in h] == [
        "Forecasts",
        "Target 62.5",
        "What explains the targets",
        "How the operator was chosen",
        "The transformation across targets",
        "How to read this page",
        "Glossary",
        "Settings",
        "Environment",
    ]


def test_what_does_not_apply_is_said_first(page: str) -> None:
    html = page
    assert html.index('class="warning"') < html.index("<section>")
    assert html.count('class="warning"') == 1 and "Do not rely on its prediction" in html


def test_charts_draw_the_records(page: str) -> None:
    drawn = charts(page)
    assert list(drawn) == ["target-0-0", "target-0-1", "target-1-0", "target-1-1", "choice-0", "parameters-0"]
    by_series: dict[str, set[tuple[float, float]]] = {}
    for r in rows_of(drawn["target-0-0"], "series"):
        by_series.setdefault(r["series"], set()).add((r["x"], r["y"]))
    record = target()
    points = {(g, 3 - g / 2) for g in GRID}
    assert by_series["forecast"] == {p for p in points if p[0] <= 1.5}
    assert by_series["forecast, beyond what is known"] == {
        p for p in points if p[0] >= 1.5
    }  # from where the anchor ends
    assert by_series["context"] == {(0.0, 3.0), (0.25, 2.875)} and by_series["truth"] == {(1.0, 2.5), (1.5, 2.25)}
    assert by_series["gp"] == {(g, 3 - g / 3) for g in GRID}
    assert by_series["anchor 55"] == {(x[0], y[0]) for x, y in zip(*list(record["anchor"].values())[1:], strict=True)}
    assert len(by_series["known tasks"]) == 15
    bars = {r["operator"]: (r["series"], r["error"], r["low"]) for r in rows_of(drawn["choice-0"], "error")}
    assert list(bars.values()).count(("largest weight", 0.01, 0.005)) == 1 and bars["gp"] == (
        "plain baseline",
        0.02,
        0.01,
    )
    assert bars["affine"][0] == "relational" and len(bars) == 5 and "psi" not in bars
    assert {(r["at"], r["value"], r["series"]) for r in rows_of(drawn["parameters-0"], "at")} == {
        (62.5, 0.5, "from 55"),
        (70.0, 0.5, "from 55"),
    }


def test_a_band_that_runs_away_does_not_squeeze_the_rest() -> None:
    record = target()
    record["prediction"]["high"][-1] = [1e6]
    record["baseline"]["mean"][-1] = [-1e6]
    drawn = target_figure(record, bank(), "t").panels[0]
    low, high = next(
        layer["encoding"]["y"]["scale"]["domain"] for layer in drawn.spec["layer"] if "low" not in layer["encoding"]
    )
    assert -2 < low < 0 and 3.2 < high < 6


def test_a_gap_in_the_middle_is_drawn_between_its_neighbors() -> None:
    record = target()
    record["prediction"]["covered"] = [g < 0.5 or g > 1.0 for g in GRID]
    drawn, _ = target_figure(record, bank(), "t").panels
    rows = [r for layer in drawn.spec["layer"] for r in layer["data"]["values"] if "joint" in r]
    parts: dict[tuple[str, int], set[float]] = {}
    for r in rows:
        parts.setdefault((r["series"], r["part"]), set()).add(r["x"])
    assert sorted(map(sorted, parts.values())) == [[0, 0.25], [0.25, 0.5, 0.75, 1.0, 1.25], [1.25, 1.5, 1.75, 2.0]]


def test_long_curves_of_the_bank_are_thinned() -> None:
    rows = known_rows(bank(curves=50, points=400), 0)
    assert 50 * 20 < len(rows) <= DRAWN_POINTS + 2 * 50
    assert {r["part"]: r["x"] for r in rows} == dict.fromkeys(range(50), 399 / 4)  # the last point stays


def test_outputs_are_facets_and_several_inputs_are_drawn_against_the_truth() -> None:
    known = bank(outputs=2)
    titles = [p.title for p in target_figure(target(outputs=2), known, "t").panels]
    assert titles == [f"{y}: {what}" for y in "EG" for what in ("all known tasks", "near the target")]
    figure = target_figure(target(inputs=2), known, "t")
    assert [p.title for p in figure.panels] == ["E: predicted against true", "E along log_t"]
    assert list(figure.keys) == ["forecast", "forecast, beyond what is known", "context", "truth"]
    pairs = {(r["true"], r["y"]) for r in figure.panels[0].spec["layer"][1]["data"]["values"]}
    assert pairs == {(2.5, 2.5), (2.25, 2.25)}
    assert len(target_figure(target(inputs=2, truth=None), known, "t").panels) == 1


def test_a_parameter_needs_two_targets_that_differ() -> None:
    assert parameter_figure([target()]) is None
    assert parameter_figure([target(), target("again")]) is None
    assert parameter_figure([target(params={}), target("b", params={})]) is None
    plain = target("70", 70.0, choice=choice(mix={"gp": 1.0}))
    assert parameter_figure([target(), plain]) is None
    assert parameter_figure([target(), target("70", 70.0)]) is not None


def test_the_table_for_the_terminal(folder: Path) -> None:
    text = summary_table(folder)
    first = "62.5: E = 2 (90 % interval 1.75 to 2.25) at log_t = 2, the query furthest from its context. "
    assert f"{first}It is y(x) = f(x + 0.5) - 0.1 with f = 55; residual on the context 0.003." in text
    assert text.index("62.5: forecast") < text.index("62.5: what explains it")
    assert "It is explained (p = 0.41 that a task of the bank has an error this large)." in text
    assert "xshift 0.5 (0.4 to 0.6)" in text and "Other anchors: 47.5 (25 %)." in text
    assert "Most probable (75 %): y(x) = f(x + 0.5) - 0.1, f = 55." in text and "cover 78 % of the query" in text
    assert "context: shift * xshift 0.01; gp, the best plain baseline, 0.02." in text
    assert "The bank does not explain this target (residual)." in text
    assert re.search(r"^shift \* xshift \* +0\.01 +0\.01 +75 % +0\.01 +75 %$", text, re.M)
    assert re.search(r"^gp +0\.02 +0\.02 +25 % ", text, re.M) and "psi: needs 3 points." in text
    assert "The prediction mixes shift * xshift (75 %), gp (25 %)." in text
    assert re.search(r"^1\.5 +2\.25 +2 to 2\.5 +2\.25$", text, re.M) and re.search(r"^2 \* +2 +1\.75", text, re.M)
    assert "16 of 18 predictions" in text and "predictions.csv" in text


def test_predictions_are_spread_evenly_and_keep_both_ends() -> None:
    assert [r[0] for r in prediction_rows(target(), 3)] == ["log_t", "0", "1", "2 *"]
    assert len(prediction_rows(target())) == 10
    assert prediction_rows(target(outputs=2), 3)[0] == ["log_t", "E", "90 % interval", "true E"] + [
        "G",
        "90 % interval",
        "true G",
    ]


def test_a_plain_baseline_may_be_chosen(tmp_path: Path) -> None:
    alone = choice(mix={"gp": 1.0})
    record = target(choice=alone, decompositions=[], anchor=None, baseline=None, share_covered=1.0)
    assert headline(record).endswith("By gp; no relational operator is expected to do better.")
    text = summary_table(make(tmp_path, [record]))
    assert ": gp 0.02; interpolation, the best other plain baseline, 0.5" in text and "Weight" not in text
    html = rendered(tmp_path)
    assert "anchor 55" not in html and "Dashed" not in html


def test_a_folder_with_the_first_names_makes_the_same_tables(tmp_path: Path) -> None:
    old = [{k.replace("backtest_", "shell_"): v for k, v in c.items()} for c in target()["choice"]]
    texts = [summary_table(make(tmp_path / n, [target() | c])) for n, c in (("a", {}), ("b", {"choice": old}))]
    assert texts[0] == texts[1].replace(str(tmp_path / "b"), str(tmp_path / "a"))


def test_many_targets_share_one_table(tmp_path: Path) -> None:
    text = summary_table(make(tmp_path, [target(str(i), float(i)) for i in range(6)]))
    assert re.search(r"^shift \* xshift \* +0\.01 +0\.001 +0\.01 +75 % +6$", text, re.M)


def test_unknown_numbers_are_dashes(tmp_path: Path) -> None:
    """A record's NaN comes back as None: no interval, no p-value, no error on a context of one point."""
    record = target(share_covered=None)
    record["prediction"] |= {"low": [[None]] * 9, "high": [[None]] * 9}
    record["applicability"] |= {"p_value": None}
    record["choice"] = [c | {"backtest_error": None, "backtest_low": None, "backtest_high": None} for c in choice()]
    html = rendered(make(tmp_path, [record]))
    assert "None" not in re.sub(r"<script.*?</script>", "", html, flags=re.S)
    assert 'id="target-0-0"' in html and 'id="choice-0"' not in html
    said = headline(target(decompositions=[target()["decompositions"][1]]))
    assert said.endswith("By a mixture of shift * xshift (75 %), gp (25 %); its most probable formula holds 25 %.")
    assert re.search(r"^shift \* xshift \* +– +– +– +– +75 %$", summary_table(tmp_path), re.M)


def test_the_chart_of_one_target_stands_alone() -> None:
    spec = target_chart([bank(), target()]).to_dict()
    assert all(c["width"] > 0 for c in spec["concat"]) and "62.5" in json.dumps(spec["title"])


def test_the_expected_error_decides_the_order_and_the_dots() -> None:
    """An operator that was worse in the backtest and explains this context better stands first."""
    errors = {"shift * xshift": 0.05, "affine": 0.002}
    record = target()
    record["choice"] = [c | {"predicted_error": errors.get(c["operator"])} for c in record["choice"]]
    figure = choice_figure([record])
    assert figure is not None
    dots = {r["operator"]: r for r in rows_of({"spec": figure.panels[0].spec}, "error")}
    assert dots["affine"]["error"] == 0.002 and dots["affine"]["low"] == 0.02 and dots["gp"]["error"] == 0.02
    assert [r[0] for r in choice_rows([record])][1:4] == ["affine", "gp", "shift * xshift *"]
    assert choice_rows([record])[3][1:] == ["0.01", "0.005 to 0.02", "0.001", "0.05", "75 %"]


def test_the_heaviest_operator_explains_the_target() -> None:
    """Its weight is split over anchors; the components of a span of less weight are no explanation."""
    span = {"anchor": None, "transformation": "span of 3", "parameters": {}, "intervals": {}, "residual": 0.1}
    named = target()["decompositions"]
    record = target(decompositions=[span | {"weight": 0.4, "operator": "span"}, *named])
    assert best(record) == named[0]
    assert best(record | {"choice": choice(mix={"affine": 1.0})}) == record["decompositions"][0]
    assert best(target(decompositions=[])) is None


def test_parameters_of_several_outputs_have_names_of_their_own() -> None:
    found = {"parameters": {"scale": [2.0, 3.0], "xshift": [0.5]}, "intervals": {"scale[1]": [2.5, 3.5]}}
    assert parameters_of(found) == {
        "scale[0]": (2.0, None, None),
        "scale[1]": (3.0, 2.5, 3.5),
        "xshift": (0.5, None, None),
    }


def test_numbers() -> None:
    assert [number(x) for x in (-0.0, 12345.678, 1e-12, None)] == ["0", "1.235e+04", "1e-12", "–"]


def test_other_folders_are_no_extrapolations(tmp_path: Path) -> None:
    write_records(tmp_path / "record.jsonl", [{"kind": "run", "command": "extrapolate"}])
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(DataError, match="that `operant extrapolate` wrote"):
            load_extrapolation(folder)


def test_a_forecast_stands_where_it_is_hardest_and_has_its_units() -> None:
    """The query point with the largest distance to its nearest context point, here in the middle."""
    record = target(context={"x": [[0.0], [2.0]], "y": [[3.0], [2.0]]})
    assert GRID[furthest(record)] == 1.0
    assert furthest(target()) == len(GRID) - 1
    several = target(outputs=2, inputs=2)
    assert forecast(several, {"E": "MPa", "b": "K"}) == (
        "E = 2 MPa (90 % interval 1.75 to 2.25), G = 2 (90 % interval 1.75 to 2.25) at log_t = 2, b = 0 K"
    )


def test_a_formula_with_little_weight_has_its_warning_beside_it(tmp_path: Path) -> None:
    found = target()["decompositions"]
    record = target(decompositions=[found[0] | {"weight": 0.05}, found[1]])
    assert "only 5 % of the posterior" in caution(record) and not caution(target())
    make(tmp_path, [record])
    html, text = rendered(tmp_path), summary_table(tmp_path)
    assert html.count("only 5 % of the posterior") == 1 and "only 5 % of the posterior" in text
    assert html.index("What explains the targets") < html.index("No formula to rely on.") < html.index("Most probable")


def test_the_zoomed_panel_shows_context_query_and_band_alone() -> None:
    record = target()
    for key in ("x", "mean", "low", "high", "covered"):
        record["prediction"][key] = record["prediction"][key][:3]
    record |= {"truth": None, "baseline": None}
    x, (y,) = axes_of(record, bank(10))
    whole, (across, along) = windows(record, bank(10), 0, x, y)
    assert whole[1][1] > 9 and along[1] < 3.3  # the known tasks reach 9, the target's band 3.25
    assert across == pytest.approx((-0.02, 0.52)) and along[0] == pytest.approx(2.5 - 0.04 * 0.75)
    drawn = target_figure(record, bank(10), "t").panels[1].spec["layer"]
    assert {r["x"] for r in drawn[0]["data"]["values"]} == {0.0, 0.25, 0.5, 0.75}  # and the next beyond the edge
    close = bank(4) | {"curves": bank(4)["curves"][2:]}
    assert len(windows(target(), close, 0, x, y)) == 1  # nearly the same as the whole


def test_known_tasks_are_colored_by_parameter_name_or_place() -> None:
    known = bank(4) | {"units": {"T": "°C"}}
    ramp = ramp_of(known)
    assert ramp is not None and (ramp.title, ramp.low, ramp.high, ramp.log) == ("T (°C)", 0, 3, False)
    assert [r["place"] for r in known_rows(known, 0)] == [float(k) for k in range(4) for _ in range(5)]
    plain: dict[str, Any] = {"param_names": [], "task_name": "cell"}
    ramp = ramp_of(bank(4) | plain)
    assert ramp is not None and ramp.title == "cell"  # its tasks are named by numbers
    named = bank(30) | plain
    named["curves"] = [c | {"key": f"cell {c['key']}"} for c in named["curves"]]
    ramp = ramp_of(named)
    assert ramp is not None and len(ramp.styles) == 30 and ramp.styles["cell 0"].light == "#073b4c"
    assert ramp.styles["cell 29"].light == "#9cc267"
    more = bank(31) | plain
    more["curves"] = [c | {"key": f"cell {c['key']}"} for c in more["curves"]]
    assert ramp_of(more) is None and "known tasks" in target_figure(target(), more, "t").keys
    assert ramp_of({"curves": []}) is None
    loads = bank(4)
    loads["curves"] = [c | {"params": {"T": 10.0**i}} for i, c in enumerate(loads["curves"])]
    ramp = ramp_of(loads)
    assert ramp is not None and ramp.log


def decades(**more: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """A target and a bank whose inputs and outputs are powers of ten."""
    known, asked = bank(3, points=9), target()
    for curve in (*known["curves"], asked["context"], asked["anchor"], asked["truth"]):
        curve["x"], curve["y"] = ([[10.0 ** v[0]] for v in curve[k]] for k in ("x", "y"))
    for key in ("x", "mean", "low", "high"):
        asked["prediction"][key] = [[10.0 ** v[0]] for v in asked["prediction"][key]]
    return known | more, asked


def test_axes_are_logarithmic_where_the_data_or_the_user_ask() -> None:
    known, asked = decades()
    x, (y,) = axes_of(asked, known)
    assert x.log and y.log and not axes_of(target(), bank())[0].log
    known, asked = decades(log_axes=["E"], units={"log_t": "s", "E": "MPa"})
    x, (y,) = axes_of(asked, known)
    assert (x.log, y.log, x.title, y.title) == (False, True, "log_t (s)", "E (MPa)")
    asked["prediction"]["low"][-1] = [-5.0]  # the band ends at the edge of the panel
    spec = target_figure(asked, known, "t").panels[0].spec
    (band,) = [layer for layer in spec["layer"] if "y2" in layer["encoding"]]
    assert band["encoding"]["y"]["scale"]["type"] == "log"
    assert min(r["low"] for r in band["data"]["values"]) == band["encoding"]["y"]["scale"]["domain"][0] > 0
    asked["context"]["y"][0] = [0.0]  # has no place on a logarithmic axis
    assert not axes_of(asked, known)[1][0].log


def test_operators_stand_above_their_rows() -> None:
    figure = choice_figure([target()])
    assert figure is not None
    spec = figure.panels[0].spec
    *marks, label = spec["layer"]
    assert spec["height"] > 34 * 5 and label["mark"]["type"] == "text" and label["encoding"]["x"] == {"value": 0}
    assert label["mark"]["dy"] < 0 < marks[0]["mark"]["yOffset"] and label["encoding"]["y"]["axis"] is None


FACTORS = {
    "kind": "shift_factors",
    "reference": "55",
    "form": "shift * xshift",
    "factors": ["xshift"],
    "rows": [
        {"task": t, "known": known, "anchor": "55", "params": {"T": at}, "xshift": at / 10}
        | {"xshift_low": at / 10 - 1, "xshift_high": at / 10 + 1}
        for t, at, known in (("55", 0.0, True), ("62.5", 62.5, False))
    ],
}


def test_shift_factors_share_a_reference(tmp_path: Path) -> None:
    """Panels of warps from each target's own anchor give way to one from the reference."""
    folder = make(tmp_path, [target(), target("70", 70.0)], bank() | {"log_x": ["log_t"]})
    write_records(folder / "record.jsonl", [*read_records(folder / "record.jsonl"), FACTORS])
    html = rendered(folder)
    drawn = charts(html)
    assert "shift-factors-0" in drawn and "parameters-0" not in drawn
    values = {(r["series"], r["at"], r["value"], r["low"]) for r in rows_of(drawn["shift-factors-0"], "at")}
    assert values == {("known tasks", 0.0, 0.0, -1.0), ("targets", 62.5, 6.25, 5.25)}
    assert "shift along log10 log_t (decades)" in html and "Shift factors from 55" in html
    assert factor_figure(FACTORS, bank() | {"param_names": []}) is None and factor_figure({}, bank()) is None
    assert "shift_factors.csv" in summary_table(folder)
