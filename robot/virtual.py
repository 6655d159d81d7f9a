"""A simulated robot behind a network of virtual time: minutes of driving pass in seconds.

The client is `robot.client.Ros2Robot` itself, the robot is `robot.machine.Machine` as the simulated
robot's process has it; only what lies between, and the clock, are others. Nothing here waits.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from robot.interface import JointState, Trajectory
from robot.machine import TICK_S, Machine
from robot.messages import Kind
from robot.presets import Reliability

HEARTBEAT_S = 0.06
"""Seconds without the client's sign of life after which the robot holds, as the simulated one."""
_EPOCH_S = 1.7e9
"""What the clock of stamps shows when the monotonic one shows 0."""
_BEGIN_S = 1000.0
"""What the monotonic one shows when the robot's time is 0."""


class VirtualNetwork:
    """A `robot.network.Network` with a robot behind it; used by one thread.

    It is its clock, too: called, it tells the time, and `sleep` lets time pass.
    """

    def __init__(self, machine: Machine, latency_s: float = 0.003) -> None:
        """Begins at second 1000.

        Args:
            machine: The robot.
            latency_s: Seconds a joint state is on its way.
        """
        self.machine = machine
        self.broken = ""
        self.clock_off_s = 0.0
        """How fast the client's clock of stamps is."""
        self.failing = frozenset[str]()
        """Topics to which nothing can be published."""
        self.mute = False
        """Whether the client is gone: nothing of it is heard or called any more."""
        self.course: list[tuple[float, np.ndarray, np.ndarray]] = []
        """Time, true positions (rad) and velocities (rad/s) at every tick."""
        self._now = self._ticked = _BEGIN_S
        self._latency_s = latency_s
        self._closed = False
        self._coming: list[tuple[float, Callable[[], None]]] = []
        self._timers: list[list[Any]] = []
        self._heard: dict[str, list[Callable[[Any, float], None]]] = {}
        self._beaten_s = np.inf
        preset = machine.preset
        self._parts = {part.topic: part for part in preset.parts}
        self._theirs = {o: t for p in preset.parts for o, t in zip(p.ours, p.theirs, strict=True)}
        self._ours = preset.our_names()

    def __call__(self) -> float:
        """The time, seconds."""
        return self._now

    @property
    def held_s(self) -> float:
        """When the robot first held by itself."""
        return _BEGIN_S + self.machine.held_s

    def sleep(self, seconds: float) -> None:
        """Lets time pass; at least a tenth of a millisecond, so that it always goes on."""
        end = self._now + max(seconds, 1e-4)
        while True:
            due = [self._ticked + TICK_S, *(at for at, _ in self._coming)]
            due += [timer[0] for timer in self._timers]
            at = min(due)
            if at > end:
                break
            self._now = at
            self._happen(at)
        self._now = end

    def _happen(self, at: float) -> None:
        """All that is due at a time: the robot's tick first, then messages, then timers."""
        if at >= self._ticked + TICK_S:
            self._ticked += TICK_S
            self._tick()
        ready = [call for when, call in self._coming if when <= at]
        self._coming = [entry for entry in self._coming if entry[0] > at]
        for call in ready:
            call()
        for timer in self._timers:
            if timer[0] <= at:
                timer[0] += timer[1]
                if not (self.mute or self._closed):
                    timer[2]()

    def _tick(self) -> None:
        if np.isfinite(self._beaten_s):
            self.machine.orphaned(self._now - self._beaten_s, HEARTBEAT_S)
        tick = self.machine.tick()
        q, qd = self.machine.plant.joint_state()
        self.course.append((self._now, q.copy(), qd.copy()))
        topics = self.machine.preset.joint_states
        for state in tick.states:
            part = next(
                i for i, p in enumerate(self.machine.preset.parts) if state.names[0] in p.ours
            )
            theirs = tuple(self._theirs[name] for name in state.names)
            self._deliver(topics[part % len(topics)], state, theirs)
        for text in tick.reports:
            self._later(self.machine.preset.reports, lambda text=text: (text, self.now_s()))

    def _deliver(self, topic: str, state: JointState, theirs: tuple[str, ...]) -> None:
        stamp_s = _EPOCH_S + _BEGIN_S + state.stamp_s

        def made() -> tuple[JointState, float]:
            return JointState(stamp_s, self._now, theirs, state.q.copy(), state.qd.copy()), stamp_s

        self._later(topic, made)

    def _later(self, topic: str, make: Callable[[], tuple[Any, float]]) -> None:
        def call() -> None:
            if not (self.mute or self._closed):
                for callback in self._heard.get(topic, []):
                    callback(*make())

        self._coming.append((self._now + self._latency_s, call))

    @property
    def closed(self) -> bool:
        """As `Network` says."""
        return self._closed

    def now_s(self) -> float:
        """As `Network` says."""
        return _EPOCH_S + self._now + self.clock_off_s

    def monotonic_s(self) -> float:
        """As `Network` says."""
        return self._now

    def sender(
        self, topic: str, kind: Kind, reliability: Reliability = "reliable", depth: int = 10
    ) -> Callable[[Any, float], None]:
        """As `Network` says."""
        del reliability, depth

        def send(record: Any, stamp_s: float) -> None:
            if self.mute or self._closed:
                return
            if topic in self.failing:
                raise OSError(f"{topic} is gone")
            if kind == "trajectory":
                self._follow(topic, record, stamp_s)
            elif kind == "beat" and not self.machine.cut_off():
                self._beaten_s = self._now
            elif kind == "text":
                self.machine.order(record)

        return send

    def _follow(self, topic: str, trajectory: Trajectory, stamp_s: float) -> None:
        if self._parts[topic].name in self.machine.dead:
            return
        names = tuple(self._ours.get(name, name) for name in trajectory.names)
        ours = Trajectory(names, trajectory.t, trajectory.q, trajectory.qd)
        # A stamp in the future begins then; none, now, in the midst of the robot's cycle.
        age_s = _EPOCH_S + self._now - stamp_s if stamp_s else 0.0
        start_s = self.machine.time_s + (self._now - self._ticked) - age_s
        self.machine.take(self._parts[topic].name, ours, start_s)

    def listen(
        self,
        topic: str,
        kind: Kind,
        callback: Callable[[Any, float], None],
        reliability: Reliability = "reliable",
        depth: int = 10,
    ) -> Callable[[], None]:
        """As `Network` says."""
        del kind, reliability, depth
        self._heard.setdefault(topic, []).append(callback)
        return lambda: self._heard[topic].remove(callback)

    def every(self, seconds: float, callback: Callable[[], None]) -> None:
        """As `Network` says."""
        self._timers.append([self._now + seconds, seconds, callback])

    def publishers(self, topic: str) -> int:
        """As `Network` says."""
        return int(topic in self._parts or topic in self.machine.preset.joint_states)

    def subscribers(self, topic: str) -> int:
        """As `Network` says."""
        part = self._parts.get(topic)
        return int(part is not None and part.name not in self.machine.dead)

    def close(self) -> None:
        """As `Network` says."""
        self._closed = True
