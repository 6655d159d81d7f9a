"""The 21 keypoints of a human hand, and which points of the Shadow Hand they are.

The order is that of MediaPipe, OpenPose and most datasets: the wrist, then from thumb to little
finger four each, from the palm outwards.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from realdex_jax.errors import HandError
from realdex_jax.hand import joints, kinematics
from realdex_jax.hand.load import HandModel

COUNT = 21
WRIST = 0
FINGERS: tuple[tuple[int, ...], ...] = (
    (5, 6, 7, 8),
    (9, 10, 11, 12),
    (13, 14, 15, 16),
    (17, 18, 19, 20),
    (1, 2, 3, 4),
)
"""Keypoints of each finger from its root to its tip, fingers in the order of `joints.FINGERS`."""
TIPS: tuple[int, ...] = tuple(chain[-1] for chain in FINGERS)
THUMB_TIP = FINGERS[-1][-1]
PALM: tuple[int, ...] = (WRIST, *sorted(chain[0] for chain in FINGERS))
"""Wrist and the roots of all fingers."""
BONES: tuple[tuple[int, int], ...] = tuple(
    (chain[i + 1], chain[i]) for chain in FINGERS for i in range(3)
)
"""(outer end, inner end) of the three bones of each finger, in the order of `FINGERS`."""

_ROOTS = (5, 9, 13)
"""Roots of index, middle and ring finger, which stand fast in a palm; the little finger's moves."""
_LINKS = ("knuckle", "middle", "distal")
_THUMB_LINKS = ("thbase", "thhub", "thdistal")


def anchors(hand: HandModel) -> list[tuple[int, Float[np.ndarray, " 3"]]]:
    """Link that carries each keypoint, and its place in that link (m).

    The wrist is the axis of Shadow's wrist joint, the palm's origin. A finger's keypoints are the
    axes of J4 and J3, of J2 and of J1, and the tip; the thumb's those of J5 and J4, of J3 and J2,
    of J1, and the tip.
    """
    found: list[tuple[int, np.ndarray]] = [(0, np.zeros(3, np.float32))] * COUNT
    for i, chain in enumerate(FINGERS):
        finger = joints.FINGERS[i].lower()
        names = _THUMB_LINKS if finger == "th" else [finger + part for part in _LINKS]
        for keypoint, name in zip(chain, names, strict=False):
            found[keypoint] = (hand.link(name), np.zeros(3, np.float32))
        found[chain[-1]] = (hand.tip_link[i], hand.p_link_tip[i])
    return found


def moved_by(hand: HandModel) -> Bool[np.ndarray, "21 22"]:
    """Which joints move which keypoint."""
    out = np.zeros((COUNT, len(joints.NAMES)), bool)
    for keypoint, (carrier, _) in enumerate(anchors(hand)):
        link = carrier
        while hand.parents[link] >= 0:
            out[keypoint, hand.joint[link]] = True
            link = hand.parents[link]
    return out


def keypoints_of(hand: HandModel, phi: Float[Array, "*b 28"]) -> Float[Array, "*b 21 3"]:
    """The keypoints (m) of a robot hand, in the frame that the poses are in."""
    posed = kinematics.posed(hand, phi)
    links = [link for link, _ in anchors(hand)]
    offset = np.stack([offset for _, offset in anchors(hand)])
    turned = jnp.einsum("...kij,kj->...ki", posed.R[..., np.array(links), :, :], offset)
    return posed.p[..., np.array(links), :] + turned


def bone_lengths(hand: HandModel) -> Float[np.ndarray, " 15"]:
    """Lengths (m) of the robot's bones, order `BONES`."""
    at_rest = _at_zero(hand)
    return np.stack([np.linalg.norm(at_rest[a] - at_rest[b]) for a, b in BONES])


def palm_size(keypoints: Float[Array, "*b 21 3"]) -> Float[Array, "*b"]:
    """Mean distance (m) from the wrist to the roots of index, middle and ring finger."""
    reach = keypoints[..., np.array(_ROOTS), :] - keypoints[..., [WRIST], :]
    return jnp.sqrt((reach**2).sum(-1) + 1e-12).mean(-1)


def palm_scale(hand: HandModel, keypoints: Float[Array, "*b 21 3"]) -> Float[Array, "*b"]:
    """How many times larger the robot's palm is than the keypoints'."""
    return palm_size(jnp.asarray(_at_zero(hand))) / palm_size(keypoints)


def palm_orientation(hand: HandModel, keypoints: Float[Array, "*b 21 3"]) -> Float[Array, "*b 3 3"]:
    """Orientation of the robot's palm that lies like the keypoints' palm."""
    R_hand_axes = _palm_axes(jnp.asarray(_at_zero(hand)))
    return jnp.einsum("...ik,jk->...ij", _palm_axes(keypoints), R_hand_axes)


def check(keypoints: Float[np.ndarray, "*b 21 3"], where: str) -> None:
    """Checks keypoints from a file; `where` is named in errors.

    Raises:
        HandError: Values that are not finite, or a palm of a size that no hand has: another unit,
            order or thing.
    """
    bad = ~np.isfinite(keypoints).all(axis=(-1, -2))
    if bad.any():
        raise HandError(
            f"{where}: {bad.sum()} of {bad.size} hands are not finite (first: {bad.argmax()})"
        )
    size = np.asarray(palm_size(jnp.asarray(keypoints, jnp.float32)))
    if size.size and not (size.min() > _SIZES[0] and size.max() < _SIZES[1]):
        raise HandError(
            f"{where}: palms of {size.min():.3f} to {size.max():.3f} m from wrist to knuckles; "
            f"they must be within {_SIZES} m, keypoints in metres and in MediaPipe's order"
        )


_SIZES = (0.03, 0.25)


def _palm_axes(keypoints: Float[Array, "*b 21 3"]) -> Float[Array, "*b 3 3"]:
    """Columns: across the palm toward the index finger, its normal, and toward the fingers."""
    roots = keypoints[..., np.array(_ROOTS), :]
    z = _unit(roots.mean(-2) - keypoints[..., WRIST, :])
    x = roots[..., 0, :] - roots[..., 2, :]
    x = _unit(x - (x * z).sum(-1, keepdims=True) * z)
    return jnp.stack([x, jnp.cross(z, x), z], axis=-1)


def _unit(v: Float[Array, "*b 3"]) -> Float[Array, "*b 3"]:
    return v / jnp.sqrt((v * v).sum(-1, keepdims=True) + 1e-12)


def _at_zero(hand: HandModel) -> Float[np.ndarray, "21 3"]:
    """The robot's keypoints (m) in the palm frame with all joints at zero.

    Computed by plain arithmetic, so that it is a constant wherever it is needed.
    """
    R: list[np.ndarray] = [np.eye(3)]
    p: list[np.ndarray] = [np.zeros(3)]
    for link in range(1, len(hand.parents)):
        parent = hand.parents[link]
        p.append(p[parent] + R[parent] @ hand.p_parent_link[link])
        R.append(R[parent] @ hand.R_parent_link[link])
    found = [p[link] + R[link] @ offset for link, offset in anchors(hand)]
    return np.stack(found).astype(np.float32)
