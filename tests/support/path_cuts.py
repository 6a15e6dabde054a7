"""Plays a scenario of the request path again and again, and cuts it at another step each time."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import trio
from path_scene import in_use
from trio.abc import Instrument
from trio.lowlevel import Task
from trio.testing import wait_all_tasks_blocked

from trioproxy.control.messages import CloseConnection, StartDrain
from trioproxy.proxy.live import LiveConnection
from trioproxy.testing import Harness, MemoryBackend, Wire, open_proxy

GRACE = 5.0  # seconds from the start of a drain to the cut of what is left
CONFIG = {"timeouts": {"keep_alive": "40s", "stall": "50s", "response_head": "30s", "connect": "3s"}}


@dataclass
class Stage:
    """What a scenario plays on. `client` is the connection that is cut."""

    harness: Harness
    client: Wire
    connection: LiveConnection
    backends: list[MemoryBackend]
    tasks: list[Callable[[], Awaitable[None]]] = field(default_factory=list)

    @property
    def backend(self) -> MemoryBackend:
        return self.backends[0]


Scenario = Callable[[Stage], Awaitable[None]]
"""Plays client and backends at once, from the client's first byte on; may fail when it was cut."""
Cut = Callable[[Stage], None]


def client_reset(stage: Stage) -> None:
    assert isinstance(stage.client.stream, type(stage.client.stream))
    stage.client.stream.reset()  # type: ignore[attr-defined]


def client_eof(stage: Stage) -> None:
    if not stage.client.stream.closed:  # type: ignore[attr-defined]
        stage.client.stream.end()  # type: ignore[attr-defined]


def backend_reset(stage: Stage) -> None:
    for backend in stage.backends:
        for end in backend.open:
            end.reset()


def backend_eof(stage: Stage) -> None:
    for backend in stage.backends:
        for end in backend.open:
            if not end.closed:
                end.end()


def cancel(stage: Stage) -> None:
    stage.harness.proxy.execute(CloseConnection(stage.connection.id))


def drain(stage: Stage) -> None:
    stage.harness.proxy.execute(StartDrain(GRACE))


def nothing(stage: Stage) -> None:
    return


CUTS: list[Cut] = [client_reset, client_eof, backend_reset, backend_eof, cancel, drain]


class Steps(Instrument):
    """Counts the steps of one connection's tasks, and cuts behind the `at`-th: the task waits for something then.

    With `early` it cuts in front of that step: what the task waited for has come already, and it does not know yet.
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


async def play(scenario: Scenario, cut: Cut, at: int, *, early: bool = False, **pool: Any) -> int:
    """Play once, cut at this step, and check that nothing is left; how many steps there were."""
    async with open_proxy(config={**CONFIG, "pool": pool}) as harness:
        steps = Steps(at, early=early)
        backends = [harness.network.listen(f"kernel{number}", 8888) for number in (1, 2)]
        harness.set_routes([backends[0].route("s", "web", backends=[one.as_backend() for one in backends])])
        async with _instrument(steps):
            client = await harness.connect()
            while not len(harness.proxy.live):
                await trio.lowlevel.checkpoint()
            stage = Stage(harness, client, next(iter(harness.proxy.live)), backends)
            steps.cut = lambda: cut(stage)
            with trio.fail_after(10_000):
                with suppress(EOFError, trio.BrokenResourceError, trio.ClosedResourceError):
                    await scenario(stage)
                await client.aclose()
                await _end(harness)
        await _check(harness, stage)
        return steps.count


async def _end(harness: Harness) -> None:
    if harness.proxy.drain.active:
        with trio.move_on_after(GRACE):
            await harness.all_ended()
        for connection in list(harness.proxy.live):
            connection.end("the grace is over", error="draining")
    await harness.all_ended()


async def _check(harness: Harness, stage: Stage) -> None:
    await trio.sleep(60)  # idle connections expire, and the reaper comes by
    await wait_all_tasks_blocked()
    assert {name: count for name, count in in_use(harness).items() if count} == {}
    assert harness.network.leaked() == []
    assert harness.proxy.pool.rooms == 0
    mine = [record for record in harness.records if record.client == "192.0.2.1"]
    assert len(mine) == stage.connection.requests
    assert all(record.status or record.error for record in mine)


@asynccontextmanager
async def _instrument(instrument: Instrument) -> AsyncGenerator[None]:
    trio.lowlevel.add_instrument(instrument)
    try:
        yield
    finally:
        trio.lowlevel.remove_instrument(instrument)
