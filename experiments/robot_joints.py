"""The joints of a robot on ROS 2 as a recorder takes them: every state that its topics tell.

Arm and hand may come in messages of their own. A state is of the moment up to which all joints were
heard of; joints that were heard of later are taken between their two messages.
"""

import queue
import threading
import time
from collections import deque

import numpy as np

from capture.device import CaptureError
from capture.recording import JointState
from robot import interface, messages, ros2
from robot.network import Network
from robot.presets import Preset

KIND: messages.Kind = "states"
_KEPT = 64
"""Values of a joint that are kept: a hand at 1 kHz beside an arm at 20 Hz."""
_WAITING = 4096
"""States that may wait for the recorder, some ten seconds; what comes on top is a gap."""


class RobotJoints:
    """A robot's joints; a `capture.streams.JointSource`."""

    def __init__(
        self, preset: Preset, network: Network | None = None, domain_id: int | None = None
    ) -> None:
        """Begins to listen; `wait` says when all joints were heard of.

        Args:
            preset: Names and topics.
            network: Another one than ROS 2's.
            domain_id: Of the network's; `ROS_DOMAIN_ID` if None.

        Raises:
            RobotError: ROS 2 is not installed, or its network cannot be used.
        """
        self._preset, self._names = preset, preset.joints
        self._ours = preset.our_names()
        self._kept: dict[str, deque[tuple[float, float, float, float]]] = {
            name: deque(maxlen=_KEPT) for name in self._names
        }
        self._lock = threading.Lock()
        self._states: queue.Queue[JointState] = queue.Queue(_WAITING)
        self._number, self._last_ns, self._last_host_ns = 0, -(2**62), 0
        self._wrong = ""
        self._network: Network = network or ros2.Link(
            "realdex_recorder", local=preset.local, domain_id=domain_id
        )
        for topic in preset.joint_states:
            self._network.listen(topic, KIND, self._take, preset.states_qos, preset.depth)

    @property
    def names(self) -> tuple[str, ...]:
        """The joints by this project's names, in the order of states."""
        return self._names

    def wait(self, timeout_s: float = 10.0) -> None:
        """Waits until all joints were heard of; what came before is no part of the recording.

        Raises:
            CaptureError: Some were not, or their messages cannot be used.
        """
        end = time.monotonic() + timeout_s
        while missing := [name for name in self._names if not self._kept[name]]:
            self._check()
            if time.monotonic() > end:
                raise CaptureError(
                    f"robot {self._preset.name!r}: {len(missing)} of {len(self._names)} joints not "
                    f"heard of on {', '.join(self._preset.joint_states)} in {timeout_s:g} s: "
                    f"{', '.join(missing[:4])} ..."
                )
            time.sleep(0.01)
        with self._lock:
            self._states, self._number = queue.Queue(_WAITING), 0

    def read(self, timeout_s: float) -> JointState | None:
        """The next state; None if none came in that time.

        Raises:
            CaptureError: The connection is broken, or its messages cannot be used.
        """
        try:
            return self._states.get(timeout=timeout_s)
        except queue.Empty:
            self._check()
            return None

    def close(self) -> None:
        """Lets go of the connection; may be called twice."""
        self._network.close()

    def _check(self) -> None:
        if self._wrong or self._network.broken:
            raise CaptureError(
                f"robot {self._preset.name!r}: {self._wrong or self._network.broken}"
            )

    def _take(self, message: interface.JointState, stamp_s: float) -> None:
        """Called by the network's thread."""
        mine = [(i, self._ours[name]) for i, name in enumerate(message.names) if name in self._ours]
        if not mine:
            return
        if stamp_s <= 0.0:
            self._wrong = "its joint states have no time stamps; a recording needs them"
            return
        with self._lock:
            for i, name in mine:
                kept, q = self._kept[name], float(message.q[i])
                # Messages may come twice or out of order; a value without a number is none.
                if np.isfinite(q) and (not kept or stamp_s > kept[-1][0]):
                    kept.append((stamp_s, message.received_s, q, float(message.qd[i])))
            self._give()

    def _give(self) -> None:
        """A state, if all joints were heard of up to a later moment than that of the last one."""
        if not all(self._kept.values()):
            return
        oldest = min((kept[-1] for kept in self._kept.values()), key=lambda value: value[0])
        device_ns = round(1e9 * oldest[0])
        if device_ns <= self._last_ns:
            return
        values = np.array([_at(kept, oldest[0]) for kept in self._kept.values()])
        host_ns = max(round(1e9 * oldest[1]), self._last_host_ns + 1)
        state = JointState(self._number, device_ns, host_ns, values[:, 0], values[:, 1])
        self._number, self._last_ns, self._last_host_ns = self._number + 1, device_ns, host_ns
        try:
            self._states.put_nowait(state)
        except queue.Full:
            return  # its number is missing, which tells


def _at(kept: deque[tuple[float, float, float, float]], stamp_s: float) -> tuple[float, float]:
    """Position and velocity of a joint at a moment, in a line between its values."""
    after = before = kept[-1]
    for value in reversed(kept):
        before = value
        if value[0] <= stamp_s:
            break
        after = value
    run = after[0] - before[0]
    share = min(max((stamp_s - before[0]) / run, 0.0), 1.0) if run > 0.0 else 0.0
    q, qd = (before[k] + share * (after[k] - before[k]) for k in (2, 3))
    return q, qd
