"""Adam over batches of hand poses: the optimiser that synthesis and refinement share.

Components come first and the batch last, so that every operation is elementwise over the batch and
vectorises. Steps are tangent: translation, rotation vector in the object frame, joints.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import jaxlie
import numpy as np
from jaxtyping import Array, Float

from realdex_jax import pose, pytree
from realdex_jax.hand import torque

_MAX_GRADIENT = 100.0
"""Gradients are shortened to this length: one deep inside an object would fling the hand."""


@pytree.dataclass
class State:
    """A batch of grasps in the object frame, batch last."""

    R: Float[Array, " 3 3 b"]
    """Palm orientations."""
    p: Float[Array, " 3 b"]
    """Palm positions, metres."""
    q: Float[Array, " 22 b"]
    """Joint angles, radians."""
    force: Float[Array, " 3 k b"]
    """Contact forces of the inner problem, carried along as its warm start."""


def start(phi: Float[Array, "b 28"], contacts: int) -> State:
    """Poses as a state without forces; joints are brought within their limits."""
    q, T_object_hand = pose.split(phi)
    return State(
        R=jnp.moveaxis(T_object_hand.rotation().as_matrix(), 0, -1),
        p=T_object_hand.translation().T,
        q=torque.within_limits(q).T,
        force=jnp.zeros((3, contacts, phi.shape[0])),
    )


def poses(state: State) -> Float[Array, "b 28"]:
    """The pose vectors of a state."""
    T_object_hand = jaxlie.SE3.from_rotation_and_translation(
        jaxlie.SO3.from_matrix(jnp.moveaxis(state.R, -1, 0)), state.p.T
    )
    return pose.join(state.q.T, T_object_hand)


def move(state: State, update: Float[Array, " 28 b"]) -> State:
    """Applies tangent steps (translation, rotation vector, joints) without joint limits."""
    w = update[3:6]
    square = (w**2).sum(0) + 1e-12
    angle = jnp.sqrt(square)
    a, b = jnp.sin(angle) / angle, (1 - jnp.cos(angle)) / square
    # Rodrigues on each column: R' = R + a w x R + b w x (w x R).
    once = _cross_columns(w, state.R)
    R = state.R + a * once + b * _cross_columns(w, once)
    return State(R, state.p + update[:3], state.q + update[6:], state.force)


def minimise(
    gradient_of: Callable[[Float[Array, " 28 b"], State], tuple[Array, Array]],
    state: State,
    *,
    steps: int,
    translation: float,
    rotation: float,
    joint: float,
) -> State:
    """Runs Adam under one scan: full steps, half from 40 %, a cosine to nothing from 70 %.

    Args:
        gradient_of: Gradient of the energies with respect to a tangent step at zero, and the
            updated contact forces.
        state: Start.
        steps: Number of steps.
        translation: Size of a translation step, metres.
        rotation: Size of a rotation step, radians.
        joint: Size of a joint step, radians.
    """
    size = np.repeat([translation, rotation, joint], [3, 3, 22])[:, None].astype(np.float32)

    def step(
        carry: tuple[State, Array, Array], i: Array
    ) -> tuple[tuple[State, Array, Array], None]:
        state, first, second = carry
        gradient, force = gradient_of(jnp.zeros_like(first), state)
        gradient = jnp.nan_to_num(gradient)
        norm = jnp.sqrt((gradient**2).sum(0))
        gradient = gradient * jnp.minimum(1.0, _MAX_GRADIENT / (norm + 1e-9))
        first = 0.9 * first + 0.1 * gradient
        second = 0.98 * second + 0.02 * gradient**2
        done = i / steps
        scale = jnp.where(done < 0.4, 1.0, 0.5) * jnp.where(
            done < 0.7, 1.0, 0.02 + 0.98 * jnp.cos((done - 0.7) / 0.3 * jnp.pi / 2)
        )
        spread = jnp.sqrt(second / (1 - 0.98 ** (i + 1))) + 1e-4
        moved = move(state, -scale * size * (first / (1 - 0.9 ** (i + 1))) / spread)
        q = torque.within_limits(moved.q.T).T
        return (State(moved.R, moved.p, q, force), first, second), None

    zero = jnp.zeros((28, state.q.shape[-1]))
    (state, _, _), _ = jax.lax.scan(step, (state, zero, zero), jnp.arange(steps))
    return state


def _cross_columns(w: Float[Array, " 3 b"], R: Float[Array, " 3 3 b"]) -> Float[Array, " 3 3 b"]:
    """W x each column of R."""
    return jnp.stack(
        [w[1] * R[2] - w[2] * R[1], w[2] * R[0] - w[0] * R[2], w[0] * R[1] - w[1] * R[0]]
    )
