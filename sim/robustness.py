"""The strict test: does an actuated hand close on the object and keep it against six pushes?

Native MuJoCo in a thread pool; every grasp starts from a reset state, so results do not depend on
the number of threads. Three shortcuts save most of the time: the first failed push ends a grasp, an
object that left the allowed range ends a push, and so does one at rest, because a push in static
balance stays so. The last can be switched off; a test bounds how often it changes the verdict.
"""

import enum
import queue
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import mujoco
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from scipy.spatial.transform import Rotation

from realdex_jax.errors import PhysicsError
from realdex_jax.hand.joints import JointTable
from realdex_jax.hand.load import HandModel
from sim import native
from sim.physics import StrictPhysics
from sim.scene import ActuatedScene, Pieces, actuated_scene

PUSHES: Float[np.ndarray, "6 3"] = np.concatenate([-np.eye(3)[::-1], np.eye(3)[::-1]])
"""Directions of the six pushes in the palm frame: -z, -y, -x, +z, +y, +x."""

_INCREMENTS = 10  # set points between two postures, as in the benchmark
_LOOK_STEPS = 5  # steps between two looks at the object
_BATCH = 8  # grasps a thread takes at a time


class Reason(enum.IntEnum):
    """Why a grasp ended."""

    HELD = 0
    START_DEPTH = 1
    MOVED_CLOSING = 2
    NO_CONTACT = 3
    PUSHED_OUT = 4
    TURNED = 5
    UNSTABLE = 6


REASONS: dict[Reason, str] = {
    Reason.HELD: "held against all six pushes",
    Reason.START_DEPTH: "hand inside the object or itself at the pre-grasp",
    Reason.MOVED_CLOSING: "object moved or turned too far while the hand closed",
    Reason.NO_CONTACT: "hand does not touch the object after squeezing",
    Reason.PUSHED_OUT: "object moved too far under a push",
    Reason.TURNED: "object turned too far under a push",
    Reason.UNSTABLE: "simulation diverged",
}
"""Readable text per reason."""


@runtime_checkable
class Grasps(Protocol):
    """What the test needs of a set of grasps; `GraspSet` has it."""

    @property
    def phi(self) -> Float[Array | np.ndarray, "n phi"]:
        """Grasp poses; the palm in the object frame."""
        ...

    @property
    def q_pregrasp(self) -> Float[Array | np.ndarray, "n j"]:
        """Joint angles (rad) before closing; the palm is already where it grasps."""
        ...

    @property
    def q_squeeze(self) -> Float[Array | np.ndarray, "n j"]:
        """Joint targets (rad) that press on the object."""
        ...


@dataclass(frozen=True)
class Robustness:
    """Outcome of the strict test, one row per grasp."""

    success: Bool[np.ndarray, " n"]
    """Held against all six pushes."""
    pushes_held: Bool[np.ndarray, "n 6"]
    """Per direction of `PUSHES`; False also for pushes skipped after a failure."""
    reason: Int[np.ndarray, " n"]
    """A `Reason` per grasp."""
    shift_m: Float[np.ndarray, " n"]
    """Displacement of the centre of mass from closing, metres."""
    turn_rad: Float[np.ndarray, " n"]
    """Rotation of the object from closing, radians."""
    contacts: Int[np.ndarray, " n"]
    """Number of hand links that touch the object after settling."""
    penetration_m: Float[np.ndarray, " n"]
    """Deepest hand-object contact after settling, metres."""
    at_rest: Bool[np.ndarray, " n"]
    """Object and hand came to rest before the pushes."""
    q_settled: Float[np.ndarray, "n j"]
    """Joint angles after settling, radians."""
    phi_settled: Float[np.ndarray, "n phi"]
    """The settled grasp as a pose: what the closed hand really holds."""

    def counts(self) -> dict[str, int]:
        """Number of grasps per reason that occurred, by readable text."""
        found = {text: int((self.reason == reason).sum()) for reason, text in REASONS.items()}
        return {text: number for text, number in found.items() if number}


def robustness(
    hand: HandModel,
    shape: Pieces,
    grasps: Grasps,
    physics: StrictPhysics | None = None,
    *,
    threads: int | None = None,
    early_stop: bool = True,
    accept_at_rest: bool = True,
) -> Robustness:
    """Closes, squeezes, settles and pushes every grasp.

    Args:
        hand: The hand.
        shape: The object; its mass is replaced by `physics.mass`.
        grasps: Poses with pre-grasp and squeeze angles.
        physics: The constants; `StrictPhysics.of(hand)` if None.
        threads: Worker threads; `native.cores()` if None.
        early_stop: Skip the remaining pushes after the first failure.
        accept_at_rest: End a push once object and hand are at rest.

    Raises:
        PhysicsError: A grasp is not finite or of the wrong shape, or the object cannot be
            simulated.
    """
    physics = physics or StrictPhysics.of(hand)
    phi, q_pregrasp, q_squeeze = _checked(grasps, hand.joints)
    scene = actuated_scene(hand, shape, physics)
    test = _Test(scene, physics, early_stop, accept_at_rest)
    count = len(phi)
    out = _empty(count, hand.joints)
    threads = max(1, min(threads or native.cores(), -(-count // _BATCH)))
    idle: queue.SimpleQueue[mujoco.MjData] = queue.SimpleQueue()
    for _ in range(threads):
        idle.put(mujoco.MjData(scene.model))

    def work(start: int) -> None:
        data = idle.get()
        for i in range(start, min(start + _BATCH, count)):
            _run(test, data, phi[i], q_pregrasp[i], q_squeeze[i], out, i)
        idle.put(data)

    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(work, range(0, count, _BATCH)):
            pass
    return out


@dataclass(frozen=True)
class _Test:
    """What all grasps of one call share."""

    scene: ActuatedScene
    physics: StrictPhysics
    early_stop: bool
    accept_at_rest: bool


@dataclass(frozen=True)
class _Start:
    """Where the object was before closing, palm frame."""

    p: np.ndarray
    wxyz: np.ndarray


def _checked(grasps: Grasps, table: JointTable) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    arrays = []
    count = len(grasps.phi)
    j = len(table)
    for name, width in (("phi", table.pose_size), ("q_pregrasp", j), ("q_squeeze", j)):
        value = np.asarray(getattr(grasps, name), np.float64)
        if value.shape != (count, width):
            raise PhysicsError(f"{name} must be ({count}, {width}), got {value.shape}")
        bad = np.flatnonzero(~np.isfinite(value).all(axis=1))
        if len(bad):
            raise PhysicsError(f"{name} of grasp {bad[0]} is not finite ({len(bad)} such grasps)")
        arrays.append(value)
    return arrays[0], arrays[1], arrays[2]


def _empty(count: int, table: JointTable) -> Robustness:
    return Robustness(
        success=np.zeros(count, bool),
        pushes_held=np.zeros((count, len(PUSHES)), bool),
        reason=np.zeros(count, np.int8),
        shift_m=np.zeros(count, np.float32),
        turn_rad=np.zeros(count, np.float32),
        contacts=np.zeros(count, np.int8),
        penetration_m=np.zeros(count, np.float32),
        at_rest=np.zeros(count, bool),
        q_settled=np.zeros((count, len(table)), np.float32),
        phi_settled=np.zeros((count, table.pose_size), np.float32),
    )


def _run(
    test: _Test,
    data: mujoco.MjData,
    phi: np.ndarray,
    q_pregrasp: np.ndarray,
    q_squeeze: np.ndarray,
    out: Robustness,
    row: int,
) -> None:
    """Runs one grasp and writes its row of `out`."""
    scene, physics = test.scene, test.physics
    model = scene.model
    start = _reset(scene, data, phi, q_pregrasp)
    reason, moved = _close(test, data, start, phi[:-6], q_pregrasp, q_squeeze)
    links, depth = _touching(scene, data)
    out.contacts[row], out.penetration_m[row] = len(links), depth
    out.shift_m[row], out.turn_rad[row] = moved
    out.q_settled[row] = data.qpos[scene.joint_qpos]
    out.phi_settled[row] = _pose(scene, data)
    if reason is Reason.HELD:
        out.at_rest[row] = _speed_at_rest(test, data)
        if not links:
            reason = Reason.NO_CONTACT
    if reason is Reason.HELD:
        state = np.empty(mujoco.mj_stateSize(model, mujoco.mjtState.mjSTATE_INTEGRATION))
        mujoco.mj_getState(model, data, state, mujoco.mjtState.mjSTATE_INTEGRATION)
        for k, direction in enumerate(PUSHES):
            mujoco.mj_setState(model, data, state, mujoco.mjtState.mjSTATE_INTEGRATION)
            force = direction * physics.mass * physics.push_acceleration
            data.xfrc_applied[scene.object_body, :3] = force
            verdict = _push(test, data, start)
            out.pushes_held[row, k] = verdict is Reason.HELD
            if verdict is not Reason.HELD:
                reason = verdict if reason is Reason.HELD else reason
                if test.early_stop:
                    break
    out.reason[row] = reason
    out.success[row] = reason is Reason.HELD


def _reset(
    scene: ActuatedScene, data: mujoco.MjData, phi: np.ndarray, q_pregrasp: np.ndarray
) -> _Start:
    mujoco.mj_resetData(scene.model, data)
    R_hand_object = Rotation.from_rotvec(phi[-3:]).inv()
    data.qpos[scene.joint_qpos] = q_pregrasp
    data.qpos[scene.object_qpos : scene.object_qpos + 3] = -R_hand_object.apply(phi[-6:-3])
    data.qpos[scene.object_qpos + 3 : scene.object_qpos + 7] = R_hand_object.as_quat(
        scalar_first=True
    )
    data.ctrl[:] = scene.control @ q_pregrasp
    mujoco.mj_forward(scene.model, data)
    return _Start(data.xipos[scene.object_body].copy(), data.xquat[scene.object_body].copy())


def _close(
    test: _Test,
    data: mujoco.MjData,
    start: _Start,
    q_grasp: np.ndarray,
    q_pregrasp: np.ndarray,
    q_squeeze: np.ndarray,
) -> tuple[Reason, tuple[float, float]]:
    """Pre-grasp to squeeze and rest; why it stopped, and how far the object moved and turned."""
    scene, physics = test.scene, test.physics
    if data.ncon and -data.contact.dist.min() > physics.max_start_depth:
        return Reason.START_DEPTH, (0.0, 0.0)
    steps = round(physics.phase / physics.timestep / _INCREMENTS)
    for target in _set_points(q_pregrasp, q_grasp, q_squeeze):
        data.ctrl[:] = scene.control @ target
        mujoco.mj_step(scene.model, data, steps)
        moved = _moved(scene, data, start)
        if native.diverged(data):
            return Reason.UNSTABLE, moved
        if moved[0] > physics.max_shift or moved[1] > physics.max_turn:
            return Reason.MOVED_CLOSING, moved
    rested = 0
    needed = round(physics.rest_duration / physics.timestep)
    for _ in range(round(physics.settle / physics.timestep / _LOOK_STEPS)):
        mujoco.mj_step(scene.model, data, _LOOK_STEPS)
        rested = rested + _LOOK_STEPS if _speed_at_rest(test, data) else 0
        if rested >= needed:
            break
    moved = _moved(scene, data, start)
    if native.diverged(data):
        return Reason.UNSTABLE, moved
    if moved[0] > physics.max_shift or moved[1] > physics.max_turn:
        return Reason.MOVED_CLOSING, moved
    return Reason.HELD, moved


def _set_points(
    q_pregrasp: np.ndarray, q_grasp: np.ndarray, q_squeeze: np.ndarray
) -> Iterator[np.ndarray]:
    for q_from, q_to in ((q_pregrasp, q_grasp), (q_grasp, q_squeeze)):
        for k in range(1, _INCREMENTS + 1):
            yield q_from + (q_to - q_from) * (k / _INCREMENTS)


def _push(test: _Test, data: mujoco.MjData, start: _Start) -> Reason:
    """Steps under the push already set in `data` until the verdict is known."""
    scene, physics = test.scene, test.physics
    total = round(physics.push_duration / physics.timestep)
    needed = round(physics.rest_duration / physics.timestep)
    rested = 0
    for done in range(_LOOK_STEPS, total + _LOOK_STEPS, _LOOK_STEPS):
        mujoco.mj_step(scene.model, data, _LOOK_STEPS)
        shift, turn = _moved(scene, data, start)
        if shift > physics.max_shift:
            return Reason.PUSHED_OUT
        if turn > physics.max_turn:
            return Reason.TURNED
        if native.diverged(data):
            return Reason.UNSTABLE
        rested = rested + _LOOK_STEPS if _speed_at_rest(test, data) else 0
        if test.accept_at_rest and rested >= needed:
            # Even at the speed that still counts as rest the object would stay in range.
            left = max(total - done, 0) * physics.timestep
            if (
                shift + physics.rest_speed * left <= physics.max_shift
                and turn + physics.rest_turn_rate * left <= physics.max_turn
            ):
                return Reason.HELD
    return Reason.HELD


def _moved(scene: ActuatedScene, data: mujoco.MjData, start: _Start) -> tuple[float, float]:
    """Shift of the centre of mass (m) and turn (rad) as of the begin of the last step."""
    p = data.xipos[scene.object_body]
    shift = ((p[0] - start.p[0]) ** 2 + (p[1] - start.p[1]) ** 2 + (p[2] - start.p[2]) ** 2) ** 0.5
    cosine = min(1.0, abs(float(data.xquat[scene.object_body] @ start.wxyz)))
    return float(shift), 2.0 * float(np.arccos(cosine))


def _speed_at_rest(test: _Test, data: mujoco.MjData) -> bool:
    """Whether object and hand are slower than the thresholds right now."""
    scene, physics = test.scene, test.physics
    v = data.qvel[scene.object_dof : scene.object_dof + 6]
    w = v[3:]  # in the object frame; so is the lever to the centre of mass
    if w @ w > physics.rest_turn_rate**2:
        return False
    R_hand_object = data.xmat[scene.object_body].reshape(3, 3)
    v_com = v[:3] + R_hand_object @ np.cross(w, scene.p_object_com)
    if v_com @ v_com > physics.rest_speed**2:
        return False
    return bool(np.abs(data.qvel[scene.joint_dof]).max() <= physics.rest_joint_rate)


def _touching(scene: ActuatedScene, data: mujoco.MjData) -> tuple[set[int], float]:
    """Hand bodies in contact with the object, and the deepest such contact (m)."""
    links: set[int] = set()
    depth = 0.0
    bodies = scene.model.geom_bodyid
    for (a, b), distance in zip(data.contact.geom, data.contact.dist, strict=True):
        pair = {int(bodies[a]), int(bodies[b])}
        if scene.object_body in pair:
            links |= pair - {scene.object_body}
            depth = max(depth, -float(distance))
    return links, depth


def _pose(scene: ActuatedScene, data: mujoco.MjData) -> np.ndarray:
    """The present grasp as phi: the palm is at the origin, so invert the object's pose."""
    at = scene.object_qpos
    R_object_hand = Rotation.from_quat(data.qpos[at + 3 : at + 7], scalar_first=True).inv()
    p_object_hand = -R_object_hand.apply(data.qpos[at : at + 3])
    return np.concatenate([data.qpos[scene.joint_qpos], p_object_hand, R_object_hand.as_rotvec()])
