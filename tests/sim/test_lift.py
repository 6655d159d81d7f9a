"""The lift test: verdicts, the led palm, the table, threads and errors."""

import dataclasses
import itertools
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation, Slerp

from realdex_jax.data.store import open_dataset
from realdex_jax.errors import PhysicsError
from realdex_jax.hand import joints
from realdex_jax.hand.load import load
from sim import objects
from sim.lift import REASONS, Reason, lift, replay
from sim.physics import LiftPhysics, Physics, StrictPhysics
from sim.scene import lift_scene

RATE = 15.0
REST = joints.REST.astype(float)
SIDEWAYS = np.array([np.pi / 2, 0.0, 0.0])
"""Axis-angle of a palm over the table that looks down, fingers along -y."""

# The weld is dead-beat; what is left comes from the fingers' inertia at 1 m/s and 3 rad/s.
PALM_ATOL = 1e-4
PALM_ATOL_RAD = np.deg2rad(0.05)


def still(height, count=1):
    """Hands at rest above the table, as motions."""
    phi = np.zeros((10, 28))
    phi[:, :22], phi[:, 24], phi[:, 25:] = REST, height, SIDEWAYS
    return [phi] * count


def standing(shape, count=1):
    """Poses on the table, the object's axes those of the world."""
    lowest = min(piece[:, 2].min() for piece in shape.pieces)
    return np.tile([1.0, 0.0, 0.0, 0.0, 0.0, 0.0, -lowest], (count, 1))


def closing(name, count):
    """Shipped grasps whose hand closes where it grasps: shape, motions, squeezes, objects."""
    shape, grasps = objects.make(name), open_dataset("realdex-sim").grasps(name)
    world = standing(shape, count)
    motions = []
    for i in range(count):
        phi = np.tile(np.asarray(grasps.phi[i], np.float64), (10, 1))
        phi[:, :22] = np.linspace(grasps.q_pregrasp[i], phi[0, :22], 10)
        phi[:, 22:25] += world[i, 4:]
        motions.append(phi)
    return shape, motions, np.asarray(grasps.q_squeeze[:count], np.float64), world


@pytest.fixture(scope="module")
def good():
    """Four grasps of a lotion."""
    return closing("cosmetics", 4)


def test_constants_are_those_of_the_other_tests():
    described = LiftPhysics().describe()
    assert described["contact.sliding"] == 1.0
    assert described["lift_height"] == 0.1
    assert LiftPhysics().mass == Physics().mass == StrictPhysics().mass
    assert set(REASONS) == set(Reason)


@pytest.mark.parametrize("name", ["cosmetics", "cracker_box", "penguin_toy", "tuna_tin"])
def test_good_grasps_lift(name):
    result = lift(load("shadow"), *closing(name, 5))
    assert result.success.mean() >= 0.8, result.counts()
    lifted = result.success
    assert np.array_equal(lifted, result.reason == Reason.HELD)
    assert (result.risen_m[lifted] > 0.08).all()
    assert (result.risen_m < 0.105).all()
    assert (result.shoved_m < 0.01).all()


def test_threads_do_not_change_results(good):
    one = lift(load("shadow"), *good, threads=1)
    three = lift(load("shadow"), *good, threads=3)
    for field in dataclasses.fields(one):
        assert np.array_equal(getattr(one, field.name), getattr(three, field.name)), field.name


def test_lengths_may_differ_and_only_the_end_counts(good):
    shape, motions, squeezes, world = good
    long = np.concatenate([np.tile(motions[0][:1], (45, 1)), motions[0]])
    result = lift(load("shadow"), shape, [motions[0], long], squeezes[[0, 0]], world[:2])
    assert result.success.all()
    assert result.risen_m[0] == pytest.approx(result.risen_m[1], abs=1e-3)
    film = replay(load("shadow"), shape, long, squeezes[0], world[0])
    assert film.time[-1] == pytest.approx(2.0 + 0.4 + 1.0 + 1.0, abs=1.5 / RATE)


def test_what_cannot_be_held_is_not():
    grasps = closing("cracker_box", 4)
    heavy = lift(load("shadow"), *grasps, physics=LiftPhysics(mass=20.0))
    assert (heavy.reason == Reason.DROPPED).all()
    slippery = dataclasses.replace(LiftPhysics().contact, sliding=0.01, torsional=0.0)
    smooth = lift(load("shadow"), *grasps, physics=LiftPhysics(contact=slippery))
    assert not smooth.success.any()


def test_a_far_hand_lifts_nothing_and_the_object_stays(cube):
    world = standing(cube)
    result = lift(load("shadow"), cube, still(0.5), REST[None], world)
    assert result.reason[0] == Reason.DROPPED
    assert result.counts() == {REASONS[Reason.DROPPED]: 1}
    assert abs(result.risen_m[0]) < 1e-3
    assert result.turned_rad[0] < 1e-2


@pytest.mark.parametrize("name", ["cosmetics", "wine_glass", "magic_cube"])
def test_free_objects_stand_still_to_the_end(name):
    shape = objects.make(name)
    start = standing(shape)[0]
    film = replay(load("shadow"), shape, still(0.8)[0], REST, start)
    assert np.abs(film.wxyz_xyz_world_object[:, 4:] - start[4:]).max() < 1e-3
    assert np.abs(film.wxyz_xyz_world_object[:, :4] - start[:4]).max() < 2e-3


def swept(height):
    """A flat hand that moves a quarter metre in a second across the origin."""
    phi = np.zeros((16, 28))
    phi[:, 22:25] = np.linspace([0.25, 0.0, height], [-0.05, 0.0, height], 16)
    phi[:, 25:] = SIDEWAYS
    return phi


def test_a_sweeping_hand_shoves_the_object(cube):
    result = lift(load("shadow"), cube, [swept(0.025)], REST[None], standing(cube))
    assert result.reason[0] == Reason.SHOVED
    assert result.shoved_m[0] > LiftPhysics().max_push
    film = replay(load("shadow"), cube, swept(0.025), REST, standing(cube)[0])
    assert film.wxyz_xyz_world_object[-1, 4] < -0.05


def test_a_touch_at_the_top_knocks_a_tall_object_over():
    corners = np.array(list(itertools.product((-0.01, 0.01), (-0.01, 0.01), (-0.05, 0.05))))
    shape = SimpleNamespace(name="tower", pieces=(corners,))
    physics = LiftPhysics(max_push=1.0)
    args = load("shadow"), shape, [swept(0.085)], REST[None], standing(shape)
    result = lift(*args, physics=physics)
    assert result.reason[0] == Reason.SHOVED
    assert result.turned_rad[0] > physics.max_tilt


def test_hand_in_the_table_or_the_object_is_refused(cube):
    world = standing(cube)
    inside = still(0.02)[0]
    result = lift(
        load("shadow"), cube, [*still(-0.01), inside], np.tile(REST, (2, 1)), world[[0, 0]]
    )
    assert (result.reason == Reason.START_DEPTH).all()


def test_palm_is_where_the_motion_puts_it(cube):
    rate = 20.0  # its frames fall on those of the film
    s = np.linspace(0.0, 1.0, 31)[:, None]
    s = s**3 * (10.0 - 15.0 * s + 6.0 * s**2)
    phi = np.zeros((31, 28))
    phi[:, :22] = s * REST
    phi[:, 22:25] = [0.3, 0.3, 0.4] + s * [1.0, 0.3, -0.2]  # to 1 m/s
    phi[:, 25:] = (
        Rotation.from_rotvec(s * [0.9, 3.0, 1.0]) * Rotation.from_rotvec([1, 0, 2])
    ).as_rotvec()
    film = replay(load("shadow"), cube, phi, phi[-1, :22], standing(cube)[0], rate=rate)
    frames = np.arange(31) / rate
    reach = film.time <= frames[-1]
    at = film.time[reach]
    p = np.stack([np.interp(at, frames, column) for column in phi[:, 22:25].T], axis=1)
    turn = Slerp(frames, Rotation.from_rotvec(phi[:, 25:]))(at)
    assert np.abs(film.phi[reach, 22:25] - p).max() < PALM_ATOL
    error = turn.inv() * Rotation.from_rotvec(film.phi[reach, 25:])
    assert error.magnitude().max() < PALM_ATOL_RAD
    # The hand carries no weight: what its actuators set follows without sagging.
    control = lift_scene(load("shadow"), cube, LiftPhysics()).control
    assert np.abs((film.phi[~reach, :22] - phi[-1, :22]) @ control.T).max() < 0.01
    # Up by the least jerk: half the height at half the time, 15/8 of the mean speed there.
    z = film.phi[:, 24] - phi[-1, 24]
    lift_at = frames[-1] + 0.4
    assert np.interp(lift_at + 0.5, film.time, z) == pytest.approx(0.05, abs=5e-4)
    assert z[-1] == pytest.approx(0.1, abs=PALM_ATOL)
    assert np.gradient(z, film.time).max() == pytest.approx(0.1 * 15 / 8, rel=0.02)


def test_palm_does_not_give_way_to_the_table(cube):
    phi = still(0.0)[0]
    phi[:, 22] = 0.3
    phi[:, 24] = np.linspace(0.1, 0.0, 10)
    film = replay(load("shadow"), cube, phi, REST, standing(cube)[0])
    pressed = (film.time > 10 / RATE) & (film.time < 9 / RATE + 0.4)
    assert pressed.sum() >= 4
    assert np.abs(film.phi[pressed, 22:25] - phi[-1, 22:25]).max() < 1e-3
    assert np.abs(film.phi[pressed, :22] - REST).max() > 0.1


def test_film_shows_the_lift(good):
    shape, motions, squeezes, world = good
    film = replay(load("shadow"), shape, motions[0], squeezes[0], world[0])
    risen = lift(load("shadow"), shape, motions[:1], squeezes[:1], world[:1]).risen_m[0]
    assert np.allclose(np.diff(film.time), 1.0 / RATE, atol=1e-6)
    assert np.allclose(film.phi[0, 22:25], motions[0][0, 22:25], atol=1e-6)
    assert film.wxyz_xyz_world_object[0] == pytest.approx(world[0], abs=1e-6)
    rise = film.wxyz_xyz_world_object[-1, 6] - world[0, 6]
    assert rise == pytest.approx(risen, abs=5e-3)  # the origin is near the centre of mass


def test_scene_has_a_weightless_free_hand(cube):
    scene = lift_scene(load("shadow"), cube, LiftPhysics())
    assert scene.model.nu == 18
    assert scene.model.nv == 6 + 22 + 6
    assert scene.model.body_mass[scene.object_body] == pytest.approx(0.1)
    assert np.array_equal(np.flatnonzero(scene.model.body_gravcomp), np.arange(1, 24))


def test_divergence_is_a_verdict(cube, monkeypatch):
    monkeypatch.setattr("sim.native.diverged", lambda data: True)
    result = lift(load("shadow"), cube, still(0.5), REST[None], standing(cube))
    assert result.reason[0] == Reason.UNSTABLE
    with pytest.raises(PhysicsError, match="diverges"):
        replay(load("shadow"), cube, still(0.5)[0], REST, standing(cube)[0])


def test_bad_input_is_named(cube):
    hand, world = load("shadow"), standing(cube, 2)
    squeezes = np.tile(REST, (2, 1))

    def refused(motions, match, squeezes=squeezes, world=world, **kwargs):
        with pytest.raises(PhysicsError, match=match):
            lift(hand, cube, motions, squeezes, world, **kwargs)

    first, second = still(0.5)[0], still(0.5)[0].copy()
    second[3, 2] = np.nan
    refused([first, second], "motion 1: phi of frame 3 is not finite")
    refused([first, first[:5]], "motion 1: 5 frames")
    second = first.copy()
    second[4, 1] = 3.0
    refused([first, second], "motion 1 of frame 4: FFJ3 = 3.000 rad")
    refused([first] * 3, r"q_squeeze must be \(3, 22\) for 3 motions")
    refused([first] * 2, "q_squeeze of motion 0 is not finite", squeezes=squeezes * np.nan)
    refused([first] * 2, "motion 0: the object's quaternion", world=world * 2.0)
    refused([first] * 2, "rate 0", rate=0.0)


def test_no_motions_give_empty_columns(cube):
    result = lift(load("shadow"), cube, [], np.zeros((0, 22)), np.zeros((0, 7)))
    assert result.success.shape == (0,)
    assert result.counts() == {}
