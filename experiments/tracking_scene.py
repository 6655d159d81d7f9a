"""Depth pictures of grasps for judging the tracker: rendered once, kept, with what is true."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt16
from scipy.spatial.transform import Rotation

from experiments import motion_data
from realdex_jax.data import npz, realdex_write, rigid, store
from realdex_jax.errors import ConfigError, DatasetError
from realdex_jax.geometry.lens import Lens
from realdex_jax.geometry.view import DepthNoise
from realdex_jax.hand.load import load
from sim import film, objects, sequence
from sim.sequence import Sequence
from sim.stage import load_stage

REACH, LIFT = 60, 0.2
"""Last frames of the reach, and metres that hand and object then rise, in 30 frames."""
MOTIONS = 10
"""Demonstrations of each object."""
_VERSION = 1
_AROUND = 0.06
"""Metres about the object's box that pictures show."""


@dataclasses.dataclass(frozen=True)
class Astray:
    """How wrong the tracker is told: standard deviations, along or about each axis."""

    camera: tuple[float, float] = (0.0005, 0.0005)
    """Places (m) and turns (rad) of cameras: what calibration leaves."""
    palm: tuple[float, float] = (0.001, 0.002)
    """The hand, over a sequence (m, rad)."""
    joints: float = 0.005
    """Joint angles, over a sequence, radians."""


@dataclasses.dataclass(frozen=True, eq=False)
class TrackingScene:
    """One grasp before four cameras; t frames."""

    object: str
    depth: Mapping[int, UInt16[np.ndarray, "t _ _"]]
    """Millimetres, in the part of each camera's picture that shows the object's way."""
    lenses: Mapping[int, Lens]
    """Of that part."""
    wxyz_xyz_world_cam: Mapping[int, Float[np.ndarray, " 7"]]
    """T_world_cam of the depth lenses, as calibration would have them."""
    phi: Float[np.ndarray, "t 28"]
    """The hand in the world, as the robot would have it."""
    table_z: float
    """Height of the table, metres."""
    wxyz_xyz_world_object: Float[np.ndarray, "t 7"]
    """The truth."""

    def depths(self, frame: int) -> dict[int, Float[np.ndarray, "_ _"]]:
        """Depth pictures (m) of a frame by camera."""
        return {c: pictures[frame] * np.float32(1e-3) for c, pictures in self.depth.items()}


def scene(
    name: str,
    seed: int,
    folder: Path,
    tell: Callable[[str], object] = lambda _: None,
    *,
    motions: Path | None = None,
    astray: Astray | None = None,
    step: Callable[[int], object] = lambda _: None,
) -> TrackingScene:
    """A scene, from a folder if it is there, else rendered into it.

    Args:
        name: A parametric object with grasps in RealDex-Sim.
        seed: Of the demonstration, the cameras and the noise.
        folder: Rendered scenes.
        tell: Told about demonstrations.
        motions: Folder of demonstrations; None is the user's cache folder.
        astray: What the tracker is told wrong.
        step: Told the number of each frame that is rendered.

    Raises:
        RealdexError: No such object.
    """
    moving = _sequence(name, seed, motions, tell)
    cameras = film.around_table(seed, 64, 640)
    numbers = range(len(cameras.lenses))
    true = {
        c: rigid.compose(cameras.wxyz_xyz_world_cam[c], cameras.lenses[c].wxyz_xyz_colour_depth)
        for c in numbers
    }
    shape = objects.make(name)
    lenses = {c: _window(cameras.lenses[c].depth, true[c], moving, shape.bounds) for c in numbers}
    decisive = [_VERSION, REACH, LIFT, name, seed, motions is None]
    key = hashlib.sha256(json.dumps(decisive).encode()).hexdigest()[:12]
    depth = _kept(
        folder / f"{name}-{seed}-{key}.npz",
        lambda: _render(name, moving, lenses, true, seed, step),
    )
    off = astray or Astray()
    rng = np.random.default_rng([seed, 7])
    return TrackingScene(
        name,
        depth,
        lenses,
        {c: _moved(true[c][None], off.camera, rng)[0] for c in numbers},
        _told(moving.phi, off, rng),
        float(moving.p_world_table[2]),
        moving.wxyz_xyz_world_object,
    )


def _kept(
    path: Path, make: Callable[[], dict[int, UInt16[np.ndarray, "t _ _"]]]
) -> dict[int, UInt16[np.ndarray, "t _ _"]]:
    """Pictures by camera, from a file if it is there."""
    if path.is_file():
        return {int(name.removeprefix("depth_")): x for name, x in npz.read(path).items()}
    made = make()
    realdex_write.write(path, npz.encode({f"depth_{c}": x for c, x in made.items()}))
    return made


def _sequence(
    name: str, seed: int, motions: Path | None, tell: Callable[[str], object]
) -> Sequence:
    dataset = store.open_dataset("realdex-sim")
    if name not in dataset.objects:
        raise DatasetError(f"no object {name!r}; known: {', '.join(sorted(dataset.objects))}")
    if seed < 0:
        raise ConfigError(f"seed is {seed}; cannot be negative")
    found, _ = motion_data.demonstrations(
        load("shadow"), dataset, name, MOTIONS, motion_data.folder_of(dataset, motions), tell
    )
    return sequence.of_motion(found, seed % len(found), lift_m=LIFT, last=REACH)


def _render(
    name: str,
    moving: Sequence,
    lenses: Mapping[int, Lens],
    places: Mapping[int, Float[np.ndarray, " 7"]],
    seed: int,
    step: Callable[[int], object],
) -> dict[int, UInt16[np.ndarray, "t _ _"]]:
    stage, noise = load_stage(load("shadow"), objects.make(name)), DepthNoise()
    rows: dict[int, list[np.ndarray]] = {c: [] for c in lenses}
    for k in range(len(moving.phi)):
        phi = moving.phi[k].astype(np.float32)
        stage.place(phi, moving.wxyz_xyz_world_object[k], moving.p_world_table)
        for c, lens in lenses.items():
            rng = np.random.default_rng([seed, c, k])
            rows[c].append(film.depth_picture(stage, lens, places[c], rng, noise))
        step(k)
    return {c: np.stack(pictures) for c, pictures in rows.items()}


def _window(
    lens: Lens,
    wxyz_xyz_world_lens: Float[np.ndarray, " 7"],
    moving: Sequence,
    bounds: Float[np.ndarray, "2 3"],
) -> Lens:
    """The lens of the part of the picture that shows the object wherever it goes."""
    low, high = bounds[0] - _AROUND, bounds[1] + _AROUND
    corners = np.stack(np.meshgrid(*zip(low, high, strict=True)), axis=-1).reshape(-1, 3)
    p = np.concatenate([rigid.apply(T, corners) for T in moving.wxyz_xyz_world_object])
    pixel = lens.project(rigid.apply(rigid.inverse(wxyz_xyz_world_lens), p))
    left, top = (int(x) for x in np.clip(np.floor(pixel.min(axis=0)), 0, None))
    right, bottom = (int(x) for x in np.ceil(pixel.max(axis=0)) + 1)
    return dataclasses.replace(
        lens,
        width=min(right, lens.width) - left,
        height=min(bottom, lens.height) - top,
        cx=lens.cx - left,
        cy=lens.cy - top,
    )


def _moved(
    poses: Float[np.ndarray, "t 7"], spread: tuple[float, float], rng: np.random.Generator
) -> Float[np.ndarray, "t 7"]:
    """Poses with one error of place (m) and turn (rad) in their own frame."""
    turn = Rotation.from_rotvec(spread[1] * rng.normal(size=3)).as_quat(scalar_first=True)
    return rigid.compose(poses, np.concatenate([turn, spread[0] * rng.normal(size=3)])[None])


def _told(
    phi: Float[np.ndarray, "t 28"], off: Astray, rng: np.random.Generator
) -> Float[np.ndarray, "t 28"]:
    palm = _moved(sequence.palms(phi), off.palm, rng)
    rotvec = Rotation.from_quat(palm[:, :4], scalar_first=True).as_rotvec()
    q = phi[:, :22] + off.joints * rng.normal(size=22)
    return np.concatenate([q, palm[:, 4:], rotvec], axis=1)
