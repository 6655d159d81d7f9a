"""The peers that benchmarks compare with: imported late, and held to the same answers."""

import importlib
import os
from types import ModuleType

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


def agree(name: str, error: float, most: float) -> None:
    """Ends a comparison whose sides differ.

    Raises:
        DisagreementError: The error is larger than allowed, or not finite.
    """
    if not error < most:
        raise DisagreementError(f"{name} differs from realdex_jax by {error:g}; allowed: {most:g}")
