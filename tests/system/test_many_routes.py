"""A table of 100 000 routes: it reaches every forwarder while requests go on, and a change of it does too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import trio
from backends import raw_backend
from forwarders import connections_to_each, forwarders, get
from processes import eventually
from worker import Worker, memory_of, running_worker

from trioproxy.testing import Wire

MANY = 100_000
TWO: dict[str, Any] = {"worker": {"processes": 2, "drain_timeout": 5}}
MOST_MEMORY = 1024 * 2**20
"""Bytes that each process may ever have had: a body, a table and the one before it, and not several of them."""


async def hello(wire: Wire) -> None:
    while True:
        await wire.read_head()
        await wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")


def route(session_id: str, port: int) -> dict[str, Any]:
    return {"session_id": session_id, "service": "v", "backends": [{"host": "127.0.0.1", "port": port}]}


async def caught_up(worker: Worker) -> bool:
    version = (await worker.call("GET", "/v1/worker")).json()["table_version"]
    return {one["table_version"] for one in await forwarders(worker)} == {version}


async def test_many_routes_reach_every_forwarder_and_no_request_fails(tmp_path: Path) -> None:
    async with raw_backend(hello) as port, running_worker(tmp_path, TWO) as worker:
        await worker.route("kept", "v", port)
        body = {"routes": [route("kept", port), *(route(f"s{number}", port) for number in range(MANY))]}
        async with connections_to_each(worker, "/kept/v/", 3) as found, trio.open_nursery() as nursery:
            answered = dict.fromkeys(found, 0)

            async def ask(server: bytes, wire: Wire) -> None:
                while True:
                    assert (await get(wire, "/kept/v/")).status == 200
                    answered[server] += 1
                    await trio.sleep(0.005)  # leaves the machine some room

            for server, wires in found.items():
                for wire in wires[:2]:
                    nursery.start_soon(ask, server, wire)
            before = dict(answered)
            answer = await worker.call("PUT", "/v1/routes", json=body)
            assert answer.status_code in (200, 202), answer.text  # 202: a slow machine is still at it
            await eventually(lambda: caught_up(worker), seconds=30)
            assert all(answered[server] > before[server] for server in found)

            await worker.route("late", "v", port)
            for wires in found.values():
                for path in ("/s0/v/", f"/s{MANY - 1}/v/", "/late/v/"):
                    assert (await get(wires[2], path)).status == 200
            nursery.cancel_scope.cancel()
        assert max(memory_of(pid, "VmHWM") for pid in worker.pids()) < MOST_MEMORY
