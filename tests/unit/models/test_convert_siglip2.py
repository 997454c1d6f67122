"""SigLIP 2 for native aspect from the files of transformers: the same embeddings without that package."""

import io

import pytest
import torch
from PIL import Image
from tests.support.images import encode, noise
from tests.support.refusals import refusal_of
from tests.support.shards import write_tar
from tests.unit.models.test_convert_open_clip import close, random_everywhere
from transformers import Siglip2Config, Siglip2Model
from transformers.models.siglip2.image_processing_pil_siglip2 import Siglip2ImageProcessorPil

import prolip
from prolip.images.tensors import OPENAI_MEAN, OPENAI_STD, Patches
from prolip.models.convert_siglip2 import siglip2_config
from prolip.pretrained.sources import load_network, new_model, read_config

TOWER = {"hidden_size": 16, "intermediate_size": 59, "num_hidden_layers": 2, "num_attention_heads": 2}
CONFIG = Siglip2Config(
    vision_config={**TOWER, "patch_size": 8, "num_patches": 16},
    text_config={**TOWER, "vocab_size": 40, "max_position_embeddings": 7},
)


@pytest.fixture
def theirs(tmp_path):
    """A small model, saved in `tmp_path`."""
    torch.manual_seed(0)
    model = random_everywhere(Siglip2Model(CONFIG))
    assert isinstance(model, Siglip2Model)
    model.save_pretrained(tmp_path)
    return model


def test_means_equal_transformers_for_padded_images_of_any_shape(theirs, tmp_path):
    ours = load_network(tmp_path)
    shares = [torch.rand(3, 8 * rows, 8 * columns) for rows, columns in ((4, 4), (2, 7), (9, 1), (6, 6), (1, 1))]
    mean, std = (torch.tensor(values)[:, None, None] for values in (OPENAI_MEAN, OPENAI_STD))
    grey, patches = (
        Patches.of([(share - centre) / width for share in shares], 8) for centre, width in ((0.5, 0.5), (mean, std))
    )
    ids = torch.randint(40, (3, 7))
    with torch.no_grad():
        output = theirs(ids, grey.patches, grey.valid, grey.grids)
        close(ours.encode_image(patches).mean, output.image_embeds)
        close(ours.encode_text(ids).mean, output.text_embeds)
    assert ours.logit_bias is not None
    torch.testing.assert_close((ours.logit_scale, ours.logit_bias), (theirs.logit_scale[0], theirs.logit_bias[0]))
    # A start for training has new [UNC] parts. The model itself has no variances.
    assert read_config(tmp_path) == ours.config
    assert new_model(ours.config, str(tmp_path)).state_dict().keys() == ours.state_dict().keys()
    assert not prolip.load(tmp_path, device="cpu").has_variances


def test_embeddings_of_files_equal_transformers(theirs, tmp_path):
    model = prolip.load(tmp_path, device="cpu")
    images = [noise(seed, size) for seed, size in enumerate([(61, 44), (9, 200), (64, 64), (300, 31), (3, 5)])]
    slow = Siglip2ImageProcessorPil(patch_size=8, max_num_patches=16)
    files = [encode(image, kind) for image, kind in zip(images, ("png", "jpeg", "webp", "jpeg", "png"), strict=True)]
    write_tar(tmp_path / "a.tar", [(f"{place}.png", data) for place, data in enumerate(files)])
    with torch.no_grad():
        inputs = slow([Image.open(io.BytesIO(data)).convert("RGB") for data in files], return_tensors="pt")
        expected = theirs.get_image_features(**inputs).pooler_output.unsqueeze(0).flatten(0, -2)
    expected = expected / expected.norm(dim=-1, keepdim=True)
    for given in (files, [str(tmp_path / "a.tar")]):
        torch.testing.assert_close(model.encode_images(given).mean, expected, rtol=0, atol=1e-6)


def test_the_settings_that_files_leave_out_are_those_of_transformers():
    assert siglip2_config({}) == siglip2_config(Siglip2Config().to_dict())
    with refusal_of("text_config.hidden_act"):
        siglip2_config({"text_config": {"hidden_act": "relu"}})
