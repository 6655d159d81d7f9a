"""What is compared: a folder of pictures or videos as trials, and the order each person sees.

    ITEMS/<object>/<method>/<sample>.<suffix>     png jpg jpeg webp, or mp4 webm

A trial shows one sample of one object by every method, so each object needs the same methods and
each of its methods the same samples. Names that begin with a dot are passed over.
"""

import dataclasses
import hashlib
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.error import FFmpegError
from PIL import Image

from realdex_jax.errors import RealdexError

PICTURES: Mapping[str, tuple[str, str]] = {
    ".png": ("image/png", "PNG"),
    ".jpg": ("image/jpeg", "JPEG"),
    ".jpeg": ("image/jpeg", "JPEG"),
    ".webp": ("image/webp", "WEBP"),
}
"""Media type and Pillow's name of the format, by suffix."""

VIDEOS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    ".mp4": ("video/mp4", ("h264", "av1", "vp9")),
    ".webm": ("video/webm", ("vp8", "vp9", "av1")),
}
"""Media type and the codecs that browsers play in it, by suffix."""

MAX_PICTURE_BYTES = 20 * 2**20
MAX_VIDEO_BYTES = 100 * 2**20
MAX_PIXELS = 40_000_000
MAX_METHODS = 8
"""More do not fit beside each other, and nobody ranks them with care."""
MAX_TRIALS = 2000
_MAX_NAME = 100

Order = tuple[tuple[int, tuple[int, ...]], ...]
"""Trials in the order one person sees them; with each, its methods from left to right."""


class PlanError(RealdexError):
    """A folder of items that cannot be shown fairly."""


@dataclasses.dataclass(frozen=True)
class Exhibit:
    """One picture or video."""

    path: Path
    media_type: str
    digest: str
    """SHA-256 of the file."""
    size: tuple[int, int]
    """Width and height, pixels."""
    stamp: tuple[int, ...]
    """Of the file when it was read, see `same`."""

    @property
    def moving(self) -> bool:
        """Whether it is a video."""
        return self.media_type.startswith("video/")


@dataclasses.dataclass(frozen=True)
class Trial:
    """What is seen side by side."""

    object_name: str
    sample: str
    exhibits: tuple[Exhibit, ...]
    """One a method, in the order of the plan's methods."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """Everything a study shows."""

    methods: tuple[str, ...]
    trials: tuple[Trial, ...]
    notes: tuple[str, ...] = ()
    """What whoever runs the study should know before it starts."""

    def digest(self) -> str:
        """A SHA-256 that changes with any name or file."""
        text = hashlib.sha256()
        for trial in self.trials:
            for method, exhibit in zip(self.methods, trial.exhibits, strict=True):
                line = "\0".join((trial.object_name, trial.sample, method, exhibit.digest))
                text.update(line.encode() + b"\n")
        return text.hexdigest()


def read(folder: Path, samples: int | None = None, seed: int = 0) -> Plan:
    """Reads and checks a folder of items; every file is opened once.

    Args:
        folder: The items.
        samples: If given, only so many random samples of each object, the same for all people.
        seed: Decides which.

    Raises:
        PlanError: A method or sample is missing, or a file cannot be shown.
    """
    if samples is not None and samples < 1:
        raise PlanError(f"samples is {samples}; it must be at least one")
    objects = _folders(folder, "an object")
    if not objects:
        raise PlanError(f"{folder}: no objects; items lie in <object>/<method>/<sample>.png")
    by_object = {path.name: [_name(m) for m in _folders(path, "a method")] for path in objects}
    methods = tuple(sorted({method for found in by_object.values() for method in found}))
    if not 2 <= len(methods) <= MAX_METHODS:
        raise PlanError(
            f"{folder}: {len(methods)} methods ({', '.join(methods)}); 2 to {MAX_METHODS} can be "
            "compared; items lie in <object>/<method>/<sample>.png"
        )
    trials: list[Trial] = []
    for index, path in enumerate(objects):
        missing = [method for method in methods if method not in by_object[path.name]]
        if missing:
            raise PlanError(
                f"{path}: no folder of method {', '.join(missing)}; every object needs "
                f"{', '.join(methods)}"
            )
        files = _samples(path, methods)
        chosen = list(files)
        if samples is not None:
            if samples > len(chosen):
                raise PlanError(
                    f"{path}: {len(chosen)} samples of each method, but --samples {samples}"
                )
            rng = np.random.default_rng([seed, index])
            chosen = sorted(rng.choice(chosen, samples, replace=False).tolist())
        for sample in chosen:
            exhibits = tuple(exhibit(file) for file in files[sample])
            if len({one.moving for one in exhibits}) > 1:
                raise PlanError(
                    f"{path}: sample {sample} is a picture of one method and a video of another; "
                    "people would know which is which"
                )
            trials.append(Trial(_name(path), sample, exhibits))
    if len(trials) > MAX_TRIALS:
        raise PlanError(f"{folder}: {len(trials)} trials; at most {MAX_TRIALS}, see --samples")
    uneven = [t for t in trials if len({e.size for e in t.exhibits}) > 1]
    notes = [
        f"{t.object_name} {t.sample}: sizes differ between methods "
        f"({', '.join(f'{w}×{h}' for w, h in (e.size for e in t.exhibits))}), which may tell them "
        "apart"
        for t in uneven[:3]
    ]
    if len(uneven) > 3:
        notes.append(f"the same of {len(uneven) - 3} more trials")
    return Plan(methods, tuple(trials), tuple(notes))


def exhibit(path: Path) -> Exhibit:
    """Checks one file: kind, size, and that all of a picture or the start of a video decodes.

    Raises:
        PlanError: It cannot be shown.
    """
    suffix = path.suffix.lower()
    if suffix not in PICTURES and suffix not in VIDEOS:
        raise PlanError(f"{path}: suffix {suffix!r}; known: {', '.join([*PICTURES, *VIDEOS])}")
    limit = MAX_PICTURE_BYTES if suffix in PICTURES else MAX_VIDEO_BYTES
    try:
        stamp = _stamp(path)  # before its bytes, so that a change of them is seen
        if stamp[0] > limit:
            raise PlanError(f"{path}: {stamp[0]} bytes; at most {limit} for {suffix}")
        digest = _digest(path)
    except OSError as error:
        raise PlanError(f"{path}: cannot be read: {error.strerror}") from error
    if suffix in PICTURES:
        media_type, kind = PICTURES[suffix]
        return Exhibit(path, media_type, digest, _picture_size(path, kind), stamp)
    media_type, codecs = VIDEOS[suffix]
    return Exhibit(path, media_type, digest, _video_size(path, codecs), stamp)


def same(exhibit: Exhibit) -> Exhibit:
    """The exhibit with the stamp that its file has now, if the file is still what was read.

    A file that was touched or copied back is read again; one with the same stamp is not.

    Raises:
        PlanError: It is gone, or another.
    """
    path = exhibit.path
    try:
        stamp = _stamp(path)
        if stamp == exhibit.stamp:
            return exhibit
        if stamp[0] != exhibit.stamp[0] or _digest(path) != exhibit.digest:
            raise PlanError(f"{path}: another file than when the study was started")
    except OSError as error:
        raise PlanError(f"{path}: cannot be read any more: {error.strerror}") from error
    return dataclasses.replace(exhibit, stamp=stamp)


def order(trials: int, methods: int, seed: int, number: int) -> Order:
    """The random order of trials, and of methods in each, for one person.

    Args:
        trials: Number of trials.
        methods: Number of methods.
        seed: The study's.
        number: The person's, from 1.
    """
    rng = np.random.default_rng([seed, number])
    return tuple(
        (int(trial), tuple(int(method) for method in rng.permutation(methods)))
        for trial in rng.permutation(trials)
    )


def _folders(folder: Path, what: str) -> list[Path]:
    """Folders inside, by name; a file among them is a mistake."""
    try:
        inside = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise PlanError(f"{folder}: not a folder that can be read: {error.strerror}") from error
    for path in inside:
        if not path.is_dir():
            raise PlanError(
                f"{path} is a file where the folder of {what} should be; items lie in "
                "<object>/<method>/<sample>.png"
            )
    return inside


def _samples(folder: Path, methods: Sequence[str]) -> dict[str, list[Path]]:
    """An object's files by sample, each in the order of the methods."""
    by_method: list[dict[str, Path]] = []
    for method in methods:
        found: dict[str, Path] = {}
        for path in sorted((folder / method).iterdir()):
            if path.name.startswith("."):
                continue
            if path.stem in found:
                raise PlanError(f"{path} and {found[path.stem].name} are both sample {path.stem}")
            found[_name(path, path.stem)] = path
        by_method.append(found)
    every = sorted({sample for found in by_method for sample in found})
    if not every:
        raise PlanError(f"{folder}: no samples; items lie in <object>/<method>/<sample>.png")
    for method, found in zip(methods, by_method, strict=True):
        missing = [sample for sample in every if sample not in found]
        if missing:
            raise PlanError(
                f"{folder / method}: no sample {', '.join(missing)}; every method of an object "
                f"needs {', '.join(every)}"
            )
    return {sample: [found[sample] for found in by_method] for sample in every}


def _name(path: Path, name: str | None = None) -> str:
    """A name that can stand in a table."""
    name = path.name if name is None else name
    if len(name) > _MAX_NAME or not name.isprintable():
        raise PlanError(f"{str(path)!r}: names are printable and of at most {_MAX_NAME} letters")
    return name


def _stamp(path: Path) -> tuple[int, ...]:
    """Length of a file, and what changes with its bytes or when another takes its place."""
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise PlanError(f"{path}: not a file")  # reading a pipe would wait for ever
    return found.st_size, found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _picture_size(path: Path, kind: str) -> tuple[int, int]:
    try:
        with Image.open(path, formats=[kind]) as image:
            if image.width * image.height > MAX_PIXELS:
                raise PlanError(
                    f"{path}: {image.width}×{image.height} pixels; at most {MAX_PIXELS}"
                )
            image.load()
            return image.size
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if isinstance(error, PlanError):
            raise
        raise PlanError(f"{path}: not a {kind} picture that can be read: {error}") from error


def _video_size(path: Path, codecs: Sequence[str]) -> tuple[int, int]:
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            context = cast(av.VideoCodecContext | None, stream.codec_context)
            name = "unknown" if context is None else context.name
            codec = name.removeprefix("lib").replace("dav1d", "av1")
            if context is None or codec not in codecs:
                raise PlanError(
                    f"{path}: codec {codec}; browsers play {', '.join(codecs)} in {path.suffix}"
                )
            frame = next(container.decode(stream))
            return frame.width, frame.height
    # Sizes and lengths in a broken file can ask for any amount of memory.
    except (
        FFmpegError,
        MemoryError,
        OSError,
        LookupError,
        StopIteration,
        ValueError,
    ) as error:
        if isinstance(error, PlanError):
            raise
        reason = str(error) or type(error).__name__
        raise PlanError(f"{path}: not a video that can be read: {reason}") from error
