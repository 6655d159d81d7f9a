"""Preflight: what physics predicts, the verdict, and that driving does as predicted."""

import dataclasses
import time

import numpy as np
import pytest
from fake_robot import Clock, PhysicsRobot
from small_motion import SHORT

from robot import curve, drive, executor, limits, preflight
from robot.executor import Inputs, Order, Phase, State
from robot.gate import GateConfig
from robot.interface import JointState
from robot.plan import plan
from sim import workcell
from sim.lift import Reason
from sim.physics import LiftPhysics

PATIENT = GateConfig(max_age_s=60.0)


def home():
    return JointState(0.0, time.monotonic(), limits.NAMES, limits.HOME, np.zeros(30))


@pytest.fixture(scope="module")
def verdict(hand, job):
    return preflight.preflight(
        hand, job.shape, job.placed, job.plan, home(), gate_config=PATIENT, cell=job.cell
    )


def test_a_good_plan_passes_and_is_bound_to_its_verdict(verdict, job):
    assert verdict.passed, verdict.text()
    assert verdict.digest == curve.digest(job.plan.trajectory)
    assert verdict.replay.lifted
    assert verdict.replay.risen_m == pytest.approx(SHORT.lift_m, abs=0.02)
    assert verdict.replay.arm_error_rad < 0.005
    assert "PASSED" in verdict.text()
    assert "lifted and held" in verdict.text()
    assert "<pre>preflight PASSED" in verdict.as_html()


def test_the_video_shows_the_replay(verdict, hand, job, tmp_path):
    film = verdict.replay.film
    assert film.time[-1] == pytest.approx(job.plan.trajectory.t[-1], abs=0.1)
    np.testing.assert_allclose(film.wxyz_xyz_world_object[0], job.placed, atol=1e-3)
    path = preflight.write_video(tmp_path / "a.mp4", hand, job.shape, verdict, every=30)
    assert path is not None
    assert path.stat().st_size > 2000


def test_what_the_gate_refuses_is_not_replayed(hand, job):
    elsewhere = dataclasses.replace(home(), q=limits.HOME + 0.02)
    found = preflight.preflight(
        hand, job.shape, job.placed, job.plan, elsewhere, gate_config=PATIENT, cell=job.cell
    )
    assert not found.passed
    assert found.replay is None
    assert "start: " in found.text()
    assert preflight.write_video("never.mp4", hand, job.shape, found) is None


def replay(hand, job, placed=None, made=None, physics=None):
    cell = workcell.build(hand, job.shape, job.placed if placed is None else placed, physics)
    return preflight.replay(cell, made or job.plan, physics=physics)


def test_an_object_that_stands_elsewhere_is_not_lifted(hand, job):
    moved = job.placed.copy()
    moved[5] += 0.3
    seen = replay(hand, job, moved)
    assert seen.reason is Reason.DROPPED
    assert "object left on the table" in seen.faults()[0]


def test_a_plan_is_tried_in_places_about_the_object(job, monkeypatch):
    assert preflight.aside(job.cell, job.plan) == preflight.PLACES
    monkeypatch.setattr(preflight, "ASIDE_M", 0.3)
    assert preflight.aside(job.cell, job.plan) == 0


def test_an_object_that_is_too_heavy_is_not_lifted(hand, job):
    seen = replay(hand, job, physics=LiftPhysics(mass=20.0))
    assert not seen.lifted


def test_an_object_in_the_way_of_the_arm_is_a_collision(hand, job):
    """Under the wrist, where only the forearm comes by: the gate does not know the object."""
    at_grasp = job.plan.trajectory.q[np.searchsorted(job.plan.trajectory.t, job.plan.ends[0])]
    data = workcell.start(job.cell, at_grasp)
    forearm = data.body("rh_forearm").xpos + 0.05 * data.body("rh_forearm").xmat.reshape(3, 3)[:, 2]
    moved = job.placed.copy()
    moved[4:6] = forearm[:2]
    seen = replay(hand, job, moved)
    told = " ".join(seen.faults())
    assert "arm" in seen.touches
    assert "collision, arm" in told
    assert "object" in told


def test_a_hand_that_grasps_too_low_is_refused(hand, job):
    """The arm stays clear, so there is a plan; the fingers would not."""
    for drop in (0.02, 0.04, 0.06):
        phi = job.phi.copy()
        phi[:, 24] -= drop * np.linspace(0.0, 1.0, len(phi))
        made = plan(hand, phi, job.q_squeeze, limits.HOME, SHORT)
        found = preflight.preflight(
            hand, job.shape, job.placed, made, home(), gate_config=PATIENT, cell=job.cell
        )
        if any("hand to table" in fault for fault in found.faults):
            break
    assert not found.passed
    assert any("hand to table" in fault for fault in found.faults), found.text()
    # And physics, asked alone, agrees.
    assert preflight.replay(job.cell, made).faults()


def test_driving_does_what_the_preflight_said(verdict, job):
    clock = Clock()
    robot = PhysicsRobot(clock, job.cell, limits.HOME)
    clock.sleep(0.05)
    leave = dataclasses.replace(verdict, made_s=clock.now)
    outcome = drive.run(robot, Order(job.plan, leave), State(), clock=clock, sleep=clock.sleep)
    assert outcome.completed, outcome.text()
    rise = workcell.object_pose(job.cell, robot.data)[6] - job.placed[6]
    assert rise == pytest.approx(verdict.replay.risen_m, abs=0.01)
    q, _ = workcell.joint_state(job.cell, robot.data)
    asked = limits.DRIVEN @ job.plan.trajectory.q[-1]
    assert np.abs(limits.DRIVEN @ q - asked)[:6].max() < 0.005


@pytest.mark.parametrize("at", [0.3, 1.2, 4.0])
def test_a_cancel_stops_the_robot_in_physics(verdict, job, at):
    clock = Clock()
    robot = PhysicsRobot(clock, job.cell, limits.HOME)
    clock.sleep(0.05)
    leave = dataclasses.replace(verdict, made_s=clock.now)
    begun = clock.now
    outcome = drive.run(
        robot,
        Order(job.plan, leave),
        State(),
        clock=clock,
        sleep=clock.sleep,
        cancel=lambda: "the operator" if clock.now - begun > at else "",
    )
    assert outcome.phase is Phase.IDLE
    assert outcome.confirmed
    assert "cancelled by the operator; stop confirmed after 0." in outcome.reason


def test_without_a_pass_nothing_moves(verdict, job):
    now = verdict.made_s + 1.0
    state = JointState(0.0, now, limits.NAMES, limits.HOME, np.zeros(30))
    failed = dataclasses.replace(verdict, faults=("the hand hits the table",))
    slower = curve.scaled(job.plan.trajectory, 0.9)
    for order, why in (
        (Order(job.plan, failed), "hits the table"),
        (Order(dataclasses.replace(job.plan, trajectory=slower), verdict), "another trajectory"),
    ):
        after, commands = executor.step(State(), Inputs(now, state, start=order))
        assert after.phase is Phase.IDLE
        assert not commands
        assert why in after.refusal
