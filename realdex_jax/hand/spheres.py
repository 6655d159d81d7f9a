"""A cover of the hand by spheres, for code that looks the hand up in an object's distance grid."""

import dataclasses
import functools

import numpy as np
from jaxtyping import Float, Int

from realdex_jax.hand.load import HandModel

_CAPSULE_SPACING = 0.0075
"""Metres along a capsule; the envelope of 9 mm spheres then dips by less than 0.9 mm."""
_BOX_SPACING = {False: 1.5, True: 0.75}
"""Radii between the spheres of a box. Between coarse ones a corner can sink in unseen, which a
motion near an object can bear; between fine ones it sinks 1.7 mm."""
_RIM = 0.3
"""Radius of the spheres along the edges of a fine box's palmar face, in those of the box: an edge
stands out by 1.4 mm, without them by 4.8 mm. An edge that digs in pushes the object away as the
hand closes."""


@dataclasses.dataclass(frozen=True, eq=False)
class Spheres:
    """Spheres fixed to links, sorted by link."""

    link: Int[np.ndarray, " s"]
    p_link: Float[np.ndarray, "s 3"]
    """Centres in the link frame, metres."""
    radius: Float[np.ndarray, " s"]

    def of(self, link: int) -> slice:
        """The run of spheres on one link."""
        mine = np.flatnonzero(self.link == link)
        return slice(int(mine[0]), int(mine[-1]) + 1) if len(mine) else slice(0, 0)


@functools.cache
def spheres(hand: HandModel, fine: bool = False) -> Spheres:
    """Spheres inscribed in each primitive: along the axis of capsules, on a lattice in boxes.

    Args:
        hand: The hand.
        fine: Whether boxes have a dense lattice, and small spheres along the edges of their palmar
            face (-y of the palm).
    """
    link, centre, radius = [], [], []
    for i in np.argsort(hand.geoms.link, kind="stable"):
        size = hand.geoms.size[i].astype(float)
        if hand.geoms.is_box[i]:
            r = size.min()
            parts = [(_lattice(size, r, _BOX_SPACING[fine] * r), r)]
            if fine:
                parts.append((_rim(size, _RIM * r), _RIM * r))
        else:
            r = size[0]
            z = np.linspace(-size[1], size[1], _count(size[1], _CAPSULE_SPACING))
            parts = [(z[:, None] * np.array([0.0, 0.0, 1.0]), r)]
        for local, r in parts:
            centre.append(local @ hand.geoms.R_link_geom[i].T + hand.geoms.p_link_geom[i])
            link.append(np.full(len(local), hand.geoms.link[i]))
            radius.append(np.full(len(local), r))
    return Spheres(
        link=np.concatenate(link).astype(np.int32),
        p_link=np.concatenate(centre).astype(np.float32),
        radius=np.concatenate(radius).astype(np.float32),
    )


def _lattice(size: np.ndarray, r: float, spacing: float) -> Float[np.ndarray, "n 3"]:
    """Centres of spheres of radius r inside a box of half extents `size`."""
    steps = [np.linspace(-(h - r), h - r, _count(h - r, spacing)) for h in size]
    return np.stack(np.meshgrid(*steps, indexing="ij"), axis=-1).reshape(-1, 3)


def _rim(size: np.ndarray, r: float) -> Float[np.ndarray, "n 3"]:
    """Centres of spheres of radius r along the edges of a box's face toward -y."""
    grid = _lattice(size, r, 1.5 * r)
    x, y, z = (np.isclose(np.abs(grid), size - r)).T
    return grid[(x | z) & y & (grid[:, 1] < 0)]


def _count(half: float, spacing: float) -> int:
    return 1 if half < 1e-4 else int(np.ceil(2 * half / spacing)) + 1
