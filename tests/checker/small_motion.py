"""A motion of the hand near the robot's home pose: no data needed, quickly planned."""

import jax.numpy as jnp
import numpy as np
from scipy.spatial.transform import Rotation

from realdex_jax.hand import joints
from robot import clearance, limits
from robot.plan import PlanConfig

SHORT = PlanConfig(open_s=0.5, approach_s=0.6, stretch=1.0, squeeze_s=0.3, lift_s=0.6, hold_s=0.4)


def small_motion(rng=None, frames=24):
    """Poses from near the home pose to 15 cm further, the hand closing; a little different each."""
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
