"""After a crowd of clients of every kind, the worker holds what it held before."""

from __future__ import annotations

import itertools
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

import trio
from backends import echo_backend, raw_backend, websocket_backend
from processes import eventually
from websockets.trio.client import connect
from worker import Worker, running_worker

from trioproxy.testing import Wire

VISITS = 2000
AT_ONCE = 40

Visit = Callable[[trio.abc.Stream], Awaitable[None]]


async def half_an_answer(wire: Wire) -> None:
    """A backend that never finishes: only the client's leaving ends it."""
    await wire.read_head()
    await wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + bytes(1000))
    await wire.read_all()


async def ask(stream: trio.abc.Stream, path: str, more: bytes = b"") -> None:
    await stream.send_all(f"GET {path} HTTP/1.1\r\nHost: x\r\n".encode() + more + b"\r\n")


async def completed(stream: trio.abc.Stream) -> None:
    await ask(stream, "/s/app/", b"Connection: close\r\n")
    data = b"".join([bytes(piece) async for piece in stream])
    assert data.startswith(b"HTTP/1.1 200 ")


async def nothing_said(stream: trio.abc.Stream) -> None:
    await trio.lowlevel.checkpoint()


async def cut_in_the_head(stream: trio.abc.Stream) -> None:
    await stream.send_all(b"GET /s/app/ HTTP/1.1\r\nHos")


async def cut_in_the_body(stream: trio.abc.Stream) -> None:
    await stream.send_all(b"POST /s/app/ HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf")


async def cut_before_the_answer(stream: trio.abc.Stream) -> None:
    await ask(stream, "/s/app/")


async def cut_in_the_answer(stream: trio.abc.Stream) -> None:
    await ask(stream, "/s/half/")
    assert await stream.receive_some(100)


async def refused(stream: trio.abc.Stream) -> None:
    await stream.send_all(b"GET /s/app/ HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n")
    assert bytes(await stream.receive_some(100)).startswith(b"HTTP/1.1 400 ")


async def not_routed(stream: trio.abc.Stream) -> None:
    await ask(stream, "/nobody/home/")
    assert bytes(await stream.receive_some(100)).startswith(b"HTTP/1.1 404 ")


async def cut_in_a_websocket(stream: trio.abc.Stream) -> None:
    key = b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    await ask(stream, "/s/ws/", key + b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n")
    assert bytes(await stream.receive_some(1000)).startswith(b"HTTP/1.1 101 ")
    await stream.send_all(b"\x81\x85half")  # a text frame that breaks off


async def websocket_refused(stream: trio.abc.Stream) -> None:
    key = b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    await ask(stream, "/s/app/", key + b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n")
    assert bytes(await stream.receive_some(1000)).startswith(b"HTTP/1.1 200 ")


VISITORS: list[Visit] = [
    completed, nothing_said, cut_in_the_head, cut_in_the_body, cut_before_the_answer, cut_in_the_answer, refused,
    not_routed, cut_in_a_websocket, websocket_refused,
]  # fmt: skip


async def crowd(worker: Worker, visits: int) -> None:
    """So many connections, on both listeners in turn, a few of them at once; each ends without a good-bye."""
    places = trio.CapacityLimiter(AT_ONCE)
    unverified = ssl.create_default_context()
    unverified.check_hostname, unverified.verify_mode = False, ssl.CERT_NONE

    async def one(visit: Visit, url: str) -> None:
        async with places:
            plain = await trio.open_tcp_stream("127.0.0.1", worker.port(url))
            stream: trio.abc.Stream = plain
            if url == worker.https:
                stream = trio.SSLStream(plain, unverified, server_hostname="localhost", https_compatible=True)
            try:
                await visit(stream)
            finally:
                await trio.aclose_forcefully(stream)

    async with trio.open_nursery() as nursery:
        kinds = itertools.product(VISITORS, (worker.http, worker.https))
        for visit, url in itertools.islice(itertools.cycle(kinds), visits):
            nursery.start_soon(one, visit, url)


async def test_open_files_return_to_where_they_were(tmp_path: Path) -> None:
    async with (
        echo_backend() as echo,
        raw_backend(half_an_answer) as half,
        websocket_backend() as ws,
        running_worker(tmp_path, {"pool": {"idle_timeout": 0.5}, "log": {"access": "off"}}) as worker,
    ):
        before = worker.open_files()
        await worker.route("s", "app", echo.port)
        await worker.route("s", "half", half)
        await worker.route("s", "ws", ws.port)
        await crowd(worker, VISITS)
        await eventually(lambda: len(worker.open_files()) <= len(before), seconds=30)
        assert worker.open_files() == before
        backends = (await worker.call("GET", "/v1/backends")).json()["backends"]
        assert [backend["in_flight"] for backend in backends] == [0, 0, 0]
        assert (await worker.call("GET", "/v1/connections")).json()["total"] == 0
        async with connect(f"{worker.http.replace('http', 'ws')}/s/ws/", proxy=None) as websocket:
            await websocket.send("still here")
            assert await websocket.recv() == "still here"


async def test_callers_of_the_management_api_who_leave_are_given_up(tmp_path: Path) -> None:
    async with running_worker(tmp_path) as worker:
        before = len(worker.open_files())
        for _ in range(50):
            assert (await worker.call("GET", "/livez")).status_code == 200
        await eventually(lambda: len(worker.open_files()) <= before, seconds=20)
