"""Poses a second of retargeting, and how near fingertips come.

The keypoints are those of the hand itself at random joint angles within the limits: all can be
reached, and what is missed is the search's fault. The sequence is a walk between them, since
frames of people may not be carried along.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from scipy.spatial.transform import Rotation

from benchmarks.timing import Timing, time_calls
from realdex_jax.hand import human, joints, torque
from realdex_jax.hand.load import load
from realdex_jax.hand.retarget import PLACE, RetargetConfig, retarget, retarget_sequence

POSES = 2048
TARGET = 500.0
"""Poses a second that four cores must reach."""
TARGET_MM = 5.0
"""Median distance (mm) of fingertips from where they should be, at most."""


@dataclasses.dataclass(frozen=True)
class Miss:
    """How far fingertips are from the keypoints', millimetres."""

    name: str
    median_mm: float
    worst_mm: float
    """99 % of the fingertips are nearer."""


def measure(poses: int = POSES, repeats: int = 5) -> tuple[list[Timing], list[Miss]]:
    """Times the search of many poses, postures and places, and of a sequence of as many frames."""
    hand = load()
    rng = np.random.default_rng(0)
    far = _random(rng, poses)
    stops = _random(rng, -(-poses // _HOLD) + 1)
    share = np.arange(poses) / _HOLD
    walk = np.stack([np.interp(share, np.arange(len(stops)), column) for column in stops.T], 1)
    walk[:, 22:] = 0.0
    runs = {
        "posture, each on its own": (far, retarget, RetargetConfig()),
        "place, each on its own": (far, retarget, PLACE),
        "posture, a sequence": (walk.astype(np.float32), retarget_sequence, RetargetConfig()),
    }
    calls, misses = {}, []
    for name, (phi, search, config) in runs.items():
        keypoints = human.keypoints_of(hand, jnp.asarray(phi))
        call = functools.partial(search, hand, keypoints, config)
        calls[name] = functools.partial(lambda f: jax.block_until_ready(f()), call)
        reached = human.keypoints_of(hand, call().phi)
        off = np.linalg.norm((reached - keypoints)[:, np.array(human.TIPS)], axis=-1)
        median, worst = (float(1e3 * x) for x in np.quantile(off, [0.5, 0.99]))
        misses.append(Miss(name, median, worst))
    return time_calls(calls, poses, repeats, warm_up=1), misses


_HOLD = 20
"""Frames from one random pose of the walk to the next."""


def _random(rng: np.random.Generator, count: int) -> np.ndarray:
    """Poses anywhere within the limits, in any orientation."""
    q = rng.uniform(joints.LOWER, joints.UPPER, (count, len(joints.NAMES))).astype(np.float32)
    p = 0.2 * rng.normal(size=(count, 3))
    turn = Rotation.random(count, rng=rng).as_rotvec()
    q = np.asarray(torque.within_limits(jnp.asarray(q)))
    return np.concatenate([q, p, turn], axis=1).astype(np.float32)
