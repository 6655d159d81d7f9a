"""The gate: every kind of bad trajectory is refused and named, no good one is."""

import dataclasses
import itertools
import time

import mujoco
import numpy as np
import pytest
from mutation import MANY
from small_motion import SHORT, small_motion

from realdex_jax.hand import joints
from robot import clearance, curve, gate, limits, preflight
from robot.gate import GateConfig
from robot.interface import JointState, RobotError, Trajectory
from robot.plan import Plan, PlanConfig, plan
from sim import safety, workcell
from sim.safety import Part

NOW = 50.0
GUARDED = GateConfig(guarded=True)


def at_home(off=None, **kwargs):
    q = limits.HOME + (0.0 if off is None else off)
    fields = {"stamp_s": 1.0, "received_s": NOW - 0.01, "names": limits.NAMES, "q": q}
    return JointState(**{**fields, "qd": np.zeros(30), **kwargs})


def check(hand, trajectory, state=None, config=None):
    return gate.check(hand, trajectory, state or at_home(), NOW, config or GateConfig())


@pytest.fixture(scope="module")
def witness(cell):
    """What MuJoCo says touches: deepest contact (m) of arm, hand and table, hand and itself."""
    part = safety.parts(cell)

    def deepest(q):
        found = {"arm": 0.0, "table": 0.0, "self": 0.0}
        for row in q:
            data = workcell.start(cell, row)
            for pair, distance in zip(data.contact.geom, data.contact.dist, strict=True):
                kinds = set(part[pair].tolist())
                name = (
                    "arm"
                    if Part.ARM in kinds
                    else "table"
                    if kinds == {Part.SETTING, Part.HAND}
                    else "self"
                )
                if Part.OBJECT not in kinds:
                    found[name] = max(found[name], -float(distance))
        return found

    return deepest


def good_plans(hand, count, seed):
    """Plans that differ in motion, speed and mode."""
    rng = np.random.default_rng(seed)
    squeeze = joints.REST + 0.1 * (joints.REST > 0.3)
    made = 0
    while made < count:
        phi = small_motion(rng)
        config = dataclasses.replace(
            SHORT, speed=rng.uniform(0.4, 1.0), guarded=bool(rng.integers(2))
        )
        try:
            found = plan(hand, phi, squeeze, limits.HOME, config)
        except RobotError:
            continue  # drawn out of reach
        made += 1
        off = rng.uniform(-0.0095, 0.0095, 30)
        yield found.trajectory, at_home(off), GateConfig(guarded=config.guarded)


# Mutations: each changes a good trajectory (or the state) and says which rule should refuse it.


def ramp(t, rng):
    """From 0 to 1 by minimum jerk over most of the time, at rest at both ends."""
    begin, end = rng.uniform(0.0, 0.2), rng.uniform(0.7, 0.9)
    u = np.clip((t / t[-1] - begin) / (end - begin), 0.0, 1.0)
    share = u**3 * (10.0 - 15.0 * u + 6.0 * u**2)
    rate = 30.0 * u**2 * (1.0 - u) ** 2 / ((end - begin) * t[-1])
    return share[:, None], rate[:, None]


def added(made, change, rng):
    """The trajectory with a smooth change, slowed down until nothing else is broken."""
    share, rate = ramp(made.t, rng)
    made = dataclasses.replace(made, q=made.q + share * change, qd=made.qd + rate * change)
    found = curve.extremes(made)
    slow = max(
        (found.rate / limits.MAX_RATE).max(),
        np.sqrt((found.acceleration / limits.MAX_ACCELERATION).max()),
        np.cbrt((found.jerk / limits.MAX_JERK).max()),
        1.0,
    )
    return curve.scaled(made, 0.95 / slow)


def over_limit(hand, made, state, rng, witness):
    j = int(rng.choice([2, 6, 7, *range(8, 30)]))  # the others have room for a whole turn
    up = rng.random() < 0.5
    beyond = 0.01 * (limits.UPPER[j] - limits.LOWER[j])
    goal = limits.UPPER[j] + beyond if up else limits.LOWER[j] - beyond
    change = np.zeros(30)
    change[j] = goal - made.q[-1, j]
    return added(made, change, rng), state, GateConfig(), "upper limit" if up else "lower limit"


def too_fast(hand, made, state, rng, witness):
    ratio = (curve.extremes(made).rate / limits.MAX_RATE).max()
    return curve.scaled(made, rng.uniform(1.01, 3.0) / ratio), state, GateConfig(), "rate"


def too_abrupt(hand, made, state, rng, witness):
    ratio = (curve.extremes(made).acceleration / limits.MAX_ACCELERATION).max()
    speed = np.sqrt(rng.uniform(1.02, 4.0) / ratio)
    return curve.scaled(made, speed), state, GateConfig(), "acceleration"


def jerky(hand, made, state, rng, witness):
    if rng.random() < 0.5:
        ratio = (curve.extremes(made).jerk / limits.MAX_JERK).max()
        return curve.scaled(made, np.cbrt(rng.uniform(1.03, 4.0) / ratio)), state, None, "jerk"
    k, j = int(rng.integers(1, len(made.t) - 1)), int(rng.integers(30))
    qd = made.qd.copy()
    # The jump of acceleration at a point whose speed is off by d is 8 d / h, over h.
    h = made.t[k + 1] - made.t[k]
    qd[k, j] += rng.choice([-1, 1]) * limits.MAX_JERK[j] * h**2 / 8.0 * rng.uniform(2.0, 5.0)
    return dataclasses.replace(made, qd=qd), state, None, "jerk"


def not_finite(hand, made, state, rng, witness):
    field = str(rng.choice(["t", "q", "qd"]))
    value = np.array(getattr(made, field))
    value.flat[int(rng.integers(value.size))] = rng.choice([np.nan, np.inf, -np.inf])
    return dataclasses.replace(made, **{field: value}), state, None, "finite"


def times(hand, made, state, rng, witness):
    t, k = made.t.copy(), int(rng.integers(1, len(made.t) - 1))
    kind = rng.integers(4)
    if kind == 0:
        t[k] = t[k - 1]
    elif kind == 1:
        t[[k, k + 1]] = t[[k + 1, k]]
    elif kind == 2:
        t[k:] += 1.0
    else:
        t += 0.1
        return dataclasses.replace(made, t=t), state, None, "first time"
    return dataclasses.replace(made, t=t), state, None, "time step"


def wrong_names(hand, made, state, rng, witness):
    names = list(made.names)
    a, b = rng.choice(30, 2, replace=False)
    kind = rng.integers(4)
    if kind == 0:
        names[a], names[b] = names[b], names[a]
    elif kind == 1:
        names[a] = names[b]
    elif kind == 2:
        names[a] = names[a].replace("r", "l", 1)
    else:
        keep = np.delete(np.arange(30), a)
        names.pop(a)
        return (
            dataclasses.replace(made, names=tuple(names), q=made.q[:, keep], qd=made.qd[:, keep]),
            state,
            None,
            "shape",
        )
    return dataclasses.replace(made, names=tuple(names)), state, None, "names"


def elsewhere(hand, made, state, rng, witness):
    off = np.zeros(30)
    off[rng.integers(30)] = rng.choice([-1, 1]) * rng.uniform(0.0101, 1.0)
    return made, at_home(off), None, "start"


def state_old(hand, made, state, rng, witness):
    age = rng.choice([rng.uniform(0.051, 10.0), -rng.uniform(0.01, 1.0)])
    return made, dataclasses.replace(state, received_s=NOW - age), None, "state age"


def state_odd(hand, made, state, rng, witness):
    names = list(state.names)
    a, b = rng.choice(30, 2, replace=False)
    names[a] = names[b]
    return made, dataclasses.replace(state, names=tuple(names)), None, "state names"


def state_nan(hand, made, state, rng, witness):
    q = state.q.copy()
    q[rng.integers(30)] = np.nan
    return made, dataclasses.replace(state, q=q), None, "start"


def moving_end(hand, made, state, rng, witness):
    fast = np.flatnonzero(np.abs(made.qd).max(1) > 1e-3)
    k = int(rng.choice(fast))
    cut = {name: getattr(made, name)[: k + 1] for name in ("t", "q", "qd")}
    if k < 2:
        k = 2
    return dataclasses.replace(made, **cut), state, None, "end at rest"


def collides(change, name, least):
    """A mutation that carries joints further until MuJoCo sees a collision."""

    def mutate(hand, made, state, rng, witness):
        direction = change(rng, made)
        shares = np.linspace(0.05, 1.0, 20)
        # Joints with limits must not pass them: only the collision should be found.
        ends = np.clip(made.q[-1] + shares[:, None] * direction, limits.LOWER, limits.UPPER)
        for end in ends:
            if witness(end[None])[name] > least:
                bad = added(made, end - made.q[-1], rng)
                return bad, state, GateConfig(), "collision"
        raise AssertionError(f"{name}: nothing touches on the way to {ends[-1]}")

    mutate.__name__ = name
    return mutate


def down(rng, made):
    change = np.zeros(30)
    change[1] = rng.uniform(1.3, 1.6)  # the shoulder lowers the whole arm
    return change


def fold(rng, made):
    change = np.zeros(30)
    change[2] = np.pi - made.q[-1, 2]
    change[1] = rng.uniform(-0.2, 0.0)
    return change


def cross(rng, made):
    """The first finger and the next across each other, half closed."""
    goal = made.q[-1].copy()
    for name, value in (("FFJ4", -0.349), ("MFJ4", 0.349), ("FFJ3", 0.7), ("MFJ3", 0.7)):
        goal[8 + joints.NAMES.index(name)] = value
    for name in ("FFJ2", "MFJ2", "FFJ1", "MFJ1"):
        goal[8 + joints.NAMES.index(name)] = 0.3
    return goal - made.q[-1]


def unguarded(hand, made, state, rng, witness):
    fastest = clearance.speeds(hand, made.q, made.qd).max()
    speed = limits.GUARDED_SPEED * rng.uniform(1.01, 2.0) / fastest
    return curve.scaled(made, speed), state, GUARDED, "guarded speed"


MUTATIONS = (
    over_limit,
    too_fast,
    too_abrupt,
    jerky,
    not_finite,
    times,
    wrong_names,
    elsewhere,
    state_old,
    state_odd,
    state_nan,
    moving_end,
    collides(down, "arm", 0.002),
    collides(down, "table", 0.004),
    collides(fold, "arm", 0.002),
    collides(cross, "self", 0.0075),
    unguarded,
)


def refuse_all(hand, witness, plans, rounds, seed):
    rng = np.random.default_rng(seed)
    count = 0
    for _ in range(rounds):
        for mutate in MUTATIONS:
            made, state, _ = plans[int(rng.integers(len(plans)))]
            bad, state, config, rule = mutate(hand, made, state, rng, witness)
            found = gate.check(hand, bad, state, NOW, config or GateConfig())
            assert rule in [r.rule for r in found], (mutate.__name__, list(map(str, found)))
            for refusal in found:
                assert refusal.joint
                assert "allowed" in str(refusal)
            count += 1
    return count


def test_mutated_trajectories_are_refused(hand, witness):
    plans = list(good_plans(hand, 4, seed=0))
    assert refuse_all(hand, witness, plans, 18, seed=1) >= 300


def test_good_trajectories_pass(hand):
    for made, state, config in good_plans(hand, 60, seed=2):
        assert gate.check(hand, made, state, NOW, config) == ()


@pytest.mark.slow
def test_many_mutated_trajectories_are_refused(hand, witness):
    """REALDEX_MUTATIONS=10000 for ten thousand of them, and a thousand good ones below."""
    plans = list(good_plans(hand, 40, seed=3))
    assert refuse_all(hand, witness, plans, MANY // len(MUTATIONS) + 1, seed=4) >= MANY


@pytest.mark.slow
def test_many_good_trajectories_pass(hand):
    from realdex_jax.data.store import open_dataset
    from sim import demonstrate, objects

    count = 0
    names = ("cosmetics", "mug", "yogurt", "magic_cube")
    for name in names[: max(4 * MANY // 10_000, 1)]:
        grasps = open_dataset("realdex-sim").grasps(name)
        motions, _ = demonstrate.demonstrate(hand, objects.make(name), grasps, 32, 0)
        rng = np.random.default_rng(0)
        for i in range(len(motions)):
            guarded = bool(i % 2)
            config = PlanConfig(speed=rng.uniform(0.3, 1.0), guarded=guarded)
            try:
                found = plan(hand, motions.poses(i), motions.q_squeeze[i], limits.HOME, config)
            except RobotError:
                continue  # the forearm is nearer to the table than it should be
            refused = check(hand, found.trajectory, config=GateConfig(guarded=guarded))
            assert refused == (), (name, i, refused)
            count += 1
    assert count >= 20
    for made, state, config in good_plans(hand, max(MANY // 10 - count, 20), seed=5):
        assert gate.check(hand, made, state, NOW, config) == ()


def test_refusals_name_joint_time_value_and_limit(hand, short_plan):
    made = short_plan.trajectory
    q = made.q.copy()
    q[120, 13] = np.nan
    (found,) = check(hand, dataclasses.replace(made, q=q))
    assert str(found) == f"finite: rh_MFJ3 at {made.t[120]:.3f} s is nan, allowed finite"
    off = np.zeros(30)
    off[4] = -0.02
    (found,) = check(hand, made, at_home(off))
    assert (found.rule, found.joint, found.limit) == ("start", "ra_wrist_2_joint", 0.01)
    assert found.value == pytest.approx(0.02)
    (found,) = gate.check(hand, made, None, NOW)
    assert "no state yet" in str(found)
    with pytest.raises(RobotError, match="trajectory refused: start: ra_wrist_2_joint"):
        gate.ensure(hand, made, at_home(off), NOW)
    gate.ensure(hand, made, at_home(), NOW)


def test_states_in_any_order_are_understood(hand, short_plan, rng):
    order = rng.permutation(30)
    names = tuple(limits.NAMES[i] for i in order)
    assert check(hand, short_plan.trajectory, at_home(names=names, q=limits.HOME[order])) == ()


def test_a_fast_arm_cannot_jump_over_what_is_in_its_way(hand, short_plan, witness):
    """Collisions are looked for along the way, however few the points are."""
    up = limits.HOME.copy()
    over = up.copy()
    over[1] += 1.4  # through the table, out of it nowhere
    t = np.linspace(0.0, 24.0, 121)
    share = np.sin(np.pi * t / 24.0)[:, None] ** 2
    rate = (np.pi / 24.0) * np.sin(2.0 * np.pi * t / 24.0)[:, None]
    made = dataclasses.replace(
        short_plan.trajectory, t=t, q=up + share * (over - up), qd=rate * (over - up)
    )
    assert witness(over[None])["arm"] > 0.05
    rules = [(r.rule, r.joint) for r in check(hand, made)]
    assert ("collision", "hand to table") in rules


def swing_between_points(peak, hold=12):
    """A swing of the whole arm about the vertical that its points, a quarter second apart, do not
    show: from the second on all are the same, and what moves are the cubics between them."""
    h = 0.25
    qd = np.zeros((hold + 1, 30))
    qd[1:-1, 0] = peak * (-1.0) ** np.arange(hold - 1)
    q = np.repeat(limits.HOME[None], hold + 1, axis=0)
    q[1:, 0] += 0.5 * peak * h
    q[-1, 0] += 0.5 * qd[-2, 0] * h
    return Trajectory(limits.NAMES, h * np.arange(hold + 1), q, qd)


def test_speed_between_points_and_on_surfaces_counts_in_guarded_mode(hand):
    fast, slow = (swing_between_points(peak) for peak in (0.31, 0.15))
    assert (np.abs(np.diff(fast.q[1:-1], axis=0)) == 0.0).all()
    assert check(hand, fast) == ()
    (found,) = check(hand, fast, config=GUARDED)
    assert found.rule == "guarded speed"
    # The fingertips are 0.8 m from the axis.
    assert 0.25 < found.value < 0.30
    assert check(hand, slow, config=GUARDED) == ()


def test_no_point_on_a_surface_is_faster_than_is_said(hand, cell, rng):
    """The witness is MuJoCo: points on the surfaces of all its geoms, by finite differences."""
    model, step = cell.model, 1e-4
    part = safety.parts(cell)
    mine = np.flatnonzero((part == Part.ARM) | (part == Part.HAND))
    boxes = model.geom_type[mine] == mujoco.mjtGeom.mjGEOM_BOX
    size = model.geom_size[mine]
    corners = np.array(list(itertools.product((-1.0, 1.0), repeat=3)))
    turns = rng.normal(size=(len(mine), 64, 3))
    turns /= np.linalg.norm(turns, axis=-1, keepdims=True)
    round_ = size[:, None, :1] * turns
    round_[..., 2] += np.where(turns[..., 2] > 0, 1.0, -1.0) * size[:, None, 1]
    flat = size[:, None] * np.resize(corners, (64, 3))
    local = np.where(boxes[:, None, None], flat, round_)

    def points(q):
        data = workcell.start(cell, q)
        R = data.geom_xmat[mine].reshape(-1, 3, 3)
        return data.geom_xpos[mine][:, None] + np.einsum("gij,gpj->gpi", R, local)

    q = rng.uniform(0.7 * limits.LOWER, 0.7 * limits.UPPER, (20, 30))
    qd = rng.uniform(-1.0, 1.0, (20, 30)) * limits.MAX_RATE * rng.integers(0, 2, (20, 1))
    qd[::2, 6:] = 0.0
    qd[:, :6] += 0.05
    said = clearance.speeds(hand, q, qd)
    for one, rate, most in zip(q, qd, said, strict=True):
        true = (points(one + step * rate) - points(one - step * rate)) / (2.0 * step)
        fastest = np.linalg.norm(true, axis=-1).max()
        # Single precision; and no bound is so loose that it forbids what is slow.
        assert fastest <= most * 1.001 + 1e-4
        assert most <= 1.25 * fastest


def test_looks_that_would_be_too_many_are_a_refusal(hand):
    """Two minutes of a trembling arm: it must not be looked at more coarsely instead."""
    t = np.arange(0.0, 110.0, 0.05)
    q = limits.HOME + 0.05 * np.sin(7.0 * t[:, None]) * (np.arange(30) < 6)
    qd = 0.35 * np.cos(7.0 * t[:, None]) * (np.arange(30) < 6)
    found = check(hand, Trajectory(limits.NAMES, t, q, qd))
    (told,) = [r for r in found if r.rule == "looks for collisions"]
    assert told.value > told.limit == 8192


def test_turns_between_points_are_looked_at(hand):
    """The swing above turns by 0.02 rad between points that are the same: looks are no further."""
    fast = swing_between_points(0.31)
    fine = np.arange(0.0, 3.0, 0.01)
    q, _ = curve.sample(fast, fine)
    looks = gate._looks(fine, q)
    between, _ = curve.sample(fast, looks)
    assert np.abs(np.diff(between[:, :6], axis=0)).sum(1).max() <= 0.0151
    assert len(looks) > 24


def test_what_its_commands_would_need_counts_before_the_first(hand, job):
    """A trajectory may be within the limits, and a stop on its path beyond them: here a turn about
    the vertical at 1 rad/s, of which the brake of half a second makes 3 rad/s^2."""
    t = np.linspace(0.0, 3.0, 151)
    u = (t / 3.0)[:, None] * (np.arange(30) == 0)
    share, rate = u**3 * (10.0 - 15.0 * u + 6.0 * u**2), 10.0 * u**2 * (1.0 - u) ** 2
    turn = Trajectory(limits.NAMES, t, limits.HOME + 1.6 * share, 1.6 * rate)
    assert check(hand, turn) == ()
    found = gate.windows(turn, curve.AHEAD_S, curve.BRAKE_S)
    (told,) = [r for r in found if r.rule == "command's acceleration"]
    assert told.joint == "ra_shoulder_pan_joint"
    assert 2.5 == told.limit < told.value < 4.0
    assert 1.0 < told.t < 2.5
    made = Plan(turn, (1.0, 1.5, 2.0, 3.0), 0)
    now = dataclasses.replace(at_home(), received_s=time.monotonic())
    patient = GateConfig(max_age_s=60.0)
    verdict = preflight.preflight(
        hand, job.shape, job.placed, made, now, gate_config=patient, cell=job.cell
    )
    assert not verdict.passed
    assert any("command's" in fault for fault in verdict.faults)
    assert verdict.replay is None


def test_commands_of_usual_plans_are_within_the_limits(hand):
    for made, _, _ in good_plans(hand, 3, seed=7):
        assert gate.windows(made, curve.AHEAD_S, curve.BRAKE_S) == ()
