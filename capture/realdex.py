"""Writes a recording in the layout of RealDex's raw recordings, which the project reads.

There, depth is registered to the colour camera and all stamps are of one clock; here each camera
has a depth lens and a clock of its own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, UInt16
from scipy.spatial.transform import Rotation

from capture import timeline
from capture.device import CaptureError, Optics
from capture.recording import JointSeries, Recording, Stamps, optics_json
from realdex_jax import arm
from realdex_jax.data import calibration, realdex_write, rigid, textfile
from realdex_jax.data.calibration import Calibration
from realdex_jax.data.realdex_raw import TRACK
from realdex_jax.data.realdex_write import Picture, Scene
from realdex_jax.hand import joints
from realdex_jax.hand.load import HandModel
from sim import rig

SOURCE = "source.json"
"""What a recording in RealDex's layout was made of."""
TRUE_TRACK = Path("tracking_result") / "true_pose.txt"
"""Where the object truly is in a virtual recording, in the form of the track."""
FORMAT = "realdex_jax.to_realdex/1"
_ARM = arm.JOINTS
_WRIST = ("rh_WRJ2", "rh_WRJ1")
_ONE_SURFACE = 0.02
"""Share of their depth by which readings side by side on one surface differ at most."""
_HAND = tuple(f"rh_{name}" for name in joints.NAMES)


def to_realdex(
    recording: Recording,
    folder: Path,
    wxyz_xyz_world_cam: Mapping[int, Float[np.ndarray, " 7"]],
    *,
    camera_ns: Mapping[int, Int[np.ndarray, " _"]] | None = None,
    robot_ns: Int[np.ndarray, " _"] | None = None,
    hand: HandModel | None = None,
    wxyz_xyz_world_base: Float[np.ndarray, " 7"] | None = None,
    wxyz_xyz_world_object: Float[np.ndarray, "t 7"] | None = None,
    segments: Sequence[tuple[int, int]] = (),
    tell: Callable[[int], object] = lambda _: None,
) -> int:
    """Writes a recording, or what is missing of it.

    The calibration goes beside its folder, or into it where another one is there.

    Args:
        recording: The recording; camera 0 is in it.
        folder: Named `<object>_<n>`.
        wxyz_xyz_world_cam: T_world_cam of each camera's colour lens.
        camera_ns: Stamps of each camera's frames by one clock; those of `timeline.of_cameras`,
            for cameras on the sync cable, if None.
        robot_ns: Stamps of the robot's states by that clock; their arrival if None.
        hand: The hand; without it the robot is left out.
        wxyz_xyz_world_base: T_world_base of the arm; without it the robot is left out.
        wxyz_xyz_world_object: T_world_object at the main camera's frames, once it is known; a
            track that is there already stays.
        segments: First frame and end (exclusive) of each grasp.
        tell: Told the number of each frame when it is complete.

    Returns:
        How many pictures were written.

    Raises:
        CaptureError: Camera 0 is missing, a camera has no place, or the folder was made of another
            recording, or with other places.
        DatasetError: Stamps do not rise, or lengths do not fit together.
        SyncError: Stamps of cameras that make no clock.
    """
    cameras = recording.cameras
    lost = [c for c in cameras if c not in wxyz_xyz_world_cam]
    if 0 not in cameras or lost:
        raise CaptureError(
            f"{recording.path}: cameras {cameras}, without a place {lost}; camera 0 must be there "
            "and each must have its place from calibration"
        )
    stamps = camera_ns or timeline.of_cameras(recording).camera_ns
    begin(folder, recording, wxyz_xyz_world_cam, wxyz_xyz_world_base)
    if (folder / TRACK).is_file():
        wxyz_xyz_world_object = None
    series, links, link_ns = recording.joints(), {}, None
    if series is not None and hand is not None and wxyz_xyz_world_base is not None:
        links = links_of(hand, series, wxyz_xyz_world_base)
        link_ns = series.stamps.host_ns if robot_ns is None else robot_ns
    from_cam0 = rigid.inverse(wxyz_xyz_world_cam[0])
    places = {c: rigid.compose(from_cam0, wxyz_xyz_world_cam[c]) for c in cameras}
    optics = {c: recording.optics(c) for c in cameras}
    lenses = {c: optics[c].colour for c in cameras}
    _write_calibration(folder, Calibration(cameras, lenses, places))
    scene = Scene(
        time_ns=stamps[0],
        links=links,
        wxyz_xyz_world_object=wxyz_xyz_world_object,
        wxyz_xyz_world_cam0=wxyz_xyz_world_cam[0],
        segments=segments,
        camera_ns={c: stamps[c] for c in cameras},
        link_ns=link_ns,
    )

    def take(camera: int, k: int) -> Picture:
        frame = recording.frame(camera, k)
        return Picture(frame.colour, registered(frame.depth, optics[camera]))

    return realdex_write.write_recording(folder, scene, cameras, take, tell)


def _write_calibration(folder: Path, rig: Calibration) -> None:
    """Beside a recording, or into it where recordings of another calibration are beside it."""
    beside = folder.parent / calibration.FOLDER
    if beside.is_dir():
        known = calibration.read(beside)
        same = known.cameras == rig.cameras and known.lenses == rig.lenses
        same = same and all(
            np.allclose(known.wxyz_xyz_cam0_cam[c], rig.wxyz_xyz_cam0_cam[c], atol=1e-9)
            for c in rig.cameras
        )
        if not same:
            realdex_write.write_calibration(folder, rig)
            return
    realdex_write.write_calibration(folder.parent, rig)


def begin(
    folder: Path,
    recording: Recording,
    wxyz_xyz_world_cam: Mapping[int, Float[np.ndarray, " 7"]],
    wxyz_xyz_world_base: Float[np.ndarray, " 7"] | None,
) -> None:
    """Notes what a folder is made of, or compares with what is noted.

    Pictures that are there stay, and so does a track: both would be wrong beside stamps and places
    of another recording or calibration.

    Raises:
        CaptureError: It was made of something else, or nobody knows of what.
    """
    places = {c: wxyz_xyz_world_cam[c] for c in recording.cameras}
    base = np.zeros(0) if wxyz_xyz_world_base is None else wxyz_xyz_world_base
    made_of = {
        "format": FORMAT,
        "recording": fingerprint(recording),
        "places": _digest(*(np.round(x, 9) for x in (*places.values(), base))),
    }
    note = folder / SOURCE
    if not note.is_file():
        if folder.is_dir() and any(folder.iterdir()):
            raise CaptureError(
                f"{folder} is not empty and has no {SOURCE}, which says what it was made of; "
                "choose another folder"
            )
        text = json.dumps(made_of | {"from": recording.path.name}, indent=1)
        realdex_write.write(note, text.encode())
        return
    known = textfile.read_json(note)
    for key, what in (
        ("recording", "of another recording"),
        ("places", "with another calibration"),
    ):
        if known.get(key) != made_of[key]:
            raise CaptureError(
                f"{folder} was made {what} ({known.get('from')!r:.60}), and its pictures or its "
                "track are of that; choose another folder, or delete it"
            )


def fingerprint(recording: Recording) -> str:
    """A digest of optics and all stamps: no two recordings have the same."""
    series = recording.joints()
    parts: list[Stamps] = [recording.stamps(c) for c in recording.cameras]
    parts += [series.stamps] if series is not None else []
    optics = {c: optics_json(recording.optics(c)) for c in recording.cameras}
    text = np.frombuffer(json.dumps(optics, sort_keys=True).encode(), np.uint8)
    return _digest(text, *(x for s in parts for x in (s.number, s.device_ns, s.host_ns)))


def _digest(*arrays: np.ndarray) -> str:
    found = hashlib.sha256()
    for array in arrays:
        found.update(len(array).to_bytes(8, "little"))
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


def links_of(
    hand: HandModel, series: JointSeries, wxyz_xyz_world_base: Float[np.ndarray, " 7"]
) -> realdex_write.Links:
    """The links of arm and hand over a series of joint states.

    Args:
        hand: The hand.
        series: With all joints of arm, wrist and hand by their ROS names, in any order.
        wxyz_xyz_world_base: T_world_base of the arm.

    Raises:
        CaptureError: A joint is missing.
    """
    wanted = (*_ARM, *_WRIST, *_HAND)
    missing = [name for name in wanted if name not in series.names]
    if missing:
        raise CaptureError(
            f"the recorded joints lack {', '.join(missing)}; there are {', '.join(series.names)}"
        )
    q = series.q[:, [series.names.index(name) for name in wanted]]
    q_arm, q_wrist, q_hand = q[:, :6], q[:, 6:8], q[:, 8:]
    R, p = arm.palm_pose(jnp.asarray(q_arm, jnp.float32))
    turn = Rotation.from_matrix(np.asarray(R, np.float64)).as_quat(scalar_first=True)
    # Of a straight wrist; the true palm hangs on the same forearm.
    straight = rigid.compose(wxyz_xyz_world_base, np.concatenate([turn, np.asarray(p)], axis=1))
    still = np.repeat(np.eye(7)[:1], len(q), axis=0)
    palm_forearm = [
        realdex_write.hand_links(hand, q_hand, still, wrist)["world", "rh_forearm"]
        for wrist in (None, q_wrist)
    ]
    forearm = rigid.compose(straight, palm_forearm[0])
    palm = rigid.compose(forearm, rigid.inverse(palm_forearm[1]))
    rotvec = Rotation.from_quat(palm[:, :4], scalar_first=True).as_rotvec()
    phi = np.concatenate([q_hand, palm[:, 4:], rotvec], axis=1)
    return rig.robot_links(
        hand, phi, q_wrist=q_wrist, q_arm=q_arm, wxyz_xyz_world_base=wxyz_xyz_world_base
    )


def registered(depth: UInt16[np.ndarray, "H W"], optics: Optics) -> UInt16[np.ndarray, "h w"]:
    """A depth picture as the colour lens would see it, millimetres along its axis.

    The nearest reading that covers a pixel counts; a depth pixel covers as many colour pixels as it
    is larger, so that surfaces that are seen head on have no holes. Where the four readings around
    what a pixel shows are of one surface, its depth is then taken between them.

    Args:
        depth: In the depth lens's picture.
        optics: The camera's lenses.
    """
    if optics.depth == optics.colour and (optics.wxyz_xyz_colour_depth == np.eye(7)[0]).all():
        return depth  # as RealDex's pictures are
    p_depth, _ = optics.depth.back_project(depth / 1000.0)
    p = rigid.apply(optics.wxyz_xyz_colour_depth, p_depth)
    p = p[p[:, 2] > 0.05]
    lens = optics.colour
    pixel = lens.project(p)
    # Off the middle the lenses differ by up to a third, and places are rounded.
    size = int(1.3 * lens.fx / optics.depth.fx) + 1
    corner = np.rint(pixel - (size - 1) / 2).astype(np.int64)
    nearest = np.full(lens.height * lens.width, np.inf)
    for column in range(size):
        for row in range(size):
            at = corner + np.array([column, row])
            inside = ((at >= 0) & (at < [lens.width, lens.height])).all(axis=1)
            flat = at[inside, 1] * lens.width + at[inside, 0]
            np.minimum.at(nearest, flat, p[inside, 2])
    found = np.where(np.isfinite(nearest), nearest, 0.0).reshape(lens.height, lens.width)
    return realdex_write.millimetres(_between(found, depth / 1000.0, optics))


def _between(
    found: Float[np.ndarray, "h w"], depth: Float[np.ndarray, "H W"], optics: Optics
) -> Float[np.ndarray, "h w"]:
    """Depth in the colour picture (m), the readings about each pixel weighed by their nearness."""
    p, seen = optics.colour.back_project(found)
    p_depth = rigid.apply(rigid.inverse(optics.wxyz_xyz_colour_depth), p)
    pixel = optics.depth.project(p_depth)
    # At the picture's rim the outer reading counts twice.
    size = np.array([optics.depth.width, optics.depth.height])
    corner = np.clip(np.floor(pixel).astype(np.int64), 0, size - 2)
    share = np.clip(pixel - corner, 0.0, 1.0)
    around = np.stack([depth[corner[:, 1] + j, corner[:, 0] + i] for j in (0, 1) for i in (0, 1)])
    across = np.stack([1.0 - share[:, 0], share[:, 0]])
    down = np.stack([1.0 - share[:, 1], share[:, 1]])
    weight = (down[:, None] * across[None]).reshape(4, -1)
    z = (weight * around).sum(axis=0)
    one = (around.min(axis=0) > 0.0) & (np.ptp(around, axis=0) < _ONE_SURFACE * z)
    one &= np.abs(z - p_depth[:, 2]) < _ONE_SURFACE * z
    moved = rigid.apply(optics.wxyz_xyz_colour_depth, p_depth * (z / p_depth[:, 2])[:, None])
    better = found.copy()
    better[seen] = np.where(one, moved[:, 2], p[:, 2])
    return better
