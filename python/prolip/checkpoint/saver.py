"""Save checkpoints in a background thread; a training step waits only while the state is copied to the host."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, Self

from torch import Tensor
from torch.distributed.checkpoint.storage import WriteResult

from prolip.checkpoint.folder import (
    Best,
    CheckpointError,
    FileRecord,
    checkpoint_path,
    commit,
    differing_file,
    is_checkpoint,
    list_checkpoints,
    mark_best,
    partial_path,
    prune,
    record,
    set_aside,
    step_of,
    sweep,
    write_whole,
)
from prolip.checkpoint.state import NOTES, Carried, Notes
from prolip.checkpoint.tensors import METADATA, Part
from prolip.checkpoint.verified import load_replaceable
from prolip.distributed import Ranks
from prolip.errors import UserError
from prolip.files import writing

log = logging.getLogger(__name__)


class _Written(NamedTuple):
    """A rank's written files, or why writing failed."""

    results: list[WriteResult]
    files: dict[str, FileRecord]
    failure: str | None
    """The reason; None after a success."""


class Saver:
    """Writes checkpoints into a folder that all ranks see. All ranks create one, and save at the same steps.

    Use it as a context manager: it waits for the last save.
    """

    def __init__(self, folder: Path, ranks: Ranks, *, keep: int, after: int = 0, carried: Carried | None = None):
        """Rank 0 sets checkpoints of later steps aside, because the run will reach these steps again.

        The link to the best checkpoint may have led to one of them, or the process may have died before it moved the
        link to the checkpoint that the run resumes from. If that was the best when it was saved, it is so again.

        Args:
            folder: folder of the checkpoints; no other process may save into it.
            ranks: this process's rank.
            keep: recent checkpoints to keep, plus the best.
            after: the step that the run resumes from.
            carried: stored beside the weights, so that a checkpoint is all that inference needs.
        """
        self._folder, self._keep, self._carried = folder, keep, carried or Carried()
        if ranks.rank == 0:
            sweep(folder)
            for path in list_checkpoints(folder):
                if step_of(path) > after:
                    log.warning("%s is newer than the resumed step: renamed to %s", path, set_aside(path).name)
            resumed = checkpoint_path(folder, after)
            if is_checkpoint(resumed) and load_replaceable(resumed, lambda files: files.best) is not None:
                mark_best(resumed)
        self._ranks = ranks.with_own_group()  # for the thread, which exchanges during training steps
        self._part: Part | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._running: Future[None] | None = None

    def save(self, notes: Notes, tensors: Mapping[str, Tensor], best: Best | None = None) -> None:
        """Start to save, after the previous save has ended. The tensors may change when this returns.

        Args:
            notes: the state that is not a tensor; rank 0's is written.
            tensors: the same names on all ranks, except those that only one rank has.
            best: why this is the best checkpoint so far; None if it is not.

        Raises:
            CheckpointError: the previous save failed.
        """
        self.wait()
        if self._part is None or not self._part.fits(tensors):
            self._part = Part(tensors, self._ranks)
        self._part.copy(tensors)
        self._running = self._thread.submit(self._write, self._part, notes, best)

    def check(self) -> None:
        """Raise if a finished save failed; does not wait.

        Raises:
            CheckpointError: a save failed; the message names the checkpoint and the reason.
        """
        if self._running is not None and self._running.done():
            self.wait()

    def wait(self) -> None:
        """Wait for the running save, if any.

        Raises:
            CheckpointError: it failed; the message names the checkpoint and the reason.
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

    def _write(self, part: Part, notes: Notes, best: Best | None) -> None:
        path = checkpoint_path(self._folder, notes.step)
        failure: str | None
        try:
            written = self._ranks.gather(_write_part(part, partial_path(path)))
            failure = self._commit(part, path, notes, best, written) if self._ranks.rank == 0 else None
            failure = self._ranks.broadcast(failure)
        except RuntimeError as error:  # another rank died
            failure = str(error)
        if failure is not None:
            raise CheckpointError(f"{path} could not be saved: {failure}")

    def _commit(self, part: Part, path: Path, notes: Notes, best: Best | None, written: list[_Written]) -> str | None:
        """Complete the checkpoint on rank 0 from the files of all ranks; return the reason if that fails."""
        files = {name: about for of_rank in written for name, about in of_rank.files.items()}
        partial = partial_path(path)
        try:
            for rank, of_rank in enumerate(written):
                failure = of_rank.failure or differing_file(partial, of_rank.files)
                if failure is not None:
                    hint = "" if of_rank.failure else "; all ranks must see the same folder"
                    return f"rank {rank}: {failure}{hint}"
            with writing(partial):
                files[METADATA] = part.finish(partial, [of_rank.results for of_rank in written])
                notes = dataclasses.replace(notes, tokenizer=self._carried.tokenizer, images=self._carried.images)
                state = json.dumps(dataclasses.asdict(notes), indent=1).encode()
                for name, content in {NOTES: state, **self._carried.files}.items():
                    write_whole(partial / name, content)
                    files[name] = record(partial / name)
                commit(path, files, best)
            if best is not None:
                mark_best(path)
            prune(self._folder, keep=self._keep)
        except (OSError, RuntimeError, UserError) as error:
            return str(error)
        except Exception as error:  # a bug, but the other ranks must not wait for ever
            log.exception("%s", path)
            return repr(error)
        return None


def _write_part(part: Part, folder: Path) -> _Written:
    """Write this rank's files. Never raises, because the other ranks wait for the result."""
    try:
        return _Written(*part.write(folder), None)
    except (OSError, RuntimeError, UserError) as error:  # torch's writers wrap some OSErrors
        return _Written([], {}, str(error))
    except Exception as error:
        log.exception("%s", folder)
        return _Written([], {}, repr(error))
