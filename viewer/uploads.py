"""The view of one's own meshes: a file goes in, tested grasps come out, progress is shown."""

import threading
from collections.abc import Callable, Sequence

from realdex_jax.errors import RealdexError
from realdex_jax.hand.load import HandModel
from viewer.gallery import Gallery
from viewer.server import Server, viser
from viewer.tableau import Collection, Exhibit, ViewError, Viewpoint
from viewer.words import plain

Tell = Callable[[str, float], None]
"""Told what is done now, and which share of all is done, 0 to 1."""
Make = Callable[[str, bytes, float, Tell], Exhibit]
"""Makes grasps for a file's name, content and factor to metres; raises `RealdexError`."""

UNITS = {"metres": 1.0, "centimetres": 0.01, "millimetres": 0.001, "inches": 0.0254}
"""Factors to metres."""
_KEPT = 8
"""Objects that are kept, the latest ones."""
_LONGEST_NAME = 60


class Uploads:
    """A `Panel` that makes grasps for meshes that visitors send; one at a time."""

    title = "Your mesh"

    def __init__(
        self,
        hand: HandModel,
        make: Make,
        suffixes: Sequence[str],
        largest: int = 64 * 2**20,
        first: tuple[str, bytes, float] | None = None,
    ) -> None:
        """Waits for a file.

        Args:
            hand: The hand.
            make: Makes the grasps, in a thread of its own.
            suffixes: Kinds of files that it takes.
            largest: Most bytes of a file.
            first: Name, content and factor to metres of one that is there already.
        """
        self._hand, self._make, self._first = hand, make, first
        self._suffixes, self._largest = tuple(suffixes), largest
        self._lock = threading.Lock()
        self._worker: threading.Thread | None = None
        self._done: dict[str, Exhibit] = {}
        self._gallery: Gallery | None = None
        self._visible = True

    def open(self, server: Server) -> None:
        """As `Panel` says."""
        self._server = server
        gui = server.gui
        kinds = " ".join(self._suffixes)
        gui.add_markdown(
            f"A closed mesh of a hand-sized thing, upright along z: {plain(kinds)}, at most "
            f"{self._largest / 2**20:.0f} MiB. It stays on this machine."
        )
        self._unit = gui.add_dropdown("Unit", tuple(UNITS), initial_value="metres")
        self._button = gui.add_upload_button(
            "Choose a mesh file", mime_type=",".join(self._suffixes), color="blue"
        )
        self._bar = gui.add_progress_bar(0.0, visible=False, animated=True)
        self._words = gui.add_markdown("")
        self._results = gui.add_folder("Grasps", visible=False)
        server.take_uploads(self._largest, self._refused)
        self._button.on_upload(self._came)
        if self._first is not None:
            self.begin(*self._first)

    def show(self, visible: bool) -> None:
        """As `Panel` says."""
        self._visible = visible
        if self._gallery is not None:
            self._gallery.show(visible)

    def tick(self, now: float) -> None:
        """As `Panel` says."""

    def viewpoint(self) -> Viewpoint | None:
        """As `Panel` says."""
        return None if self._gallery is None else self._gallery.viewpoint()

    def close(self) -> None:
        """As `Panel` says; what is being made is not waited for."""

    def begin(self, name: str, content: bytes, scale: float) -> None:
        """Begins to make grasps for a file.

        Args:
            name: Of the file; only its last part counts, and it is not opened.
            content: Of the file.
            scale: Factor to metres.

        Raises:
            ViewError: Another is being made, or it is of no kind that can be read.
        """
        name = name.replace("\\", "/").rpartition("/")[2][-_LONGEST_NAME:]
        suffix = "." + name.rpartition(".")[2].lower()
        if suffix not in self._suffixes:
            raise ViewError(f"{name!r} is none of {' '.join(self._suffixes)}")
        if len(content) > self._largest:
            raise ViewError(f"{name!r} has {len(content)} bytes; at most {self._largest}")
        with self._lock:
            if self._worker is not None and self._worker.is_alive():
                raise ViewError("grasps are being made for another mesh; wait for these")
            self._worker = threading.Thread(
                target=self._work, args=(name, content, scale), name="grasps", daemon=True
            )
            self._worker.start()

    def _came(self, event: viser.GuiEvent) -> None:
        sent = event.target.value
        try:
            self.begin(sent.name, sent.content, UNITS[self._unit.value])
        except RealdexError as error:
            self._refused(str(error))

    def _refused(self, why: str) -> None:
        self._words.content = f"**{plain(why)}**"
        self._server.flush()

    def _tell(self, what: str, share: float) -> None:
        self._bar.value, self._words.content = 100.0 * min(max(share, 0.0), 1.0), plain(what)
        self._server.flush()

    def _work(self, name: str, content: bytes, scale: float) -> None:
        self._bar.visible = self._button.disabled = True
        try:
            exhibit = self._make(name, content, scale, self._tell)
            self._words.content = ""
            self._add(exhibit)
        except RealdexError as error:
            self._refused(str(error))
        except Exception as error:  # of a mesh that nobody has checked: the app goes on
            self._refused(f"{type(error).__name__}: {error}")
        finally:
            self._bar.visible = self._button.disabled = False
            self._server.flush()

    def _add(self, exhibit: Exhibit) -> None:
        name, number = exhibit.thing.name, 1
        while name in self._done:
            number += 1
            name = f"{exhibit.thing.name} ({number})"
        kept = list(self._done.items())[-_KEPT + 1 :]
        self._done = {**dict(kept), name: exhibit}
        collection = Collection("your meshes", tuple(self._done), self._done.__getitem__)
        if self._gallery is None:
            gallery = Gallery(self._hand, collection, name, title="Your grasps")
            with self._results:
                gallery.open(self._server)
            gallery.show(self._visible)
            self._gallery, self._results.visible = gallery, True
        else:
            self._gallery.renew(collection, name)
        seen = self._gallery.viewpoint()
        if self._visible:
            self._server.look_all(seen)
