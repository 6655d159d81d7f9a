"""The MJX backend against the native one: same scene, same constants."""

import dataclasses
import sys

import jax
import numpy as np
import pytest

from realdex_jax.data import store
from realdex_jax.errors import PhysicsError
from realdex_jax.hand import joints
from realdex_jax.hand.load import load
from sim import native, objects
from sim.displacement import _chosen, displacement, link_poses
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


# Above what the same grasps differ by between runs of either backend on another machine; the rest
# are drops decided by single contacts.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "count", "least"),
    [
        ("magic_cube", 128, 0.97),
        pytest.param("slim_can", 128, 0.97, marks=pytest.mark.long),
        pytest.param("mug", 128, 0.95, marks=pytest.mark.long),
        pytest.param("yogurt", 60, 0.95, marks=pytest.mark.long),
    ],
)
def test_backends_agree_on_what_is_held(name, count, least):
    agree, held = agreement(name, count)
    assert 0.3 < held < 0.95
    assert agree >= least


@pytest.mark.slow
def test_room_for_contacts_grows_until_they_fit_and_ends_in_an_error(monkeypatch):
    from sim import mjx

    hand, shape = load("shadow"), objects.make("magic_cube")
    phi = mixed_grasps("magic_cube", 2)
    brief = dataclasses.replace(Physics(), short_horizon=0.01, long_horizon=0.02)
    enough = displacement(hand, shape, phi, brief, "mjx", directions=1)
    monkeypatch.setattr(mjx, "_CONTACTS", 1)
    grown = displacement(hand, shape, phi, brief, "mjx", directions=1)
    assert grown.d_1s_cm == pytest.approx(enough.d_1s_cm, abs=1e-6)
    monkeypatch.setattr(mjx, "_MOST_CONTACTS", 1)
    with pytest.raises(PhysicsError, match="more than 1 contacts"):
        displacement(hand, shape, phi, brief, "mjx", directions=1)


def test_without_warp_the_error_names_the_extra(cube, monkeypatch):
    monkeypatch.setitem(sys.modules, "warp", None)
    phi = np.zeros((1, 28), np.float32)
    with pytest.raises(PhysicsError, match=r"\.\[mjx\]"):
        displacement(load("shadow"), cube, phi, backend="mjx")


def test_the_automatic_backend_on_a_cpu_is_the_native_one():
    assert _chosen() == ("native" if jax.default_backend() == "cpu" else "mjx")
