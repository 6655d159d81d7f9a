"""Signed distances, self-penetration and surface points against C MuJoCo's collision functions."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from realdex_jax.errors import HandError
from realdex_jax.hand import collision, joints, kinematics, surface
from realdex_jax.hand.load import load
from realdex_jax.hand.spheres import spheres

DISTANCE_ATOL = 2e-5
"""Metres; MuJoCo's own box-sphere distance differs by about 1e-5 near edges."""
PROBE_RADIUS = 1e-4


def _with_probe(hand):
    """The hand's model with a tiny free sphere to measure distances from."""
    spec = mujoco.MjSpec.from_file(str(hand.mjcf))
    body = spec.worldbody.add_body(name="probe")
    body.add_freejoint(name="probe")
    body.explicitinertial = True
    body.mass, body.inertia = 0.01, [1e-6, 1e-6, 1e-6]
    sphere = mujoco.mjtGeom.mjGEOM_SPHERE
    body.add_geom(name="probe", type=sphere, size=[PROBE_RADIUS, 0, 0], mass=0.001)
    return spec.compile()


def test_signed_distance_agrees_with_mujoco_outside_and_inside():
    hand = load()
    model = _with_probe(hand)
    data = mujoco.MjData(model)
    rng = np.random.default_rng(0)
    q = rng.uniform(joints.LOWER, joints.UPPER, 22).astype(np.float32)
    links = kinematics.forward(hand, jnp.asarray(q))
    cover = spheres(hand)
    centres = np.einsum("sij,sj->si", links.R[cover.link], cover.p_link) + links.p[cover.link]
    p = (centres + rng.normal(size=centres.shape) * 0.01).astype(np.float32)
    ours = np.asarray(collision.signed_distance(hand, links, jnp.asarray(p)))
    data.qpos[[model.joint(n).qposadr[0] for n in joints.NAMES]] = q
    start = model.joint("probe").qposadr[0]
    probe = model.geom("probe").id
    theirs = np.zeros(len(p))
    for i in range(len(p)):
        data.qpos[start : start + 3] = p[i]
        mujoco.mj_kinematics(model, data)
        theirs[i] = PROBE_RADIUS + min(
            mujoco.mj_geomDistance(model, data, g, probe, 1.0, None)
            for g in range(model.ngeom)
            if g != probe
        )
    assert (theirs < -0.002).sum() > 10
    assert (theirs > 0.002).sum() > 10
    np.testing.assert_allclose(ours, theirs, atol=DISTANCE_ATOL)


def test_distance_and_gradient_are_those_of_the_least_of_all_primitives():
    """The nearest primitive is chosen without a gradient; by points and by posture alike."""
    hand, rng = load(), np.random.default_rng(1)
    phi = np.concatenate(
        [rng.uniform(joints.LOWER, joints.UPPER, (3, 22)), rng.normal(0, 0.05, (3, 6))], axis=1
    )
    p = jnp.asarray(rng.normal(0, 0.08, (3, 200, 3)) + phi[:, None, 22:25], jnp.float32)
    weight = jnp.asarray(rng.normal(size=(3, 200)), jnp.float32)

    def chosen(phi, p):
        return (weight * collision.signed_distance(hand, kinematics.posed(hand, phi), p)).sum()

    def least(phi, p):
        by_geom = collision.signed_distance_per_geom(hand, kinematics.posed(hand, phi), p)
        return (weight * by_geom.min(-1)).sum()

    given = jnp.asarray(phi, jnp.float32), p
    ours, gradient = jax.jit(jax.value_and_grad(chosen, (0, 1)))(*given)
    # Along directions: the gradient of all primitives compiles for a minute.
    along = jax.jit(lambda *way: jax.jvp(least, given, way))
    for _ in range(5):
        way = tuple(jnp.asarray(rng.normal(size=x.shape), jnp.float32) for x in given)
        theirs, slope = along(*way)
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)
        expected = sum(float((g * d).sum()) for g, d in zip(gradient, way, strict=True))
        # Sums of 1,800 single-precision terms of about one.
        np.testing.assert_allclose(slope, expected, atol=2e-3)


def test_self_penetration_agrees_with_mujoco_on_capsules():
    hand = load()
    model = mujoco.MjModel.from_xml_path(str(hand.mjcf))
    data = mujoco.MjData(model)
    rng = np.random.default_rng(1)
    q = rng.uniform(joints.LOWER, joints.UPPER, (30, 22)).astype(np.float32)
    ours = np.asarray(collision.self_penetration(hand, kinematics.forward(hand, jnp.asarray(q))))
    address = [model.joint(n).qposadr[0] for n in joints.NAMES]
    capsules, _ = collision._pairs(hand)
    worst = 0.0
    for i in range(len(q)):
        data.qpos[address] = q[i]
        mujoco.mj_kinematics(model, data)
        for pair, (a, b) in enumerate(capsules):
            expected = max(0.0, -mujoco.mj_geomDistance(model, data, int(a), int(b), 1.0, None))
            worst = max(worst, expected)
            np.testing.assert_allclose(ours[i, pair], expected, atol=1e-5)
    assert worst > 0.003  # some of these poses do overlap


def test_the_open_and_the_resting_hand_do_not_penetrate_themselves():
    for name in ("shadow", "dexgraspnet"):
        hand = load(name)
        q = jnp.stack([jnp.zeros(22), jnp.asarray(joints.REST)])
        assert float(collision.self_penetration(hand, kinematics.forward(hand, q)).max()) == 0.0


def test_per_link_distance_has_the_union_as_its_minimum_and_no_infinities():
    hand = load()
    links = kinematics.forward(hand, jnp.asarray(np.tile(joints.REST, (3, 1))))
    p = jax.random.uniform(jax.random.key(0), (3, 50, 3), minval=-0.1, maxval=0.1)
    per_link = collision.signed_distance_per_link(hand, links, p)
    assert per_link.shape == (3, 50, 23)
    assert bool(jnp.isfinite(per_link).all())
    np.testing.assert_allclose(
        per_link.min(-1), collision.signed_distance(hand, links, p), atol=1e-7
    )


def test_gradient_of_distance_is_finite_on_axes_and_unit_outside():
    hand = load()
    links = kinematics.forward(hand, jnp.zeros(22))
    on_axis = links.p[hand.link("ffmiddle")] + jnp.array([0.0, 0.0, 0.01])
    distance = jax.grad(lambda p: collision.signed_distance(hand, links, p[None])[0])
    assert bool(jnp.isfinite(distance(on_axis)).all())
    far = jnp.array([0.3, -0.2, 0.1])
    np.testing.assert_allclose(jnp.linalg.norm(distance(far)), 1.0, atol=1e-5)


def test_surface_points_lie_on_the_hand_with_outward_normals_every_time():
    hand = load()
    skin = surface.points(hand, 1024)
    assert len(skin.link) == 1024
    links = kinematics.forward(hand, jnp.asarray(joints.REST))
    p, normal = surface.pose_points(skin, links)
    assert float(jnp.abs(collision.signed_distance(hand, links, p)).max()) < 2e-4
    outside = collision.signed_distance(hand, links, p + 0.002 * normal)
    # Near joints and palm edges a normal may meet the next primitive; a flipped one is inside.
    assert float((outside > 0.0015).mean()) > 0.9
    again = surface.points.__wrapped__(hand, 1024)
    np.testing.assert_array_equal(again.p_link, skin.p_link)
    with_geometry = {int(link) for link in hand.geoms.link}
    assert set(skin.link.tolist()) == with_geometry


def test_too_few_surface_points_are_refused():
    with pytest.raises(HandError, match="at least 64"):
        surface.points(load(), 10)


@pytest.mark.parametrize("fine", [False, True])
def test_spheres_are_inside_the_hand_and_reach_its_surface(fine):
    hand = load()
    cover = spheres(hand, fine)
    links = kinematics.forward(hand, jnp.asarray(joints.REST))
    centre = np.einsum("sij,sj->si", links.R[cover.link], cover.p_link) + links.p[cover.link]
    depth = -np.asarray(collision.signed_distance(hand, links, jnp.asarray(centre)))
    assert (depth >= cover.radius - 1e-5).all()


def test_an_edge_of_the_palm_is_hidden_from_coarse_spheres_only():
    hand = load()
    box = int(np.flatnonzero(hand.geoms.is_box)[0])
    size, middle = hand.geoms.size[box], hand.geoms.p_link_geom[box]
    rng = np.random.default_rng(0)
    # Points along the palmar edge at the box's +x side and over its palmar face.
    along = np.linspace(-0.9, 0.9, 50)[:, None] * np.array([0.0, 0.0, size[2]])
    edge = middle + along + np.array([size[0], -size[1], 0.0])
    inside = rng.uniform(-0.9, 0.9, (200, 3)) * [size[0], 0.0, size[2]]
    face = middle + inside - np.array([0.0, size[1], 0.0])

    def farthest(cover, points):
        mine = cover.link == hand.geoms.link[box]
        d = np.linalg.norm(points[:, None] - cover.p_link[mine], axis=-1) - cover.radius[mine]
        return float(d.min(1).max())

    fine, coarse = spheres(hand, True), spheres(hand)
    # The figures of the docstring, with the lattice's own rounding on top.
    assert farthest(fine, edge) < 0.003
    assert farthest(fine, face) < 0.002
    assert farthest(coarse, edge) > 0.0045
