import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from realdex_jax import generate as generation
from realdex_jax.data import schema
from realdex_jax.errors import CloudError, ConfigError
from realdex_jax.generate import GenerateConfig
from realdex_jax.hand import joints
from realdex_jax.models import grasp_model
from realdex_jax.models.contact_net import ContactNetConfig
from realdex_jax.models.cvae import CvaeConfig, Statistics
from realdex_jax.models.grasp_model import GraspModel, NetworkConfig
from realdex_jax.refine import RefineConfig

CONFIG = GenerateConfig(refine=RefineConfig(steps=40, choices=2), map_points=64, spare=1)


@pytest.fixture(scope="module")
def model():
    network = NetworkConfig(
        contact=ContactNetConfig((8, 16), (8, 16), (16, 8)),
        generator=CvaeConfig(
            latent=4,
            object_encoder=(8, 16),
            hand_encoder=(8, 16),
            posterior=(16,),
            decoder=16,
            blocks=1,
        ),
        points=64,
        hand_points=64,
    )
    params = grasp_model.init(network, jax.random.key(0))
    # An untrained decoder puts the palm into the object; this mean puts the object in front of it.
    mean = np.array([0.0, 0.06, -0.08], np.float32)
    return GraspModel(network, params, Statistics(mean, np.full(3, 0.01, np.float32)))


def can(n: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    angle, z = rng.uniform(0, 2 * np.pi, n), rng.uniform(-0.06, 0.06, n)
    side = np.stack([0.033 * np.cos(angle), 0.033 * np.sin(angle), z], axis=-1)
    r = 0.033 * np.sqrt(rng.uniform(size=n // 4))
    lid = np.stack([r * np.cos(angle[: n // 4]), r * np.sin(angle[: n // 4])], axis=-1)
    height = np.where(np.arange(n // 4) % 2 == 0, 0.06, -0.06)[:, None]
    return np.concatenate([side[: n - n // 4], np.concatenate([lid, height], axis=1)])


@pytest.mark.slow
def test_a_cloud_of_any_count_gives_ranked_grasps(model, monkeypatch):
    offset = np.array([0.4, -0.2, 0.9])
    cloud = can(3000) + offset
    out = generation.generate(model, cloud, 10, jax.random.key(1), CONFIG)
    assert len(out.raw) == len(out.refined) == 10
    schema.validate(out.raw)
    schema.validate(out.refined)
    # In the frame of the cloud, not in the centred one.
    assert np.linalg.norm(np.asarray(out.refined.phi)[:, 22:25] - offset, axis=1).max() < 0.3
    scores = out.refined.columns["score"][out.order]
    assert (np.diff(scores) >= 0).all()
    assert out.passed[out.order].tolist() == sorted(out.passed, reverse=True)
    assert len(out.filtered()) == out.passed.sum()
    assert len(out.filtered(4)) == 4
    assert set(out.seconds) == {"surface", "sample", "refine", "judge"}
    assert min(out.seconds.values()) > 0.0
    for j2, j1 in joints.COUPLED:
        q = np.asarray(out.refined.phi)
        assert (q[:, j1] <= q[:, j2] + 1e-5).all()
    # Refinement brings hands to the surface: less penetration, more links in contact.
    prepared = generation.prepare(
        cloud, None, model, CONFIG, jax.random.split(jax.random.key(1))[0]
    )
    start, centre = prepared.target, prepared.centre
    raw = jnp.asarray(out.raw.phi).at[:, 22:25].add(-jnp.asarray(centre, jnp.float32))
    raw = jnp.concatenate([raw, jnp.tile(raw[:1], (22, 1))])
    before = generation.judge(
        generation.load.load("shadow"),
        start,
        generation.Refined(
            phi=raw,
            p=jnp.zeros((32, 16, 3)),
            normal=jnp.zeros((32, 16, 3)),
            force=jnp.zeros((32, 16, 3)),
            wanted=jnp.ones((32, 16)),
            steps=jnp.zeros((), jnp.int32),
        ),
        CONFIG.filter,
    )
    assert out.refined.columns["links"].mean() > float(before.links[:10].mean())
    assert out.refined.columns["penetration"].max() < 0.01

    again = generation.generate(model, cloud, 10, jax.random.key(1), CONFIG)
    np.testing.assert_array_equal(out.refined.phi, again.refined.phi)
    # Few points and one side only go the same way, through the same compiled functions.
    half = cloud[(cloud - offset) @ [1.0, 0.5, 0.3] > 0][:200]
    view = offset + np.array([1.0, 0.5, 0.3])
    spare = dataclasses.replace(CONFIG, spare=4)
    few = generation.generate(model, half, 5, jax.random.key(2), spare, view=view)
    assert len(few.refined) == 5
    schema.validate(few.refined)
    # Filled-in sides: of each four the steadiest, so every one is among all that were refined.
    every = generation.generate(model, half, 32, jax.random.key(2), CONFIG, view=view)
    apart = np.abs(np.asarray(few.refined.phi)[:, None] - np.asarray(every.refined.phi)).max(-1)
    assert (apart.min(1) < 1e-6).all()
    assert (apart.argmin(1) % 8 == np.arange(5)).all()
    assert (apart.argmin(1) != np.arange(5)).any()
    # More than are made at once come in turns, no two alike and all where the cloud is.
    monkeypatch.setattr(generation, "AT_ONCE", 32)
    many = generation.generate(model, cloud, 40, jax.random.key(3), CONFIG)
    schema.validate(many.refined)
    for made in (many.raw, many.refined):
        assert len(np.unique(np.asarray(made.phi), axis=0)) == 40
        assert np.linalg.norm(np.asarray(made.phi)[:, 22:25] - offset, axis=1).max() < 0.3
    assert sorted(many.order.tolist()) == list(range(40))
    assert len(many.passed) == 40


def test_of_spare_grasps_the_steadiest_is_kept_where_sides_were_filled_in(model, monkeypatch):
    contacts = np.zeros((32, 16, 3), np.float32)
    contacts[:, 3], contacts[:, 15] = [0.03, 0, 0], [-0.03, 0, 0]
    made = generation.Refined(
        phi=jnp.zeros((32, 28)),
        p=jnp.asarray(contacts),
        normal=jnp.sign(contacts),
        force=jnp.zeros((32, 16, 3)),
        wanted=jnp.asarray(contacts[..., 0] != 0, jnp.float32),
        steps=jnp.zeros((), jnp.int32),
    )
    # All alike but for the squeeze: in groups of every eighth grasp, 16, 1 and 26 press hardest.
    squeeze = jnp.full((32, 22), 0.1).at[jnp.array([16, 1, 26])].set(0.2)
    row = jnp.arange(32.0)
    judged = generation.Judgement(row > 0, row, jnp.arange(32), row, row, row)
    phi = jnp.zeros((64, 28))
    monkeypatch.setattr(generation, "sample", lambda *_: (phi, phi))
    monkeypatch.setattr(generation, "refine", lambda *_: made)
    monkeypatch.setattr(generation, "closing", lambda *_: (squeeze, squeeze))
    monkeypatch.setattr(generation, "judge", lambda *_: judged)
    half = can(3000)[can(3000)[:, 0] > 0]
    spare = dataclasses.replace(CONFIG, spare=4)
    for view, config, kept in [
        (np.array([0.8, 0.0, 0.3]), spare, [16, 1, 26]),
        (np.array([0.8, 0.0, 0.3]), CONFIG, [0, 1, 2]),
        (None, spare, [0, 1, 2]),
    ]:
        out = generation.generate(model, half, 3, jax.random.key(0), config, view=view)
        assert out.refined.columns["score"].tolist() == kept
        assert len(out.raw) == 3


@pytest.mark.parametrize(
    ("cloud", "message"),
    [
        (np.zeros((0, 3)), "empty"),
        (np.zeros((3, 3)), "distinct"),
        (np.full((100, 3), np.nan), "not finite"),
        (can(500) * 1000, "0.001 if it is in mm"),
    ],
    ids=["empty", "three", "nan", "millimetres"],
)
def test_bad_clouds_are_refused(model, cloud, message):
    with pytest.raises(CloudError, match=message):
        generation.generate(model, cloud, 4, jax.random.key(0), CONFIG)


def test_bad_settings_are_refused(model):
    with pytest.raises(ConfigError, match="count=0 grasps"):
        generation.generate(model, can(500), 0, jax.random.key(0), CONFIG)
    with pytest.raises(ConfigError, match="spare=0"):
        generation.generate(
            model, can(500), 4, jax.random.key(0), dataclasses.replace(CONFIG, spare=0)
        )
    with pytest.raises(CloudError, match="normals have shape"):
        generation.generate(model, can(500), 4, jax.random.key(0), CONFIG, normals=np.zeros((4, 3)))
    assert dataclasses.replace(CONFIG, table=True).table


def rows(index: int, row: object) -> np.ndarray:
    normals = np.tile([0.0, 0.0, 1.0], (500, 1))
    normals[index] = row
    return normals


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"normals": rows(7, np.nan)}, r"1 of 500 normals are not finite \(first: row 7\)"),
        ({"normals": rows(8, [0.0, np.inf, 0.0])}, "first: row 8"),
        ({"normals": rows(9, 0.0)}, r"1 of 500 normals are zero \(first: row 9\)"),
        ({"normals": np.full((500, 3), "up")}, "normals cannot be read as numbers"),
        ({"view": np.array([0.0, np.nan, 1.0])}, "view .* is not finite"),
        ({"view": np.ones(2)}, r"view has shape \(2,\); need \(3,\)"),
        ({"view": np.ones((1, 3))}, r"view has shape \(1, 3\)"),
        ({"view": np.ones((1, 3)), "normals": rows(0, 1.0)}, "view has shape"),
    ],
)
def test_bad_normals_and_views_are_refused(model, extra, message):
    with pytest.raises(CloudError, match=message):
        generation.generate(model, can(500), 4, jax.random.key(0), CONFIG, **extra)


@pytest.mark.parametrize("length", [10.0, 1e-200, 1e200])
def test_normals_of_any_length_give_the_same_surface(model, length):
    cloud = can(500)
    normals = cloud / np.linalg.norm(cloud, axis=1, keepdims=True)
    unit, long = (
        generation.prepare(cloud, n, model, CONFIG, jax.random.key(0)).target.grid
        for n in (normals, length * normals)
    )
    for ours, theirs in zip(jax.tree.leaves(unit), jax.tree.leaves(long), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
