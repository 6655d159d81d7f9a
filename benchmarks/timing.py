"""Measuring calls: warmed up, repeated, summarised by its median."""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class Timing:
    """Time of one call, seconds."""

    name: str
    median_s: float
    low_s: float
    """10th percentile."""
    high_s: float
    """90th percentile."""
    items: int
    """Hands or grasps that one call computes."""
    repeats: int
    ratio: tuple[float, float, float] | None = None
    """How many times as long as the first call of the same turn: 10th, 50th, 90th percentile."""

    @property
    def per_second(self) -> float:
        """Items a second at the median."""
        return self.items / self.median_s


def time_calls(
    calls: Mapping[str, Callable[[], object]], items: int, repeats: int, warm_up: int = 3
) -> list[Timing]:
    """Times calls that finish their work before they return.

    They take turns, so that whatever else runs on the machine disturbs all of them alike.
    """
    for call in calls.values():
        for _ in range(warm_up):
            call()
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - start)
    timings = []
    first = np.array(next(iter(seconds.values())))
    for name, taken in seconds.items():
        low, median, high = spread(taken)
        ratio = spread(np.array(taken) / first)
        timings.append(Timing(name, median, low, high, items, repeats, ratio))
    return timings


def spread(values: Sequence[float] | np.ndarray) -> tuple[float, float, float]:
    """10th, 50th and 90th percentile."""
    low, median, high = np.quantile(values, [0.1, 0.5, 0.9])
    return float(low), float(median), float(high)
