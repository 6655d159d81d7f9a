"""A small training with everything that a real one has: batches, update, loop and checkpoints.

    python tests/checker/small_training.py RUN STEPS [coordinator processes process]

Prints the losses as JSON. `continued` is what a process that may be killed calls.
"""

import dataclasses
import functools
import json
import os
import signal
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from realdex_jax.data import pipeline
from realdex_jax.data.pipeline import Item, Sampling
from realdex_jax.training import checkpoint, devices, log, loop, update
from realdex_jax.training import state as states
from realdex_jax.training.devices import Cluster
from realdex_jax.training.loop import Schedule, StopRequest
from realdex_jax.training.state import Optimisation

ROWS = 4
SAMPLING = Sampling(objects=ROWS, grasps=2, points=16)
TOTAL = 40


def source() -> list[Item]:
    rng = np.random.default_rng(0)
    items = []
    for name in "abcde":
        normals = rng.normal(size=(64, 3))
        normals /= np.linalg.norm(normals, axis=1, keepdims=True)
        items.append(Item(name, 0.04 * normals, normals, rng.normal(size=(6, 28))))
    return items


def loss(params, batch, key, _step):
    """A small network with noise on its input, so that random numbers matter, too."""
    points = jnp.asarray(batch.points) + 0.01 * jax.random.normal(key, batch.points.shape)
    feature = jnp.tanh(points @ params["first"]).max(axis=1)
    error = (feature @ params["second"])[:, None] - jnp.asarray(batch.phi)
    return (error**2).mean(), {"largest": jnp.abs(error).max()}


def begun(width: int = 32) -> states.TrainState:
    key_first, key_second, key_run = jax.random.split(jax.random.key(0), 3)
    params = {
        "first": jax.random.normal(key_first, (3, width)),
        "second": 0.1 * jax.random.normal(key_second, (width, 28)),
    }
    return states.create(params, Optimisation(steps=TOTAL, warmup=2), key_run)


def continued(run: Path, steps: int, every: int = 3, at=lambda _step: None, stop=None):
    """Trains from where a run stands; returns its state, the losses and the items drawn by step."""
    spread = devices.spread(ROWS)
    batches = pipeline.batches(source(), SAMPLING, 0)
    state = spread.whole(begun())
    if checkpoint.latest(run) is not None:
        state = checkpoint.restore(run, state)
    make = update.make_step(loss, Optimisation(steps=TOTAL, warmup=2))
    losses: dict[int, float] = {}
    drawn: dict[int, list[int]] = {}

    def batch_at(step):
        at(step)
        batch = spread.mine(batches[step])
        drawn[step] = batch.item.tolist()
        return batch

    with log.hooks(run, steps, int(state.step), str) as hooks:
        wrote = hooks.log
        keep = lambda step, values: (losses.update({step: values["loss"]}), wrote(step, values))
        state, _ = loop.run(
            state,
            lambda state, batch: make(state, spread.batch(batch)),
            batch_at,
            Schedule(steps, log_every=1, save_every=every),
            dataclasses.replace(hooks, log=keep),
            stop=stop or StopRequest(),
            agree=devices.any_process,
        )
    assert state.params["first"].sharding.is_fully_replicated
    return state, losses, drawn


def killed_at(run: str, steps: int, last: int) -> None:
    """Trains until the given step and is killed there, which may be while a save runs."""

    def at(step):
        if step == last:
            os.kill(os.getpid(), signal.SIGKILL)

    continued(Path(run), steps, at=at)


def _filled(step: int, x):
    key = jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
    return x if key else jnp.full_like(x, step)


def long(run: str, told: str) -> None:
    """Trains until it is asked to stop; tells when it is under way."""
    with loop.stop_on_signals() as stop:
        under_way = lambda step: Path(told).touch() if step == 5 else None
        continued(Path(run), 10**6, 10**6, under_way, stop)


def saves(run: str, first: int, told: str) -> None:
    """Saves one state after the other, each with its step in every number, until killed."""
    state = begun(width=2048)
    for step in range(first, first + 1000):
        filled = jax.tree.map(functools.partial(_filled, step), state)
        Path(told).write_text(str(step))
        checkpoint.save(run, step, filled)


if __name__ == "__main__":
    where, until, *others = sys.argv[1:]
    if others:
        devices.join(Cluster(others[0], int(others[1]), int(others[2])))
    final, found, items = continued(Path(where), int(until))
    sys.stdout.write(
        json.dumps({"losses": found, "items": items, "devices": jax.device_count()}) + "\n"
    )
