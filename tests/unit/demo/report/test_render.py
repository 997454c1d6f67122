"""The report is self-contained, escaped and complete, and says what is missing."""

import dataclasses
import json
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest

from prolip.demo.report import render_report, words
from prolip.demo.report.decision_section import risk_sentence
from prolip.demo.report.render import linked
from prolip.demo.suite.results import EmojiResults, Range
from prolip.errors import UserError
from prolip.report import charts
from prolip.train.logging.runs import read_metrics

VOID = {"meta", "link", "img", "br", "hr", "input"}


class Page(HTMLParser):
    """Collects a page's tags and checks that they are nested."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def run_dir(tmp_path: Path, emoji_results: EmojiResults) -> Path:
    folder = tmp_path / "demo <1>"
    folder.mkdir()
    (folder / "eval.json").write_text(emoji_results.to_json(), encoding="utf-8")
    rows = [
        {"step": s, "loss": 5 / (s + 1), "ppcl": 4 / (s + 1), "vib": 1e-4, "lr": 1e-3, "grad_norm": 1.0}
        for s in range(40)
    ]
    (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)) + '\n{"step": 4', encoding="utf-8")
    (folder / "config.toml").write_text('seed = 7\nname = "<script>"\n[optim]\nlr = 0.001\n', encoding="utf-8")
    return folder


def test_page_is_self_contained_and_well_formed(
    run_dir: Path, emoji_data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = render_report(run_dir, emoji_data)
    assert path == run_dir / "report.html"
    assert not any(message.startswith("data: ") for message in caplog.messages)
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    for tag, attributes in page.tags:
        for name in ("src", "href", "srcset", "action", "data", "poster"):
            address = attributes.get(name)
            if address is None:
                continue
            if tag == "a":
                assert address.startswith(("#", "https://", "http://"))
                continue
            assert address.startswith("data:"), (tag, address)
    assert not re.search(r"@import|url\(\s*['\"]?http", text)
    assert not any(tag == "script" for tag, _ in page.tags)
    anchors = {
        attributes["href"] for tag, attributes in page.tags if tag == "a" and str(attributes.get("href"))[0] == "#"
    }
    ids = {f"#{attributes['id']}" for _, attributes in page.tags if "id" in attributes}
    assert anchors <= ids


def test_page_escapes_text_from_the_data(run_dir: Path, emoji_data: Path) -> None:
    text = render_report(run_dir, emoji_data).read_text(encoding="utf-8")
    assert "fruit <b>" not in text
    assert "fruit &lt;b&gt;&amp;&#34;" in text
    assert "<script>" not in text
    assert "OpenMoji &lt;CC BY-SA 4.0&gt;" in text
    assert '<a href="https://openmoji.org" rel="noopener noreferrer">https://openmoji.org</a>.' in text


def test_listed_attributions_are_shown_as_a_list(run_dir: Path, emoji_data: Path) -> None:
    entry = {"part": "pictures", "credit": "A & B", "licence": "CC BY 4.0", "source": "https://a.b/c"}
    (emoji_data / "dataset.json").write_text(json.dumps({"attributions": [entry]}), encoding="utf-8")
    text = render_report(run_dir, emoji_data).read_text(encoding="utf-8")
    assert "A &amp; B" in text
    assert "CC BY 4.0" in text
    assert '<a href="https://a.b/c" rel="noopener noreferrer">' in text


def test_page_shows_every_part(run_dir: Path, emoji_data: Path, emoji_results: EmojiResults) -> None:
    page = Page(render_report(run_dir, emoji_data).read_text(encoding="utf-8"))
    for headline in emoji_results.headlines:
        if not headline.name.endswith("_with_prior"):  # the second figure of a card
            assert headline.label in page.text
        assert f"{100 * headline.trained:.1f}" in page.text
    for part in (
        "trained effect",
        "unseen names",
        "Spearman",
        "Most certain captions",
        "Gradient norm",
        "R@10",
        "coin",
    ):
        assert part in page.text
    before = words.signed(emoji_results.random.unseen_names.uncertainty.spearman)
    assert f"; before training {before} and " in page.text
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    gallery = emoji_results.gallery
    assert emoji_results.decisions is not None
    shown = len(gallery.pictures) + len(gallery.most_certain) + len(gallery.least_certain) + len(gallery.chains)
    shown += len(emoji_results.decisions.examples)
    assert len(images) == shown
    assert all(image["alt"] for image in images)
    assert str(page.text).count("None") == 0


def test_every_chart_has_a_title_and_description(run_dir: Path, emoji_data: Path) -> None:
    text = render_report(run_dir, emoji_data).read_text(encoding="utf-8")
    drawings = re.findall(r'<svg class="(?:chart|bullet)".*?</svg>', text, re.DOTALL)
    assert len(drawings) >= 12
    for drawing in drawings:
        tree = ET.fromstring(drawing)
        assert tree.get("role") == "img"
        assert tree.findtext("title")
        assert "nan" not in drawing
        if tree.get("class") == "chart":
            assert tree.findtext("desc")


def test_decisions_are_shown_with_their_ranges(run_dir: Path, emoji_data: Path, emoji_results: EmojiResults) -> None:
    decisions = emoji_results.decisions
    assert decisions is not None
    text = Page(render_report(run_dir, emoji_data).read_text(encoding="utf-8")).text
    section = text[text.index("What can you rely on?") : text.index("The most and the least certain")]
    for row in decisions.sets:
        for cell in (words.percent_range(row.covered), words.number_range(row.size), words.percent_range(row.wrong)):
            assert cell in section
    assert f"{decisions.num_held} others for the guarantees" in section
    assert risk_sentence(decisions) in section
    for one in decisions.examples:
        assert (f"answer: {one.label_set[0]}" if one.answered else "don't know") in section
    for one in decisions.reliability:
        assert words.percent_range(one.calibration_error) in section
    assert "Calibration error after calibration: " in section


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (-0.3, -0.1, "detects wrong answers less well"),
        (0.1, 0.2, "detects wrong answers better"),
        (-0.1, 0.1, "Neither"),
    ],
)
def test_the_better_score_of_doubt_follows_from_the_interval(
    low: float, high: float, verdict: str, emoji_results: EmojiResults
) -> None:
    assert emoji_results.decisions is not None
    difference = Range(value=(low + high) / 2, low=low, high=high)
    decisions = dataclasses.replace(emoji_results.decisions, auroc_difference=difference)
    assert verdict in risk_sentence(decisions)


def test_missing_parts_are_named_on_the_page(
    tmp_path: Path, emoji_results: EmojiResults, caplog: pytest.LogCaptureFixture
) -> None:
    run, data = tmp_path / "run", tmp_path / "nothing"
    run.mkdir()
    data.mkdir()
    without = dataclasses.replace(emoji_results, decisions=None)
    (run / "eval.json").write_text(without.to_json(), encoding="utf-8")
    page = Page(render_report(run, data).read_text(encoding="utf-8"))
    for missing in ("No decisions", "No curves", "No settings", "No attributions"):
        assert missing in page.text
    assert not any(tag == "img" for tag, _ in page.tags)
    assert "◆" in page.text
    (warned,) = caplog.messages
    assert re.fullmatch(rf"data: {re.escape(str(data))} has 0 of the page's \d+ images, and the others .*", warned)


def test_no_results_is_an_error(tmp_path: Path) -> None:
    data = tmp_path / "my data"
    command = f"`prolip eval emoji --checkpoint {tmp_path} --data '{data}'` writes it"
    with pytest.raises(UserError, match=rf"has no eval\.json: {re.escape(command)}"):
        render_report(tmp_path, data)
    with pytest.raises(UserError, match="absent is not a folder"):
        render_report(tmp_path / "absent", data)
    assert not (tmp_path / "absent").exists()
    (tmp_path / "eval.json").write_text("{}", encoding="utf-8")
    with pytest.raises(
        UserError, match=r"eval\.json is damaged or of another version: `prolip eval emoji .*again \(Emoji"
    ):
        render_report(tmp_path, tmp_path)


def test_an_older_eval_json_names_the_command_to_rerun(tmp_path: Path, emoji_results: EmojiResults) -> None:
    """One without decisions, which were added later."""
    old = json.loads(emoji_results.to_json())
    del old["decisions"]
    (tmp_path / "eval.json").write_text(json.dumps(old), encoding="utf-8")
    again = f"`prolip eval emoji --checkpoint {tmp_path} --data data/emoji` writes it again"
    with pytest.raises(UserError, match=re.escape(again)):
        render_report(tmp_path, Path("data/emoji"))


def test_a_run_on_other_data_is_refused_with_the_right_command(tmp_path: Path) -> None:
    run, data = tmp_path / "run", tmp_path / "data" / "mine"
    run.mkdir()
    data.mkdir(parents=True)
    (run / "config.toml").write_text('[data]\nshards = ["data/mine/train-*.tar"]\n')
    (data / "dataset.json").write_text("{}")
    for asked in (Path("data/emoji"), data):
        with pytest.raises(UserError, match=r"was trained on data/mine/train-\*\.tar") as refused:
            render_report(run, asked)
        assert f"`prolip eval zero_shot --checkpoint {run} --data FOLDER`" in str(refused.value)
        assert f"`prolip runs {run} --plot {run}/curves.html`" in str(refused.value)
        assert "eval emoji" not in str(refused.value)
    (run / "config.toml").write_text('[data]\nshards = ["../data/emoji/train-*.tar"]\n')
    with pytest.raises(UserError, match="`prolip eval emoji"):
        render_report(run, Path("data/emoji"))


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("config.toml", b"[data\n", "is damaged: "),
        ("config.toml", b"\xff", "is not UTF-8"),
        ("dataset.json", b'{"designs": ', "is damaged: "),
        ("dataset.json", b"[]", "is damaged: it must hold a JSON object"),
    ],
)
@pytest.mark.parametrize("evaluated", [True, False])
def test_a_damaged_file_is_named(
    name: str, content: bytes, reason: str, evaluated: bool, tmp_path: Path, emoji_results: EmojiResults
) -> None:
    if evaluated:
        (tmp_path / "eval.json").write_text(emoji_results.to_json(), encoding="utf-8")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=re.escape(f"{tmp_path / name} {reason}")):
        render_report(tmp_path, tmp_path)


def test_an_incomplete_line_of_metrics_is_skipped(run_dir: Path) -> None:
    rows = read_metrics(run_dir / "metrics.jsonl")
    assert len(rows) == 40
    assert rows[0]["loss"] == 5.0
    assert read_metrics(run_dir / "absent.jsonl") == []


def test_findings_depend_on_the_figures(emoji_results: EmojiResults) -> None:
    found = words.findings(emoji_results)
    assert any("blurred" in finding and "50.0" in finding for finding in found)
    levels = emoji_results.trained.unseen_names
    for last, beginning in ((-0.05, "The effect is small. The mean"), (-0.3, "The mean")):
        changed = replace(levels, uncertainty=replace(levels.uncertainty, relative=[0.0, 0.0, 0.0, last]))
        trained = replace(emoji_results.trained, unseen_names=changed)
        assert words.findings(replace(emoji_results, trained=trained))[0].startswith(
            f"{beginning} uncertainty of a held-out"
        )


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0.0, 1.0, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (97.0, 101.0, [97.0, 98.0, 99.0, 100.0, 101.0]),
        (-0.3, 0.7, [-0.4, -0.2, 0.0, 0.2, 0.4, 0.6, 0.8]),
        (5.0, 5.0, [4.5, 4.7, 4.9, 5.1, 5.3, 5.5]),
    ],
)
def test_axis_ticks_are_round_and_cover_the_range(low: float, high: float, ticks: list[float]) -> None:
    got = charts.nice_ticks(low, high)
    assert got[0] <= low
    assert got[-1] >= high
    steps = {round(b - a, 9) for a, b in pairwise(got)}
    assert len(steps) == 1
    if low != high:
        assert got == pytest.approx(ticks)


@pytest.mark.parametrize(
    ("value", "step", "text"),
    [
        (0.0, 1.0, "0"),
        (-2.0, 1.0, "−2"),
        (0.25, 0.05, "0.25"),
        (1500.0, 500.0, "1500"),
        (20000.0, 5000.0, "20k"),
        (0.0003, 0.0001, "3e−4"),
        (1e-17, 0.2, "0"),
    ],
)
def test_tick_labels_have_the_fewest_digits(value: float, step: float, text: str) -> None:
    assert charts.tick_label(value, step) == text


def test_charts_of_shares_have_one_axis() -> None:
    axes = []
    for values in ([0.2, 0.4], [0.7, 0.9]):
        line = charts.Line(name="a", x=[1, 2], y=values)
        drawing = charts.line_chart("t", "d", [line], x_label="bin", y_scale="share", percent=True)
        axes.append(re.findall(r">(\d+)\W?%</text>", drawing))
    assert axes[0] == axes[1]
    assert {"0", "100"} <= set(axes[0])


def test_line_chart_skips_gaps_and_thins_long_lines() -> None:
    line = charts.Line(name="a<b", x=range(5000), y=[float("nan") if x % 2 else float(x) for x in range(5000)])
    drawing = charts.line_chart("t", "d", [line, charts.Line(name="c", x=[0], y=[1.0])], x_label="step")
    assert "nan" not in drawing
    assert "a&lt;b" in drawing
    assert drawing.count(",") < 1000
    assert charts.line_chart("t", "d", [charts.Line(name="a", x=[0], y=[float("nan")])], x_label="step") == ""


def test_charts_escape_their_text() -> None:
    spread = charts.Spread(label="<s>", mean=1.0, low=0.5, high=1.5, untrained=1.2)
    bar = charts.Bar(label="<l>", value=1.0, note="<n>", untrained=0.5)
    for drawing in (
        charts.spread_chart("<t>", "<d>", [("<a>", [spread]), ("<b>", [spread])], "<u>"),
        charts.diverging_bars("<t>", "<d>", [bar], "<u>"),
        charts.bullet("<t>", 0.5, 0.4, 0.3),
    ):
        assert "&lt;t&gt;" in drawing
        assert not re.search(r"<(t|d|s|l|n|a|b|u)>", drawing)


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (1.5, 14.0, [1, 2, 5, 10, 20]),
        (1e-5, 0.17, [1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0]),
        (3.0, 3.0, [2, 5]),
        (10.0, 10.0, [10, 20]),
    ],
)
def test_log_axis_ticks_cover_the_range(low: float, high: float, ticks: list[float]) -> None:
    assert charts.log_ticks(low, high) == pytest.approx(ticks)


def test_log_chart_skips_values_that_are_not_positive() -> None:
    line = charts.Line(name="a", x=range(4), y=[0.0, -1.0, 1.0, 10.0])
    drawing = charts.line_chart("t", "d", [line], x_label="step", y_scale="log")
    path = re.findall(r'points="([^"]*)"', drawing)[0].split()
    assert len(path) == 2


def test_links_exclude_punctuation_and_quotes() -> None:
    assert linked("see https://a.b/c_(d). <x>").startswith("see <a ")
    assert linked('https://a.b/"onclick="x').count("<a ") == 1
    assert 'onclick="' not in linked('https://a.b/"onclick="x')
