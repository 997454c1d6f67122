"""Read the images and captions of shards and folders that the page shows."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, zip_longest
from pathlib import Path

from prolip.build.config import FolderConfig
from prolip.build.folder import candidate_of
from prolip.data import DataError, expand_shards, without_secrets
from prolip.data.samples import CLASS_MEMBER, EXTENSIONS, captions_at, encoded_image, file_name, label_at, read_members
from prolip.embeddings.inputs import plan_inputs
from prolip.errors import UserError
from prolip.explore.config import ExploreOptions

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Item:
    """A sample."""

    name: str
    """The image's file name; SHARD/KEY, without the shard's extension, if that is unknown."""
    image: bytes | Path
    captions: tuple[str, ...]
    """Distinct captions, in the order of `caption_key`."""
    label: str | None = None

    @property
    def title(self) -> str:
        """The first caption, unless it is the label, and the name."""
        return " · ".join([*(caption for caption in self.captions[:1] if caption != self.label), self.name])


Sample = tuple[str, bytes | Path, dict[str, bytes | None]]
"""Name, image, and members: txt and json."""


def read_items(options: ExploreOptions) -> list[Item]:
    """Read the first `max_items` samples of shards and folders in turn.

    Samples without an image are skipped, and those whose captions or label cannot be read, which are named.
    Of a folder of shards with a test set, only that is read. Folders of images are read as `prolip data build folder`
    does, one image of each class after the other. From a list of captions, the first is used.
    """
    both = zip_longest(_of_shards(options), _of_folders(options))
    items = []
    for name, image, members in islice((sample for pair in both for sample in pair if sample), options.max_items):
        try:
            found = [captions_at(name, members, path)[:1] for path in options.caption_key]
            label = label_at(name, members, options.class_key)
        except DataError as error:
            log.warning("skipped: %s", error)
            continue
        captions = dict.fromkeys(caption for some in found for caption in some if caption)
        items.append(Item(file_name(name, members["json"]) or name, image, tuple(captions), label))
    if not items and options.shards:
        raise UserError("shards", "must have images", ", ".join(map(without_secrets, options.shards)))
    return items


def _of_shards(options: ExploreOptions) -> Iterator[Sample]:
    patterns = []
    for source in options.shards:
        folder, pattern = Path(source), source
        if source and folder.is_dir():
            pattern = str(folder / ("test-*.tar" if any(folder.glob("test-*.tar")) else "*.tar"))
        patterns.append(pattern)
    for shard in expand_shards(patterns, options.store) if patterns else []:
        for key, members in read_members(shard, ("txt", "json", CLASS_MEMBER, *EXTENSIONS), options.store):
            yield f"{Path(without_secrets(shard)).stem}/{key}", encoded_image(members) or b"", members


def _of_folders(options: ExploreOptions) -> Iterator[Sample]:
    inputs = plan_inputs([], options.images, [], options.max_items, options.store)
    paths = [(Path(source.address), Path(source.address, name)) for source in inputs for name in source.items]
    turns = Counter[Path]()

    def turn(place: tuple[Path, Path]) -> int:
        turns[place[1].parent] += 1
        return turns[place[1].parent]

    for folder, path in sorted(paths, key=turn):
        found = candidate_of(path, FolderConfig(images=folder))
        text = path.with_suffix(".txt")
        caption = text.read_bytes() if text.is_file() else "".join(found.captions[:1]).encode()
        yield found.name, path, {"txt": caption, "json": json.dumps(found.record).encode()}
