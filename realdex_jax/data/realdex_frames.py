"""Poses of a RealDex file as frames: arrays checked for shape, rows for sense.

A row is a scene frame: an image of the main camera. Rows that cannot be used stay, masked, and a
note says why: a pose that is not finite, a matrix that is no rotation, an axis-angle that its
writer got wrong, a frame without the object, joints far beyond their limits.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.spatial.transform import Rotation

from realdex_jax.errors import DatasetError
from realdex_jax.hand import joints

MAX_BEYOND = 0.4
"""Radians a joint may lie beyond its limits and still be projected onto them; angles found from
link poses pass the stops by a tenth and more."""
MAX_STEP = 0.6
"""Radians that hand or object may turn from frame to frame; more is a wrong axis, not a motion."""
MAX_ROWS = 1_000_000
"""Most frames of one file: 18 hours."""
MAX_POINTS = 100_000
"""Most points of a sequence's cloud; the release keeps 7,000."""

_HALF_TURN = 1e-4  # rad within which an angle counts as half a turn; the writer's rule has 1e-6
_NEAR = 0.3  # rad from half a turn from where axes may have been divided by a wrong sine
_DETOUR = 0.1  # rad off its way for one frame, there; a hand does not go to and fro so fast
_LOST_RUN = 10  # frames of another orientation in a row that are a new place, not a slip
_SKEW = 1e-2  # largest entry of R'R - I that rounding and tracking leave


@dataclasses.dataclass(frozen=True, eq=False)
class Frames:
    """t frames of one file, in the release's own frames."""

    name: str
    """The file, for messages."""
    time: Float[np.ndarray, " t"]
    """Seconds since the first frame."""
    q: Float[np.ndarray, "t 22"]
    """Joint angles (rad) in our order and signs, as stored."""
    R_world_root: Float[np.ndarray, "t 3 3"]
    """Orientation of the hand's root, `rh_forearm`."""
    p_world_root: Float[np.ndarray, "t 3"]
    """Origin of the hand's root, metres."""
    R_world_object: Float[np.ndarray, "t 3 3"]
    """Orientation of the object's mesh."""
    p_world_object: Float[np.ndarray, "t 3"]
    """Origin of the object's mesh, metres."""
    usable: Bool[np.ndarray, " t"]
    """Rows that are whole."""
    wrist: Float[np.ndarray, "t 2"] | None = None
    """WRJ2 and WRJ1 (rad), if they were recorded."""
    wrist_known: Bool[np.ndarray, " t"] | None = None
    """Rows at whose time they were, and not taken from another time; all if None."""
    contact: Bool[np.ndarray, " t"] | None = None
    """Rows that the release lists as contact, if it does."""
    segments: tuple[tuple[int, int], ...] | None = None
    """Rows [start, end) of each grasp; None if the file does not say."""
    points: Float[np.ndarray, "n 3"] | None = None
    """Cloud of the first row, metres, world frame."""
    colors: Float[np.ndarray, "n 3"] | None = None
    """Its colours, 0 to 1."""
    notes: tuple[str, ...] = ()
    """What was found odd and how it was read."""


@dataclasses.dataclass(frozen=True, eq=False)
class Arrays:
    """The five arrays that both kinds of file have, of the right shapes.

    Orientations are matrices in recordings and axis-angle in sequences.
    """

    q: Float[np.ndarray, "t 22"]
    p_hand: Float[np.ndarray, "t 3"]
    R_hand: Float[np.ndarray, "t ..."]
    p_object: Float[np.ndarray, "s 3"]
    R_object: Float[np.ndarray, "s ..."]

    def frames(self, rows: Int[np.ndarray, " t"], where: str, notes: list[str]) -> Frames:
        """Rows of the hand with the object's rows that belong to them."""
        R_hand, good_hand = _rotations(self.R_hand, "hand", notes)
        R_object, good_object = _rotations(self.R_object, "object", notes)
        p_object, R_object = self.p_object[rows], R_object[rows]
        usable = good_hand & good_object[rows]
        for what, value in (("joint angles", self.q), ("hand", self.p_hand), ("object", p_object)):
            whole = _finite(value)
            tell(notes, ~whole, f"the {what} are no numbers")
            usable = usable & whole
        beyond = np.maximum(joints.LOWER - self.q, self.q - joints.UPPER).max(axis=1)
        far = usable & ~(beyond <= MAX_BEYOND)
        tell(notes, far, f"a joint is more than {MAX_BEYOND} rad beyond its limits")
        usable = usable & ~far
        if far.sum() > len(far) / 2:
            frame = int(np.argmax(far))
            joint = int(np.argmax(np.maximum(joints.LOWER - self.q, self.q - joints.UPPER)[frame]))
            raise DatasetError(
                f"{where}: {joints.NAMES[joint]} = {self.q[frame, joint]:.3f} rad in frame {frame} "
                f"and so in most frames; its limits are {joints.LOWER[joint]:.3f} to "
                f"{joints.UPPER[joint]:.3f}. Angles are expected in the URDF's order and signs, or "
                'with signs="mjcf" in those of the release\'s hand model'
            )
        for value in (self.q, self.p_hand, p_object):
            value[~usable] = 0.0
        return Frames(
            name=where,
            time=np.zeros(len(self.q)),
            q=self.q,
            R_world_root=R_hand,
            p_world_root=self.p_hand,
            R_world_object=R_object,
            p_world_object=p_object,
            usable=usable,
        )


def take(
    arrays: Mapping[Any, Any], names: tuple[str, ...], where: str, *, matrices: bool, mjcf: bool
) -> Arrays:
    """The five arrays out of a file's content.

    Args:
        arrays: The content.
        names: Their names in the order of `Arrays`.
        where: Shown in errors.
        matrices: Whether orientations are matrices.
        mjcf: Whether joint signs are those of the release's hand model.

    Raises:
        DatasetError: One is missing, is not numbers, or has another shape.
    """
    missing = [name for name in names if name not in arrays]
    if missing:
        has = ", ".join(sorted(str(k)[:40] for k in arrays)[:12]) or "nothing"
        raise DatasetError(f"{where} lacks {', '.join(missing)}; it has {has}")
    turn = (3, 3) if matrices else (3,)
    of_hand = _rows(arrays[names[0]], f"{where}: {names[0]}")
    of_object = _rows(arrays[names[3]], f"{where}: {names[3]}")
    shapes = ((of_hand, 22), (of_hand, 3), (of_hand, *turn), (of_object, 3), (of_object, *turn))
    q, *others = (
        table(arrays[name], shape, f"{where}: {name}")
        for name, shape in zip(names, shapes, strict=True)
    )
    return Arrays(joints.from_dexgraspnet(q) if mjcf else q, *others)


def finished(frames: Frames, notes: list[str]) -> Frames:
    """The frames with their notes.

    Raises:
        DatasetError: None of them can be used.
    """
    if not frames.usable.any():
        why = "; ".join(notes) or "it has none"
        raise DatasetError(f"{frames.name}: no frame can be used: {why}")
    return dataclasses.replace(frames, notes=tuple(notes))


def _rows(value: object, where: str) -> int:
    if not isinstance(value, np.ndarray) or value.ndim < 1:
        raise DatasetError(f"{where} is a {type(value).__name__}; it must be an array of rows")
    if not 1 <= len(value) <= MAX_ROWS:
        raise DatasetError(f"{where} has {len(value)} rows; between 1 and {MAX_ROWS} are read")
    return len(value)


def table(value: object, shape: tuple[int, ...], where: str) -> np.ndarray:
    """A numeric array of that shape as float64, a copy.

    Raises:
        DatasetError: It is something else.
    """
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiu":
        kind = value.dtype if isinstance(value, np.ndarray) else type(value).__name__
        raise DatasetError(f"{where} is {kind}; it must be an array of numbers")
    if value.shape != shape:
        raise DatasetError(f"{where} has shape {value.shape}; it must be {shape}")
    with np.errstate(all="ignore"):  # signalling bits of damaged numbers; finiteness is checked
        found = np.array(value, np.float64)
        found[np.isnan(found)] = np.nan  # one that does not signal later
    return found


def _finite(value: Float[np.ndarray, "t n"]) -> Bool[np.ndarray, " t"]:
    """Rows of numbers of a sensible size."""
    return np.asarray((np.isfinite(value) & (np.abs(value) < 1e3)).all(axis=1))


def _rotations(
    value: np.ndarray, what: str, notes: list[str]
) -> tuple[Float[np.ndarray, "t 3 3"], Bool[np.ndarray, " t"]]:
    """Rotation matrices, and which rows are; the others become the identity.

    Axis-angles of the release were divided by the sine of the angle, and below 1e-6 the axis was
    set to x. Near zero that is harmless; at half a turn the orientation is lost, and near it the
    vector has another length. Such rows are known by their axis, by being longer than half a turn,
    or by a detour from the row before to the next.
    """
    flat = value.reshape(len(value), -1)
    good = _finite(flat)
    tell(notes, ~good, f"the orientation of the {what} is no number")
    if value.ndim == 3:
        R = np.where(good[:, None, None], value, np.eye(3))
        skew = np.abs(np.swapaxes(R, 1, 2) @ R - np.eye(3)).max(axis=(1, 2))
        rotation = (skew < _SKEW) & (np.linalg.det(R) > 0)
        tell(notes, good & ~rotation, f"the matrix of the {what} is no rotation")
        good = good & rotation
        R = Rotation.from_matrix(np.where(good[:, None, None], R, np.eye(3))).as_matrix()
    else:
        rotvec = np.where(good[:, None], value, 0.0)
        lost = np.abs(rotvec - [math.pi, 0.0, 0.0]).max(axis=1) < _HALF_TURN
        tell(notes, lost, f"the {what} is half a turn about x, as the release writes any half turn")
        angle = np.linalg.norm(rotvec, axis=1)
        long = good & (angle > math.pi + _HALF_TURN)
        tell(
            notes,
            long,
            f"the {what} is turned by more than half a turn: its axis has no unit length",
        )
        good = good & ~lost & ~long
        R = Rotation.from_rotvec(rotvec).as_matrix()
        short = _detours(R, good, angle)
        tell(notes, short, f"the {what} leaves its way for a moment, near half a turn")
        good = good & ~short
    slipped = good & _jumps(R, good)
    tell(notes, slipped, f"the {what} turns by more than {MAX_STEP} rad for a moment")
    return R, good & ~slipped


def _detours(
    R: Float[np.ndarray, "t 3 3"], good: Bool[np.ndarray, " t"], angle: Float[np.ndarray, " t"]
) -> Bool[np.ndarray, " t"]:
    """Rows near half a turn over which the way from the row before to the next is a detour."""
    found = np.zeros(len(R), bool)
    rows = np.flatnonzero(good)
    before, row, after = rows[:-2], rows[1:-1], rows[2:]
    more = _angle(R[before], R[row]) + _angle(R[row], R[after]) - _angle(R[before], R[after])
    near = np.minimum(angle[before], angle[after]) > math.pi - _NEAR
    found[row[near & (more > 2 * _DETOUR)]] = True
    return found


def _jumps(R: Float[np.ndarray, "t 3 3"], good: Bool[np.ndarray, " t"]) -> Bool[np.ndarray, " t"]:
    """Rows that leave the motion for a moment; a new orientation that stays is none of them."""
    found = np.zeros(len(R), bool)
    rows = np.flatnonzero(good)
    if len(rows) < 3:
        return found
    runs = np.split(rows, np.flatnonzero(_angle(R[rows[:-1]], R[rows[1:]]) > MAX_STEP) + 1)
    longest = max(range(len(runs)), key=lambda i: len(runs[i]))
    for order, near, far in ((runs[longest + 1 :], -1, 0), (runs[:longest][::-1], 0, -1)):
        last = runs[longest][near]
        for run in order:
            if len(run) <= _LOST_RUN and _angle(R[last], R[run[far]]) > MAX_STEP:
                found[run] = True
            else:
                last = run[near]
    return found


def _angle(R: Float[np.ndarray, "*t 3 3"], other: Float[np.ndarray, "*t 3 3"]) -> np.ndarray:
    """Angle (rad) between orientations."""
    return np.asarray(np.arccos(np.clip(((R * other).sum(axis=(-2, -1)) - 1) / 2, -1, 1)))


def clip_segments(
    bounds: Float[np.ndarray, "n 2"], scene: Int[np.ndarray, " t"], notes: list[str]
) -> tuple[tuple[int, int], ...]:
    """Rows [start, end) of each grasp, clipped to the recording; those without rows are left out.

    Args:
        bounds: First scene frame and end of each, as `segment.txt` lists them.
        scene: Scene frame of each row, rising.
        notes: Told what was clipped or left out.
    """
    if not len(bounds):
        notes.append("segment.txt lists no grasp")
        return ()
    clipped = np.clip(np.trunc(bounds), 0, scene[-1] + 1)
    if (clipped != np.trunc(bounds)).any():
        notes.append("segments beyond the recording were clipped")
    rows = np.searchsorted(scene, clipped)
    kept = rows[:, 0] < rows[:, 1]
    if not kept.all():
        notes.append(f"{np.sum(~kept)} segments without frames left out")
    return tuple((int(start), int(end)) for start, end in rows[kept])


def tell(notes: list[str], rows: Bool[np.ndarray, " t"], what: str) -> None:
    """Adds a note on the rows that something is wrong with."""
    if rows.any():
        notes.append(f"{rows.sum()} of {len(rows)} frames left out, from {rows.argmax()}: {what}")
