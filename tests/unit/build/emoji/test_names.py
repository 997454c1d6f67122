"""The table of emoji, and stems that variants of a name share."""

import pytest

from prolip.build.emoji.names import Emoji, read_table


def emoji(name, *codes):
    return Emoji(codepoints=codes, name=name, base_name=name, group="g", subgroup="s")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (emoji("man cook", "1F468", "200D", "1F373"), emoji("woman cook", "1F469", "200D", "1F373")),
        (emoji("cook", "1F9D1", "1F3FF", "200D", "1F373"), emoji("man cook", "1F468", "200D", "1F373")),
        (emoji("woman dancing", "1F483"), emoji("man dancing", "1F57A")),
        (emoji("boy", "1F466"), emoji("child", "1F9D2")),
        (emoji("man walking", "1F6B6", "200D", "2642", "FE0F"), emoji("person walking", "1F6B6")),
        (emoji("person walking facing right", "1F6B6", "200D", "27A1", "FE0F"), emoji("person walking", "1F6B6")),
        (emoji("man: beard", "1F9D4", "200D", "2642"), emoji("woman: beard", "1F9D4", "200D", "2640")),
        (emoji("Santa Claus", "1F385"), emoji("Mrs. Claus", "1F936")),
        (emoji("kiss: man, man", "1F468", "200D", "2764"), emoji("kiss: woman, man", "1F469", "200D", "2764")),
    ],
)
def test_variants_share_a_stem(one, other):
    assert set(one.stems) & set(other.stems)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (emoji("man cook", "1F468", "200D", "1F373"), emoji("man farmer", "1F468", "200D", "1F33E")),
        (emoji("female sign", "2640", "FE0F"), emoji("male sign", "2642", "FE0F")),
        (emoji("flag: France", "1F1EB", "1F1F7"), emoji("flag: Spain", "1F1EA", "1F1F8")),
        (emoji("right arrow", "27A1", "FE0F"), emoji("female sign", "2640", "FE0F")),
        (emoji("man: red hair", "1F468", "200D", "1F9B0"), emoji("man: bald", "1F468", "200D", "1F9B2")),
    ],
)
def test_different_emoji_share_no_stem(one, other):
    assert not set(one.stems) & set(other.stems)


def test_the_shipped_table_is_unicode_17():
    table = read_table()
    assert len(table) == 3944
    assert len({one.key for one in table}) == 3944, "keys without U+FE0F stay different"
    assert len({one.name for one in table}) == 3944
    base = [one for one in table if not one.skin_tones]
    assert len(base) == 1914
    assert len({one.group for one in table}) == 9
    assert len({one.subgroup for one in table}) == 98
    assert {one.base_name for one in table} == {one.name for one in base}, "every variant has its base"
    assert next(one for one in table if one.name == "blowfish").keywords == ("fish",)
