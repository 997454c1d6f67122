"""Captions at four levels, from "a picture" to a name, with the same templates at every level."""

from collections.abc import Sequence
from pathlib import Path

PLAIN_TEMPLATES = ("{}", "a picture of {}", "an emoji of {}")
"""Templates that take one phrase."""
CHAINED_TEMPLATES = ("{}", "a picture: {}", "{}, emoji")
"""For a phrase and more general ones: "blowfish, marine animal, animals and nature"."""

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
"""One per template, true of every image here."""

MAX_KEYWORDS = 4
"""More would not fit into a short context."""

SUBGROUP_TEXTS = dict(
    line.split("\t") for line in Path(__file__).with_name("subgroups.tsv").read_text(encoding="utf-8").splitlines()
)
"""In plain English. All differ, and none is an emoji's name, so each marks one level."""


def group_text(group: str) -> str:
    """In plain English, such as "animals and nature"."""
    return group.lower().replace("&", "and")


def subgroup_text(subgroup: str) -> str:
    """In plain English, such as "marine animal"."""
    return SUBGROUP_TEXTS[subgroup]


def fill_templates(phrases: Sequence[str]) -> list[str]:
    """Plain templates take the first phrase, chained ones all.

    Args:
        phrases: from specific to general.
    """
    chain = ", ".join(phrases)
    plain = [template.format(phrases[0]) for template in PLAIN_TEMPLATES]
    return plain + [template.format(chain) for template in CHAINED_TEMPLATES]


def captions_by_level(name: str, subgroup: str, group: str) -> dict[str, list[str]]:
    """By level. The n-th caption of every level has the same template."""
    chain = [name, subgroup_text(subgroup), group_text(group)]
    return {
        "picture": list(PICTURE_CAPTIONS),
        "group": fill_templates(chain[2:]),
        "subgroup": fill_templates(chain[1:]),
        "name": fill_templates(chain),
    }


def keyword_captions(name: str, keywords: Sequence[str]) -> list[str]:
    """The first CLDR keywords, or the name if there are none (new emoji, variants)."""
    listed = ", ".join(keywords[:MAX_KEYWORDS]) or name
    return [template.format(listed) for template in CHAINED_TEMPLATES]
