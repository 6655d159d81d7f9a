"""Recordings in RealDex's layout: the project's reader finds everything where it truly is."""

import jax.numpy as jnp
import numpy as np
import pytest
from scenes import IDEAL, beside_a_mug
from scipy.spatial.transform import Rotation

from capture import realdex, recorder, virtual
from capture.device import CaptureError
from capture.recording import JointSeries, Recording, Stamps, Storage
from capture.streams import RecorderConfig
from capture.virtual import VirtualJoints
from realdex_jax import arm
from realdex_jax.data import realdex_raw, realdex_write, rigid
from realdex_jax.data.tf_series import hand_track
from realdex_jax.geometry import lens as optics
from realdex_jax.geometry import sdf
from realdex_jax.hand.load import load
from sim import clocks, film, objects, sequence
from sim.demonstrate import P_WORLD_BASE
from sim.film import Film
from sim.sequence import JOINTS

HAND = load("shadow")
BASE = np.array([1.0, 0, 0, 0, *P_WORLD_BASE])


@pytest.fixture(scope="module")
def made():
    """A rig of small pictures whose clocks are half a second apart."""
    cameras = film.around_table(5, 320, 160, timing=clocks.draw(4, 5))
    return Film(cameras, HAND, objects.make("mug"), beside_a_mug(), noise=IDEAL)


@pytest.fixture(scope="module")
def written(made, tmp_path_factory):
    """Four frames of it, one of them lost by camera 1, with the robot; in RealDex's layout."""
    folder = tmp_path_factory.mktemp("realdex")
    faults = {1: virtual.Faults(drops=frozenset({2}))}
    devices = virtual.devices(made.rig, virtual.rendered(made), pace="free", count=4, faults=faults)
    time_s, q = made.sequence.time_s, made.sequence.robot()
    joints = VirtualJoints(JOINTS, time_s, q, clocks.Clock(), devices[0].pulse, pace="free")
    config = RecorderConfig(storage=Storage(colour="png"), patient=True, floor_bytes=0)
    recorder.record(devices, folder / "recording", None, config, joints=joints)
    recorded = Recording(folder / "recording")
    exposed = np.array([made.rig.clocks.exposure_s(0, k) for k in range(4)])
    # The robot's states arrive at once, frames 20 ms after their exposure.
    robot_ns = recorded.joints().stamps.host_ns + 20_000_000
    count = realdex.to_realdex(
        recorded,
        folder / "mug_1",
        dict(enumerate(made.rig.wxyz_xyz_world_cam)),
        hand=HAND,
        robot_ns=robot_ns,
        wxyz_xyz_world_base=BASE,
        wxyz_xyz_world_object=made.sequence.object_at(exposed),
    )
    assert count == 15
    return realdex_raw.Recording(folder / "mug_1")


def test_stamps_are_of_one_clock_and_gaps_are_gaps(written):
    assert written.cameras == (0, 1, 2, 3)
    assert written.object_name == "mug"
    together = written.together()
    assert together.dropped == {0: 0, 1: 1, 2: 0, 3: 0}
    assert together.index[:, 1].tolist() == [0, 1, -1, 2]
    # Half a second between the clocks is gone: what is left is the jitter of few stamps.
    assert np.abs(together.offset[together.index >= 0]).max() < 1e-3


@pytest.mark.parametrize("camera", range(4))
def test_points_lie_on_mug_hand_and_table(written, made, camera):
    p, colour = written.points(camera, 0)
    p = rigid.apply(written.wxyz_xyz_world_cam(camera), p)
    place = written.object_track()[0][0]
    p_object = rigid.apply(rigid.inverse(place), p)
    on_mug = np.abs(sdf.exact_distance(made._stage.shape, p_object))
    near = np.linalg.norm(p - place[4:], axis=1) < 0.12
    made._stage.place(made.sequence.phi[0].astype(np.float32), place, np.array([0.05, 0.02, 0.0]))
    off = np.minimum(np.minimum(on_mug, np.abs(p[:, 2])), np.abs(made._stage.hand_distance(p)))
    assert near.sum() > 500
    # Two roundings to millimetres, and lines between readings that are 7 mm apart.
    assert np.median(off[near]) < 1e-3
    assert (off[near] < 6e-3).mean() > 0.97
    red, _, blue = colour.astype(int).T
    mine = near & (on_mug < 2e-3) & (p[:, 2] > 0.01)
    assert (red > blue + 40)[mine].mean() > 0.85


def test_the_robots_series_carry_the_hand(written, made):
    track = written.hand(HAND)
    exposed = np.array([made.rig.clocks.exposure_s(0, k) for k in range(4)])
    expected = made.sequence.hand_at(exposed)
    # 8 ms between states, and stamps that jitter by 50 us, of a hand at 0.1 m/s.
    np.testing.assert_allclose(track.phi[:, 22:25], expected[:, 22:25], atol=5e-5)
    np.testing.assert_allclose(track.phi[:, :22], expected[:, :22], atol=1e-5)
    turn = Rotation.from_rotvec(track.phi[:, 25:]).inv() * Rotation.from_rotvec(expected[:, 25:])
    assert turn.magnitude().max() < 1e-4
    placed, tracked = written.object_track()
    assert tracked.all()
    np.testing.assert_allclose(placed, made.sequence.object_at(exposed), atol=1e-12)


def test_a_bent_wrist_is_in_the_links(tmp_path):
    rng = np.random.default_rng(0)
    q = np.concatenate([[0.3, -1.2, 1.5, -0.4, 1.0, 0.2], [-0.2, 0.3], 0.3 * rng.random(22)])
    order = rng.permutation(len(JOINTS))
    stamps = Stamps(np.arange(2), np.arange(2) * 10**7, 10**9 + np.arange(2) * 10**7)
    series = JointSeries(
        tuple(JOINTS[i] for i in order), stamps, np.stack([q, q])[:, order], np.zeros((2, 30))
    )
    links = realdex.links_of(HAND, series, BASE)
    still = np.repeat(np.eye(7)[:1], 2, axis=0)
    scene = realdex_write.Scene(stamps.host_ns, links, still, still[0])
    realdex_write.write_scene(tmp_path, scene, (0,))
    track = hand_track(HAND, tmp_path / "TF", stamps.host_ns)
    np.testing.assert_allclose(track.q_wrist, np.stack([q[6:8]] * 2), atol=1e-6)
    np.testing.assert_allclose(track.phi[:, :22], np.stack([q[8:]] * 2), atol=1e-6)
    # By hand: the arm's palm of a straight wrist, back to the forearm, and on with the two turns.
    R, p = arm.palm_pose(jnp.asarray(q[None, :6], jnp.float32))
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = np.asarray(R[0]), np.asarray(p[0]) + P_WORLD_BASE
    wrist = np.eye(4)
    wrist[:3, 3] = [0, 0, 0.034]
    for axis, angle in (("y", q[6]), ("x", q[7])):
        turn = np.eye(4)
        turn[:3, :3] = Rotation.from_euler(axis, angle).as_matrix()
        wrist = turn @ wrist if axis == "y" else wrist @ turn
    straight = np.eye(4)
    straight[:3, 3] = [0, 0, 0.034]
    expected = T @ np.linalg.inv(straight) @ wrist
    np.testing.assert_allclose(track.phi[0, 22:25], expected[:3, 3], atol=1e-5)
    keep = [i for i, name in enumerate(series.names) if name != "rh_THJ1"]
    names = tuple(series.names[i] for i in keep)
    short = JointSeries(names, stamps, series.q[:, keep], series.qd[:, keep])
    with pytest.raises(CaptureError, match="the recorded joints lack rh_THJ1; there are"):
        realdex.links_of(HAND, short, BASE)


def test_depth_of_a_wall_is_registered_without_holes(made):
    pair = virtual.optics_of(made.rig.lenses[2])
    flat = pair.depth.undistort(optics.grid(pair.depth.width, pair.depth.height))
    # A wall 1 m before the colour lens, square to it, as the depth lens measures it.
    T = rigid.matrix(pair.wxyz_xyz_colour_depth)
    ray = np.concatenate([flat, np.ones((len(flat), 1))], axis=1) @ T[:3, :3].T
    depth = np.rint(1000 * (1.0 - T[2, 3]) / ray[:, 2]).astype(np.uint16)
    found = realdex.registered(depth.reshape(pair.depth.height, pair.depth.width), pair)
    assert found.shape == (pair.colour.height, pair.colour.width)
    middle = found[40:-40, 80:-80]
    assert (middle > 0).mean() > 0.999
    assert np.abs(middle[middle > 0].astype(int) - 1000).max() <= 1


def test_what_is_nearer_hides_what_is_behind(made):
    pair = virtual.optics_of(made.rig.lenses[0])
    depth = np.full((pair.depth.height, pair.depth.width), 1500, np.uint16)
    depth[60:85, 70:95] = 600
    found = realdex.registered(depth, pair)
    near = found[(found > 0) & (found < 1000)]
    # As many colour pixels as the lenses differ; at the rim a reading covers what is beside it.
    scale = pair.colour.fx / pair.depth.fx
    assert near.size == pytest.approx((25 * scale + 1) ** 2, rel=0.12)


def test_without_places_or_camera_0_it_is_refused(written, made, tmp_path):
    recorded = Recording(written.path.parent / "recording")
    places = dict(enumerate(made.rig.wxyz_xyz_world_cam))
    del places[3]
    with pytest.raises(CaptureError, match=r"without a place \[3\]; camera 0 must be there"):
        realdex.to_realdex(recorded, tmp_path / "mug_1", places)
    assert not (tmp_path / "mug_1").exists()


def test_a_recording_without_robot_and_object_is_still_one(written, made, tmp_path):
    recorded = Recording(written.path.parent / "recording")
    places = dict(enumerate(made.rig.wxyz_xyz_world_cam))
    realdex.to_realdex(recorded, tmp_path / "mug_2", places)
    found = realdex_raw.Recording(realdex_raw.recordings(tmp_path)[0])
    assert found.together().dropped[1] == 1
    assert len(found.points(3, 3)[0]) > 1000
    assert sequence.JOINTS[0].startswith("ra_")
