"""Says which parts of this machine are there, and what works without the missing ones.

    python -m experiments.doctor

Needs nothing, changes nothing, sends nothing. Exit status: 0 if the default path can run here, 1 if
not.
Takes seconds.
"""

import ctypes.util
import dataclasses
import importlib.metadata
import importlib.util
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import rich.box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from experiments import commands

_IMPORT_SECONDS = 60


@dataclasses.dataclass(frozen=True)
class Doctor:
    """Command line of this script: no options."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """One part of the machine."""

    part: str
    there: bool
    detail: str
    """What was found, or why it was not."""
    without: str
    """What works without it, or how to get it."""


def main() -> None:
    """Checks every part and prints a table."""
    commands.read(Doctor, __doc__)
    console = Console()
    with commands.ending(console):
        findings = examine()
        console.print(table(findings))
    if not all(finding.there for finding in findings if finding.part in REQUIRED):
        console.print("[red]The default path misses a part; see the table.[/]")
        sys.exit(1)
    console.print("[green]make demo and make test can run here.[/]")


def examine() -> list[Finding]:
    """Looks at every part; a check that fails in an unforeseen way is a finding too."""
    findings = []
    for part, check in CHECKS.items():
        try:
            findings.append(check(part))
        except Exception as error:
            findings.append(Finding(part, False, f"check failed: {error!r}", ""))
    return findings


def table(findings: list[Finding]) -> Table:
    """The findings as a rich table."""
    out = Table(title="This machine", box=rich.box.SIMPLE_HEAD, title_justify="left")
    for heading in ("part", "", "found", "without it / how to get it"):
        out.add_column(heading, overflow="fold")
    for finding in findings:
        mark = "[green]yes[/]" if finding.there else "[yellow]no[/]"
        # Escaped: pip's [extras] would read as markup.
        without = "" if finding.there else escape(finding.without)
        out.add_row(finding.part, mark, escape(finding.detail), without)
    return out


def _python(part: str) -> Finding:
    detail = f"{platform.python_version()}, {os.cpu_count()} cores, {platform.machine()}"
    return Finding(part, sys.version_info >= (3, 11), detail, "Python 3.11 or newer is needed")


def _jax(part: str) -> Finding:
    import jax

    kinds = sorted({device.device_kind for device in jax.devices()})
    return Finding(
        part, True, f"jax {jax.__version__}: {len(jax.devices())} x {', '.join(kinds)}", ""
    )


def _accelerator(part: str) -> Finding:
    import jax

    name = jax.default_backend()
    without = (
        "everything runs on the CPU, slower; pip install 'jax[cuda12]' (or jax[cuda13]) "
        "of the same version for NVIDIA GPUs"
    )
    return Finding(part, name != "cpu", name, without)


def _mujoco(part: str) -> Finding:
    # It looks for OpenGL when it is imported, if the environment asks for it.
    imported = _module(part, "mujoco", "unset MUJOCO_GL: nothing here needs OpenGL")
    if not imported.there:
        return imported
    native, mjx = (importlib.metadata.version(name) for name in ("mujoco", "mujoco-mjx"))
    detail = f"mujoco {native}, mujoco-mjx {mjx}"
    return Finding(part, native == mjx, detail, "install both in the version of requirements.lock")


def _warp(part: str) -> Finding:
    there = importlib.util.find_spec("warp") is not None
    detail = f"warp-lang {importlib.metadata.version('warp-lang')}" if there else "not installed"
    without = "physics runs on CPU threads, also beside a GPU; pip install -e '.[mjx]'"
    return Finding(part, there, detail, without)


def _meshes(part: str) -> Finding:
    from sim import visuals

    path = visuals.find()
    detail = "in mujoco-mjx" if path else "not in this mujoco-mjx"
    return Finding(part, path is not None, detail, "pictures show the collision primitives")


def _library(*names: str) -> Callable[[str], Finding]:
    def check(part: str) -> Finding:
        found = next((hit for name in names if (hit := ctypes.util.find_library(name))), None)
        without = "not needed: pictures and depth are ray-cast"
        return Finding(part, found is not None, found or "library not found", without)

    return check


def _coacd(part: str) -> Finding:
    return _module(
        part, "coacd", "the embedded objects work; your own non-convex meshes cannot be cut"
    )


def _opencv(part: str) -> Finding:
    return _module(part, "cv2", "everything but calibration works; pip install -e '.[capture]'")


def _rclpy(part: str) -> Finding:
    return _module(
        part, "rclpy", "everything but a real robot works; source a ROS 2, or pip install '.[ros]'"
    )


def _pyk4a(part: str) -> Finding:
    return _module(
        part, "pyk4a", "recorded and virtual cameras work; its source build needs the Kinect SDK"
    )


def _gemini(part: str) -> Finding:
    # Only whether it is set: the key itself must never reach a screen or a log.
    is_set = bool(os.environ.get("GEMINI_API_KEY"))
    detail = "GEMINI_API_KEY is set" if is_set else "GEMINI_API_KEY is not set"
    return Finding(part, is_set, detail, "grasps are ranked locally, without the language model")


def _dataset(part: str) -> Finding:
    return _asset(part, "realdex_sim/dataset.json", "rebuild it: make data")


def _checkpoint(part: str) -> Finding:
    return _asset(
        part, "realdex_sim_small.safetensors", "train it: python -m experiments.demo --retrain"
    )


def _asset(part: str, name: str, without: str) -> Finding:
    path = Path(str(resources.files("realdex_jax") / "assets" / name))
    if not path.exists():
        return Finding(part, False, "not in this checkout", without)
    # A dataset is named by its index: its size is that of the folder.
    files = path.parent.rglob("*") if path.suffix == ".json" else [path]
    size = sum(file.stat().st_size for file in files if file.is_file())
    return Finding(part, True, f"{size / 1e6:.1f} MB", without)


def _module(part: str, name: str, without: str) -> Finding:
    """Imports a module in another process: a missing system library may take the process down."""
    if importlib.util.find_spec(name) is None:
        return Finding(part, False, "not installed", without)
    try:
        done = subprocess.run(
            [sys.executable, "-c", f"import {name}"],
            capture_output=True,
            text=True,
            timeout=_IMPORT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Finding(part, False, f"import took over {_IMPORT_SECONDS} s", without)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
        return Finding(part, False, f"installed, import fails: {last[0]}", without)
    return Finding(part, True, _version(name), without)


def _version(name: str) -> str:
    owners = importlib.metadata.packages_distributions().get(name) or [name]
    try:
        return importlib.metadata.version(owners[0])
    except importlib.metadata.PackageNotFoundError:
        return "version unknown"


CHECKS: dict[str, Callable[[str], Finding]] = {
    "Python": _python,
    "JAX": _jax,
    "accelerator": _accelerator,
    "MuJoCo": _mujoco,
    "embedded dataset": _dataset,
    "shipped checkpoint": _checkpoint,
    "MJX physics (warp-lang)": _warp,
    "visual hand meshes": _meshes,
    "convex decomposition": _coacd,
    "EGL": _library("EGL"),
    "OSMesa": _library("OSMesa"),
    "calibration (OpenCV)": _opencv,
    "ROS 2 (rclpy)": _rclpy,
    "Azure Kinect (pyk4a)": _pyk4a,
    "Gemini": _gemini,
}

REQUIRED = ("Python", "JAX", "MuJoCo", "embedded dataset", "shipped checkpoint")
"""Parts that `make demo` and `make test` stand on."""

if __name__ == "__main__":
    main()
