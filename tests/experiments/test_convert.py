"""Conversion as a command: kills, damage, options, and physics before and after."""

import dataclasses
import hashlib
import json
import os
import pathlib
import pickle
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from rich.console import Console

from benchmarks.store import make
from experiments import convert, data_table, eval_sim
from experiments.convert import Convert
from experiments.eval_sim import EvalSim
from realdex_jax.data import dexgraspnet, pieces, pipeline, store
from realdex_jax.errors import ConfigError, DatasetError, RealdexError
from realdex_jax.hand.load import load
from sim import displacement

QUIET = Console(quiet=True)
CODE = "made-up-{:05d}".format
KILLS = int(os.environ.get("REALDEX_KILLS", "3"))
"""Conversions that are killed, twice each, and then finished."""
GRASPS = 4
"""Of each object at each size, whose physics are compared."""


@pytest.fixture
def source(tmp_path):
    """Six made-up objects in DexGraspNet's layout."""
    make(tmp_path / "source", objects=6, grasps=12)
    return tmp_path / "source"


def files(folder):
    return {
        p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


def start(source, dest, *words, program=("-m", "experiments.convert")):
    root = pathlib.Path(__file__).parents[2]
    return subprocess.Popen(
        [sys.executable, *program, str(source), str(dest), *words],
        cwd=root,
        start_new_session=True,
        env={**os.environ, "JAX_PLATFORMS": "cpu", "COLUMNS": "300"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run(source, dest, **settings):
    return convert.run(Convert(source, dest, **{"jobs": 1, "points": 256, **settings}), QUIET)


def test_every_object_at_every_size_is_stored(source, tmp_path):
    report = run(source, tmp_path / "out")
    data = store.open_dataset(tmp_path / "out")
    store.verify(data)
    assert report.counts == {"objects": 30, "grasps": 72, "motions": 0, "frames": 0}
    assert not report.refused
    assert data.recipe["converted_from"] == "dexgraspnet"
    assert data.recipe["source"]["replay_hand"] == "dexgraspnet"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "source"]
    parts = {n.partition("@")[0]: part for part, names in data.splits.items() for n in names}
    for part, names in data.splits.items():
        assert all(parts[name.partition("@")[0]] == part for name in names)
    # Training finds all that it needs.
    batch = pipeline.batches(pipeline.Stored(data, "train"), pipeline.Sampling(objects=2), 0)[0]
    assert np.isfinite(batch.phi).all()


def test_the_row_of_a_converted_dataset_is_counted_off_its_files(source, tmp_path, monkeypatch):
    report = run(source, tmp_path / "out", name="made up")
    total, *parts = data_table.table(report.dataset).splitlines()[2:]
    assert total == ("| made up 1 | shadow | dexgraspnet | 30 | 72 | 2.4 | 0 | 0 | 0.00 |")
    assert [part.split("|")[1].strip() for part in parts] == list(report.dataset.splits)
    assert sum(int(part.split("|")[4]) for part in parts) == 30
    assert sum(int(part.split("|")[5]) for part in parts) == 72
    document = tmp_path / "page.md"
    document.write_text("<!-- data:begin -->\n<!-- data:end -->\n")
    words = ["--data", str(tmp_path / "out"), "--into", str(document)]
    monkeypatch.setattr(sys, "argv", ["data_table", *words])
    data_table.main()
    assert total in document.read_text()


def test_the_number_of_processes_changes_nothing(source, tmp_path):
    run(source, tmp_path / "a", name="same")
    done = start(source, tmp_path / "b", "--jobs", "2", "--points", "256", "--name", "same")
    assert done.communicate()[0].count("72 grasps") == 1
    assert done.returncode == 0
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_a_run_killed_between_units_goes_on_and_gives_the_same_bytes(source, tmp_path, monkeypatch):
    run(source, tmp_path / "whole", name="same")
    real, count = convert.conversion.convert, []

    def dies(*arguments):
        count.append(arguments)
        if len(count) == 8:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(convert.conversion, "convert", dies)
    with pytest.raises(KeyboardInterrupt):
        run(source, tmp_path / "out", name="same")
    monkeypatch.undo()
    work = tmp_path / ".out.work"
    assert len(list((work / "records").iterdir())) == 7
    # Half a file, and a file without a record, as a kill leaves them.
    (work / "fresh" / "1.2").write_bytes(b"half")
    (work / "data" / "objects" / "torn").mkdir()
    (work / "data" / "objects" / "torn" / "mesh.obj").write_bytes(b"v 0 0")
    assert not (tmp_path / "out").exists()
    run(source, tmp_path / "out", name="same")
    assert files(tmp_path / "whole") == files(tmp_path / "out")
    assert not work.exists()


@pytest.mark.slow
@pytest.mark.parametrize("jobs", ["1", pytest.param("2", marks=pytest.mark.long)])
def test_kill_at_any_moment_then_restart_gives_the_same_bytes(tmp_path, jobs):
    make(tmp_path / "source", objects=60, grasps=60)
    words = ("--jobs", jobs, "--name", "same")
    begun = time.perf_counter()
    done = start(tmp_path / "source", tmp_path / "whole", *words)
    done.communicate()
    took = time.perf_counter() - begun
    assert done.returncode == 0
    expected = files(tmp_path / "whole")
    rng = np.random.default_rng(int(jobs))
    seen, out = 0, tmp_path / "out"
    for share in rng.uniform(0.3, 1.02, KILLS):
        shutil.rmtree(out, ignore_errors=True)
        shutil.rmtree(tmp_path / ".out.work", ignore_errors=True)
        for again in (share, share / 2):  # killed, started again, and killed again
            process = start(tmp_path / "source", out, *words)
            time.sleep(again * took)
            process.send_signal(signal.SIGKILL)
            process.communicate()
            records = tmp_path / ".out.work" / "records"
            seen += records.is_dir() and 0 < len(list(records.iterdir())) < 300
        last = start(tmp_path / "source", out, *words)
        text, _ = last.communicate()
        assert last.returncode == 0, text
        assert files(out) == expected
        left = {p.name for p in tmp_path.iterdir()}
        assert left == {"source", "whole", "out"}
    assert seen >= KILLS // 2  # kills in the middle, not only before and after


# Ends itself without a word, as a power cut does, at the moment named.
KILLED = """
import os, pathlib, runpy, shutil, signal
replace, rmtree = pathlib.Path.replace, shutil.rmtree

def kill(when):
    if when == os.environ["KILL_AT"]:
        os.kill(os.getpid(), signal.SIGKILL)

def replaced(self, target):
    kill("between the renames" if self.name == "data" else "")
    return replace(self, target)

def removed(path, *given, **named):
    kill("before the work is removed" if str(path).endswith(".work") else "")
    return rmtree(path, *given, **named)

if __name__ == "__main__":
    pathlib.Path.replace, shutil.rmtree = replaced, removed
    runpy.run_module("experiments.convert", run_name="__main__", alter_sys=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("when", ["between the renames", "before the work is removed"])
def test_a_kill_at_the_end_leaves_one_whole_dataset(source, tmp_path, monkeypatch, when):
    run(source, tmp_path / "whole", name="same")
    run(source, tmp_path / "out", name="old", limit=5)  # one that is replaced
    monkeypatch.setenv("KILL_AT", when)
    words = ("--jobs", "1", "--points", "256", "--name", "same")
    process = start(source, tmp_path / "out", *words, program=("-c", KILLED))
    text, _ = process.communicate()
    assert process.returncode == -signal.SIGKILL, text
    there = store.open_dataset(tmp_path / "out")  # puts the old one back, if need be
    store.verify(there)
    assert there.name == ("old" if when == "between the renames" else "same")
    run(source, tmp_path / "out", name="same")
    assert files(tmp_path / "out") == files(tmp_path / "whole")
    assert {p.name for p in tmp_path.iterdir()} == {"source", "whole", "out"}


@pytest.mark.slow
def test_two_processes_killed_at_work_leave_work_that_goes_on(tmp_path):
    make(tmp_path / "source", objects=20, grasps=12)
    run(tmp_path / "source", tmp_path / "whole", name="same", points=64)
    records = tmp_path / ".out.work" / "records"
    words = ("--jobs", "2", "--points", "64", "--name", "same")
    process = start(tmp_path / "source", tmp_path / "out", *words)
    while process.poll() is None and not (records.is_dir() and any(records.iterdir())):
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)  # the processes of its pool, too
    process.communicate()
    done = len(list(records.iterdir()))
    assert 0 < done < 100
    run(tmp_path / "source", tmp_path / "out", name="same", points=64)
    assert files(tmp_path / "out") == files(tmp_path / "whole")


# A test run in the background may have been told to ignore Ctrl-C, and children inherit that.
HEARD = """
import runpy, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
runpy.run_module("experiments.convert", run_name="__main__", alter_sys=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_ctrl_c_ends_in_one_line_and_the_same_command_goes_on(tmp_path, jobs):
    make(tmp_path / "source", objects=20, grasps=12)
    run(tmp_path / "source", tmp_path / "whole", name="same", points=64)
    records = tmp_path / ".out.work" / "records"
    words = ("--jobs", jobs, "--points", "64", "--name", "same")
    process = start(tmp_path / "source", tmp_path / "out", *words, program=("-c", HEARD))
    while process.poll() is None and not (records.is_dir() and any(records.iterdir())):
        time.sleep(0.01)
    # To all processes of the terminal's group, as a terminal does.
    os.killpg(process.pid, signal.SIGINT)
    text, _ = process.communicate(timeout=60)
    assert process.returncode == 130, text
    assert "stopped; the same command goes on where this one was" in text
    assert "Traceback" not in text
    assert not (tmp_path / "out").exists()
    done = len(list(records.iterdir()))
    assert 0 < done < 100
    before = {p.name: p.stat().st_mtime_ns for p in records.iterdir()}
    kept = {}
    real = convert._finish

    def finish(*given):
        kept.update((p.name, p.stat().st_mtime_ns) for p in records.iterdir())
        return real(*given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convert, "_finish", finish)
        run(tmp_path / "source", tmp_path / "out", name="same", points=64)
    assert before.items() <= kept.items()  # what was finished was not done again
    assert files(tmp_path / "out") == files(tmp_path / "whole")
    assert {p.name for p in tmp_path.iterdir()} == {"source", "whole", "out"}


class Runs:
    def __init__(self, place):
        self.place = place

    def __reduce__(self):
        return os.mkdir, (str(self.place),)


def damage(source, tmp_path):
    """Spoils five of the six objects, each in another way; returns what must be said."""
    dataset = source / "dataset"
    torn, hostile, other = (dataset / f"{CODE(i)}.npy" for i in (0, 1, 2))
    for path in (torn, hostile, other, dataset / f"{CODE(4)}.npy"):
        content = path.read_bytes()
        path.unlink()  # a link to the same file under another name
        path.write_bytes(content)
    torn.write_bytes(torn.read_bytes()[:-400])
    header = hostile.read_bytes()[:128]
    hostile.write_bytes(header + pickle.dumps([Runs(tmp_path / "ran")]))
    other.write_bytes(other.read_bytes().replace(b"\x93NUMPY\x01", b"\x93NUMPY\x09"))
    dexgraspnet.mesh_path(source, CODE(3)).unlink()
    np.save(dataset / f"{CODE(4)}.npy", np.array([{"scale": 12.5, "qpos": {}}], dtype=object))
    return {
        CODE(0): rf"DatasetError: {torn}: ",
        CODE(1): rf"UnsafePickleError: {hostile}: the pickle asks for posix\.mkdir",
        CODE(2): rf"DatasetError: {other}: not a \.npy file \(version",
        CODE(3): rf"MeshError: {source / 'meshdata' / CODE(3)}.*no such mesh",
        CODE(4): rf"DatasetError: {dataset / CODE(4)}\.npy, grasp 0: 'qpos' misses",
    }


def test_bad_units_are_refused_by_name_and_the_rest_converts(source, tmp_path, capsys):
    said = damage(source, tmp_path)
    report = run(source, tmp_path / "out")
    assert report.counts["objects"] == 5
    assert {unit.partition("@")[0] for unit in report.refused} == set(said)
    for unit, reason in report.refused.items():
        assert re.match(said[unit.partition("@")[0]], reason), reason
    assert not (tmp_path / "ran").exists()
    data = store.open_dataset(tmp_path / "out")
    store.verify(data)
    assert data.recipe["refused"] == dict(report.refused)
    assert {name.partition("@")[0] for name in data.objects} == {CODE(5)}


def test_the_exit_code_and_the_last_lines_tell(source, tmp_path, monkeypatch, capsys):
    damage(source, tmp_path)
    words = [str(source), str(tmp_path / "out"), "--jobs", "1", "--points", "64"]
    monkeypatch.setattr(sys, "argv", ["convert", *words])
    monkeypatch.setenv("COLUMNS", "300")
    with pytest.raises(SystemExit) as end:
        convert.main()
    assert end.value.code == 1
    text = capsys.readouterr().out
    text = " ".join(text.split())
    assert "25 units refused" in text
    assert f"{CODE(0)}@0.060: DatasetError: {source}" in text
    assert "and 13 more, in" in text
    shutil.rmtree(source / "meshdata")
    monkeypatch.setattr(sys, "argv", ["convert", str(source), str(tmp_path / "b"), "--jobs", "1"])
    with pytest.raises(SystemExit) as end:
        convert.main()
    assert end.value.code == 2
    assert "nothing of" in capsys.readouterr().out
    assert not (tmp_path / "b").exists()


def test_work_of_other_settings_and_of_others_is_not_touched(source, tmp_path, monkeypatch):
    monkeypatch.setattr(convert, "_finish", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(source, tmp_path / "out")
    monkeypatch.undo()
    with pytest.raises(DatasetError, match=r"other settings \(points\); .* --fresh"):
        run(source, tmp_path / "out", points=300)
    assert len(list((tmp_path / ".out.work" / "records").iterdir())) == 30
    claim = json.loads((tmp_path / ".out.work" / "claim.json").read_text())
    with (
        convert._claimed(tmp_path / ".out.work", claim, False),
        pytest.raises(DatasetError, match="another conversion is at work"),
    ):
        run(source, tmp_path / "out")
    report = run(source, tmp_path / "out", points=300, fresh=True)
    assert report.dataset.recipe["points"] == 300
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes").write_text("mine")
    with pytest.raises(DatasetError, match="neither an empty folder nor a dataset"):
        run(source, tmp_path / "mine")


def test_units_whose_files_changed_since_are_converted_again(source, tmp_path, monkeypatch):
    monkeypatch.setattr(convert, "_finish", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(source, tmp_path / "out", name="same")
    monkeypatch.undo()
    path = source / "dataset" / f"{CODE(1)}.npy"
    content = path.read_bytes()
    path.unlink()  # a link to the same file under another name
    path.write_bytes(content)
    os.utime(path, ns=(10**18, 10**18))
    reads, real = [], dexgraspnet.DexGraspNet.read
    monkeypatch.setattr(
        dexgraspnet.DexGraspNet, "read", lambda self, unit: reads.append(unit) or real(self, unit)
    )
    run(source, tmp_path / "out", name="same")
    assert {unit.partition("@")[0] for unit in reads} == {CODE(1)}
    run(source, tmp_path / "whole", name="same")
    assert files(tmp_path / "out") == files(tmp_path / "whole")


def test_units_with_files_left_out_are_tried_again(source, tmp_path, monkeypatch):
    real = dexgraspnet.DexGraspNet.read

    def lacks(self, unit):
        return dataclasses.replace(real(self, unit), notes=("left out: half.npz: cut off",))

    monkeypatch.setattr(dexgraspnet.DexGraspNet, "read", lacks)
    monkeypatch.setattr(convert, "_finish", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(source, tmp_path / "out", limit=2)
    monkeypatch.undo()  # mended
    assert not run(source, tmp_path / "out", limit=2).left_out


def test_options_are_read_and_checked(source, tmp_path):
    found = convert.parse_options(["a=1", "b=[0.5]", "c=text", "d=~/x", "e=true"])
    assert found["a"] == 1
    assert found["b"] == [0.5]
    assert found["c"] == "text"
    assert found["d"] == str(pathlib.Path.home() / "x")
    assert found["e"] is True
    for bad in (["a"], ["=1"], ["a=1", "a=2"]):
        with pytest.raises(ConfigError, match="expected NAME=VALUE"):
            convert.parse_options(bad)
    sizes = "scales=[0.06, 0.08, 0.1, 0.12, 0.15, 0.2]"
    report = run(source, tmp_path / "out", option=(sizes,), limit=6)
    assert report.empty == ("made-up-00000@0.200",)
    # Sizes in the files that are not asked for are not lost in silence.
    with pytest.raises(DatasetError, match=r"grasps at sizes 0\.1, 0\.12, 0\.15"):
        run(source, tmp_path / "few", option=("scales=[0.06, 0.08]",))


@pytest.mark.parametrize("names", [("same", "same"), ("Same", "same")])
def test_a_source_that_calls_two_units_alike_is_refused(source, tmp_path, monkeypatch, names):
    read = dexgraspnet.DexGraspNet.read

    def alike(self, unit):
        found = read(self, unit)
        return type(found)(names["@0.080" in unit], found.grasps, mesh=found.mesh)

    monkeypatch.setattr(dexgraspnet.DexGraspNet, "read", alike)
    with pytest.raises(DatasetError, match=r"units '.*@0\.\d+' and '.*@0\.\d+' are both '[Ss]ame'"):
        run(source, tmp_path / "out")


@pytest.fixture(scope="module")
def converted(shared, tmp_path_factory):
    root = shared / "data" / "dexgraspnet"
    if not root.is_dir():
        pytest.skip("no DexGraspNet sample at ../shared/data/dexgraspnet")
    out = tmp_path_factory.mktemp("real") / "dexgraspnet"
    return root, convert.run(Convert(root, out, jobs=1), QUIET)


def test_the_real_sample_converts(converted):
    root, report = converted
    assert not report.refused
    data = report.dataset
    store.verify(data)
    count = sum(
        len(s.grasps) for code in dexgraspnet.codes(root) for s in dexgraspnet.read(root, code)
    )
    beyond = sum(int(note.split()[0]) for notes in data.recipe["notes"].values() for note in notes)
    assert count == 700
    assert report.counts["grasps"] == count - beyond
    assert 0 < beyond < 0.1 * count


def test_shapes_of_the_store_are_those_of_the_source(converted):
    root, report = converted
    for code in dexgraspnet.codes(root):
        for scaled in dexgraspnet.read(root, code):
            name = scaled.shape.name
            found = pieces.read_shape(report.dataset.path / "objects" / name / "mesh.obj", name)
            assert found is not None
            np.testing.assert_array_equal(found.vertices, scaled.shape.vertices)
            for a, b in zip(found.pieces, scaled.shape.pieces, strict=True):
                np.testing.assert_array_equal(a, b)
            surface = report.dataset.surface(name)
            assert np.abs(scaled.shape.piece_distance(surface.points).min(axis=1)).max() < 3e-4


@pytest.mark.slow
def test_physics_of_the_store_is_that_of_the_source(converted, tmp_path, monkeypatch):
    """Every object at every size, by the command that judges grasps."""
    root, report = converted
    data, found = report.dataset, {}
    real = displacement.displacement

    def physics_alone(hand, shape, phi, *given, **named):
        found[shape.name] = (phi, real(hand, shape, phi, *given, **named))
        raise RealdexError("what follows compiles for seconds, and is not physics")

    monkeypatch.setattr(displacement, "displacement", physics_alone)
    for split, names in data.splits.items():
        if names:
            config = EvalSim(
                str(data.path), split, stages=("dataset",), grasps=GRASPS, out=tmp_path / split
            )
            with pytest.raises(RealdexError, match="no object is left"):
                eval_sim.evaluate(config, "test", QUIET)
    assert len(found) == 15
    hand = load("dexgraspnet")
    held = []
    for code in dexgraspnet.codes(root):
        for scaled in dexgraspnet.read(root, code):
            phi, stored = found[scaled.shape.name]
            source = np.asarray(scaled.grasps.phi, np.float32)
            rows = [int(np.flatnonzero((source == one).all(axis=1))[0]) for one in phi]
            expected = real(hand, scaled.shape, source[rows], directions=6)
            np.testing.assert_array_equal(stored.held, expected.held)
            np.testing.assert_array_equal(stored.held_six, expected.held_six)
            np.testing.assert_array_equal(stored.d_0146_cm, expected.d_0146_cm)
            held.append(stored.held)
    assert 0.0 < np.concatenate(held).mean() <= 1.0


def test_nothing_but_a_dataset_of_ours_is_replaced(source, tmp_path):
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "dataset.json").write_text('{"labels": []}')
    (theirs / "picture").write_text("kept")
    with pytest.raises(DatasetError, match="nor a dataset of ours"):
        run(source, theirs)
    run(source, tmp_path / "ours", limit=1)
    (tmp_path / "ours" / "NOTES.md").write_text("kept")
    with pytest.raises(DatasetError, match=r"NOTES\.md in it is none of its files"):
        run(source, tmp_path / "ours", limit=1)
    with pytest.raises(DatasetError, match="lies inside the dataset"):
        run(source, tmp_path / "ours" / "more", limit=1)
    assert (theirs / "picture").read_text() == "kept"
    (tmp_path / "ours" / "NOTES.md").unlink()
    assert run(source, tmp_path / "ours", limit=2).counts["objects"] >= 1


def test_a_source_is_not_replaced_by_what_is_made_of_it(source, tmp_path):
    with pytest.raises((ConfigError, DatasetError)):
        run(source, source.parent)
    with pytest.raises((ConfigError, DatasetError)):
        run(source, source)
    assert len(list((source / "dataset").iterdir())) == 6


def test_work_in_which_nothing_was_finished_does_not_stay(source, tmp_path):
    damage(source, tmp_path)
    with pytest.raises(DatasetError, match="nothing of"):
        run(source, tmp_path / "out", limit=5)
    assert not (tmp_path / ".out.work").exists()
