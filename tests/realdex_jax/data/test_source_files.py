"""Changes of files are seen, and belong to the units that their paths name."""

import os
import pathlib

import pytest

from realdex_jax.data import source_files

UNITS = ("box", "box_small", "mug@0.060", "mug@0.080")


@pytest.fixture
def tree(tmp_path: pathlib.Path) -> pathlib.Path:
    root = tmp_path / "root"
    for name in ("box_1/final.npy", "box_small_2/final.npy", "meshes/mug.obj", "splits/all.json"):
        path = root / name
        path.parent.mkdir(parents=True)
        path.write_text(name)
    return root


def stale(root: pathlib.Path, before: dict[str, str]) -> list[str]:
    now = source_files.state([root], UNITS)
    return [unit for unit in UNITS if source_files.changed(unit, before, now)]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("box_1/final.npy", ["box"]),
        ("box_small_2/final.npy", ["box_small"]),
        ("meshes/mug.obj", ["mug@0.060", "mug@0.080"]),
        ("splits/all.json", list(UNITS)),
    ],
)
@pytest.mark.parametrize("change", ["content", "time", "gone", "new"])
def test_a_change_belongs_to_the_units_that_the_path_names(
    tree: pathlib.Path, name: str, expected: list[str], change: str
) -> None:
    path = tree / name
    before = source_files.state([tree], UNITS)
    assert before == source_files.state([tree], UNITS)
    assert not stale(tree, before)
    match change:
        case "content":
            status = path.stat()
            path.write_text(f"{name} and more")
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        case "time":
            os.utime(path, ns=(10**18, 10**18))
        case "gone":
            path.unlink()
        case "new":
            path.with_name(f"more_{path.name}").write_text("")
            expected = expected if name != "meshes/mug.obj" else list(UNITS)  # names none of them
    assert stale(tree, before) == expected


def test_pictures_links_in_a_ring_and_what_is_made_are_passed_over(tree: pathlib.Path) -> None:
    made = tree / "made"
    before = source_files.state([tree], UNITS, without=[made])
    (tree / "box_1" / "1.JPG").write_bytes(b"")
    (tree / "box_1" / "ring").symlink_to(tree)
    (tree / "box_1" / "nowhere").symlink_to(tree / "absent")
    made.mkdir()
    (made / "box.npz").write_bytes(b"")
    assert source_files.state([tree], UNITS, without=[made]) == before
    assert source_files.state([tree], UNITS) != before


def test_one_file_is_a_source_too(tree: pathlib.Path) -> None:
    path = tree / "meshes" / "mug.obj"
    assert set(source_files.state([path], UNITS)) == {"mug"}
