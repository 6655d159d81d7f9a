"""Reach-and-grasp demonstrations: from a relaxed start beside the table to a grasp that lifts.

Each attempt places an object, a start pose and one of the object's grasps, and tries the reaches of
five directions and three openings in a fixed order of preference; the first that keeps hand,
forearm and arm out of object and table is taken, then lifted in physics. A fixed order, not a
random pick: like people, the demonstrator takes its habitual way unless something stands in it.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import jaxlie
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from scipy.spatial.transform import Rotation

from realdex_jax import arm, pose, pytree, touch
from realdex_jax.data import motion_set
from realdex_jax.data.motion import RATE
from realdex_jax.data.motion_set import MotionSet
from realdex_jax.data.schema import GraspSet
from realdex_jax.geometry import sdf
from realdex_jax.geometry.sdf import SdfGrid
from realdex_jax.geometry.shape import ObjectShape
from realdex_jax.hand.load import HandModel, require_shadow
from sim.lift import lift
from sim.reach import CLOSING, OVERLAP, reach

P_WORLD_BASE = (-1.1, 0.0, 0.5)
"""Where the arm's pedestal ends, metres; its base frame has the world's axes. The object is near
the origin, on the table z = 0."""
MEAN_START = (-0.36, 0.0, 0.30)
"""Mean palm position at the start, metres: the joints are all zero there."""

OPENINGS = (0.35, 0.6, 0.15)
"""Radians beyond the grasp, in order of preference."""
_ARM_SAMPLES = 5  # spheres along each capsule
_ARM_STRIDE = 4  # frames between two looks at the arm: at most 4 cm of way
_ABOVE_BASE = np.flatnonzero(arm.CAPSULE_LINK > 0)  # the base stands on its pedestal
_MAX_FRAMES = 120
_CELLS = 100_000  # of the distance grid: about 2.5 mm apart, a third of the time to build
_SHORTEST = 60


@dataclasses.dataclass(frozen=True)
class DemonstrationConfig:
    """How attempts vary and what a clean reach is."""

    start_spread: tuple[float, float, float] = (0.05, 0.08, 0.05)
    """Standard deviations (m) of the palm's start."""
    start_turn: float = 0.2
    """Standard deviation (rad, per axis) of the palm's orientation at the start."""
    object_spread: float = 0.03
    """Standard deviation (m) of the object's place."""
    yaw_spread: float = 0.4
    """Standard deviation (rad) of the object's turn from where the forearm points to the arm."""
    frames: float = 90.0
    """Frames of a reach of `distance`; others take longer by the root of their length."""
    distance: float = 0.34
    """Metres, the usual length of a reach."""
    frames_spread: float = 0.03
    """Relative standard deviation of the number of frames."""
    max_depth: float = 0.001
    """Metres a sphere of the hand may be inside the object on the way."""
    max_table: float = 0.0005
    """Metres of the hand under the table."""
    batch: int = 16
    """Attempts examined together; fixed, so that the program compiles once."""


@dataclasses.dataclass(frozen=True)
class Tally:
    """What became of the attempts."""

    attempts: int = 0
    reachable: int = 0
    """The arm can carry the hand along at least one of the ways."""
    clean: int = 0
    """A way is free of collisions."""
    lifted: int = 0

    def __add__(self, other: "Tally") -> "Tally":
        """Sums every field."""
        mine, theirs = dataclasses.astuple(self), dataclasses.astuple(other)
        return Tally(*(a + b for a, b in zip(mine, theirs, strict=True)))


@pytree.dataclass
class Attempts:
    """Drawn situations; a of them."""

    grasp: Int[Array | np.ndarray, " a"]
    """Index of the grasp."""
    start: Float[Array | np.ndarray, "a 28"]
    """First pose, in the world."""
    goal: Float[Array | np.ndarray, "a 28"]
    """The grasp, in the world."""
    wxyz_xyz_world_object: Float[Array | np.ndarray, "a 7"]
    lengths: Int[Array | np.ndarray, " a"]
    """Frames of the reach."""


def draw(
    shape: ObjectShape,
    grasps: GraspSet,
    count: int,
    rng: np.random.Generator,
    config: DemonstrationConfig,
    *,
    in_order: bool = False,
    wxyz_xyz_world_object: Float[np.ndarray, " 7"] | None = None,
) -> Attempts:
    """Draws situations: grasp (or the grasps in order), place of the object, start.

    The object is turned so that the forearm of the grasp points toward the arm, as an operator
    would put it, give or take `config.yaw_spread`; unless its pose is given.
    """
    grasp = np.arange(count) if in_order else rng.integers(len(grasps), size=count)
    phi = np.asarray(grasps.phi, np.float64)[grasp]
    R_object_palm = Rotation.from_rotvec(phi[:, 25:28])
    back = R_object_palm.apply([0.0, 0.0, -1.0])
    # The forearm of a hand that points straight down has no azimuth worth keeping.
    steep = np.hypot(back[:, 0], back[:, 1]) < 0.2
    azimuth = np.where(steep, rng.uniform(-np.pi, np.pi, count), np.arctan2(back[:, 1], back[:, 0]))
    yaw = np.pi - azimuth + config.yaw_spread * rng.normal(size=count)
    R_world_object = Rotation.from_rotvec(yaw[:, None] * [0.0, 0.0, 1.0])
    p_world_object = np.zeros((count, 3))
    p_world_object[:, :2] = config.object_spread * rng.normal(size=(count, 2))
    p_world_object[:, 2] = -shape.bounds[0, 2]
    if wxyz_xyz_world_object is not None:
        quaternion = np.tile(wxyz_xyz_world_object[:4], (count, 1))
        R_world_object = Rotation.from_quat(quaternion, scalar_first=True)
        p_world_object = np.tile(wxyz_xyz_world_object[4:], (count, 1))
    p_goal = R_world_object.apply(phi[:, 22:25]) + p_world_object
    goal = np.concatenate(
        [phi[:, :22], p_goal, (R_world_object * R_object_palm).as_rotvec()], axis=1
    )
    # Fingers forward and a little down, palm side down, thumb to the left.
    facing = Rotation.from_matrix(np.array([[0.0, 0.3, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, -0.3]]))
    turn = Rotation.from_rotvec(config.start_turn * rng.normal(size=(count, 3)))
    start = np.zeros((count, pose.SIZE))
    start[:, 22:25] = MEAN_START + rng.normal(size=(count, 3)) * config.start_spread
    start[:, 25:28] = (turn * facing).as_rotvec()
    length = np.linalg.norm(p_goal - start[:, 22:25], axis=1)
    frames = config.frames * np.sqrt(length / config.distance)
    frames = frames * (1.0 + config.frames_spread * rng.normal(size=count))
    placed = np.concatenate([R_world_object.as_quat(scalar_first=True), p_world_object], axis=1)
    return Attempts(
        grasp=grasp.astype(np.int32),
        start=start.astype(np.float32),
        goal=goal.astype(np.float32),
        wxyz_xyz_world_object=placed.astype(np.float32),
        lengths=np.clip(frames.round(), _SHORTEST, _MAX_FRAMES).astype(np.int32),
    )


def directions(goal: Float[Array, "*b 28"]) -> Float[Array, "*b 5 3"]:
    """Where the palm may come from, in order of preference; unit vectors in the world."""
    R = jaxlie.SO3.exp(goal[..., 25:28]).as_matrix()
    back, behind = R[..., :, 1], -R[..., :, 2]  # away from the palm side, and from the fingers
    up = jnp.broadcast_to(jnp.array([0.0, 0.0, 1.0]), back.shape)
    ways = jnp.stack(
        [back + behind + 0.5 * up, back + 0.5 * up, behind + 0.5 * up, back + behind, up], axis=-2
    )
    return ways / jnp.linalg.norm(ways, axis=-1, keepdims=True)


@jax.jit
def candidates(attempts: Attempts) -> Float[Array, "a c t 28"]:
    """All reaches of every attempt, direction first, in order of preference."""
    ways = directions(jnp.asarray(attempts.goal))
    a, d = ways.shape[:2]
    o = len(OPENINGS)
    many = (a, d * o)

    def repeated(x: Array | np.ndarray) -> Array:
        return jnp.broadcast_to(jnp.asarray(x)[:, None], (*many, *x.shape[1:]))

    return reach(
        repeated(attempts.start),
        repeated(attempts.goal),
        jnp.repeat(ways, o, axis=1),
        jnp.broadcast_to(jnp.tile(jnp.asarray(OPENINGS), d), many),
        repeated(attempts.lengths),
        _MAX_FRAMES,
    )


def habitual(
    start: Float[np.ndarray, "b 28"],
    goal: Float[np.ndarray, "b 28"],
    lengths: Int[np.ndarray, " b"],
    frames: int,
) -> Float[np.ndarray, "b f 28"]:
    """The demonstrator's preferred reaches, whatever stands in their way.

    What a model can know that has learnt the habit but not seen the surroundings.

    Args:
        start: First poses, in the world.
        goal: Grasps, in the world.
        lengths: Frames of each reach.
        frames: Frames computed; those beyond a reach's length repeat its last.
    """
    opening = np.full(len(goal), OPENINGS[0], np.float32)
    way = directions(jnp.asarray(goal))[:, 0]
    given = (jnp.asarray(x) for x in (start, goal))
    return np.asarray(_reach(*given, way, jnp.asarray(opening), jnp.asarray(lengths), frames))


_reach = jax.jit(reach, static_argnums=5)


@functools.partial(jax.jit, static_argnums=0)
def _examine(
    hand: HandModel,
    grid: SdfGrid,
    phi: Float[Array, "a c t 28"],
    wxyz_xyz_world_object: Float[Array, "a 7"],
) -> tuple[Float[Array, "a c"], Float[Array, "a c"], Float[Array, "a c"], Bool[Array, "a c"]]:
    """Worst depth (m) of hand in object, hand in table, arm in either; whether the arm reaches."""
    world = jnp.broadcast_to(wxyz_xyz_world_object[:, None, None], (*phi.shape[:-1], 7))
    in_object, in_table = touch.depths(hand, grid, phi, world)
    arm_depth, reachable = _arm_depth(grid, phi[..., ::_ARM_STRIDE, :], wxyz_xyz_world_object)
    return in_object.max(-1), in_table.max(-1), arm_depth, reachable


def _arm_depth(
    grid: SdfGrid, phi: Float[Array, "a c s 28"], wxyz_xyz_world_object: Float[Array, "a 7"]
) -> tuple[Float[Array, "a c"], Bool[Array, "a c"]]:
    """How deep (m) the arm is in table or object, on the solution highest above the table."""
    _, T_world_palm = pose.split(phi)
    p_world_base = jnp.asarray(P_WORLD_BASE)
    q, serves = arm.branches(
        T_world_palm.rotation().as_matrix(), T_world_palm.translation() - p_world_base
    )
    ends, radius = _arm_ends(q)
    low = (radius - ends[..., 2]).max((0, -1, -2))  # a c 8
    best = jnp.where(serves, low, jnp.inf).argmin(-1)[..., None]
    under = jnp.take_along_axis(low, best, axis=-1)[..., 0]
    chosen = jnp.take_along_axis(q, best[..., None, None], axis=2)[:, :, 0]
    (p_a, p_b), _ = _arm_ends(chosen)
    share = jnp.linspace(0.0, 1.0, _ARM_SAMPLES)[:, None, None]
    p = p_a[..., None, :, :] * (1 - share) + p_b[..., None, :, :] * share
    T_object_world = jaxlie.SE3(wxyz_xyz_world_object).inverse()
    R_object_world = T_object_world.rotation().as_matrix()[:, None, None, None, None]
    shift = T_object_world.translation()[:, None, None, None, None]
    p_object = jnp.einsum("...ij,...j->...i", R_object_world, p) + shift
    distance, _ = sdf.first_order(grid, jnp.moveaxis(p_object, -1, 0))
    inside = (radius - distance).max((-1, -2, -3))
    return jnp.maximum(under, inside), serves.any(-1)


def _arm_ends(q: Float[Array, "*b 6"]) -> tuple[Float[Array, "2 *b k 3"], Float[Array, " k"]]:
    """Both ends of the arm's capsules in the world (m), and their radii (m)."""
    p_a, p_b, radius = arm.capsules(arm.forward(q))
    ends = jnp.stack([p_a, p_b])[..., _ABOVE_BASE, :] + jnp.asarray(P_WORLD_BASE)
    return ends, radius[_ABOVE_BASE]


def demonstrate(
    hand: HandModel,
    shape: ObjectShape,
    grasps: GraspSet,
    count: int,
    seed: int,
    *,
    grid: SdfGrid | None = None,
    config: DemonstrationConfig | None = None,
    max_batches: int = 40,
    threads: int | None = None,
) -> tuple[MotionSet, Tally]:
    """Demonstrations for one object.

    Args:
        hand: The hand.
        shape: The object, standing on its lowest point.
        grasps: Its grasps, in the object frame.
        count: Number of demonstrations wanted.
        seed: The same seed gives the same demonstrations.
        grid: The object's distance grid, if already built.
        config: How attempts vary.
        max_batches: Give up after that many batches of attempts, with what there is.
        threads: Threads of the lift; `native.cores()` if None.

    Returns:
        At most `count` motions that lift, and what became of all attempts.

    Raises:
        HandError: A hand with other joints than Shadow's.
    """
    require_shadow(hand, "the demonstrator")
    config = config or DemonstrationConfig()
    if grid is None:
        grid = sdf.sample(lambda p: sdf.exact_distance(shape, p), shape.bounds, _CELLS)
    rng = np.random.default_rng(seed)
    parts: list[MotionSet] = []
    tally = Tally()
    for _ in range(max_batches):
        attempts = draw(shape, grasps, config.batch, rng, config)
        found, reachable = clean(hand, grid, attempts, config)
        tally += Tally(attempts=config.batch, reachable=int(reachable.sum()), clean=len(found))
        if not len(found):
            continue
        chosen = attempts.grasp[found.attempt]
        q_squeeze = np.asarray(grasps.q_squeeze, np.float32)[chosen]
        placed = np.asarray(attempts.wxyz_xyz_world_object)[found.attempt]
        result = lift(hand, shape, found.phi, q_squeeze, placed, rate=RATE, threads=threads)
        good = np.flatnonzero(result.success)
        tally += Tally(lifted=len(good))
        if len(good):
            parts.append(
                motion_set.of_poses(
                    (shape.name,),
                    np.zeros(len(good), np.int32),
                    [found.phi[i] for i in good],
                    placed[good],
                    q_squeeze[good],
                )
            )
        if sum(len(part) for part in parts) >= count:
            break
    if not parts:
        nothing = np.zeros((0, 7), np.float32), np.zeros((0, 22), np.float32)
        return motion_set.of_poses((shape.name,), [], [], *nothing), tally
    motions = motion_set.join(parts)
    return motion_set.take(motions, np.arange(min(count, len(motions)))), tally


@dataclasses.dataclass(frozen=True)
class Clean:
    """Reaches without collisions, one of each attempt that has any."""

    attempt: Int[np.ndarray, " k"]
    phi: list[Float[np.ndarray, "_ 28"]]
    """Poses in the world, each of its own length."""

    def __len__(self) -> int:
        """Number of reaches."""
        return len(self.attempt)


def clean(
    hand: HandModel, grid: SdfGrid, attempts: Attempts, config: DemonstrationConfig
) -> tuple[Clean, Bool[np.ndarray, " a"]]:
    """The preferred clean reach of every attempt, and whether the arm reaches at all."""
    phi = candidates(attempts)
    in_object, in_table, of_arm, reachable = (
        np.asarray(x)
        for x in _examine(hand, grid, phi, jnp.asarray(attempts.wxyz_xyz_world_object))
    )
    free = reachable & (in_object <= config.max_depth)
    free &= (in_table <= config.max_table) & (of_arm <= 0.0)
    some = np.flatnonzero(free.any(1))
    first = free.argmax(1)
    picked = [np.asarray(phi[i, first[i], : int(attempts.lengths[i])]) for i in some]
    return Clean(some, picked), np.asarray(reachable.any(1))


assert _SHORTEST > CLOSING + OVERLAP
