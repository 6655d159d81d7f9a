"""How the time of our programs grows with the number of hands and of object points."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from benchmarks import distances, kinematics
from benchmarks.timing import time_calls
from realdex_jax.hand import joints
from realdex_jax.hand.load import load

HANDS = (16, 64, 256, 1024, 4096, 16384)
POINTS = (256, 1024, 4096, 16384)
"""Points of the object, for `distances.BATCH` hands."""


@dataclasses.dataclass(frozen=True)
class Curve:
    """Median seconds of one program by size."""

    name: str
    axis: str
    """What the sizes count."""
    sizes: tuple[int, ...]
    seconds: tuple[float, ...]

    @property
    def exponent(self) -> float:
        """How steeply it grows between the two largest sizes: 1 is in proportion."""
        (a, b), (t, u) = self.sizes[-2:], self.seconds[-2:]
        return float(np.log(u / t) / np.log(b / a))


def measure(
    hands: Sequence[int] = HANDS, points: Sequence[int] = POINTS, repeats: int = 10
) -> list[Curve]:
    """Times every program at every size; all sizes of a program take turns."""
    hand, rng = load(), np.random.default_rng(0)
    weight = rng.normal(size=(len(hand.link_names), 3)).astype(np.float32)
    q = rng.uniform(joints.LOWER, joints.UPPER, (max(hands), 22)).astype(np.float32)
    links, _ = distances.map_inputs(hand)
    cloud = rng.normal(0.0, 0.08, (distances.BATCH, max(points), 3)).astype(np.float32)
    skin, _ = distances.chamfer_inputs()
    forward = kinematics.our_program(hand)
    slope = kinematics.our_gradient_program(hand, weight)
    chamfer, contact = distances.chamfer_program(), distances.map_program(hand)
    return [
        _curve("forward kinematics", "hands", hands, lambda n: (forward, (q[:n],)), repeats),
        _curve("gradient of it", "hands", hands, lambda n: (slope, (q[:n],)), repeats),
        _curve(
            "chamfer distance", "points", points, lambda n: (chamfer, (skin, cloud[:, :n])), repeats
        ),
        _curve(
            "contact map", "points", points, lambda n: (contact, (cloud[:, :n], links)), repeats
        ),
    ]


def _curve(
    name: str,
    axis: str,
    sizes: Sequence[int],
    program: Callable[[int], tuple[Callable[..., Any], tuple[Any, ...]]],
    repeats: int,
) -> Curve:
    def call(size: int) -> Callable[[], object]:
        run, given = program(size)
        on_device = jax.tree.map(jnp.asarray, given)
        return lambda: jax.block_until_ready(run(*on_device))

    timings = time_calls({str(size): call(size) for size in sizes}, 1, repeats)
    return Curve(name, axis, tuple(sizes), tuple(t.median_s for t in timings))


def plot(curves: Sequence[Curve]) -> Figure:
    """Milliseconds over sizes, both logarithmic, a panel for what the sizes count."""
    axes = sorted({curve.axis for curve in curves})
    figure = Figure(figsize=(4.5 * len(axes), 3.4), layout="constrained")
    for panel, axis in zip(np.atleast_1d(figure.subplots(1, len(axes))), axes, strict=True):
        for curve in curves:
            if curve.axis == axis:
                panel.loglog(curve.sizes, 1e3 * np.array(curve.seconds), "o-", label=curve.name)
        panel.set_xlabel(axis)
        panel.set_ylabel("ms")
        panel.grid(visible=True, which="both", alpha=0.3)
        panel.legend()
    return figure
