"""Files of the Azure Kinect SDK's own recorder as cameras; `kinect` has pyk4a, which reads them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from capture import kinect
from capture.device import CaptureError, Frame, Optics, OverError, UnpluggedError
from capture.exposures import Counter


class MkvDevice:
    """An `.mkv` file of the SDK's recorder; a `capture.device.Device`."""

    def __init__(self, path: Path, camera: int) -> None:
        """Opens the file.

        Raises:
            CaptureError: pyk4a is not there, or the file is no such recording.
        """
        if not path.is_file():
            raise CaptureError(f"{path}: no such file")
        self._path, self._camera, self._k4a = path, camera, kinect.sdk()
        self._running = self._open = False
        try:
            self._playback = self._k4a.PyK4APlayback(path)
            self._playback.open()
            self._open = True
            settings = self._playback.configuration
            fps = {0: 5, 1: 15, 2: 30}[int(settings["camera_fps"])]
            # The SDK counts from 1; 0 is no colour at all.
            size = dict(enumerate(kinect.SIZES.values(), 1))[int(settings["color_resolution"])]
            self._optics = kinect.read_optics(
                self._k4a, self._playback.calibration, size, kinect.DEPTH_SIZE
            )
            self.wired = settings["wired_sync_mode"] != self._k4a.WiredSyncMode.STANDALONE
            """Whether its clock was set by the pulse of a sync cable."""
            self._first = self._next()
            offset_us = int(settings["start_timestamp_offset_usec"])
        except CaptureError:
            self.stop()
            raise
        except Exception as error:
            self.stop()
            raise CaptureError(
                f"{path}: cannot be replayed ({type(error).__name__} {error}); it must be a "
                "recording of the Azure Kinect SDK with colour and depth"
            ) from error
        first_us = int(self._first.depth_timestamp_usec) if self._first is not None else 0
        # Files begin at 0 and say what is to be added; some versions of the SDK add it themselves.
        self._shift_us = offset_us if first_us < offset_us else 0
        self.begin_us = self.first_us = first_us + self._shift_us
        """Stamp of its first frame, and of the pulse that counts as number 0: `films` makes that
        the same for all cameras of a rig. Microseconds."""
        self._fps, self._count = fps, Counter(fps)

    @property
    def camera(self) -> int:
        """Its number in the rig."""
        return self._camera

    @property
    def optics(self) -> Optics:
        """Its lenses."""
        return self._optics

    def start(self) -> None:
        """Begins at the first frame."""
        self._running, self._count = True, Counter(self._fps, self.begin_us)

    def read(self, timeout_s: float) -> Frame | None:
        """The next frame; captures without a picture are passed over.

        Its arrival is its stamp, from `begin_us` on, as the file does not say more.

        Raises:
            OverError: The file is over.
        """
        del timeout_s  # a file has no clock
        if not self._running:
            return None
        try:
            capture, self._first = self._first or self._next(), None
        except Exception as error:
            raise UnpluggedError(f"{self._path}: {type(error).__name__} {error}") from error
        if capture is None:
            raise OverError(f"{self._path} is over")
        stamp_us = int(capture.depth_timestamp_usec) + self._shift_us
        number = self._count.number(stamp_us)
        return kinect.to_frame(
            capture, self._camera, number, stamp_us, 1000 * (stamp_us - self.begin_us)
        )

    def stop(self) -> None:
        """Closes the file; may be called twice."""
        self._running = False
        if self._open:
            self._open = False
            self._playback.close()

    def _next(self) -> Any:
        """The next capture with both pictures; None at the end."""
        try:
            while True:
                capture = self._playback.get_next_capture()
                if capture.color is not None and capture.depth is not None:
                    return capture
        except EOFError:
            return None


def films(paths: Sequence[Path]) -> list[MkvDevice]:
    """The cameras of a rig that the SDK's recorder has recorded, a file each.

    Their clocks began with the pulse of the sync cable, so stamps say which frames belong together
    and what a camera missed before its first.

    Args:
        paths: The files; camera 0 first.

    Raises:
        CaptureError: As of `MkvDevice`; or one of several was not on the cable.
    """
    made: list[MkvDevice] = []
    try:
        for camera, path in enumerate(paths):
            made.append(MkvDevice(path, camera))
            if len(paths) > 1 and not made[-1].wired:
                raise CaptureError(
                    f"{path}: recorded without the sync cable, so its clock does not tell which "
                    "frames of the other files are of the same moment; replay it alone"
                )
    except CaptureError:
        for device in made:
            device.stop()
        raise
    begin_us = min((device.first_us for device in made), default=0)
    for device in made:
        device.begin_us = begin_us
    return made
