"""Messages of ROS 2 from and to plain records; messages are handed in, ROS is not imported."""

import array
import math
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from robot.interface import JointState, RobotError, Trajectory

Kind = Literal["states", "trajectory", "text", "beat", "pose"]
"""What a topic carries."""
TYPES: dict[Kind, tuple[str, str]] = {
    "states": ("sensor_msgs.msg", "JointState"),
    "trajectory": ("trajectory_msgs.msg", "JointTrajectory"),
    "text": ("std_msgs.msg", "String"),
    "beat": ("std_msgs.msg", "UInt32"),
    "pose": ("geometry_msgs.msg", "PoseStamped"),
}
"""Module and name of each kind's message type."""
POINT = ("trajectory_msgs.msg", "JointTrajectoryPoint")
"""Module and name of the points of a trajectory."""


def encode(
    kind: Kind, record: Any, stamp_s: float, message: Any, make_point: Callable[[], Any]
) -> None:
    """Fills a new message.

    Args:
        kind: Of the message.
        record: A `JointState`, `Trajectory`, text, count, or pose (wxyz, m).
        stamp_s: Goes into its header, where it has one, seconds.
        message: What is filled.
        make_point: Makes an empty point of a trajectory.

    Raises:
        RobotError: A trajectory that is not finite.
    """
    if kind == "states":
        _encode_states(record, stamp_s, message)
    elif kind == "trajectory":
        _encode_trajectory(record, stamp_s, message, make_point)
    elif kind == "pose":
        _encode_pose(record, stamp_s, message)
    else:
        message.data = record


def decode(kind: Kind, message: Any) -> tuple[Any, float]:
    """The record of a message, as of `encode`, and its stamp in seconds."""
    if kind == "states":
        return _decode_states(message)
    if kind == "trajectory":
        return _decode_trajectory(message)
    if kind == "pose":
        return _decode_pose(message)
    return message.data, time.time()


def check_finite(trajectory: Trajectory) -> None:
    """Refuses a trajectory that holds a NaN or an infinity, or whose arrays do not fit.

    Raises:
        RobotError: As said, with the joint and the point.
    """
    k, j = len(trajectory.t), len(trajectory.names)
    if k == 0:
        raise RobotError("a trajectory without points; it must have at least one")
    for name in ("q", "qd"):
        value = np.asarray(getattr(trajectory, name))
        if value.shape != (k, j):
            raise RobotError(f"{name} has shape {value.shape}; it must be {(k, j)}")
        if not np.isfinite(value).all():
            row, column = np.argwhere(~np.isfinite(value))[0]
            what = f"{trajectory.names[column]} at point {row} is {value[row, column]}"
            raise RobotError(f"{name} of {what}; only finite values are sent")
    t = np.asarray(trajectory.t)
    if not np.isfinite(t).all() or t[0] < 0.0 or (np.diff(t) <= 0.0).any():
        raise RobotError("times of a trajectory must be finite and rise from 0")


def _stamp(message: Any, stamp_s: float) -> None:
    whole = math.floor(stamp_s)
    nanoseconds = min(int((stamp_s - whole) * 1e9), 999_999_999)
    message.header.stamp.sec, message.header.stamp.nanosec = whole, nanoseconds


def _stamp_of(message: Any) -> float:
    return message.header.stamp.sec + 1e-9 * message.header.stamp.nanosec


def _doubles(values: np.ndarray) -> "array.array[float]":
    return array.array("d", np.ascontiguousarray(values, np.float64).tobytes())


def _each(values: Sequence[float], count: int) -> Float[np.ndarray, " j"]:
    """One value for each joint; NaN, which is refused further on, where it is not one for each."""
    return np.array(values, np.float64) if len(values) == count else np.full(count, np.nan)


def _encode_states(state: JointState, stamp_s: float, message: Any) -> None:
    _stamp(message, stamp_s)
    message.name = list(state.names)
    message.position, message.velocity = _doubles(state.q), _doubles(state.qd)


def _decode_states(message: Any) -> tuple[JointState, float]:
    stamp_s = _stamp_of(message)
    state = JointState(
        stamp_s=stamp_s,
        received_s=time.monotonic(),
        names=tuple(message.name),
        q=_each(message.position, len(message.name)),
        qd=_each(message.velocity, len(message.name)),
    )
    return state, stamp_s


def _encode_trajectory(
    trajectory: Trajectory, stamp_s: float, message: Any, make_point: Callable[[], Any]
) -> None:
    check_finite(trajectory)
    _stamp(message, stamp_s)
    message.joint_names = list(trajectory.names)
    for t, q, qd in zip(trajectory.t, trajectory.q, trajectory.qd, strict=True):
        point = make_point()
        point.positions, point.velocities = _doubles(q), _doubles(qd)
        nanoseconds = round(float(t) * 1e9)
        point.time_from_start.sec = nanoseconds // 1_000_000_000
        point.time_from_start.nanosec = nanoseconds % 1_000_000_000
        message.points.append(point)


def _decode_trajectory(message: Any) -> tuple[Trajectory, float]:
    j = len(message.joint_names)
    q, qd = np.full((2, len(message.points), j), np.nan)
    for i, point in enumerate(message.points):
        q[i], qd[i] = _each(point.positions, j), _each(point.velocities, j)
    t = [p.time_from_start.sec + 1e-9 * p.time_from_start.nanosec for p in message.points]
    names = tuple(message.joint_names)
    return Trajectory(names, np.array(t, np.float64), q, qd), _stamp_of(message)


def _encode_pose(wxyz_xyz: Float[np.ndarray, " 7"], stamp_s: float, message: Any) -> None:
    _stamp(message, stamp_s)
    w, x, y, z, *p = (float(value) for value in wxyz_xyz)
    turn, place = message.pose.orientation, message.pose.position
    turn.w, turn.x, turn.y, turn.z = w, x, y, z
    place.x, place.y, place.z = p
    message.header.frame_id = "world"


def _decode_pose(message: Any) -> tuple[Float[np.ndarray, " 7"], float]:
    turn, place = message.pose.orientation, message.pose.position
    value = np.array([turn.w, turn.x, turn.y, turn.z, place.x, place.y, place.z])
    return value, _stamp_of(message)
