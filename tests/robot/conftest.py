"""A small motion, its plan, and leave to drive it."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from realdex_jax.hand import joints
from realdex_jax.hand.load import load
from robot import clearance, curve, limits
from robot.plan import PlanConfig, plan
from robot.preflight import Verdict

SHORT = PlanConfig(open_s=0.5, approach_s=0.6, stretch=1.0, squeeze_s=0.3, lift_s=0.6, hold_s=0.4)


def small_motion(rng=None, frames=24):
    """Poses from near the home pose to 15 cm further, the hand closing; a little different each."""
    import jax.numpy as jnp

    R, p = (np.asarray(x, np.float64) for x in clearance.palm(jnp.asarray(limits.HOME)))
    s = np.linspace(0.0, 1.0, frames)[:, None]
    s = s**3 * (10.0 - 15.0 * s + 6.0 * s**2)
    off, way, turn = np.array([0.02, 0.0, -0.03]), np.array([0.12, 0.03, -0.08]), np.zeros(3)
    if rng is not None:
        off, way = off + 0.02 * rng.normal(size=3), way + 0.03 * rng.normal(size=3)
        turn = 0.2 * rng.normal(size=3)
    phi = np.zeros((frames, 28))
    phi[:, :22] = s * joints.REST
    phi[:, 22:25] = p + clearance.P_BASE + off + s * way
    phi[:, 25:] = (Rotation.from_rotvec(s * turn) * Rotation.from_matrix(R)).as_rotvec()
    return phi


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
