"""Which of the motions for an object is driven: the first whose plan passes, on it and about it."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from realdex_jax.data.motion_set import MotionSet
from realdex_jax.geometry.shape import ObjectShape
from realdex_jax.hand.load import HandModel
from robot import limits, plan, preflight
from robot.gate import GateConfig
from robot.interface import JointState, RobotError
from robot.plan import Plan, PlanConfig
from robot.preflight import Verdict
from sim import workcell
from sim.workcell import Workcell


@dataclass(frozen=True, eq=False)
class Chosen:
    """What would be driven."""

    shape: ObjectShape
    wxyz_xyz_world_object: Float[np.ndarray, " 7"]
    plan: Plan
    verdict: Verdict
    rank: int = 0
    """Of the grasp among those tried, from 0."""


def first(
    hand: HandModel,
    shape: ObjectShape,
    asked: MotionSet,
    phi: Float[np.ndarray, "b f 28"],
    lengths: Int[np.ndarray, " b"],
    state_of: Callable[[], JointState | None],
    config: PlanConfig,
) -> tuple[Chosen | None, list[str]]:
    """The first motion whose plan passes, about the object's place as well; why others did not.

    Where none does everywhere, it is the first that fails in one place about it.

    Args:
        hand: The hand.
        shape: The object.
        asked: Where the object stands, and how each motion ends.
        phi: The motions, the most human-like first; palm in the world.
        lengths: Their frames.
        state_of: Tells the robot's present state.
        config: Of the plans.
    """
    reasons: list[str] = []
    found = None
    for i in range(len(phi)):
        state = state_of()
        pose = np.asarray(asked.wxyz_xyz_world_object[i], np.float64)
        try:
            if state is None:
                raise RobotError("no joint state")
            squeeze = np.asarray(asked.q_squeeze[i])
            made = plan.plan(hand, phi[i, : lengths[i]], squeeze, plan.at(state), config)
        except RobotError as error:
            reasons.append(f"grasp {i + 1}: {error}")
            continue
        cell = workcell.build(hand, shape, pose)
        said = verdict(hand, shape, pose, made, state_of(), guarded=config.guarded, cell=cell)
        if not said.passed:
            reasons.append(f"grasp {i + 1}: preflight: {'; '.join(said.faults)}")
            continue
        chosen, held = Chosen(shape, pose, made, said, i), preflight.aside(cell, made)
        if held == preflight.PLACES:
            return chosen, reasons
        if held == preflight.PLACES - 1 and found is None:
            found = chosen
        reasons.append(
            f"grasp {i + 1}: lifts the object in {held} of {preflight.PLACES} places "
            f"{1000 * preflight.ASIDE_M:g} mm aside"
        )
    return found, reasons


def at_home() -> JointState:
    """The state that the simulated robot will start in."""
    now = time.monotonic()
    return JointState(now, now, limits.NAMES, limits.HOME, np.zeros(len(limits.NAMES)))


def verdict(
    hand: HandModel,
    shape: ObjectShape,
    wxyz_xyz_world_object: Float[np.ndarray, " 7"],
    planned: Plan,
    state: JointState | None,
    *,
    guarded: bool = False,
    cell: Workcell | None = None,
) -> Verdict:
    """What the preflight says of a plan from where the robot is; arguments as there."""
    allowed = GateConfig(guarded=guarded)
    return preflight.preflight(
        hand, shape, wxyz_xyz_world_object, planned, state, gate_config=allowed, cell=cell
    )
