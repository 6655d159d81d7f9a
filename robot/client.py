"""The robot as its client sees it: a `Robot` whose controllers take trajectories by topic."""

import collections
import threading
import time

import numpy as np
from jaxtyping import Float

from robot import brake, controller, limits, merging, messages
from robot.interface import JointState, RobotError, Trajectory
from robot.network import Network
from robot.presets import Part, Preset
from robot.ros2 import Link

BEAT_S = 0.02
"""Seconds between two signs of life."""
CLOCKS_S = 0.05
"""Most seconds that the robot's clock may differ from this one where commands say when they begin.
"""

_WATCH_S = 0.05
_FRESH_S = 0.05
"""Measured joints older than this, or repeating themselves for half as long, do not say where a
stop should hold."""
_BELIEVED_RAD = 0.06
"""Nor do those that are further from where they were just told to be: the executor stops at 0.05.
"""
_LATE_S = 0.15
"""Seconds since the last command, of which a plan has one every 0.1 s: this program was late."""
_LATE_BRAKE_S = 0.1
"""Least seconds of a stop where states are that old: what keeps them may keep the stop as long, and
an arm that hears of it 0.2 s late is called back. In less it would have to go faster than it may.
"""
_SAME_RAD = 0.002
"""Radians between two ends of a brake that are meant to be one."""


class Ros2Robot:
    """Arm and hand behind ROS 2's trajectory controllers: a `Robot`."""

    def __init__(
        self, preset: Preset, domain_id: int | None = None, network: Network | None = None
    ) -> None:
        """Begins to listen; `wait` says when the robot is there.

        Args:
            preset: Names and topics.
            domain_id: Of the network's; `ROS_DOMAIN_ID` if None.
            network: Another network than ROS 2's.

        Raises:
            RobotError: ROS 2 is not installed, or its network cannot be used.
        """
        self.preset = preset
        self._lock = threading.Lock()
        self._merged = merging.init(preset.joints)
        self._our_names = preset.our_names()
        self._least_delay_s = np.inf
        self._faults: collections.deque[str] = collections.deque(maxlen=200)
        self._lost: set[str] = set()
        self._object: tuple[Float[np.ndarray, " 7"], float] | None = None
        self._sent: dict[str, tuple[float, Trajectory]] = {}
        self._way: dict[str, tuple[float, Trajectory]] = {}
        self._changed_s: dict[str, float] = {}
        self._beats, self._beaten_s, self._driver = 0, -np.inf, 0
        if network is None:
            network = Link("realdex_client", local=preset.local, domain_id=domain_id)
        self._link = link = network
        self._send = {
            part.name: link.sender(part.topic, "trajectory", preset.commands_qos, preset.depth)
            for part in preset.parts
        }
        for topic in preset.joint_states:
            link.listen(topic, "states", self._take, preset.states_qos, preset.depth)
        if preset.reports:
            link.listen(preset.reports, "text", self._reported)
        if preset.object_pose:
            link.listen(preset.object_pose, "pose", self._saw, "best_effort", 1)
        self._order = link.sender(preset.orders, "text") if preset.orders else None
        self._beat = None
        if preset.heartbeat:
            self._beat = link.sender(preset.heartbeat, "beat", "best_effort", 1)
        link.every(_WATCH_S, self._watch)

    def wait(self, timeout_s: float = 10.0) -> None:
        """Waits until all joints were heard of, all controllers listen, and clocks agree.

        Raises:
            RobotError: They were not, with what is missing.
        """
        end = time.monotonic() + timeout_s
        while missing := self._missing():
            if time.monotonic() > end:
                told = "; ".join(missing)
                raise RobotError(f"no robot {self.preset.name!r} after {timeout_s:g} s: {told}")
            time.sleep(0.02)

    def state(self) -> JointState | None:
        """The last state of all joints, as `Robot` says."""
        self._alive()
        return merging.whole(self._merged)

    def faults(self) -> tuple[str, ...]:
        """What went wrong since the last call, as `Robot` says."""
        self._alive()
        with self._lock:
            found = tuple(self._faults)
            self._faults.clear()
        if self._link.broken:
            found = (*found, f"connection ended by {self._link.broken}")
        return found

    def send(self, trajectory: Trajectory) -> tuple[Trajectory, ...]:
        """Sends each controller its joints, all with one stamp.

        A trajectory that names joints of one part leaves the other alone. One whose first point is
        at 0 begins now, by its stamp; one that begins later has no stamp, and is gone to from
        wherever the joints are when it comes. The thread that calls gives the signs of life.

        Raises:
            RobotError: A joint that no controller has, a controller whose joints are named in
                part, a value that is not finite, the robot's clock is not this one, it could not
                be published, or the robot is closed.
        """
        messages.check_finite(trajectory)
        if self._link.closed:
            raise RobotError("the connection is closed; nothing is sent")
        given = trajectory.names
        unknown = [name for name in given if name not in self.preset.joints]
        if unknown or len(set(given)) != len(given):
            known = ", ".join(
                f"{part.controller}: {part.ours[0]} ..." for part in self.preset.parts
            )
            raise RobotError(f"no controller takes {unknown or 'a joint named twice'}; {known}")
        parts: list[tuple[Part, Trajectory]] = []
        for part in self.preset.parts:
            missing = [name for name in part.ours if name not in given]
            if len(missing) == len(part.ours):
                continue
            if missing:
                raise RobotError(f"{part.controller} takes all its joints; missing: {missing}")
            column = [given.index(name) for name in part.ours]
            q, qd = (np.asarray(x, np.float64)[:, column] for x in (trajectory.q, trajectory.qd))
            t = np.asarray(trajectory.t, np.float64)
            parts.append((part, Trajectory(part.ours, t, q, qd)))
        if trajectory.t[0] == 0.0 and (differ := self._clocks()):
            raise RobotError(f"nothing is sent: {differ}")
        self._driver = threading.get_ident()
        self._alive()
        published, wrong = self._publish(parts)
        if wrong:
            raise RobotError("; ".join(wrong))
        return published

    def stop(self) -> tuple[Trajectory, ...]:
        """Asks every controller to come to rest: a single point, where a brake would end.

        The arm's is reckoned from where it is measured, the hand's from where it was told to be, so
        that it keeps its grip (`hold` in the preset). What cannot be reckoned or published for one
        controller keeps nothing from the other, and is told in `faults`.
        """
        if self._link.closed:
            return ()
        parts: list[tuple[Part, Trajectory]] = []
        for part in self.preset.parts:
            try:
                parts.append((part, self._brake(part)))
            except Exception as error:  # whatever it is, the other part is still to be stopped
                self._fault(f"{part.controller}: no hold asked for, {error}")
        published, wrong = self._publish(parts)
        for text in wrong:
            self._fault(text)
        return published

    def _brake(self, part: Part) -> Trajectory:
        """The point where a part comes to rest."""
        now = self._going(part)
        if now is None:
            raise RobotError("its joints were never heard of")
        q, qd = now
        rows = [limits.NAMES.index(name) for name in part.ours]
        d, w = self._doubt(part, q, qd)
        needed = brake.seconds(qd, part.deceleration, limits.STOP_JERK[rows])
        # What may be elsewhere goes there no harder than in a plan: how fast nobody looks at.
        gentle = np.minimum(part.deceleration, limits.MAX_ACCELERATION[rows])
        longer = brake.seconds(qd, gentle, limits.MAX_JERK[rows], d, w)
        needed = np.where((d > 0.0) | (w > 0.0), np.maximum(needed, longer), needed)
        least_s = _LATE_BRAKE_S if self._age_s(part).max() > _FRESH_S else 0.0
        brake_s = max(self.preset.brake_s, least_s, float(needed.max()))
        rest = brake.rest(q, qd, brake_s, limits.LOWER[rows], limits.UPPER[rows])
        _, before = self._sent.get(part.name, (0.0, None))
        # Asked again it is the same stop: reckoned anew it differs by the age of the states.
        if before and len(before.t) == 1 and np.abs(before.q[0] - rest).max() < _SAME_RAD:
            rest = before.q[0]
        return Trajectory(part.ours, np.array([brake_s]), rest[None], np.zeros((1, len(rest))))

    def object_pose(self) -> tuple[Float[np.ndarray, " 7"], float] | None:
        """`T_world_object` (wxyz, m) and its stamp (s), where a simulated robot tells it."""
        return self._object

    def order(self, text: str) -> None:
        """Sends a simulated robot an order: a fault of `robot.faults`, or `reset`.

        Raises:
            RobotError: This robot takes none.
        """
        if self._order is None:
            raise RobotError(f"robot {self.preset.name!r} takes no orders; a simulated one does")
        self._order(text, 0.0)

    def close(self) -> None:
        """Stops what moves and lets go of the connection; may be called twice."""
        if not self._link.closed:
            if self._sent:
                self.stop()
                time.sleep(0.05)  # the message leaves before the node does
            self._link.close()

    def _publish(
        self, parts: list[tuple[Part, Trajectory]]
    ) -> tuple[tuple[Trajectory, ...], list[str]]:
        """What went out, and why what did not did not: one controller is no matter of the other."""
        stamp_s, now = self._link.now_s(), self._link.monotonic_s()
        published, wrong = [], []
        for part, trajectory in parts:
            theirs = Trajectory(part.theirs, trajectory.t, trajectory.q, trajectory.qd)
            stamped = self.preset.stamped and trajectory.t[0] == 0.0
            try:
                self._send[part.name](theirs, stamp_s if stamped else 0.0)
            except Exception as error:  # rclpy's errors have no common class
                wrong.append(f"{part.controller}: {type(error).__name__}: {error}")
                continue
            self._sent[part.name] = (now, trajectory)
            if len(trajectory.t) > 1:
                self._way[part.name] = (now, trajectory)
            published.append(trajectory)
        return tuple(published), wrong

    def _going(self, part: Part) -> tuple[np.ndarray, np.ndarray] | None:
        """Where a part's joints are by now, and how fast they move; None if nobody knows.

        By what they were told where they are to be held so, and where what is measured is old, does
        not change, or is far from it.
        """
        merged, now, age = self._merged, self._link.monotonic_s(), self._age_s(part)
        rows = [merged.names.index(name) for name in part.ours]
        q, qd = merged.q[rows] + age * merged.qd[rows], merged.qd[rows]
        told = self._told(part, now)
        if not np.isfinite(age).all():
            return told
        repeats_s = float(merged.received_s[rows].max()) - self._changed_s.get(part.name, np.inf)
        knows = not self._holds(part, now)
        if told is not None and (
            part.hold == "commanded"
            or age.max() > _FRESH_S
            or repeats_s > 0.5 * _FRESH_S
            or (knows and np.abs(q - told[0]).max() > _BELIEVED_RAD)
        ):
            return told
        return q, qd

    def _age_s(self, part: Part) -> np.ndarray:
        """How long ago each of a part's joints was as it is known; NaN before it was heard of."""
        merged = self._merged
        rows = [merged.names.index(name) for name in part.ours]
        # What came late is older than it came: by as much as it took longer than others.
        late = merged.received_s[rows] - merged.stamp_s[rows] - self._least_delay_s
        return self._link.monotonic_s() - merged.received_s[rows] + late

    def _told(self, part: Part, now_s: float) -> tuple[np.ndarray, np.ndarray] | None:
        """Where a part's joints should be by its last command, and how fast; None before it."""
        sent = self._sent.get(part.name)
        if sent is None:
            return None
        at, trajectory = sent
        if len(trajectory.t) > 1:
            state = controller.ControllerState(trajectory.t, trajectory.q, trajectory.qd)
            return controller.wanted(state, now_s - at)
        return trajectory.q[0], np.zeros_like(trajectory.q[0])

    def _doubt(self, part: Part, q: np.ndarray, qd: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """How far (rad) a part may be from where it is reckoned, and how much faster (rad/s).

        Zeros where it is measured to be there, or was just told. It may hold, as measured. Told to
        stop before, it may still be on its way there, as measured, or never have heard, and follow
        what was sent before the stop.
        """
        merged, now = self._merged, self._link.monotonic_s()
        d, w = np.zeros(len(q)), np.zeros(len(q))
        _, trajectory = self._sent.get(part.name, (now, None))
        told = self._told(part, now)
        if told is None or trajectory is None or not (q == told[0]).all():
            return d, w
        rows = [merged.names.index(name) for name in part.ours]
        again = len(trajectory.t) == 1
        if (again or self._holds(part, now)) and np.isfinite(merged.q[rows]).all():
            d, w = np.abs(merged.q[rows] - q), np.abs(merged.qd[rows] - qd)
        if again and part.name in self._way:
            at, way = self._way[part.name]
            state = controller.ControllerState(way.t, way.q, way.qd)
            there, rate = controller.wanted(state, now - at)
            d, w = np.maximum(d, np.abs(there - q)), np.maximum(w, np.abs(rate - qd))
        return d, w

    def _holds(self, part: Part, now_s: float) -> bool:
        """Whether a part may hold for want of a sign of life: this program was late."""
        at, last = self._sent.get(part.name, (now_s, None))
        late = last is not None and len(last.t) > 1 and now_s - at > _LATE_S
        return late and bool(self.preset.heartbeat)

    def _clocks(self) -> str:
        """Empty where the robot's clock is this one, or does not matter; else by how much not."""
        merged = self._merged
        if not self.preset.stamped or self.preset.local or np.isnan(merged.stamp_s).any():
            return ""
        to_stamps = self._link.now_s() - self._link.monotonic_s()
        off = merged.received_s + to_stamps - merged.stamp_s
        j = int(np.abs(off).argmax())
        if abs(off[j]) <= CLOCKS_S:
            return ""
        return (
            f"this clock is {off[j]:+.3f} s off the stamps of {merged.names[j]}, allowed "
            f"{CLOCKS_S}: set both by one source, or `stamped = false` in the preset"
        )

    def _take(self, message: JointState, _stamp_s: float) -> None:
        before = self._merged
        self._merged, wrong = merging.take(before, message, self._our_names)
        if not wrong:
            for part in self.preset.parts:
                rows = [before.names.index(name) for name in part.ours]
                was, now = (np.stack([x.q[rows], x.qd[rows]]) for x in (before, self._merged))
                if (was != now).any():  # a first value differs from NaN
                    self._changed_s[part.name] = message.received_s
            delay_s = message.received_s - message.stamp_s
            self._least_delay_s = min(self._least_delay_s, delay_s)
        for text in wrong:
            self._fault(text)

    def _reported(self, text: str, _stamp_s: float) -> None:
        self._fault(text)

    def _saw(self, wxyz_xyz: Float[np.ndarray, " 7"], stamp_s: float) -> None:
        self._object = (wxyz_xyz, stamp_s)

    def _alive(self) -> None:
        """A sign of life, from the loop that drives alone: no thread gives one while it hangs."""
        now = self._link.monotonic_s()
        if self._beat is None or self._link.closed or threading.get_ident() != self._driver:
            return
        if now - self._beaten_s >= BEAT_S - 1e-3:
            self._beats, self._beaten_s = (self._beats + 1) % 2**32, now
            self._beat(self._beats, 0.0)

    def _watch(self) -> None:
        """Reports a loss once, when it comes."""
        lost = {}
        state = merging.whole(self._merged)
        if state is not None:
            age = self._link.monotonic_s() - state.received_s
            if age > self.preset.lost_s:
                lost["states"] = f"no joint states for {age:.2f} s"
            for part in self.preset.parts:
                if not self._link.subscribers(part.topic):
                    lost[part.name] = f"{part.controller} is dead: nobody takes its trajectories"
        lost |= {told: told for told, more in self._miscounted() if more}
        for key in lost.keys() - self._lost:
            self._fault(lost[key])
        self._lost = set(lost)

    def _missing(self) -> list[str]:
        unheard = merging.unheard(self._merged)
        found = [f"no state of {len(unheard)} joints, {unheard[0]} ..."] if unheard else []
        found += [told for told, _ in self._miscounted()]
        return [*found, *filter(None, [self._clocks()])]

    def _miscounted(self) -> list[tuple[str, bool]]:
        """Topics with another number of ends than one robot and one client have; if it is more.

        States of two robots would be mixed, a command would move both, and of two clients neither
        would know what moves.
        """
        link, commands = self._link, [part.topic for part in self.preset.parts]
        wanted = [
            ("publish", link.publishers, t, self.preset.sources) for t in self.preset.joint_states
        ]
        wanted += [("listen", link.subscribers, t, 1) for t in commands]
        wanted += [("publish", link.publishers, t, 1) for t in commands]
        counted = [(what, count(topic), topic, right) for what, count, topic, right in wanted]
        return [
            (f"{count} {what} on {topic}, it must be {right}", count > right)
            for what, count, topic, right in counted
            if count != right
        ]

    def _fault(self, text: str) -> None:
        with self._lock:
            self._faults.append(text)
