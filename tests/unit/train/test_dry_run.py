"""`prolip recipes` and `prolip train --dry-run`."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.datacomp_sets import write_open_clip
from tests.support.servers import python_server
from tests.support.shards import members, write_tar
from tests.support.small_training import RECIPE, VALIDATED, Lab, write_shard, write_tokenizer

from prolip import cli
from prolip.data import BatchLoader, StoreConfig, write_index
from prolip.train.config import from_toml, known_recipes, load_config
from prolip.train.config.options import Assumption
from prolip.train.dry_run import count, flops_per_sample, gpu_hours, trained_model

# ---- prolip recipes -------------------------------------------------------------------------------------------------


def test_every_recipe_has_a_line_with_its_cost(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["recipes"]) == 0
    told = capsys.readouterr().out
    lines = told.splitlines()
    assert [line.split()[0] for line in lines[1:-3]] == known_recipes()
    assert "NVIDIA A100 at 40%" in told
    line = next(line for line in lines if line.startswith("vit-b16-datacomp-1b-1.28b"))
    assert line.split()[1:] == [
        "ViT-B-16", "224", "px,", "64", "tokens", "1.28", "B", "16,384", "143.4", "409"
    ]  # fmt: skip


def test_gpu_hours_are_operations_over_speed() -> None:
    config = load_config(["vit-b16-datacomp-1b-1.28b", "--data.shards", "a.tar"])
    work = flops_per_sample(config, trained_model(config))
    # 12 blocks of 12 * 768^2 weights for 198 and 66 tokens, forward and backward, plus an eighth of masked samples:
    # the rest (attention, patches, heads, fewer rows in the last block) is small.
    blocks = 3 * 2 * 12 * 12 * 768**2 * (198 + 66 + (149 + 66) / 8)
    assert work == pytest.approx(blocks, rel=0.05)
    h100 = Assumption(gpu="NVIDIA H100 80GB HBM3", mfu=0.5)
    assert gpu_hours(h100, config, work) == pytest.approx(78_125 * 16_384 * work / (989.5e12 / 2) / 3600)


def test_a_recipe_is_printed_as_it_resolves(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert cli.main(["recipes", "finetune-siglip-vit-b16-unc-only"]) == 0
    told = capsys.readouterr().out
    assert "extends" not in told
    (tmp_path / "mine.toml").write_text(told)
    words = ["--data.shards", "a.tar"]
    whole = load_config(["finetune-siglip-vit-b16-unc-only", *words])
    assert load_config([str(tmp_path / "mine.toml"), *words]) == whole


def test_unknown_gpus_and_invalid_shares_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["recipes", "--gpu", "Tesla V100-SXM2-16GB"]) == 2
    assert "its peak in bf16 is not known; known are A10, A100" in capsys.readouterr().err
    assert cli.main(["recipes", "--mfu", "1.5"]) == 2
    assert "mfu is 1.5: it must be a share of the peak" in capsys.readouterr().err
    assert cli.main(["recipes", "vit"]) == 2


@pytest.mark.parametrize(
    ("number", "told"), [(0, "0"), (999, "999"), (1500, "1.5 k"), (197_917_184, "197.9 M"), (12_800_000_000, "12.8 B")]
)
def test_numbers_are_printed_with_four_digits(number: int, told: str) -> None:
    assert count(number) == told


# ---- prolip train --dry-run -----------------------------------------------------------------------------------------


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    write_shard(tmp_path / "train.tar")
    write_tokenizer(tmp_path / "tokenizer.json")
    (tmp_path / "recipe.toml").write_text(RECIPE.format(folder=tmp_path))
    return Lab(tmp_path)


def rehearse(lab: Lab, *flags: str) -> int:
    before = sorted(lab.folder.rglob("*"))
    status = cli.main(["train", *lab.words("run", *flags), "--dry-run"])
    assert sorted(lab.folder.rglob("*")) == before, "a rehearsal writes nothing"
    return status


def test_a_dry_run_counts_one_moment_for_muon(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    def bytes_of_any_batch(hidden: str) -> float:
        assert rehearse(lab, "--optim.hidden", hidden) == 0
        found = re.search(r"\(?([\d.]+) ([kMG]?B) for any batch", capsys.readouterr().out)
        assert found is not None
        return float(found[1]) * {"B": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9}[found[2]]

    assert bytes_of_any_batch("muon") < bytes_of_any_batch("adamw")


def test_a_dry_run_prints_what_the_run_will_do(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    assert rehearse(lab, "--gpus", "2", "--gpu", "H100", "--mfu", "0.3") == 0
    told = capsys.readouterr().out
    table, _, figures = told.partition("\nmodel ")
    assert from_toml(table) == load_config(lab.words("run"))
    model = trained_model(load_config(lab.words("run")))
    assert f"{count(sum(p.numel() for p in model.parameters()))} parameters" in figures
    for part in (
        "steps      80 of 16 samples",
        "H100 at 30% of its 67 TFLOPS in fp32",
        "MB for each of 8 samples",
        "tokenizer  10 ids for 10 rows",
        "shards     64 samples per epoch, 20.0 epochs; test read OK: sample 00",
        "val        sets open: none",
        "start      random weights",
        "the run starts at step 0",
        "ready",
    ):
        assert part in figures


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--data.shards", "absent.tar"], "absent.tar"),
        (["--data.captions.0.sources.0.key", "captions.absent"], "its json has no caption"),
        (["--data.tokenizer.path", "absent.json"], "data.tokenizer.path is absent.json: there is no such file"),
        (["--model.text.vocab_size", "5"], "model.text.vocab_size is 5: the tokenizer needs at least 10"),
        (["--start_from", "absent", "--architecture", "demo"], "absent is neither a file nor a folder"),
        (
            ["--start_from", "open_clip:ViT-B-16/absent", "--architecture", "demo"],
            "'absent' is neither a file nor a tag of ViT-B-16, which has",
        ),
        (["--gpus", "3"], "batch_size is 16: it must be a multiple of the 3 processes"),
        (["--gpus", "0"], "gpus is 0: it must be at least 1"),
        (["--gpus", "8"], "data.mask.masked_fraction: "),
        (["--data.mask.masked_fraction", "0.01"], "data.mask.masked_fraction: "),
        (["--gpus", "2", "--batch_size", "128"], "data.batch_size: a step needs 128 samples and an epoch"),
        (["--data.prefetch_batches", "0"], "data.prefetch_batches: must be at least 1"),
        (["--optim.lrr", "3"], "optim.lrr: unknown key"),
        (["--keep_best", "los"], "keep_best is 'los': it must be one of loss, ppcl,"),
        (["--lock.text", "True", "--lock.text_unlocked_groups", "9"], "lock.text_unlocked_groups is 9"),
    ],
)
def test_a_dry_run_reports_errors_with_status_2(
    lab: Lab, flags: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert rehearse(lab, *flags) == 2
    assert reason in capsys.readouterr().err


def test_a_dry_run_reports_all_errors_at_once(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    assert rehearse(lab, "--data.shards", "absent.tar", "--data.tokenizer.path", "absent.json") == 2
    told = capsys.readouterr()
    assert "absent.tar" in told.err
    assert "absent.json" in told.err
    assert "ready" not in told.out


def test_a_dry_run_opens_the_validation_sets(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    (lab.folder / "recipe.toml").write_text((RECIPE + VALIDATED).format(folder=lab.folder))
    assert rehearse(lab) == 0
    assert "val        sets open: pairs, unsure" in capsys.readouterr().out
    assert rehearse(lab, "--keep_best", "val/pairs/text_to_image_recall_at_1") == 0
    capsys.readouterr()
    assert rehearse(lab, "--keep_best", "val/pairs/text_to_image_recal_at_1") == 2
    told = capsys.readouterr().err
    assert "keep_best is 'val/pairs/text_to_image_recal_at_1': it must be one of loss, " in told
    assert "val/pairs/text_to_image_recall_at_1, " in told
    assert rehearse(lab, "--validation.jobs.1.shards", "absent.tar") == 2
    assert "absent.tar" in capsys.readouterr().err


def test_a_dry_run_checks_that_the_index_matches_its_shards(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    index = lab.folder / "train.index"
    write_index([str(lab.folder / "train.tar")], index, 1, StoreConfig())
    assert rehearse(lab, "--data.index", str(index)) == 0
    write_tar(lab.folder / "train.tar", members("other", (1, 2, 3)))
    assert rehearse(lab, "--data.index", str(index)) == 2
    assert "train.tar" in capsys.readouterr().err


def test_a_dry_run_reads_a_first_sample_of_remote_shards(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    with python_server(lab.folder) as address:
        assert rehearse(lab, "--data.shards", f"{address}/train.tar", "--data.num_samples", "64") == 0
        assert f"of {address}/train.tar" in capsys.readouterr().out
        absent = ("--data.shards", f"{address}/train.tar", f"{address}/absent.tar", "--data.num_samples", "64")
        assert rehearse(lab, *absent) == 2
        assert "absent.tar" in capsys.readouterr().err


def test_a_dry_run_says_whether_an_existing_run_resumes(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    assert lab.here("run", "--samples_seen", "64") == 0
    assert rehearse(lab, "--samples_seen", "64") == 0
    assert "the run resumes at step 4" in capsys.readouterr().out
    assert rehearse(lab, "--samples_seen", "64", "--optim.lr", "1") == 2
    assert "is from a run with different optim.lr" in capsys.readouterr().err
    assert rehearse(lab, "--samples_seen", "64", "--resume", "never") == 2
    assert 'resume: "never"' in capsys.readouterr().err
    assert rehearse(lab, "--samples_seen", "64", "--resume", "absent") == 2
    assert "resume is 'absent': absent is not a checkpoint" in capsys.readouterr().err


def test_a_dry_run_checks_that_the_run_can_resume_and_write(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    assert lab.here("run", "--samples_seen", "64") == 0
    few, other = lab.folder / "few.tar", lab.folder / "other.json"
    write_shard(few, range(32))
    assert rehearse(lab, "--samples_seen", "64", "--data.shards", str(few)) == 2
    assert "data.resume.legs[0].steps: must not be above 2, the steps" in capsys.readouterr().err
    other.write_text((lab.folder / "tokenizer.json").read_text().replace("red", "der"))
    assert rehearse(lab, "--samples_seen", "64", "--data.tokenizer.path", str(other)) == 2
    assert "data.tokenizer.path: " in capsys.readouterr().err
    assert rehearse(lab, "--out", str(few / "run")) == 2
    assert f"{few} is a file, where a folder is needed" in capsys.readouterr().err


# ---- starts ---------------------------------------------------------------------------------------------------------

OF_START = ("--architecture", "start_from")


def test_a_dry_run_loads_a_local_start(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    start = write_open_clip(lab.folder / "clip")
    assert rehearse(lab, "--start_from", start, *OF_START) == 0
    assert f"start      {start} fits" in capsys.readouterr().out
    # The recipe's own model has other sizes.
    assert rehearse(lab, "--start_from", start, "--architecture", "demo") == 2
    told = capsys.readouterr()
    assert "the checkpoint does not fit the model" in told.err
    assert "--architecture start_from" in told.err
    assert "ready" not in told.out
    (lab.folder / "clip" / "open_clip_model.safetensors").write_bytes(b"cut")
    assert rehearse(lab, "--start_from", start, "--architecture", "demo") == 2


def test_a_dry_run_compares_the_shapes_of_a_remote_start(
    lab: Lab, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = load_config(lab.words("run")).model
    vision = {"layers": 1, "width": 16, "patch_size": 6, "image_size": 12}
    text = {"layers": 1, "width": 16, "heads": 2, "context_length": 4, "vocab_size": 10}
    described = {"embed_dim": 16, "vision_cfg": vision, "text_cfg": text}
    file = lab.folder / "open_clip_config.json"
    monkeypatch.setattr("prolip.pretrained.tokenizer.hub_file", lambda *_: file)
    start = ("--architecture", "demo", "--start_from", "open_clip:hf-hub:us/clip")
    file.write_text(json.dumps({"model_cfg": described}))
    assert rehearse(lab, *start) == 0
    assert "open_clip:hf-hub:us/clip exists, and its sizes fit; its weights were not" in capsys.readouterr().out
    file.write_text(json.dumps({"model_cfg": {**described, "text_cfg": {**text, "width": 32, "context_length": 9}}}))
    assert rehearse(lab, *start) == 2
    wrong = "model.text.width is 16, the start's is 32; model.text.context_length is 4, the start's is 9: write --arch"
    assert wrong in capsys.readouterr().err
    assert rehearse(lab, *start, "--start_resize", "corrected") == 2
    assert "model.text.width is 16, the start's is 32: write --arch" in capsys.readouterr().err
    # A repository of ours, and a tag of open_clip.
    monkeypatch.setattr("prolip.pretrained.sources.Source.architecture", lambda _: replace(own, embed_dim=8))
    assert rehearse(lab, *start[:2], "--start_from", "hf-hub:us/prolip") == 2
    assert "model.embed_dim is 16, the start's is 8" in capsys.readouterr().err
    assert rehearse(lab, *start[:2], "--start_from", "open_clip:ViT-B-16/laion2b_s34b_b88k") == 2
    assert "model.vision.layers is 1, the start's is 12" in capsys.readouterr().err


# ---- many sources ---------------------------------------------------------------------------------------------------


def test_sources_are_drawn_by_their_weights(lab: Lab) -> None:
    names = {"few": (200, 0, 0), "many": (0, 200, 0)}
    for name, colour in names.items():
        (lab.folder / name).mkdir()
        for shard in range(2):
            content = [one for number in range(20) for one in members(f"{name}{shard}{number:02}", colour)]
            write_tar(lab.folder / name / f"{shard}.tar", content)
    (lab.folder / "two.toml").write_text(
        f"""
        extends = "recipe.toml"
        out = "runs/two"
        [data]
        shards = ["{lab.folder}/few/{{0..1}}.tar", "{lab.folder}/many/*.tar"]
        weights = [1.0, 3.0]
        mode = "resampled"
        num_samples = 4000
        [[data.captions]]
        sources = [{{ key = "txt" }}]
        """
    )
    config = load_config([str(lab.folder / "two.toml")])
    drawn: Counter[str] = Counter()
    with BatchLoader(config.loader(1)) as loader:
        assert loader.num_samples == 4000
        for _, batch in zip(range(250), loader, strict=False):
            drawn.update(key[:3] for key in batch.keys)
    # 200 draws of whole shards of 20: 0.75 with a standard deviation of 0.03.
    assert drawn["man"] / drawn.total() == pytest.approx(0.75, abs=0.12)
