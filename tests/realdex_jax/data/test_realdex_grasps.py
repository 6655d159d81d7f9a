"""Which frames of a capture are grasps and reaches: objects put down, hands that come back."""

import dataclasses

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from realdex_jax.data import realdex, realdex_export, realdex_files, realdex_grasps, realdex_layout
from realdex_jax.data.motion import RATE, Motion

TOUCH, LIFT, DOWN, FREE, HOME = 20, 24, 47, 58, 78
"""Rows of `twice`: the first contact, the first lift, object down again, hand off, hand away. From
`HOME` on the hand comes back, touches in the same number of rows and lifts."""
LISTED = np.r_[TOUCH:FREE, HOME + TOUCH : HOME + 36]


@pytest.fixture(scope="module")
def twice(capture):
    """Lifts, carries aside, puts down, opens slowly, retreats; takes another grasp and lifts."""
    first = capture(0)
    phi, world = np.asarray(first.phi), np.asarray(first.wxyz_xyz_world_object)
    aside = np.array([0.05, -0.05, 0.0])
    down_phi, down_world = phi[34:22:-1].copy(), world[34:22:-1].copy()
    share = np.linspace(0, 1, len(down_phi))[:, None]
    down_phi[:, 22:25] += share * aside
    down_world[:, 4:] += share * aside
    held, rest = down_phi[-1], down_world[-1]
    share = np.linspace(0, 1, FREE - DOWN - 1)[:, None]
    letting_go = np.repeat(held[None], len(share), axis=0)
    letting_go[:, :22] += share * (phi[0, :22] - held[:22])
    letting_go[:, 22:25] += share * [-0.01, 0.0, 0.01]
    share = np.linspace(0, 1, HOME - FREE + 1)[1:, None]
    home = np.concatenate([phi[0, :22], phi[0, 22:25] + aside, phi[0, 25:]])
    retreat = letting_go[-1] + share * (home - letting_go[-1])
    retreat[:, 25:] = held[25:]
    again = phi.copy()
    again[:, :22] += 0.7 * (phi[0, :22] - phi[:, :22])  # less closed
    again[:, 22:25] += aside
    lifted = world.copy()
    lifted[:, 4:] += aside
    still = np.repeat(rest[None], len(letting_go) + len(retreat), axis=0)
    phi = np.concatenate([phi, down_phi, letting_go, retreat, again])
    return Motion(
        time=np.arange(len(phi)) / RATE,
        phi=phi,
        wxyz_xyz_world_object=np.concatenate([world, down_world, still, lifted]),
    )


def posed(tmp_path, put, motion, contact=None, segments=None):
    """What the reader makes of it, without `segment.txt` if no segments are given."""
    files = realdex_export.recording_files([motion], None if contact is None else [contact])
    del files["segment.txt"]
    if segments is not None:
        files["segment.txt"] = "".join(f"{a} {b}\n" for a, b in segments).encode()
    folder = put(tmp_path, {f"r/{name}": content for name, content in files.items()})
    frames = realdex_files.read_recording(realdex_layout.files(folder), "r")
    assert not frames.notes
    return realdex_grasps.pose(frames)


def check(found, motion, rows):
    """Grasps are those of these rows, orientations included."""
    phi, world = (np.asarray(x)[rows] for x in (motion.phi, motion.wxyz_xyz_world_object))
    R = Rotation.from_quat(world[:, :4], scalar_first=True).inv()
    np.testing.assert_allclose(found.phi[:, :22], phi[:, :22], atol=1e-6)
    np.testing.assert_allclose(
        found.phi[:, 22:25], R.apply(phi[:, 22:25] - world[:, 4:]), atol=1e-6
    )
    off = R * Rotation.from_rotvec(phi[:, 25:]) * Rotation.from_rotvec(found.phi[:, 25:]).inv()
    assert off.magnitude().max() < 1e-6


@pytest.mark.parametrize("known", ["list", "distance", "nothing"])
def test_a_second_grasp_of_a_recording_has_its_own_reach_and_open_hand(
    tmp_path, put, twice, ball, known
):
    made = posed(tmp_path, put, twice, LISTED if known == "list" else None)
    touching = realdex_grasps.contact(made, ball if known == "distance" else None)
    first, second = realdex_grasps.segments(made)
    assert first[0] == 0
    assert DOWN <= first[1] < FREE
    assert HOME - 2 <= second[0] <= HOME  # not while it retreats
    assert second[1] == len(twice)
    for (start, end), lift, begin in ((first, LIFT, 0), (second, HOME + LIFT, second[0])):
        found = realdex_grasps.grasps(made, (start, end), touching)
        # The hand keeps its grasp until the object is down; how it lets go is no grasp.
        check(found, twice, [lift])
        touch = lift
        if touching is not None:
            touch = begin + int(np.argmax(touching[begin:]))
            assert begin + 8 < touch <= begin + 24
        np.testing.assert_allclose(
            found.q_pregrasp[0], np.asarray(twice.phi)[touch - 8, :22], atol=1e-6
        )
        motion = realdex_grasps.reach(made, (start, end), touching)
        np.testing.assert_allclose(
            motion.phi[:, 22:25], np.asarray(twice.phi)[begin:lift, 22:25], atol=1e-6
        )


@pytest.mark.parametrize("segments", [[(0, 48), (48, 114)], [(0, 52), (52, 114)]])
def test_a_listed_segment_may_begin_with_the_hand_still_closed(tmp_path, put, twice, segments):
    made = posed(tmp_path, put, twice, LISTED, segments)
    touching = realdex_grasps.contact(made, None)
    assert realdex_grasps.segments(made) == tuple(segments)
    check(realdex_grasps.grasps(made, segments[0], touching), twice, [LIFT])
    found = realdex_grasps.grasps(made, segments[1], touching)
    check(found, twice, [HOME + LIFT])
    opened = np.asarray(twice.phi)[HOME + TOUCH - 8, :22]
    np.testing.assert_allclose(found.q_pregrasp[0], opened, atol=1e-6)
    motion = realdex_grasps.reach(made, segments[1], touching)
    assert 24 <= len(motion) <= 26
    np.testing.assert_allclose(
        motion.phi[-24:, 22:25], np.asarray(twice.phi)[HOME : HOME + 24, 22:25], atol=1e-6
    )


def test_contact_that_flickers_is_one(tmp_path, put, twice):
    contact = np.setdiff1d(LISTED, [HOME + 21, HOME + 22])
    made = posed(tmp_path, put, twice, contact, [(58, 114)])
    found = realdex_grasps.grasps(made, (58, 114), made.frames.contact)
    opened = np.asarray(twice.phi)[HOME + TOUCH - 8, :22]
    np.testing.assert_allclose(found.q_pregrasp[0], opened, atol=1e-6)


def test_motions_of_an_object_that_stays_in_the_hand_are_one_segment(tmp_path, put, capture):
    motion = capture()
    rows = np.r_[0:36, np.repeat(35, 20), 35:24:-1]  # lifted, held for 1.3 s, lowered
    phi, world = (np.asarray(x)[rows] for x in (motion.phi, motion.wxyz_xyz_world_object))
    held = Motion(np.arange(len(rows)) / RATE, phi, world)
    ((start, end),) = realdex_grasps.segments(posed(tmp_path, put, held))
    assert (start, end) == (0, len(rows))


@pytest.mark.parametrize("rows", [[0], [10], [10, 11], [35]])
def test_tracking_that_slips_for_a_moment_is_no_motion(tmp_path, put, capture, changed, rows):
    motion = capture()
    world = np.array(motion.wxyz_xyz_world_object)
    world[rows, 4:] += [0.05, 0.0, 0.02]
    slipped = changed(motion, wxyz_xyz_world_object=world)
    made = posed(tmp_path, put, slipped, np.arange(20, 36))
    expected = realdex_grasps.reach(posed(tmp_path, put, motion), (0, 36))
    ((start, end),) = realdex_grasps.segments(made)
    found = realdex_grasps.reach(made, (start, end))
    assert len(found) == len(expected) == 24
    np.testing.assert_allclose(found.phi, expected.phi, atol=1e-6)
    place = found.wxyz_xyz_world_object
    np.testing.assert_allclose(place, expected.wxyz_xyz_world_object, atol=1e-6)
    check(realdex_grasps.grasps(made, (start, end), made.frames.contact), motion, [24])
    # Of an object that is never moved, the last frame in contact that is tracked counts.
    if 35 not in rows:
        return
    world[24:, 4:] = world[0, 4:]
    world[35, 4:] += [0.05, 0.0, 0.02]
    resting = changed(motion, wxyz_xyz_world_object=world)
    made = posed(tmp_path, put, resting, np.arange(20, 36))
    check(realdex_grasps.grasps(made, (0, 36), made.frames.contact), resting, [34])


def test_an_object_that_moves_slowly_is_one_grasp(tmp_path, put, capture, changed):
    motion = capture()
    world = np.array(motion.wxyz_xyz_world_object)
    phi = np.array(motion.phi)
    slow = 0.9 * (world[24:, 4:] - world[23, 4:]) / 12  # 1.5 mm a frame, 2 cm/s
    phi[24:, 22:25] += slow - (world[24:, 4:] - world[23, 4:])
    world[24:, 4:] = world[23, 4:] + slow
    motion = changed(motion, phi=phi, wxyz_xyz_world_object=world)
    made = posed(tmp_path, put, motion, np.arange(20, 36))
    found = realdex_grasps.grasps(made, (0, 36), made.frames.contact)
    check(found, motion, [30])


def test_a_reach_lost_to_a_frame_is_said(tmp_path, put, capture, changed):
    phi = np.array(capture().phi)
    phi[20, 0] = np.nan
    lost = changed(capture(), phi=phi)
    put(tmp_path / "box_1", realdex_export.recording_files([lost, capture(1)]))
    unit = realdex.open_source(tmp_path).read("box")
    assert unit.motions.lengths().tolist() == [24]
    (note,) = (n for n in unit.notes if "reaches lost" in n)
    assert "reaches lost: 1; the reach of rows 0 to 24 is lost: 1 of them cannot be used" in note


def test_short_files_have_no_motion(capture):
    for count in range(1, 6):
        motion = capture(0, reach=max(count - 1, 2), lift=1)
        motion = dataclasses.replace(
            motion,
            time=motion.time[:count],
            phi=motion.phi[:count],
            wxyz_xyz_world_object=motion.wxyz_xyz_world_object[:count],
        )
        raw = realdex_export.to_release(motion, np.zeros((count, 2)))
        frames = realdex_files.Frames(
            "made",
            np.asarray(motion.time),
            raw["qpos"],
            raw["global_orient"],
            raw["global_transl"],
            raw["object_orient"],
            raw["object_transl"],
            np.ones(count, bool),
        )
        made = realdex_grasps.pose(frames)
        for segment in realdex_grasps.segments(made):
            assert realdex_grasps.reach(made, segment) is None
            assert len(realdex_grasps.grasps(made, segment, None)) <= 1
