import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial import cKDTree

from realdex_jax.hand import joints, kinematics, load
from realdex_jax.losses import contact, penetration
from realdex_jax.losses import pose as pose_loss

HAND = load.load("shadow")


def grasp(seed: int = 0):
    rng = np.random.default_rng(seed)
    q = rng.uniform(0.2, 0.8, 22) * (joints.UPPER - joints.LOWER) + joints.LOWER
    t, r = rng.normal(0, 0.01, 3), rng.normal(0, 0.3, 3)
    points = rng.uniform([-0.03, -0.06, 0.02], [0.03, 0.0, 0.15], (40, 3))
    return jnp.asarray(np.concatenate([q, t, r]), jnp.float32), jnp.asarray(points, jnp.float32)


def links_of(phi):
    return kinematics.posed(HAND, phi)


def test_contact_value_is_the_formula():
    d = np.linspace(0, 0.1, 50)
    expected = 2 - 2 / (1 + np.exp(-60 * d))
    np.testing.assert_allclose(contact.contact_value(jnp.asarray(d)), expected, atol=1e-6)
    assert float(contact.contact_value(jnp.array(0.03))) == pytest.approx(0.284, abs=1e-3)
    assert float(contact.contact_value(jnp.array(-0.01))) == 1.0


def test_full_contact_is_in_the_last_bin():
    bins = contact.to_bins(jnp.array([0.0, 0.05, 0.1, 0.95, 1.0]))
    np.testing.assert_array_equal(bins, [0, 0, 1, 9, 9])


def test_expectation_of_a_sure_bin_is_its_middle():
    logits = 100.0 * jax.nn.one_hot(jnp.array([0, 4, 9]), 10)
    np.testing.assert_allclose(contact.expectation(logits), [0.05, 0.45, 0.95], atol=1e-5)


def test_cross_entropy_against_numpy():
    rng = np.random.default_rng(0)
    logits, value = rng.normal(size=(6, 10)), rng.uniform(size=6)
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    expected = -np.log(p[np.arange(6), np.minimum((value * 10).astype(int), 9)]).mean()
    found = contact.cross_entropy(jnp.asarray(logits), jnp.asarray(value))
    assert float(found) == pytest.approx(expected, abs=1e-5)


def test_the_gradient_of_chamfer_is_that_of_the_whole_matrix(rng):
    a, b = (jnp.asarray(rng.normal(size=(3, n, 3)), jnp.float32) for n in (40, 70))

    def dense(a, b):
        square = ((a[:, :, None] - b[:, None]) ** 2).sum(-1)
        return square.min(-1).mean(-1) + square.min(-2).mean(-1)

    for argument in (0, 1):
        ours, plain = (
            jax.grad(lambda *x, f=f: f(*x).sum(), argument)(a, b)
            for f in (pose_loss.chamfer, dense)
        )
        np.testing.assert_allclose(ours, plain, atol=1e-6)  # sums of floats in another order


def test_chamfer_of_what_is_no_number_is_none():
    a = jnp.zeros((4, 3))
    for bad in (a.at[1, 2].set(jnp.nan), jnp.full((4, 3), jnp.nan)):
        assert jnp.isnan(pose_loss.chamfer(bad, a))
        assert jnp.isnan(pose_loss.chamfer(a, bad))


def test_chamfer_against_a_tree():
    rng = np.random.default_rng(0)
    a, b = rng.normal(0, 0.05, (2, 60, 3)), rng.normal(0, 0.05, (2, 45, 3))
    found = pose_loss.chamfer(jnp.asarray(a), jnp.asarray(b))
    for i in range(2):
        ab, ba = cKDTree(b[i]).query(a[i])[0], cKDTree(a[i]).query(b[i])[0]
        assert float(found[i]) == pytest.approx((ab**2).mean() + (ba**2).mean(), rel=1e-5)


def test_kl_of_the_prior_is_zero_and_of_a_shifted_one_half_its_square():
    zero = jnp.zeros((3, 5))
    assert float(pose_loss.kl(zero, zero)) == 0.0
    assert float(pose_loss.kl(zero + 2.0, zero)) == pytest.approx(5 * 2.0)


def test_rotation_error_of_small_angles_is_a_third_of_their_square():
    import jaxlie

    R = jaxlie.SO3.exp(jnp.array([0.0, 0.0, 0.02])).as_matrix()
    assert float(pose_loss.rotation(R, jnp.eye(3))) == pytest.approx(0.02**2 / 3, rel=1e-2)


def terms(phi, points):
    links = links_of(phi)
    return jnp.stack(
        [
            (contact.contact_map(HAND, links, points) ** 2).sum(),
            1e3 * penetration.in_hand(HAND, links, points),
            1e3 * penetration.in_itself(HAND, links),
            1e2 * pose_loss.chamfer(kinematics.keypoints(HAND, links), points),
        ]
    )


def test_gradient_is_the_finite_difference():
    # One compiled function for all terms: compiling the hand is most of the cost.
    with jax.enable_x64(True):
        phi, points = (jnp.asarray(np.asarray(x), jnp.float64) for x in grasp(3))
        direction = jnp.asarray(np.random.default_rng(1).normal(size=28))
        along = jax.jit(
            lambda s: jax.jvp(lambda x: terms(x, points), (phi + s * direction,), (direction,))
        )
        h = 1e-6
        _, derivative = along(0.0)
        numeric = (along(h)[0] - along(-h)[0]) / (2 * h)
        assert int((jnp.abs(derivative) > 1e-4).sum()) >= 3  # the test would be empty otherwise
        np.testing.assert_allclose(derivative, numeric, rtol=1e-4, atol=1e-7)


def test_batching_is_a_loop():
    phis = jnp.stack([grasp(i)[0] for i in range(3)])
    points = jnp.stack([grasp(i)[1] for i in range(3)])
    whole = jax.jit(jax.vmap(terms))(phis, points)
    one = jax.jit(terms)
    each = jnp.stack([one(phi, p) for phi, p in zip(phis, points, strict=True)])
    np.testing.assert_allclose(whole, each, rtol=1e-4, atol=1e-6)


def test_penetration_is_zero_only_apart():
    links = links_of(grasp()[0])
    assert float(penetration.in_hand(HAND, links, jnp.full((4, 3), 0.5))) == 0.0
    assert float(penetration.in_hand(HAND, links, links.p[None, 0])) > 0.0
