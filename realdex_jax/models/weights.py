"""Weights files: safetensors, no code on load, written whole or not at all.

Parameters lie by path; the header holds a format name and JSON texts.
"""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy
from jaxtyping import PyTree

from realdex_jax.errors import CheckpointError


def write(path: str | Path, tensors: Mapping[str, np.ndarray], header: Mapping[str, str]) -> None:
    """Writes a file atomically.

    Raises:
        CheckpointError: The disk is full or the folder cannot be written; an old file is left as
            it was.
    """
    path = Path(path)
    content = safetensors.numpy.save(dict(tensors), metadata=dict(header))
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as f:
            f.write(content)
            f.flush()
            os.fsync(f.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except OSError as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        raise CheckpointError(
            f"could not write {path}: {error}; an older file is unchanged"
        ) from error


def read(path: Path, format_name: str) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """Header and float32 tensors of a file.

    Raises:
        CheckpointError: Not a safetensors file, or one of another format.
    """
    try:
        with safetensors.safe_open(path, framework="numpy") as f:
            header = dict(f.metadata() or {})
            tensors = {k: np.asarray(f.get_tensor(k), np.float32) for k in f.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is not a safetensors file: {error}") from error
    if header.get("format") != format_name:
        raise CheckpointError(
            f"{path} has format {header.get('format')!r}; needed: {format_name!r}"
        )
    return header, tensors


def check_shapes(expected: PyTree, found: Mapping[str, tuple[int, ...]], where: str) -> None:
    """Compares a tree of arrays with shapes read from a file.

    Args:
        expected: Tree of arrays or their abstract values.
        found: Shape by path.
        where: Named in the error.

    Raises:
        CheckpointError: Names the first differences, both sides.
    """
    wanted = {k: tuple(v.shape) for k, v in flat(expected).items()}
    lines = [
        f"{k}: file {found.get(k, 'nothing')}, model {wanted.get(k, 'nothing')}"
        # Parameters before the optimiser's copies of them.
        for k in sorted({*wanted, *found}, key=lambda k: (k.startswith("optimiser"), k))
        if wanted.get(k) != (tuple(found[k]) if k in found else None)
    ]
    if lines:
        more = f" and {len(lines) - 5} more" if len(lines) > 5 else ""
        raise CheckpointError(
            f"{where} was written by another architecture; differing: {'; '.join(lines[:5])}{more}"
        )


def flat(tree: PyTree) -> dict[str, Any]:
    """Leaves by readable path, in the tree's own order."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def rebuild(shapes: PyTree, tensors: Mapping[str, np.ndarray], where: str) -> PyTree:
    """A tree of parameters from a file's tensors.

    Args:
        shapes: The tree's abstract values.
        tensors: By path.
        where: Named in the error.

    Raises:
        CheckpointError: The tensors are of another architecture.
    """
    check_shapes(shapes, {k: v.shape for k, v in tensors.items()}, where)
    leaves = [jnp.asarray(tensors[k]) for k in flat(shapes)]
    return jax.tree.unflatten(jax.tree.structure(shapes), leaves)


def halved(params: PyTree) -> dict[str, np.ndarray]:
    """Parameters by path in half precision, as published files hold them."""
    return {k: np.asarray(v).astype(np.float16) for k, v in flat(params).items()}


def parameter_count(params: PyTree) -> int:
    """Number of trained numbers."""
    return sum(int(np.size(x)) for x in jax.tree.leaves(params))
