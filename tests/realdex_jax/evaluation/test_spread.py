import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from realdex_jax.evaluation import spread
from realdex_jax.evaluation.grasp import MetricError
from realdex_jax.hand import joints


@pytest.fixture
def phi(rng: np.random.Generator) -> np.ndarray:
    pose = np.zeros((30, 28))
    pose[:, :22] = rng.uniform(joints.LOWER, joints.UPPER, (30, 22))
    pose[:, 22:25] = 0.1 * rng.normal(size=(30, 3))
    pose[:, 25:] = 0.5 * rng.normal(size=(30, 3))
    return pose


def all_measures(phi: np.ndarray) -> np.ndarray:
    found = spread.spread(phi)
    return np.array(
        [
            spread.diversity(phi),
            *spread.joint_entropy(phi),
            *spread.explained_variance(phi),
            *(found.rotation_deg, found.translation_cm, found.joint_deg),
        ]
    )


def test_diversity_is_the_mean_joint_spread(rng: np.random.Generator) -> None:
    phi = np.zeros((4000, 28))
    phi[:, :22] = 0.3 * rng.normal(size=(4000, 22))
    assert spread.diversity(phi) == pytest.approx(0.3, rel=0.03)


def test_copies_are_not_diverse(phi: np.ndarray) -> None:
    same = np.tile(phi[:1], (10, 1))
    found = spread.spread(same)
    # Means of ten equal numbers differ from them by rounding.
    assert found.rotation_deg == pytest.approx(0.0, abs=1e-5)
    assert found.translation_cm == pytest.approx(0.0, abs=1e-10)
    assert found.joint_deg == pytest.approx(0.0, abs=1e-10)
    assert spread.joint_entropy(same) == (0.0, 0.0)
    assert spread.explained_variance(same).tolist() == [1.0] * 28


def test_the_order_of_grasps_does_not_matter(phi: np.ndarray, rng: np.random.Generator) -> None:
    np.testing.assert_allclose(all_measures(rng.permutation(phi)), all_measures(phi), rtol=1e-9)


def test_entropy_is_that_of_a_histogram(phi: np.ndarray) -> None:
    entropy = []
    for j in range(22):
        limits = (float(joints.LOWER[j]), float(joints.UPPER[j]))
        counts = np.histogram(phi[:, j], bins=spread.BINS, range=limits)[0]
        share = counts[counts > 0] / counts.sum()
        entropy.append(-sum(s * np.log2(s) for s in share))
    assert spread.joint_entropy(phi) == pytest.approx((np.mean(entropy), np.std(entropy)), rel=1e-9)


def test_entropy_of_even_angles_is_the_most_there_is() -> None:
    phi = np.zeros((2 * spread.BINS, 28))
    even = (np.arange(2 * spread.BINS) + 0.5) / (2 * spread.BINS)
    phi[:, :22] = joints.LOWER + even[:, None] * (joints.UPPER - joints.LOWER)
    assert spread.joint_entropy(phi) == pytest.approx((np.log2(spread.BINS), 0.0), abs=1e-9)
    phi[:, :22] = joints.LOWER
    phi[0, :22] = joints.UPPER + 0.05
    phi[1, :22] = joints.LOWER - 0.05
    share = np.array([1, 2 * spread.BINS - 1]) / (2 * spread.BINS)
    expected = -(share * np.log2(share)).sum()
    assert spread.joint_entropy(phi)[0] == pytest.approx(expected), "beyond a limit is at it"


def test_explained_variance_is_that_of_the_covariance(phi: np.ndarray) -> None:
    values = np.sort(np.linalg.eigvalsh(np.cov(phi.T)))[::-1]
    expected = np.cumsum(values) / values.sum()
    np.testing.assert_allclose(spread.explained_variance(phi), expected, atol=1e-9)
    few = spread.explained_variance(phi[:3])
    assert few[0] < 1.0
    assert few[1:] == pytest.approx(1.0), "three grasps span a plane"


def test_grasps_on_a_line_vary_along_one_axis(phi: np.ndarray) -> None:
    line = phi[0] + np.linspace(-1.0, 1.0, 9)[:, None] * (phi[1] - phi[0])
    assert spread.explained_variance(line)[0] == pytest.approx(1.0)


def test_spread_of_known_turns_and_places() -> None:
    phi = np.zeros((2, 28))
    phi[:, 25] = [0.2, -0.2]
    phi[:, 23] = [0.01, 0.05]
    phi[:, 4] = [0.1, 0.3]
    found = spread.spread(phi)
    assert found.rotation_deg == pytest.approx(np.rad2deg(0.2 * 2**0.5))
    assert found.translation_cm == pytest.approx(2.0 * 2**0.5)
    assert found.joint_deg == pytest.approx(np.rad2deg(0.1 * 2**0.5 / 22))
    assert found.joint_deg == pytest.approx(np.rad2deg(spread.diversity(phi)))


def test_turning_the_object_frame_changes_no_spread(
    phi: np.ndarray, rng: np.random.Generator
) -> None:
    R = Rotation.random(rng=rng)
    turned = phi.copy()
    turned[:, 22:25] = R.apply(phi[:, 22:25]) + 0.3
    turned[:, 25:] = (R * Rotation.from_rotvec(phi[:, 25:])).as_rotvec()
    a, b = spread.spread(phi), spread.spread(turned)
    assert a.rotation_deg == pytest.approx(b.rotation_deg)
    assert a.translation_cm == pytest.approx(b.translation_cm)


def test_what_has_no_spread_is_refused(phi: np.ndarray) -> None:
    measures = (
        spread.diversity,
        spread.joint_entropy,
        spread.explained_variance,
        spread.spread,
    )
    for measure in measures:
        with pytest.raises(MetricError, match="at least two"):
            measure(phi[:1])
        with pytest.raises(MetricError, match="finite"):
            measure(np.full((3, 28), np.nan))
