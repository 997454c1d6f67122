"""The object that `prolip.load` returns: any kind of image, any device and precision, also for open_clip."""

import io
import pickle
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image, ImageOps
from tests.support.images import encode, noise
from tests.support.refusals import refusal_of
from tests.support.shards import write_tar
from torch import Tensor

import prolip
from prolip.data import DataError
from prolip.errors import UserError
from prolip.gaussian import Gaussian, concatenate
from prolip.images.tensors import Patches
from prolip.models import ARCHITECTURES, ProLIP

CPU = torch.device("cpu")
COUNT = 7


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The same images as files, as a folder and in shards; one is turned by its tag."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "images" / "more").mkdir(parents=True)
    members = []
    for number in range(COUNT):
        turned = Image.Exif()
        turned[ExifTags.Base.Orientation] = 6 if number == 2 else 1
        picture = encode(noise(number, (50 + 20 * number, 41)), "png", exif=turned)
        place = "more/" if number >= 4 else ""
        (folder / "images" / f"{place}{number}.png").write_bytes(picture)
        members.append((f"{number}.png", picture))
    write_tar(folder / "shard-000.tar", members[:3])
    write_tar(folder / "shard-001.tar", members[3:])
    (folder / "images" / "notes.txt").write_text("no image")
    return folder


@pytest.fixture(scope="module")
def model(lab):
    return prolip.load(lab / "run", device="cpu")


@pytest.fixture(scope="module")
def native(lab):
    return prolip.load(lab / "native", device="cpu")


@pytest.fixture(scope="module")
def files(data):
    return sorted((data / "images").rglob("*.png"))


@pytest.fixture
def clip(lab):
    return prolip.load(f"open_clip:local-dir:{lab}/clip", device="cpu")


def assert_close(found, expected):
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


# ---- images ---------------------------------------------------------------------------------------------------------


def pixels_of(model, preprocess, images, batch_size=3):
    seen = []

    def encode(some):
        seen.extend(some if isinstance(some, Tensor) else some.images(preprocess.patch_size))
        return Gaussian.point(torch.zeros(1, 1))

    changed = replace(model.encoder, preprocess=preprocess, encode_pixels=encode, batch_size=batch_size)
    list(changed.of_images(images))
    return seen


def same(found, expected):
    return all(torch.equal(*both) for both in zip(found, expected, strict=True))


@pytest.mark.parametrize("form", ["shortest", "native", "squash"])
@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_every_kind_of_images_gives_the_same_batches(data, files, model, native, form, batch_size):
    preprocess = native.preprocess if form == "native" else model.preprocess
    if form == "squash":
        preprocess = replace(preprocess, resize="squash", filter="bilinear")
    expected = [preprocess(path) for path in files]
    opened = [Image.open(path) for path in files]
    arrays = [np.asarray(ImageOps.exif_transpose(image) if form == "native" else image) for image in opened]
    kinds = {
        "paths": files,
        "texts": [str(path) for path in files],
        "bytes": [path.read_bytes() for path in files],
        "views of bytes": [memoryview(path.read_bytes()) for path in files],
        "PIL images": [Image.open(path) for path in files],
        "a generator": (Image.open(path) for path in files),
        "arrays": arrays,
        "tensors": [torch.from_numpy(array.copy()).permute(2, 0, 1) for array in arrays],
        "ready": expected,
        "a folder": data / "images",
        "folders": [str(data / "images")],
        "a pattern": str(data / "shard-{000..001}.tar"),
        "a glob": f"{data}/shard-*.tar",
        "shards": [data / "shard-000.tar", data / "shard-001.tar"],
        "a mixture": [files[0], arrays[1], expected[2], data / "shard-001.tar"],
    }
    for kind, images in kinds.items():
        assert same(pixels_of(model, preprocess, images, batch_size), expected), kind
    same_size = np.stack([np.asarray(noise(number)) for number in range(4)])
    rows = torch.stack([preprocess(array) for array in same_size])
    for images in (same_size, torch.from_numpy(same_size).permute(0, 3, 1, 2), rows):
        assert same(pixels_of(model, preprocess, images, batch_size), [*rows])


def test_a_native_image_has_one_embedding_however_it_is_batched(lab, data, files, native):
    alone = concatenate([native.encode_images(path) for path in files])
    images = [files, data / "images", f"{data}/shard-*.tar"]
    for size, one in product((2, 100), images):
        assert_close(native.encode_images(one, batch_size=size), alone)
    few = prolip.load(lab / "native", device="cpu", image_seq_len=4)
    assert few.fingerprint() != native.fingerprint()
    patches = few.preprocess(files)
    assert isinstance(patches, Patches)
    assert int(patches.grids.prod(dim=1).max()) == 4
    with refusal_of("images[0]"):
        few.encode_images(native.preprocess(files[0]))
    for run, length in (("run", 4), ("native", 0)):
        with refusal_of("image_seq_len"):
            prolip.load(lab / run, device="cpu", image_seq_len=length)


def test_results_are_plain_tensors_and_the_training_mode_is_restored(files, model):
    """A probe can be trained on them, which torch refuses for tensors of its inference mode."""
    model.network.train()
    found = model.encode_images(files[:1])
    assert model.network.training
    model.network.eval()
    assert torch.equal(found.mean, model.encode_images(files[:1]).mean)
    for gaussian in (found, model.encode_texts("a picture")):
        assert gaussian.mean.dtype == gaussian.log_var.dtype == torch.float32
        assert gaussian.mean.norm(dim=-1).tolist() == pytest.approx([1.0])
        probe = torch.nn.Linear(32, 1)
        probe(gaussian.mean).sum().backward()
        assert probe.weight.grad is not None


@pytest.mark.parametrize(
    ("images", "kind", "named"),
    [
        (["0.png", "absent.jpg"], UserError, "absent.jpg"),
        (["0.png", b"no image"], DataError, r"images\[1\]"),
        ([np.zeros((2, 4, 4, 9), dtype=np.uint8)], UserError, r"images\[0\]\[0\]"),
        (["https://example.org/cat.jpg"], UserError, "https"),
        (["empty"], UserError, r"images\[0\]"),
        (["absent.tar"], UserError, ""),
        (["bad.tar"], DataError, ".*k1"),
        ([], UserError, "images"),
        (7, UserError, "images"),
        (io.BytesIO(b"an open file"), UserError, "images"),
    ],
    ids=lambda value: str(value)[:24],
)
def test_bad_image_input_is_named(images, kind, named, files, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    png = files[0].read_bytes()
    Path("0.png").write_bytes(png)
    Path("empty").mkdir()
    write_tar(Path("bad.tar"), [(f"k{number}.png", png if number != 1 else b"no image") for number in range(150)])
    with pytest.raises(kind, match=f"^{named}"):
        model.encode_images(images)


# ---- texts and classes ----------------------------------------------------------------------------------------------


def test_bad_captions_and_batch_sizes_are_named(model):
    texts: Any
    for texts, batch_size, field in (([], 1, "texts"), (["a", 7], 1, "texts[1]"), ("a", 0, "batch_size")):
        with refusal_of(field):
            model.encode_texts(texts, batch_size=batch_size)
    with refusal_of("batch_size"):
        model.encode_images(Image.new("RGB", (8, 8)), batch_size=-1)


def test_classify_uses_templates_and_prompt_weights(model, files):
    labels, templates = ["animals", "food", "travel"], ["a picture of {}", "{}", "an emoji: {}"]
    found = model.classify(files, labels, templates=templates)
    images = model.encode_images(files)
    texts = model.encode_texts([template.replace("{}", label) for label in labels for template in templates])
    mean = torch.nn.functional.normalize(texts.mean.view(3, 3, -1).mean(1), dim=-1)
    var = texts.var.view(3, 3, -1).mean(1).sum(1)
    logits = model.logit_scale * (images.mean @ mean.T - var / 2)
    torch.testing.assert_close(found.probabilities, logits.softmax(1), atol=1e-5, rtol=1e-4)
    assert found.labels == [labels[place] for place in logits.argmax(1).tolist()]
    assert found.match is not None
    first = torch.eye(3)[0].repeat(3, 1)
    weighted = model.classify(files, labels, templates=templates, prompt_weights=first)
    alone = model.classify(files, labels, templates=templates[:1])
    torch.testing.assert_close(weighted.probabilities, alone.probabilities, atol=1e-5, rtol=1e-4)


# ---- precision, devices, open_clip ----------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_lower_precision_results_are_close_and_float32(lab, files, precision):
    for source in (str(lab / "run"), f"open_clip:local-dir:{lab}/clip"):
        exact, low = (prolip.load(source, device="cpu", precision=one) for one in ("fp32", precision))
        for found, expected in (
            (low.encode_images(files), exact.encode_images(files)),
            (low.encode_texts(["a picture"]), exact.encode_texts(["a picture"])),
        ):
            assert found.mean.dtype == torch.float32
            assert not torch.equal(found.mean, expected.mean)
            torch.testing.assert_close(found.mean, expected.mean, atol=0.02, rtol=0.05)
            torch.testing.assert_close(found.mean.norm(dim=-1), torch.ones(len(found.mean)))


def test_devices_are_torch_names_or_auto(lab):
    place = "cuda" if torch.cuda.is_available() else "cpu"
    assert prolip.load(lab / "run").device.type == place
    wrong: Any
    for field, wrong in (("device", {"device": "gpu"}), ("precision", {"precision": "int8"})):
        with refusal_of(field):
            prolip.load(lab / "run", **wrong)


def test_a_model_of_open_clip_is_the_same_object_with_zero_variance(clip, lab, files):
    import open_clip

    theirs, _, transform = open_clip.create_model_and_transforms(f"local-dir:{lab}/clip")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{lab}/clip")
    theirs.eval()
    images, texts = clip.encode_images(files), clip.encode_texts(["a cat", "a dog"])
    with torch.no_grad():
        expected = theirs.encode_image(torch.stack([transform(Image.open(path)) for path in files]), normalize=True)
        torch.testing.assert_close(images.mean, expected, atol=1e-5, rtol=1e-4)
        expected_text = theirs.encode_text(tokenizer(["a cat", "a dog"]), normalize=True)
        torch.testing.assert_close(texts.mean, expected_text, atol=1e-5, rtol=1e-4)
    assert torch.equal(images.uncertainty, torch.zeros(COUNT))
    torch.testing.assert_close(prolip.csd(images, texts), 2 - 2 * images.mean @ texts.mean.T, atol=1e-5, rtol=1e-4)
    found = clip.classify(files, ["a cat", "a dog"], templates=["{}"])
    assert found.match is None
    scale = float(theirs.logit_scale.detach().exp())
    torch.testing.assert_close(found.probabilities, (scale * images.mean @ texts.mean.T).softmax(1))
    assert torch.equal(clip.tokenize(["a cat"]), tokenizer(["a cat"]))
    with pytest.raises(UserError):
        clip.encoder.require_tokenizer()


@pytest.mark.parametrize("kind", ["run", "clip"])
def test_a_model_can_be_pickled(kind, request, files):
    """As a DataLoader does for workers that are not forked."""
    model = request.getfixturevalue("model" if kind == "run" else "clip")
    copied = pickle.loads(pickle.dumps(model))
    for ours, theirs in zip(copied.encode_images(files[:2]), model.encode_images(files[:2]), strict=True):
        assert torch.equal(ours, theirs)
    assert torch.equal(copied.encode_texts(["a cat"]).mean, model.encode_texts(["a cat"]).mean)


HALF = (0.5, 0.5, 0.5)


def changed(model, **changes):
    return replace(model, encoder=replace(model.encoder, **changes))


def test_the_fingerprint_changes_with_weights_and_preprocessing(lab):
    model = prolip.load(lab / "run", device="cpu")
    before = model.fingerprint()
    others = [
        *(
            changed(model, preprocess=replace(model.preprocess, **change))
            for change in ({"mean": HALF}, {"std": HALF}, {"filter": "bilinear"}, {"resize": "squash"})
        ),
        replace(model, has_variances=False),
        changed(model, tokenizer=lambda captions: model.tokenize([text[:2] for text in captions])),
    ]
    found = [other.fingerprint() for other in others]
    assert replace(model, name="elsewhere").fingerprint() == before
    next(model.network.parameters()).data[...] += 1e-3
    found.append(model.fingerprint())
    assert len({before, *found}) == 1 + len(others) + 1


def test_a_bare_state_dict_needs_its_architecture(tmp_path):
    torch.save(ProLIP(ARCHITECTURES["demo"]).state_dict(), path := tmp_path / "epoch_1.pt")
    with pytest.raises(UserError, match=f"^{path}"):
        prolip.load(path)
    model = prolip.load(path, config=ARCHITECTURES["demo"], device="cpu")
    assert model.encode_images(torch.zeros(1, 3, 36, 36)).mean.shape == (1, 128)
    for other in (tmp_path, tmp_path / "absent.pt"):
        with pytest.raises(UserError, match=f"^{other}"):
            prolip.load(other)


def test_a_missing_open_clip_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(UserError, match=r"prolip\[open_clip\]"):
        prolip.load("open_clip:ViT-B-32/openai")
