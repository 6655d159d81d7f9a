"""Recordings for the viewer: the moments of ours and of the release's, and their objects."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from capture import annotation, chunks, cloud, segmentation
from capture.annotation import Annotation
from capture.cloud import CloudConfig
from capture.recording import Recording
from experiments import clouds, rig_places
from experiments.clouds import Clouds
from realdex_jax.data import realdex_raw
from viewer import footage
from viewer.footage import Eye, Shot
from viewer.tableau import Thing

_POINTS = 60_000
"""Most points of a cloud that is sent to a browser."""
_WIDTH = 360
"""Columns of the pictures beside it."""
RATE = 15.0
"""Moments a second that are played, where every moment is there in time."""


def is_recording(path: Path) -> bool:
    """Whether a folder is a recording, ours or one in RealDex's layout."""
    if not path.is_dir():
        return False
    return _is_release(path) or bool(chunks.streams(path))


def _is_release(path: Path) -> bool:
    return all((path / mark).exists() for mark in realdex_raw.MARKS)


class Recorded:
    """A `viewer.footage.Recorded`."""

    rate = RATE

    def __init__(
        self,
        path: Path,
        thing: Thing | None = None,
        calibration: Path | None = None,
        world: Path | None = None,
    ) -> None:
        """Opens a recording.

        Args:
            path: The recording.
            thing: The object, to be shown where it was.
            calibration: Of a recording of ours; what is true of a virtual one if None.
            world: As `experiments.clouds` has it.

        Raises:
            RealdexError: It is none, or nobody knows where its cameras were.
        """
        config = Clouds(path, calibration=calibration, world=world)
        self._shots = clouds.open_shots(config)
        self.title, self.count, self.thing = path.name, self._shots.count, thing
        low, high = clouds.box(self._shots)
        self._how = CloudConfig(low=low, high=high)
        self.p_world_middle = segmentation.looked_at(self._shots.wxyz_xyz_world_cam)
        self.eyes: Mapping[int, Eye] = {
            c: footage.eye(
                self._shots.wxyz_xyz_world_cam[c],
                optics.colour.width,
                optics.colour.height,
                optics.colour.fy,
            )
            for c, optics in self._shots.optics.items()
        }
        self._poses, self._said = _track(path, self.count, calibration, world)

    def shot(self, k: int) -> Shot:
        """As `viewer.footage.Recorded` says."""
        frames = self._shots.frames(k)
        made = cloud.merged(frames, self._shots.optics, self._shots.wxyz_xyz_world_cam, self._how)
        p, colour = made.p_world, made.colour
        if len(p) > _POINTS:  # every so-manieth: cells are in the order of space
            kept = np.linspace(0, len(p) - 1, _POINTS).astype(int)
            p, colour = p[kept], colour[kept]
        pose = self._poses[k] if k < len(self._poses) else None
        lost = sorted(set(self._shots.optics) - set(frames))
        said = f"cameras {', '.join(map(str, lost))} have no frame then; " if lost else ""
        return Shot(
            p,
            colour,
            {c: _small(frame.colour) for c, frame in frames.items()},
            None if pose is None or np.isnan(pose).any() else pose,
            f"{said}{self._said(k)}",
        )


def _track(
    path: Path, count: int, calibration: Path | None, world: Path | None
) -> tuple[Float[np.ndarray, "t 7"], Callable[[int], str]]:
    """T_world_object at each moment, not finite where it is unknown; and what is to be said."""
    if _is_release(path):
        if (path / annotation.FILE).is_file():
            found = annotation.load(path, count)
            assert found is not None
            return _of_annotation(found)
        if not (path / realdex_raw.TRACK).exists():
            return np.zeros((0, 7)), lambda _: "the object was not followed"
        poses, known = realdex_raw.Recording(path).object_track()
        poses = np.where(known[:, None], poses, np.nan)
        return poses, lambda k: "" if known[k] else "the object was not followed then"
    places = rig_places.find(Recording(path), calibration, world)
    truth = places.wxyz_xyz_world_object
    if truth is None:
        return np.zeros((0, 7)), lambda _: "the object was not followed"
    return truth, lambda _: "the object's true pose, of a virtual recording"


def _of_annotation(found: Annotation) -> tuple[Float[np.ndarray, "t 7"], Callable[[int], str]]:
    unknown = found.origin == annotation.UNKNOWN
    flagged = set(found.flagged().tolist())
    poses = np.where(unknown[:, None], np.nan, found.wxyz_xyz_world_object)

    def said(k: int) -> str:
        kind = ("unknown", "followed", "set by hand")[found.origin[k]]
        more = ", flagged" if k in flagged else ""
        return f"object {kind}{more}, score {found.score[k]:.2f}; {len(flagged)} moments flagged"

    return poses, said


def _small(colour: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    height, width = colour.shape[:2]
    size = _WIDTH, max(round(height * _WIDTH / width), 1)
    return np.asarray(Image.fromarray(colour).resize(size))
