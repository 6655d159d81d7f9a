"""Forward kinematics, unrolled over the links of a fixed hand.

The tree has some twenty links and never changes, so the loop is unrolled at trace time: XLA fuses
it into elementwise work over the batch, which measures faster than a scan and than a general engine
(`make bench`).
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from realdex_jax import pose, pytree
from realdex_jax.errors import HandError
from realdex_jax.hand.load import HandModel


@pytree.dataclass
class Links:
    """Poses of all links in one frame."""

    R: Float[Array, "*b l 3 3"]
    """Orientations, link to frame."""
    p: Float[Array, "*b l 3"]
    """Origins, metres."""


def chain(
    hand: HandModel,
    q: Float[Array, " j *b"],
    R_frame_hand: list[Array],
    p_frame_hand: Float[Array, " 3 *b"],
) -> tuple[list[list[Array]], list[Array]]:
    """Link poses, components first and batch last.

    Every operation is elementwise over the batch and vectorises.

    Args:
        hand: The hand; a constant of the trace.
        q: Joint angles, radians.
        R_frame_hand: Three columns (3 *b) of the palm's orientation in the wanted frame.
        p_frame_hand: Palm origin in that frame, metres.

    Returns:
        Per link the three columns (3 *b) of its orientation, and per link its origin (3 *b); in
        the wanted frame.

    Raises:
        HandError: The angles are those of another hand.
    """
    if len(q) != len(hand.joints):
        raise HandError(
            f"{len(q)} joint angles for hand {hand.name!r}, which has {len(hand.joints)} joints"
        )
    sin, cos = jnp.unstack(jnp.sin(q)), jnp.unstack(jnp.cos(q))
    columns: list[list[Array]] = [R_frame_hand]
    origins: list[Array] = [p_frame_hand]
    for link in range(1, len(hand.parents)):
        parent = hand.parents[link]
        R_parent = columns[parent]
        origins.append(origins[parent] + combine(R_parent, hand.p_parent_link[link]))
        fixed = hand.R_parent_link[link]
        if not np.allclose(fixed, np.eye(3), atol=1e-7):
            R_parent = [combine(R_parent, fixed[:, i]) for i in range(3)]
        j = hand.joint[link]
        columns.append(_rotate(R_parent, hand.axis[link], sin[j], cos[j]))
    return columns, origins


def forward(hand: HandModel, q: Float[Array, "*b j"]) -> Links:
    """Link poses in the palm frame.

    Args:
        hand: The hand; a constant of the trace.
        q: Joint angles, radians, order `hand.joints`. Not clipped to the limits.

    Returns:
        Poses of `hand.link_names` in the palm frame.
    """
    flat = q.reshape(-1, q.shape[-1])
    ones = jnp.ones(len(flat), q.dtype)
    identity = [jnp.stack([ones * e for e in row]) for row in np.eye(3)]
    return _links(chain(hand, flat.T, identity, jnp.zeros((3, len(flat)), q.dtype)), q.shape[:-1])


def at(
    hand: HandModel,
    q: Float[Array, "*b j"],
    R_frame_hand: Float[Array, "*b 3 3"],
    p_frame_hand: Float[Array, "*b 3"],
) -> Links:
    """Link poses in the frame in which the palm's orientation and origin (m) are given."""
    R, p = R_frame_hand.reshape(-1, 3, 3), p_frame_hand.reshape(-1, 3)
    posed = chain(hand, q.reshape(-1, q.shape[-1]).T, [R[:, :, k].T for k in range(3)], p.T)
    return _links(posed, q.shape[:-1])


def posed(hand: HandModel, phi: Float[Array, "*b phi"]) -> Links:
    """Link poses of pose vectors, in the frame that the pose vectors are in."""
    q, T_frame_hand = pose.split(phi)
    return at(hand, q, T_frame_hand.rotation().as_matrix(), T_frame_hand.translation())


def _links(posed: tuple[list[list[Array]], list[Array]], batch: tuple[int, ...]) -> Links:
    # Without the barrier XLA fuses the chain into the copies below and computes it several times
    # over.
    columns, origins = jax.lax.optimization_barrier(posed)
    # Whole columns are joined and turned over at once; interleaving rows first takes three times
    # as long.
    R = jnp.concatenate([c for link in columns for c in link]).T.reshape(*batch, len(origins), 3, 3)
    return Links(
        R=R.swapaxes(-1, -2), p=jnp.concatenate(origins).T.reshape(*batch, len(origins), 3)
    )


def combine(columns: list[Array], weights: np.ndarray) -> Array:
    """A fixed vector turned by a rotation given as columns: `sum_i weights[i] columns[i]`."""
    terms = [float(w) * c for c, w in zip(columns, weights, strict=True) if abs(float(w)) > 1e-9]
    return sum(terms[1:], start=terms[0]) if terms else jnp.zeros_like(columns[0])


def _rotate(columns: list[Array], axis: np.ndarray, sin: Array, cos: Array) -> list[Array]:
    """Columns of R @ Rodrigues(axis, angle)."""
    K = np.array(
        [[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]], np.float64
    )
    K2 = K @ K
    out = []
    for i in range(3):
        column = columns[i]
        if np.abs(K[:, i]).max() > 1e-9:
            column = column + sin * combine(columns, K[:, i])
        if np.abs(K2[:, i]).max() > 1e-9:
            column = column + (1 - cos) * combine(columns, K2[:, i])
        out.append(column)
    return out


def keypoints(hand: HandModel, links: Links) -> Float[Array, "*b k 3"]:
    """Joint origins in the order of `hand.joints`, then fingertips in that of the digits (m).

    All are in the frame of `links`.
    """
    order = np.argsort(np.array(hand.joint[1:])) + 1
    tips = np.array(hand.tip_link)
    p_tip = links.p[..., tips, :] + jnp.einsum(
        "...tij,tj->...ti", links.R[..., tips, :, :], hand.p_link_tip
    )
    return jnp.concatenate([links.p[..., order, :], p_tip], axis=-2)
