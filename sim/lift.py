"""The lift test: does a hand that follows a motion lift the object off its table and keep it?

The palm is led along the motion and the actuators take its joint angles as set points; then the
hand squeezes, rises and holds still, whatever the object did meanwhile. Native MuJoCo in a thread
pool; every lift starts from a reset state, so results do not depend on the number of threads.
"""

import enum
import queue
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import mujoco
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from scipy.spatial.transform import Rotation

from realdex_jax import pose
from realdex_jax.data import motion
from realdex_jax.data.motion import Motion
from realdex_jax.errors import DatasetError, PhysicsError
from realdex_jax.hand.load import HandModel, require_shadow
from realdex_jax.trajectory import minimum_jerk
from sim import native
from sim.physics import LiftPhysics
from sim.scene import LiftScene, Pieces, lift_scene

_LOOK_STEPS = 5  # steps between two looks at the object; every phase is whole looks


class Reason(enum.IntEnum):
    """Why a lift ended."""

    HELD = 0
    START_DEPTH = 1
    SHOVED = 2
    DROPPED = 3
    SLIPPED = 4
    UNSTABLE = 5


REASONS: dict[Reason, str] = {
    Reason.HELD: "lifted and held",
    Reason.START_DEPTH: "hand inside the object, the table or itself at the start",
    Reason.SHOVED: "object shoved too far or knocked over before the lift",
    Reason.DROPPED: "object left on the table, or dropped onto it",
    Reason.SLIPPED: "object lifted, but slipped in the hand",
    Reason.UNSTABLE: "simulation diverged",
}
"""Readable text per reason."""


@dataclass(frozen=True)
class Lift:
    """Outcome of the lift test, one row per motion."""

    success: Bool[np.ndarray, " n"]
    """Lifted and held."""
    reason: Int[np.ndarray, " n"]
    """A `Reason` per motion; the lift ends where it is known."""
    risen_m: Float[np.ndarray, " n"]
    """Rise of the object's centre of mass from the start to the end, metres."""
    shoved_m: Float[np.ndarray, " n"]
    """Horizontal move of the centre of mass from the start to before the lift, metres."""
    turned_rad: Float[np.ndarray, " n"]
    """Rotation of the object from the start to the end, radians."""

    def counts(self) -> dict[str, int]:
        """Number of lifts per reason that occurred, by readable text."""
        found = {text: int((self.reason == reason).sum()) for reason, text in REASONS.items()}
        return {text: number for text, number in found.items() if number}


def lift(
    hand: HandModel,
    shape: Pieces,
    phi_world: Sequence[Float[Array | np.ndarray, "_ 28"]],
    q_squeeze: Float[Array | np.ndarray, "n 22"],
    wxyz_xyz_world_object: Float[Array | np.ndarray, "n 7"],
    *,
    physics: LiftPhysics | None = None,
    rate: float = motion.RATE,
    threads: int | None = None,
) -> Lift:
    """Follows every motion, squeezes, lifts and holds.

    Only the last `physics.replay` seconds of a motion are simulated, from the pose and the velocity
    it has there. Between frames joints and positions run linearly, orientations on great arcs. How
    far each of two joints on one tendon bends is left to the simulation, as on the real hand.

    Args:
        hand: Any hand with Shadow's joints.
        shape: The object; its mass is replaced by `physics.mass`.
        phi_world: One array (t, 28) per motion, lengths may differ: joint angles (rad), palm
            translation (m) and palm axis-angle (rad) in the world, whose table is the plane z = 0.
        q_squeeze: Joint targets (rad) that press on the object; they may pass limits.
        wxyz_xyz_world_object: Where the object stands at rest before each: unit quaternion wxyz,
            position (m).
        physics: The constants; `LiftPhysics()` if None.
        rate: Frames a second of all motions.
        threads: Worker threads; `native.cores()` if None.

    Raises:
        PhysicsError: A motion, squeeze or pose is not finite, of the wrong shape or beyond joint
            limits, a motion is shorter than `motion.MIN_FRAMES`, or the object cannot be simulated.
        HandError: A hand with other joints than Shadow's.
    """
    require_shadow(hand, "the lift test")
    physics = physics or LiftPhysics()
    jobs = _checked(phi_world, q_squeeze, wxyz_xyz_world_object, rate)
    scene = lift_scene(hand, shape, physics)
    count = len(jobs)
    out = Lift(
        success=np.zeros(count, bool),
        reason=np.zeros(count, np.int8),
        risen_m=np.zeros(count, np.float32),
        shoved_m=np.zeros(count, np.float32),
        turned_rad=np.zeros(count, np.float32),
    )
    threads = max(1, min(threads or native.cores(), count))
    idle: queue.SimpleQueue[mujoco.MjData] = queue.SimpleQueue()
    for _ in range(threads):
        idle.put(mujoco.MjData(scene.model))

    def work(row: int) -> None:
        data = idle.get()
        plan = _plan(*jobs[row], physics)
        start = _reset(scene, data, plan)
        deep = data.ncon > 0 and -data.contact.dist.min() > physics.max_start_depth
        reason = Reason.START_DEPTH if deep else Reason.HELD
        for done in () if deep else _looks(scene, data, plan):
            if native.diverged(data):
                reason = Reason.UNSTABLE
                break
            risen, shoved, turned, tilt = _moved(scene, data, start)
            out.risen_m[row], out.turned_rad[row] = risen, turned
            if done <= plan.lift_at:
                out.shoved_m[row] = shoved
                if shoved > physics.max_push or tilt > physics.max_tilt:
                    reason = Reason.SHOVED
                    break
            elif done >= plan.hold_at:
                reason = _judge(scene, data, physics, risen)
                if reason is not Reason.HELD:
                    break
        out.reason[row], out.success[row] = reason, reason is Reason.HELD
        idle.put(data)

    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(work, range(count)):
            pass
    return out


def replay(
    hand: HandModel,
    shape: Pieces,
    phi_world: Float[Array | np.ndarray, "t 28"],
    q_squeeze: Float[Array | np.ndarray, " 22"],
    wxyz_xyz_world_object: Float[Array | np.ndarray, " 7"],
    *,
    physics: LiftPhysics | None = None,
    rate: float = motion.RATE,
) -> Motion:
    """What hand and object really do in one lift, to the end of the hold even where it fails.

    Arguments are those of `lift`, for one motion.

    Returns:
        The simulated part in the world at `rate`; time counts from where the simulation begins.

    Raises:
        PhysicsError: As for `lift`, and where the simulation diverges.
    """
    physics = physics or LiftPhysics()
    one = np.asarray(q_squeeze)[None], np.asarray(wxyz_xyz_world_object)[None]
    ((reach, squeeze),) = _checked([phi_world], *one, rate)
    scene = lift_scene(hand, shape, physics)
    data = mujoco.MjData(scene.model)
    plan = _plan(reach, squeeze, physics)
    _reset(scene, data, plan)
    frames = [_frame(scene, data)]
    for done in _looks(scene, data, plan):
        if native.diverged(data):
            raise PhysicsError(f"the simulation diverges after {done * physics.timestep:.2f} s")
        frames.append(_frame(scene, data))
    time = np.arange(len(frames)) * (_LOOK_STEPS * physics.timestep)
    phi, world = (np.stack(column) for column in zip(*frames, strict=True))
    return motion.resample(Motion(time, phi, world), rate)


@dataclass(frozen=True)
class _Plan:
    """What is asked for at every step, row 0 at the start."""

    q: np.ndarray
    """(s + 1, 22) joint targets, radians."""
    palm: np.ndarray
    """(s + 1, 7) palm in the world: position (m), quaternion wxyz."""
    wxyz_xyz_world_object: np.ndarray
    """The object's start."""
    lift_at: int
    """Step at which the lift begins."""
    hold_at: int
    """Step at which the hold begins."""


def _checked(
    phi_world: Sequence[Array | np.ndarray],
    q_squeeze: Array | np.ndarray,
    wxyz_xyz_world_object: Array | np.ndarray,
    rate: float,
) -> list[tuple[Motion, np.ndarray]]:
    """Every motion with its squeeze (22,)."""
    if not (np.isfinite(rate) and rate > 0.0):
        raise PhysicsError(f"rate {rate}; it must be positive")
    count = len(phi_world)
    squeezes, objects = np.asarray(q_squeeze), np.asarray(wxyz_xyz_world_object)
    for name, value, width in (
        ("q_squeeze", squeezes, pose.JOINTS),
        ("wxyz_xyz_world_object", objects, 7),
    ):
        if value.shape != (count, width):
            raise PhysicsError(
                f"{name} must be ({count}, {width}) for {count} motions, got {value.shape}"
            )
        bad = np.flatnonzero(~np.isfinite(value).all(axis=1))
        if len(bad):
            raise PhysicsError(f"{name} of motion {bad[0]} is not finite ({len(bad)} such)")
    jobs = []
    for i, phi in enumerate(phi_world):
        frames = len(phi)
        reach = Motion(np.arange(frames) / rate, np.asarray(phi), np.tile(objects[i], (frames, 1)))
        try:
            jobs.append((motion.validate(reach, f"motion {i}"), squeezes[i]))
        except DatasetError as error:
            raise PhysicsError(str(error)) from error
    return jobs


def _plan(reach: Motion, q_squeeze: np.ndarray, physics: LiftPhysics) -> _Plan:
    dense = np.asarray(motion.resample(reach, 1.0 / physics.timestep).phi, np.float64)
    dense = dense[-round(physics.replay / physics.timestep) - 1 :]
    squeeze, rise, hold = (
        max(round(seconds / physics.timestep / _LOOK_STEPS), 1) * _LOOK_STEPS
        for seconds in (physics.squeeze, physics.lift_duration, physics.hold)
    )
    squeeze_at = len(dense) - 1 + -(len(dense) - 1) % _LOOK_STEPS
    lift_at, hold_at = squeeze_at + squeeze, squeeze_at + squeeze + rise
    last = np.asarray(reach.phi, np.float64)[-1]
    phi = np.tile(last, (hold_at + hold + 1, 1))
    phi[: len(dense)] = dense
    s = np.clip((np.arange(len(phi)) - squeeze_at) / squeeze, 0.0, 1.0)[squeeze_at:, None]
    phi[squeeze_at:, :22] = (1.0 - s) * last[:22] + s * q_squeeze
    phi[:, 24] += physics.lift_height * minimum_jerk((np.arange(len(phi)) - lift_at) / rise)
    wxyz = Rotation.from_rotvec(phi[:, 25:]).as_quat(scalar_first=True)
    return _Plan(
        q=phi[:, :22],
        palm=np.concatenate([phi[:, 22:25], wxyz], axis=1),
        wxyz_xyz_world_object=np.asarray(reach.wxyz_xyz_world_object)[0],
        lift_at=lift_at,
        hold_at=hold_at,
    )


def _reset(scene: LiftScene, data: mujoco.MjData, plan: _Plan) -> tuple[np.ndarray, np.ndarray]:
    """Puts everything where it starts; returns the object's centre of mass and orientation."""
    model = scene.model
    mujoco.mj_resetData(model, data)
    data.mocap_pos[0], data.mocap_quat[0] = plan.palm[0, :3], plan.palm[0, 3:]
    soon = data.qpos.copy()
    for row, qpos in enumerate((data.qpos, soon)):
        qpos[scene.object_qpos : scene.object_qpos + 7] = np.roll(plan.wxyz_xyz_world_object, 3)
        qpos[scene.joint_qpos] = plan.q[row]
        qpos[scene.palm_qpos : scene.palm_qpos + 7] = plan.palm[row]
    mujoco.mj_differentiatePos(model, data.qvel, model.opt.timestep, data.qpos, soon)
    mujoco.mj_forward(model, data)
    body = scene.object_body
    return data.xipos[body].copy(), data.xmat[body].reshape(3, 3).copy()


def _looks(scene: LiftScene, data: mujoco.MjData, plan: _Plan) -> Iterator[int]:
    """Steps through the plan; yields the number of steps done at every look."""
    ctrl = np.einsum("sj,aj->sa", plan.q, scene.control)  # no BLAS: its idle threads spin
    for step in range(1, len(ctrl)):
        data.mocap_pos[0], data.mocap_quat[0] = plan.palm[step, :3], plan.palm[step, 3:]
        data.ctrl[:] = ctrl[step]
        mujoco.mj_step(scene.model, data)
        if step % _LOOK_STEPS == 0:
            yield step


def _moved(
    scene: LiftScene, data: mujoco.MjData, start: tuple[np.ndarray, np.ndarray]
) -> tuple[float, float, float, float]:
    """Of the object since the start: rise and horizontal move (m), turn and tilt (rad)."""
    p, R_world_object = start
    dx, dy, dz = data.xipos[scene.object_body] - p
    R = data.xmat[scene.object_body].reshape(3, 3) @ R_world_object.T  # in the world
    turn, tilt = np.arccos(np.clip([(np.trace(R) - 1.0) / 2.0, R[2, 2]], -1.0, 1.0))
    return float(dz), float(np.hypot(dx, dy)), float(turn), float(tilt)


def _judge(scene: LiftScene, data: mujoco.MjData, physics: LiftPhysics, risen: float) -> Reason:
    """Whether the object is off the table and rose (m) far enough."""
    bodies = scene.model.geom_bodyid
    for pair in data.contact.geom:
        if scene.table in pair and scene.object_body in bodies[pair]:
            return Reason.DROPPED
    slipped = risen < physics.lift_height - physics.max_slip
    return Reason.SLIPPED if slipped else Reason.HELD


def _frame(scene: LiftScene, data: mujoco.MjData) -> tuple[np.ndarray, np.ndarray]:
    """Hand (28,), the palm in the world, and object (7,): quaternion wxyz, position."""
    palm = data.qpos[scene.palm_qpos : scene.palm_qpos + 7]
    turn = Rotation.from_quat(palm[3:], scalar_first=True).as_rotvec()
    phi = np.concatenate([data.qpos[scene.joint_qpos], palm[:3], turn])
    return phi, np.roll(data.qpos[scene.object_qpos : scene.object_qpos + 7], -3)
