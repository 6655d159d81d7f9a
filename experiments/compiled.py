"""Keeps on disk what JAX compiles, so that only the first run of a job waits for the compiler.

The folder is one of this processor and version of JAX: a home directory may be shared by machines
whose processors differ, and machine code of one may be none of the other. A whole project's worth
is some 30 MB. Who sets `JAX_COMPILATION_CACHE_DIR` decides alone; empty, nothing is kept.
"""

import hashlib
import importlib.metadata
import os
import platform
import sys
from pathlib import Path

from realdex_jax import cache

FOLDER = "JAX_COMPILATION_CACHE_DIR"
_SECONDS = "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"
_WORTH_KEEPING_S = 0.3
"""What compiles faster is not worth a file."""
_MAPPINGS = 20_000


def keep() -> None:
    """Has this process, and those that it starts, use the folder."""
    if FOLDER in os.environ:
        return
    os.environ[FOLDER] = str(folder())
    least = os.environ.setdefault(_SECONDS, str(_WORTH_KEEPING_S))
    if "jax" in sys.modules:  # it has read the environment already
        import jax

        jax.config.update("jax_compilation_cache_dir", os.environ[FOLDER])
        jax.config.update("jax_persistent_cache_min_compile_time_secs", float(least))


def folder() -> Path:
    """Where compiled programs of this machine are kept."""
    version = importlib.metadata.version("jaxlib")
    return cache.folder("compiled") / f"jaxlib-{version}-{_processor()}"


def make_room() -> None:
    """Lets go of what is compiled, if it takes so much of the process that it may soon be ended.

    For loops whose rounds compile programs of their own. Each program has a few memory mappings;
    Linux allows a process 65,530 by default, and LLVM cannot compile when there are no more.
    """
    maps = Path("/proc/self/maps")
    if "jax" in sys.modules and maps.exists() and maps.read_bytes().count(b"\n") > _MAPPINGS:
        import jax

        jax.clear_caches()


def _processor() -> str:
    """A short name of what this processor can do."""
    described = [platform.machine(), platform.processor()]
    info = Path("/proc/cpuinfo")
    if info.is_file():
        lines = info.read_text(encoding="utf-8", errors="replace").splitlines()
        kinds = ("model name", "flags", "Features")
        described += sorted({line for line in lines if line.startswith(kinds)})
    return hashlib.sha256("\n".join(described).encode()).hexdigest()[:12]
