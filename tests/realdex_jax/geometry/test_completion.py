"""Completed clouds against the meshes that they were seen of, and against turned ones."""

import numpy as np
import pytest
import trimesh
from scipy.spatial import KDTree

from realdex_jax.errors import CloudError
from realdex_jax.geometry import completion
from realdex_jax.geometry.shape import ObjectShape
from sim import kinect, objects

SEEDS = (0, 1)
SURFACE = 16384
"""Points of the true surface: about 2 mm apart on these objects."""
ON_SURFACE = 0.002
"""Mean distance of completed points to the true surface, metres: half of it is noise and the
true surface's spacing."""


def thing(mesh: trimesh.Trimesh) -> ObjectShape:
    vertices, faces = np.asarray(mesh.vertices, float), np.asarray(mesh.faces, int)
    return ObjectShape("thing", vertices, faces, (vertices,), ("body",), 0.1, "test")


def made(name: str) -> ObjectShape:
    if name == "box":
        return thing(trimesh.creation.box([0.06, 0.10, 0.16]))
    if name == "cylinder":
        return thing(trimesh.creation.cylinder(0.035, 0.14, sections=64))
    return objects.make(name)


def seen(shape: ObjectShape, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    T_object_camera = kinect.draw_view(shape, rng)
    cloud = kinect.cloud_from_view(shape, T_object_camera, rng)
    return cloud, np.asarray(T_object_camera.translation(), np.float64)


def apart(points: np.ndarray, others: np.ndarray) -> float:
    """Mean distance of points to the nearest of others, metres."""
    return float(KDTree(others).query(points)[0].mean())


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", ["box", "cylinder", "mug"])
def test_hidden_sides_are_filled_in_where_they_are(name, seed):
    shape = made(name)
    cloud, p_view = seen(shape, seed)
    surface = shape.surface(SURFACE)
    whole = completion.complete(cloud, p_view)
    added = whole.points[~whole.seen]
    assert apart(whole.points, surface.points) < ON_SURFACE
    assert apart(surface.points, whole.points) < 0.5 * apart(surface.points, cloud)
    assert whole.seen.any()
    assert len(added)
    np.testing.assert_allclose(np.linalg.norm(whole.normals, axis=1), 1.0, atol=1e-9)
    near = KDTree(surface.points).query(whole.points)[1]
    assert (np.einsum("ni,ni->n", whole.normals, surface.normals[near]) > 0.0).mean() > 0.95


@pytest.mark.parametrize("name", ["box", "mug"])
def test_a_turned_scene_gives_a_turned_result(name):
    cloud, p_view = seen(made(name), 0)
    angle, shift = 0.7, np.array([0.3, -0.2, 0.1])
    R = trimesh.transformations.rotation_matrix(angle, [0, 0, 1])[:3, :3]
    whole = completion.complete(cloud, p_view)
    turned = completion.complete(cloud @ R.T + shift, R @ p_view + shift)
    points = whole.points @ R.T + shift
    # Cells and voxels lie along x, y and z, so that the points are others, up to half a cell away.
    assert apart(points, turned.points) < 0.002
    assert apart(turned.points, points) < 0.002
    assert whole.kind == turned.kind


def test_the_same_cloud_gives_the_same_result():
    cloud, p_view = seen(made("cylinder"), 0)
    one, two = (completion.complete(cloud, p_view) for _ in range(2))
    np.testing.assert_array_equal(one.points, two.points)
    np.testing.assert_array_equal(one.normals, two.normals)
    np.testing.assert_array_equal(one.seen, two.seen)
    assert one.kind == two.kind


@pytest.mark.parametrize("p_view", [[0.6, 0.2, 0.5], [0.0, 0.0, 1.0]], ids=["aside", "above"])
@pytest.mark.parametrize("shape", ["few", "level", "upright", "line", "repeated"])
def test_poor_clouds_give_a_result(rng, shape, p_view):
    flat = rng.uniform(-0.05, 0.05, (400, 2))
    cloud = {
        "few": rng.uniform(-0.05, 0.05, (16, 3)),
        "level": np.column_stack([flat, np.zeros(400)]),
        "upright": np.column_stack([np.zeros(400), flat]),
        "line": np.linspace([0.0, 0.0, -0.05], [0.0, 0.0, 0.05], 40),
        "repeated": np.repeat(rng.uniform(-0.05, 0.05, (16, 3)), 30, axis=0),
    }[shape]
    whole = completion.complete(cloud, p_view)
    assert len(whole.points) == len(whole.normals) == len(whole.seen) > 0
    assert whole.seen.any()
    assert np.isfinite(whole.points).all()
    assert np.isfinite(whole.normals).all()
    # What is filled in stays about where the object can be.
    assert np.abs(whole.points).max() < 0.2


@pytest.mark.parametrize(
    ("p_view", "message"),
    [
        ([0.5, 0.5], r"shape \(2,\); need \(3,\)"),
        (np.zeros((1, 3)), r"shape \(1, 3\)"),
        ([0.5, np.nan, 0.5], "not finite"),
        (["far", 0, 0], "cannot be read as numbers"),
        ([0.0, 0.0, 0.0], "in the midst of the points"),
    ],
    ids=["two", "row", "nan", "text", "inside"],
)
def test_bad_views_are_refused(p_view, message):
    cloud = made("box").surface(500).points
    with pytest.raises(CloudError, match=message):
        completion.complete(cloud, p_view)
