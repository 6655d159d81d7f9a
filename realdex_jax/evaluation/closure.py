"""How well the contacts of a grasp could resist any push: the measure Q1, in two variants.

Q1 (Ferrari and Canny 1992) is the radius of the largest ball about zero inside the convex hull of
the wrenches that the contacts can apply. UniDexGrasp and DexGraspBench differ in which contacts
count, in friction, in the weight of torque and in the sign; their numbers cannot be compared.
"""

import dataclasses
import functools
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import trimesh
from jaxtyping import Array, Bool, Float, Int
from scipy.spatial import ConvexHull, KDTree, QhullError

from realdex_jax import pytree
from realdex_jax.evaluation.grasp import MetricError
from realdex_jax.geometry.shape import ObjectShape
from realdex_jax.hand import collision, kinematics
from realdex_jax.hand.load import HandModel

EDGES = 8
"""Edges of a friction cone."""
NEAR, FRICTION, LEVER = 0.010, 1.0, 10.0
"""UniDexGrasp: contacts are links nearer than this (m); friction; torque (N m) counts this much."""
MAX_DEPTH = 0.005
"""Metres of penetration from which UniDexGrasp counts Q1 as 0."""
BENCH_NEAR, BENCH_FRICTION, WORST = 0.005, 0.3, 2.0
"""DexGraspBench: tips nearer than this (m); half the friction of its simulation; the value of a
grasp without closure."""

_POINTS = 4096
"""Surface points among which the search for contacts starts."""
_SAMPLES, _NEAREST = 40_000, 8
"""Surface samples that name triangles, and how many of the nearest name the closest triangle."""
_ROUNDS = 2
"""Times the search goes from link to surface and back."""
_CORE = 0.006
"""Metres between the faces of a box and the block that stands for it, as an axis for a capsule."""
_FLAT = 1e-6
"""Wrenches whose least singular value is below this share of the greatest span no volume."""
_GROWTHS, _FACETS, _ROUNDING = 4, 64, 1e-9
"""Growths after which a hull takes all corners, its nearest facets that grow, and a difference in
radius that is none."""
_PAD = 16
"""Numbers of grasps are padded to a multiple of this, so that few sizes are ever compiled."""
_THREADS = 2


@dataclasses.dataclass(frozen=True, eq=False)
class Contacts:
    """Where each link of the hand is nearest to the object or deepest in it; object frame."""

    gap: Float[np.ndarray, "b l"]
    """Distance between link and surface, metres; negative is penetration."""
    p: Float[np.ndarray, "b l 3"]
    """Point of the object's surface, metres."""
    normal: Float[np.ndarray, "b l 3"]
    """Outward unit normal of the object there."""


@pytree.dataclass
class _Cores:
    """Of each link the primitive that touches: a segment or block, and how far it is rounded."""

    R: Float[Array | np.ndarray, "*b l 3 3"]
    """Orientation in the object frame."""
    centre: Float[Array | np.ndarray, "*b l 3"]
    """Metres."""
    half: Float[Array | np.ndarray, "*b l 3"]
    """Half extents of the core, metres."""
    rounding: Float[Array | np.ndarray, "*b l"]
    """Distance from core to surface, metres; along the normals of a box."""
    p: Float[Array | np.ndarray, "*b l 3"]
    """Surface point of the object nearest to the primitive, among a sample, metres."""


def links(hand: HandModel) -> tuple[int, ...]:
    """Links that can touch: those with primitives, in the order of `Contacts`."""
    return tuple(np.unique(hand.geoms.link).tolist())


def contacts(
    hand: HandModel, shape: ObjectShape, phi: Float[Array | np.ndarray, "b phi"]
) -> Contacts:
    """One possible contact of each link in `links`.

    From the sampled point nearest to the link, the search goes to and fro between the core of the
    link's primitive (a capsule's axis) and the mesh. The normal points from the mesh to the core:
    it is sound wherever the core is outside, also on edges and in slight penetration.

    Args:
        hand: The hand.
        shape: The object.
        phi: Poses in the object frame.

    Raises:
        MetricError: A pose is not finite.
    """
    if not np.isfinite(np.asarray(phi)).all():
        raise MetricError("poses must be finite")
    count = len(phi)
    padded = np.zeros((-(-count // _PAD) * _PAD, np.shape(phi)[1]), np.float32)
    padded[:count] = phi
    sample = jnp.asarray(shape.surface(_POINTS).points, jnp.float32)
    found = _touching(hand, jnp.asarray(padded), sample)
    cores = jax.tree.map(lambda x: np.asarray(x, np.float64)[:count], found)
    inner = _inner(cores, cores.p)
    for _ in range(_ROUNDS):
        inner = _inner(cores, _closest(shape, inner)[0])
    return _separated(cores, inner, *_closest(shape, inner))


def q1(found: Contacts, p_centre: Float[np.ndarray, " 3"]) -> Float[np.ndarray, " b"]:
    """UniDexGrasp's Q1, 0 to 1: one contact a link, cones of `EDGES` edges of length sqrt 2.

    Args:
        found: Contacts of every link, from `contacts`.
        p_centre: Torques are about this point: the middle of the object's bounding box, metres.
    """
    radii = _radii(found.p - p_centre, found.normal, found.gap < NEAR, FRICTION, LEVER)
    return np.minimum(radii, 1.0)


def valid_q1(
    q1: Float[np.ndarray, " b"], depth: Float[np.ndarray, " b"]
) -> Float[np.ndarray, " b"]:
    """Q1 of grasps whose penetration `depth` (m) is below `MAX_DEPTH`, 0 of the others."""
    return np.where(depth < MAX_DEPTH, q1, 0.0)


def q1_bench(hand: HandModel, found: Contacts) -> Float[np.ndarray, " b"]:
    """DexGraspBench's Q1, 0 (best) to 2 (no closure): fingertips only, 2 less the radius.

    Torques are about the contacts' centroid and divided by their mean distance from it. A tip has
    one contact here; in MuJoCo it may have one with every piece of the object, which are averaged.
    """
    tips = np.isin(links(hand), hand.tip_link)
    gap, normal = found.gap[:, tips], found.normal[:, tips]
    p = found.p[:, tips] + 0.5 * gap[..., None] * normal  # midway, as in MuJoCo
    touching = np.abs(gap) < BENCH_NEAR
    count = np.maximum(touching.sum(axis=1), 1)[:, None]
    centroid = np.where(touching[..., None], p, 0.0).sum(axis=1) / count
    arm = p - centroid[:, None]
    reach = (np.linalg.norm(arm, axis=-1) * touching).sum(axis=1, keepdims=True) / count
    arm = arm / np.maximum(reach, 1e-9)[..., None]  # of a single contact: no arm, and no closure
    return WORST - np.minimum(_radii(arm, normal, touching, BENCH_FRICTION, 1.0), WORST)


def wrenches(
    p: Float[np.ndarray, "n 3"], normal: Float[np.ndarray, "n 3"], friction: float, lever: float
) -> Float[np.ndarray, "m 6"]:
    """Edges of the friction cones as wrenches, all first edges first: force, `lever` x torque.

    Args:
        p: Contact points from the centre of torques, any unit.
        normal: Unit normals; whether inward or outward changes no radius.
        friction: Coefficient.
        lever: Weight of the torque p x f.
    """
    flat = np.stack([-normal[:, 1], normal[:, 0], np.zeros(len(normal))], axis=1)
    upright = np.linalg.norm(flat, axis=1, keepdims=True) < 1e-8
    u = np.where(upright, [1.0, 0.0, 0.0], flat)
    u = u / np.linalg.norm(u, axis=1, keepdims=True)
    v = np.cross(u, normal)
    turn = 2.0 * np.pi * np.arange(EDGES)[:, None, None] / EDGES
    force = normal + friction * (np.cos(turn) * u + np.sin(turn) * v)
    torque = np.cross(np.broadcast_to(p, force.shape), force)
    return np.concatenate([force, lever * torque], axis=-1).reshape(-1, 6)


def ball_radius(edges: Float[np.ndarray, "m 6"]) -> float:
    """Radius of the largest ball about zero inside the convex hull of wrenches and zero.

    0 where zero is not inside, or where the hull is flat.
    """
    if len(edges) < 7:
        return 0.0
    spread = np.linalg.svd(edges, compute_uv=False)
    if not spread[-1] > _FLAT * spread[0]:
        return 0.0
    corners = np.concatenate([edges, np.zeros((1, 6))])
    along = corners @ np.concatenate([np.eye(6), -np.eye(6)]).T
    chosen = list(dict.fromkeys([len(edges), *along.argmax(axis=0).tolist(), *range(7)]))
    # Most of the hull is far from zero. A hull of few corners grows where its facets are nearest,
    # until the nearest is one of the whole hull: mostly a fifth of the time.
    growths = 0
    while True:
        try:  # joggled (QJ), since edges of cones are often coplanar
            facets = ConvexHull(corners[chosen], qhull_options="QJ").equations
        except QhullError:
            return 0.0
        facets = facets[np.argsort(-facets[:, 6])[:_FACETS]]
        height = corners @ facets[:, :6].T
        radius = height.max(axis=0).min()
        nearer = -facets[:, 6] < radius - _ROUNDING
        missing = set(height[:, nearer].argmax(axis=0).tolist()) - set(chosen)
        if not missing:
            return max(float(radius), 0.0)
        growths += 1
        chosen = chosen + sorted(missing) if growths < _GROWTHS else list(range(len(corners)))


def _radii(
    arm: Float[np.ndarray, "b l 3"],
    normal: Float[np.ndarray, "b l 3"],
    touching: Bool[np.ndarray, "b l"],
    friction: float,
    lever: float,
) -> Float[np.ndarray, " b"]:
    def one(i: int) -> float:
        keep = touching[i]
        return ball_radius(wrenches(arm[i, keep], normal[i, keep], friction, lever))

    with ThreadPoolExecutor(_THREADS) as pool:  # qhull lets other threads run
        return np.fromiter(pool.map(one, range(len(arm))), np.float64, len(arm))


def _inner(cores: _Cores, p: Float[np.ndarray, "b l 3"]) -> Float[np.ndarray, "b l 3"]:
    """Points of the cores nearest to `p`."""
    local = np.einsum("blji,blj->bli", cores.R, p - cores.centre)
    inner = np.clip(local, -cores.half, cores.half)
    return cores.centre + np.einsum("blij,blj->bli", cores.R, inner)


def _separated(
    cores: _Cores,
    inner: Float[np.ndarray, "b l 3"],
    p: Float[np.ndarray, "b l 3"],
    face: Float[np.ndarray, "b l 3"],
) -> Contacts:
    """Contacts from the core's points `inner`, those of the mesh closest to them, its normals."""
    outward = inner - p
    length = np.linalg.norm(outward, axis=-1)
    on_surface = length < 1e-9
    outside = (outward * face).sum(-1) >= 0.0
    direction = outward / np.where(on_surface, 1.0, length)[..., None]
    direction = np.where(outside[..., None], direction, -direction)
    return Contacts(
        gap=np.where(outside, length, -length) - cores.rounding,
        p=p,
        normal=np.where(on_surface[..., None], face, direction),
    )


def _closest(
    shape: ObjectShape, x: Float[np.ndarray, "b l 3"]
) -> tuple[Float[np.ndarray, "b l 3"], Float[np.ndarray, "b l 3"]]:
    """Points of the mesh closest to `x`, and the normals of the triangles they are on."""
    tree, triangle = _tree(shape)
    flat = x.reshape(-1, 3)
    near = triangle[np.asarray(tree.query(flat, k=_NEAREST)[1])]
    corners, normals = shape.mesh.triangles, shape.mesh.face_normals
    found = np.stack(
        [trimesh.triangles.closest_point(corners[near[:, k]], flat) for k in range(_NEAREST)], 1
    )
    distance = np.linalg.norm(flat[:, None] - found, axis=-1)
    # Of triangles that share the closest point, the one most face on tells inside from outside.
    facing = np.abs(((flat[:, None] - found) * normals[near]).sum(-1))
    tied = distance < distance.min(axis=1, keepdims=True) + 1e-9
    best = np.arange(len(flat)), np.where(tied, facing, -1.0).argmax(axis=1)
    return found[best].reshape(x.shape), normals[near[best]].reshape(x.shape)


@functools.lru_cache(maxsize=64)
def _tree(shape: ObjectShape) -> tuple[KDTree, Int[np.ndarray, " n"]]:
    """Dense samples of an object's surface, and the triangle of each."""
    samples, triangle = trimesh.sample.sample_surface(shape.mesh, _SAMPLES, seed=0)[:2]
    return KDTree(samples), np.asarray(triangle)


@functools.partial(jax.jit, static_argnums=0)
def _touching(hand: HandModel, phi: Float[Array, "b phi"], points: Float[Array, "n 3"]) -> _Cores:
    g = hand.geoms
    segment = np.stack([0 * g.size[:, 1], 0 * g.size[:, 1], g.size[:, 1]], axis=1)
    box = np.maximum(g.size - _CORE, 0.0)
    half = jnp.asarray(np.where(g.is_box[:, None], box, segment), jnp.float32)
    rounding = jnp.asarray(np.where(g.is_box, _CORE, g.size[:, 0]), jnp.float32)

    # One grasp at a time: points x primitives of a batch would not fit the cache.
    def one(single: Float[Array, " phi"]) -> _Cores:
        R, centre = collision.geom_poses(hand, kinematics.posed(hand, single))
        local = jnp.einsum("gji,ngj->gni", R, points[:, None] - centre)
        over = jnp.abs(local) - half[:, None]
        outer = jnp.sqrt((jnp.maximum(over, 0.0) ** 2).sum(-1))
        distance = outer + jnp.minimum(over.max(-1), 0.0) - rounding[:, None]
        nearest, least = distance.argmin(axis=1), distance.min(axis=1)
        chosen = [
            jnp.asarray(mine)[least[mine].argmin()]
            for mine in (np.flatnonzero(g.link == link) for link in links(hand))
        ]
        geom = jnp.stack(chosen)
        p = points[nearest[geom]]
        return _Cores(R[geom], centre[geom], half[geom], rounding[geom], p)

    return jax.lax.map(one, phi)
