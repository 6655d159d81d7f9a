"""A simulated robot without its network: two trajectory controllers, a plant, and faults.

Time is the robot's own and goes on by `TICK_S` with every `tick`.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

from realdex_jax.hand import joints
from robot import controller, faults
from robot.controller import ControllerConfig, ControllerState
from robot.faults import Fault, FaultError
from robot.interface import JointState, Trajectory
from robot.plant import MAX_RATE, NAMES, Plant
from robot.presets import Part, Preset

TICK_S = 0.01
"""Seconds between joint states."""
FLICKER_RAD = 1e-6
"""Standard deviation of what encoders add: a joint that is measured never repeats itself for long.
"""
_ARM_PATH_RAD, _ARM_GOAL_RAD = 0.2, 0.1
"""Tolerances of UR's driver. The hand has none: fingers that squeeze never get where they go."""


@dataclasses.dataclass(frozen=True, eq=False)
class Tick:
    """What a robot sends in one step of time."""

    states: tuple[JointState, ...] = ()
    """By our joint names; stamps are the robot's time. Arm and hand come apart, as from two
    drivers."""
    reports: tuple[str, ...] = ()
    """What controllers say went wrong."""
    wxyz_xyz_world_object: Float[np.ndarray, " 7"] | None = None
    """The object's true pose."""


def _pairs(names: Sequence[str]) -> tuple[tuple[int, int], ...]:
    found = ((f"rh_{joints.NAMES[a]}", f"rh_{joints.NAMES[b]}") for a, b in joints.COUPLED)
    return tuple((names.index(a), names.index(b)) for a, b in found if a in names)


@dataclasses.dataclass
class _Servo:
    """One controller as it runs."""

    part: Part
    config: ControllerConfig
    columns: list[int]
    state: ControllerState
    clock_s: float = 0.0
    dead: bool = False


class Machine:
    """The robot; used by one thread."""

    def __init__(
        self,
        preset: Preset,
        plant: Plant,
        given: Sequence[Fault] = (),
        seed: int = 0,
        *,
        any_start: bool = False,
    ) -> None:
        """Begins at rest at time 0.

        Args:
            preset: Its parts.
            plant: What is moved.
            given: Faults to come.
            seed: Of what is lost by the fault `drop`, and of what encoders add.
            any_start: Controllers take trajectories that begin elsewhere, as ROS 2's do.
        """
        self.preset, self.plant = preset, plant
        self.time_s = 0.0
        self._given = list(given)
        self._random = np.random.default_rng(seed)
        self._encoders = np.random.default_rng([seed, 1])
        self._steps = round(TICK_S / plant.step_s)
        q, _ = plant.joint_state()
        self._servos = {}
        for part in preset.parts:
            columns = [NAMES.index(name) for name in part.ours]
            of_arm = part.name == "arm"
            config = ControllerConfig(
                names=part.ours,
                path_rad=_ARM_PATH_RAD if of_arm else math.inf,
                goal_rad=_ARM_GOAL_RAD if of_arm else math.inf,
                start_rad=math.inf if any_start else ControllerConfig.start_rad,
                brake_s=preset.brake_s,
                deceleration=part.deceleration,
                max_rate=tuple(MAX_RATE[columns].tolist()),
                pairs=_pairs(part.ours),
            )
            start = controller.init(q[columns])
            self._servos[part.name] = _Servo(part, config, columns, start)
        self._rest = q.copy()
        self._reports: list[str] = []
        self._coming: list[tuple[float, Callable[[], None]]] = []
        self._going: list[tuple[float, JointState]] = []
        self._held_back: dict[int, JointState] = {}
        self._frozen: dict[int, JointState] = {}
        self._stuck: dict[str, float] = {}
        self._done: set[Fault] = set()
        self._orphan = False
        self.held_s = math.inf
        """When a controller first held by itself, by the robot's clock."""

    @property
    def dead(self) -> frozenset[str]:
        """Parts whose controllers are gone."""
        return frozenset(name for name, servo in self._servos.items() if servo.dead)

    def wanted(self) -> Float[np.ndarray, " 30"]:
        """Where all joints are told to be, radians."""
        return self._wanted()[0]

    def take(self, part: str, trajectory: Trajectory, start_s: float) -> None:
        """A trajectory came.

        Args:
            part: Whose controller it came to.
            trajectory: Joints by our names.
            start_s: When its time is 0, by the robot's clock.
        """
        delay = self._acts("delay", part)
        # One that begins later than at 0 has no stamp: it begins when it comes.
        start_s += delay.by if delay and trajectory.t[0] > 0.0 else 0.0
        self._receive(part, lambda: self._follow(self._servos[part], trajectory, start_s))

    def order(self, text: str) -> None:
        """An order came: a fault in the words of `faults.parse`, or `reset`; never disturbed."""
        if text.strip() == "reset":
            self.reset()
            return
        try:
            self._given.append(faults.parse(text, self.preset.joints, self.time_s))
        except FaultError as error:
            self._reports.append(str(error))

    def reset(self) -> None:
        """Ends all faults and puts everything where it began; time goes on."""
        self.plant.reset()
        q, _ = self.plant.joint_state()
        for servo in self._servos.values():
            servo.state, servo.dead = controller.init(q[servo.columns], servo.clock_s), False
        self.held_s = math.inf
        self._given.clear()
        self._coming.clear()
        self._going.clear()
        self._held_back.clear()
        self._frozen.clear()
        self._stuck.clear()
        self._done.clear()

    def orphaned(self, silent_s: float, limit_s: float) -> None:
        """Says how long the client gave no sign of life; beyond the limit everything holds."""
        late = silent_s > limit_s
        if late and not self._orphan:
            self._hold_all(f"no heartbeat for {silent_s:.2f} s")
        self._orphan = late

    def cut_off(self) -> bool:
        """Whether a network fault keeps signs of life away."""
        return self._acts("partition") is not None

    def tick(self) -> Tick:
        """Goes on by `TICK_S`."""
        due = [task for at, task in self._coming if at <= self.time_s]
        self._coming = [entry for entry in self._coming if entry[0] > self.time_s]
        for task in due:
            task()
        self._strike()
        slow = self._acts("slow")
        rate = 1.0 if slow is None else slow.by
        for _ in range(self._steps):
            for servo in self._servos.values():
                servo.clock_s += rate * self.plant.step_s
            q, qd = self._wanted()
            for name in self._stuck:
                j = NAMES.index(name)
                q[j], qd[j] = self._stuck[name], 0.0
            self.plant.step(q, rate * qd)
        self.time_s += TICK_S
        q, qd = self.plant.joint_state()
        for servo in self._servos.values():
            servo.state, broken = controller.judge(
                servo.config, servo.state, servo.clock_s, q[servo.columns]
            )
            if broken:
                self.held_s = min(self.held_s, self.time_s)
                self._report(servo, f"aborted: {broken}")
        return Tick(self._states(q, qd), self._reported(), self.plant.object_pose())

    def _wanted(self) -> tuple[np.ndarray, np.ndarray]:
        q, qd = self._rest.copy(), np.zeros(len(NAMES))
        for servo in self._servos.values():
            q[servo.columns], qd[servo.columns] = controller.wanted(servo.state, servo.clock_s)
        return q, qd

    def _acts(self, kind: str, part: str = "") -> Fault | None:
        return faults.find(self._given, kind, self.time_s, part)

    def _receive(self, part: str, task: Callable[[], None]) -> None:
        """Lets something in as the faults of the network allow."""
        drop, delay = self._acts("drop"), self._acts("delay", part)
        if self._acts("partition") or (drop and self._random.random() < drop.by):
            return
        self._coming.append((self.time_s + (delay.by if delay else 0.0), task))

    def _follow(self, servo: _Servo, trajectory: Trajectory, start_s: float) -> None:
        name = servo.part.name
        if servo.dead or self._acts("deaf", name):
            return
        if self._acts("reject", name) or self._acts("estop"):
            why = "emergency stop" if self._acts("estop") else "not accepting goals"
            self._report(servo, f"rejected a trajectory: {why}")
            return
        # The controller's clock may run behind the robot's.
        start_s += servo.clock_s - self.time_s
        servo.state, reason = controller.accept(
            servo.config, servo.state, trajectory, start_s, servo.clock_s
        )
        if reason:
            self._report(servo, f"rejected a trajectory: {reason}")

    def _strike(self) -> None:
        """Lets faults that happen once happen, and ends those that are over."""
        moved = {f.joint for f in self._given if f.kind == "stuck" and f.active(self.time_s)}
        self._stuck = {name: self._stuck.get(name, self._angle(name)) for name in moved}
        for fault in self._given:
            if fault in self._done or not fault.active(self.time_s):
                continue
            if fault.kind in ("abort", "death") and fault.part in self._servos:
                servo = self._servos[fault.part]
                self._hold(servo)
                servo.dead |= fault.kind == "death"
                if fault.kind == "abort":
                    self._report(servo, "aborted: told to")
            elif fault.kind == "estop":
                self._hold_all("emergency stop")
            self._done.add(fault)

    def _angle(self, name: str) -> float:
        return float(self.plant.joint_state()[0][NAMES.index(name)])

    def _hold_all(self, why: str) -> None:
        for servo in self._servos.values():
            moving = servo.state.has_goal
            self._hold(servo)
            if moving:
                self._report(servo, f"aborted: {why}")

    def _hold(self, servo: _Servo) -> None:
        self.held_s = min(self.held_s, self.time_s)
        servo.state = controller.hold(servo.config, servo.state, servo.clock_s)

    def _report(self, servo: _Servo, text: str) -> None:
        self._reports.append(f"{servo.part.controller} {text}")

    def _reported(self) -> tuple[str, ...]:
        if self._acts("partition"):
            return ()
        found, self._reports = tuple(self._reports), []
        return found

    def _states(self, q: np.ndarray, qd: np.ndarray) -> tuple[JointState, ...]:
        """The messages that leave now: one for each part, but for what faults do to them."""
        drop = self._acts("drop")
        for i, servo in enumerate(self._servos.values()):
            name, delay = servo.part.name, self._acts("delay", servo.part.name)
            measured = q[servo.columns] + FLICKER_RAD * self._encoders.normal(
                size=len(servo.columns)
            )
            now = JointState(self.time_s, self.time_s, servo.part.ours, measured, qd[servo.columns])
            if self._acts("freeze", name):
                old = self._frozen.setdefault(i, now)
                now = dataclasses.replace(old, stamp_s=now.stamp_s)
            else:
                self._frozen.pop(i, None)
            now = faults.altered(now, self._given, self.time_s)
            if self._acts("silent", name) or self._acts("partition"):
                continue
            if drop and self._random.random() < drop.by:
                continue
            at = self.time_s + (delay.by if delay else 0.0)
            if self._acts("disorder") and i not in self._held_back:
                self._held_back[i] = now
                continue
            self._going.append((at, now))
            if i in self._held_back:
                self._going.append((at, self._held_back.pop(i)))
        ready = tuple(state for at, state in self._going if at <= self.time_s + 1e-9)
        self._going = [entry for entry in self._going if entry[0] > self.time_s + 1e-9]
        return ready
