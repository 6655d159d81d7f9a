"""What would happen: a trajectory of the whole robot replayed in physics before anything moves.

The robot of `workcell` follows the set points exactly as controllers would interpolate them; every
contact that should not be, what joints do, and what becomes of the object are written down.
"""

import enum
from dataclasses import dataclass

import mujoco
import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from realdex_jax import arm
from realdex_jax.data import motion
from realdex_jax.data.motion import Motion
from realdex_jax.errors import PhysicsError
from sim import native, workcell
from sim.lift import REASONS, Reason
from sim.physics import LiftPhysics
from sim.workcell import NAMES, Workcell

_LOOK_STEPS = 5  # time steps between two looks
_ARM_JOINTS = len(arm.JOINTS)


class Part(enum.IntEnum):
    """What a geometry belongs to."""

    SETTING = 0
    """Table, pedestal and the arm's base."""
    ARM = 1
    """Arm and forearm."""
    HAND = 2
    OBJECT = 3


@dataclass(frozen=True)
class SafetyConfig:
    """What is no harm in a replay."""

    arm_depth_m: float = 0.0005
    """Depth of the arm in anything; it should touch nothing."""
    table_depth_m: float = 0.002
    """Depth of the hand in table and pedestal: fingers may slide on the table."""
    self_depth_m: float = 0.003
    """Depth of the hand in itself: fingers may press on each other."""
    arm_error_rad: float = 0.02
    """How far a joint of the arm may be from its set point."""
    rate_excess: float = 1.1
    """Most that a joint of the arm may be faster than its set points ever are."""


@dataclass(frozen=True)
class Touch:
    """The deepest unwanted contact of one kind."""

    first_s: float
    """When the kind first occurred, seconds."""
    depth_m: float
    """Greatest depth, metres."""
    one: str
    """Names of what touched, at the greatest depth."""
    other: str


@dataclass(frozen=True, eq=False)
class Replay:
    """What happened."""

    film: Motion
    """Hand and object in the world, 15 frames a second."""
    touches: dict[str, Touch]
    """Unwanted contacts by kind: "arm", "hand and table", "hand itself"."""
    arm_error_rad: float
    """Greatest distance of an arm joint from its set point ..."""
    arm_error_joint: str
    """... which ..."""
    arm_error_s: float
    """... and when, seconds."""
    rate_ratio: float
    """Greatest speed of an arm joint over the greatest of its set points."""
    reason: Reason
    """What became of the object, as in the lift test."""
    risen_m: float
    """Rise of the object's centre of mass at the end, metres."""
    palm_risen_m: float
    """Rise of the palm from before the lift to the end."""
    shoved_m: float
    """Horizontal move of the object before the lift."""
    config: SafetyConfig
    """What was allowed."""

    @property
    def lifted(self) -> bool:
        """Whether the object was lifted and held."""
        return self.reason is Reason.HELD

    def faults(self) -> tuple[str, ...]:
        """Why the trajectory should not be driven, in words; none where it may be."""
        said = []
        for kind, touch in self.touches.items():
            said.append(
                f"collision, {kind}: {touch.one} and {touch.other} "
                f"{1000 * touch.depth_m:.1f} mm deep, first at {touch.first_s:.2f} s"
            )
        if not self.arm_error_rad <= self.config.arm_error_rad:
            said.append(
                f"the arm does not follow: {self.arm_error_joint} is {self.arm_error_rad:.4f} rad "
                f"off at {self.arm_error_s:.2f} s, allowed {self.config.arm_error_rad}"
            )
        if not self.rate_ratio <= self.config.rate_excess:
            said.append(
                f"an arm joint is {self.rate_ratio:.2f} times as fast as its set points, allowed "
                f"{self.config.rate_excess}"
            )
        if not self.lifted:
            said.append(
                f"{REASONS[self.reason]}: object rose {100 * self.risen_m:.1f} cm, palm "
                f"{100 * self.palm_risen_m:.1f} cm, shoved {100 * self.shoved_m:.1f} cm"
            )
        return tuple(said)


def replay(
    cell: Workcell,
    q: Float[np.ndarray, "s 30"],
    qd: Float[np.ndarray, "s 30"],
    lift_at_s: float,
    hold_at_s: float,
    *,
    physics: LiftPhysics | None = None,
    config: SafetyConfig | None = None,
) -> Replay:
    """Follows set points to their end, and on where something fails.

    Args:
        cell: Robot, table and object.
        q: Set points at every time step of the model, radians, order `workcell.NAMES`; the robot
            starts at rest at the first.
        qd: Their velocities, rad/s.
        lift_at_s: When the lift begins, seconds: from then the object may leave its place.
        hold_at_s: When it should be up.
        physics: How far the object may slip or be shoved; `LiftPhysics()` if None.
        config: What is no harm; `SafetyConfig()` if None.

    Raises:
        PhysicsError: Set points that are not finite or of the wrong shape, or times out of order.
    """
    physics, config = physics or LiftPhysics(), config or SafetyConfig()
    dt = cell.model.opt.timestep
    end_s = (len(q) - 1) * dt
    if q.shape != qd.shape or q.shape[1] != len(NAMES) or len(q) < 2:
        raise PhysicsError(f"set points {q.shape} and {qd.shape}; both must be (s, {len(NAMES)})")
    if not (np.isfinite(q).all() and np.isfinite(qd).all()):
        raise PhysicsError("set points that are not finite")
    if not 0.0 < lift_at_s < hold_at_s < end_s:
        raise PhysicsError(f"lift at {lift_at_s} s, hold at {hold_at_s} s, end at {end_s:.3f} s")
    part = parts(cell)
    data = workcell.start(cell, q[0])
    touches: dict[str, Touch] = {}
    worst, worst_at = np.zeros(_ARM_JOINTS), np.zeros(_ARM_JOINTS)
    fastest = np.zeros(_ARM_JOINTS)
    started, palm_low = _centre(cell, data), workcell.palm_pose(cell, data)[1][2]
    shoved, reason = 0.0, Reason.HELD
    frames = [_frame(cell, data)]
    for step in range(1, len(q)):
        workcell.step(cell, data, q[step], qd[step])
        if native.diverged(data):
            reason = Reason.UNSTABLE
            break
        if step % _LOOK_STEPS and step < len(q) - 1:
            continue
        t = step * dt
        frames.append(_frame(cell, data))
        now, rate = workcell.joint_state(cell, data)
        error = np.abs(now - q[step])[:_ARM_JOINTS]
        worst_at = np.where(error > worst, t, worst_at)
        worst, fastest = (
            np.maximum(worst, error),
            np.maximum(fastest, np.abs(rate[:_ARM_JOINTS])),
        )
        _note(cell, data, part, t, config, touches)
        risen, aside, tilt = _moved(cell, data, started)
        if t <= lift_at_s:
            shoved, palm_low = aside, workcell.palm_pose(cell, data)[1][2]
            if reason is Reason.HELD and (aside > physics.max_push or tilt > physics.max_tilt):
                reason = Reason.SHOVED
        elif t >= hold_at_s and reason is Reason.HELD:
            palm = workcell.palm_pose(cell, data)[1][2] - palm_low
            reason = _judge(cell, data, risen, palm, physics)
    risen, _, _ = _moved(cell, data, started)
    joint = int(worst.argmax())
    asked = np.abs(qd[:, :_ARM_JOINTS]).max(0)
    return Replay(
        film=_film(frames, _LOOK_STEPS * dt),
        touches=touches,
        arm_error_rad=float(worst[joint]),
        arm_error_joint=NAMES[joint],
        arm_error_s=float(worst_at[joint]),
        rate_ratio=float((fastest / np.maximum(asked, 0.05)).max()),
        reason=reason,
        risen_m=float(risen),
        palm_risen_m=float(workcell.palm_pose(cell, data)[1][2] - palm_low),
        shoved_m=float(shoved),
        config=config,
    )


def parts(cell: Workcell) -> np.ndarray:
    """The `Part` of each geometry."""
    bodies = [cell.model.body(b).name for b in cell.model.geom_bodyid]
    kinds = np.full(len(bodies), Part.SETTING)
    for g, body in enumerate(bodies):
        if body in arm.LINKS[1:]:
            kinds[g] = Part.ARM
        elif body.startswith(workcell.PREFIX):
            kinds[g] = Part.HAND
        elif cell.model.geom_bodyid[g] == cell.object_body:
            kinds[g] = Part.OBJECT
    return kinds


def _note(
    cell: Workcell,
    data: mujoco.MjData,
    part: np.ndarray,
    t: float,
    config: SafetyConfig,
    touches: dict[str, Touch],
) -> None:
    """Adds the unwanted contacts of this moment."""
    if not data.ncon:
        return
    pairs, depth = np.asarray(data.contact.geom), -np.asarray(data.contact.dist)
    kinds = np.sort(part[pairs], axis=1)
    of_arm = (kinds == Part.ARM).any(1)
    table = (kinds == (Part.SETTING, Part.HAND)).all(1)
    itself = (kinds == (Part.HAND, Part.HAND)).all(1)
    for kind, which, allowed in (
        ("arm", of_arm, config.arm_depth_m),
        ("hand and table", table, config.table_depth_m),
        ("hand itself", itself, config.self_depth_m),
    ):
        bad = np.flatnonzero(which & (depth > allowed))
        if not len(bad):
            continue
        deepest = bad[depth[bad].argmax()]
        known = touches.get(kind)
        if known is not None and known.depth_m >= depth[deepest]:
            continue
        one, other = (_name(cell, int(g)) for g in pairs[deepest])
        first = t if known is None else known.first_s
        touches[kind] = Touch(first, float(depth[deepest]), one, other)


def _name(cell: Workcell, geom: int) -> str:
    """Of the link, or of the geometry where it is not on a link."""
    body = int(cell.model.geom_bodyid[geom])
    return cell.model.body(body).name if body else cell.model.geom(geom).name


def _centre(cell: Workcell, data: mujoco.MjData) -> tuple[np.ndarray, np.ndarray]:
    """The object's centre of mass (m) and orientation in the world."""
    body = cell.object_body
    return data.xipos[body].copy(), data.xmat[body].reshape(3, 3).copy()


def _moved(
    cell: Workcell, data: mujoco.MjData, started: tuple[np.ndarray, np.ndarray]
) -> tuple[float, float, float]:
    """Of the object since the start: rise, horizontal move (m), tilt (rad)."""
    p, R = _centre(cell, data)
    dx, dy, dz = p - started[0]
    tilt = np.arccos(np.clip((R @ started[1].T)[2, 2], -1.0, 1.0))
    return float(dz), float(np.hypot(dx, dy)), float(tilt)


def _judge(
    cell: Workcell, data: mujoco.MjData, risen: float, palm: float, physics: LiftPhysics
) -> Reason:
    """Whether the object is off the table and rose (m) as the palm did."""
    for pair in data.contact.geom:
        if cell.table in pair and cell.object_body in cell.model.geom_bodyid[pair]:
            return Reason.DROPPED
    return Reason.SLIPPED if risen < palm - physics.max_slip else Reason.HELD


def _frame(cell: Workcell, data: mujoco.MjData) -> tuple[np.ndarray, np.ndarray]:
    """Hand (28,), the palm in the world, and object (7,)."""
    q, _ = workcell.joint_state(cell, data)
    R, p = workcell.palm_pose(cell, data)
    turn = Rotation.from_matrix(R).as_rotvec()
    return np.concatenate([q[-22:], p, turn]), workcell.object_pose(cell, data)


def _film(frames: list[tuple[np.ndarray, np.ndarray]], step_s: float) -> Motion:
    phi, world = (np.stack(column) for column in zip(*frames, strict=True))
    if len(frames) * step_s < motion.MIN_FRAMES / motion.RATE:
        return Motion(np.arange(len(phi)) * step_s, phi, world)
    return motion.resample(Motion(np.arange(len(phi)) * step_s, phi, world))
