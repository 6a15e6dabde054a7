"""Plays a scenario of the request path again and again, and cuts it at another step each time."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import trio
from path_scene import in_use
from trio.abc import Instrument
from trio.lowlevel import Task
from trio.testing import wait_all_tasks_blocked

from trioproxy.control.messages import CloseConnection, StartDrain
from trioproxy.proxy.live import LiveConnection
from trioproxy.testing import Harness, MemoryBackend, Wire, open_proxy
from trioproxy.testing.pipe import PipeEnd

GRACE = 5.0  # seconds from the start of a drain to the cut of what is left
TIMEOUTS = {"keep_alive": "40s", "stall": "50s", "response_head": "30s", "connect": "3s"}
CLIENT = "192.0.2.1"  # whose connection is cut; others are extras


@dataclass
class Stage:
    """What a scenario plays on. `client` is the connection that is cut."""

    harness: Harness
    client: Wire
    connection: LiveConnection
    backends: list[MemoryBackend]

    @property
    def backend(self) -> MemoryBackend:
        return self.backends[0]


Scenario = Callable[[Stage], Awaitable[None]]
"""Plays client and backends, from the client's first byte on. It may fail when it was cut."""
Cut = Callable[[Stage], None]


def client_reset(stage: Stage) -> None:
    assert isinstance(stage.client.stream, PipeEnd)
    stage.client.stream.reset()


def client_eof(stage: Stage) -> None:
    assert isinstance(stage.client.stream, PipeEnd)
    _end_sending(stage.client.stream)


def backend_reset(stage: Stage) -> None:
    for backend in stage.backends:
        for end in backend.open:
            end.reset()


def backend_eof(stage: Stage) -> None:
    for backend in stage.backends:
        for end in backend.open:
            _end_sending(end)


def operator(stage: Stage) -> None:
    stage.harness.proxy.execute(CloseConnection(stage.connection.id))


def drain(stage: Stage) -> None:
    stage.harness.proxy.execute(StartDrain(GRACE))


def late(stage: Stage) -> None:
    """What the watch does when it finds that the connection has waited for too long."""
    connection = stage.connection
    if connection.due < math.inf:
        connection.due, connection.late = math.inf, True
        connection.scope.cancel()


def nothing(stage: Stage) -> None:
    return


CUTS: list[Cut] = [client_reset, client_eof, backend_reset, backend_eof, operator, drain, late]


def _end_sending(end: PipeEnd) -> None:
    if not end.closed:
        end.end()


class Steps(Instrument):
    """Counts the steps of the first connection's tasks, and cuts behind the `at`-th: then the task waits for something.

    With `early` it cuts in front of that step: what the task waited for has come, and it does not know yet.
    """

    def __init__(self, at: int, *, early: bool) -> None:
        self.count = 0
        self.cut: Callable[[], None] | None = None
        self._at = at
        self._early = early
        self._tasks: set[Task] = set()

    def task_spawned(self, task: Task) -> None:
        parent = task.parent_nursery.parent_task if task.parent_nursery else None
        first = not self._tasks and task.name.endswith("Harness.connect.<locals>.serve")
        if first or parent in self._tasks:
            self._tasks.add(task)

    def before_task_step(self, task: Task) -> None:
        if task in self._tasks:
            self.count += 1
            if self._early:
                self._cut_if_due()

    def after_task_step(self, task: Task) -> None:
        if task in self._tasks and not self._early:
            self._cut_if_due()

    def _cut_if_due(self) -> None:
        if self.count == self._at and self.cut is not None:
            cut, self.cut = self.cut, None
            cut()


async def play(scenario: Scenario, cut: Cut, at: int, *, early: bool, pool: dict[str, Any]) -> int:
    """Play once, cut at this step, and check that nothing is left; how many steps there were."""
    async with open_proxy(config={"timeouts": TIMEOUTS, "pool": pool}) as harness:
        backends = [harness.network.listen(f"kernel{number}", 8888) for number in (1, 2)]
        harness.set_routes([backends[0].route("s", "web", backends=[one.as_backend() for one in backends])])
        steps = Steps(at, early=early)
        with _listening(steps):
            client = await harness.connect(host=CLIENT)
            await wait_all_tasks_blocked()
            [connection] = harness.proxy.live
            stage = Stage(harness, client, connection, backends)
            steps.cut = lambda: cut(stage)
            with trio.fail_after(10_000):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_perform, scenario, stage)
                    await _end(harness)
                    nursery.cancel_scope.cancel()
        await _check(harness, connection)
        return steps.count


async def _perform(scenario: Scenario, stage: Stage) -> None:
    try:
        await scenario(stage)
    except* (EOFError, trio.BrokenResourceError, trio.ClosedResourceError):
        pass
    await stage.client.aclose()


async def _end(harness: Harness) -> None:
    """Wait until all connections have ended; in a drain, cut them when its grace is over, as a forwarder does."""
    async with trio.open_nursery() as nursery:

        async def cut_late_ones() -> None:
            await harness.proxy.drain.started.wait()
            await trio.sleep(GRACE)
            for connection in list(harness.proxy.live):
                connection.scope.cancel()

        nursery.start_soon(cut_late_ones)
        await harness.all_ended()
        nursery.cancel_scope.cancel()


async def _check(harness: Harness, connection: LiveConnection) -> None:
    await trio.sleep(60)  # idle connections expire, and the reaper comes by
    await wait_all_tasks_blocked()
    assert {name: count for name, count in in_use(harness).items() if count} == {}
    assert harness.network.leaked() == []
    assert harness.proxy.pool._rooms == {}
    records = [record for record in harness.records if record.client == CLIENT]
    assert len(records) == connection.requests
    assert all(record.status or record.error for record in records)


@contextmanager
def _listening(instrument: Instrument) -> Generator[None]:
    trio.lowlevel.add_instrument(instrument)
    try:
        yield
    finally:
        trio.lowlevel.remove_instrument(instrument)
