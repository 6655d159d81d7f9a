"""What is in a dataset, and whether it is whole: counts, and findings that name file and rule."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from scipy.spatial import KDTree

from realdex_jax.data import pieces, store
from realdex_jax.data.motion import RATE
from realdex_jax.data.object_files import Surface
from realdex_jax.data.schema import GraspSet
from realdex_jax.data.source import Source, Unit
from realdex_jax.data.store import Dataset
from realdex_jax.errors import RealdexError
from realdex_jax.geometry import obj
from realdex_jax.geometry.mesh import MAX_COUNT, check_raw

PALM_DISTANCE = 0.25
"""Farthest palm (m) from the surface of what it grasps; a hand is 0.2 m long."""

APART = 0.01
"""Metres by which the boxes of an object's mesh and points may differ."""

INWARD = -0.1
"""Largest `sense` of a surface whose normals point inward."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """Something that is not as it must be."""

    file: str
    """File inside the dataset."""
    rule: str
    """What must hold."""
    value: str
    """What was found instead."""


@dataclasses.dataclass(frozen=True)
class Counts:
    """What there is of one object, or of many."""

    objects: int = 0
    grasps: int = 0
    motions: int = 0
    frames: int = 0
    """Of all motions."""
    meshes: int = 0
    surfaces: int = 0
    """Objects with surface points."""
    bytes: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        """Both together."""
        return Counts(*(a + b for a, b in zip(_values(self), _values(other), strict=True)))

    def rows(self) -> Iterator[tuple[str, str]]:
        """Names and values for people."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            yield field.name, f"{value / 2**20:.1f} MiB" if field.name == "bytes" else f"{value:,}"
        yield "hours of motion", f"{self.frames / RATE / 3600:.2f}"


@dataclasses.dataclass(frozen=True, eq=False)
class Looked:
    """One object, looked at."""

    name: str
    counts: Counts
    findings: tuple[Finding, ...]


def about(dataset: Dataset) -> tuple[tuple[str, str], ...]:
    """What the index says: names and values for people."""
    recipe = dataset.recipe
    source = recipe.get("converted_from", "this project's own" if "command" in recipe else "-")
    ours = dataset.joint_names == store.table_of(dataset.hand).names
    parts = ", ".join(f"{part} {len(names)}" for part, names in dataset.splits.items())
    return (
        ("name", dataset.name),
        ("version", dataset.version),
        ("layout", str(store.FORMAT)),
        (
            "hand",
            f"{dataset.hand}, joints {'in our order' if ours else ' '.join(dataset.joint_names)}",
        ),
        ("objects by part", f"{parts} (scheme {dataset.scheme!r})"),
        ("schemes", ", ".join(dataset.schemes)),
        ("from", str(source)),
        ("digest", dataset.digest),
    )


def look(dataset: Dataset, name: str) -> Looked:
    """Reads everything there is of one object, and checks it."""
    findings: list[Finding] = []
    files = {
        "grasps": f"grasps/{name}.npz",
        "motions": f"motions/{name}.npz",
        "points": f"objects/{name}/points.npz",
        "mesh": f"objects/{name}/mesh.obj",
    }
    size = 0
    there = set()
    for what, relative in files.items():
        path = dataset.path / relative
        expected = dataset.digests.get(relative)
        if not path.is_file():
            needed = what == "grasps" or (what == "motions" and name in dataset.moving)
            if expected is not None or needed:
                findings.append(Finding(relative, "the file is there", "missing"))
            continue
        there.add(what)
        size += path.stat().st_size
        if expected is None:
            findings.append(Finding(relative, "dataset.json has its digest", "none"))
            continue
        try:
            same = store.digest_of(path) == expected
        except OSError as error:
            there.discard(what)
            findings.append(Finding(relative, "the file can be read", str(error.strerror)))
            continue
        if not same:
            findings.append(
                Finding(relative, "SHA-256 as in dataset.json", "another: edited or damaged")
            )
    grasps, motions, surface = None, None, None
    try:
        if "grasps" in there:
            grasps = dataset.grasps(name)
            findings += _grasp_findings(grasps, files["grasps"])
    except RealdexError as error:
        findings.append(_broken(files["grasps"], dataset, error))
    try:
        if "motions" in there and name in dataset.moving:
            motions = dataset.motions(name)
    except RealdexError as error:
        findings.append(_broken(files["motions"], dataset, error))
    try:
        if "points" in there:
            surface = dataset.surface(name)
            findings += _surface_findings(surface, files["points"])
    except RealdexError as error:
        findings.append(_broken(files["points"], dataset, error))
    if grasps is not None and len(grasps) and "points" not in there:
        findings.append(Finding(files["points"], "grasps have surface points to learn on", "none"))
    if "mesh" in there:
        findings += _mesh_findings(dataset.path, files["mesh"], name, surface)
    if grasps is not None and surface is not None and len(grasps):
        findings += _distance_findings(grasps, surface, files["grasps"])
    counts = Counts(
        objects=1,
        grasps=0 if grasps is None else len(grasps),
        motions=0 if motions is None else len(motions),
        frames=0 if motions is None else len(motions.phi),
        meshes=int("mesh" in there),
        surfaces=int(surface is not None),
        bytes=size,
    )
    return Looked(name, counts, tuple(findings))


def strays(dataset: Dataset) -> tuple[Finding, ...]:
    """Files that the index does not know, and digests of objects that no part names."""
    found = []
    known = {store.INDEX, *dataset.digests}
    for path in sorted(dataset.path.rglob("*")):
        relative = path.relative_to(dataset.path).as_posix()
        if path.is_file() and relative not in known and not _of_object(relative, dataset):
            found.append(Finding(relative, "dataset.json names it", "unknown file"))
    found += [
        Finding(relative, "the file is there", "missing")
        for relative in sorted(dataset.digests)
        if not _of_object(relative, dataset) and not (dataset.path / relative).is_file()
    ]
    return tuple(found)


def sample(source: Source, count: int) -> tuple[tuple[str, Unit | RealdexError], ...]:
    """Some units of a foreign dataset, evenly over its list, read; or why they cannot be."""
    units = list(source.units)
    chosen = np.unique(np.linspace(0, len(units) - 1, min(count, len(units))).round().astype(int))
    found: list[tuple[str, Unit | RealdexError]] = []
    for i in chosen.tolist():
        try:
            found.append((units[i], source.read(units[i])))
        except RealdexError as error:
            found.append((units[i], error))
    return tuple(found)


def unit_counts(unit: Unit) -> Counts:
    """What there is in one unit."""
    return Counts(
        objects=1,
        grasps=0 if unit.grasps is None else len(unit.grasps),
        motions=0 if unit.motions is None else len(unit.motions),
        frames=0 if unit.motions is None else len(unit.motions.phi),
        meshes=int(unit.mesh is not None),
        surfaces=int(unit.points is not None),
    )


def _values(counts: Counts) -> Sequence[int]:
    return [getattr(counts, field.name) for field in dataclasses.fields(counts)]


def _of_object(relative: str, dataset: Dataset) -> bool:
    """Whether `look` at some object looks at this file."""
    folder, _, rest = relative.partition("/")
    if folder == "objects":
        name, _, file = rest.partition("/")
        return name in dataset.objects and file in ("points.npz", "mesh.obj")
    return folder in ("grasps", "motions") and (
        rest.endswith(".npz") and rest.removesuffix(".npz") in dataset.objects
    )


def _broken(file: str, dataset: Dataset, error: RealdexError) -> Finding:
    reason = str(error).replace(f"{dataset.path}/", "").removeprefix(f"{file}: ")
    return Finding(file, "the file keeps the format", reason)


def _grasp_findings(grasps: GraspSet, file: str) -> Iterator[Finding]:
    phi = np.asarray(grasps.phi)
    repeated = len(phi) - len(np.unique(phi, axis=0))
    if repeated:
        yield Finding(file, "no grasp is there twice", f"{repeated} of {len(phi)} repeat another")
    for name, value in grasps.columns.items():
        if np.asarray(value).dtype.kind == "f" and not np.isfinite(value).all():
            bad = int((~np.isfinite(value)).sum())
            yield Finding(file, f"column {name!r} is finite", f"{bad} of {len(value)} are not")


def _surface_findings(surface: Surface, file: str) -> Iterator[Finding]:
    extent = float(np.ptp(surface.points, axis=0).max())
    if not 0.01 <= extent <= 1.0:
        yield Finding(file, "an object is 1 cm to 1 m long", f"{extent:.4g} m: another unit?")
    if sense(surface) < INWARD:
        yield Finding(file, "normals point outward", "they point inward: a mesh inside out?")


def sense(surface: Surface, queries: int = 64, neighbours: int = 9) -> float:
    """1 if the normals of a closed surface point outward, -1 if inward; less if it is open.

    Just inside a surface the generalized winding number (Jacobson et al. 2013; of points: Barill et
    al. 2018) is 1 and just outside 0; with the normals turned -1 and 0. Hollow things are judged
    like others; where a wall is thinner than the points are apart both are 0.

    Args:
        surface: Points even by area.
        queries: Points, evenly over the list, on both sides of which the number is computed.
        neighbours: Points that tell the area of one.
    """
    points, normals = (np.asarray(a, np.float64) for a in (surface.points, surface.normals))
    radius = KDTree(points).query(points, k=neighbours + 1)[0][:, -1]
    area = np.pi * radius**2 / neighbours
    at = np.linspace(0, len(points) - 1, min(queries, len(points))).astype(int)
    step = radius[at, None] * normals[at]
    towards = points - np.concatenate([points[at] - step, points[at] + step])[:, None]
    cubed = np.maximum(np.linalg.norm(towards, axis=-1), 1e-9) ** 3
    winding = (area * np.einsum("qni,ni->qn", towards, normals) / cubed).sum(axis=1)
    return float(winding.mean() / (2 * np.pi))


def _mesh_findings(root: Path, file: str, name: str, surface: Surface | None) -> Iterator[Finding]:
    try:
        text = obj.parse((root / file).read_text(encoding="utf-8"), file, MAX_COUNT)
        if pieces.marked(text):
            vertices = pieces.shape_of(text, name, file).vertices
        else:
            vertices = np.asarray(check_raw(text.vertices, text.faces, file).vertices)
    except (RealdexError, OSError, UnicodeDecodeError) as error:
        yield Finding(file, "the mesh can be read", str(error).removeprefix(f"{file}: "))
        return
    if surface is None:
        return
    boxes = [np.stack([p.min(axis=0), p.max(axis=0)]) for p in (vertices, surface.points)]
    apart = float(np.abs(boxes[0] - boxes[1]).max())
    if apart > APART:
        yield Finding(
            file, "mesh and points are of one object", f"their boxes differ by {apart:.3g} m"
        )


def _distance_findings(grasps: GraspSet, surface: Surface, file: str) -> Iterator[Finding]:
    distance, _ = KDTree(surface.points).query(np.asarray(grasps.phi)[:, -6:-3])
    far = distance > PALM_DISTANCE
    if far.any():
        yield Finding(
            file,
            f"the palm is within {PALM_DISTANCE:g} m of the object",
            f"{far.sum()} of {len(far)} are not, the farthest {distance.max():.2f} m: "
            "another frame?",
        )
