"""The posed geometry of one hand and one object, on a table if wanted, and rays cast into it."""

import concurrent.futures
import copy
import dataclasses
import functools
import os
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from jaxtyping import Float, Int
from scipy.spatial.transform import Rotation

from realdex_jax.geometry.shape import ObjectShape
from realdex_jax.hand import kinematics
from realdex_jax.hand.load import HandModel
from sim import visuals

TOUCH = 0.004
"""Object surface this near (m) to the hand counts as touched."""
FINGER = 0.012
"""Half the thickness of a finger or more, metres."""

_HAND = (0.47, 0.52, 0.60)
_METAL = (0.70, 0.71, 0.74)
_SLEEVE = (0.36, 0.40, 0.47)
COLOURS = {
    "object": (0.95, 0.72, 0.36),
    "table": (0.80, 0.80, 0.79),
    "forearm_0": _SLEEVE,
    "forearm_1": _SLEEVE,
}
"""Colours of what is not a link."""
_MESHES, _PRIMITIVES, _THING, _SETTING = 0, 1, 2, 3
_CONTACT_SAMPLES = 1500
_TABLE = (0.34, 0.008)
"""Radius and half the thickness of the plate, metres."""
FOREARM = ((0.010, -0.240, -0.125, 0.058), (0.0, -0.105, -0.035, 0.028))
"""y, z from, z to and radius of the forearm's and the wrist's capsule in the palm, metres. Those of
`realdex_jax.arm` cover the arm, and bulge over the palm."""


@dataclasses.dataclass(frozen=True, eq=False)
class Hits:
    """What a bundle of rays from one point met."""

    geom: Int[np.ndarray, " r"]
    """Geometry index, -1 for none."""
    distance: Float[np.ndarray, " r"]
    normal: Float[np.ndarray, "r 3"]


class Stage:
    """Compiled geometry of one hand, one object and a table; one posed copy per thread."""

    def __init__(self, hand: HandModel, shape: ObjectShape) -> None:
        """Compiles; `load_stage` keeps what it makes.

        Args:
            hand: The hand; its visual meshes are shown where they are installed.
            shape: The object.
        """
        self.hand, self.shape = hand, shape
        self.model = _model(hand, shape)
        self.R, self.p = np.zeros((0, 3, 3)), np.zeros((0, 3))
        self.R_world_object, self.p_world_object = np.eye(3), np.zeros(3)
        self.p_world_table: Float[np.ndarray, " 3"] | None = None
        self.data = [mujoco.MjData(self.model) for _ in range(max(os.cpu_count() or 1, 1))]
        self.object_geom = self.model.ngeom - 1
        self.has_meshes = bool(visuals.load(hand))
        names = [self.model.geom(g).name for g in range(self.model.ngeom)]
        self.colour = np.array([link_colour(name) for name in names])
        # Body 0 is the world; links follow in order, the rest has no link.
        self.link = self.model.geom_bodyid - 1
        for g, name in enumerate(names):
            if name in COLOURS:
                self.colour[g], self.link[g] = COLOURS[name], -1

    def place(
        self,
        phi: Float[np.ndarray, " phi"],
        wxyz_xyz_world_object: Float[np.ndarray, " 7"] | None = None,
        p_world_table: Float[np.ndarray, " 3"] | None = None,
    ) -> None:
        """Moves hand, object and table.

        Args:
            phi: Pose of the hand in the world.
            wxyz_xyz_world_object: Pose of the object; by default its frame is the world.
            p_world_table: Middle of the table's top (m); without it neither table nor forearm is
                shown.
        """
        R, p = _pose_jitted(self.hand, jnp.asarray(phi, jnp.float32))
        self.R, self.p = np.asarray(R, np.float64), np.asarray(p, np.float64)
        turns, self.p_world_table = Rotation.from_matrix(self.R), p_world_table
        placed = np.eye(7)[0] if wxyz_xyz_world_object is None else wxyz_xyz_world_object
        self.p_world_object = np.asarray(placed[4:], np.float64)
        turn = Rotation.from_quat(placed[:4], scalar_first=True)
        self.R_world_object = turn.as_matrix()
        table = np.zeros(3) if p_world_table is None else p_world_table
        still = Rotation.identity()
        quaternions = Rotation.concatenate([turns, still, turn]).as_quat(scalar_first=True)
        for data in self.data:
            data.mocap_pos[:] = np.vstack([self.p, table, self.p_world_object])
            data.mocap_quat[:] = quaternions
            mujoco.mj_kinematics(self.model, data)

    def copies(self) -> Sequence["Stage"]:
        """One stage for each core, each to be placed and looked at by a thread of its own."""
        alone = [copy.copy(self) for _ in self.data]
        for one, data in zip(alone, self.data, strict=True):
            one.data = [data]
        return alone

    def outline(self) -> Float[np.ndarray, "n 3"]:
        """Points around links and object in the world, metres; all of both is near them."""
        box = np.stack(np.meshgrid(*[[-FINGER, FINGER]] * 3), axis=-1).reshape(-1, 3)
        of_object = self.shape.vertices @ self.R_world_object.T + self.p_world_object
        return np.concatenate([of_object, (self.p[:, None] + box).reshape(-1, 3)])

    def contacts(self) -> tuple[Float[np.ndarray, "k 3"], Int[np.ndarray, " k"]]:
        """What of the object's surface the hand touches.

        Returns:
            Points in the world, metres, and which link is the nearest to each.
        """
        surface = self.shape.surface(_CONTACT_SAMPLES).points
        surface = surface @ self.R_world_object.T + self.p_world_object
        distance, link = self._to_hand(surface)
        touched = np.abs(distance) < TOUCH
        return surface[touched], link[touched]

    def hand_distance(self, points: Float[np.ndarray, "r 3"]) -> Float[np.ndarray, " r"]:
        """Signed distance (m) of points in the world to the placed hand's primitives."""
        return self._to_hand(points)[0]

    def _to_hand(
        self, points: Float[np.ndarray, "r 3"]
    ) -> tuple[Float[np.ndarray, " r"], Int[np.ndarray, " r"]]:
        """Signed distances (m) to the hand, and the links that are the nearest."""
        geoms = self.hand.geoms
        nearest, of = np.full(len(points), np.inf), np.zeros(len(points), np.int64)
        for link, box, p, R, size in zip(
            geoms.link, geoms.is_box, geoms.p_link_geom, geoms.R_link_geom, geoms.size, strict=True
        ):
            local = (points - self.p[link]) @ self.R[link] - p
            local = local @ R
            if box:
                over = np.abs(local) - size
                outside = np.linalg.norm(np.maximum(over, 0.0), axis=1)
                distance = outside + np.minimum(over.max(axis=1), 0.0)
            else:
                local[:, 2] -= np.clip(local[:, 2], -size[1], size[1])
                distance = np.linalg.norm(local, axis=1) - size[0]
            nearer = distance < nearest
            nearest[nearer], of[nearer] = distance[nearer], link
        return nearest, of

    def cast(
        self, origin: Float[np.ndarray, " 3"], rays: Float[np.ndarray, "r 3"], rough: bool = False
    ) -> Hits:
        """First hits of rays from one point, spread over threads.

        `rough` meets the primitives instead of the meshes: several times faster, for everything
        but what is seen directly.
        """
        shown = _PRIMITIVES if rough or not self.has_meshes else _MESHES
        groups = np.zeros(6, np.uint8)
        groups[[shown, _THING]] = 1
        groups[_SETTING] = self.p_world_table is not None
        if len(self.data) == 1:
            return Hits(*_cast(self.model, origin, groups, self.data[0], rays))
        parts = np.array_split(rays, len(self.data))
        with concurrent.futures.ThreadPoolExecutor(len(self.data)) as pool:
            hits = list(
                pool.map(functools.partial(_cast, self.model, origin, groups), self.data, parts)
            )
        return Hits(*(np.concatenate(x) for x in zip(*hits, strict=True)))


def link_colour(name: str) -> tuple[float, float, float]:
    """Colour of a link, by its name or that of one of its geometries."""
    return _METAL if "knuckle" in name else _HAND


@functools.lru_cache(maxsize=16)
def load_stage(hand: HandModel, shape: ObjectShape) -> Stage:
    """The stage of a hand and an object, kept for the next picture of the two."""
    return Stage(hand, shape)


@functools.partial(jax.jit, static_argnums=0)
def _pose_jitted(hand: HandModel, phi: jax.Array) -> tuple[jax.Array, jax.Array]:
    links = kinematics.posed(hand, phi)
    return links.R, links.p


def _cast(
    model: mujoco.MjModel,
    origin: np.ndarray,
    groups: np.ndarray,
    data: mujoco.MjData,
    rays: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    geom = np.full(len(rays), -1, np.int32)
    distance = np.full(len(rays), -1.0)
    normal = np.zeros(3 * len(rays))
    if len(rays):
        mujoco.mj_multiRay(
            model,
            data,
            np.ascontiguousarray(origin, np.float64),
            np.ascontiguousarray(rays, np.float64).ravel(),
            groups,
            True,
            -1,
            geom,
            distance,
            normal,
            len(rays),
            mujoco.mjMAXVAL,
        )
    return geom, distance, normal.reshape(-1, 3)


def _model(hand: HandModel, shape: ObjectShape) -> mujoco.MjModel:
    """Mocap bodies: each link with its meshes and primitives, then the table, then the object."""
    spec = mujoco.MjSpec()
    meshes = visuals.load(hand)
    bodies = [spec.worldbody.add_body(name=name, mocap=True) for name in hand.link_names]
    known: set[str] = set()
    for index, visual in enumerate(meshes):
        if visual.name not in known:
            known.add(visual.name)
            _add_mesh(spec, visual.name, visual.vertices, visual.faces)
        bodies[visual.link].add_geom(
            name=f"{hand.link_names[visual.link]}_mesh_{index}",
            group=_MESHES,
            type=mujoco.mjtGeom.mjGEOM_MESH,
            meshname=visual.name,
            pos=visual.p_link_mesh,
            quat=Rotation.from_matrix(visual.R_link_mesh).as_quat(scalar_first=True),
            contype=0,
            conaffinity=0,
        )
    for g in range(len(hand.geoms.link)):
        box = bool(hand.geoms.is_box[g])
        bodies[hand.geoms.link[g]].add_geom(
            name=f"{hand.link_names[hand.geoms.link[g]]}_{g}",
            group=_PRIMITIVES,
            type=mujoco.mjtGeom.mjGEOM_BOX if box else mujoco.mjtGeom.mjGEOM_CAPSULE,
            size=np.maximum(hand.geoms.size[g], 1e-6),
            pos=hand.geoms.p_link_geom[g],
            quat=Rotation.from_matrix(hand.geoms.R_link_geom[g]).as_quat(scalar_first=True),
            contype=0,
            conaffinity=0,
        )
    for g, (y, z_from, z_to, radius) in enumerate(FOREARM):
        bodies[0].add_geom(
            name=f"forearm_{g}",
            group=_SETTING,
            type=mujoco.mjtGeom.mjGEOM_CAPSULE,
            fromto=[0.0, y, z_from, 0.0, y, z_to],
            size=[radius, 0.0, 0.0],
            contype=0,
            conaffinity=0,
        )
    spec.worldbody.add_body(name="table", mocap=True).add_geom(
        name="table",
        group=_SETTING,
        type=mujoco.mjtGeom.mjGEOM_CYLINDER,
        pos=[0.0, 0.0, -_TABLE[1]],
        size=[*_TABLE, 0.0],
        contype=0,
        conaffinity=0,
    )
    _add_mesh(spec, "object", shape.vertices, shape.faces)
    spec.worldbody.add_body(name="object", mocap=True).add_geom(
        name="object",
        group=_THING,
        type=mujoco.mjtGeom.mjGEOM_MESH,
        meshname="object",
        contype=0,
        conaffinity=0,
    )
    return spec.compile()


def _add_mesh(spec: mujoco.MjSpec, name: str, vertices: np.ndarray, faces: np.ndarray) -> None:
    """Adds a mesh that need not be closed: no hull, and inertia as of a shell."""
    spec.add_mesh(
        name=name,
        uservert=np.asarray(vertices, np.float64).ravel(),
        userface=np.asarray(faces, np.int32).ravel(),
        inertia=mujoco.mjtMeshInertia.mjMESH_INERTIA_SHELL,
    )
