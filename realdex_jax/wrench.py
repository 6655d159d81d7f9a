"""Contact forces that balance each other, and what they ask of the joints.

A grasp holds if contact forces inside their friction cones can add up to no net wrench. Finding
those forces is the inner problem of grasp synthesis and a cheap judge of a grasp that needs no
physics engine.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from realdex_jax import pytree

ARM = 0.04
"""Moments are divided by this lever (m), about half a hand's opening, to weigh like forces."""


@pytree.dataclass
class Contacts:
    """Possible contacts in the object frame; components first, then contacts, batch last."""

    p: Float[Array, "3 k *b"]
    """Contact points, metres."""
    normal: Float[Array, "3 k *b"]
    """Outward unit normals of the object there; the hand pushes against them."""
    lower: Float[Array, " k *b"]
    """Least normal force of each contact (any unit, one for all)."""
    upper: Float[Array, " k *b"]
    """Greatest normal force; zero switches a contact off."""


def net_wrench(
    contacts: Contacts, force: Float[Array, "3 k *b"], p_centre: Float[Array, " 3 *#b"]
) -> Float[Array, " 6 *b"]:
    """Sum of the forces on the object, then sum of their moments about `p_centre` over `ARM`."""
    lever = (contacts.p - p_centre[:, None]) / ARM
    return jnp.concatenate([force.sum(1), _cross(lever, force).sum(1)])


def project(
    contacts: Contacts, force: Float[Array, "3 k *b"], friction: float
) -> Float[Array, "3 k *b"]:
    """Forces brought into their bounds and cones: the normal part, then the tangential one."""
    outward = (force * contacts.normal).sum(0)
    pressure = jnp.clip(-outward, contacts.lower, contacts.upper)
    tangential = force - outward * contacts.normal
    length = jnp.sqrt((tangential**2).sum(0) + 1e-12)
    shrink = jnp.minimum(1.0, friction * pressure / length)
    return tangential * shrink - pressure * contacts.normal


def balance(
    contacts: Contacts,
    force: Float[Array, "3 k *b"],
    p_centre: Float[Array, " 3 *#b"],
    *,
    friction: float,
    steps: int,
    load: Float[Array, " 6 *#b"] | float = 0.0,
) -> Float[Array, "3 k *b"]:
    """Projected gradient steps on the squared net wrench (plus a `load`), from a warm start.

    Args:
        contacts: Points, normals and bounds.
        force: Start; the result of an earlier call makes few steps enough.
        p_centre: Moments are about this point, the centre of mass.
        friction: Coefficient of the cones.
        steps: Number of steps.
        load: Wrench to resist, moments over `ARM`; none by default.

    Returns:
        Forces on the object, one per contact.
    """
    lever = (contacts.p - p_centre[:, None]) / ARM
    active = (contacts.upper > 0).astype(force.dtype)
    # Bounds the largest eigenvalue of the squared grasp map; half again of its inverse still
    # converges.
    rate = 1.5 / ((active * (1.0 + (lever**2).sum(0))).sum(0) + 1e-6)

    def step(_: int | Array, force: Array) -> Array:
        wrench = net_wrench(contacts, force, p_centre) + load
        gradient = wrench[:3, None] + _cross(wrench[3:, None], lever)
        return project(contacts, force - rate * gradient * active, friction)

    if steps <= 8:  # a short inner problem unrolls: a loop would cost more than its body
        for i in range(steps):
            force = step(i, force)
        return force
    return jax.lax.fori_loop(0, steps, step, force)


def residual(
    contacts: Contacts,
    force: Float[Array, "3 k *b"],
    p_centre: Float[Array, " 3 *#b"],
    load: Float[Array, " 6 *#b"] | float = 0.0,
) -> Float[Array, "*b"]:
    """Remaining wrench over the sum of normal forces: 0 is balance, about 1 a push."""
    pressure = jnp.maximum(-(force * contacts.normal).sum(0), 0.0).sum(0)
    wrench = net_wrench(contacts, force, p_centre) + load
    return jnp.sqrt((wrench**2).sum(0) + 1e-12) / jnp.maximum(pressure, 1e-6)


def _cross(a: Array, b: Array) -> Array:
    """Cross product along the first axis; `jnp.cross` moves axes, which breaks fusion."""
    return jnp.stack(
        [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]
    )
