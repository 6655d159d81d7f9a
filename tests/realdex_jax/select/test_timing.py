"""Pauses, and work that must end."""

import time

import pytest

from realdex_jax.select import timing

NOW = 1_700_000_000.0  # Tue, 14 Nov 2023 22:13:20 GMT


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0),
        (" 120 ", 120.0),
        ("0", 0.0),
        ("Tue, 14 Nov 2023 22:13:50 GMT", 30.0),
        ("Tue, 14 Nov 2023 22:13:50 -0000", 30.0),
        ("Tue, 14 Nov 2023 22:00:00 GMT", 0.0),
        (None, 0.0),
        ("", 0.0),
        ("soon", 0.0),
        ("-7", 0.0),
        ("1e9", 0.0),
        ("inf", 0.0),
        ("9" * 400, 0.0),
        ("Tue, 99 Nov 2023 22:13:50 GMT", 0.0),
    ],
)
def test_retry_after_is_seconds_or_a_date(value, seconds):
    assert timing.retry_after(value, NOW) == pytest.approx(seconds)


def test_pauses_double_up_to_the_longest():
    longest = [timing.backoff(attempt, 1.0, 10.0, 1.0) for attempt in (0, 1, 2, 3, 4, 10_000)]
    assert longest == [1.0, 2.0, 4.0, 8.0, 10.0, 10.0]
    assert timing.backoff(2, 1.0, 10.0, 0.0) == 2.0


def test_no_minute_has_more_requests_than_allowed():
    pace = timing.Pace(3)
    starts = [pace.book(now, 1e9) for now in (0.0, 1.0, 2.0, 3.0, 3.0, 100.0, 100.0)]
    assert starts == [0.0, 1.0, 2.0, 60.0, 61.0, 100.0, 120.0]
    assert pace.book(100.0, 110.0) is None
    assert pace.book(100.0, 130.0) == 121.0  # the one before was not booked


def test_work_is_left_behind_when_late():
    start = time.monotonic()
    with pytest.raises(timing.Late):
        timing.within(0.05, lambda: time.sleep(5.0))
    assert time.monotonic() - start < 4.0
    assert timing.within(5.0, lambda: 7) == 7


@pytest.mark.parametrize("kind", [TimeoutError, KeyError])
def test_what_the_work_raises_is_raised(kind):
    def work():
        raise kind("own")

    with pytest.raises(kind, match="own"):
        timing.within(5.0, work)
