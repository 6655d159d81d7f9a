import pathlib
from collections.abc import Callable

from benchmarks import physics
from realdex_jax.data import store
from realdex_jax.data.schema import GraspSet


def test_a_rate_is_measured_per_object(
    tmp_path: pathlib.Path, open_palm: Callable[[int], GraspSet]
) -> None:
    store.write_dataset(
        tmp_path / "tiny",
        name="tiny",
        version="1",
        grasps={"cosmetics": open_palm(4)},
        splits={"train": [], "val": [], "test": ["cosmetics"]},
        recipe={},
    )
    (timing,) = physics.measure(("cosmetics",), grasps=6, repeats=1, data=str(tmp_path / "tiny"))
    assert timing.name == "cosmetics"
    assert timing.items == 6
    assert timing.per_second > 0
