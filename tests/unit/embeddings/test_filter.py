"""`prolip data filter`: copies with the shards' bytes."""

from __future__ import annotations

import io
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st
from tests.support.ranked_shards import rank_numbered, shards
from tests.support.refusals import refusal_of
from tests.support.shards import read_tar, write_tar

from prolip.cli import main
from prolip.data import BatchLoader, DataError, LoaderConfig
from prolip.embeddings.config import FilterOptions, RankOptions
from prolip.embeddings.filter import copy_samples, run_filter
from prolip.embeddings.rank import read_ranking, run_rank

HEAD = "key,source,score,rank\n"


def copied(folder: Path) -> list[str]:
    return [name for path in folder.rglob("*.tar") for name, _ in read_tar(path)]


@pytest.mark.parametrize(("share", "kept"), [(0.29, 29), (0.57, 57), (0.999, 99), (1.0, 100), (0.019, 1)])
def test_keep_share_is_exact_for_decimal_shares(tmp_path: Path, share: float, kept: int) -> None:
    ranking = rank_numbered(tmp_path, 100)
    run_filter(FilterOptions(ranking=ranking, out=tmp_path / "copy", keep_share=share))
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
    scores = read_ranking(ranking)["score"].to_numpy()
    exact = {name: float(scores[int(value) - 1]) if name.endswith("score") else value for name, value in rules.items()}
    run_filter(FilterOptions(ranking=ranking, out=tmp_path / "copy", **exact))
    assert copied(tmp_path / "copy") == [f"k{place}.txt" for place in kept]


def test_a_copy_has_the_kept_samples_of_each_shard(lab: Path, tmp_path: Path) -> None:
    ranking, out = tmp_path / "ranking.csv", tmp_path / "copy"
    run_rank(RankOptions(embeddings=lab / "out", out=ranking))
    kept = {(row["source"], row["key"]) for row in read_ranking(ranking).to_pylist() if row["rank"] <= 7}
    assert "7 of 14 ranked samples kept" in run_filter(FilterOptions(ranking=ranking, out=out, keep_share=0.5))[0]
    for shard in shards(lab):
        copy = out / shard.parent.name / shard.name
        if not any(source == str(shard) for source, _ in kept):
            assert not copy.exists()
            continue
        others = {"__about__/note.txt", "README"}
        expected = [
            entry for entry in read_tar(shard) if entry[0] in others or (str(shard), entry[0].split(".")[0]) in kept
        ]
        assert read_tar(copy) == expected, "order and contents"
        assert copy.read_bytes().count(b"ustar") == len(expected)
    one = FilterOptions(ranking=ranking, out=tmp_path / "one", shards=(str(shards(lab)[2]),), min_score=0.0)
    assert "6 of 14 ranked samples kept" in run_filter(one)[0]
    assert [path.name for path in (tmp_path / "one").rglob("*.tar")] == ["2.tar"]


def test_a_stopped_copy_resumes_and_rules_are_not_mixed(lab: Path, tmp_path: Path) -> None:
    ranking, out = tmp_path / "ranking.csv", tmp_path / "copy"
    run_rank(RankOptions(embeddings=lab / "out", out=ranking, by="text"))
    options = FilterOptions(ranking=ranking, out=out, keep_count=13)
    data = shards(lab)[1]
    whole = data.read_bytes()
    try:
        for length in (2900, 2560):
            data.write_bytes(whole[:length])
            with pytest.raises(DataError, match=r"1\.tar"):
                run_filter(options)
    finally:
        data.write_bytes(whole)
    assert {path.name for path in out.rglob("*.*")} == {"filter.json", "0.tar"}, "nothing half"
    time = (out / "a" / "0.tar").stat().st_mtime_ns
    assert "2 shards copied now" in run_filter(options)[0]
    assert (out / "a" / "0.tar").stat().st_mtime_ns == time
    assert "nothing copied now" in run_filter(options)[0]
    with refusal_of("out"):
        run_filter(FilterOptions(ranking=ranking, out=out, keep_count=12))


@pytest.mark.parametrize(
    ("flags", "table", "field"),
    [
        ({}, "k0,{shard},1.0,1", "keep_share"),
        ({"keep_count": 0}, "k0,{shard},1.0,1", "keep_count"),
        ({"keep_share": 1.5}, "k0,{shard},1.0,1", "keep_share"),
        ({"min_score": 1.0, "max_score": 0.0}, "k0,{shard},1.0,1", "ranking"),
        ({"min_score": 9.0}, "k0,{shard},1.0,1", "ranking"),
        ({"keep_count": 1}, "k0,{shard},1.0,1\nk1,{shard}", "ranking"),
        ({"keep_count": 1}, "k0,{shard},high,1", "ranking"),
        ({"keep_count": 1, "ranking": Path("absent.csv")}, "", "ranking"),
        ({"keep_count": 1, "shards": ("lines.txt",)}, "k0,{shard},1.0,1", "shards"),
        ({"keep_count": 1, "out": Path()}, "k0,{shard},1.0,1", "out"),
        ({"keep_count": 1}, "../lines.txt,{lab}/data,1.0,1", "key"),
    ],
)
def test_what_cannot_be_kept_is_named(
    lab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: dict[str, Any], table: str, field: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("lines.txt").write_text("a\n")
    Path("table.csv").write_text(f"{HEAD}{table.format(lab=lab, shard=shards(lab)[0])}\n")
    with refusal_of(field):
        run_filter(FilterOptions(**({"ranking": Path("table.csv"), "out": Path("out")} | flags)))


def test_a_sample_or_an_image_that_is_missing_is_named(lab: Path, tmp_path: Path) -> None:
    for source in (shards(lab)[0], lab / "images"):
        (tmp_path / "table.csv").write_text(f"{HEAD}k77,{source},1.0,1\n")
        with pytest.raises(DataError, match="k77"):
            run_filter(FilterOptions(ranking=tmp_path / "table.csv", out=tmp_path / source.name, keep_count=1))


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
        with tarfile.open(shard) as before, tarfile.open(copy) as after:
            assert after.getnames() == names[2:4]
            infos = [after.getmember(name).get_info() for name in names[2:4]]
            assert infos == [before.getmember(name).get_info() for name in names[2:4]]
            assert after.pax_headers == before.pax_headers
        copy_samples(shard, {f"{long}{number}" for number in range(3)}, copy)
        length = copy.stat().st_size
        assert copy.read_bytes() == shard.read_bytes()[:length], "all that is kept is the shard itself"


def test_a_file_that_is_no_shard_is_named_and_not_copied(tmp_path: Path) -> None:
    (tmp_path / "c.tar").write_bytes(b"no archive" * 200)
    with pytest.raises(DataError, match=r"c\.tar"):
        copy_samples(tmp_path / "c.tar", {"k0"}, tmp_path / "out.tar")
    assert [path.name for path in tmp_path.iterdir()] == ["c.tar"]


NAMES = ["k", "a.b", "a/.png", "a/k", "x\n/y", "caf\udce9", "__meta__/k", ".hidden", "none"]


@given(st.lists(st.tuples(st.sampled_from(NAMES), st.integers(0, 1300)), max_size=9), st.data())
@settings(max_examples=40)
def test_samples_of_the_loaders_keys_are_copied_exactly(
    tmp_path_factory: pytest.TempPathFactory, members: list[tuple[str, int]], data: st.DataObject
) -> None:
    """Odd names too: the keys of the copy are those of the loader that were kept."""

    def keys(path: Path) -> list[str]:
        reading = LoaderConfig(
            shards=(str(path),), batch_size=9, image_size=0, captions=(), shuffle_window=0, last_batch="keep",
            keep_members=("cls",), max_bad_fraction=1.0,
        )  # fmt: skip
        with BatchLoader(reading) as loader:
            return [key for batch in loader for key in batch.keys]

    folder = tmp_path_factory.mktemp("any")
    # A loader's sample has an image; the first makes sure that there is one.
    entries = [
        ("first.png", b"0"),
        *((f"{name}{place}.png", bytes(size)) for place, (name, size) in enumerate(members)),
    ]
    write_tar(folder / "a.tar", entries)
    found = keys(folder / "a.tar")
    kept = {"first", *data.draw(st.sets(st.sampled_from(found)))}
    copy_samples(folder / "a.tar", kept, folder / "b.tar")
    assert keys(folder / "b.tar") == [key for key in found if key in kept]
    shutil.rmtree(folder)


# ---- Folders of images ----------------------------------------------------------------------------------------------


def test_kept_images_of_a_folder_are_copied_with_their_captions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos, ranking, out = tmp_path / "photos", tmp_path / "ranking.csv", tmp_path / "copy"
    rows = []
    for rank, key in enumerate(("foxes/1.png", "foxes/2.png", "lions/1.png", "4.png"), start=1):
        file = photos / key
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(f"image {key}".encode())
        if rank % 2:
            file.with_suffix(".txt").write_text(f"caption {key}")
        rows.append(f"{key},{photos},{rank}.0,{rank}\n")
    write_tar(tmp_path / "a.tar", [("k0.txt", b"0"), ("k1.txt", b"1")])
    rows += [f"k{number},{tmp_path / 'a.tar'},{number + 5}.0,{number + 5}\n" for number in range(2)]
    ranking.write_text(HEAD + "".join(rows))
    words = ["data", "filter", "--ranking", str(ranking), "--keep_count", "3", "--out", str(out)]
    assert main([*words, "--shards", str(photos)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert "3 of 6 ranked samples kept; 3 images copied now" in said[0]
    names = ["foxes/1.png", "foxes/1.txt", "foxes/2.png", "lions/1.png", "lions/1.txt"]
    assert sorted(str(path.relative_to(out)) for path in out.rglob("*.*") if path.name != "filter.json") == names
    assert all((out / name).read_bytes() == (photos / name).read_bytes() for name in names)
    (out / "foxes" / "2.png").unlink()
    assert main([*words, "--shards", str(photos)]) == 0
    assert "1 images copied now" in capsys.readouterr().out, "the rest was there"
    both = FilterOptions(ranking=ranking, out=tmp_path / "both", keep_count=5)
    assert "1 shards and 4 images copied now" in run_filter(both)[0]
    assert (tmp_path / "both" / "photos" / "4.png").is_file()
    assert [name for name, _ in read_tar(tmp_path / "both" / "a.tar")] == ["k0.txt"]
