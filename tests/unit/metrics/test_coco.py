"""COCO, CxC and ECCV Caption against the package that they come from, on a part of its own data."""

import warnings
from importlib.util import find_spec

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from prolip.errors import UserError
from prolip.evaluation.retrieval import load_truth
from prolip.gaussian import Gaussian
from prolip.metrics.coco import CocoTruth, Pairs, evaluate_coco
from prolip.metrics.retrieval import retrieval_scores

pytestmark = pytest.mark.skipif(find_spec("eccv_caption") is None, reason="needs eccv-caption (extra eval)")


def items(count, seed):
    noise = torch.Generator().manual_seed(seed)
    mean = F.normalize(torch.randn(count, 6, generator=noise, dtype=torch.float64), dim=1)
    return Gaussian(mean, torch.randn(count, 6, generator=noise, dtype=torch.float64) - 5)


@pytest.fixture(scope="module")
def part():
    """The first 100 images and their captions; ECCV Caption keeps right answers that are not among them."""
    whole = load_truth()
    assert (len(whole.coco.image_to_text), len(whole.coco.text_to_image)) == (5000, 25000)
    assert (len(whole.eccv.image_to_text), len(whole.eccv.text_to_image)) == (1261, 1332)
    order = whole.caption_order[:500]
    captions = set(order)
    images = {whole.coco.text_to_image[caption][0] for caption in order}
    assert len(images) == 100

    def within(pairs, *, keep_absent):
        sides = []
        for ways, own, other in ((pairs.image_to_text, images, captions), (pairs.text_to_image, captions, images)):
            known = {query: [r for r in rights if r in other] for query, rights in ways.items() if query in own}
            sides.append({query: ways[query] if keep_absent else rights for query, rights in known.items() if rights})
        return Pairs(*sides)

    truth = CocoTruth(
        within(whole.coco, keep_absent=False),
        within(whole.cxc, keep_absent=False),
        within(whole.eccv, keep_absent=True),
        order,
    )
    assert len(truth.eccv.image_to_text) > 10
    return truth


@pytest.mark.parametrize("score", ["csd", "mean"])
def test_every_coco_figure_equals_the_eccv_packages(part, score):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the package warns of a faster json
        from eccv_caption import Metrics

        theirs = Metrics()
    theirs.coco_ids = np.array(part.caption_order)
    for name in ("coco", "cxc", "eccv"):
        pairs = getattr(part, name)
        setattr(theirs, f"{name}_gts", {"i2t": pairs.image_to_text, "t2i": pairs.text_to_image})
    image_ids = sorted(part.coco.image_to_text)
    caption_ids = sorted(part.coco.text_to_image)
    # Captions near their images, so that the figures are neither 0 nor 1.
    images = items(len(image_ids), 0)
    noise = items(len(caption_ids), 1)
    own = torch.tensor([image_ids.index(part.coco.text_to_image[caption][0]) for caption in caption_ids])
    captions = Gaussian(F.normalize(images.mean[own] + 1.2 * noise.mean, dim=1), noise.log_var)
    retrieved = {}
    for way, pair, query_ids, ids in (
        ("i2t", (images, captions), image_ids, caption_ids),
        ("t2i", (captions, images), caption_ids, image_ids),
    ):
        order = retrieval_scores(*pair, score).argsort(dim=1, descending=True)
        retrieved[way] = {query: [ids[c] for c in row] for query, row in zip(query_ids, order.tolist(), strict=True)}
    expected = theirs.compute_all_metrics(
        retrieved["i2t"],
        retrieved["t2i"],
        ("coco_1k_recalls", "coco_5k_recalls", "cxc_recalls", "eccv_r1", "eccv_map_at_r", "eccv_rprecision"),
    )
    got = evaluate_coco(images, image_ids, captions, caption_ids, part, score)
    compared = 0
    for name, values in expected.items():
        for short, way in (("i2t", "image_to_text"), ("t2i", "text_to_image")):
            whose, figure = name.rsplit("_r", 1) if "_map" not in name else ("eccv", "map_at_r")
            figure = {"precision": "r_precision", "map_at_r": "map_at_r"}.get(figure, f"R@{figure}")
            assert got[f"{whose}_{way}_{figure}"] == pytest.approx(values[short]), name
            compared += 1
    assert compared == 2 * (3 * 3 + 3)
    assert 0.1 < got["coco_5k_image_to_text_R@1"] < 0.9


def test_missing_images_and_repeated_ids_are_named(part):
    image_ids, caption_ids = sorted(part.coco.image_to_text), sorted(part.coco.text_to_image)
    images, captions = items(len(image_ids), 0), items(len(caption_ids), 1)
    with pytest.raises(UserError):
        evaluate_coco(images.rows(slice(1, None)), image_ids[1:], captions, caption_ids, part)
    with pytest.raises(UserError):
        evaluate_coco(images, [*image_ids[1:], image_ids[1]], captions, caption_ids, part)
