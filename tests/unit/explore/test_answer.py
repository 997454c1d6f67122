"""How answers are drawn: bars, numbers and escaped text."""

import re

from prolip.explore.answer import Answer, Bar, Column, Range, inclusions, render, shares, uncertainties


def test_uncertainties_are_drawn_over_their_range_and_values_outside_widen_it():
    column = uncertainties([1.5, 1.0], Range(1.0, 3.0, "of some"))
    assert column.cells == [Bar("1.500 +50.0\N{NO-BREAK SPACE}%", 0, 25, "s1"), Bar("1.000", 0, 0, "s1")]
    assert "most certain of some" in column.hint
    assert uncertainties([4.0], Range(2.0, 3.0, "")).cells[0][1:3] == (0, 100)
    assert uncertainties([0.0], Range(0.0, 0.0, "")).cells == [Bar("0.000", 0, 0, "s1")]


def test_inclusions_are_drawn_from_the_middle():
    assert inclusions([-1.0, 0.5, 0.0], "").cells == [
        Bar("−1.00", 0, 50, "minus", 50),
        Bar("+0.500", 50, 25, "s0", 50),
        Bar("+0.00", 50, 0, "s0", 50),
    ]


def test_tables_and_cards_have_escaped_texts_and_their_bars():
    evil = "<script>"
    column = shares("match", "a hint", [0.25])
    table = render(Answer(evil, "caption", [evil], [column, Column(evil, evil, [evil])]))
    cards = render(Answer("", "", [evil], [column], ["data:x"]))
    for page in (table, cards):
        assert evil not in page
        assert re.findall(r"<b>(.*?)</b>", page) == ["25.0\N{NO-BREAK SPACE}%"]
        assert 'style="left:0.0%;width:25.0%"' in page
    assert table.count("<small>a hint</small>") == 1
    assert '<img src="data:x" alt="&lt;script&gt;">' in cards
    assert render(Answer("one"), Answer("two")).count('<div class="pl">') == 2
