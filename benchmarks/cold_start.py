"""What comes before the first grasp: size, import, loading, compiling; in processes of their own.

"Again" is the same with what was compiled kept on disk (`JAX_COMPILATION_CACHE_DIR`).
"""

import dataclasses
import importlib.metadata
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from realdex_jax.errors import RealdexError

TARGET_S = 2.0
"""Most seconds of `import realdex_jax`."""
_IMPORT = """
import sys, time
before = set(sys.modules)
start = time.perf_counter()
import realdex_jax
print(time.perf_counter() - start)
print(*sorted({name.partition(".")[0] for name in set(sys.modules) - before}))
"""
_FIRST = """
import time
start = time.perf_counter()
import jax
from realdex_jax import generate
from realdex_jax.models import grasp_model
from sim import objects
model = grasp_model.load_model("realdex-sim-small")
points = objects.make("mug").surface(3000).points
loaded = time.perf_counter()
jax.block_until_ready(generate.generate(model, points, 10, jax.random.key(0)).refined)
print(loaded - start)
print(time.perf_counter() - loaded)
"""


class ColdStartError(RealdexError):
    """A process that was started to be timed failed."""


@dataclasses.dataclass(frozen=True)
class ColdStart:
    """Seconds, and bytes."""

    import_s: float
    """`import realdex_jax`, the median of some processes."""
    optional: tuple[str, ...]
    """Packages of extras that it imports: there should be none."""
    loaded_s: float
    """Importing what grasps need, and loading hand, model and object."""
    first_s: float
    """Ten grasps of a cloud, compilation included."""
    again_s: float
    """The same in the next process."""
    installed_bytes: int
    """Of the package and all that it needs without extras."""


def measure(imports: int = 5) -> ColdStart:
    """Starts the processes.

    Raises:
        ColdStartError: One of them failed.
    """
    seconds, modules = [], set()
    for _ in range(imports):
        took, names = _run(_IMPORT)
        seconds.append(float(took))
        modules |= set(names.split())
    with tempfile.TemporaryDirectory() as folder:
        kept = {
            "JAX_COMPILATION_CACHE_DIR": folder,
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        loaded, first = map(float, _run(_FIRST, kept))
        _, again = map(float, _run(_FIRST, kept))
    return ColdStart(
        import_s=sorted(seconds)[len(seconds) // 2],
        optional=tuple(sorted(modules & _optional())),
        loaded_s=loaded,
        first_s=first,
        again_s=again,
        installed_bytes=sum(map(_bytes, needed("realdex_jax"))),
    )


def needed(name: str) -> set[str]:
    """A distribution and all that it needs without extras, as far as it is installed."""
    found: set[str] = set()
    todo = [name]
    while todo:
        one = _normal(todo.pop())
        if one in found:
            continue
        try:
            requires = importlib.metadata.requires(one) or []
        except importlib.metadata.PackageNotFoundError:
            continue  # for another platform or Python
        found.add(one)
        todo += [_named(line) for line in requires if "extra ==" not in line]
    return found


def _optional() -> set[str]:
    """Top-level modules of what only extras need."""
    extras = {
        _named(line)
        for line in importlib.metadata.requires("realdex_jax") or []
        if "extra ==" in line
    }
    only = {_normal(name) for name in extras} - needed("realdex_jax")
    return {
        module
        for module, owners in importlib.metadata.packages_distributions().items()
        if owners and all(_normal(owner) in only for owner in owners)
    }


def _named(requirement: str) -> str:
    """The distribution that a line of requirements is about."""
    return re.split(r"[^\w.-]", requirement, maxsplit=1)[0]


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _bytes(name: str) -> int:
    files = importlib.metadata.files(name) or []
    paths = {Path(str(file.locate())) for file in files}
    return sum(path.stat().st_size for path in paths if path.is_file())


def _run(code: str, kept: dict[str, str] | None = None) -> list[str]:
    """The lines that a process prints."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **(kept or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ColdStartError(f"a process that was to be timed ended with {done.stderr.strip()}")
    return done.stdout.strip().splitlines()
