"""Scalars to TensorBoard and JSON lines; progress with throughput and time left."""

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from tensorboard.compat.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]
from tensorboard.compat.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from realdex_jax.training import checkpoint, devices
from realdex_jax.training.bar import Bar
from realdex_jax.training.loop import Hooks

FAILED = "not_finite.json"
"""Written beside the checkpoints when a step is not finite: which, what, and of which batch."""


class Log:
    """Writes scalars of a run to its `scalars.jsonl` and `tensorboard/`; a context manager."""

    def __init__(self, run: Path) -> None:
        """Opens the files, appending to those of an earlier part of the run."""
        run.mkdir(parents=True, exist_ok=True)
        self._lines: TextIO = (run / "scalars.jsonl").open("a")
        self._events = EventFileWriter(str(run / "tensorboard"))

    def write(self, step: int, wall_time: float, scalars: Mapping[str, float]) -> None:
        """Writes one line and one event.

        Args:
            step: Number of updates made.
            wall_time: Seconds since the epoch.
            scalars: Values by name.
        """
        self._lines.write(json.dumps({"step": step, "time": round(wall_time, 3), **scalars}) + "\n")
        self._lines.flush()
        values = [Summary.Value(tag=name, simple_value=value) for name, value in scalars.items()]
        event = Event(wall_time=wall_time, step=step, summary=Summary(value=values))
        self._events.add_event(event)

    def __enter__(self) -> "Log":
        """Returns itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Closes both files."""
        del kind, error, trace
        self._lines.close()
        self._events.close()


def progress() -> Bar:
    """A progress bar with rate and time left."""
    return Bar(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )


@contextlib.contextmanager
def hooks(run: Path, steps: int, done: int, rate: Callable[[float], str]) -> Iterator[Hooks]:
    """What a training does beside its steps: checkpoints, and in the first process logs and a bar.

    Args:
        run: The run's folder.
        steps: Length of the run.
        done: Where it starts.
        rate: How steps per second are shown.
    """

    def save(step: int, state: Any) -> None:
        checkpoint.save(run, step, state)

    if not devices.is_first():
        yield Hooks(save=save)
        return
    with Log(run) as scalars, progress() as bar:
        task = bar.add_task("training", total=steps, completed=done, rate="compiling")

        def write(step: int, values: Mapping[str, float]) -> None:
            scalars.write(step, time.time(), values)

        def advance(step: int, per_second: float) -> None:
            bar.update(task, completed=step, rate=rate(per_second))

        def failed(step: int, message: str) -> None:
            checkpoint.write_json(run / FAILED, {"step": step, "message": message})

        yield Hooks(log=write, save=save, advance=advance, failed=failed)
