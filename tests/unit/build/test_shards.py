"""Written shards: webdataset groups them, they hold no clock and no user, and a folder is replaced as a whole."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from prolip.build.shards import Sample, read_complete, replace_folder
from prolip.errors import UserError

Read = Callable[..., list[dict[str, Any]]]


def sample(number, caption="crème brûlée"):
    return Sample(key=f"{number:03d}", image=bytes([number]), extension="png", caption=caption, record={"ü": number})


def test_written_shards_are_read_back_by_webdataset(tmp_path, read_back):
    out = tmp_path / "a 100% odd name %d"
    with replace_folder(out) as folder:
        folder.write("train", (sample(number) for number in range(5)), 2)
        folder.write("val", [sample(9, None)], 2)
        folder.write("none", [], 2)
        folder.finish({"fingerprint": "f"})
    train = read_back(out, "train-*.tar")
    assert [one["__key__"] for one in train] == ["000", "001", "002", "003", "004"]
    assert [(one["png"], one["txt"].decode(), one["json"]) for one in train] == [
        (bytes([number]), "crème brûlée", {"ü": number}) for number in range(5)
    ]
    assert "txt" not in read_back(out, "val-*.tar")[0]
    record = json.loads((out / "dataset.json").read_text(encoding="utf-8"))
    assert record["samples"] == {"train": 5, "val": 1}
    assert record["shards"] == {
        "train-000000.tar": 2,
        "train-000001.tar": 2,
        "train-000002.tar": 1,
        "val-000000.tar": 1,
    }


def fill(out, mark):
    with replace_folder(out) as folder:
        folder.write("train", [sample(1), sample(2)], 2)
        folder.write_text("tokenizer.json", mark)
        folder.finish({"fingerprint": mark})


def test_a_folder_is_replaced_as_a_whole(tmp_path):
    out = tmp_path / "out"
    fill(out, "one")
    (out / "train-000009.tar").write_bytes(b"left over")
    fill(out, "two")
    assert sorted(path.name for path in out.iterdir()) == ["dataset.json", "tokenizer.json", "train-000000.tar"]
    assert (out / "tokenizer.json").read_text(encoding="utf-8") == "two"
    assert [path.name for path in tmp_path.iterdir()] == ["out"], "nothing is left beside it"


def test_a_build_that_fails_keeps_the_old_folder(tmp_path):
    out = tmp_path / "out"
    fill(out, "one")
    before = {path.name: path.read_bytes() for path in out.iterdir()}

    def stop():
        with replace_folder(out) as folder:
            folder.write("train", [sample(3)], 2)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop()
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_folder_with_other_files_is_never_replaced(tmp_path):
    out = tmp_path / "out"
    fill(out, "one")
    (out / "holiday.jpg").write_bytes(b"dear to somebody")
    with pytest.raises(UserError, match=r"holiday\.jpg"):
        fill(out, "two")
    assert (out / "holiday.jpg").exists()
    (out / "holiday.jpg").unlink()
    (out / "mine").mkdir()
    (out / "mine" / "other.tar").write_bytes(b"shards of somebody")
    with pytest.raises(UserError, match=r"mine/other\.tar"):
        fill(out, "two")
    assert (out / "mine" / "other.tar").exists()
    with pytest.raises(UserError, match=r"dataset\.json"):
        fill(out / "dataset.json", "two")


def test_only_a_complete_folder_with_equal_settings_is_already_built(tmp_path):
    out = tmp_path / "out"
    assert read_complete(out, "one") is None, "there is none"
    fill(out, "one")
    record = read_complete(out, "one")
    assert record["samples"] == {"train": 2}
    assert read_complete(out, "two") is None, "other settings"
    shard = (out / "train-000000.tar").read_bytes()
    (out / "train-000000.tar").write_bytes(shard[:-1])
    assert read_complete(out, "one") is None, "a file was cut short"
    (out / "train-000000.tar").unlink()
    assert read_complete(out, "one") is None, "a file is gone"
    (out / "train-000000.tar").write_bytes(shard)
    assert read_complete(out, "one") is not None
    (out / "dataset.json").write_text("{", encoding="utf-8")
    assert read_complete(out, "one") is None, "the record is damaged"
