"""A supervisor with everything that touches the world replaced: no sockets, no files, no signals."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import trio

from trioproxy.config.loader import Loaded
from trioproxy.config.schema import Config, ListenerConfig, TlsConfig
from trioproxy.control.channel import ForwarderEnd
from trioproxy.control.messages import (
    Answer,
    Applied,
    Command,
    Done,
    GetReport,
    Refused,
    Report,
    SetConfig,
    SetTable,
    StartDrain,
)
from trioproxy.errors import ConfigError, ProviderError, StartError
from trioproxy.net.certificates import CertificateInfo, Shelf
from trioproxy.observe.metrics import Metrics
from trioproxy.process.care import Care
from trioproxy.process.events import EventLog
from trioproxy.process.fleet import Fleet
from trioproxy.process.forwarder import run_forwarder
from trioproxy.process.intake import Intake
from trioproxy.process.launch import LocalLaunch
from trioproxy.process.ledger import Ledger
from trioproxy.process.lifecycle import Lifecycle
from trioproxy.process.notify import Notifier
from trioproxy.process.publisher import Publisher
from trioproxy.process.settings import Settings
from trioproxy.process.slot import Slot
from trioproxy.process.sockets import Bound, Plan
from trioproxy.process.sources import PRIORITY, Sources
from trioproxy.process.supervisor import Supervisor
from trioproxy.process.upgrade import Upgrade
from trioproxy.process.worker import RunningWorker
from trioproxy.process.writes import Writes
from trioproxy.routing.catalog import Catalog
from trioproxy.routing.route import Route, RouteKey


def route(session_id: str = "s", service: str = "v", port: int = 80) -> Route:
    return Route.model_validate(
        {"session_id": session_id, "service": service, "backends": [{"host": "10.0.0.5", "port": port}]}
    )


class FakeDrain:
    def __init__(self) -> None:
        self.started = trio.Event()


class FakePlane:
    """A data plane that carries nothing. `connection` is what the next connection does."""

    def __init__(self, log: list[str]) -> None:
        self.drain = FakeDrain()
        self.commands: list[Command] = []
        self.table_version = 0
        self.log = log
        self.bug: Exception | None = None
        self.hangs = False
        self.refuses: type[Command] | None = None
        self.crash = trio.Event()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started()
        await self.crash.wait()
        raise ZeroDivisionError("a bug in the data plane")

    async def execute(self, command: Command) -> Answer:
        await trio.lowlevel.checkpoint()
        self.commands.append(command)
        if self.refuses is not None and isinstance(command, self.refuses):
            return Refused(("no way",))
        if isinstance(command, SetTable):
            self.table_version = max(self.table_version, command.table.version)
            return Applied(0 if self.hangs else self.table_version)
        if isinstance(command, StartDrain):
            self.log.append("forwarder told to drain")
            self.drain.started.set()
        if isinstance(command, GetReport):
            return Report(self.table_version, self.drain.started.is_set(), Metrics(), ())
        return Done()


class FakeListener:
    """Accepts whoever calls `connect`."""

    def __init__(self, log: list[str]) -> None:
        self._nursery: trio.Nursery | None = None
        self._log = log

    async def serve(
        self, handler_nursery: trio.Nursery, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        self._log.append("accepting")
        self._nursery = handler_nursery
        task_status.started()
        try:
            await trio.sleep_forever()
        finally:
            self._log.append("accepting no more")

    def connect(self, connection: Callable[[], Awaitable[None]]) -> None:
        assert self._nursery is not None
        self._nursery.start_soon(connection)


class FakeStore:
    """Keeps in memory. `failure` is what the next writes meet."""

    def __init__(self) -> None:
        self.kept: dict[RouteKey, Route] = {}
        self.versions: list[int] = []
        self.failure: str | None = None
        self.pause = 0.0

    async def apply(self, *, upsert: Sequence[Route], remove: Sequence[RouteKey], version: int) -> None:
        await self._write(version)
        for key in remove:
            self.kept.pop(key, None)
        self.kept |= {route.key: route for route in upsert}

    async def replace(self, routes: Sequence[Route], *, version: int) -> None:
        await self._write(version)
        self.kept = {route.key: route for route in routes}

    async def save_version(self, version: int) -> None:
        await self._write(version)

    async def _write(self, version: int) -> None:
        await trio.sleep(self.pause)
        if self.failure is not None:
            raise ProviderError(self.failure)
        self.versions.append(version)


class FakeNotifier(Notifier):
    """Notes what the service manager would be told."""

    def __init__(self) -> None:
        super().__init__({})
        self.states: list[str] = []
        self._told = trio.Event()

    async def wait_for(self, *states: str) -> None:
        """Wait until this is what was told since the last call, and forget it."""
        while self.states[: len(states)] != list(states):
            self._told = trio.Event()
            await self._told.wait()
        del self.states[: len(states)]

    def _send(self, *lines: str) -> None:
        self.states.append(lines[0])
        self._told.set()


class FakeCertificates:
    def __init__(self) -> None:
        self.failure: str | None = None
        self.loaded: list[TlsConfig] = []

    def load(self, config: TlsConfig, *, wanted: bool) -> Shelf:
        if self.failure is not None:
            raise ConfigError([self.failure])
        return Shelf([])

    def use(self, shelf: Shelf, config: TlsConfig) -> None:
        self.loaded.append(config)

    def certificates(self) -> list[CertificateInfo]:
        return [CertificateInfo(("a.example",), 0.0, 1.0, "CN=x", "0a", True, "/a.pem")]


class FakeSockets:
    """Listeners without sockets. `failure` is what the next plan meets."""

    def __init__(self, config: Config) -> None:
        self.listeners = self._bound(config.listeners, ())
        self.failure: str | None = None
        self.dropped: list[Plan] = []

    @property
    def handles(self) -> tuple[int, ...]:
        return tuple(bound.handle for bound in self.listeners)

    def plan(self, wanted: Sequence[ListenerConfig]) -> Plan:
        if self.failure is not None:
            raise StartError(self.failure)
        return Plan(self._bound(wanted, self.listeners), ())

    def adopt(self, plan: Plan) -> list[Bound]:
        kept = {bound.handle for bound in plan.listeners}
        gone = [bound for bound in self.listeners if bound.handle not in kept]
        self.listeners = plan.listeners
        return gone

    def drop(self, plan: Plan) -> None:
        self.dropped.append(plan)

    def _bound(self, wanted: Sequence[ListenerConfig], there: Sequence[Bound]) -> tuple[Bound, ...]:
        known = {bound.config.bind: bound.handle for bound in there}
        nobody = cast(socket.socket, None)
        return tuple(Bound(item, nobody, known.get(item.bind, hash(item.bind))) for item in wanted)


class World:
    """A supervisor and all its parts. `log` is what happened, in order."""

    def __init__(self, config: Config | None = None, **more: Any) -> None:
        config = config or Config()
        self.log: list[str] = []
        self.plane = FakePlane(self.log)
        self.listener = FakeListener(self.log)
        self.store = FakeStore()
        self.tls = FakeCertificates()
        self.sockets = FakeSockets(config)
        self.lifecycle = Lifecycle()
        self.events = EventLog(clock=lambda: 1000.0)
        self.catalog = Catalog(PRIORITY)
        self.care = Care(lambda: self.catalog.table, self.events, defaults=config.health.active, clock=lambda: 1000.0)
        ledger = Ledger(lambda: self.catalog.table)
        self.slot = Slot(
            LocalLaunch(self._forward, self._in_force),
            standing=self._standing,
            ledger=ledger,
            events=self.events,
            replaced=False,
        )
        self.fleet = Fleet([self.slot], ledger)
        self.publisher = Publisher(self.catalog, self.fleet, self.store)
        self.intake = Intake(self.catalog, self.publisher, self.events, watcher=self.care, clock=lambda: 1000.0)
        self.sources = Sources(self.intake, config.routes, config.providers.file)
        self.next_config: Config | ConfigError = config
        self.applied: list[Config] = []
        self.settings = Settings(
            config,
            reread=self._reread,
            certificates=self.tls,
            sockets=self.sockets,
            sources=self.sources,
            fleet=self.fleet,
            publisher=self.publisher,
            events=self.events,
            applied=self.applied.append,
        )
        self.writes = Writes(self.catalog, self.store, self.intake, self.publisher)
        self.worker = RunningWorker(
            settings=self.settings,
            catalog=self.catalog,
            intake=self.intake,
            writes=self.writes,
            fleet=self.fleet,
            publisher=self.publisher,
            care=self.care,
            events=self.events,
            lifecycle=self.lifecycle,
            upgrade=cast(Upgrade, None),
            clock=lambda: 1000.0,
        )
        self.management_crash = trio.Event()
        self.notifier = FakeNotifier()
        self.supervisor = Supervisor(
            lifecycle=self.lifecycle,
            settings=self.settings,
            sources=self.sources,
            fleet=self.fleet,
            release=lambda: None,
            publisher=self.publisher,
            management=self._management,
            events=self.events,
            notifier=self.notifier,
            gate=trio.Event(),
            upgrade=self._signals,
            signals=self._signals,
            ready=self._ready,
            **more,
        )
        self.ready = trio.Event()
        self.ended_at: float | None = None
        self.clean: bool | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The supervisor runs and is ready inside; it has ended outside, by the body's doing."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.run)
            await self.ready.wait()
            yield

    async def run(self) -> None:
        self.clean = await self.supervisor.run()
        self.ended_at = trio.current_time()

    def _in_force(self) -> SetConfig:
        return self.settings.in_force()

    def _standing(self) -> tuple[Command, ...]:
        return self._in_force(), SetTable(self.catalog.table), *self.care.commands()

    def _ready(self) -> None:
        self.log.append("ready")
        self.ready.set()

    def _reread(self) -> Loaded:
        if isinstance(self.next_config, ConfigError):
            raise self.next_config
        return Loaded(self.next_config, {}, None)

    async def _forward(self, end: ForwarderEnd, *, task_status: trio.TaskStatus[None]) -> None:
        await run_forwarder(self.plane, [self.listener], end, grace=lambda: 1.0, task_status=task_status)

    async def _signals(self, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        await trio.sleep_forever()

    async def _management(
        self, *, shutdown_trigger: Callable[[], Awaitable[None]], task_status: trio.TaskStatus[None]
    ) -> None:
        self.log.append("management answers")
        task_status.started()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._crash_management)
            await shutdown_trigger()
            nursery.cancel_scope.cancel()
        self.log.append("management gone")

    async def _crash_management(self) -> None:
        await self.management_crash.wait()
        raise ZeroDivisionError("a bug in the management API")
