"""Charts, and pages of results and of runs."""

import json
import math
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import torch
from hypothesis import example, given, strategies as st
from tests.support.refusals import refusal_of

from prolip.cli import main
from prolip.evaluation.results import RowId
from prolip.report.charts import Line, line_chart, nice_ticks, tick_label, weight_chart
from prolip.report.results import result_sections
from prolip.store.typed_tables import plain
from prolip.train.report import write_report

FINITE = st.floats(-1e9, 1e9)


@given(FINITE, FINITE)
@example(-1e9, -999999999.9999999)
@example(0.0, 5e-324)
def test_ticks_are_round_few_and_cover_the_range(one, other):
    low, high = sorted((one, other))
    ticks = nice_ticks(low, high)
    tolerance = 1e-6 * max(abs(low), abs(high), high - low)
    assert ticks[0] <= low + tolerance
    assert ticks[-1] >= high - tolerance
    assert 2 <= len(ticks) <= 12


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0"), (-2.5, "−2.5"), (12000, "12k"), (3e6, "3M"), (5000, "5000"), (0.1 + 0.2, "0.3")]
)
def test_tick_labels(value, text):
    assert tick_label(value) == text


def test_a_line_chart_leaves_nan_out():
    line = Line("a <b>", [1.0, 2.0, 3.0], [0.5, math.nan, 1.0])
    chart = line_chart("t", "d", [line, line], x_label="x", marks=True)
    assert ET.fromstring(f"<p>{chart}</p>").findall(".//*[@class='mark s0']")[1:]
    assert "a &lt;b&gt;" in chart
    assert line_chart("t", "d", [Line("a", [1.0], [math.nan])], x_label="x") == ""


def test_ellipses_have_their_radii_in_units_of_the_axes():
    spread = Line("a", [0.0, 1.0], [0.0, 1.0], [[0.5, 0.25], [1.0, 0.0]])
    drawn = ET.fromstring(f"<p>{line_chart('t', 'd', [spread], x_label='x')}</p>")
    low, high = ({name: float(one.attrib[name]) for name in ("cx", "cy", "rx", "ry")} for one in drawn.iter("ellipse"))
    across, up = high["cx"] - low["cx"], low["cy"] - high["cy"]
    assert (low["rx"], low["ry"], high["rx"], high["ry"]) == pytest.approx((across / 2, up / 4, across, 0), abs=0.1)
    assert not list(drawn.iter("polyline"))


def test_a_chart_of_weights_begins_with_the_largest():
    chart = weight_chart("t", ["a & b", "c"], torch.tensor([[0.2, 0.8], [0.4, 0.6]]))
    texts = [element.text for element in ET.fromstring(f"<p>{chart}</p>").iter("text")]
    assert texts.index("c") < texts.index("a & b"), "the largest first"


def figure(data, value, group="", measure="accuracy", **more):
    id = RowId(measure, group=group, data=data)
    row = {"id": plain(id), "main": False, "num_items": 4, "baselines": {}, "verdict": {"m": ""}}
    ends = {"value": {"m": value}, "low": {"m": 0.1}, "high": {"m": None}}
    differences = {"difference": {}, "difference_low": {}, "difference_high": {}}
    return row | ends | differences | more


def results(model="m"):
    figures = [
        figure("t", 0.5, main=True, baselines={"untrained": 0.2, "coin": 0.5}),
        figure("one", 0.25, "Head", baselines={"untrained": 0.2}),
        figure("one", 0.75, "Head", "class_recall", baselines={"untrained": 0.2}),
    ]
    charts = [
        {"group": "Head", "title": "", "text": "how", "svg": ""},
        {"group": "Head", "title": "two", "text": "x", "svg": "<svg></svg>"},
    ]
    found = {"suite": "s", "models": {"m": "f"}, "figures": figures, "notes": {"m": ["n"]}, "charts": {"m": charts}}
    renamed = json.loads(json.dumps(found).replace('"m"', json.dumps(model)))
    return renamed


def test_results_become_cards_tables_charts_and_notes():
    main_figures, head, notes, table, rest = result_sections(results())
    assert main_figures.cards == [("t", "accuracy", 0.5, {"untrained": 0.2, "coin": 0.5})]
    assert [*map(str, table.table[1])] == ["t", "accuracy", "4", "50.00", "untrained 20.00, coin 50.00"]
    assert (head.title, head.text) == ("Head", "how")
    assert [drawn.title for drawn in head.figures] == ["two", "one"]
    assert notes.notes == ["m: n"]
    assert len(rest.table) == 3


def test_a_ring_has_the_name_of_its_baseline_and_a_long_label_keeps_its_ends():
    long = figure("one", 0.5, "Head", "confusion", baselines={"promised": 0.9})
    long["id"] |= {"of": f"{'a' * 40} of {'b' * 40}", "other": "fox"}
    drawn = result_sections(results() | {"figures": [long] * 2, "charts": {}})[0].figures
    for text in ("</span>promised</li>", ">aaaaaaaa", "bbb taken for fox</text>"):
        assert text in drawn[0].markup


def test_cards_are_of_the_first_of_two_models_and_say_so():
    both = results()
    both["models"]["n"] = "g"
    both["figures"].append(figure("only n", None, main=True, baselines={"coin": 0.5}))
    for one in both["figures"]:
        one["verdict"]["n"] = ""
        for key in ("value", "low", "high", "difference", "difference_low", "difference_high"):
            one[key]["n"] = 0.1
    assert [card[:3] for card in result_sections(both)[0].cards] == [("t", "accuracy · m", 0.5)]


def test_only_a_long_table_without_main_figures_is_folded():
    many = [figure(f"t{place}", 0.5) for place in range(60)]
    cards = [one | {"main": True, "baselines": {"coin": 0.5}} for one in many]
    folds = [
        [section.fold for section in result_sections(results() | {"figures": figures, "charts": {}, "notes": {}})]
        for figures in ([one | {"main": True} for one in many] + many[:9], cards, many)
    ]
    assert folds == [[False, False], [False, False], [True]]


def test_the_report_of_a_run_has_results_that_name_it_curves_and_settings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = Path("runs/mine")
    run.mkdir(parents=True)
    (run / "config.toml").write_text("samples_seen = 64\nbatch_size = 8\n")
    with refusal_of("run"):
        write_report(run)
    (run / "metrics.jsonl").write_text(
        '{"step": 1, "samples": 8, "loss": 2.5, "loader/x": 1}\n{"step": 2, "samples": 16, "loss": 2}\n'
    )
    for suite, model in (("older", "runs/mine"), ("mine", "runs/mine/checkpoints/1"), ("other", "runs/other")):
        (tmp_path / "evals" / suite).mkdir(parents=True)
        found = results(model) | {"suite": suite}
        if suite == "older":
            found["figures"] = [figure("t", 0.3, main=True)]
            found = json.loads(json.dumps(found).replace('{"m":', '{"runs/mine":'))
        (tmp_path / "evals" / suite / "results.json").write_text(json.dumps(found))
    assert main(["report", str(run)]) == 0
    page = (run / "report.html").read_text()
    parts = [
        page.index(text)
        for text in ("50.0", "<h2>older: main", "samples_seen = 64", "<title>loss</title>", "<title>loader/x<")
    ]
    assert parts == sorted(parts), "accuracy as cards comes first, the loader last"
    assert "other: main figures" not in page
    (tmp_path / "evals" / "mine" / "results.json").write_text('{"models": {"runs/mine": ""}}')
    assert main(["report", str(run)]) == 2
