"""An object's cloud as the capture rig brings it: of four cameras, merged, the table taken off."""

import dataclasses

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from capture import cloud, segmentation, virtual
from capture.device import CaptureError, Frame, Optics
from realdex_jax.data import rigid
from realdex_jax.errors import ConfigError
from realdex_jax.geometry import support
from realdex_jax.geometry.shape import ObjectShape
from realdex_jax.geometry.view import DepthNoise
from realdex_jax.hand.load import HandModel
from sim import film
from sim.stage import Stage, load_stage

ABOVE = 0.003
"""Metres above the table from which on points are the object's: the table's own are within 1."""
_OUT_OF_SIGHT = np.zeros(28, np.float32)
_OUT_OF_SIGHT[24] = 5.0


@dataclasses.dataclass(frozen=True)
class RigErrors:
    """How wrong a calibration is."""

    place_m: float = 0.0006
    """Standard deviation, along each axis, of the error of a camera's place."""
    turn_rad: float = 0.0007
    """The same of its orientation, about each axis."""


def photographed(
    stage: Stage,
    seed: int,
    rng: np.random.Generator,
    *,
    width: int = 480,
    depth_width: int = 640,
    errors: RigErrors = RigErrors(),
) -> tuple[dict[int, Frame], dict[int, Optics], dict[int, np.ndarray]]:
    """What the four cameras of a virtual rig take of a stage as it is placed.

    Args:
        stage: Hand, object, table.
        seed: Of the rig: lenses and places.
        rng: Random numbers: noise of depth, errors of the calibration.
        width: Columns of the colour pictures.
        depth_width: Columns of the depth pictures.
        errors: Of the calibration.

    Returns:
        Frames, lenses, and T_world_cam as the calibration says, by camera.
    """
    rig = film.around_table(seed, width, depth_width)
    frames, optics, places = {}, {}, {}
    for c, pair in enumerate(rig.lenses):
        place = rig.wxyz_xyz_world_cam[c]
        shown = film.expose(stage, pair, place, rng, DepthNoise())
        frames[c] = Frame(c, 0, 0, 0, shown.colour, shown.depth)
        optics[c] = virtual.optics_of(pair)
        turn = Rotation.from_rotvec(errors.turn_rad * rng.normal(size=3))
        shift = errors.place_m * rng.normal(size=3)
        off = np.concatenate([turn.as_quat(scalar_first=True), shift])
        places[c] = rigid.compose(place, off)
    return frames, optics, places


def captured(
    hand: HandModel, shape: ObjectShape, seed: int
) -> tuple[Float[np.ndarray, "n 3"], Float[np.ndarray, "n 3"]]:
    """Points (m, object frame) and outward normals of an object that stands alone on the table.

    The flat underside that it must have where it stands is added: no camera sees it.

    Args:
        hand: Any; it is out of sight.
        shape: The object, upright.
        seed: Of rig, noise and errors of calibration.

    Raises:
        CaptureError: The cameras see nothing that stands above the table.
    """
    rng = np.random.default_rng([seed, 7])
    z = -float(shape.bounds[0, 2])
    stage = load_stage(hand, shape)
    stage.place(_OUT_OF_SIGHT, np.array([1.0, 0, 0, 0, 0, 0, z]), np.zeros(3))
    made = cloud.merged(*photographed(stage, seed, rng))
    above = made.p_world[:, 2] > ABOVE
    p, n = made.p_world[above], made.normal_world[above]
    found = segmentation.things(p)
    if not found:
        raise CaptureError(
            f"{len(p)} points more than {1000 * ABOVE:g} mm above the table, and no thing among "
            "them; the object must be higher, and where the cameras look"
        )
    thing = found[0]
    p = support.closed(p[thing], 0.0)
    n = np.concatenate([n[thing], np.tile([0.0, 0.0, -1.0], (len(p) - thing.sum(), 1))])
    return p - [0.0, 0.0, z], n


def check_rigs(seeds: int, place_mm: float, turn_deg: float) -> None:
    """Refuses counts of virtual rigs, or errors of their places, that make no sense.

    Raises:
        ConfigError: No rig, or a negative error.
    """
    if seeds < 1 or min(place_mm, turn_deg) < 0.0:
        raise ConfigError(
            f"--seeds {seeds}, --place-mm {place_mm}, --turn-deg {turn_deg}; at least 1, 0 and 0"
        )
