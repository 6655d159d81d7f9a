"""The arm as it is shown: solids of its links, and where they are."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import trimesh
from jaxtyping import Array, Float
from scipy.spatial.transform import Rotation

from realdex_jax import arm
from sim import robot_meshes
from sim.demonstrate import P_WORLD_BASE
from sim.stage import COLOURS
from viewer.tableau import Solid, solid_of

_ARM = (0.58, 0.62, 0.68)
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
        parts.setdefault(link, []).append(robot_meshes.capsule(a, b, float(radii[c])))
    height = float(P_WORLD_BASE[2])
    stand = trimesh.creation.cylinder(_PEDESTAL_RADIUS, height, sections=32)
    parts.setdefault(0, []).append(stand.apply_translation([0.0, 0.0, -0.5 * height]))
    forearm = arm.LINKS.index("rh_forearm")
    shown = []
    for link, meshes in sorted(parts.items()):
        colour = COLOURS["forearm_0"] if link == forearm else _ARM
        shown.append(solid_of(arm.LINKS[link], link, meshes, colour))
    return tuple(shown)


def arm_poses(q: Float[np.ndarray, " 6"]) -> Float[np.ndarray, "l 7"]:
    """Poses of the arm's links in the world, quaternion wxyz and position (m); q in radians."""
    R, p = _forward(jnp.asarray(q, jnp.float32))
    turns = Rotation.from_matrix(np.asarray(R, np.float64)).as_quat(scalar_first=True)
    return np.concatenate([turns, np.asarray(p, np.float64) + np.array(P_WORLD_BASE)], axis=1)


@jax.jit
def _forward(q: Float[Array, " 6"]) -> tuple[Array, Array]:
    links = arm.forward(q)
    return links.R, links.p
