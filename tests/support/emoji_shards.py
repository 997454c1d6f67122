"""Shards of synthetic emoji."""

import json

import pytest
from PIL import Image, ImageDraw
from tests.support.images import encode
from tests.support.shards import write_tar

GROUPS = {
    "animals and nature": ("marine animal", "plant"),
    "food and drink": ('fruit <b>&"', "sweet dish"),
    "travel and places": ("transport by air", "clock"),
}


def record(place, set_name):
    """The json of one made-up emoji; `place` gives group and subgroup."""
    group = list(GROUPS)[place % 3]
    subgroup = GROUPS[group][place // 3 % 2]
    name = f"thing {place} of {set_name.split('-', maxsplit=1)[0]}"
    return {
        "codepoint": f"{set_name.split('-', maxsplit=1)[0]}-{place}",
        "emoji": "◆",
        "name": name,
        "base_name": name,
        "skin_tone": False,
        "mirrored": False,
        "design": set_name.split("-")[1],
        "group": group.replace(" ", "-"),
        "subgroup": subgroup.replace(" ", "-"),
        "picture": f"{set_name}-{place}",
        "captions": {
            "picture": ["a picture", "a picture"],
            "group": [group, group],
            "subgroup": [subgroup, f"{subgroup}, {group}"],
            "name": [name, f"{name}, {subgroup}, {group}"],
        },
    }


def write_emoji(folder, counts):
    """Shards with a drawn image for every made-up emoji of the sets."""
    for name, count in counts.items():
        records = {f"{name}-{place:03d}": record(place, name) for place in range(count)}
        if name == "design-twtr":  # a variant, which no figure may count
            records["variant"] = records["design-twtr-000"] | {"skin_tone": True}
        members = []
        for place, (key, content) in enumerate(records.items()):
            members += [(f"{key}.png", encoded_image(place)), (f"{key}.json", json.dumps(content).encode())]
        write_tar(folder / f"{name}-000000.tar", members)
    (folder / "dataset.json").write_text("{}", encoding="utf-8")
    (folder / "ATTRIBUTION.md").write_text("OpenMoji <CC BY-SA 4.0>, https://openmoji.org.\n", encoding="utf-8")


def encoded_image(place):
    image = Image.new("RGB", (40, 40), "white")
    colour = [(200, 60, 60), (60, 160, 80), (60, 90, 200)][place % 3]
    ImageDraw.Draw(image).ellipse((4, 4, 36, 36 - place // 3 % 2 * 14), fill=colour)
    return encode(image, "PNG")


@pytest.fixture
def emoji_data(tmp_path):
    """A folder of shards of made-up emoji: 36 held-out ones a design, and 120 trained ones."""
    folder = tmp_path / "emoji"
    folder.mkdir()
    write_emoji(folder, {f"test-{design}": 36 for design in ("openmoji", "goog", "twtr")} | {"design-twtr": 120})
    return folder
