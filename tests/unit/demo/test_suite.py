"""The emoji suite: its samples and measures, and a run that is evaluated and shown."""

import json

import pytest
import torch
from tests.support.refusals import refusal_of
from tests.support.shards import write_tar
from tests.support.untrained_run import write_run_with, write_words

import prolip
from prolip.build.emoji.samples import EmojiSample, read_set
from prolip.cli import main
from prolip.demo.config import EmojiOptions
from prolip.demo.run import headline_lines
from prolip.demo.suite import Captions, correct_pairs, embed_captions, order_rows, run_emoji
from prolip.evaluation.results import TaskCache
from prolip.gaussian import Gaussian


def sample(name, image_id=""):
    captions = {"picture": ["a picture"], "group": ["food"], "subgroup": ["fruit"], "name": [name]}
    return EmojiSample(name, b"", image_id or name, name, captions)


def test_equal_images_and_equal_names_are_correct():
    samples = [sample("a", "1"), sample("b", "1"), sample("c"), sample("c", "other")]
    assert correct_pairs(samples).int().tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]


def test_order_counts_pairs_of_captions_and_those_that_are_not_longer():
    texts = {"a picture": 9.0, "food": 4.0, "fruit": 3.0, "apple": 2.0, "red plum": 5.0}
    log_var = torch.tensor([*texts.values()]).log()[:, None]
    tokens = torch.tensor([len(text.split()) for text in texts]).double()
    captions = Captions({text: n for n, text in enumerate(texts)}, Gaussian(torch.ones(5, 1), log_var), tokens)
    rows = order_rows([sample("apple"), sample("red plum"), sample("apple")], captions)
    assert {row.id.measure: row.value for row in rows} == {
        "group_over_name": 0.5,
        "group_over_name_not_longer": 1.0,
        "subgroup_over_name": 0.5,
        "subgroup_over_name_not_longer": 1.0,
        "group_over_subgroup": 1.0,
        "group_over_subgroup_not_longer": 1.0,
    }


@pytest.mark.parametrize("members", [[("k.png", b"x")], [("k.json", b"{}"), ("k.png", b"x")]])
def test_a_shard_without_emoji_is_an_error(tmp_path, members):
    write_tar(tmp_path / "val-goog-000000.tar", members)
    with refusal_of("data"):
        read_set(tmp_path, "val-goog")


def test_a_run_is_measured_beside_an_untrained_model(emoji_data, tmp_path):
    run = tmp_path / "run"
    write_run_with(run, _words(emoji_data), 20, seed=3)  # its answers differ from image to image
    words = f"--checkpoint {run} --data {emoji_data} --num_resamples 20 --out {tmp_path / 'evals'}".split()
    assert main(["eval", "emoji", *words]) == 0
    results = json.loads((tmp_path / "evals" / "results.json").read_text())
    headlines = [figure for figure in results["figures"] if figure["main"]]
    assert [figure["num_items"] for figure in headlines] == [36, 36, 36, 36, 120, 36, 120]
    model = prolip.load(run, device="cpu")
    samples = read_set(emoji_data, "test-openmoji")
    images = model.encode_images([one.png for one in samples])
    groups = sorted({one.text("group") for one in samples})
    nearest = (images.mean @ embed_captions(model, samples).of(groups).mean.T).argmax(dim=1).tolist()
    right = [groups[place] == one.text("group") for place, one in zip(nearest, samples, strict=True)]
    assert headlines[0]["value"][str(run)] == sum(right) / len(right) != 1 / 3
    assert headlines[0]["baselines"]["largest group"] == pytest.approx(1 / 3)
    assert headlines[0]["baselines"]["untrained"] != headlines[0]["value"][str(run)]
    lines = headline_lines(results)
    assert len(lines) == 8
    assert lines[1].endswith(" 33.3%  (largest group)")


def test_the_suite_needs_its_shards_and_fp32(emoji_data, tmp_path):
    write_run_with(tmp_path / "run", _words(emoji_data), 20)
    model = prolip.load(tmp_path / "run", device="cpu")
    (emoji_data / "test-goog-000000.tar").unlink()
    for words, field in (({}, "data"), ({"precision": "bf16"}, "precision")):
        options = EmojiOptions(checkpoint=("run",), data=emoji_data, **words)
        with refusal_of(field):
            run_emoji(model, options, TaskCache(tmp_path))


def _words(folder):
    write_words(folder / "tokenizer.json")
    return folder / "tokenizer.json"
