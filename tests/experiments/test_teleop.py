"""The command line of teleoperation, onto a simulated robot of its own process."""

import dataclasses
import io
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from experiments import teleop as script
from realdex_jax.data import npz, store
from realdex_jax.errors import ConfigError
from realdex_jax.hand import human, joints
from realdex_jax.hand.load import load
from robot import ros2

NEEDS_ROS = pytest.mark.skipif(bool(ros2.available()), reason=ros2.available() or "-")


@pytest.fixture(scope="module")
def keypoints(tmp_path_factory):
    """A second of a hand that closes a little, seen 30 times."""
    share = np.linspace(0.0, 1.0, 31)[:, None]
    phi = np.zeros((31, 28))
    phi[:, :22] = np.clip(joints.REST + 0.2 * share, joints.LOWER, joints.UPPER)
    points = np.asarray(human.keypoints_of(load("shadow"), jnp.asarray(phi, jnp.float32)))
    path = tmp_path_factory.mktemp("hand") / "keypoints.npz"
    path.write_bytes(npz.encode({"keypoints": points}))
    return path


def run(args):
    console = Console(file=io.StringIO(), width=120)
    return script.run(args, console), console.file.getvalue()


@pytest.mark.slow
@NEEDS_ROS
def test_a_hand_is_followed_and_recorded(keypoints, tmp_path):
    (timing,), said = run(script.Teleop(keypoints, out=tmp_path / "t"))
    assert "samples/s" in said
    assert len(timing.latency_s) + timing.held + timing.skipped == 101
    dataset = store.open_dataset(tmp_path / "t" / "dataset")
    poses = dataset.motions("free_hand").poses(0)
    arrays = npz.read(tmp_path / "t" / "free_hand_00.npz")
    assert (np.diff(arrays["host_s"]) > 0).all()
    # The fingers did close: by half of what the person's did, at the least, within the second.
    if not timing.held:
        assert (poses[-1, :22] - poses[0, :22]).mean() > 0.05


def test_set_points_alone(keypoints, tmp_path):
    (timing,), _ = run(script.Teleop(keypoints, robot="none", out=tmp_path))
    assert timing.faults == ()
    assert np.median(timing.latency_s) < 0.01
    assert not list(tmp_path.glob("*.npz"))


def test_a_real_robot_needs_a_word(keypoints, tmp_path, monkeypatch):
    """Nothing is even connected before."""
    args = script.Teleop(keypoints, robot="shadow_ur10e", out=tmp_path)
    monkeypatch.setattr(script, "Ros2Robot", lambda *_: pytest.fail("connected"))
    with pytest.raises(ConfigError, match="add --execute"):
        run(args)
    for typed in ("", "yes\n", "MOVE THE ROBOT\n"):
        monkeypatch.setattr("sys.stdin", io.StringIO(typed))
        with pytest.raises(ConfigError, match="not confirmed"):
            run(dataclasses.replace(args, execute=True))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"source": Path("nowhere.npz")}, "no such file"),
        ({"count": 0}, "--count 0"),
        ({"speed": 9.0}, "--speed 9.0"),
    ],
)
def test_mistakes(keypoints, tmp_path, change, told):
    args = dataclasses.replace(script.Teleop(keypoints, robot="none", out=tmp_path), **change)
    with pytest.raises(ConfigError, match=told):
        run(args)
