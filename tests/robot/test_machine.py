"""The simulated robot without its network: it follows, holds, and fails as it is told to."""

import numpy as np
import pytest

from realdex_jax.hand.load import load
from robot import faults, machine, plant, presets
from robot.interface import Trajectory
from robot.plant import NAMES
from sim import objects

PRESET = presets.read("simulated")
ARM, HAND = PRESET.parts


def make(*texts, seed=0):
    given = [faults.parse(text, PRESET.joints) for text in texts]
    return machine.Machine(PRESET, plant.Kinematic(plant.home()), given, seed)


def move(part, by=0.3, seconds=1.0, points=21):
    q0 = plant.home()[[NAMES.index(n) for n in part.ours]]
    u = np.linspace(0.0, 1.0, points)[:, None]
    q = q0 + by * u * u * (3 - 2 * u) * np.ones(len(q0))
    return Trajectory(
        part.ours, seconds * u[:, 0], q, by * 6 * u * (1 - u) / seconds * np.ones(len(q0))
    )


ENCODERS = 6.0 * machine.FLICKER_RAD  # six standard deviations of what they add


def run(robot, seconds):
    return [robot.tick() for _ in range(round(seconds / machine.TICK_S))]


def reports(ticks):
    return [text for tick in ticks for text in tick.reports]


def arm_state(tick):
    return next(s for s in tick.states if s.names[0] == ARM.ours[0])


def columns(part):
    return [NAMES.index(n) for n in part.ours]


def test_both_controllers_follow_and_states_come_from_two_drivers():
    robot = make()
    robot.take("arm", move(ARM, 0.3), 0.0)
    robot.take("hand", move(HAND, 0.05), 0.0)
    ticks = run(robot, 1.2)
    assert reports(ticks) == []
    assert [s.names for s in ticks[-1].states] == [ARM.ours, HAND.ours]
    np.testing.assert_allclose(arm_state(ticks[-1]).q - plant.home()[:6], 0.3, atol=ENCODERS)
    np.testing.assert_allclose(ticks[-1].states[1].q - plant.home()[6:], 0.05, atol=ENCODERS)
    stamps = [arm_state(t).stamp_s for t in ticks]
    np.testing.assert_allclose(np.diff(stamps), machine.TICK_S)
    # Half the way at half the time, moving.
    np.testing.assert_allclose(arm_state(ticks[49]).q - plant.home()[:6], 0.15, atol=ENCODERS)
    assert (arm_state(ticks[49]).qd > 0.4).all()


def test_a_heartbeat_that_ends_stops_everything_once():
    robot = make()
    robot.take("arm", move(ARM), 0.0)
    run(robot, 0.4)
    robot.orphaned(0.05, 0.1)
    assert reports(run(robot, 0.05)) == []
    robot.orphaned(0.11, 0.1)
    robot.orphaned(0.12, 0.1)
    told = reports(run(robot, 0.5))
    assert told == [
        "/realdex_sim/scaled_joint_trajectory_controller aborted: no heartbeat for 0.11 s"
    ]
    last = run(robot, 0.05)
    assert not arm_state(last[-1]).qd.any()
    assert (arm_state(last[-1]).q - plant.home()[:6] < 0.25).all()


def test_silence_freeze_and_partition():
    robot = make("silent at=0.1 for=0.1", "freeze at=0.3 for=0.1", "partition at=0.5 for=0.1")
    robot.take("arm", move(ARM), 0.0)
    ticks = run(robot, 0.8)
    count = [len(t.states) for t in ticks]
    assert count[:10] == [2] * 10
    assert count[10:18] == [0] * 8
    frozen = [arm_state(t) for t in ticks[32:38]]
    assert len({f.q[0] for f in frozen}) == 1
    assert len({f.stamp_s for f in frozen}) == 6
    assert count[51:59] == [0] * 8
    # Meanwhile it moved on.
    assert arm_state(ticks[-1]).q[0] > frozen[0].q[0] + 0.1


@pytest.mark.parametrize("kind", ["silent", "freeze", "delay by=0.1"])
def test_states_of_one_part_fail_alone(kind):
    robot = make(f"{kind} part=arm at=0.1")
    robot.take("hand", move(HAND, 0.1), 0.0)
    robot.take("arm", move(ARM), 0.0)
    ticks = run(robot, 0.4)[12:]
    hand = [s for t in ticks for s in t.states if s.names == HAND.ours]
    arm = [s for t in ticks for s in t.states if s.names == ARM.ours]
    assert len(hand) == len(ticks)
    assert len({s.q[5] for s in hand}) == len(hand)
    if kind == "freeze":
        assert len(arm) == len(ticks)
        assert len({s.q[0] for s in arm}) == 1
    else:
        assert len(arm) == (0 if kind == "silent" else len(ticks) - 8)
    # And it moves on all the same.
    assert (robot.wanted()[columns(ARM)] > plant.home()[:6] + 0.08).all()


def test_encoders_flicker_and_a_live_joint_never_repeats_itself():
    seen = np.array([arm_state(t).q for t in run(make(), 1.0)])
    assert (np.diff(seen, axis=0) != 0.0).all()
    assert np.abs(seen - plant.home()[:6]).max() < ENCODERS


def test_a_controller_of_ros_takes_any_start():
    away = move(ARM)
    away = Trajectory(away.names, away.t, away.q + 0.05, away.qd)
    for any_start in (False, True):
        robot = machine.Machine(PRESET, plant.Kinematic(plant.home()), any_start=any_start)
        robot.take("arm", away, 0.0)
        told = reports(run(robot, 0.3))
        assert bool(told) is not any_start
        assert (robot.wanted()[0] > plant.home()[0] + 0.05) == any_start


def test_a_partition_keeps_commands_away():
    robot = make("partition for=0.2")
    robot.take("arm", move(ARM), 0.0)
    run(robot, 1.5)
    np.testing.assert_array_equal(robot.wanted(), plant.home())


def test_a_share_is_dropped_and_what_is_late_comes_late():
    ticks = run(make("drop by=0.3"), 5.0)
    share = 1 - sum(len(t.states) for t in ticks) / 1000
    assert abs(share - 0.3) < 0.06  # four standard deviations of 1000 draws
    other = run(make("drop by=0.3", seed=1), 5.0)
    assert [len(t.states) for t in other] != [len(t.states) for t in ticks]
    ticks = run(make("delay by=0.05 for=10"), 0.3)
    assert [len(t.states) for t in ticks[:5]] == [0] * 5
    assert arm_state(ticks[10]).stamp_s == pytest.approx(0.06)


def test_out_of_order():
    stamps = [
        s.stamp_s for t in run(make("disorder"), 0.2) for s in t.states if s.names == ARM.ours
    ]
    assert (np.diff(stamps) < 0).any()
    assert sorted(stamps) == pytest.approx(np.arange(1, 21) * machine.TICK_S)


def test_a_stuck_joint_breaks_the_path_tolerance():
    robot = make("stuck joint=ra_elbow_joint at=0.2")
    robot.take("arm", move(ARM, 0.6), 0.0)
    told = reports(run(robot, 1.5))
    assert len(told) == 1
    assert "aborted: ra_elbow_joint is 0.2" in told[0]


@pytest.mark.parametrize("kind", ["abort", "death", "estop"])
def test_controllers_that_give_up_hold(kind):
    robot = make(f"{kind} at=0.4 part=arm")
    robot.take("arm", move(ARM), 0.0)
    ticks = run(robot, 1.2)
    end = arm_state(ticks[-1])
    assert not end.qd.any()
    assert (end.q - plant.home()[:6] > 0.05).all()
    assert (end.q - plant.home()[:6] < 0.2).all()
    assert robot.dead == (frozenset({"arm"}) if kind == "death" else frozenset())
    assert len(reports(ticks)) == (kind != "death")


def test_refusals_deafness_and_a_slow_slider():
    robot = make("reject part=arm for=0.1", "deaf part=hand for=0.1", "slow by=0.5 at=0.2")
    robot.take("arm", move(ARM), 0.0)
    robot.take("hand", move(HAND), 0.0)
    told = reports(run(robot, 0.2))
    assert told == [
        "/realdex_sim/scaled_joint_trajectory_controller rejected a trajectory: not accepting goals"
    ]
    robot.take("arm", move(ARM, 0.2), robot.time_s)
    run(robot, 1.0)
    np.testing.assert_allclose(robot.wanted()[columns(ARM)] - plant.home()[:6], 0.1, atol=2e-3)
    np.testing.assert_array_equal(robot.wanted()[columns(HAND)], plant.home()[6:])
    run(robot, 1.2)
    np.testing.assert_allclose(robot.wanted()[columns(ARM)] - plant.home()[:6], 0.2, atol=1e-9)


def test_orders_and_a_reset():
    robot = make()
    robot.order("death part=hand")
    robot.order("melt")
    told = reports(run(robot, 0.05))
    assert len(told) == 1
    assert "no fault 'melt'" in told[0]
    assert robot.dead == {"hand"}
    robot.take("arm", move(ARM), robot.time_s)
    run(robot, 1.2)
    robot.order("reset")
    ticks = run(robot, 0.05)
    assert robot.dead == frozenset()
    np.testing.assert_allclose(arm_state(ticks[-1]).q, plant.home()[:6], atol=ENCODERS)


def test_physics_follows_and_knows_the_object():
    shape = objects.make("mug")
    pose = plant.at_rest(shape)
    robot = machine.Machine(PRESET, plant.Physical(load("shadow"), shape, pose, plant.home()))
    robot.take("arm", move(ARM, 0.1), 0.0)
    ticks = run(robot, 1.3)
    assert reports(ticks) == []
    # The arm lags by less than half a milliradian; the mug stands, settled into the table.
    np.testing.assert_allclose(arm_state(ticks[-1]).q - plant.home()[:6], 0.1, atol=5e-4)
    np.testing.assert_allclose(ticks[-1].wxyz_xyz_world_object, pose, atol=1e-3)


def test_home_is_where_it_says():
    import jax.numpy as jnp

    from realdex_jax import arm
    from sim.demonstrate import MEAN_START, P_WORLD_BASE

    R, p = arm.palm_pose(jnp.asarray(plant.HOME, jnp.float32))
    # Four decimals of an angle are a tenth of a millimetre at a metre.
    np.testing.assert_allclose(p + np.array(P_WORLD_BASE), MEAN_START, atol=5e-4)
    np.testing.assert_allclose(R, [[0, 0, 1], [1, 0, 0], [0, 1, 0]], atol=1e-3)
