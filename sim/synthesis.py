"""Grasp synthesis for any object: contact templates with an inner force problem.

Every start is a relaxed hand in front of the object and a template that names the links which
shall touch. Adam then moves palm and joints so that those links reach the surface, nothing
penetrates, and contact forces inside their friction cones can balance. The forces are an inner
problem solved by a few projected-gradient steps, warm-started over the iterations, their gradient
stopped; the energy sees the wrench they leave. `sim.validation` then tests the result in physics.
In the manner of DexGraspNet and BODex (see the datasets reference, sections 1.1 and 1.5).
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from realdex_jax import descent, pytree, touch, wrench
from realdex_jax.descent import State
from realdex_jax.geometry.sdf import SdfGrid
from realdex_jax.geometry.shape import ObjectShape
from realdex_jax.hand import torque
from realdex_jax.hand.load import HandModel
from realdex_jax.hand.spheres import spheres
from sim import starts


def _links(parts: dict[str, tuple[str, ...]], *more: str) -> tuple[str, ...]:
    return (*more, *(f"{finger}{part}" for part, fingers in parts.items() for finger in fingers))


@dataclasses.dataclass(frozen=True)
class Template:
    """Which links hold: required ones must touch, optional ones help where they come near."""

    required: tuple[str, ...]
    optional: tuple[str, ...] = ()


TEMPLATE_NAMES = ("tips5", "tips4", "tripod", "mid", "power", "wrap")
NEAR_TEMPLATES = ("power", "wrap")
"""Templates with the palm on the object: their starts are closer."""

_OPTIONAL_WEIGHT = 0.2
_OPTIONAL_REACH = 0.002
"""Metres over which an optional link loses its force as it leaves the object."""


@functools.cache
def templates(hand: HandModel) -> dict[str, Template]:
    """Those of `TEMPLATE_NAMES` that a hand has fingers for."""
    thumb, fingers = hand.facts.thumb, hand.facts.fingers
    three, others = fingers[:3], fingers[3:]
    least = {"tips5": 4, "tips4": 3, "tripod": 2, "mid": 3, "wrap": 3}
    found = {
        "tips5": Template(_links({"distal": (thumb, *fingers)})),
        "tips4": Template(_links({"distal": (thumb, *three)})),
        "tripod": Template(_links({"distal": (thumb, *three[:2])})),
        "mid": Template(
            _links({"distal": (thumb,), "middle": three}),
            _links({"distal": fingers, "middle": others}),
        ),
        "power": Template(
            _links({"distal": (thumb, *fingers)}),
            _links({"middle": fingers}, "palm", f"{thumb}middle"),
        ),
        "wrap": Template(
            _links({"distal": (thumb,), "middle": three}, "palm"),
            _links({"distal": fingers, "middle": others, "proximal": fingers}, f"{thumb}middle"),
        ),
    }
    return {name: t for name, t in found.items() if len(fingers) >= least.get(name, 1)}


@functools.cache
def _masks(
    hand: HandModel,
) -> tuple[Float[np.ndarray, "templates k"], Float[np.ndarray, "templates k"]]:
    """Which contact links each of `TEMPLATE_NAMES` requires, and which are optional: 1 or 0."""
    there = templates(hand)
    wanted = [there.get(name, Template(())) for name in TEMPLATE_NAMES]
    required, optional = (
        np.array([[link in t for link in hand.contacts.names] for t in links], np.float32)
        for links in ([t.required for t in wanted], [t.optional for t in wanted])
    )
    return required, optional


def _shares(hand: HandModel, config: "SynthesisConfig") -> Float[np.ndarray, " templates"]:
    """Share of the starts per template, none for those that a hand has no fingers for."""
    share = np.array(config.template_share)
    there = np.isin(TEMPLATE_NAMES, list(templates(hand)))
    return share if there.all() else share * there / (share * there).sum()


@dataclasses.dataclass(frozen=True)
class SynthesisConfig:
    """Constants of the optimisation."""

    iterations: int = 200
    """Steps of Adam."""
    batch: int = 256
    """Starts optimised together; fixed, so that the program compiles once."""
    step_translation: float = 0.0025
    """Metres per step."""
    step_rotation: float = 0.02
    """Radians per step."""
    step_joint: float = 0.02
    """Radians per step."""
    force: float = 50.0
    """Weight of the squared net wrench that the contact forces cannot cancel."""
    gap: float = 100.0
    """Weight of the distance (m) of the links of the template from the surface."""
    penetration: float = 300.0
    """Weight of the depth (m) of the hand in the object."""
    self_penetration: float = 100.0
    """Weight of the depth (m) of links in each other."""
    table: float = 300.0
    """Weight of the depth (m) of the hand under the table."""
    palmar: float = 1.0
    """Pull of the palmar side of touching links toward the surface."""
    posture: float = 0.05
    """Pull toward the resting posture."""
    friction: float = 0.3
    """Friction cone of the inner forces: half of what the test grants, as a margin."""
    inner_steps: int = 6
    """Steps of the inner force problem per step of Adam."""
    choices: int = 16
    """Candidate poses per start; the one with the least energy is optimised."""
    around: float = 0.5
    """Share of the starts drawn around grasps already known, where some are given."""
    template_share: tuple[float, ...] = (0.25, 0.2, 0.1, 0.15, 0.2, 0.1)
    """Share of the starts per template, order `TEMPLATE_NAMES`."""
    far: tuple[float, float] = (0.045, 0.085)
    """Palm distance (m) of the starts of fingertip templates."""
    near: tuple[float, float] = (0.025, 0.06)
    """Palm distance (m) of the starts of `NEAR_TEMPLATES`."""
    max_penetration: float = 0.003
    """Depth (m) above which a result is not worth testing."""
    max_self_penetration: float = 0.003
    """The same for links in each other, metres."""
    max_gap: float = 0.005
    """Largest gap (m) of a required link."""
    max_wrench: float = 0.1
    """Squared net wrench above which a result is not worth testing."""
    max_table: float = 0.004
    """Depth (m) under the table."""


@pytree.dataclass
class Optimised:
    """Grasps as optimised, before physics; batch of b starts."""

    phi: Float[Array, "b phi"]
    q_pregrasp: Float[Array, "b j"]
    q_squeeze: Float[Array, "b j"]
    template: Int[Array, " b"]
    """Index into `TEMPLATE_NAMES`."""
    terms: Float[Array, "b 5"]
    """Squared net wrench, largest contact gap, penetration, self-penetration (m), depth under the
    table (m)."""

    def promising(self, config: SynthesisConfig) -> np.ndarray:
        """(b,) bool: good enough to spend physics on."""
        limits = np.array(
            [
                config.max_wrench,
                config.max_gap,
                config.max_penetration,
                config.max_self_penetration,
                config.max_table,
            ]
        )
        finite = np.isfinite(np.asarray(self.phi)).all(axis=-1)
        return np.logical_and((np.asarray(self.terms) < limits).all(axis=-1), finite)


def optimise(
    hand: HandModel,
    shape: ObjectShape,
    grid: SdfGrid,
    seed: int,
    config: SynthesisConfig | None = None,
    *,
    known: Float[np.ndarray, "k phi"] | None = None,
) -> Optimised:
    """Optimises `config.batch` starts for one object.

    Args:
        hand: The hand.
        shape: The object, standing on its lowest point.
        grid: Its distance grid (`sdf.build(shape)`).
        seed: Seed of starts and templates.
        config: Constants.
        known: Grasps that hold; if given, a share `config.around` of the starts is drawn around
            them.

    Returns:
        Grasps in the order of the starts.
    """
    config = config or SynthesisConfig()
    rng = np.random.default_rng(seed)
    template = np.sort(rng.choice(len(TEMPLATE_NAMES), config.batch, p=_shares(hand, config)))
    near = np.isin(template, [TEMPLATE_NAMES.index(t) for t in NEAR_TEMPLATES])
    template = np.concatenate([template[near], template[~near]])
    parts = [
        starts.sample(
            hand, shape, int(n) * config.choices, int(rng.integers(1 << 30)), distance=distance
        )
        for n, distance in ((near.sum(), config.near), ((~near).sum(), config.far))
        if n
    ]
    R, p, q = (np.concatenate(x) for x in zip(*parts, strict=True))
    if known is not None and len(known):
        again = np.repeat(rng.random(config.batch) < config.around, config.choices)
        seed_around = int(rng.integers(1 << 30))
        near = starts.around(hand, known, int(again.sum()), seed_around, shape.symmetry)
        R[again], p[again], q[again] = near
    world = _World(
        grid,
        jnp.asarray(shape.center_of_mass, jnp.float32)[:, None],
        jnp.asarray(shape.bounds[0, 2], jnp.float32),
        jnp.asarray(template),
    )
    return _optimise(hand, config, world, jnp.asarray(R), jnp.asarray(p), jnp.asarray(q))


@pytree.dataclass
class _World:
    grid: SdfGrid
    p_centre: Float[Array, "3 1"]
    floor: Float[Array, ""]
    template: Int[Array, " b"]


@functools.partial(jax.jit, static_argnums=(0, 1))
def _optimise(
    hand: HandModel,
    config: SynthesisConfig,
    world: _World,
    R: Float[Array, "c 3 3"],
    p: Float[Array, "c 3"],
    q: Float[Array, "c j"],
) -> Optimised:
    """Picks the best of every `config.choices` candidate starts and runs Adam on it."""
    summed = jax.grad(
        lambda update, state: _summed(hand, config, world, state, update), has_aux=True
    )

    def gradient_of(update: Array, state: State) -> tuple[Array, Array]:
        gradient, (force, _) = summed(update, state)
        return gradient, force

    none = jnp.zeros((3, len(hand.contacts.names), len(q)))
    state = State(R=jnp.moveaxis(R, 0, -1), p=p.T, q=q.T, force=none)
    state = descent.minimise(
        gradient_of,
        _best(hand, config, world, state),
        descent.Steps(
            config.iterations, config.step_translation, config.step_rotation, config.step_joint
        ),
        hand.joints,
    )
    zero = jnp.zeros((hand.joints.pose_size, config.batch))

    def settle(state: State, _: Array) -> tuple[State, Array]:
        _, (force, terms) = _energy(hand, config, world, state, zero)
        return State(state.R, state.p, state.q, force), terms

    # Let the inner forces converge at the final pose.
    state, terms = jax.lax.scan(settle, state, jnp.arange(4))
    return _finish(hand, world, state, terms[-1].T)


def _best(hand: HandModel, config: SynthesisConfig, world: _World, state: State) -> State:
    """Of each run of `config.choices` candidates, the one with the least energy."""
    many = _World(
        world.grid, world.p_centre, world.floor, jnp.repeat(world.template, config.choices)
    )
    zero = jnp.zeros((hand.joints.pose_size, state.q.shape[-1]))
    energy, _ = _energy(hand, config, many, state, zero)
    pick = energy.reshape(config.batch, config.choices).argmin(-1)
    at = jnp.arange(config.batch) * config.choices + pick
    return jax.tree.map(lambda x: x[..., at], state)


def _finish(hand: HandModel, world: _World, state: State, terms: Array) -> Optimised:
    """Pose vectors, and the squeeze and pre-grasp that the inner forces give."""
    found = touch.touch(hand, touch.posed(hand, state.R, state.p, state.q), world.grid)
    R, p, q, force, p_object = (
        jnp.moveaxis(x, -1, 0) for x in (state.R, state.p, state.q, state.force, found.p)
    )
    p_hand = jnp.einsum("bji,bjk->bki", R, p_object - p[..., None])
    force_hand = jnp.einsum("bji,bjk->bki", R, force)
    links = [hand.link(name) for name in hand.contacts.names]
    tau = torque.joint_torque(hand, q, links, p_hand, force_hand)
    return Optimised(
        phi=descent.poses(state),
        q_pregrasp=torque.pregrasp(q, tau, table=hand.joints),
        q_squeeze=torque.squeeze(q, tau, hand.joints),
        template=world.template,
        terms=terms,
    )


def _summed(
    hand: HandModel, config: SynthesisConfig, world: _World, state: State, update: Array
) -> tuple[Array, tuple[Array, Array]]:
    energy, aux = _energy(hand, config, world, state, update)
    return energy.sum(), aux


def _energy(
    hand: HandModel, config: SynthesisConfig, world: _World, state: State, update: Array
) -> tuple[Float[Array, " b"], tuple[Array, Array]]:
    """Energies after tangent steps, the updated inner forces, and the terms to filter by."""
    state = descent.move(state, update)
    at = touch.posed(hand, state.R, state.p, state.q)
    found = touch.touch(hand, at, world.grid)
    required, optional = (jnp.asarray(mask.T)[:, world.template] for mask in _masks(hand))
    near = jnp.exp(-jnp.maximum(found.gap, 0.0) / _OPTIONAL_REACH)
    contacts = touch.contacts(found, required, required + optional * near, hand.contacts)
    wanted = required + _OPTIONAL_WEIGHT * optional
    force = jax.lax.stop_gradient(
        wrench.balance(
            jax.lax.stop_gradient(contacts),
            state.force,
            world.p_centre,
            friction=config.friction,
            steps=config.inner_steps,
        )
    )
    turned = touch.turned(found.normal, force)
    net = (wrench.net_wrench(contacts, turned, world.p_centre) ** 2).sum(0)

    radius = spheres(hand).radius[:, None]
    depth = jnp.maximum(-found.spheres, 0.0)
    self_depth = touch.self_depth(hand, at)
    height = jnp.concatenate([c[2] for c in at.centre.values()])
    under = jnp.maximum(world.floor + radius - height, 0.0)
    table = hand.joints
    span = (table.upper - table.lower)[:, None]
    total = (
        config.force * net
        + config.gap * (jnp.sqrt(found.gap**2 + 1e-6) * wanted).sum(0)
        + config.penetration * (depth.sum(0) + 30 * (depth**2).sum(0))
        + config.self_penetration * (self_depth.sum(0) + 30 * (self_depth**2).sum(0))
        + config.palmar * (jnp.maximum(0.4 - found.facing, 0.0) ** 2 * wanted).sum(0)
        + config.posture * (((state.q - table.rest[:, None]) / span) ** 2).sum(0)
        + config.table * under.sum(0)
    )
    terms = jnp.stack(
        [net, (jnp.abs(found.gap) * required).max(0), depth.max(0), self_depth.max(0), under.max(0)]
    )
    return total, (force, terms)
