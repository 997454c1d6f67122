"""Published data sets in folders, on servers and on the hub; tables with zips of images as shards."""

from __future__ import annotations

import json
import random
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from tests.support.datacomp_sets import NAMES, TASKS, array, encoded_image, write_packed, write_shards, write_task
from tests.support.http_servers import Request, answering, send_file
from tests.support.hub import serving
from tests.support.shards import read_tar

from prolip.data import BatchLoader, DataError, LoaderConfig, Members
from prolip.embeddings.embed import Embedded
from prolip.errors import UserError
from prolip.evaluation.csv_datasets import open_associations, open_captions
from prolip.evaluation.folders import (
    FolderMissing,
    TaskFolder,
    find_folder,
    open_folder,
    read_captions,
    read_labels,
    read_metadata,
)
from prolip.gaussian import Gaussian

DTD = TASKS["vtab/dtd"]


def found_in(folder: TaskFolder) -> Embedded:
    """A folder's images with their members, by our loader; their Gaussians are left out."""
    keys: list[str] = []
    members: Members = {"cls": [], "npy": [], "txt": []}
    config = LoaderConfig(
        shards=folder.shards,
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
    nothing = torch.zeros(len(keys), 0)
    return Embedded(Gaussian(nothing, nothing), keys, members)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[str, Path, list[str]]]:
    """An address, the folder behind it, and what it was asked for."""
    root, asked = tmp_path / "served", list[str]()
    root.mkdir()

    def answer(request: Request) -> None:
        asked.append(request.path)
        send_file(request)

    with answering(answer, root) as address:
        yield f"{address}/sets", root / "sets", asked


@pytest.mark.parametrize("key", ["vtab/dtd", "cars", "retrieval/flickr_1k_test_image_text_retrieval"])
def test_each_shard_is_downloaded_once(key: str, served: tuple[str, Path, list[str]], tmp_path: Path) -> None:
    address, root, asked = served
    task = TASKS[key]
    original = open_folder(write_task(root, task, count=5))
    fingerprints = set()
    for _ in range(2):
        found = open_folder(find_folder([address], task.folders, tmp_path / "fetched"))
        assert [Path(shard).read_bytes() for shard in found.shards] == [
            Path(shard).read_bytes() for shard in original.shards
        ]
        assert (found.classnames, found.templates) == (original.classnames, original.templates)
        fingerprints.add(found.fingerprint)
    assert len(fingerprints) == 1
    tars = [path for path in asked if path.endswith(".tar")]
    assert len(tars) == len(set(tars)) == len(original.shards)


def test_a_file_missing_on_the_server_is_named(served: tuple[str, Path, list[str]], tmp_path: Path) -> None:
    address, root, _ = served
    with pytest.raises(FolderMissing, match="wds_vtab-dtd_test is not in http"):
        find_folder([address], DTD.folders, tmp_path / "fetched")
    next(write_task(root, DTD, count=5).rglob("1.tar")).unlink()
    with pytest.raises(FileNotFoundError, match=r"1\.tar: there is no such file"):
        find_folder([address], DTD.folders, tmp_path / "fetched")


def test_folders_are_searched_in_the_given_order(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    folder = write_task(second, DTD, count=3)
    for places in ([str(first), str(second)], [str(folder)]):
        assert find_folder(places, DTD.folders, tmp_path) == folder
    with pytest.raises(FolderMissing):
        find_folder([str(first), str(folder)], ("wds_cars_test",), tmp_path)


def write_repository(root: Path, owner: str) -> None:
    """DTD in the hub that serves `root`, with files that evaluation does not need."""
    folder = write_task(root / "hub" / "datasets" / owner, DTD, count=3)
    for name in ("train/0.tar", "README.md"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"not needed")


def test_a_set_is_found_in_a_hub_repository_of_its_name(tmp_path: Path) -> None:
    write_repository(tmp_path, "owner")
    with serving(tmp_path, tmp_path / "cache"):
        found = find_folder(["hf://datasets/nobody", "hf://datasets/owner"], DTD.folders, tmp_path)
        assert len(open_folder(found).shards) == 2
        assert {path.parent.name for path in found.rglob("*.tar")} == {"test"}
        assert not (found / "README.md").exists()
        with pytest.raises(FolderMissing):
            find_folder(["hf://datasets/nobody/"], DTD.folders, tmp_path)


def test_offline_the_hubs_cache_is_searched_for_every_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_repository(tmp_path, "owner")
    with serving(tmp_path, tmp_path / "cache"):
        found = find_folder(["hf://datasets/owner"], DTD.folders, tmp_path)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        assert find_folder(["hf://datasets/nobody", "hf://datasets/owner"], DTD.folders, tmp_path) == found
        with pytest.raises(FolderMissing, match=r"hf://datasets/nobody \(HF_HUB_OFFLINE is set: of the hub, only the"):
            find_folder(["hf://datasets/nobody"], DTD.folders, tmp_path)


def test_a_changed_folder_has_a_new_fingerprint(tmp_path: Path) -> None:
    folder = write_task(tmp_path, DTD, count=3)
    before = open_folder(folder)
    (folder / "classnames.txt").write_text("other\nnames\n")
    assert open_folder(folder).fingerprint != before.fingerprint
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="has no shard"):
        open_folder(tmp_path / "empty")


def test_members_stay_with_their_images_when_some_are_unreadable(tmp_path: Path) -> None:
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
    folder = open_folder(tmp_path / "set")
    found = found_in(folder)
    assert found.keys == ["k1", "k2", "k5"]
    assert read_labels(folder, found).tolist() == [1, 2, 2]
    assert read_metadata(folder, found).equal(torch.tensor([[1, 7], [2, 7], [5, 7]]))
    with pytest.raises(DataError, match=r"the \.npy of samples has 2 columns: 3 are needed"):
        read_metadata(folder, found, 3)
    assert read_captions(folder, found) == [[f"one {n}", f"two {n}"] for n in (1, 2, 5)]


@pytest.mark.parametrize(
    ("member", "read", "message"),
    [
        (("k.cls", b"7"), read_labels, "the class of sample k is b'7': it must be from 0 to 0"),
        (("k.cls", b"1"), read_labels, "the class of sample k is b'1': it must be from 0 to 0"),
        (("k.cls", b"cat"), read_labels, "the class of sample k is b'cat'"),
        (("k.npy", b"nothing"), read_metadata, "the .npy of sample k cannot be read"),
        (("k.npy", array([[1, 2]])), read_metadata, r"is int64 \(1, 2\): it must be a vector"),
        (("k.txt", b" \n"), read_captions, "sample k has no caption"),
        (("k.json", b"{}"), read_captions, "sample k has no .txt"),
    ],
)
def test_a_wrong_member_is_named_with_its_sample(
    member: tuple[str, bytes], read: object, message: str, tmp_path: Path
) -> None:
    write_shards(tmp_path / "set", [[("k.png", encoded_image(random.Random(0))), member]], shards=1)
    (tmp_path / "set" / "classnames.txt").write_text("one")
    folder = open_folder(tmp_path / "set")
    found = found_in(folder)
    with pytest.raises(DataError, match=message):
        read(folder, found)  # type: ignore[operator]


# ---- tables and zips ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", [True, False])
def test_a_table_is_written_to_a_shard_once(packed: bool, tmp_path: Path) -> None:
    captions = ['a "cat"', "two\nlines"]
    rows = [["raw", "filename"], [json.dumps(captions), "2.jpg"], [str(["it's"]), "0.jpg"]]
    write_packed(tmp_path / "set", rows)
    if not packed:
        with zipfile.ZipFile(tmp_path / "set" / "images.zip") as archive:
            archive.extractall(tmp_path / "set")
        (tmp_path / "set" / "images.zip").unlink()
    first = open_captions(tmp_path / "set", tmp_path / "made")
    made = Path(first.shards[0])
    written = made.stat().st_mtime_ns
    found = found_in(first)
    assert found.keys == ["0000000", "0000001"]
    assert read_captions(first, found) == [['a "cat"', "two lines"], ["it's"]]
    assert open_captions(tmp_path / "set", tmp_path / "made") == first
    assert made.stat().st_mtime_ns == written


@pytest.mark.parametrize("packed", [True, False])
def test_images_of_equal_names_are_told_apart_by_their_folders(packed: bool, tmp_path: Path) -> None:
    """A name that fits several images is refused; the last one was taken."""
    write_packed(tmp_path / "set", [["raw", "filename"], ['["x"]', "b/1.jpg"], ['["y"]', "a/1.jpg"]])
    images = {place: encoded_image(random.Random(place), "jpeg") for place in ("a", "b")}
    with zipfile.ZipFile(tmp_path / "set" / "more.zip", "w") as archive:
        for place, image in images.items():
            archive.writestr(f"{place}/1.jpg", image)
    if not packed:
        with zipfile.ZipFile(tmp_path / "set" / "more.zip") as archive:
            archive.extractall(tmp_path / "set")
    (shard,) = open_captions(tmp_path / "set", tmp_path / "made").shards
    assert [data for name, data in read_tar(Path(shard)) if name.endswith("jpg")] == [images["b"], images["a"]]
    for name in ("1.jpg", "1"):
        (tmp_path / "set" / "test.csv").write_text(f"raw,filename\n\"['x']\",{name}\n")
        with pytest.raises(UserError, match=f"set has more than one image {name}: .*1.jpg.* and .*1.jpg"):
            open_captions(tmp_path / "set", tmp_path / "made")


def test_winogavil_candidates_are_matched_to_images_by_name(tmp_path: Path) -> None:
    rows = [["cue", "candidates", "associations"], ["x", '["3", "1"]', '["1"]'], ["y", '["1", "0"]', '["1", "0"]']]
    write_packed(tmp_path / "set", rows)
    folder, tasks = open_associations(tmp_path / "set", tmp_path / "made")
    assert [(task.cue, task.candidates, task.right) for task in tasks] == [
        ("x", [0, 1], [False, True]),
        ("y", [1, 2], [True, True]),
    ]
    assert len(found_in(folder).keys) == 3


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([["raw", "filename"], ['["a"]', "9.jpg"]], "has no image 9.jpg"),
        ([["raw"], ['["a"]']], "has no column filename"),
        ([["raw", "filename"], ["a caption", "1.jpg"]], "'a caption' is not a list of texts"),
        ([["raw", "filename"], ["[1, 2]", "1.jpg"]], "is not a list of texts"),
    ],
)
def test_errors_of_a_table_name_the_fault(rows: list[list[str]], message: str, tmp_path: Path) -> None:
    write_packed(tmp_path / "set", rows)
    with pytest.raises(ValueError, match=message):
        open_captions(tmp_path / "set", tmp_path / "made")
    assert not list((tmp_path / "made").glob("*.tar"))
