"""Checkpoints: the only file that knows orbax.

A run's folder holds `config.json` (what was run: configuration, revision, data digest, versions)
and `checkpoints/<step>/`. Orbax writes to a temporary name and renames, so a save that fails or is
interrupted leaves earlier ones whole; an old one is deleted only after the new one is complete.
"""

import json
import os
import shutil
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

import jax
import orbax.checkpoint as ocp
from jaxtyping import PyTree

from realdex_jax.errors import CheckpointError, TrainingError
from realdex_jax.evaluation import results
from realdex_jax.models.weights import check_shapes, flat
from realdex_jax.training import devices
from realdex_jax.training import state as states

_State = TypeVar("_State")
_KEEP = 2
_FOLDER = "checkpoints"


def save(run: str | Path, step: int, state: PyTree) -> Path:
    """Saves a state under its step, and returns when it is whole on the disk.

    Processes that train together all call this; they share the folder.

    Args:
        run: The run's folder.
        step: Number of updates made.
        state: Any tree of arrays; typed keys are fine.

    Returns:
        The checkpoint's folder.

    Raises:
        CheckpointError: The disk is full, the folder cannot be written, or the state holds numbers
            that are not finite; older checkpoints are whole.
    """
    folder = (Path(run) / _FOLDER).absolute()
    target = folder / f"{step:08d}"
    fresh = folder / f".{step:08d}.fresh"
    bad = states.not_finite(state)
    if bad:
        raise CheckpointError(
            f"step {step} is not saved under {folder}: {', '.join(bad[:3])} hold numbers that are "
            f"not finite; older checkpoints are whole"
        )
    if target.is_dir():  # a step's state is the same whenever it is reached
        return target
    first = devices.is_first()
    try:
        if first:
            folder.mkdir(parents=True, exist_ok=True)
            _sweep(folder)
            fresh.mkdir()
        devices.wait_for_all(f"{fresh} is made")
        _save_tree(fresh / "state", state)
        if first:
            shapes = {k: [list(v.shape), str(v.dtype)] for k, v in flat(state).items()}
            write_json(fresh / "shapes.json", {"step": step, "shapes": shapes})
            fresh.replace(target)
        devices.wait_for_all(f"{target} is whole")
    except (OSError, ValueError, RuntimeError) as error:
        shutil.rmtree(fresh, ignore_errors=True)
        raise CheckpointError(
            f"could not save step {step} under {folder}: {error}; older checkpoints are whole"
        ) from error
    if first:
        for old in _steps(folder)[:-_KEEP]:
            gone = folder / f".{old:08d}.gone"
            (folder / f"{old:08d}").replace(gone)  # at once, so that a kill leaves no half of it
            shutil.rmtree(gone, ignore_errors=True)
    return target


def _sweep(folder: Path) -> None:
    """Removes what saves that were killed left behind."""
    for pattern in (".*.fresh", ".*.gone"):
        for left in folder.glob(pattern):
            shutil.rmtree(left, ignore_errors=True)


def latest(run: str | Path) -> int | None:
    """Step of the newest complete checkpoint of a run, if there is one."""
    steps = _steps(Path(run) / _FOLDER)
    return steps[-1] if steps else None


def restore(run: str | Path, like: _State, step: int | None = None) -> _State:
    """Restores a state.

    Args:
        run: The run's folder.
        like: A state of the same structure, shapes and types, on the devices that the saved one
            shall lie on, however many it came from; its values are not used.
        step: Which checkpoint; the newest by default.

    Returns:
        The saved state.

    Raises:
        CheckpointError: There is none, it is damaged, or it belongs to another architecture.
    """
    step = latest(run) if step is None else step
    folder = (Path(run) / _FOLDER / f"{step or 0:08d}").absolute()
    if step is None or not folder.is_dir():
        known = ", ".join(map(str, _steps(Path(run) / _FOLDER))) or "none"
        raise CheckpointError(f"no checkpoint at {folder}; known steps: {known}")
    try:
        found = json.loads((folder / "shapes.json").read_text())["shapes"]
        shapes = {k: tuple(v[0]) for k, v in found.items()}
    except (OSError, KeyError, ValueError) as error:
        raise CheckpointError(f"{folder} is damaged: {error!r}") from error
    check_shapes(like, shapes, str(folder))
    try:
        return _restore_tree(folder / "state", like)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise CheckpointError(f"{folder} is damaged: {error!r}") from error


def describe(config: Mapping[str, Any], data_digest: str) -> dict[str, Any]:
    """What is saved beside the checkpoints: configuration, revision, data and library versions."""
    names = ("jax", "flax", "optax", "orbax-checkpoint", "grain", "numpy")
    return {
        "config": dict(config),
        "commit": results.commit(),
        "data_digest": data_digest,
        "device": str(jax.devices()[0]),
        "matmul_precision": str(getattr(jax.config, "jax_default_matmul_precision", None)),
        "versions": {name: metadata.version(name) for name in names},
    }


def claim(run: Path, described: dict[str, Any]) -> None:
    """Writes the run's description, or checks it against the one that is there.

    A continued run keeps its first description and adds where and with what it went on.

    Raises:
        TrainingError: The folder's description cannot be read, or is of another run.
    """
    path = run / "config.json"
    fresh = json.loads(json.dumps(described))
    if path.exists() and latest(run) is not None:
        try:
            old = json.loads(path.read_text())
            same = {what: old[what] == fresh[what] for what in ("config", "data_digest")}
            parts = list(old.get("continued", []))
        except (ValueError, KeyError, TypeError) as error:
            raise TrainingError(
                f"{path} is damaged ({error!r}), so {run} cannot be continued safely; choose "
                "another --run"
            ) from error
        for what, is_same in same.items():
            if not is_same:
                changed = _differences(old[what], fresh[what])
                shown = "; ".join(changed[:3])
                if len(changed) > 3:
                    shown += f"; and {len(changed) - 3} more"
                raise TrainingError(
                    f"{run} holds a run with another {what} ({shown}); give the options it was "
                    "started with, choose another --run, or remove it"
                )
        own = ("commit", "device", "versions")
        part = {"step": latest(run), **{key: fresh[key] for key in own}}
        fresh = {**old, "continued": [*parts, part]}
    if devices.is_first():
        run.mkdir(parents=True, exist_ok=True)
        write_json(path, fresh)


def _differences(old: Any, new: Any, name: str = "") -> list[str]:
    """The fields in which two descriptions differ, each with both values."""
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return [f"{name + ': ' if name else ''}{old} there, {new} now"]
    return [
        part
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
        for part in _differences(old.get(key), new.get(key), f"{name}.{key}".lstrip("."))
    ]


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Writes JSON through a temporary file, so that the file is always whole."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("w") as f:
            json.dump(value, f, indent=1)
            f.flush()
            os.fsync(f.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _steps(folder: Path) -> list[int]:
    if not folder.is_dir():
        return []
    return sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit())


def _save_tree(path: Path, state: PyTree) -> None:
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(path, state)
        checkpointer.wait_until_finished()


def _restore_tree(path: Path, like: _State) -> _State:
    with ocp.StandardCheckpointer() as checkpointer:
        return checkpointer.restore(path, jax.tree.map(ocp.utils.to_shape_dtype_struct, like))
