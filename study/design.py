"""What makes a study: how people answer, which methods and trials, and what an answer is."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal

from realdex_jax.errors import RealdexError

Mode = Literal["rank", "score"]

HIGHEST = 5
"""Greatest score; the least is 0."""

QUESTIONS: Mapping[Mode, str] = {
    "rank": "Which grasp looks most like a person's?",
    "score": "How much does each grasp look like a person's?",
}
"""What people are asked unless the study says otherwise."""


class AnswerError(RealdexError):
    """An answer that is not one: two pictures in one place, a missing or an unknown value."""


@dataclasses.dataclass(frozen=True)
class Design:
    """What makes a study this study; it cannot change once the study has begun."""

    mode: Mode
    """rank: places, k points for the first of k and 1 for the last. score: 0 to 5 each."""
    methods: tuple[str, ...]
    trials: tuple[tuple[str, str], ...]
    """Object and sample of each."""
    seed: int
    question: str
    """What people are asked."""
    digest: str
    """Of the items."""

    @property
    def values(self) -> range:
        """What one vote can give a method, the least first."""
        return range(1, len(self.methods) + 1) if self.mode == "rank" else range(HIGHEST + 1)


def check_points(design: Design, points: Sequence[int]) -> None:
    """Checks one answer.

    Raises:
        AnswerError: Two methods in one place, a value out of range, or not one a method.
    """
    count = len(design.methods)
    if len(points) != count:
        raise AnswerError(f"{len(points)} values for {count} pictures; each needs one")
    allowed = design.values
    for value in points:
        if not allowed[0] <= value <= allowed[-1]:
            raise AnswerError(f"the value {value} is not between {allowed[0]} and {allowed[-1]}")
    if design.mode == "rank" and len(set(points)) < count:
        raise AnswerError("two pictures have the same place; give each a place of its own")
