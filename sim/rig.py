"""Four virtual Azure Kinects around the table, and the colour and depth pictures that they take.

As in RealDex, depth is registered to the colour camera: both pictures have one lens. Here it does
not distort, and its focal length is that of the release's cameras, in widths of the picture. Table,
hand and object are in the pictures, the arm is not; the forearm ends as in clips.
"""

from __future__ import annotations

import dataclasses
import itertools

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from realdex_jax import arm
from realdex_jax.data import realdex_write, rigid
from realdex_jax.data.calibration import Calibration
from realdex_jax.data.realdex_raw import FAR
from realdex_jax.data.realdex_write import Picture
from realdex_jax.geometry import lens as optics
from realdex_jax.geometry.lens import Lens
from realdex_jax.geometry.view import DepthNoise
from realdex_jax.hand.load import HandModel
from sim import kinect, render
from sim.demonstrate import P_WORLD_BASE
from sim.kinect import CameraError, DepthCamera
from sim.render import Camera
from sim.stage import Stage

_FOCAL = 913.0 / 1920.0
"""Focal length over the picture's width."""
_AZIMUTHS = np.deg2rad([40.0, -40.0, 125.0, -125.0])
"""Directions from the table to the cameras; the arm stands at 180 degrees."""
_ELEVATION, _AWAY = np.deg2rad(35.0), 0.85
"""Of the cameras as seen from what they look at: above the horizontal, and metres."""
_P_WORLD_TARGET = np.array([0.0, 0.0, 0.10])


@dataclasses.dataclass(frozen=True, eq=False)
class Rig:
    """Cameras around a table."""

    calibration: Calibration
    wxyz_xyz_world_cam0: Float[np.ndarray, " 7"]
    """T_world_cam0: quaternion wxyz and position (m)."""

    def wxyz_xyz_world_cam(self, camera: int) -> Float[np.ndarray, " 7"]:
        """T_world_cam of a camera."""
        local = self.calibration.wxyz_xyz_cam0_cam[camera]
        return rigid.compose(self.wxyz_xyz_world_cam0, local)


def around_table(width: int, seed: int | None = None) -> Rig:
    """The four cameras, with pictures of 16 to 9.

    Args:
        width: Columns of the pictures.
        seed: Of their places, as `astray`; where they are meant to be if None.

    Raises:
        CameraError: Not a multiple of 16, or less than 64.
    """
    if width % 16 or width < 64:
        raise CameraError(f"pictures {width} wide; must be a multiple of 16, 64 or more")
    height = width * 9 // 16
    f = _FOCAL * width
    lens = Lens(width, height, f, f, (width - 1) / 2, (height - 1) / 2)
    level = np.cos(_ELEVATION)
    placed = []
    for azimuth in _AZIMUTHS:
        away = np.array([level * np.cos(azimuth), level * np.sin(azimuth), np.sin(_ELEVATION)])
        camera = render.look_at(_P_WORLD_TARGET + _AWAY * away, _P_WORLD_TARGET)
        wxyz = Rotation.from_matrix(camera.R_world_cam).as_quat(scalar_first=True)
        placed.append(np.concatenate([wxyz, camera.p_world]))
    if seed is not None:
        placed = list(astray(np.stack(placed), seed))
    numbers = tuple(range(len(placed)))
    from_cam0 = rigid.inverse(placed[0])
    places = {c: rigid.compose(from_cam0, placed[c]) for c in numbers}
    return Rig(Calibration(numbers, dict.fromkeys(numbers, lens), places), placed[0])


def astray(
    wxyz_xyz_world_cam: Float[np.ndarray, "c 7"],
    seed: int,
    spread: tuple[float, float] = (0.02, 0.035),
) -> Float[np.ndarray, "c 7"]:
    """Places of cameras that are not quite where they were meant to be.

    Args:
        wxyz_xyz_world_cam: Where they were meant to be.
        seed: Of the draw.
        spread: Standard deviation of places (m) and of turns (rad), along and about each axis.
    """
    count = len(wxyz_xyz_world_cam)
    shift, turn = np.random.default_rng([seed, count]).normal(size=(2, count, 3))
    shift, turn = spread[0] * shift, spread[1] * turn
    local = np.concatenate([Rotation.from_rotvec(turn).as_quat(scalar_first=True), shift], axis=1)
    return rigid.compose(wxyz_xyz_world_cam, local)


@dataclasses.dataclass(frozen=True)
class _Through(Camera):
    """A camera of the renderer that looks through a lens; its pixels begin at a corner."""

    lens: Lens

    def rays(
        self, pixels: Float[np.ndarray, "r 2"], size: tuple[int, int]
    ) -> Float[np.ndarray, "r 3"]:
        del size  # the lens knows it
        return self.lens.rays(pixels - 0.5) @ self.R_world_cam.T


def photograph(
    stage: Stage,
    lens: Lens,
    wxyz_xyz_world_cam: Float[np.ndarray, " 7"],
    rng: np.random.Generator,
    noise: DepthNoise | None = None,
) -> Picture:
    """What a camera takes of a stage as it is placed.

    Args:
        stage: The stage.
        lens: The camera's optics.
        wxyz_xyz_world_cam: T_world_cam.
        rng: random numbers, of the depth.
        noise: faults of the depth; an Azure Kinect's if None.
    """
    noise = noise or DepthNoise()
    T_world_cam = rigid.matrix(wxyz_xyz_world_cam)
    camera = _Through(T_world_cam[:3, 3], T_world_cam[:3, :3], lens)
    size = lens.width, lens.height
    colour = render.take(stage, camera, size, smooth=False, touched=False)
    pixels = optics.grid(*size)
    astray = noise.lateral * np.array([lens.fx, lens.fy]) * rng.normal(size=pixels.shape)
    v_world = lens.rays(pixels + astray) @ camera.R_world_cam.T
    hits = stage.cast(camera.p_world, v_world)
    hit = hits.geom >= 0
    cosine = np.abs(np.einsum("ri,ri->r", v_world, hits.normal))
    incidence = np.where(hit, np.arccos(np.clip(cosine, 0.0, 1.0)), 0.0)
    distance = np.where(hit, hits.distance, np.inf)
    rows = lens.height, lens.width
    measured = kinect.readings(distance.reshape(rows), incidence.reshape(rows), rng, noise)
    depth = measured * lens.rays(pixels)[:, 2].reshape(rows)
    depth = np.where((depth >= DepthCamera().near) & (depth <= FAR), depth, 0.0)
    return Picture(colour, realdex_write.millimetres(depth))


def robot_links(
    hand: HandModel,
    phi: Float[np.ndarray, "t 28"],
    *,
    q_wrist: Float[np.ndarray, "t 2"] | None = None,
    q_arm: Float[np.ndarray, "t 6"] | None = None,
    wxyz_xyz_world_base: Float[np.ndarray, " 7"] | None = None,
) -> dict[tuple[str, str], Float[np.ndarray, "_ 7"]]:
    """The series of arm and hand, link by link as in the release's `TF` folder.

    Where the arm follows the palm on one branch, it carries the hand; where it does not, the hand's
    forearm hangs on the world, as nothing else is known.

    Args:
        hand: The hand.
        phi: Its poses in the world.
        q_wrist: WRJ2 and WRJ1, radians; zero if None.
        q_arm: Angles of the arm, radians, if they are known; they must lead to the palm.
        wxyz_xyz_world_base: T_world_base of the arm; the demonstrations' if None.
    """
    R_world_palm = Rotation.from_rotvec(phi[:, 25:].astype(np.float64))
    wxyz = R_world_palm.as_quat(scalar_first=True)
    palm = np.concatenate([wxyz, phi[:, 22:25]], axis=1)
    links = realdex_write.hand_links(hand, phi[:, :22].astype(np.float64), palm, q_wrist)
    if wxyz_xyz_world_base is None:
        wxyz_xyz_world_base = np.array([1.0, 0.0, 0.0, 0.0, *P_WORLD_BASE])
    if q_arm is None:
        base_palm = rigid.compose(rigid.inverse(wxyz_xyz_world_base), palm)
        R = Rotation.from_quat(base_palm[:, :4], scalar_first=True).as_matrix()
        p_base_palm = jnp.asarray(base_palm[:, 4:], jnp.float32)
        tracked, serves = arm.track(jnp.asarray(R, jnp.float32), p_base_palm)
        if not bool(serves):
            return links
        q_arm = np.asarray(tracked)
    links["world", "ra_base_link"] = wxyz_xyz_world_base[None]
    placed = arm.forward(jnp.asarray(q_arm, jnp.float32))
    turns, p = np.asarray(placed.R, np.float64), np.asarray(placed.p, np.float64)
    frames = {
        name: np.concatenate(
            [Rotation.from_matrix(turns[:, i]).as_quat(scalar_first=True), p[:, i]], axis=1
        )
        for i, name in enumerate(arm.LINKS)
    }
    # Single precision of the arm's joints stops here: the forearm is where the palm wants it.
    base = links["world", "ra_base_link"]
    frames["rh_forearm"] = rigid.compose(rigid.inverse(base), links.pop(("world", "rh_forearm")))
    for name, parent, rpy in (
        ("ra_base_link_inertia", "ra_base_link", (0.0, 0.0, np.pi)),
        ("ra_flange", "ra_wrist_3_link", (0.0, -np.pi / 2, -np.pi / 2)),
    ):
        turn = Rotation.from_euler("xyz", rpy).as_quat(scalar_first=True)
        local = np.concatenate([turn, np.zeros(3)])[None]
        frames[name] = rigid.compose(frames[parent], local)
    chain = ("ra_base_link", "ra_base_link_inertia", *arm.LINKS[1:7], "ra_flange", "rh_forearm")
    for parent, name in itertools.pairwise(chain):
        links[parent, name] = rigid.compose(rigid.inverse(frames[parent]), frames[name])
    return links
