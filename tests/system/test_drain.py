"""The end of a worker: what may finish finishes, what may not is told, and it is over in time."""

from __future__ import annotations

import signal
from pathlib import Path

import httpx
import pytest
import trio
from backends import raw_backend, websocket_backend
from processes import eventually, listens
from websockets.exceptions import ConnectionClosed
from websockets.trio.client import connect
from worker import Worker, running_worker

from trioproxy.testing import Wire


class SlowDownload:
    """A backend that sends the first half of a body, and the second when it is told to."""

    def __init__(self) -> None:
        self.go_on = trio.Event()

    async def serve(self, wire: Wire) -> None:
        await wire.read_head()
        await wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst")
        await self.go_on.wait()
        await wire.send(b"after")


async def hello(wire: Wire) -> None:
    while True:
        await wire.read_head()
        await wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")


async def dial(worker: Worker) -> Wire:
    return Wire(await trio.open_tcp_stream("127.0.0.1", worker.port(worker.http)))


async def get(wire: Wire, path: str) -> None:
    await wire.send(f"GET {path} HTTP/1.1\r\nHost: worker\r\n\r\n".encode())


async def begin_download(worker: Worker) -> Wire:
    wire = await dial(worker)
    await get(wire, "/s/slow/")
    assert b"200 OK" in await wire.read_head()
    assert await wire.read_exactly(5) == b"first"
    return wire


async def refuses_connections(worker: Worker) -> bool:
    return not await listens(worker.port(worker.http))


async def is_told_not_ready(worker: Worker) -> bool:
    answer = await worker.call("GET", "/readyz")
    return answer.status_code == 503 and "draining" in answer.json()["reasons"]


@pytest.mark.parametrize("asked_by", ["SIGTERM", "SIGINT", "api"])
async def test_a_drain_lets_what_runs_finish_and_takes_nothing_new(tmp_path: Path, asked_by: str) -> None:
    slow = SlowDownload()
    async with (
        raw_backend(slow.serve) as slow_port,
        raw_backend(hello) as port,
        running_worker(tmp_path, {"worker": {"drain_timeout": 60}}) as worker,
    ):
        await worker.route("s", "slow", slow_port)
        await worker.route("s", "hello", port)
        idle = await dial(worker)
        await get(idle, "/s/hello/")
        assert (await idle.read_response()).body == b"hi"
        fresh = await dial(worker)
        download = await begin_download(worker)

        if asked_by == "api":
            assert (await worker.call("POST", "/v1/drain")).status_code == 202
        else:
            worker.program.signal(signal.Signals[asked_by])
        with trio.fail_after(5):
            assert await idle.read_all() == b""
            assert await fresh.read_all() == b""
        await eventually(lambda: refuses_connections(worker), seconds=5)
        assert await is_told_not_ready(worker)
        assert worker.program.code is None

        slow.go_on.set()
        assert await download.read_exactly(5) == b"after"
        assert await worker.program.ended(seconds=15) == 0


async def test_websockets_live_on_through_the_grace_and_are_then_told_1001(tmp_path: Path) -> None:
    async with websocket_backend() as backend, running_worker(tmp_path, {"worker": {"drain_timeout": 6}}) as worker:
        url = worker.http.replace("http", "ws")
        for mode in ("message", "relay"):
            await worker.route("s", mode, backend.port, websocket=mode)
        async with (
            connect(f"{url}/s/message/", proxy=None) as message,
            connect(f"{url}/s/relay/", proxy=None) as relay,
        ):
            for client in (message, relay):
                await client.send("before")
                assert await client.recv() == "before"
            worker.program.signal(signal.SIGTERM)
            await eventually(lambda: is_told_not_ready(worker), seconds=3)
            for client in (message, relay):
                await client.send("while draining")
                assert await client.recv() == "while draining"
            for client in (message, relay):
                with trio.fail_after(15), pytest.raises(ConnectionClosed):
                    await client.recv()
                assert client.close_code == 1001
        assert await worker.program.ended(seconds=15) == 0
        assert [code for code, _ in backend.closed] == [1001, 1001]
        for service in ("message", "relay"):
            ended = await worker.record(service=service)
            assert (ended["status"], ended["close_code"], ended["error"]) == (101, 1001, "draining")


async def test_a_drain_cuts_visibly_what_does_not_end_in_time(tmp_path: Path) -> None:
    slow = SlowDownload()
    async with raw_backend(slow.serve) as port, running_worker(tmp_path, {"worker": {"drain_timeout": 1}}) as worker:
        await worker.route("s", "slow", port)
        download = await begin_download(worker)
        worker.program.signal(signal.SIGTERM)
        with trio.fail_after(15), pytest.raises(trio.BrokenResourceError):
            await download.read_all()
        assert await worker.program.ended(seconds=15) == 0
        assert (await worker.record(path="/s/slow/"))["error"] is not None


async def test_a_second_sigterm_stops_at_once(tmp_path: Path) -> None:
    slow = SlowDownload()
    async with raw_backend(slow.serve) as port, running_worker(tmp_path, {"worker": {"drain_timeout": 600}}) as worker:
        await worker.route("s", "slow", port)
        download = await begin_download(worker)
        worker.program.signal(signal.SIGTERM)
        await eventually(lambda: is_told_not_ready(worker), seconds=5)
        assert worker.program.code is None
        worker.program.signal(signal.SIGTERM)
        with trio.fail_after(15), pytest.raises(trio.BrokenResourceError):
            await download.read_all()
        assert await worker.program.ended(seconds=15) == 1


async def test_an_upload_in_flight_is_taken_to_its_end(tmp_path: Path) -> None:
    received = trio.Event()

    async def take(wire: Wire) -> None:
        await wire.read_head()
        assert await wire.read_exactly(5) == b"first"
        received.set()
        assert await wire.read_exactly(5) == b"after"
        await wire.send(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")

    async with raw_backend(take) as port, running_worker(tmp_path, {"worker": {"drain_timeout": 60}}) as worker:
        await worker.route("s", "take", port)
        upload = await dial(worker)
        await upload.send(b"POST /s/take/ HTTP/1.1\r\nHost: worker\r\nContent-Length: 10\r\n\r\nfirst")
        await received.wait()
        worker.program.signal(signal.SIGTERM)
        await eventually(lambda: refuses_connections(worker), seconds=5)
        await upload.send(b"after")
        answer = await upload.read_response()
        assert answer.status == 201
        assert answer.values("connection") == [b"close"]
        assert await worker.program.ended(seconds=15) == 0


async def test_without_traffic_the_end_comes_at_once(tmp_path: Path) -> None:
    async with running_worker(tmp_path, {"worker": {"drain_timeout": 600}}) as worker:
        worker.program.signal(signal.SIGTERM)
        assert await worker.program.ended(seconds=15) == 0
        with pytest.raises(httpx.ConnectError):
            await worker.call("GET", "/livez")
