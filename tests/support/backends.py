"""Small real backends on free ports of the loopback address, as tasks of the test."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Self

import h11
import trio
from websockets.exceptions import ConnectionClosed
from websockets.trio.server import Server, ServerConnection, serve

from trioproxy.testing import Wire

BLOCK = random.Random(7).randbytes(2**20)
MIB = 2**20


class Body:
    """A large body in blocks, for clients that send what they iterate over."""

    def __init__(self, count: int) -> None:
        self._blocks = map(block, range(count))

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        await trio.lowlevel.checkpoint()
        for data in self._blocks:
            return data
        raise StopAsyncIteration


Serve = Callable[[Wire], Awaitable[None]]


def block(number: int) -> bytes:
    """One MiB of a large body: repeatable, and different at each place."""
    return number.to_bytes(8, "big") + BLOCK[8:]


def digest_of_blocks(count: int) -> str:
    """SHA-256 of a body of so many blocks."""
    found = hashlib.sha256()
    for number in range(count):
        found.update(block(number))
    return found.hexdigest()


@asynccontextmanager
async def listening(handle: Callable[[trio.SocketStream], Awaitable[None]], port: int = 0) -> AsyncGenerator[int]:
    """The port of a server that runs `handle` for each connection and closes it afterwards."""
    listeners = await trio.open_tcp_listeners(port, host="127.0.0.1")
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, handle, listeners)
        try:
            yield listeners[0].socket.getsockname()[1]
        except Exception as error:  # noqa: BLE001 - raised below, outside the nursery
            failure = error
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


@asynccontextmanager
async def raw_backend(serve_one: Serve) -> AsyncGenerator[int]:
    """A backend that says what the test says. Peers that leave early do it no harm."""

    async def handle(stream: trio.SocketStream) -> None:
        try:
            await serve_one(Wire(stream))
        except (EOFError, trio.BrokenResourceError, trio.ClosedResourceError):
            await trio.aclose_forcefully(stream)

    async with listening(handle) as port:
        yield port


@dataclass
class Asked:
    """A request as the echo backend saw it."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    length: int = 0
    digest: str = ""

    def values(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]


@dataclass
class Echo:
    """An HTTP/1.1 backend. `asked` are the requests it has answered.

    `/blocks/N` answers with N MiB, `/chunks/N` with the same and no length; anything else with what was asked, as JSON.
    """

    port: int = 0
    asked: list[Asked] = field(default_factory=list[Asked])
    connections: int = 0

    async def handle(self, stream: trio.SocketStream) -> None:
        self.connections += 1
        connection = h11.Connection(h11.SERVER)
        try:
            while await self._serve_one(connection, stream):
                connection.start_next_cycle()
        except (h11.RemoteProtocolError, trio.BrokenResourceError, trio.ClosedResourceError):
            await trio.aclose_forcefully(stream)

    async def _serve_one(self, connection: h11.Connection, stream: trio.SocketStream) -> bool:
        request = await self._next(connection, stream)
        if not isinstance(request, h11.Request):
            return False
        headers = [(name.decode(), value.decode("latin-1")) for name, value in request.headers.raw_items()]
        asked = Asked(request.method.decode(), request.target.decode(), headers)
        if connection.they_are_waiting_for_100_continue:
            await self._send(connection, stream, h11.InformationalResponse(status_code=100, headers=[]))
        digest = hashlib.sha256()
        while isinstance(event := await self._next(connection, stream), h11.Data):
            digest.update(event.data)
            asked.length += len(event.data)
        asked.digest = digest.hexdigest()
        self.asked.append(asked)
        await self._answer(connection, stream, asked)
        return connection.our_state is h11.DONE and connection.their_state is h11.DONE

    async def _next(self, connection: h11.Connection, stream: trio.SocketStream) -> Any:
        await trio.lowlevel.checkpoint()
        while (event := connection.next_event()) is h11.NEED_DATA:
            connection.receive_data(await stream.receive_some(256 * 1024))
        return event

    async def _answer(self, connection: h11.Connection, stream: trio.SocketStream, asked: Asked) -> None:
        kind, _, number = asked.target.partition("?")[0].strip("/").partition("/")
        if kind in ("blocks", "chunks"):
            length = (
                ("Content-Length", str(int(number) * MIB)) if kind == "blocks" else ("Transfer-Encoding", "chunked")
            )
            await self._send(connection, stream, h11.Response(status_code=200, headers=[length]))
            for index in range(int(number)):
                for piece in connection.send_with_data_passthrough(h11.Data(data=block(index))) or ():
                    await stream.send_all(piece)
            await self._send(connection, stream, h11.EndOfMessage())
            return
        seen = {"method": asked.method, "target": asked.target, "headers": asked.headers}
        payload = json.dumps({**seen, "length": asked.length, "digest": asked.digest}).encode()
        fields = [("Content-Type", "application/json"), ("Content-Length", str(len(payload)))]
        fields += [("Set-Cookie", "a=1; Path=/"), ("Set-Cookie", "b=2; Path=/deep")]
        body = h11.Data(data=b"" if asked.method == "HEAD" else payload)
        await self._send(connection, stream, h11.Response(status_code=200, headers=fields), body, h11.EndOfMessage())

    async def _send(self, connection: h11.Connection, stream: trio.SocketStream, *events: h11.Event) -> None:
        await stream.send_all(b"".join(connection.send(event) or b"" for event in events))


@asynccontextmanager
async def echo_backend(port: int = 0) -> AsyncGenerator[Echo]:
    echo = Echo()
    async with listening(echo.handle, port) as echo.port:
        yield echo


@dataclass
class WebSockets:
    """A server of the `websockets` library. `closed` are codes and reasons that clients have closed with."""

    port: int
    server: Server
    closed: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])


@asynccontextmanager
async def websocket_backend(*, compression: str | None = "deflate") -> AsyncGenerator[WebSockets]:
    """Echoes messages. The message "close CODE REASON" is answered by a close frame."""
    closed: list[tuple[int, str]] = []

    async def echo(peer: ServerConnection) -> None:
        with suppress(ConnectionClosed):
            while True:
                message = await peer.recv()
                if isinstance(message, str) and message.startswith("close "):
                    _, code, reason = message.split(" ", 2)
                    await peer.aclose(int(code), reason)
                else:
                    await peer.send(message)
        await peer.wait_closed()
        closed.append((peer.close_code or 0, peer.close_reason or ""))

    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        server: Server = await nursery.start(_serve, echo, compression)
        try:
            yield WebSockets(server.listeners[0].socket.getsockname()[1], server, closed)
        except Exception as error:  # noqa: BLE001 - raised below, outside the nursery
            failure = error
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def _serve(
    handler: Callable[[ServerConnection], Awaitable[None]],
    compression: str | None,
    *,
    task_status: trio.TaskStatus[Server],
) -> None:
    await serve(
        handler,
        0,
        host="127.0.0.1",
        compression=compression,
        max_size=None,
        ping_interval=None,
        task_status=task_status,
    )
