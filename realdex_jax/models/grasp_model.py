"""The grasp model: contact net, cVAE and the statistics of its data, with its weights file.

Weights travel as safetensors (no code on load): parameters by path, the configuration as JSON in
the header. Published files hold float16.
"""

import dataclasses
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy
from jaxtyping import PRNGKeyArray, PyTree

from realdex_jax import pytree
from realdex_jax.errors import CheckpointError
from realdex_jax.models.contact_net import ContactNet, ContactNetConfig, contact_net
from realdex_jax.models.cvae import Cvae, CvaeConfig, Statistics, cvae

EMBEDDED: dict[str, str] = {"realdex-sim-small": "realdex_sim_small.safetensors"}
"""Models shipped with the package: name to file under `assets/`."""

_FORMAT = "realdex_jax.grasp_model/1"


@dataclasses.dataclass(frozen=True)
class NetworkConfig:
    """Everything that fixes the shapes of the parameters."""

    contact: ContactNetConfig = dataclasses.field(default_factory=ContactNetConfig)
    """Layers of the contact-map network."""
    cvae: CvaeConfig = dataclasses.field(default_factory=CvaeConfig)
    """Layers of the cVAE."""
    points: int = 256
    """Object points the networks are given; other counts work, this one was trained."""
    hand_points: int = 64
    """Hand surface points the networks are given."""


@pytree.dataclass
class Params:
    """Parameters of both networks."""

    contact: Any
    cvae: Any


@pytree.dataclass
class GraspModel:
    """A trained (or fresh) model."""

    config: NetworkConfig = pytree.static()
    params: Params
    statistics: Statistics


@dataclasses.dataclass(frozen=True, eq=False)
class Networks:
    """Both networks as functions."""

    contact: ContactNet
    cvae: Cvae


def networks(config: NetworkConfig) -> Networks:
    """Makes the networks' functions."""
    return Networks(contact_net(config.contact), cvae(config.cvae))


def init(config: NetworkConfig, key: PRNGKeyArray) -> Params:
    """Fresh parameters."""
    key_contact, key_cvae = jax.random.split(key)
    points = jnp.zeros((1, config.points, 3))
    hand_points = jnp.zeros((1, 1, config.hand_points, 3))
    nets = networks(config)
    return Params(
        contact=jax.jit(nets.contact.init)(key_contact, points, hand_points),
        cvae=jax.jit(nets.cvae.init)(key_cvae, points, hand_points),
    )


def parameter_count(params: Params) -> int:
    """Number of trained numbers."""
    return sum(int(np.size(x)) for x in jax.tree.leaves(params))


def save_model(path: str | Path, model: GraspModel, recipe: Mapping[str, Any]) -> None:
    """Writes a model as float16 safetensors, atomically.

    Args:
        path: The file.
        model: The model.
        recipe: How it was trained; must be JSON.

    Raises:
        CheckpointError: The disk is full or the folder cannot be written; an old file is left as
            it was.
    """
    path = Path(path)
    tensors: dict[str, np.ndarray] = {
        k: np.asarray(v).astype(np.float16) for k, v in flat(model.params).items()
    }
    tensors["statistics.t_mean"] = np.asarray(model.statistics.t_mean, np.float32)
    tensors["statistics.t_std"] = np.asarray(model.statistics.t_std, np.float32)
    header = {
        "format": _FORMAT,
        "config": json.dumps(dataclasses.asdict(model.config)),
        "recipe": json.dumps(dict(recipe)),
    }
    content = safetensors.numpy.save(tensors, metadata=header)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as f:
            f.write(content)
            f.flush()
            os.fsync(f.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except OSError as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        raise CheckpointError(
            f"could not write {path}: {error}; an older file is unchanged"
        ) from error


def load_model(source: str | Path) -> GraspModel:
    """Reads a model by name ("realdex-sim-small") or file.

    Raises:
        CheckpointError: No such model, a damaged file, or weights that do not fit their
            configuration.
    """
    path, header, tensors = _read(source)
    try:
        config = config_from_dict(json.loads(header["config"]))
        statistics = Statistics(
            t_mean=tensors.pop("statistics.t_mean"), t_std=tensors.pop("statistics.t_std")
        )
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: unreadable configuration: {error!r}") from error
    shapes = jax.eval_shape(lambda key: init(config, key), jax.random.key(0))
    check_shapes(shapes, {k: v.shape for k, v in tensors.items()}, str(path))
    leaves = [jnp.asarray(tensors[k]) for k in flat(shapes)]
    params = jax.tree.unflatten(jax.tree.structure(shapes), leaves)
    return GraspModel(config=config, params=params, statistics=statistics)


def load_recipe(source: str | Path) -> dict[str, Any]:
    """How a model was trained: configuration, revision, data digest, versions.

    Raises:
        CheckpointError: No such model, or a damaged file.
    """
    path, header, _ = _read(source)
    try:
        return dict(json.loads(header["recipe"]))
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: unreadable recipe: {error!r}") from error


def embedded_path(name: str) -> Path:
    """File of a shipped model."""
    return Path(__file__).parent.parent / "assets" / EMBEDDED[name]


def _read(source: str | Path) -> tuple[Path, dict[str, str], dict[str, np.ndarray]]:
    """Path, header and float32 tensors of a model file."""
    path = embedded_path(str(source)) if str(source) in EMBEDDED else Path(source)
    if not path.is_file():
        raise CheckpointError(f"no model {str(source)!r}; known: {', '.join(EMBEDDED)}, or a file")
    try:
        with safetensors.safe_open(path, framework="numpy") as f:
            header = dict(f.metadata() or {})
            tensors = {k: np.asarray(f.get_tensor(k), np.float32) for k in f.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is not a safetensors file: {error}") from error
    if header.get("format") != _FORMAT:
        raise CheckpointError(f"{path} has format {header.get('format')!r}; needed: {_FORMAT!r}")
    return path, header, tensors


def config_from_dict(values: Mapping[str, Any]) -> NetworkConfig:
    """Rebuilds a configuration from its JSON form.

    Raises:
        TypeError: A field is unknown.
    """

    def tuples(fields: Mapping[str, Any]) -> dict[str, Any]:
        return {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}

    rest = {k: v for k, v in values.items() if k not in ("contact", "cvae")}
    return NetworkConfig(
        contact=ContactNetConfig(**tuples(values["contact"])),
        cvae=CvaeConfig(**tuples(values["cvae"])),
        **rest,
    )


def check_shapes(expected: PyTree, found: Mapping[str, tuple[int, ...]], where: str) -> None:
    """Compares a tree of arrays with shapes read from a file.

    Args:
        expected: Tree of arrays or their abstract values.
        found: Shape by path.
        where: Named in the error.

    Raises:
        CheckpointError: Names the first differences, both sides.
    """
    wanted = {k: tuple(v.shape) for k, v in flat(expected).items()}
    lines = [
        f"{k}: file {found.get(k, 'nothing')}, model {wanted.get(k, 'nothing')}"
        # Parameters before the optimiser's copies of them.
        for k in sorted({*wanted, *found}, key=lambda k: (k.startswith("optimiser"), k))
        if wanted.get(k) != (tuple(found[k]) if k in found else None)
    ]
    if lines:
        more = f" and {len(lines) - 5} more" if len(lines) > 5 else ""
        raise CheckpointError(
            f"{where} was written by another architecture; differing: {'; '.join(lines[:5])}{more}"
        )


def flat(tree: PyTree) -> dict[str, Any]:
    """Leaves by readable path, in the tree's own order."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}
