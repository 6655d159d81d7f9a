"""Convex decomposition in a child process, because the library can crash or run away.

`decompose` is called by the parent; `python -m sim.decomposition IN OUT` is the child.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from realdex_jax.errors import DecompositionError

MEMORY_BYTES = 4 * 2**30
"""Address space of the child process."""


@dataclass(frozen=True)
class Decomposition:
    """Settings of the convex decomposition."""

    threshold: float = 0.05
    """Concavity allowed to remain, relative to the mesh scaled to a unit box."""
    max_pieces: int = 24
    """Most pieces; 0 is no limit."""
    iterations: int = 20
    """Tree-search iterations of each cut; 60 takes twice as long and was no tighter on scans."""
    resolution: int = 1000
    """Surface samples behind each concavity value."""
    seed: int = 0
    """Seed of the search."""
    timeout: float = 120.0
    """Seconds after which the child is ended."""


def decompose(
    vertices: Float[np.ndarray, "v 3"],
    faces: Int[np.ndarray, "f 3"],
    settings: Decomposition,
    *,
    closed: bool,
) -> tuple[Float[np.ndarray, "_ 3"], ...]:
    """Split a mesh into convex pieces.

    Args:
        vertices: positions, metres.
        faces: triangles.
        settings: quality and limits.
        closed: whether the mesh is watertight; an open one is first remeshed by the library.

    Returns:
        Corners of each piece, as many as its hull has.

    Raises:
        DecompositionError: the library is missing, crashed, or ran out of time or memory.
    """
    with tempfile.TemporaryDirectory(prefix="decompose_") as folder:
        source, result = Path(folder, "mesh.npz"), Path(folder, "pieces.npz")
        task = json.dumps({**asdict(settings), "closed": closed})
        np.savez(source, vertices=vertices, faces=faces.astype(np.int32), task=np.array(task))
        command = [sys.executable, "-m", "sim.decomposition", str(source), str(result)]
        try:
            done = subprocess.run(
                command,
                cwd=Path(__file__).resolve().parent.parent,
                capture_output=True,
                text=True,
                timeout=settings.timeout,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise DecompositionError(
                f"convex decomposition took more than {settings.timeout:g} s and was ended"
            ) from None
        if done.returncode != 0 or not result.exists():
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise DecompositionError(
                f"convex decomposition failed (exit status {done.returncode}): {last}"
            )
        with np.load(result) as saved:
            corners, sizes = saved["corners"], saved["sizes"]
    return tuple(np.split(corners, np.cumsum(sizes)[:-1]))


def _child(source: str, result: str) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    try:
        import coacd
    except ImportError as error:
        raise SystemExit(f"convex decomposition needs the package coacd: {error}") from None
    with np.load(source) as saved:
        vertices, faces = saved["vertices"], saved["faces"]
        task = json.loads(str(saved["task"]))
    coacd.set_log_level("error")
    parts = coacd.run_coacd(
        coacd.Mesh(vertices, faces),
        threshold=task["threshold"],
        max_convex_hull=task["max_pieces"] or -1,
        preprocess_mode="off" if task["closed"] else "on",
        resolution=task["resolution"],
        mcts_nodes=10,
        mcts_iterations=task["iterations"],
        mcts_max_depth=2,
        seed=task["seed"],
    )
    corners = [np.asarray(part[0], dtype=np.float64) for part in parts]
    np.savez(result, corners=np.concatenate(corners), sizes=np.array([len(c) for c in corners]))


if __name__ == "__main__":
    _child(sys.argv[1], sys.argv[2])
