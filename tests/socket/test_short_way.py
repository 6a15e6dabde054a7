"""Ordinary requests over real sockets: sends that go out in pieces, and resets in the middle."""

from __future__ import annotations

import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
import trio
from backends import raw_backend
from path_scene import GET, OK
from processes import eventually

from trioproxy.config.schema import Config
from trioproxy.control.messages import SetTable
from trioproxy.net.peer import Peer
from trioproxy.net.plain import PlainStream
from trioproxy.net.prefixed import PrefixedStream
from trioproxy.observe.access_log import AccessLog, RequestRecord
from trioproxy.observe.metrics import Metrics
from trioproxy.proxy.express import Express
from trioproxy.proxy.proxy import Proxy
from trioproxy.routing.route import Backend, Route
from trioproxy.routing.table import Table
from trioproxy.testing import Wire

BODY = bytes(range(256)) * 200  # with its head less than what may go the short way, and more than the buffers take
LARGE = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY
PEER = Peer(
    host="192.0.2.1", port=1, local_host="192.0.2.2", local_port=80, listener="web", tls=False, server_name=None
)


class Log(AccessLog):
    """Keeps the records, and wakes who waits for one."""

    def __init__(self) -> None:
        super().__init__("off", Metrics())
        self._send, self.records = trio.open_memory_channel[RequestRecord](1000)

    def write(self, record: RequestRecord) -> None:
        self._send.send_nowait(record)


@dataclass
class Scene:
    proxy: Proxy
    log: Log
    port: int
    clients: list[Wire] = field(default_factory=list[Wire])

    async def connect(self) -> Wire:
        """A client that takes little at a time."""
        sock = trio.socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        await sock.connect(("127.0.0.1", self.port))
        self.clients.append(Wire(trio.SocketStream(sock)))
        return self.clients[-1]

    async def record(self) -> RequestRecord:
        return await self.log.records.receive()


@asynccontextmanager
async def scene(backend: int) -> AsyncGenerator[Scene]:
    """A proxy whose sockets to clients take little at a time; when all is over it must hold nothing."""
    log = Log()
    proxy = Proxy(Config(), access_log=log, metrics=Metrics())
    route = Route(session_id="s", service="web", backends=(Backend(host="127.0.0.1", port=backend),))
    proxy.execute(SetTable(Table.build([route], version=1)))

    async def serve(stream: trio.SocketStream) -> None:
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2048)
        plain = PlainStream.adopt(stream)
        await proxy.serve_connection(PrefixedStream(plain), PEER)
        await plain.aclose()

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            await nursery.start(proxy.run)
            listeners = await nursery.start(trio.serve_tcp, serve, 0)
            found = Scene(proxy, log, listeners[0].socket.getsockname()[1])
            yield found
            for client in found.clients:
                await client.aclose()
            await eventually(lambda: not len(proxy.live))
            assert proxy.pool.statistics()["active"] == 0
            assert sum(stats.in_flight for stats in proxy.balancer.routes()) == 0
            nursery.cancel_scope.cancel()


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The requests that were begun the short way."""
    found: list[object] = []
    begin = Express._begin

    def begin_and_note(express: Express, data: bytes, record: RequestRecord) -> object:
        begun = begin(express, data, record)
        found.extend([begun] if begun is not None else [])
        return begun

    monkeypatch.setattr(Express, "_begin", begin_and_note)
    return found


async def test_answers_that_go_out_in_many_pieces_come_whole(taken: list[object]) -> None:
    async def large(wire: Wire) -> None:
        while True:
            await wire.read_head()
            await wire.send(LARGE)

    async with raw_backend(large) as port, scene(port) as found:
        client = await found.connect()
        await client.send(GET * 10)
        for _ in range(10):
            assert (await client.read_response()).body == BODY
            assert (await found.record()).error is None
    assert len(taken) == 10


@pytest.mark.parametrize("last", [False, True])
async def test_a_client_that_resets_inside_an_answer_leaves_nothing(last: bool, taken: list[object]) -> None:
    async def answer(wire: Wire) -> None:
        while True:
            await wire.read_head()
            await wire.send(LARGE.replace(b"OK\r\n", b"OK\r\nConnection: close\r\n") if last else LARGE)

    async with raw_backend(answer) as port, scene(port) as found:
        for _ in range(3):
            client = await found.connect()
            await client.send(GET)
            await client.read_exactly(5000)
            await client.abort()
            assert (await found.record()).error == "client_gone"
    assert len(taken) == 3


@pytest.mark.parametrize(("part", "error"), [(20, "upstream_closed"), (len(OK) - 1, "body_truncated"), (len(OK), None)])
async def test_a_backend_that_resets_behind_a_part_of_its_answer(
    part: int, error: str | None, taken: list[object]
) -> None:
    async def break_off(wire: Wire) -> None:
        await wire.read_head()
        await wire.send(OK[:part])
        await wire.abort()

    async with raw_backend(break_off) as port, scene(port) as found:
        for _ in range(3):
            client = await found.connect()
            await client.send(GET)
            record = await found.record()
            assert record.error == error
            if error is None:
                assert (await client.read_response()).body == b"ok"
    assert len(taken) == 3
