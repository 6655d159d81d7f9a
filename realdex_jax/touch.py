"""How a batch of posed hands meets an object: contacts, gaps, depths.

Components first and batch last, so that every operation is elementwise over the batch and
vectorises; this is the inner loop of refinement.
"""

import jax
import jax.numpy as jnp
import jaxlie
import numpy as np
from jaxtyping import Array, Float, Int

from realdex_jax import pose, pytree, wrench
from realdex_jax.geometry import sdf
from realdex_jax.geometry.sdf import SdfGrid, SdfGrids
from realdex_jax.hand import collision, facts, kinematics
from realdex_jax.hand.facts import ContactLinks
from realdex_jax.hand.load import HandModel
from realdex_jax.hand.spheres import Spheres, spheres

SHADOW = facts.SHADOW.contacts()
CONTACT_LINKS, IS_PALM, IS_THUMB, IS_TIP = (
    SHADOW.names,
    SHADOW.is_palm,
    SHADOW.is_thumb,
    SHADOW.is_tip,
)
"""Links of the Shadow Hand that may carry a contact; another hand's are in `hand.contacts`."""

_SOFTNESS = 0.0015
"""Metres over which the choice of a link's contact among its spheres blurs."""


@pytree.dataclass
class Posed:
    """Hands in the object frame, link by link."""

    columns: list[list[Float[Array, "3 b"]]]
    """Three columns of each link's orientation."""
    origins: list[Float[Array, "3 b"]]
    """Link origins, metres."""
    centre: dict[int, Float[Array, "3 s b"]]
    """Sphere centres by link, metres."""
    cover: Spheres = pytree.static()
    """Whose spheres they are."""


@pytree.dataclass
class Touch:
    """Possible contacts of each contact link with the object."""

    gap: Float[Array, "k b"]
    """Distance from the link to the object, metres; negative is penetration."""
    p: Float[Array, "3 k b"]
    """Points of the links nearest to the object, metres."""
    normal: Float[Array, "3 k b"]
    """Outward unit normals of the object there."""
    facing: Float[Array, "k b"]
    """Cosine between the link's palmar direction and the inward normal."""
    spheres: Float[Array, "s b"]
    """Gap of every sphere of the hand, metres."""


def posed(
    hand: HandModel,
    R: Float[Array, "3 3 b"],
    p: Float[Array, "3 b"],
    q: Float[Array, "j b"],
    fine: bool = False,
) -> Posed:
    """Places hands.

    Args:
        hand: The hand.
        R: Palm orientations in the object frame.
        p: Palm positions, metres.
        q: Joint angles, radians.
        fine: Whether boxes are finely covered, see `realdex_jax.hand.spheres`.
    """
    cover = spheres(hand, fine)
    columns, origins = kinematics.chain(hand, q, [R[:, i] for i in range(3)], p)
    centre = {}
    for link in np.unique(cover.link):
        local = cover.p_link[cover.of(int(link))]
        moved = origins[link][:, None]
        for i in range(3):
            moved = moved + local[:, i, None] * columns[link][i][:, None]
        centre[int(link)] = moved
    return Posed(columns=columns, origins=origins, centre=centre, cover=cover)


def sphere_depths(
    hand: HandModel,
    grid: SdfGrid,
    phi: Float[Array, "*b phi"],
    wxyz_xyz_world_object: Float[Array, "*b 7"],
) -> tuple[Float[Array, " s *b"], Float[Array, " s *b"]]:
    """How deep (m) each sphere of the hand is in the object and under the table z = 0.

    Negative is clear.

    Args:
        hand: The hand.
        grid: The object.
        phi: Hand poses in the world.
        wxyz_xyz_world_object: Object poses.
    """
    centre, height = _covered(hand, phi, wxyz_xyz_world_object)
    distance, _ = sdf.first_order(grid, centre)
    return _depths_of(hand, distance, height, phi.shape[:-1])


def sphere_depths_among(
    hand: HandModel,
    grids: SdfGrids,
    which: Int[Array, " b"],
    phi: Float[Array, "b t phi"],
    wxyz_xyz_world_object: Float[Array, "b 7"],
) -> tuple[Float[Array, "s b t"], Float[Array, "s b t"]]:
    """The same as `sphere_depths` for motions, each around an object of its own.

    Args:
        hand: The hand.
        grids: The objects.
        which: Object of each motion.
        phi: Hand poses in the world.
        wxyz_xyz_world_object: Where the objects rest.
    """
    b, t = phi.shape[:2]
    world = jnp.broadcast_to(wxyz_xyz_world_object[:, None], (b, t, 7))
    centre, height = _covered(hand, phi, world)
    p_object = centre.reshape(3, -1, b, t).transpose(2, 1, 3, 0).reshape(b, -1, 3)
    distance = sdf.distance_among(grids, which, p_object).reshape(b, -1, t)
    distance = jnp.swapaxes(distance, 0, 1)
    return _depths_of(hand, distance, height, (b, t))


def _covered(
    hand: HandModel, phi: Float[Array, "*b phi"], wxyz_xyz_world_object: Float[Array, "*b 7"]
) -> tuple[Float[Array, "3 s n"], Float[Array, "s n"]]:
    """Centres of the spheres in the object frame, and their heights above the table, metres."""
    q, T_world_hand = pose.split(phi.reshape(-1, phi.shape[-1]))
    T_world_object = jaxlie.SE3(wxyz_xyz_world_object.reshape(-1, 7))
    T_object_hand = T_world_object.inverse() @ T_world_hand
    R = jnp.moveaxis(T_object_hand.rotation().as_matrix(), 0, -1)
    at = posed(hand, R, T_object_hand.translation().T, q.T)
    centre = jnp.concatenate(list(at.centre.values()), axis=1)
    up = T_world_object.rotation().as_matrix()[:, 2]
    height = jnp.einsum("bi,isb->sb", up, centre) + T_world_object.translation()[:, 2]
    return centre, height


def _depths_of(
    hand: HandModel,
    distance: Float[Array, " s *_"],
    height: Float[Array, "s n"],
    batch: tuple[int, ...],
) -> tuple[Float[Array, " s *b"], Float[Array, " s *b"]]:
    """Depths (s *b) of spheres, from the distances and heights of their centres."""
    radius = spheres(hand).radius
    in_object, in_table = (
        jnp.asarray(radius).reshape(-1, *[1] * len(batch)) - x.reshape(len(radius), *batch)
        for x in (distance, height)
    )
    return in_object, in_table


def depths(
    hand: HandModel,
    grid: SdfGrid,
    phi: Float[Array, "*b phi"],
    wxyz_xyz_world_object: Float[Array, "*b 7"],
) -> tuple[Float[Array, "*b"], Float[Array, "*b"]]:
    """How deep (m) the hand is in the object and under the table: the deepest of its spheres."""
    in_object, in_table = sphere_depths(hand, grid, phi, wxyz_xyz_world_object)
    return in_object.max(0), in_table.max(0)


def touch(hand: HandModel, at: Posed, grid: SdfGrid) -> Touch:
    """Contacts of every contact link.

    A link's contact is a soft choice among its spheres, leaning toward those whose palmar side
    faces the surface.

    Args:
        hand: The hand.
        at: Its pose.
        grid: Distance to the object.
    """
    cover = at.cover
    distance, normal = sdf.first_order(grid, jnp.concatenate(list(at.centre.values()), axis=1))
    gap = distance - cover.radius[:, None]
    # Splitting, unlike slicing, has a cheap gradient: one concatenation.
    ends = np.cumsum([c.shape[1] for c in at.centre.values()])[:-1].tolist()
    gap_of = dict(zip(at.centre, jnp.split(gap, ends), strict=True))
    normal_of = dict(zip(at.centre, jnp.split(normal, ends, axis=1), strict=True))
    point, radius, facing = [], [], []
    for name, palmar in zip(hand.contacts.names, hand.contacts.palmar, strict=True):
        link = hand.link(name)
        axis = int(np.abs(palmar).argmax())
        side = float(palmar[axis]) * at.columns[link][axis]
        towards = -(normal_of[link] * side[:, None]).sum(0)
        score = gap_of[link] + 0.01 * jnp.maximum(0.3 - towards, 0.0)
        choice = jax.nn.softmax(-score / _SOFTNESS, axis=0)
        point.append((choice * at.centre[link]).sum(1))
        radius.append((choice * cover.radius[cover.of(link), None]).sum(0))
        facing.append((choice * towards).sum(0))
    centre, reach = jnp.stack(point, axis=1), jnp.stack(radius)
    # The node normals above are constants to the gradient; force balance needs ones that turn.
    exact, outward = sdf.trilinear(grid, centre)
    return Touch(
        gap=exact - reach,
        p=centre - reach * outward,
        normal=outward,
        facing=jnp.stack(facing),
        spheres=gap,
    )


def contacts(
    found: Touch,
    lower: Float[Array, "k b"],
    upper: Float[Array, "k b"] | None = None,
    of: ContactLinks = SHADOW,
) -> wrench.Contacts:
    """Contacts for the inner force problem.

    Links press with 0.1 to 1 (the thumb with at least 0.3, the palm 0 to 2), times their share.

    Args:
        found: Contacts.
        lower: Share of the least force: 1 for links that must press, 0 for others.
        upper: Share of the greatest force; as `lower` if left out.
        of: The hand's contact links.
    """
    least = np.where(of.is_palm, 0.0, np.where(of.is_thumb, 0.3, 0.1)).astype(np.float32)
    most = np.where(of.is_palm, 2.0, 1.0).astype(np.float32)
    upper = lower if upper is None else upper
    return wrench.Contacts(
        p=found.p, normal=found.normal, lower=lower * least[:, None], upper=upper * most[:, None]
    )


def turned(found: Float[Array, "3 k b"], force: Float[Array, "3 k b"]) -> Float[Array, "3 k b"]:
    """Forces that keep their parts along and across the normals while those turn.

    Args:
        found: Normals, differentiable.
        force: Forces at the present normals.
    """
    fixed = jax.lax.stop_gradient(found)
    outward = (force * fixed).sum(0)
    return force - outward * fixed + outward * found


def to_hand(hand: HandModel, at: Posed, points: Float[Array, "3 n"]) -> Float[Array, "g n b"]:
    """Signed distance (m) from object points to each primitive of the hand, negative inside.

    Squares are expanded, |p - c|^2 = |p|^2 - 2 p.c + |c|^2, so that points meet all capsules in two
    products. Within 0.01 mm of the exact form for points within a metre, since axes are at least a
    capsule's radius away at the surface.

    Args:
        hand: The hand.
        at: Its pose.
        points: Object points, metres.
    """
    g = hand.geoms
    axis = jnp.stack(
        [_along(at.columns[i], v) for i, v in zip(g.link, g.R_link_geom[..., 2], strict=True)]
    )
    middle = jnp.stack(
        [
            _along(at.columns[i], v) + at.origins[i]
            for i, v in zip(g.link, g.p_link_geom, strict=True)
        ]
    )  # both (g 3 b)
    radius, half = g.size[:, 0, None, None], g.size[:, 1, None, None]
    along = _product(points, axis) - (axis * middle).sum(1)[:, None]
    square = (
        (points**2).sum(0)[:, None] - 2.0 * _product(points, middle) + (middle**2).sum(1)[:, None]
    )
    inner = jnp.clip(along, -half, half)
    square = square - 2.0 * inner * along + inner**2
    capsule = jnp.sqrt(jnp.maximum(square, 1e-10)) - radius
    out = list(capsule)
    for i in np.flatnonzero(g.is_box):
        columns = at.columns[g.link[i]]
        offset = points[:, :, None] - middle[i][:, None]
        axes = [_along(columns, g.R_link_geom[i][:, j]) for j in range(3)]
        local = jnp.stack([(offset * a[:, None]).sum(0) for a in axes])
        over = jnp.abs(local) - g.size[i].reshape(3, 1, 1)
        outside = jnp.sqrt((jnp.maximum(over, 0.0) ** 2).sum(0) + 1e-12)
        out[i] = outside + jnp.minimum(over.max(0), 0.0)
    return jnp.stack(out)


def _product(points: Float[Array, "3 n"], v: Float[Array, "g 3 b"]) -> Float[Array, "g n b"]:
    # Full precision: accelerators would round the factors to ten bits, and differences follow.
    return jnp.einsum("in,gib->gnb", points, v, precision=jax.lax.Precision.HIGHEST)


def self_depth(hand: HandModel, at: Posed) -> Float[Array, "pairs b"]:
    """Deepest overlap (m, >= 0) of each two fingers, and of fingers' outer links with the palm."""
    g = hand.geoms
    capsules = []
    for finger in hand.facts.digits:
        mine = [
            i
            for i in range(len(g.link))
            if hand.link_names[g.link[i]].startswith(finger) and not g.is_box[i]
        ]
        middle = [
            _along(at.columns[g.link[i]], g.p_link_geom[i]) + at.origins[g.link[i]] for i in mine
        ]
        half = [_along(at.columns[g.link[i]], g.R_link_geom[i][:, 2] * g.size[i, 1]) for i in mine]
        capsules.append((jnp.stack(middle, 1), jnp.stack(half, 1), g.size[mine, 0]))
    out = []
    for a in range(len(capsules)):
        for b in range(a):
            (ca, ha, ra), (cb, hb, rb) = capsules[a], capsules[b]
            distance = collision.segment_distance(
                ca[:, :, None], ha[:, :, None], cb[:, None], hb[:, None], axis=0
            )
            depth = (ra[:, None] + rb)[..., None] - distance
            out.append(jnp.maximum(depth, 0.0).max((0, 1)))
    cover = at.cover
    palm = at.columns[0]
    for finger in hand.facts.digits:
        outer = [hand.link(f"{finger}middle"), hand.link(f"{finger}distal")]
        offset = jnp.concatenate([at.centre[link] for link in outer], axis=1)
        offset = offset - at.origins[0][:, None]
        local = jnp.stack([(offset * column[:, None]).sum(0) for column in palm])
        radius = np.concatenate([cover.radius[cover.of(link)] for link in outer])[:, None]
        for i in np.flatnonzero(g.is_box & (g.link == 0)):
            turned_back = g.R_link_geom[i].T
            in_box = jnp.einsum("ij,jsb->isb", turned_back, local)
            in_box = in_box - (turned_back @ g.p_link_geom[i]).reshape(3, 1, 1)
            over = jnp.abs(in_box) - g.size[i].reshape(3, 1, 1)
            outside = jnp.sqrt((jnp.maximum(over, 0.0) ** 2).sum(0) + 1e-12)
            depth = radius - outside - jnp.minimum(over.max(0), 0.0)
            out.append(jnp.maximum(depth, 0.0).max(0))
    return jnp.stack(out)


def _along(columns: list[Array], v: Float[np.ndarray, " 3"]) -> Float[Array, "3 b"]:
    """A link-fixed vector in the object frame."""
    return sum((float(v[i]) * columns[i] for i in range(1, 3)), start=float(v[0]) * columns[0])
