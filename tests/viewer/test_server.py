"""The server behind its guard, as a program that is no browser meets it."""

import asyncio
import contextlib
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from viewer.guard import COOKIE, HEADERS
from viewer.tableau import ViewError

pytest.importorskip("viser", reason="the extra `view` is not installed")
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed, InvalidStatus

from viewer import server as servers
from viewer.server import messages, network

LARGEST = 3_000_000


@pytest.fixture(scope="module")
def server() -> Iterator[servers.Server]:
    started = servers.start("127.0.0.1", 0, "test")
    yield started
    servers.stop(started)


def status(address: str, **headers: str) -> int:
    request = urllib.request.Request(address, headers=headers)
    with contextlib.suppress(urllib.error.HTTPError):
        return urllib.request.urlopen(request, timeout=20).status
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=20)
    with contextlib.closing(refused.value):
        assert {k: refused.value.headers[k] for k in HEADERS} == HEADERS
        return refused.value.code


def test_the_page_is_for_who_has_the_token(server: servers.Server) -> None:
    page = servers.address(server).partition("?")[0]
    assert status(page) == status(f"{page}?token=guess") == 403
    assert status(f"{page}../../etc/passwd") == 404
    assert status(page, Host="evil.example") == 421
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
    with opener.open(servers.address(server), timeout=20) as answer:
        assert (answer.status, answer.url) == (200, page)  # the token is gone from the bar
        assert {k: answer.headers[k] for k in HEADERS} == HEADERS
    with opener.open(page, timeout=20) as answer:
        assert answer.status == 200


def test_so_is_the_connection_behind_it(server: servers.Server) -> None:
    port, token = server.get_port(), server.guard.token
    address, own = f"ws://127.0.0.1:{port}/", f"http://127.0.0.1:{port}"
    known = {"Cookie": f"{COOKIE}_{port}={token}"}
    version = f"viser-v{servers.viser.__version__}"

    async def drain(link: ClientConnection) -> None:
        while True:
            await link.recv()

    async def ask(headers: dict[str, str], origin: str | None) -> None:
        given = {"additional_headers": headers, "origin": origin, "subprotocols": [version]}
        # Not left by `async with`: the server closes it, and where it does so before the last bytes
        # have left, asyncio's transport of Python 3.11 cannot be aborted once more.
        link = await connect(address, **given, max_size=None)
        assert len(await link.recv()) > 0
        await link.send(b"0" * (servers.MAX_MESSAGE_BYTES + 1))
        with pytest.raises(ConnectionClosed, match="message too big"):
            await drain(link)
        await link.wait_closed()

    asyncio.run(ask(known, own))
    for headers, origin in (({}, own), (known, "http://evil.example"), ({}, None)):
        with pytest.raises(InvalidStatus, match="403"):
            asyncio.run(ask(headers, origin))


def test_files_of_more_than_is_allowed_are_refused_before_they_come(
    server: servers.Server,
) -> None:
    told: list[str] = []
    server.take_uploads(LARGEST, told.append)
    button = server.gui.add_upload_button("file")
    uuid, kept = button._impl.uuid, server.gui._current_file_upload_states

    def begin(size: int, parts: int, name: str = "a") -> None:
        server._begin_upload(
            0, messages.FileTransferStartUpload(uuid, name, "a.stl", "", parts, size)
        )

    for size, parts in ((LARGEST + 1, 6), (0, 0), (-1, 1), (100, 0), (100, 10**9)):
        begin(size, parts)
        assert not kept
    assert len(told) == 5
    assert "3000001 bytes; a file has 1 to 3000000" in told[0]
    begin(1000, 3)
    assert list(kept) == ["a"]
    begin(1000, 3, "b")
    assert list(kept) == ["a"]
    assert "another file is being sent" in told[-1]
    server._take_part(0, messages.FileTransferPart(uuid, "a", 0, b"0" * 600))
    assert kept["a"]["transferred_bytes"] == 600
    server._take_part(0, messages.FileTransferPart(uuid, "a", 1, b"0" * 600))
    assert not kept  # longer than it said
    assert "longer" in told[-1]
    server._take_part(0, messages.FileTransferPart(uuid, "a", 2, b"0"))
    assert not kept


def test_what_is_not_guarded_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextlib.contextmanager
    def asleep(guard):
        yield []

    monkeypatch.setattr(servers, "_guarding", asleep)
    with pytest.raises(ViewError, match="starts in a way that is not known here"):
        servers.start("127.0.0.1", 0, "test")


def test_other_servers_of_this_process_are_left_alone(server: servers.Server) -> None:
    assert network.serve is serve
