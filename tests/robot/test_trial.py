"""Every fault once in virtual time; and judges that see what is unsafe.

All of it, twenty seeds: `python -m robot.trial`.
"""

import dataclasses
import json
import subprocess
import sys

import charts
import numpy as np
import pytest
from rich.console import Console

from realdex_jax.errors import ConfigError
from robot import brake, cases, curve, judging, limits, trial, trial_page
from robot.drive import Outcome
from robot.executor import Phase
from robot.interface import Trajectory
from robot.judging import Course, Judged, Sent, Stopped

PLAN = trial.motion()


def test_no_fault_is_unsafe(tmp_path, repository):
    """As a person starts it: without the checks of shapes it takes a tenth of the time."""
    command = [sys.executable, "-m", "robot.trial", "--seeds", "1", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    runs = json.loads((tmp_path / "results.json").read_text())["runs"]
    by_name = {one["fault"]: one for one in runs}
    assert by_name.keys() == {case.name for case in cases.CASES}
    for case in cases.CASES:
        one = by_name[case.name]
        assert one["unsafe"] == []
        assert one["phase"] in ("holding", "idle", "fault", "killed")
        if one["asked_s"] is not None and case.seen and case.must == "stop":
            assert one["confirmed"], one
    assert by_name["nothing"]["phase"] == "holding"
    assert "NOT CONFIRMED" in by_name["network partition"]["reason"]
    page = (tmp_path / "report.html").read_text()
    marks, words = charts.marks(page), charts.words(page)
    asked = [one for one in runs if one["asked_s"] is not None]
    assert marks["asked"] == len(asked)
    assert marks["rest"] + marks["late"] == sum(one["stood_s"] is not None for one in asked)
    assert marks["limit"] == 1
    assert "unsafe" not in marks
    assert {case.name for case in cases.CASES} <= set(words)


def test_every_run_is_drawn():
    """Those in time, later ones, those that stood by themselves, and what was unsafe."""

    def run(fault, asked_s, stood_s, unsafe=()):
        return Judged(fault, 0, "fault", "why", True, unsafe, 0.1, asked_s, stood_s, None, 1.0)

    runs = [
        *(run("quick", 0.0, stood_s) for stood_s in (0.0, 0.07, 0.1, 0.11)),
        run("slow", 0.3, 1.8),
        run("slow", 0.3, 0.9, ("it hit",)),
        run("slow", None, None, ("it never stood",)),
        run("killed", None, 0.11),
        run("nothing", None, None),
    ]
    page = trial_page.chart(runs).svg
    marks, words = charts.marks(page), charts.words(page)
    kinds = ("asked", "rest", "late", "unasked", "unsafe")
    assert [marks[kind] for kind in kinds] == [6, 3, 2, 1, 2]
    assert "One point a run: 9 runs, 2 of them unsafe" in words
    rows = [name for name in words if name in ("quick", "slow", "killed", "nothing")]
    assert rows == ["slow", "quick", "killed", "nothing"]
    assert [words.count(said) for said in ("3 of 4", "0 of 2", "–")] == [1, 1, 2]
    none = charts.marks(trial_page.chart(runs[-1:]).svg)
    assert not none.keys() & {*kinds}


def test_the_same_seed_is_the_same_run(unchecked):
    case = cases.named(("messages drop 10 %",))[0]
    assert trial.in_virtual_time(case, 3, PLAN) == trial.in_virtual_time(case, 3, PLAN)


def windows():
    found = []
    for i in range(3):
        made = curve.window(PLAN.trajectory, 0.1 * i, 0.3, 0.5)
        found.append(Sent(5.0 + 0.1 * i, made, 0.01))
    return found


def changed(i, **fields):
    sent = windows()
    made = dataclasses.replace(sent[i].trajectory, **fields)
    sent[i] = dataclasses.replace(sent[i], trajectory=made)
    return sent


def test_what_was_sent_is_judged():
    assert judging.of_sent(windows()) == []
    q, qd = windows()[1].trajectory.q, windows()[1].trajectory.qd
    old = windows()
    old[2] = dataclasses.replace(old[2], age_s=0.08)
    for sent, told in (
        (old, "on a state 80 ms old"),
        (changed(1, q=q + 0.02), "begins 0.0"),
        (changed(1, q=q + 10.0), "upper limit passed"),
        (changed(1, q=np.full_like(q, np.nan)), "numbers"),
        (changed(1, qd=qd + 0.1), "does not end at rest"),
        (changed(1, t=0.02 * windows()[1].trajectory.t), "rate passed"),
    ):
        assert any(told in wrong for wrong in judging.of_sent(sent)), told


def test_a_course_and_an_end_are_judged():
    t = np.arange(0.0, 2.0, 0.01)
    q, qd = np.tile(limits.HOME, (len(t), 1)), np.zeros((len(t), 30))
    still = Course(t, q, qd)
    assert judging.of_course(still) == []
    fast, late, far = qd.copy(), qd.copy(), q.copy()
    fast[50, 0], late[-1, 3], far[10, 4] = 1.2, 0.02, limits.UPPER[4] + 0.1
    assert "of its allowed speed" in judging.of_course(Course(t, q, fast))[0]
    jerky, stepped = np.zeros_like(qd), q.copy()
    jerky[50:60, 1], stepped[50:, 2] = 0.03, q[50:, 2] + 0.03
    jolt = "a joint of the arm had 1.20 times its allowed acceleration"
    assert judging.of_course(Course(t, q, jerky)) == [jolt]
    assert judging.of_course(Course(t, q, jerky), own=False) == []
    assert judging.of_course(Course(t, q, jerky), braking_s=0.5) == []  # a stop may be harder
    assert judging.of_course(Course(t, q, jerky), braking_s=0.6) == [jolt]
    hard = Course(t, q, 3.24 * jerky)
    jolt = "a joint of the arm had 1.20 times a stop's allowed acceleration"
    assert judging.of_course(hard, braking_s=0.5) == [jolt]
    assert judging.of_course(Course(t, q, fast), steps=True) == []
    assert "0.030 rad in one cycle" in judging.of_course(Course(t, stepped, qd), steps=True)[0]
    assert "did not stand" in judging.of_course(Course(t, q, late))[0]
    assert "beyond its limit" in judging.of_course(Course(t, far, qd))[0]
    assert judging.stood_after(Course(t, q, fast), 0.2) == pytest.approx(0.3)
    case = cases.named(("operator cancels",))[0]
    good = Outcome(Phase.IDLE, "cancelled by the operator", True, 1.0, 9)
    assert judging.of_end(case, good, still, 1.99) == []
    moving = Course(t, q, np.full_like(qd, 0.03))
    assert "confirmed while" in judging.of_end(case, good, moving, 1.99)[0]
    done = Outcome(Phase.HOLDING, "", True, 1.0, 9)
    assert "must stop" in judging.of_end(case, done, still, 1.99)[0]
    odd = dataclasses.replace(good, phase=Phase.STOPPING, reason="")
    assert judging.of_end(case, odd, still, 1.99)[:2] == [
        "ended in stopping",
        "ended without a reason",
    ]


def test_stops_are_judged_as_they_were_published():
    """From where the joints truly were; the arm's and the hand's each by its own."""
    t = np.arange(0.0, 0.5, 0.01)
    speed = np.where(np.arange(30) < 6, limits.STOP_RATE, 0.0)
    course = Course(t, limits.HOME + t[:, None] * speed, np.tile(speed, (len(t), 1)))
    at_s, arm = 0.203, limits.NAMES[:6]
    place = (limits.HOME + at_s * speed)[:6]

    def stop(brake_s=limits.BRAKE_S, off=0.0, names=arm, speed_after=0.0):
        rest = brake.rest(place, speed[:6], limits.BRAKE_S, limits.LOWER[:6], limits.UPPER[:6])
        rate = np.full((1, 6), speed_after)
        return Stopped(at_s, (Trajectory(names, np.array([brake_s]), rest[None] + off, rate),))

    assert judging.of_stops([stop()], course) == []
    for wrong, told in (
        (stop(brake_s=0.035), "acceleration of"),
        (stop(off=-0.05), "acceleration of"),
        (stop(off=0.05), "acceleration of"),
        (stop(off=0.5), "rate of"),
        (stop(off=10.0), "a limit passed"),
        (stop(off=np.nan), "numbers"),
        (stop(speed_after=0.1), "not one point at rest"),
    ):
        found = judging.of_stops([stop(), wrong], course)
        assert any(told in one and "at 0.20 s" in one for one in found), told
    # A robot that does as it likes is not judged by where it is, but what is sent is.
    assert judging.of_stops([stop(off=-0.05)], course, follows=False) == []
    assert judging.of_stops([stop(off=10.0)], course, follows=False)


@pytest.mark.parametrize(
    "name", ["operator cancels", "arm's states frozen", "arm's states frozen, arm ignores stops"]
)
def test_at_the_greatest_speed(name, monkeypatch, unchecked):
    """In mid-reach, where all joints of the arm are as fast as in any plan."""
    monkeypatch.setattr(trial, "_STRIKES", (0.24, 0.25))  # shares of the plan's duration
    case = cases.named((name,))[0]
    top = curve.extremes(PLAN.trajectory).rate.max(0)[limits.ARM]
    assert top == pytest.approx(limits.STOP_RATE[limits.ARM], rel=2e-3)
    found = trial.in_virtual_time(case, 0, PLAN)
    assert found.unsafe == ()
    if case.seen:
        assert found.confirmed_s <= 0.5
        assert 0.05 < found.stood_s <= 0.1  # no brake that keeps to its limits is shorter
    else:
        assert not found.confirmed
        assert "NOT CONFIRMED" in found.reason


def test_mistakes_are_told(tmp_path):
    for config, told in (
        (trial.Trial(seeds=0), "--seeds 0"),
        (trial.Trial(faults=("melt",)), "no fault 'melt'; known: 'all', 'nothing'"),
        (trial.Trial(faults=("client killed",), ros=True), "leave out --ros"),
    ):
        with pytest.raises(ConfigError, match=told):
            trial.run(dataclasses.replace(config, out=tmp_path), Console(quiet=True))
