"""All stamps of a recording by one clock: the main camera's, set to the recording machine's.

Cameras by the stamps of their common pulses, the robot by where its surface is in the clouds; where
that cannot be told, by when its states arrived, which leaves tens of milliseconds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from capture import clockmap, depth, motion_sync, robot_surface, timesync
from capture.clockmap import SteppedClock, SyncError
from capture.device import FPS
from capture.motion_sync import RobotSync, RobotTrack, Seen
from capture.recording import JointSeries, Recording
from realdex_jax.data import rigid
from realdex_jax.hand.load import HandModel

By = Literal["motion", "arrival", "either"]
"""How the robot's clock is found; either takes arrivals where motion does not tell."""

_WINDOW_S = 0.3
"""By how much arrivals may be wrong: a camera's pictures come up to 0.1 s after their exposure."""
_ABOUT = 0.45
"""Metres about the palm within which points may be hand or forearm."""
_SPACING = 0.006
"""Between points of the robot's surface, metres."""
_WORST_S = 0.01
"""Standard error from which on the robot's clock counts as not found, seconds."""


@dataclasses.dataclass(frozen=True, eq=False)
class Timeline:
    """When everything of a recording was."""

    camera_ns: Mapping[int, Int[np.ndarray, " _"]]
    """Of each camera's frames; rising."""
    clocks: Mapping[int, SteppedClock]
    """Of the cameras; what they give is moved by `shift_ns`."""
    shift_ns: int
    """From the main camera's clock to this one."""
    robot_ns: Int[np.ndarray, " _"] | None = None
    """Of the robot's states; None if there are none, or no place of the robot is known."""
    robot: RobotSync | None = None
    """How the robot's clock was found; None if by arrivals."""
    why: str = ""
    """Why the robot's clock was not found by motion."""

    def together(self) -> dict[int, Int[np.ndarray, " t"]]:
        """For each frame of the main camera the nearest one of each camera; -1 if none is near."""
        main = self.camera_ns[0]
        half = 0.5e9 / FPS
        found = {}
        for c, ns in self.camera_ns.items():
            right = np.clip(np.searchsorted(ns, main), 1, max(len(ns) - 1, 1))
            left = right - 1
            right = np.minimum(right, len(ns) - 1)
            near = np.where(main - ns[left] <= np.abs(ns[right] - main), left, right)
            found[c] = np.where(np.abs(ns[near] - main) <= half, near, -1)
        return found


def of_cameras(recording: Recording, *, wired: bool = True) -> Timeline:
    """The cameras' stamps alone.

    Args:
        recording: The recording; camera 0 is in it.
        wired: Whether the cameras were on the sync cable.

    Raises:
        CaptureError: Camera 0 is missing.
        SyncError: Stamps that make no clock, as of `timesync.camera_clocks`.
    """
    clocks = timesync.camera_clocks(recording, wired=wired)
    made = {c: clock(recording.stamps(c)) for c, clock in clocks.items()}
    shift = int(recording.stamps(0).host_ns[0]) - int(made[0][0])
    return Timeline({c: ns + shift for c, ns in made.items()}, clocks, shift)


def with_robot(
    recording: Recording,
    cameras: Timeline,
    wxyz_xyz_world_cam: Mapping[int, Float[np.ndarray, " 7"]],
    hand: HandModel,
    wxyz_xyz_world_base: Float[np.ndarray, " 7"],
    by: By = "either",
) -> Timeline:
    """The robot's stamps as well; the timeline itself where no joints were recorded.

    Args:
        recording: The recording.
        cameras: Of `of_cameras`.
        wxyz_xyz_world_cam: T_world_cam of each camera's colour lens.
        hand: The robot's hand.
        wxyz_xyz_world_base: T_world_base of the arm.
        by: How its clock is found.

    Raises:
        CaptureError: A joint is missing.
        SyncError: Its clock is not found in the way that was asked for.
    """
    series = recording.joints()
    if series is None or not len(series.stamps.number):
        return cameras
    arrived = _by_arrival(recording, cameras, series)
    if by == "arrival":
        return dataclasses.replace(cameras, robot_ns=arrived, why="arrivals were asked for")
    try:
        found = _by_motion(
            recording, cameras, series, arrived, wxyz_xyz_world_cam, hand, wxyz_xyz_world_base
        )
    except SyncError as error:
        if by == "motion":
            raise
        return dataclasses.replace(cameras, robot_ns=arrived, why=str(error))
    start = int(cameras.camera_ns[0][0])
    # Seconds from the first frame hold a thousandth of a microsecond, those since 1970 do not.
    robot_s = 1e-9 * (series.stamps.device_ns + _to_begin(series, arrived) - start)
    robot_ns = start + np.rint(1e9 * found.main_s(robot_s)).astype(np.int64)
    return dataclasses.replace(cameras, robot_ns=robot_ns, robot=found)


def _by_arrival(
    recording: Recording, cameras: Timeline, series: JointSeries
) -> Int[np.ndarray, " n"]:
    """When states were, by when they arrived: as late after it as frames are after theirs."""
    main, stamps = recording.stamps(0), series.stamps
    if len(stamps.number) < clockmap.LEAST or len(main.number) < clockmap.LEAST:
        return stamps.host_ns
    to_main = clockmap.fit(main.host_ns, cameras.camera_ns[0], None)
    return to_main(timesync.by_arrival(stamps)(stamps))


def _to_begin(series: JointSeries, arrived: Int[np.ndarray, " n"]) -> int:
    """What brings the robot's stamps near the timeline, ns; the rest is to be found."""
    away = arrived - series.stamps.device_ns
    return int(np.sort(away)[len(away) // 2])


def _by_motion(
    recording: Recording,
    cameras: Timeline,
    series: JointSeries,
    arrived: Int[np.ndarray, " n"],
    wxyz_xyz_world_cam: Mapping[int, Float[np.ndarray, " 7"]],
    hand: HandModel,
    wxyz_xyz_world_base: Float[np.ndarray, " 7"],
) -> RobotSync:
    stamps = series.stamps
    if clockmap.stretches(stamps.device_ns, stamps.host_ns, timesync.KEPT_S).any():
        raise SyncError("the robot's clock steps; only arrivals tell when its states were")
    start = int(cameras.camera_ns[0][0])
    q = robot_surface.ordered(series)
    time_s = 1e-9 * (stamps.device_ns + _to_begin(series, arrived) - start)
    if (np.diff(time_s) <= 0.0).any():
        raise SyncError("the robot's stamps do not rise; only arrivals tell when its states were")
    track = RobotTrack(
        hand,
        robot_surface.surface(hand, _SPACING, with_arm=False),
        time_s,
        q,
        np.asarray(wxyz_xyz_world_base, np.float64),
    )
    main_s = 1e-9 * (cameras.camera_ns[0] - start)
    together = cameras.together()
    palms = robot_surface.palms(q)[:, 4:]
    p_palm = np.stack([np.interp(main_s, time_s, x) for x in palms.T], axis=1)
    p_world = rigid.apply(track.wxyz_xyz_world_base, p_palm)
    optics = {c: recording.optics(c) for c in recording.cameras}

    def look(k: int) -> dict[int, Seen]:
        seen = {}
        for c, index in together.items():
            if index[k] < 0:
                continue
            view = depth.view(recording.frame(c, int(index[k])).depth, optics[c])
            one = motion_sync.seen_in_world(view, wxyz_xyz_world_cam[c])
            seen[c] = one.take(np.linalg.norm(one.p_world - p_world[k], axis=1) < _ABOUT)
        return seen

    lag = {
        c: 1e-9 * float(np.median((cameras.camera_ns[c][index] - cameras.camera_ns[0])[index >= 0]))
        for c, index in together.items()
        if (index >= 0).any()
    }
    found = motion_sync.robot_clock(track, main_s, look, lag_s=lag, window_s=_WINDOW_S)
    if found.offset_error_s > _WORST_S:
        raise SyncError(
            f"the robot's motion tells its clock to {1e3 * found.offset_error_s:.0f} ms only; at "
            f"most {1e3 * _WORST_S:.0f} count. It must move, both ways, before the cameras"
        )
    return found
