"""The samples of a step are chosen as the equation says, by the learner and by stored embeddings."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tests.support.refusals import refusal_of
from tests.support.small_step import ALONE, model_of, run_of, step_of
from tests.support.small_training import RECIPE, SHORT, Lab, write_shard, write_tokenizer
from torch import Tensor

from prolip import cli
from prolip.data import BatchLoader, Cursor, MaskConfig
from prolip.data.device import DeviceBatch, device_batches
from prolip.embeddings.storage import paired_parts
from prolip.folders import Folder
from prolip.gaussian import Gaussian, csd_logits
from prolip.inference.load_model import load
from prolip.losses.choice import choose_reference
from prolip.train.choose import Chooser
from prolip.train.config import TrainConfig, load_config
from prolip.train.config.sections import ChooseConfig

LEARNER = ChooseConfig(keep=0.5, by="learner", group=8, chunks=2, keep_patches=1.0)


def candidates_of(count: int) -> DeviceBatch:
    rows, sizes = np.arange(count, dtype=np.uint32), np.zeros((count, 2), np.int32)
    return DeviceBatch(*step_of(count, count), 0 * rows, rows, sizes, [str(row) for row in rows], {}, Cursor())


def part_of(batch: DeviceBatch, rows: slice) -> DeviceBatch:
    images, ids, masked, kept = batch[:4]
    return batch._replace(
        images=images[rows],
        token_ids=ids[:, rows],
        masked_token_ids=masked[:, rows],
        kept_patches=kept[rows],
        keys=batch.keys[rows],
    )


def config_of(choose: ChooseConfig, **changes: Any) -> TrainConfig:
    config = run_of(model_of(), choose=choose, precision="fp32", **changes).config
    return replace(config, data=replace(config.data, mask=MaskConfig(masked_fraction=0.3)))


def pair_losses(image: Gaussian, text: Gaussian, scale: Tensor, bias: Tensor) -> Tensor:
    sign = 2 * torch.eye(len(image.mean)) - 1
    return -F.logsigmoid(sign * csd_logits(image, text, scale, bias))


def test_a_group_is_chosen_by_the_loss_of_its_pairs_on_any_number_of_processes():
    model, batch = model_of(), candidates_of(24)
    chooser = Chooser(config_of(LEARNER), model, ALONE, None)
    chosen, gap = chooser(batch, 0)
    with torch.no_grad():
        image, text = model.encode_image(batch.images), model.encode_text(batch.token_ids[0])
    logit, expected = (model.logit_scale.detach().exp(), model.logit_bias.detach()), []
    for first in range(0, 24, 8):
        group = slice(first, first + 8)
        losses = pair_losses(image[group], text[group], *logit)
        expected += [str(first + row) for row in choose_reference(losses, 4, 2).tolist()]
    assert list(chosen.keys) == expected
    assert float(gap) > 0
    rows = torch.tensor([int(key) for key in expected])
    assert chosen.images.equal(batch.images[rows])
    assert chosen.token_ids.equal(batch.token_ids[:, rows])
    assert chosen.masked_token_ids.equal(batch.masked_token_ids[:, rows[:3]]), "30 % of 12 samples"
    assert chosen.kept_patches.equal(batch.kept_patches[rows[:3]])
    parts = [chooser(part_of(batch, rows), 0)[0] for rows in (slice(0, 8), slice(8, 24))]
    assert [key for part in parts for key in part.keys] == expected


def test_the_learner_sees_other_patches_at_each_step_and_the_control_no_variances():
    model, batch, seen = model_of(), candidates_of(8), []
    few = replace(LEARNER, keep_patches=0.5)
    model.visual.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[1].tolist()))
    for seed, step in ((0, 0), (0, 1), (0, 2), (0, 0), (1, 0)):
        Chooser(config_of(few, seed=seed), model, ALONE, None)(batch, step)
    assert [len(patches) for patches in seen[::2]] == [2] * len(seen[::2])
    per_call = seen[:: len(seen) // 5]
    assert per_call[0] == per_call[3]
    assert len({tuple(patches) for patches in per_call}) > 1
    assert all(patches == sorted(set(patches)) for patches in seen)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """Data, a short run on them, and its embeddings of them."""
    folder = tmp_path_factory.mktemp("chosen")
    write_shard(folder / "train.tar")
    write_tokenizer(folder / "tokenizer.json")
    (folder / "recipe.toml").write_text(RECIPE.format(folder=folder))
    lab = Lab(folder)
    assert lab.here("reference", *SHORT) == 0
    embed(lab, "train.tar", "embeddings")
    return lab


def embed(lab: Lab, shard: str, out: str) -> None:
    words = f"--checkpoint {lab.folder}/reference --shards {lab.folder}/{shard} --what both".split()
    words += f"--caption_key captions.name --out {lab.folder}/{out} --dtype float32".split()
    assert cli.main(["embed", *words]) == 0


def choosing(lab: Lab, reference: str = "embeddings", *flags: str) -> list[str]:
    words = ["--choose.keep", "0.5", "--choose.group", "16", "--choose.chunks", "4"]
    return [*words, "--choose.reference", str(lab.folder / reference), *SHORT, *flags]


@pytest.mark.parametrize("by", ["learnability", "reference"])
def test_stored_embeddings_are_joined_with_the_samples(lab, by):
    config = load_config(
        lab.words("any", *choosing(lab, "embeddings", "--choose.by", by, "--choose.keep_patches", "1"))
    )
    with BatchLoader(config.loader(1)) as loader:
        batch = next(iter(device_batches(loader, ALONE.device)))
        assert batch.token_ids.shape[1] == 32
        model = load(str(lab.folder / "reference"), device="cpu").prolip
        learner = model_of()
        chosen, _ = Chooser(config, learner, ALONE, loader)(batch, 0)
    ((images, texts),) = paired_parts(Folder(str(lab.folder / "embeddings")))
    names = {key: place for place, key in enumerate(images.names()[0])}
    stored = [torch.cat([torch.tensor(block.mean) for block in part.blocks()]) for part in (images, texts)]
    spread = [torch.tensor(part.total_var()[1].copy()) for part in (images, texts)]
    dim, expected = stored[0].shape[1], []
    with torch.no_grad():
        own = learner.encode_image(batch.images), learner.encode_text(batch.token_ids[0])
        for first in (0, 16):
            group = slice(first, first + 16)
            rows = [names[key] for key in batch.keys[group]]
            sides = [
                Gaussian(mean[rows], (var[rows, None] / dim).log().expand(-1, dim))
                for mean, var in zip(stored, spread, strict=True)
            ]
            losses = -pair_losses(sides[0], sides[1], model.logit_scale.exp(), model.logit_bias)
            if by == "learnability":
                losses += pair_losses(own[0][group], own[1][group], learner.logit_scale.exp(), learner.logit_bias)
            expected += [batch.keys[first + row] for row in choose_reference(losses, 8, 4).tolist()]
    assert list(chosen.keys) == expected


def test_a_run_logs_what_its_choice_gains(lab):
    assert lab.here("chosen", *choosing(lab), "--choose.deviation", "True") == 0
    row = lab.rows("chosen")[-1]
    assert row["choose/gap"] > 0
    assert row["samples"] == 320
    assert lab.here("plain", *SHORT) == 0
    assert "choose/gap" not in lab.rows("plain")[-1]


def test_samples_of_equal_keys_are_joined_by_their_shards(lab):
    names = ["wide.tar", "tall.tar"]
    for name, count, size in zip(names, (32, 30), ((14, 12), (12, 14)), strict=True):
        write_shard(lab.folder / name, range(count), [size])
    embed(lab, "{wide,tall}.tar", "two")
    config = load_config(lab.words("any", *choosing(lab, "two"), "--data.shards", f"{lab.folder}/{{wide,tall}}.tar"))
    stored = {
        (images.notes.source, row): mean
        for images, _ in paired_parts(Folder(str(lab.folder / "two")))
        for block in images.blocks()
        for row, mean in zip(block.rows.tolist(), torch.tensor(block.mean), strict=True)
    }
    with BatchLoader(config.loader(1)) as loader:
        batch = next(iter(device_batches(loader, ALONE.device)))
        judge = Chooser(config, model_of(), ALONE, loader)._reference.judge(batch, 16)
        sources = [str(lab.folder / names[shard]) for shard in batch.shards]
    expected = [stored[place] for place in zip(sources, batch.rows.tolist(), strict=True)]
    assert len({*sources}) == 2
    assert judge.image.mean.flatten(0, 1).equal(torch.stack(expected))


def test_embeddings_of_other_data_are_refused(lab):
    write_shard(lab.folder / "other.tar", range(60))
    embed(lab, "other.tar", "other")
    config = load_config(lab.words("any", *choosing(lab)))
    with BatchLoader(config.loader(1)) as loader:
        for flags in (
            choosing(lab, "other"),
            ["--choose.keep", "0.5"],
            choosing(lab, "other", "--choose.by", "learner"),
        ):
            with refusal_of("choose.reference"):
                Chooser(load_config(lab.words("any", *flags)), model_of(), ALONE, loader)
        own, batch = Chooser(config, model_of(), ALONE, loader), next(iter(device_batches(loader, ALONE.device)))
        with refusal_of("choose.reference"):
            own(batch._replace(keys=["unknown", *batch.keys[1:]]), 0)


@pytest.mark.parametrize(
    ("field", "settings"),
    [
        ("choose.keep", {"keep": 0.0}),
        ("choose.keep_patches", {"keep": 0.5, "keep_patches": 1.5}),
        ("choose.group", {"keep": 0.3, "by": "learner", "group": 8, "chunks": 2}),
        ("choose.group", {"keep": 0.5, "by": "learner", "group": 8, "chunks": 3}),
        ("choose.chunks", {"chunks": 0}),
    ],
)
def test_settings_that_cannot_work_are_named(field, settings):
    with refusal_of(field):
        ChooseConfig(**settings)


def test_a_step_consists_of_whole_groups():
    assert LEARNER.num_candidates(12) == 24
    with refusal_of("batch_size"):
        LEARNER.num_candidates(10)
    assert ChooseConfig().num_candidates(10) == 10
