"""A person's hand drives the robot: fingers onto the Shadow Hand, the wrist's tracker onto the arm.

A pure pair, `init` and `step`: a sample of the person and the state give the next set points of all
joints. One step is one jitted call of fixed cost. Fingers come as 21 keypoints (retargeted from the
pose before) or as joint angles of a glove; the palm moves as the tracker has moved since the
beginning, by the closed-form inverse of the arm on the branch it is on. All joints keep speed and
acceleration limits, so that a lost or wild tracker is followed no faster than that.
"""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import jaxlie
import numpy as np
from jaxtyping import Array, Bool, Float

from realdex_jax import arm, pose, pytree
from realdex_jax.data.motion import Motion
from realdex_jax.hand import human, joints, torque
from realdex_jax.hand.load import HandModel
from realdex_jax.hand.retarget import RetargetConfig, retarget_sequence
from robot import curve, limits
from robot.interface import RobotError, Trajectory
from robot.presets import PARTS

NAMES: tuple[str, ...] = (*PARTS["arm"], *PARTS["hand"])
"""Joints: arm, wrist, hand; the order of every `q` of 30."""
STEP_S = 0.01
"""Seconds between samples."""

_FIRST_STEPS = 12
_ARM, _HAND = slice(0, 6), slice(8, 30)
_AROUND = np.array(list(itertools.product((-0.08, 0.13), (-0.13, 0.08), (-0.27, 0.23))), np.float32)
"""Corners of a box around hand and forearm in the palm's frame, two centimetres away, metres."""
_LOWER = np.concatenate([arm.LOWER, arm.WRIST_LOWER, joints.LOWER])
_UPPER = np.concatenate([arm.UPPER, arm.WRIST_UPPER, joints.UPPER])
_MAX_RATE = np.concatenate([arm.MAX_RATE, arm.WRIST_MAX_RATE, joints.MAX_RATE])


@dataclasses.dataclass(frozen=True)
class TeleopConfig:
    """How a person is followed."""

    retarget: RetargetConfig = dataclasses.field(
        default_factory=lambda: RetargetConfig(frame_steps=6)
    )
    """Of keypoints; the pose before is so near that six steps do."""
    scale: float = 1.0
    """Metres of the palm per metre of the tracker."""
    yaw: float = 0.0
    """Radians about the vertical from the tracker's world to the arm's base frame."""
    table: float = -0.5
    """Height of the table in the arm's base frame, metres; hand and forearm stay above."""
    low: tuple[float, float, float] = (0.35, -0.60, -0.42)
    """Corner of the box that the palm stays in, metres in the arm's base frame."""
    high: tuple[float, float, float] = (1.05, 0.60, 0.50)
    """The other corner."""
    share: float = 0.5
    """Of the URDF's speeds; no joint is faster than `limits.STOP_RATE`, as in a plan."""
    arm_acceleration: float = 2.5
    """Greatest acceleration of arm joints, rad/s^2."""
    hand_acceleration: float = 10.0
    """Greatest acceleration of hand joints, rad/s^2; twice as much would still follow a person's
    fingers no closer."""
    max_jump: float = arm.MAX_STEP
    """Radians an arm joint's goal may turn between two samples; beyond, the arm waits."""
    lead_s: float = 0.03
    """Seconds after which a set point is to be reached: late messages are bridged by so much."""


@dataclasses.dataclass(frozen=True, eq=False)
class Sample:
    """What was seen of the person at one time; keypoints or angles, one of both."""

    time_s: float
    """By the source's clock, seconds."""
    keypoints: Float[np.ndarray, "21 3"] | None = None
    """Of the right hand, metres, in any frame."""
    q: Float[np.ndarray, " 22"] | None = None
    """A glove's joint angles, radians, order `joints.NAMES`."""
    wxyz_xyz_tracker: Float[np.ndarray, " 7"] | None = None
    """Pose of palm or wrist in the tracker's world (z up); without it the arm stays."""


@pytree.dataclass
class TeleopState:
    """What is remembered from sample to sample."""

    phi: Float[Array, " 28"]
    """Last pose of the keypoints."""
    q: Float[Array, " 30"]
    """Set points, radians, order `NAMES`."""
    qd: Float[Array, " 30"]
    """Their velocities, radians per second."""
    q_goal: Float[Array, " 6"]
    """Where the arm is to go, radians."""
    T_tracker: Float[Array, " 7"]
    """Where the tracker was when it was first seen; NaN before."""
    T_palm: Float[Array, " 7"]
    """Where the palm then was, in the arm's base frame."""


@pytree.dataclass
class Followed:
    """How well one sample could be followed."""

    reached: Bool[Array, ""]
    """False where the arm has no near solution, or no tracker was seen, and it waits."""
    clamped: Bool[Array, ""]
    """Whether the palm's goal was kept inside its box and above the table."""
    blocked: Bool[Array, ""]
    """Whether the arm brakes because it would come too near to the table on its way."""
    behind: Float[Array, " 30"]
    """Radians from set points to goals: what speed limits left over."""


def init(
    hand: HandModel, config: TeleopConfig, q: Float[np.ndarray, " 30"], first: Sample
) -> TeleopState:
    """Begins where the robot is; compiles what `step` needs.

    Args:
        hand: The robot's hand.
        config: Of the run.
        q: Where the joints are, radians, order `NAMES`.
        first: The first sample.

    Raises:
        RobotError: A sample of neither keypoints nor angles, or values that are not finite.
    """
    _check(first)
    if np.shape(q) != (len(NAMES),) or not np.isfinite(q).all():
        raise RobotError(f"joints to begin with must be {len(NAMES)} finite angles")
    now = jnp.asarray(q, jnp.float32)
    begin = TeleopState(
        phi=jnp.concatenate([jnp.asarray(joints.REST), jnp.zeros(6)]),
        q=now,
        qd=jnp.zeros(len(NAMES)),
        q_goal=now[_ARM],
        T_tracker=jnp.full(7, jnp.nan),
        T_palm=_palm(now[_ARM]).wxyz_xyz,
    )
    # The first posture may be far from the rest posture: it is sought in several steps.
    state = begin
    for _ in range(_FIRST_STEPS):
        state, _ = step(hand, config, state, first)
    return dataclasses.replace(begin, phi=jax.block_until_ready(state.phi))


def begin(state: TeleopState, q: Float[np.ndarray, " 30"]) -> TeleopState:
    """Begins anew at rest from where the joints are (rad), as after the robot held on its own.

    The next sample's tracker belongs to where the palm then is: the arm does not run after what was
    missed.
    """
    now = jnp.asarray(q, jnp.float32)
    rest, nowhere = jnp.zeros(len(NAMES)), jnp.full(7, jnp.nan)
    return dataclasses.replace(state, q=now, qd=rest, q_goal=now[_ARM], T_tracker=nowhere)


def late(config: TeleopConfig, state: TeleopState, seconds: float) -> TeleopState:
    """Set points as the last command left them, where the next one comes later than `STEP_S`.

    By then the robot is in the brake behind that command. From the old set point it would be torn
    back.

    Args:
        config: Of the run.
        state: The state.
        seconds: Since the last command.
    """
    more = seconds - STEP_S
    if more <= 0.0:
        return state
    last = command(config, state)
    q, qd = curve.sample(last, np.array([min(last.t[0] + more, last.t[-1])]))
    return dataclasses.replace(
        state, q=jnp.asarray(q[0], jnp.float32), qd=jnp.asarray(qd[0], jnp.float32)
    )


def step(
    hand: HandModel, config: TeleopConfig, state: TeleopState, sample: Sample
) -> tuple[TeleopState, Followed]:
    """The set points `STEP_S` later.

    Args:
        hand: The robot's hand.
        config: Of the run.
        state: The state.
        sample: The person now.

    Raises:
        RobotError: A sample of neither keypoints nor angles, or values that are not finite.
    """
    _check(sample)
    tracker = np.full(7, np.nan) if sample.wxyz_xyz_tracker is None else sample.wxyz_xyz_tracker
    of_glove = sample.q is not None
    fingers = sample.q if of_glove else sample.keypoints
    return _step(
        hand, config, of_glove, state, np.asarray(fingers, np.float32), tracker.astype(np.float32)
    )


def command(config: TeleopConfig, state: TeleopState) -> Trajectory:
    """What is sent: the set point, and behind it a brake in case nothing more comes."""
    q, qd = np.asarray(state.q, np.float64), np.asarray(state.qd, np.float64)
    brake_s = max(float((np.abs(qd) / _acceleration(config)).max()), 0.1)
    return Trajectory(
        names=NAMES,
        t=np.array([config.lead_s, config.lead_s + brake_s]),
        q=np.stack([q, np.clip(q + 0.5 * brake_s * qd, _LOWER, _UPPER)]),
        qd=np.stack([qd, np.zeros_like(qd)]),
    )


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _step(
    hand: HandModel,
    config: TeleopConfig,
    of_glove: bool,
    state: TeleopState,
    fingers: Float[Array, "..."],
    tracker: Float[Array, " 7"],
) -> tuple[TeleopState, Followed]:
    phi = state.phi
    if of_glove:
        q_hand = torque.within_limits(fingers)
    else:
        phi = retarget_sequence(hand, fingers[None], config.retarget, phi).phi[0]
        q_hand = phi[: pose.JOINTS]
    q_goal, T_tracker, T_palm, reached, clamped = _arm_goal(config, state, tracker)
    goal = jnp.concatenate([q_goal, jnp.zeros(2), q_hand])
    q, qd, blocked = _toward(config, state.q, state.qd, goal)
    new = TeleopState(phi, q, qd, q_goal, T_tracker, T_palm)
    return new, Followed(reached, clamped, blocked, goal - q)


def _arm_goal(
    config: TeleopConfig, state: TeleopState, tracker: Float[Array, " 7"]
) -> tuple[Array, Array, Array, Array, Array]:
    """Joint angles of the arm that move the palm as the tracker has moved."""
    seen = jnp.isfinite(tracker).all()
    engaged = jnp.isfinite(state.T_tracker).all()
    identity = jnp.eye(7)[0]
    safe = jnp.where(seen, tracker, identity)
    # The first sight of the tracker belongs to where the palm is by then.
    T_tracker = jnp.where(engaged, state.T_tracker, jnp.where(seen, safe, jnp.nan))
    begun = jnp.where(engaged, state.T_palm, _palm(state.q[_ARM]).wxyz_xyz)
    T_now, T_then = jaxlie.SE3(safe), jaxlie.SE3(jnp.where(seen | engaged, T_tracker, identity))
    T_palm = jaxlie.SE3(begun)
    turn = jaxlie.SO3.from_z_radians(config.yaw)
    moved = config.scale * (turn @ (T_now.translation() - T_then.translation()))
    turned = turn @ T_now.rotation() @ T_then.rotation().inverse() @ turn.inverse()
    wanted = T_palm.translation() + moved
    R = (turned @ T_palm.rotation()).as_matrix()
    floor = config.table - (_AROUND * R[2]).sum(-1).min()
    low = jnp.maximum(np.array(config.low), jnp.stack([-jnp.inf, -jnp.inf, floor]))
    p = jnp.clip(wanted, low, jnp.maximum(np.array(config.high), low))
    solutions, reachable = arm.inverse(R, p)
    # The whole turns of each joint nearest to where the goal was, within the limits.
    turns = jnp.round((state.q_goal - solutions) / (2.0 * np.pi))
    solutions = solutions + 2.0 * np.pi * turns
    away = jnp.abs(solutions - state.q_goal).max(-1)
    good = reachable & (jnp.abs(solutions) <= arm.UPPER).all(-1) & (away <= config.max_jump)
    best = jnp.argmin(jnp.where(good, away, jnp.inf))
    reached = seen & good.any()
    q_goal = jnp.where(reached, solutions[best], state.q_goal)
    return q_goal, T_tracker, begun, reached, seen & (wanted != p).any()


def _toward(
    config: TeleopConfig, q: Float[Array, " 30"], qd: Float[Array, " 30"], goal: Float[Array, " 30"]
) -> tuple[Array, Array, Array]:
    """One step toward a goal within speed and acceleration, slow enough to come to rest at it.

    On its way a pair of joints on one tendon may pass J1 <= J2: only their sum is driven.
    """
    most = _acceleration(config)
    fastest = np.minimum(config.share * _MAX_RATE, limits.STOP_RATE)
    # A brake in whole steps ends between two: that step brakes up to an eighth harder.
    brake = most * 8.0 / 9.0
    half = 0.5 * brake * STEP_S

    def able(way: Float[Array | np.ndarray, " 30"]) -> Float[Array, " 30"]:
        # Braking in whole steps covers v^2 / 2a + v dt / 2.
        return jnp.sqrt(half**2 + 2.0 * brake * jnp.maximum(way, 0.0)) - half

    left = goal - q
    speed = jnp.minimum(jnp.minimum(able(jnp.abs(left)), jnp.abs(left) / STEP_S), fastest)
    v = jnp.clip(jnp.sign(left) * speed, qd - most * STEP_S, qd + most * STEP_S)
    # Joints that lag lead the palm off its path: the arm brakes where it would end too low.
    low, before = (_lowest(x, most, w) for x, w in ((q + v * STEP_S, v), (q, qd)))
    slower = jnp.sign(qd) * jnp.maximum(jnp.abs(qd) - most * STEP_S, 0.0)
    blocked = (low < config.table) & (low < before)
    v = jnp.where(blocked & (np.arange(len(NAMES)) < _ARM.stop), slower, v)
    v = jnp.clip(v, -able(q - _LOWER), able(_UPPER - q))
    new = jnp.clip(q + v * STEP_S, _LOWER, _UPPER)
    return new, (new - q) / STEP_S, blocked


def _lowest(
    q: Float[Array, " 30"], most: Float[np.ndarray, " 30"], qd: Float[Array, " 30"]
) -> Float[Array, ""]:
    """How low hand and forearm are, in the base frame (m), when the arm has braked from now on."""
    rest = (q + 0.5 * qd * jnp.abs(qd) / most)[_ARM]
    R, p = arm.palm_pose(rest)
    return p[2] + (_AROUND * R[2]).sum(-1).min()


def _acceleration(config: TeleopConfig) -> Float[np.ndarray, " 30"]:
    return np.where(np.arange(len(NAMES)) < 6, config.arm_acceleration, config.hand_acceleration)


def _palm(q: Float[Array, " 6"]) -> jaxlie.SE3:
    R, p = arm.palm_pose(q)
    return jaxlie.SE3.from_rotation_and_translation(jaxlie.SO3.from_matrix(R), p)


def _check(sample: Sample) -> None:
    if (sample.keypoints is None) == (sample.q is None):
        raise RobotError(f"sample at {sample.time_s:.3f} s: give either keypoints or angles")
    for name in ("keypoints", "q", "wxyz_xyz_tracker"):
        value = getattr(sample, name)
        if value is not None and not np.isfinite(value).all():
            raise RobotError(f"sample at {sample.time_s:.3f} s: {name} is not finite")


def of_motion(motion: Motion) -> list[Sample]:
    """Samples of a glove and a tracker from a recorded motion, one every `STEP_S`.

    The motion's hand poses are a glove's angles, and the palm's pose in the world.
    """
    phi = np.asarray(motion.phi, np.float64)
    _, T = pose.split(jnp.asarray(phi, jnp.float32))
    poses = np.asarray(T.wxyz_xyz, np.float64)
    return [
        Sample(float(t), q=phi[i, : pose.JOINTS], wxyz_xyz_tracker=poses[i])
        for i, t in enumerate(np.asarray(motion.time, np.float64))
    ]


def of_keypoints(
    keypoints: Float[np.ndarray, "..."],
    rate: float,
    wxyz_xyz_tracker: Float[np.ndarray, "t 7"] | None = None,
) -> list[Sample]:
    """Samples every `STEP_S` from keypoints (m) at another rate, in straight lines between frames.

    Args:
        keypoints: Frames (t 21 3) of a right hand.
        rate: Frames a second.
        wxyz_xyz_tracker: The tracker at the same times.

    Raises:
        RobotError: Not such an array, or a rate that is not positive.
    """
    keypoints = np.asarray(keypoints, np.float64)
    if keypoints.ndim != 3 or keypoints.shape[1:] != (human.COUNT, 3) or len(keypoints) < 2:
        raise RobotError(f"keypoints have shape {keypoints.shape}; it must be (frames, 21, 3)")
    if not np.isfinite(keypoints).all() or not rate > 0.0:
        raise RobotError(f"keypoints must be finite and their rate ({rate}) positive")
    frames = np.arange(int((len(keypoints) - 1) / rate / STEP_S + 1e-9) + 1) * STEP_S * rate
    i = np.minimum(frames.astype(int), len(keypoints) - 2)
    share = (frames - i)[:, None, None]
    between = (1.0 - share) * keypoints[i] + share * keypoints[i + 1]
    nearest = np.round(frames).astype(int)
    return [
        Sample(
            k * STEP_S,
            keypoints=between[k],
            wxyz_xyz_tracker=None if wxyz_xyz_tracker is None else wxyz_xyz_tracker[nearest[k]],
        )
        for k in range(len(between))
    ]
