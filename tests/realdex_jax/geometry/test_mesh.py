"""Bad mesh files are refused with the reason; broken ones are repaired; real scans load."""

import pathlib
import struct

import numpy as np
import pytest
import trimesh

from realdex_jax.errors import CloudError, MeshError
from realdex_jax.geometry import cloud
from realdex_jax.geometry import mesh as meshes


def box(size: float = 0.1) -> trimesh.Trimesh:
    return trimesh.creation.box((size, 0.8 * size, 0.6 * size))


def obj_text(mesh: trimesh.Trimesh) -> str:
    rows = [f"v {x} {y} {z}" for x, y, z in mesh.vertices]
    return "\n".join(rows + [f"f {a + 1} {b + 1} {c + 1}" for a, b, c in mesh.faces]) + "\n"


@pytest.mark.parametrize("suffix", meshes.SUFFIXES)
def test_every_kind_is_read_back(tmp_path: pathlib.Path, suffix: str) -> None:
    path = tmp_path / f"box{suffix}"
    exported = obj_text(box()) if suffix == ".obj" else box().export(file_type=suffix[1:])
    path.write_bytes(exported.encode() if isinstance(exported, str) else exported)
    repaired = meshes.check_and_repair(meshes.load_mesh(path), "box")
    assert repaired.closed
    assert repaired.mesh.volume == pytest.approx(0.48e-3, rel=1e-6)


BOX = obj_text(box())
STL = box().export(file_type="stl")
PLY = box().export(file_type="ply", encoding="binary")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.obj", b"", "the file is empty"),
        ("a.obj", b"# nothing\n", r"no faces \(0 vertices\)"),
        ("a.obj", b"v 0 0 0\nv 0 1 0\n", r"no faces \(2 vertices\)"),
        ("a.obj", b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n", "3 vertices; a solid needs at least 4"),
        ("a.obj", BOX.replace("0.05", "nan", 1).encode(), "1 of 8 vertices are not finite"),
        ("a.obj", BOX.replace("0.05", "inf", 1).encode(), "not finite"),
        ("a.obj", BOX.replace("0.05", "9" * 5000, 1).encode(), "not finite"),
        ("a.obj", BOX.replace("0.05", "9" * 200_000, 1).encode(), "characters, at most"),
        ("a.obj", BOX.encode() + b"f 1 2 99\n", "refers to vertex 99, there are 8"),
        ("a.obj", BOX.encode() + b"f 1 2 -99\n", "line 21: a face refers to vertex -99"),
        ("a.obj", BOX.encode() + b"f 0 1 2\n", "vertex numbers start at 1"),
        ("a.obj", BOX.encode() + b"f 1 2 " + b"9" * 400, "line 21: a face refers to vertex 9{20};"),
        ("a.obj", BOX.encode() + b"f 1 2\n", "at least 3 corners"),
        ("a.obj", BOX.encode() + b"v 1 2\n", "cannot read 'v 1 2'"),
        ("a.obj", BOX.encode()[:-3], "line 20: a face needs at least 3 corners, has 2"),
        ("a.stl", STL[:-60], "truncated, its header promises 12 faces"),
        ("a.stl", STL[:60], "truncated, 60 bytes"),
        ("a.stl", b"solid a\nfacet normal 0 0 1\n outer loop\n", "no 'endsolid'"),
        ("a.stl", STL[:80] + struct.pack("<I", 2**32 - 1) + STL[84:], "promises 4294967295 faces"),
        ("a.ply", PLY.replace(b"vertex 8", b"vertex 4000000000"), "promises 4000000000 vertices"),
        ("a.ply", PLY[:-40], "cannot be read as ply|truncated"),
        ("a.ply", b"just text", "a.ply"),
        ("a.off", b"OFF\n8 12 0\n0 0 0\n", "cannot be read as off|truncated"),
        ("a.glb", b"glTF" + struct.pack("<II", 2, 2**32 - 1) + bytes(40), "promises 4294967295"),
        ("a.glb", b"PK\x03\x04" + bytes(60), "not a GLB"),
        ("a.txt", b"v 0 0 0", r"unknown kind '.txt'; known: .glb, .obj"),
    ],
)
def test_bad_files_are_refused_by_name_and_reason(
    tmp_path: pathlib.Path, name: str, content: bytes, message: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(MeshError, match=message) as caught:
        meshes.load_mesh(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_and_a_bad_scale_are_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(MeshError, match="no such file"):
        meshes.load_mesh(tmp_path / "none.obj")
    with pytest.raises(MeshError, match=r"scale=0\.0 must be a positive number"):
        meshes.check_raw(box().vertices, box().faces, "box", scale=0.0)


def test_too_many_vertices_are_refused_while_reading(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.obj"
    path.write_text(BOX)
    monkeypatch.setattr(meshes, "MAX_COUNT", 7)
    with pytest.raises(MeshError, match="more than 7 vertices or triangles"):
        meshes.load_mesh(path)
    monkeypatch.setattr(meshes, "MAX_BYTES", 100)
    with pytest.raises(MeshError, match=r"MiB, at most"):
        meshes.load_mesh(path)


def test_materials_are_never_opened(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a.obj"
    path.write_text("mtllib ../../../etc/hosts\nusemtl x\n" + BOX)
    assert len(meshes.load_mesh(path).faces) == 12


@pytest.mark.parametrize(
    ("size", "hint"),
    [
        (300.0, r"300 m long.*scale=0\.001 if it is in mm"),
        (12.0, r"scale=0\.01 if it is in cm"),
        (0.0002, "scale=750 makes it 15 cm long"),
        (1e6, "for example scale="),
        (
            1.5,
            r"1\.5 m long; objects must be 1 cm to 1 m\. Wrong unit\?.*scale=0\.01 if it is in cm",
        ),
        (0.009, r"0\.009 m long; objects must be 1 cm to 1 m\. Wrong unit\?"),
    ],
)
def test_a_mug_of_the_wrong_unit_is_refused_with_the_right_scale(size: float, hint: str) -> None:
    mesh = box(size)
    with pytest.raises(MeshError, match=hint):
        meshes.check_raw(mesh.vertices, mesh.faces, "mug")


def test_meshes_and_clouds_have_one_range_of_sizes() -> None:
    for size in (0.9999 * cloud.MIN_EXTENT, 1.0001 * cloud.MAX_EXTENT):
        with pytest.raises(MeshError, match="objects must be 1 cm to 1 m"):
            meshes.check_raw(box(size).vertices, box().faces, "mug")
        with pytest.raises(CloudError, match="objects must be 1 cm to 1 m"):
            cloud.check_cloud(np.concatenate([box(size).vertices, box(size).triangles_center]))
    for size in (1.0001 * cloud.MIN_EXTENT, 0.9999 * cloud.MAX_EXTENT):
        mesh = meshes.check_raw(box(size).vertices, box().faces, "mug")
        cloud.check_cloud(np.concatenate([mesh.vertices, mesh.triangles_center]))


def test_the_suggested_scale_works() -> None:
    mesh = box(300.0)
    scaled = meshes.check_raw(mesh.vertices, mesh.faces, "mug", scale=0.001)
    np.testing.assert_allclose(scaled.extents, [0.3, 0.24, 0.18])


def test_flat_and_volumeless_meshes_are_refused() -> None:
    mesh = box()
    with pytest.raises(MeshError, match=r"flat, sides 100 x 80 x 0 mm"):
        meshes.check_raw(mesh.vertices * [1, 1, 0], mesh.faces, "card")
    tilted = mesh.vertices * [1, 1, 0] @ trimesh.transformations.euler_matrix(1, 2, 3)[:3, :3].T
    with pytest.raises(MeshError, match="flat"):
        meshes.check_raw(tilted, mesh.faces, "card")
    # Two bent sheets, back to back and sharing their rim: closed, but next to nothing inside.
    ball = trimesh.creation.icosphere(2, 0.05)
    sheet = trimesh.Trimesh(ball.vertices, ball.faces[ball.triangles_center[:, 2] > 0])
    rim = np.unique(sheet.edges[trimesh.grouping.group_rows(sheet.edges_sorted, require_count=1)])
    back = np.arange(len(sheet.vertices)) + len(sheet.vertices)
    back[rim] = rim
    double = trimesh.Trimesh(
        np.concatenate([sheet.vertices, 0.9999 * sheet.vertices]),
        np.concatenate([sheet.faces, back[sheet.faces][:, ::-1]]),
        process=False,
    )
    double.remove_unreferenced_vertices()
    with pytest.raises(MeshError, match=r"encloses .* cm3, less than 1/1000"):
        meshes.check_and_repair(double, "sheet")


def test_a_clean_mesh_is_left_alone() -> None:
    repaired = meshes.check_and_repair(box(), "box")
    assert repaired.findings == ()
    np.testing.assert_array_equal(repaired.mesh.vertices, box().vertices)


def test_repairs_restore_the_volume() -> None:
    ball = trimesh.creation.icosphere(3, 0.05)
    turned = ball.copy()
    turned.invert()
    assert meshes.check_and_repair(turned, "b").mesh.volume == pytest.approx(ball.volume)

    mixed = trimesh.Trimesh(ball.vertices, ball.faces.copy(), process=False)
    mixed.faces[::3] = mixed.faces[::3, ::-1]
    repaired = meshes.check_and_repair(mixed, "b")
    assert repaired.mesh.volume == pytest.approx(ball.volume)
    assert any("winding" in finding for finding in repaired.findings)

    soup = trimesh.Trimesh(*trimesh.triangles.to_kwargs(ball.triangles).values(), process=False)
    repaired = meshes.check_and_repair(soup, "b")
    assert repaired.mesh.volume == pytest.approx(ball.volume)
    assert any("welded" in finding for finding in repaired.findings)


def test_holes_are_closed_and_reported() -> None:
    ball = trimesh.creation.icosphere(3, 0.05)
    keep = (ball.triangles_center[:, 2] < 0.04) & (np.arange(len(ball.faces)) != 7)
    holed = trimesh.Trimesh(ball.vertices, ball.faces[keep], process=False)
    repaired = meshes.check_and_repair(holed, "b")
    assert repaired.closed
    assert any("closed 2 holes" in finding for finding in repaired.findings)
    cap = np.pi * 0.01**2 * (3 * 0.05 - 0.01) / 3
    assert repaired.mesh.volume == pytest.approx(ball.volume - cap, rel=0.02)


def test_faces_without_area_are_dropped_or_refused() -> None:
    mesh = box()
    middle = mesh.vertices[mesh.edges[0]].mean(axis=0)
    vertices = np.concatenate([mesh.vertices, [middle]])
    slivers = [[*mesh.edges[0], 8], [2, 2, 5]]
    broken = trimesh.Trimesh(vertices, np.concatenate([mesh.faces, slivers]), process=False)
    repaired = meshes.check_and_repair(broken, "b")
    assert "dropped 2 double or zero-area faces" in repaired.findings
    assert repaired.closed
    assert len(repaired.mesh.faces) == len(mesh.faces)
    assert repaired.mesh.volume == pytest.approx(mesh.volume)

    line = np.linspace(0.0, 0.1, 5)[:, None] * [1.0, 2.0, 3.0]
    needle = trimesh.Trimesh(line, [[0, 1, 2], [1, 2, 3], [2, 3, 4]], process=False)
    with pytest.raises(MeshError, match="pole: degenerate, every face has zero area"):
        meshes.check_and_repair(needle, "pole")


def test_scraps_are_dropped_and_overlapping_parts_united() -> None:
    scrap = trimesh.creation.icosphere(1, 0.001)
    scrap.apply_translation([0.2, 0, 0])
    repaired = meshes.check_and_repair(trimesh.util.concatenate([box(), scrap]), "b")
    assert repaired.mesh.volume == pytest.approx(box().volume)
    other = box()
    other.apply_translation([0.05, 0, 0])
    repaired = meshes.check_and_repair(trimesh.util.concatenate([box(), other]), "b")
    assert repaired.mesh.volume == pytest.approx(1.5 * box().volume)
    assert any("united 2" in finding for finding in repaired.findings)


def test_what_cannot_be_closed_is_refused_or_handed_back() -> None:
    mesh = box()
    fin = np.concatenate([mesh.vertices, [[0.1, 0.1, 0.1]]])
    finned = trimesh.Trimesh(fin, np.concatenate([mesh.faces, [[0, 1, 8]]]), process=False)
    with pytest.raises(MeshError, match="not watertight and cannot be closed"):
        meshes.check_and_repair(finned, "b")
    assert not meshes.check_and_repair(finned, "b", require_closed=False).closed


@pytest.mark.parametrize("name", ["005_tomato_soup_can", "025_mug"])
def test_real_scans_become_closed(shared: pathlib.Path, name: str) -> None:
    path = shared / "data" / "ycb" / name / "textured.obj"
    if not path.exists():
        pytest.skip(f"no scan at {path}")
    repaired = meshes.check_and_repair(meshes.load_mesh(path), name)
    assert repaired.closed
    assert repaired.mesh.volume > 0
    assert len(repaired.mesh.faces) > 16_000
