"""The report shows figures of the untrained model beside the trained ones."""

import dataclasses
import html
import re
from pathlib import Path

import pytest

from prolip.demo.report import render_report, words
from prolip.demo.suite.results import EmojiResults, LevelFigures, SetFigures
from prolip.metrics.uncertainty import AccuracyBins
from prolip.report import charts


@pytest.fixture
def results(emoji_results: EmojiResults) -> EmojiResults:
    """Results whose length controls, views and scores with variances, alike in the made-up world, differ."""

    def with_views(sets: list[SetFigures], share: float) -> list[SetFigures]:
        views = [dataclasses.replace(view, share_more_uncertain=share, ratio=1 + share) for view in sets[-1].views]
        with_var = dataclasses.replace(sets[-1].group_with_var, top1=sets[-1].group.top1 - share)
        return [*sets[:-1], dataclasses.replace(sets[-1], views=views, group_with_var=with_var)]

    def with_controls(levels: LevelFigures, start: float) -> LevelFigures:
        pairs = [
            dataclasses.replace(pair, share_not_longer=start + place / 100) for place, pair in enumerate(levels.pairs)
        ]
        return dataclasses.replace(levels, pairs=pairs)

    trained, random = emoji_results.trained, emoji_results.random
    return dataclasses.replace(
        emoji_results,
        trained=dataclasses.replace(
            trained,
            sets=with_views(trained.sets, 0.31),
            unseen_names=with_controls(trained.unseen_names, 0.9),
            seen_names=with_controls(trained.seen_names, 0.8),
        ),
        random=dataclasses.replace(
            random,
            sets=with_views(random.sets, 0.17),
            unseen_names=with_controls(random.unseen_names, 0.5),
            seen_names=with_controls(random.seen_names, 0.4),
        ),
    )


@pytest.fixture
def page(tmp_path: Path, results: EmojiResults) -> str:
    (tmp_path / "eval.json").write_text(results.to_json(), encoding="utf-8")
    return render_report(tmp_path, tmp_path / "nothing").read_text(encoding="utf-8")


def table_figures(results: EmojiResults) -> list[tuple[str, str]]:
    """Each figure of the tables with the untrained one under it, in the page's order."""
    percent, sets = words.percent, list(zip(results.trained.sets, results.random.sets, strict=True))
    groups = [
        (results.trained.unseen_names, results.random.unseen_names),
        (results.trained.seen_names, results.random.seen_names),
    ]
    found = [
        (percent(getattr(ours, name)), percent(getattr(theirs, name)))
        for part, names in (
            ("group", ("top1", "mean_per_class_recall")),
            ("subgroup", ("top1", "mean_per_class_recall")),
            ("image_to_text", ("recall_at_1", "recall_at_5", "recall_at_10")),
            ("text_to_image", ("recall_at_1", "recall_at_5", "recall_at_10")),
        )
        for ours, theirs in ((getattr(a, part), getattr(b, part)) for a, b in sets)
        for name in names
    ]
    found += prompt_figures(results)
    for place in range(4):
        for ours, theirs in ((a.uncertainty, b.uncertainty) for a, b in groups):
            span = words.span(theirs.low[place], theirs.high[place])
            found.append((percent(ours.relative[place], 2), f"{percent(theirs.relative[place])} ({span})"))
    for a, b in groups:
        found += [
            (percent(getattr(ours, name)), percent(getattr(theirs, name)))
            for ours, theirs in zip(a.pairs, b.pairs, strict=True)
            for name in ("share", "share_not_longer", "share_plain", "share_chained")
        ]
        found.append((percent(a.share_chains_ordered), percent(b.share_chains_ordered)))
    for view, before in zip(sets[-1][0].views, sets[-1][1].views, strict=True):
        found.append((percent(view.share_more_uncertain), percent(before.share_more_uncertain)))
        found.append((words.relative(view.ratio), words.relative(before.ratio)))
    return found


def prompt_figures(results: EmojiResults) -> list[tuple[str, str]]:
    """The part on prompts: each way's accuracy, and but for even weights its gain."""
    found: list[tuple[str, str]] = []
    for ours, theirs in zip(results.trained.prompting, results.random.prompting, strict=True):
        for method, before in zip(ours.methods, theirs.methods, strict=True):
            found.append((words.percent(method.top1), words.percent(before.top1)))
            if method is not ours.methods[0]:
                gain, low, high = (
                    words.signed(100 * value, 1) for value in (method.gain, method.gain_low, method.gain_high)
                )
                found.append((f"{gain} ({low} to {high})", words.signed(100 * before.gain, 1)))
    return found


def test_tables_show_the_untrained_model_under_the_trained_one(page: str, results: EmojiResults) -> None:
    shown = re.findall(r'<td[^>]*>\s*([^<]*?)\s*<span class="untrained" title="untrained">([^<]*)</span></td>', page)
    expected = table_figures(results)
    assert shown == expected
    assert sum(ours != theirs for ours, theirs in expected) > 0.7 * len(expected)


def test_headlines_show_a_control_figure(page: str, results: EmojiResults) -> None:
    """Classes: with known frequencies. Order: where length cannot be the reason."""
    shown = re.findall(r'<div class="control">.*?<dt>([^<]*)</dt><dd>([^<]*)</dd></div>', page)
    trained, random = results.trained, results.random
    figures = (trained.unseen_names, random.unseen_names, trained.seen_names, random.seen_names)
    values = [words.percent(levels.pairs[0].share_not_longer) for levels in figures]
    assert (trained.unseen_names.pairs[0].general, trained.unseen_names.pairs[0].specific) == ("group", "name")
    by_name = {headline.name: headline for headline in results.headlines}
    classes = [by_name["group_with_prior"], by_name["subgroup_with_prior"]]
    known = [words.percent(share) for one in classes for share in (one.trained, one.random)]
    names = ["frequencies known", "untrained"] * 2 + ["name not longer", "untrained"] * 2
    assert shown == list(zip(names, [*known, *values], strict=True))
    assert values[0] != values[1]
    assert values[2] != values[3]


def test_chart_descriptions_name_the_untrained_figures(page: str, results: EmojiResults) -> None:
    said = [html.unescape(found) for found in re.findall(r"<desc>(.*?)</desc>", page)]
    trained, random = results.trained, results.random
    for ours, theirs in ((trained.unseen_names, random.unseen_names), (trained.seen_names, random.seen_names)):
        mean, before = 100 * ours.uncertainty.relative[-1], 100 * theirs.uncertainty.relative[-1]
        assert any(f"name {mean:.1f} % (untrained {before:.1f} %)" in one for one in said)
    for place in (0, -1):
        a, b = trained.sets[place], random.sets[place]
        steps = [*zip(a.picture_inclusion, b.picture_inclusion, strict=True)]
        steps += [*zip(a.inclusion_chain, b.inclusion_chain, strict=True)]
        for step, before_step in steps:
            shares = [words.percent(one.share_positive, 0) for one in (step, before_step)]
            means = f"{1000 * step.mean_score:.2f}, untrained {1000 * before_step.mean_score:.2f}"
            assert any(f": {means}, positive for {shares[0]} (untrained {shares[1]})" in one for one in said)
    last, last_before = trained.sets[-1], random.sets[-1]
    for name, bins, bins_before in (
        ("group", last.group_bins, last_before.group_bins),
        ("caption in the first 10", last.retrieval_bins, last_before.retrieval_bins),
    ):
        assert bins is not None
        assert bins_before is not None
        lines = [", ".join(words.percent(y, 0) for y in item.accuracy) for item in (bins, bins_before)]
        assert any(f"{name}: {lines[0]}; {name}, untrained: {lines[1]}" in one for one in said)
        assert words.pearson_sentence(bins, bins_before) in html.unescape(page)


def test_rings_and_hollow_marks_are_at_the_untrained_value() -> None:
    spread = charts.Spread(label="a", mean=2.0, low=0.0, high=4.0, untrained=3.0)
    drawing = charts.spread_chart("t", "d", [("a", [spread])], "u")
    low, high = (float(re.findall(rf'class="spread s0"[^>]*{name}="([^"]*)"', drawing)[0]) for name in ("x1", "x2"))
    for kind, value in (("ring open", 3.0), ("mark s0", 2.0)):
        across = float(re.findall(rf'class="{kind}" cx="([^"]*)"', drawing)[0])
        assert across == pytest.approx(low + value / 4 * (high - low), abs=0.1)

    drawing = charts.diverging_bars("t", "d", [charts.Bar(label="a", value=1.0, note="n", untrained=3.0)], "u")
    start, width = map(float, re.findall(r'class="bar s0" x="([^"]*)"[^>]*width="([^"]*)"', drawing)[0])
    ring = float(re.findall(r'class="ring" cx="([^"]*)"', drawing)[0])
    assert ring == pytest.approx(start + 3 * width, abs=0.5)

    line = charts.Line(name="a", x=[0, 1], y=[1.0, 2.0], untrained=[0.0, 0.0])
    drawing = charts.line_chart("t", "d", [line], x_label="x", marks=True)
    ours = [float(y) for y in re.findall(r'class="mark s0" cx="[^"]*" cy="([^"]*)"', drawing)]
    theirs = [float(y) for y in re.findall(r'class="mark untrained s0" cx="[^"]*" cy="([^"]*)"', drawing)]
    assert theirs[0] == theirs[1] > ours[0] > ours[1]
    assert "hollow: untrained" in drawing
    plain = charts.line_chart("t", "d", [dataclasses.replace(line, untrained=())], x_label="x", marks=True)
    assert "untrained" not in plain


def test_findings_name_the_untrained_figure(results: EmojiResults) -> None:
    trained, random = results.trained, results.random
    found = " ".join(words.findings(results))
    ours, theirs = trained.unseen_names, random.unseen_names
    assert f"{words.signed(ours.uncertainty.spearman)} (untrained {words.signed(theirs.uncertainty.spearman)})" in found
    assert f"{words.signed(ours.length_spearman)} (untrained {words.signed(theirs.length_spearman)})" in found
    a, b = ours.pairs[0], theirs.pairs[0]
    control = words.percent(a.share_not_longer)
    assert f"{words.percent(a.share)} (not longer {control}; untrained {words.percent(b.share)})" in found
    assert f"in {control} (untrained {words.percent(b.share_not_longer)})" in found
    sizes = [words.relative(levels.uncertainty.relative[-1]) for levels in (ours, theirs)]
    assert f"{sizes[0]} (untrained {sizes[1]})" in found
    assert f"in only {words.percent(0.31)} (untrained {words.percent(0.17)})" in found
    assert "accuracy by −31.0 points (untrained −17.0)" in found


def test_accuracy_that_does_not_fall_is_a_finding_with_the_untrained_value(results: EmojiResults) -> None:
    def with_pearson(sets: list[SetFigures], pearson: float) -> list[SetFigures]:
        assert sets[-1].group_bins is not None
        bins = dataclasses.replace(sets[-1].group_bins, pearson=pearson)
        return [*sets[:-1], dataclasses.replace(sets[-1], group_bins=bins)]

    changed = dataclasses.replace(
        results,
        trained=dataclasses.replace(results.trained, sets=with_pearson(results.trained.sets, 0.5)),
        random=dataclasses.replace(results.random, sets=with_pearson(results.random.sets, -0.25)),
    )
    assert "(+0.50, untrained −0.25)" in " ".join(words.findings(changed))


def test_a_larger_h_before_training_is_a_finding(results: EmojiResults) -> None:
    def with_first_step(score: float) -> str:
        first = results.random.sets[0]
        step = dataclasses.replace(first.inclusion_chain[0], mean_score=score, share_positive=0.25)
        changed = dataclasses.replace(first, inclusion_chain=[step, *first.inclusion_chain[1:]])
        random = dataclasses.replace(results.random, sets=[changed, *results.random.sets[1:]])
        return " ".join(words.findings(dataclasses.replace(results, random=random)))

    assert "the image ⊂ name 9000.00 against" in with_first_step(9.0)
    assert "the image ⊂ name" not in with_first_step(-9.0)


def test_pearson_sentence_names_both() -> None:
    def bins(pearson: float) -> AccuracyBins:
        return AccuracyBins(accuracy=[], mean_uncertainty=[], bin_size=0, num_dropped=0, pearson=pearson)

    assert words.pearson_sentence(bins(-0.9), bins(0.1)) == (
        "Pearson −0.90 (untrained +0.10): accuracy falls with uncertainty"
    )
    assert words.pearson_sentence(bins(float("nan")), bins(0.1)).endswith("(untrained +0.10)")
