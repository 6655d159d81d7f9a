"""Cold start: what is needed without extras, and processes that fail are told."""

import pytest

from benchmarks import cold_start
from benchmarks.cold_start import ColdStartError


def test_needed_are_the_dependencies_of_dependencies_and_no_extras() -> None:
    found = cold_start.needed("realdex_jax")
    assert {"realdex-jax", "jax", "jaxlib", "mujoco", "numpy", "scipy"} <= found
    assert not found & {"torch", "viser", "rclpy", "google-genai", "pytest"}
    assert sum(map(cold_start._bytes, found)) > 2**28  # jaxlib and mujoco alone are more


def test_importing_takes_nothing_of_extras() -> None:
    took, names = cold_start._run(cold_start._IMPORT)
    assert float(took) > 0.0
    assert "realdex_jax" in names.split()
    assert not set(names.split()) & cold_start._optional()


def test_a_process_that_fails_is_told() -> None:
    with pytest.raises(ColdStartError, match="ZeroDivisionError"):
        cold_start._run("1 / 0")
