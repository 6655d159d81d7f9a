"""The contact-map network: which parts of the object the hand means to touch.

RealDex, section 4.1; sizes from the release: two PointNets, their global features summed and
joined with each object point's local feature, ten equal bins of contact value per point.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from realdex_jax.losses.contact import BINS
from realdex_jax.models.pointnet import PointNet

Params = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class ContactNetConfig:
    """Layer widths."""

    object_encoder: tuple[int, ...] = (64, 128, 256)
    """Widths of the object's PointNet."""
    hand_encoder: tuple[int, ...] = (32, 64, 256)
    """Its last width must equal the object encoder's: the two global features are summed."""
    head: tuple[int, ...] = (64, 32)
    """Widths behind both encoders."""


@dataclasses.dataclass(frozen=True, eq=False)
class ContactNet:
    """The network as functions of its parameters."""

    init: Callable[[PRNGKeyArray, Float[Array, "b n 3"], Float[Array, "b k m 3"]], Params]
    """(key, points, hand points) -> parameters."""
    apply: Callable[[Params, Float[Array, "b n 3"], Float[Array, "b k m 3"]], Array]
    """(parameters, points (b n 3) m, points of k hands (b k m 3) m) -> logits (b k n 10)."""


def contact_net(config: ContactNetConfig) -> ContactNet:
    """Makes the network's functions."""
    module = _Module(config)

    def init(key: PRNGKeyArray, points: Array, hand_points: Array) -> Params:
        return dict(module.init(key, points, hand_points))

    def apply(params: Params, points: Array, hand_points: Array) -> Array:
        return jnp.asarray(module.apply(params, points, hand_points))

    return ContactNet(init=init, apply=apply)


class _Module(nn.Module):
    config: ContactNetConfig

    @nn.compact
    def __call__(
        self, points: Float[Array, "b n 3"], hand_points: Float[Array, "b k m 3"]
    ) -> Float[Array, "b k n 10"]:
        c = self.config
        whole, local = PointNet(c.object_encoder, name="object")(points)
        hand, _ = PointNet(c.hand_encoder, name="hand")(hand_points)
        both = nn.relu(whole[:, None, :] + hand)
        # A dense layer on [local, global] equals the sum of two; apart, the wide parts are not
        # repeated k n times.
        x = nn.Dense(c.head[0], name="local")(nn.relu(local))[:, None, :, :]
        x = x + nn.Dense(c.head[0], use_bias=False, name="global")(both)[:, :, None, :]
        for i, width in enumerate(c.head[1:]):
            x = nn.Dense(width, name=f"dense_{i}")(nn.relu(x))
        return nn.Dense(BINS, name="logits")(nn.relu(x))
