"""Hands and objects in a browser: browse grasps, play motions. The only place that knows viser."""

import contextlib
import io
import socket
import threading
import time
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from realdex_jax.data.motion import Motion
from realdex_jax.errors import ConfigError, RealdexError
from realdex_jax.evaluation import results
from realdex_jax.hand.load import HandModel
from sim import stage, tableau
from sim.tableau import Collection, Exhibit, Moment, Thing, ViewError, Viewpoint

try:
    import viser
except ModuleNotFoundError as error:
    raise ViewError("the viewer needs viser: pip install 'realdex_jax[view]'") from error

LOCAL = frozenset({"127.0.0.1", "localhost", "::1"})
"""Hosts that nobody else can reach."""
FIELD_OF_VIEW = np.deg2rad(32.0)
"""Vertical opening of the camera at first, radians; as in `sim.render`."""
SPEEDS = (0.1, 4.0)
"""Slowest and fastest playing, times the recording's."""
SUFFIXES = (".html", ".viser")
"""Kinds of files that `save` writes."""
_TICK = 1.0 / 30.0
_DOT = 0.0025
"""Size of a point of the cloud, metres."""
_LOOKS = 5
"""Frames of a motion that the camera is placed by."""
_PAUSE = 1.0
"""Seconds that the last frame stays."""
_GROUND = 0.8
"""Width of the ground, metres."""


class _Props:
    """The nodes of a scene, and where they are."""

    def __init__(self, scene: viser.SceneApi, hand: HandModel, forearm: bool) -> None:
        self._scene = scene
        self._links: list[tuple[viser.MeshHandle, int]] = []
        scene.set_up_direction("+z")
        scene.configure_default_lights(cast_shadow=True)
        self.hand = scene.add_frame("/hand", show_axes=False)
        for solid in tableau.hand_solids(hand, forearm):
            node = scene.add_mesh_simple(
                f"/hand/{solid.name}",
                *tableau.creased(solid.vertices, solid.faces),
                color=_rgb(solid.colour),
                cast_shadow=solid.name != "forearm",
            )
            self._links.append((node, solid.link))
        self.ground = scene.add_grid(
            "/ground",
            width=_GROUND,
            height=_GROUND,
            cell_size=0.05,
            section_size=0.1,
            cell_color=(205, 205, 202),
            section_color=(180, 180, 177),
            plane_color=_rgb(tableau.to_bytes(np.array(stage.COLOURS["table"]))),
            plane_opacity=0.6,
            shadow_opacity=0.3,
        )
        self._object = scene.add_frame("/object", show_axes=False)
        self._mesh: viser.MeshHandle | None = None
        self._cloud: viser.PointCloudHandle | None = None
        self._plain = tableau.plain_colours(0)

    def set_object(self, thing: Thing, p_world_ground: Float[np.ndarray, " 3"]) -> None:
        """Shows another object over a ground."""
        for node in (self._mesh, self._cloud):
            if node is not None:
                node.remove()
        self._mesh = None
        if len(thing.faces):
            self._mesh = self._scene.add_mesh_simple(
                "/object/mesh",
                *tableau.creased(thing.vertices, thing.faces),
                color=_rgb(tableau.to_bytes(np.array(stage.COLOURS["object"]))),
                side="double",
            )
        self._plain = tableau.plain_colours(len(thing.points))
        self._cloud = self._scene.add_point_cloud(
            "/object/cloud",
            # Half a dot above the surface, which would cut through it.
            (thing.points + 0.5 * _DOT * thing.normals).astype(np.float32),
            self._plain,
            point_size=_DOT,
            point_shape="circle",
            precision="float32",
        )
        self.ground.position = tuple(p_world_ground)

    def move(self, moment: Moment, contact_map: bool) -> None:
        """Moves hand and object, and colours the cloud."""
        for node, link in self._links:
            pose = moment.wxyz_xyz_world_link[link]
            node.wxyz, node.position = pose[:4], pose[4:]
        placed = moment.wxyz_xyz_world_object
        self._object.wxyz, self._object.position = placed[:4], placed[4:]
        if self._cloud is not None:
            coloured = tableau.contact_colours(moment.contact) if contact_map else self._plain
            self._cloud.colors = coloured

    def show(self, hand: bool, mesh: bool, cloud: bool, ground: bool) -> None:
        """Shows and hides."""
        self.hand.visible, self.ground.visible = hand, ground
        if self._mesh is not None:
            self._mesh.visible = mesh
        if self._cloud is not None:
            self._cloud.visible = cloud


class _Quiet(viser.ViserServer):
    """A server that nobody who is connected to it can make public."""

    def request_share_url(self, verbose: bool = True) -> str | None:
        """Viser's tunnel through a machine of others; never."""
        del verbose
        return None


class Viewer:
    """A server with one scene, which all its visitors share."""

    def __init__(
        self,
        hand: HandModel,
        collection: Collection,
        host: str = "127.0.0.1",
        port: int = 8080,
        first: str | None = None,
    ) -> None:
        """Opens the first exhibit and starts to serve.

        Args:
            hand: The hand of all grasps and motions.
            collection: What can be seen.
            host: Address to listen at.
            port: Port, or 0 for a free one.
            first: Name of the object to begin with.

        Raises:
            ConfigError: Host or port cannot be had.
            ViewError: No object of this name, or nothing in the collection.
            RealdexError: The exhibit cannot be read.
        """
        self._hand, self._collection = hand, collection
        self._exhibit, name = tableau.open_exhibit(collection, first)
        self._lock = threading.RLock()
        self._drawn: tuple[object, ...] = ()
        self._order = np.zeros(0, np.int64)
        self._played: float | None = None
        self._server = start(host, port, collection.title)
        try:
            self._props = _Props(self._server.scene, hand, collection.moving)
            self._build(name)
            self._enter()
            _look(self._server.initial_camera, self.viewpoint())
        except BaseException:
            self.close()
            raise

    @property
    def address(self) -> str:
        """Where to point the browser."""
        return address(self._server)

    def close(self) -> None:
        """Ends the server."""
        stop(self._server)

    def run(self) -> None:
        """Plays what is to be played, until it is interrupted."""
        while True:
            time.sleep(_TICK)
            self.tick(time.monotonic())

    def tick(self, now: float) -> None:
        """Lets a motion that plays go on to a time, in seconds of a clock that never goes back."""
        with self._lock:
            if not self._collection.moving or not self._playing:
                self._played = None
                return
            if self._played is None:
                self._played = now
            frame = int(self._frame.value)
            later = self._frame_after(frame, (now - self._played) * self._speed.value)
            if later == frame:
                return
            self._played = now
            self._frame.value = later
        self._draw()

    def viewpoint(self) -> Viewpoint:
        """From where all of what is chosen is seen."""
        with self._lock:
            frames = [self._moment(k) for k in self._key_frames()]
        return tableau.viewpoint(self._exhibit.thing, frames, FIELD_OF_VIEW)

    def _build(self, name: str) -> None:
        """Makes the panel."""
        gui, moving = self._server.gui, self._collection.moving
        gui.configure_theme(show_logo=False, show_share_button=False)
        gui.main_panel.dock_right()  # beside the picture, not over it
        self._name = gui.add_dropdown("Object", self._collection.names, initial_value=name)
        self._index = gui.add_slider("Motion" if moving else "Grasp", 1, 2, 1, 1)
        step = gui.add_button_group("Go to", ("previous", "next"))
        orders = tableau.sortings(self._exhibit.grasps)
        self._sort = gui.add_dropdown("Sort by", orders, visible=not moving)
        self._descending = gui.add_checkbox("Highest first", False, visible=not moving)
        self._playing = False
        if moving:
            with gui.add_folder("Motion"):
                self._frame = gui.add_slider("Frame", 0, 1, 1, 0)
                play = gui.add_button("Play")
                self._speed = gui.add_slider("Speed", *SPEEDS, 0.1, 1.0)

            @play.on_click
            def _(_: object) -> None:
                with self._lock:
                    self._playing = not self._playing
                    play.label = "Pause" if self._playing else "Play"

            self._frame.on_update(lambda _: self._draw())
        with gui.add_folder("Show"):
            self._shown = {
                "hand": gui.add_checkbox("Hand", True),
                "mesh": gui.add_checkbox("Object", True),
                "cloud": gui.add_checkbox("Cloud", True),
                "ground": gui.add_checkbox("Ground", moving),
            }
            self._map = gui.add_checkbox("Contact map", True, hint="colours the cloud")
            self._posture = gui.add_dropdown("Posture", tableau.POSTURES, visible=not moving)
        centre = gui.add_button("Centre the view")
        self._words = gui.add_markdown("")

        def go(event: viser.GuiEvent) -> None:
            by = 1 if event.target.value == "next" else -1
            with self._lock:
                last = int(self._index.max)
                self._index.value = (int(self._index.value) - 1 + by) % last + 1
            self._draw()

        def look(event: viser.GuiEvent) -> None:
            if event.client is not None:
                _look(event.client.camera, self.viewpoint())

        step.on_click(go)
        centre.on_click(look)
        self._name.on_update(lambda _: self._change())
        for order in (self._sort, self._descending):
            order.on_update(lambda event: self._reorder(event.target is self._sort))
        for handle in (self._index, self._map, self._posture, *self._shown.values()):
            handle.on_update(lambda _: self._draw())

    def _change(self) -> None:
        """Opens the exhibit whose object was chosen."""
        with self._lock:
            try:
                self._exhibit = tableau.open_exhibit(self._collection, self._name.value)[0]
            except RealdexError as error:  # the old one stays
                self._words.content = f"**{self._name.value}**: {error}"
                return
            self._enter()

    def _enter(self) -> None:
        """Shows the first grasp or motion of an exhibit."""
        with self._lock:
            self._props.set_object(self._exhibit.thing, _ground(self._exhibit))
            self._index.max = max(len(self._exhibit), 1)
            self._index.disabled = len(self._exhibit) < 2
            self._sort.options = tableau.sortings(self._exhibit.grasps)
            self._drawn = ()
            self._reorder(False)

    def _reorder(self, fresh: bool) -> None:
        """Sorts, and shows the first; `fresh` begins a new column at its better end."""
        with self._lock:
            if fresh:
                self._descending.value = tableau.more_is_better(self._sort.value)
            count = len(self._exhibit)
            self._order = np.arange(count)
            if self._exhibit.grasps is not None:
                self._order = tableau.ranked(
                    self._exhibit.grasps, self._sort.value, self._descending.value
                )
            self._index.value = 1
            self._draw()

    def _draw(self) -> None:
        """Shows what the panel says, if it is not shown yet."""
        with self._lock:
            chosen = self._chosen()
            shown = {name: box.value for name, box in self._shown.items()}
            frame = self._fit_frames()
            wanted = (chosen, frame, self._posture.value, self._map.value, *shown.values())
            if wanted == self._drawn:
                return
            moment = self._moment(frame)
            self._props.move(moment, self._map.value)
            self._props.show(**shown)
            self._words.content = self._caption(chosen, frame, moment)
            self._drawn = wanted
        self._server.flush()

    def _motion(self) -> Motion | None:
        motions = self._exhibit.motions
        return None if motions is None else motions[self._chosen()]

    def _frame_after(self, frame: int, seconds: float) -> int:
        """The frame that is shown so long after another; after the last comes the first."""
        motion = self._motion()
        assert motion is not None
        time_ = np.asarray(motion.time, np.float64)
        if frame >= len(time_) - 1:
            return 0 if seconds >= _PAUSE else frame
        return int(np.searchsorted(time_, time_[frame] + seconds + 1e-6, side="right")) - 1

    def _chosen(self) -> int:
        """Index of the grasp or motion in its file."""
        return int(self._order[min(int(self._index.value), len(self._order)) - 1])

    def _fit_frames(self) -> int:
        """The frame to show, after the slider has been fitted to the motion."""
        motion = self._motion()
        if motion is None:
            return 0
        last = len(motion) - 1
        if self._frame.max != last:
            self._frame.max = last
            self._frame.value = min(int(self._frame.value), last)
        return int(self._frame.value)

    def _key_frames(self) -> list[int]:
        motion = self._motion()
        last = 0 if motion is None else len(motion) - 1
        return sorted({round(k) for k in np.linspace(0, last, _LOOKS)})

    def _moment(self, frame: int) -> Moment:
        return moment_of(self._hand, self._exhibit, self._chosen(), frame, self._posture.value)

    def _caption(self, chosen: int, frame: int, moment: Moment) -> str:
        motion = self._motion()
        if motion is not None:
            since = float(motion.time[frame] - motion.time[0])
            first = f"**motion {chosen}**: frame {frame} of {len(motion)}, {since:.2f} s"
        else:
            assert self._exhibit.grasps is not None
            first = tableau.caption(self._exhibit.grasps, chosen)
        return f"{first}\n\n{tableau.touched(moment)}"


def moment_of(
    hand: HandModel,
    exhibit: Exhibit,
    index: int,
    frame: int = 0,
    posture: tableau.Posture = "grasp",
) -> Moment:
    """One grasp in a posture, or one frame of a motion."""
    if exhibit.motions is not None:
        motion = exhibit.motions[index]
        phi, placed = np.asarray(motion.phi), np.asarray(motion.wxyz_xyz_world_object)
        return tableau.moment(hand, exhibit.thing, phi[frame], placed[frame])
    assert exhibit.grasps is not None
    return tableau.moment(hand, exhibit.thing, tableau.pose_of(exhibit.grasps, index, posture))


def save(
    path: Path, hand: HandModel, exhibit: Exhibit, index: int = 0, contact_map: bool = True
) -> Path:
    """Writes one grasp, or one motion that plays, as a file of its own; whole or not at all.

    Args:
        path: `.html`, a page that needs nothing else, or `.viser`, for pages of one's own.
        hand: The hand.
        exhibit: Where the grasp or motion is from.
        index: Which one.
        contact_map: Whether the cloud is coloured by it.

    Raises:
        ConfigError: Another suffix, or the file cannot be written.
        ViewError: No grasp or motion of this index.
    """
    if path.suffix not in SUFFIXES:
        raise ConfigError(f"--save {path}: a scene is written as {' or '.join(SUFFIXES)}")
    count = len(exhibit)
    if not 0 <= index < count:
        raise ViewError(f"no number {index} for {exhibit.thing.name}; there are {count}, from 0")
    server = start("127.0.0.1", 0, exhibit.thing.name)
    try:
        props = _Props(server.scene, hand, exhibit.motions is not None)
        motion = exhibit.motions[index] if exhibit.motions is not None else None
        seconds = [0.0] if motion is None else [float(t) for t in motion.time]
        moments = [moment_of(hand, exhibit, index, frame) for frame in range(len(seconds))]
        props.set_object(exhibit.thing, _ground(exhibit))
        props.show(hand=True, mesh=True, cloud=True, ground=motion is not None)
        props.move(moments[0], contact_map)
        seen = tableau.viewpoint(exhibit.thing, moments, FIELD_OF_VIEW)
        _look(server.initial_camera, seen)
        recorder = server.get_scene_serializer()
        for moment, passed in zip(moments[1:], np.diff(seconds), strict=True):
            recorder.insert_sleep(float(passed))
            props.move(moment, contact_map)
        if motion is not None:
            recorder.insert_sleep(_PAUSE)
            props.move(moments[0], contact_map)  # the player begins again without going back
            recorder.insert_sleep(_TICK)
        written = recorder.as_html().encode() if path.suffix == ".html" else recorder.serialize()
    finally:
        stop(server)
    try:
        results.write_whole(path, written)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from error
    return path


def _ground(exhibit: Exhibit) -> Float[np.ndarray, " 3"]:
    """Middle of the ground: the table of motions, else below the object."""
    if exhibit.motions is None:
        return np.array([0.0, 0.0, tableau.lowest(exhibit.thing)])
    x, y = np.asarray(exhibit.motions[0].wxyz_xyz_world_object)[0, 4:6]
    return np.array([x, y, 0.0])


def start(host: str, port: int, label: str) -> _Quiet:
    """A server at this very port; viser by itself would go on to the next ones, or for ever.

    Args:
        host: Address to listen at.
        port: Port, or 0 for a free one.
        label: Title of the page.

    Raises:
        ConfigError: Host or port cannot be had.
    """
    if not 0 <= port <= 65535:
        raise ConfigError(f"port {port}; ports are 0 (a free one) to 65535")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.create_server((host, port), family=family):
            pass
    except OSError as error:
        raise ConfigError(f"cannot listen at {host}, port {port}: {error.strerror}") from error
    with contextlib.redirect_stdout(io.StringIO()):  # it prints a box of addresses
        return _Quiet(host=host, port=port, label=label, verbose=False)


def address(server: viser.ViserServer) -> str:
    """Where to point the browser."""
    host = server.get_host()
    return f"http://{f'[{host}]' if ':' in host else host}:{server.get_port()}"


def stop(server: viser.ViserServer) -> None:
    """Ends a server."""
    with contextlib.redirect_stdout(io.StringIO()):
        server.stop()


def _look(camera: viser.CameraHandle | viser.InitialCameraConfig, seen: Viewpoint) -> None:
    camera.fov = float(FIELD_OF_VIEW)
    camera.position = seen.p_world
    camera.look_at = seen.p_world_target


def _rgb(colour: UInt8[np.ndarray, " 3"]) -> tuple[int, int, int]:
    r, g, b = (int(c) for c in colour)
    return r, g, b
