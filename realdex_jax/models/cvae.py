"""The contact-aware conditional VAE that proposes grasps.

RealDex, section 4.1: PointNet encoders of object and hand, a latent of 64, a decoder to the pose.
Ours decodes the orientation as two columns of the rotation matrix (Zhou et al. 2019), squashes
joints into their limits with J1 <= J2, and feeds the condition to residual blocks. The posterior
also sees the pose itself: a maximum over hand points keeps too little to learn orientations soon.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import jaxlie
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from realdex_jax import pose, pytree
from realdex_jax.hand import joints
from realdex_jax.models.pointnet import PointNet, Residual

Params = dict[str, Any]

_J2 = np.array([a for a, _ in joints.COUPLED])
_J1 = np.array([b for _, b in joints.COUPLED])


@dataclasses.dataclass(frozen=True)
class CvaeConfig:
    """Layer widths."""

    latent: int = 64
    """Size of the latent vector."""
    object_encoder: tuple[int, ...] = (64, 128, 256)
    """Widths of the object's PointNet."""
    hand_encoder: tuple[int, ...] = (32, 64, 256)
    """Widths of the hand's PointNet."""
    posterior: tuple[int, ...] = (256, 128)
    """Widths of the encoder behind both."""
    decoder: int = 256
    """Width of the decoder."""
    blocks: int = 3
    """Residual blocks of the decoder."""


@pytree.dataclass
class Statistics:
    """Spread of the palm positions in the training data, part of the model."""

    t_mean: Float[Array | np.ndarray, " 3"]
    """Mean, metres."""
    t_std: Float[Array | np.ndarray, " 3"]
    """Standard deviation, metres."""


@pytree.dataclass
class Decoded:
    """A pose as the decoder sees it: no axis-angle, so nothing jumps at half turns."""

    q: Float[Array, "*b 22"]
    """Joint angles, radians, within limits."""
    t: Float[Array, "*b 3"]
    """Palm position in the cloud's frame, metres."""
    R: Float[Array, "*b 3 3"]
    """Palm orientation in the cloud's frame."""

    def phi(self) -> Float[Array, "*b 28"]:
        """The pose vector."""
        rotation = jaxlie.SO3.from_matrix(self.R)
        return pose.join(self.q, jaxlie.SE3.from_rotation_and_translation(rotation, self.t))


@dataclasses.dataclass(frozen=True, eq=False)
class Cvae:
    """The network as functions of its parameters."""

    init: Callable[[PRNGKeyArray, Float[Array, "b n 3"], Float[Array, "b k m 3"]], Params]
    """(key, points, hand points) -> parameters."""
    encode: Callable[[Params, Array, Array, Decoded, Statistics], tuple[Array, Array]]
    """(parameters, points (b n 3), hand points (b k m 3), poses (b k), statistics)
    -> mean and log variance (b k z)."""
    decode: Callable[[Params, Array, Array, Statistics], Decoded]
    """(parameters, points (b n 3), latents (b k z), statistics) -> poses (b k)."""


def cvae(config: CvaeConfig) -> Cvae:
    """Makes the network's functions."""
    net = module(config)

    def encode(
        params: Params, points: Array, hand_points: Array, given: Decoded, statistics: Statistics
    ) -> tuple[Array, Array]:
        numbers = from_pose(given, statistics)
        mean, log_variance = net.apply(params, points, hand_points, numbers, method="encode")
        return jnp.asarray(mean), jnp.asarray(log_variance)

    def decode(params: Params, points: Array, z: Array, statistics: Statistics) -> Decoded:
        raw = net.apply(params, points, z, method="decode")
        return to_pose(jnp.asarray(raw), statistics)

    def init(key: PRNGKeyArray, points: Array, hand_points: Array) -> Params:
        return dict(net.init(key, points, hand_points))

    return Cvae(init=init, encode=encode, decode=decode)


def module(config: CvaeConfig) -> nn.Module:
    """The network in Flax's own form, whose methods `encode` and `decode` put out plain numbers."""
    return _Module(config)


def to_pose(raw: Float[Array, "*b 31"], statistics: Statistics) -> Decoded:
    """Turns the decoder's output into a pose: 22 joints, 3 translation, 6 rotation.

    J1 of the coupled fingers is a share of J2, since the real hand cannot bend the tip further.
    """
    share = nn.sigmoid(raw[..., :22])
    q = jnp.asarray(joints.LOWER + share * (joints.UPPER - joints.LOWER))
    q = q.at[..., _J1].set(share[..., _J1] * q[..., _J2])
    t = raw[..., 22:25] * statistics.t_std + statistics.t_mean
    return Decoded(q=q, t=t, R=pose.rotation_from_columns(raw[..., 25:31]))


def from_pose(given: Decoded, statistics: Statistics) -> Float[Array, "*b 31"]:
    """A pose as numbers of order one for the posterior, in the order of `to_pose`."""
    q = joint_numbers(given.q)
    t = (given.t - statistics.t_mean) / statistics.t_std
    columns = jnp.swapaxes(given.R[..., :2], -1, -2).reshape(*given.R.shape[:-2], 6)
    return jnp.concatenate([q, t, columns], axis=-1)


def joint_numbers(q: Float[Array, "*b 22"]) -> Float[Array, "*b 22"]:
    """Joint angles (rad) as numbers from -1 to 1 over their ranges."""
    return 2.0 * (q - joints.LOWER) / (joints.UPPER - joints.LOWER) - 1.0


def nearest_joints(numbers: Float[Array, "*b 22"]) -> Float[Array, "*b 22"]:
    """`joint_numbers` undone; numbers of no posture give the nearest, with J1 <= J2 in limits."""
    q = joints.LOWER + 0.5 * (numbers + 1.0) * (joints.UPPER - joints.LOWER)
    q = jnp.clip(q, joints.LOWER, joints.UPPER)
    return q.at[..., _J1].min(q[..., _J2])


class _Module(nn.Module):
    config: CvaeConfig

    def setup(self) -> None:
        c = self.config
        self.object = PointNet(c.object_encoder)
        self.hand = PointNet(c.hand_encoder)
        self.posterior = _Mlp((*c.posterior, 2 * c.latent))
        self.decoder = _Decoder(c.decoder, c.blocks)

    def __call__(self, points: Array, hand_points: Array) -> tuple[Array, Array]:
        """Touches every parameter, for `init`."""
        numbers = jnp.zeros((*hand_points.shape[:2], 31))
        mean, log_variance = self.encode(points, hand_points, numbers)
        return self.decode(points, mean), log_variance

    def encode(
        self,
        points: Float[Array, "b n 3"],
        hand_points: Float[Array, "b k m 3"],
        numbers: Float[Array, "b k 31"],
    ) -> tuple[Float[Array, "b k z"], Float[Array, "b k z"]]:
        whole, _ = self.object(points)
        hand, _ = self.hand(hand_points)
        whole = jnp.broadcast_to(whole[:, None, :], (*hand.shape[:2], whole.shape[-1]))
        x = self.posterior(jnp.concatenate([hand, whole, numbers], axis=-1))
        z = self.config.latent
        # Bounds keep an early, wild encoder from overflowing the exponential.
        return x[..., :z], jnp.clip(x[..., z:], -10.0, 4.0)

    def decode(self, points: Float[Array, "b n 3"], z: Float[Array, "b k z"]) -> Array:
        whole, _ = self.object(points)
        whole = jnp.broadcast_to(whole[:, None, :], (*z.shape[:2], whole.shape[-1]))
        return self.decoder(z, whole)


class _Mlp(nn.Module):
    widths: Sequence[int]

    @nn.compact
    def __call__(self, x: Float[Array, "*b i"]) -> Float[Array, "*b o"]:
        for i, width in enumerate(self.widths[:-1]):
            x = nn.relu(nn.Dense(width, name=f"dense_{i}")(x))
        return nn.Dense(self.widths[-1], name="out")(x)


class _Decoder(nn.Module):
    width: int
    blocks: int

    @nn.compact
    def __call__(self, z: Float[Array, "b k z"], condition: Float[Array, "b k f"]) -> Array:
        condition = jnp.concatenate([z, nn.relu(condition)], axis=-1)
        x = nn.Dense(self.width, name="in")(condition)
        for i in range(self.blocks):
            x = Residual(self.width, name=f"block_{i}")(x, condition)
        x = nn.relu(nn.LayerNorm(name="norm")(x))
        return nn.Dense(31, name="out", kernel_init=nn.initializers.normal(0.02))(x)
