"""Serving the management API: hypercorn on a socket that is already bound."""

from __future__ import annotations

import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import hypercorn.trio
import trio
from hypercorn.config import Config, Sockets
from quart_trio import QuartTrio

from trioproxy.management.app import STREAMS
from trioproxy.management.events import Streams

GRACE_SECONDS = 2.0
"""How long calls may go on when the server stops."""
IDLE_SECONDS = 5.0
"""How long a connection may wait for its next request, and take for the head of it.

hypercorn also holds the socket of a caller that has left until this is over, so it must not be long.
"""
STALLED_READER_MS = 10_000
"""How long a client may leave a full window unread before its connection is cut."""

Send = Callable[[Any], Awaitable[None]]

_log = logging.getLogger("trioproxy.management.http")
_log.setLevel(logging.WARNING)  # hypercorn announces every address, with advice to press CTRL + C


class _Config(Config):
    accesslog = None
    errorlog = _log
    include_server_header = False
    backlog = 128

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self.keep_alive_timeout = IDLE_SECONDS
        self.graceful_timeout = self.shutdown_timeout = GRACE_SECONDS

    def create_sockets(self) -> Sockets:
        return Sockets(secure_sockets=[], insecure_sockets=[self._socket], quic_sockets=[])


class _Finishing:
    """The app, with the end of each response kept whole.

    While hypercorn ends a response it tells the app that the exchange is over. quart-trio takes that for a client
    that left and cancels the very task that hypercorn is ending the response in: the connection would be neither
    closed nor given its idle timeout.
    """

    def __init__(self, app: QuartTrio) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Callable[[], Awaitable[Any]], send: Send) -> None:
        async def send_whole(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.body" and not message.get("more_body"):
                with trio.move_on_after(GRACE_SECONDS, shield=True):
                    await send(message)
            else:
                await send(message)

        await self._app(scope, receive, send_whole)  # pyright: ignore[reportArgumentType]


async def serve_management(
    app: QuartTrio,
    sock: socket.socket,
    *,
    shutdown_trigger: Callable[[], Awaitable[None]],
    task_status: trio.TaskStatus[Any] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve the app on a bound stream socket until `shutdown_trigger` returns; then end within about 2 s.

    Takes over the socket and closes it at the end. Started with the list of URLs. Raises OSError when the socket
    fails.
    """
    streams: Streams = app.extensions[STREAMS]

    async def stop() -> None:
        await shutdown_trigger()
        streams.end()

    streams.begin()
    with sock:
        # hypercorn shields its writes, without a limit: only the kernel can end one that a stalled reader holds up.
        # Accepted connections inherit the option. (A unix socket knows no such thing.)
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, STALLED_READER_MS)
        try:
            await hypercorn.trio.serve(  # pyright: ignore[reportUnknownMemberType]
                _Finishing(app), _Config(sock), shutdown_trigger=stop, task_status=task_status
            )
        except BaseExceptionGroup as group:
            _raise_plain(group)


def _raise_plain(group: BaseExceptionGroup[BaseException]) -> None:
    """Unwrap what the socket says from hypercorn's nurseries; anything else is a bug and leaves as it came."""
    expected, rest = group.split(OSError)
    if expected is None or rest is not None:
        raise group
    error: BaseException = expected
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    raise error
