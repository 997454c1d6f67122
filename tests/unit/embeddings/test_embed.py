"""`prolip embed`: its parts hold the model's embeddings, also after interruptions and reruns."""

import json
import logging
import os
import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from tests.support.datacomp_sets import write_open_clip
from tests.support.embed_options import assert_equal, options, read
from tests.support.http_servers import answering, send_file
from tests.support.ranked_shards import SIZES, shards
from tests.support.refusals import refusal_of
from tests.support.shards import encoded, write_tar
from tests.support.untrained_run import write_run

from prolip.cli import main
from prolip.data import DataError
from prolip.embeddings.embed import embed_shards, run_embed
from prolip.embeddings.originals import fetch
from prolip.embeddings.storage import Manifest, complete_parts
from prolip.errors import UserError
from prolip.inference.load_model import load
from prolip.store.folder import Folder
from prolip.store.selection import Chosen, write_selection


@pytest.fixture(scope="module")
def model(lab):
    return load(lab / "run", device="cpu")


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_parts_contain_the_models_gaussians(lab, tmp_path, model, dtype):
    told = run_embed(options(lab, tmp_path, what="both", dtype=dtype))
    assert "parts: 3 (3 new)" in told[0]
    images = embed_shards(model, [str(shard) for shard in shards(lab)], keep=("txt",))
    captions = [data.decode() for data in images.members["txt"] if data is not None]
    for kind, expected in (("image", images.gaussian), ("text", model.encode_texts(captions))):
        keys, sources, mean, log_var, total_var = read(tmp_path, kind)
        assert keys == images.keys
        assert sources == [str(shard) for shard, size in zip(shards(lab), SIZES, strict=True) for _ in range(size)]
        exact = dtype == "float32"
        np.testing.assert_allclose(mean, expected.mean.numpy(), atol=1e-6 if exact else 1e-3)
        np.testing.assert_allclose(log_var, expected.log_var.numpy(), atol=1e-5 if exact else 5e-3)
        np.testing.assert_allclose(total_var, expected.total_var.numpy(), rtol=1e-5)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*-*")}
    assert "parts: 3 (0 new)" in run_embed(options(lab, tmp_path, what="both", dtype=dtype, batch_size=3))[0]
    assert times == {path: path.stat().st_mtime_ns for path in tmp_path.glob("*-*")}


def test_rows_keep_file_names_and_line_numbers_and_a_bad_image_is_named(lab, tmp_path, model):
    inputs = {"shards": (), "images": (lab / "images",), "lines": (lab / "lines.txt",)}
    told = run_embed(options(lab, tmp_path, **inputs, what="both", rows_per_part=2))
    assert "some.where/a.2.png" in told[-1]
    names = [f"some.where/{name}" for name in ("a.0.png", "a.1.png", "a.3.png", "red.tif")]
    keys, sources, *_ = found = read(tmp_path, "image")
    assert (keys, set(sources)) == (names, {str(lab / "images")})
    assert_equal(found, model.encode_images([lab / "images" / name for name in names]))
    found = read(tmp_path, "text")
    assert found[0] == [*names, "0", "1", "2"]
    assert found[1][-1] == str(lab / "lines.txt")
    captions = ["food", "travel", "emoji", "a picture", "a picture of food", "", "an emoji"]
    assert_equal(found, model.encode_texts(captions))
    manifest = Manifest.read(Folder(str(tmp_path)))
    assert (manifest.rows, manifest.bad) == ({"image": 4, "text": 7}, 1)
    assert [entry.get("count") for entry in manifest.plan] == [2, 2, 1, 2, 1]
    stamps = [entry["stamp"] for entry in manifest.plan]
    assert stamps == [stamps[0]] * 3 + [stamps[3]] * 2
    for kind, rows in (("image", [0, 1, 3, 4]), ("text", [0, 1, 3, 4, 0, 1, 2])):
        parts = complete_parts(Folder(str(tmp_path)), kind)[1]
        assert [row for part in parts for block in part.blocks() for row in block.rows] == rows
        assert [part.notes.stamp for part in parts] == stamps[: len(parts)]
    last = complete_parts(Folder(str(tmp_path)), "image")[1][-1].row(0)
    assert (last["width"], last["height"]) == (30, 20)


def test_names_cannot_control_the_terminal(lab, tmp_path, capsys, monkeypatch):
    root, odd = logging.getLogger(), "\x1b[2J\n\x9b1m\u202e"
    monkeypatch.setattr(root, "handlers", [])  # those of pytest
    monkeypatch.setattr(root, "level", root.level)
    images, out = tmp_path / f"images{odd}", tmp_path / f"out{odd}"
    shutil.copytree(lab / "images" / "some.where", images)
    for path in images.iterdir():
        path.rename(path.with_stem(path.stem + odd))
    monkeypatch.chdir(lab)
    embed = ["embed", "--checkpoint", "run", "--images", images, "--out", out]
    select = ["data", "select", "--embeddings", out, "--out", tmp_path / f"chosen{odd}"]
    search = ["search", "--embeddings", out, "--text", odd, "--sheet", tmp_path / "sheet.html"]
    assert main([*map(str, embed)]) == 0
    monkeypatch.chdir(tmp_path)  # the model is found from any folder
    assert [main([*map(str, words)]) for words in (select, search)] == [0, 0]
    shutil.rmtree(images)
    images.write_bytes(b"")
    assert [main([*map(str, words)]) for words in (search, embed)] == [0, 2]
    said = "".join(capsys.readouterr())
    assert {letter for letter in said if not letter.isprintable()} <= {"\n", "\r"}  # \r is of progress bars


def test_a_failed_part_is_left_out_or_made_later(lab, tmp_path):
    data = [str(shutil.copy(shard, tmp_path)) for shard in shards(lab)]
    Path(data[0]).write_bytes(b"no archive" * 100)
    out = tmp_path / "out"
    with pytest.raises(DataError, match=r"0\.tar"):
        run_embed(options(lab, out, shards=tuple(data[:2])))
    assert (out / "image-000001.parquet").exists()
    with pytest.raises(UserError):
        complete_parts(Folder(str(out)), "image")
    assert "parts: 1 (0 new)" in run_embed(options(lab, out, shards=(data[1],)))[0]
    assert len(read(out, "image")[0]) == SIZES[1]
    with refusal_of("out"):
        run_embed(options(lab, out, shards=tuple(data[1:])))
    shutil.copy(shards(lab)[0], data[0])
    for made in (1, 0):
        assert f"parts: 2 ({made} new)" in run_embed(options(lab, out, shards=tuple(data[:2])))[0]
    assert read(out, "image")[0] == [f"k{row}" for size in SIZES[:2] for row in range(size)]


def test_one_lost_part_of_an_inputs_two_is_made_again(lab, tmp_path):
    out = tmp_path / "out"
    both = options(lab, out, shards=tuple(map(str, shards(lab)[:2])), what="both")
    run_embed(both)
    (out / "text-000000.parquet").rename(tmp_path / "text")
    run_embed(both)
    assert (out / "text-000000.parquet").read_bytes() == (tmp_path / "text").read_bytes()


def test_of_commands_at_once_those_of_one_plan_make_the_parts_together(lab, tmp_path):
    with ThreadPoolExecutor(4) as pool:
        runs = [
            pool.submit(run_embed, options(lab, tmp_path, what="both", log_var=place % 2 == 0)) for place in range(4)
        ]
        failed = [run.exception() for run in runs]
    assert all(error is None or (isinstance(error, UserError) and error.field == "out") for error in failed)
    ours, others = failed[::2], failed[1::2]
    assert (ours == [None, None]) != (others == [None, None])
    made, near = ({path.name: path.read_bytes() for path in one.glob("*.parquet")} for one in (tmp_path, lab / "out"))
    assert (made == near) == (ours == [None, None])


OTHER_SETTINGS: tuple[Mapping[str, object], ...] = (
    {"rows_per_part": 2},
    {"dtype": "float16"},
    {"what": "text"},
    {"shards": "b/1.tar"},
    {"checkpoint": "other"},
    {"tokenizer": "other.json"},
    {"changed": True},
)


@pytest.mark.parametrize("changes", OTHER_SETTINGS, ids=lambda changes: next(iter(changes)))
def test_embeddings_with_other_settings_are_not_mixed(lab, tmp_path, changes):
    shutil.copytree(lab / "data", tmp_path / "data")
    given = {
        "shards": (str(tmp_path / "data" / "a" / "0.tar"),),
        "lines": (lab / "lines.txt",),
        "tokenizer": str(lab / "tokenizer.json"),
    }
    run_embed(options(lab, tmp_path / "out", **given))
    if "checkpoint" in changes:
        write_run(tmp_path / "other", tmp_path / "tokenizer.json", context_length=9)
        changes = {"checkpoint": str(tmp_path / "other")}
    if "tokenizer" in changes:
        changes = {"tokenizer": str(shutil.copy(lab / "tokenizer.json", tmp_path / "other.json"))}
    if "shards" in changes:
        changes = {"shards": (str(tmp_path / "data" / "b" / "1.tar"),)}
    if changes.pop("changed", False):
        shutil.copy(tmp_path / "data" / "a" / "2.tar", tmp_path / "data" / "a" / "0.tar")
    with refusal_of("out"):
        run_embed(options(lab, tmp_path / "out", **(given | changes)))


@pytest.mark.parametrize("change", [{"weights": "other"}, {"source": "other.tar"}])
def test_a_part_of_another_model_or_source_is_refused(lab, tmp_path, change):
    given = options(lab, tmp_path / "out", shards=tuple(map(str, shards(lab)[:2])))
    run_embed(given)
    part = complete_parts(Folder(given.out), "image")[1][1]
    table, notes = pq.read_table(part.path), json.dumps(asdict(part.notes) | change)
    pq.write_table(table.replace_schema_metadata({"prolip": notes}), part.path)
    with refusal_of(part.path):
        run_embed(given)


def test_a_selection_embeds_its_rows_and_another_one_is_refused(lab, tmp_path):
    first, second, third = map(str, shards(lab))

    def embed(*rows):
        chosen = [Chosen(first, "", np.array(rows, np.uint32)), Chosen(third, "", np.zeros(1, np.uint32))]
        write_selection(tmp_path / "chosen", chosen)
        return run_embed(options(lab, tmp_path / "out", shards=(second,), selection=str(tmp_path / "chosen")))[0]

    assert "parts: 3 (3 new)" in embed(1, 3)
    found, whole = (read(folder / "out", "image") for folder in (tmp_path, lab))
    parts = complete_parts(Folder(str(tmp_path / "out")), "image")[1]
    assert [row for part in parts for block in part.blocks() for row in block.rows] == [0, 1, 2, 1, 3, 0]
    assert found[0] == ["k0", "k1", "k2", "k1", "k3", "k0"]
    np.testing.assert_allclose(found[2], whole[2][[5, 6, 7, 1, 3, 8]], atol=1e-6)
    assert "(0 new)" in embed(1, 3)
    with refusal_of("out"):
        embed(1, 2)


def signed_file(request):
    """A file, for those who have the right signature."""
    if request.path.endswith("?signed=secret"):
        send_file(request)
    else:
        request.send_error(403)


def test_remote_shards_are_embedded_like_local_ones_and_their_signature_is_not_stored(lab, tmp_path):
    with answering(signed_file, lab / "data") as address:
        shard = f"{address}/b/1.tar?signed=secret"
        run_embed(options(lab, tmp_path / "far", shards=(shard,)))
        contents = fetch([(shard, "k2")], 14)
    run_embed(options(lab, tmp_path / "near", shards=(str(shards(lab)[1]),)))
    far, near = (read(tmp_path / name, "image") for name in ("far", "near"))
    assert far[0] == near[0]
    np.testing.assert_array_equal(far[2], near[2])
    assert set(far[1]) == {f"{address}/b/1.tar?…"}
    assert not any(b"signed" in path.read_bytes() for path in (tmp_path / "far").iterdir())
    image = contents[shard, "k2"].image
    assert np.abs(image[7, 7].astype(int) - (90, 80, 99)).max() < 3


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("shards", {"shards": ()}),
        ("caption_key", {"caption_key": "a..b"}),
        ("shards", {"shards": ("absent.tar",)}),
        ("images", {"images": ("absent",)}),
        ("images", {"images": ("odd",)}),
        ("latin.txt", {"lines": ("latin.txt",)}),
        ("out", {"out": "odd"}),
    ],
)
def test_wrong_settings_are_named(lab, tmp_path, monkeypatch, field, changes):
    monkeypatch.chdir(tmp_path)
    Path("latin.txt").write_bytes(b"caf\xe9")
    Path("odd").mkdir()
    Path("odd", os.fsdecode(b"caf\xe9.png")).write_bytes(encoded((1, 2, 3)))
    for name, value in changes.items():
        if isinstance(value, tuple):
            paths = [text.format(lab=lab) for text in value]
            changes = {**changes, name: tuple(paths if name == "shards" else map(Path, paths))}
    changes = {**changes, "out": str(changes.get("out", "out"))}
    with refusal_of(field):
        run_embed(options(lab, **changes))


def test_without_a_usable_sample_the_folder_is_free_for_other_settings(lab, tmp_path):
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.png").write_bytes(b"no image")
    with pytest.raises(DataError, match="none of 1 samples"):
        run_embed(options(lab, tmp_path / "out", shards=(), images=(tmp_path / "bad",)))
    assert list((tmp_path / "out").iterdir()) == []


# ---- A model of open_clip: its own pixels and tokens, no variances --------------------------------------------------


def test_rows_of_an_open_clip_model(lab, tmp_path, capsys):
    write_open_clip(tmp_path / "clip", {"resize_mode": "squash", "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]})
    bad = [("x.png", b"no image"), ("x.json", b'{"texts": {"all": "a"}}'), ("y.png", encoded((9, 9, 9)))]
    write_tar(tmp_path / "bad.tar", bad)
    checkpoint, out = f"open_clip:local-dir:{tmp_path / 'clip'}", tmp_path / "out"
    inputs = {"shards": (str(shards(lab)[0]), str(tmp_path / "bad.tar")), "images": (lab / "images",)}
    run_embed(options(lab, out, checkpoint=checkpoint, **inputs, what="both", caption_key="texts.all"))
    model = load(checkpoint, device="cpu")
    images = embed_shards(model, [str(shards(lab)[0])], keep=("json",))
    captions = [json.loads(data)["texts"]["all"][0] for data in images.members["json"] if data is not None]
    names = [f"some.where/{name}" for name in ("a.0.png", "a.1.png", "a.3.png", "red.tif")]
    found = read(out, "text")
    assert found[0] == [*images.keys, *names]
    assert_equal(found, model.encode_texts([*captions, "food", "travel", "emoji", "a picture"]))
    parts = [complete_parts(Folder(str(one)), "image")[1] for one in (out, lab / "out")]
    assert parts[0][0].notes.stamp == parts[1][0].notes.stamp != "", "whoever decodes the images"
    for one in (some[0].row(1) for some in parts):
        assert [one[name] for name in ("row", "width", "height")] == [1, 14, 11]
    mean = model.encode_images([lab / "images" / name for name in names]).mean
    _, _, means, log_var, total_var = read(out, "image")
    np.testing.assert_allclose(means, torch.cat([images.gaussian.mean, mean]).numpy(), atol=1e-5)
    assert np.isneginf(log_var).all()
    assert not total_var.any()
    manifest = Manifest.read(Folder(str(out)))
    assert (manifest.has_variances, manifest.bad) == (False, 3)
    assert ["bad.tar: x" in manifest.bad_samples[0], "bad.tar: y" in manifest.bad_samples[1]] == [True, True]
    # Search and select work without variances.
    ask = f"search --embeddings {out} --device cpu --image {lab}/images/{names[3]}".split()
    assert main([*ask, "--json"]) == 0
    first = json.loads(capsys.readouterr().out)[0]["answers"][0]
    assert first["key"] == names[3]
    assert not {"uncertainty", "inclusion"} & first.keys()
    select = f"data select --embeddings {out} --out {tmp_path}/chosen --by".split()
    assert [main([*select, by]) for by in ("csd", "image")] == [0, 2]
