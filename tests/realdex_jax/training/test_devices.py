"""The same training on one device, on four, and in two processes; and killed at any moment."""

import json
import os
import shutil
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest
import small_training

from realdex_jax.errors import TrainingError
from realdex_jax.training import checkpoint, devices
from realdex_jax.training.devices import Cluster

SUM_ORDER = 2e-5
"""Relative difference of a loss in float32 whose sums run in another order, after a few steps."""
STEPS = 6


def start(repository, run, *others, count: int = 1) -> subprocess.Popen[str]:
    """Trains in a process of its own, with so many devices."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={count}"
    paths = os.pathsep.join(map(str, (repository, repository / "tests" / "checker")))
    program = repository / "tests" / "checker" / "small_training.py"
    return subprocess.Popen(
        [sys.executable, str(program), str(run), str(STEPS), *map(str, others)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": paths, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags},
    )


def told(process: subprocess.Popen[str]) -> dict:
    out, _ = process.communicate(timeout=200)
    assert process.returncode == 0
    found = json.loads(out.splitlines()[-1])
    return {**found, "losses": {int(k): v for k, v in found["losses"].items()}}


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The training on one device, and its folder."""
    run = tmp_path_factory.mktemp("alone")
    state, losses, drawn = small_training.continued(run, STEPS)
    return run, state, losses, drawn


def until_three(run, place):
    """The run as it stood at step 3."""
    shutil.copytree(run, place)
    shutil.rmtree(place / "checkpoints" / f"{STEPS:08d}")
    return place


def alike(losses, expected):
    np.testing.assert_allclose(
        list(losses.values()), [expected[k] for k in losses], rtol=SUM_ORDER, atol=0
    )


@pytest.mark.slow
def test_four_devices_lose_what_one_does_and_checkpoints_go_both_ways(alone, repository, tmp_path):
    run, state, losses, _ = alone
    whole = told(start(repository, tmp_path / "four", count=4))
    assert whole["devices"] == 4
    assert list(whole["losses"]) == list(range(1, STEPS + 1))
    alike(whole["losses"], losses)

    # Four go on with what one saved, and one with what four saved.
    spread_out = told(start(repository, until_three(run, tmp_path / "up"), count=4))
    assert list(spread_out["losses"]) == [4, 5, 6]
    alike(spread_out["losses"], losses)
    place = until_three(tmp_path / "four", tmp_path / "down")
    gathered, found, _ = small_training.continued(place, STEPS)
    assert list(found) == [4, 5, 6]
    alike(found, losses)
    for one, other in zip(jax.tree.leaves(gathered), jax.tree.leaves(state), strict=True):
        if not jax.dtypes.issubdtype(one.dtype, jax.dtypes.prng_key):
            np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_two_processes_lose_what_one_does_and_the_first_writes(alone, repository, tmp_path):
    _, state, losses, drawn = alone
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{s.getsockname()[1]}"
    run = tmp_path / "two"
    both = [start(repository, run, address, 2, i) for i in range(2)]
    first, second = map(told, both)
    assert (first["devices"], second["devices"]) == (2, 2)
    assert list(first["losses"]) == list(range(1, STEPS + 1))
    assert second["losses"] == first["losses"]
    alike(first["losses"], losses)
    for step, items in drawn.items():  # each made its own half of the same batch
        assert first["items"][str(step)] + second["items"][str(step)] == items
    lines = (run / "scalars.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(1, STEPS + 1))
    # What two saved, one reads.
    back = checkpoint.restore(run, small_training.begun())
    np.testing.assert_allclose(back.params["first"], state.params["first"], rtol=1e-3, atol=1e-5)


def test_rows_that_do_not_divide_name_the_counts_that_do(monkeypatch):
    local = jax.local_devices()
    monkeypatch.setattr(jax, "local_devices", lambda: local * 6)
    with pytest.raises(
        TrainingError, match=r"batch of 8 does not divide by 6 .*--devices that do: 1, 2, 4$"
    ):
        devices.spread(8)
    with pytest.raises(TrainingError, match="--devices 7; this process has 1 to 6"):
        devices.spread(8, 7)


@pytest.mark.parametrize(
    ("cluster", "message"),
    [
        (Cluster(None, 2, 0), "go with --coordinator"),
        (Cluster("localhost:1", 2), "needs --processes and --process"),
        (Cluster("localhost:1", 2, 2), "--process 2 of 2; 0 to 1 are"),
    ],
)
def test_processes_that_are_not_all_told_of_are_refused(cluster, message):
    with pytest.raises(TrainingError, match=message):
        devices.join(cluster)


def test_a_batch_is_split_by_rows_and_comes_back_whole():
    spread = devices.spread(4, 1)
    batch = {"a": np.arange(8.0).reshape(4, 2), "b": np.arange(4)}
    placed = spread.batch(spread.mine(batch))
    jax.tree.map(np.testing.assert_array_equal, placed, batch)
    assert spread.share == 4
    assert devices.any_process(True)
    assert not devices.any_process(False)
