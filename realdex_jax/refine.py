"""Test-time refinement of proposed grasps on a point cloud.

After RealDex (section 4.1, test-time adaptation) and its source UniDexGrasp: the pose is moved
until the contact map of the hand agrees with the predicted one, without penetration. Two things
are added. Links that the map says touch are drawn onto the surface, and contact forces inside
friction cones must be able to balance (`realdex_jax.wrench`). All grasps of a cloud are refined at
once in one scan.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import jaxlie
import numpy as np
from jaxtyping import Array, Float

from realdex_jax import pose, pytree, wrench
from realdex_jax.geometry import sdf
from realdex_jax.geometry.sdf import SdfGrid
from realdex_jax.hand import collision, joints, kinematics, torque
from realdex_jax.hand.kinematics import Links
from realdex_jax.hand.load import HandModel
from realdex_jax.hand.spheres import spheres
from realdex_jax.losses import contact

CONTACT_LINKS: tuple[str, ...] = (
    "palm",
    *(f"{f}{part}" for f in ("ff", "mf", "rf", "lf") for part in ("proximal", "middle", "distal")),
    *("thproximal", "thmiddle", "thdistal"),
)
"""Links that may carry a contact."""

IS_THUMB: Float[np.ndarray, " k"] = np.array(
    [n.startswith("th") for n in CONTACT_LINKS], np.float32
)
_IS_TIP = np.array([n.endswith("distal") for n in CONTACT_LINKS])


@dataclasses.dataclass(frozen=True)
class RefineConfig:
    """Settings of the refinement."""

    steps: int = 150
    translation_step: float = 0.0025
    """Metres per step of Adam; the others are radians."""
    rotation_step: float = 0.02
    joint_step: float = 0.02
    contact_map: float = 3.0
    contact: float = 100.0
    penetration: float = 300.0
    self_penetration: float = 100.0
    force: float = 30.0
    alignment: float = 1.0
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
    points: Float[Array, "n 3"]
    """Points of the contact map, metres."""
    p_centre: Float[Array, " 3"]
    """Estimated centre of mass, metres."""
    table: Float[Array, ""]
    """Height (m) of a table under the object, its normal +z; -inf for none."""


@pytree.dataclass
class Touch:
    """Possible contacts of each contact link with the object."""

    gap: Float[Array, "*b k"]
    """Distance from the link to the object's surface, metres; negative is penetration."""
    p: Float[Array, "*b k 3"]
    """Contact points in the object frame, metres."""
    normal: Float[Array, "*b k 3"]
    """Outward unit normals of the object there."""
    alignment: Float[Array, "*b k"]
    """Cosine between the link's palmar direction and the inward normal."""


@pytree.dataclass
class Refined:
    """Refined grasps and what is known of them without physics."""

    phi: Float[Array, "*b 28"]
    force: Float[Array, "*b k 3"]
    """Balancing contact forces on the object, object frame, in units of the largest allowed one."""
    touch: Touch
    wanted: Float[Array, "*b k"]
    """1 for links that were meant to touch."""
    energy: Float[Array, "*b"]


def _palmar(hand: HandModel) -> Float[np.ndarray, "k 3"]:
    """Direction of the palmar side in each contact link's frame: where flexion moves the tip."""
    out = []
    for name in CONTACT_LINKS:
        axis = hand.axis[hand.link(name)]
        if name == "palm":
            direction = np.array([0.0, -1.0, 0.0])
        elif name == "thproximal":  # turns sideways; its palmar side is the next link's
            direction = np.cross(hand.axis[hand.link("thmiddle")], [0.0, 0.0, 1.0])
        else:
            direction = np.cross(axis, [0.0, 0.0, 1.0])
        out.append(direction / np.linalg.norm(direction))
    return np.array(out, np.float32)


def place(hand: HandModel, phi: Float[Array, "*b 28"]) -> Links:
    """Links of a pose in the object frame."""
    q, T = pose.split(phi)
    return kinematics.place(kinematics.forward(hand, q), T)


def sphere_centres(hand: HandModel, links: Links) -> Float[Array, "*b s 3"]:
    """Centres of the hand's sphere cover in the frame of `links`, metres."""
    cover = spheres(hand)
    parts = []
    for link in np.unique(cover.link):
        p_link = cover.p_link[cover.of(link)]
        rotated = jnp.einsum("...ij,sj->...si", links.R[..., link, :, :], p_link)
        parts.append(rotated + links.p[..., None, link, :])
    return jnp.concatenate(parts, axis=-2)


def touch(hand: HandModel, links: Links, grid: SdfGrid) -> tuple[Touch, Float[Array, "*b s"]]:
    """Contacts of every contact link, and the gap of every sphere.

    A link's contact is a soft minimum over its spheres (1.5 mm), leaning toward its palmar side.

    Args:
        hand: The hand.
        links: Its links in the object frame.
        grid: Distance to the object.

    Returns:
        Contacts, and signed gaps (m) between all spheres and the object.
    """
    cover = spheres(hand)
    palmar = _palmar(hand)
    centres = sphere_centres(hand, links)
    value = sdf.first_order(grid, centres)
    gap, normal = value[..., 0] - cover.radius, value[..., 1:]
    p_out, gap_out, align_out = [], [], []
    for k, name in enumerate(CONTACT_LINKS):
        link = hand.link(name)
        mine = cover.of(link)
        direction = links.R[..., link, :, :] @ palmar[k]
        facing = -(normal[..., mine, :] * direction[..., None, :]).sum(-1)
        score = gap[..., mine] + 0.01 * jnp.maximum(0.3 - facing, 0.0)
        weight = jax.nn.softmax(-score / 0.0015, axis=-1)
        surface = centres[..., mine, :] - cover.radius[mine, None] * normal[..., mine, :]
        p_out.append((weight[..., None] * surface).sum(-2))
        gap_out.append((weight * gap[..., mine]).sum(-1))
        align_out.append((weight * facing).sum(-1))
    p = jnp.stack(p_out, axis=-2)
    # The node normals above are constants to the gradient; force balance needs ones that turn.
    smooth = sdf.trilinear(grid, p)[..., 1:]
    return Touch(
        gap=jnp.stack(gap_out, axis=-1),
        p=p,
        normal=smooth,
        alignment=jnp.stack(align_out, axis=-1),
    ), gap


def wanted_links(
    hand: HandModel,
    phi: Float[Array, "*b 28"],
    target: Target,
    predicted: Float[Array, "*b n"],
    config: RefineConfig,
) -> Float[Array, "*b k"]:
    """Which links are meant to touch: 1 or 0.

    A link is meant to touch if it is within reach and the predicted map is high at the object point
    nearest to it. The thumb's tip and the nearest fingertip always are: fewer cannot hold.
    """
    links = place(hand, phi)
    at = [hand.link(name) for name in CONTACT_LINKS]
    d = collision.signed_distance_per_link(hand, links, target.points)[..., at]  # (*b n k)
    nearest = d.min(-2)
    under = jax.nn.softmax(-d / 0.003, axis=-2)
    expected = jnp.einsum("...nk,...n->...k", under, predicted)
    wanted = (expected > config.expected) & (nearest < config.reach)
    thumb_tip = np.array([n == "thdistal" for n in CONTACT_LINKS])
    fingers = np.where(_IS_TIP & ~thumb_tip, 0.0, 1.0)
    best = jnp.argmin(nearest + fingers, axis=-1)
    wanted = wanted | thumb_tip | (jnp.arange(len(CONTACT_LINKS)) == best[..., None])
    return wanted.astype(jnp.float32)


def contacts_of(found: Touch, wanted: Float[Array, "*b k"]) -> wrench.Contacts:
    """Contacts for the inner problem: wanted links press with 0.1 to 1, the thumb with at least 0.3.

    The palm may press with nothing.
    """
    is_palm = np.array([n == "palm" for n in CONTACT_LINKS], np.float32)
    tip_thumb = IS_THUMB * _IS_TIP
    lower = (0.1 + 0.2 * tip_thumb) * (1.0 - is_palm)
    return wrench.Contacts(
        p=found.p, normal=found.normal, lower=lower * wanted, upper=(1.0 + is_palm) * wanted
    )


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
    k = phi.shape[0]
    q0, T_start = pose.split(phi)
    q0 = torque.within_limits(q0)
    wanted = wanted_links(hand, phi, target, predicted, config)
    objective = jax.vmap(
        jax.value_and_grad(_energy, has_aux=True), in_axes=(0, 0, 0, 0, 0, 0, 0, None, None, None)
    )
    step_size = jnp.concatenate(
        [
            jnp.full(3, config.translation_step),
            jnp.full(3, config.rotation_step),
            jnp.full(22, config.joint_step),
        ]
    )

    def update(carry: tuple[Any, ...], i: Array) -> tuple[tuple[Any, ...], None]:
        R, t, q, force, m, v = carry
        x = jnp.concatenate([jnp.zeros((k, 6)), q], axis=-1)
        (_, (force, _)), g = objective(
            x, R.wxyz, t, force, predicted, wanted, q0, target, hand_of, config
        )
        g = jnp.nan_to_num(g)
        norm = jnp.sqrt((g**2).sum(-1, keepdims=True))
        g = g * jnp.minimum(1.0, 100.0 / (norm + 1e-9))
        m, v = 0.9 * m + 0.1 * g, 0.98 * v + 0.02 * g**2
        share = i / config.steps
        rate = jnp.where(share < 0.6, 1.0, 0.02 + 0.98 * jnp.cos((share - 0.6) / 0.4 * jnp.pi / 2))
        rate = rate * jnp.where(share < 0.4, 1.0, 0.5)
        m_hat, v_hat = m / (1 - 0.9 ** (i + 1)), v / (1 - 0.98 ** (i + 1))
        move = -rate * step_size * m_hat / (jnp.sqrt(v_hat) + 1e-4)
        R = (R @ jaxlie.SO3.exp(move[:, 3:6])).normalize()
        q = torque.within_limits(q + move[:, 6:])
        return (R, t + move[:, :3], q, force, m, v), None

    hand_of = _Static(hand)
    contacts = len(CONTACT_LINKS)
    zero = jnp.zeros((k, 28))
    force = jnp.zeros((k, contacts, 3))
    start = (T_start.rotation(), T_start.translation(), q0, force, zero, zero)
    (R, t, q, force, _, _), _ = jax.lax.scan(update, start, jnp.arange(config.steps))
    refined = pose.join(q, jaxlie.SE3.from_rotation_and_translation(R, t))
    x = jnp.concatenate([jnp.zeros((k, 6)), q], axis=-1)
    (energy, (_, found)), _ = objective(
        x, R.wxyz, t, force, predicted, wanted, q0, target, hand_of, config
    )
    force = wrench.balance(
        contacts_of(found, wanted), force, target.p_centre, friction=config.friction, steps=60
    )
    return Refined(phi=refined, force=force, touch=found, wanted=wanted, energy=energy)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class _Static:
    """A hand passed through vmap untouched."""

    hand: HandModel


def _energy(
    x: Float[Array, " 28"],
    wxyz: Float[Array, " 4"],
    t: Float[Array, " 3"],
    force: Float[Array, "k 3"],
    predicted: Float[Array, " n"],
    wanted: Float[Array, " k"],
    q0: Float[Array, " 22"],
    target: Target,
    static: _Static,
    config: RefineConfig,
) -> tuple[Float[Array, ""], tuple[Array, Touch]]:
    """Energy of one grasp at increments `x`: translation, rotation tangent (hand frame), joints.

    Returns:
        The energy, and the updated contact forces with the contacts they act at.
    """
    hand = static.hand
    q = x[6:]
    R = jaxlie.SO3(wxyz) @ jaxlie.SO3.exp(x[3:6])
    T = jaxlie.SE3.from_rotation_and_translation(R, t + x[:3])
    links = kinematics.place(kinematics.forward(hand, q), T)
    found, gap = touch(hand, links, target.grid)

    depth = jnp.maximum(-gap - config.depth, 0.0)
    e_penetration = depth.sum() + 30.0 * (depth**2).sum()
    e_contact = (jnp.sqrt((found.gap + config.depth) ** 2 + 1e-6) * wanted).sum()
    e_alignment = (jnp.maximum(0.4 - found.alignment, 0.0) ** 2 * wanted).sum()
    e_self = collision.self_penetration(hand, links).sum()
    e_prior = (((q - q0) / (joints.UPPER - joints.LOWER)) ** 2).sum()
    cover = spheres(hand)
    z = sphere_centres(hand, links)[..., 2]
    e_table = jnp.maximum(target.table + cover.radius - z, 0.0).sum()

    d = collision.signed_distance(hand, links, target.points)
    e_map = contact.map_error(contact.contact_value(d), predicted)
    e_penetration = e_penetration + jnp.maximum(-d - config.depth, 0.0).sum()

    possible = contacts_of(found, wanted)
    force = jax.lax.stop_gradient(
        wrench.balance(
            jax.lax.stop_gradient(possible),
            force,
            target.p_centre,
            friction=config.friction,
            steps=6,
        )
    )
    # Pressures and tangential parts are held, normals and points may move: what the pose can
    # change.
    fixed = jax.lax.stop_gradient(found.normal)
    pressure = -(force * fixed).sum(-1, keepdims=True)
    tangential = force + pressure * fixed
    along = (tangential * found.normal).sum(-1, keepdims=True)
    moved = tangential - along * found.normal - pressure * found.normal
    e_force = (wrench.net_wrench(possible, moved, target.p_centre) ** 2).sum()

    energy = (
        config.contact_map * e_map
        + config.contact * e_contact
        + config.penetration * e_penetration
        + config.self_penetration * e_self
        + config.force * e_force
        + config.alignment * e_alignment
        + config.prior * e_prior
        + config.table * e_table
    )
    return energy, (force, found)
