"""Files of records: cut off anywhere, the records before are there and nothing else is."""

import errno
import json
import os
import resource
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest

from capture import chunks
from capture.chunks import DiskError, Record, UnsyncedError, Writer
from capture.device import CaptureError


def record(k: int, rng: np.random.Generator | None = None) -> Record:
    rng = rng or np.random.default_rng(k)
    sizes = rng.integers(0, 300, 2)
    return Record(k, 10**18 + k, -5 + k, rng.bytes(int(sizes[0])), rng.bytes(int(sizes[1])))


def written(folder, count=12, **settings):
    writer = Writer(folder, "cam0", {"format": 1, "camera": 0}, **settings)
    for k in range(count):
        writer.append(record(k))
    writer.close()
    writer.close()
    return sorted(folder.glob("*.rec"))


def held(paths):
    return [chunks.read(place) for path in paths for place in chunks.scan(path).places]


def test_records_come_back_and_files_roll(tmp_path):
    paths = written(tmp_path, chunk_bytes=1000)
    assert len(paths) > 2
    assert [p.name for p in paths[:2]] == ["cam0-00000.rec", "cam0-00001.rec"]
    assert held(paths) == [record(k) for k in range(12)]
    for path in paths:
        found, fast = chunks.scan(path), chunks.scan(path, verify=False)
        assert found == fast
        assert found.header == {"format": 1, "camera": 0}
        assert (found.rest, found.whole) == (0, path.stat().st_size)


def test_a_file_cut_off_at_any_byte_keeps_the_records_before(tmp_path):
    (path,) = written(tmp_path, 3)
    content, ends = path.read_bytes(), [p.offset + p.size for p in chunks.scan(path).places]
    for size in range(len(content) + 1):
        path.write_bytes(content[:size])
        whole = sum(end <= size for end in ends)
        found = chunks.scan(path)
        assert [p.number for p in found.places] == list(range(whole)), size
        assert found.whole + found.rest == size
        if size % 11 and size not in ends:
            continue  # repairing brings the file to the disk each time
        cut = chunks.repair(path)
        if path.exists():
            assert path.read_bytes() == content[: found.whole]
            assert chunks.repair(path) == 0
        else:
            assert not found.whole
        assert cut == found.rest
    assert not list(tmp_path.glob("*.damaged"))


def test_any_flipped_bit_ends_the_row_before_it_and_what_follows_is_kept_aside(tmp_path):
    (path,) = written(tmp_path, 6)
    content, places = path.read_bytes(), chunks.scan(path).places
    rng = np.random.default_rng(0)
    for at in rng.integers(places[0].offset, len(content), 150):
        damaged = bytearray(content)
        damaged[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        hit = next(i for i, p in enumerate(places) if at < p.offset + p.size)
        assert chunks.scan(path).places == places[:hit]
        chunks.repair(path)
        aside = path.with_name(f"{path.name}.damaged")
        assert aside.exists() == (hit < len(places) - 1)
        assert path.read_bytes() == content[: places[hit].offset]
        if aside.exists():
            assert aside.read_bytes() == bytes(damaged)[places[hit].offset :]
            aside.unlink()


def test_numbers_that_do_not_rise_and_sizes_that_lie_end_the_row(tmp_path):
    (path,) = written(tmp_path, 3)
    content, last = path.read_bytes(), chunks.scan(path).places[-1]
    path.write_bytes(content + content[last.offset :])
    assert len(chunks.scan(path).places) == 3
    lie = bytearray(content[last.offset :])
    lie[28:32] = (2**31).to_bytes(4, "little")
    path.write_bytes(content + bytes(lie))
    assert len(chunks.scan(path).places) == 3
    path.write_bytes(content[:8] + (2**31).to_bytes(4, "little") + content[12:])
    assert chunks.scan(path).header == {}


def test_a_blob_too_large_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(chunks, "MAX_BLOB", 100)
    writer = Writer(tmp_path, "cam0", {})
    with pytest.raises(CaptureError, match="record 7: 101 bytes, at most 100"):
        writer.append(Record(7, 0, 0, bytes(101), b""))
    writer.append(Record(8, 0, 0, bytes(100), b""))
    writer.close()
    assert len(held([tmp_path / "cam0-00000.rec"])) == 1


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    writer, writev, room = Writer(tmp_path, "cam0", {}), os.writev, [700]

    def scarce(fd, parts):
        size = sum(map(len, parts))
        if not room[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        # As a file system does: what fits goes in, the rest is refused the next time.
        took = min(room[0], size)
        room[0] -= took
        return writev(fd, [b"".join(parts)[:took]])

    monkeypatch.setattr(os, "writev", scarce)
    kept = []

    def fill():
        for k in range(20):
            writer.append(record(k))
            kept.append(k)

    with pytest.raises(DiskError, match=r"cam0-00000\.rec: No space left on device; frames closed"):
        fill()
    assert kept
    found = chunks.scan(tmp_path / "cam0-00000.rec")
    assert [p.number for p in found.places] == kept
    assert found.rest == 0
    # With room again the stream goes on where it was.
    room[0] = 10**6
    writer.append(record(19))
    writer.close()
    assert [r.number for r in held([tmp_path / "cam0-00000.rec"])] == [*kept, 19]


def test_a_sync_that_fails_says_so_and_the_record_is_there(tmp_path, monkeypatch):
    writer = Writer(tmp_path, "cam0", {}, sync_s=0.0, chunk_bytes=1)
    writer.append(record(0))
    fdatasync = os.fdatasync

    def failing(fd):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fdatasync", failing)
    # A new file is due with every record: the old one cannot be closed, and the record is nowhere.
    with pytest.raises(DiskError, match="Input/output error") as caught:
        writer.append(record(1))
    assert not isinstance(caught.value, UnsyncedError)
    assert [r.number for r in held(sorted(tmp_path.glob("*.rec")))] == [0]
    with pytest.raises(UnsyncedError, match=r"cam0-00002\.rec: Input/output error; a power cut"):
        writer.append(record(2))
    assert writer.frames == 2
    monkeypatch.setattr(os, "fdatasync", fdatasync)
    writer.close()
    assert [r.number for r in held(sorted(tmp_path.glob("*.rec")))] == [0, 2]


def test_a_folder_that_cannot_be_synced_is_a_disk_error(tmp_path, monkeypatch):
    def failing(fd):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(DiskError, match="Input/output error"):
        Writer(tmp_path, "cam0", {})


def test_what_is_cut_off_is_on_the_disk_before_and_no_earlier_one_is_lost(tmp_path, monkeypatch):
    (path,) = written(tmp_path, 6)
    content, places = path.read_bytes(), chunks.scan(path).places
    done, fsync = [], os.fsync
    for k, hit in enumerate((4, 2), 1):
        damaged = bytearray(content)
        damaged[places[hit].offset + 60] ^= 1
        path.write_bytes(damaged)
        done.clear()
        before = path.stat().st_size

        def look(fd, before=before):
            if path.stat().st_size == before:
                done.append("whole")
            fsync(fd)

        monkeypatch.setattr(os, "fsync", look)
        chunks.repair(path)
        # File and folder of what is kept, while the damaged one is still as it was.
        assert done == ["whole", "whole"]
        aside = path.with_name(f"{path.name}.damaged{'-2' if k == 2 else ''}")
        assert aside.read_bytes() == bytes(damaged)[places[hit].offset :]
    assert len(list(tmp_path.glob("*.damaged*"))) == 2


def test_numbers_too_large_for_an_array_are_refused_and_end_the_row(tmp_path):
    writer = Writer(tmp_path, "cam0", {})
    writer.append(record(0))
    for number in (2**63, -1):
        with pytest.raises(CaptureError, match=rf"record {number}: numbers are 0 to 9223372"):
            writer.append(Record(number, 0, 0, b"", b""))
    writer.append(Record(2**63 - 1, 0, 0, b"", b""))
    writer.close()
    (path,) = tmp_path.glob("*.rec")
    assert [r.number for r in held([path])] == [0, 2**63 - 1]
    # One that somebody wrote, with a checksum that fits.
    whole = chunks.scan(path).places[-1].offset
    head = struct.pack("<4sQqqII", b"RDXF", 2**63, 0, 0, 0, 0)
    path.write_bytes(path.read_bytes()[:whole] + head + struct.pack("<I", zlib.crc32(head)))
    found = chunks.scan(path)
    assert ([p.number for p in found.places], found.rest) == ([0], 40)


LIMITED = """
import resource, signal, sys
from pathlib import Path
from capture.chunks import DiskError, Record, Writer
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
writer = Writer(Path(sys.argv[1]), "cam0", {})
k = 0
try:
    while True:
        writer.append(Record(k, k, k, bytes(3000), b"x"))
        k += 1
except DiskError as error:
    print(k, error)
"""


def test_a_limit_of_the_system_is_a_full_disk(tmp_path, repository):
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path)],
        cwd=repository,
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(repository)},
    )
    count, message = done.stdout.split(maxsplit=1)
    assert "File too large" in message
    found = chunks.scan(tmp_path / "cam0-00000.rec")
    assert (len(found.places), found.rest) == (int(count), 0)
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 50_000


def test_a_stream_is_never_written_over(tmp_path):
    written(tmp_path, 2)
    with pytest.raises(DiskError, match="File exists"):
        Writer(tmp_path, "cam0", {})
    assert len(held(tmp_path.glob("*.rec"))) == 2


def test_only_streams_files_are_listed(tmp_path):
    written(tmp_path, 1)
    for name in ("cam0-0.rec", "cam0-00000.rec.damaged", "notes.txt", "CAM1-00000.rec"):
        (tmp_path / name).write_text(json.dumps({}))
    assert list(chunks.streams(tmp_path)) == ["cam0"]
    with pytest.raises(CaptureError, match="cannot be read"):
        chunks.streams(tmp_path / "none")
