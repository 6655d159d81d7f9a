"""What joint states alone tell of a grasp: digits that do not get where they were told to be.

A squeeze's set points lie inside the object, so whatever holds one falls short of them; an empty
hand gets there. This shows that something is between the fingers, not what, nor that it rose.
"""

import numpy as np
from jaxtyping import Float

from robot import limits

SHORT_RAD = 0.03
"""Radians that a driven angle must be from its set point: an empty hand is within 0.02, digits on
an object are 0.05 to 0.3 off."""
_DIGITS = {"FF": "first", "MF": "middle", "RF": "ring", "LF": "little", "TH": "thumb"}


def pressing(
    q_wanted: Float[np.ndarray, " 30"], q_measured: Float[np.ndarray, " 30"]
) -> tuple[str, ...]:
    """The digits that something keeps from their set points.

    Args:
        q_wanted: Set points of all joints, radians, order `limits.NAMES`.
        q_measured: Where they are.
    """
    short = np.abs(limits.DRIVEN @ (q_wanted - q_measured)) > SHORT_RAD
    names = [name for name, off in zip(limits.DRIVEN_NAMES, short, strict=True) if off]
    return tuple(
        told for key, told in _DIGITS.items() if any(name.startswith(f"rh_{key}") for name in names)
    )


def holds(digits: tuple[str, ...]) -> bool:
    """Whether these digits can hold something: the thumb against another."""
    return "thumb" in digits and len(digits) > 1
