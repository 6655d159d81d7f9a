"""Teleoperation: its command line, over ROS 2, and what stops it, in virtual time."""

import dataclasses
import io
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from experiments import teleop as script
from realdex_jax.data import npz, store
from realdex_jax.errors import ConfigError
from realdex_jax.hand import human, joints
from realdex_jax.hand.load import load
from robot import limits, plant, presets, ros2
from robot.client import Ros2Robot
from robot.machine import Machine
from robot.plant import Kinematic
from robot.presets import PresetError
from robot.recording import Recorder
from robot.teleop import STEP_S, Sample, TeleopConfig
from robot.virtual import VirtualNetwork

PRESET = presets.read("simulated")

NEEDS_ROS = pytest.mark.skipif(bool(ros2.available()), reason=ros2.available() or "-")


OF_A_LOADED_MACHINE = (
    "joint states stale",
    "this program was late",
    "no joint states for",
    "no heartbeat for",
    "it stands after",  # states that come late show it late, and loudly
)


@pytest.fixture(scope="module")
def keypoints(tmp_path_factory):
    """A second of a hand that closes a little, seen 30 times."""
    share = np.linspace(0.0, 1.0, 31)[:, None]
    phi = np.zeros((31, 28))
    phi[:, :22] = np.clip(joints.REST + 0.2 * share, joints.LOWER, joints.UPPER)
    points = np.asarray(human.keypoints_of(load("shadow"), jnp.asarray(phi, jnp.float32)))
    path = tmp_path_factory.mktemp("hand") / "keypoints.npz"
    path.write_bytes(npz.encode({"keypoints": points}))
    return path


def run(args):
    console = Console(file=io.StringIO(), width=120)
    return script.run(args, console), console.file.getvalue()


@pytest.mark.slow
@pytest.mark.alone
@NEEDS_ROS
def test_a_hand_is_followed_and_recorded(keypoints, tmp_path):
    """A machine with other work to do may stop it: then it is tried again, but never goes on."""
    for attempt in range(4):
        out = tmp_path / str(attempt)
        (timing,), said = run(script.Teleop(keypoints, out=out))
        assert "samples/s" in said
        assert timing.confirmed or script.executor.NOT_CONFIRMED in said
        if not timing.reason:
            break
        assert not timing.reason or any(word in timing.reason for word in OF_A_LOADED_MACHINE)
    assert timing.reason == ""
    assert timing.confirmed
    assert len(timing.latency_s) + timing.skipped == 101
    dataset = store.open_dataset(out / "dataset")
    poses = dataset.motions("free_hand").poses(0)
    arrays = npz.read(out / "free_hand_00.npz")
    assert (np.diff(arrays["host_s"]) > 0).all()
    # The fingers did close: by half of what the person's did, at the least, within the second.
    assert (poses[-1, :22] - poses[0, :22]).mean() > 0.05


def test_set_points_alone(keypoints, tmp_path):
    (timing,), _ = run(script.Teleop(keypoints, robot="none", out=tmp_path))
    assert timing.faults == ()
    assert timing.reason == ""
    assert len(timing.latency_s) + timing.skipped == 101
    assert not list(tmp_path.glob("*.npz"))


def test_a_real_robot_needs_a_word(keypoints, tmp_path, monkeypatch):
    """Nothing is even connected before."""
    args = script.Teleop(keypoints, robot="shadow_ur10e", out=tmp_path)
    monkeypatch.setattr(script, "Ros2Robot", lambda *_: pytest.fail("connected"))
    with pytest.raises(ConfigError, match="add --execute"):
        run(args)
    for typed in ("", "yes\n", "MOVE THE ROBOT\n"):
        monkeypatch.setattr("sys.stdin", Terminal(typed))
        with pytest.raises(ConfigError, match="not confirmed"):
            run(dataclasses.replace(args, execute=True))
    # The very sentence, but through a pipe.
    monkeypatch.setattr("sys.stdin", io.StringIO(script.CONFIRMATION + "\n"))
    with pytest.raises(ConfigError, match="nothing moves without a person at the terminal"):
        run(dataclasses.replace(args, execute=True))


def test_the_simulated_robot_cannot_be_a_real_one(keypoints, tmp_path, monkeypatch):
    path = tmp_path / "mine.toml"
    path.write_text(presets.FILE.read_text().replace("/realdex_sim/", "/"))
    monkeypatch.setattr(script, "Ros2Robot", lambda *_: pytest.fail("connected"))
    with pytest.raises(PresetError, match="simulated is no simulated robot"):
        run(script.Teleop(keypoints, presets=path, out=tmp_path))


# In virtual time: the real client, the simulated robot with ideal joints.


class Driven:
    """A demonstration in which something happens after a while, and what was sent."""

    def __init__(self, happens="", samples=None, hook=None, preset=PRESET):
        self.network = VirtualNetwork(Machine(PRESET, Kinematic(plant.home())))
        self.robot = Ros2Robot(preset, network=self.network)
        self.happens, self.hook = happens, hook
        self.sends, self.stops = [], []
        self.send, self.stop = self.robot.send, self.robot.stop
        self.robot.send = self._send
        self.robot.stop = self._stop
        self.network.sleep(0.3)
        self.recorder = Recorder()
        self.timing = script.drive(
            load("shadow"),
            TeleopConfig(),
            moving() if samples is None else samples,
            self.robot,
            self.recorder,
            clock=self.network,
            sleep=self._sleep,
        )

    def since(self):
        return self.network() - self.sends[0] if self.sends else -1.0

    def _send(self, trajectory):
        self.sends.append(self.network())
        return self.send(trajectory)

    def _stop(self):
        self.stops.append(self.network())
        return self.stop()

    def _sleep(self, seconds):
        self.network.sleep(seconds)
        if self.since() > 0.35:
            if self.happens:
                self.robot.order(self.happens)
                self.happens = ""
            if self.hook is not None:
                self.hook(self)

    def nothing_moved_after_the_stop(self):
        assert self.stops
        assert max(self.sends) <= self.stops[0]
        self.network.sleep(1.0)
        t, _, qd = zip(*self.network.course, strict=True)
        assert not np.abs(qd[-1]).any()
        assert np.abs(np.array(qd)[:, :6]).max() < 1.1 * limits.MAX_RATE[:6].max()
        return np.array(t), np.array(qd)


def moving(seconds=1.0):
    """A tracker that moves to and fro, and fingers that bend."""
    t = np.arange(int(seconds / STEP_S) + 1) * STEP_S
    away = 0.06 * (1.0 - np.cos(2.0 * np.pi * t / 1.0))
    return [
        Sample(
            float(now),
            q=np.clip(joints.REST + 2.0 * x, joints.LOWER, joints.UPPER),
            wxyz_xyz_tracker=np.array([1.0, 0.0, 0.0, 0.0, x, 0.5 * x, x]),
        )
        for now, x in zip(t, away, strict=True)
    ]


def test_a_demonstration_ends_with_a_stop_that_is_seen():
    driven = Driven()
    timing = driven.timing
    assert (timing.reason, timing.confirmed, timing.skipped) == ("", True, 0)
    assert len(timing.latency_s) == 101
    assert timing.rate >= 100.0
    assert driven.stops[0] > max(driven.sends) + 0.5  # its own brake has ended by then
    assert (timing.off_rad < 1e-3).all()
    assert len(driven.recorder) == 101
    driven.nothing_moved_after_the_stop()


@pytest.mark.parametrize(
    ("happens", "told", "confirmed"),
    [
        ("freeze", "frozen for", False),
        ("freeze part=arm", "states of ra_shoulder_pan_joint ... frozen for", False),
        ("silent for=0.2", "joint states stale", True),
        ("jump joint=ra_elbow_joint by=0.5 for=0.05", "ra_elbow_joint jumped", True),
        ("estop for=0.2", "emergency stop", True),
        ("stuck joint=ra_shoulder_lift_joint", "ra_shoulder_lift_joint is 0.05", True),
        ("death part=arm", "is dead", True),
    ],
)
def test_after_a_fault_it_stops_and_never_goes_on(happens, told, confirmed):
    """Also where all is well again soon after: an emergency stop that is released moves nothing."""
    driven = Driven(happens)
    assert told in driven.timing.reason
    assert driven.timing.confirmed is confirmed
    if not confirmed:  # loud, and asked for again and again
        assert driven.timing.text().count(script.executor.NOT_CONFIRMED) == 2
        assert len(driven.stops) > 5
        assert driven.stops[-1] - driven.stops[0] > 2.0
    assert len(driven.sends) < 90
    driven.nothing_moved_after_the_stop()


def test_ctrl_c_stops_it_and_waits_as_often_as_it_comes():
    left = [3]

    def pressed(_):
        if left[0]:
            left[0] -= 1
            raise KeyboardInterrupt

    driven = Driven(hook=pressed)
    assert driven.timing.reason.startswith("cancelled by the operator (Ctrl-C); stop confirmed")
    assert driven.timing.cancelled
    assert len(driven.recorder) > 30
    driven.nothing_moved_after_the_stop()


def test_a_sample_that_is_none_stops_it():
    samples = moving()
    samples[60] = dataclasses.replace(samples[60], wxyz_xyz_tracker=np.full(7, np.nan))
    driven = Driven(samples=samples)
    assert "wxyz_xyz_tracker is not finite" in driven.timing.reason
    assert driven.timing.confirmed
    driven.nothing_moved_after_the_stop()


def test_a_command_that_cannot_be_sent_stops_it():
    def broken(driven):
        driven.send = lambda _: (_ for _ in ()).throw(OSError("socket closed"))

    driven = Driven(hook=broken)
    assert "OSError: socket closed" in driven.timing.reason
    assert driven.timing.confirmed
    t, _ = driven.nothing_moved_after_the_stop()
    assert len(t)


ALONE = dataclasses.replace(PRESET, heartbeat="")
"""As a real robot, which nobody stops when its client gives no sign of life."""


def late_once(seconds):
    """A hook that holds the program up when it is first called."""
    left = [seconds]

    def hook(driven):
        if left:
            driven.network.sleep(left.pop())

    return hook


def test_a_program_that_is_late_does_not_tear_the_robot_back():
    """A gap of 80 ms: the robot brakes and goes on, within the accelerations of the run."""
    driven = Driven(hook=late_once(0.08), preset=ALONE)
    assert driven.timing.reason == ""
    assert driven.timing.skipped > 5
    t, qd = driven.nothing_moved_after_the_stop()
    # Over 30 ms, for a set point is gone to in as much, by a cubic that is not even.
    change = np.abs(qd[3:, :6] - qd[:-3, :6]).max() / (t[3] - t[0])
    assert change < 2.0 * TeleopConfig().arm_acceleration


def test_a_program_that_is_too_late_stops():
    """The brake behind the last command has ended by then."""
    driven = Driven(hook=late_once(0.3), preset=ALONE)
    assert "this program was late: 3" in driven.timing.reason
    driven.nothing_moved_after_the_stop()


class Terminal(io.StringIO):
    """Where a person types."""

    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"source": Path("nowhere.npz")}, "no such file"),
        ({"count": 0}, "--count 0"),
        ({"speed": 9.0}, "--speed 9.0"),
    ],
)
def test_mistakes(keypoints, tmp_path, change, told):
    args = dataclasses.replace(script.Teleop(keypoints, robot="none", out=tmp_path), **change)
    with pytest.raises(ConfigError, match=told):
        run(args)
