"""Measure one decoder in its own process, which answers each line with a request by a line with the result.

The first argument names the decoder. Once the decoder is open, the process writes `READY`. All files of a folder are
read before the clock starts.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prolip.bench import proc_stats
from prolip.bench.decoders import DECODERS, Decode
from prolip.bench.task import Message, Turn

READY = "ready"
"""The first line of the standard output."""
BATCH = 32
"""Images per batch of the torch `DataLoader`."""


@dataclass(frozen=True, kw_only=True)
class Request(Message):
    """What to decode."""

    folder: str
    """Folder of JPEG files."""
    images: int
    """Images to decode, repeating the folder's files; 0 to compute checksums of all pixels instead."""
    workers: int | None = None
    """Worker processes of a torch `DataLoader`; None to decode in a loop without one."""


def main() -> int:
    """Answer each request, until the standard input ends."""
    warnings.simplefilter("ignore")
    answers = Answers(DECODERS[sys.argv[1]].open())
    sys.stdout.write(f"{READY}\n")
    sys.stdout.flush()
    for line in sys.stdin:
        request = Request.from_json(line)
        # Before a folder is timed, its pixels are compared, which also warms everything up.
        text = json.dumps(answers.checksums(request.folder)) if request.images == 0 else answers.time(request).to_json()
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()
    return 0


class Answers:
    """Decodes the files of folders. It keeps the files in memory, and the data loaders, whose workers stay alive."""

    def __init__(self, decode: Decode):
        self.decode = decode
        self.folders: dict[str, list[bytes]] = {}
        self.loaders: dict[Request, Any] = {}

    def files(self, folder: str) -> list[bytes]:
        """Return the files of a folder in the order of their names."""
        if folder not in self.folders:
            self.folders[folder] = [path.read_bytes() for path in sorted(Path(folder).iterdir())]
        return self.folders[folder]

    def checksums(self, folder: str) -> list[int]:
        """Return a checksum of each file's pixels."""
        import numpy as np

        return [zlib.crc32(np.ascontiguousarray(self.decode(data)).data) for data in self.files(folder)]

    def time(self, request: Request) -> Turn:
        """Decode the images of a request."""
        images = self._loop(request) if request.workers is None else self._loaded(request)
        next(images)
        before = proc_stats.cpu_seconds(proc_stats.tree())
        own, started = time.process_time(), time.perf_counter()
        count = sum(images)
        seconds, cpu = time.perf_counter() - started, time.process_time() - own
        if request.workers:
            # The process's clock leaves out its workers. The system's includes them, in ticks of 10 ms.
            cpu = proc_stats.cpu_seconds(proc_stats.tree()) - before
        return Turn(images_per_s=count / seconds, cpu_us=cpu / count * 1e6)

    def _loop(self, request: Request) -> Iterator[int]:
        """Yield 0 at the start, and then 1 after each image."""
        files = self.files(request.folder)
        yield 0
        for number in range(request.images):
            self.decode(files[number % len(files)])
            yield 1

    def _loaded(self, request: Request) -> Iterator[int]:
        """Yield 0 at the start, and then the size of each batch of a torch `DataLoader`.

        Images have many sizes, so a batch is a list.
        """
        import torch
        from torch.utils.data import DataLoader

        torch.set_num_threads(1)
        if request not in self.loaders:
            files: Any = _Files(self.files(request.folder), self.decode, request.images)
            workers = request.workers or 0
            loader: Any = DataLoader(
                files, BATCH, collate_fn=list, num_workers=workers, persistent_workers=bool(workers)
            )
            # Workers start, and import what they need.
            for _ in loader:
                pass
            self.loaders[request] = loader
        yield 0
        for batch in self.loaders[request]:
            yield len(batch)


class _Files:
    """A torch data set of decoded files, as tensors [H, W, 3]."""

    def __init__(self, files: list[bytes], decode: Decode, length: int):
        self.files, self.decode, self.length = files, decode, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, number: int) -> Any:
        import numpy as np
        import torch

        return torch.from_numpy(np.require(self.decode(self.files[number % len(self.files)]), requirements="W"))


if __name__ == "__main__":
    sys.exit(main())
