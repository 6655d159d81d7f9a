"""The arm as it is shown: solids of its links, and where they are."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import trimesh
from jaxtyping import Array, Float
from scipy.spatial.transform import Rotation

from realdex_jax import arm
from sim.demonstrate import P_WORLD_BASE
from sim.stage import COLOURS
from viewer.tableau import Solid, solid_of

_ARM = (0.58, 0.62, 0.68)
_SIDES = 24
_PEDESTAL_RADIUS = 0.09


@functools.cache
def arm_solids() -> tuple[Solid, ...]:
    """The capsules of `realdex_jax.arm` by link, the hand's forearm among them; and a pedestal.

    The pedestal is fixed to the base, which is upright.
    """
    links = arm.forward(jnp.zeros(len(arm.JOINTS)))
    R, p = np.asarray(links.R, np.float64), np.asarray(links.p, np.float64)
    ends_a, ends_b, radii = (np.asarray(x, np.float64) for x in arm.capsules(links))
    parts: dict[int, list[trimesh.Trimesh]] = {}
    for c, link in enumerate(arm.CAPSULE_LINK.tolist()):
        # Seen from the link, the ends stand still.
        a, b = ((end[c] - p[link]) @ R[link] for end in (ends_a, ends_b))
        parts.setdefault(link, []).append(_capsule(a, b, float(radii[c])))
    height = float(P_WORLD_BASE[2])
    stand = trimesh.creation.cylinder(_PEDESTAL_RADIUS, height, sections=_SIDES)
    parts.setdefault(0, []).append(stand.apply_translation([0.0, 0.0, -0.5 * height]))
    forearm = arm.LINKS.index("rh_forearm")
    solids = []
    for link, meshes in sorted(parts.items()):
        colour = COLOURS["forearm_0"] if link == forearm else _ARM
        solids.append(solid_of(arm.LINKS[link], link, meshes, colour))
    return tuple(solids)


def arm_poses(q: Float[np.ndarray, " 6"]) -> Float[np.ndarray, "l 7"]:
    """Poses of the arm's links in the world, quaternion wxyz and position (m); q in radians."""
    R, p = _forward(jnp.asarray(q, jnp.float32))
    turns = Rotation.from_matrix(np.asarray(R, np.float64)).as_quat(scalar_first=True)
    return np.concatenate([turns, np.asarray(p, np.float64) + np.array(P_WORLD_BASE)], axis=1)


@jax.jit
def _forward(q: Float[Array, " 6"]) -> tuple[Array, Array]:
    links = arm.forward(q)
    return links.R, links.p


def _capsule(
    a: Float[np.ndarray, " 3"], b: Float[np.ndarray, " 3"], radius: float
) -> trimesh.Trimesh:
    """A capsule between two points, metres."""
    along = b - a
    length = float(np.linalg.norm(along))
    mesh = trimesh.creation.capsule(length, radius, count=[_SIDES, _SIDES])
    mesh.apply_translation([0.0, 0.0, -mesh.bounds.mean(axis=0)[2]])
    T = np.eye(4)
    if length > 1e-9:
        turn, _ = Rotation.align_vectors([along / length], [[0.0, 0.0, 1.0]])
        T[:3, :3] = turn.as_matrix()
    T[:3, 3] = 0.5 * (a + b)
    return mesh.apply_transform(T)
