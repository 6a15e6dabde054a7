"""Active checks, operators' words and ejections, with real forwarder processes and real backends."""

from __future__ import annotations

import json
import signal
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import trio
from backends import Echo, echo_backend, raw_backend
from forwarders import all_ready, connections_to_each, get, get_fresh, hurt, metric
from processes import eventually, refusing_port
from worker import Worker, running_worker

from trioproxy.testing import Wire

TWO: dict[str, Any] = {"worker": {"processes": 2, "drain_timeout": 5}}
QUICK: dict[str, Any] = {"kind": "http", "interval": 0.3, "timeout": 0.5, "healthy_after": 2, "unhealthy_after": 3}


async def states(worker: Worker) -> dict[str, str]:
    listed = (await worker.call("GET", "/v1/backends")).json()["backends"]
    return {entry["backend_id"].rpartition(":")[2]: entry["state"] for entry in listed}


def become(worker: Worker, port: int, state: str) -> Callable[[], Awaitable[bool]]:
    async def did() -> bool:
        return (await states(worker))[str(port)] == state

    return did


async def served_by(worker: Worker, path: str, backends: list[Echo], count: int = 20) -> list[int]:
    """How many of so many requests, on connections of their own, each backend gets; checks are not counted."""

    def asked() -> list[int]:
        return [sum(one.target == "/served" for one in backend.asked) for backend in backends]

    before = asked()
    for _ in range(count):
        assert (await get_fresh(worker, f"{path}served")).status == 200
    return [after - earlier for earlier, after in zip(before, asked(), strict=True)]


async def health_events(worker: Worker, **wanted: str) -> list[dict[str, Any]]:
    """What the event log has kept of backends."""
    found: list[dict[str, Any]] = []
    async with worker.client(base_url=worker.management) as client:
        headers = {"Authorization": f"Bearer {worker.token}", "Last-Event-ID": "0"}
        with trio.move_on_after(1):
            async with client.stream("GET", "/v1/events", headers=headers) as stream:
                async for line in stream.aiter_lines():
                    if line.startswith("data:"):
                        detail = json.loads(line.removeprefix("data:"))
                        detail = detail.get("detail", detail)
                        if wanted.items() <= detail.items():
                            found.append(detail)
    return found


@asynccontextmanager
async def two_backends(worker: Worker, **fields: Any) -> AsyncGenerator[tuple[Echo, Echo, AsyncExitStack]]:
    """A route to two; the second one dies when the stack is closed."""
    async with echo_backend() as one, AsyncExitStack() as stack:
        two = await stack.enter_async_context(echo_backend())
        await worker.route("s", "v", one.port, two.port, **fields)
        yield one, two, stack


async def test_a_backend_that_dies_is_left_out_by_every_forwarder_until_it_is_back(tmp_path: Path) -> None:
    async with running_worker(tmp_path, TWO) as worker, two_backends(worker, health=QUICK) as (one, two, stack):
        before = worker.log_lines
        await eventually(become(worker, two.port, "healthy"))
        await stack.aclose()
        await eventually(become(worker, two.port, "unhealthy"))
        async with connections_to_each(worker, "/s/v/served", 2) as connections:
            for wire in (wire for wires in connections.values() for wire in wires):
                assert (await get(wire, "/s/v/served")).status == 200
        assert await served_by(worker, "/s/v/", [one, two]) == [20, 0]

        listed = (await worker.call("GET", "/v1/backends")).json()["backends"]
        (entry,) = [entry for entry in listed if entry["backend_id"] == two_id(two)]
        assert entry["reason"].startswith("failed 3 checks in a row: cannot connect to ")
        assert "connection refused" in entry["last_check_error"]
        assert entry["last_check_at"] > 0
        explained = (await worker.call("GET", "/v1/explain", params={"url": "/s/v/"})).json()
        assert f"Backend {two_id(two)} is unhealthy: {entry['reason']}." in explained["steps"]
        assert (await metric(worker, "trioproxy_backend_changes_total")) >= 1
        assert "connection refused" in await worker.logged("a backend is unhealthy", after=before)
        (event,) = await health_events(worker, state="unhealthy")
        assert (event["session_id"], event["service"], event["backend_id"]) == ("s", "v", two_id(two))
        assert (event["previous"], event["reason"]) == ("healthy", entry["reason"])

        async with echo_backend(two.port) as again:
            await eventually(become(worker, two.port, "healthy"))
            await worker.logged("a backend is healthy", after=before)
            assert all(await served_by(worker, "/s/v/", [one, again], count=40))


def two_id(backend: Echo) -> str:
    return f"127.0.0.1:{backend.port}"


async def test_a_forwarder_that_comes_later_knows_who_is_unhealthy_before_it_accepts(tmp_path: Path) -> None:
    health = QUICK | {"interval": 60, "unhealthy_after": 1}  # nobody will tell it after the start
    async with running_worker(tmp_path, TWO) as worker, echo_backend() as one:
        with refusing_port() as dead:
            await worker.route("s", "v", one.port, dead, health=health)
            await eventually(become(worker, dead, "unhealthy"))
            for restarts, pid in enumerate(worker.forwarders(), 1):
                hurt(pid, signal.SIGKILL)
                await all_ready(worker, restarts)
            dials = await metric(worker, "trioproxy_retries_total")
            assert await served_by(worker, "/s/v/", [one], count=40) == [40]
            assert await metric(worker, "trioproxy_retries_total") == dials
            assert (await states(worker))[str(dead)] == "unhealthy"


async def test_a_drained_backend_gets_nothing_new_in_any_forwarder_whatever_happens_to_route_and_forwarders(
    tmp_path: Path,
) -> None:
    async with running_worker(tmp_path, TWO) as worker, two_backends(worker) as (one, two, _):
        path = f"/v1/backends/s/v/{two_id(two)}"
        before = worker.log_lines
        with trio.fail_after(1):
            assert (await worker.call("POST", f"{path}/drain")).status_code == 200
        assert await served_by(worker, "/s/v/", [one, two]) == [20, 0]
        assert "an operator is draining it" in await worker.logged("a backend is draining", after=before)
        (event,) = await health_events(worker, state="draining")
        assert event["reason"] == "an operator is draining it"
        assert await metric(worker, 'trioproxy_backends{state="draining"}') == 1

        await worker.route("s", "v", one.port, two.port, metadata={"changed": True})
        assert await served_by(worker, "/s/v/", [one, two]) == [20, 0]
        for restarts, pid in enumerate(worker.forwarders(), 1):
            hurt(pid, signal.SIGKILL)
            await all_ready(worker, restarts)
        assert await served_by(worker, "/s/v/", [one, two]) == [20, 0]

        await worker.call("POST", f"{path}/enable")
        assert all(await served_by(worker, "/s/v/", [one, two], count=40))


async def test_what_was_said_of_a_backend_goes_with_it(tmp_path: Path) -> None:
    async with running_worker(tmp_path, TWO) as worker, two_backends(worker) as (one, two, _):
        await worker.call("POST", f"/v1/backends/s/v/{two_id(two)}/disable")
        await worker.route("s", "v", one.port)
        await worker.route("s", "v", one.port, two.port)
        assert all(await served_by(worker, "/s/v/", [one, two], count=40))


async def test_a_disabled_backend_is_not_checked(tmp_path: Path) -> None:
    async with running_worker(tmp_path, TWO) as worker, two_backends(worker, health=QUICK) as (_, two, _stack):
        await worker.call("POST", f"/v1/backends/s/v/{two_id(two)}/disable")
        checked = len(two.asked)  # one that was under way may be among them
        await metric(worker, "trioproxy_health_checks_total")
        ended = await metric(worker, "trioproxy_health_checks_total")

        async def ten_more() -> bool:
            return await metric(worker, "trioproxy_health_checks_total") >= ended + 10

        await eventually(ten_more)
        assert len(two.asked) <= checked + 1
        assert await metric(worker, 'trioproxy_health_targets{state="healthy"}') == 1


async def test_a_backend_that_must_be_checked_first_gets_nothing_before(tmp_path: Path) -> None:
    asked: list[bytes] = []
    well = trio.Event()

    async def serve(wire: Wire) -> None:
        head = await wire.read_head()
        asked.append(head.split(b" ")[1])
        if asked[-1] == b"/ready":
            await well.wait()
        await wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    health = {"kind": "http", "path": "/ready", "first_check": True, "timeout": 30, "body": "ok"}
    async with running_worker(tmp_path, TWO) as worker, raw_backend(serve) as port:
        await worker.route("s", "v", port, health=health, panic=False)
        answer = await get_fresh(worker, "/s/v/x")
        assert (answer.status, b"no_backend" in answer.body) == (503, True)
        assert (await states(worker))[str(port)] == "unhealthy"
        explained = (await worker.call("GET", "/v1/explain", params={"url": "/s/v/"})).json()
        assert any("waits for its first check" in step for step in explained["steps"])
        assert b"/x" not in asked
        well.set()
        await eventually(become(worker, port, "healthy"))
        assert (await get_fresh(worker, "/s/v/x")).status == 200


async def test_what_one_forwarder_ejects_the_other_leaves_alone(tmp_path: Path) -> None:
    passive = {"failures": 3, "eject_for": 60}
    config = TWO | {"pool": {"refused_for": 0}}  # what is only remembered is no failure of the backend
    with refusing_port() as dead:
        async with running_worker(tmp_path, config) as worker, echo_backend() as one:
            await worker.route("s", "v", one.port, dead, passive=passive, retry={"attempts": 0})
            async with connections_to_each(worker, "/s/v/nothing", 1) as connections:
                (first, *_), (second, *_) = connections.values()
                before = worker.log_lines
                statuses = [(await get(first, "/s/v/")).status for _ in range(12)]
                assert statuses[-4:] == [200] * 4
                await worker.logged("a backend is ejected", after=before)

                async def other_knows() -> bool:
                    return all([(await get(second, "/s/v/")).status == 200 for _ in range(4)])

                await eventually(other_knows, seconds=2)
            assert (await states(worker))[str(dead)] == "ejected"
            assert await metric(worker, "trioproxy_ejections_total") >= 1
            (event, *_) = await health_events(worker, state="ejected")
            assert "in a row" in event["reason"]
            for restarts, pid in enumerate(worker.forwarders(), 1):
                hurt(pid, signal.SIGKILL)
                await all_ready(worker, restarts)
            assert await served_by(worker, "/s/v/", [one], count=20) == [20]


async def test_an_upgrade_takes_along_what_is_known_of_backends(tmp_path: Path) -> None:
    health = QUICK | {"interval": 60, "unhealthy_after": 1, "first_check": True}
    with refusing_port() as dead:
        async with running_worker(tmp_path, TWO) as worker, echo_backend() as one, echo_backend() as two:
            await worker.route("s", "v", one.port, two.port, dead, health=health)
            await eventually(become(worker, dead, "unhealthy"))
            await eventually(become(worker, one.port, "healthy"))
            await worker.call("POST", f"/v1/backends/s/v/{two_id(two)}/drain")
            pid = worker.program.pid
            assert (await worker.call("POST", "/v1/upgrade")).status_code == 202

            async def taken_over() -> bool:
                return (await worker.call("GET", "/v1/worker")).json()["pid"] != pid

            await eventually(taken_over, seconds=60)
            assert await states(worker) == {
                str(one.port): "healthy",
                str(two.port): "draining",
                str(dead): "unhealthy",
            }
            assert await served_by(worker, "/s/v/", [one, two], count=20) == [20, 0]
            assert await worker.program.ended(seconds=30) == 0  # what serves now ends with its process group
