"""The shape of a human reach: minimum jerk, a curved approach, pre-shaping, closing last.

The palm's speed along its path is that of minimum jerk (Flash and Hogan 1985). The path bends into
the approach direction; the hand turns early, opens wider than the object needs with its aperture's
peak after two thirds of the reach (Jeannerod 1984), the thumb opposes first, and the fingers close
when the palm is there.
"""

import jax
import jax.numpy as jnp
import jaxlie
import numpy as np
from jaxtyping import Array, Float, Int

from realdex_jax import pose
from realdex_jax.hand import joints, torque
from realdex_jax.trajectory import minimum_jerk

CLOSING = 10
"""Frames at the end in which the palm rests and the fingers close."""
OVERLAP = 5
"""Frames before, in which the fingers already begin to."""
STANDOFF = 0.15
"""Metres from the grasp to the point toward which the path bends."""
_TURNED = 0.85
"""Share of the reach after which the hand has turned."""
_SHAPED = 0.7
"""Share of the reach after which the hand is open widest."""
_OPPOSED = 0.45
"""The same for the thumb's opposition."""

_OPENS = np.array(
    [{"J3": 1.0, "J2": 0.8, "J1": 0.5}.get(n[2:], 0.0) * (n[:2] != "TH") for n in joints.NAMES],
    np.float32,
) + np.array([{"THJ1": 0.7, "THJ2": 0.2}.get(n, 0.0) for n in joints.NAMES], np.float32)
_IS_OPPOSITION = np.array([n in ("THJ5", "THJ4") for n in joints.NAMES])


def reach(
    start: Float[Array, "*b 28"],
    goal: Float[Array, "*b 28"],
    direction: Float[Array, "*b 3"],
    opening: Float[Array, "*b"],
    lengths: Int[Array, "*b"],
    frames: int,
) -> Float[Array, "*b t 28"]:
    """Reaches from start poses to grasps.

    Args:
        start: First poses, in the world.
        goal: Grasps, in the world.
        direction: Unit vectors from the grasp toward where the palm comes from.
        opening: Radians by which the fingers open beyond the grasp on the way.
        lengths: Frames of each reach, more than `CLOSING` + `OVERLAP`.
        frames: Frames computed; those beyond a reach's length repeat its last.

    Returns:
        Poses in the world.
    """
    k = jnp.arange(frames, dtype=jnp.float32)
    last = (lengths - 1)[..., None].astype(jnp.float32)
    u = jnp.clip(k / (last - CLOSING), 0.0, 1.0)
    q_start, T_world_start = pose.split(start)
    q_goal, T_world_goal = pose.split(goal)

    along = minimum_jerk(u)[..., None]
    p_start, p_goal = (T.translation()[..., None, :] for T in (T_world_start, T_world_goal))
    bend = p_goal + STANDOFF * direction[..., None, :]
    p = (1 - along) ** 2 * p_start + 2 * along * (1 - along) * bend + along**2 * p_goal

    turn = (T_world_start.rotation().inverse() @ T_world_goal.rotation()).log()
    turned = minimum_jerk(u / _TURNED)[..., None] * turn[..., None, :]
    first = jax.tree.map(lambda x: x[..., None, :], T_world_start.rotation())
    R = first @ jaxlie.SO3.exp(turned)

    q_open = torque.within_limits(q_goal - opening[..., None] * _OPENS)
    fingers, thumb = minimum_jerk(u / _SHAPED)[..., None], minimum_jerk(u / _OPPOSED)[..., None]
    shaping = jnp.where(_IS_OPPOSITION, thumb, fingers)
    closing = minimum_jerk((k - (last - CLOSING - OVERLAP)) / (CLOSING + OVERLAP))[..., None]
    q_shaped = q_start[..., None, :] + shaping * (q_open - q_start)[..., None, :]
    q = q_shaped + closing * (q_goal[..., None, :] - q_shaped)
    return pose.join(q, jaxlie.SE3.from_rotation_and_translation(R, p))
