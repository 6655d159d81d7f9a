"""Files that may be read: regular ones. Reading a pipe or a device might never end."""

import stat
from pathlib import Path

from realdex_jax.errors import DatasetError


def size(path: Path) -> int:
    """Bytes of a file.

    Raises:
        DatasetError: It is a pipe, a device or a folder.
        OSError: There is none.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise DatasetError(f"{path} is no regular file")
    return status.st_size
