import jax.numpy as jnp
import numpy as np
import pytest
import trimesh
from scipy.optimize import linprog
from scipy.spatial import ConvexHull
from scipy.spatial.transform import Rotation

from realdex_jax.data import store
from realdex_jax.evaluation import closure
from realdex_jax.evaluation.closure import Contacts
from realdex_jax.evaluation.grasp import MetricError
from realdex_jax.geometry.shape import ObjectShape
from realdex_jax.hand import collision, joints, kinematics, load
from sim import objects

SHORT = np.cos(np.pi / closure.EDGES)
"""A cone of eight edges holds the round cone of this share of its friction."""
JOGGLE = 1e-8
"""Hulls are joggled by about 1e-10; two of them differ by less than this."""
BALL = 0.02
FACETED = 5e-5
"""Metres by which a gap to the faceted ball is off: its faces' middles lie 16 um inside it, and a
finger's axis may slide by half an edge before its nearest point changes."""
TILT = 0.06
"""By as much (rad) a normal is off for the same reasons: faces are turned by up to 0.04."""


@pytest.fixture(scope="module")
def hand() -> load.HandModel:
    return load.load()


def ball() -> ObjectShape:
    mesh = trimesh.creation.icosphere(subdivisions=4, radius=BALL)
    corners = trimesh.creation.icosphere(subdivisions=1, radius=BALL).vertices
    faces = np.asarray(mesh.faces)
    return ObjectShape(
        "ball", np.asarray(mesh.vertices), faces, (np.asarray(corners),), ("ball",), 0.1, "test"
    )


def directions(count: int) -> np.ndarray:
    """Evenly spread unit vectors (golden spiral)."""
    z = 1.0 - (2.0 * np.arange(count) + 1.0) / count
    turn = np.pi * (3.0 - 5.0**0.5) * np.arange(count)
    side = np.sqrt(1.0 - z**2)
    return np.stack([side * np.cos(turn), side * np.sin(turn), z], axis=1)


def some_contacts(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    normal = rng.normal(size=(count, 3))
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    return normal * [0.03, 0.04, 0.06], normal


def touching(p: np.ndarray, normal: np.ndarray, gap: float = 0.0) -> Contacts:
    return Contacts(gap=np.full((1, len(p)), gap), p=p[None], normal=normal[None])


def on_tips(hand: load.HandModel, p: np.ndarray, normal: np.ndarray, gap: float = 0.0) -> Contacts:
    """The first of the five fingertips touch there; no other link does."""
    place = [closure.links(hand).index(tip) for tip in hand.tip_link[: len(p)]]
    found = Contacts(
        gap=np.full((1, len(closure.links(hand))), 1.0),
        p=np.zeros((1, len(closure.links(hand)), 3)),
        normal=np.tile([0.0, 0.0, 1.0], (1, len(closure.links(hand)), 1)),
    )
    found.gap[0, place], found.p[0, place], found.normal[0, place] = gap, p, normal
    return found


def test_a_ball_held_all_around_has_the_radius_of_its_torques() -> None:
    """Only friction turns a ball: torques reach 10 R, less than the forces, in every direction."""
    n = directions(40)
    origin = np.zeros(3)
    for radius in (0.03, 0.05):
        found = closure.q1(touching(radius * n, n), origin)[0]
        assert 0.95 * 10.0 * radius * SHORT < found < 10.0 * radius  # 40 directions are not all
    assert closure.q1(touching(0.3 * n, n), origin)[0] == 1.0, "Q1 is capped"


def test_what_cannot_hold_is_zero() -> None:
    n = directions(40)
    assert closure.ball_radius(closure.wrenches(n, n, 0.0, 10.0)) == 0.0, "no friction, no torque"
    two = np.array([[0.0, 0.0, 1.0], [0.0, 0.0, -1.0]])
    origin = np.zeros(3)
    assert closure.q1(touching(0.03 * two, two), origin)[0] == 0.0, "it turns about the line"
    assert closure.q1(touching(0.03 * two[:1], two[:1]), origin)[0] == 0.0
    assert closure.q1(touching(n, n, gap=0.011), origin)[0] == 0.0, "too far to touch"
    above = n[n[:, 2] > 0.8]
    assert closure.q1(touching(0.03 * above, above), origin)[0] < JOGGLE, "pushed from one side"


def test_the_radius_does_not_depend_on_frame_or_order(rng: np.random.Generator) -> None:
    p, n = some_contacts(rng, 8)
    edges = closure.wrenches(p, n, 1.0, 10.0)
    radius = closure.ball_radius(edges)
    assert radius > 0.1
    R = Rotation.random(rng=rng).as_matrix()
    turned = np.concatenate([edges[:, :3] @ R.T, edges[:, 3:] @ R.T], axis=1)
    for other in (turned, -edges, rng.permutation(edges), np.concatenate([edges, 0.5 * edges])):
        assert closure.ball_radius(other) == pytest.approx(radius, abs=JOGGLE)
    assert closure.ball_radius(3.0 * edges) == pytest.approx(3.0 * radius, abs=JOGGLE)
    fewer = closure.ball_radius(edges[: -closure.EDGES])
    assert fewer <= radius + JOGGLE


def test_turning_everything_changes_q1_by_the_corners_of_the_cones_only(
    rng: np.random.Generator,
) -> None:
    p, n = some_contacts(rng, 9)
    radius = closure.q1(touching(p, n), np.zeros(3))[0]
    upright = Rotation.from_rotvec([0.0, 0.0, 1.1])
    found = closure.q1(touching(upright.apply(p), upright.apply(n)), np.zeros(3))[0]
    assert found == pytest.approx(radius, abs=JOGGLE), "edges start in the horizontal plane"
    for _ in range(5):
        R = Rotation.random(rng=rng)
        found = closure.q1(touching(R.apply(p), R.apply(n)), np.zeros(3))[0]
        assert SHORT**2 < found / radius < SHORT**-2
    moved = closure.q1(touching(p + 0.2, n), np.full(3, 0.2))[0]
    assert moved == pytest.approx(radius, abs=JOGGLE)


def test_cones_are_edge_major_and_not_normalised(rng: np.random.Generator) -> None:
    p, n = some_contacts(rng, 5)
    edges = closure.wrenches(p, n, 1.0, 10.0).reshape(closure.EDGES, 5, 6)
    np.testing.assert_allclose((edges[..., :3] * n).sum(-1), 1.0, atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(edges[..., :3], axis=-1), 2**0.5, atol=1e-12)
    np.testing.assert_allclose(edges[..., 3:], 10.0 * np.cross(p, edges[..., :3]), atol=1e-12)
    np.testing.assert_allclose(edges[..., :3].mean(axis=0), n, atol=1e-12)


def reach(corners: np.ndarray, direction: np.ndarray) -> tuple[float, np.ndarray]:
    """How far the hull reaches along a direction, and the normal of the facet it leaves through."""
    count = len(corners)
    solved = linprog(
        np.append(np.zeros(count), -1.0),
        A_eq=np.block([[corners.T, -direction[:, None]], [np.ones((1, count)), np.zeros((1, 1))]]),
        b_eq=np.append(np.zeros(6), 1.0),
    )
    assert solved.success
    normal = np.asarray(solved.eqlin.marginals)[:6]
    return -solved.fun, normal / (np.linalg.norm(normal) * np.sign(normal @ direction))


@pytest.mark.parametrize("count", [4, 7])
def test_no_direction_is_weaker_and_the_weakest_is_the_radius(
    rng: np.random.Generator, count: int
) -> None:
    """Linear programs without a hull: from many directions, go to the facet they leave through."""
    around = Rotation.from_rotvec(0.3 * rng.normal(size=(count, 3)))
    n = around.apply(directions(count))
    edges = closure.wrenches(0.05 * n, n, 1.0, 10.0)
    radius = closure.ball_radius(edges)
    assert radius > 0.01
    corners = np.concatenate([edges, np.zeros((1, 6))])
    least = np.inf
    for direction in rng.normal(size=(30, 6)):
        far, normal = reach(corners, direction / np.linalg.norm(direction))
        while True:
            assert far > radius - JOGGLE
            nearer, following = reach(corners, normal)
            if nearer > far - 1e-9:
                break
            far, normal = nearer, following
        least = min(least, far)
    assert least == pytest.approx(radius, abs=JOGGLE)


def test_the_grown_hull_is_the_whole_hull(rng: np.random.Generator) -> None:
    for count in (3, 6, 12):
        for _ in range(5):
            edges = closure.wrenches(*some_contacts(rng, count), 1.0, 10.0)
            hull = ConvexHull(np.concatenate([edges, np.zeros((1, 6))]))
            radius = np.abs(hull.equations[:, 6]).min()
            assert closure.ball_radius(edges) == pytest.approx(radius, abs=JOGGLE)


def test_a_shallow_grasp_keeps_its_q1() -> None:
    found = closure.valid_q1(np.array([0.3, 0.3, 0.3]), np.array([0.0, 0.0049, 0.0051]))
    assert found.tolist() == [0.3, 0.3, 0.0]


def test_the_bench_counts_tips_in_their_own_size(hand: load.HandModel) -> None:
    n = directions(5)
    found = closure.q1_bench(hand, on_tips(hand, 0.03 * n, n))[0]
    assert 1.0 < found < 2.0
    bigger = closure.q1_bench(hand, on_tips(hand, 0.07 * n + 0.4, n))[0]
    assert bigger == pytest.approx(found, abs=JOGGLE)
    arm = 0.03 * (n - n.mean(axis=0))
    arm /= np.linalg.norm(arm, axis=1).mean()
    edges = closure.wrenches(arm, n, 0.3, 1.0)
    hull = ConvexHull(np.concatenate([edges, np.zeros((1, 6))]))
    assert found == pytest.approx(2.0 - np.abs(hull.equations[:, 6]).min(), abs=JOGGLE)


def test_the_bench_has_its_worst_without_closure(hand: load.HandModel) -> None:
    n = directions(5)
    for found in (
        on_tips(hand, n[:0], n[:0]),
        on_tips(hand, 0.03 * n[:1], n[:1]),
        on_tips(hand, 0.03 * n[:2], n[:2]),
        on_tips(hand, 0.03 * n, n, gap=0.006),
        on_tips(hand, 0.03 * n, n, gap=-0.006),
    ):
        assert closure.q1_bench(hand, found)[0] == closure.WORST
    links = np.arange(len(closure.links(hand)))
    palm_only = Contacts(
        gap=np.where(links == 0, 0.0, 1.0)[None],
        p=np.zeros((1, len(links), 3)),
        normal=np.tile([0.0, 0.0, 1.0], (1, len(links), 1)),
    )
    assert closure.q1_bench(hand, palm_only)[0] == closure.WORST


def test_contacts_with_a_ball_are_where_geometry_says(
    hand: load.HandModel, rng: np.random.Generator
) -> None:
    """On a ball, a link's contact lies towards the point of its axis nearest to the middle."""
    phi = np.zeros((20, 28), np.float32)
    phi[:, :22] = rng.uniform(joints.LOWER, joints.UPPER, (20, 22))
    phi[:, 25:] = rng.normal(size=(20, 3))
    R = Rotation.from_rotvec(phi[:, 25:])
    phi[:, 22:25] = -R.apply([0.0, -0.05, 0.09]) + 0.01 * rng.normal(size=(20, 3))
    found = closure.contacts(hand, ball(), phi)
    R_geom, centre = map(
        np.asarray, collision.geom_poses(hand, kinematics.posed(hand, jnp.asarray(phi)))
    )
    g = hand.geoms
    seen = deep = 0
    for i, link in enumerate(closure.links(hand)):
        (mine, *more) = np.flatnonzero(g.link == link)
        if g.is_box[mine]:
            continue
        assert not more
        radius, half = g.size[mine, :2]
        axis = R_geom[:, mine, :, 2]
        along = np.clip(-(centre[:, mine] * axis).sum(-1), -half, half)
        core = centre[:, mine] + along[:, None] * axis
        length = np.linalg.norm(core, axis=-1)
        outside = length > BALL + 0.002
        seen += outside.sum()
        deep += (outside & (length < BALL + radius)).sum()
        direction = core / length[:, None]
        np.testing.assert_allclose(
            found.gap[outside, i], (length - BALL - radius)[outside], atol=FACETED
        )
        np.testing.assert_allclose(found.normal[outside, i], direction[outside], atol=TILT)
    assert seen > 100
    assert deep > 10


def test_the_palm_meets_a_ball_on_its_face(hand: load.HandModel) -> None:
    phi = np.zeros((1, 28), np.float32)
    phi[0, :22] = joints.REST
    R, centre = map(
        np.asarray, collision.geom_poses(hand, kinematics.posed(hand, jnp.asarray(phi)))
    )
    inward = R[0, 0, :, 1] * hand.geoms.size[0, 1]
    gap = 0.004
    for side in (1.0, -1.0):
        face = centre[0, 0] + side * inward
        phi[0, 22:25] = -(face + side * R[0, 0, :, 1] * (BALL + gap))
        found = closure.contacts(hand, ball(), phi)
        assert found.gap[0, 0] == pytest.approx(gap, abs=FACETED)
        np.testing.assert_allclose(found.normal[0, 0], -side * R[0, 0, :, 1], atol=TILT)


def test_stored_grasps_hold_and_far_hands_do_not(hand: load.HandModel) -> None:
    shape = objects.make("mug")
    phi = np.asarray(store.open_dataset("realdex-sim").grasps("mug").phi[:8], np.float32)
    centre = shape.bounds.mean(axis=0)
    found = closure.contacts(hand, shape, phi)
    q1 = closure.q1(found, centre)
    assert (q1 > 0.0).all()
    assert 0.05 < q1.mean() < 0.5
    assert (found.gap > -0.002).all(), "they were settled to be shallow"
    one = closure.contacts(hand, shape, phi[3:4])
    assert closure.q1(one, centre)[0] == pytest.approx(q1[3], abs=JOGGLE)
    phi[:, 22] += 0.5
    far = closure.contacts(hand, shape, phi)
    assert closure.q1(far, centre).tolist() == [0.0] * 8
    assert closure.q1_bench(hand, far).tolist() == [closure.WORST] * 8


def test_a_pose_that_is_not_finite_is_refused(hand: load.HandModel) -> None:
    with pytest.raises(MetricError, match="finite"):
        closure.contacts(hand, ball(), np.full((2, 28), np.nan, np.float32))
