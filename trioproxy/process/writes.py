"""Writes of the management API: kept first, then in the table, then with the forwarders, then answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from trioproxy.control.worker import Change
from trioproxy.process.intake import Intake
from trioproxy.process.publisher import Publisher
from trioproxy.routing.catalog import Catalog
from trioproxy.routing.route import Route, RouteKey

PROVIDER = "store"


class Store(Protocol):
    """Keeps API-set routes. Calls raise ProviderError, and then nothing has changed.

    One that is cancelled either has changed nothing or returns normally.
    """

    async def apply(self, *, upsert: Sequence[Route], remove: Sequence[RouteKey], version: int) -> None:
        """Keep a delta."""
        ...

    async def replace(self, routes: Sequence[Route], *, version: int) -> None:
        """Keep these routes and no others."""
        ...


class Writes:
    """One write at a time. Each raises ProviderError when it cannot be kept; then nothing has changed."""

    def __init__(self, catalog: Catalog, store: Store, intake: Intake, publisher: Publisher) -> None:
        self._catalog = catalog
        self._store = store
        self._intake = intake
        self._publisher = publisher

    async def put(self, route: Route) -> Change:
        """Create or replace one route."""
        async with self._intake.turn:
            created = route.key not in self._held
            version = await self._change([route], [])
        return Change(version, await self._publisher.publish(), created)

    async def remove(self, keys: list[RouteKey]) -> Change | None:
        """Remove routes in one version; None when none of them was there."""
        async with self._intake.turn:
            present = [key for key in keys if key in self._held]
            if not present:
                return None
            version = await self._change([], present)
        return Change(version, await self._publisher.publish())

    async def patch(self, upsert: list[Route], remove: list[RouteKey]) -> Change:
        """Upsert and remove in one version."""
        async with self._intake.turn:
            version = await self._change(upsert, [key for key in remove if key in self._held])
        return Change(version, await self._publisher.publish())

    async def replace(self, routes: list[Route], *, if_version: int | None) -> Change | None:
        """Replace all routes; None when `if_version` is not the version in force."""
        async with self._intake.turn:
            if if_version is not None and if_version != self._catalog.version:
                return None
            version = await self._replace(routes)
        return Change(version, await self._publisher.publish())

    @property
    def _held(self) -> Mapping[RouteKey, Route]:
        return self._catalog.of_provider(PROVIDER)

    async def _replace(self, routes: list[Route]) -> int:
        step = await self._intake.plan_replace(PROVIDER, routes)
        await self._store.replace(routes, version=self._catalog.version + 1)
        self._intake.take(step)
        return self._catalog.version

    async def _change(self, upsert: list[Route], remove: list[RouteKey]) -> int:
        # No checkpoint after the store: a caller that gives up leaves nothing kept that the table does not know.
        step = self._catalog.plan_change(PROVIDER, upsert=upsert, remove=remove)
        await self._store.apply(upsert=upsert, remove=remove, version=self._catalog.version + 1)
        self._intake.take(step)
        return self._catalog.version
