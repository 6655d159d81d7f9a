"""The executor under faults: never unsafe, always ended, always with a reason."""

import dataclasses
import json

import numpy as np
import pytest
from fake_robot import NEVER, TICK, Clock, FakeRobot, Fault

from robot import brake, curve, drive, executor, limits, trial
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
    # Asked again after a quarter of a second: too late for half a second, if it was fast.
    "stop slow": (NEVER, (Phase.IDLE, *STOPS), "stop confirmed|it stands after"),
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
    outcome = drive.run(robot, order, State(), cancel=cancel, clock=clock, sleep=sleep, **kwargs)
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
        State(),
        cancel=lambda: "the test" if robot.on("cancel ignored") else "",
        clock=clock,
        sleep=clock.sleep,
    )
    assert outcome.phase is Phase.FAULT
    assert executor.NOT_CONFIRMED in outcome.text()
    assert "it stands after" in outcome.reason  # for what was sent ends at rest
    assert len(robot.stops) > 3


def test_motion_stops_soon_after_a_fault(short_plan, leave):
    """Watchdog: silence is answered within 100 ms, and the robot stands within half a second."""
    for name in ("silent", "position nan", "aborted", "message frozen", "cancel"):
        for seed in range(3):
            outcome, robot, fault = drive_with(name, seed, short_plan, leave)
            began = robot.first_sent + fault.at
            assert robot.stops[0] - began <= 0.1 + 1e-9, (name, outcome)
            after = [v for t, v in robot.speeds if t > robot.stops[0] + limits.BRAKE_S + 0.06]
            assert not after or max(after) < 0.01


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
    assert all(e["to"] == [limits.NAMES[0]] and e["ok"] for e in sent)
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


NOISE = np.random.default_rng(5)


def joint_at(q, now, qd=None):
    """As encoders give it: never twice the same."""
    q = q + 1e-7 * NOISE.normal(size=30)
    return JointState(now - 500.0, now, limits.NAMES, q, np.zeros(30) if qd is None else qd)


def test_after_a_fault_no_run_starts_until_it_is_reset(short_plan, leave, tmp_path, monkeypatch):
    clock = Clock()
    fault = Fault("aborted", 0.3)
    robot = FakeRobot(clock, limits.HOME, fault, np.random.default_rng(0))
    clock.sleep(0.05)

    def run(state, **kwargs):
        order = Order(short_plan, leave(short_plan, clock.now))
        return drive.run(robot, order, state, clock=clock, sleep=clock.sleep, **kwargs)

    log = tmp_path / "log.jsonl"
    first = run(State(), log=log)
    assert first.phase is Phase.FAULT
    # The log tells why, and what was sent to stop.
    events = [json.loads(line) for line in log.read_text().splitlines()]
    assert "controller: aborted" in events[-1]["reason"]
    stop = next(e for e in events if e["event"] == "stop")
    assert stop["reason"] == "controller: aborted"
    assert stop["ok"]
    sent = len(robot.sent)
    again = run(first.state)
    assert again.phase is Phase.FAULT
    assert again.reason.startswith("refused: fault: reset first; controller: aborted")
    assert again.sent == 0
    assert len(robot.sent) == sent
    # A fault that is still there, or no news of the robot, is no reset.
    with monkeypatch.context() as patched:
        patched.setattr(robot, "faults", lambda: ("still aborted",))
        with pytest.raises(RobotError, match="still aborted"):
            drive.reset(robot, again.state, clock=clock, sleep=clock.sleep)
    robot.fault = dataclasses.replace(fault, name="silent", at=0.0)
    with pytest.raises(RobotError, match=r"stale|no joint state|does not stand"):
        drive.reset(robot, again.state, clock=clock, sleep=clock.sleep)
    robot.fault = Fault("none")
    clock.sleep(0.1)
    ready = drive.reset(robot, again.state, clock=clock, sleep=clock.sleep)
    assert ready.phase is Phase.IDLE
    assert run(ready).completed
    assert len(robot.sent) > sent


def test_a_second_run_after_a_good_one_starts(short_plan, leave):
    outcome, robot, _ = drive_with("none", 0, short_plan, leave)
    clock = robot.clock
    order = Order(short_plan, leave(short_plan, clock.now))
    again = drive.run(robot, order, outcome.state, clock=clock, sleep=clock.sleep)
    assert again.phase is Phase.IDLE
    assert "the plan starts at" in again.reason


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


@pytest.mark.parametrize("later_s", [0.0, 0.02])
def test_a_stop_from_the_greatest_speed_is_confirmed_in_half_a_second(leave, later_s):
    """An arm that hears of it so much later, and brakes no faster than it may."""
    plan = trial.motion()
    way, at_s = plan.trajectory, 1.1
    _, qd = (x[0] for x in curve.sample(way, np.array([at_s])))
    assert np.abs(qd)[limits.ARM] == pytest.approx(limits.STOP_RATE[limits.ARM], rel=1e-3)
    brake_s = float(brake.seconds(qd, limits.STOP_ACCELERATION, limits.STOP_JERK).max())
    state, now, took = State(), 100.0, None
    order = Order(plan, leave(plan, now))
    for i in range(300):
        t = i * TICK
        passed = np.clip(t - 0.005 - at_s - later_s, 0.0, brake_s)  # states are 5 ms old
        driven = min(t - 0.005, at_s + later_s)
        q, rate = (x[0] for x in curve.sample(way, np.array([driven])))
        if passed > 0.0:
            q = q + qd * passed * (1.0 - 0.5 * passed / brake_s)
            rate = qd * (1.0 - passed / brake_s)
        cancel = "the operator" if t >= at_s - 1e-9 else ""
        joint = dataclasses.replace(joint_at(q, now + t, rate), stamp_s=t)
        start = order if i == 0 else None
        state, _ = executor.step(state, Inputs(now + t, joint, start=start, cancel=cancel))
        if state.phase is Phase.IDLE:
            took = t - at_s
            break
    assert took is not None, state.reason
    assert took <= 0.5
    assert state.confirmed


def test_a_plan_from_whose_speed_no_stop_is_at_rest_in_time_is_not_started(leave):
    plan = trial.motion()
    plan = dataclasses.replace(plan, trajectory=curve.scaled(plan.trajectory, 1.02))
    inputs = Inputs(100.0, joint_at(limits.HOME, 100.0), start=Order(plan, leave(plan, 100.0)))
    state, commands = executor.step(State(), inputs)
    assert not commands
    assert "rad/s, a stop is at rest in time from 0.33" in state.refusal


@pytest.mark.parametrize("when", ["at rest", "in motion"])
def test_frozen_states_of_the_arm_alone_prove_nothing(leave, when):
    """The hand's go on coming, the arm ignores the stop: what repeats itself is not believed."""
    plan = trial.motion()
    frozen_at = 0.0 if when == "at rest" else 1.0
    state, now = State(), 100.0
    order = Order(plan, leave(plan, now))
    held, still = curve.sample(plan.trajectory, np.array([frozen_at]))
    for i in range(300):
        t = i * TICK
        q, qd = (x[0] for x in curve.sample(plan.trajectory, np.array([t])))
        joint = joint_at(q, now + t, qd)
        if t >= frozen_at:
            joint.q[limits.ARM], joint.qd[limits.ARM] = held[0, limits.ARM], still[0, limits.ARM]
        start = order if i == 0 else None
        state, _ = executor.step(state, Inputs(now + t, joint, start=start))
        if state.phase is Phase.FAULT:
            break
    assert state.phase is Phase.FAULT
    assert "ra_shoulder_pan_joint ... frozen" in state.reason
    assert not state.confirmed
    assert executor.NOT_CONFIRMED in state.reason


def test_a_stop_just_before_a_part_sets_out_needs_news_of_it(leave):
    """A hand that stands still is no proof where its driver repeats itself."""
    plan = trial.motion()
    for flickers in (True, False):
        state, now, begins = State(), 100.0, 2.15  # the fingers close from 2.2 s on
        order = Order(plan, leave(plan, now))
        for i in range(280):
            t = i * TICK
            q, qd = (x[0] for x in curve.sample(plan.trajectory, np.array([min(t, begins)])))
            joint = joint_at(q, now + t, qd if t < begins else None)
            if not flickers and t > begins - 0.2:
                joint.q[limits.PARTS[1]] = q[limits.PARTS[1]]
            cancel = "the operator" if t >= begins else ""
            start = order if i == 0 else None
            state, _ = executor.step(state, Inputs(now + t, joint, start=start, cancel=cancel))
        assert state.confirmed is flickers, state.reason


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
