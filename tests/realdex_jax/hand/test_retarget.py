"""Retargeting: a hand's own keypoints come back, laws, SciPy as witness, a real sequence."""

import dataclasses
import functools
import itertools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from realdex_jax.errors import HandError
from realdex_jax.hand import human, joints, retarget, torque
from realdex_jax.hand.load import load
from realdex_jax.hand.retarget import PLACE, RetargetConfig

CONFIG = RetargetConfig()
TIPS = np.array(human.TIPS)


def some_poses(rng: np.random.Generator, count: int) -> np.ndarray:
    """Poses anywhere within the limits, in any orientation."""
    q = rng.uniform(joints.LOWER, joints.UPPER, (count, 22)).astype(np.float32)
    phi = np.zeros((count, 28), np.float32)
    phi[:, :22] = torque.within_limits(jnp.asarray(q))
    phi[:, 22:25] = rng.normal(size=(count, 3)) * 0.2
    phi[:, 25:] = Rotation.random(count, rng=rng).as_rotvec()
    return phi


def within_limits(q: np.ndarray) -> bool:
    coupled = all((q[:, j1] <= q[:, j2]).all() for j2, j1 in joints.COUPLED)
    return bool((q >= joints.LOWER).all() and (q <= joints.UPPER).all()) and coupled


@pytest.fixture(scope="module")
def real() -> np.ndarray:
    path = pathlib.Path(__file__).resolve().parents[4] / "shared/data/human_hand"
    if not path.is_dir():
        pytest.skip("the folder of real samples is not beside this repository")
    with np.load(path / "keypoints_right.npz") as found:
        return found["keypoints"]


@pytest.mark.parametrize(
    "config",
    [CONFIG, pytest.param(PLACE, marks=pytest.mark.slow)],
    ids=["posture", "place"],
)
def test_a_hands_own_keypoints_come_back(rng, config):
    hand = load()
    phi = some_poses(rng, 256)
    keypoints = human.keypoints_of(hand, jnp.asarray(phi))
    found = retarget.retarget(hand, keypoints, config)
    off = np.linalg.norm((human.keypoints_of(hand, found.phi) - keypoints)[:, TIPS], axis=-1)
    # Measured: median 0.01 mm, 99 % within 0.3 mm; the target is a median of 5 mm.
    assert np.median(off) < 1e-4
    assert np.quantile(off, 0.98) < 2e-3
    assert np.asarray(found.converged).mean() > 0.9
    assert within_limits(np.asarray(found.phi)[:, :22])


def test_joint_angles_come_back_too(rng):
    hand = load()
    phi = some_poses(rng, 256)
    found = retarget.retarget(hand, human.keypoints_of(hand, jnp.asarray(phi)))
    off = np.abs(np.asarray(found.phi)[:, :22] - phi[:, :22])
    # The pull to the rest posture bends weakly seen joints by less than this; a few poses in a
    # hundred end in another minimum.
    assert np.quantile(off, 0.95) < 0.01


def test_moving_the_keypoints_moves_the_pose(real):
    hand = load()
    keypoints = real[::2][:256]
    R, p = Rotation.from_rotvec([0.7, -1.1, 0.4]), np.array([0.3, -0.2, 0.5])
    moved = (R.apply(keypoints.reshape(-1, 3)) + p).reshape(keypoints.shape).astype(np.float32)
    here = retarget.retarget(hand, jnp.asarray(keypoints))
    there = retarget.retarget(hand, jnp.asarray(moved))
    # The search rounds on its way, and not all of these have come to rest.
    rest = np.asarray(here.converged & there.converged)
    assert rest.mean() > 0.5
    here, there = np.asarray(here.phi)[rest], np.asarray(there.phi)[rest]
    joints_off = np.abs(here[:, :22] - there[:, :22])
    assert np.quantile(joints_off, 0.99) < 2e-3
    shift = np.linalg.norm(R.apply(here[:, 22:25]) + p - there[:, 22:25], axis=1)
    assert np.quantile(shift, 0.95) < 1e-4
    turn = Rotation.from_rotvec(there[:, 25:]).inv() * R * Rotation.from_rotvec(here[:, 25:])
    assert np.quantile(turn.magnitude(), 0.95) < 1e-3


def test_size_does_not_matter_to_a_posture(real):
    hand = load()
    keypoints = real[::2][:256]
    # A pinch is as wide as the thing between, so hands that pinch are left out.
    apart = np.linalg.norm(keypoints[:, [4]] - keypoints[:, TIPS[:4]], axis=-1).min(1) > 0.06
    assert apart.sum() > 50
    large = retarget.retarget(hand, jnp.asarray(1.2 * keypoints))
    alike = retarget.retarget(hand, jnp.asarray(keypoints))
    off = np.abs(large.phi[:, :22] - alike.phi[:, :22])[apart]
    assert np.quantile(off, 0.95) < 0.01


@pytest.mark.slow
def test_a_batch_is_its_poses_one_by_one(real):
    hand = load()
    keypoints = jnp.asarray(real[:70:10])
    config = dataclasses.replace(CONFIG, chunk=3)  # three parts, the last one filled up
    whole = retarget.retarget(hand, keypoints, config)
    assert whole.phi.shape == (7, 28)
    for i in range(7):
        alone = retarget.retarget(hand, keypoints[i : i + 1], config)
        # Cholesky factors of a batch differ in the last bits.
        assert np.abs(alone.phi[0] - whole.phi[i]).max() < 1e-3
        assert np.abs(alone.error[0] - whole.error[i]).max() < 1e-4


@pytest.mark.slow
def test_scipy_finds_nothing_better(real):
    """The objective written anew as residuals; limits and coupling by SciPy's own means."""
    hand = load()
    lower, upper = joints.LOWER.astype(float), joints.UPPER.astype(float)
    for frame in (310, 458):
        keypoints = real[frame].astype(float)
        found = retarget.retarget(hand, jnp.asarray(real[frame : frame + 1]))
        reference = residuals(keypoints)

        def of_shares(x: np.ndarray, reference=reference) -> np.ndarray:
            return reference(unshared(x))

        start = np.concatenate([np.clip(joints.REST, lower, upper), found.phi[0, 22:]])
        for _, j1 in joints.COUPLED:
            start[j1] = 0.5
        low = np.concatenate([lower, np.full(6, -np.inf)])
        high = np.concatenate([upper, np.full(6, np.inf)])
        for _, j1 in joints.COUPLED:
            low[j1], high[j1] = 0.0, 1.0
        inside = np.clip(start, low + 1e-6, high - 1e-6)
        theirs = least_squares(
            of_shares, inside, bounds=(low, high), x_scale=0.1, diff_step=1e-3, max_nfev=60
        )
        ours = np.asarray(found.phi[0], float)
        # Single precision and a search that stops early may cost a hundredth.
        assert (reference(ours) ** 2).sum() < 1.01 * 2.0 * theirs.cost + 1e-9


def unshared(x: np.ndarray) -> np.ndarray:
    """J1 of coupled fingers from its share of J2."""
    phi = x.copy()
    for j2, j1 in joints.COUPLED:
        phi[j1] = x[j1] * x[j2]
    return phi


def residuals(k: np.ndarray):
    hand = load()
    points_of = jax.jit(functools.partial(human.keypoints_of, hand))
    zero = np.asarray(points_of(jnp.zeros(28)), float)
    knuckles = [5, 9, 13]

    def size(points):
        return np.linalg.norm(points[knuckles] - points[0], axis=1).mean()

    scale = size(zero) / size(k)

    def of(phi: np.ndarray) -> np.ndarray:
        r = np.asarray(points_of(jnp.asarray(phi, jnp.float32)), float)
        out = [
            np.sqrt(CONFIG.palm) * (r[i] - (k[0] + scale * (k[i] - k[0])))
            for i in (0, 1, 5, 9, 13, 17)
        ]
        for chain in (
            (5, 6, 7, 8),
            (9, 10, 11, 12),
            (13, 14, 15, 16),
            (17, 18, 19, 20),
            (1, 2, 3, 4),
        ):
            whole = np.zeros(3)
            for a, b in itertools.pairwise(chain):
                wanted = k[b] - k[a]
                wanted *= np.linalg.norm(zero[b] - zero[a]) / np.linalg.norm(wanted)
                out.append(np.sqrt(CONFIG.bone) * (r[b] - r[a] - wanted))
                whole += wanted
            out.append(np.sqrt(CONFIG.tip) * (r[chain[3]] - r[chain[0]] - whole))
        for tip in (8, 12, 16, 20):
            apart = k[4] - k[tip]
            close = 1 / (1 + np.exp(-8 * (1 - np.linalg.norm(apart) / CONFIG.pinch_distance)))
            out.append(np.sqrt(CONFIG.pinch * close) * (r[4] - r[tip] - apart))
        out.append(CONFIG.rest * (phi[:22] - joints.REST))
        return np.concatenate(out)

    return of


def test_the_real_sequence_moves_without_jumps(real):
    hand = load()
    found = retarget.retarget_sequence(hand, jnp.asarray(real))
    q = np.asarray(found.phi)[:, :22]
    step = np.abs(np.diff(q, axis=0))
    assert step.max() <= CONFIG.max_step + 1e-5
    assert np.median(step) < 0.02
    assert within_limits(q)
    assert np.median(found.error) < 5e-3
    robot = np.asarray(human.keypoints_of(hand, found.phi))
    roots = np.array([chain[0] for chain in human.FINGERS])
    angle = np.degrees(angles(robot[:, TIPS] - robot[:, roots], real[:, TIPS] - real[:, roots]))
    assert np.median(angle) < 3.0
    assert np.quantile(angle, 0.9) < 10.0
    theirs, ours = (np.linalg.norm(k[:, [4]] - k[:, TIPS[:4]], axis=-1) for k in (real, robot))
    close = theirs < 0.03
    assert close.sum() > 50
    assert np.median(np.abs(theirs - ours)[close]) < 3e-3


def angles(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    cosine = (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)
    return np.arccos(np.clip(cosine, -1.0, 1.0))


@pytest.mark.slow
def test_fingertips_keep_their_places_where_asked(real):
    hand = load()
    found = retarget.retarget_sequence(hand, jnp.asarray(real[::3]), PLACE)
    off = np.linalg.norm((human.keypoints_of(hand, found.phi) - real[::3])[:, TIPS], axis=-1)
    assert np.allclose(off, found.error, atol=1e-5)
    assert np.median(off) < 3e-3


@pytest.mark.slow
def test_a_sequence_is_smooth_and_slow_as_asked(real):
    hand = load()
    keypoints = jnp.asarray(real[300:420])
    slow = dataclasses.replace(CONFIG, max_step=0.05)
    calm = dataclasses.replace(CONFIG, smooth=0.05)
    q = {
        c: np.asarray(retarget.retarget_sequence(hand, keypoints, c).phi)[:, :22]
        for c in (CONFIG, slow, calm)
    }
    assert np.abs(np.diff(q[slow], axis=0)).max() <= 0.05 + 1e-5
    shake = {c: np.abs(np.diff(value, 2, axis=0)).mean() for c, value in q.items()}
    assert shake[calm] < 0.75 * shake[CONFIG]  # measured 0.63


@pytest.mark.slow
def test_a_start_is_used(rng):
    hand = load()
    phi = some_poses(rng, 8)
    keypoints = human.keypoints_of(hand, jnp.asarray(phi))
    brief = dataclasses.replace(CONFIG, steps=1)
    near = retarget.retarget(hand, keypoints, brief, jnp.asarray(phi))
    far = retarget.retarget(hand, keypoints, brief)
    assert np.asarray(near.error).max() < 1e-3 < np.median(far.error)
    lost = retarget.retarget(hand, jnp.nan * keypoints, brief, jnp.asarray(phi))
    assert not np.asarray(lost.converged).any()
    sequence = retarget.retarget_sequence(hand, keypoints[:1], brief, jnp.asarray(phi[0]))
    assert np.asarray(sequence.error).max() < 1e-3


def test_hopeless_keypoints_are_not_converged(real):
    keypoints = real[:256].copy()
    keypoints[3], keypoints[5] = np.nan, 0.0
    found = retarget.retarget(load(), jnp.asarray(keypoints))
    finite = np.isfinite(found.phi).all(axis=1)
    assert list(np.flatnonzero(~finite)) == [3]
    assert not found.converged[3]


def test_keypoints_that_are_no_hand_are_refused(real):
    human.check(real, "frames")
    with pytest.raises(HandError, match=r"frames: 1 of 621 hands are not finite \(first: 7\)"):
        human.check(np.where(np.arange(621)[:, None, None] == 7, np.nan, real), "frames")
    with pytest.raises(HandError, match="in metres"):
        human.check(1e3 * real, "frames")


def test_anchors_are_where_the_joints_are(rng):
    from realdex_jax.hand import kinematics

    hand = load()
    q = some_poses(rng, 3)[:, :22]
    all_points = kinematics.keypoints(hand, kinematics.forward(hand, jnp.asarray(q)))
    ours = human.keypoints_of(hand, jnp.pad(jnp.asarray(q), ((0, 0), (0, 6))))
    names = [*joints.NAMES, *(f"{f}tip" for f in joints.FINGERS)]
    for finger, chain in zip(joints.FINGERS, human.FINGERS, strict=True):
        parts = ("J5", "J3", "J1", "tip") if finger == "TH" else ("J4", "J2", "J1", "tip")
        index = np.array([names.index(finger + part) for part in parts])
        assert np.allclose(ours[:, np.array(chain)], all_points[:, index], atol=1e-6)
    assert np.allclose(ours[:, human.WRIST], 0.0)
