"""Whole motions at a fixed number of instants, for models that make a motion at once."""

import numpy as np
from jaxtyping import Array, Float, Int

from realdex_jax import pytree
from realdex_jax.data import motion
from realdex_jax.data.motion_set import MotionSet


@pytree.dataclass
class Clips:
    """b motions, stretched to t instants that divide each evenly."""

    phi: Float[Array | np.ndarray, "b t 28"]
    """Hand poses in the world; the first and the last are the motion's own."""
    frames: Int[Array | np.ndarray, " b"]
    """Frames that the motion has at `motion.RATE`."""
    target: Int[Array | np.ndarray, " b"]
    """Index of the object among the set's names."""


def stretch(motions: MotionSet, instants: int) -> Clips:
    """All motions of a set: joints and positions linearly, orientations on great arcs."""
    phi = np.empty((len(motions), instants, motions.phi.shape[1]), np.float32)
    for i in range(len(motions)):
        one = motions.motion(i)
        last = np.asarray(one.time, np.float64)[-1]
        phi[i] = motion.interpolate(one, np.minimum(np.linspace(0.0, last, instants), last))[0]
        phi[i, [0, -1]] = motions.poses(i)[[0, -1]]
    return Clips(phi=phi, frames=motions.lengths().astype(np.int32), target=motions.target)


def batch(clips: Clips, size: int, seed: int, step: int) -> Clips:
    """Batch number `step` of an endless, repeatable sequence; every motion is as likely."""
    chosen = np.random.default_rng([seed, step]).integers(len(clips.target), size=size)
    return Clips(phi=clips.phi[chosen], frames=clips.frames[chosen], target=clips.target[chosen])
