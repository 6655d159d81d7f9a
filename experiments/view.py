"""Looks at grasps, motions, recordings and robots in a browser, and makes grasps for your meshes.

    python -m experiments.view                                      # RealDex-Sim's grasps
    python -m experiments.view runs/select                          # what was chosen, and why
    python -m experiments.view runs/mine/grasps --objects FOLDER    # grasps on your own meshes
    python -m experiments.view MOTIONS.npz                          # motions: scrub and play
    python -m experiments.view RECORDING --object mug               # clouds, pictures, the object
    python -m experiments.view thing.stl --scale 0.001              # grasps for a mesh, made now
    python -m experiments.view --robot virtual                      # and a robot that moves now
    python -m experiments.view realdex-sim --object mug --save mug.html      # one page, no server

One app: the buttons on top choose the view. Prints the address to open, with a token that lets you
in; Ctrl-C ends. See docs/view.md.
Takes seconds to open.
"""

import dataclasses
import functools
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import tyro
from rich.console import Console

from experiments import commands, explained
from realdex_jax.data import motion_set, npz, object_files, realdex_raw, store
from realdex_jax.data.motion_set import MotionSet
from realdex_jax.data.object_files import Surface
from realdex_jax.data.store import Dataset
from realdex_jax.errors import ConfigError, DatasetError
from realdex_jax.geometry import mesh
from realdex_jax.hand.load import HandModel, load
from sim import meshes, objects
from viewer import tableau
from viewer.tableau import Collection, Exhibit, Thing

if TYPE_CHECKING:
    from viewer.panel import Panel
    from viewer.uploads import Uploads


@dataclasses.dataclass(frozen=True)
class View:
    """Command line of this script."""

    path: Annotated[str, tyro.conf.Positional] = "realdex-sim"
    """A dataset by name or folder, a file of grasps or a folder of them, a file of motions, a
    recording, or a mesh."""
    object: str | None = None
    """The object to begin with; of a file of grasps that is not named after its object, or of a
    recording, the object."""
    objects: Path | None = None
    """The folder of meshes, or the mesh, instead of the dataset's or the catalogue's."""
    scale: float | None = None
    """Factor to metres for `--objects`, or for a mesh; metres if not given."""
    split: str | None = None
    """Only this split of a dataset."""
    motions: Path | None = None
    """A file of motions beside what PATH is; a view of its own."""
    recording: Path | None = None
    """A recording beside it; a view of its own."""
    calibration: Path | None = None
    """Of the recording, as `experiments.clouds` has it; a virtual one needs none."""
    world: Path | None = None
    """Of the recording, as `experiments.clouds` has it."""
    robot: str | None = None
    """A robot beside it: virtual (simulated here, without ROS 2), or a preset of docs/ros2.md whose
    joint states are listened to; nothing is sent to it."""
    upload: bool = True
    """Take meshes from the browser and make grasps for them."""
    model: str = "realdex-sim-small"
    """Name of a shipped grasp model, or a `.safetensors` file, that makes them."""
    index: int = 0
    """Which grasp or motion `--save` writes, counted in the file from 0."""
    first: int = 0
    """Of grasps: `--save` writes the first so many, one after the other, instead of one."""
    save: Path | None = None
    """Write one grasp or motion as a page (.html) or a scene (.viser), and serve nothing."""
    host: str = "127.0.0.1"
    """Address to listen at; others than this machine's own let others in who have the token."""
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
    if config.save is not None:
        _save(config, console)
        return
    views, told = panels(config, console)
    from viewer import guard
    from viewer.app import App

    if config.host not in guard.LOCAL:
        console.print(
            f"--host {config.host}: other machines can reach this server with the token of its "
            "address, and what is sent is not encrypted",
            style="yellow",
            highlight=False,
            markup=False,
        )
    with console.status("opening"):
        app = App(told.partition(",")[0], views, config.host, config.port)
    try:
        console.print(
            f"{told}, at\n{app.address}\nCtrl-C ends",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
        app.run(threading.Event())
    finally:
        app.close()


def panels(config: View, console: Console) -> "tuple[list[Panel], str]":
    """The views, the one of PATH first, and what is to be seen in words.

    Raises:
        RealdexError: Data or meshes that cannot be used, or the extra is missing.
    """
    path = Path(config.path)
    of_mesh = path.suffix.lower() in mesh.SUFFIXES and path.is_file()
    of_recording = not of_mesh and _is_recording(path)
    if of_mesh and not config.upload:
        raise ConfigError(f"{path} is a mesh, and --no-upload makes no grasps for it")
    collection = None if of_mesh or of_recording else collect(config)
    from viewer.gallery import Gallery  # needs the extra; looking for the data does not

    hand = load("shadow")
    found: list[Panel] = []
    told = path.name
    if collection is not None:
        found.append(Gallery(load(collection.hand), collection, config.object))
        many = "s" * (len(collection.names) != 1)
        told = f"{collection.title}, {len(collection.names)} object{many}"
    if config.motions is not None:
        moving = collect(dataclasses.replace(config, path=str(config.motions), split=None))
        if not moving.moving:
            raise ConfigError(f"--motions {config.motions}: grasps; give them as PATH")
        name = config.object if config.object in moving.names else None
        found.append(Gallery(hand, moving, name))
    recording = path if of_recording else config.recording
    if recording is not None:
        found.append(_footage(config, recording, console))
    if config.robot is not None:
        from experiments import watched
        from viewer.live import Live

        found.append(Live(hand, watched.watch(config.robot, _thing(config, config.object))))
    if config.upload:
        found.append(_uploads(config, hand, path if of_mesh else None))
    if of_mesh:
        found.insert(0, found.pop())
    return found, told


def _footage(config: View, recording: Path, console: Console) -> "Panel":
    from experiments import footage
    from viewer.footage import Footage

    thing = _thing(config, config.object or realdex_raw.object_name(recording.name))
    with console.status(f"opening {recording}"):
        return Footage(footage.Recorded(recording, thing, config.calibration, config.world))


def _uploads(config: View, hand: HandModel, path: Path | None) -> "Uploads":
    """The view of one's own meshes, which begins with a file or gets ready for one."""
    from experiments import uploads
    from viewer.uploads import Uploads

    make = uploads.maker(hand, config.model)
    if path is None:
        return Uploads(hand, make, mesh.SUFFIXES)
    if path.stat().st_size > mesh.MAX_BYTES:
        raise ConfigError(f"{path} has {path.stat().st_size} bytes; at most {mesh.MAX_BYTES}")
    sent = path.name, path.read_bytes(), config.scale or 1.0
    return Uploads(hand, make, mesh.SUFFIXES, mesh.MAX_BYTES, first=sent)


def _is_recording(path: Path) -> bool:
    if not path.is_dir() or (path / store.INDEX).is_file():
        return False
    from experiments import footage  # needs the extra

    return footage.is_recording(path)


def _thing(config: View, name: str | None) -> Thing | None:
    """The object of a recording or robot; None if nobody knows its mesh."""
    if config.objects is not None:
        return _meshes(config)(name or config.objects.stem)
    known = name is not None and name.partition("@")[0] in objects.names()
    return _of_catalogue(name) if known and name is not None else None


def _save(config: View, console: Console) -> None:
    collection = collect(config)
    from viewer import export  # needs the extra; looking for the data does not

    assert config.save is not None
    exhibit = tableau.open_exhibit(collection, config.object)[0]
    indices = [config.index]
    if config.first:
        indices = list(range(min(config.first, len(exhibit))))
    path = export.save(config.save, load(collection.hand), exhibit, indices)
    console.print(f"{path} ({path.stat().st_size / 1e6:.1f} MB)", highlight=False)


def collect(config: View) -> Collection:
    """What a path holds; files are read when their object is chosen.

    Raises:
        ConfigError: Settings that do not fit the path.
        DatasetError: Nothing there that can be shown.
    """
    path = Path(config.path)
    if config.scale is not None and config.objects is None:
        raise ConfigError("--scale is for the meshes of --objects, and for a mesh")
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
    dataset = store.open_dataset(config.path, hand=None)
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
        grasps = object_files.load_grasps(files[name])
        return Exhibit(find(name), grasps=grasps, notes=explained.notes(files[name], name, grasps))

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
