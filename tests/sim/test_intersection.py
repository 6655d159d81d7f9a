"""Penetration depth and self-intersection volume against independent geometry."""

import itertools

import jax.numpy as jnp
import manifold3d
import numpy as np
import pytest
import trimesh

from realdex_jax.errors import PhysicsError
from realdex_jax.geometry.shape import ObjectShape
from realdex_jax.hand import collision, joints, kinematics
from realdex_jax.hand.load import load
from sim.intersection import penetration_depth, self_intersection_volume


@pytest.fixture(scope="module")
def block():
    mesh = trimesh.creation.box((0.04, 0.04, 0.04))
    return ObjectShape(
        name="block",
        vertices=np.asarray(mesh.vertices),
        faces=np.asarray(mesh.faces),
        pieces=(np.asarray(mesh.vertices),),
        piece_labels=("body",),
        mass=0.1,
        category="block",
    )


def random_postures(rng, count):
    return (joints.LOWER + rng.random((count, 22)) * (joints.UPPER - joints.LOWER)).astype(
        np.float32
    )


def hulls(hand, q):
    """Each primitive of the posed hand as a convex solid."""
    links = kinematics.forward(hand, jnp.asarray(q[None]))
    R, centre = (np.asarray(x[0], np.float64) for x in collision.geom_poses(hand, links))
    out = []
    for is_box, size, R_g, c in zip(hand.geoms.is_box, hand.geoms.size, R, centre, strict=True):
        if is_box:
            local = np.array(list(itertools.product((-1, 1), repeat=3))) * size
        else:
            ball = trimesh.creation.icosphere(3, float(size[0])).vertices
            half = np.array([0.0, 0.0, float(size[1])])
            local = np.concatenate([ball + half, ball - half])
        out.append(manifold3d.Manifold.hull_points(local @ R_g.T + c))
    return out


def test_volume_agrees_with_solid_intersections(rng):
    hand = load("shadow")
    q = random_postures(rng, 8)
    exact = []
    for posture in q:
        solids = hulls(hand, posture)
        links = [
            sum((solids[g] for g in mine[1:]), solids[mine[0]])
            if len(mine := np.flatnonzero(hand.geoms.link == link))
            else None
            for link in range(len(hand.parents))
        ]
        total = 0.0
        for a, b in itertools.combinations(range(len(links)), 2):
            first, second = links[a], links[b]
            if hand.hops[a, b] >= collision.MIN_HOPS and first and second:
                total += (first ^ second).volume()
        exact.append(total * 1e6)
    estimate = self_intersection_volume(hand, q, samples=2048)
    assert max(exact) > 1.0
    assert np.abs(estimate - exact).max() < 0.15 + 0.05 * max(exact)
    assert np.abs(self_intersection_volume(hand, q) - exact).mean() < 0.2


def test_open_hand_is_free_and_repeats_exactly(rng):
    hand = load("shadow")
    q = np.concatenate([np.zeros((1, 22), np.float32), random_postures(rng, 2)])
    first, second = self_intersection_volume(hand, q), self_intersection_volume(hand, q)
    assert first[0] == 0.0
    assert np.array_equal(first, second)


def test_depth_of_a_block_pressed_into_the_palm(block):
    phi = np.zeros((3, 28), np.float32)
    # The palm's face is 11.5 mm off its middle plane, the block's 20 mm: apart, touching, 3 mm in.
    phi[:, 22], phi[:, 24] = -0.004, -0.055
    phi[:, 23] = (0.0335, 0.0315, 0.0285)
    for method, tolerance in (("points", 3e-4), ("contacts", 1e-4)):
        depth = penetration_depth(load("shadow"), block, phi, method=method)
        assert depth == pytest.approx([0.0, 0.0, 0.003], abs=tolerance), method


def test_bad_poses_and_methods_are_refused(block):
    phi = np.zeros((1, 28), np.float32)
    with pytest.raises(PhysicsError, match="finite"):
        penetration_depth(load("shadow"), block, phi * np.nan)
    with pytest.raises(PhysicsError, match="finite"):
        self_intersection_volume(load("shadow"), np.full((1, 22), np.inf, np.float32))
