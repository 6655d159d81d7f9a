"""Archives from strangers: each hostile kind is refused by name, and nothing is written."""

import hashlib
import stat
import struct
import zipfile

import pytest

from realdex_jax.data import archive
from realdex_jax.errors import DatasetError


def entry(name, mode=0, flags=0):
    member = zipfile.ZipInfo(name)
    member.external_attr = mode << 16
    member.flag_bits |= flags
    return member


def pack(path, *members, method=zipfile.ZIP_DEFLATED):
    """A zip of (name or ZipInfo, content); the module itself checks no names when it writes."""
    with zipfile.ZipFile(path, "w", method) as out:
        for member, content in members:
            out.writestr(member, content, method)
    return path


def refused(path, match):
    """Both ways in refuse the archive, and the folder beside it stays as it was."""
    before = sorted(path.parent.rglob("*"))
    with pytest.raises(DatasetError, match=match) as error:
        archive.open_archive(path)
    assert path.name in str(error.value)
    with pytest.raises(DatasetError, match=match):
        archive.extract(path, path.parent / "out")
    assert sorted(path.parent.rglob("*")) == before


def test_an_honest_archive_is_unpacked_whole(tmp_path):
    path = pack(tmp_path / "a.zip", ("x/", b""), ("x/one.txt", b"1"), ("x/y/two.bin", b"2" * 5000))
    found = archive.open_archive(path)
    assert found.names == ("x/one.txt", "x/y/two.bin")
    assert found.read("x/one.txt", 10) == b"1"
    out = archive.extract(path, tmp_path / "deep" / "out")
    assert (out / "x" / "y" / "two.bin").read_bytes() == b"2" * 5000
    assert sorted(p.name for p in out.parent.iterdir()) == ["out"]  # no temporary folder is left


def test_only_wanted_files_are_unpacked(tmp_path):
    path = pack(tmp_path / "a.zip", ("cam0/1.png", b"p"), ("final_data.npy", b"f"))
    out = archive.extract(path, tmp_path / "out", wanted=lambda name: name.endswith(".npy"))
    assert [p.name for p in out.rglob("*")] == ["final_data.npy"]


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("../up.txt", "leaves the folder"),
        ("a/../../up.txt", "leaves the folder"),
        ("/etc/passwd", "absolute"),
        ("C:/windows", "absolute or Windows"),
        ("a\\..\\up.txt", "Windows path"),
        ("a//b", "empty part"),
        ("a/./b", "empty part"),
        ("a/b. ", "ends in a dot"),
        ("a\nb", "characters"),
        ("a\0b", "characters"),
        ("n" * 300, "longer than disks allow"),
        ("/", "characters"),
    ],
)
def test_names_that_leave_the_folder_are_refused(tmp_path, name, match):
    good = ("good.txt", b"1")
    # The name goes in as bytes, because the module mends some of these when it writes.
    path = pack(tmp_path / "a.zip", good, ("?" * len(name), b"2"))
    raw = path.read_bytes().replace(b"?" * len(name), name.encode())
    path.write_bytes(raw)
    refused(path, match)


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO])
def test_links_and_devices_are_refused(tmp_path, kind):
    refused(pack(tmp_path / "a.zip", (entry("l", kind | 0o777), b"/etc")), "link or a device")


def test_encrypted_members_and_folders_that_are_files_are_refused(tmp_path):
    path = pack(tmp_path / "a.zip", ("secret", b"1"))
    raw = bytearray(path.read_bytes())
    raw[raw.index(b"PK\1\2") + 8] |= 1
    path.write_bytes(raw)
    refused(path, "encrypted")
    refused(pack(tmp_path / "b.zip", (entry("d", stat.S_IFDIR | 0o755), b"")), "folder by its mode")


@pytest.mark.parametrize(
    ("names", "match"),
    [
        (("A.txt", "a.txt"), "one file where case"),
        (("é.txt", "e\u0301.txt"), "one file where case"),
        (("Dir/a", "dir/b"), "one file where case"),
        (("a", "a/b"), "a file and a folder"),
    ],
)
def test_names_that_fall_together_are_refused(tmp_path, names, match):
    refused(pack(tmp_path / "a.zip", *((name, b"1") for name in names)), match)


def test_a_member_that_is_there_twice_is_refused(tmp_path):
    path = pack(tmp_path / "a.zip", ("one", b"1"), ("two", b"2"))
    path.write_bytes(path.read_bytes().replace(b"two", b"one"))
    refused(path, "there twice")


def test_bombs_are_refused(tmp_path):
    refused(pack(tmp_path / "a.zip", ("zeros", bytes(2**24))), "bomb")
    small = [(f"{i}", bytes(2**19)) for i in range(8)]  # none large enough to count alone
    refused(pack(tmp_path / "b.zip", *small), "bomb")
    path = pack(tmp_path / "c.zip", ("large", bytes(1000)), method=zipfile.ZIP_STORED)
    with pytest.raises(DatasetError, match=r"at most 999 are unpacked: .*unpack it yourself"):
        archive.open_archive(path, max_total=999)


def test_overlapping_members_are_refused(tmp_path):
    # Many entries that share one body: each one's ratio is fine, and their sum is more than stored.
    path = pack(tmp_path / "a.zip", ("aa", bytes(range(256)) * 8), ("bb", b""))
    raw = bytearray(path.read_bytes())
    at = raw.rindex(b"PK\1\2")
    raw[at + 20 : at + 28] = struct.pack("<II", 10**6, 10**6)
    path.write_bytes(raw)
    refused(path, "overlap")


def test_too_many_members_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "MAX_MEMBERS", 10)
    eleven = pack(tmp_path / "a.zip", *((str(i), b"") for i in range(11)))
    refused(eleven, "11 members.*unpack it yourself")
    refused(pack(tmp_path / "b.zip", ("a/" * 11 + "x", b"")), "more than 10 folders: .*unpack it")
    archive.open_archive(pack(tmp_path / "c.zip", ("a/" * 10 + "x", b""), ("a/" * 10 + "y", b"")))


def test_a_table_of_contents_out_of_proportion_is_refused_unread(tmp_path):
    path = pack(tmp_path / "a.zip", ("one", b"1"))
    raw = bytearray(path.read_bytes())
    raw[-10:-6] = struct.pack("<I", 2**31)
    path.write_bytes(raw)
    refused(path, "table of contents of 2147483648 bytes.*unpack it yourself")


def test_what_is_no_zip_is_refused(tmp_path):
    whole = pack(tmp_path / "whole.zip", ("one", b"1" * 100)).read_bytes()
    for name, content in (("empty", b""), ("text", b"hello"), ("cut", whole[:-30])):
        path = tmp_path / f"{name}.zip"
        path.write_bytes(content)
        refused(path, "zip")
    with pytest.raises(DatasetError, match="absent"):
        archive.open_archive(tmp_path / "absent.zip")


def test_damage_found_late_leaves_nothing(tmp_path):
    path = pack(tmp_path / "a.zip", ("one", b"1" * 9), ("two", b"2" * 9), method=zipfile.ZIP_STORED)
    path.write_bytes(path.read_bytes().replace(b"222222222", b"222212222"))
    with pytest.raises(DatasetError, match="could not be unpacked"):
        archive.extract(path, tmp_path / "out")
    with pytest.raises(DatasetError, match="two is damaged"):
        archive.open_archive(path).read("two", 100)
    assert [p.name for p in tmp_path.iterdir()] == ["a.zip"]


def test_targets_and_sizes_are_checked_before_writing(tmp_path, monkeypatch):
    path = pack(tmp_path / "a.zip", ("one", b"1" * 100))
    (tmp_path / "there").mkdir()
    with pytest.raises(DatasetError, match="there already"):
        archive.extract(path, tmp_path / "there")
    with pytest.raises(DatasetError, match="at most 99 are read"):
        archive.open_archive(path).read("one", 99)
    with pytest.raises(DatasetError, match="holds no 'two'"):
        archive.open_archive(path).read("two", 99)
    usage = archive.shutil.disk_usage(tmp_path)._replace(free=10)
    monkeypatch.setattr(archive.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(DatasetError, match="needs 100 bytes"):
        archive.extract(path, tmp_path / "out")


def test_md5_sums(tmp_path):
    path = pack(tmp_path / "box.zip", ("one", b"1"))
    digest = hashlib.md5(path.read_bytes()).hexdigest()
    sums = tmp_path / "md5.txt"
    sums.write_text(f"{digest.upper()}  ./data/box.zip\n\n{'0' * 32} *chips.zip\n")
    found = archive.read_md5(sums)
    assert archive.check_md5(path, found)
    assert not archive.check_md5(tmp_path / "soba.zip", found)
    path.rename(tmp_path / "chips.zip")
    with pytest.raises(DatasetError, match="download it again"):
        archive.check_md5(tmp_path / "chips.zip", found)
    sums.write_text("not a sum\n")
    with pytest.raises(DatasetError, match="line 1"):
        archive.read_md5(sums)
    with pytest.raises(DatasetError, match="not a list"):
        archive.read_md5(tmp_path / "absent.txt")
