"""Logged examples: the right samples, as the model saw them, with their tokens."""

import math
from typing import Any, cast

import numpy as np
import pytest
import torch
from tests.support.small_step import native_step_of
from tests.support.small_training import write_tokenizer

from prolip.data.config import TokenizerConfig
from prolip.data.device import Normalise
from prolip.data.tokenizer import Tokenizer
from prolip.gaussian import Gaussian
from prolip.images.tensors import OPENAI_MEAN, OPENAI_STD, Patches
from prolip.models import ProLIPOutput
from prolip.train.logging.examples import image_of, pick_examples, write_examples


def test_examples_are_the_most_certain_the_least_certain_and_random_ones(tmp_path):
    write_tokenizer(tmp_path / "tokenizer.json")
    tokenizer = Tokenizer(TokenizerConfig(kind="file", path=tmp_path / "tokenizer.json", context_length=4))
    pixels = torch.randint(0, 256, (5, 6, 6, 3), dtype=torch.uint8)
    images = Normalise(OPENAI_MEAN, OPENAI_STD, torch.float32, torch.device("cpu"))(pixels).permute(0, 3, 1, 2)
    ids = torch.from_numpy(tokenizer.encode(["red left", "red", "blue top", "black", "green right"])).long()
    log_var = torch.tensor([3.0, 1.0, 5.0, 2.0, 4.0]).log()[:, None]
    gaussian = Gaussian(torch.zeros(5, 1), log_var)
    text = Gaussian(torch.zeros(1, 5, 1), torch.full((1, 5, 1), math.log(0.5)))
    output = ProLIPOutput(gaussian, text, None, None, torch.tensor(1.0), None)
    batch = type("Batch", (), {"images": images, "token_ids": ids[None], "keys": list("abcde")})
    found = pick_examples(cast(Any, batch), output, tokenizer, 2, step=7)
    assert [(one.why, one.key) for one in found[:4]] == [
        ("most certain", "b"),
        ("most certain", "d"),
        ("least certain", "c"),
        ("least certain", "e"),
    ]
    assert found[2].captions == [("blue top", pytest.approx(0.5))]
    assert found[2].uncertainty == pytest.approx(5.0)
    assert np.array_equal(found[2].pixels, pixels[2].numpy())
    again = pick_examples(cast(Any, batch), output, tokenizer, 2, step=7)
    assert [one.key for one in again] == [one.key for one in found]
    sheet = write_examples(tmp_path, 7, found)
    assert np.array_equal(np.asarray(sheet)[6:12, :6], pixels[2].numpy())


def test_an_example_of_a_native_batch_is_its_image():
    images = native_step_of(3, 0).images
    assert isinstance(images, Patches)
    for place, (rows, columns) in enumerate([(2, 2), (1, 3), (2, 1)]):
        image = image_of(images, place)
        assert image.shape == (3, 6 * rows, 6 * columns)
        again = Patches.of(image[None], 6)
        assert torch.equal(again.patches[0], images.patches[place, : rows * columns])
