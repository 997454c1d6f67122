"""Synthetic emoji samples, and shards of them."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

from PIL import Image, ImageDraw

GROUPS = {
    "animals and nature": ("marine animal", "plant"),
    "food and drink": ('fruit <b>&"', "sweet dish"),
    "travel and places": ("transport by air", "clock"),
}


def record(place: int, set_name: str) -> dict[str, object]:
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


def write_emoji(folder: Path, counts: dict[str, int]) -> None:
    """Shards with a drawn image for every made-up emoji of the sets."""
    for name, count in counts.items():
        records = {f"{name}-{place:03d}": record(place, name) for place in range(count)}
        if name == "design-twtr":  # a variant, which no figure may count
            records["variant"] = records["design-twtr-000"] | {"skin_tone": True}
        with tarfile.open(folder / f"{name}-000000.tar", "w") as tar:
            for place, (key, content) in enumerate(records.items()):
                for extension, data in (("png", encoded_image(place)), ("json", json.dumps(content).encode())):
                    member = tarfile.TarInfo(f"{key}.{extension}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
    (folder / "dataset.json").write_text("{}", encoding="utf-8")
    (folder / "ATTRIBUTION.md").write_text("OpenMoji <CC BY-SA 4.0>, https://openmoji.org.\n", encoding="utf-8")


def encoded_image(place: int) -> bytes:
    image = Image.new("RGB", (40, 40), "white")
    colour = [(200, 60, 60), (60, 160, 80), (60, 90, 200)][place % 3]
    ImageDraw.Draw(image).ellipse((4, 4, 36, 36 - place // 3 % 2 * 14), fill=colour)
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
