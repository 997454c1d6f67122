"""Small inputs that the fuzz targets begin with: `python seeds.py FOLDER` writes a folder for each target."""

from __future__ import annotations

import io
import json
import struct
import sys
import tarfile
from pathlib import Path

from PIL import Image


def images() -> dict[str, bytes]:
    """One small image of each kind."""
    rgb = Image.effect_noise((9, 7), 80).convert("RGB")
    kinds: dict[str, tuple[Image.Image, dict[str, object]]] = {
        "baseline.jpg": (rgb, {"quality": 80}),
        "progressive.jpg": (rgb, {"progressive": True, "subsampling": 0}),
        "gray.jpg": (rgb.convert("L"), {}),
        "cmyk.jpg": (rgb.convert("CMYK"), {}),
        "plain.png": (rgb, {}),
        "palette.png": (rgb.quantize(7), {"bits": 4}),
        "bits.png": (rgb.convert("1"), {}),
        "alpha.png": (rgb.convert("RGBA"), {}),
        "deep.png": (rgb.convert("I;16"), {}),
        "lossy.webp": (rgb, {"quality": 50}),
        "lossless.webp": (rgb.convert("RGBA"), {"lossless": True}),
        "moving.webp": (rgb, {"save_all": True, "append_images": [rgb.rotate(90)]}),
    }
    made = {}
    for name, (image, options) in kinds.items():
        buffer = io.BytesIO()
        image.save(buffer, name.split(".")[1].replace("jpg", "jpeg"), **options)
        made[name] = buffer.getvalue()
    return made


def archives() -> dict[str, bytes]:
    """Archives in each of the formats."""
    made = {}
    for name, kind in {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}.items():
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=kind) as archive:
            members = ["a.jpg", "a.txt", "b/c.d.json", "__meta__.x"] + ([] if name == "ustar" else ["é" * 120 + ".png"])
            for member in members:
                info = tarfile.TarInfo(member)
                info.size = len(member)
                archive.addfile(info, io.BytesIO(b"x" * len(member.encode())))
            folder = tarfile.TarInfo("folder")
            folder.type = tarfile.DIRTYPE
            archive.addfile(folder)
        # Without the zeros that fill the last record.
        made[name] = buffer.getvalue()[: -(-archive.offset // 512) * 512]
    return made


def texts() -> dict[str, bytes]:
    """JSON of samples, a head of an index, and behind each a path or pattern, as the target takes them apart."""
    record = {"a": [{"b": "x", "w": 1.5}, {"b": "é\n"}], "c": float("nan"), "d": "\ud83d"}
    head = b"PROLIPIX" + struct.pack("<IIQQQI", 1, 2, 5, 50, 60, 7)
    paths = [b"a.*.b", b"{a,b{1..3}}x{9..1..2}", b"the cat's &amp; <START_OF_TEXT> 42!"]
    every = [content + b"\x00" + path for content in (json.dumps(record).encode(), head) for path in paths]
    return {str(number): text + b"\x03" for number, text in enumerate(every)}


def main(folder: Path) -> None:
    """Writes every target's inputs."""
    for target, inputs in {"decode": images(), "archive": archives(), "parsers": texts()}.items():
        (folder / target).mkdir(parents=True, exist_ok=True)
        for name, data in inputs.items():
            (folder / target / name).write_bytes(data)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
