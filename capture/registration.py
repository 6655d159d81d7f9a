"""An object's model laid onto the points that cameras see of it: robust ICP, batched over starts.

Each point is paired with the nearest model point whose surface faces the camera that saw it, and
pulled to the plane there. Far pairs are trimmed and the others weighed by Tukey's biweight, whose
width shrinks from step to step. Everything has fixed shapes, so that many starts are one `vmap`.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import jaxlie
import numpy as np
from jaxtyping import Array, Float, Int
from scipy.spatial.transform import Rotation

from capture.object_model import FACING, Model
from capture.observation import Observation
from capture.quality import sight
from realdex_jax import pytree

_HIDDEN = 1.0
"""Added to the squared distance (m^2) of model points that cannot be seen."""


@dataclasses.dataclass(frozen=True)
class IcpConfig:
    """How a model is aligned."""

    steps: int = 8
    """Gauss-Newton steps, each with new pairs."""
    wide: float = 0.02
    """Width of Tukey's biweight at the first step, metres."""
    narrow: float = 0.006
    """At the last step."""
    trim: float = 0.03
    """Pairs farther apart (m) do not count; shrinks with the width."""
    sigma: float = 0.0015
    """Standard deviation of a point's distance to its plane, metres."""
    alike: float = 10.0
    """So many points have their error in common, as they come from one place of one camera."""
    prior: tuple[float, float] = (0.02, 0.2)
    """How far the pose may be from the start: standard deviations in metres and radians. What the
    points do not tell, as the turn of a round bottle, stays as it was."""


@pytree.dataclass
class Aligned:
    """Where a model came to rest."""

    T_world_object: jaxlie.SE3
    """Its pose."""
    cost: Float[Array, ""]
    """Mean over the points near it of their squared distances, each at most `narrow` squared."""
    inliers: Float[Array, ""]
    """Share of the points near it that are on its surface: within `narrow`."""
    rms: Float[Array, ""]
    """Root mean square distance (m) of those to their planes."""
    count: Float[Array, ""]
    """How many points are on its surface."""
    information: Float[Array, "6 6"]
    """Inverse covariance of the pose by the points alone: moves (m) and turns (rad) about the
    model's middle, in the object's axes."""


def thinned(seen: Observation, count: int) -> Observation:
    """The first so many points that are free, and others after them if there are fewer."""
    chosen = jnp.argsort(~seen.free, stable=True)[:count]
    return dataclasses.replace(
        seen, p_world=seen.p_world[chosen], v_world=seen.v_world[chosen], free=seen.free[chosen]
    )


def about(seen: Observation, p_world: Float[Array, " 3"], radius: Array | float) -> Observation:
    """The observation with the points outside of a ball marked as not free."""
    near = jnp.square(seen.p_world - p_world).sum(-1) <= jnp.square(radius)
    return dataclasses.replace(seen, free=seen.free & near)


def pairs(
    model: Model, p_middle: Float[Array, "n 3"], v_middle: Float[Array, "n 3"]
) -> tuple[Int[Array, " n"], Float[Array, " n"]]:
    """Index of the nearest model point that the point's camera can see, and the distance (m).

    Args:
        model: The model.
        p_middle: Points about the model's middle, in the object's axes, metres.
        v_middle: Directions from them to their cameras.
    """
    m, n = model.p_middle, model.n_middle
    # A point a column, and the number of the pair in the last bits of its distance: XLA's CPU
    # backend vectorises such a minimum, and not an `argmin`; ten times the speed.
    square = sum(jnp.square(p_middle[None, :, i] - m[:, i, None]) for i in range(3))
    cosine = sum(v_middle[None, :, i] * n[:, i, None] for i in range(3))
    square = jnp.where(cosine > FACING, square, square + _HIDDEN)
    last = 2 ** (len(m) - 1).bit_length() - 1
    number = jnp.arange(len(m), dtype=jnp.int32)[:, None]
    packed = jax.lax.bitcast_convert_type(square, jnp.int32) & ~last | number
    index = packed.min(axis=0) & last
    away = p_middle - m[index]
    distance = jnp.sqrt(jnp.square(away).sum(-1))
    seen = (v_middle * n[index]).sum(-1) > FACING
    return index, jnp.where(seen, distance, jnp.inf)


def align(
    config: IcpConfig, model: Model, seen: Observation, T_start: jaxlie.SE3, T_prior: jaxlie.SE3
) -> Aligned:
    """Aligns the model to the free points; may be jitted, and mapped over the two poses.

    Args:
        config: How.
        model: The model.
        seen: What is seen; `thinned`.
        T_start: T_world_object at first.
        T_prior: Where it is expected to be, as far as `config.prior` tells.
    """
    T_middle_object = jaxlie.SE3.from_translation(-model.p_object_middle)
    T_object_middle = T_middle_object.inverse()
    T_expected = T_prior @ T_object_middle
    trust = jnp.repeat(1.0 / jnp.square(jnp.array(config.prior)), 3)
    shrink = (config.narrow / config.wide) ** (1.0 / max(config.steps - 1, 1))

    def step(k: Array, T: jaxlie.SE3) -> jaxlie.SE3:
        share = shrink**k
        H, g, *_ = _normal(config, model, seen, T, config.wide * share, config.trim * share)
        off = (T_expected.inverse() @ T).log()
        H, g = H + jnp.diag(trust), g + trust * off
        return T @ jaxlie.SE3.exp(-jnp.linalg.solve(H, g))

    T = jax.lax.fori_loop(0, config.steps, step, T_start @ T_object_middle)
    narrow = config.narrow
    H, _, r, distance = _normal(config, model, seen, T, narrow, 2.0 * narrow)
    near = seen.free & (distance < config.trim)
    on = near & (jnp.abs(r) < narrow) & (distance < 2.0 * narrow)
    many, on_it = jnp.maximum(near.sum(), 1), jnp.maximum(on.sum(), 1)
    square = jnp.where(on, jnp.square(r), narrow**2)
    return Aligned(
        T @ T_middle_object,
        jnp.where(near, square, 0.0).sum() / many,
        on.sum() / many,
        jnp.sqrt(jnp.where(on, jnp.square(r), 0.0).sum() / on_it),
        on.sum().astype(jnp.float32),
        H,
    )


def _normal(
    config: IcpConfig,
    model: Model,
    seen: Observation,
    T: jaxlie.SE3,
    width: Array | float,
    trim: Array | float,
) -> tuple[Array, Array, Array, Array]:
    """Normal equations of a step `T exp(x)`, and residuals and distances of the pairs (m)."""
    R = T.rotation().as_matrix()
    p = (seen.p_world - T.translation()) @ R
    index, distance = pairs(model, p, seen.v_world @ R)
    n = model.n_middle[index]
    r = (n * (p - model.p_middle[index])).sum(-1)
    ratio = jnp.minimum(jnp.abs(r) / width, 1.0)
    weight = jnp.square(1.0 - jnp.square(ratio)) * (seen.free & (distance < trim))
    weight = weight / (config.alike * config.sigma**2)
    J = -jnp.concatenate([n, jnp.cross(p, n)], axis=1)
    return (J * weight[:, None]).T @ J, J.T @ (weight * r), r, distance


def turns(count: int, seed: int = 0) -> Float[np.ndarray, "n 4"]:
    """Orientations (quaternions wxyz) spread over all, the same for the same seed."""
    # Twice the number is drawn and the closest are dropped in turn: evener than chance.
    drawn = Rotation.random(2 * count, rng=np.random.default_rng(seed)).as_quat(scalar_first=True)
    alike = np.abs(drawn @ drawn.T) - 2.0 * np.eye(len(drawn))
    kept = [0]
    nearest = alike[0].copy()
    while len(kept) < count:
        kept.append(int(nearest.argmin()))
        nearest = np.maximum(nearest, alike[kept[-1]])
        nearest[kept] = np.inf
    return drawn[kept]


@dataclasses.dataclass(frozen=True)
class GlobalConfig:
    """How a model is found without a start."""

    starts: int = 384
    """Orientations that are tried."""
    points: int = 192
    """Points of the first look."""
    model_points: int = 256
    """Of the model, for that."""
    kept: int = 24
    """Starts that are looked at in full."""
    first: IcpConfig = IcpConfig(steps=12, wide=0.06, narrow=0.012, trim=0.12, prior=(0.2, 1.5))
    second: IcpConfig = IcpConfig(steps=12, wide=0.02, prior=(0.05, 0.5))


@pytree.dataclass
class Found:
    """Poses of a model, the best first."""

    T_world_object: jaxlie.SE3
    """T_world_object (k)."""
    cost: Float[Array, " k"]
    """What they were ranked by: share of what does not fit, 0 is best."""


def register(
    model: Model, seen: Observation, config: GlobalConfig | None = None, seed: int = 0
) -> Found:
    """Finds the model among the free points from many starts, the best by how it fits.

    Args:
        model: The model.
        seen: The observation, hand and table marked.
        config: How.
        seed: Of the starts' orientations.

    Returns:
        The poses that were looked at in full, the best first.
    """
    config = config or GlobalConfig()
    wxyz = jnp.asarray(turns(config.starts, seed), jnp.float32)
    return _register(config, model, seen, wxyz)


def _seen_model(model: Model, wxyz: Float[Array, " 4"], seen: Observation) -> Float[Array, " 3"]:
    """Mean of the model points that a camera would see, about the middle, in the world's axes."""
    R = jaxlie.SO3(wxyz).as_matrix()
    n, p = model.n_middle @ R.T, model.p_middle @ R.T
    v = _ways(seen)
    weight = (n @ v.T > FACING).any(-1)
    return (weight[:, None] * p).sum(0) / jnp.maximum(weight.sum(), 1)


def _ways(seen: Observation) -> Float[Array, "c 3"]:
    """Directions from the free points to the cameras."""
    middle = (seen.free[:, None] * seen.p_world).sum(0) / jnp.maximum(seen.free.sum(), 1)
    away = seen.p_world_cam - middle
    return away / jnp.linalg.norm(away, axis=-1, keepdims=True)


@jax.jit(static_argnums=0)
def _register(
    config: GlobalConfig, model: Model, seen: Observation, wxyz: Float[Array, "s 4"]
) -> Found:
    few, all_ = thinned(seen, config.points), thinned(seen, 4 * config.points)
    coarse = dataclasses.replace(
        model,
        p_middle=model.p_middle[: config.model_points],
        n_middle=model.n_middle[: config.model_points],
    )
    middle = (all_.free[:, None] * all_.p_world).sum(0) / jnp.maximum(all_.free.sum(), 1)

    def start(q: Array) -> jaxlie.SE3:
        # Both middles are of what the cameras see.
        R = jaxlie.SO3(q)
        p = middle - _seen_model(coarse, q, seen)
        return jaxlie.SE3.from_rotation_and_translation(R, p - R @ model.p_object_middle)

    def first(q: Array) -> tuple[jaxlie.SE3, Array]:
        T = start(q)
        T = align(config.first, coarse, few, T, T).T_world_object
        return T, _misfit(config, coarse, few, T)

    coarsely, cost = jax.lax.map(first, wxyz, batch_size=16)
    best = jnp.argsort(cost)[: config.kept]

    def second(T: jaxlie.SE3) -> tuple[jaxlie.SE3, Array]:
        T = align(config.second, model, all_, T, T).T_world_object
        return T, _misfit(config, model, all_, T)

    finely, cost = jax.lax.map(second, jax.tree.map(lambda x: x[best], coarsely), batch_size=4)
    order = jnp.argsort(cost)
    return Found(jax.tree.map(lambda x: x[order], finely), cost[order])


def misfit(
    model: Model, seen: Observation, T_world_object: jaxlie.SE3, wide: float
) -> Float[Array, ""]:
    """Share of the free points that a posed model does not explain; may be jitted and mapped.

    Args:
        model: The model.
        seen: The observation.
        T_world_object: The pose.
        wide: Distance (m) from which on a point counts in full; nearer ones by its square.
    """
    T = T_world_object @ jaxlie.SE3.from_translation(model.p_object_middle)
    R = T.rotation().as_matrix()
    p = (seen.p_world - T.translation()) @ R
    index, distance = pairs(model, p, seen.v_world @ R)
    r = jnp.abs((model.n_middle[index] * (p - model.p_middle[index])).sum(-1))
    # Along the surface a model's points are centimetres apart if they are few.
    off = jnp.maximum(r, 0.3 * jnp.minimum(distance, 1.0))
    square = jnp.square(jnp.minimum(off / wide, 1.0))
    return jnp.where(seen.free, square, 0.0).sum() / jnp.maximum(seen.free.sum(), 1)


def _misfit(config: GlobalConfig, model: Model, seen: Observation, T: jaxlie.SE3) -> Array:
    """What the model does not explain, and what of it is seen through."""
    return misfit(model, seen, T, config.second.wide) + sight(model, seen, T).floating
