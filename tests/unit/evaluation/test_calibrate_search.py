"""`prolip calibrate search`, and what a search promises in `prolip eval retrieval`, against loops over the captions."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from tests.support.captioned_sets import COUNT, caption
from tests.support.captioned_world import embedded
from tests.support.class_folders import LABELS, write_calibrated_world
from tests.support.embed_options import options
from tests.support.flags import latest
from tests.support.random_gaussians import gaussians
from tests.support.suite_results import values
from tests.support.untrained_run import write_run

import prolip
from prolip.calibration.search import load_search_calibration, save_search_calibration
from prolip.cli import main
from prolip.embeddings.embed import run_embed
from prolip.evaluation.calibrate_search import find_queries
from prolip.evaluation.results import RowId
from prolip.metrics.retrieval import retrieval_scores
from prolip.metrics.uncertainty import area_under_risk_coverage


def test_queries_are_the_distinct_captions_and_images_that_share_one():
    images, asked = gaussians(4, 8, seed=0), []

    def encode(captions):
        asked.extend(captions)
        return gaussians(len(captions), 8, seed=1)

    found = find_queries(images, [["a", "b", "a"], ["c"], ["b", "a"], ["d", "b"]], encode)
    assert asked == ["a", "b", "c", "d"]
    assert found["text"].right == [[0, 2], [0, 2, 3], [1], [3]]
    assert found["text"].itself is None
    assert [set(some) for some in found["image"].right] == [{2, 3}, {0, 3}, {0, 2}]
    assert found["image"].itself is not None
    assert found["image"].itself.tolist() == [0, 2, 3]
    assert torch.equal(found["image"].gaussian.mean, images.mean[[0, 2, 3]])


def calibrate(checkpoint, data, out, *words):
    given = f"calibrate search --checkpoint {checkpoint} --data {data} --out {out} --device cpu".split()
    return main(latest([*given, *words]))


def expected_of(world):
    """The nearest right and wrong image of each distinct caption."""
    images, texts, owner = embedded(world.model, world.pairs)
    captions = [caption(number, place) for number in range(COUNT) for place in range(3)]
    scores = retrieval_scores(texts, images)
    best = []
    for text in dict.fromkeys(captions):
        right = {int(owner[place]) for place, some in enumerate(captions) if some == text}
        row = scores[captions.index(text)].tolist()
        wrong = [value for place, value in enumerate(row) if place not in right]
        best.append((max(row[place] for place in right), max(wrong)))
    found = np.array(best).T
    return found[0], found[1]


def test_calibrate_search_keeps_the_nearest_right_and_wrong_image(world, tmp_path, capsys):
    words = ["--score", "csd", "--caption_key", "sentences.raw"]
    assert calibrate(world.ours, world.pairs, tmp_path / "ours", *words) == 0
    found = load_search_calibration(tmp_path / "ours")
    right, wrong = expected_of(world)
    np.testing.assert_allclose(found.text.right, right, atol=1e-5)
    np.testing.assert_allclose(found.text.wrong, wrong, atol=1e-5)
    assert (found.score, found.num_images, found.subject.data) == ("csd", COUNT, str(world.pairs))
    assert not len(found.image.right), "no two images share a caption"
    assert f"{len(right)} text queries, {COUNT} images" in capsys.readouterr().out
    assert calibrate(world.theirs, world.pairs, tmp_path / "clip") == 0
    assert load_search_calibration(tmp_path / "clip").score == "mean"
    assert calibrate(world.theirs, world.pairs, tmp_path / "clip", "--score", "csd") == 2
    assert "score" in capsys.readouterr().err


def test_embeddings_say_how_near_wrong_images_are(world, tmp_path, capsys):
    collection, other = tmp_path / "collection", tmp_path / "other"
    write_run(other, tmp_path / "tokenizer.json", context_length=9)
    shards = (str(world.pairs / "test" / "0.tar"),)
    run_embed(dataclasses.replace(options(tmp_path, collection), checkpoint=world.ours, shards=shards))
    size = json.loads((collection / "manifest.json").read_text())["rows"]["image"]
    assert calibrate(world.ours, world.pairs, tmp_path / "a", "--score", "csd", "--embeddings", str(collection)) == 0
    found = load_search_calibration(tmp_path / "a")
    images, texts, _ = embedded(world.model, world.pairs)
    assert found.num_images == size < COUNT
    nearest = retrieval_scores(texts, images[:size]).amax(dim=1)
    np.testing.assert_allclose(sorted(found.text.wrong.tolist()), sorted(nearest.tolist()), atol=2e-3)
    assert calibrate(str(other), world.pairs, tmp_path / "b", "--embeddings", str(collection)) == 2
    assert "embeddings" in capsys.readouterr().err


def test_class_names_are_queries_and_the_model_finds_its_file(tmp_path, capsys):
    write_calibrated_world(tmp_path)
    run = tmp_path / "run"
    assert calibrate(str(run), tmp_path / "mine", run / "search.safetensors") == 0
    found = prolip.load(run, device="cpu").search_calibration
    assert found is not None
    assert (len(found.text.right), len(found.image.right), found.num_images) == (len(LABELS), 120, 120)
    assert prolip.load(run, device="cpu", precision="bf16").search_calibration is None
    model = prolip.load(run, device="cpu", calibration=run / "search.safetensors")
    assert model.search_calibration is not None
    words = f"--checkpoint {run} --data {tmp_path}/mine --caption_key cls --contains_right 0.8 --out {tmp_path}/out"
    assert main(["eval", "retrieval", *words.split(), "--num_resamples", "0"]) == 0
    shares = values(json.loads((tmp_path / "out" / "results.json").read_text()))
    for kind in ("text", "image"):
        known = getattr(found, kind)
        kept = (known.right >= known.limits(0.8, None).within - 1e-6).double().mean()
        assert shares[RowId("contained", way=f"{kind}_to_image", by="mean", at=0.8)] == pytest.approx(float(kept))


def figures(world, *words):
    """What is measured of caption queries by sampled distance."""
    found = world.run("retrieval", "--data", str(world.pairs), *words, models=[world.ours])
    of_queries = {
        (id.measure, id.at): value
        for id, value in values(found).items()
        if id.way == "text_to_image" and id.by in {"csd", ""}
    }
    return of_queries, found


def test_promises_of_a_calibrated_search_are_measured(world, tmp_path):
    file = tmp_path / "search"
    assert calibrate(world.ours, world.pairs, file, "--score", "csd") == 0
    right, wrong = expected_of(world)
    shares, found = figures(world, *f"--calibration {file} --contains_right 0.8 --max_wrong 0.3".split())
    limits = load_search_calibration(file).text.limits(0.8, 0.3)
    best = np.maximum(right, wrong)
    for id, expected in (
        (("contained", 0.8), right >= limits.within - 1e-6),
        (("nothing_in_vain", 0.3), wrong <= limits.shown + 1e-6),
        (("shown_if_right", 0.3), best > limits.shown + 1e-6),
        (("contained_within_limits", None), (best > limits.shown + 1e-6) & (right >= limits.within - 1e-6)),
    ):
        assert shares[id] == pytest.approx(expected.mean()), id
    there = shares["right_is_there_auroc", None]
    assert there == pytest.approx((best[:, None] > wrong).mean() + (best[:, None] == wrong).mean() / 2, abs=0.02)
    assert shares["contained_images", 0.8] <= COUNT
    known = load_search_calibration(file)
    moved = known.text._replace(right=known.text.right + 1)
    save_search_calibration(dataclasses.replace(known, text=moved), file)
    _, changed = figures(world, "--calibration", str(file))
    verdicts = [
        [row["verdict"][world.ours] for row in some["figures"] if row["id"]["measure"] == "contained" and row["main"]]
        for some in (found, changed)
    ]
    assert verdicts[0] != verdicts[1] == ["below"]


def test_without_a_calibration_halves_calibrate_each_other(world):
    right, wrong = expected_of(world)
    best, hit = np.maximum(right, wrong), right > wrong
    shares, _ = figures(world, "--contains_right", "0.6")
    halves = [shares[f"{word}_half_recall", None] for word in ("certain", "uncertain")]
    assert min(halves) <= hit.mean() <= max(halves)
    absent, order = torch.rand(2, len(right), generator=torch.Generator().manual_seed(0)).numpy()
    first = order.argsort().argsort() < len(right) // 2
    kept = []
    for half in (first, ~first):
        others, count = np.sort(right[~half]), (~half).sum()
        limit = others[int(count - np.ceil((count + 1) * 0.6))]
        kept += [score >= limit - 1e-6 for score in right[half]]
    assert shares["contained", 0.6] == pytest.approx(np.mean(kept))
    chosen = torch.tensor(np.where(absent < 0.5, wrong, best))
    area = area_under_risk_coverage(-chosen, torch.tensor(hit & (absent >= 0.5)))
    assert shares["search_risk_coverage", 0.5] == pytest.approx(area, abs=1e-3)
