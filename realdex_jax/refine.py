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
import numpy as np
from jaxtyping import Array, Float, Int

from realdex_jax import descent, pytree, touch, wrench
from realdex_jax.descent import State
from realdex_jax.geometry.sdf import SdfGrid
from realdex_jax.hand import joints
from realdex_jax.hand.load import HandModel, require_shadow
from realdex_jax.losses import contact
from realdex_jax.touch import CONTACT_LINKS


@dataclasses.dataclass(frozen=True)
class RefineConfig:
    """Settings of the refinement."""

    choices: int = 8
    """Proposals per refined grasp; the one of least energy is refined."""
    steps: int = 200
    """Most steps of Adam."""
    progress: float = 0.05
    """Share of the energy to be won in ten steps; with less, the last, fading steps begin."""
    translation_step: float = 0.0025
    """Metres per step."""
    rotation_step: float = 0.02
    """Radians per step."""
    joint_step: float = 0.02
    """Radians per step."""
    contact_map: float = 3.0
    """Weight of the mean squared difference from the predicted contact map."""
    contact: float = 100.0
    """Weight of the distance (m) of wanted links from the surface."""
    penetration: float = 300.0
    """Weight of the depth (m) of the hand in the object."""
    self_penetration: float = 100.0
    """Weight of the depth (m) of links in each other."""
    force: float = 50.0
    """Weight of the squared net wrench that the contact forces cannot cancel."""
    facing: float = 1.0
    """Pull of the palmar side of touching links toward the surface."""
    prior: float = 0.05
    """Pull toward the proposed joint angles."""
    table: float = 300.0
    """Weight of the depth (m) of the hand under the table."""
    depth: float = 0.001
    """Depth (m) at which contacts come to rest; with half of it twice as many grasps let go."""
    reach: float = 0.03
    """Links farther than this (m) from the object in the proposal are not drawn to it."""
    expected: float = 0.25
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
    normal: Float[Array, "k c 3"]
    """Outward unit normals of the object there."""
    force: Float[Array, "k c 3"]
    """Balancing forces on the object there, in units of the greatest normal force of a link."""
    wanted: Float[Array, "k c"]
    """1 for links that were meant to touch."""
    steps: Int[Array, ""]
    """Steps made until all were refined."""


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
    phi: Float[Array, "c 28"],
    predicted: Float[Array, "c n"],
    config: RefineConfig,
) -> Refined:
    """Refines grasps of one cloud; jit with `hand` and `config` static.

    Args:
        hand: The hand.
        target: The cloud.
        phi: Proposed poses in the cloud's centred frame, `config.choices` for each refined one.
        predicted: Predicted contact value of each of `target.points` for each pose.
        config: Settings.

    Returns:
        c / `config.choices` grasps.

    Raises:
        HandError: A hand with other joints than Shadow's.
    """
    require_shadow(hand, "refinement")
    task, state = _best(hand, target, phi, predicted, config)
    summed = jax.value_and_grad(
        lambda update, state: _summed(hand, config, task, state, update), has_aux=True
    )

    def gradient_of(update: Array, state: State) -> tuple[Array, Array, Array]:
        (_, (energy, force)), gradient = summed(update, state)
        return gradient, force, energy

    sizes = descent.Steps(
        config.steps, config.translation_step, config.rotation_step, config.joint_step
    )
    state, made = descent.minimise_until(gradient_of, state, sizes, config.progress)
    found = touch.touch(hand, touch.posed(hand, state.R, state.p, state.q, fine=True), target.grid)
    force = wrench.balance(
        touch.contacts(found, task.wanted),
        state.force,
        target.p_centre[:, None],
        friction=config.friction,
        steps=60,
    )
    return Refined(
        phi=descent.poses(state),
        p=found.p.transpose(2, 1, 0),
        normal=found.normal.transpose(2, 1, 0),
        force=force.transpose(2, 1, 0),
        wanted=task.wanted.T,
        steps=made,
    )


def _best(
    hand: HandModel,
    target: Target,
    phi: Float[Array, "c 28"],
    predicted: Float[Array, "c n"],
    config: RefineConfig,
) -> tuple[_Task, State]:
    """Of each `config.choices` proposals, the one with the least energy."""
    state = descent.start(phi, len(CONTACT_LINKS))
    wanted = wanted_links(hand, state.R, state.p, state.q, target, predicted.T, config)
    task = _Task(target, predicted.T, wanted, state.q)
    if config.choices == 1:
        return task, state
    energy, _ = _energy(hand, config, task, state, jnp.zeros((28, len(phi))))
    # A group is spread over the batch: proposals that stand together may be of one kind.
    by_group = jnp.where(jnp.isfinite(energy), energy, jnp.inf).reshape(config.choices, -1)
    at = by_group.argmin(0) * by_group.shape[1] + jnp.arange(by_group.shape[1])
    chosen = _Task(target, task.predicted[:, at], wanted[:, at], state.q[:, at])
    return chosen, jax.tree.map(lambda x: x[..., at], state)


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
    hand: HandModel, config: RefineConfig, task: _Task, state: State, update: Array
) -> tuple[Array, tuple[Array, Array]]:
    energy, force = _energy(hand, config, task, state, update)
    return energy.sum(), (energy, force)


def _energy(
    hand: HandModel,
    config: RefineConfig,
    task: _Task,
    state: State,
    update: Float[Array, "28 b"],
) -> tuple[Float[Array, " b"], Float[Array, "3 c b"]]:
    """Energies after tangent steps, and the updated contact forces."""
    state = descent.move(state, update)
    at = touch.posed(hand, state.R, state.p, state.q, fine=True)
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
    height = jnp.concatenate([c[2] for c in at.centre.values()])
    under = jnp.maximum(task.target.table + at.cover.radius[:, None] - height, 0.0)
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
