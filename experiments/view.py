"""Shows grasps and motions in a browser: hand, object, cloud and contact map.

    python -m experiments.view realdex-sim                          # a dataset, by name or folder
    python -m experiments.view runs/demo/grasps                     # what a run delivered
    python -m experiments.view runs/mine/grasps --objects FOLDER    # the same, on your own meshes
    python -m experiments.view MOTIONS.npz                          # motions: scrub and play
    python -m experiments.view realdex-sim --object mug --save mug.html      # one page, no server

Prints the address to open; Ctrl-C ends. See docs/view.md.
Takes seconds to open.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from rich.console import Console

from experiments import commands
from realdex_jax.data import motion_set, npz, object_files, store
from realdex_jax.data.motion_set import MotionSet
from realdex_jax.data.object_files import Surface
from realdex_jax.data.store import Dataset
from realdex_jax.errors import ConfigError, DatasetError
from realdex_jax.geometry import mesh
from realdex_jax.hand.load import load
from sim import meshes, objects, tableau
from sim.tableau import Collection, Exhibit, Thing


@dataclasses.dataclass(frozen=True)
class View:
    """Command line of this script."""

    path: Annotated[str, tyro.conf.Positional]
    """A dataset by name or folder, a file of grasps or a folder of them, or a file of motions."""
    object: str | None = None
    """The object to begin with; of a file of grasps that is not named after its object, the
    object."""
    objects: Path | None = None
    """The folder of meshes, or the mesh, instead of the dataset's or the catalogue's."""
    scale: float | None = None
    """Factor to metres for `--objects`; metres if not given."""
    split: str | None = None
    """Only this split of a dataset."""
    index: int = 0
    """Which grasp or motion `--save` writes, counted in the file from 0."""
    save: Path | None = None
    """Write one grasp or motion as a page (.html) or a scene (.viser), and serve nothing."""
    host: str = "127.0.0.1"
    """Address to listen at; others than this machine's own let others in."""
    port: int = 8080
    """Port; 0 takes a free one."""


def main() -> None:
    """Command line; mistakes of the user end in one line, not a traceback."""
    config = commands.read(View, __doc__)
    console = Console()
    with commands.ending(console, status=0):
        show(config, console)


def show(config: View, console: Console) -> None:
    """Serves until Ctrl-C, or writes one file.

    Raises:
        ConfigError: Settings that make no sense, or a port that cannot be had.
        RealdexError: Data or meshes that cannot be used, or the extra is missing.
    """
    collection = collect(config)
    from sim import viewer  # needs the extra; looking for the data does not

    hand = load(collection.hand)

    if config.save is not None:
        exhibit = tableau.open_exhibit(collection, config.object)[0]
        path = viewer.save(config.save, hand, exhibit, config.index)
        console.print(f"{path} ({path.stat().st_size / 1e6:.1f} MB)", highlight=False)
        return
    if config.host not in viewer.LOCAL:
        console.print(
            f"--host {config.host}: other machines can reach this server, without a password, and "
            "what is sent is not encrypted",
            style="yellow",
            highlight=False,
            markup=False,
        )
    with console.status("opening"):
        shown = viewer.Viewer(hand, collection, config.host, config.port, config.object)
    try:
        console.print(
            f"{collection.title}, {len(collection.names)} objects, at\n{shown.address}\n"
            "Ctrl-C ends",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
        shown.run()
    finally:
        shown.close()


def collect(config: View) -> Collection:
    """What a path holds; files are read when their object is chosen.

    Raises:
        ConfigError: Settings that do not fit the path.
        DatasetError: Nothing there that can be shown.
    """
    path = Path(config.path)
    if config.scale is not None and config.objects is None:
        raise ConfigError("--scale is for the meshes of --objects")
    if config.path in store.EMBEDDED or (path / store.INDEX).is_file():
        return _of_dataset(config)
    if config.split is not None:
        raise ConfigError(f"--split {config.split}: {path} is no dataset")
    if path.is_dir():
        files = {file.stem: file for file in sorted(path.glob("*.npz"))}
        if not files:
            raise DatasetError(f"{path}: neither a dataset ({store.INDEX}) nor <object>.npz in it")
        return _of_grasps(config, files)
    if not path.is_file():
        known = ", ".join(store.EMBEDDED)
        raise DatasetError(f"nothing at {path}; give a dataset ({known}, or a folder) or a file")
    if "format" in npz.read(path):
        return _of_motions(config, motion_set.load(path))
    return _of_grasps(config, {config.object or path.stem: path})


def _of_dataset(config: View) -> Collection:
    dataset = store.open_dataset(config.path)
    if config.split is not None and config.split not in dataset.splits:
        known = ", ".join(dataset.splits)
        raise DatasetError(f"no split {config.split!r} in {dataset.name}; known: {known}")
    names = dataset.objects if config.split is None else dataset.splits[config.split]
    find = _meshes(config) if config.objects is not None else None

    def open_exhibit(name: str) -> Exhibit:
        thing = _of_data(dataset, name) if find is None else find(name)
        return Exhibit(thing, grasps=dataset.grasps(name))

    return Collection(dataset.name, tuple(names), open_exhibit, hand=dataset.replay_hand)


def _of_data(dataset: Dataset, name: str) -> Thing:
    """An object of a dataset: its mesh, else ours of its name in ours, else its points alone."""
    surface = None
    if (dataset.path / "objects" / name / "points.npz").is_file():
        surface = dataset.surface(name)
    path = dataset.path / "objects" / name / "mesh.obj"
    if path.is_file():
        return _read(path, name, surface=surface)
    # Only our dataset means our parametric objects; anyone may call a scanned mug "mug".
    if dataset.name in store.EMBEDDED and name.partition("@")[0] in objects.names():
        shape = objects.make(name)
        return tableau.make_thing(name, shape.vertices, shape.faces, surface)
    return tableau.make_thing(name, None, None, surface)


def _of_grasps(config: View, files: Mapping[str, Path]) -> Collection:
    find = _meshes(config)

    def open_exhibit(name: str) -> Exhibit:
        return Exhibit(find(name), grasps=object_files.load_grasps(files[name]))

    return Collection(Path(config.path).name, tuple(files), open_exhibit)


def _of_motions(config: View, motions: MotionSet) -> Collection:
    find = _meshes(config)

    def open_exhibit(name: str) -> Exhibit:
        mine = np.flatnonzero(motions.target == motions.names.index(name))
        return Exhibit(find(name), motions=tuple(motions.motion(int(i)) for i in mine))

    names = tuple(name for i, name in enumerate(motions.names) if (motions.target == i).any())
    return Collection(Path(config.path).name, names, open_exhibit, moving=True)


def _meshes(config: View) -> Callable[[str], Thing]:
    """Finds objects by name: among the files of `--objects`, else in the catalogue."""
    if config.objects is None:
        return _of_catalogue
    if config.objects.is_file():  # one mesh is meant, whatever its name
        return functools.partial(_read, config.objects, scale=config.scale)
    found = {
        meshes.name_of(path): path
        for path in sorted(config.objects.rglob("*"))
        if path.suffix.lower() in mesh.SUFFIXES
    }
    if not found:
        raise ConfigError(
            f"--objects {config.objects}: no mesh files there; known kinds: "
            f"{', '.join(mesh.SUFFIXES)}"
        )

    def find(name: str) -> Thing:
        if name not in found:
            raise ConfigError(
                f"no mesh for {name!r} in {config.objects}; there are {', '.join(found)}"
            )
        return _read(found[name], name, scale=config.scale)

    return find


def _of_catalogue(name: str) -> Thing:
    if name.partition("@")[0] not in objects.names():
        raise ConfigError(
            f"no object {name!r} in the catalogue; name its mesh with --objects, or another "
            "object with --object"
        )
    shape = objects.make(name)
    return tableau.make_thing(name, shape.vertices, shape.faces)


def _read(
    path: Path, name: str, scale: float | None = None, surface: Surface | None = None
) -> Thing:
    """A mesh as it lies in its file."""
    read = mesh.load_mesh(path, scale=scale)
    return tableau.make_thing(name, np.asarray(read.vertices), np.asarray(read.faces), surface)


if __name__ == "__main__":
    main()
