"""The view of grasps and motions: browse, sort, scrub, play; contact maps, scores, explanations."""

import threading

import numpy as np

from realdex_jax.data.motion import Motion
from realdex_jax.errors import RealdexError
from realdex_jax.hand.load import HandModel
from viewer import captions, export, tableau
from viewer.props import Props
from viewer.server import FIELD_OF_VIEW, Server, viser
from viewer.tableau import Collection, Moment, Viewpoint
from viewer.words import plain

SPEEDS = (0.1, 4.0)
"""Slowest and fastest playing, times the recording's."""
PAUSE = 1.0
"""Seconds that the last frame stays."""
_LOOKS = 5
"""Frames of a motion that the camera is placed by."""


class Gallery:
    """A `Panel` that shows a collection."""

    def __init__(
        self,
        hand: HandModel,
        collection: Collection,
        first: str | None = None,
        title: str | None = None,
    ) -> None:
        """Opens the first exhibit.

        Args:
            hand: The hand of all grasps and motions.
            collection: What can be seen.
            first: Name of the object to begin with.
            title: Of the view; by its kind if None.

        Raises:
            ViewError: No object of this name, or nothing in the collection.
            RealdexError: The exhibit cannot be read.
        """
        self.title = title or ("Motions" if collection.moving else "Grasps")
        self._hand, self._collection = hand, collection
        self._exhibit, self._first = tableau.open_exhibit(collection, first)
        self._lock = threading.RLock()
        self._drawn: tuple[object, ...] = ()
        self._order = np.zeros(0, np.int64)
        self._played: float | None = None

    def open(self, server: Server) -> None:
        """As `Panel` says."""
        self._server = server
        root = "/" + "".join(c for c in self.title.lower() if c.isalnum())
        self._props = Props(server.scene, root, self._hand, self._collection.moving)
        self._build(self._first)
        self._enter()

    def show(self, visible: bool) -> None:
        """As `Panel` says."""
        self._props.show_all(visible)

    def close(self) -> None:
        """As `Panel` says."""

    def renew(self, collection: Collection, name: str) -> None:
        """Shows another collection of the same kind, from one of its objects on.

        Raises:
            RealdexError: The exhibit cannot be read; the old one stays.
        """
        with self._lock:
            exhibit, _ = tableau.open_exhibit(collection, name)
            self._collection, self._exhibit = collection, exhibit
            self._name.options = collection.names
            self._name.value = name
            self._enter()

    def tick(self, now: float) -> None:
        """As `Panel` says: a motion that plays goes on."""
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
        """As `Panel` says, for what is chosen."""
        with self._lock:
            frames = [self._moment(k) for k in self._key_frames()]
        return tableau.viewpoint(self._exhibit.thing, frames, FIELD_OF_VIEW)

    def _build(self, name: str) -> None:
        """Makes the panel."""
        gui, moving = self._server.gui, self._collection.moving
        self._name = gui.add_dropdown("Object", self._collection.names, initial_value=name)
        self._index = gui.add_slider("Motion" if moving else "Grasp", 1, 2, 1, 1)
        step = gui.add_button_group("Go to", ("previous", "next"))
        orders = captions.sortings(self._exhibit.grasps)
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
        self._words = gui.add_markdown("")
        keep = gui.add_button("Save as a page", hint="one file that needs no server")

        def go(event: viser.GuiEvent) -> None:
            by = 1 if event.target.value == "next" else -1
            with self._lock:
                last = int(self._index.max)
                self._index.value = (int(self._index.value) - 1 + by) % last + 1
            self._draw()

        step.on_click(go)
        keep.on_click(lambda event: self._keep(event.client))
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
                self._words.content = f"**{plain(self._name.value)}**: {plain(str(error))}"
                return
            self._enter()

    def _enter(self) -> None:
        """Shows the first grasp or motion of an exhibit."""
        with self._lock:
            self._props.set_object(self._exhibit.thing, export.ground_of(self._exhibit))
            self._index.max = max(len(self._exhibit), 1)
            self._index.disabled = len(self._exhibit) < 2
            self._sort.options = captions.sortings(self._exhibit.grasps)
            self._drawn = ()
            self._reorder(False)

    def _reorder(self, fresh: bool) -> None:
        """Sorts, and shows the first; `fresh` begins a new column at its better end."""
        with self._lock:
            if fresh:
                self._descending.value = captions.more_is_better(self._sort.value)
            count = len(self._exhibit)
            self._order = np.arange(count)
            if self._exhibit.grasps is not None:
                self._order = captions.ranked(
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
            return 0 if seconds >= PAUSE else frame
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
        return export.moment_of(
            self._hand, self._exhibit, self._chosen(), frame, self._posture.value
        )

    def _caption(self, chosen: int, frame: int, moment: Moment) -> str:
        motion = self._motion()
        if motion is not None:
            since = float(motion.time[frame] - motion.time[0])
            first = f"**motion {chosen}**: frame {frame} of {len(motion)}, {since:.2f} s"
        else:
            assert self._exhibit.grasps is not None
            first = captions.caption(self._exhibit.grasps, chosen)
        said = f"\n\n{self._exhibit.notes[chosen]}" if self._exhibit.notes else ""
        return f"{first}{said}\n\n{captions.touched(moment)}"

    def _keep(self, client: viser.ClientHandle | None) -> None:
        """Sends the visitor a page of what is chosen."""
        if client is None:
            return
        with self._lock:
            exhibit, chosen = self._exhibit, self._chosen()
        page = export.page(self._hand, exhibit, [chosen], self._map.value)
        client.send_file_download(f"{export.file_stem(exhibit.thing.name)}-{chosen}.html", page)
