"""Read and check a user's images, and write them into shards."""

import io
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from prolip.build.config import BuildConfig
from prolip.build.shards import (
    BadImage,
    BuildSummary,
    Json,
    Sample,
    check_replaceable,
    hash_rank,
    replace_folder,
)
from prolip.build.vocabulary import train_vocabulary
from prolip.errors import UserError, sentence
from prolip.images.files import EXTENSIONS, STORED, decoding, open_image
from prolip.store.file_contents import check_regular

_QUALITY = 95
"""JPEG and WebP quality of images that are scaled down."""
_VOCABULARY = 8000
"""Maximum tokens of a trained tokenizer."""


class Candidate(NamedTuple):
    """An image with its caption, not read yet."""

    name: str
    """A path below the source, or a row; for messages."""
    path: Path
    image: str
    """Its name in the source, shared by all its captions."""
    captions: Sequence[str]
    """All of them become "captions" in the JSON, and the first the .txt."""
    record: Json
    problem: str = ""
    """Why the image is left out; empty if it is used."""


class EncodedImage(NamedTuple):
    """As stored in a shard."""

    data: bytes
    extension: str
    converted_from: str | None


def read_image(path: Path, max_side: int | None) -> EncodedImage:
    """The file's own bytes if the loader reads them, else PNG.

    Decoded once, to find damage now. EXIF orientation is ignored, as in training.
    """
    check_regular(path)
    data = path.read_bytes()
    with decoding(), open_image(data, any_size=max_side is not None) as image:
        image.load()
        _check_grey_values(image)
        kind = image.format or "unknown"
        extension = STORED.get(kind)
        fits = max_side is None or max(image.size) <= max_side
        if extension is not None and fits:
            return EncodedImage(data, extension, None)
        rgb = image.convert("RGB")
    if max_side is not None and not fits:
        rgb.thumbnail((max_side, max_side), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    match extension:
        case "jpg":
            rgb.save(buffer, format="JPEG", quality=_QUALITY, subsampling=0)
        case "webp":
            rgb.save(buffer, format="WEBP", quality=_QUALITY)
        case _:
            rgb.save(buffer, format="PNG")
    return EncodedImage(buffer.getvalue(), extension or "png", None if extension else kind)


def _check_grey_values(image: Image.Image) -> None:
    """Grey deeper than 8 bits is cut in RGB, not scaled."""
    if image.mode[0] not in "IF":
        return
    _, largest = image.getextrema()
    assert isinstance(largest, int | float), "it has one band"
    if largest > 255 or (image.mode == "F" and largest <= 1):
        raise ValueError(f"grey values must be from 0 to 255; save it with 8 bits (got {largest:g})")


def write_images(
    candidates: Sequence[Candidate], config: BuildConfig, out: Path, description: Json, origin: str
) -> BuildSummary:
    """Write the candidates' shards and dataset.json to `out`, which is replaced as a whole.

    Args:
        candidates: in a fixed order.
        out: see `replace_folder`.
        description: more of dataset.json.
        origin: the option that names the images, and its value.
    """
    started = time.monotonic()
    if not candidates:
        raise UserError(origin, f"must have an image ({', '.join(sorted(EXTENSIONS))})")
    check_replaceable(out)
    bad: list[BadImage] = []
    converted: Counter[str] = Counter()

    def read(some: Iterable[tuple[int, Candidate]]) -> Iterator[Sample]:
        for place, candidate in some:
            image, problem = None, candidate.problem
            if not problem:
                try:
                    image = read_image(candidate.path, config.max_side)
                except (OSError, ValueError) as error:
                    problem = sentence(error) or type(error).__name__
            if image is None:
                bad.append(BadImage(name=candidate.name, reason=problem))
                if len(bad) > config.max_bad_fraction * len(candidates):
                    named = "; ".join(f"{one.name} ({one.reason})" for one in bad[:5])
                    raise UserError(
                        "max_bad_fraction",
                        f"must allow {len(bad)} of {len(candidates)} images, which are bad: {named}",
                        config.max_bad_fraction,
                    )
                continue
            if image.converted_from:
                converted[image.converted_from] += 1
            # Not the path: a dot in it would end the key.
            yield Sample(
                key=f"{place:08d}",
                image=image.data,
                extension=image.extension,
                caption=next(iter(candidate.captions), None),
                record={**candidate.record, "captions": candidate.captions},
            )

    order = sorted(enumerate(candidates), key=lambda pair: hash_rank(config.seed, f"order {pair[0]}"))
    with replace_folder(out) as folder:
        for split, held in ((config.split, False), ("val", True)):
            chosen = [(place, image) for place, image in order if held == _is_validation(image, config)]
            folder.write(split, read(chosen), config.samples_per_shard)
            if config.train_tokenizer and not held:
                captions = [caption for _, image in chosen for caption in image.captions]
                folder.write_text("tokenizer.json", train_vocabulary(captions, _VOCABULARY).json)
        if not folder.samples:
            raise UserError(
                origin, f"must have an image that can be read; the first is {bad[0].name} ({bad[0].reason})"
            )
        kinds = dict(sorted(converted.items()))
        folder.finish({**description, "skipped": [asdict(one) for one in bad], "converted": kinds})
        return BuildSummary(
            out=out,
            already_built=False,
            samples=folder.samples,
            shards=folder.shards,
            skipped=tuple(bad),
            notes=tuple(f"{count} images were {kind} and are stored as PNG" for kind, count in kinds.items()),
            seconds=time.monotonic() - started,
        )


def _is_validation(candidate: Candidate, config: BuildConfig) -> bool:
    # All captions of an image are in the same split.
    return hash_rank(config.seed, f"val {candidate.image}") < config.val_share * 2**64
