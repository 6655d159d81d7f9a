"""A prior from functional parts: people take a mug by its handle and a sprayer by its trigger."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from realdex_jax.data import store
from realdex_jax.data.pipeline import Item
from realdex_jax.data.store import Dataset
from realdex_jax.evaluation import grasp
from realdex_jax.hand.load import HandModel
from sim import objects

_POINTS = 1024
"""Surface points on which contacts are told apart."""


def preferred(
    hand: HandModel, dataset: Dataset, source: Sequence[Item], weight: float
) -> Sequence[Item]:
    """Items whose grasps are drawn the more often the more they touch functional parts.

    Args:
        hand: The hand.
        dataset: Where the items are from; only the embedded ones label their objects' parts.
        source: The items.
        weight: A grasp that touches nothing else is drawn `1 + weight` times as often as one that
            touches none of it.
    """
    if weight == 0.0 or dataset.name not in store.EMBEDDED:
        return source
    return tuple(
        dataclasses.replace(item, share=_share(hand, item, weight))
        if item.name.partition("@")[0] in objects.names()
        else item
        for item in source
    )


def _share(hand: HandModel, item: Item, weight: float) -> Float[np.ndarray, " g"] | None:
    shape = objects.make(item.name)
    surface = shape.surface(_POINTS, seed=0)
    functional = objects.functional(shape, surface)
    if not functional.any():
        return None
    near = grasp.touched(hand, item.phi, surface.points)
    likes = 1.0 + weight * grasp.functional_share(near, functional)
    return likes / likes.sum()
