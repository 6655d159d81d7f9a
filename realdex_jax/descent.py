"""Adam over batches of hand poses: the optimiser that synthesis and refinement share.

Components come first and the batch last, so that every operation is elementwise over the batch and
vectorises. Steps are tangent: translation, rotation vector in the object frame, joints.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import jaxlie
import numpy as np
from jaxtyping import Array, Float, Int

from realdex_jax import pose, pytree
from realdex_jax.hand import torque
from realdex_jax.hand.joints import SHADOW, JointTable

_MAX_GRADIENT = 100.0
"""Gradients are shortened to this length: one deep inside an object would fling the hand."""


@pytree.dataclass
class State:
    """A batch of grasps in the object frame, batch last."""

    R: Float[Array, " 3 3 b"]
    """Palm orientations."""
    p: Float[Array, " 3 b"]
    """Palm positions, metres."""
    q: Float[Array, " j b"]
    """Joint angles, radians."""
    force: Float[Array, " 3 k b"]
    """Contact forces of the inner problem, carried along as its warm start."""


def start(phi: Float[Array, "b phi"], contacts: int, table: JointTable = SHADOW) -> State:
    """Poses as a state without forces; joints are brought within their limits."""
    q, T_object_hand = pose.split(phi)
    return State(
        R=jnp.moveaxis(T_object_hand.rotation().as_matrix(), 0, -1),
        p=T_object_hand.translation().T,
        q=torque.within_limits(q, table).T,
        force=jnp.zeros((3, contacts, phi.shape[0])),
    )


def poses(state: State) -> Float[Array, "b phi"]:
    """The pose vectors of a state."""
    T_object_hand = jaxlie.SE3.from_rotation_and_translation(
        jaxlie.SO3.from_matrix(jnp.moveaxis(state.R, -1, 0)), state.p.T
    )
    return pose.join(state.q.T, T_object_hand)


def move(state: State, update: Float[Array, " phi b"]) -> State:
    """Applies tangent steps (translation, rotation vector, joints) without joint limits."""
    w = update[3:6]
    square = (w**2).sum(0) + 1e-12
    angle = jnp.sqrt(square)
    a, b = jnp.sin(angle) / angle, (1 - jnp.cos(angle)) / square
    # Rodrigues on each column: R' = R + a w x R + b w x (w x R).
    once = _cross_columns(w, state.R)
    R = state.R + a * once + b * _cross_columns(w, once)
    return State(R, state.p + update[:3], state.q + update[6:], state.force)


@dataclasses.dataclass(frozen=True)
class Steps:
    """Sizes and number of Adam's steps: full, half from 40 %, a cosine to nothing from 70 %."""

    steps: int
    translation: float
    """Metres per step."""
    rotation: float
    """Radians per step."""
    joint: float
    """Radians per step."""


_FADE = 0.7
"""Share of the steps after which they fade."""
_LOOK = 10
"""Steps over which progress is judged."""

Gradient = Callable[[Float[Array, " phi b"], State], tuple[Array, Array]]
"""Gradient of the energies with respect to a tangent step at zero, and the updated forces."""


def minimise(
    gradient_of: Gradient, state: State, sizes: Steps, table: JointTable = SHADOW
) -> State:
    """Runs Adam under one scan, within the limits of `table`."""

    def step(adam: _Adam, i: Array) -> tuple[_Adam, None]:
        gradient, force = gradient_of(jnp.zeros_like(adam.first), adam.state)
        return _step(adam, i, gradient, force, sizes, table), None

    adam, _ = jax.lax.scan(step, _begin(state), jnp.arange(sizes.steps))
    return adam.state


def minimise_until(
    gradient_of: Callable[[Float[Array, " phi b"], State], tuple[Array, Array, Array]],
    state: State,
    sizes: Steps,
    progress: float,
) -> tuple[State, Int[Array, ""]]:
    """Runs Adam, going over to the fading steps as soon as the batch makes little progress.

    Args:
        gradient_of: As for `minimise`, and third the energies (b).
        state: Start.
        sizes: The steps, of which some may be left out.
        progress: Least share of the mean energy to be won in ten steps. Zero leaves out nothing.

    Returns:
        The end, and the number of steps made.
    """
    fade = round(_FADE * sizes.steps)

    def going(carry: tuple[_Adam, Array, Array, Array, Array]) -> Array:
        return carry[1] < sizes.steps

    def step(
        carry: tuple[_Adam, Array, Array, Array, Array],
    ) -> tuple[_Adam, Array, Array, Array, Array]:
        adam, i, made, before, now = carry
        gradient, force, energy = gradient_of(jnp.zeros_like(adam.first), adam.state)
        adam = _step(adam, i, gradient, force, sizes, SHADOW)
        now = now + jnp.where(jnp.isfinite(energy), energy, 0.0).mean()
        judged = (made + 1) % _LOOK == 0
        # A sum over ten steps against that over the ten before: single steps are noisy.
        slow = judged & (now > (1.0 - progress) * before) & (progress > 0.0)
        after = jnp.where(slow & (i < fade), fade, i + 1)
        before = jnp.where(judged, now, before)
        return adam, after, made + 1, before, jnp.where(judged, 0.0, now)

    zero = jnp.zeros((), jnp.int32)
    begin = (_begin(state), zero, zero, jnp.full((), jnp.inf), jnp.zeros(()))
    adam, _, made, _, _ = jax.lax.while_loop(going, step, begin)
    return adam.state, made


@pytree.dataclass
class _Adam:
    state: State
    first: Float[Array, " phi b"]
    second: Float[Array, " phi b"]


def _begin(state: State) -> _Adam:
    zero = jnp.zeros((len(state.q) + 6, state.q.shape[-1]))
    return _Adam(state=state, first=zero, second=zero)


def _step(
    adam: _Adam, i: Array, gradient: Array, force: Array, sizes: Steps, table: JointTable
) -> _Adam:
    size = np.repeat([sizes.translation, sizes.rotation, sizes.joint], [3, 3, len(table)])
    size = size[:, None].astype(np.float32)
    gradient = jnp.nan_to_num(gradient)
    norm = jnp.sqrt((gradient**2).sum(0))
    gradient = gradient * jnp.minimum(1.0, _MAX_GRADIENT / (norm + 1e-9))
    first = 0.9 * adam.first + 0.1 * gradient
    second = 0.98 * adam.second + 0.02 * gradient**2
    done = i / sizes.steps
    scale = jnp.where(done < 0.4, 1.0, 0.5) * jnp.where(
        done < _FADE, 1.0, 0.02 + 0.98 * jnp.cos((done - _FADE) / (1 - _FADE) * jnp.pi / 2)
    )
    spread = jnp.sqrt(second / (1 - 0.98 ** (i + 1))) + 1e-4
    moved = move(adam.state, -scale * size * (first / (1 - 0.9 ** (i + 1))) / spread)
    q = torque.within_limits(moved.q.T, table).T
    return _Adam(state=State(moved.R, moved.p, q, force), first=first, second=second)


def _cross_columns(w: Float[Array, " 3 b"], R: Float[Array, " 3 3 b"]) -> Float[Array, " 3 3 b"]:
    """W x each column of R."""
    return jnp.stack(
        [w[1] * R[2] - w[2] * R[1], w[2] * R[0] - w[0] * R[2], w[0] * R[1] - w[1] * R[0]]
    )
