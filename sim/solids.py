"""Labelled convex solids, the bricks of parametric objects, and their exact union."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import manifold3d
import numpy as np
from jaxtyping import Float
from scipy.spatial import ConvexHull

from realdex_jax.geometry.shape import Symmetry

Vector = Sequence[float]

_WELD = 1.0 + 1e-4
"""Growth of each solid before the union: faces shared only up to rounding would stay apart."""

_SLIVER = 2e-5
"""Details below this size (m), left by the growth, are removed from the union."""


@dataclass(frozen=True, eq=False)
class Piece:
    """One convex solid of an object."""

    label: str
    """Name of the part it belongs to."""
    vertices: Float[np.ndarray, "k 3"]
    """Corners, metres."""


def moved(
    pieces: Sequence[Piece], shift: Vector = (0, 0, 0), roll: Vector = (0, 0, 0)
) -> list[Piece]:
    """Rotate by extrinsic x, y, z angles (degrees), then shift (metres)."""
    x, y, z = np.deg2rad(roll)
    rx = np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]])
    ry = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    rz = np.array([[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]])
    rotation = rz @ ry @ rx
    return [Piece(piece.label, piece.vertices @ rotation.T + np.asarray(shift)) for piece in pieces]


def section(rx: float, ry: float, exponent: float, sides: int) -> Float[np.ndarray, "sides 2"]:
    """Corners of a superellipse: exponent 2 is an ellipse, larger is a rounder rectangle."""
    angle = 2 * np.pi * (np.arange(sides) + 0.5) / sides
    c, s = np.cos(angle), np.sin(angle)
    power = 2.0 / exponent
    return np.stack(
        [rx * np.sign(c) * np.abs(c) ** power, ry * np.sign(s) * np.abs(s) ** power], axis=1
    )


def column(
    label: str,
    profile: Sequence[tuple[float, float, float]],
    *,
    exponent: float = 2.0,
    sides: int = 24,
    center: Vector = (0, 0),
) -> list[Piece]:
    """Stack of frusta along z.

    Args:
        label: part name.
        profile: (half width x, half width y, z) from bottom to top, metres.
        exponent: of the superelliptic cross-section.
        sides: corners of the cross-section (a multiple of 4 keeps the bounding box centred).
        center: x, y of the axis.

    Returns:
        One convex piece per pair of neighbouring profile rows.
    """
    rings = [
        np.column_stack([section(rx, ry, exponent, sides) + np.asarray(center), np.full(sides, z)])
        for rx, ry, z in profile
    ]
    return [Piece(label, np.concatenate(pair)) for pair in pairwise(rings)]


def lathe(
    label: str, *profile: tuple[float, float], sides: int = 24, center: Vector = (0, 0)
) -> list[Piece]:
    """Solid of revolution about z from (radius, z) rows, bottom to top: a frustum per two rows."""
    return column(label, [(r, r, z) for r, z in profile], sides=sides, center=center)


def box(label: str, size: Vector, center: Vector = (0, 0, 0), bevel: float = 0.0) -> list[Piece]:
    """Box of full `size` with all edges cut by `bevel` (metres)."""
    half = np.asarray(size, float) / 2
    signs = np.array(np.meshgrid([-1, 1], [-1, 1], [-1, 1])).reshape(3, -1).T
    if bevel == 0.0:
        return [Piece(label, signs * half + np.asarray(center))]
    inset = [half - bevel * (1 - np.eye(3)[axis]) for axis in range(3)]
    return [Piece(label, np.concatenate([signs * h for h in inset]) + np.asarray(center))]


def ball(label: str, radii: Vector, center: Vector = (0, 0, 0), sides: int = 12) -> list[Piece]:
    """Ellipsoid as one piece: five rings of `sides` corners and two poles along z."""
    latitude = np.deg2rad([-62, -32, 0, 32, 62])
    angle = 2 * np.pi * (np.arange(sides) + 0.5) / sides
    rings = np.stack(
        [
            np.outer(np.cos(latitude), np.cos(angle)).ravel(),
            np.outer(np.cos(latitude), np.sin(angle)).ravel(),
            np.repeat(np.sin(latitude), sides),
        ],
        axis=1,
    )
    unit = np.concatenate([rings, [[0, 0, 1], [0, 0, -1]]])
    return [Piece(label, unit * np.asarray(radii) + np.asarray(center))]


def rod(
    label: str, a: Vector, b: Vector, ra: float, rb: float | None = None, sides: int = 12
) -> list[Piece]:
    """Thick segment from a to b, radius `ra` tapering to `rb`, with domes reaching past a and b."""
    rb = ra if rb is None else rb
    start, end = np.asarray(a, float), np.asarray(b, float)
    axis = (end - start) / np.linalg.norm(end - start)
    u = np.cross(axis, [0, 0, 1.0] if abs(axis[2]) < 0.9 else [1.0, 0, 0])
    u /= np.linalg.norm(u)
    angle = 2 * np.pi * (np.arange(sides) + 0.5) / sides
    ring = np.outer(np.cos(angle), u) + np.outer(np.sin(angle), np.cross(axis, u))
    domes = [
        point + sign * height * r * axis + width * r * ring
        for point, r, sign in ((start, ra, -1.0), (end, rb, 1.0))
        for height, width in ((0.0, 1.0), (0.65, 0.72))
    ]
    return [Piece(label, np.concatenate(domes))]


def tube(label: str, path: Sequence[Vector], radius: float, sides: int = 8) -> list[Piece]:
    """Bent rod through the points of `path`."""
    return [p for a, b in pairwise(path) for p in rod(label, a, b, radius, sides=sides)]


def arch(
    label: str,
    center: Vector,
    radii: tuple[float, float],
    radius: float,
    *,
    span: tuple[float, float] = (-90.0, 90.0),
    parts: int = 6,
    sides: int = 8,
) -> list[Piece]:
    """Tube along an elliptic arc in the xz plane: angle 0 is +x, 90 degrees is +z."""
    angle = np.deg2rad(np.linspace(*span, parts + 1))
    path = np.asarray(center) + np.stack(
        [radii[0] * np.cos(angle), np.zeros_like(angle), radii[1] * np.sin(angle)], axis=1
    )
    return tube(label, path.tolist(), radius, sides)


def wall(
    label: str, *profile: tuple[float, float], thickness: float, sides: int = 24
) -> list[Piece]:
    """Hollow solid of revolution from (outer radius, z) rows: a sector per side and two rows."""
    angle = 2 * np.pi * (np.arange(sides + 1) + 0.5) / sides
    angle[-1] = angle[0]  # the same number, so that the last sector closes exactly on the first
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    pieces = []
    for (r0, z0), (r1, z1) in pairwise(profile):
        for pair in pairwise(circle):
            corners = [
                (*(direction * r), z)
                for direction in pair
                for outer, z in ((r0, z0), (r1, z1))
                for r in (outer, outer - thickness)
            ]
            pieces.append(Piece(label, np.array(corners)))
    return pieces


def plate(
    label: str, outline: Sequence[tuple[float, float]], thickness: float, y: float = 0.0
) -> list[Piece]:
    """Convex polygon in the xz plane, `thickness` wide along y about `y`, with bevelled rims."""
    flat = np.asarray(outline, float)
    middle = flat.mean(axis=0)
    spread = np.linalg.norm(flat - middle, axis=1, keepdims=True)
    bevel = min(0.25 * thickness, 0.5 * float(spread.min()))
    inner = middle + (flat - middle) * (1 - bevel / spread)
    half = thickness / 2
    layers = [(inner, -half), (flat, -half + bevel), (flat, half - bevel), (inner, half)]
    corners = [np.column_stack([o[:, 0], np.full(len(o), y + d), o[:, 1]]) for o, d in layers]
    return [Piece(label, np.concatenate(corners))]


def hull(label: str, *groups: Sequence[Piece]) -> list[Piece]:
    """Convex hull of several pieces as one piece."""
    return [Piece(label, corners(np.concatenate([p.vertices for group in groups for p in group])))]


def corners(vertices: Float[np.ndarray, "k 3"]) -> Float[np.ndarray, "c 3"]:
    """The vertices that are corners of the convex hull, in their given order."""
    return vertices[np.sort(ConvexHull(vertices).vertices)]


def convex_faces(vertices: Float[np.ndarray, "k 3"]) -> np.ndarray:
    """Outward triangles (f, 3) of the convex hull whose corners are all of `vertices`."""
    qhull = ConvexHull(vertices)
    faces = qhull.simplices.copy()
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    inward = np.einsum("fi,fi->f", np.cross(b - a, c - a), qhull.equations[:, :3]) < 0
    faces[inward] = faces[inward][:, ::-1]
    return faces


def union(vertex_sets: Sequence[Float[np.ndarray, "_ 3"]]) -> tuple[np.ndarray, np.ndarray]:
    """Boundary of the union of convex solids.

    Args:
        vertex_sets: corners of each convex solid, metres.

    Returns:
        vertices (v, 3) float64 and faces (f, 3) int64 of a watertight mesh.
    """
    solids = []
    for vertices in vertex_sets:
        middle = vertices.mean(axis=0)
        grown = np.ascontiguousarray(middle + _WELD * (vertices - middle))
        mesh = manifold3d.Mesh64(grown, convex_faces(grown).astype(np.uint64))
        solids.append(manifold3d.Manifold(mesh))
    merged = (
        manifold3d.Manifold.batch_boolean(solids, manifold3d.OpType.Add)
        .simplify(_SLIVER)
        .to_mesh64()
    )
    # A copy: a view would keep manifold3d's own object alive, which complains at exit.
    vertices = np.array(merged.vert_properties, dtype=np.float64)[:, :3]
    return vertices, np.asarray(merged.tri_verts, dtype=np.int64)


@dataclass(frozen=True)
class Recipe:
    """How to build one parametric object."""

    name: str
    """Unique name."""
    category: str
    """Kind of object."""
    mass: float
    """Mass in kg of a real one, contents included."""
    build: Callable[[], list[Piece]]
    """Makes the pieces, standing on a table with z up, anywhere."""
    symmetry: Symmetry = "none"
    """"axial" when revolved about the z axis."""
