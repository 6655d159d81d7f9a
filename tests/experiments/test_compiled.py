"""What jobs compile is kept, for the next process, in a folder that the user may choose."""

import os
import subprocess
import sys

import jax
import pytest

from experiments import compiled

JOB = """
import jax, sys
{before}
from experiments import commands, compiled, doctor
commands.read(doctor.Doctor, "A job.", words=[])
print(jax.jit(lambda x: x + 1)(1))
"""


def run(home, before="", **environment):
    names = {compiled.FOLDER, "XDG_CACHE_HOME"}
    inherited = {name: value for name, value in os.environ.items() if name not in names}
    done = subprocess.run(
        [sys.executable, "-c", JOB.format(before=before)],
        env={
            **inherited,
            "XDG_CACHE_HOME": str(home),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            **environment,
        },
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "2\n"


def files(folder):
    return sorted(path.name for path in folder.rglob("*-cache"))


def test_what_a_job_compiles_is_there_for_the_next(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    run(tmp_path)
    kept = files(compiled.folder())
    assert kept
    run(tmp_path, before='jax.config.update("jax_raise_persistent_cache_errors", True)')
    assert files(compiled.folder()) == kept  # found, so nothing else was written


def test_jax_may_have_worked_before_the_command_line_is_read(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    run(tmp_path, before="jax.numpy.zeros(1)")
    assert files(compiled.folder())


@pytest.mark.parametrize("chosen", ["", "mine"])
def test_who_names_a_folder_decides(chosen, tmp_path):
    place = str(tmp_path / chosen) if chosen else ""
    run(tmp_path / "home", **{compiled.FOLDER: place})
    assert not (tmp_path / "home").exists()
    assert bool(files(tmp_path)) == bool(chosen)


def test_a_processor_has_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    here = compiled.folder()
    assert here == compiled.folder()
    monkeypatch.setattr(compiled.platform, "machine", lambda: "another")
    assert compiled.folder() != here


def test_room_is_made_when_little_is_left(monkeypatch):
    traced = []
    double = jax.jit(lambda x: traced.append(x) or 2 * x)
    double(1.0)
    compiled.make_room()
    double(1.0)
    assert len(traced) == 1
    monkeypatch.setattr(compiled, "_MAPPINGS", 0)
    compiled.make_room()
    assert double(2.0) == 4.0
    assert len(traced) == 2
