"""SAGA's motion infilling for a hand: a whole reach at once (Wu et al. 2022, section 3.3).

The baseline of RealDex's Table 4, ported from the body to the hand pose after its released code.
TrajFill, a cVAE of dense layers, says how the palm's way departs from the straight one between
start and goal. LocalMotionFill, a convolutional cVAE, sees an image of joints x time whose channels
are the joints, interpolated between start and goal, and the palm's movement; it says how the joints
depart from that. The time of a motion is stretched to a fixed number of instants, and the number of
frames is a condition. All is in the goal's palm frame. What the networks answer is taken less the
straight line between its own ends, so that start and goal are met exactly; the original fits them
in an optimisation afterwards.

Sizes are a fraction of the original's; layer norms replace batch norms, as in `models.goal`;
pooling takes the largest of four, and the decoder repeats and convolves instead of transposed
convolutions, for the CPU's sake. The original's contact labels concern feet and are left out.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import jaxlie
from jaxtyping import Array, Float, Int, PRNGKeyArray

from realdex_jax import pose, pytree
from realdex_jax.hand import joints
from realdex_jax.models.motion_features import HALF_RANGE, LENGTH, numbers

CONDITION = 57
"""Numbers of what is known: start pose 31, joints of the goal 22, up 3, frames 1."""
_SPEED = 100.0  # a centimetre per instant is one
_TURN = 30.0
_FRAMES = 0.01
_SLOPE = 0.2


@dataclasses.dataclass(frozen=True)
class SagaConfig:
    """Layer widths."""

    instants: int = 64
    """Instants of a motion, whatever its length."""
    palm_width: int = 256
    """Width of TrajFill's blocks."""
    palm_latent: int = 64
    """Size of TrajFill's latent vector."""
    channels: tuple[int, ...] = (8, 16, 32)
    """Channels of LocalMotionFill's blocks; each halves joints and time."""
    joint_latent: int = 64
    """Size of LocalMotionFill's latent vector."""


@pytree.dataclass
class Ends:
    """What is known of b motions."""

    start: Float[Array, "b 28"]
    """First poses, in the world."""
    goal: Float[Array, "b 28"]
    """Last poses."""
    frames: Int[Array, " b"]
    """Frames from one to the other, both included."""


@pytree.dataclass
class Latents:
    """What a motion's ends leave open."""

    palm: Float[Array, "b z"]
    joints: Float[Array, "b y"]


@pytree.dataclass
class Posterior:
    """A normal distribution of a latent vector."""

    mean: Float[Array, "b z"]
    log_variance: Float[Array, "b z"]

    def sample(self, key: PRNGKeyArray) -> Float[Array, "b z"]:
        """One draw."""
        noise = jax.random.normal(key, self.mean.shape)
        return self.mean + jnp.exp(0.5 * self.log_variance) * noise


@pytree.dataclass
class Departure:
    """How motions depart from the straight way between their ends; zero at both."""

    palm: Float[Array, "b t 6"]
    """Translation in the goal's palm frame, 10 cm; rotation vector in the moving one's, rad."""
    joints: Float[Array, "b t 22"]
    """Joint angles over half their range."""


@dataclasses.dataclass(frozen=True, eq=False)
class Saga:
    """The networks as functions of their parameters."""

    init: Callable[[PRNGKeyArray], Any]
    """key -> parameters."""
    rebuild: Callable[
        [Any, Ends, Departure, PRNGKeyArray], tuple[Departure, tuple[Posterior, Posterior]]
    ]
    """(parameters, ends, true departure, key) -> departure from sampled posteriors, and those of
    palm and joints."""
    fill: Callable[[Any, Ends, Latents], Departure]
    """(parameters, ends, latents) -> departure."""


def saga(config: SagaConfig) -> Saga:
    """Makes the networks' functions."""
    module = _Module(config)

    def init(key: PRNGKeyArray) -> Any:
        key_params, key_latent = jax.random.split(key)
        zeros = jnp.zeros((1, pose.SIZE))
        ends = Ends(start=zeros, goal=zeros, frames=jnp.full(1, 64))
        return dict(
            module.init(key_params, ends, departure(ends, _straight(ends, config)), key_latent)
        )

    def rebuild(
        params: Any, ends: Ends, true: Departure, key: PRNGKeyArray
    ) -> tuple[Departure, tuple[Posterior, Posterior]]:
        guess, palm, local = _outputs(module.apply(params, ends, true, key))
        return guess, (palm, local)

    def fill(params: Any, ends: Ends, latents: Latents) -> Departure:
        return _outputs(module.apply(params, ends, latents, method="fill"))

    return Saga(init=init, rebuild=rebuild, fill=fill)


def _outputs(x: Any) -> Any:
    """What a module returned; its type also allows for changed variables, of which it has none."""
    return x


def prior(config: SagaConfig, batch: int, key: PRNGKeyArray | None) -> Latents:
    """Latents of motions that are not known: the prior's mean without a key, else a draw."""
    palm, local = (batch, config.palm_latent), (batch, config.joint_latent)
    if key is None:
        return Latents(palm=jnp.zeros(palm), joints=jnp.zeros(local))
    key_palm, key_joints = jax.random.split(key)
    return Latents(
        palm=jax.random.normal(key_palm, palm), joints=jax.random.normal(key_joints, local)
    )


# ---- motions and departures


def departure(ends: Ends, phi: Float[Array, "b t 28"]) -> Departure:
    """How motions depart from the straight way between their ends."""
    q, T_world_hand = pose.split(phi)
    T_goal_hand = _each(pose.split(ends.goal)[1].inverse()) @ T_world_hand
    q_line, T_line = _line(ends, phi.shape[1])
    p = LENGTH * (T_goal_hand.translation() - T_line.translation())
    w = (T_line.rotation().inverse() @ T_goal_hand.rotation()).log()
    return Departure(palm=jnp.concatenate([p, w], axis=-1), joints=(q - q_line) / HALF_RANGE)


def motion(ends: Ends, found: Departure) -> Float[Array, "b t 28"]:
    """The motions in the world: `departure` undone, joints clipped to their limits."""
    q_line, _ = _line(ends, found.joints.shape[1])
    q = jnp.clip(q_line + HALF_RANGE * found.joints, joints.LOWER, joints.UPPER)
    T_world_goal = pose.split(ends.goal)[1]
    T_goal_hand = _palm(ends, found.palm)
    return pose.join(q, _each(T_world_goal, found.joints.shape[1]) @ T_goal_hand)


def at_frames(ends: Ends, phi: Float[Array, "b t 28"], frames: int) -> Float[Array, "b f 28"]:
    """Motions at their own frames; the goal is repeated after the last.

    Args:
        ends: First and last poses, taken over as they are, and numbers of frames.
        phi: The motions at even instants.
        frames: Frames computed, a constant of the trace.
    """
    frame, last = jnp.arange(frames), (ends.frames - 1)[:, None]
    share = jnp.minimum(frame / last.astype(jnp.float32), 1.0)
    place = share * (phi.shape[1] - 1)
    before = jnp.clip(jnp.floor(place).astype(jnp.int32), 0, phi.shape[1] - 2)
    within = (place - before)[..., None]
    a, b = (jnp.take_along_axis(phi, (before + i)[..., None], axis=1) for i in (0, 1))
    (q, T), (q_next, T_next) = pose.split(a), pose.split(b)
    turn = (T.rotation().inverse() @ T_next.rotation()).log()
    R = T.rotation() @ jaxlie.SO3.exp(within * turn)
    p = T.translation() + within * (T_next.translation() - T.translation())
    between = pose.join(q + within * (q_next - q), jaxlie.SE3.from_rotation_and_translation(R, p))
    start, goal = ends.start[:, None], ends.goal[:, None]
    moving = (frame > 0)[:, None], (frame < last)[..., None]
    return jnp.where(moving[0], jnp.where(moving[1], between, goal), start)


def _each(T: jaxlie.SE3, instants: int = 1) -> jaxlie.SE3:
    """Poses of a batch, for each instant."""
    x = T.wxyz_xyz[:, None]
    return jaxlie.SE3(jnp.broadcast_to(x, (len(x), instants, 7)))


def _shares(instants: int) -> Float[Array, "t 1"]:
    return jnp.linspace(0.0, 1.0, instants)[:, None]


def _line(ends: Ends, instants: int) -> tuple[Float[Array, "b t 22"], jaxlie.SE3]:
    """The straight way: joint angles (rad), and palm poses in the goal's palm frame."""
    share = _shares(instants)
    q_start, T_world_start = pose.split(ends.start)
    q_goal, T_world_goal = pose.split(ends.goal)
    T = T_world_goal.inverse() @ T_world_start
    q = (1.0 - share) * q_start[:, None] + share * q_goal[:, None]
    turn = share * T.rotation().inverse().log()[:, None]
    R = _each(T, instants).rotation() @ jaxlie.SO3.exp(turn)
    p = (1.0 - share) * T.translation()[:, None]
    return q, jaxlie.SE3.from_rotation_and_translation(R, p)


def _straight(ends: Ends, config: SagaConfig) -> Float[Array, "b t 28"]:
    """Motions without any departure, in the world."""
    b, t = len(ends.start), config.instants
    return motion(ends, Departure(palm=jnp.zeros((b, t, 6)), joints=jnp.zeros((b, t, 22))))


def _palm(ends: Ends, found: Float[Array, "b t 6"]) -> jaxlie.SE3:
    """Palm poses in the goal's palm frame."""
    _, T_line = _line(ends, found.shape[1])
    R = T_line.rotation() @ jaxlie.SO3.exp(found[..., 3:])
    p = T_line.translation() + found[..., :3] / LENGTH
    return jaxlie.SE3.from_rotation_and_translation(R, p)


def _bridged(raw: Float[Array, "b t c"]) -> Float[Array, "b t c"]:
    """Numbers less the straight line between their ends."""
    share = _shares(raw.shape[1])
    return raw - ((1.0 - share) * raw[:, :1] + share * raw[:, -1:])


def _known(ends: Ends) -> Float[Array, "b 57"]:
    q_start, T_world_start = pose.split(ends.start)
    q_goal, T_world_goal = pose.split(ends.goal)
    start = numbers(q_start, T_world_goal.inverse() @ T_world_start)
    goal = numbers(q_goal, jaxlie.SE3.identity((len(q_goal),)))[:, -pose.JOINTS :]
    up = T_world_goal.rotation().as_matrix()[:, 2]
    frames = _FRAMES * ends.frames.astype(jnp.float32)[:, None]
    return jnp.concatenate([start, goal, up, frames], axis=-1)


def _image(
    ends: Ends, palm: Float[Array, "b t 6"], local: Float[Array, "b t 22"]
) -> Float[Array, "b 22 t 7"]:
    """Joints over half their range, and the palm's movement to the next instant."""
    q_line, _ = _line(ends, palm.shape[1])
    q = (q_line - joints.LOWER) / HALF_RANGE - 1.0 + local
    T = _palm(ends, palm)
    here, there = jaxlie.SE3(T.wxyz_xyz[:, :-1]), jaxlie.SE3(T.wxyz_xyz[:, 1:])
    step = here.inverse() @ there
    moved = jnp.concatenate([_SPEED * step.translation(), _TURN * step.rotation().log()], axis=-1)
    moved = jnp.pad(moved, ((0, 0), (0, 1), (0, 0)), mode="edge")
    moved = jnp.broadcast_to(moved[:, None], (len(q), pose.JOINTS, *moved.shape[1:]))
    return jnp.concatenate([jnp.swapaxes(q, 1, 2)[..., None], moved], axis=-1)


# ---- networks


class _Module(nn.Module):
    config: SagaConfig

    def setup(self) -> None:
        self.palm = _TrajFill(self.config)
        self.local = _LocalMotionFill(self.config)

    def __call__(
        self, ends: Ends, true: Departure, key: PRNGKeyArray
    ) -> tuple[Departure, Posterior, Posterior]:
        key_palm, key_joints = jax.random.split(key)
        known = _known(ends)
        palm_posterior = self.palm.encode(true.palm, known)
        palm = _bridged(self.palm.decode(palm_posterior.sample(key_palm), known))
        given = _image(ends, palm, jnp.zeros_like(true.joints))
        seen = self.local.look(given)
        joint_posterior = self.local.encode(seen, _image(ends, true.palm, true.joints))
        local = self.local.decode(seen, joint_posterior.sample(key_joints), known)
        guess = Departure(palm=palm, joints=_bridged(local))
        return guess, palm_posterior, joint_posterior

    def fill(self, ends: Ends, latents: Latents) -> Departure:
        known = _known(ends)
        palm = _bridged(self.palm.decode(latents.palm, known))
        flat = jnp.zeros((*palm.shape[:2], pose.JOINTS))
        seen = self.local.look(_image(ends, palm, flat))
        return Departure(palm=palm, joints=_bridged(self.local.decode(seen, latents.joints, known)))


class _TrajFill(nn.Module):
    config: SagaConfig

    def setup(self) -> None:
        c = self.config
        self.encoder = [_Block(c.palm_width), _Block(c.palm_width)]
        self.posterior = nn.Dense(2 * c.palm_latent)
        self.decoder = [_Block(c.palm_width), _Block(c.palm_width)]
        self.out = nn.Dense(6 * c.instants, kernel_init=nn.initializers.normal(0.01))

    def encode(self, palm: Float[Array, "b t 6"], known: Float[Array, "b k"]) -> Posterior:
        h = jnp.concatenate([palm.reshape(len(palm), -1), known], axis=-1)
        for block in self.encoder:
            h = block(h)
        return _posterior(self.posterior(h))

    def decode(self, z: Float[Array, "b z"], known: Float[Array, "b k"]) -> Float[Array, "b t 6"]:
        h = z
        for block in self.decoder:
            h = block(jnp.concatenate([h, known], axis=-1))
        return self.out(h).reshape(len(z), self.config.instants, 6)


class _LocalMotionFill(nn.Module):
    config: SagaConfig

    def setup(self) -> None:
        c = self.config
        self.given = _Encoder(c.channels)
        self.true = _Encoder(c.channels)
        self.both = _Conv(2 * c.channels[-1])
        self.posterior = nn.Dense(2 * c.joint_latent)
        halved = 2 ** len(c.channels)
        self.small = (-(-pose.JOINTS // halved), -(-c.instants // halved), c.channels[-1])
        rows, columns, channels = self.small
        self.latent = nn.Dense(rows * columns * channels)
        self.decoder = [_Conv(n) for n in reversed(c.channels[:-1]) for _ in range(2)]
        self.out = [
            _Conv(c.channels[0]),
            _Conv(1, kernel_init=nn.initializers.normal(0.01)),
        ]

    def look(self, image: Float[Array, "b 22 t 7"]) -> Array:
        """What the given image says, small and deep."""
        return self.given(self._padded(image))

    def encode(self, seen: Array, true: Float[Array, "b 22 t 7"]) -> Posterior:
        h = jnp.concatenate([seen, self.true(self._padded(true))], axis=-1)
        h = nn.leaky_relu(self.both(h), _SLOPE)
        return _posterior(self.posterior(h.reshape(len(h), -1)))

    def decode(
        self, seen: Array, z: Float[Array, "b z"], known: Float[Array, "b k"]
    ) -> Float[Array, "b t 22"]:
        h = self.latent(jnp.concatenate([z, known], axis=-1)).reshape(len(z), *self.small)
        h = jnp.concatenate([seen, h], axis=-1)
        for i, conv in enumerate([*self.decoder, *self.out]):
            h = jnp.repeat(jnp.repeat(h, 2, axis=1), 2, axis=2) if i % 2 == 0 else h
            h = conv(h)
            h = nn.leaky_relu(h, _SLOPE) if conv is not self.out[-1] else h
        return jnp.swapaxes(h[:, : pose.JOINTS, : self.config.instants, 0], 1, 2)

    def _padded(self, image: Array) -> Array:
        """Rows and columns repeated at the end, until they can be halved."""
        halved = 2 ** len(self.config.channels)
        more = [(0, -n % halved) for n in image.shape[1:3]]
        return jnp.pad(image, ((0, 0), *more, (0, 0)), mode="edge")


class _Encoder(nn.Module):
    channels: tuple[int, ...]

    @nn.compact
    def __call__(self, x: Float[Array, "b r t c"]) -> Array:
        for n in self.channels:
            for _ in range(2):
                x = nn.leaky_relu(_Conv(n)(x), _SLOPE)
            b, rows, columns, _ = x.shape
            x = x.reshape(b, rows // 2, 2, columns // 2, 2, n).max((2, 4))
        return x


class _Conv(nn.Module):
    """3 x 3; beyond the image its edge is repeated."""

    channels: int
    kernel_init: Any = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, x: Float[Array, "b r t c"]) -> Float[Array, "b r t d"]:
        x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
        return nn.Conv(self.channels, (3, 3), padding="VALID", kernel_init=self.kernel_init)(x)


class _Block(nn.Module):
    """Two normalised layers beside a way around them."""

    width: int

    @nn.compact
    def __call__(self, x: Float[Array, "b i"]) -> Float[Array, "b o"]:
        around = x
        if x.shape[-1] != self.width:
            around = nn.leaky_relu(nn.Dense(self.width)(x), _SLOPE)
        h = nn.leaky_relu(nn.LayerNorm()(nn.Dense(self.width)(x)), _SLOPE)
        return nn.leaky_relu(around + nn.LayerNorm()(nn.Dense(self.width)(h)), _SLOPE)


def _posterior(x: Float[Array, "b two_z"]) -> Posterior:
    mean, log_variance = jnp.split(x, 2, axis=-1)
    # Bounds keep an early, wild encoder from overflowing the exponential.
    return Posterior(mean=mean, log_variance=jnp.clip(log_variance, -10.0, 4.0))
