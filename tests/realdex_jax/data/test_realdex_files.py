"""Recordings and sequences of the release: every known trap in its files."""

import io
import json
import pickle

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from realdex_jax.data import (
    realdex,
    realdex_export,
    realdex_files,
    realdex_grasps,
    realdex_layout,
    realdex_write,
    tf_series,
)
from realdex_jax.errors import DatasetError, UnsafePickleError
from realdex_jax.hand import joints
from realdex_jax.hand.load import load


def npy(value):
    buffer = io.BytesIO()
    np.save(buffer, np.array(value, dtype=object))
    return buffer.getvalue()


def npz(**arrays):
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def final(motion, wrist=None, **changes):
    """Content of `final_data.npy`, with changed arrays."""
    wrist = np.zeros((len(motion), 2)) if wrist is None else wrist
    arrays = realdex_export.to_release(motion, wrist)
    return npy({**arrays, **{k: change(arrays[k]) for k, change in changes.items()}})


def angles_as_released(R):
    """Axis-angle as the release computes it: by the sine, and with axis x where that vanishes."""
    theta = np.arccos(np.clip((np.trace(R, axis1=1, axis2=2) - 1) / 2, -1, 1))
    skew = np.stack([R[:, 2, 1] - R[:, 1, 2], R[:, 0, 2] - R[:, 2, 0], R[:, 1, 0] - R[:, 0, 1]], 1)
    sine = np.sin(theta)[:, None]
    axis = np.where(sine > 1e-6, skew / np.maximum(2 * sine, 1e-12), [1.0, 0.0, 0.0])
    return axis * theta[:, None]


def sequence(motion, **changes):
    raw = realdex_export.to_release(motion, np.zeros((len(motion), 2)))
    arrays = {
        "qpos": raw["qpos"],
        "hand_transl": raw["global_transl"],
        "hand_orient": angles_as_released(raw["global_orient"]),
        "object_transl": raw["object_transl"],
        "object_orient": angles_as_released(raw["object_orient"]),
    }
    return npz(**{**arrays, **{k: change(arrays[k]) for k, change in changes.items()}})


def read(folder, name="r"):
    return realdex_files.read_recording(realdex_layout.files(folder), name)


def read_k(folder, content):
    (folder / "box").mkdir(exist_ok=True)
    (folder / "box" / "0.npz").write_bytes(content)
    return realdex_files.read_sequence(realdex_layout.files(folder), "box/0.npz")


def spoilt(rows, value):
    def change(array):
        array = array.copy()
        array[rows] = value
        return array

    return change


@pytest.fixture
def recorded(tmp_path, capture, bent, put):
    """A folder with one recording `r`, its motion and its wrist angles."""
    motion = capture()
    files = realdex_export.recording_files([motion], [np.arange(20, 36)], [bent(motion)])
    return put(tmp_path, {f"r/{name}": content for name, content in files.items()}), motion


def check_pose(posed, motion, atol=1e-9):
    phi = np.asarray(motion.phi)
    np.testing.assert_allclose(posed.q, phi[:, :22], atol=atol)
    np.testing.assert_allclose(posed.p_world_palm, phi[:, 22:25], atol=atol)
    assert (posed.R_world_palm * Rotation.from_rotvec(phi[:, 25:]).inv()).magnitude().max() < atol


def test_conversion_and_back(capture, bent):
    motion = capture()
    wrist = bent(motion)
    arrays = realdex_export.to_release(motion, wrist)
    assert np.array_equal(arrays["qpos"], motion.phi[:, :22])  # the URDF's order and signs are ours
    shift = np.linalg.norm(arrays["global_transl"] - motion.phi[:, 22:25], axis=1)
    assert (shift > 0.21).all()  # the forearm, not the palm
    back = realdex_export.from_release(arrays, motion.time, wrist)
    np.testing.assert_allclose(back.phi, motion.phi, atol=1e-12)
    same = np.sign((back.wxyz_xyz_world_object * motion.wxyz_xyz_world_object)[:, :4].sum(1))
    back.wxyz_xyz_world_object[:, :4] *= same[:, None]  # a quaternion and its negative are one turn
    np.testing.assert_allclose(back.wxyz_xyz_world_object, motion.wxyz_xyz_world_object, atol=1e-12)


def test_a_recording_comes_back_with_its_wrist(recorded, bent):
    folder, motion = recorded
    frames = read(folder)
    assert frames.notes == ()
    assert frames.usable.all()
    assert frames.segments == ((0, 36),)
    assert np.flatnonzero(frames.contact).tolist() == list(range(20, 36))
    np.testing.assert_allclose(frames.time, motion.time, atol=1e-6)  # stamps as float64: 256 ns
    np.testing.assert_allclose(frames.wrist, bent(motion), atol=1e-9)
    posed = realdex_grasps.pose(frames)
    assert posed.wrist_measured.all()
    check_pose(posed, motion)


def test_palm_agrees_with_the_robot_series_of_all_links(recorded, bent):
    # Another reader takes the palm and the joints from the whole tree of links.
    folder, motion = recorded
    phi = np.asarray(motion.phi)
    wxyz = Rotation.from_rotvec(phi[:, 25:]).as_quat(scalar_first=True)
    palm = np.concatenate([wxyz, phi[:, 22:25]], axis=1)
    stamps = realdex_export.FIRST_STAMP + np.round(np.arange(36) * 1e9 / 15).astype(np.int64)
    links = realdex_write.hand_links(load("shadow"), phi[:, :22], palm, bent(motion))
    for (parent, link), poses in links.items():
        rows = np.concatenate([poses[:, 4:], np.roll(poses[:, :4], -1, axis=1)], axis=1)
        lines = [
            f"{t} {' '.join(map(repr, row))}\n"
            for t, row in zip(stamps, rows.tolist(), strict=True)
        ]
        (folder / "r" / "TF" / f"{parent}-{link}.txt").write_text("".join(lines))
    track = tf_series.hand_track(load("shadow"), folder / "r" / "TF", stamps)
    posed = realdex_grasps.pose(read(folder))
    np.testing.assert_allclose(posed.frames.wrist, track.q_wrist, atol=1e-7)
    np.testing.assert_allclose(posed.q, track.q, atol=1e-6)
    np.testing.assert_allclose(posed.p_world_palm, track.wxyz_xyz_world_palm[:, 4:], atol=1e-7)
    R = Rotation.from_quat(track.wxyz_xyz_world_palm[:, :4], scalar_first=True)
    assert (posed.R_world_palm * R.inv()).magnitude().max() < 1e-6


def test_without_the_wrist_it_is_taken_as_straight(recorded):
    folder, motion = recorded
    (folder / "r" / "TF" / "rh_wrist-rh_palm.txt").unlink()
    frames = read(folder)
    assert frames.wrist is None
    posed = realdex_grasps.pose(frames)
    assert not posed.wrist_measured.any()
    # 0.3 rad of wrist move the palm's origin by 0.3 * 34 mm, and turn it by as much.
    off = np.linalg.norm(posed.p_world_palm - motion.phi[:, 22:25], axis=1)
    assert 0.005 < off.max() < 0.012
    stored = realdex_grasps.pose(frames, "as-stored")
    np.testing.assert_allclose(stored.p_world_palm, frames.p_world_root)


def test_a_wrist_edge_that_turns_another_way_is_not_believed(recorded):
    folder, _ = recorded
    path = folder / "r" / "TF" / "rh_forearm-rh_wrist.txt"
    path.write_text("1700000000000000000 0 0 0 0.6 0 0 0.8\n")
    frames = read(folder)
    assert frames.wrist is None
    assert "does not turn about its joint" in frames.notes[0]
    path.write_text("1700000000000000000 0 0 0 0.6 0 0\n")
    with pytest.raises(DatasetError, match=r"rh_wrist\.txt, line 1: 6 numbers, expected 7"):
        read(folder)


def test_object_rows_that_do_not_match_are_cut_to_the_common_start(recorded):
    folder, motion = recorded
    for rows, usable in ((30, 30), (50, 36)):
        change = lambda a, rows=rows: np.resize(a, (rows, *a.shape[1:]))
        content = final(motion, object_transl=change, object_orient=change)
        (folder / "r" / "final_data.npy").write_bytes(content)
        frames = read(folder)
        assert np.flatnonzero(frames.usable).tolist() == list(range(usable))
        assert f"36 rows of the hand, {rows} of the object" in frames.notes[0]


def test_object_rows_follow_the_frame_numbers_where_frames_are_missing(recorded):
    # The hand was synchronised from frame 3 on; the object is there in every frame.
    folder, motion = recorded
    late = {name: (lambda a: a[3:]) for name in ("qpos", "global_transl", "global_orient")}
    (folder / "r" / "final_data.npy").write_bytes(final(motion, **late))
    path = folder / "r" / "scene_to_mesh.json"
    stamps = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in stamps.items() if int(k) >= 3}))
    frames = read(folder)
    assert "matched by frame" in frames.notes[0]
    assert frames.usable.all()
    np.testing.assert_allclose(frames.p_world_object, motion.wxyz_xyz_world_object[3:, 4:])
    assert np.flatnonzero(frames.contact).tolist() == list(range(17, 33))
    assert frames.segments == ((0, 33),)
    np.testing.assert_allclose(frames.time, motion.time[:33], atol=1e-6)


def test_frames_that_were_not_synchronised_are_left_out(recorded):
    folder, _ = recorded
    path = folder / "r" / "scene_to_mesh.json"
    stamps = {**json.loads(path.read_text()), "5": "None.ply"}
    path.write_text(json.dumps(stamps))
    frames = read(folder)
    assert np.flatnonzero(~frames.usable).tolist() == [5]
    path.write_text(json.dumps({"0": "1.ply"}))
    assert "1 in scene_to_mesh.json" in read(folder).notes[0]
    for text in ('{"a": "1.ply"}', '{"0": "x.ply"}', "[[[", "3", '{"0": "1e999.ply"}'):
        path.write_text(text)
        with pytest.raises(DatasetError, match="does not map frames"):
            read(folder)


def test_rows_that_make_no_sense_are_masked_and_said(recorded):
    folder, motion = recorded
    content = final(
        motion,
        qpos=spoilt((2, 0), np.nan),
        global_transl=spoilt((3, 0), np.inf),
        global_orient=spoilt(4, -np.eye(3)),
        object_orient=spoilt(6, 1.1 * np.eye(3)),
        object_transl=spoilt((7, 1), 1e30),
    )
    (folder / "r" / "final_data.npy").write_bytes(content)
    frames = read(folder)
    assert np.flatnonzero(~frames.usable).tolist() == [2, 3, 4, 6, 7]
    assert len(frames.notes) == 5
    posed = realdex_grasps.pose(frames)
    assert np.isfinite(posed.q).all()
    (folder / "r" / "final_data.npy").write_bytes(final(motion, object_transl=lambda a: a * np.nan))
    with pytest.raises(DatasetError, match="no frame can be used"):
        read(folder)


def test_half_turns_of_the_release_are_found(tmp_path, capture, changed):
    motion = capture()
    world = np.array(motion.wxyz_xyz_world_object)
    world[:, :4] = Rotation.from_rotvec([0, 3.0, 0.5]).as_quat(scalar_first=True)
    world[10, :4] = [0.0, 0.0, 1.0, 0.0]  # half a turn about y
    motion = changed(motion, wxyz_xyz_world_object=world)
    frames = read_k(tmp_path, sequence(motion))
    assert np.flatnonzero(~frames.usable).tolist() == [10]
    assert "half a turn about x" in frames.notes[0]
    good = frames.usable
    exact = Rotation.from_quat(world[:, :4], scalar_first=True).as_matrix()
    np.testing.assert_allclose(frames.R_world_object[good], exact[good], atol=1e-6)
    # A recording keeps matrices and loses nothing.
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "final_data.npy").write_bytes(final(motion))
    frames = read(tmp_path)
    assert frames.usable.all()
    np.testing.assert_allclose(frames.R_world_object, exact, atol=1e-12)


def test_a_wrong_axis_near_half_a_turn_shows_as_a_jump(tmp_path, capture):
    motion = capture()
    frames = read_k(tmp_path, sequence(motion, hand_orient=spoilt(slice(12, 14), [0.0, 3.1, 0.0])))
    assert np.flatnonzero(~frames.usable).tolist() == [12, 13]
    assert "the hand turns by more than" in frames.notes[0]
    # At the start, too; and a turn that stays is none.
    frames = read_k(tmp_path, sequence(motion, hand_orient=spoilt(0, [0.0, 3.1, 0.0])))
    assert np.flatnonzero(~frames.usable).tolist() == [0]
    frames = read_k(tmp_path, sequence(motion, hand_orient=spoilt(slice(0, 15), [0.0, 3.1, 0.0])))
    assert frames.usable.all()


def test_wrap_around_is_no_jump(tmp_path, capture, changed):
    # Axis-angle is never longer than pi, so a steady turn through half a turn changes its sign.
    motion = capture()
    phi = np.array(motion.phi)
    phi[:, 25:] = Rotation.from_rotvec(
        np.linspace(2.9, 3.4, len(phi))[:, None] * [0, 0.6, 0.8]
    ).as_rotvec()
    motion = changed(motion, phi=phi)
    stored = realdex_export.to_release(motion, np.zeros((len(phi), 2)))["global_orient"]
    assert np.abs(np.diff(angles_as_released(stored), axis=0)).max() > 4
    frames = read_k(tmp_path, sequence(motion))
    assert frames.usable.all()
    check_pose(realdex_grasps.pose(frames), motion, atol=1e-6)  # arccos near pi


def test_signs_of_the_hand_model_are_read_when_asked_for(recorded):
    folder, motion = recorded
    flipped = joints.to_dexgraspnet(motion.phi[:, :22])
    (folder / "r" / "final_data.npy").write_bytes(final(motion, qpos=lambda _: flipped))
    files = realdex_layout.files(folder)
    frames = realdex_files.read_recording(files, "r", mjcf=True)
    np.testing.assert_allclose(frames.q, motion.phi[:, :22])
    # In these signs a bent thumb is far beyond what the URDF allows.
    flipped[:, joints.NAMES.index("THJ1")] = -1.2
    (folder / "r" / "final_data.npy").write_bytes(final(motion, qpos=lambda _: flipped))
    with pytest.raises(DatasetError, match=r'THJ1 = -1\.200 rad.*signs="mjcf"'):
        realdex_files.read_recording(files, "r")


def test_joints_past_their_stops_are_projected_and_counted(recorded):
    # The mean of LFJ3 in the release is 0.229 below zero; one in twenty frames passes the stop.
    folder, motion = recorded
    at = joints.NAMES.index("LFJ3")
    (folder / "r" / "final_data.npy").write_bytes(
        final(motion, qpos=spoilt((slice(None), at), -0.379))
    )
    frames = read(folder)
    assert frames.usable.all()
    posed = realdex_grasps.pose(frames)
    np.testing.assert_allclose(posed.beyond, 0.379 - 0.261799, atol=1e-6)
    assert (posed.q[:, at] > joints.LOWER[at] - 0.05).all()
    (folder / "r" / "final_data.npy").write_bytes(final(motion, qpos=spoilt((5, at), -2.0)))
    assert np.flatnonzero(~read(folder).usable).tolist() == [5]


def test_segments_and_contact_beyond_the_recording_are_cut(recorded):
    folder, _ = recorded
    (folder / "r" / "segment.txt").write_text("0.0 20.7\n20 99\n40 50\n5 5\n")
    (folder / "r" / "contact.txt").unlink()
    (folder / "r" / "contact_v2.txt").write_text("30\n31\n36\n1000\n-1\n")
    frames = read(folder)
    assert frames.segments == ((0, 20), (20, 36))
    assert np.flatnonzero(frames.contact).tolist() == [30, 31]
    assert "3 contact frames" in frames.notes[0]
    assert "clipped" in frames.notes[1]
    assert "2 segments" in frames.notes[2]
    (folder / "r" / "segment.txt").write_text("0 nan\n")
    with pytest.raises(DatasetError, match=r"segment\.txt, row 1: '0 nan' has a number"):
        read(folder)
    (folder / "r" / "segment.txt").write_text("zero one\n")
    with pytest.raises(DatasetError, match=r"segment\.txt"):
        read(folder)


def test_grasps_end_with_the_motions_of_the_object_where_none_are_listed(tmp_path, capture, put):
    # Two reaches with lifts, an object that is put down in between.
    one = capture(0)
    down = capture(0)
    files = realdex_export.recording_files([one, down])
    del files["segment.txt"]
    frames = read(put(tmp_path, {f"r/{name}": content for name, content in files.items()}))
    (a, b), (c, d) = realdex_grasps.segments(realdex_grasps.pose(frames))
    assert (a, c) == (0, b)
    assert 36 <= b <= 42
    assert d <= len(frames.q)
    still = realdex_export.recording_files([capture(0, lift=0)])
    del still["segment.txt"]
    folder = put(tmp_path / "s", {f"r/{name}": content for name, content in still.items()})
    assert realdex_grasps.segments(realdex_grasps.pose(read(folder))) == ((0, 24),)


def _tf(folder, change):
    """Changes the messages of both wrist edges, lists of stamp and seven numbers."""
    for edge in ("rh_forearm-rh_wrist", "rh_wrist-rh_palm"):
        path = folder / "r" / "TF" / f"{edge}.txt"
        rows = [line.split() for line in path.read_text().splitlines()]
        path.write_text("".join(f"{' '.join(row)}\n" for row in change(rows)))


def test_a_wrist_that_was_not_recorded_at_that_time_is_not_measured(recorded, bent):
    folder, motion = recorded
    _tf(folder, lambda rows: rows[4:12] + rows[20:])  # it begins late and has a gap of 0.6 s
    frames = read(folder)
    expected = np.r_[0:3, 13:19]  # messages tell of 0.1 s about them
    assert np.flatnonzero(~frames.wrist_known).tolist() == expected.tolist()
    assert "9 of 36 frames, from 0, lie in a gap" in frames.notes[0]
    known = frames.wrist_known
    np.testing.assert_allclose(frames.wrist[4:], bent(motion)[4:], atol=1e-9)  # bent steadily
    np.testing.assert_allclose(frames.wrist[:4], bent(motion)[[4] * 4], atol=1e-9)
    posed = realdex_grasps.pose(frames)
    assert np.array_equal(posed.wrist_measured, known)
    grasps = realdex_grasps.grasps(posed, (0, 36), None, "all", 0)
    assert np.array_equal(grasps.columns["wrist_measured"], known)
    # Before all messages, or after, nothing is known.
    _tf(folder, lambda rows: [[str(int(row[0]) - 10**10), *row[1:]] for row in rows])
    frames = read(folder)
    assert frames.wrist is None
    assert "wrist taken as zero" in frames.notes[0]


def test_messages_of_the_wrist_that_are_no_poses_are_left_out(recorded, bent):
    folder, motion = recorded

    def spoil(rows):
        rows[7][4:] = ["0"] * 4
        rows[9][4] = "nan"
        return rows

    _tf(folder, spoil)
    frames = read(folder)
    assert frames.wrist_known.all()  # between its neighbours, 0.13 s apart
    np.testing.assert_allclose(frames.wrist, bent(motion), atol=1e-6)


@pytest.mark.parametrize("text", [None, "{}", '{"0": "1700000000000000000.ply"}'])
def test_a_wrist_without_times_is_not_said_to_be_missing(recorded, text):
    folder, _ = recorded
    path = folder / "r" / "scene_to_mesh.json"
    path.unlink() if text is None else path.write_text(text)
    frames = read(folder)
    assert frames.wrist is None
    (note,) = (note for note in frames.notes if "wrist" in note)
    assert "TF has the wrist, but scene_to_mesh.json does not say" in note


def test_empty_lists_are_lists_of_nothing(recorded):
    folder, _ = recorded
    for name in ("contact", "segment"):
        (folder / "r" / f"{name}.txt").write_text("\n")
    frames = read(folder)
    assert not frames.contact.any()
    assert frames.segments == ()
    assert frames.notes == (
        "contact.txt lists no frame in contact",
        "segment.txt lists no grasp",
    )
    unit = realdex.open_source(put_name(folder)).read("box")
    assert unit.grasps is None
    assert unit.motions is None


def put_name(folder):
    """The folder with its recording named after an object."""
    (folder / "r").rename(folder / "box_1")
    return folder


@pytest.mark.parametrize(("length", "note"), [(0.9, "leaves its way"), (1.1, "more than half a")])
@pytest.mark.parametrize("what", ["hand_orient", "object_orient"])
def test_axes_that_are_not_of_unit_length_near_half_a_turn(tmp_path, capture, length, note, what):
    # Divided by a sine that rounding has changed: 0.3 rad off, less than what counts as a jump.
    motion = capture()
    turn = np.linspace(3.0, 3.13, 36)[:, None] * [0.0, 0.6, 0.8]
    wrong = turn.copy()
    wrong[34] *= length
    frames = read_k(tmp_path, sequence(motion, **{what: lambda _: wrong}))
    assert np.flatnonzero(~frames.usable).tolist() == [34]
    assert note in frames.notes[0]
    # Away from half a turn a quick turn is left alone, and near it a steady one.
    for way in (np.where(np.arange(36) == 20, 1.3, 1.0), np.linspace(0.0, 12.0, 36)):
        fast = Rotation.from_rotvec(way[:, None] * [0.0, 0.6, 0.8]).as_rotvec()
        assert read_k(tmp_path, sequence(motion, **{what: lambda _, f=fast: f})).usable.all()


@pytest.mark.parametrize(
    ("stamps", "note"),
    [
        (lambda k: k * 50_000_000, None),  # 20 Hz
        (lambda k: -k * 50_000_000, "do not rise"),
        (lambda k: k * 10**12, "do not rise evenly"),  # 17 minutes a frame
    ],
)
def test_camera_stamps_are_used_if_they_rise(recorded, stamps, note):
    folder, motion = recorded
    path = folder / "r" / "rgbimage_timestamp.txt"
    path.write_text("".join(f"{stamps(k)}\n" for k in range(36)))
    frames = read(folder)
    expected = np.arange(36) / 20 if note is None else motion.time
    np.testing.assert_allclose(frames.time, expected, atol=1e-9)
    assert (not frames.notes) if note is None else (note in frames.notes[0])
    path.write_text("1\n2\n")
    assert "2 camera stamps for 36 frames" in read(folder).notes[0]


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (npy([1, 2]), "expected one dict, found 2"),
        (npy({"qpos": np.zeros((3, 22))}), "lacks global_transl.*it has qpos"),
        (b"", "not a .npy file"),
        (b"PK\3\4", "not a .npy file"),
    ],
)
def test_what_is_no_recording_is_refused_by_name(tmp_path, content, match):
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "final_data.npy").write_bytes(content)
    with pytest.raises(DatasetError, match=match) as error:
        read(tmp_path)
    assert "r/final_data.npy" in str(error.value)


@pytest.mark.parametrize(
    ("name", "change", "match"),
    [
        ("qpos", lambda a: a[:, :21], r"qpos has shape \(36, 21\); it must be \(36, 22\)"),
        ("qpos", lambda a: a.astype(str), "must be an array of numbers"),
        ("qpos", lambda a: a.tolist(), "is a list; it must be an array"),
        ("qpos", lambda a: np.zeros(()), "must be an array of rows"),
        ("qpos", lambda a: a[:0], "has 0 rows"),
        ("global_orient", lambda a: a[:, 0], "global_orient has shape"),
        ("global_transl", lambda a: a[1:], "global_transl has shape"),
        ("object_orient", lambda a: a[1:], "object_orient has shape"),
    ],
)
def test_arrays_of_another_shape_are_refused_by_name(recorded, name, change, match):
    folder, motion = recorded
    (folder / "r" / "final_data.npy").write_bytes(final(motion, **{name: change}))
    with pytest.raises(DatasetError, match=match):
        read(folder)


def test_code_in_a_recording_is_refused_and_not_run(tmp_path):
    class Runs:
        def __reduce__(self):
            return exec, (f"open({str(tmp_path / 'trace')!r}, 'w')",)

    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "final_data.npy").write_bytes(npy({"qpos": Runs()}))
    with pytest.raises(UnsafePickleError, match=r"r/final_data\.npy"):
        read(tmp_path)
    (tmp_path / "box").mkdir()
    path = tmp_path / "box" / "0.npz"
    np.savez(path, qpos=np.array([Runs()], dtype=object))
    with pytest.raises(DatasetError, match=r"0\.npz: member 'qpos\.npy' is not a plain"):
        realdex_files.read_sequence(realdex_layout.files(tmp_path), "box/0.npz")
    assert not (tmp_path / "trace").exists()
    assert pickle.loads(pickle.dumps(1)) == 1  # the ordinary module would have run it


def test_a_sequence_comes_back_with_its_cloud(tmp_path, capture, ball):
    motion = capture()
    frames = read_k(tmp_path, realdex_export.sequence_bytes(motion, ball))
    check_pose(realdex_grasps.pose(frames), motion)
    assert frames.segments == ((0, 36),)
    world = np.asarray(motion.wxyz_xyz_world_object)[0]
    R = Rotation.from_quat(world[:4], scalar_first=True)
    np.testing.assert_allclose(frames.points, R.apply(ball) + world[4:], atol=1e-12)
    assert (frames.colors == 0.5).all()
    for points, match in (
        (np.zeros((3, 2)), r"object_points has shape \(3, 2\)"),
        (np.zeros(()), "object_points has shape"),
        (np.zeros((200_000, 3)), "at most 100000"),
    ):
        with pytest.raises(DatasetError, match=match):
            read_k(tmp_path, _with_points(motion, points))


def _with_points(motion, points):
    with np.load(io.BytesIO(sequence(motion))) as arrays:
        return npz(**arrays, object_points=points)
