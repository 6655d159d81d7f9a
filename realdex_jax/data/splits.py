"""Splits by object, never by grasp: a test object is one that training has not seen.

A dataset has one rule of splitting by object, the paper's, and may name further schemes.
"""

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from realdex_jax.errors import DatasetError

PARTS = ("train", "val", "test")
"""The parts every dataset has; a part may be empty."""

SCHEME = "object"
"""Name of the scheme that every dataset has."""

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


def by_category(
    category_of: Mapping[str, str], *, val: Sequence[str], test: Sequence[str]
) -> dict[str, tuple[str, ...]]:
    """Holds out whole categories: a test object is of a kind that training has not seen.

    Args:
        category_of: Category of each object; the parts keep this order.
        val: Categories held out for validation.
        test: Categories held out for test.

    Raises:
        DatasetError: A category that no object has, or one held out twice.
    """
    known = sorted(set(category_of.values()))
    held_out = (*val, *test)
    for category in held_out:
        if category not in known:
            raise DatasetError(f"no object of category {category!r}; known: {', '.join(known)}")
        if held_out.count(category) > 1:
            raise DatasetError(f"category {category!r} is held out twice; once is the most")
    part_of = (
        dict.fromkeys(known, "train") | dict.fromkeys(val, "val") | dict.fromkeys(test, "test")
    )
    return {
        part: tuple(name for name, category in category_of.items() if part_of[category] == part)
        for part in PARTS
    }


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
                where = f"in {seen[name]} and {part}" if seen[name] != part else f"twice in {part}"
                raise DatasetError(f"object {name!r} is {where}; each is in one part, once")
            seen[name] = part


def check_schemes(
    schemes: Mapping[str, Mapping[str, Sequence[str]]], names: Collection[str]
) -> None:
    """Checks the schemes a dataset has beside its own splits.

    A scheme may leave objects out: sizes of an object that it holds out, for instance.

    Raises:
        DatasetError: A scheme with the name of the dataset's own, with an object that is not among
            `names`, or with parts that `check` refuses.
    """
    for scheme, parts in schemes.items():
        if scheme == SCHEME:
            raise DatasetError(
                f"scheme {scheme!r} is the dataset's own splits; choose another name"
            )
        try:
            check(parts)
        except DatasetError as error:
            raise DatasetError(f"scheme {scheme!r}: {error}") from error
        unknown = {name for group in parts.values() for name in group} - set(names)
        if unknown:
            raise DatasetError(
                f"scheme {scheme!r} names objects that are not in the dataset: {sorted(unknown)}"
            )
