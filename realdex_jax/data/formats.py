"""The one table of readers of foreign datasets, and which of them a path is for."""

import importlib
import importlib.util
import inspect
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from realdex_jax.data.source import Source
from realdex_jax.errors import DatasetError

READERS: Mapping[str, str] = {
    "realdex": "realdex_jax.data.realdex",
    "dexgraspnet": "realdex_jax.data.dexgraspnet",
    "unidexgrasp": "realdex_jax.data.unidexgrasp",
    "grab": "realdex_jax.data.grab",
}
"""Module of each layout; it has `recognise(path)` and `open_source(path, **options)`. One that is
not part of this installation is left out."""


def known() -> tuple[str, ...]:
    """Names of the layouts that can be read."""
    return tuple(name for name, module in READERS.items() if importlib.util.find_spec(module))


def recognise(path: Path | str) -> tuple[str, ...]:
    """Names of the layouts that a path looks like."""
    return tuple(name for name in known() if _module(name).recognise(Path(path)))


def open_source(
    path: Path | str, layout: str | None = None, options: Mapping[str, Any] | None = None
) -> Source:
    """Opens a foreign dataset.

    Args:
        path: Its folder, or file.
        layout: Name of its layout; None recognises it.
        options: What its reader is told.

    Raises:
        DatasetError: Nothing there, no or several layouts fit, an unknown option, or what the
            reader says.
    """
    path = Path(path)
    if not path.exists():
        raise DatasetError(f"{path} does not exist")
    if layout is None:
        found = recognise(path)
        if len(found) != 1:
            what = f"looks like {' and '.join(found)}" if found else "has no known layout"
            raise DatasetError(f"{path} {what}; name one with --format: {', '.join(known())}")
        (layout,) = found
    if layout not in known():
        raise DatasetError(f"no layout {layout!r}; known: {', '.join(known())}")
    opener = _module(layout).open_source
    try:
        inspect.signature(opener).bind(path, **(options or {}))
    except TypeError as error:
        names = list(inspect.signature(opener).parameters)[1:]
        raise DatasetError(
            f"options for {layout}: {error}; it knows {', '.join(names) or 'none'}"
        ) from error
    return opener(path, **(options or {}))


def _module(name: str) -> ModuleType:
    return importlib.import_module(READERS[name])
