"""What a viewer shows, without the viewer: solids, clouds, colours, and where everything is."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
import trimesh
from jaxtyping import Array, Float, Int, UInt8
from scipy.spatial.transform import Rotation

from realdex_jax.data.motion import Motion
from realdex_jax.data.object_files import Surface
from realdex_jax.data.schema import GraspSet
from realdex_jax.errors import RealdexError
from realdex_jax.hand import kinematics
from realdex_jax.hand.load import HandModel
from realdex_jax.losses import contact
from sim import robot_meshes, stage

POINTS = 4096
"""Points of a cloud that is sampled here: about 3 mm apart on a bottle."""
AT_ORIGIN: Float[np.ndarray, " 7"] = np.eye(7)[0]
"""An object whose frame is the world."""

Posture = Literal["grasp", "pre-grasp", "squeeze"]
POSTURES: tuple[Posture, ...] = get_args(Posture)

_RAMP = np.array(
    [
        [0.16, 0.22, 0.62],
        [0.18, 0.58, 0.78],
        [0.62, 0.83, 0.50],
        [0.98, 0.78, 0.25],
        [0.85, 0.1, 0.12],
    ]
)
"""Colours of the contact values 0, 1/4, 1/2, 3/4 and 1."""
_PLAIN = (0.30, 0.33, 0.38)
_CREASE = np.deg2rad(35.0)
"""Faces that meet at a larger angle have an edge between them."""
_RISE = 0.42
"""Height of the viewpoint over its distance to the side."""
_MARGIN = 1.15


class ViewError(RealdexError):
    """Something that cannot be shown."""


@dataclasses.dataclass(frozen=True, eq=False)
class Solid:
    """A mesh of one colour, fixed to a link."""

    name: str
    """Name of the link."""
    link: int
    """Index of the link in the hand."""
    vertices: Float[np.ndarray, "v 3"]
    """In the link's frame, metres."""
    faces: Int[np.ndarray, "f 3"]
    colour: UInt8[np.ndarray, " 3"]


@dataclasses.dataclass(frozen=True, eq=False)
class Thing:
    """An object as it is shown; without a mesh, only its cloud is."""

    name: str
    vertices: Float[np.ndarray, "v 3"]
    """In the object's frame, metres."""
    faces: Int[np.ndarray, "f 3"]
    points: Float[np.ndarray, "n 3"]
    """Its cloud, in the object's frame, metres."""
    normals: Float[np.ndarray, "n 3"]
    """Outward unit normals at these, or zeros."""


@dataclasses.dataclass(frozen=True, eq=False)
class Exhibit:
    """One object and what hands do with it: grasps in its frame, or motions in the world."""

    thing: Thing
    grasps: GraspSet | None = None
    motions: tuple[Motion, ...] | None = None
    notes: tuple[str, ...] | None = None
    """Of each grasp what a selection said, Markdown."""

    def __len__(self) -> int:
        """Number of grasps or motions."""
        shown = self.grasps if self.motions is None else self.motions
        return 0 if shown is None else len(shown)


@dataclasses.dataclass(frozen=True, eq=False)
class Collection:
    """Exhibits by the name of their object, opened one at a time."""

    title: str
    names: tuple[str, ...]
    open: Callable[[str], Exhibit]
    """Reads the exhibit of a name."""
    moving: bool = False
    """Whether they are motions."""
    hand: str = "shadow"
    """Name of the hand that they were made with."""


@dataclasses.dataclass(frozen=True, eq=False)
class Moment:
    """Where everything is at one time."""

    wxyz_xyz_world_link: Float[np.ndarray, "l 7"]
    """Quaternion wxyz and position (m) of each link."""
    wxyz_xyz_world_object: Float[np.ndarray, " 7"]
    contact: Float[np.ndarray, " n"]
    """Contact value of each point of the cloud, 0 to 1."""


@dataclasses.dataclass(frozen=True, eq=False)
class Viewpoint:
    """Where a camera is and what it looks at; world z is up in the picture."""

    p_world: Float[np.ndarray, " 3"]
    p_world_target: Float[np.ndarray, " 3"]


def open_exhibit(collection: Collection, wanted: str | None = None) -> tuple[Exhibit, str]:
    """The exhibit of an object, by default the first, and its name.

    Raises:
        ViewError: No object of this name, or nothing to see of it.
        RealdexError: It cannot be read.
    """
    if not collection.names:
        raise ViewError(f"{collection.title}: nothing to show")
    name = collection.names[0] if wanted is None else wanted
    if name not in collection.names:
        known = ", ".join(collection.names)
        raise ViewError(f"no object {name!r} in {collection.title}; known: {known}")
    exhibit = collection.open(name)
    if not len(exhibit):
        raise ViewError(f"{name}: no grasp and no motion to show")
    return exhibit, name


def make_thing(
    name: str,
    vertices: Float[np.ndarray, "v 3"] | None,
    faces: Int[np.ndarray, "f 3"] | None,
    surface: Surface | None = None,
) -> Thing:
    """An object from its mesh, its cloud, or both.

    Args:
        name: Its name.
        vertices: Of the mesh, metres.
        faces: Of the mesh.
        surface: The cloud; by default `POINTS` points of the mesh, always the same.

    Raises:
        ViewError: Neither mesh nor cloud.
    """
    if vertices is None or faces is None:
        if surface is None:
            raise ViewError(f"{name}: neither a mesh nor points, so there is nothing to show")
        vertices, faces = np.zeros((0, 3)), np.zeros((0, 3), np.int64)
    elif surface is None:
        mesh = trimesh.Trimesh(vertices, faces, process=False)
        points, face = trimesh.sample.sample_surface(mesh, POINTS, seed=0)[:2]
        surface = Surface(np.asarray(points), np.asarray(mesh.face_normals)[face])
    return Thing(
        name,
        np.asarray(vertices, np.float64),
        np.asarray(faces, np.int64),
        np.asarray(surface.points, np.float64),
        np.asarray(surface.normals, np.float64),
    )


@functools.cache
def hand_solids(hand: HandModel, forearm: bool = False) -> tuple[Solid, ...]:
    """A mesh for every link that has a shape.

    Args:
        hand: The hand; its visual meshes where they are installed, else its primitives.
        forearm: Whether the palm carries a forearm, as it does over a table.
    """
    parts: dict[int, list[trimesh.Trimesh]] = {}
    for link, mesh in robot_meshes.of_hand(hand):
        parts.setdefault(link, []).append(mesh)
    names = hand.link_names
    shown = [
        solid_of(names[link], link, meshes, stage.link_colour(names[link]))
        for link, meshes in sorted(parts.items())
    ]
    if forearm:
        sleeve = [
            robot_meshes.capsule(np.array([0.0, y, low]), np.array([0.0, y, high]), radius)
            for y, low, high, radius in stage.FOREARM
        ]
        shown.append(solid_of("forearm", 0, sleeve, stage.COLOURS["forearm_0"]))
    return tuple(shown)


def creased(
    vertices: Float[np.ndarray, "v 3"], faces: Int[np.ndarray, "f 3"]
) -> tuple[Float[np.ndarray, "w 3"], Int[np.ndarray, "f 3"]]:
    """The same mesh with vertices of their own on both sides of an edge, so that it looks sharp."""
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    apart = trimesh.graph.smooth_shade(mesh, angle=_CREASE)
    return np.asarray(apart.vertices, np.float64), np.asarray(apart.faces, np.int64)


def solid_of(
    name: str, link: int, meshes: Sequence[trimesh.Trimesh], colour: tuple[float, float, float]
) -> Solid:
    """Several meshes of a link as one solid.

    Args:
        name: Of the link.
        link: Its index.
        meshes: In its frame, metres.
        colour: From 0 to 1.
    """
    first = np.cumsum([0, *(len(mesh.vertices) for mesh in meshes)])
    vertices = np.concatenate([np.asarray(mesh.vertices, np.float64) for mesh in meshes])
    faces = np.concatenate(
        [np.asarray(mesh.faces, np.int64) + at for mesh, at in zip(meshes, first, strict=False)]
    )
    return Solid(name, link, vertices, faces, to_bytes(np.array(colour)))


def moment(
    hand: HandModel,
    thing: Thing,
    phi: Float[np.ndarray, " phi"],
    wxyz_xyz_world_object: Float[np.ndarray, " 7"] = AT_ORIGIN,
) -> Moment:
    """Where links and object are, and what the hand touches.

    Args:
        hand: The hand.
        thing: The object.
        phi: Pose of the hand in the world.
        wxyz_xyz_world_object: Pose of the object; by default its frame is the world.
    """
    placed = np.asarray(wxyz_xyz_world_object, np.float64)
    turn = Rotation.from_quat(placed[:4], scalar_first=True)
    p_world = turn.apply(thing.points) + placed[4:]
    R, p, value = _posed(hand, jnp.asarray(phi, jnp.float32), jnp.asarray(p_world, jnp.float32))
    return Moment(
        _as_poses(R, p),
        placed,
        np.asarray(value, np.float64),
    )


def link_poses(hand: HandModel, phi: Float[np.ndarray, " phi"]) -> Float[np.ndarray, "l 7"]:
    """Quaternion wxyz and position (m) of each link of a hand whose pose in the world is `phi`."""
    return _as_poses(*_linked(hand, jnp.asarray(phi, jnp.float32)))


def _as_poses(R: Array, p: Array) -> Float[np.ndarray, "l 7"]:
    quaternions = Rotation.from_matrix(np.asarray(R, np.float64)).as_quat(scalar_first=True)
    return np.concatenate([quaternions, np.asarray(p, np.float64)], axis=1)


@functools.partial(jax.jit, static_argnums=0)
def _linked(hand: HandModel, phi: Float[Array, " phi"]) -> tuple[Array, Array]:
    links = kinematics.posed(hand, phi)
    return links.R, links.p


@functools.partial(jax.jit, static_argnums=0)
def _posed(
    hand: HandModel, phi: Float[Array, " phi"], points: Float[Array, "n 3"]
) -> tuple[Array, Array, Array]:
    links = kinematics.posed(hand, phi)
    return links.R, links.p, contact.contact_map(hand, links, points)


def pose_of(grasps: GraspSet, index: int, posture: Posture) -> Float[np.ndarray, " phi"]:
    """Pose of a grasp with the fingers before, at or after it."""
    phi = np.array(grasps.phi[index], np.float64)
    if posture != "grasp":
        q = grasps.q_pregrasp if posture == "pre-grasp" else grasps.q_squeeze
        phi[:-6] = np.asarray(q[index], np.float64)
    return phi


def lowest(thing: Thing) -> float:
    """Height of the object's lowest point in its frame, metres."""
    around = thing.vertices if len(thing.vertices) else thing.points
    return float(around[:, 2].min())


def contact_colours(value: Float[np.ndarray, " n"]) -> UInt8[np.ndarray, "n 3"]:
    """Colours of contact values: blue where the hand is far, red where it touches."""
    at = np.linspace(0.0, 1.0, len(_RAMP))
    return to_bytes(np.stack([np.interp(value, at, column) for column in _RAMP.T], axis=-1))


def plain_colours(count: int) -> UInt8[np.ndarray, "n 3"]:
    """Colours of a cloud without a contact map."""
    return np.repeat(to_bytes(np.array(_PLAIN))[None], count, axis=0)


def to_bytes(colour: Float[np.ndarray, "*n 3"]) -> UInt8[np.ndarray, "*n 3"]:
    """Colours from 0 to 1 as bytes."""
    return (255.0 * np.clip(colour, 0.0, 1.0)).round().astype(np.uint8)


def viewpoint(thing: Thing, moments: Sequence[Moment], field_of_view: float) -> Viewpoint:
    """A place from which hand and object are seen in all moments, neither in front of the other.

    Args:
        thing: The object.
        moments: The last one counts for the direction.
        field_of_view: Vertical opening of the camera, radians.
    """
    around = thing.vertices if len(thing.vertices) else thing.points
    points = []
    for one in moments:
        turn = Rotation.from_quat(one.wxyz_xyz_world_object[:4], scalar_first=True)
        points += [
            turn.apply(around) + one.wxyz_xyz_world_object[4:],
            one.wxyz_xyz_world_link[:, 4:],
        ]
    everything = np.concatenate(points)
    target = 0.5 * (everything.min(axis=0) + everything.max(axis=0))
    radius = _MARGIN * float(np.linalg.norm(everything - target, axis=1).max())
    palm = moments[-1].wxyz_xyz_world_link[0]
    middle = 0.5 * (points[-2].min(axis=0) + points[-2].max(axis=0))
    R_world_palm = Rotation.from_quat(palm[:4], scalar_first=True).as_matrix()
    direction = _beside(palm[4:] - middle, R_world_palm[:, 0])
    distance = radius / np.sin(0.5 * field_of_view)
    return Viewpoint(target + distance * direction, target)


def _beside(
    offset: Float[np.ndarray, " 3"], thumb: Float[np.ndarray, " 3"]
) -> Float[np.ndarray, " 3"]:
    """A unit vector across the way from object to palm, on the thumb's side and from above."""
    side = np.cross([0.0, 0.0, 1.0], offset)
    if np.linalg.norm(side) < 0.3 * np.linalg.norm(offset):  # the hand is above or below
        side = np.array([thumb[0], thumb[1], 0.0])
    if np.linalg.norm(side) < 1e-6:
        side = np.array([0.0, -1.0, 0.0])
    side /= np.linalg.norm(side)
    if side @ thumb < 0.0:
        side = -side
    direction = side + _RISE * np.array([0.0, 0.0, 1.0])
    return direction / np.linalg.norm(direction)
