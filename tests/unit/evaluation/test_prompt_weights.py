"""Weights of prompts in `prolip eval zero_shot` against the functions behind them, on a small ImageNet and a shift."""

import random
import sys

import pytest
import torch
from tests.support.captioned_world import evaluate
from tests.support.datacomp_sets import encoded_image, write_lists, write_shards
from tests.support.suite_results import values
from tests.support.untrained_run import write_run

import prolip
from prolip.datasets.imagenet_prompts import imagenet_classnames, imagenet_templates, named_templates
from prolip.errors import UserError
from prolip.evaluation.classification import Labelled
from prolip.evaluation.config import ZeroShotOptions
from prolip.evaluation.results import RowId
from prolip.metrics.bprw import reweight_prompts
from prolip.metrics.config import BprwConfig
from prolip.metrics.prompts import encode_prompts, filter_prompts, smallest, unweighted_classifiers
from prolip.metrics.zero_shot import zero_shot_logits

CLASSES = ["animals", "nature", "food", "travel"]
TEMPLATES = ["a picture of {c}", "an emoji: {c}", "{c} and travel", "{c}"]
SETS = {"whole": (CLASSES, 6), "shift": (["travel", "nature"], 5), "renamed": (["food", "a nature"], 5)}
RULE = BprwConfig(alpha=2.0, num_neighbors=2, num_draws=3)
FEW = ["--few_shot.num_draws", "3", "--few_shot.num_neighbors", "2"]


class World:
    """Sets with some of the classes, and a model."""

    def __init__(self, root):
        self.root = root
        for name, (classnames, each) in SETS.items():
            draw, folder = random.Random(name), root / name
            write_lists(folder, classnames, TEMPLATES)
            samples = [
                [(f"{place:03}.png", encoded_image(draw)), (f"{place:03}.cls", str(place % len(classnames)).encode())]
                for place in range(each * len(classnames))
            ]
            write_shards(folder / "test", samples)
        write_run(root / "run", root / "tokenizer.json", context_length=6)
        self.model = prolip.load(root / "run", device="cpu")

    def labelled(self, name):
        images = self.model.encode_images([str(self.root / name / "test" / f"{number}.tar") for number in range(2)])
        return Labelled(images, torch.arange(len(images.mean)) % len(SETS[name][0]), SETS[name][0])

    def prompts(self, name):
        return encode_prompts(TEMPLATES, SETS[name][0], self.model.encode_texts)

    def evaluate(self, out, name, *words):
        given = f"--data {self.root}/{name} --bprw.num_neighbors 4 --prompt_weights".split()
        return evaluate("zero_shot", str(self.root / "run"), out, *given, *words, *FEW)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return World(tmp_path_factory.mktemp("prompts"))


def share(labelled, classifier, with_var=False, rows=slice(None)):
    var = classifier.total_var if with_var else None
    logits = zero_shot_logits(labelled.images.mean, classifier.weight, var, logit_scale=1.0)
    return float((logits.argmax(dim=1) == labelled.labels)[rows].double().mean())


@pytest.mark.parametrize("name", ["whole", "shift"])
def test_each_methods_accuracy_equals_its_functions(name, world, tmp_path):
    found = world.evaluate(tmp_path, name, "filters", "bprw", "--filters.by_ranking", "1")
    shares, labelled, prompts = values(found), world.labelled(name), world.prompts(name)
    methods = unweighted_classifiers(prompts)
    methods[""] = methods.pop("even weights")
    methods["by_ranking 1"] = filter_prompts(prompts, smallest(prompts.total_var, 1))
    methods["bprw"] = reweight_prompts(prompts, labelled.images, BprwConfig(num_neighbors=4)).as_classifier()
    for measure, with_var in (("accuracy", False), ("accuracy_with_variances", True)):
        even = share(labelled, methods[""], with_var)
        for method, classifier in methods.items():
            value = share(labelled, classifier, with_var)
            assert shares[RowId(measure, by=method)] == value
            assert shares.get(RowId(measure, by=method, minus=""), 0) == pytest.approx(value - even)
    assert "weight of each prompt" in [chart["title"] for charts in found["charts"].values() for chart in charts]


def test_the_sets_own_voters_are_left_out_of_one_of_two_accuracies(world, tmp_path):
    shares = values(world.evaluate(tmp_path, "whole", "few_shot"))
    labelled, prompts = world.labelled("whole"), world.prompts("whole")
    weights = reweight_prompts(prompts, labelled.images, RULE, labels=labelled.labels).as_classifier()
    even = unweighted_classifiers(prompts)["even weights"]
    others = torch.arange(len(labelled.labels)) >= 2 * len(CLASSES)  # the first two of each class vote
    few, before = (share(labelled, one, rows=others) for one in (weights, even))
    assert shares[RowId("accuracy", by="few_shot")] == few
    assert shares[RowId("accuracy", by="few_shot", minus="even_without_voters")] == pytest.approx(few - before)
    assert shares[RowId("accuracy", by="few_shot_with_voters")] == share(labelled, weights)


def test_a_set_of_fewer_classes_takes_its_few_shots_from_another(world, tmp_path):
    words = ["few_shot", "--voters", str(world.root / "whole")]
    found = world.evaluate(tmp_path / "shift", "shift", *words)
    voters, labelled = world.labelled("whole"), world.labelled("shift")
    labels = torch.tensor([-1, 1, -1, 0])[voters.labels]  # travel, nature
    weights = reweight_prompts(world.prompts("shift"), voters.images, RULE, labels=labels).as_classifier()
    assert values(found)[RowId("accuracy", by="few_shot")] == share(labelled, weights)
    found = world.evaluate(tmp_path / "renamed", "renamed", *words)
    assert RowId("accuracy", by="few_shot") not in values(found)
    ((note,),) = found["notes"].values()
    assert "voters" in note, "they lack a class"


def test_the_settings_are_the_published_ones():
    """5-1-10-10-0.02-inverse for nearest images, 2-1-5-20-0.02-inverse for labelled ones (specification, section 5)."""
    options = ZeroShotOptions(checkpoint=("x",), data=("y",))
    for rule, expected in ((options.bprw, (5.0, 10, 10)), (options.few_shot, (2.0, 5, 20))):
        assert (rule.alpha, rule.num_neighbors, rule.num_draws) == expected
        assert (rule.var_multiplier, rule.var_floor, rule.prior) == (1.0, 0.02, "inverse_var")
        assert (rule.tolerance, rule.max_rounds, rule.observations) == (1e-12, 1000, "draws")


def test_imagenets_names_and_templates_have_open_clips_counts(monkeypatch):
    assert len(imagenet_classnames()) == 1000
    assert [len(named_templates([name])) for name in ("imagenet", "imagenet_simple", "{}")] == [80, 7, 1]
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(UserError):
        imagenet_templates()
