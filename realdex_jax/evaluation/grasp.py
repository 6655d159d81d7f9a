"""Metrics of a grasp that need geometry but no physics.

Definitions follow DexGraspBench where it has one, so that numbers can be set side by side.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from realdex_jax.errors import RealdexError
from realdex_jax.hand import collision, kinematics
from realdex_jax.hand.load import HandModel

CONTACT = 0.002
"""A link counts as touching if the object's surface comes this near to it, metres."""
REACH = 0.010
"""A finger farther from the object than this counts as this far, metres."""
TOUCHED = 0.004
"""A surface point counts as touched if the hand is this near, metres."""
_PAD = 16
"""Numbers of grasps are padded to a multiple of this, so that few sizes are ever compiled."""


class MetricError(RealdexError):
    """Grasps or points from which a metric cannot be computed."""


def link_distance(
    hand: HandModel, phi: Float[Array | np.ndarray, "b phi"], points: Float[np.ndarray, "n 3"]
) -> Float[np.ndarray, "b l"]:
    """Smallest signed distance (m) from each link to the object's surface points.

    Args:
        hand: The hand.
        phi: Poses in the object frame.
        points: Points on the object's surface, metres, object frame. Between points 3 mm apart
            the distance to a fingertip is at most 0.2 mm too large.

    Raises:
        MetricError: No points, or values that are not finite.
    """
    return nearest(hand, phi, points)[0]


def nearest(
    hand: HandModel, phi: Float[Array | np.ndarray, "b phi"], points: Float[np.ndarray, "n 3"]
) -> tuple[Float[np.ndarray, "b l"], Int[np.ndarray, "b l"]]:
    """`link_distance`, and the index of the point that is nearest to each link."""
    return _map(_nearest, hand, phi, points)


def contact_number(
    hand: HandModel, distance: Float[np.ndarray, "b l"], threshold: float = CONTACT
) -> Int[np.ndarray, " b"]:
    """Number of links whose surface is within `threshold` (m) of the object, from `link_distance`.

    Links without primitives (the knuckles) never count.
    """
    carries = np.isin(np.arange(len(hand.parents)), hand.geoms.link)
    return (np.abs(distance) < threshold)[:, carries].sum(axis=1)


def contact_distance_mm(
    hand: HandModel, distance: Float[np.ndarray, "b l"], reach: float = REACH
) -> Float[np.ndarray, " b"]:
    """Mean over the digits of the gap to the object, from `link_distance`, millimetres.

    A finger inside the object has gap zero; a gap is capped at `reach` (m).
    """
    gap = [distance[:, list(links)].min(axis=1) for links in fingers(hand)]
    return 1e3 * np.clip(np.stack(gap, axis=1), 0.0, reach).mean(axis=1)


def touched(
    hand: HandModel,
    phi: Float[Array | np.ndarray, "b phi"],
    points: Float[np.ndarray, "n 3"],
    threshold: float = TOUCHED,
) -> Bool[np.ndarray, "b n"]:
    """Which surface points (object frame, m) lie within `threshold` (m) of the hand."""
    return _map(_distance, hand, phi, points) < threshold


def functional_share(
    touched: Bool[np.ndarray, "b n"], functional: Bool[np.ndarray, " n"]
) -> Float[np.ndarray, " b"]:
    """Share of the touched surface that belongs to functional parts; 0 where nothing is touched."""
    total = touched.sum(axis=1)
    return (touched & functional).sum(axis=1) / np.maximum(total, 1)


def fingers(hand: HandModel) -> tuple[tuple[int, ...], ...]:
    """Links with primitives of each digit, in their order; palm and metacarpal left out."""
    carries = set(hand.geoms.link.tolist())
    groups = []
    for tip in hand.tip_link:
        chain, link = [], tip
        while link > 0 and "metacarpal" not in hand.link_names[link]:
            chain.append(link)
            link = hand.parents[link]
        groups.append(tuple(sorted(set(chain) & carries)))
    return tuple(groups)


def _map(
    function: Callable[[HandModel, Array, Array], Any],
    hand: HandModel,
    phi: Array | np.ndarray,
    points: np.ndarray,
) -> Any:
    """What a function gives for each grasp, as NumPy arrays in the function's own structure."""
    if not len(points):
        raise MetricError("no surface points; a metric needs at least one")
    if not (np.isfinite(points).all() and np.isfinite(np.asarray(phi)).all()):
        raise MetricError("poses and points must be finite")
    count = len(phi)
    padded = np.zeros((-(-count // _PAD) * _PAD, np.shape(phi)[1]), np.float32)
    padded[:count] = phi
    found = function(hand, jnp.asarray(padded), jnp.asarray(points, jnp.float32))
    return jax.tree.map(lambda x: np.asarray(x)[:count], found)


@functools.partial(jax.jit, static_argnums=0)
def _nearest(
    hand: HandModel, phi: Float[Array, "b phi"], points: Float[Array, "n 3"]
) -> tuple[Float[Array, "b l"], Int[Array, "b l"]]:
    # One grasp at a time: points x links of a batch would not fit the cache.
    def one(single: Float[Array, " phi"]) -> tuple[Array, Array]:
        links = kinematics.posed(hand, single)
        distance = collision.signed_distance_per_link(hand, links, points)
        return distance.min(axis=0), distance.argmin(axis=0)

    return jax.lax.map(one, phi)


@functools.partial(jax.jit, static_argnums=0)
def _distance(
    hand: HandModel, phi: Float[Array, "b phi"], points: Float[Array, "n 3"]
) -> Float[Array, "b n"]:
    def one(single: Float[Array, " phi"]) -> Float[Array, " n"]:
        return collision.signed_distance(hand, kinematics.posed(hand, single), points)

    return jax.lax.map(one, phi)
