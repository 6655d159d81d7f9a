"""Distances of clouds with their gradients: ours against PyTorch, eager and compiled.

The chamfer distance is between hands' surface points and the points of what they reach for; the
contact map is of object points for posed hands. PyTorch's chamfer distance is the usual one, by
`cdist`; its contact map is the same formula as ours, which no peer has. Both sides are given the
same numbers and checked against each other first, in float32 on the cores of this process.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from benchmarks import peers
from benchmarks.timing import Timing, time_calls
from realdex_jax.hand import collision, kinematics
from realdex_jax.hand.kinematics import Links
from realdex_jax.hand.load import HandModel, load
from realdex_jax.losses import contact
from realdex_jax.losses import pose as pose_loss

BATCH, HAND_POINTS, POINTS = 64, 256, 1024
"""Hands, points on each, points of the object."""
AGREEMENT = 1e-3
"""Largest difference of two values or gradients over the largest of them: both are float32."""

Run = tuple[Callable[[], object], Callable[[], tuple[np.ndarray, np.ndarray]]]
"""A call that finishes its work before it returns, and the value and gradient it computes."""


def chamfer(batch: int = BATCH, repeats: int = 30) -> list[Timing]:
    """Times the squared chamfer distance and its gradient by the first cloud; the first is ours.

    Raises:
        DisagreementError: Implementations computed different things.
        MissingPeerError: The bench extra is not installed.
    """
    a, b = chamfer_inputs(batch)
    return _timed({"realdex_jax": our_chamfer(a, b), **_peer_chamfers(a, b)}, batch, repeats)


def contact_map(batch: int = BATCH, repeats: int = 30) -> list[Timing]:
    """Times the contact map of posed hands and its gradient by the points; the first is ours.

    Raises:
        DisagreementError: Implementations computed different things.
        MissingPeerError: The bench extra is not installed.
    """
    hand = load()
    links, points = map_inputs(hand, batch)
    runs = {"realdex_jax": our_map(hand, links, points), **_peer_maps(hand, links, points)}
    return _timed(runs, batch, repeats)


def chamfer_inputs(batch: int = BATCH) -> tuple[np.ndarray, np.ndarray]:
    """Two clouds for each hand."""
    rng = np.random.default_rng(0)
    a, b = (rng.normal(0.0, 0.05, (batch, n, 3)) for n in (HAND_POINTS, POINTS))
    return a.astype(np.float32), b.astype(np.float32)


def map_inputs(hand: HandModel, batch: int = BATCH) -> tuple[Links, np.ndarray]:
    """Posed hands, and points about each."""
    rng = np.random.default_rng(0)
    share = rng.uniform(size=(batch, 22)).astype(np.float32)
    links = jax.jit(lambda q: kinematics.forward(hand, q))(share)
    return links, rng.normal(0.0, 0.08, (batch, POINTS, 3)).astype(np.float32)


def our_chamfer(a: np.ndarray, b: np.ndarray) -> Run:
    """Ours."""
    return _jax_run(chamfer_program(), jnp.asarray(a), jnp.asarray(b))


def chamfer_program() -> Any:
    """What is timed of ours: the chamfer distance's sum and its gradient by the first cloud."""
    return jax.jit(jax.value_and_grad(lambda a, b: pose_loss.chamfer(a, b).sum()))


def our_map(hand: HandModel, links: Links, points: np.ndarray) -> Run:
    """Ours; the value is the sum over all points."""
    return _jax_run(map_program(hand), jnp.asarray(points), links)


def map_program(hand: HandModel) -> Any:
    """What is timed of ours: the contact map's sum and its gradient by the points."""

    def total(points: Float[Array, "b n 3"], links: Links) -> Float[Array, ""]:
        return contact.contact_map(hand, links, points).sum()

    return jax.jit(jax.value_and_grad(total))


def _jax_run(call: Callable[..., Any], *given: Any) -> Run:
    def answer() -> tuple[np.ndarray, np.ndarray]:
        value, gradient = call(*given)
        return np.asarray(value), np.asarray(gradient)

    return lambda: jax.block_until_ready(call(*given)), answer


def _peer_chamfers(a: np.ndarray, b: np.ndarray) -> dict[str, Run]:
    torch = peers.torch()

    def total(a: Any, b: Any) -> Any:
        square = torch.cdist(a, b) ** 2
        return (square.amin(-1).mean(-1) + square.amin(-2).mean(-1)).sum()

    return _torch_runs(torch, total, a, b)


def _peer_maps(hand: HandModel, links: Links, points: np.ndarray) -> dict[str, Run]:
    torch = peers.torch()
    R, centre = collision.geom_poses(hand, links)
    boxes = np.flatnonzero(hand.geoms.is_box).tolist()
    capsules = np.flatnonzero(~hand.geoms.is_box).tolist()
    size = peers.tensor(np.array(hand.geoms.size, np.float32))

    def total(points: Any, R: Any, centre: Any) -> Any:
        axis, middle = R[:, capsules, :, 2], centre[:, capsules]
        away = points[:, :, None] - middle[:, None]
        along = (away * axis[:, None]).sum(-1)
        inner = along.clamp(-size[capsules, 1], size[capsules, 1])
        square = ((away - inner[..., None] * axis[:, None]) ** 2).sum(-1)
        distance = (square.clamp(min=1e-10).sqrt() - size[capsules, 0]).amin(-1)
        for box in boxes:
            local = (points - centre[:, None, box]) @ R[:, box]
            over = local.abs() - size[box]
            outside = torch.linalg.vector_norm(over.clamp(min=0.0), dim=-1)
            distance = torch.minimum(distance, outside + over.amax(-1).clamp(max=0.0))
        return (2.0 - 2.0 * torch.sigmoid(contact.SHARPNESS * distance.clamp(min=0.0))).sum()

    return _torch_runs(torch, total, points, R, centre)


def _torch_runs(torch: Any, total: Callable[..., Any], first: np.ndarray, *rest: Any) -> dict:
    x = peers.tensor(first).requires_grad_()
    others = [peers.tensor(r) for r in rest]

    def run(function: Callable[..., Any]) -> Run:
        def call() -> tuple[Any, Any]:
            value = function(x, *others)
            (gradient,) = torch.autograd.grad(value, x)
            peers.wait()
            return value, gradient

        def answer() -> tuple[np.ndarray, np.ndarray]:
            value, gradient = call()
            return value.detach().cpu().numpy(), gradient.cpu().numpy()

        return call, answer

    return {"PyTorch": run(total), "PyTorch compiled": run(torch.compile(total))}


def _timed(runs: dict[str, Run], batch: int, repeats: int) -> list[Timing]:
    name_of_ours, *names = runs
    reference = runs[name_of_ours][1]()
    for name in names:
        for ours, theirs in zip(reference, runs[name][1](), strict=True):
            peers.agree(name, np.abs(ours - theirs).max() / np.abs(ours).max(), AGREEMENT)
    return time_calls({name: run for name, (run, _) in runs.items()}, batch, repeats)
