"""Depth pictures against spheres, boxes and trimesh; noise against its constants."""

import jaxlie
import numpy as np
import pytest
import trimesh
from scipy.spatial import KDTree

from realdex_jax.geometry import view
from realdex_jax.geometry.shape import ObjectShape
from realdex_jax.geometry.view import DepthNoise
from sim import kinect, objects
from sim.kinect import CameraError, DepthCamera

CAMERA = DepthCamera()
IDEAL = DepthNoise(
    axial=0.0, axial_growth=0.0, lateral=0.0, slant=(1.6, 1.7), edge_lost=0.0, edge_flying=0.0
)


def thing(mesh: trimesh.Trimesh) -> ObjectShape:
    vertices, faces = np.asarray(mesh.vertices, float), np.asarray(mesh.faces, int)
    return ObjectShape("thing", vertices, faces, (vertices,), ("body",), 0.1, "test")


def plate(angle: float) -> ObjectShape:
    """A square of 24 cm whose upper side looks up, turned by an angle about y."""
    turn = trimesh.transformations.rotation_matrix(angle, [0, 1, 0])
    box = trimesh.creation.box([0.24, 0.24, 0.002])
    box.apply_translation([0, 0, -0.001])
    return thing(box.apply_transform(turn))


def from_above(height: float) -> jaxlie.SE3:
    return kinect.look_at(np.array([0.0, 0.0, height]), np.zeros(3))


def matrix(T: jaxlie.SE3) -> np.ndarray:
    return np.asarray(T.as_matrix(), float)


def test_a_camera_looks_at_its_target_with_the_object_upright():
    p_camera, p_target = np.array([0.6, -0.3, 0.5]), np.array([0.02, 0.01, 0.05])
    T_object_camera = kinect.look_at(p_camera, p_target)
    away = np.linalg.norm(p_target - p_camera)
    p = np.asarray(T_object_camera.inverse().apply(p_target.astype(np.float32)))
    np.testing.assert_allclose(p, [0, 0, away], atol=1e-6)
    right, down = matrix(T_object_camera)[:3, :2].T
    assert abs(right[2]) < 1e-6
    assert down[2] < -0.5
    assert np.linalg.det(matrix(T_object_camera)[:3, :3]) == pytest.approx(1.0, abs=1e-6)
    np.testing.assert_allclose(CAMERA.project(np.array([[0, 0, away]])), [[319.5, 331.5]])
    above = matrix(from_above(1.0))
    np.testing.assert_allclose(above[:3, 2], [0, 0, -1], atol=1e-6)
    with pytest.raises(CameraError, match="finite and apart"):
        kinect.look_at(p_camera, p_camera)


def test_rays_and_projection_are_inverse(rng):
    pixels = rng.uniform(0, [CAMERA.width, CAMERA.height], (50, 2))
    rays = CAMERA.rays(pixels)
    np.testing.assert_allclose(CAMERA.project(rays * 1.7), pixels, atol=1e-9)
    opening = np.rad2deg(np.arccos(CAMERA.rays(np.array([[0, 331.5], [639, 331.5]])) @ [0, 0, 1]))
    assert opening.sum() == pytest.approx(64.7, abs=0.1)


def test_a_sphere_is_where_and_as_slanted_as_it_must_be():
    radius, away = 0.06, 0.7
    shape = thing(trimesh.creation.icosphere(5, radius))
    image = kinect.depth_image(shape, from_above(away))
    columns, rows = np.meshgrid(np.arange(640), np.arange(576))
    rays = CAMERA.rays(np.stack([columns, rows], -1).reshape(-1, 2).astype(float))
    half = away * rays[:, 2]
    root = half**2 - away**2 + radius**2
    hit = (root > 0).reshape(576, 640)
    assert (hit != (image.depth > 0)).sum() < 0.005 * hit.sum()
    distance = half - np.sqrt(np.maximum(root, 0))
    depth = (distance * rays[:, 2]).reshape(576, 640)
    normal = (distance[:, None] * rays - [0, 0, away]) / radius
    slant = np.arccos(np.clip(-(normal * rays).sum(1), 0, 1)).reshape(576, 640)
    inner = hit & (image.depth > 0) & (slant < 1.2)
    # Faces lie up to 0.02 mm inside the sphere, more along a slanted ray, and are 2 degrees wide.
    np.testing.assert_allclose(image.depth[inner], depth[inner], atol=1e-4)
    np.testing.assert_allclose(image.incidence[inner], slant[inner], atol=0.03)


def area(image: kinect.DepthImage) -> float:
    """The surface that the pixels of a picture show, m^2."""
    rows, columns = np.nonzero(image.depth)
    rays = CAMERA.rays(np.stack([columns, rows], -1).astype(float))
    distance = image.depth[rows, columns] / rays[:, 2]
    solid_angle = rays[:, 2] ** 3 / (CAMERA.fx * CAMERA.fy)
    return float((distance**2 * solid_angle / np.cos(image.incidence[rows, columns])).sum())


def test_pictures_show_the_area_that_can_be_seen():
    ball = thing(trimesh.creation.icosphere(5, 0.06))
    box = objects.make("cracker_box")
    p_view = np.array([0.5, 0.35, 0.4])
    toward = np.einsum("fi,fi->f", box.mesh.face_normals, p_view - box.mesh.triangles_center)
    seen = box.mesh.area_faces[toward > 0].sum()
    image = kinect.depth_image(box, kinect.look_at(p_view, np.zeros(3)))
    assert area(image) == pytest.approx(seen, rel=0.01)
    # Of the sphere's rim, where pixels are too coarse, a little is missing or too much.
    cap = 2 * np.pi * 0.06**2 * (1 - 0.06 / 0.7)
    assert area(kinect.depth_image(ball, from_above(0.7))) == pytest.approx(cap, rel=0.05)


@pytest.mark.parametrize("name", ["mug", "duck_toy"])
def test_pixels_agree_with_trimesh(name, rng):
    shape = objects.make(name)
    T_object_camera = kinect.draw_view(shape, rng)
    image = kinect.depth_image(shape, T_object_camera)
    hits = np.argwhere(image.depth > 0)
    row, column = np.concatenate([rng.choice(hits, 60), hits[:1] + rng.integers(0, 60, (60, 2))]).T
    v_camera = CAMERA.rays(np.stack([column, row], axis=1).astype(float))
    T = matrix(T_object_camera)
    ray = v_camera @ T[:3, :3].T
    lines = np.stack([np.broadcast_to(T[:3, 3], ray.shape), T[:3, 3] + ray])
    near, cosine = np.full(len(ray), np.inf), np.zeros(len(ray))
    for face in np.flatnonzero(shape.mesh.area_faces > 1e-12):
        triangle, normal = shape.mesh.triangles[face], shape.mesh.face_normals[face]
        met, valid = trimesh.intersections.plane_lines(triangle[0], normal, lines)
        corner = np.broadcast_to(triangle, (len(met), 3, 3))
        inside = (trimesh.triangles.points_to_barycentric(corner, met) >= 0).all(axis=1)
        line = np.flatnonzero(valid)[inside]
        distance = np.einsum("ri,ri->r", met[inside] - T[:3, 3], ray[line])
        first = (distance > 0) & (distance < near[line])
        near[line[first]] = distance[first]
        cosine[line[first]] = np.abs(ray[line[first]] @ normal)
    expected = np.where(np.isfinite(near), near, 0.0) * v_camera[:, 2]
    assert 60 <= (expected > 0).sum() < 120
    # MuJoCo keeps meshes in single precision.
    np.testing.assert_allclose(image.depth[row, column], expected, atol=1e-6)
    hit = expected > 0
    np.testing.assert_allclose(np.cos(image.incidence[row, column])[hit], cosine[hit], atol=1e-4)


@pytest.mark.parametrize("angle", [0.0, 1.0])
def test_noise_has_the_spread_of_the_constants(angle, rng):
    away, noise = 0.8, DepthNoise()
    cloud = kinect.cloud_from_view(plate(angle), from_above(away), rng)
    middle = cloud[np.abs(cloud[:, :2]).max(axis=1) < 0.04 * np.cos(angle)]
    ray = middle - [0, 0, away]
    distance = np.linalg.norm(ray, axis=1)
    ray /= distance[:, None]
    normal = np.array([np.sin(angle), 0, np.cos(angle)])
    exact = -away * normal[2] / (ray @ normal)
    slope = np.tan(np.arccos(-ray @ normal))
    expected = np.hypot(noise.spread(exact), exact * noise.lateral * slope)
    error = (distance - exact) / expected
    assert len(error) > 500
    # Removing outliers trims the tails.
    assert error.std() == pytest.approx(1.0, abs=0.03 + 3 / (2 * len(error)) ** 0.5)
    assert abs(error.mean()) < 4 / len(error) ** 0.5


def test_readings_get_lost_at_a_slant():
    noise = DepthNoise()
    counts = []
    for lost in (True, False):
        angle = sum(noise.slant) / 2
        camera = DepthNoise(slant=noise.slant if lost else (1.6, 1.7))
        rng = np.random.default_rng(3)
        counts.append(len(kinect.cloud_from_view(plate(angle), from_above(0.8), rng, noise=camera)))
    assert counts[0] / counts[1] == pytest.approx(0.5, abs=0.05)


def test_edges_fly_and_most_of_them_are_removed(monkeypatch):
    shape, T_object_camera = thing(trimesh.creation.icosphere(5, 0.06)), from_above(0.7)
    noise = DepthNoise()

    def off() -> int:
        cloud = kinect.cloud_from_view(shape, T_object_camera, np.random.default_rng(0))
        return int((np.linalg.norm(cloud, axis=1) > 0.07).sum())

    left = off()
    monkeypatch.setattr(kinect, "without_outliers", lambda points: points)
    flying = off()
    seen = kinect.depth_image(shape, T_object_camera).depth > 0
    inner = seen.copy()
    for axis in (0, 1):
        for shift in (-1, 1):
            inner &= np.roll(seen, shift, axis)
    rim = (seen & ~inner).sum()
    # From the rim, 36 of at most 100 mm of flight lead less than 1 cm away from the sphere.
    assert flying / (noise.edge_flying * rim) == pytest.approx(0.64, abs=0.25)
    assert left < 0.3 * flying


def test_the_same_seed_gives_the_same_cloud():
    shape = objects.make("mug")
    T_object_camera = kinect.draw_view(shape, np.random.default_rng(0))
    a, b, c = (
        kinect.cloud_from_view(shape, T_object_camera, np.random.default_rng(seed))
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(a, b)
    assert a.shape != c.shape or not np.array_equal(a, c)


def test_drawn_views_have_all_of_the_object_in_range(rng):
    for name in ("frying_pan", "cosmetics", "big_detergent"):
        shape = objects.make(name)
        for _ in range(5):
            T_object_camera = kinect.draw_view(shape, rng)
            T = matrix(T_object_camera)
            middle = shape.bounds.mean(axis=0)
            away = T[:3, 3] - middle
            elevation = np.arcsin(away[2] / np.linalg.norm(away))
            assert np.deg2rad(20) - 1e-6 <= elevation <= np.deg2rad(60) + 1e-6
            nearest = np.linalg.norm(shape.vertices - T[:3, 3], axis=1).min()
            assert nearest >= 0.5 - 1e-6
            p_camera = (shape.vertices - T[:3, 3]) @ T[:3, :3]
            pixels = CAMERA.project(p_camera)
            assert (pixels >= 0).all()
            assert (pixels <= [639, 575]).all()


@pytest.mark.parametrize("name", ["mug", "garden_sprayer"])
def test_points_to_learn_from_are_those_that_the_camera_sees(name, rng):
    """The fast test of `geometry.view` and rays agree on which part of an object is seen."""
    shape = objects.make(name)
    T_object_camera = kinect.draw_view(shape, rng)
    p_view = matrix(T_object_camera)[:3, 3]
    surface = shape.surface(4096)
    seen = view.seen_from(surface.points, surface.normals, p_view)
    cloud = kinect.cloud_from_view(shape, T_object_camera, rng, noise=IDEAL)
    assert np.quantile(KDTree(surface.points[seen]).query(cloud)[0], 0.97) < 0.006
    # Pixels are far apart, as seen on the surface, where it is looked at along it.
    ray = (surface.points - p_view) / np.linalg.norm(surface.points - p_view, axis=1)[:, None]
    seen &= np.einsum("ni,ni->n", ray, surface.normals) < -0.35
    # A few points shine through the walls of a mug, where the nearest ones leave a gap.
    assert np.quantile(KDTree(cloud).query(surface.points[seen])[0], 0.95) < 0.006


def test_what_is_out_of_sight_or_range_is_not_measured(rng):
    shape = objects.make("cosmetics")
    away = kinect.look_at(np.array([0.0, 0.0, 0.7]), np.array([0.0, 0.0, 2.0]))
    assert not kinect.depth_image(shape, away).depth.any()
    assert kinect.cloud_from_view(shape, away, rng).shape == (0, 3)
    aside = kinect.look_at(np.array([0.7, 0.0, 0.0]), np.array([0.0, 2.0, 0.0]))
    assert kinect.cloud_from_view(shape, aside, rng).shape == (0, 3)
    assert not kinect.depth_image(shape, from_above(0.4)).depth.any()
    assert kinect.cloud_from_view(shape, from_above(0.4), rng).shape == (0, 3)
    near = DepthCamera(near=0.2)
    assert kinect.depth_image(shape, from_above(0.4), near).depth.any()
