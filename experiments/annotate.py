"""Annotates a recording with the poses of its object: followed by ICP, corrected in the browser.

    python -m experiments.annotate DEST/mug_1                  # a recording in RealDex's layout
    python -m experiments.annotate DEST/bottle_3 --mesh bottle.obj
    python -m experiments.annotate DEST/mug_1 --no-browser     # first pose proposed and trusted

The first pose is proposed by registration against what stands on the table, and is accepted or set
with a gizmo in the browser; then the object is followed through all frames, and frames whose score
is low are shown for correction. A corrected frame is followed both ways to the next good one.
Writes tracking_result/gt_pose.txt and annotation.json into the recording; interrupted, it goes on.
With a robot final_data.npy, too, and models/<object>.obj beside it: `experiments.convert` makes a
dataset of them.
Exit status: 0 if no frame is flagged at the end, 1 if some are, 2 if it could not be done.
`experiments.record to-realdex` makes such recordings of ours. See docs/tracking.md.
Takes a minute for 600 frames on 2 cores, and what is corrected by hand.
"""

import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import tyro
from jaxtyping import Float
from rich.console import Console

from capture import annotation, final_data, object_model, symmetry
from capture.annotation import FILE, Annotation, Follower
from capture.device import CaptureError
from capture.moments import Moments, hand_of
from capture.tracking import TrackingConfig
from experiments import commands
from realdex_jax.data import realdex_layout, realdex_raw
from realdex_jax.data.realdex_raw import Recording
from realdex_jax.errors import ConfigError
from realdex_jax.geometry import mesh
from realdex_jax.hand.load import load
from sim import objects

if TYPE_CHECKING:
    from viewer.pose_editor import PoseEditor

_SAVED = 30
"""Frames between two writes while an object is followed."""
_SHOWN = 0.15
"""Metres about the object whose points are shown."""
_DOTS = 8192
_POINTS = 2048
"""Of the model."""


@dataclasses.dataclass(frozen=True)
class Annotate:
    """Command line of this script."""

    recording: tyro.conf.Positional[Path]
    """A recording in RealDex's layout."""
    mesh: Path | None = None
    """The object's model; by default the catalogue's object of the recording's name."""
    scale: float | None = None
    """Factor to metres for `--mesh`; metres if not given."""
    table: float | None = None
    """Height of the table in the world (m); found in the first frame if not given."""
    first: int = 0
    """Frame that the first pose is of."""
    pose: tuple[float, float, float, float, float, float, float] | None = None
    """The first pose, if it is known: tx ty tz qx qy qz qw, T_world_object."""
    browser: bool = True
    """Show first pose and flagged frames in the browser."""
    port: int = 8080
    """Port of the page, on this machine alone; 0 takes a free one."""
    replace: bool = False
    """Begin anew, and replace poses that are there."""


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
    """What is annotated."""

    recording: Recording
    moments: Moments
    follower: Follower
    vertices: Float[np.ndarray, "v 3"]
    faces: np.ndarray
    name: str


def main() -> None:
    """Command line; mistakes of the user end in one line, not a traceback."""
    config = commands.read(Annotate, __doc__)
    console, left = Console(), 0
    with commands.ending(console, "stopped; the same command goes on"):
        left = len(run(config, console).flagged())
    sys.exit(1 if left else 0)


def run(config: Annotate, console: Console) -> Annotation:
    """Annotates; returns what is known at the end.

    Args:
        config: The settings.
        console: Where progress goes.

    Raises:
        RealdexError: The recording or the mesh cannot be used, or nothing is found.
    """
    task = prepare(config)
    count = task.moments.count
    if not 0 <= config.first < count:
        raise ConfigError(f"--first {config.first}; frames are 0 to {count - 1}")
    folder = task.recording.path
    found = None if config.replace else annotation.load(folder, count)
    found = found or annotation.empty(count)
    if config.browser:
        found = _with_browser(config, task, found, console)
    else:
        if (found.origin == annotation.UNKNOWN).all():
            pose = _first(config, task, console)
            found = follow(
                task, annotation.correct(found, config.first, pose, task.follower), console
            )
        found = follow(task, annotation.resume(found, task.follower), console, found)
    for line in told(found):
        console.print(line, highlight=False)
    console.print(f"written to {folder / realdex_raw.TRACK}", highlight=False, soft_wrap=True)
    if task.moments.hand is not None:
        trusted = np.ones(count, bool)
        trusted[found.flagged()] = False
        path = final_data.write(
            task.recording, task.moments.hand, trusted, task.vertices, task.faces
        )
        console.print(
            f"and {path}: `python -m experiments.convert {folder.parent} DATASET` takes it",
            highlight=False,
            soft_wrap=True,
        )
    return found


def prepare(config: Annotate) -> Task:
    """Opens recording and mesh.

    Raises:
        RealdexError: One of them cannot be used.
    """
    if not all((config.recording / mark).exists() for mark in realdex_raw.MARKS):
        raise CaptureError(
            f"{config.recording}: no recording in RealDex's layout, a folder with "
            f"{' and '.join(realdex_raw.MARKS)}; `python -m experiments.record to-realdex` makes "
            "one of a recording of ours"
        )
    recording = Recording(config.recording)
    name = realdex_layout.spelt(recording.object_name)
    if config.mesh is not None:
        read = mesh.load_mesh(config.mesh, scale=config.scale)
        vertices, faces = np.asarray(read.vertices), np.asarray(read.faces)
    elif name.partition("@")[0] in objects.names():
        shape = objects.make(name)
        vertices, faces = shape.vertices, shape.faces
    else:
        raise ConfigError(
            f"no object {name!r} in the catalogue; name the mesh of {recording.object_name} with "
            "--mesh"
        )
    moments = Moments(recording, hand_of(recording, load("shadow")), config.table)
    follower = Follower(
        TrackingConfig(),
        moments.hand,
        object_model.make_model(vertices, faces, _POINTS),
        symmetry.find(vertices, faces),
        moments,
    )
    return Task(recording, moments, follower, vertices, faces, name)


def follow(
    task: Task, steps: Iterator[Annotation], console: Console, before: Annotation | None = None
) -> Annotation:
    """Takes all steps of a track and saves now and then, and at the end whatever happens.

    Args:
        task: What is annotated.
        steps: The annotation after each frame.
        console: Where the bar goes.
        before: What is returned if there is no step.
    """
    found, folder = before, task.recording.path
    try:
        with commands.progress(console) as bar:
            row = bar.add_task("frames followed", total=task.moments.count)
            for k, found in enumerate(steps):
                bar.advance(row)
                if k % _SAVED == _SAVED - 1:
                    annotation.save(folder, found, task.name)
    finally:
        if found is not None:
            annotation.save(folder, found, task.name)
    assert found is not None
    return found


def told(found: Annotation) -> Iterator[str]:
    """How it went, in lines."""
    flagged, by_hand = found.flagged(), int((found.origin == annotation.BY_HAND).sum())
    yield f"{len(found.origin)} frames, {by_hand} set by hand, {len(flagged)} flagged"
    if len(flagged):
        yield f"  to be looked at: {_spans(flagged)}"
    known = found.origin == annotation.FOLLOWED
    if known.any():
        yield (
            f"  score: median {np.median(found.score[known]):.2f}, least "
            f"{found.score[known].min():.2f}; details in {FILE}"
        )


def _first(config: Annotate, task: Task, console: Console) -> Float[np.ndarray, " 7"]:
    """The first pose: as told, or as proposed."""
    if config.pose is not None:
        row = np.array(config.pose)
        length = np.linalg.norm(row[3:])
        if not np.isfinite(row).all() or abs(length - 1.0) > 0.01:
            raise ConfigError(
                f"--pose: quaternion qx qy qz qw of length {length:.3g}; it must be 1, and all "
                "numbers finite"
            )
        return np.concatenate([row[6:], row[3:6], row[:3]]) / np.array([*4 * [length], 1, 1, 1])
    with console.status("looking for the object"):
        pose, cost = task.moments.propose(config.first, task.follower.model)
    console.print(
        f"frame {config.first}: proposed at {', '.join(f'{x:.3f}' for x in pose[4:])} m; "
        f"{100 * cost:.0f} % does not fit",
        highlight=False,
    )
    return pose


def _with_browser(config: Annotate, task: Task, found: Annotation, console: Console) -> Annotation:
    from viewer import pose_editor  # needs the extra

    editor = pose_editor.PoseEditor(
        f"{task.recording.path.name}: object poses",
        task.vertices,
        task.faces,
        task.moments.count,
        port=config.port,
    )
    try:
        fresh = bool((found.origin == annotation.UNKNOWN).all())
        if fresh:
            pose = _first(config, task, console)
        else:
            found = follow(task, annotation.resume(found, task.follower), console, found)
            pose = None
        frame = config.first if fresh else int(next(iter(found.flagged()), 0))
        _show(editor, task, found, frame, pose)
        editor.look(editor.pose[4:])
        console.print(
            f"{task.recording.path.name}, {task.moments.count} frames, at\n{editor.address}\n"
            "Accept sets the frame and follows from there; Done or Ctrl-C ends",
            highlight=False,
            soft_wrap=True,
        )
        for event in editor.events():
            if event.what == "frame":
                _show(editor, task, found, event.frame)
            elif event.what == "propose":
                editor.tell(f"**frame {event.frame}**: looking for the object")
                try:
                    about = event.wxyz_xyz_world_object[4:]
                    pose, cost = task.moments.propose(event.frame, task.follower.model, about)
                except CaptureError as error:
                    editor.tell(f"**frame {event.frame}**: {error}")
                    continue
                _show(editor, task, found, event.frame, pose)
                editor.tell(f"**frame {event.frame}**: proposed, {100 * cost:.0f} % does not fit")
            elif event.what == "accept":
                editor.tell(f"**frame {event.frame}** accepted; following the object")
                steps = annotation.correct(
                    found, event.frame, event.wxyz_xyz_world_object, task.follower
                )
                found = follow(task, steps, console)
                found = follow(task, annotation.resume(found, task.follower), console, found)
                flagged = found.flagged()
                later = flagged[flagged > event.frame]
                _show(editor, task, found, int([*later, *flagged, event.frame][0]))
    finally:
        editor.close()
    return found


def _show(
    editor: "PoseEditor",
    task: Task,
    found: Annotation,
    frame: int,
    pose: Float[np.ndarray, " 7"] | None = None,
) -> None:
    """Shows a frame, with its own pose or another."""
    unknown = found.origin[frame] == annotation.UNKNOWN
    known = editor.pose if unknown else found.wxyz_xyz_world_object[frame]
    placed = known if pose is None else pose
    follower = task.follower
    radius = float(follower.model.radius) + _SHOWN
    seen = task.moments(frame, placed[4:], radius, _DOTS).seen
    p = np.asarray(seen.p_world)[np.asarray(seen.free)]
    flagged = found.flagged()
    kind = ("unknown", "followed", "set by hand")[found.origin[frame]]
    words = [
        f"**frame {frame}**: {kind}{', flagged' if frame in flagged else ''}",
        f"score {found.score[frame]:.2f}",
        f"{len(flagged)} frames flagged: {_spans(flagged)}" if len(flagged) else "none flagged",
    ]
    editor.show(frame, p, placed, "\n\n".join(words), flagged)


def _spans(frames: np.ndarray) -> str:
    """Frames as text: 3, 5-9."""
    cuts = np.flatnonzero(np.diff(frames) > 1) + 1
    return ", ".join(
        f"{run[0]}" if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in np.split(frames, cuts)
    )


if __name__ == "__main__":
    main()
