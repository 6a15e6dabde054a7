"""Things that break: backends that die, and a worker that runs out of files."""

from __future__ import annotations

import json
import resource
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import httpx
import pytest
import trio
from backends import echo_backend, listening, raw_backend
from curl import curl, needs_curl
from processes import Program, eventually, free_port, listens, refusing_port, running
from worker import Worker, files_of, running_worker

from trioproxy.testing import Wire

LARGE = 200 * 2**20


@asynccontextmanager
async def keep_alive_server(folder: Path, port: int) -> AsyncGenerator[Program]:
    command = [sys.executable, "-m", "http.server", "--protocol", "HTTP/1.1", "--bind", "127.0.0.1", str(port)]
    async with running(command, cwd=folder) as program:
        await eventually(lambda: listens(port))
        yield program


# --- backends that die ---------------------------------------------------------------------------------


@pytest.mark.parametrize("tls", [True, False])
async def test_a_backend_killed_in_its_response_is_a_visible_cut(tmp_path: Path, tls: bool) -> None:
    with (tmp_path / "large").open("wb") as file:
        file.truncate(LARGE)
    port = free_port()
    async with keep_alive_server(tmp_path, port) as server, running_worker(tmp_path / "w") as worker:
        await worker.route("s", "files", port)
        url = f"{worker.https if tls else worker.http}/s/files/large"
        async with worker.client() as client, client.stream("GET", url) as answer:
            assert answer.headers["content-length"] == str(LARGE)
            pieces = answer.aiter_raw()
            received = len(await anext(pieces))
            server.signal(signal.SIGKILL)
            with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
                received += sum([len(data) async for data in pieces])
            assert 0 < received < LARGE
        record = await worker.record(path="/s/files/large")
        assert (record["status"], record["error"]) == (200, "body_truncated")


@needs_curl
@pytest.mark.parametrize("framing", [b"Content-Length: 1000", b"Transfer-Encoding: chunked"])
@pytest.mark.parametrize("scheme", ["https", "http"])
async def test_curl_notices_that_a_body_broke_off(tmp_path: Path, framing: bytes, scheme: str) -> None:
    async def break_off(wire: Wire) -> None:
        await wire.read_head()
        await wire.send(b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n\r\n5\r\nhello\r\n")
        await wire.aclose()

    async with raw_backend(break_off) as port, running_worker(tmp_path) as worker:
        await worker.route("s", "app", port)
        answer = await curl("-k", f"{worker.https if scheme == 'https' else worker.http}/s/app/")
        assert answer.code in (18, 56)  # a partial file, or a failure to receive
        assert (await worker.record(path="/s/app/"))["error"] == "body_truncated"


async def test_a_restarted_backend_costs_no_request(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content")
    port = free_port()
    config = {"pool": {"refused_for": 0}}  # it is back sooner than that
    async with running_worker(tmp_path / "w", config) as worker, worker.client() as client:
        await worker.route("s", "files", port)
        for _ in range(3):
            async with keep_alive_server(tmp_path, port) as server:
                for _ in range(5):
                    assert (await client.get(f"{worker.http}/s/files/file")).text == "content"
                server.signal(signal.SIGKILL)
                await server.ended()
            answer = await client.get(f"{worker.http}/s/files/file")
            assert (answer.status_code, answer.json()["code"]) == (502, "connect_failed")


async def test_a_kept_connection_closed_in_the_instant_of_its_reuse_costs_no_idempotent_request(tmp_path: Path) -> None:
    """The backend answers once on each connection, and hangs up when it sees a second request."""
    served = 0

    async def once(wire: Wire) -> None:
        nonlocal served
        await wire.read_head()
        await wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
        served += 1
        await wire.read_head()
        await wire.abort()

    async with raw_backend(once) as port, running_worker(tmp_path) as worker, worker.client() as client:
        await worker.route("s", "app", port)
        for _ in range(50):
            assert (await client.get(f"{worker.http}/s/app/")).text == "hi"
        assert served == 50
        retried = [await worker.record(path="/s/app/", retries=count) for count in (0, 1)]
        assert [record["status"] for record in retried] == [200, 200]
        # What is not idempotent is not sent twice: the client is told.
        answer = await client.post(f"{worker.http}/s/app/", content=b"order")
        assert (answer.status_code, answer.json()["code"]) == (502, "upstream_closed")


async def test_the_next_backend_takes_over_from_one_that_is_gone(tmp_path: Path) -> None:
    with refusing_port() as refusing:
        async with echo_backend() as echo, running_worker(tmp_path) as worker, worker.client() as client:
            await worker.route("s", "app", refusing, echo.port)
            for number in range(20):
                answer = await client.post(f"{worker.http}/s/app/{number}", content=b"x")
                assert answer.status_code == 200
            assert len(echo.asked) == 20


# --- a worker without files ----------------------------------------------------------------------------


async def hello(wire: Wire) -> None:
    while True:
        await wire.read_head()
        await wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")


async def answers(worker: Worker) -> bool:
    with suppress(httpx.TransportError):
        async with worker.client() as client:
            return (await client.get(f"{worker.http}/s/app/", timeout=2)).status_code == 200
    await trio.lowlevel.checkpoint()
    return False


@pytest.mark.parametrize("processes", [0, 2])
async def test_a_worker_without_files_pauses_accepting_and_comes_back(tmp_path: Path, processes: int) -> None:
    config = {"worker": {"processes": processes}}
    async with (
        echo_backend() as echo,
        raw_backend(hello) as never_reached,
        running_worker(tmp_path, config) as worker,
    ):
        await worker.route("s", "app", echo.port)
        await worker.route("s", "cold", never_reached)
        assert await answers(worker)
        running_one = Wire(await trio.open_tcp_stream("127.0.0.1", worker.port(worker.http)))
        for pid in worker.pids():
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (64, 64))
        forwarders = worker.forwarders()
        async with AsyncExitStack() as held:
            for _ in range(150):
                stream = await trio.open_tcp_stream("127.0.0.1", worker.port(worker.http))
                held.push_async_callback(stream.aclose)
            await worker.logged("not accepting connections")
            assert all(len(files_of(pid)) <= 64 for pid in worker.pids())
            assert worker.program.code is None
            assert worker.forwarders() == forwarders
            # Who is in can still be answered, if only that there is nothing left to reach a backend with.
            await running_one.send(b"GET /nobody/home/ HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await running_one.read_response()).status == 404
            await running_one.send(b"GET /s/cold/ HTTP/1.1\r\nHost: x\r\n\r\n")
            refusal = await running_one.read_response()
            assert (refusal.status, json.loads(refusal.body)["code"]) == (503, "overloaded")
            backends = (await worker.call("GET", "/v1/backends")).json()["backends"] if processes else []
            assert all(one["failures"] == 0 for one in backends)
        await eventually(lambda: answers(worker), seconds=20)
        assert await worker.ready()
        assert "accept_pauses" in (await worker.call("GET", "/metrics")).text
        await running_one.send(b"GET /s/cold/ HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await running_one.read_response()).status == 200
        await running_one.aclose()


async def test_a_port_that_accepts_and_never_answers_holds_up_nobody_else(tmp_path: Path) -> None:
    silent = trio.Event()

    async def say_nothing(stream: trio.SocketStream) -> None:
        silent.set()
        await trio.sleep_forever()

    config = {"timeouts": {"response_head": 1}}
    async with listening(say_nothing) as port, echo_backend() as echo, running_worker(tmp_path, config) as worker:
        await worker.route("s", "silent", port)
        await worker.route("s", "app", echo.port)
        async with worker.client() as client, trio.open_nursery() as nursery:
            waiting: list[httpx.Response] = []

            async def wait() -> None:
                waiting.append(await client.get(f"{worker.http}/s/silent/"))

            nursery.start_soon(wait)
            await silent.wait()
            assert (await client.get(f"{worker.http}/s/app/")).status_code == 200
        assert (waiting[0].status_code, waiting[0].json()["code"]) == (504, "response_timeout")
