"""The inner force problem: closed-form cases, a second solver, cones and bounds."""

import jax.numpy as jnp
import numpy as np
from scipy.optimize import minimize

from realdex_jax import wrench
from realdex_jax.wrench import Contacts


def _contacts(p, normal, lower, upper):
    p, normal = np.asarray(p, np.float32).T, np.asarray(normal, np.float32).T
    k = p.shape[1]
    return Contacts(
        p=jnp.asarray(p),
        normal=jnp.asarray(normal),
        lower=jnp.full(k, lower),
        upper=jnp.full(k, upper),
    )


def test_opposed_contacts_balance_and_one_sided_ones_do_not():
    centre = jnp.zeros(3)
    pinch = _contacts([[0.03, 0, 0], [-0.03, 0, 0]], [[1, 0, 0], [-1, 0, 0]], 0.2, 1.0)
    force = wrench.balance(pinch, jnp.zeros((3, 2)), centre, friction=0.5, steps=50)
    assert float(wrench.residual(pinch, force, centre)) < 1e-4
    push = _contacts([[0.03, 0, 0], [0.03, 0.01, 0]], [[1, 0, 0], [1, 0, 0]], 0.2, 1.0)
    force = wrench.balance(push, jnp.zeros((3, 2)), centre, friction=0.5, steps=50)
    assert float(wrench.residual(push, force, centre)) > 0.9


def test_forces_stay_in_their_cones_and_bounds():
    rng = np.random.default_rng(0)
    normal = rng.normal(size=(8, 3))
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    contacts = _contacts(0.04 * normal, normal, 0.1, 0.7)
    force = wrench.project(contacts, jnp.asarray(rng.normal(size=(3, 8)) * 3, jnp.float32), 0.4)
    pressure = -(force * contacts.normal).sum(0)
    tangential = jnp.linalg.norm(force + pressure * contacts.normal, axis=0)
    assert bool((pressure >= 0.1 - 1e-5).all())
    assert bool((pressure <= 0.7 + 1e-5).all())
    assert bool((tangential <= 0.4 * pressure + 1e-5).all())


def test_agrees_with_a_general_solver_on_a_loaded_grasp():
    rng = np.random.default_rng(3)
    normal = rng.normal(size=(4, 3))
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    contacts = _contacts(0.035 * normal, normal, 0.1, 1.0)
    load = jnp.array([0.0, 0.0, -0.3, 0.0, 0.0, 0.0])
    centre, friction = jnp.zeros(3), 0.5
    force = wrench.balance(
        contacts, jnp.zeros((3, 4)), centre, friction=friction, steps=3000, load=load
    )
    ours = float(((wrench.net_wrench(contacts, force, centre) + load) ** 2).sum())

    n, p = np.asarray(contacts.normal, float), np.asarray(contacts.p, float)

    def cost(f):
        f = f.reshape(3, 4)
        moment = np.cross((p / wrench.ARM).T, f.T).sum(0)
        return ((np.concatenate([f.sum(1), moment]) + np.asarray(load)) ** 2).sum()

    def slack(f):
        f = f.reshape(3, 4)
        pressure = -(f * n).sum(0)
        tangential = np.sqrt(((f + pressure * n) ** 2).sum(0) + 1e-12)
        return np.concatenate([pressure - 0.1, 1.0 - pressure, friction * pressure - tangential])

    best = minimize(
        cost,
        (-0.3 * n).ravel(),
        constraints={"type": "ineq", "fun": slack},
        method="SLSQP",
        options={"maxiter": 500, "ftol": 1e-10},
    )
    # Projecting normal and tangent in turn is not the exact cone projection; it loses a little.
    assert ours <= best.fun + 5e-3


def test_batch_last_is_the_loop():
    rng = np.random.default_rng(1)
    normal = rng.normal(size=(3, 5, 6)).astype(np.float32)
    normal /= np.linalg.norm(normal, axis=0)
    both = Contacts(
        p=jnp.asarray(0.04 * normal),
        normal=jnp.asarray(normal),
        lower=jnp.full((5, 6), 0.1),
        upper=jnp.ones((5, 6)),
    )
    force = wrench.balance(both, jnp.zeros((3, 5, 6)), jnp.zeros((3, 1)), friction=0.5, steps=20)
    for i in range(6):
        one = Contacts(both.p[..., i], both.normal[..., i], both.lower[:, i], both.upper[:, i])
        alone = wrench.balance(one, jnp.zeros((3, 5)), jnp.zeros(3), friction=0.5, steps=20)
        np.testing.assert_allclose(force[..., i], alone, atol=1e-6)
