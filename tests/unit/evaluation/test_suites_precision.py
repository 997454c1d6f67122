"""The precision of the towers in suites."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.support.datacomp_sets import TASKS, write_open_clip, write_task
from tests.support.untrained_run import write_run

from prolip import cli
from prolip.embeddings.embed import embed_captions, embed_shards
from prolip.pretrained.model import Model
from prolip.pretrained.open import load

CPU = torch.device("cpu")


def open_both(folder: Path) -> list[Model]:
    write_run(folder / "run", folder / "tokenizer.json", context_length=20)
    write_open_clip(folder / "clip")
    return [load(name, device="cpu") for name in (str(folder / "run"), f"open_clip:local-dir:{folder}/clip")]


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_towers_run_in_the_precision_and_figures_stay_close(tmp_path: Path, precision: Any) -> None:
    shard = str(write_task(tmp_path, TASKS["cifar10"]).rglob("0.tar").__next__())
    for model in open_both(tmp_path):
        types: set[torch.dtype] = set()
        linear = next(module for module in model.network.modules() if type(module) is torch.nn.Linear)
        linear.register_forward_hook(lambda _module, _given, found, types=types: types.add(found.dtype))
        low = dataclasses.replace(model, precision=precision)
        for embed in (lambda one: embed_shards(one, [shard]).gaussian, lambda one: embed_captions(one, ["a red fox"])):
            full, half = embed(model), embed(low)
            assert half.mean.dtype == torch.float32
            assert not torch.equal(full.mean, half.mean)
            torch.testing.assert_close(half.mean, full.mean, atol=0.03, rtol=0)
        assert types == {torch.float32, {"bf16": torch.bfloat16, "fp16": torch.float16}[precision]}
        assert low.fingerprint() != model.fingerprint()


def test_another_precision_runs_the_task_again(tmp_path: Path) -> None:
    open_both(tmp_path)
    write_task(tmp_path / "data", TASKS["cifar10"])
    words = ["eval", "datacomp", "--checkpoint", f"{tmp_path}/run", "--data", f"{tmp_path}/data", "--tasks", "cifar10"]
    words += ["--out", f"{tmp_path}/out", "--num_resamples", "0"]
    for precision, count in (("fp32", 1), ("bf16", 2), ("fp32", 2)):
        assert cli.main([*words, "--precision", precision]) == 0
        assert len(list((tmp_path / "out" / "tasks").rglob("*.json"))) == count


def test_the_emoji_suite_refuses_other_precisions_than_fp32(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    open_both(tmp_path)
    words = ["eval", "emoji", "--checkpoint", f"{tmp_path}/run", "--data", str(tmp_path), "--precision", "bf16"]
    assert cli.main(words) == 2
    assert "precision is bf16: the emoji suite only measures in fp32" in capsys.readouterr().err
