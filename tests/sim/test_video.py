import base64
import re
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from realdex_jax.data.motion import Motion
from realdex_jax.hand import joints, load
from sim import objects, render, stage, video
from sim.render import RenderError

FRAMES = 9
SIZE = (96, 72)


@pytest.fixture(scope="module")
def hand() -> load.HandModel:
    return load.load()


@pytest.fixture(scope="module")
def shape():
    return objects.make("body_lotion")


@pytest.fixture(scope="module")
def motion(shape) -> Motion:
    """The hand comes from the side along x, then waits; hand and object rise in the last third."""
    s = np.clip(np.arange(FRAMES) / 3.0, 0.0, 1.0)
    rise = 0.12 * np.clip(np.arange(FRAMES) / 3.0 - 5.0 / 3.0, 0.0, 1.0)
    phi = np.zeros((FRAMES, 28), np.float32)
    phi[:, :22] = joints.REST
    R_world_palm = Rotation.from_matrix([[0, 0, 1], [1, 0, 0], [0, 1, 0]])
    grasp = -R_world_palm.apply([0.0, -0.05, 0.085])
    grasp[2] -= shape.bounds[0, 2]
    phi[:, 22:25] = grasp
    phi[:, 22] -= 0.2 * (1.0 - s)
    phi[:, 24] += rise
    phi[:, 25:] = R_world_palm.as_rotvec()
    world = np.zeros((FRAMES, 7), np.float32)
    world[:, 0] = 1.0
    world[:, 6] = rise - shape.bounds[0, 2]
    return Motion(np.arange(FRAMES, dtype=np.float32) / 15.0, phi, world)


@pytest.fixture(scope="module")
def pictures(hand, shape, motion) -> list[np.ndarray]:
    return video.draw(hand, shape, motion, SIZE)


def orange(picture: np.ndarray) -> np.ndarray:
    """Pixels that show the object, touched or not."""
    r, _, b = np.moveaxis(picture.astype(int), -1, 0)
    return r > b + 40


def changed(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.abs(a.astype(int) - b.astype(int)).max(-1) > 24


def test_a_clip_has_a_picture_a_frame(pictures: list[np.ndarray]) -> None:
    assert len(pictures) == FRAMES
    assert {(p.shape, p.dtype.name) for p in pictures} == {((72, 96, 3), "uint8")}


def test_the_hand_moves_and_the_object_only_when_it_rises(pictures: list[np.ndarray]) -> None:
    first, arrived, waiting, risen = (pictures[i] for i in (0, 3, 4, -1))
    assert changed(first, arrived).mean() > 0.02
    assert (arrived == waiting).all(), "camera, light and object stand still"
    stays = orange(first) & orange(pictures[1])
    assert stays.sum() > 0.9 * orange(first).sum()
    rows_before, rows_after = (np.flatnonzero(orange(p).any(1)) for p in (first, risen))
    assert rows_after.max() < rows_before.max() - 4


def test_the_camera_sees_the_object_all_the_time(pictures: list[np.ndarray]) -> None:
    for picture in pictures:
        seen = orange(picture)
        assert seen.sum() > 50
        border = np.concatenate([seen[0], seen[-1], seen[:, 0], seen[:, -1]])
        assert not border.any()


def test_table_and_forearm_are_shown_together(hand, shape, motion) -> None:
    """The table's top is the plane z = 0; without a table neither it nor the forearm is shown."""
    camera = video.choose_camera(hand, shape, motion)
    place = stage.load_stage(hand, shape)
    phi, world = motion.phi[0], motion.wxyz_xyz_world_object[0]
    geoms = []
    for table in (np.zeros(3), None):
        place.place(phi, world, table)
        grid = np.stack(np.meshgrid(np.arange(96) + 0.5, np.arange(72) + 0.5), axis=-1)
        hits = place.cast(camera.p_world, camera.rays(grid.reshape(-1, 2), SIZE))
        geoms.append({place.model.geom(g).name for g in np.unique(hits.geom) if g >= 0})
        below = hits.geom == place.model.geom("table").id
        if table is not None:
            rays = camera.rays(grid.reshape(-1, 2), SIZE)[below]
            top = camera.p_world + hits.distance[below, None] * rays
            assert below.mean() > 0.1
            assert np.median(top[:, 2]) == pytest.approx(0.0, abs=1e-4)
    assert {"table", "forearm_0", "object"} <= geoms[0]
    assert not {"table", "forearm_0", "forearm_1"} & geoms[1]


def test_every_second_frame_by_a_given_camera(hand, shape, motion, pictures) -> None:
    camera = video.choose_camera(hand, shape, motion, SIZE[0] / SIZE[1])
    some = video.draw(hand, shape, motion, SIZE, every=2, camera=camera)
    assert len(some) == 5
    assert all((a == b).all() for a, b in zip(some, pictures[::2], strict=True))
    smooth = video.draw(hand, shape, motion, SIZE, every=8, camera=camera, smooth=True)
    assert 0.005 < (smooth[0] != pictures[0]).any(-1).mean() < 0.5


def test_a_clip_does_not_depend_on_where_in_the_world_it_happens(hand, shape, motion) -> None:
    moved = Motion(motion.time, motion.phi.copy(), np.asarray(motion.wxyz_xyz_world_object).copy())
    moved.phi[:, 22] += 0.5
    moved.wxyz_xyz_world_object[:, 4] += 0.5
    here, there = (
        video.draw(hand, shape, m, SIZE, every=FRAMES)[0].astype(int) for m in (motion, moved)
    )
    assert (np.abs(here - there) > 8).any(-1).mean() < 0.02


def decoded_from(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [f.to_ndarray(format="rgb24", src_colorspace="ITU709") for f in container.decode()]


def test_mp4_has_the_frames_size_rate_and_colours(tmp_path: Path, pictures) -> None:
    path = video.write_mp4(tmp_path / "new" / "clip.mp4", pictures, rate=12.5)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        assert (context.name, context.pix_fmt) == ("h264", "yuv420p")
        assert stream.average_rate == 12.5
    decoded = decoded_from(path)
    assert len(decoded) == FRAMES
    assert decoded[0].shape == pictures[0].shape
    for before, after in zip(pictures, decoded, strict=True):
        assert np.abs(before.astype(int) - after.astype(int)).mean() < 6
    assert changed(decoded[0], decoded[-1]).mean() > 0.02
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat"), "plays while it loads"
    assert [p.name for p in path.parent.iterdir()] == ["clip.mp4"]


def test_the_same_clip_gives_the_same_pictures(tmp_path: Path, pictures) -> None:
    """Not to the byte: the encoder, of one thread, wrote another file once in hundreds of runs.

    Its pictures were 0.8 of 255 from the usual ones in the mean; what any of them loses is under 6.
    """
    a, b = (decoded_from(video.write_mp4(tmp_path / f"{n}.mp4", pictures)) for n in "ab")
    assert len(a) == len(b) == FRAMES
    for one, other in zip(a, b, strict=True):
        assert np.abs(one.astype(int) - other.astype(int)).mean() < 3.0


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failure_leaves_the_old_file_as_it_was(
    tmp_path: Path, pictures, monkeypatch: pytest.MonkeyPatch, failure: BaseException
) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"old")

    def fails(name: str, *_: object) -> None:
        Path(name).write_bytes(b"half")
        raise failure

    monkeypatch.setattr(video, "_encode", fails)
    expected = RenderError if isinstance(failure, OSError) else KeyboardInterrupt
    with pytest.raises(expected) as caught:
        video.write_mp4(path, pictures)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["clip.mp4"]
    if expected is RenderError:
        assert "No space left" in str(caught.value)
        assert "nothing was changed" in str(caught.value)


def test_a_missing_package_is_named(
    tmp_path: Path, pictures, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(RenderError, match="pip install av"):
        video.write_mp4(tmp_path / "clip.mp4", pictures)
    assert not list(tmp_path.iterdir())


def test_a_strip_shows_eight_columns_from_first_to_last() -> None:
    clip = [np.full((4, 6, 3), 10 * i, np.uint8) for i in range(15)]
    picture = video.strip(clip)
    assert picture.shape == (4, 8 * 6 + 7 * 4, 3)
    assert picture[0, ::10, 0].tolist() == [0, 20, 40, 60, 80, 100, 120, 140]
    assert video.strip(clip, count=8, columns=4).shape == (12, 36, 3)
    assert video.strip(clip[:3]).shape == (4, 26, 3), "no picture twice"


def test_html_carries_the_file(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"\x00video")
    tag = video.as_html(path, label='a "bottle"')
    assert tag == video.as_html(b"\x00video", label='a "bottle"')
    assert tag.startswith("<video controls loop muted")
    assert "a &quot;bottle&quot;" in tag
    found = re.search(r'src="data:video/mp4;base64,([^"]+)"', tag)
    assert found is not None
    assert base64.b64decode(found[1]) == b"\x00video"


def test_mistakes_are_named(tmp_path: Path, hand, shape, motion) -> None:
    broken = Motion(motion.time, motion.phi.copy(), motion.wxyz_xyz_world_object)
    broken.phi[3, 5] = np.nan
    with pytest.raises(RenderError, match="hand pose of frame 3 has NaN"):
        video.draw(hand, shape, broken, SIZE)
    lost = Motion(motion.time, motion.phi, np.full((FRAMES, 7), np.inf))
    with pytest.raises(RenderError, match="object pose of frame 0"):
        video.choose_camera(hand, shape, lost)
    empty = Motion(motion.time[:0], motion.phi[:0], motion.wxyz_xyz_world_object[:0])
    with pytest.raises(RenderError, match="without frames"):
        video.draw(hand, shape, empty)
    for wrong in ({"size": (0, 72)}, {"every": 0}):
        with pytest.raises(RenderError, match="must be positive"):
            video.draw(hand, shape, motion, **wrong)

    path, blank = tmp_path / "clip.mp4", np.zeros((4, 6, 3), np.uint8)
    with pytest.raises(RenderError, match="0 pictures"):
        video.write_mp4(path, [])
    with pytest.raises(RenderError, match="one size"):
        video.write_mp4(path, [blank, np.zeros((4, 8, 3), np.uint8)])
    with pytest.raises(RenderError, match=r"7 x 4; H\.264 needs even"):
        video.write_mp4(path, [np.zeros((4, 7, 3), np.uint8)])
    for rate in (0.0, np.nan):
        with pytest.raises(RenderError, match="rate"):
            video.write_mp4(path, [blank], rate=rate)
    with pytest.raises(RenderError, match="cannot read"):
        video.as_html(path)
    with pytest.raises(RenderError, match="0 pictures"):
        video.strip([])
    with pytest.raises(RenderError, match="different sizes"):
        render.contact_sheet([blank, np.zeros((4, 8, 3), np.uint8)], 2)
    assert not list(tmp_path.iterdir())
