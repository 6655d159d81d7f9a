"""A made-up capture, and its files as the release would hold them."""

import dataclasses

import numpy as np
import pytest
from scipy.spatial.transform import Rotation, Slerp


@pytest.fixture(scope="session")
def capture():
    """Makes a reach of 24 frames to an object at rest, then a lift of 12; a motion at 15 Hz."""
    from realdex_jax.data.motion import RATE, Motion
    from realdex_jax.hand import joints

    def make(seed: int = 0, reach: int = 24, lift: int = 12) -> Motion:
        rng = np.random.default_rng(seed)
        share = np.clip(np.arange(reach + lift) / (reach - 1), 0, 1)[:, None]
        middle = (joints.LOWER + joints.UPPER) / 2
        q = middle + 0.3 * rng.uniform(-1, 1, 22) * (joints.UPPER - joints.LOWER) * share
        R_object = Rotation.random(rng=rng)
        p_object = np.array([1.2, 0.1, 0.9])
        ends = Rotation.concatenate([Rotation.random(rng=rng)] * 2)
        ends = Rotation.concatenate([ends[0], ends[0] * Rotation.from_rotvec([0.3, 0.2, -0.4])])
        R_palm = Slerp([0, 1], ends)(share[:, 0])
        # The palm ends with the object in its grip, 8 cm along the fingers and 4 before the palm.
        p_goal = p_object - ends[1].apply([0.0, -0.04, 0.08])
        p_palm = p_goal + (1 - share) * np.array([-0.3, 0.05, 0.2])
        height = np.clip(np.arange(reach + lift) - reach + 1, 0, None) * 0.02
        rise = height[:, None] * np.array([0.0, 0.0, 1.0])
        phi = np.concatenate([q, p_palm + rise, R_palm.as_rotvec()], axis=1)
        wxyz = np.tile(R_object.as_quat(scalar_first=True), (len(phi), 1))
        return Motion(
            time=np.arange(len(phi)) / RATE,
            phi=phi,
            wxyz_xyz_world_object=np.concatenate([wxyz, p_object + rise], axis=1),
        )

    return make


@pytest.fixture(scope="session")
def ball():
    """Points on a ball of 3 cm about the object's origin."""
    points = np.random.default_rng(1).normal(size=(300, 3))
    return 0.03 * points / np.linalg.norm(points, axis=1, keepdims=True)


@pytest.fixture(scope="session")
def bent():
    """Wrist angles (rad) that change over a motion."""
    return lambda motion: np.stack(
        [np.linspace(-0.3, 0.1, len(motion)), np.linspace(0.2, -0.4, len(motion))], axis=1
    )


@pytest.fixture(scope="session")
def put():
    """Writes files below a folder."""

    def write(folder, files):
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        return folder

    return write


@pytest.fixture(scope="session")
def changed():
    """A motion with other values."""
    return dataclasses.replace
