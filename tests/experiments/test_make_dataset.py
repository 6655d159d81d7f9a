"""The synthesis run: seeds, resume, and a dataset that opens."""

import dataclasses
import json

import pytest

from experiments import make_dataset
from experiments.make_dataset import MakeDataset
from realdex_jax.data import store


def test_batch_seeds_depend_on_object_and_batch_not_on_order():
    seeds = {make_dataset.batch_seed(0, name, i) for name in ("mug", "bowl") for i in range(50)}
    assert len(seeds) == 100
    assert make_dataset.batch_seed(0, "mug", 3) == make_dataset.batch_seed(0, "mug", 3)
    assert make_dataset.batch_seed(1, "mug", 3) != make_dataset.batch_seed(0, "mug", 3)


@pytest.mark.slow
def test_a_run_writes_a_dataset_and_resumes_without_repeating_work(tmp_path):
    config = MakeDataset(
        out=tmp_path / "data",
        train=4,
        test=4,
        batch=32,
        processes=1,
        objects=("essential_oil", "yogurt", "cosmetics"),
        points=256,
    )
    recipe = make_dataset.run(config)
    dataset = store.open_dataset(config.out)
    assert all(len(dataset.grasps(name)) == 4 for name in dataset.objects)
    assert dataset.recipe["objects"] == recipe["objects"]
    again = make_dataset.run(config)
    assert again["objects"] == recipe["objects"]  # nothing was tried again
    assert store.open_dataset(config.out).digest == dataset.digest
    more = make_dataset.run(dataclasses.replace(config, train=6))
    note = json.loads((tmp_path / "data.parts" / "essential_oil.json").read_text())
    assert more["objects"]["essential_oil"]["starts"] == note["tally"]["starts"]
    assert len(store.open_dataset(config.out).grasps("essential_oil")) == 6
