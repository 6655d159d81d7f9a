"""How far our programs are from what this machine could do at best.

The floor of a program is the longer of two times: its arithmetic, as XLA counts it in what it
compiled, at the rate of a large matrix product; and its arguments and results, once through memory,
at the rate of a large copy. Both rates are measured here, on the cores of this process. No program
meets a floor; the gap says where there is something to win, not that it can be won.
"""

import dataclasses
import time
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import distances, kinematics, network
from benchmarks.timing import time_calls
from realdex_jax.hand import joints
from realdex_jax.hand.load import load

_SIZE = 2048
"""Rows of the matrices that are multiplied: 34 GFLOP a product's pair of operations."""
_COPIED = 2**26
"""Numbers of the array that is copied: a quarter of a gibibyte, beyond all caches."""


@dataclasses.dataclass(frozen=True)
class Machine:
    """What these cores reach."""

    flops: float
    """Operations a second in single precision."""
    bytes_per_s: float
    """Read and written."""


@dataclasses.dataclass(frozen=True)
class Floor:
    """One program beside its floor."""

    name: str
    median_s: float
    floor_s: float
    bound: Literal["arithmetic", "memory"]
    """Which of the two times the floor is."""
    flops: float
    """Operations of one call."""
    moved: float
    """Bytes of its arguments and results."""

    @property
    def gap(self) -> float:
        """How many times longer than the floor it takes."""
        return self.median_s / self.floor_s


def machine(repeats: int = 5) -> Machine:
    """Measures both rates; the best of a few, since anything else only makes them lower."""
    a = jnp.ones((_SIZE, _SIZE), jnp.float32)
    x = jnp.ones(_COPIED, jnp.float32)
    product = _best(jax.jit(lambda a: a @ a), a, repeats=repeats)
    copy = _best(jax.jit(lambda x: x + 1.0), x, repeats=repeats)
    return Machine(2.0 * _SIZE**3 / product, 2.0 * x.nbytes / copy)


def _best(program: Callable[..., Any], *given: Any, repeats: int) -> float:
    jax.block_until_ready(program(*given))
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(program(*given))
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def measure(repeats: int = 30) -> tuple[Machine, list[Floor]]:
    """The machine, and the programs that the other benchmarks compare with peers."""
    rates, hand = machine(), load()
    rng = np.random.default_rng(0)
    q = rng.uniform(joints.LOWER, joints.UPPER, (kinematics.BATCH, 22)).astype(np.float32)
    weight = rng.normal(size=(len(hand.link_names), 3)).astype(np.float32)
    links, points = distances.map_inputs(hand)
    ours = network.Ours(network.inputs())
    step, given = ours.program()
    found = [
        of("forward kinematics", rates, repeats, kinematics.our_program(hand), q),
        of("gradient of it", rates, repeats, kinematics.our_gradient_program(hand, weight), q),
        of(
            "chamfer distance",
            rates,
            repeats,
            distances.chamfer_program(),
            *distances.chamfer_inputs(),
        ),
        of("contact map", rates, repeats, distances.map_program(hand), points, links),
        of("training step", rates, repeats, step, *given, call=ours.step),
    ]
    return rates, found


def of(
    name: str,
    rates: Machine,
    repeats: int,
    program: Any,
    *given: Any,
    call: Callable[[], object] | None = None,
) -> Floor:
    """Times one program and reckons its floor.

    Args:
        name: Its name.
        rates: The machine's.
        repeats: Timed calls.
        program: A jitted function.
        given: Its arguments.
        call: What is timed instead, where arguments are used up by a call.
    """
    given = jax.tree.map(jnp.asarray, given)
    compiled = program.lower(*given).compile()
    flops = float(compiled.cost_analysis()["flops"])
    results = jax.eval_shape(program, *given)
    moved = float(sum(x.size * x.dtype.itemsize for x in jax.tree.leaves((given, results))))
    run = call or (lambda: jax.block_until_ready(compiled(*given)))
    (timing,) = time_calls({name: run}, 1, repeats)
    arithmetic, memory = flops / rates.flops, moved / rates.bytes_per_s
    bound = "arithmetic" if arithmetic > memory else "memory"
    return Floor(name, timing.median_s, max(arithmetic, memory), bound, flops, moved)
