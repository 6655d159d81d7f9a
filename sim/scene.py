"""MuJoCo models of one hand and one object.

Three scenes. In the still scene every link is a mocap body and only the object moves (six degrees
of freedom), so one compiled model serves all grasps of an object, on both backends. Freezing
actuated joints by huge inertia instead under-solves the contacts silently. In the actuated scene
the palm is fixed at the origin and the hand's own actuators close it. In the lift scene the palm
follows a mocap body through the world, where the object stands on a table.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import mujoco
import numpy as np
from jaxtyping import Float, Int
from scipy.spatial import ConvexHull, QhullError

from realdex_jax.errors import PhysicsError
from realdex_jax.hand.collision import MIN_HOPS
from realdex_jax.hand.joints import JointTable
from realdex_jax.hand.load import HandModel
from sim.physics import Contact, LiftPhysics, Physics, StrictPhysics

OBJECT = "object"
"""Name of the object's body."""

TABLE = "table"
"""Name of the table's geometry, the plane z = 0."""

_DENSITY = 100.0  # kg/m^3; any value does, mass is scaled afterwards
_GUIDE = "guide"
_IMPEDANCE = 0.9999  # the hardest that MuJoCo allows


@runtime_checkable
class Pieces(Protocol):
    """What physics needs of an object; `ObjectShape` has it."""

    @property
    def name(self) -> str:
        """Unique name."""
        ...

    @property
    def pieces(self) -> tuple[Float[np.ndarray, "_ 3"], ...]:
        """Vertices of each convex piece, metres, object frame."""
        ...


@dataclass(frozen=True, eq=False)
class StillScene:
    """A compiled model whose only moving body is the object."""

    model: mujoco.MjModel
    links: Int[np.ndarray, " m"]
    """Index into `hand.link_names` of each mocap body, in mocap order."""
    object_body: int
    p_object_com: Float[np.ndarray, " 3"]
    """Centre of mass in the object frame, metres."""


@dataclass(frozen=True, eq=False)
class ActuatedScene:
    """A compiled model of the actuated hand and a floating object; world = palm frame."""

    model: mujoco.MjModel
    joint_qpos: Int[np.ndarray, " j"]
    """Address in qpos of each joint of the hand."""
    joint_dof: Int[np.ndarray, " j"]
    """Address in qvel of each joint."""
    object_qpos: int
    """Address of the object's pose (position, quaternion wxyz) in qpos."""
    object_dof: int
    """Address of the object's velocity in qvel."""
    object_body: int
    p_object_com: Float[np.ndarray, " 3"]
    """Centre of mass in the object frame, metres."""
    control: Float[np.ndarray, "a j"]
    """Actuator set points = control @ joint angles: a joint, or the sum of the two a tendon
    bends."""


@dataclass(frozen=True, eq=False)
class LiftScene:
    """A compiled model of the actuated hand, led by one mocap body, and an object on a table."""

    model: mujoco.MjModel
    palm_qpos: int
    """Address of the palm's pose (position, quaternion wxyz) in qpos, world frame."""
    joint_qpos: Int[np.ndarray, " j"]
    """Address in qpos of each joint of the hand."""
    object_qpos: int
    """Address of the object's pose in qpos, world frame."""
    object_body: int
    table: int
    """The table's geometry."""
    control: Float[np.ndarray, "a j"]
    """As in `ActuatedScene`."""


def still_scene(hand: HandModel, shape: Pieces, physics: Physics) -> StillScene:
    """Compiles the still-hand scene. Hand touches object only, never itself.

    Args:
        hand: Any hand.
        shape: The object; its mass is replaced by `physics.mass`.
        physics: The constants. Gravity is left at -z; backends set it per grasp.

    Raises:
        PhysicsError: A piece of the object is flat, empty or not finite.
    """
    source = mujoco.MjModel.from_xml_path(str(hand.mjcf))
    spec = mujoco.MjSpec()
    set_options(spec, physics.timestep, physics.impratio, physics)
    spec.option.gravity = [0.0, 0.0, -physics.gravity]
    links = []
    for link, name in enumerate(hand.link_names):
        own = np.flatnonzero(source.geom_bodyid == source.body(name).id)
        geoms = [g for g in own if source.geom_contype[g] or source.geom_conaffinity[g]]
        if not geoms:
            continue
        links.append(link)
        body = spec.worldbody.add_body(name=name, mocap=True)
        for g in geoms:
            body.add_geom(
                type=mujoco.mjtGeom(source.geom_type[g]),
                size=source.geom_size[g],
                pos=source.geom_pos[g],
                quat=source.geom_quat[g],
                contype=1,
                conaffinity=0,
            )
    add_object(spec, shape, contype=0, conaffinity=1)
    set_contact(spec, physics.contact)
    model = compile_scene(spec, shape, physics.mass)
    body = model.body(OBJECT).id
    return StillScene(model, np.array(links), body, model.body_ipos[body].copy())


def actuated_scene(hand: HandModel, shape: Pieces, physics: StrictPhysics) -> ActuatedScene:
    """Compiles the actuated scene: a position actuator for every joint or tendon.

    A tendon bends the last two joints of Shadow's fingers. On the real hand a mechanical stop keeps
    J1 at or below J2; here a limited tendon of length J1 - J2 does.

    Args:
        hand: The hand; coupled joints need tendons, as Shadow's FFJ0.
        shape: The object; its mass is replaced by `physics.mass`.
        physics: The constants; there is no gravity.

    Raises:
        PhysicsError: A piece of the object is flat, empty or not finite.
    """
    spec = mujoco.MjSpec.from_file(str(hand.mjcf))
    set_options(spec, physics.timestep, physics.impratio, physics)
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    spec.option.noslip_iterations = physics.noslip_iterations
    spec.option.gravity = [0.0, 0.0, 0.0]
    control = actuate(spec, physics, hand.joints)
    add_object(spec, shape, contype=1, conaffinity=1)
    set_contact(spec, physics.contact)
    exclude_overlapping(spec, hand)
    model = compile_scene(spec, shape, physics.mass)
    body = model.body(OBJECT).id
    free = model.joint(OBJECT)
    return ActuatedScene(
        model=model,
        joint_qpos=np.array([model.joint(n).qposadr[0] for n in hand.joints.names]),
        joint_dof=np.array([model.joint(n).dofadr[0] for n in hand.joints.names]),
        object_qpos=int(free.qposadr[0]),
        object_dof=int(free.dofadr[0]),
        object_body=body,
        p_object_com=model.body_ipos[body].copy(),
        control=control,
    )


def lift_scene(hand: HandModel, shape: Pieces, physics: LiftPhysics) -> LiftScene:
    """Compiles the lift scene: hand, object and table all touch one another.

    The palm is free, carries no weight (MuJoCo's gravity compensation on every link) and is welded
    to a mocap body. MuJoCo knows no velocity of mocap bodies, so the weld's damper brakes a moving
    palm and an ordinary weld lags by its time constant. The gains here are dead-beat, stiffness
    1 / dt^2 and damping 1 / dt per unit of mass: after every step the palm is where the mocap body
    was put before it.

    Args:
        hand: As for `actuated_scene`.
        shape: The object; its mass is replaced by `physics.mass`.
        physics: The constants.

    Raises:
        PhysicsError: A piece of the object is flat, empty or not finite.
    """
    spec = mujoco.MjSpec.from_file(str(hand.mjcf))
    set_options(spec, physics.timestep, physics.impratio, physics)
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    spec.option.gravity = [0.0, 0.0, -physics.gravity]
    palm = hand.link_names[0]
    for name in hand.link_names:
        spec.body(name).gravcomp = 1.0
    spec.body(palm).add_freejoint(name=palm)
    spec.worldbody.add_body(name=_GUIDE, mocap=True)
    weld = spec.add_equality(
        type=mujoco.mjtEq.mjEQ_WELD, objtype=mujoco.mjtObj.mjOBJ_BODY, name1=_GUIDE, name2=palm
    )
    weld.data[:11] = [0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1]  # anchor, offset, turn, torque scale
    weld.solref = [-1.0 / physics.timestep**2, -1.0 / physics.timestep]
    weld.solimp = [_IMPEDANCE, _IMPEDANCE, 0.001, 0.5, 2.0]
    control = actuate(spec, physics, hand.joints)
    add_object(spec, shape, contype=1, conaffinity=1)
    plane = mujoco.mjtGeom.mjGEOM_PLANE
    spec.worldbody.add_geom(name=TABLE, type=plane, size=[1.0, 1.0, 0.1])
    set_contact(spec, physics.contact)
    exclude_overlapping(spec, hand)
    model = compile_scene(spec, shape, physics.mass)
    return LiftScene(
        model=model,
        palm_qpos=int(model.joint(palm).qposadr[0]),
        joint_qpos=np.array([model.joint(n).qposadr[0] for n in hand.joints.names]),
        object_qpos=int(model.joint(OBJECT).qposadr[0]),
        object_body=model.body(OBJECT).id,
        table=model.geom(TABLE).id,
        control=control,
    )


def set_options(
    spec: mujoco.MjSpec,
    timestep: float,
    impratio: float,
    physics: Physics | StrictPhysics | LiftPhysics,
) -> None:
    """Sets time step, friction cone and solver."""
    spec.option.timestep = timestep
    spec.option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    spec.option.impratio = impratio
    spec.option.solver = mujoco.mjtSolver.mjSOL_NEWTON
    spec.option.iterations = physics.iterations
    spec.option.ls_iterations = physics.line_search_iterations


def set_contact(spec: mujoco.MjSpec, contact: Contact) -> None:
    """Gives every geometry the same contact."""
    for geom in spec.geoms:
        geom.friction = [contact.sliding, contact.torsional, contact.rolling]
        geom.condim = contact.dimensions
        geom.solref = list(contact.solref)
        geom.solimp = list(contact.solimp)


def add_object(spec: mujoco.MjSpec, shape: Pieces, contype: int, conaffinity: int) -> None:
    """Adds the object as a free body of convex meshes.

    Raises:
        PhysicsError: A piece is flat, empty or not finite.
    """
    body = spec.worldbody.add_body(name=OBJECT)
    body.add_freejoint(name=OBJECT)
    if not shape.pieces:
        raise PhysicsError(f"object {shape.name!r} has no convex pieces")
    for i, piece in enumerate(shape.pieces):
        vertices = np.asarray(piece, np.float64)
        if vertices.ndim != 2 or vertices.shape[1] != 3 or not np.isfinite(vertices).all():
            raise PhysicsError(
                f"piece {i} of {shape.name!r} must be finite (k, 3) vertices, got {vertices.shape}"
            )
        try:
            hull = ConvexHull(vertices)
        except (QhullError, ValueError) as error:
            raise PhysicsError(
                f"piece {i} of {shape.name!r} is flat: no solid to collide"
            ) from error
        name = f"{OBJECT}{i}"
        spec.add_mesh(
            name=name,
            uservert=vertices[hull.vertices].astype(np.float32).ravel(),
            inertia=mujoco.mjtMeshInertia.mjMESH_INERTIA_CONVEX,
        )
        body.add_geom(
            name=name,
            type=mujoco.mjtGeom.mjGEOM_MESH,
            meshname=name,
            density=_DENSITY,
            contype=contype,
            conaffinity=conaffinity,
        )


def actuate(
    spec: mujoco.MjSpec,
    physics: StrictPhysics | LiftPhysics,
    table: JointTable,
    prefix: str = "",
) -> Float[np.ndarray, "a j"]:
    """Adds actuators for positions and the mechanical stops, in the place of those there are.

    Args:
        spec: The model, with the hand's joints and tendons.
        physics: Gain and limit of the actuators.
        table: The hand's joints.
        prefix: Before the hand's names in the model.

    Returns:
        `ActuatedScene.control`.
    """
    for actuator in list(spec.actuators):
        spec.delete(actuator)
    coupled = {j for pair in table.coupled for j in pair}
    columns: list[list[int]] = []
    for j, name in enumerate(table.names):
        if j not in coupled:
            _add_position_actuator(spec, prefix + name, mujoco.mjtTrn.mjTRN_JOINT, physics)
            columns.append([j])
    for j2, j1 in table.coupled:
        finger = prefix + table.names[j1][:2]
        _add_position_actuator(spec, f"{finger}J0", mujoco.mjtTrn.mjTRN_TENDON, physics)
        columns.append([j2, j1])
        stop = spec.add_tendon(name=f"{finger}stop", limited=True, range=[-np.pi, 0.0])
        stop.wrap_joint(prefix + table.names[j1], 1.0)
        stop.wrap_joint(prefix + table.names[j2], -1.0)
    control = np.zeros((len(columns), len(table.names)))
    for row, column in enumerate(columns):
        control[row, column] = 1.0
    return control


def _add_position_actuator(
    spec: mujoco.MjSpec,
    target: str,
    kind: mujoco.mjtTrn,
    physics: StrictPhysics | LiftPhysics,
) -> None:
    actuator = spec.add_actuator(name=target, target=target, trntype=kind)
    actuator.set_to_position(kp=physics.stiffness)
    actuator.forcelimited = True
    actuator.forcerange = [-physics.torque_limit, physics.torque_limit]


def exclude_overlapping(spec: mujoco.MjSpec, hand: HandModel, prefix: str = "") -> None:
    """Lets link pairs too near in the tree pass: their primitives overlap by construction.

    MuJoCo filters parent and child by itself, but not where the parent is the world, and not
    neighbours of the palm: without this the knuckles push each other apart.
    """
    for a, name in enumerate(hand.link_names):
        for b in range(a + 1, len(hand.link_names)):
            if hand.hops[a, b] < MIN_HOPS:
                spec.add_exclude(bodyname1=prefix + name, bodyname2=prefix + hand.link_names[b])


def compile_scene(spec: mujoco.MjSpec, shape: Pieces, mass: float) -> mujoco.MjModel:
    """Compiles, and scales the object to its mass (kg).

    Raises:
        PhysicsError: MuJoCo refuses the object.
    """
    try:
        model = spec.compile()
    except ValueError as error:
        raise PhysicsError(f"object {shape.name!r} does not compile: {error}") from error
    body = model.body(OBJECT).id
    factor = mass / model.body_mass[body]
    model.body_mass[body] *= factor
    model.body_inertia[body] *= factor
    mujoco.mj_setConst(model, mujoco.MjData(model))
    return model
