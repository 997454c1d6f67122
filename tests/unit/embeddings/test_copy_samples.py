"""`prolip data copy`: copies with the shards' bytes."""

import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings, strategies as st
from tests.support.embed_options import options
from tests.support.ranked_shards import select, shards
from tests.support.refusals import refusal_of
from tests.support.shards import read_tar, write_tar

from prolip.cli import main
from prolip.data import BatchLoader, DataError, LoaderConfig, StoreConfig, shard_regions
from prolip.embeddings.config import CopyOptions
from prolip.embeddings.copy_samples import copy_samples, run_copy
from prolip.embeddings.embed import run_embed
from prolip.store.selection import _SCHEMA, Chosen, read_selection, write_selection


def test_a_copy_has_the_chosen_samples_of_each_shard(lab, tmp_path):
    chosen, out = select(lab / "out", tmp_path / "chosen", by="text", keep_share=0.8), tmp_path / "copy"
    assert "11 chosen samples; " in run_copy(CopyOptions(selection=str(chosen), out=out))[0]
    rows = {one.source: one.rows.tolist() for one in read_selection(chosen)}
    for shard in shards(lab):
        copy = out / shard.parent.name / shard.name
        assert copy.exists() == (str(shard) in rows)
        names = {"__about__/note.txt", "README"}
        names |= {f"k{row}.{kind}" for row in rows.get(str(shard), []) for kind in ("png", "txt", "json")}
        if copy.exists():
            assert read_tar(copy) == [entry for entry in read_tar(shard) if entry[0] in names], "order and contents"
            assert copy.read_bytes().count(b"ustar") == len(names)
    one = CopyOptions(selection=str(chosen), out=tmp_path / "one", shards=(next(iter(rows)),))
    assert f"{len(rows[one.shards[0]])} chosen samples; 1 shards copied" in run_copy(one)[0]


def test_a_stopped_copy_resumes_and_selections_are_not_mixed(lab, tmp_path):
    chosen, out = select(lab / "out", tmp_path / "chosen", by="text", keep_count=13), tmp_path / "copy"
    copying = CopyOptions(selection=str(chosen), out=out)
    data = shards(lab)[1]
    whole = data.read_bytes()
    try:
        for changed in (whole[:2900], b"no archive" * 200, shards(lab)[2].read_bytes()):
            data.write_bytes(changed)
            with pytest.raises(DataError, match=r"1\.tar"):
                run_copy(copying)
    finally:
        data.write_bytes(whole)
    assert {path.name for path in out.rglob("*.*")} == {"copy.json", "0.tar"}, "nothing half"
    time = (out / "a" / "0.tar").stat().st_mtime_ns
    assert "2 shards copied now" in run_copy(copying)[0]
    assert (out / "a" / "0.tar").stat().st_mtime_ns == time
    assert "nothing copied now" in run_copy(copying)[0]
    with refusal_of("out"):
        run_copy(CopyOptions(selection=str(select(lab / "out", tmp_path / "other", keep_count=12)), out=out))
    with refusal_of("shards"):
        run_copy(CopyOptions(selection=str(chosen), out=tmp_path / "new", shards=(str(lab / "lines.txt"),)))
    pq.write_table(pa.table({"source": [str(data)], "stamp": [""], "rows": [[]], "repeats": [None]}, _SCHEMA), chosen)
    assert "0 chosen samples; 1 shards copied" in run_copy(CopyOptions(selection=str(chosen), out=tmp_path / "none"))[0]
    write_selection(chosen, [])
    with refusal_of("selection"):
        run_copy(CopyOptions(selection=str(chosen), out=tmp_path / "new"))


NAMES = ["k", "a.b", "a/.png", "a/k", "x\n/y", "caf\udce9", "__meta__/k", ".hidden", "none", "long/" * 40]


@given(
    st.lists(st.tuples(st.sampled_from(NAMES), st.integers(0, 1300)), max_size=9),
    st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]),
    st.data(),
)
@settings(max_examples=40)
def test_the_loaders_rows_are_copied_exactly(tmp_path_factory, members, form, data):
    """Odd names, and members of no sample or of no kind that the loader reads."""

    def read(path):
        reading = LoaderConfig(
            shards=(str(path),), batch_size=9, image_size=0, captions=(), shuffle_window=0, last_batch="keep",
            keep_members=("png",), max_bad_fraction=1.0,
        )  # fmt: skip
        with BatchLoader(reading) as loader:
            return [
                (int(row), key, member)
                for batch in loader
                for row, key, member in zip(batch.rows, batch.keys, batch.members["png"], strict=True)
            ]

    folder = tmp_path_factory.mktemp("any")
    # A loader's sample has an image; the first makes sure that there is one.
    entries = [
        ("first.png", b"0"),
        *((f"{name}{place}.png", bytes(size)) for place, (name, size) in enumerate(members)),
    ]
    write_tar(folder / "a.tar", entries, form)
    found = read(folder / "a.tar")
    rows = sorted({0, *data.draw(st.sets(st.sampled_from([row for row, _, _ in found])))})
    copy_samples(Chosen("a", "", np.array(rows, np.uint32)), folder / "a.tar", folder / "b.tar", StoreConfig())
    assert [sample[1:] for sample in read(folder / "b.tar")] == [one[1:] for one in found if one[0] in rows]
    stamp, places = shard_regions(str(folder / "a.tar"), StoreConfig())
    everything = Chosen("a", stamp, np.arange(len(places) - 1, dtype=np.uint32))
    copy_samples(everything, folder / "a.tar", folder / "c.tar", StoreConfig())
    length = (folder / "c.tar").stat().st_size
    assert (folder / "c.tar").read_bytes() == (folder / "a.tar").read_bytes()[:length]


# ---- Folders of images ----------------------------------------------------------------------------------------------


def test_chosen_images_of_a_folder_are_copied_with_their_captions(lab, tmp_path, capsys):
    photos, copy = tmp_path / "photos", tmp_path / "copy"
    for number, name in enumerate(("foxes/1.png", "foxes/2.png", "lions/1.png", "4.png")):
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        (photos / name).write_bytes((lab / "images" / "some.where" / f"a.{(0, 1, 3, 3)[number]}.png").read_bytes())
        if number != 1:
            (photos / name).with_suffix(".txt").write_text(f"caption {name}")
    run_embed(options(lab, tmp_path / "out", images=(photos,), rows_per_part=3))
    chosen = select(tmp_path / "out", tmp_path / "chosen", min_score=0.0)
    both = CopyOptions(selection=str(chosen), out=tmp_path / "both")
    assert "18 chosen samples; 3 shards and 4 images copied now" in run_copy(both)[0]
    assert any(both.out.rglob("photos/foxes/1.png"))
    (photos_only,) = [one for one in read_selection(chosen) if one.source == str(photos)]
    write_selection(chosen, [photos_only._replace(rows=photos_only.rows[[0, 1, 3]])])
    kept = [sorted(photos.rglob("*.png"))[row] for row in (0, 1, 3)]
    words = f"data copy --selection {chosen} --out {copy}".split()
    assert main(words) == 0
    assert "3 chosen samples; 3 images copied now" in capsys.readouterr().out
    files = {file for image in kept for file in (image, image.with_suffix(".txt")) if file.exists()}
    copies = {path for path in copy.rglob("*.*") if path.name != "copy.json"}
    assert {path.relative_to(copy) for path in copies} == {path.relative_to(photos) for path in files}
    assert all(path.read_bytes() == (photos / path.relative_to(copy)).read_bytes() for path in copies)
    next(path for path in copies if path.suffix == ".png").unlink()
    assert main(words) == 0
    assert "1 images copied now" in capsys.readouterr().out, "the rest was there"
    kept[0].unlink()
    with pytest.raises(DataError, match="photos"):
        run_copy(CopyOptions(selection=str(chosen), out=copy))


def test_nothing_is_copied_outside_the_folder(lab, tmp_path):
    image, photos, out = lab / "images" / "some.where" / "a.0.png", tmp_path / "photos", tmp_path / "deep" / "copy"
    (photos / "x" / "y").mkdir(parents=True)
    for folder in (photos, photos / "x" / "y"):
        (folder / "1.png").write_bytes(image.read_bytes())
    sources = f"{photos}/x/..", f"{photos}/x/y"
    write_selection(tmp_path / "chosen", [Chosen(source, "", np.zeros(1, np.uint32)) for source in sources])
    run_copy(CopyOptions(selection=str(tmp_path / "chosen"), out=out))
    assert {*tmp_path.rglob("1.png")} == {*photos.rglob("1.png"), *out.rglob("1.png")}
    assert len([*out.rglob("1.png")]) == 2
