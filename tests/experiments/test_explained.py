"""What a selection said is shown beside the very grasps that it was said of."""

import json
import pathlib
from collections.abc import Callable

import numpy as np
import pytest

from experiments import explained
from experiments.view import View, collect
from realdex_jax.data import object_files
from realdex_jax.data.schema import GraspSet
from realdex_jax.errors import DatasetError
from realdex_jax.select.scorer import Score


def row(grasp: int, place: int | None, text: str) -> dict:
    return {
        "grasp": grasp,
        "place": place,
        "score": 4.0 - grasp,
        "by": "local",
        "explanation": text,
        "aspects": {"part": 5.0, "odd": "no number"},
        "features": {},
    }


@pytest.fixture
def chosen(tmp_path: pathlib.Path, open_palm: Callable[[int], GraspSet]) -> pathlib.Path:
    """Of grasps 3, 5 and 8 that hold, 8 and then 3 were chosen."""
    rows = [row(3, 2, "three <b>&</b>"), row(5, None, "five"), row(8, 1, "eight")]
    (tmp_path / explained.FILE).write_text(json.dumps({"objects": {"mug": rows, "jar": rows}}))
    object_files.save_grasps(tmp_path / "mug.npz", open_palm(2))
    pool = GraspSet(**{**vars(open_palm(3)), "columns": {"index": np.array([3, 5, 8])}})
    object_files.save_grasps(tmp_path / "pools" / "mug.npz", pool)
    return tmp_path


def test_the_chosen_are_explained_in_their_order(chosen: pathlib.Path) -> None:
    mug = collect(View(str(chosen))).open("mug")
    assert mug.notes is not None
    first, second = mug.notes
    assert "eight" in first
    assert first.startswith("**selection**: -4.00 of 5 by local")
    assert "place 1 of 3" in first
    assert "place 2 of 3" in second
    assert "| part | 5.0 |" in first
    assert "odd" not in first
    assert "<b>" not in second  # a model's words are not markup
    assert r"\<b\>" in second


def test_a_pool_is_explained_by_number(chosen: pathlib.Path) -> None:
    mug = collect(View(str(chosen / "pools"))).open("mug")
    assert mug.notes is not None
    for text, word in zip(mug.notes, ("three", "five", "eight"), strict=True):
        assert word in text
    assert "not chosen, of 3" in mug.notes[1]


def test_grasps_without_a_selection_have_no_words(
    tmp_path: pathlib.Path, open_palm: Callable[[int], GraspSet]
) -> None:
    file = object_files.save_grasps(tmp_path / "mug.npz", open_palm(2))
    assert explained.notes(file, "mug", object_files.load_grasps(file)) is None
    (tmp_path / explained.FILE).write_text(json.dumps({"objects": {"jar": []}}))
    assert explained.notes(file, "mug", object_files.load_grasps(file)) is None


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row(0, 1, "a")], "says nothing of place 2 of 'mug'; it is of another run than mug.npz"),
        ({"a": 1}, "what it says of 'mug' is no list of grasps"),
        ([1, 2], "what it says of 'mug' is no list of grasps"),
    ],
)
def test_a_selection_of_others_is_refused(
    rows: object, message: str, tmp_path: pathlib.Path, open_palm: Callable[[int], GraspSet]
) -> None:
    file = object_files.save_grasps(tmp_path / "mug.npz", open_palm(2))
    (tmp_path / explained.FILE).write_text(json.dumps({"objects": {"mug": rows}}))
    with pytest.raises(DatasetError, match=message):
        explained.notes(file, "mug", object_files.load_grasps(file))


def test_scores_of_this_moment_are_said_alike() -> None:
    scores = [Score(3.0, "fair", "local"), Score(4.5, "good", "local", {"part": 2.0})]
    best, other = explained.of_scores(scores, (1, 0))
    assert best.startswith("**selection**: 4.50 of 5 by local, place 1 of 2\n\ngood")
    assert "| part | 2.0 |" in best
    assert "place 2 of 2" in other
