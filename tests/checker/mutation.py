"""Damaged copies of a file, for tests of readers."""

import os

import numpy as np

MANY = int(os.environ.get("REALDEX_MUTATIONS", "500"))
"""Mutations of each kind in the slow tests; REALDEX_MUTATIONS=10000 tries more."""

WORDS = (b"\xff" * 8, b"\0" * 8, b"\x7f\xff\xff\xff", b"NaN", b"1e999", b"-1", b"99999999999", b"'")


def mutated(content, rng, better):
    """A file with some of its bytes flipped, cut, doubled, moved or replaced by telling ones."""
    out = bytearray(content)
    for _ in range(rng.integers(1, 4)):
        at = int(rng.integers(0, max(len(out), 1)))
        # Headers and tables of contents are where most is to be said.
        if rng.uniform() < 0.5:
            ends = [min(200, len(out)), len(out)]
            at = int(rng.integers(0, max(ends[0], 1))) if rng.uniform() < 0.5 else at
            at = max(len(out) - int(rng.integers(1, 400)), 0) if rng.uniform() < 0.5 else at
        span = int(rng.integers(1, 40))
        kind = rng.integers(0, 7)
        if kind == 0 and out:
            out[at % len(out)] ^= 1 << int(rng.integers(0, 8))
        elif kind == 1:
            del out[at:]
        elif kind == 2:
            del out[at : at + span]
        elif kind == 3:
            out[at:at] = out[at : at + span]
        elif kind == 4:
            out[at : at + span] = rng.integers(0, 256, span, dtype=np.uint8).tobytes()
        else:
            words = better or WORDS
            word = words[int(rng.integers(len(words)))]
            out[at : at + (len(word) if kind == 5 else 0)] = word
    return bytes(out)


def outcome(path, read):
    """The error that a read ends in, of whatever kind; None if it ends in none."""
    try:
        read(path)
    except Exception as error:
        return error
    return None
