"""What the page of `prolip explore` asks the model, and how it formats answers."""

from __future__ import annotations

import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from tests.support.explore_items import write_items
from tests.support.images import announced_png
from tests.support.servers import free_port
from tests.support.shards import write_tar
from tests.support.untrained_run import write_run

from prolip.data import DataError
from prolip.errors import UserError
from prolip.explore import show
from prolip.explore.config import ExploreOptions
from prolip.explore.explorer import (
    EVERYDAY,
    MAX_PROMPTS,
    Explorer,
    Range,
)
from prolip.explore.items import Item, read_items
from prolip.explore.serve import listen, run_explore
from prolip.gaussian import Gaussian, csd, csd_logits, inclusion_score
from prolip.metrics.bprw import reweight_prompts
from prolip.metrics.config import BprwConfig
from prolip.metrics.zero_shot import zero_shot_logits
from prolip.pretrained.model import Model
from prolip.pretrained.open import load

CAPTIONS = ["a picture", "an animal", "food and travel"]


@pytest.fixture(scope="module")
def explorer(tmp_path_factory: pytest.TempPathFactory) -> Explorer:
    folder = tmp_path_factory.mktemp("explore")
    write_run(folder / "run", folder / "tokenizer.json", context_length=8)
    write_items(folder)
    items = read_items([str(folder)], ("captions.name", "captions.group"), 100)
    return Explorer(load(folder / "run", device="cpu"), items)


def test_a_folders_test_set_is_read_in_order_with_its_captions(explorer: Explorer) -> None:
    assert [item.key for item in explorer.items] == [f"test-000/{number:03}" for number in range(12)]
    assert explorer.items[3].captions == ("a 3", "an animal")
    assert explorer.all_captions[:3] == ["a 0", "an animal", "a 1"]


def test_items_are_limited_and_a_pattern_is_read_in_order(tmp_path: Path) -> None:
    write_items(tmp_path)
    items = read_items([str(tmp_path / "*.tar")], ("txt",), 14)
    assert [item.key.split("/")[0] for item in items] == ["test-000"] * 12 + ["train-000"] * 2
    assert items[0].captions == ()


def test_data_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the folder has no"):
        read_items([str(tmp_path)], ("txt",), 10)
    write_tar(tmp_path / "test-0.tar", [("a.txt", b"text")])
    with pytest.raises(ValueError, match="its shards have no image"):
        read_items([str(tmp_path)], ("txt",), 10)


def test_captions_compared_with_an_image_are_sorted_by_distance(explorer: Explorer) -> None:
    found = explorer.compare(explorer.items[5].image, [*CAPTIONS, " an animal ", ""])
    views = found.views
    assert sorted(view.caption for view in views) == sorted(CAPTIONS)
    distances = [view.distance for view in views]
    assert distances == sorted(distances)
    image, bias = explorer._embed_image(explorer.items[5].image), explorer.model.logit_bias
    for view in views:
        text = explorer.model.encode_texts([view.caption])
        assert view.similarity == pytest.approx(float(image.mean @ text.mean.T), abs=1e-6)
        assert view.distance == pytest.approx(float(csd(image, text)), rel=1e-5)
        assert view.uncertainty == pytest.approx(float(text.total_var), rel=1e-5)
        assert bias is not None
        logits = csd_logits(image, text, explorer.model.logit_scale, bias)
        assert view.match == pytest.approx(float(logits.detach().sigmoid()), rel=1e-4)
        assert view.image_in_caption == pytest.approx(float(inclusion_score(image, text).mean()), abs=1e-5)
    assert found.uncertainty == pytest.approx(float(image.total_var), rel=1e-5)
    values = [value for _, value in explorer.ranked_images()]
    assert found.more_certain == sum(value < found.uncertainty * (1 - 1e-6) for value in values) / 12
    assert explorer.image_range() == (values[0], values[-1], "of the 12 images")


def test_two_captions_are_compared_symmetrically(explorer: Explorer) -> None:
    pair, other = explorer.pair("an animal", "food"), explorer.pair("food", "an animal")
    assert pair.first.uncertainty == other.second.uncertainty
    assert pair.first_in_second == pytest.approx(-other.first_in_second)
    assert explorer.pair("food and travel", "food").first.num_tokens == 3
    same = explorer.pair("food", "food")
    assert same.similarity == pytest.approx(1.0)
    assert same.first_in_second == 0
    assert "Neither lies in the other" in show.paired(same, explorer.caption_range())


def test_a_walk_starts_at_the_nearest_caption_and_covers_all_steps(explorer: Explorer) -> None:
    image = explorer.items[0].image
    stops = explorer.walk(image, explorer.all_captions, "a picture")
    texts = explorer._texts(explorer.all_captions)
    nearest = int((explorer._embed_image(image).mean @ texts.mean.T).argmax())
    assert stops[0].view.caption == explorer.all_captions[nearest]
    assert stops[0].first_step == 0
    # On the way a caption may be the nearest one twice, with another in between.
    covered = {step for stop in stops for step in range(stop.first_step, stop.last_step + 1)}
    assert covered == set(range(stops[0].num_steps + 1))
    assert [stop.first_step for stop in stops] == sorted({stop.first_step for stop in stops})
    assert (stops[-1].view.caption, stops[-1].last_step) == ("a picture", stops[0].num_steps)
    # Towards itself there is no way.
    assert len(explorer.walk(image, explorer.all_captions, stops[0].view.caption)) == 1


def test_items_and_captions_are_ranked_by_uncertainty(explorer: Explorer) -> None:
    for ranking in (explorer.ranked_images(), explorer.ranked_captions()):
        values = [value for _, value in ranking]
        assert values == sorted(values)
        assert values[0] < values[-1]
    item, value = explorer.ranked_images()[0]
    assert value == pytest.approx(float(explorer._embed_image(item.image).total_var), rel=1e-5)


def test_a_classifier_weighs_its_prompts_if_there_are_images(explorer: Explorer) -> None:
    names, templates = ["animals", "food", "travel"], ["{}", "a picture of {}", "an emoji of {}"]
    found = explorer.classify(explorer.items[0].image, names, templates)
    assert found.weights is not None
    prompts = [template.replace("{}", name) for name in names for template in templates]
    flat = explorer.model.encode_texts(prompts)
    ensembles = Gaussian(flat.mean.view(3, 3, -1), flat.log_var.view(3, 3, -1))
    assert explorer._images is not None
    expected = reweight_prompts(ensembles, explorer._images, BprwConfig(num_neighbors=10))
    torch.testing.assert_close(torch.tensor(found.weights), expected.weights, rtol=1e-4, atol=1e-5)
    assert float((expected.weights - 1 / 3).abs().max()) > 1e-3, "even weights would not do"
    torch.testing.assert_close(torch.tensor(found.uncertainties), ensembles.total_var)
    image = explorer._embed_image(explorer.items[0].image)
    scale = explorer.model.logit_scale
    shares = zero_shot_logits(image.mean, F.normalize(expected.classifier, dim=-1), logit_scale=scale).softmax(1)[0]
    torch.testing.assert_close(torch.tensor(found.weighted), shares, rtol=1e-3, atol=1e-5)
    assert found.even is not None
    assert found.weighted is not None
    assert sum(found.even) == pytest.approx(sum(found.weighted)) == pytest.approx(1.0)
    assert [len(row) for row in found.uncertainties] == [3] * 3
    assert explorer.classify(None, names, templates).even is None
    alone = Explorer(explorer.model, [])
    assert alone.classify(explorer.items[0].image, names, templates).weights is None
    assert "start with --shards" in show.classified(alone.classify(None, names, templates))


def test_invalid_questions_are_refused_with_the_reason(explorer: Explorer) -> None:
    image = explorer.items[0].image
    with pytest.raises(ValueError, match="write at least one caption"):
        explorer.compare(image, ["", " "])
    with pytest.raises(ValueError, match="the root is empty"):
        explorer.walk(image, None, " ")
    alone = Explorer(explorer.model, [])
    with pytest.raises(ValueError, match="write the captions to walk through"):
        alone.walk(image, None, "a picture")
    with pytest.raises(ValueError, match=f"{MAX_PROMPTS} at most"):
        explorer.compare(image, [str(number) for number in range(MAX_PROMPTS + 1)])
    with pytest.raises(ValueError, match="at least two class names"):
        explorer.classify(image, ["food"], ["{}"])
    with pytest.raises(ValueError, match="are too many"):
        explorer.classify(image, [str(number) for number in range(65)], [f"{{}} {n}" for n in range(64)])
    with pytest.raises(DataError):
        explorer.compare(b"no image", CAPTIONS)
    with pytest.raises(DataError, match="are more than the limit"):
        explorer.compare(announced_png(50_000, 50_000), CAPTIONS)


def test_unreadable_images_of_a_data_set_are_skipped_and_named(
    explorer: Explorer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("prolip.explore.explorer._EMBED_BATCH", 2)
    broken = [Item(f"x/{number}", b"no image", ("a bad one",)) for number in range(3)]
    mixed = [explorer.items[0], broken[0], *explorer.items[1:4], *broken[1:]]
    found = Explorer(explorer.model, mixed)
    assert found.items == explorer.items[:4]
    assert found.all_captions == ["a 0", "an animal", "a 1", "a 2", "a 3"]
    expected = {item.key: value for item, value in explorer.ranked_images()}
    assert {item.key: value for item, value in found.ranked_images()} == pytest.approx(
        {item.key: expected[item.key] for item in found.items}, rel=1e-5
    )
    assert [record.getMessage().split(" is skipped")[0] for record in caplog.records] == ["x/0", "x/1", "x/2"]
    with pytest.raises(ValueError, match="none of the 3 images of the data set can be decoded"):
        Explorer(explorer.model, broken)


def test_items_with_one_name_are_numbered(explorer: Explorer) -> None:
    one, other = explorer.items[:2]
    twins = [one, Item(one.key, other.image, other.captions), one]
    found = Explorer(explorer.model, twins)
    assert [item.key for item in found.items] == [one.key, f"{one.key} (2)", f"{one.key} (3)"]
    assert [found.by_key[item.key].image for item in found.items] == [one.image, other.image, one.image]


def test_a_data_set_may_have_more_captions_than_a_question(explorer: Explorer, monkeypatch: pytest.MonkeyPatch) -> None:
    image = explorer.items[0].image
    most = len(explorer.walk(image, None, "a picture"))  # captions of the answer
    assert most < len(explorer.all_captions)
    monkeypatch.setattr("prolip.explore.explorer.MAX_PROMPTS", most)
    assert explorer.walk(image, None, "a picture") == explorer.walk(image, None, " a picture ")
    with pytest.raises(ValueError, match=f"{most} at most"):
        explorer.walk(image, explorer.all_captions, "a picture")


def test_the_range_of_uncertainty_is_that_of_the_data_set(explorer: Explorer) -> None:
    low, high, of = explorer.caption_range()
    values = [value for _, value in explorer.ranked_captions()]
    assert (low, high, of) == (values[0], values[-1], "of the data set's 13 captions")
    alone = Explorer(explorer.model, [])
    texts = explorer.model.encode_texts(EVERYDAY)
    assert alone.caption_range()[:2] == pytest.approx((float(texts.total_var.min()), float(texts.total_var.max())))
    assert alone.image_range() is None
    assert alone.ranked_images() == alone.ranked_captions() == []
    assert alone.compare(explorer.items[0].image, ["food"]).more_certain is None


def test_concurrent_questions_are_all_answered(explorer: Explorer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prolip.explore.explorer._CACHED_CAPTIONS", 3)
    fresh = Explorer(explorer.model, [])

    encode = Model.encode_texts

    def slow(model: Model, texts: list[str], *, progress: bool) -> Gaussian:
        time.sleep(0.005)
        return encode(model, texts, progress=progress)

    monkeypatch.setattr(Model, "encode_texts", slow)
    # What one of them remembers the next one forgets.
    questions = [[("food", "travel")[number % 2], f"nature {number}", f"emoji {number}"] for number in range(12)]
    with ThreadPoolExecutor(4) as pool:
        assert len(list(pool.map(fresh._texts, questions * 3))) == 36


# ---- the command ----------------------------------------------------------------------------------------------------


def test_the_caption_cache_is_bounded(explorer: Explorer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prolip.explore.explorer._CACHED_CAPTIONS", 4)
    fresh = Explorer(explorer.model, [])
    first = fresh._texts(["food", "travel", "nature"])
    again = fresh._texts(["nature", "an animal", "a picture", "food"])
    assert len(fresh._cache) <= 4
    torch.testing.assert_close(again.mean[3], first.mean[0])


def test_text_from_the_user_is_escaped(explorer: Explorer) -> None:
    evil = "<script>alert(1)</script>"
    image = explorer.items[0].image
    scale = Range(0.1, 0.2, "of some")
    pages = [
        show.compared(explorer.compare(image, [evil]), scale),
        show.paired(explorer.pair(evil, "food"), scale),
        show.walked(explorer.walk(image, [evil, "food"], evil), evil, scale),
        show.classified(explorer.classify(image, [evil, "food"], ["{}", "a {}"])),
        show.ranked_captions([(evil, 1.0)], "Page 1.", scale),
        show.ranked_images([("data:x", evil, 1.0)], "Page 1.", scale),
    ]
    for page in pages:
        assert "<script" not in page
        assert "&lt;script&gt;" in page


def test_wrong_options_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="max_items is 0"):
        ExploreOptions(checkpoint="x", max_items=0)
    with pytest.raises(ValueError, match="port is 70000: it must be from 1 to 65535"):
        ExploreOptions(checkpoint="x", port=70_000)
    with pytest.raises(ValueError, match=r"config\.json"):
        run_explore(ExploreOptions(checkpoint=str(tmp_path)))


def test_wrong_input_is_an_error_before_gradio_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "gradio", raising=False)
    with pytest.raises(ValueError, match=r"config\.json"):
        run_explore(ExploreOptions(checkpoint=str(tmp_path), port=free_port()))
    assert "gradio" not in sys.modules


def test_the_address_is_taken_while_the_model_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the second of two pages that start at a time would end without a word."""
    options, seen = ExploreOptions(checkpoint=str(tmp_path), port=free_port()), []

    def load_slowly(*_: object, **__: object) -> None:
        with pytest.raises(ValueError, match=f"cannot listen on .*, port {options.port} .*: try another --port"):
            listen(options.host, options.port)
        seen.append(options.port)
        raise UserError("no model")

    monkeypatch.setattr("prolip.explore.serve.load", load_slowly)
    for _ in range(2):  # it is free again afterwards
        with pytest.raises(UserError, match="no model"):
            run_explore(options)
    assert seen == [options.port] * 2


def test_localhost_is_the_address_that_forwarded_ports_name(monkeypatch: pytest.MonkeyPatch) -> None:
    both = [socket.getaddrinfo(host, free_port(), type=socket.SOCK_STREAM)[0] for host in ("::1", "127.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: both)
    with listen("localhost", 7860) as listener:
        assert listener.getsockname() == both[1][4]


def test_an_unusable_address_is_an_error_before_the_model_is_loaded(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ValueError, match=rf"cannot listen on 127\.0\.0\.1, port {port} .*: try another --port"):
            run_explore(ExploreOptions(checkpoint=str(tmp_path), port=port))
    with pytest.raises(ValueError, match=r"cannot listen on 192\.0\.2\.1, port \d+ .*: try another --host"):
        run_explore(ExploreOptions(checkpoint=str(tmp_path), host="192.0.2.1"))


def test_without_gradio_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "gradio", None)
    with pytest.raises(ValueError, match=r"pip install 'prolip\[explore\]'"):
        run_explore(ExploreOptions(checkpoint="x"))
