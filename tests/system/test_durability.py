"""What the management API has confirmed is there after the worse kind of end."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import httpx
import trio
from backends import echo_backend
from worker import Worker, running_worker


async def listing(worker: Worker) -> tuple[int, set[tuple[str, str]]]:
    answer = (await worker.call("GET", "/v1/routes")).json()
    return answer["version"], {(route["session_id"], route["service"]) for route in answer["routes"]}


def route_to(port: int) -> dict[str, Any]:
    return {"backends": [{"host": "127.0.0.1", "port": port}]}


async def test_a_confirmed_route_survives_sigkill_at_once_and_is_served_again(tmp_path: Path) -> None:
    version = 0
    async with echo_backend() as echo:
        for round_ in range(4):
            async with running_worker(tmp_path) as worker:
                found, routes = await listing(worker)
                assert found >= version
                assert routes == {("s", str(number)) for number in range(round_)}
                for _, service in routes:
                    async with worker.client() as client:
                        assert (await client.get(f"{worker.https}/s/{service}/")).status_code == 200
                answer = await worker.call("PUT", f"/v1/routes/s/{round_}", json=route_to(echo.port))
                worker.program.signal(signal.SIGKILL)
                assert answer.status_code == 201
                version = int(answer.headers["etag"].strip('"'))
                assert await worker.program.ended() == -signal.SIGKILL


async def test_a_confirmed_removal_survives_sigkill(tmp_path: Path) -> None:
    async with running_worker(tmp_path) as worker:
        await worker.route("s", "kept", 1)
        await worker.route("s", "gone", 1)
        assert (await worker.call("DELETE", "/v1/routes/s/gone")).status_code == 204
        worker.program.signal(signal.SIGKILL)
        assert await worker.program.ended() == -signal.SIGKILL
    async with running_worker(tmp_path) as worker:
        assert (await listing(worker))[1] == {("s", "kept")}


async def test_of_a_burst_cut_by_sigkill_everything_confirmed_is_there(tmp_path: Path) -> None:
    confirmed: set[tuple[str, str]] = set()
    enough = trio.Event()

    async def write(worker: Worker, writer: int) -> None:
        async with httpx.AsyncClient(
            base_url=worker.management, headers={"Authorization": f"Bearer {worker.token}"}, trust_env=False, timeout=20
        ) as client:
            for number in range(1000):
                key = (f"w{writer}", str(number))
                try:
                    answer = await client.put(f"/v1/routes/{key[0]}/{key[1]}", json=route_to(1))
                except httpx.TransportError:
                    return
                assert answer.status_code == 201, answer.text
                confirmed.add(key)
                if len(confirmed) >= 50:
                    enough.set()

    async with running_worker(tmp_path) as worker, trio.open_nursery() as nursery:
        for writer in range(4):
            nursery.start_soon(write, worker, writer)
        await enough.wait()
        seen, _ = await listing(worker)
        worker.program.signal(signal.SIGKILL)
        assert await worker.program.ended() == -signal.SIGKILL
    async with running_worker(tmp_path) as worker:
        version, routes = await listing(worker)
    assert confirmed <= routes
    assert len(routes) <= len(confirmed) + 4  # a write may have been kept and its answer lost
    assert version >= seen
