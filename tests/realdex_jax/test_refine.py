import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from realdex_jax import descent, refine, touch
from realdex_jax.geometry import sdf
from realdex_jax.hand.load import load
from realdex_jax.refine import RefineConfig, Target
from sim import objects


@pytest.fixture(scope="module")
def task(open_palm):
    """Two rough grasps of a can, and a contact map that asks for the near half."""
    shape = objects.make("slim_can")
    points = jnp.asarray(shape.surface(64, seed=0).points, jnp.float32)
    target = Target(
        grid=sdf.build(shape),
        points=points,
        p_centre=jnp.asarray(shape.center_of_mass, jnp.float32),
        table=jnp.asarray(-jnp.inf, jnp.float32),
    )
    state = descent.start(jnp.asarray(open_palm(2).phi), len(touch.CONTACT_LINKS))
    predicted = jnp.tile((points[:, 1:2] > 0).astype(jnp.float32), (1, 2))
    wanted = jnp.ones((len(touch.CONTACT_LINKS), 2), jnp.float32)
    return refine._Task(target, predicted, wanted, state.q - 0.1), state


@pytest.mark.slow
def test_energy_gradient_is_the_finite_difference(task):
    task, state = task
    # The map, prior and self-penetration: forces carry no gradient by design, grid normals none.
    smooth = RefineConfig(force=0.0, contact=0.0, facing=0.0, penetration=0.0, table=0.0, prior=5.0)

    @jax.jit
    def energy(update):
        return refine._summed(load(), smooth, task, state, update)[0]

    zero = jnp.zeros((28, 2))
    gradient = np.asarray(jax.grad(energy)(zero))
    assert np.abs(gradient).max() > 0.1
    for j in (1, 2, 4, 8, 16, 24):
        # Points crossing the surface make kinks, so a short step; float32 then leaves about 5e-3.
        e = 2e-4 * zero.at[j, 0].set(1.0)
        difference = (energy(e) - energy(-e)) / 4e-4
        np.testing.assert_allclose(gradient[j, 0], difference, rtol=0.02, atol=1e-2)


@pytest.mark.slow
def test_the_table_pushes_up_and_only_where_there_is_one(task):
    task, state = task
    only = RefineConfig(
        **{f.name: 0.0 for f in dataclasses.fields(RefineConfig) if f.name in WEIGHTS}, table=300.0
    )

    def energy(table, update):
        target = dataclasses.replace(task.target, table=jnp.float32(table))
        given = dataclasses.replace(task, target=target)
        return refine._summed(load(), only, given, state, update)[0]

    zero = jnp.zeros((28, 2))
    pull = jax.jit(jax.value_and_grad(energy, argnums=1))
    free, none = pull(-jnp.inf, zero)
    assert float(free) == 0.0
    assert not np.asarray(none).any()
    high, up = pull(1.0, zero)
    assert float(high) > 0.0
    assert (np.asarray(up)[2] < 0.0).all(), "going up must lower the energy"


WEIGHTS = ("contact_map", "contact", "penetration", "self_penetration", "force", "facing", "prior")


def test_the_best_of_each_group_is_refined(task, open_palm):
    task, _ = task
    hand, target = load(), task.target
    phi = np.array(open_palm(4).phi)
    phi[:2, 22:25] += 0.3  # out of reach: the first of each pair is hopeless
    predicted = jnp.tile(task.predicted[:, :1].T, (4, 1))
    config = RefineConfig(choices=2, steps=1)
    chosen, state = jax.jit(refine._best, static_argnums=(0, 4))(
        hand, target, jnp.asarray(phi), predicted, config
    )
    np.testing.assert_allclose(state.p.T, phi[2:, 22:25], atol=1e-6)
    assert chosen.wanted.shape[1] == chosen.predicted.shape[1] == 2


def bowl(at):
    """Gradient, forces and energy of a bowl around palm positions `at`."""

    def gradient_of(update, state):
        def energy(update):
            gap = descent.move(state, update).p - at
            return 1e-3 + (gap**2).sum(0)  # what cannot be won is part of real energies, too

        value = energy(update)
        return jax.grad(lambda u: energy(u).sum())(update), state.force, value

    return gradient_of


@pytest.mark.parametrize("progress", [0.0, 0.05])
def test_steps_that_win_nothing_are_left_out(progress, open_palm):
    state = descent.start(jnp.asarray(open_palm(3).phi), len(touch.CONTACT_LINKS))
    at = state.p + jnp.array([[0.02], [0.0], [-0.01]])
    sizes = descent.Steps(200, 0.0025, 0.02, 0.02)
    run = jax.jit(lambda s: descent.minimise_until(bowl(at), s, sizes, progress))
    end, made = run(state)
    # Adam's last full steps are 1.25 mm; the fading ones close in on the middle.
    np.testing.assert_allclose(end.p, at, atol=5e-4)
    whole = descent.minimise(lambda u, s: bowl(at)(u, s)[:2], state, sizes)
    if progress == 0.0:
        assert int(made) == 200
        np.testing.assert_allclose(end.p, whole.p, atol=1e-6)
    else:
        assert 60 <= int(made) < 150
