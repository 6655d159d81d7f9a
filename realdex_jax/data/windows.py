"""Training windows of motions: six frames seen, ten to come, and the goal."""

import jax
import jax.numpy as jnp
import jaxlie
import numpy as np
from jaxtyping import Array, Float, Int

from realdex_jax import pose, pytree
from realdex_jax.data.motion_set import MotionSet

PAST = 5
"""Frames before the present one that a model sees (section 4.3)."""
FUTURE = 10
"""Frames that it predicts."""


@pytree.dataclass
class Windows:
    """b windows, poses in the world."""

    seen: Float[Array | np.ndarray, "b 6 28"]
    """Past frames and the present one, oldest first; before the start the hand rests."""
    coming: Float[Array | np.ndarray, "b 10 28"]
    """What follows; after the end the hand rests."""
    goal: Float[Array | np.ndarray, "b 28"]
    """Last pose of the motion."""
    phase: Float[Array | np.ndarray, " b"]
    """Share of the motion's frames that have passed, in [0, 1]."""
    step: Float[Array | np.ndarray, " b"]
    """By how much the phase grows per frame."""
    wxyz_xyz_world_object: Float[Array | np.ndarray, "b 7"]
    """Where the object rests."""
    target: Int[Array | np.ndarray, " b"]
    """Index of the object among the set's names."""
    way: Int[Array | np.ndarray, " b"]
    """In which manner the motion comes, as `ways.find` numbers them; 0 is the usual one."""


def at(
    motions: MotionSet,
    motion: Int[np.ndarray, " b"],
    frame: Int[np.ndarray, " b"],
    way: Int[np.ndarray, " n"] | None = None,
) -> Windows:
    """The windows of the given motions whose present frame is the given one.

    Args:
        motions: n motions.
        motion: Which of them.
        frame: Present frame of each window.
        way: The way of every motion of the set; None makes all of them usual ones.
    """
    first, last = motions.first[motion], motions.first[motion + 1] - 1
    now = first + frame
    seen = np.maximum(now[:, None] + np.arange(-PAST, 1), first[:, None])
    coming = np.minimum(now[:, None] + np.arange(1, FUTURE + 1), last[:, None])
    return Windows(
        seen=motions.phi[seen],
        coming=motions.phi[coming],
        goal=motions.phi[last],
        phase=(frame / (last - first)).astype(np.float32),
        step=(1.0 / (last - first)).astype(np.float32),
        wxyz_xyz_world_object=motions.wxyz_xyz_world_object[motion],
        target=motions.target[motion],
        way=np.zeros(len(motion), np.int32) if way is None else way[motion],
    )


def batch(
    motions: MotionSet, size: int, seed: int, step: int, way: Int[np.ndarray, " n"] | None = None
) -> Windows:
    """Batch number `step` of an endless, repeatable sequence; every frame is as likely."""
    rng = np.random.default_rng([seed, step])
    frame = rng.integers(len(motions.phi), size=size)
    motion = np.searchsorted(motions.first, frame, side="right") - 1
    # The last frame has nothing to come; the one before it stands in.
    within = np.minimum(frame - motions.first[motion], motions.lengths()[motion] - 2)
    return at(motions, motion, within, way)


def shaken(key: jax.Array, windows: Windows, size: float) -> Windows:
    """Windows whose seen frames are off, as they are when a model lives on its own output.

    One offset for all frames of a window, one that fades toward the present, so that the hand
    comes from elsewhere and its speed is off, too, and a tenth of it anew for each frame.

    Args:
        key: Randomness.
        windows: The windows.
        size: Standard deviation: radians of every joint and axis, and a fifth of it in metres.
    """
    b, frames = windows.seen.shape[:2]
    key_all, key_past, key_each = jax.random.split(key, 3)
    noise = jax.random.normal(key_all, (b, 1, pose.SIZE))
    fading = jnp.linspace(2.0, 0.0, frames)[:, None]
    noise = noise + fading * jax.random.normal(key_past, (b, 1, pose.SIZE))
    noise = size * (noise + 0.1 * jax.random.normal(key_each, (b, frames, pose.SIZE)))
    q, T_world_hand = pose.split(jnp.asarray(windows.seen))
    R = T_world_hand.rotation() @ jaxlie.SO3.exp(noise[..., 25:28])
    p = T_world_hand.translation() + 0.2 * noise[..., 22:25]
    seen = pose.join(q + noise[..., : pose.JOINTS], jaxlie.SE3.from_rotation_and_translation(R, p))
    return Windows(**{**vars(windows), "seen": seen})
