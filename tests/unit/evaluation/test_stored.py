"""Suites and calibrations on imported vectors, without a model: class vectors and captions are looked up."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from tests.support.captioned_world import evaluate
from tests.support.refusals import refusal_of
from tests.support.suite_results import values
from tests.support.untrained_run import write_run

from prolip.calibration.search import load_search_calibration
from prolip.cli import main
from prolip.evaluation.calibrate_search import run_calibrate_search
from prolip.evaluation.config import CalibrateSearchOptions
from prolip.evaluation.results import RowId
from prolip.evaluation.stored import open_data, open_model
from prolip.metrics.statistics import auroc, equal_mass_error, value_of

CLASSES, ROWS, DIM = ["red fox", "blue car", "oak"], 90, 8


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """Imported images with labels and captions, their texts, and class vectors; and the accuracy."""
    folder, noise = tmp_path_factory.mktemp("stored"), np.random.default_rng(0)
    classes, labels = np.eye(DIM)[: len(CLASSES)], np.arange(ROWS) % len(CLASSES)
    image, text = (classes[labels] + 0.5 * noise.normal(size=(ROWS, DIM)) for _ in range(2))
    for name, rows in (("image", image), ("text", text), ("classes", classes)):
        np.save(folder / f"{name}.npy", rows.astype(np.float32))
    (folder / "classes.txt").write_text("\n".join(CLASSES))
    names = {"label": [CLASSES[label] for label in labels], "caption": [f"caption  {row}" for row in range(ROWS)]}
    pq.write_table(pa.table(names), folder / "names.parquet")
    files = f"--image {folder}/image.npy --text {folder}/text.npy --metadata {folder}/names.parquet"
    words = f"--text {folder}/classes.npy --metadata {folder}/classes.txt"
    for given, out in ((files, "pairs"), (words, "classes")):
        assert main(f"import {given} --dtype float32 --rows_per_part 40 --out {folder}/{out}".split()) == 0
    return folder, float(((image @ classes.T).argmax(axis=1) == labels).mean())


def test_a_checkpoint_is_opened_as_a_model(tmp_path):
    write_run(tmp_path / "run", tmp_path / "tokenizer.json", context_length=6)
    (checkpoint,) = (tmp_path / "run" / "checkpoints").glob("step_*")
    assert open_model(str(checkpoint)).encode_texts(["a picture"], progress=False).mean.shape == (1, 32)


def test_a_model_of_stored_texts_classifies_stored_images(lab):
    folder, accuracy = lab
    model, data = open_model(f"{folder}/classes"), open_data(f"{folder}/pairs")
    assert data.classnames == sorted(CLASSES)
    assert data.encoded is not None
    texts = model.encode_texts(data.classnames, batch_size=1, progress=False).mean
    truth = np.array([int(label) for label in data.encoded(model).members["cls"]])
    assert ((data.encoded(model).gaussian.mean @ texts.T).argmax(1).numpy() == truth).mean() == accuracy
    with refusal_of("text"):
        model.encode_texts(["a text that is nòt there"], progress=False)
    with refusal_of("checkpoint"):
        model.encode_images(np.zeros((8, 8), np.uint8), progress=False)


@pytest.mark.parametrize(
    ("suite", "model"), [("zero_shot", "classes"), ("decisions", "classes"), ("retrieval", "pairs")]
)
def test_suites_run_without_a_model(lab, suite, model):
    folder, _ = lab
    out = folder / "evals" / suite
    assert main(f"eval {suite} --checkpoint {folder}/{model} --data {folder}/pairs --out {out}".split()) == 0
    assert (out / "results.json").stat().st_size > 1000


def cosines(folder):
    image, text = (torch.from_numpy(np.load(folder / f"{name}.npy")) for name in ("image", "text"))
    return torch.cosine_similarity(text[:, None], image, dim=-1)


def test_the_posterior_says_if_the_first_result_is_right(lab, tmp_path):
    folder, _ = lab
    found = evaluate("retrieval", f"{folder}/pairs", tmp_path, "--data", f"{folder}/pairs")
    likely, first = (100 * cosines(folder)).softmax(1).max(1)
    for measure, statistic in (("first_is_right_auroc", auroc), ("first_is_right_error", equal_mass_error)):
        expected = pytest.approx(value_of(statistic, likely, first == torch.arange(ROWS)), abs=1e-4)
        assert values(found)[RowId(measure, way="text_to_image", by="mean_posterior")] == expected


def test_calibrations_are_found_beside_the_texts(lab):
    folder, _ = lab
    assert main(f"calibrate --checkpoint {folder}/classes --data {folder}/pairs".split()) == 0
    assert main(f"calibrate search --checkpoint {folder}/pairs --data {folder}/pairs --caption_key txt".split()) == 0
    assert open_model(f"{folder}/classes").calibration is not None
    assert open_model(f"{folder}/pairs").search_calibration is not None


def test_decoys_calibrate_restraint_alone_and_it_is_measured(lab, tmp_path):
    folder, _ = lab
    (tmp_path / "decoys").write_text("caption 3\n\n" + "\n".join(f"caption  {row}" for row in range(30)))
    asked = {"checkpoint": f"{folder}/pairs", "out": tmp_path / "file", "decoys": tmp_path / "decoys"}
    for field, more in (("data", {"decoys": None}), ("data", {"data": "a"}), ("embeddings", {})):
        with refusal_of(field):
            CalibrateSearchOptions(**asked | more)
    run_calibrate_search(CalibrateSearchOptions(**asked, embeddings=f"{folder}/pairs"))
    best = cosines(folder).sort(descending=True).values
    found = load_search_calibration(tmp_path / "file")
    torch.testing.assert_close(found.text.wrong[:4].float(), best[[3, 0, 1, 2], 0])
    torch.testing.assert_close(torch.tensor(found.depth_scores[4:]), best[4:30, 49])
    assert (found.words, found.num_images) == ([2] * 30, ROWS)
    words = f"--data {folder}/pairs --calibration {tmp_path}/file --max_wrong 0.6"
    rows = evaluate("retrieval", f"{folder}/pairs", tmp_path, *words.split())["figures"]
    judged = {row["id"]["measure"]: [*row["value"].values()] for row in rows if [*row["verdict"].values()] != [""]}
    wrong = cosines(folder).masked_fill(torch.eye(ROWS).bool(), -1).amax(1)
    shown = float((wrong <= found.text.limits(None, 0.6).shown).float().mean())
    assert judged == {"nothing_in_vain": [pytest.approx(shown, abs=1.01 / ROWS)]}
