"""Metrics of motions: known answers, padding, and an independent implementation."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from realdex_jax.evaluation import motion as metrics
from realdex_jax.hand import joints
from realdex_jax.hand.load import load


@pytest.fixture
def pair(rng):
    """Two motions of 40 frames: a slow reach and a disturbed one."""
    share = np.linspace(0.0, 1.0, 40)[:, None]
    true = np.zeros((40, 28), np.float32)
    true[:, :22] = share * joints.REST
    true[:, 22:25] = share * [0.3, 0.1, -0.2]
    true[:, 25:] = share * [0.5, 0.2, -0.1]
    made = true.copy()
    made[1:, :22] += rng.normal(size=(39, 22)) * 0.02
    made[1:, 22:] += rng.normal(size=(39, 6)) * 0.01
    made[:, :22] = np.clip(made[:, :22], joints.LOWER, joints.UPPER)
    return made, true


def measured(made, true, lengths):
    found = metrics.measured(load(), *(jnp.asarray(x) for x in (made, true, np.array(lengths))))
    return {name: np.asarray(value) for name, value in found.items()}


def test_the_same_motion_has_no_error(pair):
    _, true = pair
    found = measured(true[None], true[None], [40])
    for name in ("mpjpe_cm", "ave_cm2", "ave_local_cm2", "verts_offset_mm", "limit_violations"):
        assert found[name][0] == pytest.approx(0.0, abs=1e-4), name  # squares of 100 cm2


def test_a_shifted_motion_is_off_by_the_shift_and_varies_alike(pair):
    _, true = pair
    made = true.copy()
    made[:, 22:25] += [0.003, 0.0, 0.004]
    found = measured(made[None], true[None], [40])
    assert found["mpjpe_cm"][0] == pytest.approx(0.5, rel=1e-4)
    assert found["verts_offset_mm"][0] == pytest.approx(5.0, rel=1e-4)
    assert found["ave_cm2"][0] == pytest.approx(0.0, abs=2e-3)  # float32 of squares of 100 cm2
    assert found["ave_local_cm2"][0] == pytest.approx(0.0, abs=1e-4)


def test_values_agree_with_a_plain_implementation(pair):
    made, true = pair
    hand = load()
    p, p_true = (np.asarray(metrics.keypoints(hand, jnp.asarray(x)), np.float64) for x in pair)
    found = measured(made[None], true[None], [40])
    np.testing.assert_allclose(
        found["mpjpe_cm"][0], 100 * np.linalg.norm(p - p_true, axis=-1).mean(), rtol=1e-5
    )
    variance = [(100 * x).var(axis=0, ddof=1).sum(-1) for x in (p, p_true)]
    np.testing.assert_allclose(
        found["ave_cm2"][0], np.abs(variance[0] - variance[1]).mean(), rtol=1e-3
    )
    third = np.linalg.norm(np.diff(p, n=3, axis=0), axis=-1) * 15**3
    np.testing.assert_allclose(found["jerk_m_s3"][0], third.mean(), rtol=1e-3)
    # The keypoints themselves, by SciPy from the palm frame.
    local = np.asarray(metrics.local(hand, jnp.asarray(made)))
    R = Rotation.from_rotvec(made[:, 25:])
    world = np.stack([r.apply(x) for r, x in zip(R, local, strict=True)]) + made[:, None, 22:25]
    np.testing.assert_allclose(p, world, atol=1e-5)


def test_padding_does_not_count(pair):
    made, true = pair
    long = [np.concatenate([x, np.repeat(x[-1:], 15, 0)]) for x in (made, true)]
    short = measured(made[None], true[None], [40])
    padded = measured(long[0][None], long[1][None], [40])
    for name, value in short.items():
        np.testing.assert_allclose(padded[name], value, rtol=2e-4, atol=1e-5, err_msg=name)
    both = metrics.padded([made, true[:30]], 55)
    assert both.shape == (2, 55, 28)
    np.testing.assert_array_equal(both[1, 30:], np.repeat(true[29:30], 25, 0))


def test_broken_limits_and_speeds_are_counted(pair):
    _, true = pair
    made = true.copy()
    made[10:14, 3] = 2.0  # beyond FFJ1's limit in four frames, and a jump there and back
    found = measured(made[None], true[None], [40])
    assert found["limit_violations"][0] == pytest.approx(4 / 40)
    assert found["velocity_violations"][0] == pytest.approx(2 / 39)
