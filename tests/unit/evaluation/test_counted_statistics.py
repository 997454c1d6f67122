"""Statistics from counts equal those of the resamples themselves, with ties and missing classes."""

from __future__ import annotations

import pytest
import torch

from prolip.evaluation.counted_statistics import COUNTED, counted
from prolip.evaluation.row_statistics import STATISTICS
from prolip.metrics import statistics
from prolip.metrics.statistics import count_blocks, resampled


@pytest.mark.parametrize("statistic", COUNTED)
@pytest.mark.parametrize("rounded", [False, True])
def test_statistics_from_counts_equal_resampled_statistics(
    statistic: str, rounded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statistics, "_BLOCK", 40 * 7)  # seven resamples a block, and a rest
    draws = torch.Generator().manual_seed(0)
    items = torch.randn(40, generator=draws, dtype=torch.float64)
    items = items.round() if rounded else items
    for share in (0.4, 0.03):  # the latter: resamples without a positive one
        groups = (torch.rand(40, generator=draws) < share).long()
        groups[0] = 1
        expected = resampled(STATISTICS[statistic], items, groups, num_resamples=25, seed=3)
        found = counted(COUNTED[statistic], items, groups, num_resamples=25, seed=3)
        torch.testing.assert_close(found, expected, equal_nan=True)


def test_counts_equal_how_often_each_item_is_drawn() -> None:
    (counts,) = count_blocks(6, num_resamples=4, seed=1)
    expected = resampled(lambda items: float((items == 2).sum()), torch.arange(6), num_resamples=4, seed=1)
    assert counts[:, 2].tolist() == expected.tolist()
    assert counts.sum(dim=1).tolist() == [6.0] * 4
    with pytest.raises(ValueError, match="num_resamples is 0"):
        list(count_blocks(6, num_resamples=0))
    with pytest.raises(ValueError, match="no item"):
        list(count_blocks(0))
