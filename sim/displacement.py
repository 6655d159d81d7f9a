"""How far an object moves out of a still hand under gravity: sim.disp. and held.

The hand's links stand where the pose puts them and never move; the object is released at rest. A
grasp that only touches, or whose contacts cannot balance gravity, drops it. All grasps of an object
share one compiled model.
"""

import functools
import importlib.util
from dataclasses import dataclass
from typing import Literal

import jax
import jaxlie
import numpy as np
from jaxtyping import Array, Bool, Float

from realdex_jax.errors import PhysicsError
from realdex_jax.hand import kinematics
from realdex_jax.hand.load import HandModel
from sim import native
from sim.physics import Physics
from sim.scene import Pieces, still_scene

DIRECTIONS: Float[np.ndarray, "6 3"] = np.concatenate([-np.eye(3)[::-1], np.eye(3)[::-1]])
"""Gravity in the object frame: -z first, then -y, -x, +z, +y, +x."""

_FK_BATCH = 1024  # poses per compiled call; the last one is padded


@dataclass(frozen=True)
class Displacement:
    """Outcome of the still-hand test; d = 1 or 6 gravity directions, ordered as `DIRECTIONS`."""

    d_0146_cm: Float[np.ndarray, " n"]
    """Displacement at the short horizon (0.146 s by default) under gravity -z, centimetres."""
    d_1s_cm: Float[np.ndarray, "n d"]
    """Displacement at the long horizon (1 s), centimetres, capped at `Physics.cap`."""
    held: Bool[np.ndarray, " n"]
    """Moved less than `Physics.held` by the long horizon under gravity -z."""
    held_six: Bool[np.ndarray, " n"]
    """The same in all directions that were run; says "six" only if they were six."""
    directions: int
    """1 or 6."""
    backend: Literal["native", "mjx"]
    """What simulated it."""


def displacement(
    hand: HandModel,
    shape: Pieces,
    phi: Float[Array | np.ndarray, "n phi"],
    physics: Physics | None = None,
    backend: Literal["auto", "native", "mjx"] = "auto",
    *,
    directions: Literal[1, 6] = 6,
    threads: int | None = None,
    accept_at_rest: bool = False,
) -> Displacement:
    """Drops the object out of every grasp.

    Args:
        hand: The hand the poses are of.
        shape: The object; its mass is replaced by `physics.mass`.
        phi: Poses, the palm in the object frame.
        physics: The constants; `Physics()` if None.
        backend: "native" for CPU threads, "mjx" for accelerators; "auto" is "mjx" where JAX sees an
            accelerator and warp-lang is installed.
        directions: Gravity along -z only, or along all six axes.
        threads: Threads of the native backend; `native.cores()` if None.
        accept_at_rest: Follow an object only until it rests, by `physics.rest_speed` and
            `physics.rest_turn_rate`: a third of the time where only `held` counts. Native backend
            only; the tables follow every object to the end.

    Raises:
        PhysicsError: A pose is not finite or of the wrong shape, the object cannot be simulated, or
            the backend or number of directions is unknown, or its package is missing.
    """
    physics = physics or Physics()
    if directions not in (1, 6):
        raise PhysicsError(f"{directions} gravity directions; known: 1 (-z) and 6")
    p, wxyz = link_poses(hand, phi)
    scene = still_scene(hand, shape, physics)
    gravity = np.tile(DIRECTIONS[:directions] * physics.gravity, (len(p), 1))
    p_all = np.repeat(p[:, scene.links], directions, axis=0)
    wxyz_all = np.repeat(wxyz[:, scene.links], directions, axis=0)
    checkpoints = (physics.short_steps, physics.long_steps)
    backend = _chosen() if backend == "auto" else backend
    match backend:
        case "native":
            at_rest = (physics.rest_speed, physics.rest_turn_rate) if accept_at_rest else None
            moved = native.simulate(
                scene, p_all, wxyz_all, gravity, checkpoints, threads=threads, at_rest=at_rest
            )
        case "mjx":
            from sim import mjx  # seconds of import that the native backend need not pay

            moved = mjx.simulate(scene, p_all, wxyz_all, gravity, checkpoints)
        case _:
            raise PhysicsError(f"no backend {backend!r}; known: auto, native, mjx")
    # A diverged simulation counts as dropped, not as missing.
    moved = np.where(np.isfinite(moved), moved, native.GONE).reshape(-1, directions, 2)
    held = moved[:, :, 1] < physics.held
    return Displacement(
        d_0146_cm=moved[:, 0, 0] * 100.0,
        d_1s_cm=np.minimum(moved[:, :, 1], physics.cap) * 100.0,
        held=held[:, 0],
        held_six=np.asarray(held.all(axis=1)),
        directions=directions,
        backend=backend,
    )


def _chosen() -> Literal["native", "mjx"]:
    accelerated = jax.default_backend() != "cpu" and importlib.util.find_spec("warp") is not None
    return "mjx" if accelerated else "native"


def link_poses(
    hand: HandModel, phi: Float[Array | np.ndarray, "n phi"]
) -> tuple[Float[np.ndarray, "n l 3"], Float[np.ndarray, "n l 4"]]:
    """Origins (m) and orientations (wxyz) of all links in the object frame.

    Raises:
        PhysicsError: A pose is not finite or of the wrong shape.
    """
    phi = np.asarray(phi, np.float32)
    width = hand.joints.pose_size
    if phi.ndim != 2 or phi.shape[1] != width:
        raise PhysicsError(f"phi must be (n, {width}), got {phi.shape}")
    bad = np.flatnonzero(~np.isfinite(phi).all(axis=1))
    if len(bad):
        raise PhysicsError(f"pose {bad[0]} is not finite ({len(bad)} such poses)")
    count = len(phi)
    size = min(_FK_BATCH, 1 << max(count - 1, 1).bit_length())  # few sizes, few compilations
    padded = np.zeros((-(-count // size) * size, width), np.float32)
    padded[:count] = phi
    parts = [_place(hand, part) for part in np.split(padded, len(padded) // size)] if count else []
    links = len(hand.link_names)
    p = np.concatenate(
        [np.asarray(part[0], np.float64) for part in parts] or [np.empty((0, links, 3))]
    )
    wxyz = np.concatenate(
        [np.asarray(part[1], np.float64) for part in parts] or [np.empty((0, links, 4))]
    )
    return p[:count], wxyz[:count]


@functools.partial(jax.jit, static_argnums=0)
def _place(hand: HandModel, phi: jax.Array) -> tuple[jax.Array, jax.Array]:
    links = kinematics.posed(hand, phi)
    return links.p, jaxlie.SO3.from_matrix(links.R).wxyz
