"""How different the grasps of one object are from each other.

Each measure depends on the number of grasps, so only sets of equal size can be compared.
"""

import dataclasses

import numpy as np
from jaxtyping import Array, Float
from scipy.spatial.transform import Rotation

from realdex_jax.evaluation.grasp import MetricError
from realdex_jax.hand.joints import SHADOW, JointTable

BINS = 100
"""Equal bins between a joint's limits in which its angles are counted."""
_SAME = 1e-12
"""Variance (of radians and metres together) below which grasps count as copies."""


@dataclasses.dataclass(frozen=True)
class Spread:
    """How far grasps are from their mean; UniDexGrasp's sigma R, T and theta."""

    rotation_deg: float
    """Root mean square angle between a palm's orientation and the mean orientation, degrees."""
    translation_cm: float
    """Root mean square distance of a palm from the mean place, centimetres."""
    joint_deg: float
    """Standard deviation of a joint angle, mean over joints, degrees: `diversity` otherwise."""


def diversity(phi: Float[Array | np.ndarray, "b phi"]) -> float:
    """Standard deviation (rad) of the joint angles over grasps of one object, mean over joints.

    Raises:
        MetricError: Fewer than two grasps, or values that are not finite.
    """
    return float(_checked(phi)[:, :-6].std(axis=0, ddof=1).mean())


def joint_entropy(
    phi: Float[Array | np.ndarray, "b phi"], table: JointTable = SHADOW
) -> tuple[float, float]:
    """Mean and standard deviation over joints of the entropy (bits) of a joint's angles.

    Angles are counted in `BINS` bins between the joint's limits, those beyond in the outer bins.
    The entropy is at most log2 of the bins, and of the grasps. DexGraspNet and UGG call the two
    H mean and H std; compare within one table only.

    Raises:
        MetricError: Fewer than two grasps, or values that are not finite.
    """
    q = _checked(phi)[:, :-6]
    low, high = table.lower.astype(np.float64), table.upper.astype(np.float64)
    index = np.clip((BINS * (q - low) / (high - low)).astype(int), 0, BINS - 1)
    counts = (index[:, :, None] == np.arange(BINS)).sum(axis=0)
    share = counts / len(q)
    entropy = -(share * np.log2(np.where(counts > 0, share, 1.0))).sum(axis=1)
    return float(entropy.mean()), float(entropy.std())


def explained_variance(phi: Float[Array | np.ndarray, "b phi"]) -> Float[np.ndarray, " phi"]:
    """Share of all variance along the first 1, 2 ... principal axes; low is diverse.

    DexGraspBench's diversity: of vectors of palm translation (m), axis-angle (rad) and joint angles
    (rad), as they are, in the object's frame. Grasps that are all the same count as one axis.

    Raises:
        MetricError: Fewer than two grasps, or values that are not finite.
    """
    x = _checked(phi)
    singular = np.linalg.svd(x - x.mean(axis=0), compute_uv=False)
    variance = np.zeros(x.shape[1])
    variance[: len(singular)] = singular**2 / (len(x) - 1)
    if variance.sum() < _SAME:
        return np.ones(x.shape[1])
    return np.minimum(np.cumsum(variance) / variance.sum(), 1.0)


def spread(phi: Float[Array | np.ndarray, "b phi"]) -> Spread:
    """How far grasps are from their mean.

    UniDexGrasp gives no formula; these count one degree of freedom less than grasps, as
    `diversity`.

    Raises:
        MetricError: Fewer than two grasps, or values that are not finite.
    """
    x = _checked(phi)
    R = Rotation.from_rotvec(x[:, -3:])
    angle = (R.mean().inv() * R).magnitude()
    place = np.linalg.norm(x[:, -6:-3] - x[:, -6:-3].mean(axis=0), axis=1)
    return Spread(
        rotation_deg=float(np.rad2deg(_deviation(angle))),
        translation_cm=float(1e2 * _deviation(place)),
        joint_deg=float(np.rad2deg(diversity(x))),
    )


def _deviation(distance: Float[np.ndarray, " b"]) -> np.floating:
    return np.sqrt((distance**2).sum() / (len(distance) - 1))


def _checked(phi: Float[Array | np.ndarray, "b phi"]) -> Float[np.ndarray, "b phi"]:
    x = np.asarray(phi, np.float64)
    if len(x) < 2:
        raise MetricError(f"diversity of {len(x)} grasps; at least two are needed")
    if not np.isfinite(x).all():
        raise MetricError("poses must be finite")
    return x
