"""Peak memory of making and of measuring many grasps of one object, each in a process of its own.

The peak is the kernel's count of resident memory, so compiled code and libraries are in it.
"""

import dataclasses
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import jax

from experiments import protocol
from experiments.protocol import Entry, Taken
from realdex_jax import generate
from realdex_jax.data import object_files
from realdex_jax.hand.load import load
from realdex_jax.models import grasp_model
from sim import objects

GRASPS = 10_000
OBJECT = "bathroom_cleaner"
TARGET_BYTES = 4 * 2**30
_CLOUD_POINTS = 3000


@dataclasses.dataclass(frozen=True)
class Peak:
    """What one job took."""

    name: str
    grasps: int
    peak_bytes: int
    seconds: float


def measure(grasps: int = GRASPS) -> list[Peak]:
    """Generates and refines, then evaluates by every metric, in two processes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "grasps.npz"
        return [
            _alone("generation and refinement", grasps, _made, path),
            _alone("evaluation", grasps, _measured, path),
        ]


def _alone(name: str, grasps: int, job: Callable[[Path, int], None], path: Path) -> Peak:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        peak, seconds = pool.apply(_peak, (job, path, grasps))
    return Peak(name, grasps, peak, seconds)


def _peak(job: Callable[[Path, int], None], path: Path, grasps: int) -> tuple[int, float]:
    start = time.perf_counter()
    job(path, grasps)
    taken = time.perf_counter() - start
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, taken


def _made(path: Path, grasps: int) -> None:
    model = grasp_model.load_model("realdex-sim-small")
    cloud = objects.make(OBJECT).surface(_CLOUD_POINTS, 0).points
    found = generate.generate(model, cloud, grasps, jax.random.key(0))
    object_files.save_grasps(path, found.refined)


def _measured(path: Path, grasps: int) -> None:
    stored = object_files.load_grasps(path)
    assert len(stored) == grasps
    entry = Entry(objects.make(OBJECT), None)
    protocol.measure(load(), Taken("refined", entry, 0, stored))
