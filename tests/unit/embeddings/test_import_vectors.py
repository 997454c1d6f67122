"""`prolip import`: vectors of other programs become a folder of embeddings, which works without a model."""

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.support.refusals import refusal_of

import prolip
from prolip.cli import main
from prolip.embeddings.config import ImportOptions, SearchOptions
from prolip.embeddings.import_vectors import run_import
from prolip.embeddings.search import run_search
from prolip.embeddings.storage import Manifest, complete_parts, paired_parts
from prolip.store.folder import Folder

ROWS, DIM = 53, 6


def unit(rows=ROWS, seed=0):
    values = np.random.default_rng(seed).normal(size=(rows, DIM))
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


def clip_retrieval(folder, image, text):
    """Its layout: three files of each kind, numbered, in float16; captions and paths in Parquet files."""
    for name in ("img_emb", "text_emb", "metadata"):
        (folder / name).mkdir(parents=True)
    for number, rows in zip((0, 2, 10), np.array_split(np.arange(ROWS), 3), strict=True):
        np.save(folder / "img_emb" / f"img_emb_{number}.npy", image[rows].astype(np.float16))
        np.save(folder / "text_emb" / f"text_emb_{number}.npy", text[rows].astype(np.float16))
        names = {"image_path": [f"{row}.jpg" for row in rows], "caption": [f"a photo {row}" for row in rows]}
        pq.write_table(pa.table(names), folder / "metadata" / f"metadata_{number}.parquet")
    return folder


def means(folder, kind="image"):
    return np.concatenate(
        [block.mean for part in complete_parts(Folder(str(folder)), kind)[1] for block in part.blocks()]
    )


def test_every_layout_holds_the_same_rows(tmp_path):
    image, text = unit(seed=0), unit(seed=1)
    folder = clip_retrieval(tmp_path / "theirs", image, text)
    np.save(tmp_path / "image.npy", image * 3)
    np.savez(tmp_path / "pairs.npz", image=image, texts=text)
    lists = {
        name: pa.FixedSizeListArray.from_arrays(rows.ravel(), DIM) for name, rows in (("image", image), ("text", text))
    }
    pq.write_table(pa.table(lists), tmp_path / "pairs.parquet")
    npy, npz, parquet = (tmp_path / f"{name}" for name in ("image.npy", "pairs.npz", "pairs.parquet"))
    given: dict[str, dict[str, Any]] = {
        "folder": {"image": (folder / "img_emb",), "text": (folder / "text_emb",), "metadata": (folder / "metadata",)},
        "npz": {"image": (npz,), "text": (npz,)},
        "parquet": {"image": (parquet,), "text": (parquet,)},
        "npy": {"image": (npy,)},
    }
    for name, sources in given.items():
        lines = run_import(ImportOptions(**sources, out=str(tmp_path / name), rows_per_part=20))
        np.testing.assert_allclose(means(tmp_path / name), image, atol=2e-3)
        assert (len(lines) == 2) == (name == "npy"), "rows of another norm are told of"
        if name != "npy":
            np.testing.assert_allclose(means(tmp_path / name, "text"), text, atol=2e-3)
            assert [one.count for one, _ in paired_parts(Folder(str(tmp_path / name)))] == [20, 20, 13]
    parts = complete_parts(Folder(str(tmp_path / "folder")), "image")[1]
    assert [key for part in parts for key in part.names()[0]] == [f"{row}.jpg" for row in range(ROWS)]
    assert Manifest.read(Folder(str(tmp_path / "npy"))).rows == {"image": ROWS}


def test_without_a_model_rows_and_vectors_are_searched_and_variances_counted(tmp_path, capsys):
    image, text = unit(seed=0), unit(seed=1)
    folder = clip_retrieval(tmp_path / "theirs", image, text)
    sources = [f"--{name} {folder}/{place}" for name, place in (("image", "img_emb"), ("text", "text_emb"))]
    sources = " ".join([*sources, f"--metadata {folder}/metadata"]).split()
    assert main(["import", *sources, "--out", f"{tmp_path}/mine"]) == 0
    np.save(tmp_path / "query.npy", text[:2])
    ask = ["search", "--embeddings", f"{tmp_path}/mine", "--k", "3", "--json"]
    capsys.readouterr()
    assert main([*ask, "--row", "7.jpg", "--vector", f"{tmp_path}/query.npy"]) == 0
    found = json.loads(capsys.readouterr().out)
    order = np.argsort(-text[:2] @ image.T, axis=1)[:, :3]
    by_title = {one["query"]: [answer["key"] for answer in one["answers"]] for one in found}
    assert by_title.pop("7.jpg")[0] == "7.jpg"
    assert [*by_title.values()] == [[f"{row}.jpg" for row in some] for some in order]
    assert found[0]["answers"][0]["caption"].startswith("a photo")
    logits = 100.0 * means(tmp_path / "mine") @ text[0]
    expected = np.sort(np.exp(logits - logits.max()))[::-1] / np.exp(logits - logits.max()).sum()
    (asked,) = (one for one in found if one["query"].endswith("[0]"))
    assert [answer["posterior"] for answer in asked["answers"]] == pytest.approx(expected[:3].tolist(), rel=0.05)
    with refusal_of("checkpoint"):
        run_search(SearchOptions(embeddings=f"{tmp_path}/mine", text=("a cat",)))
    with refusal_of("row"):
        run_search(SearchOptions(embeddings=f"{tmp_path}/mine", row=("absent",)))

    count = f"adapt --method counted --counted.strength 1 --embeddings {tmp_path}/mine --out {tmp_path}/counted"
    assert main(count.split()) == 0
    assert main(["import", *sources, "--checkpoint", f"{tmp_path}/counted", "--out", f"{tmp_path}/vague"]) == 0
    parts = complete_parts(Folder(f"{tmp_path}/vague"), "image")[1]
    variance = np.concatenate([part.total_var()[1] for part in parts])
    assert len(np.unique(variance)) > ROWS // 2
    capsys.readouterr()
    assert main([*ask[:2], f"{tmp_path}/vague", *ask[3:], "--vector", f"{tmp_path}/query.npy"]) == 0
    found = json.loads(capsys.readouterr().out)
    order = np.argsort(-(text[:2] @ image.T - variance / 2), axis=1)[:, :3]
    assert [[answer["key"] for answer in one["answers"]] for one in found] == [
        [f"{row}.jpg" for row in some] for some in order
    ]
    with refusal_of(f"{tmp_path}/counted"):
        prolip.load(tmp_path / "counted")
    for command in ("data dedupe", "data select --by csd"):
        assert main([*command.split(), "--embeddings", f"{tmp_path}/vague", "--out", f"{tmp_path}/{command[5:8]}"]) == 0


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("a.npy row 9", lambda rows: np.where(np.arange(ROWS)[:, None] == 9, np.nan, rows)),
        ("a.npy row 9", lambda rows: np.where(np.arange(ROWS)[:, None] == 9, 0, rows)),
        ("a.npy", lambda rows: rows[0]),
        ("a.npy", lambda rows: rows.astype(np.int32)),
        ("image, text, metadata", lambda rows: rows[:-1]),
        ("text", lambda rows: rows[:, :-1]),
        ("image", lambda rows: rows[:0]),
        ("out", None),
        ("logit_scale", None),
    ],
)
def test_vectors_that_do_not_fit_are_refused(field, change, tmp_path):
    np.save(tmp_path / "a.npy", unit() if change is None else change(unit()))
    np.save(tmp_path / "b.npy", unit())
    both = field in {"image, text, metadata", "text"}
    given: dict[str, Any] = {"image": (tmp_path / "a.npy",), "text": (tmp_path / "b.npy",) if both else ()}
    given |= {"logit_scale": 0.0} if field == "logit_scale" else {}
    if field == "out":
        run_import(ImportOptions(**given, out=str(tmp_path / "out")))
    named = str(tmp_path / field) if field.startswith("a.npy") else field
    with refusal_of(named):
        run_import(ImportOptions(**given, out=str(tmp_path / "out")))
