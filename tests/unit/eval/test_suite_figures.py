"""The suites' figures that stand beside the main ones, each worked out by hand."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tests.unit.eval.test_imagenet_suite import RULE, pictures_of, prompts_of, share
from tests.unit.eval.test_imagenet_suite import World as Imagenet
from tests.unit.eval.test_pair_suites import COUNT, WORDS, World, caption, embedded
from torch import Tensor

from prolip.cli import main
from prolip.embeddings.embed import embed_captions, embed_shards, embed_views
from prolip.eval.bprw import reweight_prompts
from prolip.eval.coco import Shares
from prolip.eval.hierarchy import mean_root, string_ids
from prolip.eval.measures import measure_hierarchy
from prolip.eval.prompts import SmallestInClass, filter_prompts
from prolip.eval.uncertainty import count_words, expected_calibration_error
from prolip.eval.zero_shot import Classifier, aggregate_prompts, zero_shot_logits
from prolip.gaussian import Gaussian
from prolip.suites import classification
from prolip.suites.caption_sets import open_captioned
from prolip.suites.config import DatacompOptions, ImagenetOptions
from prolip.suites.csv_datasets import read_levels
from prolip.suites.datacomp import run_datacomp
from prolip.suites.hierarchies import NEEDS_VARIANCES, level_rows
from prolip.suites.results import Row, TaskCache, TaskResult
from prolip.suites.retrieval import coco_row
from prolip.suites.tasks import Task
from prolip.suites.uncertainty import accuracy_figures, blurred, caption_rows, hide_patches, shortened, thinned


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("figures"))


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory: pytest.TempPathFactory) -> Imagenet:
    return Imagenet(tmp_path_factory.mktemp("imagenet"))


# ---- uncertainty ----------------------------------------------------------------------------------------------------


def rate(changed: Tensor, whole: Tensor) -> float:
    return float((changed > whole).double().mean())


def test_what_is_taken_away_makes_more_uncertain(world: World) -> None:
    words = ["--data", str(world.pairs), "--caption_key", "txt", "--num_bins", "3", "--keep_ratio", "0.4"]
    found = world.run("uncertainty", *words, "--blur", "0.2", models=[world.ours])
    values = world.values(found, world.ours)
    images, texts, _ = embedded(world.model, world.pairs)
    views = {"hidden": hide_patches(world.model, 0.4), "blurred": lambda p: world.model.encode_image(blurred(p, 0.2))}
    seen = embed_views(world.model, open_captioned(str(world.pairs), world.root).shards, views)
    for view, said in (("hidden", "60% of its patches hidden"), ("blurred", "blurred")):
        expected = rate(seen[view].gaussian.total_var, images.total_var)
        assert values[f"a picture is more uncertain {said}"] == pytest.approx(expected)
    assert rate(seen["hidden"].gaussian.total_var, images.total_var) != 0.5, "else the direction would not show"
    captions = [caption(number, place) for number in range(COUNT) for place in range(3)]
    long = [place for place, text in enumerate(captions) if len(text.split()) >= 4]
    for said, change in (("cut to its first half", shortened), ("half of its words left out", thinned)):
        changed = embed_captions(world.model, [change(captions[place]) for place in long])
        expected = rate(changed.total_var, texts.total_var[long])
        assert values[f"a caption is more uncertain {said}"] == pytest.approx(expected)
    ranks = torch.corrcoef(torch.stack([mean_ranks(texts.total_var), mean_ranks(count_words(captions).double())]))
    metric = "rank correlation of a caption's uncertainty with its words"
    assert values[metric] == pytest.approx(float(ranks[0, 1]))
    figure = next(row for row in found["figures"] if row["metric"] == metric)
    assert figure["low"][world.ours] < values[metric] < figure["high"][world.ours]


def mean_ranks(values: Tensor) -> Tensor:
    return torch.tensor([float((values < value).sum()) + float((values == value).sum()) / 2 for value in values])


def test_accuracy_of_the_certain_and_of_the_uncertain(world: World) -> None:
    found = world.run("uncertainty", "--data", str(world.pairs), "--num_bins", "4", models=[world.ours])
    values = world.values(found, world.ours)
    images, _, _ = embedded(world.model, world.pairs)
    prompts = [embed_captions(world.model, [f"a picture of {name}", name]) for name in WORDS[:4]]
    classifier = aggregate_prompts(
        Gaussian(torch.stack([one.mean for one in prompts]), torch.stack([one.log_var for one in prompts]))
    )
    logits = zero_shot_logits(images.mean, classifier.weight)
    right = (logits.argmax(dim=1) == torch.arange(COUNT) % 4).double()
    order = images.total_var.argsort().tolist()
    for said, some in (("most", order[:3]), ("least", order[-3:])):
        assert values[f"accuracy of the {said} certain 1/4"] == pytest.approx(float(right[some].mean()))
    error = expected_calibration_error(logits.softmax(dim=1).amax(dim=1), right)
    assert values["expected calibration error"] == pytest.approx(error)
    by_metric = {row["metric"]: row for row in found["figures"]}
    for metric in ("area under risk and coverage", "expected calibration error"):
        low, high = (by_metric[metric][end][world.ours] for end in ("low", "high"))
        assert 0 <= low <= high <= 1


def test_the_certain_ones_come_first_and_the_uncertain_ones_last() -> None:
    """Seven pictures in three bins of two. The least certain two are the very last ones, the remainder among them."""
    uncertainty = torch.tensor([0.7, 0.1, 0.4, 0.2, 0.3, 0.6, 0.5], dtype=torch.float64)
    right = torch.tensor([0, 1, 0, 1, 1, 0, 1])
    logits = torch.nn.functional.one_hot(right, 2).float()
    found = accuracy_figures("set", uncertainty, logits, torch.ones(7, dtype=torch.int64), 3)
    values = {row.metric: row.value for row in found.rows}
    assert values["accuracy of the most certain 1/3"] == 1.0
    assert values["accuracy of the least certain 1/3"] == 0.0
    assert values["correlation of accuracy with uncertainty, over bins"] == pytest.approx(-(0.75**0.5))
    assert [row.main for row in found.rows] == [True, *[False] * (len(found.rows) - 1)]


def test_hiding_keeps_that_share_of_the_patches_the_same_at_each_call() -> None:
    seen: list[Tensor] = []

    def encode_image(images: Tensor, kept: Tensor) -> Gaussian:
        seen.append(kept)
        return Gaussian.point(images)

    network = SimpleNamespace(config=SimpleNamespace(vision=SimpleNamespace(num_patches=30)), encode_image=encode_image)
    model: Any = SimpleNamespace(prolip=network)
    for ratio, count in ((0.25, 7), (0.5, 15), (0.001, 1)):
        seen.clear()
        for _ in range(2):
            view = hide_patches(model, ratio)
            view(torch.zeros(4, 3))
            view(torch.zeros(4, 3))
        assert {kept.shape for kept in seen} == {(4, count)}
        assert all(bool((kept.diff(dim=1) > 0).all()) for kept in seen), "in their order, each once"
        assert 0 <= int(torch.cat(seen).min()) <= int(torch.cat(seen).max()) < 30
        assert seen[0].equal(seen[2])
        assert seen[1].equal(seen[3])
        assert not seen[0].equal(seen[1])


def test_only_captions_of_four_words_or_more_are_shortened(world: World) -> None:
    rows = caption_rows(world.model, "set", ["animals nature food travel", "animals nature food", "picture"])
    shortened_rows = [row for row in rows if row.metric.startswith("a caption is more uncertain")]
    assert [row.num_items for row in shortened_rows] == [1, 1]
    few = caption_rows(world.model, "set", ["animals nature food", "picture"])
    assert len(few) == len(rows) - 2


def test_a_blur_is_as_wide_as_it_is_told() -> None:
    spot = torch.zeros(1, 1, 60, 80)
    spot[..., 30, 40] = 1
    seen = blurred(spot, 0.05)[0, 0].double()  # of 60 pixels of height: 3
    assert float(seen.sum()) == pytest.approx(1)
    for axis, (size, centre) in enumerate(((60, 30), (80, 40))):
        shares = seen.sum(dim=1 - axis)
        spread = float((shares * (torch.arange(size) - centre) ** 2).sum()) ** 0.5
        assert spread == pytest.approx(3, rel=0.03)


def test_words_that_are_left_keep_their_order() -> None:
    words = [str(number) for number in range(21)]
    left = [int(word) for word in thinned(" ".join(words)).split()]
    assert len(left) == 10
    assert left == sorted(set(left))
    assert left != list(range(10))


# ---- hierarchies ----------------------------------------------------------------------------------------------------


def test_every_walk_through_captions_and_pictures(world: World) -> None:
    levels, _ = read_levels(world.hierarchies / "table.csv", "captions", "image_url")
    flat = embed_captions(world.model, [text for row in levels for text in row])
    captions = Gaussian(flat.mean.view(6, 3, -1), flat.log_var.view(6, 3, -1))
    root = embed_captions(world.model, [""]).mean[0]
    for suite in ("hierarcaps", "hierarimgs"):
        found = world.run(suite, "--data", str(world.hierarchies))
        values = world.values(found, world.ours)
        assert found["notes"] == {world.ours: [], world.theirs: [NEEDS_VARIANCES]}
        made = open_captioned(str(next((world.root / suite / "data").glob("*.tar"))), world.root).shards
        pictures = embed_shards(world.model, made).gaussian
        if suite == "hierarcaps":  # rows 0 to 5 name h2 to h7
            expected = measure_hierarchy(pictures, captions, string_ids(levels), root, num_resamples=1)
        else:
            # As they are named first: h0, h1, h2; h0, h2, h3; h0, h1, h4; …
            order = ["h0", "h1", "h2", "h2", "h3", "h4", "h5", "h6", "h7"]
            place = {name: number for number, name in enumerate(dict.fromkeys(order))}
            rows = [[place["h0"], place[f"h{1 + row % 2}"], place[f"h{2 + row}"]] for row in range(6)]
            ids = torch.tensor(rows)
            items = Gaussian(pictures.mean[ids], pictures.log_var[ids])
            texts = embed_captions(world.model, [caption(row, 1) for row in range(6)])
            expected = measure_hierarchy(texts, items, ids, mean_root(items), num_resamples=1)
        for kind, said in (
            ("text", "root"),
            ("inclusion_official", "including item (official)"),
            ("inclusion_exact", "including item (exact)"),
            ("both_official", "root and including item (official)"),
            ("both_exact", "root and including item (exact)"),
        ):
            for figure in ("precision", "recall", "any_found"):
                metric = f"{figure.replace('_', ' ')}, to the {said}"
                assert values[metric] == pytest.approx(expected[f"{kind}_{figure}"]), (suite, metric)
        for level in range(3):
            metric = f"lies in its level {level} (0 is the most general)"
            assert values[metric] == pytest.approx(expected[f"include_{level}"])


def test_levels_are_ordered_by_hand() -> None:
    """Four chains of three levels: one falls throughout, one rises, one stays once, one falls and rises."""
    totals = torch.tensor([[4.0, 2.0, 1.0], [1.0, 2.0, 4.0], [4.0, 4.0, 1.0], [4.0, 1.0, 2.0]])
    items = Gaussian(torch.zeros(4, 3, 2), (totals / 2).log()[..., None].expand(4, 3, 2))
    queries = Gaussian(torch.zeros(4, 2), torch.full((4, 2), 0.5).log())  # of total variance 1
    walked: Any = SimpleNamespace(queries=queries, items=items)
    found = {row.metric: row for row in level_rows("set", walked)}
    assert found["uncertainty falls at every level"].items == [1.0, 0.0, 0.0, 0.0]
    # Among means that are equal the wider one includes; equally wide ones do not include each other.
    assert found["lies in its level 0 (0 is the most general)"].items == [1.0, 0.0, 1.0, 1.0]
    assert found["lies in its level 2 (0 is the most general)"].items == [0.0, 1.0, 0.0, 1.0]
    general = torch.tensor([[2.0, 1.0, 0.0]]).expand(4, 3)
    ranks = torch.corrcoef(torch.stack([mean_ranks(totals.flatten()), mean_ranks(general.flatten())]))
    assert found["rank correlation of uncertainty with generality"].value == pytest.approx(float(ranks[0, 1]))


def test_both_suites_may_write_into_one_folder(world: World) -> None:
    """Each has its own pictures of the folder, in a shard of its own."""
    alone = world.values(world.run("hierarimgs", "--data", str(world.hierarchies)), world.ours)
    out = world.root / "shared"
    for suite in ("hierarcaps", "hierarimgs"):
        words = ["--checkpoint", world.ours, "--data", str(world.hierarchies), "--num_resamples", "0"]
        assert main(["eval", suite, *words, "--out", str(out)]) == 0
    assert world.values(json.loads((out / "results.json").read_text()), world.ours) == alone


# ---- COCO -----------------------------------------------------------------------------------------------------------


def test_cocos_figures_as_rows() -> None:
    shares = torch.tensor([1.0, 0.0, 1.0, 1.0], dtype=torch.float64)
    whole = coco_row("coco_5k_image_to_text_R@1", Shares(shares, None), "mean")
    assert (whole.task, whole.metric, whole.value, whole.main) == ("COCO 5K", "picture to caption R@1", 0.75, True)
    assert (whole.items, whole.num_items) == (shares.tolist(), 4)
    # The mean of the folds' means.
    folds = coco_row("coco_1k_text_to_image_R@5", Shares(shares, torch.tensor([0, 0, 1, 1])), "mean")
    assert (folds.task, folds.metric, folds.value, folds.main) == ("COCO 1K", "caption to picture R@5", 0.75, False)
    uneven = coco_row("coco_1k_text_to_image_R@5", Shares(shares, torch.tensor([0, 0, 0, 1])), "csd")
    assert uneven.value == pytest.approx((2 / 3 + 1) / 2)
    assert uneven.metric == "caption to picture R@5, by sampled distance"
    for score, judged in (("mean", True), ("csd", False)):
        row = coco_row("eccv_text_to_image_map_at_r", Shares(shares, None), score)  # type: ignore[arg-type]
        assert (row.task, row.metric.split(",")[0], row.main) == ("ECCV Caption", "caption to picture mAP@R", judged)


# ---- ImageNet -------------------------------------------------------------------------------------------------------


def test_the_certain_half_of_the_prompts_and_the_gains(imagenet: Imagenet) -> None:
    pictures, prompts = (
        pictures_of(imagenet, "imagenet1k"),
        prompts_of(imagenet.model, ["animals", "nature", "food", "travel"]),
    )
    half, even = filter_prompts(prompts, SmallestInClass(count=2)), aggregate_prompts(prompts)
    method = "the more certain half of the prompts"
    for suffix, with_var in (("", False), (", with class variances", True)):
        value = share(pictures, half, with_var=with_var)
        assert imagenet.value("ImageNet", f"accuracy, {method}{suffix}") == value
        gain = value - share(pictures, even, with_var=with_var)
        assert imagenet.value("ImageNet", f"gain of {method} over even prompts{suffix}") == pytest.approx(gain)
    weights = reweight_prompts(prompts, pictures.images, RULE, labels=pictures.labels).as_classifier()
    others = torch.arange(len(pictures.labels)) >= 8
    metric = "BPRW, few-shot"
    few = share(pictures, weights, with_var=True, rows=others)
    assert imagenet.value("ImageNet", f"accuracy, {metric}, with class variances") == few
    gain = few - share(pictures, even, with_var=True, rows=others)
    found = imagenet.value("ImageNet", f"gain of {metric} over even prompts, with class variances")
    assert found == pytest.approx(gain)


def test_re_weighting_is_set_as_published() -> None:
    """5-1-10-10-0.02-inverse for the nearest pictures, 2-1-5-20-0.02-inverse for a few labelled ones (SPEC §5)."""
    options = ImagenetOptions(checkpoint=("x",), data=("y",))
    for rule, expected in ((options.nearest, (5.0, 10, 10)), (options.few_shot, (2.0, 5, 20))):
        assert (rule.alpha, rule.num_neighbors, rule.num_draws) == expected
        assert (rule.var_multiplier, rule.var_floor, rule.prior) == (1.0, 0.02, "inverse_var")
        assert (rule.tolerance, rule.max_rounds, rule.observations) == (1e-12, 1000, "draws")


def test_only_a_set_smaller_than_the_published_one_is_said_to_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = {"MNIST": 9_999, "Flickr": 999, "WinoGAViL": 100}

    def run_task(_: object, task: Task, *__: object) -> TaskResult:
        # Beside the main figure one of more items: of a picture's captions, of all associations.
        rows = [("main", sizes.get(task.name, task.items)), ("beside", 5 * task.items)]
        if task.metric not in {"retrieval", "associations"}:
            rows[1] = ("beside", 1)
        return TaskResult(
            rows=[
                Row(task=task.name, metric=name, value=0.5, num_items=count, main=name == "main")
                for name, count in rows
            ]
        )

    monkeypatch.setattr("prolip.suites.datacomp.run_task", run_task)
    model: Any = SimpleNamespace(name="m", fingerprint=lambda: "f", has_variances=True)
    found = run_datacomp(model, DatacompOptions(checkpoint=("m",), data=("y",)), TaskCache(tmp_path))
    assert found.notes == ["smaller than published: MNIST (9,999 of 10,000), Flickr (999 of 1,000)"]


def test_a_part_at_a_time_gives_the_same_answers(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the pictures nor the classes that are worked on at a time change anything."""
    draw = torch.Generator().manual_seed(0)
    images = Gaussian.point(torch.randn(23, 8, generator=draw))
    classes = Classifier(torch.randn(7, 8, generator=draw), torch.rand(7, 8, generator=draw))
    whole = classification.answer(images, classes, with_var=True)
    assert whole.best.shape == (23, 5)
    logits = zero_shot_logits(images.mean, classes.weight, classes.total_var)
    assert whole.best_with_var is not None
    assert whole.best_with_var.equal(logits.argsort(dim=1, descending=True)[:, :5])
    templates = ["a picture of {c}", "{c}", "an emoji: {c}"]
    built = classification.build_classifier(world.model, WORDS, templates)
    monkeypatch.setattr(classification, "_ROWS", 5)
    monkeypatch.setattr(classification, "_TEXTS", 7)  # two classes of three templates
    parts = classification.answer(images, classes, with_var=True)
    assert parts.best.equal(whole.best)
    assert parts.best_with_var is not None
    assert parts.best_with_var.equal(whole.best_with_var)
    for ours, theirs in zip(classification.build_classifier(world.model, WORDS, templates), built, strict=True):
        torch.testing.assert_close(ours, theirs)
