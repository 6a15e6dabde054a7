"""Forwarder processes: they share the work, and the death of one is felt by nobody but its own connections."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import trio
from backends import raw_backend
from forwarders import (
    all_ready,
    connections_to_each,
    dial,
    forwarders,
    get,
    get_fresh,
    hurt,
    is_gone,
    metric,
    server_of,
    speak_for,
)
from processes import eventually
from worker import Worker, running_worker

from trioproxy.testing import Wire

TWO: dict[str, Any] = {"worker": {"processes": 2, "drain_timeout": 5}}


async def hello(wire: Wire) -> None:
    """A backend that answers at once, but for /slow, which it never does."""
    while True:
        head = await wire.read_head()
        if b"/slow" in head:
            await wire.read_all()
        await wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")


async def test_by_default_there_is_a_forwarder_for_each_core(tmp_path: Path) -> None:
    async with running_worker(tmp_path) as worker:
        found = await forwarders(worker)
        assert len(found) == len(os.sched_getaffinity(0))
        assert {one["pid"] for one in found} == set(worker.forwarders())
        assert {one["state"] for one in found} == {"ready"}
        assert {one["table_version"] for one in found} == {
            (await worker.call("GET", "/v1/worker")).json()["table_version"]
        }


@pytest.mark.parametrize("processes", [0, 1, 3])
async def test_so_many_processes_carry_traffic_as_were_asked_for(tmp_path: Path, processes: int) -> None:
    config = {"worker": {"processes": processes}}
    async with raw_backend(hello) as port, running_worker(tmp_path, config) as worker:
        await worker.route("s", "v", port)
        assert len(worker.forwarders()) == processes
        assert len(await forwarders(worker)) == max(processes, 1)
        async with trio.open_nursery() as nursery:
            seen: Counter[bytes] = Counter()

            async def ask() -> None:
                wire = await dial(worker)
                for _ in range(20):
                    seen[server_of(await get(wire, "/s/v/"))] += 1
                await wire.aclose()

            for _ in range(30):
                nursery.start_soon(ask)
        assert len(seen) == max(processes, 1)
        assert await metric(worker, "trioproxy_requests_total") == 600


async def test_a_route_is_served_on_every_connection_once_it_was_set(tmp_path: Path) -> None:
    async with raw_backend(hello) as port, running_worker(tmp_path, TWO) as worker:
        for number in range(10):
            await worker.route("s", f"v{number}", port)
            statuses = [(await get_fresh(worker, f"/s/v{number}/")).status for _ in range(50)]
            assert statuses == [200] * 50
            assert (await worker.call("DELETE", f"/v1/routes/s/v{number}")).status_code == 204
            statuses = [(await get_fresh(worker, f"/s/v{number}/")).status for _ in range(10)]
            assert statuses == [404] * 10


async def test_a_killed_forwarder_costs_the_requests_it_held_and_no_others(tmp_path: Path) -> None:
    async with raw_backend(hello) as port, running_worker(tmp_path, TWO) as worker:
        await worker.route("s", "v", port)
        async with connections_to_each(worker, "/s/v/", 4) as connections:
            fates: dict[bytes, list[str]] = {server: [] for server in connections}
            killed = trio.Event()

            async def hold(server: bytes, wire: Wire) -> None:
                await wire.send(b"GET /s/v/slow HTTP/1.1\r\nHost: worker\r\n\r\n")
                try:
                    await wire.read_head()
                except (EOFError, trio.BrokenResourceError):
                    fates[server].append("cut")

            async def keep_asking(server: bytes, wire: Wire) -> None:
                for number in range(200):
                    try:
                        assert (await get(wire, "/s/v/")).status == 200
                    except (EOFError, trio.BrokenResourceError):
                        fates[server].append("cut")
                        return
                    if number > 20:
                        await killed.wait()
                fates[server].append("whole")

            async def come_anew() -> None:
                for _ in range(200):
                    assert (await get_fresh(worker, "/s/v/")).status == 200

            async with trio.open_nursery() as holders:
                for server, wires in connections.items():
                    holders.start_soon(hold, server, wires[0])
                async with trio.open_nursery() as askers:
                    for server, wires in connections.items():
                        for wire in wires[1:]:
                            askers.start_soon(keep_asking, server, wire)
                    await eventually(lambda: in_flight(worker, 2))  # what is held, and the others have asked a while
                    victim = worker.forwarders()[0]
                    hurt(victim, signal.SIGKILL)
                    killed.set()
                    askers.start_soon(come_anew)
                    askers.start_soon(come_anew)
                await all_ready(worker, restarts=1)
                holders.cancel_scope.cancel()
            lost, kept = sorted(fates.values(), key=lambda each: "whole" in each)
            assert set(lost) == {"cut"}
            assert set(kept) == {"whole"}
            assert victim not in worker.forwarders()
            assert "was killed by SIGKILL" in await worker.logged("a forwarder ended and will be replaced")
            assert await metric(worker, "trioproxy_forwarder_restarts_total") == 1


async def test_a_lone_forwarder_is_replaced_while_connections_wait(tmp_path: Path) -> None:
    config = {"worker": {"processes": 1}}
    async with raw_backend(hello) as port, running_worker(tmp_path, config) as worker:
        await worker.route("s", "v", port)
        for restarts in (1, 2, 3):
            hurt(worker.forwarders()[0], signal.SIGKILL)
            assert (await get_fresh(worker, "/s/v/")).status == 200
            await all_ready(worker, restarts)
        assert await worker.ready()


async def test_sums_do_not_fall_when_forwarders_die_and_gauges_do(tmp_path: Path) -> None:
    async with raw_backend(hello) as port, running_worker(tmp_path, TWO) as worker:
        await worker.route("s", "v", port)
        begun, sums = time.time(), [0.0]
        for restarts in (1, 2, 3):
            async with connections_to_each(worker, "/s/v/", 3):
                sums.append(await metric(worker, "trioproxy_requests_total"))
                assert await metric(worker, "trioproxy_connections") >= 6
                hurt(worker.forwarders()[restarts % 2], signal.SIGKILL)
                await all_ready(worker, restarts)
                sums.append(await metric(worker, "trioproxy_requests_total"))
        assert sums == sorted(sums)
        assert sums[-1] >= 18
        await eventually_no_connections(worker)
        inactive = await worker.call("GET", "/v1/routes", params={"inactive_since": begun})
        assert inactive.json()["routes"] == []


async def eventually_no_connections(worker: Worker) -> None:
    async def none() -> bool:
        return await metric(worker, "trioproxy_connections") == 0

    await eventually(none)


async def test_a_forwarder_that_hangs_is_replaced_and_holds_up_nobody(tmp_path: Path) -> None:
    async with raw_backend(hello) as port, running_worker(tmp_path, TWO) as worker:
        await worker.route("s", "v", port)
        victim, other = worker.forwarders()
        hurt(victim, signal.SIGSTOP)
        for _ in range(50):
            assert (await get_fresh(worker, "/s/v/")).status == 200
        # A write waits for the hung one, says that it has not followed, and is served by the other.
        answer = await worker.call("PUT", "/v1/routes/s/w", json={"backends": [{"host": "127.0.0.1", "port": port}]})
        assert answer.status_code in (201, 202)
        assert (await get_fresh(worker, "/s/w/")).status == 200
        assert "gave no sign of life" in await worker.logged("a forwarder ended and will be replaced")
        await all_ready(worker, restarts=1)
        assert is_gone(victim)
        assert other in worker.forwarders()
        for _ in range(20):
            assert (await get_fresh(worker, "/s/w/")).status == 200


async def test_garbage_on_the_control_channel_costs_that_forwarder_and_nothing_else(tmp_path: Path) -> None:
    async with raw_backend(hello) as port, running_worker(tmp_path, TWO) as worker:
        await worker.route("s", "v", port)
        for restarts, garbage in enumerate((b"\0\0\0\5hello", b"GET / HTTP/1.1\r\n\r\n"), 1):
            victim = worker.forwarders()[0]
            try:
                speak_for(victim, garbage)
            except PermissionError:
                pytest.skip("this kernel does not let one process use another's descriptors")
            await all_ready(worker, restarts)
            assert is_gone(victim)
            assert (await get_fresh(worker, "/s/v/")).status == 200
        assert "control channel" in await worker.logged("a forwarder ended and will be replaced")


# --- the end -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_to_the_whole_group_is_one_drain(tmp_path: Path, number: signal.Signals) -> None:
    async with raw_backend(slowly) as port, running_worker(tmp_path, TWO) as worker:
        await worker.route("s", "v", port)
        async with connections_to_each(worker, "/s/v/", 1) as connections:
            wires = [wires[0] for wires in connections.values()]
            for wire in wires:
                await wire.send(b"GET /s/v/slow HTTP/1.1\r\nHost: worker\r\n\r\n")
            await eventually(lambda: in_flight(worker, 2))
            os.killpg(worker.program.pid, number)
            for wire in wires:
                answer = await wire.read_response()
                assert (answer.status, answer.values("connection")) == (200, [b"close"])
            assert await worker.program.ended() == 0
            assert can_bind(worker.port(worker.http))


async def slowly(wire: Wire) -> None:
    """A backend that takes its time for /slow."""
    while True:
        head = await wire.read_head()
        if b"/slow" in head:
            await trio.sleep(1)  # the time it takes
        await wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")


async def in_flight(worker: Worker, count: int) -> bool:
    backends = (await worker.call("GET", "/v1/backends")).json()["backends"]
    return sum(backend["in_flight"] for backend in backends) == count


def can_bind(port: int) -> bool:
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1", port))
            sock.listen()
        except OSError:
            return False
    return True


async def test_without_their_supervisor_forwarders_finish_and_leave_nothing_behind(tmp_path: Path) -> None:
    async with raw_backend(slowly) as port, running_worker(tmp_path, TWO) as worker:
        await worker.route("s", "v", port)
        pids = worker.pids()
        async with connections_to_each(worker, "/s/v/", 1) as connections:
            wires = [wires[0] for wires in connections.values()]
            for wire in wires:
                await wire.send(b"GET /s/v/slow HTTP/1.1\r\nHost: worker\r\n\r\n")
            await eventually(lambda: in_flight(worker, 2))
            worker.program.signal(signal.SIGKILL)
            await worker.program.ended()
            await eventually(lambda: can_bind(worker.port(worker.http)), seconds=5)
            for wire in wires:
                assert (await wire.read_response()).status == 200
            await eventually(lambda: all(is_gone(pid) for pid in pids), seconds=10)


async def test_a_supervisor_that_dies_at_once_leaves_no_forwarder_behind(tmp_path: Path) -> None:
    async with running_worker(tmp_path, TWO) as worker:
        victim, _ = worker.forwarders()
        hurt(victim, signal.SIGKILL)
        await eventually(lambda: len(worker.forwarders()) == 2 and victim not in worker.forwarders())
        pids = worker.pids()  # one of them is still importing
        worker.program.signal(signal.SIGKILL)
        await worker.program.ended()
        await eventually(lambda: all(is_gone(pid) for pid in pids), seconds=10)


async def test_a_forwarder_that_cannot_be_started_fails_the_start(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "sitecustomize.py").write_text("import os\nos.register_at_fork(after_in_child=lambda: os._exit(7))\n")
    with pytest.raises(EOFError, match="no forwarder could be started; one of them ended with exit code 7"):
        async with running_worker(tmp_path, TWO, environ={"PYTHONPATH": str(broken)}):
            pass
