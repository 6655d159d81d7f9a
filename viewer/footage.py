"""The view of a recording: the cloud of each moment, pictures, cameras, and the tracked object."""

import concurrent.futures
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, UInt8
from scipy.spatial.transform import Rotation

from realdex_jax.errors import RealdexError
from viewer import props
from viewer.server import Server
from viewer.tableau import Thing, Viewpoint
from viewer.words import plain

_DOT = 0.002
_KEPT = 48
"""Moments that are kept in memory."""
_AWAY = 2.2
"""Metres to the side from which the middle is looked at first: behind the cameras."""
_RISE = 0.55
"""Height over the middle, times that."""


@dataclass(frozen=True, eq=False)
class Shot:
    """What was recorded of one moment."""

    p_world: Float[np.ndarray, "n 3"]
    """The merged cloud, metres."""
    colour: UInt8[np.ndarray, "n 3"]
    pictures: Mapping[int, UInt8[np.ndarray, "h w 3"]]
    """Of each camera, made small."""
    wxyz_xyz_world_object: Float[np.ndarray, " 7"] | None
    """Where the object was, if somebody followed it or it is known."""
    words: str


@dataclass(frozen=True, eq=False)
class Eye:
    """A camera."""

    wxyz_xyz_world_cam: Float[np.ndarray, " 7"]
    opening: float
    """Vertical, radians."""
    aspect: float
    """Width over height."""


@runtime_checkable
class Recorded(Protocol):
    """A recording, opened."""

    title: str
    count: int
    """Moments."""
    rate: float
    """Moments a second."""
    eyes: Mapping[int, Eye]
    thing: Thing | None
    """The object, if its mesh is known."""
    p_world_middle: Float[np.ndarray, " 3"]
    """What the cameras look at, metres."""

    def shot(self, k: int) -> Shot:
        """A moment; takes a while, and raises `RealdexError`."""
        ...


class Footage:
    """A `Panel` that shows a recording. Moments are made in a thread, when they are looked at."""

    title = "Recording"

    def __init__(self, recorded: Recorded) -> None:
        """Of an open recording."""
        self._recorded = recorded
        self._kept: OrderedDict[int, Shot] = OrderedDict()
        self._pool = concurrent.futures.ThreadPoolExecutor(1, "recording")
        self._loading: tuple[int, concurrent.futures.Future[Shot]] | None = None
        self._failed: dict[int, str] = {}
        self._drawn: tuple[object, ...] = ()
        self._playing, self._played = False, 0.0

    def open(self, server: Server) -> None:
        """As `Panel` says."""
        self._server, recorded = server, self._recorded
        scene, gui = server.scene, server.gui
        self._frame_node = scene.add_frame("/recording", show_axes=False)
        self._cloud = scene.add_point_cloud(
            "/recording/cloud",
            np.zeros((1, 3), np.float32),
            np.zeros((1, 3), np.uint8),
            point_size=_DOT,
            point_shape="circle",
            precision="float32",
        )
        self._eyes = scene.add_frame("/recording/cameras", show_axes=False)
        for number, eye in recorded.eyes.items():
            scene.add_camera_frustum(
                f"/recording/cameras/{number}",
                fov=eye.opening,
                aspect=eye.aspect,
                scale=0.06,
                thickness=0.002,
                color=(40, 90, 160),
                wxyz=eye.wxyz_xyz_world_cam[:4],
                position=eye.wxyz_xyz_world_cam[4:],
            )
        self._body: props.Body | None = None
        if recorded.thing is not None:
            self._body = props.Body(scene, "/recording/object")
            self._body.set(recorded.thing, cloud=False)
            self._body.show(False, False)
        last = max(recorded.count - 1, 1)
        self._frame = gui.add_slider("Moment", 0, last, 1, 0, disabled=recorded.count < 2)
        play = gui.add_button("Play", disabled=recorded.count < 2)
        self._picture = gui.add_image(np.full((9, 16, 3), 230, np.uint8))
        numbers = tuple(str(number) for number in recorded.eyes)
        self._camera = gui.add_dropdown("Camera", numbers)
        with gui.add_folder("Show"):
            self._shown = {
                "cloud": gui.add_checkbox("Points", True),
                "object": gui.add_checkbox("Tracked object", True, disabled=recorded.thing is None),
                "cameras": gui.add_checkbox("Cameras", True),
            }
        self._words = gui.add_markdown(f"**{plain(recorded.title)}**: opening")

        @play.on_click
        def _(_: object) -> None:
            self._playing = not self._playing
            play.label = "Pause" if self._playing else "Play"

    def show(self, visible: bool) -> None:
        """As `Panel` says."""
        self._frame_node.visible = visible

    def tick(self, now: float) -> None:
        """As `Panel` says: draws what is there, asks for what is not, and plays."""
        k = int(self._frame.value)
        if self._loading is not None and self._loading[1].done():
            number, made = self._loading
            self._loading = None
            try:
                self._kept[number] = made.result()
                while len(self._kept) > _KEPT:
                    self._kept.popitem(last=False)
            except (RealdexError, OSError) as error:
                self._failed[number] = str(error)
        if k in self._kept or k in self._failed:
            self._draw(k)
            self._play(k, now)
        elif self._loading is None:
            self._loading = k, self._pool.submit(self._recorded.shot, k)

    def viewpoint(self) -> Viewpoint:
        """As `Panel` says."""
        middle = self._recorded.p_world_middle
        side = _beside(
            np.stack([e.wxyz_xyz_world_cam[4:] for e in self._recorded.eyes.values()]) - middle
        )
        way = np.array([np.cos(side), np.sin(side), _RISE])
        return Viewpoint(middle + _AWAY * way, middle)

    def close(self) -> None:
        """As `Panel` says."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _play(self, k: int, now: float) -> None:
        if not self._playing or now - self._played < 1.0 / self._recorded.rate:
            return
        self._played = now
        self._frame.value = (k + 1) % self._recorded.count

    def _draw(self, k: int) -> None:
        wants = {name: box.value for name, box in self._shown.items()}
        wanted = (k, self._camera.value, *wants.values())
        if wanted == self._drawn:
            return
        self._drawn = wanted
        head = f"**moment {k} of {self._recorded.count}**"
        if k in self._failed:
            self._words.content = f"{head}: {plain(self._failed[k])}"
            return
        shot = self._kept[k]
        with self._server.atomic():
            self._cloud.points = shot.p_world.astype(np.float32)
            self._cloud.colors = shot.colour
        self._cloud.visible, self._eyes.visible = wants["cloud"], wants["cameras"]
        if self._body is not None:
            placed = shot.wxyz_xyz_world_object
            self._body.show(wants["object"] and placed is not None, False)
            if placed is not None:
                self._body.move(placed)
        picture = shot.pictures.get(int(self._camera.value))
        if picture is not None:
            self._picture.image = picture
        self._words.content = f"{head}: {len(shot.p_world)} points\n\n{plain(shot.words)}"
        self._server.flush()


def eye(wxyz_xyz_world_cam: Float[np.ndarray, " 7"], width: int, height: int, focal: float) -> Eye:
    """A camera by its place and its lens: pixels of its sides and of its focal length."""
    turn = Rotation.from_quat(wxyz_xyz_world_cam[:4], scalar_first=True).as_quat(scalar_first=True)
    pose = np.concatenate([turn, wxyz_xyz_world_cam[4:]])
    return Eye(pose, float(2.0 * np.arctan(0.5 * height / focal)), width / height)


def _beside(p_middle: Float[np.ndarray, "c 3"]) -> float:
    """The way (rad, about z) between the first camera and the next one, an eighth turn at most.

    From behind a camera its frustum would be before everything.
    """
    around = np.arctan2(p_middle[:, 1], p_middle[:, 0])
    gaps = (around[1:] - around[0]) % (2.0 * np.pi)
    return float(around[0] + min(0.5 * gaps.min(initial=np.pi), 0.25 * np.pi))
