"""Damaged copies of a file, for tests of readers."""

import io
import os
import pickle
import time
import zipfile

import numpy as np

from realdex_jax.errors import RealdexError

MANY = int(os.environ.get("REALDEX_MUTATIONS", "300"))
"""Mutations of each kind in the slow tests; REALDEX_MUTATIONS=10000 tries more."""

SOME = MANY if "REALDEX_MUTATIONS" in os.environ else 60
"""The same for the many formats of other people's data."""

TIMEOUT = 1500 * max(MANY // 500, 1)
"""Seconds of a slow test: as others have, or as many times more as there are mutations."""

SECONDS = 10.0
"""Most time of one read."""

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


class Canary:
    """A folder that appears if anything in a file is run."""

    def __init__(self, place):
        self.place = place

    def __reduce__(self):
        return os.mkdir, (str(self.place),)

    @property
    def dead(self):
        return self.place.exists()

    @property
    def pickles(self):
        """Whole pickles that run code where they are believed."""
        return tuple(pickle.dumps(self, protocol) for protocol in (0, 2, 4))

    @property
    def words(self):
        """Code in every language that a reader may take for data."""
        call = f"__import__('os').mkdir({str(self.place)!r})".encode()
        return (*self.pickles, call, b"$(" + call + b")", b"!!python/object/apply:os.mkdir")


def rewritten(content, rng, words, whole=()):
    """A sound zip with one member's content mutated: what is inside, past its checksums."""
    source, target = zipfile.ZipFile(io.BytesIO(content)), io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        members = source.infolist()
        chosen = int(rng.integers(len(members)))
        for i, member in enumerate(members):
            inside = source.read(member)
            if i == chosen:
                inside = damaged(inside, rng, words, whole)
            archive.writestr(member.filename, inside)
    return target.getvalue()


def damaged(content, rng, words, whole):
    """Mutated; or, once in ten times, a whole pickle of `whole` where a header may end."""
    if whole and rng.uniform() < 0.1:
        start = int(rng.choice([0, 128]))
        return content[:start] + whole[int(rng.integers(len(whole)))]
    return mutated(content, rng, words)


def attack(path, read, count, seed, canary, words=()):
    """Reads mutations of a file, each within `SECONDS`; returns how many were refused.

    Every refusal is an error of ours that names the file, no code in it is run, and the good file
    reads as before.
    """
    rng = np.random.default_rng(seed)
    content = path.read_bytes()
    is_zip = zipfile.is_zipfile(path)
    telling = (*WORDS, *words, *canary.words)
    refused = 0
    for i in range(count):
        inside = is_zip and rng.uniform() < 0.5
        change = rewritten if inside else damaged
        path.write_bytes(change(content, rng, telling, canary.pickles))
        began = time.perf_counter()
        error = outcome(path, read)
        took = time.perf_counter() - began
        assert took < SECONDS, (path.name, i, took)
        assert not canary.dead, (path.name, i)
        if error is not None:
            refused += 1
            if not isinstance(error, RealdexError):
                raise AssertionError(f"{path.name}, mutation {i} of seed {seed}") from error
            assert path.name in str(error) or path.stem in str(error), (i, str(error)[:300])
    path.write_bytes(content)
    read(path)
    return refused
