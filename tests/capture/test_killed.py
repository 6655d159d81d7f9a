"""A recorder killed at any moment loses at most the frame that it was writing."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from capture import chunks, codecs, recording
from capture.recording import Recording


@pytest.fixture(scope="module")
def nursery(repository):
    """A program that records into each folder that it is told, in a process of its own."""
    program = repository / "tests" / "checker" / "cameras.py"
    with subprocess.Popen(
        [sys.executable, str(program)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(repository), "JAX_PLATFORMS": "cpu"},
    ) as started:
        yield started
        started.stdin.close()


def kill_once(nursery, folder, seconds: float) -> dict[str, int]:
    """Kills a recorder so long after its first frame; the last closed number of each stream."""
    nursery.stdin.write(f"{folder}\n")
    nursery.stdin.flush()
    pid = int(nursery.stdout.readline())
    told = folder.with_name(f"{folder.name}.closed")
    until = time.monotonic() + 20
    while not (told.exists() and told.stat().st_size) and time.monotonic() < until:
        time.sleep(0.002)
    time.sleep(seconds)
    os.kill(pid, signal.SIGKILL)
    closed: dict[str, int] = {}
    settled = -1
    while settled != told.stat().st_size:  # what was in flight when the signal came
        settled = told.stat().st_size
        time.sleep(0.05)
    for line in told.read_text().split("\n")[:-1]:
        stream, number = line.split()
        closed[stream] = int(number)
    return closed


def check(folder, closed, loop) -> int:
    """That all closed frames are there and as made; returns how many."""
    recorded, count = Recording(folder), 0
    torn = recorded.torn
    # Four writers and the robot's: each had begun one record at most.
    assert len(torn) <= 5
    for camera in recorded.cameras:
        stamps, last = recorded.stamps(camera), closed.get(f"cam{camera}", -1)
        # Closed just before the kill, it could not be told of any more.
        assert last <= len(stamps.number) - 1 <= last + 1
        assert stamps.number.tolist() == list(range(len(stamps.number)))
        for k in range(len(stamps.number)):
            frame = recorded.frame(camera, k)
            colour, depth = loop(camera, k)
            assert (frame.depth == depth).all()
            made = codecs.decode_colour(codecs.encode_colour(colour), colour.shape[1::-1], "made")
            assert (frame.colour == made).all()
        count += len(stamps.number)
    series = recorded.joints()
    if series is not None:
        assert closed.get("joints", -1) <= len(series.q) - 1 <= closed.get("joints", -1) + 1
        np.testing.assert_allclose(series.q.sum(axis=1), 1.0)
    before = {p: p.read_bytes() for p in folder.glob("*.rec")}
    assert recording.repair(folder) == torn
    assert recording.repair(folder) == {}
    for path, content in before.items():
        kept = path.read_bytes() if path.exists() else b""
        assert content[: len(kept)] == kept
        assert len(content) - len(kept) == torn.get(path, 0)
        assert not chunks.scan(path).rest if path.exists() else True
    assert not Recording(folder).torn if count else True
    return count


def test_killed_at_random_moments_nothing_closed_is_lost(nursery, small_loop, tmp_path):
    moments = random.Random(0)
    for i in range(4):
        folder = tmp_path / f"r{i}"
        closed = kill_once(nursery, folder, moments.uniform(0.0, 0.25))
        assert check(folder, closed, small_loop) > 0


KILLS = "REALDEX_KILLS"


@pytest.mark.slow
@pytest.mark.skipif(KILLS not in os.environ, reason=f"set {KILLS} to how many there should be")
@pytest.mark.timeout(3 * 3600)
def test_killed_as_often_as_asked(nursery, small_loop, tmp_path):
    """200 is the target; each takes about a second, and its folder goes when it was checked."""
    moments, frames, wanted = random.Random(2), 0, int(os.environ[KILLS])
    for i in range(wanted):
        folder = tmp_path / f"r{i}"
        closed = kill_once(nursery, folder, moments.uniform(0.0, 1.0))
        frames += check(folder, closed, small_loop)
        shutil.rmtree(folder)
    sys.stdout.write(f"{wanted} kills, {frames} closed frames, none lost\n")
    assert frames > 10 * wanted


@pytest.mark.slow
@pytest.mark.long
def test_killed_twenty_times_more(nursery, small_loop, tmp_path):
    moments, frames = random.Random(1), 0
    for i in range(20):
        folder = tmp_path / f"r{i}"
        closed = kill_once(nursery, folder, moments.uniform(0.0, 1.0))
        frames += check(folder, closed, small_loop)
    assert frames > 1000
