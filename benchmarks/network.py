"""One training step of the cVAE: ours against the same network in PyTorch, eager and compiled.

PointNet encoders of object and hand, posterior, decoder, the loss on what the network itself puts
out (reconstruction and KL), its gradient, clipping, and AdamW. What the hand's kinematics and the
contact map add to a training step is ours alone and left out. Both sides have the same parameters,
clouds and draws; their losses are compared before the first step.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

from benchmarks import peers
from benchmarks.timing import Timing, time_calls
from realdex_jax.losses import pose as pose_loss
from realdex_jax.models.cvae import CvaeConfig, module

OBJECTS, GRASPS, POINTS, HAND_POINTS = 8, 8, 256, 256
"""As `train_pose` has them by default."""
AGREEMENT = 1e-4
"""Largest difference of the losses, over the loss."""
_KL, _RATE, _DECAY, _NORM = 0.01, 1e-3, 1e-4, 1.0
_EPSILON = 1e-6  # of Flax's layer normalisation; PyTorch's default is another


def compare(repeats: int = 30) -> list[Timing]:
    """Times one step; the first is ours. Items are grasps.

    Raises:
        DisagreementError: The losses differ.
        MissingPeerError: The bench extra is not installed.
    """
    given = inputs()
    ours = Ours(given)
    torch = peers.torch()
    theirs = {
        "PyTorch": Theirs(torch, ours.params, given, compiled=False),
        "PyTorch compiled": Theirs(torch, ours.params, given, compiled=True),
    }
    for name, peer in theirs.items():
        peers.agree(name, abs(peer.loss() / ours.loss() - 1.0), AGREEMENT)
    calls = {"realdex_jax": ours.step, **{name: peer.step for name, peer in theirs.items()}}
    return time_calls(calls, OBJECTS * GRASPS, repeats)


def inputs() -> dict[str, np.ndarray]:
    """Clouds, poses as numbers, and draws."""
    rng = np.random.default_rng(0)
    given = {
        "points": rng.normal(0.0, 0.05, (OBJECTS, POINTS, 3)),
        "hand": rng.normal(0.0, 0.08, (OBJECTS, GRASPS, HAND_POINTS, 3)),
        "numbers": rng.uniform(-1.0, 1.0, (OBJECTS, GRASPS, 31)),
        "noise": rng.normal(size=(OBJECTS, GRASPS, CvaeConfig().latent)),
    }
    return {name: value.astype(np.float32) for name, value in given.items()}


class Ours:
    """The network of `models/cvae.py` and its optimiser."""

    def __init__(self, given: dict[str, np.ndarray]) -> None:
        """Draws parameters."""
        net = module(CvaeConfig())
        self.given = {name: jnp.asarray(value) for name, value in given.items()}
        self.params = net.init(jax.random.key(0), self.given["points"], self.given["hand"])
        chain = optax.chain(
            optax.clip_by_global_norm(_NORM), optax.adamw(_RATE, weight_decay=_DECAY)
        )

        def loss(params: Any, given: dict[str, Array]) -> Array:
            encoded = net.apply(
                params, given["points"], given["hand"], given["numbers"], method="encode"
            )
            mean, log_variance = (jnp.asarray(x) for x in encoded)
            z = mean + jnp.exp(0.5 * log_variance) * given["noise"]
            raw = jnp.asarray(net.apply(params, given["points"], z, method="decode"))
            error = ((raw - given["numbers"]) ** 2).mean()
            return error + _KL * pose_loss.kl(mean, log_variance)

        def step(params: Any, state: Any, given: dict[str, Array]) -> tuple[Any, Any, Array]:
            value, gradient = jax.value_and_grad(loss)(params, given)
            updates, state = chain.update(gradient, state, params)
            return optax.apply_updates(params, updates), state, value

        self._loss = jax.jit(loss)
        self._step = jax.jit(step, donate_argnums=(0, 1))
        # A copy: what is donated is gone, and the peers start from the same parameters.
        self._now = jax.tree.map(jnp.array, self.params), chain.init(self.params)

    def loss(self) -> float:
        """At the first parameters."""
        return float(self._loss(self.params, self.given))

    def program(self) -> tuple[Any, tuple[Any, ...]]:
        """What is timed, and what it is given; calling it uses up the parameters it is given."""
        return self._step, (*self._now, self.given)

    def step(self) -> None:
        """One step."""
        *now, value = self._step(*self._now, self.given)
        self._now = jax.block_until_ready(tuple(now))
        value.block_until_ready()


class Theirs:
    """The same in PyTorch, from the same parameters."""

    def __init__(
        self, torch: Any, params: Any, given: dict[str, np.ndarray], *, compiled: bool
    ) -> None:
        """Copies the parameters."""
        self.torch = torch
        flat = {
            jax.tree_util.keystr(path, simple=True, separator="/"): value
            for path, value in jax.tree.leaves_with_path(params["params"])
        }
        self._params = {name: peers.tensor(value).requires_grad_() for name, value in flat.items()}
        self._given = {name: peers.tensor(value) for name, value in given.items()}
        self._optimiser = torch.optim.AdamW(self._params.values(), lr=_RATE, weight_decay=_DECAY)
        self._forward = torch.compile(self._total) if compiled else self._total

    def loss(self) -> float:
        """At the present parameters."""
        with self.torch.no_grad():
            return float(self._total(self._given))

    def step(self) -> None:
        """One step."""
        self._optimiser.zero_grad(set_to_none=True)
        self._forward(self._given).backward()
        self.torch.nn.utils.clip_grad_norm_(self._params.values(), _NORM)
        self._optimiser.step()
        peers.wait()

    def _total(self, given: dict[str, Any]) -> Any:
        torch, config = self.torch, CvaeConfig()
        whole = self._pointnet("object", given["points"], len(config.object_encoder))
        hand = self._pointnet("hand", given["hand"], len(config.hand_encoder))
        wide = whole[:, None].expand(*hand.shape[:2], -1)
        x = torch.cat([hand, wide, given["numbers"]], dim=-1)
        for i in range(len(config.posterior)):
            x = torch.relu(self._dense(f"posterior/dense_{i}", x))
        x = self._dense("posterior/out", x)
        mean, log_variance = x[..., : config.latent], x[..., config.latent :].clamp(-10.0, 4.0)
        z = mean + (0.5 * log_variance).exp() * given["noise"]
        # As ours, that encodes the object once for the posterior and once for the decoder.
        whole = self._pointnet("object", given["points"], len(config.object_encoder))
        condition = torch.cat([z, torch.relu(whole)[:, None].expand(*z.shape[:2], -1)], dim=-1)
        x = self._dense("decoder/in", condition)
        for i in range(config.blocks):
            name = f"decoder/block_{i}"
            y = self._norm(f"{name}/norm", x)
            scale, shift = self._dense(f"{name}/film", condition).chunk(2, dim=-1)
            y = torch.relu(y * (1.0 + scale) + shift)
            y = torch.relu(self._dense(f"{name}/dense_0", y))
            x = x + self._dense(f"{name}/dense_1", y)
        raw = self._dense("decoder/out", torch.relu(self._norm("decoder/norm", x)))
        error = ((raw - given["numbers"]) ** 2).mean()
        per_latent = 1.0 + log_variance - mean**2 - log_variance.exp()
        return error - _KL * 0.5 * per_latent.sum(-1).mean()

    def _pointnet(self, name: str, points: Any, layers: int) -> Any:
        x = points * 10.0
        for i in range(layers):
            x = self._norm(f"{name}/norm_{i}", self._dense(f"{name}/dense_{i}", x))
            if i < layers - 1:
                x = self.torch.relu(x)
        return x.amax(dim=-2)

    def _dense(self, name: str, x: Any) -> Any:
        return x @ self._params[f"{name}/kernel"] + self._params[f"{name}/bias"]

    def _norm(self, name: str, x: Any) -> Any:
        scale, bias = self._params[f"{name}/scale"], self._params[f"{name}/bias"]
        return self.torch.nn.functional.layer_norm(x, scale.shape, scale, bias, eps=_EPSILON)
