"""The robot's clock in terms of the main camera's: where its surface fits the clouds in time.

First, over a window of offsets, where the first clouds of the moving robot lie on its mesh. Then,
over the whole sequence, what is left of the distance between cloud and mesh along the normals is
explained by the mesh's motion: an offset, a drift, and for each camera a small error of its place,
which otherwise would look like time.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int

from capture import robot_surface
from capture.depth import View
from capture.robot_surface import Posed, RobotSurface
from capture.timesync import SyncError
from realdex_jax.data import rigid
from realdex_jax.hand.load import HandModel


@dataclasses.dataclass(frozen=True, eq=False)
class Seen:
    """Oriented points of one camera, in the world."""

    p_world: Float[np.ndarray, "n 3"]
    """Metres."""
    normal_world: Float[np.ndarray, "n 3"]
    """Unit normals toward the camera."""
    sigma: Float[np.ndarray, " n"]
    """Expected standard deviation along the normal, metres."""

    def take(self, which: np.ndarray) -> Seen:
        """Some of them."""
        return Seen(self.p_world[which], self.normal_world[which], self.sigma[which])


Look = Callable[[int], Mapping[int, Seen]]
"""Gives what each camera sees at a moment."""

_STEP_S = 1.0 / 30.0
"""Between offsets that are tried: a hand moves by a centimetre, and clouds within two fit."""
_FIRST_S = 20.0
"""From the beginning of the motion, seconds: the first clouds."""
_NEAR = 0.008
_H = 0.03
"""Half the time over which velocities are taken, seconds."""
_SCALES = (0.025, 0.02, 0.015, 0.01, 0.007, 0.006, 0.006, 0.006)
"""Distances (m) beyond which points count for nothing, round by round."""
_ALIKE = 0.6
_PRIOR = (0.003, 0.005)
"""Standard deviations of what is wrong with a camera's place (m) and orientation (rad)."""
_PRIOR_DRIFT = 200e-6
_MOST, _FEWEST = 12_000, 20
"""Seen of a camera at a moment: most that are looked at, fewest on the robot that count."""
_LEAST = 12
"""Moments that must have motion, where no fewer are asked for."""
_MESH_ERROR = 0.001
"""What the mesh is off the real surface by, metres."""
_SLOWEST = 0.02
"""Metres a second below which the robot counts as at rest."""


@dataclasses.dataclass(frozen=True, eq=False)
class RobotTrack:
    """The robot's surface over time, by its own clock."""

    hand: HandModel
    surface: RobotSurface
    time_s: Float[np.ndarray, " n"]
    """By its clock, rising, seconds."""
    q: Float[np.ndarray, "n 30"]
    """Angles of `sequence.JOINTS`, radians."""
    wxyz_xyz_world_base: Float[np.ndarray, " 7"]
    """T_world_base of the arm."""

    def at(self, time_s: float) -> Posed:
        """The surface at a time; joints go in a line between states."""
        q = np.array([np.interp(time_s, self.time_s, x) for x in self.q.T])
        return robot_surface.place(self.hand, self.surface, q, self.wxyz_xyz_world_base)

    def speed(self, at_s: Float[np.ndarray, " t"]) -> Float[np.ndarray, " t"]:
        """About how fast the hand is, metres a second."""
        both = np.concatenate([at_s - _H, at_s + _H])
        q = np.stack([np.interp(both, self.time_s, one) for one in self.q.T], axis=1)
        p = robot_surface.palms(q)[:, 4:]
        half = len(at_s)
        palm = np.linalg.norm(p[half:] - p[:half], axis=1)
        fingers = 0.04 * np.linalg.norm(q[half:, 8:] - q[:half, 8:], axis=1)
        return (palm + fingers) / (2.0 * _H)


@dataclasses.dataclass(frozen=True, eq=False)
class RobotSync:
    """The robot's clock: at main time t it says t + offset_s + drift_ppm 1e-6 (t - reference_s)."""

    offset_s: float
    """By how much it is ahead at the reference, seconds."""
    drift_ppm: float
    """How much faster it goes, millionths."""
    reference_s: float
    """By the main camera's clock, seconds."""
    offset_error_s: float
    """Standard error, seconds."""
    drift_error_ppm: float
    first_s: float
    """The offset that the first clouds gave."""
    tried_s: Float[np.ndarray, " o"]
    """Offsets that were tried with these."""
    fit: Float[np.ndarray, " o"]
    """Share of points on the mesh at each, of the best."""
    at_s: Float[np.ndarray, " k"]
    """Moments of the refinement, by the main camera's clock, seconds."""
    shift_s: Float[np.ndarray, " k"]
    """By how much each moment alone would have the robot's clock otherwise, seconds."""
    shift_error_s: Float[np.ndarray, " k"]
    """Standard errors of these."""
    residual: float
    """Median distance between cloud and mesh in the end, metres."""
    correlation: float
    """Between what the clouds moved by over the last round's start and what the mesh's motion
    explains of it."""

    def robot_s(self, main_s: Float[np.ndarray, "*t"]) -> Float[np.ndarray, "*t"]:
        """What the robot's clock says at times of the main camera's, seconds."""
        away = np.asarray(main_s) - self.reference_s
        return np.asarray(main_s + self.offset_s + 1e-6 * self.drift_ppm * away)

    def main_s(self, robot_s: Float[np.ndarray, "*t"]) -> Float[np.ndarray, "*t"]:
        """What the main camera's clock says at times of the robot's: `robot_s` undone, seconds."""
        away = np.asarray(robot_s) - self.reference_s - self.offset_s
        return np.asarray(self.reference_s + away / (1.0 + 1e-6 * self.drift_ppm))

    def error_s(self, main_s: Float[np.ndarray, "*t"]) -> Float[np.ndarray, "*t"]:
        """Standard error of `robot_s`, seconds."""
        away = np.asarray(main_s) - self.reference_s
        return np.asarray(np.hypot(self.offset_error_s, 1e-6 * self.drift_error_ppm * away))


def robot_clock(
    track: RobotTrack,
    moments_s: Float[np.ndarray, " t"],
    look: Look,
    *,
    lag_s: Mapping[int, float] | None = None,
    guess_s: float = 0.0,
    window_s: float = 0.6,
    first: int = 8,
    count: int = 24,
    seed: int = 0,
) -> RobotSync:
    """Finds the robot's clock.

    Args:
        track: The robot, by its own clock. Only hand and forearm should be on its surface.
        moments_s: When frames are, by the main camera's clock, seconds.
        look: The cameras' readings at a moment, by its index, in the world; asked for at about
            `first + count` moments, each once.
        lag_s: How much later than the moment each camera exposes, seconds; 0 if None.
        guess_s: By how much the robot's clock is ahead, as far as is known (by arrivals).
        window_s: By how much the guess may be wrong, seconds.
        first: Moments that are matched first.
        count: Moments of the refinement, over the whole sequence.
        seed: Of the draw of points.

    Raises:
        SyncError: The robot hardly moves, its surface has the arm, or the clouds do not fit it.
    """
    if not track.surface.exact.all():
        raise SyncError("the surface has the arm's rough capsules; leave the arm out")
    if not window_s > 0 or min(first, count) < 3:
        raise SyncError(
            f"window of {window_s} s, {first} and {count} moments; positive, and 3 at least"
        )
    lag = lag_s or {}
    drawn: dict[int, dict[int, Seen]] = {}

    def seen(k: int) -> dict[int, Seen]:
        if k not in drawn:
            rng = np.random.default_rng([seed, k])
            drawn[k] = {c: _fewer(one, rng) for c, one in look(k).items()}
        return drawn[k]

    speed = track.speed(moments_s + guess_s)
    inside = (moments_s + guess_s - window_s > track.time_s[0]) & (
        moments_s + guess_s + window_s < track.time_s[-1]
    )
    moving = np.flatnonzero(inside & (speed > _SLOWEST))
    least = max(first, min(count, _LEAST))
    if len(moving) < least:
        raise SyncError(
            f"the robot moves at {len(moving)} of {len(moments_s)} moments; "
            f"{least} at least are needed, away from the ends by {window_s} s"
        )
    # Faster moments tell time better; spread, so that one motion does not count for all.
    early = moving[moments_s[moving] < moments_s[moving[0]] + _FIRST_S]
    chosen = _spread(early, speed, first)
    steps = np.arange(-np.ceil(window_s / _STEP_S), np.ceil(window_s / _STEP_S) + 1)
    tried = guess_s + _STEP_S * steps
    score = np.array([_on_mesh(track, moments_s, seen, chosen, o) for o in tried.tolist()])
    if score.max() <= 0.0:
        raise SyncError("no cloud is near the robot; is its place in the world known?")
    offset = float(tried[int(np.argmax(score))])
    return _refine(
        track,
        moments_s,
        seen,
        _spread(moving, speed, count),
        lag,
        offset,
        tried,
        score / score.max(),
    )


def seen_in_world(view: View, wxyz_xyz_world_cam: Float[np.ndarray, " 7"]) -> Seen:
    """What a camera sees, in the world.

    Args:
        view: Its oriented points.
        wxyz_xyz_world_cam: T_world_cam of its colour lens.
    """
    R = rigid.matrix(wxyz_xyz_world_cam)[:3, :3]
    return Seen(rigid.apply(wxyz_xyz_world_cam, view.p_cam), view.normal_cam @ R.T, view.sigma)


def _fewer(one: Seen, rng: np.random.Generator) -> Seen:
    if len(one.p_world) <= _MOST:
        return one
    return one.take(rng.choice(len(one.p_world), _MOST, replace=False))


def _spread(
    rows: Int[np.ndarray, " n"], speed: Float[np.ndarray, " t"], count: int
) -> Int[np.ndarray, " k"]:
    """Of each of so many stretches of rows the fastest."""
    parts = np.array_split(rows, min(count, len(rows)))
    return np.array([part[int(np.argmax(speed[part]))] for part in parts])


def _on_mesh(
    track: RobotTrack,
    moments_s: Float[np.ndarray, " t"],
    seen: Callable[[int], dict[int, Seen]],
    chosen: Int[np.ndarray, " k"],
    offset: float,
) -> float:
    """How many points lie on the mesh at an offset, over the chosen moments."""
    total = 0.0
    for k in chosen.tolist():
        posed = track.at(float(moments_s[k] + offset))
        for one in seen(k).values():
            points, normals = one.p_world[::4], one.normal_world[::4]
            apart, near = posed.tree.query(points, distance_upper_bound=2.5 * _NEAR)
            near = np.asarray(near)
            on = np.isfinite(apart)
            alike = np.einsum("ni,ni->n", normals[on], posed.normal_world[near[on]]) > _ALIKE
            total += float(np.exp(-((apart[on][alike] / _NEAR) ** 2)).sum())
    return total


@dataclasses.dataclass(frozen=True, eq=False)
class _Block:
    """What one camera at one moment tells: residual = rows @ unknowns."""

    camera: int
    moment: int
    residual: Float[np.ndarray, " n"]
    """Metres along the normal, cloud before mesh."""
    speed: Float[np.ndarray, " n"]
    """Of the mesh along the normal, metres a second."""
    twist: Float[np.ndarray, "n 6"]
    """By a turn about the middle (rad) and a shift (m) of the mesh."""
    weight: Float[np.ndarray, " n"]


def _refine(
    track: RobotTrack,
    moments_s: Float[np.ndarray, " t"],
    seen: Callable[[int], dict[int, Seen]],
    chosen: Int[np.ndarray, " k"],
    lag: Mapping[int, float],
    offset: float,
    tried: Float[np.ndarray, " o"],
    score: Float[np.ndarray, " o"],
) -> RobotSync:
    reference = float(moments_s[chosen].mean())
    cameras = sorted({c for k in chosen.tolist() for c in seen(k)})
    twists = dict.fromkeys(cameras, np.zeros(6))
    middle = np.asarray(track.at(reference + offset).p_world.mean(axis=0))
    first, drift, blocks = offset, 0.0, []
    H = np.zeros((2 + 6 * len(cameras),) * 2)
    for scale in _SCALES:
        blocks = []
        for k in chosen.tolist():
            away = moments_s[k] - reference
            at = float(moments_s[k] + offset + drift * away)
            posed = track.at(at)
            way = (track.at(at + _H).p_world - track.at(at - _H).p_world) / (2.0 * _H)
            for c, one in seen(k).items():
                block = _block(posed, way, one, twists[c], middle, scale, lag.get(c, 0.0), c, k)
                if block is not None:
                    blocks.append(block)
        if len({b.moment for b in blocks}) < 3:
            raise SyncError(
                f"at {len({b.moment for b in blocks})} of {len(chosen)} moments the clouds are on "
                "the robot; are places of cameras and robot right?"
            )
        g, H = _normal_equations(blocks, cameras, moments_s, reference, twists, drift)
        step = np.linalg.solve(H, g)
        offset, drift = offset + float(step[0]), drift + float(step[1])
        for i, c in enumerate(cameras):
            twists[c] = twists[c] + step[2 + 6 * i : 8 + 6 * i]
    covariance = _covariance(blocks, cameras, moments_s, reference, H)
    shift, shift_error = _each(blocks, chosen)
    residual = np.concatenate([b.residual[b.weight > 0] for b in blocks])
    v = np.concatenate([b.speed[b.weight > 0] for b in blocks])
    # As if the clock were off by a frame: what is then measured against what motion says.
    moved = residual + v / 15.0
    return RobotSync(
        offset_s=offset,
        drift_ppm=1e6 * drift,
        reference_s=reference,
        offset_error_s=float(np.sqrt(covariance[0, 0])),
        drift_error_ppm=1e6 * float(np.sqrt(covariance[1, 1])),
        first_s=first,
        tried_s=tried,
        fit=score,
        at_s=moments_s[chosen],
        shift_s=shift,
        shift_error_s=shift_error,
        residual=float(np.median(np.abs(residual))),
        correlation=float(np.corrcoef(moved, v)[0, 1]),
    )


def _block(
    posed: Posed,
    v_world: Float[np.ndarray, "m 3"],
    one: Seen,
    twist: Float[np.ndarray, " 6"],
    middle: Float[np.ndarray, " 3"],
    scale: float,
    lag: float,
    camera: int,
    moment: int,
) -> _Block | None:
    # The cloud is moved instead of the mesh, the other way round.
    p = one.p_world - np.cross(twist[:3], one.p_world - middle) - twist[3:]
    apart, near = posed.tree.query(p, distance_upper_bound=1.5 * scale)
    near = np.asarray(near)
    on = np.flatnonzero(np.isfinite(apart))
    normal = posed.normal_world[near[on]]
    alike = np.einsum("ni,ni->n", normal, one.normal_world[on]) > _ALIKE
    on, normal = on[alike], normal[alike]
    if len(on) < _FEWEST:
        return None
    mesh = posed.p_world[near[on]]
    speed = np.einsum("ni,ni->n", normal, v_world[near[on]])
    residual = np.einsum("ni,ni->n", normal, p[on] - mesh) - lag * speed
    weight = np.maximum(1.0 - (residual / scale) ** 2, 0.0) ** 2
    weight /= one.sigma[on] ** 2 + _MESH_ERROR**2
    twist_rows = np.concatenate([np.cross(mesh - middle, normal), normal], axis=1)
    return _Block(camera, moment, residual, speed, twist_rows, weight)


def _rows(
    block: _Block,
    cameras: Sequence[int],
    moments_s: Float[np.ndarray, " t"],
    reference: float,
) -> Float[np.ndarray, "n u"]:
    rows = np.zeros((len(block.residual), 2 + 6 * len(cameras)))
    rows[:, 0] = block.speed
    rows[:, 1] = block.speed * (moments_s[block.moment] - reference)
    i = 2 + 6 * cameras.index(block.camera)
    rows[:, i : i + 6] = block.twist
    return rows


def _normal_equations(
    blocks: Sequence[_Block],
    cameras: Sequence[int],
    moments_s: Float[np.ndarray, " t"],
    reference: float,
    twists: Mapping[int, Float[np.ndarray, " 6"]],
    drift: float,
) -> tuple[Float[np.ndarray, " u"], Float[np.ndarray, "u u"]]:
    size = 2 + 6 * len(cameras)
    g, H = np.zeros(size), np.zeros((size, size))
    for block in blocks:
        rows = _rows(block, cameras, moments_s, reference)
        g += rows.T @ (block.weight * block.residual)
        H += rows.T @ (block.weight[:, None] * rows)
    # A thousand points err together, by the mesh and by the camera: priors count as if each moment
    # were a few readings.
    share = len(blocks) / max(sum((b.weight > 0).sum() for b in blocks), 1)
    g, H = share * g, share * H
    prior = np.zeros(size)
    prior[1] = _PRIOR_DRIFT**-2.0
    now = np.zeros(size)
    now[1] = drift
    for i, c in enumerate(cameras):
        prior[2 + 6 * i : 5 + 6 * i] = _PRIOR[1] ** -2.0
        prior[5 + 6 * i : 8 + 6 * i] = _PRIOR[0] ** -2.0
        now[2 + 6 * i : 8 + 6 * i] = twists[c]
    return g - prior * now, H + np.diag(prior)


def _covariance(
    blocks: Sequence[_Block],
    cameras: Sequence[int],
    moments_s: Float[np.ndarray, " t"],
    reference: float,
    H: Float[np.ndarray, "u u"],
) -> Float[np.ndarray, "u u"]:
    """Of the unknowns, as far as moments differ: points of one moment err together."""
    share = len(blocks) / max(sum((b.weight > 0).sum() for b in blocks), 1)
    by_moment: dict[int, np.ndarray] = {}
    for block in blocks:
        rows = _rows(block, cameras, moments_s, reference)
        pull = share * rows.T @ (block.weight * block.residual)
        by_moment[block.moment] = by_moment.get(block.moment, 0.0) + pull
    pulls = np.stack(list(by_moment.values()))
    # What is left pulls to one side only by the priors.
    pulls = pulls - pulls.mean(axis=0)
    inverse = np.linalg.inv(H)
    return inverse @ (pulls.T @ pulls) @ inverse * len(pulls) / max(len(pulls) - 2, 1)


def _each(
    blocks: Sequence[_Block], chosen: Int[np.ndarray, " k"]
) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, " k"]]:
    """The shift that each moment alone would have, and its error; NaN where it has no points."""
    shift, error = np.full((2, len(chosen)), np.nan)
    for i, k in enumerate(chosen.tolist()):
        mine = [b for b in blocks if b.moment == k]
        total = sum(float((b.weight * b.speed**2).sum()) for b in mine)
        if total > 0.0:
            shift[i] = sum(float((b.weight * b.speed * b.residual).sum()) for b in mine) / total
            count = sum(int((b.weight > 0).sum()) for b in mine)
            spread = sum(float((b.weight * b.residual**2).sum()) for b in mine) / max(count, 1)
            error[i] = np.sqrt(spread * 50.0 / total)  # readings side by side are no fifty
    return shift, error
