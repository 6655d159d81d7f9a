"""What the two lenses of four virtual Azure Kinects take of a scene, exposure by exposure.

Colour is taken through the colour lens, depth in the depth lens's own picture: distorted, staggered
in time, and with the noise of `sim.kinect`. `sim.rig` has one lens for both, as the release's
pictures do.
"""

from __future__ import annotations

import dataclasses
import functools
import threading

import numpy as np
from jaxtyping import Bool, Float, UInt8, UInt16

from realdex_jax.data import realdex_write, rigid
from realdex_jax.geometry import lens as optics
from realdex_jax.geometry.lens import Lens
from realdex_jax.geometry.shape import ObjectShape
from realdex_jax.geometry.view import DepthNoise
from realdex_jax.hand.load import HandModel
from sim import clocks, kinect, lenses, render, rig
from sim.clocks import Clocks
from sim.kinect import DepthCamera
from sim.lenses import Lenses
from sim.render import Camera
from sim.sequence import Sequence
from sim.stage import Stage, load_stage


@dataclasses.dataclass(frozen=True, eq=False)
class VirtualRig:
    """Cameras around a table, each with two lenses and a clock of its own."""

    lenses: tuple[Lenses, ...]
    """By camera."""
    wxyz_xyz_world_cam: Float[np.ndarray, "c 7"]
    """T_world_cam by camera; a camera's frame is its colour lens's."""
    clocks: Clocks
    """When they expose, and what they say then."""


@dataclasses.dataclass(frozen=True, eq=False)
class Exposure:
    """What one camera takes at one moment."""

    colour: UInt8[np.ndarray, "h w 3"]
    """Through the colour lens."""
    depth: UInt16[np.ndarray, "H W"]
    """Millimetres along the optical axis, in the depth lens's picture; 0 without a reading."""


def around_table(
    seed: int,
    width: int = 1920,
    depth_width: int = 640,
    *,
    timing: Clocks | None = None,
    astray: tuple[float, float] = (0.02, 0.035),
) -> VirtualRig:
    """Four cameras around a table, none quite where it was meant to be.

    Args:
        seed: Of lenses, places and clocks.
        width: Columns of the colour pictures, of 16 to 9.
        depth_width: Columns of the depth pictures, of 10 to 9.
        timing: When they expose; drawn by the seed if None.
        astray: Standard deviation of places (m) and of turns (rad), along and about each axis.

    Raises:
        CameraError: As `lenses.draw`.
    """
    meant = rig.around_table(64)
    count = len(meant.calibration.cameras)
    places = np.stack([meant.wxyz_xyz_world_cam(c) for c in range(count)])
    return VirtualRig(
        tuple(lenses.draw(c, seed, width, depth_width) for c in range(count)),
        rig.astray(places, seed, astray),
        timing or clocks.draw(count, seed),
    )


class Film:
    """The exposures of a rig of one scene; may be asked by several threads."""

    def __init__(
        self,
        cameras: VirtualRig,
        hand: HandModel,
        shape: ObjectShape,
        sequence: Sequence,
        *,
        noise: DepthNoise | None = None,
        seed: int = 0,
    ) -> None:
        """Makes the stage.

        Args:
            cameras: The rig.
            hand: The hand.
            shape: The object.
            sequence: How they move; it begins at the rig's true time 0.
            noise: Faults of the depth; an Azure Kinect's if None.
            seed: Of the noise. Every exposure has its own, in whatever order they are asked for.
        """
        self.rig, self.sequence, self.seed = cameras, sequence, seed
        self._noise = noise or DepthNoise()
        self._stage = load_stage(hand, shape)
        self._placing = threading.Lock()

    @property
    def count(self) -> int:
        """Exposures of each camera while the scene moves."""
        return max(int(self.sequence.end_s * self.rig.clocks.fps) + 1, 1)

    def __call__(self, camera: int, number: int) -> Exposure:
        """One exposure of one camera, at its true time."""
        rng = np.random.default_rng([self.seed, camera, number])
        return self.at(camera, self.rig.clocks.exposure_s(camera, number), rng)

    def at(self, camera: int, true_s: float, rng: np.random.Generator) -> Exposure:
        """What a camera would take at any time (s).

        Args:
            camera: Its number.
            true_s: True time, seconds.
            rng: random numbers, of the depth.
        """
        moment = np.array([true_s])
        phi = self.sequence.hand_at(moment)[0].astype(np.float32)
        place = self.sequence.object_at(moment)[0]
        with self._placing:  # others would move the stage in the midst of a picture
            self._stage.place(phi, place, self.sequence.p_world_table)
            return expose(
                self._stage,
                self.rig.lenses[camera],
                self.rig.wxyz_xyz_world_cam[camera],
                rng,
                self._noise,
            )


def expose(
    stage: Stage,
    pair: Lenses,
    wxyz_xyz_world_cam: Float[np.ndarray, " 7"],
    rng: np.random.Generator,
    noise: DepthNoise,
) -> Exposure:
    """What a camera takes of a stage as it is placed.

    Args:
        stage: The stage.
        pair: The camera's lenses.
        wxyz_xyz_world_cam: T_world_cam, of the colour lens.
        rng: random numbers, of the depth.
        noise: faults of the depth.
    """
    camera = behind(pair.colour, wxyz_xyz_world_cam)
    size = pair.colour.width, pair.colour.height
    colour = render.take(stage, camera, size, smooth=False, touched=False)
    T_world_depth = rigid.compose(wxyz_xyz_world_cam, pair.wxyz_xyz_colour_depth)
    return Exposure(colour, depth_picture(stage, pair.depth, T_world_depth, rng, noise))


def depth_picture(
    stage: Stage,
    lens: Lens,
    wxyz_xyz_world_depth: Float[np.ndarray, " 7"],
    rng: np.random.Generator,
    noise: DepthNoise,
) -> UInt16[np.ndarray, "H W"]:
    """What a depth lens measures of a stage as it is placed, millimetres; 0 without a reading.

    Args:
        stage: The stage.
        lens: The depth lens.
        wxyz_xyz_world_depth: T_world_depth: quaternion wxyz and position (m).
        rng: random numbers.
        noise: its faults.
    """
    camera = behind(lens, wxyz_xyz_world_depth)
    looks = _looks(lens)
    pixels = (
        noise.lateral * np.array([lens.fx, lens.fy]) * rng.normal(size=(lens.height, lens.width, 2))
    )
    flat = looks.flat + pixels[..., :1] * looks.by_column + pixels[..., 1:] * looks.by_row
    v_depth = np.concatenate([flat, np.ones_like(flat[..., :1])], axis=-1).reshape(-1, 3)
    v_depth /= np.linalg.norm(v_depth, axis=1, keepdims=True)
    v_world = v_depth @ camera.R_world_cam.T
    hits = stage.cast(camera.p_world, v_world)
    hit = (hits.geom >= 0) & looks.there.ravel()
    cosine = np.abs(np.einsum("ri,ri->r", v_world, hits.normal))
    incidence = np.where(hit, np.arccos(np.clip(cosine, 0.0, 1.0)), 0.0)
    distance = np.where(hit, hits.distance, np.inf)
    rows = lens.height, lens.width
    measured = kinect.readings(distance.reshape(rows), incidence.reshape(rows), rng, noise)
    depth = measured * looks.rays[:, 2].reshape(rows)
    reported = (depth >= DepthCamera().near) & (depth <= DepthCamera().far)
    return realdex_write.millimetres(np.where(reported, depth, 0.0))


@dataclasses.dataclass(frozen=True)
class _Behind(Camera):
    """A camera of the renderer behind a lens; its pixels begin at a corner."""

    lens: Lens

    def rays(
        self, pixels: Float[np.ndarray, "r 2"], size: tuple[int, int]
    ) -> Float[np.ndarray, "r 3"]:
        # Only middles of pixels are asked for: the lens is not inverted anew for every picture.
        column, row = pixels.astype(np.int64).T
        return _looks(self.lens).rays[row * size[0] + column] @ self.R_world_cam.T


def behind(lens: Lens, wxyz_xyz_world_lens: Float[np.ndarray, " 7"]) -> Camera:
    """A camera for `render.take(..., smooth=False)` that looks through a lens.

    Args:
        lens: The lens.
        wxyz_xyz_world_lens: T_world_lens: quaternion wxyz and position (m).
    """
    T = rigid.matrix(wxyz_xyz_world_lens)
    return _Behind(T[:3, 3], T[:3, :3], lens)


@dataclasses.dataclass(frozen=True, eq=False)
class _Looks:
    """Where the pixels of a lens look."""

    rays: Float[np.ndarray, "r 3"]
    """Unit directions, row by row; straight ahead for pixels that have none."""
    flat: Float[np.ndarray, "h w 2"]
    """The same as x/z, y/z."""
    by_column: Float[np.ndarray, "h w 2"]
    """How they change with the column."""
    by_row: Float[np.ndarray, "h w 2"]
    there: Bool[np.ndarray, "h w"]
    """Pixels that have a direction."""


@functools.lru_cache(maxsize=16)
def _looks(lens: Lens) -> _Looks:
    """Two lenses of four cameras at a time: 180 MB with colour pictures 1280 wide."""
    flat = lens.undistort(optics.grid(lens.width, lens.height))
    there = np.isfinite(flat[:, 0]) & np.isfinite(flat[:, 1])
    flat = np.where(there[:, None], flat, 0.0)
    rays = np.concatenate([flat, np.ones((len(flat), 1))], axis=1)
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    shape = lens.height, lens.width
    flat = flat.reshape(*shape, 2)
    by_row, by_column = (np.asarray(np.gradient(flat, axis=axis)) for axis in (0, 1))
    return _Looks(rays, flat, by_column, by_row, there.reshape(shape))
