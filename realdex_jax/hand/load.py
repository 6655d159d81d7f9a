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
from realdex_jax.hand import facts, joints
from realdex_jax.hand.facts import ContactLinks, Facts
from realdex_jax.hand.joints import JointTable

FACTS = "hand.toml"
"""A folder of `assets` with this file is a hand of its name, and has its MJCF in `hand.xml`."""
MIN_HOPS = 3
"""Self-collision counts link pairs this many joints apart; nearer ones overlap by construction."""

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
    """Index into the joint table of the joint that moves each link; -1 for the palm."""
    p_parent_link: Float[np.ndarray, "l 3"]
    """Offset of each link in its parent, metres."""
    R_parent_link: Float[np.ndarray, "l 3 3"]
    """Orientation of each link in its parent at zero angle."""
    axis: Float[np.ndarray, "l 3"]
    """Unit joint axis in the link frame; zero for the palm."""
    geoms: HandGeoms
    tip_link: tuple[int, ...]
    """Links that carry the f fingertips, order `facts.digits`."""
    p_link_tip: Float[np.ndarray, "f 3"]
    """Fingertip frames in those links, metres."""
    joints: JointTable
    """Names, limits and rest of the joints, in the order of pose vectors."""
    facts: Facts
    """What the MJCF does not say."""

    @functools.cached_property
    def contacts(self) -> ContactLinks:
        """The links that may carry a contact."""
        return self.facts.contacts()

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


def known() -> tuple[str, ...]:
    """Names of all hands: ours, and the folders of `assets` with a `hand.toml`."""
    return (*_FILES, *sorted(path.parent.name for path in _assets().glob(f"*/{FACTS}")))


@functools.cache
def load(name: str = "shadow") -> HandModel:
    """Loads a hand by name.

    Args:
        name: "shadow" is ours (the default everywhere); "dexgraspnet" has the link offsets and
            primitives of that dataset's hand, under the same joint vector, to replay its grasps;
            any other is a folder of `assets`.

    Raises:
        HandError: Unknown name, or a folder that is not a whole hand.
    """
    if name in _FILES:
        return from_mjcf(_assets() / _FILES[name], name)
    if name not in known():
        raise HandError(f"no hand {name!r}; known: {', '.join(known())}")
    folder = _assets() / name
    return from_mjcf(folder / "hand.xml", name, facts.read(folder / FACTS))


def require_shadow(hand: HandModel, what: str) -> None:
    """Refuses hands with other joints than Shadow's.

    Args:
        hand: The hand.
        what: What needs Shadow's, in words; begins the error.

    Raises:
        HandError: The hand has others.
    """
    if hand.joints is not joints.SHADOW:
        raise HandError(
            f"{what} is for hand 'shadow' or another with its joints; got {hand.name!r}"
        )


def _assets() -> Path:
    return Path(str(resources.files("realdex_jax") / "assets"))


def from_mjcf(path: Path, name: str, about: Facts | None = None) -> HandModel:
    """Reads a hand whose root body is the palm.

    Args:
        path: The MJCF.
        name: Name of the hand.
        about: What the MJCF does not say; if None the hinges carry Shadow's names, and their table
            is Shadow's.

    Raises:
        HandError: The joints differ from Shadow's table, links or sites are missing that the
            facts name, a joint has no range, or a geometry is neither box, capsule nor sphere.
    """
    try:
        model = mujoco.MjModel.from_xml_path(str(path))
    except ValueError as error:
        raise HandError(f"{path} does not compile: {error}") from error
    table = joints.SHADOW if about is None else _table(model, path, name, about)
    about = facts.SHADOW if about is None else about
    names = tuple(model.body(b).name for b in range(1, model.nbody))
    joint = [-1]
    axis = [np.zeros(3)]
    for b in range(2, model.nbody):
        if model.body_jntnum[b] != 1:
            raise HandError(
                f"{path}: link {names[b - 1]!r} has {model.body_jntnum[b]} joints, not 1"
            )
        j = model.body_jntadr[b]
        if model.joint(j).name not in table.names:
            raise HandError(f"{path}: unknown joint {model.joint(j).name!r}; known: {table.names}")
        joint.append(table.names.index(model.joint(j).name))
        axis.append(model.jnt_axis[j].copy())
    if sorted(joint[1:]) != list(range(len(table))):
        raise HandError(f"{path}: needs each of {table.names} once")
    lacking = sorted(({*about.contacts().names, *about.palmar}) - set(names))
    sites = {model.site(s).name: s for s in range(model.nsite)}
    lacking += [f"{digit}tip (site)" for digit in about.digits if f"{digit}tip" not in sites]
    if lacking or names[0] != "palm":
        raise HandError(f"{path}: lacks {lacking or 'palm as its root'}; it has links {names}")
    tips = [sites[f"{digit}tip"] for digit in about.digits]
    found = HandModel(
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
        joints=table,
        facts=about,
    )
    g = found.geoms
    bare = set(about.contacts().names) - {names[link] for link in g.link}
    if bare:
        raise HandError(f"{path}: links without a primitive: {sorted(bare)}; each needs one")
    box = g.link[g.is_box]
    far = [(names[a], names[b]) for a in box for b in box if found.hops[a, b] >= MIN_HOPS]
    if far:
        raise HandError(
            f"{path}: boxes on {far[0][0]!r} and {far[0][1]!r}, which may meet; boxes are for the "
            "palm and its neighbours, capsules for the digits"
        )
    return found


def _table(model: mujoco.MjModel, path: Path, name: str, about: Facts) -> JointTable:
    """The joints of a model in its own order, with its own limits.

    Raises:
        HandError: A joint has no range, or the facts' rest names none of them or leaves its range.
    """
    names = tuple(model.joint(j).name for j in range(model.njnt))
    for j, joint in enumerate(names):
        if model.jnt_type[j] != mujoco.mjtJoint.mjJNT_HINGE or not model.jnt_limited[j]:
            raise HandError(f"{path}: joint {joint!r} is no hinge with a range")
    unknown = sorted(set(about.rest) - set(names))
    if unknown:
        raise HandError(f"{path}: rest of unknown joints {unknown}; known: {', '.join(names)}")
    lower, upper = model.jnt_range.T
    rest = np.array([about.rest.get(joint, 0.0) for joint in names])
    outside = [names[j] for j in np.flatnonzero((rest < lower) | (rest > upper))]
    if outside:
        raise HandError(f"{path}: the rest of {outside} is beyond its limits")
    lower, upper, rest = (x.astype(np.float32) for x in (lower, upper, rest))
    return JointTable(name, names, lower, upper, rest)


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
