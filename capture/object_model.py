"""An object as the tracker knows it: points over its surface, and which turns nobody can see."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from capture import symmetry
from realdex_jax import pytree
from realdex_jax.errors import MeshError
from realdex_jax.geometry import shape as shapes

FACING = 0.1
"""Cosine between normal and direction to the camera from which on a model point can be seen."""


@pytree.dataclass
class Model:
    """Points spread evenly over an object's surface; coordinates are about `p_object_middle`."""

    p_middle: Float[Array, "m 3"]
    """Points, metres."""
    n_middle: Float[Array, "m 3"]
    """Outward unit normals."""
    p_object_middle: Float[Array, " 3"]
    """Middle of the surface in the object frame, metres; rotations are about it."""
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
    found = symmetry.find(vertices, faces)
    points, normals = shapes.sample(np.asarray(vertices, np.float64), faces, count, seed=0)
    centred = points - found.p_object_middle
    same = np.zeros((6, 6))
    same[3:, 3:] = found.axes.T @ found.axes
    return Model(
        jnp.asarray(centred, jnp.float32),
        jnp.asarray(normals, jnp.float32),
        jnp.asarray(found.p_object_middle, jnp.float32),
        jnp.float32(np.linalg.norm(centred, axis=1).max()),
        jnp.asarray(same, jnp.float32),
    )
