"""What can be named on the command line of the viewer, and what is refused."""

import pathlib
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable

import numpy as np
import pytest
import trimesh

from experiments import view
from experiments.view import View, collect
from realdex_jax.data import motion_set, object_files, store
from realdex_jax.data.schema import GraspSet
from realdex_jax.errors import ConfigError, DatasetError
from realdex_jax.hand import joints
from sim import objects
from viewer.tableau import ViewError


def motions(path: pathlib.Path) -> pathlib.Path:
    phi = np.zeros((7, 28), np.float32)
    phi[:, :22] = joints.REST
    phi[:, 22] = np.linspace(0.3, 0.1, 7)
    at = np.array([[1, 0, 0, 0, 0.1, 0, 0.05]] * 3, np.float32)
    made = motion_set.of_poses(
        ("mug", "bowl", "tea_cup@0.80"), [0, 2, 0], [phi, phi[:6], phi[1:]], at, phi[:3, :22]
    )
    return motion_set.save(path, made)


def test_a_dataset_by_name_and_by_folder(tiny_dataset: pathlib.Path) -> None:
    ours = collect(View("realdex-sim", split="test"))
    assert ours.names == tuple(objects.SPLITS["test"])
    lotion = ours.open("body_lotion")
    np.testing.assert_array_equal(lotion.thing.vertices, objects.make("body_lotion").vertices)
    stored = store.open_dataset("realdex-sim")
    np.testing.assert_allclose(lotion.thing.points, stored.surface("body_lotion").points)
    assert lotion.grasps is not None
    assert len(lotion) == len(stored.grasps("body_lotion")) == len(lotion.grasps.phi)
    tiny = collect(View(str(tiny_dataset)))
    assert tiny.names == ("brick", "block")
    np.testing.assert_allclose(
        np.ptp(tiny.open("block").thing.vertices, axis=0), [0.04, 0.04, 0.1], atol=1e-9
    )


def test_a_dataset_without_meshes_is_shown_by_its_points(
    tmp_path: pathlib.Path, open_palm: Callable[[int], GraspSet]
) -> None:
    points = np.random.default_rng(0).normal(size=(64, 3)) * 0.02
    store.write_dataset(
        tmp_path / "bare",
        name="bare",
        version="1",
        grasps={"mug": open_palm(2), "jug": open_palm(2)},
        splits={"train": ["mug", "jug"], "val": [], "test": []},
        recipe={},
        surfaces={"mug": object_files.Surface(points, np.tile([0.0, 0.0, 1.0], (64, 1)))},
    )
    bare = collect(View(str(tmp_path / "bare")))
    thing = bare.open("mug").thing
    assert len(thing.faces) == 0  # not our mug
    np.testing.assert_allclose(thing.points, points, atol=1e-4)  # half precision
    with pytest.raises(ViewError, match="jug: neither a mesh nor points"):
        bare.open("jug")


def test_grasps_on_meshes_of_ones_own(
    tmp_path: pathlib.Path, open_palm: Callable[[int], GraspSet]
) -> None:
    box = trimesh.creation.box((40.0, 40.0, 100.0))
    box.apply_translation((10.0, 20.0, 50.0))  # grasps are in the file's frame: it is kept
    for name in ("block", "brick/textured"):
        path = tmp_path / "mine" / f"{name}.obj"
        path.parent.mkdir(parents=True, exist_ok=True)
        box.export(path)
    for name in ("block", "brick", "cosmetics"):
        object_files.save_grasps(tmp_path / "grasps" / f"{name}.npz", open_palm(3))
    words = {"objects": tmp_path / "mine", "scale": 0.001}
    folder = collect(View(str(tmp_path / "grasps"), **words))
    assert folder.names == ("block", "brick", "cosmetics")
    for name in ("block", "brick"):
        thing = folder.open(name).thing
        np.testing.assert_allclose(thing.vertices.mean(axis=0), [0.01, 0.02, 0.05], atol=1e-9)
    with pytest.raises(ConfigError, match=r"no mesh for 'cosmetics' in .*; there are block, brick"):
        folder.open("cosmetics")
    one = tmp_path / "grasps" / "cosmetics.npz"
    assert len(collect(View(str(one))).open("cosmetics").thing.vertices) > 100
    renamed = collect(View(str(one), object="mug"))
    assert renamed.names == ("mug",)
    np.testing.assert_array_equal(renamed.open("mug").thing.vertices, objects.make("mug").vertices)
    mesh = tmp_path / "mine" / "block.obj"
    assert len(collect(View(str(one), objects=mesh, scale=0.001)).open("cosmetics").thing.faces) > 9


def test_motions_by_object(tmp_path: pathlib.Path) -> None:
    found = collect(View(str(motions(tmp_path / "motions.npz"))))
    assert found.moving
    assert found.title == "motions.npz"
    assert found.names == ("mug", "tea_cup@0.80")  # nobody reaches for the bowl
    mug, cup = (found.open(name) for name in found.names)
    assert mug.motions is not None
    assert [len(m) for m in mug.motions] == [7, 6]
    assert mug.motions[0].phi[0, 22] == np.float32(0.3)
    assert mug.motions[1].phi[0, 22] < 0.3
    whole = objects.make("tea_cup").vertices
    np.testing.assert_allclose(cup.thing.vertices, 0.8 * whole, atol=1e-12)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("nowhere",), "nothing at nowhere; give a dataset (realdex-sim"),
        (("realdex-sim", "--split", "exam"), "no split 'exam'"),
        (("realdex-sim", "--scale", "0.001"), "--scale is for the meshes of --objects"),
        (("realdex-sim", "--object", "moon"), "no object 'moon' in realdex-sim; known:"),
        (("realdex-sim", "--objects", "empty"), "--objects empty: no mesh files there"),
        (("empty",), "empty: neither a dataset (dataset.json) nor <object>.npz in it"),
        (("empty", "--split", "test"), "--split test: empty is no dataset"),
        (("moon.npz",), "no object 'moon' in the catalogue"),
        (("bad.npz",), "bad.npz is not a readable .npz"),
        (("realdex-sim", "--save", "scene.png"), "a scene is written as .html or .viser"),
        (("realdex-sim", "--save", "s.html", "--index", "-1"), "no number -1 for"),
        (("realdex-sim", "--port", "65536"), "port 65536"),
        (("realdex-sim", "--robot", "r2d2"), "no preset 'r2d2'"),
        (("realdex-sim", "--recording", "empty"), "no recording in it"),
        (("realdex-sim", "--motions", "moon.npz"), "--motions moon.npz: grasps; give them as PATH"),
        (("thing.stl", "--no-upload"), "is a mesh, and --no-upload makes no grasps for it"),
        (("realdex-sim", "--host", "192.0.2.1"), "cannot listen at 192.0.2.1, port 8080"),
    ],
)
def test_a_mistake_ends_in_one_line(
    words: tuple[str, ...],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: pathlib.Path,
    open_palm: Callable[[int], GraspSet],
) -> None:
    pytest.importorskip("viser", reason="the extra `view` is not installed")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.npz").write_bytes(b"PK not a zip")
    (tmp_path / "thing.stl").write_bytes(b"solid")
    object_files.save_grasps("moon.npz", open_palm(1))
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setattr(sys, "argv", ["experiments/view.py", *words])
    monkeypatch.setenv("COLUMNS", "2000")
    with pytest.raises(SystemExit) as stopped:
        view.main()
    assert stopped.value.code == 2
    lines = capsys.readouterr().out.splitlines()
    assert message in lines[-1]
    assert len(lines) == (2 if "--host" in words else 1)  # a warning comes first
    assert sorted(tmp_path.rglob("*")) == before


def test_several_grasps_are_one_file(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    msgspec = pytest.importorskip("msgspec", reason="the extra `view` is not installed")
    zstandard = pytest.importorskip("zstandard", reason="the extra `view` is not installed")
    words = ["realdex-sim", "--object", "mug", "--first", "3", "--save", str(tmp_path / "a.viser")]
    monkeypatch.setattr(sys, "argv", ["experiments/view.py", *words])
    view.main()
    assert "a.viser (" in " ".join(capsys.readouterr().out.split())
    content = (tmp_path / "a.viser").read_bytes()
    inner = zstandard.ZstdDecompressor().decompressobj().decompress(content[8:])
    found = msgspec.msgpack.decode(inner[8 : 8 + int.from_bytes(inner[:8], "little")])
    assert found["durationSeconds"] == pytest.approx(7.5, abs=0.1)
    text = str(found["messages"])
    places = [text.index(f"mug, grasp {k}") for k in range(3)]
    assert places == sorted(places)


def test_no_extra_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "viser", None)
    for name in [name for name in sys.modules if name.startswith("viewer.")]:
        if name != "viewer.tableau":  # whose error is caught below
            monkeypatch.delitem(sys.modules, name)
    from rich.console import Console

    with pytest.raises(ViewError, match=r"pip install 'realdex_jax\[view\]'"):
        view.show(View("realdex-sim"), Console(quiet=True))


def test_it_prints_where_it_is_and_ctrl_c_ends_it(repository: pathlib.Path) -> None:
    pytest.importorskip("viser", reason="the extra `view` is not installed")
    words = [sys.executable, "-m", "experiments.view", "realdex-sim", "--port", "0"]
    running = subprocess.Popen(
        words, cwd=repository, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        assert running.stdout is not None
        lines = [running.stdout.readline().strip() for _ in range(3)]
        assert lines[0] == "realdex-sim, 52 objects, at"
        assert lines[1].startswith("http://127.0.0.1:")
        assert "/?token=" in lines[1]
        opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        with opener.open(lines[1], timeout=20) as page:
            assert page.status == 200
        running.send_signal(signal.SIGINT)
        rest, _ = running.communicate(timeout=30)
    finally:
        running.kill()
        running.wait()
    assert running.returncode == 0
    assert "Traceback" not in rest
    assert rest.split()[-1] == "stopped"  # rich repeats a line whose writing a signal met


def test_a_folder_of_a_dataset_may_have_any_name(
    tiny_dataset: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """A dataset is known by its index; a folder without one is not opened as one."""
    copy = tmp_path / "copy"
    shutil.copytree(tiny_dataset, copy)
    assert collect(View(str(copy))).names == ("brick", "block")
    (copy / store.INDEX).unlink()
    with pytest.raises(DatasetError, match="neither a dataset"):
        collect(View(str(copy)))
