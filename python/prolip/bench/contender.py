"""Measure one contender: the rate of an endless stream of batches, in a process of its own.

After the first batches, which are dropped, a whole number of batches per worker is timed, so that pipelines with
several workers start and stop the clock in the same phase.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from importlib import import_module
from io import BytesIO
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any

from prolip.bench import proc_stats
from prolip.bench.config import BenchDataConfig
from prolip.errors import UserError

if TYPE_CHECKING:
    from prolip.data import BatchLoader

OURS, FLOOR = "prolip", "decode-only"
SQUARE = "prolip-square"
WARM_BATCHES = 2
"""One per worker if there are more workers."""


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """Of one contender in one round."""

    images_per_s: float
    cpu_us: float
    """Microseconds of CPU time per image, over all processes and threads."""
    others_cores: float
    """Cores kept busy by the rest of the machine. Above a few hundredths the run was disturbed."""
    first_batch_s: float
    """From opening the loader to its first batch, without imports; 0 if there are no batches."""
    rss_mb: float
    """Resident peak in MB, summed over processes."""
    pss_mb: float
    """At the end of the run in MB, with shared pages counted once."""
    import_mb: float
    """Resident peak in MB after imports."""
    pixels: float = 0.0
    """Of an image in the batch, on average."""
    padding: float = 0.0
    """Share of the batches that no image fills."""
    stage_us: dict[str, float] = field(default_factory=dict)
    """`cpu_us` divided among the loader's stages in proportion to their times; empty for other contenders."""


def run_contender(name: str, config: BenchDataConfig, shards: Sequence[str]) -> Measurement:
    """Measure in a new process, with one thread for numeric libraries."""
    os.environ["OMP_NUM_THREADS"] = "1"
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_measure, name, config, shards).result()


def _measure(name: str, config: BenchDataConfig, shards: Sequence[str]) -> Measurement:
    warnings.simplefilter("ignore")
    import torch

    from prolip.data import AugmentConfig, BatchLoader, LoaderConfig, NativeConfig
    from prolip.data.config import TokenizerConfig
    from prolip.data.device import device_batches

    if name == FLOOR:
        return _decode_only(config, shards)
    if name == "webdataset":
        return _timed(config, lambda: (images for images, _ in webdataset_batches(config, shards)))
    augment = AugmentConfig() if config.recipe == "full" else AugmentConfig(jitter_prob=0.0, gray_prob=0.0)
    native = NativeConfig(seq_lens=config.native, token_budget=config.token_budget)
    settings = LoaderConfig(
        shards=tuple(shards),
        batch_size=config.batch_size,
        image_size=config.image_size,
        native=native if config.native and name != SQUARE else None,
        augment=augment,
        tokenizer=TokenizerConfig(context_length=77),
        num_epochs=None,
        num_threads=config.threads,
    )
    if name == "prolip-float32":
        return _timed(
            config, lambda: (batch.images for batch in device_batches(BatchLoader(settings), torch.device("cpu")))
        )
    loaders: list[BatchLoader] = []

    def start() -> Iterator[Any]:
        loaders.append(BatchLoader(settings))
        return (batch.images for batch in loaders[0])

    measured = _timed(config, start)
    # Stage clocks also run while a thread waits for a core, so only their shares of the CPU time count.
    stages = loaders[0].stats().stages.items()
    busy = {stage: one.seconds for stage, one in stages if one.count and stage not in {"wait", "idle", "fetch"}}
    return replace(
        measured,
        stage_us={stage: seconds / sum(busy.values()) * measured.cpu_us for stage, seconds in busy.items()},
    )


def _timed(config: BenchDataConfig, start: Callable[[], Iterator[Any]]) -> Measurement:
    import_mb, _ = proc_stats.memory()
    opened = time.perf_counter()
    batches = map(look, start())
    next(batches)
    first_batch = time.perf_counter() - opened
    for _ in islice(batches, max(WARM_BATCHES, config.threads) - 1):
        pass
    images = pixels = places = 0
    elapsed = proc_stats.stopwatch()
    while images < config.num_images:
        for counted in islice(batches, config.threads):
            images, pixels, places = images + counted[0], pixels + counted[1], places + counted[2]
    measured = _measurement(elapsed(), images, first_batch, import_mb)
    return replace(measured, pixels=pixels / images, padding=1 - pixels / places)


def look(images: Any) -> tuple[int, int, int]:
    """Read one value; returns the numbers of images, of their pixels, and of pixels with padding."""
    if isinstance(images, dict):  # timm's
        images = images["patches"], None, None, images["patch_valid"]
    if not isinstance(images, tuple):
        images[0, 0, 0, 0]
        places = math.prod(images.shape) // 3
        return len(images), places, places
    patches, _, _, valid = images  # as in `PatchArrays` and `Patches`
    patches[0, 0, 0]
    return len(valid), int(valid.sum()) * patches.shape[-1] // 3, math.prod(patches.shape) // 3


def _decode_only(config: BenchDataConfig, shards: Sequence[str]) -> Measurement:
    """The floor: as many threads only decode the same images from memory."""
    from prolip.data import StoreConfig, decode_only

    import_mb, _ = proc_stats.memory()
    stopwatches = []

    def loaded() -> None:
        stopwatches.append(proc_stats.stopwatch())

    images, seconds = decode_only(list(shards), config.num_images, config.threads, StoreConfig(), loaded)
    return _measurement(stopwatches[0]()._replace(seconds=seconds), images, 0.0, import_mb)


def _measurement(took: proc_stats.Elapsed, images: int, first_batch: float, import_mb: float) -> Measurement:
    rss_mb, pss_mb = proc_stats.memory()
    return Measurement(
        images_per_s=images / took.seconds,
        cpu_us=took.cpu_seconds / images * 1e6,
        others_cores=took.others_cores,
        first_batch_s=first_batch,
        rss_mb=rss_mb,
        pss_mb=pss_mb,
        import_mb=import_mb,
    )


def webdataset_batches(config: BenchDataConfig, shards: Sequence[str]) -> Iterator[Any]:
    """Batches of the published models' stack: webdataset, PIL, torchvision's transforms.

    Each is a pair of normalised images f32 [B, 3, H, W] and token ids i64 [B, 77]. Shards are drawn with replacement.
    Samples are shuffled in a buffer of 5,000 that yields from 1,000 samples on. With `native`, images are patches made
    by timm, in batches as in open_clip's `NaFlexBatcher`.
    """
    try:
        import open_clip
        import webdataset

        import_module("torchvision")
        import_module("timm.data.naflex_dataset")
    except ImportError as error:
        raise UserError(
            "against", f"webdataset needs torchvision, timm 1.0.16, open_clip_torch and webdataset ({error})"
        ) from error
    tokenize = open_clip.tokenizer.SimpleTokenizer(context_length=77)
    rename = webdataset.rename(images="jpg;jpeg;png;webp", texts="txt")
    if config.native:
        tokenized = webdataset.map_dict(texts=lambda text: tokenize(text.decode())[0])
        stages = [rename, tokenized, partial(naflex_batches, config)]
    else:
        transformed = webdataset.map_dict(images=published_transform(config), texts=lambda text: tokenize(text)[0])
        batched = webdataset.batched(config.batch_size, partial=False)
        stages = [webdataset.decode("pilrgb"), rename, transformed, webdataset.to_tuple("images", "texts"), batched]
    dataset = webdataset.DataPipeline(
        webdataset.ResampledShards(list(shards)),
        webdataset.tarfile_to_samples(),
        webdataset.shuffle(5000, initial=1000),
        *stages,
    )
    workers = {"num_workers": config.threads, "multiprocessing_context": "fork"}
    yield from webdataset.WebLoader(dataset, batch_size=None, shuffle=False, **workers)


def naflex_batches(config: BenchDataConfig, samples: Iterable[dict[str, Any]]) -> Iterator[tuple[Any, Any]]:
    """Timm's dictionaries and token ids i64 [B, 77], as from open_clip's `NaFlexBatcher`.

    The sequence lengths take turns.
    """
    from PIL import Image
    from timm.data.naflex_dataset import NaFlexCollator
    from timm.data.naflex_transforms import Patchify

    samples, patchify = iter(samples), Patchify(16)
    transforms = {length: published_transform(config, length) for length in config.native}
    for length, transform in cycle(transforms.items()):
        rows = []
        for sample in islice(samples, max(1, config.token_budget // length // 8 * 8)):
            with Image.open(BytesIO(sample["images"])) as image:
                rows.append((patchify(transform(image.convert("RGB"))), sample["texts"]))
        yield NaFlexCollator(length)(rows)


def published_transform(config: BenchDataConfig, seq_len: int = 0) -> Any:
    """From a PIL image to normalised f32 [3, H, W].

    With a sequence length, to the pixels of the grid that fills it best, by timm.
    """
    from torchvision import transforms

    from prolip.data import AugmentConfig
    from prolip.images.tensors import OPENAI_MEAN, OPENAI_STD

    augment, bicubic = AugmentConfig(), transforms.InterpolationMode.BICUBIC
    if seq_len:
        from timm.data.naflex_transforms import RandomResizedCropToSequence

        crop = RandomResizedCropToSequence(16, seq_len, augment.crop_scale, augment.crop_ratio)
    else:
        crop = transforms.RandomResizedCrop(
            config.image_size, augment.crop_scale, augment.crop_ratio, interpolation=bicubic
        )
    colours = [
        transforms.RandomApply([transforms.ColorJitter(*augment.jitter)], p=augment.jitter_prob),
        transforms.RandomGrayscale(p=augment.gray_prob),
    ]
    tensor = [transforms.ToTensor(), transforms.Normalize(OPENAI_MEAN, OPENAI_STD)]
    return transforms.Compose([crop, *(colours if config.recipe == "full" else ()), *tensor])
