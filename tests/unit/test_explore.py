"""What the page of `prolip explore` asks of a model, and how answers are written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tests.unit.sample_run import write_run
from tests.unit.sample_shards import encoded, write_tar

from prolip.data import DataError
from prolip.eval.embed import embed_texts
from prolip.explore import ExploreOptions, run_explore, show
from prolip.explore.explorer import MAX_PROMPTS, Explorer
from prolip.explore.items import read_items
from prolip.gaussian import csd, inclusion_score
from prolip.opening import open_model

CAPTIONS = ["a picture", "an animal", "food and travel"]


def write_items(folder: Path) -> None:
    """A test and a training shard with the same keys, and a sample without a picture."""
    for name, colours in (("test-000.tar", range(12)), ("train-000.tar", range(3))):
        samples = [("100.txt", b"no picture")]
        for number in colours:
            record = {"captions": {"name": [f"a {number}"], "group": ["an animal", "unused"]}, "number": number}
            samples += [
                (f"{number:03}.png", encoded((number * 20, 40, 200 - number * 9))),
                (f"{number:03}.json", json.dumps(record).encode()),
            ]
        write_tar(folder / name, samples)


@pytest.fixture(scope="module")
def explorer(tmp_path_factory: pytest.TempPathFactory) -> Explorer:
    folder = tmp_path_factory.mktemp("explore")
    write_run(folder / "run", folder / "tokenizer.json", context_length=8)
    write_items(folder)
    items = read_items([str(folder)], ("captions.name", "captions.group"), 100)
    return Explorer(*open_model(str(folder / "run"), None), items)


def test_a_folders_test_set_is_read_in_order_with_its_captions(explorer: Explorer) -> None:
    assert [item.key for item in explorer.items] == [f"test-000/{number:03}" for number in range(12)]
    assert explorer.items[3].captions == ("a 3", "an animal")
    assert explorer.all_captions[:3] == ["a 0", "an animal", "a 1"]


def test_items_are_limited_and_a_pattern_is_taken_as_it_is(tmp_path: Path) -> None:
    write_items(tmp_path)
    items = read_items([str(tmp_path / "*.tar")], ("txt",), 14)
    assert [item.key.split("/")[0] for item in items] == ["test-000"] * 12 + ["train-000"] * 2
    assert items[0].captions == ()


def test_data_without_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the folder holds no"):
        read_items([str(tmp_path)], ("txt",), 10)
    write_tar(tmp_path / "test-0.tar", [("a.txt", b"text")])
    with pytest.raises(ValueError, match="no picture is in its shards"):
        read_items([str(tmp_path)], ("txt",), 10)


def test_captions_beside_a_picture_are_the_models_numbers_nearest_first(explorer: Explorer) -> None:
    views = explorer.compare(explorer.items[5].picture, [*CAPTIONS, " an animal ", ""])
    assert sorted(view.caption for view in views) == sorted(CAPTIONS)
    distances = [view.distance for view in views]
    assert distances == sorted(distances)
    image = explorer._embed_picture(explorer.items[5].picture)
    for view in views:
        text = embed_texts(explorer.model, explorer.tokenizer, [view.caption], torch.device("cpu"))
        assert view.similarity == pytest.approx(float(image.mean @ text.mean.T), abs=1e-6)
        assert view.distance == pytest.approx(float(csd(image, text)), rel=1e-5)
        assert view.uncertainty == pytest.approx(float(text.total_var), rel=1e-5)
        assert view.picture_in_caption == pytest.approx(float(inclusion_score(image, text).mean()), abs=1e-5)
    assert {view.caption: view.num_tokens for view in views}["food and travel"] == 3


def test_two_captions_beside_each_other_and_one_beside_itself(explorer: Explorer) -> None:
    pair, other = explorer.pair("an animal", "food"), explorer.pair("food", "an animal")
    assert pair.first.uncertainty == other.second.uncertainty
    assert pair.first_in_second == pytest.approx(-other.first_in_second)
    same = explorer.pair("food", "food")
    assert same.similarity == pytest.approx(1.0)
    assert same.first_in_second == 0
    assert "Neither lies in the other" in show.paired(same)


def test_a_walk_begins_at_the_nearest_caption_and_covers_the_whole_way(explorer: Explorer) -> None:
    picture = explorer.items[0].picture
    stops = explorer.walk(picture, explorer.all_captions, "a picture")
    texts = explorer._texts(explorer.all_captions)
    nearest = int((explorer._embed_picture(picture).mean @ texts.mean.T).argmax())
    assert stops[0].view.caption == explorer.all_captions[nearest]
    assert stops[0].first_step == 0
    assert max(stop.last_step for stop in stops) == stops[0].num_steps - 1
    # Towards itself there is no way.
    assert len(explorer.walk(picture, explorer.all_captions, stops[0].view.caption)) == 1


def test_items_and_captions_are_ranked_by_uncertainty(explorer: Explorer) -> None:
    for ranking in (explorer.ranked_pictures(), explorer.ranked_captions()):
        values = [value for _, value in ranking]
        assert values == sorted(values)
        assert values[0] < values[-1]
    item, value = explorer.ranked_pictures()[0]
    assert value == pytest.approx(float(explorer._embed_picture(item.picture).total_var), rel=1e-5)


def test_a_classifier_weighs_its_prompts_where_there_are_pictures(explorer: Explorer) -> None:
    names, templates = ["animals", "food", "travel"], ["{}", "a picture of {}", "an emoji of {}"]
    found = explorer.classify(explorer.items[0].picture, names, templates)
    assert found.weights is not None
    assert [sum(row) for row in found.weights] == pytest.approx([1.0] * 3)
    assert found.even is not None
    assert found.weighted is not None
    assert sum(found.even) == pytest.approx(sum(found.weighted)) == pytest.approx(1.0)
    assert [len(row) for row in found.uncertainties] == [3] * 3
    assert explorer.classify(None, names, templates).even is None
    alone = Explorer(explorer.model, explorer.tokenizer, [])
    assert alone.classify(explorer.items[0].picture, names, templates).weights is None
    assert "start with --data" in show.classified(alone.classify(None, names, templates))


def test_what_cannot_be_asked_is_said(explorer: Explorer) -> None:
    picture = explorer.items[0].picture
    with pytest.raises(ValueError, match="write at least one line"):
        explorer.compare(picture, ["", " "])
    with pytest.raises(ValueError, match=f"{MAX_PROMPTS} at most"):
        explorer.compare(picture, [str(number) for number in range(MAX_PROMPTS + 1)])
    with pytest.raises(ValueError, match="at least two class names"):
        explorer.classify(picture, ["food"], ["{}"])
    with pytest.raises(ValueError, match="are too many"):
        explorer.classify(picture, [str(number) for number in range(65)], [f"{{}} {n}" for n in range(64)])
    with pytest.raises(DataError):
        explorer.compare(b"no picture", CAPTIONS)


def test_captions_are_remembered_within_bounds(explorer: Explorer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prolip.explore.explorer._REMEMBERED", 4)
    fresh = Explorer(explorer.model, explorer.tokenizer, [])
    first = fresh._texts(["food", "travel", "nature"])
    again = fresh._texts(["nature", "an animal", "a picture", "food"])
    assert len(fresh._remembered) <= 4
    torch.testing.assert_close(again.mean[3], first.mean[0])


def test_what_a_person_wrote_is_escaped(explorer: Explorer) -> None:
    evil = "<script>alert(1)</script>"
    picture = explorer.items[0].picture
    pages = [
        show.compared(explorer.compare(picture, [evil])),
        show.paired(explorer.pair(evil, "food")),
        show.walked(explorer.walk(picture, [evil, "food"], evil), evil),
        show.classified(explorer.classify(picture, [evil, "food"], ["{}", "a {}"])),
        show.ranked([(evil, 1.0)], 0, 1),
    ]
    for page in pages:
        assert "<script" not in page
        assert "&lt;script&gt;" in page


def test_wrong_options_name_themselves(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="max_items is 0"):
        ExploreOptions(checkpoint="x", max_items=0)
    with pytest.raises(ValueError, match=r"config\.json"):
        run_explore(ExploreOptions(checkpoint=str(tmp_path)))


def test_a_missing_gradio_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "gradio", None)
    with pytest.raises(ValueError, match=r"pip install 'prolip\[explore\]'"):
        run_explore(ExploreOptions(checkpoint="x"))
