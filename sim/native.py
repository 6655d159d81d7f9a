"""Native backend of the still-hand test: C MuJoCo in a thread pool.

`mj_step` releases Python's lock, so threads scale with cores. Every drop starts from a reset state:
results are bit-identical for any number of threads.
"""

import os
import queue
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, runtime_checkable

import mujoco
import numpy as np
from jaxtyping import Float

from sim.scene import StillScene

GONE = 0.5
"""Metres beyond which an object has left the hand and the drop is no longer followed."""

_BATCH = 4  # drops a thread takes at a time
_LOOK_STEPS = 25  # steps between two looks at the object
_LOOKS_AT_REST = 2


def cores() -> int:
    """Number of cores this process may run on, which a container or `taskset` can make fewer."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def diverged(data: mujoco.MjData) -> bool:
    """Whether MuJoCo gave up on a state since the last reset by the caller.

    It then starts again from the initial state, whose finite numbers say nothing about the grasp.
    """
    bad = (
        mujoco.mjtWarning.mjWARN_BADQPOS,
        mujoco.mjtWarning.mjWARN_BADQVEL,
        mujoco.mjtWarning.mjWARN_BADQACC,
    )
    return any(data.warning[int(kind)].number for kind in bad)


@runtime_checkable
class Backend(Protocol):
    """Simulates drops of one object out of a still hand."""

    def __call__(
        self,
        scene: StillScene,
        p_object_link: Float[np.ndarray, "n m 3"],
        wxyz_object_link: Float[np.ndarray, "n m 4"],
        gravity: Float[np.ndarray, "n 3"],
        checkpoints: tuple[int, ...],
    ) -> Float[np.ndarray, "n c"]:
        """Distance the centre of mass has moved at each checkpoint.

        Args:
            scene: The compiled scene.
            p_object_link: Origins of `scene.links` in the object frame, metres.
            wxyz_object_link: Their orientations.
            gravity: Acceleration in the object frame, m/s^2, per drop.
            checkpoints: Rising step counts.

        Returns:
            Metres. At least `GONE` for objects that left the hand; not finite where the simulation
            diverged.
        """
        ...


def simulate(
    scene: StillScene,
    p_object_link: Float[np.ndarray, "n m 3"],
    wxyz_object_link: Float[np.ndarray, "n m 4"],
    gravity: Float[np.ndarray, "n 3"],
    checkpoints: tuple[int, ...],
    *,
    threads: int | None = None,
    at_rest: tuple[float, float] | None = None,
) -> Float[np.ndarray, "n c"]:
    """The `Backend` protocol; `threads` defaults to `cores()`.

    With `at_rest` (m/s, rad/s) a drop ends once its object is slower than that at two looks in a
    row; it then counts as staying where it is.
    """
    count = len(gravity)
    moved = np.empty((count, len(checkpoints)))
    threads = max(1, min(threads or cores(), -(-count // _BATCH)))
    idle: queue.SimpleQueue[tuple[mujoco.MjModel, mujoco.MjData]] = queue.SimpleQueue()
    for _ in range(threads):
        model = scene.model.__copy__()  # gravity is part of the model
        idle.put((model, mujoco.MjData(model)))

    def work(start: int) -> None:
        model, data = idle.get()
        for i in range(start, min(start + _BATCH, count)):
            mujoco.mj_resetData(model, data)
            model.opt.gravity[:] = gravity[i]
            data.mocap_pos[:] = p_object_link[i]
            data.mocap_quat[:] = wxyz_object_link[i]
            moved[i] = _drop(scene, model, data, checkpoints, at_rest)
        idle.put((model, data))

    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(work, range(0, count, _BATCH)):
            pass
    return moved


def _drop(
    scene: StillScene,
    model: mujoco.MjModel,
    data: mujoco.MjData,
    checkpoints: tuple[int, ...],
    at_rest: tuple[float, float] | None,
) -> list[float]:
    out: list[float] = []
    done = 0
    rested = 0
    for checkpoint in checkpoints:
        while done < checkpoint:
            steps = min(_LOOK_STEPS, checkpoint - done)
            mujoco.mj_step(model, data, steps)
            done += steps
            if diverged(data):
                return out + [float("nan")] * (len(checkpoints) - len(out))
            distance = _distance(scene, data)
            if not distance < GONE:  # also when not finite
                return out + [distance] * (len(checkpoints) - len(out))
            if at_rest is not None:
                rested = rested + 1 if _slow(scene, data, at_rest) else 0
                if rested == _LOOKS_AT_REST:
                    return out + [distance] * (len(checkpoints) - len(out))
        out.append(_distance(scene, data))
    return out


def _slow(scene: StillScene, data: mujoco.MjData, at_rest: tuple[float, float]) -> bool:
    """Whether the object's centre of mass and its turning are slower than `at_rest`."""
    v, w = data.qvel[:3], data.qvel[3:6]
    if w @ w > at_rest[1] ** 2:
        return False
    # The free joint's turn rate and the lever are in the object frame, its velocity is not.
    lever = np.empty(3)
    mujoco.mju_rotVecQuat(lever, np.cross(w, scene.p_object_com), data.qpos[3:7])
    return bool((v + lever) @ (v + lever) <= at_rest[0] ** 2)


def _distance(scene: StillScene, data: mujoco.MjData) -> float:
    """How far the centre of mass is from its start, the object frame at the origin; metres."""
    com = np.empty(3)
    mujoco.mju_rotVecQuat(com, scene.p_object_com, data.qpos[3:7])
    return float(np.linalg.norm(com + data.qpos[:3] - scene.p_object_com))
