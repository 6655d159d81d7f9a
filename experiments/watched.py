"""Robots for the viewer to watch: a simulated one in this process, or any that ROS 2 tells of."""

import contextlib
import dataclasses
import threading
import time

import numpy as np
from jaxtyping import Float

from experiments.robot_joints import RobotJoints
from realdex_jax.errors import RealdexError
from robot import cases, drive, film, limits, presets, ros2, trial
from robot.client import Ros2Robot
from robot.executor import State
from robot.interface import RobotError
from robot.machine import Machine
from robot.network import Network
from robot.plant import Kinematic
from robot.presets import Preset
from robot.virtual import VirtualNetwork
from sim import objects
from viewer import tableau
from viewer.live import Stance
from viewer.tableau import Thing

VIRTUAL = "virtual"
"""The name of the robot in this process."""
REACH, STOP, HOME = "reach and lift", "stop", "go back at once"
_STEP_S = 0.02
_BEHIND_S = 0.25
"""Seconds that a virtual robot may be late; then its time goes slower."""


class Listener:
    """A `viewer.live.Watched` that listens to joint states and sends nothing."""

    actions: tuple[str, ...] = ()

    def __init__(self, preset: Preset, network: Network, thing: Thing | None = None) -> None:
        """Begins to listen; it closes the network when it is closed.

        Args:
            preset: Names and topics.
            network: ROS 2's, or another.
            thing: The object, where the robot tells its pose.

        Raises:
            RobotError: Arm or hand is missing, or the network cannot be used.
        """
        if sorted(preset.joints) != sorted(limits.NAMES):
            raise RobotError(f"robot {preset.name!r} has not arm and hand; nothing can be shown")
        self.name, self.thing = preset.name, thing
        self._joints = RobotJoints(preset, network)
        self._columns = [self._joints.names.index(name) for name in limits.NAMES]
        self._stance: Stance | None = None
        self._object: Float[np.ndarray, " 7"] | None = None
        self._wrong = ""
        if preset.object_pose and thing is not None:
            network.listen(preset.object_pose, "pose", self._saw, "best_effort", 1)

    def stance(self) -> Stance | None:
        """As `Watched` says."""
        last = None
        try:
            while (state := self._joints.read(0.0)) is not None:
                last = state
        except RealdexError as error:
            self._wrong = str(error)
        if last is not None:
            q = np.asarray(last.q, np.float64)[self._columns]
            self._stance = Stance(
                q[limits.ARM], film.hand_poses(q[None])[0], 1e-9 * last.host_ns, self._object
            )
        return self._stance

    def words(self) -> str:
        """As `Watched` says."""
        return self._wrong or "it is watched only; nothing is sent to it"

    def act(self, action: str) -> None:
        """As `Watched` says; there is nothing to ask for."""

    def close(self) -> None:
        """As `Watched` says."""
        self._joints.close()

    def _saw(self, wxyz_xyz_world_object: Float[np.ndarray, " 7"], _: float) -> None:
        self._object = np.asarray(wxyz_xyz_world_object, np.float64)


class Virtual:
    """A `viewer.live.Watched` with the simulated robot behind it, without ROS 2.

    One thread has robot, network and executor, and lets the robot's time go on with the clock; who
    watches takes the last state that its client heard of.
    """

    name: str = "simulated robot in this process"
    thing: Thing | None = None
    actions: tuple[str, ...] = (REACH, STOP, HOME)

    def __init__(self) -> None:
        """Begins at rest, at `limits.HOME`."""
        # As of a robot elsewhere: whose clock is this machine's is not asked.
        self._preset = dataclasses.replace(presets.read("simulated"), local=False)
        self._asked, self._words = "", "at rest"
        self._closing = False
        self._stance: Stance | None = None
        self._thread = threading.Thread(target=self._live, name="virtual robot", daemon=True)
        self._thread.start()

    def stance(self) -> Stance | None:
        """As `Watched` says."""
        return self._stance

    def words(self) -> str:
        """As `Watched` says."""
        return self._words

    def act(self, action: str) -> None:
        """As `Watched` says."""
        self._asked = action

    def close(self) -> None:
        """As `Watched` says."""
        self._closing = True
        self._thread.join(timeout=5.0)

    def _live(self) -> None:
        try:
            machine = Machine(self._preset, Kinematic(limits.HOME))
            self._network = VirtualNetwork(machine)
            self._began = time.monotonic() - self._network()
            with contextlib.closing(Ros2Robot(self._preset, network=self._network)) as robot:
                self._robot = robot
                while not self._closing:
                    asked, self._asked = self._asked, ""
                    if asked == REACH:
                        self._reach(robot)
                    elif asked == HOME:
                        machine.reset()
                        self._words = "back where it began"
                    self._sleep(_STEP_S)
        except RealdexError as error:
            self._words = str(error)

    def _reach(self, robot: Ros2Robot) -> None:
        """Drives the motion of the trials through executor and gate, from where they begin."""
        self._network.machine.reset()
        self._sleep(10 * _STEP_S)
        self._words = "reaching"
        plain = cases.Case("viewer")
        outcome = drive.run(
            robot,
            trial.order(trial.motion(), plain, self._network()),
            State(),
            cancel=lambda: "the visitor" if self._asked == STOP or self._closing else "",
            on_phase=lambda state: setattr(self, "_words", str(state.phase)),
            clock=self._network,
            sleep=self._sleep,
        )
        self._words = outcome.text()

    def _sleep(self, seconds: float) -> None:
        """Lets the robot's time go on, not faster than the clock, and keeps what is heard."""
        self._network.sleep(seconds)
        self._network.course.clear()  # nobody judges it, and it would grow for ever
        state = self._robot.state()
        if state is not None:
            q = np.asarray(state.q)[[state.names.index(name) for name in limits.NAMES]]
            self._stance = Stance(q[limits.ARM], film.hand_poses(q[None])[0], time.monotonic())
        ahead = self._began + self._network() - time.monotonic()
        if ahead > 0.0:
            time.sleep(ahead)
        elif ahead < -_BEHIND_S:
            self._began -= ahead


def watch(name: str, thing: Thing | None, file: presets.Path = presets.FILE) -> Listener | Virtual:
    """A robot to be watched.

    Args:
        name: `VIRTUAL`, or a preset.
        thing: The object that a simulated robot tells of; a mug if None.
        file: Of presets.

    Raises:
        RealdexError: No such preset, or ROS 2 is not here.
    """
    if name == VIRTUAL:
        return Virtual()
    preset = presets.read(name, file)
    if preset.object_pose and thing is None:
        mug = objects.make("mug")
        thing = tableau.make_thing("mug", mug.vertices, mug.faces)
    network = ros2.Link("realdex_viewer", local=preset.local)
    try:
        return Listener(preset, network, thing)
    except BaseException:
        network.close()
        raise
