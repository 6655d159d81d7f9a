"""Convex pieces: text keeps every bit, and points lie on the outside only."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from realdex_jax.data import pieces
from realdex_jax.errors import MeshError

CUBE = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], float)


def two_boxes():
    """Two boxes side by side, that share the face x = 0, turned by an odd angle."""
    R = Rotation.from_rotvec([0.3, -0.2, 0.9]).as_matrix()
    return [pieces.hull((0.5 * CUBE + [0.5 * s, 0, 0]) @ R.T) for s in (-1, 1)], R


def test_text_keeps_every_bit(tmp_path):
    found, _ = two_boxes()
    before = pieces.shape("box", found, 0.0731, "box")
    path = tmp_path / "mesh.obj"
    path.write_bytes(pieces.text(found, 0.0731))
    after = pieces.read_shape(path, "box", "box")
    assert after is not None
    np.testing.assert_array_equal(after.vertices, before.vertices)
    np.testing.assert_array_equal(after.faces, before.faces)
    assert all((a == b).all() for a, b in zip(after.pieces, before.pieces, strict=True))
    assert (after.piece_labels, after.mass, after.category) == (
        before.piece_labels,
        before.mass,
        before.category,
    )


def test_points_lie_on_the_outside_only():
    found, R = two_boxes()
    shape = pieces.shape("box", found, 0.1, "box")
    points, normals = pieces.outer_surface(shape, 2000)
    assert len(points) == 2000
    p = points @ R / 0.1  # the union is the box from (-1, -0.5, -0.5) to (1, 0.5, 0.5)
    n = normals @ R
    depth = np.abs(p) / [1.0, 0.5, 0.5]
    assert depth.max(axis=1) == pytest.approx(1.0, abs=1e-9)
    face = depth.argmax(axis=1)
    rows = np.arange(len(p))
    assert n[rows, face] == pytest.approx(np.sign(p[rows, face]), abs=1e-9)
    # By area: the two ends have 2 of 10; four standard deviations of 2000 draws are 0.036.
    assert (face == 0).mean() == pytest.approx(0.2, abs=0.036)


def test_meshes_that_say_nothing_of_pieces_are_left_to_others(tmp_path):
    found, _ = two_boxes()
    path = tmp_path / "mesh.obj"
    path.write_bytes(pieces.text(found, 0.1).replace(b"convex_piece_001", b"handle"))
    assert pieces.read_shape(path, "x") is None
    path.write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    assert pieces.read_shape(path, "x") is None


def test_a_marked_piece_without_corners_is_named(tmp_path):
    path = tmp_path / "mesh.obj"
    path.write_text("o convex_piece_000\nv 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    with pytest.raises(MeshError, match=r"mesh\.obj: convex_piece_000 has 3 corners"):
        pieces.read_shape(path, "x")


def test_anything_with_points_can_be_looked_at():
    found, _ = two_boxes()
    text = pieces.text(found, 0.1)
    assert len(pieces.for_pictures("x", text, None).pieces) == 2
    plain = b"\n".join(line for line in text.splitlines() if not line.startswith(b"o "))
    shape = pieces.for_pictures("x", plain, None)
    assert len(shape.pieces) == 1
    assert len(shape.faces) == 24
    cloud = np.random.default_rng(0).normal(size=(500, 3)) * 0.02
    hull = pieces.for_pictures("x", None, cloud)
    assert hull.volume > 0
    with pytest.raises(MeshError, match="neither mesh nor points"):
        pieces.for_pictures("x", None, None)
    with pytest.raises(MeshError, match="encloses no volume"):
        pieces.for_pictures("x", None, np.zeros((20, 3)))
