"""The answers of a study in one SQLite file: `study.sqlite` in the study's folder.

A vote that was confirmed is on the disk (write-ahead log, synchronous=FULL). Answers are only ever
added: a changed answer is a new revision beside the old one. Nothing is stored of a person but a
number, the order they saw, their answers, and when.

    study          settings: mode, methods, trials, seed, question, digest of the items, secrets
    participants   number, hash of the cookie, order shown, times of start and end
    answers        participant, trial, revision (0 is the first answer), points by method, time
"""

import collections
import contextlib
import dataclasses
import datetime
import hashlib
import json
import secrets
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

from realdex_jax.errors import RealdexError
from study import plan
from study.design import AnswerError, Design, check_points

FORMAT = 1
"""Version of the file's layout."""

FILE = "study.sqlite"

_T = TypeVar("_T")

_APPLICATION = 0x52445831
"""Marks the file as ours, in SQLite's header."""

_WAIT_S = 30.0
"""How long a write waits for that of another process."""

_TABLES = """
CREATE TABLE study (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE participants (
  number INTEGER PRIMARY KEY,
  cookie TEXT NOT NULL UNIQUE,
  shown TEXT NOT NULL,
  started TEXT NOT NULL,
  finished TEXT
) STRICT;
CREATE TABLE answers (
  participant INTEGER NOT NULL REFERENCES participants (number),
  trial INTEGER NOT NULL CHECK (trial >= 0),
  revision INTEGER NOT NULL CHECK (revision >= 0),
  points TEXT NOT NULL,
  at TEXT NOT NULL,
  PRIMARY KEY (participant, trial, revision)
) STRICT, WITHOUT ROWID;
"""


class StudyError(RealdexError):
    """A study's file that cannot be used, or does not belong to what is asked of it."""


class ConflictError(RealdexError):
    """An answer to something that has changed since the page was shown."""


class FinishedError(RealdexError):
    """An answer by somebody who has finished."""


@dataclasses.dataclass(frozen=True)
class Participant:
    """One person."""

    number: int
    shown: plan.Order
    """Trials and methods in the order this person sees them."""
    finished: bool


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a person said last of one trial."""

    revision: int
    """How often it was changed."""
    points: tuple[int, ...]
    """By method, in the order of the design's."""
    at: str
    """UTC."""


class Ballots:
    """The open file. Safe to use from many threads, and by several processes at once."""

    def __init__(self, path: Path, design: Design, token: str, secret: bytes) -> None:
        """Use `begin` or `resume`.

        Args:
            path: The file.
            design: The study's.
            token: Part of the study's address; who does not know it sees nothing.
            secret: Key of everything that must not be guessed.
        """
        self.path = path
        self.design = design
        self.token = token
        self.secret = secret
        self._writer, self._reader = _connect(path), _connect(path)
        self._write_lock, self._read_lock = threading.Lock(), threading.Lock()
        self._waiting: list[_Job] = []
        self._waiting_lock = threading.Lock()

    def close(self) -> None:
        """Closes the file; everything confirmed is in it."""
        with self._write_lock, self._read_lock:
            self._writer.close()
            self._reader.close()

    def start(self, cookie: str) -> Participant:
        """The person with this cookie; a new one gets the next number and a random order."""
        key = _hash(cookie)

        def work(db: sqlite3.Connection) -> Participant:
            row = _find(db, key)
            if row is None:
                (number,) = db.execute(
                    "SELECT coalesce(max(number), 0) + 1 FROM participants"
                ).fetchone()
                shown = plan.order(
                    len(self.design.trials), len(self.design.methods), self.design.seed, number
                )
                db.execute(
                    "INSERT INTO participants VALUES (?, ?, ?, ?, NULL)",
                    (number, key, json.dumps(shown), _now()),
                )
                row = _find(db, key)
            assert row is not None
            return _participant(row)

        return self._write(work)

    def participant(self, cookie: str) -> Participant | None:
        """The person with this cookie, if there is one."""
        with self._read_lock:
            row = _find(self._reader, _hash(cookie))
        return None if row is None else _participant(row)

    def answers(self, number: int) -> dict[int, Answer]:
        """Last answers of a person, by trial."""
        with self._read_lock:
            rows = self._reader.execute(
                "SELECT trial, max(revision), points, at FROM answers WHERE participant = ? "
                "GROUP BY trial",
                (number,),
            ).fetchall()
        return {trial: Answer(revision, _points(text), at) for trial, revision, text, at in rows}

    def vote(self, number: int, trial: int, revision: int, points: Sequence[int]) -> None:
        """Stores an answer; when this returns, it is on the disk.

        The last answer to the same revision again changes nothing, so a form may be sent twice.

        Args:
            number: The person's.
            trial: Index into the design's trials.
            revision: How many answers to this trial the person had given when the page was shown.
            points: One a method.

        Raises:
            AnswerError: Points that the mode does not allow.
            ConflictError: Another answer was given since, in a second window.
            FinishedError: The person has finished.
        """
        check_points(self.design, points)
        if not 0 <= trial < len(self.design.trials):
            raise AnswerError(f"trial {trial}; there are {len(self.design.trials)}")
        text = json.dumps([int(value) for value in points])

        def work(db: sqlite3.Connection) -> None:
            row = db.execute(
                "SELECT finished FROM participants WHERE number = ?", (number,)
            ).fetchone()
            if row is None:
                raise StudyError(f"no participant {number} in {self.path}")
            given = db.execute(
                "SELECT points FROM answers WHERE participant = ? AND trial = ? ORDER BY revision",
                (number, trial),
            ).fetchall()
            if 0 <= revision == len(given) - 1 and given[revision][0] == text:
                return  # the form was sent twice
            if row[0] is not None:
                raise FinishedError("this person has finished; nothing can be changed any more")
            if revision != len(given):
                raise ConflictError(
                    f"the answer was for revision {revision}, but there are {len(given)}"
                )
            db.execute(
                "INSERT INTO answers VALUES (?, ?, ?, ?, ?)",
                (number, trial, revision, text, _now()),
            )

        self._write(work)

    def finish(self, number: int) -> None:
        """Ends a person's part; their answers are fixed from now on.

        Raises:
            AnswerError: Trials are left.
        """

        def work(db: sqlite3.Connection) -> None:
            (count,) = db.execute(
                "SELECT count(DISTINCT trial) FROM answers WHERE participant = ?", (number,)
            ).fetchone()
            if count != len(self.design.trials):
                raise AnswerError(f"{count} of {len(self.design.trials)} trials are answered")
            db.execute(
                "UPDATE participants SET finished = coalesce(finished, ?) WHERE number = ?",
                (_now(), number),
            )

        self._write(work)

    def everybody(self) -> list[tuple[Participant, dict[int, Answer]]]:
        """All people and their last answers, in the order they came, as of one moment."""
        answers: dict[int, dict[int, Answer]] = collections.defaultdict(dict)
        with self._read_lock:
            self._reader.execute("BEGIN")  # both tables as they are at the first read
            try:
                people = self._reader.execute(
                    "SELECT number, shown, finished FROM participants ORDER BY number"
                ).fetchall()
                rows = self._reader.execute(
                    "SELECT participant, trial, max(revision), points, at FROM answers "
                    "GROUP BY participant, trial"
                ).fetchall()
            finally:
                self._reader.execute("ROLLBACK")
        for number, trial, revision, text, at in rows:
            answers[number][trial] = Answer(revision, _points(text), at)
        return [(_participant(row), answers[row[0]]) for row in people]

    def _write(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        """Runs work in a transaction and returns when it is on the disk.

        Whoever gets the lock commits for all who wait: a disk takes milliseconds for every commit,
        whether it holds one vote or fifty.
        """
        job = _Job(work)
        with self._waiting_lock:
            self._waiting.append(job)
        with self._write_lock:
            if not job.done:
                with self._waiting_lock:
                    jobs, self._waiting = self._waiting, []
                _commit(self._writer, jobs)
        if job.error is not None:
            raise job.error
        return cast(_T, job.result)


@dataclasses.dataclass(eq=False)
class _Job:
    """Work that waits for a transaction."""

    work: Callable[[sqlite3.Connection], Any]
    result: Any = None
    error: Exception | None = None
    done: bool = False


def begin(folder: Path, design: Design) -> Ballots:
    """Makes the study's file, or opens it if this very study has begun.

    Raises:
        StudyError: The file is of another study, or cannot be written.
    """
    path = folder / FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)  # it holds the study's secrets
    except OSError as error:
        raise StudyError(f"{path}: cannot be written: {error.strerror}") from error
    settings = {
        "format": FORMAT,
        **dataclasses.asdict(design),
        "token": secrets.token_urlsafe(16),
        "secret": secrets.token_hex(32),
    }
    with _refusing(path), contextlib.closing(_connect(path)) as db:
        db.execute("BEGIN IMMEDIATE")  # two servers may start at once
        if not db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
            for statement in _TABLES.split(";"):
                db.execute(statement)
            rows = [(key, json.dumps(value)) for key, value in settings.items()]
            db.executemany("INSERT INTO study VALUES (?, ?)", rows)
            db.execute(f"PRAGMA application_id = {_APPLICATION}")
        db.execute("COMMIT")
    ballots = resume(folder)
    for field in dataclasses.fields(Design):
        old, new = getattr(ballots.design, field.name), getattr(design, field.name)
        if old != new:
            ballots.close()
            what = "the items" if field.name in ("digest", "trials") else f"{field.name} {new!r}"
            was = "others" if what == "the items" else repr(old)
            raise StudyError(
                f"{path} belongs to a study that began with {was}, not with {what} of now; go on "
                "with the old settings, or choose another --out"
            )
    return ballots


def resume(folder: Path) -> Ballots:
    """Opens the file of a study that has begun.

    Raises:
        StudyError: There is none, or it is not one of ours.
    """
    path = folder / FILE
    if not path.is_file():
        raise StudyError(f"no study at {path}; `serve` begins one")
    with _refusing(path), contextlib.closing(_connect(path)) as db:
        if db.execute("PRAGMA application_id").fetchone()[0] != _APPLICATION:
            raise StudyError(f"{path} is not the file of a study")
        raw: Mapping[str, Any] = {
            key: json.loads(value) for key, value in db.execute("SELECT key, value FROM study")
        }
    if raw.get("format") != FORMAT:
        raise StudyError(f"{path} has format {raw.get('format')}; this version reads {FORMAT}")
    design = Design(
        mode=raw["mode"],
        methods=tuple(raw["methods"]),
        trials=tuple((name, sample) for name, sample in raw["trials"]),
        seed=raw["seed"],
        question=raw["question"],
        digest=raw["digest"],
    )
    return Ballots(path, design, raw["token"], bytes.fromhex(raw["secret"]))


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=_WAIT_S, isolation_level=None, check_same_thread=False)
    try:
        (journal,) = db.execute("PRAGMA journal_mode = WAL").fetchone()
        if journal != "wal":
            raise StudyError(f"{path}: no write-ahead log there ({journal}); use a local disk")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA foreign_keys = ON")
    except BaseException:
        db.close()
        raise
    return db


@contextlib.contextmanager
def _refusing(path: Path) -> Iterator[None]:
    """Names the file when SQLite or JSON cannot make sense of it."""
    try:
        yield
    except (sqlite3.Error, json.JSONDecodeError) as error:
        raise StudyError(f"{path} cannot be used: {error}") from error


def _commit(db: sqlite3.Connection, jobs: Sequence[_Job]) -> None:
    """Does all jobs in one transaction; one that fails is undone alone."""
    try:
        db.execute("BEGIN IMMEDIATE")
        for job in jobs:
            db.execute("SAVEPOINT job")
            try:
                job.result = job.work(db)
            except RealdexError as error:
                job.error = error
                db.execute("ROLLBACK TO job")
            except sqlite3.IntegrityError as error:
                job.error = StudyError(f"the answer could not be stored: {error}")
                db.execute("ROLLBACK TO job")
            db.execute("RELEASE job")
        db.execute("COMMIT")
    except BaseException as error:
        for job in jobs:  # nothing of this transaction is on the disk
            job.error = StudyError(f"the answer could not be stored: {error}")
        if db.in_transaction:
            db.execute("ROLLBACK")
        if not isinstance(error, sqlite3.Error):
            raise
    finally:
        for job in jobs:
            job.done = True


def _find(db: sqlite3.Connection, key: str) -> tuple[int, str, str | None] | None:
    return db.execute(
        "SELECT number, shown, finished FROM participants WHERE cookie = ?", (key,)
    ).fetchone()


def _participant(row: tuple[int, str, str | None]) -> Participant:
    number, shown, finished = row
    order = tuple((trial, tuple(methods)) for trial, methods in json.loads(shown))
    return Participant(number, order, finished is not None)


def _points(text: str) -> tuple[int, ...]:
    return tuple(json.loads(text))


def _hash(cookie: str) -> str:
    """Who reads the file cannot vote in somebody's name."""
    return hashlib.sha256(cookie.encode()).hexdigest()


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
