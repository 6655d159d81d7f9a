"""A virtual Azure Kinect: depth pictures of an object by ray casting, and the cloud they give.

Nothing but the object is in the scene: table and background are taken for removed, as by a mask.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import jax.numpy as jnp
import jaxlie
import mujoco
import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.spatial.transform import Rotation

from realdex_jax.errors import RealdexError
from realdex_jax.geometry.outliers import not_lone
from realdex_jax.geometry.shape import ObjectShape
from realdex_jax.geometry.view import DISTANCE, DepthNoise

ELEVATION = (np.deg2rad(20.0), np.deg2rad(60.0))
"""Angles above the horizontal that `draw_view` looks from, radians."""

_NEIGHBOURS, _OUTLYING = 8, 2.0
"""Statistical outlier removal: a point goes if its mean distance to so many neighbours is more than
so many standard deviations above the cloud's mean."""
_MARGIN = 2
"""Pixels around the object's corners; rays stray by a fraction of a pixel."""
_NEAREST_CORNER = 1e-3
"""Corners nearer (m) than this to the camera's plane have no useful place in the picture."""


class CameraError(RealdexError):
    """A camera that cannot be placed or used as asked."""


@dataclass(frozen=True)
class DepthCamera:
    """A pinhole depth camera; x right, y down, z forward. Defaults: Azure Kinect, NFOV unbinned.

    Its lens distorts, so no pinhole has both its scale and its opening of 75 x 65 degrees. This one
    has the scale in the middle of the picture, where objects are, and sees 65 x 59 degrees.
    """

    width: int = 640
    """Columns."""
    height: int = 576
    """Rows."""
    fx: float = 504.0
    """Focal length over the width of a pixel; devices differ by about 1."""
    fy: float = 504.0
    """Focal length over the height of a pixel."""
    cx: float = 319.5
    """Column of the optical axis; whole numbers are middles of pixels."""
    cy: float = 331.5
    """Row of the optical axis. The mode's rows are not the middle ones of the 1024 x 1024 sensor,
    but begin at 180."""
    near: float = 0.5
    """Least depth it reports, metres."""
    far: float = 3.86
    """Largest depth it reports, metres."""

    def rays(self, pixels: Float[np.ndarray, "r 2"]) -> Float[np.ndarray, "r 3"]:
        """Unit directions in the camera's frame through pixel coordinates (column, row)."""
        flat = (pixels - [self.cx, self.cy]) / [self.fx, self.fy]
        v_camera = np.concatenate([flat, np.ones((len(flat), 1))], axis=1)
        return v_camera / np.linalg.norm(v_camera, axis=1, keepdims=True)

    def project(self, p_camera: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 2"]:
        """Pixel coordinates (column, row) of points before the camera, metres."""
        return p_camera[:, :2] / p_camera[:, 2:] * [self.fx, self.fy] + [self.cx, self.cy]


@dataclass(frozen=True, eq=False)
class DepthImage:
    """What a faultless camera measures; zero where it sees no object or the range ends."""

    depth: Float[np.ndarray, "h w"]
    """Distance along the optical axis, metres."""
    incidence: Float[np.ndarray, "h w"]
    """Angle between the ray and the surface's normal, radians."""


def look_at(
    p_object_camera: Float[np.ndarray, " 3"], p_object_target: Float[np.ndarray, " 3"]
) -> jaxlie.SE3:
    """`T_object_camera` of a camera that looks at a point, the object's z axis up in its picture.

    Args:
        p_object_camera: where the camera is, metres.
        p_object_target: what it looks at, metres.

    Raises:
        CameraError: the two are the same point, or not finite.
    """
    forward = np.asarray(p_object_target - p_object_camera, np.float64)
    distance = float(np.linalg.norm(forward))
    if not (np.isfinite(distance) and distance > 1e-9):
        raise CameraError(
            f"camera at {p_object_camera.tolist()} m cannot look at {p_object_target.tolist()} m; "
            "they must be finite and apart"
        )
    forward /= distance
    # Straight up or down any turn will do; the y axis is up then.
    up = [0.0, 0.0, 1.0] if abs(forward[2]) < 1.0 - 1e-9 else [0.0, 1.0, 0.0]
    right = np.cross(forward, up)
    right /= np.linalg.norm(right)
    R = Rotation.from_matrix(np.stack([right, np.cross(forward, right), forward], axis=1))
    wxyz_xyz = np.concatenate([R.as_quat(scalar_first=True), p_object_camera])
    return jaxlie.SE3(jnp.asarray(wxyz_xyz, jnp.float32))


def draw_view(shape: ObjectShape, rng: np.random.Generator) -> jaxlie.SE3:
    """`T_object_camera` of a camera beside a table: any azimuth, from above, looking at the object.

    Distances are those of `view.DISTANCE`, so the whole object is within the camera's range.

    Args:
        shape: the object, its z axis up.
        rng: random numbers.
    """
    p_object_middle = shape.bounds.mean(axis=0)
    radius = float(np.linalg.norm(shape.vertices - p_object_middle, axis=1).max())
    azimuth, elevation = rng.uniform(-np.pi, np.pi), rng.uniform(*ELEVATION)
    level = np.cos(elevation)
    away = np.array([level * np.cos(azimuth), level * np.sin(azimuth), np.sin(elevation)])
    p_object_camera = p_object_middle + (radius + rng.uniform(*DISTANCE)) * away
    return look_at(p_object_camera, p_object_middle)


def depth_image(
    shape: ObjectShape, T_object_camera: jaxlie.SE3, camera: DepthCamera | None = None
) -> DepthImage:
    """The picture of an object alone, without noise.

    Args:
        shape: the object.
        T_object_camera: where the camera is.
        camera: its optics and range; an Azure Kinect's if None.

    Returns:
        Depth and incidence of all of the camera's pixels.
    """
    camera = camera or DepthCamera()
    left, top, columns, rows = _window(shape, T_object_camera, camera)
    depth, incidence = np.zeros((2, camera.height, camera.width))
    if columns > 0 and rows > 0:
        rays = camera.rays(_grid(left, top, columns, rows))
        distance, slant = _cast(shape, T_object_camera, rays)
        z = np.where(np.isfinite(distance), distance, 0.0) * rays[:, 2]
        seen = (z >= camera.near) & (z <= camera.far)
        inside = slice(top, top + rows), slice(left, left + columns)
        depth[inside] = np.where(seen, z, 0.0).reshape(rows, columns)
        incidence[inside] = np.where(seen, slant, 0.0).reshape(rows, columns)
    return DepthImage(depth, incidence)


def cloud_from_view(
    shape: ObjectShape,
    T_object_camera: jaxlie.SE3,
    rng: np.random.Generator,
    camera: DepthCamera | None = None,
    noise: DepthNoise | None = None,
) -> Float[np.ndarray, "n 3"]:
    """The cloud of an object as one camera measures it, outliers removed.

    Every pixel measures along a ray slightly off its own, distances are noisy, readings at a slant
    get lost. Pixels on edges get lost or fly: they report a distance between the near surface and
    the far one. Statistical outlier removal takes most of the flying ones, and some true points.

    Args:
        shape: the object.
        T_object_camera: where the camera is.
        rng: random numbers.
        camera: its optics and range; an Azure Kinect's if None.
        noise: its faults; an Azure Kinect's if None.

    Returns:
        Points in the object frame, metres, row by row; none if the object is not seen.
    """
    camera, noise = camera or DepthCamera(), noise or DepthNoise()
    left, top, columns, rows = _window(shape, T_object_camera, camera)
    if columns <= 0 or rows <= 0:
        return np.zeros((0, 3))
    pixels = _grid(left, top, columns, rows)
    astray = noise.lateral * np.array([camera.fx, camera.fy]) * rng.normal(size=pixels.shape)
    distance, slant = _cast(shape, T_object_camera, camera.rays(pixels + astray))
    shape_of = (rows, columns)
    measured = readings(distance.reshape(shape_of), slant.reshape(shape_of), rng, noise).ravel()
    p_camera = measured[:, None] * camera.rays(pixels)
    kept = (measured > 0.0) & (p_camera[:, 2] >= camera.near) & (p_camera[:, 2] <= camera.far)
    p_camera = p_camera[kept]
    R, p = _pose(T_object_camera)
    return without_outliers(p_camera) @ R.T + p


def readings(
    distance: Float[np.ndarray, "h w"],
    incidence: Float[np.ndarray, "h w"],
    rng: np.random.Generator,
    noise: DepthNoise,
) -> Float[np.ndarray, "h w"]:
    """What the sensor reports of true distances, along the rays that its pixels measure.

    Args:
        distance: Along each pixel's ray, metres; infinite where nothing is met.
        incidence: Angle between ray and normal, radians.
        rng: random numbers.
        noise: the camera's faults.

    Returns:
        Distances (m), 0 where there is no reading.
    """
    hit = np.isfinite(distance)
    gap = _gap(distance, noise.backdrop)
    fate, share, luck = rng.random((3, *distance.shape))
    edge = gap > noise.step
    lost = edge & (fate < noise.edge_lost)
    flying = edge & ~lost & (fate < noise.edge_lost + noise.edge_flying)
    # What is behind lends a flying pixel its light, so no slant costs it.
    kept = hit & ~lost & (flying | (luck >= noise.lost(incidence.ravel()).reshape(luck.shape)))
    share *= flying
    measured = np.where(hit, distance, 0.0)
    spread = noise.spread(measured.ravel()).reshape(measured.shape)
    measured = measured + share * gap + spread * rng.normal(size=measured.shape)
    return np.where(kept, measured, 0.0)


def without_outliers(points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "k 3"]:
    """A cloud without the points unusually far from their neighbours (statistical removal)."""
    return points[not_lone(points, _NEIGHBOURS, _OUTLYING)]


def _pose(
    T_object_camera: jaxlie.SE3,
) -> tuple[Float[np.ndarray, "3 3"], Float[np.ndarray, " 3"]]:
    wxyz_xyz = np.asarray(T_object_camera.wxyz_xyz, np.float64)
    return Rotation.from_quat(wxyz_xyz[:4], scalar_first=True).as_matrix(), wxyz_xyz[4:]


def _window(
    shape: ObjectShape, T_object_camera: jaxlie.SE3, camera: DepthCamera
) -> tuple[int, int, int, int]:
    """Left, top, columns and rows of the part of the picture that the object can be in."""
    R, p = _pose(T_object_camera)
    p_camera = (shape.vertices - p) @ R
    if p_camera[:, 2].max() <= 0.0:
        return 0, 0, 0, 0
    if p_camera[:, 2].min() < _NEAREST_CORNER:
        return 0, 0, camera.width, camera.height
    corners = camera.project(p_camera)
    size = [camera.width, camera.height]
    low = np.clip(np.floor(corners.min(axis=0)) - _MARGIN, 0, size).astype(int)
    high = np.clip(np.ceil(corners.max(axis=0)) + _MARGIN + 1, 0, size).astype(int)
    columns, rows = (high - low).tolist()
    return int(low[0]), int(low[1]), columns, rows


def _grid(left: int, top: int, columns: int, rows: int) -> Float[np.ndarray, "r 2"]:
    """Pixel coordinates (column, row) of a window, row by row."""
    grid = np.meshgrid(left + np.arange(columns), top + np.arange(rows))
    return np.stack(grid, axis=-1).reshape(-1, 2).astype(np.float64)


def _gap(distance: Float[np.ndarray, "h w"], backdrop: float) -> Float[np.ndarray, "h w"]:
    """Metres to the farthest surface in one of the four next pixels; 0 where no object is.

    Distances are infinite where no object is; a neighbour is never farther than the backdrop.
    """
    around = np.pad(distance, 1, constant_values=np.inf)
    next_ones = around[:-2, 1:-1], around[2:, 1:-1], around[1:-1, :-2], around[1:-1, 2:]
    hit = np.isfinite(distance)
    farther = np.maximum.reduce(next_ones) - np.where(hit, distance, 0.0)
    return np.where(hit, np.clip(farther, 0.0, backdrop), 0.0)


def _cast(
    shape: ObjectShape, T_object_camera: jaxlie.SE3, rays: Float[np.ndarray, "r 3"]
) -> tuple[Float[np.ndarray, " r"], Float[np.ndarray, " r"]]:
    """Distance (m, infinite without a hit) and incidence (radians) along rays in the camera."""
    model = _model(shape)
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    R, p = _pose(T_object_camera)
    v_object = rays @ R.T
    geom: Int[np.ndarray, " r"] = np.full(len(rays), -1, np.int32)
    distance, normal = np.full(len(rays), -1.0), np.zeros(3 * len(rays))
    mujoco.mj_multiRay(
        model,
        data,
        p,
        v_object.ravel(),
        None,
        True,
        -1,
        geom,
        distance,
        normal,
        len(rays),
        mujoco.mjMAXVAL,
    )
    hit: Bool[np.ndarray, " r"] = geom >= 0
    # Whatever side the normal is given for, the camera sees the one that faces it.
    cosine = np.abs(np.einsum("ri,ri->r", v_object, normal.reshape(-1, 3)))
    incidence = np.where(hit, np.arccos(np.clip(cosine, 0.0, 1.0)), 0.0)
    return np.where(hit, distance, np.inf), incidence


@functools.lru_cache(maxsize=8)
def _model(shape: ObjectShape) -> mujoco.MjModel:
    """The mesh alone, in the object frame."""
    spec = mujoco.MjSpec()
    spec.add_mesh(
        name=shape.name,
        uservert=np.asarray(shape.vertices, np.float64).ravel(),
        userface=np.asarray(shape.faces, np.int32).ravel(),
        # As of a shell: a mesh to look at need not be closed.
        inertia=mujoco.mjtMeshInertia.mjMESH_INERTIA_SHELL,
    )
    spec.worldbody.add_geom(
        type=mujoco.mjtGeom.mjGEOM_MESH, meshname=shape.name, contype=0, conaffinity=0
    )
    return spec.compile()
