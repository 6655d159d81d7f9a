"""Clouds as PLY files that any viewer of clouds opens: points, normals, colours."""

import numpy as np

from capture.cloud import Cloud

_ROW = np.dtype(
    [(name, "<f4") for name in ("x", "y", "z", "nx", "ny", "nz")]
    + [(name, "u1") for name in ("red", "green", "blue")]
)


def ply(made: Cloud) -> bytes:
    """A cloud as a binary PLY file: metres in the world, unit normals, RGB."""
    rows = np.zeros(len(made.p_world), _ROW)
    for k, axis in enumerate("xyz"):
        rows[axis], rows[f"n{axis}"] = made.p_world[:, k], made.normal_world[:, k]
    for k, shade in enumerate(("red", "green", "blue")):
        rows[shade] = made.colour[:, k]
    kinds = {"<f4": "float", "|u1": "uchar"}
    properties = "".join(f"property {kinds[_ROW[name].str]} {name}\n" for name in _ROW.names or ())
    head = (
        "ply\nformat binary_little_endian 1.0\ncomment metres, world frame\n"
        f"element vertex {len(rows)}\n{properties}end_header\n"
    )
    return head.encode() + rows.tobytes()
