"""`prolip data dedupe`: which rows stay, and that this is the same however the work is divided."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings, strategies as st
from tests.support.refusals import refusal_of
from tests.support.vector_rows import write_parts

from prolip.cli import main
from prolip.embeddings import dedupe
from prolip.embeddings.config import DedupeOptions
from prolip.embeddings.dedupe import STEPS, default_threshold, k_means, nearest, run_dedupe
from prolip.gaussian import Gaussian
from prolip.store.selection import Chosen, read_selection, write_selection


def copied(seed, count):
    """Rows around a few centres, a third of them exact copies of others, with one of five variances."""
    noise = np.random.default_rng(seed)
    mean = noise.normal(size=(9, 6))[noise.integers(0, 9, count)]
    mean += noise.choice([0.02, 0.4], (count, 1)) * noise.normal(size=(count, 6))
    mean[: count // 3] = mean[noise.integers(0, count, count // 3)]
    variances = torch.from_numpy(noise.integers(1, 6, (count, 1)) * np.ones(6))
    return Gaussian(F.normalize(torch.from_numpy(mean)), variances.log())


def kept_rows(rows, sizes, **changes):
    """The numbers of the rows that stay, of parts of such sizes."""
    with tempfile.TemporaryDirectory() as name:
        folder = write_parts(Path(name) / "out", {"image": rows}, sizes)
        given = {"embeddings": str(folder), "out": f"{name}/chosen", "scratch": Path(name)}
        run_dedupe(options := DedupeOptions(**(given | changes)))
        assert {path.name for path in Path(name).iterdir()} == {"out", "chosen"}
        starts = np.cumsum([0, *sizes])
        return [int(starts[int(one.source[:-4])] + row) for one in read_selection(options.out) for row in one.rows]


@given(st.integers(0, 99), st.integers(1, 120), st.integers(1, 4), st.sampled_from([0.5, 0.9, 0.99]))
@settings(max_examples=30, deadline=None)
def test_a_row_goes_if_and_only_if_a_more_certain_similar_one_stays(seed, count, num, threshold):
    rows = copied(seed, count)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dedupe, "_SIDE", 7)
        kept = kept_rows(rows, [count], clusters=num, threshold=threshold)
    means = (rows.mean * STEPS).round().short()
    cluster, cosine = nearest(means, k_means(means, num)), rows.mean @ rows.mean.T
    order = np.argsort(rows.total_var.float().numpy(), kind="stable").tolist()
    for place, row in enumerate(order):
        before = [other for other in order[:place] if other in kept and cluster[other] == cluster[row]]
        most = max(cosine[row, before], default=-1.0)
        assert (most < threshold + 0.001) if row in kept else (most >= threshold - 0.001)
    assert len(means[kept].unique(dim=0)) == len(kept), "no exact copies stay"


@given(st.integers(0, 99), st.lists(st.integers(0, 100), max_size=4))
@settings(max_examples=10, deadline=None)
def test_parts_and_blocks_do_not_matter(seed, cuts):
    rows = copied(seed, 100)
    expected = kept_rows(rows, [100], clusters=5)
    assert 5 < len(expected) < 90
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dedupe, "_SIDE", 16)
        patch.setattr(dedupe, "_TOGETHER", 30)
        assert kept_rows(rows, np.diff([0, *sorted(cuts), 100]).tolist(), clusters=5) == expected


def test_rows_outside_a_selection_are_not_there(tmp_path):
    rows, inside, within = copied(0, 100), np.arange(1, 100, 3, np.uint32), str(tmp_path / "within")
    write_selection(within, [Chosen("0.tar", "", inside[:20]), Chosen("1.tar", "", inside[20:] - np.uint32(60))])
    alone = kept_rows(rows.rows(torch.from_numpy(inside.astype(np.int64))), [len(inside)])
    assert kept_rows(rows, [60, 40], within=within) == inside[alone].tolist()
    write_selection(within, [Chosen("other.tar", "", inside)])
    for field, changes in (
        ("within", {"within": within}),
        ("threshold", {"threshold": 1}),
        ("clusters", {"clusters": -1}),
    ):
        with refusal_of(field):
            kept_rows(rows, [60, 40], **changes)


def test_the_default_threshold_is_of_the_median_neighbour():
    rows = torch.randn(80, 6, generator=torch.Generator().manual_seed(1))
    for copies in (20, 30):  # of 40 and of 60 rows, so that mean and median differ
        some = F.normalize(torch.cat([rows, rows[:copies]]), dim=1)
        near = (some @ some.T).fill_diagonal_(-1).max(1).values
        expected = min(0.999, 0.75 + 0.25 * float(near.median()))
        assert abs(float(near.median() - near.mean())) > 0.01
        assert default_threshold((some * STEPS).round()) == pytest.approx(expected, abs=1e-3)


def test_the_default_threshold_follows_the_distance_of_neighbours(tmp_path, capsys):
    """40 items stay, whose copies are as near as a tenth of their distance; many copies are a warning."""
    noise, said = torch.randn(60, 6, generator=torch.Generator().manual_seed(0)), []
    for width, copies in ((1.0, 20), (0.2, 20), (0.2, 40)):
        items = torch.ones(40, 6) + width * noise[:40]
        near = F.normalize(torch.cat([items, items.repeat(2, 1)[:copies] + 0.02 * width * noise[-1]]))
        write_parts(tmp_path / "out", {"image": Gaussian(near, near * 0)}, [40, copies])
        words = ["data", "dedupe", "--embeddings", f"{tmp_path}/out", "--out", f"{tmp_path}/chosen"]
        assert main([*words, "--scratch", str(tmp_path), "--sheet", f"{tmp_path}/sheet.html"]) == 0
        said.append(capsys.readouterr().out)
        assert f"40 samples stay, {copies} near-duplicates go" in said[-1]
        page = (tmp_path / "sheet.html").read_text()
        assert page.count("2 near-duplicates") == page.count("<strong>") / 2 == min(copies, 12)
        assert page.index("<strong>k0<") < page.index("<strong>k40<")
    assert ["warning" in some for some in said] == [False, False, True]
