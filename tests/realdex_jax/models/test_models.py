import dataclasses
import errno

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from realdex_jax.errors import CheckpointError
from realdex_jax.hand import joints
from realdex_jax.models import cvae, grasp_model, weights
from realdex_jax.models.contact_net import ContactNetConfig, contact_net
from realdex_jax.models.cvae import CvaeConfig, Statistics
from realdex_jax.models.grasp_model import GraspModel, NetworkConfig
from realdex_jax.models.pointnet import PointNet

TINY = NetworkConfig(
    contact=ContactNetConfig((8, 16), (8, 16), (16, 8)),
    generator=CvaeConfig(
        latent=4,
        object_encoder=(8, 16),
        hand_encoder=(8, 16),
        posterior=(16,),
        decoder=16,
        blocks=1,
    ),
    points=32,
    hand_points=64,
)
STATISTICS = Statistics(np.zeros(3, np.float32), np.full(3, 0.1, np.float32))


def model(config: NetworkConfig = TINY) -> GraspModel:
    return GraspModel(config, grasp_model.init(config, jax.random.key(0)), STATISTICS)


def test_encoders_do_not_see_the_order_of_points():
    points = jax.random.normal(jax.random.key(0), (2, 32, 3)) * 0.05
    net = PointNet((8, 16))
    params = net.init(jax.random.key(1), points)
    order = np.random.default_rng(0).permutation(32)
    whole, local = net.apply(params, points)
    whole_permuted, local_permuted = net.apply(params, points[:, order])
    np.testing.assert_allclose(whole, whole_permuted, atol=1e-5)
    np.testing.assert_allclose(local[:, order], local_permuted, atol=1e-5)


def test_small_preset_is_small():
    params = jax.eval_shape(lambda k: grasp_model.init(NetworkConfig(), k), jax.random.key(0))
    assert weights.parameter_count(params) <= 2_000_000


def test_decoded_poses_are_within_limits_and_rotations():
    raw = 5 * jax.random.normal(jax.random.key(0), (500, 31))
    out = cvae.to_pose(raw, STATISTICS)
    assert bool((out.q >= joints.LOWER - 1e-6).all() & (out.q <= joints.UPPER + 1e-6).all())
    for j2, j1 in joints.COUPLED:
        assert bool((out.q[:, j1] <= out.q[:, j2] + 1e-6).all())
    np.testing.assert_allclose(
        jnp.einsum("bij,bik->bjk", out.R, out.R), np.tile(np.eye(3), (500, 1, 1)), atol=1e-5
    )
    np.testing.assert_allclose(jnp.linalg.det(out.R), 1.0, atol=1e-5)
    assert out.phi().shape == (500, 28)


def test_batching_is_a_loop_and_latents_matter():
    m = model()
    generator, contact = cvae.cvae(TINY.generator), contact_net(TINY.contact)
    key_points, key_z, key_hand = jax.random.split(jax.random.key(2), 3)
    points = 0.05 * jax.random.normal(key_points, (2, 32, 3))
    z = jax.random.normal(key_z, (2, 3, 4))
    hand_points = 0.05 * jax.random.normal(key_hand, (2, 3, 64, 3))
    out = generator.decode(m.params.generator, points, z, m.statistics)
    logits = contact.apply(m.params.contact, points, hand_points)
    for i in range(2):
        for k in range(3):
            one = generator.decode(
                m.params.generator, points[i : i + 1], z[i : i + 1, k : k + 1], STATISTICS
            )
            np.testing.assert_allclose(out.q[i, k], one.q[0, 0], atol=1e-5)
            single = contact.apply(
                m.params.contact, points[i : i + 1], hand_points[i : i + 1, k : k + 1]
            )
            np.testing.assert_allclose(logits[i, k], single[0, 0], atol=1e-5)
    # Every sample must differ: the release multiplies its latent by zero.
    assert float(jnp.abs(out.q[0, 0] - out.q[0, 1]).max()) > 1e-4


def test_model_file_round_trip(tmp_path):
    m = model()
    path = tmp_path / "m.safetensors"
    grasp_model.save_model(path, m, {"seed": 0})
    back = grasp_model.load_model(path)
    assert back.config == TINY
    for a, b in zip(jax.tree.leaves(m.params), jax.tree.leaves(back.params), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-3)


@pytest.mark.parametrize("name", grasp_model.EMBEDDED)
def test_shipped_models_are_small_and_say_how_they_were_made(name):
    path = grasp_model.embedded_path(name)
    assert path.stat().st_size <= 10_000_000
    shipped = grasp_model.load_model(name)
    assert weights.parameter_count(shipped.params) <= 2_500_000
    recipe = grasp_model.load_recipe(name)
    assert len(recipe["data_digest"]) == 64
    assert {"commit", "config", "versions"} <= set(recipe)


def test_a_full_disk_keeps_the_old_model(tmp_path, monkeypatch):
    path = tmp_path / "m.safetensors"
    grasp_model.save_model(path, model(), {})
    before = path.read_bytes()

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(weights.os, "fsync", full)
    with pytest.raises(CheckpointError, match="No space left"):
        grasp_model.save_model(path, model(), {"seed": 1})
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]


def test_wrong_model_files_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="known: realdex-sim-small"):
        grasp_model.load_model("nothing")
    path = tmp_path / "m.safetensors"
    path.write_bytes(b"not a model")
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        grasp_model.load_model(path)
    m = model()
    wider = dataclasses.replace(TINY, generator=dataclasses.replace(TINY.generator, decoder=32))
    grasp_model.save_model(path, GraspModel(wider, m.params, STATISTICS), {})
    with pytest.raises(CheckpointError, match=r"another architecture.*file \(16,\), model \(32,\)"):
        grasp_model.load_model(path)
