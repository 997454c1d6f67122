"""The run's configuration: recipes, flags, starts, and the rules that join fields."""

import json
import shutil
import tomllib
from dataclasses import fields, replace
from pathlib import Path

import pytest
from tests.support.datacomp_sets import write_open_clip
from tests.support.refusals import refusal_of
from tests.support.untrained_run import write_run, write_words

from prolip.data import DataConfig
from prolip.data.config import TokenizerConfig
from prolip.errors import UserError
from prolip.models import ARCHITECTURES, ProLIP
from prolip.models.hub import save_pretrained
from prolip.train.config import differing_keys, from_toml, known_recipes, load_config, to_toml

OWN_SCALE = ("--loss.contrast", "siglip", "--loss.inclusion_weight", "0", "--loss.vib_weight", "0")
CONTROL = (*OWN_SCALE, "--loss.variance_scale", "None")
SHARDS = ("--data.shards", "a-{000..003}.tar", "b.tar")


# ---- Recipes and flags ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in known_recipes() if not name.startswith("with-")])
def test_every_recipe_reads_and_what_is_saved_reads_back_equal(name):
    config = load_config([name, *SHARDS])
    assert config.name == name
    assert config.data.shards == SHARDS[1:]
    assert from_toml(to_toml(config)) == config


def test_an_architecture_is_a_start_that_keys_change():
    config = load_config(["demo", "--architecture", "ViT-L-16", "--model.vision.layers", "3", *SHARDS])
    large = ARCHITECTURES["ViT-L-16"]
    assert config.model == replace(large, vision=replace(large.vision, layers=3))


def test_a_recipe_states_what_differs_from_those_below_and_flags_win(tmp_path):
    (tmp_path / "below").mkdir()
    base, mine = tmp_path / "below" / "base.toml", tmp_path / "mine.toml"
    base.write_text('extends = "demo"\nout = "runs/base"\nbatch_size = 64\noptim = { lr = 2e-4, warmup_steps = 7 }\n')
    mine.write_text('extends = "below/base.toml"\nout = "runs/mine"\noptim = { lr = 3e-4 }\n', encoding="utf-8-sig")
    demo, config = load_config(["demo"]), load_config([str(mine), "--log_every", "3"])
    optim = replace(demo.optim, lr=3e-4, warmup_steps=7)
    assert config == replace(demo, out=Path("runs/mine"), batch_size=64, log_every=3, optim=optim)
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
        with refusal_of(name):
            load_config([str(one)])


def test_a_flag_adds_a_validation_set():
    (job,) = load_config(["demo", "--validation.jobs.0.shards", "a", "b"]).validation.jobs
    assert (job.name, job.shards) == ("val", ("a", "b"))


@pytest.mark.parametrize(
    "words",
    [
        "--validation.jobs.1.shards a",
        "--validation.jobs.0.shards",
        "--validation.jobs.0.every 0 --validation.jobs.0.shards a",
        "--validation.jobs.0.name a/b --validation.jobs.0.shards a",
        "--validation.jobs.0.templates photo --validation.jobs.0.shards a",
        "--optim.lrr 1",
        "--optim.lr fast",
        "--optim 1",
        "--out.name 1",
        "--precision fp8",
        "--loss.vib_weight -1",
        "--loss.contrast foo",
        "--loss.variance_scale 0",
        "--loss.inclusion_scale inf",
        "--loss.ppcl_weight 0",
        "--data.shards",
        "--batch_size 0",
        "--out ~/runs",
        "--log_every 0",
        "--seed 18446744073709551616",
        "--cpu_threads -1",
        "--timeout_minutes 0",
        "--model.init_logit_bias None",
        "--model.text.embed_unc False",
        "--lock.text_unlocked_groups 1",
        "--optim.cooldown_steps 100 --optim.schedule const-cooldown --batch_size 10 --samples_seen 1999",
        "--optim.lr 0",
        "--optim.betas 0.9 1",
        "--optim.clip_norm 0",
        "--log.examples_every -1",
        "--log.peak_tflops 0",
        "--parallel.recompute_every -1",
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


# ---- Rules between fields -------------------------------------------------------------------------------------------


def test_log_variances_must_be_trained_and_a_control_needs_none():
    points = ("--model.vision.embed_unc", "False", "--model.text.embed_unc", "False")
    with refusal_of("model.vision.embed_unc"):
        load_config(["demo", *CONTROL, "--data.mask.masked_fraction", "0"])
    only = ("--loss.masked_inclusion_weight", "0")
    assert not load_config(["demo", *CONTROL, *only, *points]).loss.reads_log_var
    for words in (["--loss.contrast", "siglip"], CONTROL, [*OWN_SCALE, *only]):  # other terms train them
        assert load_config(["demo", *words]).loss.reads_log_var


def test_the_loaders_derived_settings_follow_from_model_and_run():
    loader = load_config(["demo", "--seed", "5"]).loader(4)
    assert (loader.batch_size, loader.image_size, loader.seed, loader.num_epochs) == (16, 36, 5, None)
    assert loader.mask.num_patches == 36
    assert load_config(["demo", "--data.mask.masked_fraction", "0"]).loader(1).mask is None
    for words, ranks in (("batch_size 64", 3), ("accumulate 17", 4)):
        key, value = words.split()
        with refusal_of(key):
            load_config(["demo", f"--{key}", value]).loader(ranks)


def test_every_rank_has_its_share_of_the_budget_of_native_images():
    native = {"seq_lens": "16 36", "seq_len_probs": "1 3", "token_budget": "1020", "batch_divisor": "12"}
    flags = {f"data.native.{name}": value for name, value in native.items()} | {"samples_seen": "1000"}

    def read(**changes):
        words = " ".join(f"--{key} {value}" for key, value in (flags | changes).items())
        return load_config(["demo", "with-native", *words.split()])

    config, steps = read(), [(0.25, 16, 60), (0.75, 36, 24)]
    assert from_toml(to_toml(config)) == config
    assert config.data.native.steps() == steps
    assert config.total_steps == 1000 // 33
    for ranks in (1, 2, 6):
        of_rank = config.loader(ranks).native
        assert of_rank.patch_size == config.model.vision.patch_size
        assert [(prob, length, ranks * samples) for prob, length, samples in of_rank.steps()] == steps
    for field, value in (
        ("data.native.batch_divisor", "11"),
        ("data.native.token_budget", "999"),
        ("data.native.token_budget", "431"),
        ("accumulate", "13"),
        ("data.native", "None"),
        ("model.vision.image_seq_len", "None"),
    ):
        with refusal_of(field):
            read(**{field: value}).loader(2)


def test_every_data_setting_reaches_the_loader():
    words = """--data.mode resampled --data.weights 1 2.5 --data.num_samples 1000 --data.index shards.index
    --data.on_missing_shard skip --data.store.connections 3 --data.store.cache_dir cache --data.selection chosen"""
    config = load_config(["demo", "--data.shards", "a.tar", "b.tar", *words.split()])
    assert from_toml(to_toml(config)) == config
    loader = config.loader(1)
    names = {field.name for field in fields(DataConfig)} - {"mask"}
    assert [getattr(loader, name) for name in names] == [getattr(config.data, name) for name in names]
    assert "num_patches" not in tomllib.loads(to_toml(config))["data"]["mask"]


def test_only_settings_that_change_the_computation_prevent_resuming():
    first = load_config(["demo"])
    moved = "--out elsewhere --log_every 3 --data.shards x.tar --data.index i --data.store.retries 1"
    moved += " --parallel.strategy fsdp --parallel.reshard False --parallel.recompute_every 2 --parallel.compile True"
    assert not differing_keys(load_config(["demo", *moved.split()]), to_toml(first))
    others = ["data.captions.1.sources.0.weight 1", "data.store.require_archive_end False", "optim.lr 0.5"]
    others += ["parallel.gather fp32"]  # the type that weights are rounded to on the way
    words = " ".join(f"--{other}" for other in others).split()
    assert [*differing_keys(load_config(["demo", *words]), to_toml(first))] == [key.split()[0] for key in others]


def test_stored_settings_hold_no_secrets_and_a_run_resumes_with_them():
    signed = "https://user:secret@host/{0..3}.tar?signature=secret"
    config = load_config(["demo", "--data.shards", signed, "a.tar", "--data.index", "s3://key:secret@bucket/index"])
    assert config.data.shards == (signed, "a.tar")
    saved = from_toml(to_toml(config)).data
    assert (saved.shards, saved.index) == (("https://host/{0..3}.tar?…", "a.tar"), "s3://bucket/index")
    assert not differing_keys(config, to_toml(config))


def test_a_warm_up_longer_than_the_run_is_warned_about():
    words = ["demo", "--batch_size", "10", "--optim.warmup_steps", "100"]
    assert load_config([*words, "--samples_seen", "1010"]).remarks == []
    assert len(load_config([*words, "--samples_seen", "1000"]).remarks) == 1


# ---- A start --------------------------------------------------------------------------------------------------------

RATES = ("--optim.lr", "1e-5", "--optim.warmup_steps", "0")


@pytest.fixture
def start(tmp_path):
    """A small model to start from, and its configuration."""
    demo = ARCHITECTURES["demo"]
    small = replace(demo, vision=replace(demo.vision, layers=1, width=32), text=replace(demo.text, vocab_size=49408))
    save_pretrained(ProLIP(small), tmp_path / "start")
    return str(tmp_path / "start"), small


def test_the_architecture_of_a_start_wins_over_a_recipes_own_model(start):
    source, small = start
    words = ["finetune-clip-vit-b16", *SHARDS, "--start_from", source]
    for choice in ([], ["--architecture", "start_from"]):
        config = load_config([*words, *choice, "--model.init_logit_bias", "-3"])
        assert (config.architecture, config.model) == ("start_from", replace(small, init_logit_bias=-3))
    assert load_config([*words, "--architecture", "ViT-L-16"]).architecture == "ViT-L-16"
    longer = ["longprolip-vit-b16-24m", *SHARDS, "--start_from", source]  # a recipe that resizes its start
    assert load_config(longer).model == ARCHITECTURES["ViT-B-16-long"]
    assert load_config([*longer, "--start_resize", "off"]).model == small


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
        path, file = tmp_path / "clip" / "tokenizer.json", tmp_path / "clip" / "open_clip_config.json"
        write_words(path)
        described = json.loads(file.read_text())
        described["model_cfg"]["text_cfg"] |= {"hf_tokenizer_name": "x/y", "tokenizer_kwargs": {"clean": "lower"}}
        file.write_text(json.dumps(described))
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
    asked = ["--data.mask.text_mode", "replace", "--model.text.vocab_size", "50000"]
    config = load_config([*words, "--architecture", "demo", *asked])
    assert (config.model.text.vocab_size, config.data.mask.text_mode) == (50000, "replace")


def test_a_start_with_pre_training_rates_is_refused(start):
    words = [*SHARDS, "--samples_seen", "51200", "--start_from", start[0]]
    for flags, missing in (((), "optim.lr"), (RATES[:2], "optim.warmup_steps"), (RATES[2:], "optim.lr")):
        with refusal_of(missing):
            load_config([*words, *flags])
