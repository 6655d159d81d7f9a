"""Grasps by conditional flow matching: noise flows to poses along learnt, nearly straight lines.

Lipman et al. 2023, with the straight paths of rectified flow (Liu et al. 2023), in two flows. The
first makes the place of the palm, 9 numbers with a rotation as two columns of its matrix, so that
nothing jumps at half turns. The second sees the cloud from that palm and makes the hold, 28
numbers: 22 joints, and a correction of the place. It learns on places moved at random, so it brings
back a palm that the first flow set a little wrong. A few steps of each suffice.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import jaxlie
from jaxtyping import Array, Float, PRNGKeyArray

from realdex_jax import pose
from realdex_jax.models import cvae
from realdex_jax.models.cvae import Decoded, Statistics
from realdex_jax.models.pointnet import PointNet, Residual

PLACE = 9
"""3 translation, 6 rotation."""
HOLD = 28
"""22 joints, and translation and rotation vector from the given to the right palm."""
_SEEN_AT_ONCE = 256
"""Palms of each cloud whose view is encoded together: one takes 1.6 MB meanwhile."""


@dataclasses.dataclass(frozen=True)
class MatchingConfig:
    """Layer widths, and how poses are drawn."""

    object_encoder: tuple[int, ...] = (64, 128, 256)
    """Widths of the two PointNets: of the object, and of the object seen from a palm."""
    width: int = 256
    """Width of the velocities' networks."""
    blocks: int = 4
    """Residual blocks of each."""
    octaves: int = 6
    """Octaves of sines and cosines of the time."""
    steps: int = 8
    """Midpoint steps of each flow; two looks at the network each."""
    rounds: int = 2
    """Times the second flow is run, each time from the palm as corrected."""
    noise: tuple[float, float] = (0.7, 0.7)
    """Sizes of the noise that places and holds are drawn from; 1 is what was learnt, less gives
    more usual poses. Chosen on validation objects."""
    moved: tuple[float, float] = (0.015, 0.2)
    """Standard deviations (m, rad) by which palms are moved for the second flow to bring back."""


@dataclasses.dataclass(frozen=True, eq=False)
class Matching:
    """The networks as functions of their parameters."""

    init: Callable[[PRNGKeyArray, Float[Array, "b n 3"]], Any]
    """(key, points) -> parameters."""
    encode: Callable[[Any, Float[Array, "b n 3"]], Float[Array, "b f"]]
    """(parameters, points) -> feature of the object."""
    place: Callable[
        [Any, Float[Array, "b f"], Float[Array, "b k 9"], Float[Array, "b k"]],
        Float[Array, "b k 9"],
    ]
    """(parameters, feature, numbers, time in [0, 1]) -> velocity of a place's numbers."""
    encode_seen: Callable[[Any, Float[Array, "b k n 3"]], Float[Array, "b k f"]]
    """(parameters, points in palm frames) -> features of what the palms see."""
    hold: Callable[
        [Any, Float[Array, "b k f"], Float[Array, "b k 28"], Float[Array, "b k"]],
        Float[Array, "b k 28"],
    ]
    """(parameters, features, numbers, time) -> velocity of a hold's numbers."""


def matching(config: MatchingConfig) -> Matching:
    """Makes the networks' functions."""
    module = _Module(config)

    def init(key: PRNGKeyArray, points: Array) -> Any:
        return dict(module.init(key, points))

    def bound(method: str) -> Callable[..., Array]:
        return lambda params, *given: jnp.asarray(module.apply(params, *given, method=method))

    return Matching(init, *map(bound, ("encode", "place", "encode_seen", "hold")))


def sample(
    config: MatchingConfig,
    params: Any,
    points: Float[Array, "b n 3"],
    key: PRNGKeyArray,
    count: int,
    statistics: Statistics,
    temperature: Float[Array, ""],
) -> Decoded:
    """Draws poses (b k).

    Args:
        config: Sizes and steps.
        params: Parameters.
        points: Centred clouds, metres.
        key: Randomness.
        count: Number of poses of each cloud.
        statistics: Spread of palm positions.
        temperature: Size of the noise over `config.noise`.
    """
    net = matching(config)
    b = len(points)
    keys = jax.random.split(key, 1 + config.rounds)

    def encoded(palm: tuple[Float[Array, "b 3 3"], Float[Array, "b 3"]]) -> Float[Array, "b f"]:
        R, t = palm
        return net.encode_seen(params, seen_from(points, R[:, None], t[:, None]))[:, 0]

    noise = config.noise[0] * temperature * jax.random.normal(keys[0], (b, count, PLACE))
    feature = net.encode(params, points)
    R, t = to_place(
        _flown(config, lambda x, time: net.place(params, feature, x, time), noise), statistics
    )
    q = jnp.zeros((b, count, pose.JOINTS))
    for key_round in keys[1:]:
        noise = config.noise[1] * temperature * jax.random.normal(key_round, (b, count, HOLD))
        seen = jax.lax.map(encoded, (R.swapaxes(0, 1), t.swapaxes(0, 1)), batch_size=_SEEN_AT_ONCE)
        seen = seen.swapaxes(0, 1)
        x = _flown(config, lambda x, time, seen=seen: net.hold(params, seen, x, time), noise)
        q, R, t = to_hold(x, R, t, config)
    return Decoded(q=q, t=t, R=R)


def seen_from(
    points: Float[Array, "b n 3"], R: Float[Array, "b k 3 3"], t: Float[Array, "b k 3"]
) -> Float[Array, "b k n 3"]:
    """Clouds in the frames of palms."""
    return jnp.einsum("bkji,bknj->bkni", R, points[:, None] - t[:, :, None])


def from_place(
    R: Float[Array, "*b 3 3"], t: Float[Array, "*b 3"], statistics: Statistics
) -> Float[Array, "*b 9"]:
    """A palm's place as numbers of order one."""
    columns = jnp.swapaxes(R[..., :2], -1, -2).reshape(*R.shape[:-2], 6)
    return jnp.concatenate([(t - statistics.t_mean) / statistics.t_std, columns], axis=-1)


def to_place(
    x: Float[Array, "*b 9"], statistics: Statistics
) -> tuple[Float[Array, "*b 3 3"], Float[Array, "*b 3"]]:
    """`from_place` undone; columns that are no rotation's give the nearest by Gram-Schmidt."""
    # The cVAE answers columns beside those of no rotation; these are the columns themselves.
    beside = x[..., 3:] - jnp.eye(3)[:, :2].T.reshape(6)
    return pose.rotation_from_columns(beside), x[..., :3] * statistics.t_std + statistics.t_mean


def from_hold(
    given: Decoded,
    R: Float[Array, "*b 3 3"],
    t: Float[Array, "*b 3"],
    config: MatchingConfig,
) -> Float[Array, "*b 28"]:
    """The hold that turns palms at R and t into given poses, as numbers of order one."""
    shift = jnp.einsum("...ji,...j->...i", R, given.t - t) / config.moved[0]
    turn = jaxlie.SO3.from_matrix(jnp.swapaxes(R, -1, -2) @ given.R).log() / config.moved[1]
    return jnp.concatenate([cvae.joint_numbers(given.q), shift, turn], axis=-1)


def to_hold(
    x: Float[Array, "*b 28"],
    R: Float[Array, "*b 3 3"],
    t: Float[Array, "*b 3"],
    config: MatchingConfig,
) -> tuple[Float[Array, "*b 22"], Float[Array, "*b 3 3"], Float[Array, "*b 3"]]:
    """`from_hold` undone: joints within limits, and the corrected palms."""
    shift, turn = x[..., 22:25] * config.moved[0], x[..., 25:28] * config.moved[1]
    return (
        cvae.nearest_joints(x[..., :22]),
        R @ jaxlie.SO3.exp(turn).as_matrix(),
        t + jnp.einsum("...ij,...j->...i", R, shift),
    )


def _flown(
    config: MatchingConfig,
    velocity: Callable[[Float[Array, "b k d"], Float[Array, "b k"]], Float[Array, "b k d"]],
    x: Float[Array, "b k d"],
) -> Float[Array, "b k d"]:
    """Where the flow carries noise from time 0 to 1."""
    length = 1.0 / config.steps

    def step(x: Array, i: Array) -> tuple[Array, None]:
        time = jnp.broadcast_to(i * length, x.shape[:-1])
        half = x + 0.5 * length * velocity(x, time)
        return x + length * velocity(half, time + 0.5 * length), None

    x, _ = jax.lax.scan(step, x, jnp.arange(config.steps, dtype=jnp.float32))
    return x


class _Module(nn.Module):
    config: MatchingConfig

    def setup(self) -> None:
        self.object = PointNet(self.config.object_encoder)
        self.seen = PointNet(self.config.object_encoder)
        self.to_place = _Velocity(self.config, PLACE)
        self.to_hold = _Velocity(self.config, HOLD)

    def __call__(self, points: Float[Array, "b n 3"]) -> tuple[Array, Array]:
        """Touches every parameter, for `init`."""
        time = jnp.zeros((len(points), 1))
        place = self.place(self.encode(points), jnp.zeros((*time.shape, PLACE)), time)
        seen = self.encode_seen(points[:, None])
        return place, self.hold(seen, jnp.zeros((*time.shape, HOLD)), time)

    def encode(self, points: Float[Array, "b n 3"]) -> Float[Array, "b f"]:
        return self.object(points)[0]

    def encode_seen(self, points: Float[Array, "b k n 3"]) -> Float[Array, "b k f"]:
        return self.seen(points)[0]

    def place(
        self, feature: Float[Array, "b f"], x: Float[Array, "b k 9"], time: Float[Array, "b k"]
    ) -> Float[Array, "b k 9"]:
        shared = jnp.broadcast_to(feature[:, None], (*time.shape, feature.shape[-1]))
        return self.to_place(shared, x, time)

    def hold(
        self, seen: Float[Array, "b k f"], x: Float[Array, "b k 28"], time: Float[Array, "b k"]
    ) -> Float[Array, "b k 28"]:
        return self.to_hold(seen, x, time)


class _Velocity(nn.Module):
    config: MatchingConfig
    numbers: int

    @nn.compact
    def __call__(
        self, feature: Float[Array, "b k f"], x: Float[Array, "b k d"], time: Float[Array, "b k"]
    ) -> Float[Array, "b k d"]:
        c = self.config
        angles = jnp.pi * time[..., None] * 2.0 ** jnp.arange(c.octaves)
        condition = jnp.concatenate([nn.relu(feature), jnp.sin(angles), jnp.cos(angles)], axis=-1)
        h = nn.Dense(c.width, name="in")(jnp.concatenate([x, condition], axis=-1))
        for i in range(c.blocks):
            h = Residual(c.width, name=f"block_{i}")(h, condition)
        h = nn.relu(nn.LayerNorm(name="norm")(h))
        return nn.Dense(self.numbers, name="out", kernel_init=nn.initializers.zeros)(h)
