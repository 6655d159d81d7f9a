"""Newton's steps for a hand's palm and joints that keep within the limits (a projected method).

Limits are boxes and Shadow's coupling: J1 of a finger at most its J2. Components first, batch last.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from realdex_jax import pose
from realdex_jax.hand import joints

Limits = tuple[Float[Array, "22 b"], Float[Array, "22 b"]]
"""Least and greatest joint angles, radians."""

_SIZE = pose.SIZE
_AT_LIMIT = 1e-6
"""Radians from a limit at which a joint counts as standing at it."""

# For each joint the one that it is coupled with, else itself.
_J1, _J2 = np.arange(pose.JOINTS), np.arange(pose.JOINTS)
for _outer, _inner in ((j1, j2) for j2, j1 in joints.COUPLED):
    _J2[_outer], _J1[_inner] = _inner, _outer
_IS_J1, _IS_J2 = (index[:, None] != np.arange(pose.JOINTS)[:, None] for index in (_J2, _J1))
_FOLLOWER = np.concatenate([np.arange(6), 6 + _J1])


def projected(q: Float[Array, "22 b"], limits: Limits) -> Float[Array, "22 b"]:
    """Joint angles brought within the limits, J1 to at most J2."""
    q = jnp.clip(q, *limits)
    return jnp.minimum(q, q[_J2])


def step(
    q: Float[Array, "22 b"],
    gradient: Float[Array, "28 b"],
    curvature: Float[Array, "28 28 b"],
    damping: Float[Array, " b"],
    limits: Limits,
) -> Float[Array, "28 b"]:
    """A damped Newton step that ends within the limits.

    First only joints that stand at a limit and would pass it are held, and J1 and J2 move as one
    where they are equal and J1 would pass. What the step then takes beyond a limit is put onto it,
    and the others are sought again.

    Args:
        q: Joint angles, radians.
        gradient: Half the derivative of the cost by translation, rotation vector and joints.
        curvature: Half the second one, Gauss and Newton's.
        damping: Shares of the curvature's diagonal that are added to it.
        limits: Least and greatest angles.
    """
    low, high = limits
    g = gradient[6:]
    tied = (q >= q[_J2] - _AT_LIMIT) & (g[_J2] > g) & _IS_J1
    g = g + jnp.where(tied[_J1] & _IS_J2, g[_J1], 0.0)
    held = ((q <= low + _AT_LIMIT) & (g > 0)) | ((q >= high - _AT_LIMIT) & (g < 0))
    first = _solved(q, gradient, curvature, damping, tied, held & ~tied, jnp.zeros_like(q))
    there = q + first[6:]
    tied = tied | ((there > there[_J2]) & _IS_J1)
    held = (held | (there < low) | (there > high)) & ~tied
    return _solved(q, gradient, curvature, damping, tied, held, jnp.clip(there, low, high) - q)


def _solved(
    q: Float[Array, "22 b"],
    gradient: Float[Array, "28 b"],
    curvature: Float[Array, "28 28 b"],
    damping: Float[Array, " b"],
    tied: Bool[Array, "22 b"],
    held: Bool[Array, "22 b"],
    way: Float[Array, "22 b"],
) -> Float[Array, "28 b"]:
    """The step where joints that are held go their `way` and each J1 that is tied goes to J2."""
    known = jnp.where(held, way, 0.0)
    known = jnp.where(tied, q[_J2] - q + known[_J2], known)
    palm = jnp.zeros((6, q.shape[-1]))
    known = jnp.concatenate([palm, known])
    gradient = gradient + (curvature * known[None]).sum(1)
    # Whatever a tied joint feels, its J2 feels.
    lead = jnp.concatenate([palm, jnp.where(tied[_J1] & _IS_J2, 1.0, 0.0)])
    free = jnp.concatenate([palm + 1.0, jnp.where(held | tied, 0.0, 1.0)])
    gradient = free * (gradient + lead * gradient[_FOLLOWER])
    H = curvature
    H = free[:, None] * (H + lead[:, None] * H[_FOLLOWER])
    H = free * (H + lead * H[:, _FOLLOWER])
    diagonal = jnp.stack([H[i, i] for i in range(_SIZE)])
    extra = damping * diagonal + (1.0 - free) + 1e-9
    H = H + extra[:, None] * np.eye(_SIZE, dtype=np.float32)[:, :, None]
    factor = jax.scipy.linalg.cho_factor(jnp.moveaxis(H, -1, 0), lower=True)
    step = -jax.scipy.linalg.cho_solve(factor, gradient.T[..., None])[..., 0].T
    leader = jnp.where(tied, step[6:][_J2] * free[6:][_J2], 0.0)
    return step * free + known + jnp.concatenate([palm, leader])
