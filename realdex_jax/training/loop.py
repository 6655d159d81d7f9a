"""The loop that every training script shares: steps, logs, saves, and a clean stop.

Not a trainer: it is given the jitted step, the batches and what to do at each save.
"""

import contextlib
import dataclasses
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol, TypeVar, runtime_checkable

import jax
import numpy as np
from jaxtyping import Array

from realdex_jax.errors import CheckpointError, TrainingError


@runtime_checkable
class HasStep(Protocol):
    """A state that knows its step."""

    @property
    def step(self) -> Array:
        """Number of updates made."""
        ...


_State = TypeVar("_State", bound=HasStep)


@dataclasses.dataclass(frozen=True)
class Schedule:
    """When things happen, in steps."""

    steps: int
    log_every: int = 20
    save_every: int = 500


@dataclasses.dataclass(frozen=True)
class Hooks:
    """What happens beside the steps."""

    log: Callable[[int, Mapping[str, float]], None] = lambda _step, _scalars: None
    save: Callable[[int, Any], None] = lambda _step, _state: None
    advance: Callable[[int, float], None] = lambda _step, _rate: None
    """Called with the step and steps per second, for a progress bar."""
    failed: Callable[[int, str], None] = lambda _step, _message: None
    """Told of a step that was not finite, before the last good state is saved."""


@dataclasses.dataclass
class StopRequest:
    """Set by SIGTERM or Ctrl-C; the loop ends after the step that runs."""

    signal: str | None = None


@contextlib.contextmanager
def stop_on_signals(tell: Callable[[str], object] = lambda _: None) -> Iterator[StopRequest]:
    """Turns SIGTERM and SIGINT into a request to stop; restores the old handlers at the end.

    Args:
        tell: Told at once that the stop was heard: a step that compiles can take half a minute.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request  # handlers can be set in the main thread only
        return

    def ask(number: int, _frame: object) -> None:
        if request.signal is not None:  # a second one means it: do not wait for the step
            raise KeyboardInterrupt
        request.signal = signal.Signals(number).name
        tell(f"{request.signal}: stopping after what is running; once more to stop at once")

    old = {s: signal.signal(s, ask) for s in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield request
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def run(
    state: _State,
    step: Callable[[_State, Any], tuple[_State, Mapping[str, Array]]],
    batch_at: Callable[[int], Any],
    schedule: Schedule,
    hooks: Hooks,
    *,
    stop: StopRequest,
    names_of: Callable[[Any], str] = lambda _batch: "",
    agree: Callable[[bool], bool] = bool,
) -> tuple[_State, bool]:
    """Makes steps until the schedule ends or a stop is requested.

    The next batch is made while the device works on a step; then that step's scalars are looked at,
    so a loss that is not finite stops the run at once, with the state before it.

    Args:
        state: State to continue from; its `step` says where.
        step: Update, which donates its state and reports "finite" among its scalars.
        batch_at: Batch of a step.
        schedule: When to log, save and end.
        hooks: Log, save, progress.
        stop: Asked before every step.
        names_of: Describes a batch in an error.
        agree: Whether any of the processes that train together was asked to stop, given whether
            this one was: they must stop after the same step.

    Returns:
        The last state, and whether the schedule was completed.

    Raises:
        TrainingError: A loss term, the gradient or the update was not finite. The last good state
            was saved first, unless it is not finite itself.
    """
    done = start = int(state.step)
    began = time.perf_counter()
    pending: tuple[int, Any, Mapping[str, Array]] | None = None
    saved = -1

    def settle() -> None:
        """Looks at the scalars of the step before."""
        nonlocal pending
        if pending is None:
            return
        at, batch, scalars = pending
        pending = None
        if bool(scalars["finite"] < 0.5):
            # The step that failed gave back the state it was given.
            message = _not_finite(at, scalars, names_of(batch))
            hooks.failed(at, message)
            try:
                hooks.save(int(state.step), state)
            except CheckpointError as error:
                raise TrainingError(f"{message}. {error}") from error
            raise TrainingError(f"{message}. The state of step {int(state.step)} is saved")
        rate = (at - start) / max(time.perf_counter() - began, 1e-9)
        hooks.advance(at, rate)
        if at % schedule.log_every == 0 or at == schedule.steps:
            values = {k: float(v) for k, v in jax.device_get(dict(scalars)).items()}
            hooks.log(at, {**values, "steps_per_second": rate})

    while done < schedule.steps and not agree(stop.signal is not None):
        batch = batch_at(done)
        settle()
        state, scalars = step(state, batch)
        done += 1
        pending = (done, batch, scalars)
        if done % schedule.save_every == 0 and done < schedule.steps:
            settle()
            hooks.save(done, state)
            saved = done
    settle()
    if saved != done and done > start:
        hooks.save(done, state)
    return state, done >= schedule.steps


def _not_finite(step: int, scalars: Mapping[str, Array], batch: str) -> str:
    values = {k: float(np.asarray(v)) for k, v in scalars.items() if k != "finite"}
    bad = [k for k, v in values.items() if not np.isfinite(v)]
    terms = [k for k in bad if k not in ("loss", "gradient")] or bad
    return (
        f"step {step}: {', '.join(terms) or 'update'} not finite"
        f"{f' (batch: {batch})' if batch else ''}; stopped. "
        f"Values: {', '.join(f'{k} {v:.4g}' for k, v in values.items())}"
    )
