"""The joints of the whole robot, and how far, how fast and how abruptly each may be driven.

The only copy. Rates, accelerations and jerks stay under what the hardware allows: the robot's own
limits are its safety function, these are not.
"""

import numpy as np
from jaxtyping import Bool, Float

from realdex_jax import arm
from realdex_jax.hand import joints

NAMES: tuple[str, ...] = (*arm.JOINTS, *arm.WRIST_JOINTS, *(f"rh_{n}" for n in joints.NAMES))
"""Joint names as in ROS: arm, wrist, hand; the order of every trajectory."""
ARM = slice(0, 6)
"""The arm's joints among them."""
PARTS = (slice(0, 6), slice(6, 30))
"""Joints whose states come together: those of the arm's driver, those of the hand's."""
WRIST = slice(6, 8)
"""The hand's wrist, which plans keep at zero."""
HAND = slice(8, 30)
"""The hand's joints, in the order of `hand/joints.py`."""
LOWER: Float[np.ndarray, " 30"] = np.concatenate([arm.LOWER, arm.WRIST_LOWER, joints.LOWER])
"""Lower limits, radians."""
UPPER: Float[np.ndarray, " 30"] = np.concatenate([arm.UPPER, arm.WRIST_UPPER, joints.UPPER])
"""Upper limits, radians."""
MAX_RATE: Float[np.ndarray, " 30"] = 0.5 * np.concatenate(
    [arm.MAX_RATE, arm.WRIST_MAX_RATE, joints.MAX_RATE]
)
"""Greatest speeds, rad/s: half of the URDF's."""
_IS_ARM: Bool[np.ndarray, " 30"] = np.arange(len(NAMES)) < ARM.stop
MAX_ACCELERATION: Float[np.ndarray, " 30"] = np.where(_IS_ARM, 2.5, 10.0)
"""Greatest accelerations, rad/s^2; UR's own planner is set to 5 for the arm."""
MAX_JERK: Float[np.ndarray, " 30"] = np.where(_IS_ARM, 25.0, 150.0)
"""Greatest jerks, rad/s^3: the greatest acceleration is reached in no less than 0.07 s."""
STOP_ACCELERATION: Float[np.ndarray, " 30"] = np.where(_IS_ARM, 8.1, 32.4)
"""Greatest accelerations of a stop, rad/s^2: no plan has them, and no command to move. UR's own
program for ROS (`external_control.urscript`) counts on 15 at the end of a motion, and ends
itself with 4."""
STOP_JERK: Float[np.ndarray, " 30"] = np.where(_IS_ARM, 108.0, 432.0)
"""Greatest jerks of a stop, rad/s^3: no brake is shorter than `BRAKE_S`."""
REACTION_S = 0.01
"""Seconds from a request to stop until it is followed, as a stop is reckoned, give or take as much:
up to two cycles of 100 Hz."""
BRAKE_S = 0.075
"""Seconds that a stop brakes: with those until it is followed, it is at rest within 0.1 s of the
request."""
STOP_RATE: Float[np.ndarray, " 30"] = np.minimum(
    MAX_RATE, STOP_ACCELERATION * BRAKE_S**2 / (BRAKE_S + 6.0 * REACTION_S)
)
"""Speeds (rad/s) from which a stop takes `BRAKE_S` at its greatest accelerations, by `brake.py`: no
plan that is driven is faster."""
GUARDED_SPEED = 0.25
"""Most that any part may move in guarded mode, m/s: the reduced speed of ISO 10218-1."""
HOME: Float[np.ndarray, " 30"] = np.array(
    [-0.609, -1.173, 2.65, -1.126, 0.991, 2.944, *np.zeros(24)]
)
"""Where a robot may wait: the flat hand 45 cm over the table and 45 cm before the objects' place,
fingers forward, the elbow up; radians."""
MAX_DURATION_S = 120.0
"""Most seconds of a trajectory that is driven."""
START_TOLERANCE = 0.01
"""Radians a trajectory's first point may be from where the robot is; MoveIt's figure."""


def _driven() -> tuple[tuple[str, ...], np.ndarray]:
    names, rows = list(NAMES), [list(row) for row in np.eye(len(NAMES))]
    for j2, j1 in joints.COUPLED:
        one, other = NAMES[HAND.start + j2], NAMES[HAND.start + j1]
        rows[names.index(one)][NAMES.index(other)] = 1.0
        del rows[names.index(other)]
        names.remove(other)
        names[names.index(one)] = f"{one[:-1]}0"
    return tuple(names), np.array(rows)


DRIVEN_NAMES: tuple[str, ...]
"""What motors drive: the joints, but J0 = J1 + J2 of the four fingers whose tendon bends both."""
DRIVEN: Float[np.ndarray, "26 30"]
"""`DRIVEN @ q` are the angles of `DRIVEN_NAMES`: how far a hand follows shows in these alone."""
DRIVEN_NAMES, DRIVEN = _driven()


def coupled(q: Float[np.ndarray, "*b 30"]) -> Float[np.ndarray, "*b 30"]:
    """Angles that a hand with coupled joints can have: J1 <= J2, at the same sum J1 + J2.

    Where J1 is greater, both become half the sum; all joints are clipped to their limits.
    """
    q = np.clip(np.asarray(q, np.float64), LOWER, UPPER)
    for j2, j1 in joints.COUPLED:
        a, b = HAND.start + j2, HAND.start + j1
        half = (q[..., a] + q[..., b]) / 2.0
        q[..., a], q[..., b] = np.maximum(q[..., a], half), np.minimum(q[..., b], half)
    return q
