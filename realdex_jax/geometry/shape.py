"""The object as every package sees it: watertight mesh, convex pieces, part labels, mass."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
import trimesh
from jaxtyping import Float, Int
from scipy.spatial import ConvexHull

from realdex_jax.errors import MeshError

Symmetry = Literal["none", "axial"]

MAX_PIECE_VERTICES = 64
"""Most vertices of one convex piece; MJX's convex routines are sized for this."""

_LABEL_TIE = 1e-6
"""Pieces this close (m) to the nearest one count as equally near; the first names the point."""


class SurfaceSample(NamedTuple):
    """Points on an object's surface, in the object frame."""

    points: Float[np.ndarray, "n 3"]
    """Positions, metres, float64."""
    normals: Float[np.ndarray, "n 3"]
    """Outward unit normals of the faces the points lie on."""
    labels: Int[np.ndarray, " n"]
    """Index of each point's part in `ObjectShape.labels`."""


@dataclass(frozen=True, eq=False)
class ObjectShape:
    """A rigid object. Frozen and compared by identity, so it can be a cache key.

    Arrays are read-only by convention. `sim.objects` and `sim.meshes` make shapes.
    """

    name: str
    """Unique name, used in file names and tables."""
    vertices: Float[np.ndarray, "v 3"]
    """Vertices of the watertight mesh, metres, object frame."""
    faces: Int[np.ndarray, "f 3"]
    """Triangles, counter-clockwise seen from outside."""
    pieces: tuple[Float[np.ndarray, "_ 3"], ...]
    """Corners of each convex piece, at most `MAX_PIECE_VERTICES`; they cover the solid."""
    piece_labels: tuple[str, ...]
    """Part name of each piece ("body", "handle", "cap", ...)."""
    mass: float
    """Mass, kg."""
    category: str
    """Kind of object ("bottle", "toy", "scan", ...)."""
    symmetry: Symmetry = "none"
    """"axial": a solid of revolution about z through the origin; else "none"."""

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """The distinct part names, sorted."""
        return tuple(sorted(set(self.piece_labels)))

    @cached_property
    def mesh(self) -> trimesh.Trimesh:
        """The mesh as a `trimesh.Trimesh` (unprocessed: vertex and face order are kept)."""
        return trimesh.Trimesh(self.vertices, self.faces, process=False)

    @cached_property
    def bounds(self) -> Float[np.ndarray, "2 3"]:
        """Lowest and highest corner of the axis-aligned box, metres."""
        return np.stack([self.vertices.min(axis=0), self.vertices.max(axis=0)])

    @property
    def volume(self) -> float:
        """Volume of the solid, m^3."""
        return float(self.mesh.volume)

    @cached_property
    def center_of_mass(self) -> Float[np.ndarray, " 3"]:
        """Centre of mass of the uniform solid, metres, object frame."""
        return np.asarray(self.mesh.center_mass, dtype=np.float64)

    @cached_property
    def piece_planes(self) -> tuple[Float[np.ndarray, "_ 4"], ...]:
        """Planes of each piece: outward normal and offset d with normal . x + d <= 0 inside."""
        return tuple(ConvexHull(piece).equations for piece in self.pieces)

    def piece_distance(self, points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n pieces"]:
        """Highest plane value of every piece at every point, metres.

        Negative and exact inside a piece, zero on its surface, outside at most the distance.
        """
        columns = [
            (points @ planes[:, :3].T + planes[:, 3]).max(axis=1) for planes in self.piece_planes
        ]
        return np.stack(columns, axis=1)

    def contains(self, points: Float[np.ndarray, "n 3"]) -> np.ndarray:
        """Whether each point (object frame) is inside the union of the pieces; (n,) bool."""
        return self.piece_distance(points).min(axis=1) <= 0.0

    def label_points(self, points: Float[np.ndarray, "n 3"]) -> Int[np.ndarray, " n"]:
        """Index into `labels` of the piece whose surface is nearest; points in the object frame."""
        distance = np.abs(self.piece_distance(points))
        near = distance <= distance.min(axis=1, keepdims=True) + _LABEL_TIE
        piece = near.argmax(axis=1)
        index = np.array([self.labels.index(label) for label in self.piece_labels])
        return index[piece]

    def scaled(self, factor: float, name: str) -> ObjectShape:
        """The same object in another size, grown about the origin of its frame.

        It is of the same stuff: the mass grows with the cube of the factor. Labels, category and
        symmetry stay; so do normals, and the surface samples of a seed are the scaled ones.

        Args:
            factor: Size over size, positive.
            name: Name of the new object; two objects need two names.

        Raises:
            MeshError: The factor is not a positive number.
        """
        if not 0.0 < factor < np.inf:
            raise MeshError(f"{self.name} cannot be scaled by {factor}; the factor is positive")
        return replace(
            self,
            name=name,
            vertices=factor * self.vertices,
            pieces=tuple(factor * piece for piece in self.pieces),
            mass=factor**3 * self.mass,
        )

    def surface(self, count: int, seed: int = 0) -> SurfaceSample:
        """Sample the surface evenly by area; the same arguments always give the same points.

        Samples are stratified over the area (one per equal share), then shuffled, so that any
        prefix is a fair sample too.

        Args:
            count: number of points.
            seed: seed of the sample.

        Returns:
            `SurfaceSample` of `count` points.
        """
        points, normals = sample(self.vertices, self.faces, count, seed)
        return SurfaceSample(points, normals, self.label_points(points))


def sample(
    vertices: Float[np.ndarray, "v 3"], faces: Int[np.ndarray, "f 3"], count: int, seed: int = 0
) -> tuple[Float[np.ndarray, "n 3"], Float[np.ndarray, "n 3"]]:
    """Points spread evenly by area over triangles, and the normals there.

    Args:
        vertices: Corners.
        faces: Triangles, counter-clockwise seen from outside; not all without area.
        count: Number of points.
        seed: Seed of the sample; the same one gives the same points.
    """
    rng = np.random.default_rng(seed)
    corners = vertices[faces]
    cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    twice_area = np.linalg.norm(cross, axis=1)
    cumulative = np.cumsum(twice_area)
    share = (np.arange(count) + rng.random(count)) / count
    face = np.searchsorted(cumulative, share * cumulative[-1], side="right")
    face = rng.permutation(np.minimum(face, len(faces) - 1))
    # The square root makes barycentric coordinates uniform over the triangle.
    root, along = np.sqrt(rng.random(count))[:, None], rng.random(count)[:, None]
    a, b, c = corners[face, 0], corners[face, 1], corners[face, 2]
    points = (1 - root) * a + root * ((1 - along) * b + along * c)
    normals = cross[face] / twice_area[face, None]
    return points, normals
