"""Robots that are watched: one in this process, and one that is only listened to."""

import time
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
import pytest

from experiments import watched
from experiments.watched import Listener, Virtual
from realdex_jax import pose
from robot import clearance, limits, presets
from robot.interface import JointState, RobotError
from robot.presets import PresetError
from sim import objects
from viewer import tableau
from viewer.live import Stance

PATIENCE = 60.0


def until(there: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not there():
        assert time.monotonic() < deadline
        time.sleep(0.01)


class Wire:
    """A network on which tests speak."""

    def __init__(self) -> None:
        self.broken, self.closed, self.heard = "", False, {}

    def listen(self, topic, kind, callback, reliability="reliable", depth=10):
        self.heard[topic] = callback
        return lambda: None

    def sender(self, *args, **settings):
        raise AssertionError("who watches must not publish: a client counts who does")

    def close(self) -> None:
        self.closed = True


def test_a_robot_is_listened_to_and_nothing_is_sent() -> None:
    preset, wire = presets.read("simulated"), Wire()
    mug = objects.make("mug")
    listener = Listener(preset, wire, tableau.make_thing("mug", mug.vertices, mug.faces))
    assert listener.stance() is None
    assert listener.actions == ()
    q = limits.HOME + 0.01 * np.arange(30)
    placed = np.array([1.0, 0, 0, 0, 0.1, 0.2, 0.3])
    wire.heard[preset.object_pose](placed, 0.0)
    for part in preset.parts:
        values = np.array([q[limits.NAMES.index(name)] for name in part.ours])
        state = JointState(1000.0, 50.0, part.theirs, values, np.zeros(len(values)))
        wire.heard[preset.joint_states[0]](state, 1000.0)
    stance = listener.stance()
    assert stance is not None
    np.testing.assert_allclose(stance.q_arm, q[:6])
    assert stance.received_s == pytest.approx(50.0)
    np.testing.assert_allclose(stance.wxyz_xyz_world_object, placed)
    R, p = clearance.palm(q.astype(np.float32))
    _, T_world_hand = pose.split(jnp.asarray(stance.phi))
    np.testing.assert_allclose(T_world_hand.rotation().as_matrix(), R, atol=1e-5)
    np.testing.assert_allclose(T_world_hand.translation(), p + clearance.P_BASE, atol=1e-5)
    assert listener.stance() is stance  # nothing new came
    wire.broken = "cable out"
    listener.stance()
    assert "cable out" in listener.words()
    listener.close()
    assert wire.closed


@pytest.mark.slow
def test_a_robot_in_this_process_moves_when_it_is_asked_and_stops() -> None:
    robot = Virtual()
    try:
        until(robot.stance)

        def away() -> float:
            stance = robot.stance()
            assert isinstance(stance, Stance)
            return float(np.abs(stance.q_arm - limits.HOME[limits.ARM]).max())

        assert away() < 1e-3
        robot.act(watched.REACH)
        until(lambda: away() > 0.05)
        robot.act(watched.STOP)
        until(lambda: "the visitor" in robot.words())
        assert "idle" in robot.words()
        stood = away()
        time.sleep(0.2)
        assert away() == pytest.approx(stood, abs=1e-3)
        robot.act(watched.HOME)
        until(lambda: away() < 1e-3)
    finally:
        robot.close()
    assert not robot._thread.is_alive()


def test_mistakes_are_named() -> None:
    with pytest.raises(PresetError, match="no preset 'r2d2'"):
        watched.watch("r2d2", None)
    arm = presets.read("plain_ur")
    only = presets.Preset("arm", arm.parts[:1], arm.joint_states)
    with pytest.raises(RobotError, match="'arm' has not arm and hand"):
        Listener(only, Wire())
