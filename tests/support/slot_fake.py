"""A slot whose forwarders are tasks that a test can kill, hang and let speak nonsense."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import trio

from trioproxy.config.schema import Config
from trioproxy.control.channel import memory_control, serve_commands
from trioproxy.control.messages import (
    Activity,
    Answer,
    Applied,
    Command,
    Done,
    GetReport,
    Report,
    SetConfig,
    SetTable,
    StartDrain,
)
from trioproxy.errors import ControlError
from trioproxy.observe.metrics import Metrics
from trioproxy.process.events import EventLog
from trioproxy.process.launch import Running
from trioproxy.process.ledger import Ledger
from trioproxy.process.slot import Slot
from trioproxy.routing.catalog import Catalog
from trioproxy.routing.route import RouteKey


class FakeForwarder:
    """Executes commands until it is killed. `pauses` is how long it takes for a command of a kind."""

    def __init__(self, pid: int, config: Config) -> None:
        self.pid = pid
        self.config = config
        self.commands: list[Command] = []
        self.pauses: dict[type, float] = {}
        self.metrics = Metrics()
        self.activity: dict[RouteKey, Activity] = {}
        self.table_version = 0
        self.hung = False
        self.killed = trio.Event()
        self.ending: str | None = None

    @property
    def told(self) -> list[Command]:
        """The commands, but for heartbeats."""
        return [command for command in self.commands if not isinstance(command, GetReport)]

    async def execute(self, command: Command) -> Answer:
        self.commands.append(command)
        await trio.sleep(self.pauses.get(type(command), 0.0))
        if self.hung:
            await trio.sleep_forever()
        match command:
            case SetTable(table):
                self.table_version = table.version
                return Applied(table.version)
            case GetReport():
                return Report(self.table_version, False, self.metrics, (), self.activity)
            case StartDrain():
                self.end(None)
                return Done()
            case _:
                return Done()

    def end(self, ending: str | None) -> None:
        """It ends by itself, so."""
        self.ending = ending
        self.killed.set()

    def kill(self) -> None:
        """What the slot does."""
        self.end("was killed by SIGKILL")


class FakeLaunch:
    """Starts fake forwarders. `failures` are what the next starts meet: a reason, or seconds that they take."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.started: list[FakeForwarder] = []
        self.started_at: list[float] = []
        self.failures: list[str | float] = []
        self.prepare = lambda forwarder: None

    @property
    def last(self) -> FakeForwarder:
        return self.started[-1]

    async def __call__(self, index: int, *, task_status: trio.TaskStatus[Running]) -> str | None:
        self.started_at.append(trio.current_time())
        failure = self.failures.pop(0) if self.failures else 0.0
        if isinstance(failure, str):
            raise ControlError(failure)
        await trio.sleep(failure)
        forwarder = FakeForwarder(1000 + len(self.started_at), self.config)
        self.prepare(forwarder)
        self.started.append(forwarder)
        ours, theirs = memory_control()
        async with trio.open_nursery() as nursery:
            await nursery.start(serve_commands, forwarder.execute, theirs)
            task_status.started(Running(forwarder.pid, ours, SetConfig(self.config), forwarder.kill))
            await forwarder.killed.wait()
            nursery.cancel_scope.cancel()
        return forwarder.ending


class SlotWorld:
    """A slot, and what it needs around it."""

    def __init__(self) -> None:
        self.config = Config()
        self.catalog = Catalog(["p"])
        self.catalog.replace("p", ())
        self.extra: tuple[Command, ...] = ()
        self.events = EventLog(clock=lambda: 0.0)
        self.ledger = Ledger(lambda: self.catalog.table)
        self.launch = FakeLaunch(self.config)
        self.slot = Slot(
            self.launch,
            standing=self._standing,
            ledger=self.ledger,
            events=self.events,
            index=3,
            clock=trio.current_time,
            rng=lambda: 0.0,
        )
        self.first_failure: str | None = "not told"

    def _standing(self) -> tuple[Command, ...]:
        return SetConfig(self.config), SetTable(self.catalog.table), *self.extra

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """The slot runs; it is drained at the end, if that was not done."""
        async with trio.open_nursery() as nursery:
            self.first_failure = await nursery.start(self.slot.run)
            yield
            await self.slot.drain(0.0)
            await self.slot.ended.wait()
            nursery.cancel_scope.cancel()

    def told(self) -> list[dict[str, object]]:
        """What the events so far say."""
        return [event.detail for event in self.events._events]
