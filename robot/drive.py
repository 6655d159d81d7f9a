"""The loop that runs the executor against a robot at 100 Hz, and the log of what was sent."""

import contextlib
import dataclasses
import functools
import gc
import json
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from robot import executor
from robot.executor import Command, ExecutorConfig, Inputs, Order, Phase, Send, State
from robot.interface import Robot, RobotError, Trajectory

T = TypeVar("T")
Write = Callable[[dict[str, Any]], None]

CYCLE_S = 0.01
"""Seconds between two steps."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    phase: Phase
    """`HOLDING` where the plan was driven to its end, `IDLE` where it was cancelled or refused."""
    reason: str
    """Why, in words; empty where all went as planned."""
    confirmed: bool
    """Whether joint states show that the robot stands, or it holds as planned."""
    seconds: float
    """From the start to the end."""
    sent: int
    """Commands to move that were sent."""
    state: State = dataclasses.field(default_factory=State)
    """What the executor remembers, for the next run: after a fault it starts none until `reset`."""

    @property
    def completed(self) -> bool:
        """Whether the plan was driven to its end."""
        return self.phase is Phase.HOLDING

    def text(self) -> str:
        """One line for a person; a stop that is not confirmed is loud."""
        said = self.reason or "driven to its end"
        line = f"{self.phase}: {said} ({self.seconds:.1f} s, {self.sent} commands)"
        if self.confirmed:
            return line
        banner = "!" * 72
        return f"{banner}\n{executor.NOT_CONFIRMED}\n{line}\n{banner}"


def run(
    robot: Robot,
    order: Order,
    state: State,
    config: ExecutorConfig | None = None,
    *,
    log: Path | None = None,
    cancel: Callable[[], str] = lambda: "",
    on_phase: Callable[[State], None] | None = None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
    wait_s: float = 2.0,
    give_up_s: float = 3.0,
) -> Outcome:
    """Drives an order, and comes back when it is done or the robot has been asked to stop.

    Whatever the client raises, Ctrl-C included and as often as it comes, asks the robot to stop,
    and the joint states whether it did.

    Args:
        robot: The robot.
        order: The plan and its verdict.
        state: `State()` at first, then that of the last outcome; what it remembers of a fault
            refuses this run, too.
        config: When the executor sends and stops; `ExecutorConfig()` if None.
        log: File for one JSON line per event, every command and every stop in full, and to which
            controllers it went (`to`: their first joints); it must not exist.
        cancel: Asked at every step; who cancels, or nothing.
        on_phase: Told of every new phase.
        clock: Monotonic seconds, the clock of `JointState.received_s`.
        sleep: Waits for so many seconds.
        wait_s: Most seconds for a first joint state.
        give_up_s: Seconds after which a stop is no longer waited for.

    Raises:
        RobotError: The log cannot be begun; nothing was sent.
    """
    config = config or ExecutorConfig()
    with _logging(log) as write, _small_collections():
        return _run(
            robot, order, state, config, write, cancel, on_phase, clock, sleep, wait_s, give_up_s
        )


def reset(
    robot: Robot,
    state: State,
    config: ExecutorConfig | None = None,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
    within_s: float = 1.0,
) -> State:
    """Leaves a fault, for a person who has seen to what was wrong.

    Args:
        robot: The robot.
        state: Of the last outcome.
        config: As of `run`.
        clock: As of `run`.
        sleep: As of `run`.
        within_s: Most seconds in which fresh joint states must show that the robot stands.

    Raises:
        RobotError: They did not, or a controller reports a fault.
    """
    config = config or ExecutorConfig()
    # What it was last told is long over: now it must stand.
    state = dataclasses.replace(state, seen=None, order=None, still_s=float("inf"), still_q=None)
    end = clock() + within_s
    robot.faults()  # those of before: they are what is reset
    while state.phase is Phase.FAULT:
        inputs = Inputs(clock(), robot.state(), robot.faults(), reset=True)
        state, _ = executor.step(dataclasses.replace(state, confirmed=True), inputs, config)
        if clock() > end:
            raise RobotError(f"{state.refusal or 'no reset'}; {state.reason}")
        sleep(CYCLE_S)
    return state


@contextlib.contextmanager
def _small_collections() -> Generator[None, None, None]:
    """Keeps what is in memory out of garbage collections.

    With all that a plan takes to make, one lasts 0.2 s: longer than a joint state may be old.
    """
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _run(
    robot: Robot,
    order: Order,
    state: State,
    config: ExecutorConfig,
    write: Write,
    cancel: Callable[[], str],
    on_phase: Callable[[State], None] | None,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
    wait_s: float,
    give_up_s: float,
) -> Outcome:
    begun = clock()
    # The robot may have been restarted since, and a plan that came to its end is over.
    state = dataclasses.replace(state, seen=None, still_s=float("inf"), still_q=None)
    if state.done:
        state = dataclasses.replace(state, phase=Phase.IDLE, done=False, order=None)
    sent, asked = 0, False
    pending: list[str] = []
    cancelled = refused = ""
    cycle = 0
    write(
        {
            "event": "begin",
            "digest": order.verdict.digest,
            "verdict": order.verdict.text(),
            "seconds": float(order.plan.trajectory.t[-1]),
            "names": list(order.plan.trajectory.names),
            "config": dataclasses.asdict(config),
        }
    )
    while True:
        try:
            now = clock()
            faults, pending = pending, []
            joint = _ask(robot.state, faults, None)
            faults += _ask(robot.faults, faults, ())
            cancelled = cancelled or _ask(cancel, faults, "")
            waits = joint is None and not faults and not cancelled and now - begun < wait_s
            start = None if asked or waits else order
            asked = asked or start is not None
            inputs = Inputs(now, joint, tuple(faults), start, cancelled)
            before, (state, commands) = state, executor.step(state, inputs, config)
            if start is not None and state.phase is Phase.FAULT:
                refused = f"refused: {state.refusal}"
            for command in commands:
                sent += _give(robot, command, now - begun, state, write, pending)
            if state.phase is not before.phase:
                _put(write, pending, {"event": "phase", "t": now - begun, **_told(state)})
                if on_phase is not None:
                    _ask(functools.partial(on_phase, state), pending, None)
            if asked and _ended(state, now, give_up_s):
                break
            cycle += 1
            sleep(max(begun + cycle * CYCLE_S - clock(), 0.0))
            if clock() - begun > (cycle + 5) * CYCLE_S:
                cycle = int((clock() - begun) / CYCLE_S)
        except KeyboardInterrupt:
            cancelled = "the operator (Ctrl-C)"
        except Exception as error:
            pending.append(f"{type(error).__name__}: {error}")
    seconds = clock() - begun
    outcome = Outcome(
        state.phase,
        refused or state.reason,
        state.confirmed or state.phase is not Phase.FAULT,
        seconds,
        sent,
        state,
    )
    with contextlib.suppress(OSError):
        write({"event": "end", "t": seconds, **_told(state), "confirmed": outcome.confirmed})
    return outcome


def _ended(state: State, now_s: float, give_up_s: float) -> bool:
    if state.phase is Phase.FAULT:
        return state.confirmed or now_s - state.asked_s > give_up_s
    return state.phase is Phase.IDLE or state.done


def _ask(call: Callable[[], T], faults: list[str], otherwise: T) -> T:
    """What a call of the client returns; what it raises is a fault."""
    try:
        return call()
    except Exception as error:
        faults.append(f"{type(error).__name__}: {error}")
        return otherwise


def _give(
    robot: Robot,
    command: Command,
    t: float,
    state: State,
    write: Write,
    pending: list[str],
) -> int:
    """Carries out a command and logs what was really sent; 1 if it was sent to move."""
    before = len(pending)
    if isinstance(command, Send):
        send = functools.partial(robot.send, command.trajectory)
        published = _ask(send, pending, ())
        event: dict[str, Any] = {"event": "send", "t": t, **_points(command.trajectory)}
        event["to"] = [part.names[0] for part in published]
    else:
        published = _ask(robot.stop, pending, ())
        event = {"event": "stop", "t": t, "reason": command.reason}
        event["parts"] = [{"names": list(p.names), **_points(p)} for p in published]
    event["ok"] = len(pending) == before
    if state.seen is not None:
        event["q_measured"] = state.seen.q.tolist()
    _put(write, pending, event)
    return int(isinstance(command, Send))


def _points(trajectory: Trajectory) -> dict[str, list[Any]]:
    return {f"points_{name}": getattr(trajectory, name).tolist() for name in ("t", "q", "qd")}


def _put(write: Write, pending: list[str], event: dict[str, Any]) -> None:
    """Logs an event; a robot whose commands cannot be logged is not driven on."""
    try:
        write(event)
    except OSError as error:
        pending.append(f"the log cannot be written: {error.strerror or error}")


def _told(state: State) -> dict[str, str]:
    return {"phase": str(state.phase), "reason": state.reason}


@contextlib.contextmanager
def _logging(path: Path | None) -> Generator[Write, None, None]:
    """Writes events as JSON lines, each at once: a killed run keeps what it sent."""
    if path is None:
        yield lambda _: None
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("x")
    except OSError as error:
        raise RobotError(
            f"--log {path}: {error.strerror}; nothing was sent, choose a new file"
        ) from error
    with file:

        def write(event: dict[str, Any]) -> None:
            file.write(json.dumps(event, allow_nan=False) + "\n")
            file.flush()

        yield write
