"""`prolip export`: runs and models in the hub's layout, the model card, and the upload."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file
from tests.support.class_folders import LABELS, write_calibrated_world
from tests.support.datacomp_sets import write_open_clip
from tests.support.frozen_pairs import made_up, write_pairs
from tests.support.hub import serving
from tests.support.untrained_run import write_checkpoint, write_run, write_words

import prolip
from prolip.calibration.config import CALIBRATION_FILE
from prolip.checkpoint import open_saved
from prolip.cli import main
from prolip.data.config import TokenizerConfig
from prolip.models import ARCHITECTURES, ProLIP
from prolip.models.adapter import ADAPTER_FILE, ADAPTER_WEIGHTS
from prolip.models.hub import save_pretrained
from prolip.train.config import TrainConfig, to_toml
from prolip.train.config.optim import EmaConfig
from prolip.train.optim import Ema

DEMO = ARCHITECTURES["demo"]
SMALL = replace(
    DEMO, vision=replace(DEMO.vision, layers=1, image_size=12), text=replace(DEMO.text, layers=1, vocab_size=30)
)


@pytest.fixture
def run(tmp_path):
    """The folder of a run of 20 steps of 16 images."""
    torch.manual_seed(0)
    write_words(tmp_path / "tokenizer.json")
    config = TrainConfig(out=Path("runs/mine"), samples_seen=320, batch_size=16, architecture="demo", model=SMALL)
    tokenizer = TokenizerConfig(kind="file", path=tmp_path / "tokenizer.json", context_length=20)
    config = replace(config, data=replace(config.data, shards=("images-{0..3}.tar",), tokenizer=tokenizer))
    for step in (10, 20):
        folder = tmp_path / "run" / "checkpoints"
        write_checkpoint(folder, ProLIP(SMALL), to_toml(config), step=step, elapsed_s=7200.0, trained=config)
    return tmp_path / "run"


def refused(capsys, *words):
    """The field or the file that the message of a refused export names."""
    capsys.readouterr()
    assert main(["export", *words]) == 2
    return capsys.readouterr().err.splitlines()[-1].removeprefix("prolip export: ").partition(": ")[0]


def test_an_export_that_cannot_work_changes_nothing(run, tmp_path, capsys):
    out, mine = tmp_path / "out", tmp_path / "mine"
    mine.mkdir()
    (mine / "README.md").write_text("what my photos show")
    for _ in range(2):  # an export may be replaced
        assert main(f"export {run} --out {out}".split()) == 0
    before = {path: path.read_bytes() for path in (*out.iterdir(), *mine.iterdir())}
    (broken := tmp_path / "broken.json").write_text("no tokenizer")
    save_pretrained(ProLIP(SMALL), bare := tmp_path / "bare")
    tokens = replace(SMALL, text=replace(SMALL.text, vocab_size=49408))
    oblong = replace(tokens, vision=replace(SMALL.vision, image_size=(12, 18)))
    save_pretrained(ProLIP(oblong), tmp_path / "oblong")
    new = tmp_path / "new"
    for field, words in (
        (f"tokenizer {broken}", f"{run} --out {out} --tokenizer {broken}".split()),
        ("out", [str(run), "--out", str(mine)]),
        ("out", [str(out), "--out", str(out)]),
        ("out", [str(run)]),
        ("weights", f"{out} --out {new} --weights trained".split()),
        ("tokenizer", f"{bare} --out {new} --format transformers".split()),
        (str(tmp_path / "absent"), [str(tmp_path / "absent"), "--out", str(new)]),
    ):
        assert refused(capsys, *words) == field
    assert main([*f"export {run} --out {new} --licence".split(), "my own: yes"]) == 2
    assert main(f"export {run} --out {new} --push mine".split()) == 2
    for form in ("transformers", "sentence-transformers"):
        words = [*f"{tmp_path}/oblong --out {new} --format".split(), form, "--tokenizer", "clip"]
        assert "image_size" in refused(capsys, *words)
    assert {path: path.read_bytes() for path in (*out.iterdir(), *mine.iterdir())} == before
    assert not new.exists()


def test_averaged_or_raw_weights_of_a_run_can_be_exported(run, tmp_path):
    model = ProLIP(SMALL)
    ema = Ema(model, EmaConfig(decay=0.5, warmup=False))
    trained = {name: tensor + 1 for name, tensor in model.state_dict().items()}
    averaged = {name: tensor + 0.5 for name, tensor in model.state_dict().items()}
    model.load_state_dict(trained)
    ema.update(1)
    saved = open_saved(run)
    write_checkpoint(run / "checkpoints", model, saved.notes.config, step=30, average=ema)
    for flags, expected in (((), averaged), (("--weights", "trained"), trained)):
        out = tmp_path / f"out{len(flags)}"
        assert main([*f"export {run} --out {out}".split(), *flags]) == 0
        found = load_file(out / "model.safetensors")
        for name, tensor in expected.items():
            torch.testing.assert_close(found[name], tensor, msg=name)


def test_the_model_card_states_model_and_training_data(run, tmp_path):
    out = tmp_path / "out"
    assert main(f"export {run} --out {out} --license cc-by-4.0".split()) == 0
    card = (out / "README.md").read_text()
    assert re.match(r"---\nlicense: cc-by-4\.0\nlibrary_name: prolip\n(.*\n)*?---\n\n# mine\n", card)
    rows = dict(re.findall(r"^\| (.+?) \| (.+) \|$", card, flags=re.M))
    assert rows["trained on"] == "`images-{0..3}.tar`"
    assert (rows["steps"], rows["batch size"]) == ("20", "16")
    assert (rows["licence"], rows["started from"], rows["hours"]) == ("cc-by-4.0", "random weights", "2.00")
    assert (rows["ppcl_weight"], rows["inclusion_form"], rows["lr"]) == ("1.0", "official", "0.0005")
    assert main(f"export {run} --out {out} --trained_on emoji --name Emoji".split()) == 0
    card = (out / "README.md").read_text()
    assert "# Emoji\n" in card
    assert "| trained on | emoji |" in card


def test_a_pushed_model_loads_with_the_same_tensors(run, tmp_path, capsys, monkeypatch):
    words = f"export {run} --push me/mine --private".split()
    with serving(tmp_path, tmp_path / "cache"):
        for _ in range(2):  # also where the repository exists
            assert main(words) == 0
        assert re.search(r"pushed: http\S+/me/mine/commit/", capsys.readouterr().out)
        back, sent = (prolip.load(source).network.state_dict() for source in ("hf-hub:me/mine", run))
        monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
        assert refused(capsys, *words[1:], "--out", str(tmp_path / "out")) == "push"
    asked = json.loads((tmp_path / "created.json").read_text())
    assert asked.get("private") or asked.get("visibility") == "private"  # as versions of huggingface_hub ask
    assert all(torch.equal(back[name], tensor) for name, tensor in sent.items())
    assert (tmp_path / "out" / "model.safetensors").exists()


@pytest.mark.parametrize("format", ["prolip", "sentence-transformers"])
def test_a_calibration_comes_along(tmp_path, format):
    write_calibrated_world(tmp_path)
    run, out = tmp_path / "run", tmp_path / "out"
    for kind in ("calibrate --num_resamples 5", "calibrate search"):
        assert main(f"{kind} --checkpoint {run} --data {tmp_path}/mine".split()) == 0
    with serving(tmp_path, tmp_path / "cache"):
        assert main([*f"export {run} --out {out} --push me/mine --format".split(), format]) == 0
        sets, expected = (
            [prolip.load(source).classify(tmp_path / "mine", LABELS, guarantee=0.8).label_sets for source in sources]
            for sources in ((out, "hf-hub:me/mine"), (run, run))
        )
        assert all(prolip.load(source).search_calibration is not None for source in (out, "hf-hub:me/mine"))
    assert sets == expected


def test_files_of_an_earlier_export_do_not_change_the_model(run, tmp_path):
    expected, out = prolip.load(run, device="cpu"), tmp_path / "out"
    write_words(tmp_path / "words.json")
    save_pretrained(ProLIP(SMALL), other := tmp_path / "other", tokenizer=tmp_path / "words.json")
    assert main(f"export {other} --out {out}".split()) == 0
    for name in (ADAPTER_FILE, ADAPTER_WEIGHTS, CALIBRATION_FILE):
        (out / name).write_text("{}")
    assert main(f"export {run} --out {out}".split()) == 0
    found = prolip.load(out, device="cpu").network.state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.network.state_dict().items())


def test_a_calibration_of_other_weights_does_not_come_along(tmp_path, caplog):
    write_calibrated_world(tmp_path)
    run, out = tmp_path / "run", tmp_path / "out"
    assert main(f"calibrate --checkpoint {run} --data {tmp_path}/mine --num_resamples 5".split()) == 0
    assert main(f"export {run} --out {out}".split()) == 0
    assert (out / CALIBRATION_FILE).exists()
    write_run(other := tmp_path / "other", tmp_path / "tokenizer.json", context_length=12)
    assert main(f"export {other} --out {out}".split()) == 0
    assert not (out / CALIBRATION_FILE).exists()
    (run / CALIBRATION_FILE).rename(other / CALIBRATION_FILE)
    assert main(f"export {other} --out {out}".split()) == 0
    assert not (out / CALIBRATION_FILE).exists()
    assert "calibration not used" in caplog.text


# ---- Adapted models -------------------------------------------------------------------------------------------------

TEXTS = ["a photo of a red fox", "a car"]


def adapt(folder, frozen, dim, *words):
    pairs = ["--embeddings", str(write_pairs(folder / "pairs", *made_up(30, dim))), "--checkpoint", frozen]
    assert main(["adapt", *pairs, "--out", str(folder / "model"), *words]) == 0
    return folder / "model"


@pytest.fixture(scope="module")
def adapted(tmp_path_factory):
    """An adapted model of open_clip."""
    folder = tmp_path_factory.mktemp("adapted")
    return adapt(folder, write_open_clip(folder / "clip"), 16, "--heads.steps", "3", "--heads.hidden", "4")


def test_an_adapter_is_copied_with_a_card(adapted, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(f"export {adapted} --out {out} --licence mit --name Mine".split()) == 0
    assert {path.name for path in out.iterdir()} == {ADAPTER_FILE, ADAPTER_WEIGHTS, "README.md"}
    card = (out / "README.md").read_text()
    assert all(text in card for text in ("# Mine\n", "license: mit", "open_clip:local-dir:"))
    ours, theirs = (prolip.load(folder, device="cpu").encode_texts(TEXTS) for folder in (adapted, out))
    assert torch.equal(ours.log_var, theirs.log_var)
    assert main(f"export {out} --out {out}".split()) == 0
    assert refused(capsys, str(adapted), "--out", str(tmp_path / "new"), "--format", "transformers") == "format"
