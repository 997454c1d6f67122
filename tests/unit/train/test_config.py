"""The run's configuration: recipes, their published figures, the rules that join fields."""

import json
import shutil
import tomllib
from dataclasses import fields, replace
from functools import partial
from pathlib import Path

import pytest
from tests.support.datacomp_sets import write_open_clip
from tests.support.refusals import refusal_of
from tests.support.untrained_run import write_run, write_words

from prolip.data import DataConfig
from prolip.data.config import TokenizerConfig
from prolip.errors import UserError
from prolip.models import ARCHITECTURES, ModelConfig, ProLIP
from prolip.models.hub import save_pretrained
from prolip.train.config import TrainConfig, differing_keys, from_toml, known_recipes, load_config, to_toml
from prolip.train.config.recipes import ADDITION

RECIPES = [name for name in known_recipes() if not name.startswith(ADDITION)]
OWN_SCALE = ("--loss.contrast", "siglip", "--loss.inclusion_weight", "0", "--loss.vib_weight", "0")
CONTROL = (*OWN_SCALE, "--loss.variance_scale", "None")
SHARDS = ("--data.shards", "a-{000..003}.tar", "b.tar")


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_reads_and_what_is_saved_reads_back_equal(name):
    config = load_config([name, *SHARDS])
    assert config.name == name
    assert config.data.shards == SHARDS[1:]
    assert from_toml(to_toml(config)) == config


@pytest.mark.parametrize(("scale", "samples"), [("1.28b", 1_280_000_000), ("12.8b", 12_800_000_000)])
def test_published_runs_have_the_settings_of_their_scripts(scale, samples):
    config = load_config([f"vit-b16-datacomp-1b-{scale}", *SHARDS])
    assert config.model == ARCHITECTURES["ViT-B-16"]
    assert (config.samples_seen, config.batch_size, config.precision) == (samples, 32 * 512, "bf16")
    optim, loss, mask = config.optim, config.loss, config.data.mask
    assert (optim.lr, optim.betas, optim.eps, optim.weight_decay) == (5e-4, (0.9, 0.95), 1e-6, 0.2)
    assert (optim.warmup_steps, optim.schedule) == (10_000, "cosine")
    assert (loss.inclusion_weight, loss.masked_inclusion_weight, loss.vib_weight) == (1e-7, 1e-3, 1e-4)
    assert (loss.inclusion_form, loss.vib_form) == ("official", "official")
    assert (loss.inclusion_eps, loss.inclusion_scale) == (-20, 1000)
    assert (mask.masked_fraction, mask.text_mask_prob, mask.keep_ratio) == (0.125, 0.75, 0.75)
    assert (mask.patch_draw, mask.text_mode, mask.mask_id) == ("batch", "replace", 32000)


def test_an_architecture_is_a_start_that_keys_change():
    config = load_config(["demo", "--architecture", "ViT-L-16", "--model.vision.layers", "3", *SHARDS])
    large = ARCHITECTURES["ViT-L-16"]
    assert config.model == replace(large, vision=replace(large.vision, layers=3))


def test_a_later_file_wins_and_flags_win_over_files(tmp_path):
    (tmp_path / "mine.toml").write_text('out = "runs/mine"\noptim = { lr = 2e-4, warmup_steps = 7 }\n')
    config = load_config(f"demo {tmp_path}/mine.toml --optim.lr 1e-4".split())
    assert (config.name, config.optim.lr, config.optim.warmup_steps, config.optim.clip_norm) == ("mine", 1e-4, 7, 1.0)
    assert config.out == Path("runs/mine")


def test_a_recipe_states_what_differs_from_the_one_it_extends(tmp_path):
    (tmp_path / "below").mkdir()
    base, mine = tmp_path / "below" / "base.toml", tmp_path / "mine.toml"
    base.write_text('extends = "demo"\nout = "runs/base"\nbatch_size = 64\noptim = { lr = 2e-4, warmup_steps = 7 }\n')
    mine.write_text('extends = "below/base.toml"\nout = "runs/mine"\noptim = { lr = 3e-4 }\n')
    demo, config = load_config(["demo"]), load_config([str(mine)])
    optim = replace(demo.optim, lr=3e-4, warmup_steps=7)
    assert config == replace(demo, out=Path("runs/mine"), batch_size=64, optim=optim)
    assert "extends" not in to_toml(config)
    mine.write_text('extends = ["demo", "below/base.toml"]\nout = "runs/mine"\noptim = { lr = 3e-4 }\n')
    assert load_config([str(mine)]) == config
    # What is named later wins as a whole, with what it extends.
    assert load_config([str(mine), "demo"]) == demo


def test_a_recipe_that_is_missing_circular_or_no_toml_is_named(tmp_path):
    one, other = tmp_path / "one.toml", tmp_path / "other.toml"
    one.write_text('extends = "other.toml"')
    for text in ('extends = "one.toml"', "extends = 3", "extends = [3]", "lr = = 1"):
        other.write_text(text)
        with pytest.raises(UserError) as error:
            load_config([str(one)])
        assert error.value.field in {str(one), str(other)}
    for name in ("dem", "absent.toml"):
        other.write_text(f'extends = "{name}"')
        with pytest.raises(UserError) as error:
            load_config([str(one)])
        assert Path(error.value.field).name == name
    with pytest.raises(UserError) as error:
        load_config(["own-image"])
    assert "own-images" in error.value.rule
    assert "demo" not in error.value.rule
    other.write_text("batch_size = 3\nlog_every = 7\n", encoding="utf-8-sig")  # as some editors write it
    assert load_config(["demo", str(other)]).log_every == 7


def test_a_flag_adds_a_validation_set():
    (job,) = load_config(["demo", "--validation.jobs.0.shards", "a", "b"]).validation.jobs
    assert (job.name, job.shards) == ("val", ("a", "b"))


@pytest.mark.parametrize(
    "words",
    [
        "--validation.jobs.1.shards a",
        "--optim.lrr 1",
        "--optim.lr fast",
        "--optim 1",
        "--precision fp8",
        "--loss.vib_weight -1",
        "--data.shards",
        "--batch_size 0",
        "--out ~/runs",
        "--log_every 0",
        "--seed -1",
        "--seed 18446744073709551616",
        "--loss.inclusion_scale inf",
        "--cpu_threads -1",
        "--timeout_minutes 0",
        "--loss.ppcl_weight 0",
        "--model.init_logit_bias None",
        "--model.text.embed_unc False",
        "--lock.text_unlocked_groups 1",
        "--optim.cooldown_steps 100 --optim.schedule const-cooldown --batch_size 10 --samples_seen 1999",
        "--optim.lr 0",
        "--optim.betas 0.9 1",
        "--optim.clip_norm 0",
        "--log.num_examples 0",
        "--ema.decay 1",
        "--ema.every 3001 --ema.decay 0.9",
        "--start_resize corrected",
        "--model.vision.init_unc_bias 81",
        "--model.vision.norm_eps nan",
        "--model.vision.head_width 0",
        "--data.tokenizer.context_length 9",
        "--data.mask.num_patches 9",
        "--architecture ViT",
    ],
)
def test_a_wrong_setting_is_named(words):
    key = words.split(maxsplit=1)[0].removeprefix("--")
    with pytest.raises(UserError) as error:
        load_config(["demo", *words.split()])
    assert error.value.field in key


def test_log_variances_that_nothing_trains_are_refused():
    with refusal_of("model.vision.embed_unc"):
        load_config(["demo", *CONTROL, "--data.mask.masked_fraction", "0"])


def test_a_control_needs_no_log_variances():
    points = ("--model.vision.embed_unc", "False", "--model.text.embed_unc", "False")
    only = ("--loss.masked_inclusion_weight", "0")
    assert not load_config(["demo", *CONTROL, *only, *points]).loss.reads_log_var
    # Means alone in the contrast, and log variances that the other terms train.
    assert load_config(["demo", "--loss.contrast", "siglip"]).loss.reads_log_var
    assert load_config(["demo", *CONTROL]).loss.reads_log_var
    assert load_config(["demo", *OWN_SCALE, *only]).loss.reads_log_var


def test_the_loaders_derived_settings_follow_from_model_and_run():
    config = load_config(["demo", "--seed", "5"])
    loader = config.loader(4)
    assert (loader.batch_size, loader.image_size, loader.seed, loader.num_epochs) == (16, 36, 5, None)
    assert loader.mask.num_patches == 36
    assert load_config(["demo", "--data.mask.masked_fraction", "0"]).loader(1).mask is None
    for words, ranks in (("batch_size 64", 3), ("accumulate 17", 4)):
        key, value = words.split()
        with refusal_of(key):
            load_config(["demo", f"--{key}", value]).loader(ranks)


NATIVE = """[data.native]
seq_lens = [16, 36]
seq_len_probs = [1, 3]
token_budget = 1020
batch_divisor = 12
"""


def test_every_rank_has_its_share_of_the_budget_of_native_images(tmp_path):
    (tmp_path / "native.toml").write_text(NATIVE)

    def read(words: str = "") -> TrainConfig:
        return load_config(["demo", "with-native", str(tmp_path / "native.toml"), *words.split()])

    config, steps = read("--samples_seen 1000"), [(0.25, 16, 60), (0.75, 36, 24)]
    assert from_toml(to_toml(config)) == config
    of_a_packed_run = to_toml(config).replace("[data.native]", "[data.native]\npacked = true")
    assert from_toml(of_a_packed_run) == config
    assert from_toml(to_toml(config) + "[choose]\nkeep = 1.0\n") == config
    assert config.data.native.steps() == steps
    assert config.samples_per_step == 33
    assert config.total_steps == 1000 // 33
    for ranks in (1, 2, 6):
        native = config.loader(ranks).native
        assert native.patch_size == config.model.vision.patch_size
        assert [(prob, length, ranks * samples) for prob, length, samples in native.steps()] == steps
        assert native.of_one_length(9, 5).steps() == [(1.0, 9, 5)]
    for words, field in (
        ("--data.native.batch_divisor 11", "data.native.batch_divisor"),
        ("--data.native.token_budget 999", "data.native.token_budget"),
        ("--accumulate 13", "accumulate"),
        ("--data.native.token_budget 431", "data.native.token_budget"),
        ("--data.native.batch_divisor 0", "data.native.batch_divisor"),
        ("--data.native None", "data.native"),
        ("--model.vision.image_seq_len None", "model.vision.image_seq_len"),
    ):
        with refusal_of(field):
            read(words).loader(2)


def test_every_data_setting_reaches_the_loader():
    words = """--data.mode resampled --data.weights 1 2.5 --data.num_samples 1000 --data.index shards.index
    --data.on_missing_shard skip --data.max_pixels 7 --data.max_member_bytes 8
    --data.max_caption_bytes 9 --data.store.connections 3 --data.store.cache_dir cache
    --data.selection chosen"""
    config = load_config(["demo", "--data.shards", "a.tar", "b.tar", *words.split()])
    assert from_toml(to_toml(config)) == config
    loader = config.loader(1)
    names = {field.name for field in fields(DataConfig)} - {"mask"}
    assert "num_patches" not in tomllib.loads(to_toml(config))["data"]["mask"]
    assert [getattr(loader, name) for name in names] == [getattr(config.data, name) for name in names]
    assert (loader.mode, loader.weights, loader.num_samples) == ("resampled", (1.0, 2.5), 1000)
    assert (loader.max_caption_bytes, loader.store.connections, loader.store.cache_dir) == (9, 3, "cache")
    # Where the index and the cache lie is no other computation.
    moved = replace(config, data=replace(config.data, index="other.index", store=replace(config.data.store, retries=1)))
    assert not differing_keys(moved, to_toml(config))
    # Where an archive ends decides how many samples it has.
    lenient = replace(config, data=replace(config.data, store=replace(config.data.store, require_archive_end=False)))
    assert [*differing_keys(lenient, to_toml(config))] == ["data.store.require_archive_end"]
    # How processes share the model is none either, but for the type that its weights are rounded to on the way.
    shared = replace(config.parallel, strategy="fsdp", reshard=False, gather="fp32", recompute_every=2, compile=True)
    assert [*differing_keys(replace(config, parallel=shared), to_toml(config))] == ["parallel.gather"]


def test_only_settings_that_change_the_computation_prevent_resuming():
    first = load_config(["demo"])
    moved = load_config(["demo", "--out", "elsewhere", "--log_every", "3", "--data.shards", "x.tar"])
    other = load_config(["demo", "--optim.lr", "0.5", "--data.captions.1.sources.0.weight", "1"])
    assert not differing_keys(moved, to_toml(first))
    assert [*differing_keys(other, to_toml(first))] == ["data.captions.1.sources.0.weight", "optim.lr"]


def test_a_config_of_another_version_is_reported_as_such():
    config = load_config(["demo"])
    other = to_toml(config).replace("out = ", 'name = "demo"\nrun_dir = ')
    for read in (from_toml, partial(differing_keys, config)):
        with refusal_of("name, run_dir"):
            read(other)


# ---------------------------------------------------------------------------------------------------------------------
# A start

RATES = ("--optim.lr", "1e-5", "--optim.warmup_steps", "0")


@pytest.fixture
def start(tmp_path: Path) -> tuple[str, ModelConfig]:
    """A small model to start from, and its configuration."""
    demo = ARCHITECTURES["demo"]
    small = replace(demo, vision=replace(demo.vision, layers=1, width=32), text=replace(demo.text, vocab_size=49408))
    save_pretrained(ProLIP(small), tmp_path / "start")
    return str(tmp_path / "start"), small


def test_the_architecture_of_a_start_wins_over_a_recipes_own_model(start):
    source, small = start
    words = ["finetune-clip-vit-b16", *SHARDS, "--start_from", source]
    for choice in ([], ["--architecture", "start_from"]):
        config = load_config([*words, *choice])
        assert (config.architecture, config.model) == ("start_from", small)
        # What is said after that choice changes it.
        changed = load_config([*words, *choice, "--model.init_logit_bias", "-3"])
        assert changed.model == replace(small, init_logit_bias=-3)
    assert load_config([*words, "--architecture", "ViT-L-16"]).architecture == "ViT-L-16"


def test_a_recipe_that_resizes_its_start_keeps_its_architecture(start):
    words = ["longprolip-vit-b16-24m", *SHARDS, "--start_from", start[0]]
    assert load_config(words).model == ARCHITECTURES["ViT-B-16-long"]
    assert load_config([*words, "--start_resize", "corrected"]).model == ARCHITECTURES["ViT-B-16-long"]
    assert load_config([*words, "--start_resize", "off"]).model == start[1]


def test_a_start_sets_the_tokenizer_unless_another_is_given(tmp_path):
    write_run(tmp_path / "run", tmp_path / "own.json", context_length=7)
    words = [*SHARDS, *f"--start_from {tmp_path}/run --samples_seen 51200".split(), *RATES]
    for recipe in ([], ["finetune-siglip-vit-b16"], ["vit-b16-datacomp-1b-1.28b"]):
        config = load_config([*recipe, *words])
        tokenizer = config.data.tokenizer
        assert (tokenizer.kind, tokenizer.context_length, tokenizer.pad_id) == ("file", 7, 0)
        assert tokenizer.path.read_bytes() == (tmp_path / "own.json").read_bytes()
        config.check_vocabulary()
    (tmp_path / "mine.toml").write_text(f'data.tokenizer.path = "{tmp_path}/own.json"')
    by_recipe = load_config(["finetune-siglip-vit-b16", str(tmp_path / "mine.toml"), *words])
    by_flag = load_config([*words, "--data.tokenizer.path", str(tmp_path / "own.json")])
    for config in (by_recipe, by_flag):
        assert config.data.tokenizer == TokenizerConfig(kind="file", path=tmp_path / "own.json", context_length=7)


def test_a_saved_config_loads_without_its_start(start, tmp_path):
    source, small = start
    words = [*SHARDS, "--samples_seen", "51200", *RATES, "--out", str(tmp_path / "run"), "--start_from"]
    config = load_config([*words, source])
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.toml").write_text(to_toml(config))
    another = replace(small, vision=replace(small.vision, layers=2))
    save_pretrained(ProLIP(another), tmp_path / "another")
    assert load_config([*words, str(tmp_path / "another")]).model == another, "the saved settings are of another start"
    shutil.rmtree(source)
    assert load_config([*words, source]) == config
    (tmp_path / "run" / "config.toml").unlink()
    with pytest.raises(UserError):
        load_config([*words, source])


@pytest.mark.parametrize("named", [False, True])
def test_an_open_clip_start_sets_architecture_and_tokenizer(tmp_path, named):
    """Its tokenizer is CLIP's, or the file beside it if it names one."""
    start = write_open_clip(tmp_path / "clip")
    expected, masks = TokenizerConfig(kind="clip", context_length=16), "remove"  # each of CLIP's ids is a word
    if named:
        write_words(tmp_path / "clip" / "tokenizer.json")
        file = tmp_path / "clip" / "open_clip_config.json"
        described = json.loads(file.read_text())
        described["model_cfg"]["text_cfg"] |= {"hf_tokenizer_name": "x/y", "tokenizer_kwargs": {"clean": "lower"}}
        file.write_text(json.dumps(described))
        path = tmp_path / "clip" / "tokenizer.json"
        expected, masks = TokenizerConfig(kind="file", path=path, clean="lower", context_length=16), "replace"
    config = load_config(["finetune-siglip-vit-b16", *SHARDS, "--start_from", start])
    assert config.model.text.context_length == 16
    assert config.data.tokenizer == expected
    assert load_config([*SHARDS, "--samples_seen", "512", "--start_from", start, *RATES]).data.mask.text_mode == masks
    config.check_vocabulary()


def test_settings_derived_from_the_tokenizer_can_be_omitted(tmp_path):
    words = [*SHARDS, "--samples_seen", "512"]
    demo = load_config([*words, "--architecture", "demo"])
    assert (demo.model.text.vocab_size, demo.data.tokenizer.context_length) == (49408, 20)
    assert demo.data.mask.text_mode == "remove"  # each of CLIP's ids is a word
    longer = load_config([*words, "--architecture", "demo", "--model.text.context_length", "30"])
    assert longer.data.tokenizer.context_length == 30
    write_words(tmp_path / "own.json")
    own = load_config([*words, "--data.tokenizer.path", str(tmp_path / "own.json")])
    assert own.data.tokenizer.kind == "file"
    assert own.model == ARCHITECTURES["ViT-B-16"]
    assert own.data.mask.text_mode == "replace"  # the id 32,000 is free in a table of 32,100
    # What is asked for stays.
    asked = ["--data.mask.text_mode", "replace", "--model.text.vocab_size", "50000"]
    config = load_config([*words, "--architecture", "demo", *asked])
    assert (config.model.text.vocab_size, config.data.mask.text_mode) == (50000, "replace")
    assert load_config([*words, "--data.mask.mask_id", "7"]).data.mask.text_mode == "replace"


@pytest.mark.parametrize(
    ("flags", "missing"),
    [
        ((), "optim.lr"),
        (RATES[:2], "optim.warmup_steps"),
        (("--optim.warmup-steps=5",), "optim.lr"),
    ],
)
def test_a_start_with_pre_training_rates_is_refused(start, flags, missing):
    words = [*SHARDS, "--samples_seen", "51200", "--start_from", start[0]]
    with refusal_of(missing):
        load_config([*words, *flags])
    assert load_config([*words, *RATES]).optim.lr == 1e-5


def test_a_warm_up_longer_than_the_run_is_warned_about():
    words = ["demo", "--batch_size", "10", "--optim.warmup_steps", "100"]
    assert load_config([*words, "--samples_seen", "1010"]).remarks == []
    (remark,) = load_config([*words, "--samples_seen", "1000"]).remarks
    assert remark.startswith("optim.warmup_steps: 100 of 100 steps")


def test_stored_settings_hold_no_secrets_and_a_run_resumes_with_them():
    signed = "https://user:secret@host/{0..3}.tar?signature=secret"
    data = ["--data.shards", signed, "a.tar", "--data.index", "s3://key:secret@bucket/index"]
    config = load_config(["demo", *data])
    assert config.data.shards == (signed, "a.tar")
    assert "secret" not in to_toml(config)
    saved = from_toml(to_toml(config)).data
    assert (saved.shards, saved.index) == (("https://host/{0..3}.tar?…", "a.tar"), "s3://bucket/index")
    assert not differing_keys(config, to_toml(config))
