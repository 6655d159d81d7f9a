"""The grasp model: contact net, generator and the statistics of its data, with its weights file.

Weights travel as safetensors (no code on load): parameters by path, the configuration as JSON in
the header. Published files hold float16.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from realdex_jax import pytree
from realdex_jax.errors import CheckpointError
from realdex_jax.models import generator as generators
from realdex_jax.models import weights
from realdex_jax.models.contact_net import ContactNetConfig, contact_net
from realdex_jax.models.cvae import CvaeConfig, Statistics

EMBEDDED: dict[str, str] = {
    "realdex-sim-small": "realdex_sim_small.safetensors",
    "realdex-sim-cvae": "realdex_sim_cvae.safetensors",
}
"""Models shipped with the package: name to file under `assets/`. The small one is flow matching,
the other the paper's method, trained alike."""

_FORMAT = "realdex_jax.grasp_model/2"


@dataclasses.dataclass(frozen=True)
class NetworkConfig:
    """Everything that fixes the shapes of the parameters."""

    contact: ContactNetConfig = dataclasses.field(default_factory=ContactNetConfig)
    """Layers of the contact-map network."""
    generator: generators.Config = dataclasses.field(default_factory=CvaeConfig)
    """Which generator, and its layers."""
    points: int = 256
    """Object points the networks are given; other counts work, this one was trained."""
    hand_points: int = 64
    """Hand surface points the networks are given."""


@pytree.dataclass
class Params:
    """Parameters of both networks."""

    contact: Any
    generator: Any


@pytree.dataclass
class GraspModel:
    """A trained (or fresh) model."""

    config: NetworkConfig = pytree.static()
    params: Params
    statistics: Statistics


def init(config: NetworkConfig, key: PRNGKeyArray) -> Params:
    """Fresh parameters."""
    key_contact, key_generator = jax.random.split(key)
    points = jnp.zeros((1, config.points, 3))
    hand_points = jnp.zeros((1, 1, config.hand_points, 3))
    return Params(
        contact=jax.jit(contact_net(config.contact).init)(key_contact, points, hand_points),
        generator=generators.init(config.generator, key_generator, points, hand_points),
    )


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
    tensors = weights.halved(model.params)
    tensors["statistics.t_mean"] = np.asarray(model.statistics.t_mean, np.float32)
    tensors["statistics.t_std"] = np.asarray(model.statistics.t_std, np.float32)
    header = {
        "format": _FORMAT,
        "generator": generators.kind_of(model.config.generator),
        "config": json.dumps(dataclasses.asdict(model.config)),
        "recipe": json.dumps(dict(recipe)),
    }
    weights.write(path, tensors, header)


def load_model(source: str | Path) -> GraspModel:
    """Reads a model by name ("realdex-sim-small") or file.

    Raises:
        CheckpointError: No such model, a damaged file, or weights that do not fit their
            configuration.
    """
    path, header, tensors = _read(source)
    try:
        config = config_from_dict(json.loads(header["config"]), header["generator"])
        statistics = Statistics(
            t_mean=tensors.pop("statistics.t_mean"), t_std=tensors.pop("statistics.t_std")
        )
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: unreadable configuration: {error!r}") from error
    shapes = jax.eval_shape(lambda key: init(config, key), jax.random.key(0))
    params = weights.rebuild(shapes, tensors, str(path))
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
    header, tensors = weights.read(path, _FORMAT)
    return path, header, tensors


def config_from_dict(values: Mapping[str, Any], kind: str) -> NetworkConfig:
    """Rebuilds a configuration from its JSON form.

    Args:
        values: The form.
        kind: Which generator it has.

    Raises:
        TypeError: A field is unknown.
        CheckpointError: No such generator.
    """

    def tuples(fields: Mapping[str, Any]) -> dict[str, Any]:
        return {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}

    rest = {k: v for k, v in values.items() if k not in ("contact", "generator")}
    return NetworkConfig(
        contact=ContactNetConfig(**tuples(values["contact"])),
        generator=generators.named(kind)(**tuples(values["generator"])),
        **rest,
    )
