"""Evaluate a model on the emoji shards, beside an untrained model."""

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from prolip.data import BatchLoader, LoaderConfig
from prolip.data.tokenizer import Tokenizer
from prolip.decisions.calibration import Calibration
from prolip.demo.config import Split
from prolip.demo.data.art import DESIGNS
from prolip.demo.data.suite_datasets import TRAINED, find_shards
from prolip.demo.suite.emoji_samples import (
    CaptionBook,
    EmbeddedCaptions,
    EmojiSample,
    ImageSet,
    LabelledImages,
    evenly_spaced,
    parse_sample,
)
from prolip.demo.suite.gallery import make_gallery
from prolip.demo.suite.label_sets import calibrate_groups, measure_decisions
from prolip.demo.suite.measure_sets import (
    ClassPrompts,
    Trained,
    blurred,
    compare_view,
    correct_pairs,
    hidden_patches,
    measure_levels,
    measure_set,
    order_items,
    zoomed,
)
from prolip.demo.suite.prompt_methods import measure_prompting
from prolip.demo.suite.results import (
    DecisionFigures,
    EmojiResults,
    Headline,
    ModelFigures,
    ViewFigures,
)
from prolip.embeddings.embed import decode_images, embed_pixels, embed_texts
from prolip.errors import UserError
from prolip.gaussian import Gaussian
from prolip.metrics.retrieval import chance_recall
from prolip.models import ProLIP
from prolip.pretrained.classify import Similarity
from prolip.pretrained.preprocess import square_image_size

logger = logging.getLogger(__name__)

_OF_FIRST_SET = ("group", "group_with_prior", "subgroup", "subgroup_with_prior")
"""Headlines that are measured on the first set."""
RANDOM_SEED = 0
MAX_FOR_VIEWS = 300
"""Images per set to change and embed again: enough to know a share to three percentage points."""


class Embeddings(NamedTuple):
    """One model's Gaussians of all images and captions."""

    sets: list[LabelledImages]
    captions: EmbeddedCaptions


class Evaluated(NamedTuple):
    """The results, and the headlines per item: f64 tensors by the headline's name."""

    results: EmojiResults
    trained: dict[str, Tensor]
    random: dict[str, Tensor]
    calibration: Calibration | None
    """For the groups, fitted on validation emoji; it does not name the model. None if `results.decisions` is None."""


def evaluate_emoji(
    model: ProLIP,
    tokenizer: Tokenizer,
    data_dir: Path,
    device: torch.device,
    split: Split = "test",
    *,
    keep_ratio: float = 0.25,
) -> Evaluated:
    """Measure everything in the report, for the model and for an untrained one of the same configuration.

    Args:
        model: on `device`; its mode is restored.
        tokenizer: the model's tokenizer.
        data_dir: the folder that `prolip data build emoji` wrote.
        device: the model's device.
        split: "val" to choose settings, "test" to report. The test split has trained emoji in the held-out design, too.
        keep_ratio: share of patches to keep when patches are hidden.

    Raises:
        UserError: a shard is missing, or a sample lacks a field.
    """
    started = time.monotonic()
    image_size = square_image_size(model)
    sets = [read_set(data_dir, name, image_size) for name in set_names(split)]
    trained_emoji = sets[-1] if split == "test" else read_set(data_dir, TRAINED, image_size)
    book, prompts = gather_captions([*sets, trained_emoji])
    logger.info("evaluating %d images and %d captions", sum(len(s.samples) for s in sets), len(book.texts))

    networks = (model, untrained(model, device))
    embedded, random_embedded = (embed_everything(network, tokenizer, sets, book, device) for network in networks)
    (trained, items), (random, random_items) = (
        measure_model(network, sets, one, prompts, trained_emoji, device=device, keep_ratio=keep_ratio)
        for network, one in zip(networks, (embedded, random_embedded), strict=True)
    )
    chance = {image_set.name: chance_recall(correct_pairs(image_set.samples), 10) for image_set in sets}
    calibration, decisions = None, None
    if split == "test" and any(data_dir.glob(f"{set_names('val')[0]}-*.tar")):
        calibration, decisions = decide_groups(model, data_dir, embedded, prompts, device)
    results = EmojiResults(
        split=split,
        headlines=headlines(split, trained, random, chance),
        trained=trained,
        random=random,
        gallery=make_gallery(embedded.sets, embedded.captions),
        decisions=decisions,
        chance_recall_at_10=chance,
        seconds=time.monotonic() - started,
    )
    return Evaluated(results, items, random_items, calibration)


def decide_groups(
    model: ProLIP,
    data_dir: Path,
    embedded: Embeddings,
    prompts: ClassPrompts,
    device: torch.device,
) -> tuple[Calibration, DecisionFigures]:
    """Calibrate a model on the validation emoji of all designs, and measure decisions about held-out emoji.

    Raises:
        UserError: a set of validation emoji is missing.
    """
    validation = [read_set(data_dir, name, square_image_size(model)) for name in set_names("val")]
    similarity = similarity_of(model)
    calibration = calibrate_groups(
        [LabelledImages(one.name, embed_pixels(model, one.images, device), one.samples) for one in validation],
        embedded.captions,
        prompts,
        similarity,
        f"{data_dir} (validation emoji)",
    )
    *held_out, _ = embedded.sets
    return calibration, measure_decisions(calibration, held_out, embedded.captions, prompts, similarity)


def similarity_of(model: ProLIP) -> Similarity:
    """The scale and the bias that a model has learned."""
    bias = None if model.logit_bias is None else float(model.logit_bias.detach())
    return Similarity(float(model.logit_scale.detach().exp()), bias)


def gather_captions(sets: Sequence[ImageSet]) -> tuple[CaptionBook, ClassPrompts]:
    """Collect the distinct captions of the sets, and the prompts of every class in them."""
    samples = [sample for image_set in sets for sample in image_set.samples]
    book = CaptionBook()
    for sample in samples:
        for captions in sample.captions.values():
            book.add(captions)
    return book, ClassPrompts(samples)


def measure_model(
    model: ProLIP,
    sets: Sequence[ImageSet],
    embedded: Embeddings,
    prompts: ClassPrompts,
    trained_emoji: ImageSet,
    *,
    device: torch.device,
    keep_ratio: float,
) -> tuple[ModelFigures, dict[str, Tensor]]:
    """Measure one model by its embeddings, and by those of changed images, which are embedded here.

    Returns the figures, and the items that each headline is the mean of, f64: one per image, or one per emoji for the
    order of captions.
    """
    labelled, captions = embedded
    trained = Trained(similarity_of(model), trained_emoji.samples)
    measured = [
        measure_set(one, captions, prompts, trained, measure_views(model, image_set, one.images, device, keep_ratio))
        for image_set, one in zip(sets, labelled, strict=True)
    ]
    (_, first), (_, last) = measured[0], measured[-1]
    items = {
        **{name: first[name].double() for name in _OF_FIRST_SET},
        "recall_at_10": last["recall_at_10"].double(),
        "order_unseen": order_items(held_out(sets), captions),
        "order_seen": order_items(trained_emoji.samples, captions),
    }
    figures = ModelFigures(
        sets=[of_set for of_set, _ in measured],
        # All sets but the last are scored; the last one votes.
        prompting=[
            measure_prompting(level, prompts, captions, labelled[:-1], labelled[-1]) for level in ("group", "subgroup")
        ],
        unseen_names=measure_levels(held_out(sets), captions),
        seen_names=measure_levels(trained_emoji.samples, captions),
    )
    return figures, items


def held_out(sets: Sequence[ImageSet]) -> list[EmojiSample]:
    """Return the samples whose names are in no training caption."""
    return [sample for image_set in sets if image_set.name != TRAINED for sample in image_set.samples]


def set_names(split: Split) -> list[str]:
    """Return the names of a split's image sets. The zero-shot headlines are measured on the first one."""
    held_out = [f"{split}-{design}" for design in DESIGNS]
    return [*held_out, TRAINED] if split == "test" else held_out


def read_set(data_dir: Path, name: str, image_size: int) -> ImageSet:
    """Read the base images (no skin-tone variants) of a set, decoded and normalised.

    Raises:
        UserError: the set has no shard or no base image.
    """
    config = LoaderConfig(
        shards=tuple(map(str, find_shards(data_dir, name))),
        batch_size=128,
        image_size=image_size,
        augment=None,
        captions=(),
        mask=None,
        shuffle_window=0,
        last_batch="keep",
        keep_members=("json",),
    )
    with BatchLoader(config) as loader:
        pictures = decode_images(loader)
    samples = [parse_sample(*each) for each in zip(pictures.keys, pictures.members["json"], strict=True)]
    base = [place for place, sample in enumerate(samples) if not sample.skin_tone]
    if not base:
        raise UserError(f"{data_dir}/{name}-*.tar has no base image")
    return ImageSet(name, pictures.images[torch.tensor(base)], [samples[place] for place in base])


def untrained(model: ProLIP, device: torch.device) -> ProLIP:
    """Build an untrained model of the same configuration, without touching the global random generator."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(RANDOM_SEED)
        return ProLIP(model.config).to(device)


def embed_everything(
    model: ProLIP, tokenizer: Tokenizer, sets: Sequence[ImageSet], book: CaptionBook, device: torch.device
) -> Embeddings:
    """Embed all images and all distinct captions."""
    images = [LabelledImages(one.name, embed_pixels(model, one.images, device), one.samples) for one in sets]
    texts = embed_texts(model, tokenizer, book.texts, device)
    ids = torch.from_numpy(tokenizer.encode(book.texts))
    num_tokens = (ids != tokenizer.pad_id).sum(dim=1).double()
    return Embeddings(images, EmbeddedCaptions(book, texts, num_tokens))


def measure_views(
    model: ProLIP, image_set: ImageSet, whole: Gaussian, device: torch.device, keep_ratio: float
) -> list[ViewFigures]:
    """Compare changed images with whole ones: hidden patches (trained), blur and zoom (not trained).

    At most `MAX_FOR_VIEWS` images of a set are used.
    """
    places = torch.tensor(evenly_spaced(len(image_set.images), MAX_FOR_VIEWS))
    images, whole = image_set.images[places], whole.rows(places)
    kept = hidden_patches(len(images), model.config.vision.num_patches, keep_ratio)
    hidden = f"with {100 * (1 - keep_ratio):.0f}\u202f% of its patches hidden"
    return [
        compare_view(hidden, True, embed_pixels(model, images, device, kept), whole),
        compare_view("blurred", False, embed_pixels(model, blurred(images), device), whole),
        compare_view("zoomed to its middle half", False, embed_pixels(model, zoomed(images), device), whole),
    ]


def headlines(split: Split, trained: ModelFigures, random: ModelFigures, chance: dict[str, float]) -> list[Headline]:
    """Return the headline numbers."""
    first, last = trained.sets[0], trained.sets[-1]
    random_first, random_last = random.sets[0], random.sets[-1]
    place = "the held-out design" if split == "test" else "validation emoji in the held-out design"
    rows = [
        (
            level + way,
            f"{level.capitalize()} of a held-out emoji, {words}",
            (getattr(first, level + way).top1, getattr(random_first, level + way).top1, getattr(first, level).majority),
            f"largest {level}",
        )
        for level in ("group", "subgroup")
        for way, words in (("", "zero-shot"), ("_with_prior", f"with the {level}s' frequencies"))
    ]
    recalls = (last.image_to_text.recall_at_10, random_last.image_to_text.recall_at_10, chance[last.name])
    rows.append(("recall_at_10", f"Right caption in the first 10, {place}", recalls, "random order"))
    rows += [
        (
            name,
            f"Group caption more uncertain than the name, {words} names",
            (ours.group_over_name.share, theirs.group_over_name.share, 0.5),
            "coin",
        )
        for name, words, ours, theirs in (
            ("order_unseen", "unseen", trained.unseen_names, random.unseen_names),
            ("order_seen", "trained", trained.seen_names, random.seen_names),
        )
    ]
    return [
        Headline(name=name, label=label, trained=a, random=b, chance=c, chance_label=chance_label)
        for name, label, (a, b, c), chance_label in rows
    ]
