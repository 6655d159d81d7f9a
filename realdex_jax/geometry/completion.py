"""Completes what one camera saw of an object, by symmetry and by what it looked through.

Most things that people use and set upright are symmetric under a half turn about a vertical axis, a
mirror in a vertical plane, or any turn. Which one, and where, follows from the picture: what the
symmetry adds must not stand where the camera looked through, should lie on what it saw elsewhere,
and should close the surface. After Thrun and Wegbreit, "Shape from symmetry", ICCV 2005, and Bohg
et al., "Mind the gap: robotic grasping under incomplete observation", ICRA 2011; nothing is
learned. What is left open is closed by flat sides, an upside-down top and a flat bottom, as far as
nothing speaks against them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike
from scipy.spatial import ConvexHull, KDTree, QhullError

from realdex_jax.geometry import cloud as clouds
from realdex_jax.geometry import support, visibility
from realdex_jax.geometry.visibility import Moves, Patch, Space

Kind = Literal["half turn", "mirror", "revolution"]

_REFUSED = 0.003
"""Metres into what the camera looked through from which on a point is left out: noise is less."""
_CAP, _TOP_CAP = 0.002, 0.01
"""Metres beyond which a point costs no more for standing in empty space, or for missing the upper
outline: one wrong part, such as a handle, must not decide."""
_OPPOSED = -0.3
"""Cosine of normals below which two points are on opposite sides."""
_THIN = 0.015
"""Metres within which opposite sides are unlikely: few objects are thinner."""
_NOVEL = 0.15
"""Share of new points below which a symmetry tells nothing: it maps the seen onto itself."""
_FEW, _MANY, _BATCH = 256, 1200, 256
"""Points that the search and its last round try, and symmetries tried at once."""
_SOFT = 0.01
"""Cost above the least at which a symmetry weighs 1/e in the mean: about the cost's own noise."""
_ANGLES = 24
"""Directions of mirrors that are tried; also the steps of a full turn."""
_AXIS_SCALES = (0.02, 0.01, 0.005, 0.003, 0.002, 0.002, 0.002)
"""Metres from the axis at which a normal counts half, round by round."""
_UPRIGHT = 0.3
"""Least horizontal part of a normal that says where an axis is."""
_GLANCES = np.deg2rad([-45, -25, 25, 45])
"""Turns that keep much of a round object in sight."""
_ROUND, _ROUND_FITS, _ROUND_COST = 0.7, 0.75, 0.12
"""An object is round if this share of it stays on itself when turned, this share can turn all the
way, and its axis costs at most so much more than the best symmetry."""
_POOR, _EXACT = 0.1, -0.05
"""Cost from which on a symmetry explains little, and below which a mirror of the seen part alone
is worth a first step."""
_TIDY = 0.06
"""Cost below which the outline is trusted enough to close gaps in it by flat sides."""
_DENT, _ENDS, _BEFORE = 0.15, -0.3, 0.004
"""A slab gets sides if less of it than this share is dented, where normals at both ends of a gap
turn in no more than this cosine, and the camera saw emptiness so many metres before them."""
_LEVELS, _LOWEST, _GAIN, _LEVEL_REFUSED = 7, 0.15, 0.01, 0.04
"""Heights of level mirrors that are tried, from the middle down to this share of the height; a
lower one must cost so much less, and none may put more than the last share in empty space."""


@dataclass(frozen=True, eq=False)
class Completed:
    """A cloud with its hidden sides filled in."""

    points: Float[np.ndarray, "n 3"]
    """The seen surface, smoothed and thinned, then what was added, metres."""
    normals: Float[np.ndarray, "n 3"]
    """Outward unit normals."""
    seen: Bool[np.ndarray, " n"]
    """Which points the camera saw; the others are a guess."""
    kind: Kind
    """The symmetry that was found."""


@dataclass(frozen=True)
class _Weights:
    """Prices of what speaks for and against a symmetry; found by trying on known objects."""

    free: float = 0.4
    """Standing where the camera looked through."""
    top: float = 0.1
    """The upper outline is not met: the far rim of an object's top would show."""
    match: float = 0.27
    """Reward for lying on the seen surface."""
    level: float = 0.12
    """Reward for the same of level parts, which hide the least."""
    closure: float = 1.0
    """Normals that do not add up to zero, as those of a closed surface do."""
    opposed: float = 0.25
    """Lying close to seen surface that looks the other way."""
    novel: float = 0.0
    """Adding nothing."""


_OF_A_PART = _Weights(closure=0.0, novel=3.0)
"""For one of several symmetric parts, which need not close the surface but must add to it."""


@dataclass(frozen=True, eq=False)
class _Family:
    """Symmetries of one kind, by two numbers."""

    kind: Kind
    """Of which kind."""
    make: Callable[[Float[np.ndarray, "h 2"]], Moves]
    """Maps of given numbers."""
    starts: Float[np.ndarray, "h 2"]
    """Numbers to try first."""
    step: Float[np.ndarray, " 2"]
    """How far those are apart."""
    fine: Float[np.ndarray, " 2"]
    """Half the width of the last round."""


@dataclass(frozen=True, eq=False)
class _Found:
    """The best symmetry of a search."""

    cost: float
    """What speaks against it."""
    kind: Kind
    """Of which kind."""
    moves: Moves
    """Itself, as the only map."""


def complete(points: ArrayLike, p_view: ArrayLike) -> Completed:
    """Fills in the sides of an upright object that one camera did not see.

    The same cloud gives the same result every time. Takes some tenths of a second.

    Args:
        points: (n, 3) cloud of one camera, metres, +z up; from `check_cloud` or like it.
        p_view: (3,) the camera in the frame of the points, metres.

    Returns:
        Points about evenly spread, with normals, those seen first.

    Raises:
        CloudError: a cloud that `check_cloud` refuses, or a view that is no position outside of it.
    """
    raw = clouds.check_cloud(points)
    space = visibility.observe(raw, p_view)
    rng = np.random.default_rng(0)  # picks the points that are tried; fixed for equal results
    best = _search(space, space.seen, rng)
    kind: Kind = "revolution"
    whole = _revolved(space, best.cost, rng)
    if whole is None:
        whole = space.seen
        if best.cost > _POOR:
            part = _search(space, whole, rng, ("mirror",), _OF_A_PART)
            if part.cost < _EXACT:
                whole = _added(space, whole, part.moves)
                best = _search(space, whole, rng)
        kind = best.kind
        whole = _added(space, whole, best.moves)
        if best.cost < _TIDY:
            whole = whole.joined(_sides(space, whole))
    whole = whole.joined(_upside_down(space, whole).uncovered(whole, space.size))
    whole = whole.joined(_bottom(space, whole).uncovered(whole, space.size))
    seen = np.arange(len(whole.p)) < len(space.seen.p)
    return Completed(whole.p, whole.n, seen, kind)


def _half_turns(c: Float[np.ndarray, "h 2"]) -> Moves:
    return Moves(np.broadcast_to(-np.eye(2), (len(c), 2, 2)), 2 * c)


def _turns(c: Float[np.ndarray, " 2"], angle: Float[np.ndarray, " h"]) -> Moves:
    cos, sin = np.cos(angle), np.sin(angle)
    R = np.stack([np.stack([cos, -sin], -1), np.stack([sin, cos], -1)], -2)
    return Moves(R, c - R @ c)


def _families(space: Space, p: Float[np.ndarray, "n 3"]) -> tuple[_Family, _Family]:
    """Half turns (x, y) and mirrors (angle, offset) about the object's likely middle."""
    back, side = space.behind, np.array([-space.behind[1], space.behind[0]])
    a, b = p[:, :2] @ back, p[:, :2] @ side
    reach = max(float(np.ptp(a)), float(np.ptp(b)), 1e-3)
    step = max(0.004, reach / 40)
    A, B = np.meshgrid(
        np.arange(a.min(), a.min() + reach, step),
        np.arange(b.min(), max(b.max(), b.min() + 1e-9), step),
    )
    centres = A.ravel()[:, None] * back + B.ravel()[:, None] * side
    middle = (a.min() + reach / 2) * back + (b.min() + b.max()) / 2 * side

    def mirrors(x: Float[np.ndarray, "h 2"]) -> Moves:
        n = np.stack([np.cos(x[:, 0]), np.sin(x[:, 0])], -1)
        R = np.eye(2) - 2 * n[:, :, None] * n[:, None, :]
        return Moves(R, 2 * (x[:, 1] + n @ middle)[:, None] * n)

    angle, offset = np.meshgrid(
        np.arange(_ANGLES) * np.pi / _ANGLES, np.arange(-0.6 * reach, 0.6 * reach, step)
    )
    planes = np.stack([angle.ravel(), offset.ravel()], -1)
    return (
        _Family("half turn", _half_turns, centres, np.full(2, step), np.array([0.004, 0.004])),
        _Family(
            "mirror",
            mirrors,
            planes,
            np.array([np.pi / _ANGLES, step]),
            np.array([np.deg2rad(2.0), 0.004]),
        ),
    )


def _search(
    space: Space,
    known: Patch,
    rng: np.random.Generator,
    kinds: tuple[Kind, ...] = ("half turn", "mirror"),
    weights: _Weights | None = None,
) -> _Found:
    """The symmetry that costs least: a grid, two rounds about the best, and a weighted mean."""
    weights = weights or _Weights()
    few = known[rng.permutation(len(known.p))[:_FEW]]
    found = []
    for family in _families(space, known.p):
        if family.kind not in kinds:
            continue
        x, step = family.starts, family.step
        cost = _cost(space, family.make(x), few, weights)
        order = np.argsort(cost)[:4]
        for _ in range(2):
            near = (x[order][:, None] + _square(0.6, 4) * step).reshape(-1, 2)
            x = np.concatenate([x[order], near])
            cost = np.concatenate([cost[order], _cost(space, family.make(near), few, weights)])
            order = np.argsort(cost)[:3]
            step = step * 0.35
        best = x[cost.argmin()]
        many = known[rng.permutation(len(known.p))[:_MANY]]
        near = _square(1.0, 7) * family.fine
        cost = _cost(space, family.make(best + near), many, weights)
        # The mean of what is about as good is steadier than the best alone.
        w = np.exp(-(cost - cost.min()) / _SOFT)
        best = best + (near * w[:, None]).sum(0) / w.sum()
        found.append(_Found(float(cost.min()), family.kind, family.make(best[None])))
    return min(found, key=lambda f: f.cost)


def _square(half: float, count: int) -> Float[np.ndarray, "k 2"]:
    line = np.linspace(-half, half, count)
    return np.stack(np.meshgrid(line, line), -1).reshape(-1, 2)


def _cost(space: Space, moves: Moves, known: Patch, w: _Weights) -> Float[np.ndarray, " h"]:
    """What speaks against each symmetry, less what speaks for it."""
    top, level = space.picture.at_top(known.p), np.abs(known.n[:, 2]) > 0.7
    around = np.linalg.norm(known.n[:, :2], axis=-1).sum() + 1e-9
    cost = []
    for s in range(0, len(moves.R), _BATCH):
        moved = Moves(moves.R[s : s + _BATCH], moves.t[s : s + _BATCH])(known)
        fit = space.fit(moved)
        match = fit.match
        new = (fit.apart > 2 * space.pitch) | (fit.agree < visibility.ALIKE)
        new &= fit.violation < _REFUSED
        total = known.n[:, :2].sum(0) + (moved.n[..., :2] * new[..., None]).sum(1)
        cost.append(
            w.free * np.minimum(fit.violation, _CAP).mean(1) / _CAP
            + w.top * np.minimum(fit.apart[:, top], _TOP_CAP).sum(1) / _TOP_CAP / (1 + top.sum())
            - w.match * match.mean(1)
            - w.level * match[:, level].sum(1) / (5 + level.sum())
            + w.closure * np.linalg.norm(total, axis=-1) / around
            + w.novel * np.maximum(_NOVEL - new.mean(1), 0)
            + w.opposed * ((fit.agree < _OPPOSED) & (fit.apart < _THIN)).mean(1)
        )
    return np.concatenate(cost)


def _added(space: Space, known: Patch, moves: Moves) -> Patch:
    """What is known, and what a symmetry adds to it that nothing speaks against."""
    moved = moves(known)[0]
    moved = moved[space.violation(moved.p) < _REFUSED]
    return known.joined(moved.uncovered(known, space.size))


def _revolved(space: Space, cost: float, rng: np.random.Generator) -> Patch | None:
    """The seen surface turned all around, if the object is round; `cost` of the best symmetry."""
    seen = space.seen
    c = _axis(space)
    if _roundness(space, c) <= _ROUND:
        return None
    many = seen[rng.permutation(len(seen.p))[:_MANY]]
    turned = _turns(c, np.arange(1, _ANGLES) * 2 * np.pi / _ANGLES)(seen)
    bad = space.violation(turned.p) > _REFUSED
    fits = bad.mean(0) < 0.1
    extra = _cost(space, _half_turns(c[None]), many, _Weights())[0] - cost
    if fits.mean() <= _ROUND_FITS or extra >= _ROUND_COST:
        return None
    new = turned[fits & ~bad].uncovered(seen, space.size)
    return seen.joined(visibility.thinned(new, space.size) if len(new.p) else new)


def _axis(space: Space) -> Float[np.ndarray, " 2"]:
    """Where the normals of a solid of revolution meet, by reweighted least squares."""
    p, n, back = space.seen.p[:, :2], space.seen.n[:, :2], space.behind
    c = p.mean(0) + 0.25 * back * np.ptp(p @ back)
    flat = np.linalg.norm(n, axis=1)
    use = flat > _UPRIGHT
    p = p[use]
    across = np.stack([-n[use, 1], n[use, 0]], -1) / flat[use, None]
    for scale in _AXIS_SCALES:
        r = (across * (p - c)).sum(-1)
        A = across * (1.0 / (1.0 + (r / scale) ** 2) * flat[use])[:, None]
        # The small part holds the axis in place where no normal tells.
        b = A.T @ (across * p).sum(-1) + 1e-6 * c
        c = np.linalg.solve(A.T @ across + 1e-6 * np.eye(2), b)
    return c


def _roundness(space: Space, c: Float[np.ndarray, " 2"]) -> float:
    """Share of the points in sight that stay on the seen surface, turned a little about an axis."""
    use = np.linalg.norm(space.seen.n[:, :2], axis=1) > _UPRIGHT
    turned = _turns(c, _GLANCES)(space.seen[use])
    ray = space.picture.p_view - turned.p
    facing = (ray * turned.n).sum(-1) > 0.4 * np.linalg.norm(ray, axis=-1)
    fit = space.fit(turned)
    on = (fit.apart < 0.0035) & (fit.agree > 0.85)
    return float(on[facing].sum() / max(facing.sum(), 1))


def _sides(space: Space, known: Patch) -> Patch:
    """Gaps in the outlines of slabs, where the outline bounds what the camera looked through."""
    p, n, size = known.p, known.n, space.size
    slab = np.floor((p[:, 2] - p[:, 2].min()) / (1.5 * size)).astype(int)
    order = np.argsort(slab)
    sides = known[:0]
    for part in np.split(order, np.searchsorted(slab[order], np.arange(1, slab.max() + 1))):
        steep = part[np.abs(n[part, 2]) < 0.5]
        if len(part) < 8 or not len(steep):
            continue
        try:
            hull = ConvexHull(p[part, :2])
        except QhullError:
            continue
        inset = -(p[steep, :2] @ hull.equations[:, :2].T + hull.equations[:, 2]).max(1)
        if (inset > 1.5 * size).mean() > _DENT:
            continue
        corners = known[part][hull.vertices]
        along = np.roll(corners.p, -1, axis=0) - corners.p
        length = np.linalg.norm(along[:, :2], axis=1)
        count = np.floor(length / size).astype(int)
        at = np.repeat(np.arange(len(count)), count)
        out = np.stack([along[:, 1], -along[:, 0]], -1) / np.maximum(length, 1e-9)[:, None]
        rim = corners.n[:, :2]
        ends = np.minimum((rim * out).sum(1), (np.roll(rim, -1, axis=0) * out).sum(1))
        share = (np.arange(len(at)) - np.repeat(np.cumsum(count) - count, count) + 0.5) / count[at]
        side = Patch(
            corners.p[at] + share[:, None] * along[at], np.column_stack([out[at], 0 * share])
        )
        sides = sides.joined(side[(ends > _ENDS)[at]])
    keep = (space.violation(sides.p) < _REFUSED) & (
        space.emptiness(sides.p + _BEFORE * sides.n) > 0
    )
    return sides[keep & (KDTree(p).query(sides.p)[0] > 1.5 * size)]


def _upside_down(space: Space, known: Patch) -> Patch:
    """The top as the bottom, mirrored in a level plane, if nothing of it would have been seen."""
    low, high = np.quantile(known.p[:, 2], 0.003), np.quantile(known.p[:, 2], 0.997)
    least, best, violation = np.inf, known, np.ones(len(known.p))
    for z in (low + high) / 2 - np.linspace(0, _LOWEST, _LEVELS) * (high - low):
        mirrored = Patch(known.p * [1, 1, -1] + [0, 0, 2 * z], known.n * [1, 1, -1])
        fit = space.fit(mirrored)
        w = _Weights()
        cost = w.free * np.minimum(fit.violation, _CAP).mean() / _CAP - w.match * fit.match.mean()
        if cost < least - _GAIN:
            least, best, violation = cost, mirrored, fit.violation
    refused = violation >= _REFUSED
    return best[~refused if (violation > _REFUSED).mean() <= _LEVEL_REFUSED else slice(0)]


def _bottom(space: Space, known: Patch) -> Patch:
    """A flat bottom within the outline of what is lowest."""
    q = support.under(known.p, float(np.quantile(known.p[:, 2], 0.005)), space.size)
    q = q[space.violation(q) < _REFUSED]
    return Patch(q, np.tile([0.0, 0.0, -1.0], (len(q), 1)))
