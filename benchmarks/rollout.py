"""Speed of making motions: 100 of them, 90 frames each, MotionNet beside its baselines.

Parameters are fresh: the time does not depend on their values. GOAL and SAGA are this project's
ports in the same harness, so the comparison is one of methods, not of libraries. The aware
MotionNet makes six motions for each that it hands out, and looks at them.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.timing import Timing, time_calls
from realdex_jax import rollout
from realdex_jax.geometry import sdf
from realdex_jax.hand import joints
from realdex_jax.hand.load import load
from realdex_jax.models import motion_model
from realdex_jax.models.goal import GoalConfig
from realdex_jax.models.motion_model import MotionModel
from realdex_jax.models.motion_net import MotionNetConfig
from realdex_jax.models.saga import SagaConfig

MOTIONS = 100
FRAMES = 90
TARGET = 2.0
"""Seconds that all of them may take, compiled, on four cores."""


def compare(motions: int = MOTIONS, frames: int = FRAMES, repeats: int = 10) -> list[Timing]:
    """Times each method on the same starts and goals; the first is MotionNet."""
    hand = load("shadow")
    rng = np.random.default_rng(0)
    start, goal = np.zeros((2, motions, 28), np.float32)
    start[:, 22:25] = rng.normal(size=(motions, 3)) * 0.05 + [-0.36, 0.0, 0.3]
    goal[:, :22] = joints.REST
    goal[:, 22:] = rng.normal(size=(motions, 6)) * 0.1
    given = (
        jnp.asarray(start),
        jnp.asarray(goal),
        jnp.full(motions, frames, jnp.int32),
        jnp.tile(jnp.eye(1, 7), (motions, 1)),
        jnp.zeros(motions, jnp.int32),
    )
    calls = {}
    configs = {
        "MotionNet": MotionNetConfig(),
        "MotionNet, aware": MotionNetConfig(aware=True, ways=6),
        "GOAL": GoalConfig(),
        "SAGA": SagaConfig(),
    }
    bounds = np.array([[-0.05] * 3, [0.05] * 3])
    ball = sdf.sample(lambda p: np.linalg.norm(p, axis=1) - 0.05, bounds, 40_000)
    grids = sdf.stack([ball])
    for i, (name, config) in enumerate(configs.items()):
        params = motion_model.init(hand, config, jax.random.key(i))
        model = MotionModel(config=config, params=params)
        make = jax.jit(functools.partial(rollout.generate, hand, model, grids, frames=frames))
        calls[name] = functools.partial(lambda f: jax.block_until_ready(f(*given)), make)
    return time_calls(calls, motions, repeats)
