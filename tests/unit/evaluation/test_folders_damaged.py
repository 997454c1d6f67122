"""Damaged and stale data sets: each error names its cause, and nothing stale is used."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from huggingface_hub.errors import HfHubHTTPError
from tests.support.datacomp_sets import NAMES, TASKS, encoded_image, write_packed, write_task
from tests.support.http_servers import Request, answering, send_file
from tests.support.hub import GATED, serving
from tests.support.shards import read_tar

from prolip.errors import UserError
from prolip.evaluation.caption_sets import open_captioned
from prolip.evaluation.csv_datasets import open_associations, open_captions, open_images
from prolip.evaluation.folders import find_folder, open_folder

DTD = TASKS["vtab/dtd"]


# ---- servers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [403, 500])
def test_a_server_error_names_the_address_and_status(code: int, tmp_path: Path) -> None:
    said = rf"^http.*/wds_vtab-dtd_test/test/nshards\.txt: HTTP Error {code}"
    with answering(lambda request: request.send_error(code)) as address, pytest.raises(OSError, match=said):
        find_folder([address], DTD.folders, tmp_path)


def test_an_unreachable_server_is_named(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"http://127\.0\.0\.1:9/sets/wds_vtab-dtd_test/.*refused"):
        find_folder(["http://127.0.0.1:9/sets"], DTD.folders, tmp_path)


@pytest.mark.parametrize("how", ["length", "chunks"])
def test_a_truncated_download_is_fetched_again(how: str, tmp_path: Path) -> None:
    root = tmp_path / "served"
    original = open_folder(write_task(root, DTD, count=5))
    cut = [True]

    def answer(request: Request) -> None:
        if not (cut[0] and request.path.endswith("1.tar")):
            send_file(request)
            return
        request.protocol_version = "HTTP/1.1"
        request.close_connection = True
        request.send_response(200)
        if how == "length":
            request.send_header("Content-Length", "20480")
            request.end_headers()
            request.wfile.write(b"x" * 512)
        else:
            request.send_header("Transfer-Encoding", "chunked")
            request.end_headers()
            request.wfile.write(b"400\r\n" + b"x" * 512)

    said = "the answer ended after 512 of 20480 bytes" if how == "length" else "IncompleteRead"
    with answering(answer, root) as address:
        with pytest.raises(OSError, match=rf"{address}/.*1\.tar: {said}"):
            find_folder([address], DTD.folders, tmp_path / "fetched")
        cut[0] = False
        found = open_folder(find_folder([address], DTD.folders, tmp_path / "fetched"))
    assert [Path(shard).read_bytes() for shard in found.shards] == [
        Path(shard).read_bytes() for shard in original.shards
    ]


def test_downloads_from_two_addresses_are_kept_apart(tmp_path: Path) -> None:
    found = []
    for number, count in enumerate((5, 9)):
        root = tmp_path / str(number)
        original = open_folder(write_task(root, DTD, count=count))
        with answering(folder=root) as address:
            place = find_folder([address], DTD.folders, tmp_path / "fetched")
        assert place.name == "wds_vtab-dtd_test"
        found.append([Path(shard).read_bytes() for shard in open_folder(place).shards])
        assert found[-1] == [Path(shard).read_bytes() for shard in original.shards]
    assert found[0] != found[1]


def test_a_file_that_is_downloaded_twice_at_once_is_whole(tmp_path: Path) -> None:
    root = tmp_path / "served"
    original = open_folder(write_task(root, DTD, count=5))
    asked: list[str] = []

    def answer(request: Request) -> None:
        asked.append(request.path)
        if not (request.path.endswith("1.tar") and sum(path.endswith("1.tar") for path in asked) == 1):
            send_file(request)
            return
        content = (root / request.path.strip("/")).read_bytes()
        request.send_response(200)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content[:512])
        find_folder([address], DTD.folders, tmp_path / "fetched")  # as another process would
        request.wfile.write(content[512:])

    with answering(answer, root) as address:
        found = open_folder(find_folder([address], DTD.folders, tmp_path / "fetched"))
    assert sum(path.endswith("1.tar") for path in asked) == 2
    assert [Path(shard).read_bytes() for shard in found.shards] == [
        Path(shard).read_bytes() for shard in original.shards
    ]


def test_what_the_hub_refuses_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (write_task(tmp_path / "hub" / "datasets" / "owner", DTD) / GATED).touch()
    named = f"owner/{DTD.folders[0]}"
    with serving(tmp_path, tmp_path / "cache"):
        with pytest.raises(UserError, match=f"^{named}: access must be granted on its page, and `hf auth login`"):
            find_folder(["hf://datasets/owner"], DTD.folders, tmp_path)
        with pytest.raises(UserError, match=f"^{named}/.* is not a hub repository: it must be OWNER/NAME$"):
            find_folder([f"hf://datasets/{named}"], DTD.folders, tmp_path)
    http_error = HfHubHTTPError.__bases__[0]

    def cut(*words: object, **settings: object) -> str:
        raise http_error("peer closed the connection")

    monkeypatch.setattr("prolip.pretrained.download.snapshot_download", cut)
    with pytest.raises(UserError, match=f"^{named}: the data set cannot be downloaded: peer closed the connection$"):
        find_folder(["hf://datasets/owner"], DTD.folders, tmp_path)


# ---- folders --------------------------------------------------------------------------------------------------------


def test_the_first_folder_and_the_first_name_are_used(tmp_path: Path) -> None:
    flickr = TASKS["retrieval/flickr_1k_test_image_text_retrieval"]
    for place in ("one", "two"):
        for name in flickr.folders:
            (tmp_path / place / name).mkdir(parents=True)
    places = [str(tmp_path / place) for place in ("two", "one")]
    assert find_folder(places, flickr.folders, tmp_path) == tmp_path / "two" / flickr.folders[0]
    (tmp_path / "two" / flickr.folders[0]).rmdir()
    assert find_folder(places, flickr.folders, tmp_path) == tmp_path / "two" / flickr.folders[1]


def test_a_changed_shard_of_equal_size_changes_the_fingerprint(tmp_path: Path) -> None:
    folder = write_task(tmp_path, DTD, count=3)
    before, shard = open_folder(folder), Path(open_folder(folder).shards[1])
    captioned = open_captioned(str(shard), tmp_path)
    assert open_folder(folder).fingerprint == before.fingerprint
    status = shard.stat()
    shard.write_bytes(shard.read_bytes())
    os.utime(shard, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert open_folder(folder).fingerprint != before.fingerprint
    assert open_captioned(str(shard), tmp_path).fingerprint != captioned.fingerprint
    before = open_folder(folder)
    with shard.open("ab") as file:
        file.write(bytes(512))
    os.utime(shard, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert open_folder(folder).fingerprint != before.fingerprint


def test_an_empty_line_among_class_names_is_an_error(tmp_path: Path) -> None:
    folder = write_task(tmp_path, DTD, count=3)
    names = folder / "classnames.txt"
    names.write_text("\ufefffirst\n second \n\n\n", encoding="utf-8")
    assert open_folder(folder).classnames == ["first", "second"]
    names.write_text("first\n\nthird\n")
    with pytest.raises(ValueError, match=r"classnames\.txt: line 2 is empty"):
        open_folder(folder)
    names.write_bytes(b"caf\xe9\n")
    with pytest.raises(ValueError, match=r"classnames\.txt is not UTF-8"):
        open_folder(folder)


# ---- tables and zips ------------------------------------------------------------------------------------------------


def names_in(shards: Sequence[str]) -> list[str]:
    (shard,) = shards
    return [name for name, _ in read_tar(Path(shard))]


ROWS = [["filename", "raw"], ["0.jpg", '["a"]'], ["2.jpg", '["b"]']]


def test_a_damaged_zip_is_named_and_leaves_no_shard(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    write_packed(folder, ROWS)
    packed = folder / "images.zip"
    whole = packed.read_bytes()
    packed.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"images\.zip: File is not a zip file"):
        open_captions(folder, tmp_path / "made")
    start = whole.index(b"images/2.jpg") + len("images/2.jpg")
    packed.write_bytes(whole[: start + 40] + bytes(40) + whole[start + 80 :])
    with pytest.raises(ValueError, match=r"images\.zip: images/2\.jpg: "):
        open_captions(folder, tmp_path / "made")
    assert not list((tmp_path / "made").iterdir()), "no half of a shard is left"
    packed.write_bytes(whole)
    assert names_in(open_captions(folder, tmp_path / "made").shards)[::2] == ["0000000.jpg", "0000001.jpg"]


def test_a_changed_table_is_written_to_a_new_shard(tmp_path: Path) -> None:
    folder, made = tmp_path / "set", tmp_path / "made"
    write_packed(folder, ROWS)
    first = open_captions(folder, made)
    other = open_images(folder, made, ["1.jpg", "3.jpg"])
    assert other.fingerprint != first.fingerprint
    assert names_in(other.shards) == ["0000000.jpg", "0000001.jpg"]
    assert open_images(folder, made, ["3.jpg", "1.jpg"]).shards != other.shards
    (folder / "5.jpg").write_bytes(encoded_image(random.Random(5), "jpeg"))
    assert open_captions(folder, made).fingerprint != first.fingerprint


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([*ROWS, ["1.jpg"]], "'' is not a list of texts"),
        ([*ROWS, ["1.jpg", "x" * 2**24 + "x"]], r"test\.csv: field larger than field limit"),
    ],
)
def test_a_damaged_table_is_named(rows: list[list[str]], message: str, tmp_path: Path) -> None:
    write_packed(tmp_path / "set", rows)
    with pytest.raises(ValueError, match=message):
        open_captions(tmp_path / "set", tmp_path / "made")


def test_a_table_may_begin_with_a_byte_order_mark_but_must_be_text(tmp_path: Path) -> None:
    write_packed(tmp_path / "set", ROWS)
    table = tmp_path / "set" / "test.csv"
    table.write_bytes(b"\xef\xbb\xbf" + table.read_bytes())
    assert len(names_in(open_captions(tmp_path / "set", tmp_path / "made").shards)) == 4
    table.write_bytes(b"filename,raw\n\xff,[]\n")
    with pytest.raises(ValueError, match=r"test\.csv: 'utf-8' codec"):
        open_captions(tmp_path / "set", tmp_path / "made")


def test_a_cue_whose_associations_are_no_candidates_is_named(tmp_path: Path) -> None:
    rows = [["cue", "candidates", "associations"], ["wolf", json.dumps(["0", "1"]), json.dumps(NAMES[:1])]]
    write_packed(tmp_path / "set", rows)
    with pytest.raises(ValueError, match="the associations of 'wolf' are not among its candidates"):
        open_associations(tmp_path / "set", tmp_path / "made")
