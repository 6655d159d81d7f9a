"""The distance grid against closed forms and its own gradient."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import trimesh

from realdex_jax.geometry import sdf
from realdex_jax.geometry.shape import ObjectShape


@pytest.fixture(scope="module")
def box():
    corners = np.array(list(itertools.product((-1.0, 1.0), repeat=3))) * [0.03, 0.02, 0.05]
    mesh = trimesh.convex.convex_hull(corners)
    return ObjectShape(
        "box", mesh.vertices, mesh.faces, (corners,), ("body",), mass=0.1, category="box"
    )


def _box_distance(p):
    over = np.abs(p) - [0.03, 0.02, 0.05]
    return np.linalg.norm(np.maximum(over, 0), axis=-1) + np.minimum(over.max(-1), 0)


def test_exact_distance_of_a_box(box):
    p = np.random.default_rng(0).uniform(-0.07, 0.07, (2000, 3))
    np.testing.assert_allclose(sdf.exact_distance(box, p), _box_distance(p), atol=2e-4)


def test_grid_lookups_are_within_a_fraction_of_the_pitch(box):
    grid = sdf.build(box)
    p = np.random.default_rng(1).uniform(-0.055, 0.055, (3, 3000)).astype(np.float32)
    expected = _box_distance(p.T)
    near, _ = sdf.first_order(grid, jnp.asarray(p))
    smooth, normal = sdf.trilinear(grid, jnp.asarray(p))
    pitch = float(grid.pitch)
    # First order is off near edges and the medial axis only.
    assert np.percentile(np.abs(near - expected), 90) < 0.1 * pitch
    assert np.percentile(np.abs(smooth - expected), 99) < 0.5 * pitch
    np.testing.assert_allclose(np.linalg.norm(normal, axis=0), 1.0, atol=0.1)


def test_outside_the_grid_distance_keeps_growing(box):
    grid = sdf.build(box)
    d, _ = sdf.first_order(grid, jnp.array([[0.1, 0.2, 0.4], [0.0] * 3, [0.0] * 3]))
    assert bool((d[1:] > d[:-1]).all())
    assert float(d[-1]) > 0.3


def test_gradient_of_the_trilinear_distance_is_the_finite_difference(box):
    grid = sdf.build(box)
    p = jnp.array([0.0351, 0.0042, -0.0117])
    value = jax.jit(lambda p: sdf.trilinear(grid, p[:, None])[0][0])
    gradient = jax.grad(value)(p)
    step = 2e-4  # within one cell
    for i in range(3):
        e = step * jnp.eye(3)[i]
        difference = (value(p + e) - value(p - e)) / (2 * step)
        np.testing.assert_allclose(gradient[i], difference, atol=5e-3)
