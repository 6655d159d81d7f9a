"""Synthesis: starts, optimised grasps that physics confirms, and what counts as distinct."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from realdex_jax import descent, touch
from realdex_jax.geometry import sdf
from realdex_jax.hand import collision, facts, joints, kinematics
from realdex_jax.hand.load import load
from sim import objects, starts, synthesis, validation
from sim.physics import StrictPhysics
from sim.robustness import robustness

BATCH = synthesis.SynthesisConfig(batch=32)


@pytest.fixture(scope="module")
def optimised():
    shape = objects.make("essential_oil")
    return shape, synthesis.optimise(load(), shape, sdf.build(shape), 0, BATCH)


def test_starts_are_above_the_table_outside_reach_limits_and_repeatable():
    shape = objects.make("frying_pan")
    R, p, q = starts.sample(load(), shape, 40, 3, distance=(0.045, 0.085))
    np.testing.assert_allclose(
        np.einsum("nij,nkj->nik", R, R), np.tile(np.eye(3), (40, 1, 1)), atol=1e-5
    )
    np.testing.assert_allclose(np.linalg.det(R), 1.0, atol=1e-5)
    assert (q >= joints.LOWER - 1e-6).all()
    assert (q <= joints.UPPER + 1e-6).all()
    # Palm centres stay over the table, a little roll of the hand allowed.
    centre = p + R @ np.array([0.0, 0.0, 0.05], np.float32)
    assert (centre[:, 2] > shape.bounds[0, 2] - 0.02).mean() > 0.95
    again = starts.sample(load(), shape, 40, 3, distance=(0.045, 0.085))
    np.testing.assert_array_equal(p, again[1])


def palm_place(R, p):
    return p + R @ facts.SHADOW.grasp_centre.astype(np.float32)


def test_starts_around_a_grasp_stay_near_it_and_turn_about_the_axis_of_a_round_object():
    phi = np.zeros((1, 28), np.float32)
    phi[0, :22], phi[0, 22:] = joints.REST, (0.1, 0.0, 0.05, 0.3, -0.4, 0.2)
    R_grasp = Rotation.from_rotvec(phi[0, 25:]).as_matrix()
    for symmetry in ("none", "axial"):
        R, p, q = starts.around(load(), phi, 400, 0, symmetry)
        np.testing.assert_allclose(np.linalg.det(R), 1.0, atol=1e-5)
        assert (q >= joints.LOWER - 1e-6).all()
        assert (q <= joints.UPPER + 1e-6).all()
        assert all((q[:, j1] <= q[:, j2]).all() for j2, j1 in joints.COUPLED)
        place = palm_place(R, p)
        azimuth = np.arctan2(place[:, 1], place[:, 0])
        # A centimetre and a half of standing back, 2.5 at most, and a centimetre of shake.
        centre = palm_place(R_grasp, phi[0, 22:25])
        off = np.abs(np.linalg.norm(place, axis=-1) - np.linalg.norm(centre))
        assert off.max() < 0.025 + 4 * 0.01
        turned = Rotation.from_matrix(R_grasp.T @ R).magnitude()
        assert (np.ptp(azimuth) > 6.0) == (symmetry == "axial")
        assert (turned.max() < 4.5 * 0.15) == (symmetry == "none")
    np.testing.assert_array_equal(p, starts.around(load(), phi, 400, 0, "axial")[1])


@pytest.mark.slow
@pytest.mark.long
def test_starts_around_known_grasps_replace_a_share_of_the_batch():
    shape = objects.make("essential_oil")
    grid = sdf.build(shape)
    known = np.zeros((1, 28), np.float32)
    known[0, :22], known[0, 22:25] = joints.REST, (0.3, 0.0, 0.3)  # far off: easy to tell
    for share in (0.0, 1.0):
        config = dataclasses.replace(BATCH, around=share, iterations=1)
        found = synthesis.optimise(load(), shape, grid, 0, config, known=known)
        far = np.linalg.norm(np.asarray(found.phi)[:, 22:25], axis=-1) > 0.35
        assert far.mean() == share


@pytest.mark.slow
def test_promising_grasps_touch_where_their_template_says(optimised):
    shape, found = optimised
    promising = found.promising(BATCH)
    assert promising.mean() > 0.4  # about 0.9 on this small bottle
    hand = load()
    terms = np.asarray(found.terms)[promising]
    assert (terms[:, 1] < BATCH.max_gap).all()
    # An independent look: distance from the object's own surface points to the posed thumb tip.
    surface = jnp.asarray(shape.surface(4000).points, jnp.float32)
    phi = found.phi[np.flatnonzero(promising)[:8]]
    links = kinematics.posed(hand, jnp.asarray(phi))
    d = collision.signed_distance_per_link(hand, links, jnp.broadcast_to(surface, (8, 4000, 3)))
    thumb = np.asarray(d[..., hand.link("thdistal")]).min(-1)
    assert (np.abs(thumb) < BATCH.max_gap + 0.002).all()


@pytest.mark.slow
def test_joints_respect_limits_and_coupling(optimised):
    _, found = optimised
    q = np.asarray(found.phi)[:, :22]
    assert (q >= joints.LOWER - 1e-5).all()
    assert (q <= joints.UPPER + 1e-5).all()
    assert all((q[:, j1] <= q[:, j2] + 1e-5).all() for j2, j1 in joints.COUPLED)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_grasps(optimised):
    shape, found = optimised
    again = synthesis.optimise(load(), shape, sdf.build(shape), 0, BATCH)
    np.testing.assert_array_equal(found.phi, again.phi)
    other = synthesis.optimise(load(), shape, sdf.build(shape), 1, BATCH)
    assert not np.array_equal(found.phi, other.phi)


@pytest.mark.slow
def test_kept_grasps_are_settled_strictly_valid_and_possible(optimised):
    shape, found = optimised
    kept, tally = validation.validate(load(), shape, found, BATCH)
    assert tally.starts == 32
    assert (
        tally.starts >= tally.promising >= tally.settled >= tally.valid >= tally.kept == len(kept)
    )
    assert tally.valid > 6  # three of four starts on this object
    assert (kept.columns["depth_mm"] <= 1.0).all()
    assert validation.possible(np.asarray(kept.phi)[:, :22]).all()
    replay = robustness(load(), shape, kept, StrictPhysics(), early_stop=False)
    # The same test on the same grasps, so the only change is the stored precision.
    assert replay.success.all()


@pytest.mark.slow
def test_grasps_kept_at_several_masses_are_those_that_pass_at_each(optimised):
    shape, found = optimised
    found = jax.tree.map(lambda x: x[::2], found)
    every, tally = validation.validate(load(), shape, found, BATCH)
    masses = (0.05, 0.4)
    kept, fewer = validation.validate(load(), shape, found, BATCH, masses=masses)
    assert set(kept.columns) == set(every.columns)
    assert (fewer.promising, fewer.settled) == (tally.promising, tally.settled)
    # An independent way to the same set: each mass alone, on what is kept without them.
    passes = [
        robustness(load(), shape, every, dataclasses.replace(StrictPhysics(), mass=mass)).success
        for mass in masses
    ]
    both = np.all(passes, axis=0)
    assert 0 < both.sum() < len(every), "some pass, some do not; else nothing is tested"
    np.testing.assert_array_equal(kept.phi, np.asarray(every.phi)[both])
    assert tally.valid - fewer.valid >= (~both).sum()


def test_tallies_add_up():
    a, b = validation.Tally(starts=3, valid=1), validation.Tally(starts=2, kept=1)
    assert dataclasses.asdict(a + b) == dataclasses.asdict(
        validation.Tally(starts=5, valid=1, kept=1)
    )


def _turned(phi, angle, axis):
    turn = Rotation.from_rotvec(angle * np.asarray(axis, float))
    out = phi.copy()
    out[:, 22:25] = turn.apply(phi[:, 22:25])
    out[:, 25:] = (turn * Rotation.from_rotvec(phi[:, 25:])).as_rotvec()
    return out


def test_revolved_copies_count_once_on_axial_objects_only():
    rng = np.random.default_rng(0)
    phi = np.concatenate([rng.uniform(0, 0.3, (4, 22)), rng.normal(size=(4, 6)) * 0.1], axis=1)
    phi[:, 25:] = Rotation.random(4, random_state=1).as_rotvec()
    both = np.concatenate([phi, _turned(phi, 1.2, [0, 0, 1])])
    np.testing.assert_array_equal(validation.distinct(both, "axial"), [0, 1, 2, 3])
    np.testing.assert_array_equal(validation.distinct(both, "none"), np.arange(8))
    tipped = np.concatenate([phi, _turned(phi, 1.2, [1, 0, 0])])
    assert len(validation.distinct(tipped, "axial")) == 8


def test_distinct_needs_a_difference_in_place_turn_or_a_joint():
    phi = np.zeros((4, 28))
    phi[1, 22] = 0.5 * validation.DISTINCT_METRES
    phi[2, 3] = 1.5 * validation.DISTINCT_JOINT
    phi[3, 26] = 1.5 * validation.DISTINCT_TURN
    np.testing.assert_array_equal(validation.distinct(phi, "none"), [0, 2, 3])
    np.testing.assert_array_equal(validation.distinct(phi, "none", taken=(1,)), [1, 2, 3])


@pytest.mark.slow
def test_energy_gradient_is_the_finite_difference(optimised, open_palm):
    shape, found = optimised
    hand, grid = load(), sdf.build(shape)
    world = synthesis._World(
        grid,
        jnp.asarray(shape.center_of_mass, jnp.float32)[:, None],
        jnp.asarray(shape.bounds[0, 2], jnp.float32),
        found.template[:2],
    )
    # Fixed crooked poses, not optimised ones: those lie at the kinks where links begin to overlap.
    phi = open_palm(2).phi.copy()
    phi[:, :22] = np.random.default_rng(3).uniform(joints.LOWER, joints.UPPER, (2, 22))
    state = descent.start(jnp.asarray(phi), len(touch.CONTACT_LINKS))
    # Smooth terms only: the inner forces carry no gradient by design, grid normals none in a cell.
    smooth = dataclasses.replace(
        BATCH, force=0.0, gap=0.0, palmar=0.0, penetration=0.0, posture=5.0
    )

    @jax.jit
    def energy(update):
        return synthesis._summed(hand, smooth, world, state, update)[0]

    zero = jnp.zeros((28, 2))
    gradient = jax.grad(energy)(zero)
    assert np.abs(gradient[np.array([6, 10, 27]), 0]).min() > 0.05
    for j in (6, 10, 27):
        # Float32 leaves about 1e-3 of the difference over so short a step.
        e = 2e-3 * zero.at[j, 0].set(1.0)
        difference = (energy(e) - energy(-e)) / 4e-3
        np.testing.assert_allclose(gradient[j, 0], difference, rtol=0.02, atol=5e-3)
