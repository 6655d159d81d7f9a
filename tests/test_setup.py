"""The make targets, as far as they can be tried without installing anything."""

import os
import pathlib
import shutil
import subprocess
import sys


def test_a_missing_python_is_named(repository: pathlib.Path, tmp_path: pathlib.Path) -> None:
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy(repository / name, tmp_path)
    done = subprocess.run(
        ["make", "PYTHON=", "test"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "Python 3.11 or newer is needed" in done.stderr


def test_every_target_installs_first(repository: pathlib.Path, tmp_path: pathlib.Path) -> None:
    for name in (
        "Makefile",
        "requirements.lock",
        "requirements-bench.lock",
        "requirements-docs.lock",
        "pyproject.toml",
    ):
        shutil.copy(repository / name, tmp_path)
    for target in ("demo", "test", "check", "bench", "docs", "notebooks", "data"):
        plan = subprocess.run(
            ["make", "--no-print-directory", "-n", target],
            cwd=tmp_path,
            env={**os.environ, "MAKEFLAGS": ""},  # these tests may run under make themselves
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert plan.index("-r requirements.lock") < plan.index(
            {"check": "ruff", "test": "-m pytest", "docs": "-m sphinx"}.get(
                target, "python -m " + module(target)
            )
        )


def module(target: str) -> str:
    return {
        "demo": "experiments.demo",
        "bench": "benchmarks.run",
        "notebooks": "experiments.notebooks",
    }.get(target, "experiments.make_dataset")


def test_a_script_run_by_its_path_says_how_to_run_it(repository: pathlib.Path) -> None:
    """Beside it lies a file named as a module of the standard library, which Python finds first."""
    done = subprocess.run(
        [sys.executable, "experiments/doctor.py"],
        cwd=repository,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith("python -m experiments.NAME")
