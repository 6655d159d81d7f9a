"""The Shadow Hand's visual meshes, as the mujoco-mjx package carries them; for pictures only."""

import dataclasses
import functools
import importlib.util
from pathlib import Path

import mujoco
import numpy as np
from jaxtyping import Float, Int

from realdex_jax.hand.load import HandModel

_WHERE = ("test_data", "shadow_hand", "right_hand.xml")
_PREFIX = "rh_"
_VISUAL_GROUP = 2


@dataclasses.dataclass(frozen=True, eq=False)
class Visual:
    """One mesh fixed to a link."""

    link: int
    """Index of the link in the hand."""
    name: str
    """Name of the mesh; fingers share theirs."""
    vertices: Float[np.ndarray, "v 3"]
    """In the mesh's own frame, metres."""
    faces: Int[np.ndarray, "f 3"]
    p_link_mesh: Float[np.ndarray, " 3"]
    R_link_mesh: Float[np.ndarray, "3 3"]


def find() -> Path | None:
    """The hand's model file inside the installed mujoco-mjx, or None."""
    spec = importlib.util.find_spec("mujoco.mjx")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder).joinpath(*_WHERE)
        if path.is_file():
            return path
    return None


@functools.cache
def load(hand: HandModel) -> tuple[Visual, ...]:
    """Visual meshes of `hand`, or nothing where they are not installed or it is another hand.

    The file has a forearm and a wrist in front of the palm and turns some links otherwise than
    ours. Both agree on the palm frame and the zero posture, so the offset of each link is read
    off there.
    """
    path = find()
    if path is None or hand.name != "shadow":
        return ()
    model = mujoco.MjModel.from_xml_path(str(path))
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    ours = {name: i for i, name in enumerate(hand.link_names)}
    R_palm_link, p_palm_link = _zero_posture(hand)
    palm = model.body(f"{_PREFIX}palm").id
    R_world_palm = data.xmat[palm].reshape(3, 3)
    visuals = []
    for geom in np.flatnonzero(model.geom_group == _VISUAL_GROUP):
        body = model.body(model.geom_bodyid[geom]).name.removeprefix(_PREFIX)
        if body not in ours or model.geom_type[geom] != mujoco.mjtGeom.mjGEOM_MESH:
            continue
        link = ours[body]
        R_palm_mesh = R_world_palm.T @ data.geom_xmat[geom].reshape(3, 3)
        p_palm_mesh = R_world_palm.T @ (data.geom_xpos[geom] - data.xpos[palm])
        mesh = model.geom_dataid[geom]
        vertices = slice(
            model.mesh_vertadr[mesh], model.mesh_vertadr[mesh] + model.mesh_vertnum[mesh]
        )
        faces = slice(model.mesh_faceadr[mesh], model.mesh_faceadr[mesh] + model.mesh_facenum[mesh])
        visuals.append(
            Visual(
                link=link,
                name=model.mesh(mesh).name,
                vertices=model.mesh_vert[vertices].astype(np.float64),
                faces=model.mesh_face[faces].astype(np.int32),
                p_link_mesh=R_palm_link[link].T @ (p_palm_mesh - p_palm_link[link]),
                R_link_mesh=R_palm_link[link].T @ R_palm_mesh,
            )
        )
    return tuple(visuals)


def _zero_posture(hand: HandModel) -> tuple[np.ndarray, np.ndarray]:
    """Link poses in the palm at zero joint angles, in float64."""
    R, p = [np.eye(3)], [np.zeros(3)]
    for link in range(1, len(hand.parents)):
        parent = hand.parents[link]
        R.append(R[parent] @ hand.R_parent_link[link].astype(np.float64))
        p.append(p[parent] + R[parent] @ hand.p_parent_link[link].astype(np.float64))
    return np.stack(R), np.stack(p)
