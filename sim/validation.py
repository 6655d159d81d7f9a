"""From optimised grasps to a dataset's: settled, strictly tested, held still, distinct."""

import dataclasses
import time
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.spatial.transform import Rotation

from realdex_jax.data import schema
from realdex_jax.data.schema import GraspSet
from realdex_jax.geometry import sdf
from realdex_jax.geometry.sdf import SdfGrid
from realdex_jax.geometry.shape import ObjectShape
from realdex_jax.hand import torque
from realdex_jax.hand.joints import SHADOW, JointTable
from realdex_jax.hand.load import HandModel
from sim.displacement import displacement
from sim.physics import Physics, StrictPhysics
from sim.robustness import robustness
from sim.synthesis import Optimised, SynthesisConfig, optimise

MAX_DEPTH = 0.001
"""Metres a stored grasp may be inside the object after settling."""
MAX_SHORT_DISPLACEMENT_CM = 0.5
"""Most a stored grasp lets its object move in the still hand by the short horizon."""
SETTLE_SHARE = 0.45
"""Part of the squeeze that presses while settling: more sinks the fingers too deep, less lets
heavy pulls slip."""
COUPLING_TOLERANCE = 0.03
"""Radians by which J1 may pass J2: the simulated stop is a little soft."""

DISTINCT_METRES = 0.01
DISTINCT_TURN = np.deg2rad(10.0)
DISTINCT_JOINT = 0.2
"""Two grasps are the same if palm place, palm turn and every joint are all nearer than these."""
_PALM_CENTRE = np.array([0.0, -0.02, 0.06])


@dataclasses.dataclass(frozen=True)
class Tally:
    """What became of the starts of one object; the record behind every rate that is printed."""

    starts: int = 0
    promising: int = 0
    """Passed the cheap filter of the optimiser."""
    settled: int = 0
    """Came to rest in the closed hand, shallow and within the hand's limits."""
    valid: int = 0
    """Passed the strict test as settled, at every mass asked for."""
    kept: int = 0
    """Also held by the still hand in all six directions."""
    seconds_optimise: float = 0.0
    seconds_physics: float = 0.0

    def __add__(self, other: "Tally") -> "Tally":
        """Sums every field."""
        mine, theirs = dataclasses.astuple(self), dataclasses.astuple(other)
        return Tally(*(a + b for a, b in zip(mine, theirs, strict=True)))


def synthesise(
    hand: HandModel,
    shape: ObjectShape,
    seed: int,
    *,
    grid: SdfGrid | None = None,
    config: SynthesisConfig | None = None,
    known: Float[np.ndarray, "k phi"] | None = None,
    masses: Sequence[float] = (),
    threads: int | None = None,
) -> tuple[GraspSet, Tally]:
    """One batch of starts for an object, optimised and validated.

    Args:
        hand: The hand.
        shape: Any object, standing on its lowest point.
        seed: Seed of the batch.
        grid: The object's distance grid, if already built.
        config: Constants of the optimisation.
        known: Grasps that hold, around which a share of the starts is drawn; for hard objects.
        masses: Masses (kg) of the object at which the strict test must be passed, too.
        threads: Physics threads; `native.cores()` if None.

    Returns:
        Settled, strictly valid grasps (not yet thinned to distinct ones) and the tally.
    """
    config = config or SynthesisConfig()
    began = time.perf_counter()
    grid = sdf.build(shape) if grid is None else grid
    optimised = jax.block_until_ready(optimise(hand, shape, grid, seed, config, known=known))
    middle = time.perf_counter()
    grasps, tally = validate(hand, shape, optimised, config, masses=masses, threads=threads)
    took = Tally(seconds_optimise=middle - began, seconds_physics=time.perf_counter() - middle)
    return grasps, tally + took


def validate(
    hand: HandModel,
    shape: ObjectShape,
    optimised: Optimised,
    config: SynthesisConfig,
    *,
    masses: Sequence[float] = (),
    threads: int | None = None,
) -> tuple[GraspSet, Tally]:
    """Keeps what holds: settled in physics, strictly tested, then held still six ways.

    The strict test is run at its own mass and at each of `masses` (kg), with the same squeeze.
    """
    promising = np.flatnonzero(optimised.promising(config))
    tried = GraspSet(
        phi=np.asarray(optimised.phi)[promising],
        q_pregrasp=np.asarray(optimised.q_pregrasp)[promising],
        q_squeeze=np.asarray(optimised.q_squeeze)[promising],
        columns={"template": np.asarray(optimised.template)[promising].astype(np.int8)},
    )
    tally = Tally(starts=len(optimised.phi), promising=len(promising))
    settled = settle(hand, shape, tried, threads=threads)
    if not len(settled):
        return settled, tally
    driven = StrictPhysics.of(hand)
    strict = robustness(hand, shape, settled, driven, threads=threads)
    columns = {
        "shift_mm": (1e3 * strict.shift_m).astype(np.float16),
        "turn_deg": np.rad2deg(strict.turn_rad).astype(np.float16),
        "contacts": strict.contacts.astype(np.int8),
    }
    valid = np.flatnonzero(strict.success)
    settled = dataclasses.replace(settled, columns={**settled.columns, **columns})
    for mass in masses:
        physics = dataclasses.replace(driven, mass=mass)
        left = schema.take(settled, valid)
        valid = valid[robustness(hand, shape, left, physics, threads=threads).success]
    tally += Tally(settled=len(settled), valid=len(valid))
    settled = schema.take(settled, valid)
    if not len(settled):
        return settled, tally
    keep, short = holds(hand, shape, settled, threads=threads)
    columns = {**settled.columns, "still_disp_0146_cm": short.astype(np.float16)}
    settled = dataclasses.replace(settled, columns=columns)
    return schema.take(settled, np.flatnonzero(keep)), tally + Tally(kept=int(keep.sum()))


def holds(
    hand: HandModel, shape: ObjectShape, grasps: GraspSet, *, threads: int | None = None
) -> tuple[Bool[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """The last gate: the still hand holds the object six ways, without a start.

    Returns:
        Whether each grasp passes, and its displacement (cm) at the short horizon.
    """
    # What is in the dataset must not depend on the machine that made it: always the same backend.
    phi = np.asarray(grasps.phi)
    still = displacement(
        hand, shape, phi, Physics(), backend="native", threads=threads, accept_at_rest=True
    )
    short = np.asarray(still.d_0146_cm)
    return np.asarray(still.held_six) & (short <= MAX_SHORT_DISPLACEMENT_CM), short


def settle(
    hand: HandModel, shape: ObjectShape, grasps: GraspSet, *, threads: int | None = None
) -> GraspSet:
    """Closes the actuated hand on the object and takes the pose at rest as the grasp.

    The contact is that of the still-hand test: at rest the fingers are as deep in the soft contact
    as the forces that hold the object need, so a hand frozen there keeps holding. Grasps that
    fling the object, end deeper than `MAX_DEPTH` or bend the hand beyond what it can do are left
    out; the rest get a column `depth_mm`.
    """
    driven = StrictPhysics.of(hand)
    physics = dataclasses.replace(driven, contact=Physics().contact, push_duration=0.0)
    q = np.asarray(grasps.phi)[:, :-6]
    gentle = q + SETTLE_SHARE * (np.asarray(grasps.q_squeeze) - q)
    closing = dataclasses.replace(grasps, q_squeeze=gentle)
    rest = robustness(hand, shape, closing, physics, threads=threads)
    phi = rest.phi_settled.astype(np.float32)
    sound = rest.success & (rest.penetration_m <= MAX_DEPTH) & possible(phi[:, :-6], hand.joints)
    phi[:, :-6] = np.asarray(torque.within_limits(jnp.asarray(phi[:, :-6]), hand.joints))
    depth = (1e3 * rest.penetration_m).astype(np.float16)
    settled = dataclasses.replace(grasps, phi=phi, columns={**grasps.columns, "depth_mm": depth})
    return schema.take(settled, np.flatnonzero(sound))


def possible(q: Float[np.ndarray, "n j"], table: JointTable = SHADOW) -> Bool[np.ndarray, " n"]:
    """Whether the real hand can take these joint angles (rad), soft stops allowed."""
    q = np.asarray(q)
    within = (q > table.lower - COUPLING_TOLERANCE) & (q < table.upper + COUPLING_TOLERANCE)
    coupled = [q[:, j1] <= q[:, j2] + COUPLING_TOLERANCE for j2, j1 in table.coupled]
    return np.all([within.all(-1), *coupled], axis=0)


def distinct(
    phi: Float[np.ndarray, "n phi"], symmetry: str, taken: Sequence[int] = ()
) -> Int[np.ndarray, " k"]:
    """Indices of grasps no two of which are the same, in order of first appearance.

    On a solid of revolution, grasps that differ by a turn about its axis count as one.

    Args:
        phi: Poses in the object frame.
        symmetry: The object's symmetry, "axial" or "none".
        taken: Indices already known to be distinct; they come first.
    """
    phi = np.asarray(phi, np.float64)
    R = Rotation.from_rotvec(phi[:, -3:])
    p = phi[:, -6:-3] + R.apply(_PALM_CENTRE)
    if symmetry == "axial":
        # Bring the palm to azimuth zero; where it sits on the axis, bring the fingers there.
        radius = np.hypot(p[:, 0], p[:, 1])
        fingers = R.apply([0.0, 0.0, 1.0])
        guide = np.where((radius > 0.01)[:, None], p[:, :2], fingers[:, :2])
        turn = Rotation.from_rotvec(
            -np.arctan2(guide[:, 1], guide[:, 0])[:, None] * np.array([0.0, 0.0, 1.0])
        )
        R, p = turn * R, turn.apply(p)
    quaternion = R.as_quat()
    order = [*taken, *np.setdiff1d(np.arange(len(phi)), taken)]
    kept: list[int] = list(taken)
    for i in order[len(kept) :]:
        if kept:
            k = np.array(kept)
            near = np.linalg.norm(p[k] - p[i], axis=-1) < DISTINCT_METRES
            cosine = np.clip(np.abs(quaternion[k] @ quaternion[i]), 0.0, 1.0)
            near &= 2 * np.arccos(cosine) < DISTINCT_TURN
            near &= (np.abs(phi[k, :-6] - phi[i, :-6]) < DISTINCT_JOINT).all(-1)
            if near.any():
                continue
        kept.append(int(i))
    return np.array(kept, int)
