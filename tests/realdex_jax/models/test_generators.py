"""Generators of grasps: the laws of each, and what they have in common."""

import dataclasses

import jax
import jax.numpy as jnp
import jaxlie
import numpy as np
import optax
import pytest

from realdex_jax.data.pipeline import Batch
from realdex_jax.errors import CheckpointError
from realdex_jax.hand import joints, surface
from realdex_jax.hand.load import load
from realdex_jax.models import flow, generator, grasp_model, matching
from realdex_jax.models.contact_net import ContactNetConfig
from realdex_jax.models.cvae import CvaeConfig, Decoded, Statistics
from realdex_jax.models.flow import FlowConfig
from realdex_jax.models.grasp_model import GraspModel, NetworkConfig
from realdex_jax.models.matching import MatchingConfig
from realdex_jax.training import density_objective
from realdex_jax.training.density_objective import DensityWeights
from realdex_jax.training.objective import Perturbation

CONFIGS = {
    "cvae": CvaeConfig(4, (8, 16), (8, 16), (16,), 16, 1),
    "flow": FlowConfig((8, 16), density=16, layers=4, coupling=8, grid=64),
    "matching": MatchingConfig((8, 16), width=32, blocks=1, steps=4),
}
STATISTICS = Statistics(np.zeros(3, np.float32), np.full(3, 0.1, np.float32))


def network(kind):
    contact = ContactNetConfig((8, 16), (8, 16), (16, 8))
    return NetworkConfig(contact, CONFIGS[kind], points=32, hand_points=64)


@pytest.fixture(scope="module")
def points():
    return 0.05 * jax.random.normal(jax.random.key(0), (2, 32, 3))


def filled(params, size=0.2):
    """Parameters that are nowhere zero: fresh networks say nothing."""
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: x + size * rng.normal(size=x.shape).astype(np.float32), params)


@pytest.fixture(scope="module")
def params(points):
    hands = jnp.zeros((1, 1, 64, 3))
    return {
        kind: filled(generator.init(config, jax.random.key(1), points[:1], hands))
        for kind, config in CONFIGS.items()
    }


def poses(count):
    rng = np.random.default_rng(1)
    share = rng.uniform(0.2, 0.5, (2, count, 22)).astype(np.float32)
    R = jaxlie.SO3.sample_uniform(jax.random.key(3), (2, count)).as_matrix()
    q = jnp.asarray(joints.LOWER + share * (joints.UPPER - joints.LOWER))
    t = jnp.asarray(0.05 * rng.normal(size=(2, count, 3)), jnp.float32)
    return Decoded(q=q, t=t, R=R)


@pytest.mark.parametrize("kind", CONFIGS)
def test_samples_are_poses_and_a_function_of_the_key(kind, params, points):
    @jax.jit
    def draw(points, seed, temperature):
        key = jax.random.key(seed)
        given = (CONFIGS[kind], params[kind], points, key, 5, STATISTICS, temperature)
        return generator.sample(*given)

    out = draw(points, 2, jnp.ones(()))
    assert out.phi().shape == (2, 5, 28)
    assert bool((out.q >= joints.LOWER - 1e-6).all() & (out.q <= joints.UPPER + 1e-6).all())
    for j2, j1 in joints.COUPLED:
        assert bool((out.q[..., j1] <= out.q[..., j2] + 1e-6).all())
    eye = jnp.einsum("bkij,bkil->bkjl", out.R, out.R)
    np.testing.assert_allclose(eye, np.broadcast_to(np.eye(3), eye.shape), atol=1e-5)
    again = draw(points, 2, jnp.ones(()))
    np.testing.assert_array_equal(out.q, again.q)
    other = draw(points, 3, jnp.ones(()))
    for a, b in ((out.q[:, 0], out.q[:, 1]), (out.q, other.q), (out.q[0], out.q[1])):
        assert float(jnp.abs(a - b).max()) > 1e-4
    # Without noise, what is left to chance is the rotation that UniDexGrasp draws.
    still = draw(points, 2, jnp.zeros(()))
    spread = float(jnp.abs(still.q[:, 0] - still.q[:, 1]).max())
    assert spread < 1e-6 or kind == "flow"


def test_unknown_generators_are_refused():
    with pytest.raises(CheckpointError, match="no generator 'gan'; known: cvae, flow, matching"):
        generator.named("gan")


@pytest.mark.parametrize("kind", CONFIGS)
def test_model_files_hold_any_generator(kind, tmp_path):
    config = network(kind)
    model = GraspModel(config, grasp_model.init(config, jax.random.key(0)), STATISTICS)
    grasp_model.save_model(tmp_path / "m.safetensors", model, {})
    back = grasp_model.load_model(tmp_path / "m.safetensors")
    assert back.config == config
    for a, b in zip(jax.tree.leaves(model.params), jax.tree.leaves(back.params), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-3)


# ---- UniDexGrasp


def test_the_flow_s_density_is_that_of_its_draws(params, points):
    net = flow.flow(CONFIGS["flow"])
    z = jax.random.normal(jax.random.key(4), (1, 1, flow.NUMBERS))
    seen = points[:1, None]

    def draw(z):
        return net.draw(params["flow"], seen, z[None, None])[0, 0]

    x = net.draw(params["flow"], seen, z)
    _, volume = jnp.linalg.slogdet(jax.jacobian(draw)(z[0, 0]))
    expected = -0.5 * (z**2 + jnp.log(2 * jnp.pi)).sum() - volume
    found = net.log_likelihood(params["flow"], seen, x)[0, 0]
    # Both are sums of some dozen terms of order one to ten in float32.
    np.testing.assert_allclose(found, expected, rtol=1e-3)


def test_the_flow_sees_a_grasp_the_same_wherever_the_object_is_turned(points):
    given = poses(3)
    R_room = jaxlie.SO3.exp(jnp.array([0.3, -1.0, 0.5])).as_matrix()
    moved = Decoded(q=given.q, t=given.t @ R_room.T, R=R_room @ given.R)
    for a, b in (
        (flow.from_pose(given, STATISTICS), flow.from_pose(moved, STATISTICS)),
        (flow.turned(points, given.R), flow.turned(points @ R_room.T, moved.R)),
    ):
        np.testing.assert_allclose(a, b, atol=1e-5)
    back = flow.to_pose(flow.from_pose(given, STATISTICS), given.R, STATISTICS)
    np.testing.assert_allclose(back.t, given.t, atol=1e-6)
    free = np.setdiff1d(np.arange(22), [j1 for _, j1 in joints.COUPLED])
    np.testing.assert_allclose(back.q[..., free], given.q[..., free], atol=1e-6)


def test_a_flat_density_of_rotations_is_the_uniform_one(params, points):
    flat = jax.tree.map(lambda x: x, params["flow"])
    flat["params"]["logit"] = jax.tree.map(jnp.zeros_like, flat["params"]["logit"])
    given = (flat, points, poses(3), jax.random.key(5), STATISTICS)
    rotation, _ = density_objective.likelihoods(CONFIGS["flow"], *given)
    np.testing.assert_allclose(rotation, 0.0, atol=1e-5)


def test_rotations_of_the_grid_are_spread_evenly():
    R = flow.spiral(512)
    np.testing.assert_allclose(R.mean(0), 0.0, atol=0.01)
    cosine = (np.einsum("aij,bij->ab", R, R) - 1.0) / 2.0
    np.fill_diagonal(cosine, -1.0)
    nearest = np.arccos(np.clip(cosine.max(1), -1.0, 1.0))
    # 512 balls of half that radius fill most of what a perfect packing would.
    assert nearest.min() > 0.3
    assert nearest.max() < 0.6


# ---- flow matching


def test_numbers_of_a_pose_give_it_back():
    given, config = poses(3), CONFIGS["matching"]
    R, t = matching.to_place(matching.from_place(given.R, given.t, STATISTICS), STATISTICS)
    np.testing.assert_allclose(t, given.t, atol=1e-6)
    np.testing.assert_allclose(R, given.R, atol=1e-5)
    # From another palm: the hold says how to come to the right one.
    near = given.R @ jaxlie.SO3.exp(jnp.array([0.1, -0.2, 0.3])).as_matrix()
    numbers = matching.from_hold(given, near, given.t + 0.01, config)
    q, R, t = matching.to_hold(numbers, near, given.t + 0.01, config)
    free = np.setdiff1d(np.arange(22), [j1 for _, j1 in joints.COUPLED])
    np.testing.assert_allclose(q[..., free], given.q[..., free], atol=1e-6)
    np.testing.assert_allclose(t, given.t, atol=1e-6)
    np.testing.assert_allclose(R, given.R, atol=1e-5)


def test_a_palm_sees_the_same_wherever_the_object_is_turned(points):
    given, config = poses(3), CONFIGS["matching"]
    R_room, shift = jaxlie.SO3.exp(jnp.array([0.3, -1.0, 0.5])).as_matrix(), 0.2
    moved = Decoded(q=given.q, t=given.t @ R_room.T + shift, R=R_room @ given.R)
    R_near, t_near = given.R[:, ::-1], given.t[:, ::-1]
    for a, b in (
        (
            matching.seen_from(points, R_near, t_near),
            matching.seen_from(
                points @ R_room.T + shift, R_room @ R_near, t_near @ R_room.T + shift
            ),
        ),
        (
            matching.from_hold(given, R_near, t_near, config),
            matching.from_hold(moved, R_room @ R_near, t_near @ R_room.T + shift, config),
        ),
    ):
        # Turns are up to pi over 0.2: numbers of order ten in float32, ill-conditioned near pi.
        np.testing.assert_allclose(a, b, atol=5e-3)


@pytest.mark.slow
def test_flow_matching_learns_which_grasp_belongs_to_which_object(points):
    config = dataclasses.replace(CONFIGS["matching"], width=64)
    net, given = matching.matching(config), poses(1)
    solver = optax.adam(optax.cosine_decay_schedule(5e-3, 400))
    start = jax.jit(net.init)(jax.random.key(0), points)

    def step(carry, key):
        params, state = carry
        many = jax.tree.map(lambda x: jnp.repeat(x, 4, axis=1), given)

        def error(params):
            return sum(
                density_objective.matching_errors(config, params, points, many, key, STATISTICS)
            )

        updates, state = solver.update(jax.grad(error)(params), state)
        return (optax.apply_updates(params, updates), state), None

    keys = jax.random.split(jax.random.key(1), 400)
    (params, _), _ = jax.jit(lambda c: jax.lax.scan(step, c, keys))((start, solver.init(start)))

    def drawn(config):
        key = jax.random.key(2)
        return matching.sample(config, params, points, key, 8, STATISTICS, jnp.ones(()))

    found = drawn(config)
    gap = jnp.abs(found.t - given.t)  # (2 8 3); the two objects' grasps are 5 cm apart
    assert float(jnp.median(gap)) < 0.015
    assert float(jnp.median(jnp.abs(found.t[::-1] - given.t))) > 0.02
    # The second flow brings back palms that stand 3 cm off, as it learnt to.
    off = given.t + jnp.array([0.03, 0.0, 0.0])
    seen = net.encode_seen(params, matching.seen_from(points, given.R, off))
    x = matching._flown(
        config,
        lambda x, time: net.hold(params, seen, x, time),
        jax.random.normal(jax.random.key(3), (2, 1, matching.HOLD)),
    )
    _, _, t = matching.to_hold(x, given.R, off, config)
    assert float(jnp.abs(t - given.t)[..., 0].max()) < 0.015


@pytest.mark.parametrize("kind", ["flow", "matching"])
def test_every_parameter_learns(kind, points):
    hand, config = load("shadow"), network(kind)
    params = filled(grasp_model.init(config, jax.random.key(0)))
    given = poses(2)
    batch = Batch(points=points, phi=given.phi(), item=np.arange(2, dtype=np.int32))

    def of(params):
        return density_objective.loss(
            params,
            batch,
            jax.random.key(1),
            hand=hand,
            skin=surface.points(hand, 64),
            config=config,
            statistics=STATISTICS,
            weights=DensityWeights(),
            perturbation=Perturbation(),
        )

    (loss, terms), gradient = jax.jit(jax.value_and_grad(of, has_aux=True))(params)
    assert np.isfinite(loss)
    np.testing.assert_allclose(
        loss,
        terms["generator"]
        + terms.get("rotation", 0.0)
        + terms.get("place", 0.0)
        + 0.3 * terms["contact_net"],
        rtol=1e-5,
    )
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        assert np.isfinite(leaf).all(), path
        # What a maximum or a softmax shifts by is no difference.
        if "logit" not in str(path) and "bias" not in str(path):
            assert np.abs(leaf).max() > 0.0, path
