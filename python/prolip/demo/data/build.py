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
import logging
import re
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from prolip.data.build.shards import (
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
from prolip.demo.config import EmojiConfig
from prolip.demo.data.art import (
    DESIGNS,
    HELD_OUT_DESIGN,
    TRAINING_DESIGNS,
    Art,
    Design,
    encode_png,
    find_art,
    image_id,
    package_versions,
)
from prolip.demo.data.attribution import ATTRIBUTIONS, attribution_page
from prolip.demo.data.captions import (
    MAX_KEYWORDS,
    PICTURE_CAPTIONS,
    SUBGROUP_TEXTS,
    captions_by_level,
    group_text,
    keyword_captions,
    subgroup_text,
)
from prolip.demo.data.names import TABLE, Emoji, read_table
from prolip.demo.data.splits import SPLITS, Split, choose_variants, split_emoji
from prolip.demo.data.vocabulary import Vocabulary, train_vocabulary
from prolip.errors import UserError
from prolip.evaluation.templates import CHAINED_TEMPLATES, PLAIN_TEMPLATES

logger = logging.getLogger(__name__)

FORMAT = 2
"""Incremented when the same settings give different shards, so that folders of an older format are rebuilt."""
KIND = "emoji"
_FIXED_GROUPS = ("Symbols", "Flags")
_FIXED_SUBGROUPS = ("time",)
_HAS_SIDE = re.compile(r"left|right|clockwise")
"""Groups, subgroups and names of emoji that say something else when mirrored, such as one flag in place of another."""


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """An emoji drawn in a design."""

    emoji: Emoji
    design: Design
    png: bytes
    image_id: str
    """Equal for equal images."""
    mirrored: bool = False
    """Whether left and right are exchanged."""

    @property
    def key(self) -> str:
        """Key of the sample in the shards, such as "openmoji-1f421"."""
        return f"{self.design}-{self.emoji.key.lower()}" + ("-mirrored" if self.mirrored else "")


def build_emoji(config: EmojiConfig, out: Path) -> BuildSummary:
    """Write the emoji shards to `out`, unless they exist already with the same settings.

    Raises:
        ValueError: a package of art is not installed, or `out` holds other files than emoji shards.
    """
    started = time.monotonic()
    fingerprint = _fingerprint(config)
    found = read_complete(out, fingerprint)
    if found is not None:
        return _summary(out, found, already_built=True, started=started)
    check_replaceable(out)
    _check_kind(out)
    art = find_art()
    base = [emoji for emoji in read_table() if not emoji.skin_tones]
    draw = partial(_draw, art, config.side)
    drawings = [draw(emoji, design) for design in DESIGNS for emoji in base if emoji.key in art[design].files]
    images: dict[str, set[str]] = {emoji.key: set() for emoji in base}
    for drawing in drawings:
        images[drawing.emoji.key].add(drawing.image_id)
    base = [emoji for emoji in base if images[emoji.key]]
    splits = split_emoji(base, images, test_share=config.test_share, val_share=config.val_share, seed=config.seed)
    sets = _assign_to_sets(drawings, splits)
    held_out = {
        drawing.image_id
        for name, drawings in sets.items()
        if name.startswith(("val-", "test-"))
        for drawing in drawings
    }
    sets["train"] += _variants(config, art, draw, sets["train"], held_out)
    if config.mirror:
        sets["train"] += _mirrored_copies(sets["train"], held_out)
    sets["train"].sort(key=lambda drawing: hash_rank(config.seed, drawing.key))
    num_copies = _drop_copies(sets)
    logger.info("skipped %d images of %s that equal one of another design", num_copies, HELD_OUT_DESIGN)
    _check_disjoint(sets, splits)
    record = _write(config, out, fingerprint, sets, splits)
    return _summary(out, record, already_built=False, started=started)


def _check_kind(out: Path) -> None:
    """Check that the shards to replace are emoji: `prolip demo --data` may be pointed at a user's own shards.

    Raises:
        UserError: they are not.
    """
    try:
        kind = json.loads((out / RECORD).read_text(encoding="utf-8")).get("kind")
    except (FileNotFoundError, ValueError):
        return
    if kind != KIND:
        raise UserError(f"{out} holds other shards (of a {kind}), which emoji would replace: name a new folder")


def _draw(art: dict[Design, Art], side: int, emoji: Emoji, design: Design) -> Drawing:
    pixels = art[design].draw(emoji.key, side)
    return Drawing(emoji=emoji, design=design, png=encode_png(pixels), image_id=image_id(pixels))


def _assign_to_sets(drawings: Sequence[Drawing], splits: dict[str, Split]) -> dict[str, list[Drawing]]:
    """Group the drawings of base emoji by set of shards, in Unicode's order."""
    sets: dict[str, list[Drawing]] = {"train": []}
    for drawing in drawings:
        split = splits[drawing.emoji.key]
        if split != "train":
            name = f"{split}-{drawing.design}"
        elif drawing.design == HELD_OUT_DESIGN:
            name = f"design-{drawing.design}"
        else:
            name = "train"
        sets.setdefault(name, []).append(drawing)
    return sets


def _variants(
    config: EmojiConfig,
    art: dict[Design, Art],
    draw: Callable[[Emoji, Design], Drawing],
    train: Sequence[Drawing],
    held_out: set[str],
) -> list[Drawing]:
    """Choose skin-tone variants of the training emoji, so that they are `skin_tone_share` of the training samples."""
    wanted = round(len(train) * config.skin_tone_share / (1 - config.skin_tone_share))
    by_key = {emoji.key: emoji for emoji in read_table()}
    chosen: list[Drawing] = []
    for place, design in enumerate(TRAINING_DESIGNS):
        bases = {drawing.emoji.name for drawing in train if drawing.design == design}
        variants: dict[str, list[str]] = defaultdict(list)
        for emoji in by_key.values():
            if emoji.skin_tones and emoji.base_name in bases and emoji.key in art[design].files:
                variants[emoji.base_name].append(emoji.key)
        count = (wanted - len(chosen)) // (len(TRAINING_DESIGNS) - place)
        drawn = [draw(by_key[key], design) for key in choose_variants(variants, count, config.seed + place)]
        chosen += [drawing for drawing in drawn if drawing.image_id not in held_out]
    return chosen


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


def _drop_copies(sets: dict[str, list[Drawing]]) -> int:
    """Drop images of the held-out design that equal an image of a training design, in every split.

    The packages have a few files under two designs. In the held-out design they would not test another artist's style.

    Returns:
        The number of dropped images.
    """
    known = {d.image_id for drawings in sets.values() for d in drawings if d.design in TRAINING_DESIGNS}
    dropped = 0
    for name, drawings in sets.items():
        kept = [d for d in drawings if d.design in TRAINING_DESIGNS or d.image_id not in known]
        dropped += len(drawings) - len(kept)
        sets[name] = kept
    return dropped


def _check_disjoint(sets: dict[str, list[Drawing]], splits: dict[str, Split]) -> None:
    """Check that no set shares images or emoji with the training set, just before they are written."""
    trained = sets["train"]
    images = {drawing.image_id for drawing in trained}
    stems = {stem for drawing in trained for stem in drawing.emoji.stems}
    for name, drawings in sets.items():
        if name == "train":
            continue
        assert not images & {drawing.image_id for drawing in drawings}, f"{name} has a training image"
        if not name.startswith("design-"):
            own = {stem for drawing in drawings for stem in drawing.emoji.stems}
            assert not stems & own, f"{name} has a trained emoji"
    for drawing in trained:
        assert drawing.emoji.skin_tones or splits[drawing.emoji.key] == "train", drawing.key


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
    """Write the folder; returns its record."""
    samples = {name: [_sample(drawing) for drawing in drawings] for name, drawings in sets.items()}
    captions = [
        caption
        for drawing in sets["train"]
        if not drawing.mirrored
        for level in captions_by_level(drawing.emoji.name, drawing.emoji.subgroup, drawing.emoji.group).values()
        for caption in level
    ]
    vocabulary = train_vocabulary(captions, config.vocab_size)
    with replace_folder(out) as folder:
        for name in sorted(samples):
            num_files = -(-len(samples[name]) // config.samples_per_shard)
            # Files of about equal size: a last file with few samples would divide badly among workers.
            folder.write(name, samples[name], -(-len(samples[name]) // max(1, num_files)))
        folder.write_text("tokenizer.json", vocabulary.json)
        folder.write_text("ATTRIBUTION.md", attribution_page())
        return folder.finish(
            {
                "kind": KIND,
                "fingerprint": fingerprint,
                "config": asdict(config),
                "packages": package_versions(),
                **_description(config, sets, splits, vocabulary, captions),
            }
        )


def _description(
    config: EmojiConfig,
    sets: dict[str, list[Drawing]],
    splits: dict[str, Split],
    vocabulary: Vocabulary,
    captions: Sequence[str],
) -> dict[str, object]:
    table = read_table()
    lengths = sorted(vocabulary.count_tokens(captions))
    return {
        "designs": {"train": list(TRAINING_DESIGNS), "held_out": HELD_OUT_DESIGN},
        "emoji": {name: sum(split == name for split in splits.values()) for name in SPLITS},
        "skin_tone_samples": sum(bool(drawing.emoji.skin_tones) for drawing in sets["train"]),
        "mirrored_samples": sum(drawing.mirrored for drawing in sets["train"]),
        "groups": {group: group_text(group) for group in dict.fromkeys(emoji.group for emoji in table)},
        "subgroups": {
            subgroup: {"text": subgroup_text(subgroup), "group": group}
            for subgroup, group in {emoji.subgroup: emoji.group for emoji in table}.items()
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


def _fingerprint(config: EmojiConfig) -> str:
    """Hash everything that determines the shards: settings, packages, names, templates and the format."""
    texts = [PLAIN_TEMPLATES, CHAINED_TEMPLATES, PICTURE_CAPTIONS, MAX_KEYWORDS, SUBGROUP_TEXTS, ATTRIBUTIONS]
    digest = hashlib.sha256(dump_json([FORMAT, KIND, asdict(config), package_versions(), texts]).encode())
    digest.update(TABLE.read_bytes())
    return digest.hexdigest()


def _summary(out: Path, record: Json, *, already_built: bool, started: float) -> BuildSummary:
    samples, tokenizer = record["samples"], record["tokenizer"]
    assert isinstance(samples, dict), "written by finish"
    assert isinstance(tokenizer, dict), "written by _description"
    notes = (
        f"{record['skin_tone_samples']} of {samples['train']} training samples are skin-tone variants",
        f"tokenizer: {tokenizer['vocab_size']} pieces; training captions have {tokenizer['median']} tokens (median), "
        f"{tokenizer['longest']} at most; {tokenizer['truncated_share']:.2%} have over {tokenizer['context_length']}",
    )
    seconds = time.monotonic() - started
    return BuildSummary.from_record(out, record, notes, already_built=already_built, seconds=seconds)
