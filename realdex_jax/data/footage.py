"""Pictures of motions as videos of a LeRobotDataset: many episodes a file, read in any order."""

import dataclasses
import re
from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np
from jaxtyping import Int, UInt8

from realdex_jax.data.motion import RATE
from realdex_jax.errors import DatasetError

FPS = int(RATE)
CHUNK = 1000
"""Most files of a folder."""
VIDEO = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
"""Where the files of a camera are."""
QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
_GOP = 2
"""A picture that needs no other, so often: frames are read in any order."""
_QUALITY = "23"
"""x264's constant rate factor; less is better and larger."""
_BT709 = 1
"""FFmpeg's number of these colours, which players also assume where none are given."""

Pictures = Iterable[UInt8[np.ndarray, "h w 3"]]
"""One for each frame."""


@dataclasses.dataclass(frozen=True, eq=False)
class Camera:
    """Pictures of motions that go into an export."""

    name: str
    """Of the feature `observation.images.NAME`."""
    draw: Callable[[int], Pictures]
    """One picture for each frame of a motion; all of one size, width and height even."""

    @property
    def key(self) -> str:
        """Name of the feature."""
        return f"observation.images.{self.name}"


@dataclasses.dataclass(frozen=True, eq=False)
class Footage:
    """What the index of a dataset says about the videos of one camera."""

    feature: dict[str, Any]
    """Description of the feature."""
    statistics: dict[str, Any]
    """Of all pictures."""
    episodes: tuple[dict[str, Any], ...]
    """File, first and last second of each motion."""
    each: tuple[dict[str, Any], ...]
    """Statistics of each motion."""


def check_name(name: str) -> None:
    """Checks the name of a camera.

    Raises:
        DatasetError: It has other letters than names of features and folders may have.
    """
    if not re.fullmatch(r"[A-Za-z0-9_]+", name):
        raise DatasetError(f"camera {name!r}; names are of letters, digits and _")


def place(number: int) -> dict[str, int]:
    """Where the file of a number is."""
    chunk, file = divmod(number, CHUNK)
    return {"chunk_index": chunk, "file_index": file}


def shoot(
    folder: Path,
    camera: Camera,
    lengths: Int[np.ndarray, " n"],
    limit: int,
    done: Callable[[int], object],
) -> Footage:
    """Writes the videos of a camera.

    Args:
        folder: The dataset.
        camera: Its name and its pictures.
        lengths: Frames of each motion.
        limit: Largest file, bytes, unless one episode is larger.
        done: Told the number of each motion that is written.

    Raises:
        DatasetError: Pictures that are not as many as frames, or not of one even size.
        OSError: A file cannot be written.
    """
    counts: list[Int[np.ndarray, "3 256"]] = []
    episodes: list[dict[str, Any]] = []
    each: list[dict[str, Any]] = []
    number, start, reel, size = -1, 0, None, None
    try:
        for i, length in enumerate(lengths.tolist()):
            # The next episode is taken to be as large as those before it, on average.
            if reel is None or reel.bytes * (1.0 + length / max(start, 1)) > limit:
                if reel is not None:
                    reel.close()
                number, start = number + 1, 0
                path = folder / VIDEO.format(video_key=camera.key, **place(number))
                reel = _Reel(path)
            histogram, taken = np.zeros((3, 256), np.int64), 0
            for picture in camera.draw(i):
                size = size or _checked_size(picture, camera.name)
                if picture.shape != size:
                    raise DatasetError(
                        f"camera {camera.name}, motion {i}: a picture of {picture.shape} after "
                        f"ones of {size}"
                    )
                reel.add(picture)
                histogram += [
                    np.bincount(c.ravel(), minlength=256) for c in picture.transpose(2, 0, 1)
                ]
                taken += 1
            if taken != length:
                raise DatasetError(
                    f"camera {camera.name}, motion {i}: {taken} pictures of {length} frames"
                )
            counts.append(histogram)
            episodes.append(
                {
                    **place(number),
                    "from_timestamp": start / FPS,
                    "to_timestamp": (start + length) / FPS,
                }
            )
            each.append(picture_statistics(histogram, length))
            start += length
            done(i)
    except av.error.FFmpegError as error:
        if isinstance(error, OSError):
            raise
        raise DatasetError(f"camera {camera.name}: H.264 encoding failed: {error}") from error
    finally:
        if reel is not None:
            reel.close()
    assert size is not None
    height, width, channels = size
    feature = {
        "dtype": "video",
        "shape": [height, width, channels],
        "names": ["height", "width", "channels"],
        "info": {
            "video.height": height,
            "video.width": width,
            "video.codec": "h264",
            "video.pix_fmt": "yuv420p",
            "video.is_depth_map": False,
            "video.fps": FPS,
            "video.channels": channels,
            "has_audio": False,
        },
    }
    whole = picture_statistics(np.sum(counts, axis=0), int(lengths.sum()))
    return Footage(feature, whole, tuple(episodes), tuple(each))


def _checked_size(picture: np.ndarray, name: str) -> tuple[int, int, int]:
    shape = picture.shape
    if len(shape) != 3 or shape[2] != 3 or shape[0] % 2 or shape[1] % 2:
        raise DatasetError(
            f"camera {name}: pictures of {shape}; H.264 needs (height, width, 3), both even"
        )
    return shape


def picture_statistics(histogram: Int[np.ndarray, "3 256"], count: int) -> dict[str, Any]:
    """Statistics of all pixels of a channel, values from 0 to 1, each as (3, 1, 1)."""
    value = np.arange(256) / 255.0
    share = histogram / histogram.sum(axis=1, keepdims=True)
    upto = np.cumsum(share, axis=1)
    mean = share @ value
    found = {
        "min": value[(histogram > 0).argmax(axis=1)],
        "max": value[255 - (histogram[:, ::-1] > 0).argmax(axis=1)],
        "mean": mean,
        "std": np.sqrt(np.maximum(share @ value**2 - mean**2, 0.0)),
    }
    for name, q in QUANTILES.items():  # the first value that so many do not exceed
        found[name] = value[(upto >= q - 1e-12).argmax(axis=1)]
    return {**{k: v.reshape(3, 1, 1).tolist() for k, v in found.items()}, "count": [count]}


class _Reel:
    """One mp4 file that pictures are added to."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._container = av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"})
        self._stream: Any = None
        self.bytes = 0
        """Written so far."""

    def add(self, picture: UInt8[np.ndarray, "h w 3"]) -> None:
        """Encodes the next picture."""
        if self._stream is None:
            self._stream = self._container.add_stream("libx264", rate=Fraction(FPS))
            self._stream.height, self._stream.width, _ = picture.shape
            self._stream.pix_fmt = "yuv420p"
            # One thread: the file does not depend on the machine.
            options = {"crf": _QUALITY, "g": str(_GOP), "bf": "0", "threads": "1"}
            self._stream.options = options
            context = self._stream.codec_context
            context.colorspace = context.color_primaries = context.color_trc = _BT709
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
        self._mux(self._stream.encode(frame.reformat(format="yuv420p", dst_colorspace="ITU709")))

    def close(self) -> None:
        """Ends the file."""
        if self._stream is not None:
            self._mux(self._stream.encode())
        self._container.close()

    def _mux(self, packets: Iterable[Any]) -> None:
        for packet in packets:
            self.bytes += packet.size
            self._container.mux(packet)
