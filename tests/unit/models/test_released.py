"""The list of released models matches the model zoo, and every entry opens."""

import re
from pathlib import Path

import pytest
import torch
from tests.conftest import ROOT
from tests.support.hub import serving
from tests.support.images import noise
from tests.support.released_hub import BIAS, SCALE, config_text, write_all_released

import prolip
from prolip.errors import UserError
from prolip.models import ARCHITECTURES
from prolip.models.released import find_released, list_models
from prolip.pretrained.sources import load_network, read_config, resolve

NAMES = [model.name for model in list_models()]


class World:
    def __init__(self, folder):
        self.networks = write_all_released(folder / "hub" / "models")
        noise(1).save(folder / "cat.jpg")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("released")
    with pytest.MonkeyPatch.context() as patch, serving(folder, folder / "cache"):
        made = World(folder)
        patch.chdir(folder)
        yield made


@pytest.mark.parametrize("name", NAMES)
def test_every_released_name_loads_and_classifies(world, name):
    """The README's code, beside what the network itself says."""
    model = prolip.load(name)
    given = ["cat.jpg", noise(2), Path("cat.jpg").read_bytes()]
    images = model.encode_images(given)
    texts = model.encode_texts(["a tabby cat", "an animal"])
    assert prolip.csd(images, texts).shape == (3, 2)
    found = model.classify("cat.jpg", ["cat", "dog", "car"])
    assert float(found.probabilities.sum()) == pytest.approx(1.0)
    assert found.uncertainty.tolist() == pytest.approx(images.uncertainty[:1].tolist(), rel=1e-4)
    preprocess = model.preprocess
    released = find_released(name)
    ids = model.tokenize(["a tabby cat", "an animal"])
    assert ids.shape == (2, released.context_length)
    assert preprocess("cat.jpg").shape == (3, released.image_size, released.image_size)
    assert (preprocess.mean, preprocess.std) == (released.mean, released.std)
    assert model.logit_scale == pytest.approx(SCALE)
    assert model.logit_bias == BIAS
    with torch.no_grad():
        pixels = torch.stack([preprocess(image) for image in given])
        both = (texts, world.networks[name].encode_text(ids)), (images, world.networks[name].encode_image(pixels))
    for ours, theirs in both:
        torch.testing.assert_close(ours.log_var, theirs.log_var, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(ours.mean, theirs.mean, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("released", list_models(), ids=lambda released: released.name)
def test_captions_are_tokenized_as_the_model_was_trained(world, released):
    ids = prolip.load(released.name).tokenize(["A (tabby), cat!"])[0].tolist()
    if released.tokenizer == "clip":
        import open_clip

        assert ids == open_clip.SimpleTokenizer(context_length=77)(["A (tabby), cat!"])[0].tolist()
    else:
        # Punctuation is removed, </s> ends the caption and pads it to the whole context.
        words = ["<unk>", "</s>", *_words(Path(f"hub/models/{released.tokenizer}/tokenizer.json"))[2:]]
        assert ids == [words.index("a"), words.index("tabby"), words.index("cat")] + [1] * (released.context_length - 3)


def _words(tokenizer):
    from tokenizers import Tokenizer

    vocabulary = Tokenizer.from_file(str(tokenizer)).get_vocab()
    return sorted(vocabulary, key=vocabulary.__getitem__)


def test_the_list_of_models_equals_the_model_zoo_page():
    page = (ROOT / "docs" / "model-zoo.md").read_text(encoding="utf-8")
    for model in list_models():
        tokenizer = "CLIP's own" if model.tokenizer == "clip" else f"`{model.tokenizer}`"
        cells = [f"`{model.name}`", f"`{model.architecture}`", f"{model.image_size}", tokenizer]
        cells += [f"{model.context_length}", f"`{model.clean}`"]
        assert re.search(r"\| *" + r" *\| *".join(map(re.escape, cells)) + r" *\|", page), cells


@pytest.mark.parametrize(("architecture", "size"), [("ViT-B-16", 631), ("ViT-H-14", 519)])
def test_the_exported_config_equals_the_released_bytes(architecture, size):
    """The sizes of both files on the hub. That of H/14 shows that it names no tokenizer."""
    assert len(config_text(ARCHITECTURES[architecture])) == size


@pytest.mark.parametrize("name", [NAMES[0], f"SanghyukChun/{NAMES[0]}", f"hf-hub:SanghyukChun/{NAMES[0]}"])
def test_a_released_model_loads_by_each_of_its_three_names(world, name):
    assert resolve(name).repository == f"SanghyukChun/{NAMES[0]}"
    assert torch.equal(load_network(name).visual.proj, world.networks[NAMES[0]].visual.proj)
    assert read_config(name).embed_dim == 32


def test_a_revision_may_follow_the_name(world):
    assert resolve(f"{NAMES[0]}@v2").repository == f"SanghyukChun/{NAMES[0]}@v2"
    assert load_network(f"{NAMES[0]}@main").config.embed_dim == 32
    with pytest.raises(UserError, match="v2"):
        prolip.load(f"{NAMES[0]}@v2")


def test_a_local_folder_takes_precedence_over_a_released_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / NAMES[0]).mkdir()
    assert resolve(NAMES[0]).repository is None
    with pytest.raises(UserError, match=r"config\.json"):
        prolip.load(NAMES[0])


def test_a_mistyped_name_gets_a_suggestion():
    with pytest.raises(UserError, match=f"'{NAMES[0]}'"):
        prolip.load(NAMES[0].replace("_", "."))
