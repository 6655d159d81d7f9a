"""Reader of GRAB (Taheri et al. 2020): people who reach for objects, as Shadow Hands that do.

The layout is that of its own release: `grab/s<k>/<object>_<action>_<n>.npz` and the meshes under
`tools/`. A right hand is MANO parameters on a measured hand; its 21 keypoints (or keypoints that a
user brings) are retargeted, fingertips in their places. Each sequence gives the reach at 15 Hz, to
where the object first moves, and the grasp there. `docs/human_hands.md` says what is needed.

The data is licensed for non-commercial research and is not part of this project.
"""

import dataclasses
import functools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import trimesh
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from realdex_jax.data import grab_sequence, mano, motion_set, npz, schema
from realdex_jax.data import motion as motions
from realdex_jax.data.grab_sequence import Recording
from realdex_jax.data.motion import MIN_FRAMES, RATE, Motion
from realdex_jax.data.schema import GraspSet
from realdex_jax.data.source import Unit
from realdex_jax.errors import DatasetError, HandError, MeshError
from realdex_jax.geometry import mesh as meshes
from realdex_jax.hand import human
from realdex_jax.hand.load import HandModel, load
from realdex_jax.hand.retarget import PLACE, retarget_sequence

FORMAT = "grab"

TEST = ("mug", "wineglass", "camera", "binoculars", "fryingpan", "toothpaste")
VAL = ("apple", "toothbrush", "elephant", "hand")
"""Objects that the dataset's authors hold out; all others are for training."""

CONFIG = dataclasses.replace(PLACE, max_step=0.8)
"""Between frames at 15 Hz people bend a joint by up to this much."""
PREGRASP = 3
"""Frames before the grasp whose joint angles are the pre-grasp's: a fifth of a second."""

_SUBJECT = re.compile(r"s\d{1,3}")
_PADDED = 32  # reaches are filled up to a multiple of this, so that few lengths are compiled


@dataclasses.dataclass(frozen=True)
class Grab:
    """A folder in GRAB's layout; see `realdex_jax.data.source.Source`."""

    root: Path
    """Folder that holds `grab/` and `tools/`."""
    files: Mapping[str, tuple[Path, ...]]
    """Sequences by object."""
    mano: Path | None
    """The hand model's file."""
    keypoints: Path | None
    """Folder of ready keypoints, used instead of the model."""

    @property
    def format(self) -> str:
        """Name of the layout."""
        return FORMAT

    @property
    def units(self) -> Sequence[str]:
        """The objects, sorted."""
        return tuple(self.files)

    @property
    def recipe(self) -> Mapping[str, Any]:
        """Where it came from."""
        return {
            "layout": "GRAB (Taheri et al. 2020), right hands",
            "hands": "mano" if self.keypoints is None else "keypoints",
            "rate": RATE,
            "retargeting": dataclasses.asdict(CONFIG),
            "licence": "GRAB's own, non-commercial research",
        }

    def splits(self, units: Sequence[str]) -> Mapping[str, Sequence[str]]:
        """The authors' split by object."""
        held = (*TEST, *VAL)
        return {
            "train": [name for name in units if name not in held],
            "val": [name for name in units if name in VAL],
            "test": [name for name in units if name in TEST],
        }

    def read(self, unit: str) -> Unit:
        """Reads all sequences of one object; those that cannot be used are named in the notes.

        Raises:
            DatasetError: Unknown object, no mesh, or no sequence that can be used.
        """
        if unit not in self.files:
            known = ", ".join(self.files)
            raise DatasetError(f"{self.root}: no object {unit!r}; known: {known}")
        mesh: trimesh.Trimesh | None = None
        reaches: list[_Reach] = []
        notes: list[str] = []
        for path in self.files[unit]:
            try:
                recording = grab_sequence.read(path)
                if mesh is None:
                    mesh = _mesh(self.root, recording.object_mesh, path)
                reaches.append(self._reach(recording, mesh))
            except _Unused as unused:
                notes.append(f"{path.name} of {path.parent.name} is not used: {unused}")
            except DatasetError as error:
                notes.append(f"refused: {error}")
        if mesh is None or not reaches:
            raise DatasetError(f"{self.root}: {unit} has no usable sequence; {'; '.join(notes)}")
        usable = [reach for reach in reaches if reach.motion is not None]
        short = len(reaches) - len(usable)
        if short:
            notes.append(f"{short} reaches of fewer than {MIN_FRAMES} frames give a grasp only")
        return Unit(
            name=unit,
            grasps=_grasps(reaches, f"{self.root}: {unit}"),
            motions=_motions(usable, unit),
            mesh=_obj(mesh),
            notes=tuple(notes),
        )

    def _reach(self, recording: Recording, mesh: trimesh.Trimesh) -> "_Reach":
        last = recording.onset()
        if last is None:
            raise _Unused("its object does not move")
        if not recording.held(last):
            raise _Unused(
                f"the right hand does not hold the object in frame {last}, where it moves"
            )
        step = recording.rate / RATE
        frames = np.round(last - step * np.arange(int(last / step) + 1)[::-1]).astype(int)
        keypoints = self._keypoints(recording, frames)
        try:
            human.check(keypoints, str(recording.path))
        except HandError as error:
            raise DatasetError(str(error)) from error
        # Above the table, which is under the object, is up.
        at_rest = recording.T_world_object[0]
        lowest = Rotation.from_quat(at_rest[:4], scalar_first=True).apply(mesh.vertices)[:, 2].min()
        table = float(lowest + at_rest[6])
        world = recording.T_world_object[frames] - [0, 0, 0, 0, 0, 0, table]
        hands = _retargeted(load(), keypoints - [0.0, 0.0, table])
        phi = _carried(hands.phi, world)
        return _Reach(
            subject=recording.subject,
            phi_object=_in_object(hands.phi[-1], world[-1]),
            q=hands.phi[:, :22],
            error=hands.error,
            motion=None
            if len(frames) < MIN_FRAMES
            else Motion(
                time=(np.arange(len(frames)) / RATE).astype(np.float32),
                phi=phi.astype(np.float32),
                wxyz_xyz_world_object=np.repeat(world[:1], len(frames), 0).astype(np.float32),
            ),
        )

    def _keypoints(self, recording: Recording, frames: np.ndarray) -> Float[np.ndarray, "t 21 3"]:
        if self.keypoints is not None:
            path = self.keypoints / recording.path.parent.name / recording.path.name
            found = npz.read(path).get("right")
            shape = (recording.frames, human.COUNT, 3)
            if found is None or found.shape != shape or found.dtype.kind != "f":
                what = "lacks it" if found is None else f"has {found.shape} of {found.dtype}"
                raise DatasetError(
                    f"{path}: needs an array 'right' {shape} of metres in the world, {what}"
                )
            return found[frames].astype(np.float64)
        assert self.mano is not None  # open_source saw to it
        model = _model(self.mano)
        shown = recording.at(frames, model)
        template = _template(self.root, recording.hand_template, str(recording.path))
        return mano.keypoints(model, template, *shown)


def recognise(path: Path) -> bool:
    """Whether a folder has GRAB's layout, by its names alone."""
    return _sequences(path) is not None


def open_source(
    path: Path | str, mano: Path | str | None = None, keypoints: Path | str | None = None
) -> Grab:
    """Opens a folder in GRAB's layout.

    Args:
        path: The folder that holds `grab/` and `tools/`, or `grab/` itself.
        mano: MANO's right hand or a folder with it; the environment's `REALDEX_MANO` if not given.
        keypoints: Folder of ready keypoints instead, `<subject>/<sequence>.npz` with an array
            `right` (frames 21 3): metres in the world, at the sequence's own rate.

    Raises:
        DatasetError: Another layout, or neither a hand model nor keypoints.
    """
    found = _sequences(Path(path))
    if found is None:
        raise DatasetError(
            f"{path}: not GRAB's layout; expected grab/s<k>/<object>_<action>_<n>.npz as its own "
            "unzip script leaves it, and tools/ beside grab/"
        )
    if keypoints is not None and not Path(keypoints).is_dir():
        raise DatasetError(f"{keypoints}: no such folder of keypoints")
    by_object: dict[str, list[Path]] = {}
    for file in found:
        by_object.setdefault(file.name.split("_")[0], []).append(file)
    return Grab(
        root=found[0].parents[2],
        files={name: tuple(by_object[name]) for name in sorted(by_object)},
        mano=None if keypoints is not None else _locate(mano),
        keypoints=None if keypoints is None else Path(keypoints),
    )


_locate = mano.locate
_model = functools.cache(mano.read)


class _Unused(Exception):  # noqa: N818 (no error: a sequence that holds no grasp of a right hand)
    """Why a sound sequence gives nothing."""


@dataclasses.dataclass(frozen=True, eq=False)
class _Reach:
    """One sequence, retargeted."""

    subject: int
    phi_object: Float[np.ndarray, " 28"]
    """The grasp."""
    q: Float[np.ndarray, "t 22"]
    error: Float[np.ndarray, "t 5"]
    motion: Motion | None


@dataclasses.dataclass(frozen=True, eq=False)
class _Hands:
    phi: Float[np.ndarray, "t 28"]
    error: Float[np.ndarray, "t 5"]


def _sequences(path: Path) -> list[Path] | None:
    for folder in (path / "grab", path):
        if not folder.is_dir():
            continue
        subjects = [s for s in folder.iterdir() if s.is_dir() and _SUBJECT.fullmatch(s.name)]
        subjects.sort(key=lambda s: (len(s.name), s.name))
        found = [file for s in subjects for file in sorted(s.glob("*_*.npz"))]
        if found:
            return [file.absolute() for file in found]
    return None


def _mesh(root: Path, name: str, asked_by: Path) -> trimesh.Trimesh:
    try:
        return meshes.load_mesh(_inside(root, name, str(asked_by)))
    except MeshError as error:
        raise DatasetError(f"{asked_by}: its object's mesh: {error}") from error


def _template(root: Path, name: str, asked_by: str) -> Float[np.ndarray, "778 3"]:
    path = _inside(root, name, asked_by)
    try:
        vertices = np.asarray(meshes.load_mesh(path).vertices, np.float64)
    except MeshError as error:
        raise DatasetError(f"{asked_by}: its measured hand: {error}") from error
    if vertices.shape != (mano.VERTICES, 3):
        raise DatasetError(f"{path}: {len(vertices)} vertices; a MANO hand has {mano.VERTICES}")
    return vertices


def _inside(root: Path, name: str, asked_by: str) -> Path:
    """A file that a sequence names; nothing outside the dataset is opened."""
    path = (root / name).resolve()
    if not path.is_relative_to(root.resolve()):
        raise DatasetError(f"{asked_by}: names {name!r}, which lies outside {root}")
    return path


def _retargeted(hand: HandModel, keypoints: Float[np.ndarray, "t 21 3"]) -> _Hands:
    t = len(keypoints)
    short = -t % _PADDED
    padded = np.concatenate([keypoints, np.repeat(keypoints[-1:], short, axis=0)])
    # Near its origin: far from it single precision would round fingertips.
    origin = padded[-1, human.WRIST]
    found = retarget_sequence(hand, jnp.asarray(padded - origin, jnp.float32), CONFIG)
    phi = np.asarray(found.phi, np.float64)[:t].copy()
    phi[:, 22:25] += origin
    return _Hands(phi, np.asarray(found.error)[:t])


def _in_object(phi: Float[np.ndarray, " 28"], world: Float[np.ndarray, " 7"]) -> np.ndarray:
    """A pose in the world as one in the object's frame."""
    R_object_world = Rotation.from_quat(world[:4], scalar_first=True).inv()
    p = R_object_world.apply(phi[22:25] - world[4:])
    turn = (R_object_world * Rotation.from_rotvec(phi[25:])).as_rotvec()
    return np.concatenate([phi[:22], p, turn])


def _carried(phi: Float[np.ndarray, "t 28"], world: Float[np.ndarray, "t 7"]) -> np.ndarray:
    """Poses as the object sees them, put where it rests at first.

    A person's touch shifts it by millimetres before it is lifted, and a reach is for an object at
    rest.
    """
    seen = np.stack([_in_object(*pair) for pair in zip(phi, world, strict=True)])
    R_world_object = Rotation.from_quat(world[0, :4], scalar_first=True)
    p = R_world_object.apply(seen[:, 22:25]) + world[0, 4:]
    turn = (R_world_object * Rotation.from_rotvec(seen[:, 25:])).as_rotvec()
    return np.concatenate([seen[:, :22], p, turn], axis=1)


def _grasps(reaches: Sequence[_Reach], where: str) -> GraspSet:
    q = np.stack([reach.q[-1] for reach in reaches]).astype(np.float32)
    before = np.stack([reach.q[max(len(reach.q) - 1 - PREGRASP, 0)] for reach in reaches])
    found = GraspSet(
        phi=np.stack([reach.phi_object for reach in reaches]).astype(np.float32),
        q_pregrasp=before.astype(np.float32),
        q_squeeze=q,
        columns={
            "subject": np.array([reach.subject for reach in reaches], np.int32),
            "tip_error_mm": np.array(
                [1e3 * reach.error[-1].max() for reach in reaches], np.float32
            ),
        },
    )
    return schema.validate(found, where)


def _motions(reaches: Sequence[_Reach], unit: str) -> motion_set.MotionSet | None:
    found = [reach.motion for reach in reaches if reach.motion is not None]
    if not found:
        return None
    q_squeeze = np.stack([np.asarray(motion.phi)[-1, :22] for motion in found])
    for i, motion in enumerate(found):
        motions.validate(motion, f"reach {i} for {unit}")
    return motion_set.collect(found, [unit] * len(found), q_squeeze)


def _obj(mesh: trimesh.Trimesh) -> bytes:
    """OBJ text; nine digits keep float32 whole."""
    lines = [f"v {x:.9g} {y:.9g} {z:.9g}" for x, y, z in mesh.vertices.tolist()]
    lines += [f"f {a} {b} {c}" for a, b, c in (mesh.faces + 1).tolist()]
    return ("\n".join(lines) + "\n").encode()
