"""Reader of the RealDex release, as downloaded or as its own scripts leave it.

Opens a folder that holds recordings (`final_data.npy`, however deep they lie), training sequences
(`<object>/<k>.npz`), the downloads themselves (`<object>.zip`, read in place), object models
(`<object>.obj`), or any of these together. Everything is handed on in this project's terms: our
joint order, the palm's pose in the object's frame for grasps and in the world for motions, metres,
radians. `docs/realdex.md` says how, trap by trap.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Float

from realdex_jax.data import motion_set, realdex_files, schema
from realdex_jax.data import realdex_grasps as grasping
from realdex_jax.data import realdex_layout as layout
from realdex_jax.data import realdex_objects as surfaces
from realdex_jax.data import realdex_parts as parting
from realdex_jax.data.motion import Motion
from realdex_jax.data.realdex_frames import Frames
from realdex_jax.data.realdex_grasps import Root, Rule
from realdex_jax.data.realdex_layout import Files, Found
from realdex_jax.data.realdex_parts import Kind, Placed
from realdex_jax.data.schema import GraspSet
from realdex_jax.data.source import Unit
from realdex_jax.data.splits import PARTS
from realdex_jax.errors import DatasetError, MeshError

FORMAT = "realdex"
MARK = "realdex_sim.json"
"""File that our writer adds to the layout: which objects are held out."""

Signs = Literal["urdf", "mjcf"]

_CHOICES: Mapping[str, tuple[str, ...]] = {
    "kind": get_args(Kind),
    "root": grasping.ROOTS,
    "signs": get_args(Signs),
    "rule": grasping.RULES,
    "split": ("auto", *layout.RULES),
}

MAX_POINTS = 4096
"""Points handed on for an object without a mesh."""
_CLOUDS = 8  # sequences whose clouds are put together for it


@dataclasses.dataclass(frozen=True)
class Options:
    """How a release is read."""

    models: Path | None = None
    """Folder or zip of `<object>.obj`; those beside the data if not given."""
    model_scale: float | None = None
    """Factor from the models' unit to metres; they are in metres if not given."""
    kind: Kind = "auto"
    """Recordings or sequences where an object has both; auto: recordings, whose orientations are
    exact."""
    root: Root = "forearm"
    """What the stored hand pose is of; as-stored: of the palm."""
    signs: Signs = "urdf"
    """Joint signs; mjcf: those of the release's hand model (DexGraspNet's)."""
    rule: Rule = "held"
    """Which frames are grasps."""
    most: int = grasping.MOST
    """Grasps kept of each sequence; 0 for all."""
    split: str = "auto"
    """release, release-training, paper; auto: the data's own if it names one, or release."""
    check_md5: bool = True
    """Whether a download is compared with `md5.txt`, if that is there; minutes for a large one."""


@dataclasses.dataclass(frozen=True, eq=False)
class RealDex:
    """An opened release."""

    path: Path
    """Folder, or one download."""
    options: Options
    """How it is read."""
    files: Files
    """What lies there."""
    found: Mapping[str, tuple[Found, ...]]
    """Recordings and sequences that lie open, by object."""
    downloads: Mapping[str, tuple[Path, ...]]
    """Archives by object."""
    unread: tuple[str, ...] = ()
    """Archives that are named after no object."""
    own: Mapping[str, tuple[str, ...]] | None = None
    """Splits that the data names itself."""

    @property
    def format(self) -> str:
        """Name of the layout."""
        return FORMAT

    @property
    def units(self) -> tuple[str, ...]:
        """Objects, sorted; under "release-training" only those it names."""
        every = tuple(sorted({*self.found, *self.downloads}))
        if self.options.split != "release-training":
            return every
        parts = layout.splits(every, self.options.split)
        return tuple(sorted(name for part in parts.values() for name in part))

    def read(self, unit: str) -> Unit:
        """Reads all recordings or sequences of one object; a file that is refused is noted.

        Raises:
            DatasetError: No such object, or none of its files can be used.
        """
        if unit not in self.units:
            raise DatasetError(f"no object {unit!r} in {self.path}; it has {', '.join(self.units)}")
        notes: list[str] = []
        if unit == self.units[0] and self.unread:
            notes.append(_strangers(self.unread))
        found, archives = self._parts(unit, notes)
        mesh, points = self._model(unit, archives, notes)
        chosen = parting.choose(found, self.options.kind, notes)
        if not chosen:
            what = "sequence" if self.options.kind == "sequences" else "recording"
            why = "".join(f"; {note}" for note in notes if note.startswith("left out: "))
            raise DatasetError(f"{self.path} holds no {what} of {unit}{why}")
        refused: list[str] = []
        read: list[Frames] = []
        for files, item in chosen:
            try:
                read.append(self._frames(files, item))
            except DatasetError as error:
                refused.append(str(error))
        if points is None:
            points = self._cloud(found, read, notes)
        sets: list[GraspSet] = []
        motions: list[Motion] = []
        for frames in read:
            try:
                grasps, reaches, lost = self._taken(frames, points)
            except DatasetError as error:
                refused.append(str(error))
            else:
                sets.append(grasps)
                motions += reaches
                notes += [f"{frames.name}: {note}" for note in (*frames.notes, *lost)]
        if not sets:
            raise DatasetError(f"no file of {unit} can be used; first: {refused[0]}")
        notes += [f"left out: {reason}" for reason in refused]
        grasps = schema.concatenate(sets)
        straight = sum(frames.wrist is None for frames in read)
        if straight and self.options.root == "forearm":
            notes.append(f"wrist assumed zero in {straight} of {len(read)} files")
        if not len(grasps):
            notes.append(f'no grasps by the rule "{self.options.rule}"')
        return Unit(
            name=unit,
            grasps=grasps if len(grasps) else None,
            motions=_collected(motions, unit),
            mesh=mesh,
            points=points if mesh is None else None,
            notes=tuple(notes),
        )

    def _parts(self, unit: str, notes: list[str]) -> tuple[list[Placed], list[Files]]:
        """An object's recordings and sequences, and the archives that hold some of them."""
        lying = [Placed(self.files, item) for item in self.found.get(unit, ())]
        paths = self.downloads.get(unit, ())
        if self.options.kind == "sequences" and any(p.item.kind == "sequence" for p in lying):
            notes += [f"{path} is not read: sequences lie open" for path in paths]
            paths = ()
        return parting.gather(unit, lying, paths, notes, md5=self.options.check_md5)

    def splits(self, units: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """Parts by the rule of the options."""
        if self.options.split != "auto":
            return layout.splits(units, self.options.split)
        if self.own is None:
            return layout.splits(units, "release")
        return {part: tuple(n for n in self.own[part] if n in units) for part in PARTS}

    def schemes(self, units: Sequence[str]) -> dict[str, dict[str, tuple[str, ...]]]:
        """Parts by every rule that has a name, for a store's further schemes."""
        return {rule: layout.splits(units, rule) for rule in layout.RULES}

    @property
    def recipe(self) -> dict[str, Any]:
        """Layout, folder and options, as JSON."""
        options = {
            k: v if v is None or isinstance(v, (int, float)) else str(v)
            for k, v in dataclasses.asdict(self.options).items()
        }
        return {"layout": FORMAT, "source": self.path.name, "options": options}

    def _frames(self, files: Files, item: Found) -> Frames:
        read = (
            realdex_files.read_recording
            if item.kind == "recording"
            else realdex_files.read_sequence
        )
        return read(files, item.name, mjcf=self.options.signs == "mjcf")

    def _model(
        self, unit: str, archives: Sequence[Files], notes: list[str]
    ) -> tuple[bytes | None, Float[np.ndarray, "n 3"] | None]:
        """The object's model as OBJ text, and points on it; neither if there is none."""
        places = (
            [*archives, self.files]
            if self.options.models is None
            else [layout.files(self.options.models)]
        )
        for place in places:
            names = [
                n
                for n in place.names
                if n.endswith(".obj") and layout.spelt(PurePosixPath(n).stem) == unit
            ]
            if names:
                name = min(names, key=lambda n: (n.count("/"), n))
                try:
                    return surfaces.read_model(place, name, self.options.model_scale)
                except MeshError as error:
                    hint = str(error).replace("Pass scale=", "Pass --option model_scale=")
                    notes.append(f"model left out: {hint}")
                    return None, None
        notes.append("no model")
        return None, None

    def _cloud(
        self, found: Sequence[Placed], read: Sequence[Frames], notes: list[str]
    ) -> Float[np.ndarray, "n 3"] | None:
        """Points of the object out of the clouds that sequences carry, in its frame."""
        clouds = list(islice((c for f in read if (c := surfaces.cloud(f)) is not None), _CLOUDS))
        if not clouds:
            for files, item in islice((p for p in found if p.item.kind == "sequence"), _CLOUDS):
                try:
                    points = surfaces.cloud(self._frames(files, item))
                except DatasetError as error:
                    notes.append(f"cloud left out: {error}")
                else:
                    clouds += [] if points is None else [points]
        if not clouds:
            return None
        points = np.concatenate(clouds)
        notes.append(
            f"surface from {len(clouds)} captured clouds; what of table and hand lay in the "
            "object's bounding box is among them"
        )
        if len(points) > MAX_POINTS:
            points = points[np.sort(np.random.default_rng(0).permutation(len(points))[:MAX_POINTS])]
        return points.astype(np.float32)

    def _taken(
        self, frames: Frames, points: Float[np.ndarray, "n 3"] | None
    ) -> tuple[GraspSet, list[Motion], list[str]]:
        """Grasps and reaches of one file, and what is to be said of reaches that are lost."""
        posed = grasping.pose(frames, self.options.root)
        touching = grasping.contact(posed, points)
        sets, found = [grasping.none()], []
        lost: list[str] = []
        for segment in grasping.segments(posed):
            rule, most = self.options.rule, self.options.most
            sets.append(grasping.grasps(posed, segment, touching, rule, most))
            motion = grasping.reach(posed, segment, touching, lost)
            found += [] if motion is None else [motion]
        more = [f"reaches lost: {len(lost)}; {lost[0]}"] if lost else []
        return schema.validate(schema.concatenate(sets), frames.name), found, more


def recognise(path: Path) -> bool:
    """Whether a folder or download looks like the release, by its names."""
    if path.is_file():
        return parting.object_of_zip(path.name) is not None
    if not path.is_dir() or (path / "dataset.json").is_file():
        return False
    try:
        if (path / MARK).is_file():
            return True
        files = layout.files(path)
    except (DatasetError, OSError):
        return False
    return bool(layout.find(files.names, path.resolve().name) or parting.zips(files.names)[0])


def open_source(path: Path, **options: Any) -> RealDex:
    """Opens a folder or a download.

    Args:
        path: The folder, or one `<object>.zip`.
        **options: Fields of `Options`.

    Raises:
        DatasetError: No such option, or no part of the release at `path`.
    """
    path = Path(path)
    known = {field.name for field in dataclasses.fields(Options)}
    for name in options:
        if name not in known:
            raise DatasetError(
                f"no option {name!r} for {FORMAT}; known: {', '.join(sorted(known))}"
            )
    for name, choices in _CHOICES.items():
        if name in options and options[name] not in choices:
            raise DatasetError(
                f"{name} is {options[name]!r}; it must be one of {', '.join(choices)}"
            )
    chosen = _checked_options(options)
    if path.is_file() and path.suffix == ".zip":
        unit = parting.object_of_zip(path.name) or layout.spelt(path.stem)
        return RealDex(path, chosen, layout.Folder(path.parent, ()), {}, {unit: (path,)})
    files = layout.files(path)
    found: dict[str, list[Found]] = {}
    for item in layout.find(files.names, path.resolve().name):
        found.setdefault(item.object, []).append(item)
    zips, unread = parting.zips(files.names)
    closed = {unit: tuple(path / name for name in names) for unit, names in zips.items()}
    # Models may be named as an archive.
    models = None if chosen.models is None else chosen.models.resolve()
    unread = tuple(name for name in unread if (path / name).resolve() != models)
    own = _own(path / MARK) if (path / MARK).is_file() else None
    every = {name: tuple(items) for name, items in found.items()}
    return _checked(RealDex(path, chosen, files, every, closed, unread, own))


def _checked_options(options: Mapping[str, Any]) -> Options:
    """Options whose numbers make sense."""
    most, scale = options.get("most", 0), options.get("model_scale")
    if isinstance(most, bool) or not isinstance(most, int) or most < 0:
        raise DatasetError(f"most is {most!r}; it must be a whole number, 0 keeps all")
    number = isinstance(scale, (int, float)) and not isinstance(scale, bool)
    if scale is not None and not (number and 0.0 < scale < float("inf")):
        raise DatasetError(f"model_scale is {scale!r}; it must be a number above zero")
    if not isinstance(options.get("check_md5", True), bool):
        raise DatasetError(f"check_md5 is {options['check_md5']!r}; it must be true or false")
    models = options.get("models")
    if models is not None and not isinstance(models, (str, Path)):
        raise DatasetError(f"models is {models!r}; it must be a path")
    given = dict(options) if models is None else {**options, "models": Path(models)}
    return Options(**given)


def _checked(source: RealDex) -> RealDex:
    if not source.units:
        found = f" (found {', '.join(source.unread[: parting.NAMED])})" if source.unread else ""
        raise DatasetError(
            f"{source.path} holds nothing of the RealDex release: no {layout.FINAL}, no "
            f"<object>/<number>.npz, no zip that is named after one of its objects{found}"
        )
    return source


def _strangers(names: Sequence[str]) -> str:
    more = f" and {len(names) - parting.NAMED} more" if len(names) > parting.NAMED else ""
    return (
        f"zips that are named after no object are not read: {', '.join(names[: parting.NAMED])}"
        f"{more}; unpack them, or give them the name of their object"
    )


def _collected(motions: Sequence[Motion], name: str) -> motion_set.MotionSet | None:
    if not motions:
        return None
    last = np.stack([np.asarray(m.phi)[-1, :22] for m in motions])
    return motion_set.collect(motions, [name] * len(motions), last)


def _own(path: Path) -> dict[str, tuple[str, ...]]:
    """Splits of our own writer's mark."""
    try:
        parts = dict(json.loads(path.read_text(encoding="utf-8"))["splits"])
        own = {part: tuple(map(str, parts.get(part, ()))) for part in PARTS}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DatasetError(f"{path} is not a mark of RealDex-Sim: {error!r}") from error
    return own
