"""Writer of raw recordings in RealDex's layout, frame by frame, so that an interrupted one goes on.

Every file is whole or not there. The small files are written first; a frame is complete when all of
its pictures are there. `realdex_raw` reads the result; `docs/recordings.md` describes it.
"""

import dataclasses
import io
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8, UInt16
from PIL import Image
from scipy.spatial.transform import Rotation

from realdex_jax.data import calibration, rigid
from realdex_jax.data.calibration import Calibration
from realdex_jax.data.pictures import COLOUR, DEPTH
from realdex_jax.data.realdex_layout import P_FOREARM_WRIST, P_WRIST_PALM
from realdex_jax.data.realdex_raw import STAMPS, TRACK
from realdex_jax.data.tf_series import PALM, WORLD, WRIST
from realdex_jax.errors import DatasetError
from realdex_jax.hand.load import HandModel

Links = Mapping[tuple[str, str], Float[np.ndarray, "_ 7"]]
"""Pose of a link in its parent, by (parent, link): one row, or one for each stamp."""


@dataclasses.dataclass(frozen=True, eq=False)
class Scene:
    """All of a recording but its pictures; t scene frames."""

    time_ns: Int[np.ndarray, " t"]
    """Stamps of the scene frames, rising; all cameras and the robot have this clock."""
    links: Links
    """The robot's links, as `hand_links` makes those of the hand."""
    wxyz_xyz_world_object: Float[np.ndarray, "t 7"] | None
    """T_world_object: quaternion wxyz and position (m); None if it is not known yet."""
    wxyz_xyz_world_cam0: Float[np.ndarray, " 7"]
    """T_world_cam0."""
    segments: Sequence[tuple[int, int]] = ()
    """First frame and end (exclusive) of each grasp; none writes no file."""
    camera_ns: Mapping[int, Int[np.ndarray, " _"]] = dataclasses.field(default_factory=dict)
    """Stamps of a camera's own pictures, rising, where they are not those of the scene frames."""
    link_ns: Int[np.ndarray, " _"] | None = None
    """Stamps of the links, rising; those of the scene frames if None."""

    def stamps(self, camera: int) -> Int[np.ndarray, " n"]:
        """When a camera's pictures are taken, nanoseconds."""
        return self.camera_ns.get(camera, self.time_ns)


@dataclasses.dataclass(frozen=True, eq=False)
class Picture:
    """What one camera takes of one frame."""

    colour: UInt8[np.ndarray, "h w 3"]
    depth_mm: UInt16[np.ndarray, "h w"]
    """Millimetres along the optical axis, 0 where nothing was measured."""


def write_calibration(folder: Path, rig: Calibration) -> None:
    """Writes `calibration_data` into a folder; recordings below it find it there."""
    where = folder / calibration.FOLDER
    for camera in rig.cameras:
        info = calibration.lens_json(rig.lenses[camera], f"cam{camera}_rgb_camera_link")
        for kind in ("rgb", "depth"):
            _write_json(where / f"cam{camera}_{kind}.txt", info)
        if camera:
            pose = calibration.extrinsic_json(rig.wxyz_xyz_cam0_cam[camera])
            _write_json(where / f"cali0{camera}.json", pose)


def write_recording(
    folder: Path,
    scene: Scene,
    cameras: Sequence[int],
    take: Callable[[int, int], Picture],
    tell: Callable[[int], object] = lambda _: None,
) -> int:
    """Writes a recording, or what is missing of it.

    Args:
        folder: The recording, `<object>_<n>`; made if need be.
        scene: All but the pictures.
        cameras: Numbers of the cameras.
        take: Gives the picture of (camera, frame); called for missing ones only, frame by frame.
            A camera with stamps of its own has as many pictures, whatever the scene has.
        tell: Told the number of each frame when it is complete.

    Returns:
        How many pictures were taken.

    Raises:
        DatasetError: Stamps do not rise, or lengths do not fit together.
    """
    _check(scene)
    write_scene(folder, scene, cameras)
    taken = 0
    for k in range(max(len(scene.stamps(camera)) for camera in cameras) if cameras else 0):
        for camera in cameras:
            if k >= len(scene.stamps(camera)):
                continue
            paths = [folder / f"cam{camera}" / which / f"{k}.png" for which in (COLOUR, DEPTH)]
            if all(path.is_file() for path in paths):
                continue
            picture = take(camera, k)
            for path, pixels in zip(paths, (picture.colour, picture.depth_mm), strict=True):
                write(path, _png(pixels))
            taken += 1
        tell(k)
    return taken


def write_scene(folder: Path, scene: Scene, cameras: Sequence[int]) -> None:
    """Writes all but the pictures."""
    write(folder / STAMPS, _stamp_lines(scene.time_ns))
    for camera in cameras:
        info = folder / f"cam{camera}" / COLOUR / "info.txt"
        write(info, _stamp_lines(scene.stamps(camera)))
    (folder / "TF").mkdir(exist_ok=True)  # also without links: it marks a recording
    stamps = scene.time_ns if scene.link_ns is None else scene.link_ns
    for (parent, link), poses in scene.links.items():
        times = stamps[: len(poses)].tolist()
        lines = _lines(rigid.to_ros(poses))
        text = "".join(f"{t} {line}\n" for t, line in zip(times, lines, strict=True))
        write(folder / "TF" / f"{parent}-{link}.txt", text.encode())
    if scene.wxyz_xyz_world_object is not None:
        write_track(folder, scene.wxyz_xyz_world_object)
    placed = {"cam0_rgb_camera_link": rigid.matrix(scene.wxyz_xyz_world_cam0).ravel().tolist()}
    _write_json(folder / "global_name_position" / "0.txt", placed)
    meshes = {str(k): f"{t}.ply" for k, t in enumerate(scene.time_ns.tolist())}
    _write_json(folder / "scene_to_mesh.json", meshes)
    if scene.segments:
        rows = "".join(f"{start} {end}\n" for start, end in scene.segments)
        write(folder / "segment.txt", rows.encode())


def write_track(
    folder: Path, wxyz_xyz_world_object: Float[np.ndarray, "t 7"], name: Path | str = TRACK
) -> None:
    """Writes T_world_object of the first t scene frames of a recording, by default as its track."""
    rows = _lines(rigid.to_ros(wxyz_xyz_world_object))
    write(folder / name, "".join(f"{row}\n" for row in rows).encode())


def hand_links(
    hand: HandModel,
    q: Float[np.ndarray, "t 22"],
    wxyz_xyz_world_palm: Float[np.ndarray, "t 7"],
    q_wrist: Float[np.ndarray, "t 2"] | None = None,
) -> dict[tuple[str, str], Float[np.ndarray, "_ 7"]]:
    """Links of a hand over time, from its forearm in the world to the fingertips.

    Args:
        hand: The hand.
        q: Joint angles, radians.
        wxyz_xyz_world_palm: T_world_palm.
        q_wrist: WRJ2 and WRJ1, radians; zero if None.
    """
    q_wrist = np.zeros((len(q), 2)) if q_wrist is None else q_wrist
    found = {}
    T_forearm_palm = np.repeat(np.eye(7)[:1], len(q), axis=0)
    parents = ("rh_forearm", "rh_wrist")
    for i, (_, link, axis) in enumerate(WRIST):
        p = (P_FOREARM_WRIST, P_WRIST_PALM)[i]
        found[parents[i], link] = local = _turned(np.eye(3), np.array(axis), q_wrist[:, i], p)
        T_forearm_palm = rigid.compose(T_forearm_palm, local)
    forearm = rigid.compose(np.asarray(wxyz_xyz_world_palm), rigid.inverse(T_forearm_palm))
    found[WORLD, "rh_forearm"] = forearm
    for i in range(1, len(hand.link_names)):
        parent = PALM if hand.parents[i] == 0 else f"rh_{hand.link_names[hand.parents[i]]}"
        found[parent, f"rh_{hand.link_names[i]}"] = _turned(
            np.asarray(hand.R_parent_link[i], np.float64),
            np.asarray(hand.axis[i], np.float64),
            np.asarray(q[:, hand.joint[i]], np.float64),
            hand.p_parent_link[i],
        )
    return found


def _turned(
    R_parent_zero: Float[np.ndarray, "3 3"],
    axis: Float[np.ndarray, " 3"],
    angle: Float[np.ndarray, " t"],
    p: Sequence[float] | np.ndarray,
) -> Float[np.ndarray, "t 7"]:
    R = Rotation.from_matrix(R_parent_zero) * Rotation.from_rotvec(angle[:, None] * axis)
    wxyz = R.as_quat(scalar_first=True)
    return np.concatenate(
        [wxyz, np.broadcast_to(np.asarray(p, np.float64), (len(angle), 3))], axis=1
    )


def millimetres(depth: Float[np.ndarray, "h w"]) -> UInt16[np.ndarray, "h w"]:
    """A depth picture (m) in the files' unit; 0 where it is not positive or beyond 65 m."""
    rounded = np.rint(1000.0 * np.nan_to_num(depth))
    return np.where((rounded > 0) & (rounded < 2**16), rounded, 0).astype(np.uint16)


def _check(scene: Scene) -> None:
    count = len(scene.time_ns)
    _check_rising(scene.time_ns, "a recording")
    for camera, stamps in scene.camera_ns.items():
        _check_rising(stamps, f"camera {camera}")
    found = scene.wxyz_xyz_world_object
    if found is not None and len(found) != count:
        raise DatasetError(f"{len(found)} object poses for {count} frames")
    if scene.link_ns is not None:
        _check_rising(scene.link_ns, "the robot")
        count = len(scene.link_ns)
    for (parent, link), poses in scene.links.items():
        if len(poses) not in (1, count):
            raise DatasetError(f"{parent}-{link}: {len(poses)} poses; must be 1 or {count}")
        if "-" in parent or "-" in link or os.sep in parent + link:
            raise DatasetError(f"link names {parent!r}, {link!r} cannot be a file's name")


def _check_rising(stamps: Int[np.ndarray, " t"], whose: str) -> None:
    if not len(stamps) or stamps[0] < 0 or (np.diff(stamps) <= 0).any():
        raise DatasetError(f"stamps of {whose} must rise, and there must be one at least")


def _stamp_lines(stamps: Int[np.ndarray, " t"]) -> bytes:
    return "".join(f"{t}\n" for t in stamps.tolist()).encode()


def _lines(rows: Float[np.ndarray, "t n"]) -> list[str]:
    """Rows of numbers as text that reads back to the same doubles."""
    return [" ".join(map(repr, row)) for row in rows.tolist()]


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    # Little gain beyond level 1, and pictures are most of the time.
    Image.fromarray(pixels).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def _write_json(path: Path, value: Any) -> None:
    write(path, json.dumps(value, indent=1).encode())


def write(path: Path, content: bytes) -> None:
    """Writes a file whole or not at all; what an interrupted write leaves has a name of its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.tmp")
    try:
        fresh.write_bytes(content)
        fresh.replace(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
