"""A user's own pictures on their way into shards: checked, stored as they are where the loader can read them."""

import io
import logging
import time
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from prolip.data.build.config import IntakeConfig
from prolip.data.build.shards import (
    BadImage,
    BuildSummary,
    Json,
    Sample,
    ShardFolder,
    check_replaceable,
    hash_rank,
    replace_folder,
)

logger = logging.getLogger(__name__)

EXTENSIONS = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
"""Of the files that are taken for pictures, in any case."""
_STORED = {"JPEG": "jpg", "MPO": "jpg", "PNG": "png", "WEBP": "webp"}
"""Formats that the loader reads; an MPO begins with an ordinary JPEG."""
_QUALITY = 95
"""Of pictures that are made smaller: JPEG and WebP."""
UNREADABLE = (OSError, ValueError, SyntaxError, EOFError, zlib.error, Image.DecompressionBombError)
"""What Pillow raises for damaged files: its formats differ."""


class Candidate(NamedTuple):
    """A picture with its caption, not read yet."""

    name: str
    """What errors call it: a path below the source, or a row."""
    path: Path
    picture: str
    """What the source calls the picture: equal for all its captions, whatever folder the source lies in."""
    caption: str | None
    """None: there is none, and `problem` says why."""
    record: Json
    problem: str = ""


class StoredPicture(NamedTuple):
    """The bytes of a picture as they go into a shard."""

    data: bytes
    extension: str
    converted_from: str | None
    """The format it had, if that is another one."""


def load_picture(path: Path, max_side: int | None) -> StoredPicture:
    """The picture in a format that the loader reads: the file's own bytes where possible, else PNG.

    The picture is decoded once, so that a damaged file is found here and not in training. The orientation that a
    camera noted is not applied, as it is not in training either.

    Raises:
        OSError, ValueError, SyntaxError, EOFError: the file cannot be read.
    """
    data = path.read_bytes()
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        kind = image.format or "unknown"
        extension = _STORED.get(kind)
        fits = max_side is None or max(image.size) <= max_side
        if extension is not None and fits:
            return StoredPicture(data, extension, None)
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
    return StoredPicture(buffer.getvalue(), extension or "png", None if extension else kind)


def store_pictures(candidates: Sequence[Candidate], config: IntakeConfig, out: Path, description: Json) -> BuildSummary:
    """Writes the candidates' shards and dataset.json in `out`, which is replaced as a whole.

    Args:
        candidates: in a fixed order.
        config: how.
        out: a new folder, an empty one, or one that a builder wrote.
        description: what dataset.json says beside counts and settings.

    Raises:
        ValueError: there is no picture, too many are bad, or `out` holds what no builder wrote.
    """
    started = time.monotonic()
    if not candidates:
        raise ValueError(f"source: {config.source} holds no picture ({', '.join(sorted(EXTENSIONS))})")
    check_replaceable(out)
    intake = _Intake(config, len(candidates))
    order = sorted(enumerate(candidates), key=lambda pair: hash_rank(config.seed, f"order {pair[0]}"))
    with replace_folder(out) as folder:
        for split in ("train", "val"):
            chosen = [(place, one) for place, one in order if (split == "val") == _is_validation(one, config)]
            folder.write(split, intake.samples(chosen), config.samples_per_shard)
        if not folder.samples:
            raise ValueError(f"source: no picture of {config.source} could be read; the first: {_say(intake.bad[0])}")
        folder.finish({**description, **intake.record()})
        return _summary(out, folder, intake, time.monotonic() - started)


class _Intake:
    """Reads candidates and remembers what was left out or converted."""

    def __init__(self, config: IntakeConfig, num_candidates: int) -> None:
        self.config = config
        self.num_candidates = num_candidates
        self.bad: list[BadImage] = []
        self.converted: Counter[str] = Counter()

    def samples(self, candidates: Sequence[tuple[int, Candidate]]) -> Iterator[Sample]:
        """The samples of those candidates that can be read.

        Raises:
            ValueError: more than `max_bad_fraction` of all candidates are bad.
        """
        for place, candidate in candidates:
            if candidate.caption is None:
                self._reject(candidate, candidate.problem)
                continue
            try:
                picture = load_picture(candidate.path, self.config.max_side)
            except UNREADABLE as error:
                self._reject(candidate, str(error) or type(error).__name__)
                continue
            if picture.converted_from:
                self.converted[picture.converted_from] += 1
            # A number and not the path: a dot in a file's name would divide the key.
            yield Sample(
                key=f"{place:08d}",
                image=picture.data,
                extension=picture.extension,
                caption=candidate.caption,
                record=candidate.record,
            )

    def _reject(self, candidate: Candidate, reason: str) -> None:
        self.bad.append(BadImage(name=candidate.name, reason=reason))
        logger.warning("left out: %s", _say(self.bad[-1]))
        if len(self.bad) > self.config.max_bad_fraction * self.num_candidates:
            raise ValueError(
                f"{len(self.bad)} of {self.num_candidates} pictures are bad, more than max_bad_fraction = "
                f"{self.config.max_bad_fraction} allows: {'; '.join(_say(bad) for bad in self.bad[:5])}"
            )

    def record(self) -> dict[str, object]:
        """For dataset.json."""
        return {
            "skipped": [{"name": bad.name, "reason": bad.reason} for bad in self.bad],
            "converted": dict(sorted(self.converted.items())),
        }


def _is_validation(candidate: Candidate, config: IntakeConfig) -> bool:
    # By the picture, so that several captions of one picture stay together.
    return hash_rank(config.seed, f"val {candidate.picture}") < config.val_share * 2**64


def _say(bad: BadImage) -> str:
    return f"{bad.name} ({bad.reason})"


def _summary(out: Path, folder: ShardFolder, intake: _Intake, seconds: float) -> BuildSummary:
    notes = [f"{count} pictures were {kind} and are stored as PNG" for kind, count in sorted(intake.converted.items())]
    return BuildSummary(
        out=out,
        already_built=False,
        samples=folder.samples,
        shards=folder.shards,
        skipped=tuple(intake.bad),
        notes=tuple(notes),
        seconds=seconds,
    )
