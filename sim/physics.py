"""Every constant of the physics, and nothing else: the one config that each table prints.

Three tests, three configs. `Physics` drops an object out of a hand that stands still (sim.disp. and
held). `StrictPhysics` closes an actuated hand around the object and pushes it. `LiftPhysics` leads
an actuated hand through a motion and lifts the object off a table. The values follow published
protocols where there are any, are fixed before any result is looked at, and are never tuned to meet
a target.
"""

import dataclasses
from dataclasses import dataclass

from realdex_jax.hand.load import HandModel

GRAVITY = 9.81
"""Standard fall, m/s^2."""


@dataclass(frozen=True)
class Contact:
    """How any two surfaces touch; the same for the hand and every object."""

    sliding: float
    """Coefficient of sliding friction."""
    torsional: float
    """Torsional friction, metres: the twist a contact resists per newton of normal force."""
    rolling: float
    """Rolling friction, metres; without effect at `dimensions` 4."""
    dimensions: int
    """MuJoCo's condim: 3 = sliding friction, 4 = also torsional, 6 = also rolling."""
    solref: tuple[float, float]
    """Time constant (s) and damping ratio of the contact spring. MuJoCo raises the first to two
    time steps."""
    solimp: tuple[float, float, float, float, float]
    """Impedance at the surface, at depth, width (m), midpoint, power."""


@dataclass(frozen=True)
class Physics:
    """The still-hand test: every hand link held in place, the object released under gravity.

    Displacement is measured at the object's centre of mass. The short horizon is that of the public
    code in the manner of Hasson et al. (35 steps of 1/240 s); the paper states none. At one second
    an uncapped mean would only measure the drop rate, hence the cap.
    """

    mass: float = 0.1
    """Every object's mass, kg: the inertia of its pieces is scaled to it."""
    gravity: float = GRAVITY
    contact: Contact = Contact(
        sliding=1.0,
        torsional=0.02,
        rolling=1e-4,
        dimensions=4,
        solref=(0.02, 1.0),
        solimp=(0.9, 0.95, 0.001, 0.5, 2.0),
    )
    """MuJoCo's own contact spring; MJX reads the same numbers."""
    timestep: float = 0.002
    """Seconds; halving or doubling it changes held by less than 0.01."""
    impratio: float = 10.0
    """Friction stiffness over normal stiffness, with the elliptic cone; less lets held objects
    creep."""
    iterations: int = 8
    """Most Newton iterations a step; C MuJoCo converges within them (100 change a displacement by
    at most 0.01 mm), and MJX in single precision would spend all it is given."""
    line_search_iterations: int = 10
    short_horizon: float = 0.146
    """Seconds of the paper's sim.disp."""
    long_horizon: float = 1.0
    """Seconds of held, and of the capped displacement."""
    cap: float = 0.10
    """Metres at which the displacement at the long horizon is capped."""
    held: float = 0.02
    """Metres: a grasp holds if its object moved less by the long horizon."""
    rest_speed: float = 0.001
    """m/s below which an object counts as at rest ..."""
    rest_turn_rate: float = 0.02
    """... together with this turn rate, rad/s: where a caller only asks whether it holds."""

    @property
    def short_steps(self) -> int:
        """Time steps of the short horizon."""
        return round(self.short_horizon / self.timestep)

    @property
    def long_steps(self) -> int:
        """Time steps of the long horizon."""
        return round(self.long_horizon / self.timestep)

    def describe(self) -> dict[str, float | int | str]:
        """All constants by dotted name, for printing beside a table."""
        return {"test": "still hand", "cone": "elliptic", **_flatten(self)}


@dataclass(frozen=True)
class StrictPhysics:
    """The strict test: an actuated hand closes, squeezes, and is pushed six ways without gravity.

    Constants are those of DexGraspBench's force-closure setting (datasets reference, section 2.5).
    The hand stays at the origin; the object floats.
    """

    mass: float = 0.1
    """Every object's mass, kg."""
    contact: Contact = Contact(
        sliding=0.6,
        torsional=0.02,
        rolling=1e-4,
        dimensions=4,
        solref=(0.005, 1.0),
        solimp=(0.5, 0.99, 0.0001, 0.5, 2.0),
    )
    timestep: float = 0.004
    """Seconds, with MuJoCo's implicitfast integrator."""
    impratio: float = 10.0
    iterations: int = 100
    line_search_iterations: int = 50
    noslip_iterations: int = 2
    """Passes that remove the slip of soft friction; MJX has none, so this test runs on the native
    backend only."""
    stiffness: float = 5.0
    """Position gain of every actuator, N m / rad."""
    torque_limit: float = 3.0
    """Most an actuator gives, N m."""
    phase: float = 0.4
    """Seconds from pre-grasp to grasp, and again from grasp to squeeze."""
    settle: float = 0.8
    """Most seconds given to the squeezed object to come to rest before it is pushed."""
    push_acceleration: float = 10.0
    """Push over mass, m/s^2: one newton on 0.1 kg, at the centre of mass."""
    push_duration: float = 2.0
    """Seconds of each of the six pushes."""
    max_shift: float = 0.05
    """Metres the centre of mass may move from where it was before closing."""
    max_turn: float = 0.2617993877991494
    """Radians (15 degrees) the object may turn."""
    max_start_depth: float = 0.01
    """Metres the hand may be inside the object, or inside itself, at the pre-grasp."""
    rest_speed: float = 0.001
    """m/s below which the object counts as at rest ..."""
    rest_turn_rate: float = 0.02
    """... together with this turn rate, rad/s ..."""
    rest_joint_rate: float = 0.1
    """... and with this rate of every hand joint, rad/s ..."""
    rest_duration: float = 0.1
    """... for this many seconds: the push is in balance, more time would show the same."""

    @staticmethod
    def of(hand: HandModel) -> "StrictPhysics":
        """The constants with gain and torque of a hand's own drive; Shadow's are the defaults."""
        drive = hand.facts.drive
        return StrictPhysics(stiffness=drive.stiffness, torque_limit=drive.torque_limit)

    def describe(self) -> dict[str, float | int | str]:
        """All constants by dotted name, for printing beside a table."""
        fixed = {"test": "strict", "cone": "elliptic", "integrator": "implicitfast", "pushes": 6}
        return {**fixed, **_flatten(self)}


@dataclass(frozen=True)
class LiftPhysics:
    """The lift test: an actuated hand follows a motion, squeezes, lifts the object, holds it.

    The object stands on a table under gravity. Mass, gravity, contact and time step are those of
    `Physics`, the actuators those of `StrictPhysics`.
    """

    mass: float = Physics.mass
    """Every object's mass, kg."""
    gravity: float = GRAVITY
    contact: Contact = Physics.contact
    """Also between the table and whatever touches it."""
    timestep: float = Physics.timestep
    """Seconds, with MuJoCo's implicitfast integrator."""
    impratio: float = Physics.impratio
    iterations: int = StrictPhysics.iterations
    line_search_iterations: int = StrictPhysics.line_search_iterations
    stiffness: float = StrictPhysics.stiffness
    """Position gain of every actuator, N m / rad."""
    torque_limit: float = StrictPhysics.torque_limit
    """Most an actuator gives, N m."""
    replay: float = 2.0
    """Seconds of the motion that are simulated, its last ones."""
    squeeze: float = 0.4
    """Seconds from the motion's last joint angles to those of the squeeze, as a `phase` of
    `StrictPhysics`."""
    lift_height: float = 0.10
    """Metres the palm rises, straight up with the least jerk ..."""
    lift_duration: float = 1.0
    """... in this many seconds."""
    hold: float = 1.0
    """Seconds the lifted object is watched."""
    max_slip: float = 0.02
    """Metres by which the centre of mass may rise less than the palm, at any time of the hold; as
    `Physics.held`."""
    max_push: float = StrictPhysics.max_shift
    """Metres the centre of mass may move over the table before the lift."""
    max_tilt: float = 0.7853981633974483
    """Radians (45 degrees) the axis that stood upright may lean before the lift: beyond, the object
    was knocked over."""
    max_start_depth: float = StrictPhysics.max_start_depth
    """Metres the hand may be inside the object, the table or itself at the start."""

    def describe(self) -> dict[str, float | int | str]:
        """All constants by dotted name, for printing beside a table."""
        fixed = {"test": "lift", "cone": "elliptic", "integrator": "implicitfast"}
        return {**fixed, **_flatten(self)}


def _flatten(config: Physics | StrictPhysics | LiftPhysics) -> dict[str, float | int | str]:
    flat: dict[str, float | int | str] = {}
    for name, value in dataclasses.asdict(config).items():
        if isinstance(value, dict):
            for inner, part in value.items():
                text = " ".join(f"{x:g}" for x in part) if isinstance(part, tuple) else part
                flat[f"{name}.{inner}"] = text
        else:
            flat[name] = value
    return flat
