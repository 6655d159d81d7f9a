"""Whether the recorder keeps up with four Kinects, and stays as large as it was."""

import os
import sys
import time

import cameras
import pytest

from capture import recorder, virtual
from capture.recording import Recording
from capture.streams import RecorderConfig
from experiments import soak


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.parametrize("count", [300, pytest.param(900, marks=pytest.mark.long)])
def test_a_minute_of_four_kinects_at_15_hz_is_kept_whole(tmp_path, count):
    """Colour of 1280 x 720, depth of 640 x 576; a minute takes 0.4 of a core and 1.5 GB of disk."""
    rig = cameras.rig(1280, 640)
    devices = virtual.devices(rig, cameras.noise_loop(rig), pace="wall", count=count)
    busy, began = sum(os.times()[:2]), time.monotonic()
    summary = recorder.record(devices, tmp_path / "a", None, RecorderConfig(floor_bytes=0))
    share = (sum(os.times()[:2]) - busy) / (time.monotonic() - began)
    size = sum(count.bytes for count in summary.counts.values()) / 2**20
    sys.stdout.write(f"{share:.2f} cores, {size:.0f} MB\n")
    assert summary.good, summary
    assert {c.written for c in summary.counts.values()} == {count}
    recorded = Recording(tmp_path / "a")
    assert not recorded.torn
    loop = cameras.noise_loop(rig)
    for camera in range(4):
        assert recorded.stamps(camera).dropped == 0
        for k in (0, count // 2, count - 1):
            assert (recorded.frame(camera, k).depth == loop(camera, k)[1]).all()


SOAK = "REALDEX_SOAK_MINUTES"


@pytest.mark.slow
@pytest.mark.skipif(SOAK not in os.environ, reason=f"set {SOAK} to the minutes it should take")
@pytest.mark.timeout(3 * 3600)
def test_a_long_recording_needs_no_more_memory(tmp_path):
    minutes = float(os.environ[SOAK])
    report = soak.soak(tmp_path / "a", 60.0 * minutes)
    sys.stdout.write(f"{report}\n")
    assert report.lost == 0
    assert report.slope_mb_per_minute < 1.0
