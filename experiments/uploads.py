"""From a mesh that somebody sends to tested grasps with explanations."""

import dataclasses
import functools
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from experiments import chain, explained, selection
from realdex_jax.data import schema
from realdex_jax.errors import ConfigError, MeshError
from realdex_jax.geometry import mesh
from realdex_jax.hand.load import HandModel
from realdex_jax.models import grasp_model
from realdex_jax.models.grasp_model import GraspModel
from realdex_jax.select.local import LocalScorer
from realdex_jax.select.scorer import Task
from sim import meshes
from viewer import tableau
from viewer.export import file_stem
from viewer.tableau import Exhibit
from viewer.uploads import Make, Tell
from viewer.words import plain

COUNT = 64
"""Grasps that are proposed for a mesh."""
TOP = 12
"""Grasps that are shown of it, at most."""
_SEED = 0


def maker(hand: HandModel, model: str, count: int = COUNT, top: int = TOP) -> Make:
    """What makes grasps for a mesh, with a model by name or file; the first mesh has it read."""
    read = functools.cache(lambda: grasp_model.load_model(model))
    return functools.partial(grasps, hand, read, count=count, top=top)


def grasps(
    hand: HandModel,
    model: Callable[[], GraspModel],
    name: str,
    content: bytes,
    scale: float,
    tell: Tell,
    *,
    count: int = COUNT,
    top: int = TOP,
) -> Exhibit:
    """Reads and repairs a mesh, proposes grasps, tests them in physics and chooses the best.

    Args:
        hand: The hand.
        model: Reads a trained model; called once the mesh is known to be good.
        name: Of the file; its suffix says of which kind it is, and it is nobody's path.
        content: Of the file.
        scale: Factor to metres.
        tell: Told what is done.
        count: Grasps that are proposed.
        top: Most grasps that are shown.

    Raises:
        MeshError: The mesh cannot be used, or no grasp holds the object.
        ConfigError: It is of no kind that can be read.
    """
    suffix = Path(name).suffix.lower()
    if suffix not in mesh.SUFFIXES:
        raise ConfigError(f"{name!r}: known kinds of meshes are {', '.join(mesh.SUFFIXES)}")
    label = file_stem(Path(name).stem) or "mesh"
    tell(f"reading {label}, closing it and splitting it into convex pieces", 0.05)
    with tempfile.TemporaryDirectory(prefix="realdex_view_") as folder:
        path = Path(folder) / f"mesh{suffix}"
        path.write_bytes(content)
        try:
            read = meshes.import_mesh(path, name=label, scale=scale)
        except MeshError as error:  # the folder's name says nothing to whoever sent it
            raise MeshError(str(error).replace(str(path), label)) from error
    shape = read.shape
    size = " x ".join(f"{1000 * side:.0f}" for side in np.ptp(shape.bounds, axis=0))
    tell(f"{label}, {size} mm: proposing and refining {count} grasps", 0.25)
    made = chain.generated(hand, model(), chain.seen(hand, shape, "scan", _SEED), count, _SEED)
    tell(f"{label}: {count} grasps tested in physics, in six directions", 0.65)
    pool = selection.pool(hand, shape, made.refined)
    if not len(pool):
        raise MeshError(
            f"{label}, {size} mm: none of {count} grasps holds it; is the unit right, and is it "
            "a thing for one hand?"
        )
    tell(f"{label}: scoring the {len(pool)} that hold", 0.92)
    chosen = selection.choose(LocalScorer(), Task(label.replace("_", " ")), pool, top)
    best = np.array(chosen.best, int)
    columns = {"score": np.array([chosen.scores[i].value for i in best], np.float32)}
    shown = schema.take(pool.grasps, best)
    found = "".join(f"\n\n{plain(text)}" for text in read.notable)
    notes = [
        f"{text}\n\n{len(pool)} of {count} grasps hold{found}"
        for text in explained.of_scores(chosen.scores, chosen.best)
    ]
    thing = tableau.make_thing(label, shape.vertices, shape.faces)
    tell("done", 1.0)
    return Exhibit(thing, grasps=dataclasses.replace(shown, columns=columns), notes=tuple(notes))
