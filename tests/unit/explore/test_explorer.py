"""What the page of `prolip explore` asks the model."""

import dataclasses
import itertools
import json
import math
import re
import shutil

import pytest
import torch
from tests.support.class_folders import LABELS, write_calibrated_world
from tests.support.explore_items import write_items
from tests.support.refusals import refusal_of
from tests.support.shards import write_tar

from prolip.build.config import FolderConfig
from prolip.build.folder import build_folder
from prolip.calibration.calibration import Subject
from prolip.calibration.search import KnownQueries, SearchCalibration, save_search_calibration
from prolip.data import DataError, StoreConfig
from prolip.data.class_names import class_text
from prolip.datasets.data_set import open_classes
from prolip.embeddings.config import EmbedOptions, SearchOptions
from prolip.embeddings.embed import run_embed
from prolip.embeddings.search import run_search
from prolip.evaluation.calibrate import calibrate
from prolip.evaluation.config import CalibrateOptions
from prolip.explore.answer import Bar
from prolip.explore.config import ExploreOptions
from prolip.explore.explorer import MAX_PROMPTS, NO_CAPTION, PER_PAGE, Explorer
from prolip.explore.samples import Item, read_items
from prolip.gaussian import Gaussian, csd, csd_logits, inclusion_score
from prolip.inference.classify import Decide
from prolip.inference.load_model import load
from prolip.metrics.bprw import reweight_prompts
from prolip.metrics.config import BprwConfig

CAPTIONS = ["a picture", "an animal", "food and travel"]
TEMPLATES = ["{}", "a picture of {}", "an emoji of {}"]
DECIDE = Decide(guarantee=0.9, max_error=0.5)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("explore")
    write_calibrated_world(root)
    write_items(root)
    return root


@pytest.fixture(scope="module")
def explorer(root):
    options = ExploreOptions(checkpoint="", shards=(str(root),), caption_key=("captions.name", "captions.group"))
    return Explorer(load(root / "run", device="cpu"), read_items(options))


@pytest.fixture(scope="module")
def calibrated(root, explorer):
    """Of a model with its calibration, and an image of each label."""
    options = CalibrateOptions(checkpoint="", data=str(root / "mine"), out=root / "unused")
    made = calibrate(explorer.model, open_classes(options.data, StoreConfig(), ()), options)
    items = [Item(label, (root / "mine" / label / "007.png").read_bytes(), (label,)) for label in LABELS]
    return Explorer(dataclasses.replace(explorer.model, calibration=made.calibration), items)


def texts(answer, name):
    """The cells of a column, as texts."""
    (column,) = [column for column in answer.columns if column.name == name]
    found = [cell.text if isinstance(cell, Bar) else cell for cell in column.cells]
    return [text.replace("\N{NO-BREAK SPACE}", " ").replace("−", "-") for text in found]


def numbers(answer, name):
    return [float(text.split()[0]) for text in texts(answer, name)]


def test_items_are_the_test_set_of_a_folder_in_order_and_limited(root, explorer):
    assert [item.name for item in explorer.items] == [f"test-000/{number:03}" for number in range(12)]
    assert explorer.items[3].captions == ("a 3", "an animal")
    items = read_items(ExploreOptions(checkpoint="", shards=(str(root / "*.tar"),), max_items=14))
    assert [item.name.split("/")[0] for item in items] == ["test-000"] * 12 + ["train-000"] * 2
    assert items[0].captions == ()


def test_each_class_of_a_folder_has_its_turn_also_in_shards_built_from_it(root, tmp_path):
    images = tmp_path / "t-shirt"
    images.mkdir()
    for name in ("a.png", "b.png"):
        shutil.copy(root / "mine" / "food" / "007.png", images / name)
    (images / "b.txt").write_text("mine\n")
    items = read_items(ExploreOptions(checkpoint="", images=(root / "mine", tmp_path), max_items=6))
    assert [item.label for item in items] == [*LABELS, class_text("t-shirt"), *LABELS[:2]]
    assert [item.name for item in items[2:4]] == ["travel/000.png", "t-shirt/a.png"]
    build_folder(FolderConfig(images=tmp_path, seed=1), root / "built")
    options = ExploreOptions(checkpoint="", shards=(str(root / "built"),), images=(tmp_path,))
    of_both = sorted((item.name, item.label) for item in read_items(options))
    assert of_both == sorted([(f"t-shirt/{name}.png", class_text("t-shirt")) for name in "ab"] * 2)
    captions = {item.name: item.captions for item in read_items(dataclasses.replace(options, shards=()))}
    assert captions == {"t-shirt/a.png": (class_text("t-shirt"),), "t-shirt/b.png": ("mine",)}


def test_captions_compared_with_an_image_are_sorted_by_distance(explorer):
    found = explorer.compare(explorer.items[5].image, [*CAPTIONS, " an animal ", ""])
    assert sorted(found.names) == sorted(CAPTIONS)
    distances = numbers(found, "sampled distance")
    assert distances == sorted(distances)
    model = explorer.model
    image, text = model.encode_images(explorer.items[5].image), model.encode_texts(found.names)
    assert distances == pytest.approx(csd(image, text)[0].tolist(), abs=6e-4)
    assert numbers(found, "similarity") == pytest.approx((image.mean @ text.mean.T)[0].tolist(), abs=6e-4)
    assert numbers(found, "uncertainty") == pytest.approx(text.total_var.tolist(), rel=1e-3)
    assert numbers(found, "inclusion H") == pytest.approx(inclusion_score(image, text).mean(1).tolist(), rel=0.01)
    assert model.logit_bias is not None
    match = csd_logits(image, text, model.logit_scale, model.logit_bias).sigmoid()[0] * 100
    assert numbers(found, "match") == pytest.approx(match.tolist(), abs=0.06)
    ranked = [item.title for item in explorer.items]
    place = explorer.browse("images", False, 1).names.index(ranked[5])
    assert f"; {100 * place / 12:.0f}\N{NO-BREAK SPACE}% of the data set's images are more certain" in found.text


def test_two_captions_are_compared_symmetrically(explorer):
    pair, other = explorer.pair("an animal", "food and travel"), explorer.pair("food and travel", "an animal")
    assert texts(pair, "uncertainty") == texts(other, "uncertainty")[::-1]
    assert numbers(pair, "inclusion H") == pytest.approx([-one for one in numbers(pair, "inclusion H")[::-1]])
    assert texts(pair, "length") == ["2 tokens", "3 tokens"]
    assert "Neither lies in the other. Similarity of the means: +1.000" in explorer.pair("food", "food").text


def test_a_walk_starts_at_the_nearest_caption_and_covers_the_whole_way(explorer):
    image = explorer.items[0].image
    found = explorer.walk(image, [], " a picture ")
    mean, all_texts = explorer.model.encode_images(image).mean, explorer.model.encode_texts(explorer.all_captions)
    assert found.names[0] == explorer.all_captions[int((mean @ all_texts.mean.T).argmax())]
    places = texts(found, "part of the way")
    assert places[0].startswith("0–")
    assert (found.names[-1], places[-1]) == ("a picture", "the end")
    covered = sorted(tuple(map(int, re.findall(r"\d+", place))) for place in places[:-1])
    assert all(begin <= end for (_, end), (begin, _) in itertools.pairwise(covered))
    assert covered[-1][1] == 100
    assert explorer.walk(image, [], " ").names[-1] == NO_CAPTION


def test_items_and_captions_are_ranked_by_uncertainty(explorer):
    for kind, count in (("images", 12), ("captions", 13)):
        found, least = explorer.browse(kind, False, 1), explorer.browse(kind, True, 1)
        assert numbers(found, "uncertainty") == sorted(numbers(found, "uncertainty"))
        assert found.names == least.names[::-1]
        assert len(found.names) == count
    values = explorer.model.encode_texts(explorer.all_captions).total_var
    assert explorer.caption_range == (float(values.min()), float(values.max()), "of the data set's 13 captions")
    assert len(explorer.browse("images", False, 1).images) == 12


def test_a_search_gives_the_answers_of_the_command(root, explorer, tmp_path):
    save = {"embeddings": str(tmp_path / "out"), "device": "cpu", "json": True, "k": PER_PAGE, "max_wrong": 0.1}
    shard = (str(root / "test-000.tar"),)
    run_embed(EmbedOptions(checkpoint=str(root / "run"), out=save["embeddings"], shards=shard, dtype="float32"))
    model, asked = explorer.model, ("food", "an animal")
    scores = [float((model.encode_texts(one).mean @ explorer._images.mean.T).max()) for one in asked]
    wrong = torch.tensor([min(scores) - 1] * 20 + [sum(scores) / 2] * 19).double()
    known = KnownQueries(wrong - 1, wrong, torch.tensor([2.0, -1.0]).double())
    none = KnownQueries(*torch.zeros(3, 0).double())
    subject = Subject("run", model.fingerprint(), "photos", [], [])
    calibration = SearchCalibration(subject=subject, score="mean", num_images=12, text=known, image=none)
    save_search_calibration(calibration, tmp_path / "file")
    given = SearchOptions(**save, text=asked, calibration=tmp_path / "file")
    page = Explorer(dataclasses.replace(model, search_calibration=calibration), explorer.items)
    matches = []
    for one, expected in zip(asked, json.loads("\n".join(run_search(given))), strict=True):
        found = page.search(one, 0.1)
        answers = expected["answers"]
        assert [name.split("/")[-1] for name in found.names] == [answer["key"] for answer in answers]
        right = [100 * answer["probability"] for answer in answers]
        assert numbers(found, "right") == pytest.approx(right, abs=0.06)
        assert found.text.startswith("Nothing here matches") is (expected["matches"] == 0)
        matches.append(expected["matches"])
    assert sorted(matches) == [0, 12]
    bare = explorer.search("food", 0.1)
    nearest = numbers(bare, "score")
    assert nearest == sorted(nearest, reverse=True)
    assert "prolip calibrate search --checkpoint" in bare.text
    assert Explorer(model, []).search("food", 0.1).names == ()


def test_prompts_are_weighted_by_the_images_of_the_page(explorer):
    labels, image = ["animals", "food", "travel"], explorer.items[0].image
    decision, _, prompts = explorer.classify(image, labels, TEMPLATES, DECIDE)
    flat = explorer.model.encode_texts([one.replace("{}", name) for name in labels for one in TEMPLATES])
    ensembles = Gaussian(flat.mean.view(3, 3, -1), flat.log_var.view(3, 3, -1))
    assert explorer._images is not None
    weights = reweight_prompts(ensembles, explorer._images, BprwConfig(num_neighbors=10)).weights
    weights = weights[[labels.index(name) for name in decision.names]]
    ends = torch.stack([weights.amax(1), weights.amin(1)], dim=1).flatten() * 100
    assert numbers(prompts, "weight") == pytest.approx(ends.tolist(), abs=0.06)
    assert prompts.names == [name for label in decision.names for name in (label, "")]
    best = weights.argmax(1).tolist()
    assert texts(prompts, "prompt")[::2] == [
        f"prefers “{TEMPLATES[place].replace('{}', name)}”" for place, name in zip(best, decision.names, strict=True)
    ]
    shares = numbers(decision, "probability")
    assert shares == sorted(shares, reverse=True)
    weighted = explorer.model.classify(image, decision.names, templates=TEMPLATES, prompt_weights=weights)
    assert numbers(decision, "re-weighted prompts") == pytest.approx(
        (100 * weighted.probabilities[0]).tolist(), abs=0.06
    )


def test_the_page_gives_the_decisions_of_classify(calibrated):
    calibration = calibrated.model.calibration
    sizes = []
    for guarantee, max_error in ((0.8, 0.65), (0.9, 0.5), (0.99, 0.02)):
        for item in calibrated.items:
            decide = Decide(guarantee=guarantee, max_error=max_error)
            decision, kinds, _ = calibrated.classify(item.image, [*LABELS, " "], calibration.subject.templates, decide)
            expected = calibrated.model.classify(
                item.image, LABELS, guarantee=guarantee, max_error=max_error, progress=False
            )
            assert expected.usual is not None
            within = texts(decision, "label set")
            kept = [name for name, inside in zip(decision.names, within, strict=True) if inside]
            assert kept == expected.label_sets[0]
            assert (f"“{expected.answers[0]}”" in decision.text.split("Label set")[0]) is (
                expected.answers[0] is not None
            )
            threshold = calibration.abstention(max_error).threshold
            if expected.answers[0] is None and not math.isinf(threshold):
                assert f"only from {100 * threshold:.1f}" in decision.text
            assert f"images like those of {calibration.subject.data}, and for no others" in decision.text
            ranked = 100 * expected.probabilities[0].sort(descending=True).values
            assert numbers(decision, "probability") == pytest.approx(ranked.tolist(), abs=0.06)
            held = len(calibration.held.distance)
            nearer = (1 - float(expected.usual[0])) * (held + 1) / held
            assert numbers(kinds, "among known images")[1] == pytest.approx(100 * nearer, abs=0.6)
            sizes.append(len(kept))
    assert sizes[0] < sizes[-1] == len(LABELS)


def test_without_a_calibration_for_the_labels_there_is_no_guarantee(explorer, calibrated):
    image = calibrated.items[0].image
    bare, kinds, _ = explorer.classify(image, LABELS, ["{}"], DECIDE)
    assert f"prolip calibrate --checkpoint {explorer.model.name} --data FOLDER --out FILE makes one" in bare.text
    assert [column.name for column in bare.columns] == ["probability"]
    assert len(kinds.names) == 1
    for labels, templates in ((["a picture", "food"], ["{}"]), (LABELS, ["my {}"])):
        other, kinds, _ = calibrated.classify(image, labels, templates, DECIDE)
        assert "There is no guarantee" in other.text
        assert "label set" not in [column.name for column in other.columns]
        assert len(kinds.names) == 2, "the distance needs no labels"


def test_invalid_questions_name_the_field(explorer):
    image = explorer.items[0].image
    many = [str(number) for number in range(MAX_PROMPTS + 1)]
    questions = {
        "captions": [lambda: explorer.compare(image, ["", " "]), lambda: explorer.compare(image, many)],
        "captions to walk through": [lambda: Explorer(explorer.model, []).walk(image, [], "a picture")],
        "first caption": [lambda: explorer.pair("", "food")],
        "labels": [lambda: explorer.classify(image, ["food"], ["{}"], DECIDE)],
        "prompts": [lambda: explorer.classify(image, many[:65], [f"{{}} {n}" for n in range(64)], DECIDE)],
    }
    for field, asked in questions.items():
        for question in asked:
            with refusal_of(field):
                question()
    with pytest.raises(DataError):
        explorer.compare(b"no image", CAPTIONS)


def test_unreadable_images_of_a_data_set_are_skipped_and_named(explorer, caplog):
    broken = [Item(f"x/{number}", b"no image", ("a bad one",)) for number in range(3)]
    found = Explorer(explorer.model, [explorer.items[0], broken[0], *explorer.items[1:4], *broken[1:]])
    assert found.items == explorer.items[:4]
    assert found.all_captions == ["a 0", "an animal", "a 1", "a 2", "a 3"]
    assert [record.getMessage().split(" is skipped")[0] for record in caplog.records] == ["x/0", "x/1", "x/2"]
    with refusal_of("images"):
        Explorer(explorer.model, broken)


def test_samples_whose_captions_cannot_be_read_are_skipped_and_named(tmp_path, caplog):
    members = [(f"{name}.png", b"") for name in "abc"]
    write_tar(
        tmp_path / "0.tar", sorted([*members, ("a.json", b"[" * 100_000), ("b.txt", b"\xff"), ("c.txt", b"fine")])
    )
    (item,) = read_items(ExploreOptions(checkpoint="", shards=(f"{tmp_path}/0.tar",)))
    assert (item.name, item.captions) == ("0/c", ("fine",))
    assert [record.getMessage().split(": ")[1] for record in caplog.records] == ["sample 0/a", "sample 0/b"]
