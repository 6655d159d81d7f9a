"""How far an object is pushed while the hand closes: closed form, laws, and a general solver."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from realdex_jax import doubt, touch, wrench

LINKS = len(touch.CONTACT_LINKS)
INDEX, THUMB = touch.CONTACT_LINKS.index("ffdistal"), touch.CONTACT_LINKS.index("thdistal")


def grasps(rng, count):
    """Random contacts on a ball about the origin, most of them pressing."""
    normal = rng.normal(size=(count, LINKS, 3))
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    pressing = (rng.uniform(size=(count, LINKS)) < 0.7).astype(float)
    pressing[:, [INDEX, THUMB]] = 1.0
    return 0.04 * normal, normal, pressing, rng.uniform(0.002, 0.008, (count, LINKS))


def test_between_two_springs_the_object_goes_half_the_way():
    p, pressing = np.zeros((LINKS, 3)), np.zeros(LINKS)
    p[INDEX], p[THUMB] = [0.03, 0, 0], [-0.03, 0, 0]
    normal = np.sign(p)
    pressing[[INDEX, THUMB]] = 1.0
    moved = doubt.sway(p, normal, pressing, np.full(LINKS, 0.004), jnp.zeros(3))
    # Two independent halves of 4 mm; the weak spring that holds a free object takes 0.05 %.
    np.testing.assert_allclose(moved, np.hypot(0.002, 0.002), rtol=2e-3)


def test_sway_grows_with_the_doubt_and_does_not_depend_on_the_frame(rng):
    p, normal, pressing, offset = grasps(rng, 6)
    centre = jnp.array([0.01, -0.02, 0.005])
    moved = doubt.sway(p, normal, pressing, offset, centre)
    assert (np.asarray(moved) > 0.0).all()
    # Single precision leaves about 1e-5.
    np.testing.assert_allclose(
        doubt.sway(p, normal, pressing, 2 * offset, centre), 2 * moved, rtol=1e-4
    )
    R, t = Rotation.random(random_state=1).as_matrix(), np.array([0.3, -0.1, 0.2])
    turned = doubt.sway(p @ R.T + t, normal @ R.T, pressing, offset, R @ centre + t)
    np.testing.assert_allclose(turned, moved, rtol=1e-3)
    one = [doubt.sway(p[i], normal[i], pressing[i], offset[i], centre) for i in range(6)]
    np.testing.assert_allclose(one, moved, rtol=1e-4)


def test_agrees_with_the_springs_energy_minimised(rng):
    p, normal, pressing, offset = (x[0] for x in grasps(rng, 1))
    stiffness = pressing * np.where(touch.IS_PALM, doubt.PALM, 1.0)

    def stretched(twist, error):
        """Square roots of the energies of all springs, across and along the surface."""
        moved = twist[:3] + np.cross(twist[3:] / wrench.ARM, p)
        across = (moved * normal).sum(1)
        along = moved - across[:, None] * normal
        k = np.sqrt(stiffness)
        return np.concatenate(
            [
                k * (across - error),
                (k[:, None] * np.sqrt(doubt.ALONG) * along).ravel(),
                np.sqrt(1e-3) * twist,
            ]
        )

    squares = 0.0
    for c in range(LINKS):
        found = least_squares(stretched, np.zeros(6), args=(offset[c] * np.eye(LINKS)[c],))
        squares += (found.x[:3] ** 2).sum()
    ours = doubt.sway(p, normal, pressing, offset, jnp.zeros(3))
    np.testing.assert_allclose(ours, np.sqrt(squares), rtol=1e-3)


def test_doubt_grows_with_the_distance_from_what_was_seen_and_ends():
    p = np.array([[0.0, 0.0, 0.0], [0.01, 0.0, 0.0], [0.5, 0.0, 0.0]])
    found = doubt.offsets(p, np.zeros((1, 3)))
    np.testing.assert_allclose(found, [0.002, 0.005, 0.008])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_the_steadiest_of_each_group_is_kept(bad):
    # Two groups of three: 0, 2, 4 and 1, 3, 5.
    assert doubt.steadiest(np.array([3.0, bad, 1.0, 5.0, 2.0, 4.0]), 3).tolist() == [2, 5]
    assert doubt.steadiest(np.array([1.0, 2.0]), 1).tolist() == [0, 1]
