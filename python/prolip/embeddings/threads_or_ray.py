"""Run units of work in threads of this process, or in actors of a Ray cluster (`--on ray`)."""

from __future__ import annotations

import logging
import os
import pickle
import signal
import sys
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, nullcontext, suppress
from itertools import islice
from typing import Any, NamedTuple, TypeVar

import pyarrow as pa
from tqdm import tqdm

from prolip.distributed import usable_cores
from prolip.distributed.allocator import keep_freed_memory
from prolip.embeddings.config import EngineOptions
from prolip.errors import DataError, UserError, check_at_least, sentence

log = logging.getLogger(__name__)

ATTEMPTS = 3
NAMED = 3
"""Number of failed units that the error at the end describes; the log has all."""
_QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"}
"""Settings of Ray, which it reads when it is imported."""

Unit = TypeVar("Unit")
Result = TypeVar("Result")
Report = Callable[[int], object]
"""A worker calls it with a number of samples that it has processed. It raises if the run ends, to end the unit."""
MakeWorker = Callable[[Report], Callable[[Unit], Result]]
"""Makes the function that maps a unit to its result: once per process, such as to load a model."""


class _Done(NamedTuple):
    place: int
    result: Any
    failure: str | None
    samples: int = 0
    """Samples that no report has counted."""


def run_units(
    units: Sequence[Unit],
    make_worker: MakeWorker[Unit, Result],
    options: EngineOptions,
    *,
    verb: str,
    name: Callable[[Unit], str] = str,
    threads: int = 0,
) -> Iterator[tuple[int, Result]]:
    """Yield the place and the result of each unit, in the order in which they are finished.

    A unit that raises is tried three times. Then it is logged, and the others go on. A unit must be safe to repeat:
    it is also run again if its actor or its node is lost.

    Args:
        units: small values that can be pickled, such as the names of files.
        make_worker: see `MakeWorker`. A process calls the worker from several threads at once. With Ray it is pickled.
        verb: what is done to the units, for the progress bar, such as "embedded".
        name: the name of a unit, for errors.
        threads: threads of this process that run units if there is no Ray; 0 for all its cores.

    Raises:
        UserError: Ray is not installed, or cannot be reached.
        DataError: a unit failed; raised after all others are finished.
    """
    check_at_least(0, workers=options.workers, num_cpus=options.num_cpus, num_gpus=options.num_gpus)
    failed, finished = list[str](), 0
    with tqdm(desc=verb, unit="sample", file=sys.stderr) as bar:
        if options.on is None or not units:
            found = _run_here(units, make_worker, threads or usable_cores(), bar.update)
        else:
            found = _run_on_ray(units, make_worker, options)
        for done in found:
            bar.update(done.samples)
            if done.failure is None:
                finished += 1
                yield done.place, done.result
            else:
                failed.append(f"{name(units[done.place])}: {done.failure}")
                bar.clear()
                log.error("failed: %s", failed[-1])
            failures = f", {len(failed):,} failed" if failed else ""
            bar.set_postfix_str(f"{finished:,} of {len(units):,} parts{failures}")
    if failed:
        raise DataError(
            f"{len(failed):,} of {len(units):,} parts failed {ATTEMPTS} times; rerun the command to try them again, or "
            f"leave them out: "
            f"{'; '.join(failed[:NAMED])}"
        )


def _attempt(worker: Callable[[Unit], Result], place: int, unit: Unit) -> _Done:
    reason = ""
    for _ in range(ATTEMPTS):
        try:
            return _Done(place, worker(unit), None)
        except (UserError, DataError, OSError) as error:
            reason = sentence(error)
        except Exception:  # noqa: BLE001 (the other units go on)
            reason = traceback.format_exc()
    return _Done(place, None, reason)


# ---- Here -----------------------------------------------------------------------------------------------------------


def _run_here(
    units: Sequence[Unit], make_worker: MakeWorker[Unit, Result], threads: int, show: Report
) -> Iterator[_Done]:
    ending = threading.Event()

    def report(samples: int) -> None:
        if ending.is_set():
            raise KeyboardInterrupt  # which is not an attempt that failed
        show(samples)

    worker = make_worker(report)
    with ThreadPoolExecutor(threads, "unit") as pool:
        left, running = enumerate(units), set[Future[_Done]]()
        try:
            while True:
                # Few at a time, so that memory does not grow with the number of results.
                following = islice(left, 2 * threads - len(running))
                running |= {pool.submit(_attempt, worker, place, unit) for place, unit in following}
                if not running:
                    break
                done, running = wait(running, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        finally:
            ending.set()
            pool.shutdown(cancel_futures=True)


# ---- On Ray ---------------------------------------------------------------------------------------------------------


class _Tries:
    def __init__(self) -> None:
        self._begun = Counter[int]()

    def add(self, place: int, more: int) -> int:
        """Add to a unit's number, and return it."""
        self._begun[place] += more
        return self._begun[place]


class _Actor:
    """A worker on Ray. Ray Data calls it from two threads, each with one unit at a time."""

    def __init__(self, tries: Any, make_worker: list[Any], folder: str) -> None:
        import ray

        with suppress(OSError):
            os.chdir(folder)  # where relative paths begin, if the nodes share it
        keep_freed_memory()
        self._add: Callable[[int, int], int] = lambda *given: ray.get(tries.add.remote(*given))
        self._alone, self._samples = threading.Lock(), Counter[int]()
        self._worker = ray.get(make_worker[0])(self._report)

    def _report(self, samples: int) -> None:
        self._samples[threading.get_ident()] += samples

    def __call__(self, table: pa.Table) -> pa.Table:
        (row,) = table.to_pylist()
        place = row["place"]
        # The unit itself may have killed the actor; don't charge the next failure to another unit.
        with self._alone if self._add(place, 0) else nullcontext():
            if self._add(place, 1) > ATTEMPTS:
                done = _Done(place, None, "its actor died each time, or its node was lost")
            else:
                done = _attempt(self._worker, place, pickle.loads(row["unit"]))
        done = done._replace(samples=self._samples.pop(threading.get_ident(), 0))
        return pa.table({"done": [pickle.dumps(done)]})


class _Driver:
    """Starts Ray Data on the cluster, for Ray's client, from which it cannot be started."""

    def __init__(self, *given: Any) -> None:
        self._found = _mapped(*given)

    def next(self) -> _Done | None:
        return next(self._found, None)


def _run_on_ray(
    units: Sequence[Unit], make_worker: MakeWorker[Unit, Result], options: EngineOptions
) -> Iterator[_Done]:
    with _connected(options) as ray:
        # In a list Ray passes a reference on; the worker's maker is pickled once, and so may hold a model.
        given: list[Any] = [[ray.put(make_worker)], [pickle.dumps(unit) for unit in units], options, os.getcwd()]
        try:
            if ray.util.client.ray.is_connected():
                driver = ray.remote(**_beside_driver())(_Driver).remote(*given)
                yield from iter(lambda: ray.get(driver.next.remote()), None)
            else:
                yield from _mapped(*given)
        except ray.exceptions.RayError as error:
            raise DataError(f"on: Ray gave up ({str(error).strip()})") from error


def _beside_driver() -> dict[str, Any]:
    """Options of an actor on the node without which the run ends."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return {"num_cpus": 0, "scheduling_strategy": here}


def _mapped(make_worker: list[Any], units: Sequence[bytes], options: EngineOptions, folder: str) -> Iterator[_Done]:
    """Run units with Ray Data: it retries lost actors and nodes, and its pool of actors follows the cluster's size."""
    import ray.data

    tries = ray.remote(**_beside_driver())(_Tries).remote()
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    context.max_consecutive_actor_init_deaths = ATTEMPTS
    # An actor has two units: it opens the second one while the first one runs. No more, since they would wait there.
    context.autoscaling_config.actor_pool_util_upscaling_threshold = 0.75
    most = min(options.workers or len(units), len(units))
    free = ray.available_resources()
    needs = {"CPU": options.num_cpus, "GPU": options.num_gpus}
    fit = min((free.get(kind, 0) // each for kind, each in needs.items() if each), default=most)
    pool = ray.data.ActorPoolStrategy(
        max_size=most,
        initial_size=max(1, min(most, int(fit))),
        max_tasks_in_flight_per_actor=2,
        max_concurrent_calls_per_actor=2,
        enable_true_multi_threading=True,
    )
    rows = [{"place": place, "unit": unit} for place, unit in enumerate(units)]
    found = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
        _Actor,
        batch_size=1,
        batch_format="pyarrow",
        compute=pool,
        num_cpus=options.num_cpus,
        num_gpus=options.num_gpus,
        fn_constructor_args=[tries, make_worker, folder],
    )
    for row in found.iter_rows():
        yield pickle.loads(row["done"])


@contextmanager
def _connected(options: EngineOptions) -> Iterator[Any]:
    """Connect to Ray, without its messages, and disconnect at the end; a Ray that this process started ends with it."""
    for variable, value in _QUIET.items():
        os.environ.setdefault(variable, value)
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise UserError("on", f"needs Ray; pip install 'prolip[ray]' ({error})") from error
    for logger in ("ray", "ray.data"):
        logging.getLogger(logger).setLevel(logging.ERROR)
    ours = not ray.is_initialized()
    if ours:
        on_sigterm, on_main = signal.getsignal(signal.SIGTERM), threading.current_thread() is threading.main_thread()
        address = None if options.on == "ray" else options.on
        try:
            with _no_stderr():
                ray.init(address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise UserError("on", "must be ray, or ray://HOST:PORT of a cluster", f"{options.on}: {error}") from error
        if on_main:
            signal.signal(signal.SIGTERM, on_sigterm)  # Ray replaces it
    try:
        yield ray
    finally:
        if ours:
            ray.shutdown()


@contextmanager
def _no_stderr() -> Iterator[None]:
    """Drop what C++ prints."""
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
