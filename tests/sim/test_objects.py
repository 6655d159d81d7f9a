"""The catalogue of parametric objects: laws of every object, and independent volumes."""

import time

import numpy as np
import pytest
import trimesh
from scipy.spatial import ConvexHull

from realdex_jax.data import schema, store
from realdex_jax.errors import UnknownObjectError
from realdex_jax.geometry.shape import MAX_PIECE_VERTICES, ObjectShape
from realdex_jax.hand.load import load
from sim import objects, solids
from sim.robustness import robustness

NAMES = objects.names()
AXIAL = [n for n in NAMES if objects._RECIPES[n].symmetry == "axial"]


def monte_carlo_volume(shape: ObjectShape, count: int = 40_000) -> tuple[float, float]:
    """Volume of the union of the pieces and its standard error, m^3."""
    low, high = shape.bounds
    points = np.random.default_rng(1).uniform(low, high, (count, 3))
    share = shape.contains(points).mean()
    box = float(np.prod(high - low))
    return box * share, box * np.sqrt(share * (1 - share) / count)


def test_the_split_is_a_partition_of_52_objects() -> None:
    parts = [set(part) for part in objects.SPLITS.values()]
    assert [len(objects.SPLITS[key]) for key in ("train", "val", "test")] == [40, 6, 6]
    assert set.union(*parts) == set(NAMES)
    assert sum(map(len, parts)) == len(NAMES) == 52


def test_the_category_scheme_holds_out_whole_categories_of_all_objects() -> None:
    parts = objects.SCHEMES["category"]
    assert sorted(name for names in parts.values() for name in names) == sorted(NAMES)
    kinds = {part: {objects.make(n).category for n in names} for part, names in parts.items()}
    assert not kinds["train"] & (kinds["val"] | kinds["test"])
    assert not kinds["val"] & kinds["test"]
    assert len(kinds["test"]) >= 2
    assert [len(parts[part]) for part in ("train", "val", "test")] == [40, 4, 8]


def test_names_of_sizes_are_written_one_way() -> None:
    assert objects.variant("mug", 0.8) == "mug@0.80"
    assert objects.variant("mug", 1.0) == "mug"
    for name in ("mug", "mug@0.80", "mug@12.50"):
        assert objects.variant(*objects.parse(name)) == name
    for name, message in (
        ("mug@0.8", "write 'mug@0.80'"),
        ("mug@1.00", "write 'mug'"),
        ("mug@8e-1", "write 'mug@0.80'"),
        ("mug@0.805", "at most two decimals"),
        ("mug@", "no size nan"),
        ("mug@-1.00", "a size is a positive factor"),
        ("mug@inf", "no size inf"),
        ("teapot@0.80", "no parametric object 'teapot@0.80'; known: air_duster"),
    ):
        with pytest.raises(UnknownObjectError, match=message):
            objects.make(name)


def test_an_object_in_another_size_is_made_by_its_name() -> None:
    cup, small = objects.make("tea_cup"), objects.make("tea_cup@0.80")
    assert small is objects.make("tea_cup@0.80")
    assert small.name == "tea_cup@0.80"
    np.testing.assert_allclose(small.bounds, 0.8 * cup.bounds)
    assert small.labels == cup.labels
    volume, error = monte_carlo_volume(small)  # of the pieces, the mesh being what was scaled
    assert abs(0.8**3 * cup.volume - volume) < 4 * error


def ball(radius: float) -> ObjectShape:
    (piece,) = solids.ball("ball", (radius, radius, radius))
    pieces = (solids.corners(piece.vertices),)
    vertices, faces = solids.union(pieces)
    return ObjectShape(f"ball of {radius}", vertices, faces, pieces, ("ball",), 0.1, "test")


def test_a_hand_cannot_tell_a_scaled_ball_from_one_made_in_that_size() -> None:
    # Grasps of a jar about as wide as the ball, so that some links meet it.
    grasps = schema.take(store.open_dataset("realdex-sim").grasps("cosmetics"), slice(0, 8))
    small = robustness(load(), ball(0.024), grasps)
    scaled = robustness(load(), ball(0.024).scaled(1.25, "scaled"), grasps)
    made = robustness(load(), ball(0.03), grasps)
    assert made.success.mean() > 0.5
    np.testing.assert_array_equal(scaled.reason, made.reason)
    np.testing.assert_array_equal(scaled.contacts, made.contacts)
    # The corners agree to rounding, which contacts amplify over hundreds of steps.
    np.testing.assert_allclose(scaled.q_settled, made.q_settled, atol=1e-4)
    assert small.success.mean() < made.success.mean()


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(
        UnknownObjectError, match="no parametric object 'teapot'; known: air_duster"
    ):
        objects.make("teapot")


def test_building_everything_takes_seconds_and_is_deterministic() -> None:
    start = time.perf_counter()
    again = [objects.make.__wrapped__(name) for name in NAMES]
    assert time.perf_counter() - start < 15.0
    for shape in again:
        assert objects.make(shape.name) is objects.make(shape.name)
        np.testing.assert_array_equal(shape.vertices, objects.make(shape.name).vertices)
        np.testing.assert_array_equal(shape.faces, objects.make(shape.name).faces)


@pytest.mark.parametrize("name", NAMES)
def test_every_object_is_one_closed_solid_of_sane_size(name: str) -> None:
    shape = objects.make(name)
    assert shape.mesh.is_watertight
    assert shape.mesh.is_winding_consistent
    assert shape.mesh.body_count == 1
    assert 0.02 <= shape.mass <= 1.0
    assert 60 <= shape.mass / shape.volume <= 4000
    sides = np.sort(np.ptp(shape.bounds, axis=0))
    assert sides[0] >= 0.025
    assert sides[2] <= 0.35
    np.testing.assert_allclose(shape.bounds.sum(axis=0), 0.0, atol=1e-4)
    # A Shadow hand closes about 9 cm; a bill or a tail may stick out a little.
    assert sides[0] <= 0.1


@pytest.mark.parametrize("name", NAMES)
def test_the_mesh_is_the_union_of_convex_pieces(name: str) -> None:
    shape = objects.make(name)
    assert len(shape.pieces) == len(shape.piece_labels)
    for piece in shape.pieces:
        assert len(piece) <= MAX_PIECE_VERTICES
        hull = trimesh.convex.convex_hull(piece)
        assert hull.volume > 1e-9
        assert len(hull.vertices) == len(piece), "every stored vertex is a corner of the hull"
    volume, error = monte_carlo_volume(shape)
    assert abs(shape.volume - volume) < 4 * error


@pytest.mark.parametrize("name", NAMES)
def test_the_object_stands_in_its_resting_pose(name: str) -> None:
    shape = objects.make(name)
    bottom = shape.bounds[0, 2]
    touching = shape.vertices[shape.vertices[:, 2] < bottom + 1.5e-3, :2]
    edges = ConvexHull(touching).equations
    beyond = (edges[:, :2] @ shape.center_of_mass[:2] + edges[:, 2]).max()
    assert beyond < 0.0, "the centre of mass is above the feet"


@pytest.mark.parametrize("name", AXIAL)
def test_axial_objects_are_revolved_about_z(name: str) -> None:
    shape = objects.make(name)
    points = shape.surface(2000).points
    for angle in (0.4, 1.3, 2.9):
        c, s = np.cos(angle), np.sin(angle)
        turned = points @ np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]]).T
        moved = np.abs(shape.piece_distance(turned)).min(axis=1)
        # A polygon of 16 sides departs from its circle by 2 % of the radius.
        assert np.quantile(moved, 0.98) < 0.02 * np.ptp(shape.bounds, axis=0)[0]


@pytest.mark.parametrize(
    "name", [n for n in NAMES if n not in AXIAL and objects._RECIPES[n].category != "box"]
)
def test_other_objects_are_not_revolved(name: str) -> None:
    shape = objects.make(name)
    points = shape.surface(2000).points
    turned = points @ np.array([[0, -1.0, 0], [1, 0, 0], [0, 0, 1]]).T
    half = points * [-1.0, 1.0, 1.0]
    depth = [np.abs(shape.piece_distance(p)).min(axis=1).max() for p in (turned, half)]
    assert max(depth) > 2e-3


def test_handled_thin_and_large_objects_are_among_them() -> None:
    shapes = [objects.make(name) for name in NAMES]
    assert sum("handle" in shape.labels for shape in shapes) >= 6
    assert sum("trigger" in shape.labels for shape in shapes) >= 4
    assert sum(np.sort(np.ptp(s.bounds, axis=0))[1] < 0.045 for s in shapes) >= 2
    assert sum(s.mass >= 0.5 for s in shapes) >= 6
    assert len({shape.category for shape in shapes}) >= 6
