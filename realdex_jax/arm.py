"""The arm that carries the hand: a UR10e, from its base to the Shadow Hand's forearm and palm.

Kinematics both ways, one joint path for a path of palms, and capsules that cover the arm. Lengths,
names and limits are those of the URDF that came with RealDex (UR's `ur_description` for the UR10e,
nominal calibration), to whose names the prefix `ra_` belongs: the right arm. Its frames are the
URDF's link frames, which are also the frames of UR's Denavit-Hartenberg parameters

    d1 0.1807   a2 -0.6127   a3 -0.57155   d4 0.17415   d5 0.11985   d6 0.11655   (m)

The URDF turns the chain by half about z below `ra_base_link`, which is the frame `base` here, and
mounts the hand's forearm on the flange turned by half about z. Offsets of 2e-11 m are left out.
All is elementwise over the batch: no matrix product, whose precision an accelerator may lower.
"""

import itertools

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from realdex_jax import pytree

JOINTS = (
    "ra_shoulder_pan_joint",
    "ra_shoulder_lift_joint",
    "ra_elbow_joint",
    "ra_wrist_1_joint",
    "ra_wrist_2_joint",
    "ra_wrist_3_joint",
)
"""Joint names of the URDF; the order of every `q` here."""
UPPER = np.array([6.283185, 6.283185, 3.141593, 6.283185, 6.283185, 6.283185], np.float32)
"""Upper limits, radians."""
LOWER = -UPPER
"""Lower limits, radians."""
MAX_RATE = np.array([2.0944, 2.0944, 3.1416, 3.1416, 3.1416, 3.1416], np.float32)
"""Greatest speeds, radians per second. The URDF's; drive at a fraction of them."""
LINKS = (
    "ra_base_link",
    "ra_shoulder_link",
    "ra_upper_arm_link",
    "ra_forearm_link",
    "ra_wrist_1_link",
    "ra_wrist_2_link",
    "ra_wrist_3_link",
    "rh_forearm",
)
"""Link names of the URDF; the order of the links axis."""
WRIST_JOINTS = ("rh_WRJ2", "rh_WRJ1")
"""The hand's two wrist joints, from the forearm on: about y of the forearm, then x of the wrist."""
WRIST_UPPER = np.array([0.174533, 0.488692], np.float32)
"""Upper limits of the wrist joints, radians."""
WRIST_LOWER = np.array([-0.523599, -0.698132], np.float32)
"""Lower limits of the wrist joints, radians."""
WRIST_MAX_RATE = np.array([2.0, 2.0], np.float32)
"""Greatest speeds of the wrist joints in the URDF, radians per second."""
P_FOREARM_WRIST = np.array([0.0, -0.010, 0.21301], np.float32)
"""Where the first wrist joint is in the forearm frame, metres; the second is above it."""
P_FOREARM_PALM = np.array([0.0, -0.010, 0.24701], np.float32)
"""Palm origin in the hand's forearm frame with both wrist joints at zero, m; it is not turned."""
BRANCHES = np.array(list(itertools.product((1, -1), repeat=3)), np.float32)
"""Signs (8 3) that tell the solutions of `inverse` apart: shoulder, wrist 2, elbow."""
MAX_STEP = np.pi / 4
"""Radians a joint of a tracked path may turn between two frames."""
SLACK = 1e-5
"""Metres beyond the reach that still count as inside it: single precision, stretched arm."""

_D1, _A2, _A3, _D4, _D5, _D6 = 0.1807, -0.6127, -0.57155, 0.17415, 0.11985, 0.11655
_ORIGIN = ((0, 0, _D1), (0, 0, 0), (_A2, 0, 0), (_A3, 0, _D4), (0, -_D5, 0), (0, _D6, 0))
"""Where each joint sits in the link before it, metres."""
_QUARTERS = (0, 1, 0, 0, 1, -1)
"""Quarter turns about x from that link to the joint, whose axis is z."""
_HALF = np.array([-1.0, -1.0, 1.0], np.float32)
"""Diagonal of a half turn about z: the arm's first and last fixed turn."""

_CAPSULES: tuple[tuple[str, tuple[float, ...], tuple[float, ...], float], ...] = (
    ("ra_base_link", (0, 0, 0.01), (0, 0, 0.10), 0.095),
    ("ra_shoulder_link", (0, 0, -0.04), (0, 0, 0.054), 0.080),
    ("ra_shoulder_link", (0, 0, 0), (0, -0.058, 0), 0.080),
    ("ra_upper_arm_link", (0, 0, 0.135), (0, 0, 0.22), 0.080),
    ("ra_upper_arm_link", (0, 0, 0.176), (-0.1, 0, 0.176), 0.076),
    ("ra_upper_arm_link", (0, 0, 0.176), (_A2, 0, 0.176), 0.064),
    ("ra_upper_arm_link", (_A2, 0, 0.132), (_A2, 0, 0.190), 0.064),
    ("ra_forearm_link", (0, 0, 0.015), (0, 0, 0.064), 0.062),
    ("ra_forearm_link", (0, 0, 0.039), (_A3, 0, 0.039), 0.058),
    ("ra_forearm_link", (_A3, 0, 0.013), (_A3, 0, 0.074), 0.050),
    ("ra_wrist_1_link", (0, 0, -0.037), (0, 0, 0.018), 0.050),
    ("ra_wrist_1_link", (0, -0.036, 0), (0, 0.028, 0), 0.050),
    ("ra_wrist_2_link", (0, 0, -0.022), (0, 0, 0.017), 0.050),
    ("ra_wrist_2_link", (0, -0.026, 0), (0, 0.037, 0), 0.050),
    ("ra_wrist_3_link", (0, 0, -0.04), (0, 0, -0.03), 0.050),
    ("rh_forearm", (0, 0, 0), (0, 0, 0.15), 0.072),
    ("rh_forearm", (0, -0.01, 0.18), (0, -0.01, 0.20), 0.045),
)
CAPSULE_LINK = np.array([LINKS.index(name) for name, *_ in _CAPSULES])
"""Which of `LINKS` each capsule of `capsules` belongs to."""
_P_LINK_ENDS = np.array([ends for _, *ends, _ in _CAPSULES], np.float32)
_UNCHANGING = {(0, 2), (4, 6), (4, 7)}
PAIRS = np.array(
    [
        (a, b)
        for a, b in itertools.combinations(range(len(_CAPSULES)), 2)
        if min(CAPSULE_LINK[b], 6) - CAPSULE_LINK[a] >= 2
        and (CAPSULE_LINK[a], CAPSULE_LINK[b]) not in _UNCHANGING
    ]
)
"""Pairs of capsules that must not touch: on links two joints apart or more, less those of links
whose distance no joint changes. Of these the base and the upper arm overlap by their round ends."""
_RADIUS = np.array([radius for *_, radius in _CAPSULES], np.float32)


@pytree.dataclass
class ArmLinks:
    """Poses of `LINKS` in the frame `base` (the URDF's `ra_base_link`)."""

    R: Float[Array, "*b l 3 3"]
    """Orientations, link to base."""
    p: Float[Array, "*b l 3"]
    """Origins, metres."""


def forward(q: Float[Array, "*b 6"]) -> ArmLinks:
    """Link poses in the base frame.

    Args:
        q: Joint angles, radians, order `JOINTS`. Not clipped to the limits.
    """
    batch = q.shape[:-1]
    q = jnp.moveaxis(q, -1, 0)
    sin, cos = jnp.sin(q), jnp.cos(q)
    ones = jnp.ones(batch, q.dtype)
    x, y, z = (jnp.stack([ones * e for e in row]) for row in np.eye(3))
    p = jnp.zeros((3, *batch), q.dtype)
    columns, origins = [(x, y, z)], [p]
    x, y = -x, -y
    for j in range(len(JOINTS)):
        p = p + sum(o * c for o, c in zip(_ORIGIN[j], (x, y, z), strict=True))
        if _QUARTERS[j]:
            y, z = _QUARTERS[j] * z, -_QUARTERS[j] * y
        x, y = cos[j] * x + sin[j] * y, cos[j] * y - sin[j] * x
        columns.append((x, y, z))
        origins.append(p)
    columns.append((-x, -y, z))
    origins.append(p)
    R = jnp.stack([jnp.stack(c, axis=1) for c in columns])
    return ArmLinks(
        R=jnp.moveaxis(R, (0, 1, 2), (-3, -2, -1)),
        p=jnp.moveaxis(jnp.stack(origins), (0, 1), (-2, -1)),
    )


def palm_pose(q: Float[Array, "*b 6"]) -> tuple[Float[Array, "*b 3 3"], Float[Array, "*b 3"]]:
    """`T_base_palm` as rotation and origin (m), with the hand's two wrist joints at zero.

    Args:
        q: Joint angles, radians.
    """
    links = forward(q)
    R, p = links.R[..., -1, :, :], links.p[..., -1, :]
    return R, p + (R * P_FOREARM_PALM).sum(-1)


def inverse(
    R_base_palm: Float[Array, "*b 3 3"], p_base_palm: Float[Array, "*b 3"]
) -> tuple[Float[Array, "*b 8 6"], Bool[Array, "*b 8"]]:
    """All joint angles that put the palm there, the hand's two wrist joints at zero.

    The closed form that the arm's geometry allows. Joints 2 to 4 are parallel, so joint 1 alone
    keeps the origin of joint 5 at d4 from the shoulder's plane; seen from the shoulder the
    orientation is then Rz(q2 + q3 + q4) Ry(-q5) Rz(q6), and joints 2 and 3 are a planar arm of two
    links. With joint 5 within 1e-4 rad of 0 or pi, joint 6 turns about the axis of joints 2 to 4:
    one of the many solutions is tried, and flagged if the elbow does not reach it. Not meant to be
    differentiated: derivatives are infinite where solutions meet.

    Args:
        R_base_palm: Palm orientations in the base frame; orthonormal.
        p_base_palm: Palm origins in the base frame, metres.

    Returns:
        Joint angles in [-pi, pi], radians, order `JOINTS`, one solution per row of `BRANCHES` and
        finite even out of reach; and whether each puts the palm there.
    """
    shoulder, wrist, elbow = BRANCHES.T
    p = p_base_palm - (R_base_palm * P_FOREARM_PALM).sum(-1)
    R = (_HALF[:, None] * R_base_palm * _HALF)[..., None, :, :]
    p = (_HALF * p)[..., None, :] - _D6 * R[..., 2]
    px, py, pz = p[..., 0], p[..., 1], p[..., 2]

    away = jnp.hypot(px, py)
    within = jnp.sqrt(jnp.maximum((away - _D4) * (away + _D4), 0.0))
    q1 = jnp.arctan2(py, px) + jnp.arctan2(_D4, shoulder * within)
    s1, c1 = jnp.sin(q1)[..., None], jnp.cos(q1)[..., None]
    row_x = c1 * R[..., 0, :] + s1 * R[..., 1, :]
    row_y = R[..., 2, :]
    row_z = s1 * R[..., 0, :] - c1 * R[..., 1, :]

    q5 = jnp.arctan2(wrist * jnp.hypot(row_z[..., 0], row_z[..., 1]), row_z[..., 2])
    q6 = jnp.arctan2(-wrist * row_z[..., 1], wrist * row_z[..., 0])
    s6, c6 = jnp.sin(q6), jnp.cos(q6)
    s234 = -(row_x[..., 0] * s6 + row_x[..., 1] * c6)
    c234 = row_y[..., 0] * s6 + row_y[..., 1] * c6

    x = c1[..., 0] * px + s1[..., 0] * py - _D5 * s234
    y = pz - _D1 + _D5 * c234
    length, longest, shortest = jnp.hypot(x, y), -(_A2 + _A3), abs(_A2 - _A3)
    short_of = jnp.maximum((longest - length) * (longest + length), 0.0)
    beyond = jnp.maximum((length - shortest) * (length + shortest), 0.0)
    q3 = 2 * elbow * jnp.arctan2(jnp.sqrt(short_of), jnp.sqrt(beyond))
    q2 = jnp.arctan2(y, x) - jnp.arctan2(_A3 * jnp.sin(q3), _A2 + _A3 * jnp.cos(q3))
    q4 = jnp.arctan2(s234, c234) - q2 - q3

    reachable = (away > _D4 - SLACK) & (length < longest + SLACK) & (length > shortest - SLACK)
    q = jnp.stack([q1, q2, q3, q4, q5, q6], axis=-1)
    return jnp.arctan2(jnp.sin(q), jnp.cos(q)), reachable


def track(
    R_base_palm: Float[Array, "*b t 3 3"], p_base_palm: Float[Array, "*b t 3"]
) -> tuple[Float[Array, "*b t 6"], Bool[Array, "*b"]]:
    """Joint angles along a path of palms, on one branch of `inverse` throughout.

    A branch serves if it reaches every frame, turns no joint by more than `MAX_STEP` between
    frames, and stays within the limits; whole turns are added so that each joint is continuous and
    as far within them as it can be. Of those that serve, the one with the smallest largest step is
    taken. Flipping the wrist leaves all steps as they are, so steps that differ by less than about
    1e-3 rad count as equal, and the smaller largest angle decides. A path through a pose where
    branches meet (joint 5 at 0 or pi, elbow straight) may change branch there, and is not served.

    Args:
        R_base_palm: Palm orientations in the base frame; orthonormal.
        p_base_palm: Palm origins in the base frame, metres.

    Returns:
        Joint angles, radians, order `JOINTS`, finite; and whether some branch serves. Where none
        does, the angles are those of a branch that fails, and must not be driven.
    """
    q, serves = branches(R_base_palm, p_base_palm)
    step = jnp.abs(jnp.diff(q, axis=-2)).max((-2, -1), initial=0.0)
    largest = jnp.abs(q).max((-2, -1))
    cost = step + 1e-3 * largest / (2 * np.pi) + jnp.where(serves, 0.0, 1e3)
    best = jnp.argmin(cost, axis=-1)[..., None]
    chosen = jnp.take_along_axis(q, best[..., None, None], axis=-3)[..., 0, :, :]
    return chosen, jnp.take_along_axis(serves, best, axis=-1)[..., 0]


def branches(
    R_base_palm: Float[Array, "*b t 3 3"], p_base_palm: Float[Array, "*b t 3"]
) -> tuple[Float[Array, "*b 8 t 6"], Bool[Array, "*b 8"]]:
    """Joint angles along a path of palms on each branch of `inverse`, for a choice by other rules.

    Args:
        R_base_palm: Palm orientations in the base frame; orthonormal.
        p_base_palm: Palm origins in the base frame, metres.

    Returns:
        Joint angles, radians, order `JOINTS`, continuous where the branch serves and finite
        everywhere; and whether each branch serves, as `track` describes it.
    """
    q, reached = inverse(R_base_palm, p_base_palm)
    q = jnp.moveaxis(q, -3, -2)  # *b 8 t 6
    turns = jnp.round(jnp.diff(q, axis=-2, prepend=q[..., :1, :]) / (2 * np.pi))
    q = q - 2 * np.pi * jnp.cumsum(turns, axis=-2)
    middle = (q.max(-2, keepdims=True) + q.min(-2, keepdims=True)) / 2
    q = q - 2 * np.pi * jnp.round(middle / (2 * np.pi))
    step = jnp.abs(jnp.diff(q, axis=-2)).max((-2, -1), initial=0.0)
    inside = (jnp.abs(q) <= UPPER + 1e-5).all((-2, -1))
    return q, reached.all(-2) & inside & (step <= MAX_STEP)


def capsules(
    links: ArmLinks,
) -> tuple[Float[Array, "*b c 3"], Float[Array, "*b c 3"], Float[Array, " c"]]:
    """Capsules that cover the arm and the hand's forearm: end points in base (m), radii (m).

    Rough figures of our own, made from the collision capsules of MuJoCo Menagerie's UR10e until
    the visual meshes there, and those of the forearm in its Shadow Hand, stand out by no more than
    6 mm (at the rims of flat ends). Round ends bulge beyond flat ones by up to 4 cm; the base's by
    8.5 cm into what it stands on, and the hand's forearm's by its radius into the arm's last wrist.
    Neighbours overlap; `CAPSULE_LINK` names the link of each, to leave some out.

    Args:
        links: Poses from `forward`.
    """
    R, p = links.R[..., CAPSULE_LINK, :, :], links.p[..., CAPSULE_LINK, :]
    p_a, p_b = (p + (R * _P_LINK_ENDS[:, i, None, :]).sum(-1) for i in range(2))
    return p_a, p_b, jnp.asarray(_RADIUS)
