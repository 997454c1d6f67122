"""`prolip data rank`: the order by each measure."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.support.ranked_shards import SIZES, rank_numbered, shards, write_parts

from prolip.cli import main
from prolip.embeddings.config import RankOptions
from prolip.embeddings.rank import read_ranking, run_rank
from prolip.embeddings.storage import complete_parts
from prolip.errors import UserError
from prolip.gaussian import Gaussian, csd, inclusion_score


def gaussians(lab: Path, kind: str) -> Gaussian:
    blocks = [block for part in complete_parts(lab / "out", kind)[1] for block in part.blocks(log_var=True)]  # type: ignore[arg-type]
    return Gaussian(
        torch.tensor(np.concatenate([block.mean for block in blocks])),
        torch.tensor(np.concatenate([block.log_var for block in blocks])),  # type: ignore[misc]
    )


@pytest.mark.parametrize("by", ["image", "text", "inclusion", "csd"])
@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_a_ranking_equals_the_measures(lab: Path, tmp_path: Path, by: str, suffix: str) -> None:
    image, text = gaussians(lab, "image"), gaussians(lab, "text")
    expected = {
        "image": image.total_var,
        "text": text.total_var,
        "inclusion": inclusion_score(image, text).sum(1),
        "csd": csd(image, text).diagonal(),
    }[by]
    out = tmp_path / f"ranking{suffix}"
    told = run_rank(RankOptions(embeddings=lab / "out", by=by, out=out, show=2))  # type: ignore[arg-type]
    chunks = list(read_ranking(out))
    scores = np.concatenate([chunk.scores for chunk in chunks])
    np.testing.assert_allclose(scores, expected.numpy(), rtol=1e-4, atol=1e-5)
    ranks = np.concatenate([chunk.ranks for chunk in chunks])
    assert sorted(ranks.tolist()) == list(range(1, 15))
    by_rank = scores[np.argsort(ranks)]
    assert np.all(np.diff(by_rank) <= 0 if by == "inclusion" else np.diff(by_rank) >= 0)
    assert [key for chunk in chunks for key in chunk.keys] == [f"k{n}" for size in SIZES for n in range(size)]
    assert list(dict.fromkeys(source for chunk in chunks for source in chunk.sources)) == list(map(str, shards(lab)))
    assert told[0].endswith("14 samples ranked")
    assert [line.split()[0] for line in told if line.startswith("   ")] == ["1", "2", "14", "13"]


def test_the_contact_sheet_shows_both_ends_of_the_ranking(
    lab: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["data", "rank", "--embeddings", str(lab / "out"), "--by", "inclusion", "--show", "3"]
    sheet = tmp_path / "new" / "sheet.html"
    assert main([*words, "--out", str(tmp_path / "r.csv"), "--sheet", str(sheet)]) == 0
    page = sheet.read_text()
    assert page.count("data:image/jpeg") == 6
    assert page.count("<blockquote>") == 6
    assert "images that lie deepest inside their captions" in page
    assert "images that lie least inside their captions:" in capsys.readouterr().out


def test_the_sheet_does_not_replace_the_ranking(tmp_path: Path) -> None:
    options = RankOptions(embeddings=tmp_path, out=tmp_path / "ranking.csv", sheet=tmp_path / "ranking.csv")
    with pytest.raises(UserError, match=r"ranking\.csv: it must be another file than out, the ranking"):
        run_rank(options)


@pytest.mark.parametrize("which", ["out", "sheet"])
def test_what_cannot_be_written_is_said_before_anything_is_read(which: str, tmp_path: Path) -> None:
    files = {"out": tmp_path / "ranking.csv", "sheet": tmp_path / "sheet.html"}
    files[which].mkdir()
    with pytest.raises(IsADirectoryError, match=files[which].name):
        run_rank(RankOptions(embeddings=tmp_path / "absent", **files))
    assert [path.name for path in tmp_path.iterdir()] == [files[which].name]


def test_equal_scores_keep_the_order_of_the_data(tmp_path: Path) -> None:
    # Enough of them that an unstable sort would not.
    values = [float(2 ** (place % 3)) for place in range(300)]
    write_parts(tmp_path / "out", values, 70)
    told = run_rank(RankOptions(embeddings=tmp_path / "out", out=tmp_path / "ranking.csv", show=2))
    ranks = np.concatenate([chunk.ranks for chunk in read_ranking(tmp_path / "ranking.csv")])
    expected = [place for value in (0, 1, 2) for place in range(value, 300, 3)]
    assert (np.argsort(ranks) == expected).all()
    assert [line.split()[2] for line in told if line.startswith("   ")] == ["k0", "k3", "k299", "k296"]


def test_a_long_table_is_read_row_by_row_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ranking = rank_numbered(tmp_path, 9)
    monkeypatch.setattr("prolip.embeddings.rank.ROWS", 4)
    assert [chunk.keys for chunk in read_ranking(ranking)] == [
        [f"k{place}" for place in rows] for rows in (range(4), range(4, 8), range(8, 9))
    ]


def test_a_ranking_of_pairs_needs_pairs(lab: Path, tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_text("a picture\n")
    words = ["embed", "--checkpoint", str(lab / "run"), "--device", "cpu", "--out", str(tmp_path / "out")]
    assert main([*words, "--shards", str(shards(lab)[0]), "--lines", str(tmp_path / "lines.txt")]) == 0
    with pytest.raises(ValueError, match="holds images and captions, but not of the same samples"):
        run_rank(RankOptions(embeddings=tmp_path / "out", by="csd", out=tmp_path / "ranking.csv"))


def test_a_ranking_needs_a_known_name_and_both_kinds(lab: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a ranking is a \.parquet or a \.csv file"):
        run_rank(RankOptions(embeddings=lab / "out", out=tmp_path / "ranking.txt"))
    alone = tmp_path / "alone"
    words = ["embed", "--checkpoint", str(lab / "run"), "--device", "cpu", "--out", str(alone), "--shards"]
    assert main([*words, str(shards(lab)[0])]) == 0
    for by, instead in (("inclusion", "embed with --what both"), ("text", "rank them with --by image")):
        with pytest.raises(ValueError, match=f"holds image embeddings, no text embeddings: {instead}"):
            run_rank(RankOptions(embeddings=alone, by=by, out=tmp_path / "ranking.csv"))
