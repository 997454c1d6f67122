"""`prolip data filter`: copies with the shards' bytes."""

from __future__ import annotations

import csv
import io
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.ranked_shards import rank_numbered, shards
from tests.support.shards import read_tar, write_tar

from prolip.cli import main
from prolip.data import DataError
from prolip.embeddings.config import FilterOptions, RankOptions
from prolip.embeddings.filter import copy_samples, run_filter
from prolip.embeddings.rank import read_ranking, run_rank
from prolip.errors import UserError


def copied(folder: Path) -> list[str]:
    return [name for path in folder.rglob("*.tar") for name, _ in read_tar(path)]


@pytest.mark.parametrize(("share", "kept"), [(0.29, 29), (0.57, 57), (0.999, 99), (1.0, 100), (0.019, 1)])
def test_keep_share_is_exact_for_decimal_shares(tmp_path: Path, share: float, kept: int) -> None:
    ranking = rank_numbered(tmp_path, 100)
    told = run_filter(FilterOptions(ranking=ranking, out=tmp_path / "copy", keep_share=share))
    assert f"{kept} of 100 ranked samples kept" in told[0]
    assert copied(tmp_path / "copy") == [f"k{place}.txt" for place in range(kept)]


@pytest.mark.parametrize("rules", [{"keep_share": 0.005}, {"min_score": 1e9}, {"max_score": -1e9}])
def test_rules_that_keep_nothing_are_an_error(tmp_path: Path, rules: dict[str, float]) -> None:
    ranking = rank_numbered(tmp_path, 100)
    with pytest.raises(UserError, match=r"the rules keep none of the 100 samples of .*ranking"):
        run_filter(FilterOptions(ranking=ranking, out=tmp_path / "copy", **rules))
    run_filter(FilterOptions(ranking=ranking, out=tmp_path / "copy", keep_count=1))  # the folder is free for others
    assert copied(tmp_path / "copy") == ["k0.txt"]


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


def test_a_copy_has_the_kept_samples_of_each_shard(lab: Path, tmp_path: Path) -> None:
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


def test_a_stopped_copy_resumes(lab: Path, tmp_path: Path) -> None:
    ranking, out = tmp_path / "ranking.csv", tmp_path / "copy"
    run_rank(RankOptions(embeddings=lab / "out", out=ranking, by="text"))
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


def test_only_the_chosen_shards_are_copied(lab: Path, tmp_path: Path) -> None:
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
        (["--min_score", "1", "--max_score", "0"], "min_score is 1.0: it must be at most max_score, which is 0.0"),
        (["--max_score", "nan"], "max_score is nan: it must be a number"),
        (["--keep_count", "1", "--ranking", "sorted.csv"], "are not contiguous"),
        (["--keep_count", "1", "--ranking", "other.csv"], "is not a ranking by"),
        (["--keep_count", "1", "--ranking", "empty.csv"], "its columns are not key, source, score, rank"),
        (["--keep_count", "1", "--ranking", "cut.csv"], "is not a ranking by"),
        (
            ["--keep_count", "1", "--ranking", "absent.csv"],
            "ranking: there is no absent.csv: prolip data rank writes one",
        ),
        (["--keep_count", "1", "--ranking", "absent.parquet"], "ranking: there is no absent.parquet"),
        (["--keep_count", "1", "--ranking", "table.txt"], "a ranking is a .parquet or a .csv file"),
        (["--keep_count", "9", "--ranking", "gone.csv"], "is neither a file nor a folder nor an address"),
        (["--keep_count", "9", "--ranking", "lacking.csv"], "has no sample k77, which the ranking keeps"),
        (["--keep_count", "1", "--out", "."], "holds files, but no filter.json"),
        (["--keep_count", "1", "--out", "damaged"], "filter.json is damaged"),
    ],
)
def test_errors_of_filter_name_the_reason(
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
    Path("damaged").mkdir()
    Path("damaged/filter.json").write_text("{")
    assert main(["data", "filter", "--ranking", "good.csv", "--out", "out", *flags]) == 2
    assert message in capsys.readouterr().err


def test_tar_headers_are_copied_unchanged(tmp_path: Path) -> None:
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


def test_a_damaged_shard_is_named_and_not_copied(tmp_path: Path) -> None:
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
@settings(max_examples=40)
def test_any_choice_of_samples_is_copied_exactly(
    tmp_path_factory: pytest.TempPathFactory, members: list[tuple[int, int]], kept: set[int]
) -> None:
    folder = tmp_path_factory.mktemp("any")
    entries = [(f"k{key}.{place}", bytes([place]) * size) for place, (key, size) in enumerate(members)]
    write_tar(folder / "a.tar", entries)
    keys = {f"k{key}" for key, _ in members if key in kept}
    copy_samples(folder / "a.tar", keys, folder / "b.tar")
    assert read_tar(folder / "b.tar") == [entry for entry in entries if entry[0].split(".")[0] in keys]
    shutil.rmtree(folder)


# ---- folders of images ----------------------------------------------------------------------------------------------


def ranked_folder(tmp_path: Path, *keys: str) -> tuple[Path, Path]:
    """A folder of images with captions, as `prolip embed --images` names them, and its ranking."""
    photos = tmp_path / "photos"
    rows = ["key,source,score,rank"]
    for rank, key in enumerate(keys, start=1):
        file = photos / key
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(f"image {key}".encode())
        if rank % 2:
            file.with_suffix(".txt").write_text(f"caption {key}")
        rows.append(f"{key},{photos},{rank}.0,{rank}")
    (tmp_path / "ranking.csv").write_text("\n".join(rows) + "\n")
    return photos, tmp_path / "ranking.csv"


def test_kept_images_of_a_folder_are_copied_with_their_captions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos, ranking = ranked_folder(tmp_path, "foxes/1.png", "foxes/2.png", "lions/1.png", "4.png")
    out = tmp_path / "copy"
    words = ["data", "filter", "--ranking", str(ranking), "--keep_count", "3", "--out", str(out)]
    assert main(words) == 0
    said = capsys.readouterr().out.splitlines()
    assert "3 of 4 ranked samples kept" in said[0]
    assert "3 images copied now" in said[0]
    assert said[-1] == f"wrote {out}; next: prolip data build folder --images {out} --captions text --out FOLDER"
    names = ["foxes/1.png", "foxes/1.txt", "foxes/2.png", "lions/1.png", "lions/1.txt"]
    assert sorted(str(path.relative_to(out)) for path in out.rglob("*.*") if path.name != "filter.json") == names
    assert all((out / name).read_bytes() == (photos / name).read_bytes() for name in names)
    (out / "foxes" / "2.png").unlink()
    assert main(words) == 0
    assert "1 images copied now" in capsys.readouterr().out, "the rest was there"


@pytest.mark.parametrize(("key", "captions"), [("a_fox.png", " --captions name"), ("foxes/1.png", "")])
def test_the_suggested_next_command_fits_the_captions(
    key: str, captions: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos, ranking = ranked_folder(tmp_path, key)
    (photos / key).with_suffix(".txt").unlink()
    out = tmp_path / "copy"
    assert main(["data", "filter", "--ranking", str(ranking), "--keep_count", "1", "--out", str(out)]) == 0
    said = capsys.readouterr().out.splitlines()[-1]
    assert said == f"wrote {out}; next: prolip data build folder --images {out}{captions} --out FOLDER"


def test_folders_and_shards_are_copied_side_by_side(tmp_path: Path) -> None:
    _, ranking = ranked_folder(tmp_path, "1.png", "2.png")
    write_tar(tmp_path / "a.tar", [("k0.txt", b"0"), ("k1.txt", b"1")])
    with ranking.open("a") as file:
        file.write(f"k0,{tmp_path}/a.tar,3.0,3\nk1,{tmp_path}/a.tar,4.0,4\n")
    (told,) = run_filter(FilterOptions(ranking=ranking, out=tmp_path / "copy", keep_count=3))
    (only,) = run_filter(
        FilterOptions(ranking=ranking, out=tmp_path / "only", shards=(str(tmp_path / "photos"),), keep_count=3)
    )
    assert "2 images copied now" in only
    assert "2 images and 1 shards copied now" in told
    assert (tmp_path / "copy" / "photos" / "2.png").is_file()
    assert [name for name, _ in read_tar(tmp_path / "copy" / "a.tar")] == ["k0.txt"]


def test_a_folder_that_does_not_fit_its_ranking_is_named(tmp_path: Path) -> None:
    photos, ranking = ranked_folder(tmp_path, "1.png", "2.png")
    (photos / "2.png").unlink()
    with pytest.raises(DataError, match=r"photos: has no image 2\.png, which the ranking keeps"):
        run_filter(FilterOptions(ranking=ranking, out=tmp_path / "copy", keep_count=2))
    (tmp_path / "secret.png").write_bytes(b"x")
    ranking.write_text(f"key,source,score,rank\n../secret.png,{photos},1.0,1\n")
    with pytest.raises(UserError, match="leads out of that folder"):
        run_filter(FilterOptions(ranking=ranking, out=tmp_path / "other", keep_count=1))
    lines = tmp_path / "lines.txt"
    lines.write_text("a\n")
    ranking.write_text(f"key,source,score,rank\n0,{lines},1.0,1\n")
    with pytest.raises(UserError, match="is a text file: only shards and folders of images can be copied"):
        run_filter(FilterOptions(ranking=ranking, out=tmp_path / "third", keep_count=1))


def test_a_folder_into_which_nothing_was_copied_can_be_used_for_another_ranking(tmp_path: Path) -> None:
    photos, ranking = ranked_folder(tmp_path, "1.png", "2.png")
    wrong, out = tmp_path / "wrong.csv", tmp_path / "copy"
    wrong.write_text(f"key,source,score,rank\n0.png,{photos},1.0,1\n")
    with pytest.raises(DataError, match=r"photos: has no image 0\.png"):
        run_filter(FilterOptions(ranking=wrong, out=out, keep_count=1))
    run_filter(FilterOptions(ranking=ranking, out=out, keep_count=1))
    assert {path.name for path in out.iterdir()} == {"1.png", "1.txt", "filter.json"}
