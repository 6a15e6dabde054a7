"""A change of routes in a running worker touches what it names, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from backends import echo_backend, websocket_backend
from processes import eventually
from websockets.exceptions import ConnectionClosed
from websockets.trio.client import ClientConnection, connect
from worker import Worker, running_worker


def dial(worker: Worker, service: str) -> connect:
    return connect(f"{worker.http.replace('http', 'ws')}/s/{service}/", proxy=None)


async def echoes(websocket: ClientConnection) -> None:
    await websocket.send("hello")
    with trio.fail_after(10):
        assert await websocket.recv() == "hello"


async def code_of_the_end(websocket: ClientConnection) -> int | None:
    with trio.fail_after(15), pytest.raises(ConnectionClosed):
        await websocket.recv()
    return websocket.close_code


@pytest.mark.parametrize("mode", ["message", "relay"])
async def test_removing_a_route_ends_its_streams_after_their_grace_and_no_others(tmp_path: Path, mode: str) -> None:
    config = {"worker": {"drain_timeout": 1}, "websocket": {"mode": mode}}
    async with websocket_backend() as backend, running_worker(tmp_path, config) as worker:
        await worker.route("s", "kept", backend.port)
        await worker.route("s", "gone", backend.port)
        async with dial(worker, "kept") as kept, dial(worker, "gone") as gone:
            await echoes(kept)
            await echoes(gone)
            assert (await worker.call("DELETE", "/v1/routes/s/gone")).status_code == 204
            async with worker.client() as client:
                assert (await client.get(f"{worker.http}/s/gone/")).status_code == 404
            assert await code_of_the_end(gone) == 1001
            await echoes(kept)
        assert (await worker.record(service="gone", kind="websocket"))["error"] == "route_removed"
        assert (await worker.record(service="kept", kind="websocket"))["error"] is None


async def test_a_route_that_keeps_a_backend_keeps_its_streams(tmp_path: Path) -> None:
    config = {"worker": {"drain_timeout": 1}}
    async with (
        websocket_backend() as first,
        websocket_backend() as second,
        running_worker(tmp_path, config) as worker,
    ):
        await worker.route("s", "ws", first.port)
        async with dial(worker, "ws") as old:
            await echoes(old)
            await worker.route("s", "ws", first.port, second.port)
            await echoes(old)
            await worker.route("s", "ws", second.port)
            async with dial(worker, "ws") as new:
                await echoes(new)
                assert await code_of_the_end(old) == 1001
                await echoes(new)


async def test_a_change_is_in_force_when_it_is_answered(tmp_path: Path) -> None:
    async with (
        echo_backend() as first,
        echo_backend() as second,
        running_worker(tmp_path) as worker,
        worker.client() as client,
    ):
        for number in range(20):
            await worker.route("s", "app", (first, second)[number % 2].port)
            assert (await client.get(f"{worker.http}/s/app/")).status_code == 200
        assert (len(first.asked), len(second.asked)) == (10, 10)


async def test_a_connection_can_be_listed_and_closed(tmp_path: Path) -> None:
    async with websocket_backend() as backend, running_worker(tmp_path) as worker:
        await worker.route("s", "ws", backend.port)
        async with dial(worker, "ws") as one, dial(worker, "ws") as other:
            await echoes(one)
            await echoes(other)
            listed = (await worker.call("GET", "/v1/connections")).json()["connections"]
            assert [(item["kind"], item["session_id"], item["service"]) for item in listed] == [
                ("websocket", "s", "ws")
            ] * 2
            assert (await worker.call("DELETE", f"/v1/connections/{listed[0]['id']}")).status_code == 204
            assert await code_of_the_end(one) == 1001
            await echoes(other)

            async def only_one_left() -> bool:
                return (await worker.call("GET", "/v1/connections")).json()["total"] == 1

            await eventually(only_one_left)
