"""In which manner motions come to their goals: the ways of a set of demonstrations.

Most of a reach follows from where it starts and ends. What does not, people vary for reasons: the
fingers open wider, or the hand comes from above, because something stands in the usual way. Both
show in the pose shortly before the goal; here motions are grouped by how that pose departs from
what their ends make expected. Nothing but the motions themselves is looked at.
"""

import warnings

import numpy as np
from jaxtyping import Float, Int
from scipy.cluster.vq import kmeans2
from scipy.spatial.transform import Rotation

from realdex_jax.data.motion_set import MotionSet
from realdex_jax.errors import DatasetError
from realdex_jax.hand import joints

NEAR = 0.04
"""Metres from the goal within which the palm is shortly before it."""
_ROUNDS = 5
_OUTLIER = 3.0
_FARTHEST = 12.0
"""Spreads beyond which a departure counts no more, so that single motions found no groups."""
_LEAST_SPREAD = 0.005
"""Of a direction's components and of radians: less than that is no difference of manner."""
_LEAST_MOTIONS = 10
"""Motions for each way; fewer would be groups of noise."""
_FLEXES = np.array([name[2:] in ("J1", "J2", "J3") for name in joints.NAMES])


def find(motions: MotionSet, count: int, seed: int = 0) -> Int[np.ndarray, " n"]:
    """Groups motions by the way they come.

    Args:
        motions: n motions.
        count: Number of ways.
        seed: Seed of the grouping's start (k-means++).

    Returns:
        The way of each motion, the most usual one first: way 0 has the most motions.

    Raises:
        DatasetError: Too few motions, or too much alike, to find so many ways in them.
    """
    if count == 1:
        return np.zeros(len(motions), np.int32)
    if len(motions) < _LEAST_MOTIONS * count:
        raise DatasetError(
            f"{len(motions)} motions are too few to tell {count} ways apart; at least "
            f"{_LEAST_MOTIONS} for each are needed"
        )
    departure = np.clip(_departures(*_described(motions)), -_FARTHEST, _FARTHEST)
    group = np.zeros(len(motions), np.int64)
    if len(np.unique(departure.round(3), axis=0)) >= count:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "One of the clusters is empty")
            _, group = kmeans2(departure, count, iter=50, minit="++", rng=seed)
    if len(np.unique(group)) < count:
        raise DatasetError(
            f"only {len(np.unique(group))} ways in {len(motions)} motions; {count} are wanted"
        )
    largest = np.argsort(-np.bincount(group, minlength=count), kind="stable")
    return np.argsort(largest)[group].astype(np.int32)


def _described(motions: MotionSet) -> tuple[Float[np.ndarray, "n 4"], Float[np.ndarray, "n 7"]]:
    """How the hand is shortly before the goal, and the ends, both in the goal's palm frame.

    The first: the direction to the palm, and by how much (rad) the fingers are more open.
    """
    first, last = motions.first[:-1], motions.first[1:] - 1
    p_world = motions.phi[:, 22:25].astype(np.float64)
    of = np.repeat(np.arange(len(motions)), motions.lengths())
    far = np.linalg.norm(p_world - p_world[last[of]], axis=1) > NEAR
    frame = np.arange(len(p_world))
    last_far = np.maximum.reduceat(np.where(far, frame, first[of]), first)
    near = np.minimum(last_far + 1, last)
    R_goal_world = Rotation.from_rotvec(motions.phi[last, 25:28].astype(np.float64)).inv()
    direction_goal = R_goal_world.apply(p_world[near] - p_world[last])
    length = np.linalg.norm(direction_goal, axis=1, keepdims=True)
    direction_goal = direction_goal / np.maximum(length, 1e-9)
    opening = (motions.phi[last, :22] - motions.phi[near, :22])[:, _FLEXES].mean(1)
    ends = [
        R_goal_world.apply(p_world[first] - p_world[last]),
        R_goal_world.apply([0.0, 0.0, 1.0]),
        np.ones((len(motions), 1)),
    ]
    return np.concatenate([direction_goal, opening[:, None]], axis=1), np.concatenate(ends, axis=1)


def _departures(
    described: Float[np.ndarray, "n 4"], ends: Float[np.ndarray, "n 7"]
) -> Float[np.ndarray, "n 4"]:
    """What a linear fit to the usual motions leaves over, in spreads of those."""
    usual = np.ones(len(described), bool)
    departure = described
    for _ in range(_ROUNDS):
        fit = np.linalg.lstsq(ends[usual], described[usual], rcond=None)[0]
        rest = described - ends @ fit
        rest = rest - np.median(rest, axis=0)
        spread = 1.48 * np.median(np.abs(rest), axis=0)  # a normal distribution's, by its median
        departure = rest / np.maximum(spread, _LEAST_SPREAD)
        usual = (np.abs(departure) < _OUTLIER).all(1)
    return departure
