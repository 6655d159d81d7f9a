import jax.numpy as jnp
import numpy as np
import pytest

from realdex_jax.evaluation import grasp
from realdex_jax.hand import joints, load


@pytest.fixture(scope="module")
def hand() -> load.HandModel:
    return load.load()


@pytest.fixture
def phi() -> np.ndarray:
    pose = np.zeros((3, 28), np.float32)
    pose[:, :22] = joints.REST
    return pose


def fingertip(hand: load.HandModel, finger: int) -> tuple[int, int]:
    """(link, primitive) of a fingertip."""
    link = hand.tip_link[finger]
    return link, int(np.flatnonzero(hand.geoms.link == link)[0])


def test_link_distance_is_the_distance_to_the_nearest_point(
    hand: load.HandModel, phi: np.ndarray
) -> None:
    far = np.array([[0.0, -5.0, 0.0]])
    distance = grasp.link_distance(hand, phi, far)
    assert distance.shape == (3, len(hand.parents))
    assert distance[:, 0] == pytest.approx(5.0, abs=0.05)


def test_contact_number_counts_the_links_that_a_cloud_touches(
    hand: load.HandModel, phi: np.ndarray
) -> None:
    from realdex_jax.hand import kinematics, surface

    links = kinematics.forward(hand, jnp.asarray(phi[0, :22]))
    points = surface.points(hand, 512)
    p = np.asarray(surface.pose_points(points, links)[0])
    wanted = [fingertip(hand, 0)[0], fingertip(hand, 2)[0]]
    on_two_tips = p[np.isin(points.link, wanted)]
    distance = grasp.link_distance(hand, phi[:1], on_two_tips)
    touching = set(np.flatnonzero(np.abs(distance[0]) < grasp.CONTACT))
    assert set(wanted) <= touching
    assert grasp.contact_number(hand, distance)[0] == len(touching)


def test_far_away_nothing_touches_and_every_gap_is_capped(
    hand: load.HandModel, phi: np.ndarray
) -> None:
    distance = grasp.link_distance(hand, phi, np.array([[0.0, 0.0, 3.0]]))
    assert (grasp.contact_number(hand, distance) == 0).all()
    assert grasp.contact_distance_mm(hand, distance) == pytest.approx(10.0)


def test_fingers_have_their_own_links_and_not_the_palm(hand: load.HandModel) -> None:
    groups = grasp.fingers(hand)
    flat = [link for group in groups for link in group]
    assert len(groups) == 5
    assert len(flat) == len(set(flat))
    assert 0 not in flat


def test_functional_share_is_a_share_of_touched_surface() -> None:
    touched = np.array([[True, True, False, True], [False] * 4])
    functional = np.array([True, False, True, False])
    assert grasp.functional_share(touched, functional) == pytest.approx([1 / 3, 0.0])


def test_touched_is_where_the_distance_is_small(hand: load.HandModel, phi: np.ndarray) -> None:
    inside_palm = np.array([[0.0, 0.0, 0.04], [0.0, -1.0, 0.0]])
    assert grasp.touched(hand, phi, inside_palm).tolist() == [[True, False]] * 3


@pytest.mark.parametrize("points", [np.zeros((0, 3)), np.full((4, 3), np.nan)])
def test_bad_points_are_refused(hand: load.HandModel, phi: np.ndarray, points: np.ndarray) -> None:
    with pytest.raises(grasp.MetricError):
        grasp.link_distance(hand, phi, points)
