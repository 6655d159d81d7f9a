"""Where this project keeps, for the user of the machine, what can be made again."""

import os
from pathlib import Path


def folder(kind: str) -> Path:
    """The user's folder of one kind of things; nothing is made."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "realdex_jax" / kind
