"""How far the pose of a tracked object can be trusted, frame by frame.

Four things can be wrong: points near the model are not on it, the cameras see through it, they see
too little of it, or what they see does not fix the pose. Each has a limit; the score is the worst.
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import jaxlie
from jaxtyping import Array, Bool, Float

from capture.object_model import Model
from capture.observation import Observation, cells
from realdex_jax import pytree

FREE_STEP = 0.012
"""Metres by which a model point must be before what a camera measured there to float in free
space, or behind it to be hidden."""
_SLANT = 0.3
"""Cosine below which a camera is not asked: a cell of its picture spans a range of depths."""


@pytree.dataclass
class Sight:
    """How a posed model fits to what the cameras see through and see."""

    backed: Float[Array, ""]
    """Share of the model points facing a camera where one measured a surface."""
    floating: Float[Array, ""]
    """Share of those that a camera could see, that it saw through: the free-space violation."""


def sight(model: Model, seen: Observation, T_world_object: jaxlie.SE3) -> Sight:
    """Holds a posed model against the depth pictures; may be jitted and mapped over poses."""
    T = T_world_object @ jaxlie.SE3.from_translation(model.p_object_middle)
    R = T.rotation().as_matrix()
    p, n = model.p_middle @ R.T + T.translation(), model.n_middle @ R.T
    away = seen.p_world_cam[:, None] - p
    cosine = (away * n).sum(-1) / jnp.sqrt(jnp.square(away).sum(-1))
    z, measured = cells(seen, p)
    known = (cosine > _SLANT) & (measured > 0.0)
    through = known & (measured > z + FREE_STEP)
    on = known & (jnp.abs(measured - z) <= FREE_STEP)
    facing = jnp.maximum((known.any(0)).sum(), 1)
    return Sight(
        (on.any(0) & ~through.any(0)).sum() / facing,
        through.any(0).sum() / jnp.maximum((through | on).any(0).sum(), 1),
    )


@dataclasses.dataclass(frozen=True)
class Limits:
    """Where the score of each part is one, and where it is zero; it is linear between."""

    inliers: tuple[float, float] = (0.9, 0.5)
    """Share of the points near the model that are on it."""
    rms: tuple[float, float] = (0.0015, 0.0035)
    """Root mean square distance (m) of those."""
    floating: tuple[float, float] = (0.02, 0.12)
    """Share of the model that is seen through."""
    backed: tuple[float, float] = (0.15, 0.05)
    """Share of the model that is seen."""
    error: tuple[float, float] = (0.003, 0.012)
    """Standard error (m) of the worst known point of the object."""
    good: float = 0.5
    """Score from which on a frame counts as tracked."""


@pytree.dataclass
class Quality:
    """How well a pose fits; one for each frame, or stacked over t."""

    score: Float[Array, "*t"]
    """From 0, lost, to 1: the worst of its parts."""
    inliers: Float[Array, "*t"]
    """Share of the free points near the model that are on its surface."""
    rms: Float[Array, "*t"]
    """Root mean square distance of those to the surface, metres."""
    floating: Float[Array, "*t"]
    """Free-space violation: share of the visible model that a camera saw through."""
    backed: Float[Array, "*t"]
    """Share of the model's points facing a camera where one measured a surface."""
    error: Float[Array, "*t"]
    """Standard error of the pose at the object's farthest point, metres, over the motions that
    change the surface: the conditioning of the normal equations."""
    blind: Float[Array, "*t"]
    """The same over all motions; large while `error` is small where the object is symmetric."""


def judge(
    limits: Limits,
    model: Model,
    seen: Observation,
    T_world_object: jaxlie.SE3,
    inliers: Float[Array, ""],
    rms: Float[Array, ""],
    information: Float[Array, "6 6"],
) -> Quality:
    """Judges a pose; may be jitted.

    Args:
        limits: Of the parts.
        model: The model.
        seen: The observation.
        T_world_object: The pose.
        inliers: As `registration.Aligned`, and so are the next.
        rms: Metres.
        information: Inverse covariance of the pose.
    """
    looks = sight(model, seen, T_world_object)
    scale = jnp.concatenate([jnp.ones(3), jnp.full(3, 1.0 / model.radius)])
    scaled = information * scale[:, None] * scale
    # Half a metre is as good as unknown, and keeps the inverse in single precision.
    told = jnp.eye(6) - model.same
    blind = _worst(told @ scaled @ told + 4.0 * jnp.eye(6))
    error = _worst(scaled + 4.0 * jnp.eye(6) + 1e8 * model.same)
    parts = jnp.stack(
        [
            _ramp(inliers, limits.inliers),
            _ramp(rms, limits.rms),
            _ramp(looks.floating, limits.floating),
            _ramp(looks.backed, limits.backed),
            _ramp(error, limits.error),
        ]
    )
    return Quality(parts.min(), inliers, rms, looks.floating, looks.backed, error, blind)


def unobservable(limits: Limits, quality: Quality) -> Bool[Array, "*t"]:
    """Where the cameras cannot tell the pose: what they see, or the object, is too symmetric."""
    return quality.blind > limits.error[1]


def _worst(information: Float[Array, "6 6"]) -> Float[Array, ""]:
    return 1.0 / jnp.sqrt(jnp.maximum(jnp.linalg.eigvalsh(information)[0], 1e-6))


def _ramp(value: Array, ends: tuple[float, float]) -> Array:
    one, zero = ends
    return jnp.clip((value - zero) / (one - zero), 0.0, 1.0)
