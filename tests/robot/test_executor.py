"""The executor under faults: never unsafe, always ended, always with a reason."""

import dataclasses
import json

import numpy as np
import pytest
from fake_robot import NEVER, TICK, Clock, FakeRobot, Fault

from robot import curve, drive, executor, limits
from robot.executor import ExecutorConfig, Inputs, Order, Phase, Send, State, Stop
from robot.interface import JointState, RobotError

# Name: how long it lasts (s), in which phases a run may end, and what the reason says.
STOPS = (Phase.FAULT,)
ENDS = (Phase.HOLDING,)
EITHER = (*STOPS, *ENDS)
FAULTS = {
    "none": (NEVER, ENDS, ""),
    "silent 20 ms": (0.02, ENDS, ""),
    "silent 40 ms": (0.04, EITHER, ""),
    "silent 100 ms": (0.1, STOPS, "stale"),
    "silent 500 ms": (0.5, STOPS, "stale"),
    "silent": (NEVER, STOPS, "stale"),
    "message frozen": (NEVER, STOPS, "stale"),
    "values frozen": (NEVER, STOPS, "frozen"),
    "frozen at rest": (NEVER, STOPS, "frozen|off its set point"),
    "position nan": (NEVER, STOPS, "not finite"),
    "velocity inf": (NEVER, STOPS, "not finite"),
    "stamp nan": (NEVER, STOPS, "its time is not finite"),
    "jump": (0.05, STOPS, "jumped by|beyond its limit"),
    "too fast": (0.05, STOPS, "7.000 rad/s"),
    "beyond a limit": (NEVER, STOPS, "beyond its limit|jumped"),
    "out of order": (NEVER, ENDS, ""),
    "late 30 ms": (NEVER, ENDS, ""),
    "late 200 ms": (NEVER, STOPS, "stale"),
    "duplicate joint": (NEVER, STOPS, "twice"),
    "missing joint": (NEVER, STOPS, "missing"),
    "shuffled names": (NEVER, ENDS, ""),
    "states drop 10 %": (NEVER, ENDS, ""),
    "commands drop 10 %": (NEVER, ENDS, ""),
    "rejected": (NEVER, STOPS, "goal rejected"),
    "aborted": (NEVER, STOPS, "aborted"),
    "controller dead": (NEVER, EITHER, "off its set point|frozen|"),
    "joint stuck": (NEVER, EITHER, "ra_shoulder_lift_joint is|"),
    "emergency stop": (NEVER, STOPS, "emergency stop"),
    "network cut": (NEVER, STOPS, "stale"),
    "speed scale 0": (NEVER, EITHER, "off its set point|"),
    "speed scale 0.1": (NEVER, EITHER, "off its set point|"),
    "clock forward": (NEVER, EITHER, "jumped|stale|"),
    "clock backward": (NEVER, STOPS, "stale"),
    "client raises": (NEVER, STOPS, "socket closed"),
    "client late": (NEVER, STOPS, "late|stale"),
    "ctrl-c twice": (NEVER, (Phase.IDLE,), "operator"),
    "cancel": (NEVER, (Phase.IDLE,), "cancelled by the test"),
    # In the parts in which nothing moves it stands, whether it listens or not.
    "cancel ignored": (NEVER, (*STOPS, Phase.IDLE), f"{executor.NOT_CONFIRMED}|stop confirmed"),
    "stop slow": (NEVER, (Phase.IDLE,), "confirmed"),
    "stop raises": (NEVER, STOPS, "stop service is gone"),
}
CANCELLED = ("cancel", "cancel ignored", "stop slow", "stop raises")
UNCONFIRMED = ("silent", "message frozen", "values frozen", "frozen at rest", "network cut")
"""Faults after which nothing shows whether the robot stands."""


def drive_with(name, seed, plan, leave, **kwargs):
    """One run under a fault that begins at a random time of it."""
    rng = np.random.default_rng([seed, *name.encode()])
    clock = Clock()
    end = float(plan.trajectory.t[-1])
    fault = Fault(name, rng.uniform(0.05, 0.9 * end), FAULTS[name][0])
    robot = FakeRobot(clock, limits.HOME, fault, rng)
    late = [fault.at]

    def cancel():
        on = robot.on(*CANCELLED)
        return "the test" if on else ""

    def sleep(seconds):
        stalls = robot.on("client late") and late
        clock.sleep(seconds + (0.4 if stalls else 0.0))
        if stalls:
            late.clear()

    clock.sleep(0.05)
    order = Order(plan, leave(plan, clock.now))
    outcome = drive.run(robot, order, cancel=cancel, clock=clock, sleep=sleep, **kwargs)
    return outcome, robot, fault


def check_safe(name, outcome, robot, fault):
    """The invariants of every run."""
    phases, said = FAULTS[name][1:]
    assert outcome.phase in phases, (outcome, fault)
    assert outcome.phase in (Phase.HOLDING, Phase.IDLE, Phase.FAULT)
    if outcome.phase is not Phase.HOLDING:
        assert outcome.reason
        assert any(one in outcome.reason for one in said.split("|")), outcome
        assert robot.stops  # it was asked to stop
        last = robot.sent[-1][0]
        assert last <= robot.stops[0] + 1e-9  # and nothing was sent after
        if outcome.confirmed:  # then it is true
            end = robot.clock.now
            assert max(v for t, v in robot.speeds if t > end - 0.15) < 0.02
    if name in UNCONFIRMED:
        assert not outcome.confirmed
        assert executor.NOT_CONFIRMED in outcome.text()
    check_sent(robot)
    # Whoever is not heard, what was sent ends at rest: so the robot does.
    robot.fault = dataclasses.replace(robot.fault, name="over")
    robot.clock.sleep(1.0)
    robot.advance()
    assert robot.speeds[-1][1] < 0.01


def check_sent(robot):
    """What was really sent: on fresh states only, within limits, without steps, ending at rest."""
    before = None
    for t, window, age in robot.sent:
        assert age <= ExecutorConfig().stale_s + TICK + 1e-9
        found = curve.extremes(window, from_rest=False)
        assert (found.high <= limits.UPPER + 1e-6).all()
        assert (found.low >= limits.LOWER - 1e-6).all()
        assert (found.rate <= limits.MAX_RATE + 1e-6).all()
        assert (found.acceleration <= limits.MAX_ACCELERATION).all()
        assert (found.jerk <= limits.MAX_JERK).all()
        assert np.abs(window.qd[-1]).max() < 1e-9
        assert window.names == limits.NAMES
        if before is not None:
            was, _ = curve.sample(before[1], np.array([t - before[0]]))
            # The new command begins where the one before would be, or a hundredth off.
            assert np.abs(was[0] - window.q[0]).max() < 0.01
        before = t, window


@pytest.mark.parametrize("name", list(FAULTS))
def test_no_fault_is_unsafe(name, short_plan, leave):
    """At one time; `python -m robot.trial` has twenty for each."""
    check_safe(name, *drive_with(name, 0, short_plan, leave))


def test_a_cancel_that_is_ignored_is_reported(short_plan, leave):
    """In mid-reach."""
    clock = Clock()
    fault = Fault("cancel ignored", short_plan.ends[0] - 1.0)
    robot = FakeRobot(clock, limits.HOME, fault, np.random.default_rng(0))
    clock.sleep(0.05)
    outcome = drive.run(
        robot,
        Order(short_plan, leave(short_plan, clock.now)),
        cancel=lambda: "the test" if robot.on("cancel ignored") else "",
        clock=clock,
        sleep=clock.sleep,
    )
    assert outcome.phase is Phase.FAULT
    assert executor.NOT_CONFIRMED in outcome.text()
    assert "it stands after" in outcome.reason  # for what was sent ends at rest
    assert len(robot.stops) > 4


def test_motion_stops_soon_after_a_fault(short_plan, leave):
    """Watchdog: silence is answered within 100 ms, and the robot stands within half a second."""
    for name in ("silent", "position nan", "aborted", "message frozen", "cancel"):
        for seed in range(3):
            outcome, robot, fault = drive_with(name, seed, short_plan, leave)
            began = robot.first_sent + fault.at
            assert robot.stops[0] - began <= 0.1 + 1e-9, (name, outcome)
            after = [v for t, v in robot.speeds if t > robot.stops[0] + 0.1]
            assert not after or max(after) < 0.05


def test_a_plan_is_driven_to_its_end_and_logged(short_plan, leave, tmp_path):
    path = tmp_path / "logs" / "run.jsonl"
    outcome, robot, _ = drive_with("none", 0, short_plan, leave, log=path)
    assert outcome.completed
    assert outcome.confirmed
    end = float(short_plan.trajectory.t[-1])
    assert outcome.seconds == pytest.approx(end, abs=0.1)
    assert np.abs(robot.q - short_plan.trajectory.q[-1]).max() < 1e-3
    events = [json.loads(line) for line in path.read_text().splitlines()]
    assert [e["event"] for e in events[:3]] == ["begin", "send", "phase"]
    assert events[-1]["event"] == "end"
    phases = [e["phase"] for e in events if e["event"] == "phase"]
    assert phases == ["approaching", "grasping", "lifting", "holding"]
    sent = [e for e in events if e["event"] == "send"]
    assert len(sent) == len(robot.sent) == outcome.sent
    for event, (_, window, _) in zip(sent, robot.sent, strict=True):
        for field in ("t", "q", "qd"):
            np.testing.assert_array_equal(event[f"points_{field}"], getattr(window, field))
    with pytest.raises(RobotError, match="nothing was sent"):
        drive_with("none", 0, short_plan, leave, log=path)


def test_a_log_that_fails_stops_the_run(short_plan, leave, tmp_path, monkeypatch):
    real = json.dumps
    calls = []

    def full(event, **kwargs):
        calls.append(event)
        if len(calls) > 20:
            raise OSError(28, "No space left on device")
        return real(event, **kwargs)

    monkeypatch.setattr("robot.drive.json.dumps", full)
    outcome, robot, _ = drive_with("none", 0, short_plan, leave, log=tmp_path / "x.jsonl")
    assert outcome.phase is Phase.FAULT
    assert "No space left" in outcome.reason
    assert robot.stops


def test_a_killed_client_leaves_a_robot_at_rest(short_plan, leave):
    clock = Clock()
    rng = np.random.default_rng(0)
    robot = FakeRobot(clock, limits.HOME, Fault("none"), rng)
    clock.sleep(0.05)
    state = State()
    order = Order(short_plan, leave(short_plan, clock.now))
    for i in range(150):
        inputs = Inputs(clock.now, robot.state(), start=order if i == 0 else None)
        state, commands = executor.step(state, inputs)
        for command in commands:
            assert isinstance(command, Send)
            robot.send(command.trajectory)
        clock.sleep(TICK)
    assert state.phase is Phase.APPROACHING
    assert robot.speeds[-1][1] > 0.02
    clock.sleep(0.95)  # 0.3 s ahead and 0.5 s to brake
    robot.advance()
    assert robot.speeds[-1][1] < 0.001
    # It stands on the path.
    way, _ = curve.sample(short_plan.trajectory, np.linspace(0.0, 3.0, 3001))
    assert np.abs(way - robot.q).max(1).min() < 0.002


def joint_at(q, now, qd=None):
    return JointState(now - 500.0, now, limits.NAMES, q, np.zeros(30) if qd is None else qd)


def test_what_must_not_start_does_not(short_plan, leave):
    now, home = 100.0, joint_at(limits.HOME, 100.0)

    def refused(match, joint=home, order=None, **kwargs):
        order = order or Order(short_plan, leave(short_plan, now))
        state, commands = executor.step(State(), Inputs(now, joint, start=order, **kwargs))
        assert state.phase is Phase.IDLE
        assert not commands
        assert match in state.refusal

    refused(
        "did not pass: hand in table",
        order=Order(short_plan, leave(short_plan, now, ("hand in table",))),
    )
    other = dataclasses.replace(
        short_plan, trajectory=curve.scaled(short_plan.trajectory, 1.0 + 1e-12)
    )
    refused("another trajectory", order=Order(other, leave(short_plan, now)))
    refused("30.0 s old", order=Order(short_plan, leave(short_plan, now - 30.0)))
    refused("-1.0 s old", order=Order(short_plan, leave(short_plan, now + 1.0)))
    refused("no joint state", joint=None)
    refused("60 ms old", joint=joint_at(limits.HOME, now - 0.06))
    off = limits.HOME.copy()
    off[7] += 0.011
    refused("rh_WRJ1 is at 0.0110 rad", joint=joint_at(off, now))
    refused("the robot moves: ra_elbow", joint=joint_at(limits.HOME, now, np.eye(30)[2] * 0.1))
    refused("protective stop", faults=("protective stop",))
    refused("operator", cancel="operator")
    wrong = dataclasses.replace(home, names=tuple(f"la{n[2:]}" for n in limits.NAMES))
    refused("missing", joint=wrong)
    state, commands = executor.step(
        State(), Inputs(now, home, start=Order(short_plan, leave(short_plan, now)))
    )
    assert state.phase is Phase.APPROACHING
    assert [type(c) for c in commands] == [Send]


def test_after_a_fault_nothing_resumes_until_reset(short_plan, leave):
    order = Order(short_plan, leave(short_plan, 100.0))
    state, now = State(), 100.0

    def go(q=limits.HOME, **kwargs):
        nonlocal state, now
        now += TICK
        state, commands = executor.step(state, Inputs(now, joint_at(q, now), **kwargs))
        return commands

    go(start=order)
    assert state.phase is Phase.APPROACHING
    assert [type(c) for c in go(faults=("aborted",))] == [Stop]
    assert state.phase is Phase.STOPPING
    for _ in range(25):
        go()
    assert state.phase is Phase.FAULT
    assert state.confirmed
    assert "aborted; stop confirmed after 0.2" in state.reason
    assert not go(start=order)
    assert "reset first" in state.refusal
    assert state.phase is Phase.FAULT
    go(reset=True, faults=("still aborted",))
    assert state.phase is Phase.FAULT
    assert "reset refused: still aborted" in state.refusal
    go(reset=True)
    assert state.phase is Phase.IDLE
    assert [type(c) for c in go(start=order)] == [Send]
    assert not [c for c in go(start=order) if isinstance(c, Stop)]
    assert "already driving" in state.refusal


def test_a_stop_is_believed_only_if_places_agree_with_speeds(short_plan, leave):
    """A robot that says it stands while its joints creep on is reported."""
    order = Order(short_plan, leave(short_plan, 100.0))
    state, now, q = State(), 100.0, limits.HOME.copy()
    state, _ = executor.step(state, Inputs(now, joint_at(q, now), start=order))
    state, _ = executor.step(state, Inputs(now + 0.01, joint_at(q, now + 0.01), cancel="me"))
    for i in range(2, 60):
        q = q + 0.002
        at = now + i * TICK
        state, _ = executor.step(state, Inputs(at, joint_at(q, at)))
    assert state.phase is Phase.FAULT
    assert not state.confirmed
    assert state.reason.startswith(executor.NOT_CONFIRMED)
