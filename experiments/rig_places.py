"""Where cameras and robot of a recording are: by calibration, or by a virtual one's truth."""

import dataclasses
from pathlib import Path

import numpy as np
from jaxtyping import Float

from capture.device import CaptureError
from capture.recording import Recording
from experiments import virtual_rig
from realdex_jax.data import calibration, rigid
from realdex_jax.errors import ConfigError
from sim.sequence import JOINTS

WORLD = Path("global_name_position") / "0.txt"
"""Where `experiments.calibrate` writes T_base_cam0."""


@dataclasses.dataclass(frozen=True, eq=False)
class Places:
    """Of one recording."""

    wxyz_xyz_world_cam: dict[int, Float[np.ndarray, " 7"]]
    """T_world_cam of each camera's colour lens."""
    wxyz_xyz_world_base: Float[np.ndarray, " 7"] | None
    """T_world_base of the arm; None if the recording has no whole robot, or nobody knows it."""
    upright: bool
    """Whether z is up in the world; not where it is camera 0."""
    left_out: str
    """Why the robot is left out; empty if it is not."""
    wxyz_xyz_world_object: Float[np.ndarray, "t 7"] | None
    """True T_world_object at the main camera's frames of a virtual recording."""


def find(recording: Recording, given: Path | None, world: Path | None) -> Places:
    """The places of a recording.

    Args:
        recording: The recording.
        given: What `experiments.calibrate` wrote, or a folder of `cali01.json` and so on; the truth
            of a virtual recording if None.
        world: JSON with `cam0_rgb_camera_link`, T_base_cam0: the world is the arm's base. By
            default the one in `given`; without it camera 0 is the world.

    Raises:
        RealdexError: Files cannot be read, or neither calibration nor truth is there.
    """
    if given is None:
        if world is not None:
            raise ConfigError("--world without --calibration; where are the other cameras?")
        truth = virtual_rig.read_truth(recording.path)
        places = dict(enumerate(truth["wxyz_xyz_world_cam"]))
        base = np.concatenate([np.eye(4)[0], truth["p_world_base"]])
        return _of(recording, places, base, np.eye(7)[0], True)
    if (given / calibration.FOLDER).is_dir():
        if world is None and (given / WORLD).is_file():
            world = given / WORLD
        given = given / calibration.FOLDER
    known = calibration.read(given)
    cam0, base = np.eye(7)[0], None
    if world is not None:
        cam0, base = calibration.read_named_pose(world, "cam0_rgb_camera_link"), np.eye(7)[0]
    places = {c: rigid.compose(cam0, known.wxyz_xyz_cam0_cam[c]) for c in known.cameras}
    to_world = np.eye(7)[0]
    if (recording.path / virtual_rig.TRUTH).is_file():
        truth = virtual_rig.read_truth(recording.path)
        origin = truth["wxyz_xyz_world_cam"][0]
        if base is not None:
            origin = np.concatenate([np.eye(4)[0], truth["p_world_base"]])
        to_world = rigid.inverse(origin)
    return _of(recording, places, base, to_world, world is not None)


def _of(
    recording: Recording,
    places: dict[int, Float[np.ndarray, " 7"]],
    base: Float[np.ndarray, " 7"] | None,
    wxyz_xyz_world_true: Float[np.ndarray, " 7"],
    upright: bool,
) -> Places:
    """Args: `wxyz_xyz_world_true` is the world of `truth.npz` in that of the places."""
    if lost := sorted(set(recording.cameras) - set(places)):
        raise CaptureError(
            f"{recording.path}: the calibration has cameras {sorted(places)}, and none of {lost}"
        )
    series, why = recording.joints(), ""
    if series is None or not len(series.q):
        why = "its joints were not recorded"
    elif missing := [name for name in JOINTS if name not in series.names]:
        why = f"the recorded joints lack {', '.join(missing)}"
    elif base is None:
        why = "nobody says where its base is; --world does"
    track = None
    if (recording.path / virtual_rig.TRUTH).is_file():
        truth = virtual_rig.read_truth(recording.path)
        track = rigid.interpolate(
            truth["time_s"], truth["wxyz_xyz_world_object"], truth["exposure_s_0"]
        )
        track = rigid.compose(wxyz_xyz_world_true, track)
    return Places(places, None if why else base, upright, why, track)
