"""Grasps in DexGraspBench's file layout: its tools can judge ours, and ours can judge theirs.

    export.json                                   marks the folder as an export
    graspdata/<object>/scaleSSS_pose000/<i>.npy   one grasp: a dict in an array without dimensions
    objects/<object>/info/simplified.json         gravity_center, obb, scale, density, mass
    objects/<object>/mesh/*.obj                   normalized, simplified: the solid; coacd: pieces
    objects/<object>/urdf/                        coacd.urdf, coacd.xml, meshes/convex_piece_NNN.obj

A grasp file has `obj_path` (the object's folder), `obj_scale` (metres per mesh unit), `obj_pose`
(position and quaternion wxyz, world), and `pregrasp_qpos`, `grasp_qpos`, `squeeze_qpos`: position
and quaternion of the hand's root in the world, then 22 joint angles in our order. The root lies
34 mm behind the palm. Meshes are centred on their box, half of whose diagonal is the unit.

Our exports put the world at the mesh's origin, and note in `mesh_offset` (m) where that is in the
object's own frame; so a set comes back as it went out. Files of others have no such key: their
grasps come back in the frame of the scaled mesh.
"""

import contextlib
import dataclasses
import io
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np
import trimesh
from jaxtyping import Float
from scipy.spatial import QhullError
from scipy.spatial.transform import Rotation

from realdex_jax import pose
from realdex_jax.data import schema
from realdex_jax.data.schema import GraspSet
from realdex_jax.data.unpickle import load_objects
from realdex_jax.errors import DatasetError, MeshError
from realdex_jax.geometry.shape import ObjectShape

P_ROOT_PALM: Float[np.ndarray, " 3"] = np.array([0.0, 0.0, 0.034])
"""The palm in the frame of the benchmark's hand root, metres: the wrist it cut off."""

MARK = "export.json"
"""Names a folder as an export, which may be written again."""

GRASPS, OBJECTS = "graspdata", "objects"
OFFSET = "mesh_offset"
POSTURES = ("pregrasp_qpos", "grasp_qpos", "squeeze_qpos")

_MARK = {"format": 1, "layout": "DexGraspBench", "hand": "shadow", "length": "m", "angle": "rad"}
_KEYS = ("obj_path", "obj_scale", "obj_pose", *POSTURES)
_UNIT_TOLERANCE = 1e-2  # of a quaternion's length; stored as float32 it is off by 1e-7
_IDENTITY = np.array([0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0])


@dataclasses.dataclass(frozen=True, eq=False)
class BenchObject:
    """An object as grasp files name it."""

    path: str
    """Folder with `info/`, `mesh/` and `urdf/`, as the benchmark finds it; its last part is the
    object's name."""
    scale: float
    """Metres per mesh unit."""
    p_object_mesh: Float[np.ndarray, " 3"] = dataclasses.field(default_factory=lambda: np.zeros(3))
    """The mesh's origin in the frame that grasps are given in, metres."""

    @property
    def name(self) -> str:
        """The object's name."""
        return self.path.rstrip("/").rpartition("/")[2]


@dataclasses.dataclass(frozen=True, eq=False)
class BenchGrasps:
    """The grasps of one folder `<object>/<scaleSSS_posePPP>`."""

    object: BenchObject
    """What they grasp."""
    T_world_mesh: Float[np.ndarray, "n 7"]
    """`obj_pose` of every grasp: position (m) and unit quaternion wxyz of the mesh in the world."""
    grasps: GraspSet
    """Poses in the object's frame. That layout lets the palm move while the hand closes, a grasp
    set does not: here it stays where it grasps. Columns `pregrasp_shift_mm`, `pregrasp_turn_deg`,
    `squeeze_shift_mm` and `squeeze_turn_deg` say how far it was from there."""


def check_target(folder: Path | str) -> None:
    """Refuses a folder that an export would mix with something else.

    Raises:
        DatasetError: There is something, and it is neither an empty folder nor an export.
    """
    folder = Path(folder)
    try:
        if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
            return
        if json.loads((folder / MARK).read_text(encoding="utf-8")) == _MARK:
            return
    except (FileNotFoundError, NotADirectoryError, ValueError):
        pass
    except OSError as error:
        raise DatasetError(f"cannot look into {folder}: {error.strerror}") from error
    raise DatasetError(
        f"{folder} is neither an empty folder nor an export (a folder with {MARK} of this format); "
        "name a new folder"
    )


def write_grasps(
    folder: Path | str,
    target: ObjectShape | BenchObject,
    grasps: GraspSet,
    *,
    obj_root: str | None = None,
) -> Path:
    """Writes the grasps of one object, and the object itself, whole or not at all.

    What an earlier export wrote for this object is replaced; other objects stay.

    Args:
        folder: The export; made if it does not exist.
        target: Our object, which is written too; or one that lies elsewhere, as `read_grasps`
            returned it.
        grasps: Poses in the object's frame. Columns are not part of that layout and stay behind.
        obj_root: What precedes the object's name in `obj_path`; None is the absolute path of
            `folder/objects`.

    Returns:
        The folder of the grasp files.

    Raises:
        DatasetError: No grasps, a set that breaks the rules of `schema.validate`, a scale that is
            not positive, a name that cannot be a file name, a folder that is not an export, or one
            that cannot be written; what was there for this object is then unchanged.
        MeshError: A piece of the object encloses no volume.
    """
    folder = Path(folder)
    check_target(folder)
    _check_name(target.name)
    if not len(grasps):
        raise DatasetError(f"{target.name}: no grasps to write; at least one is needed")
    schema.validate(grasps, target.name)
    files: dict[str, bytes] = {}
    if isinstance(target, ObjectShape):
        root = folder.resolve() / OBJECTS if obj_root is None else PurePosixPath(obj_root)
        centre = target.bounds.mean(axis=0)
        scale = float(np.linalg.norm(np.ptp(target.bounds, axis=0)) / 2)
        bench = BenchObject(str(root / target.name), scale, centre)
        files = {f"{OBJECTS}/{k}": v for k, v in _object_files(target, centre, scale).items()}
    else:
        bench = target
    if not (np.isfinite(bench.scale) and bench.scale > 0):
        raise DatasetError(f"{bench.name}: scale is {bench.scale}; it must be positive")
    group = f"scale{round(100 * bench.scale):03d}_pose000"
    for index, record in enumerate(_records(bench, grasps)):
        files[f"{GRASPS}/{group}/{index}.npy"] = _npy(record)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / MARK).exists():
            (folder / MARK).write_text(json.dumps(_MARK) + "\n", encoding="utf-8")
        _swap_in(folder, bench.name, files)
    except OSError as error:
        raise DatasetError(
            f"could not write {bench.name} to {folder}: {error.strerror or error}; what was there "
            "for it is unchanged"
        ) from error
    return folder / GRASPS / bench.name / group


def grasp_folders(root: Path | str) -> tuple[Path, ...]:
    """All folders `<object>/<scaleSSS_posePPP>` below an export, or below a `graspdata`; sorted.

    Raises:
        DatasetError: There is none.
    """
    root = Path(root)
    inside = root / GRASPS if (root / GRASPS).is_dir() else root
    found = tuple(sorted({path.parent for path in inside.glob("*/*/*.npy")}))
    if not found:
        raise DatasetError(f"{root}: no {GRASPS}/<object>/<scaleSSS_posePPP>/<i>.npy")
    return found


def read_grasps(folder: Path | str) -> BenchGrasps:
    """Reads the grasps of one folder `<object>/<scaleSSS_posePPP>`, in the order of their numbers.

    Raises:
        DatasetError: No files, or one that is damaged, misses keys, holds values of the wrong
            shape, not finite or against the rules, or is for another object than the first.
        UnsafePickleError: A file asks for more than plain data.
    """
    folder = Path(folder)
    paths = sorted(folder.glob("*.npy"), key=lambda path: (len(path.stem), path.stem))
    if not paths:
        raise DatasetError(f"{folder}: no grasp files <i>.npy")
    rows = [_read_row(path) for path in paths]
    first = rows[0].object
    for path, row in zip(paths, rows, strict=True):
        for what, value, other in (
            ("obj_path", row.object.path, first.path),
            ("obj_scale", row.object.scale, first.scale),
            (OFFSET, row.object.p_object_mesh.tolist(), first.p_object_mesh.tolist()),
        ):
            if value != other:
                raise DatasetError(
                    f"{path}: {what} is {value}, that of {paths[0].name} is {other}; the files of "
                    "a folder must be of one object at one size"
                )
    T_world_mesh = np.stack([row.T_world_mesh for row in rows])
    T_world_root = np.stack([row.postures[:, :7] for row in rows])
    q = np.stack([row.postures[:, 7:] for row in rows]).astype(np.float32)
    R_mesh_world = _rotation(T_world_mesh).inv()
    R_world_palm = _rotation(T_world_root[:, 1])
    p_world_palm = T_world_root[:, 1, :3] + R_world_palm.apply(P_ROOT_PALM)
    p_mesh_palm = R_mesh_world.apply(p_world_palm - T_world_mesh[:, :3])
    rotvec = (R_mesh_world * R_world_palm).as_rotvec()
    phi = np.concatenate([q[:, 1], p_mesh_palm + first.p_object_mesh, rotvec], axis=1)
    columns: dict[str, np.ndarray] = {}
    for at, name in ((0, "pregrasp"), (2, "squeeze")):
        R_world_other = _rotation(T_world_root[:, at])
        moved = T_world_root[:, at, :3] + R_world_other.apply(P_ROOT_PALM) - p_world_palm
        turned = (R_world_other.inv() * R_world_palm).magnitude()
        columns[f"{name}_shift_mm"] = 1e3 * np.linalg.norm(moved, axis=1).astype(np.float32)
        columns[f"{name}_turn_deg"] = np.degrees(turned).astype(np.float32)
    grasps = GraspSet(phi.astype(np.float32), q[:, 0], q[:, 2], columns)
    return BenchGrasps(first, T_world_mesh, schema.validate(grasps, str(folder)))


class _Row(NamedTuple):
    """What one grasp file says."""

    object: BenchObject
    T_world_mesh: Float[np.ndarray, " 7"]
    postures: Float[np.ndarray, "3 29"]


def _read_row(path: Path) -> _Row:
    found = load_objects(path)
    if len(found) != 1 or not isinstance(found[0], Mapping):
        kind = type(found[0]).__name__ if found else "nothing"
        raise DatasetError(f"{path}: holds {len(found)} x {kind}; it must be one dict")
    record = found[0]
    missing = [key for key in _KEYS if key not in record]
    if missing:
        raise DatasetError(f"{path}: lacks {', '.join(missing)}; it must have {', '.join(_KEYS)}")
    where = record["obj_path"]
    if not isinstance(where, str) or not where.strip("/"):
        raise DatasetError(f"{path}: obj_path is {where!r}; it must name the object's folder")
    scale = float(_numbers(record["obj_scale"], (), f"{path}: obj_scale"))
    if scale <= 0:
        raise DatasetError(f"{path}: obj_scale is {scale:g}; it must be positive")
    T_world_mesh = _numbers(record["obj_pose"], (7,), f"{path}: obj_pose")
    postures = np.stack([_numbers(record[key], (29,), f"{path}: {key}") for key in POSTURES])
    offset = _numbers(record.get(OFFSET, np.zeros(3)), (3,), f"{path}: {OFFSET}")
    for key, value in zip(("obj_pose", *POSTURES), (T_world_mesh, *postures), strict=True):
        with np.errstate(over="ignore"):  # damaged numbers, squared
            length = np.linalg.norm(value[3:7])
        if abs(length - 1) > _UNIT_TOLERANCE:
            raise DatasetError(
                f"{path}: the quaternion of {key} has length {length:.3g}; it must be 1"
            )
    for key, posture in zip(POSTURES[:2], postures[:2], strict=True):  # a target may pass limits
        schema.check_limits(posture[None, 7:], f"{path}: {key}")
    return _Row(BenchObject(where, scale, offset), T_world_mesh, postures)


def _numbers(value: object, shape: tuple[int, ...], where: str) -> np.ndarray:
    """A finite array of this shape, float64."""
    if not isinstance(value, (np.ndarray, np.number, int, float)) or isinstance(value, bool):
        raise DatasetError(f"{where} is a {type(value).__name__}; it must be numbers")
    array = np.asarray(value)
    if array.dtype.kind not in "fiu":
        raise DatasetError(f"{where} holds {array.dtype}; it must hold numbers")
    if array.shape != shape:
        raise DatasetError(f"{where} has shape {array.shape}; it must be {shape}")
    if not np.isfinite(array).all():
        raise DatasetError(
            f"{where} is not finite: {array.ravel()[~np.isfinite(array.ravel())][0]}"
        )
    return array.astype(np.float64)


def _rotation(T: Float[np.ndarray, "n 7"]) -> Rotation:
    return Rotation.from_quat(T[:, 3:7], scalar_first=True)


def _records(bench: BenchObject, grasps: GraspSet) -> Iterator[dict[str, Any]]:
    """The dict of every grasp; the world is at the mesh."""
    phi = np.asarray(grasps.phi, np.float64)
    R_world_palm = Rotation.from_rotvec(phi[:, 25:28])
    p_world_root = phi[:, 22:25] - bench.p_object_mesh - R_world_palm.apply(P_ROOT_PALM)
    wxyz = R_world_palm.as_quat(canonical=True, scalar_first=True)
    joints = {
        "pregrasp_qpos": np.asarray(grasps.q_pregrasp),
        "grasp_qpos": phi[:, : pose.JOINTS],
        "squeeze_qpos": np.asarray(grasps.q_squeeze),
    }
    for i in range(len(phi)):
        root = np.concatenate([p_world_root[i], wxyz[i]])
        yield {
            "obj_path": bench.path,
            "obj_scale": float(bench.scale),
            "obj_pose": _IDENTITY.astype(np.float32),
            **{k: np.concatenate([root, q[i]]).astype(np.float32) for k, q in joints.items()},
            OFFSET: np.asarray(bench.p_object_mesh, np.float64),
        }


def _npy(record: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array(record, dtype=object))  # as the benchmark writes its own
    return buffer.getvalue()


def _object_files(
    shape: ObjectShape, centre: Float[np.ndarray, " 3"], scale: float
) -> dict[str, bytes]:
    """Content of an object's folder by relative path; meshes in mesh units."""
    solid = trimesh.Trimesh((shape.vertices - centre) / scale, shape.faces, process=False)
    pieces: dict[str, trimesh.Trimesh] = {}
    for index, corners in enumerate(shape.pieces):
        try:
            hull = trimesh.convex.convex_hull((corners - centre) / scale)
        except (QhullError, ValueError) as error:
            raise MeshError(f"{shape.name}: piece {index} encloses no volume") from error
        pieces[f"convex_piece_{index:03d}"] = hull
    info = {
        "gravity_center": solid.center_mass.tolist(),
        "obb": np.asarray(solid.bounding_box_oriented.primitive.extents).tolist(),
        "scale": 1.0,
        "density": 1.0,
        # The benchmark finds the density of the pieces from this; where they overlap they weigh
        # twice, so the volume is theirs, not the solid's.
        "mass": float(sum(piece.volume for piece in pieces.values())),
    }
    whole = _obj({shape.name: solid})
    return {
        "info/simplified.json": (json.dumps(info, indent=1) + "\n").encode(),
        "mesh/normalized.obj": whole,
        "mesh/simplified.obj": whole,
        "mesh/coacd.obj": _obj(pieces),
        **{f"urdf/meshes/{name}.obj": _obj({name: piece}) for name, piece in pieces.items()},
        "urdf/coacd.urdf": _urdf(shape.name, list(pieces)),
        "urdf/coacd.xml": _mjcf(shape.name, list(pieces)),
    }


def _obj(parts: Mapping[str, trimesh.Trimesh]) -> bytes:
    """OBJ text with one `o` section per part; nine digits keep float32 whole."""
    lines: list[str] = []
    before = 1
    for name, part in parts.items():
        lines.append(f"o {name}")
        lines += [f"v {x:.9g} {y:.9g} {z:.9g}" for x, y, z in part.vertices.tolist()]
        lines += [f"f {a} {b} {c}" for a, b, c in (part.faces + before).tolist()]
        before += len(part.vertices)
    return ("\n".join(lines) + "\n").encode()


def _urdf(name: str, pieces: list[str]) -> bytes:
    """One link of all pieces. Its inertia depends on size and mass, which are not in this file."""
    robot = ElementTree.Element("robot", name=name)
    link = ElementTree.SubElement(robot, "link", name="object")
    for piece in pieces:
        for use in ("visual", "collision"):
            geometry = ElementTree.SubElement(ElementTree.SubElement(link, use), "geometry")
            ElementTree.SubElement(geometry, "mesh", filename=f"meshes/{piece}.obj", scale="1 1 1")
    return _xml(robot)


def _mjcf(name: str, pieces: list[str]) -> bytes:
    model = ElementTree.Element("mujoco", model=name)
    ElementTree.SubElement(model, "compiler", meshdir="meshes")
    asset = ElementTree.SubElement(model, "asset")
    world = ElementTree.SubElement(model, "worldbody")
    body = ElementTree.SubElement(world, "body", name="object")
    for piece in pieces:
        ElementTree.SubElement(asset, "mesh", name=piece, file=f"{piece}.obj")
        ElementTree.SubElement(body, "geom", type="mesh", mesh=piece)
    return _xml(model)


def _xml(root: ElementTree.Element) -> bytes:
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="utf-8") + b"\n"


def _check_name(name: str) -> None:
    if not name or name != Path(name).name or name.startswith("."):
        raise DatasetError(f"object name {name!r} cannot be a folder's name")


def _swap_in(root: Path, name: str, files: Mapping[str, bytes]) -> None:
    """Writes `<part>/<rest>` as `<part>/<name>/<rest>`, both parts or none.

    Grasps are the first to go and the last to come, so they never stand beside an object of
    another size, even if the process is killed; the next write then puts the old ones back first.
    """
    old = root / f".{name}.old"
    _put_back(root, name, old)
    fresh = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=root))
    moved: list[tuple[Path, Path]] = []
    try:
        for relative, content in files.items():
            (fresh / relative).parent.mkdir(parents=True, exist_ok=True)
            (fresh / relative).write_bytes(content)
        parts = [part for part in (GRASPS, OBJECTS) if (fresh / part).is_dir()]
        shutil.rmtree(old, ignore_errors=True)
        old.mkdir()
        for part in parts:
            (root / part).mkdir(exist_ok=True)
            target = root / part / name
            if target.exists():
                moved.append((target.replace(old / part), target))
        for part in reversed(parts):
            target = (fresh / part).replace(root / part / name)
            moved.append((target, fresh / part))
    except BaseException:
        for now, before in reversed(moved):
            with contextlib.suppress(OSError):
                now.replace(before)
        shutil.rmtree(fresh, ignore_errors=True)
        with contextlib.suppress(OSError):
            old.rmdir()  # only if nothing is left in it
        raise
    shutil.rmtree(old, ignore_errors=True)
    shutil.rmtree(fresh, ignore_errors=True)


def _put_back(root: Path, name: str, old: Path) -> None:
    """Undoes a swap that was killed halfway."""
    if (root / GRASPS / name).exists() or not (old / GRASPS).is_dir():
        return
    for part in (OBJECTS, GRASPS):
        if (old / part).is_dir():
            shutil.rmtree(root / part / name, ignore_errors=True)
            (old / part).replace(root / part / name)
