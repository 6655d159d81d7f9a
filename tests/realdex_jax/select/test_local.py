"""The local scorer: what it says, that more is better, and what it refuses."""

import numpy as np
import pytest

from realdex_jax.select import features, local, prompt, scorer
from realdex_jax.select.scorer import HIGHEST, ScoreError, Scorer, Subject, Task

GOOD = {
    features.FINGERS: 5.0,
    features.LINKS: 12.0,
    features.OPPOSITION: 1.0,
    features.HOLD: 1.0,
    features.POSTURE: 0.8,
    features.WRIST: 0.3,
    features.DEPTH: 0.001,
    features.STABILITY: 1.0,
}
WORSE = {
    features.FINGERS: 2.0,
    features.LINKS: 2.0,
    features.OPPOSITION: 0.1,
    features.HOLD: 0.1,
    features.POSTURE: 2.6,
    features.WRIST: -0.9,
    features.DEPTH: 0.007,
    features.STABILITY: 0.2,
}


def one(found: dict[str, float]) -> scorer.Score:
    return local.LocalScorer().score(Task("mug"), [Subject("a", features=found)])[0]


def test_it_is_a_scorer_and_knows_the_whole_rubric() -> None:
    assert isinstance(local.LocalScorer(), Scorer)
    assert set(local.WEIGHTS) == set(prompt.ASPECTS)
    assert sum(local.WEIGHTS.values()) == pytest.approx(1.0, abs=5e-3)  # rounded shares


def test_the_best_grasp_has_the_highest_score() -> None:
    score = one(GOOD)
    assert score.value == pytest.approx(HIGHEST)
    assert score.by == "local"
    assert set(score.aspects) == set(prompt.ASPECTS)
    assert "but" not in score.explanation


@pytest.mark.parametrize("name", sorted(GOOD))
def test_every_feature_counts(name: str) -> None:
    assert one({**GOOD, name: WORSE[name]}).value < one(GOOD).value
    assert one({**WORSE, name: GOOD[name]}).value > one(WORSE).value


def test_the_score_is_the_weighted_mean_of_the_answers() -> None:
    """By hand: only `opposition` and `posture` known, each half way."""
    score = one({features.OPPOSITION: 0.425, features.POSTURE: 2.5})
    w = local.WEIGHTS
    expected = 5 * (0.5 * w["opposition"] + 0.25 * w["posture"])
    expected /= w["opposition"] + w["posture"]
    assert score.value == pytest.approx(expected)
    assert set(score.aspects) == {"opposition", "posture"}


def test_an_unknown_feature_is_left_out() -> None:
    known = {name: value for name, value in GOOD.items() if name != features.HOLD}
    assert one(known).value == pytest.approx(HIGHEST)
    assert "part" not in one(known).aspects


def test_the_explanation_names_what_decided() -> None:
    assert "do not press against" in one({**GOOD, features.OPPOSITION: 0.0}).explanation
    text = one(WORSE).explanation
    assert "it is not held by the part made for that" in text
    assert text.endswith(".")


def touching(*digits: str) -> dict[str, float]:
    return {f"touch_{digit}": float(digit in digits) for digit in features.DIGITS}


@pytest.mark.parametrize(
    ("digits", "text"),
    [
        ((), "No finger touches, "),
        (("thumb",), "Thumb touches, "),
        (("ring",), "Ring finger touches, "),
        (("index", "thumb"), "Thumb and index finger touch, "),
        (("little", "middle", "thumb"), "Thumb, middle and little finger touch, "),
        (features.DIGITS, "All five fingers touch, "),
    ],
)
def test_the_explanation_names_the_fingers_that_touch(digits: tuple[str, ...], text: str) -> None:
    assert one({**GOOD, **touching(*digits)}).explanation.startswith(text)
    assert one({**GOOD, **touching(*digits)}).value == one(GOOD).value


def test_the_explanation_names_the_part_and_what_sets_a_grasp_apart() -> None:
    """Among grasps that all hold the handle, that is no news; how much of the hand touches is."""
    firm = Subject("firm", features=GOOD, part="handle")
    light = Subject("light", features={**GOOD, features.LINKS: 2.0}, part="handle")
    scorer_ = local.LocalScorer()
    assert "t is held by the handle" in scorer_.score(Task("mug"), [firm])[0].explanation
    first, second = scorer_.score(Task("mug"), [firm, light])
    assert first.explanation.startswith(f"{GOOD[features.LINKS]:.0f} links of the hand touch, ")
    assert second.explanation.endswith("but only 2 links of the hand touch.")


def test_what_is_fair_is_not_called_bad() -> None:
    text = one({**GOOD, features.POSTURE: 1.8}).explanation
    assert text.endswith("but the fingers bend a little unusually.")


def test_a_wish_changes_nothing_and_the_sentence_says_so() -> None:
    subjects = [Subject("a", features=GOOD)]
    (plain,) = local.LocalScorer().score(Task("mug"), subjects)
    (wished,) = local.LocalScorer().score(Task("mug", "hand it over"), subjects)
    assert wished.value == plain.value
    assert wished.explanation == f"{plain.explanation} The wish does not count in this score."


def test_no_explanation_blames_a_feature_that_is_good() -> None:
    """A steady grasp beside the handle is not unsteady; five fingers too deep are not too few."""
    text = one({**GOOD, features.HOLD: 0.0}).explanation
    assert "but it is not held by the part made for that." in text
    text = one({**GOOD, features.DEPTH: 0.009}).explanation
    assert "but the hand sinks in by 9.0 mm." in text


def test_best_takes_the_highest_first_and_keeps_the_order_of_equals() -> None:
    values = [1.0, 3.0, 3.0, 2.0]
    scores = [scorer.Score(value, "", "x") for value in values]
    assert scorer.best(scores, 3) == [1, 2, 3]
    assert scorer.best(scores, 9) == [1, 2, 3, 0]
    assert scorer.best([], 2) == []


def test_mistakes_are_named() -> None:
    with pytest.raises(ScoreError, match=r"mug, a: no feature"):
        one({})
    with pytest.raises(ScoreError, match="not finite"):
        one({features.OPPOSITION: np.nan})
    with pytest.raises(ScoreError, match="differ from the questions"):
        local.LocalScorer(weights={"place": 1.0})
    with pytest.raises(ScoreError, match="one above 0"):
        local.LocalScorer(weights=dict.fromkeys(prompt.ASPECTS, 0.0))
