"""The 52 parametric household objects, by name, and their fixed split."""

from __future__ import annotations

from functools import cache
from types import MappingProxyType

import numpy as np

from realdex_jax.errors import UnknownObjectError
from realdex_jax.geometry.shape import ObjectShape
from sim import bottles, containers, toys
from sim.solids import Recipe, corners, union

_RECIPES: dict[str, Recipe] = {
    r.name: r for r in (*bottles.RECIPES, *containers.RECIPES, *toys.RECIPES)
}

_VALIDATION = ("cookies_box", "hammer", "lion_toy", "multi_purpose_cleaner", "tea_cup", "yogurt")

# One of each kind that the paper tests on: a toy, cosmetics, a sprayer, a box, a lotion, a cleaner.
_TEST = (
    "bathroom_cleaner",
    "body_lotion",
    "cosmetics",
    "cracker_box",
    "penguin_toy",
    "small_sprayer",
)


def names() -> tuple[str, ...]:
    """Names of all objects, sorted."""
    return tuple(sorted(_RECIPES))


SPLITS: MappingProxyType[str, tuple[str, ...]] = MappingProxyType(
    {
        "train": tuple(name for name in names() if name not in _VALIDATION + _TEST),
        "val": _VALIDATION,
        "test": _TEST,
    }
)
"""Object names of the training (40), validation (6) and test (6) set."""


@cache
def make(name: str) -> ObjectShape:
    """Build one object; in one process the same name always gives the same record.

    The frame has z up in the resting pose and its origin at the centre of the bounding box.

    Args:
        name: one of `names()`.

    Returns:
        The object's shape.

    Raises:
        UnknownObjectError: no object has this name.
    """
    if name not in _RECIPES:
        raise UnknownObjectError(f"no parametric object {name!r}; known: {', '.join(names())}")
    recipe = _RECIPES[name]
    pieces = recipe.build()
    everything = np.concatenate([piece.vertices for piece in pieces])
    center = (everything.min(axis=0) + everything.max(axis=0)) / 2
    solids = tuple(corners(piece.vertices - center) for piece in pieces)
    vertices, faces = union(solids)
    return ObjectShape(
        name=name,
        vertices=vertices,
        faces=faces,
        pieces=solids,
        piece_labels=tuple(piece.label for piece in pieces),
        mass=recipe.mass,
        category=recipe.category,
        symmetry=recipe.symmetry,
    )
