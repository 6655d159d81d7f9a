"""The simulated robot cannot be mistaken for a real one, nor a second robot for the first."""

import dataclasses
import math
import socket
import threading
import time
from typing import ClassVar

import numpy as np
import pytest

from robot import limits, presets, ros2, simulated
from robot.client import Ros2Robot
from robot.interface import RobotError
from robot.machine import Machine
from robot.plant import Kinematic
from robot.presets import PresetError
from robot.simulated import Simulated
from robot.virtual import VirtualNetwork

PRESET = presets.read("simulated")
ARM, HAND = (part.topic for part in PRESET.parts)
STATES = PRESET.joint_states[0]


def test_a_free_domain_is_nobodys(monkeypatch):
    usual = simulated.free_domain()
    assert 1 <= usual <= 101
    monkeypatch.setenv("ROS_DOMAIN_ID", str(usual))
    other = simulated.free_domain()
    assert other != usual
    # A node there has one of the domain's ports.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as node:
        node.bind(("", 7400 + 250 * other + 10))
        assert simulated.in_use(other)
        assert simulated.free_domain() not in (usual, other)
    assert not simulated.in_use(other)
    monkeypatch.setattr(simulated, "in_use", lambda _: True)
    with pytest.raises(RobotError, match="all 101 domains"):
        simulated.free_domain()


@pytest.mark.skipif(bool(ros2.available()), reason=ros2.available() or "-")
def test_a_node_is_seen_by_its_ports():
    domain = simulated.free_domain()
    link = ros2.Link("somebody", local=True, domain_id=domain)
    try:
        assert simulated.in_use(domain)
    finally:
        link.close()


def test_a_simulated_robot_has_no_real_names():
    with pytest.raises(PresetError, match="shadow_ur10e is no simulated robot"):
        simulated.serve(Simulated(preset="shadow_ur10e"), threading.Event(), print)


class Crowded(VirtualNetwork):
    """A network on which somebody else may be, too."""

    more: ClassVar[dict[str, int]] = {}

    def publishers(self, topic):
        return super().publishers(topic) + self.more.get(f"publish {topic}", 0)

    def subscribers(self, topic):
        return super().subscribers(topic) + self.more.get(f"listen {topic}", 0)


@pytest.mark.parametrize(
    ("who", "told"),
    [
        (f"publish {STATES}", f"2 publish on {STATES}, it must be 1"),
        (f"publish {ARM}", f"2 publish on {ARM}, it must be 1"),
        (f"listen {ARM}", f"2 listen on {ARM}, it must be 1"),
        (f"listen {HAND}", f"2 listen on {HAND}, it must be 1"),
    ],
)
def test_a_second_robot_or_client_is_refused_and_reported(who, told):
    network = Crowded(Machine(PRESET, Kinematic(limits.HOME)))
    robot = Ros2Robot(PRESET, network=network)
    network.sleep(0.3)
    robot.wait(0.0)
    assert robot.faults() == ()
    network.more = {who: 1}
    with pytest.raises(RobotError, match=f"no robot 'simulated' after 0 s: {told}"):
        robot.wait(0.0)
    network.sleep(0.2)
    assert robot.faults() == (told,)  # once, and while it is driven, too


def test_as_many_drivers_as_the_preset_says():
    shared = dataclasses.replace(PRESET, sources=2)
    network = Crowded(Machine(PRESET, Kinematic(limits.HOME)))
    robot = Ros2Robot(shared, network=network)
    network.sleep(0.3)
    with pytest.raises(RobotError, match=f"1 publish on {STATES}, it must be 2"):
        robot.wait(0.0)
    network.more = {f"publish {STATES}": 1}
    robot.wait(0.0)


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.skipif(bool(ros2.available()), reason=ros2.available() or "-")
def test_time_runs_as_fast_as_it_is_told_to():
    domain = simulated.free_domain()
    words = ("--plant", "kinematic", "--speed", "4", "--heartbeat-s", "0")
    with simulated.running(*words, domain_id=domain):
        robot = Ros2Robot(PRESET, domain)
        try:
            robot.wait(30.0)
            first = robot.state()
            time.sleep(1.0)
            last = robot.state()
        finally:
            robot.close()
    assert first is not None
    assert last is not None
    passed, waited = last.stamp_s - first.stamp_s, last.received_s - first.received_s
    # Its clock stands still while a core is taken from it, and is never ahead of its own speed.
    assert 2.0 < passed / waited < 4.5
    assert math.isfinite(passed)
    np.testing.assert_allclose(first.q, last.q, atol=1e-4)
