import jax
import jax.numpy as jnp
import numpy as np
import pytest

from realdex_jax import descent, pose, touch
from realdex_jax.geometry import implicit, sdf
from realdex_jax.hand import collision, joints, kinematics, load

HAND = load.load("shadow")
AGREES = 2e-5
"""Metres; expanded squares lose a hundredth of a millimetre in single precision."""


@pytest.fixture(scope="module")
def poses():
    rng = np.random.default_rng(0)
    q = rng.uniform(0.2, 0.8, (3, 22)) * (joints.UPPER - joints.LOWER) + joints.LOWER
    for j2, j1 in joints.COUPLED:  # postures the coupled hand can take come back unchanged
        q[:, j1] = np.minimum(q[:, j1], q[:, j2])
    phi = np.concatenate([q, rng.normal(0, 0.02, (3, 3)), rng.normal(0, 0.5, (3, 3))], axis=1)
    return jnp.asarray(phi, jnp.float32)


def test_distances_agree_with_the_exact_form_in_both_layouts(poses):
    points = jnp.asarray(np.random.default_rng(1).uniform(-0.1, 0.15, (60, 3)), jnp.float32)
    links = kinematics.posed(HAND, poses)
    exact = collision.signed_distance_per_geom(HAND, links, jnp.broadcast_to(points, (3, 60, 3)))
    state = descent.start(poses, len(touch.CONTACT_LINKS))
    at = touch.posed(HAND, state.R, state.p, state.q)
    last = touch.to_hand(HAND, at, points.T)
    # Only where it matters: deep inside a capsule the expanded square cancels.
    near = np.asarray(exact) > -0.005
    np.testing.assert_allclose(
        np.asarray(last).transpose(2, 1, 0)[near], np.asarray(exact)[near], atol=AGREES
    )
    first = collision.signed_distance(HAND, links, jnp.broadcast_to(points, (3, 60, 3)))
    least = np.asarray(exact).min(-1)
    np.testing.assert_allclose(
        np.asarray(first)[least > -0.005], least[least > -0.005], atol=AGREES
    )


def test_self_depth_sees_what_the_exact_pairs_see(poses):
    q, _ = pose.split(poses)
    exact = collision.self_penetration(HAND, kinematics.forward(HAND, q)).max(-1)
    state = descent.start(poses, len(touch.CONTACT_LINKS))
    depth = touch.self_depth(HAND, touch.posed(HAND, state.R, state.p, state.q)).max(0)
    np.testing.assert_allclose(depth, exact, atol=1.5e-3)


def test_contacts_at_a_ball_lie_a_gap_off_it_and_face_outward(poses):
    rng = np.random.default_rng(2)
    normal = rng.normal(size=(3000, 3))
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    surface = implicit.Oriented(0.04 * normal, normal, np.zeros(3000, bool))
    grid = implicit.grid(surface)
    # The ball lies in the hollow of the hand.
    lifted = poses.at[:, 22:].set(jnp.array([0.0, 0.055, -0.085, 0.0, 0.0, 0.0]))
    state = descent.start(lifted, len(touch.CONTACT_LINKS))
    found = touch.touch(HAND, touch.posed(HAND, state.R, state.p, state.q), grid)
    near = np.asarray(jnp.abs(found.gap)) < 0.01
    assert near.any()
    p = np.asarray(found.p).transpose(1, 2, 0)[near]
    n = np.asarray(found.normal).transpose(1, 2, 0)[near]
    radius = np.linalg.norm(p, axis=-1)
    np.testing.assert_allclose(radius - np.asarray(found.gap)[near], 0.04, atol=5e-4)
    assert ((p * n).sum(-1) / radius > 0.98).all()


def test_turned_forces_follow_the_normal():
    normal = jnp.array([0.0, 0.0, 1.0]).reshape(3, 1, 1)
    force = jnp.array([0.1, 0.0, -1.0]).reshape(3, 1, 1)
    np.testing.assert_allclose(touch.turned(normal, force), force)
    derivative = jax.jvp(
        lambda n: touch.turned(n, force), (normal,), (jnp.array([1.0, 0, 0]).reshape(3, 1, 1),)
    )[1]
    np.testing.assert_allclose(derivative[:, 0, 0], [-1.0, 0.0, 0.0], atol=1e-6)


@pytest.fixture(scope="module")
def box_cloud():
    rng = np.random.default_rng(0)
    half = np.array([0.03, 0.02, 0.06])
    p = rng.uniform(-half, half, (2500, 3))
    area = np.array([half[1] * half[2], half[2] * half[0], half[0] * half[1]])
    axis = rng.choice(3, 2500, p=area / area.sum())
    sign = rng.choice([-1.0, 1.0], 2500)
    p[np.arange(2500), axis] = sign * half[axis]
    normal = np.zeros((2500, 3))
    normal[np.arange(2500), axis] = sign
    return half, p, normal


def test_a_cloud_without_normals_gives_the_distance_of_its_box(box_cloud):
    half, p, normal = box_cloud
    surface = implicit.orient(p)
    assert ((surface.normals * normal).sum(-1) > 0.7).mean() > 0.95
    assert surface.two_sided.mean() < 0.02
    rng = np.random.default_rng(1)
    query = rng.uniform(-half - 0.015, half + 0.015, (3000, 3))
    over = np.abs(query) - half
    exact = np.linalg.norm(np.maximum(over, 0), axis=1) + np.minimum(over.max(1), 0)
    found = np.asarray(sdf.trilinear(implicit.grid(surface), jnp.asarray(query.T, jnp.float32))[0])
    band = np.abs(exact) < 0.012
    assert np.abs(found - exact)[band].mean() < 0.6e-3
    assert (np.sign(found) == np.sign(exact))[np.abs(exact) > 0.002].mean() > 0.995


def test_a_one_sided_cloud_faces_its_camera(box_cloud):
    _, p, normal = box_cloud
    view = np.array([0.5, 0.6, 0.7])
    seen = (normal * (view - p)).sum(-1) > 0
    given = implicit.orient(p[seen], view)
    found = implicit.orient(p[seen])
    for surface in (given, found):
        assert ((surface.normals * normal[seen]).sum(-1) > 0.7).mean() > 0.9


def test_both_sides_of_a_sheet_are_outside():
    rng = np.random.default_rng(0)
    disc = rng.uniform(-0.08, 0.08, (3000, 3))
    disc[:, 2] = rng.choice([0.0, 0.002], 3000)
    up = np.where(disc[:, 2] > 0.001, 1.0, -1.0)[:, None] * [0.0, 0.0, 1.0]
    surface = implicit.Oriented(disc, up, np.ones(3000, bool))
    above = implicit.distance(surface, np.array([[0.0, 0.0, 0.012], [0.0, 0.0, -0.01]]))
    np.testing.assert_allclose(above, [0.01, 0.01], atol=1.5e-3)
