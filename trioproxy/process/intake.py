"""Where providers deliver: into the catalog, on to the forwarders, and into the event log."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import trio

from trioproxy.control.collector import many_objects
from trioproxy.control.worker import ProviderInfo
from trioproxy.process.events import EventLog
from trioproxy.process.publisher import Publisher
from trioproxy.routing.catalog import Catalog, Step
from trioproxy.routing.route import Route, RouteKey
from trioproxy.routing.table import Table

FEW = 1000
"""Routes, before and after, that are merged at once; it takes a thread to merge more without a pause for others."""
MAX_NAMED = 100
"""Routes that one event names; beyond it tells only how many."""

_LOG = logging.getLogger("trioproxy.process.intake")


class Watcher(Protocol):
    """Who has to know at once when routes change."""

    def routes_changed(self, keys: Iterable[RouteKey], table: Table) -> None:
        """These may differ from before, in this table."""
        ...


@dataclass(slots=True)
class _Health:
    synced_at: float | None = None
    error: str | None = None


class Intake:
    """The sink of all providers. `clock` tells seconds since the epoch."""

    def __init__(
        self,
        catalog: Catalog,
        publisher: Publisher,
        events: EventLog,
        *,
        watcher: Watcher,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._catalog = catalog
        self._publisher = publisher
        self._events = events
        self._watcher = watcher
        self._clock = clock
        self._health: dict[str, _Health] = {}
        self.turn = trio.Lock()
        """Held by whoever changes the catalog, from before the change is worked out until it is made."""
        self._appeared: dict[RouteKey, float] = {}

    async def replace(self, provider: str, routes: Iterable[Route]) -> None:
        """Take a full snapshot of one provider."""
        async with self.turn:
            self.take(await self.plan_replace(provider, routes))

    async def change(self, provider: str, *, upsert: Iterable[Route] = (), remove: Iterable[RouteKey] = ()) -> None:
        """Take a delta of one provider."""
        async with self.turn:
            self.take(self._catalog.plan_change(provider, upsert=upsert, remove=remove))

    async def plan_replace(self, provider: str, routes: Iterable[Route]) -> Step:
        """Work out a full snapshot of one provider, which may take a second; the caller has the `turn`."""
        routes = list(routes)
        if len(routes) + len(self._catalog.of_provider(provider)) <= FEW:
            await trio.lowlevel.checkpoint()
            return self._catalog.plan_replace(provider, routes)
        with many_objects():
            return await trio.to_thread.run_sync(self._catalog.plan_replace, provider, routes)

    def take(self, step: Step) -> None:
        """Make a step that was worked out since the caller has the `turn`."""
        changed = self._catalog.take(step)
        self._synced(step.provider)
        if changed:
            self._announce(step.provider, step.upserted, step.removed)

    def failed(self, provider: str, error: str) -> None:
        """Take note that the last read failed; what was delivered before stays."""
        health = self._health.setdefault(provider, _Health())
        if health.error != error:
            _LOG.warning("a provider failed", extra={"provider": provider, "error": error})
        health.error = error

    def providers(self, counts: Mapping[str, int]) -> list[ProviderInfo]:
        """Everybody who ever delivered or failed, with `counts` of routes by provider."""
        return [
            ProviderInfo(name, health.error is None, counts.get(name, 0), health.synced_at, health.error)
            for name, health in self._health.items()
        ]

    def appeared_at(self, key: RouteKey) -> float | None:
        """When a route that is there now came to be known; None when it is not there."""
        return self._appeared.get(key)

    def _synced(self, provider: str) -> None:
        health = self._health.setdefault(provider, _Health())
        if health.error is not None:
            _LOG.info("a provider works again", extra={"provider": provider})
        health.error = None
        health.synced_at = self._clock()

    def _announce(self, provider: str, upserted: Sequence[RouteKey], removed: Sequence[RouteKey]) -> None:
        version = self._catalog.version
        self._publisher.wake()
        self._watcher.routes_changed([*upserted, *removed], self._catalog.table)
        now = self._clock()
        for key in upserted:
            self._appeared.setdefault(key, now)
        for key in removed:
            if self._catalog.table.get(key) is None:
                self._appeared.pop(key, None)
        if not upserted and not removed:
            return  # a first snapshot without routes
        counts = {"upserted": len(upserted), "removed": len(removed)}
        _LOG.info("routes changed", extra={"provider": provider, "version": version, **counts})
        detail: dict[str, object] = {"provider": provider, "version": version, "counts": counts}
        if len(upserted) + len(removed) <= MAX_NAMED:
            detail |= {"upserted": sorted(upserted), "removed": sorted(removed)}
        self._events.add("route", **detail)
