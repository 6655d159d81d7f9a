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
import jaxlie
import numpy as np
from jaxtyping import Array, Float, Int

from realdex_jax import pose, pytree, wrench
from realdex_jax.geometry import sdf
from realdex_jax.geometry.sdf import SdfGrid
from realdex_jax.geometry.shape import ObjectShape
from realdex_jax.hand import joints, kinematics, torque
from realdex_jax.hand.collision import segment_distance
from realdex_jax.hand.load import HandModel
from realdex_jax.hand.spheres import spheres
from sim import starts

_FINGERS = ("ff", "mf", "rf", "lf")
CONTACT_LINKS: tuple[str, ...] = (
    "palm",
    *(f"{finger}{part}" for finger in _FINGERS for part in ("proximal", "middle", "distal")),
    "thproximal",
    "thmiddle",
    "thdistal",
)
"""Links a template can ask to touch."""


def _links(parts: dict[str, tuple[str, ...]], *more: str) -> tuple[str, ...]:
    return (*more, *(f"{finger}{part}" for part, fingers in parts.items() for finger in fingers))


@dataclasses.dataclass(frozen=True)
class Template:
    """Which links hold: required ones must touch, optional ones help where they come near."""

    required: tuple[str, ...]
    optional: tuple[str, ...] = ()


TEMPLATES: dict[str, Template] = {
    "tips5": Template(_links({"distal": ("th", *_FINGERS)})),
    "tips4": Template(_links({"distal": ("th", "ff", "mf", "rf")})),
    "tripod": Template(_links({"distal": ("th", "ff", "mf")})),
    "mid": Template(
        _links({"distal": ("th",), "middle": ("ff", "mf", "rf")}),
        _links({"distal": _FINGERS, "middle": ("lf",)}),
    ),
    "power": Template(
        _links({"distal": ("th", *_FINGERS)}), _links({"middle": _FINGERS}, "palm", "thmiddle")
    ),
    "wrap": Template(
        _links({"distal": ("th",), "middle": ("ff", "mf", "rf")}, "palm"),
        _links({"distal": _FINGERS, "middle": ("lf",), "proximal": _FINGERS}, "thmiddle"),
    ),
}
TEMPLATE_NAMES = tuple(TEMPLATES)
NEAR_TEMPLATES = ("power", "wrap")
"""Templates with the palm on the object: their starts are closer."""

_REQUIRED = np.array(
    [[link in t.required for link in CONTACT_LINKS] for t in TEMPLATES.values()], np.float32
)
_OPTIONAL = np.array(
    [[link in t.optional for link in CONTACT_LINKS] for t in TEMPLATES.values()], np.float32
)
_OPTIONAL_WEIGHT = 0.2
_IS_THUMB = np.array([link.startswith("th") for link in CONTACT_LINKS])
_IS_PALM = np.array([link == "palm" for link in CONTACT_LINKS])
_TEMPERATURE = 0.0015
"""Soft minimum (m) that picks the contact on a link."""
# Outward direction of the gripping side in each link's frame.
_PALMAR = np.array(
    [[-1, 0, 0] if k in ("thproximal", "thmiddle") else [0, -1, 0] for k in CONTACT_LINKS],
    np.float32,
)


@dataclasses.dataclass(frozen=True)
class SynthesisConfig:
    """Constants of the optimisation."""

    iterations: int = 200
    batch: int = 256
    """Starts optimised together; fixed, so that the program compiles once."""
    step_translation: float = 0.0025
    step_rotation: float = 0.02
    step_joint: float = 0.02
    force: float = 50.0
    gap: float = 100.0
    penetration: float = 300.0
    self_penetration: float = 100.0
    table: float = 300.0
    palmar: float = 1.0
    posture: float = 0.05
    friction: float = 0.3
    """Friction cone of the inner forces: half of what the test grants, as a margin."""
    inner_steps: int = 6
    choices: int = 4
    """Candidate poses per start; the one with the least energy is optimised."""
    template_share: tuple[float, ...] = (0.25, 0.2, 0.1, 0.15, 0.2, 0.1)
    """Share of the starts per template, order `TEMPLATES`."""
    far: tuple[float, float] = (0.045, 0.085)
    """Palm distance (m) of the starts of fingertip templates."""
    near: tuple[float, float] = (0.025, 0.06)
    """Palm distance (m) of the starts of `NEAR_TEMPLATES`."""
    max_penetration: float = 0.003
    max_self_penetration: float = 0.003
    max_gap: float = 0.005
    max_wrench: float = 0.1
    """Squared net wrench above which a result is not worth testing."""
    max_table: float = 0.004


@pytree.dataclass
class Optimised:
    """Grasps as optimised, before physics; batch of b starts."""

    phi: Float[Array, "b 28"]
    q_pregrasp: Float[Array, "b 22"]
    q_squeeze: Float[Array, "b 22"]
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
) -> Optimised:
    """Optimises `config.batch` starts for one object.

    Args:
        hand: The hand.
        shape: The object, standing on its lowest point.
        grid: Its distance grid (`sdf.build(shape)`).
        seed: Seed of starts and templates.
        config: Constants.

    Returns:
        Grasps in the order of the starts.
    """
    config = config or SynthesisConfig()
    rng = np.random.default_rng(seed)
    template = np.sort(rng.choice(len(TEMPLATES), config.batch, p=config.template_share))
    near = np.isin(template, [TEMPLATE_NAMES.index(t) for t in NEAR_TEMPLATES])
    template = np.concatenate([template[near], template[~near]])
    parts = [
        starts.sample(shape, int(n) * config.choices, int(rng.integers(1 << 30)), distance=distance)
        for n, distance in ((near.sum(), config.near), ((~near).sum(), config.far))
        if n
    ]
    R, p, q = (np.concatenate(x) for x in zip(*parts, strict=True))
    world = _World(
        grid,
        jnp.asarray(shape.center_of_mass, jnp.float32)[:, None],
        jnp.asarray(shape.bounds[0, 2], jnp.float32),
        jnp.asarray(template),
    )
    return _optimise(hand, config, world, jnp.asarray(R), jnp.asarray(p), jnp.asarray(q))


@pytree.dataclass
class _State:
    """A batch of starts, batch last: everything below is elementwise over it and vectorises."""

    R: Float[Array, "3 3 b"]
    p: Float[Array, "3 b"]
    q: Float[Array, "22 b"]
    force: Float[Array, "3 k b"]


@pytree.dataclass
class _World:
    grid: SdfGrid
    p_centre: Float[Array, "3 1"]
    floor: Float[Array, ""]
    template: Int[Array, " b"]


_Carry = tuple[_State, Float[Array, "28 b"], Float[Array, "28 b"]]


@functools.partial(jax.jit, static_argnums=(0, 1))
def _optimise(
    hand: HandModel,
    config: SynthesisConfig,
    world: _World,
    R: Float[Array, "c 3 3"],
    p: Float[Array, "c 3"],
    q: Float[Array, "c 22"],
) -> Optimised:
    """Picks the best of every `config.choices` candidate starts and runs Adam on it."""
    gradient_of = jax.grad(
        lambda world, state, update: _summed(hand, config, world, state, update),
        argnums=2,
        has_aux=True,
    )
    state = _State(
        R=jnp.moveaxis(R, 0, -1), p=p.T, q=q.T, force=jnp.zeros((3, len(CONTACT_LINKS), len(q)))
    )
    state = _best(hand, config, world, state)
    rate = np.repeat(
        [config.step_translation, config.step_rotation, config.step_joint], [3, 3, 22]
    )[:, None]

    def step(carry: _Carry, i: Array) -> tuple[_Carry, None]:
        state, first, second = carry
        gradient, (force, _) = gradient_of(world, state, jnp.zeros_like(first))
        gradient = jnp.nan_to_num(gradient)
        norm = jnp.sqrt((gradient**2).sum(0))
        gradient = gradient * jnp.minimum(1.0, 100.0 / (norm + 1e-9))
        first = 0.9 * first + 0.1 * gradient
        second = 0.98 * second + 0.02 * gradient**2
        done = i / config.iterations
        # Full steps at first, half from 40 %, a cosine to nearly nothing over the last 30 %.
        scale = jnp.where(done < 0.4, 1.0, 0.5) * jnp.where(
            done < 0.7, 1.0, 0.02 + 0.98 * jnp.cos((done - 0.7) / 0.3 * jnp.pi / 2)
        )
        size = jnp.sqrt(second / (1 - 0.98 ** (i + 1))) + 1e-4
        update = -scale * rate * (first / (1 - 0.9 ** (i + 1))) / size
        moved = _move(_State(state.R, state.p, state.q, force), update)
        q = torque.within_limits(moved.q.T).T
        return (_State(moved.R, moved.p, q, force), first, second), None

    zero = jnp.zeros((28, config.batch))
    (state, _, _), _ = jax.lax.scan(step, (state, zero, zero), jnp.arange(config.iterations))

    def settle(state: _State, _: Array) -> tuple[_State, Array]:
        _, (force, terms) = _energy(hand, config, world, state, zero)
        return _State(state.R, state.p, state.q, force), terms

    # Let the inner forces converge at the final pose.
    state, terms = jax.lax.scan(settle, state, jnp.arange(4))
    return _finish(hand, world, state, terms[-1].T)


def _best(hand: HandModel, config: SynthesisConfig, world: _World, state: _State) -> _State:
    """Of each run of `config.choices` candidates, the one with the least energy."""
    many = _World(
        world.grid, world.p_centre, world.floor, jnp.repeat(world.template, config.choices)
    )
    energy, _ = _energy(hand, config, many, state, jnp.zeros((28, state.q.shape[-1])))
    pick = energy.reshape(config.batch, config.choices).argmin(-1)
    at = jnp.arange(config.batch) * config.choices + pick
    return jax.tree.map(lambda x: x[..., at], state)


def _finish(hand: HandModel, world: _World, state: _State, terms: Array) -> Optimised:
    """Pose vectors, and the squeeze and pre-grasp that the inner forces give."""
    contacts = _contacts(hand, world, state)[0]
    R, p, q, force, p_object = (
        jnp.moveaxis(x, -1, 0) for x in (state.R, state.p, state.q, state.force, contacts.p)
    )
    p_hand = jnp.einsum("bji,bjk->bki", R, p_object - p[..., None])
    force_hand = jnp.einsum("bji,bjk->bki", R, force)
    links = [hand.link(name) for name in CONTACT_LINKS]
    tau = torque.joint_torque(hand, q, links, p_hand, force_hand)
    T_object_hand = jaxlie.SE3.from_rotation_and_translation(jaxlie.SO3.from_matrix(R), p)
    return Optimised(
        phi=pose.join(q, T_object_hand),
        q_pregrasp=torque.pregrasp(q, tau),
        q_squeeze=torque.squeeze(q, tau),
        template=world.template,
        terms=terms,
    )


def _move(state: _State, update: Float[Array, "28 b"]) -> _State:
    """Applies tangent steps (translation, rotation vector, joints) without joint limits."""
    w = update[3:6]
    square = (w**2).sum(0) + 1e-12
    angle = jnp.sqrt(square)
    a, b = jnp.sin(angle) / angle, (1 - jnp.cos(angle)) / square
    # Rodrigues on each column: R' = R + a w x R + b w x (w x R).
    once = _cross_columns(w, state.R)
    R = state.R + a * once + b * _cross_columns(w, once)
    return _State(R, state.p + update[:3], state.q + update[6:], state.force)


def _cross_columns(w: Array, R: Array) -> Array:
    """W x each column of R."""
    return jnp.stack(
        [w[1] * R[2] - w[2] * R[1], w[2] * R[0] - w[0] * R[2], w[0] * R[1] - w[1] * R[0]]
    )


@pytree.dataclass
class _Posed:
    """The posed hand, link by link."""

    columns: list[list[Array]]
    origins: list[Array]
    centre: dict[int, Float[Array, "3 s b"]]
    """Sphere centres per link in the object frame, metres."""
    gap: Float[Array, "s b"]
    """Distance from each sphere to the object, metres."""


def _contacts(
    hand: HandModel, world: _World, state: _State
) -> tuple[wrench.Contacts, Array, Array, _Posed]:
    """Contacts, gap (m) and palmar alignment of every contact link, and the posed hand."""
    cover = spheres(hand)
    R_columns = [state.R[:, i] for i in range(3)]
    columns, origins = kinematics.chain(hand, state.q, R_columns, state.p)
    centre = {}
    for link in np.unique(cover.link):
        local = cover.p_link[cover.of(int(link))]
        c = [column[:, None] for column in columns[link]]
        moved = local[:, 0, None] * c[0] + local[:, 1, None] * c[1] + local[:, 2, None] * c[2]
        centre[int(link)] = moved + origins[link][:, None]
    distance, normal = sdf.first_order(world.grid, jnp.concatenate(list(centre.values()), axis=1))
    gap = distance - cover.radius[:, None]
    # Splitting, unlike slicing, has a cheap gradient: one concatenation.
    ends = np.cumsum([c.shape[1] for c in centre.values()])[:-1]
    gap_of = dict(zip(centre, jnp.split(gap, ends), strict=True))
    normal_of = dict(zip(centre, jnp.split(normal, ends, axis=1), strict=True))

    point, radius, palmar = [], [], []
    for k, name in enumerate(CONTACT_LINKS):
        link = hand.link(name)
        side = kinematics.combine(columns[link], _PALMAR[k])
        facing = -(normal_of[link] * side[:, None]).sum(0)
        # Soft choice of the sphere that touches, biased toward surface the gripping side looks at.
        choice = jax.nn.softmax(
            -(gap_of[link] + 0.01 * jnp.maximum(0.3 - facing, 0.0)) / _TEMPERATURE, axis=0
        )
        point.append((choice * centre[link]).sum(1))
        radius.append((choice * cover.radius[cover.of(link), None]).sum(0))
        palmar.append((choice * facing).sum(0))
    point, radius = jnp.stack(point, axis=1), jnp.stack(radius)
    exact, outward = sdf.trilinear(world.grid, point)
    required = jnp.asarray(_REQUIRED.T)[:, world.template]
    optional = jnp.asarray(_OPTIONAL.T)[:, world.template]
    near = jnp.exp(-jnp.maximum(exact - radius, 0.0) / 0.002)
    contacts = wrench.Contacts(
        p=point - radius * outward,
        normal=outward,
        lower=required * np.where(_IS_THUMB, 0.3, 0.1)[:, None],
        upper=(required + optional * near) * np.where(_IS_PALM, 2.0, 1.0)[:, None],
    )
    return contacts, exact - radius, jnp.stack(palmar), _Posed(columns, origins, centre, gap)


def _summed(
    hand: HandModel, config: SynthesisConfig, world: _World, state: _State, update: Array
) -> tuple[Array, tuple[Array, Array]]:
    energy, aux = _energy(hand, config, world, state, update)
    return energy.sum(), aux


def _energy(
    hand: HandModel, config: SynthesisConfig, world: _World, state: _State, update: Array
) -> tuple[Float[Array, " b"], tuple[Array, Array]]:
    """Energies after tangent steps, the updated inner forces, and the terms to filter by."""
    state = _move(state, update)
    contacts, gap, palmar, posed = _contacts(hand, world, state)
    required = jnp.asarray(_REQUIRED.T)[:, world.template]
    wanted = required + _OPTIONAL_WEIGHT * jnp.asarray(_OPTIONAL.T)[:, world.template]
    force = jax.lax.stop_gradient(
        wrench.balance(
            jax.lax.stop_gradient(contacts),
            state.force,
            world.p_centre,
            friction=config.friction,
            steps=config.inner_steps,
        )
    )
    net = (wrench.net_wrench(contacts, _turned(contacts, force), world.p_centre) ** 2).sum(0)

    radius = spheres(hand).radius[:, None]
    depth = jnp.maximum(-posed.gap, 0.0)
    self_depth = _self_penetration(hand, posed)
    height = jnp.concatenate([c[2] for c in posed.centre.values()])
    under = jnp.maximum(world.floor + radius - height, 0.0)
    span = (joints.UPPER - joints.LOWER)[:, None]
    total = (
        config.force * net
        + config.gap * (jnp.sqrt(gap**2 + 1e-6) * wanted).sum(0)
        + config.penetration * (depth.sum(0) + 30 * (depth**2).sum(0))
        + config.self_penetration * (self_depth.sum(0) + 30 * (self_depth**2).sum(0))
        + config.palmar * (jnp.maximum(0.4 - palmar, 0.0) ** 2 * wanted).sum(0)
        + config.posture * (((state.q - joints.REST[:, None]) / span) ** 2).sum(0)
        + config.table * under.sum(0)
    )
    terms = jnp.stack(
        [net, (jnp.abs(gap) * required).max(0), depth.max(0), self_depth.max(0), under.max(0)]
    )
    return total, (force, terms)


def _turned(contacts: wrench.Contacts, force: Array) -> Array:
    """Forces that keep their parts along and across the normal while the normal turns.

    Without this the wrench would not feel that moving a contact turns its force, and the optimiser
    could not find where forces balance.
    """
    fixed = jax.lax.stop_gradient(contacts.normal)
    outward = (force * fixed).sum(0)
    across = force - outward * fixed
    return across + outward * contacts.normal


def _self_penetration(hand: HandModel, posed: _Posed) -> Float[Array, "pairs b"]:
    """Deepest overlap (m) of every two fingers, and of each finger's outer links with the palm."""
    g = hand.geoms
    fingers = [
        [
            (i, hand.link_names[g.link[i]])
            for i in range(len(g.link))
            if hand.link_names[g.link[i]].startswith(finger) and not g.is_box[i]
        ]
        for finger in (*_FINGERS, "th")
    ]
    middle, half, radius = [], [], []
    for finger in fingers:
        placed = [_capsule(hand, posed, i) for i, _ in finger]
        middle.append(jnp.stack([m for m, _ in placed], axis=1))
        half.append(jnp.stack([h for _, h in placed], axis=1))
        radius.append(np.array([g.size[i, 0] for i, _ in finger]))
    depths = []
    for a in range(5):
        for b in range(a):
            distance = segment_distance(
                middle[a][:, :, None],
                half[a][:, :, None],
                middle[b][:, None],
                half[b][:, None],
                axis=0,
            )
            depth = (radius[a][:, None] + radius[b])[..., None] - distance
            depths.append(jnp.maximum(depth, 0.0).max((0, 1)))
    cover = spheres(hand)
    for finger in (*_FINGERS, "th"):
        outer = [hand.link(f"{finger}middle"), hand.link(f"{finger}distal")]
        centre = jnp.concatenate([posed.centre[link] for link in outer], axis=1)
        offset = centre - posed.origins[0][:, None]
        local = jnp.stack([(offset * c[:, None]).sum(0) for c in posed.columns[0]])
        inner = np.concatenate([cover.radius[cover.of(link)] for link in outer])[:, None]
        for i in np.flatnonzero(g.is_box & (g.link == 0)):
            in_box = jnp.einsum("ji,jsb->isb", g.R_link_geom[i], local) - (
                g.R_link_geom[i].T @ g.p_link_geom[i]
            ).reshape(3, 1, 1)
            over = jnp.abs(in_box) - g.size[i].reshape(3, 1, 1)
            outside = jnp.sqrt((jnp.maximum(over, 0.0) ** 2).sum(0) + 1e-12)
            depth = inner - outside - jnp.minimum(over.max(0), 0.0)
            depths.append(jnp.maximum(depth, 0.0).max(0))
    return jnp.stack(depths)


def _capsule(hand: HandModel, posed: _Posed, i: int) -> tuple[Array, Array]:
    """Midpoint and half vector of a capsule in the object frame."""
    g = hand.geoms
    columns = posed.columns[g.link[i]]
    axis = g.R_link_geom[i][:, 2] * g.size[i, 1]
    middle = kinematics.combine(columns, g.p_link_geom[i]) + posed.origins[g.link[i]]
    return middle, kinematics.combine(columns, axis)
