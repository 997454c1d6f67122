"""Loader and JPEG decoder at each level of vector instructions, beside other decoders and their targets.

    python -m tests.bench.targets --images DIR

The loader (full recipe) is compared with the floor: libjpeg-turbo decoding every pixel on as many threads. Its native
batches are compared with open_clip's NaFlex, and with square batches of as many patches. Decoders
decode whole files from memory to RGB on one thread. The three sets of files are photographs as they are, at most 512
pixels long with quality 95, and progressive with quality 90. Everything takes turns, each in a process of its own, and
a ratio is the median over the rounds, with the lowest and the highest in brackets.
"""

import argparse
import math
import multiprocessing
import os
import statistics
import tempfile
import time
import zlib
from collections.abc import Callable
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from prolip.bench.config import BenchDataConfig
from prolip.bench.contender import FLOOR, OURS, SQUARE, run_contender
from prolip.build.config import FolderConfig
from prolip.build.folder import build_folder
from prolip.data import StoreConfig, decode, expand_shards, simd_levels
from prolip.report.text_table import align

LEVEL = "PROLIP_SIMD"
LIBJPEG = "libjpeg-turbo"
LOADER_TARGETS = {
    "avx512": {"as they are": 1.45, "at most 512": 1.40},
    "avx2": {"as they are": 1.15, "at most 512": 1.05},
    "neon": {"as they are": 0.90, "at most 512": 0.85},
}
"""For each level, the rate of the loader over that of the floor."""
DECODE_TARGETS = {"as they are": 1.6, "at most 512": 1.6, "progressive": 1.3}
"""At the fastest level: rate over that of the best other decoder, for progressive files over libjpeg-turbo's."""
PATCHES = 196
NATIVE_TARGET, PIXEL_TARGET = 6.0, 0.9
"""Native batches: rate over that of open_clip's NaFlex, and pixels per CPU time over that of square batches."""
GPU_IMAGES = 2400
"""Images per second that an H100 consumes in training a ViT-B/16."""
BATCH = 256
Decode = Callable[[bytes], Any]


def _opencv():
    import cv2

    cv2.setNumThreads(0)
    return lambda data: cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)


def _torchvision():
    import torch
    from torchvision.io import ImageReadMode, decode_jpeg

    torch.set_num_threads(1)
    return lambda data: decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), ImageReadMode.RGB).permute(
        1, 2, 0
    )


def _simplejpeg():
    import simplejpeg

    return lambda data: simplejpeg.decode_jpeg(data, "RGB")


def _kornia():
    import kornia_rs

    return lambda data: kornia_rs.io.decode_image_jpegturbo(data, "rgb")


def _zune():
    import kornia_rs

    decode_image = kornia_rs.io.decode_image_jpeg
    return decode_image


OTHERS = {
    # At the level `portable` our binding gives every file to libjpeg-turbo, which uses its own vector instructions.
    LIBJPEG: lambda: decode,
    "pillow": lambda: lambda data: np.asarray(Image.open(BytesIO(data)).convert("RGB")),
    "simplejpeg": _simplejpeg,
    "opencv": _opencv,
    "torchvision": _torchvision,
    "kornia-rs": _kornia,
    "zune-jpeg, in kornia-rs": _zune,
}
"""Opens each decoder, a function from a file's bytes to pixels [H, W, 3]."""


class Turn(NamedTuple):
    """One side in one round."""

    images_per_s: float
    cpu_us: float
    """CPU time per image in microseconds."""


class DecoderProcess:
    """A decoder in a process of its own, which decodes only in its turn."""

    def __init__(self, name, level):
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        if level is not None:
            os.environ[LEVEL] = level
        self.process = context.Process(target=_serve, args=(theirs, name), daemon=True)
        self.process.start()
        os.environ.pop(LEVEL, None)
        self.failed = self._pipe.recv()

    def ask(self, folder, images):
        """A turn on a folder's files; for 0 images, checksums of the pixels of all files."""
        self._pipe.send((folder, images))
        return self._pipe.recv()


def _serve(pipe, name):
    try:
        read = OTHERS[name]() if name in OTHERS else decode
    except (ImportError, OSError, RuntimeError) as error:
        return pipe.send(f"{type(error).__name__}: {error}")
    pipe.send(None)
    while True:
        folder, count = pipe.recv()
        files = [path.read_bytes() for path in sorted(folder.iterdir())]
        if not count:
            pipe.send([zlib.crc32(np.ascontiguousarray(read(data)).data) for data in files])
            continue
        clock, cpu = time.perf_counter(), time.process_time()
        for number in range(count):
            read(files[number % len(files)])
        pipe.send(Turn(count / (time.perf_counter() - clock), (time.process_time() - cpu) / count * 1e6))


def write_sets(images, into):
    """The folders of the sets of files made of a folder's JPEG files."""
    folders = {name: into / name.replace(" ", "-") for name in DECODE_TARGETS}
    for folder in folders.values():
        folder.mkdir()
    for path in sorted(images.iterdir()):
        if path.suffix.lower() not in {".jpg", ".jpeg"}:
            continue
        with Image.open(path) as image:
            if image.mode not in {"RGB", "L"}:
                continue  # not all decoders convert CMYK to RGB
            pixels = image.convert("RGB")
        (folders["as they are"] / path.name).symlink_to(path.absolute())
        pixels.save(folders["progressive"] / path.name, "JPEG", quality=90, progressive=True)
        pixels.thumbnail((512, 512))
        pixels.save(folders["at most 512"] / path.name, "JPEG", quality=95, subsampling="4:2:0")
    return folders


def row(what, ours, against, theirs, target):
    """A line of the table."""
    ratios = [one.images_per_s / other.images_per_s for one, other in zip(ours, theirs, strict=True)]
    by_cpu = [other.cpu_us / one.cpu_us for one, other in zip(ours, theirs, strict=True) if one.cpu_us]
    median, verdict = statistics.median(ratios), "-"
    if target is not None:
        how = "" if min(ratios) >= target or max(ratios) < target else " by median"
        verdict = f"{'met' if median >= target else 'missed'}{how}"
    cpu = statistics.median(one.cpu_us for one in ours)
    spread = f"{median:.2f} ({min(ratios):.2f} - {max(ratios):.2f})"
    cells = [f"{statistics.median(one.images_per_s for one in ours):,.0f}", against, spread]
    cells.append(f"{statistics.median(by_cpu):.2f}" if by_cpu else "-")
    return [what, *cells, "-" if target is None else f"{target:.2f}", verdict, f"{cpu:,.0f}"]


def write_shards(options, photographs, into):
    """The shards of the sets of photographs."""
    shards = {}
    for name, longest in (("as they are", None), ("at most 512", 512)):
        out = into / f"shards-{longest}"
        built = build_folder(FolderConfig(images=photographs, captions="name", max_side=longest), out)
        # A batch needs more samples than a small folder has.
        copies = math.ceil(4 * options.batch_size / sum(built.samples.values()))
        shards[name] = expand_shards([f"{out}/*.tar"], StoreConfig()) * copies
    return shards


def measure_loader(options, shards):
    """Rows of the loader at each level, beside the floor."""
    turns = {}
    config = BenchDataConfig(
        shards=("",),
        threads=options.threads,
        num_images=options.num_images,
        batch_size=options.batch_size,
    )
    for _ in range(options.repeats):
        for name, paths in shards.items():
            for level in (*options.levels, FLOOR):
                if level != FLOOR:
                    os.environ[LEVEL] = level
                found = run_contender(FLOOR if level == FLOOR else OURS, config, paths)
                os.environ.pop(LEVEL, None)
                turns.setdefault((name, level), []).append(Turn(found.images_per_s, found.cpu_us))
    return [
        row(
            f"loader, {name}, {level}",
            turns[name, level],
            "floor",
            turns[name, FLOOR],
            LOADER_TARGETS.get(level, {}).get(name),
        )
        for name in shards
        for level in options.levels
    ]


def measure_native(options, shards):
    """Rows of native batches of as many patches as square ones, at the fastest level."""
    config = BenchDataConfig(
        shards=("",),
        threads=options.threads,
        num_images=options.num_images,
        batch_size=options.batch_size,
        native=(PATCHES,),
        token_budget=options.batch_size * PATCHES,
    )
    found = {OURS: [], SQUARE: [], "webdataset": []}
    os.environ[LEVEL] = options.levels[0]
    for _ in range(options.repeats):
        for name, measured in found.items():
            measured.append(run_contender(name, config, shards))
    os.environ.pop(LEVEL)
    turns = {name: [Turn(one.images_per_s, one.cpu_us) for one in measured] for name, measured in found.items()}
    pixels = {
        name: [Turn(one.pixels / max(1.0, one.cpu_us), one.cpu_us) for one in measured]
        for name, measured in found.items()
    }
    return [
        row(f"{OURS}, native", turns[OURS], "NaFlex", turns["webdataset"], NATIVE_TARGET),
        row(f"{OURS}, pixels/us", pixels[OURS], SQUARE, pixels[SQUARE], PIXEL_TARGET),
    ]


def measure_decoders(options, folders):
    """Rows of our decoder at each level beside the best of the others, and of every other decoder."""
    rows = []
    with ExitStack() as stack:
        sides = {level: DecoderProcess(OURS, level) for level in options.levels}
        for name in OTHERS:
            side = DecoderProcess(name, "portable" if name == LIBJPEG else None)
            if side.failed:
                print(f"{name} cannot be used: {side.failed}")
            else:
                sides[name] = side
        for side in sides.values():
            stack.callback(side.process.kill)
        for files, folder in folders.items():
            sums = {name: side.ask(folder, 0) for name, side in sides.items()}
            turns = {name: [] for name in sides}
            for _ in range(options.repeats):
                for name, side in sides.items():
                    turns[name].append(side.ask(folder, options.decode_images))
            others = [name for name in sides if name in OTHERS]
            best = max(others, key=lambda name: statistics.median(turn.images_per_s for turn in turns[name]))
            best = LIBJPEG if files == "progressive" else best
            for level in options.levels:
                target = DECODE_TARGETS[files] if level == options.levels[0] else None
                rows.append(row(f"decode, {files}, {level}", turns[level], best, turns[best], target))
            for name in others:
                same = np.mean([one == other for one, other in zip(sums[name], sums["pillow"], strict=True)])
                ours = turns[options.levels[0]]
                rows.append(
                    row(f"decode, {files}, {options.levels[0]}", ours, f"{name} ({same:.1%})", turns[name], None)
                )
    return rows


def main(words=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="folder of JPEG files")
    parser.add_argument("--levels", nargs="+", default=simd_levels()[::-1], help="vector instructions, fastest first")
    for name, default in (("threads", 2), ("repeats", 5), ("num_images", 1024), ("decode_images", 250)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--batch_size", type=int, default=BATCH)
    options = parser.parse_args(words)
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as place:
        folders = write_sets(options.images, Path(place))
        shards = write_shards(options, folders["as they are"], Path(place))
        rows = [*measure_loader(options, shards), *measure_native(options, shards["as they are"])]
        rows += measure_decoders(options, folders)
    heads = ["", "images/s", "against", "ratio", "by CPU time", "target", "", "CPU us"]
    print("\n".join(align([heads, *rows])))
    print("against a decoder, in brackets: share of files with Pillow's pixels")
    print(f"cores for one GPU: CPU us of the loader * {GPU_IMAGES / 1e6}")


if __name__ == "__main__":
    main()
