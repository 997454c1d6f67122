"""ImageNet with prompts against the functions behind the suite, on small sets."""

import shutil
import sys

import pytest
import torch
from tests.support.captioned_world import evaluate
from tests.support.flags import latest
from tests.support.imagenet_world import (
    CLASSES,
    RULE,
    SETS,
    labelled_set,
    prompts_of,
    share,
    write_set,
)
from tests.support.suite_results import values

from prolip.errors import UserError
from prolip.evaluation import imagenet_classnames, imagenet_templates
from prolip.evaluation.config import ImagenetOptions
from prolip.evaluation.imagenet import voting_labels
from prolip.inference.load_model import load
from prolip.metrics.bprw import reweight_prompts
from prolip.metrics.config import BprwConfig
from prolip.metrics.prompts import filter_prompts, smallest, unweighted_classifiers
from prolip.metrics.zero_shot import aggregate_prompts


@pytest.mark.parametrize(("name", "task"), [("imagenet1k", "ImageNet"), ("imagenet-a", "ImageNet-A")])
def test_each_methods_accuracy_equals_its_functions(name, task, imagenet):
    labelled, prompts = labelled_set(imagenet, name), prompts_of(imagenet.model, SETS[name][0])
    nearest = reweight_prompts(prompts, labelled.images, BprwConfig(num_neighbors=4)).as_classifier()
    methods = unweighted_classifiers(prompts) | {"bprw": nearest}
    methods[""] = methods.pop("even weights")
    for measure, with_var in (("accuracy", False), ("accuracy_with_variances", True)):
        shares = {name: share(labelled, classifier, with_var=with_var) for name, classifier in methods.items()}
        for method, value in shares.items():
            assert imagenet.value(task, measure, by=method) == value
            if method:
                assert imagenet.value(task, measure, by=method, minus="") == pytest.approx(value - shares[""])
    assert imagenet.figure(task, "accuracy")["main"]


def test_few_shot_images_come_from_imagenet_and_are_not_scored(imagenet):
    labelled = labelled_set(imagenet, "imagenet1k")
    weights = reweight_prompts(
        prompts_of(imagenet.model, CLASSES), labelled.images, RULE, labels=labelled.labels
    ).as_classifier()
    others = torch.arange(len(labelled.labels)) >= 2 * len(CLASSES)  # the first two of each class vote
    assert imagenet.figure("ImageNet", "accuracy", by="few_shot")["num_items"] == int(others.sum()) == 16
    even = aggregate_prompts(prompts_of(imagenet.model, CLASSES))
    for measure, with_var in (("accuracy", False), ("accuracy_with_variances", True)):
        few, before = (share(labelled, one, with_var=with_var, rows=others) for one in (weights, even))
        assert imagenet.value("ImageNet", measure, by="few_shot") == few
        assert imagenet.value("ImageNet", measure, by="few_shot", minus="") == pytest.approx(few - before)
        assert imagenet.value("ImageNet", measure, by="even_without_voters") == before


def test_voters_can_be_scored_too_and_further_filters_evaluated(imagenet, tmp_path):
    words = f"--data {imagenet.data} --sets imagenet1k --score_voters --filters.by_ranking 1".split()
    words += ["--filters.by_ranking_classwise", *"1111", "--nearest.num_neighbors", "4"]
    words += ["--few_shot.num_neighbors", "2", "--few_shot.num_draws", "3"]
    found = evaluate("imagenet", imagenet.names[0], tmp_path / "out", *words)
    shares = {id.by: value for id, value in values(found).items() if (id.measure, id.minus) == ("accuracy", None)}
    mains = [row["id"]["by"] for row in found["figures"] if row["main"]]
    assert mains == ["", few := "few_shot", every := "few_shot_with_voters"]
    labelled, prompts = labelled_set(imagenet, "imagenet1k"), prompts_of(imagenet.model, CLASSES)
    weights = reweight_prompts(prompts, labelled.images, RULE, labels=labelled.labels).as_classifier()
    assert shares[every] == share(labelled, weights)
    assert shares[few] == imagenet.value("ImageNet", "accuracy", by=few)
    expected = share(labelled, filter_prompts(prompts, smallest(prompts.total_var, 1)))
    assert shares["by_ranking 1"] == shares["by_ranking_classwise"] == expected


def test_a_set_of_fewer_classes_takes_its_few_shots_from_imagenet(imagenet):
    voters, labelled = labelled_set(imagenet, "imagenet1k"), labelled_set(imagenet, "imagenet-a")
    labels = torch.tensor([-1, 1, -1, 0])[voters.labels]  # travel, nature
    options = ImagenetOptions(checkpoint=("x",), data=("y",))
    assert voting_labels(voters, labelled, options)[0].tolist() == labels.tolist()
    weights = reweight_prompts(prompts_of(imagenet.model, SETS["imagenet-a"][0]), voters.images, RULE, labels=labels)
    assert imagenet.value("ImageNet-A", "accuracy", by="few_shot") == share(labelled, weights.as_classifier())
    assert imagenet.figure("ImageNet-A", "accuracy", by="few_shot")["num_items"] == 10


def test_a_model_without_variances_has_its_accuracy(imagenet):
    clip = load(imagenet.names[1], device="cpu")
    expected = share(labelled_set(imagenet, "imagenet1k", clip), aggregate_prompts(prompts_of(clip, CLASSES)))
    assert imagenet.value("ImageNet", "accuracy", model=1) == expected


def test_notes_name_what_was_left_out(imagenet):
    ours, theirs = ("\n".join(imagenet.results["notes"][name]) for name in imagenet.names)
    assert f"not in {imagenet.data}: ImageNet-Sketch" in ours
    assert "ImageNet-R: few-shot re-weighting: voters: " in ours
    assert "ImageNet-V2: few-shot" not in ours
    assert "filters and re-weighting of prompts, accuracy with class variances: the model has no variances" in theirs
    assert {row["id"]["data"] for row in imagenet.results["figures"] if row["main"]} == {
        "ImageNet",
        "ImageNet-V2",
        "ImageNet-A",
        "ImageNet-R",
    }


def test_the_users_own_sets_and_voters_are_evaluated(tmp_path, imagenet):
    (tmp_path / "data").mkdir()
    for name, own in (("imagenet1k", "mine-trained"), ("imagenet-a", "mine-rest")):
        (tmp_path / "data" / f"wds_{own}_test").symlink_to(imagenet.data / f"wds_{name}_test")
    words = f"--data {tmp_path}/data --sets mine-rest mine-trained --voters mine-trained".split()
    words += ["--few_shot.num_draws", "3", "--few_shot.num_neighbors", "2", "--nearest.num_neighbors", "4"]
    own = "even_without_voters"
    found = evaluate("imagenet", imagenet.names[0], tmp_path / "out", *words)
    for name, published in (("mine-rest", "ImageNet-A"), ("mine-trained", "ImageNet")):
        assert values(found, data=name) == values(imagenet.results, data=published)
    assert {row["id"]["data"] for row in found["figures"] if row["id"]["by"] == own} == {"mine-trained"}
    words = latest([*words, "--voters", "mine-rest"])
    found = evaluate("imagenet", imagenet.names[0], tmp_path / "out", *words)["figures"]
    assert {row["id"]["data"] for row in found if row["id"]["by"] == own} == {"mine-rest"}, (
        "other voters, other results"
    )


def test_prompt_reweighting_has_the_published_settings():
    """5-1-10-10-0.02-inverse for nearest images, 2-1-5-20-0.02-inverse for labelled ones (specification, section 5)."""
    options = ImagenetOptions(checkpoint=("x",), data=("y",))
    for rule, expected in ((options.nearest, (5.0, 10, 10)), (options.few_shot, (2.0, 5, 20))):
        assert (rule.alpha, rule.num_neighbors, rule.num_draws) == expected
        assert (rule.var_multiplier, rule.var_floor, rule.prior) == (1.0, 0.02, "inverse_var")
        assert (rule.tolerance, rule.max_rounds, rule.observations) == (1e-12, 1000, "draws")


@pytest.mark.parametrize("fault", ["cut", "missing"])
def test_shifts_are_evaluated_if_imagenet_is_damaged(fault, imagenet, tmp_path):
    for name in ("imagenet1k", "imagenet-a"):
        write_set(tmp_path / "data", name)
    folder = tmp_path / "data" / "wds_imagenet1k_test"
    if fault == "cut":
        (folder / "test" / "1.tar").write_bytes((folder / "test" / "1.tar").read_bytes()[:1000])
    else:
        shutil.rmtree(folder)
    words = f"--data {tmp_path}/data --sets imagenet1k imagenet-a --nearest.num_neighbors 4".split()
    found = evaluate("imagenet", imagenet.names[0], tmp_path / "out", *words, "--templates", "simple")
    methods = {row["id"]["by"] for row in found["figures"]}
    assert {row["id"]["data"] for row in found["figures"]} == {"ImageNet-A"}
    assert "bprw" in methods
    assert "few_shot" not in methods
    first, second = found["notes"][imagenet.names[0]]
    assert "ImageNet" in first
    assert second.startswith("ImageNet-A: few-shot re-weighting: ")


def test_imagenets_names_and_templates_have_open_clips_counts(monkeypatch):
    assert len(imagenet_classnames()) == 1000
    assert (len(imagenet_templates()), len(imagenet_templates("simple"))) == (80, 7)
    monkeypatch.setitem(sys.modules, "open_clip", None)
    assert imagenet_templates("single") == ["A photo of {}"]
    with pytest.raises(UserError):
        imagenet_classnames()
