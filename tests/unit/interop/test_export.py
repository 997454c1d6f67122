"""`prolip export`: runs and models in the hub's layout, the model card, and the upload."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file
from tests.support.class_folders import LABELS, write_calibrated_world
from tests.support.hub import serving
from tests.support.untrained_run import write_checkpoint, write_run, write_words

import prolip
from prolip.checkpoint import open_saved
from prolip.cli import main
from prolip.data import MaskConfig
from prolip.data.config import TokenizerConfig
from prolip.decisions.config import CALIBRATION_FILE
from prolip.models import ARCHITECTURES, ProLIP
from prolip.models.hub import save_pretrained
from prolip.models.official_json import to_official_json
from prolip.train.config import TrainConfig, to_toml
from prolip.train.config.parts import EmaConfig
from prolip.train.ema import Ema

DEMO = ARCHITECTURES["demo"]
SMALL = replace(
    DEMO, vision=replace(DEMO.vision, layers=1, image_size=12), text=replace(DEMO.text, layers=1, vocab_size=30)
)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a run of 20 steps of 16 images."""
    torch.manual_seed(0)
    write_words(tmp_path / "tokenizer.json")
    config = TrainConfig(out=Path("runs/mine"), samples_seen=320, batch_size=16, architecture="demo", model=SMALL)
    tokenizer = TokenizerConfig(kind="file", path=tmp_path / "tokenizer.json", context_length=20)
    config = replace(config, data=replace(config.data, shards=("images-{0..3}.tar",), tokenizer=tokenizer))
    for step in (10, 20):
        write_checkpoint(tmp_path / "run" / "checkpoints", ProLIP(SMALL), to_toml(config), step=step, elapsed_s=7200.0)
    return tmp_path / "run"


def test_a_run_of_another_version_loads_but_cannot_be_exported_or_resumed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    write_words(tmp_path / "tokenizer.json")
    tokenizer = TokenizerConfig(kind="file", path=tmp_path / "tokenizer.json", context_length=20)
    config = TrainConfig(samples_seen=320, batch_size=16, architecture="demo", model=SMALL)
    mask = MaskConfig(text_mode="remove")
    config = replace(config, data=replace(config.data, shards=("x.tar",), tokenizer=tokenizer, mask=mask))
    old = to_toml(config).replace('out = "runs/run"', 'name = "run"\nrun_dir = "runs/run"')
    write_checkpoint(tmp_path / "run" / "checkpoints", ProLIP(SMALL), old, step=10, trained=config)
    assert prolip.load(tmp_path / "run", device="cpu").encode_texts("a picture").mean.shape == (1, 128)
    (tmp_path / "again.toml").write_text(to_toml(config))
    for words in (
        ["export", str(tmp_path / "run"), "--out", str(tmp_path / "out")],
        ["train", str(tmp_path / "again.toml"), "--out", str(tmp_path / "run")],
        ["train", str(tmp_path / "again.toml"), "--out", str(tmp_path / "run"), "--dry-run"],
    ):
        capsys.readouterr()
        caplog.clear()
        assert main(words) == 2
        said = capsys.readouterr().err + caplog.text
        assert said.strip().endswith("it can be loaded and evaluated, but not resumed or exported"), said


def test_a_folder_with_other_files_is_left_alone(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "README.md").write_text("what my photos show")
    assert main(["export", str(run), "--out", str(mine)]) == 2
    assert f"out: {mine} holds files, but no model.safetensors or adapter.json or image.onnx" in capsys.readouterr().err
    assert [(path.name, path.read_text()) for path in mine.iterdir()] == [("README.md", "what my photos show")]
    assert main(["export", str(run), "--out", str(tmp_path / "out")]) == 0
    assert main(["export", str(run), "--out", str(tmp_path / "out")]) == 0, "an export may be replaced"


def test_an_export_that_cannot_work_changes_nothing(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["export", str(run), "--out", str(out)]) == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    (tmp_path / "broken.json").write_text("no tokenizer")
    for words, message in (
        ([str(run), "--tokenizer", str(tmp_path / "broken.json")], "broken.json: not a Hugging Face tokenizer.json"),
        (
            [str(run), "--tokenizer", str(tmp_path / "absent.json")],
            "absent.json: it must be `clip` or the file of a tokenizer.json",
        ),
        ([str(run), "--licence", "my own: yes"], "licence is 'my own: yes': it must be an id of the hub, such as mit"),
        ([str(out)], f"out: {out} is the model itself, whose card would be lost: name another folder"),
        ([str(out), "--format", "transformers"], f"out: {out} is the model itself"),
    ):
        assert main(["export", *words, "--out", str(out)]) == 2
        assert message in capsys.readouterr().err, words
        assert {path.name: path.read_bytes() for path in out.iterdir()} == before
        if str(out) not in words:
            assert main(["export", *words, "--out", str(tmp_path / "new")]) == 2
            assert not (tmp_path / "new").exists()
    assert main(["export", str(out), "--out", str(tmp_path / "new"), "--weights", "trained"]) == 2
    assert f"weights is trained: {out} is no run, and has no other weights" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_a_model_without_a_tokenizer_does_not_get_that_of_an_earlier_export(run: Path, tmp_path: Path) -> None:
    out, bare = tmp_path / "out", tmp_path / "bare"
    save_pretrained(ProLIP(SMALL), bare)
    for source in (run, bare):
        assert main(["export", str(source), "--out", str(out)]) == 0
    assert {path.name for path in out.iterdir()} == {"README.md", "config.json", "inference.json", "model.safetensors"}


def test_an_exported_run_loads_with_the_same_tensors(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(["export", str(run), "--out", str(out), "--licence", "mit"]) == 0
    names = {"README.md", "config.json", "inference.json", "model.safetensors", "tokenizer.json"}
    assert {path.name for path in out.iterdir()} == names
    before, after = (prolip.load(source).network for source in (run, out))
    assert after.config == before.config == SMALL
    assert list(load_file(out / "model.safetensors")) == sorted(before.state_dict())
    for name, tensor in before.state_dict().items():
        assert torch.equal(after.state_dict()[name], tensor), name


def test_averaged_or_raw_weights_of_a_run_can_be_exported(run: Path, tmp_path: Path) -> None:
    model = ProLIP(SMALL)
    ema = Ema(model, EmaConfig(decay=0.5, warmup=False))
    trained = {name: tensor + 1 for name, tensor in model.state_dict().items()}
    averaged = {name: tensor + 0.5 for name, tensor in model.state_dict().items()}
    model.load_state_dict(trained)
    ema.update(1)
    saved = open_saved(run)
    assert saved is not None
    write_checkpoint(run / "checkpoints", model, saved.notes.config, step=30, average=ema)
    for flags, expected in (((), averaged), (("--weights", "trained"), trained)):
        out = tmp_path / f"out{len(flags)}"
        assert main(["export", str(run), "--out", str(out), *flags]) == 0
        found = load_file(out / "model.safetensors")
        for name, tensor in expected.items():
            torch.testing.assert_close(found[name], tensor, msg=name)


def test_the_model_card_states_model_and_training_data(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(["export", str(run), "--out", str(out), "--license", "cc-by-4.0"]) == 0
    card = (out / "README.md").read_text()
    assert re.match(r"---\nlicense: cc-by-4\.0\nlibrary_name: prolip\n(.*\n)*?---\n\n# mine\n", card)
    rows = dict(re.findall(r"^\| (.+?) \| (.+) \|$", card, flags=re.M))
    assert rows["trained on"] == "`images-{0..3}.tar`"
    assert (rows["steps"], rows["samples seen"], rows["batch size"]) == ("20", "320", "16")
    assert (rows["licence"], rows["started from"], rows["hours"]) == ("cc-by-4.0", "random weights", "2.00")
    assert "1 layers of 128, 12 pixels in patches of 6" in rows["architecture"]
    assert (rows["ppcl_weight"], rows["inclusion_form"], rows["lr"]) == ("1.0", "official", "0.0005")
    assert (rows["text_unlocked_groups"], rows["unc_vectors"]) == ("0", "False")
    assert json.loads(card.split("```json\n")[1].split("```")[0]) == to_official_json(SMALL)
    assert main(["export", str(run), "--out", str(out), "--trained_on", "emoji", "--name", "Emoji"]) == 0
    card = (out / "README.md").read_text()
    assert "# Emoji\n" in card
    assert "| trained on | emoji |" in card


def test_the_card_of_a_converted_model_names_its_source(tmp_path: Path) -> None:
    save_pretrained(ProLIP(SMALL), tmp_path / "model")
    assert main(["export", str(tmp_path / "model"), "--out", str(tmp_path / "out")]) == 0
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"| started from | converted from {tmp_path / 'model'} |" in card
    assert "| steps | not stated when it was saved |" in card


@pytest.mark.parametrize("keep", [True, False])
def test_a_pushed_model_loads_with_the_same_tensors(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], keep: bool
) -> None:
    out = ["--out", str(tmp_path / "out")] if keep else []
    with serving(tmp_path, tmp_path / "cache"):
        for _ in range(2):  # also where the repository exists
            assert main(["export", str(run), *out, "--push", "me/mine", "--private"]) == 0
        assert re.search(r"pushed: http\S+/me/mine/commit/", capsys.readouterr().out)
        back, sent = (prolip.load(source).network.state_dict() for source in ("hf-hub:me/mine", run))
    asked = json.loads((tmp_path / "created.json").read_text())
    assert asked.get("private") or asked.get("visibility") == "private"  # as versions of huggingface_hub ask
    assert (tmp_path / "out").exists() == keep
    assert all(torch.equal(back[name], tensor) for name, tensor in sent.items())


def test_a_model_of_the_hub_is_exported_with_its_tokenizer(tmp_path: Path) -> None:
    write_run(run := tmp_path / "run", tmp_path / "own.json", context_length=12)
    with serving(tmp_path, tmp_path / "cache"):
        assert main(["export", str(run), "--push", "me/mine"]) == 0
        assert main(["export", "hf-hub:me/mine", "--out", str(tmp_path / "out")]) == 0
    assert prolip.load(tmp_path / "out").fingerprint() == prolip.load(run).fingerprint()


@pytest.mark.parametrize("format", ["prolip", "transformers", "sentence-transformers"])
def test_a_calibration_comes_along(tmp_path: Path, format: str) -> None:
    write_calibrated_world(tmp_path)
    run, out = tmp_path / "run", tmp_path / "out"
    assert main(["calibrate", "--checkpoint", str(run), "--data", str(tmp_path / "mine"), "--num_resamples", "5"]) == 0
    with serving(tmp_path, tmp_path / "cache"):
        assert main(["export", str(run), "--out", str(out), "--push", "me/mine", "--format", format]) == 0
        sets, expected = (
            [prolip.load(source).classify(tmp_path / "mine", LABELS, guarantee=0.8).label_sets for source in sources]
            for sources in ((out, "hf-hub:me/mine"), (run, run))
        )
    assert sets == expected


def test_a_calibration_of_other_weights_does_not_come_along(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_calibrated_world(tmp_path)
    run, out = tmp_path / "run", tmp_path / "out"
    assert main(["calibrate", "--checkpoint", str(run), "--data", str(tmp_path / "mine"), "--num_resamples", "5"]) == 0
    assert main(["export", str(run), "--out", str(out)]) == 0
    assert (out / CALIBRATION_FILE).exists()
    write_run(other := tmp_path / "other", tmp_path / "tokenizer.json", context_length=12)
    assert main(["export", str(other), "--out", str(out)]) == 0
    assert not (out / CALIBRATION_FILE).exists()
    (run / CALIBRATION_FILE).rename(other / CALIBRATION_FILE)
    assert main(["export", str(other), "--out", str(out)]) == 0
    assert not (out / CALIBRATION_FILE).exists()
    assert "calibration not used" in caplog.text


@pytest.mark.parametrize("form", ["transformers", "sentence-transformers"])
def test_other_formats_need_square_images_and_a_tokenizer(
    form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_pretrained(ProLIP(SMALL), tmp_path / "none")
    words = ["export", str(tmp_path / "none"), "--format", form, "--out", str(tmp_path / "out")]
    assert main(words) == 2
    assert "does not say which tokenizer it was trained with" in capsys.readouterr().err
    tokens = replace(SMALL, text=replace(SMALL.text, vocab_size=49408))
    save_pretrained(ProLIP(replace(tokens, vision=replace(SMALL.vision, image_size=(12, 18)))), tmp_path / "oblong")
    words[1] = str(tmp_path / "oblong")
    assert main([*words, "--tokenizer", "clip"]) == 2
    assert "vision.image_size is (12, 18): only square images are supported" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_format_whose_library_is_missing_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "run", tmp_path / "tokenizer.json", context_length=12)
    for name in [name for name in sys.modules if name.startswith("prolip.interop.transformers")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert main(["export", str(tmp_path / "run"), "--format", "transformers", "--out", str(tmp_path / "out")]) == 2
    assert "pip install 'prolip[transformers]'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_only_the_files_of_the_format_are_pushed(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "model.safetensors").write_text("of an earlier export")
    (tmp_path / "out" / "notes.txt").write_text("mine alone")
    write_run(tmp_path / "run", tmp_path / "tokenizer.json", context_length=12)
    words = ["export", str(tmp_path / "run"), "--out", str(tmp_path / "out"), "--push", "me/mine"]
    with serving(tmp_path, tmp_path / "cache"):
        assert main([*words, "--format", "sentence-transformers"]) == 0
    pushed = {path.name for path in (tmp_path / "hub" / "models" / "me" / "mine").iterdir()}
    assert pushed == {path.name for path in (tmp_path / "out").iterdir()} - {"notes.txt"}
    assert {"modules.json", "modeling_prolip.py", "model.safetensors", "tokenizer.json", "README.md"} <= pushed


@pytest.mark.parametrize("before", ["prolip", "adapter"])
def test_nothing_of_an_earlier_export_is_read_for_the_new_one(tmp_path: Path, before: str) -> None:
    write_run(tmp_path / "run", tmp_path / "tokenizer.json", context_length=12)
    words = ["export", str(tmp_path / "run"), "--out", str(tmp_path / "out")]
    expected = prolip.load(tmp_path / "run").fingerprint()
    if before == "prolip":
        assert main(words) == 0
        words += ["--format", "transformers"]
    else:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "adapter.json").write_text("of another model")
    assert main(words) == 0
    assert prolip.load(tmp_path / "out").fingerprint() == expected


def test_a_push_that_fails_is_one_sentence(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["export", str(run), "--out", str(tmp_path / "out"), "--push"]
    assert main([*words, "mine"]) == 2
    assert "push is 'mine': it must be OWNER/NAME" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    with serving(tmp_path, tmp_path / "cache"):
        for address, said in (("http://127.0.0.1:9", "Connection refused"), (f"{constants.ENDPOINT}/no", "404")):
            monkeypatch.setattr(constants, "ENDPOINT", address)
            assert main([*words, "me/mine"]) == 2
            message = capsys.readouterr().err.splitlines()[-1]
            assert re.search(f"push is me/mine: the hub does not take the model: .*{said}", message)
    assert (tmp_path / "out" / "model.safetensors").exists()


def test_onnx_settings_without_the_onnx_format_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["export", str(tmp_path), "--out", str(tmp_path / "out"), "--onnx.precision", "fp16"]
    assert main(words) == 2
    assert "format is prolip: the settings of onnx need --format onnx" in capsys.readouterr().err


def test_export_errors_name_the_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "x"]) == 2
    assert "--out" in capsys.readouterr().err
    assert main(["export", str(tmp_path / "absent"), "--out", str(tmp_path)]) == 2
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    assert main(["export", str(tmp_path / "run"), "--out", str(tmp_path / "out")]) == 2
    assert "no usable checkpoint" in capsys.readouterr().err
