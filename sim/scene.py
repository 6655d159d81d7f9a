"""MuJoCo models of one hand and one object.

Two scenes. In the still scene every link is a mocap body and only the object moves (six degrees of
freedom), so one compiled model serves all grasps of an object, on both backends. Freezing actuated
joints by huge inertia instead under-solves the contacts silently. In the actuated scene the palm is
fixed at the origin and the hand's own actuators close it.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import mujoco
import numpy as np
from jaxtyping import Float, Int
from scipy.spatial import ConvexHull, QhullError

from realdex_jax.errors import PhysicsError
from realdex_jax.hand import joints
from realdex_jax.hand.collision import MIN_HOPS
from realdex_jax.hand.load import HandModel
from sim.physics import Contact, Physics, StrictPhysics

OBJECT = "object"
"""Name of the object's body."""

_DENSITY = 100.0  # kg/m^3; any value does, mass is scaled afterwards


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
    joint_qpos: Int[np.ndarray, " 22"]
    """Address in qpos of each joint of `joints.NAMES`."""
    joint_dof: Int[np.ndarray, " 22"]
    """Address in qvel of each joint."""
    object_qpos: int
    """Address of the object's pose (position, quaternion wxyz) in qpos."""
    object_dof: int
    """Address of the object's velocity in qvel."""
    object_body: int
    p_object_com: Float[np.ndarray, " 3"]
    """Centre of mass in the object frame, metres."""
    control: Float[np.ndarray, "18 22"]
    """Actuator set points = control @ joint angles: a joint, or the sum of the two a tendon
    bends."""


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
    _set_options(spec, physics.timestep, physics.impratio, physics)
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
    _add_object(spec, shape, contype=0, conaffinity=1)
    _set_contact(spec, physics.contact)
    model = _compile(spec, shape, physics.mass)
    body = model.body(OBJECT).id
    return StillScene(model, np.array(links), body, model.body_ipos[body].copy())


def actuated_scene(hand: HandModel, shape: Pieces, physics: StrictPhysics) -> ActuatedScene:
    """Compiles the actuated scene: 18 position actuators, four of them on tendons.

    A tendon bends the last two joints of a finger. On the real hand a mechanical stop keeps J1 at
    or below J2; here a limited tendon of length J1 - J2 does.

    Args:
        hand: A hand with Shadow's joints and tendons FFJ0, MFJ0, RFJ0, LFJ0.
        shape: The object; its mass is replaced by `physics.mass`.
        physics: The constants; there is no gravity.

    Raises:
        PhysicsError: A piece of the object is flat, empty or not finite.
    """
    spec = mujoco.MjSpec.from_file(str(hand.mjcf))
    _set_options(spec, physics.timestep, physics.impratio, physics)
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    spec.option.noslip_iterations = physics.noslip_iterations
    spec.option.gravity = [0.0, 0.0, 0.0]
    for actuator in list(spec.actuators):
        spec.delete(actuator)
    coupled = {j for pair in joints.COUPLED for j in pair}
    columns: list[list[int]] = []
    for j, name in enumerate(joints.NAMES):
        if j not in coupled:
            _add_position_actuator(spec, name, mujoco.mjtTrn.mjTRN_JOINT, physics)
            columns.append([j])
    for j2, j1 in joints.COUPLED:
        finger = joints.NAMES[j1][:2]
        _add_position_actuator(spec, f"{finger}J0", mujoco.mjtTrn.mjTRN_TENDON, physics)
        columns.append([j2, j1])
        stop = spec.add_tendon(name=f"{finger}stop", limited=True, range=[-np.pi, 0.0])
        stop.wrap_joint(joints.NAMES[j1], 1.0)
        stop.wrap_joint(joints.NAMES[j2], -1.0)
    _add_object(spec, shape, contype=1, conaffinity=1)
    _set_contact(spec, physics.contact)
    for a, b in _overlapping_links(hand):
        spec.add_exclude(bodyname1=hand.link_names[a], bodyname2=hand.link_names[b])
    model = _compile(spec, shape, physics.mass)
    control = np.zeros((model.nu, len(joints.NAMES)))
    for row, column in enumerate(columns):
        control[row, column] = 1.0
    body = model.body(OBJECT).id
    free = model.joint(OBJECT)
    return ActuatedScene(
        model=model,
        joint_qpos=np.array([model.joint(n).qposadr[0] for n in joints.NAMES]),
        joint_dof=np.array([model.joint(n).dofadr[0] for n in joints.NAMES]),
        object_qpos=int(free.qposadr[0]),
        object_dof=int(free.dofadr[0]),
        object_body=body,
        p_object_com=model.body_ipos[body].copy(),
        control=control,
    )


def _set_options(
    spec: mujoco.MjSpec, timestep: float, impratio: float, physics: Physics | StrictPhysics
) -> None:
    spec.option.timestep = timestep
    spec.option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    spec.option.impratio = impratio
    spec.option.solver = mujoco.mjtSolver.mjSOL_NEWTON
    spec.option.iterations = physics.iterations
    spec.option.ls_iterations = physics.line_search_iterations


def _set_contact(spec: mujoco.MjSpec, contact: Contact) -> None:
    for geom in spec.geoms:
        geom.friction = [contact.sliding, contact.torsional, contact.rolling]
        geom.condim = contact.dimensions
        geom.solref = list(contact.solref)
        geom.solimp = list(contact.solimp)


def _add_object(spec: mujoco.MjSpec, shape: Pieces, contype: int, conaffinity: int) -> None:
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


def _add_position_actuator(
    spec: mujoco.MjSpec, target: str, kind: mujoco.mjtTrn, physics: StrictPhysics
) -> None:
    actuator = spec.add_actuator(name=target, target=target, trntype=kind)
    actuator.set_to_position(kp=physics.stiffness)
    actuator.forcelimited = True
    actuator.forcerange = [-physics.torque_limit, physics.torque_limit]


def _overlapping_links(hand: HandModel) -> list[tuple[int, int]]:
    """Link pairs too near in the tree to collide: their primitives overlap by construction.

    MuJoCo filters parent and child by itself, but not where the parent is the world, and not
    neighbours of the palm: without this the knuckles push each other apart.
    """
    count = len(hand.link_names)
    return [(a, b) for a in range(count) for b in range(a + 1, count) if hand.hops[a, b] < MIN_HOPS]


def _compile(spec: mujoco.MjSpec, shape: Pieces, mass: float) -> mujoco.MjModel:
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
