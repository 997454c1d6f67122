"""Data sets in folders, on servers and on the hub; tables with zips of images; labels, metadata and captions."""

import json
import os
import random
import zipfile
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from tests.support.datacomp_sets import NAMES, TASKS, array, encoded_image, write_packed, write_shards, write_task
from tests.support.http_servers import answering
from tests.support.hub import serving
from tests.support.refusals import refusal_of

from prolip.data import BatchLoader, DataError, LoaderConfig
from prolip.datasets.data_set import DataSet, FolderMissing, find_folder, open_associations, open_dataset, open_images
from prolip.datasets.labels import caption_members, read_captions, read_labels, read_metadata
from prolip.errors import UserError
from prolip.inference.encoder import Encoded

DTD = TASKS["vtab/dtd"]
ROWS = [["filename", "raw"], ["0.jpg", '["a"]'], ["2.jpg", '["b"]']]


def found_in(data):
    """A data set's images with their members, by our loader; their Gaussians are left out."""
    keys = []
    members = {"cls": [], "npy": [], "txt": []}
    config = LoaderConfig(
        shards=data.shards,
        batch_size=4,
        image_size=8,
        captions=(),
        shuffle_window=0,
        last_batch="keep",
        max_bad_fraction=1.0,
        keep_members=tuple(members),
    )
    with BatchLoader(config) as loader:
        for batch in loader:
            keys += batch.keys
            for extension, some in batch.members.items():
                members[extension] += some
    return Encoded(keys, [], [], members)


def samples_of(data):
    """The images of a data set that has no shards."""
    assert data.samples is not None
    return [*data.samples()]


# ---- Folders, servers, the hub --------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["vtab/dtd", "cars", "retrieval/flickr_1k_test_image_text_retrieval"])
def test_a_folder_on_a_server_equals_the_local_one(key, tmp_path):
    root = tmp_path / "served"
    local = open_dataset(str(write_task(root, TASKS[key], count=5)))
    with answering(folder=root) as address:
        where = find_folder([f"{address}/absent", address], TASKS[key].folders)
        remote = open_dataset(where)
        assert (remote.classnames, remote.templates) == (local.classnames, local.templates)
        assert [Path(shard).name for shard in remote.shards] == [Path(shard).name for shard in local.shards]
        assert found_in(remote).members == found_in(local).members
        with pytest.raises(FolderMissing):
            find_folder([address], ("wds_absent_test",))
    with pytest.raises(OSError, match=address):
        find_folder([address], TASKS[key].folders)
    with answering(lambda request: request.send_error(500)) as address, pytest.raises(OSError, match="500"):
        find_folder([address], TASKS[key].folders)


def test_the_first_place_and_the_first_name_are_used(tmp_path):
    flickr = TASKS["retrieval/flickr_1k_test_image_text_retrieval"]
    for place in ("one", "two"):
        for name in flickr.folders:
            (tmp_path / place / name).mkdir(parents=True)
    places = [str(tmp_path / place) for place in ("two", "one")]
    assert find_folder(places, flickr.folders) == str(tmp_path / "two" / flickr.folders[0])
    (tmp_path / "two" / flickr.folders[0]).rmdir()
    assert find_folder(places, flickr.folders) == str(tmp_path / "two" / flickr.folders[1])
    itself = str(tmp_path / "one" / flickr.folders[0])
    assert find_folder([itself], flickr.folders) == itself
    with pytest.raises(FolderMissing):
        find_folder([itself, *places], ("wds_cars_test",))


def test_a_set_is_found_in_a_hub_repository_of_its_name(tmp_path, monkeypatch):
    folder = write_task(tmp_path / "hub" / "datasets" / "owner", DTD, count=3)
    (folder / "train").mkdir()
    (folder / "train" / "0.tar").write_bytes(b"not needed")
    with serving(tmp_path, tmp_path / "cache"):
        found = find_folder(["hf://datasets/nobody", "hf://datasets/owner"], DTD.folders)
        data = open_dataset(found)
        assert data == open_dataset(f"hf://datasets/owner/{DTD.folders[0]}")._replace(source=found)
        assert {path.parent.name for path in Path(found).rglob("*.tar")} == {"test"}
        with pytest.raises(FolderMissing):
            find_folder(["hf://datasets/nobody/"], DTD.folders)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        assert find_folder(["hf://datasets/nobody", "hf://datasets/owner"], DTD.folders) == found
        with pytest.raises(FolderMissing, match="HF_HUB_OFFLINE"):
            find_folder(["hf://datasets/nobody"], DTD.folders)


def test_a_changed_file_changes_the_fingerprint(tmp_path):
    folder = write_task(tmp_path, DTD, count=3)
    seen = [open_dataset(str(folder))]
    assert open_dataset(str(folder)) == seen[0]
    shard = Path(seen[0].shards[1])
    (folder / "classnames.txt").write_text("\ufeffother\n names \n\n", encoding="utf-8")
    seen.append(open_dataset(str(folder)))
    assert seen[-1].classnames == ["other", "names"]
    os.utime(shard, ns=(0, shard.stat().st_mtime_ns + 1))
    seen.append(open_dataset(str(folder)))
    for count in (1, 2):
        (tmp_path / "chosen").write_bytes(bytes(count))
        seen.append(open_dataset(str(folder), selection=str(tmp_path / "chosen")))
    assert len({data.fingerprint for data in seen}) == 5


FAULTS = {
    "an empty line": lambda folder: (folder / "classnames.txt").write_text("first\n\nthird\n"),
    "not text": lambda folder: (folder / "classnames.txt").write_bytes(b"caf\xe9\n"),
    "no number": lambda folder: next(folder.rglob("nshards.txt")).write_text("many"),
    "a missing shard": lambda folder: next(folder.rglob("1.tar")).unlink(),
    "no shard": lambda folder: [path.unlink() for path in (*folder.rglob("*.tar"), *folder.rglob("nshards.txt"))],
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_damaged_folder_is_named(fault, tmp_path):
    folder = write_task(tmp_path, DTD, count=3)
    FAULTS[fault](folder)
    with pytest.raises((UserError, DataError), match=folder.name):
        open_dataset(str(folder))


@pytest.mark.parametrize("source", ["absent", "page.html", "absent.tar"])
def test_what_is_no_data_set_is_named(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("page.html").write_text("<html>")
    with pytest.raises(UserError, match=source):
        open_dataset(source)


# ---- Members --------------------------------------------------------------------------------------------------------


def test_members_stay_with_their_images_when_some_are_unreadable(tmp_path):
    draw = random.Random(0)
    samples = [
        [
            (f"k{n}.png", encoded_image(draw) if n in {1, 2, 5} else b"no image"),
            (f"k{n}.cls", str(n % 3).encode()),
            (f"k{n}.npy", array([n, 7])),
            (f"k{n}.txt", f"one {n}\n\n two {n} \n".encode()),
        ]
        for n in range(6)
    ]
    write_shards(tmp_path / "set", samples)
    (tmp_path / "set" / "classnames.txt").write_text("\n".join(NAMES[:3]))
    data = open_dataset(str(tmp_path / "set"))
    found = found_in(data)
    assert found.keys == ["k1", "k2", "k5"]
    assert read_labels(data, found).tolist() == [1, 2, 2]
    assert read_metadata(data, found, 2).equal(torch.tensor([[1, 7], [2, 7], [5, 7]]))
    with pytest.raises(DataError):
        read_metadata(data, found, 3)
    assert read_captions(data, found).texts == [[f"one {n}", f"two {n}"] for n in (1, 2, 5)]


SET = DataSet("set", (), ["one"], [], "")
IDS = ("captions.text", "id", "captions.id")
RECORD = {"captions": [{"text": "a", "id": 3}, {"text": "b", "id": 4}], "id": 7}


def one(extension, member):
    return Encoded(["k"], [0], [(0, 0)], {extension: [member]})


@pytest.mark.parametrize(
    ("extension", "member", "read"),
    [
        ("cls", b"1", read_labels),
        ("cls", b"-1", read_labels),
        ("cls", b"cat", read_labels),
        ("cls", None, read_labels),
        ("npy", b"nothing", read_metadata),
        ("npy", array([[1, 2]]), read_metadata),
        ("npy", array([-1]), read_metadata),
        ("txt", b" \n", read_captions),
        ("txt", None, read_captions),
        *(
            ("json", json.dumps(RECORD | change).encode(), lambda *given: read_captions(*given, *IDS))
            for change in ({"captions": []}, {"captions": [{"text": None, "id": 3}]}, {"id": "²"}, {"id": None})
        ),
        ("json", json.dumps(RECORD).encode(), lambda *given: read_captions(*given, "captions.text", "id", "id")),
        ("json", b"{", lambda *given: read_captions(*given, *IDS)),
    ],
)
def test_a_wrong_member_is_an_error(extension, member, read):
    with pytest.raises(DataError):
        read(SET, one(extension, member))


def test_dotted_keys_reach_captions_and_ids():
    found = read_captions(SET, one("json", json.dumps(RECORD).encode()), *IDS)
    assert found == ([["a", "b"]], [7], [[3, 4]])
    assert caption_members() == ("txt",)
    assert caption_members("sentences.raw") == ("json",)
    assert caption_members("txt", "cocoid", "sentids") == ("txt", "json")


# ---- Tables and zips ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", [True, False])
def test_a_table_names_images_and_their_captions(packed, tmp_path):
    rows = [["raw", "filename"], [json.dumps(['a "cat"', "two\nlines"]), "2.jpg"], [str(["it's"]), "0.jpg"]]
    write_packed(tmp_path / "set", rows)
    table = tmp_path / "set" / "test.csv"
    table.write_bytes(b"\xef\xbb\xbf" + table.read_bytes())
    if not packed:
        with zipfile.ZipFile(tmp_path / "set" / "images.zip") as archive:
            archive.extractall(tmp_path / "set")
        (tmp_path / "set" / "images.zip").unlink()
    first = open_dataset(str(tmp_path / "set"))
    images = samples_of(first)
    found = Encoded([one.key for one in images], [], [], {"txt": [one.members["txt"] for one in images]})
    assert [(one.key, one.place) for one in images] == [("0", 0), ("1", 1)]
    assert read_captions(first, found).texts == [['a "cat"', "two lines"], ["it's"]]
    assert open_dataset(str(tmp_path / "set")).fingerprint == first.fingerprint
    (tmp_path / "set" / "5.jpg").write_bytes(encoded_image(random.Random(5), "jpeg"))
    assert open_dataset(str(tmp_path / "set")).fingerprint != first.fingerprint
    names = [["1.jpg", "3.jpg"], ["3.jpg", "1.jpg"], ["3"]]
    assert len({open_images(tmp_path / "set", some).fingerprint for some in names}) == 3


@pytest.mark.parametrize("packed", [True, False])
def test_images_of_equal_names_are_told_apart_by_their_folders(packed, tmp_path):
    write_packed(tmp_path / "set", ROWS)
    images = {place: encoded_image(random.Random(place), "jpeg") for place in ("a", "b")}
    with zipfile.ZipFile(tmp_path / "set" / "more.zip", "w") as archive:
        for place, image in images.items():
            archive.writestr(f"{place}/1.jpg", image)
    if not packed:
        with zipfile.ZipFile(tmp_path / "set" / "more.zip") as archive:
            archive.extractall(tmp_path / "set")
    found = samples_of(open_images(tmp_path / "set", ["b/1.jpg", "a/1.jpg"]))
    assert [one.image for one in found] == [images["b"], images["a"]]
    for name in ("1.jpg", "1"):
        with pytest.raises(UserError):
            open_images(tmp_path / "set", [name])


def test_winogavil_candidates_are_matched_to_images_by_name(tmp_path):
    rows = [["cue", "candidates", "associations"], ["x", '["3", "1"]', '["1"]'], ["y", '["1", "0"]', '["1", "0"]']]
    write_packed(tmp_path / "set", rows)
    data, tasks = open_associations(tmp_path / "set")
    assert tasks == [("x", [0, 1], [False, True]), ("y", [1, 2], [True, True])]
    assert [(one.key, one.name) for one in samples_of(data)] == [
        (str(place), f"{tmp_path / 'set'}: {name}") for place, name in enumerate(["3", "1", "0"])
    ]
    write_packed(tmp_path / "other", [rows[0], ["wolf", json.dumps(["0", "1"]), json.dumps(NAMES[:1])]])
    with pytest.raises(UserError):
        open_associations(tmp_path / "other")


@pytest.mark.parametrize(
    "rows",
    [
        [ROWS[0], ["9.jpg", '["a"]']],
        [["raw"], ['["a"]']],
        [ROWS[0], ["1.jpg", "a caption"]],
        [ROWS[0], ["1.jpg", "[1, 2]"]],
        [*ROWS, ["1.jpg"]],
        [*ROWS, ["1.jpg", "x" * 2**24 + "x"]],
    ],
)
def test_a_wrong_table_is_an_error(rows, tmp_path):
    write_packed(tmp_path / "set", rows)
    with pytest.raises(UserError):
        open_dataset(str(tmp_path / "set"))


def test_a_damaged_zip_is_an_error(tmp_path):
    folder = tmp_path / "set"
    write_packed(folder, ROWS)
    whole = (folder / "images.zip").read_bytes()
    start = whole.index(b"images/2.jpg") + len("images/2.jpg")
    for damaged in (whole[: len(whole) // 2], whole[: start + 40] + bytes(40) + whole[start + 80 :]):
        (folder / "images.zip").write_bytes(damaged)
        with pytest.raises(UserError, match="zip"):
            samples_of(open_dataset(str(folder)))


def test_the_images_of_class_folders_are_samples_with_their_class(tmp_path):
    for name in ("a_cat/1.jpg", "dog/x/2.png", "dog/3.jpg"):
        path = tmp_path / "set" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded_image(random.Random(0)))
    data = open_dataset(str(tmp_path / "set"))
    assert data.classnames == ["a cat", "dog"]
    assert [(one.key, one.members["cls"]) for one in samples_of(data)] == [
        ("a_cat/1.jpg", b"0"),
        ("dog/3.jpg", b"1"),
        ("dog/x/2.png", b"1"),
    ]
    (tmp_path / "chosen").touch()
    with refusal_of("selection"):
        open_dataset(str(tmp_path / "set"), selection=str(tmp_path / "chosen"))
