"""Joint tables: that of the right Shadow Hand without its wrist, and the record any hand has.

Shadow's is here and nowhere else. Names, order and signs are its own (as in ROS, and in RealDex
files): index 1 is the joint nearest the tip, positive closes the finger. Facts: its published URDF.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from realdex_jax.errors import JointError
from realdex_jax.hand import facts


@dataclasses.dataclass(frozen=True, eq=False)
class JointTable:
    """The j joints of a hand, in the order of its pose vectors."""

    hand: str
    """Name of the hand."""
    names: tuple[str, ...]
    lower: Float[np.ndarray, " j"]
    """Least angles, radians ..."""
    upper: Float[np.ndarray, " j"]
    """... and greatest."""
    rest: Float[np.ndarray, " j"]
    """The posture of a relaxed hand about to grasp, radians."""
    coupled: tuple[tuple[int, int], ...] = ()
    """(index of J2, index of J1) of joints that one tendon bends, as `COUPLED`."""

    def __len__(self) -> int:
        """Number of joints."""
        return len(self.names)

    @property
    def pose_size(self) -> int:
        """Length of a pose vector: joints, and six numbers for the palm."""
        return len(self.names) + 6


_TABLE: tuple[tuple[str, float, float], ...] = (
    ("FFJ4", -0.349066, 0.349066),
    ("FFJ3", -0.261799, 1.570796),
    ("FFJ2", 0.0, 1.570796),
    ("FFJ1", 0.0, 1.570796),
    ("MFJ4", -0.349066, 0.349066),
    ("MFJ3", -0.261799, 1.570796),
    ("MFJ2", 0.0, 1.570796),
    ("MFJ1", 0.0, 1.570796),
    ("RFJ4", -0.349066, 0.349066),
    ("RFJ3", -0.261799, 1.570796),
    ("RFJ2", 0.0, 1.570796),
    ("RFJ1", 0.0, 1.570796),
    ("LFJ5", 0.0, 0.785398),
    ("LFJ4", -0.349066, 0.349066),
    ("LFJ3", -0.261799, 1.570796),
    ("LFJ2", 0.0, 1.570796),
    ("LFJ1", 0.0, 1.570796),
    ("THJ5", -1.047198, 1.047198),
    ("THJ4", 0.0, 1.221730),
    ("THJ3", -0.209440, 0.209440),
    ("THJ2", -0.698132, 0.698132),
    ("THJ1", -0.261799, 1.570796),
)

NAMES: tuple[str, ...] = tuple(name for name, _, _ in _TABLE)
LOWER: Float[np.ndarray, " 22"] = np.array([low for _, low, _ in _TABLE], np.float32)
UPPER: Float[np.ndarray, " 22"] = np.array([high for _, _, high in _TABLE], np.float32)

MAX_RATE: Float[np.ndarray, " 22"] = np.array(
    [4.0 if name in ("THJ5", "THJ4", "THJ3", "THJ1") else 2.0 for name in NAMES], np.float32
)
"""Greatest speeds of the URDF, rad/s; drive at a fraction of them."""

FINGERS: tuple[str, ...] = ("FF", "MF", "RF", "LF", "TH")

COUPLED: tuple[tuple[int, int], ...] = tuple(
    (NAMES.index(f"{finger}J2"), NAMES.index(f"{finger}J1")) for finger in FINGERS[:4]
)
"""(index of J2, index of J1) of the fingers whose last two joints share one tendon: J1 <= J2 on
the real hand."""

# DexGraspNet names its joints from 0 at the tip and turns four of them the other way. Verified by
# comparing fingertips of both hands over the released grasps (datasets reference, section 0).
DEXGRASPNET_NAMES: tuple[str, ...] = tuple(f"robot0:{n[:3]}{int(n[3]) - 1}" for n in NAMES)
_DEXGRASPNET_SIGN = np.array(
    [-1.0 if name in ("FFJ4", "MFJ4", "THJ2", "THJ1") else 1.0 for name in NAMES], np.float32
)

REST: Float[np.ndarray, " 22"] = np.array(
    [facts.SHADOW.rest.get(n, 0.0) for n in NAMES], np.float32
)
"""The posture of a relaxed hand about to grasp."""

SHADOW = JointTable("shadow", NAMES, LOWER, UPPER, REST, COUPLED)
"""All of the above."""


def from_dexgraspnet(q: Float[np.ndarray, "*b 22"]) -> Float[np.ndarray, "*b 22"]:
    """DexGraspNet (and UniDexGrasp) joint angles, in that dataset's order, to ours (rad)."""
    return np.asarray(q) * _DEXGRASPNET_SIGN


def to_dexgraspnet(q: Float[np.ndarray, "*b 22"]) -> Float[np.ndarray, "*b 22"]:
    """Our joint angles to DexGraspNet's order and signs (rad): `from_dexgraspnet` undone."""
    return np.asarray(q) * _DEXGRASPNET_SIGN


def reorder(
    q: Float[np.ndarray, "*b any"], names: Sequence[str], table: JointTable = SHADOW
) -> Float[np.ndarray, "*b j"]:
    """Puts angles given by name into a hand's order.

    Args:
        q: Angles (rad), last axis in the order of `names`. Joints beyond the hand's are dropped.
        names: Joint names, with or without the `rh_` prefix of ROS.
        table: The hand's joints.

    Raises:
        JointError: A joint of the hand is missing or named twice.
    """
    plain = [name.removeprefix("rh_") for name in names]
    if len(plain) != np.shape(q)[-1]:
        raise JointError(f"{len(plain)} joint names for {np.shape(q)[-1]} angles; they must match")
    missing = [name for name in table.names if name not in plain]
    if missing:
        known = ", ".join(table.names)
        raise JointError(f"no angle for {', '.join(missing)}; known joints: {known}")
    twice = sorted({name for name in plain if plain.count(name) > 1})
    if twice:
        raise JointError(f"joints named twice: {', '.join(twice)}")
    return np.asarray(q)[..., [plain.index(name) for name in table.names]]
