"""The preflight: a plan replayed in physics, and a verdict that the executor asks for.

A verdict belongs to one trajectory, by its digest, and to one pose of the object. It says what a
simulation predicts; it is no safety function.
"""

import html
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float

from realdex_jax.geometry.shape import ObjectShape
from realdex_jax.hand.load import HandModel
from robot import curve, gate
from robot.gate import GateConfig
from robot.interface import JointState
from robot.plan import Plan
from sim import safety, video, workcell
from sim.lift import REASONS
from sim.physics import LiftPhysics
from sim.safety import Replay, SafetyConfig
from sim.scene import Pieces
from sim.workcell import Workcell

ASIDE_M = 0.005
"""Where an object is seen may be wrong by that much; it is what clouds and calibration leave."""
_DIRECTIONS = ((1.0, 0.0), (0.0, 1.0), (-1.0, 0.0), (0.0, -1.0))
PLACES = len(_DIRECTIONS)
"""Places about the object's where `aside` tries a plan."""


@dataclass(frozen=True, eq=False)
class Verdict:
    """Whether a trajectory may be driven, and why not."""

    digest: str
    """Of the trajectory it is about (`curve.digest`)."""
    faults: tuple[str, ...]
    """Why not, in words; empty where it passes."""
    replay: Replay | None
    """What physics made of it; None where the gate had refused before."""
    made_s: float
    """When, by this machine's monotonic clock, seconds."""

    @property
    def passed(self) -> bool:
        """Whether it may be driven."""
        return not self.faults

    def text(self) -> str:
        """The verdict, for a person."""
        lines = [f"preflight {'PASSED' if self.passed else 'FAILED'}, {self.digest[:12]}"]
        lines += [f"  - {fault}" for fault in self.faults]
        if self.replay is not None:
            seen = self.replay
            lines += [
                f"  object: {REASONS[seen.reason]}; rose {100 * seen.risen_m:.1f} cm with a palm "
                f"that rose {100 * seen.palm_risen_m:.1f} cm; shoved {1000 * seen.shoved_m:.1f} mm",
                f"  arm: within {1000 * seen.arm_error_rad:.1f} mrad of its set points "
                f"({seen.arm_error_joint})",
            ]
        return "\n".join(lines)

    def as_html(self) -> str:
        """The same for a report."""
        return f"<pre>{html.escape(self.text())}</pre>"


def preflight(
    hand: HandModel,
    shape: Pieces,
    wxyz_xyz_world_object: Float[np.ndarray, " 7"],
    plan: Plan,
    state: JointState | None,
    *,
    gate_config: GateConfig | None = None,
    safety_config: SafetyConfig | None = None,
    physics: LiftPhysics | None = None,
    cell: Workcell | None = None,
) -> Verdict:
    """Asks the gate, of the trajectory and of every command it is sent in; then replays it exactly.

    Args:
        hand: The hand.
        shape: The object.
        wxyz_xyz_world_object: Where it stands.
        plan: What would be driven.
        state: The robot's present state.
        gate_config: What the gate allows; `GateConfig()` if None.
        safety_config: What is no harm in the replay.
        physics: The constants.
        cell: The compiled scene, if there is one of this object and pose.
    """
    digest = curve.digest(plan.trajectory)
    refused = gate.check(
        hand, plan.trajectory, state, time.monotonic(), gate_config or GateConfig()
    )
    refused = refused or gate.windows(plan.trajectory, curve.AHEAD_S, curve.BRAKE_S)
    if refused:
        return Verdict(digest, tuple(map(str, refused)), None, time.monotonic())
    cell = cell or workcell.build(hand, shape, wxyz_xyz_world_object, physics)
    seen = replay(cell, plan, physics=physics, config=safety_config)
    return Verdict(digest, seen.faults(), seen, time.monotonic())


def replay(
    cell: Workcell,
    plan: Plan,
    *,
    physics: LiftPhysics | None = None,
    config: SafetyConfig | None = None,
) -> Replay:
    """A plan in physics; arguments as `preflight`."""
    dt = cell.model.opt.timestep
    end = float(plan.trajectory.t[-1])
    q, qd = curve.sample(plan.trajectory, np.arange(int(end / dt + 1e-6) + 1) * dt)
    _, lift_at, hold_at, _ = plan.ends
    return safety.replay(cell, q, qd, lift_at, hold_at, physics=physics, config=config)


def aside(cell: Workcell, plan: Plan, *, physics: LiftPhysics | None = None) -> int:
    """In how many of `PLACES` about the object's, `ASIDE_M` from it, a plan lifts it without harm.

    A plan that passes in one place alone is knocked over by what no replay foresees.
    """
    lifted = 0
    for direction in _DIRECTIONS:
        pose = cell.wxyz_xyz_world_object.copy()
        pose[4:6] += ASIDE_M * np.array(direction)
        seen = replay(replace(cell, wxyz_xyz_world_object=pose), plan, physics=physics)
        lifted += not seen.faults()
    return lifted


def write_video(
    path: str | Path, hand: HandModel, shape: ObjectShape, verdict: Verdict, every: int = 2
) -> Path | None:
    """The replay as mp4, hand and object; None where the gate had refused.

    Args:
        path: The file.
        hand: The hand.
        shape: The object.
        verdict: The verdict.
        every: One picture for so many of the 15 frames a second.

    Raises:
        RenderError: The file cannot be written.
    """
    if verdict.replay is None:
        return None
    pictures = video.draw(hand, shape, verdict.replay.film, every=every)
    return video.write_mp4(path, pictures, 15.0 / every)
