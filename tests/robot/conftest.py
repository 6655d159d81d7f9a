"""A small motion, its plan, and leave to drive it."""

import itertools
from types import SimpleNamespace

import jaxtyping
import numpy as np
import pytest
from small_motion import SHORT, small_motion

from realdex_jax.data.store import open_dataset
from realdex_jax.hand import joints
from realdex_jax.hand.load import load
from robot import curve, limits
from robot.plan import plan
from robot.preflight import Verdict
from sim import demonstrate, objects, workcell

GRASP = 1
"""One whose forearm is level, so that the arm reaches it."""


@pytest.fixture
def unchecked():
    """Without checks of shapes a robot in virtual time takes a tenth of the time."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def hand():
    return load("shadow")


@pytest.fixture(scope="session")
def short_plan(hand):
    """A plan of a few seconds."""
    squeeze = joints.REST + 0.1 * (joints.REST > 0.3)
    return plan(hand, small_motion(), squeeze, limits.HOME, SHORT)


@pytest.fixture(scope="session")
def leave():
    """Makes a verdict that passes, as of some time."""

    def make(plan, made_s, faults=()):
        return Verdict(curve.digest(plan.trajectory), faults, None, made_s)

    return make


@pytest.fixture(scope="session")
def cell(hand):
    """The robot with a small cube far from it."""
    corners = 0.02 * np.array(list(itertools.product((-1.0, 1.0), repeat=3)))
    cube = SimpleNamespace(name="cube", pieces=(corners,))
    return workcell.build(hand, cube, np.array([1.0, 0.0, 0.0, 0.0, 1.5, 1.5, 0.02]))


@pytest.fixture(scope="session")
def job(hand):
    """A shipped grasp of a bottle of lotion, reached for in the demonstrator's usual way."""
    shape, grasps = objects.make("cosmetics"), open_dataset("realdex-sim").grasps("cosmetics")
    config = demonstrate.DemonstrationConfig(object_spread=0.0, yaw_spread=0.0)
    drawn = demonstrate.draw(shape, grasps, 8, np.random.default_rng(0), config, in_order=True)
    i = GRASP
    length = np.array([60])
    phi = demonstrate.habitual(drawn.start[[i]], drawn.goal[[i]], length, int(length[0]))[0]
    placed = np.asarray(drawn.wxyz_xyz_world_object[i], np.float64)
    squeeze = np.asarray(grasps.q_squeeze[i], np.float64)
    return SimpleNamespace(
        shape=shape,
        phi=phi,
        q_squeeze=squeeze,
        placed=placed,
        plan=plan(hand, phi, squeeze, limits.HOME, SHORT),
        cell=workcell.build(hand, shape, placed),
    )
