"""Meshes from files that nobody has checked: guarded reading, then repair to a closed solid.

Every refusal is a `MeshError` that names the file, the value, the rule and what to do.
"""

from __future__ import annotations

import io
import re
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import trimesh
from jaxtyping import Float, Int

from realdex_jax.errors import MeshError
from realdex_jax.geometry import obj
from realdex_jax.geometry.cloud import MAX_EXTENT, MIN_EXTENT

SUFFIXES = (".glb", ".obj", ".off", ".ply", ".stl")
"""File kinds that can be read."""

MAX_BYTES = 256 * 2**20
"""Largest mesh file that is opened."""

MAX_COUNT = 1_000_000
"""Most vertices, and most triangles, of a mesh."""

MIN_THICKNESS = 1e-4
"""Smallest allowed shortest side of the bounding box, metres."""

_UNITS = {"mm": 1e-3, "cm": 1e-2, "inch": 0.0254}
_HAND_SIZED = (0.01, 0.6)
_FRAGMENT_SHARE = 0.01
"""A separate scrap with less than this share of the largest component's area is scan noise."""


@dataclass(frozen=True, eq=False)
class Repaired:
    """A checked mesh and what was done to it."""

    mesh: trimesh.Trimesh
    """The repaired mesh, same frame and unit as the input."""
    findings: tuple[str, ...]
    """What was found and changed, one readable sentence each; empty for a clean mesh."""
    closed: bool
    """Whether the mesh is watertight with outward normals."""


def load_mesh(path: str | Path, *, scale: float | None = None) -> trimesh.Trimesh:
    """Read a mesh file without trusting it.

    Textures, materials and other files that it names are not opened. Sizes that the header claims
    are compared with the file before anything large is allocated.

    Args:
        path: an .obj, .stl, .ply, .glb or .off file.
        scale: factor from the file's unit to metres; None means the file is in metres.

    Returns:
        The mesh in metres, as it lies in the file (not repaired).

    Raises:
        MeshError: the file is missing, too large, truncated, empty, not finite, flat, or of a size
            that no hand-held object has.
    """
    path = Path(path)
    vertices, faces = _read(path)
    return check_raw(vertices, faces, str(path), scale=scale)


def check_raw(
    vertices: Float[np.ndarray, "v 3"],
    faces: Int[np.ndarray, "f 3"],
    name: str,
    *,
    scale: float | None = None,
) -> trimesh.Trimesh:
    """Turn arrays into a mesh in metres if they describe something solid of hand-held size.

    Args:
        vertices: positions in the source's unit.
        faces: triangles.
        name: file or object name for messages.
        scale: factor to metres.

    Returns:
        An unprocessed mesh without unused vertices.

    Raises:
        MeshError: see `load_mesh`.
    """
    if scale is not None and not (np.isfinite(scale) and scale > 0):
        raise MeshError(f"{name}: scale={scale!r} must be a positive number (metres per file unit)")
    if len(faces) == 0:
        raise MeshError(f"{name}: no faces ({len(vertices)} vertices); need a closed triangle mesh")
    if faces.min() < 0 or faces.max() >= len(vertices):
        raise MeshError(
            f"{name}: faces refer to vertices {faces.min()}..{faces.max()}, but there are only "
            f"{len(vertices)}"
        )
    used, index = np.unique(faces, return_inverse=True)
    vertices, faces = np.asarray(vertices, np.float64)[used], index.reshape(-1, 3)
    bad = ~np.isfinite(vertices).all(axis=1)
    if bad.any():
        raise MeshError(
            f"{name}: {bad.sum()} of {len(vertices)} vertices are not finite (first: vertex "
            f"{used[bad.argmax()]}); every coordinate must be a finite number"
        )
    if len(vertices) < 4:
        raise MeshError(f"{name}: {len(vertices)} vertices; a solid needs at least 4")
    vertices = vertices * (1.0 if scale is None else scale)
    extents = np.ptp(vertices, axis=0)
    _check_size(extents, name, scale)
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    flat = np.linalg.svd(vertices - vertices.mean(axis=0), compute_uv=False)[-1]
    flat /= np.sqrt(len(vertices))
    if extents.min() < MIN_THICKNESS or flat < MIN_THICKNESS / 4:
        raise MeshError(
            f"{name}: flat, sides {_millimetres(extents)} mm; a solid must be at least "
            f"{MIN_THICKNESS * 1e3:g} mm thick in every direction"
        )
    return mesh


def check_and_repair(mesh: trimesh.Trimesh, name: str, *, require_closed: bool = True) -> Repaired:
    """Repair a mesh into a closed solid with outward normals.

    Steps, each only where needed: weld equal vertices, drop double and zero-area faces, drop
    scraps, make the winding consistent, close holes, unite overlapping components, turn inside out.

    Args:
        mesh: a mesh from `load_mesh` (metres).
        name: for messages.
        require_closed: refuse a mesh that stays open; if False it is returned as it is, for a
            caller that can rebuild the solid from convex pieces.

    Returns:
        The repaired mesh with the findings.

    Raises:
        MeshError: the mesh cannot be closed, or encloses (nearly) no volume.
    """
    findings: list[str] = []
    mesh = mesh.copy()
    before = len(mesh.vertices)
    mesh.merge_vertices(merge_tex=True, merge_norm=True)
    if len(mesh.vertices) < before:
        findings.append(f"welded {before - len(mesh.vertices)} of {before} vertices that coincide")
    keep = mesh.unique_faces() & mesh.nondegenerate_faces()
    if not keep.all():
        findings.append(f"dropped {np.sum(~keep)} double or zero-area faces")
        mesh.update_faces(keep)
        mesh.remove_unreferenced_vertices()
    if len(mesh.faces) == 0:
        raise MeshError(f"{name}: degenerate, every face has zero area")
    mesh = _without_scraps(mesh, findings)
    if not mesh.is_winding_consistent:
        findings.append("made the winding of the faces consistent")
        trimesh.repair.fix_winding(mesh)
    if not mesh.is_watertight:
        mesh = _close_holes(mesh, findings)
    if mesh.is_watertight:
        trimesh.repair.fix_normals(mesh, multibody=True)
        mesh = _united(mesh, findings)
    closed = bool(mesh.is_watertight and mesh.is_winding_consistent)
    if closed and mesh.volume < 0:
        findings.append("turned the faces outward")
        mesh.invert()
    if not closed:
        if require_closed:
            raise MeshError(
                f"{name}: not watertight and cannot be closed ({_open_edges(mesh)} open or shared "
                "edges); close it in a mesh editor, or let sim.meshes rebuild it from convex pieces"
            )
        findings.append(f"stays open at {_open_edges(mesh)} edges")
    elif mesh.volume < 1e-3 * mesh.bounding_box_oriented.volume:
        raise MeshError(
            f"{name}: encloses {mesh.volume * 1e6:.3g} cm3, less than 1/1000 of its box; a sheet "
            "without thickness is not a solid, give it walls"
        )
    return Repaired(mesh, tuple(findings), closed)


def _read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Raw vertices and triangles of a file after the checks that must come before parsing."""
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise MeshError(f"{path}: unknown kind {suffix!r}; known: {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise MeshError(f"{path}: no such file")
    size = path.stat().st_size
    if size == 0:
        raise MeshError(f"{path}: the file is empty")
    if size > MAX_BYTES:
        raise MeshError(
            f"{path}: {size / 2**20:.0f} MiB, at most {MAX_BYTES >> 20} MiB; simplify it first"
        )
    data = path.read_bytes()
    if suffix == ".obj":
        text = obj.parse(data.decode("utf-8", errors="replace"), str(path), MAX_COUNT)
        return text.vertices, text.faces
    claimed_vertices, claimed_faces = _claims(data, suffix, str(path))
    try:
        geometry = trimesh.load(io.BytesIO(data), file_type=suffix[1:], process=False)
        if isinstance(geometry, trimesh.Scene):
            geometry = geometry.to_mesh() if geometry.geometry else None
    except Exception as error:
        raise MeshError(f"{path}: cannot be read as {suffix[1:]}: {error}") from error
    if not isinstance(geometry, trimesh.Trimesh):
        raise MeshError(f"{path}: holds no triangles; need a closed triangle mesh")
    # No faces at all come as an array of another shape.
    vertices, faces = np.asarray(geometry.vertices), np.asarray(geometry.faces).reshape(-1, 3)
    if len(vertices) < claimed_vertices or len(faces) < claimed_faces:
        raise MeshError(
            f"{path}: truncated, its header promises {claimed_vertices} vertices and "
            f"{claimed_faces} faces, {len(vertices)} and {len(faces)} were found"
        )
    if max(len(vertices), len(faces)) > MAX_COUNT:
        raise MeshError(f"{path}: {len(faces)} faces, at most {MAX_COUNT}; simplify the mesh first")
    return vertices, faces


def _claims(data: bytes, suffix: str, name: str) -> tuple[int, int]:
    """Vertex and face count that the header promises, after comparing them with the file's size."""
    vertices = faces = 0
    if suffix == ".stl":
        if data[:5].lower() == b"solid" and b"facet" in data[:1000]:
            if b"endsolid" not in data[-1000:]:
                raise MeshError(f"{name}: truncated, the text STL has no 'endsolid'")
        elif len(data) < 84:
            raise MeshError(f"{name}: truncated, {len(data)} bytes; a binary STL has at least 84")
        else:
            (faces,) = struct.unpack_from("<I", data, 80)
            if 84 + 50 * faces > len(data):
                raise MeshError(
                    f"{name}: truncated, its header promises {faces} faces = {84 + 50 * faces} "
                    f"bytes, the file has {len(data)}"
                )
    elif suffix == ".ply":
        header = data[: data.find(b"end_header")].decode("ascii", errors="replace")
        counts = dict(re.findall(r"element\s+(vertex|face)\s+(\d{1,18})\b", header))
        vertices, faces = int(counts.get("vertex", 0)), int(counts.get("face", 0))
    elif suffix == ".off":
        words = re.sub(rb"#[^\n]*", b"", data[:4096]).split()
        counts_of = words[1:3] if words[:1] == [b"OFF"] else []
        if len(counts_of) == 2 and all(w.isdigit() and len(w) < 19 for w in counts_of):
            vertices, faces = map(int, counts_of)
    elif suffix == ".glb":
        promised = struct.unpack_from("<I", data, 8)[0] if len(data) >= 20 else 20
        if data[:4] != b"glTF" or promised > len(data):
            raise MeshError(
                f"{name}: truncated or not a GLB, its header promises {promised} bytes, the file "
                f"has {len(data)}"
            )
    if max(vertices, faces) > MAX_COUNT:
        raise MeshError(
            f"{name}: its header promises {vertices} vertices and {faces} faces, at most "
            f"{MAX_COUNT} each; simplify the mesh first"
        )
    return vertices, faces


def _check_size(extents: Float[np.ndarray, " 3"], name: str, scale: float | None) -> None:
    longest = float(extents.max())
    if MIN_EXTENT <= longest <= MAX_EXTENT:
        return
    if longest < np.finfo(np.float32).tiny:
        raise MeshError(f"{name}: all its vertices are in one place; a solid has an extent")
    scale = 1.0 if scale is None else scale
    fits = [
        f"scale={scale * factor:g} if it is in {unit}"
        for unit, factor in _UNITS.items()
        if _HAND_SIZED[0] <= longest * factor <= _HAND_SIZED[1]
    ]
    if not fits:
        fits = [f"for example scale={scale * 0.15 / longest:.3g} makes it 15 cm long"]
    raise MeshError(
        f"{name}: {longest:.4g} m long; objects must be {MIN_EXTENT * 100:g} cm to "
        f"{MAX_EXTENT:g} m. Wrong unit? Pass {' or '.join(fits)}"
    )


def _without_scraps(mesh: trimesh.Trimesh, findings: list[str]) -> trimesh.Trimesh:
    groups = trimesh.graph.connected_components(
        mesh.face_adjacency, nodes=np.arange(len(mesh.faces)), min_len=1
    )
    if len(groups) <= 1:
        return mesh
    areas = np.array([mesh.area_faces[group].sum() for group in groups])
    large = areas >= _FRAGMENT_SHARE * areas.max()
    if large.all():
        return mesh
    findings.append(
        f"dropped {np.sum(~large)} scraps of {areas[~large].sum() * 1e4:.2g} cm2 in all"
    )
    faces = np.concatenate([group for group, keep in zip(groups, large, strict=True) if keep])
    kept = trimesh.Trimesh(mesh.vertices, mesh.faces[np.sort(faces)], process=False)
    kept.remove_unreferenced_vertices()
    return kept


def _boundary_loops(mesh: trimesh.Trimesh) -> list[list[int]]:
    """Simple loops of directed boundary edges, against the winding of the faces beside them."""
    lone = trimesh.grouping.group_rows(mesh.edges_sorted, require_count=1)
    following: dict[int, list[int]] = {}
    for a, b in mesh.edges[lone].tolist():
        following.setdefault(b, []).append(a)
    loops = []
    while following:
        start = next(iter(following))
        loop, place = [start], {start: 0}
        while True:
            nexts = following.get(loop[-1])
            if not nexts:
                break  # a chain that does not return: left open
            step = nexts.pop()
            if not nexts:
                del following[loop[-1]]
            if step in place:
                loops.append(loop[place[step] :])
                for vertex in loop[place[step] + 1 :]:
                    del place[vertex]
                loop = loop[: place[step] + 1]
                if len(loop) == 1 and loop[0] not in following:
                    break
                continue
            place[step] = len(loop)
            loop.append(step)
    return loops


def _close_holes(mesh: trimesh.Trimesh, findings: list[str]) -> trimesh.Trimesh:
    """Cap every boundary loop by a fan around its centre."""
    loops = _boundary_loops(mesh)
    if not loops:
        return mesh
    vertices: list[np.ndarray] = [mesh.vertices]
    faces: list[np.ndarray] = [mesh.faces]
    count, widest = len(mesh.vertices), 0.0
    for loop in loops:
        rim = mesh.vertices[loop]
        widest = max(widest, float(np.ptp(rim, axis=0).max()))
        if len(loop) == 3:
            faces.append(np.array([loop]))
            continue
        vertices.append(rim.mean(axis=0, keepdims=True))
        faces.append(
            np.array([(a, b, count) for a, b in zip(loop, loop[1:] + loop[:1], strict=True)])
        )
        count += 1
    findings.append(f"closed {len(loops)} holes, the widest {widest * 1e3:.1f} mm")
    return trimesh.Trimesh(np.concatenate(vertices), np.concatenate(faces), process=False)


def _united(mesh: trimesh.Trimesh, findings: list[str]) -> trimesh.Trimesh:
    """Union of the closed components, so that no face lies inside the solid."""
    parts = mesh.split(only_watertight=False)
    if len(parts) <= 1 or any(part.volume <= 0 for part in parts):
        return mesh
    try:
        united = trimesh.boolean.union(list(parts), engine="manifold")
    except ValueError:  # a component that manifold does not accept as a solid
        return mesh
    findings.append(f"united {len(parts)} closed components")
    return united


def _open_edges(mesh: trimesh.Trimesh) -> int:
    pairs = trimesh.grouping.group_rows(mesh.edges_sorted, require_count=2)
    return len(mesh.edges_unique) - len(pairs)


def _millimetres(extents: Float[np.ndarray, " 3"]) -> str:
    return " x ".join(f"{1e3 * side:.3g}" for side in extents)
