"""Save checkpoints in a background thread; training waits only while the state is copied to the host."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Self, TypeVar

from torch import Tensor

from prolip.checkpoint.folder import (
    Best,
    CheckpointError,
    Manifest,
    check_visible,
    checkpoint_path,
    commit,
    is_checkpoint,
    list_checkpoints,
    mark_best,
    partial_path,
    patiently,
    prune,
    record,
    set_aside,
    step_of,
    sweep,
    write_whole,
)
from prolip.checkpoint.state import NOTES, Notes, Preprocessing
from prolip.checkpoint.tensors import METADATA, TensorShare, Written
from prolip.distributed import Ranks
from prolip.errors import UserError
from prolip.store.disk_full import writing

log = logging.getLogger(__name__)

T = TypeVar("T")


class Saver:
    """Writes checkpoints into a folder that all ranks see. All ranks create one, and save at the same steps.

    A context manager that waits for the last save.
    """

    def __init__(
        self, folder: Path, ranks: Ranks, *, keep: int, after: int = 0, preprocessing: Preprocessing | None = None
    ) -> None:
        """Rank 0 sets later checkpoints aside, and marks the resumed one as the best if it was.

        Args:
            folder: no other process may save into it.
            keep: recent checkpoints to keep, plus the best.
            after: the step that the run resumes from.
            preprocessing: stored beside the weights, for inference.
        """
        self._folder, self._keep, self._preprocessing = folder, keep, preprocessing or Preprocessing()
        if ranks.rank == 0:
            sweep(folder)
            for path in list_checkpoints(folder):
                if step_of(path) > after:
                    log.warning("%s is newer than the resumed step: renamed to %s", path, set_aside(path).name)
            resumed = checkpoint_path(folder, after)
            if is_checkpoint(resumed) and patiently(resumed, lambda: Manifest(resumed)).best is not None:
                mark_best(resumed)
        self._ranks = ranks.with_own_group()  # for the thread, which exchanges during training steps
        self._share: TensorShare | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._running: Future[None] | None = None

    def save(self, notes: Notes, tensors: Mapping[str, Tensor], best: Best | None = None) -> None:
        """Start to save, after the previous save has ended. The tensors may change when this returns.

        Args:
            notes: rank 0's are written.
            tensors: the same names on all ranks, except those that only one has.
            best: the metric, if this is the best checkpoint so far.

        Raises:
            CheckpointError: the previous save failed.
        """
        self.wait()
        if self._share is None or not self._share.fits(tensors):
            self._share = TensorShare(tensors, self._ranks)
        self._share.copy(tensors)
        self._running = self._thread.submit(self._write, self._share, notes, best)

    def check(self) -> None:
        """Does not wait.

        Raises:
            CheckpointError: a save failed.
        """
        if self._running is not None and self._running.done():
            self.wait()

    def wait(self) -> None:
        """For the running save, if any.

        Raises:
            CheckpointError: it failed.
        """
        running, self._running = self._running, None
        if running is not None:
            running.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        try:
            self.wait()
        except CheckpointError as failure:
            if kind is None:
                raise
            log.error("%s", failure)
        finally:
            self._thread.shutdown()

    # ---- In the thread ----

    def _write(self, share: TensorShare, notes: Notes, best: Best | None) -> None:
        path = checkpoint_path(self._folder, notes.step)
        written, failure = _attempt(lambda: share.write(partial_path(path)))
        try:
            of_ranks = self._ranks.gather((written, failure))
            if self._ranks.rank == 0:
                failure = next((f"rank {rank}: {why}" for rank, (_, why) in enumerate(of_ranks) if why), None)
                if failure is None:
                    complete = [one for one, _ in of_ranks if one is not None]
                    _, failure = _attempt(lambda: self._commit(share, path, notes, best, complete))
            failure = self._ranks.broadcast(failure)
        except RuntimeError as error:  # another rank died
            failure = str(error)
        if failure is not None:
            raise CheckpointError(f"{path} could not be saved", failure)

    def _commit(self, share: TensorShare, path: Path, notes: Notes, best: Best | None, written: list[Written]) -> None:
        partial = partial_path(path)
        files = {name: about for of_rank in written for name, about in of_rank.files.items()}
        check_visible(partial, files)
        with writing(partial):
            files[METADATA] = share.write_metadata(partial, written)
            inputs = self._preprocessing
            notes = dataclasses.replace(notes, tokenizer=inputs.tokenizer, images=inputs.images)
            state = json.dumps(dataclasses.asdict(notes), indent=1).encode()
            for name, content in {NOTES: state, **inputs.files}.items():
                write_whole(partial / name, content)
                files[name] = record(partial / name)
            commit(path, files, best)
        if best is not None:
            mark_best(path)
        prune(self._folder, keep=self._keep)


def _attempt(work: Callable[[], T]) -> tuple[T | None, str | None]:
    """Nothing may be raised, because other ranks wait."""
    try:
        return work(), None
    except (OSError, RuntimeError, UserError) as error:  # torch's writers wrap some OSErrors
        return None, str(error)
    except Exception as error:  # a bug
        log.exception("a checkpoint could not be saved")
        return None, repr(error)
