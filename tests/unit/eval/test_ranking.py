"""`prolip data rank` and `prolip data filter`: the order that the measures say, and copies with the shards' bytes."""

from __future__ import annotations

import csv
import io
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.sample_run import write_run
from tests.unit.sample_shards import encoded, write_tar

from prolip.cli import main
from prolip.data import DataError
from prolip.embeddings.config import FilterOptions, RankOptions
from prolip.embeddings.filter import copy_samples, run_filter
from prolip.embeddings.rank import read_ranking, run_rank
from prolip.embeddings.storage import Manifest, PartNotes, Rows, complete_parts, write_part
from prolip.gaussian import Gaussian, csd, inclusion_score

SIZES = (5, 3, 6)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three shards with the same keys in two folders, embedded: pictures and captions."""
    folder = tmp_path_factory.mktemp("lab")
    write_run(folder / "run", folder / "tokenizer.json", context_length=8)
    words = ["food", "travel", "nature", "emoji", "picture", "animals"]
    for shard, size in enumerate(SIZES):
        members = [("__about__/note.txt", b"a note"), ("README", b"of no sample")]
        for number in range(size):
            members += [
                (f"k{number}.png", encoded((shard * 90, number * 40, 99))),
                (f"k{number}.txt", f"a {words[number]} of {words[shard]}".encode()),
                (f"k{number}.cls", bytes([number])),
            ]
        (folder / "data" / "ab"[shard % 2]).mkdir(parents=True, exist_ok=True)
        write_tar(folder / "data" / "ab"[shard % 2] / f"{shard}.tar", members)
    run = ["embed", "--checkpoint", str(folder / "run"), "--device", "cpu", "--what", "both"]
    assert main([*run, "--out", str(folder / "out"), "--data", *map(str, shards(folder))]) == 0
    return folder


def shards(lab: Path) -> list[Path]:
    return [lab / "data" / "ab"[shard % 2] / f"{shard}.tar" for shard in range(3)]


def gaussians(lab: Path, kind: str) -> Gaussian:
    blocks = [block for part in complete_parts(lab / "out", kind)[1] for block in part.blocks(log_var=True)]  # type: ignore[arg-type]
    return Gaussian(
        torch.tensor(np.concatenate([block.mean for block in blocks])),
        torch.tensor(np.concatenate([block.log_var for block in blocks])),  # type: ignore[misc]
    )


@pytest.mark.parametrize("by", ["image", "caption", "inclusion", "csd"])
@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_a_ranking_is_what_the_measures_say(lab: Path, tmp_path: Path, by: str, suffix: str) -> None:
    image, text = gaussians(lab, "image"), gaussians(lab, "text")
    expected = {
        "image": image.total_var,
        "caption": text.total_var,
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


def test_the_sheet_shows_both_ends(lab: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["data", "rank", "--embeddings", str(lab / "out"), "--by", "inclusion", "--show", "3"]
    sheet = tmp_path / "new" / "sheet.html"
    assert main([*words, "--out", str(tmp_path / "r.csv"), "--sheet", str(sheet)]) == 0
    page = sheet.read_text()
    assert page.count("data:image/jpeg") == 6
    assert page.count("<blockquote>") == 6
    assert "images that lie deepest inside their captions" in page
    assert "pictures that lie least in their captions:" in capsys.readouterr().out


def write_parts(folder: Path, total_vars: list[float], per_part: int) -> None:
    """Embeddings of pictures with given uncertainties, one dimension, in parts."""
    folder.mkdir()
    files = []
    for number, start in enumerate(range(0, len(total_vars), per_part)):
        some = np.array(total_vars[start : start + per_part], np.float32)[:, None]
        keys = [f"k{start + place}" for place in range(len(some))]
        rows = Rows(keys, [f"{number}.tar"] * len(keys), np.ones_like(some), np.log(some))
        notes = PartNotes(number=number, kind="image", rows=len(keys))
        files.append(write_part(folder, rows, notes, "safetensors", "float32").name)
    made_of: dict[str, Any] = {"checkpoint": "x", "weights": "", "tokenizer": None, "model": {}, "settings": {}}
    Manifest(
        **made_of, dim=1, format="safetensors", dtype="float32", plan=[], complete=True, parts=files
    ).write(folder)  # fmt: skip


def test_equal_scores_keep_the_order_of_the_data(tmp_path: Path) -> None:
    # Enough of them that an unstable sort would not.
    values = [float(2 ** (place % 3)) for place in range(300)]
    write_parts(tmp_path / "out", values, 70)
    told = run_rank(RankOptions(embeddings=tmp_path / "out", out=tmp_path / "ranking.csv", show=2))
    ranks = np.concatenate([chunk.ranks for chunk in read_ranking(tmp_path / "ranking.csv")])
    expected = [place for value in (0, 1, 2) for place in range(value, 300, 3)]
    assert (np.argsort(ranks) == expected).all()
    assert [line.split()[2] for line in told if line.startswith("   ")] == ["k0", "k3", "k299", "k296"]


def rank_numbered(folder: Path, count: int) -> Path:
    """A ranking of the samples k0, k1, … of one shard, whose scores are 1, 2, …"""
    write_parts(folder / "out", [float(place + 1) for place in range(count)], count)
    ranking = folder / "ranking.csv"
    run_rank(RankOptions(embeddings=folder / "out", out=ranking))
    write_tar(folder / "0.tar", [(f"k{place}.txt", b"") for place in range(count)])
    ranking.write_text(ranking.read_text().replace("0.tar", str(folder / "0.tar")))
    return ranking


def copied(folder: Path) -> list[str]:
    return [name for path in folder.rglob("*.tar") for name, _ in read_tar(path)]


@pytest.mark.parametrize(("share", "kept"), [(0.29, 29), (0.57, 57), (0.999, 99), (1.0, 100), (0.005, 0)])
def test_a_share_is_kept_as_it_is_written(tmp_path: Path, share: float, kept: int) -> None:
    ranking = rank_numbered(tmp_path, 100)
    told = run_filter(FilterOptions(ranking=ranking, out=tmp_path / "copy", keep_share=share))
    assert f"{kept} of 100 ranked samples kept" in told[0]
    assert copied(tmp_path / "copy") == [f"k{place}.txt" for place in range(kept)]


@pytest.mark.parametrize(
    ("rules", "kept"),
    [
        ({"min_score": 3.0}, range(2, 9)),
        ({"max_score": 3.0}, range(3)),
        ({"min_score": 3.0, "max_score": 5.0}, range(2, 5)),
        ({"min_score": 3.0, "keep_count": 4}, range(2, 4)),
    ],
)
def test_scores_at_a_bound_are_kept(tmp_path: Path, rules: dict[str, Any], kept: range) -> None:
    ranking = rank_numbered(tmp_path, 9)
    scores = np.concatenate([chunk.scores for chunk in read_ranking(ranking)])
    exact = {name: float(scores[int(value) - 1]) if name.endswith("score") else value for name, value in rules.items()}
    run_filter(FilterOptions(ranking=ranking, out=tmp_path / "copy", **exact))
    assert copied(tmp_path / "copy") == [f"k{place}.txt" for place in kept]


def test_a_long_table_is_read_row_by_row_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ranking = rank_numbered(tmp_path, 9)
    monkeypatch.setattr("prolip.embeddings.rank.ROWS", 4)
    assert [chunk.keys for chunk in read_ranking(ranking)] == [
        [f"k{place}" for place in rows] for rows in (range(4), range(4, 8), range(8, 9))
    ]


def test_a_ranking_of_pairs_needs_pairs(lab: Path, tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_text("a picture\n")
    words = ["embed", "--checkpoint", str(lab / "run"), "--device", "cpu", "--out", str(tmp_path / "out")]
    assert main([*words, "--data", str(shards(lab)[0]), "--lines", str(tmp_path / "lines.txt")]) == 0
    with pytest.raises(
        ValueError, match="holds images and captions, but not of the same samples: embed with --what both"
    ):
        run_rank(RankOptions(embeddings=tmp_path / "out", by="csd", out=tmp_path / "ranking.csv"))


def read_tar(path: Path) -> list[tuple[str, bytes]]:
    with tarfile.open(path) as archive:
        return [(member.name, archive.extractfile(member).read()) for member in archive]  # type: ignore[union-attr]


def test_a_copy_holds_what_the_ranking_keeps_of_each_shard(lab: Path, tmp_path: Path) -> None:
    ranking = tmp_path / "ranking.csv"
    run_rank(RankOptions(embeddings=lab / "out", out=ranking))
    with ranking.open(newline="") as file:
        rows = list(csv.DictReader(file))
    kept = {(row["source"], row["key"]) for row in rows if int(row["rank"]) <= 7}
    out = tmp_path / "copy"
    told = run_filter(FilterOptions(ranking=ranking, out=out, keep_share=0.5))
    assert "7 of 14 ranked samples kept" in told[0]
    for shard in shards(lab):
        before = read_tar(shard)
        after = [
            entry
            for entry in before
            if entry[0] in {"__about__/note.txt", "README"} or (str(shard), entry[0].split(".")[0]) in kept
        ]
        copy = out / shard.parent.name / shard.name
        if not any(source == str(shard) for source, _ in kept):
            assert not copy.exists()
            continue
        assert read_tar(copy) == after, "order and contents"
        assert copy.read_bytes().count(b"ustar") == len(after)
    # By scores the same samples, by the Parquet table too.
    last = max(float(row["score"]) for row in rows if int(row["rank"]) <= 7)
    run_rank(RankOptions(embeddings=lab / "out", out=tmp_path / "ranking.parquet"))
    again = tmp_path / "again"
    run_filter(FilterOptions(ranking=tmp_path / "ranking.parquet", out=again, max_score=last))
    copies = [path.relative_to(out) for path in out.rglob("*.tar")]
    assert len(copies) > 1
    assert all((again / path).read_bytes() == (out / path).read_bytes() for path in copies)


def test_a_copy_goes_on_where_it_stopped(lab: Path, tmp_path: Path) -> None:
    ranking, out = tmp_path / "ranking.csv", tmp_path / "copy"
    run_rank(RankOptions(embeddings=lab / "out", out=ranking, by="caption"))
    options = FilterOptions(ranking=ranking, out=out, keep_count=13)
    data = lab / "data" / "b" / "1.tar"
    whole = data.read_bytes()
    try:
        for length, message in ((2900, "truncated in sample k0"), (2560, "damaged header|truncated")):
            data.write_bytes(whole[:length])
            with pytest.raises(DataError, match=rf"1\.tar: .*({message})"):
                run_filter(options)
    finally:
        data.write_bytes(whole)
    assert {path.name for path in out.rglob("*.*")} == {"filter.json", "0.tar"}, "nothing half"
    time = (out / "a" / "0.tar").stat().st_mtime_ns
    assert "2 shards copied now" in run_filter(options)[0]
    assert (out / "a" / "0.tar").stat().st_mtime_ns == time
    assert "0 shards copied now" in run_filter(options)[0]
    with pytest.raises(ValueError, match="holds a copy by another ranking, rule or choice"):
        run_filter(FilterOptions(ranking=ranking, out=out, keep_count=12))
    ranking.write_text(ranking.read_text() + "\n")
    with pytest.raises(ValueError, match="holds a copy by another ranking, rule or choice"):
        run_filter(options)


def test_some_of_the_shards_only(lab: Path, tmp_path: Path) -> None:
    ranking = tmp_path / "ranking.csv"
    run_rank(RankOptions(embeddings=lab / "out", out=ranking))
    one = str(shards(lab)[2])
    told = run_filter(FilterOptions(ranking=ranking, out=tmp_path / "copy", shards=(one,), min_score=0.0))
    assert "6 of 14 ranked samples kept" in told[0]
    assert [path.name for path in (tmp_path / "copy").rglob("*.tar")] == ["2.tar"]
    (tmp_path / "other.tar").write_bytes(b"")
    with pytest.raises(ValueError, match=r"other\.tar is not in .*ranking\.csv"):
        run_filter(
            FilterOptions(ranking=ranking, out=tmp_path / "x", shards=(str(tmp_path / "other.tar"),), keep_count=1)
        )


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "no rule says what to keep"),
        (["--keep_count", "0"], "keep_count is 0: it must be at least 1"),
        (["--keep_share", "1.5"], "keep_share is 1.5: it must be above 0 and at most 1"),
        (["--keep_count", "1", "--ranking", "sorted.csv"], "are not contiguous"),
        (["--keep_count", "1", "--ranking", "other.csv"], "is not a ranking by"),
        (["--keep_count", "1", "--ranking", "empty.csv"], "its columns are not key, source, score, rank"),
        (["--keep_count", "1", "--ranking", "cut.csv"], "is not a ranking by"),
        (["--keep_count", "1", "--ranking", "absent.csv"], "is not a ranking by"),
        (["--keep_count", "1", "--ranking", "absent.parquet"], "is not a ranking by"),
        (["--keep_count", "1", "--ranking", "table.txt"], "a ranking is a .parquet or a .csv file"),
        (["--keep_count", "9", "--ranking", "gone.csv"], "is no file and no address: only shards can be copied"),
        (["--keep_count", "9", "--ranking", "lacking.csv"], "has no sample k77, which the ranking keeps"),
        (["--keep_count", "1", "--out", "."], "holds files, but no filter.json"),
    ],
)
def test_what_cannot_be_filtered_is_said(
    lab: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    head, shard = "key,source,score,rank\n", str(shards(lab)[0])
    Path("good.csv").write_text(f"{head}k0,{shard},1.0,1\n")
    Path("sorted.csv").write_text(f"{head}k0,{shard},1.0,1\nk0,b.tar,2.0,2\nk1,{shard},3.0,3\n")
    Path("other.csv").write_text("a,b\n1,2\n")
    Path("empty.csv").write_text("")
    Path("cut.csv").write_text(f"{head}k0,{shard},1.0,1\nk1,{shard}")
    Path("gone.csv").write_text(f"{head}k0,gone.tar,1.0,1\n")
    Path("lacking.csv").write_text(f"{head}k77,{shard},1.0,1\n")
    assert main(["data", "filter", "--ranking", "good.csv", "--out", "out", *flags]) == 2
    assert message in capsys.readouterr().err


def test_a_ranking_needs_a_known_name_and_both_kinds(lab: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a ranking is a \.parquet or a \.csv file"):
        run_rank(RankOptions(embeddings=lab / "out", out=tmp_path / "ranking.txt"))
    alone = tmp_path / "alone"
    words = ["embed", "--checkpoint", str(lab / "run"), "--device", "cpu", "--out", str(alone), "--data"]
    assert main([*words, str(shards(lab)[0])]) == 0
    with pytest.raises(ValueError, match="holds image embeddings, no text embeddings"):
        run_rank(RankOptions(embeddings=alone, by="inclusion", out=tmp_path / "ranking.csv"))


def test_headers_of_long_names_and_of_all_members_stay(tmp_path: Path) -> None:
    long = "a/" * 70 + "k"
    names = [f"{long}{number}.{extension}" for number in range(3) for extension in ("png", "txt")]
    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        shard, copy = tmp_path / f"{form}.tar", tmp_path / f"{form}.copy.tar"
        with tarfile.open(shard, "w", format=form, pax_headers={"comment": "of all"}) as archive:
            for name in names:
                entry = tarfile.TarInfo(name)
                entry.size, entry.mtime, entry.uname = 700, 12345, "somebody"
                archive.addfile(entry, io.BytesIO(name[-5:].encode() * 140))
        copy_samples(shard, {f"{long}1"}, copy)
        assert [name for name, _ in read_tar(copy)] == names[2:4]
        with tarfile.open(shard) as before, tarfile.open(copy) as after:
            infos = [after.getmember(name).get_info() for name in names[2:4]]
            assert infos == [before.getmember(name).get_info() for name in names[2:4]]
            assert after.pax_headers == before.pax_headers
        copy_samples(shard, {f"{long}{number}" for number in range(3)}, copy)
        length = copy.stat().st_size
        assert copy.read_bytes() == shard.read_bytes()[:length], "all that is kept is the shard itself"


def test_damage_is_found_and_named(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", [(f"k{number}.txt", bytes([65 + number]) * 600) for number in range(4)])
    data = bytearray((tmp_path / "a.tar").read_bytes())
    data[2 * 1536 + 150] ^= 1  # the checksum of the third header
    (tmp_path / "b.tar").write_bytes(data)
    with pytest.raises(DataError, match=r"b\.tar: damaged header at byte 3072, after sample k1"):
        copy_samples(tmp_path / "b.tar", {"k0"}, tmp_path / "out.tar")
    (tmp_path / "c.tar").write_bytes(b"no archive" * 200)
    with pytest.raises(DataError, match=r"c\.tar: not a plain tar file"):
        copy_samples(tmp_path / "c.tar", {"k0"}, tmp_path / "out.tar")
    assert not (tmp_path / "out.tar").exists()
    assert not list(tmp_path.glob(".*"))


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 1300)), max_size=12), st.sets(st.integers(0, 6)))
@settings(max_examples=40, deadline=None)
def test_any_choice_of_any_shard(
    tmp_path_factory: pytest.TempPathFactory, members: list[tuple[int, int]], kept: set[int]
) -> None:
    folder = tmp_path_factory.mktemp("any")
    entries = [(f"k{key}.{place}", bytes([place]) * size) for place, (key, size) in enumerate(members)]
    write_tar(folder / "a.tar", entries)
    keys = {f"k{key}" for key, _ in members if key in kept}
    copy_samples(folder / "a.tar", keys, folder / "b.tar")
    assert read_tar(folder / "b.tar") == [entry for entry in entries if entry[0].split(".")[0] in keys]
    shutil.rmtree(folder)
