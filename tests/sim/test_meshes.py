"""User meshes become objects: repaired, decomposed, cached; failures fall back or are refused."""

import pathlib
import sys
import time

import numpy as np
import pytest
import trimesh

from realdex_jax.errors import DecompositionError, MeshError
from realdex_jax.geometry.shape import MAX_PIECE_VERTICES
from sim import decomposition, meshes

FAST = decomposition.Decomposition(threshold=0.2, max_pieces=6, resolution=300, iterations=10)


def bracket() -> trimesh.Trimesh:
    """An L of two plates, off the origin, in metres."""
    parts = [
        trimesh.creation.box(bounds=[[0, 0, 0], [0.1, 0.04, 0.02]]),
        trimesh.creation.box(bounds=[[0, 0, 0], [0.02, 0.04, 0.1]]),
    ]
    return trimesh.boolean.union(parts, engine="manifold")


def fake_decompose(*args: object, **kwargs: object) -> tuple[np.ndarray, ...]:
    """The exact decomposition of the bracket, centred, without a child process."""
    boxes = [[[0, 0, 0], [0.1, 0.04, 0.02]], [[0, 0, 0], [0.02, 0.04, 0.1]]]
    centre = np.array([0.05, 0.02, 0.05])
    return tuple(np.asarray(trimesh.creation.box(bounds=b).vertices) - centre for b in boxes)


def test_a_mesh_is_recentred_decomposed_and_weighed(tmp_path: pathlib.Path) -> None:
    imported = meshes.import_mesh(bracket(), name="bracket", cache=tmp_path, settings=FAST)
    shape = imported.shape
    np.testing.assert_allclose(shape.bounds.sum(axis=0), 0.0, atol=1e-9)
    np.testing.assert_allclose(imported.offset, [-0.05, -0.02, -0.05], atol=1e-9)
    assert 2 <= len(shape.pieces) <= 6
    assert all(len(piece) <= MAX_PIECE_VERTICES for piece in shape.pieces)
    hulls = sum(trimesh.convex.convex_hull(piece).volume for piece in shape.pieces)
    assert hulls == pytest.approx(bracket().volume, rel=0.05)
    assert shape.mass == pytest.approx(500 * bracket().volume, rel=1e-3)
    assert not any("WARNING" in finding for finding in imported.findings)


def test_the_cache_returns_the_same_object_fast(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meshes, "decompose", fake_decompose)
    first = meshes.import_mesh(bracket(), name="a", cache=tmp_path)
    monkeypatch.setattr(meshes, "decompose", lambda *a, **k: pytest.fail("not from the cache"))
    start = time.perf_counter()
    again = meshes.import_mesh(bracket(), name="b", cache=tmp_path, mass=0.3)
    assert time.perf_counter() - start < 5.0
    np.testing.assert_array_equal(first.shape.vertices, again.shape.vertices)
    assert all(map(np.array_equal, first.shape.pieces, again.shape.pieces))
    assert (again.shape.name, again.shape.mass) == ("b", 0.3)
    assert not list(tmp_path.glob("*.tmp"))


def test_the_scale_and_the_settings_are_part_of_the_cache_key(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meshes, "decompose", fake_decompose)
    meshes.import_mesh(bracket(), cache=tmp_path)
    meshes.import_mesh(bracket(), cache=tmp_path, recentre=False)
    meshes.import_mesh(bracket(), cache=tmp_path, scale=1.1)
    meshes.import_mesh(bracket(), cache=tmp_path, settings=FAST)
    assert len(list(tmp_path.glob("*.npz"))) == 4


def test_an_interrupted_or_damaged_cache_is_made_again(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(meshes, "decompose", fake_decompose)
    whole = meshes.import_mesh(bracket(), cache=tmp_path)
    (entry,) = tmp_path.glob("*.npz")
    for damage in (entry.read_bytes()[:200], b"", b"not a zip"):
        entry.write_bytes(damage)
        again = meshes.import_mesh(bracket(), cache=tmp_path)
        np.testing.assert_array_equal(again.shape.vertices, whole.shape.vertices)
        assert "damaged cache file" in caplog.text
        assert meshes._load(entry) is not None


def test_a_full_disk_costs_the_cache_and_nothing_else(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(meshes, "decompose", fake_decompose)
    before = meshes.import_mesh(bracket(), cache=tmp_path)
    kept = {path: path.read_bytes() for path in tmp_path.glob("*.npz")}

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(meshes.np, "savez_compressed", full)
    imported = meshes.import_mesh(bracket(), cache=tmp_path, scale=1.1)
    assert imported.shape.volume == pytest.approx(before.shape.volume * 1.1**3)
    assert "No space left on device" in caplog.text
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == kept


def test_a_failed_decomposition_falls_back_to_the_hull(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object, **kwargs: object) -> tuple[np.ndarray, ...]:
        raise DecompositionError("exit status -11")

    monkeypatch.setattr(meshes, "decompose", fail)
    imported = meshes.import_mesh(bracket(), cache=tmp_path)
    assert imported.fallback
    assert len(imported.shape.pieces) == 1
    (notable,) = imported.notable
    assert notable.startswith("WARNING: one convex hull")
    assert not list(tmp_path.iterdir()), "a failure may be the machine's; it is not kept"
    monkeypatch.setattr(meshes, "decompose", fake_decompose)
    again = meshes.import_mesh(bracket(), cache=tmp_path)
    assert len(again.shape.pieces) == 2
    assert not again.fallback
    assert again.notable == ()


def test_a_folder_tells_what_was_done_to_its_meshes(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(meshes, "decompose", fake_decompose)
    (tmp_path / "in").mkdir()
    mesh = bracket()
    mesh.export(tmp_path / "in" / "whole.obj")
    mesh.update_faces(np.arange(len(mesh.faces)) > 0)
    mesh.export(tmp_path / "in" / "with_hole.obj")
    fin = np.concatenate([bracket().vertices, [[0.05, 0.02, 0.05]]])
    fins = np.concatenate([bracket().faces, [[0, 1, len(fin) - 1]]])
    trimesh.Trimesh(fin, fins).export(tmp_path / "in" / "with_fin.obj")
    for _ in ("imported", "from the cache"):
        caplog.clear()
        folder = meshes.shapes_from_folder(tmp_path / "in", cache=tmp_path / "cache", scale=1.0)
        told = {(name, text.split(",")[0].split(";")[0]) for name, text in folder.findings}
        assert ("with_hole", "closed 1 holes") in told
        assert ("with_fin", "WARNING: cannot be closed") in told
        assert "whole" not in {name for name, _ in told}
        assert "with_fin: WARNING: cannot be closed" in caplog.text


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "exit status -11"),
        ("import time; time.sleep(30)", "more than 0.5 s"),
        ("raise SystemExit('needs the package coacd')", "needs the package coacd"),
    ],
)
def test_a_child_that_dies_or_hangs_is_reported(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, code: str, message: str
) -> None:
    fake = tmp_path / "python"
    fake.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{code}"\n')
    fake.chmod(0o755)
    monkeypatch.setattr(decomposition.sys, "executable", str(fake))
    limit = 0.5 if "sleep" in code else 20.0
    mesh = bracket()
    with pytest.raises(DecompositionError, match=message):
        decomposition.decompose(
            np.asarray(mesh.vertices),
            np.asarray(mesh.faces),
            decomposition.Decomposition(timeout=limit),
            closed=True,
        )


def test_an_open_mesh_is_rebuilt_from_its_pieces(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meshes, "decompose", fake_decompose)
    mesh = bracket()
    fin = np.concatenate([mesh.vertices, [[0.05, 0.02, 0.05]]])
    open_mesh = trimesh.Trimesh(fin, np.concatenate([mesh.faces, [[0, 1, len(fin) - 1]]]))
    imported = meshes.import_mesh(open_mesh, cache=tmp_path)
    assert imported.shape.mesh.is_watertight
    assert imported.shape.volume == pytest.approx(mesh.volume, rel=2e-3)
    assert any("cannot be closed" in finding for finding in imported.findings)


def test_a_folder_keeps_the_good_and_names_the_bad(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meshes, "decompose", fake_decompose)
    for place in ("one/textured.obj", "two/textured.obj", "three.stl"):
        path = tmp_path / "in" / place
        path.parent.mkdir(parents=True, exist_ok=True)
        bracket().export(path)
    (tmp_path / "in" / "bad.ply").write_text("nothing")
    folder = meshes.shapes_from_folder(tmp_path / "in", cache=tmp_path / "cache")
    assert [shape.name for shape in folder.shapes] == ["one", "three", "two"]
    ((path, reason),) = folder.refused
    assert path.name == "bad.ply"
    assert "bad.ply" in reason
    two = meshes.shapes_from_folder(tmp_path / "in", cache=tmp_path / "cache", limit=2)
    assert [shape.name for shape in two.shapes] == ["one", "three"]
    assert any("1 more files not looked at" in text for _, text in two.findings)
    alone = meshes.shapes_from_folder(
        tmp_path / "in" / "three.stl", cache=tmp_path / "cache", recentre=False
    )
    (shape,) = alone.shapes
    np.testing.assert_allclose(shape.bounds, bracket().bounds, atol=1e-6)
    with pytest.raises(MeshError, match="no mesh files"):
        meshes.shapes_from_folder(tmp_path / "cache")
    with pytest.raises(MeshError, match="no such folder"):
        meshes.shapes_from_folder(tmp_path / "nowhere")


def test_pieces_keep_their_frame_and_have_few_corners() -> None:
    ball = trimesh.creation.icosphere(3, 1.0)
    shape = meshes.shape_from_pieces([np.asarray(ball.vertices) + 0.5], name="ball", scale=0.05)
    assert len(shape.pieces[0]) == MAX_PIECE_VERTICES
    np.testing.assert_allclose(shape.bounds.mean(axis=0), 0.025, atol=1e-4)
    assert shape.volume == pytest.approx(0.05**3 * ball.volume, rel=0.12)
    with pytest.raises(MeshError, match="none of 1 pieces is solid"):
        meshes.shape_from_pieces([np.eye(3)], name="sheet")
    with pytest.raises(MeshError, match="2 labels for 1 pieces"):
        meshes.shape_from_pieces([np.asarray(ball.vertices)], name="b", labels=["a", "b"])


@pytest.mark.parametrize(("folder", "pieces"), [("core-mug", 27), ("sem-Bottle", 5)])
def test_a_decomposed_obj_gives_its_groups(shared: pathlib.Path, folder: str, pieces: int) -> None:
    found = sorted((shared / "data/dexgraspnet/meshdata").glob(f"{folder}*/coacd/decomposed.obj"))
    if not found:
        pytest.skip("no DexGraspNet sample beside this repository")
    corners = meshes.pieces_from_obj(found[0])
    assert len(corners) == pieces
    shape = meshes.shape_from_pieces(corners, name=folder, scale=0.1)
    assert shape.mesh.is_watertight
    hulls = [trimesh.convex.convex_hull(piece * 0.1).volume for piece in corners]
    assert shape.volume == pytest.approx(sum(hulls), rel=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["011_banana", "048_hammer"])
def test_real_scans_are_decomposed(shared: pathlib.Path, tmp_path: pathlib.Path, name: str) -> None:
    path = shared / "data" / "ycb" / name / "textured.obj"
    if not path.exists():
        pytest.skip(f"no scan at {path}")
    imported = meshes.import_mesh(path, cache=tmp_path)
    assert imported.shape.name == name
    assert 2 <= len(imported.shape.pieces) <= 24
    sample = imported.shape.surface(2000)
    outside = imported.shape.piece_distance(sample.points).min(axis=1)
    assert np.quantile(outside, 0.95) < 1.5e-3, "the pieces cover the scan"
    start = time.perf_counter()
    meshes.import_mesh(path, cache=tmp_path)
    assert time.perf_counter() - start < 5.0
