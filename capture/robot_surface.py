"""The robot's surface at a joint state: points with normals in the world, and how far others are.

The hand is known by its meshes where they are installed, else by its primitives; its forearm and
the arm by the capsules that cover them. Those of the arm stand out by centimetres at their round
ends: good to cut the arm out of a cloud, not to be matched with it.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import trimesh
from jaxtyping import Array, Bool, Float, Int
from scipy.spatial import KDTree
from scipy.spatial.transform import Rotation

from capture.device import CaptureError
from capture.recording import JointSeries
from realdex_jax import arm
from realdex_jax.data import realdex_layout, rigid
from realdex_jax.hand import kinematics
from realdex_jax.hand.load import HandModel
from sim import robot_meshes
from sim.sequence import JOINTS
from sim.stage import FOREARM

SPACING = 0.004
"""Metres between neighbouring points of the hand: finer than a depth pixel at arm's length."""
_FOREARM = arm.LINKS.index("rh_forearm")
_OVER = 6
"""Candidates for each point that is kept."""
_SEED = 11


@dataclasses.dataclass(frozen=True, eq=False)
class RobotSurface:
    """Points fixed to links: the hand's, then `arm.LINKS`."""

    link: Int[np.ndarray, " m"]
    """Index of each point's link."""
    p_link: Float[np.ndarray, "m 3"]
    """In the link's frame, metres."""
    normal_link: Float[np.ndarray, "m 3"]
    """Outward unit normals there."""
    exact: Bool[np.ndarray, " m"]
    """Points of hand and forearm; the others are on capsules that cover the arm roughly."""


@dataclasses.dataclass(frozen=True, eq=False)
class Posed:
    """The surface at one joint state, in the world."""

    p_world: Float[np.ndarray, "m 3"]
    """Points, metres."""
    normal_world: Float[np.ndarray, "m 3"]
    """Outward unit normals."""

    @functools.cached_property
    def tree(self) -> KDTree:
        """Of the points."""
        return KDTree(self.p_world, balanced_tree=False, compact_nodes=False)

    def distance(
        self, p_world: Float[np.ndarray, "n 3"], most: float = np.inf
    ) -> Float[np.ndarray, " n"]:
        """Signed distance (m) of points to the surface, negative inside.

        By the plane at the nearest point where that is below or above, else to the point itself, so
        that within a few spacings it is right to a fraction of a millimetre on smooth surfaces.

        Args:
            p_world: Points, metres.
            most: Farther away (m) it is infinite, and found sooner.
        """
        apart, near = self.tree.query(p_world, distance_upper_bound=most)
        found = np.isfinite(apart)
        near = np.where(found, near, 0)
        offset = p_world - self.p_world[near]
        height = np.einsum("ni,ni->n", offset, self.normal_world[near])
        aside = np.sqrt(np.maximum(apart**2 - height**2, 0.0, where=found, out=np.zeros(len(near))))
        beside = np.hypot(height, np.maximum(aside - SPACING, 0.0))
        signed = np.where(height < 0.0, -beside, beside)
        return np.where(found, signed, np.inf)

    def near(
        self, p_world: Float[np.ndarray, "n 3"], margin: float = 0.01
    ) -> Bool[np.ndarray, " n"]:
        """Which points are within a margin (m) of the robot or in it: what to cut out of a cloud.

        Args:
            p_world: Points, metres.
            margin: Depth noise, an error of the robot's place and flying pixels are to be in it.
        """
        # Flesh is never thicker than this: deeper points of a link are found from another side.
        return self.distance(p_world, most=max(margin, 0.03) + SPACING) < margin


@functools.cache
def surface(hand: HandModel, spacing: float = SPACING, *, with_arm: bool = True) -> RobotSurface:
    """Points of hand, forearm and arm; always the same ones.

    Args:
        hand: The hand.
        spacing: Metres between neighbours; on the arm it is four times that.
        with_arm: Whether the arm is there; its forearm always is.

    Raises:
        CaptureError: A spacing that is not positive.
    """
    if not spacing > 0:
        raise CaptureError(f"spacing of {spacing} m; must be positive")
    parts = [(link, mesh, spacing, True) for link, mesh in robot_meshes.of_hand(hand)]
    first = len(hand.link_names)
    for y, low, high, radius in FOREARM:
        ends = np.array([[0.0, y, low], [0.0, y, high]]) + arm.P_FOREARM_PALM
        parts.append(
            (first + _FOREARM, robot_meshes.capsule(ends[0], ends[1], radius), spacing, True)
        )
    if with_arm:
        straight = arm.forward(jnp.zeros(6))
        R, p = np.asarray(straight.R, np.float64), np.asarray(straight.p, np.float64)
        p_a, p_b, radius = (np.asarray(x, np.float64) for x in arm.capsules(straight))
        for c, link in enumerate(arm.CAPSULE_LINK.tolist()):
            if link != _FOREARM:
                ends = [(end - p[link]) @ R[link] for end in (p_a[c], p_b[c])]
                mesh = robot_meshes.capsule(ends[0], ends[1], float(radius[c]))
                parts.append((first + link, mesh, 4.0 * spacing, False))
    sampled = [_sample(mesh, apart) for _, mesh, apart, _ in parts]
    counts = [len(p) for p, _ in sampled]
    return RobotSurface(
        np.repeat([link for link, *_ in parts], counts),
        np.concatenate([p for p, _ in sampled]),
        np.concatenate([n for _, n in sampled]),
        np.repeat([exact for *_, exact in parts], counts),
    )


def ordered(series: JointSeries) -> Float[np.ndarray, "n 30"]:
    """Angles of a recorded series in the order of `sequence.JOINTS`, radians.

    Raises:
        CaptureError: A joint is missing.
    """
    if missing := [name for name in JOINTS if name not in series.names]:
        raise CaptureError(
            f"the recorded joints lack {', '.join(missing)}; there are {', '.join(series.names)}"
        )
    return series.q[:, [series.names.index(name) for name in JOINTS]]


def palms(q: Float[np.ndarray, "n 30"]) -> Float[np.ndarray, "n 7"]:
    """T_base_hand of joint states: quaternion wxyz and position (m).

    Args:
        q: Angles of `sequence.JOINTS`, radians.
    """
    placed = _arm_jitted(jnp.asarray(q[:, :6], jnp.float32))
    R, p = (np.asarray(x, np.float64)[:, _FOREARM] for x in (placed.R, placed.p))
    R_base_hand, p_base_hand = realdex_layout.palm(Rotation.from_matrix(R), p, q[:, 6:8])
    return np.concatenate([R_base_hand.as_quat(scalar_first=True), p_base_hand], axis=1)


def place(
    hand: HandModel,
    points: RobotSurface,
    q: Float[np.ndarray, " 30"],
    wxyz_xyz_world_base: Float[np.ndarray, " 7"],
) -> Posed:
    """The surface at a joint state.

    Args:
        hand: The hand of `points`.
        points: From `surface`.
        q: Angles of `sequence.JOINTS`, radians.
        wxyz_xyz_world_base: T_world_base of the arm; where T_cam_base is given, all is in the
            camera's frame.
    """
    placed = _arm_jitted(jnp.asarray(q[None, :6], jnp.float32))
    base = rigid.matrix(wxyz_xyz_world_base)
    R_arm = base[:3, :3] @ np.asarray(placed.R, np.float64)[0]
    p_arm = np.asarray(placed.p, np.float64)[0] @ base[:3, :3].T + base[:3, 3]
    palm = rigid.compose(wxyz_xyz_world_base, palms(q[None])[0])
    return _posed(hand, points, q[8:], palm, R_arm, p_arm)


def place_hand(
    hand: HandModel,
    points: RobotSurface,
    phi: Float[np.ndarray, " 28"],
    q_wrist: Float[np.ndarray, " 2"] | None = None,
) -> Posed:
    """The surface of hand and forearm where the palm is known and the arm is not.

    Args:
        hand: The hand of `points`.
        points: From `surface`, without the arm.
        phi: Pose of the hand in the world.
        q_wrist: WRJ2 and WRJ1, radians; zero if None.

    Raises:
        CaptureError: The surface has the arm.
    """
    if not points.exact.all():
        raise CaptureError("a surface with the arm; without its joints it has no place")
    wxyz = Rotation.from_rotvec(np.asarray(phi[25:], np.float64)).as_quat(scalar_first=True)
    palm = np.concatenate([wxyz, phi[22:25]])
    wrist = np.zeros(2) if q_wrist is None else q_wrist
    R, p = realdex_layout.forearm(
        Rotation.from_rotvec(np.asarray(phi[None, 25:], np.float64)), palm[None, 4:], wrist[None]
    )
    # Of the arm's links only this one has points.
    count = len(arm.LINKS)
    return _posed(
        hand, points, phi[:22], palm, np.repeat(R.as_matrix(), count, 0), np.repeat(p, count, 0)
    )


def _posed(
    hand: HandModel,
    points: RobotSurface,
    q: Float[np.ndarray, " 22"],
    palm: Float[np.ndarray, " 7"],
    R_world_arm: Float[np.ndarray, "a 3 3"],
    p_world_arm: Float[np.ndarray, "a 3"],
) -> Posed:
    R_hand, p_hand = _hand_jitted(hand, jnp.asarray(q, jnp.float32))
    T = rigid.matrix(palm)
    R = np.concatenate([T[:3, :3] @ np.asarray(R_hand, np.float64), R_world_arm])
    p = np.concatenate([np.asarray(p_hand, np.float64) @ T[:3, :3].T + T[:3, 3], p_world_arm])
    # One product for each link: gathering a matrix for each point takes three times as long.
    p_world, normal = np.empty((2, len(points.link), 3))
    starts = np.flatnonzero(np.diff(points.link, prepend=-1))
    for start, end in zip(starts, np.append(starts[1:], len(points.link)), strict=True):
        link = points.link[start]
        p_world[start:end] = points.p_link[start:end] @ R[link].T + p[link]
        normal[start:end] = points.normal_link[start:end] @ R[link].T
    return Posed(p_world, normal)


@jax.jit
def _arm_jitted(q: Array) -> arm.ArmLinks:
    return arm.forward(q)


@functools.partial(jax.jit, static_argnums=0)
def _hand_jitted(hand: HandModel, q: Array) -> tuple[Array, Array]:
    links = kinematics.forward(hand, q)
    return links.R, links.p


def _sample(
    mesh: trimesh.Trimesh, apart: float
) -> tuple[Float[np.ndarray, "n 3"], Float[np.ndarray, "n 3"]]:
    """Points about so far apart (m), one in each cell of a grid, with normals."""
    count = max(int(_OVER * mesh.area / apart**2), 24)
    points, face = trimesh.sample.sample_surface(mesh, count, seed=_SEED)[:2]
    normals = np.asarray(mesh.face_normals)[face]
    # Sides of a thin part share no cell.
    side = np.argmax(np.concatenate([normals, -normals], axis=1), axis=1)
    cell = np.column_stack([np.floor(np.asarray(points) / apart).astype(np.int64), side])
    first = np.sort(np.unique(cell, axis=0, return_index=True)[1])
    return np.asarray(points, np.float64)[first], normals[first]
