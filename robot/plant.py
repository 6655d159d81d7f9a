"""What a simulated robot's controllers move: ideal joints, or MuJoCo's."""

from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from realdex_jax import arm
from realdex_jax.geometry.shape import ObjectShape
from realdex_jax.hand import joints
from realdex_jax.hand.load import HandModel
from sim import workcell
from sim.physics import LiftPhysics

NAMES = workcell.NAMES
"""Joints: arm, wrist, hand; the order of every `q`."""

MAX_RATE: Float[np.ndarray, " 30"] = np.concatenate(
    [arm.MAX_RATE, arm.WRIST_MAX_RATE, joints.MAX_RATE]
)
"""What joints are able to, rad/s: the URDF's figures."""
HOME = np.array([-2.6606, -2.6665, -2.4242, -1.1925, -1.0898, -3.1416])
"""Angles of the arm (rad) that put the palm where demonstrations begin on average, pointing ahead
with the palm down: of the eight solutions one with the elbow up."""


@runtime_checkable
class Plant(Protocol):
    """Joints that follow set points in steps of time."""

    step_s: float
    """Seconds of one step."""

    def reset(self) -> None:
        """Puts everything where it began."""
        ...

    def step(self, q: Float[np.ndarray, " 30"], qd: Float[np.ndarray, " 30"]) -> None:
        """One step toward wanted positions (rad) at wanted velocities (rad/s)."""
        ...

    def joint_state(self) -> tuple[Float[np.ndarray, " 30"], Float[np.ndarray, " 30"]]:
        """Joint angles (rad) and velocities (rad/s)."""
        ...

    def object_pose(self) -> Float[np.ndarray, " 7"] | None:
        """`T_world_object` (wxyz, m), if there is an object."""
        ...


class Kinematic:
    """Joints that are at once where they should be; there is no object."""

    step_s = 0.002

    def __init__(self, q: Float[np.ndarray, " 30"]) -> None:
        """Begins at rest at `q` (rad)."""
        self._start = np.array(q, np.float64)
        self.reset()

    def reset(self) -> None:
        """As `Plant` says."""
        self._q, self._qd = self._start, np.zeros_like(self._start)

    def step(self, q: Float[np.ndarray, " 30"], qd: Float[np.ndarray, " 30"]) -> None:
        """As `Plant` says."""
        self._q, self._qd = q, qd

    def joint_state(self) -> tuple[Float[np.ndarray, " 30"], Float[np.ndarray, " 30"]]:
        """As `Plant` says."""
        return self._q, self._qd

    def object_pose(self) -> None:
        """There is none."""
        return


class Physical:
    """The work cell of `sim.workcell`: MuJoCo's physics of robot, table and object."""

    def __init__(
        self,
        hand: HandModel,
        shape: ObjectShape,
        wxyz_xyz_world_object: Float[np.ndarray, " 7"],
        q: Float[np.ndarray, " 30"],
        physics: LiftPhysics | None = None,
    ) -> None:
        """Compiles and begins at rest at `q` (rad); the rest is as `workcell.build` has it."""
        self.cell = workcell.build(hand, shape, wxyz_xyz_world_object, physics)
        self.step_s = float(self.cell.model.opt.timestep)
        self._start = np.array(q, np.float64)
        self.reset()

    def reset(self) -> None:
        """As `Plant` says."""
        self.data = workcell.start(self.cell, self._start)

    def step(self, q: Float[np.ndarray, " 30"], qd: Float[np.ndarray, " 30"]) -> None:
        """As `Plant` says."""
        workcell.step(self.cell, self.data, q, qd)

    def joint_state(self) -> tuple[Float[np.ndarray, " 30"], Float[np.ndarray, " 30"]]:
        """As `Plant` says."""
        return workcell.joint_state(self.cell, self.data)

    def object_pose(self) -> Float[np.ndarray, " 7"]:
        """As `Plant` says."""
        return workcell.object_pose(self.cell, self.data)


def at_rest(shape: ObjectShape) -> Float[np.ndarray, " 7"]:
    """`T_world_object` of an object that stands upright on the table, above the origin."""
    height = -float(np.asarray(shape.vertices)[:, 2].min())
    return np.array([1.0, 0.0, 0.0, 0.0, 0.0, 0.0, height])


def home() -> Float[np.ndarray, " 30"]:
    """Where a simulated robot begins (rad): fingers ahead, palm down, before the object."""
    return np.concatenate([HOME, np.zeros(2), joints.REST.astype(np.float64)])
