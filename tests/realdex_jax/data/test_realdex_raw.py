"""Raw recordings: written and read back, real calibration files, stamps, and damage."""

import dataclasses
import json
import pathlib
import shutil
import zlib

import numpy as np
import pytest
from PIL import Image

from realdex_jax.data import calibration, pictures, realdex_raw, realdex_write, rigid
from realdex_jax.data.calibration import Calibration
from realdex_jax.data.realdex_raw import Recording
from realdex_jax.data.realdex_write import Picture, Scene
from realdex_jax.errors import DatasetError
from realdex_jax.geometry.lens import Lens
from realdex_jax.hand import joints
from realdex_jax.hand.load import load

HAND = load("shadow")
LENS = Lens(24, 18, 20.0, 20.5, 11.0, 8.5, (0.1, -0.05, 1e-3, -1e-3, 0.02, 0.05, 0.01, 0.0))
START, STEP, COUNT = 1_701_936_000_123_456_789, 66_666_667, 4


def pose(rng: np.random.Generator) -> np.ndarray:
    wxyz = rng.normal(size=4)
    return np.concatenate([wxyz / np.linalg.norm(wxyz), rng.uniform(-1, 1, 3)])


def rig() -> Calibration:
    rng = np.random.default_rng(5)
    places = {0: np.eye(7)[0], 1: pose(rng)}
    return Calibration((0, 1), dict.fromkeys((0, 1), LENS), places)


def scene() -> Scene:
    rng = np.random.default_rng(6)
    q = rng.uniform(joints.LOWER, joints.UPPER, (COUNT, 22))
    palm, thing = (np.stack([pose(rng) for _ in range(COUNT)]) for _ in range(2))
    links = realdex_write.hand_links(HAND, q, palm)
    stamps = START + STEP * np.arange(COUNT)
    return Scene(stamps, links, thing, pose(rng), ((0, 2), (2, COUNT)))


def take(camera: int, k: int) -> Picture:
    rng = np.random.default_rng([camera, k])
    colour = rng.integers(0, 256, (18, 24, 3), np.uint8)
    depth = rng.integers(0, 4000, (18, 24)).astype(np.uint16)
    return Picture(colour, depth)


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    """A recording deep in a folder, as archives have it, and its calibration above."""
    realdex_write.write_calibration(tmp_path, rig())
    path = tmp_path / "duck_toy" / "storage" / "bags" / "duck_toy" / "duck_toy_1_20231207"
    assert realdex_write.write_recording(path, scene(), (0, 1), take) == 2 * COUNT
    return path


def test_what_was_written_is_read(folder, tmp_path):
    assert realdex_raw.recognise(tmp_path)
    assert realdex_raw.recordings(tmp_path) == (folder,)
    recording, expected = Recording(folder), scene()
    assert recording.object_name == "duck_toy"
    assert recording.cameras == (0, 1)
    np.testing.assert_array_equal(recording.time_ns, expected.time_ns)
    np.testing.assert_array_equal(recording.robot_time_ns, expected.time_ns)
    assert recording.segments() == ((0, 2), (2, COUNT))
    placed, tracked = recording.object_track()
    assert tracked.all()
    np.testing.assert_allclose(placed, expected.wxyz_xyz_world_object, atol=1e-12)
    assert recording.hand(HAND).valid.all()
    for camera in (0, 1):
        assert recording.lens(camera) == LENS
        T = rigid.compose(expected.wxyz_xyz_world_cam0, rig().wxyz_xyz_cam0_cam[camera])
        found = rigid.matrix(recording.wxyz_xyz_world_cam(camera))
        np.testing.assert_allclose(found, rigid.matrix(T), atol=1e-12)
        for k in range(COUNT):
            picture = take(camera, k)
            np.testing.assert_array_equal(recording.colour(camera, k), picture.colour)
            metres = recording.depth(camera, k)
            np.testing.assert_allclose(
                metres, np.where(picture.depth_mm <= 3000, picture.depth_mm / 1000.0, 0), rtol=1e-6
            )


def test_points_are_where_the_cameras_say(folder):
    recording = Recording(folder)
    p_cam, colours = recording.points(1, 2)
    picture = take(1, 2)
    seen = (picture.depth_mm > 0) & (picture.depth_mm <= 3000)
    rows, columns = np.nonzero(seen)
    np.testing.assert_allclose(LENS.project(p_cam), np.stack([columns, rows], 1), atol=1e-5)
    np.testing.assert_array_equal(colours, picture.colour[seen])
    T = rigid.matrix(recording.wxyz_xyz_world_cam(1))
    expected = p_cam @ T[:3, :3].T + T[:3, 3]
    np.testing.assert_allclose(recording.world_points(1, 2), expected, atol=1e-12)


def test_writing_goes_on_where_it_stopped_and_ends_with_the_same_files(folder, tmp_path):
    other, taken = tmp_path / "duck_toy_2", []

    def interrupted(camera: int, k: int) -> Picture:
        if len(taken) == 5:
            raise KeyboardInterrupt
        taken.append((camera, k))
        return take(camera, k)

    with pytest.raises(KeyboardInterrupt):
        realdex_write.write_recording(other, scene(), (0, 1), interrupted)
    # A picture of which only the colour was written is taken again.
    (other / "cam0" / pictures.DEPTH / "1.png").unlink()
    (other / "cam0" / pictures.DEPTH / ".1.png.tmp").write_bytes(b"half a pict")
    assert Recording(other).together().dropped == {0: 2, 1: 2}
    told: list[int] = []
    more = realdex_write.write_recording(other, scene(), (0, 1), take, told.append)
    assert (more, told) == (2 * COUNT - 4, list(range(COUNT)))
    files = {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    again = {p.relative_to(other): p.read_bytes() for p in other.rglob("*") if p.is_file()}
    assert files == again


def test_scenes_that_do_not_fit_together_are_not_written(tmp_path):
    good = scene()
    nothing = {"time_ns": good.time_ns[:0], "wxyz_xyz_world_object": np.zeros((0, 7))}
    for change, message in (
        ({"time_ns": good.time_ns[::-1]}, "must rise"),
        (nothing, "one at least"),
        ({"links": {("world", "a/b"): np.eye(7)[:1]}}, "cannot be a file's name"),
        ({"links": {("world", "a"): np.eye(7)[:3]}}, "3 poses; must be 1 or 4"),
    ):
        with pytest.raises(DatasetError, match=message):
            realdex_write.write_recording(
                tmp_path / "x_1", dataclasses.replace(good, **change), (0,), take
            )
    assert not (tmp_path / "x_1").exists()


def test_jpeg_pictures_are_read_too(folder):
    where = folder / "cam0" / pictures.COLOUR
    level = np.full((18, 24, 3), (200, 100, 50), np.uint8)
    (where / "1.png").unlink()
    Image.fromarray(level).save(where / "1.jpg", quality=95)
    np.testing.assert_allclose(Recording(folder).colour(0, 1), level, atol=3)
    Image.fromarray(level).save(where / "2.jpg")
    with pytest.raises(DatasetError, match=r"picture 2 twice: 2\.jpg, 2\.png"):
        Recording(folder).together()


def test_the_real_calibration_is_read(shared):
    folder = shared / "data" / "realdex_release"
    assert calibration.find(folder / "somewhere" / "recording") == folder / "calibration_data"
    found = calibration.read(folder / "calibration_data")
    assert found.cameras == (0, 1, 2, 3)
    assert (found.lenses[0].width, found.lenses[0].fx) == (1920, 912.96875)
    # Cameras stand 0.7 to 1.4 m apart around the table, and all look at one place.
    T = [rigid.matrix(found.wxyz_xyz_cam0_cam[c]) for c in range(4)]
    np.testing.assert_array_equal(T[0], np.eye(4))
    apart = [np.linalg.norm(x[:3, 3]) for x in T[1:]]
    assert 0.6 < min(apart) < max(apart) < 1.4
    p = np.array([x[:3, 3] for x in T])
    v = np.array([x[:3, 2] for x in T])
    across = np.eye(3) - v[:, :, None] * v[:, None]
    middle = np.linalg.solve(across.sum(0), np.einsum("cij,cj->i", across, p))
    off = np.linalg.norm(np.einsum("cij,cj->ci", across, middle - p), axis=1)
    assert off.max() < 0.2
    assert ((middle - p) * v).sum(1).min() > 0.4


def test_calibration_files_round_trip_through_the_real_ones(shared, tmp_path):
    found = calibration.read(shared / "data" / "realdex_release" / "calibration_data")
    realdex_write.write_calibration(tmp_path, found)
    again = calibration.read(tmp_path / "calibration_data")
    assert again.lenses == found.lenses
    for camera in found.cameras:
        np.testing.assert_allclose(
            again.wxyz_xyz_cam0_cam[camera], found.wxyz_xyz_cam0_cam[camera], atol=1e-15
        )


def test_the_nearest_stamp_is_found_and_the_earlier_of_two():
    stamps = np.array([10, 20, 40], np.int64) * 10**9
    wanted = np.array([0, 10, 15, 16, 29, 31, 99], np.int64) * 10**9
    index, offset = pictures.nearest(wanted, stamps)
    assert index.tolist() == [0, 0, 0, 1, 1, 2, 2]
    np.testing.assert_allclose(offset, [10, 0, -5, 4, -9, 9, -59])
    brute = np.abs(stamps[None] - wanted[:, None]).argmin(axis=1)
    np.testing.assert_array_equal(index, brute)
    assert pictures.nearest(wanted, stamps[:1])[0].tolist() == [0] * 7
    index, offset = pictures.nearest(wanted, stamps[:0])
    assert (index == -1).all()
    assert np.isinf(offset).all()


def test_cameras_are_paired_by_time_and_drops_are_told(folder):
    stamps = folder / "cam1" / pictures.COLOUR / "info.txt"
    late = START + STEP * np.arange(COUNT) + np.array([3, -4, 30, 2]) * 10**6
    stamps.write_text("\n".join(map(str, late)))
    (folder / "cam0" / pictures.DEPTH / "3.png").unlink()
    found = Recording(folder).together(tolerance=0.01)
    assert found.index.tolist() == [[0, 0], [1, 1], [2, -1], [-1, 3]]
    assert found.dropped == {0: 1, 1: 1}
    np.testing.assert_allclose(found.offset[:, 1], [0.003, -0.004, 0.03, 0.002], atol=1e-9)
    assert "camera 1: 1 of 4 frames dropped, largest offset kept 4.0 ms" in found.report
    stamps.write_text("")
    assert Recording(folder).together().dropped == {0: 1, 1: COUNT}


def test_stamps_written_as_floats_lose_no_digit(folder):
    path = folder / realdex_raw.STAMPS
    exact = START + STEP * np.arange(COUNT)
    path.write_text("".join(f"{t // 10**18}.{t % 10**18:018d}e+18\n" for t in exact))
    np.testing.assert_array_equal(Recording(folder).time_ns, exact)


def test_the_robots_clock_and_missing_object_rows_are_respected(folder):
    later = {"1": f"{START + 7}.ply", "3": f"{START + 9}.ply", "17": "5.ply"}
    (folder / "scene_to_mesh.json").write_text(json.dumps(later))
    recording = Recording(folder)
    expected = START + STEP * np.arange(COUNT)
    expected[[1, 3]] = [START + 7, START + 9]
    np.testing.assert_array_equal(recording.robot_time_ns, expected)
    path = folder / "tracking_result" / "gt_pose.txt"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:2]))
    placed, tracked = recording.object_track()
    assert tracked.tolist() == [True, True, False, False]
    np.testing.assert_array_equal(placed[2:], placed[[1, 1]])


def _named(number: str) -> str:
    return f'{{"cam0_rgb_camera_link": [{",".join([number] * 16)}]}}'


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("rgbimage_timestamp.txt", "5\n5\n", "stamp 2 does not rise"),
        ("rgbimage_timestamp.txt", "five\n", "line 1: time stamp 'five'"),
        ("scene_to_mesh.json", '{"0": "5.obj"}', 'must be "frame": "<ns>.ply"'),
        ("scene_to_mesh.json", '{"x": "5.ply"}', 'must be "frame"'),
        ("scene_to_mesh.json", "[]", "holds a list"),
        ("scene_to_mesh.json", "[" * 100_000, "not JSON|nested too deeply"),
        ("scene_to_mesh.json", '{"0": "none.ply"}', "time stamp 'none'"),
        ("segment.txt", "0 1 2\n", "line 1: 3 numbers"),
        ("tracking_result/gt_pose.txt", "", "no line"),
        ("tracking_result/gt_pose.txt", "0 0 0 0 0 0 0\n", "quaternion of row 1 has length 0"),
        ("tracking_result/gt_pose.txt", "0 0 nan 0 0 0 1\n", "row 1 has a number that is not"),
        ("tracking_result/gt_pose.txt", "0 0 0 0 0 0 1\n0 0 0\n", "line 2: 3 numbers"),
        ("global_name_position/0.txt", "{}", "no 'cam0_rgb_camera_link'"),
        ("global_name_position/0.txt", '{"cam0_rgb_camera_link": [1, 2]}', "16 finite numbers"),
        ("global_name_position/0.txt", _named("2"), "not a rotation"),
        ("global_name_position/0.txt", _named("NaN"), "16 finite numbers"),
    ],
)
def test_malformed_files_are_refused_by_name(folder, name, text, message):
    (folder / name).write_text(text)
    recording = Recording(folder)

    def read() -> None:
        _ = recording.time_ns, recording.robot_time_ns, recording.wxyz_xyz_world_cam0
        recording.segments()
        recording.object_track()

    with pytest.raises(DatasetError, match=message) as caught:
        read()
    assert name in str(caught.value)


def damaged(path: pathlib.Path) -> None:
    path.write_bytes(path.read_bytes()[:-60])


def larger(path: pathlib.Path) -> None:
    Image.fromarray(np.zeros((40, 24), np.uint16)).save(path)


def coarse(path: pathlib.Path) -> None:
    Image.fromarray(np.zeros((18, 24), np.uint8)).save(path)


def text(path: pathlib.Path) -> None:
    path.write_text("no picture")


def bomb(path: pathlib.Path) -> None:
    """Claims 60,000 x 60,000 pixels in its header."""
    Image.fromarray(np.zeros((18, 24), np.uint16)).save(path)
    content = bytearray(path.read_bytes())
    content[16:24] = (60_000).to_bytes(4, "big") * 2
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (damaged, "damaged picture"),
        (larger, "24 x 40 pixels of mode I;16; must be 24 x 18"),
        (coarse, "of mode L; must be"),
        (text, "neither PNG nor JPEG"),
        (bomb, "damaged picture"),
        (pathlib.Path.unlink, "no picture 1"),
    ],
)
def test_damaged_pictures_are_refused_by_name(folder, harm, message):
    harm(folder / "cam1" / pictures.DEPTH / "1.png")
    recording = Recording(folder)
    with pytest.raises(DatasetError, match=message) as caught:
        recording.depth(1, 1)
    assert "cam1" in str(caught.value)
    assert recording.depth(1, 2).any()


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """A byte changed, digits put in, a stretch cut out, or the end cut off."""
    at, kind = int(rng.integers(len(content))), rng.integers(4)
    fresh = bytes(rng.integers(32, 127, 3).astype(np.uint8))
    tails = (fresh[:1] + content[at + 1 :], fresh + content[at:], content[at + 30 :], b"")
    return content[:at] + tails[kind]


def test_mutated_files_are_read_or_refused_and_never_crash(folder, tmp_path, rng):
    files = [p for p in tmp_path.rglob("*") if p.is_file()]
    files += 4 * [p for p in files if p.suffix != ".png"]
    refused: list[tuple[pathlib.Path, str]] = []
    for _ in range(400):
        path = files[rng.integers(len(files))]
        before = path.read_bytes()
        path.write_bytes(mutated(before, rng))
        recording = Recording(folder)
        try:
            recording.hand(HAND)
            recording.object_track()
            recording.segments()
            for camera, k in np.ndindex(2, COUNT):
                recording.points(camera, k)
                recording.wxyz_xyz_world_cam(camera)
            recording.together()
        except DatasetError as error:
            refused.append((path, str(error)))
        path.write_bytes(before)
    assert 100 < len(refused) < 400
    assert all(path.name in told or path.stem in told for path, told in refused)


def test_calibration_files_that_make_no_camera_are_refused(folder, tmp_path):
    where = tmp_path / "calibration_data"

    def refused(name, message, **change):
        path = where / name
        before = path.read_text()
        path.write_text(json.dumps({**json.loads(before), **change}))
        with pytest.raises(DatasetError, match=message) as caught:
            Recording(folder).lens(0)
        assert name in str(caught.value)
        path.write_text(before)

    refused("cam0_rgb.txt", "width is 0", width=0)
    refused("cam0_rgb.txt", "height is 99999", height=99999)
    refused("cam0_rgb.txt", "known: rational_polynomial", distortion_model="fisheye")
    refused("cam0_rgb.txt", "must be 8 finite numbers", D=[1, 2, 3, 4, 5])
    refused("cam0_rgb.txt", "must be .fx 0 cx", K=[0, 0, 1, 0, 1, 1, 0, 0, 1])
    refused("cam1_depth.txt", "depth must be registered", width=25)
    turn = {"rotation": {"w": 3, "x": 0, "y": 0, "z": 0}, "translation": dict.fromkeys("xyz", 0)}
    refused("cali01.json", "quaternion of row 1 has length 3", value0=turn)
    refused("cali01.json", "value0.rotation w x y z: must be 4", value0={})
    recording = Recording(folder)
    with pytest.raises(DatasetError, match="no calibration of camera 7"):
        recording.lens(7)
    shutil.rmtree(where)
    with pytest.raises(DatasetError, match="no folder calibration_data in it or above it"):
        Recording(folder).lens(0)
    with pytest.raises(DatasetError, match="no recording in it"):
        realdex_raw.recordings(tmp_path / "duck_toy" / "nothing")
