"""Two forwarders on one listening socket."""

from __future__ import annotations

import os
import socket
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager

import pytest
import trio

from trioproxy.config.schema import ListenerConfig, TimeoutsConfig
from trioproxy.net.bind import bind_listener
from trioproxy.net.limiter import ConnectionLimiter
from trioproxy.net.listener import Listener
from trioproxy.net.loads import Loads
from trioproxy.net.peer import Peer
from trioproxy.net.prefixed import PrefixedStream
from trioproxy.observe.metrics import Metrics


@pytest.fixture
def memory() -> Iterator[int]:
    descriptor = Loads.create(2)
    yield descriptor
    os.close(descriptor)


class Forwarder:
    """Accepts from a socket that others have too; says its number."""

    def __init__(self, memory: int, place: int, sock: socket.socket, held: int) -> None:
        self.loads = Loads(memory, 2, mine=place)
        self.place = place
        self.limiter = ConnectionLimiter(1000, tell=lambda count: self.loads.tell(held + count))
        self.loads.tell(held)
        self.listener = Listener(
            ListenerConfig(tls="off"),
            sock.dup(),
            handler=self._handle,
            certificates=None,
            limiter=self.limiter,
            metrics=Metrics(),
            timeouts=TimeoutsConfig,
            trusted=tuple,
            loads=self.loads,
        )

    async def _handle(self, stream: PrefixedStream, _: Peer) -> None:
        await stream.send_all(bytes([self.place]))
        await stream.receive_some(1)


@contextmanager
def forwarder(memory: int, place: int, sock: socket.socket, held: int) -> Generator[Forwarder]:
    one = Forwarder(memory, place, sock, held)
    with closing(one.loads):
        yield one


async def connect(port: int) -> tuple[trio.SocketStream, int]:
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    return stream, (await stream.receive_some(1))[0]


async def test_the_forwarder_with_fewer_connections_goes_first(memory: int) -> None:
    with (
        bind_listener("127.0.0.1:0") as sock,
        forwarder(memory, 0, sock, 10) as busy,
        forwarder(memory, 1, sock, 0) as free,
    ):
        async with trio.open_nursery() as nursery:
            await nursery.start(busy.listener.serve, nursery)
            await nursery.start(free.listener.serve, nursery)
            stream, place = await connect(sock.getsockname()[1])
            assert place == 1
            assert (busy.loads.fewest(), free.limiter.open) == (1, 1)
            await stream.aclose()
            nursery.cancel_scope.cancel()


async def test_what_the_other_one_does_not_take_is_taken_all_the_same(memory: int) -> None:
    with (
        bind_listener("127.0.0.1:0") as sock,
        forwarder(memory, 0, sock, 10) as busy,
        closing(Loads(memory, 2, mine=1)) as hung,
    ):
        hung.tell(0)
        async with trio.open_nursery() as nursery:
            await nursery.start(busy.listener.serve, nursery)
            with trio.fail_after(20):
                streams = [await connect(sock.getsockname()[1]) for _ in range(50)]
            assert busy.limiter.open == 50
            for stream, place in streams:
                assert place == 0
                await stream.aclose()
            nursery.cancel_scope.cancel()
