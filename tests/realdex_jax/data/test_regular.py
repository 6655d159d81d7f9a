"""Readers of foreign files do not wait for a pipe."""

import os
import pathlib
from collections.abc import Callable

import pytest

from realdex_jax.data import (
    archive,
    grab_sequence,
    npz,
    realdex_layout,
    regular,
    textfile,
    unpickle,
)
from realdex_jax.errors import DatasetError


@pytest.mark.parametrize(
    "read",
    [
        regular.size,
        npz.read,
        npz.read_npy,
        unpickle.load_objects,
        archive.open_archive,
        grab_sequence.read,
        textfile.read_text,
        lambda path: realdex_layout.Folder(path.parent, (path.name,)).read(path.name, 100),
    ],
)
def test_a_pipe_is_refused_by_name(
    tmp_path: pathlib.Path, read: Callable[[pathlib.Path], object]
) -> None:
    os.mkfifo(tmp_path / "pipe.npy")
    with pytest.raises(DatasetError, match=r"pipe\.npy is no regular file"):
        read(tmp_path / "pipe.npy")
