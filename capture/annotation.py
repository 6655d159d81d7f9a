"""Object poses of a whole recording: followed, judged, corrected by hand, and kept on disk.

Poses go to `tracking_result/gt_pose.txt`, as in the release; what is known about them beside it, to
`annotation.json`, which alone is read when the work goes on.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import jax.numpy as jnp
import jaxlie
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from capture import symmetry, tracking
from capture.device import CaptureError
from capture.object_model import Model
from capture.symmetry import Symmetry
from capture.tracking import Moment, State, Tracked, TrackingConfig
from realdex_jax.data import realdex_raw, realdex_write, rigid, textfile
from realdex_jax.hand.load import HandModel

FILE = Path("tracking_result") / "annotation.json"
FORMAT = "realdex_jax.annotation/1"
UNKNOWN, FOLLOWED, BY_HAND = range(3)
"""Where a frame's pose is from."""
_AGREE = (0.003, np.deg2rad(3.0))
"""Poses (m, rad) so near to each other are the same to a track that meets another."""


@dataclasses.dataclass(frozen=True, eq=False)
class Annotation:
    """The object over t frames."""

    wxyz_xyz_world_object: Float[np.ndarray, "t 7"]
    """T_world_object; the identity where it is unknown."""
    score: Float[np.ndarray, " t"]
    """As `quality.Quality`."""
    origin: UInt8[np.ndarray, " t"]
    """UNKNOWN, FOLLOWED or BY_HAND."""
    lost: Bool[np.ndarray, " t"]
    """What the tracker said; of poses by hand, too."""

    def flagged(self) -> Int[np.ndarray, " k"]:
        """Frames that somebody should look at: lost or unknown, and not set by hand."""
        wanting = (self.origin == UNKNOWN) | (self.lost & (self.origin == FOLLOWED))
        return np.flatnonzero(wanting)

    def filled(self) -> Float[np.ndarray, "n 7"]:
        """Poses up to the last known frame; unknown ones before it have the nearest known pose."""
        known = np.flatnonzero(self.origin != UNKNOWN)
        if not len(known):
            return np.zeros((0, 7))
        frames = np.arange(known[-1] + 1)
        nearest = known[np.abs(frames[:, None] - known).argmin(axis=1)]
        return self.wxyz_xyz_world_object[nearest]


@dataclasses.dataclass(frozen=True, eq=False)
class Follower:
    """What follows an object through a recording, in either direction."""

    config: TrackingConfig
    hand: HandModel | None
    """Whose points are left out; None if there is none."""
    model: Model
    symmetry: Symmetry
    moment: Callable[[int, Float[np.ndarray, " 3"], float], Moment]
    """Gives what is seen at a frame in the ball about a point (m) with a radius (m)."""

    def begin(self, frame: int, pose: Float[np.ndarray, " 7"]) -> tuple[State, Tracked]:
        """The state at a frame whose pose is known, and how well it fits."""
        T = jaxlie.SE3(jnp.asarray(pose, jnp.float32))
        state = tracking.init(T, jnp.zeros(28))
        moment = self.moment(frame, *tracking.window(self.config, self.model, state))
        tracked = tracking.rate(self.config, self.hand, self.model, T, moment)
        return tracking.init(T, moment.phi), tracked

    def step(self, state: State, frame: int) -> tuple[State, Tracked]:
        """Goes on to a frame next to the last one."""
        moment = self.moment(frame, *tracking.window(self.config, self.model, state))
        return tracking.step(self.config, self.hand, self.model, state, moment)

    def agree(self, a: Float[np.ndarray, " 7"], b: Float[np.ndarray, " 7"]) -> bool:
        """Whether two poses are the same for a track."""
        way, turn = symmetry.apart(self.symmetry, a[None], b[None])
        return bool(way[0] < _AGREE[0] and turn[0] < _AGREE[1])


def empty(count: int) -> Annotation:
    """Of so many frames, none known.

    Raises:
        CaptureError: There is none.
    """
    if count < 1:
        raise CaptureError(f"an annotation of {count} frames; there must be one at least")
    poses = np.repeat(np.eye(7)[:1], count, axis=0)
    origin = np.full(count, UNKNOWN, np.uint8)
    return Annotation(poses, np.zeros(count), origin, np.zeros(count, bool))


def correct(
    annotation: Annotation, frame: int, pose: Float[np.ndarray, " 7"], follower: Follower
) -> Iterator[Annotation]:
    """Sets a frame by hand and follows the object from there both ways, a frame at a time.

    A way ends at a frame set by hand; at a good one that the new track agrees with; or at a good
    one where the new track is lost itself. A good pose that a good new track contradicts yields:
    what was set by hand is right.

    Args:
        annotation: So far.
        frame: Which frame.
        pose: T_world_object then.
        follower: What follows.

    Yields:
        The annotation after each frame.

    Raises:
        CaptureError: There is no such frame.
    """
    count = len(annotation.origin)
    if not 0 <= frame < count:
        raise CaptureError(f"frame {frame}; there are {count}, counted from 0")
    state, tracked = follower.begin(frame, pose)
    annotation = _with(annotation, frame, np.asarray(pose, np.float64), tracked, BY_HAND)
    yield annotation
    for way in (1, -1):
        for now in _along(annotation, frame, way, state, follower):
            yield (annotation := now)


def resume(annotation: Annotation, follower: Follower) -> Iterator[Annotation]:
    """Follows the object on from known frames into unknown ones, a frame at a time.

    Where it was lost at the last known frame, it is followed anew from the last at which it was
    not: what is remembered while it is lost, where it was last seen well and what the hand did
    since, is not on disk. Where there is no such frame, frames stay unknown.
    """
    for way in (1, -1):
        known = annotation.origin != UNKNOWN
        beside = np.zeros_like(known)
        if way > 0:
            beside[:-1] = ~known[1:]
        else:
            beside[1:] = ~known[:-1]
        lost = annotation.lost & (annotation.origin != BY_HAND)
        for edge in np.flatnonzero(known & beside).tolist():
            frame = edge
            while 0 <= frame < len(known) and known[frame] and lost[frame]:
                frame -= way
            if not 0 <= frame < len(known) or not known[frame]:
                continue
            state, _ = follower.begin(frame, annotation.wxyz_xyz_world_object[frame])
            for now in _along(annotation, frame, way, state, follower):
                yield (annotation := now)


def save(folder: Path, annotation: Annotation, name: str) -> None:
    """Writes both files into a recording, each whole or not at all.

    Args:
        folder: The recording.
        annotation: What is known.
        name: Of the object.
    """
    poses = annotation.filled()
    if len(poses):
        realdex_write.write_track(folder, poses)
    state = {
        "format": FORMAT,
        "object": name,
        "frames": len(annotation.origin),
        "flagged": annotation.flagged().tolist(),
        "by_hand": np.flatnonzero(annotation.origin == BY_HAND).tolist(),
        "unknown": np.flatnonzero(annotation.origin == UNKNOWN).tolist(),
        "lost": np.flatnonzero(annotation.lost).tolist(),
        "score": [round(x, 4) for x in annotation.score.tolist()],
        "T_world_object": annotation.wxyz_xyz_world_object.tolist(),
    }
    realdex_write.write(folder / FILE, (json.dumps(state, allow_nan=False) + "\n").encode())


def load(folder: Path, count: int) -> Annotation | None:
    """What `save` wrote; None if nothing was.

    Args:
        folder: The recording.
        count: Its frames.

    Raises:
        CaptureError: The file is of another recording, or of no format that is known; or object
            poses are there that are not ours.
    """
    path = folder / FILE
    if not path.is_file():
        if (folder / realdex_raw.TRACK).exists():
            raise CaptureError(
                f"{folder / realdex_raw.TRACK}: poses of another origin; move it away, or start "
                "anew with --replace"
            )
        return None
    state = textfile.read_json(path)
    if state.get("format") != FORMAT or state.get("frames") != count:
        raise CaptureError(
            f"{path}: {state.get('format')!r} of {state.get('frames')!r} frames; must be "
            f"{FORMAT!r} of {count}"
        )
    rows = [
        textfile.numbers(row, 7, f"{path}, T_world_object {k}")
        for k, row in enumerate(_listed(state, "T_world_object", count, path))
    ]
    score = textfile.numbers(state.get("score"), count, f"{path}, score")
    origin = np.full(count, FOLLOWED, np.uint8)
    origin[_frames(state, "by_hand", count, path)] = BY_HAND
    origin[_frames(state, "unknown", count, path)] = UNKNOWN
    lost = np.zeros(count, bool)
    lost[_frames(state, "lost", count, path)] = True
    return Annotation(rigid.unit(np.stack(rows), str(path)), score, origin, lost)


def _along(
    annotation: Annotation, frame: int, way: int, state: State, follower: Follower
) -> Iterator[Annotation]:
    """Follows from a frame one way, as far as `correct` says."""
    k = frame + way
    while 0 <= k < len(annotation.origin) and annotation.origin[k] != BY_HAND:
        state, tracked = follower.step(state, k)
        pose = np.asarray(tracked.T_world_object.wxyz_xyz, np.float64)
        if annotation.origin[k] == FOLLOWED and not annotation.lost[k]:
            was = annotation.wxyz_xyz_world_object[k]
            if bool(tracked.lost) or follower.agree(pose, was):
                return
        annotation = _with(annotation, k, pose, tracked, FOLLOWED)
        yield annotation
        k += way


def _with(
    annotation: Annotation,
    frame: int,
    pose: Float[np.ndarray, " 7"],
    tracked: Tracked,
    origin: int,
) -> Annotation:
    poses, score = annotation.wxyz_xyz_world_object.copy(), annotation.score.copy()
    kind, lost = annotation.origin.copy(), annotation.lost.copy()
    poses[frame] = rigid.unit(pose[None], f"frame {frame}")[0]
    score[frame], lost[frame] = float(tracked.quality.score), bool(tracked.lost)
    kind[frame] = origin
    return Annotation(poses, score, kind, lost)


def _listed(state: dict, key: str, count: int, path: Path) -> list:
    value = state.get(key)
    if not isinstance(value, list) or len(value) != count:
        raise CaptureError(f"{path}: {key} must be a list of {count}")
    return value


def _frames(state: dict, key: str, count: int, path: Path) -> list[int]:
    value = state.get(key)
    good = isinstance(value, list) and all(isinstance(k, int) and 0 <= k < count for k in value)
    if not good or value is None:
        raise CaptureError(f"{path}: {key} must be a list of frames, 0 to {count - 1}")
    return value
