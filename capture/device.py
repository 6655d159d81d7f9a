"""What a camera is to the rest of the rig: its optics, and frames one by one."""

import dataclasses
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, UInt8, UInt16

from realdex_jax.errors import RealdexError
from realdex_jax.geometry.lens import Lens

FPS = 15.0
"""Frames a second of the rig, as in RealDex."""


class CaptureError(RealdexError):
    """A camera or a recording that cannot be used as asked."""


class UnpluggedError(CaptureError):
    """A camera that is gone; the others go on."""


class OverError(UnpluggedError):
    """A recording, or a sequence, that has come to its end."""


@dataclasses.dataclass(frozen=True, eq=False)
class Optics:
    """The two lenses of one camera, and where the depth lens is."""

    colour: Lens
    depth: Lens
    wxyz_xyz_colour_depth: Float[np.ndarray, " 7"]
    """T_colour_depth: quaternion wxyz and position (m). A camera's frame is its colour lens's."""


@dataclasses.dataclass(frozen=True, eq=False)
class Frame:
    """One exposure of one camera."""

    camera: int
    """Its number in the rig; 0 is the main one."""
    number: int
    """Count of the camera's exposures since its start; a gap is a drop."""
    device_ns: int
    """Middle of the exposure by the camera's clock."""
    host_ns: int
    """Arrival by this machine's monotonic clock."""
    colour: UInt8[np.ndarray, "h w 3"]
    """RGB, as the lens distorts it."""
    depth: UInt16[np.ndarray, "H W"]
    """Millimetres along the optical axis in the depth lens's picture; 0 without a reading."""


@runtime_checkable
class Device(Protocol):
    """A camera; used by one thread at a time."""

    @property
    def camera(self) -> int:
        """Its number in the rig."""
        ...

    @property
    def optics(self) -> Optics:
        """Its lenses."""
        ...

    def start(self) -> None:
        """Begins to expose.

        Raises:
            CaptureError: It cannot.
        """
        ...

    def read(self, timeout_s: float) -> Frame | None:
        """The next frame; None if none came in that time.

        Raises:
            UnpluggedError: The camera is gone, or, as its kind `OverError`, a recording is over.
        """
        ...

    def stop(self) -> None:
        """Ends the exposures; may be called twice."""
        ...
