"""The tokenizer that belongs to a model: stored with it, beside it, or named by it."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.support.hub import serving
from tests.support.refusals import refusal_of
from tests.support.released_hub import siglips_tokenizer
from tests.support.untrained_run import write_run

import prolip
from prolip.checkpoint import CheckpointError, checkpoint_path
from prolip.checkpoint.folder import commit, partial_path, record
from prolip.cli import main
from prolip.data.config import TokenizerConfig
from prolip.data.tokenizer import CLIP_MERGES, Tokenizer
from prolip.errors import UserError
from prolip.inference.tokenizer import CLIP_TOKENS, inference_files, own_tokenizer
from prolip.models import ARCHITECTURES, ProLIP
from prolip.models.hub import save_pretrained


@pytest.fixture
def run(tmp_path):
    write_run(tmp_path / "run", tmp_path / "own.json", context_length=7)
    return tmp_path / "run"


def rewrite(run, *without, **notes):
    """Rewrites a run's checkpoint without some files, and with other notes."""
    path = checkpoint_path(run / "checkpoints", 1)
    content = json.loads((path / "run.json").read_text())
    (path / "run.json").write_text(json.dumps({**content, **notes}))
    for name in without:
        (path / name).unlink()
    files = {file.name: record(file) for file in path.iterdir() if file.name != "manifest.json"}
    path.rename(partial_path(path))
    commit(path, files, None)


@pytest.mark.parametrize("kind", ["file", "clip"])
def test_a_stored_tokenizer_gives_the_same_ids(kind, run, tmp_path):
    (tmp_path / "tokenizer_config.json").write_text('{"pad_token": "of"}')  # is not stored, its padding is
    if kind == "file":
        config = TokenizerConfig(kind="file", path=tmp_path / "own.json", context_length=7)
    else:
        config = TokenizerConfig(path=Path(shutil.copy(CLIP_MERGES, tmp_path / "mine.v1.txt.gz")))
    stored = inference_files(config, ARCHITECTURES["demo"])
    assert stored.tokenizer is not None
    ((name, content),) = stored.files.items()
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / name).write_bytes(content)
    copied = replace(TokenizerConfig.from_dict(stored.tokenizer), path=tmp_path / "copy" / name)
    assert Tokenizer(copied).encode(["a picture"]).tolist() == Tokenizer(config).encode(["a picture"]).tolist()
    assert inference_files(TokenizerConfig(), ARCHITECTURES["demo"]).files == {}


def test_a_checkpoint_has_its_own_tokenizer(run, tmp_path):
    (tmp_path / "own.json").write_text("{}")
    found = prolip.load(run).encoder.require_tokenizer().config.path
    assert found == run / "checkpoints" / "step_000000001" / "tokenizer.json"
    found.write_text(found.read_text().replace("animals", "animels"))
    with pytest.raises(CheckpointError):
        prolip.load(run)


def test_an_exported_folder_has_all_inference_settings_of_the_run(run, tmp_path):
    assert main(f"export {run} --out {tmp_path}/out".split()) == 0
    before = prolip.load(run)
    shutil.rmtree(run)
    (tmp_path / "own.json").unlink()
    assert main(f"export {tmp_path}/out --out {tmp_path}/again".split()) == 0
    for name in ("out", "again"):
        model = prolip.load(tmp_path / name)
        assert model.fingerprint() == before.fingerprint()
        assert model.keep_ratio == before.keep_ratio is not None
        assert torch.equal(model.tokenize(["a picture of food"]), before.tokenize(["a picture of food"]))
    (tmp_path / "again" / "tokenizer.json").unlink()
    with pytest.raises(UserError):
        prolip.load(tmp_path / "again").encoder.require_tokenizer()


def test_other_image_settings_are_refused(run, tmp_path):
    assert main(f"export {run} --out {tmp_path}/out".split()) == 0
    content = json.loads((tmp_path / "out" / "inference.json").read_text())
    assert set(content["images"]) == {"size", "resize_mode", "interpolation", "mean", "std"}
    other = {**content["images"], "interpolation": "bilinear"}
    (tmp_path / "out" / "inference.json").write_text(json.dumps({**content, "images": other}))
    rewrite(run, images=other)
    for source in ("run", "out"):
        with pytest.raises(UserError, match=r"images\.interpolation"):
            prolip.load(tmp_path / source)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"tokenizer": 3, "images": {}, "keep_ratio": 1}', "[" * 100_000])
def test_a_malformed_inference_json_is_refused(run, tmp_path, content):
    assert main(f"export {run} --out {tmp_path}/out".split()) == 0
    (tmp_path / "out" / "inference.json").write_text(content)
    with pytest.raises(UserError, match=r"inference\.json"):
        prolip.load(tmp_path / "out")


def test_a_model_without_a_tokenizer_uses_clips_if_the_vocabulary_fits(tmp_path):
    demo = ARCHITECTURES["demo"]
    for size in (CLIP_TOKENS, CLIP_TOKENS + 1):
        text = replace(demo.text, layers=1, width=32, heads=2, vocab_size=size)
        small = replace(demo, embed_dim=32, vision=replace(demo.vision, layers=1, width=32, head_width=16), text=text)
        save_pretrained(ProLIP(small), tmp_path / str(size))
    assert prolip.load(tmp_path / str(CLIP_TOKENS)).encoder.require_tokenizer().config.kind == "clip"
    unknown = prolip.load(tmp_path / str(CLIP_TOKENS + 1))
    assert unknown.encode_images(torch.zeros(2, 3, 36, 36)).mean.shape == (2, 32), "images need no tokenizer"
    for ask in (lambda: unknown.encode_texts(["a"]), unknown.fingerprint, unknown.encoder.require_tokenizer):
        with refusal_of("tokenizer"):
            ask()


def test_an_open_clip_start_uses_its_own_tokenizer(tmp_path):
    """As open_clip reads it: CLIP's, or a file of the hub with its cleaning; unknown if the loader has no such."""
    text = ARCHITECTURES["ViT-B-16"].text
    clip = replace(text, vocab_size=CLIP_TOKENS, context_length=77)
    assert own_tokenizer("open_clip:ViT-B-32/openai", clip) == TokenizerConfig(kind="clip", context_length=77)
    assert own_tokenizer("open_clip:ViT-B-32/openai", replace(clip, vocab_size=7)) is None
    config = tmp_path / "open_clip_config.json"
    for settings in ({"tokenizer_kwargs": {"strip_sep_token": True}}, {"tokenizer_mode": "clips"}):
        config.write_text(json.dumps({"model_cfg": {"text_cfg": {"hf_tokenizer_name": "x/y", **settings}}}))
        assert own_tokenizer(f"open_clip:local-dir:{tmp_path}", clip) is None
    config.write_text(json.dumps({"model_cfg": {"text_cfg": {"hf_tokenizer_name": "x/y"}}}))
    local = own_tokenizer(f"open_clip:local-dir:{tmp_path}", clip)
    assert (local.path, local.clean) == (tmp_path / "tokenizer.json", "whitespace"), "open_clip's default"
    siglips_tokenizer(tmp_path / "hub" / "models" / "timm" / "ViT-B-16-SigLIP")
    with serving(tmp_path, tmp_path / "cache"):
        found = own_tokenizer("open_clip:ViT-B-16-SigLIP/webli", text)
    assert (found.kind, found.clean, found.path.name) == ("file", "canonicalize", "tokenizer.json")
    assert (found.path.parent / "tokenizer_config.json").is_file()
