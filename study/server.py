"""Serves a study until it is told to stop. The only place that knows uvicorn."""

import contextlib
import socket
from collections.abc import Callable

from realdex_jax.errors import ConfigError
from study.app import create
from study.ballots import Ballots, StudyError
from study.guard import Asgi
from study.plan import Plan

try:
    import uvicorn
except ModuleNotFoundError as error:
    raise StudyError(
        "the study's server needs uvicorn: pip install 'realdex_jax[study]'"
    ) from error

LOCAL = frozenset({"127.0.0.1", "localhost", "::1"})
"""Hosts that nobody else can reach."""


def serve(plan: Plan, ballots: Ballots, host: str, port: int, ready: Callable[[str], None]) -> None:
    """Serves until SIGINT or SIGTERM; requests that are being served are finished.

    Args:
        plan: What is shown.
        ballots: Where answers go.
        host: Address to listen at.
        port: Port, or 0 for a free one.
        ready: Told the study's address once the server listens.

    Raises:
        ConfigError: Host or port cannot be had.
    """
    with contextlib.closing(listen(host, port)) as listening:
        name = f"[{host}]" if ":" in host else host
        server = build(create(plan, ballots, LOCAL if host in LOCAL else None))
        ready(f"http://{name}:{listening.getsockname()[1]}/s/{ballots.token}/")
        server.run(sockets=[listening])


def build(app: Asgi) -> uvicorn.Server:
    """The server of an application, with its limits."""
    config = uvicorn.Config(
        app,
        http="h11",
        ws="none",
        lifespan="off",
        log_level="warning",
        access_log=False,  # lines would hold the token
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=10,
        h11_max_incomplete_event_size=16 * 1024,
    )
    return uvicorn.Server(config)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        ConfigError: Host or port cannot be had.
    """
    if not 0 <= port <= 65535:
        raise ConfigError(f"port {port}; ports are 0 (a free one) to 65535")
    try:
        host.encode("idna")
    except UnicodeError as error:
        raise ConfigError(f"cannot listen at {host}: no machine can have that name") from error
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=256)
    except OSError as error:
        raise ConfigError(f"cannot listen at {host}, port {port}: {error.strerror}") from error
