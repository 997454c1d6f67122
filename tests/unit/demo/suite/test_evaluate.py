"""The emoji suite: its records, its measures on a synthetic world, and a whole run of a tiny model."""

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tests.support.untrained_run import write_run_with, write_words

import prolip
from prolip.cli import main
from prolip.data import BatchLoader, LoaderConfig
from prolip.data.tokenizer import Tokenizer
from prolip.demo.suite import EmojiResults, evaluate_emoji
from prolip.demo.suite.emoji_samples import CaptionBook, ImageSet, codes, evenly_spaced, is_chained, parse_sample
from prolip.demo.suite.evaluate import set_names
from prolip.demo.suite.measure_sets import blurred, correct_pairs, hidden_patches, zoomed
from prolip.embeddings.embed import decode_images, embed_captions, embed_images, embed_pixels, embed_shards
from prolip.models import ARCHITECTURES, ProLIP

MakeRecord = Callable[[int, str], dict[str, object]]
CPU = torch.device("cpu")
CONTEXT, VOCABULARY = 20, 64


class WordTokenizer(Tokenizer):
    """Words by the sum of their letters: enough to tell captions apart."""

    def __init__(self) -> None:
        pass

    def encode(self, captions: list[str]) -> NDArray[np.int32]:  # type: ignore[override]
        ids = np.zeros((len(captions), CONTEXT), dtype=np.int32)
        for row, caption in enumerate(captions):
            words = [1 + sum(map(ord, word)) % (VOCABULARY - 1) for word in caption.split()][:CONTEXT]
            ids[row, : len(words)] = words
        return ids

    @property
    def pad_id(self) -> int:
        return 0


@pytest.fixture(scope="module")
def model() -> ProLIP:
    config = ARCHITECTURES["demo"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return ProLIP(
            dataclasses.replace(
                config,
                embed_dim=32,
                vision=dataclasses.replace(config.vision, width=32, head_width=16, layers=1),
                text=dataclasses.replace(config.text, width=32, heads=2, layers=1, vocab_size=VOCABULARY),
            )
        )


def test_parse_sample_reads_the_record(make_record: MakeRecord) -> None:
    sample = parse_sample("k", json.dumps(make_record(4, "test-goog")))
    assert (sample.key, sample.group, sample.image_id) == ("k", "food-and-drink", "test-goog-4")
    assert [is_chained(sample, t) for t in range(2)] == [False, True]


@pytest.mark.parametrize("field", ["codepoint", "group", "captions", "picture"])
def test_parse_sample_names_what_is_missing(make_record: MakeRecord, field: str) -> None:
    broken = {key: value for key, value in make_record(0, "test-goog").items() if key != field}
    with pytest.raises(ValueError, match=f"sample k: its json has no field '{field}'"):
        parse_sample("k", json.dumps(broken))


def test_levels_must_have_the_same_templates(make_record: MakeRecord) -> None:
    broken = make_record(0, "test-goog")
    broken["captions"] = {"picture": ["a"], "group": ["b"], "subgroup": ["c"], "name": ["d", "e"]}
    with pytest.raises(ValueError, match="different numbers of captions"):
        parse_sample("k", json.dumps(broken))


def test_a_name_with_commas_is_not_a_chain(make_record: MakeRecord) -> None:
    sample = parse_sample("k", json.dumps(make_record(0, "test-goog")))
    named = dataclasses.replace(
        sample,
        name="family: man, boy",
        captions=sample.captions | {"name": ["family: man, boy", "family: man, boy, a, b"]},
    )
    assert [is_chained(named, t) for t in range(2)] == [False, True]


def test_caption_book_keeps_each_caption_once() -> None:
    book = CaptionBook()
    book.add(["a", "b", "a"])
    book.add(["c", "b"])
    assert book.texts == ["a", "b", "c"]
    assert book.places(["c", "a", "c"]).tolist() == [2, 0, 2]
    assert codes(["x", "y", "x"]).tolist() == [0, 1, 0]


def test_correct_pairs_include_equal_images_and_equal_captions(emoji_sets: list[ImageSet]) -> None:
    first, second, third, fourth = emoji_sets[0].samples[:4]
    second = dataclasses.replace(second, image_id=first.image_id)
    fourth = dataclasses.replace(fourth, captions=third.captions)
    assert correct_pairs([first, second, third, fourth]).int().tolist() == [
        [1, 1, 0, 0],
        [1, 1, 0, 0],
        [0, 0, 1, 1],
        [0, 0, 1, 1],
    ]


def test_hidden_patches_are_sorted_distinct_and_repeatable() -> None:
    kept = hidden_patches(50, 36, 0.25)
    assert kept.shape == (50, 9)
    assert (kept[:, 1:] > kept[:, :-1]).all()
    assert int(kept.max()) < 36
    assert torch.equal(kept, hidden_patches(50, 36, 0.25))
    assert hidden_patches(2, 36, 0.001).shape == (2, 1)


def test_views_keep_the_image_size_and_change_the_pixels() -> None:
    image = torch.zeros(1, 3, 36, 36)
    image[..., 9:27, 9:27] = 1.0
    assert zoomed(image).eq(1.0).all()
    soft = blurred(image)
    assert soft.shape == image.shape
    assert float(soft[0, 0, 18, 18]) == pytest.approx(1.0)
    assert 0 < float(soft[0, 0, 9, 18]) < 1
    assert blurred(torch.ones(1, 3, 36, 36)).sub(1).abs().max() < 1e-6


@pytest.mark.parametrize(("length", "count"), [(5, 12), (12, 12), (100, 8), (0, 3)])
def test_evenly_spaced_places_are_distinct(length: int, count: int) -> None:
    places = evenly_spaced(length, count)
    assert len(set(places)) == len(places) == min(length, count)
    assert all(0 <= place < length for place in places)


def test_a_good_model_beats_an_untrained_one(emoji_results: EmojiResults) -> None:
    by_name = {headline.name: headline for headline in emoji_results.headlines}
    classes = ["group", "group_with_prior", "subgroup", "subgroup_with_prior"]
    assert list(by_name) == [*classes, "recall_at_10", "order_unseen", "order_seen"]
    assert by_name["group_with_prior"].trained > 0.9 > by_name["group_with_prior"].random
    assert by_name["group"].trained > 0.9 > by_name["group"].random
    assert by_name["group"].chance == pytest.approx(1 / 3)
    assert by_name["recall_at_10"].chance == pytest.approx(10 / 120)
    assert by_name["order_unseen"].trained > 0.9
    unseen, seen = emoji_results.random.unseen_names.pairs[0].share, emoji_results.random.seen_names.pairs[0].share
    assert by_name["order_unseen"].random == unseen != seen == by_name["order_seen"].random


def test_the_inclusion_chain_runs_from_the_image_to_the_most_general_caption(emoji_results: EmojiResults) -> None:
    for figures in emoji_results.trained.sets:
        steps = [(step.specific, step.general) for step in figures.inclusion_chain]
        assert steps == [("image", "name"), ("name", "subgroup"), ("subgroup", "group"), ("group", "picture")]
        assert [step.specific for step in figures.picture_inclusion] == ["image"] * 4


def test_levels_are_compared_within_a_template(emoji_results: EmojiResults) -> None:
    levels = emoji_results.trained.unseen_names
    assert levels.num_emoji == 36
    assert levels.mean_tokens == sorted(levels.mean_tokens)
    pair = levels.pairs[0]
    assert (pair.general, pair.specific) == ("group", "name")
    assert pair.share == pytest.approx((pair.share_plain + pair.share_chained) / 2)
    # A made-up name has four words, a group three: no name is as short as its group.
    assert pair.num_not_longer == 0
    assert math.isnan(pair.share_not_longer)


def test_sets_with_too_few_images_have_no_bins(emoji_results: EmojiResults) -> None:
    assert [figures.group_bins is None for figures in emoji_results.trained.sets] == [True, True, True, False]


def test_set_names_are_of_one_split() -> None:
    assert set_names("test") == ["test-openmoji", "test-goog", "test-twtr", "design-twtr"]
    assert all(name.startswith("val-") for name in set_names("val"))


def test_embedding_by_loader_equals_embedding_in_memory(model: ProLIP, emoji_data: Path) -> None:
    def loader() -> BatchLoader:
        return BatchLoader(
            LoaderConfig(
                shards=(str(emoji_data / "test-goog-000000.tar"),),
                batch_size=16,
                image_size=36,
                captions=(),
                shuffle_window=0,
                last_batch="keep",
                keep_members=("json",),
            )
        )

    model.train()
    with loader() as batches:
        embedded = embed_images(model, batches, CPU)
    with loader() as batches:
        decoded = decode_images(batches)
    assert model.training
    assert embedded.keys == decoded.keys
    assert len(embedded.keys) == 36
    assert embedded.members == decoded.members
    assert None not in embedded.members["json"]
    in_memory = embed_pixels(model, decoded.images, CPU, batch_size=7)
    assert torch.allclose(embedded.gaussian.mean, in_memory.mean, atol=1e-5)
    assert torch.allclose(embedded.gaussian.log_var, in_memory.log_var, atol=1e-5)


def test_the_emoji_suite_runs_and_its_results_survive_json(
    model: ProLIP, emoji_data: Path, emoji_sets: list[ImageSet]
) -> None:
    before = torch.random.get_rng_state()
    results, *items, calibration = evaluate_emoji(model, WordTokenizer(), emoji_data, CPU, "test")
    assert calibration is None
    assert results.decisions is None
    assert torch.equal(torch.random.get_rng_state(), before), "evaluation leaves the generator alone"
    assert [figures.name for figures in results.trained.sets] == [emoji_set.name for emoji_set in emoji_sets]
    assert results.trained.sets[-1].num_pictures == 120
    assert results.trained.sets[0].group.num_classes == 3
    assert [view.trained for view in results.trained.sets[0].views] == [True, False, False]
    # Twelve times three held-out emoji in three designs; the 120 of the design set are trained ones.
    assert results.trained.unseen_names.num_emoji == 36
    assert results.trained.seen_names.num_emoji == 120
    assert results.trained != results.random
    for headline in results.headlines:
        for value, of_items in zip((headline.trained, headline.random), items, strict=True):
            assert float(of_items[headline.name].mean()) == pytest.approx(value, abs=1e-12)
    sizes = {name: len(numbers) for name, numbers in items[0].items()}
    of_classes = dict.fromkeys(("group", "group_with_prior", "subgroup", "subgroup_with_prior"), 36)
    assert sizes == {**of_classes, "recall_at_10": 120, "order_unseen": 36, "order_seen": 120}
    assert EmojiResults.from_json(results.to_json()).to_json() == results.to_json()


def test_missing_shards_are_named(model: ProLIP, emoji_data: Path) -> None:
    (emoji_data / "test-goog-000000.tar").unlink()
    with pytest.raises(ValueError, match=r"no shard test-goog-\*\.tar: build it with"):
        evaluate_emoji(model, WordTokenizer(), emoji_data, CPU, "test")


def test_eval_emoji_writes_a_runs_results_and_compares_models(
    emoji_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, other, out = tmp_path / "runs" / "demo", tmp_path / "other", tmp_path / "out"
    write_words(emoji_data / "tokenizer.json")
    write_run_with(run, emoji_data / "tokenizer.json", CONTEXT, seed=3)  # its answers differ from image to image
    assert main(["export", str(run), "--out", str(other)]) == 0
    words = ["--data", str(emoji_data), "--out", str(out)]
    assert main(["eval", "emoji", "--checkpoint", str(run), "--checkpoint", str(other), *words]) == 0
    results = EmojiResults.from_json((run / "eval.json").read_text())
    assert f"{run}: full results: {run / 'eval.json'}" in capsys.readouterr().out
    figures = json.loads((out / "results.json").read_text())["figures"]
    assert [figure["value"][str(run)] for figure in figures if figure["main"]] == [
        headline.trained for headline in results.headlines
    ]
    assert figures[0]["value"][str(run)] == group_accuracy(run, emoji_data / "test-openmoji-000000.tar") != 1 / 3
    assert all(figure["difference"] == {str(other): 0.0} for figure in figures)
    for figure in figures:
        ends = figure["low"][str(run)], figure["high"][str(run)], figure["difference_low"][str(other)]
        if figure["metric"].startswith("chance"):
            assert ends == (None, None, None), "it needs no items"
        else:
            assert ends[0] <= figure["value"][str(run)] <= ends[1]
            assert ends[2] == 0.0, "the same items are drawn for both"
    counts = [figure["num_items"] for figure in figures if figure["main"]]
    assert counts == [36, 36, 36, 36, 120, 36, 120], "images, or emoji for the order of captions"
    assert main(["eval", "emoji", "--checkpoint", "open_clip:local-dir:nowhere", *words]) == 2
    assert "open_clip cannot build local-dir:nowhere" in capsys.readouterr().err


def group_accuracy(run: Path, shard: Path) -> float:
    """The share of images whose mean is nearest to that of their group's caption."""
    model = prolip.load(run, device="cpu")
    images = embed_shards(model, [str(shard)], keep=("json",))
    own = [json.loads(member or b"")["captions"]["group"][0] for member in images.members["json"]]
    groups = list(dict.fromkeys(own))
    nearest = (images.gaussian.mean @ embed_captions(model, groups).mean.T).argmax(dim=1).tolist()
    return sum(groups[place] == group for place, group in zip(nearest, own, strict=True)) / len(own)
