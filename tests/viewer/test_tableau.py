"""What a viewer is told to show: shapes, places, colours, order."""

import mujoco
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from realdex_jax.data import store
from realdex_jax.data.object_files import Surface
from realdex_jax.data.schema import GraspSet
from realdex_jax.hand import joints, load
from sim import objects, visuals
from sim.stage import Stage
from viewer import captions, tableau
from viewer.tableau import Thing, ViewError

ROUNDING = 2e-6
"""Metres: link poses come as float32, and span half a metre."""


@pytest.fixture(scope="module")
def hand() -> load.HandModel:
    return load.load()


@pytest.fixture(scope="module")
def grasps() -> GraspSet:
    return store.open_dataset("realdex-sim").grasps("cosmetics")


@pytest.fixture(scope="module")
def thing() -> Thing:
    shape = objects.make("cosmetics")
    return tableau.make_thing("cosmetics", shape.vertices, shape.faces)


def placed(pose: np.ndarray, points: np.ndarray) -> np.ndarray:
    return Rotation.from_quat(pose[:4], scalar_first=True).apply(points) + pose[4:]


def test_the_solids_are_where_the_ray_caster_has_its_meshes(hand, grasps, thing) -> None:
    if visuals.find() is None:
        pytest.skip("the hand's visual meshes are not installed")
    phi = np.asarray(grasps.phi[3])
    moment = tableau.moment(hand, thing, phi)
    shown = np.concatenate(
        [placed(moment.wxyz_xyz_world_link[s.link], s.vertices) for s in tableau.hand_solids(hand)]
    )
    stage = Stage(hand, objects.make("cosmetics"))
    stage.place(phi)
    model, data, cast = stage.model, stage.data[0], []
    for geom in np.flatnonzero((model.geom_group == 0) & (model.geom_type == 7)):
        assert model.geom_type[geom] == mujoco.mjtGeom.mjGEOM_MESH
        mesh = model.geom_dataid[geom]
        first, count = model.mesh_vertadr[mesh], model.mesh_vertnum[mesh]
        local = model.mesh_vert[first : first + count]
        cast.append(local @ data.geom_xmat[geom].reshape(3, 3).T + data.geom_xpos[geom])
    cast = np.concatenate(cast)
    assert len(cast) == len(shown)
    for order in (shown, cast):
        order.sort(axis=0)  # each axis alone: the caster has them link by link in another order
    np.testing.assert_allclose(shown, cast, rtol=0, atol=1e-5)  # its meshes are float32, recentred


def test_a_hand_without_meshes_is_shown_by_its_primitives() -> None:
    other = load.load("dexgraspnet")
    solids = tableau.hand_solids(other)
    assert {s.link for s in solids} == set(other.geoms.link.tolist())
    g = int(np.flatnonzero(~other.geoms.is_box)[-1])
    link, size = int(other.geoms.link[g]), other.geoms.size[g]
    mine = [k for k in range(len(other.geoms.link)) if other.geoms.link[k] == link]
    assert mine == [g]
    (solid,) = [s for s in solids if s.link == link]
    local = (solid.vertices - other.geoms.p_link_geom[g]) @ other.geoms.R_link_geom[g]
    axis = np.clip(local[:, 2], -size[1], size[1])
    distance = np.linalg.norm(local - np.stack([0 * axis, 0 * axis, axis], axis=1), axis=1)
    np.testing.assert_allclose(distance, size[0], rtol=0, atol=1e-6)


def test_a_forearm_only_where_it_is_asked_for(hand) -> None:
    assert {s.name for s in tableau.hand_solids(hand, True)} - {
        s.name for s in tableau.hand_solids(hand)
    } == {"forearm"}


def test_the_contact_map_moves_with_the_object(hand, grasps, thing) -> None:
    """Seen from the world or from the object, the hand touches the same points."""
    phi = np.asarray(grasps.phi[0], np.float64)
    here = tableau.moment(hand, thing, phi)
    turn = Rotation.from_rotvec([0.3, -1.0, 0.7])
    there = np.concatenate([turn.as_quat(scalar_first=True), [0.2, -0.1, 0.5]])
    moved = phi.copy()
    moved[22:25] = turn.apply(phi[22:25]) + there[4:]
    moved[25:] = (turn * Rotation.from_rotvec(phi[25:])).as_rotvec()
    away = tableau.moment(hand, thing, moved, there)
    # 60 per metre, times the 0.01 mm that distances among far points may be off.
    np.testing.assert_allclose(away.contact, here.contact, rtol=0, atol=1e-3)
    for one, other in zip(away.wxyz_xyz_world_link, here.wxyz_xyz_world_link, strict=True):
        np.testing.assert_allclose(one[4:], placed(there, other[None, 4:])[0], atol=ROUNDING)
    assert here.contact.max() > 0.95  # it is a grasp
    assert here.contact.min() < 0.6
    far = phi.copy()
    far[24] += 1.0
    assert tableau.moment(hand, thing, far).contact.max() < 0.01


def test_postures(grasps) -> None:
    for posture, q in (("pre-grasp", grasps.q_pregrasp), ("squeeze", grasps.q_squeeze)):
        pose = tableau.pose_of(grasps, 2, posture)
        np.testing.assert_array_equal(pose[:22], np.asarray(q[2], np.float64))
        np.testing.assert_array_equal(pose[22:], np.asarray(grasps.phi[2, 22:], np.float64))
    np.testing.assert_array_equal(
        tableau.pose_of(grasps, 2, "grasp"), np.asarray(grasps.phi[2], np.float64)
    )
    assert grasps.phi.dtype == np.float32  # a copy: the set itself is as it was


def test_colours_run_from_blue_to_red() -> None:
    colours = tableau.contact_colours(np.linspace(0.0, 1.0, 101)).astype(int)
    assert colours[0, 2] > 3 * colours[0, 0]
    assert colours[-1, 0] > 5 * colours[-1, 2]
    assert (np.abs(np.diff(colours, axis=0)) < 12).all()  # no step
    assert len(np.unique(colours, axis=0)) == 101
    np.testing.assert_array_equal(
        tableau.contact_colours(np.array([-1.0, 2.0])), colours[[0, -1]].astype(np.uint8)
    )


def test_order_by_a_column() -> None:
    phi = np.zeros((4, 28), np.float32)
    phi[:, :22] = joints.REST
    values = {"held": np.array([0.0, 1.0, 1.0, 0.0]), "q1": np.array([0.2, np.nan, 0.1, 0.3])}
    grasps = GraspSet(phi, phi[:, :22], phi[:, :22], values)
    assert captions.sortings(grasps) == (captions.STORED, "held", "q1")
    assert captions.ranked(grasps).tolist() == [0, 1, 2, 3]
    assert captions.ranked(grasps, descending=True).tolist() == [3, 2, 1, 0]
    assert captions.ranked(grasps, "held", True).tolist() == [1, 2, 0, 3]  # ties as stored
    assert captions.ranked(grasps, "q1").tolist() == [2, 0, 3, 1]  # what is no number comes last
    assert captions.ranked(grasps, "q1", True).tolist() == [3, 0, 2, 1]
    assert captions.more_is_better("held")
    assert not captions.more_is_better("penetration_cm")
    assert not captions.more_is_better("unheard_of")
    with pytest.raises(ViewError, match=r"no column 'depth'; known: as stored, held, q1"):
        captions.ranked(grasps, "depth")
    assert "| held 1 s | 1.000 |" in captions.caption(grasps, 2)
    assert "| Q1 | nan |" in captions.caption(grasps, 1)
    assert "no columns" in captions.caption(GraspSet(phi, phi[:, :22], phi[:, :22]), 0)


def test_a_cloud_of_a_mesh_lies_on_it_and_is_always_the_same(thing) -> None:
    shape = objects.make("cosmetics")
    distance = shape.piece_distance(thing.points).min(axis=1)
    assert np.abs(distance).max() < 1e-5  # the union of the pieces is rounded
    assert shape.contains(thing.points - 1e-4 * thing.normals).mean() > 0.99
    assert not shape.contains(thing.points + 1e-4 * thing.normals).any()
    again = tableau.make_thing("cosmetics", shape.vertices, shape.faces)
    np.testing.assert_array_equal(again.points, thing.points)


def test_an_object_without_a_mesh_is_a_cloud() -> None:
    points = np.random.default_rng(0).normal(size=(50, 3))
    cloud = tableau.make_thing("cloud", None, None, Surface(points, np.zeros((50, 3))))
    assert cloud.faces.shape == (0, 3)
    assert tableau.lowest(cloud) == points[:, 2].min()
    with pytest.raises(ViewError, match="cloud: neither a mesh nor points"):
        tableau.make_thing("cloud", None, None)


def test_creased_meshes_are_the_same_solids(thing) -> None:
    vertices, faces = tableau.creased(thing.vertices, thing.faces)
    old, new = thing.vertices[thing.faces], vertices[faces]
    assert new.shape == old.shape

    def sheet(corners: np.ndarray) -> np.ndarray:
        return np.sort(corners.mean(axis=1).view("f8,f8,f8"), axis=0)

    assert (sheet(new) == sheet(old)).all()
    assert len(vertices) > len(thing.vertices)


def test_everything_is_inside_the_picture(hand, grasps, thing) -> None:
    angle = np.deg2rad(32.0)
    for index in range(0, len(grasps), 7):
        moment = tableau.moment(hand, thing, np.asarray(grasps.phi[index]))
        seen = tableau.viewpoint(thing, [moment], angle)
        axis = seen.p_world_target - seen.p_world
        axis /= np.linalg.norm(axis)
        assert axis[2] < 0.0  # from above
        points = np.concatenate([thing.vertices, moment.wxyz_xyz_world_link[:, 4:]])
        rays = points - seen.p_world
        cosine = rays @ axis / np.linalg.norm(rays, axis=1)
        assert np.arccos(cosine).max() < 0.5 * angle


def test_a_hand_straight_above_is_seen_from_the_side() -> None:
    thing = tableau.make_thing("dot", None, None, Surface(0.01 * np.eye(3), np.zeros((3, 3))))
    above = np.array([[1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.3]])
    moment = tableau.Moment(above, tableau.AT_ORIGIN, np.zeros(3))
    seen = tableau.viewpoint(thing, [moment], 0.5)
    assert np.isfinite(seen.p_world).all()
    assert np.linalg.norm(seen.p_world[:2]) > 2 * abs(seen.p_world[2] - seen.p_world_target[2])
