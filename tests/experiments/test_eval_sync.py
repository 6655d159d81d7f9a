"""The scene that synchronisation is judged on, and one rig of it."""

import numpy as np
import pytest
from rich.console import Console

from experiments import eval_sync, sync_scene
from experiments.eval_sync import EvalSync
from realdex_jax.errors import ConfigError
from sim.sequence import Sequence


def once() -> Sequence:
    time_s = np.arange(31) / 15
    phi = np.zeros((31, 28))
    phi[:, 22] = 0.1 * time_s
    place = np.repeat(np.eye(7)[:1], 31, axis=0)
    return Sequence(time_s, phi, place, np.zeros(3))


def test_to_and_fro_goes_back_as_it_came() -> None:
    made = sync_scene.to_and_fro(once(), 20.0, np.random.default_rng(0))
    assert made.end_s >= 20.0
    assert (np.diff(made.time_s) > 0.0).all()
    x = made.phi[:, 22]
    assert x.min() == 0.0
    assert x.max() == pytest.approx(0.2)
    # Never faster than its quickest pace, so nothing jumps where it turns.
    assert np.abs(np.diff(x) / np.diff(made.time_s)).max() < 0.1 * 1.25 * 1.1


def test_too_short_a_recording_is_refused(tmp_path) -> None:
    with pytest.raises(ConfigError, match="20 s"):
        eval_sync.run(EvalSync(seconds=5.0, out=tmp_path), Console(quiet=True))


@pytest.mark.slow
def test_one_rig_is_synchronised(tmp_path) -> None:
    config = EvalSync(seeds=1, seconds=30.0, depth_width=160, out=tmp_path)
    (one,) = eval_sync.run(config, Console(quiet=True))
    assert np.abs(one.error_s).max() < 0.005
    assert (tmp_path / "results.json").is_file()
    assert (tmp_path / "sync.png").is_file()
