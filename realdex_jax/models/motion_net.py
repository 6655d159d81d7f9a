"""MotionNet: the next ten poses of a reach (RealDex, section 4.3, Eq. 1-3).

Joint positions with sinusoidal encoding pass through self-attention; with the seen poses, the
hand's points, their movement, the feature of the target hand and the displacement to it they enter
a trunk whose layers are mixtures of experts. The gate sees the phase of the motion: how much has
passed, how far the goal is, how fast the hand moves (after Starke et al. 2019; the paper leaves the
phase signal open). The answer is the change of pose for each of the next ten frames, by default
beside the straight way to the goal, so that errors fade as the motion goes on.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from realdex_jax.data.windows import FUTURE
from realdex_jax.errors import ConfigError
from realdex_jax.models.motion_features import KEYPOINTS, POSE_NUMBERS, Features


@dataclasses.dataclass(frozen=True)
class MotionNetConfig:
    """Layer widths."""

    token: int = 32
    """Width of a joint in the self-attention."""
    heads: int = 4
    """Heads of the self-attention."""
    frequencies: int = 4
    """Octaves of the sinusoidal encoding."""
    joint_feature: int = 128
    """Width of what the self-attention hands on."""
    goal_feature: int = 128
    """Width of the target hand's feature."""
    experts: int = 4
    """Experts of the mixture."""
    width: int = 256
    """Width of the trunk."""
    gate: int = 32
    """Width of the gating network."""
    octaves: int = 6
    """Octaves of sines and cosines of the time: a reach gathers speed within a few frames."""
    timed: bool = True
    """Whether the share of the motion's frames that has passed is an input."""
    toward: bool = True
    """Whether answers add to the straight way to the goal (needs `timed`), or to the present pose.
    """
    aware: bool = False
    """Whether the distances of hand points to object and table are an input."""
    ways: int = 1
    """Manners of coming to a goal that the model tells apart (`data.ways`). With several, a motion
    is made in each, and the most usual one that is free of object and table is taken."""

    def __post_init__(self) -> None:
        """Checks that the settings go together.

        Raises:
            ConfigError: The way to the goal is asked for, but not the time that is left for it; or
                no way at all is known.
        """
        if self.ways < 1:
            raise ConfigError(f"ways={self.ways}; a model knows at least one way")
        if self.toward and not self.timed:
            raise ConfigError("toward=True needs timed=True: the way takes the time that is left")


@dataclasses.dataclass(frozen=True, eq=False)
class MotionNet:
    """The network as functions of its parameters."""

    init: Callable[[PRNGKeyArray, Features], Any]
    """(key, features of any windows) -> parameters."""
    apply: Callable[[Any, Features], Float[Array, "b 10 31"]]
    """(parameters, features) -> raw changes of pose, for `motion_features.poses_of` or, with
    `toward`, `poses_toward`."""


def motion_net(config: MotionNetConfig) -> MotionNet:
    """Makes the network's functions."""
    module = _Module(config)

    def init(key: PRNGKeyArray, features: Features) -> Any:
        return dict(module.init(key, features))

    def apply(params: Any, features: Features) -> Array:
        return jnp.asarray(module.apply(params, features))

    return MotionNet(init=init, apply=apply)


def sinusoidal(x: Float[Array, "*b c"], frequencies: int) -> Float[Array, "*b f"]:
    """The numbers, and sine and cosine of them at octaves."""
    octaves = 2.0 ** jnp.arange(frequencies)
    angles = (x[..., None] * octaves).reshape(*x.shape[:-1], -1)
    return jnp.concatenate([x, jnp.sin(angles), jnp.cos(angles)], axis=-1)


class _Module(nn.Module):
    config: MotionNetConfig

    @nn.compact
    def __call__(self, x: Features) -> Float[Array, "b 10 31"]:
        c = self.config
        batch = x.phase.shape[0]
        displacement = x.goal_points - x.points
        # Joints as tokens, each with its place in all seen frames.
        tokens = jnp.swapaxes(x.keypoints, 1, 2).reshape(batch, KEYPOINTS, -1)
        tokens = nn.Dense(c.token, name="token")(sinusoidal(tokens, c.frequencies))
        place = self.param("place", nn.initializers.normal(0.02), (KEYPOINTS, c.token))
        tokens = tokens + place
        attention = nn.MultiHeadDotProductAttention(num_heads=c.heads, name="attention")
        tokens = tokens + attention(nn.LayerNorm(name="norm_token")(tokens))
        flat = nn.LayerNorm(name="norm_joint")(tokens).reshape(batch, -1)
        joint_feature = nn.elu(nn.Dense(c.joint_feature, name="joint")(flat))
        # The target hand: a shared network per point, then the maximum.
        target = nn.elu(nn.Dense(64, name="target_0")(x.goal_points))
        target = nn.Dense(c.goal_feature, name="target_1")(target).max(axis=1)
        time = jnp.concatenate([sinusoidal(jnp.pi * x.phase[:, :1], c.octaves), x.phase[:, 1:]], -1)

        def flatten(a: Array) -> Array:
            return a.reshape(batch, -1)

        parts = [joint_feature, target, flatten(x.poses), flatten(x.points), flatten(x.velocity)]
        parts += [flatten(displacement), x.goal, x.up]
        if c.aware:
            parts.append(x.clearance)
        # How far and how fast, beside the time: what phase the reach is in.
        distance = jnp.sqrt((displacement**2).sum(-1) + 1e-6).mean(-1, keepdims=True)
        speed = jnp.sqrt((x.velocity**2).sum(-1) + 1e-6).mean(-1, keepdims=True)
        joint_gap = jnp.abs(x.goal - x.poses[:, -1])[:, 9:].mean(-1, keepdims=True)
        gates = [distance, speed, joint_gap]
        if c.timed:
            parts.append(time)
            gates.append(time)
        if c.ways > 1:
            way = jax.nn.one_hot(x.way, c.ways)
            parts.append(way)
            gates.append(way)
        gate = nn.elu(nn.Dense(c.gate, name="gate_0")(jnp.concatenate(gates, axis=-1)))
        share = nn.softmax(nn.Dense(c.experts, name="gate_1")(gate))
        h = jnp.concatenate(parts, axis=-1)
        h = nn.elu(_Experts(c.experts, c.width, name="experts_0")(h, share))
        h = h + nn.elu(_Experts(c.experts, c.width, name="experts_1")(h, share))
        h = h + nn.elu(_Experts(c.experts, c.width, name="experts_2")(h, share))
        out = _Experts(c.experts, FUTURE * POSE_NUMBERS, small=True, name="out")(h, share)
        return out.reshape(batch, FUTURE, POSE_NUMBERS)


class _Experts(nn.Module):
    """A dense layer whose weights are blended per sample."""

    experts: int
    width: int
    small: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "b i"], share: Float[Array, "b k"]) -> Float[Array, "b o"]:
        start = (
            nn.initializers.normal(0.01) if self.small else nn.initializers.lecun_normal(1, 2, 0)
        )
        kernel = self.param("kernel", start, (self.experts, x.shape[-1], self.width))
        bias = self.param("bias", nn.initializers.zeros, (self.experts, self.width))
        # Every expert's answer, then the blend: the same sum as blending the weights, in one
        # product.
        each = jax.lax.dot_general(x, kernel, (((1,), (1,)), ((), ())))
        return jnp.einsum("bk,bko->bo", share, each) + share @ bias
