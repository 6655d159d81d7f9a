"""What a teleoperated robot did, kept in step: every sample with its stamps, and as motions."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import jax.numpy as jnp
import jaxlie
import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from realdex_jax import arm, pose
from realdex_jax.data import motion as motions
from realdex_jax.data import motion_set, npz
from realdex_jax.data.motion import Motion
from realdex_jax.data.store import Dataset
from realdex_jax.data.writer import Writer
from realdex_jax.hand import torque
from robot.interface import JointState, RobotError
from robot.teleop import NAMES
from sim.demonstrate import P_WORLD_BASE

FORMAT = "realdex_jax.teleop/1"
"""Name and version of the layout of raw recordings."""


@dataclasses.dataclass(frozen=True, eq=False)
class Recording:
    """One session, f samples."""

    host_s: Float[np.ndarray, " f"]
    """When each sample was taken, by this machine's monotonic clock: that of the cameras."""
    stamp_s: Float[np.ndarray, " f"]
    """When the joints were measured, by the robot's clock."""
    received_s: Float[np.ndarray, " f"]
    """When that came, by this machine's monotonic clock."""
    q_wanted: Float[np.ndarray, "f 30"]
    """Set points, radians, order `teleop.NAMES`."""
    q: Float[np.ndarray, "f 30"]
    """Measured joints, radians."""
    wxyz_xyz_world_object: Float[np.ndarray, "f 7"]
    """Where the object was; NaN where nobody knew."""


class Recorder:
    """Takes sample by sample."""

    def __init__(self) -> None:
        """Nothing yet."""
        self._rows: list[tuple[float, float, float, np.ndarray, np.ndarray, np.ndarray]] = []

    def add(
        self,
        host_s: float,
        q_wanted: Float[np.ndarray, " 30"],
        state: JointState,
        wxyz_xyz_world_object: Float[np.ndarray, " 7"] | None = None,
    ) -> None:
        """Keeps one sample; `state` has the joints of `teleop.NAMES` in that order."""
        if state.names != NAMES:
            raise RobotError(f"a recording has the joints {NAMES[0]} ... {NAMES[-1]}, in order")
        placed = np.full(7, np.nan) if wxyz_xyz_world_object is None else wxyz_xyz_world_object
        self._rows.append((host_s, state.stamp_s, state.received_s, q_wanted, state.q, placed))

    def __len__(self) -> int:
        """Number of samples."""
        return len(self._rows)

    def recording(self) -> Recording:
        """All of it.

        Raises:
            RobotError: There is nothing.
        """
        if not self._rows:
            raise RobotError("nothing was recorded")
        return Recording(
            *(np.array(column, np.float64) for column in zip(*self._rows, strict=True))
        )


def save(path: Path, recording: Recording) -> None:
    """Writes a recording at its full rate as one `.npz` without pickles."""
    arrays = {"format": np.array(FORMAT), "names": np.array(NAMES), **vars(recording)}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(npz.encode(arrays, compress=True))


def to_motion(recording: Recording) -> Motion:
    """What the hand did in the world, at `motion.RATE`; time is that of the measured joints.

    Where the object's pose was never known it stands at the world's origin.

    Raises:
        RobotError: The joints' clock stood still or went back.
        DatasetError: Too short.
    """
    fresh = np.flatnonzero(np.diff(recording.stamp_s, prepend=-np.inf) > 0.0)
    time = recording.stamp_s[fresh] - recording.stamp_s[fresh[0]]
    if not (np.diff(time) > 0.0).all():
        raise RobotError("the robot's clock went back in the recording")
    q = recording.q[fresh]
    R, p = arm.palm_pose(jnp.asarray(q[:, :6], jnp.float32))
    # The two joints of the wrist turn the palm about themselves.
    p_forearm = np.asarray(p, np.float64) - np.einsum("fij,j->fi", R, arm.P_FOREARM_PALM)
    first, second = (Rotation.from_euler(axis, q[:, [6 + i]]) for i, axis in enumerate("yx"))
    turned = Rotation.from_matrix(np.asarray(R, np.float64)) * first
    p_palm = p_forearm + Rotation.from_matrix(np.asarray(R, np.float64)).apply(arm.P_FOREARM_WRIST)
    p_palm = p_palm + turned.apply(arm.P_FOREARM_PALM - arm.P_FOREARM_WRIST)
    T = jaxlie.SE3.from_rotation_and_translation(
        jaxlie.SO3.from_matrix(jnp.asarray((turned * second).as_matrix(), jnp.float32)),
        jnp.asarray(p_palm + np.array(P_WORLD_BASE), jnp.float32),
    )
    phi = pose.join(torque.within_limits(jnp.asarray(q[:, 8:], jnp.float32)), T)
    placed = recording.wxyz_xyz_world_object[fresh]
    known = np.asarray(np.isfinite(placed).all(axis=1))
    if not known.any():
        placed = np.tile(np.eye(7)[0], (len(placed), 1))
    else:  # before it was first seen it was where it was first seen
        last = np.maximum.accumulate(np.where(known, np.arange(len(placed)), known.argmax()))
        placed = placed[last]
    return motions.resample(Motion(time=time, phi=np.asarray(phi), wxyz_xyz_world_object=placed))


def store(
    path: Path, found: Sequence[Motion], names: Sequence[str], command: str, version: str = "1"
) -> Dataset:
    """Writes motions as a dataset; the last joint angles of each are what it squeezes with.

    Args:
        path: Folder of the dataset.
        found: Of `to_motion`.
        names: What each reaches for, in the order of `found`.
        command: How it was made.
        version: Of the dataset.

    Raises:
        DatasetError: No motions, or they break the store's rules.
    """
    last = np.array([np.asarray(m.phi)[-1, : pose.JOINTS] for m in found], np.float32)
    known = tuple(dict.fromkeys(names))
    with Writer(path) as writer:
        for name in known:
            rows = [i for i, n in enumerate(names) if n == name]
            chosen = motion_set.collect([found[i] for i in rows], [name] * len(rows), last[rows])
            writer.add(name, motions=chosen)
        return writer.finish(
            name="teleop", version=version, splits={"train": known}, recipe={"command": command}
        )
