"""A list of jobs worked off by processes; one that dies costs only the job that it had.

Each process has one job at a time. When it dies, of a kill or for want of memory, another takes its
place and the job goes back on the list, so that work which saves as it goes continues there.
"""

import contextlib
import dataclasses
import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from multiprocessing import connection, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, Generic, TypeVar

from realdex_jax.errors import RealdexError

_Result = TypeVar("_Result")
TRIES = 3
"""A job whose process died so often is given up: it may be what kills them."""


class LostJobError(RealdexError):
    """A job all of whose processes died."""


@dataclasses.dataclass(frozen=True)
class Done(Generic[_Result]):
    """What became of a job: a result, or else an error."""

    name: str
    result: _Result | None
    error: Exception | None = None
    deaths: int = 0
    """How many processes died of it, or beside it."""

    def value(self) -> _Result:
        """The result.

        Raises:
            Exception: What the job raised; LostJobError if its processes died.
        """
        if self.error is not None:
            raise self.error
        assert self.result is not None  # a job returns something
        return self.result


@dataclasses.dataclass
class _Worker:
    process: BaseProcess
    pipe: Connection
    name: str | None = None


def each(
    jobs: Mapping[str, tuple[Any, ...]], work: Callable[..., _Result], processes: int
) -> Generator[Done[_Result], None, None]:
    """Works off a list of jobs, in processes that know nothing of each other.

    Args:
        jobs: Arguments by name; begun in this order.
        work: A function of a module; it returns something, and is called again with the same
            arguments after its process died.
        processes: How many at once.

    Yields:
        Each job as it is done. To stop early, close the iterator: what runs is ended.
    """
    waiting, deaths = deque(jobs), dict.fromkeys(jobs, 0)
    workers: list[_Worker] = []
    try:
        while waiting or any(w.name is not None for w in workers):
            while waiting and len(workers) < processes:
                workers.append(_begin(work))
            for worker in workers:
                if worker.name is None and waiting:
                    _give(worker, waiting.popleft(), jobs)
            busy = {w.pipe: w for w in workers if w.name is not None}
            ready = connection.wait(list(busy))
            for worker in [w for pipe, w in busy.items() if pipe in ready]:
                name, worker.name = worker.name, None
                assert name is not None
                try:
                    result, error = worker.pipe.recv()
                except (EOFError, OSError):
                    worker.process.join()
                    workers.remove(worker)
                    deaths[name] += 1
                    if deaths[name] < TRIES:
                        waiting.append(name)
                        continue
                    code = worker.process.exitcode
                    result, error = (
                        None,
                        LostJobError(
                            f"{name}: {TRIES} processes died with it (exit status {code}), "
                            "for want of memory perhaps; fewer processes need less"
                        ),
                    )
                yield Done(name, result, error, deaths[name])
    finally:
        for worker in workers:
            worker.process.terminate()
        for worker in workers:
            worker.process.join()


def share_cores(*, accelerator: bool = False) -> None:
    """Gives processes that begin from here on one thread each, whatever they run.

    Args:
        accelerator: Leave them one, if there is one; it is not for several processes.
    """
    os.environ["XLA_FLAGS"] = (
        os.environ.get("XLA_FLAGS", "")
        + " --xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    )
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if not accelerator:
        os.environ.setdefault("JAX_PLATFORMS", "cpu")


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Holds Ctrl-C back; processes that begin here never get it: this one decides for them."""
    resource_tracker.ensure_running()  # its start would let Ctrl-C through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_with(parent: int) -> None:
    """Ends this process when its parent is gone: killed, it cannot say so."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.2)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _begin(work: Callable[..., Any]) -> _Worker:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, work, os.getpid()), daemon=True)
    with uninterrupted():
        process.start()
    theirs.close()  # theirs alone now, so that their death closes it
    return _Worker(process, ours)


def _give(worker: _Worker, name: str, jobs: Mapping[str, tuple[Any, ...]]) -> None:
    worker.name = name
    try:
        worker.pipe.send(jobs[name])
    except OSError:
        return  # it is dead already; reading from it will say so


def _serve(pipe: Connection, work: Callable[..., Any], parent: int) -> None:
    end_with(parent)
    while True:
        try:
            given = pipe.recv()
        except EOFError:
            return
        try:
            answer = (work(*given), None)
        except Exception as error:
            answer = (None, error)
        pipe.send(answer)
