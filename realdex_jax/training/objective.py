"""The loss of the grasp model: RealDex's Eq. 4 for the cVAE, cross entropy for the contact net.

L = w_KL L_KL + w_recon L_recon + w_cmap L_cmap + w_CD L_CD, plus penetration. The contact net is
trained beside the cVAE on hands moved a little from the true one and asked for the true hand's map:
at use it sees a proposed hand and should say what was meant.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import jaxlie
from jaxtyping import Array, Float, PRNGKeyArray

from realdex_jax import pose
from realdex_jax.data.pipeline import Batch
from realdex_jax.hand import collision, joints, kinematics, surface
from realdex_jax.hand.kinematics import Links
from realdex_jax.hand.load import HandModel
from realdex_jax.hand.surface import SurfacePoints
from realdex_jax.losses import contact, penetration
from realdex_jax.losses import pose as pose_loss
from realdex_jax.models.contact_net import contact_net
from realdex_jax.models.cvae import CvaeConfig, Decoded, Statistics, cvae
from realdex_jax.models.grasp_model import NetworkConfig, Params
from realdex_jax.training import update
from realdex_jax.training.state import Optimisation, TrainState
from realdex_jax.training.update import Scalars


@dataclasses.dataclass(frozen=True)
class Weights:
    """Weights of the terms. The paper's values, where it has them, are in `PAPER`."""

    kl: float = 0.01
    joints: float = 1.0
    translation: float = 100.0
    rotation: float = 10.0
    hand_points: float = 30.0
    """Chamfer distance; the release sums over 1,024 points and divides twice by a batch of 32."""
    contact_map: float = 2.0
    penetration: float = 30.0
    self_penetration: float = 1.0
    contact_net: float = 0.3


PAPER = Weights(kl=1.0, hand_points=32.0, contact_map=10.0, penetration=1.0, self_penetration=0.0)
"""Weights of the release (its sums turned into our means)."""


@dataclasses.dataclass(frozen=True)
class Perturbation:
    """Standard deviations of the hands shown to the contact net."""

    translation: float = 0.008
    """Metres."""
    rotation: float = 0.1
    """Radians."""
    joints: float = 0.1
    """Radians."""


def posed(hand: HandModel, q: Array, t: Array, R: Array) -> Links:
    """Links in the cloud's frame."""
    return kinematics.at(hand, q, R, t)


def perturbed(
    key: PRNGKeyArray, phi: Float[Array, "*b 28"], size: Perturbation
) -> Float[Array, "*b 28"]:
    """Poses moved at random."""
    q, T_object_hand = pose.split(phi)
    noise = jax.random.normal(key, phi.shape)
    q = jnp.clip(q + size.joints * noise[..., :22], joints.LOWER, joints.UPPER)
    R = T_object_hand.rotation() @ jaxlie.SO3.exp(size.rotation * noise[..., 25:28])
    t = T_object_hand.translation() + size.translation * noise[..., 22:25]
    return pose.join(q, jaxlie.SE3.from_rotation_and_translation(R, t))


@dataclasses.dataclass(frozen=True)
class Shown:
    """A batch as every generator's objective needs it, and what the contact net makes of it."""

    given: Decoded
    """The poses (b k)."""
    hand_points: Float[Array, "b k m 3"]
    """Surface points of the posed hands, metres."""
    clouds: Float[Array, "b k n 3"]
    """Each cloud once per grasp."""
    logits: Float[Array, "b k n 10"]
    """The contact net's answer to hands moved a little."""
    contact_net: Float[Array, ""]
    """Its cross entropy."""


def show(
    params: Params,
    batch: Batch,
    key: PRNGKeyArray,
    *,
    hand: HandModel,
    skin: SurfacePoints,
    config: NetworkConfig,
    perturbation: Perturbation,
) -> Shown:
    """Shows the contact net a batch; arguments as in `loss`, the key moves the hands."""
    points, phi = jnp.asarray(batch.points), jnp.asarray(batch.phi)
    q, T_object_hand = pose.split(phi)
    R, t = T_object_hand.rotation().as_matrix(), T_object_hand.translation()
    q_moved, T_moved = pose.split(perturbed(key, phi, perturbation))
    # One pass through the hand for both given poses: compiling it is most of the wait.
    both = posed(
        hand,
        jnp.stack([q, q_moved]),
        jnp.stack([t, T_moved.translation()]),
        jnp.stack([R, T_moved.rotation().as_matrix()]),
    )
    true_links = jax.tree.map(lambda x: x[0], both)
    (true_points, moved_points), _ = surface.pose_points(skin, both)
    clouds = _repeat(points, phi)
    true_map = contact.contact_map(hand, true_links, clouds)
    logits = contact_net(config.contact).apply(params.contact, points, moved_points)
    return Shown(
        given=Decoded(q=q, t=t, R=R),
        hand_points=true_points,
        clouds=clouds,
        logits=logits,
        contact_net=contact.cross_entropy(logits, true_map),
    )


def loss(
    params: Params,
    batch: Batch,
    key: PRNGKeyArray,
    *,
    hand: HandModel,
    skin: SurfacePoints,
    config: NetworkConfig,
    statistics: Statistics,
    weights: Weights,
    perturbation: Perturbation,
    ramp: Float[Array, ""],
) -> tuple[Float[Array, ""], Scalars]:
    """Weighted sum of all terms on a batch.

    Args:
        params: Parameters.
        batch: Clouds (b n 3) and poses (b k 28), metres and radians, centred frames.
        key: Randomness of the latent and of the perturbation.
        hand: The hand.
        skin: Surface points of the hand, `config.hand_points` of them.
        config: Network sizes.
        statistics: Spread of palm positions.
        weights: Weights of the terms.
        perturbation: How far the contact net's hands are moved.
        ramp: In [0, 1]: share of the map and penetration terms, which mean nothing before poses
            are near.

    Returns:
        The loss and its unweighted terms by name.
    """
    assert isinstance(config.generator, CvaeConfig)  # others learn by `density_objective`
    generator = cvae(config.generator)
    key_latent, key_noise = jax.random.split(key)
    points = jnp.asarray(batch.points)
    shown = show(
        params, batch, key_noise, hand=hand, skin=skin, config=config, perturbation=perturbation
    )
    q, t, R = shown.given.q, shown.given.t, shown.given.R
    predicted_map = jax.lax.stop_gradient(contact.expectation(shown.logits))

    mean, log_variance = generator.encode(
        params.generator, points, shown.hand_points, shown.given, statistics
    )
    z = mean + jnp.exp(0.5 * log_variance) * jax.random.normal(key_latent, mean.shape)
    decoded = generator.decode(params.generator, points, z, statistics)
    links = posed(hand, decoded.q, decoded.t, decoded.R)
    hand_points, _ = surface.pose_points(skin, links)
    distance = collision.signed_distance(hand, links, shown.clouds)

    terms = {
        "kl": pose_loss.kl(mean, log_variance),
        "joints": pose_loss.joints(decoded.q, q),
        "translation": pose_loss.translation(decoded.t, t),
        "rotation": pose_loss.rotation(decoded.R, R),
        "hand_points": pose_loss.chamfer(hand_points, shown.hand_points).mean(),
        "contact_map": contact.map_error(contact.contact_value(distance), predicted_map),
        "penetration": penetration.depth(distance).mean(),
        "self_penetration": penetration.in_itself(hand, links).mean(),
        "contact_net": shown.contact_net,
    }
    ramped = ("contact_map", "penetration", "self_penetration")
    total = jnp.zeros(())
    for name, value in terms.items():
        total = total + getattr(weights, name) * (ramp if name in ramped else 1.0) * value
    return total, terms


def make_step(
    *,
    hand: HandModel,
    config: NetworkConfig,
    statistics: Statistics,
    weights: Weights,
    perturbation: Perturbation,
    optimisation: Optimisation,
) -> Callable[[TrainState, Batch], tuple[TrainState, Scalars]]:
    """The jitted update, as `update.make_step` describes it; the terms are not weighted."""
    skin = surface.points(hand, config.hand_points)
    ramp_steps = max(1, optimisation.steps // 5)

    def of(params: Params, batch: Batch, key: PRNGKeyArray, step: Array) -> tuple[Array, Scalars]:
        return loss(
            params,
            batch,
            key,
            hand=hand,
            skin=skin,
            config=config,
            statistics=statistics,
            weights=weights,
            perturbation=perturbation,
            ramp=jnp.minimum(1.0, step / ramp_steps),
        )

    return update.make_step(of, optimisation)


def _repeat(points: Float[Array, "b n 3"], phi: Float[Array, "b k 28"]) -> Float[Array, "b k n 3"]:
    """Each cloud once per grasp."""
    b, k = phi.shape[:2]
    return jnp.broadcast_to(points[:, None], (b, k, *points.shape[1:]))
