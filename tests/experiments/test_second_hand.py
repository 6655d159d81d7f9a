"""Another hand than Shadow's from synthesis to evaluation, and what it is refused."""

import pathlib
from collections.abc import Iterator

import jax
import numpy as np
import pytest
from rich.console import Console

from experiments import eval_sim, make_dataset
from experiments.eval_sim import EvalSim
from experiments.make_dataset import Settings
from experiments.view import View, collect
from realdex_jax.data import store
from realdex_jax.errors import ConfigError, DatasetError, HandError


@pytest.fixture
def quick_to_compile(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Compiles with few optimisations, here and in workers: little is run of what is compiled."""
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.mark.slow
@pytest.mark.usefixtures("quick_to_compile")
def test_allegro_goes_from_synthesis_to_the_table_and_the_viewer(tmp_path: pathlib.Path) -> None:
    config = Settings(
        out=tmp_path / "data",
        hand="allegro",
        test=4,
        batch=16,
        processes=1,
        objects=("cosmetics",),
        points=256,
    )
    made = make_dataset.run(config, "test", Console())
    assert made["physics"]["strict"]["torque_limit"] == 0.7
    dataset = store.open_dataset(config.out, hand="allegro")
    assert len(dataset.joint_names) == 16
    with pytest.raises(DatasetError, match="is for hand 'allegro'; this program reads"):
        store.open_dataset(config.out)
    with pytest.raises(DatasetError, match="made with hand = allegro, this run has shadow"):
        make_dataset.resume(tmp_path / "data.parts", "cosmetics", Settings(batch=16))
    out = tmp_path / "out"
    asked = EvalSim(hand="allegro", data=str(config.out), stages=("dataset",), out=out)
    found = eval_sim.evaluate(asked, "test", Console())
    (row,) = found.found.rows
    assert row.grasps == len(dataset.grasps("cosmetics")) >= 2
    # They were kept because they pass; the same test says so again.
    assert row.metrics["robust_success"].mean == row.metrics["held"].mean == 1.0
    assert "human_score" not in row.metrics
    assert len(found.pictures) == 1
    shown = collect(View(str(config.out)))
    assert shown.hand == "allegro"
    assert np.shape(shown.open("cosmetics").grasps.phi)[1] == 22


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"hand": "barrett"}, "no hand 'barrett'; known: shadow, dexgraspnet, allegro"),
        ({"hand": "allegro"}, r"no model generates grasps for it.*--stages dataset"),
        ({"hand": "allegro", "stages": ("dataset", "raw")}, "no model generates grasps for it"),
    ],
)
def test_only_stored_grasps_of_another_hand_are_evaluated(
    tmp_path: pathlib.Path, asked: dict, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        eval_sim.evaluate(EvalSim(**asked, out=tmp_path), "test", Console())


def test_data_of_one_hand_is_not_taken_for_anothers(tmp_path: pathlib.Path) -> None:
    asked = EvalSim(hand="allegro", stages=("dataset",), out=tmp_path)  # realdex-sim is Shadow's
    with pytest.raises(DatasetError, match="is for hand 'shadow'; this program reads hand 'alle"):
        eval_sim.evaluate(asked, "test", Console())


@pytest.mark.parametrize("hand", ["barrett", "dexgraspnet"])
def test_grasps_are_made_for_hands_with_joints_of_their_own(
    tmp_path: pathlib.Path, hand: str
) -> None:
    with pytest.raises(HandError, match=f"no hand '{hand}' with joints .*; known: shadow, allegro"):
        make_dataset.run(Settings(out=tmp_path / "data", hand=hand), "test", Console())
