"""A list of jobs outlives the processes that work on it."""

import os
import signal
import threading
import time
from multiprocessing import resource_tracker

import pytest
import small_jobs
import trimesh
from rich.console import Console

from experiments import eval_sim, workers
from realdex_jax.data import store


@pytest.fixture(autouse=True)
def checker_path(repository, monkeypatch):
    paths = os.pathsep.join(map(str, (repository, repository / "tests" / "checker")))
    monkeypatch.setenv("PYTHONPATH", paths)


def kill_first(note, seen):
    """Kills whoever has counted to three in a file."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        lines = note.read_text().splitlines() if note.exists() else []
        if len(lines) >= 3:
            seen.append(int(lines[0]))
            os.kill(seen[0], signal.SIGKILL)
            return
        time.sleep(0.005)


def test_a_killed_process_costs_only_the_job_at_hand(tmp_path):
    names, killed = ("a", "b", "c", "d", "e"), []
    killer = threading.Thread(target=kill_first, args=(tmp_path / "b", killed))
    killer.start()
    jobs = {name: (str(tmp_path), name, 12) for name in names}
    done = {d.name: d for d in workers.each(jobs, small_jobs.work, 2)}
    killer.join()
    assert set(done) == set(names)
    assert {name: d.deaths for name, d in done.items()} == {n: int(n == "b") for n in names}
    # Another process went on where the killed one stood; all others were made in one go.
    assert done["b"].value()[1] <= 12 - 3
    assert all(done[name].value() == (name, 12) for name in names if name != "b")
    for name in names:
        who = (tmp_path / name).read_text().splitlines()
        assert len(who) == 12
        assert len(set(who)) == 1 + (name == "b")
    assert str(killed[0]) not in (tmp_path / "e").read_text()


def test_a_job_that_kills_its_processes_is_given_up_and_errors_come_back(tmp_path):
    jobs = {name: (str(tmp_path), name, 1) for name in ("deadly", "wrong", "good")}
    done = {d.name: d for d in workers.each(jobs, small_jobs.work, 2)}
    assert done["good"].value() == ("good", 1)
    with pytest.raises(workers.LostJobError, match=r"deadly: 3 processes died.*exit status -9"):
        done["deadly"].value()
    with pytest.raises(ValueError, match="wrong from the start"):
        done["wrong"].value()


def test_closing_the_list_ends_what_runs(tmp_path):
    jobs = {name: (str(tmp_path), name, steps) for name, steps in (("short", 1), ("long", 2000))}
    running = workers.each(jobs, small_jobs.work, 2)
    assert next(running).name == "short"
    running.close()
    lines = len((tmp_path / "long").read_text().splitlines()) if (tmp_path / "long").exists() else 0
    time.sleep(0.2)
    assert lines == (len((tmp_path / "long").read_text().splitlines()) if lines else 0)


def test_processes_begin_deaf_to_ctrl_c_and_this_one_hears_it_again():
    def held():
        return signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())

    with workers.uninterrupted():
        resource_tracker.ensure_running()  # as the first process does
        assert held()
    assert not held()


@pytest.fixture
def two_blocks(tiny_dataset, tmp_path):
    """The tiny dataset with both of its objects in the test split."""
    tiny = store.open_dataset(tiny_dataset)
    mesh = trimesh.creation.box((0.04, 0.04, 0.1)).export(file_type="obj").encode()
    store.write_dataset(
        tmp_path / "two",
        name="two",
        version="1",
        grasps={name: tiny.grasps(name) for name in ("block", "brick")},
        splits={"train": [], "val": [], "test": ["block", "brick"]},
        recipe={},
        meshes={"block": mesh, "brick": mesh},
    )
    return tmp_path / "two"


@pytest.mark.slow  # both processes compile
def test_an_evaluation_in_two_processes_finds_what_one_finds(two_blocks, tmp_path, monkeypatch):
    for name in ("XLA_FLAGS", "OPENBLAS_NUM_THREADS", "JAX_PLATFORMS"):
        monkeypatch.setenv(name, os.environ.get(name, ""))  # a run sets these for its processes
    rows = []
    for processes in (1, 2):
        config = eval_sim.EvalSim(
            data=str(two_blocks),
            stages=("dataset",),
            grasps=3,
            out=tmp_path / str(processes),
            processes=processes,
        )
        found = eval_sim.evaluate(config, "test", Console(quiet=True))
        rows.append([(row.objects, row.metrics) for row in found.found.rows])
        names = [m.taken.entry.shape.name for m in found.measured]
        assert names == ["block", "brick"]
    assert rows[0] == rows[1]
