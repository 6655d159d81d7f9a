import dataclasses
import errno
import json
import os
import shutil
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import train_pose
from realdex_jax.data import object_files, store
from realdex_jax.data.pipeline import Sampling
from realdex_jax.data.schema import GraspSet
from realdex_jax.errors import CheckpointError, DatasetError, TrainingError
from realdex_jax.hand import joints
from realdex_jax.models import generator, grasp_model
from realdex_jax.models.contact_net import ContactNetConfig
from realdex_jax.models.cvae import CvaeConfig
from realdex_jax.models.grasp_model import NetworkConfig
from realdex_jax.training import checkpoint, loop
from realdex_jax.training import state as states
from realdex_jax.training.loop import Hooks, Schedule, StopRequest
from realdex_jax.training.state import Optimisation

TINY = NetworkConfig(
    contact=ContactNetConfig((8, 16), (8, 16), (16, 8)),
    generator=CvaeConfig(
        latent=4,
        object_encoder=(8, 16),
        hand_encoder=(8, 16),
        posterior=(16,),
        decoder=16,
        blocks=1,
    ),
    points=32,
    hand_points=64,
)
RECIPE = train_pose.Recipe(
    network=TINY,
    sampling=Sampling(objects=2, grasps=2, points=32),
    optimisation=Optimisation(steps=10, warmup=2),
    log_every=1,
    save_every=5,
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    rng = np.random.default_rng(0)
    grasps, surfaces = {}, {}
    for name in ("a", "b", "c"):
        normal = rng.normal(size=(200, 3))
        normal /= np.linalg.norm(normal, axis=1, keepdims=True)
        surfaces[name] = object_files.Surface(normal * 0.04, normal)
        q = rng.uniform(joints.LOWER, joints.UPPER, (6, 22))
        phi = np.concatenate([q, rng.normal(0, 0.06, (6, 3)), rng.normal(0, 1, (6, 3))], axis=1)
        grasps[name] = GraspSet(phi.astype(np.float32), phi[:, :22], phi[:, :22])
    path = tmp_path_factory.mktemp("data") / "tiny"
    store.write_dataset(
        path,
        name="tiny",
        version="1",
        grasps=grasps,
        splits={"train": ["a", "b", "c"], "val": [], "test": []},
        recipe={},
        surfaces=surfaces,
        schemes={"category": {"train": ["a", "c"], "val": [], "test": ["b"]}},
    )
    return str(path)


def equal(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


@pytest.fixture
def compiled_once(tmp_path):
    """Three runs of one recipe need one compilation, which is nearly all of their time."""
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    for name, value in zip(names, (str(tmp_path / "cache"), 1.0), strict=True):
        jax.config.update(name, value)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.mark.slow
@pytest.mark.usefixtures("compiled_once")
def test_resume_is_bit_exact_and_a_term_signal_stops_cleanly(data, tmp_path, monkeypatch, capsys):
    whole = train_pose.train(RECIPE, data, tmp_path / "whole")

    original = loop.run

    def interrupted(state, step, batch_at, *args, **kwargs):
        def batch_then_signal(i):
            if i == 4:
                os.kill(os.getpid(), signal.SIGTERM)
            return batch_at(i)

        return original(state, step, batch_then_signal, *args, **kwargs)

    monkeypatch.setattr(loop, "run", interrupted)
    assert train_pose.train(RECIPE, data, tmp_path / "parts") is None
    assert "stopped by SIGTERM at step 5" in capsys.readouterr().out
    assert checkpoint.latest(tmp_path / "parts") == 5
    monkeypatch.undo()
    resumed = train_pose.train(RECIPE, data, tmp_path / "parts")
    assert "at step 5" in capsys.readouterr().out
    equal(whole.params, resumed.params)

    # The logs of both runs say the same, and the run's folder says how it was made.
    lines = [
        [
            {k: v for k, v in json.loads(line).items() if k not in ("time", "steps_per_second")}
            for line in (tmp_path / run / "scalars.jsonl").read_text().splitlines()
        ]
        for run in ("whole", "parts")
    ]
    assert lines[0] == lines[1]
    described = json.loads((tmp_path / "whole" / "config.json").read_text())
    assert described["config"]["network"]["points"] == 32
    assert {"commit", "data_digest", "versions"} <= set(described)
    model = grasp_model.load_model(tmp_path / "whole" / "model.safetensors")
    assert model.config == TINY

    other = dataclasses.replace(RECIPE, seed=1)
    with pytest.raises(TrainingError, match=r"another config \(seed: 0 there, 1 now\)"):
        train_pose.train(other, data, tmp_path / "whole")


@dataclasses.dataclass(frozen=True)
class Counter:
    step: jax.Array


def counting(bad_at: int):
    def step(state, batch):
        del batch
        good = float(int(state.step) != bad_at)
        value = jnp.nan if not good else 1.0
        scalars = {
            "finite": jnp.asarray(good),
            "loss": jnp.asarray(value),
            "kl": jnp.asarray(value),
        }
        return Counter(state.step + int(good)), scalars

    return step


def test_a_loss_that_is_not_finite_stops_at_once_and_keeps_the_state_before():
    saved = []
    with pytest.raises(TrainingError, match=r"step 4: kl not finite \(batch: mug, can\)"):
        loop.run(
            Counter(jnp.asarray(0)),
            counting(bad_at=3),
            lambda i: i,
            Schedule(steps=10, save_every=2),
            Hooks(save=lambda step, state: saved.append((step, int(state.step)))),
            stop=StopRequest(),
            names_of=lambda _: "mug, can",
        )
    assert saved == [(2, 2), (3, 3)]


def test_bad_numbers_never_enter_the_state():
    old = states.create({"w": jnp.ones(2)}, Optimisation(steps=10, warmup=1), jax.random.key(0))
    new = dataclasses.replace(old, params={"w": jnp.full(2, jnp.nan)}, step=old.step + 1)
    kept = states.keep_finite(new, old, jnp.asarray(False))
    equal(kept.params, old.params)
    assert int(kept.step) == 0
    taken = states.keep_finite(dataclasses.replace(old, step=old.step + 1), old, jnp.asarray(True))
    assert int(taken.step) == 1


def state_of(width: int):
    params = {"w": jnp.arange(float(width)), "b": jnp.ones((width, 2))}
    return states.create(params, Optimisation(steps=10, warmup=1), jax.random.key(width))


def test_checkpoints_round_trip_and_old_ones_go(tmp_path):
    for step in (1, 2, 3):
        checkpoint.save(tmp_path, step, state_of(4))
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["00000002", "00000003"]
    back = checkpoint.restore(tmp_path, jax.tree.map(jnp.zeros_like, state_of(4)))
    equal(back.params, state_of(4).params)
    assert bool((jax.random.key_data(back.key) == jax.random.key_data(state_of(4).key)).all())


def test_a_checkpoint_of_another_architecture_names_the_differences(tmp_path):
    checkpoint.save(tmp_path, 1, state_of(4))
    with pytest.raises(
        CheckpointError, match=r"another architecture.*params\.w: file \(4,\), model \(6,\)"
    ):
        checkpoint.restore(tmp_path, state_of(6))
    with pytest.raises(CheckpointError, match="known steps: none"):
        checkpoint.restore(tmp_path / "nothing", state_of(4))


def test_a_full_disk_keeps_the_checkpoint_before(tmp_path, monkeypatch):
    checkpoint.save(tmp_path, 1, state_of(4))

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    for broken in ("_save_tree", "write_json"):  # while writing arrays, and at the very end
        monkeypatch.setattr(checkpoint, broken, full)
        with pytest.raises(CheckpointError, match=r"No space left.*older checkpoints are whole"):
            checkpoint.save(tmp_path, 2, state_of(4))
        monkeypatch.undo()
    assert checkpoint.latest(tmp_path) == 1
    equal(checkpoint.restore(tmp_path, state_of(4)).params, state_of(4).params)
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["00000001"]


def test_a_damaged_checkpoint_is_named(tmp_path):
    folder = checkpoint.save(tmp_path, 1, state_of(4))
    (folder / "shapes.json").write_text("{")
    with pytest.raises(CheckpointError, match="is damaged"):
        checkpoint.restore(tmp_path, state_of(4))


def test_warmup_longer_than_the_run_is_refused():
    with pytest.raises(TrainingError, match="warm-up of 100 steps in a run of 20"):
        states.transformation(Optimisation(steps=20, warmup=100))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"steps": 0}, "--steps 0"), ({"rate": 0.0}, "--rate 0"), ({"rate": -1.0}, "between 0 and 1")],
)
def test_zero_is_a_value_not_the_preset(options, message):
    with pytest.raises(TrainingError, match=message):
        train_pose.TrainPose(**options).recipe()


def test_a_short_run_warms_up_over_a_tenth_of_it():
    assert train_pose.TrainPose(steps=50).recipe().optimisation.warmup == 5
    assert train_pose.TrainPose(generator="cvae").recipe() == train_pose.Recipe()


def test_generators_differ_in_network_and_loss_alone():
    of = {kind: train_pose.TrainPose(generator=kind).recipe() for kind in generator.KINDS}
    assert train_pose.TrainPose().recipe() == of["matching"]
    assert train_pose.TrainPose(preset="paper").recipe() == train_pose.PAPER
    for kind, recipe in of.items():
        assert generator.kind_of(recipe.network.generator) == kind
        same = dataclasses.replace(recipe.network, generator=of["cvae"].network.generator)
        assert dataclasses.replace(recipe, network=same, weights=of["cvae"].weights) == of["cvae"]
        assert recipe.network.generator.object_encoder == same.generator.object_encoder
    with pytest.raises(TrainingError, match="the matching generator has no KL term"):
        train_pose.TrainPose(kl=0.1).recipe()


def test_a_continued_run_keeps_its_first_description(tmp_path):
    first = checkpoint.describe({"steps": 1}, "digest")
    checkpoint.claim(tmp_path, {**first, "commit": "one"})
    checkpoint.save(tmp_path, 3, state_of(4))
    checkpoint.claim(tmp_path, {**first, "commit": "two"})
    kept = json.loads((tmp_path / "config.json").read_text())
    assert kept["commit"] == "one"
    assert [(part["step"], part["commit"]) for part in kept["continued"]] == [(3, "two")]

    (tmp_path / "config.json").write_text("{")
    with pytest.raises(TrainingError, match=r"config\.json is damaged"):
        checkpoint.claim(tmp_path, first)


def test_a_stop_before_the_first_step_is_a_stop_not_a_traceback(data, tmp_path, capsys):
    with loop.stop_on_signals(print) as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert train_pose._train(RECIPE, data, tmp_path / "run", False, stop) is None
    assert "once more to stop at once" in capsys.readouterr().out


def test_a_run_under_a_scheme_trains_on_its_part_and_says_so(data, tmp_path, capsys):
    options = {"preset": "smoke", "data": data, "scheme": "category", "run": tmp_path / "run"}
    options["generator"] = "cvae"
    recipe = train_pose.TrainPose(**options).recipe()
    assert recipe == dataclasses.replace(train_pose.PRESETS["smoke"], scheme="category")
    with loop.stop_on_signals(print) as stop:
        os.kill(os.getpid(), signal.SIGINT)  # before the first step: compiling takes a minute
        recipe = dataclasses.replace(RECIPE, scheme="category")
        assert train_pose._train(recipe, data, tmp_path / "run", False, stop) is None
    assert "2 objects" in capsys.readouterr().out
    described = json.loads((tmp_path / "run" / "config.json").read_text())
    assert described["config"]["scheme"] == "category"
    assert described["data_digest"] == store.open_dataset(data, "category").digest
    with pytest.raises(SystemExit, match="2"):
        train_pose.main(train_pose.TrainPose(**{**options, "scheme": "shape"}))
    assert "no split scheme 'shape' in tiny; known: object, category" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.long
def test_a_damaged_object_is_left_out_and_named_or_ends_a_strict_run(data, tmp_path, capsys):
    folder = tmp_path / "data"
    shutil.copytree(data, folder)
    (folder / "grasps" / "b.npz").write_bytes(b"PK")
    recipe = dataclasses.replace(RECIPE, optimisation=Optimisation(steps=2, warmup=1))
    with pytest.raises(DatasetError, match=r"b\.npz differs from the digest"):
        train_pose.train(recipe, str(folder), tmp_path / "strict", strict=True)
    assert train_pose.train(recipe, str(folder), tmp_path / "run") is not None
    assert "1 objects cannot be read, first: b: " in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.long
def test_a_short_run_under_a_scheme_ends_with_a_model_that_names_it(data, tmp_path):
    recipe = dataclasses.replace(
        RECIPE, scheme="category", optimisation=Optimisation(steps=2, warmup=1)
    )
    assert train_pose.train(recipe, data, tmp_path) is not None
    header = (tmp_path / "model.safetensors").read_bytes()[:20_000]
    assert b"category" in header
    with pytest.raises(TrainingError, match="scheme: category there, object now"):
        train_pose.train(dataclasses.replace(recipe, scheme="object"), data, tmp_path)


def test_a_run_of_other_settings_is_named_by_its_first_differences(tmp_path):
    checkpoint.claim(tmp_path, checkpoint.describe({"a": {"b": 1, "c": 2, "d": 3}, "e": 4}, "x"))
    checkpoint.save(tmp_path, 3, state_of(4))
    other = checkpoint.describe({"a": {"b": 3, "c": 3, "d": 4}, "e": 5}, "x")
    message = (
        r"config \(a.b: 1 there, 3 now; a.c: 2 there, 3 now; a.d: 3 there, 4 now; and 1 more\)"
    )
    with pytest.raises(TrainingError, match=message):
        checkpoint.claim(tmp_path, other)


@pytest.mark.slow
def test_a_folder_that_cannot_be_made_ends_in_one_line(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit, match="2"):
        train_pose.main(train_pose.TrainPose(preset="smoke", run=tmp_path / "file"))
    assert str(tmp_path / "file") in capsys.readouterr().err


@pytest.mark.slow
def test_a_full_disk_ends_in_one_line_and_leaves_the_description_whole(
    tmp_path, monkeypatch, capsys
):
    checkpoint.claim(tmp_path, checkpoint.describe({}, "digest"))
    before = (tmp_path / "config.json").read_text()

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SystemExit, match="2"):
        train_pose.main(train_pose.TrainPose(preset="smoke", run=tmp_path))
    assert "No space left" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["config.json"]
    assert (tmp_path / "config.json").read_text() == before
