"""The log of a run that went wrong tells why, and all that was asked of the robot."""

import json

import numpy as np
import pytest
from fake_robot import Clock, FakeRobot, Fault

from robot import drive, executor, limits
from robot.executor import Order, State


@pytest.mark.parametrize(
    ("fault", "why", "confirmed"),
    [
        ("silent", "joint states stale", False),
        ("jump", "jumped by 0.5", True),
        ("aborted", "controller: aborted", True),
        ("rejected", "goal rejected", True),
        ("client raises", "OSError: socket closed", False),
        ("ctrl-c twice", "cancelled by the operator (Ctrl-C)", True),
    ],
)
def test_the_log_says_why(short_plan, leave, tmp_path, fault, why, confirmed):
    clock, path = Clock(), tmp_path / "log.jsonl"
    lasts = 0.05 if fault == "jump" else 1e9
    robot = FakeRobot(
        clock, limits.HOME, Fault(fault, at=0.7, lasts=lasts), np.random.default_rng(0)
    )
    clock.sleep(0.05)
    order = Order(short_plan, leave(short_plan, clock.now))
    outcome = drive.run(robot, order, State(), log=path, clock=clock, sleep=clock.sleep)
    assert why in outcome.reason
    events = [json.loads(line) for line in path.read_text().splitlines()]
    kinds = [event["event"] for event in events]
    assert kinds[0] == "begin"
    assert kinds[-1] == "end"
    assert kinds.count("stop") >= 1
    # Nothing is sent after the first stop, which has the reason, as have the phases after it.
    first = kinds.index("stop")
    assert "send" not in kinds[first:]
    assert len(robot.sent) == kinds.count("send")
    for event in events[first:]:
        assert why in event["reason"], event
    assert events[-1]["phase"] == str(outcome.phase)
    assert events[-1]["confirmed"] is outcome.confirmed is confirmed
    assert (executor.NOT_CONFIRMED in events[-1]["reason"]) is not confirmed
    # Times rise, and are those of the run.
    times = [event["t"] for event in events[1:]]
    assert times == sorted(times)
    assert times[-1] == pytest.approx(outcome.seconds)
