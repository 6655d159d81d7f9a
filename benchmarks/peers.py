"""The peers that benchmarks compare with: imported late, and held to the same answers."""

import importlib
import os
from types import ModuleType
from typing import Any

import jax
import numpy as np
from jax.typing import ArrayLike

from realdex_jax.errors import RealdexError


class DisagreementError(RealdexError):
    """Two implementations computed different things, so their times do not compare."""


class MissingPeerError(RealdexError):
    """A peer to compare with is not installed."""


def load(name: str) -> ModuleType:
    """A peer's package.

    Raises:
        MissingPeerError: The bench extra is not installed.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise MissingPeerError(
            f"{error.name} is not installed; `make bench` installs the peers, or "
            "pip install -e '.[bench]'"
        ) from error


def torch() -> ModuleType:
    """PyTorch, with as many threads as this process has cores.

    Raises:
        MissingPeerError: The bench extra is not installed.
    """
    found = load("torch")
    found.set_num_threads(len(os.sched_getaffinity(0)))
    return found


def tensor(array: ArrayLike) -> Any:
    """A PyTorch tensor of a copy of an array, where JAX computes: on its GPU, or on the CPU."""
    copied = torch().from_numpy(np.array(array))
    return copied.cuda() if jax.default_backend() == "gpu" else copied


def wait() -> None:
    """Until PyTorch's GPU, if that is where it computes, has done what it was given."""
    if jax.default_backend() == "gpu":
        torch().cuda.synchronize()


def agree(name: str, error: float, most: float) -> None:
    """Ends a comparison whose sides differ.

    Raises:
        DisagreementError: The error is larger than allowed, or not finite.
    """
    if not error < most:
        raise DisagreementError(f"{name} differs from realdex_jax by {error:g}; allowed: {most:g}")
