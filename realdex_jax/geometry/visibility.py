"""The space that one camera saw: the surface it measured, and what it looked through.

A cloud says more than where a surface is. Every ray that reached a point passed through empty
space, and rays next to the object met nothing at all; what is left is hidden and may be filled.
`geometry.completion` tries its guesses on this.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import ArrayLike
from scipy import ndimage
from scipy.spatial import KDTree

from realdex_jax.errors import CloudError

ALIKE = 0.3
"""Cosine of normals above which two points are on one side of an object."""
_ON = 0.003
"""Metres from the seen surface at which a point matches it by 1/e: about the noise."""
_NEIGHBOURS = 24
"""Points that the plane at a point is fitted to: wider than the noise of a depth camera."""
_SLANT = 0.15
"""Least cosine between ray and normal; readings at more of a slant are mostly noise."""
_LONE = (8, 3.0)
"""A point whose distance to this neighbour is so many times the median belongs to no surface."""
_SPACINGS, _ACROSS = 2.0, 60
"""Points are averaged over cells as wide as so many spacings, or one of so many parts of the
longest side: below the first noise stays, below the second time is lost."""
_CLEAR = 0.003
"""Metres before a reading from where on space is empty: more than noise and the cells blur."""
_CELLS = 400
"""Most cells across the picture, so that a few close points do not make it huge."""
_FRAME = 3
"""Empty cells around the picture, so that closing its holes never meets the border."""
_RIM = 3.0
"""Cells from the outline within which a point lies at it."""
_MARGIN = 0.015
"""Metres of the volume beyond the object; what is moved farther out is charged for the way."""
_VOXELS, _FINEST = 300_000, 0.0015
"""Voxels of the volume, and their least width, metres: finer ones cost time and tell nothing."""


@dataclass(frozen=True, eq=False)
class Patch:
    """Points of a surface and which way is out; any leading axes."""

    p: Float[np.ndarray, "*b 3"]
    """Positions, metres."""
    n: Float[np.ndarray, "*b 3"]
    """Outward unit normals."""

    def __getitem__(self, at: Any) -> Patch:
        """Those points that an index, a slice or a mask picks."""
        return Patch(self.p[at], self.n[at])

    def joined(self, other: Patch) -> Patch:
        """These points, then those of another patch."""
        return Patch(np.concatenate([self.p, other.p]), np.concatenate([self.n, other.n]))

    def uncovered(self, known: Patch, size: float) -> Patch:
        """The points that no known point of the same side is within a size (metres) of."""
        if not len(self.p):
            return self
        d, k = KDTree(known.p).query(self.p, k=min(4, len(known.p)))
        alike = (known.n[k] * self.n[:, None]).sum(-1) > ALIKE
        return self[~((d < size) & alike).any(1)]


@dataclass(frozen=True, eq=False)
class Moves:
    """Maps x -> R x + t of the horizontal plane."""

    R: Float[np.ndarray, "h 2 2"]
    """Rotations or reflections."""
    t: Float[np.ndarray, "h 2"]
    """Shifts, metres."""

    def __call__(self, patch: Patch) -> Patch:
        """The patch under each of the maps, in a new first axis."""
        turn = self.R.transpose(0, 2, 1)
        p, n = np.empty((2, len(self.R), *patch.p.shape))
        p[..., :2], p[..., 2] = patch.p[:, :2] @ turn + self.t[:, None], patch.p[:, 2]
        n[..., :2], n[..., 2] = patch.n[:, :2] @ turn, patch.n[:, 2]
        return Patch(p, n)


@dataclass(frozen=True, eq=False)
class Fit:
    """How points of a guess fit what the camera saw."""

    violation: Float[np.ndarray, "*b"]
    """Depth in what the camera looked through, metres; 0 where it may be."""
    apart: Float[np.ndarray, "*b"]
    """Distance to the nearest seen point, metres."""
    agree: Float[np.ndarray, "*b"]
    """Cosine between the normals of the two."""

    @property
    def match(self) -> Float[np.ndarray, "*b"]:
        """How much each point lies on the seen surface and looks the same way, 0 to 1."""
        return np.exp(-((self.apart / _ON) ** 2)) * np.maximum(self.agree, 0)


@dataclass(frozen=True, eq=False)
class Picture:
    """A depth picture at the resolution of the cloud."""

    p_view: Float[np.ndarray, " 3"]
    """The camera, metres."""
    axes: Float[np.ndarray, "3 3"]
    """Unit rows: two across the picture, then forward."""
    low: Float[np.ndarray, " 2"]
    """Slope (across over forward) of the first cell's middle."""
    step: float
    """Slope from one cell to the next."""
    front: Float[np.ndarray, "w h"]
    """Depth of the nearest reading, metres forward; infinite where the object is not."""

    def at_top(self, p: Float[np.ndarray, "n 3"]) -> Bool[np.ndarray, " n"]:
        """Which points lie at the outline's upper edge, where the object ends in the picture."""
        ahead = (p - self.p_view) @ self.axes.T
        cell = np.round((ahead[:, :2] / ahead[:, 2:] - self.low) / self.step).astype(int)
        cell = np.clip(cell, 0, np.array(self.front.shape) - 1)
        inside, near = _distances(np.isfinite(self.front))
        away = near[:, cell[:, 0], cell[:, 1]].T - cell
        up = self.axes[:2, 2] / max(float(np.linalg.norm(self.axes[:2, 2])), 1e-9)
        upward = (away @ up) / np.maximum(np.linalg.norm(away, axis=1), 1e-9)
        return (inside[tuple(cell.T)] <= _RIM) & (upward > 0.5)


@dataclass(frozen=True, eq=False)
class Space:
    """What one camera knows of an object and of the space around and behind it.

    The volume is a grid of voxels along x, y and z; its arrays are flat, the last axis fastest.
    """

    seen: Patch
    """The surface it measured, smoothed and thinned."""
    size: float
    """About the distance of neighbours in it, metres."""
    picture: Picture
    """The picture it came from."""
    behind: Float[np.ndarray, " 2"]
    """Unit vector in the horizontal plane, away from the camera."""
    low: Float[np.ndarray, " 3"]
    """Middle of the first voxel, metres."""
    pitch: float
    """Width of a voxel, metres."""
    nodes: Int[np.ndarray, " 3"]
    """Number of voxels along each axis."""
    empty: Float[np.ndarray, " v"]
    """How deep each voxel lies in what the camera looked through, metres; 0 where hidden."""
    apart: Float[np.ndarray, " v"]
    """Distance to the nearest seen point, metres."""
    nearest: Int[np.ndarray, " v"]
    """Index of that point."""

    def emptiness(self, p: Float[np.ndarray, "*b 3"]) -> Float[np.ndarray, "*b"]:
        """Depth of points in what the camera looked through, metres, to within a voxel."""
        i, outside = self._voxel(p)
        return self.empty[i] + outside

    def violation(self, p: Float[np.ndarray, "*b 3"]) -> Float[np.ndarray, "*b"]:
        """The depth that voxels cannot explain, metres."""
        return np.maximum(self.emptiness(p) - self.pitch, 0.0)

    def fit(self, patch: Patch) -> Fit:
        """How each point of a patch fits what was seen."""
        i, outside = self._voxel(patch.p)
        return Fit(
            violation=np.maximum(self.empty[i] + outside - self.pitch, 0.0),
            apart=self.apart[i] + outside,
            agree=(patch.n * self.seen.n[self.nearest[i]]).sum(-1),
        )

    def _voxel(
        self, p: Float[np.ndarray, "*b 3"]
    ) -> tuple[Int[np.ndarray, "*b"], Float[np.ndarray, "*b"]]:
        """Flat index of the voxel at or next to each point, and metres to it from outside."""
        i = np.round((p - self.low) * (1 / self.pitch)).astype(np.int32)
        c = np.clip(i, 0, self.nodes - 1)
        outside = np.abs(i - c).max(-1) * self.pitch
        return (c[..., 0] * self.nodes[1] + c[..., 1]) * self.nodes[2] + c[..., 2], outside


def observe(raw: Float[np.ndarray, "n 3"], view: ArrayLike) -> Space:
    """What a camera that measured a cloud knows.

    Args:
        raw: the cloud, metres, +z up; from `check_cloud`.
        view: (3,) the camera in the same frame, metres.

    Raises:
        CloudError: no position, or one in the midst of the points.
    """
    p_view = _position(view)
    seen, raw, spacing = _smoothed(raw, p_view)
    size = max(_SPACINGS * spacing, float(np.ptp(seen.p, axis=0).max()) / _ACROSS)
    seen = thinned(seen, size)
    picture = _picture(seen, raw, p_view)
    behind = picture.axes[2, :2]
    length = float(np.linalg.norm(behind))
    # From straight above every way is behind.
    behind = behind / length if length > 1e-9 else np.array([1.0, 0.0])
    low, pitch, nodes = _volume(seen, behind)
    line = [low[i] + pitch * np.arange(nodes[i]) for i in range(3)]
    offset = [
        x - c for x, c in zip(np.meshgrid(*line, indexing="ij", sparse=True), p_view, strict=True)
    ]
    across, up, forward = [
        sum(a * x for a, x in zip(axis, offset, strict=True)) for axis in picture.axes
    ]
    ahead = np.maximum(forward, 1e-9)
    cell = [
        np.clip(np.round((x / ahead - start) / picture.step), 0, cells - 1).astype(np.int32)
        for x, start, cells in zip((across, up), picture.low, picture.front.shape, strict=True)
    ]
    empty, _ = _distances(forward < picture.front[cell[0], cell[1]] - _CLEAR)
    at = np.clip(np.round((seen.p - low) / pitch).astype(int), 0, nodes - 1)
    vacant, owner = np.ones(nodes, bool), np.zeros(nodes, np.int32)
    vacant[tuple(at.T)] = False
    owner[tuple(at.T)] = np.arange(len(at))
    apart, near = _distances(vacant)
    return Space(
        seen=seen,
        size=size,
        picture=picture,
        behind=behind,
        low=low,
        pitch=pitch,
        nodes=nodes,
        empty=(empty * pitch).astype(np.float32).ravel(),
        apart=(apart * pitch).astype(np.float32).ravel(),
        nearest=owner[tuple(near)].ravel(),
    )


def _position(view: ArrayLike) -> Float[np.ndarray, " 3"]:
    try:
        p_view = np.asarray(view, np.float64)
    except (TypeError, ValueError) as error:
        raise CloudError(f"p_view cannot be read as numbers: {error}") from error
    if p_view.shape != (3,):
        raise CloudError(f"p_view has shape {p_view.shape}; need (3,), the camera's x, y, z")
    if not np.isfinite(p_view).all():
        raise CloudError(
            f"p_view {p_view.tolist()} is not finite; need the camera's x, y, z, metres"
        )
    return p_view


def thinned(patch: Patch, size: float) -> Patch:
    """Means of the points that share a cell of that size (metres) and the side they face."""
    cell = np.floor((patch.p - patch.p.min(axis=0)) / size).astype(np.int64)
    facing = np.argmax(np.concatenate([patch.n, -patch.n], axis=1), axis=1)
    key = ((cell[:, 0] * 2048 + cell[:, 1]) * 2048 + cell[:, 2]) * 6 + facing
    _, at, count = np.unique(key, return_inverse=True, return_counts=True)

    def mean(x: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "k 3"]:
        return np.stack([np.bincount(at, c, len(count)) for c in x.T], axis=-1) / count[:, None]

    n = mean(patch.n)
    return Patch(mean(patch.p), n / np.maximum(np.linalg.norm(n, axis=1, keepdims=True), 1e-9))


def _smoothed(
    raw: Float[np.ndarray, "n 3"], p_view: Float[np.ndarray, " 3"]
) -> tuple[Patch, Float[np.ndarray, "k 3"], float]:
    """Points moved onto the planes around them, the same as measured, and their spacing."""
    d, near = KDTree(raw).query(raw, k=min(_NEIGHBOURS, len(raw)))
    patch = raw[near]
    middle = patch.mean(axis=1)
    local = patch - middle[:, None]
    n = np.linalg.eigh(np.einsum("nki,nkj->nij", local, local))[1][:, :, 0]
    n = np.where((((p_view - raw) * n).sum(-1) < 0)[:, None], -n, n)
    smooth = raw - n * ((raw - middle) * n).sum(-1, keepdims=True)
    ray = raw - p_view
    ray = ray / np.maximum(np.linalg.norm(ray, axis=1, keepdims=True), 1e-12)
    neighbour, times = _LONE
    lone = d[:, neighbour] > times * np.median(d[:, neighbour])
    keep = (-(ray * n).sum(-1) > _SLANT) & ~lone
    if keep.sum() < 0.5 * len(raw):
        keep[:] = True
    return Patch(smooth[keep], n[keep]), raw[keep], float(np.median(d[:, 1]))


def _picture(
    seen: Patch, raw: Float[np.ndarray, "n 3"], p_view: Float[np.ndarray, " 3"]
) -> Picture:
    """The depth picture that a cloud was made from, holes between its rays closed."""
    forward = seen.p.mean(axis=0) - p_view
    forward = forward / max(float(np.linalg.norm(forward)), 1e-12)
    axes = np.stack([*np.linalg.svd(forward[None])[2][1:], forward])
    ahead = (raw - p_view) @ axes.T
    if not ahead[:, 2].min() > 0.0:
        raise CloudError(
            f"p_view {np.round(p_view, 3).tolist()} m is in the midst of the points; need the "
            "camera's position outside of the object"
        )
    flat = ahead[:, :2] / ahead[:, 2:]
    probes = flat[:: max(len(flat) // 256, 1)]
    spacing = float(np.median(KDTree(flat).query(probes, k=2)[0][:, 1])) + 1e-9
    step = max(spacing, float(np.ptp(flat, axis=0).max()) / _CELLS)
    low = flat.min(axis=0) - _FRAME * step
    cells = np.ceil((flat.max(axis=0) - low) / step).astype(int) + _FRAME + 2
    cell = np.round((flat - low) / step).astype(int)
    front = np.full(cells, np.inf)
    order = np.argsort(-ahead[:, 2])  # the nearest comes last and stays
    front[tuple(cell[order].T)] = ahead[order, 2]
    known = np.isfinite(front)
    solid = ndimage.binary_closing(known, np.ones((3, 3)), iterations=2) | known
    _, near = _distances(~known)
    return Picture(p_view, axes, low, step, np.where(solid, front[tuple(near)], np.inf))


def _volume(
    seen: Patch, behind: Float[np.ndarray, " 2"]
) -> tuple[Float[np.ndarray, " 3"], float, Int[np.ndarray, " 3"]]:
    """First voxel, width and number of voxels around the object: as deep as it is wide."""
    low, high = seen.p.min(axis=0), seen.p.max(axis=0)
    side = np.array([behind[1], -behind[0], 0])
    reach = float(max(np.ptp(seen.p @ side), np.ptp(seen.p[:, :2] @ behind)))
    low[:2] = np.minimum(low[:2], low[:2] + behind * reach)
    high[:2] = np.maximum(high[:2], high[:2] + behind * reach)
    low, high = low - _MARGIN, high + _MARGIN
    extent = high - low
    pitch = max(float(np.prod(extent) / _VOXELS) ** (1 / 3), _FINEST)
    return low, pitch, np.ceil(extent / pitch).astype(int) + 1


def _distances(
    mask: Bool[np.ndarray, "*b"],
) -> tuple[Float[np.ndarray, "*b"], Int[np.ndarray, "*d"]]:
    """Cells from each cell of a mask to the nearest outside of it, and that one's indices."""
    # SciPy's stub knows neither of the two answers.
    found: Any = ndimage.distance_transform_edt(mask, return_indices=True)
    return found
