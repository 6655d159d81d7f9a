"""Deterministic surface points of the hand, with link ids and outward normals."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from realdex_jax.errors import HandError
from realdex_jax.hand import collision, kinematics
from realdex_jax.hand.kinematics import Links
from realdex_jax.hand.load import HandModel

_CANDIDATES_PER_POINT = 8


@dataclasses.dataclass(frozen=True, eq=False)
class SurfacePoints:
    """Points fixed to links."""

    link: Int[np.ndarray, " m"]
    """Link index of each point."""
    p_link: Float[np.ndarray, "m 3"]
    """Position in the link frame, metres."""
    normal_link: Float[np.ndarray, "m 3"]
    """Outward unit normal in the link frame."""


@functools.cache
def points(hand: HandModel, count: int = 1024) -> SurfacePoints:
    """Spreads points evenly over the outer surface of the hand.

    Area-weighted candidates on every primitive, those buried in another primitive at the rest
    posture left out, thinned by farthest-point sampling. The same count always gives the same
    points.

    Args:
        hand: The hand.
        count: Number of points, at least 64.

    Raises:
        HandError: Fewer than 64 points, which could not cover all links.
    """
    if count < 64:
        raise HandError(f"{count} surface points asked; at least 64 are needed to cover every link")
    rng = np.random.default_rng(20240517)
    g = hand.geoms
    area = np.array([_area(g.size[i], bool(g.is_box[i])) for i in range(len(g.link))])
    share = np.ceil(count * _CANDIDATES_PER_POINT * area / area.sum()).astype(int)
    link, p, normal, geom = [], [], [], []
    for i, n in enumerate(share):
        sample = _sample_box if g.is_box[i] else _sample_capsule
        local, outward = sample(rng, g.size[i], n)
        p.append(local @ g.R_link_geom[i].T + g.p_link_geom[i])
        normal.append(outward @ g.R_link_geom[i].T)
        link.append(np.full(n, g.link[i]))
        geom.append(np.full(n, i))
    link, p, normal, geom = (np.concatenate(x) for x in (link, p, normal, geom))
    # Constants even when first asked for inside a traced function.
    with jax.ensure_compile_time_eval():
        links = kinematics.forward(hand, jnp.asarray(hand.joints.rest))
        p_hand = np.asarray(jnp.einsum("mij,mj->mi", links.R[link], p) + links.p[link])
        others = np.array(collision.signed_distance_per_geom(hand, links, jnp.asarray(p_hand)))
    others[np.arange(len(geom)), geom] = np.inf
    outside = np.flatnonzero(others.min(-1) > -1e-4)
    if len(outside) < count:
        raise HandError(f"only {len(outside)} outer candidates for {count} surface points")
    keep = outside[_farthest(p_hand[outside], count)]
    order = keep[np.argsort(link[keep], kind="stable")]
    return SurfacePoints(
        link=link[order].astype(np.int32),
        p_link=p[order].astype(np.float32),
        normal_link=normal[order].astype(np.float32),
    )


def pose_points(
    surface: SurfacePoints, links: Links
) -> tuple[Float[Array, "*b m 3"], Float[Array, "*b m 3"]]:
    """Positions (m) and outward normals of surface points in the frame of `links`."""
    p, normal = [], []
    # Points are sorted by link: one small product per link, no gather (its gradient would be a
    # scatter).
    for link in np.unique(surface.link):
        mine = surface.link == link
        R = links.R[..., link, :, :]
        p.append(
            jnp.einsum("...ij,mj->...mi", R, surface.p_link[mine]) + links.p[..., None, link, :]
        )
        normal.append(jnp.einsum("...ij,mj->...mi", R, surface.normal_link[mine]))
    return jnp.concatenate(p, axis=-2), jnp.concatenate(normal, axis=-2)


def _area(size: np.ndarray, is_box: bool) -> float:
    if is_box:
        x, y, z = size
        return float(8 * (x * y + y * z + z * x))
    radius, half = size[:2]
    return float(4 * np.pi * radius * (radius + half))


def _sample_capsule(
    rng: np.random.Generator, size: np.ndarray, n: int
) -> tuple[np.ndarray, np.ndarray]:
    radius, half = size[:2]
    direction = rng.normal(size=(n, 3))
    direction /= np.linalg.norm(direction, axis=-1, keepdims=True)
    side = rng.uniform(size=n) < half / (half + radius)
    around = direction[side] * [1, 1, 0]
    direction[side] = around / np.linalg.norm(around, axis=-1, keepdims=True)
    z = np.where(side, rng.uniform(-half, half, n), half * np.sign(direction[:, 2]))
    return radius * direction + z[:, None] * [0, 0, 1], direction


def _sample_box(
    rng: np.random.Generator, size: np.ndarray, n: int
) -> tuple[np.ndarray, np.ndarray]:
    face = np.array([size[1] * size[2], size[2] * size[0], size[0] * size[1]])
    axis = rng.choice(3, size=n, p=face / face.sum())
    p = rng.uniform(-size, size, (n, 3))
    normal = np.zeros((n, 3))
    sign = rng.choice([-1.0, 1.0], size=n)
    p[np.arange(n), axis] = sign * size[axis]
    normal[np.arange(n), axis] = sign
    return p, normal


def _farthest(p: np.ndarray, count: int) -> np.ndarray:
    """Indices of a farthest-point subset that starts at the first point."""
    chosen = np.zeros(count, int)
    distance = np.full(len(p), np.inf)
    for i in range(1, count):
        distance = np.minimum(distance, ((p - p[chosen[i - 1]]) ** 2).sum(-1))
        chosen[i] = distance.argmax()
    return chosen
