"""Poses of an object over frames, shown and set by hand in a browser.

What a visitor does comes out of `events`, one thing at a time; whoever reads them answers with
`show`. The page is for one person.
"""

import dataclasses
import queue
from collections.abc import Iterator
from typing import Literal

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial.transform import Rotation

from realdex_jax.errors import ConfigError
from viewer import server as servers
from viewer import tableau

_DOT = 0.0015
"""Size of a point of the cloud, metres."""
_GIZMO = 0.08
"""Length of the handles, metres."""

What = Literal["frame", "accept", "propose", "done"]


@dataclasses.dataclass(frozen=True, eq=False)
class Event:
    """What a visitor wants."""

    what: What
    """frame: to see one. accept: its pose is right. propose: a proposal. done: to end."""
    frame: int
    wxyz_xyz_world_object: Float[np.ndarray, " 7"]
    """T_world_object as the gizmo has it."""


class PoseEditor:
    """A server with one page."""

    def __init__(
        self,
        title: str,
        vertices: Float[np.ndarray, "v 3"],
        faces: Int[np.ndarray, "f 3"],
        count: int,
        host: str = "127.0.0.1",
        port: int = 8080,
    ) -> None:
        """Starts to serve.

        Args:
            title: Of the page.
            vertices: Of the object, metres, object frame.
            faces: Triangles.
            count: How many frames there are.
            host: Address to listen at: one of this machine's own.
            port: Port, or 0 for a free one.

        Raises:
            ConfigError: Others could reach the host, or host or port cannot be had.
        """
        if host not in servers.LOCAL:
            raise ConfigError(
                f"host {host}: whoever opens the page changes poses; must be one of "
                f"{', '.join(sorted(servers.LOCAL))}"
            )
        self._events: queue.Queue[Event] = queue.Queue()
        self._quiet, self._flagged = False, np.zeros(0, np.int64)
        self._server = servers.start(host, port, title)
        scene, gui = self._server.scene, self._server.gui
        self._gizmo = scene.add_transform_controls("/object", scale=_GIZMO, depth_test=False)
        self._mesh = scene.add_mesh_simple(
            "/object/mesh",
            *tableau.creased(np.asarray(vertices), np.asarray(faces)),
            color=(217, 130, 43),
            opacity=0.55,
            side="double",
        )
        self._cloud = scene.add_point_cloud(
            "/cloud", np.zeros((1, 3), np.float32), (59, 111, 212), point_size=_DOT
        )
        self._frame = gui.add_slider("Frame", 0, max(count - 1, 1), 1, 0, disabled=count < 2)
        step = gui.add_button_group("Flagged", ("previous", "next"))
        self._move = gui.add_vector3("Move (mm)", (0.0, 0.0, 0.0), step=1.0)
        self._turn = gui.add_vector3("Turn (degrees)", (0.0, 0.0, 0.0), step=1.0)
        apply = gui.add_button("Apply")
        propose = gui.add_button("Propose")
        accept = gui.add_button("Accept", color="green")
        done = gui.add_button("Done")
        see = gui.add_checkbox("Object", True)
        self._words = gui.add_markdown("")
        self._frame.on_update(lambda _: self._tell("frame"))
        step.on_click(lambda event: self._go(1 if event.target.value == "next" else -1))
        apply.on_click(lambda _: self._apply())
        propose.on_click(lambda _: self._tell("propose"))
        accept.on_click(lambda _: self._tell("accept"))
        done.on_click(lambda _: self._tell("done"))
        see.on_update(lambda _: setattr(self._mesh, "visible", see.value))

    @property
    def address(self) -> str:
        """Where to point the browser."""
        return servers.address(self._server)

    @property
    def pose(self) -> Float[np.ndarray, " 7"]:
        """T_world_object as the gizmo has it."""
        return np.concatenate([self._gizmo.wxyz, self._gizmo.position]).astype(np.float64)

    def events(self) -> Iterator[Event]:
        """What the visitor wants, as it comes, until "done"; of frames slid over only the last."""
        while True:
            event = self._events.get()
            while event.what == "frame" and not self._events.empty():
                event = self._events.get()
            yield event
            if event.what == "done":
                return

    def show(
        self,
        frame: int,
        p_world: Float[np.ndarray, "n 3"],
        wxyz_xyz_world_object: Float[np.ndarray, " 7"],
        words: str,
        flagged: Int[np.ndarray, " k"],
    ) -> None:
        """Shows a frame.

        Args:
            frame: Its number.
            p_world: Its points, metres.
            wxyz_xyz_world_object: T_world_object, where the gizmo is put.
            words: Markdown beside it.
            flagged: Frames to be looked at, rising.
        """
        self._quiet, self._flagged = True, flagged
        self._frame.value = frame
        self._quiet = False
        pose = np.asarray(wxyz_xyz_world_object, np.float64)
        self._gizmo.wxyz, self._gizmo.position = pose[:4], pose[4:]
        self._cloud.points = np.asarray(p_world, np.float32)
        self._words.content = words
        self._server.flush()

    def tell(self, words: str) -> None:
        """Changes the words alone."""
        self._words.content = words
        self._server.flush()

    def look(self, p_world_target: Float[np.ndarray, " 3"], away: float = 0.6) -> None:
        """From where a page that is opened looks at first."""
        camera = self._server.initial_camera
        camera.position = tuple(p_world_target + away * np.array([0.75, -0.45, 0.5]))
        camera.look_at = tuple(p_world_target)

    def close(self) -> None:
        """Ends the server."""
        servers.stop(self._server)

    def _tell(self, what: What) -> None:
        if not self._quiet:
            self._events.put(Event(what, int(self._frame.value), self.pose))

    def _go(self, way: int) -> None:
        now = int(self._frame.value)
        beyond = (
            self._flagged[self._flagged > now] if way > 0 else self._flagged[self._flagged < now]
        )
        if len(beyond):
            self._frame.value = int(beyond[0] if way > 0 else beyond[-1])
            self._tell("frame")

    def _apply(self) -> None:
        """Moves the gizmo along the world's axes and turns it about them, by what the boxes say."""
        pose = self.pose
        turn = Rotation.from_rotvec(self._turn.value, degrees=True)
        turned = turn * Rotation.from_quat(pose[:4], scalar_first=True)
        self._gizmo.wxyz = turned.as_quat(scalar_first=True)
        self._gizmo.position = pose[4:] + 0.001 * np.array(self._move.value)
        self._server.flush()
