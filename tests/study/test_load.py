"""Many people at once, and a server that is killed while they vote."""

import concurrent.futures
import contextlib
import http.client
import os
import pathlib
import re
import signal
import sys
import threading
import time

import numpy as np
import pytest
from raters import Rater, make_items, serving

from study import ballots

RATERS = 50


def hurry(
    address: str, gate: threading.Barrier, limit: int, seconds: dict[str, list[float]]
) -> int:
    """A rater without time to think: ranks from left to right; returns the votes confirmed."""
    one = Rater(address)
    with contextlib.closing(one):
        page = one.begin()
        gate.wait(60)
        confirmed = 0
        # All forms of a rater are alike; reading each page would take longer than serving it.
        form = {**page.page.hidden, **{field: i for i, field in enumerate(page.page.fields, 1)}}
        action = page.page.action
        while confirmed < limit:
            begin = time.perf_counter()
            reply = one.post(action, form)
            voted = time.perf_counter()
            assert reply.status == 303
            confirmed += 1
            action = reply.headers["location"]
            page = one.get(action)
            seconds["vote"].append(voted - begin)
            seconds["page"].append(time.perf_counter() - voted)
            assert page.status == 200
    return confirmed


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.parametrize("votes", [40, pytest.param(200, marks=pytest.mark.long)])
def test_votes_of_fifty_raters_are_all_kept(tmp_path: pathlib.Path, capsys, votes: int) -> None:
    """No vote is lost or double; how long a vote and a page take is printed."""
    items = make_items(tmp_path / "items", tuple(f"o{i}" for i in range(votes // 4)), samples=4)
    seconds: dict[str, list[float]] = {"vote": [], "page": []}
    gate = threading.Barrier(RATERS)
    with serving(items, tmp_path / "out") as (address, _):
        begin = time.perf_counter()
        with concurrent.futures.ThreadPoolExecutor(RATERS) as pool:
            each = [pool.submit(hurry, address, gate, votes, seconds) for _ in range(RATERS)]
            confirmed = [one.result() for one in each]
        took = time.perf_counter() - begin
    assert confirmed == [votes] * RATERS
    with contextlib.closing(ballots.resume(tmp_path / "out")) as store:
        found = store.everybody()
    assert [person.number for person, _ in found] == list(range(1, RATERS + 1))
    for person, answers in found:
        assert len(answers) == votes
        for trial, methods in person.shown:
            assert answers[trial].revision == 0
            assert [answers[trial].points[m] for m in methods] == [3, 2, 1]
    with capsys.disabled():
        told = f"\n{RATERS} raters x {votes} votes in {took:.1f} s, none lost, none double\n"
        for name, values in seconds.items():
            p50, p95, p99 = 1e3 * np.quantile(values, [0.5, 0.95, 0.99])
            told += f"  {name}: p50 {p50:.0f} ms, p95 {p95:.0f} ms, p99 {p99:.0f} ms\n"
        sys.stdout.write(told)


def test_a_killed_server_keeps_every_confirmed_vote_and_people_go_on(
    tmp_path: pathlib.Path,
) -> None:
    items = make_items(tmp_path / "items", samples=50)
    out = tmp_path / "out"
    people = 6
    confirmed: list[int] = [0] * people
    cookies = [""] * people

    def vote(index: int, address: str) -> None:
        one = Rater(address)
        with contextlib.closing(one), contextlib.suppress(OSError, http.client.HTTPException):
            page = one.begin()
            cookies[index] = one.cookie
            while page.page.media:
                shown = page.page
                form = {**shown.hidden, **{field: i for i, field in enumerate(shown.fields, 1)}}
                if one.post(shown.action, form).status == 303:
                    confirmed[index] += 1
                page = one.get(one.follow(one.get()).page.action)

    with serving(items, out) as (address, process):
        with concurrent.futures.ThreadPoolExecutor(people) as pool:
            running = [pool.submit(vote, index, address) for index in range(people)]
            deadline = time.monotonic() + 60
            while min(confirmed) < 5 and time.monotonic() < deadline:
                time.sleep(0.005)
            os.kill(process.pid, signal.SIGKILL)
        for one in running:
            one.result()
        assert process.wait(20) == -signal.SIGKILL
    with contextlib.closing(ballots.resume(out)) as store:
        stored = [len(store.answers(store.start(c.split("=")[1]).number)) for c in cookies]
    for told, there in zip(confirmed, stored, strict=True):
        assert 5 <= told < 100
        assert told <= there <= told + 1  # one may be stored whose answer was cut off
    with serving(items, out) as (again, _):
        assert re.search(r"/s/.*/", again) is not None
        assert address.split("/s/")[1] == again.split("/s/")[1]
        for cookie, there in zip(cookies, stored, strict=True):
            with contextlib.closing(Rater(again)) as one:
                one.cookie = cookie
                assert f"{there + 1} of 100" in one.follow(one.get()).text
