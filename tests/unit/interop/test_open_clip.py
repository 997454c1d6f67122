"""open_clip's own training loop, fed by the loader."""

import io
import json
from argparse import Namespace
from importlib.util import find_spec
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from tests.support.images import encode
from tests.support.refusals import refusal_of
from tests.support.shards import write_tar
from timm.data import create_transform

from prolip.data import AugmentConfig, LoaderConfig
from prolip.data.config import TokenizerConfig
from prolip.errors import UserError
from prolip.interop import open_clip as adapter

TINY = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "patch_size": 16, "head_width": 16},
    "text_cfg": {"context_length": 12, "vocab_size": 49_408, "width": 32, "heads": 2, "layers": 1},
}
MAIN = find_spec("open_clip.task") is not None
"""Whether this is open_clip's main branch, whose batches are dictionaries."""
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
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


def settings(shards: str, **changes: Any) -> LoaderConfig:
    tokenizer = TokenizerConfig(context_length=12)
    return LoaderConfig(shards=(shards,), image_size=32, tokenizer=tokenizer, **({"batch_size": 4} | changes))


def both(batch: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Images and texts of a batch."""
    return (batch["image"], batch["text"]) if MAIN else batch


def test_batches_equal_open_clips_transform_and_tokens(shards):
    """Evaluation data, in the files' order: every pixel and every id, against open_clip's transform and tokenizer."""
    kept = settings(shards, last_batch="keep", shuffle_window=0, batch_size=16)
    data = adapter.open_clip_data(kept, mean=MEAN, std=STD)
    assert (data.dataloader.num_batches, data.dataloader.num_samples, len(data.dataloader)) == (1, 16, 1)
    (batch,) = data.dataloader
    images, texts = both(batch)
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


@pytest.mark.parametrize(("name", "value"), [("genlip", True), ("text_key", "txt;caption")])
def test_unsupported_flags_of_open_clip_are_refused(name, value, shards, monkeypatch):
    """And what else main passes reaches open_clip."""
    passed = {}

    def original(*_: object, **more: object) -> dict[str, object]:
        passed.update(more)
        return {}

    monkeypatch.setattr("open_clip_train.data.get_data", original)
    args = Namespace(train_data=shards, dataset_type="auto", **{name: value})
    with refusal_of(f"--{name.replace('_', '-')}"):
        adapter.get_data(args, (None, None), naflex_data_config=7)
    assert passed == {"naflex_data_config": 7}


def test_flags_of_naflex_give_timms_dictionary(shards, monkeypatch):
    monkeypatch.setattr("open_clip_train.data.get_data", lambda *_, **__: {})
    more = {"dataset_type": "webdataset", "use_naflex": True, "dataset_resampled": False, "workers": 1, "seed": 0}
    more |= {"train_data_upsampling_factors": None, "train_num_samples": None}
    args = Namespace(train_data=shards, batch_size=4, rank=0, world_size=1, device="cpu", precision="fp32", **more)
    shared = {"variable_patch_size": False, "train_seq_len_probs": None, "max_tokens_per_batch": 24, "batch_divisor": 4}
    naflex = Namespace(train_patch_sizes=((16, 16),), train_seq_lens=(6,), **shared)

    def transform(max_seq_len: int, patch_size: tuple[int, int]) -> Any:
        sizes = {"naflex": True, "max_seq_len": max_seq_len, "patch_size": patch_size}
        return create_transform(32, is_training=True, hflip=0, interpolation="bicubic", color_jitter=None, **sizes)

    tokenizer = open_clip.SimpleTokenizer(context_length=12)
    data = adapter.get_data(args, (transform, None), tokenizer=tokenizer, naflex_data_config=naflex)["train"]
    assert (data.dataloader.num_batches, data.dataloader.num_samples) == (4, 16)
    for images, texts in map(both, data.dataloader):
        assert images["seq_len"] == 6
        assert images["patches"].shape == (4, 6, 16 * 16 * 3)
        assert images["patch_coord"].dtype == torch.int64
        assert images["patch_valid"].sum(1).tolist() == (images["patch_coord"].amax(1) + 1).prod(1).tolist()
        assert texts.shape == (4, 12)
    naflex.variable_patch_size = True
    with refusal_of("--naflex-patch-sizes"):
        adapter.get_data(args, (transform, None), tokenizer=tokenizer, naflex_data_config=naflex)
