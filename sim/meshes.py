"""User meshes as objects: read, repaired, split into convex pieces, cached."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import manifold3d
import numpy as np
import trimesh
from jaxtyping import Float
from scipy.spatial import ConvexHull, QhullError

from realdex_jax import cache as user_cache
from realdex_jax.errors import DecompositionError, MeshError
from realdex_jax.geometry import mesh as meshes
from realdex_jax.geometry import obj
from realdex_jax.geometry.shape import MAX_PIECE_VERTICES, ObjectShape
from sim.decomposition import Decomposition, decompose
from sim.solids import corners, union

DENSITY = 500.0
"""Mean density (kg/m^3) of a household object, used where no mass is given."""

MASS_RANGE = (0.02, 1.0)
"""A guessed mass is kept in this range, kg."""

_CACHE_FORMAT = 2
_GENERIC_STEMS = ("textured", "textured_simple", "nontextured", "decomposed", "mesh", "model")
_DETAIL = 5e-4
"""Surface detail (m) that the decomposition does not need; without it it is much faster."""

_ROUTINE = ("welded ", "moved by ", "mass guessed ")
"""How findings begin that say nothing about the solid; see `Imported.notable`."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Imported:
    """A user mesh that became an object."""

    shape: ObjectShape
    """The object."""
    findings: tuple[str, ...]
    """What was found, repaired, moved or guessed, one sentence each."""
    offset: Float[np.ndarray, " 3"]
    """Added to the file's (scaled) coordinates to get object-frame coordinates, metres."""
    fallback: bool = False
    """Its decomposition failed and one convex hull stands for it; never kept in the cache."""

    @property
    def notable(self) -> tuple[str, ...]:
        """Findings that change the solid: holes closed, parts dropped, a hull in its place."""
        return tuple(text for text in self.findings if not text.startswith(_ROUTINE))


@dataclass(frozen=True, eq=False)
class Folder:
    """The objects of a folder of meshes."""

    shapes: tuple[ObjectShape, ...]
    """One per usable file, sorted by path."""
    refused: tuple[tuple[Path, str], ...]
    """Files that cannot be used, each with the reason."""
    findings: tuple[tuple[str, str], ...] = ()
    """Name of an object and a notable finding about it, see `Imported.notable`."""


def shape_from_mesh(
    source: str | Path | trimesh.Trimesh,
    *,
    name: str | None = None,
    scale: float | None = None,
    mass: float | None = None,
    cache: str | Path | None = None,
    recentre: bool = True,
    settings: Decomposition = Decomposition(),  # noqa: B008 - a frozen value
) -> ObjectShape:
    """The object alone; its findings go to the log. See `import_mesh`."""
    imported = import_mesh(
        source,
        name=name,
        scale=scale,
        mass=mass,
        cache=cache,
        recentre=recentre,
        settings=settings,
    )
    _report(imported)
    return imported.shape


def _report(imported: Imported) -> None:
    for finding in imported.findings:
        level = logging.WARNING if finding.startswith("WARNING") else logging.INFO
        _log.log(level, "%s: %s", imported.shape.name, finding)


def import_mesh(
    source: str | Path | trimesh.Trimesh,
    *,
    name: str | None = None,
    scale: float | None = None,
    mass: float | None = None,
    cache: str | Path | None = None,
    recentre: bool = True,
    settings: Decomposition = Decomposition(),  # noqa: B008 - a frozen value
) -> Imported:
    """Make an object from any mesh.

    The axes stay the file's. A mesh that cannot be closed is replaced by the union of its
    convex pieces; if the decomposition fails, the object is its convex hull, and the next import
    tries again. The findings say so.

    Args:
        source: a file of one of `realdex_jax.geometry.mesh.SUFFIXES`, or a mesh in memory.
        name: object name; None takes the file's, or its folder's where the file's says nothing.
        scale: factor from the source's unit to metres; None means metres.
        mass: kg; None guesses from the volume by `DENSITY`.
        cache: folder of finished imports; None is the user's cache folder.
        recentre: move the centre of the bounding box to the origin.
        settings: of the convex decomposition.

    Returns:
        The object with what was done to it.

    Raises:
        MeshError: the mesh cannot be used; see `realdex_jax.geometry.mesh`.
    """
    if mass is not None and not (np.isfinite(mass) and mass > 0):
        raise MeshError(f"mass={mass!r} kg must be a positive number")
    if isinstance(source, trimesh.Trimesh):
        name = name or "mesh"
        raw = meshes.check_raw(source.vertices, source.faces, name, scale=scale)
        content = raw.vertices.tobytes() + raw.faces.tobytes()
    else:
        source = Path(source)
        name = name or name_of(source)
        raw = None
        content = source.read_bytes() if source.is_file() else b""
    entry = _cache_entry(content, cache, scale, recentre, settings)
    found = _load(entry)
    if found is None:
        if raw is None:
            assert not isinstance(source, trimesh.Trimesh)
            raw = meshes.load_mesh(source, scale=scale)
        found = _convert(raw, name, recentre, settings)
        if not found.fallback:  # a time-out on a busy machine must not decide for ever
            _save(entry, found)
    guessed = float(np.clip(DENSITY * found.shape.volume, *MASS_RANGE))
    shape = replace(found.shape, name=name, mass=guessed if mass is None else float(mass))
    findings = found.findings
    if mass is None:
        findings += (f"mass guessed as {guessed:.3f} kg ({DENSITY:g} kg/m3)",)
    return replace(found, shape=shape, findings=findings)


def shapes_from_folder(
    folder: str | Path,
    *,
    scale: float | None = None,
    cache: str | Path | None = None,
    recentre: bool = True,
    limit: int | None = None,
    settings: Decomposition = Decomposition(),  # noqa: B008 - a frozen value
) -> Folder:
    """Import every mesh file in a folder and the folders below it.

    Args:
        folder: where to look, or a single mesh file.
        scale: factor to metres, the same for all files.
        cache: see `import_mesh`.
        recentre: see `import_mesh`.
        limit: stop after so many usable meshes.
        settings: of the convex decomposition.

    Returns:
        The objects, what was found out about them, and the refused files with their reasons.

    Raises:
        MeshError: there is no such folder, no mesh file in it, or none that can be used.
    """
    folder = Path(folder)
    if folder.is_file():
        files, folder = [folder], folder.parent
    elif folder.is_dir():
        files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in meshes.SUFFIXES)
    else:
        raise MeshError(f"{folder}: no such folder or file")
    if not files:
        raise MeshError(f"{folder}: no mesh files; known kinds: {', '.join(meshes.SUFFIXES)}")
    shapes: list[ObjectShape] = []
    refused: list[tuple[Path, str]] = []
    findings: list[tuple[str, str]] = []
    taken: set[str] = set()
    for index, path in enumerate(files):
        if len(shapes) == limit:
            findings.append((folder.name, f"{len(files) - index} more files not looked at"))
            break
        name = name_of(path)
        if name in taken:
            name = "_".join(path.relative_to(folder).with_suffix("").parts)
        try:
            imported = import_mesh(
                path, name=name, scale=scale, cache=cache, recentre=recentre, settings=settings
            )
        except MeshError as error:
            refused.append((path, str(error)))
            continue
        _report(imported)
        shapes.append(imported.shape)
        findings += [(name, finding) for finding in imported.notable]
        taken.add(name)
    if not shapes:
        raise MeshError(
            f"{folder}: none of {len(files)} meshes can be used; first: {refused[0][1]}"
        )
    return Folder(tuple(shapes), tuple(refused), tuple(findings))


def pieces_from_obj(path: str | Path) -> tuple[Float[np.ndarray, "_ 3"], ...]:
    """Corners of the convex pieces of a decomposed OBJ: its `o`/`g` sections or its components.

    Args:
        path: the OBJ file; its unit is kept.

    Returns:
        One array of corners per piece.

    Raises:
        MeshError: the file cannot be read or has no faces.
    """
    path = Path(path)
    if not path.is_file():
        raise MeshError(f"{path}: no such file")
    if path.stat().st_size > meshes.MAX_BYTES:
        raise MeshError(f"{path}: larger than {meshes.MAX_BYTES >> 20} MiB")
    text = obj.parse(path.read_text(errors="replace"), str(path), meshes.MAX_COUNT)
    if len(text.faces) == 0:
        raise MeshError(f"{path}: no faces")
    if len(text.groups) > 1:
        parts = [text.faces[text.face_group == index] for index in range(len(text.groups))]
    else:
        whole = trimesh.Trimesh(text.vertices, text.faces, process=False)
        parts = [
            text.faces[group]
            for group in trimesh.graph.connected_components(
                whole.face_adjacency, nodes=np.arange(len(text.faces)), min_len=1
            )
        ]
    return tuple(text.vertices[np.unique(part)] for part in parts)


def shape_from_pieces(
    pieces: Sequence[Float[np.ndarray, "_ 3"]],
    *,
    name: str,
    scale: float = 1.0,
    mass: float | None = None,
    labels: Sequence[str] | None = None,
    category: str = "mesh",
) -> ObjectShape:
    """Make an object from convex pieces; the frame stays that of the pieces.

    Args:
        pieces: corners of each piece; hulls are taken, flat pieces are left out.
        name: object name.
        scale: factor from the pieces' unit to metres.
        mass: kg; None guesses from the volume by `DENSITY`.
        labels: part name of each piece; None calls all "body".
        category: kind of object.

    Returns:
        The object; its mesh is the union of the pieces.

    Raises:
        MeshError: no piece is solid, a corner is not finite, or the size is not that of an object.
    """
    given = ["body"] * len(pieces) if labels is None else list(labels)
    if len(given) != len(pieces):
        raise MeshError(f"{name}: {len(given)} labels for {len(pieces)} pieces; need one each")
    solid: list[np.ndarray] = []
    kept: list[str] = []
    for index, (piece, label) in enumerate(zip(pieces, given, strict=True)):
        scaled = np.asarray(piece, dtype=np.float64) * scale
        if not np.isfinite(scaled).all():
            raise MeshError(f"{name}: piece {index} has corners that are not finite")
        try:
            solid.append(_few_corners(corners(scaled)))
            kept.append(label)
        except (QhullError, ValueError):
            _log.warning("%s: left out piece %d of %d, it is flat", name, index, len(pieces))
    if not solid:
        raise MeshError(f"{name}: none of {len(pieces)} pieces is solid")
    vertices, faces = union(solid)
    meshes.check_raw(vertices, faces, name)
    shape = ObjectShape(name, vertices, faces, tuple(solid), tuple(kept), 0.1, category)
    guessed = float(np.clip(DENSITY * shape.volume, *MASS_RANGE))
    return replace(shape, mass=guessed if mass is None else float(mass))


def _convert(raw: trimesh.Trimesh, name: str, recentre: bool, settings: Decomposition) -> Imported:
    """Repair, move and decompose a checked mesh; the mass is filled in by the caller."""
    repaired = meshes.check_and_repair(raw, name, require_closed=False)
    findings = list(repaired.findings)
    vertices, faces = np.array(repaired.mesh.vertices), np.array(repaired.mesh.faces)
    offset = -vertices.min(axis=0) / 2 - vertices.max(axis=0) / 2 if recentre else np.zeros(3)
    vertices += offset
    if recentre:
        findings.append(f"moved by {np.round(offset * 1e3, 1).tolist()} mm to centre its box")
    fallback = False
    try:
        light = _simplified(vertices, faces) if repaired.closed else (vertices, faces)
        pieces = decompose(*light, settings, closed=repaired.closed)
        pieces = tuple(_few_corners(corners(piece)) for piece in pieces)
    except (DecompositionError, QhullError) as error:
        findings.append(f"WARNING: one convex hull stands for the whole object ({error})")
        pieces = (_few_corners(corners(vertices)),)
        fallback = True
    if not repaired.closed:
        findings.append("WARNING: cannot be closed; the union of its convex pieces replaces it")
        vertices, faces = union(pieces)
    shape = ObjectShape(name, vertices, faces, pieces, ("body",) * len(pieces), 0.1, "mesh")
    if not shape.mesh.is_watertight:
        raise MeshError(f"{name}: not watertight, and the union of its convex pieces is not either")
    return Imported(shape, tuple(findings), offset, fallback)


def _simplified(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The closed mesh without detail below `_DETAIL`, unchanged if it is no clean manifold."""
    solid = manifold3d.Manifold(
        manifold3d.Mesh64(np.ascontiguousarray(vertices), faces.astype(np.uint64))
    )
    detail = min(_DETAIL, 0.005 * float(np.ptp(vertices, axis=0).max()))
    light = solid.simplify(detail).to_mesh64()
    if solid.status() != manifold3d.Error.NoError or len(light.tri_verts) < 4:
        return vertices, faces
    # Copies: views would keep manifold3d's own object alive, which complains at exit.
    return np.array(light.vert_properties)[:, :3], np.asarray(light.tri_verts).astype(np.int64)


def _few_corners(piece: Float[np.ndarray, "k 3"]) -> Float[np.ndarray, "c 3"]:
    """At most `MAX_PIECE_VERTICES` corners, each next the farthest outside the hull so far."""
    if len(piece) <= MAX_PIECE_VERTICES:
        return piece
    chosen = list(dict.fromkeys([*piece.argmin(axis=0).tolist(), *piece.argmax(axis=0).tolist()]))
    spread = np.linalg.norm(piece[:, None] - piece[chosen], axis=2).min(axis=1)
    while len(chosen) < 6:  # Qhull needs a simplex that is not flat to start from
        chosen.append(int(spread.argmax()))
        spread = np.minimum(spread, np.linalg.norm(piece - piece[chosen[-1]], axis=1))
    while len(chosen) < MAX_PIECE_VERTICES:
        planes = ConvexHull(piece[chosen]).equations
        outside = (piece @ planes[:, :3].T + planes[:, 3]).max(axis=1)
        outside[chosen] = -np.inf
        chosen.append(int(outside.argmax()))
    return corners(piece[chosen])


def name_of(path: Path) -> str:
    """Name of the object in a mesh file: the file's, or its folder's where that says nothing."""
    parent = path.resolve().parent.name
    return parent if path.stem.lower() in _GENERIC_STEMS and parent else path.stem


def _cache_entry(
    content: bytes,
    cache: str | Path | None,
    scale: float | None,
    recentre: bool,
    settings: Decomposition,
) -> Path:
    """File of the cache that holds this content under these settings."""
    place = user_cache.folder("shapes") if cache is None else Path(cache)
    task = {**asdict(settings), "scale": scale, "recentre": recentre, "format": _CACHE_FORMAT}
    digest = hashlib.sha256(content + json.dumps(task, sort_keys=True).encode()).hexdigest()
    return place / f"{digest[:32]}.npz"


def _save(entry: Path, imported: Imported) -> None:
    """Write a cache file whole or not at all; a full disk costs only the speed of the next time."""
    shape = imported.shape
    temporary = None
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=entry.parent, suffix=".tmp", delete=False) as file:
            temporary = Path(file.name)
            np.savez_compressed(
                file,
                vertices=shape.vertices,
                faces=shape.faces,
                corners=np.concatenate(shape.pieces),
                sizes=np.array([len(piece) for piece in shape.pieces]),
                offset=imported.offset,
                findings=np.array(json.dumps(imported.findings)),
            )
        os.replace(temporary, entry)
    except OSError as error:
        _log.warning("cannot keep %s in the cache %s: %s", shape.name, entry.parent, error)
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _load(entry: Path) -> Imported | None:
    """A cache file's content, or None if it is absent or damaged (then it is made again)."""
    try:
        # Opened here, because np.load leaves a damaged file open.
        with entry.open("rb") as file, np.load(file, allow_pickle=False) as saved:
            corner, sizes = saved["corners"], saved["sizes"]
            pieces = tuple(np.split(corner, np.cumsum(sizes)[:-1]))
            findings = tuple(json.loads(str(saved["findings"])))
            vertices, faces, offset = saved["vertices"], saved["faces"], saved["offset"]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        _log.warning("damaged cache file %s (%s); importing again", entry, error)
        return None
    shape = ObjectShape("cached", vertices, faces, pieces, ("body",) * len(pieces), 0.1, "mesh")
    return Imported(shape, findings, offset)
