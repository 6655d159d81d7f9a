"""Two processes over real ROS 2 on this machine: a client here, a simulated robot there."""

import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from robot import presets, ros2, simulated
from robot.client import Ros2Robot
from robot.interface import RobotError, Trajectory

WHY_NOT = ros2.available()
pytestmark = pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT or "-")

PRESET = presets.read("simulated")
DOMAIN = simulated.free_domain()
OTHER_DOMAIN = simulated.free_domain([DOMAIN])
ENCODERS = 1e-5
"""Radians that a simulated encoder's flicker (a millionth, standard deviation) stays well under."""
# A starved core must not look like a client that died; the watchdog's own time is tested without
# ROS in test_machine.py.
PATIENT = ("--heartbeat-s", "1.0")


@pytest.fixture(scope="module")
def robot():
    with simulated.running("--plant", "kinematic", *PATIENT, domain_id=DOMAIN):
        client = Ros2Robot(PRESET, DOMAIN)
        client.wait(30.0)
        yield client
        client.close()
        client.close()
        assert not [t.name for t in threading.enumerate() if t.name.startswith("ros2")]


@pytest.fixture(autouse=True)
def fresh(request):
    """Every test begins with the robot where it began, and nothing left of the one before."""
    if "robot" in request.fixturenames:
        client = request.getfixturevalue("robot")
        client.order("reset")
        until(lambda: not np.abs(client.state().qd).any(), "rest")
        time.sleep(0.15)
        client.faults()


def until(condition, what, timeout_s=20.0):
    end = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < end, f"no {what} in {timeout_s} s"
        time.sleep(0.005)
    return found


def swing(robot, by, seconds=1.0, names=PRESET.joints, points=21):
    state = robot.state()
    q0 = state.q[[state.names.index(n) for n in names]]
    goal = q0 + by * np.ones(len(names))
    u = np.linspace(0.0, 1.0, points)[:, None]
    w, wd = u * u * (3 - 2 * u), 6 * u * (1 - u) / seconds
    return Trajectory(names, seconds * u[:, 0], q0 + w * (goal - q0), wd * (goal - q0)), goal


def told(robot, text):
    seen = []

    def look():
        seen.extend(robot.faults())
        return any(text in fault for fault in seen)

    until(look, f"fault with {text!r}")
    return seen


def test_arm_and_hand_follow_a_trajectory(robot):
    whole, goal = swing(robot, 0.05)
    robot.send(whole)
    seen = [robot.state()]
    until(
        lambda: seen.append(robot.state()) or np.abs(seen[-1].q - goal).max() < ENCODERS, "arrival"
    )
    assert robot.faults() == ()
    state = robot.state()
    assert state.names == PRESET.joints
    assert time.monotonic() - state.received_s < 1.0
    # On the way every joint moves together: all have gone the same share.
    share = [(s.q - whole.q[0]) / 0.05 for s in seen]
    middle = [s for s in share if 0.2 < s[:6].mean() < 0.8]
    assert middle
    for s in middle:
        assert np.ptp(s[:6]) < 2.0 * ENCODERS / 0.05
        assert np.ptp(s[6:]) < 2.0 * ENCODERS / 0.05


def test_one_part_alone(robot):
    before = robot.state().q
    arm_only, goal = swing(robot, 0.1, 0.5, PRESET.part("arm").ours)
    robot.send(arm_only)
    until(lambda: np.abs(robot.state().q[:6] - goal).max() < ENCODERS, "arrival")
    np.testing.assert_allclose(robot.state().q[6:], before[6:], atol=ENCODERS)


def test_a_stop_is_seen_in_the_states(robot):
    whole, goal = swing(robot, 0.4, 2.0)
    robot.send(whole)
    until(lambda: robot.state().qd[0] > 0.2, "motion")
    robot.stop()
    robot.stop()
    until(lambda: not np.abs(robot.state().qd).any(), "rest")
    where = robot.state().q
    assert (where[:6] < goal[:6] - 0.05).all()
    time.sleep(0.3)
    np.testing.assert_allclose(robot.state().q, where, atol=ENCODERS)
    assert robot.faults() == ()


def test_what_may_not_leave_does_not(robot):
    whole, _ = swing(robot, 0.1)
    for field in ("q", "qd", "t"):
        bad = getattr(whole, field).copy()
        bad[3] = np.nan
        with pytest.raises(RobotError, match="finite"):
            robot.send(dataclasses.replace(whole, **{field: bad}))
    with pytest.raises(RobotError, match=r"no controller takes \['knee'\]"):
        robot.send(dataclasses.replace(whole, names=("knee", *whole.names[1:])))
    short = Trajectory(whole.names[:-1], whole.t, whole.q[:, :-1], whole.qd[:, :-1])
    with pytest.raises(RobotError, match=r"takes all its joints; missing: \['rh_THJ1'\]"):
        robot.send(short)
    time.sleep(0.2)
    assert not robot.state().qd.any()


def test_a_start_elsewhere_is_refused_by_the_controller(robot):
    whole, _ = swing(robot, 0.1)
    before = robot.state().q
    robot.send(dataclasses.replace(whole, q=whole.q + 0.02))
    told(robot, "rejected a trajectory: it begins with")
    np.testing.assert_allclose(robot.state().q, before, atol=ENCODERS)


@pytest.mark.parametrize(
    ("order", "text"),
    [
        ("silent for=0.6", "no joint states for"),
        ("partition for=0.6", "no joint states for"),
        ("nan joint=rh_FFJ3 for=0.3", "joint state of rh_FFJ3 is not finite"),
        ("duplicate joint=rh_FFJ3 for=0.3", "name rh_FFJ3 twice"),
        ("disorder for=0.3", "go back by 0.01"),
        ("clock by=-5 for=0.3", "go back by"),
        ("missing joint=rh_FFJ3 for=0.6", "no joint states for"),
    ],
)
def test_faults_of_states_are_told(robot, order, text):
    robot.order(order)
    told(robot, text)


def test_faults_of_controllers_are_told(robot):
    whole, _ = swing(robot, 0.2)
    robot.send(whole)
    robot.order("abort part=arm")
    told(robot, "/scaled_joint_trajectory_controller aborted: told to")
    robot.order("death part=hand")
    told(robot, "/rh_trajectory_controller is dead")
    robot.order("reset")
    until(lambda: not robot._missing(), "life")  # it listens again


def test_a_frozen_state_keeps_coming(robot):
    robot.order("freeze for=0.5")
    time.sleep(0.1)
    whole, _ = swing(robot, 0.1, 0.3)
    robot.send(whole)
    stamp, q = robot.state().stamp_s, robot.state().q
    time.sleep(0.2)
    assert robot.state().stamp_s > stamp
    np.testing.assert_array_equal(robot.state().q, q)


@pytest.mark.slow
@pytest.mark.alone
def test_a_robot_of_other_names_is_not_there():
    other = dataclasses.replace(PRESET, parts=presets.read("plain_ur").parts)
    with simulated.running("--plant", "kinematic", *PATIENT, domain_id=OTHER_DOMAIN):
        client = Ros2Robot(other, OTHER_DOMAIN)
        with pytest.raises(RobotError, match="no state of 6 joints, ra_shoulder_pan_joint"):
            client.wait(2.0)
        client.close()


@pytest.mark.slow
@pytest.mark.alone
def test_nothing_is_left_and_a_killed_robot_is_reported():
    """Killed as by -9; and a client that goes away stops the robot it leaves behind."""
    before, threads = dict(os.environ), threading.active_count()
    domain = OTHER_DOMAIN
    with simulated.running(
        "--plant", "kinematic", "--heartbeat-s", "0.3", domain_id=domain
    ) as process:
        first = Ros2Robot(PRESET, domain)
        first.wait(30.0)
        whole, goal = swing(first, 0.6, 4.0)
        first.send(whole)
        until(lambda: first.state().qd[0] > 0.1, "motion")
        first._link.close()  # gone without a word
        watcher = Ros2Robot(dataclasses.replace(PRESET, heartbeat=""), domain)
        watcher.wait(30.0)
        until(lambda: not watcher.state().qd.any(), "rest")
        assert (watcher.state().q[:6] < goal[:6] - 0.05).all()
        os.kill(process.pid, signal.SIGKILL)
        seen = told(watcher, "no joint states for")
        assert len([s for s in seen if "no joint states" in s]) == 1
        with pytest.raises(RobotError, match="closed"):
            watcher.close() or watcher.send(whole)
    assert dict(os.environ) == before
    assert threading.active_count() == threads


def test_a_robot_that_does_not_start_says_why():
    with (
        pytest.raises(RobotError, match="no fault 'melt'"),
        simulated.running("--faults", "melt", domain_id=DOMAIN),
    ):
        pass


def test_without_ros_the_extra_is_named():
    code = (
        "import sys; sys.modules['rclpy'] = None\n"
        "from robot import presets, ros2\n"
        "print(ros2.available())\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
    )
    assert "pip install 'realdex_jax[ros]'" in done.stdout
