"""One object followed over one scene, undisturbed or not, and how far off the poses are."""

import dataclasses
import time
from collections.abc import Mapping
from typing import Literal

import jax
import jax.numpy as jnp
import jaxlie
import numpy as np
from jaxtyping import Bool, Float
from scipy.spatial import KDTree
from scipy.spatial.transform import Rotation

from capture import observation, registration, symmetry, tracking
from capture.object_model import Model, make_model
from capture.symmetry import Symmetry
from capture.tracking import Moment, State, TrackingConfig
from experiments.tracking_scene import TrackingScene
from realdex_jax.data import rigid
from realdex_jax.geometry import shape as shapes
from realdex_jax.geometry.shape import ObjectShape
from realdex_jax.hand.load import HandModel

Disturbance = Literal["none", "teleport", "hide", "one camera"]
DISTURBANCES: tuple[Disturbance, ...] = ("none", "teleport", "hide", "one camera")
"""What is done to a scene. Teleport: at two frames the object is suddenly elsewhere, by 3 to 12 cm
and 20 to 120 degrees. Hide: nothing of it is seen for two spans, in one of which it is lifted. One
camera: from a frame on, only one is left."""

OFF = (0.01, np.deg2rad(10.0))
"""A pose farther off than this (m, rad) is lost."""
_START = (0.003, np.deg2rad(3.0))
"""Error of a pose set by hand, along and about each axis: standard deviations."""
_TELEPORTS = (25, 70)
_HIDDEN = (range(20, 28), range(66, 82))
_ALONE_FROM = 40
_HIDING = 0.015
"""Readings nearer (m) than this to the object's surface are taken away."""


@dataclasses.dataclass(frozen=True, eq=False)
class Subject:
    """What is followed."""

    model: Model
    symmetry: Symmetry
    points: Float[np.ndarray, "n 3"]
    """Spread over its surface, object frame, metres."""

    @property
    def p_object_middle(self) -> Float[np.ndarray, " 3"]:
        """Middle of the object's surface."""
        return self.symmetry.p_object_middle


@dataclasses.dataclass(frozen=True, eq=False)
class Trial:
    """What came of it; t frames."""

    way: Float[np.ndarray, " t"]
    """Distance of the object's middle from the truth, metres."""
    turn: Float[np.ndarray, " t"]
    """Angle to it, up to the object's symmetries, radians."""
    add_s: Float[np.ndarray, " t"]
    """Mean distance (m) of the surface's true points from the nearest ones of the found pose."""
    score: Float[np.ndarray, " t"]
    flagged: Bool[np.ndarray, " t"]
    cpu_s: Float[np.ndarray, " t"]
    """Processor time of each frame, of all cores, seconds."""
    wall_s: Float[np.ndarray, " t"]

    @property
    def lost(self) -> Bool[np.ndarray, " t"]:
        """Where it was."""
        return (self.way > OFF[0]) | (self.turn > OFF[1])


def subject(shape: ObjectShape) -> Subject:
    """An object of the simulation as what is followed."""
    return Subject(
        make_model(shape.vertices, shape.faces, 2048),
        symmetry.find(shape.vertices, shape.faces),
        np.asarray(shapes.sample(shape.vertices, shape.faces, 16384, seed=0)[0], np.float64),
    )


def propose(
    hand: HandModel, what: Subject, scene: TrackingScene, frame: int = 0
) -> tuple[float, float, float]:
    """Distance (m) and angle (rad) of the best proposal for a frame, and the seconds it took.

    Only where about the object is, is known: within 4 cm.
    """
    rng = np.random.default_rng(frame)
    about = _middle(what, scene.wxyz_xyz_world_object[frame]) + rng.uniform(-0.02, 0.02, 3)
    start = time.perf_counter()
    radius = float(what.model.radius) + 0.03
    moment = _moment(scene, scene.depths(frame), about, radius, frame)
    seen = observation.without(moment.seen, hand, moment.phi)
    found = registration.register(what.model, seen)
    pose = np.asarray(found.T_world_object.wxyz_xyz[0], np.float64)
    seconds = time.perf_counter() - start
    truth = scene.wxyz_xyz_world_object[frame]
    way, turn = symmetry.apart(what.symmetry, pose[None], truth[None])
    return float(way[0]), float(turn[0]), seconds


def follow(
    hand: HandModel,
    what: Subject,
    scene: TrackingScene,
    disturbance: Disturbance = "none",
    seed: int = 0,
    config: TrackingConfig | None = None,
) -> Trial:
    """Follows an object, begun as if its first pose were set by hand.

    Args:
        hand: The hand.
        what: The object.
        scene: Where it is.
        disturbance: What is done to it.
        seed: Of start and disturbance.
        config: How it is followed.
    """
    config = config or TrackingConfig()
    rng = np.random.default_rng([seed, DISTURBANCES.index(disturbance)])
    truth = scene.wxyz_xyz_world_object
    alone = sorted(scene.lenses)[int(rng.integers(len(scene.lenses)))]
    state = _begin(_displaced(what, truth[0], rng.normal(size=6) * np.repeat(_START, 3)), scene, 0)
    poses, scores, flags, cpu, wall = [], [], [], [], []
    for k in range(len(truth)):
        if disturbance == "teleport" and k in _TELEPORTS:
            now = np.asarray(state.T_world_object.wxyz_xyz, np.float64)
            state = _begin(_displaced(what, now, _leap(rng)), scene, k)
        depths = scene.depths(k)
        if disturbance == "hide" and any(k in span for span in _HIDDEN):
            depths = _hidden(what, scene, depths, truth[k])
        if disturbance == "one camera" and k >= _ALONE_FROM:
            depths = {alone: depths[alone]}
        clocks = time.process_time(), time.perf_counter()
        window = tracking.window(config, what.model, state)
        moment = _moment(scene, depths, *window, k)
        state, tracked = jax.block_until_ready(
            tracking.step(config, hand, what.model, state, moment)
        )
        cpu.append(time.process_time() - clocks[0])
        wall.append(time.perf_counter() - clocks[1])
        poses.append(np.asarray(tracked.T_world_object.wxyz_xyz, np.float64))
        scores.append(float(tracked.quality.score))
        flags.append(bool(tracked.lost))
    found = np.stack(poses)
    way, turn = symmetry.apart(what.symmetry, found, truth)
    return Trial(
        way,
        turn,
        np.array([_add_s(what, a, b) for a, b in zip(found, truth, strict=True)]),
        np.array(scores),
        np.array(flags),
        np.array(cpu),
        np.array(wall),
    )


def _begin(pose: Float[np.ndarray, " 7"], scene: TrackingScene, frame: int) -> State:
    T = jaxlie.SE3(jnp.asarray(pose, jnp.float32))
    return tracking.init(T, jnp.asarray(scene.phi[frame], jnp.float32))


def _moment(
    scene: TrackingScene,
    depths: Mapping[int, Float[np.ndarray, "_ _"]],
    about: Float[np.ndarray, " 3"],
    radius: float,
    frame: int,
) -> Moment:
    places = scene.wxyz_xyz_world_cam
    seen = observation.observe(
        depths, scene.lenses, places, about, radius, table_z=scene.table_z, seed=frame
    )
    return Moment(seen, jnp.asarray(scene.phi[frame], jnp.float32))


def _middle(what: Subject, pose: Float[np.ndarray, " 7"]) -> Float[np.ndarray, " 3"]:
    return rigid.apply(pose, what.p_object_middle[None])[0]


def _leap(rng: np.random.Generator) -> Float[np.ndarray, " 6"]:
    ways = rng.normal(size=(2, 3))
    ways /= np.linalg.norm(ways, axis=1, keepdims=True)
    sizes = [rng.uniform(0.03, 0.12), np.deg2rad(rng.uniform(20.0, 120.0))]
    return (ways * np.array(sizes)[:, None]).ravel()


def _displaced(
    what: Subject, pose: Float[np.ndarray, " 7"], off: Float[np.ndarray, " 6"]
) -> Float[np.ndarray, " 7"]:
    """A pose moved by a way (m) and turned about the object's middle (rotation vector)."""
    turned = Rotation.from_rotvec(off[3:]) * Rotation.from_quat(pose[:4], scalar_first=True)
    p = _middle(what, pose) + off[:3] - turned.apply(what.p_object_middle)
    return np.concatenate([turned.as_quat(scalar_first=True), p])


def _hidden(
    what: Subject,
    scene: TrackingScene,
    depths: Mapping[int, Float[np.ndarray, "_ _"]],
    pose: Float[np.ndarray, " 7"],
) -> dict[int, Float[np.ndarray, "_ _"]]:
    """Depth pictures without the object."""
    tree, out = KDTree(what.points), {}
    radius = float(what.model.radius) + _HIDING
    for c, depth in depths.items():
        p_cam, seen = scene.lenses[c].back_project(depth)
        T = rigid.compose(rigid.inverse(pose), scene.wxyz_xyz_world_cam[c])
        p = rigid.apply(T, p_cam)
        ball = np.linalg.norm(p - what.p_object_middle, axis=1) < radius
        gone = np.zeros(len(p), bool)
        near = tree.query(p[ball], distance_upper_bound=_HIDING)[0]
        gone[ball] = np.isfinite(near)
        rows = depth[seen]
        rows[gone] = 0.0
        left = depth.copy()
        left[seen] = rows
        out[c] = left
    return out


def _add_s(what: Subject, a: Float[np.ndarray, " 7"], b: Float[np.ndarray, " 7"]) -> float:
    moved = rigid.apply(rigid.compose(rigid.inverse(a), b), what.points[:1024])
    return float(KDTree(what.points).query(moved)[0].mean())
