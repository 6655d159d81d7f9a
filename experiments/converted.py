"""Data in another project's layout, where a dataset is asked for: converted once, into the cache.

What was made is used again until a file of the source has another size or time.
`experiments.convert` gives more choice.
"""

import contextlib
import fcntl
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console

from experiments import convert
from experiments.convert import Convert
from realdex_jax import cache as user_cache
from realdex_jax.data import formats, source_files, store
from realdex_jax.errors import DatasetError
from realdex_jax.training import checkpoint

_VERSION = 1
"""Raise it when a reader makes something else of the same files."""


def place(
    data: str,
    tell: Callable[[str], object] = print,
    *,
    cache: Path | None = None,
    jobs: int = 0,
) -> str:
    """Where the dataset is that a `--data` means.

    Args:
        data: Name or folder of a dataset, or a folder or download in a layout that can be read.
        tell: Told what is done.
        cache: Folder of what was converted; None is the user's cache folder.
        jobs: Processes of a conversion; 0 means one per core.

    Returns:
        What `store.open_dataset` takes: `data` itself, or a folder in the cache.

    Raises:
        RealdexError: Several layouts fit, or nothing of it can be converted.
    """
    layout = foreign(data)
    if layout is None:
        return data
    path = Path(data)
    units = tuple(formats.open_source(path, layout).units)
    whole = path.resolve()
    name = whole.stem if whole.is_file() else whole.name
    key = hashlib.sha256(f"{_VERSION}\0{layout}\0{whole}".encode()).hexdigest()[:16]
    folder = (cache or user_cache.folder("converted")) / f"{name}-{key}"
    with _alone(folder):
        files = source_files.state([path], units)
        made = {"units": list(units), "files": files}
        note = folder.with_name(f"{folder.name}.json")
        if not _current(folder, note, made):
            tell(f"{data}: {layout}, {len(units)} units; converting into {folder}")
            console = Console(stderr=True)
            config = Convert(path, folder, format=layout, name=name, jobs=jobs)
            report = convert.run(config, console, own=True)
            convert.print_report(report, folder, console)
            checkpoint.write_json(note, {**made, "digest": report.dataset.digest})
    return str(folder)


def foreign(data: str) -> str | None:
    """The layout that a `--data` is to be converted from; None if it is no other project's.

    Raises:
        DatasetError: Several layouts fit.
    """
    path = Path(data)
    if data in store.EMBEDDED or not path.exists() or (path / store.INDEX).is_file():
        return None
    found = formats.recognise(path)
    if len(found) > 1:
        raise DatasetError(
            f"{path} looks like {' and '.join(found)}; choose with python -m experiments.convert "
            f"{path} DEST --format {found[0]}"
        )
    return found[0] if found else None  # whoever opens it says what is missing


def check(data: str, scheme: str = store.SCHEME, hand: str | None = store.HAND) -> None:
    """Whether a `--data` can be opened, before anything is converted.

    Raises:
        DatasetError: It cannot; see `store.open_dataset`.
    """
    if foreign(data) is None:
        store.open_dataset(data, scheme, hand)


def _current(folder: Path, note: Path, made: dict[str, object]) -> bool:
    """Whether the folder is what the files, as they are, were made into."""
    try:
        said = json.loads(note.read_text(encoding="utf-8"))
        return said == {**made, "digest": store.open_dataset(folder).digest}
    except (OSError, ValueError):  # the store's own errors, too
        return False


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Processes that train together ask at once: one converts, the others wait."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
