"""Exports read back by pyarrow and PyAV, and held against the published format (v3.0)."""

import json
import os
import pathlib
import sys
from collections.abc import Iterator
from typing import Any

import av
import numpy as np
import pytest

from realdex_jax.data import footage, lerobot, motion_set
from realdex_jax.data.footage import Camera
from realdex_jax.data.motion_set import MotionSet
from realdex_jax.errors import DatasetError
from realdex_jax.hand import joints

parquet = pytest.importorskip("pyarrow.parquet", reason="the extra `lerobot` is not installed")

SIZE = (48, 64)
LENGTHS = (7, 9, 6, 8)
PARTS = {"train": 3, "val": 0, "test": 1}
SAME = 1e-6
"""Values are stored as they are; this is what the format's readers promise."""
PIXEL = 6
"""Levels (of 255) by which H.264 changes an even picture."""


def make(lengths: tuple[int, ...] = LENGTHS, seed: int = 0) -> MotionSet:
    """Reaches of small random steps for a mug, a bowl and again the mug."""
    rng = np.random.default_rng(seed)
    phi = []
    for length in lengths:
        poses = np.cumsum(0.01 * rng.normal(size=(length, 28)), axis=0).astype(np.float32)
        poses[:, :22] = np.clip(poses[:, :22] + joints.REST, joints.LOWER, joints.UPPER)
        phi.append(poses)
    at = rng.normal(size=(len(lengths), 7)).astype(np.float32)
    at[:, :4] /= np.linalg.norm(at[:, :4], axis=1, keepdims=True)
    squeeze = rng.normal(size=(len(lengths), 22)).astype(np.float32)
    return motion_set.of_poses(
        ("mug", "noodle_bowl"), [i % 2 for i in range(len(lengths))], phi, at, squeeze
    )


def level(i: int, frame: int) -> int:
    return 40 + 20 * i + 4 * frame


def camera(motions: MotionSet, size: tuple[int, int] = SIZE) -> Camera:
    """Even grey pictures that say which frame they are, with a brighter corner."""

    def draw(i: int) -> Iterator[np.ndarray]:
        for frame in range(int(motions.lengths()[i])):
            picture = np.full((*size, 3), level(i, frame), np.uint8)
            picture[:8, :8] = 250
            yield picture

    return Camera("side", draw)


@pytest.fixture(scope="module")
def motions() -> MotionSet:
    return make()


@pytest.fixture(scope="module")
def written(motions: MotionSet, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    path = tmp_path_factory.mktemp("lerobot") / "new" / "out"
    return lerobot.write(path, motions, splits=PARTS, cameras=[camera(motions)])


class Checked:
    """An export that keeps the format; every rule of it that a reader relies on is looked at."""

    def __init__(self, root: pathlib.Path) -> None:
        self.root = root
        self.info = json.loads((root / "meta" / "info.json").read_text())
        self.stats = json.loads((root / "meta" / "stats.json").read_text())
        self.episodes = self._tables("meta/episodes")
        self.frames = self._tables("data")
        self.tasks = parquet.read_table(root / "meta" / "tasks.parquet")
        self.videos = [k for k, f in self.info["features"].items() if f["dtype"] == "video"]
        self._check_info()
        self._check_tasks()
        self._check_frames()
        self._check_episodes()
        self._check_statistics()

    def _tables(self, folder: str) -> list[dict[str, Any]]:
        """Rows of all files of a kind, in the order of their names."""
        paths = sorted((self.root / folder).glob("chunk-*/file-*.parquet"))
        assert paths
        return [row for path in paths for row in parquet.read_table(path).to_pylist()]

    def column(self, name: str) -> np.ndarray:
        return np.array([row[name] for row in self.frames])

    def _check_info(self) -> None:
        info = self.info
        assert info["codebase_version"] == "v3.0"
        assert isinstance(info["fps"], int)
        assert info["fps"] > 0
        assert info["total_episodes"] == len(self.episodes)
        assert info["total_frames"] == len(self.frames)
        assert info["total_tasks"] == self.tasks.num_rows
        for name in ("chunks_size", "data_files_size_in_mb", "video_files_size_in_mb"):
            assert isinstance(info[name], int)
            assert info[name] > 0
        assert info["data_path"] == "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
        video = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
        assert info["video_path"] == (video if self.videos else None)
        ends = [0]
        for part in info["splits"].values():
            first, last = map(int, part.split(":"))
            assert first == ends[-1] < last
            ends.append(last)
        assert ends[-1] == len(self.episodes)
        standard = {
            "timestamp": "float32",
            **dict.fromkeys(("frame_index", "episode_index", "index", "task_index"), "int64"),
        }
        for key, feature in info["features"].items():
            assert "/" not in key
            assert {"dtype", "shape", "names"} <= set(feature)
            if key in standard:
                described = {"dtype": standard.pop(key), "shape": [1], "names": None}
                assert feature == described
            elif feature["dtype"] != "video":
                assert len(feature["names"]) == len(set(feature["names"])) == feature["shape"][0]
        assert not standard

    def _check_tasks(self) -> None:
        assert self.tasks.schema.names == ["task_index", "task"]
        assert self.tasks["task_index"].to_pylist() == list(range(self.tasks.num_rows))
        described = json.loads(self.tasks.schema.metadata[b"pandas"])
        assert described["index_columns"] == ["task"]  # readers look sentences up in the index

    def _check_frames(self) -> None:
        for path in (self.root / "data").rglob("*.parquet"):
            schema = parquet.read_schema(path)
            tables = {k for k, f in self.info["features"].items() if f["dtype"] != "video"}
            assert set(schema.names) == tables
            for key in tables:
                kind, feature = schema.field(key).type, self.info["features"][key]
                if feature["shape"] == [1]:
                    assert str(kind) == {"float32": "float"}.get(feature["dtype"], "int64")
                else:
                    assert kind.list_size == feature["shape"][0]
                    assert str(kind.value_type) == "float"
        assert self.column("index").tolist() == list(range(len(self.frames)))
        fine = np.abs(self.column("timestamp") - self.column("frame_index") / self.info["fps"])
        assert fine.max() < 1e-4  # the tolerance of the format's reader, seconds

    def _check_episodes(self) -> None:
        index = 0
        sentences = self.tasks["task"].to_pylist()
        for number, row in enumerate(self.episodes):
            assert row["episode_index"] == number
            assert row["dataset_from_index"] == index
            index += row["length"]
            assert row["dataset_to_index"] == index
            mine = self.frames[row["dataset_from_index"] : row["dataset_to_index"]]
            assert {frame["episode_index"] for frame in mine} == {number}
            assert [frame["frame_index"] for frame in mine] == list(range(row["length"]))
            assert {sentences[frame["task_index"]] for frame in mine} == set(row["tasks"])
            path = self.info["data_path"].format(
                chunk_index=row["data/chunk_index"], file_index=row["data/file_index"]
            )
            stored = parquet.read_table(self.root / path, columns=["episode_index"])
            assert stored["episode_index"].to_pylist().count(number) == row["length"]
            assert (row["meta/episodes/chunk_index"], row["meta/episodes/file_index"]) == (0, 0)
            for key in self.videos:
                long = row[f"videos/{key}/to_timestamp"] - row[f"videos/{key}/from_timestamp"]
                assert long == pytest.approx(row["length"] / self.info["fps"], abs=1e-9)

    def _check_statistics(self) -> None:
        wanted = {"min", "max", "mean", "std", "count", "q01", "q10", "q50", "q90", "q99"}
        for key, feature in self.info["features"].items():
            video = feature["dtype"] == "video"
            for found, count in (
                (self.stats[key], len(self.frames)),
                *(
                    ({name: row[f"stats/{key}/{name}"] for name in wanted}, row["length"])
                    for row in self.episodes
                ),
            ):
                assert set(found) == wanted
                assert found["count"] == [count]
                for name in wanted - {"count"}:
                    shape = (3, 1, 1) if video else tuple(feature["shape"])
                    assert np.shape(found[name]) == shape

    def pictures(self, row: dict[str, Any], key: str) -> list[np.ndarray]:
        """The pictures of an episode, found by time as the format's reader finds them."""
        path = self.info["video_path"].format(
            video_key=key,
            chunk_index=row[f"videos/{key}/chunk_index"],
            file_index=row[f"videos/{key}/file_index"],
        )
        with av.open(str(self.root / path)) as container:
            (stream,) = container.streams
            info = self.info["features"][key]["info"]
            assert stream.codec_context.name == info["video.codec"] == "h264"
            assert stream.codec_context.pix_fmt == info["video.pix_fmt"]
            assert (stream.height, stream.width) == (info["video.height"], info["video.width"])
            assert stream.average_rate == info["video.fps"] == self.info["fps"]
            shown = [
                (float(f.time), f.to_ndarray(format="rgb24")) for f in container.decode(stream)
            ]
        found = []
        for frame in range(row["length"]):
            at = row[f"videos/{key}/from_timestamp"] + frame / self.info["fps"]
            near = min(shown, key=lambda one: abs(one[0] - at))
            assert abs(near[0] - at) < 1e-4
            found.append(near[1])
        return found


def test_motions_come_back(written: pathlib.Path, motions: MotionSet) -> None:
    found = Checked(written)
    np.testing.assert_allclose(found.column("observation.state"), motions.phi, rtol=0, atol=SAME)
    action = found.column("action")
    for i in range(len(motions)):
        first, last = int(motions.first[i]), int(motions.first[i + 1])
        poses = motions.poses(i)
        np.testing.assert_allclose(action[first : last - 1], poses[1:], rtol=0, atol=SAME)
        np.testing.assert_allclose(action[last - 1, :22], motions.q_squeeze[i], rtol=0, atol=SAME)
        np.testing.assert_allclose(action[last - 1, 22:], poses[-1, 22:], rtol=0, atol=SAME)
        np.testing.assert_allclose(
            found.column("observation.environment_state")[first:last],
            np.repeat(motions.wxyz_xyz_world_object[i][None], last - first, axis=0),
            rtol=0,
            atol=SAME,
        )
        np.testing.assert_allclose(
            found.column("timestamp")[first:last], motions.motion(i).time, rtol=0, atol=SAME
        )
    assert found.info["features"]["action"]["names"][:4] == ["FFJ4", "FFJ3", "FFJ2", "FFJ1"]
    assert found.info["splits"] == {"train": "0:3", "test": "3:4"}
    assert found.tasks["task"].to_pylist() == ["grasp the mug", "grasp the noodle bowl"]
    assert [row["tasks"][0] for row in found.episodes] == [
        f"grasp the {name}" for name in ("mug", "noodle bowl", "mug", "noodle bowl")
    ]


def test_statistics_are_those_of_the_values(written: pathlib.Path) -> None:
    found = Checked(written)
    for key in ("observation.state", "action", "timestamp", "index"):
        values = found.column(key).reshape(len(found.frames), -1).astype(np.float64)
        theirs = {name: np.array(value) for name, value in found.stats[key].items()}
        for name, mine in {
            "min": values.min(0),
            "max": values.max(0),
            "mean": values.sum(0) / len(values),
            "std": np.sqrt(((values - values.mean(0)) ** 2).mean(0)),
            "q50": np.median(values, axis=0),
            "q99": np.percentile(values, 99, axis=0),
        }.items():
            np.testing.assert_allclose(theirs[name], mine, rtol=1e-9, atol=1e-9)
    row = found.episodes[1]
    mine = found.column("action")[row["dataset_from_index"] : row["dataset_to_index"]]
    np.testing.assert_allclose(row["stats/action/max"], mine.max(0), rtol=0, atol=SAME)


def test_pictures_are_found_by_time(written: pathlib.Path) -> None:
    found = Checked(written)
    for i, row in enumerate(found.episodes):
        for frame, picture in enumerate(found.pictures(row, "observation.images.side")):
            assert abs(int(picture[30, 40, 1]) - level(i, frame)) <= PIXEL
    key = "observation.images.side"
    assert found.info["features"][key]["shape"] == [*SIZE, 3]
    levels = np.array([level(i, f) for i, n in enumerate(LENGTHS) for f in range(n)]) / 255.0
    corner = 64 / (SIZE[0] * SIZE[1])
    mean = (1 - corner) * levels.mean() + corner * 250 / 255.0
    np.testing.assert_allclose(np.ravel(found.stats[key]["mean"]), mean, atol=1e-9)
    np.testing.assert_allclose(np.ravel(found.stats[key]["min"]), levels.min(), atol=1e-9)
    np.testing.assert_allclose(np.ravel(found.stats[key]["max"]), 250 / 255.0, atol=1e-9)


def test_picture_statistics_are_those_of_all_pixels(rng: np.random.Generator) -> None:
    pixels = rng.integers(0, 256, (3, 5000)) // np.array([[1], [2], [5]])
    histogram = np.stack([np.bincount(c, minlength=256) for c in pixels])
    found = footage.picture_statistics(histogram, 5)
    scaled = pixels / 255.0
    for name, mine in {
        "mean": scaled.mean(1),
        "std": scaled.std(1),
        "min": scaled.min(1),
        "max": scaled.max(1),
        **{
            n: np.quantile(scaled, q, axis=1, method="inverted_cdf")
            for n, q in footage.QUANTILES.items()
        },
    }.items():
        np.testing.assert_allclose(np.ravel(found[name]), mine, rtol=0, atol=1e-9)


def test_large_exports_are_many_files(tmp_path: pathlib.Path) -> None:
    """No file above its limit; an episode is never cut."""
    many = make((90,) * 60)
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (2, 6, 96, 128, 3), np.uint8)
    some = motion_set.take(many, np.arange(6))

    def draw(i: int) -> Iterator[np.ndarray]:
        yield from (noise[i % 2, frame % 6] for frame in range(90))

    big = Checked(lerobot.write(tmp_path / "big", many, data_mb=1))
    paths = sorted((tmp_path / "big" / "data").rglob("*.parquet"))
    assert [p.name for p in paths] == ["file-000.parquet", "file-001.parquet"]
    assert all(p.stat().st_size < 1_000_000 for p in paths)
    np.testing.assert_array_equal(big.column("observation.state").astype(np.float32), many.phi)
    films = Checked(
        lerobot.write(tmp_path / "films", some, cameras=[Camera("wrist", draw)], video_mb=2)
    )
    paths = sorted((tmp_path / "films" / "videos").rglob("*.mp4"))
    assert len(paths) > 1
    assert all(p.stat().st_size < 2_000_000 for p in paths)
    for row in films.episodes:
        assert len(films.pictures(row, "observation.images.wrist")) == 90


def test_files_beyond_a_thousand_go_to_the_next_folder() -> None:
    assert footage.place(999) == {"chunk_index": 0, "file_index": 999}
    assert footage.place(2001) == {"chunk_index": 2, "file_index": 1}


def test_the_same_motions_give_the_same_files(
    written: pathlib.Path, motions: MotionSet, tmp_path: pathlib.Path
) -> None:
    again = lerobot.write(tmp_path / "out", motions, splits=PARTS, cameras=[camera(motions)])
    for path in sorted(p for p in written.rglob("*") if p.is_file()):
        assert path.read_bytes() == (again / path.relative_to(written)).read_bytes(), path


def test_only_its_own_is_replaced(motions: MotionSet, tmp_path: pathlib.Path) -> None:
    out = tmp_path / "out"
    lerobot.write(out, motions)
    assert Checked(out).videos == []
    one = motion_set.take(motions, np.array([2]))
    lerobot.write(out, one)
    assert len(Checked(out).episodes) == 1
    (out / lerobot.MARK).unlink()  # a dataset that somebody recorded has no such file
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    with pytest.raises(DatasetError, match="neither an empty folder nor an export of this kind"):
        lerobot.write(out, motions)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(DatasetError, match="neither an empty folder"):
        lerobot.write(tmp_path / "file", motions)
    assert {p: p.read_bytes() for p in out.rglob("*") if p.is_file()} == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "out"]


def test_a_failure_leaves_the_old_export_whole(motions: MotionSet, tmp_path: pathlib.Path) -> None:
    out = lerobot.write(tmp_path / "out", motions)
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}

    def broken(i: int) -> Iterator[np.ndarray]:
        yield np.zeros((*SIZE, 3), np.uint8)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lerobot.write(out, motions, cameras=[Camera("side", broken)])
    assert {p: p.read_bytes() for p in out.rglob("*") if p.is_file()} == before
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    if os.geteuid():  # nothing is forbidden to root
        tmp_path.chmod(0o500)
        with pytest.raises(DatasetError, match="nothing was changed"):
            lerobot.write(tmp_path / "other", motions)
        tmp_path.chmod(0o700)


def test_mistakes_are_named(motions: MotionSet, tmp_path: pathlib.Path) -> None:
    def fails(message: str, **settings: Any) -> None:
        with pytest.raises(DatasetError, match=message):
            lerobot.write(tmp_path / "out", settings.pop("motions", motions), **settings)

    def pictures(*sizes: tuple[int, ...]) -> Camera:
        return Camera("side", lambda i: [np.zeros(size, np.uint8) for size in sizes])

    fails("no motions to export", motions=motion_set.take(motions, np.zeros(0, int)))
    fails("do not add up to 4 motions", splits={"train": 3})
    fails("do not add up to 4 motions", splits={"train": 5, "test": -1})
    fails("files of 0 and 200 MB", data_mb=0)
    fails("camera '../up'; names are of letters", cameras=[Camera("../up", lambda i: [])])
    fails("two cameras are called 'side'", cameras=[pictures(), pictures()])
    fails("motion 0: 0 pictures of 7 frames", cameras=[pictures()])
    fails("motion 0: 8 pictures of 7 frames", cameras=[pictures(*[(8, 8, 3)] * 8)])
    fails("H.264 needs", cameras=[pictures((9, 8, 3))])
    fails(r"a picture of \(8, 16, 3\) after ones of", cameras=[pictures((8, 8, 3), (8, 16, 3))])
    assert not list(tmp_path.iterdir())


def test_no_extra_is_said(
    motions: MotionSet, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DatasetError, match=r"pip install 'realdex_jax\[lerobot\]'"):
        lerobot.write(tmp_path / "out", motions)
    assert not list(tmp_path.iterdir())


def test_pandas_finds_sentences_in_the_index(written: pathlib.Path) -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    tasks = pandas.read_parquet(written / "meta" / "tasks.parquet")
    assert tasks.loc["grasp the noodle bowl"].task_index == 1


def test_the_format_s_own_reader_reads_it(
    written: pathlib.Path, motions: MotionSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("lerobot", reason="the package lerobot is not installed")
    from lerobot.datasets.lerobot_dataset import (  # pyright: ignore[reportMissingImports]
        LeRobotDataset,
    )

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    dataset = LeRobotDataset("realdex", root=written, video_backend="pyav")
    assert (len(dataset), dataset.num_episodes, dataset.fps) == (len(motions.phi), 4, 15)
    for index in range(len(dataset)):
        item = dataset[index]
        np.testing.assert_allclose(item["observation.state"], motions.phi[index], atol=SAME)
    assert item["task"] == "grasp the noodle bowl"
    assert item["observation.images.side"].shape == (3, *SIZE)
