"""Retrieval, HierarCaps, HierarImgs and uncertainty as suites, against the functions behind them, on small data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.unit.eval.sample_pairs import COUNT, WORDS, caption, write_hierarchies, write_pairs
from tests.unit.eval.sample_tasks import write_open_clip
from tests.unit.sample_run import write_run

from prolip.cli import main
from prolip.data import DataError
from prolip.data.samples import values_at
from prolip.embeddings.embed import embed_captions, embed_shards
from prolip.eval.coco import CocoTruth, Pairs
from prolip.eval.hierarchy import string_ids
from prolip.eval.measures import measure_hierarchy, measure_retrieval
from prolip.eval.uncertainty import area_under_risk_coverage, uncertainty_bins
from prolip.gaussian import Gaussian
from prolip.pretrained.eval_model import EvalModel
from prolip.pretrained.open import open_eval_model
from prolip.suites.caption_sets import caption_members, captions_of, open_captioned
from prolip.suites.config import UncertaintyOptions
from prolip.suites.csv_datasets import read_levels
from prolip.suites.uncertainty import blurred, shortened, thinned


class World:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.pairs, self.hierarchies = root / "wds_pairs_test", root / "hierarchies"
        write_pairs(self.pairs)
        write_hierarchies(self.hierarchies)
        write_run(root / "run", root / "tokenizer.json", context_length=8)
        self.ours, self.theirs = str(root / "run"), write_open_clip(root / "clip")
        self.model = open_eval_model(self.ours, None, torch.device("cpu"))

    def run(self, suite: str, *words: str, models: list[str] | None = None) -> dict[str, Any]:
        """The figures of our model and of open_clip's, by task and metric."""
        out = self.root / suite
        names = models if models is not None else [self.ours, self.theirs]
        given = [word for name in names for word in ("--checkpoint", name)]
        assert main(["eval", suite, *given, "--out", str(out), "--num_resamples", "10", *words]) == 0
        found: dict[str, Any] = json.loads((out / "results.json").read_text())
        assert (out / "results.md").read_text()
        assert "</html>" in (out / "results.html").read_text()
        return found

    def values(self, found: dict[str, Any], name: str) -> dict[str, float]:
        return {row["metric"]: row["value"][name] for row in found["figures"] if row["value"].get(name) is not None}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("pairs"))


def embedded(model: EvalModel, folder: Path) -> tuple[Gaussian, Gaussian, torch.Tensor]:
    images = embed_shards(model, open_captioned(str(folder), folder).shards).gaussian
    texts = embed_captions(model, [caption(number, place) for number in range(COUNT) for place in range(3)])
    return images, texts, torch.arange(COUNT).repeat_interleave(3)


def test_retrieval_gives_the_measures_figures_for_both_kinds_of_model(world: World) -> None:
    found = world.run("retrieval", "--data", str(world.pairs))
    for name in (world.ours, world.theirs):
        values = world.values(found, name)
        model = open_eval_model(name, None, torch.device("cpu"))
        expected = measure_retrieval(*embedded(model, world.pairs))
        assert values["picture to caption R@5"] == pytest.approx(expected["image_to_text_mean_recall_at_5"])
        assert values["caption to picture R@1"] == pytest.approx(expected["text_to_image_mean_recall_at_1"])
        at_one = [values["picture to caption R@1"], values["caption to picture R@1"]]
        if name == world.ours:
            by_distance = values["caption to picture R@10, by sampled distance"]
            assert by_distance == pytest.approx(expected["text_to_image_csd_recall_at_10"])
            at_one += [values[f"{way} R@1, by sampled distance"] for way in WAYS]
        assert values["mean recall@1"] == pytest.approx(sum(at_one[:2]) / 2)
    assert any("no variances" in note for notes in found["notes"].values() for note in notes)


WAYS = ("picture to caption", "caption to picture")


def test_cocos_ids_bring_cocos_figures(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    to_text = {100 + number: [1000 + 3 * number + place for place in range(3)] for number in range(COUNT)}
    to_image = {text: [image] for image, texts in to_text.items() for text in texts}
    pairs = Pairs(to_text, to_image)
    truth = CocoTruth(pairs, pairs, pairs, list(to_image))
    monkeypatch.setattr("prolip.suites.retrieval.load_truth", lambda: truth)
    keys = ["--caption_key", "sentences.raw", "--image_id_key", "cocoid", "--caption_ids_key", "sentids"]
    found = world.run("retrieval", "--data", str(world.pairs), *keys, models=[world.ours])
    tasks = {(row["task"], row["metric"]): row["value"][world.ours] for row in found["figures"]}
    for way in WAYS:
        for k in (1, 5, 10):
            own = tasks[world.pairs.name, f"{way} R@{k}, by sampled distance"]
            assert tasks["COCO 5K", f"{way} R@{k}, by sampled distance"] == pytest.approx(own)
        assert 0 <= tasks["ECCV Caption", f"{way} mAP@R"] <= 1
    with pytest.raises(SystemExit, match="2"):
        raise SystemExit(main(["eval", "retrieval", "--checkpoint", "x", "--data", "y", "--image_id_key", "cocoid"]))


def test_a_walk_gives_the_measures_figures(world: World) -> None:
    found = world.run("hierarcaps", "--data", str(world.hierarchies))
    values = world.values(found, world.ours)
    levels, _ = read_levels(world.hierarchies / "table.csv", "captions", "image_url")
    flat = embed_captions(world.model, [text for row in levels for text in row])
    captions = Gaussian(flat.mean.view(6, 3, -1), flat.log_var.view(6, 3, -1))
    made = open_captioned(str(next((world.root / "hierarcaps" / "data").glob("*.tar"))), world.root)
    images = embed_shards(world.model, made.shards).gaussian
    expected = measure_hierarchy(
        images, captions, string_ids(levels), embed_captions(world.model, [""]).mean[0], num_resamples=1
    )
    for figure in ("precision", "recall"):
        assert values[f"{figure}, to the root"] == pytest.approx(expected[f"text_{figure}"])
        for form in ("official", "exact"):
            metric = f"{figure}, to the including item ({form})"
            assert values[metric] == pytest.approx(expected[f"inclusion_{form}_{figure}"])
    assert values["lies in its level 0 (0 is the most general)"] == pytest.approx(expected["include_0"])
    assert values["uncertainty falls at every level"] == pytest.approx(expected["level_share_ordered"])
    metric = "rank correlation of uncertainty with generality"
    assert values[metric] == pytest.approx(expected["level_spearman"])
    assert "precision, to the root" in world.values(found, world.theirs)
    assert metric not in world.values(found, world.theirs)


def test_pictures_are_walked_through_as_well(world: World) -> None:
    pictures, captions = read_levels(world.hierarchies / "table.csv", "images", "caption")
    assert pictures[3] == ["h0.png", "h2.png", "h5.png"]
    assert captions[3] == caption(3, 1)
    values = world.values(world.run("hierarimgs", "--data", str(world.hierarchies)), world.ours)
    assert 0 < values["recall, to the root"] <= 1
    assert 0 <= values["lies in its level 2 (0 is the most general)"] <= 1


def test_uncertainty_against_accuracy_length_and_what_is_taken_away(world: World) -> None:
    words = ["--data", str(world.pairs), "--caption_key", "txt", "--num_bins", "3"]
    found = world.run("uncertainty", *words, models=[world.ours])
    values = world.values(found, world.ours)
    images, texts, _ = embedded(world.model, world.pairs)
    assert values["mean uncertainty of pictures"] == pytest.approx(float(images.total_var.mean()), rel=1e-5)
    assert values["mean uncertainty of captions"] == pytest.approx(float(texts.total_var.mean()), rel=1e-5)
    hits = torch.tensor(world_hits(world, images))
    assert values["accuracy"] == pytest.approx(float(hits.mean()))
    expected = uncertainty_bins(images.total_var.double(), hits, 3)
    pearson = values.get("correlation of accuracy with uncertainty, over bins")
    assert pearson == pytest.approx(expected.pearson, nan_ok=True) if pearson is not None else expected.pearson != 0
    area = area_under_risk_coverage(images.total_var.double(), hits)
    assert values["area under risk and coverage"] == pytest.approx(area)
    for view in ("blurred", "75% of its patches hidden"):
        assert 0 <= values[f"a picture is more uncertain {view}"] <= 1
    cut = [shortened(caption(number, place)) for number in range(COUNT) for place in range(3)]
    long = torch.tensor([len(caption(n, p).split()) >= 4 for n in range(COUNT) for p in range(3)])
    more = embed_captions(world.model, cut).total_var > texts.total_var
    assert values["a caption is more uncertain cut to its first half"] == pytest.approx(
        float(more[long].double().mean())
    )
    assert "Accuracy by uncertainty" in (world.root / "uncertainty" / "results.html").read_text()
    (note,) = found["notes"][world.ours]
    order = images.total_var.argsort(stable=True).tolist()
    assert f"most certain are p{order[0]:03}," in note
    assert f"least certain p{order[-1]:03}," in note


def world_hits(world: World, images: Gaussian) -> list[float]:
    weights = []
    for name in WORDS[:4]:
        prompts = embed_captions(world.model, [f"a picture of {name}", name]).mean.mean(dim=0)
        weights.append(prompts / prompts.norm())
    best = (images.mean @ torch.stack(weights).T).argmax(dim=1)
    return [float(place == number % 4) for number, place in enumerate(best.tolist())]


def test_a_model_without_variances_is_refused(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["eval", "uncertainty", "--checkpoint", world.theirs, "--data", str(world.pairs)]
    assert main([*words, "--out", str(world.root / "refused")]) == 2
    assert "has no variances" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("suite", "words", "message"),
    [
        ("retrieval", ["--data", "absent"], "absent"),
        ("retrieval", ["--data", "PAIRS", "--caption_key", "nothing"], "sample p000 has no caption at nothing"),
        ("hierarcaps", ["--data", "PAIRS"], "has 0 tables (.csv)"),
        ("uncertainty", ["--data", "PAIRS", "--num_bins", "40"], "do not fill 40 bins"),
    ],
)
def test_what_is_wrong_names_itself(
    suite: str, words: list[str], message: str, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(world.pairs) if word == "PAIRS" else word for word in words]
    assert main(["eval", suite, "--checkpoint", world.ours, "--out", str(world.root / "wrong"), *words]) == 2
    assert message in capsys.readouterr().err


def test_options_name_their_rule() -> None:
    for name, value in (("num_bins", 1), ("keep_ratio", 1.0), ("blur", 0.0), ("show", -1)):
        with pytest.raises(ValueError, match=name):
            UncertaintyOptions(checkpoint=("x",), data=("y",), **{name: value})  # type: ignore[arg-type]


def test_paths_lead_through_lists(world: World) -> None:
    record = {"a": [{"b": ["x", "y"]}, {"b": "z"}, {"c": 1}], "n": 3}
    assert values_at(record, "a.b") == ["x", "y", "z"]
    assert values_at(record, "n") == [3]
    assert values_at(record, "a.q") == []
    folder = open_captioned(str(world.pairs), world.root)
    keys = ("sentences.raw", "cocoid", "cocoid")
    found = embed_shards(world.model, folder.shards, keep=caption_members(*keys))
    with pytest.raises(DataError, match=r"sample p000 has .* at cocoid: it must be 3 whole numbers"):
        captions_of(folder, found, *keys)


def test_only_the_members_that_are_needed_are_kept() -> None:
    assert caption_members() == caption_members("txt", None, None) == ("txt",)
    assert caption_members("sentences.raw") == ("json",)
    assert caption_members("txt", "cocoid", "sentids") == ("txt", "json")


def test_words_are_taken_away_and_pictures_blurred() -> None:
    assert shortened("a b c d e") == "a b"
    assert thinned("a b c d e") == thinned("a b c d e")
    assert len(thinned("a b c d e").split()) == 2
    flat, spot = torch.full((1, 3, 20, 20), 0.5), torch.zeros(1, 3, 20, 20)
    torch.testing.assert_close(blurred(flat, 0.1), flat)
    spot[..., 10, 10] = 1
    assert 0 < float(blurred(spot, 0.1)[0, 0, 10, 10]) < 0.2
