"""Validation within a run: the same figures on any number of ranks, and training is unchanged."""

import dataclasses
import json
import math
from contextlib import nullcontext

import pytest
import torch
from tests.support.refusals import refusal_of
from tests.support.shards import encoded, write_tar
from tests.support.small_step import ALONE, model_of
from tests.support.small_training import COLOURS, write_tokenizer
from tests.support.threaded_ranks import Group

from prolip.checkpoint import Best
from prolip.data import DataError, LoaderConfig, NativeConfig
from prolip.data.config import TokenizerConfig
from prolip.distributed import Ranks
from prolip.errors import UserError
from prolip.train.best_metric import BestSoFar, check_metric
from prolip.train.config import TrainConfig
from prolip.train.config.validation import ValidationConfig, ValidationJob
from prolip.train.validation import Validation, whole_model

NAMES = sorted(COLOURS)
COUNT = 22


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two shards whose keys are the same: the number of a sample in its shard."""
    folder = tmp_path_factory.mktemp("validation")
    write_tokenizer(folder / "tokenizer.json")
    for shard in range(2):
        members = []
        for number in range(COUNT // 2):
            place = (number + shard) % len(NAMES)
            name = NAMES[place]
            image = encoded(tuple(max(0, min(255, value + 3 * number)) for value in COLOURS[name]))
            record = {"class": {"text": name, "number": place}, "captions": [f"{name} left", name]}
            members += [(f"{number:03}.png", image), (f"{number:03}.json", json.dumps(record).encode())]
            members += [(f"{number:03}.cls", f"{place}\n".encode()), (f"{number:03}.txt", f"{name} top".encode())]
        write_tar(folder / f"{shard}.tar", members)
    # With a byte order mark, as some editors write.
    (folder / "classes.txt").write_text("\n".join(NAMES) + "\n", encoding="utf-8-sig")
    return folder


@pytest.fixture(scope="module")
def model():
    return model_of()


def reading(folder):
    tokenizer = TokenizerConfig(kind="file", path=folder / "tokenizer.json", context_length=4)
    return LoaderConfig(shards=(), batch_size=1, image_size=12, tokenizer=tokenizer, num_threads=1)


def job(folder, kind, /, **changes):
    return ValidationJob(**{"name": kind, "kind": kind, "shards": (f"{folder}/*.tar",), "batch_size": 4, **changes})


def figures(folder, model, *jobs, rank=0, world_size=1):
    ranks = Ranks(rank=rank, local_rank=rank, world_size=world_size, device=torch.device("cpu"))
    training, seq_len = reading(folder), model.config.vision.image_seq_len
    if seq_len is not None:
        training = dataclasses.replace(training, native=NativeConfig(patch_size=model.config.vision.patch_size))
    with Validation(ValidationConfig(jobs=jobs), training, ranks, nullcontext, seq_len) as validation:
        found = validation.run(0, model, done=False)
    return {name: value for name, value in found.items() if not name.endswith("/seconds")}


def jobs_of(folder):
    keys = ("captions.0", "txt")
    return [
        job(folder, "zero_shot", class_key="class.text", templates=("{}", "{} left")),
        job(folder, "retrieval", captions=keys),
        job(folder, "uncertainty", captions=keys),
    ]


@pytest.mark.parametrize(("world_size", "native"), [(2, False), (5, True)])
def test_validation_figures_do_not_depend_on_the_number_of_ranks(folder, world_size, native, monkeypatch):
    model = model_of(native=native)
    jobs = [*jobs_of(folder), job(folder, "zero_shot", name="members", classnames=folder / "classes.txt")]
    alone = figures(folder, model, *jobs)
    group = Group(world_size)
    monkeypatch.setattr("prolip.distributed.ranks.dist", group)
    for found in group.run(lambda rank: figures(folder, model, *jobs, rank=rank, world_size=world_size)):
        assert found == pytest.approx(alone, rel=1e-4, abs=1e-6, nan_ok=True)


def test_class_labels_may_be_names_numbers_or_members(folder, model):
    classes = folder / "classes.txt"
    ways = [
        {"class_key": "class.text"},
        {"class_key": "class.text", "classnames": classes},
        {"class_key": "class.number", "classnames": classes},
        {"classnames": classes},
    ]
    found = [figures(folder, model, job(folder, "zero_shot", templates=("{}",), **way)) for way in ways]
    assert found[0]["val/zero_shot/majority"] == pytest.approx(6 / 22)
    assert 0 <= found[0]["val/zero_shot/top1"] <= 1
    for other in found[1:]:
        assert other == pytest.approx(found[0], nan_ok=True)


def test_validation_leaves_the_training_state_unchanged(folder, model):
    model.train()
    random, weights = torch.get_rng_state(), {name: value.clone() for name, value in model.state_dict().items()}
    figures(folder, whole_model(model, copied=True), *jobs_of(folder))
    figures(folder, whole_model(model), *jobs_of(folder))
    assert torch.equal(torch.get_rng_state(), random)
    assert model.training
    for name, value in model.state_dict().items():
        assert torch.equal(value, weights[name]), name
    images = torch.rand(2, 3, 12, 12)
    model.encode_image(images).mean.sum().backward()  # what evaluation computed is in no graph's way
    model.zero_grad(set_to_none=True)


def test_averaged_weights_are_validated_if_there_are_any(model):
    average = {name: torch.full_like(value, 0.5) for name, value in model.named_parameters()}
    copy = whole_model(model, average)
    assert all(bool((value == 0.5).all()) for value in copy.parameters())
    assert whole_model(model) is model
    assert whole_model(model, copied=True) is not model
    assert torch.equal(whole_model(model, copied=True).visual.proj, model.visual.proj)


@pytest.mark.parametrize(
    ("metric", "better", "wins"),
    [
        ("val/a/top1", "max", [0.5, None, None, None, 0.75]),
        ("val/a/image_to_text_mean_rank", "min", [0.5, 0.25, None, None, None]),
        ("loss", None, [0.5, 0.25, None, None, None]),
        (None, None, [None] * 5),
    ],
)
def test_the_best_is_the_largest_or_the_smallest(tmp_path, metric, better, wins, monkeypatch):
    config = dataclasses.replace(TrainConfig(), keep_best=metric, best_is=better, out=tmp_path)
    best = BestSoFar(config, ALONE, 10)
    assert best.beaten_by({"val/b/top1": 1.0}) is None
    found = [best.beaten_by({str(metric): value}) for value in (0.5, 0.25, 0.5, math.nan, 0.75)]
    assert [one and one.value for one in found] == wins
    if metric is not None:  # an earlier best counts only if the run resumed after it
        before = Best(metric=metric, value=wins[0] or 0.0)
        monkeypatch.setattr("prolip.train.best_metric.read_best", lambda folder: (10, before))
        assert BestSoFar(config, ALONE, 10).beaten_by({metric: before.value}) is None
        assert BestSoFar(config, ALONE, 9).beaten_by({metric: before.value}) is not None


def test_a_metric_that_no_row_has_is_refused(tmp_path, folder):
    jobs = ValidationConfig(jobs=(job(folder, "retrieval", name="a"),))
    config = dataclasses.replace(TrainConfig(), validation=jobs, out=tmp_path)
    for wrong in ("los", "val/b/top1"):
        with refusal_of("keep_best"):
            check_metric(dataclasses.replace(config, keep_best=wrong))
    config = dataclasses.replace(config, keep_best="val/a/top2")
    with refusal_of("best_is"):
        check_metric(config)
    check_metric(dataclasses.replace(config, best_is="max"))
    with refusal_of("keep_best"):
        BestSoFar(config, ALONE, 0).beaten_by({"val/a/top1": 0.5})


def test_errors_of_validation_data_name_the_set(folder, model, tmp_path):
    few = tmp_path / "classes.txt"
    few.write_text("black\nblue\n")
    write_tar(tmp_path / "unlabelled.tar", [("a.png", encoded((9, 9, 9)))])
    wrong = [
        job(folder, "zero_shot", class_key="kind"),
        job(folder, "zero_shot", classnames=few),
        job(folder, "retrieval", captions=("captions.name",)),
        job(folder, "retrieval", shards=(f"{tmp_path}/none.tar",)),
        job(tmp_path, "zero_shot"),
    ]
    for one in wrong:
        with pytest.raises((UserError, DataError), match=r"^validation\.jobs\.0[.:]"):
            figures(folder, model, one)
