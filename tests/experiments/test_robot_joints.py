"""A robot's joints for the recorder: of arm and hand in messages of their own, of one moment."""

import time

import numpy as np
import pytest

from capture.device import CaptureError
from capture.streams import JointSource
from experiments.robot_joints import RobotJoints
from robot import presets, ros2, simulated
from robot.interface import JointState
from sim.sequence import JOINTS

PRESET = presets.read("shadow_ur10e")
ARM, HAND = (PRESET.part(name) for name in ("arm", "hand"))
BEGIN = 1_764_000_000.0


class Wire:
    """A network on which tests speak."""

    def __init__(self):
        self.broken, self.closed, self.heard = "", False, {}

    def listen(self, topic, kind, callback, reliability="reliable", depth=10):
        self.heard[topic] = callback
        return lambda: None

    def say(self, part, stamp_s, q, *, received_s=None, without=()):
        names = tuple(n for n in part.theirs if n not in without)
        values = np.full(len(names), float(q))
        received = stamp_s + 5.0 if received_s is None else received_s
        self.heard["/joint_states"](
            JointState(stamp_s, received, names, values, np.ones(len(names))), stamp_s
        )

    def close(self):
        self.closed = True


@pytest.fixture
def wire():
    return Wire()


@pytest.fixture
def joints(wire):
    return RobotJoints(PRESET, wire)


def drained(joints):
    found = []
    while (state := joints.read(0.0)) is not None:
        found.append(state)
    return found


def test_states_are_of_one_moment(wire, joints):
    assert isinstance(joints, JointSource)
    assert joints.names == JOINTS
    # Both go by q = t; arm at 100 a second, hand at 40.
    for k in range(101):
        wire.say(ARM, BEGIN + 0.01 * k, 0.01 * k)
        if k % 5 in (0, 3):
            wire.say(HAND, BEGIN + 0.01 * k, 0.01 * k)
    states = drained(joints)
    assert [s.number for s in states] == list(range(len(states)))
    assert len(states) == 41
    for state in states:
        at = 1e-9 * (state.device_ns - round(1e9 * BEGIN))
        np.testing.assert_allclose(state.q, at, atol=1e-6)  # stamps are doubles since 1970
    assert (np.diff([s.host_ns for s in states]) > 0).all()
    assert 1e-9 * states[-1].host_ns == pytest.approx(BEGIN + 6.0, abs=1e-6)


def test_what_is_old_twice_or_no_number_is_no_state(wire, joints):
    for part in (ARM, HAND):
        wire.say(part, BEGIN, 0.0)
    wire.say(ARM, BEGIN + 0.1, 0.5)
    wire.say(HAND, BEGIN - 0.1, 9.0)
    wire.say(HAND, BEGIN + 0.1, np.nan)
    wire.say(HAND, BEGIN, 9.0)
    assert [s.number for s in drained(joints)] == [0]
    wire.say(HAND, BEGIN + 0.2, 1.0)
    (state,) = drained(joints)
    np.testing.assert_allclose(state.q, 0.5, atol=1e-6)


def test_missing_joints_and_stamps_are_said(wire, joints):
    wire.say(ARM, BEGIN, 0.0)
    wire.say(HAND, BEGIN, 0.0, without=("rh_THJ1",))
    message = r"'shadow_ur10e': 1 of 30 joints not heard of on /joint_states in 0 s: rh_THJ1"
    with pytest.raises(CaptureError, match=message):
        joints.wait(0.0)
    wire.say(HAND, BEGIN + 1.0, 0.0)
    joints.wait(0.0)
    assert drained(joints) == []  # what came before is no part of the recording
    wire.say(ARM, 0.0, 0.0)
    with pytest.raises(CaptureError, match="no time stamps"):
        joints.read(0.0)


def test_a_broken_connection_is_said(wire, joints):
    wire.broken = "ValueError: gone"
    with pytest.raises(CaptureError, match="gone"):
        joints.read(0.0)
    joints.close()
    assert wire.closed


WHY_NOT = ros2.available()


@pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT or "-")
def test_states_come_over_ros_2():
    domain = simulated.free_domain()
    preset = presets.preset(
        "here", {"joint_states": ["/realdex_test/joint_states"], "local": True, **_parts()}
    )
    speaker = ros2.Link("speaker", local=True, domain_id=domain)
    joints = RobotJoints(preset, domain_id=domain)
    try:
        send = speaker.sender("/realdex_test/joint_states", "states")
        names = tuple(n for part in preset.parts for n in part.theirs)
        end, found = time.monotonic() + 20.0, None
        while found is None:
            assert time.monotonic() < end, "no state in 20 s"
            q = np.linspace(0.0, 1.0, 30)
            now = time.time()
            send(JointState(now, 0.0, names, q, np.zeros(30)), now)
            found = joints.read(0.05)
        np.testing.assert_allclose(found.q, q)
        assert abs(1e-9 * found.device_ns - time.time()) < 20.0
        assert abs(1e-9 * found.host_ns - time.monotonic()) < 20.0
    finally:
        joints.close()
        speaker.close()


def _parts():
    rows = {
        part.name: {
            "controller": part.controller,
            "prefix": {"arm": "ra_", "hand": "rh_"}[part.name],
            "hold": part.hold,
            "deceleration": part.deceleration,
        }
        for part in PRESET.parts
    }
    return rows
