"""A job's processes without torchrun, forked from the server of `forkserver`.

Their environment tells them what torchrun would. Tests start torchrun itself only where it is the question.
"""

import os
import signal
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
import torch.distributed as dist
from tests.support.forkserver import FORKSERVER, run_python


class Job:
    """Processes that run one command, each as a rank; they end with the block that they are started in."""

    def __init__(self, command, *, processes, told, variables=None):
        """Starts them.

        Args:
            command: `-m MODULE` or a script, and its words.
            processes: how many; a single one is told of no ranks.
            told: where each rank's output goes, with the rank as a suffix.
            variables: what their environment has besides this process's.
        """
        told.parent.mkdir(parents=True, exist_ok=True)
        self._told = [Path(f"{told}.{rank}") for rank in range(processes)]
        # The agent's store, as torchrun has it: no rank has to find a free port.
        self._store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False) if processes > 1 else None
        self.ranks = []
        for rank, file in enumerate(self._told):
            environment = {**os.environ, **(variables or {})} | (self._place(rank, processes) if processes > 1 else {})
            process = FORKSERVER.Process(target=_run, args=(list(command), environment, file), daemon=True)
            process.start()
            self.ranks.append(process)

    def _place(self, rank, processes):
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
        place |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": self._store.port}
        place |= {"TORCHELASTIC_USE_AGENT_STORE": True, "TORCHELASTIC_RESTART_COUNT": 0}
        return {name: str(value) for name, value in place.items()}

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        self.kill()

    def kill(self):
        """SIGKILL to all that live, and to what they started: nothing can tidy up."""
        alive = [rank for rank, process in enumerate(self.ranks) if process.is_alive()]
        started = [pid for rank in alive for pid in self.children(rank)]
        for rank in alive:
            self.ranks[rank].kill()
        for pid in started:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for rank in alive:
            self.ranks[rank].join()

    def children(self, rank):
        """The processes that one rank has started."""
        pid = self.ranks[rank].pid
        try:
            return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        except (FileNotFoundError, ProcessLookupError):
            return []

    def send(self, rank, number):
        """Sends one rank a signal."""
        pid = self.ranks[rank].pid
        assert pid is not None
        os.kill(pid, number)

    def wait(self, seconds=240):
        """The exit codes; None of a rank that has not ended by then."""
        deadline = time.monotonic() + seconds
        for process in self.ranks:
            process.join(max(0.0, deadline - time.monotonic()))
        return [process.exitcode for process in self.ranks]

    def told(self):
        """What all ranks wrote, rank by rank."""
        return "".join(map(self.told_by, range(len(self._told))))

    def told_by(self, rank):
        """What one rank wrote."""
        file = self._told[rank]
        return file.read_text() if file.exists() else ""

    def wait_for(self, holds, seconds=180):
        """Waits until something is so, while all ranks live."""
        deadline = time.monotonic() + seconds
        while not holds():
            assert all(process.is_alive() for process in self.ranks), self.told()
            assert time.monotonic() < deadline, self.told()
            time.sleep(0.005)


@contextmanager
def asked_ranks(serve, number, *given):
    """Processes of `serve(rank, *given, pipe)`, by the other ends of their pipes; all must end well."""
    pipes = [FORKSERVER.Pipe() for _ in range(number)]
    processes = [
        FORKSERVER.Process(target=serve, args=(rank, *given, there), daemon=True)
        for rank, (_, there) in enumerate(pipes)
    ]
    for process in processes:
        process.start()
    yield [here for here, _ in pipes]
    for process in processes:
        process.join(timeout=60)
    assert [process.exitcode for process in processes] == [0] * number


def answer(end):
    assert end.poll(120), "a rank hangs"
    return end.recv()


def _run(command, environment, told):
    os.environ.clear()
    os.environ.update(environment)
    output = os.open(told, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    torch.set_num_threads(1)
    run_python(command)
