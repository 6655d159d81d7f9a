"""Pictures of grasps without OpenGL: rays cast by MuJoCo, lights and smooth edges in numpy.

Object pixels near the hand's surface are tinted, so a picture shows where the hand touches.
"""

import concurrent.futures
import dataclasses
import functools
import os
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from scipy.spatial.transform import Rotation

from realdex_jax import pose
from realdex_jax.errors import RealdexError
from realdex_jax.geometry.shape import ObjectShape
from realdex_jax.hand import kinematics
from realdex_jax.hand.load import HandModel
from sim import visuals

FIELD_OF_VIEW = np.deg2rad(32.0)
"""Vertical opening of the camera, radians."""
TOUCH = 0.004
"""Object surface this near (m) to the hand is tinted as touched; the tint ends at twice that."""

_HAND = np.array([0.47, 0.52, 0.60])
_METAL = np.array([0.70, 0.71, 0.74])
_OBJECT = np.array([0.95, 0.72, 0.36])
_TOUCHED = np.array([0.85, 0.10, 0.12])
_SKY = np.array([[1.0, 1.0, 1.0], [0.86, 0.89, 0.93]])
_AMBIENT, _KEY, _FILL = 0.34, 0.62, 0.22
_EDGE_SAMPLES = np.array([[-0.25, -0.25], [0.25, -0.25], [-0.25, 0.25], [0.25, 0.25]])
_SHADOW_GAP = 0.006
_FINGER = 0.012
_MESHES, _PRIMITIVES, _THING = 0, 1, 2
_CONTACT_SAMPLES = 1500
_VIEWS = 20
_VIEW_SIZE = (40, 30)


class RenderError(RealdexError):
    """A picture that cannot be drawn as asked."""


@dataclasses.dataclass(frozen=True)
class Camera:
    """A pinhole camera in the object frame; x right, y down, z forward."""

    p_object: Float[np.ndarray, " 3"]
    R_object_cam: Float[np.ndarray, "3 3"]

    def rays(
        self, pixels: Float[np.ndarray, "r 2"], size: tuple[int, int]
    ) -> Float[np.ndarray, "r 3"]:
        """Unit directions in the object frame through pixel coordinates (column, row)."""
        width, height = size
        scale = 2.0 * np.tan(FIELD_OF_VIEW / 2.0) / height
        flat = (pixels - [width / 2.0, height / 2.0]) * scale
        v_cam = np.concatenate([flat, np.ones((len(flat), 1))], axis=1)
        v_cam /= np.linalg.norm(v_cam, axis=1, keepdims=True)
        return v_cam @ self.R_object_cam.T


@dataclasses.dataclass(frozen=True, eq=False)
class _Hits:
    """What a bundle of rays from one point met."""

    geom: Int[np.ndarray, " r"]
    """Geometry index, -1 for none."""
    distance: Float[np.ndarray, " r"]
    normal: Float[np.ndarray, "r 3"]


class _Scene:
    """Compiled geometry of one hand and one object; one posed copy per thread."""

    def __init__(self, hand: HandModel, shape: ObjectShape) -> None:
        self.hand = hand
        self.model = _model(hand, shape)
        self.R, self.p = np.zeros((0, 3, 3)), np.zeros((0, 3))
        self.data = [mujoco.MjData(self.model) for _ in range(max(os.cpu_count() or 1, 1))]
        self.object_geom = self.model.ngeom - 1
        self.has_meshes = bool(visuals.load(hand))
        names = [self.model.geom(g).name for g in range(self.model.ngeom)]
        self.colour = np.array([_METAL if "knuckle" in n else _HAND for n in names])
        self.colour[self.object_geom] = _OBJECT
        # Body 0 is the world; links follow in order, the object has no link.
        self.link = self.model.geom_bodyid - 1
        self.link[self.object_geom] = -1

    def place(self, R: Float[np.ndarray, "l 3 3"], p: Float[np.ndarray, "l 3"]) -> None:
        """Moves the links (object frame)."""
        self.R, self.p = R, p
        quaternion = Rotation.from_matrix(R).as_quat(scalar_first=True)
        for data in self.data:
            data.mocap_pos[:] = p
            data.mocap_quat[:] = quaternion
            mujoco.mj_kinematics(self.model, data)

    def hand_distance(self, points: Float[np.ndarray, "r 3"]) -> Float[np.ndarray, " r"]:
        """Signed distance (m) of points in the object frame to the placed hand's primitives."""
        geoms = self.hand.geoms
        nearest = np.full(len(points), np.inf)
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
            nearest = np.minimum(nearest, distance)
        return nearest

    def cast(
        self, origin: Float[np.ndarray, " 3"], rays: Float[np.ndarray, "r 3"], rough: bool = False
    ) -> _Hits:
        """First hits of rays from one point, spread over threads.

        `rough` meets the primitives instead of the meshes: several times faster, for everything
        but what is seen directly.
        """
        shown = _PRIMITIVES if rough or not self.has_meshes else _MESHES
        groups = np.zeros(6, np.uint8)
        groups[[shown, _THING]] = 1
        parts = np.array_split(rays, len(self.data))
        with concurrent.futures.ThreadPoolExecutor(len(self.data)) as pool:
            hits = list(
                pool.map(functools.partial(_cast, self.model, origin, groups), self.data, parts)
            )
        return _Hits(*(np.concatenate(x) for x in zip(*hits, strict=True)))


def render_grasp(
    hand: HandModel,
    shape: ObjectShape,
    phi: Float[np.ndarray, " 28"],
    size: tuple[int, int] = (320, 240),
    camera: Camera | None = None,
) -> UInt8[np.ndarray, "h w 3"]:
    """Draws one grasp.

    Args:
        hand: The hand; its visual meshes are drawn where they are installed, else its primitives.
        shape: The object.
        phi: Pose of the hand in the object frame.
        size: Width and height, pixels.
        camera: Where to look from; by default the view that shows most contacts.

    Raises:
        RenderError: The pose is not finite or the size not positive.
    """
    if min(size) < 1:
        raise RenderError(f"picture size {size}; width and height must be positive")
    if not np.isfinite(phi).all():
        raise RenderError("pose has NaN or infinite values; nothing to draw")
    scene = _scene(hand, shape)
    R, p = _posed(hand, phi)
    scene.place(R, p)
    if camera is None:
        camera = _best_camera(scene, shape, size[0] / size[1])
    width, height = size
    grid = np.stack(np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5), axis=-1)
    hits = scene.cast(camera.p_object, camera.rays(grid.reshape(-1, 2), size))
    image = _shade(scene, camera, hits, grid.reshape(-1, 2), size)
    edge = np.flatnonzero(_edges(hits, size))
    if len(edge):
        fine = (grid.reshape(-1, 2)[edge, None] + _EDGE_SAMPLES).reshape(-1, 2)
        finer = scene.cast(camera.p_object, camera.rays(fine, size))
        shaded = _shade(scene, camera, finer, fine, size)
        image[edge] = shaded.reshape(len(edge), len(_EDGE_SAMPLES), 3).mean(axis=1)
    pixels = 255.0 * np.clip(image, 0.0, 1.0) ** (1 / 1.1)
    return pixels.round().astype(np.uint8).reshape(height, width, 3)


def contact_sheet(
    images: Sequence[UInt8[np.ndarray, "h w 3"]], columns: int, gap: int = 4
) -> UInt8[np.ndarray, "hh ww 3"]:
    """Pastes pictures of one size into rows of `columns`, on white, `gap` pixels apart.

    Raises:
        RenderError: No picture, no column, or pictures of different sizes.
    """
    if not images or columns < 1:
        raise RenderError(f"{len(images)} pictures in {columns} columns; both must be positive")
    if len({image.shape for image in images}) > 1:
        raise RenderError("pictures of different sizes cannot share a sheet")
    height, width, _ = images[0].shape
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    sheet = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, np.uint8)
    for index, image in enumerate(images):
        top, left = (index // columns) * (height + gap), (index % columns) * (width + gap)
        sheet[top : top + height, left : left + width] = image
    return sheet


def _best_camera(scene: _Scene, shape: ObjectShape, aspect: float) -> Camera:
    """The view, object z up, in which most contacts, links and object are seen.

    A contact counts as seen if what is in front of it is less than a finger away: then the picture
    shows the contact or the finger that makes it.
    """
    box = np.stack(np.meshgrid(*[[-_FINGER, _FINGER]] * 3), axis=-1).reshape(-1, 3)
    everything = np.concatenate([shape.vertices, (scene.p[:, None] + box).reshape(-1, 3)])
    surface = shape.surface(_CONTACT_SAMPLES).points
    contacts = surface[np.abs(scene.hand_distance(surface)) < TOUCH]
    columns, rows = np.meshgrid(np.arange(_VIEW_SIZE[0]) + 0.5, np.arange(_VIEW_SIZE[1]) + 0.5)
    pixels = np.stack([columns.ravel(), rows.ravel()], axis=1)
    best, best_score = None, -np.inf
    for direction in _directions():
        camera = _fitted(direction, everything, aspect)
        hits = scene.cast(camera.p_object, camera.rays(pixels, _VIEW_SIZE), rough=True)
        mine = (hits.geom == scene.object_geom).sum()
        hand = (hits.geom >= 0).sum() - mine
        seen_links = set(scene.link[hits.geom[hits.geom >= 0]].tolist()) - {-1}
        links = len(seen_links) / len(scene.hand.link_names)
        # Both large: neither hides the other.
        shown = 2.0 * min(mine, hand) / max(mine + hand, 1)
        seen = 0.0
        if len(contacts):
            offset = contacts - camera.p_object
            far = np.linalg.norm(offset, axis=1)
            first = scene.cast(camera.p_object, offset / far[:, None], rough=True).distance
            seen = float((first > far - 2.0 * _FINGER).mean())
        score = 2.0 * seen + links + shown
        if score > best_score:
            best, best_score = camera, score
    assert best is not None
    return best


def _fitted(
    direction: Float[np.ndarray, " 3"], points: Float[np.ndarray, "n 3"], aspect: float
) -> Camera:
    """The camera that looks along `-direction` and whose picture the points (m) just fill."""
    camera = look_at(direction, np.zeros(3))
    p = points @ camera.R_object_cam
    p_middle = 0.5 * (p.min(axis=0) + p.max(axis=0))
    slope = 0.94 * np.tan(FIELD_OF_VIEW / 2.0) * np.array([aspect, 1.0])
    away = (np.abs(p - p_middle)[:, :2] / slope).max(axis=1) - (p - p_middle)[:, 2]
    p_middle[2] -= away.max()
    return Camera(camera.R_object_cam @ p_middle, camera.R_object_cam)


def look_at(p_object: Float[np.ndarray, " 3"], target: Float[np.ndarray, " 3"]) -> Camera:
    """A camera at a point that looks at another, the object's z axis up in the picture."""
    forward = (target - p_object) / np.linalg.norm(target - p_object)
    up = np.array([0.0, 0.0, 1.0]) if abs(forward[2]) < 0.99 else np.array([0.0, 1.0, 0.0])
    right = np.cross(forward, up)
    right /= np.linalg.norm(right)
    return Camera(p_object, np.stack([right, np.cross(forward, right), forward], axis=1))


def _directions() -> Float[np.ndarray, "views 3"]:
    """Evenly spread view directions from a little below the horizon to well above it."""
    index = np.arange(_VIEWS) + 0.5
    z = -0.25 + 1.05 * index / _VIEWS
    turn = np.pi * (1.0 + 5.0**0.5) * index
    r = np.sqrt(1.0 - z**2)
    return np.stack([r * np.cos(turn), r * np.sin(turn), z], axis=1)


def _shade(
    scene: _Scene,
    camera: Camera,
    hits: _Hits,
    pixels: Float[np.ndarray, "r 2"],
    size: tuple[int, int],
) -> Float[np.ndarray, "r 3"]:
    """Colour of each ray: sky, or a lit and tinted surface."""
    height = size[1]
    blend = np.clip(pixels[:, 1:] / height, 0.0, 1.0)
    colour = (1.0 - blend) * _SKY[0] + blend * _SKY[1]
    hit = hits.geom >= 0
    if not hit.any():
        return colour
    rays = camera.rays(pixels[hit], size)
    p = camera.p_object + hits.distance[hit, None] * rays
    normal = hits.normal[hit]
    normal = np.where((normal * rays).sum(1, keepdims=True) > 0, -normal, normal)
    base = scene.colour[hits.geom[hit]].copy()
    mine = hits.geom[hit] == scene.object_geom
    if mine.any():
        near = 2.0 - np.abs(scene.hand_distance(p[mine])) / TOUCH
        tint = np.clip(near, 0.0, 1.0)[:, None]
        base[mine] = (1.0 - tint) * base[mine] + tint * _TOUCHED
    right, down, forward = camera.R_object_cam.T
    light = camera.p_object + 0.35 * (-right - 1.4 * down) - 0.1 * forward
    to_light = light - p
    far = np.linalg.norm(to_light, axis=1, keepdims=True)
    to_light /= far
    # Meshes lie within the primitives' thickness: nothing that near throws a shadow.
    blocked = scene.cast(light, -to_light, rough=True)
    lit = ((blocked.geom < 0) | (blocked.distance > far[:, 0] - _SHADOW_GAP))[:, None]
    diffuse = np.clip((normal * to_light).sum(1, keepdims=True), 0.0, 1.0)
    facing = np.clip(-(normal * rays).sum(1, keepdims=True), 0.0, 1.0)
    half = to_light - rays
    half /= np.linalg.norm(half, axis=1, keepdims=True)
    shine = 0.18 * lit * np.clip((normal * half).sum(1, keepdims=True), 0.0, 1.0) ** 24
    colour[hit] = base * (_AMBIENT + _KEY * lit * diffuse + _FILL * facing) + shine
    return colour


def _edges(hits: _Hits, size: tuple[int, int]) -> Bool[np.ndarray, " r"]:
    """Pixels whose neighbour shows another geometry, a bend or a step; they are sampled again."""
    width, height = size
    geom = hits.geom.reshape(height, width)
    normal = hits.normal.reshape(height, width, 3)
    distance = np.where(hits.geom >= 0, hits.distance, 0.0).reshape(height, width)
    edge = np.zeros((height, width), bool)
    for axis in (0, 1):
        a, b = (slice(None),) * axis + (slice(1, None),), (slice(None),) * axis + (slice(-1),)
        differs = (
            (geom[a] != geom[b])
            | ((normal[a] * normal[b]).sum(-1) < 0.85)
            | (np.abs(distance[a] - distance[b]) > 0.008)
        ) & ((geom[a] >= 0) | (geom[b] >= 0))
        edge[a] |= differs
        edge[b] |= differs
    return edge.ravel()


def _posed(hand: HandModel, phi: Float[np.ndarray, " 28"]) -> tuple[np.ndarray, np.ndarray]:
    """Link orientations and origins in the object frame, numpy."""
    R, p = _pose_jitted(hand, jnp.asarray(phi, jnp.float32))
    return np.asarray(R, np.float64), np.asarray(p, np.float64)


@functools.partial(jax.jit, static_argnums=0)
def _pose_jitted(hand: HandModel, phi: jax.Array) -> tuple[jax.Array, jax.Array]:
    q, T_object_hand = pose.split(phi)
    links = kinematics.place(kinematics.forward(hand, q), T_object_hand)
    return links.R, links.p


@functools.lru_cache(maxsize=16)
def _scene(hand: HandModel, shape: ObjectShape) -> _Scene:
    return _Scene(hand, shape)


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
    """Each link a mocap body with its meshes or primitives; the object last, at the origin."""
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
    _add_mesh(spec, "object", shape.vertices, shape.faces)
    thing = spec.worldbody.add_body(name="object", mocap=False)
    thing.add_geom(
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
