"""Floors: what XLA counts is what the mathematics says, and no program beats its floor."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import floor
from benchmarks.floor import Machine

RATES = Machine(flops=1e9, bytes_per_s=1e6)


def test_a_product_is_bound_by_arithmetic_that_can_be_counted_by_hand() -> None:
    a = np.ones((64, 64), np.float32)
    found = floor.of("product", Machine(1e9, 1e12), 1, jax.jit(lambda a: a @ a), a)
    assert found.flops == pytest.approx(2 * 64**3, rel=0.01)
    assert found.bound == "arithmetic"
    assert found.floor_s == pytest.approx(2 * 64**3 / 1e9, rel=0.01)


def test_a_copy_is_bound_by_the_bytes_of_what_goes_in_and_out() -> None:
    x = np.ones(1000, np.float32)
    found = floor.of("copy", RATES, 1, jax.jit(lambda x: (x + 1.0, x.sum())), x)
    assert found.moved == 4 * (1000 + 1000 + 1)
    assert found.bound == "memory"
    assert found.floor_s == pytest.approx(found.moved / 1e6)
    assert found.gap == pytest.approx(found.median_s / found.floor_s)


def test_no_program_beats_the_floor_of_the_machine_it_runs_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(floor, "_SIZE", 512)
    monkeypatch.setattr(floor, "_COPIED", 2**22)
    rates = floor.machine(3)
    a = jnp.ones((512, 512), jnp.float32)
    found = floor.of("product", rates, 3, jax.jit(lambda a: a @ a), a)
    # The same product; ten times, because a busy machine may be measured at its slowest.
    assert found.gap > 0.1
