"""The virtual rig of the command lines: a demonstration of RealDex-Sim before four cameras."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from capture import virtual
from capture.device import CaptureError
from capture.recording import Recording
from capture.virtual import VirtualDevice, VirtualJoints
from experiments import motion_data
from realdex_jax.data import npz, realdex_write, store
from realdex_jax.errors import ConfigError, DatasetError
from realdex_jax.hand.load import load
from sim import film, objects, sequence
from sim.clocks import Clock
from sim.demonstrate import P_WORLD_BASE
from sim.film import Film

TRUTH = "truth.npz"
"""What is true of a virtual recording, beside it."""
HELD = 6
"""Exposures of each camera that are shown live, over and over."""


@dataclasses.dataclass(frozen=True)
class Choice:
    """What is before the cameras, and which they are."""

    object: str = "mug"
    motion: int = 0
    """Which of the object's demonstrations."""
    frames: int = 30
    """Last frames of its reach; 0 is all."""
    lift: float = 0.1
    """Metres that hand and object rise after it."""
    width: int = 960
    """Columns of colour."""
    depth_width: int = 640
    """Columns of depth."""
    seed: int = 0
    """Of lenses, places, clocks and noise."""


@dataclasses.dataclass(frozen=True, eq=False)
class Made:
    """A rig, its scene, and the robot's clock."""

    film: Film
    robot: Clock


def make(choice: Choice, tell: Callable[[str], object], cache: Path | None = None) -> Made:
    """Makes the scene, and the demonstration if need be.

    Args:
        choice: What is wanted.
        tell: Told about demonstrations.
        cache: Folder of finished ones; None is the user's cache folder.

    Raises:
        RealdexError: There is no such object or demonstration, or no such pictures.
    """
    dataset = store.open_dataset("realdex-sim")
    if choice.object not in dataset.objects:
        known = ", ".join(sorted(dataset.objects))
        raise DatasetError(f"no object {choice.object!r}; known: {known}")
    for what in ("motion", "frames", "seed", "lift"):
        if getattr(choice, what) < 0:
            raise ConfigError(f"{what} is {getattr(choice, what)}; cannot be negative")
    cameras = film.around_table(choice.seed, choice.width, choice.depth_width)
    hand, folder = load("shadow"), motion_data.folder_of(dataset, cache)
    found, _ = motion_data.demonstrations(
        hand, dataset, choice.object, choice.motion + 1, folder, tell
    )
    if choice.motion >= len(found):
        raise ConfigError(
            f"motion {choice.motion} of {choice.object}; it has {len(found)}, counted from 0"
        )
    scene = sequence.of_motion(found, choice.motion, lift_m=choice.lift, last=choice.frames)
    rng = np.random.default_rng([choice.seed, len(cameras.lenses), 1])
    offset, drift = rng.uniform(-1.0, 1.0, 2) * [0.5, 50.0]
    shape = objects.make(choice.object)
    made = Film(cameras, hand, shape, scene, seed=choice.seed)
    return Made(made, Clock(float(offset), float(drift)))


def devices(
    made: Made, seconds: float | None = None, *, live: bool = False
) -> tuple[list[VirtualDevice], VirtualJoints | None]:
    """The cameras and, where the arm follows the hand, the robot's joints.

    Args:
        made: The scene.
        seconds: Length of the sequence; to the end of the motion if None, endless if live.
        live: At the clock's pace, the first exposures over and over.
    """
    pace: virtual.Pace = "wall" if live else "free"
    count = None
    if live:
        source = virtual.loop(made.film, HELD)
    else:
        source, count = virtual.rendered(made.film), made.film.count
        if seconds is not None:
            count = max(int(seconds * made.film.rig.clocks.fps), 1)
    cameras = virtual.devices(made.film.rig, source, pace=pace, count=count)
    q = made.film.sequence.robot()
    if q is None:
        return cameras, None
    # The robot stays where the motion ends for as long as the cameras look.
    end = made.film.sequence.end_s
    after = 1e9 if count is None else max(count / made.film.rig.clocks.fps, end + 1e-3)
    time_s, q = np.append(made.film.sequence.time_s, after), np.vstack([q, q[-1:]])
    joints = VirtualJoints(sequence.JOINTS, time_s, q, made.robot, cameras[0].pulse, pace=pace)
    return cameras, joints


def save_truth(out: Path, made: Made, *, live: bool) -> None:
    """Writes what is true of a virtual recording beside it.

    `wxyz_xyz_world_cam` (c 7); `clock` (c 2) and `robot_clock` (2): offset (s) and drift (ppm);
    `time_s`, `phi`, `wxyz_xyz_world_object` of the scene; and `exposure_s_<camera>`: the true times
    (s) that the pictures of the frames on disk show.
    """
    rig, scene, found = made.film.rig, made.film.sequence, Recording(out)
    arrays: dict[str, np.ndarray] = {
        "wxyz_xyz_world_cam": rig.wxyz_xyz_world_cam,
        "clock": np.array([[c.offset_s, c.drift_ppm] for c in rig.clocks.cameras]),
        "robot_clock": np.array([made.robot.offset_s, made.robot.drift_ppm]),
        "time_s": scene.time_s,
        "phi": scene.phi,
        "wxyz_xyz_world_object": scene.wxyz_xyz_world_object,
        "p_world_table": scene.p_world_table,
        "p_world_base": np.array(P_WORLD_BASE),
    }
    for camera in found.cameras:
        numbers = found.stamps(camera).number.tolist()
        if live:  # pictures of the first exposures only, whatever the stamps say
            numbers = [k % HELD for k in numbers]
        arrays[f"exposure_s_{camera}"] = np.array(
            [rig.clocks.exposure_s(camera, k) for k in numbers]
        )
    realdex_write.write(out / TRUTH, npz.encode(arrays))


def read_truth(path: Path) -> Mapping[str, np.ndarray]:
    """The arrays of `save_truth`.

    Raises:
        CaptureError: There is no such file, or it lacks one of them.
        DatasetError: It is damaged.
    """
    if not (path / TRUTH).is_file():
        raise CaptureError(
            f"{path}: no {TRUTH}, which only virtual recordings have; "
            "give --calibration and --world"
        )
    arrays = npz.read(path / TRUTH)
    wanted = {"wxyz_xyz_world_cam", "time_s", "wxyz_xyz_world_object", "p_world_base"}
    if missing := wanted - set(arrays):
        raise CaptureError(f"{path / TRUTH}: lacks {', '.join(sorted(missing))}")
    return arrays
