import numpy as np
import pytest
import trimesh
from scipy.spatial import KDTree

from realdex_jax.geometry import support


def seen_from_above(mesh, count, z):
    """Surface points that a camera above the table may see: all but what looks down."""
    mesh = mesh.copy()
    mesh.apply_translation([0.0, 0.0, z - mesh.bounds[0, 2]])
    points, faces = trimesh.sample.sample_surface(mesh, count, seed=0)
    return np.asarray(points[mesh.face_normals[faces][:, 2] > -0.3])


def test_a_box_is_closed_by_its_bottom():
    z = 0.4
    points = seen_from_above(trimesh.creation.box((0.06, 0.1, 0.16)), 2000, z)
    whole = support.closed(points, z)
    assert np.array_equal(whole[: len(points)], points)
    added = whole[len(points) :]
    assert np.all(added[:, 2] == z)
    # All of the bottom is near a point, none is outside of it.
    assert (np.abs(added[:, :2]) <= [0.03, 0.05]).all()
    x, y = np.meshgrid(np.linspace(-0.03, 0.03, 30), np.linspace(-0.05, 0.05, 50))
    bottom = np.column_stack([x.ravel(), y.ravel(), np.full(x.size, z)])
    assert KDTree(whole).query(bottom)[0].max() < 0.008
    # About as dense as what was seen, 2000 points on 0.0632 m2; random points have many that are
    # nearer than a grid's.
    assert 0.2 < len(added) / 0.006 / (2000 / 0.0632) < 2.0


def test_a_ball_gets_no_more_than_where_it_touches():
    points = seen_from_above(trimesh.creation.icosphere(5, 0.04), 4000, 0.0)
    assert points[:, 2].min() > 0.02  # nothing was seen near the table
    assert len(support.closed(points, 0.0)) == len(points)


def test_a_bottom_that_was_seen_is_left_as_it_is():
    points, _ = trimesh.sample.sample_surface(trimesh.creation.box((0.1, 0.1, 0.1)), 6000, seed=0)
    # 1000 of them are on the bottom; a gap between random points may get one.
    assert len(support.closed(np.asarray(points), -0.05)) - 6000 < 100


@pytest.mark.parametrize("foot", [[[0.0, 0, 0]], [[0.0, 0, 0], [0.1, 0, 0], [0.2, 0, 0]]])
def test_a_foot_without_area_has_no_underside(foot):
    points = np.array([*foot, [0.0, 0.0, 0.1], [0.02, 0.0, 0.1]])
    assert support.under(points, 0.0, 0.01).shape == (0, 3)
