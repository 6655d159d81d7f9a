"""The packages of the repository, from the core outward."""

PACKAGES = (
    "realdex_jax",
    "sim",
    "study",
    "capture",
    "robot",
    "viewer",
    "experiments",
    "benchmarks",
)
