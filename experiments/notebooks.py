"""Runs the notebooks and writes them as pages.

    python -m experiments.notebooks                            # all: the same as make notebooks
    python -m experiments.notebooks 3_grasps --out runs/mine   # one
    python -m experiments.notebooks --covers docs/pictures     # also the pictures of the docs

Of each notebook `OUT/<name>.html`, which needs neither a server nor a network, and
`OUT/<name>.ipynb` with its outputs. The sources stay as they are. The first that fails ends the
job, and says in which cell. Needs the extra `notebooks`.
Takes three minutes on 2 cores, once everything is compiled; five before.
"""

import base64
import dataclasses
import io
import os
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from PIL import Image
from rich.console import Console

from experiments import commands
from realdex_jax.errors import ConfigError, RealdexError
from realdex_jax.evaluation import results

if TYPE_CHECKING:
    from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "notebooks"
CELL_S = 300
"""Most seconds of a cell; beyond it something hangs."""
COVER = "cover"
"""Tag of the cell whose first picture stands for its notebook in the documentation."""


COVER_PX = 640
_COLOUR = re.compile(r"\x1b\[[\d;]*m")
"""What IPython colours tracebacks with."""


class NotebookError(RealdexError):
    """A notebook that does not run."""


@dataclasses.dataclass(frozen=True)
class Notebooks:
    """Command line of this script."""

    names: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Which ones, as their files are called without the suffix; all if none is named."""
    out: Path = Path("build/notebooks")
    """Folder of the pages."""
    covers: Path | None = None
    """Folder for one picture of each."""


def main() -> None:
    """Command line; mistakes of the user end in one line, not a traceback."""
    config = commands.read(Notebooks, __doc__, plan=plan)
    console = Console()
    with commands.ending(console):
        run(config, console)


def plan(config: Notebooks) -> Iterator[str]:
    """What a dry run says."""
    for path in chosen(config.names):
        yield f"{path.name} -> {config.out / path.stem}.html, .ipynb"


def run(config: Notebooks, console: Console) -> None:
    """Runs them one after the other, each in a process of its own.

    Raises:
        ConfigError: A name of no notebook, or the folder cannot be made.
        NotebookError: A cell fails, or the extra is missing.
    """
    paths = chosen(config.names)
    for folder in (config.out, config.covers):
        if folder is not None:
            commands.make_folder(folder)
    for path in paths:
        start = time.perf_counter()
        with console.status(path.name):
            done = execute(path)
            write(done, config.out / path.stem)
        if config.covers is not None:
            results.write_whole(config.covers / f"{path.stem}.png", cover(done, path.name))
        spent = time.perf_counter() - start
        console.print(f"{config.out / path.stem}.html ({spent:.0f} s)", highlight=False)


def chosen(names: tuple[str, ...] = ()) -> list[Path]:
    """The files of the notebooks with these names, or of all, in the order to read them in.

    Raises:
        ConfigError: There is none of that name, or none at all.
    """
    every = {path.stem: path for path in sorted(SOURCES.glob("*.ipynb"))}
    if not every:
        raise ConfigError(f"no notebooks in {SOURCES}; they come with the repository")
    if unknown := [name for name in names if name.removesuffix(".ipynb") not in every]:
        raise ConfigError(f"no notebook {', '.join(unknown)}; there are {', '.join(every)}")
    return [every[name.removesuffix(".ipynb")] for name in names] or list(every.values())


def execute(path: Path) -> "NotebookNode":
    """A notebook with its outputs, run in the repository's root by a kernel of its own.

    Raises:
        NotebookError: A cell fails or takes longer than `CELL_S`, or the extra is missing.
    """
    try:
        import nbformat
        from nbclient import NotebookClient
        from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
        from traitlets.config import Config
    except ModuleNotFoundError as error:
        raise NotebookError(
            f"{path.name}: {error.name} is missing: pip install 'realdex_jax[notebooks]'"
        ) from error
    with tempfile.TemporaryDirectory() as folder:
        # Over sockets of this user's own: over TCP others of this machine could run code.
        reached = {
            "connection_file": f"{folder}/kernel.json",
            "transport": "tcp" if os.name == "nt" else "ipc",
        }
        client = NotebookClient(
            nbformat.read(path, as_version=4),
            config=Config(KernelManager=reached),
            kernel_name="python3",
            resources={"metadata": {"path": str(ROOT)}},
            timeout=CELL_S,
        )
        try:
            return client.execute()
        except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
            raise NotebookError(f"{path.name}: {_COLOUR.sub('', str(error))}") from error


def write(done: "NotebookNode", stem: Path) -> None:
    """Writes a notebook that has been run as `<stem>.ipynb` and `<stem>.html`."""
    import nbformat
    from nbconvert import HTMLExporter

    results.write_whole(stem.with_name(f"{stem.name}.ipynb"), nbformat.writes(done))
    exporter = HTMLExporter(require_js_url="", mathjax_url="")  # nothing from elsewhere
    page, _ = exporter.from_notebook_node(done, {"metadata": {"name": stem.name}})
    results.write_whole(stem.with_name(f"{stem.name}.html"), page)


def pictures(done: "NotebookNode", tag: str | None = None) -> list[bytes]:
    """All pictures (PNG) of a notebook that has been run, or of its cells with a tag."""
    return [
        base64.b64decode(output.data["image/png"])
        for cell in done.cells
        if cell.cell_type == "code" and (tag is None or tag in cell.metadata.get("tags", ()))
        for output in cell.outputs
        if "image/png" in output.get("data", {})
    ]


def cover(done: "NotebookNode", name: str) -> bytes:
    """The picture (PNG) that stands for a notebook, at most `COVER_PX` wide.

    Raises:
        NotebookError: No cell with the tag shows a picture.
    """
    found = pictures(done, COVER)
    if not found:
        raise NotebookError(f"{name}: no picture in a cell that has the tag {COVER!r}")
    into = io.BytesIO()
    with Image.open(io.BytesIO(found[0])) as picture:
        picture.thumbnail((COVER_PX, COVER_PX))
        picture.save(into, "PNG", optimize=True)
    return into.getvalue()


if __name__ == "__main__":
    main()
