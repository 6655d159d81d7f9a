"""Forward kinematics of a batch: ours against pytorch_kinematics and MuJoCo's MJX.

All compute every link of the same hand at the same joint angles, in float32 on the cores this
process may use, or on its GPU, and all are checked against one another first. The peer reads a URDF
written from our constants, since its MJCF reader fails on this MuJoCo.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from jaxtyping import Array, Float
from mujoco import mjx
from scipy.spatial.transform import Rotation

from benchmarks import peers
from benchmarks.timing import Timing, time_calls
from realdex_jax.hand import joints, kinematics
from realdex_jax.hand.load import HandModel, load

BATCH = 4096
AGREEMENT = 1e-5
"""Largest difference of a link origin (m) between two implementations."""


def compare(batch: int = BATCH, repeats: int = 30) -> list[Timing]:
    """Times all implementations; the first is ours.

    Raises:
        DisagreementError: Link origins differ by more than `AGREEMENT`.
        MissingPeerError: The bench extra is not installed.
    """
    hand = load()
    rng = np.random.default_rng(0)
    q = rng.uniform(joints.LOWER, joints.UPPER, (batch, len(joints.NAMES))).astype(np.float32)
    runs = {
        "realdex_jax": _ours(hand, q),
        "mujoco mjx": _mjx(hand, q),
        "pytorch_kinematics": _pytorch(hand, q),
    }
    reference = runs["realdex_jax"][1]()
    for name, (_, origins) in runs.items():
        peers.agree(name, float(np.abs(origins() - reference).max()), AGREEMENT)
    return time_calls({name: run for name, (run, _) in runs.items()}, batch, repeats)


def compare_gradients(batch: int = BATCH, repeats: int = 30) -> list[Timing]:
    """Times the gradient, by joint angles, of a weighted sum of all link origins; ours first.

    Raises:
        DisagreementError: Gradients differ by more than `AGREEMENT`, metres a radian.
        MissingPeerError: The bench extra is not installed.
    """
    hand = load()
    rng = np.random.default_rng(0)
    q = rng.uniform(joints.LOWER, joints.UPPER, (batch, len(joints.NAMES))).astype(np.float32)
    weight = rng.uniform(-0.1, 0.1, (len(hand.link_names), 3)).astype(np.float32)
    runs = {
        "realdex_jax": _our_gradient(hand, q, weight),
        "pytorch_kinematics": _peer_gradient(hand, q, weight),
    }
    ours, theirs = (answer() for _, answer in runs.values())
    peers.agree("pytorch_kinematics", float(np.abs(ours - theirs).max()), AGREEMENT)
    return time_calls({name: run for name, (run, _) in runs.items()}, batch, repeats)


Run = tuple[Callable[[], object], Callable[[], Float[np.ndarray, "b l 3"]]]
"""A call that finishes its work before it returns, and the link origins it computes."""


def our_program(hand: HandModel) -> Any:
    """What is timed of ours: link poses of joint angles (b, 22)."""
    return jax.jit(lambda q: kinematics.forward(hand, q))


def our_gradient_program(hand: HandModel, weight: np.ndarray) -> Any:
    """The gradient, by joint angles, of the weighted link origins' sum."""
    return jax.jit(jax.grad(lambda q: (kinematics.forward(hand, q).p * weight).sum()))


def _ours(hand: HandModel, q: np.ndarray) -> Run:
    forward = our_program(hand)
    on_device = jnp.asarray(q)
    return lambda: jax.block_until_ready(forward(on_device)), lambda: np.asarray(
        forward(on_device).p
    )


def _mjx(hand: HandModel, q: np.ndarray) -> Run:
    model = mujoco.MjModel.from_xml_path(str(hand.mjcf))
    model_x = mjx.put_model(model)
    data_x = mjx.make_data(model)
    order = [joints.NAMES.index(model.joint(j).name) for j in range(model.njnt)]
    on_device = jnp.asarray(q[:, order])

    @jax.jit
    def forward(qpos: Float[Array, "b 22"]) -> tuple[Array, Array]:
        def one(q: Float[Array, " 22"]) -> tuple[Array, Array]:
            posed = mjx.kinematics(model_x, data_x.replace(qpos=q))
            return posed.xmat, posed.xpos

        return jax.vmap(one)(qpos)

    body = [model.body(name).id for name in hand.link_names]
    return lambda: jax.block_until_ready(forward(on_device)), lambda: np.asarray(
        forward(on_device)[1]
    )[:, body]


def _pytorch(hand: HandModel, q: np.ndarray) -> Run:
    torch, pytorch_kinematics = peers.torch(), peers.load("pytorch_kinematics")
    chain = pytorch_kinematics.build_chain_from_urdf(urdf(hand).encode())
    names = chain.get_joint_parameter_names()
    angles = peers.tensor(q[:, [joints.NAMES.index(name) for name in names]])
    chain = chain.to(device=angles.device)

    def forward() -> dict:
        with torch.inference_mode():
            found = chain.forward_kinematics(angles)
        peers.wait()
        return found

    def origins() -> np.ndarray:
        found = forward()
        matrices = [found[name].get_matrix().expand(len(q), 4, 4) for name in hand.link_names]
        return torch.stack(matrices, dim=1)[:, :, :3, 3].cpu().numpy()

    return forward, origins


def _our_gradient(hand: HandModel, q: np.ndarray, weight: np.ndarray) -> Run:
    gradient = our_gradient_program(hand, weight)
    on_device = jnp.asarray(q)
    return lambda: jax.block_until_ready(gradient(on_device)), lambda: np.asarray(
        gradient(on_device)
    )


def _peer_gradient(hand: HandModel, q: np.ndarray, weight: np.ndarray) -> Run:
    torch, pytorch_kinematics = peers.torch(), peers.load("pytorch_kinematics")
    chain = pytorch_kinematics.build_chain_from_urdf(urdf(hand).encode())
    names = chain.get_joint_parameter_names()
    order = [joints.NAMES.index(name) for name in names]
    angles = peers.tensor(q[:, order]).requires_grad_()
    chain = chain.to(device=angles.device)
    weights = peers.tensor(weight)

    def gradient() -> Any:
        posed = chain.forward_kinematics(angles)
        matrices = [posed[name].get_matrix()[..., :3, 3] for name in hand.link_names]
        origins = torch.stack([m.expand(len(q), 3) for m in matrices], dim=1)
        (found,) = torch.autograd.grad((origins * weights).sum(), angles)
        peers.wait()
        return found

    def answer() -> np.ndarray:
        ours = np.zeros_like(q)
        ours[:, order] = gradient().cpu().numpy()
        return ours

    return gradient, answer


def urdf(hand: HandModel) -> str:
    """The kinematic tree as URDF, links and joints under our names."""
    lines = ['<?xml version="1.0"?>', f'<robot name="{hand.name}">']
    lines += [f'  <link name="{name}"/>' for name in hand.link_names]
    for link in range(1, len(hand.parents)):
        j = hand.joint[link]
        rpy = Rotation.from_matrix(hand.R_parent_link[link]).as_euler("xyz")
        lines += [
            f'  <joint name="{joints.NAMES[j]}" type="revolute">',
            f'    <parent link="{hand.link_names[hand.parents[link]]}"/>',
            f'    <child link="{hand.link_names[link]}"/>',
            f'    <origin xyz="{_row(hand.p_parent_link[link])}" rpy="{_row(rpy)}"/>',
            f'    <axis xyz="{_row(hand.axis[link])}"/>',
            f'    <limit lower="{joints.LOWER[j]}" upper="{joints.UPPER[j]}" '
            'effort="1" velocity="1"/>',
            "  </joint>",
        ]
    return "\n".join([*lines, "</robot>"])


def _row(values: np.ndarray) -> str:
    return " ".join(f"{float(value):.9g}" for value in values)
