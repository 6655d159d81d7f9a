"""Converts a foreign dataset into a dataset folder of this project.

    python -m experiments.convert ~/dexgraspnet runs/dexgraspnet
    python -m experiments.convert ~/grab runs/grab --option mano=~/mano/MANO_RIGHT.pkl
    python -m experiments.convert ~/realdex runs/realdex --format realdex --jobs 8

One process per core, each with one object at a time. An interrupted run goes on where it stopped
when the same command is given again, and ends with the same bytes; units whose files have changed
since are converted again. What cannot be read is refused by name and the rest converts; the exit
code is 1 then, and 2 if nothing was converted.
`docs/data.md` says what each layout maps to.
Takes about a minute for a million grasps on 2 cores.
"""

import concurrent.futures
import contextlib
import dataclasses
import fcntl
import hashlib
import json
import multiprocessing
import os
import re
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console

from experiments import commands, workers
from realdex_jax.data import conversion, folder, formats, source_files, splits, store, writer
from realdex_jax.data.conversion import Record
from realdex_jax.data.source import Source
from realdex_jax.data.store import Dataset
from realdex_jax.errors import ConfigError, DatasetError
from realdex_jax.evaluation.results import commit as commit_now
from sim import native

CHUNK = 10
"""Units that a process does in a row: sizes of one object share what was read."""
_SHOWN = 12


@dataclasses.dataclass(frozen=True)
class Convert:
    """Command line of this script."""

    source: Annotated[Path, tyro.conf.Positional]
    """Folder, or download, of the foreign dataset."""
    dest: Annotated[Path, tyro.conf.Positional]
    """Folder of the new dataset; work in progress lies beside it in `.<name>.work`."""
    format: str | None = None
    """Layout of the source; recognised by its names if not given."""
    option: tuple[str, ...] = ()
    """What its reader is told, as NAME=VALUE; values are JSON or text."""
    jobs: int = 0
    """Processes; 0 means one per core."""
    points: int = 4096
    """Surface points stored for each object."""
    limit: int | None = None
    """Only the first so many units."""
    name: str | None = None
    """Name of the dataset; that of the folder if not given."""
    version: str = "1"
    """Version of its content."""
    fresh: bool = False
    """Throw away what an interrupted run has left, whatever its settings were."""


@dataclasses.dataclass(frozen=True)
class Report:
    """What a conversion did."""

    dataset: Dataset
    refused: Mapping[str, str]
    """Reason by unit."""
    left_out: Mapping[str, tuple[str, ...]]
    """Files of converted units that could not be used."""
    empty: tuple[str, ...]
    """Units in which there was nothing."""
    unsplit: tuple[str, ...]
    """Objects that the source's splits do not name; they are not stored."""
    counts: Mapping[str, int]
    """Objects, grasps, motions and frames."""


def main() -> None:
    """Command line; mistakes of the user end in one line, not a traceback."""
    config = commands.read(Convert, __doc__, plan=plan)
    console = Console()
    with commands.ending(console, "stopped; the same command goes on where this one was"):
        report = run(config, console)
    print_report(report, config.dest, console)
    sys.exit(1 if report.refused or report.left_out else 0)


def plan(config: Convert) -> Iterator[str]:
    """What a dry run says."""
    source, _, units = _asked(config)
    work = _work(config)
    begun = f"; {work} is there, and goes on if it is of the same settings" if work.exists() else ""
    count = config.jobs or native.cores()
    yield f"{len(units)} units of layout {source.format}, in {count} processes"
    yield f"work in progress goes to {work}{begun}"


def run(config: Convert, console: Console, *, own: bool = False) -> Report:
    """Converts a dataset.

    Args:
        config: The command line.
        console: Where progress goes.
        own: Work that is left of other settings is nobody's: it is thrown away, not refused.

    Raises:
        RealdexError: Settings that make no sense, a source of no known layout, one of which
            nothing can be read, something else than a dataset at `dest`, or work of other settings
            or of a run that goes on.
    """
    source, options, units = _asked(config)
    dest, work = config.dest.resolve(), _work(config)
    files = source_files.state(_paths(config, options), units, without=(dest, work))
    with _claimed(work, _claim(config, source, units, files), config.fresh, own):
        records = _convert_all(config, source, options, units, work, console)
        report = _finish(config, source, records, work, dest)
        shutil.rmtree(work)
    return report


def _asked(config: Convert) -> tuple[Source, dict[str, Any], tuple[str, ...]]:
    """The source, what its reader is told, and what is to be converted."""
    if config.jobs < 0 or config.points < 16 or (config.limit is not None and config.limit < 1):
        raise ConfigError(
            f"--jobs {config.jobs}, --points {config.points}, --limit {config.limit}; jobs are not "
            "negative, points at least 16, a limit at least 1"
        )
    options = parse_options(config.option)
    folder.check_target(config.dest)
    source = formats.open_source(config.source, config.format, options)
    if config.source.resolve().is_relative_to(config.dest.resolve()):
        raise ConfigError(f"{config.source} lies in {config.dest}, which would replace it")
    units = tuple(source.units)[: config.limit]
    if not units:
        raise DatasetError(f"{config.source} names nothing to convert")
    if len(set(units)) != len(units):
        raise DatasetError(f"{config.source} names a unit twice")
    return source, options, units


def _work(config: Convert) -> Path:
    dest = config.dest.resolve()
    return dest.parent / f".{dest.name}.work"


def parse_options(words: Sequence[str]) -> dict[str, Any]:
    """Options from NAME=VALUE words; values that are not JSON are text, `~` is the home folder.

    Raises:
        ConfigError: A word without a name, or a name given twice.
    """
    found: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name.isidentifier() or name in found:
            raise ConfigError(f"--option {word}: expected NAME=VALUE, each name once")
        try:
            found[name] = json.loads(value)
        except (ValueError, RecursionError):
            found[name] = str(Path(value).expanduser()) if value.startswith("~") else value
    return found


def _claim(
    config: Convert, source: Source, units: Sequence[str], files: Mapping[str, str]
) -> dict[str, Any]:
    """What decides the result; JSON."""
    return {
        "source": str(config.source.resolve()),
        "format": source.format,
        "recipe": json.loads(json.dumps(dict(source.recipe))),
        "units": hashlib.sha256("\n".join(units).encode("utf-8", "surrogateescape")).hexdigest(),
        "points": config.points,
        "commit": commit_now(),
        "files": dict(files),
    }


def _paths(config: Convert, options: Mapping[str, Any]) -> list[Path]:
    """What the reader may open: the source, and what its options name."""
    named = [Path(value) for value in options.values() if isinstance(value, str)]
    return [config.source, *(path for path in named if path.exists())]


@contextlib.contextmanager
def _claimed(
    work: Path, claim: Mapping[str, Any], fresh: bool, own: bool = False
) -> Iterator[None]:
    """Holds the work folder, unless another run does, or left it with other settings."""
    work.mkdir(parents=True, exist_ok=True)
    with (work / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise DatasetError(f"another conversion is at work in {work}; wait for it") from error
        place = work / "claim.json"
        before = _json(place)
        other = _settings(before) != _settings(claim)
        if fresh or not place.is_file() or (own and other):
            for entry in work.iterdir():
                if entry.is_dir():
                    shutil.rmtree(entry)
        elif other:
            what = ", ".join(k for k in claim if k != "files" and before.get(k) != claim[k])
            what = what or "its form"
            count = len(list((work / "records").glob("*.json")))
            raise DatasetError(
                f"{work} is left from a conversion with other settings ({what}); give --fresh to "
                f"throw it away, with the {count} units that it had finished, or the old settings"
            )
        else:
            then, now = before["files"], claim["files"]
            if then != now:
                conversion.forget(work, lambda unit: source_files.changed(unit, then, now))
        shutil.rmtree(work / "fresh", ignore_errors=True)  # half-written files of a killed run
        for name in conversion.FOLDERS:
            (work / name).mkdir(exist_ok=True)
        half = work / "claim.json.new"
        half.write_text(json.dumps(claim))
        half.replace(place)
        try:
            yield
        finally:
            if work.is_dir() and not any((work / "records").iterdir()):
                shutil.rmtree(work)  # nothing was finished: nothing to go on with


def _settings(claim: Mapping[str, Any]) -> dict[str, Any]:
    """A claim less the state of the source's files."""
    form = type(claim.get("files")).__name__
    return {k: v for k, v in claim.items() if k != "files"} | {"form": form}


def _json(place: Path) -> dict[str, Any]:
    try:
        found = json.loads(place.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _convert_all(
    config: Convert,
    source: Source,
    options: Mapping[str, Any],
    units: Sequence[str],
    work: Path,
    console: Console,
) -> list[Record]:
    """Records of all units, in their order."""
    jobs = min(config.jobs or native.cores(), len(units))
    size = max(1, min(CHUNK, len(units) // (2 * jobs)))
    found: dict[str, Record] = {}
    with commands.progress(console) as progress:
        task = progress.add_task(f"{source.format}", total=len(units))

        def took(records: Sequence[Record]) -> None:
            found.update({record.unit: record for record in records})
            refused = sum(bool(record.refused) for record in found.values())
            what = f"{source.format}, {refused} refused" if refused else source.format
            progress.update(task, completed=len(found), description=what)

        if jobs == 1:
            for unit in units:
                took([conversion.convert(source, unit, work, config.points)])
        else:
            chunks = (units[i : i + size] for i in range(0, len(units), size))
            for records in _in_processes(jobs, chunks, config, source.format, options, work):
                took(records)
    return [found[unit] for unit in units]


def _in_processes(
    jobs: int,
    chunks: Iterator[Sequence[str]],
    config: Convert,
    layout: str,
    options: Mapping[str, Any],
    work: Path,
) -> Iterator[list[Record]]:
    """Converts chunks in any order; only a few wait at a time, however many there are."""
    workers.share_cores()
    given = (config.source, layout, dict(options), work, config.points, os.getpid())
    pool = concurrent.futures.ProcessPoolExecutor(
        jobs, multiprocessing.get_context("spawn"), _begin, given
    )
    try:
        waiting: set[Future[list[Record]]] = set()
        for chunk in chunks:
            with workers.uninterrupted():
                waiting.add(pool.submit(_convert_chunk, tuple(chunk)))
            if len(waiting) >= 3 * jobs:
                done, waiting = concurrent.futures.wait(
                    waiting, return_when=concurrent.futures.FIRST_COMPLETED
                )
                yield from (future.result() for future in done)
        for future in concurrent.futures.as_completed(waiting):
            yield future.result()
    except concurrent.futures.BrokenExecutor as error:
        raise DatasetError(
            f"a process of the conversion was killed, for memory perhaps ({error}); the same "
            "command goes on, --jobs 1 needs least"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


@dataclasses.dataclass
class _Worker:
    """What a process keeps between chunks."""

    source: Source
    work: Path
    points: int


_worker: list[_Worker] = []


def _begin(
    path: Path, layout: str, options: dict[str, Any], work: Path, points: int, parent: int
) -> None:
    workers.end_with(parent)
    _worker[:] = [_Worker(formats.open_source(path, layout, options), work, points)]


def _convert_chunk(units: tuple[str, ...]) -> list[Record]:
    (mine,) = _worker
    return [conversion.convert(mine.source, unit, mine.work, mine.points) for unit in units]


def _finish(
    config: Convert, source: Source, records: Sequence[Record], work: Path, dest: Path
) -> Report:
    """Writes the index and puts the folder in its place."""
    refused = {record.unit: record.refused for record in records if record.refused}
    # Some file systems take names that differ by case for the same.
    by_key: dict[str, Record] = {}
    for record in records:
        key = record.name.casefold()
        if key and by_key.setdefault(key, record) is not record:
            other = by_key[key].unit
            raise DatasetError(f"units {other!r} and {record.unit!r} are both {record.name!r}")
    by_name = {record.name: record for record in by_key.values()}
    if not by_name:
        first = next(iter(refused.values()), "its units are empty")
        raise DatasetError(f"nothing of {config.source} can be converted; first: {first}")
    parts = {
        part: [name for name in names if name in by_name]
        for part, names in source.splits(tuple(by_name)).items()
    }
    splits.check(parts)
    listed = {name for names in parts.values() for name in names}
    if not listed:
        raise DatasetError(f"the splits of {config.source} name none of its objects")
    kept = [record for name, record in by_name.items() if name in listed]
    unsplit = tuple(name for name in by_name if name not in listed)
    totals = {
        "objects": len(kept),
        **{k: sum(r.counts[k] for r in kept) for k in ("grasps", "motions", "frames")},
    }
    empty = tuple(r.unit for r in records if not r.name and not r.refused)
    digests = {k: v for record in kept for k, v in record.files.items()}
    _sweep(work / "data", digests)
    dataset = writer.finish(
        work / "data",
        dest,
        digests=digests,
        name=config.name or dest.name,
        version=config.version,
        splits=parts,
        schemes=_schemes(source, listed),
        recipe={
            "converted_from": source.format,
            "source": dict(source.recipe),
            "points": config.points,
            "commit": commit_now(),
            "counts": totals,
            "refused": refused,
            "empty": list(empty),
            "unsplit": list(unsplit),
            "notes": {r.name: list(r.notes) for r in kept if r.notes},
        },
    )
    left_out = {r.unit: r.left_out for r in records if r.left_out}
    return Report(dataset, refused, left_out, empty, unsplit, totals)


def _schemes(source: Source, listed: set[str]) -> dict[str, dict[str, list[str]]]:
    """Further splits, of a source that has some."""
    named = getattr(source, "schemes", None)
    if named is None:
        return {}
    return {
        scheme: {part: [n for n in names if n in listed] for part, names in parts.items()}
        for scheme, parts in named(tuple(sorted(listed))).items()
    }


def _sweep(data: Path, digests: Mapping[str, str]) -> None:
    """Removes what no record names: a run was killed between a file and its record."""
    for path in sorted(data.rglob("*"), reverse=True):
        if path.is_dir():
            if not any(path.iterdir()):
                path.rmdir()
        elif path.relative_to(data).as_posix() not in digests:
            path.unlink()


def print_report(report: Report, dest: Path, console: Console) -> None:
    """Says what was converted, and what was not."""
    counts = ", ".join(f"{v} {k}" for k, v in report.counts.items())
    console.print(f"{dest}: {counts}", highlight=False, markup=False)
    left_out = {unit: "; ".join(notes) for unit, notes in report.left_out.items()}
    for what, reasons in (("refused", report.refused), ("files left out", left_out)):
        if reasons:
            console.print(f"[red]{len(reasons)} units {what}[/]", highlight=False)
        for unit, reason in list(reasons.items())[:_SHOWN]:
            _say(console, f"  {unit}: {reason}")
        if len(reasons) > _SHOWN:
            console.print(f"  ... and {len(reasons) - _SHOWN} more, in {dest / store.INDEX}")
    for what, names in (("empty", report.empty), ("in no split", report.unsplit)):
        if names:
            _say(console, f"{len(names)} units {what}: {', '.join(names[:_SHOWN])}")
    for note, count in _alike(report.dataset.recipe["notes"])[:_SHOWN]:
        _say(console, f"note on {count} units: {note}")


def _alike(notes: Mapping[str, Sequence[str]]) -> list[tuple[str, int]]:
    """Notes that differ by numbers alone, with how many units have one; the most frequent first."""
    units: dict[str, set[str]] = {}
    said: dict[str, str] = {}
    for unit, each in notes.items():
        for note in each:
            key = re.sub(r"[\d.]+", "#", note.replace(unit, "#"))
            said.setdefault(key, note)
            units.setdefault(key, set()).add(unit)
    return sorted(((said[k], len(v)) for k, v in units.items()), key=lambda one: -one[1])


def _say(console: Console, text: str) -> None:
    """A line as it is, whatever names of files put into it."""
    plain = text.replace("\n", " ").encode("utf-8", "backslashreplace").decode()
    console.print(plain, highlight=False, markup=False, soft_wrap=True)


if __name__ == "__main__":
    main()
