"""`prolip eval uncertainty` against the functions behind it, on small data."""

import math
import xml.etree.ElementTree as ET
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from tests.support.captioned_sets import COUNT, WORDS, caption
from tests.support.captioned_world import embedded, mean_ranks
from tests.support.suite_results import values
from torchvision.transforms.functional import gaussian_blur

from prolip.cli import main
from prolip.datasets.data_set import embed_set, open_dataset
from prolip.errors import UserError
from prolip.evaluation.results import RowId
from prolip.evaluation.uncertainty import (
    OCCLUDED,
    accuracy_figures,
    blurred,
    hide_patches,
    hide_tokens,
    occlude,
    view_of,
)
from prolip.gaussian import Gaussian, inclusion_score
from prolip.images.tensors import Patches
from prolip.inference.model import of_prolip
from prolip.metrics.uncertainty import (
    count_words,
)
from prolip.metrics.zero_shot import aggregate_prompts, zero_shot_logits
from prolip.models import ARCHITECTURES, ProLIP


@pytest.fixture(scope="module")
def found(world):
    """What the suite finds in four bins, with views of its own."""
    words = f"--data {world.pairs} --caption_key txt --num_bins 4 --keep_ratio 0.4".split()
    return world.run("uncertainty", *words, "--blur", "0.2", models=[world.ours])


def test_the_most_and_least_certain_images_are_named(world, found):
    shares = values(found)
    images, texts, _ = embedded(world.model, world.pairs)
    assert shares[RowId("occluded_uncertainty", at=0.0)] == pytest.approx(float(images.total_var.mean()), rel=1e-5)
    assert shares[RowId("mean_uncertainty", of="captions")] == pytest.approx(float(texts.total_var.mean()), rel=1e-5)
    assert "Accuracy by uncertainty" in (world.root / "uncertainty" / "results.html").read_text()
    (note,) = found["notes"][world.ours]
    order = images.total_var.argsort(stable=True).tolist()
    assert f"most certain are p{order[0]:03}," in note
    assert f"least certain p{order[-1]:03}," in note


def test_a_model_without_variances_is_refused(world, capsys):
    words = ["eval", "uncertainty", "--checkpoint", world.theirs, "--data", str(world.pairs)]
    assert main([*words, "--out", str(world.root / "refused")]) == 2
    assert "checkpoint: " in capsys.readouterr().err


def test_views_are_compared_with_the_whole_by_variance_and_by_inclusion(world, found):
    shares, model = values(found), world.model
    images, texts, owners = embedded(model, world.pairs)
    views = {
        "hidden": hide_patches(model, 0.4),
        "blurred": lambda p: model.encode_pixels(blurred(p, 0.2)),
        "occluded": occlude(model, 0.1),
    }
    seen = embed_set(model, open_dataset(str(world.pairs)), 128, views=views).images
    captions = [caption(number, place) for number in range(COUNT) for place in range(3)]
    with model.encoder.running():
        pad_id = model.encoder.require_tokenizer().pad_id
        rest = model.encode_tokens(hide_tokens(model.tokenize(captions), pad_id, None))
    pairs = {
        "blurred_image": (images, seen["blurred"]),
        "hidden_patches": (images, seen["hidden"]),
        "caption": (images.rows(owners), texts),
        "hidden_tokens": (texts, rest),
    }
    for by, (whole, changed) in pairs.items():
        more, inside = changed.total_var > whole.total_var, inclusion_score(whole, changed).sum(dim=1) > 0
        assert shares[RowId("more_uncertain", by=by)] == pytest.approx(float(more.double().mean()))
        assert shares[RowId("includes", by=by)] == pytest.approx(float(inside.double().mean()))
    occluded = shares[RowId("occluded_uncertainty", at=0.1)]
    assert occluded == pytest.approx(float(seen["occluded"].total_var.mean()), rel=1e-5)
    assert RowId("occluded_accuracy", at=0.1) in shares
    assert len(set(shares.values()) - {0.0, 0.5, 1.0}) > 6, "else a direction would not show"
    marks = {"occlusion": ("circle[@r='4']", 2 * len(OCCLUDED)), "map": ("ellipse", 4 * COUNT)}
    charts = found["charts"][world.ours]
    assert len(charts) == 4 + 2 + len(pairs)
    for chart in charts:
        mark, count = marks.get(chart["title"], ("polyline", 1))
        assert len(ET.fromstring(f"<p>{chart['svg']}</p>").findall(f"./svg[@role]/{mark}")) == count
    ranks = torch.corrcoef(torch.stack([mean_ranks(texts.total_var), mean_ranks(count_words(captions).double())]))
    assert shares[RowId("caption_length_correlation")] == pytest.approx(float(ranks[0, 1]))


def test_accuracy_is_that_of_the_zero_shot_classes(world, found):
    shares = values(found)
    images, _, _ = embedded(world.model, world.pairs)
    prompts = [world.model.encoder.embed_captions([f"a picture of {name}", name]) for name in WORDS[:4]]
    classifier = aggregate_prompts(
        Gaussian(torch.stack([one.mean for one in prompts]), torch.stack([one.log_var for one in prompts]))
    )
    logits = zero_shot_logits(images.mean, classifier.weight, logit_scale=world.model.logit_scale)
    labels = torch.arange(COUNT) % 4
    right = (logits.argmax(dim=1) == labels).double()
    expected = {row.id: row.value for row in accuracy_figures(images.total_var.double(), logits, labels, 4).rows}
    assert expected[RowId("accuracy")] == pytest.approx(float(right.mean()))
    assert {id: shares.get(id, math.nan) for id in expected} == pytest.approx(expected, nan_ok=True, rel=1e-4)


def test_the_least_certain_bin_includes_the_remainder():
    """Seven images in three bins of two. The least certain two are the very last ones, the remainder among them."""
    uncertainty = torch.tensor([0.7, 0.1, 0.4, 0.2, 0.3, 0.6, 0.5], dtype=torch.float64)
    right = torch.tensor([0, 1, 0, 1, 1, 0, 1])
    logits = torch.nn.functional.one_hot(right, 2).float()
    found = accuracy_figures(uncertainty, logits, torch.ones(7, dtype=torch.int64), 3)
    shares = {row.id.measure: row.value for row in found.rows}
    assert shares["most_certain_accuracy"] == 1.0
    assert shares["least_certain_accuracy"] == 0.0
    assert shares["uncertainty_correlation"] == pytest.approx(-(0.75**0.5))
    assert [row.main for row in found.rows] == [True, *[False] * (len(found.rows) - 1)]


def test_hidden_patches_have_the_given_share_and_repeat():
    seen = []

    def encode_image(_, kept):
        seen.append(kept)
        return Gaussian.point(kept.float())

    network = SimpleNamespace(config=SimpleNamespace(vision=SimpleNamespace(num_patches=30)), encode_image=encode_image)
    model = SimpleNamespace(prolip=network)
    for ratio, count in ((0.25, 7), (0.001, 1)):
        seen.clear()
        for view in (hide_patches(model, ratio), hide_patches(model, ratio)):
            view(torch.zeros(4, 3))
            view(torch.zeros(4, 3))
        assert {kept.shape for kept in seen} == {(4, count)}
        assert all(bool((kept.diff(dim=1) > 0).all()) for kept in seen), "in their order, each once"
        assert 0 <= int(torch.cat(seen).min()) <= int(torch.cat(seen).max()) < 30
        assert [seen[0].equal(one) for one in seen] == [True, False, True, False]
    hide_patches(model, 0.3)(Patches.of([torch.zeros(3, 5, 6), torch.zeros(3, 2, 4)], 1))
    assert ((seen[-1] >= 0).sum(dim=1).tolist(), seen[-1].shape) == ([9, 2], (2, 9))
    assert int(seen[-1][1].max()) < 8
    assert bool((seen[-1][:, :2].diff(dim=1) > 0).all())


def test_views_of_patches_are_those_of_their_images():
    vision = replace(ARCHITECTURES["demo"].vision, image_seq_len=36)
    network = ProLIP(replace(ARCHITECTURES["demo"], vision=vision)).eval()
    model = of_prolip(network, UserError("tokenizer", "unknown"), "native", torch.device("cpu"))
    images = torch.randn(3, 3, 36, 24)
    for view in (lambda: occlude(model, 0.3), lambda: view_of(model, partial(blurred, share=0.1))):
        for ours, theirs in zip(view()(Patches.of([*images], vision.patch_size)), view()(images), strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
        assert not torch.allclose(theirs, model.encode_pixels(images).log_var)


def test_blur_equals_torchvisions():
    images = torch.rand(2, 3, 30, 20)
    expected = gaussian_blur(images, [9, 9], [1.5, 1.5])  # three standard deviations to each side, rounded
    torch.testing.assert_close(blurred(images, 0.05), expected)


def test_an_occluded_image_lacks_a_rectangle_of_the_given_share():
    model = SimpleNamespace(encode_pixels=Gaussian.point)
    images = torch.rand(200, 3, 20, 40) + 1
    view, share = occlude(model, 0.1), (6 * 13) / (20 * 40)
    gone = view(images).mean == 0
    assert gone.double().mean(dim=(1, 2, 3)).unique().tolist() == pytest.approx([share])
    assert gone.any(dim=3).sum(dim=2).unique().tolist() == [6]
    assert gone.any(dim=0).sum(dim=(1, 2)).gt(300).all(), "at random places"
    assert (view(images).mean == 0).ne(gone).any(), "another batch has other places"


@pytest.mark.parametrize("mask_id", [None, 7])
def test_hidden_tokens_are_replaced_or_removed_with_the_probability_of_training(mask_id):
    ids = torch.arange(10, 410).repeat(50, 1)
    ids[:, 300:] = 1
    ids[1, 1:] = 1
    hidden = hide_tokens(ids, 1, mask_id)
    kept = (hidden != 1) & (hidden != 7)
    assert 0.23 < float(kept[2:].sum() / (48 * 300)) < 0.27
    assert bool((hidden[2:, 300:] == 1).all())
    if mask_id is None:
        assert hidden[1].tolist() == ids[1].tolist(), "one token stays"
        assert all(
            row[some].diff().gt(0).all() and some[: some.sum()].all() for row, some in zip(hidden, kept, strict=True)
        )
    else:
        assert bool((hidden.eq(ids) | hidden.eq(7)).all())
