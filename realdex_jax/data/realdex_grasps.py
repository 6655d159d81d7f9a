"""Grasps and reaches out of RealDex frames: the palm's pose, what is held, what comes before it."""

import dataclasses
import functools
import itertools
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Bool, Float
from scipy.ndimage import median_filter
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
"""held: in contact, and the object is being moved. contact: hand and object are near. all: every
frame, approach included, as the release's own loader takes them."""

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
"""Seconds before contact at which the hand is taken as opened: the pre-grasp. Contact that is lost
for less is one contact."""
AWAY = 0.05
"""Metres that the palm travels at least in a reach; less is an adjustment."""

_PAST_STOPS = LIMIT_TOLERANCE - 1e-3  # room for rounding to float32
_CHUNK = 512
_WINDOW = 4  # frames to both sides over which an object's motion is looked at
_PAUSE = 8  # frames at rest that do not end a motion
_SPIKE = 5  # frames whose median is the object's pose: tracking that slips for two does not show


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
    wrist_measured: Bool[np.ndarray, " t"]
    """Rows in which the palm follows from wrist angles recorded at their time."""

    @property
    def apart(self) -> Float[np.ndarray, " t"]:
        """Metres from the object's origin to the palm's."""
        return np.linalg.norm(self.p_object_palm, axis=1)


def pose(frames: Frames, root: Root = "forearm") -> Posed:
    """Poses of the palm.

    Args:
        frames: A recording or a sequence.
        root: "forearm": the stored hand pose is that of `rh_forearm`, as the release writes it;
            the palm follows over the wrist, which is straight where its angles were not recorded.
            "as-stored": it is that of the palm, as the release's training code takes it.
    """
    stored = Rotation.from_matrix(frames.R_world_root)
    measured = np.full(len(frames.q), root == "forearm" and frames.wrist is not None)
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
        wrist_measured=measured if frames.wrist_known is None else measured & frames.wrist_known,
    )


def segments(posed: Posed) -> tuple[tuple[int, int], ...]:
    """Rows [start, end) of each grasp.

    Where the recording does not list them, one ends with each motion of the object, and the next
    starts where the hand is farthest from the object before it moves again. Motions between which
    the hand does not leave the object are one.
    """
    frames = posed.frames
    if frames.segments is not None:
        return frames.segments
    known = _last_usable(frames.usable)
    place = _unspiked(frames.p_world_object[known])
    last = len(place) - 1
    at = np.arange(len(place))
    ahead, behind = np.minimum(at + _WINDOW, last), np.maximum(at - _WINDOW, 0)
    rows = np.flatnonzero(np.linalg.norm(place[ahead] - place[behind], axis=1) > MOVED)
    if not len(rows):
        return ((0, len(place)),)
    runs = np.split(rows, np.flatnonzero(np.diff(rows) > _PAUSE) + 1)
    palm, apart = posed.p_object_palm[known], posed.apart[known]
    found, start = [], 0
    for run, following in itertools.pairwise(runs):
        let_go, end, again = max(int(run[-1]) - _WINDOW, 0), int(run[-1]) + 1, int(following[0])
        if np.linalg.norm(palm[end:again] - palm[let_go], axis=1).max() > AWAY:
            found.append((start, end))
            start = end + int(np.argmax(apart[end:again]))
    return (*found, (start, int(runs[-1][-1]) + 1))


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
        rule: Which rows are grasps. If an object is not moved in contact, the last row in contact
            before it is moved is held.
        most: Grasps to keep, spread evenly; 0 keeps all that are distinct, or all under "all".
    """
    start, end = segment
    usable = posed.frames.usable[start:end]
    near = np.ones(end - start, bool) if touching is None else touching[start:end]
    chosen = usable if rule == "all" else usable & near
    if rule == "held":
        way = _way(posed.frames, segment)
        held = chosen & way.carried & ~way.spiked
        if not held.any() and touching is not None:
            held[np.flatnonzero(chosen[: way.moved] & ~way.spiked[: way.moved])[-1:]] = True
        chosen = held
    rows = start + np.flatnonzero(chosen)
    if rule != "all":
        rows = _distinct(posed, rows)
    if most and len(rows) > most:
        rows = rows[np.round(np.linspace(0, len(rows) - 1, most)).astype(int)]
    if not len(rows):
        return none()
    # The hand is open a while before it touches, or before the first grasp.
    begin, touch = _approach(posed, segment, touching)
    first = int(rows[0]) if touching is None else touch
    time = posed.frames.time[begin:end]
    ready = usable[begin - start :] & (time <= posed.frames.time[first] - LEAD)
    opened = begin + int(
        np.flatnonzero(ready)[-1] if ready.any() else np.argmax(usable[begin - start :])
    )
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
            "wrist_measured": posed.wrist_measured[rows].astype(np.float32),
        },
    )


def reach(
    posed: Posed,
    segment: tuple[int, int],
    touching: Bool[np.ndarray, " t"] | None = None,
    notes: list[str] | None = None,
) -> Motion | None:
    """The last reach of one segment, at 15 Hz, up to where the object moves; None if there is none.

    A frame that cannot be used cuts off what is before it. Where the object's tracking slips, it is
    taken to be where it was before.

    Args:
        posed: The frames.
        segment: Its rows.
        touching: Rows in contact; where the hand lets go of the object in the segment and comes
            back, the reach begins where it is farthest. None if contact is not known.
        notes: Told of a reach that is lost because of frames that cannot be used.
    """
    start, _ = _approach(posed, segment, touching)
    way = _way(posed.frames, segment)
    end = segment[0] + way.moved
    whole = start + np.flatnonzero(posed.frames.usable[start:end])
    lost = np.flatnonzero(~posed.frames.usable[start:end])
    begin = start + (int(lost[-1]) + 1 if len(lost) else 0)
    rows = slice(begin, end)
    if not _travels(posed, np.arange(begin, end)):
        if _travels(posed, whole) and notes is not None:
            notes.append(
                f"the reach of rows {start} to {end} is lost: {len(lost)} of them cannot be used, "
                f"the last {end - begin} can"
            )
        return None
    frames, time = posed.frames, posed.frames.time[rows] - posed.frames.time[begin]
    seen = segment[0] + _last_usable(~way.spiked)[begin - segment[0] : way.moved]
    R_world_object = Rotation.from_matrix(frames.R_world_object[seen])
    found = Motion(
        time=time.astype(np.float32),
        phi=np.concatenate(
            [posed.q[rows], posed.p_world_palm[rows], posed.R_world_palm[rows].as_rotvec()], axis=1
        ).astype(np.float32),
        wxyz_xyz_world_object=np.concatenate(
            [R_world_object.as_quat(scalar_first=True), frames.p_world_object[seen]], axis=1
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


def _travels(posed: Posed, rows: np.ndarray) -> bool:
    """Whether rows are long enough for a motion, and the palm goes somewhere in them."""
    if len(rows) < MIN_FRAMES:
        return False
    way = posed.p_world_palm[rows[-1]] - posed.p_world_palm[rows[0]]
    return bool(np.linalg.norm(way) >= AWAY)


def _approach(
    posed: Posed, segment: tuple[int, int], touching: Bool[np.ndarray, " t"] | None
) -> tuple[int, int]:
    """Rows at which the hand sets out, and at which the contact begins that moves the object.

    A segment may begin while the hand still has the object from the grasp before.
    """
    start, end = segment
    if touching is None:
        return start, start
    rows = start + np.flatnonzero((touching & posed.frames.usable)[start:end])
    before = rows[rows <= start + _way(posed.frames, segment).moved]
    rows = before if len(before) else rows[:1]
    if not len(rows):
        return start, start
    ends = np.flatnonzero(np.diff(posed.frames.time[rows]) > LEAD)
    if not len(ends):
        return start, int(rows[0])
    let_go, touch = rows[ends[-1]], int(rows[ends[-1] + 1])
    free = let_go + 1 + np.flatnonzero(posed.frames.usable[let_go + 1 : touch])
    return int(free[np.argmax(posed.apart[free])] if len(free) else let_go + 1), touch


class _Way(NamedTuple):
    """What an object does in the n rows of a segment."""

    moved: int
    """The first row in which it has left its place; n if it never does."""
    carried: Bool[np.ndarray, " n"]
    """Rows away from its first place in which it is not at rest."""
    spiked: Bool[np.ndarray, " n"]
    """Rows in which its tracking slips."""


def _way(frames: Frames, segment: tuple[int, int]) -> _Way:
    """How an object leaves its place; what lasts for less than 0.1 s is no motion."""
    rows = slice(*segment)
    usable = frames.usable[rows]
    raw = np.concatenate(
        [frames.p_world_object[rows], frames.R_world_object[rows].reshape(-1, 9)], axis=1
    )[_last_usable(usable)]
    pose = _unspiked(raw)
    gone = usable & _differ(pose, pose[:1])
    if not gone.any():
        return _Way(len(usable), gone, _differ(raw, pose))
    ahead = np.minimum(np.arange(len(pose)) + np.arange(_PAUSE + 1)[:, None], len(pose) - 1)
    still = np.all([~_differ(pose[k], pose) for k in ahead], axis=0)
    resting = np.zeros(len(pose), bool)
    resting[ahead[:, still]] = True
    moved = int(np.argmax(gone))
    carried = gone & ~resting
    carried[moved] = True  # of an object that moves slowly, nothing else is left
    return _Way(moved, carried, _differ(raw, pose))


def _differ(pose: Float[np.ndarray, "#n 12"], other: Float[np.ndarray, "#n 12"]) -> np.ndarray:
    """Whether an object is in another place (position, then matrix by rows)."""
    trace = (pose[:, 3:] * other[:, 3:]).sum(axis=1)
    angle = np.arccos(np.clip((trace - 1) / 2, -1, 1))
    gone = np.linalg.norm(pose[:, :3] - other[:, :3], axis=1) > MOVED
    return np.asarray(gone | (angle > TURNED))


def _unspiked(values: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "n k"]:
    """Values without excursions of one or two rows; what rises or falls throughout is kept."""
    return np.asarray(median_filter(values, (_SPIKE, 1), mode="mirror"))


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
