"""Choosing among grasps that hold: what is left out, in which order, and never the same twice."""

import pathlib

import numpy as np
import pytest

from experiments import chain, protocol, selection
from realdex_jax.data import object_files, schema, store
from realdex_jax.data.schema import GraspSet
from realdex_jax.errors import DatasetError
from realdex_jax.generate import Candidates
from realdex_jax.hand.load import HandModel, load
from realdex_jax.models import grasp_model
from realdex_jax.select import features
from realdex_jax.select.local import LocalScorer
from realdex_jax.select.scorer import Score, Task
from sim import objects, robustness
from sim.physics import Physics, StrictPhysics


@pytest.fixture(scope="module")
def hand() -> HandModel:
    return load()


@pytest.fixture(scope="module")
def stored() -> GraspSet:
    """Ten grasps of a jar that hold it, then one beside it."""
    some = schema.take(store.open_dataset("realdex-sim").grasps("cosmetics"), slice(10))
    lost = schema.take(some, np.array([0]))  # a copy
    lost.phi[:, 22:25] += 0.2
    return schema.concatenate([some, lost])


@pytest.fixture(scope="module")
def pool(hand: HandModel, stored: GraspSet) -> selection.Pool:
    return selection.pool(hand, objects.make("cosmetics"), stored)


class Fixed:
    """Scores that were given beforehand."""

    name = "fixed"

    def __init__(self, *values: float) -> None:
        self.values = values

    def score(self, task, subjects):
        assert [s.name for s in subjects] == [f"cosmetics {i}" for i in range(len(subjects))]
        return [Score(value, "", "fixed") for value in self.values]


def test_only_grasps_that_hold_are_in_the_pool(pool: selection.Pool) -> None:
    assert pool.index.tolist() == list(range(10))
    assert all(len(values) == 10 for values in pool.features.values())
    assert pool.features[features.STABILITY].min() > 0.5
    assert pool.features[features.FINGERS].min() >= 2


def test_the_local_choice_has_the_highest_scores(pool: selection.Pool) -> None:
    chosen = selection.choose(LocalScorer(), Task("jar"), pool, 4)
    values = np.array([score.value for score in chosen.scores])
    np.testing.assert_allclose(values, selection.local_scores(pool.features))
    assert sorted(values[list(chosen.best)])[::-1] == values[list(chosen.best)].tolist()
    assert selection.choose(LocalScorer(), Task("jar"), pool, 4) == chosen


def test_a_grasp_comes_twice_only_where_there_is_no_other(
    hand: HandModel, stored: GraspSet
) -> None:
    twice = schema.take(stored, np.array([0, 0, 1]))
    pool = selection.pool(hand, objects.make("cosmetics"), twice)
    scorer = Fixed(3.0, 2.9, 1.0)
    assert selection.choose(scorer, Task("jar"), pool, 2).best == (0, 2)
    assert selection.choose(scorer, Task("jar"), pool, 3).best == (0, 2, 1)


def test_nothing_that_holds_is_no_choice(hand: HandModel, stored: GraspSet) -> None:
    pool = selection.pool(hand, objects.make("cosmetics"), schema.take(stored, slice(10, 11)))
    assert len(pool) == 0
    assert selection.choose(LocalScorer(), Task("jar"), pool, 3) == selection.Chosen((), ())


def test_the_part_is_the_first_that_people_take_an_object_by() -> None:
    for name, part in (("mug", "handle"), ("cosmetics", "body"), ("glass_cleaner", "trigger")):
        shape = objects.make(name)
        surface = shape.surface(512)
        found = objects.held_part(shape, surface)
        assert found is not None
        where, enough = found
        assert {shape.labels[i] for i in surface.labels[where]} == {part}
        assert enough == objects.HELD[part]
    shape = objects.make("cracker_box")  # nothing but a body
    assert objects.held_part(shape, shape.surface(64)) is None


def test_what_another_scorer_stood_in_for_comes_last(pool: selection.Pool) -> None:
    """Scores of two scorers are on two scales; 3 from the one asked beats 5 from another."""

    class Half(Fixed):
        def score(self, task, subjects):
            own = super().score(task, subjects)
            return [Score(5.0, "", "local") if i % 2 else one for i, one in enumerate(own)]

    scorer = Half(*np.linspace(1.0, 3.0, 10))
    assert selection.choose(scorer, Task("jar"), pool, 5).best == (8, 6, 4, 2, 0)


def test_a_pool_comes_back(pool: selection.Pool, tmp_path: pathlib.Path) -> None:
    again = selection.load(selection.save(tmp_path / "pool.npz", pool), pool.shape)
    np.testing.assert_array_equal(again.index, pool.index)
    np.testing.assert_array_equal(again.grasps.phi, pool.grasps.phi)
    assert again.features.keys() == pool.features.keys()
    for name, values in pool.features.items():
        np.testing.assert_array_equal(again.features[name], values)
    chosen = selection.choose(LocalScorer(), Task("jar"), pool, 3)
    assert selection.choose(LocalScorer(), Task("jar"), again, 3) == chosen
    plain = object_files.save_grasps(tmp_path / "grasps.npz", schema.take(pool.grasps, slice(2)))
    with pytest.raises(DatasetError, match="no pool"):
        selection.load(plain, pool.shape)


def test_without_parts_no_grasp_is_by_the_part(pool: selection.Pool) -> None:
    by_part = selection.by_part(pool.features)
    assert by_part is not None
    np.testing.assert_array_equal(by_part, pool.features[features.HOLD] >= 0.5)
    others = {k: v for k, v in pool.features.items() if k != features.HOLD}
    assert selection.by_part(others) is None
    assert np.isfinite(selection.local_scores(others)).all()


def test_the_chain_hands_out_what_the_scorer_likes_of_what_holds(
    hand: HandModel, stored: GraspSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stored grasps stand in for generated ones; the lost one must not come out."""

    def generate(model, cloud, count, key, config, **_):
        seconds = dict.fromkeys(("surface", "sample", "refine", "judge"), 0.1)
        every = np.ones(len(stored), bool)
        return Candidates(stored, stored, np.arange(len(stored)), every, seconds)

    monkeypatch.setattr(chain.generate, "generate", generate)
    (taken,), seconds = chain.propose(
        hand,
        grasp_model.load_model("realdex-sim-cvae"),
        protocol.Entry(objects.make("cosmetics"), None),
        ["selected"],
        seed=0,
        latents=len(stored),
        grasps=10,
        physics=Physics(),
    )
    assert taken.stage == "selected"
    assert len(taken.grasps) == 10
    assert np.abs(np.asarray(taken.grasps.phi)[:, 22:25]).max() < 0.2
    assert seconds["selection"] > 0
    assert taken.ms_per_grasp is not None
    assert taken.ms_per_grasp > 1e3 * 0.4 / 10


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bathroom_cleaner", "penguin_toy"])
def test_the_local_choice_has_more_of_the_part_and_holds_no_less(
    hand: HandModel, name: str
) -> None:
    """Against the whole pool, which is what a random choice brings; no scorer saw the robust test.

    Three in ten of the stored grasps have these objects by their part, so there is room.
    """
    grasps = store.open_dataset("realdex-sim").grasps(name)
    pool = selection.pool(hand, objects.make(name), grasps)
    by_part = selection.by_part(pool.features)
    assert by_part is not None
    assert len(pool) > 50
    assert by_part.mean() < 0.8
    assert by_part.sum() >= 10
    best = list(selection.choose(LocalScorer(), Task(name), pool, 10).best)
    assert by_part[best].mean() >= by_part.mean() + 0.2
    robust = robustness.robustness(hand, pool.shape, pool.grasps, StrictPhysics()).success
    assert robust[best].mean() >= robust.mean()
