import subprocess
import sys

import pytest
from rich.console import Console

from experiments import doctor

SECRET = "not-a-real-key-0123456789"


def test_it_runs_and_never_prints_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEMINI_API_KEY", SECRET)
    monkeypatch.setenv("COLUMNS", "160")
    done = subprocess.run(
        [sys.executable, "-m", "experiments.doctor"],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert SECRET not in done.stdout + done.stderr
    for part in doctor.CHECKS:
        assert part in done.stdout


def test_a_missing_part_says_what_works_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GEMINI_API_KEY", raising=False)
    finding = doctor.CHECKS["Gemini"]("Gemini")
    assert not finding.there
    assert "locally" in finding.without


def test_names_of_extras_survive_printing() -> None:
    console = Console(record=True, width=200)
    console.print(doctor.table([doctor.Finding("x", False, "no", "pip install '.[ros]'")]))
    assert "'.[ros]'" in console.export_text()


def test_a_module_that_breaks_on_import_is_reported_not_raised(
    monkeypatch: pytest.MonkeyPatch, tmp_path
) -> None:
    (tmp_path / "broken_part.py").write_text("raise OSError('libGL.so.1: cannot open')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    finding = doctor._module("x", "broken_part", "how to get it")
    assert not finding.there
    assert "libGL.so.1" in finding.detail


def test_a_machine_whose_opengl_is_named_but_not_there_hears_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MUJOCO_GL", "no-such-library")
    finding = doctor.CHECKS["MuJoCo"]("MuJoCo")
    assert not finding.there
    assert "MUJOCO_GL" in finding.detail
    assert "unset MUJOCO_GL" in finding.without


def test_a_check_that_fails_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(part: str) -> doctor.Finding:
        raise RuntimeError("unforeseen")

    monkeypatch.setattr(doctor, "CHECKS", {"part": fail})
    (finding,) = doctor.examine()
    assert "unforeseen" in finding.detail
    console = Console(record=True, width=120)
    console.print(doctor.table([finding]))
    assert "unforeseen" in console.export_text()
