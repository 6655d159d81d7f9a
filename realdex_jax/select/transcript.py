"""What a remote scorer answered, kept so that nothing is paid for twice and a run can be replayed.

One JSON object per line and picture: the model, SHA-256 of the prompt and of the picture, and the
score. Lines are only ever added. A process that dies while it writes leaves at most half a line at
the end, which is ignored, and cut off by the next that writes. Processes that share a file take
turns by a lock on it; of two answers about one picture the first in the file counts for both.

Pictures are not in it, and no key: it may be published beside the results it explains.
"""

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from realdex_jax.errors import RealdexError
from realdex_jax.select import prompt
from realdex_jax.select.scorer import HIGHEST, LOWEST, Score, Subject, Task

VERSION = 1
"""Version of the lines."""

_NO_ENTRY = (ValueError, KeyError, TypeError, AttributeError, RecursionError)


class TranscriptError(RealdexError):
    """A transcript that cannot be read or written, or lacks a subject that is replayed."""


@dataclasses.dataclass(frozen=True)
class Key:
    """What an answer depends on."""

    model: str
    """Name of the model."""
    prompt: str
    """SHA-256 of what is asked, see `prompt.fingerprint`."""
    picture: str
    """SHA-256 of the picture's bytes."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """One line."""

    key: Key
    subject: str
    """Name of the subject, for people; it tells answers apart only where there is a `reason`."""
    score: Score
    reason: str = ""
    """Why another scorer stood in; empty for an answer of the model itself."""


def keys(model: str, task: Task, subjects: Sequence[Subject]) -> list[Key]:
    """Under what the answers about these subjects are kept."""
    asked = prompt.fingerprint(task)
    return [Key(model, asked, hashlib.sha256(one.picture).hexdigest()) for one in subjects]


class Transcript:
    """A file of answers, or answers in memory only; may be shared by threads and by processes."""

    def __init__(self, path: Path | None = None, read_only: bool = False) -> None:
        """Reads what is there.

        Args:
            path: The file; without one nothing outlives the process.
            read_only: Never write, and insist that the file is there.

        Raises:
            TranscriptError: A whole line of the file is none of a transcript.
        """
        self.path = path
        self._read_only = read_only
        self._answers: dict[Key, Entry] = {}
        self._stand_ins: dict[tuple[Key, str], Entry] = {}
        self._offset = 0
        self._line = 0
        self._lock = threading.RLock()
        if read_only and (path is None or not path.is_file()):
            raise TranscriptError(f"no transcript at {path}")
        self.refresh()

    def __len__(self) -> int:
        """Number of pictures answered by the model."""
        return len(self._answers)

    def refresh(self) -> None:
        """Reads what others have added."""
        with self._lock:
            if self.path is None or not self.path.exists():
                return
            try:
                with self._opened(os.O_RDONLY, fcntl.LOCK_SH) as descriptor:
                    self._read_on(descriptor)
            except OSError as error:
                raise TranscriptError(f"cannot read the transcript {self.path}: {error}") from None

    def find(self, key: Key) -> Score | None:
        """The model's answer, if there is one."""
        with self._lock:
            entry = self._answers.get(key)
        return None if entry is None else entry.score

    def find_stand_in(self, key: Key, subject: str) -> Score | None:
        """The score of a scorer that stood in for the model, if there is one."""
        with self._lock:
            entry = self._stand_ins.get((key, subject))
        return None if entry is None else entry.score

    def record(self, entries: Sequence[Entry]) -> None:
        """Adds answers; those about a picture that is answered already are left out.

        They are on the disk when this returns.
        """
        with self._lock:
            if self._read_only:
                raise TranscriptError(f"{self.path} was opened for reading only")
            if self.path is None:
                for entry in entries:
                    self._remember(entry)
                return
            try:
                self._append(entries)
            except OSError as error:
                raise TranscriptError(f"cannot write the transcript {self.path}: {error}") from None

    def _append(self, entries: Sequence[Entry]) -> None:
        assert self.path is not None
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fresh = not self.path.exists()
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT
        with self._opened(flags, fcntl.LOCK_EX) as descriptor:
            self._read_on(descriptor)
            # Nobody else writes now, so what follows the last whole line is what a dead one left.
            if os.fstat(descriptor).st_size > self._offset:
                os.ftruncate(descriptor, self._offset)
            unknown = [entry for entry in entries if not self._has(entry)]
            left = "".join(_line(entry) + "\n" for entry in unknown).encode()
            while left:
                left = left[os.write(descriptor, left) :]
            os.fsync(descriptor)
            self._read_on(descriptor)
        if fresh:
            folder = os.open(self.path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    @contextlib.contextmanager
    def _opened(self, flags: int, lock: int) -> Iterator[int]:
        assert self.path is not None
        descriptor = os.open(self.path, flags | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, lock)
            yield descriptor
        finally:
            os.close(descriptor)  # gives the lock back

    def _read_on(self, descriptor: int) -> None:
        """Reads the whole lines from where reading ended last."""
        os.lseek(descriptor, self._offset, os.SEEK_SET)
        with os.fdopen(os.dup(descriptor), "rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._line += 1
                try:
                    entry = _entry(json.loads(line))
                except _NO_ENTRY as error:
                    raise TranscriptError(
                        f"{self.path}, line {self._line}, is none of a transcript of version "
                        f"{VERSION}: {prompt.plain(repr(error), 120)}"
                    ) from None
                self._offset += len(line)
                self._remember(entry)

    def _has(self, entry: Entry) -> bool:
        if entry.reason:
            return self._stand_ins.get((entry.key, entry.subject)) == entry
        return entry.key in self._answers

    def _remember(self, entry: Entry) -> None:
        if entry.reason:
            self._stand_ins[entry.key, entry.subject] = entry
        else:
            self._answers.setdefault(entry.key, entry)


class Replay:
    """A scorer that answers from a transcript alone: no network, no key, no other scorer.

    Where another scorer stood in when it was recorded, its score is given, unless the model
    answered at another time.
    """

    def __init__(self, model: str, transcript: Transcript) -> None:
        """Replays the answers of one model."""
        self.name = model
        self._transcript = transcript

    def score(self, task: Task, subjects: Sequence[Subject]) -> list[Score]:
        """The recorded scores.

        Raises:
            TranscriptError: A subject is not in the transcript; the message names it.
        """
        scores: list[Score] = []
        for subject, key in zip(subjects, keys(self.name, task, subjects), strict=True):
            score = self._transcript.find(key) or self._transcript.find_stand_in(key, subject.name)
            if score is None:
                raise TranscriptError(
                    f"{self._transcript.path} has no answer of {self.name} about "
                    f"{subject.name!r} for this picture and this task; replaying asks nobody"
                )
            scores.append(score)
        return scores


def _line(entry: Entry) -> str:
    line = {
        "version": VERSION,
        **dataclasses.asdict(entry.key),
        "subject": entry.subject,
        "by": entry.score.by,
        "value": float(entry.score.value),
        "explanation": entry.score.explanation,
        "aspects": {name: float(value) for name, value in entry.score.aspects.items()},
        "reason": entry.reason,
    }
    try:
        _entry(line)  # a line that could not be read again would spoil the file
    except _NO_ENTRY as error:
        raise TranscriptError(f"the score of {entry.subject!r} cannot be kept: {error}") from None
    return json.dumps(line)


def _entry(line: Any) -> Entry:
    """The entry of a parsed line; raises one of `_NO_ENTRY` if it is none."""
    if line["version"] != VERSION:
        raise ValueError(f"version {line['version']!r}")
    words = [line[name] for name in ("model", "prompt", "picture", "subject", "by", "reason")]
    if not all(isinstance(word, str) for word in (*words, line["explanation"])):
        raise TypeError("a text is none")
    for value in (line["value"], *line["aspects"].values()):
        if type(value) not in (int, float) or not LOWEST <= value <= HIGHEST:
            raise ValueError(f"a score of {value!r}")
    model, asked, picture, subject, by, reason = words
    aspects = {str(name): float(value) for name, value in line["aspects"].items()}
    score = Score(float(line["value"]), line["explanation"], by, MappingProxyType(aspects))
    return Entry(Key(model, asked, picture), subject, score, reason)
