"""What every foreign dataset looks like to the converter: named units, read one at a time."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from realdex_jax.data.motion_set import MotionSet
from realdex_jax.data.schema import GraspSet


@dataclasses.dataclass(frozen=True, eq=False)
class Unit:
    """One object of a source, in this project's terms: metres, radians, our joint order."""

    name: str
    """Name of the object in the store."""
    grasps: GraspSet | None = None
    """Grasps in the object's frame, if the source has any of it."""
    motions: MotionSet | None = None
    """Motions that reach for it, if the source has any."""
    mesh: bytes | None = None
    """The object's surface as OBJ text in metres, if the source has it."""
    points: Float[np.ndarray, "n 3"] | None = None
    """Points of its surface, metres, where there is no mesh."""
    notes: tuple[str, ...] = ()
    """What was found odd and how it was read, for people."""


@runtime_checkable
class Source(Protocol):
    """A dataset in somebody else's layout."""

    @property
    def format(self) -> str:
        """Name of the layout, such as "realdex"."""
        ...

    @property
    def units(self) -> Sequence[str]:
        """What can be read, in a fixed order; found by listing names, not by reading files."""
        ...

    def read(self, unit: str) -> Unit:
        """Reads one unit; the same every time.

        Raises:
            DatasetError: Its files do not keep the layout; the message names the file and the rule.
        """
        ...

    def splits(self, units: Sequence[str]) -> Mapping[str, Sequence[str]]:
        """Names of objects by "train", "val" and "test", of those that could be read."""
        ...

    @property
    def recipe(self) -> Mapping[str, Any]:
        """Where it came from, as JSON: layout, version, options."""
        ...
