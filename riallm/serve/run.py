"""A server that runs until it is told to end, and then lets its requests finish."""

from __future__ import annotations

import contextlib
import ipaddress
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator

import uvicorn
from fastapi import FastAPI

from riallm.core.errors import UsageError

SEND_BYTES = 64 << 10
"""What the kernel keeps for a slow reader, so that one is noticed before the whole answer lies there."""


class Server(uvicorn.Server):
    """uvicorn's, but a signal ends it and not the process: whoever opened the models closes them afterwards."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def serve(
    app: FastAPI,
    *,
    host: str = "127.0.0.1",
    port: int = 8080,
    drain_seconds: float = 30.0,
    public: bool = False,
    ready: Callable[[str], object] | None = None,
) -> None:
    """Serve until SIGTERM or Ctrl-C, then take on nothing more, let what runs finish for `drain_seconds`, and return.

    port 0: any free one. ready: is told the address once it answers. public: the host may be one that others reach.
    Raises UsageError for an address that cannot be had.
    """
    with listen(host, port, public=public) as listening:
        server = prepare(app, drain_seconds=drain_seconds)
        if ready is not None:
            ready(address(listening))
        server.run(sockets=[listening])


def prepare(app: FastAPI, *, drain_seconds: float = 30.0) -> Server:
    """The server alone, for one that is run in a thread: `run(sockets=[listen(...)])`, and `should_exit = True`."""
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="off",
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=max(1, round(drain_seconds)),
        timeout_keep_alive=30,
        h11_max_incomplete_event_size=64 << 10,
    )
    return Server(config)


def listen(host: str, port: int, *, public: bool = False) -> socket.socket:
    """A socket that accepts from now on. Raises UsageError for an address that others reach without `public`, and for
    one that cannot be had."""
    if not 0 <= port < 1 << 16:  # the system would take the rest of it
        raise UsageError(f"--port {port}: there are 0 to {(1 << 16) - 1}")
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        if not public and not ipaddress.ip_address(str(place[0]).partition("%")[0]).is_loopback:
            raise UsageError(
                f"--host {host} can be reached from other machines; say that it shall be public, and give API keys"
            )
        listening = socket.socket(family, kind, protocol)
        try:
            if sys.platform != "win32":
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BYTES)
            listening.bind(place)
            listening.listen(256)
        except OSError:
            listening.close()
            raise
    except OSError as error:
        raise UsageError(f"cannot listen on {host}:{port} ({error}); take another port, or end what has it") from None
    return listening


def address(listening: socket.socket) -> str:
    """http://host:port of a socket that listens."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
