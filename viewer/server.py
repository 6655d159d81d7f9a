"""viser's server behind the guard, with a limit on what is sent. Only this file imports viser.

viser lets in whoever reaches its port, tries other ports when one is taken, keeps uploads of any
size in memory, and can make itself public. None of that is so here. Where one of its private parts
is touched, it is touched in this file.
"""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import numpy as np
import rich

from realdex_jax.errors import ConfigError
from viewer.guard import HEADERS, LOCAL, Asked, Guard
from viewer.tableau import ViewError, Viewpoint

try:
    import viser
    from viser import _messages as messages
    from viser.infra import ClientId
    from websockets.asyncio import server as network
    from websockets.datastructures import Headers
    from websockets.http11 import Request, Response
except ModuleNotFoundError as error:
    raise ViewError("the viewer needs viser: pip install 'realdex_jax[view]'") from error

__all__ = ["LOCAL", "Server", "address", "look", "start", "stop", "viser"]

FIELD_OF_VIEW = float(np.deg2rad(32.0))
"""Vertical opening of the camera at first, radians; as in `sim.render`."""
MAX_MESSAGE_BYTES = 4 * 2**20
"""Largest message that is taken from a browser; uploads come in parts of half a MiB."""
_MAX_PARTS = 1024
_starting = threading.Lock()
_Answers = Callable[[network.ServerConnection, Request], Response | None]


class Server(viser.ViserServer):
    """A server that lets in who has its token, and that nobody can make public."""

    def __init__(self, host: str, port: int, label: str) -> None:
        """Begins to serve; `start` says more."""
        self.guard = Guard(LOCAL if host in LOCAL else None)
        self._largest, self._told = 0, _nothing
        with _guarding(self.guard) as standing:
            super().__init__(host=host, port=port, label=label, verbose=False)
        if not standing:  # another viser, which asks nobody
            super().stop()
            raise ViewError(f"viser {viser.__version__} starts in a way that is not known here")
        link, gui = self._websock_server, self.gui
        link.unregister_handler(messages.FileTransferStartUpload, gui._handle_file_transfer_start)
        link.unregister_handler(messages.FileTransferPart, gui._handle_file_transfer_part)
        link.register_handler(messages.FileTransferStartUpload, self._begin_upload)
        link.register_handler(messages.FileTransferPart, self._take_part)

    def request_share_url(self, verbose: bool = True) -> str | None:
        """Viser's tunnel through a machine of others; never."""
        del verbose
        return None

    def look_all(self, seen: Viewpoint | None) -> None:
        """Moves every visitor's camera, and that of who comes next."""
        if seen is not None:
            look(self.initial_camera, seen)
            for client in self.get_clients().values():
                look(client.camera, seen)

    def take_uploads(self, largest: int, told: Callable[[str], None]) -> None:
        """Allows files to be sent.

        Args:
            largest: Most bytes of one.
            told: Told why one is refused, in words.
        """
        self._largest, self._told = largest, told

    def _begin_upload(self, client: ClientId, message: messages.FileTransferStartUpload) -> None:
        """Refuses before a byte is kept."""
        under_way = self.gui._current_file_upload_states
        why = ""
        if not 0 < message.size_bytes <= self._largest:
            why = f"{message.size_bytes} bytes; a file has 1 to {self._largest}"
        elif not 0 < message.part_count <= _MAX_PARTS:
            why = f"{message.part_count} parts; a file has 1 to {_MAX_PARTS}"
        elif under_way:
            why = "another file is being sent"
        if not why:
            self.gui._handle_file_transfer_start(client, message)
            return
        self._told(f"refused: {why}")
        self._websock_server.queue_message(  # or the page would show it as under way for ever
            messages.FileTransferPartAck(
                message.source_component_uuid,
                message.transfer_uuid,
                message.size_bytes,
                message.size_bytes,
            )
        )

    def _take_part(self, client: ClientId, message: messages.FileTransferPart) -> None:
        """Drops a file that is longer than it said."""
        state = self.gui._current_file_upload_states.get(message.transfer_uuid)
        if state is None:
            return
        if state["transferred_bytes"] + len(message.content) > state["total_bytes"]:
            self.gui._current_file_upload_states.pop(message.transfer_uuid, None)
            self._told("refused: the file is longer than was said")
            return
        self.gui._handle_file_transfer_part(client, message)


def _nothing(_: str) -> None:
    return


@contextlib.contextmanager
def _guarding(guard: Guard) -> Iterator[list[bool]]:
    """Has a guard judge the requests of the server that is started meanwhile.

    viser offers no place for it, so the function that it serves with is replaced while it starts;
    one server at a time.

    Yields:
        Not empty once the guard stands.
    """
    standing: list[bool] = []

    def serve(*args: Any, process_request: _Answers, **settings: Any) -> Any:
        def judged(connection: network.ServerConnection, request: Request) -> Response | None:
            asked = Asked(
                request.path,
                *(request.headers.get(name, "") for name in ("Host", "Origin", "Cookie")),
            )
            answer = guard.judge(asked)
            if answer is None:
                made = process_request(connection, request)
            else:
                text = answer.text.encode()
                length = {"Content-Length": str(len(text)), "Connection": "close"}
                kind = {"Content-Type": "text/plain; charset=utf-8"}
                headers = Headers({**kind, **length, **answer.headers})
                made = Response(answer.status, "", headers, text)
            if made is not None:
                made.headers.update(HEADERS)
            return made

        standing.append(True)
        settings["max_size"] = MAX_MESSAGE_BYTES
        return plain(*args, process_request=judged, **settings)

    with _starting:
        plain = network.serve
        with mock.patch.object(network, "serve", serve):
            yield standing


def start(host: str, port: int, label: str) -> Server:
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
    with mock.patch.object(rich, "print"):  # a box of addresses, in a notebook an output
        server = Server(host, port, label)
    server.scene.set_up_direction("+z")
    server.scene.configure_default_lights(cast_shadow=True)
    server.gui.configure_theme(show_logo=False, show_share_button=False)
    server.gui.main_panel.dock_right()  # beside the picture, not over it
    return server


def address(server: Server) -> str:
    """Where to point the browser; it has the token, so it is nobody else's matter."""
    host = server.get_host()
    name = f"[{host}]" if ":" in host else host
    return f"http://{name}:{server.get_port()}/?token={server.guard.token}"


def stop(server: Server) -> None:
    """Ends a server."""
    with mock.patch.object(rich, "print"):
        server.stop()


def look(camera: viser.CameraHandle | viser.InitialCameraConfig, seen: Viewpoint) -> None:
    """Moves a camera to a viewpoint."""
    camera.fov = FIELD_OF_VIEW
    camera.position = seen.p_world
    camera.look_at = seen.p_world_target
