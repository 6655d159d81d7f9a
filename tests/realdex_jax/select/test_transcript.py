"""Answers on disk: whole after crashes, shared by processes, replayed without anybody."""

import os
import subprocess
import sys

import pytest

from realdex_jax.select import transcript
from realdex_jax.select.scorer import Score, Subject, Task
from realdex_jax.select.transcript import Entry, Replay, Transcript, TranscriptError

TASK = Task("mug", "drink")
SUBJECTS = [Subject(f"grasp {i}", bytes([i])) for i in range(4)]
KEYS = transcript.keys("model", TASK, SUBJECTS)


def answer(i, value=3.0, reason="", by="model"):
    return Entry(KEYS[i], SUBJECTS[i].name, Score(value, "Held well.", by, {"use": 1.5}), reason)


def test_answers_outlive_the_process_that_got_them(tmp_path):
    path = tmp_path / "new" / "folder" / "t.jsonl"
    first = Transcript(path)
    first.record([answer(0), answer(1, 4.5)])
    again = Transcript(path)
    assert len(again) == 2
    assert again.find(KEYS[1]) == Score(4.5, "Held well.", "model", {"use": 1.5})
    assert again.find(KEYS[2]) is None


def test_an_answer_belongs_to_model_task_and_picture():
    for other in (
        transcript.keys("model-2", TASK, SUBJECTS),
        transcript.keys("model", Task("mug", "pour"), SUBJECTS),
        transcript.keys("model", TASK, SUBJECTS[1:])[:1] * 4,
    ):
        assert other[0] != KEYS[0]
    renamed = [Subject("other name", one.picture) for one in SUBJECTS]
    assert transcript.keys("model", TASK, renamed) == KEYS


def test_the_first_answer_counts_for_everybody(tmp_path):
    ours, theirs = Transcript(tmp_path / "t"), Transcript(tmp_path / "t")
    ours.record([answer(0, 1.0)])
    theirs.record([answer(0, 2.0), answer(1, 3.0)])
    assert theirs.find(KEYS[0]).value == 1.0
    assert ours.find(KEYS[1]) is None
    ours.refresh()
    assert ours.find(KEYS[1]).value == 3.0
    assert len((tmp_path / "t").read_text().splitlines()) == 2


def test_half_a_last_line_is_ignored_and_cut_off(tmp_path):
    path = tmp_path / "t"
    Transcript(path).record([answer(0), answer(1)])
    whole = path.read_bytes()
    end = whole.index(b"\n") + 1
    for size in range(end, len(whole)):
        path.write_bytes(whole[:size])
        seen = Transcript(path)
        assert len(seen) == 1
        assert path.stat().st_size == size  # reading changes nothing
        seen.record([answer(2)])
        assert path.read_bytes()[:end] == whole[:end]
        assert path.read_bytes().count(b"\n") == 2
        assert len(Transcript(path)) == 2


def test_a_whole_line_that_is_none_is_an_error_that_names_it(tmp_path):
    path = tmp_path / "t"
    Transcript(path).record([answer(0)])
    good = path.read_text()
    for bad in ("nothing\n", "[]\n", "{}\n", "\n", good.replace("3.0", "7.0"), "[" * 9999 + "\n"):
        path.write_text(good + bad)
        with pytest.raises(TranscriptError, match="line 2, is none of a transcript of version 1"):
            Transcript(path)
    path.write_text(good.replace('"version": 1', '"version": 2'))
    with pytest.raises(TranscriptError, match="line 1, "):
        Transcript(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 5.5, -0.1])
def test_a_score_that_could_not_be_read_again_is_not_written(value, tmp_path):
    kept = Transcript(tmp_path / "t")
    with pytest.raises(TranscriptError, match="'grasp 1' cannot be kept"):
        kept.record([answer(0), Entry(KEYS[1], "grasp 1", Score(3.0, "", "x", {"use": value}))])
    assert len(Transcript(tmp_path / "t")) == 0


def test_places_that_cannot_be_written_are_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(TranscriptError, match="cannot write the transcript"):
        Transcript(tmp_path / "file" / "t").record([answer(0)])
    with pytest.raises(TranscriptError, match="cannot read the transcript"):
        Transcript(tmp_path)
    with pytest.raises(TranscriptError, match="no transcript at"):
        Transcript(tmp_path / "none", read_only=True)
    Transcript(tmp_path / "t").record([answer(0)])
    with pytest.raises(TranscriptError, match="for reading only"):
        Transcript(tmp_path / "t", read_only=True).record([answer(1)])


def test_replaying_gives_the_recorded_scores_and_asks_nobody(tmp_path):
    Transcript(tmp_path / "t").record([answer(0, 1.0), answer(1, 2.0, "busy", by="local")])
    replay = Replay("model", Transcript(tmp_path / "t", read_only=True))
    assert [s.value for s in replay.score(TASK, SUBJECTS[1::-1])] == [2.0, 1.0]
    assert [s.by for s in replay.score(TASK, SUBJECTS[:2])] == ["model", "local"]
    with pytest.raises(TranscriptError, match="no answer of model about 'grasp 2'"):
        replay.score(TASK, SUBJECTS)
    with pytest.raises(TranscriptError, match="no answer of other about 'grasp 0'"):
        Replay("other", Transcript(tmp_path / "t")).score(TASK, SUBJECTS[:1])


def test_a_stand_in_never_hides_that_the_model_was_not_asked(tmp_path):
    kept = Transcript(tmp_path / "t")
    kept.record([answer(0, 1.0, "busy", by="local")])
    assert kept.find(KEYS[0]) is None
    assert kept.find_stand_in(KEYS[0], "grasp 0").by == "local"
    assert kept.find_stand_in(KEYS[0], "grasp 1") is None
    kept.record([answer(0, 4.0)])
    assert Replay("model", Transcript(tmp_path / "t")).score(TASK, SUBJECTS[:1])[0].value == 4.0


WRITER = """
import pathlib, sys, time
from realdex_jax.select import transcript
from realdex_jax.select.scorer import Score, Subject, Task
kept = transcript.Transcript(pathlib.Path(sys.argv[1]))
first, count = int(sys.argv[2]), int(sys.argv[3])
go = pathlib.Path(sys.argv[1] + ".go")
print("ready", flush=True)
while not go.exists():
    time.sleep(0.001)
for i in range(first, first + count):
    subject = Subject(f"{i} " + "long " * 500, i.to_bytes(4, "big"))
    key = transcript.keys("model", Task("mug"), [subject])[0]
    kept.record([transcript.Entry(key, subject.name, Score(3.0, "Good.", "model"))])
    print(i, flush=True)
"""


def writer(path, first, count):
    given = [sys.executable, "-c", WRITER, str(path), str(first), str(count)]
    return subprocess.Popen(given, stdout=subprocess.PIPE, text=True)


def test_processes_that_write_at_once_lose_and_repeat_nothing(tmp_path):
    path = tmp_path / "t"
    writers = [writer(path, first, 200) for first in (0, 0, 0, 100)]
    for one in writers:
        assert one.stdout.readline() == "ready\n"
    (tmp_path / "t.go").touch()
    for one in writers:
        one.communicate(timeout=60)
        assert one.returncode == 0
    assert len(Transcript(path)) == 300
    assert path.read_bytes().count(b"\n") == 300


def test_killed_writers_leave_every_line_they_finished(tmp_path):
    path = tmp_path / "t"
    (tmp_path / "t.go").touch()
    done = 0
    for round_ in range(6):
        one = writer(path, 1000 * round_, 1000)
        assert one.stdout.readline() == "ready\n"
        told = [one.stdout.readline() for _ in range(3 + round_)]
        one.kill()
        told += one.stdout.read().split("\n")
        one.stdout.close()
        one.wait(timeout=60)
        done += len([line for line in told if line.strip()])
        assert len(Transcript(path)) >= done
        with path.open("ab") as file:  # what a write cut short would leave
            file.write(b'{"version": 1, "mod')
            os.fsync(file.fileno())
    Transcript(path).record([answer(0)])
    assert path.read_bytes().endswith(b"\n")
    assert len(Transcript(path)) > done
