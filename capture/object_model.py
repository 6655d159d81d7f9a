"""An object as the tracker knows it: points spread over its surface, and which turns nobody can see."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from scipy.spatial import KDTree
from scipy.spatial.transform import Rotation

from capture import symmetry
from realdex_jax import pytree
from realdex_jax.errors import MeshError
from realdex_jax.geometry import shape as shapes

FACING = 0.1
"""Cosine between normal and direction to the camera from which on a model point can be seen."""
_TURNS = np.deg2rad([7.0, 31.0, 73.0, 137.0])
_SAME = 0.03
"""Share of the radius by which `_MOST` of the surface's points at most move off it when an object
is turned about an axis of symmetry. Facets of round things make it more than zero; and a nub that
is a hundredth of the surface does not tell a depth camera how a bottle is turned."""
_MOST = 0.99
_DENSE = 20_000
_LOW = 0.02
"""Mean square rise of the surface for a motion of one metre at the radius, above which a motion
need not be looked at."""


@pytree.dataclass
class Model:
    """Points spread evenly over an object's surface; coordinates are about `p_object_middle`."""

    p_middle: Float[Array, "m 3"]
    """Points, metres."""
    n_middle: Float[Array, "m 3"]
    """Outward unit normals."""
    p_object_middle: Float[Array, " 3"]
    """Middle of the object's box in the object frame, metres; rotations are about it."""
    radius: Float[Array, ""]
    """Distance of the farthest point from the middle, metres."""
    same: Float[Array, "6 6"]
    """Projection onto the small motions (moves, and turns times `radius`) that leave the surface in
    place, as turns about the axis of a bottle do. Facets tell of such a turn, and mean nothing."""


def make_model(
    vertices: Float[np.ndarray, "v 3"], faces: Int[np.ndarray, "f 3"], count: int = 1024
) -> Model:
    """Samples a mesh.

    Args:
        vertices: Corners, metres, object frame.
        faces: Triangles, counter-clockwise seen from outside.
        count: How many points.

    Raises:
        MeshError: The mesh has no face, or a corner is not finite.
    """
    if not len(faces) or not np.isfinite(vertices).all():
        raise MeshError(f"a model of {len(faces)} faces; it needs one, and finite corners")
    points, normals = shapes.sample(np.asarray(vertices, np.float64), faces, count, seed=0)
    middle = symmetry.middle(vertices)
    centred = points - middle
    radius = float(np.linalg.norm(centred, axis=1).max())
    axes = symmetry.find(vertices, faces).axes
    same = np.zeros((6, 6))
    same[3:, 3:] = axes.T @ axes
    return Model(
        jnp.asarray(centred, jnp.float32),
        jnp.asarray(normals, jnp.float32),
        jnp.asarray(middle, jnp.float32),
        jnp.float32(radius),
        jnp.asarray(_same(vertices, faces, middle, radius), jnp.float32),
    )


def _same(
    vertices: Float[np.ndarray, "v 3"],
    faces: Int[np.ndarray, "f 3"],
    middle: Float[np.ndarray, " 3"],
    radius: float,
) -> Float[np.ndarray, "6 6"]:
    """`Model.same`: of the turns that small motions suggest, those that large ones bear out."""
    points, normals = shapes.sample(np.asarray(vertices, np.float64), faces, _DENSE, seed=1)
    p = (points - middle) / radius
    moved = np.concatenate([normals, np.cross(p, normals)], axis=1)
    values, ways = np.linalg.eigh(moved.T @ moved / len(p))
    tree = KDTree(p)
    found = np.zeros((6, 6))
    for way in ways[:, values < _LOW].T:
        turn = np.linalg.norm(way[3:])
        if turn < 0.5:  # what slides along has no end, and objects have
            continue
        axis = way[3:] / turn
        # Of a screw's axis the point nearest to the middle.
        foot = np.cross(axis, way[:3]) / turn
        rise = [
            np.quantile(tree.query((p - foot) @ R.T + foot)[0], _MOST)
            for R in Rotation.from_rotvec(_TURNS[:, None] * axis).as_matrix()
        ]
        if max(rise) < _SAME:
            found += np.outer(way, way)
    return found
