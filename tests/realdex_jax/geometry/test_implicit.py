"""Which clouds have an inside: closed ones however sampled, not bowls, sheets or single views."""

import numpy as np
import pytest
import trimesh

from realdex_jax.geometry import cloud, implicit
from sim import objects


def scattered(mesh: trimesh.Trimesh, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Independent uniform points, which leave wider gaps than even ones, and their normals."""
    points, face = trimesh.sample.sample_surface(mesh, count, seed=seed)
    return np.asarray(points), np.asarray(mesh.face_normals[face])


def bowl(count: int, seed: int, height: float) -> np.ndarray:
    """A sphere of 6 cm, filled to a height between -1 and 1 of its radius."""
    rng = np.random.default_rng(seed)
    z, angle = rng.uniform(-1.0, height, count), rng.uniform(0, 2 * np.pi, count)
    side = np.sqrt(1 - z**2)
    return 0.06 * np.stack([side * np.cos(angle), side * np.sin(angle), z], axis=-1)


CAN = trimesh.creation.cylinder(0.033, height=0.12, sections=64)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("count", [500, 2000, 4000])
@pytest.mark.parametrize("name", ["can", "bathroom_cleaner"])
def test_a_scattered_cloud_of_a_closed_object_has_an_inside(name, count, seed):
    mesh = CAN if name == "can" else objects.make(name).mesh
    points, normals = scattered(mesh, count, seed)
    surface = implicit.orient(points)
    assert surface.two_sided.mean() < 0.05
    assert ((surface.normals * normals).sum(-1) > 0).mean() > 0.95
    if name == "can":
        depth = implicit.distance(surface, np.zeros((1, 3)))
        np.testing.assert_allclose(depth, -0.033, atol=2e-3)


@pytest.mark.parametrize("seed", range(3))
def test_a_cloud_with_one_dense_end_has_an_inside(seed):
    points, _ = scattered(CAN, 12_000, seed)
    rng = np.random.default_rng(seed)
    weight = 1 + 7 * (points[:, 2] / 0.12 + 0.5)
    points = points[rng.choice(len(points), 2000, replace=False, p=weight / weight.sum())]
    assert implicit.orient(points).two_sided.mean() < 0.05


@pytest.mark.parametrize("count", [500, 2000, 4000])
@pytest.mark.parametrize("height", [0.3, 0.6])
def test_an_open_bowl_stays_hollow(count, height):
    points = bowl(count, 0, height)
    surface = implicit.orient(points)
    assert surface.two_sided.mean() > 0.99
    centre = implicit.distance(surface, np.zeros((1, 3)))
    np.testing.assert_allclose(centre, 0.06, atol=1e-3)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", ["cracker_box", "bathroom_cleaner"])
def test_a_single_view_is_not_closed_behind(name, seed):
    points, normals = scattered(objects.make(name).mesh, 2000, seed)
    seen = cloud.partial_view(points, np.random.default_rng(seed).normal(size=3))
    surface = implicit.orient(points[seen])
    alone = surface.two_sided.mean() > 0.5
    assert alone or ((surface.normals * normals[seen]).sum(-1) > 0).mean() > 0.9


@pytest.mark.parametrize("name", objects.SPLITS["test"])
def test_one_flood_is_enough_for_even_samples(name, monkeypatch):
    floods = []
    sides = implicit._sides
    monkeypatch.setattr(implicit, "_sides", lambda *a: floods.append(a) or sides(*a))
    implicit.orient(objects.make(name).surface(2048, 0).points)
    assert len(floods) == 1


@pytest.mark.parametrize("count", [500, 2000])
@pytest.mark.parametrize("name", ["wine_glass", "narrow bowl"])
def test_a_mouth_is_not_taken_for_a_gap(name, count):
    narrow = name == "narrow bowl"
    points = bowl(count, 1, 0.8) if narrow else scattered(objects.make(name).mesh, count, 1)[0]
    surface = implicit.orient(points)
    assert surface.two_sided.mean() > (0.99 if narrow else 0.4)
