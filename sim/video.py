"""Clips of motions: pictures of a hand and an object over a table, as mp4 files, strips and HTML.

The camera of a clip stands still and sees all of the hand's and the object's way.
"""

import base64
import html
import math
import os
import tempfile
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from realdex_jax.data.motion import RATE, Motion
from realdex_jax.geometry.shape import ObjectShape
from realdex_jax.hand.load import HandModel
from sim import render
from sim.render import Camera, RenderError
from sim.stage import Stage, load_stage

_HEIGHTS = (0.2, 0.5)
"""Sines of the camera's lowest and highest elevation: the table is seen from above."""
_LOOKS = 12
"""Frames that the camera is chosen by."""
_P_PALM_WRIST = np.array([0.0, 0.0, -0.07])
"""The part of the forearm that the picture must contain, metres."""
_BT709 = 1
"""FFmpeg's number of these colours, which players also assume where none are given."""
_QUALITY = "22"
"""x264's constant rate factor; less is better and larger."""


def draw(
    hand: HandModel,
    shape: ObjectShape,
    motion: Motion,
    size: tuple[int, int] = (320, 240),
    every: int = 1,
    camera: Camera | None = None,
    smooth: bool = False,
) -> list[UInt8[np.ndarray, "h w 3"]]:
    """Pictures of a motion over the table, which is the plane z = 0 of the world.

    Args:
        hand: The hand.
        shape: The object.
        motion: Hand and object in the world.
        size: Width and height, pixels; both even for `write_mp4`.
        every: One picture for so many frames, from the first on.
        camera: Where to look from, in the world; by default `choose_camera`.
        smooth: Sample edges finely, at about twice the time.

    Raises:
        RenderError: No frame, a pose that is not finite, or a size or `every` not positive.
    """
    if min(size) < 1 or every < 1:
        raise RenderError(f"picture size {size}, every {every}; they must be positive")
    phi, placed = _checked(motion)
    camera = camera or choose_camera(hand, shape, motion, size[0] / size[1])
    stage, p_world_table = load_stage(hand, shape), _table(placed)
    pictures = []
    for frame in range(0, len(phi), every):
        stage.place(phi[frame], placed[frame], p_world_table)
        pictures.append(render.take(stage, camera, size, smooth))
    return pictures


def choose_camera(
    hand: HandModel, shape: ObjectShape, motion: Motion, aspect: float = 4 / 3
) -> Camera:
    """A camera for all of a motion: the view in which most is seen of the firmest grasp on the way.

    Args:
        hand: The hand.
        shape: The object.
        motion: Hand and object in the world.
        aspect: Width of the picture over its height.

    Raises:
        RenderError: No frame, or a pose that is not finite.
    """
    phi, placed = _checked(motion)
    stage, p_world_table = load_stage(hand, shape), _table(placed)
    points, most, firmest = [], -1, 0
    for frame in _spread(len(phi), _LOOKS):
        stage.place(phi[frame], placed[frame], p_world_table)
        points += [stage.outline(), _wrist(stage)]
        touched = len(stage.contacts()[0])
        if touched >= most:
            most, firmest = touched, frame
    stage.place(phi[firmest], placed[firmest], p_world_table)
    return render.best_camera(stage, aspect, np.concatenate(points), _HEIGHTS, stage.R[0, :, 2])


def strip(
    pictures: Sequence[UInt8[np.ndarray, "h w 3"]], count: int = 8, columns: int = 8
) -> UInt8[np.ndarray, "hh ww 3"]:
    """Evenly spaced pictures of a clip, the first and the last among them, side by side.

    Args:
        pictures: The clip.
        count: Number of pictures, or all where there are fewer.
        columns: Pictures a row.

    Raises:
        RenderError: No picture or no column, or pictures of different sizes.
    """
    chosen = [pictures[i] for i in _spread(len(pictures), count)]
    return render.contact_sheet(chosen, columns)


def write_mp4(
    path: str | Path, pictures: Sequence[UInt8[np.ndarray, "h w 3"]], rate: float = RATE
) -> Path:
    """Writes a clip as H.264 in mp4, which every browser plays: the whole file or nothing.

    Args:
        path: The file; its folder is made where it is missing.
        pictures: All of one size, width and height even.
        rate: Pictures a second.

    Raises:
        RenderError: No picture, different or odd sizes, a rate that is not positive, the package
            `av` is missing, or the file cannot be written; an old one then stays as it was.
    """
    path = Path(path)
    sizes = {picture.shape for picture in pictures}
    if len(sizes) != 1:
        raise RenderError(f"{len(pictures)} pictures of sizes {sorted(sizes)}; a clip has one size")
    height, width, _ = sizes.pop()
    if height % 2 or width % 2:
        raise RenderError(f"pictures of {width} x {height}; H.264 needs even width and height")
    if not (math.isfinite(rate) and rate > 0.0):
        raise RenderError(f"rate {rate}; it must be positive")
    name = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".mp4")
        os.close(handle)
        _encode(name, pictures, Fraction(rate).limit_denominator(1001))
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except OSError as error:
        reason = error.strerror or error
        raise RenderError(f"cannot write {path}: {reason}; nothing was changed") from error
    finally:
        if name is not None:
            Path(name).unlink(missing_ok=True)
    return path


def as_html(video: str | Path | bytes, label: str = "") -> str:
    """A `video` element that carries an mp4 within it, for reports of one file.

    Args:
        video: The file, or what is in it.
        label: What it shows, for screen readers and as a tooltip.

    Raises:
        RenderError: The file cannot be read.
    """
    if not isinstance(video, bytes):
        try:
            video = Path(video).read_bytes()
        except OSError as error:
            raise RenderError(f"cannot read {video}: {error.strerror}") from error
    text = html.escape(label)
    named = f' aria-label="{text}" title="{text}"' if label else ""
    return (
        f"<video controls loop muted playsinline{named} "
        'style="display:block;width:100%;height:auto" '
        f'src="data:video/mp4;base64,{base64.b64encode(video).decode()}"></video>'
    )


def _checked(motion: Motion) -> tuple[np.ndarray, np.ndarray]:
    """Hand (t 28) and object (t 7) poses."""
    phi = np.asarray(motion.phi, np.float64)
    placed = np.asarray(motion.wxyz_xyz_world_object, np.float64)
    if not len(phi):
        raise RenderError("a motion without frames; nothing to draw")
    for name, poses in (("hand", phi), ("object", placed)):
        bad = np.flatnonzero(~np.isfinite(poses).all(axis=1))
        if len(bad):
            raise RenderError(
                f"{name} pose of frame {bad[0]} has NaN or infinite values ({len(bad)} such)"
            )
    return phi, placed


def _table(placed: np.ndarray) -> np.ndarray:
    """Where the table's middle is: below the object's first place."""
    return np.array([*placed[0, 4:6], 0.0])


def _wrist(stage: Stage) -> np.ndarray:
    return stage.p[:1] + _P_PALM_WRIST @ stage.R[0].T


def _spread(total: int, count: int) -> list[int]:
    """At most `count` evenly spaced indices, the first and the last among them."""
    return [round(x) for x in np.linspace(0, total - 1, max(min(count, total), 0))]


def _encode(name: str, pictures: Sequence[np.ndarray], rate: Fraction) -> None:
    try:
        import av
        import av.error
    except ImportError as error:
        raise RenderError("mp4 files need the package av; install it: pip install av") from error
    height, width, _ = pictures[0].shape
    # One thread: the file does not depend on the machine. The index first: plays while it loads.
    try:
        with av.open(name, "w", format="mp4", options={"movflags": "+faststart"}) as container:
            stream = container.add_stream("libx264", rate=rate)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            stream.options = {"crf": _QUALITY, "preset": "slow", "threads": "1"}
            context = stream.codec_context
            context.colorspace = context.color_primaries = context.color_trc = _BT709
            for picture in pictures:
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
                frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709")
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
    except av.error.FFmpegError as error:
        if isinstance(error, OSError):
            raise
        raise RenderError(f"H.264 encoding failed: {error}") from error
