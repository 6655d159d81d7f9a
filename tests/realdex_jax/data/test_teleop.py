import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from realdex_jax.data import motion, teleop
from realdex_jax.errors import DatasetError
from realdex_jax.hand import joints


@pytest.fixture(scope="module")
def demonstrations(request):
    shared = request.getfixturevalue("shared")
    path = shared / "data" / "adroit_door" / "door_human_demos.npz"
    if not path.is_file():
        pytest.skip("no Adroit demonstrations at ../shared/data/adroit_door")
    return path, teleop.read_adroit(path)


def test_all_demonstrations_are_read(demonstrations):
    _, found = demonstrations
    assert len(found) == 25
    assert sum(len(m) for m in found) == 6729
    assert {len(motion.resample(m)) for m in found} <= set(range(33, 46))


def test_the_palm_is_where_the_observations_say(demonstrations):
    path, found = demonstrations
    with np.load(path) as arrays:
        for number, read in enumerate(found):
            observed = arrays[f"observations_{number:02d}"]
            palm = Rotation.from_rotvec(read.phi[:, 25:])
            site = read.phi[:, 22:25] + palm.apply(teleop._P_PALM_SITE)
            error = np.linalg.norm(site - observed[:, 29:32], axis=1)
            # Recorded positions lag the joints by one 2 ms step of the 10 ms between frames: a
            # fifth of the way since the last frame, a little more while the hand slows down.
            way = np.linalg.norm(np.diff(site, axis=0), axis=1)
            assert (error[1:] <= 0.3 * way + 1e-3).all(), (error[1:] - 0.3 * way).max()
            assert np.linalg.norm(site[0] - observed[0, 29:32]) < 5e-4, "at rest there is no lag"


def test_the_handle_turns_with_hinge_and_latch(demonstrations):
    path, found = demonstrations
    with np.load(path) as arrays:
        for number, read in enumerate(found):
            hinge = arrays[f"init_door_body_pos_{number:02d}"] + [0.6, 0.0, 0.0]
            pose = read.wxyz_xyz_world_object
            handle = Rotation.from_quat(pose[:, :4], scalar_first=True)
            grip_to_latch = handle.apply([-0.15, 0.15, 0.0])
            latch = pose[:, 4:] + grip_to_latch
            # The latch keeps its distance from the hinge's axis as the door swings.
            radius = np.linalg.norm((latch - hinge)[:, :2], axis=1)
            np.testing.assert_allclose(radius, 0.46, atol=0.006)


def test_the_hand_reaches_the_handle_and_fingers_close(demonstrations):
    _, found = demonstrations
    for read in found:
        gap = np.linalg.norm(read.phi[:, 22:25] - read.wxyz_xyz_world_object[:, 4:], axis=1)
        assert gap.min() < 0.15 < gap[0]
        assert (read.phi[:, :22] >= joints.LOWER).all()
        assert (read.phi[:, :22] <= joints.UPPER).all()


def test_bad_files_are_named(tmp_path):
    def write(**arrays):
        np.savez(tmp_path / "d.npz", **arrays)
        return tmp_path / "d.npz"

    good = np.zeros((8, 39))
    assert len(teleop.read_adroit(write(observations_00=good))) == 1
    bent = good.copy()
    bent[2, 6] = 2.5
    lost = good.copy()
    lost[5, 0] = np.nan
    for arrays, message in [
        ({"other": good}, "no arrays observations_NN; it has other"),
        ({"observations_00": good[:, :30]}, r"must be \(t, 39\)"),
        ({"observations_00": good[:4]}, "4 frames; a motion has at least 6"),
        ({"observations_00": lost}, "frame 5 is not finite"),
        ({"observations_00": bent}, "FFJ3 = 2.500 rad in frame 2, 0.929 beyond"),
    ]:
        with pytest.raises(DatasetError, match=message):
            teleop.read_adroit(write(**arrays))
    with pytest.raises(DatasetError):
        teleop.read_adroit(tmp_path / "missing.npz")
