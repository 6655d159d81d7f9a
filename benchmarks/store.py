"""A million grasps in DexGraspNet's layout: converted, and drawn as training batches.

The files are made up: some objects with random grasps, over and over under new names. Memory is
the peak of the converting processes, asked of the operating system by their parent, a child of this
one.
"""

import dataclasses
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from scipy.spatial.transform import Rotation

from experiments import convert
from experiments.convert import Convert
from realdex_jax.data import dexgraspnet, pipeline, store
from realdex_jax.data.pipeline import Sampling, Stored
from realdex_jax.hand import joints

OBJECTS, GRASPS = 4000, 250
"""A million grasps, spread as DexGraspNet's are: five sizes of each object."""
TARGET = 20_000.0
"""Samples (a grasp with its cloud) a second on four cores."""
TARGET_BYTES = 2 * 2**30
"""Memory that the conversion may take."""

_KINDS = 20  # objects that differ


@dataclasses.dataclass(frozen=True)
class Loaded:
    """What was measured."""

    units: int
    """Objects at sizes."""
    grasps: int
    """In the store."""
    convert_s: float
    """Seconds of the conversion."""
    convert_peak_bytes: int
    """Largest memory of the conversion: its parent's peak, and that of the largest child once for
    each process."""
    dataset_bytes: int
    cold_per_second: float
    """Samples a second while most objects are read for the first time."""
    per_second: float
    """Samples a second after that."""
    processes: int
    """That convert and that read."""


def measure(
    objects: int = OBJECTS, grasps: int = GRASPS, seconds: float = 60.0, processes: int = 0
) -> Loaded:
    """Makes the files, converts them in a child process, then draws training batches.

    Args:
        objects: Number of objects.
        grasps: Grasps of each.
        seconds: How long batches are drawn.
        processes: That convert, and that read; one per core if 0.
    """
    processes = processes or len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="realdex_store.") as folder:
        source, dest = Path(folder) / "source", Path(folder) / "store"
        make(source, objects, grasps)
        begun = time.perf_counter()
        command = [sys.executable, "-m", "benchmarks.store", str(source), str(dest), str(processes)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        took = time.perf_counter() - begun
        dataset = store.open_dataset(dest)
        cold, warm = rates(Stored(dataset, "train"), processes, seconds)
        return Loaded(
            units=dataset.recipe["counts"]["objects"],
            grasps=dataset.recipe["counts"]["grasps"],
            convert_s=took,
            convert_peak_bytes=int(done.stdout.split()[-1]),
            dataset_bytes=sum(f.stat().st_size for f in dest.rglob("*") if f.is_file()),
            cold_per_second=cold,
            per_second=warm,
            processes=processes,
        )


def make(root: Path, objects: int, grasps: int, seed: int = 0) -> None:
    """Writes a folder in DexGraspNet's layout."""
    rng = np.random.default_rng(seed)
    (root / "dataset").mkdir(parents=True)
    keys = (*joints.DEXGRASPNET_NAMES, *dexgraspnet.EULER, *dexgraspnet.TRANSLATION)
    box = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)])
    faces = ("1 2 4 3", "5 7 8 6", "1 5 6 2", "3 4 8 7", "1 3 7 5", "2 6 8 4")
    first: dict[int, str] = {}
    for i in range(objects):
        code = f"made-up-{i:05d}"
        file, mesh = root / "dataset" / f"{code}.npy", dexgraspnet.mesh_path(root, code)
        mesh.parent.mkdir(parents=True)
        if i % _KINDS in first:
            same = first[i % _KINDS]
            os.link(root / "dataset" / f"{same}.npy", file)
            os.link(dexgraspnet.mesh_path(root, same), mesh)
            continue
        first[i % _KINDS] = code
        share = rng.uniform(0.0, 1.0, (grasps, 22))
        q = joints.to_dexgraspnet(joints.LOWER + share * (joints.UPPER - joints.LOWER))
        turn = Rotation.random(grasps, rng=rng)
        values = np.concatenate([q, turn.as_euler("xyz"), turn.apply([0.0, 0.1, 0.0])], axis=1)
        rows = [
            {"scale": dexgraspnet.SCALES[k % 5], "qpos": dict(zip(keys, row, strict=True))}
            for k, row in enumerate(values.tolist())
        ]
        np.save(file, np.array(rows, dtype=object))
        lines = []
        for k, offset in enumerate((-0.4, 0.4)):
            corners = 0.5 * box * rng.uniform(0.5, 1.0, 3) + [0.0, 0.0, offset]
            lines += [f"o piece{k}", *(f"v {x:.6f} {y:.6f} {z:.6f}" for x, y, z in corners)]
            lines += ["f " + " ".join(str(int(n) + 8 * k) for n in face.split()) for face in faces]
        mesh.write_text("\n".join(lines) + "\n")


def rates(source: Stored, processes: int, seconds: float) -> tuple[float, float]:
    """Samples a second of the first and of the last third of the time."""
    data = pipeline.batches(source, Sampling(), seed=0)
    iterator = iter(pipeline.in_processes(data, processes, source))
    next(iterator)  # the processes have started
    found = []
    for _ in range(3):
        begun, count = time.perf_counter(), 0
        while time.perf_counter() - begun < seconds / 3:
            batch = next(iterator)
            count += batch.phi.shape[0] * batch.phi.shape[1]
        found.append(count / (time.perf_counter() - begun))
    iterator.close()
    return found[0], found[2]


def _convert(source: Path, dest: Path, processes: int) -> None:
    """In the child: converts, and prints the peak of memory."""
    convert.run(Convert(source, dest, jobs=processes), Console(stderr=True))
    # Not ru_maxrss of this process: on Linux it begins with the memory of who started it.
    (peak,) = (
        line for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line
    )
    child = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    print(1024 * (int(peak.split()[1]) + processes * child))


if __name__ == "__main__":
    _convert(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
