"""Surface samples and labels of a shape against trimesh and exact geometry."""

import numpy as np
import pytest
import trimesh

from realdex_jax.geometry.shape import ObjectShape


def two_boxes() -> ObjectShape:
    """A 10 x 4 x 4 cm bar in two labelled halves."""
    mesh = trimesh.creation.box((0.1, 0.04, 0.04))
    signs = np.array(np.meshgrid([-1, 1], [-1, 1], [-1, 1])).reshape(3, -1).T
    half = signs * np.array([0.025, 0.02, 0.02])
    shift = np.array([0.025, 0.0, 0.0])
    left, right = half - shift, half + shift
    vertices, faces = np.asarray(mesh.vertices), np.asarray(mesh.faces)
    return ObjectShape("bar", vertices, faces, (left, right), ("tail", "head"), 0.1, "test")


def test_samples_lie_on_the_surface_with_outward_unit_normals() -> None:
    shape = two_boxes()
    sample = shape.surface(500, seed=3)
    beyond = np.abs(sample.points) - [0.05, 0.02, 0.02]
    np.testing.assert_allclose(beyond.max(axis=1), 0.0, atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(sample.normals, axis=1), 1.0, atol=1e-12)
    assert not shape.contains(sample.points + 1e-4 * sample.normals).any()
    assert shape.contains(sample.points - 1e-4 * sample.normals).all()


def test_samples_are_even_by_area_in_every_prefix() -> None:
    shape = two_boxes()
    sample = shape.surface(2000)
    ends = np.abs(sample.normals[:, 0]) > 0.5
    share = 2 * 0.04**2 / (2 * 0.04**2 + 4 * 0.1 * 0.04)
    assert ends.mean() == pytest.approx(share, abs=2 / 2000)
    assert ends[:500].mean() == pytest.approx(share, abs=0.03)


def test_sampling_is_deterministic_and_the_seed_matters() -> None:
    shape = two_boxes()
    np.testing.assert_array_equal(shape.surface(50, 1).points, shape.surface(50, 1).points)
    assert not np.array_equal(shape.surface(50, 1).points, shape.surface(50, 2).points)


def test_labels_name_the_nearest_piece() -> None:
    shape = two_boxes()
    assert shape.labels == ("head", "tail")
    sample = shape.surface(300)
    expected = np.where(sample.points[:, 0] > 0, 0, 1)
    np.testing.assert_array_equal(sample.labels, expected)


def test_mass_properties_agree_with_the_box() -> None:
    shape = two_boxes()
    assert shape.volume == pytest.approx(0.1 * 0.04 * 0.04)
    np.testing.assert_allclose(shape.center_of_mass, 0.0, atol=1e-12)
    np.testing.assert_allclose(shape.bounds, [[-0.05, -0.02, -0.02], [0.05, 0.02, 0.02]])
