"""Grasps by conditional flow matching: noise flows to poses along learnt, nearly straight lines.

Lipman et al. 2023, with the straight paths of rectified flow (Liu et al. 2023). The flow lives on
the 31 numbers of `cvae.from_pose`, in which a rotation is two columns of its matrix, so nothing
jumps at half turns; only the end of the flow is made a rotation again. A few steps suffice.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from realdex_jax import pose
from realdex_jax.models import cvae
from realdex_jax.models.cvae import Decoded, Statistics
from realdex_jax.models.pointnet import PointNet, Residual

NUMBERS = 31
"""22 joints, 3 translation, 6 rotation."""


@dataclasses.dataclass(frozen=True)
class MatchingConfig:
    """Layer widths, and steps of the flow."""

    object_encoder: tuple[int, ...] = (64, 128, 256)
    """Widths of the object's PointNet."""
    width: int = 256
    """Width of the velocity's network."""
    blocks: int = 4
    """Its residual blocks."""
    octaves: int = 6
    """Octaves of sines and cosines of the time."""
    steps: int = 8
    """Midpoint steps from noise to pose; two looks at the network each."""


@dataclasses.dataclass(frozen=True, eq=False)
class Matching:
    """The network as functions of its parameters."""

    init: Callable[[PRNGKeyArray, Float[Array, "b n 3"]], Any]
    """(key, points) -> parameters."""
    encode: Callable[[Any, Float[Array, "b n 3"]], Float[Array, "b f"]]
    """(parameters, points) -> feature of the object."""
    velocity: Callable[
        [Any, Float[Array, "b f"], Float[Array, "b k 31"], Float[Array, "b k"]],
        Float[Array, "b k 31"],
    ]
    """(parameters, feature, numbers, time in [0, 1]) -> velocity of the numbers."""


def matching(config: MatchingConfig) -> Matching:
    """Makes the network's functions."""
    module = _Module(config)

    def init(key: PRNGKeyArray, points: Array) -> Any:
        return dict(module.init(key, points))

    def encode(params: Any, points: Array) -> Array:
        return jnp.asarray(module.apply(params, points, method="encode"))

    def velocity(params: Any, feature: Array, x: Array, time: Array) -> Array:
        return jnp.asarray(module.apply(params, feature, x, time, method="velocity"))

    return Matching(init=init, encode=encode, velocity=velocity)


def sample(
    config: MatchingConfig,
    params: Any,
    points: Float[Array, "b n 3"],
    noise: Float[Array, "b k 31"],
    statistics: Statistics,
) -> Decoded:
    """Poses (b k) that the flow makes of noise.

    Args:
        config: Sizes and steps.
        params: Parameters.
        points: Centred clouds, metres.
        noise: Standard normal numbers; smaller ones give more usual poses.
        statistics: Spread of palm positions.
    """
    net = matching(config)
    feature = net.encode(params, points)
    length = 1.0 / config.steps

    def step(x: Array, i: Array) -> tuple[Array, None]:
        time = jnp.broadcast_to(i * length, x.shape[:-1])
        half = x + 0.5 * length * net.velocity(params, feature, x, time)
        return x + length * net.velocity(params, feature, half, time + 0.5 * length), None

    x, _ = jax.lax.scan(step, noise, jnp.arange(config.steps, dtype=jnp.float32))
    return to_pose(x, statistics)


def to_pose(x: Float[Array, "*b 31"], statistics: Statistics) -> Decoded:
    """`cvae.from_pose` undone; what is no pose becomes the nearest: joints keep their limits."""
    t = x[..., 22:25] * statistics.t_std + statistics.t_mean
    # The cVAE answers columns beside those of no rotation; these are the columns themselves.
    beside = x[..., 25:31] - jnp.eye(3)[:, :2].T.reshape(6)
    return Decoded(q=cvae.nearest_joints(x[..., :22]), t=t, R=pose.rotation_from_columns(beside))


class _Module(nn.Module):
    config: MatchingConfig

    def setup(self) -> None:
        self.object = PointNet(self.config.object_encoder)
        self.field = _Velocity(self.config)

    def __call__(self, points: Float[Array, "b n 3"]) -> Array:
        """Touches every parameter, for `init`."""
        x = jnp.zeros((len(points), 1, NUMBERS))
        return self.velocity(self.encode(points), x, jnp.zeros(x.shape[:2]))

    def encode(self, points: Float[Array, "b n 3"]) -> Float[Array, "b f"]:
        return self.object(points)[0]

    def velocity(
        self, feature: Float[Array, "b f"], x: Float[Array, "b k 31"], time: Float[Array, "b k"]
    ) -> Float[Array, "b k 31"]:
        return self.field(feature, x, time)


class _Velocity(nn.Module):
    config: MatchingConfig

    @nn.compact
    def __call__(
        self, feature: Float[Array, "b f"], x: Float[Array, "b k 31"], time: Float[Array, "b k"]
    ) -> Float[Array, "b k 31"]:
        c = self.config
        angles = jnp.pi * time[..., None] * 2.0 ** jnp.arange(c.octaves)
        shared = jnp.broadcast_to(nn.relu(feature)[:, None], (*x.shape[:2], feature.shape[-1]))
        condition = jnp.concatenate([shared, jnp.sin(angles), jnp.cos(angles)], axis=-1)
        h = nn.Dense(c.width, name="in")(jnp.concatenate([x, condition], axis=-1))
        for i in range(c.blocks):
            h = Residual(c.width, name=f"block_{i}")(h, condition)
        h = nn.relu(nn.LayerNorm(name="norm")(h))
        return nn.Dense(NUMBERS, name="out", kernel_init=nn.initializers.zeros)(h)
