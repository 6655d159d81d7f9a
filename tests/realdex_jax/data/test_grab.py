"""GRAB's reader on made-up files of its layout: whole ones, broken ones, and one that bites."""

import os
import pathlib
import shutil
import zipfile

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from realdex_jax.data import grab, grab_sequence, mano, motion, npz, schema
from realdex_jax.data.source import Source
from realdex_jax.errors import DatasetError, UnsafePickleError
from realdex_jax.hand import human
from realdex_jax.hand.load import load
from tests.realdex_jax.data import hand_files

TIPS = np.array(human.TIPS)
ONSET = 150


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> pathlib.Path:
    """Two mugs, one of them pushed by nobody's right hand, and an apple."""
    root = tmp_path_factory.mktemp("GRAB")
    template = hand_files.model_arrays()["v_template"]
    hand_files.write_tools(root, template)
    hand_files.write_model(root / "MANO_RIGHT.pkl")
    hand_files.write_sequence(root / "grab/s1/mug_lift_1.npz", hand_files.reach())
    left = hand_files.reach()
    left["contact"]["object"][:] = 21
    hand_files.write_sequence(root / "grab/s2/mug_pass_1.npz", left)
    hand_files.write_sequence(root / "grab/s10/apple_eat_1.npz", hand_files.reach("apple"))
    return root


@pytest.fixture(scope="module")
def unit(root):
    return grab.open_source(root, mano=root).read("mug")


def human_keypoints(sequence: dict, frame: int) -> np.ndarray:
    """The 21 keypoints in the world, by the whole pose and not by its components."""
    arrays = hand_files.model_arrays()
    tips = list(mano.TIPS)
    model = mano.Mano(
        template=arrays["v_template"],
        regressor=arrays["J_regressor"].toarray(),
        tip_weights=arrays["weights"][tips],
        tip_shapes=arrays["posedirs"][tips],
        components=np.full((45, 45), np.nan),
    )
    params = {k: v[[frame]].astype(float) for k, v in sequence["rhand"]["params"].items()}
    return mano.keypoints(
        model, arrays["v_template"], params["global_orient"], params["fullpose"], params["transl"]
    )[0]


def test_the_layout_is_recognised(root, tmp_path):
    assert grab.recognise(root)
    assert grab.recognise(root / "grab")
    assert not grab.recognise(tmp_path)
    assert not grab.recognise(root / "tools")
    source = grab.open_source(root / "grab", mano=root)
    assert isinstance(source, Source)
    assert source.format == "grab"
    assert list(source.units) == ["apple", "mug"]
    assert source.splits(["apple", "cup", "mug"]) == {
        "train": ["cup"],
        "val": ["apple"],
        "test": ["mug"],
    }


def test_fingertips_of_the_grasp_are_where_the_persons_were(unit):
    sequence = hand_files.reach()
    keypoints = human_keypoints(sequence, ONSET)
    thing = {k: v[ONSET].astype(float) for k, v in sequence["object"]["params"].items()}
    # Their rows of vertices times the rotation matrix, plus the shift; undone.
    R = Rotation.from_rotvec(thing["global_orient"]).as_matrix()
    p_object = (keypoints - thing["transl"]) @ np.linalg.inv(R)
    schema.validate(unit.grasps)
    reached = np.asarray(human.keypoints_of(load(), jnp.asarray(unit.grasps.phi)))[0]
    off = np.linalg.norm((reached - p_object)[TIPS], axis=1)
    # This hand is smaller than the robot's: its little finger's tip is hard to reach so.
    assert off.max() < 0.01
    assert np.median(off) < 0.003
    assert unit.grasps.columns["tip_error_mm"][0] == pytest.approx(1e3 * off.max(), abs=0.1)
    assert unit.grasps.columns["subject"].tolist() == [1]


def test_the_reach_ends_at_the_grasp_over_a_table_at_zero(unit):
    (found,) = (unit.motions.motion(i) for i in range(len(unit.motions)))
    motion.validate(found)
    # 150 frames at 120 Hz are 1.25 s: frames 150, 142, ..., 6.
    assert len(found) == 19
    assert np.allclose(found.time, np.arange(19) / 15.0)
    assert unit.motions.name(0) == "mug"
    seen = motion.in_object_frame(found)
    assert np.allclose(seen.phi[-1, :25], unit.grasps.phi[0, :25], atol=1e-5)
    turns = [Rotation.from_rotvec(phi[25:]) for phi in (seen.phi[-1], unit.grasps.phi[0])]
    assert (turns[0].inv() * turns[1]).magnitude() < 1e-4
    world = found.wxyz_xyz_world_object[0]
    corners = np.array([[float(x) for x in line.split()[1:]] for line in vertex_lines(unit.mesh)])
    placed = Rotation.from_quat(world[:4], scalar_first=True).apply(corners) + world[4:]
    assert placed[:, 2].min() == pytest.approx(0.0, abs=1e-6)
    palm = np.linalg.norm(found.phi[:, 22:25] - found.phi[-1, 22:25], axis=1)
    assert palm[0] > 0.3
    assert (np.diff(palm) < 0).all()
    assert np.abs(np.diff(found.phi[:, :22], axis=0)).max() <= grab.CONFIG.max_step + 1e-5
    assert np.array_equal(unit.grasps.q_pregrasp[0], found.phi[-1 - grab.PREGRASP, :22])


def vertex_lines(mesh: bytes) -> list[str]:
    return [line for line in mesh.decode().splitlines() if line.startswith("v ")]


def test_what_is_not_used_is_noted(unit):
    assert len(unit.motions) == len(unit.grasps) == 1
    (note,) = unit.notes
    assert "mug_pass_1.npz of s2 is not used: the right hand does not hold" in note


def test_reading_again_gives_the_same(root, unit):
    again = grab.open_source(root, mano=root / "MANO_RIGHT.pkl").read("mug")
    assert np.array_equal(again.grasps.phi, unit.grasps.phi)
    assert np.array_equal(again.motions.phi, unit.motions.phi)
    assert again.mesh == unit.mesh


def test_ready_keypoints_do_as_well(root, unit, tmp_path):
    sequence = hand_files.reach()
    frames = np.stack([human_keypoints(sequence, t) for t in range(180)])
    (tmp_path / "s1").mkdir()
    np.savez(tmp_path / "s1/mug_lift_1.npz", right=frames)
    found = grab.open_source(root, keypoints=tmp_path).read("mug")
    # Stored components are in single precision.
    assert np.allclose(found.grasps.phi, unit.grasps.phi, atol=1e-3)
    np.savez(tmp_path / "s1/mug_lift_1.npz", right=frames[:-1])
    with pytest.raises(
        DatasetError, match=r"mug_lift_1\.npz: needs an array 'right' \(180, 21, 3\)"
    ):
        grab.open_source(root, keypoints=tmp_path).read("mug")
    np.savez(tmp_path / "s1/mug_lift_1.npz", right=1e3 * frames)
    with pytest.raises(DatasetError, match="in metres"):
        grab.open_source(root, keypoints=tmp_path).read("mug")


def test_without_a_model_the_error_says_what_to_get(root, monkeypatch):
    monkeypatch.delenv(mano.VARIABLE, raising=False)
    with pytest.raises(DatasetError, match=r"MANO_RIGHT\.pkl.*REALDEX_MANO.*keypoints="):
        grab.open_source(root)
    with pytest.raises(DatasetError, match="no such folder"):
        grab.open_source(root, keypoints=root / "none")
    with pytest.raises(DatasetError, match="not GRAB's layout"):
        grab.open_source(root / "tools", mano=root)
    with pytest.raises(DatasetError, match="known: apple, mug"):
        grab.open_source(root, mano=root).read("cup")


def test_the_onset_is_the_first_lasting_move(root, tmp_path):
    sequence = hand_files.reach()
    sequence["object"]["params"]["transl"][40:45, 0] += 0.02  # a tracker's blunder
    path = hand_files.write_sequence(tmp_path / "mug_lift_1.npz", sequence)
    assert grab_sequence.read(path).onset() == ONSET
    turned = hand_files.reach()
    turned["object"]["params"]["global_orient"][100:, 1] += 0.1
    assert grab_sequence.read(hand_files.write_sequence(path, turned)).onset() == 100
    still = hand_files.reach()
    still["object"]["params"]["transl"][:] = still["object"]["params"]["transl"][0]
    assert grab_sequence.read(hand_files.write_sequence(path, still)).onset() is None


def test_fingers_that_touch_are_counted(root, tmp_path):
    path = root / "grab/s1/mug_lift_1.npz"
    found = grab_sequence.read(path)
    assert found.subject == 1
    assert found.parts is not None
    assert set(found.parts[:130]) == {0}
    assert set(found.parts[130:]) == {2}
    untold = hand_files.reach()
    del untold["contact"]
    path = hand_files.write_sequence(tmp_path / "mug_lift_1.npz", untold)
    assert grab_sequence.read(path).held(ONSET)


def breaks() -> list[tuple[str, object, str]]:
    def drop(part):
        return lambda s: s.pop(part)

    def put(value, *keys):
        def change(s):
            for key in keys[:-1]:
                s = s[key]
            s[keys[-1]] = value

        return change

    nan = np.zeros((180, 3), np.float32)
    nan[7, 1] = np.nan
    hand = ("rhand", "params")
    return [
        ("no hand", drop("rhand"), "lacks rhand"),
        ("no rate", drop("framerate"), "lacks framerate"),
        ("rate", put(0.0, "framerate"), "framerate is 0"),
        ("name", put("cup", "obj_name"), "obj_name is 'cup'"),
        ("list", put([1, 2], "rhand"), "rhand is a ndarray; it must be a dict"),
        (
            "short",
            put(np.zeros((9, 3)), *hand, "global_orient"),
            r"global_orient has shape \(9, 3\)",
        ),
        ("none", put(None, *hand, "transl"), "rhand has 0 frames"),
        ("wide", put(np.zeros((180, 99)), *hand, "hand_pose"), "1 to 45"),
        ("nan", put(nan, "object", "params", "transl"), "transl is not finite in frame 7"),
        ("text", put("left", "object", "params", "transl"), "must be numbers"),
        ("touch", put(np.zeros((9, 4), np.int8), "contact", "object"), "contact has 9 frames"),
        ("label", put(np.full((180, 4), -3), "contact", "object"), "labels are 0 to 55"),
        ("labels", put("all", "contact", "object"), "contact has no array 'object'"),
        ("mesh", put(3, "object", "object_mesh"), "must be text"),
    ]


@pytest.mark.parametrize(("name", "change", "message"), breaks(), ids=[b[0] for b in breaks()])
def test_broken_sequences_are_refused_by_name(tmp_path, name, change, message):
    sequence = hand_files.reach()
    change(sequence)
    path = hand_files.write_sequence(tmp_path / "s1/mug_lift_1.npz", sequence)
    with pytest.raises(DatasetError, match=rf"mug_lift_1\.npz.*{message}"):
        grab_sequence.read(path)


class Runs:
    def __init__(self, *args):
        self.args = args

    def __reduce__(self):
        return os.mkdir, self.args


def test_one_bad_file_does_not_lose_the_others(root, tmp_path):
    shutil.copytree(root, tmp_path / "GRAB")
    place = tmp_path / "GRAB/grab/s3"
    trace = tmp_path / "trace"
    bites = hand_files.write_sequence(place / "mug_bite_1.npz", hand_files.reach())
    with zipfile.ZipFile(bites) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["rhand.npy"] = hand_files.npy({"params": Runs(str(trace)), "vtemp": ""})
    with zipfile.ZipFile(bites, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(
        UnsafePickleError, match=r"mug_bite_1\.npz: member 'rhand\.npy': the pickle asks for"
    ):
        grab_sequence.read(bites)
    escapes = hand_files.reach()
    escapes["rhand"]["vtemp"] = "../../etc/hand.ply"
    hand_files.write_sequence(place / "mug_out_1.npz", escapes)
    whole = bites.read_bytes()
    (place / "mug_cut_1.npz").write_bytes(whole[: len(whole) // 2])
    unit = grab.open_source(tmp_path / "GRAB", mano=root).read("mug")
    assert not trace.exists()
    assert len(unit.grasps) == 1
    assert len(unit.notes) == 4
    for name, why in (("bite", "asks for"), ("out", "lies outside"), ("cut", "not a readable")):
        (note,) = [n for n in unit.notes if f"mug_{name}_1.npz" in n]
        assert note.startswith("refused: ")
        assert why in note
    (tmp_path / "GRAB/tools/object_meshes/contact_meshes/apple.ply").unlink()
    with pytest.raises(DatasetError, match=r"apple has no usable sequence.*no such file"):
        grab.open_source(tmp_path / "GRAB", mano=root).read("apple")


def test_a_bomb_is_not_unpacked(tmp_path, monkeypatch):
    path = hand_files.write_sequence(tmp_path / "mug_lift_1.npz", hand_files.reach())
    monkeypatch.setattr(npz, "MAX_EXPANDED_BYTES", 4000)
    with pytest.raises(DatasetError, match=r"mug_lift_1\.npz.*at most 4000 are read"):
        grab_sequence.read(path)


@pytest.mark.slow
def test_damage_anywhere_is_an_error_of_ours_or_none(tmp_path, rng):
    small = hand_files.reach(frames=24, onset=12)
    path = hand_files.write_sequence(tmp_path / "mug_lift_1.npz", small)
    whole = path.read_bytes()
    np.savez(path, **small)
    contents = (whole, path.read_bytes())
    refused = 0
    for i in range(10_000):
        raw = bytearray(contents[i % 2])
        for at in rng.integers(len(raw), size=rng.integers(1, 6)):
            raw[at] = rng.integers(256)
        path.write_bytes(raw[: rng.integers(len(raw)) if rng.random() < 0.2 else None])
        message = damaged(path)
        refused += message is not None
        assert message is None or "mug_lift_1.npz" in message
    assert refused > 5000


def damaged(path: pathlib.Path) -> str | None:
    """What a reader says of a file; any other exception is a failure."""
    try:
        grab_sequence.read(path)
    except DatasetError as error:
        return str(error)
    return None
