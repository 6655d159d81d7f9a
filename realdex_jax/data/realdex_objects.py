"""Objects of the RealDex release: models in their own frame, captured clouds moved into it."""

import numpy as np
import trimesh
from jaxtyping import Float

from realdex_jax.data.realdex_frames import Frames
from realdex_jax.data.realdex_layout import Files
from realdex_jax.geometry import mesh as meshes
from realdex_jax.geometry import obj

_SURFACE_POINTS = 4096


def read_model(
    files: Files, name: str, scale: float | None = None
) -> tuple[bytes, Float[np.ndarray, "n 3"]]:
    """An object's model as plain OBJ text in metres, and points spread over it.

    Vertices keep the frame of the file: object poses of the release apply to them as they are.

    Raises:
        MeshError: It is no mesh, or of a size that no hand-held object has.
        DatasetError: The file cannot be read.
    """
    where = f"{files.where}/{name}"
    text = files.read(name, meshes.MAX_BYTES).decode("utf-8", errors="replace")
    parsed = obj.parse(text, where, meshes.MAX_COUNT)
    mesh = meshes.check_raw(parsed.vertices, parsed.faces, where, scale=scale)
    points = trimesh.sample.sample_surface(mesh, _SURFACE_POINTS, seed=0)[0]
    return obj_text(mesh.vertices, mesh.faces), np.asarray(points, np.float32)


def obj_text(vertices: Float[np.ndarray, "v 3"], faces: np.ndarray) -> bytes:
    """Plain OBJ text; nine digits keep float32 whole."""
    lines = [f"v {x:.9g} {y:.9g} {z:.9g}" for x, y, z in np.asarray(vertices).tolist()]
    lines += [f"f {a} {b} {c}" for a, b, c in (np.asarray(faces) + 1).tolist()]
    return ("\n".join(lines) + "\n").encode()


def cloud(frames: Frames, row: int = 0) -> Float[np.ndarray, "n 3"] | None:
    """A sequence's cloud in the object's frame, or None; it was taken in its first row.

    Args:
        frames: The sequence.
        row: Another row, if the cloud was taken there.
    """
    if frames.points is None or not len(frames.points) or not frames.usable[row]:
        return None
    return (frames.points - frames.p_world_object[row]) @ frames.R_world_object[row]
