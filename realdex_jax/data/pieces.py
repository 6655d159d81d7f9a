"""Objects made of convex pieces, in OBJ text and out of it, and points on their outer surface.

A mesh of which every group is called `convex_piece_NNN` says so itself: it is read back vertex by
vertex, and physics sees the very pieces that its source had.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import trimesh
from jaxtyping import Float
from scipy.spatial import ConvexHull, QhullError

from realdex_jax.data import regular
from realdex_jax.errors import MeshError
from realdex_jax.geometry import obj
from realdex_jax.geometry.mesh import MAX_BYTES, MAX_COUNT
from realdex_jax.geometry.shape import MAX_PIECE_VERTICES, ObjectShape, sample

MASS = 0.1
"""kg, where a source gives none. Physics sets its own."""

GROUP = "convex_piece_"
_MARKED = re.compile(rf"{GROUP}\d{{3,}}")
_OUTSIDE = 1e-4
"""Metres above a face at which a point must be outside of every piece for the face to be outer."""


class Piece(NamedTuple):
    """A convex piece."""

    vertices: np.ndarray
    faces: np.ndarray


def read(path: Path) -> tuple[Piece, ...]:
    """Convex pieces of a decomposed mesh, the hull of each `o` or `g` group, in its unit.

    Raises:
        MeshError: The file is missing or unreadable, or a piece encloses no volume.
    """
    found = _parse(path)
    pieces = []
    for index, name in enumerate(found.groups):
        used = np.unique(found.faces[found.face_group == index])
        try:
            pieces.append(hull(found.vertices[used]))
        except (QhullError, ValueError, IndexError) as error:
            raise MeshError(f"{path}: piece {name or 'unnamed'!r} encloses no volume") from error
    if not pieces:
        raise MeshError(f"{path}: no pieces")
    return tuple(pieces)


def hull(vertices: Float[np.ndarray, "n 3"]) -> Piece:
    """Convex hull; beyond `MAX_PIECE_VERTICES` corners the most spread ones are kept."""
    corner = vertices[ConvexHull(vertices).vertices]
    if len(corner) > MAX_PIECE_VERTICES:
        corner = corner[_spread(corner, MAX_PIECE_VERTICES)]
    found = trimesh.convex.convex_hull(corner)
    return Piece(np.asarray(found.vertices), np.asarray(found.faces))


def shape(name: str, pieces: Sequence[Piece], scale: float, category: str) -> ObjectShape:
    """The object of these pieces, `scale` metres to their unit."""
    start = np.cumsum([0, *(len(piece.vertices) for piece in pieces)])
    faces = [piece.faces + at for piece, at in zip(pieces, start, strict=False)]
    return ObjectShape(
        name=name,
        vertices=np.concatenate([piece.vertices for piece in pieces]) * scale,
        faces=np.concatenate(faces),
        pieces=tuple(piece.vertices * scale for piece in pieces),
        piece_labels=("body",) * len(pieces),
        mass=MASS,
        category=category,
    )


def text(pieces: Sequence[Piece], scale: float) -> bytes:
    """OBJ text of pieces, `scale` metres to their unit; every bit of a coordinate is kept."""
    lines = []
    count = 1
    for index, piece in enumerate(pieces):
        lines.append(f"o {GROUP}{index:03d}")
        lines += [f"v {x!r} {y!r} {z!r}" for x, y, z in (piece.vertices * scale).tolist()]
        lines += [f"f {a} {b} {c}" for a, b, c in (piece.faces + count).tolist()]
        count += len(piece.vertices)
    return ("\n".join(lines) + "\n").encode()


def marked(found: obj.ObjText) -> bool:
    """Whether every group of a mesh is named as a convex piece."""
    return bool(found.groups) and all(_MARKED.fullmatch(name) for name in found.groups)


def read_shape(path: Path, name: str, category: str = "object") -> ObjectShape | None:
    """The object in a file of `text`; None if the mesh does not say that it is of convex pieces.

    Raises:
        MeshError: The file is unreadable, or a piece is none.
    """
    found = _parse(path)
    return shape_of(found, name, str(path), category) if marked(found) else None


def shape_of(found: obj.ObjText, name: str, where: str, category: str = "object") -> ObjectShape:
    """The object in a mesh of marked pieces, as it stands there.

    Raises:
        MeshError: A piece has too few corners or too many.
    """
    pieces = []
    for index, group in enumerate(found.groups):
        faces = found.faces[found.face_group == index]
        used = np.unique(faces)
        if not 4 <= len(used) <= MAX_PIECE_VERTICES:
            raise MeshError(
                f"{where}: {group} has {len(used)} corners; a piece has 4 to {MAX_PIECE_VERTICES}"
            )
        pieces.append(Piece(found.vertices[used], np.searchsorted(used, faces)))
    return shape(name, pieces, 1.0, category)


def for_pictures(
    name: str, mesh: bytes | None, points: Float[np.ndarray, "n 3"] | None
) -> ObjectShape:
    """An object to look at, not to simulate: its mesh with its hull for a piece, or a hull alone.

    Args:
        name: Its name.
        mesh: OBJ text.
        points: Points of its surface, where there is no mesh.

    Raises:
        MeshError: Neither is there, or it encloses no volume.
    """
    if mesh is None and points is None:
        raise MeshError(f"{name}: neither mesh nor points")
    try:
        if mesh is not None:
            found = obj.parse(mesh.decode(), name, MAX_COUNT)
            vertices, faces = found.vertices, found.faces
            if marked(found):
                return shape_of(found, name, name)
            corners = hull(vertices[np.unique(faces)]).vertices
        else:
            solid = hull(np.asarray(points, np.float64))
            vertices, faces = solid
            corners = vertices
    except (QhullError, ValueError, IndexError) as error:
        raise MeshError(f"{name}: encloses no volume: {str(error)[:80]}") from error
    return ObjectShape(name, vertices, faces, (corners,), ("body",), MASS, "object")


def outer_surface(
    of: ObjectShape, count: int, seed: int = 0
) -> tuple[Float[np.ndarray, "n 3"], Float[np.ndarray, "n 3"]]:
    """Points on the surface of the union of an object's pieces, and outward normals.

    Faces that lie inside another piece, where a solid was cut, get none.

    Args:
        of: The object.
        count: Number of points; fewer come back if most of its faces lie inside.
        seed: Seed of the sample.
    """
    points, normals = sample(of.vertices, of.faces, 4 * count, seed)
    above = points + _OUTSIDE * normals
    inside = np.zeros(len(above), bool)
    for corners, planes in zip(of.pieces, of.piece_planes, strict=True):
        near = ((above >= corners.min(axis=0)) & (above <= corners.max(axis=0))).all(axis=1)
        near = np.flatnonzero(near & ~inside)
        inside[near] = (above[near] @ planes[:, :3].T + planes[:, 3] < 0.0).all(axis=1)
    kept = np.flatnonzero(~inside)[:count]
    return points[kept], normals[kept]


def _parse(path: Path) -> obj.ObjText:
    if not path.is_file():
        raise MeshError(f"{path}: no such mesh")
    try:
        if regular.size(path) > MAX_BYTES:
            raise MeshError(f"{path}: larger than {MAX_BYTES >> 20} MiB")
        content = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise MeshError(f"{path}: not a readable OBJ file ({error})") from error
    found = obj.parse(content, str(path), MAX_COUNT)
    if not np.isfinite(found.vertices).all():
        raise MeshError(f"{path}: has vertices that are not finite")
    return found


def _spread(p: np.ndarray, count: int) -> np.ndarray:
    """Indices of `count` points, each the farthest from those before it."""
    chosen = [int(np.linalg.norm(p - p.mean(axis=0), axis=1).argmax())]
    nearest = np.linalg.norm(p - p[chosen[0]], axis=1)
    while len(chosen) < count:
        chosen.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, np.linalg.norm(p - p[chosen[-1]], axis=1))
    return np.array(chosen)
