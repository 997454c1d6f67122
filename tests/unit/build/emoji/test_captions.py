"""Captions of emoji: the same templates at every level, and no level says what a more specific one adds."""

from prolip.build.emoji.captions import (
    LEVELS,
    SUBGROUP_TEXTS,
    captions_by_level,
    group_text,
)
from prolip.build.emoji.names import read_table


def test_every_level_has_the_same_templates_half_of_them_chained():
    captions = captions_by_level("blowfish", "animal-marine", "Animals & Nature")
    assert tuple(captions) == LEVELS
    assert {len(own) for own in captions.values()} == {6}
    assert captions["name"][:3] == ["blowfish", "a picture of blowfish", "an emoji of blowfish"]
    assert captions["name"][3] == "blowfish, marine animal, animals and nature"
    assert [caption.count("blowfish, marine animal, animals and nature") for caption in captions["name"]] == [0] * 3 + [
        1
    ] * 3
    assert captions["subgroup"][3] == "marine animal, animals and nature"
    assert captions["group"][3] == "animals and nature"


def test_each_phrase_belongs_to_one_level():
    table = read_table()
    assert set(SUBGROUP_TEXTS) == {one.subgroup for one in table}
    phrases = [*SUBGROUP_TEXTS.values(), *(group_text(group) for group in {one.group for one in table})]
    assert len(set(phrases)) == len(phrases)
    names = {one.name.lower() for one in table}
    assert not [phrase for phrase in phrases if phrase in names]
    assert all(phrase == phrase.lower() for phrase in phrases)
