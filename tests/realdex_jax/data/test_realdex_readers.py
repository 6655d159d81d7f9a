"""The same damaged recording before both readers: frames are masked, and by both the same ones."""

import json

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from realdex_jax.data import (
    realdex_export,
    realdex_files,
    realdex_grasps,
    realdex_layout,
    realdex_write,
    rigid,
)
from realdex_jax.data.realdex_raw import Recording
from realdex_jax.hand.load import load

COUNT = 36


@pytest.fixture
def recorded(tmp_path, capture, bent, put):
    """A recording with the files of both readers, and its motion."""
    motion = capture()
    phi = np.asarray(motion.phi)
    files = realdex_export.recording_files([motion], [np.arange(20, COUNT)], [bent(motion)])
    stamps = files["rgbimage_timestamp.txt"].decode().split()
    wxyz = Rotation.from_rotvec(phi[:, 25:]).as_quat(scalar_first=True)
    palm = np.concatenate([wxyz, phi[:, 22:25]], axis=1)
    links = realdex_write.hand_links(load("shadow"), phi[:, :22], palm, bent(motion))
    for (parent, link), poses in links.items():
        rows = np.broadcast_to(rigid.to_ros(poses), (COUNT, 7)).tolist()
        lines = [f"{t} {' '.join(map(repr, row))}" for t, row in zip(stamps, rows, strict=True)]
        files[f"TF/{parent}-{link}.txt"] = "\n".join(lines).encode()
    return put(tmp_path, {f"box_1/{name}": content for name, content in files.items()}), motion


def both(folder):
    """The frames of the one reader, and hand, object, segments and notes of the other."""
    frames = realdex_files.read_recording(realdex_layout.files(folder), "box_1")
    raw = Recording(folder / "box_1")
    track = raw.hand(load("shadow"))
    return frames, track, raw.object_track(), raw.segments(), raw.notes()


def test_a_whole_recording_is_whole_to_both(recorded):
    frames, track, (world, tracked), segments, notes = both(recorded[0])
    assert (frames.usable & frames.wrist_known & track.valid & tracked).all()
    assert frames.notes == notes == ()
    assert frames.segments == segments == ((0, COUNT),)
    posed = realdex_grasps.pose(frames)
    np.testing.assert_allclose(posed.p_world_palm, track.wxyz_xyz_world_palm[:, 4:], atol=1e-6)
    np.testing.assert_allclose(frames.p_world_object, world[:, 4:], atol=1e-12)


def test_a_frame_that_was_not_synchronised_is_masked_by_both(recorded):
    folder, motion = recorded
    path = folder / "box_1" / "scene_to_mesh.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "5": "None.ply"}))
    frames, track, (_, tracked), _, notes = both(folder)
    assert np.flatnonzero(~frames.usable).tolist() == [5]
    assert np.flatnonzero(~track.valid).tolist() == [5]
    assert tracked.all()
    assert frames.notes == notes
    assert "1 of 36 frames left out, from 5: no robot time was found" in notes[0]
    known = track.valid
    np.testing.assert_allclose(track.phi[known, :22], motion.phi[known, :22], atol=1e-6)


@pytest.mark.parametrize("value", [np.nan, 0.0, 1e30])
def test_frames_without_the_object_are_masked_by_both(recorded, value, put):
    folder, motion = recorded
    arrays = realdex_export.to_release(motion, np.zeros((COUNT, 2)))
    arrays["object_orient"][[0, 7]] = value
    path = folder / "box_1" / "tracking_result" / "gt_pose.txt"
    rows = [line.split() for line in path.read_text().splitlines()]
    for row in (0, 7):
        rows[row][3:] = [repr(value)] * 4
    path.write_text("\n".join(" ".join(row) for row in rows))
    put(folder, {"box_1/final_data.npy": realdex_export.final_bytes(arrays)})
    frames, track, (world, tracked), _, notes = both(folder)
    assert np.flatnonzero(~frames.usable).tolist() == [0, 7]
    assert np.flatnonzero(~tracked).tolist() == [0, 7]
    assert track.valid.all()
    assert len(frames.notes) == 1
    assert notes == ("2 of 36 frames left out, from 0: the object was not tracked",)
    np.testing.assert_array_equal(world[[0, 7]], world[[1, 6]])


@pytest.mark.parametrize(
    ("text", "segments", "notes"),
    [
        ("0.0 20.7\n20 99\n", ((0, 20), (20, 36)), ("beyond the recording were clipped",)),
        ("2 1\n3 9\n-5 2\n", ((3, 9), (0, 2)), ("clipped", "1 segments without frames")),
        ("40 50\n", (), ("clipped", "1 segments without frames left out")),
        ("", (), ("lists no grasp",)),
    ],
)
def test_segments_are_cut_alike_by_both(recorded, text, segments, notes):
    folder, _ = recorded
    (folder / "box_1" / "segment.txt").write_text(text)
    frames, _, _, found, told = both(folder)
    assert frames.segments == found == segments
    assert frames.notes == told
    assert len(told) == len(notes)
    assert all(part in note for part, note in zip(notes, told, strict=True))
