"""Training input over minutes: memory does not grow. `REALDEX_SOAK_MINUTES=10` to run it."""

import os
import pathlib
import subprocess
import sys

import pytest

SOAK = "REALDEX_SOAK_MINUTES"
SLOPE = 1.0
"""Megabytes a minute that all processes together may grow by: what a page cache of the allocator
drifts by, and far less than an object a batch."""

CHILD = """
import sys, time
from pathlib import Path
import numpy as np
from benchmarks.store import make
from experiments import convert
from experiments.convert import Convert
from realdex_jax.data import pipeline
from realdex_jax.data.pipeline import Sampling
from rich.console import Console

def resident(pid):
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024

def family(pid):
    found = [pid]
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += [p for child in (task / "children").read_text().split() for p in family(child)]
    return found

if __name__ == "__main__":
    folder, processes, seconds = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    make(folder / "source", objects=60, grasps=40)
    quiet = Console(quiet=True)
    data = convert.run(Convert(folder / "source", folder / "data", jobs=1), quiet).dataset
    # Fewer are kept than there are, so that objects come and go all the time.
    stored = pipeline.Stored(data, "train", kept=16)
    batches = pipeline.batches(stored, Sampling(), 0)
    iterator = iter(pipeline.in_processes(batches, processes, stored))
    begun, at, held, count = time.perf_counter(), [], [], 0
    while (now := time.perf_counter() - begun) < seconds:
        next(iterator)
        count += 1
        if not at or now - at[-1] > seconds / 200:
            at.append(now)
            held.append(sum(map(resident, family("self"))))
    at, held = np.array(at), np.array(held)
    late = at > seconds / 3  # caches fill first
    slope = np.polyfit(at[late] / 60, held[late], 1)[0]
    print(f"{count} batches in {at[-1]:.0f} s, {held[-1]:.0f} MB, slope {slope:.3f} MB a minute")
    print(slope)
    iterator.close()
"""


@pytest.mark.slow
@pytest.mark.skipif(SOAK not in os.environ, reason=f"set {SOAK} to the minutes it should take")
@pytest.mark.timeout(9 * 3600)
@pytest.mark.parametrize("processes", [0, 2])
def test_training_input_needs_no_more_memory_with_time(
    tmp_path: pathlib.Path, processes: int
) -> None:
    script = tmp_path / "soak.py"
    script.write_text(CHILD)
    seconds = 60.0 * float(os.environ[SOAK])
    done = subprocess.run(
        [sys.executable, script, tmp_path, str(processes), str(seconds)],
        env={**os.environ, "PYTHONPATH": str(pathlib.Path(__file__).parents[3])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    sys.stdout.write(f"{processes} processes: {done.stdout}")
    assert float(done.stdout.split()[-1]) < SLOPE
