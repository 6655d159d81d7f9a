import dataclasses

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from realdex_jax.data import motion as motions
from realdex_jax.data.motion import Motion
from realdex_jax.errors import DatasetError
from realdex_jax.hand import joints


@pytest.fixture
def turning(rng) -> Motion:
    """Two seconds at 100 Hz: an even turn through more than half a circle, an even slide."""
    time = np.arange(201) / 100.0
    share = time[:, None] / 2.0
    axis = np.array([0.48, 0.6, 0.64])
    q = joints.LOWER + (0.2 + 0.6 * share) * (joints.UPPER - joints.LOWER)
    palm = Rotation.from_rotvec(4.0 * share * axis).as_rotvec()
    object_ = Rotation.from_rotvec(-1.0 * share * axis).as_quat(scalar_first=True)
    return Motion(
        time=time,
        phi=np.concatenate([q, share * [0.3, -0.2, 0.1], palm], axis=1).astype(np.float32),
        wxyz_xyz_world_object=np.concatenate([object_, share * [0.1, 0.0, 0.2]], axis=1),
    )


def test_an_even_motion_stays_even_through_half_turns(turning):
    at15 = motions.resample(turning)
    assert len(at15) == 31
    np.testing.assert_allclose(np.diff(at15.time), 1 / 15, atol=1e-6)
    share = at15.time[:, None] / 2.0
    np.testing.assert_allclose(at15.phi[:, 22:25], share * [0.3, -0.2, 0.1], atol=1e-6)
    palm = Rotation.from_rotvec(at15.phi[:, 25:])
    step = (palm[:-1].inv() * palm[1:]).magnitude()
    # The axis-angle jumps at pi; the rotation does not. Float32 vectors leave about 1e-6.
    np.testing.assert_allclose(step, 4.0 / 30, atol=1e-5)
    motions.validate(at15)
    again = motions.resample(at15)
    np.testing.assert_allclose(again.phi[:, :25], at15.phi[:, :25], atol=1e-5)


def test_seen_from_the_object_the_object_rests_and_the_distance_stays(turning):
    seen = motions.in_object_frame(turning)
    world = np.asarray(turning.wxyz_xyz_world_object)
    body = Rotation.from_quat(world[:, :4], scalar_first=True)
    back = body.apply(np.asarray(seen.phi)[:, 22:25]) + world[:, 4:]
    np.testing.assert_allclose(back, turning.phi[:, 22:25], atol=1e-6)
    turned = body * Rotation.from_rotvec(np.asarray(seen.phi)[:, 25:])
    error = (turned.inv() * Rotation.from_rotvec(turning.phi[:, 25:])).magnitude()
    assert error.max() < 1e-5
    np.testing.assert_array_equal(seen.wxyz_xyz_world_object[:, 1:], 0.0)


def spoilt(motion, name, frame, value):
    array = np.array(getattr(motion, name))
    array[frame] = value
    return dataclasses.replace(motion, **{name: array})


def test_bad_motions_are_named(turning):
    short = Motion(turning.time[:5], turning.phi[:5], turning.wxyz_xyz_world_object[:5])
    cases = [
        (short, "5 frames; a motion has at least 6"),
        (spoilt(turning, "phi", 7, np.nan), "phi of frame 7 is not finite"),
        (spoilt(turning, "time", 9, 0.0), "time does not rise at frame 9"),
        (spoilt(turning, "phi", (3, 5), 3.0), "of frame 3: MFJ3 = 3.000 rad; its limits are"),
        (spoilt(turning, "wxyz_xyz_world_object", 4, 0.0), "quaternion in frame 4 has length 0"),
    ]
    for motion, message in cases:
        with pytest.raises(DatasetError, match=message):
            motions.validate(motion)
    with pytest.raises(DatasetError, match="give 3 frames"):
        motions.resample(turning, 1.0)
    with pytest.raises(DatasetError, match="must be positive"):
        motions.resample(turning, 0.0)
