"""The numbers of the released notebook (src/example.ipynb), if the weights and its image are on this machine."""

import pytest
import torch
from huggingface_hub import try_to_load_from_cache

import prolip
from prolip.gaussian import official_inclusion_test

NAME = "ProLIP-ViT-B-16-DC-1B-12_8B"
IMAGE = "000000039769.jpg"
"""Of COCO's val2017; in the folder that PROLIP_SHARED names."""
CAPTIONS = (
    "A couple of cats laying on top of a pink blanket.",
    "A man walks through a flooded road during a rainstorm",
    "photo",
)


def test_the_released_model_gives_the_numbers_of_its_notebook(shared):
    if not isinstance(try_to_load_from_cache(f"SanghyukChun/{NAME}", "model.safetensors"), str):
        pytest.skip(f"the weights of {NAME} are not in the hub's cache")
    if not (shared / IMAGE).is_file():
        pytest.skip(f"no {IMAGE} in the folder that PROLIP_SHARED names")
    model = prolip.load(NAME)
    image, texts = model.encode_images([shared / IMAGE]), model.encode_texts(CAPTIONS)
    inside = official_inclusion_test(image, texts, eps=0.0).mean(dim=1)
    near = torch.testing.assert_close
    near(texts.mean @ image.mean[0], torch.tensor([0.2314, -0.2199, 0.1002]), atol=2e-4, rtol=0)
    near(image.total_var, torch.tensor([0.0145]), atol=1e-4, rtol=0)
    near(texts.total_var, torch.tensor([0.0419, 0.0398, 0.0599]), atol=1e-4, rtol=0)
    near(inside, torch.tensor([10.3893, 0.1196, 12.2632]), atol=0.01, rtol=1e-3)
