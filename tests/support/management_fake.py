"""A worker for tests of the management API: a real catalog, and everything else as the test says."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio

from trioproxy.config.schema import Config
from trioproxy.control.messages import Activity, AdminState, BackendInfo, ConnectionInfo, Report
from trioproxy.control.worker import (
    CertificateInfo,
    Change,
    Event,
    Explanation,
    ForwarderInfo,
    HealthFigures,
    LastCheck,
    ProviderInfo,
    Readiness,
    UpgradeInfo,
)
from trioproxy.observe.metrics import Metrics
from trioproxy.routing.catalog import Catalog
from trioproxy.routing.route import Route, RouteKey

TOKEN = "a-token-for-tests"


def route(session_id: str = "s1", service: str = "jupyter", **fields: Any) -> Route:
    fields.setdefault("backends", ({"host": "10.0.0.5", "port": 8888},))
    return Route(session_id=session_id, service=service, **fields)


def backend(session_id: str = "s1", service: str = "jupyter", **fields: Any) -> BackendInfo:
    known: dict[str, Any] = {
        "backend_id": "10.0.0.5:8888",
        "address": "10.0.0.5:8888",
        "weight": 1,
        "state": "healthy",
        "in_flight": 0,
        "requests": 0,
        "failures": 0,
        "last_error": None,
        "last_error_at": None,
    }
    return BackendInfo(session_id=session_id, service=service, **{**known, **fields})


def connection(identity: str, opened_at: float) -> ConnectionInfo:
    return ConnectionInfo(
        identity, "192.0.2.1:5000", "web", "http", "s1", "jupyter", None, "GET", "/", opened_at, 1, 10, 20
    )


class FakeWorker:
    """Writes go into the provider "store" of `catalog`. Public attributes are what a test sets."""

    def __init__(self, config: Config | None = None) -> None:
        self.config = config or Config()
        self.catalog = Catalog(["store", "file"])
        self.catalog.replace("store", ())
        self.started_at = time.time() - 100
        self.appeared: dict[RouteKey, float] = {}
        self.ready = Readiness(ready=True)
        self.applied = True
        self.write_error: Exception | None = None
        self.reload_error: Exception | None = None
        self.upgrade = UpgradeInfo("none")
        self.no_upgrade: str | None = None
        self.needs_restart: tuple[str, ...] = ()
        self.block: trio.Event | None = None
        """While set and unset, no awaited call answers."""
        self.stopped_inside = 0
        self.called = trio.Event()
        self.unwatched = trio.Event()
        self.backends: tuple[BackendInfo, ...] = ()
        self.live: tuple[ConnectionInfo, ...] = ()
        self.activity: dict[RouteKey, Activity] = {}
        self.counters = Metrics()
        self.closed: list[str] = []
        self.checks: dict[tuple[RouteKey, str], LastCheck] = {}
        self.health = HealthFigures()
        self.backend_states: dict[tuple[RouteKey, str], AdminState] = {}
        self.calls: list[str] = []
        self.history: list[Event] = []
        self.watchers: list[trio.MemorySendChannel[Event]] = []
        self.known_certificates: list[CertificateInfo] = []
        self.known_providers = [ProviderInfo("store", up=True, routes=0, synced_at=self.started_at)]

    def readiness(self) -> Readiness:
        return self.ready

    async def _work(self, name: str) -> None:
        self.calls.append(name)
        self.called.set()
        try:
            await trio.lowlevel.checkpoint()
            if self.block is not None:
                await self.block.wait()
        except trio.Cancelled:
            self.stopped_inside += 1
            raise
        if self.write_error is not None:
            raise self.write_error

    def _change(self, *, created: bool = False) -> Change:
        return Change(self.catalog.version, applied=self.applied, created=created)

    async def put_route(self, route: Route) -> Change:
        await self._work("put_route")
        created = route.key not in self.catalog.of_provider("store")
        self.catalog.change("store", upsert=[route])
        return self._change(created=created)

    async def remove_routes(self, keys: list[RouteKey]) -> Change | None:
        await self._work("remove_routes")
        if not any(key in self.catalog.of_provider("store") for key in keys):
            return None
        self.catalog.change("store", remove=keys)
        return self._change()

    async def patch_routes(self, upsert: list[Route], remove: list[RouteKey]) -> Change:
        await self._work("patch_routes")
        self.catalog.change("store", upsert=upsert, remove=remove)
        return self._change()

    async def replace_routes(self, routes: list[Route], *, if_version: int | None = None) -> Change | None:
        await self._work("replace_routes")
        if if_version not in (None, self.catalog.version):
            return None
        self.catalog.replace("store", routes)
        return self._change()

    async def report(self, *, connections: bool = False) -> Report:
        await self._work("report")
        return Report(
            table_version=self.catalog.version,
            draining=False,
            metrics=self.counters,
            backends=self.backends,
            activity=self.activity,
            connections=self.live if connections else (),
        )

    def last_check(self, route: RouteKey, backend_id: str) -> LastCheck | None:
        return self.checks.get((route, backend_id))

    def health_figures(self) -> HealthFigures:
        return self.health

    async def close_connection(self, connection_id: str) -> bool:
        await self._work("close_connection")
        self.closed.append(connection_id)
        return any(connection.id == connection_id for connection in self.live)

    async def set_backend(self, route: RouteKey, backend_id: str, state: AdminState) -> bool:
        await self._work("set_backend")
        found = self.catalog.table.get(route)
        if found is None or backend_id not in {backend.id for backend in found.backends}:
            return False
        self.backend_states[route, backend_id] = state
        return True

    def forwarders(self) -> list[ForwarderInfo]:
        return [ForwarderInfo(0, 4711, "ready", self.catalog.version, self.started_at, restarts=2)]

    def certificates(self) -> list[CertificateInfo]:
        return self.known_certificates

    def providers(self) -> list[ProviderInfo]:
        return self.known_providers

    def appeared_at(self, key: RouteKey) -> float:
        return self.appeared.get(key, self.started_at)

    async def explain(self, url: str) -> Explanation:
        await self._work("explain")
        if not url.startswith(("/", "http://", "https://")):
            raise ValueError("is neither an http(s) URL nor a path")
        return Explanation(url, "refuse", 404, "no_route", steps=("No route has this path.",))

    @asynccontextmanager
    async def events(self, *, after: int | None = None) -> AsyncIterator[AsyncIterator[Event]]:
        send, receive = trio.open_memory_channel[Event](100)
        for event in self.history:
            if after is not None and event.id > after:
                send.send_nowait(event)
        self.watchers.append(send)
        try:
            yield receive
        finally:
            self.watchers.remove(send)
            self.unwatched.set()
            send.close()
            receive.close()

    def tell(self, kind: str, **detail: Any) -> None:
        event = Event(len(self.history) + 1, 1000.5, kind, detail)
        self.history.append(event)
        for watcher in self.watchers:
            watcher.send_nowait(event)

    def start_drain(self) -> None:
        self.calls.append("start_drain")

    def start_upgrade(self) -> str | None:
        self.calls.append("start_upgrade")
        return self.no_upgrade

    async def reload(self) -> tuple[str, ...]:
        await self._work("reload")
        if self.reload_error is not None:
            raise self.reload_error
        return self.needs_restart
