"""A whole release as a source: what becomes a grasp, a motion, a surface, a split."""

import dataclasses
import hashlib
import json
import zipfile

import numpy as np
import pytest
import trimesh
from scipy.spatial.transform import Rotation

from realdex_jax.data import realdex, realdex_export, realdex_grasps, realdex_objects
from realdex_jax.data.motion import RATE
from realdex_jax.data.source import Source
from realdex_jax.errors import DatasetError


def placed(motion, row):
    """Palm in the object's frame at one row: rotation and position."""
    phi, world = np.asarray(motion.phi)[row], np.asarray(motion.wxyz_xyz_world_object)[row]
    R = Rotation.from_quat(world[:4], scalar_first=True).inv()
    return R * Rotation.from_rotvec(phi[25:]), R.apply(phi[22:25] - world[4:])


def check_grasp(phi, motion, row):
    R, p = placed(motion, row)
    np.testing.assert_allclose(phi[:22], np.asarray(motion.phi)[row, :22], atol=1e-6)
    np.testing.assert_allclose(phi[22:25], p, atol=1e-6)
    assert (R * Rotation.from_rotvec(phi[25:]).inv()).magnitude() < 1e-6


@pytest.fixture(scope="module")
def release(tmp_path_factory, capture, ball, bent, put):
    """Three recordings of a box at the depth of a real download, sequences of soba, models."""
    root = tmp_path_factory.mktemp("release")
    for n in (1, 2):
        motions = [capture(10 * n), capture(10 * n + 1)]
        rows = [np.arange(20, 36)] * 2
        files = realdex_export.recording_files(motions, rows, [bent(m) for m in motions])
        put(root / "box" / "storage" / "group" / "bags" / "box" / f"box_{n}_20231207", files)
    for k in (0, 2, 10):
        put(root / "npz" / "soba", {f"{k}.npz": realdex_export.sequence_bytes(capture(k), ball)})
    solid = trimesh.creation.icosphere(subdivisions=2, radius=0.03)
    put(root / "models", {"box.obj": realdex_objects.obj_text(solid.vertices, solid.faces)})
    return root


@pytest.fixture
def zipped(tmp_path, release):
    """The box as it is downloaded, with its sum."""
    path = tmp_path / "box.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted((release / "box").rglob("*")):
            archive.write(file, file.relative_to(release / "box").as_posix())
    digest = hashlib.md5(path.read_bytes()).hexdigest()
    (tmp_path / "md5.txt").write_text(f"{digest}  box.zip\n")
    return path


def test_recordings_become_grasps_motions_and_a_mesh(release, capture):
    source = realdex.open_source(release)
    assert isinstance(source, Source)
    assert source.units == ("box", "soba")
    unit = source.read("box")
    captured = [capture(s) for s in (10, 11, 20, 21)]
    # The hand carries the object without a slip, so each lift is one grasp: as it leaves the table.
    assert len(unit.grasps) == 4
    for phi, motion in zip(unit.grasps.phi, captured, strict=True):
        check_grasp(phi, motion, 24)
    assert (unit.grasps.columns["wrist_measured"] == 1).all()
    # The pre-grasp is half a second, so eight frames, before the first contact.
    opened = np.stack([m.phi[12, :22] for m in captured])
    np.testing.assert_allclose(unit.grasps.q_pregrasp, opened, atol=1e-6)
    # A motion ends where the object begins to move.
    assert unit.motions.lengths().tolist() == [24] * 4
    for i, motion in enumerate(captured):
        np.testing.assert_allclose(unit.motions.poses(i)[:, :25], motion.phi[:24, :25], atol=1e-6)
        R = Rotation.from_rotvec(unit.motions.poses(i)[:, 25:])
        assert (R * Rotation.from_rotvec(motion.phi[:24, 25:]).inv()).magnitude().max() < 1e-6
    assert unit.motions.names == ("box",)
    vertices = np.array(
        [line.split()[1:] for line in unit.mesh.decode().splitlines() if line.startswith("v ")],
        float,
    )
    np.testing.assert_allclose(np.linalg.norm(vertices, axis=1), 0.03, atol=1e-9)
    assert unit.points is None
    assert not unit.notes
    again = source.read("box")
    assert np.array_equal(again.grasps.phi, unit.grasps.phi)
    json.dumps(source.recipe)


def test_sequences_become_grasps_and_a_cloud_in_the_object_frame(release, capture, ball):
    unit = realdex.open_source(release).read("soba")
    for phi, k in zip(unit.grasps.phi, (0, 2, 10), strict=True):  # ten comes after two
        check_grasp(phi, capture(k), 24)
    assert (unit.grasps.columns["wrist_measured"] == 0).all()
    assert unit.mesh is None
    # Three clouds of the same ball, taken in three places of the world.
    np.testing.assert_allclose(unit.points, np.tile(ball, (3, 1)), atol=1e-6)
    assert any("wrist assumed zero in 3 of 3" in note for note in unit.notes)
    assert any("surface from 3 captured clouds" in note for note in unit.notes)


def test_a_download_is_read_in_place(zipped, release):
    opened = realdex.open_source(release).read("box")
    for path in (zipped, zipped.parent):
        source = realdex.open_source(path, models=release / "models")
        assert source.units == ("box",)
        unit = source.read("box")
        assert np.array_equal(unit.grasps.phi, opened.grasps.phi)
        assert unit.mesh == opened.mesh
    assert sorted(p.name for p in zipped.parent.iterdir()) == ["box.zip", "md5.txt"]


def test_a_download_with_another_sum_is_refused(zipped):
    (zipped.parent / "md5.txt").write_text(f"{'0' * 32}  box.zip\n")
    with pytest.raises(DatasetError, match="download it again"):
        realdex.open_source(zipped).read("box")
    assert realdex.open_source(zipped, check_md5=False).read("box").grasps is not None


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (
            ("data/final_data.npy", "data/notes.txt"),
            r"box\.zip holds no recording of box, but of data$",
        ),
        (
            ("mug_1_20231207/final_data.npy", "soba/0.npz"),
            r"holds no recording of box, but of mug, soba$",
        ),
        (
            tuple(f"box_1/frame_{k:02d}.npy" for k in range(10)),
            r"no box_<n>\[_<yyyymmdd>\]/final_data\.npy and no <number>\.npz of it; it holds "
            r"box_1/frame_00\.npy, .*box_1/frame_07\.npy and 2 more$",
        ),
        ((), "it holds nothing$"),
    ],
)
def test_a_download_of_unknown_members_says_what_is_in_it(tmp_path, members, message):
    with zipfile.ZipFile(tmp_path / "box.zip", "w") as archive:
        for name in members:
            archive.writestr(name, b"1")
    for path in (tmp_path / "box.zip", tmp_path):
        with pytest.raises(DatasetError, match=message):
            realdex.open_source(path).read("box")
    (tmp_path / "box.zip").rename(tmp_path / "bocks.zip")
    with pytest.raises(DatasetError, match=r"named after one of its objects \(found bocks\.zip\)"):
        realdex.open_source(tmp_path)


def test_models_come_from_where_the_option_says(tmp_path, zipped, release):
    beside = realdex.open_source(release).read("box").mesh
    assert realdex.open_source(zipped).read("box").mesh is None
    with zipfile.ZipFile(tmp_path / "models.zip", "w") as archive:
        archive.write(release / "models" / "box.obj", "deep/down/box.obj")
    for models in (release / "models", str(release / "models"), tmp_path / "models.zip"):
        source = realdex.open_source(zipped, models=models)
        assert source.read("box").mesh == beside
        assert json.loads(json.dumps(source.recipe))["options"]["models"] == str(models)
    # What is named replaces what lies beside the data, also where it has no model of the object.
    (tmp_path / "none").mkdir()
    unit = realdex.open_source(release, models=tmp_path / "none").read("box")
    assert unit.mesh is None
    assert "no model" in unit.notes
    (tmp_path / "none" / "box.obj").write_text("v 0 0\n")
    unit = realdex.open_source(release, models=tmp_path / "none").read("box")
    assert unit.mesh is None
    assert any(note.startswith("model left out: ") and "box.obj" in note for note in unit.notes)
    with pytest.raises(DatasetError, match="models is 3; it must be a path"):
        realdex.open_source(release, models=3)
    with pytest.raises(DatasetError, match=r"gone is neither a folder nor a \.zip"):
        realdex.open_source(release, models=tmp_path / "gone").read("box")


def test_a_damaged_file_is_left_out_by_name_and_the_rest_is_read(tmp_path, capture, ball, put):
    for k in range(3):
        put(tmp_path / "box", {f"{k}.npz": realdex_export.sequence_bytes(capture(k), ball)})
    (tmp_path / "box" / "1.npz").write_bytes(b"PK\3\4 broken")
    unit = realdex.open_source(tmp_path).read("box")
    assert len(unit.grasps) == 2
    assert any(n.startswith("left out:") and "box/1.npz" in n for n in unit.notes)
    for k in (0, 2):
        (tmp_path / "box" / f"{k}.npz").write_bytes(b"")
    with pytest.raises(DatasetError, match=r"no file of box can be used; first: .*box/0\.npz"):
        realdex.open_source(tmp_path).read("box")


def test_recordings_go_before_sequences_cut_from_them(tmp_path, capture, ball, put):
    files = realdex_export.recording_files([capture(0), capture(1)])
    put(tmp_path / "bags" / "box_1", files)
    put(tmp_path / "copy" / "box_1", files)
    put(tmp_path / "npz" / "box", {"0.npz": realdex_export.sequence_bytes(capture(5), ball)})
    both = realdex.open_source(tmp_path).read("box")
    assert len(both.grasps) == 2
    assert any("1 sequences are left out" in note for note in both.notes)
    assert any("has the same name" in note for note in both.notes)
    assert both.points is not None  # from the sequence's cloud
    assert len(realdex.open_source(tmp_path, kind="sequences").read("box").grasps) == 1
    assert realdex.open_source(tmp_path / "bags" / "box_1").units == ("box",)
    with pytest.raises(DatasetError, match="holds no recording of box"):
        realdex.open_source(tmp_path / "npz", kind="recordings").read("box")


def test_root_as_stored_is_a_quarter_metre_off(release):
    palm, stored = (
        realdex.open_source(release, root=root, rule="all", most=0)
        .read("soba")
        .grasps.phi[:, 22:25]
        for root in ("forearm", "as-stored")
    )
    # Length of the way from forearm to palm over a straight wrist.
    np.testing.assert_allclose(np.linalg.norm(palm - stored, axis=1), 0.24721, atol=1e-5)


@pytest.mark.parametrize(
    ("rule", "most", "expected"),
    [
        ("held", 22, 3),
        ("all", 0, 3 * 36),
        ("all", 5, 3 * 5),
        ("contact", 1, 3),
    ],
)
def test_rules_of_what_is_a_grasp(release, rule, most, expected):
    unit = realdex.open_source(release, rule=rule, most=most).read("soba")
    assert len(unit.grasps) == expected


def test_a_grip_that_changes_is_several_grasps(capture, ball, changed):
    motion = capture()
    phi = np.array(motion.phi)
    phi[30:, 22:25] += Rotation.from_rotvec(phi[30:, 25:]).apply([0.0, 0.0, 0.005])  # it slips
    frames = _frames(changed(motion, phi=phi), contact=np.arange(20, 36))
    posed = realdex_grasps.pose(frames)
    found = realdex_grasps.grasps(posed, (0, 36), frames.contact)
    assert len(found) == 2
    shift = np.linalg.norm(np.diff(found.phi[:, 22:25], axis=0), axis=1)
    np.testing.assert_allclose(shift, 0.005, atol=1e-6)


def test_an_object_that_is_never_moved_is_held_in_its_last_contact(capture):
    motion = capture(lift=0)
    frames = _frames(motion, contact=np.array([18, 20]))
    found = realdex_grasps.grasps(realdex_grasps.pose(frames), (0, 24), frames.contact)
    assert len(found) == 1
    check_grasp(found.phi[0], motion, 20)
    nothing = realdex_grasps.grasps(realdex_grasps.pose(frames), (0, 24), None)
    assert len(nothing) == 0


def test_contact_by_distance_begins_when_the_hand_is_near(capture, ball):
    frames = _frames(capture())
    posed = realdex_grasps.pose(frames)
    touching = realdex_grasps.contact(posed, ball)
    assert not touching[:8].any()  # 0.2 m away
    assert touching[23:].all()  # 5 cm from palm to centre of a ball of 3 cm
    assert realdex_grasps.contact(posed, None) is None


def test_reaches_are_cut_where_frames_are_lost_and_resampled(capture):
    motion = capture()
    frames = _frames(motion)
    usable = frames.usable.copy()
    usable[8] = False
    posed = realdex_grasps.pose(dataclasses.replace(frames, usable=usable))
    assert len(realdex_grasps.reach(posed, (0, 36))) == 15  # 9 to 23
    usable[20] = False
    posed = realdex_grasps.pose(dataclasses.replace(frames, usable=usable))
    assert realdex_grasps.reach(posed, (0, 36)) is None
    slow = realdex_grasps.pose(dataclasses.replace(frames, time=frames.time * 2))
    found = realdex_grasps.reach(slow, (0, 36))
    assert len(found) == 47  # 23 steps of 2/15 s
    np.testing.assert_allclose(np.diff(found.time), 1 / RATE, atol=1e-6)
    np.testing.assert_allclose(found.phi[::2, 22:25], motion.phi[:24, 22:25], atol=1e-6)
    near = realdex_grasps.reach(realdex_grasps.pose(frames), (18, 36))
    assert near is None or np.linalg.norm(near.phi[-1, 22:25] - near.phi[0, 22:25]) >= 0.05


def test_units_of_another_scale_are_refused(tmp_path, capture, ball, put, changed):
    motion = capture()
    phi = np.array(motion.phi)
    phi[:, 22:25] *= 100  # centimetres
    content = realdex_export.sequence_bytes(changed(motion, phi=phi), ball)
    put(tmp_path / "box", {"0.npz": content})
    with pytest.raises(DatasetError, match="wrong units or a wrong frame"):
        realdex.open_source(tmp_path, rule="all").read("box")


def test_models_in_millimetres_are_named_and_can_be_scaled(tmp_path, capture, put):
    solid = trimesh.creation.icosphere(subdivisions=1, radius=30.0)
    put(tmp_path / "bags" / "box_1", realdex_export.recording_files([capture()]))
    put(tmp_path, {"box.obj": realdex_objects.obj_text(solid.vertices, solid.faces)})
    unit = realdex.open_source(tmp_path).read("box")
    assert unit.mesh is None
    assert any("model left out" in note and "mm" in note for note in unit.notes)
    unit = realdex.open_source(tmp_path, model_scale=1e-3).read("box")
    assert unit.mesh.startswith(b"v ")


def test_splits(release, tmp_path, put):
    source = realdex.open_source(release)
    assert source.splits(source.units) == {"train": ("soba",), "val": (), "test": ("box",)}
    assert set(source.schemes(source.units)) == {"release", "release-training", "paper"}
    names = ("goji_jar", "crisps", "sprayer", "soba", "midew_remover")
    for name in names:
        put(tmp_path / name, {"0.npz": b""})
    source = realdex.open_source(tmp_path, split="release-training")
    assert source.units == ("crisps", "goji_jar", "sprayer")
    assert source.splits(source.units)["test"] == ("sprayer",)
    source = realdex.open_source(tmp_path)
    assert source.splits(source.units)["test"] == ("sprayer", "mildew_remover")
    own = {"train": ["soba"], "test": ["sprayer", "absent"]}
    (tmp_path / realdex.MARK).write_text(json.dumps({"splits": own}))
    source = realdex.open_source(tmp_path)
    assert source.splits(source.units) == {"train": ("soba",), "val": (), "test": ("sprayer",)}
    for text in ("{}", "[", '{"splits": 3}'):
        (tmp_path / realdex.MARK).write_text(text)
        with pytest.raises(DatasetError, match=realdex.MARK):
            realdex.open_source(tmp_path)


def test_a_release_is_recognised_by_names(release, zipped, tmp_path):
    assert realdex.recognise(release)
    assert realdex.recognise(release / "npz" / "soba")
    assert realdex.recognise(zipped)
    assert realdex.recognise(zipped.parent)
    for name in ("a.zip", "grasps/box.npz"):
        (tmp_path / "other" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "other" / name).write_bytes(b"")
    assert not realdex.recognise(tmp_path / "other")
    assert not realdex.recognise(tmp_path / "absent")
    assert not realdex.recognise(tmp_path / "other" / "a.zip")
    with pytest.raises(DatasetError, match="holds nothing of the RealDex release"):
        realdex.open_source(tmp_path / "other")


def test_mistakes_in_options_are_named(release):
    with pytest.raises(DatasetError, match=r"no option 'roots' for realdex; known: .*root"):
        realdex.open_source(release, roots="palm")
    for name in ("kind", "root", "signs", "rule", "split"):
        with pytest.raises(DatasetError, match=f"{name} is 'x'; it must be one of"):
            realdex.open_source(release, **{name: "x"})
    with pytest.raises(DatasetError, match="most is -1"):
        realdex.open_source(release, most=-1)
    with pytest.raises(DatasetError, match=r"no object 'mug'.*it has box, soba"):
        realdex.open_source(release).read("mug")


def _frames(motion, contact=None):
    """The motion as the reader would have it, without going over a file."""
    from realdex_jax.data.realdex_frames import Frames

    raw = realdex_export.to_release(motion, np.zeros((len(motion), 2)))
    touching = None
    if contact is not None:
        touching = np.zeros(len(motion), bool)
        touching[contact] = True
    return Frames(
        name="made",
        time=np.asarray(motion.time),
        q=raw["qpos"],
        R_world_root=raw["global_orient"],
        p_world_root=raw["global_transl"],
        R_world_object=raw["object_orient"],
        p_world_object=raw["object_transl"],
        usable=np.ones(len(motion), bool),
        contact=touching,
    )
