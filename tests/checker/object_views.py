"""Small depth pictures of one object on a table, from four sides, without noise."""

import functools

import jax.numpy as jnp
import jaxlie
import numpy as np
from scipy.spatial.transform import Rotation

from capture import observation
from capture.object_model import make_model
from realdex_jax.data import rigid
from realdex_jax.geometry.lens import Lens
from sim import kinect, objects, rig
from sim.kinect import DepthCamera

CAMERA = DepthCamera(width=208, height=160, fx=180.0, fy=180.0, cx=103.5, cy=79.5)
LENS = Lens(208, 160, 180.0, 180.0, 103.5, 79.5)
LENSES = dict.fromkeys(range(4), LENS)
RIG = rig.around_table(64)
PLACES = {c: RIG.wxyz_xyz_world_cam(c) for c in range(4)}


def pose(turn, p) -> np.ndarray:
    wxyz = Rotation.from_rotvec(np.asarray(turn, float)).as_quat(scalar_first=True)
    return np.concatenate([wxyz, np.asarray(p, float)])


@functools.cache
def model(name: str = "penguin_toy", count: int = 1024):
    shape = objects.make(name)
    return make_model(shape.vertices, shape.faces, count)


def standing(name: str = "penguin_toy", turn: float = 0.4) -> np.ndarray:
    """T_world_object of an object on a table at z = 0."""
    return pose([0.0, 0.0, turn], [0.01, -0.02, -objects.make(name).bounds[0, 2]])


def depths(T_world_object, name: str = "penguin_toy", table: bool = False, cameras=range(4)):
    """Depth pictures (m) by camera."""
    found = {}
    for c in cameras:
        local = rigid.compose(rigid.inverse(T_world_object), PLACES[c])
        T = jaxlie.SE3(jnp.asarray(local, jnp.float32))
        depth = kinect.depth_image(objects.make(name), T, CAMERA).depth
        if table:
            depth = np.where(depth > 0.0, depth, ground(c))
        found[c] = depth
    return found


def ground(camera: int) -> np.ndarray:
    """Depth (m) of the table alone, a metre wide."""
    T = rigid.matrix(PLACES[camera])
    v = np.concatenate([LENS.directions(), np.ones((160, 208, 1))], axis=-1) @ T[:3, :3].T
    depth = -T[2, 3] / np.minimum(v[..., 2], -1e-9)
    p = T[:3, 3] + depth[..., None] * v
    return np.where(np.abs(p[..., :2]).max(axis=-1) < 0.5, depth, 0.0)


def seen(T_world_object, name: str = "penguin_toy", *, shown=None, count: int = 2048, **more):
    """An observation of it; `shown` in place of its own pictures."""
    shown = depths(T_world_object, name) if shown is None else shown
    middle = rigid.apply(T_world_object, np.asarray(model(name).p_object_middle)[None])[0]
    return observation.observe(shown, LENSES, PLACES, middle, 0.2, count=count, **more)


def se3(wxyz_xyz) -> jaxlie.SE3:
    return jaxlie.SE3(jnp.asarray(wxyz_xyz, jnp.float32))


def away(a, b) -> tuple[float, float]:
    """Distance of two poses, mm and degrees."""
    a, b = (np.asarray(getattr(x, "wxyz_xyz", x), np.float64) for x in (a, b))
    between = rigid.compose(rigid.inverse(a), b)
    turn = Rotation.from_quat(between[:4], scalar_first=True).magnitude()
    return 1000.0 * float(np.linalg.norm(a[4:] - b[4:])), float(np.rad2deg(turn))
