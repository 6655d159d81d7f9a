"""Features of grasps: laws on made-up scenes, people's postures measured again."""

import pathlib

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from realdex_jax.data import teleop
from realdex_jax.evaluation import grasp
from realdex_jax.hand import joints, kinematics, load
from realdex_jax.select import features


@pytest.fixture(scope="module")
def hand() -> load.HandModel:
    return load.load()


@pytest.fixture(scope="module")
def ball() -> tuple[np.ndarray, np.ndarray]:
    """Points 2 mm apart on a ball of 3 cm, and their normals."""
    index = np.arange(3000) + 0.5
    z = 1 - 2 * index / 3000
    turn = np.pi * (1 + 5**0.5) * index
    n = np.stack([np.sqrt(1 - z**2) * np.cos(turn), np.sqrt(1 - z**2) * np.sin(turn), z], axis=1)
    return 0.03 * n, n


def at(p_palm: tuple[float, float, float], turn: Rotation | None = None) -> np.ndarray:
    """A hand at rest, its palm at a place (m) in the object frame."""
    phi = np.zeros((1, 28), np.float32)
    phi[0, :22] = joints.REST
    phi[0, 22:25] = p_palm
    phi[0, 25:] = (turn or Rotation.identity()).as_rotvec()
    return phi


def test_a_hand_far_away_touches_nothing(
    hand: load.HandModel, ball: tuple[np.ndarray, np.ndarray]
) -> None:
    found = features.measure(hand, at((1.0, 0.0, 0.0)), *ball, np.ones(3000, bool))
    assert found[features.LINKS] == found[features.FINGERS] == 0
    assert found[features.OPPOSITION] == -1
    assert found[features.HOLD] == found[features.DEPTH] == 0


def test_contacts_agree_with_the_metrics_of_evaluation(
    hand: load.HandModel, ball: tuple[np.ndarray, np.ndarray]
) -> None:
    """Another way to the same distances: links within the threshold."""
    phi = np.concatenate([at((x, y, -0.06)) for x in (-0.02, 0.0) for y in (0.03, 0.05, 0.07)])
    found = features.measure(hand, phi, *ball)
    distance = grasp.link_distance(hand, phi, ball[0])
    np.testing.assert_array_equal(found[features.LINKS], (distance < features.TOUCHING).sum(axis=1))
    assert found[features.LINKS].max() > 0
    np.testing.assert_allclose(found[features.DEPTH], np.maximum(-distance.min(1), 0), atol=1e-7)


def test_a_batch_is_its_grasps_one_by_one(
    hand: load.HandModel, ball: tuple[np.ndarray, np.ndarray]
) -> None:
    phi = np.concatenate([at((0.0, y, -0.06)) for y in (0.03, 0.05, 0.2)])
    part = ball[0][:, 2] > 0
    together = features.measure(hand, phi, *ball, part)
    for i in range(3):
        alone = features.measure(hand, phi[i : i + 1], *ball, part)
        for name, value in alone.items():
            # Compiled for other sizes, sums are rounded in another order.
            np.testing.assert_allclose(together[name][i : i + 1], value, atol=1e-5, err_msg=name)


def test_features_do_not_depend_on_where_the_object_is(
    hand: load.HandModel, ball: tuple[np.ndarray, np.ndarray]
) -> None:
    """Moved and turned about the vertical together, hand and object are the same grasp."""
    turn, p = Rotation.from_rotvec([0, 0, 1.1]), np.array([0.3, -0.2, 0.1])
    phi = at((0.0, 0.05, -0.06))
    moved = at(tuple(turn.apply(phi[0, 22:25]) + p), turn)
    here = features.measure(hand, phi, *ball)
    there = features.measure(hand, moved, turn.apply(ball[0]) + p, turn.apply(ball[1]))
    for name, value in here.items():
        np.testing.assert_allclose(there[name], value, atol=1e-4, err_msg=name)  # float32, metres


def test_thumb_and_fingers_that_press_against_each_other_oppose(hand: load.HandModel) -> None:
    """Two plates, one under the thumb and one under a finger, facing apart or the same way."""
    phi = at((0.0, 0.0, 0.0))
    groups = grasp.fingers(hand)
    links = kinematics.posed(hand, jnp.asarray(phi))
    tips = [np.asarray(links.p)[0, group[-1]] for group in (groups[-1], groups[0])]
    points = np.stack(tips).astype(float)
    for second, expected in (([0, 0, -1.0], 1.0), ([0, 1.0, 0], 0.0), ([0, 0, 1.0], -1.0)):
        normals = np.array([[0, 0, 1.0], second])
        found = features.measure(hand, phi, points, normals)
        np.testing.assert_allclose(found[features.OPPOSITION], expected, atol=1e-6)


def test_the_forearm_rises_with_the_hand_turned_down(
    hand: load.HandModel, ball: tuple[np.ndarray, np.ndarray]
) -> None:
    """Fingers down: the forearm is straight above. Fingers up: straight below."""
    down, up = Rotation.from_rotvec([np.pi, 0, 0]), Rotation.identity()
    for turn, expected in ((down, np.pi / 2), (up, -np.pi / 2)):
        found = features.measure(hand, at((0, 0, 1.0), turn), *ball)
        # The arc sine is steep there: 1e-7 in the sine is 5e-4 in the angle.
        np.testing.assert_allclose(found[features.WRIST], expected, atol=1e-3)


def test_the_part_counts_from_its_own_share_on(
    hand: load.HandModel, ball: tuple[np.ndarray, np.ndarray]
) -> None:
    phi = at((0.0, 0.03, -0.06))
    near = grasp.touched(hand, phi, ball[0])[0]
    assert near.any()
    part = np.zeros(3000, bool)
    part[np.flatnonzero(near)[: near.sum() // 4]] = True
    share = near[part].sum() / near.sum()
    for enough, expected in ((0.5, share), (0.25, 2 * share), (share / 3, 1.0)):
        found = features.measure(hand, phi, *ball, part, enough)
        np.testing.assert_allclose(found[features.HOLD], expected, atol=1e-6)


def test_habits_of_people_are_what_the_demonstrations_say(shared: pathlib.Path) -> None:
    motions = teleop.read_adroit(shared / "data" / "adroit_door" / "door_human_demos.npz")
    q = np.concatenate([np.asarray(motion.phi)[:, :22] for motion in motions])
    found = features.habits(q)
    # Rounded to a milliradian.
    np.testing.assert_allclose(found.mean(axis=0), features.HABIT_MEAN, atol=6e-4)
    np.testing.assert_allclose(found.std(axis=0), features.HABIT_DEVIATION, atol=6e-4)


def test_people_are_usual_and_a_crossed_hand_is_not(
    hand: load.HandModel, ball: tuple[np.ndarray, np.ndarray], shared: pathlib.Path
) -> None:
    motions = teleop.read_adroit(shared / "data" / "adroit_door" / "door_human_demos.npz")
    people = np.asarray(motions[0].phi, np.float32)[::20]
    crossed = people.copy()
    crossed[:, [joints.NAMES.index("FFJ3"), joints.NAMES.index("RFJ3")]] = 1.5
    crossed[:, [joints.NAMES.index("MFJ3"), joints.NAMES.index("LFJ3")]] = 0.0
    usual = features.measure(hand, people, *ball)[features.POSTURE]
    assert usual.mean() < 1.5
    assert features.measure(hand, crossed, *ball)[features.POSTURE].min() > 2 * usual.mean()


def test_mistakes_are_named(hand: load.HandModel, ball: tuple[np.ndarray, np.ndarray]) -> None:
    phi, (points, normals) = at((0, 0, 0)), ball
    with pytest.raises(features.FeatureError, match="no surface points"):
        features.measure(hand, phi, points[:0], normals[:0])
    with pytest.raises(features.FeatureError, match="enough=0"):
        features.measure(hand, phi, points, normals, np.ones(3000, bool), 0.0)
    with pytest.raises(features.FeatureError, match="finite"):
        features.measure(hand, np.full((1, 28), np.nan, np.float32), points, normals)
