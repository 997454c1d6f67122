"""Build the emoji shards: emoji art in three designs, with Unicode's hierarchy of groups and subgroups.

train-*             training emoji in OpenMoji's and Google's design: base images, skin-tone variants, mirrored copies
val-DESIGN-*        validation emoji, one set per design
test-DESIGN-*       held-out emoji; test-twtr: held-out emoji in the held-out design
design-twtr-*       training emoji in the held-out design
tokenizer.json      tokenizer trained on the training captions
dataset.json        splits, counts, groups, templates, attributions
ATTRIBUTION.md      credits for the art
"""

import hashlib
import io
import json
import re
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from prolip.build.emoji.art import (
    DESIGNS,
    HELD_OUT_DESIGN,
    TRAINING_DESIGNS,
    Design,
    encode_png,
    find_art,
    image_id,
    package_versions,
)
from prolip.build.emoji.attribution import ATTRIBUTIONS, attribution_page
from prolip.build.emoji.captions import (
    CHAINED_TEMPLATES,
    MAX_KEYWORDS,
    PICTURE_CAPTIONS,
    PLAIN_TEMPLATES,
    SUBGROUP_TEXTS,
    captions_by_level,
    group_text,
    keyword_captions,
    subgroup_text,
)
from prolip.build.emoji.config import EmojiConfig
from prolip.build.emoji.names import TABLE, Emoji, read_table
from prolip.build.emoji.splits import SPLITS, Split, choose_variants, split_emoji
from prolip.build.shards import (
    RECORD,
    BuildSummary,
    Json,
    Sample,
    check_replaceable,
    dump_json,
    hash_rank,
    read_complete,
    replace_folder,
)
from prolip.build.vocabulary import train_vocabulary
from prolip.errors import check

FORMAT = 2
"""Incremented when the same settings give different shards: older folders are rebuilt."""
KIND = "emoji"
_FIXED_GROUPS = ("Symbols", "Flags")
_FIXED_SUBGROUPS = ("time",)
_HAS_SIDE = re.compile(r"left|right|clockwise")
"""Emoji that say something else when mirrored, by group, subgroup or name."""


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """An emoji drawn in a design."""

    emoji: Emoji
    design: Design
    png: bytes
    image_id: str
    mirrored: bool = False

    @property
    def key(self) -> str:
        """In the shards, such as "openmoji-1f421"."""
        return f"{self.design}-{self.emoji.key.lower()}" + ("-mirrored" if self.mirrored else "")


def build_emoji(config: EmojiConfig, out: Path) -> BuildSummary:
    """Write the emoji shards to `out`, unless they exist already with the same settings."""
    started = time.monotonic()
    fingerprint = _fingerprint(config)
    record: Json | None = read_complete(out, fingerprint)
    already_built = record is not None
    if record is None:
        check_replaceable(out)
        _check_kind(out)
        sets, splits = _draw_sets(config)
        record = _write(config, out, fingerprint, sets, splits)
    seconds = time.monotonic() - started
    return BuildSummary.from_record(out, record, (), already_built=already_built, seconds=seconds)


def _check_kind(out: Path) -> None:
    """`prolip demo --data` may be pointed at a user's own shards."""
    try:
        kind = json.loads((out / RECORD).read_text(encoding="utf-8")).get("kind")
    except (FileNotFoundError, ValueError):
        return
    check(kind == KIND, out, "must not hold other shards; name a new folder", f"those of a {kind}")


def _draw_sets(config: EmojiConfig) -> tuple[dict[str, list[Drawing]], dict[str, Split]]:
    """Draw each set of shards; returns the split of each base emoji, too.

    In the held-out design, images that equal one of a training design are left out, as they test no other artist's
    style. The packages have a few files under two designs.
    """
    art = find_art()

    def draw(emoji: Emoji, design: Design) -> Drawing:
        pixels = art[design].draw(emoji.key, config.side)
        return Drawing(emoji=emoji, design=design, png=encode_png(pixels), image_id=image_id(pixels))

    base = [emoji for emoji in read_table() if not emoji.skin_tones]
    drawings = [draw(emoji, design) for design in DESIGNS for emoji in base if emoji.key in art[design].files]
    images: dict[str, set[str]] = defaultdict(set)
    for drawing in drawings:
        images[drawing.emoji.key].add(drawing.image_id)
    base = [emoji for emoji in base if emoji.key in images]
    splits = split_emoji(base, images, test_share=config.test_share, val_share=config.val_share, seed=config.seed)
    sets: dict[str, list[Drawing]] = defaultdict(list)
    for drawing in drawings:
        split, held_out_design = splits[drawing.emoji.key], drawing.design == HELD_OUT_DESIGN
        name = "train" if split == "train" else f"{split}-{drawing.design}"
        sets[f"design-{drawing.design}" if split == "train" and held_out_design else name].append(drawing)
    held_out = {one.image_id for name, own in sets.items() if name.startswith(("val-", "test-")) for one in own}
    # As many of the training emoji as make up their share of the training samples.
    by_key = {emoji.key: emoji for emoji in read_table()}
    wanted = round(len(sets["train"]) * config.skin_tone_share / (1 - config.skin_tone_share))
    chosen: list[Drawing] = []
    for place, design in enumerate(TRAINING_DESIGNS):
        bases = {drawing.emoji.name for drawing in sets["train"] if drawing.design == design}
        variants: dict[str, list[str]] = defaultdict(list)
        for emoji in by_key.values():
            if emoji.skin_tones and emoji.base_name in bases and emoji.key in art[design].files:
                variants[emoji.base_name].append(emoji.key)
        count = (wanted - len(chosen)) // (len(TRAINING_DESIGNS) - place)
        drawn = [draw(by_key[key], design) for key in choose_variants(variants, count, config.seed + place)]
        chosen += [drawing for drawing in drawn if drawing.image_id not in held_out]
    sets["train"] += chosen
    if config.mirror:
        sets["train"] += _mirrored_copies(sets["train"], held_out)
    sets["train"].sort(key=lambda drawing: hash_rank(config.seed, drawing.key))
    known = {one.image_id for own in sets.values() for one in own if one.design in TRAINING_DESIGNS}
    kept = {
        name: [one for one in own if one.design in TRAINING_DESIGNS or one.image_id not in known]
        for name, own in sets.items()
    }
    return kept, splits


def _mirrored_copies(train: Sequence[Drawing], held_out: set[str]) -> list[Drawing]:
    """Mirror the drawings whose captions stay true, unless they equal their mirror image or a held-out one."""
    copies = []
    for drawing in train:
        emoji = drawing.emoji
        if emoji.group in _FIXED_GROUPS or emoji.subgroup in _FIXED_SUBGROUPS or _HAS_SIDE.search(emoji.name):
            continue
        with Image.open(io.BytesIO(drawing.png)) as image:
            pixels = np.asarray(ImageOps.mirror(image))
        name = image_id(pixels)
        if name != drawing.image_id and name not in held_out:
            copies.append(replace(drawing, png=encode_png(pixels), image_id=name, mirrored=True))
    return copies


def _sample(drawing: Drawing) -> Sample:
    emoji = drawing.emoji
    captions = captions_by_level(emoji.name, emoji.subgroup, emoji.group)
    record = {
        "codepoint": "-".join(emoji.codepoints),
        "emoji": emoji.characters,
        "name": emoji.name,
        "base_name": emoji.base_name,
        "skin_tone": bool(emoji.skin_tones),
        "design": drawing.design,
        "mirrored": drawing.mirrored,
        "group": emoji.group,
        "subgroup": emoji.subgroup,
        "group_text": group_text(emoji.group),
        "subgroup_text": subgroup_text(emoji.subgroup),
        "keywords": list(emoji.keywords),
        "picture": drawing.image_id,
        "captions": {**captions, "keywords": keyword_captions(emoji.name, emoji.keywords)},
    }
    return Sample(key=drawing.key, image=drawing.png, extension="png", caption=emoji.name, record=record)


def _write(
    config: EmojiConfig,
    out: Path,
    fingerprint: str,
    sets: dict[str, list[Drawing]],
    splits: dict[str, Split],
) -> Json:
    train, table = sets["train"], read_table()
    captions = [
        caption
        for drawing in train
        if not drawing.mirrored
        for level in captions_by_level(drawing.emoji.name, drawing.emoji.subgroup, drawing.emoji.group).values()
        for caption in level
    ]
    vocabulary = train_vocabulary(captions, config.vocab_size)
    lengths = sorted(vocabulary.count_tokens(captions))
    with replace_folder(out) as folder:
        for name in sorted(sets):
            num_files = -(-len(sets[name]) // config.samples_per_shard)
            # A last file with few samples would divide badly among workers.
            folder.write(name, map(_sample, sets[name]), -(-len(sets[name]) // max(1, num_files)))
        folder.write_text("tokenizer.json", vocabulary.json)
        folder.write_text("ATTRIBUTION.md", attribution_page())
        return folder.finish(
            {
                "kind": KIND,
                "fingerprint": fingerprint,
                "config": asdict(config),
                "packages": package_versions(),
                "designs": {"train": list(TRAINING_DESIGNS), "held_out": HELD_OUT_DESIGN},
                "emoji": {name: sum(split == name for split in splits.values()) for name in SPLITS},
                "skin_tone_samples": sum(bool(drawing.emoji.skin_tones) for drawing in train),
                "mirrored_samples": sum(drawing.mirrored for drawing in train),
                "groups": {emoji.group: group_text(emoji.group) for emoji in table},
                "subgroups": {
                    emoji.subgroup: {"text": subgroup_text(emoji.subgroup), "group": emoji.group} for emoji in table
                },
                "templates": {
                    "plain": list(PLAIN_TEMPLATES),
                    "chained": list(CHAINED_TEMPLATES),
                    "picture": list(PICTURE_CAPTIONS),
                },
                "tokenizer": {
                    "pad_id": vocabulary.pad_id,
                    "mask_id": vocabulary.mask_id,
                    "vocab_size": vocabulary.size,
                    "context_length": config.context_length,
                    "longest": lengths[-1],
                    "median": lengths[len(lengths) // 2],
                    "truncated_share": sum(length > config.context_length for length in lengths) / len(lengths),
                },
                "pad_id": vocabulary.pad_id,
                "vocab_size": vocabulary.size,
                "attributions": ATTRIBUTIONS,
            }
        )


def _fingerprint(config: EmojiConfig) -> str:
    texts = [PLAIN_TEMPLATES, CHAINED_TEMPLATES, PICTURE_CAPTIONS, MAX_KEYWORDS, SUBGROUP_TEXTS, ATTRIBUTIONS]
    digest = hashlib.sha256(dump_json([FORMAT, KIND, asdict(config), package_versions(), texts]).encode())
    digest.update(TABLE.read_bytes())
    return digest.hexdigest()
