"""Symmetries of objects: found where there are some, and distances that know of them."""

import numpy as np
import pytest
import trimesh
from object_views import pose
from scipy.spatial.transform import Rotation

from capture import symmetry
from realdex_jax.data import rigid
from sim import objects


def of(solid: trimesh.Trimesh) -> symmetry.Symmetry:
    return symmetry.find(np.asarray(solid.vertices), np.asarray(solid.faces))


@pytest.mark.parametrize(
    ("solid", "turns", "axes"),
    [
        (trimesh.creation.box((0.04, 0.07, 0.1)), 4, 0),
        (trimesh.creation.box((0.06, 0.06, 0.1)), 8, 0),
        (trimesh.creation.box((0.06, 0.06, 0.06)), 24, 0),
        (trimesh.creation.cylinder(0.03, 0.12, sections=48), 8, 1),
        (trimesh.creation.cone(0.03, 0.12, sections=48), 4, 1),
        (trimesh.creation.icosphere(3, 0.05), 24, 3),
    ],
    ids=["box", "square box", "cube", "cylinder", "cone", "ball"],
)
def test_solids_have_the_symmetries_they_are_known_for(solid, turns, axes) -> None:
    found = of(solid)
    assert (len(found.turns), len(found.axes)) == (turns, axes)
    np.testing.assert_allclose(found.turns[0], np.eye(3), atol=1e-12)
    # They are a group: products of turns are turns.
    products = np.einsum("aij,bjk->abik", found.turns, found.turns).reshape(-1, 1, 3, 3)
    assert (np.abs(products - found.turns).max(axis=(2, 3)).min(axis=1) < 1e-9).all()


def test_an_axis_is_found_wherever_it_points() -> None:
    T = rigid.matrix(pose([0.7, -0.4, 0.2], [0.03, 0.01, -0.02]))
    axis = of(trimesh.creation.cone(0.03, 0.12, sections=48).apply_transform(T)).axes
    assert len(axis) == 1
    assert abs(float(axis[0] @ T[:3, 2])) > np.cos(np.deg2rad(1.0))


def test_objects_of_the_catalogue_have_theirs() -> None:
    for name, axes in (("cosmetics", 1), ("penguin_toy", 0)):
        shape = objects.make(name)
        assert len(symmetry.find(shape.vertices, shape.faces).axes) == axes


def test_a_turn_that_is_a_symmetry_is_no_distance() -> None:
    rng = np.random.default_rng(0)
    box = of(trimesh.creation.box((0.04, 0.07, 0.1)).apply_translation([0.02, 0.0, 0.01]))
    can = of(trimesh.creation.cone(0.03, 0.12, sections=48))
    for found, turns in ((box, box.turns), (can, [_spin(x) for x in rng.uniform(-3, 3, 4)])):
        for R in turns:
            T = pose(rng.normal(size=3), rng.normal(size=3))
            about = pose(Rotation.from_matrix(R).as_rotvec(), np.zeros(3))
            about[4:] = found.p_object_middle - R @ found.p_object_middle
            way, turn = symmetry.apart(found, T[None], rigid.compose(T, about)[None])
            assert way[0] < 1e-12
            assert turn[0] < 1e-6


def test_without_symmetry_it_is_the_angle_that_scipy_gives_in_any_world_and_order() -> None:
    rng = np.random.default_rng(1)
    none = symmetry.Symmetry(np.array([0.1, 0.0, -0.2]), np.eye(3)[None], np.zeros((0, 3)))
    a, b = (
        np.stack([pose(rng.normal(size=3), rng.normal(size=3)) for _ in range(5)]) for _ in "ab"
    )
    way, turn = symmetry.apart(none, a, b)
    R_a, R_b = (Rotation.from_quat(x[:, :4], scalar_first=True) for x in (a, b))
    np.testing.assert_allclose(turn, (R_a.inv() * R_b).magnitude(), atol=1e-9)
    moved = [rigid.apply(x, none.p_object_middle[None])[0] for x in (*a, *b)]
    np.testing.assert_allclose(way, np.linalg.norm(np.subtract(moved[:5], moved[5:]), axis=1))
    world = pose([0.3, 1.0, -0.2], [1.0, 2.0, 3.0])
    for other in (
        symmetry.apart(none, rigid.compose(world, a), rigid.compose(world, b)),
        symmetry.apart(none, b, a),
    ):
        np.testing.assert_allclose(other, (way, turn), atol=1e-9)


def _spin(angle: float) -> np.ndarray:
    return Rotation.from_rotvec([0.0, 0.0, angle]).as_matrix()
