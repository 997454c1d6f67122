"""A small synthetic world of emoji with known structure: no model, no compiled loader."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from tests.support.emoji_shards import record, write_emoji
from torch import Tensor

from prolip.demo.suite.emoji_samples import (
    CaptionBook,
    EmbeddedCaptions,
    EmojiSample,
    ImageSet,
    LabelledImages,
    parse_sample,
)
from prolip.demo.suite.evaluate import headlines
from prolip.demo.suite.gallery import make_gallery
from prolip.demo.suite.label_sets import calibrate_groups, measure_decisions
from prolip.demo.suite.measure_sets import (
    ClassPrompts,
    Trained,
    compare_view,
    correct_pairs,
    measure_levels,
    measure_set,
)
from prolip.demo.suite.prompt_methods import measure_prompting
from prolip.demo.suite.results import EmojiResults, ModelFigures
from prolip.gaussian import Gaussian
from prolip.metrics.retrieval import chance_recall
from prolip.pretrained.classify import Similarity

DIM = 32
SETS = ("test-openmoji", "test-goog", "test-twtr", "design-twtr")


def samples_of(set_name: str, count: int) -> list[EmojiSample]:
    return [parse_sample(f"{set_name}-{place:03d}", json.dumps(record(place, set_name))) for place in range(count)]


def unit_vectors(names: Sequence[str], seed: int) -> Tensor:
    """A direction a distinct name, the same at every call."""
    table = {name: place for place, name in enumerate(sorted(set(names)))}
    directions = F.normalize(torch.randn(len(table), DIM, generator=torch.Generator().manual_seed(seed)), dim=1)
    return directions[torch.tensor([table[name] for name in names])]


def figures(
    sets: Sequence[ImageSet], skill: float, seed: int
) -> tuple[ModelFigures, dict[str, Gaussian], EmbeddedCaptions]:
    """Figures of a made-up model: captions near their subgroup, images `skill` of the way to their name."""
    noise = torch.Generator().manual_seed(seed)
    book = CaptionBook()
    for emoji_set in sets:
        for sample in emoji_set.samples:
            for captions in sample.captions.values():
                book.add(captions)
    anchors = unit_vectors([text.split(", ")[0] for text in book.texts], 0)
    depth = torch.tensor([0.3 * ("thing" in text) + 0.1 * (text != "a picture") for text in book.texts])
    log_var = -5.0 - depth[:, None] * skill + 0.05 * torch.randn(len(book.texts), DIM, generator=noise)
    captions = EmbeddedCaptions(
        book, Gaussian(anchors, log_var), torch.tensor([len(text.split()) for text in book.texts]).double()
    )
    images: dict[str, Gaussian] = {}
    for emoji_set in sets:
        group = captions.of(sample.captions["group"][0] for sample in emoji_set.samples).mean
        own = captions.of(sample.captions["name"][0] for sample in emoji_set.samples).mean
        wrong = torch.randn(own.shape, generator=noise)
        mean = F.normalize(skill * (own + group) + 0.25 * wrong, dim=1)
        spread = (wrong.norm(dim=1, keepdim=True) - DIM**0.5) * 0.2
        images[emoji_set.name] = Gaussian(mean, -5.5 + spread + 0.05 * torch.randn(mean.shape, generator=noise))
    prompts = ClassPrompts([sample for emoji_set in sets for sample in emoji_set.samples])
    labelled = [LabelledImages(one.name, images[one.name], one.samples) for one in sets]
    result = ModelFigures(
        sets=[
            measure_set(
                one,
                captions,
                prompts,
                Trained(Similarity(20.0, None), sets[-1].samples),
                [compare_view("blurred", False, one.images, one.images)],
            )[0]
            for one in labelled
        ],
        prompting=[
            measure_prompting(level, prompts, captions, labelled[:-1], labelled[-1]) for level in ("group", "subgroup")
        ],
        unseen_names=measure_levels(sets[0].samples, captions),
        seen_names=measure_levels(sets[-1].samples, captions),
    )
    return result, images, captions


@pytest.fixture(scope="session")
def make_record() -> Callable[[int, str], dict[str, object]]:
    return record


@pytest.fixture(scope="session")
def emoji_sets() -> list[ImageSet]:
    return [
        ImageSet(name, torch.zeros(count, 3, 4, 4), samples_of(name, count))
        for name, count in zip(SETS, (36, 36, 36, 120), strict=True)
    ]


@pytest.fixture(scope="session")
def emoji_results(emoji_sets: list[ImageSet]) -> EmojiResults:
    trained, images, captions = figures(emoji_sets, 1.0, 1)
    random, _, _ = figures(emoji_sets, 0.0, 2)
    chance = {emoji_set.name: chance_recall(correct_pairs(emoji_set.samples), 10) for emoji_set in emoji_sets}
    validation, similarity = images["test-twtr"], Similarity(20.0, None)
    prompts = ClassPrompts([sample for emoji_set in emoji_sets for sample in emoji_set.samples])
    others = LabelledImages("val-twtr", validation, emoji_sets[2].samples)
    calibration = calibrate_groups([others], captions, prompts, similarity, "made up")
    labelled = [LabelledImages(one.name, images[one.name], one.samples) for one in emoji_sets]
    return EmojiResults(
        split="test",
        headlines=headlines("test", trained, random, chance),
        trained=trained,
        random=random,
        gallery=make_gallery(labelled, captions),
        decisions=measure_decisions(calibration, labelled[:2], captions, prompts, similarity),
        chance_recall_at_10=chance,
        seconds=12.3,
    )


@pytest.fixture
def emoji_data(tmp_path: Path, emoji_sets: list[ImageSet]) -> Path:
    """A folder of shards with a drawn image for every made-up emoji."""
    folder = tmp_path / "emoji"
    folder.mkdir()
    write_emoji(folder, {emoji_set.name: len(emoji_set.samples) for emoji_set in emoji_sets})
    return folder
