"""What a client sends to stop, and when it sends nothing: over a network of virtual time."""

import dataclasses

import numpy as np
import pytest

from robot import curve, limits, presets, trial
from robot.client import Ros2Robot
from robot.interface import RobotError
from robot.machine import Machine
from robot.plant import Kinematic
from robot.virtual import VirtualNetwork

PRESET = dataclasses.replace(presets.read("simulated"), local=False)
WAY = trial.motion().trajectory
pytestmark = pytest.mark.usefixtures("unchecked")


class Stage:
    """A client and a robot, and what is published to its controllers."""

    def __init__(self, preset=PRESET, **kwargs):
        self.machine = Machine(preset, Kinematic(limits.HOME), **kwargs)
        self.net = VirtualNetwork(self.machine)
        self.robot = Ros2Robot(preset, network=self.net)
        self.net.sleep(0.1)

    def drive(self, until_s):
        """As the executor does: what lies ahead, ten times a second."""
        for i in range(round(until_s / 0.01)):
            if i % 10 == 0:
                self.robot.send(curve.window(WAY, 0.01 * i, 0.3, 0.5))
            self.net.sleep(0.01)
            self.robot.state()

    def wait(self, seconds):
        """With signs of life: without, the robot holds by itself."""
        for _ in range(round(seconds / 0.01)):
            self.net.sleep(0.01)
            self.robot.state()

    def acceleration(self, since_s, joints=limits.ARM):
        """The greatest share of what a stop may have from a time on, by the true course."""
        t, _, qd = (np.array(x) for x in zip(*self.net.course, strict=True))
        share = np.abs(np.diff(qd, axis=0)) / np.diff(t)[:, None] / limits.STOP_ACCELERATION
        return share[t[1:] > since_s][:, joints].max()

    def speed(self, since_s, joints):
        """The same of speeds, of what any command may have."""
        t, _, qd = (np.array(x) for x in zip(*self.net.course, strict=True))
        return (np.abs(qd) / limits.MAX_RATE)[t > since_s][:, joints].max()

    def reports(self):
        return " ".join(self.robot.faults())


def test_what_is_published_is_returned():
    stage = Stage()
    parts = stage.robot.send(WAY)
    assert [p.names for p in parts] == [p.ours for p in PRESET.parts]
    np.testing.assert_array_equal(np.hstack([p.q for p in parts]), WAY.q)
    stage.net.sleep(0.5)
    stops = stage.robot.stop()
    assert [p.names for p in stops] == [p.ours for p in PRESET.parts]
    assert all(p.q.shape[0] == 1 and not p.qd.any() for p in stops)
    stage.robot.close()
    assert stage.robot.stop() == ()


@pytest.mark.parametrize(("lost", "other"), [("arm", "hand"), ("hand", "arm")])
def test_a_part_that_cannot_be_reached_keeps_nothing_from_the_other(lost, other):
    stage = Stage()
    stage.drive(2.5)
    stage.net.failing = frozenset({PRESET.part(lost).topic})
    (stop,) = stage.robot.stop()
    assert stop.names == PRESET.part(other).ours
    assert f"{PRESET.part(lost).controller}: OSError" in stage.reports()
    with pytest.raises(RobotError, match=f"{PRESET.part(lost).controller}: OSError"):
        stage.robot.send(WAY)


@pytest.mark.parametrize(("late_s", "cycles"), [(0.009, 0), (0.003, 1)])
def test_a_stop_that_is_obeyed_is_at_rest_a_tenth_of_a_second_later(late_s, cycles):
    """From the greatest speed of a plan, wherever in the robot's cycle it comes, or later."""
    stage = Stage()
    if cycles:
        stage.machine.order(f"delay by={0.01 * cycles}")
    stage.drive(1.1)
    stage.net.sleep(late_s)
    began, (_, qd) = stage.net(), stage.machine.plant.joint_state()
    assert np.abs(qd)[limits.ARM] == pytest.approx(limits.STOP_RATE[limits.ARM], rel=0.01)
    stage.robot.stop()
    stage.wait(0.2)
    t, _, qd = (np.array(x) for x in zip(*stage.net.course, strict=True))
    assert t[(np.abs(qd) >= 0.01).any(1)][-1] - began <= 0.1
    assert stage.acceleration(began) < 1.05


def test_a_stop_of_frozen_states_does_not_call_the_arm_back():
    """They say it stands where it began; it moves, and comes to rest ahead of where it is."""
    stage = Stage()
    stage.machine.order("freeze part=arm")
    stage.drive(0.6)
    q, qd = stage.machine.plant.joint_state()
    way = np.abs(q - limits.HOME)[limits.ARM]
    assert (np.abs(qd)[limits.ARM] > 0.2).all()
    assert (way < 0.06).all()  # so near that the watchdog on set points says nothing
    began = stage.net()
    arm, _ = stage.robot.stop()
    assert (np.sign(arm.q[0] - q[limits.ARM]) == np.sign(qd[limits.ARM])).all()
    stage.net.sleep(0.5)
    assert stage.acceleration(began) < 1.05


def test_a_measured_place_far_from_what_was_told_is_not_gone_to():
    stage = Stage()
    stage.drive(1.0)
    stage.machine.order("jump joint=ra_elbow_joint by=0.5")
    stage.net.sleep(0.02)
    began = stage.net()
    assert np.abs(stage.robot.state().q - stage.machine.plant.joint_state()[0]).max() > 0.4
    stage.robot.stop()
    stage.net.sleep(0.5)
    assert stage.acceleration(began) < 1.05
    assert not stage.machine.plant.joint_state()[1].any()


def test_a_program_that_was_late_does_not_drive_on_a_robot_that_holds():
    """By its last command the robot would be far ahead; it holds for want of a sign of life."""
    stage = Stage()
    stage.drive(1.0)
    stage.net.sleep(0.4)  # hangs
    stands = stage.machine.plant.joint_state()[0].copy()
    began = stage.net()
    stage.robot.stop()
    stage.net.sleep(0.6)
    assert np.abs(stage.machine.plant.joint_state()[0] - stands)[limits.ARM].max() < 1e-3
    assert stage.acceleration(began) < 1.05


def test_asked_again_fingers_that_are_still_on_their_way_are_not_hurried():
    """A program that was late had them go on to where they would be by its last command."""
    stage = Stage()
    stage.drive(2.45)
    stage.net.sleep(0.4)  # hangs; they hold
    began = stage.net()
    first = stage.robot.stop()
    assert first[1].t[0] > 0.3
    stage.net.sleep(0.25)
    assert np.abs(stage.machine.plant.joint_state()[1][limits.HAND]).max() > 0.1
    stage.robot.stop()
    stage.net.sleep(1.0)
    assert stage.acceleration(began, limits.HAND) < 1.05
    assert stage.speed(began, limits.HAND) < 1.001


def test_an_arm_that_hears_late_is_called_back_no_faster_than_it_may():
    """Its states stay away first: what keeps them keeps the stop, too, for 0.25 s."""
    stage = Stage()
    stage.drive(1.11)  # a command was just sent
    stage.machine.order("delay by=0.25")
    stage.wait(0.06)
    began = stage.net()
    stage.robot.stop()
    stage.wait(0.5)
    assert stage.speed(began, limits.ARM) < 1.001
    assert not stage.machine.plant.joint_state()[1].any()


def test_asked_again_an_arm_that_never_heard_is_not_called_back():
    """Its states are away, too: it may be anywhere between the stop and what was sent before."""
    stage = Stage()
    stage.drive(0.8)
    stage.machine.order("silent")
    stage.machine.order("deaf part=arm for=0.2")
    stage.machine.order("deaf part=hand for=0.2")
    stage.net.sleep(0.06)
    began = stage.net()
    stage.robot.stop()
    stage.net.sleep(0.25)
    again = stage.robot.stop()
    assert again[0].t[0] > 2.0 * limits.BRAKE_S
    stage.net.sleep(1.5)
    assert stage.acceleration(began) < 1.05
    assert not stage.machine.plant.joint_state()[1].any()


def test_asked_again_a_robot_that_stands_does_not_move():
    stage = Stage()
    stage.drive(1.0)
    stage.robot.stop()
    stage.net.sleep(0.3)
    where = stage.machine.plant.joint_state()[0].copy()
    for _ in range(5):
        stage.robot.stop()
        stage.net.sleep(0.1)
    assert np.abs(stage.machine.plant.joint_state()[0] - where).max() < 1e-4


@pytest.mark.parametrize("off_s", [0.3, -0.3])
def test_commands_that_say_when_need_one_clock(off_s):
    stage = Stage()
    stage.net.clock_off_s = off_s
    told = "[+]" if off_s > 0.0 else "-"  # the link takes some of it
    with pytest.raises(RobotError, match=f"nothing is sent: this clock is {told}0.[23].* off"):
        stage.robot.send(WAY)
    with pytest.raises(RobotError, match=r"no robot 'simulated' after 0 s: this clock is"):
        stage.robot.wait(0.0)
    assert stage.robot.stop()  # a stop has no stamp
    stage.net.sleep(0.5)
    assert np.abs(stage.machine.plant.joint_state()[0] - limits.HOME).max() < 1e-4
    for same in ({"stamped": False}, {"local": True}):
        stage = Stage(dataclasses.replace(PRESET, **same))
        stage.net.clock_off_s = off_s
        stage.robot.wait(0.0)
        assert stage.robot.send(WAY)


def test_signs_of_life_come_from_the_loop_that_drives():
    """A loop that hangs gives none, whatever its network's thread does; nor another thread."""
    stage = Stage()
    beats = []
    stage.robot._beat = lambda count, _: beats.append((stage.net(), count))
    for _ in range(10):
        stage.net.sleep(0.01)
        stage.robot.state()
    assert not beats  # it drives nothing yet
    stage.drive(1.0)
    gaps = np.diff([at for at, _ in beats])
    assert 45 <= len(beats) <= 52
    assert gaps.max() < 0.03
    count = len(beats)
    stage.net.sleep(0.5)  # hangs
    assert len(beats) == count
    stage.robot._driver += 1  # another thread asks
    stage.robot.state()
    assert len(beats) == count
