"""A human hand's 21 keypoints as a pose of the Shadow Hand: many poses at once, or a sequence.

Keypoints come in the order of MediaPipe and OpenPose (see `hand.human`). The objective is one of
vectors, as in DexPilot (Handa et al. 2020) and AnyTeleop (Qin et al. 2023): palm points, the vector
along every finger bone, each fingertip, and between thumb and fingers where they pinch. Vectors are
rescaled, so that a Shadow Hand's own keypoints give its own pose, and a hand of any size its
posture. `docs/human_hands.md` has the figures.

The problem is one of least squares with limits, so it is solved by Levenberg and Marquardt's steps
on the joints that are free to move (a projected Newton method). Components come first and the batch
last, as everywhere where it is hot.
"""

import dataclasses
import functools
from typing import Literal

import jax
import jax.numpy as jnp
import jaxlie
import numpy as np
from jaxtyping import Array, Bool, Float

from realdex_jax import pose, pytree
from realdex_jax.hand import human, joints, kinematics, newton
from realdex_jax.hand.load import HandModel, require_shadow
from realdex_jax.hand.newton import Limits

_SIZE = pose.SIZE
_FIRST_DAMPING, _LEAST_DAMPING, _MOST_DAMPING = 1e-2, 1e-6, 1e4
_STILL = 2e-3
"""Radians (and a tenth as many metres) that the last step may have for a pose to be converged."""


@dataclasses.dataclass(frozen=True)
class RetargetConfig:
    """What counts how much, and how long to search."""

    tips: Literal["posture", "place"] = "posture"
    """What fingertips keep: "posture" their vector from the knuckle, rescaled by the length of the
    finger, for free hands and teleoperation; "place" their very place in space, for hands that hold
    something."""
    palm: float = 1.0
    """Weight of the six palm points."""
    bone: float = 0.3
    """Weight of the vector along each finger bone."""
    tip: float = 2.0
    """Weight of each fingertip."""
    pinch: float = 30.0
    """Weight of the vector from the thumb's tip to a finger's where they are close."""
    pinch_distance: float = 0.04
    """Metres between two fingertips at which their vector counts half."""
    rest: float = 1e-3
    """Metres that one radian away from the rest posture is worth."""
    smooth: float = 1e-2
    """Metres that one radian between two frames is worth; of sequences only."""
    max_step: float = 0.4
    """Radians that a joint may move between two frames; of sequences only."""
    steps: int = 14
    """Steps of the search."""
    frame_steps: int = 8
    """Steps of the search for each further frame of a sequence."""
    chunk: int = 32
    """Poses that are searched at once; the more the better on an accelerator."""


PLACE = RetargetConfig(tips="place", palm=0.05, bone=0.02, tip=4.0, steps=20)
"""For hands that hold an object: fingertips stay where they touch, the palm goes where it must."""


@pytree.dataclass
class Retargeted:
    """Poses of the Shadow Hand, in the frame and unit of the keypoints (metres)."""

    phi: Float[Array, "b 28"]
    """Joint angles within their limits, palm translation and orientation."""
    error: Float[Array, "b 5"]
    """Metres from each fingertip to where the objective wants it, order `joints.FINGERS`."""
    converged: Bool[Array, " b"]
    """Whether the search had come to rest."""


@functools.partial(jax.jit, static_argnums=(0, 2))
def retarget(
    hand: HandModel,
    keypoints: Float[Array, "b 21 3"],
    config: RetargetConfig = RetargetConfig(),
    start: Float[Array, "b 28"] | None = None,
) -> Retargeted:
    """Finds poses of a hand from human keypoints, each on its own.

    Args:
        hand: The hand.
        keypoints: Of right hands, metres, in any frame.
        config: The objective.
        start: Poses to search from; of the keypoints' palm and the rest posture if not given.

    Raises:
        HandError: A hand with other joints than Shadow's.
    """
    require_shadow(hand, "retargeting of human hands")
    one = functools.partial(_retarget, hand, config)
    given = (keypoints, start)
    b, chunk = len(keypoints), config.chunk
    if b <= chunk:
        return one(given)
    # Matrices of a few poses fit the cache, those of all do not: 32 at a time are five times
    # faster than 2048 on a CPU.
    count = -(-b // chunk)
    short = count * chunk - b
    parts = jax.tree.map(
        lambda x: jnp.concatenate([x, x[:short]]).reshape(count, chunk, *x.shape[1:]), given
    )
    found = jax.lax.map(one, parts)
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:b], found)


def _retarget(
    hand: HandModel,
    config: RetargetConfig,
    given: tuple[Float[Array, "b 21 3"], Float[Array, "b 28"] | None],
) -> Retargeted:
    keypoints, start = given
    target = _target(hand, config, keypoints)
    q = jnp.broadcast_to(joints.REST[:, None], (pose.JOINTS, keypoints.shape[0]))
    begin = _placed(hand, keypoints, q) if start is None else _state(start)
    low, high = (
        jnp.broadcast_to(bound[:, None], q.shape) for bound in (joints.LOWER, joints.UPPER)
    )
    state, still = _search(hand, config, target, begin, None, (low, high), config.steps)
    return _result(hand, config, target, state, still)


def retarget_sequence(
    hand: HandModel,
    keypoints: Float[Array, "t 21 3"],
    config: RetargetConfig = RetargetConfig(),
    start: Float[Array, " 28"] | None = None,
) -> Retargeted:
    """Finds the poses of one hand over time, each from the one before and near it.

    Args:
        hand: The hand.
        keypoints: Frames of a right hand, metres, in one frame of reference.
        config: The objective; `smooth` and `max_step` hold joints back between frames.
        start: Pose before the first frame; without it the first frame is searched on its own.
    """
    if start is None:
        start = retarget(hand, keypoints[:1], config).phi[0]
    return _sequence(hand, config, keypoints, start)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _sequence(
    hand: HandModel,
    config: RetargetConfig,
    keypoints: Float[Array, "t 21 3"],
    start: Float[Array, " 28"],
) -> Retargeted:
    def step(
        before: _State, frame: Float[Array, "21 3"]
    ) -> tuple["_State", tuple["_State", Array]]:
        target = _target(hand, config, frame[None])
        low = jnp.maximum(joints.LOWER[:, None], before.q - config.max_step)
        high = jnp.minimum(joints.UPPER[:, None], before.q + config.max_step)
        # The palm may have moved far since: it is found anew, the fingers start where they were.
        begin = _placed(hand, frame[None], before.q)
        found, still = _search(
            hand, config, target, begin, before.q, (low, high), config.frame_steps
        )
        return found, (found, still)

    _, (states, still) = jax.lax.scan(step, _state(start[None]), keypoints)
    states = jax.tree.map(lambda x: jnp.moveaxis(x[..., 0], 0, -1), states)
    target = _target(hand, config, keypoints)
    return _result(hand, config, target, states, still[:, 0])


@pytree.dataclass
class _State:
    """A batch of poses, batch last."""

    R: Float[Array, "3 3 b"]
    """Palm orientations."""
    p: Float[Array, "3 b"]
    """Palm positions, metres."""
    q: Float[Array, "22 b"]
    """Joint angles, radians."""


@pytree.dataclass
class _Target:
    """What the differences of points should be, one row for each pair of `_pairs`."""

    vector: Float[Array, "r 3 b"]
    """Wanted vectors, metres."""
    weight: Float[Array, "r b"]
    """Their weights."""


@pytree.dataclass
class _Look:
    """The objective around a pose."""

    cost: Float[Array, " b"]
    gradient: Float[Array, "28 b"]
    """Half the derivative by translation, rotation vector and joints."""
    curvature: Float[Array, "28 28 b"]
    """Gauss and Newton's."""


def _pairs(config: RetargetConfig) -> list[tuple[int, int | None]]:
    """Point and the point it is seen from (None: from the origin), by index of keypoint."""
    root: dict[int, int | None] = {tip: chain[0] for chain in human.FINGERS for tip in chain[-1:]}
    if config.tips == "place":
        root = dict.fromkeys(root)
    return [
        *((k, None) for k in human.PALM),
        *human.BONES,
        *((tip, root[tip]) for tip in human.TIPS),
        *((human.THUMB_TIP, tip) for tip in human.TIPS[:4]),
    ]


def _target(hand: HandModel, config: RetargetConfig, keypoints: Float[Array, "b 21 3"]) -> _Target:
    k = jnp.moveaxis(keypoints, 0, -1)  # (21 3 b)
    scale = 1.0 if config.tips == "place" else human.palm_scale(hand, keypoints)
    wrist = k[human.WRIST]
    palm = wrist + scale * (k[np.array(human.PALM)] - wrist)
    child, parent = (np.array(ends) for ends in zip(*human.BONES, strict=True))
    along = k[child] - k[parent]
    length = jnp.sqrt((along**2).sum(1, keepdims=True) + 1e-12)
    bones = along / length * human.bone_lengths(hand)[:, None, None]
    tips = bones.reshape(5, 3, 3, -1).sum(1) if config.tips == "posture" else k[_TIPS]
    pinch = k[human.THUMB_TIP] - k[_TIPS[:4]]
    distance = jnp.sqrt((pinch**2).sum(1) + 1e-12)
    close = jax.nn.sigmoid(8.0 * (1.0 - distance / config.pinch_distance))
    fixed = np.repeat([config.palm, config.bone, config.tip], [len(human.PALM), 15, 5])
    weight = jnp.broadcast_to(fixed[:, None], (len(fixed), k.shape[-1]))
    return _Target(
        vector=jnp.concatenate([palm, bones, tips, pinch]),
        weight=jnp.concatenate([weight, config.pinch * close]).astype(k.dtype),
    )


_TIPS = np.array(human.TIPS)


def _search(
    hand: HandModel,
    config: RetargetConfig,
    target: _Target,
    begin: _State,
    before: Float[Array, "22 b"] | None,
    limits: Limits,
    steps: int,
) -> tuple[_State, Bool[Array, " b"]]:
    """Makes the steps; says which poses had come to rest."""
    look = functools.partial(_look, hand, config, target, before)
    b = begin.p.shape[-1]

    def step(
        carry: tuple[_State, _Look, Array, Array], _: None
    ) -> tuple[tuple[_State, _Look, Array, Array], None]:
        state, seen, damping, _still = carry
        update = newton.step(state.q, seen.gradient, seen.curvature, damping, limits)
        tried = _moved(state, update, limits)
        after = look(tried)
        better = after.cost < seen.cost
        state, seen = jax.tree.map(
            lambda new, old: jnp.where(better, new, old), (tried, after), (state, seen)
        )
        damping = jnp.where(better, 0.2 * damping, 5.0 * damping)
        damping = jnp.clip(damping, _LEAST_DAMPING, _MOST_DAMPING)
        size = jnp.abs(update * _STEP_UNIT[:, None]).max(0)
        return (state, seen, damping, size < _STILL), None

    begin = _State(begin.R, begin.p, newton.projected(begin.q, limits))
    # Nothing seen yet: the first step is nought, and better than an infinite cost. So the
    # objective is compiled once.
    unseen = _Look(
        cost=jnp.full(b, jnp.inf),
        gradient=jnp.zeros((_SIZE, b)),
        curvature=jnp.zeros((_SIZE, _SIZE, b)),
    )
    first = (begin, unseen, jnp.full(b, _FIRST_DAMPING), jnp.zeros(b, bool))
    (state, seen, _, still), _ = jax.lax.scan(step, first, length=steps + 1)
    return state, still & jnp.isfinite(seen.cost)


_STEP_UNIT = np.repeat([10.0, 1.0], [3, _SIZE - 3]).astype(np.float32)


def _look(
    hand: HandModel,
    config: RetargetConfig,
    target: _Target,
    before: Float[Array, "22 b"] | None,
    state: _State,
) -> _Look:
    points, J = _points(hand, state)
    a = np.array([pair[0] for pair in _pairs(config)])
    origin = [i for i, (_, seen_from) in enumerate(_pairs(config)) if seen_from is None]
    seen_from = np.array([pair[1] or 0 for pair in _pairs(config)])
    mask = np.ones(len(a), np.float32)
    mask[origin] = 0.0
    value = points[a] - mask[:, None, None] * points[seen_from]
    slope = J[a] - mask[:, None, None, None] * J[seen_from]  # (r 3 28 b)
    miss = value - target.vector
    weighted = target.weight[:, None] * miss
    cost = (weighted * miss).sum((0, 1))
    gradient = (weighted[:, :, None] * slope).sum((0, 1))
    rows = slope.reshape(-1, *slope.shape[2:])
    heavy = (target.weight[:, None, None] * slope).reshape(rows.shape)
    curvature = jnp.einsum("rib,rjb->ijb", heavy, rows)
    for wanted, worth in ((joints.REST[:, None], config.rest), (before, config.smooth)):
        if wanted is not None:
            away = state.q - wanted
            cost = cost + worth**2 * (away**2).sum(0)
            gradient = gradient.at[6:].add(worth**2 * away)
            curvature = curvature + worth**2 * np.diag(_IS_JOINT)[:, :, None]
    return _Look(cost=cost, gradient=gradient, curvature=curvature)


_IS_JOINT = np.repeat([0.0, 1.0], [6, pose.JOINTS]).astype(np.float32)


def _points(
    hand: HandModel, state: _State
) -> tuple[Float[Array, "21 3 b"], Float[Array, "21 3 28 b"]]:
    """The hand's keypoints and how they follow translation, rotation vector and joints."""
    columns, origins = kinematics.chain(hand, state.q, [state.R[:, i] for i in range(3)], state.p)
    points = jnp.stack(
        [
            origins[link]
            + sum((float(v) * c for v, c in zip(offset, columns[link], strict=True) if v), 0.0)
            for link, offset in human.anchors(hand)
        ]
    )
    order = np.argsort(np.array(hand.joint[1:])) + 1
    axis = jnp.stack([kinematics.combine(columns[link], hand.axis[link]) for link in order])
    arm = points[:, None] - jnp.stack([origins[link] for link in order])
    by_joint = _cross(axis[None], arm) * human.moved_by(hand)[:, :, None, None]
    unit = jnp.broadcast_to(np.eye(3, dtype=np.float32)[:, :, None], (3, *state.p.shape))
    by_turn = _cross(unit[None], (points - state.p)[:, None])  # (21 3 3 b)
    by_shift = jnp.broadcast_to(unit, by_turn.shape)
    slope = jnp.concatenate([by_shift, by_turn, by_joint], axis=1)  # (21 28 3 b)
    return points, jnp.swapaxes(slope, 1, 2)


def _cross(a: Array, b: Array) -> Array:
    """Cross product over the last axis but one."""
    a0, a1, a2 = (a[..., i, :] for i in range(3))
    b0, b1, b2 = (b[..., i, :] for i in range(3))
    return jnp.stack([a1 * b2 - a2 * b1, a2 * b0 - a0 * b2, a0 * b1 - a1 * b0], axis=-2)


def _moved(state: _State, update: Float[Array, "28 b"], limits: Limits) -> _State:
    turn = jnp.moveaxis(jaxlie.SO3.exp(update[3:6].T).as_matrix(), 0, -1)
    R = (turn[:, :, None] * state.R[None]).sum(1)
    return _State(R, state.p + update[:3], newton.projected(state.q + update[6:], limits))


def _placed(hand: HandModel, keypoints: Float[Array, "b 21 3"], q: Float[Array, "22 b"]) -> _State:
    """The palm laid upon the keypoints' palm, with these joint angles."""
    R = jnp.moveaxis(human.palm_orientation(hand, keypoints), 0, -1)
    return _State(R, keypoints[:, human.WRIST].T, q)


def _state(phi: Float[Array, "b 28"]) -> _State:
    q, T_frame_hand = pose.split(phi)
    R = jnp.moveaxis(T_frame_hand.rotation().as_matrix(), 0, -1)
    return _State(R, T_frame_hand.translation().T, q.T)


def _result(
    hand: HandModel,
    config: RetargetConfig,
    target: _Target,
    state: _State,
    still: Bool[Array, " b"],
) -> Retargeted:
    points, _ = _points(hand, state)
    rows = np.arange(5) + len(human.PALM) + 15
    pairs = [_pairs(config)[i] for i in rows]
    reached = jnp.stack([points[a] - (0.0 if b is None else points[b]) for a, b in pairs])
    error = jnp.sqrt(((reached - target.vector[rows]) ** 2).sum(1))
    rotation = jaxlie.SO3.from_matrix(jnp.moveaxis(state.R, -1, 0)).normalize()
    T = jaxlie.SE3.from_rotation_and_translation(rotation, state.p.T)
    phi = pose.join(state.q.T, T)
    good = still & jnp.isfinite(phi).all(-1)
    return Retargeted(phi=phi, error=error.T, converged=good)
