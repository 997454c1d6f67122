"""Shards of a folder: class folders, and images beside their texts."""

import io
import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
from PIL import Image
from tests.support.images import draw
from tests.support.refusals import refusal_of

from prolip.build.config import FolderConfig
from prolip.build.folder import build_folder
from prolip.data import Tokenizer, TokenizerConfig
from prolip.errors import UserError
from prolip.images.files import find_images

Read = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def classes(tmp_path):
    source = tmp_path / "images"
    draw(source / "sea_lion" / "a.jpg", value=1)
    draw(source / "sea_lion" / "deep" / "b.v2.PNG", value=2)
    draw(source / "cat" / "c.webp", value=3)
    draw(source / ".cache" / "d.jpg", value=4)
    (source / "cat" / "readme.md").write_text("no image", encoding="utf-8")
    return source


def test_images_in_class_folders_become_samples_with_class_captions(tmp_path, classes, read_back):
    summary = build_folder(FolderConfig(images=classes, templates=("{}", "my {}")), tmp_path / "out")
    assert summary.samples == {"train": 3}
    assert summary.skipped == ()
    samples = {one["json"]["path"]: one for one in read_back(tmp_path / "out")}
    assert set(samples) == {"sea_lion/a.jpg", "sea_lion/deep/b.v2.PNG", "cat/c.webp"}, "hidden folders are passed over"
    sea_lion = samples["sea_lion/deep/b.v2.PNG"]
    assert sea_lion["txt"] == b"sea lion"
    assert sea_lion["json"]["class"] == "sea_lion"
    assert sea_lion["json"]["captions"] == ["sea lion", "my sea lion"]
    for name, extension in (("sea_lion/a.jpg", "jpg"), ("sea_lion/deep/b.v2.PNG", "png"), ("cat/c.webp", "webp")):
        assert samples[name][extension] == (classes / name).read_bytes(), "stored as it is"
    record = json.loads((tmp_path / "out" / "dataset.json").read_text(encoding="utf-8"))
    assert record["kind"] == "folder"
    assert record["classes"] == {"cat": "cat", "sea_lion": "sea lion"}
    assert record["samples"] == {"train": 3}


def test_links_to_folders_and_images_are_followed(tmp_path, classes):
    links = tmp_path / "links"
    links.mkdir()
    (links / "lion").symlink_to(classes / "sea_lion")
    (links / "also lion").symlink_to(classes / "sea_lion")
    (links / "cat").mkdir()
    (links / "cat" / "up").symlink_to(links)  # would never end
    (links / "cat" / "c.webp").symlink_to(classes / "cat" / "c.webp")
    found = [str(path.relative_to(links)) for path in find_images(links)]
    assert found == ["also lion/a.jpg", "also lion/deep/b.v2.PNG", "cat/c.webp"]  # the lion is there once


def test_images_with_text_files_become_samples(tmp_path, read_back):
    source = tmp_path / "pairs"
    data = draw(source / "deep" / "a.jpg")
    (source / "deep" / "a.txt").write_text(" a grey cat\n", encoding="utf-8-sig")
    summary = build_folder(FolderConfig(images=source, captions="text"), tmp_path / "out")
    (sample,) = read_back(tmp_path / "out")
    assert (sample["txt"], sample["jpg"], sample["json"]) == (
        b"a grey cat",
        data,
        {"path": "deep/a.jpg", "captions": ["a grey cat"]},
    )
    assert summary.samples == {"train": 1}


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.with_suffix(".txt").unlink(),
        lambda path: path.with_suffix(".txt").write_text(" \n", encoding="utf-8"),
        lambda path: path.with_suffix(".txt").write_bytes(b"caf\xe9"),
        lambda path: path.write_bytes(path.read_bytes()[:-40]),
        lambda path: path.write_bytes(b"<html>"),
    ],
)
def test_a_bad_pair_is_left_out_and_named(tmp_path, read_back, spoil):
    source = tmp_path / "pairs"
    for name in "abc":
        draw(source / f"{name}.jpg", (32, 32))
        (source / f"{name}.txt").write_text(name, encoding="utf-8")
    spoil(source / "b.jpg")
    summary = build_folder(FolderConfig(images=source, captions="text", max_bad_fraction=0.5), tmp_path / "out")
    assert sorted(one["txt"] for one in read_back(tmp_path / "out")) == [b"a", b"c"]
    assert [bad.name for bad in summary.skipped] == ["b.jpg"]
    record = json.loads((tmp_path / "out" / "dataset.json").read_text(encoding="utf-8"))
    assert record["skipped"] == [{"name": "b.jpg", "reason": summary.skipped[0].reason}]
    with pytest.raises(UserError, match=r"1 of 3 .*b\.jpg"):
        build_folder(FolderConfig(images=source, captions="text", max_bad_fraction=0.3), tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_an_image_that_the_loader_would_skip_is_not_stored(tmp_path, monkeypatch):
    monkeypatch.setattr("prolip.images.files.MAX_PIXELS", 40 * 30 - 1)
    draw(tmp_path / "photos" / "a.jpg", (40, 30))
    with pytest.raises(UserError, match=r"a\.jpg \(40 x 30 pixels are more than .*--max_side\)"):
        build_folder(FolderConfig(images=tmp_path / "photos", captions="none"), tmp_path / "out")
    smaller = FolderConfig(images=tmp_path / "photos", captions="none", max_side=20)
    assert build_folder(smaller, tmp_path / "out").samples == {"train": 1}


@pytest.fixture
def flat(tmp_path):
    """A flat folder of photos."""
    for value, name in enumerate(("0007_red-fox.JPG", "0012_two sea_lions.png", "a.b.webp")):
        draw(tmp_path / "photos" / name, value=value)
    return tmp_path / "photos"


def test_a_flat_folder_has_captions_of_its_file_names(tmp_path, flat, read_back):
    assert build_folder(FolderConfig(images=flat, captions="name"), tmp_path / "out").samples == {"train": 3}
    found = {one["json"]["path"]: one["txt"].decode() for one in read_back(tmp_path / "out")}
    expected = {"0007_red-fox.JPG": "0007 red fox", "0012_two sea_lions.png": "0012 two sea lions", "a.b.webp": "a.b"}
    assert found == expected


def test_a_pattern_finds_the_caption_in_the_file_name(tmp_path, flat, read_back):
    config = FolderConfig(images=flat, captions="name", name_pattern=r"^\d+_(.+)$", max_bad_fraction=0.5)
    summary = build_folder(config, tmp_path / "out")
    assert sorted(one["txt"] for one in read_back(tmp_path / "out")) == [b"red fox", b"two sea lions"]
    assert [bad.name for bad in summary.skipped] == ["a.b.webp"]


def test_a_tokenizer_knows_the_words_of_training_captions(tmp_path, read_back):
    words = ["fox", "owl", "cat", "dog", "bee", "elk", "hen", "ram"]
    for word in words:
        draw(tmp_path / "in" / f"{word} {word}.png")
    config = FolderConfig(images=tmp_path / "in", captions="name", val_share=0.5, train_tokenizer=True)
    build_folder(config, tmp_path / "out")
    trained = {one["txt"].decode().split()[0] for one in read_back(tmp_path / "out", "train-*.tar")}
    assert set(words) > trained > set()
    file = tmp_path / "out" / "tokenizer.json"
    ids = [one.ids for one in tokenizers.Tokenizer.from_file(str(file)).encode_batch(words)]
    assert {word for word, own in zip(words, ids, strict=True) if len(own) == 1} == trained
    loaders = Tokenizer(TokenizerConfig(kind="file", path=file, context_length=4))
    assert loaders.encode(words).tolist() == [own + [0] * (4 - len(own)) for own in ids]


@pytest.mark.parametrize("captions", ["class", "text"])
def test_a_flat_folder_is_refused_without_captions_of_that_kind(tmp_path, flat, captions):
    with refusal_of("images"):
        build_folder(FolderConfig(images=flat, captions=captions), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("folders", "are_splits"),
    [("train", True), ("Test Validation x", True), ("train car", False)],
)
def test_folders_named_like_splits_are_no_classes(tmp_path, folders, are_splits):
    for folder in folders.split():
        draw(tmp_path / "in" / folder / "cat" / "a.png")
    with pytest.raises(UserError) if are_splits else nullcontext() as error:
        build_folder(FolderConfig(images=tmp_path / "in"), tmp_path / "out")
    assert error is None or error.value.field == "images"


def test_the_summary_lists_twenty_classes(tmp_path):
    for place in range(22):
        draw(tmp_path / "in" / f"{place:02}" / "a.png")
    notes = build_folder(FolderConfig(images=tmp_path / "in"), tmp_path / "out").notes
    assert (len(notes), notes[0], *notes[-2:]) == (22, "images of 22 classes:", "      1  19", "    and 2 more")


@pytest.mark.parametrize(("pattern", "captions"), [("(", "name"), ("a", "name"), ("(a)(b)", "name"), ("(a)", "class")])
def test_a_pattern_must_have_one_group(pattern, captions):
    with refusal_of("name_pattern"):
        FolderConfig(images=Path("in"), captions=captions, name_pattern=pattern)


def test_other_formats_are_stored_as_png_and_reported(tmp_path, read_back):
    kinds = {"bmp": "BMP", "jp2": "JPEG2000", "tiff": "TIFF"}
    if ".avif" in Image.registered_extensions():  # from Pillow 11.3 on
        kinds["avif"] = "AVIF"
    for suffix in kinds:
        draw(tmp_path / "in" / "x" / f"a.{suffix}")
    Image.new("P", (4, 4), 3).save(tmp_path / "in" / "x" / "b.gif")
    summary = build_folder(FolderConfig(images=tmp_path / "in"), tmp_path / "out")
    for sample in read_back(tmp_path / "out"):
        with (
            Image.open(tmp_path / "in" / sample["json"]["path"]) as before,
            Image.open(io.BytesIO(sample["png"])) as now,
        ):
            assert now.format == "PNG"
            assert np.array_equal(np.asarray(before.convert("RGB")), np.asarray(now))
    notes = [f"1 images were {kind} and are stored as PNG" for kind in sorted([*kinds.values(), "GIF"])]
    assert sorted(summary.notes[2:]) == notes


@pytest.mark.parametrize(
    ("suffix", "dtype", "largest"), [("tif", np.uint16, 65535), ("png", np.uint16, 65535), ("tif", np.float32, 1.0)]
)
def test_deep_grey_that_would_become_white_or_black_is_named(suffix, dtype, largest, tmp_path, read_back):
    images = tmp_path / "in"
    images.mkdir()
    ramp = np.linspace(0, 1, 64).reshape(8, 8)
    Image.fromarray((ramp * largest).astype(dtype)).save(images / f"deep.{suffix}")
    Image.fromarray((ramp * 255).astype(dtype)).save(images / f"fine.{suffix}")
    config = FolderConfig(images=images, captions="none", max_bad_fraction=0.5)
    (bad,) = build_folder(config, tmp_path / "out").skipped
    assert bad.name == f"deep.{suffix}"
    assert f"{largest:g}" in bad.reason
    (fine,) = read_back(tmp_path / "out")
    with Image.open(io.BytesIO(fine["png"])) as stored:
        assert np.abs(np.asarray(stored.convert("RGB"))[..., 0] - ramp * 255).max() <= 1


@pytest.mark.parametrize(("suffix", "stored"), [("jpg", "jpg"), ("png", "png"), ("webp", "webp"), ("bmp", "png")])
def test_larger_images_are_shrunk_to_max_side(tmp_path, read_back, suffix, stored):
    draw(tmp_path / "in" / f"large.{suffix}", (100, 50))
    small = draw(tmp_path / "in" / f"small.{suffix}", (20, 10))
    build_folder(FolderConfig(images=tmp_path / "in", max_side=20, captions="none"), tmp_path / "out")
    large, fitting = read_back(tmp_path / "out")
    with Image.open(io.BytesIO(large[stored])) as image:
        assert (image.size, image.format) == ((20, 10), {"jpg": "JPEG"}.get(stored, stored.upper()))
    assert stored != suffix or fitting[stored] == small, "one that fits is stored as it is"


def test_the_validation_split_does_not_depend_on_the_folders_place(tmp_path, read_back):
    chosen = []
    for home in ("one", "two"):
        for number in range(40):
            draw(tmp_path / home / "in" / "x" / f"{number}.png")
        config = FolderConfig(images=tmp_path / home / "in", val_share=0.25, samples_per_shard=7, split="test")
        summary = build_folder(config, tmp_path / home / "out")
        val = {one["json"]["path"] for one in read_back(tmp_path / home / "out", "val-*.tar")}
        rest = {one["json"]["path"] for one in read_back(tmp_path / home / "out", "test-*.tar")}
        assert len(rest | val) == 40
        assert not rest & val
        assert summary.samples == {"test": len(rest), "val": len(val)}
        assert max(summary.shards.values()) == 7
        chosen.append(val)
    assert chosen[0] == chosen[1]
    assert 3 <= len(chosen[0]) <= 18
