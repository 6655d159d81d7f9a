"""A recording: a folder of one session, with a stream of frames for each camera.

    cam0-00000.rec, cam0-00001.rec, cam1-00000.rec, ...   frames, in the format of `chunks`
    joints-00000.rec, ...                                 the robot's joints, if it was there
    events.jsonl                                          what went wrong, when
    manifest.json                                         a summary, for people; never read back

Every file says whose it is and what the camera's optics are, so any file can be read alone, and
nothing has to be finished for the rest to be readable.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from capture import chunks, codecs
from capture.chunks import Place, Record, Scan, Writer
from capture.codecs import ColourCodec
from capture.device import CaptureError, Frame, Optics
from realdex_jax.data import calibration, rigid, textfile
from realdex_jax.data.realdex_write import write
from realdex_jax.errors import DatasetError
from realdex_jax.geometry.lens import Lens

FORMAT = 1
JOINTS = "joints"
MANIFEST, EVENTS = "manifest.json", "events.jsonl"
_MAX_CAMERA, _MAX_JOINTS = 63, 1024


@dataclasses.dataclass(frozen=True)
class Storage:
    """How frames are stored."""

    colour: ColourCodec = "jpeg"
    """jpeg loses a little; png nothing, but keeps up with one camera at most."""
    quality: int = 95
    """Of jpeg, 1 to 100."""
    chunk_bytes: int = 256 * 2**20
    """Size from which on a stream goes on in a new file."""
    sync_s: float = 1.0
    """Seconds of frames that a power cut may cost; a killed process costs none that is closed."""


@dataclasses.dataclass(frozen=True, eq=False)
class JointState:
    """Where the robot's joints were."""

    number: int
    """Count of the states since the start."""
    device_ns: int
    """By the robot's clock."""
    host_ns: int
    """Arrival by this machine's monotonic clock."""
    q: Float[np.ndarray, " j"]
    """Positions, radians."""
    qd: Float[np.ndarray, " j"]
    """Velocities, radians per second."""


@dataclasses.dataclass(frozen=True, eq=False)
class Stamps:
    """When the n frames of a camera, or states of the robot, were."""

    number: Int[np.ndarray, " n"]
    """Rising from 0; what is missing was dropped."""
    device_ns: Int[np.ndarray, " n"]
    """By its own clock."""
    host_ns: Int[np.ndarray, " n"]
    """Arrival, by the recording machine's monotonic clock."""

    @property
    def dropped(self) -> int:
        """Frames that are missing, from number 0 to the last that is there."""
        return int(self.number[-1]) + 1 - len(self.number) if len(self.number) else 0


@dataclasses.dataclass(frozen=True, eq=False)
class JointSeries:
    """The robot's joints over n states."""

    names: tuple[str, ...]
    stamps: Stamps
    q: Float[np.ndarray, "n j"]
    """Positions, radians."""
    qd: Float[np.ndarray, "n j"]
    """Velocities, radians per second."""


class FrameWriter:
    """Writes the frames of one camera; by one thread."""

    def __init__(
        self,
        folder: Path,
        camera: int,
        optics: Optics,
        storage: Storage,
        note: Mapping[str, Any] | None = None,
    ) -> None:
        """Opens the stream.

        Args:
            folder: The recording; it is there.
            camera: The camera's number.
            optics: Its lenses.
            storage: How frames are stored.
            note: JSON that every file of it carries.

        Raises:
            DiskError: The folder cannot be written to.
        """
        self._storage = storage
        header = {"format": FORMAT, "kind": "camera", "camera": camera}
        header |= {"optics": optics_json(optics), "note": dict(note or {})}
        self.stream = Writer(
            folder,
            f"cam{camera}",
            header,
            chunk_bytes=storage.chunk_bytes,
            sync_s=storage.sync_s,
        )

    def append(self, frame: Frame) -> None:
        """Encodes and closes a frame.

        Raises:
            UnsyncedError: It is written, but the disk refused what was written of late.
            DiskError: It could not be written; those before are whole.
        """
        colour = codecs.encode_colour(frame.colour, self._storage.colour, self._storage.quality)
        depth = codecs.encode_depth(frame.depth)
        times = frame.device_ns, frame.host_ns
        self.stream.append(Record(frame.number, *times, colour, depth))


class JointWriter:
    """Writes the robot's joints; by one thread."""

    def __init__(self, folder: Path, names: Sequence[str], storage: Storage) -> None:
        """Opens the stream; arguments and errors are those of `FrameWriter`."""
        header = {"format": FORMAT, "kind": JOINTS, "names": list(names)}
        sizes = {"chunk_bytes": storage.chunk_bytes, "sync_s": storage.sync_s}
        self.stream = Writer(folder, JOINTS, header, **sizes)

    def append(self, state: JointState) -> None:
        """Closes a state."""
        q, qd = (np.asarray(x, "<f8").tobytes() for x in (state.q, state.qd))
        self.stream.append(Record(state.number, state.device_ns, state.host_ns, q, qd))


class Recording:
    """A recording on disk; may still be written to, or have been cut off at any moment."""

    def __init__(self, path: Path) -> None:
        """Verifies every record of the folder.

        Raises:
            CaptureError: No recording is there, or it has another format.
        """
        self.path = path
        files = chunks.streams(path)
        if not files:
            raise CaptureError(
                f"{path}: no recording in it; one is a folder with cam0-00000.rec and the like"
            )
        self._scans = {name: [chunks.scan(p) for p in paths] for name, paths in files.items()}
        self._headers: dict[str, Mapping[str, Any]] = {}
        self._found: dict[str, list[Place]] = {}
        for name, scans in self._scans.items():
            header = next((s.header for s in scans if s.header), None)
            if header is not None:
                self._headers[name] = _checked(header, name, scans[0].path)
        self._optics = {
            name: read_optics(header.get("optics"), str(self._scans[name][0].path))
            for name, header in self._headers.items()
            if header["kind"] == "camera"
        }

    @property
    def torn(self) -> Mapping[Path, int]:
        """Bytes after the last verified record, of files that have such; `repair` cuts them off."""
        every = (s for scans in self._scans.values() for s in scans)
        return {s.path: s.rest for s in every if s.rest}

    @functools.cached_property
    def cameras(self) -> tuple[int, ...]:
        """Numbers of the cameras."""
        kinds = self._headers.values()
        return tuple(sorted(h["camera"] for h in kinds if h["kind"] == "camera"))

    def optics(self, camera: int) -> Optics:
        """A camera's lenses.

        Raises:
            CaptureError: The camera is not in the recording.
        """
        return self._optics[self._known(camera)]

    def note(self, camera: int) -> Mapping[str, Any]:
        """What was noted when a camera's stream was begun.

        Raises:
            CaptureError: The camera is not in the recording.
        """
        note = self._headers[self._known(camera)].get("note")
        return note if isinstance(note, dict) else {}

    def stamps(self, camera: int) -> Stamps:
        """When a camera's frames were.

        Raises:
            CaptureError: The camera is not in the recording.
        """
        return _stamps(self._places(self._known(camera)))

    def frame(self, camera: int, k: int) -> Frame:
        """The k-th frame that is there; its number may be larger.

        Raises:
            CaptureError: There is no such frame, or its pictures are not the camera's.
        """
        name = self._known(camera)
        places = self._places(name)
        if not 0 <= k < len(places):
            raise CaptureError(
                f"{self.path}: no frame {k} of camera {camera}; it has {len(places)}"
            )
        record, optics = chunks.read(places[k]), self._optics[name]
        where = f"{places[k].path}, frame {record.number}"
        colour, depth = optics.colour, optics.depth
        return Frame(
            camera,
            record.number,
            record.device_ns,
            record.host_ns,
            codecs.decode_colour(record.first, (colour.width, colour.height), where),
            codecs.decode_depth(record.second, (depth.width, depth.height), where),
        )

    def joints(self) -> JointSeries | None:
        """The robot's joints; None if they were not recorded.

        Raises:
            CaptureError: A record does not fit the names.
        """
        if JOINTS not in self._headers:
            return None
        names = tuple(self._headers[JOINTS]["names"])
        places = self._places(JOINTS)
        values = np.zeros((2, len(places), len(names)))
        for i, place in enumerate(places):
            record = chunks.read(place)
            for column, blob in zip(values, (record.first, record.second), strict=True):
                if len(blob) != 8 * len(names):
                    raise CaptureError(
                        f"{place.path}, record {place.number}: {len(blob)} bytes for "
                        f"{len(names)} joints; must be {8 * len(names)}"
                    )
                column[i] = np.frombuffer(blob, "<f8")
        return JointSeries(names, _stamps(places), values[0], values[1])

    def _places(self, name: str) -> list[Place]:
        if name not in self._found:
            self._found[name] = _rising(self._scans[name])
        return self._found[name]

    def _known(self, camera: int) -> str:
        if camera not in self.cameras:
            raise CaptureError(f"{self.path}: no camera {camera}; cameras: {self.cameras}")
        return f"cam{camera}"


def _rising(scans: Sequence[Scan]) -> list[Place]:
    """Records of a stream, numbers rising from file to file as well."""
    places: list[Place] = []
    for found in scans:
        places += [p for p in found.places if not places or p.number > places[-1].number]
    return places


def repair(path: Path) -> dict[Path, int]:
    """Cuts every file of a recording off after its last verified record, and sums it up anew.

    Returns:
        Bytes cut off, of files that needed it; none the second time.

    Raises:
        CaptureError: No recording is there, or a file cannot be written.
    """
    files = chunks.streams(path)
    if not files:
        raise CaptureError(f"{path}: no recording in it; nothing to repair")
    cut = {p: chunks.repair(p) for paths in files.values() for p in paths}
    # Only what is left of the files counts, whatever the old one said.
    write_manifest(path)
    return {p: size for p, size in cut.items() if size}


def manifest(path: Path, *, verify: bool = True) -> dict[str, Any]:
    """The summary of a recording, from its files alone.

    Args:
        path: The recording.
        verify: Check every record, at the speed of reading it all; else records end where they say.

    Raises:
        CaptureError: The folder cannot be read.
    """
    found: dict[str, Any] = {}
    for name, paths in chunks.streams(path).items():
        scans = [chunks.scan(p, verify=verify) for p in paths]
        places = _rising(scans)
        stamps = _stamps(places)
        found[name] = {
            "files": len(paths),
            "bytes": sum(s.whole for s in scans),
            "frames": len(places),
            "dropped": stamps.dropped,
            "first_host_ns": places[0].host_ns if places else None,
            "last_host_ns": places[-1].host_ns if places else None,
        }
    return {"format": FORMAT, "streams": found}


def write_manifest(path: Path, *, verify: bool = True) -> None:
    """Writes the summary beside the files; arguments are those of `manifest`.

    Raises:
        DiskError: It cannot be written.
    """
    try:
        write(path / MANIFEST, json.dumps(manifest(path, verify=verify), indent=1).encode())
    except OSError as error:
        raise chunks.DiskError(f"{path / MANIFEST}: {error.strerror}") from error


def optics_json(optics: Optics) -> dict[str, Any]:
    """Lenses as JSON; doubles read back to the bit."""
    lenses = {
        which: dataclasses.asdict(lens)
        for which, lens in (("colour", optics.colour), ("depth", optics.depth))
    }
    return lenses | {"wxyz_xyz_colour_depth": np.asarray(optics.wxyz_xyz_colour_depth).tolist()}


def read_optics(value: object, where: str) -> Optics:
    """`optics_json` undone, of a file that anybody may have written.

    Raises:
        CaptureError: A number is missing or makes no lens.
    """
    value = value if isinstance(value, dict) else {}
    try:
        pose = textfile.numbers(value.get("wxyz_xyz_colour_depth"), 7, f"{where}: T_colour_depth")
        pose = rigid.unit(pose[None], f"{where}: T_colour_depth")[0]
        return Optics(
            _lens(value.get("colour"), f"{where}: colour lens"),
            _lens(value.get("depth"), f"{where}: depth lens"),
            pose,
        )
    except DatasetError as error:
        raise CaptureError(str(error)) from error


def _lens(value: object, where: str) -> Lens:
    value = value if isinstance(value, dict) else {}
    width, height = _side(value, "width", where), _side(value, "height", where)
    pinhole = [value.get(name) for name in ("fx", "fy", "cx", "cy")]
    fx, fy, cx, cy = textfile.numbers(pinhole, 4, f"{where}: fx fy cx cy").tolist()
    if min(fx, fy) <= 0:
        raise CaptureError(f"{where}: focal lengths {fx:g} and {fy:g}; they must be positive")
    distortion = textfile.numbers(value.get("distortion"), 8, f"{where}: distortion")
    k1, k2, p1, p2, k3, k4, k5, k6 = distortion.tolist()
    return Lens(width, height, fx, fy, cx, cy, (k1, k2, p1, p2, k3, k4, k5, k6))


def _side(value: Mapping[str, Any], which: str, where: str) -> int:
    side = value.get(which)
    if type(side) is not int or not 1 <= side <= calibration.MAX_SIDE:
        raise CaptureError(f"{where}: {which} {side!r:.20}; 1 to {calibration.MAX_SIDE}")
    return side


def _checked(header: Mapping[str, Any], stream: str, path: Path) -> Mapping[str, Any]:
    """A header whose kind is the stream's."""
    if header.get("format") != FORMAT:
        raise CaptureError(f"{path}: format {header.get('format')!r:.20}; known: {FORMAT}")
    camera, names = header.get("camera"), header.get("names")
    if stream == JOINTS:
        listed = names if isinstance(names, list) else []
        good = 0 < len(listed) <= _MAX_JOINTS and header.get("kind") == JOINTS
        good = good and all(isinstance(n, str) and len(n) < 100 for n in listed)
    else:
        good = type(camera) is int and 0 <= camera <= _MAX_CAMERA
        good = good and header.get("kind") == "camera" and stream == f"cam{camera}"
    if not good:
        raise CaptureError(f"{path}: its header is not that of a stream {stream!r}")
    return header


def _stamps(places: Sequence[Place]) -> Stamps:
    rows = [(p.number, p.device_ns, p.host_ns) for p in places]
    table = np.array(rows, np.int64).reshape(-1, 3)
    return Stamps(table[:, 0], table[:, 1], table[:, 2])
