"""Shapes of robots as meshes, for pictures and for points on them: the hand's links, capsules."""

import numpy as np
import trimesh
from jaxtyping import Float

from realdex_jax.hand.load import HandModel
from sim import visuals

_SIDES = 32
"""Around a capsule, and along it."""


def of_hand(hand: HandModel) -> list[tuple[int, trimesh.Trimesh]]:
    """Meshes in the frames of their links, metres, in the order of links.

    The hand's visual meshes where they are installed, else its collision primitives.
    """
    found = [
        (
            v.link,
            trimesh.Trimesh(v.vertices @ v.R_link_mesh.T + v.p_link_mesh, v.faces, process=False),
        )
        for v in visuals.load(hand)
    ]
    geoms = hand.geoms
    for g in range(0 if found else len(geoms.link)):
        size = np.asarray(geoms.size[g], np.float64)
        if geoms.is_box[g]:
            mesh = trimesh.creation.box(2.0 * size)
        else:
            end = np.array([0.0, 0.0, size[1]])
            mesh = capsule(-end, end, float(size[0]))
        T_link_geom = np.eye(4)
        T_link_geom[:3, :3], T_link_geom[:3, 3] = geoms.R_link_geom[g], geoms.p_link_geom[g]
        found.append((int(geoms.link[g]), mesh.apply_transform(T_link_geom)))
    return sorted(found, key=lambda part: part[0])


def capsule(
    p_a: Float[np.ndarray, " 3"], p_b: Float[np.ndarray, " 3"], radius: float
) -> trimesh.Trimesh:
    """A capsule about the line between two points, which may be one; all in metres."""
    length = float(np.linalg.norm(p_b - p_a))
    mesh = trimesh.creation.capsule(length, radius, count=[_SIDES, _SIDES])
    along = (p_b - p_a) / max(length, 1e-9)
    T = np.asarray(trimesh.geometry.align_vectors([0, 0, 1], along))
    # It starts at the origin; ours is around it.
    mesh.apply_translation([0, 0, -mesh.bounds.mean(axis=0)[2]])
    T[:3, 3] = 0.5 * (p_a + p_b)
    return mesh.apply_transform(T)
