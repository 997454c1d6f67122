"""Captions at four levels, from "a picture" to a name, with the same templates at every level."""

from collections.abc import Sequence

from prolip.evaluation.templates import CHAINED_TEMPLATES, PLAIN_TEMPLATES

LEVELS = ("picture", "group", "subgroup", "name")
"""Levels of caption, the most general first."""

PICTURE_CAPTIONS = (
    "a picture",
    "a picture of something",
    "an emoji of something",
    "an emoji",
    "a picture: anything",
    "something, emoji",
)
"""Captions of the most general level, one per template: they are true of every image here."""

MAX_KEYWORDS = 4
"""Largest number of keywords in a caption; more would not fit into a short context."""

SUBGROUP_TEXTS = {
    "face-smiling": "face with a smile",
    "face-affection": "affectionate face",
    "face-tongue": "face showing the tongue",
    "face-hand": "face with hand",
    "face-neutral-skeptical": "neutral or skeptical face",
    "face-sleepy": "sleepy or tired face",
    "face-unwell": "unwell face",
    "face-hat": "face with hat",
    "face-glasses": "face with glasses",
    "face-concerned": "concerned face",
    "face-negative": "hostile face",
    "face-costume": "costumed face",
    "cat-face": "face of a cat",
    "monkey-face": "face of a monkey",
    "heart": "heart",
    "emotion": "sign of emotion",
    "hand-fingers-open": "open hand",
    "hand-fingers-partial": "hand with some fingers",
    "hand-single-finger": "hand with one finger",
    "hand-fingers-closed": "closed hand",
    "hands": "pair of hands",
    "hand-prop": "hand with object",
    "body-parts": "body part",
    "person": "human being",
    "person-gesture": "gesture of a person",
    "person-role": "person at work",
    "person-fantasy": "fantasy being",
    "person-activity": "active person",
    "person-sport": "person at sport",
    "person-resting": "resting person",
    "family": "family or couple",
    "person-symbol": "symbol of a person",
    "animal-mammal": "mammal",
    "animal-bird": "kind of bird",
    "animal-amphibian": "amphibian",
    "animal-reptile": "reptile",
    "animal-marine": "marine animal",
    "animal-bug": "insect or bug",
    "plant-flower": "flower",
    "plant-other": "plant",
    "food-fruit": "fruit",
    "food-vegetable": "vegetable",
    "food-prepared": "prepared food",
    "food-asian": "asian food",
    "food-sweet": "sweet food",
    "drink": "drink",
    "dishware": "dishware",
    "place-map": "map",
    "place-geographic": "landscape",
    "place-building": "building",
    "place-religious": "religious place",
    "place-other": "other place",
    "transport-ground": "ground transport",
    "transport-water": "water transport",
    "transport-air": "air transport",
    "hotel": "hotel service",
    "time": "clock or time",
    "sky & weather": "sky and weather",
    "event": "festive event",
    "award-medal": "award",
    "sport": "sport",
    "game": "game",
    "arts & crafts": "arts and crafts",
    "clothing": "clothing",
    "sound": "sound",
    "music": "music",
    "musical-instrument": "musical instrument",
    "phone": "telephony",
    "computer": "computing",
    "light & video": "light and video",
    "book-paper": "book or paper",
    "money": "money",
    "mail": "mail",
    "writing": "writing",
    "office": "office supply",
    "lock": "lock and key",
    "tool": "tool",
    "science": "science",
    "medical": "medical item",
    "household": "household item",
    "other-object": "other object",
    "transport-sign": "transport sign",
    "warning": "warning sign",
    "arrow": "arrow",
    "religion": "religious symbol",
    "zodiac": "zodiac sign",
    "av-symbol": "media button",
    "gender": "gender sign",
    "math": "mathematical sign",
    "punctuation": "punctuation mark",
    "currency": "currency sign",
    "other-symbol": "other symbol",
    "keycap": "keypad key",
    "alphanum": "letters and numbers",
    "geometric": "geometric shape",
    "flag": "banner",
    "country-flag": "country flag",
    "subdivision-flag": "regional flag",
}
"""Plain English for Unicode's subgroups. All differ, and none is the name of an emoji, so each marks one level."""


def group_text(group: str) -> str:
    """Return a group of Unicode in plain English, such as "animals and nature"."""
    return group.lower().replace("&", "and")


def subgroup_text(subgroup: str) -> str:
    """Return a subgroup of Unicode in plain English, such as "marine animal".

    Raises:
        KeyError: there is no such subgroup.
    """
    return SUBGROUP_TEXTS[subgroup]


def fill_templates(phrases: Sequence[str]) -> list[str]:
    """Fill each template: plain templates with the first phrase, chained templates with all phrases.

    Args:
        phrases: from specific to general.
    """
    chain = ", ".join(phrases)
    plain = [template.format(phrases[0]) for template in PLAIN_TEMPLATES]
    return plain + [template.format(chain) for template in CHAINED_TEMPLATES]


def captions_by_level(name: str, subgroup: str, group: str) -> dict[str, list[str]]:
    """Return the captions of an emoji by level. The n-th caption of every level has the same template."""
    chain = [name, subgroup_text(subgroup), group_text(group)]
    return {
        "picture": list(PICTURE_CAPTIONS),
        "group": fill_templates(chain[2:]),
        "subgroup": fill_templates(chain[1:]),
        "name": fill_templates(chain),
    }


def keyword_captions(name: str, keywords: Sequence[str]) -> list[str]:
    """Return captions that list the first CLDR keywords, or the name if there are none (new emoji, variants)."""
    listed = ", ".join(keywords[:MAX_KEYWORDS]) or name
    return [template.format(listed) for template in CHAINED_TEMPLATES]
