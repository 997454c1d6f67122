"""`prolip recipes` and `prolip train --dry-run`."""

from dataclasses import replace

import numpy as np
import pytest
from tests.support.datacomp_sets import write_open_clip
from tests.support.small_training import RECIPE, Lab, write_shard, write_tokenizer

from prolip import cli
from prolip.store.selection import Chosen, write_selection
from prolip.train.config import known_recipes, load_config

# ---- prolip recipes -------------------------------------------------------------------------------------------------


def test_the_list_has_every_recipe(capsys):
    assert cli.main(["recipes"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[:-1]] == known_recipes()


def test_a_recipe_is_printed_as_it_resolves_with_its_cost(capsys, tmp_path):
    assert cli.main(["recipes", "vit-b16-datacomp-1b-1.28b"]) == 0
    told = capsys.readouterr().out
    # 32 GPUs see 1.28 B samples in these hours.
    assert "# compute    144.2 GFLOPs per sample: 410.84" in told
    (tmp_path / "mine.toml").write_text(told)
    words = ["--data.shards", "a.tar"]
    whole = load_config(["vit-b16-datacomp-1b-1.28b", *words])
    assert load_config([str(tmp_path / "mine.toml"), *words]) == whole


@pytest.mark.parametrize("words", ["--gpu V100-SXM2", "--mfu 1.5", "--gpus 0", "absent"])
def test_unknown_gpus_recipes_and_invalid_shares_are_named(words, capsys):
    assert cli.main(["recipes", "demo", *words.split()]) == 2
    assert words.split()[0].removeprefix("--") in capsys.readouterr().err


# ---- prolip train --dry-run -----------------------------------------------------------------------------------------


@pytest.fixture
def lab(tmp_path):
    write_shard(tmp_path / "train.tar")
    write_tokenizer(tmp_path / "tokenizer.json")
    (tmp_path / "recipe.toml").write_text(RECIPE.format(folder=tmp_path))
    return Lab(tmp_path)


def rehearse(lab, *flags):
    before = sorted(lab.folder.rglob("*"))
    status = cli.main(["train", *lab.words("run", *flags), "--dry-run"])
    assert sorted(lab.folder.rglob("*")) == before, "a rehearsal writes nothing"
    return status


def test_a_dry_run_prints_what_the_run_will_do(lab, capsys):
    assert rehearse(lab, "--gpus", "2", "--gpu", "H100", "--mfu", "0.3") == 0
    told = capsys.readouterr().out
    for part in (
        "steps      24 of 16 samples",
        "H100 at 30% of its 67 TFLOPS in fp32",
        "shards     64 samples per epoch, 6.0 epochs; test read OK: sample 00",
        "the run starts at step 0",
        "ready",
    ):
        assert part in told


def test_a_dry_run_counts_and_reads_the_chosen_samples(lab, capsys):
    chosen, rows = lab.folder / "chosen", np.arange(40, dtype=np.uint32)
    write_selection(chosen, [Chosen(str(lab.folder / "train.tar"), "", rows)])
    for shards in ([], ["--data.shards"]):
        assert rehearse(lab, *shards, "--data.selection", str(chosen)) == 0
        assert f"40 samples per epoch, 9.6 epochs; test read OK: sample 0000 of {chosen}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "field"),
    [
        (["--data.shards", "absent.tar"], "data.shards"),
        (["--data.captions.0.sources.0.key", "captions.absent"], "caption"),
        (["--data.tokenizer.path", "absent.json"], "data.tokenizer.path"),
        (["--model.text.vocab_size", "5"], "model.text.vocab_size"),
        (["--start_from", "absent", "--architecture", "demo"], "absent"),
        (["--gpus", "3"], "batch_size"),
        (["--lock.text", "True", "--lock.text_unlocked_groups", "9"], "lock.text_unlocked_groups"),
        (["--data.shards", "absent.tar", "--data.tokenizer.path", "absent.json"], "absent.json"),
    ],
)
def test_a_dry_run_reports_errors_with_status_2(lab, flags, field, capsys):
    assert rehearse(lab, *flags) == 2
    told = capsys.readouterr()
    assert field in told.err
    assert flags[1] in told.err or flags[0] != "--data.shards"
    assert "ready" not in told.out


def test_a_dry_run_checks_that_the_run_can_resume_and_write(lab, capsys):
    few, other = lab.folder / "few.tar", lab.folder / "other.json"
    write_shard(few, range(32))
    other.write_text((lab.folder / "tokenizer.json").read_text().replace("red", "der"))
    run = ("--samples_seen", "64")
    assert lab.here("run", *run) == 0
    assert rehearse(lab, *run) == 0
    assert "the run resumes at step 4" in capsys.readouterr().out
    for field, flags in (
        ("optim.lr", ("--optim.lr", "1")),
        ("resume", ("--resume", "never")),
        ("steps", ("--data.shards", str(few))),
        ("data.tokenizer.path", ("--data.tokenizer.path", str(other))),
        (str(few), ("--out", str(few / "run"))),
    ):
        assert rehearse(lab, *run, *flags) == 2
        assert field in capsys.readouterr().err


# ---- starts ---------------------------------------------------------------------------------------------------------

OF_START = ("--architecture", "start_from")


def test_a_dry_run_loads_a_local_start(lab, capsys):
    start = write_open_clip(lab.folder / "clip")
    assert rehearse(lab, "--start_from", start, *OF_START) == 0
    assert f"start      {start} fits" in capsys.readouterr().out
    # The recipe's own model has other sizes.
    assert rehearse(lab, "--start_from", start, "--architecture", "demo") == 2
    told = capsys.readouterr()
    assert "ready" not in told.out
    (lab.folder / "clip" / "open_clip_model.safetensors").write_bytes(b"cut")
    assert rehearse(lab, "--start_from", start, "--architecture", "demo") == 2


def test_a_dry_run_compares_the_sizes_of_a_model_on_the_hub(lab, capsys, monkeypatch):
    own = load_config(lab.words("run")).model
    start = ("--architecture", "demo", "--start_from", "hf-hub:us/prolip")
    longer = replace(own, text=replace(own.text, context_length=9))
    for found, flags, status in (
        (own, (), 0),
        (replace(own, embed_dim=8), (), 2),
        (longer, (), 2),
        (longer, ("--start_resize", "corrected"), 0),
    ):
        monkeypatch.setattr("prolip.pretrained.sources.Source.architecture", lambda _, found=found: found)
        assert rehearse(lab, *start, *flags) == status
        told = capsys.readouterr()
        assert "its sizes fit" in told.out if status == 0 else "model." in told.err
