"""The MJX backend against the native one: same scene, same constants."""

import numpy as np
import pytest

from realdex_jax.data import store
from realdex_jax.hand import joints
from realdex_jax.hand.load import load
from sim import native, objects
from sim.displacement import displacement, link_poses
from sim.physics import Physics
from sim.scene import still_scene

# MJX warns of vertex counts and optional packages, and is compiled without float64.
pytestmark = pytest.mark.filterwarnings("ignore:Mesh .* has a coplanar face:UserWarning")


def mixed_grasps(name, count):
    """Grasps of the shipped data, every second one shaken so that it may let go."""
    rng = np.random.default_rng(0)
    phi = np.array(store.open_dataset("realdex-sim").grasps(name).phi[:count])
    shaken = slice(1, None, 2)
    phi[shaken, :22] += rng.normal(0.0, 0.06, phi[shaken, :22].shape)
    phi[shaken, :22] = np.clip(phi[shaken, :22], joints.LOWER, joints.UPPER)
    phi[shaken, 22:25] += rng.normal(0.0, 0.004, phi[shaken, 22:25].shape)
    return phi


def agreement(name, count):
    """Share of grasps that both backends call held, or both not held; share held."""
    hand, shape, phi = load("shadow"), objects.make(name), mixed_grasps(name, count)
    a = displacement(hand, shape, phi, directions=1)
    b = displacement(hand, shape, phi, backend="mjx", directions=1)
    return (a.held == b.held).mean(), a.held.mean()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_free_fall_is_that_of_the_native_backend(cube):
    from sim import mjx

    hand = load("shadow")
    phi = np.zeros((3, 28), np.float32)
    phi[:, 22] = 0.5
    scene = still_scene(hand, cube, Physics())
    p, wxyz = link_poses(hand, phi)
    gravity = np.array([[0, 0, -9.81], [0, 4.0, 0], [1.0, 0, 0]])
    args = (scene, p[:, scene.links], wxyz[:, scene.links], gravity, (10, 20))
    assert mjx.simulate(*args) == pytest.approx(native.simulate(*args), rel=1e-3)


# Minutes of compilation and of stepping on a CPU: where JAX sees an accelerator only.
@pytest.mark.gpu
def test_backends_agree_on_a_box():
    agree, held = agreement("magic_cube", 128)
    assert 0.3 < held < 0.95
    assert agree >= 0.97


@pytest.mark.gpu
def test_backends_agree_on_convex_pieces():
    agree, held = agreement("yogurt", 60)
    assert 0.3 < held < 0.95
    assert agree >= 0.95
