"""How much a grasp depends on a surface that nobody saw.

Where a cloud was filled in, the surface may be some millimetres off. The hand then meets the object
early on one side and late on the other, and pushes it until all contacts press. Links on position
control act as springs, so how far the object goes follows from linear equations.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from scipy.spatial import KDTree

from realdex_jax import touch, wrench

SEEN_OFFSET = 0.002
"""Metres by which a surface is off where it was seen: noise, and what the refinement leaves."""
GROWTH = 0.3
"""What that grows by for each metre from what was seen ..."""
FARTHEST = 0.02
"""... up to this distance, metres. Half or twice of all three rank grasps the same."""
PALM = 5.0
"""Stiffness of the palm, which stands still, over that of a link of a finger."""
ALONG = 0.3
"""Stiffness of a contact along the surface, by friction, over that across it."""
_FREE = 1e-3
"""Stiffness that holds the object where no contact does, over that of a link."""


def offsets(
    p: Float[np.ndarray, "*b 3"], p_seen: Float[np.ndarray, "s 3"]
) -> Float[np.ndarray, "*b"]:
    """How far (m, root mean square) the surface may be off at points of it.

    Args:
        p: The points, metres.
        p_seen: Points of the surface that were seen, same frame.
    """
    away, _ = KDTree(p_seen).query(p)
    return SEEN_OFFSET + GROWTH * np.minimum(away, FARTHEST)


@jax.jit
def sway(
    p: Float[Array, "*b k 3"],
    normal: Float[Array, "*b k 3"],
    pressing: Float[Array, "*b k"],
    offset: Float[Array, "*b k"],
    p_centre: Float[Array, " 3"],
) -> Float[Array, "*b"]:
    """How far (m, root mean square) closing pushes the object's centre.

    Offsets of different contacts are independent; turns are left free.

    Args:
        p: Contact points of `touch.CONTACT_LINKS`, metres.
        normal: Outward unit normals of the object there.
        pressing: 1 for links that press, 0 for others.
        offset: Of the surface along the normals, metres, root mean square.
        p_centre: Estimated centre of mass, metres.
    """
    stiffness = pressing * jnp.where(touch.IS_PALM, PALM, 1.0)
    lever = (p - p_centre) / wrench.ARM
    axes = jnp.eye(3)
    # Rows: force along an axis at a contact; columns: the wrench on the object.
    turning = jnp.cross(lever[..., None, :], axes)
    wrenches = jnp.concatenate([jnp.broadcast_to(axes, turning.shape), turning], axis=-1)
    across = normal[..., :, None] * normal[..., None, :]
    spring = stiffness[..., None, None] * (ALONG * axes + (1.0 - ALONG) * across)
    held = jnp.einsum("...kia,...kij,...kjc->...ac", wrenches, spring, wrenches)
    push = jnp.einsum("...kia,...ki->...ak", wrenches, normal) * stiffness[..., None, :]
    moved = jnp.linalg.solve(held + _FREE * jnp.eye(6), push * offset[..., None, :])
    return jnp.sqrt((moved[..., :3, :] ** 2).sum((-2, -1)))


def steadiest(unsteady: Float[np.ndarray, " c"], groups: int) -> Int[np.ndarray, " k"]:
    """Of each group the index of its least value; what is no number comes last.

    Args:
        unsteady: Values; a group is every (c / `groups`)-th.
        groups: Values in a group.
    """
    by_group = np.where(np.isfinite(unsteady), unsteady, np.inf).reshape(groups, -1)
    return by_group.argmin(0) * by_group.shape[1] + np.arange(by_group.shape[1])
