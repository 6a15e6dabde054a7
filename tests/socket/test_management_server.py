from __future__ import annotations

import errno
import json
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import httpx
import pytest
import trio
from management_fake import TOKEN, FakeWorker, route

from trioproxy.management import server
from trioproxy.management.app import create_app
from trioproxy.management.bodies import MIB
from trioproxy.management.server import serve_management

AUTH = {"Authorization": f"Bearer {TOKEN}"}
LIMIT = 20
"""Seconds a test may wait for anything before it fails."""


class Served:
    """A running server. `stop` begins its end; `ended` is set when `serve_management` has returned."""

    def __init__(self, address: tuple[str, int] | str, announced: list[str]) -> None:
        self.address = address
        self.announced = announced
        self.stop = trio.Event()
        self.ended = trio.Event()

    def client(self, **how: object) -> httpx.AsyncClient:
        if isinstance(self.address, str):
            transport = httpx.AsyncHTTPTransport(uds=self.address)
            return httpx.AsyncClient(transport=transport, base_url="http://localhost", headers=AUTH, timeout=LIMIT)
        url = f"http://127.0.0.1:{self.address[1]}"
        return httpx.AsyncClient(base_url=url, headers=AUTH, timeout=LIMIT, trust_env=False)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@asynccontextmanager
async def serving(worker: FakeWorker, sock: socket.socket | None = None) -> AsyncIterator[Served]:
    if sock is None:
        sock = socket.socket()
        sock.bind(("127.0.0.1", 0))
        sock.listen()
    stop = trio.Event()
    with trio.fail_after(LIMIT):
        async with trio.open_nursery() as nursery:
            ended = trio.Event()

            async def run(task_status: trio.TaskStatus[list[str]]) -> None:
                app = create_app(worker, token=TOKEN)
                await serve_management(app, sock, shutdown_trigger=stop.wait, task_status=task_status)
                ended.set()

            address = sock.getsockname()
            served = Served(address, await nursery.start(run))
            served.stop, served.ended = stop, ended
            yield served
            stop.set()
    assert sock.fileno() == -1


async def test_the_server_answers_once_started_and_knows_its_address() -> None:
    async with serving(FakeWorker()) as served, served.client() as client:
        assert served.announced == [str(client.base_url).rstrip("/")]
        response = await client.get("/livez")
        assert (response.status_code, response.json()) == (200, {"alive": True})
        assert "server" not in response.headers


async def test_the_server_answers_on_a_unix_socket(tmp_path: Path) -> None:
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(tmp_path / "m"))
    sock.listen()
    async with serving(FakeWorker(), sock) as served, served.client() as client:
        assert (await client.get("/v1/worker")).status_code == 200


async def test_a_call_without_the_token_is_401() -> None:
    async with serving(FakeWorker()) as served, served.client() as client:
        response = await client.get("/v1/routes", headers={"Authorization": "Bearer wrong"})
        assert (response.status_code, response.headers["www-authenticate"]) == (401, "Bearer")
        assert (await client.get("/v1/routes")).status_code == 200


async def test_a_listing_of_10_000_routes_is_streamed_and_304_the_second_time() -> None:
    worker = FakeWorker()
    worker.catalog.replace("store", [route(f"s{number}") for number in range(10_000)])
    async with serving(worker) as served, served.client() as client:
        response = await client.get("/v1/routes")
        assert len(response.json()["routes"]) == 10_000
        assert response.headers["transfer-encoding"] == "chunked"
        again = await client.get("/v1/routes", headers={"If-None-Match": response.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        put = await client.put("/v1/routes", content=response.content, headers={"Content-Type": "application/json"})
        assert put.json() == {"version": response.json()["version"], "applied": True}


async def test_a_route_is_put_got_and_removed_over_one_connection() -> None:
    worker = FakeWorker()
    async with serving(worker) as served, served.client() as client:
        body = {"backends": [{"host": "10.0.0.5", "port": 8888}]}
        assert (await client.put("/v1/routes/s1/jupyter", json=body)).status_code == 201
        assert (await client.get("/v1/routes/s1/jupyter")).json()["backends"][0]["port"] == 8888
        deleted = await client.delete("/v1/routes/s1/jupyter")
        assert (deleted.status_code, deleted.content) == (204, b"")
        assert "content-length" not in deleted.headers
        assert (await client.head("/v1/routes")).content == b""
        assert (await client.get("/v1/routes/s1/jupyter")).status_code == 404


@pytest.mark.parametrize("path", ["/v1/routes/s1%2Fjupyter", "/v1/routes/s1%2fjupyter"])
async def test_an_encoded_slash_does_not_pass_for_the_end_of_a_segment(path: str) -> None:
    worker = FakeWorker()
    worker.catalog.replace("store", [route()])
    async with serving(worker) as served, served.client() as client:
        response = await client.delete(path)
        assert (response.status_code, response.json()["code"]) == (400, "bad_request")
    assert ("s1", "jupyter") in worker.catalog.table.routes


async def test_events_are_streamed_to_a_real_client_and_end_cleanly_when_the_server_stops() -> None:
    worker = FakeWorker()
    worker.tell("route", number=1)
    worker.tell("route", number=2)
    async with serving(worker) as served, served.client() as client:
        async with client.stream("GET", "/v1/events", headers={"Last-Event-ID": "1"}) as response:
            assert response.headers["content-type"] == "text/event-stream"
            lines = aiter(response.aiter_lines())

            async def field(name: str) -> str:
                while not (line := await anext(lines)).startswith(f"{name}: "):
                    pass
                return line.removeprefix(f"{name}: ")

            assert (await field("id"), await field("event")) == ("2", "route")
            worker.tell("drain", grace=30)
            assert await field("event") == "drain"
            assert json.loads(await field("data"))["detail"] == {"grace": 30}
            served.stop.set()
            assert [line async for line in lines if line] == []
        await served.ended.wait()
    assert worker.watchers == []


async def test_events_of_a_client_that_left_are_let_go() -> None:
    worker = FakeWorker()
    async with serving(worker) as served, served.client() as client:
        async with client.stream("GET", "/v1/events") as response:
            await anext(response.aiter_lines())
            assert len(worker.watchers) == 1
        await worker.unwatched.wait()


async def test_a_body_too_large_is_answered_although_the_client_still_sends() -> None:
    async with serving(FakeWorker()) as served, served.client() as client:
        response = await client.put(
            "/v1/routes/s1/jupyter", content=b" " * (8 * MIB), headers={"Content-Type": "application/json"}
        )
        assert (response.status_code, response.json()["code"]) == (413, "body_too_large")
        unauthorized = await client.put("/v1/routes", content=b" " * (8 * MIB), headers={"Authorization": "no"})
        assert unauthorized.status_code == 401


@pytest.mark.parametrize(("path", "status"), [("/v1/worker", 400), ("/nothing", 404)])
async def test_a_websocket_upgrade_is_refused(path: str, status: int) -> None:
    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
    }
    async with serving(FakeWorker()) as served, served.client() as client:
        response = await client.get(path, headers=upgrade)
        assert (response.status_code, response.json()["status"]) == (status, status)


async def test_an_http_1_0_client_gets_the_listing_up_to_the_end_of_the_connection() -> None:
    worker = FakeWorker()
    worker.catalog.replace("store", [route(f"s{number}") for number in range(1000)])
    async with serving(worker) as served:
        assert isinstance(served.address, tuple)
        async with await trio.open_tcp_stream(*served.address) as stream:
            await stream.send_all(f"GET /v1/routes HTTP/1.0\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode())
            answer = b"".join([chunk async for chunk in stream])
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"200" in head.split(b"\r\n")[0]
    assert len(json.loads(body)["routes"]) == 1000


async def test_a_client_that_stops_reading_cannot_hold_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "STALLED_READER_MS", 500)
    worker = FakeWorker()
    worker.catalog.replace("store", [route(f"s{number}", metadata={"x": "y" * 8000}) for number in range(2000)])
    async with serving(worker) as served:
        assert isinstance(served.address, tuple)
        stalled = await trio.open_tcp_stream(*served.address)
        await stalled.send_all(f"GET /v1/routes HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode())
        assert await stalled.receive_some(12) == b"HTTP/1.1 200"
        served.stop.set()
        await served.ended.wait()
        await stalled.aclose()


async def test_a_connection_is_closed_when_the_client_asks_for_that() -> None:
    async with serving(FakeWorker()) as served:
        assert isinstance(served.address, tuple)
        for _ in range(5):
            async with await trio.open_tcp_stream(*served.address) as stream:
                await stream.send_all(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                assert b"".join([chunk async for chunk in stream]).endswith(b'{"alive":true}')


async def test_a_kept_connection_is_closed_when_it_has_been_idle_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "IDLE_SECONDS", 0.2)
    async with serving(FakeWorker()) as served:
        assert isinstance(served.address, tuple)
        for request in (b"", b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"):
            async with await trio.open_tcp_stream(*served.address) as stream:
                await stream.send_all(request)
                assert b"".join([chunk async for chunk in stream]).endswith(b'{"alive":true}' if request else b"")


async def test_an_idle_connection_does_not_hold_up_the_end() -> None:
    async with serving(FakeWorker()) as served:
        assert isinstance(served.address, tuple)
        async with served.client() as client, await trio.open_tcp_stream(*served.address) as silent:
            await client.get("/livez")
            served.stop.set()
            with trio.fail_after(1):
                await served.ended.wait()
            assert await silent.receive_some() == b""


async def test_a_slow_call_has_a_moment_to_finish_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "GRACE_SECONDS", 0.3)
    worker = FakeWorker()
    worker.block = trio.Event()
    async with serving(worker) as served, served.client() as client, trio.open_nursery() as nursery:

        async def slow() -> None:
            with pytest.raises(httpx.RemoteProtocolError):
                await client.get("/v1/backends")

        nursery.start_soon(slow)
        await worker.called.wait()
        served.stop.set()
        await served.ended.wait()


async def test_nothing_is_left_open() -> None:
    worker = FakeWorker()
    async with serving(worker) as served, served.client() as client:
        await client.get("/metrics")
    before = open_files()
    for _ in range(3):
        async with serving(worker) as served, served.client() as client:
            await client.get("/v1/routes")
            async with client.stream("GET", "/v1/events") as response:
                await anext(response.aiter_lines())
    assert open_files() == before


async def test_a_socket_that_cannot_listen_is_a_plain_error() -> None:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    app = create_app(FakeWorker(), token=TOKEN)
    with pytest.raises(OSError) as caught:
        await serve_management(app, sock, shutdown_trigger=trio.sleep_forever)
    assert caught.value.errno == errno.EOPNOTSUPP
    assert sock.fileno() == -1


@pytest.mark.parametrize("closing", [b"Connection: close\r\n", b""])
async def test_callers_that_leave_inside_their_body_cost_only_their_connections(closing: bytes) -> None:
    hostile = b"GET /livez HTTP/1.1\r\nHost: x\r\n" + closing + b"Content-Length: 100\r\n\r\na"

    async with serving(FakeWorker()) as served, served.client() as client:

        async def leave() -> None:
            stream = await trio.open_tcp_stream(served.address[0], int(served.address[1]))
            await stream.send_all(hostile)
            await stream.aclose()

        for _ in range(10):
            async with trio.open_nursery() as nursery:
                for _ in range(10):
                    nursery.start_soon(leave)
        assert (await client.get("/livez")).status_code == 200
        assert not served.ended.is_set()


async def test_a_bug_in_the_trigger_leaves_as_it_came() -> None:
    async def broken() -> None:
        await trio.lowlevel.checkpoint()
        raise ZeroDivisionError

    app = create_app(FakeWorker(), token=TOKEN)
    with pytest.RaisesGroup(ZeroDivisionError, flatten_subgroups=True):
        await serve_management(app, socket.create_server(("127.0.0.1", 0)), shutdown_trigger=broken)


async def test_the_server_does_not_talk_and_its_errors_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with serving(FakeWorker()) as served, served.client() as client:
        await client.get("/livez")
    assert [record for record in caplog.records if record.name.startswith("trioproxy")] == []


async def test_an_app_can_be_served_again() -> None:
    app = create_app(FakeWorker(), token=TOKEN)
    for _ in range(2):
        sock = socket.create_server(("127.0.0.1", 0))
        stop = trio.Event()
        async with trio.open_nursery() as nursery:
            (url,) = await nursery.start(partial(serve_management, app, sock, shutdown_trigger=stop.wait))
            client = Served(sock.getsockname(), [url]).client()
            async with client, client.stream("GET", "/v1/events") as response:
                assert await anext(response.aiter_lines()) == "retry: 3000"
            stop.set()
