"""Models side by side: differences and their intervals."""

from __future__ import annotations

import math

import pytest
import torch
from tests.support.suite_results import COUNT, hits, result, three

from prolip.evaluation.compare import compare
from prolip.evaluation.results import Row, SuiteResult, row_of_items
from prolip.metrics.statistics import STATISTICS


def test_paired_differences_have_narrower_intervals_than_each_value() -> None:
    shared = hits(0.5)
    better = shared.clone()
    better[:20] = 1.0
    compared = compare([result("a", row_of_items("t", "m", shared)), result("b", row_of_items("t", "m", better))])
    (figure,) = compared
    assert [value.value for value in figure.values] == [float(shared.mean()), float(better.mean())]
    (difference,) = figure.differences
    assert difference.value == pytest.approx(float(better.mean() - shared.mean()))
    assert difference.high - difference.low < (figure.values[0].high - figure.values[0].low) / 3
    assert 0 < difference.low < difference.value < difference.high


def test_a_model_differs_from_itself_by_exactly_zero() -> None:
    rows = [
        row_of_items("t", statistic, hits(0.5), torch.arange(400) % 2, statistic=statistic)
        for statistic in STATISTICS
        if statistic != "mean"
    ]
    for figure in compare([result("a", *rows), result("b", *rows)], num_resamples=50):
        assert figure.differences[0] == (0.0, 0.0, 0.0)


def test_an_averages_interval_is_resampled_from_its_parts() -> None:
    rows = [row_of_items("one", "m", hits(0.3)), row_of_items("two", "m", hits(0.7, 1))]
    value = sum(row.value for row in rows) / 2
    rows.append(Row(task="all", metric="m", value=value, num_items=2, mean_of=[row.key for row in rows]))
    *parts, average = compare([result("a", *rows)], num_resamples=200)
    assert average.values[0].low < value < average.values[0].high
    widths = [figure.values[0].high - figure.values[0].low for figure in (*parts, average)]
    assert widths[2] < min(widths[:2])


def test_a_figure_that_a_model_lacks_is_nan() -> None:
    first, second = row_of_items("t", "m", hits(0.5)), row_of_items("t", "uncertainty", hits(0.5))
    others = Row(task="t", metric="m", value=0.75, num_items=7)
    compared = compare([result("a", first, second), result("b", others)], num_resamples=20)
    assert [figure.row.metric for figure in compared] == ["m", "uncertainty"]
    assert math.isnan(compared[1].values[1].value)
    assert math.isnan(compared[1].differences[0].value)
    assert compared[0].differences[0].value == pytest.approx(0.75 - first.value)
    assert math.isnan(compared[0].differences[0].low), "other items"


def test_metrics_of_one_task_share_resamples_and_tasks_do_not() -> None:
    items = hits(0.5)
    one, other, two = compare(
        [result("a", *(row_of_items(task, metric, items) for task, metric in ["xm", "xn", "ym"]))], num_resamples=50
    )
    assert one.values == other.values
    assert one.values[0][1:] != two.values[0][1:]


def test_every_model_is_compared_with_the_first() -> None:
    accuracy, recall = compare(three(), num_resamples=200)
    values = [float(hits(share).mean()) for share in (0.5, 0.8, 0.2)]
    assert [value.value for value in accuracy.values] == values
    assert [value.value for value in accuracy.differences] == [values[1] - values[0], values[2] - values[0]]
    assert [math.isnan(value.value) for value in (*recall.values, *recall.differences)] == [0, 0, 1, 0, 1]
    for value in (*accuracy.values, *accuracy.differences):
        assert value.low < value.value < value.high


def test_an_interval_holds_95_percent_of_the_paired_resamples() -> None:
    """Of a mean about 1.96 standard errors either way; of a difference those of the items' differences."""
    first, other = hits(0.5), hits(0.8)
    (figure,) = compare([result("a", row_of_items("t", "m", first)), result("b", row_of_items("t", "m", other))])
    for found, items in ((figure.values[0], first), (figure.differences[0], other - first)):
        error = float(items.std()) / COUNT**0.5
        assert found.low == pytest.approx(float(items.mean()) - 1.96 * error, abs=0.25 * error)
        assert found.high == pytest.approx(float(items.mean()) + 1.96 * error, abs=0.25 * error)


def test_the_seed_fixes_the_intervals_and_zero_resamples_give_none() -> None:
    rows = result("a", row_of_items("t", "m", hits(0.5)))
    found = [compare([rows], num_resamples=40, seed=seed)[0].values[0] for seed in (0, 0, 1)]
    assert found[0] == found[1]
    assert found[0][1:] != found[2][1:]
    largest = compare([rows], num_resamples=40, seed=2**64 - 1)[0].values[0]
    assert math.isfinite(largest.low)
    none = compare([rows, rows], num_resamples=0)[0]
    assert none.values[0].value == float(hits(0.5).mean())
    assert all(map(math.isnan, (*none.values[0][1:], *none.differences[0][1:])))


def test_an_average_has_no_interval_if_a_part_has_none() -> None:
    sure, unsure = row_of_items("one", "m", hits(0.3)), Row(task="two", metric="m", value=0.5, num_items=9)
    average = Row(task="all", metric="m", value=0.4, num_items=2, mean_of=[sure.key, unsure.key])
    figure = compare([result("a", sure, unsure, average)], num_resamples=20)[-1]
    assert figure.values[0].value == 0.4
    assert math.isnan(figure.values[0].low)


def test_averages_over_different_tasks_have_no_difference_interval() -> None:
    def averaged(model: str, tasks: list[str]) -> SuiteResult:
        rows = [row_of_items(task, "m", hits(0.5)) for task in ("one", "two", "three")]
        of = [f"{task}: m" for task in tasks]
        return result(model, *rows, Row(task="all", metric="m", value=0.5, num_items=2, mean_of=of))

    figure = compare([averaged("a", ["one", "two"]), averaged("b", ["one", "three"])], num_resamples=20)[-1]
    assert figure.differences[0].value == 0
    assert math.isnan(figure.differences[0].low)


def test_figures_on_different_items_have_no_difference_interval() -> None:
    """As where one model could read an image and the other could not: the draws are of other images."""
    fewer = row_of_items("t", "m", hits(0.5)[1:])
    (figure,) = compare([result("a", row_of_items("t", "m", hits(0.5))), result("b", fewer)], num_resamples=20)
    assert math.isfinite(figure.values[1].low)
    assert figure.differences[0].value == figure.values[1].value - figure.values[0].value
    assert math.isnan(figure.differences[0].low)


def test_two_rows_with_one_name_raise_an_error() -> None:
    row = row_of_items("t", "m", hits(0.5))
    with pytest.raises(AssertionError, match="a key names one row"):
        compare([result("a", row, row)], num_resamples=0)


def test_a_difference_of_two_figures_is_resampled_pair_by_pair() -> None:
    """Of the same items, a difference is surer than either figure; a part without items leaves it open."""
    shared = hits(0.5)
    better = shared.clone()
    better[:20] = 1.0
    rows = [row_of_items("t", "one", shared), row_of_items("t", "two", better)]
    value = rows[1].value - rows[0].value
    rows.append(Row(task="t", metric="two − one", value=value, num_items=COUNT, difference_of=[r.key for r in rows]))
    one, _, difference = compare([result("a", *rows)], num_resamples=200)
    assert 0 < difference.values[0].low < value < difference.values[0].high
    assert difference.values[0].high - difference.values[0].low < (one.values[0].high - one.values[0].low) / 3
    rows[0] = Row(task="t", metric="one", value=0.5, num_items=COUNT)
    (*_, alone) = compare([result("a", *rows)], num_resamples=20)
    assert math.isnan(alone.values[0].low)
