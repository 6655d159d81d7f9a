"""Hand models as plain constants, read from MJCF by MuJoCo's compiler.

The only file of the core that imports mujoco. A `HandModel` holds numpy constants and is hashed by
identity, so kinematics can unroll over it and jitted functions can take it as a static argument.
"""

import dataclasses
import functools
from importlib import resources
from pathlib import Path

import mujoco
import numpy as np
from jaxtyping import Float, Int

from realdex_jax.errors import HandError
from realdex_jax.hand import joints

_FILES: dict[str, str] = {"shadow": "shadow_hand.xml", "dexgraspnet": "dexgraspnet_hand.xml"}


@dataclasses.dataclass(frozen=True, eq=False)
class HandGeoms:
    """Collision primitives in link frames."""

    link: Int[np.ndarray, " g"]
    """Index of the link that carries the primitive."""
    is_box: np.ndarray
    """(g,) bool: box, else capsule (a sphere is a capsule of half length zero)."""
    p_link_geom: Float[np.ndarray, "g 3"]
    """Centre in the link frame, metres."""
    R_link_geom: Float[np.ndarray, "g 3 3"]
    """Orientation in the link frame."""
    size: Float[np.ndarray, "g 3"]
    """Capsule: radius, half length along local z, 0. Box: half extents. Metres."""


@dataclasses.dataclass(frozen=True, eq=False)
class HandModel:
    """Kinematic tree and primitives of a hand whose root is the palm."""

    name: str
    mjcf: Path
    """The file it was read from."""
    link_names: tuple[str, ...]
    """Links in depth-first order; the palm is 0."""
    parents: tuple[int, ...]
    """Parent of each link; -1 for the palm."""
    joint: tuple[int, ...]
    """Index into `joints.NAMES` of the joint that moves each link; -1 for the palm."""
    p_parent_link: Float[np.ndarray, "l 3"]
    """Offset of each link in its parent, metres."""
    R_parent_link: Float[np.ndarray, "l 3 3"]
    """Orientation of each link in its parent at zero angle."""
    axis: Float[np.ndarray, "l 3"]
    """Unit joint axis in the link frame; zero for the palm."""
    geoms: HandGeoms
    tip_link: tuple[int, ...]
    """Links that carry the five fingertips, order FF MF RF LF TH."""
    p_link_tip: Float[np.ndarray, "5 3"]
    """Fingertip frames in those links, metres."""

    def link(self, name: str) -> int:
        """Index of a link by name."""
        if name not in self.link_names:
            raise HandError(f"no link {name!r} in hand {self.name!r}; known: {self.link_names}")
        return self.link_names.index(name)

    @functools.cached_property
    def hops(self) -> Int[np.ndarray, "l l"]:
        """Number of joints between each two links."""
        paths = []
        for link in range(len(self.parents)):
            path = [link]
            while self.parents[path[-1]] >= 0:
                path.append(self.parents[path[-1]])
            paths.append(path)
        return np.array([[len(set(a) ^ set(b)) for b in paths] for a in paths])


@functools.cache
def load(name: str = "shadow") -> HandModel:
    """Loads a hand by name.

    Args:
        name: "shadow" is ours (the default everywhere); "dexgraspnet" has the link offsets and
            primitives of that dataset's hand, under the same joint vector, to replay its grasps.

    Raises:
        HandError: Unknown name.
    """
    if name not in _FILES:
        raise HandError(f"no hand {name!r}; known: {', '.join(_FILES)}")
    path = Path(str(resources.files("realdex_jax") / "assets" / _FILES[name]))
    return from_mjcf(path, name)


def from_mjcf(path: Path, name: str) -> HandModel:
    """Reads a hand whose root body is the palm and whose hinges carry Shadow's names.

    Raises:
        HandError: The joints differ from `joints.NAMES`, or a geometry is neither box, capsule
            nor sphere.
    """
    model = mujoco.MjModel.from_xml_path(str(path))
    names = tuple(model.body(b).name for b in range(1, model.nbody))
    joint = [-1]
    axis = [np.zeros(3)]
    for b in range(2, model.nbody):
        if model.body_jntnum[b] != 1:
            raise HandError(
                f"{path}: link {names[b - 1]!r} has {model.body_jntnum[b]} joints, not 1"
            )
        j = model.body_jntadr[b]
        if model.joint(j).name not in joints.NAMES:
            raise HandError(f"{path}: unknown joint {model.joint(j).name!r}; known: {joints.NAMES}")
        joint.append(joints.NAMES.index(model.joint(j).name))
        axis.append(model.jnt_axis[j].copy())
    if sorted(joint[1:]) != list(range(len(joints.NAMES))):
        raise HandError(f"{path}: needs each of {joints.NAMES} once")
    sites = {model.site(s).name: s for s in range(model.nsite)}
    tips = [sites[f"{finger.lower()}tip"] for finger in joints.FINGERS]
    return HandModel(
        name=name,
        mjcf=path,
        link_names=names,
        parents=tuple(int(p) - 1 for p in model.body_parentid[1:]),
        joint=tuple(joint),
        p_parent_link=model.body_pos[1:].astype(np.float32),
        R_parent_link=np.stack([_rotation(q) for q in model.body_quat[1:]]),
        axis=np.stack(axis).astype(np.float32),
        geoms=_geoms(model, path),
        tip_link=tuple(int(model.site_bodyid[s]) - 1 for s in tips),
        p_link_tip=model.site_pos[tips].astype(np.float32),
    )


def _geoms(model: mujoco.MjModel, path: Path) -> HandGeoms:
    box, capsule, sphere = (
        int(kind)
        for kind in (
            mujoco.mjtGeom.mjGEOM_BOX,
            mujoco.mjtGeom.mjGEOM_CAPSULE,
            mujoco.mjtGeom.mjGEOM_SPHERE,
        )
    )
    size = model.geom_size.astype(np.float32).copy()
    for g, kind in enumerate(model.geom_type):
        if kind not in (box, capsule, sphere):
            raise HandError(f"{path}: geometry {g} has type {kind}; known: box, capsule, sphere")
        if kind != box:
            size[g, 2] = 0.0
        if kind == sphere:
            size[g, 1] = 0.0
    return HandGeoms(
        link=model.geom_bodyid.astype(np.int32) - 1,
        is_box=np.asarray(model.geom_type == box),
        p_link_geom=model.geom_pos.astype(np.float32),
        R_link_geom=np.stack([_rotation(q) for q in model.geom_quat]),
        size=size,
    )


def _rotation(wxyz: np.ndarray) -> Float[np.ndarray, "3 3"]:
    matrix = np.zeros(9)
    mujoco.mju_quat2Mat(matrix, np.asarray(wxyz, np.float64))
    return matrix.reshape(3, 3).astype(np.float32)
