"""Clocks, waits and pauses of remote calls; all of them can be replaced in tests."""

import collections
import concurrent.futures
import dataclasses
import datetime
import email.utils
import random
import re
import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Timing:
    """Where time and chance come from."""

    monotonic: Callable[[], float] = time.monotonic
    """Seconds that never go back."""
    wall: Callable[[], float] = time.time
    """Seconds since 1970, for dates that servers send."""
    sleep: Callable[[float], None] = time.sleep
    """Waits so many seconds."""
    uniform: Callable[[], float] = random.random
    """A number from 0 to 1 for the jitter of pauses."""


class Late(Exception):  # noqa: N818 - it is a state, not a mistake
    """Work that did not end in time."""


class Pace:
    """At most so many requests in any 60 seconds, shared by any number of threads."""

    def __init__(self, per_minute: int) -> None:
        """Starts with no request made."""
        self._starts: collections.deque[float] = collections.deque(maxlen=per_minute)
        self._lock = threading.Lock()

    def book(self, now: float, latest: float) -> float | None:
        """Books the next request and gives the time it may start, or None if after `latest`."""
        with self._lock:
            full = len(self._starts) == self._starts.maxlen
            start = max(now, self._starts[0] + 60.0) if full else now
            if start > latest:
                return None
            self._starts.append(start)
            return start


def backoff(attempt: int, first: float, longest: float, uniform: float) -> float:
    """Seconds to wait after a failed attempt (0 is the first): doubling, and half by chance."""
    return min(longest, first * 2.0 ** min(attempt, 60)) * (0.5 + 0.5 * uniform)


def retry_after(value: str | None, now: float) -> float:
    """Seconds that a Retry-After header asks for, given as seconds or as a date; 0 if neither."""
    value = (value or "").strip()
    if re.fullmatch(r"[0-9]{1,9}", value):
        return float(value)
    try:
        date = email.utils.parsedate_to_datetime(value)
    except (ValueError, TypeError, OverflowError):
        return 0.0
    if date.tzinfo is None:
        date = date.replace(tzinfo=datetime.UTC)
    return max(0.0, date.timestamp() - now)


def within(seconds: float, work: Callable[[], T]) -> T:
    """What `work` returns, if it does so in time.

    It runs in a thread of its own, since a library may ignore the time-outs it is given. A thread
    that is late is left behind, and does not keep the process alive.

    Raises:
        Late: It took longer.
    """
    future: concurrent.futures.Future[T] = concurrent.futures.Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True, name="remote call").start()
    try:
        return future.result(timeout=max(seconds, 0.0))
    except TimeoutError:
        if future.done():  # the work's own
            raise
        raise Late from None
