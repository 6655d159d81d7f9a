"""What a motion model sees of a window, in the frame of the present palm, and what it answers.

In that frame the numbers of a reach do not depend on where in the room it takes place. Lengths
enter in units of 10 cm, speeds in units of a centimetre a frame, joints over half their range.
"""

import dataclasses

import jax
import jax.numpy as jnp
import jaxlie
import numpy as np
from jaxtyping import Array, Float, Int

from realdex_jax import pose, pytree
from realdex_jax.data.windows import FUTURE, PAST, Windows
from realdex_jax.geometry import sdf
from realdex_jax.geometry.sdf import SdfGrids
from realdex_jax.hand import joints, kinematics, surface
from realdex_jax.hand.load import HandModel

HAND_POINTS = 64
KEYPOINTS = 27
POSE_NUMBERS = 31
"""Numbers of a relative pose: 3 translation, 6 rotation, 22 joints."""

LENGTH = 10.0
"""Numbers per metre."""
_SPEED = 100.0
HALF_RANGE = np.asarray(0.5 * (joints.UPPER - joints.LOWER), np.float32)
"""Half the joints' ranges, radians."""
_FAR = 0.1
"""Metres beyond which a distance to object or table says no more."""


@pytree.dataclass
class Features:
    """One window, components in the present palm frame and scaled to order one."""

    poses: Float[Array, "*b 6 31"]
    """Seen poses."""
    keypoints: Float[Array, "*b 6 27 3"]
    """Joint origins and fingertips of the seen poses."""
    points: Float[Array, "*b 64 3"]
    """Surface points of the present hand."""
    velocity: Float[Array, "*b 64 3"]
    """Their movement since the frame before."""
    goal: Float[Array, "*b 31"]
    """The goal's pose."""
    goal_points: Float[Array, "*b 64 3"]
    """Surface points of the hand at the goal."""
    goal_keypoints: Float[Array, "*b 27 3"]
    """Joint origins and fingertips at the goal."""
    up: Float[Array, "*b 3"]
    """The world's up."""
    phase: Float[Array, "*b 2"]
    """Share of the motion that has passed, and its growth per frame times a hundred."""
    way: Int[Array, "*b"]
    """In which manner the motion comes; only a model that knows several looks at it."""
    clearance: Float[Array, "*b 128"]
    """Distance of the surface points to the object, then to the table, at most `_FAR`; zeros for a
    model that is not told."""


def features(hand: HandModel, windows: Windows, grids: SdfGrids | None) -> Features:
    """Features of windows.

    Args:
        hand: The hand.
        windows: b windows.
        grids: The objects' distance grids for a model that is told of its surroundings.
    """
    skin = surface.points(hand, HAND_POINTS)
    # The goal as one more frame: a single pass through the hand, most of what is compiled.
    frames = [jnp.asarray(windows.seen), jnp.asarray(windows.goal)[:, None]]
    q, T_world_hand = pose.split(jnp.concatenate(frames, axis=1))
    now = jaxlie.SE3(T_world_hand.wxyz_xyz[:, PAST])
    T_now_hand = jaxlie.SE3(now.inverse().wxyz_xyz[:, None]) @ T_world_hand
    links = kinematics.at(hand, q, T_now_hand.rotation().as_matrix(), T_now_hand.translation())
    poses, keypoints = numbers(q, T_now_hand), LENGTH * kinematics.keypoints(hand, links)
    late = jax.tree.map(lambda x: x[:, PAST - 1 :], links)
    before, points, goal_points = jnp.moveaxis(surface.pose_points(skin, late)[0], 1, 0)
    clearance = jnp.zeros((len(q), 2 * HAND_POINTS))
    if grids is not None:
        clearance = _clearance(windows, now, points, grids)
    return Features(
        poses=poses[:, :-1],
        keypoints=keypoints[:, :-1],
        points=LENGTH * points,
        velocity=_SPEED * (points - before),
        goal=poses[:, -1],
        goal_points=LENGTH * goal_points,
        goal_keypoints=keypoints[:, -1],
        up=now.rotation().as_matrix()[:, 2],
        phase=jnp.stack([windows.phase, 100.0 * windows.step], axis=-1),
        way=jnp.asarray(windows.way),
        clearance=clearance,
    )


def _clearance(windows: Windows, now: jaxlie.SE3, p_now: Array, grids: SdfGrids) -> Array:
    p_world = jax.vmap(lambda T, p: T @ p, in_axes=(0, 0))(now, p_now)
    T_object_world = jaxlie.SE3(jnp.asarray(windows.wxyz_xyz_world_object)).inverse()
    p_object = jax.vmap(lambda T, p: T @ p)(T_object_world, p_world)
    distance = sdf.distance_among(grids, jnp.asarray(windows.target), p_object)
    both = jnp.concatenate([distance, p_world[..., 2]], axis=-1)
    return jnp.clip(both, -_FAR, _FAR) * LENGTH


def numbers(q: Float[Array, "*b 22"], T: jaxlie.SE3) -> Float[Array, "*b 31"]:
    """A pose as numbers of order one."""
    R = T.rotation().as_matrix()
    columns = jnp.swapaxes(R[..., :2], -1, -2).reshape(*R.shape[:-2], 6)
    joint = (q - joints.LOWER) / HALF_RANGE - 1.0
    return jnp.concatenate([LENGTH * T.translation(), columns, joint], axis=-1)


@dataclasses.dataclass(frozen=True)
class Scale:
    """Sizes of a network's raw answers."""

    length: float = 0.05
    """Metres."""
    rotation: float = 0.3
    joints: float = 0.3
    """Radians."""


SCALE = Scale()


def poses_of(
    raw: Float[Array, "*b 10 31"], present: Float[Array, "*b 28"]
) -> Float[Array, "*b 10 28"]:
    """Poses in the world from a network's answer: changes with respect to the present pose.

    Joints are clipped to their limits.
    """
    return _changed(raw, present[..., None, :])


def _changed(raw: Float[Array, "*b 31"], phi: Float[Array, "*#b 28"]) -> Array:
    """Poses `phi`, each moved by its numbers; joints are clipped to their limits."""
    q, T_world_now = pose.split(phi)
    R = jaxlie.SO3.from_matrix(pose.rotation_from_columns(SCALE.rotation * raw[..., 3:9]))
    change = jaxlie.SE3.from_rotation_and_translation(R, SCALE.length * raw[..., :3])
    q = jnp.clip(q + SCALE.joints * raw[..., 9:], joints.LOWER, joints.UPPER)
    T_world_now = jax.tree.map(
        lambda x: jnp.broadcast_to(x, (*raw.shape[:-1], x.shape[-1])), T_world_now
    )
    return pose.join(q, T_world_now @ change)


def poses_toward(raw: Float[Array, "*b 10 31"], windows: Windows) -> Float[Array, "*b 10 28"]:
    """Poses in the world from an answer that says how the hand leaves the straight way to the goal.

    The way takes the frames that are left; what an answer adds to it fades as they pass, so that
    the last frame is the goal.
    """
    passing = jnp.arange(1, FUTURE + 1) * jnp.asarray(windows.step)[..., None]
    # At the end, where nothing is left, every share is one.
    left = jnp.maximum(1.0 - jnp.asarray(windows.phase)[..., None], 1e-6)
    share = jnp.minimum(passing / left, 1.0)
    present, goal = (jnp.asarray(x)[..., None, :] for x in (windows.seen[..., -1, :], windows.goal))
    way = pose.between(present, goal, share)
    return _changed((1.0 - share)[..., None] * raw, way)


assert FUTURE == 10
