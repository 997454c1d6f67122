"""`prolip data rank`: the order by each measure."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.support.embed_options import options, read
from tests.support.ranked_shards import of_uncertainty, shards
from tests.support.refusals import refusal_of
from tests.support.vector_rows import write_parts

from prolip.cli import main
from prolip.embeddings.config import By, Kind, RankOptions
from prolip.embeddings.embed_inputs import run_embed
from prolip.embeddings.rank import read_ranking, run_rank
from prolip.embeddings.storage import Manifest
from prolip.folders import Folder
from prolip.gaussian import Gaussian, csd, inclusion_score


@pytest.mark.parametrize("by", ["image", "text", "inclusion", "csd"])
def test_a_ranking_equals_the_measures(lab: Path, tmp_path: Path, by: By) -> None:
    def gaussians(kind: Kind) -> Gaussian:
        _, _, mean, log_var, _ = read(lab / "out", kind)
        return Gaussian(torch.tensor(mean), torch.tensor(log_var))

    image, text = gaussians("image"), gaussians("text")
    expected = {
        "image": image.total_var,
        "text": text.total_var,
        "inclusion": inclusion_score(image, text).sum(1),
        "csd": csd(image, text).diagonal(),
    }[by]
    out = tmp_path / "ranking.csv"
    told = run_rank(RankOptions(embeddings=lab / "out", by=by, out=out, show=2))
    table = read_ranking(out)
    scores, ranks = table["score"].to_numpy(), table["rank"].to_numpy()
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, expected.numpy(), rtol=1e-4, atol=1e-5)
    assert sorted(ranks.tolist()) == list(range(1, 15))
    steps = np.diff(scores[np.argsort(ranks)])
    assert np.all(steps <= 0 if by == "inclusion" else steps >= 0)
    assert (table["key"].to_pylist(), table["source"].to_pylist()) == read(lab / "out", "image")[:2]
    assert [line.split()[0] for line in told if line.startswith("   ")] == ["1", "2", "14", "13"]


def test_the_contact_sheet_shows_both_ends_of_the_ranking(lab: Path, tmp_path: Path) -> None:
    words = ["data", "rank", "--embeddings", str(lab / "out"), "--by", "inclusion", "--show", "3"]
    sheet = tmp_path / "new" / "sheet.html"
    assert main([*words, "--out", str(tmp_path / "r.csv"), "--sheet", str(sheet)]) == 0
    page = sheet.read_text()
    assert (page.count("data:image/jpeg"), page.count("<blockquote>")) == (6, 6)
    assert "(prefers-color-scheme: dark)" in page


def test_equal_scores_keep_the_order_of_the_data(tmp_path: Path) -> None:
    # Enough of them that an unstable sort would not.
    values = [float(2 ** (place % 3)) for place in range(300)]
    write_parts(tmp_path / "out", {"image": of_uncertainty(values)}, [70] * 4 + [20])
    told = run_rank(RankOptions(embeddings=tmp_path / "out", out=tmp_path / "ranking.csv", show=2))
    ranks = read_ranking(tmp_path / "ranking.csv")["rank"].to_numpy()
    expected = [place for value in (0, 1, 2) for place in range(value, 300, 3)]
    assert (np.argsort(ranks) == expected).all()
    assert [line.split()[2] for line in told if line.startswith("   ")] == ["k0", "k3", "k299", "k296"]


def test_what_cannot_be_ranked_is_named(lab: Path, tmp_path: Path) -> None:
    images, apart = tmp_path / "images", tmp_path / "apart"
    run_embed(options(lab, images, shards=(str(shards(lab)[0]),)))
    run_embed(options(lab, apart, shards=(str(shards(lab)[0]),), lines=(lab / "lines.txt",)))
    mixed = shutil.copytree(lab / "out", tmp_path / "mixed")
    manifest = Manifest.read(Folder(str(mixed)))
    text = mixed / "text-000002.parquet"
    replace(manifest, parts=manifest.parts | {text.name: 1}).write(Folder(str(mixed)))
    for embeddings, by, out, field in (
        (mixed, "csd", "r.csv", str(text)),
        (lab / "out", "image", "ranking.parquet", "out"),
        (images, "inclusion", "r.csv", str(images)),
        (images, "text", "r.csv", str(images)),
        (apart, "csd", "r.csv", str(apart)),
    ):
        with refusal_of(field):
            run_rank(RankOptions(embeddings=embeddings, by=by, out=tmp_path / out))  # type: ignore[arg-type]
