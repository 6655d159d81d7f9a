"""Recordings that lie partly open and partly in zips: each is read once, none left in silence."""

import hashlib
import zipfile

import numpy as np
import pytest

from realdex_jax.data import realdex, realdex_export, realdex_parts
from realdex_jax.errors import DatasetError


@pytest.fixture(scope="module")
def recorded(capture):
    """Files of recordings of a box by the number in their names."""
    return {n: realdex_export.recording_files([capture(n)], [np.arange(20, 36)]) for n in (1, 2, 3)}


def pack(path, recorded, *numbers, of="box"):
    """A download with these recordings, at the depth of the real ones."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        for n in numbers:
            for name, content in recorded[n].items():
                out.writestr(f"storage/group/bags/{of}/{of}_{n}_20231207/{name}", content)
    return path


def lifted(recorded, tmp_path, put, *numbers):
    """The grasps of these recordings, each read alone."""
    for n in numbers:
        put(tmp_path / "alone" / f"box_{n}_20231207", recorded[n])
    return realdex.open_source(tmp_path / "alone").read("box").grasps.phi


def test_what_is_unpacked_and_what_is_not_are_read_together(tmp_path, recorded, put):
    put(tmp_path / "d" / "open" / "box_2_20231207", recorded[2])
    pack(tmp_path / "d" / "box.zip", recorded, 1, 2, 3)
    unit = realdex.open_source(tmp_path / "d").read("box")
    expected = lifted(recorded, tmp_path, put, 2, 1, 3)
    assert sorted(map(tuple, unit.grasps.phi)) == sorted(map(tuple, expected))
    assert len(unit.motions) == 3
    assert any(n.startswith("1 of 3 in ") and "box.zip are there already" in n for n in unit.notes)


def test_a_zip_whose_recordings_all_lie_open_is_not_summed_up(tmp_path, recorded, put):
    put(tmp_path / "d" / "box_1_20231207", recorded[1])
    pack(tmp_path / "d" / "box.zip", recorded, 1)
    (tmp_path / "d" / "md5.txt").write_text(f"{'0' * 32}  box.zip\n")
    unit = realdex.open_source(tmp_path / "d").read("box")
    assert len(unit.grasps) == 1
    (note,) = (n for n in unit.notes if "box.zip" in n)
    assert note.startswith("1 of 1 in ")
    # One that is needed is compared, and if it differs the rest is read without it.
    pack(tmp_path / "d" / "box.zip", recorded, 1, 2)
    unit = realdex.open_source(tmp_path / "d").read("box")
    assert len(unit.grasps) == 1
    assert any(n.startswith("left out: ") and "download it again" in n for n in unit.notes)


@pytest.mark.parametrize("names", [("a/box.zip", "b/box.zip"), ("box.zip", "box (1).zip")])
def test_two_zips_of_one_object_are_read_both(tmp_path, recorded, put, names):
    pack(tmp_path / "d" / names[0], recorded, 1, 2)
    pack(tmp_path / "d" / names[1], recorded, 2, 3)
    source = realdex.open_source(tmp_path / "d")
    assert source.units == ("box",)
    unit = source.read("box")
    expected = lifted(recorded, tmp_path, put, 1, 2, 3)
    assert sorted(map(tuple, unit.grasps.phi)) == sorted(map(tuple, expected))
    assert any("1 of 2 in " in n and "are there already" in n for n in unit.notes)
    # One of them damaged: its own recordings are missing, and that is said.
    (tmp_path / "d" / names[1]).write_bytes(b"PK\3\4 broken")
    unit = source.read("box")
    assert len(unit.grasps) == 2
    assert any(n.startswith("left out: ") and names[1] in n for n in unit.notes)


def test_a_copy_is_opened_by_itself_and_a_broken_one_told_by_its_sum(tmp_path, recorded):
    path = pack(tmp_path / "duck_toy (2).zip", recorded, 1, of="duck_toy")
    assert realdex.recognise(path)
    source = realdex.open_source(path)
    assert source.units == ("duck_toy",)
    assert len(source.read("duck_toy").grasps) == 1
    digest = hashlib.md5(path.read_bytes()).hexdigest()
    (tmp_path / "md5.txt").write_text(f"{digest}  {path.name}\n")
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DatasetError, match="download it again"):
        source.read("duck_toy")


def test_zips_of_no_object_are_named_once(tmp_path, recorded, put, capture):
    put(tmp_path / "soba", {"0.npz": realdex_export.sequence_bytes(capture())})
    for name in ("all.zip", "box_extra.zip", "models.zip"):
        pack(tmp_path / name, recorded, 1)
    pack(tmp_path / "box.zip", recorded, 1)
    source = realdex.open_source(tmp_path, models=tmp_path / "models.zip")
    assert source.units == ("box", "soba")
    (note,) = (n for n in source.read("box").notes if "no object" in n)
    assert "not read: all.zip, box_extra.zip; unpack them" in note
    assert not any("no object" in n for n in source.read("soba").notes)


def test_zips_beside_sequences_that_are_asked_for_are_named(tmp_path, recorded, put, capture):
    put(tmp_path / "box", {"0.npz": realdex_export.sequence_bytes(capture(5))})
    pack(tmp_path / "box.zip", recorded, 1)
    unit = realdex.open_source(tmp_path, kind="sequences").read("box")
    assert len(unit.grasps) == 1
    assert any("box.zip is not read: sequences lie open" in n for n in unit.notes)
    both = realdex.open_source(tmp_path).read("box")
    assert len(both.grasps) == 1
    assert any("1 sequences are left out" in n for n in both.notes)
    assert not np.array_equal(both.grasps.phi, unit.grasps.phi)
    (tmp_path / "box.zip").write_bytes(b"PK\3\4 broken")
    with pytest.raises(DatasetError, match=r"no recording of box; left out: .*box\.zip"):
        realdex.open_source(tmp_path, kind="recordings").read("box")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("box.zip", "box"),
        ("a/b/duck_toy (1).zip", "duck_toy"),
        ("duck_toy(12).zip", "duck_toy"),
        ("midew_remover.zip", "mildew_remover"),
        ("duck_toy.tar", None),
        ("duck_toy_1.zip", None),
        ("(1).zip", None),
    ],
)
def test_zips_are_named_after_objects(name, expected):
    assert realdex_parts.object_of_zip(name) == expected
