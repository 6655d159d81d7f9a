"""Reader of RealDex's raw recordings: robot series, pictures of four cameras, object tracking.

Opening a recording lists names; every file is read when asked for, a picture at a time.
`docs/recordings.md` describes the layout. What a recording holds need not be whole: frames
without a picture, a partner or a tracked object are told, not hidden.
"""

import dataclasses
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from realdex_jax.data import calibration, pictures, rigid, textfile, tf_series
from realdex_jax.data.calibration import Calibration
from realdex_jax.data.pictures import COLOUR, DEPTH, Pictures, Together
from realdex_jax.data.realdex_frames import clip_segments, tell
from realdex_jax.data.realdex_layout import LOST
from realdex_jax.data.tf_series import HandTrack
from realdex_jax.errors import DatasetError
from realdex_jax.geometry.lens import Lens
from realdex_jax.hand.load import HandModel

STAMPS = "rgbimage_timestamp.txt"
MARKS = ("TF", STAMPS)
"""What makes a folder a raw recording."""
TRACK = Path("tracking_result") / "gt_pose.txt"
"""Object poses, a row for each scene frame."""
FAR = 3.0
"""Metres; what the depth cameras say beyond is dropped, as the release does."""
TOLERANCE = 0.5 / 30.0
"""Seconds between pictures that count as taken together: half a frame of a 30 Hz camera."""

_DEPTH_MODES = ("I;16", "I;16B", "I")
_DEEPEST = 12
"""Levels of folders that are searched for recordings."""
_NAME = re.compile(r"_\d+(_\d{8})?$")


def recognise(path: Path) -> bool:
    """Whether a folder is or contains raw recordings; looks at names only."""
    return next(_search(path), None) is not None


def recordings(path: Path) -> tuple[Path, ...]:
    """Folders of all raw recordings at or below a folder, sorted; links are not followed.

    The release's archives keep a long server path, so they are looked for at any depth.

    Raises:
        DatasetError: There is none.
    """
    found = tuple(sorted(_search(path)))
    if not found:
        raise DatasetError(
            f"{path}: no recording in it; one is a folder with {' and '.join(MARKS)}"
        )
    return found


def _search(path: Path, depth: int = 0) -> Iterator[Path]:
    if not path.is_dir():
        return
    if all((path / mark).exists() for mark in MARKS):
        yield path
    elif depth < _DEEPEST:
        for child in sorted(path.iterdir()):
            # Folders of pictures have many thousands of names and no recordings.
            if child.is_dir() and not child.is_symlink() and child.name != "image_raw":
                yield from _search(child, depth + 1)


def object_name(recording: str) -> str:
    """The object's name out of a recording's, which is `<object>_<n>[_<yyyymmdd>]`."""
    return _NAME.sub("", recording)


@dataclasses.dataclass(frozen=True, eq=False)
class Recording:
    """One raw recording."""

    path: Path
    calibration_path: Path | None = None
    """Folder of the calibration files; by default the one beside the recording or above it."""

    @property
    def object_name(self) -> str:
        """The object it is about."""
        return object_name(self.path.name)

    @functools.cached_property
    def cameras(self) -> tuple[int, ...]:
        """Numbers of the cameras that have a folder."""
        found = (re.fullmatch(r"cam(\d)", p.name) for p in self.path.iterdir() if p.is_dir())
        return tuple(sorted(int(m[1]) for m in found if m))

    @functools.cached_property
    def time_ns(self) -> Int[np.ndarray, " t"]:
        """Stamps of the scene frames, those of camera 0.

        Raises:
            DatasetError: The file is malformed, or its stamps do not rise.
        """
        return pictures.rising(self.path / STAMPS)

    @functools.cached_property
    def calibration(self) -> Calibration:
        """Optics and places of the cameras.

        Raises:
            DatasetError: There are no calibration files, or they are malformed.
        """
        folder = self.calibration_path or calibration.find(self.path)
        if folder is None:
            raise DatasetError(
                f"{self.path}: no folder {calibration.FOLDER} in it or above it; it holds "
                "cam0_rgb.txt, cali01.json, ... and comes with the release's program"
            )
        return calibration.read(folder)

    def lens(self, camera: int) -> Lens:
        """A camera's optics.

        Raises:
            DatasetError: The calibration does not know it.
        """
        return self.calibration.lenses[self._known(camera)]

    @functools.cached_property
    def wxyz_xyz_world_cam0(self) -> Float[np.ndarray, " 7"]:
        """T_world_cam0 of this recording."""
        path = self.path / "global_name_position" / "0.txt"
        return calibration.read_named_pose(path, "cam0_rgb_camera_link")

    def wxyz_xyz_world_cam(self, camera: int) -> Float[np.ndarray, " 7"]:
        """T_world_cam = T_world_cam0 T_cam0_cam of a camera."""
        local = self.calibration.wxyz_xyz_cam0_cam[self._known(camera)]
        return rigid.compose(self.wxyz_xyz_world_cam0, local)

    def _known(self, camera: int) -> int:
        if camera not in self.calibration.cameras:
            raise DatasetError(
                f"{self.path}: no calibration of camera {camera}; known: {self.calibration.cameras}"
            )
        return camera

    def listed(self, camera: int) -> Pictures:
        """Lists a camera's pictures.

        Raises:
            DatasetError: The camera has no folder or no stamps, or a number is there twice.
        """
        if camera not in self.cameras:
            raise DatasetError(f"{self.path}: no folder cam{camera}; cameras: {self.cameras}")
        folder = self.path / f"cam{camera}"
        stamps = folder / COLOUR / "info.txt"
        if camera == 0 and not stamps.exists():
            stamps = self.path / STAMPS
        return Pictures(
            camera,
            pictures.rising(stamps),
            pictures.numbered(folder / COLOUR),
            pictures.numbered(folder / DEPTH),
        )

    def together(self, tolerance: float = TOLERANCE) -> Together:
        """For each scene frame the nearest whole picture of each camera.

        Args:
            tolerance: Seconds that it may be off.

        Raises:
            DatasetError: A camera's stamps are missing or malformed.
        """
        index, offset = [], []
        for camera in self.cameras:
            found = self.listed(camera)
            k, off = pictures.nearest(self.time_ns, found.time_ns)
            whole = np.append(found.whole, False)  # k is -1 where there is no stamp at all
            index.append(np.where((np.abs(off) <= tolerance) & whole[k], k, -1))
            offset.append(off)
        shape = (len(self.time_ns), 0)
        return Together(
            self.cameras,
            np.stack(index, axis=1) if index else np.zeros(shape, np.int64),
            np.stack(offset, axis=1) if offset else np.zeros(shape),
        )

    def depth(self, camera: int, k: int) -> Float[np.ndarray, "h w"]:
        """One depth picture.

        Returns:
            Metres along the optical axis, 0 where nothing was measured or it is beyond `FAR`.

        Raises:
            DatasetError: It is missing, damaged, or of another size or kind than the camera's.
        """
        pixels = self._picture(camera, k, DEPTH, _DEPTH_MODES).astype(np.float64) / 1000.0
        return np.where((pixels > 0.0) & (pixels <= FAR), pixels, 0.0).astype(np.float32)

    def colour(self, camera: int, k: int) -> UInt8[np.ndarray, "h w 3"]:
        """One colour picture.

        Raises:
            DatasetError: As `depth`.
        """
        return self._picture(camera, k, COLOUR, ("RGB", "RGBA"))[..., :3]

    def _picture(self, camera: int, k: int, which: Path, modes: tuple[str, ...]) -> np.ndarray:
        folder, lens = self.path / f"cam{camera}" / which, self.lens(camera)
        return pictures.read_picture(folder, k, (lens.width, lens.height), modes)

    def points(
        self, camera: int, k: int
    ) -> tuple[Float[np.ndarray, "n 3"], UInt8[np.ndarray, "n 3"]]:
        """The points that one picture pair shows, in the camera's frame (m), and their colours.

        Raises:
            DatasetError: As `depth`.
        """
        p_cam, seen = self.lens(camera).back_project(self.depth(camera, k))
        return p_cam, self.colour(camera, k)[seen]

    def world_points(self, camera: int, k: int) -> Float[np.ndarray, "n 3"]:
        """The points of one depth picture in the world (m)."""
        p_cam, _ = self.lens(camera).back_project(self.depth(camera, k))
        return rigid.apply(self.wxyz_xyz_world_cam(camera), p_cam)

    @property
    def robot_time_ns(self) -> Int[np.ndarray, " t"]:
        """The robot's clock at each scene frame: as synchronised in `scene_to_mesh.json`.

        Frames that are not in it, or not `synchronised`, or all if it is not there, have their own
        stamp.

        Raises:
            DatasetError: The file is malformed.
        """
        return self._robot[0]

    @property
    def synchronised(self) -> Bool[np.ndarray, " t"]:
        """Scene frames but those for which the release's tools found no robot time.

        Raises:
            DatasetError: As `robot_time_ns`.
        """
        return self._robot[1]

    @functools.cached_property
    def _robot(self) -> tuple[Int[np.ndarray, " t"], Bool[np.ndarray, " t"]]:
        path, times = self.path / "scene_to_mesh.json", self.time_ns.copy()
        found = np.ones(len(times), bool)
        if not path.exists():
            return times, found
        for key, name in textfile.read_json(path).items():
            good = key.isascii() and key.isdigit() and len(key) < 10 and isinstance(name, str)
            if not good or not name.endswith(".ply"):
                raise DatasetError(f'{path}: {key:.40}: {name!r:.40}; must be "frame": "<ns>.ply"')
            if int(key) < len(times):
                stem = name.removesuffix(".ply")
                found[int(key)] = stem != LOST
                if stem != LOST:
                    times[int(key)] = textfile.stamp(stem, f"{path}, frame {key}")
        return times, found

    def hand(self, hand: HandModel, max_gap: float = tf_series.MAX_GAP) -> HandTrack:
        """The hand at each scene frame: palm, wrist and joints out of the robot's series.

        It is not valid where it was not synchronised.

        Raises:
            DatasetError: As `tf_series.hand_track`.
        """
        track = tf_series.hand_track(hand, self.path / "TF", self.robot_time_ns, max_gap)
        return dataclasses.replace(track, valid=track.valid & self.synchronised)

    def object_track(self) -> tuple[Float[np.ndarray, "t 7"], Bool[np.ndarray, " t"]]:
        """T_world_object at each scene frame, and where it was tracked.

        The file may have fewer or more rows than there are frames: rows count from the first
        frame, and frames beyond them repeat the last. So do rows that are no poses.

        Raises:
            DatasetError: The file is missing or malformed, or no row is a pose.
        """
        path = self.path / TRACK
        rows = textfile.read_rows(path, 7, finite=False)
        if not len(rows):
            raise DatasetError(f"{path}: no line; it has one for each scene frame")
        poses, whole = rigid.whole_of_ros(rows, str(path))
        frame = np.arange(len(self.time_ns))
        row = np.minimum(frame, len(poses) - 1)
        return poses[row], (frame < len(poses)) & whole[row]

    def segments(self) -> tuple[tuple[int, int], ...]:
        """First frame and end (exclusive) of each grasp; the whole recording without the file.

        They are clipped to the recording, as `notes` tell.

        Raises:
            DatasetError: The file is malformed.
        """
        return self._segments([])

    def _segments(self, notes: list[str]) -> tuple[tuple[int, int], ...]:
        path, scene = self.path / "segment.txt", np.arange(len(self.time_ns))
        if not path.exists():
            return ((0, len(scene)),)
        return clip_segments(textfile.read_rows(path, 2), scene, notes)

    def notes(self) -> tuple[str, ...]:
        """What is wrong in the small files and how it is read; pictures are `together`'s.

        Raises:
            DatasetError: As `robot_time_ns`, `object_track` and `segments`.
        """
        notes: list[str] = []
        tell(notes, ~self.synchronised, "no robot time was found")
        if (self.path / TRACK).exists():
            tell(notes, ~self.object_track()[1], "the object was not tracked")
        self._segments(notes)
        return tuple(notes)
