"""A small reader of Wavefront OBJ text: positions, faces and groups, nothing else.

Materials, textures and other external files are never opened. Faces refer to positions by number
only, so a scan with texture seams keeps one vertex per corner.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Float, Int

from realdex_jax.errors import MeshError

_LINE_LIMIT = 100_000
"""Longest line (characters) that is read; longer ones only occur in broken or hostile files."""

_INDEX_LIMIT = 2**31
"""Largest vertex number that is read; larger ones do not fit an array of integers."""


@dataclass(frozen=True, eq=False)
class ObjText:
    """What an OBJ file says about geometry."""

    vertices: Float[np.ndarray, "v 3"]
    """Positions as written."""
    faces: Int[np.ndarray, "f 3"]
    """Triangles; polygons are cut into fans."""
    face_group: Int[np.ndarray, " f"]
    """Index into `groups` of every triangle."""
    groups: tuple[str, ...]
    """Names of the `o` and `g` sections in order; one unnamed group if there are none."""


def parse(text: str, source: str, max_count: int) -> ObjText:
    """Read OBJ text.

    Args:
        text: the file's text.
        source: the file's name, for messages.
        max_count: most vertices and most triangles that are accepted.

    Returns:
        The geometry, unscaled and unchecked apart from face indices.

    Raises:
        MeshError: a line cannot be read, a face refers to a missing vertex, or a count is too high.
    """
    vertices: list[tuple[float, float, float]] = []
    faces: list[tuple[int, int, int]] = []
    face_group: list[int] = []
    groups = [""]
    for number, line in enumerate(text.splitlines(), start=1):
        if len(line) > _LINE_LIMIT:
            raise MeshError(
                f"{source}, line {number}: {len(line)} characters, at most {_LINE_LIMIT} allowed"
            )
        words = line.split()
        if not words:
            continue
        try:
            if words[0] == "v":
                vertices.append((float(words[1]), float(words[2]), float(words[3])))
            elif words[0] == "f":
                corner = [_index(word, len(vertices)) for word in words[1:]]
                if len(corner) < 3:
                    raise MeshError(f"a face needs at least 3 corners, has {len(corner)}")
                fan = [(corner[0], b, c) for b, c in pairwise(corner[1:])]
                faces += fan
                face_group += [len(groups) - 1] * len(fan)
            elif words[0] in ("o", "g"):
                groups.append(" ".join(words[1:]) or words[0])
        except MeshError as error:
            raise MeshError(f"{source}, line {number}: {error}") from None
        except (IndexError, ValueError):
            raise MeshError(f"{source}, line {number}: cannot read {line[:60]!r}") from None
        if len(vertices) > max_count or len(faces) > max_count:
            raise MeshError(
                f"{source}: more than {max_count} vertices or triangles; simplify it first"
            )
    triangles = np.array(faces, dtype=np.int64).reshape(-1, 3)
    if len(triangles) and triangles.max() >= len(vertices):
        raise MeshError(
            f"{source}: a face refers to vertex {triangles.max() + 1}, there are {len(vertices)}"
        )
    used, group = np.unique(np.array(face_group, dtype=np.int64), return_inverse=True)
    names = tuple(groups[index] for index in used)
    return ObjText(np.array(vertices, dtype=np.float64).reshape(-1, 3), triangles, group, names)


def _index(word: str, count: int) -> int:
    """Zero-based vertex number of one face corner such as `7`, `7/1`, `7//3` or `-1`."""
    number = int(word.split("/", 1)[0])
    if number == 0:
        raise MeshError("vertex numbers start at 1, found 0")
    if number < -count:
        raise MeshError(f"a face refers to vertex {number}, but only {count} came before it")
    if number > _INDEX_LIMIT:
        raise MeshError(f"a face refers to vertex {word[:20]}; no file has so many")
    return number - 1 if number > 0 else count + number
