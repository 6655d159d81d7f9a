"""The robot at its table: UR10e, Shadow Hand and an object as one MuJoCo model.

What the preflight replays a trajectory in, and what a simulated robot steps. The arm is made of the
capsules of `realdex_jax.arm` on a pedestal; the hand is that of the lift test, on the two joints of
its wrist. Arm and hand carry no weight: the real arm's controller makes up for its own.
"""

import itertools
from dataclasses import dataclass

import jax.numpy as jnp
import mujoco
import numpy as np
from jaxtyping import Float, Int
from scipy.spatial.transform import Rotation

from realdex_jax import arm
from realdex_jax.errors import PhysicsError
from realdex_jax.hand import joints
from realdex_jax.hand.load import HandModel
from sim.demonstrate import P_WORLD_BASE
from sim.physics import LiftPhysics
from sim.scene import (
    OBJECT,
    TABLE,
    Pieces,
    actuate,
    add_object,
    compile_scene,
    exclude_overlapping,
    set_contact,
    set_options,
)

PREFIX = "rh_"
"""Before the hand's names, as in ROS: the right hand."""
NAMES: tuple[str, ...] = (*arm.JOINTS, *arm.WRIST_JOINTS, *(PREFIX + n for n in joints.NAMES))
"""Joint names: arm, wrist, hand; the order of every `q` here."""
PEDESTAL = "pedestal"
"""Name of what the arm stands on."""

_MASS = (0.0, 7.778, 12.93, 3.87, 1.96, 1.96, 0.202, 3.0)
"""Of `arm.LINKS`, kg; the base stands still. Figures of the URDF."""
_WRIST_MASS = 0.1
_TORQUE = (330.0, 330.0, 150.0, 56.0, 56.0, 56.0, 10.0, 30.0)
"""Most that the joints of arm and wrist give, N m: the UR10e's and the hand's URDF."""
_STIFFNESS = (40e3, 40e3, 20e3, 5e3, 5e3, 5e3, 200.0, 200.0)
"""Position gains, N m / rad: the palm is within a millimetre of where the set points want it."""
_DAMPING = (1200.0, 1200.0, 600.0, 100.0, 100.0, 100.0, 4.0, 4.0)
"""Damping of these, N m s / rad."""
_ARMATURE = (1.0, 1.0, 0.5, 0.1, 0.1, 0.1, 0.01, 0.01)
"""Inertia of gears and motors seen at the joint, kg m^2: guesses of the right size."""
_PEDESTAL_RADIUS = 0.09


@dataclass(frozen=True, eq=False)
class Workcell:
    """A compiled model of robot, table and object; the world's table is the plane z = 0."""

    model: mujoco.MjModel
    joint_qpos: Int[np.ndarray, " 30"]
    """Address in qpos of each joint of `NAMES`."""
    joint_dof: Int[np.ndarray, " 30"]
    """Address in qvel of each joint."""
    object_qpos: int
    """Address of the object's pose (position, quaternion wxyz) in qpos, world frame."""
    object_body: int
    table: int
    """The table's geometry."""
    robot_geoms: Int[np.ndarray, " g"]
    """Geometries of arm and hand; the base is not among them."""
    control: Float[np.ndarray, "26 30"]
    """Actuator set points = control @ joint angles. Each joint has an actuator of its own name, but
    the last two of a finger share one: `rh_FFJ0` drives the sum of `rh_FFJ2` and `rh_FFJ1`."""
    lead: Float[np.ndarray, " 26"]
    """Seconds by which a set point leads at constant speed, so that nothing lags: damping over
    stiffness of each actuator."""
    wxyz_xyz_world_object: Float[np.ndarray, " 7"]
    """Where the object stands at the start."""


def build(
    hand: HandModel,
    shape: Pieces,
    wxyz_xyz_world_object: Float[np.ndarray, " 7"],
    physics: LiftPhysics | None = None,
) -> Workcell:
    """Compiles robot, table and object; everything may touch.

    Args:
        hand: The hand, with Shadow's joints and tendons.
        shape: The object; its mass is replaced by `physics.mass`.
        wxyz_xyz_world_object: Where it stands: unit quaternion wxyz, position (m).
        physics: Contact, mass, time step, hand actuators; `LiftPhysics()` if None.

    Raises:
        PhysicsError: A piece of the object is flat, empty or not finite, or the pose is no pose.
    """
    physics = physics or LiftPhysics()
    placed = np.asarray(wxyz_xyz_world_object, np.float64)
    if not np.isfinite(placed).all() or abs(np.linalg.norm(placed[:4]) - 1.0) > 1e-3:
        raise PhysicsError(f"object pose {placed}; it must be a unit quaternion wxyz and a place")
    spec = mujoco.MjSpec()
    spec.compiler.degree = False
    set_options(spec, physics.timestep, physics.impratio, physics)
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    spec.option.gravity = [0.0, 0.0, -physics.gravity]
    arm_bodies = _add_arm(spec)
    _add_hand(spec, hand, arm_bodies[-1])
    of_hand = actuate(spec, physics, joints.SHADOW, PREFIX)
    of_arm = [*arm.JOINTS, *arm.WRIST_JOINTS]
    for i, name in enumerate(of_arm):
        actuator = spec.add_actuator(name=name, target=name, trntype=mujoco.mjtTrn.mjTRN_JOINT)
        actuator.set_to_position(kp=_STIFFNESS[i], kv=_DAMPING[i])
        actuator.forcelimited = True
        actuator.forcerange = [-_TORQUE[i], _TORQUE[i]]
    add_object(spec, shape, contype=1, conaffinity=1)
    plane = mujoco.mjtGeom.mjGEOM_PLANE
    spec.worldbody.add_geom(name=TABLE, type=plane, size=[2.0, 2.0, 0.1])
    set_contact(spec, physics.contact)
    exclude_overlapping(spec, hand, PREFIX)
    _exclude(spec, hand)
    for body in spec.bodies[1:]:
        body.gravcomp = float(body.name != OBJECT)
    model = compile_scene(spec, shape, physics.mass)
    control = np.zeros((len(of_hand) + len(of_arm), len(NAMES)))
    control[: len(of_hand), len(of_arm) :] = of_hand
    control[len(of_hand) :, : len(of_arm)] = np.eye(len(of_arm))
    damping = np.array([model.dof_damping[model.joint(n).dofadr[0]] for n in NAMES])
    lead = (np.abs(control) * damping).max(1) / model.actuator_gainprm[:, 0]
    lead -= model.actuator_biasprm[:, 2] / model.actuator_gainprm[:, 0]
    still = [0, model.body(arm.LINKS[0]).id, model.body(OBJECT).id]
    return Workcell(
        model=model,
        joint_qpos=np.array([model.joint(n).qposadr[0] for n in NAMES]),
        joint_dof=np.array([model.joint(n).dofadr[0] for n in NAMES]),
        object_qpos=int(model.joint(OBJECT).qposadr[0]),
        object_body=model.body(OBJECT).id,
        table=model.geom(TABLE).id,
        robot_geoms=np.flatnonzero(~np.isin(model.geom_bodyid, still)),
        control=control,
        lead=lead,
        wxyz_xyz_world_object=placed,
    )


def start(cell: Workcell, q: Float[np.ndarray, " 30"]) -> mujoco.MjData:
    """A state at rest: joints at `q` (rad, order `NAMES`), the object where it stands."""
    data = mujoco.MjData(cell.model)
    data.qpos[cell.object_qpos : cell.object_qpos + 7] = np.roll(cell.wxyz_xyz_world_object, 3)
    data.qpos[cell.joint_qpos] = q
    data.ctrl[:] = cell.control @ q
    mujoco.mj_forward(cell.model, data)
    return data


def step(
    cell: Workcell,
    data: mujoco.MjData,
    q: Float[np.ndarray, " 30"],
    qd: Float[np.ndarray, " 30"],
) -> None:
    """One time step (`cell.model.opt.timestep`) toward wanted positions and velocities.

    Args:
        cell: The model.
        data: The state; changed.
        q: Wanted joint angles at the end of the step, radians, order `NAMES`.
        qd: Wanted velocities, radians per second; zeros hold.
    """
    data.ctrl[:] = np.einsum("aj,j->a", cell.control, q)  # no BLAS: its idle threads spin
    data.ctrl[:] += cell.lead * np.einsum("aj,j->a", cell.control, qd)
    mujoco.mj_step(cell.model, data)


def joint_state(
    cell: Workcell, data: mujoco.MjData
) -> tuple[Float[np.ndarray, " 30"], Float[np.ndarray, " 30"]]:
    """Joint angles (rad) and velocities (rad/s), order `NAMES`."""
    return data.qpos[cell.joint_qpos].copy(), data.qvel[cell.joint_dof].copy()


def object_pose(cell: Workcell, data: mujoco.MjData) -> Float[np.ndarray, " 7"]:
    """`T_world_object`: quaternion wxyz, position (m)."""
    return np.roll(data.qpos[cell.object_qpos : cell.object_qpos + 7], -3)


def palm_pose(cell: Workcell, data: mujoco.MjData) -> tuple[np.ndarray, np.ndarray]:
    """`T_world_palm` as rotation (3 3) and origin (3,), metres."""
    palm = cell.model.body(f"{PREFIX}palm").id
    return data.xmat[palm].reshape(3, 3).copy(), data.xpos[palm].copy()


def _add_arm(spec: mujoco.MjSpec) -> list[mujoco.MjsBody]:
    """The arm's links, with their capsules, on a pedestal."""
    links = arm.forward(jnp.zeros(6))
    R, p = np.asarray(links.R, np.float64), np.asarray(links.p, np.float64)
    p_a, p_b, radius = (np.asarray(x, np.float64) for x in arm.capsules(links))
    base = spec.worldbody.add_body(name=arm.LINKS[0], pos=list(P_WORLD_BASE))
    bodies = [base]
    for i, name in enumerate(arm.LINKS[1:], 1):
        turn = Rotation.from_matrix(R[i - 1].T @ R[i]).as_quat(scalar_first=True)
        body = bodies[-1].add_body(name=name, pos=R[i - 1].T @ (p[i] - p[i - 1]), quat=turn)
        if i <= len(arm.JOINTS):
            body.add_joint(
                name=arm.JOINTS[i - 1],
                type=mujoco.mjtJoint.mjJNT_HINGE,
                axis=[0.0, 0.0, 1.0],
                limited=True,
                range=[arm.LOWER[i - 1], arm.UPPER[i - 1]],
                armature=_ARMATURE[i - 1],
            )
        bodies.append(body)
    for c, link in enumerate(arm.CAPSULE_LINK):
        ends = [R[link].T @ (end[c] - p[link]) for end in (p_a, p_b)]
        bodies[link].add_geom(
            name=f"{arm.LINKS[link]}_{c}",
            type=mujoco.mjtGeom.mjGEOM_CAPSULE,
            fromto=np.concatenate(ends),
            size=[radius[c], 0.0, 0.0],
            mass=_MASS[link] / (link == arm.CAPSULE_LINK).sum(),
        )
    spec.worldbody.add_geom(
        name=PEDESTAL,
        type=mujoco.mjtGeom.mjGEOM_CYLINDER,
        size=[_PEDESTAL_RADIUS, P_WORLD_BASE[2] / 2, 0.0],
        pos=[P_WORLD_BASE[0], P_WORLD_BASE[1], P_WORLD_BASE[2] / 2],
    )
    return bodies


def _add_hand(spec: mujoco.MjSpec, hand: HandModel, forearm: mujoco.MjsBody) -> None:
    """The wrist and the hand on the forearm."""
    wrist = forearm.add_body(name=f"{PREFIX}wrist", pos=arm.P_FOREARM_WRIST)
    wrist.mass, wrist.inertia, wrist.explicitinertial = _WRIST_MASS, [1e-4] * 3, True
    frame = wrist.add_frame(pos=arm.P_FOREARM_PALM - arm.P_FOREARM_WRIST)
    own = mujoco.MjSpec.from_file(str(hand.mjcf))
    for actuator in list(own.actuators):
        own.delete(actuator)
    frame.attach_body(own.body(hand.link_names[0]), PREFIX, "")
    palm = spec.body(PREFIX + hand.link_names[0])
    for i, (body, axis) in enumerate(((wrist, [0.0, 1.0, 0.0]), (palm, [1.0, 0.0, 0.0]))):
        body.add_joint(
            name=arm.WRIST_JOINTS[i],
            type=mujoco.mjtJoint.mjJNT_HINGE,
            axis=axis,
            limited=True,
            range=[arm.WRIST_LOWER[i], arm.WRIST_UPPER[i]],
            armature=_ARMATURE[len(arm.JOINTS) + i],
        )


def _exclude(spec: mujoco.MjSpec, hand: HandModel) -> None:
    """Lets neighbours of the arm pass: their capsules overlap by construction."""
    apart = {(int(arm.CAPSULE_LINK[a]), int(arm.CAPSULE_LINK[b])) for a, b in arm.PAIRS}
    for a, b in itertools.combinations(range(len(arm.LINKS)), 2):
        if (a, b) not in apart:
            spec.add_exclude(bodyname1=arm.LINKS[a], bodyname2=arm.LINKS[b])
    near = [n for n in hand.link_names if hand.hops[0, hand.link_names.index(n)] <= 2]
    for name in near:
        spec.add_exclude(bodyname1=arm.LINKS[-1], bodyname2=PREFIX + name)
