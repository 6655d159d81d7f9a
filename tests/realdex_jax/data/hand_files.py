"""Files of MANO's and GRAB's layout, made up: a stick hand of the right shapes, and reaches."""

import io
import pathlib
import pickle
import sys
import types
from typing import Any

import numpy as np
import trimesh
from scipy import sparse
from scipy.spatial.transform import Rotation

from realdex_jax.data import mano

PARENTS = [4294967295, 0, 1, 2, 0, 4, 5, 0, 7, 8, 0, 10, 11, 0, 13, 14]
RATE = 120.0

# Roots and bone lengths of a flat hand in MANO's order of fingers: fingers along x, palm down.
_ROOTS = {
    "index": (0.088, -0.005, 0.025),
    "middle": (0.095, 0.0, 0.002),
    "little": (0.069, -0.01, -0.039),
    "ring": (0.082, -0.002, -0.02),
    "thumb": (0.025, -0.015, 0.03),
}
_BONES = {
    "index": (0.033, 0.023, 0.022),
    "middle": (0.031, 0.024, 0.024),
    "little": (0.021, 0.018, 0.019),
    "ring": (0.029, 0.025, 0.023),
    "thumb": (0.032, 0.03, 0.026),
}


def joints_and_tips() -> tuple[np.ndarray, np.ndarray]:
    """16 joints, and 5 tips from thumb to little finger, metres."""
    joints, tips = [np.zeros(3)], {}
    for finger, root in _ROOTS.items():
        along = np.array([0.7, -0.2, 0.68]) if finger == "thumb" else np.array([1.0, 0, 0])
        along = along / np.linalg.norm(along)
        at = np.array(root)
        for length in _BONES[finger]:
            joints.append(at)
            at = at + length * along
        tips[finger] = at
    order = ("thumb", "index", "middle", "ring", "little")
    return np.stack(joints), np.stack([tips[finger] for finger in order])


def model_arrays(seed: int = 0) -> dict[str, Any]:
    """Arrays of a model: vertices 0 to 15 are the joints, five are tips, the rest lies about."""
    rng = np.random.default_rng(seed)
    joints, tips = joints_and_tips()
    carrier = rng.integers(16, size=778)
    carrier[:16] = np.arange(16)
    carrier[list(mano.TIPS)] = [15, 3, 6, 12, 9]
    template = joints[carrier] + 0.004 * rng.normal(size=(778, 3))
    template[:16], template[list(mano.TIPS)] = joints, tips
    weights = 0.1 * rng.dirichlet(np.ones(16), 778)
    weights[np.arange(778), carrier] += 0.9
    regressor = np.zeros((16, 778))
    regressor[np.arange(16), np.arange(16)] = 1.0
    return {
        "v_template": template,
        "J_regressor": sparse.csc_matrix(regressor),
        "weights": weights,
        "posedirs": 1e-4 * rng.normal(size=(778, 3, 135)),
        "hands_components": np.linalg.qr(rng.normal(size=(45, 45)))[0],
        "hands_mean": 0.1 * rng.normal(size=45),
        "kintree_table": np.array([PARENTS, range(16)], np.uint32),
        "f": rng.integers(778, size=(1538, 3)).astype(np.uint32),
        "bs_type": "lrotmin",
    }


def write_model(path: pathlib.Path, arrays: dict[str, Any] | None = None) -> pathlib.Path:
    """A pickle as the published one: old names, a sparse matrix, shape blend shapes by chumpy."""
    arrays = arrays or model_arrays()
    path.write_bytes(pickle_with_chumpy({**arrays, "shapedirs": np.zeros((778, 3, 10))}))
    return path


def pickle_with_chumpy(arrays: dict[str, Any], protocol: int = 2) -> bytes:
    """Pickles arrays, `shapedirs` as a chumpy expression; the names are those of years ago."""
    modules = {
        name: types.ModuleType(name) for name in ("chumpy", "chumpy.ch", "chumpy.reordering")
    }
    ch = type("Ch", (), {"__module__": "chumpy.ch"})
    select = type("Select", (), {"__module__": "chumpy.reordering"})
    modules["chumpy.ch"].Ch, modules["chumpy.reordering"].Select = ch, select
    inner, outer = ch(), select()
    inner.__dict__.update(x=np.zeros((778, 3, 20)), _dirty_vars={"x"} if protocol < 4 else None)
    outer.__dict__.update(a=inner, idxs=np.arange(23340), preferred_shape=(778, 3, 10))
    outer.__dict__["_itself"] = outer
    before = {name: sys.modules.get(name) for name in modules}
    sys.modules.update(modules)
    try:
        content = pickle.dumps({**arrays, "shapedirs": outer}, protocol)
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
    if protocol >= 4:  # names have their lengths before them
        return content
    return content.replace(b"scipy.sparse._csc", b"scipy.sparse.csc").replace(
        b"numpy._core.multiarray", b"numpy.core.multiarray"
    )


def write_ply(path: pathlib.Path, vertices: np.ndarray, faces: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(trimesh.Trimesh(vertices, faces, process=False).export(file_type="ply"))


def write_tools(root: pathlib.Path, template: np.ndarray) -> None:
    """The meshes that sequences name: a measured hand, and a box as every object."""
    faces = np.arange(778 - 1).reshape(-1, 3)
    faces = np.concatenate([faces, [[775, 776, 777]]])
    write_ply(root / "tools/subject_meshes/male/s1_rhand.ply", template, faces)
    box = trimesh.creation.box((0.05, 0.06, 0.08))
    for name in ("mug", "apple", "cup"):
        write_ply(root / f"tools/object_meshes/contact_meshes/{name}.ply", box.vertices, box.faces)


def reach(name: str = "mug", frames: int = 180, onset: int = 150) -> dict[str, Any]:
    """A sequence: the hand comes, closes, and from `onset` on lifts the object with it."""
    time = np.arange(frames)
    share = np.clip(time / onset, 0.0, 1.0)[:, None]
    # Fingers (MANO's x) point to world y, the palm looks down.
    turn = Rotation.from_matrix([[0, 0, 1], [1, 0, 0], [0, 1, 0]]).as_rotvec()
    lift = np.maximum(time - onset + 1, 0)[:, None] * np.array([0.0, 0.0, 0.006])
    place = np.array([0.3, -0.1, 0.85]) + (1 - share) * np.array([0.1, -0.35, 0.2]) + lift
    bent = np.zeros((frames, 15, 3))
    bent[:, :12, 2] = -0.6 * share
    components = model_arrays()["hands_components"]
    aa = np.array([0.2, -0.4, 1.1])
    contact = np.zeros((frames, 8), np.int8)
    contact[onset - 20 :, 0], contact[onset - 20 :, 1] = 43, 55
    contact[:, 2] = 21  # the left hand
    params = {
        "global_orient": np.tile(turn, (frames, 1)).astype(np.float32),
        "transl": place.astype(np.float32),
        "fullpose": bent.reshape(frames, 45).astype(np.float32),
        "hand_pose": (bent.reshape(frames, 45) @ components.T).astype(np.float32),
    }
    thing = {
        "transl": (np.array([0.31, 0.03, 0.80]) + lift).astype(np.float32),
        "global_orient": np.tile(aa, (frames, 1)).astype(np.float32),
    }
    return {
        "gender": "male",
        "sbj_id": "s1",
        "obj_name": name,
        "motion_intent": "lift",
        "framerate": RATE,
        "n_frames": frames,
        "n_comps": 45,
        "rhand": {"params": params, "vtemp": "tools/subject_meshes/male/s1_rhand.ply"},
        "lhand": {"params": {}, "vtemp": ""},
        "body": {"params": {}, "vtemp": ""},
        "table": {"params": {}, "table_mesh": ""},
        "object": {
            "params": thing,
            "object_mesh": f"tools/object_meshes/contact_meshes/{name}.ply",
        },
        "contact": {"object": contact, "body": np.zeros((frames, 4), np.int8)},
    }


def write_sequence(path: pathlib.Path, sequence: dict[str, Any]) -> pathlib.Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **sequence)
    return path


def npy(value: object) -> bytes:
    """A `.npy` file of one object."""
    stream = io.BytesIO()
    np.save(stream, np.array(value, dtype=object), allow_pickle=True)
    return stream.getvalue()
