"""A model with a Laplace approximation, wherever others are compared by sampled distance: right, or refused."""

import json
import math
from pathlib import Path

import pytest
import torch
from tests.support.class_folders import LABELS, write_calibrated_world

import prolip
from prolip.calibration.config import NO_CSD
from prolip.cli import main
from prolip.evaluation.config import DecisionsOptions
from prolip.evaluation.datasets import open_classes
from prolip.evaluation.decisions import answer_images, decide, plain_scores
from prolip.explore.explorer import Explorer
from prolip.inference.classify import weigh
from prolip.inference.model import Model, weights_digest
from prolip.metrics.uncertainty import cosine_moments
from prolip.models.adapter import Adapter, Frozen, LaplaceHead, save_adapter
from prolip.models.config import AdapterConfig


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`mine`: labelled images; `laplace`: a model whose texts differ much in variance; `embeddings`: of pairs."""
    root = tmp_path_factory.mktemp("laplace")
    write_calibrated_world(root)
    frozen = prolip.load(root / "run", device="cpu")
    adapter = Adapter(AdapterConfig(method="laplace", embed_dim=32, has_bias=True))
    adapter.set_logits(20.0, -5.0)
    draws = torch.Generator().manual_seed(0)
    for head, size in ((adapter.image, 0.02), (adapter.text, 2.0)):
        assert isinstance(head, LaplaceHead)
        head.spread.copy_(size * torch.rand(32, 32, generator=draws).pow(4))
    save_adapter(adapter, Frozen(str(root / "run"), weights_digest(frozen.network), None), root / "laplace", {})
    for path in (root / "mine").rglob("*.png"):
        path.with_suffix(".txt").write_text(path.parent.name)
    given = f"--checkpoint {root}/laplace --device cpu".split()
    words = [*given, *f"--images {root}/mine --what both --out {root}/embeddings".split()]
    assert main(["embed", *words]) == 0
    return root


@pytest.fixture(scope="module")
def model(lab: Path) -> Model:
    return prolip.load(lab / "laplace", device="cpu")


def test_laplace_probabilities_use_the_expected_cosine(lab, model):
    assert model.epistemic
    assert model.has_variances
    assert not model.has_csd
    found = model.classify(lab / "mine", LABELS, templates=["{}"], progress=False)
    images, texts = model.encode_images(lab / "mine", progress=False), model.encode_texts(LABELS, progress=False)
    logits = 20 * images.mean @ texts.mean.T
    shrink = (1 + math.pi / 8 * 400 * cosine_moments(images, texts).var).rsqrt()
    torch.testing.assert_close(found.probabilities, (logits * shrink).softmax(dim=1), rtol=1e-3, atol=1e-5)
    assert found.match is not None
    torch.testing.assert_close(found.match, ((logits - 5) * shrink).sigmoid(), rtol=1e-3, atol=1e-5)
    plain = model.similarity._replace(epistemic=False)
    prompts = texts[:, None]
    by_distance = weigh(images, prompts, None, plain).logits.softmax(dim=1)
    assert float((by_distance - found.probabilities).abs().max()) > 0.1, "the distance would give other ones"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("data select --embeddings embeddings --by csd --keep_share .5 --out r", "by: "),
        ("data select --embeddings embeddings --by inclusion --keep_share .5 --out r", "by: "),
        ("calibrate --checkpoint laplace --data mine --score csd", "score: "),
        ("bprw --checkpoint laplace --shards a.tar --classnames names.txt", "checkpoint: must have aleatoric"),
    ],
)
def test_commands_that_need_the_csd_are_refused(lab, words, message, capsys, monkeypatch):
    monkeypatch.chdir(lab)
    Path("names.txt").write_text("\n".join(LABELS))
    Path("a.tar").touch()
    assert main(words.split()) != 0
    said = capsys.readouterr().err
    assert message in said
    assert NO_CSD in said


def test_the_explore_page_is_refused(model):
    with pytest.raises(ValueError, match=NO_CSD):
        Explorer(model, [])


def test_calibration_and_suites_leave_the_csd_out(lab, model, capsys):
    given = f"--checkpoint {lab}/laplace --data {lab}/mine --device cpu".split()
    assert main(["calibrate", *given, *f"--num_resamples 1 --out {lab}/c.safetensors".split()]) == 0
    calibrated = prolip.load(lab / "laplace", device="cpu", calibration=lab / "c.safetensors")
    sets = calibrated.classify(lab / "mine", LABELS, guarantee=0.9, progress=False).label_sets
    assert sets is not None
    assert main(["eval", "zero_shot", *given, *f"--out {lab}/zero --num_resamples 1".split()]) == 0
    assert NO_CSD in capsys.readouterr().out
    metrics = [row["metric"] for row in json.loads((lab / "zero" / "results.json").read_text())["figures"]]
    assert "accuracy" in metrics
    assert not [metric for metric in metrics if "variance" in metric]
    options = DecisionsOptions(checkpoint=(), data=())
    data = open_classes(str(lab / "mine"), options.store, ())
    answered = answer_images(model, data, options)
    assert {score for score, _ in decide(answered).sets} == {"lac", "aps", "raps"}
    scores = plain_scores(answered, answered.images)
    assert set(scores) == {"max probability", "margin", "entropy", "energy", "image's variance"}
