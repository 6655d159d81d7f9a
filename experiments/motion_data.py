"""Motions to train and judge on: RealDex-Sim's demonstrations, made on demand, or recorded ones.

    python -m experiments.motion_data                        # the full set, minutes on 2 cores
    python -m experiments.motion_data --data realdex-sim-small
    python -m experiments.motion_data --data PATH/door.npz   # glove demonstrations (Adroit)
    python -m experiments.motion_data --data runs/realdex    # a dataset with motions

Demonstrations are made from the grasps of the embedded dataset and kept in the cache folder, object
by object, so an interrupted run goes on where it stopped.
Takes minutes on 2 cores the first time, then seconds.
"""

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from experiments import commands, converted, protocol
from realdex_jax import cache as user_cache
from realdex_jax.data import motion as single
from realdex_jax.data import motion_set, store, teleop
from realdex_jax.data.motion import Motion
from realdex_jax.data.motion_set import MotionSet
from realdex_jax.data.store import Dataset
from realdex_jax.errors import ConfigError, DatasetError
from realdex_jax.geometry import sdf
from realdex_jax.geometry.sdf import SdfGrids
from realdex_jax.geometry.shape import ObjectShape
from realdex_jax.hand.load import HandModel, load
from realdex_jax.training import checkpoint
from sim import objects
from sim.demonstrate import DemonstrationConfig, Tally, demonstrate
from sim.physics import LiftPhysics

PARTS = ("train", "val", "test")
COARSE_CELLS = 40_000
"""Cells of the grids that an aware model looks into: about 4 mm apart on a bottle."""
SIZES: dict[str, dict[str, int]] = {
    "realdex-sim": {"train": 2114, "val": 245, "test": 271},
    "realdex-sim-small": {"train": 300, "val": 30, "test": 60},
}
"""Motions per part; the full numbers are the paper's."""
_VERSION = 2
"""Raise it when demonstrations of the same settings would come out differently."""
_HELD_OUT = 5
_MOVED = 0.005
"""Metres the handle may move before a recorded reach counts as over."""


@dataclasses.dataclass(frozen=True, eq=False)
class MotionData:
    """Three parts of one source."""

    name: str
    digest: str
    """Changes when any motion does."""
    parts: dict[str, MotionSet]
    tally: Tally | None = None
    """What became of the attempts; None for recordings."""
    shapes: bool = True
    """Whether the objects' shapes are known."""
    dataset: Dataset | None = None
    """Where the objects' meshes are, unless they are those of the catalogue."""

    def part(self, name: str) -> MotionSet:
        """The motions of one part.

        Raises:
            ConfigError: There are none.
        """
        if name not in self.parts:
            known = ", ".join(self.parts)
            raise ConfigError(f"no part {name!r} with motions in {self.name}; known: {known}")
        return self.parts[name]

    def shape(self, name: str) -> ObjectShape:
        """An object, in convex pieces.

        Raises:
            RealdexError: Its mesh cannot be used.
        """
        if self.dataset is None:
            return objects.make(name)
        return protocol.shape_of(self.dataset, name)[0]

    def grids(self, part: str) -> SdfGrids | None:
        """Coarse distance grids of a part's objects, in the order of its names."""
        if not self.shapes:
            return None
        return sdf.stack([coarse(self.shape(n)) for n in self.parts[part].names])


def coarse(shape: ObjectShape) -> sdf.SdfGrid:
    """The distance grid that an aware model looks into."""
    return sdf.sample(lambda p: sdf.exact_distance(shape, p), shape.bounds, COARSE_CELLS)


def open_motions(
    data: str, *, cache: Path | None = None, tell: Callable[[str], object] = lambda _: None
) -> MotionData:
    """Opens, and if need be makes, a source of motions.

    Args:
        data: "realdex-sim", "realdex-sim-small", the file of the door demonstrations, or the folder
            of a dataset with motions, or of one that is converted first.
        cache: Folder of finished demonstrations; None is the user's cache folder.
        tell: Told how far it has come.

    Raises:
        DatasetError: No such source, or a dataset without motions.
    """
    if data in SIZES:
        return _simulated(data, cache, tell)
    place = Path(converted.place(data, tell))
    if place.is_dir():
        return _stored(store.open_dataset(place))
    if not place.is_file():
        known = ", ".join(SIZES)
        raise DatasetError(f"no motions {data!r}; known: {known}, a file, or a dataset's folder")
    return _recorded(place)


def _simulated(data: str, cache: Path | None, tell: Callable[[str], object]) -> MotionData:
    dataset = store.open_dataset("realdex-sim")
    hand, folder = load("shadow"), folder_of(dataset, cache)
    jobs = [
        (part, name, count)
        for part in PARTS
        for name, count in _shares(dataset.splits[part], SIZES[data][part])
    ]
    found: dict[str, list[MotionSet]] = {part: [] for part in PARTS}
    tally = Tally()
    for part, name, count in track(jobs, description="demonstrations", transient=True):
        motions, counts = demonstrations(hand, dataset, name, count, folder, tell)
        found[part].append(motions)
        tally += counts
    parts = {part: motion_set.join(sets) for part, sets in found.items()}
    for part in PARTS:
        short = SIZES[data][part] - len(parts[part])
        if short:
            tell(f"{part}: {short} motions fewer than wanted")
    return MotionData(name=data, digest=_digest(parts), parts=parts, tally=tally)


def _shares(names: Sequence[str], total: int) -> list[tuple[str, int]]:
    """A total spread evenly over the names; the first get one more where it does not divide."""
    each, more = divmod(total, len(names))
    return [(name, each + (i < more)) for i, name in enumerate(names)]


def folder_of(dataset: Dataset, cache: Path | None = None) -> Path:
    """Where demonstrations with a dataset's grasps are kept; None is the user's cache folder."""
    decisive = {
        "version": _VERSION,
        "grasps": dataset.digest,
        "attempts": dataclasses.asdict(DemonstrationConfig()),
        "lift": LiftPhysics().describe(),
    }
    key = hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:16]
    return (cache or user_cache.folder("motions")) / key


def demonstrations(
    hand: HandModel,
    dataset: Dataset,
    name: str,
    count: int,
    folder: Path,
    tell: Callable[[str], object],
) -> tuple[MotionSet, Tally]:
    """Demonstrations of one object, from a folder of `folder_of` if they are there.

    The first ones are the same whatever the count.
    """
    path, note = folder / f"{name}-{count}.npz", folder / f"{name}-{count}.json"
    if path.is_file() and note.is_file():
        # A damaged entry is made again.
        with contextlib.suppress(DatasetError, ValueError, TypeError):
            return motion_set.load(path), Tally(**json.loads(note.read_text()))
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "little")
    motions, tally = demonstrate(hand, objects.make(name), dataset.grasps(name), count, seed)
    motion_set.save(path, motions)
    checkpoint.write_json(note, dataclasses.asdict(tally))
    tell(f"{name}: {len(motions)} of {tally.attempts} attempts ({tally.clean} clean)")
    return motions, tally


def _stored(dataset: Dataset) -> MotionData:
    """The motions of a dataset, by its own split."""
    parts = {}
    for part in PARTS:
        moving = [name for name in dataset.splits.get(part, ()) if name in dataset.moving]
        if moving:
            parts[part] = motion_set.join([dataset.motions(name) for name in moving])
    if not parts:
        raise DatasetError(f"{dataset.path}: {dataset.name} has grasps, but no motions")
    named = {name for motions in parts.values() for name in motions.names}
    meshes = all((dataset.path / "objects" / name / "mesh.obj").is_file() for name in named)
    return MotionData(dataset.name, _digest(parts), parts, shapes=meshes, dataset=dataset)


def _recorded(path: Path) -> MotionData:
    """The door demonstrations up to where the handle moves; every fifth one is held out."""
    found = [reach_of(m) for m in teleop.read_adroit(path)]
    test = np.arange(len(found)) % _HELD_OUT == 0
    parts = {}
    for part, chosen in (("train", ~test), ("val", test), ("test", test)):
        motions = [found[i] for i in np.flatnonzero(chosen)]
        last = np.stack([np.asarray(m.phi)[-1, :22] for m in motions])
        parts[part] = motion_set.collect(motions, ["handle"] * len(motions), last)
    return MotionData(name=path.stem, digest=_digest(parts), parts=parts, shapes=False)


def reach_of(motion: Motion) -> Motion:
    """A recorded motion at 15 Hz until its object moves."""
    place = np.asarray(motion.wxyz_xyz_world_object)[:, 4:]
    moved = np.linalg.norm(place - place[0], axis=1) > _MOVED
    end = int(moved.argmax()) if moved.any() else len(motion)
    cut = Motion(
        time=motion.time[:end],
        phi=motion.phi[:end],
        wxyz_xyz_world_object=motion.wxyz_xyz_world_object[:end],
    )
    return single.resample(cut)


def _digest(parts: dict[str, MotionSet]) -> str:
    digest = hashlib.sha256()
    for part in (part for part in PARTS if part in parts):
        digest.update("\n".join(parts[part].names).encode())
        for field in ("target", "first", "phi", "wxyz_xyz_world_object", "q_squeeze"):
            digest.update(np.ascontiguousarray(getattr(parts[part], field)).tobytes())
    return digest.hexdigest()


@dataclasses.dataclass(frozen=True)
class MotionDataArgs:
    """Command line of this script."""

    data: str = "realdex-sim"
    """realdex-sim, realdex-sim-small, a file of door demonstrations, or a dataset with motions."""


def main() -> None:
    """Makes the motions and says what they are."""
    args = commands.read(MotionDataArgs, __doc__)
    console = Console()
    with commands.ending(console, "stopped; the same command goes on"):
        found = open_motions(args.data, tell=lambda line: console.print(line, highlight=False))
    for part, motions in found.parts.items():
        console.print(
            f"{part}: {len(motions)} motions of {len(set(motions.target))} objects, "
            f"{motions.lengths().mean():.1f} frames each"
        )
    if found.tally:
        console.print(told(found.tally))


def told(t: Tally) -> str:
    """What became of the attempts, in a sentence."""
    return (
        f"{t.attempts} attempts at demonstrations: the arm reaches {t.reachable / t.attempts:.2f}, "
        f"free of collisions {t.clean / t.attempts:.2f}; of those lifted "
        f"{t.lifted / max(t.clean, 1):.2f}"
    )


if __name__ == "__main__":
    main()
