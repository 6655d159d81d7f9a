"""MJX backend of the still-hand test: jitted and vmapped over grasps, for accelerators.

The same compiled scene, constants and protocol as the native backend, on MJX's Warp
implementation: its collision routines follow C MuJoCo's. The pure-JAX implementation lets go of
objects that C MuJoCo holds (architecture page, "Two backends"). On a CPU this backend is there to
be checked; the native one is tens of times faster.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from mujoco import mjx

from realdex_jax.errors import PhysicsError
from sim.scene import StillScene

MAX_BATCH = 4096
"""Drops simulated at once."""
_CONTACTS = 64
"""Room for contacts (and near pairs) of one drop at first; doubled while it overflows."""
_MOST_CONTACTS = 1024


def simulate(
    scene: StillScene,
    p_object_link: Float[np.ndarray, "n m 3"],
    wxyz_object_link: Float[np.ndarray, "n m 4"],
    gravity: Float[np.ndarray, "n 3"],
    checkpoints: tuple[int, ...],
) -> Float[np.ndarray, "n c"]:
    """The `Backend` protocol of `sim.native`; the batch is padded, so that few sizes compile.

    Raises:
        PhysicsError: warp-lang is not installed, or a drop has more contacts than fit.
    """
    count = len(gravity)
    size = min(MAX_BATCH, 1 << max(count - 1, 1).bit_length())
    out = []
    for start in range(0, count, size):
        rows = np.minimum(np.arange(start, start + size), count - 1)  # the last drop fills the rest
        parts = (p_object_link[rows], wxyz_object_link[rows], gravity[rows])
        out.append(_batch(scene, tuple(jnp.asarray(x, jnp.float32) for x in parts), checkpoints))
    if not out:
        return np.empty((0, len(checkpoints)))
    return np.concatenate(out)[:count]


def _batch(
    scene: StillScene, parts: tuple[Array, ...], checkpoints: tuple[int, ...]
) -> Float[np.ndarray, "n c"]:
    """One padded batch, again with more room where contacts did not fit."""
    contacts = _CONTACTS
    while contacts <= _MOST_CONTACTS:
        moved, overflow = _program(scene, checkpoints, len(parts[0]), contacts)(*parts)
        if not np.asarray(overflow).any():
            return np.asarray(moved, np.float64)
        contacts *= 2
    raise PhysicsError(
        f"a drop has more than {_MOST_CONTACTS} contacts or near pairs; use the native backend, "
        "or an object of fewer convex pieces"
    )


@functools.lru_cache(maxsize=8)
def _program(scene: StillScene, checkpoints: tuple[int, ...], size: int, contacts: int):  # noqa: ANN202
    """Compiled drop of a batch, scenes hashed by identity: distances, and whether room ran out."""
    try:
        import warp
    except ModuleNotFoundError as error:
        raise PhysicsError(
            "the mjx backend needs warp-lang: pip install -e '.[mjx]', or use 'native'"
        ) from error
    from mujoco.mjx.third_party.mujoco_warp import OverflowType

    warp.config.log_level = warp.LOG_WARNING  # a line per compiled kernel otherwise
    lost = ~int(OverflowType.ITERATIONS | OverflowType.LS_ITERATIONS)  # limits are meant as such
    model = mjx.put_model(scene.model, impl="warp")
    model = model.tree_replace({"opt._impl.warn_overflow": 0})
    rows = 4 * contacts  # of the constraint matrix: a contact with torsional friction has four
    fresh = mjx.make_data(scene.model, impl="warp", naconmax=size * contacts, njmax=rows)
    com = jnp.asarray(scene.p_object_com, jnp.float32)

    def drop(p: Array, wxyz: Array, gravity: Array) -> tuple[Array, Array]:
        falling = model.tree_replace({"opt.gravity": gravity})
        data = fresh.replace(mocap_pos=p, mocap_quat=wxyz)

        def moved(data: mjx.Data) -> Array:
            w, v = data.qpos[3], data.qpos[4:7]
            turned = com + 2.0 * jnp.cross(v, jnp.cross(v, com) + w * com)
            return jnp.linalg.norm(turned + data.qpos[:3] - com)

        def step(_: int | Array, carry: tuple[mjx.Data, Array]) -> tuple[mjx.Data, Array]:
            data = mjx.step(falling, carry[0])
            return data, carry[1] | data._impl.overflow

        def advance(carry: tuple[mjx.Data, Array], steps: Array):  # noqa: ANN202
            carry = jax.lax.fori_loop(0, steps, step, carry)
            return carry, moved(carry[0])

        # One loop in a loop, so that the step, which is slow to compile, is compiled once.
        steps = jnp.asarray(np.diff(checkpoints, prepend=0), jnp.int32)
        (_, overflow), distances = jax.lax.scan(advance, (data, data._impl.overflow), steps)
        return distances, overflow & lost

    return jax.jit(jax.vmap(drop))
