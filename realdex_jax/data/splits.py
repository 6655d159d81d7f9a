"""Splits by object, never by grasp: a test object is one that training has not seen."""

from collections.abc import Mapping, Sequence

import numpy as np

from realdex_jax.errors import DatasetError

PARTS = ("train", "val", "test")
"""The parts every dataset has; a part may be empty."""

PAPER_SHARES = (40 / 52, 6 / 52, 6 / 52)
"""Shares of objects in train, val and test (RealDex, section 3: 40/6/6 of 52)."""


def by_object(
    names: Sequence[str], seed: int, shares: tuple[float, float, float] = PAPER_SHARES
) -> dict[str, tuple[str, ...]]:
    """Splits object names at random; the order of `names` does not matter.

    Args:
        names: Distinct object names.
        seed: Seed of the shuffle.
        shares: Shares of train, val and test; they sum to 1.

    Raises:
        DatasetError: Names that repeat, or shares that do not sum to 1.
    """
    if len(set(names)) != len(names):
        raise DatasetError("object names repeat; a split needs each once")
    if abs(sum(shares) - 1) > 1e-6 or min(shares) < 0:
        raise DatasetError(f"shares {shares} must be non-negative and sum to 1")
    shuffled = np.random.default_rng(seed).permutation(sorted(names)).tolist()
    val, test = (round(share * len(names)) for share in shares[1:])
    train = len(names) - val - test
    cuts = {"train": (0, train), "val": (train, train + val), "test": (train + val, len(names))}
    return {part: tuple(shuffled[a:b]) for part, (a, b) in cuts.items()}


def check(splits: Mapping[str, Sequence[str]]) -> None:
    """Checks that the parts are known and share no object.

    Raises:
        DatasetError: An unknown part, or an object in two parts (the paper's release tests on
            validation objects).
    """
    unknown = set(splits) - set(PARTS)
    if unknown:
        raise DatasetError(f"unknown parts {sorted(unknown)}; known: {', '.join(PARTS)}")
    seen: dict[str, str] = {}
    for part, names in splits.items():
        for name in names:
            if name in seen:
                raise DatasetError(f"object {name!r} is in {seen[name]} and {part}")
            seen[name] = part
