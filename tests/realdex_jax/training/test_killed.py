"""Trainings that are killed, run out of disk, or meet numbers that are not finite."""

import json
import multiprocessing
import os
import random
import resource
import signal
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_training

from realdex_jax.errors import CheckpointError, TrainingError
from realdex_jax.training import checkpoint, log, loop, update
from realdex_jax.training import state as states
from realdex_jax.training.loop import Hooks, Schedule, StopRequest
from realdex_jax.training.state import Optimisation

KILLS = int(os.environ.get("REALDEX_KILLS", "10"))
"""How often each test kills; 200 before a release."""


@pytest.fixture(scope="module")
def nursery():
    """Makes processes that have imported everything, and no device yet."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["small_training"])
    return context


def equal(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            equal(jax.random.key_data(x), jax.random.key_data(y))
        else:
            np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


@pytest.mark.slow
def test_killed_at_any_moment_of_a_save_the_newest_checkpoint_loads(nursery, tmp_path):
    moments, told = random.Random(0), tmp_path / "told"
    run, last, inside = tmp_path / "run", 0, 0
    like = small_training.begun(width=2048)
    for _ in range(KILLS):
        told.write_text(str(last))
        saver = nursery.Process(target=small_training.saves, args=(str(run), last + 1, str(told)))
        saver.start()
        until = time.monotonic() + 60
        while int(told.read_text() or last) < last + 2 and time.monotonic() < until:
            time.sleep(0.002)
        time.sleep(moments.uniform(0.0, 0.3))
        os.kill(saver.pid, signal.SIGKILL)
        saver.join()
        begun = int(told.read_text() or -1)
        left = [p.name for p in (run / "checkpoints").iterdir()]
        inside += any(name.endswith((".fresh", ".gone")) for name in left)
        last = checkpoint.latest(run)
        # The save that ran is there whole or not at all; the one before it is.
        assert begun == -1 or last in (begun - 1, begun)
        back = checkpoint.restore(run, like)
        for leaf in jax.tree.leaves((back.params, back.optimiser)):
            assert (np.asarray(leaf) == last).all()
        for name in left:  # and so is every other one that has a name
            if name.isdigit():
                checkpoint.restore(run, like, int(name))
    assert inside > KILLS // 4


@pytest.mark.slow
def test_killed_at_random_steps_a_run_ends_as_if_it_never_was(nursery, tmp_path):
    steps, moments = small_training.TOTAL, random.Random(1)
    whole, losses, _ = small_training.continued(tmp_path / "whole", steps)
    run, at = tmp_path / "parts", sorted(moments.sample(range(1, steps), min(KILLS // 2, 20)))
    for step in at:
        child = nursery.Process(target=small_training.killed_at, args=(str(run), steps, step))
        child.start()
        child.join(60)
        assert child.exitcode == -signal.SIGKILL
    resumed, found, drawn = small_training.continued(run, steps)
    equal(resumed, whole)
    # The log of all parts holds every step, and wherever a step was made twice, the same loss.
    lines = [json.loads(line) for line in (run / "scalars.jsonl").read_text().splitlines()]
    assert {line["step"] for line in lines} == set(losses)
    assert all(line["loss"] == losses[line["step"]] for line in lines)
    assert len(found) == len(drawn) < steps


def on_a_full_disk(run: str) -> None:
    """Saves while no file may grow beyond 64 kB; leaves by its status how that ended."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    state = small_training.begun(width=2048)
    checkpoint.save(run, 1, state)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65_536, 65_536))
    try:
        checkpoint.save(run, 2, state)
    except CheckpointError as error:
        os._exit(7 if "older checkpoints are whole" in str(error) else 8)
    os._exit(9)


def test_a_disk_that_refuses_a_file_keeps_the_checkpoint_before(tmp_path):
    child = multiprocessing.get_context("spawn").Process(
        target=on_a_full_disk, args=(str(tmp_path),)
    )
    child.start()
    child.join(60)
    assert child.exitcode == 7
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["00000001"]
    like = small_training.begun(width=2048)
    equal(checkpoint.restore(tmp_path, like), like)


def test_a_term_signal_leaves_a_checkpoint_within_seconds(nursery, tmp_path):
    told = tmp_path / "told"
    child = nursery.Process(target=small_training.long, args=(str(tmp_path), str(told)))
    child.start()
    until = time.monotonic() + 60
    while not told.exists() and time.monotonic() < until:
        time.sleep(0.01)
    asked = time.monotonic()
    os.kill(child.pid, signal.SIGTERM)
    child.join(60)
    assert time.monotonic() - asked < 10.0
    assert child.exitcode == 0
    step = checkpoint.latest(tmp_path)
    assert step >= 5
    assert int(checkpoint.restore(tmp_path, small_training.begun()).step) == step


BATCH = {"x": np.ones((4, 3), np.float32)}


def plain(params, batch, _key, _step):
    value = ((batch["x"] @ params["w"]) ** 2).mean()
    return value, {}


def poisoned(what: str, at: int):
    """State, batches and loss of a run in which something is not finite from a step on."""
    state = states.create({"w": jnp.ones(3)}, Optimisation(steps=10, warmup=1), jax.random.key(0))
    batch_at = lambda step: BATCH
    loss = plain
    match what:
        case "batch":
            bad = {"x": np.where(np.arange(4)[:, None] == 2, np.nan, BATCH["x"])}
            batch_at = lambda step: bad if step == at else BATCH
        case "loss":

            def loss(params, batch, key, step):
                value, terms = plain(params, batch, key, step)
                return jnp.where(step == at, jnp.inf, value), terms
        case "gradient":

            def loss(params, batch, key, step):
                value, terms = plain(params, batch, key, step)
                hidden = jnp.where(step == at, 0.0, 1.0)  # sqrt at 0: a value, but no slope
                return value + jnp.sqrt(hidden * jnp.abs(params["w"]).sum()), terms

    return state, batch_at, loss


@pytest.mark.parametrize("what", ["batch", "loss", "gradient", "params"])
def test_a_number_that_is_not_finite_ends_the_run_in_its_step(what, tmp_path):
    at = 4
    state, batch_at, loss = poisoned(what, at)
    make = update.make_step(loss, Optimisation(steps=10, warmup=1))
    asked = []

    def step(state, batch):
        if what == "params" and len(asked) == at + 1:
            state = states.TrainState(
                step=state.step,
                params={"w": state.params["w"].at[1].set(jnp.nan)},
                optimiser=state.optimiser,
                key=state.key,
            )
        return make(state, batch)

    def next_batch(step):
        asked.append(step)
        return batch_at(step)

    with (
        pytest.raises(TrainingError, match=rf"step {at + 1}: .* not finite \(batch: mug, can\)"),
        log.hooks(tmp_path, 10, 0, str) as hooks,
    ):
        loop.run(
            state,
            step,
            next_batch,
            Schedule(10, log_every=1, save_every=2),
            hooks,
            stop=StopRequest(),
            names_of=lambda _: "mug, can",
        )
    # The batch after it was made, perhaps, but not learnt from.
    assert max(asked) <= at + 1
    assert "mug, can" in json.loads((tmp_path / log.FAILED).read_text())["message"]
    assert checkpoint.latest(tmp_path) == at
    back = checkpoint.restore(tmp_path, poisoned(what, at)[0])
    assert not states.not_finite(back)
    assert int(back.step) == at


def test_a_poisoned_state_is_never_saved(tmp_path):
    good = states.create({"w": jnp.ones(3)}, Optimisation(steps=10, warmup=1), jax.random.key(0))
    checkpoint.save(tmp_path, 1, good)
    for field in ("params", "optimiser"):
        bad = jax.tree.map(
            lambda x: x * jnp.nan if jnp.issubdtype(x.dtype, jnp.floating) else x,
            getattr(good, field),
        )
        state = states.TrainState(**{**vars(good), field: bad})
        with pytest.raises(CheckpointError, match=rf"step 2 is not saved.*{field}.*not finite"):
            checkpoint.save(tmp_path, 2, state)
    assert checkpoint.latest(tmp_path) == 1


def test_a_save_that_fails_ends_the_run_in_that_step():
    """Saves are not in the background, so that nothing is learnt past one that failed."""
    made = update.make_step(plain, Optimisation(steps=10, warmup=1))
    state, batch_at, _ = poisoned("", 0)
    asked = []

    def full(step, _state):
        raise CheckpointError("no space left")

    with pytest.raises(CheckpointError, match="no space"):
        loop.run(
            state,
            made,
            lambda step: asked.append(step) or batch_at(step),
            Schedule(10, save_every=3),
            Hooks(save=full),
            stop=StopRequest(),
        )
    assert max(asked) == 2
