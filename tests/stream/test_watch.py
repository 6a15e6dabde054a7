"""The one task that looks after the waits of all connections."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio
from path_scene import GET, exchange, proxy, scene
from trio.testing import MockClock, wait_all_tasks_blocked

from trioproxy.net.peer import Peer
from trioproxy.proxy.live import LiveConnection, LiveConnections
from trioproxy.proxy.watch import LOOK_SECONDS, Watch

PEER = Peer(
    host="192.0.2.1", port=1, local_host="192.0.2.2", local_port=80, listener="web", tls=False, server_name=None
)
Wait = Callable[[Watch, LiveConnection], Awaitable[None]]


class Scene:
    """A watch, and connections that wait; `ended` says when each of them was late, by its id."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.connections = LiveConnections()
        self.watch = Watch(self.connections)
        self.ended: dict[str, float] = {}
        self._nursery = nursery

    def add(self, name: str, wait: Wait) -> LiveConnection:
        connection = LiveConnection(name, PEER)
        self.connections.add(connection)

        async def serve() -> None:
            with connection.open_scope():
                await wait(self.watch, connection)
            if connection.late:
                self.ended[name] = trio.current_time()
            self.connections.remove(connection)

        self._nursery.start_soon(serve)
        return connection


@asynccontextmanager
async def watching() -> AsyncGenerator[Scene]:
    with trio.fail_after(10_000):
        async with trio.open_nursery() as nursery:
            watched = Scene(nursery)
            nursery.start_soon(watched.watch.run)
            await wait_all_tasks_blocked()
            yield watched
            nursery.cancel_scope.cancel()


def for_seconds(*waits: float) -> Wait:
    """Has so many seconds for each thing in turn, is done with all but the last after one, and waits for that."""

    async def wait(watch: Watch, connection: LiveConnection) -> None:
        for number, seconds in enumerate(waits, 1):
            watch.expect(connection, seconds, trio.current_time())
            await trio.sleep(1 if number < len(waits) else 5000)

    return wait


async def test_each_of_many_is_late_when_its_time_is_up_and_not_before(autojump_clock: MockClock) -> None:
    count = 1000
    async with watching() as scene:
        for number in range(count):
            scene.add(str(number), for_seconds(5 + number % 50))
        await trio.sleep(100)
        assert scene.ended == {str(number): 5 + number % 50 for number in range(count)}
        assert len(scene.connections) == 0


@pytest.mark.parametrize(
    ("waits", "late_at"),
    [((100, 3), 4), ((3, 100), 101), ((0, 3), 4), ((3, 0), None), ((2.5, 2.5, 2.5), 4.5), ((40, 40, 40, 1.5), 4.5)],
)
async def test_what_counts_is_the_last_wait(
    waits: tuple[float, ...], late_at: float | None, autojump_clock: MockClock
) -> None:
    async with watching() as scene:
        scene.add("it", for_seconds(*waits))
        scene.add("other", for_seconds(1000))
        await trio.sleep(500)
        assert scene.ended.get("it") == late_at
        assert "other" not in scene.ended


async def test_waits_that_are_over_in_no_time_are_late_by_a_look_around_at_most(autojump_clock: MockClock) -> None:
    async with watching() as scene:
        for number in range(500):
            scene.add(str(number), for_seconds(1 + number * 1e-6))
        await trio.sleep(2)
        for name, at in scene.ended.items():
            assert 0 <= at - (1 + int(name) * 1e-6) <= 500 * LOOK_SECONDS
        assert len(scene.ended) == 500


async def test_one_that_waits_for_nothing_any_more_is_left_alone(autojump_clock: MockClock) -> None:
    async with watching() as scene:

        async def wait(watch: Watch, connection: LiveConnection) -> None:
            watch.expect(connection, 3, trio.current_time())
            await trio.sleep(1)
            connection.open_scope()  # what it does next keeps its own time
            await trio.sleep(10)

        connection = scene.add("it", wait)
        await trio.sleep(5)
        assert not connection.late
        assert not connection.scope.cancel_called
        assert not scene.ended


@pytest.mark.parametrize("requests", [0, 1, 2])
async def test_an_idle_connection_ends_to_the_second(requests: int, autojump_clock: MockClock) -> None:
    async with proxy({"timeouts": {"head": "7s", "keep_alive": "11s"}}) as harness:
        backend = harness.network.listen("kernel", 8888)
        harness.set_routes([backend.route("s", "web")])
        if not requests:
            client = await harness.connect()
        else:
            client, served, _ = await exchange(harness, backend)
            for _ in range(requests - 1):
                await trio.sleep(10.5)
                await client.send(GET)
                await served.read_head()
                await served.send(b"HTTP/1.1 204 No Content\r\n\r\n")
                await client.read_response()
        idle_since = trio.current_time()
        assert await client.read_all() == b""
        assert trio.current_time() == idle_since + (11 if requests else 7)
        assert len(harness.records) == requests


async def test_a_request_in_the_instant_in_which_the_connection_expires_is_answered(autojump_clock: MockClock) -> None:
    async with scene({"timeouts": {"keep_alive": "11s"}}) as (harness, backend):
        client, served, _ = await exchange(harness, backend)
        [connection] = harness.proxy.live
        await client.send(GET)  # it has come, and the connection's task has not run yet
        connection.due, connection.late = float("inf"), True
        connection.scope.cancel()
        await served.read_head()
        await served.send(b"HTTP/1.1 204 No Content\r\n\r\n")
        assert (await client.read_response()).status == 204
        await wait_all_tasks_blocked()
        assert len(harness.records) == 2
