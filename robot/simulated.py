"""A simulated robot that speaks the real one's ROS 2 topics, as a process of its own.

    python -m robot.simulated                                    # beside it: a client
    python -m robot.simulated --object mug --faults "freeze at=5 for=0.5" "stuck joint=rh_FFJ3"

Two trajectory controllers by topic, joint states at 100 Hz, MuJoCo's physics of arm, hand, table
and object. It stops by itself when the client's heartbeat stops. Faults may also be ordered while
it runs. When all is set up it prints one line that begins with `ready`.
Takes until Ctrl-C.
"""

import contextlib
import dataclasses
import gc
import json
import math
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from rich.console import Console

from experiments import commands
from realdex_jax.hand.load import load
from robot import faults, plant, presets
from robot.interface import RobotError, Trajectory
from robot.machine import TICK_S, Machine
from robot.presets import Part, Preset
from robot.ros2 import Link
from sim import objects

READY = "ready"
"""How the line begins that says a simulated robot can be talked to."""
_LATE_S = 0.1
"""Seconds the process may fall behind before it gives up catching up."""


@dataclasses.dataclass(frozen=True)
class Simulated:
    """Command line of a simulated robot."""

    preset: str = "simulated"
    """Names and topics."""
    presets: Path = presets.FILE
    """File of presets."""
    plant: Literal["physical", "kinematic"] = "physical"
    """physical: MuJoCo, with an object. kinematic: ideal joints and nothing else."""
    object: str = "mug"
    """What stands on the table."""
    object_pose: tuple[float, ...] = ()
    """Where: unit quaternion wxyz and position (m) in the world; upright at its origin if empty."""
    start: str = ""
    """Joint angles to begin with, as JSON by our names, radians; others as `plant.home`."""
    speed: float = 1.0
    """Seconds of the robot's time per second."""
    faults: tuple[str, ...] = ()
    """What goes wrong, each like "freeze at=5 for=0.5"; kinds in `docs/ros2.md`."""
    heartbeat_s: float = 0.1
    """Seconds without the heartbeat of a client that had one, after which it stops. 0: never."""
    seed: int = 0
    """Of what is lost."""
    for_s: float = math.inf
    """Ends after so many seconds."""
    domain_id: int | None = None
    """Of ROS 2; the variable ROS_DOMAIN_ID if not given."""
    viewer: bool = False
    """Opens MuJoCo's window."""
    course: Path | None = None
    """File (npz) for the joints' true course, written at the end: `t` by the system's clock (s),
    `q`, `qd` of every tick."""
    parent: int = 0
    """Ends when this is no longer its parent process; 0: never."""


def main() -> None:
    """Command line; mistakes of the user end in one line, not a traceback."""
    config = commands.read(Simulated, __doc__)
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopping.set())
    with commands.ending(Console(stderr=True)):
        serve(config, stopping, lambda text: print(text, flush=True))  # noqa: T201


def serve(config: Simulated, stopping: threading.Event, say: Callable[[str], None]) -> None:
    """Runs until it is told to stop.

    Args:
        config: The command line.
        stopping: Set to end it.
        say: Takes the line that says it is ready.

    Raises:
        RealdexError: A setting makes no sense, or ROS 2 is not here.
    """
    if not 0.01 <= config.speed <= 100.0:
        raise RobotError(f"speed {config.speed}; it must be 0.01 to 100")
    preset = presets.read_simulated(config.preset, config.presets)
    given = [faults.parse(text, preset.joints) for text in config.faults]
    moved = _plant(config)
    machine = Machine(preset, moved, given, config.seed)
    coming: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
    link = Link("realdex_simulated", local=preset.local, domain_id=config.domain_id)
    try:
        serving = _Serving(config, preset, machine, link, coming)
        with _window(config, moved) as shown:
            say(f"{READY} {json.dumps({'preset': preset.name, 'pid': os.getpid()})}")
            serving.run(stopping, shown)
        if config.course:
            t, q, qd = zip(*serving.course, strict=True)
            np.savez(config.course, t=np.array(t), q=np.array(q), qd=np.array(qd))
    finally:
        link.close()


class _Serving:
    """The loop between machine and network; callbacks only put work into a queue."""

    def __init__(
        self,
        config: Simulated,
        preset: Preset,
        machine: Machine,
        link: Link,
        coming: "queue.SimpleQueue[Callable[[], None]]",
    ) -> None:
        self._config, self._machine, self._link, self._coming = config, machine, link, coming
        self.course: list[tuple[float, np.ndarray, np.ndarray]] = []
        """When, and the joints' true places and speeds; empty unless asked for."""
        self._beaten_at = math.nan
        self._began = 0.0
        topics, qos = preset.joint_states, preset.states_qos
        names = {part.ours: part for part in preset.parts}
        # One publisher a topic, whatever it speaks for: a client counts them.
        senders = {topic: link.sender(topic, "states", qos, preset.depth) for topic in topics}
        self._send_state = {
            part.name: senders[topics[i % len(topics)]] for i, part in enumerate(preset.parts)
        }
        self._theirs = {o: t for p in names.values() for o, t in zip(p.ours, p.theirs, strict=True)}
        self._part = {ours: part.name for part in names.values() for ours in part.ours}
        self._ends = {part.name: self._listen(part, preset) for part in preset.parts}
        self._report = link.sender(preset.reports, "text") if preset.reports else None
        self._show = None
        if preset.object_pose:
            self._show = link.sender(preset.object_pose, "pose", "best_effort", 1)
        if preset.orders:
            link.listen(
                preset.orders, "text", lambda text, _: coming.put(lambda: machine.order(text))
            )
        if preset.heartbeat:
            link.listen(preset.heartbeat, "beat", self._beaten, "best_effort", 1)

    def run(self, stopping: threading.Event, shown: Callable[[], None]) -> None:
        """Ticks in time until told to stop."""
        config, machine = self._config, self._machine
        gc.freeze()  # a collection of all that was loaded takes longer than states may be old
        begun = anchor = time.monotonic()
        self._began, ticked = time.time(), 0
        while not stopping.is_set() and time.monotonic() - begun < config.for_s:
            if config.parent and os.getppid() != config.parent:
                return
            due = anchor + (ticked + 1) * TICK_S / config.speed
            late = time.monotonic() - due
            if late < 0.0:
                time.sleep(-late)
            elif late > _LATE_S:
                anchor, ticked = time.monotonic(), 0
                self._began += late  # its clock stood still meanwhile
            while True:
                try:
                    self._coming.get_nowait()()
                except queue.Empty:
                    break
            if config.heartbeat_s and math.isfinite(self._beaten_at):
                machine.orphaned(time.monotonic() - self._beaten_at, config.heartbeat_s)
            self._send(machine.tick())
            if config.course:
                self.course.append((time.time(), *machine.plant.joint_state()))
            ticked += 1
            shown()
        if self._link.broken:
            raise RobotError(f"the network thread ended by {self._link.broken}")

    def _send(self, tick: Any) -> None:
        machine = self._machine
        for part in machine.dead & self._ends.keys():
            self._ends.pop(part)()
        for part in self._send_state.keys() - self._ends.keys() - machine.dead:
            self._ends[part] = self._listen(machine.preset.part(part), machine.preset)  # was reset
        for state in tick.states:
            theirs = tuple(self._theirs[name] for name in state.names)
            renamed = dataclasses.replace(state, names=theirs)
            self._send_state[self._part[state.names[0]]](renamed, self._stamp(state.stamp_s))
        if self._report:
            for text in tick.reports:
                self._report(text, 0.0)
        if self._show and tick.wxyz_xyz_world_object is not None and not machine.cut_off():
            self._show(tick.wxyz_xyz_world_object, self._stamp(machine.time_s))

    def _stamp(self, time_s: float) -> float:
        """The robot's time as seconds since 1970; at another speed its clock runs so too."""
        return self._began + time_s

    def _beaten(self, _count: int, _stamp_s: float) -> None:
        if not self._machine.cut_off():
            self._beaten_at = time.monotonic()

    def _listen(self, part: Part, preset: Preset) -> Callable[[], None]:
        ours = dict(zip(part.theirs, part.ours, strict=True))

        def take(trajectory: Trajectory, stamp_s: float) -> None:
            # Joints nobody knows keep their names, and are refused under them.
            names = tuple(ours.get(name, name) for name in trajectory.names)
            known = dataclasses.replace(trajectory, names=names)
            age_s = max(time.time() - stamp_s, 0.0) if stamp_s else 0.0
            at = time.monotonic()
            self._coming.put(lambda: self._take(part.name, known, age_s + time.monotonic() - at))

        return self._link.listen(part.topic, "trajectory", take, preset.commands_qos, preset.depth)

    def _take(self, part: str, trajectory: Trajectory, age_s: float) -> None:
        # The coming tick is the one that ends now.
        start_s = self._machine.time_s + TICK_S - age_s * self._config.speed
        self._machine.take(part, trajectory, start_s)


def _plant(config: Simulated) -> plant.Plant:
    q = _start(config.start)
    if config.plant == "kinematic":
        if config.viewer:
            raise RobotError("--viewer shows MuJoCo's physics; leave out --plant kinematic")
        return plant.Kinematic(q)
    shape = objects.make(config.object)
    pose = np.array(config.object_pose, np.float64) if config.object_pose else plant.at_rest(shape)
    if pose.shape != (7,):
        raise RobotError(f"--object-pose has {len(pose)} numbers; it must be w x y z and a place")
    return plant.Physical(load("shadow"), shape, pose, q)


def _start(text: str) -> Float[np.ndarray, " 30"]:
    q = plant.home()
    try:
        given = json.loads(text) if text else {}
    except ValueError as error:
        raise RobotError(f"--start is not JSON: {error}") from error
    if not isinstance(given, dict):
        raise RobotError(f"--start is {text[:80]!r}; it must be an object of joints and radians")
    for name, value in given.items():
        if name not in plant.NAMES:
            raise RobotError(f"--start: no joint {name!r}; known: {', '.join(plant.NAMES)}")
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise RobotError(f"--start: {name} is {value!r}; it must be a number of radians")
        q[plant.NAMES.index(name)] = value
    return q


@contextlib.contextmanager
def _window(config: Simulated, moved: plant.Plant) -> Iterator[Callable[[], None]]:
    """MuJoCo's window, if wanted: what is yielded shows the present state."""
    if not config.viewer or not isinstance(moved, plant.Physical):
        yield lambda: None
        return
    try:
        import mujoco.viewer as viewer

        window = viewer.launch_passive(moved.cell.model, moved.data)
    except Exception as error:  # GLFW and GL have errors of many kinds
        raise RobotError(f"--viewer needs a display: {error}") from error
    try:
        yield window.sync
    finally:
        window.close()


@contextlib.contextmanager
def running(
    *arguments: str,
    domain_id: int | None = None,
    start: Mapping[str, float] | None = None,
    timeout_s: float = 60.0,
) -> Iterator["subprocess.Popen[str]"]:
    """A simulated robot for as long as the block lasts; it ends with this process, too.

    Args:
        arguments: Of its command line.
        domain_id: Of ROS 2.
        start: Joint angles (rad) to begin with, by our names.
        timeout_s: Seconds it may take until it is ready.

    Raises:
        RobotError: It did not get ready; what it said is told.
    """
    command = [sys.executable, "-m", "robot.simulated", "--parent", str(os.getpid())]
    if domain_id is not None:
        command += ["--domain-id", str(domain_id)]
    if start:
        command += ["--start", json.dumps({k: float(v) for k, v in start.items()})]
    root = str(Path(__file__).resolve().parents[1])
    path = os.pathsep.join(p for p in (root, os.environ.get("PYTHONPATH", "")) if p)
    process = subprocess.Popen(
        [*command, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": path, "JAX_PLATFORMS": "cpu"},
    )
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    # Read to the end: a pipe nobody empties would stop the robot.
    reader = threading.Thread(target=_read, args=(process, lines), daemon=True)
    reader.start()
    try:
        _await(process, lines, timeout_s)
        yield process
    finally:
        _end(process)
        reader.join(timeout=5.0)


def _read(process: "subprocess.Popen[str]", lines: "queue.SimpleQueue[str]") -> None:
    if process.stdout is None:
        return
    with process.stdout as stream:
        for line in stream:
            lines.put(line)
    lines.put("")


def _await(
    process: "subprocess.Popen[str]", lines: "queue.SimpleQueue[str]", limit_s: float
) -> None:
    told: list[str] = []
    end = time.monotonic() + limit_s
    while True:
        try:
            line = lines.get(timeout=max(end - time.monotonic(), 0.01))
        except queue.Empty:
            break
        if line.startswith(READY):
            return
        if not line:
            break
        told.append(line.strip())
    said = " / ".join(told[-5:]) or "nothing"
    ended = "" if process.poll() is None else f"; it ended with status {process.returncode}"
    raise RobotError(f"the simulated robot was not ready in {limit_s:g} s{ended}; it said {said}")


def _end(process: "subprocess.Popen[str]", patience_s: float = 5.0) -> None:
    process.terminate()
    try:
        process.wait(patience_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def free_domain(others: Sequence[int] = ()) -> int:
    """A number of a ROS 2 domain, 1 to 101, that nobody on this machine uses.

    Args:
        others: Numbers that are taken, besides that of ROS_DOMAIN_ID.

    Raises:
        RobotError: All are in use.
    """
    taken = {*others, usual_domain()}
    # Processes that are started together have numbers in a row: they are spread.
    for k in range(_DOMAINS):
        domain = 1 + (7 * os.getpid() + k) % _DOMAINS
        if domain not in taken and not in_use(domain):
            return domain
    raise RobotError(f"all {_DOMAINS} domains of ROS 2 are in use on this machine")


def usual_domain() -> int:
    """The domain that programs use which are told nothing: ROS_DOMAIN_ID, or 0."""
    try:
        return int(os.environ.get("ROS_DOMAIN_ID") or 0)
    except ValueError:
        return 0


def in_use(domain: int) -> bool:
    """Whether a node on this machine is in a domain: whether ports are taken that are its own.

    By the rules of DDS a domain has 250 UDP ports from 7400 on: two for all, two for each node.
    """
    first = 7400 + 250 * domain
    for port in range(first, first + 2 * _PROBED + 10):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind(("", port))
            except OSError:
                return True
    return False


_DOMAINS = 101
_PROBED = 16
"""Nodes of a domain that are looked for: the first have the lowest ports."""


if __name__ == "__main__":
    main()
