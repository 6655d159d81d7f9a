"""Optimisation of whole motions: at the goal, smooth, within limits, clear of object and table.

What a model left of the way to the goal is closed over the last frames; then the motion is smoothed
in one linear solve; then Adam moves its frames, all but the first and the last, as little as their
faults need: the cost is quadratic in what is wrong, so nothing moves where nothing is.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import jaxlie
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from realdex_jax import pose, touch
from realdex_jax.data.motion import RATE
from realdex_jax.geometry.sdf import SdfGrid
from realdex_jax.hand import joints, torque
from realdex_jax.hand.load import HandModel, require_shadow


@dataclasses.dataclass(frozen=True)
class TrajectoryConfig:
    """Weights and limits."""

    steps: int = 80
    """Steps of Adam."""
    rate: float = 0.002
    """Size of a step: metres, and a fifth of the radians."""
    stay: float = 40.0
    """Weight of the squared change, in units of `_UNIT`."""
    smooth: float = 3.0
    """Weight of the squared second difference of the change over frames, same units."""
    arrive: int = 25
    """Frames over which the rest of the way to the goal is closed."""
    jerk: float = 30.0
    """Weight of the squared third difference of the motion against that of staying, before."""
    clear: float = 40.0
    """Weight of the squared depth beyond `allowed`, in millimetres, summed over the hand."""
    speed: float = 10.0
    """Weight of the squared excess of joint speeds over their limits, (rad/s)^2."""
    allowed: float = 0.002
    """Metres the hand may be inside the object: a grasp presses."""
    margin: float = 0.001
    """Metres the hand keeps above the table."""


_UNIT = 0.01
"""A centimetre of the palm weighs as much as five hundredths of a radian."""
_TURN = 5.0


@functools.partial(jax.jit, static_argnames=("hand", "config"))
def optimise(
    hand: HandModel,
    grid: SdfGrid,
    phi: Float[Array, "b t 28"],
    goal: Float[Array, "b 28"],
    lengths: Int[Array, " b"],
    wxyz_xyz_world_object: Float[Array, "b 7"],
    config: TrajectoryConfig = TrajectoryConfig(),
) -> Float[Array, "b t 28"]:
    """Mends motions around one object.

    Args:
        hand: The hand.
        grid: The object's distance grid.
        phi: Motions in the world; frames beyond a motion's length repeat its last.
        goal: Where they should end, in the world.
        lengths: Frames of each.
        wxyz_xyz_world_object: Where the object rests in each.
        config: Weights and limits.

    Returns:
        Motions whose first frame is unchanged, whose last one is the goal, and whose joints keep
        their limits.

    Raises:
        HandError: A hand with other joints than Shadow's.
    """
    require_shadow(hand, "trajectory optimisation")
    start, t = phi[:, :1], phi.shape[1]
    frames = jnp.arange(t)
    free = ((frames > 0) & (frames < lengths[:, None] - 1))[..., None].astype(phi.dtype)
    phi = arrived(phi, goal, lengths, config)
    solver = optax.adam(optax.cosine_decay_schedule(config.rate, config.steps, 0.05))
    scale = jnp.concatenate([jnp.full(22, _TURN), jnp.ones(3), jnp.full(3, _TURN)])

    def of(change: Array) -> Array:
        return cost(hand, config, grid, phi, change * free * scale, lengths, wxyz_xyz_world_object)

    def step(
        carry: tuple[Array, optax.OptState], _: None
    ) -> tuple[tuple[Array, optax.OptState], None]:
        change, state = carry
        updates, state = solver.update(jax.grad(of)(change), state)
        return (jnp.asarray(optax.apply_updates(change, updates)), state), None

    zero = jnp.zeros_like(phi)
    (change, _), _ = jax.lax.scan(step, (zero, solver.init(zero)), None, length=config.steps)
    moved = _moved(phi, change * free * scale)
    limited = torque.within_limits(moved[..., : pose.JOINTS])
    mended = jnp.concatenate([limited, moved[..., pose.JOINTS :]], axis=-1)
    mended = jnp.concatenate([start, mended[:, 1:]], axis=1)
    return jnp.where((frames < lengths[:, None] - 1)[..., None], mended, goal[:, None])


def arrived(
    phi: Float[Array, "b t 28"],
    goal: Float[Array, "b 28"],
    lengths: Int[Array, " b"],
    config: TrajectoryConfig,
) -> Float[Array, "b t 28"]:
    """Motions that end at their goals, smooth but for what they must do at the start.

    Works on joints, places, and rotation vectors from the goal's orientation.
    """
    t = phi.shape[1]
    q, T_world_hand = pose.split(phi)
    q_goal, T_world_goal = pose.split(goal[:, None])
    R_goal_hand = T_world_goal.rotation().inverse() @ T_world_hand.rotation()
    x = jnp.concatenate([q, T_world_hand.translation(), R_goal_hand.log()], axis=-1)
    x_goal = jnp.concatenate([q_goal, T_world_goal.translation(), jnp.zeros((len(phi), 1, 3))], -1)
    frames = jnp.arange(t)
    arrive = jnp.minimum(config.arrive, lengths[:, None] - 1)  # the start stays where it is
    share = minimum_jerk((frames - (lengths[:, None] - 1 - arrive)) / arrive)[..., None]
    x = x + share * (x_goal - jnp.take_along_axis(x, lengths[:, None, None] - 1, axis=1))
    # Whittaker's smoother; both ends, and the rest after the last frame, are held.
    third = jnp.diff(jnp.eye(t), n=3, axis=0)
    held = (frames == 0) | (frames >= lengths[:, None] - 1)
    weight = jnp.where(held, 1e4, 1.0)
    system = weight[..., None] * jnp.eye(t) + config.jerk * (third.T @ third)
    x = jnp.linalg.solve(system, weight[..., None] * x)
    R = T_world_goal.rotation() @ jaxlie.SO3.exp(x[..., 25:28])
    return pose.join(
        x[..., : pose.JOINTS], jaxlie.SE3.from_rotation_and_translation(R, x[..., 22:25])
    )


def cost(
    hand: HandModel,
    config: TrajectoryConfig,
    grid: SdfGrid,
    phi: Float[Array, "b t 28"],
    change: Float[Array, "b t 28"],
    lengths: Int[Array, " b"],
    wxyz_xyz_world_object: Float[Array, "b 7"],
) -> Float[Array, ""]:
    """What `optimise` minimises, over changes (rad, m, rad in the palm frame) of the frames."""
    b, t = phi.shape[:2]
    frames = jnp.arange(t)
    counts = (frames < lengths[:, None]).astype(phi.dtype)
    moved = _moved(phi, change)
    unit = jnp.concatenate([jnp.full(22, 1 / _TURN), jnp.ones(3), jnp.full(3, 1 / _TURN)]) / _UNIT
    stay = ((change * unit) ** 2).sum(-1)
    # Smoothness of the correction, not of the motion: a demonstration's own rhythm stays.
    second = jnp.diff(change * unit, n=2, axis=1)
    smooth = (second**2).sum(-1)
    world = jnp.broadcast_to(wxyz_xyz_world_object[:, None], (b, t, 7))
    in_object, in_table = touch.sphere_depths(hand, grid, moved, world)
    inside = jnp.maximum(in_object - config.allowed, 0.0)
    under = jnp.maximum(in_table + config.margin, 0.0)
    deep = 1e6 * (inside**2 + under**2).sum(0)
    rate = jnp.abs(jnp.diff(moved[..., : pose.JOINTS], axis=1)) * RATE
    fast = (jnp.maximum(rate - joints.MAX_RATE, 0.0) ** 2).sum(-1)
    total = (
        config.stay * (counts * stay).sum()
        + config.smooth * (counts[:, 2:] * smooth).sum()
        + config.clear * (counts * deep).sum()
        + config.speed * (counts[:, 1:] * fast).sum()
    )
    return total / (b * t)


def _moved(phi: Float[Array, "*b 28"], change: Float[Array, "*b 28"]) -> Float[Array, "*b 28"]:
    """Poses after changes; the palm's are in its own frame."""
    q, T = pose.split(phi)
    R = T.rotation() @ jaxlie.SO3.exp(change[..., 25:28])
    p = T.translation() + T.rotation() @ change[..., 22:25]
    return pose.join(q + change[..., : pose.JOINTS], jaxlie.SE3.from_rotation_and_translation(R, p))


def minimum_jerk(u: Float[Array | np.ndarray, "*b"]) -> Float[Array | np.ndarray, "*b"]:
    """Share of the way after the share `u` of the time, clipped to [0, 1].

    The least jerk between two rests (Flash and Hogan 1985).
    """
    u = u.clip(0.0, 1.0)
    return u**3 * (10.0 - 15.0 * u + 6.0 * u**2)
