"""A trained motion model: which kind, its configuration and weights, and its file."""

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from realdex_jax import pytree
from realdex_jax.data.windows import FUTURE, PAST, Windows
from realdex_jax.errors import CheckpointError
from realdex_jax.hand.load import HandModel
from realdex_jax.models import motion_features, weights
from realdex_jax.models.motion_features import Features, Grids
from realdex_jax.models.motion_net import MotionNetConfig, motion_net

_FORMAT = "realdex_jax.motion_model/1"

Config = MotionNetConfig


@pytree.dataclass
class MotionModel:
    """A trained (or fresh) model."""

    config: Config = pytree.static()
    """Its type says which kind of model this is."""
    params: Any


@dataclasses.dataclass(frozen=True, eq=False)
class Kind:
    """One kind of model that predicts ten poses from a window."""

    config: type
    make: Callable[[Any], Any]
    """Configuration -> network with `init` and `apply`."""


KINDS: dict[str, Kind] = {"motion_net": Kind(MotionNetConfig, motion_net)}
"""Kinds by the name that files hold."""


def kind_of(config: Config) -> str:
    """Name of a configuration's kind."""
    return next(name for name, kind in KINDS.items() if type(config) is kind.config)


def network(config: Config) -> Any:
    """The network's `init` and `apply`."""
    return KINDS[kind_of(config)].make(config)


def init(hand: HandModel, config: Config, key: PRNGKeyArray) -> Any:
    """Fresh parameters."""
    windows = Windows(
        seen=jnp.zeros((1, PAST + 1, 28)),
        coming=jnp.zeros((1, FUTURE, 28)),
        goal=jnp.zeros((1, 28)),
        phase=jnp.zeros(1),
        step=jnp.zeros(1),
        wxyz_xyz_world_object=jnp.eye(1, 7),
        target=jnp.zeros(1, jnp.int32),
    )
    example = jax.jit(motion_features.features, static_argnums=0)(hand, windows, None)
    return jax.jit(network(config).init)(key, example)


def predict(
    hand: HandModel, model: MotionModel, grids: Grids | None, windows: Windows
) -> Float[Array, "b 10 28"]:
    """The ten poses that follow each window, in the world.

    Args:
        hand: The hand.
        model: The model.
        grids: Distance grids of the objects; only an aware model looks at them.
        windows: b windows; `coming` is not looked at.
    """
    aware = getattr(model.config, "aware", False)
    if aware and grids is None:
        raise CheckpointError("this model is told of its surroundings: it needs distance grids")
    seen: Features = motion_features.features(hand, windows, grids if aware else None)
    raw = network(model.config).apply(model.params, seen)
    return motion_features.poses_of(raw, jnp.asarray(windows.seen)[:, -1])


def parameter_count(params: Any) -> int:
    """Number of trained numbers."""
    return sum(int(np.size(x)) for x in jax.tree.leaves(params))


def save_model(path: str | Path, model: MotionModel, recipe: Mapping[str, Any]) -> None:
    """Writes a model as float16 safetensors, atomically.

    Args:
        path: The file.
        model: The model.
        recipe: How it was trained; must be JSON.

    Raises:
        CheckpointError: The disk is full or the folder cannot be written.
    """
    header = {
        "format": _FORMAT,
        "kind": kind_of(model.config),
        "config": json.dumps(dataclasses.asdict(model.config)),
        "recipe": json.dumps(dict(recipe)),
    }
    weights.write(path, weights.halved(model.params), header)


def load_model(hand: HandModel, path: str | Path) -> MotionModel:
    """Reads a model.

    Raises:
        CheckpointError: No such file, a damaged one, or weights that do not fit their
            configuration.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"no motion model {str(path)!r}")
    header, tensors = weights.read(path, _FORMAT)
    try:
        kind = KINDS[header["kind"]]
        values = {
            k: tuple(v) if isinstance(v, list) else v
            for k, v in json.loads(header["config"]).items()
        }
        config = kind.config(**values)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: unreadable configuration: {error!r}") from error
    shapes = jax.eval_shape(lambda key: init(hand, config, key), jax.random.key(0))
    return MotionModel(config=config, params=weights.rebuild(shapes, tensors, str(path)))
