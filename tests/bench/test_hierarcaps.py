"""HierarCaps for 1,000 images x 4 captions against a plain version of the released script, which takes one image after
another and embeds its 50 queries (docs/specification.md, section 9): `pytest -m bench tests/bench -s`.
"""

from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from tests.bench.side_by_side import in_turns, one_thread
from torch import Tensor

from prolip.gaussian import Gaussian
from prolip.metrics.config import TraversalConfig
from prolip.metrics.hierarchy import traverse

LEVELS, DIM, STEPS = 4, 768, 50
Problem = tuple[Gaussian, Gaussian, Tensor, Tensor]


def problem(count: int) -> Problem:
    """`count` images, captions scattered about them the more the coarser, ids with repeats, and a root."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    centre = normal(count, 1, DIM)
    coarse = torch.tensor([3.0, 2.0, 1.0, 0.5])[None, :, None]
    means = F.normalize(centre + coarse * normal(count, LEVELS, DIM), dim=-1)
    captions = Gaussian(means, coarse.log() + 0.3 * normal(count, LEVELS, DIM) - 6)
    images = Gaussian(F.normalize(centre.squeeze(1) + 0.5 * normal(count, DIM), dim=-1), 0.3 * normal(count, DIM) - 7)
    ids = torch.randint(3000, (count, LEVELS), generator=generator)
    return images, captions, ids, F.normalize(normal(DIM), dim=0)


def including(image: Gaussian, texts: Gaussian) -> Tensor:
    """The caption with the largest one-sided test."""
    inverse, others = (-image.log_var).exp()[None], (-texts.log_var).exp()
    a = inverse + 0.5 * others
    b = 2 * image.mean[None] * inverse + texts.mean * others
    c = image.mean[None] ** 2 * inverse + 0.5 * texts.mean**2 * others
    test = -2 * image.log_var[None] - texts.log_var - 0.5 * a.log() + b**2 / (4 * a) - c
    return texts.mean[test.sum(-1).argmax()]


def published(given: Problem, root: Literal["text", "inclusion"], num_images: int) -> tuple[list[float], list[float]]:
    """Precision and recall of the first images."""
    images, captions, ids, text_root = given
    texts, flat_ids = captions.flatten(), ids.flatten()
    precision, recall = [], []
    for place in range(num_images):
        image = images[place]
        start = texts.mean[(texts.mean @ image.mean).sort().indices[-1]]
        end = text_root if root == "text" else including(image, texts)
        step = (start - end) / STEPS
        queries = torch.stack([(start - step * k) / (start - step * k).norm() for k in range(STEPS)])
        met = {int(flat_ids[best]) for best in (texts.mean @ queries.T).argmax(dim=0)}
        own = ids[place].tolist()
        precision.append(len(met & set(own)) / len(met))
        recall.append(sum(one in met for one in own) / LEVELS)
    return precision, recall


@pytest.mark.bench
@pytest.mark.parametrize(("root", "num_images", "at_least"), [("text", 50, 15.0), ("inclusion", 10, 20.0)])
def test_traversal_is_faster_than_the_published_script(capsys, full, root, num_images, at_least):
    count = 1000 if full else 10
    given, num_images = problem(count), min(num_images, count)
    config = TraversalConfig(root=root, num_steps=STEPS)
    with one_thread():
        found = traverse(*given, config)
        for ours, theirs in zip(found, published(given, root, num_images), strict=False):
            torch.testing.assert_close(ours[:num_images], torch.tensor(theirs, dtype=torch.float64))
        # A few images stand for all, each of which costs the released script the same.
        time = in_turns(
            lambda: published(given, root, num_images),
            lambda: traverse(*given, config),
            rounds=5 if full and root == "text" else 1,
            repeats=3 if root == "text" else 1,
        ).of(count / num_images)
    with capsys.disabled():
        print(f"\nHierarCaps, {count:,} images x {LEVELS} captions, root {root}: {time}")
    assert not full or time.ratio > at_least
