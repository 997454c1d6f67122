"""Write the last column of `conformance.tsv` anew with the installed Pillow: `python conformance.py`.

A new case is a new line with any last column.
"""

import hashlib
import io
import re
from pathlib import Path

import numpy as np
import PIL
from PIL import Image, ImageOps

TABLE = Path(__file__).with_suffix(".tsv")


def written_anew(table: str) -> str:
    """The table with the installed Pillow's version and sums."""
    lines = [line if line.startswith("#") else _summed(*line.split("\t")) for line in table.splitlines()]
    return re.sub(r"Pillow \d+\.[\w.]+", f"Pillow {PIL.__version__}", "\n".join(lines)) + "\n"


def _summed(image: str, operation: str, resampling: str, size: str, _: str) -> str:
    width, height = map(int, size.split("x"))
    name, *settings = operation.split()
    made = _made(*map(int, image.split("x"))) if "x" in image else _decoded(bytes.fromhex(image), name == "turn")
    if resampling != "-":
        made = _resized(made, name, settings, (width, height), Image.Resampling[resampling.upper()])
    assert made.size == (width, height), (operation, made.size)
    return "\t".join([image, operation, resampling, size, hashlib.sha256(made.tobytes()).hexdigest()])


def _made(width: int, height: int) -> Image.Image:
    y, x, c = np.mgrid[:height, :width, :3]
    return Image.fromarray(((2 * c + 3) * x + (5 * c + 1) * y + (c + 1) * x * y).astype(np.uint8))


def _decoded(data: bytes, turned: bool) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    return (ImageOps.exif_transpose(image) if turned else image).convert("RGB")


def _resized(
    image: Image.Image, name: str, settings: list[str], size: tuple[int, int], resampling: Image.Resampling
) -> Image.Image:
    if name == "crop":
        x, y, width, height = map(int, settings)
        return image.crop((x, y, x + width, y + height)).resize(size, resampling)
    if name == "shortest":
        side, shortest = size[0], min(image.size)
        image = image.resize([side * length // shortest for length in image.size], resampling)
        halved = {"round": lambda rest: round(rest / 2), "floor": lambda rest: rest // 2}[settings[0]]
        x, y = (halved(length - side) for length in image.size)
        return image.crop((x, y, x + side, y + side))
    if name == "longest":
        ratio = max(length / wanted for length, wanted in zip(image.size, size, strict=True))
        image = image.resize([max(round(length / ratio), 1) for length in image.size], resampling)
        padded = Image.new("RGB", size, (250, 20, 100))
        padded.paste(image, [(wanted - length) // 2 for length, wanted in zip(image.size, size, strict=True)])
        return padded
    assert name in {"squash", "native"}, name
    return image.resize(size, resampling)


if __name__ == "__main__":
    TABLE.write_text(written_anew(TABLE.read_text(encoding="utf-8")), encoding="utf-8")
