"""Grasps and reaches out of RealDex frames: the palm's pose, what is held, what comes before it."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Literal

import jax
import numpy as np
from jaxtyping import Array, Bool, Float
from scipy.spatial import KDTree
from scipy.spatial.transform import Rotation

from realdex_jax.data import motion as motions
from realdex_jax.data import realdex_layout as layout
from realdex_jax.data.motion import MIN_FRAMES, RATE, Motion
from realdex_jax.data.realdex_frames import Frames
from realdex_jax.data.schema import LIMIT_TOLERANCE, GraspSet
from realdex_jax.hand import joints, kinematics
from realdex_jax.hand.load import load

Root = Literal["forearm", "as-stored"]
Rule = Literal["held", "contact", "all"]

ROOTS: tuple[Root, ...] = ("forearm", "as-stored")
RULES: tuple[Rule, ...] = ("held", "contact", "all")
"""held: in contact, and the object has left its place. contact: hand and object are near. all:
every frame, approach included, as the release's own loader takes them."""

CONTACT = 1e-3**0.5
"""Metres between hand and object that count as contact: the release's own, 31.6 mm."""
MOVED, TURNED = 0.01, np.deg2rad(10)
"""Metres or radians by which an object has left its place; tracking jitters by less."""
MOST = 22
"""Grasps kept of one segment; the paper has 59,000 of 2,630 sequences."""
DISTINCT = (2e-3, np.deg2rad(2), 0.05)
"""Metres, radians of the palm, or radians of a joint by which a further grasp of a segment differs
from the one before: a hand that carries an object keeps its grasp."""
LEAD = 0.5
"""Seconds before the first contact at which the hand is taken as opened: the pre-grasp."""
AWAY = 0.05
"""Metres that the palm travels at least in a reach; less is an adjustment."""

_PAST_STOPS = LIMIT_TOLERANCE - 1e-3  # room for rounding to float32
_CHUNK = 512
_WINDOW = 4  # frames to both sides over which an object's motion is looked at
_PAUSE = 8  # frames at rest that do not end a motion


@dataclasses.dataclass(frozen=True, eq=False)
class Posed:
    """t frames with the palm in the world and in the object's frame."""

    frames: Frames
    q: Float[np.ndarray, "t 22"]
    """Joint angles (rad), as far beyond their limits as a grasp set may have them."""
    beyond: Float[np.ndarray, " t"]
    """Largest angle (rad) by which one was beyond its limits as stored."""
    R_world_palm: Rotation
    p_world_palm: Float[np.ndarray, "t 3"]
    R_object_palm: Rotation
    p_object_palm: Float[np.ndarray, "t 3"]
    wrist_measured: bool
    """Whether the palm follows from recorded wrist angles, not from a straight wrist."""


def pose(frames: Frames, root: Root = "forearm") -> Posed:
    """Poses of the palm.

    Args:
        frames: A recording or a sequence.
        root: "forearm": the stored hand pose is that of `rh_forearm`, as the release writes it;
            the palm follows over the wrist, which is straight where its angles were not recorded.
            "as-stored": it is that of the palm, as the release's training code takes it.
    """
    stored = Rotation.from_matrix(frames.R_world_root)
    if root == "forearm":
        wrist = np.zeros((len(frames.q), 2)) if frames.wrist is None else frames.wrist
        R_world_palm, p_world_palm = layout.palm(stored, frames.p_world_root, wrist)
    else:
        R_world_palm, p_world_palm = stored, frames.p_world_root
    R_object_world = Rotation.from_matrix(frames.R_world_object).inv()
    q = np.clip(frames.q, joints.LOWER - _PAST_STOPS, joints.UPPER + _PAST_STOPS)
    return Posed(
        frames=frames,
        q=q,
        beyond=np.maximum(joints.LOWER - frames.q, frames.q - joints.UPPER).max(axis=1).clip(0),
        R_world_palm=R_world_palm,
        p_world_palm=p_world_palm,
        R_object_palm=R_object_world * R_world_palm,
        p_object_palm=R_object_world.apply(p_world_palm - frames.p_world_object),
        wrist_measured=root == "forearm" and frames.wrist is not None,
    )


def segments(frames: Frames) -> tuple[tuple[int, int], ...]:
    """Rows [start, end) of each grasp.

    Where the recording does not list them, one ends with each motion of the object and the next
    starts there.
    """
    if frames.segments is not None:
        return frames.segments
    place = frames.p_world_object[_last_usable(frames.usable)]
    last = len(place) - 1
    at = np.arange(len(place))
    ahead, behind = np.minimum(at + _WINDOW, last), np.maximum(at - _WINDOW, 0)
    moving = np.linalg.norm(place[ahead] - place[behind], axis=1) > MOVED
    rows = np.flatnonzero(moving)
    if not len(rows):
        return ((0, len(place)),)
    runs = np.split(rows, np.flatnonzero(np.diff(rows) > _PAUSE) + 1)
    ends = [int(run[-1]) + 1 for run in runs]
    return tuple(zip((0, *ends[:-1]), ends, strict=True))


def contact(posed: Posed, points: Float[np.ndarray, "n 3"] | None) -> Bool[np.ndarray, " t"] | None:
    """Rows in contact: as the release lists them, or by the distance of hand and object.

    Args:
        posed: The frames.
        points: Points of the object's surface in its frame, metres, if there are any.

    Returns:
        None if nothing is known. Distances are those of joints and fingertips, which lie about a
        finger's radius inside the hand; so this finds contact a centimetre later than the release.
    """
    if posed.frames.contact is not None or points is None or not len(points):
        return posed.frames.contact
    p_palm = np.concatenate(
        [_key_points()(chunk) for chunk in _chunks(posed.q.astype(np.float32))]
    )[: len(posed.q)]
    p_object = np.einsum("tij,tkj->tki", posed.R_object_palm.as_matrix(), p_palm)
    p_object += posed.p_object_palm[:, None]
    nearest, _ = KDTree(points).query(p_object, distance_upper_bound=CONTACT)
    return np.asarray(np.isfinite(nearest).any(axis=1))


def grasps(
    posed: Posed,
    segment: tuple[int, int],
    touching: Bool[np.ndarray, " t"] | None,
    rule: Rule = "held",
    most: int = MOST,
) -> GraspSet:
    """Grasps of one segment in the object's frame; may be none.

    Args:
        posed: The frames.
        segment: Its rows.
        touching: Rows in contact; None if that is not known.
        rule: Which rows are grasps. If an object is never moved, its last row in contact is held.
        most: Grasps to keep, spread evenly; 0 keeps all that are distinct, or all under "all".
    """
    start, end = segment
    usable = posed.frames.usable[start:end]
    near = np.ones(end - start, bool) if touching is None else touching[start:end]
    chosen = usable if rule == "all" else usable & near
    if rule == "held":
        held = chosen & _moved(posed.frames, segment)
        if not held.any() and touching is not None and chosen.any():
            held[np.flatnonzero(chosen)[-1]] = True
        chosen = held
    rows = start + np.flatnonzero(chosen)
    if rule != "all":
        rows = _distinct(posed, rows)
    if most and len(rows) > most:
        rows = rows[np.round(np.linspace(0, len(rows) - 1, most)).astype(int)]
    if not len(rows):
        return none()
    # The hand is open a while before it first touches, or before the first grasp.
    first = int(rows[0]) if touching is None else start + int(np.argmax(usable & near))
    time = posed.frames.time[start:end]
    ready = np.flatnonzero(usable & (time <= posed.frames.time[first] - LEAD))
    opened = start + int(ready[-1] if len(ready) else np.argmax(usable))
    R_object_palm = Rotation.from_matrix(posed.R_object_palm.as_matrix()[rows])
    phi = np.concatenate(
        [posed.q[rows], posed.p_object_palm[rows], R_object_palm.as_rotvec()], axis=1
    ).astype(np.float32)
    return GraspSet(
        phi=phi,
        q_pregrasp=np.repeat(posed.q[[opened]], len(rows), axis=0).astype(np.float32),
        q_squeeze=phi[:, :22],
        columns={
            "beyond_limits": posed.beyond[rows].astype(np.float32),
            "wrist_measured": np.full(len(rows), posed.wrist_measured, np.float32),
        },
    )


def reach(posed: Posed, segment: tuple[int, int]) -> Motion | None:
    """The reach of one segment, at 15 Hz, up to where the object moves; None if there is none.

    A frame that cannot be used cuts off what is before it.
    """
    start, end = segment
    moved = _moved(posed.frames, segment)
    end = start + int(moved.argmax()) if moved.any() else end
    lost = np.flatnonzero(~posed.frames.usable[start:end])
    start += int(lost[-1]) + 1 if len(lost) else 0
    rows = slice(start, end)
    if end - start < MIN_FRAMES:
        return None
    if np.linalg.norm(posed.p_world_palm[end - 1] - posed.p_world_palm[start]) < AWAY:
        return None
    frames, time = posed.frames, posed.frames.time[rows] - posed.frames.time[start]
    R_world_object = Rotation.from_matrix(frames.R_world_object[rows])
    found = Motion(
        time=time.astype(np.float32),
        phi=np.concatenate(
            [posed.q[rows], posed.p_world_palm[rows], posed.R_world_palm[rows].as_rotvec()], axis=1
        ).astype(np.float32),
        wxyz_xyz_world_object=np.concatenate(
            [R_world_object.as_quat(scalar_first=True), frames.p_world_object[rows]], axis=1
        ).astype(np.float32),
    )
    if np.abs(np.diff(time) * RATE - 1).max() > 0.03:
        if time[-1] * RATE < MIN_FRAMES:
            return None
        found = motions.resample(found)
    return motions.validate(found, frames.name)


def none() -> GraspSet:
    """No grasps, with the columns that `grasps` gives."""
    columns = {name: np.zeros(0, np.float32) for name in ("beyond_limits", "wrist_measured")}
    empty = np.zeros((0, 28), np.float32)
    return GraspSet(empty, empty[:, :22], empty[:, :22], columns)


def _moved(frames: Frames, segment: tuple[int, int]) -> Bool[np.ndarray, " t"]:
    """Rows in which the object has left its place in the segment's first usable row."""
    rows = slice(*segment)
    usable = frames.usable[rows]
    first = int(np.argmax(usable))
    place, turn = frames.p_world_object[rows], frames.R_world_object[rows]
    trace = (turn * turn[first]).sum(axis=(1, 2))
    angle = np.arccos(np.clip((trace - 1) / 2, -1, 1))
    gone = np.linalg.norm(place - place[first], axis=1) > MOVED
    return np.asarray(usable & (gone | (angle > TURNED)))


def _distinct(posed: Posed, rows: np.ndarray) -> np.ndarray:
    """Rows whose grasp differs from the kept one before."""
    kept: list[int] = []
    for row in rows.tolist():
        if kept:
            last = kept[-1]
            shift = np.linalg.norm(posed.p_object_palm[row] - posed.p_object_palm[last])
            turn = (posed.R_object_palm[row].inv() * posed.R_object_palm[last]).magnitude()
            bend = np.abs(posed.q[row] - posed.q[last]).max()
            if shift < DISTINCT[0] and turn < DISTINCT[1] and bend < DISTINCT[2]:
                continue
        kept.append(row)
    return np.array(kept, int)


def _last_usable(usable: Bool[np.ndarray, " t"]) -> np.ndarray:
    """For each row the last usable one up to it; the first usable one for those before."""
    at = np.where(usable, np.arange(len(usable)), int(np.argmax(usable)))
    return np.maximum.accumulate(at)


def _chunks(q: Float[np.ndarray, "t 22"]) -> list[np.ndarray]:
    """Rows in chunks of one length, so that one program serves all."""
    more = -len(q) % _CHUNK
    padded = np.concatenate([q, np.zeros((more, 22), np.float32)])
    return np.split(padded, len(padded) // _CHUNK)


@functools.cache
def _key_points() -> Callable[[np.ndarray], Array]:
    hand = load("shadow")
    return jax.jit(lambda q: kinematics.keypoints(hand, kinematics.forward(hand, q)))
