"""The demo session: a small HTTP and WebSocket service to point the worker at when there is nothing else yet."""

from __future__ import annotations

import html
import json
import logging
import socket
from functools import partial
from pathlib import Path

import h11
import trio
from trio_websocket import ConnectionClosed, HandshakeError, WebSocketConnection, wrap_server_stream

from trioproxy.net.bind import bind_listener
from trioproxy.net.prefixed import PrefixedStream
from trioproxy.routing.route import Backend, Route

SESSION, SERVICE = "demo", "hello"
PATH = f"/{SESSION}/{SERVICE}/"
IDLE_SECONDS = 75.0
"""How long a connection may wait for its next request, and a WebSocket for its next message."""
MAX_CONNECTIONS = 256
CHUNK = 16 * 1024

_PAGE = Path(__file__).with_name("demo.html")
_LOG = logging.getLogger("trioproxy.process.demo")


def bind_demo() -> socket.socket:
    """A socket for the demo session, on a free port of the loopback address. Raises BindError."""
    return bind_listener("127.0.0.1:0")


def demo_route(sock: socket.socket) -> Route:
    """The route that leads to the demo session on this socket."""
    backend = Backend(host="127.0.0.1", port=sock.getsockname()[1])
    return Route(session_id=SESSION, service=SERVICE, backends=(backend,))


async def serve_demo(
    sock: socket.socket, *, task_status: trio.TaskStatus[list[trio.SocketListener]] = trio.TASK_STATUS_IGNORED
) -> None:
    """Serve the demo session until cancelled. Takes over the socket."""
    listener = trio.SocketListener(trio.socket.from_stdlib_socket(sock))
    page = await trio.to_thread.run_sync(partial(_PAGE.read_text, encoding="utf-8"))
    limiter = trio.CapacityLimiter(MAX_CONNECTIONS)

    async def handle(stream: trio.abc.Stream) -> None:
        async with limiter:
            await _serve_connection(PrefixedStream(stream), page)

    await trio.serve_listeners(handle, [listener], task_status=task_status)


async def _serve_connection(stream: PrefixedStream, page: str) -> None:
    connection = h11.Connection(h11.SERVER)
    try:
        with trio.move_on_after(IDLE_SECONDS) as idle:
            while True:
                idle.deadline = trio.current_time() + IDLE_SECONDS
                received = b""
                while (event := connection.next_event()) is h11.NEED_DATA:
                    data = await stream.receive_some(CHUNK)
                    received += data
                    connection.receive_data(data)
                if not isinstance(event, h11.Request):
                    return
                if any(name == b"upgrade" and value.lower() == b"websocket" for name, value in event.headers):
                    stream.unread(received)
                    break
                await _read_body(connection, stream)
                await _answer(connection, stream, event, page)
                if connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
                    return
                connection.start_next_cycle()
        if not idle.cancelled_caught:
            await _echo(stream)
    except (h11.ProtocolError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
        _LOG.debug("the demo session lost a client", extra={"error": str(error)})


async def _read_body(connection: h11.Connection, stream: PrefixedStream) -> None:
    """Read the rest of the request and forget it. Raises RemoteProtocolError when it ends too early."""
    while not isinstance(event := connection.next_event(), h11.EndOfMessage):
        if event is h11.NEED_DATA:
            if connection.they_are_waiting_for_100_continue:
                await _send(connection, stream, h11.InformationalResponse(status_code=100, headers=[]))
            connection.receive_data(await stream.receive_some(CHUNK))


async def _answer(connection: h11.Connection, stream: PrefixedStream, request: h11.Request, page: str) -> None:
    seen = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers.raw_items()]
    target = request.target.decode("ascii")
    if target.partition("?")[0] == "/headers":
        kind, body = "application/json", json.dumps({"target": target, "headers": seen}, indent=2) + "\n"
    else:
        rows = "".join(f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>\n" for name, value in seen)
        kind = "text/html; charset=utf-8"
        first_line = html.escape(f"{request.method.decode('ascii')} {target}")
        body = page.replace("{{request}}", first_line).replace("{{headers}}", rows)
    payload = body.encode()
    headers = [("Content-Type", kind), ("Content-Length", str(len(payload))), ("Cache-Control", "no-store")]
    data = h11.Data(data=b"" if request.method == b"HEAD" else payload)
    await _send(
        connection, stream, h11.Response(status_code=200, reason=b"OK", headers=headers), data, h11.EndOfMessage()
    )


async def _send(connection: h11.Connection, stream: PrefixedStream, *events: h11.Event) -> None:
    await stream.send_all(b"".join(connection.send(event) or b"" for event in events))


async def _echo(stream: PrefixedStream) -> None:
    async with trio.open_nursery() as nursery:
        try:
            request = await wrap_server_stream(nursery, stream)
            websocket: WebSocketConnection = await request.accept()
            while True:
                with trio.fail_after(IDLE_SECONDS):
                    message = await websocket.get_message()
                await websocket.send_message(message)
        except (ConnectionClosed, HandshakeError, trio.TooSlowError) as error:
            _LOG.debug("the demo session's echo ended", extra={"reason": str(error)})
        nursery.cancel_scope.cancel()
