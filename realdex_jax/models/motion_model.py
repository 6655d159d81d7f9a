"""A trained motion model: which kind, its configuration and weights, and its file."""

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from realdex_jax import pytree
from realdex_jax.data.windows import FUTURE, PAST, Windows
from realdex_jax.errors import CheckpointError, ConfigError
from realdex_jax.geometry.sdf import SdfGrids
from realdex_jax.hand.load import HandModel
from realdex_jax.models import motion_features, saga, weights
from realdex_jax.models.goal import GoalConfig, goal
from realdex_jax.models.motion_features import Features
from realdex_jax.models.motion_net import MotionNetConfig, motion_net
from realdex_jax.models.saga import Ends, SagaConfig

EMBEDDED: dict[str, str] = {"realdex-sim-motion": "realdex_sim_motion.safetensors"}
"""Models shipped with the package: name to file under `assets/`."""

_FORMAT = "realdex_jax.motion_model/1"

Config = MotionNetConfig | GoalConfig | SagaConfig


@pytree.dataclass
class MotionModel:
    """A trained (or fresh) model."""

    config: Config = pytree.static()
    """Its type says which kind of model this is."""
    params: Any


@dataclasses.dataclass(frozen=True, eq=False)
class Kind:
    """One kind of model: it predicts ten poses from a window, or it fills in whole motions."""

    config: type
    make: Callable[[Any], Any]
    """Configuration -> network with `init`, and `apply` or `fill`."""
    fills: bool = False
    """Whether it fills in whole motions."""


KINDS: dict[str, Kind] = {
    "motion_net": Kind(MotionNetConfig, motion_net),
    "goal": Kind(GoalConfig, goal),
    "saga": Kind(SagaConfig, saga.saga, fills=True),
}
"""Kinds by the name that files hold."""


def kind_of(config: Config) -> str:
    """Name of a configuration's kind."""
    return next(name for name, kind in KINDS.items() if type(config) is kind.config)


def network(config: Config) -> Any:
    """The network's functions."""
    return KINDS[kind_of(config)].make(config)


def fills(config: Config) -> bool:
    """Whether a model fills in whole motions, by `fill`; others `predict`."""
    return KINDS[kind_of(config)].fills


def sees(config: Config) -> bool:
    """Whether distances to object and table are among what a model is given, in training, too."""
    return isinstance(config, MotionNetConfig) and config.aware


def needs_grids(config: Config) -> bool:
    """Whether motions of a model take distance grids: it sees, or chooses among ways."""
    return sees(config) or ways(config) > 1


def ways(config: Config) -> int:
    """Number of manners of coming to a goal that a model tells apart."""
    return config.ways if isinstance(config, MotionNetConfig) else 1


def init(hand: HandModel, config: Config, key: PRNGKeyArray) -> Any:
    """Fresh parameters."""
    if fills(config):
        return jax.jit(network(config).init)(key)
    windows = Windows(
        seen=jnp.zeros((1, PAST + 1, 28)),
        coming=jnp.zeros((1, FUTURE, 28)),
        goal=jnp.zeros((1, 28)),
        phase=jnp.zeros(1),
        step=jnp.zeros(1),
        wxyz_xyz_world_object=jnp.eye(1, 7),
        target=jnp.zeros(1, jnp.int32),
        way=jnp.zeros(1, jnp.int32),
    )
    shapes = jax.eval_shape(lambda w: motion_features.features(hand, w, None), windows)
    example = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    return jax.jit(network(config).init)(key, example)


def predict(
    hand: HandModel, model: MotionModel, grids: SdfGrids | None, windows: Windows
) -> Float[Array, "b 10 28"]:
    """The ten poses that follow each window, in the world.

    Args:
        hand: The hand.
        model: The model.
        grids: Distance grids of the objects; only an aware model looks at them.
        windows: b windows; `coming` is not looked at.
    """
    if fills(model.config):
        raise CheckpointError(f"{kind_of(model.config)} fills in motions; it predicts no windows")
    look = sees(model.config)
    if look and grids is None:
        raise ConfigError("this model is told of its surroundings: it needs distance grids")
    seen: Features = motion_features.features(hand, windows, grids if look else None)
    raw = network(model.config).apply(model.params, seen)
    if isinstance(model.config, MotionNetConfig) and model.config.toward:
        return motion_features.poses_toward(raw, windows)
    return motion_features.poses_of(raw, jnp.asarray(windows.seen)[:, -1])


def fill(
    model: MotionModel,
    start: Float[Array, "b 28"],
    goal: Float[Array, "b 28"],
    steps: Int[Array, " b"],
    *,
    frames: int,
    key: PRNGKeyArray | None = None,
) -> Float[Array, "b t 28"]:
    """Whole motions between two poses each, in the world; the goal is repeated at the end.

    Args:
        model: A model that fills in motions.
        start: First poses, in the world.
        goal: Last poses.
        steps: Frames of each motion, both ends included.
        frames: Frames computed, at least the largest of `steps`; a constant of the trace.
        key: Draws a motion as SAGA does; None takes the latents' mean, its usual motion.
    """
    if not isinstance(model.config, SagaConfig):
        raise CheckpointError(f"{kind_of(model.config)} predicts windows; it fills in no motions")
    ends = Ends(start=start, goal=goal, frames=steps)
    latents = saga.prior(model.config, len(start), key)
    found = network(model.config).fill(model.params, ends, latents)
    return saga.at_frames(ends, saga.motion(ends, found), frames)


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
    path = _path(path)
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


def load_recipe(path: str | Path) -> dict[str, Any]:
    """How a model was trained: configuration, revision, data digest, versions.

    Raises:
        CheckpointError: No such model, or a damaged file.
    """
    header, _ = weights.read(_path(path), _FORMAT)
    try:
        return dict(json.loads(header["recipe"]))
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: unreadable recipe: {error!r}") from error


def _path(source: str | Path) -> Path:
    """File of a shipped model by its name, or a file."""
    if str(source) in EMBEDDED:
        return Path(__file__).parent.parent / "assets" / EMBEDDED[str(source)]
    path = Path(source)
    if not path.is_file():
        raise CheckpointError(
            f"no motion model {str(source)!r}; known: {', '.join(EMBEDDED)}, or a file"
        )
    return path
