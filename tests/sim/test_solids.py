"""Convex solids against their exact volumes."""

import numpy as np
import pytest
import trimesh

from sim import solids


def volume(pieces: list[solids.Piece]) -> float:
    vertices, faces = solids.union([piece.vertices for piece in pieces])
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    assert mesh.is_watertight
    return float(mesh.volume)


def polygon_area(radius: float, sides: int) -> float:
    return 0.5 * sides * radius**2 * np.sin(2 * np.pi / sides)


# The union grows every solid by 1e-4 of its size: 3e-4 of a volume, more for thin walls.
RELATIVE = 1e-3


@pytest.mark.parametrize(
    ("pieces", "exact"),
    [
        (solids.box("a", (0.1, 0.05, 0.02)), 1e-4),
        (solids.lathe("a", (0.03, 0), (0.03, 0.05), (0.03, 0.1)), polygon_area(0.03, 24) * 0.1),
        (
            solids.lathe("a", (0.04, 0), (0.02, 0.06)),
            polygon_area(1, 24) * 0.06 / 3 * (0.04**2 + 0.04 * 0.02 + 0.02**2),
        ),
        (
            solids.wall("a", (0.04, 0), (0.04, 0.1), thickness=0.005),
            (polygon_area(0.04, 24) - polygon_area(0.035, 24)) * 0.1,
        ),
        (solids.box("a", (0.1, 0.1, 0.1)) + solids.box("a", (0.1, 0.1, 0.1), (0.1, 0, 0)), 2e-3),
        (solids.box("a", (0.1, 0.1, 0.1)) + solids.box("a", (0.1, 0.1, 0.1), (0.05, 0, 0)), 1.5e-3),
    ],
)
def test_volumes(pieces: list[solids.Piece], exact: float) -> None:
    assert volume(pieces) == pytest.approx(exact, rel=RELATIVE)


def test_rods_and_balls_stay_inside_the_round_solid() -> None:
    ball = solids.ball("a", (0.03, 0.02, 0.01))[0].vertices
    np.testing.assert_array_less(np.sum((ball / [0.03, 0.02, 0.01]) ** 2, axis=1), 1 + 1e-12)
    rod = solids.rod("a", (0, 0, 0), (0.1, 0.02, 0.05), 0.01)[0].vertices
    axis = np.array([0.1, 0.02, 0.05])
    along = np.clip(rod @ axis / (axis @ axis), 0, 1)
    assert np.linalg.norm(rod - along[:, None] * axis, axis=1).max() <= 0.01 + 1e-12


def test_moved_is_a_rigid_motion() -> None:
    before = solids.box("a", (0.1, 0.05, 0.02))
    after = solids.moved(before, (0.3, 0.2, 0.1), (30, 40, 50))
    assert volume(after) == pytest.approx(volume(before), rel=1e-9)
    expected = trimesh.transformations.euler_matrix(*np.deg2rad([30, 40, 50]), "sxyz")[:3, :3]
    np.testing.assert_allclose(
        after[0].vertices, before[0].vertices @ expected.T + [0.3, 0.2, 0.1], atol=1e-15
    )
