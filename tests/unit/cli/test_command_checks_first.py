"""What costs nothing to check is checked before a model is opened: opening it may mean a download."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.images import noise
from tests.support.shards import encoded, write_tar
from tests.support.untrained_run import write_run

from prolip.cli import main

WRONG = [
    ("classify {lab}/cat.png a b --tokenizer absent.json", "tokenizer is absent.json: it must be `clip` or the file"),
    ("classify {lab}/cat.png a b --calibration absent", "absent: there is no such calibration"),
    ("classify {lab}/cat.png a b --templates photo", "template 'photo' has no {} for the class name"),
    ("classify {lab}/cat.png a b --prior 1", "prior has 1 numbers: it must have one per label, 2"),
    ("classify {lab}/cat.png --guarantee 3", "guarantee is 3.0: it must be between 0 and 1"),
    ("classify {lab}/cat.png a --per_label", "per_label is given without guarantee"),
    ("compare {lab}/cat.png a --tokenizer absent.json", "tokenizer is absent.json"),
    ("explore --shards {lab}/absent.tar", "there is no file {lab}/absent.tar"),
    ("explore --calibration absent", "absent: there is no such calibration"),
    ("embed --shards {lab}/a.tar --out {lab}", "out: {lab} holds files, but no manifest.json"),
    (
        "embed --shards pipe:true --out made",
        'shards is "pipe:true": commands are run with store.allow_pipe = true only',
    ),
    ("embed --shards ftp://host/a.tar --out made", 'shards is "ftp://host/a.tar": it must begin with http, https, s3'),
    ("embed --shards {lab}/a.tar --out made --store.retries -1", "store.retries is -1: it must not be negative"),
    ("embed --shards {lab}/a.tar --out made --what both --caption_key a..b", "caption_key is 'a..b': it must be `txt`"),
    ("bprw --shards pipe:true --class_key group", "commands are run with store.allow_pipe = true only"),
    ("bprw --shards ftp://host/a.tar --class_key group", "it must begin with http, https, s3, gs, az or hf"),
    ("bprw --shards {lab}/absent.tar --class_key group", "there is no file {lab}/absent.tar"),
    ("bprw --shards {lab}/a.tar --classnames absent", "classnames is 'absent': it must be imagenet or a text file"),
    ("bprw --shards {lab}/a.tar --class_key group --templates {lab}/names", "template 'cat' has no {} for the class"),
    ("bprw --shards {lab}/a.tar --class_key group --batch_size 0", "batch_size is 0: it must be at least 1"),
    ("calibrate --data {lab}/classes --templates photo --out made", "template 'photo' has no {} for the class name"),
    ("eval zero_shot --data absent", "data is absent: there is no such file or folder"),
    ("eval zero_shot --data {lab} --classnames absent", "classnames is absent: there is no such file or folder"),
    ("eval zero_shot --data {lab}/classes --templates photo", "template 'photo' has no {} for the class name"),
    ("eval decisions --data {lab}/classes --templates photo", "template 'photo' has no {} for the class name"),
    ("eval retrieval --data {lab}/absent.tar", "data is {lab}/absent.tar: there is no such file or folder"),
    ("eval hierarcaps --data absent", "data is absent: there is no such file or folder"),
    ("eval decisions --data {lab} --elsewhere absent", "elsewhere is absent: there is no such file or folder"),
    ("eval datacomp --data {lab} --tasks imagenet", "tasks has imagenet: known are vtab/caltech101"),
    ("eval datacomp --data {lab} --batch_size 0", "batch_size is 0: it must be at least 1"),
    ("calibrate --data {lab} --batch_size 0 --out {lab}/made", "batch_size is 0: it must be at least 1"),
]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lab")
    noise(1).save(folder / "cat.png")
    (folder / "names").write_text("cat\n")
    (folder / "classes" / "cats").mkdir(parents=True)
    noise(1).save(folder / "classes" / "cats" / "cat.png")
    write_tar(folder / "a.tar", [("0.png", encoded((1, 2, 3))), ("0.json", json.dumps({"group": "a"}).encode())])
    return folder


@pytest.fixture
def fails(
    lab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[str], str]:
    monkeypatch.chdir(tmp_path)

    def run(words: str) -> str:
        assert main(words.format(lab=lab).split()) == 2
        return capsys.readouterr().err

    return run


@pytest.mark.parametrize(("words", "expected"), WRONG)
def test_a_wrong_option_is_found_before_the_model_is_opened(
    lab: Path, fails: Callable[[str], str], words: str, expected: str
) -> None:
    assert expected.replace("{lab}", str(lab)) in fails(f"{words} --checkpoint no-model")


def test_export_looks_for_the_tokenizer_before_it_opens_the_model(fails: Callable[[str], str]) -> None:
    assert "tokenizer is absent.json" in fails("export no-model --out made --tokenizer absent.json")


def test_search_looks_for_the_image_before_it_opens_the_model(lab: Path, fails: Callable[[str], str]) -> None:
    run, made = lab / "run", lab / "embedded"
    write_run(run, lab / "tokenizer.json", context_length=8)
    embed = ["embed", "--shards", str(lab / "a.tar"), "--out", str(made), "--device", "cpu"]
    assert main([*embed, "--checkpoint", str(run)]) == 0
    assert "absent.png: there is no such image file" in fails(
        f"search --embeddings {made} --image absent.png --checkpoint no-model"
    )
