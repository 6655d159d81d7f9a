"""Surface samples and labels of a shape against trimesh and exact geometry."""

import numpy as np
import pytest
import trimesh

from realdex_jax.errors import MeshError
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


@pytest.mark.parametrize("factor", [0.5, 0.8, 1.25])
def test_a_scaled_shape_keeps_the_laws_of_size(factor: float) -> None:
    shape = two_boxes()
    other = shape.scaled(factor, "bar in another size")
    assert other.name == "bar in another size"
    assert (other.category, other.symmetry) == (shape.category, shape.symmetry)
    assert other.piece_labels == shape.piece_labels
    assert other.volume == pytest.approx(factor**3 * shape.volume)
    assert other.mass / other.volume == pytest.approx(shape.mass / shape.volume)
    np.testing.assert_allclose(other.center_of_mass, factor * shape.center_of_mass, atol=1e-12)
    points = np.random.default_rng(0).uniform(-0.06, 0.06, (200, 3))
    np.testing.assert_array_equal(other.contains(factor * points), shape.contains(points))
    one, two = shape.surface(300, seed=2), other.surface(300, seed=2)
    np.testing.assert_allclose(two.points, factor * one.points, atol=1e-12)
    np.testing.assert_allclose(two.normals, one.normals, atol=1e-12)
    np.testing.assert_array_equal(two.labels, one.labels)


def test_a_scaled_shape_is_what_trimesh_scales() -> None:
    shape = two_boxes()
    shape.mesh  # noqa: B018 - cached on the old shape; the new one must not inherit it
    other = shape.scaled(0.8, "small bar")
    reference = trimesh.Trimesh(shape.vertices, shape.faces).apply_scale(0.8)
    points = other.surface(500).points
    each = np.repeat(reference.triangles, len(points), axis=0)
    closest = trimesh.triangles.closest_point(each, np.tile(points, (len(reference.faces), 1)))
    off = np.linalg.norm(closest.reshape(-1, len(points), 3) - points, axis=-1).min(axis=0)
    assert off.max() < 1e-9
    # Surface points miss the corners by a little.
    np.testing.assert_allclose(np.abs(points).max(axis=0), [0.04, 0.016, 0.016], rtol=0.02)


def test_scaling_there_and_back_gives_the_same_shape() -> None:
    shape = two_boxes()
    again = shape.scaled(1.25, "large").scaled(0.8, "bar")
    np.testing.assert_allclose(again.vertices, shape.vertices, atol=1e-15)
    assert again.mass == pytest.approx(shape.mass)
    np.testing.assert_array_equal(again.faces, shape.faces)


@pytest.mark.parametrize("factor", [0.0, -1.0, float("nan"), float("inf")])
def test_a_factor_that_is_no_size_is_refused(factor: float) -> None:
    with pytest.raises(MeshError, match="bar cannot be scaled by"):
        two_boxes().scaled(factor, "x")
