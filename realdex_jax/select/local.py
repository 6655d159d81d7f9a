"""Scores grasps from measured features: no key, no network, the same answer every time.

Each question of the rubric (`realdex_jax.select.prompt.ASPECTS`) is answered by features, each made
a number from 0 to 1 by broken lines that were set by hand; the score is the answers' weighted mean.
Where a feature is unknown its question is left out, and the other weights count more. The weights
are fitted by `experiments.fit_selection`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
from jaxtyping import Float

from realdex_jax.select import features, prompt
from realdex_jax.select.scorer import HIGHEST, LOWEST, Score, ScoreError, Subject, Task

WEIGHTS: Mapping[str, float] = MappingProxyType(
    {
        "place": 0.144,
        "part": 0.393,
        "opposition": 0.094,
        "contact": 0.145,
        "posture": 0.099,
        "use": 0.125,
    }
)
"""Share of each question in the score."""

# Feature values, and how good they are; straight lines between, level beyond.
_LINES: Mapping[str, tuple[Sequence[float], Sequence[float]]] = MappingProxyType(
    {
        features.WRIST: ((-1.05, -0.26, 1.05, 1.48), (0.0, 1.0, 1.0, 0.7)),
        features.HOLD: ((0.0, 0.5, 0.9), (0.0, 0.6, 1.0)),
        features.OPPOSITION: ((0.0, 0.85), (0.0, 1.0)),
        features.FINGERS: ((1.0, 2.0, 3.0, 4.0, 5.0), (0.0, 0.3, 0.7, 0.9, 1.0)),
        features.LINKS: ((1.0, 4.0, 8.0), (0.0, 0.6, 1.0)),
        features.POSTURE: ((1.0, 3.0), (1.0, 0.0)),
        features.DEPTH: ((0.002, 0.008), (1.0, 0.0)),
        features.STABILITY: ((0.0, 0.9), (0.0, 1.0)),
    }
)

_ASPECTS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "place": (features.WRIST,),
        "part": (features.HOLD,),
        "opposition": (features.OPPOSITION,),
        "contact": (features.FINGERS, features.LINKS, features.DEPTH),
        "posture": (features.POSTURE,),
        "use": (features.STABILITY, features.HOLD),
    }
)
"""Features that answer each question: the mean of how good they are."""

_SAID: Mapping[str, tuple[str, str, str]] = MappingProxyType(
    {
        features.WRIST: (
            "the forearm comes from a comfortable side",
            "the forearm comes from a bearable side",
            "the forearm comes from an uncomfortable side",
        ),
        features.HOLD: (
            "it is held by the {part}",
            "it is held by the {part} in part",
            "it is not held by the {part}",
        ),
        features.OPPOSITION: (
            "thumb and fingers press against each other",
            "thumb and fingers press against each other at an angle",
            "thumb and fingers do not press against each other",
        ),
        features.FINGERS: ("enough fingers touch", "few fingers touch", "too few fingers touch"),
        features.LINKS: (
            "{value:.0f} links of the hand touch",
            "{value:.0f} links of the hand touch",
            "only {value:.0f} links of the hand touch",
        ),
        features.DEPTH: (
            "no finger sinks in",
            "the hand sinks in by {millimetres:.1f} mm",
            "the hand sinks in by {millimetres:.1f} mm",
        ),
        features.POSTURE: (
            "the fingers bend as people's do",
            "the fingers bend a little unusually",
            "the fingers bend as people's hardly do",
        ),
        features.STABILITY: (
            "it stays put in physics",
            "it shifts a little in physics",
            "it nearly slips in physics",
        ),
    }
)
"""What is said of a feature that is good, one that is fair, and one that is bad."""
_GOOD, _FAIR = 0.8, 0.4
"""How good a feature is from which on it is called so."""


def goodness(found: Mapping[str, float]) -> dict[str, float]:
    """How good each known feature is, from 0 to 1.

    Raises:
        ScoreError: A feature that is not a finite number.
    """
    bad = {name: value for name, value in found.items() if not np.isfinite(value)}
    if bad:
        raise ScoreError(f"features {bad} are not finite; leave out what is unknown")
    return {
        name: float(np.interp(found[name], *line)) for name, line in _LINES.items() if name in found
    }


def aspects(found: Mapping[str, float]) -> dict[str, float]:
    """Answers from 0 to 1, by question; questions of which no feature is known are left out.

    Raises:
        ScoreError: A feature that is not a finite number.
    """
    good = goodness(found)
    known = {aspect: [good[n] for n in names if n in good] for aspect, names in _ASPECTS.items()}
    return {aspect: float(np.mean(values)) for aspect, values in known.items() if values}


def table(subjects: Sequence[Mapping[str, float]]) -> Float[np.ndarray, "b 6"]:
    """Answers of many grasps, in the order of `prompt.ASPECTS`; NaN where nothing is known."""
    rows = [aspects(found) for found in subjects]
    return np.array([[row.get(name, np.nan) for name in prompt.ASPECTS] for row in rows])


@dataclasses.dataclass(frozen=True)
class LocalScorer:
    """Scores by measured features; pictures and the task's wish are not looked at."""

    weights: Mapping[str, float] = dataclasses.field(default_factory=lambda: WEIGHTS)
    """Share of each question."""
    name: str = "local"
    """Name in scores."""

    def __post_init__(self) -> None:
        """Refuses weights that are no shares of the rubric's questions."""
        unknown = set(self.weights) ^ set(prompt.ASPECTS)
        if unknown:
            raise ScoreError(
                f"weights differ from the questions by {sorted(unknown)}; need exactly "
                f"{', '.join(prompt.ASPECTS)}"
            )
        if not all(0 <= w < np.inf for w in self.weights.values()) or not any(
            self.weights.values()
        ):
            raise ScoreError(f"weights {dict(self.weights)}; need numbers >= 0, one above 0")

    def score(self, task: Task, subjects: Sequence[Subject]) -> list[Score]:
        """Scores and explains each grasp.

        Raises:
            ScoreError: A grasp without any feature, or one that is not finite.
        """
        usual = _usual([subject.features for subject in subjects])
        return [self._one(task, subject, usual) for subject in subjects]

    def _one(self, task: Task, subject: Subject, usual: Mapping[str, float]) -> Score:
        answers = aspects(subject.features)
        weights = {name: self.weights[name] for name in answers}
        total = sum(weights.values())
        if total <= 0:
            raise ScoreError(
                f"{task.object_name}, {subject.name}: no feature to score it by; known are "
                f"{', '.join(_LINES)}"
            )
        mean = sum(weights[name] * answers[name] for name in answers) / total
        unheard = " The wish does not count in this score." if task.requirement.strip() else ""
        return Score(
            value=LOWEST + (HIGHEST - LOWEST) * mean,
            explanation=_sentence(subject, self.weights, usual) + unheard,
            by=self.name,
            aspects={k: LOWEST + (HIGHEST - LOWEST) * v for k, v in answers.items()},
        )


def _usual(found: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """How good each feature is among these grasps, in the mean."""
    good = [goodness(one) for one in found]
    return {n: float(np.mean([g[n] for g in good if n in g])) for n in set().union(*good)}


def _sentence(subject: Subject, weights: Mapping[str, float], usual: Mapping[str, float]) -> str:
    """Which fingers touch; what sets the grasp apart from the others, for it and against it."""
    found, good = subject.features, goodness(subject.features)
    weight = {
        name: sum(weights[aspect] / len(of) for aspect, of in _ASPECTS.items() if name in of)
        for name in good
    }
    touch = _touching(found)
    told = [name for name in good if not (touch and name == features.FINGERS)]
    # What is the same in all of them says nothing; where all else is, the heavier comes first.
    apart = {n: weight[n] * (good[n] - usual[n]) + 1e-3 * weight[n] for n in told}
    praised = sorted((n for n in told if good[n] >= _GOOD), key=lambda n: -apart[n])[:2]
    blamed = sorted(
        (n for n in told if good[n] < _GOOD), key=lambda n: -weight[n] * (1.0 - good[n])
    )[:2]

    def say(name: str) -> str:
        words = _SAID[name][0 if good[name] >= _GOOD else 1 if good[name] >= _FAIR else 2]
        part = subject.part or "part made for that"
        return words.format(part=part, value=found[name], millimetres=1000.0 * found[name])

    text = ", ".join(filter(None, [touch, *map(say, praised)])) or "nothing speaks for it"
    if blamed:
        text += "; but " + " and ".join(map(say, blamed))
    return text[0].upper() + text[1:] + "."


def _touching(found: Mapping[str, float]) -> str:
    """The fingers that touch, in words; empty where that is unknown."""
    known = features.touching(found)
    if not known:
        return ""
    if all(known.values()):
        return "all five fingers touch"
    *most, last = [digit for digit, touches in known.items() if touches] or ["no"]
    text = f"{', '.join(most)} and {last}" if most else last
    noun = "" if last == "thumb" else " finger"
    return f"{text}{noun} {'touch' if most else 'touches'}"
