"""The encoder: pixels, captions and members of samples, whoever decodes them, and what becomes of bad ones."""

import io
import random
from dataclasses import replace

import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from tests.support.datacomp_sets import encoded_image, preprocess_of
from tests.support.images import encode
from tests.support.shards import write_tar

import prolip
from prolip.data import DataError
from prolip.gaussian import Gaussian
from prolip.inference.encoder import Encoder, Sample, decoded_ahead, in_batches, joined

SETTINGS = [
    {"size": 20},
    {"size": 33, "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]},
    {"size": 20, "resize_mode": "squash"},
    {"size": 20, "interpolation": "bilinear"},
    {"size": 20, "resize_mode": "longest", "fill_color": 9},
    {"size": [16, 24]},
]


def encoder_of(settings, **changes):
    """Its means are the pixels."""
    return Encoder(
        network=torch.nn.Identity(),
        device=torch.device("cpu"),
        encode_pixels=lambda pixels: Gaussian.point(pixels.flatten(1)),
        encode_tokens=lambda ids: Gaussian.point(ids.float()),
        tokenizer=lambda texts: torch.tensor([[len(text)] for text in texts]),
        preprocess=preprocess_of(settings),
        **changes,
    )


@pytest.fixture
def encoded():
    draw = random.Random(5)
    gray = encode(Image.effect_noise((50, 31), 80), "jpeg")
    return [*(encoded_image(draw, kind) for kind in ("png", "jpeg", "webp", "jpeg") for _ in range(3)), gray]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_pixels_equal_open_clips(settings, encoded, tmp_path):
    write_tar(tmp_path / "a.tar", [(f"k{n:02}.png", data) for n, data in enumerate(encoded)])
    transform = image_transform_v2(PreprocessCfg(**settings), is_train=False)
    expected = torch.stack([transform(Image.open(io.BytesIO(data))) for data in encoded])
    encoder = encoder_of(settings, batch_size=5)
    batches = list(encoder.of_shards([str(tmp_path / "a.tar")]))
    assert [len(rows.keys) for rows in batches] == [5, 5, 3]
    rows, preprocess = joined(batches), encoder.preprocess
    assert rows.keys == [f"k{n:02}" for n in range(13)]
    found = rows.gaussian.mean.view(expected.shape)
    mean, std = (torch.tensor(value)[:, None, None] for value in (preprocess.mean, preprocess.std))
    pixels = [((images * std) * 255 + mean * 255).round() for images in (found, expected)]
    assert torch.equal(*pixels)
    assert torch.allclose(found, expected, atol=2e-6)


BOTH = pytest.mark.parametrize("settings", [{"size": 20}, {"size": 20, "resize_mode": "squash"}], ids=str)


@BOTH
def test_unreadable_images_are_skipped_up_to_1_percent(settings, encoded, tmp_path):
    """One of 150 is no fault, two are: an image that cannot be decoded, or a sample without one."""
    encoder, shard = encoder_of(settings, batch_size=64, keep=("json", "png")), tmp_path / "a.tar"
    members = [(f"k{n:03}.png", encoded[n % 3]) for n in range(150)]
    members.insert(7, ("k006.json", b'{"n": 6}'))
    members[20] = ("k019.png", b"no image")
    write_tar(shard, members)
    rows = joined(encoder.of_shards([str(shard)]))
    assert rows.keys == [f"k{n:03}" for n in range(150) if n != 19]
    assert rows.places == [n for n in range(150) if n != 19]
    assert rows.members["json"][5:8] == [None, b'{"n": 6}', None]
    assert rows.members["png"] == [encoded[n % 3] for n in range(150) if n != 19]
    for extension in ("png", "cls"):
        members[21:23] = [(f"k02{n}.{extension}", b"no image") for n in range(2)]
        write_tar(shard, members)
        with pytest.raises(DataError, match=r"a\.tar"):
            list(encoder.of_shards([str(shard)]))


@BOTH
@pytest.mark.parametrize("fault", ["truncated", "no archive"])
def test_a_damaged_shard_is_always_an_error(fault, settings, encoded, tmp_path):
    write_tar(tmp_path / "a.tar", [(f"k{n:03}.png", encoded[n % 3]) for n in range(200)])
    whole = (tmp_path / "a.tar").read_bytes().rstrip(b"\0")
    (tmp_path / "a.tar").write_bytes(whole[:-100] if fault == "truncated" else b"no archive" * 200)
    with pytest.raises(DataError, match=r"a\.tar"):
        list(encoder_of(settings).of_shards([str(tmp_path / "a.tar")]))


def test_the_loader_and_the_pool_make_the_same_rows(lab, encoded, tmp_path):
    """Of images and captions in two slots; a sample without one of its captions is left out by both."""
    members = []
    for n, data in enumerate(encoded):
        members += [(f"k{n:02}.png", data if n != 4 else b"no image"), (f"k{n:02}.txt", b" an emoji " * n)]
        members += [(f"k{n:02}.json", b'{"a": ["food"]}' if n != 2 else b"{}")]
    write_tar(tmp_path / "a.tar", members)
    model = prolip.load(lab / "run", device="cpu")
    encoder = replace(model.encoder, caption_keys=("txt", "a.0"), batch_size=4)
    with encoder.loader([str(tmp_path / "a.tar")]) as loader:
        loaded = joined(encoder.of_loader(loader))
        bad = sum(loader.stats().bad.values())
    files = dict(members)
    samples = [
        Sample(f"k{n:02}", n, files[f"k{n:02}.png"], {kind: files[f"k{n:02}.{kind}"] for kind in ("txt", "json")})
        for n in range(len(encoded))
    ]
    pooled = joined(encoder.of_samples(in_batches(samples, 4)))
    assert pooled.keys == loaded.keys == [f"k{n:02}" for n in range(13) if n not in {2, 4}]
    assert pooled.places == loaded.places
    assert pooled.sizes == [tuple(size) for size in loaded.sizes]
    assert [(one.key, one.place) for one in pooled.bad] == [("k02", 2), ("k04", 4)]
    assert bad == 2
    assert pooled.token_ids is not None
    assert torch.equal(pooled.token_ids, loaded.token_ids)
    assert pooled.text is not None
    for ours, theirs in ((pooled.text, loaded.text), (pooled.images["image"], loaded.images["image"])):
        torch.testing.assert_close(ours.mean, theirs.mean, atol=1e-5, rtol=1e-4)


def test_views_see_the_same_pixels_and_captions_alone_need_no_image(encoded):
    samples = [Sample(str(n), n, data, {"txt": b"a" * n}) for n, data in enumerate(encoded)]
    views = {"one": lambda pixels: Gaussian.point(pixels.flatten(1)), "two": lambda p: Gaussian.point(p[:, 0, 0])}
    encoder = encoder_of({"size": 20}, views=views)
    images = joined(encoder.of_samples(in_batches(samples, 6))).images
    assert torch.equal(images["one"].mean[:, :20], images["two"].mean)
    samples[3] = samples[3]._replace(image=b"no image")
    alone = joined(encoder_of({"size": 20}, views={}, caption_keys=("txt",)).of_samples([samples]))
    assert not alone.images
    assert alone.text.mean.flatten().tolist() == list(range(13))


def test_the_next_batch_is_decoded_ahead_of_use():
    read = []

    def batches():
        for first in (0, 2, 4):
            read.append(first)
            yield range(first, first + 2)

    found = decoded_ahead(batches(), lambda number: number**2, 1)
    assert next(found) == [(0, 0), (1, 1)]
    assert read == [0, 2]
    assert list(found) == [[(2, 4), (3, 9)], [(4, 16), (5, 25)]]
