"""GOAL's MNet for a hand: the next ten poses of a reach (Taheri et al. 2022, section 3.3).

The baseline of RealDex's Table 4, ported from the body to the hand pose after its released code:
input norm, four residual blocks with dropout between, and heads for pose changes, offsets of
surface points, and movement of the keypoints toward the goal. Surface points of the hand stand for
the body's vertices, the keypoints for the right hand's, and the goal hand's points for its basis
point set. Layer norms replace batch norms, whose running statistics would be state beside the
parameters and differ between training and use. GOAL's frame is upright; ours is the palm's, so the
world's up is an input. GOAL is told of no phase, and so is this.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from realdex_jax import pytree
from realdex_jax.data.windows import FUTURE
from realdex_jax.models.motion_features import (
    HAND_POINTS,
    KEYPOINTS,
    LENGTH,
    POSE_NUMBERS,
    Features,
)

SEEN = 5
"""Poses that it sees, the present one included."""
CENTIMETRE = 0.01
"""Metres that one number of the heads for points and keypoints stands for."""
_SLOPE = 0.2


@dataclasses.dataclass(frozen=True)
class GoalConfig:
    """Layer widths: a quarter of the original's, whose input is nine times as large."""

    widths: tuple[int, ...] = (512, 256, 256, 512)
    """Widths of the residual blocks; the second also sees the input."""
    hidden: int = 128
    """Width inside a block."""
    dropout: float = 0.3
    """Share of numbers dropped between blocks in training."""
    near: float = 5.0
    """A keypoint at a distance d (m) from its goal enters as exp(-near d)."""


@pytree.dataclass
class GoalAnswer:
    """What all heads say about the next ten frames."""

    poses: Float[Array, "b 10 31"]
    """Raw changes of pose, for `motion_features.poses_of`."""
    offsets: Float[Array, "b 10 64 3"]
    """Movement of the surface points from the present, centimetres, present palm frame."""
    nearing: Float[Array, "b 10 27 3"]
    """Change of the keypoints' displacement from the goal, in the same unit and frame."""


@dataclasses.dataclass(frozen=True, eq=False)
class Goal:
    """The network as functions of its parameters."""

    init: Callable[[PRNGKeyArray, Features], Any]
    """(key, features of any windows) -> parameters."""
    apply: Callable[[Any, Features], Float[Array, "b 10 31"]]
    """(parameters, features) -> raw changes of pose; nothing is dropped."""
    answer: Callable[[Any, Features, PRNGKeyArray], GoalAnswer]
    """(parameters, features, key of the dropout) -> the answer of all heads, for training."""


def goal(config: GoalConfig) -> Goal:
    """Makes the network's functions."""
    module, trained = _Module(config), _Module(config, training=True)

    def init(key: PRNGKeyArray, features: Features) -> Any:
        return dict(module.init(key, features))

    def apply(params: Any, features: Features) -> Array:
        return _answer(module.apply(params, features)).poses

    def answer(params: Any, features: Features, key: PRNGKeyArray) -> GoalAnswer:
        return _answer(trained.apply(params, features, rngs={"dropout": key}))

    return Goal(init=init, apply=apply, answer=answer)


def _answer(heads: Any) -> GoalAnswer:
    poses, offsets, nearing = heads
    return GoalAnswer(poses=poses, offsets=offsets, nearing=nearing)


class _Module(nn.Module):
    config: GoalConfig
    training: bool = False

    @nn.compact
    def __call__(
        self, x: Features
    ) -> tuple[Float[Array, "b 10 31"], Float[Array, "b 10 64 3"], Float[Array, "b 10 27 3"]]:
        c = self.config
        batch = x.points.shape[0]
        # From the goal to the hand, as in the original.
        gap = x.keypoints[:, -1] - x.goal_keypoints
        distance = jnp.sqrt((gap**2).sum(-1) + 1e-8) / LENGTH
        parts = [x.poses[:, -SEEN:], x.velocity, jnp.exp(-c.near * distance), x.points, gap]
        parts += [x.goal_points, x.up]
        x0 = jnp.concatenate([part.reshape(batch, -1) for part in parts], axis=-1)
        x0 = nn.LayerNorm(name="norm")(x0)
        h = _Block(c.hidden, c.widths[0], name="block_0")(x0)
        for i, width in enumerate(c.widths[1:], start=1):
            h = nn.Dropout(c.dropout, deterministic=not self.training)(h)
            h = jnp.concatenate([x0, h], axis=-1) if i == 1 else h
            h = _Block(c.hidden, width, name=f"block_{i}")(h)

        def head(name: str, *shape: int) -> Array:
            # Small at first: the hand rests.
            start = nn.initializers.normal(0.01)
            size = FUTURE
            for n in shape:
                size *= n
            out = nn.Dense(size, kernel_init=start, name=name)(h)
            return out.reshape(batch, FUTURE, *shape)

        return (
            head("poses", POSE_NUMBERS),
            head("offsets", HAND_POINTS, 3),
            head("nearing", KEYPOINTS, 3),
        )


class _Block(nn.Module):
    """Two normalised layers beside a way around them."""

    hidden: int
    width: int

    @nn.compact
    def __call__(self, x: Float[Array, "b i"]) -> Float[Array, "b o"]:
        around = x
        if x.shape[-1] != self.width:
            around = nn.leaky_relu(nn.Dense(self.width, name="around")(x), _SLOPE)
        h = nn.LayerNorm(name="norm_0")(nn.Dense(self.hidden, name="dense_0")(x))
        h = nn.Dense(self.width, name="dense_1")(nn.leaky_relu(h, _SLOPE))
        return nn.leaky_relu(around + nn.LayerNorm(name="norm_1")(h), _SLOPE)
