"""What a hand's MJCF does not say: its digits, where it may touch, its rest, its drive.

The MJCF has links, joints, limits and primitives. The rest is here, for the Shadow Hand as
`SHADOW`, for any other hand in a `hand.toml` beside its MJCF, which `read` checks. Conventions that
let all hands share one code: the root is the palm, z toward the fingers, palm side -y, thumb on +x;
each digit has a prefix, links `<prefix>proximal`, `<prefix>middle` and `<prefix>distal`, and a site
`<prefix>tip`; flexion moves a link toward -y of its own frame, unless `palmar` says otherwise.
"""

import dataclasses
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from realdex_jax.errors import HandError

SEGMENTS: tuple[str, ...] = ("proximal", "middle", "distal")
"""Links of a digit that may carry a contact, from the palm to the tip."""
_PALMAR = (0.0, -1.0, 0.0)
_KEYS = {"source", "digits", "grasp_centre", "rest", "drive", "palmar"}
_NEEDED = {"digits", "grasp_centre", "rest", "drive"}


@dataclasses.dataclass(frozen=True, eq=False)
class ContactLinks:
    """The k links that may carry a contact: the palm, the fingers' segments, the thumb's."""

    names: tuple[str, ...]
    palmar: Float[np.ndarray, "k 3"]
    """Unit axis of each link's frame along which flexion moves it."""
    is_palm: Bool[np.ndarray, " k"]
    is_thumb: Bool[np.ndarray, " k"]
    is_tip: Bool[np.ndarray, " k"]


@dataclasses.dataclass(frozen=True)
class Drive:
    """How the hand's position controllers press, in the tests that close the hand."""

    stiffness: float
    """Position gain, N m / rad."""
    torque_limit: float
    """Most that a joint gives, N m."""


@dataclasses.dataclass(frozen=True, eq=False)
class Facts:
    """What is known of a hand beside its MJCF."""

    digits: tuple[str, ...]
    """Prefixes of the names of the digits' links; the thumb is the last."""
    grasp_centre: Float[np.ndarray, " 3"]
    """Point of the palm frame (m) that a start puts in front of the place it aims at."""
    rest: Mapping[str, float]
    """Angles (rad) of a relaxed hand about to grasp; joints not named are at zero."""
    drive: Drive
    palmar: Mapping[str, tuple[float, ...]]
    """Palmar axes of links that flex along another than -y."""

    @property
    def fingers(self) -> tuple[str, ...]:
        """The digits without the thumb."""
        return self.digits[:-1]

    @property
    def thumb(self) -> str:
        """Prefix of the thumb."""
        return self.digits[-1]

    def contacts(self) -> ContactLinks:
        """The links that may carry a contact."""
        names = ("palm", *(f"{digit}{part}" for digit in self.digits for part in SEGMENTS))
        palmar = np.array([self.palmar.get(name, _PALMAR) for name in names], np.float32)
        return ContactLinks(
            names=names,
            palmar=palmar,
            is_palm=np.array([name == "palm" for name in names]),
            is_thumb=np.array([name.startswith(self.thumb) for name in names]),
            is_tip=np.array([name.endswith("distal") for name in names]),
        )


_CURLED = {"J3": 0.6, "J2": 0.45, "J1": 0.3}
SHADOW = Facts(
    digits=("ff", "mf", "rf", "lf", "th"),
    grasp_centre=np.array([0.0, 0.0, 0.085]),
    # Half-flexed fingers, opposed thumb.
    rest={
        **{f"{f}{j}": angle for f in ("FF", "MF", "RF", "LF") for j, angle in _CURLED.items()},
        **{"FFJ4": -0.05, "LFJ4": -0.05, "LFJ5": 0.1},
        **{"THJ5": 0.2, "THJ4": 1.0, "THJ2": 0.15, "THJ1": 0.25},
    },
    drive=Drive(stiffness=5.0, torque_limit=3.0),
    palmar={"thproximal": (-1.0, 0.0, 0.0), "thmiddle": (-1.0, 0.0, 0.0)},
)
"""Gain and limit are those of DexGraspBench's test of this hand."""


def read(path: Path) -> Facts:
    """Reads a `hand.toml`.

    Raises:
        HandError: A key is missing, unknown or not of its kind; the text names it.
    """
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise HandError(f"{path} cannot be read: {error}") from error
    unknown, missing = sorted(set(found) - _KEYS), sorted(_NEEDED - set(found))
    if unknown or missing:
        raise HandError(
            f"{path}: unknown keys {unknown}, missing keys {missing}; known: "
            f"{', '.join(sorted(_KEYS))}"
        )
    try:
        facts = _facts(found)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise HandError(f"{path}: {error!r}; see docs/extending.md for the keys") from error
    if len(facts.digits) < 2 or len(set(facts.digits)) < len(facts.digits):
        raise HandError(f"{path}: digits {facts.digits}; at least two different ones, thumb last")
    if min(facts.drive.stiffness, facts.drive.torque_limit) <= 0:
        raise HandError(f"{path}: {facts.drive}; both must be above 0")
    for link, axis in facts.palmar.items():
        if sorted(map(abs, axis)) != [0.0, 0.0, 1.0]:
            raise HandError(f"{path}: palmar.{link} = {axis}; an axis of its frame, as [0, -1, 0]")
    return facts


def _facts(found: Mapping[str, Any]) -> Facts:
    return Facts(
        digits=tuple(str(digit) for digit in found["digits"]),
        grasp_centre=np.array(found["grasp_centre"], np.float64).reshape(3),
        rest={str(joint): float(angle) for joint, angle in found["rest"].items()},
        drive=Drive(**{name: float(value) for name, value in found["drive"].items()}),
        palmar={
            str(link): tuple(float(x) for x in axis)
            for link, axis in found.get("palmar", {}).items()
        },
    )
