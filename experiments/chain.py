"""From an object to tested grasps: generation from its cloud, then a choice in physics."""

import dataclasses
import time
from collections.abc import Sequence
from typing import Literal

import jax
import numpy as np
from jaxtyping import Float

from experiments import captured, selection
from experiments.protocol import Entry, Taken
from realdex_jax import generate
from realdex_jax.data import schema
from realdex_jax.data.schema import GraspSet
from realdex_jax.generate import Candidates, GenerateConfig
from realdex_jax.geometry.shape import ObjectShape
from realdex_jax.hand.load import HandModel
from realdex_jax.models.grasp_model import GraspModel
from realdex_jax.select.local import LocalScorer
from realdex_jax.select.scorer import Task
from sim import displacement, kinect
from sim.physics import Physics

CLOUD_POINTS = 2048
"""Surface points the model is given, without normals: what a good scan brings."""
_AT_ONCE = 20

Camera = Literal["scan", "kinect", "rig"]
"""A whole surface, what one depth camera sees of it, or what the four around the table see."""


def propose(
    hand: HandModel,
    model: GraspModel,
    entry: Entry,
    stages: Sequence[str],
    *,
    seed: int,
    latents: int,
    grasps: int,
    physics: Physics,
    config: GenerateConfig | None = None,
    camera: Camera = "scan",
) -> tuple[list[Taken], dict[str, float]]:
    """Generates grasps for one object and takes some at each stage.

    Args:
        hand: The hand.
        model: A trained model.
        entry: The object.
        stages: Of "raw", "refined", "filtered", "physics", "selected".
        seed: Seed of cloud and latents.
        latents: Grasps to sample.
        grasps: Grasps to take per stage.
        physics: Constants of the physics stage.
        config: Settings of the generation.
        camera: What the model is given, see `seen`.

    Returns:
        What was taken, and the seconds spent. "raw" and "refined" are the first samples as they
        come, the same ones; "filtered" the best by the contact filter; "physics" see `tested`;
        "selected" those of all that hold that the local scorer finds most human.
    """
    candidates = generated(
        hand, model, seen(hand, entry.shape, camera, seed), latents, seed, config
    )
    seconds = dict(candidates.seconds)
    proposing = seconds["surface"] + seconds["sample"]
    # What it cost to come this far: a grasp that is thrown away cost time, too.
    spent = {
        "raw": proposing / latents * grasps,
        "refined": (proposing + seconds["refine"]) / latents * grasps,
        "filtered": sum(seconds.values()),
    }
    taken: dict[str, GraspSet] = {
        "raw": schema.take(candidates.raw, slice(grasps)),
        "refined": schema.take(candidates.refined, slice(grasps)),
        "filtered": candidates.filtered(grasps),
    }
    if "physics" in stages:
        start = time.perf_counter()
        taken["physics"] = tested(hand, entry.shape, candidates, grasps, physics)
        seconds["physics stage"] = time.perf_counter() - start
        spent["physics"] = sum(seconds.values())
    if "selected" in stages:
        start = time.perf_counter()
        pool = selection.pool(hand, entry.shape, candidates.refined, physics)
        best = selection.choose(LocalScorer(), Task(entry.shape.name), pool, grasps).best
        taken["selected"] = schema.take(pool.grasps, np.array(best, int))
        seconds["selection"] = time.perf_counter() - start
        spent["selected"] = sum(seconds.values()) - seconds.get("physics stage", 0.0)
    chosen = ("filtered", "physics", "selected")
    return [
        Taken(
            stage,
            entry,
            seed,
            taken[stage],
            ms_per_grasp=1e3 * spent[stage] / max(len(taken[stage]), 1),
            candidates=len(candidates.passed) if stage in chosen else None,
            passed=int(np.sum(candidates.passed)) if stage in chosen else None,
        )
        for stage in stages
    ], seconds


@dataclasses.dataclass(frozen=True, eq=False)
class Seen:
    """What the model is given of an object, in the object frame."""

    points: Float[np.ndarray, "n 3"]
    """The cloud, metres."""
    view: Float[np.ndarray, " 3"] | None = None
    """Where the camera was, metres, if one took all of it."""
    normals: Float[np.ndarray, "n 3"] | None = None
    """Outward unit normals, if they came with the cloud."""


def seen(hand: HandModel, shape: ObjectShape, camera: Camera, seed: int) -> Seen:
    """An object's cloud as the model is given it.

    Args:
        hand: The hand, which is not in it.
        shape: The object.
        camera: "scan": points of the whole surface. "kinect": what one virtual depth camera
            measures from a drawn place. "rig": `captured.captured`.
        seed: Of points, places, noise.
    """
    if camera == "scan":
        return Seen(shape.surface(CLOUD_POINTS, seed).points)
    if camera == "rig":
        points, normals = captured.captured(hand, shape, seed)
        return Seen(points, normals=normals)
    rng = np.random.default_rng(seed)
    T_object_camera = kinect.draw_view(shape, rng)
    points = kinect.cloud_from_view(shape, T_object_camera, rng)
    return Seen(points, np.asarray(T_object_camera.translation(), np.float64))


def generated(
    hand: HandModel,
    model: GraspModel,
    cloud: Seen,
    count: int,
    seed: int,
    config: GenerateConfig | None = None,
) -> Candidates:
    """So many grasps for what was seen, sampled, refined and judged by the contact filter."""
    key = jax.random.key(seed)
    given = {"normals": cloud.normals, "view": cloud.view, "hand": hand}
    return generate.generate(model, cloud.points, count, key, config, **given)


def tested(
    hand: HandModel,
    shape: ObjectShape,
    candidates: Candidates,
    count: int,
    physics: Physics,
) -> GraspSet:
    """The best candidates that hold the object in the still-hand test.

    Candidates are tried in the filter's order. Those that hold in all six directions come first,
    then those that hold under gravity alone; one that drops the object is never delivered, so there
    may be fewer than `count`.
    """
    six: list[int] = []
    one: list[int] = []
    order = np.asarray(candidates.order)
    for begin in range(0, len(order), _AT_ONCE):
        index = order[begin : begin + _AT_ONCE]
        phi = np.asarray(candidates.refined.phi)[index]
        moved = displacement.displacement(hand, shape, phi, physics, directions=6)
        six += index[moved.held_six].tolist()
        one += index[moved.held & ~moved.held_six].tolist()
        if len(six) >= count:
            break
    return schema.take(candidates.refined, np.array((six + one)[:count], int))
