"""Test-time refinement of proposed grasps on a point cloud.

After RealDex (section 4.1, test-time adaptation) and its source UniDexGrasp: the pose is moved
until the contact map of the hand agrees with the predicted one, without penetration. Two things
are added. Links that the map says touch are drawn onto the surface, and contact forces inside
friction cones must be able to balance (`realdex_jax.wrench`). All grasps of a cloud are refined at
once in one scan.
"""

import dataclasses

import jax
import jax.numpy as jnp
import jaxlie
import numpy as np
from jaxtyping import Array, Float

from realdex_jax import pose, pytree, touch, wrench
from realdex_jax.geometry.sdf import SdfGrid
from realdex_jax.hand import joints, torque
from realdex_jax.hand.load import HandModel
from realdex_jax.hand.spheres import spheres
from realdex_jax.losses import contact
from realdex_jax.touch import CONTACT_LINKS


@dataclasses.dataclass(frozen=True)
class RefineConfig:
    """Settings of the refinement."""

    steps: int = 150
    translation_step: float = 0.0025
    """Metres per step of Adam; the other two are radians."""
    rotation_step: float = 0.02
    joint_step: float = 0.02
    contact_map: float = 3.0
    contact: float = 100.0
    penetration: float = 300.0
    self_penetration: float = 100.0
    force: float = 50.0
    facing: float = 1.0
    """Pull of the palmar side of touching links toward the surface."""
    prior: float = 0.05
    """Pull toward the proposed joint angles."""
    table: float = 300.0
    depth: float = 0.0005
    """Depth (m) at which contacts come to rest."""
    reach: float = 0.03
    """Links farther than this (m) from the object in the proposal are not drawn to it."""
    expected: float = 0.4
    """Predicted contact value under a link from which on it is taken to touch."""
    friction: float = 0.3
    """Coefficient of the cones in the inner problem; well below the real one, for margin."""


@pytree.dataclass
class Target:
    """What one cloud asks of all grasps on it, in the cloud's centred frame."""

    grid: SdfGrid
    """Distance to the surface that the cloud implies."""
    points: Float[Array, "n 3"]
    """Points of the contact map, metres."""
    p_centre: Float[Array, " 3"]
    """Estimated centre of mass, metres."""
    table: Float[Array, ""]
    """Height (m) of a table under the object, its normal +z; -inf for none."""


@pytree.dataclass
class Refined:
    """Refined grasps of k proposals."""

    phi: Float[Array, "k 28"]
    """Poses in the cloud's centred frame."""
    p: Float[Array, "k c 3"]
    """Contact points of `touch.CONTACT_LINKS`, metres, same frame."""
    force: Float[Array, "k c 3"]
    """Balancing forces on the object there, in units of the greatest normal force of a link."""
    wanted: Float[Array, "k c"]
    """1 for links that were meant to touch."""


@pytree.dataclass
class _State:
    """A batch of grasps, batch last."""

    R: Float[Array, "3 3 b"]
    p: Float[Array, "3 b"]
    q: Float[Array, "22 b"]
    force: Float[Array, "3 c b"]


@pytree.dataclass
class _Task:
    """What the energy compares with."""

    target: Target
    predicted: Float[Array, "n b"]
    wanted: Float[Array, "c b"]
    q_start: Float[Array, "22 b"]


def refine(
    hand: HandModel,
    target: Target,
    phi: Float[Array, "k 28"],
    predicted: Float[Array, "k n"],
    config: RefineConfig,
) -> Refined:
    """Refines all grasps of one cloud; jit with `hand` and `config` static.

    Args:
        hand: The hand.
        target: The cloud.
        phi: Proposed poses in the cloud's centred frame.
        predicted: Predicted contact value of each of `target.points` for each pose.
        config: Settings.
    """
    state = start(phi)
    wanted = wanted_links(hand, state.R, state.p, state.q, target, predicted.T, config)
    task = _Task(target, predicted.T, wanted, state.q)
    gradient_of = jax.grad(
        lambda update, state: _summed(hand, config, task, state, update), has_aux=True
    )
    steps = np.array([config.translation_step, config.rotation_step, config.joint_step])
    size = np.repeat(steps, [3, 3, 22])[:, None].astype(np.float32)

    def step(
        carry: tuple[_State, Array, Array], i: Array
    ) -> tuple[tuple[_State, Array, Array], None]:
        state, first, second = carry
        gradient, force = gradient_of(jnp.zeros_like(first), state)
        gradient = jnp.nan_to_num(gradient)
        norm = jnp.sqrt((gradient**2).sum(0))
        gradient = gradient * jnp.minimum(1.0, 100.0 / (norm + 1e-9))
        first = 0.9 * first + 0.1 * gradient
        second = 0.98 * second + 0.02 * gradient**2
        done = i / config.steps
        # Full steps at first, half from 40 %, a cosine to nearly nothing over the last 30 %.
        scale = jnp.where(done < 0.4, 1.0, 0.5) * jnp.where(
            done < 0.7, 1.0, 0.02 + 0.98 * jnp.cos((done - 0.7) / 0.3 * jnp.pi / 2)
        )
        spread = jnp.sqrt(second / (1 - 0.98 ** (i + 1))) + 1e-4
        moved = _move(state, -scale * size * (first / (1 - 0.9 ** (i + 1))) / spread)
        q = torque.within_limits(moved.q.T).T
        return (_State(moved.R, moved.p, q, force), first, second), None

    zero = jnp.zeros((28, phi.shape[0]))
    (state, _, _), _ = jax.lax.scan(step, (state, zero, zero), jnp.arange(config.steps))
    found = touch.touch(hand, touch.posed(hand, state.R, state.p, state.q), target.grid)
    force = wrench.balance(
        touch.contacts(found, wanted),
        state.force,
        target.p_centre[:, None],
        friction=config.friction,
        steps=60,
    )
    R, p = jnp.moveaxis(state.R, -1, 0), state.p.T
    T = jaxlie.SE3.from_rotation_and_translation(jaxlie.SO3.from_matrix(R), p)
    return Refined(
        phi=pose.join(state.q.T, T),
        p=found.p.transpose(2, 1, 0),
        force=force.transpose(2, 1, 0),
        wanted=wanted.T,
    )


def start(phi: Float[Array, "k 28"]) -> _State:
    """Poses as a batch-last state with no forces; joints are brought within their limits."""
    q, T = pose.split(phi)
    return _State(
        R=jnp.moveaxis(T.rotation().as_matrix(), 0, -1),
        p=T.translation().T,
        q=torque.within_limits(q).T,
        force=jnp.zeros((3, len(CONTACT_LINKS), phi.shape[0])),
    )


def wanted_links(
    hand: HandModel,
    R: Float[Array, "3 3 b"],
    p: Float[Array, "3 b"],
    q: Float[Array, "22 b"],
    target: Target,
    predicted: Float[Array, "n b"],
    config: RefineConfig,
) -> Float[Array, "c b"]:
    """Which links are meant to touch: 1 or 0.

    A link is meant to touch if it is within reach and the predicted map is high at the object
    points nearest to it. The thumb's tip and the nearest fingertip always are: less cannot hold.
    """
    by_geom = touch.to_hand(hand, touch.posed(hand, R, p, q), target.points.T)
    carried = [np.flatnonzero(hand.geoms.link == hand.link(name)) for name in CONTACT_LINKS]
    d = jnp.stack([by_geom[mine].min(0) for mine in carried])  # (c n b)
    nearest = d.min(1)
    under = jax.nn.softmax(-d / 0.003, axis=1)
    expected = (under * predicted).sum(1)
    wanted = (expected > config.expected) & (nearest < config.reach)
    thumb_tip = np.array([n == "thdistal" for n in CONTACT_LINKS])
    finger_tip = touch.IS_TIP & ~thumb_tip
    best = jnp.argmin(jnp.where(finger_tip[:, None], nearest, jnp.inf), axis=0)
    wanted = wanted | thumb_tip[:, None] | (jnp.arange(len(CONTACT_LINKS))[:, None] == best)
    return wanted.astype(jnp.float32)


def _summed(
    hand: HandModel, config: RefineConfig, task: _Task, state: _State, update: Array
) -> tuple[Array, Array]:
    energy, force = _energy(hand, config, task, state, update)
    return energy.sum(), force


def _energy(
    hand: HandModel,
    config: RefineConfig,
    task: _Task,
    state: _State,
    update: Float[Array, "28 b"],
) -> tuple[Float[Array, " b"], Float[Array, "3 c b"]]:
    """Energies after tangent steps, and the updated contact forces."""
    state = _move(state, update)
    at = touch.posed(hand, state.R, state.p, state.q)
    found = touch.touch(hand, at, task.target.grid)
    distance = touch.to_hand(hand, at, task.target.points.T).min(0)

    possible = touch.contacts(found, task.wanted)
    centre = task.target.p_centre[:, None]
    force = jax.lax.stop_gradient(
        wrench.balance(
            jax.lax.stop_gradient(possible),
            state.force,
            centre,
            friction=config.friction,
            steps=6,
        )
    )
    net = wrench.net_wrench(possible, touch.turned(found.normal, force), centre)

    depth = jnp.maximum(-found.spheres - config.depth, 0.0)
    inside = jnp.maximum(-distance - config.depth, 0.0)
    own = touch.self_depth(hand, at)
    cover = spheres(hand)
    height = jnp.concatenate([c[2] for c in at.centre.values()])
    under = jnp.maximum(task.target.table + cover.radius[:, None] - height, 0.0)
    span = (joints.UPPER - joints.LOWER)[:, None]
    map_error = ((contact.contact_value(distance) - task.predicted) ** 2).mean(0)
    energy = (
        config.contact_map * map_error
        + config.contact * (jnp.sqrt((found.gap + config.depth) ** 2 + 1e-6) * task.wanted).sum(0)
        + config.penetration * (depth.sum(0) + 30 * (depth**2).sum(0) + inside.sum(0))
        + config.self_penetration * (own.sum(0) + 30 * (own**2).sum(0))
        + config.force * (net**2).sum(0)
        + config.facing * (jnp.maximum(0.4 - found.facing, 0.0) ** 2 * task.wanted).sum(0)
        + config.prior * (((state.q - task.q_start) / span) ** 2).sum(0)
        + config.table * under.sum(0)
    )
    return energy, force


def _move(state: _State, update: Float[Array, "28 b"]) -> _State:
    """Applies tangent steps (translation, rotation vector in the object frame, joints)."""
    w = update[3:6]
    square = (w**2).sum(0) + 1e-12
    angle = jnp.sqrt(square)
    a, b = jnp.sin(angle) / angle, (1 - jnp.cos(angle)) / square
    # Rodrigues on each column: R' = R + a w x R + b w x (w x R).
    once = _cross_columns(w, state.R)
    R = state.R + a * once + b * _cross_columns(w, once)
    return _State(R, state.p + update[:3], state.q + update[6:], state.force)


def _cross_columns(w: Float[Array, "3 b"], R: Float[Array, "3 3 b"]) -> Float[Array, "3 3 b"]:
    return jnp.stack(
        [w[1] * R[2] - w[2] * R[1], w[2] * R[0] - w[0] * R[2], w[0] * R[1] - w[1] * R[0]]
    )
