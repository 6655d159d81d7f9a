"""From a point cloud to ranked grasps, without physics.

Three stages, one jitted function each: **raw** samples of the generator, **refined** on the
predicted contact map, **filtered** by contact, penetration and force balance. Physics is a fourth
stage that `experiments` adds.
"""

import dataclasses
import functools
import time
from collections.abc import Mapping
from typing import Literal, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray
from numpy.typing import ArrayLike

from realdex_jax import descent, doubt, pose, pytree, touch, wrench
from realdex_jax import refine as refinement
from realdex_jax.data import schema
from realdex_jax.data.schema import GraspSet
from realdex_jax.errors import CloudError, ConfigError
from realdex_jax.geometry import cloud as clouds
from realdex_jax.geometry import completion, implicit
from realdex_jax.hand import kinematics, load, surface, torque
from realdex_jax.hand.load import HandModel
from realdex_jax.losses import contact
from realdex_jax.models import generator as generators
from realdex_jax.models.contact_net import contact_net
from realdex_jax.models.grasp_model import GraspModel
from realdex_jax.refine import RefineConfig, Refined, Target

Stage = Literal["raw", "refined", "filtered"]
_T = TypeVar("_T")

SURFACE_POINTS = 4096
"""Points of the cloud that the surface is built from; more are thinned out."""
_PAD = 32
"""Counts are padded to a multiple of this, so that few sizes are ever compiled."""
_MAPS_AT_ONCE = 256
"""Contact maps predicted together: one takes 2.7 MB meanwhile."""
AT_ONCE = 256
"""Most grasps made together; more are made in turns, so that memory has a bound."""


_WIDER = 0.15
"""Radians by which the hand opens further before a grasp where hidden sides were filled in: fingers
that start in a surface that is nearer than it seemed push the object away."""


@dataclasses.dataclass(frozen=True)
class FilterConfig:
    """What a refined grasp must fulfil to pass the contact filter."""

    touching: float = 0.003
    """A link touches if its gap is below this, metres."""
    links: int = 3
    """Fewest touching links, the thumb among them."""
    penetration: float = 0.004
    """Greatest depth of a link in the object, metres."""
    self_penetration: float = 0.003
    """Greatest overlap of two links, metres."""
    residual: float = 0.15
    """Greatest unbalanced share of the contact forces."""


@dataclasses.dataclass(frozen=True)
class GenerateConfig:
    """Settings of the whole chain."""

    refine: RefineConfig = dataclasses.field(default_factory=RefineConfig)
    filter: FilterConfig = dataclasses.field(default_factory=FilterConfig)
    map_points: int = 128
    """Points of the contact map during refinement."""
    temperature: float = 1.0
    """Size of the generator's noise, over the size that its configuration names."""
    table: bool = False
    """Whether the object stands on a table: its height is the cloud's lowest z, its normal +z."""
    complete: bool = True
    """Whether the hidden sides of a cloud whose view is known are filled in, see
    `geometry.completion`; +z must be up."""
    spare: int = 8
    """So many grasps are refined for each one wanted where hidden sides were filled in; the one is
    kept that depends least on what nobody saw, see `realdex_jax.doubt`."""


@pytree.dataclass
class Judgement:
    """What the contact filter measured."""

    passed: Bool[Array, " k"]
    score: Float[Array, " k"]
    """Lower is better; ranks the grasps, those that passed first."""
    links: Int[Array, " k"]
    """Number of touching links."""
    residual: Float[Array, " k"]
    """Length of the net wrench over the sum of normal forces."""
    penetration: Float[Array, " k"]
    """Depth of the hand in the object, metres."""
    self_penetration: Float[Array, " k"]
    """Depth of the worst pair of links, metres."""


@dataclasses.dataclass(frozen=True, eq=False)
class Prepared:
    """A cloud as the stages need it, all in its centred frame."""

    target: Target
    """What refinement aims at."""
    points: Float[Array, "n 3"]
    """Points for the networks, metres."""
    centre: Float[np.ndarray, " 3"]
    """What was taken off the cloud, metres."""
    seen: Float[np.ndarray, "s 3"] | None
    """What was seen, metres, if anything was filled in."""


@pytree.dataclass
class Candidates:
    """Grasps of one cloud, in the frame the cloud was given in."""

    raw: GraspSet
    """As sampled."""
    refined: GraspSet
    """After refinement, each from the best of as many samples as `RefineConfig.choices`, where
    hidden sides were filled in the steadiest of `GenerateConfig.spare`; columns: the judgement."""
    order: Int[np.ndarray, " k"]
    """Indices into `refined`, best first."""
    passed: Bool[np.ndarray, " k"]
    """Which of `refined` pass the filter."""
    seconds: Mapping[str, float]
    """Time spent on "surface", "sample", "refine" and "judge", compiling included."""

    def filtered(self, count: int | None = None) -> GraspSet:
        """Grasps that passed the filter, best first.

        Args:
            count: Number wanted; if fewer passed, the best of the others fill up. All passed by
                default.
        """
        passed = self.order[np.asarray(self.passed)[self.order]]
        return schema.take(self.refined, passed if count is None else self.order[:count])


def generate(
    model: GraspModel,
    cloud: np.ndarray,
    count: int,
    key: PRNGKeyArray,
    config: GenerateConfig | None = None,
    *,
    normals: np.ndarray | None = None,
    view: np.ndarray | None = None,
    hand: HandModel | None = None,
) -> Candidates:
    """Generates grasps for an object given as points.

    Args:
        model: A trained model.
        cloud: (n, 3) points of the object, full or from one side, any n >= 16, metres.
        count: Number of grasps to sample.
        key: Randomness; the same key gives the same grasps.
        config: Settings; defaults if left out.
        normals: Outward normals of the points, of any length; estimated if left out.
        view: Where the camera was, if the cloud shows one side only: the other sides are filled in
            unless `config.complete` is off or normals are given; guessed if left out, and nothing
            is filled in then.
        hand: The hand; ours by default.

    Returns:
        Raw, refined and ranked grasps in the frame of `cloud`.

    Raises:
        CloudError: A cloud that no grasp can be predicted from, or normals or a view that do not
            fit it.
        ConfigError: A count or a number of spare grasps below one.
        HandError: A hand with other joints than Shadow's.
    """
    config = config or GenerateConfig()
    hand = hand or load.load("shadow")
    load.require_shadow(hand, "a grasp model")
    if count < 1:
        raise ConfigError(f"count={count} grasps asked; at least one is needed")
    if config.spare < 1:
        raise ConfigError(f"spare={config.spare}; 1 keeps every grasp, more choose among so many")
    key_cloud, key_latent = jax.random.split(key)
    start = time.perf_counter()
    prepared = prepare(cloud, normals, model, config, key_cloud, view)
    jax.block_until_ready((prepared.target, prepared.points))
    surface_seconds = time.perf_counter() - start
    spare = 1 if prepared.seen is None else config.spare
    at_once, pad = (max(size // spare, 1) for size in (AT_ONCE, _PAD))
    turns = -(-count // at_once)
    size = at_once if turns > 1 else -(-count // pad) * pad
    keys = jax.random.split(key_latent, turns) if turns > 1 else [key_latent]
    made = [_turn(hand, model, config, prepared, key, size, spare) for key in keys]
    raw, refined = (
        schema.take(schema.concatenate(sets), slice(count))
        for sets in ([turn[0] for turn in made], [turn[1] for turn in made])
    )
    for grasps in (raw, refined):
        np.asarray(grasps.phi)[:, 22:25] += prepared.centre
    spent = [surface_seconds, *np.sum([turn[2] for turn in made], axis=0).tolist()]
    return Candidates(
        raw=raw,
        refined=refined,
        order=np.argsort(refined.columns["score"], kind="stable"),
        passed=refined.columns["passed"],
        seconds=dict(zip(("surface", "sample", "refine", "judge"), spent, strict=True)),
    )


def _turn(
    hand: HandModel,
    model: GraspModel,
    config: GenerateConfig,
    prepared: Prepared,
    key: PRNGKeyArray,
    count: int,
    spare: int,
) -> tuple[GraspSet, GraspSet, Float[np.ndarray, " 3"]]:
    """Raw and refined grasps in the cloud's centred frame, and the seconds of the three stages."""
    clock = [time.perf_counter()]

    def done(made: _T) -> _T:
        jax.block_until_ready(made)
        clock.append(time.perf_counter())
        return made

    target, samples = prepared.target, count * spare * config.refine.choices
    raw, predicted = done(sample(hand, model, prepared.points, target.points, key, samples, config))
    refined = done(refine(hand, target, raw, predicted, config.refine))
    q_pre, q_squeeze = closing(hand, refined, 0.0 if prepared.seen is None else _WIDER)
    judged = judge(hand, target, refined, config.filter)
    columns = {f.name: np.asarray(getattr(judged, f.name)) for f in dataclasses.fields(judged)}
    grasps = GraspSet(phi=refined.phi, q_pregrasp=q_pre, q_squeeze=q_squeeze, columns=columns)
    if prepared.seen is not None and spare > 1:
        unsteady = dependence(refined, q_squeeze, prepared.seen, target.p_centre)
        grasps = schema.take(grasps, doubt.steadiest(unsteady, spare))
    done(judged)
    return (
        GraspSet(phi=raw[:count], q_pregrasp=raw[:count, :22], q_squeeze=raw[:count, :22]),
        grasps,
        np.diff(clock),
    )


def dependence(
    refined: Refined,
    q_squeeze: Float[Array, "k 22"],
    seen: Float[np.ndarray, "s 3"],
    p_centre: Float[Array, " 3"],
) -> Float[np.ndarray, " k"]:
    """How much grasps depend on what nobody saw: metres of sway for each radian of squeeze.

    Args:
        refined: The grasps.
        q_squeeze: Their squeeze.
        seen: What was seen, metres, same frame.
        p_centre: Estimated centre of mass, metres.
    """
    offset = doubt.offsets(np.asarray(refined.p), seen)
    swayed = doubt.sway(refined.p, refined.normal, refined.wanted, jnp.asarray(offset), p_centre)
    pressed = jnp.linalg.norm(q_squeeze - refined.phi[:, :22], axis=1)
    return np.asarray(swayed / jnp.maximum(pressed, 1e-6))


def prepare(
    cloud: np.ndarray,
    normals: np.ndarray | None,
    model: GraspModel,
    config: GenerateConfig,
    key: PRNGKeyArray,
    view: np.ndarray | None = None,
) -> Prepared:
    """Checks a cloud and builds what the stages need; runs on the host, under a second.

    Raises:
        CloudError: See `generate`.
    """
    points = clouds.check_cloud(cloud)
    n = None if normals is None else _unit_normals(normals, points.shape)
    p_view = None if view is None else _position(view)
    key_thin, key_net, key_map = jax.random.split(key, 3)
    seen = None
    if p_view is not None and n is None and config.complete:
        completed = completion.complete(points, p_view)
        points, n = completed.points, completed.normals
        seen = None if completed.seen.all() else points[completed.seen]
    if len(points) > SURFACE_POINTS:
        keep = np.asarray(
            jax.random.choice(key_thin, len(points), (SURFACE_POINTS,), replace=False)
        )
        points = points[keep]
        n = None if n is None else n[keep]
    centre = points.mean(axis=0)
    points = points - centre
    if n is None:
        surface_points = implicit.orient(points, None if p_view is None else p_view - centre)
    else:
        surface_points = implicit.Oriented(points, n, np.zeros(len(points), bool))
    net_points = points[clouds.resample(points, model.config.points, key_net)]
    map_points = points[clouds.resample(points, config.map_points, key_map)]
    target = Target(
        grid=implicit.grid(surface_points),
        points=jnp.asarray(map_points, jnp.float32),
        p_centre=jnp.asarray((points.min(axis=0) + points.max(axis=0)) / 2, jnp.float32),
        table=jnp.asarray(points[:, 2].min() if config.table else -jnp.inf, jnp.float32),
    )
    return Prepared(
        target=target,
        points=jnp.asarray(net_points, jnp.float32),
        centre=centre,
        seen=None if seen is None else seen - centre,
    )


def _unit_normals(normals: ArrayLike, shape: tuple[int, ...]) -> Float[np.ndarray, "n 3"]:
    """Normals of length one, if there is a usable one for each point."""
    n = _numbers(normals, "normals")
    if n.shape != shape:
        raise CloudError(f"normals have shape {n.shape}; the cloud has {shape}")
    finite = np.isfinite(n).all(axis=1)
    if not finite.all():
        raise CloudError(
            f"{np.sum(~finite)} of {len(n)} normals are not finite (first: row "
            f"{int(np.argmin(finite))}); leave normals out to have them estimated"
        )
    # By the largest part first: the square of a tiny or huge length would not be a number.
    largest = np.abs(n).max(axis=1, keepdims=True)
    zero = largest[:, 0] == 0
    if zero.any():
        raise CloudError(
            f"{zero.sum()} of {len(n)} normals are zero (first: row {int(zero.argmax())}); leave "
            "normals out to have them estimated"
        )
    n = n / largest
    return n / np.linalg.norm(n, axis=1, keepdims=True)


def _position(view: ArrayLike) -> Float[np.ndarray, " 3"]:
    """A camera position, if it is one."""
    p_view = _numbers(view, "view")
    if p_view.shape != (3,):
        raise CloudError(f"view has shape {p_view.shape}; need (3,), the camera's x, y, z")
    if not np.isfinite(p_view).all():
        raise CloudError(f"view {p_view.tolist()} is not finite; need the camera's x, y, z, metres")
    return p_view


def _numbers(values: ArrayLike, name: str) -> np.ndarray:
    try:
        return np.asarray(values, np.float64)
    except (TypeError, ValueError) as error:
        raise CloudError(f"{name} cannot be read as numbers: {error}") from error


def sample(
    hand: HandModel,
    model: GraspModel,
    points: Float[Array, "n 3"],
    map_points: Float[Array, "p 3"],
    key: PRNGKeyArray,
    count: int,
    config: GenerateConfig,
) -> tuple[Float[Array, "k 28"], Float[Array, "k p"]]:
    """Stage one: draws poses and predicts their contact maps.

    Args:
        hand: The hand.
        model: The model.
        points: Centred cloud for the networks, metres.
        map_points: Points whose contact values are wanted.
        key: Randomness.
        count: Number of poses.
        config: Settings.

    Returns:
        Poses, and predicted contact values at `map_points`.
    """
    return _sample(hand, model, points, map_points, key, count, jnp.asarray(config.temperature))


@functools.partial(jax.jit, static_argnames=("hand", "count"))
def _sample(
    hand: HandModel,
    model: GraspModel,
    points: Float[Array, "n 3"],
    map_points: Float[Array, "p 3"],
    key: PRNGKeyArray,
    count: int,
    temperature: Float[Array, ""],
) -> tuple[Array, Array]:
    config, params = model.config, model.params
    given = (points[None], key, count, model.statistics, temperature)
    phi = generators.sample(config.generator, params.generator, *given).phi()[0]
    links = kinematics.posed(hand, phi)
    with jax.ensure_compile_time_eval():
        skin = surface.points(hand, config.hand_points)
    hand_points, _ = surface.pose_points(skin, links)
    net = contact_net(config.contact)

    def predicted(p_hand: Float[Array, "m 3"]) -> Float[Array, " n"]:
        logits = net.apply(params.contact, map_points[None], p_hand[None, None])
        return contact.expectation(logits[0, 0])

    return phi, jax.lax.map(predicted, hand_points, batch_size=_MAPS_AT_ONCE)


@functools.partial(jax.jit, static_argnames=("hand", "config"))
def refine(
    hand: HandModel,
    target: Target,
    phi: Float[Array, "k 28"],
    predicted: Float[Array, "k n"],
    config: RefineConfig,
) -> Refined:
    """Stage two: `realdex_jax.refine.refine`, jitted."""
    return refinement.refine(hand, target, phi, predicted, config)


@functools.partial(jax.jit, static_argnames="hand")
def closing(
    hand: HandModel, refined: Refined, wider: float | Float[Array, ""] = 0.0
) -> tuple[Float[Array, "k 22"], Float[Array, "k 22"]]:
    """Pre-grasp and squeeze postures, from the torques of the contact forces.

    Args:
        hand: The hand.
        refined: The grasps.
        wider: See `torque.pregrasp`.
    """
    q, T_object_hand = pose.split(refined.phi)
    T_hand_object = T_object_hand.inverse()
    R = T_hand_object.rotation().as_matrix()
    p_hand = jnp.einsum("kij,knj->kni", R, refined.p) + T_hand_object.translation()[:, None]
    f_hand = jnp.einsum("kij,knj->kni", R, refined.force)
    links = [hand.link(name) for name in touch.CONTACT_LINKS]
    tau = torque.joint_torque(hand, q, links, p_hand, f_hand)
    return torque.pregrasp(q, tau, wider), torque.squeeze(q, tau)


@functools.partial(jax.jit, static_argnames=("hand", "config"))
def judge(hand: HandModel, target: Target, refined: Refined, config: FilterConfig) -> Judgement:
    """Stage three: measures contact, penetration and balance, and ranks.

    Args:
        hand: The hand.
        target: The cloud.
        refined: Refined grasps.
        config: Limits.
    """
    state = descent.start(refined.phi, len(touch.CONTACT_LINKS))
    at = touch.posed(hand, state.R, state.p, state.q, fine=True)
    found = touch.touch(hand, at, target.grid)
    touching = found.gap < config.touching
    number = touching.sum(0)
    thumb = (touching & touch.IS_THUMB[:, None]).any(0)
    inside = touch.to_hand(hand, at, target.points.T).min(1)
    depth = jnp.maximum(jnp.maximum(-found.spheres.min(0), -inside.min(0)), 0.0)
    own = touch.self_depth(hand, at).max(0)
    # Forces again, now only at links that do touch.
    possible = touch.contacts(found, touching.astype(jnp.float32))
    force = wrench.balance(
        possible, jnp.zeros_like(found.p), target.p_centre[:, None], friction=0.5, steps=100
    )
    residual = wrench.residual(possible, force, target.p_centre[:, None])
    passed = (
        (number >= config.links)
        & thumb
        & (depth <= config.penetration)
        & (own <= config.self_penetration)
        & (residual <= config.residual)
    )
    score = (
        residual
        + depth / 0.01
        + own / 0.01
        - 0.02 * jnp.minimum(number, 8)
        + 10.0 * (1.0 - passed.astype(jnp.float32))
    )
    return Judgement(
        passed=passed,
        score=jnp.where(jnp.isfinite(score), score, jnp.inf),
        links=number,
        residual=residual,
        penetration=depth,
        self_penetration=own,
    )
