"""The running worker, as the management API asks it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace

import trio

from trioproxy.config.schema import Config
from trioproxy.control.messages import AdminState, CloseConnection, Command, Done, Report, SetBackend
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
from trioproxy.process.care import Care
from trioproxy.process.events import EventLog
from trioproxy.process.explain import explain_url
from trioproxy.process.fleet import Fleet
from trioproxy.process.intake import Intake
from trioproxy.process.lifecycle import Lifecycle
from trioproxy.process.publisher import Publisher
from trioproxy.process.settings import Settings
from trioproxy.process.upgrade import Upgrade
from trioproxy.process.writes import Writes
from trioproxy.routing.catalog import Catalog
from trioproxy.routing.route import Route, RouteKey


class RunningWorker:
    """Answers from what the supervisor holds, and asks the forwarders for the rest. `clock` tells epoch seconds."""

    def __init__(
        self,
        *,
        settings: Settings,
        catalog: Catalog,
        intake: Intake,
        writes: Writes,
        fleet: Fleet,
        publisher: Publisher,
        care: Care,
        events: EventLog,
        lifecycle: Lifecycle,
        upgrade: Upgrade,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._catalog = catalog
        self._intake = intake
        self._writes = writes
        self._fleet = fleet
        self._publisher = publisher
        self._care = care
        self._events = events
        self._lifecycle = lifecycle
        self._upgrade = upgrade
        self._started_at = clock()

    @property
    def config(self) -> Config:
        """The configuration in force."""
        return self._settings.config

    @property
    def catalog(self) -> Catalog:
        """Routes of all providers, merged."""
        return self._catalog

    @property
    def started_at(self) -> float:
        """Seconds since the epoch."""
        return self._started_at

    def readiness(self) -> Readiness:
        """Whether this worker should get traffic, and if not, why."""
        reasons: list[str] = []
        draining = self._lifecycle.draining.is_set()
        if draining:
            reasons.append("draining")
        if not self._catalog.table.synced:
            reasons.append("no provider has delivered its routes yet")
        if not self._fleet.serves and not draining:  # that one has drained already is nothing to look into
            reasons.append("no forwarder serves the routes")
        return Readiness(not reasons, tuple(reasons))

    async def put_route(self, route: Route) -> Change:
        """Create or replace one API-set route. Raises ProviderError when it cannot be kept."""
        return await self._writes.put(route)

    async def remove_routes(self, keys: list[RouteKey]) -> Change | None:
        """Remove API-set routes in one version; None when none of them was there."""
        return await self._writes.remove(keys)

    async def patch_routes(self, upsert: list[Route], remove: list[RouteKey]) -> Change:
        """Upsert and remove API-set routes in one version."""
        return await self._writes.patch(upsert, remove)

    async def replace_routes(self, routes: list[Route], *, if_version: int | None = None) -> Change | None:
        """Replace all API-set routes at once; None when `if_version` is not the version in force."""
        return await self._writes.replace(routes, if_version=if_version)

    async def report(self, *, connections: bool = False) -> Report:
        """Figures of all forwarders, folded; of one that does not answer, what it has told last."""
        report = await self._fleet.report(connections=connections)
        return replace(report, backends=self._care.complete(report.backends))

    async def close_connection(self, connection_id: str) -> bool:
        """Close a client connection; False when there is none of that id."""
        return await self._found(CloseConnection(connection_id))

    async def set_backend(self, route: RouteKey, backend_id: str, state: AdminState) -> bool:
        """Drain, disable or enable a backend in every forwarder; False when it does not exist."""
        if not self._care.knows(route, backend_id):
            await trio.lowlevel.checkpoint()
            return False
        # Noted first, so that a forwarder that comes up meanwhile cannot miss it.
        self._care.set_admin(route, backend_id, state)
        command = SetBackend(route, backend_id, state)
        answers = await self._fleet.ask(command)
        if not all(isinstance(answer, Done) and answer.found for answer in answers):
            await self._publisher.publish()  # one of them was told before it had the route
            await self._fleet.ask(command)
        return True

    def last_check(self, route: RouteKey, backend_id: str) -> LastCheck | None:
        """The last active check of a backend."""
        return self._care.last_check(route, backend_id)

    def health_figures(self) -> HealthFigures:
        """What is counted about the health of backends."""
        return self._care.figures()

    def forwarders(self) -> list[ForwarderInfo]:
        """The forwarders, by index."""
        return self._fleet.infos()

    def certificates(self) -> list[CertificateInfo]:
        """The certificates in use."""
        return self._settings.certificates()

    def providers(self) -> list[ProviderInfo]:
        """The sources of routes."""
        return self._intake.providers(self._catalog.counts())

    def appeared_at(self, key: RouteKey) -> float:
        """When a route came to be known to this run of the worker."""
        return self._intake.appeared_at(key) or self._started_at

    async def explain(self, url: str) -> Explanation:
        """What would happen to a GET of this URL. Raises ValueError when it is not an http(s) URL or a path."""
        report = await self.report()
        config = self.config
        return explain_url(
            url,
            self._catalog.table,
            report,
            header_count=config.limits.header_count,
            panic=config.health.panic,
        )

    def events(self, *, after: int | None = None) -> AbstractAsyncContextManager[AsyncIterator[Event]]:
        """Events as they happen, after the kept ones with an id above `after`."""
        return self._events.subscribe(after=after)

    def start_drain(self) -> None:
        """Begin to shut down; returns at once."""
        self._lifecycle.start_drain()

    @property
    def upgrade(self) -> UpgradeInfo:
        """How the last upgrade fares."""
        return self._upgrade.info

    def start_upgrade(self) -> str | None:
        """Begin to hand over to a new generation of the program, soon; or the reason why not."""
        return self._upgrade.request()

    async def reload(self) -> tuple[str, ...]:
        """Read everything again; the keys that need a restart. Raises ConfigError, and then nothing has changed."""
        return await self._settings.reload()

    async def _found(self, command: Command) -> bool:
        return any(isinstance(answer, Done) and answer.found for answer in await self._fleet.ask(command))
