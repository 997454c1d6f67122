"""`prolip eval retrieval` against the functions behind it, on small data."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.support.captioned_sets import COUNT
from tests.support.captioned_world import WAYS, CaptionedWorld, embedded
from tests.support.random_gaussians import gaussians
from torch.profiler import ProfilerActivity, profile

from prolip.cli import main
from prolip.evaluation.config import RetrievalOptions
from prolip.evaluation.retrieval import coco_row, recall_rows
from prolip.metrics.coco import CocoTruth, Pairs, Shares
from prolip.metrics.measures import measure_retrieval
from prolip.pretrained.open import load


def test_the_suite_equals_measure_retrieval_with_and_without_variances(world: CaptionedWorld) -> None:
    found = world.run("retrieval", "--data", str(world.pairs))
    for name in (world.ours, world.theirs):
        values = world.values(found, name)
        model = load(name, device="cpu")
        expected = measure_retrieval(*embedded(model, world.pairs))
        assert values["image to caption R@5"] == pytest.approx(expected["image_to_text_mean_recall_at_5"])
        assert values["caption to image R@1"] == pytest.approx(expected["text_to_image_mean_recall_at_1"])
        at_one = [values["image to caption R@1"], values["caption to image R@1"]]
        if name == world.ours:
            by_distance = values["caption to image R@10, by sampled distance"]
            assert by_distance == pytest.approx(expected["text_to_image_csd_recall_at_10"])
            at_one += [values[f"{way} R@1, by sampled distance"] for way in WAYS]
        assert values["mean recall@1"] == pytest.approx(sum(at_one[:2]) / 2)
    assert any("no variances" in note for notes in found["notes"].values() for note in notes)


def test_no_matrix_of_all_images_and_captions_is_made() -> None:
    count, places = 2100, torch.arange(2100)
    images = gaussians(count, 4, seed=0)
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as recorded:
        rows = recall_rows("mine", images, images, places, ["mean"])
    assert {row.metric: row.value for row in rows}["image to caption R@1"] == 1.0
    shapes = [torch.Size(shape) for event in recorded.events() for shape in event.input_shapes if shape]
    assert max(shape.numel() for shape in shapes) == 1024 * count


def test_coco_ids_add_the_coco_figures(world: CaptionedWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    to_text = {100 + number: [1000 + 3 * number + place for place in range(3)] for number in range(COUNT)}
    to_image = {text: [image] for image, texts in to_text.items() for text in texts}
    pairs = Pairs(to_text, to_image)
    truth = CocoTruth(pairs, pairs, pairs, list(to_image))
    monkeypatch.setattr("prolip.evaluation.retrieval.load_truth", lambda: truth)
    keys = ["--caption_key", "sentences.raw", "--image_id_key", "cocoid", "--caption_ids_key", "sentids"]
    found = world.run("retrieval", "--data", str(world.pairs), *keys, models=[world.ours])
    tasks = {(row["task"], row["metric"]): row["value"][world.ours] for row in found["figures"]}
    for way in WAYS:
        for k in (1, 5, 10):
            own = tasks[world.pairs.name, f"{way} R@{k}, by sampled distance"]
            assert tasks["COCO 5K", f"{way} R@{k}, by sampled distance"] == pytest.approx(own)
        assert 0 <= tasks["ECCV Caption", f"{way} mAP@R"] <= 1
    with pytest.raises(SystemExit, match="2"):
        raise SystemExit(main(["eval", "retrieval", "--checkpoint", "x", "--data", "y", "--image_id_key", "cocoid"]))


def test_coco_figures_become_rows_with_their_task_and_metric() -> None:
    shares = torch.tensor([1.0, 0.0, 1.0, 1.0], dtype=torch.float64)
    whole = coco_row("coco_5k_image_to_text_R@1", Shares(shares, None), "mean")
    assert (whole.task, whole.metric, whole.value, whole.main) == ("COCO 5K", "image to caption R@1", 0.75, True)
    assert (whole.items, whole.num_items) == (shares.tolist(), 4)
    # The mean of the folds' means.
    folds = coco_row("coco_1k_text_to_image_R@5", Shares(shares, torch.tensor([0, 0, 1, 1])), "mean")
    assert (folds.task, folds.metric, folds.value, folds.main) == ("COCO 1K", "caption to image R@5", 0.75, False)
    uneven = coco_row("coco_1k_text_to_image_R@5", Shares(shares, torch.tensor([0, 0, 0, 1])), "csd")
    assert uneven.value == pytest.approx((2 / 3 + 1) / 2)
    assert uneven.metric == "caption to image R@5, by sampled distance"
    for score, judged in (("mean", True), ("csd", False)):
        row = coco_row("eccv_text_to_image_map_at_r", Shares(shares, None), score)  # type: ignore[arg-type]
        assert (row.task, row.metric.split(",")[0], row.main) == ("ECCV Caption", "caption to image mAP@R", judged)


def test_coco_pairs_are_opened_before_embedding_starts(
    world: CaptionedWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise AssertionError("images were embedded")

    monkeypatch.setattr("prolip.evaluation.retrieval.embed_shards", fail)
    monkeypatch.setattr("prolip.evaluation.coco_pairs.find_spec", lambda _: None)
    words = ["--data", str(world.pairs), "--image_id_key", "cocoid", "--caption_ids_key", "sentids"]
    assert main(["eval", "retrieval", "--checkpoint", world.ours, "--out", str(tmp_path), *words]) == 2
    assert "pip install 'prolip[eval]'" in capsys.readouterr().err
    with pytest.raises(ValueError, match="image_id_key needs one data set, COCO's test set: data has 2"):
        RetrievalOptions(checkpoint=("x",), data=("y", "z"), image_id_key="a", caption_ids_key="b")
