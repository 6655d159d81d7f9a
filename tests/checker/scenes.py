"""A scene for virtual cameras: a hand that comes down beside a mug, then both rise."""

import numpy as np
from scipy.spatial.transform import Rotation

from realdex_jax.geometry.view import DepthNoise
from realdex_jax.hand import joints
from sim import objects, sequence
from sim.sequence import Sequence

IDEAL = DepthNoise(
    axial=0.0, axial_growth=0.0, lateral=0.0, slant=(1.6, 1.7), edge_lost=0.0, edge_flying=0.0
)
"""A depth camera without faults."""


def beside_a_mug() -> Sequence:
    """A second of a reach, and a second of a lift by 10 cm."""
    phi = np.zeros((16, 28))
    phi[:, :22] = np.clip(joints.REST, joints.LOWER, joints.UPPER)
    R = np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    phi[:, 22:25], phi[:, 25:] = [-0.16, 0.0, 0.12], Rotation.from_matrix(R).as_rotvec()
    phi[:, 24] += np.linspace(0.1, 0.0, 16)
    bottom = -objects.make("mug").bounds[0, 2]
    place = np.array([np.cos(0.3), 0, 0, np.sin(0.3), 0.05, 0.02, bottom])
    still = np.repeat(place[None], 16, axis=0)
    reach = Sequence(np.arange(16) / 15, phi, still, np.array([0.05, 0.02, 0.0]))
    return sequence.carried(reach, 0.1, 1.0)
