"""How the page formats its answers: bars, numbers and explanations."""

from __future__ import annotations

import dataclasses
import re

from prolip.explore import show
from prolip.explore.explorer import Caption, CaptionView, Classified, Compared, Pair, Range, Stop

TEXT = re.compile(r"<b>(.*?)</b>")
BAR = re.compile(r'<i class="(\w+)" style="left:([\d.]+)%?;width:([\d.]+)%">')


def bars(page: str) -> list[tuple[str, str, float, float]]:
    """Every bar: its text, colour, and where it begins and how wide it is in percent."""
    found = [(colour, float(left), float(width)) for colour, left, width in BAR.findall(page)]
    texts = [text.replace("\N{NO-BREAK SPACE}", " ") for text in TEXT.findall(page)]
    return [(text, *bar) for text, bar in zip(texts, found, strict=True)]


def test_uncertainty_bars_span_their_range_and_name_it() -> None:
    page = show.ranked_captions([("b", 1.5), ("a", 1.0)], "Page 1.", Range(1.0, 3.0, "of some"))
    assert bars(page) == [("1.500 +50.0 %", "s1", 0, 25), ("1.000", "s1", 0, 0)]
    assert "percent above the most certain of some; the bar ends at the least certain" in page
    # One that lies outside makes the range wider.
    assert bars(show.ranked_captions([("a", 4.0)], "", Range(2.0, 3.0, "")))[0] == ("4.000 +100.0 %", "s1", 0, 100)
    cards = show.ranked_images([("data:a", "cat", 2.0)], "Page 1.", Range(1.0, 3.0, "of two"))
    assert bars(cards) == [("2.000 +100.0 %", "s1", 0, 50)]
    assert '<img src="data:a" alt="cat">' in cards
    assert "most certain of two" in cards


def view(caption: str, **values: float) -> CaptionView:
    usual = CaptionView(caption, uncertainty=1.0, similarity=0.0, distance=0.0, match=None, image_in_caption=0.0)
    return usual._replace(**values)


def test_two_captions_show_inclusion_both_ways() -> None:
    pair = Pair(
        first=Caption("vague", 3, 1.1),
        second=Caption("precise", 3, 1.0),
        similarity=-0.25,
        distance=2.0,
        first_in_second=-0.125,
    )
    page = show.paired(pair, Range(1.0, 2.0, "of some"))
    assert bars(page) == [
        ("1.100 +10.0 %", "s1", 0, 10),
        ("−0.125", "minus", 0, 50),
        ("1.000", "s1", 0, 0),
        ("+0.125", "s0", 50, 50),
    ]
    assert "10.00\N{NO-BREAK SPACE}% more uncertain than the second. The second lies in the first." in page
    assert "Similarity of the means: −0.250" in page


def test_an_image_compared_with_captions_has_all_its_bars() -> None:
    views = [
        view("near", similarity=0.5, distance=1.0, match=0.75, image_in_caption=0.5, uncertainty=1.5),
        view("far", similarity=-0.5, distance=4.0, match=0.01, image_in_caption=-1.0),
    ]
    found = Compared(views=views, uncertainty=0.125, more_certain=0.83)
    page = show.compared(found, Range(1.0, 2.0, "of some"))
    assert bars(page) == [
        ("75.0 %", "s0", 0, 75),
        ("+0.500", "s0", 0, 50),
        ("1.000", "s2", 0, 25),
        ("1.500 +50.0 %", "s1", 0, 50),
        ("+0.500", "s0", 50, 25),
        ("1.0 %", "s0", 0, 1),
        ("−0.500", "s0", 0, 0),
        ("4.000", "s2", 0, 100),
        ("1.000", "s1", 0, 0),
        ("−1.00", "minus", 0, 50),
    ]
    assert "own uncertainty is 0.1250; 83\N{NO-BREAK SPACE}% of the images in the data set are more certain" in page
    heads = re.findall(r"<th scope='col'>([\w ]+)", page)
    assert heads == ["caption", "match", "similarity", "sampled distance", "uncertainty", "inclusion H"]
    # A model without a bias has no match.
    unbiased = [one._replace(match=None) for one in views]
    assert "match" not in show.compared(dataclasses.replace(found, views=unbiased), Range(1.0, 2.0, ""))


def test_a_walk_shows_where_each_caption_is_nearest() -> None:
    stops = [
        Stop(view=view(name, image_in_caption=1.0), first_step=first, last_step=last, num_steps=50)
        for name, first, last in (("cat", 0, 19), ("animal", 20, 49), ("a picture", 50, 50))
    ]
    page = show.walked(stops, "a picture", Range(1.0, 2.0, ""))
    assert [bar for bar in bars(page) if bar[0][-1] in "%d"] == [
        ("0–40 %", "s0", 0, 40),
        ("40–100 %", "s0", 40, 60),
        ("the end", "s0", 95, 5),
    ]


def test_a_classifier_shows_its_highest_and_lowest_weighted_prompts() -> None:
    found = Classified(
        names=["cat", "dog"],
        templates=["{}", "a {}", "my {}"],
        even=[0.25, 0.75],
        weighted=[0.6, 0.4],
        weights=[[0.2, 0.5, 0.3], [0.4, 0.35, 0.25]],
        uncertainties=[[1.0, 1.5, 2.0], [3.0, 2.0, 1.0]],
    )
    page = show.classified(found)
    assert bars(page)[:4] == [
        ("25.0 %", "s0", 0, 25),
        ("60.0 %", "s1", 0, 60),
        ("75.0 %", "s0", 0, 75),
        ("40.0 %", "s1", 0, 40),
    ]
    assert re.findall(r"(prefers|avoids) “(.*?)”", page) == [
        ("prefers", "a cat"),
        ("avoids", "cat"),
        ("prefers", "dog"),
        ("avoids", "my dog"),
    ]
    assert bars(page)[4:] == [
        ("50.0 %", "s1", 0, 100),
        ("1.500 +50.0 %", "s1", 0, 25),
        ("20.0 %", "s1", 0, 40),
        ("1.000", "s1", 0, 0),
        ("40.0 %", "s1", 0, 80),
        ("3.000 +200.0 %", "s1", 0, 100),
        ("25.0 %", "s1", 0, 50),
        ("1.000", "s1", 0, 0),
    ]
    assert page.count('class="mark" style="left:66.7%"') == 4, "where an even weight would be"
    assert "the first" not in page
    many = Classified(
        names=[str(number) for number in range(12)],
        templates=["{}"],
        even=[number / 66 for number in range(12)],
        weighted=None,
        weights=None,
        uncertainties=[[1.0]] * 12,
    )
    assert "the first 10 of 12" in show.classified(many)
    assert "Prompts are not weighted: there is only one template" in show.classified(many)
