"""The record every grasp travels in, and the rules it must keep."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Array, Float

from realdex_jax import pytree
from realdex_jax.errors import DatasetError
from realdex_jax.hand.joints import SHADOW, JointTable

LIMIT_TOLERANCE = 0.05
"""Radians a joint angle may lie beyond its limit: settled poses sag a little past the stops of the
simulated hand."""

MAX_ANGLE = 2.0 * np.pi + 1e-3
"""Most that an axis-angle may turn, radians."""

MAX_SQUEEZE = 10.0
"""Largest joint target, radians: joints turn by less than 2, and targets press a little beyond."""

MAX_DISTANCE = 2.0
"""Farthest palm (m) from the object's origin; more means a unit or frame mistake."""


@pytree.dataclass
class GraspSet:
    """Grasps of one object, in its frame."""

    phi: Float[Array | np.ndarray, "n phi"]
    """Poses: joint angles (rad), palm translation (m), palm axis-angle (rad); see
    `realdex_jax.pose`."""
    q_pregrasp: Float[Array | np.ndarray, "n j"]
    """Joint angles (rad) to close from."""
    q_squeeze: Float[Array | np.ndarray, "n j"]
    """Commanded joint angles (rad) that press on the object; targets of a position controller, so
    they may pass limits."""
    columns: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    """Further values per grasp by name, each (n,): template, depth, robustness record, weight
    ..."""

    def __len__(self) -> int:
        """Number of grasps."""
        return len(self.phi)


def validate(grasps: GraspSet, where: str = "grasp set", table: JointTable = SHADOW) -> GraspSet:
    """Checks a grasp set and returns it.

    Args:
        grasps: The set.
        where: Named in errors: a file or an object.
        table: The joints of the hand.

    Raises:
        DatasetError: Wrong shapes, values that are not finite, joint angles beyond their limits by
            more than `LIMIT_TOLERANCE`, or a palm more than `MAX_DISTANCE` from the object.
    """
    n = len(grasps.phi)
    validate_poses(np.asarray(grasps.phi), where, table)
    for name in ("q_pregrasp", "q_squeeze"):
        _check_table(np.asarray(getattr(grasps, name)), (n, len(table)), f"{where}: {name}")
    for name, value in grasps.columns.items():
        if np.shape(value)[:1] != (n,) or np.ndim(value) != 1:
            raise DatasetError(f"{where}: column {name!r} has shape {np.shape(value)}, not ({n},)")
    check_limits(np.asarray(grasps.q_pregrasp), f"{where}: q_pregrasp", table=table)
    squeeze = np.abs(np.asarray(grasps.q_squeeze, np.float64)).max(initial=0.0)
    if squeeze > MAX_SQUEEZE:
        raise DatasetError(
            f"{where}: q_squeeze has {squeeze:.4g} rad; targets are within {MAX_SQUEEZE:g}"
        )
    return grasps


def validate_poses(
    phi: np.ndarray, where: str, table: JointTable = SHADOW
) -> Float[np.ndarray, "n phi"]:
    """Checks poses and returns them; `where` is named in errors.

    Raises:
        DatasetError: As `validate`.
    """
    n = len(phi) if phi.ndim else 0
    _check_table(phi, (n, table.pose_size), f"{where}: phi")
    check_limits(phi[:, :-6], f"{where}: phi", table=table)
    # Doubles: the square of a damaged number may be more than a float holds.
    distance = np.linalg.norm(phi[:, -6:-3].astype(np.float64), axis=1)
    if n and distance.max() > MAX_DISTANCE:
        raise DatasetError(
            f"{where}: the palm of grasp {distance.argmax()} is {distance.max():.2f} m from the "
            f"object's origin; "
            f"more than {MAX_DISTANCE} m means wrong units or a wrong frame"
        )
    angle = np.linalg.norm(phi[:, -3:].astype(np.float64), axis=1)
    if n and angle.max() > MAX_ANGLE:
        raise DatasetError(
            f"{where}: the orientation of grasp {angle.argmax()} turns by {angle.max():.4g} rad; "
            f"an axis-angle turns by at most {MAX_ANGLE:.4g}: are these degrees?"
        )
    return phi


def _check_table(value: np.ndarray, shape: tuple[int, int], where: str) -> None:
    """Checks that a table has its shape and finite numbers."""
    if value.shape != shape:
        raise DatasetError(f"{where} has shape {value.shape}; it must be {shape}")
    finite = np.isfinite(value)
    if not finite.all():
        bad = np.flatnonzero(~finite.all(axis=1))
        raise DatasetError(f"{where} of grasp {bad[0]} is not finite ({len(bad)} such)")


def check_limits(
    q: Float[np.ndarray, "n j"], where: str, each: str = "grasp", table: JointTable = SHADOW
) -> None:
    """Checks joint angles (rad); `each` names a row in the error.

    Raises:
        DatasetError: One lies beyond its limits by more than `LIMIT_TOLERANCE`.
    """
    beyond = np.maximum(table.lower - q, q - table.upper)
    if q.size and beyond.max() > LIMIT_TOLERANCE:
        grasp, joint = np.unravel_index(beyond.argmax(), beyond.shape)
        raise DatasetError(
            f"{where} of {each} {grasp}: {table.names[joint]} = {q[grasp, joint]:.3f} rad; its "
            f"limits are "
            f"{table.lower[joint]:.3f} to {table.upper[joint]:.3f}"
        )


def take(grasps: GraspSet, index: np.ndarray | slice) -> GraspSet:
    """The grasps at `index` (integers, a mask or a slice)."""
    return GraspSet(
        phi=grasps.phi[index],
        q_pregrasp=grasps.q_pregrasp[index],
        q_squeeze=grasps.q_squeeze[index],
        columns={name: np.asarray(value)[index] for name, value in grasps.columns.items()},
    )


def concatenate(sets: Sequence[GraspSet]) -> GraspSet:
    """Joins grasp sets of one object; only columns that all of them have are kept.

    Raises:
        DatasetError: No sets were given.
    """
    if not sets:
        raise DatasetError("no grasp sets to join; at least one is needed")
    shared = set.intersection(*(set(s.columns) for s in sets))
    return GraspSet(
        phi=np.concatenate([np.asarray(s.phi) for s in sets]),
        q_pregrasp=np.concatenate([np.asarray(s.q_pregrasp) for s in sets]),
        q_squeeze=np.concatenate([np.asarray(s.q_squeeze) for s in sets]),
        columns={
            k: np.concatenate([np.asarray(s.columns[k]) for s in sets]) for k in sorted(shared)
        },
    )
