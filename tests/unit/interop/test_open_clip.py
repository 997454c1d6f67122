"""open_clip's own training loop, fed by the loader."""

import io
import json

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from tests.support.images import encode
from tests.support.shards import write_tar

from prolip.data import AugmentConfig, LoaderConfig
from prolip.data.config import TokenizerConfig
from prolip.errors import UserError
from prolip.interop import open_clip as adapter

TINY = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "patch_size": 16, "head_width": 16},
    "text_cfg": {"context_length": 12, "vocab_size": 49_408, "width": 32, "heads": 2, "layers": 1},
}
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """16 JPEG images of 40 x 32 pixels in two shards, and a model configuration beside them."""
    folder = tmp_path_factory.mktemp("shards")
    generator = np.random.default_rng(0)
    for shard in range(2):
        entries = []
        for index in range(8):
            picture = encode(Image.fromarray(generator.integers(0, 256, (32, 40, 3), dtype=np.uint8)), "jpeg")
            entries += [(f"{shard}{index}.jpg", picture), (f"{shard}{index}.txt", f"No {index}!".encode())]
        write_tar(folder / f"{shard:03}.tar", entries)
    (folder / "prolip-test-tiny.json").write_text(json.dumps(TINY))
    open_clip.add_model_config(folder / "prolip-test-tiny.json")
    return str(folder / "{000..001}.tar")


def settings(shards, **changes):
    tokenizer = TokenizerConfig(context_length=12)
    return LoaderConfig(shards=(shards,), image_size=32, tokenizer=tokenizer, **({"batch_size": 4} | changes))


def test_batches_equal_open_clips_transform_and_tokens(shards):
    """Evaluation data, in the files' order: every pixel and every id, against open_clip's transform and tokenizer."""
    kept = settings(shards, last_batch="keep", shuffle_window=0, batch_size=16)
    data = adapter.open_clip_data(kept, mean=MEAN, std=STD)
    assert (data.dataloader.num_batches, data.dataloader.num_samples, len(data.dataloader)) == (1, 16, 1)
    ((images, texts),) = data.dataloader
    transform = open_clip.image_transform(32, is_train=False, mean=MEAN, std=STD)
    tokens = open_clip.SimpleTokenizer(context_length=12)([f"No {index % 8}!" for index in range(16)])
    assert torch.equal(texts, tokens)
    assert texts.dtype == torch.int64
    generator = np.random.default_rng(0)
    for place in range(16):
        buffer = io.BytesIO()
        Image.fromarray(generator.integers(0, 256, (32, 40, 3), dtype=np.uint8)).save(buffer, "jpeg")
        torch.testing.assert_close(images[place], transform(Image.open(buffer)), rtol=0, atol=1e-5)


# ---- open_clip's command line ---------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:Unused augmentation cfg items")
def test_settings_are_read_from_open_clips_training_transform(shards):
    _, plain, evaluation = open_clip.create_model_and_transforms("prolip-test-tiny", image_mean=MEAN, image_std=STD)
    found = adapter.read_transform(plain)
    assert (found.image_size, found.mean, found.std) == (32, MEAN, STD)
    assert found.augment == AugmentConfig(crop_scale=(0.9, 1.0), jitter_prob=0.0, gray_prob=0.0)
    changes = {"scale": (0.4, 1.0), "color_jitter": (0.32, 0.32, 0.32, 0.08), "color_jitter_prob": 0.8}
    varied = open_clip.image_transform(32, is_train=True, aug_cfg=changes | {"gray_scale_prob": 0.2})
    augment = adapter.read_transform(varied).augment
    assert augment.jitter == pytest.approx((0.32, 0.32, 0.32, 0.08))
    assert (augment.crop_scale, augment.jitter_prob, augment.gray_prob) == ((0.4, 1.0), 0.8, 0.2)
    with pytest.raises(UserError, match="Resize"):
        adapter.read_transform(evaluation)


def test_a_tokenizer_other_than_clips_is_refused(shards):
    assert adapter.read_tokenizer(open_clip.SimpleTokenizer(context_length=20)).context_length == 20
    for other in ({"clean": "canonicalize"}, {"context_length": 20, "reduction_mask": "simple"}):
        with pytest.raises(UserError, match="SimpleTokenizer"):
            adapter.read_tokenizer(open_clip.SimpleTokenizer(**other))
