"""Commands that run a model refuse a GPU that torch cannot use, and do not fall back to the CPU."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.machines import TOO_OLD, machine
from tests.support.shards import encoded, write_tar
from tests.support.untrained_run import write_run

from prolip.cli import main
from prolip.cli.eval import SUITES


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, a shard and its embeddings."""
    folder = tmp_path_factory.mktemp("lab")
    write_run(folder / "runs" / "demo", folder / "tokenizer.json", context_length=8)
    (folder / "cat.png").write_bytes(encoded((9, 99, 9)))
    write_tar(folder / "0.tar", [("k.png", encoded((9, 9, 9))), ("k.json", b'{"name": "food"}')])
    words = ["--checkpoint", str(folder / "runs" / "demo"), "--shards", str(folder / "0.tar"), "--device", "cpu"]
    assert main(["embed", *words, "--out", str(folder / "out")]) == 0
    return folder


@pytest.fixture(autouse=True)
def in_lab(lab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every command runs in the lab."""
    monkeypatch.chdir(lab)


MODEL = ["--checkpoint", "runs/demo"]
COMMANDS = {
    "bprw": ["bprw", *MODEL, "--shards", "0.tar", "--class_key", "name", "--templates", "emoji"],
    "classify": ["classify", "cat.png", "food", "travel", *MODEL],
    "compare": ["compare", "cat.png", "food", *MODEL],
    "demo": ["demo", "--data", "absent", "--out", "new"],
    "embed": ["embed", *MODEL, "--shards", "0.tar", "--out", "new"],
    "explore": ["explore", *MODEL, "--port", "17861"],
    "search": ["search", "--embeddings", "out", "--text", "food"],
    **{f"eval {name}": ["eval", name, *MODEL, "--data", "."] for name in SUITES},
}


@pytest.mark.parametrize("words", COMMANDS.values(), ids=list(COMMANDS))
def test_commands_name_a_gpu_that_torch_cannot_use(
    words: list[str],
    lab: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    machine(monkeypatch, tmp_path, gpu=True, usable=False)
    assert main(words) == 2
    assert f"torch cannot use the GPU {tmp_path}/nvidia0 ({TOO_OLD})" in capsys.readouterr().err
    assert not (lab / "new").exists()


@pytest.mark.parametrize(
    "words", [words for name, words in COMMANDS.items() if name != "demo"], ids=lambda words: words[0]
)
def test_device_cuda_without_a_gpu_is_an_error(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    machine(monkeypatch, tmp_path, gpu=False, usable=False)
    assert main([*words, "--device", "cuda"]) == 2
    assert 'device is "cuda", but torch sees no GPU' in capsys.readouterr().err


def test_device_cpu_works_beside_an_unusable_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    machine(monkeypatch, tmp_path, gpu=True, usable=False)
    for name in ("classify", "search"):
        assert main([*COMMANDS[name], "--device", "cpu"]) == 0
    # Reading "." comes after the model was opened.
    assert main([*COMMANDS["eval emoji"], "--device", "cpu"]) == 2
    assert "GPU" not in capsys.readouterr().err
