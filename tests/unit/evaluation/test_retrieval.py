"""`prolip eval retrieval` against the functions behind it, on small data."""

from dataclasses import replace

import pytest
import torch
from tests.support.captioned_sets import COUNT
from tests.support.captioned_world import embedded
from tests.support.random_gaussians import gaussians
from tests.support.suite_results import values as values_of
from torch.profiler import ProfilerActivity, profile

from prolip.cli import main
from prolip.evaluation.results import RowId
from prolip.evaluation.retrieval import recall_rows
from prolip.inference.load_model import load
from prolip.metrics.coco import CocoTruth, Pairs
from prolip.metrics.retrieval import evaluate_retrieval, first_ranks
from prolip.metrics.uncertainty import uncertainty_bins


def test_the_suite_equals_the_measures_with_and_without_variances(world):
    found = world.run("retrieval", "--data", str(world.pairs))
    for place, name in enumerate((world.ours, world.theirs)):
        values = values_of(found, place)
        images, texts, owner = embedded(load(name, device="cpu"), world.pairs)
        correct = torch.arange(len(images.mean))[:, None] == owner
        to_text, to_image = (
            evaluate_retrieval(images, texts, correct, "mean"),
            evaluate_retrieval(texts, images, correct.T, "mean"),
        )
        assert values[RowId("recall_at", way="image_to_text", by="mean", at=5)] == pytest.approx(to_text.recall_at_5)
        assert values[RowId("recall_at", way="text_to_image", by="mean", at=1)] == pytest.approx(to_image.recall_at_1)
        assert values[RowId("mean_recall")] == pytest.approx((to_text.recall_at_1 + to_image.recall_at_1) / 2)
        if name == world.ours:
            by_distance = values[RowId("recall_at", way="text_to_image", by="csd", at=10)]
            assert by_distance == pytest.approx(evaluate_retrieval(texts, images, correct.T).recall_at_10)
    assert any("no variances" in note for note in found["notes"][world.theirs])


def test_no_matrix_of_all_images_and_captions_is_made():
    count, places = 2100, torch.arange(2100)
    images = gaussians(count, 4, seed=0)
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as recorded:
        rows = recall_rows(images, images, places, ["mean"])
    assert {row.id: row.value for row in rows}[RowId("recall_at", way="image_to_text", by="mean", at=1)] == 1.0
    shapes = [torch.Size(shape) for event in recorded.events() for shape in event.input_shapes if shape]
    assert max(shape.numel() for shape in shapes) == 1024 * count


def test_coco_ids_add_the_coco_figures(world, monkeypatch):
    to_text = {100 + number: [1000 + 3 * number + place for place in range(3)] for number in range(COUNT)}
    to_image = {text: [image] for image, texts in to_text.items() for text in texts}
    pairs = Pairs(to_text, to_image)
    truth = CocoTruth(pairs, pairs, pairs, list(to_image))
    monkeypatch.setattr("prolip.evaluation.retrieval.load_truth", lambda: truth)
    keys = ["--caption_key", "sentences.raw", "--image_id_key", "cocoid", "--caption_ids_key", "sentids"]
    found = world.run("retrieval", "--data", str(world.pairs), *keys, models=[world.ours])
    rows = {RowId(**row["id"]): row for row in found["figures"]}
    for way in ("image_to_text", "text_to_image"):
        for k in (1, 5, 10):
            id = RowId("recall_at", way=way, by="csd", at=k)
            values = [rows[replace(id, data=data)]["value"][world.ours] for data in (world.pairs.name, "COCO 5K")]
            assert values[0] == pytest.approx(values[1])
            assert replace(id, data="COCO 1K") in rows
        id = RowId("map_at_r", data="ECCV Caption", way=way)
        assert [rows[replace(id, by=by)]["main"] for by in ("mean", "csd")] == [0, 1]
        assert not rows[replace(id, measure="r_precision", by="csd")]["main"]
    images, texts, owner = embedded(world.model, world.pairs)
    ranks = first_ranks(texts, images, owner[:, None] == torch.arange(COUNT))
    bins = uncertainty_bins(texts.total_var, (ranks < 1).double())
    id = RowId("recall_correlation", way="text_to_image", by="csd", at=1)
    for data in ("COCO 5K", "CxC", "ECCV Caption"):
        assert rows[replace(id, data=data)]["value"][world.ours] == pytest.approx(bins.pearson)


def test_coco_pairs_are_opened_before_embedding_starts(world, tmp_path, monkeypatch, capsys):
    def fail(*_, **__):
        raise AssertionError("images were embedded")

    monkeypatch.setattr("prolip.evaluation.retrieval.embed_set", fail)
    monkeypatch.setattr("prolip.evaluation.retrieval.find_spec", lambda _: None)
    words = f"--data {world.pairs} --image_id_key cocoid --caption_ids_key sentids".split()
    assert main(["eval", "retrieval", "--checkpoint", world.ours, "--out", str(tmp_path), *words]) == 2
    assert "prolip[eval]" in capsys.readouterr().err
