"""Validation within a run: the same figures on any number of ranks, and training is unchanged."""

from __future__ import annotations

import dataclasses
import json
import math
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from tests.support.shards import encoded, write_tar
from tests.support.small_training import COLOURS, write_tokenizer
from tests.support.threaded_ranks import Group

from prolip.checkpoint import Best
from prolip.data import BatchLoader, CaptionConfig, CaptionSource, DataError, LoaderConfig
from prolip.data.config import TokenizerConfig
from prolip.data.tokenizer import Tokenizer
from prolip.distributed import Ranks
from prolip.embeddings.embed import embed_images, embed_texts
from prolip.errors import UserError
from prolip.metrics.retrieval import evaluate_retrieval
from prolip.models import ARCHITECTURES, ProLIP
from prolip.train.best import BestSoFar
from prolip.train.config.parts import ValidationConfig, ValidationJob
from prolip.train.validation import Validation, metric_names, whole_model

NAMES = sorted(COLOURS)
COUNT = 22


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
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
def model() -> ProLIP:
    demo = ARCHITECTURES["demo"]
    vision = dataclasses.replace(demo.vision, image_size=12, patch_size=6, width=16, head_width=8, layers=1)
    text = dataclasses.replace(demo.text, width=16, heads=2, layers=1, vocab_size=10, context_length=4)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return ProLIP(dataclasses.replace(demo, embed_dim=8, vision=vision, text=text))


def reading(folder: Path) -> LoaderConfig:
    tokenizer = TokenizerConfig(kind="file", path=folder / "tokenizer.json", context_length=4)
    return LoaderConfig(shards=(), batch_size=1, image_size=12, tokenizer=tokenizer, num_threads=1)


def job(folder: Path, kind: Any, /, **changes: Any) -> ValidationJob:
    return ValidationJob(**{"name": kind, "kind": kind, "shards": (f"{folder}/*.tar",), "batch_size": 4, **changes})


def figures(folder: Path, model: ProLIP, *jobs: ValidationJob, rank: int = 0, world_size: int = 1) -> dict[str, float]:
    ranks = Ranks(rank=rank, local_rank=rank, world_size=world_size, device=torch.device("cpu"))
    with Validation(ValidationConfig(jobs=jobs), reading(folder), ranks, nullcontext) as validation:
        found = validation.run(0, model, done=False)
    return {name: value for name, value in found.items() if not name.endswith("/seconds")}


def jobs_of(folder: Path) -> list[ValidationJob]:
    keys = ("captions.0", "txt")
    return [
        job(folder, "zero_shot", class_key="class.text", templates=("{}", "{} left")),
        job(folder, "retrieval", captions=keys),
        job(folder, "uncertainty", captions=keys),
    ]


@pytest.mark.parametrize("world_size", [2, 5])
def test_validation_figures_do_not_depend_on_the_number_of_ranks(
    folder: Path, model: ProLIP, world_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [*jobs_of(folder), job(folder, "zero_shot", name="members", classnames=folder / "classes.txt")]
    alone = figures(folder, model, *jobs)
    group = Group(world_size)
    monkeypatch.setattr("prolip.distributed.ranks.dist", group)
    for found in group.run(lambda rank: figures(folder, model, *jobs, rank=rank, world_size=world_size)):
        assert found == pytest.approx(alone, rel=1e-4, abs=1e-6, nan_ok=True)


def test_validation_works_with_more_ranks_than_images(
    folder: Path, model: ProLIP, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tar(tmp_path / "one.tar", [("a.png", encoded((9, 9, 9))), ("a.txt", b"red left")])
    small = job(tmp_path, "retrieval")
    group = Group(2)
    monkeypatch.setattr("prolip.distributed.ranks.dist", group)
    for found in group.run(lambda rank: figures(folder, model, small, rank=rank, world_size=2)):
        assert found["val/retrieval/image_to_text_recall_at_1"] == 1.0


def test_validation_retrieval_equals_evaluate_retrieval(folder: Path, model: ProLIP) -> None:
    found = figures(folder, model, job(folder, "retrieval"))
    config = LoaderConfig(
        shards=(f"{folder}/*.tar",),
        batch_size=22,
        image_size=12,
        captions=(CaptionConfig(sources=(CaptionSource(key="txt"),)),),
        tokenizer=reading(folder).tokenizer,
        shuffle_window=0,
        last_batch="keep",
        keep_members=("json",),
    )
    device = torch.device("cpu")
    with BatchLoader(config) as loader:
        images = embed_images(model, loader, device)
    captions = [json.loads(member or b"")["class"]["text"] + " top" for member in images.members["json"]]
    texts = embed_texts(model, Tokenizer(reading(folder).tokenizer), captions, device)
    correct = torch.tensor([[one == other for other in captions] for one in captions])
    expected = evaluate_retrieval(images.gaussian, texts, correct)
    assert 0 < expected.recall_at_5 < 1
    for name in ("recall_at_1", "recall_at_5", "recall_at_10", "mean_rank", "median_rank"):
        assert found[f"val/retrieval/image_to_text_{name}"] == pytest.approx(getattr(expected, name))
    assert "val/retrieval/text_to_image_mean_recall_at_1" in found


def test_class_labels_may_be_names_numbers_or_members(folder: Path, model: ProLIP) -> None:
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


def test_class_names_may_be_numbers(folder: Path, model: ProLIP, tmp_path: Path) -> None:
    years = tmp_path / "years.txt"
    years.write_text("1990\n2000\n")
    members = [("a.png", encoded((9, 9, 9))), ("a.cls", b"2000"), ("b.png", encoded((9, 9, 9))), ("b.cls", b"0")]
    write_tar(tmp_path / "years.tar", members)
    found = figures(folder, model, job(tmp_path, "zero_shot", classnames=years))
    assert found["val/zero_shot/majority"] == 0.5  # "0" is the place of 1990


def test_uncertainty_figures_cover_images_and_captions(folder: Path, model: ProLIP) -> None:
    found = figures(folder, model, job(folder, "uncertainty", captions=("txt", "captions.1")))
    for side in ("image", "text"):
        low, mean, high = (found[f"val/uncertainty/{side}_{name}"] for name in ("low", "mean", "high"))
        assert 0 < low <= mean <= high
        assert 0 <= found[f"val/uncertainty/{side}_risk_coverage"] <= 1
    assert -1 <= found["val/uncertainty/text_length_spearman"] <= 1


def test_validation_leaves_the_training_state_unchanged(folder: Path, model: ProLIP) -> None:
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


def test_averaged_weights_are_validated_if_there_are_any(model: ProLIP) -> None:
    average = {name: torch.full_like(value, 0.5) for name, value in model.named_parameters()}
    copy = whole_model(model, average)
    assert all(bool((value == 0.5).all()) for value in copy.parameters())
    assert whole_model(model) is model
    assert whole_model(model, copied=True) is not model
    assert torch.equal(whole_model(model, copied=True).visual.proj, model.visual.proj)


Better = Literal["max", "min"] | None


def best_of(folder: Path, metric: str | None, better: Better = None, step: int = 10) -> BestSoFar:
    ranks = Ranks(rank=0, local_rank=0, world_size=1, device=torch.device("cpu"))
    return BestSoFar(metric, better, folder, ranks, step)


LARGEST, SMALLEST = [0.5, None, None, None, 0.75], [0.5, 0.25, None, None, None]


@pytest.mark.parametrize(
    ("metric", "better", "wins"),
    [
        ("val/a/top1", "max", LARGEST),
        ("val/a/top1", "min", SMALLEST),
        ("val/a/top1", None, LARGEST),
        ("val/a/image_to_text_mean_rank", None, SMALLEST),
        ("loss", None, SMALLEST),
        ("loss", "max", LARGEST),
    ],
)
def test_the_best_is_the_largest_or_the_smallest(
    tmp_path: Path, metric: str, better: Better, wins: list[float]
) -> None:
    best = best_of(tmp_path, metric, better)
    assert best.beaten_by({"val/b/top1": 1.0}) is None
    found = [best.beaten_by({metric: value}) for value in (0.5, 0.25, 0.5, math.nan, 0.75)]
    assert found == [None if value is None else Best(metric=metric, value=value) for value in wins]


def test_without_keep_best_no_row_is_the_best(tmp_path: Path) -> None:
    assert best_of(tmp_path, None).beaten_by({"loss": 1.0}) is None


def test_the_best_of_a_timing_is_decided_by_rank_0(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    group = Group(2)
    monkeypatch.setattr("prolip.distributed.ranks.dist", group)
    seconds = [(3.0, 2.0, 2.5, 1.0), (3.0, 3.5, 1.0, 2.0)]

    def bests(rank: int) -> list[Best | None]:
        ranks = Ranks(rank=rank, local_rank=rank, world_size=2, device=torch.device("cpu"))
        best = BestSoFar("val/a/seconds", "min", tmp_path, ranks, 0)
        return [best.beaten_by({"val/a/seconds": value}) for value in seconds[rank]]

    one, two = group.run(bests)
    assert [None if best is None else best.value for best in one] == [3.0, 2.0, None, 1.0]
    assert two == one


def test_rank_0_decides_what_the_earlier_best_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file server may show it to one rank and not yet to another."""
    group, seen = Group(2), {"0": (10, Best(metric="loss", value=0.5)), "1": None}
    monkeypatch.setattr("prolip.distributed.ranks.dist", group)
    monkeypatch.setattr("prolip.train.best.read_best", lambda folder: seen[folder.name])

    def best(rank: int) -> Best | None:
        ranks = Ranks(rank=rank, local_rank=rank, world_size=2, device=torch.device("cpu"))
        return BestSoFar("loss", "min", tmp_path / str(rank), ranks, 10).beaten_by({"loss": 0.75})

    assert group.run(best) == [None, None]


def test_an_unknown_keep_best_metric_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"keep_best is 'val/a/top2': it must be one of val/a/top1"):
        best_of(tmp_path, "val/a/top2", "max").beaten_by({"val/a/top1": 0.5})
    with pytest.raises(ValueError, match=r"keep_best is 'los': it must be one of step, loss"):
        best_of(tmp_path, "los", "max").beaten_by({"step": 1, "loss": 0.5})


def test_an_earlier_best_counts_only_if_the_run_resumed_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prolip.train.best.read_best", lambda folder: (10, Best(metric="loss", value=0.5)))
    assert best_of(tmp_path, "loss", "min", step=10).beaten_by({"loss": 0.75}) is None
    assert best_of(tmp_path, "loss", "min", step=9).beaten_by({"loss": 0.75}) is not None
    assert best_of(tmp_path, "vib", "min", step=10).beaten_by({"vib": 0.75, "loss": 1.0}) is not None


def test_a_set_is_due_on_its_schedule_and_at_the_end(folder: Path, model: ProLIP) -> None:
    ranks = Ranks(rank=0, local_rank=0, world_size=1, device=torch.device("cpu"))
    jobs = (job(folder, "retrieval", name="often", every=2), job(folder, "retrieval", name="rarely", every=6))
    with Validation(ValidationConfig(jobs=jobs), reading(folder), ranks, nullcontext) as validation:
        due = [{name.split("/")[1] for name in validation.run(step, model, done=step == 7)} for step in (1, 2, 4, 6, 7)]
        assert [validation.is_due(step, done=step == 7) for step in (1, 2, 4, 6, 7)] == [bool(names) for names in due]
    assert due == [set(), {"often"}, {"often"}, {"often", "rarely"}, {"often", "rarely"}]
    with Validation(ValidationConfig(), reading(folder), ranks, nullcontext) as nothing:
        assert not nothing.is_due(7, done=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": ""}, r"validation.jobs.0.name is '': it must not be empty"),
        ({"name": "a/b"}, r"validation.jobs.0.name is 'a/b': it must not be empty or contain a slash"),
        ({"shards": ()}, r"validation.jobs.0.shards is empty"),
        ({"every": 0}, r"validation.jobs.0.every is 0: it must be at least 1"),
        ({"batch_size": 0}, r"validation.jobs.0.batch_size is 0: it must be at least 1"),
        ({"captions": ()}, r"validation.jobs.0.captions is empty: retrieval needs captions"),
        (
            {"kind": "zero_shot", "templates": ("a photo",)},
            r"validation.jobs.0.templates: template 'a photo' has no \{\}",
        ),
    ],
)
def test_an_impossible_validation_job_is_refused(folder: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ValidationConfig(jobs=(job(folder, "retrieval", **changes),)).validate()


def test_captions_that_are_not_there_are_an_error_before_the_first_step(folder: Path) -> None:
    ranks = Ranks(rank=0, local_rank=0, world_size=1, device=torch.device("cpu"))
    jobs = ValidationConfig(jobs=(job(folder, "retrieval", captions=("captions.name",)),))
    with pytest.raises(DataError, match=r'^validation\.jobs\.0: .* its json has no caption at "captions\.name"'):
        Validation(jobs, reading(folder), ranks, nullcontext)


def test_two_validation_jobs_with_one_name_are_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"validation.jobs.1.name is 'retrieval': another job has that name"):
        ValidationConfig(jobs=(job(folder, "retrieval"), job(folder, "retrieval"))).validate()


def test_errors_of_validation_labels_name_the_sample_or_file(folder: Path, model: ProLIP, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"validation.jobs.0.class_key is 'kind': sample 000: its json has no text"):
        figures(folder, model, job(folder, "zero_shot", class_key="kind"))
    few = tmp_path / "classes.txt"
    few.write_text("black\nblue\n")
    with pytest.raises(DataError, match=r"sample 002: label 2 is not one of the 2 classes of .*classes.txt"):
        figures(folder, model, job(folder, "zero_shot", classnames=few))
    few.write_text("\n")
    with pytest.raises(ValueError, match=r"classes.txt: no class name"):
        figures(folder, model, job(folder, "zero_shot", classnames=few))
    few.write_bytes("noir\nazuré\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"classes.txt is not UTF-8"):
        figures(folder, model, job(folder, "zero_shot", classnames=few))
    with pytest.raises(UserError, match=r"^validation\.jobs\.1\.captions\[0\]\.sources\[0\]\.key: must be"):
        figures(folder, model, job(folder, "retrieval"), job(folder, "uncertainty", captions=("a..b",)))
    with pytest.raises(UserError, match=r"^validation\.jobs\.0\.shards: there is no file"):
        figures(folder, model, job(folder, "retrieval", shards=(f"{tmp_path}/none.tar",)))
    write_tar(tmp_path / "unlabelled.tar", [("a.png", encoded((9, 9, 9)))])
    with pytest.raises(ValueError, match=r"validation.jobs.0.class_key is 'cls': sample a: it has no member .cls"):
        figures(folder, model, job(tmp_path, "zero_shot"))


@pytest.mark.parametrize("has_var", [True, False])
def test_the_names_of_a_sets_metrics_are_known_before_it_is_opened(folder: Path, model: ProLIP, has_var: bool) -> None:
    towers = {name: dataclasses.replace(getattr(model.config, name), embed_unc=has_var) for name in ("vision", "text")}
    config = dataclasses.replace(model.config, **towers)
    ranks = Ranks(rank=0, local_rank=0, world_size=1, device=torch.device("cpu"))
    for one in jobs_of(folder):
        with Validation(ValidationConfig(jobs=(one,)), reading(folder), ranks, nullcontext) as validation:
            assert list(validation.run(0, ProLIP(config), done=False)) == metric_names(one, config)
