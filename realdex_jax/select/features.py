"""What can be measured of a grasp that a person would also look at.

Contacts come from points of the object's surface: a link touches where the surface is within
`TOUCHING` of it. Nothing here needs physics; a caller who ran it adds its own under `STABILITY`.
"""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from realdex_jax import pose
from realdex_jax.errors import RealdexError
from realdex_jax.evaluation import grasp
from realdex_jax.hand import joints
from realdex_jax.hand.load import HandModel

TOUCHING = 0.003
"""A link touches the object if a surface point is this near, metres."""

FINGERS = "fingers"
"""Digits that touch, the thumb among them: 0 to 5."""
LINKS = "links"
"""Links that touch, the palm among them."""
OPPOSITION = "opposition"
"""How thumb and fingers press: 1 against each other, 0 across, -1 the same way or one of them not
at all."""
HOLD = "hold"
"""How far the hand has the object by the part that people take it by: 0.5 is just so, up to 1;
left out where no part is known."""
POSTURE = "posture"
"""How unusual the posture is for people, in standard deviations of theirs; 1 is usual. Of hands
with Shadow's joints only."""
WRIST = "wrist"
"""Elevation of the forearm as seen from the hand, radians: 0 is level, negative from below the
object; +z must be up."""
DEPTH = "depth"
"""How deep the surface is in the hand, metres."""
STABILITY = "stability"
"""Margin in physics, 0 to 1: 1 does not move at all, 0 is dropped. Not from here."""
DIGITS = ("index", "middle", "ring", "little", "thumb")
"""The fingers, in the order of `evaluation.grasp.fingers`."""
TOUCHES = tuple(f"touch_{digit}" for digit in DIGITS)
"""Whether each of them touches, 0 or 1: told, not scored; as `POSTURE`."""

# People cannot flex neighbouring fingers freely, nor spread them far, whatever they grasp. Means
# and standard deviations (radians) of the 25 door demonstrations by glove that `data.teleop` reads
# (6,729 frames; a test measures them again).
_HABITS: tuple[tuple[str, float, float], ...] = (
    ("FFJ3-MFJ3", 0.071, 0.295),
    ("MFJ3-RFJ3", 0.201, 0.175),
    ("RFJ3-LFJ3", -0.014, 0.154),
    ("FFJ2-MFJ2", -0.121, 0.113),
    ("MFJ2-RFJ2", -0.106, 0.117),
    ("RFJ2-LFJ2", 0.085, 0.151),
    ("FFJ1-MFJ1", -0.103, 0.113),
    ("MFJ1-RFJ1", -0.182, 0.135),
    ("RFJ1-LFJ1", 0.125, 0.179),
    ("FFJ4", 0.012, 0.096),
    ("MFJ4", -0.068, 0.094),
    ("RFJ4", -0.046, 0.107),
    ("LFJ4", -0.165, 0.112),
)
HABIT_MEAN = np.array([mean for _, mean, _ in _HABITS])
HABIT_DEVIATION = np.array([deviation for _, _, deviation in _HABITS])


def touching(found: Mapping[str, float]) -> dict[str, bool]:
    """Whether each finger touches, from thumb to little finger; empty where that is unknown."""
    if not all(name in found for name in TOUCHES):
        return {}
    *fingers, thumb = zip(DIGITS, TOUCHES, strict=True)
    return {digit: bool(found[name]) for digit, name in (thumb, *fingers)}


class FeatureError(RealdexError):
    """Grasps or a surface of which nothing can be measured."""


def habits(q: Float[np.ndarray, "*b 22"]) -> Float[np.ndarray, "*b 13"]:
    """What `POSTURE` compares with people: flexion apart from the neighbour's, and spread, rad."""
    column = {name: q[..., i] for i, name in enumerate(joints.NAMES)}
    pairs = [name.partition("-") for name, _, _ in _HABITS]
    return np.stack([column[a] - column[b] if b else column[a] for a, _, b in pairs], axis=-1)


def measure(
    hand: HandModel,
    phi: Float[np.ndarray, "b phi"],
    points: Float[np.ndarray, "n 3"],
    normals: Float[np.ndarray, "n 3"],
    held_part: Bool[np.ndarray, " n"] | None = None,
    enough: float = 0.5,
) -> dict[str, Float[np.ndarray, " b"]]:
    """Features of grasps of one object, by name.

    Args:
        hand: The hand.
        phi: Poses in the object frame, +z up.
        points: Points of the object's surface, metres, object frame; some millimetres apart.
        normals: Outward unit normals there.
        held_part: Which points belong to the part that people hold, if that is known.
        enough: Share of the touched surface on that part from which on it is held.

    Raises:
        FeatureError: No points, values that are not finite, or `enough` that is no share.
    """
    if not len(points):
        raise FeatureError("no surface points; contacts need at least one")
    if not 0.0 < enough <= 1.0:
        raise FeatureError(f"enough={enough}; a share is above 0 and at most 1")
    if not all(np.isfinite(values).all() for values in (phi, points, normals)):
        raise FeatureError("poses, points and normals must be finite")
    distance, nearest = grasp.nearest(hand, phi, points)
    touching = distance < TOUCHING
    groups = [np.array(links) for links in grasp.fingers(hand)]
    by_finger = np.stack([touching[:, links].any(axis=1) for links in groups], axis=1)
    q, T_object_hand = pose.split(jnp.asarray(phi, jnp.float32))
    forearm = -np.asarray(T_object_hand.rotation().as_matrix())[:, 2, 2]
    found = {
        FINGERS: by_finger.sum(axis=1).astype(float),
        LINKS: touching.sum(axis=1).astype(float),
        OPPOSITION: _opposition(touching, normals[nearest], groups),
        WRIST: np.arcsin(np.clip(forearm, -1.0, 1.0)),
        DEPTH: np.maximum(-distance.min(axis=1), 0.0),
    }
    if hand.joints is joints.SHADOW:
        offs = (habits(np.asarray(q)) - HABIT_MEAN) / HABIT_DEVIATION
        found[POSTURE] = np.sqrt((offs**2).mean(axis=1))
        found |= dict(zip(TOUCHES, by_finger.T.astype(float), strict=True))
    if held_part is not None:
        near = grasp.touched(hand, phi, points)
        found[HOLD] = np.minimum(0.5 * grasp.functional_share(near, held_part) / enough, 1.0)
    return found


def _opposition(
    touching: Bool[np.ndarray, "b l"],
    normal: Float[np.ndarray, "b l 3"],
    groups: list[Int[np.ndarray, " k"]],
) -> Float[np.ndarray, " b"]:
    """Minus the cosine between the mean inward normals under the thumb and under the fingers."""
    thumb, fingers = groups[-1], np.concatenate(groups[:-1])

    def push(links: Int[np.ndarray, " k"]) -> Float[np.ndarray, "b 3"]:
        mean = -(normal[:, links] * touching[:, links, None]).sum(axis=1)
        return mean / np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-9)

    both = touching[:, thumb].any(axis=1) & touching[:, fingers].any(axis=1)
    return np.where(both, -(push(thumb) * push(fingers)).sum(axis=1), -1.0)
