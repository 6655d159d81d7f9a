"""MotionNet and the two baselines: GOAL's MNet and SAGA's infilling."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import jaxlie
import numpy as np
import pytest

from experiments import train_motion
from realdex_jax import pose, rollout
from realdex_jax.data import clips, windows
from realdex_jax.data.motion_set import MotionSet
from realdex_jax.errors import CheckpointError, ConfigError, DatasetError
from realdex_jax.geometry import sdf
from realdex_jax.hand import joints
from realdex_jax.hand.load import load
from realdex_jax.models import goal, motion_features, motion_model, motion_net, saga
from realdex_jax.models.goal import GoalConfig
from realdex_jax.models.motion_model import MotionModel
from realdex_jax.models.motion_net import MotionNetConfig
from realdex_jax.models.saga import Ends, SagaConfig
from realdex_jax.rollout import RolloutConfig
from realdex_jax.training import state as states
from realdex_jax.training.state import Optimisation
from sim.reach import reach

CONFIGS = {
    "motion_net": MotionNetConfig(
        token=8, heads=2, joint_feature=16, goal_feature=16, experts=2, width=32, gate=8
    ),
    "goal": GoalConfig(widths=(32, 16, 16, 32), hidden=16),
    "saga": SagaConfig(instants=16, palm_width=32, palm_latent=4, channels=(4, 8), joint_latent=4),
}
FRAMES = 48
MOVED_ATOL = 1e-3
"""Metres and radians."""
HAND = load("shadow")


@pytest.fixture(scope="module")
def motions():
    """Reaches between random starts and grasps."""
    rng = np.random.default_rng(0)
    n = 6
    lengths = rng.integers(36, FRAMES + 1, n)
    start, end = np.zeros((2, n, 28), np.float32)
    start[:, 22:25] = [-0.3, 0.0, 0.3] + 0.05 * rng.normal(size=(n, 3))
    start[:, 25:] = 0.2 * rng.normal(size=(n, 3))
    q = joints.REST + 0.15 * rng.normal(size=(n, 22))
    end[:, :22] = np.clip(q, joints.LOWER, joints.UPPER)
    end[:, 22:25] = [0.0, 0.0, 0.1] + 0.05 * rng.normal(size=(n, 3))
    end[:, 25:] = [0.0, 1.0, 0.0] + 0.3 * rng.normal(size=(n, 3))
    direction = rng.normal(size=(n, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    opening = np.full(n, 0.3, np.float32)
    phi = jax.jit(reach, static_argnums=5)(
        start, end, direction.astype(np.float32), opening, lengths, FRAMES
    )
    return MotionSet(
        names=("thing",),
        target=np.zeros(n, np.int32),
        first=np.concatenate([[0], np.cumsum(lengths)]),
        phi=np.concatenate([np.asarray(p)[:k] for p, k in zip(phi, lengths, strict=True)]),
        wxyz_xyz_world_object=np.tile(np.eye(1, 7, dtype=np.float32), (n, 1)),
        q_squeeze=end[:, :22],
    )


@pytest.fixture(scope="module")
def models():
    """Models with random parameters: a fresh one says next to nothing."""
    rng = np.random.default_rng(1)

    def number(x):
        noise = rng.normal(size=x.shape)
        return 1.0 + 0.1 * noise if x.ndim == 1 else 0.5 * noise / np.sqrt(x.shape[-2])

    def filled(config):
        shapes = jax.eval_shape(lambda key: motion_model.init(HAND, config, key), jax.random.key(0))
        params = jax.tree.map(lambda x: jnp.asarray(number(x), jnp.float32), shapes)
        return MotionModel(config=config, params=params)

    return {name: filled(config) for name, config in CONFIGS.items()}


def ends(motions, count=4):
    picked = range(count)
    start, last = (jnp.stack([motions.poses(i)[k] for i in picked]) for k in (0, -1))
    return start, last, jnp.asarray(motions.lengths()[:count], jnp.int32)


# Compiling is most of these tests' time: a pass through the hand is a long program.
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


@pytest.fixture(scope="module")
def seen(motions):
    """Features of four windows."""
    given = windows.batch(motions, 4, 0, 0)
    lowered = jax.jit(motion_features.features, static_argnums=0).lower(HAND, given, None)
    return lowered.compile(compiler_options=QUICK)(given, None)


generate = jax.jit(rollout.generate, static_argnames=("hand", "frames", "config"))
compiled = {}


def made(model, motions, start, last, steps, key=None):
    """Motions of `FRAMES` frames."""
    b = len(start)
    world, target = motions.wxyz_xyz_world_object[:b], np.zeros(b, np.int32)
    given = (model, None, start, last, steps, world, target)
    which = (model.config, key is None)
    if which not in compiled:
        lowered = generate.lower(HAND, *given, frames=FRAMES, key=key)
        compiled[which] = lowered.compile(compiler_options=QUICK)
    return np.asarray(compiled[which](*given, key=key))


def moved(phi):
    """The same poses in a world turned about its vertical and shifted."""
    T = jaxlie.SE3.from_rotation_and_translation(
        jaxlie.SO3.from_z_radians(jnp.asarray(0.8)), jnp.array([0.3, -0.2, 0.1])
    )
    q, T_world_hand = pose.split(jnp.asarray(phi))
    T = jaxlie.SE3(jnp.broadcast_to(T.wxyz_xyz, T_world_hand.wxyz_xyz.shape))
    return np.asarray(pose.join(q, T @ T_world_hand))


@pytest.mark.parametrize("name", CONFIGS)
def test_motions_are_whole_and_do_not_depend_on_the_place(name, models, motions):
    """Any model, made to move from a start to a goal, in a world and in the same one moved."""
    start, last, steps = ends(motions)
    phi = made(models[name], motions, start, last, steps)
    assert phi.shape == (4, FRAMES, 28)
    assert np.isfinite(phi).all()
    assert np.abs(phi[:, 5] - phi[:, 0]).max() > 1e-4
    q = phi[..., :22]
    assert (q >= joints.LOWER - 1e-5).all()
    assert (q <= joints.UPPER + 1e-5).all()

    there = made(models[name], motions, moved(start), moved(last), steps)
    (q, T), (q_there, T_there) = pose.split(jnp.asarray(moved(phi))), pose.split(jnp.asarray(there))
    # Rounding of a micrometre in the first answer, grown in the answers that build on it.
    np.testing.assert_allclose(T.translation(), T_there.translation(), atol=MOVED_ATOL)
    np.testing.assert_allclose(
        T.rotation().as_matrix(), T_there.rotation().as_matrix(), atol=MOVED_ATOL
    )
    np.testing.assert_allclose(q, q_there, atol=MOVED_ATOL)


def test_a_motion_that_arrived_rests(motions):
    start, _, _ = ends(motions)
    steps = np.full(4, 20, np.int32)
    # The goal is where the hand is: the first answer is close enough, the rest repeats it.
    settings = RolloutConfig(stride=2, arrived=1.0)
    world, target = motions.wxyz_xyz_world_object[:4], np.zeros(4, np.int32)
    lowered = jax.jit(
        rollout.rollout, static_argnames=("hand", "predict", "frames", "config")
    ).lower(HAND, _away, start, start, steps, world, target, frames=12, config=settings)
    found = lowered.compile(compiler_options=QUICK)(start, start, steps, world, target)
    assert bool(found.arrived.all())
    np.testing.assert_array_equal(found.length, 3)
    np.testing.assert_array_equal(found.phi[:, 0], start)
    np.testing.assert_array_equal(found.phi[:, 3:], np.repeat(found.phi[:, 2:3], 9, axis=1))
    assert np.abs(found.phi[:, 2] - found.phi[:, 1]).min(axis=0)[22] > 0.0


def test_overlapping_answers_leave_no_seam(motions):
    start, _, _ = ends(motions)
    goal, steps = start.at[:, 22].add(1.0), np.full(4, 20, np.int32)
    world, target = motions.wxyz_xyz_world_object[:4], np.zeros(4, np.int32)

    def staggered(window):
        # Every second answer is 5 mm to the side: seams of 5 mm if one simply followed the other.
        side = 5e-3 * (jnp.round(window.phase * 19.0 / 5.0) % 2)[:, None, None]
        return start[:, None] + side * jnp.eye(28)[23]

    asked = jax.jit(rollout.rollout, static_argnames=("hand", "predict", "frames", "config"))
    given = (start, goal, steps, world, target)
    found = {}
    for name, predict in (("staggered", staggered), ("away", _away)):
        lowered = asked.lower(HAND, predict, *given, frames=20, config=RolloutConfig(stride=5))
        found[name] = lowered.compile(compiler_options=QUICK)(*given).phi
    side = np.asarray(found["staggered"] - start[:, None])[..., 23]
    assert side.max() > 4e-3  # each answer is come to ...
    # ... in sixths of the way; the rest is rounding.
    assert np.abs(np.diff(side, axis=1)).max() < 5e-3 / 6 + 1e-6
    # Answers that agree are not changed.
    p = np.asarray(found["away"])[..., 22] - np.asarray(start)[:, None, 22]
    np.testing.assert_allclose(p, 1e-3 * np.arange(20)[None].repeat(4, 0), atol=1e-6)


def test_a_model_that_knows_several_ways_takes_the_first_free_one(motions):
    start, last, steps = ends(motions)
    start, last = (x.at[:, 24].add(1.0) for x in (start, last))  # far above the table
    config = dataclasses.replace(CONFIGS["motion_net"], ways=3)
    rng = np.random.default_rng(2)
    shapes = jax.eval_shape(lambda key: motion_model.init(HAND, config, key), jax.random.key(0))
    params = jax.tree.map(
        lambda x: jnp.asarray(rng.normal(size=x.shape) / np.sqrt(max(x.shape[-2:])), jnp.float32),
        shapes,
    )
    model = MotionModel(config=config, params=params)
    # A ball in the first motion's usual way, halfway; far from the others.
    world, target = np.tile(np.eye(1, 7, dtype=np.float32), (4, 1)), np.zeros(4, np.int32)
    world[:, 4] = 9.0
    ball = sdf.sample(
        lambda p: np.linalg.norm(p, axis=1) - 0.02, np.array([[-0.02] * 3, [0.02] * 3]), 4000
    )

    def each(way, world):
        given = (start, last, steps, world, jnp.asarray(target), jnp.full(4, way))
        predict = functools.partial(motion_model.predict, HAND, model, None)
        return rollout.rollout(HAND, predict, *given, frames=FRAMES).phi

    lowered = jax.jit(each).lower(0, world).compile(compiler_options=QUICK)
    ways = np.stack([lowered(k, world) for k in range(3)])
    assert np.abs(ways[1:] - ways[:1]).max((1, 2, 3)).min() > 1e-2

    def taken(world):
        given = (sdf.stack([ball]), start, last, steps, world, target)
        chosen = generate.lower(HAND, model, *given, frames=FRAMES)
        return np.asarray(chosen.compile(compiler_options=QUICK)(model, *given))

    np.testing.assert_allclose(taken(world), ways[0], atol=1e-5)
    world[0, 4:] = ways[0, 0, 20, 22:25]
    found = taken(world)
    np.testing.assert_allclose(found[1:], ways[0, 1:], atol=1e-5)
    gaps = np.abs(found[0] - ways[:, 0]).max((1, 2))
    assert gaps[0] > 1e-2
    assert gaps[1:].min() < 1e-5
    with pytest.raises(ConfigError, match="chooses among ways: it needs distance grids"):
        generate.lower(HAND, model, None, start, last, steps, world, target, frames=FRAMES)


def test_answers_toward_the_goal_end_there(motions):
    given = windows.at(motions, np.arange(4), motions.lengths()[:4] - 1 - np.array([1, 4, 10, 20]))
    rng = np.random.default_rng(0)
    raw = jnp.asarray(rng.normal(size=(4, 10, 31)), jnp.float32)
    left = np.array([1, 4, 10, 20])
    phi = np.asarray(motion_features.poses_toward(raw, given))
    for i, k in enumerate(left[:3]):
        past = phi[i, k - 1 :]
        np.testing.assert_allclose(past, np.tile(given.goal[i], (len(past), 1)), atol=2e-5)
    straight = np.asarray(motion_features.poses_toward(0.0 * raw, given))
    share = np.minimum(np.arange(1, 11) / left[:, None], 1.0)[..., None]
    now = given.seen[:, -1:, :25]
    expected = now + share * (given.goal[:, None, :25] - now)
    np.testing.assert_allclose(straight[..., :25], expected, atol=1e-5)
    assert np.abs(phi[3] - straight[3]).max() > 1e-2
    with pytest.raises(ConfigError, match="toward=True needs timed=True"):
        MotionNetConfig(timed=False)
    with pytest.raises(ConfigError, match="ways=0"):
        MotionNetConfig(ways=0)


@pytest.mark.parametrize(
    ("part", "setting"),
    [("phase", {"timed": True}), ("clearance", {"aware": True}), ("way", {"ways": 3})],
)
def test_motion_net_is_told_of_more_if_its_settings_say_so(part, setting, seen):
    off = dataclasses.replace(CONFIGS["motion_net"], timed=False, toward=False)
    on = dataclasses.replace(off, **setting)
    before = getattr(seen, part)
    told = dataclasses.replace(seen, **{part: before + jnp.ones((), before.dtype)})
    for config, differs in ((off, False), (on, True)):
        net = motion_net.motion_net(config)
        params = jax.jit(net.init)(jax.random.key(0), seen)
        apply = jax.jit(net.apply)
        assert np.any(apply(params, seen) != apply(params, told)) == differs


def _away(window):
    """A model that moves the palm a millimetre a frame."""
    ahead = 1e-3 * jnp.arange(1, 11)[:, None] * jnp.eye(28)[22]
    return window.seen[:, -1:] + ahead


def test_goal_is_not_told_of_phase_or_clearance(models, seen):
    model = models["goal"]
    told = dataclasses.replace(
        seen, phase=seen.phase + 0.5, clearance=seen.clearance - 1.0, goal=seen.goal * 0.0
    )
    apply = jax.jit(goal.goal(model.config).apply)
    np.testing.assert_array_equal(apply(model.params, seen), apply(model.params, told))
    nearer = dataclasses.replace(seen, goal_keypoints=seen.keypoints[:, -1])
    assert np.abs(apply(model.params, seen) - apply(model.params, nearer)).max() > 1e-4


def test_goal_drops_in_training_only(models, seen):
    model = models["goal"]
    net = goal.goal(model.config)
    answer = jax.jit(net.answer)
    a, again, b = (answer(model.params, seen, jax.random.key(i)) for i in (1, 1, 2))
    assert a.poses.shape == (4, 10, 31)
    assert a.offsets.shape == (4, 10, 64, 3)
    assert a.nearing.shape == (4, 10, 27, 3)
    np.testing.assert_array_equal(a.poses, again.poses)
    assert np.abs(a.poses - b.poses).max() > 1e-4


def test_saga_meets_start_and_goal(models, motions):
    start, last, steps = ends(motions)
    steps = np.array([20, 31, 40, FRAMES], np.int32)
    usual = made(models["saga"], motions, start, last, steps)
    drawn = made(models["saga"], motions, start, last, steps, jax.random.key(3))
    for phi in (usual, drawn):
        np.testing.assert_array_equal(phi[:, 0], start)
        for i, k in enumerate(steps):
            np.testing.assert_array_equal(
                phi[i, k - 1 :], np.repeat(last[i : i + 1], FRAMES + 1 - k, axis=0)
            )
        # The end is met, not jumped to: the last step is like the others.
        p = phi[..., 22:25]
        jump = np.linalg.norm(np.diff(p, axis=1), axis=-1)
        assert all(jump[i, k - 2] < 1.5 * jump[i, : k - 2].max() for i, k in enumerate(steps))
    assert np.abs(usual - drawn).max() > 1e-3


def test_departures_are_undone(motions):
    whole = clips.stretch(motions, 16)
    np.testing.assert_array_equal(whole.phi[2, -1], motions.poses(2)[-1])
    known = Ends(
        start=jnp.asarray(whole.phi[:, 0]),
        goal=jnp.asarray(whole.phi[:, -1]),
        frames=jnp.asarray(whole.frames),
    )
    found = jax.jit(saga.departure)(known, jnp.asarray(whole.phi))
    back = jax.jit(saga.motion)(known, found)
    np.testing.assert_allclose(back, whole.phi, atol=1e-5)
    np.testing.assert_allclose(found.palm[:, [0, -1]], 0.0, atol=1e-4)
    again = saga.at_frames(dataclasses.replace(known, frames=jnp.full(6, 16)), back, 16)
    np.testing.assert_allclose(again, whole.phi, atol=1e-5)


def test_clips_are_repeatable(motions):
    whole = clips.stretch(motions, 16)
    a, b, other = (clips.batch(whole, 8, 0, step) for step in (3, 3, 4))
    np.testing.assert_array_equal(a.phi, b.phi)
    assert not np.array_equal(a.phi, other.phi)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["goal", "saga"])
def test_losses_fall(name, models, motions):
    recipe = dataclasses.replace(
        train_motion.MODELS[name],
        model=CONFIGS[name],
        batch=16,
        optimisation=Optimisation(steps=60, rate=3e-3, warmup=5),
    )
    update = train_motion._update(recipe, HAND, None)
    batch_at = train_motion._batches(recipe, motions)
    # Not freshly made: so many initialisers compile for longer than all else here.
    params = jax.tree.map(jnp.array, models[name].params)
    state = states.create(params, recipe.optimisation, jax.random.key(1))
    quick = update.lower(state, batch_at(0)).compile(compiler_options=QUICK)
    log = []
    for step in range(60):
        state, scalars = quick(state, batch_at(step))
        log.append({k: float(v) for k, v in scalars.items()})
    assert all(s["finite"] == 1.0 for s in log)
    first, last = (
        {k: np.mean([s[k] for s in part]) for k in log[0]} for part in (log[:5], log[-10:])
    )
    assert last["loss"] < 0.8 * first["loss"]
    # The divergences begin near zero and pay for what the posteriors say.
    falling = {k for k in first if not k.endswith("_kl") and k not in ("finite", "gradient")}
    assert all(last[k] < first[k] for k in falling), (first, last)


@pytest.mark.parametrize("name", CONFIGS)
def test_model_files_round_trip(name, models, tmp_path):
    path = tmp_path / "m.safetensors"
    motion_model.save_model(path, models[name], {"seed": 0})
    back = motion_model.load_model(HAND, path)
    assert back.config == CONFIGS[name]
    pairs = zip(jax.tree.leaves(models[name].params), jax.tree.leaves(back.params), strict=True)
    for a, b in pairs:
        np.testing.assert_allclose(a, b, atol=2e-3)


def test_models_of_another_kind_or_size_are_refused(models, motions, tmp_path):
    path = tmp_path / "m.safetensors"
    wrong = MotionModel(config=CONFIGS["motion_net"], params=models["goal"].params)
    motion_model.save_model(path, wrong, {})
    with pytest.raises(CheckpointError, match="another architecture"):
        motion_model.load_model(HAND, path)
    wider = dataclasses.replace(CONFIGS["saga"], palm_width=48)
    motion_model.save_model(path, MotionModel(config=wider, params=models["saga"].params), {})
    with pytest.raises(CheckpointError, match=r"another architecture.*32.*48"):
        motion_model.load_model(HAND, path)
    with pytest.raises(CheckpointError, match="no motion model"):
        motion_model.load_model(HAND, tmp_path / "nothing")
    start, last, steps = ends(motions)
    with pytest.raises(CheckpointError, match="goal predicts windows"):
        motion_model.fill(models["goal"], start, last, steps, frames=FRAMES)
    with pytest.raises(CheckpointError, match="saga fills in motions"):
        motion_model.predict(HAND, models["saga"], None, windows.batch(motions, 4, 0, 0))


def test_bad_ends_are_refused(motions):
    start, last, steps = (np.asarray(x) for x in ends(motions))
    rollout.check_ends(start, last, steps)
    with pytest.raises(DatasetError, match=r"start has shape \(4, 27\)"):
        rollout.check_ends(start[:, :27], last, steps)
    with pytest.raises(DatasetError, match="goal of motion 2 is not finite"):
        rollout.check_ends(start, np.where(np.arange(4)[:, None] == 2, np.nan, last), steps)
    with pytest.raises(DatasetError, match="FFJ3"):
        rollout.check_ends(start, last + 3.0 * np.eye(28, dtype=np.float32)[1], steps)
    with pytest.raises(DatasetError, match="3 starts, 4 goals"):
        rollout.check_ends(start[:3], last, steps)
    with pytest.raises(DatasetError, match="3 frames; a motion has at least 6"):
        rollout.check_ends(start, last, np.array([9, 3, 9, 9]))


def test_the_shipped_model_is_told_of_its_surroundings_and_says_how_it_was_trained():
    model = motion_model.load_model(load("shadow"), "realdex-sim-motion")
    assert model.config.aware
    assert model.config.ways == 6
    recipe = motion_model.load_recipe("realdex-sim-motion")
    assert recipe["config"]["optimisation"]["steps"] == 5000
    assert not recipe["commit"].endswith("+changes")
    with pytest.raises(CheckpointError, match="known: realdex-sim-motion"):
        motion_model.load_model(load("shadow"), "nothing")
