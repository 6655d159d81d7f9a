"""The choice among ways of coming to a goal: the most usual one that nothing stands in.

People take their habitual way unless they see that it is blocked. Here a motion is made in every
way a model knows, and looked at from the start to the goal.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from realdex_jax import touch
from realdex_jax.geometry.sdf import SdfGrids
from realdex_jax.hand.load import HandModel


def choose(
    hand: HandModel,
    come: Callable[[Int[Array, ""]], Float[Array, "b t 28"]],
    ways: int,
    grids: SdfGrids,
    target: Int[Array, " b"],
    goal: Float[Array, "b 28"],
    steps: Int[Array, " b"],
    wxyz_xyz_world_object: Float[Array, "b 7"],
    allowed: float,
) -> Float[Array, "b t 28"]:
    """For each goal the first motion that is free, or else the one with the least depth.

    Args:
        hand: The hand.
        come: Makes the motions to all goals, in the world, in one way.
        ways: Number of ways, the most usual one first.
        grids: Distance grids of the objects.
        target: Object of each motion.
        goal: Grasps, in the world.
        steps: Frames of each motion that count.
        wxyz_xyz_world_object: Where the objects rest.
        allowed: Metres by which the hand may be deeper on the way than at the goal.
    """

    def look(way: Int[Array, ""]) -> tuple[Float[Array, "b t 28"], Float[Array, " b"]]:
        phi = come(way)
        depth = deeper(hand, grids, target, phi, goal, steps, wxyz_xyz_world_object)
        return phi, jnp.where(jnp.isfinite(phi).all((1, 2)), depth, jnp.inf)

    # One way after the other: only the motions themselves are kept of each, and one program serves.
    phi, depth = jax.lax.map(look, jnp.arange(ways))
    free = depth <= allowed
    chosen = jnp.where(free.any(0), free.argmax(0), depth.argmin(0))
    return phi[chosen, jnp.arange(len(goal))]


def deeper(
    hand: HandModel,
    grids: SdfGrids,
    target: Int[Array, " b"],
    phi: Float[Array, "b t 28"],
    goal: Float[Array, "b 28"],
    steps: Int[Array, " b"],
    wxyz_xyz_world_object: Float[Array, "b 7"],
) -> Float[Array, " b"]:
    """Metres by which a part of the hand is deeper in object or table on the way than at the end.

    A grasp presses: where it does, the fingers may be as deep as they will be. Clear is negative.
    Arguments are those of `choose`; frames of `phi` from `steps` on do not count.
    """
    both = jnp.concatenate([phi, goal[:, None]], axis=1)
    depths = touch.sphere_depths_among(hand, grids, target, both, wxyz_xyz_world_object)
    on_way = jnp.stack([d[..., :-1] - jnp.maximum(d[..., -1:], 0.0) for d in depths]).max((0, 1))
    return jnp.where(jnp.arange(phi.shape[1]) < steps[:, None], on_way, -jnp.inf).max(-1)
