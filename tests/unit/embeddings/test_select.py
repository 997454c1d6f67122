"""`prolip data select`: the samples with the best scores."""

import re

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings, strategies as st
from tests.support.embed_options import options, read
from tests.support.made_scores import write_scores
from tests.support.ranked_shards import contents, select, shards
from tests.support.refusals import refusal_of

from prolip.cli import main
from prolip.embeddings.config import SelectOptions
from prolip.embeddings.embed import run_embed
from prolip.embeddings.select import run_select
from prolip.embeddings.storage import Manifest
from prolip.gaussian import Gaussian, csd, inclusion_score
from prolip.store.folder import Folder
from prolip.store.selection import read_selection

TIES = [0.0, -0.0, 1.0, 1.0000001, 1.0001, 2.0, -3.0, float("inf"), float("-inf"), 1e-40, -1e-40]
SCORES = st.sampled_from(TIES) | st.floats(width=32, allow_nan=False)


@given(
    st.lists(st.lists(SCORES, max_size=24), min_size=1, max_size=5).filter(any),
    st.integers(1, 99),
    st.integers(1, 100),
    st.booleans(),
    st.integers(1, 3),
    st.sampled_from(TIES),
)
@example([[0.0] * 100], 99, 29, False, 1, 0.0)  # 0.29 * 100 is less than 29
@settings(max_examples=100)
def test_the_chosen_rows_are_those_of_a_stable_sort(tmp_path_factory, parts, count, percent, least, threads, limit):
    folder = tmp_path_factory.mktemp("scores")
    write_scores(folder / "out", parts)
    scores = np.float32([score for part in parts for score in part])
    within = np.flatnonzero(scores <= np.float32(limit))
    order = within[np.argsort(-scores[within] if least else scores[within], kind="stable")]
    rules = {"keep_count": count, "keep_share": percent / 100, "max_score": limit, "least": least}
    count = min(count, percent * len(within) // 100)
    if not count:
        with refusal_of("embeddings"):
            select(folder / "out", folder / "chosen", **rules)
        return
    out = {"embeddings": str(folder / "out"), "out": str(folder / "chosen")}
    told = run_select(SelectOptions(**out, threads=threads, show=3, **rules))
    sizes = [len(part) for part in parts]
    names = [
        (f"{number // 2}.tar", 2 * (row + number % 2 * sizes[number - 1]))
        for number, size in enumerate(sizes)
        for row in range(size)
    ]
    assert contents(read_selection(folder / "chosen")) == [names[place] for place in sorted(order[:count])]
    by_score = within[np.argsort(scores[within], kind="stable")]
    ends = [*by_score[:3], *by_score[::-1][:3]]
    assert [line.split()[2] for line in told if line.startswith("   ")] == [f"k{place}" for place in ends]


@pytest.mark.parametrize("by", ["image", "text", "inclusion", "csd", "posterior"])
def test_scores_equal_the_formulas(lab, tmp_path, by):
    def gaussians(kind):
        _, _, mean, log_var, _ = read(lab / "out", kind)
        return Gaussian(torch.tensor(mean), torch.tensor(log_var))

    image, text = gaussians("image"), gaussians("text")
    logits = -Manifest.read(Folder(str(lab / "out"))).logit_scale / 2 * csd(image, text)
    scores = {
        "image": image.total_var,
        "text": text.total_var,
        "inclusion": inclusion_score(image, text).sum(1),
        "csd": csd(image, text).diagonal(),
        "posterior": logits.log_softmax(0).diagonal() + logits.log_softmax(1).diagonal(),
    }[by].numpy()
    order = np.argsort(-scores if by in {"inclusion", "posterior"} else scores, kind="stable")
    keys, sources = read(lab / "out", "image")[:2]
    sheet = tmp_path / "new" / "sheet.html"
    words = [*f"data select --embeddings {lab}/out --by".split(), by, *f"--show 3 --sheet {sheet}".split()]
    assert main([*words, *f"--keep_count 5 --out {tmp_path}/chosen".split()]) == 0
    assert contents(read_selection(tmp_path / "chosen")) == [
        (sources[place], int(keys[place][1:])) for place in sorted(order[:5])
    ]
    page = sheet.read_text()
    assert [page.count(text) for text in ("data:image/jpeg", "<blockquote>", ".jpg</p>")] == [6, 6, 6]
    shown = re.findall(r"rank (\d+), score (\S+)</p>", page)
    assert [int(rank) for rank, _ in shown] == [1, 2, 3, 14, 13, 12]
    np.testing.assert_allclose([float(score) for _, score in shown], scores[order[[0, 1, 2, 13, 12, 11]]], atol=2e-5)
    low, high = sorted(scores[order[[2, 4]]])
    limited = select(lab / "out", tmp_path / "limited", by=by, min_score=low - 1e-5, max_score=high + 1e-5)
    assert len(contents(read_selection(limited))) == 3


def test_what_cannot_be_chosen_is_named(lab, tmp_path):
    images, apart = tmp_path / "images", tmp_path / "apart"
    run_embed(options(lab, images, shards=(str(shards(lab)[0]),)))
    run_embed(options(lab, apart, shards=(str(shards(lab)[0]),), lines=(lab / "lines.txt",)))
    for embeddings, by, rules, field in (
        (images, "csd", {"keep_count": 1}, str(images)),
        (images, "text", {"keep_count": 1}, str(images)),
        (apart, "csd", {"keep_count": 1}, str(apart)),
        (images, "image", {"keep_count": 0}, "embeddings"),
    ):
        with refusal_of(field):
            select(embeddings, tmp_path / "chosen", by=by, **rules)
