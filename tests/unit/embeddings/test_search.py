"""`prolip search`: nearest neighbours equal brute force, and results are shown with images and captions."""

import json
import re
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from tests.support.embed_options import options
from tests.support.ranked_shards import shards
from tests.support.refusals import refusal_of
from tests.support.shards import read_tar
from tests.support.untrained_run import write_run

from prolip.calibration.calibration import Subject
from prolip.calibration.search import KnownQueries, SearchCalibration, save_search_calibration
from prolip.cli import main
from prolip.embeddings.config import SearchOptions
from prolip.embeddings.embed import run_embed
from prolip.embeddings.originals import Original, fetch
from prolip.embeddings.search import (
    Hit,
    answers_table,
    look_up,
    nearest,
    promise,
    run_search,
    unlike_decoys,
)
from prolip.embeddings.storage import PartNotes, Rows, write_part
from prolip.gaussian import Gaussian, inclusion_score
from prolip.inference.load_model import load
from prolip.metrics.retrieval import retrieval_scores
from prolip.store.folder import Folder

DIM = 7


def parts_of(folder, mean, log_var, cuts, stored="float32"):
    """The rows in parts that end at `cuts`."""
    parts = []
    for number, (start, end) in enumerate(zip([0, *cuts], [*cuts, len(mean)], strict=True)):
        keys = [f"k{row}" for row in range(start, end)]
        places, sizes = np.arange(end - start, dtype=np.uint32), np.zeros((end - start, 2), np.int32)
        rows = Rows(keys, places, mean[start:end], log_var[start:end], sizes)
        notes = PartNotes(number=number, kind="image", source="a.tar", stamp="", weights="", rows=end - start)
        parts.append(write_part(Folder(str(folder)), rows, notes, stored, log_var=True))
    return parts


def brute_force(parts, queries, k, score):
    """Every score of every row in double precision, sorted."""
    found = []
    for query in queries.astype(np.float64):
        hits = []
        for place, part in enumerate(parts):
            for block in part.blocks(10**6):
                scores = (block.mean.astype(np.float64) * query).sum(1)
                scores -= block.total_var.astype(np.float64) / 2 if score == "csd" else 0
                hits += [Hit(round(float(value), 9), place, row) for row, value in enumerate(scores)]
        found.append(sorted(hits, key=lambda hit: (-hit.score, hit.part, hit.row))[:k])
    return found


@given(
    seed=st.integers(0, 2**20),
    size=st.integers(1, 60),
    distinct=st.integers(1, 60),
    k=st.integers(1, 12),
    block=st.integers(1, 70),
    cuts=st.lists(st.integers(0, 60), max_size=4),
    score=st.sampled_from(["csd", "mean"]),
    stored=st.sampled_from(["float32", "float16"]),
)
@settings(max_examples=60)
def test_blocks_and_parts_do_not_change_the_results(seed, size, distinct, k, block, cuts, score, stored):
    rng = np.random.default_rng(seed)
    # Fewer distinct rows than rows: many ties.
    pool = rng.normal(size=(distinct, DIM))
    pool = (pool / np.linalg.norm(pool, axis=1, keepdims=True)).astype(np.float32)
    choice = rng.integers(0, distinct, size)
    mean, log_var = pool[choice], np.full((size, DIM), -5, np.float32) + (choice % 3)[:, None].astype(np.float32)
    queries = pool[rng.integers(0, distinct, 3)]
    with TemporaryDirectory() as folder:
        ends = sorted(min(cut, size) for cut in cuts)
        parts = parts_of(Path(folder), mean, log_var, ends, stored)
        found = nearest(parts, queries, k, score, block)
        assert found == brute_force(parts, queries, k, score)
        starts = [0, *ends]
        order = [[starts[hit.part] + hit.row for hit in hits] for hits in found]
        (Path(folder) / "whole").mkdir()
        whole = parts_of(Path(folder) / "whole", mean, log_var, [], stored)
        assert order == [[hit.row for hit in hits] for hits in nearest(whole, queries, k, score)]


@pytest.mark.parametrize("score", ["csd", "mean"])
def test_answers_equal_the_measures(tmp_path, score):
    torch.manual_seed(0)
    mean = torch.nn.functional.normalize(torch.randn(50, DIM), dim=-1)
    items = Gaussian(mean, torch.randn(50, DIM) - 3)
    queries = Gaussian(mean[[3, 40]], torch.randn(2, DIM) - 3)
    parts = parts_of(tmp_path, mean.numpy(), items.log_var.numpy(), [20, 20, 33])
    answers = look_up(parts, nearest(parts, queries.mean.numpy(), 5, score, rows=8), queries)
    scores = retrieval_scores(queries, items, score)
    for query, found in enumerate(answers):
        rows = [int(answer.key[1:]) for answer in found]
        assert rows == scores[query].topk(5).indices.tolist()
        one = queries.rows(slice(query, query + 1))
        chosen = items.rows(torch.tensor(rows))
        for name, expected in (
            ("score", scores[query][rows]),
            ("similarity", chosen.mean @ one.mean[0]),
            ("uncertainty", chosen.total_var),
            ("inclusion", inclusion_score(chosen, one).sum(1)),
        ):
            np.testing.assert_allclose([getattr(answer, name) for answer in found], expected, rtol=1e-4, atol=1e-5)
    table = answers_table("two\nlines", [answers[0][0]._replace(key="a\x1b[31m", caption="one\nmore")])
    assert len(table) == 3, "a query, a key and a caption are in one line each"
    assert not any(letter in line for line in table for letter in "\n\x1b")


# ---- The command ----------------------------------------------------------------------------------------------------


def found_by(lab, **changes):
    """What a search prints as JSON."""
    given = {"embeddings": str(lab / "out"), "device": "cpu", "json": True}
    return json.loads("\n".join(run_search(SearchOptions(**(given | changes)))))


def test_text_and_image_queries_find_images_and_the_sheet_shows_them(lab, tmp_path):
    image, sheet = tmp_path / "k2.png", tmp_path / "new" / "sheet.html"
    image.write_bytes(dict(read_tar(shards(lab)[1]))["k2.png"])
    found = found_by(lab, text=("<nature>",), image=(image,), k=3, score="mean", sheet=sheet)
    assert [(entry["query"], len(entry["answers"])) for entry in found] == [("<nature>", 3), (str(image), 3)]
    first = found[1]["answers"][0]
    assert (first["key"], first["source"]) == ("k2", str(shards(lab)[1]))
    assert (first["file"], first["caption"]) == ("2.jpg", "a nature of travel")
    assert first["similarity"] == pytest.approx(1, abs=1e-5)
    assert first["inclusion"] == pytest.approx(0, abs=1e-3)
    assert first["rank"] == 1
    page = sheet.read_text()
    assert [part.count("data:image/jpeg") for part in page.split("<h2")[1:]] == [3, 4]
    assert "&lt;nature&gt;" in page
    assert "<p>2.jpg</p>" in page
    assert "<nature>" not in page


def test_captions_are_found_and_shown(lab, tmp_path, caplog):
    inputs = {"shards": (str(shards(lab)[0]),), "images": (lab / "images",), "lines": (lab / "lines.txt",)}
    out = tmp_path / "out"
    run_embed(options(lab, out, what="both", caption_key="texts.all", **inputs))
    ask = {"embeddings": str(out), "find": "text", "k": 1, "sheet": tmp_path / "a.html"}
    found = found_by(lab, text=("an emoji", "a picture", "food"), **ask)
    first = [entry["answers"][0] for entry in found]
    assert [(answer["key"], answer["caption"]) for answer in first] == [
        ("2", "an emoji"),
        ("some.where/red.tif", "a picture"),
        ("k0", "food"),
    ]
    assert (tmp_path / "a.html").read_text().count("<blockquote>") == 3
    assert not caplog.records


def test_images_that_are_gone_or_remote_are_left_out(lab, caplog):
    here, far = (str(lab / "images"), "some.where/red.tif"), ("http://127.0.0.1:9/0.tar", "k")
    assert fetch([here, far], None, remote=False) == {here: Original(None, "a picture", None)}
    assert not caplog.records
    shard, lines = str(shards(lab)[0]), str(lab / "lines.txt")
    found = fetch([(shard, "k1"), (shard, "gone"), (lines, "2"), (lines, "99"), ("gone.tar", "a")], 16)
    assert found.keys() == {(shard, "k1"), (lines, "2")}
    image = found[shard, "k1"].image
    assert image.shape == (16, 16, 3)
    assert "gone.tar" in caplog.text
    red = lab / "images" / "some.where" / "red.tif"
    for source, key in (
        (red.parent, f"../{red.parent.name}/red.tif"),
        (red.parent, str(red)),
        (red.parent, ""),
        (red.parent, "red\0.tif"),
        (lines, "-1"),
        (lines, "x"),
    ):
        assert not fetch([(str(source), key)], None), key


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("text", {"text": ()}),
        ("k", {"k": 0}),
        ("{lab}", {"embeddings": "{lab}"}),
        ("checkpoint", {"checkpoint": "{tmp}/other"}),
    ],
)
def test_wrong_settings_are_named(lab, tmp_path, field, changes):
    write_run(tmp_path / "other", tmp_path / "tokenizer.json", context_length=9)
    filled = {name: one.format(lab=lab, tmp=tmp_path) if isinstance(one, str) else one for name, one in changes.items()}
    with refusal_of(field.format(lab=lab)):
        found_by(lab, **({"text": ("a",)} | filled))


# ---- Promises -------------------------------------------------------------------------------------------------------


def calibration(right, wrong, fingerprint="digest", num_images=4):
    """The calibration of 39 text queries with the same scores, and of no image query."""
    known = KnownQueries(
        *torch.tensor([[right], [wrong]], dtype=torch.float64).repeat(1, 39), torch.tensor([2.0, -1.0]).double()
    )
    none = KnownQueries(*torch.zeros(3, 0).double())
    subject = Subject("model", fingerprint, "photos", [], [])
    return SearchCalibration(subject=subject, score="mean", num_images=num_images, text=known, image=none)


HITS = [Hit(score, 0, row) for row, score in enumerate([0.9, 0.8, 0.7, 0.6])]


@pytest.mark.parametrize(
    ("asked", "wrong", "rows", "matches"),
    [
        ({"contains_right": 0.9}, 1, 4, 3),
        ({"max_wrong": 0.1}, 0.89, 4, 4),
        ({"max_wrong": 0.1}, 0.9, 4, 0),
        ({"contains_right": 0.9, "max_wrong": 0.1}, 0.89, 4, 3),
        ({"contains_right": 0.9, "max_wrong": 0.1}, 0.9, 4, 0),
        ({"max_wrong": 0.1}, 0.5, 16, 4),
        ({"max_wrong": 0.1}, 0.5, 17, 0),  # as 0.0235 of the known collection: there are too few queries
    ],
)
def test_results_that_match_are_kept_or_else_the_nearest(asked, wrong, rows, matches):
    found = promise(calibration(0.7, wrong), "text", rows, HITS, asked.get("contains_right"), asked.get("max_wrong"))
    assert (found.matches, found.hits) == (matches, HITS[: matches or 4])
    odds = [4 / rows * np.exp(2 * hit.score - 1) for hit in found.hits]
    np.testing.assert_allclose(found.probabilities, [odd / (1 + odd) for odd in odds])


def test_a_file_of_queries_is_answered_with_promises(lab, tmp_path, capsys, caplog):
    model = load(lab / "run", device="cpu")
    plain = [entry["answers"] for entry in found_by(lab, text=("food", "an emoji"), score="mean")]
    scores = [answers[0]["score"] for answers in plain]
    sure, unsure = (0, 1) if scores[0] > scores[1] else (1, 0)
    save_search_calibration(calibration(0, min(scores), model.fingerprint(), 7), tmp_path / "file")
    (tmp_path / "queries").write_text("food\n\n an emoji\n")
    asked = {"queries": tmp_path / "queries", "calibration": tmp_path / "file", "max_wrong": 0.1}
    found = found_by(lab, **asked, sheet=tmp_path / "sheet.html")
    assert [entry["query"].strip() for entry in found] == ["food", "an emoji"]
    assert (found[sure]["matches"], found[unsure]["matches"]) == (len(plain[0]), 0)
    assert [len(entry["answers"]) for entry in found] == [len(answers) for answers in plain]
    first = found[sure]["answers"][0]
    assert first["probability"] == pytest.approx(1 / (1 + 2 * np.exp(1 - 2 * first["score"]))), "twice the images"
    page = (tmp_path / "sheet.html").read_text()
    assert page.count("right with probability") == 2 * len(plain[0])
    assert page.count("nothing here matches; the nearest:") == 1
    words = f"search --embeddings {lab}/out --device cpu --calibration {tmp_path}/file --max_wrong 0.1 --text"
    assert main([*words.split(), "food", "--text", "an emoji"]) == 0
    told = capsys.readouterr().out
    assert told.count("nothing here matches; the nearest:") == 1
    assert "like those of photos, and for no others" in told
    assert main([*words.split()[:-1], "--queries", f"{tmp_path}/queries", "--contains_right", "0.9", "--k", "2"]) == 0
    table = [re.split("  +", line.strip()) for line in capsys.readouterr().out.splitlines()[1:3]]
    assert [row[0] for row in table] == ["food", "an emoji"]
    assert (table[sure][1], table[unsure][1]) == ("2", "nothing")
    assert [record.args for record in caplog.records] == [(2, 1)], "--k is too small for one query"


def decoys(wrong, words, depth_scores, fingerprint=""):
    """The calibration of decoys with the same best score."""
    none, best = torch.zeros(0).double(), torch.full((len(words),), wrong).double()
    known = replace(calibration(0, 0, fingerprint, 7), text=KnownQueries(none, best, none))
    return replace(known, words=words, depth_scores=depth_scores)


def test_a_search_calibrated_by_decoys_says_only_if_nothing_matches(lab, tmp_path, capsys, caplog):
    model = load(lab / "run", device="cpu")
    save_search_calibration(decoys(-1, [2, 3] * 15, [0.0] * 30, model.fingerprint()), tmp_path / "file")
    found = found_by(lab, text=("food and travel",), max_wrong=0.1, calibration=tmp_path / "file")[0]
    assert (found["matches"], found["contained"]) == (len(found["answers"]), None)
    assert not caplog.records
    (tmp_path / "queries").write_text("food")
    words = f"search --embeddings {lab}/out --device cpu --calibration {tmp_path}/file --max_wrong 0.1"
    assert main([*words.split(), "--queries", f"{tmp_path}/queries"]) == 0
    assert capsys.readouterr().out.split()[:4] == ["query", "shown", "score", "nearest"]
    assert len(caplog.records) == 1, "fewer words than any decoy has"


@pytest.mark.parametrize("count", [1, 60])
@pytest.mark.parametrize(("longer", "nearer"), [(0, 0), (20, 0), (0, 9)])
def test_queries_unlike_the_decoys_are_told(count, longer, nearer):
    rng, alarms = np.random.default_rng(0), np.zeros(2)
    for _ in range(100):
        known = decoys(0, rng.integers(3, 9, 300).tolist(), rng.normal(size=300).tolist())
        texts = ["word " * number for number in rng.integers(3, 9, count) + longer]
        hits = [[Hit(9, 0, 0)] * 49 + [Hit(score, 0, 0), Hit(-9, 0, 0)] for score in rng.normal(size=count) + nearer]
        told = str(unlike_decoys(known, texts, hits, 7))
        alarms += ["words" in told, "scores" in told]
        assert "scores" not in str(unlike_decoys(known, texts, hits, 8)), "another collection"
    assert (alarms == 100).tolist() == [longer > 0, nearer > 0]
    assert alarms[alarms < 100].max() < 5


def test_promises_that_nothing_backs_are_refused(lab, tmp_path):
    file, other = tmp_path / "file", tmp_path / "other"
    save_search_calibration(calibration(0, 0, load(lab / "run", device="cpu").fingerprint()), file)
    save_search_calibration(calibration(0, 0), other)
    asked = {"text": ("a",), "max_wrong": 0.1, "calibration": file}
    for field, changes in (
        ("calibration", {"calibration": None}),
        (f"{other}: calibration", {"calibration": other}),
        ("score", {"score": "csd"}),
        ("find", {"find": "text"}),
        ("max_wrong", {"max_wrong": 1.5}),
        ("calibration", {"text": (), "image": (lab / "images" / "some.where" / "red.tif",)}),
    ):
        with refusal_of(field):
            found_by(lab, **(asked | changes))
