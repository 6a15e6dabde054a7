"""A tunnel between two streams in memory, and what a WebSocket's two ends say."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio
from trio.testing import memory_stream_pair
from websocket_peer import Counted, is_closed
from wsproto.connection import Connection, ConnectionType
from wsproto.events import Event

from trioproxy.net.prefixed import PrefixedStream
from trioproxy.proxy.closer import Closer, Ended
from trioproxy.proxy.tunnel import forward_bytes

Stapled = trio.StapledStream[trio.abc.SendStream, trio.abc.ReceiveStream]
Wrap = Callable[[trio.abc.Stream], PrefixedStream]


@dataclass
class Tunnel:
    client: Stapled
    backend: Stapled
    proxy_streams: tuple[PrefixedStream, PrefixedStream]
    closer: Closer = field(default_factory=Closer)
    traffic: Counted = field(default_factory=Counted)
    ended: Ended | None = None
    over: trio.Event = field(default_factory=trio.Event)

    def sides(self, side: str) -> tuple[Stapled, Stapled]:
        return (self.client, self.backend) if side == "client" else (self.backend, self.client)

    async def run(self, idle: float, close: float, websocket: bool) -> None:
        self.ended = await forward_bytes(
            *self.proxy_streams, idle=idle, close=close, traffic=self.traffic, closer=self.closer, websocket=websocket
        )
        self.over.set()

    async def end(self) -> Ended:
        await self.over.wait()
        assert self.ended is not None
        assert [await is_closed(stream) for stream in self.proxy_streams] == [True, True]
        return self.ended


@asynccontextmanager
async def tunnel(
    *,
    pair: Callable[[], tuple[Stapled, Stapled]] = memory_stream_pair,  # type: ignore[assignment]
    wrap: Wrap = PrefixedStream,
    idle: float = 0,
    close: float = 3,
    websocket: bool = False,
) -> AsyncIterator[Tunnel]:
    client, front = pair()
    backend, back = pair()
    made = Tunnel(client, backend, (wrap(front), wrap(back)))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(made.run, idle, close, websocket)
        yield made
        nursery.cancel_scope.cancel()


async def read_to_end(stream: trio.abc.ReceiveStream) -> bytes:
    return b"".join([bytes(chunk) async for chunk in stream])


def frames(*events: Event) -> bytes:
    """As a backend sends them."""
    writer = Connection(ConnectionType.SERVER)
    return b"".join(writer.send(event) for event in events)


def seen_by_client(data: bytes) -> list[Event]:
    reader = Connection(ConnectionType.CLIENT)
    reader.receive_data(data)
    return list(reader.events())
