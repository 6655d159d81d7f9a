"""Motions of real objects: made, kept, judged, mended, carried out, shown."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from experiments import eval_motion, motion_chain, motion_data, motion_protocol, train_motion
from experiments.eval_motion import EvalMotion
from experiments.motion_data import MotionData
from experiments.motion_protocol import Judged
from experiments.train_motion import TrainMotion
from realdex_jax import touch
from realdex_jax.data import motion as single
from realdex_jax.data import motion_set, schema, store
from realdex_jax.errors import DatasetError
from realdex_jax.hand.load import load
from realdex_jax.models import motion_model
from realdex_jax.trajectory import TrajectoryConfig
from sim import objects

HAND = load("shadow")
COUNT = 4


@pytest.fixture(scope="module")
def dataset():
    return store.open_dataset("realdex-sim")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("motions")


@pytest.fixture(scope="module")
def made(dataset, folder):
    """Demonstrations with one object, made anew."""
    return motion_data.demonstrations(HAND, dataset, "yogurt", COUNT, folder, print)


@pytest.fixture(scope="module")
def tiny(made):
    """The same as train, val and test part."""
    motions, tally = made
    parts = dict.fromkeys(motion_data.PARTS, motions)
    return MotionData("tiny", motion_data._digest(parts), parts, tally)


def same(a, b):
    for field in dataclasses.fields(a):
        np.testing.assert_array_equal(getattr(a, field.name), getattr(b, field.name))


@pytest.mark.slow
def test_demonstrations_are_kept_and_made_again_if_their_files_are_damaged(made, dataset, folder):
    motions, tally = made
    told = []

    def again():
        told.clear()
        found, counts = motion_data.demonstrations(
            HAND, dataset, "yogurt", COUNT, folder, told.append
        )
        same(found, motions)
        assert counts == tally

    again()
    assert not told  # from the files
    path, note = folder / f"yogurt-{COUNT}.npz", folder / f"yogurt-{COUNT}.json"
    for damage in (
        lambda: path.write_bytes(path.read_bytes()[:2000]),
        lambda: note.write_text("{"),
        lambda: note.write_text(json.dumps({"tries": 3})),
        note.unlink,  # stopped between the two files
    ):
        damage()
        again()
        assert "yogurt: 4 of" in told[0]


@pytest.mark.slow
def test_depth_along_the_way_counts_the_worst_frame_and_no_padding(tiny):
    what = motion_protocol.asked(tiny.parts["test"])
    world = motion_protocol.world_of(tiny, "test")
    into = what.true.copy()
    # One frame of the second motion passes 3 cm under the table.
    grid, placed = world.grids["yogurt"], jnp.asarray(what.motions.wxyz_xyz_world_object[1])
    low = np.argmin(into[1, :, 24])
    _, under = touch.depths(HAND, grid, jnp.asarray(into[1, low]), placed)
    into[1, low, 24] -= 0.03 - float(under)
    longer = np.concatenate([into, np.repeat(into[:, -1:], 7, axis=1)], axis=1)
    shown = {"method": "m", "stage": "raw", "seed": 0}
    true, off, padded = (
        motion_protocol.judge(HAND, w, world, phi, **shown).values
        for w, phi in (
            (what, what.true),
            (what, into),
            (dataclasses.replace(what, true=longer), longer),
        )
    )
    np.testing.assert_allclose(true["min_dist_mm"], 0.0, atol=1e-4)
    assert true["worst_mm"].max() < 2.0  # the demonstrator's millimetre, and the grid's error
    # The table is flat, and both look at the same spheres.
    np.testing.assert_allclose(off["worst_mm"][1], 30.0, atol=1.0)
    np.testing.assert_array_equal(off["worst_mm"][[0, 2, 3]], true["worst_mm"][[0, 2, 3]])
    for name in ("worst_mm", "min_dist_mm", "lift_success"):
        np.testing.assert_array_equal(padded[name], off[name], err_msg=name)
    assert true["lift_success"].all()


def judged(seed, values):
    return Judged("m", "raw", seed, np.zeros((4, 10, 28), np.float32), values)


def test_rows_are_means_over_motions_then_over_seeds(rng):
    first, last = np.zeros((2, 4, 28), np.float32)
    motions = motion_set.of_poses(
        ("a", "b"),
        np.array([0, 0, 1, 1], np.int32),
        [np.stack([x, y, y, y, y, y]) for x, y in zip(first, last, strict=True)],
        np.tile(np.eye(1, 7, dtype=np.float32), (4, 1)),
        np.zeros((4, 22), np.float32),
    )
    what = motion_protocol.asked(motions)
    mpjpe, worst = rng.uniform(size=(2, 3, 4))
    all_of = [judged(s, {"mpjpe_cm": mpjpe[s], "worst_mm": worst[s]}) for s in range(3)]
    row = motion_protocol.row("d", "test", what, all_of)
    assert (row.method, row.stage, row.objects, row.grasps) == ("m", "raw", 2, 12)
    stat = row.metrics["mpjpe_cm"]
    assert stat.n == 3
    assert stat.mean == pytest.approx(mpjpe.mean())
    assert stat.sd == pytest.approx(mpjpe.mean(1).std(ddof=1))
    p95 = np.percentile(worst, 95, axis=1)
    assert row.metrics["motion_penetration_p95_mm"].mean == pytest.approx(p95.mean())
    each = motion_protocol.per_object(what, all_of, "mpjpe_cm")
    assert each == pytest.approx({"a": mpjpe[:, :2].mean(), "b": mpjpe[:, 2:].mean()})
    demonstrated = dataclasses.replace(all_of[0], stage="dataset")
    row = motion_protocol.row("d", "test", what, [demonstrated])
    assert row.metrics["mpjpe_cm"].sd == pytest.approx(mpjpe[0].std(ddof=1))


@pytest.mark.slow
def test_mended_motions_end_at_the_goal_out_of_the_table(tiny):
    what = motion_protocol.asked(tiny.parts["test"])
    world = motion_protocol.world_of(tiny, "test")
    rough = what.true.copy()
    rough[:, 5:, 22] += 0.004
    rough[:, 30, 24] -= 0.02
    mended = motion_protocol.mend(HAND, what, world, rough, TrajectoryConfig())
    assert mended.shape == rough.shape
    for i, n in enumerate(what.lengths):
        np.testing.assert_allclose(mended[i, n - 1], what.true[i, n - 1], atol=1e-5)
        np.testing.assert_array_equal(mended[i, 0], rough[i, 0])
    shown = {"method": "m", "stage": "refined", "seed": 0}
    found = motion_protocol.judge(HAND, what, world, mended, **shown).values
    assert found["jerk_m_s3"].max() < 3.0
    assert found["worst_mm"].max() < 3.0


@pytest.mark.slow
@pytest.mark.long  # the demo does the same, in a slow test
def test_generated_motions_are_carried_out_and_shown(dataset, tmp_path):
    model = motion_model.load_model(HAND, "realdex-sim-motion")
    shape, grasps = objects.make("yogurt"), schema.take(dataset.grasps("yogurt"), np.arange(3))
    done = motion_chain.carry_out(HAND, model, shape, grasps, seed=0)
    again = motion_chain.carry_out(HAND, model, shape, grasps, seed=0)
    np.testing.assert_array_equal(done.phi, again.phi)
    assert done.lifted.shape == (3,)
    assert done.lifted.any()
    clip = motion_chain.clip(HAND, done, 0, "first", tmp_path)
    assert (tmp_path / "yogurt_0.mp4").stat().st_size > 10_000
    assert clip.group == "yogurt"
    # The record of motion and lift is whole, and the object is where it rests until it is moved.
    motions = done.what.motions
    phi = done.phi[0, : done.what.lengths[0]]
    seen = motion_chain.whole(
        HAND, shape, phi, motions.q_squeeze[0], motions.wxyz_xyz_world_object[0]
    )
    single.validate(seen)
    assert len(seen) > len(phi) + 15
    rest = np.asarray(seen.wxyz_xyz_world_object)[: len(phi) - 31]
    np.testing.assert_array_equal(rest, np.repeat(rest[:1], len(rest), 0))
    if done.lifted[0]:
        assert seen.wxyz_xyz_world_object[-1, 6] - rest[0, 6] > 0.07


@pytest.mark.slow
@pytest.mark.long
def test_known_objects_get_refined_rows_lifts_and_videos(tiny, tmp_path, monkeypatch):
    models = []
    for name in ("motion_net", "penalised"):
        recipe = TrainMotion(model=name, steps=6).recipe()
        recipe = dataclasses.replace(recipe, batch=8, log_every=3)
        assert train_motion.train(recipe, tiny, tmp_path / name) is not None
        models.append(tmp_path / name / "model.safetensors")
    monkeypatch.setattr(motion_data, "open_motions", lambda *_, **__: tiny)
    out = tmp_path / "eval"
    config = EvalMotion(models=tuple(models), data="tiny", mend=("penalised",), out=out, each=2)
    found = eval_motion.run(config, "c", Console(quiet=True))
    rows = {(row.method, row.stage): row for row in found.rows}
    assert list(rows) == [
        ("demonstration", "dataset"),
        ("habit", "dataset"),
        ("motion_net", "raw"),
        ("penalised", "raw"),
        ("penalised", "refined"),
    ]
    refined, raw = (rows["penalised", stage].metrics for stage in ("refined", "raw"))
    assert refined["motion_penetration_p95_mm"].mean <= raw["motion_penetration_p95_mm"].mean
    assert 0.0 <= refined["lift_success"].mean <= 1.0
    assert any("lifted, penalised refined: yogurt" in note for note in found.notes)
    assert any("of the motions take the demonstrator's usual way" in note for note in found.notes)
    assert [path.suffix for path in (out / "videos").iterdir()] == [".mp4"]
    page = (out / "report.html").read_text()
    assert "data:video/mp4" in page


@pytest.mark.slow
def test_a_start_inside_the_table_names_object_and_motion(tiny):
    sunk = motion_protocol.asked(tiny.parts["test"])
    sunk.true[0, 0, 24] = 0.0
    world = motion_protocol.world_of(tiny, "test")
    with pytest.raises(DatasetError, match="yogurt: start of motion 0"):
        motion_protocol.check(HAND, sunk, world)
