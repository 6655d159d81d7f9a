"""Numbers of a camera's exposures where its driver counts none: out of stamps and arrivals."""

import collections

_HEARD = 64
"""Frames among which the quickest tells how long one is on its way at least."""
_LATE_US = 500_000.0
"""Microseconds that a frame may be on its way longer than the quickest; more is the clock's doing.
"""


class Counter:
    """Numbers of exposures, out of their time stamps and arrivals.

    The camera's clock tells how many periods went by, unless it was set. That shows in how long a
    frame seems to have been on its way: less than any before it where the clock was set forward, as
    none arrives before it was exposed; and where it was set back, more than any is held up.
    """

    def __init__(self, fps: int, begin_us: int | None = None) -> None:
        """Counts from the first frame, or from the exposure with a stamp (us)."""
        self._period_us, self._begin_us = 1e6 / fps, begin_us
        self._last: int | None = None
        self._number = 0
        self._arrived_us = 0.0
        self._ways: collections.deque[float] = collections.deque(maxlen=_HEARD)
        """How long frames seemed to be on their way, by two clocks: to a constant."""

    def number(self, stamp_us: int, host_ns: int | None = None) -> int:
        """The number of the exposure with this stamp.

        Args:
            stamp_us: By the camera's clock, microseconds.
            host_ns: Arrival, if it is known by another clock than the camera's, nanoseconds.
        """
        if self._last is None:
            since = stamp_us - (stamp_us if self._begin_us is None else self._begin_us)
            self._number = round(since / self._period_us)
            passed = 0.0
        else:
            passed = float(stamp_us - self._last)
        if host_ns is not None:
            passed = self._as_arrived(passed, stamp_us, 1e-3 * host_ns)
        if self._last is not None:
            # From frame to frame, so that the drift of the clock never adds up to a frame.
            self._number += max(round(passed / self._period_us), 1)
        self._last = stamp_us
        return self._number

    def _as_arrived(self, passed_us: float, stamp_us: int, arrived_us: float) -> float:
        """Time since the last exposure: as the stamps say, or arrivals, where the clock was set."""
        way = arrived_us - stamp_us
        least, last = min(self._ways, default=way), self._ways[-1] if self._ways else way
        ahead, behind = least - way > 0.5 * self._period_us, way - least > _LATE_US
        if self._ways and (ahead or behind or passed_us <= 0.0):
            # What the last frame was late by had gone by before it arrived.
            passed_us = arrived_us - self._arrived_us + last - least
            self._ways.clear()
        self._ways.append(way)
        self._arrived_us = arrived_us
        return passed_us
