"""Evaluation, pages and copies give the same results from real servers as from the disk."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from tests.support import servers
from tests.support.captioned_sets import write_pairs
from tests.support.http_servers import answering
from tests.support.object_stores import s3_settings
from tests.support.remote_shards import BUCKET
from tests.support.suite_results import values
from tests.support.untrained_run import write_run

from prolip.cli import main
from prolip.data import BatchLoader, LoaderConfig
from prolip.store.selection import Chosen, write_selection


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A run, and `sets/wds_pairs_test/test` with two shards of captioned, labelled images, plain and compressed."""
    lab = tmp_path_factory.mktemp("far")
    write_run(lab / "run", lab / "tokenizer.json", context_length=8)
    write_pairs(lab / "sets" / "wds_pairs_test")
    for shard in lab.rglob("*.tar"):
        Path(f"{shard}.gz").write_bytes(gzip.compress(shard.read_bytes(), 1))
    return lab


def figures(lab, out, suite, data, *more):
    words = ["eval", suite, *f"--checkpoint {lab}/run --out {out} --num_resamples 0".split()]
    assert main([*words, "--data", data, *more]) == 0
    found = json.loads((out / "results.json").read_text())
    return values(found)


@pytest.mark.parametrize("way", ["no ranges", "s3"])
def test_remote_shards_give_the_figures_of_local_ones(way, lab, tmp_path, monkeypatch):
    folder = lab / "sets" / "wds_pairs_test" / "test"
    retrieval = ["--caption_key", "sentences.raw"]
    near = figures(lab, tmp_path / "near", "retrieval", f"{folder}/{{0..1}}.tar", *retrieval)
    assert len(near) > 6
    match way:
        case "s3":
            server = servers.moto(folder, BUCKET)
        case _:
            server = answering(folder=folder)
    with server as url:
        address, plain = url, "{0..1}.tar"
        if way == "s3":
            s3_settings(monkeypatch, url)
            address, plain = f"s3://{BUCKET}/data", "*.tar"
        plain = f"{address}/{plain}"
        assert figures(lab, tmp_path / "far", "retrieval", plain, *retrieval) == near
        assert figures(lab, tmp_path / "packed", "retrieval", f"{address}/{{0..1}}.tar.gz", *retrieval) == near
        near = figures(lab, tmp_path / "near", "uncertainty", f"{folder}/*.tar", "--caption_key", "txt")
        assert figures(lab, tmp_path / "far", "uncertainty", plain, "--caption_key", "txt") == near


def test_a_remote_folder_is_evaluated_with_its_class_names(lab, tmp_path):
    near = figures(lab, tmp_path / "near", "uncertainty", str(lab / "sets" / "wds_pairs_test"))
    assert "accuracy" in {row.measure for row in near}
    with servers.nginx(lab / "sets", tmp_path) as url:
        assert figures(lab, tmp_path / "far", "uncertainty", f"{url}/wds_pairs_test/") == near


def test_chosen_samples_of_remote_shards_are_copied(lab, tmp_path):
    folder = lab / "sets" / "wds_pairs_test" / "test"
    local = BatchLoader(LoaderConfig(shards=(f"{folder}/*.tar",), batch_size=1, image_size=0, captions=()))

    def copies(place, name, suffix):
        chosen, out = tmp_path / f"{name}.parquet", tmp_path / name
        rows = np.array([0, 4], np.uint32)
        write_selection(
            str(chosen),
            (Chosen(f"{place}/{number}{suffix}", stamp, rows) for number, stamp in enumerate(local.stamps())),
        )
        assert main(f"data copy --selection {chosen} --out {out}".split()) == 0
        files = {path.name: path.read_bytes() for path in out.iterdir()}
        files.pop("copy.json")
        return files

    near = copies(str(folder), "near", ".tar")
    assert sorted(near) == ["0.tar", "1.tar"]
    assert copies(str(folder), "packed", ".tar.gz") == near
    with servers.nginx(folder, tmp_path) as url:
        assert copies(url, "far", ".tar") == near
        assert copies(url, "far-packed", ".tar.gz") == near
