"""UniDexGrasp's generator: a distribution of rotations, then a normalising flow of the rest.

After Xu et al. 2023 (GraspIPDF and GraspGlow; facts in the project's reference, section 3.1). The
orientation is drawn from an implicit density over rotations (Murphy et al. 2021); the cloud is
turned into the drawn hand's frame, and a flow of 25 numbers, palm position and joints, is drawn on
it. Differences: our PointNet encodes both clouds, where the release has PointNet++ for the
rotations; layer instead of batch normalisation; rotations of the grid by super-Fibonacci spirals.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import jaxlie
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray
from scipy.spatial.transform import Rotation

from realdex_jax.models import cvae
from realdex_jax.models.cvae import Decoded, Statistics
from realdex_jax.models.pointnet import PointNet

NUMBERS = 25
"""3 translation, 22 joints."""


@dataclasses.dataclass(frozen=True)
class FlowConfig:
    """Layer widths."""

    object_encoder: tuple[int, ...] = (64, 128, 256)
    """Widths of the two PointNets."""
    density: int = 256
    """Width of the density over rotations."""
    layers: int = 21
    """Layers of the flow."""
    coupling: int = 64
    """Width of a layer's coupling network."""
    grid: int = 4608
    """Rotations among which one is drawn."""
    draws: int = 8
    """Draws of the flow, of which the most likely is kept."""


@dataclasses.dataclass(frozen=True, eq=False)
class Flow:
    """The networks as functions of their parameters."""

    init: Callable[[PRNGKeyArray, Float[Array, "b n 3"]], Any]
    """(key, points) -> parameters."""
    rotation_logits: Callable[
        [Any, Float[Array, "b n 3"], Float[Array, "b r 3 3"]], Float[Array, "b r"]
    ]
    """(parameters, points, orientations of the hand) -> log density up to a constant."""
    log_likelihood: Callable[
        [Any, Float[Array, "b k n 3"], Float[Array, "b k 25"]], Float[Array, "b k"]
    ]
    """(parameters, points in the hands' orientation, numbers) -> log density."""
    draw: Callable[[Any, Float[Array, "b k n 3"], Float[Array, "b k 25"]], Float[Array, "b k 25"]]
    """(parameters, points in the hands' orientation, standard normal numbers) -> numbers."""


def flow(config: FlowConfig) -> Flow:
    """Makes the networks' functions."""
    module = _Module(config)

    def init(key: PRNGKeyArray, points: Array) -> Any:
        return dict(module.init(key, points))

    def rotation_logits(params: Any, points: Array, R: Array) -> Array:
        return jnp.asarray(module.apply(params, points, R, method="rotation_logits"))

    def log_likelihood(params: Any, points: Array, x: Array) -> Array:
        return jnp.asarray(module.apply(params, points, x, method="log_likelihood"))

    def draw(params: Any, points: Array, z: Array) -> Array:
        return jnp.asarray(module.apply(params, points, z, method="draw"))

    return Flow(init, rotation_logits, log_likelihood, draw)


def sample(
    config: FlowConfig,
    params: Any,
    points: Float[Array, "b n 3"],
    key: PRNGKeyArray,
    count: int,
    statistics: Statistics,
    temperature: Float[Array, ""],
) -> Decoded:
    """Draws poses (b k).

    Args:
        config: Sizes.
        params: Parameters.
        points: Centred clouds, metres.
        key: Randomness.
        count: Number of poses of each cloud.
        statistics: Spread of palm positions.
        temperature: Size of the flow's noise; 1 is the trained prior.
    """
    net = flow(config)
    key_grid, key_rotation, key_flow = jax.random.split(key, 3)
    b = len(points)
    # The grid is turned at random, so that no rotation is out of reach.
    turn = jaxlie.SO3.sample_uniform(key_grid).as_matrix()
    R_grid = jnp.asarray(spiral(config.grid)) @ turn
    logits = net.rotation_logits(params, points, jnp.broadcast_to(R_grid, (b, *R_grid.shape)))
    chosen = jax.random.categorical(key_rotation, logits, axis=-1, shape=(count, b)).T
    R = R_grid[chosen]
    noise = temperature * jax.random.normal(key_flow, (b, count, config.draws, NUMBERS))
    # The flow's volume does not depend on the numbers: the most likely draw is the nearest to zero.
    best = (noise**2).sum(-1).argmin(-1)
    z = jnp.take_along_axis(noise, best[..., None, None], axis=2)[:, :, 0]
    return to_pose(net.draw(params, turned(points, R), z), R, statistics)


def turned(points: Float[Array, "b n 3"], R: Float[Array, "b k 3 3"]) -> Float[Array, "b k n 3"]:
    """Clouds in frames of the hands' orientations, their origin left where it is."""
    return jnp.einsum("bkji,bnj->bkni", R, points)


def from_pose(given: Decoded, statistics: Statistics) -> Float[Array, "*b 25"]:
    """Palm position in the hand's orientation, and joints, as numbers of order one."""
    t_hand = jnp.einsum("...ji,...j->...i", given.R, given.t)
    return jnp.concatenate([t_hand / statistics.t_std, cvae.joint_numbers(given.q)], axis=-1)


def to_pose(x: Float[Array, "*b 25"], R: Float[Array, "*b 3 3"], statistics: Statistics) -> Decoded:
    """`from_pose` undone; joints keep their limits."""
    t = jnp.einsum("...ij,...j->...i", R, x[..., :3] * statistics.t_std)
    return Decoded(q=cvae.nearest_joints(x[..., 3:]), t=t, R=R)


def spiral(count: int) -> Float[np.ndarray, "r 3 3"]:
    """Rotations spread evenly by super-Fibonacci spirals (Alexa 2022)."""
    s = np.arange(count) + 0.5
    share = s / count
    alpha = 2.0 * np.pi * s / np.sqrt(2.0)
    beta = 2.0 * np.pi * s / 1.533751168755204288118041
    outer, inner = np.sqrt(share), np.sqrt(1.0 - share)
    xyzw = np.stack(
        [
            *(outer * np.sin(alpha), outer * np.cos(alpha)),
            *(inner * np.sin(beta), inner * np.cos(beta)),
        ],
        axis=-1,
    )
    return Rotation.from_quat(xyzw).as_matrix().astype(np.float32)


class _Module(nn.Module):
    config: FlowConfig

    def setup(self) -> None:
        c = self.config
        self.object = PointNet(c.object_encoder)
        self.canonical = PointNet(c.object_encoder)
        self.from_feature = nn.Dense(c.density)
        self.from_rotation = nn.Dense(c.density)
        self.density = [nn.Dense(c.density) for _ in range(2)]
        self.logit = nn.Dense(1)
        self.layers = [_Layer(c.coupling, i % 2) for i in range(c.layers)]

    def __call__(self, points: Float[Array, "b n 3"]) -> tuple[Array, Array]:
        """Touches every parameter, for `init`."""
        b = len(points)
        R = jnp.broadcast_to(jnp.eye(3), (b, 1, 3, 3))
        x = jnp.zeros((b, 1, NUMBERS))
        return self.rotation_logits(points, R), self.log_likelihood(points[:, None], x)

    def rotation_logits(self, points: Array, R: Array) -> Array:
        feature, _ = self.object(points)
        flat = jnp.pi * R.reshape(*R.shape[:2], 9)
        query = jnp.concatenate([jnp.sin(flat), jnp.cos(flat)], axis=-1)
        h = nn.relu(self.from_feature(feature)[:, None] + self.from_rotation(query))
        for layer in self.density:
            h = nn.relu(layer(h))
        return self.logit(h)[..., 0]

    def log_likelihood(self, points: Array, x: Array) -> Array:
        context, _ = self.canonical(points)
        volume = jnp.zeros(())
        for layer in self.layers:
            x, more = layer(x, context)
            volume = volume + more
        return -0.5 * (x**2 + jnp.log(2.0 * jnp.pi)).sum(-1) + volume

    def draw(self, points: Array, z: Array) -> Array:
        context, _ = self.canonical(points)
        for layer in reversed(self.layers):
            z = layer.inverse(z, context)
        return z


class _Layer(nn.Module):
    """Scale and shift, a mixing matrix by its factors, and an additive coupling."""

    width: int
    parity: int

    def setup(self) -> None:
        zeros, small = nn.initializers.zeros, nn.initializers.normal(0.01)
        self.log_scale = self.param("log_scale", zeros, (NUMBERS,))
        self.shift = self.param("shift", zeros, (NUMBERS,))
        self.lower = self.param("lower", small, (NUMBERS, NUMBERS))
        self.upper = self.param("upper", small, (NUMBERS, NUMBERS))
        self.log_diagonal = self.param("log_diagonal", zeros, (NUMBERS,))
        self.coupling = _Coupling(self.width)

    def __call__(self, x: Array, context: Array) -> tuple[Array, Array]:
        """Toward the normal numbers; also the logarithm of the change of volume."""
        x = (x + self.shift) * jnp.exp(self.log_scale)
        lower, upper = self._factors()
        x = (x @ upper.T) @ lower.T
        keep = self._keep()
        x = x + (1.0 - keep) * self.coupling(x * keep, context)
        return x, (self.log_scale + self.log_diagonal).sum()

    def inverse(self, x: Array, context: Array) -> Array:
        keep = self._keep()
        x = x - (1.0 - keep) * self.coupling(x * keep, context)
        lower, upper = self._factors()
        columns = jnp.moveaxis(x, -1, 0).reshape(NUMBERS, -1)
        columns = jax.scipy.linalg.solve_triangular(lower, columns, lower=True)
        columns = jax.scipy.linalg.solve_triangular(upper, columns)
        x = jnp.moveaxis(columns.reshape(NUMBERS, *x.shape[:-1]), 0, -1)
        return x * jnp.exp(-self.log_scale) - self.shift

    def _factors(self) -> tuple[Array, Array]:
        lower = jnp.tril(self.lower, -1) + jnp.eye(NUMBERS)
        return lower, jnp.triu(self.upper, 1) + jnp.diag(jnp.exp(self.log_diagonal))

    def _keep(self) -> np.ndarray:
        return (np.arange(NUMBERS) % 2 == self.parity).astype(np.float32)


class _Coupling(nn.Module):
    """A residual network that sees the context in every block."""

    width: int

    @nn.compact
    def __call__(self, x: Array, context: Array) -> Float[Array, "*b 25"]:
        h = nn.Dense(self.width, name="in")(jnp.concatenate([x, context], axis=-1))
        for i in range(2):
            y = nn.Dense(self.width, name=f"block_{i}_0")(nn.relu(h))
            y = y + nn.Dense(self.width, name=f"block_{i}_context")(context)
            h = h + nn.Dense(self.width, name=f"block_{i}_1")(nn.relu(y))
        return nn.Dense(NUMBERS, name="out", kernel_init=nn.initializers.zeros)(nn.relu(h))
