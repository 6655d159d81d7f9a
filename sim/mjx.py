"""MJX backend of the still-hand test: jitted and vmapped over grasps, for accelerators.

The same compiled scene, constants and protocol as the native backend. One program per scene; the
batch is padded to a few sizes to keep compilations few. On CPU the native backend is tens of times
faster.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from mujoco import mjx

from sim.scene import StillScene

MAX_BATCH = 4096
"""Drops simulated at once."""


def simulate(
    scene: StillScene,
    p_object_link: Float[np.ndarray, "n m 3"],
    wxyz_object_link: Float[np.ndarray, "n m 4"],
    gravity: Float[np.ndarray, "n 3"],
    checkpoints: tuple[int, ...],
) -> Float[np.ndarray, "n c"]:
    """The `Backend` protocol of `sim.native`."""
    count = len(gravity)
    size = min(MAX_BATCH, 1 << max(count - 1, 1).bit_length())
    run = _program(scene, checkpoints)
    out = []
    for start in range(0, count, size):
        rows = np.minimum(np.arange(start, start + size), count - 1)  # the last drop fills the rest
        parts = (p_object_link[rows], wxyz_object_link[rows], gravity[rows])
        out.append(np.asarray(run(*(jnp.asarray(x, jnp.float32) for x in parts)), np.float64))
    if not out:
        return np.empty((0, len(checkpoints)))
    return np.concatenate(out)[:count]


@functools.lru_cache(maxsize=8)
def _program(scene: StillScene, checkpoints: tuple[int, ...]):  # noqa: ANN202
    """Compiled drop of a batch; scenes hash by identity."""
    model = mjx.put_model(scene.model)
    fresh = mjx.make_data(scene.model)
    com = jnp.asarray(scene.p_object_com, jnp.float32)

    def drop(p: Array, wxyz: Array, gravity: Array) -> Array:
        falling = model.tree_replace({"opt.gravity": gravity})
        data = fresh.replace(mocap_pos=p, mocap_quat=wxyz)

        def moved(data: mjx.Data) -> Array:
            w, v = data.qpos[3], data.qpos[4:7]
            turned = com + 2.0 * jnp.cross(v, jnp.cross(v, com) + w * com)
            return jnp.linalg.norm(turned + data.qpos[:3] - com)

        def advance(data: mjx.Data, steps: Array) -> tuple[mjx.Data, Array]:
            data = jax.lax.fori_loop(0, steps, lambda _, d: mjx.step(falling, d), data)
            return data, moved(data)

        # One loop in a loop, so that the step, which is slow to compile, is compiled once.
        steps = jnp.asarray(np.diff(checkpoints, prepend=0), jnp.int32)
        return jax.lax.scan(advance, data, steps)[1]

    return jax.jit(jax.vmap(drop))
