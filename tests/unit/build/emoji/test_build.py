"""The emoji shards, from a small synthetic table, and from the real art where it is installed."""

import io
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.support.emoji_build import BORROWED, EQUAL, NUM_BASE, SMALL, made_up_emoji

from prolip.build.config import FolderConfig
from prolip.build.emoji.art import Art, encode_png, image_id
from prolip.build.emoji.build import Drawing, _mirrored_copies, build_emoji
from prolip.build.emoji.captions import LEVELS
from prolip.build.emoji.config import EmojiConfig
from prolip.build.emoji.names import Emoji, read_table
from prolip.build.folder import build_folder
from prolip.errors import UserError

Read = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def made_up(tmp_path):
    """A made-up table with a made-up artist for each design."""
    with made_up_emoji(tmp_path) as table:
        yield table


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The shards of such a table; who changes them builds others."""
    folder = tmp_path_factory.mktemp("built")
    with made_up_emoji(folder):
        build_emoji(SMALL, folder / "out")
    return folder / "out"


def by_set(out, read_back):
    names = {path.name.rsplit("-", 1)[0] for path in out.glob("*.tar")}
    return {name: read_back(out, f"{name}-??????.tar") for name in sorted(names)}


def assert_promises(sets, table):
    """What every build of the emoji shards promises, whatever the art."""
    stems = {"-".join(one.codepoints): set(one.stems) for one in table}
    train = sets["train"]
    images = {one["json"]["picture"] for one in train}
    trained_names = {one["json"]["base_name"] for one in train}
    trained_stems = set().union(*(stems[one["json"]["codepoint"]] for one in train))
    assert {one["json"]["design"] for one in train} == {"openmoji", "goog"}
    training_art = {one["json"]["picture"] for own in sets.values() for one in own if one["json"]["design"] != "twtr"}
    for name, own in sets.items():
        if name == "train":
            continue
        assert not images & {one["json"]["picture"] for one in own}, name
        assert not [one for one in own if one["json"]["skin_tone"]], name
        assert {one["json"]["design"] for one in own} == {name.rsplit("-", 1)[1]}
        if name == "design-twtr":
            assert {one["json"]["name"] for one in own} <= trained_names
        else:
            assert not trained_stems & set().union(*(stems[one["json"]["codepoint"]] for one in own)), name
        if name.endswith("-twtr"):
            assert not training_art & {one["json"]["picture"] for one in own}, "no copy of another design"
    for split, other in (("val", "test"), ("test", "val")):
        own = {one["json"]["picture"] for one in sets[f"{split}-goog"] + sets[f"{split}-openmoji"]}
        assert not own & {one["json"]["picture"] for one in sets[f"{other}-openmoji"] + sets[f"{other}-goog"]}
    keys = [one["__key__"] for own in sets.values() for one in own]
    assert len(set(keys)) == len(keys)


def test_built_shards_keep_the_documented_promises(tmp_path, made_up, read_back):
    summary = build_emoji(SMALL, tmp_path / "out")
    sets = by_set(tmp_path / "out", read_back)
    assert_promises(sets, made_up)
    assert not summary.already_built
    assert summary.samples == {name: len(own) for name, own in sets.items()}
    assert set(sets) == {"train", "design-twtr"} | {
        f"{a}-{b}" for a in ("val", "test") for b in ("openmoji", "goog", "twtr")
    }
    sizes = {name: len(own) for name, own in sets.items()}
    # Three emoji with one image may not fit into a split's last place; half of the held-out design is borrowed.
    assert 15 <= sizes["test-openmoji"] == sizes["test-goog"] <= 16
    assert sizes["test-twtr"] < sizes["test-goog"]
    assert sizes["design-twtr"] + sizes["test-twtr"] + sizes["val-twtr"] == NUM_BASE - len(BORROWED)
    splits = {
        one["json"]["name"]: name.split("-")[0] for name, own in sets.items() if name != "design-twtr" for one in own
    }
    assert len({splits[f"thing {number}"] for number in EQUAL}) == 1


def test_a_fifth_of_the_training_samples_are_variants(built, read_back):
    train = read_back(built, "train-*.tar")
    variants = [one for one in train if one["json"]["skin_tone"]]
    assert len(variants) / len(train) == pytest.approx(0.2, abs=0.01)
    assert set(Counter(one["json"]["design"] for one in variants)) == {"openmoji", "goog"}
    assert max(Counter((one["json"]["base_name"], one["json"]["design"]) for one in variants).values()) == 1, "spread"


def test_training_images_have_mirrored_copies(built, tmp_path, made_up, read_back):
    both = tmp_path / "both"
    build_emoji(replace(SMALL, mirror=True), both)
    assert (both / "tokenizer.json").read_bytes() == (built / "tokenizer.json").read_bytes()
    sets = by_set(both, read_back)
    assert_promises(sets, made_up)
    before = {one["__key__"]: one for one in read_back(built, "train-*.tar")}
    after = {one["__key__"]: one for one in sets["train"]}
    assert len(after) == 2 * len(before)
    for key, own in before.items():
        copy = after[f"{key}-mirrored"]
        assert [after[key]["json"]["mirrored"], copy["json"]["mirrored"]] == [False, True]
        assert copy["json"]["captions"] == own["json"]["captions"]
        pixels, mirrored = (np.asarray(Image.open(io.BytesIO(one["png"]))) for one in (own, copy))
        assert np.array_equal(mirrored, pixels[:, ::-1])
        assert image_id(mirrored) == copy["json"]["picture"]
    assert not [one for name, own in sets.items() if name != "train" for one in own if one["json"]["mirrored"]]


@pytest.mark.parametrize(
    ("change", "is_mirrored"),
    [
        ({"name": "left-facing fist"}, False),
        ({"name": "anticlockwise arrows button"}, False),
        ({"group": "Flags", "subgroup": "country-flag"}, False),
        ({"group": "Symbols", "subgroup": "math"}, False),
        ({"group": "Travel & Places", "subgroup": "time"}, False),
        ({"group": "Travel & Places", "subgroup": "hotel"}, True),
        ({"name": "upper arm"}, True),
    ],
)
def test_emoji_whose_meaning_changes_are_not_mirrored(change, is_mirrored):
    pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    emoji = Emoji(codepoints=("1F000",), name="thing", base_name="thing", group="Objects", subgroup="tool")
    drawing = Drawing(emoji=replace(emoji, **change), design="goog", png=encode_png(pixels), image_id=image_id(pixels))
    assert len(_mirrored_copies([drawing], set())) == is_mirrored
    assert not _mirrored_copies([drawing], {image_id(pixels[:, ::-1].copy())}), "a held-out image"
    same = np.concatenate([pixels, pixels[:, ::-1]], axis=1)
    assert not _mirrored_copies([replace(drawing, png=encode_png(same), image_id=image_id(same))], set())


def test_a_sample_has_its_image_captions_and_names(built, tmp_path, made_up, read_back):
    train = read_back(built, "train-*.tar")
    sample = next(one for one in train if one["json"]["skin_tone"] and one["json"]["group"] == "Animals & Nature")
    record = sample["json"]
    pixels = np.asarray(Image.open(io.BytesIO(sample["png"])))
    assert pixels.shape == (8, 8, 3)
    assert image_id(pixels) == record["picture"]
    assert (
        sample["txt"].decode() == record["name"] == f"{record['base_name']} with {record['name'].split()[3]} skin tone"
    )
    assert sample["__key__"] == f"{record['design']}-{record['codepoint'].lower()}"
    assert [ord(character) for character in record["emoji"]] == [
        int(code, 16) for code in record["codepoint"].split("-")
    ]
    assert (record["subgroup"], record["subgroup_text"]) == ("animal-bird", "kind of bird")
    assert record["group_text"] == "animals and nature"
    assert {len(record["captions"][level]) for level in LEVELS} == {6}
    assert record["name"] in record["captions"]["name"]
    assert record["captions"]["keywords"][0] == record["name"], "there are no keywords"
    build_emoji(replace(SMALL, side=5), tmp_path / "small")
    assert Image.open(io.BytesIO(read_back(tmp_path / "small")[0]["png"])).size == (5, 5)


def test_rebuilding_emoji_gives_the_same_bytes_or_does_nothing(built, tmp_path, made_up):
    build_emoji(SMALL, tmp_path / "one")
    one, two = ({path.name: path.read_bytes() for path in out.iterdir()} for out in (tmp_path / "one", built))
    assert one == two
    touched = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "one").iterdir()}
    summary = build_emoji(SMALL, tmp_path / "one")
    assert summary.already_built
    assert summary.samples["train"] > 0
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "one").iterdir()} == touched
    (tmp_path / "one" / "train-000000.tar").unlink()
    assert not build_emoji(SMALL, tmp_path / "one").already_built
    assert {path.name: path.read_bytes() for path in (tmp_path / "one").iterdir()} == two
    assert not build_emoji(replace(SMALL, seed=1), tmp_path / "one").already_built
    assert (tmp_path / "one" / "train-000000.tar").read_bytes() != two["train-000000.tar"]


def test_emoji_do_not_replace_shards_of_another_kind(tmp_path, made_up):
    mine = tmp_path / "mine"
    encode = encode_png(np.full((8, 8, 3), 7, np.uint8))
    (tmp_path / "images" / "cat").mkdir(parents=True)
    (tmp_path / "images" / "cat" / "1.png").write_bytes(encode)
    build_folder(FolderConfig(images=tmp_path / "images"), mine)
    before = sorted((path.name, path.read_bytes()) for path in mine.iterdir())
    with pytest.raises(UserError):
        build_emoji(SMALL, mine)
    assert sorted((path.name, path.read_bytes()) for path in mine.iterdir()) == before


def test_the_art_is_credited(built):
    record = json.loads((built / "dataset.json").read_text(encoding="utf-8"))
    assert sum(record["emoji"].values()) == NUM_BASE
    page = (built / "ATTRIBUTION.md").read_text(encoding="utf-8")
    assert all(entry["credit"] in page and entry["licence"] in page for entry in record["attributions"])


def test_a_damaged_file_is_named(tmp_path):
    for suffix in ("png", "svg"):
        if suffix == "svg":
            pytest.importorskip("resvg_py", reason="the extra `demo` is not installed")
        path = tmp_path / f"1F421.{suffix}"
        path.write_bytes(b"no image")
        with pytest.raises(UserError, match=rf"1F421\.{suffix}"):
            Art(files={"1F421": path}).draw("1F421", 8)


def test_transparent_images_are_centred_on_white(tmp_path):
    pixels = np.zeros((4, 8, 4), dtype=np.uint8)
    pixels[:, 4:] = (255, 0, 0, 255)
    Image.fromarray(pixels).save(tmp_path / "1F421.png")
    drawn = Art(files={"1F421": tmp_path / "1F421.png"}).draw("1F421", 8)
    assert (drawn[:2] == 255).all()
    assert (drawn[6:] == 255).all()
    assert (drawn[2:6, :4] == 255).all()
    assert (drawn[2:6, 4:] == (255, 0, 0)).all()


@pytest.fixture(scope="module")
def real(real_art, tmp_path_factory):
    out = tmp_path_factory.mktemp("emoji") / "out"
    build_emoji(EmojiConfig(), out)
    return out


def test_real_emoji_shards_keep_the_documented_promises(real, read_back):
    sets = by_set(real, read_back)
    assert_promises(sets, list(read_table()))
    sizes = {name: len(own) for name, own in sets.items()}
    drawn = [one["json"] for one in sets["train"] if not one["json"]["mirrored"]]
    assert len(drawn) > 3500
    assert len(drawn) < sizes["train"] < 1.9 * len(drawn), "not all can be mirrored"
    assert 270 <= sizes["test-openmoji"] <= 290
    assert sizes["design-twtr"] > 1400
    assert min(sizes.values()) > 80
    assert sum(one["skin_tone"] for one in drawn) / len(drawn) == pytest.approx(0.2, abs=0.005)
    for name in ("train", "test-openmoji", "test-goog", "test-twtr", "design-twtr"):
        assert len({one["json"]["group"] for one in sets[name]}) == 9, "every group is trained and tested"
    fish = next(one for own in sets.values() for one in own if one["__key__"] == "openmoji-1f421")
    assert fish["json"]["captions"]["name"][3] == "blowfish, marine animal, animals and nature"
    pixels = np.asarray(Image.open(io.BytesIO(fish["png"])))
    assert pixels.shape == (40, 40, 3)
    assert (pixels[0, 0] == 255).all(), "on white"
    assert pixels.std() > 20, "something is drawn"
    assert json.loads((real / "dataset.json").read_text())["tokenizer"]["truncated_share"] < 0.01
