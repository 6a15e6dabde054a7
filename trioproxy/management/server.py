"""Serving the management API: hypercorn's connections behind an accept loop of our own, on a bound socket.

hypercorn's own `serve` ends with the first exception of any connection, and a caller that hangs up in the right
moment makes it have one. Here it costs that connection and nothing else.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import trio
from hypercorn.config import Config
from hypercorn.trio.lifespan import Lifespan
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import AppWrapper, ConnectionState
from hypercorn.utils import repr_socket_addr, wrap_app  # pyright: ignore[reportUnknownVariableType]
from quart_trio import QuartTrio

from trioproxy.management.app import STREAMS
from trioproxy.management.events import Streams

GRACE_SECONDS = 2.0
"""How long calls may go on when the server stops."""
ARRIVAL_SECONDS = 0.3
"""How long callers that were let in just before the end have for sending their request: hypercorn then closes those who
have not, and those who keep a connection."""
IDLE_SECONDS = 5.0
"""How long a connection may wait for its next request, and take for the head of it.

hypercorn also holds the socket of a caller that has left until this is over, so it must not be long.
"""
BACKLOG = 128
"""Connections that may wait to be accepted."""
STALLED_READER_MS = 10_000
"""How long a client may leave a full window unread before its connection is cut."""

Send = Callable[[Any], Awaitable[None]]

_log = logging.getLogger("trioproxy.management.http")
_log.setLevel(logging.WARNING)  # hypercorn announces every address, with advice to press CTRL + C


class _Config(Config):
    accesslog = None
    errorlog = _log
    include_server_header = False

    def __init__(self) -> None:
        self.keep_alive_timeout = IDLE_SECONDS
        self.graceful_timeout = self.shutdown_timeout = GRACE_SECONDS


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
    config = _Config()
    wrapped = wrap_app(_Finishing(app), config.wsgi_max_body_size, "asgi")  # pyright: ignore[reportArgumentType]
    streams.begin()
    with sock:
        sock.listen(BACKLOG)
        # hypercorn shields its writes, without a limit: only the kernel can end one that a stalled reader holds up.
        # Accepted connections inherit the option. (A unix socket knows no such thing.)
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, STALLED_READER_MS)
        lifespan = Lifespan(wrapped, config, {})
        async with trio.open_nursery() as nursery:
            await nursery.start(lifespan.handle_lifespan)
            await lifespan.wait_for_startup()
            failure = await _serve_connections(wrapped, config, sock, streams, shutdown_trigger, task_status)
            await lifespan.wait_for_shutdown()
            nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def _serve_connections(
    app: AppWrapper,
    config: Config,
    sock: socket.socket,
    streams: Streams,
    shutdown_trigger: Callable[[], Awaitable[None]],
    task_status: trio.TaskStatus[Any],
) -> OSError | None:
    """Accept until told to stop, then give what runs `GRACE_SECONDS`. What the listening socket failed with, if so."""
    context = WorkerContext(None)
    listener = trio.SocketListener(trio.socket.from_stdlib_socket(sock))
    failure: OSError | None = None

    async def serve(stream: trio.SocketStream) -> None:
        try:
            await TCPServer(app, config, context, ConnectionState({}), stream).run()  # pyright: ignore[reportArgumentType]
        except* Exception:  # noqa: BLE001 - a bad caller, or a bug in serving one: the other callers go on
            _log.warning("a management connection broke", exc_info=True)
            await trio.aclose_forcefully(stream)

    async with trio.open_nursery() as connections:
        async with trio.open_nursery() as accepting:

            async def accept() -> None:
                nonlocal failure
                try:
                    await trio.serve_listeners(serve, [listener], handler_nursery=connections)
                except OSError as error:
                    failure = error
                accepting.cancel_scope.cancel()

            accepting.start_soon(accept)
            task_status.started([f"http://{repr_socket_addr(sock.family, sock.getsockname())}"])
            await shutdown_trigger()
            accepting.cancel_scope.cancel()
        streams.end()
        await trio.sleep(ARRIVAL_SECONDS)
        await context.terminated.set()
        connections.cancel_scope.deadline = trio.current_time() + GRACE_SECONDS
    return failure
