"""Ways to use prompts, on a synthetic world in which the bad prompts are known."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from prolip.demo.report import words
from prolip.demo.report.prompt_section import prompting_sentence
from prolip.demo.suite.emoji_samples import CaptionBook, EmbeddedCaptions, EmojiSample, LabelledImages
from prolip.demo.suite.measure_sets import ClassPrompts
from prolip.demo.suite.prompt_methods import EVEN, REWEIGHTED, measure_prompting
from prolip.demo.suite.results import EmojiResults, PromptSetFigures
from prolip.gaussian import Gaussian

DIM, CLASSES, GOOD, BAD = 24, 4, 2, 4


def sample(place: int, design: str) -> EmojiSample:
    group = f"group {place % CLASSES}"
    prompts = [f"{word} {number} {group}" for word, count in (("good", GOOD), ("bad", BAD)) for number in range(count)]
    return EmojiSample(
        key=f"{design}-{place}",
        codepoint=f"{design.split('-', maxsplit=1)[0]}-{place}",
        emoji="◆",
        name="thing",
        group=group,
        subgroup=group,
        skin_tone=False,
        image_id=f"{design}-{place}",
        captions={"picture": prompts, "group": prompts, "subgroup": prompts, "name": prompts},
    )


def world(bad_var: float) -> tuple[ClassPrompts, EmbeddedCaptions, dict[str, LabelledImages]]:
    """Good prompts lie near their class's images, bad ones all near the next class's."""
    generator = torch.Generator().manual_seed(5)
    centres = F.normalize(torch.randn(CLASSES, DIM, generator=generator), dim=1)

    def near(rows: Tensor, noise: float) -> Tensor:
        return F.normalize(rows + noise * torch.randn(rows.shape, generator=generator), dim=1)

    sets = {}
    for name, count in (("test-a", 40), ("test-b", 40), ("design-c", 80)):
        samples = [sample(place, name) for place in range(count)]
        mean = near(centres[torch.arange(count) % CLASSES], 0.15)
        sets[name] = LabelledImages(name, Gaussian(mean, torch.full_like(mean, -5.0)), samples)
    prompts = ClassPrompts(sets["test-a"].samples)
    book = CaptionBook()
    for texts in prompts.texts("group"):
        book.add(texts)
    owner = torch.tensor([int(text.rsplit(" ", 1)[1]) for text in book.texts])
    bad = torch.tensor([text.startswith("bad") for text in book.texts])
    mean = near(centres[torch.where(bad, (owner + 1) % CLASSES, owner)], 0.05)
    log_var = torch.where(bad, bad_var, -4.0)[:, None].expand(-1, DIM).contiguous()
    return prompts, EmbeddedCaptions(book, Gaussian(mean, log_var), torch.ones(len(mean)).double()), sets


def measured(bad_var: float = -3.0) -> PromptSetFigures:
    prompts, captions, sets = world(bad_var)
    scored = [sets["test-a"], sets["test-b"]]
    return measure_prompting("group", prompts, captions, scored, sets["design-c"])


def test_filters_remove_bad_prompts_with_large_variance() -> None:
    figures = measured()
    assert [method.name for method in figures.methods[:2]] == [EVEN, REWEIGHTED]
    assert len(figures.methods) == 7
    even, _, *filters = figures.methods
    assert even.gain == even.gain_low == even.gain_high == 0
    assert even.top1 < 0.7
    for method in filters:
        assert method.gain == pytest.approx(method.top1 - even.top1)
        assert method.gain_low <= method.gain <= method.gain_high
        assert method.top1_low <= method.top1 <= method.top1_high
    within = next(method for method in filters if method.name.startswith("up to the class's"))
    assert within.top1 > 0.9
    assert within.gain_low > 0.2


def test_the_greedy_choice_uses_only_the_voting_images() -> None:
    """Its score on the scored images follows from the voters' labels alone: wrong ones there ruin it."""
    prompts, captions, sets = world(-3.0)
    scored = [sets["test-a"], sets["test-b"]]
    voters = sets["design-c"]
    shifted = [dataclasses.replace(one, group=f"group {(int(one.group[-1]) + 1) % CLASSES}") for one in voters.samples]
    right = measure_prompting("group", prompts, captions, scored, voters).methods
    wrong = measure_prompting("group", prompts, captions, scored, voters._replace(samples=shifted)).methods
    assert right[-1].name.endswith("(greedy)")
    assert right[-1].top1 > wrong[-1].top1 + 0.2
    assert right[:-1] == wrong[:-1], "nothing else sees a label of the voters"


def test_counts_weights_and_winners_are_consistent() -> None:
    figures = measured()
    assert (figures.num_classes, figures.num_prompts, figures.num_pictures) == (CLASSES, GOOD + BAD, 80)
    assert figures.num_emoji == 40, "two designs of each emoji"
    assert sum(weight.mean for weight in figures.weights) == pytest.approx(1)
    assert all(weight.low <= weight.high for weight in figures.weights)
    assert [one.name for one in figures.classes] == [f"group {place}" for place in range(CLASSES)]
    for one in figures.classes:
        assert one.won.endswith(one.name)
        assert one.won_weight > 1 / figures.num_prompts > one.lost_weight


def test_intervals_resample_emoji_and_not_images() -> None:
    """The same images twice say nothing new: the interval stays as wide."""
    prompts, captions, sets = world(-3.0)
    others = sets["design-c"]
    once = measure_prompting("group", prompts, captions, [sets["test-a"]], others).methods[0]
    twice = measure_prompting("group", prompts, captions, [sets["test-a"]] * 2, others).methods[0]
    assert (once.top1, once.top1_low, once.top1_high) == (twice.top1, twice.top1_low, twice.top1_high)


def test_the_page_says_where_reweighting_did_not_help(emoji_results: EmojiResults) -> None:
    figures = emoji_results.trained.prompting[0]

    def with_gain(gain: float, low: float, high: float) -> PromptSetFigures:
        found = dataclasses.replace(figures.methods[1], gain=gain, gain_low=low, gain_high=high)
        return dataclasses.replace(figures, methods=[figures.methods[0], found, *figures.methods[2:]])

    random = with_gain(0.001, 0.0, 0.002)
    assert prompting_sentence(with_gain(0.03, 0.01, 0.05), random) is None
    assert "does not clearly change" in str(prompting_sentence(with_gain(0.01, -0.01, 0.02), random))
    lower = str(prompting_sentence(with_gain(-0.02, -0.03, -0.01), random))
    assert "lowers" in lower
    assert f"{words.signed(-2.0, 1)} points" in lower
