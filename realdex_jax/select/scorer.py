"""What every scorer is given and gives back, and the choice that follows from it."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from realdex_jax.errors import RealdexError

LOWEST, HIGHEST = 0.0, 5.0
"""Least and greatest score, as in RealDex (section 4.2)."""


class ScoreError(RealdexError):
    """A score that cannot be given, or a reply that is none."""


@dataclasses.dataclass(frozen=True)
class Task:
    """What is to be done with the object."""

    object_name: str
    """A word for the object, such as "mug"; data, never an instruction."""
    requirement: str = ""
    """A special wish in the user's words, such as "hand it over"."""


@dataclasses.dataclass(frozen=True)
class Subject:
    """One grasp as a scorer sees it."""

    name: str
    """Identifies it among those scored together."""
    picture: bytes = b""
    """A PNG; may be empty for scorers that do not look."""
    features: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """Measured features by name, see `realdex_jax.select.features`; a missing one is unknown."""
    part: str = ""
    """What people take the object by, such as "handle"; empty where that is unknown."""


@dataclasses.dataclass(frozen=True)
class Score:
    """What a scorer says of one grasp."""

    value: float
    """From `LOWEST` to `HIGHEST`; more is more human-like."""
    explanation: str
    """A sentence for people."""
    by: str
    """Who gave it: "local", or the name of a remote model."""
    aspects: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """Scores of the rubric's single questions, by name, on the same scale."""


@runtime_checkable
class Scorer(Protocol):
    """Scores grasps of one object."""

    @property
    def name(self) -> str:
        """Goes into `Score.by`."""
        ...

    def score(self, task: Task, subjects: Sequence[Subject]) -> list[Score]:
        """One score per subject, in their order."""
        ...


def best(scores: Sequence[Score], count: int, by: str | None = None) -> list[int]:
    """Indices of the `count` highest scores, best first; equal ones in their order.

    Args:
        scores: The scores.
        count: Number wanted.
        by: If given, scores of others than this scorer, being on another scale, come last.
    """
    order = sorted(
        range(len(scores)), key=lambda i: (by not in (None, scores[i].by), -scores[i].value)
    )
    return order[:count]
