"""A robot that goes to and fro before virtual cameras, and clocks that are off.

Depth is rendered when it is asked for, and kept.
"""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt16
from scipy.spatial.transform import Rotation

from capture import depth, motion_sync, robot_surface, timesync, virtual
from capture.device import Optics
from capture.motion_sync import RobotTrack, Seen
from capture.recording import Stamps
from experiments import motion_data
from realdex_jax.data import npz, realdex_write, rigid, store
from realdex_jax.errors import ConfigError
from realdex_jax.geometry.view import DepthNoise
from realdex_jax.hand.load import load
from sim import clocks, film, objects, sequence
from sim.clocks import Clock
from sim.demonstrate import P_WORLD_BASE
from sim.film import VirtualRig
from sim.sequence import Sequence
from sim.stage import Stage, load_stage

OFFSET_S, DRIFT_PPM = 0.5, 100.0
"""Most that the robot's clock is off the main camera's, to either side."""
MOTIONS = 10
"""Demonstrations that are chosen from."""
_KNOTS = 30.0
"""Poses a second."""
_LATENCY_S, _LATE_S = 0.02, 0.003
"""From exposure to arrival, and the mean of what comes on top, seconds."""
_ROBOT_RATE = 125.0
_VERSION = 1


@dataclasses.dataclass(frozen=True)
class Astray:
    """What is known wrongly; standard deviations along or about each axis."""

    camera: tuple[float, float] = (0.0005, 0.0005)
    """Places (m) and orientations (rad) of cameras: what calibration leaves."""
    base: tuple[float, float] = (0.001, 0.001)
    """The arm's base."""
    joints: float = 0.005
    """Joints of the hand, for the whole recording, radians."""
    encoder: float = 0.0005
    """Every angle of every state, radians."""


@dataclasses.dataclass(frozen=True, eq=False)
class SyncScene:
    """What a recording would have, and what is true."""

    track: RobotTrack
    """The robot by its own clock, its place as calibration has it."""
    stamps: Mapping[int, Stamps]
    """Of each camera's frames."""
    optics: Mapping[int, Optics]
    wxyz_xyz_world_cam: Mapping[int, Float[np.ndarray, " 7"]]
    """T_world_cam as calibration has it."""
    rig: VirtualRig
    robot: Clock
    """True."""
    sequence: Sequence
    """True."""
    picture: Callable[[int, int], UInt16[np.ndarray, "H W"]]
    """Depth of (camera, frame), millimetres."""

    def look(self, number: int) -> dict[int, Seen]:
        """What the cameras that have a frame of this number see above the table."""
        found = {}
        for c, place in self.wxyz_xyz_world_cam.items():
            if number not in self.stamps[c].number:
                continue
            seen = motion_sync.seen_in_world(
                depth.view(self.picture(c, number), self.optics[c]), place
            )
            found[c] = seen.take(seen.p_world[:, 2] > self.sequence.p_world_table[2] + 0.01)
        return found

    def robot_s(self, main_s: Float[np.ndarray, " t"]) -> Float[np.ndarray, " t"]:
        """What the robot's clock truly says when the main camera's says so, seconds."""
        main = self.rig.clocks.cameras[0]
        true_s = (main_s - main.offset_s) / main.rate
        return self.robot.offset_s + self.robot.rate * true_s


def scene(
    name: str,
    seed: int,
    seconds: float = 60.0,
    *,
    depth_width: int = 320,
    cache: Path | None = None,
    motions: Path | None = None,
    astray: Astray | None = None,
    tell: Callable[[str], object] = lambda _: None,
) -> SyncScene:
    """A scene.

    Args:
        name: Object of RealDex-Sim.
        seed: Of everything.
        seconds: Length of the recording.
        depth_width: Columns of the depth pictures.
        cache: Where pictures are kept; None keeps them in memory.
        motions: Folder of demonstrations; None is the user's cache folder.
        astray: What is known wrongly.
        tell: Told about demonstrations.

    Raises:
        RealdexError: No such object, or no demonstration that the arm can follow.
    """
    off, rng = astray or Astray(), np.random.default_rng([seed, 41])
    hand, shape = load("shadow"), objects.make(name)
    moving, q = _moving(name, seed, seconds, rng, motions, tell)
    cameras = film.around_table(
        seed, 64, depth_width, timing=clocks.draw(4, seed, drift_ppm=DRIFT_PPM / 2)
    )
    main = cameras.clocks.cameras[0]
    # Of the robot against the main camera.
    offset, drift = rng.uniform(-1.0, 1.0, 2) * [OFFSET_S, DRIFT_PPM]
    robot = Clock(main.offset_s + float(offset), main.drift_ppm + float(drift))
    numbers = range(len(cameras.lenses))
    count = int(seconds * cameras.clocks.fps)
    stamps = {c: _stamps(cameras, c, count, np.random.default_rng([seed, 43, c])) for c in numbers}
    true_s = np.arange(-1.0, moving.end_s + 1.0, 1.0 / _ROBOT_RATE)
    states = np.stack([np.interp(true_s, moving.time_s, x) for x in q.T], axis=1)
    states += off.encoder * rng.normal(size=states.shape)
    states[:, 8:] += off.joints * rng.normal(size=22)
    base = np.concatenate([np.eye(4)[0], P_WORLD_BASE])
    track = RobotTrack(
        hand,
        robot_surface.surface(hand, 0.006, with_arm=False),
        1e-9 * robot.says(true_s),
        states,
        _moved(base, off.base, rng),
    )
    stage = load_stage(hand, shape)
    kept: dict[tuple[int, int], np.ndarray] = {}

    def picture(camera: int, frame: int) -> UInt16[np.ndarray, "H W"]:
        if (camera, frame) not in kept:
            key = f"{_VERSION}-{name}-{seed}-{seconds:g}-{depth_width}-{camera}-{frame}.npz"
            path = None if cache is None else cache / key
            if path is not None and path.is_file():
                kept[camera, frame] = npz.read(path)["depth"]
            else:
                kept[camera, frame] = _render(stage, cameras, moving, camera, frame, seed)
                if path is not None:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    realdex_write.write(path, npz.encode({"depth": kept[camera, frame]}))
        return kept[camera, frame]

    return SyncScene(
        track,
        stamps,
        {c: virtual.optics_of(cameras.lenses[c]) for c in numbers},
        {c: _moved(cameras.wxyz_xyz_world_cam[c], off.camera, rng) for c in numbers},
        cameras,
        robot,
        moving,
        picture,
    )


@dataclasses.dataclass(frozen=True, eq=False)
class Synced:
    """What was found, and by how much it is wrong."""

    robot: motion_sync.RobotSync
    main_s: Float[np.ndarray, " t"]
    """Moments by the main camera's clock, from its first one on, seconds."""
    error_s: Float[np.ndarray, " t"]
    """Of the robot's clock, then."""
    camera_error_s: float
    """Worst of the other cameras' clocks."""
    true_offset_s: float
    """At the middle."""
    true_drift_ppm: float


def synchronise(made: SyncScene) -> Synced:
    """Synchronises a scene as a recording is, and compares with the truth."""
    main = made.stamps[0]
    maps = {
        c: timesync.follow(main, made.stamps[c], delay_s=c * timesync.STAGGER_S)
        for c in made.stamps
        if c
    }
    start = int(main.device_ns[0])
    main_s = 1e-9 * (main.device_ns - start)
    # The robot's clock counts from the same moment, so that differences are small numbers.
    track = dataclasses.replace(made.track, time_s=made.track.time_s - 1e-9 * start)
    lag = {0: 0.0}
    worst = 0.0
    clock = made.rig.clocks.cameras
    for c, to_main in maps.items():
        other = made.stamps[c]
        _, i, j = np.intersect1d(main.number, other.number, return_indices=True)
        lag[c] = 1e-9 * float(np.median(to_main(other)[j] - main.device_ns[i]))
        exposed = np.array([made.rig.clocks.exposure_s(c, k) for k in other.number.tolist()])
        said = dataclasses.replace(other, device_ns=clock[c].says(exposed))
        wrong = to_main(said) - clock[0].says(exposed)
        worst = max(worst, 1e-9 * float(np.abs(wrong).max()))
    found = motion_sync.robot_clock(
        track, main_s, lambda k: made.look(int(main.number[k])), lag_s=lag
    )
    true = made.robot_s(main_s + 1e-9 * start) - 1e-9 * start
    middle = int(np.argmin(np.abs(main_s - found.reference_s)))
    return Synced(
        found,
        main_s,
        found.robot_s(main_s) - true,
        worst,
        float(true[middle] - main_s[middle]),
        1e6 * (made.robot.rate / clock[0].rate - 1.0),
    )


def _moving(
    name: str,
    seed: int,
    seconds: float,
    rng: np.random.Generator,
    motions: Path | None,
    tell: Callable[[str], object],
) -> tuple[Sequence, Float[np.ndarray, "t 30"]]:
    """A demonstration to and fro, with rests, and the robot's joints over it."""
    dataset = store.open_dataset("realdex-sim")
    found, _ = motion_data.demonstrations(
        load("shadow"), dataset, name, MOTIONS, motion_data.folder_of(dataset, motions), tell
    )
    for i in range(len(found)):
        once = sequence.of_motion(found, (seed + i) % len(found), lift_m=0.2)
        made = to_and_fro(once, seconds, rng)
        q = made.robot()
        if q is not None:
            return made, q
    raise ConfigError(f"{name}: the arm follows none of {len(found)} demonstrations")


def to_and_fro(once: Sequence, seconds: float, rng: np.random.Generator) -> Sequence:
    """A sequence forward and backward again and again, with rests between, at changing pace."""
    phase, times, forward = [0.0], [0.0], True
    while times[-1] < seconds:
        pace, rest = rng.uniform(0.8, 1.25), rng.uniform(0.2, 1.5)
        steps = int(once.end_s / pace * _KNOTS)
        way = np.linspace(0.0, 1.0, steps + 1)[1:] * once.end_s
        phase += (way if forward else once.end_s - way).tolist()
        times += (times[-1] + np.arange(1, steps + 1) / _KNOTS).tolist()
        times.append(times[-1] + float(rest))
        phase.append(phase[-1])
        forward = not forward
    time_s, at_s = np.array(times), np.array(phase)
    return Sequence(time_s, once.hand_at(at_s), once.object_at(at_s), once.p_world_table)


def _stamps(cameras: VirtualRig, camera: int, count: int, rng: np.random.Generator) -> Stamps:
    numbers = np.arange(count)
    device = np.array([cameras.clocks.device_ns(camera, k) for k in range(count)])
    exposed = np.array([cameras.clocks.exposure_s(camera, k) for k in range(count)])
    arrived = 1e9 * (exposed + _LATENCY_S + rng.exponential(_LATE_S, count))
    kept = rng.random(count) > 0.01  # a frame of a hundred is lost
    kept[0] = True
    return Stamps(numbers[kept], device[kept], np.rint(arrived[kept]).astype(np.int64))


def _moved(
    wxyz_xyz: Float[np.ndarray, " 7"], spread: tuple[float, float], rng: np.random.Generator
) -> Float[np.ndarray, " 7"]:
    turn = Rotation.from_rotvec(spread[1] * rng.normal(size=3)).as_quat(scalar_first=True)
    return rigid.compose(wxyz_xyz, np.concatenate([turn, spread[0] * rng.normal(size=3)]))


def _render(
    stage: Stage, cameras: VirtualRig, moving: Sequence, camera: int, frame: int, seed: int
) -> UInt16[np.ndarray, "H W"]:
    at = np.array([cameras.clocks.exposure_s(camera, frame)])
    phi = moving.hand_at(at)[0].astype(np.float32)
    stage.place(phi, moving.object_at(at)[0], moving.p_world_table)
    lenses = cameras.lenses[camera]
    T = rigid.compose(cameras.wxyz_xyz_world_cam[camera], lenses.wxyz_xyz_colour_depth)
    rng = np.random.default_rng([seed, camera, frame])
    return film.depth_picture(stage, lenses.depth, T, rng, DepthNoise())
