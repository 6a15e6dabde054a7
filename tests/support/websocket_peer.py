"""The two ends of a forwarded WebSocket in tests: wsproto's frames on memory streams."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import trio
from trio.abc import Instrument
from trio.lowlevel import Task
from trio.testing import memory_stream_pair
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Event, Ping, Pong, TextMessage

from trioproxy.proxy.closer import Closer, Ended
from trioproxy.proxy.websocket import WebSocketSettings, forward_messages

SETTINGS = WebSocketSettings(max_message=0, ping_interval=0, ping_timeout=0, idle=0, close=3)


class NoHalfClose(trio.abc.Stream):
    """A stream that can not end its sending alone, as TLS can not."""

    def __init__(self, inner: trio.abc.Stream) -> None:
        self.inner = inner

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self.inner.receive_some(max_bytes)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self.inner.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self.inner.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self.inner.aclose()


class Peer:
    """A client or a backend. `receive` joins fragments; it answers nothing by itself."""

    def __init__(self, stream: trio.abc.Stream, kind: ConnectionType) -> None:
        self.stream = stream
        self.frames = Connection(kind)
        self._events: list[Event] = []
        self._parts: list[str | bytes] = []
        self._sending = trio.StrictFIFOLock()

    async def send(self, *events: Event) -> None:
        for event in events:
            async with self._sending:
                await self.stream.send_all(self.frames.send(event))

    async def receive(self) -> Event | None:
        """The next event with its whole payload; None at the end of the stream."""
        while True:
            for event in self.frames.events():
                if not isinstance(event, TextMessage | BytesMessage):
                    return event
                self._parts.append(event.data)
                if event.message_finished:
                    whole = type(event.data)().join(self._parts)
                    self._parts = []
                    return type(event)(data=whole)
            data = await self.stream.receive_some(65536)
            if not data:
                return None
            self.frames.receive_data(data)

    async def message(self) -> str | bytes:
        """The next message; anything else is an error."""
        event = await self.receive()
        assert isinstance(event, TextMessage | BytesMessage), event
        return event.data

    async def closing(self) -> tuple[int, str | None]:
        """Code and reason of the close frame that must come next; answers it."""
        event = await self.receive()
        assert isinstance(event, CloseConnection), event
        await self.send(event.response())
        return event.code, event.reason or ""

    async def closed_by(self, code: int | None, reason: str | None = None) -> None:
        """Send a close frame, wait for the same one back."""
        await self.send(CloseConnection(code=code, reason=reason))
        event = await self.receive()
        assert isinstance(event, CloseConnection)
        assert (event.code, event.reason or None) == (code or 1005, reason)


@dataclass
class Counted:
    bytes_in: int = 0
    bytes_out: int = 0


@dataclass
class Forwarding:
    """A running forward_messages, its two peers, and how it ended."""

    client: Peer
    backend: Peer
    proxy_streams: tuple[trio.abc.Stream, trio.abc.Stream]
    closer: Closer = field(default_factory=Closer)
    traffic: Counted = field(default_factory=Counted)
    ended: Ended | None = None
    over: trio.Event = field(default_factory=trio.Event)

    async def end(self) -> Ended:
        await self.over.wait()
        assert self.ended is not None
        return self.ended

    async def run(self, settings: WebSocketSettings) -> None:
        self.ended = await forward_messages(*self.proxy_streams, settings, self.traffic, closer=self.closer)
        self.over.set()

    @asynccontextmanager
    async def running(self, **settings: float) -> AsyncIterator[None]:
        """Run it; what still runs at the end is cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.run, replace(SETTINGS, **settings))
            yield
            nursery.cancel_scope.cancel()


Pair = Callable[[], tuple[trio.abc.Stream, trio.abc.Stream]]


@asynccontextmanager
async def forwarding(
    *,
    client_pair: Pair = memory_stream_pair,
    backend_pair: Pair = memory_stream_pair,
    start: bool = True,
    **settings: float,
) -> AsyncIterator[Forwarding]:
    """Two peers, and forward_messages between them."""
    client, front = client_pair()
    backend, back = backend_pair()
    made = Forwarding(Peer(client, ConnectionType.CLIENT), Peer(backend, ConnectionType.SERVER), (front, back))
    if not start:
        yield made
        return
    async with made.running(**settings):
        yield made


class CancelAt(Instrument):
    """Cancels a scope just before the n-th step of any task."""

    def __init__(self, step: int, scope: trio.CancelScope) -> None:
        self.left = step
        self.scope = scope

    def before_task_step(self, task: Task) -> None:
        self.left -= 1
        if self.left == 0:
            self.scope.cancel()


async def is_closed(stream: trio.abc.Stream) -> bool:
    try:
        await stream.send_all(b"x")
    except (trio.ClosedResourceError, trio.BrokenResourceError):
        return True
    return False


__all__ = [
    "SETTINGS",
    "BytesMessage",
    "CancelAt",
    "CloseConnection",
    "Counted",
    "Forwarding",
    "NoHalfClose",
    "Peer",
    "Ping",
    "Pong",
    "TextMessage",
    "forwarding",
    "is_closed",
]
