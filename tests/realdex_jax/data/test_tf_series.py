"""The robot's series: chains, angles, gaps, the tools' cache; MuJoCo's kinematics as witness."""

import mujoco
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from realdex_jax.data import realdex_write, rigid, tf_series
from realdex_jax.data.realdex_write import Scene
from realdex_jax.data.tf_series import Tree
from realdex_jax.errors import DatasetError, UnsafePickleError
from realdex_jax.hand import joints
from realdex_jax.hand.load import load

HAND = load("shadow")
START, STEP = 1_701_936_000_123_456_789, 33_333_333
ANGLE = 1e-6
"""Radians and metres: the hand's constants are kept in single precision."""


def poses(rng: np.random.Generator, count: int) -> np.ndarray:
    wxyz = rng.normal(size=(count, 4))
    wxyz /= np.linalg.norm(wxyz, axis=1, keepdims=True)
    return np.concatenate([wxyz, rng.uniform(-1, 1, (count, 3))], axis=1)


def written(tmp_path, rng, count=5):
    """A recording's series, and what is in it: q, wrist, palm, stamps."""
    q = rng.uniform(joints.LOWER, joints.UPPER, (count, 22))
    wrist = rng.uniform(-0.3, 0.15, (count, 2))
    palm = np.repeat(poses(rng, 1), count, axis=0)
    palm[:, 4:] += 0.01 * np.arange(count)[:, None]
    stamps = START + STEP * np.arange(count)
    links = realdex_write.hand_links(HAND, q, palm, wrist)
    scene = Scene(stamps, links, palm, palm[0])
    realdex_write.write_scene(tmp_path, scene, (0,))
    return tmp_path / "TF", q, wrist, palm, stamps


def test_palm_wrist_and_joints_come_back(tmp_path, rng):
    folder, q, wrist, palm, stamps = written(tmp_path, rng)
    track = tf_series.hand_track(HAND, folder, stamps)
    assert track.valid.all()
    np.testing.assert_allclose(track.q, q, atol=ANGLE)
    np.testing.assert_allclose(track.q_wrist, wrist, atol=1e-12)
    T, expected = (
        np.stack([rigid.matrix(x) for x in p]) for p in (track.wxyz_xyz_world_palm, palm)
    )
    np.testing.assert_allclose(T, expected, atol=1e-12)
    R = Rotation.from_rotvec(track.phi[:, 25:]).as_matrix()
    np.testing.assert_allclose(R, expected[:, :3, :3], atol=1e-12)
    np.testing.assert_array_equal(track.phi[:, 22:25], track.wxyz_xyz_world_palm[:, 4:])


def test_links_are_where_mujoco_puts_them(tmp_path, rng):
    folder, q, _, palm, stamps = written(tmp_path, rng, 3)
    model = mujoco.MjModel.from_xml_path(str(HAND.mjcf))
    data = mujoco.MjData(model)
    tree = Tree(folder)
    for name in ("ffdistal", "lfdistal", "thdistal", "thhub"):
        placed, _ = tree.poses(f"rh_{name}", stamps)
        for t in range(3):
            for j, joint in enumerate(joints.NAMES):
                data.qpos[model.jnt_qposadr[model.joint(joint).id]] = q[t, j]
            mujoco.mj_kinematics(model, data)
            body = model.body(name).id
            p = rigid.apply(palm[t], data.xpos[body][None])[0]
            np.testing.assert_allclose(placed[t, 4:], p, atol=ANGLE)
            R = rigid.matrix(palm[t])[:3, :3] @ data.xmat[body].reshape(3, 3)
            np.testing.assert_allclose(rigid.matrix(placed[t])[:3, :3], R, atol=ANGLE)


def test_the_forearm_lies_a_quarter_metre_behind_the_palm(tmp_path, rng):
    palm = np.array([[1.0, 0, 0, 0, 0, 0, 0]])
    links = realdex_write.hand_links(HAND, np.zeros((1, 22)), palm)
    forearm = links["world", "rh_forearm"][0]
    np.testing.assert_allclose(forearm[4:], [0.0, 0.010, -0.24701], atol=1e-12)
    # 0.1 rad of wrist, which the exported sequences drop, moves the palm by millimetres.
    bent = realdex_write.hand_links(HAND, np.zeros((1, 22)), palm, np.array([[0.0, 0.1]]))
    moved = bent["world", "rh_forearm"][0, 4:] - forearm[4:]
    assert 0.02 < np.linalg.norm(moved) < 0.03


def test_between_messages_poses_are_interpolated_and_gaps_are_told(tmp_path):
    folder = tmp_path / "TF"
    folder.mkdir()
    second = 1_000_000_000
    rows = [(0, 0.0, 0.0), (0.1, 0.2, 0.4), (1.0, 1.0, 1.0), (1.1, 1.0, 1.2)]
    lines = [
        f"{START + int(t * second)} {x} 0 0 0 0 {np.sin(a / 2)} {np.cos(a / 2)}" for t, x, a in rows
    ]
    (folder / "world-tool.txt").write_text("\n".join(lines))
    wanted = START + np.array([0.025, 0.5, 1.05, 1.15, 1.3, -0.2]) * second
    found, valid = Tree(folder).poses("tool", wanted.astype(np.int64))
    np.testing.assert_array_equal(valid, [True, False, True, True, False, False])
    np.testing.assert_allclose(found[[0, 2, 3], 4], [0.05, 1.0, 1.0], atol=1e-6)
    turn = Rotation.from_quat(found[:, :4], scalar_first=True).as_rotvec()[:, 2]
    np.testing.assert_allclose(turn[[0, 2, 3]], [0.1, 1.1, 1.2], atol=1e-6)


def test_a_link_of_one_message_is_known_always_and_the_last_of_equal_stamps_counts(tmp_path):
    folder = tmp_path / "TF"
    folder.mkdir()
    (folder / "world-base.txt").write_text("0 1 2 3 0 0 0 1\n")
    (folder / "base-tool.txt").write_text(
        f"{START + 10} 0 0 2 0 0 0 1\n{START} 0 0 0 0 0 0 1\n{START} 0 0 1 0 0 0 1\n"
    )
    found, valid = Tree(folder).poses("tool", np.array([START, START + 5]))
    assert valid.all()
    np.testing.assert_allclose(found[:, 4:], [[1, 2, 4], [1, 2, 4.5]])
    edge = tf_series.read_edge(folder / "base-tool.txt")
    assert edge.time_ns.tolist() == [START, START + 10]


def test_messages_that_are_no_poses_are_left_out(tmp_path):
    lines = ["0 0 0 nan 0 0 0 1", "5 1 0 0 0 0 0 1", "6 9 0 0 0 0 0 0", "7 9e9 0 0 0 0 0 1"]
    (tmp_path / "world-tool.txt").write_text("\n".join([*lines, "9 2 0 0 0 0 0 1"]))
    edge = tf_series.read_edge(tmp_path / "world-tool.txt")
    assert edge.time_ns.tolist() == [5, 9]
    assert edge.wxyz_xyz_parent_link[:, 4].tolist() == [1, 2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"world-tool\.txt: no line"),
        ("5 0 0 0 0 0 0\n", "line 1: 6 numbers, expected 7"),
        ("5 0 0 0 0 0 0 1\n6 0 0 x 0 0 0 1\n", "line 2: could not convert"),
        ("5 0 0 nan 0 0 0 1\n", "row 1 has a number that is not finite"),
        ("-5 0 0 0 0 0 0 1\n", "time stamp '-5' is not a count of ns"),
        ("1e999999999 0 0 0 0 0 0 1\n", "time stamp"),
        ("9223372036854775808 0 0 0 0 0 0 1\n", "time stamp"),
        ("5 0 0 0 0 0 0 0.5\n", r"quaternion of row 1 has length 0\.5"),
        ("\x00\xff", "not UTF-8"),
    ],
)
def test_malformed_files_are_refused_by_name(tmp_path, text, message):
    folder = tmp_path / "TF"
    folder.mkdir()
    (folder / "world-tool.txt").write_bytes(text.encode("latin1"))
    with pytest.raises(DatasetError, match=message):
        Tree(folder).poses("tool", np.array([5]))


def test_broken_chains_say_where(tmp_path):
    folder = tmp_path / "TF"
    folder.mkdir()
    for name in ("a-b", "b-a", "world-c", "d-c"):
        (folder / f"{name}.txt").write_text("0 0 0 0 0 0 0 1\n")
    tree = Tree(folder)
    with pytest.raises(DatasetError, match="hangs on a, which hangs on it"):
        tree.chain("a")
    with pytest.raises(DatasetError, match=r"has d-c\.txt, world-c\.txt"):
        tree.chain("c")
    with pytest.raises(DatasetError, match=r"'rh_palm' must have one file .* no file"):
        tf_series.hand_track(HAND, folder, np.array([5]))


def test_a_finger_that_turns_sideways_is_refused(tmp_path, rng):
    folder, *_, stamps = written(tmp_path, rng)
    path = folder / "rh_ffproximal-rh_ffmiddle.txt"
    turn = Rotation.from_rotvec([0.3, 0.2, 0.0]).as_quat()
    path.write_text(f"{START} 0 0 0.045 {' '.join(map(str, turn))}\n")
    with pytest.raises(
        DatasetError, match=r"ffmiddle\.txt: turned by 0\.2.* beside its joint's axis"
    ):
        tf_series.hand_track(HAND, folder, stamps)


def cache(q, wrist, palm, stamps):
    tree, angles = {}, {}
    names = {link: (c if c >= 0 else c + 2, c >= 0) for link, _, _, c in tf_series._joints(HAND)}
    for t, key in enumerate(map(int, stamps)):
        tree[key] = {"rh_palm": rigid.matrix(palm[t]), "world": np.eye(4)}
        angles[key] = {n: (q if own else wrist)[t, c] for n, (c, own) in names.items()}
    return {"global_tf": tree, "joint_angle": angles}


def save(path, value):
    array = np.empty((), object)
    array[()] = value
    np.save(path, array)


def test_the_tools_cache_says_what_the_files_say(tmp_path, rng):
    folder, q, wrist, palm, stamps = written(tmp_path, rng)
    content = cache(q, wrist, palm, stamps)
    # A stamp at which the tree is not complete yet.
    content["global_tf"][int(START - 9)] = {"world": np.eye(4)}
    content["joint_angle"][int(START - 9)] = {}
    save(tmp_path / "tf_seq.npy", content)
    wanted = stamps[:-1] + STEP // 3
    expected = tf_series.hand_track(HAND, folder, wanted)
    for path in folder.glob("*.txt"):
        path.unlink()
    (tmp_path / "tf_seq.npy").rename(folder / "tf_seq.npy")
    found = tf_series.hand_track(HAND, folder, wanted)
    np.testing.assert_array_equal(found.valid, expected.valid)
    np.testing.assert_allclose(found.q, expected.q, atol=ANGLE)
    np.testing.assert_allclose(found.q_wrist, expected.q_wrist, atol=ANGLE)
    # Between stamps of a cache the palm is interpolated, of files the forearm and the wrist are.
    np.testing.assert_allclose(
        found.wxyz_xyz_world_palm[:, 4:], expected.wxyz_xyz_world_palm[:, 4:], atol=0.02
    )
    at_stamps = tf_series.hand_track(HAND, folder, stamps)
    T = np.stack([rigid.matrix(p) for p in at_stamps.wxyz_xyz_world_palm])
    np.testing.assert_allclose(T, np.stack([rigid.matrix(p) for p in palm]), atol=1e-9)


class Bomb:
    def __reduce__(self):
        return print, ("ran",)


def test_a_cache_that_asks_for_code_or_is_built_otherwise_is_refused(tmp_path, rng, capsys):
    _, q, wrist, palm, stamps = written(tmp_path, rng, 2)
    path = tmp_path / "tf_seq.npy"
    save(path, {"global_tf": Bomb(), "joint_angle": {}})
    with pytest.raises(UnsafePickleError, match=r"builtins\.print"):
        tf_series.read_cache(HAND, path)
    assert capsys.readouterr().out == ""

    def refused(message, change):
        content = cache(q, wrist, palm, stamps)
        change(content, int(stamps[0]))
        save(path, content)
        with pytest.raises(DatasetError, match=message):
            tf_series.read_cache(HAND, path)

    refused("expected one dict", lambda c, _: c.pop("joint_angle"))
    refused("must be a matrix", lambda c, t: c["global_tf"][t].update(rh_palm=np.eye(3)))
    refused("not a rotation", lambda c, t: c["global_tf"][t].update(rh_palm=2 * np.eye(4)))
    refused("is not an angle", lambda c, t: c["joint_angle"][t].update(rh_wrist=float("nan")))
    refused("must be a dict", lambda c, t: c["joint_angle"].update({t: 3}))
    refused("not a count of ns", lambda c, _: c["joint_angle"].update(first={}))
    refused("all 24 joints", lambda c, _: [x.pop("rh_palm") for x in c["global_tf"].values()])
