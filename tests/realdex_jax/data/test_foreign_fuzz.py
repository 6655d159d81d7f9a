"""Mutated files of other people's layouts, one at a time: read, or refused by a name in the error.

No code in them is run. `REALDEX_MUTATIONS=10000` tries ten thousand of every kind.
"""

import io
import pathlib
import pickle
import resource
import zipfile
from collections.abc import Callable

import numpy as np
import pytest
from mutation import SOME, TIMEOUT, Canary, attack
from PIL import Image
from scipy.spatial.transform import Rotation

from realdex_jax.data import (
    archive,
    calibration,
    dexgraspbench,
    dexgraspnet,
    grab_sequence,
    mano,
    pictures,
    realdex_export,
    realdex_files,
    realdex_layout,
    realdex_write,
    rigid,
    teleop,
    textfile,
    tf_series,
    unpickle,
)
from realdex_jax.data.realdex_raw import Recording
from realdex_jax.errors import DatasetError
from realdex_jax.geometry.lens import Lens
from realdex_jax.hand import joints
from realdex_jax.hand.load import load
from tests.realdex_jax.data import hand_files

HAND = load("shadow")
STAMPS = 1_701_936_000_123_456_789 + 66_666_667 * np.arange(4)
GROWN = 2**30
"""Bytes that reading all of them may add to the process."""

Formats = dict[str, tuple[pathlib.Path, Callable[[pathlib.Path], object]]]


def of_release(root: pathlib.Path, capture, ball, bent, put) -> Formats:
    """A recording, a sequence and a download of the RealDex release, file by file."""
    motion = capture(0, reach=8, lift=4)
    files = realdex_export.recording_files([motion], [np.arange(7, 12)], [bent(motion)])
    folder = put(root / "box_1", files)
    put(root / "box", {"0.npz": realdex_export.sequence_bytes(motion, ball[:50])})
    names = tuple(sorted(f"box_1/{name}" for name in files))

    def recording(_: pathlib.Path) -> object:
        return realdex_files.read_recording(realdex_layout.Folder(root, names), "box_1")

    def sequence(_: pathlib.Path) -> object:
        return realdex_files.read_sequence(realdex_layout.Folder(root, ("box/0.npz",)), "box/0.npz")

    with zipfile.ZipFile(root / "box.zip", "w", zipfile.ZIP_DEFLATED) as out:
        for name, content in files.items():
            out.writestr(f"storage/box_1/{name}", content)

    def download(path: pathlib.Path) -> object:
        found = archive.open_archive(path)
        return [found.read(name, 2**20) for name in found.names]

    read = [name for name in files if not name.startswith("tracking_result")]
    return {
        **{name: (folder / name, recording) for name in read},
        "sequence": (root / "box" / "0.npz", sequence),
        "download": (root / "box.zip", download),
    }


def of_raw(root: pathlib.Path) -> Formats:
    """A raw recording of one camera, its calibration, and the cache of its link poses."""
    rng = np.random.default_rng(6)
    turn = Rotation.random(8, rng=rng).as_quat(scalar_first=True)
    poses = np.concatenate([turn, rng.uniform(-1, 1, (8, 3))], axis=1)
    q = rng.uniform(joints.LOWER, joints.UPPER, (4, 22))
    links = realdex_write.hand_links(HAND, q, poses[:4])
    scene = realdex_write.Scene(STAMPS, links, poses[4:], poses[0], ((0, 2), (2, 4)))
    lens = Lens(24, 18, 20.0, 20.5, 11.0, 8.5, (0.1, -0.05, 1e-3, -1e-3, 0.02, 0.05, 0.01, 0.0))
    realdex_write.write_calibration(
        root,
        calibration.Calibration((0, 1), dict.fromkeys((0, 1), lens), {0: poses[0], 1: poses[1]}),
    )
    colour = rng.integers(0, 256, (18, 24, 3), np.uint8)
    depth = rng.integers(0, 4000, (18, 24)).astype(np.uint16)
    folder = root / "duck_toy_1"
    realdex_write.write_recording(
        folder, scene, (0,), lambda camera, k: realdex_write.Picture(colour, depth)
    )
    Image.fromarray(colour).save(root / "0.jpg")
    order = sorted(tf_series._joints(HAND), key=lambda joint: joint[3])
    stamps = [int(stamp) for stamp in STAMPS]
    cache = {
        "global_tf": {stamp: {tf_series.PALM: rigid.matrix(poses[0])} for stamp in stamps},
        "joint_angle": {stamp: {link: 0.1 for link, *_ in order} for stamp in stamps},
    }
    value = np.empty((), object)
    value[()] = cache
    np.save(root / "tf_seq.npy", value, allow_pickle=True)
    edge = sorted((folder / "TF").glob("*.txt"))[0]

    def picture(path: pathlib.Path) -> object:
        modes = ("RGB",) if path.suffix == ".jpg" else ("I;16", "I;16B", "I")
        return pictures.read_picture(path.parent, 0, (24, 18), modes)

    return {
        "edge": (edge, tf_series.read_edge),
        "tf_seq": (root / "tf_seq.npy", lambda path: tf_series.read_cache(HAND, path)),
        "track": (
            folder / "tracking_result" / "gt_pose.txt",
            lambda _: Recording(folder).object_track(),
        ),
        "segments": (folder / "segment.txt", lambda _: Recording(folder).segments()),
        "robot times": (folder / "scene_to_mesh.json", lambda _: Recording(folder).robot_time_ns),
        "camera times": (folder / "rgbimage_timestamp.txt", textfile.read_stamps),
        "lens": (next(root.rglob("cam0_rgb.txt")), calibration.read_lens),
        "extrinsic": (next(root.rglob("cali01.json")), calibration.read_extrinsic),
        "depth": (folder / "cam0" / pictures.DEPTH / "0.png", picture),
        "colour": (root / "0.jpg", picture),
    }


def of_others(root: pathlib.Path) -> Formats:
    """DexGraspNet, DexGraspBench, MANO, GRAB and Adroit."""
    rng = np.random.default_rng(0)
    keys = (*joints.DEXGRASPNET_NAMES, *dexgraspnet.EULER, *dexgraspnet.TRANSLATION)
    rows = [
        {"scale": 0.08, "qpos": dict(zip(keys, rng.uniform(0, 0.2, 28).tolist(), strict=True))}
        for _ in range(8)
    ]
    np.save(root / "object.npy", np.array(rows, dtype=object), allow_pickle=True)
    posture = np.concatenate([[0, 0, 0, 1, 0, 0, 0], joints.REST])
    row = {
        "obj_path": "a/b",
        "obj_scale": 0.1,
        "obj_pose": posture[:7],
        **dict.fromkeys(dexgraspbench.POSTURES, posture),
    }
    (root / "row.npy").write_bytes(hand_files.npy(row))
    np.savez(root / "door.npz", observations_00=np.zeros((20, teleop._WIDTH)))
    model = hand_files.write_model(root / "MANO_RIGHT.pkl")
    small = hand_files.reach(frames=24, onset=12)
    sequence = hand_files.write_sequence(root / "mug_lift_1.npz", small)
    return {
        "dexgraspnet": (
            root / "object.npy",
            lambda path: dexgraspnet.parse(unpickle.load_objects(path), str(path)),
        ),
        "dexgraspbench": (root / "row.npy", dexgraspbench._read_row),
        "adroit": (root / "door.npz", teleop.read_adroit),
        "mano": (model, mano.read),
        "grab": (sequence, grab_sequence.read),
    }


@pytest.fixture
def formats(tmp_path: pathlib.Path, capture, ball, bent, put) -> Formats:
    """One good file of each kind and how it is read."""
    for name in ("release", "raw", "others"):
        (tmp_path / name).mkdir()
    return {
        **of_release(tmp_path / "release", capture, ball, bent, put),
        **of_raw(tmp_path / "raw"),
        **of_others(tmp_path / "others"),
    }


def tried(formats: Formats, canary: Canary, count: int, seed: int) -> dict[str, int]:
    return {what: attack(path, read, count, seed, canary) for what, (path, read) in formats.items()}


def test_some_mutations_of_every_format(formats: Formats, tmp_path: pathlib.Path) -> None:
    tally = tried(formats, Canary(tmp_path / "ran"), 12, seed=1)
    assert len(tally) > 18
    assert not [what for what, refused in tally.items() if not refused]


@pytest.mark.slow
@pytest.mark.timeout(TIMEOUT)
def test_many_mutations_of_every_format(formats: Formats, tmp_path: pathlib.Path) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tally = tried(formats, Canary(tmp_path / "ran"), SOME, seed=2)
    assert all(0.05 * SOME < refused <= SOME for refused in tally.values()), tally
    assert 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) < GROWN


def test_the_canary_dies_where_a_pickle_is_believed(tmp_path: pathlib.Path) -> None:
    canary = Canary(tmp_path / "ran")
    for content in canary.pickles:
        assert not canary.dead
        pickle.loads(content)
        assert canary.dead
        canary.place.rmdir()
    path = tmp_path / "x.npy"
    np.save(path, np.array([{}], dtype=object), allow_pickle=True)

    def believes(file: pathlib.Path) -> object:
        try:
            return np.load(io.BytesIO(file.read_bytes()), allow_pickle=True)
        except Exception as error:
            raise DatasetError(file.name) from error

    with pytest.raises(AssertionError):
        attack(path, believes, 200, 0, canary)
    assert canary.dead
