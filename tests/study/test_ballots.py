"""The file of answers: nothing is lost, nothing counts twice."""

import concurrent.futures
import contextlib
import dataclasses
import os
import pathlib
import random
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from study import ballots, plan
from study.ballots import Ballots, ConflictError, FinishedError, StudyError
from study.design import AnswerError, Design, check_points


def test_a_vote_is_there_after_opening_again(tmp_path: pathlib.Path, small: Design) -> None:
    with contextlib.closing(ballots.begin(tmp_path, small)) as first:
        person = first.start("cookie")
        first.vote(person.number, 2, 0, (3, 1, 2))
        token, secret = first.token, first.secret
    with contextlib.closing(ballots.begin(tmp_path, small)) as again:
        assert (again.token, again.secret, again.design) == (token, secret, small)
        assert again.participant("cookie") == person
        found = again.answers(person.number)
    assert {trial: (a.revision, a.points) for trial, a in found.items()} == {2: (0, (3, 1, 2))}


def test_durability_is_switched_on(opened: Ballots) -> None:
    opened.start("cookie")
    for connection in (opened._writer, opened._reader):
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
    assert opened.path.stat().st_mode & 0o077 == 0


def test_no_cookie_is_stored(opened: Ballots) -> None:
    opened.start("a-cookie-nobody-must-see")
    for path in opened.path.parent.iterdir():
        assert b"a-cookie-nobody-must-see" not in path.read_bytes()


def test_people_are_numbered_and_see_their_own_order(opened: Ballots, small: Design) -> None:
    people = [opened.start(name) for name in ("x", "y", "z", "y")]
    assert [one.number for one in people] == [1, 2, 3, 2]
    assert people[1] == people[3]
    for one in people:
        assert one.shown == plan.order(4, 3, small.seed, one.number)
    assert opened.participant("nobody") is None


def test_the_same_answer_twice_is_one(opened: Ballots) -> None:
    number = opened.start("x").number
    for _ in range(3):
        opened.vote(number, 0, 0, (3, 2, 1))
    assert opened.answers(number)[0].revision == 0


def test_a_changed_answer_stands_beside_the_old_one(opened: Ballots) -> None:
    number = opened.start("x").number
    opened.vote(number, 0, 0, (3, 2, 1))
    opened.vote(number, 0, 1, (1, 2, 3))
    with pytest.raises(ConflictError, match="revision 0, but there are 2"):
        opened.vote(number, 0, 0, (3, 2, 1))  # a second window: it would not be what is stored
    assert opened.answers(number)[0].revision == 1
    assert opened.answers(number)[0].points == (1, 2, 3)
    with contextlib.closing(sqlite3.connect(opened.path)) as db:
        rows = db.execute("SELECT revision, points FROM answers ORDER BY revision").fetchall()
    assert rows == [(0, "[3, 2, 1]"), (1, "[1, 2, 3]")]


def test_everybody_is_as_of_one_moment(opened: Ballots) -> None:
    """People vote in turn, so that none is ever more than one answer ahead of the next."""
    people = [opened.start(f"p{index}").number for index in range(12)]
    done = threading.Event()

    def vote() -> None:
        for revision in range(40):
            for number in people:
                opened.vote(number, 0, revision, ((3, 2, 1), (1, 2, 3))[revision % 2])
        done.set()

    voting = threading.Thread(target=vote)
    voting.start()
    seen: list[list[int]] = []
    while not done.is_set():
        seen.append([a[0].revision if a else -1 for _, a in opened.everybody()])
    voting.join()
    assert len(seen) > 20
    for given in seen:
        assert given == sorted(given, reverse=True)
        assert given[0] - given[-1] <= 1


@pytest.mark.parametrize("revision", [0, 2, 5])
def test_an_answer_to_what_has_changed_is_a_conflict(opened: Ballots, revision: int) -> None:
    number = opened.start("x").number
    opened.vote(number, 0, 0, (3, 2, 1))
    with pytest.raises(ConflictError, match=f"revision {revision}, but there are 1"):
        opened.vote(number, 0, revision, (1, 2, 3))
    assert opened.answers(number)[0].points == (3, 2, 1)


def test_after_the_end_nothing_changes(opened: Ballots) -> None:
    number = opened.start("x").number
    for trial in range(3):
        opened.vote(number, trial, 0, (3, 2, 1))
    with pytest.raises(AnswerError, match="3 of 4 trials are answered"):
        opened.finish(number)
    assert not opened.start("x").finished
    opened.vote(number, 3, 0, (3, 2, 1))
    opened.finish(number)
    opened.finish(number)
    assert opened.start("x").finished
    opened.vote(number, 3, 0, (3, 2, 1))  # the same form once more is no change
    with pytest.raises(FinishedError):
        opened.vote(number, 3, 1, (1, 2, 3))
    assert opened.answers(number)[3].points == (3, 2, 1)


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ((3, 3, 1), "two pictures have the same place"),
        ((3, 2), "2 values for 3 pictures"),
        ((4, 2, 1), "4 is not between 1 and 3"),
        ((0, 2, 1), "0 is not between 1 and 3"),
    ],
)
def test_what_is_no_ranking_is_refused(opened: Ballots, points, message: str) -> None:
    number = opened.start("x").number
    with pytest.raises(AnswerError, match=message):
        opened.vote(number, 0, 0, points)
    assert opened.answers(number) == {}


def test_scores_may_be_equal_but_not_out_of_range(small: Design) -> None:
    scores = dataclasses.replace(small, mode="score")
    check_points(scores, (5, 5, 0))
    for points in ((6, 0, 0), (-1, 0, 0)):
        with pytest.raises(AnswerError, match="is not between 0 and 5"):
            check_points(scores, points)


def test_unknown_people_and_trials_are_refused(opened: Ballots) -> None:
    with pytest.raises(StudyError, match="no participant 1"):
        opened.vote(1, 0, 0, (3, 2, 1))
    number = opened.start("x").number
    with pytest.raises(AnswerError, match="trial 4; there are 4"):
        opened.vote(number, 4, 0, (3, 2, 1))


def test_many_threads_lose_nothing_and_share_commits(tmp_path: pathlib.Path, small: Design) -> None:
    wide = dataclasses.replace(small, trials=tuple(("mug", str(i)) for i in range(40)))
    with contextlib.closing(ballots.begin(tmp_path, wide)) as store:
        gate = threading.Barrier(16)

        def person(name: str) -> int:
            gate.wait()
            number = store.start(name).number
            for trial in range(40):
                store.vote(number, trial, 0, ((3, 2, 1), (1, 2, 3))[trial % 2])
                store.vote(number, trial, 0, ((3, 2, 1), (1, 2, 3))[trial % 2])
            return number

        # Two threads a person: two windows that send the same.
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            numbers = list(pool.map(person, [f"p{i // 2}" for i in range(16)]))
        assert sorted(set(numbers)) == list(range(1, 9))
        for _, answers in store.everybody():
            assert len(answers) == 40
            assert all(a.revision == 0 for a in answers.values())
            assert all(a.points[0] == (3, 1)[trial % 2] for trial, a in answers.items())


def test_of_two_different_answers_at_once_one_is_stored(opened: Ballots) -> None:
    numbers = [opened.start(f"p{i}").number for i in range(20)]
    gate = threading.Barrier(2)

    def window(points: tuple[int, ...]) -> list[bool]:
        won = []
        for number in numbers:
            gate.wait()
            try:
                opened.vote(number, 0, 0, points)
                won.append(True)
            except ConflictError:
                won.append(False)
        return won

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        first, second = pool.map(window, [(3, 2, 1), (1, 2, 3)])
    assert all(a != b for a, b in zip(first, second, strict=True))
    for number, won in zip(numbers, first, strict=True):
        assert opened.answers(number)[0].points == ((3, 2, 1) if won else (1, 2, 3))


WRITER = textwrap.dedent(
    """
    import pathlib, sys
    from study import ballots
    store = ballots.resume(pathlib.Path(sys.argv[1]))
    number = store.start(sys.argv[2]).number
    print("ready", number, flush=True)
    sys.stdin.readline()
    for trial in range(len(store.design.trials)):
        store.vote(number, trial, 0, (1 + trial % 2, 2 - trial % 2))
        print(trial, flush=True)
    """
)


def writer(folder: pathlib.Path, name: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder), name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def two_methods(trials: int) -> Design:
    names = tuple(("mug", str(i)) for i in range(trials))
    return Design("rank", ("alpha", "beta"), names, 0, "Which?", "digest")


def test_processes_that_write_at_once_lose_nothing(tmp_path: pathlib.Path) -> None:
    with contextlib.closing(ballots.begin(tmp_path, two_methods(60))) as store:
        running = [writer(tmp_path, f"p{i}") for i in range(3)]
        for one in running:
            assert one.stdout is not None
            assert one.stdout.readline().startswith("ready")
        for one in running:
            out, _ = one.communicate("go\n", timeout=60)
            assert one.returncode == 0
            assert out.split() == [str(i) for i in range(60)]
        found = store.everybody()
        assert [person.number for person, _ in found] == [1, 2, 3]
        assert all(sorted(answers) == list(range(60)) for _, answers in found)


def test_a_kill_keeps_every_confirmed_vote(tmp_path: pathlib.Path) -> None:
    """SIGKILL at five random times in the middle of writing."""
    rng = random.Random(1)
    total = 0
    with contextlib.closing(ballots.begin(tmp_path, two_methods(20_000))):
        pass
    for attempt in range(5):
        one = writer(tmp_path, f"p{attempt}")
        assert one.stdin is not None
        assert one.stdout is not None
        number = int(one.stdout.readline().split()[1])
        one.stdin.write("go\n")
        one.stdin.flush()
        one.stdout.readline()
        time.sleep(rng.uniform(0.01, 0.3))
        os.kill(one.pid, signal.SIGKILL)
        # Not `communicate`: it passes over what `readline` has read ahead.
        with one:
            out = one.stdout.read()
        assert one.returncode == -signal.SIGKILL
        confirmed = [0] + [int(line) for line in out.splitlines(keepends=True) if line[-1] == "\n"]
        with contextlib.closing(ballots.resume(tmp_path)) as store:
            (result,) = store._reader.execute("PRAGMA integrity_check").fetchone()
            found = store.answers(number)
        assert result == "ok"
        assert set(confirmed) <= set(found)
        # One more may be stored than was told: killed between the commit and the print.
        assert len(found) <= len(confirmed) + 1
        assert all(a.points == (1 + t % 2, 2 - t % 2) for t, a in found.items())
        total += len(confirmed)
    assert total > 10


def test_a_write_waits_for_another_process(opened: Ballots) -> None:
    number = opened.start("x").number
    with contextlib.closing(sqlite3.connect(opened.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(opened.vote, number, 0, 0, (3, 2, 1))
            assert concurrent.futures.wait([waiting], timeout=0.3).not_done
            other.execute("COMMIT")
            waiting.result(timeout=20)
    assert 0 in opened.answers(number)


def test_a_full_disk_is_told_and_stores_nothing(tmp_path: pathlib.Path) -> None:
    with contextlib.closing(ballots.begin(tmp_path, two_methods(5000))) as store:
        number = store.start("x").number
        (pages,) = store._writer.execute("PRAGMA page_count").fetchone()
        store._writer.execute(f"PRAGMA max_page_count = {pages}")
        stored, error = 0, None
        while error is None and stored < 5000:
            try:
                store.vote(number, stored, 0, (1, 2))
                stored += 1
            except StudyError as refused:
                error = str(refused)
        assert error == "the answer could not be stored: database or disk is full"
        assert sorted(store.answers(number)) == list(range(stored))
        store._writer.execute("PRAGMA max_page_count = 100000")
        store.vote(number, stored, 0, (1, 2))
        assert len(store.answers(number)) == stored + 1


def test_one_wrong_vote_does_not_take_others_along(opened: Ballots) -> None:
    number = opened.start("x").number
    opened.vote(number, 0, 0, (3, 2, 1))

    def wrong(db: sqlite3.Connection) -> None:
        db.execute("INSERT INTO answers VALUES (?, 1, 0, '[1, 2, 3]', 'now')", (number,))
        raise ConflictError("no")

    def right(db: sqlite3.Connection) -> str:
        db.execute("INSERT INTO answers VALUES (?, 2, 0, '[1, 2, 3]', 'now')", (number,))
        return "done"

    def twice(db: sqlite3.Connection) -> None:
        db.execute("INSERT INTO answers VALUES (?, 3, 0, '[1, 2, 3]', 'now')", (number,))
        db.execute("INSERT INTO answers VALUES (?, 0, 0, '[1, 2, 3]', 'now')", (number,))

    jobs = [ballots._Job(wrong), ballots._Job(twice), ballots._Job(right)]
    ballots._commit(opened._writer, jobs)
    assert isinstance(jobs[0].error, ConflictError)
    assert isinstance(jobs[1].error, StudyError)
    assert "could not be stored: UNIQUE" in str(jobs[1].error)
    assert (jobs[2].error, jobs[2].result) == (None, "done")
    assert sorted(opened.answers(number)) == [0, 2]
    assert opened.answers(number)[0].points == (3, 2, 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mode": "score"}, "began with 'rank', not with mode 'score' of now"),
        ({"seed": 8}, "began with 7, not with seed 8"),
        ({"digest": "other"}, "began with others, not with the items of now"),
        ({"methods": ("alpha", "beta", "new")}, "not with methods"),
        ({"question": "What?"}, "began with 'Which\\?', not with question 'What\\?'"),
    ],
)
def test_a_study_does_not_go_on_as_another(
    tmp_path: pathlib.Path, small: Design, change, message: str
) -> None:
    ballots.begin(tmp_path, small).close()
    with pytest.raises(StudyError, match=message):
        ballots.begin(tmp_path, dataclasses.replace(small, **change))


def test_files_that_are_no_study(tmp_path: pathlib.Path, small: Design) -> None:
    with pytest.raises(StudyError, match=r"no study at .*study\.sqlite; `serve` begins one"):
        ballots.resume(tmp_path)
    path = tmp_path / ballots.FILE
    path.write_bytes(b"something else entirely" * 100)
    for call in (lambda: ballots.resume(tmp_path), lambda: ballots.begin(tmp_path, small)):
        with pytest.raises(StudyError, match="cannot be used: file is not a database"):
            call()
    assert path.read_bytes() == b"something else entirely" * 100
    path.unlink()
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE mine (x)")
    with pytest.raises(StudyError, match="is not the file of a study"):
        ballots.begin(tmp_path, small)


def test_another_format_is_refused(tmp_path: pathlib.Path, small: Design) -> None:
    ballots.begin(tmp_path, small).close()
    with contextlib.closing(sqlite3.connect(tmp_path / ballots.FILE)) as db, db:
        db.execute("UPDATE study SET value = '9' WHERE key = 'format'")
    with pytest.raises(StudyError, match="has format 9; this version reads 1"):
        ballots.resume(tmp_path)


def test_a_folder_that_cannot_be_made(tmp_path: pathlib.Path, small: Design) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StudyError, match="cannot be written"):
        ballots.begin(tmp_path / "file" / "out", small)
