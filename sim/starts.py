"""Initial hand poses for grasp synthesis: a relaxed hand in front of a graspable place."""

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from realdex_jax.errors import MeshError
from realdex_jax.geometry.shape import ObjectShape
from realdex_jax.hand.joints import JointTable
from realdex_jax.hand.load import HandModel

MAX_WIDTH = 0.10
"""Metres of object along the opening of the hand that a start may have in front of its palm."""
REACH = 0.12
"""Metres in front of the palm that a closing hand sweeps."""
_CANDIDATES = 8
_OVERSAMPLE = 4
_BACK_OFF = (0.005, 0.025)
"""Metres by which a start around a grasp stands back from it."""
_SHAKE_METRES = 0.01
_SHAKE_TURN = 0.15
"""Radians, standard deviation per axis."""


def sample(
    hand: HandModel,
    shape: ObjectShape,
    count: int,
    seed: int,
    *,
    distance: tuple[float, float],
    on_table: bool = True,
) -> tuple[Float[np.ndarray, "n 3 3"], Float[np.ndarray, "n 3"], Float[np.ndarray, "n j"]]:
    """Draws hand poses around an object.

    A surface point and its normal give place and approach; of several rolls about the approach the
    one with the least object across the hand's opening is kept, so that large and thin objects are
    taken where a hand fits.

    Args:
        hand: The hand.
        shape: The object, standing on a table at its lowest point if `on_table`.
        count: Number of poses.
        seed: Seed; the same arguments give the same poses.
        distance: Range (m) of the palm's distance from the surface point.
        on_table: Approach from above the table, with the forearm not below it.

    Raises:
        MeshError: The object has no surface above the table.

    Returns:
        `R_object_hand`, `p_object_hand` (m), joint angles (rad).
    """
    rng = np.random.default_rng(seed)
    surface = shape.surface(count * _OVERSAMPLE, seed=int(rng.integers(1 << 30)))
    points, normals = surface.points, surface.normals
    if on_table:
        height = np.ptp(shape.bounds[:, 2])
        above = (normals[:, 2] > -0.3) & (
            points[:, 2] > shape.bounds[0, 2] + min(0.02, 0.3 * height)
        )
        points, normals = points[above], normals[above]
    if not len(points):
        raise MeshError(f"{shape.name}: no surface can be approached from above the table")
    order = rng.permutation(np.resize(rng.permutation(len(points)), count * 2))
    points, normals = points[order], normals[order]
    approach = _unit(-normals + 0.2 * rng.normal(size=normals.shape))
    cloud = shape.surface(200, seed=0).points

    R_best = np.zeros((len(points), 3, 3))
    best_cost = np.full(len(points), np.inf)
    for _ in range(_CANDIDATES):
        z = rng.normal(size=approach.shape)
        z = _unit(z - (z * approach).sum(-1, keepdims=True) * approach)
        R = np.stack([np.cross(-approach, z), -approach, z], axis=-1)
        cost = _width(R, points, cloud)
        if on_table:
            cost = cost + (z[:, 2] > 0.5)  # fingers up means a forearm in the table
        better = cost < best_cost
        R_best[better], best_cost[better] = R[better], cost[better]
    # Of twice as many places keep the half that a hand spans best, with some luck for diversity.
    keep = np.argsort(np.maximum(best_cost, MAX_WIDTH) + 0.02 * rng.random(len(points)))[:count]
    R, points, approach = R_best[keep], points[keep], approach[keep]
    away = rng.uniform(*distance, size=(count, 1))
    centre = hand.facts.grasp_centre + rng.normal(size=(count, 3)) * [0.01, 0.0, 0.015]
    p = points - approach * away - np.einsum("nij,nj->ni", R, centre)
    q = _near(hand.joints, hand.joints.rest, rng, count)
    return R.astype(np.float32), p.astype(np.float32), q


def around(
    hand: HandModel, phi: Float[np.ndarray, "k phi"], count: int, seed: int, symmetry: str
) -> tuple[Float[np.ndarray, "n 3 3"], Float[np.ndarray, "n 3"], Float[np.ndarray, "n j"]]:
    """Draws hand poses around grasps that hold: the way to more of them on a hard object.

    Each is backed off along the palm's normal, half opened toward the resting posture, and shaken;
    on a solid of revolution it is turned about the axis first.

    Args:
        hand: The hand.
        phi: At least one grasp in the object frame.
        count: Number of poses.
        seed: Seed; the same arguments give the same poses.
        symmetry: The object's symmetry, "axial" or "none".

    Returns:
        As `sample`.
    """
    rng = np.random.default_rng(seed)
    chosen = phi[rng.integers(len(phi), size=count)].astype(np.float64)
    turn = Rotation.from_rotvec(rng.uniform(-np.pi, np.pi, (count, 1)) * [0.0, 0.0, 1.0])
    turn = turn if symmetry == "axial" else Rotation.identity(count)
    R = turn * Rotation.from_rotvec(chosen[:, -3:])
    shaken = R * Rotation.from_rotvec(rng.normal(size=(count, 3)) * _SHAKE_TURN)
    centre = hand.facts.grasp_centre
    # Turned about the grasp's centre, so that the fingers stay where they hold.
    p = turn.apply(chosen[:, -6:-3]) + (R.apply(centre) - shaken.apply(centre))
    back = shaken.apply([0.0, -1.0, 0.0]) * rng.uniform(*_BACK_OFF, size=(count, 1))
    p = p - back + rng.normal(size=(count, 3)) * _SHAKE_METRES
    q = _near(hand.joints, 0.5 * (chosen[:, :-6] + hand.joints.rest), rng, count)
    return shaken.as_matrix().astype(np.float32), p.astype(np.float32), q


def _near(
    table: JointTable, middle: Float[np.ndarray, "*n j"], rng: np.random.Generator, count: int
) -> Float[np.ndarray, "b j"]:
    """Angles (rad) about some, a tenth of the joints' ranges apart, that the hand can take."""
    q = middle + rng.normal(size=(count, len(table))) * (0.1 * (table.upper - table.lower))
    q = np.clip(q, table.lower, table.upper)
    for j2, j1 in table.coupled:
        q[:, j1] = np.minimum(q[:, j1], q[:, j2])
    return q.astype(np.float32)


def _width(R: np.ndarray, points: np.ndarray, cloud: np.ndarray) -> np.ndarray:
    """Extent (m) of the object along the fingers, within what the closing hand sweeps."""
    local = np.einsum("nji,nmj->nmi", R, cloud[None] - points[:, None])
    swept = (
        (np.abs(local[..., 0]) < 0.04) & (local[..., 1] > -REACH) & (np.abs(local[..., 2]) < 0.15)
    )
    high = np.where(swept, local[..., 2], 0.0).max(-1)
    low = np.where(swept, local[..., 2], 0.0).min(-1)
    return high - low


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)
